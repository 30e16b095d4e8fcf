"""What is counted when Postfix does more with a message than pass it on.

used is the milter's count, of what it saw accepted; delivered is tokend's, of
what Microsoft took. Where the milter can't see it, tokend does.
"""

import smtplib

import pytest

import flow
import milter_server
import procs

pytestmark = pytest.mark.needs_build

RELAY, ALERTS = "relay@contoso.com", "alerts@contoso.com"
OURS = "unix:relay365m/milter"


def gateway(lab, *, mailboxes=None, **options):
    """The whole path, in a hurry."""
    for address in (RELAY, ALERTS):
        lab.sim.mailbox(address, tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                        messages_per_minute=60000)
    lab.configure(mailboxes=mailboxes or {"relay": {"messages_per_minute": 6000}})
    return flow.wire(lab, **options)


def counts(lab, name="relay"):
    """(used, delivered, reserved) of a mailbox."""
    status = flow.status(lab)
    [accepted] = [m for m in status["milter"]["mailboxes"] if m["name"] == name]
    [sent] = [m for m in status["tokend"]["mailboxes"] if m["name"] == name]
    return accepted["used"], sent["delivered"], accepted["reserved"]


def wait_counts(lab, used, delivered, name="relay"):
    """Until this is counted, and no message under way any more."""
    procs.wait_for(lambda: counts(lab, name) == (used, delivered, 0), 30,
                   lambda: "%s: (%d, %d), not %s" % (name, used, delivered, counts(lab, name)))


def table(lab, name, text):
    return "texthash:" + procs.write(lab.folder + "/" + name, text)


# -- other milters -------------------------------------------------------------

def test_milter_before_ours_refuses(lab):
    with milter_server.Server({b"R": b"no@example.net", b"E": b""}) as other:
        postfix = gateway(lab, main={"smtpd_milters": other.name + " " + OURS})
        sent = postfix.send(flow.SENDER, ["no@example.net", *flow.numbers(3)])
        assert not sent.ok and list(sent.refused) == ["no@example.net"]
        wait_counts(lab, 0, 0)


def test_milter_after_ours_refuses(lab):
    """We are not told: the count is too high, and never too low."""
    with milter_server.Server({b"R": b"no@example.net"}) as other:
        postfix = gateway(lab, main={"smtpd_milters": OURS + " " + other.name})
        sent = postfix.send(flow.SENDER, ["no@example.net", *flow.numbers(3)])
        assert sent.ok and list(sent.refused) == ["no@example.net"]
        wait_counts(lab, 4, 3)
        other.refuse[b"E"] = b""
        assert postfix.send(flow.SENDER, flow.numbers(2)).code == 550
        wait_counts(lab, 6, 3)


# -- other transports ----------------------------------------------------------

def test_another_transport_to_a_relay_host_is_counted(lab):
    """And a session that began before relay_hosts did is sent away, not let past."""
    postfix = gateway(lab, master_edit=lambda text: text + "\nplain unix - - n - - discard\n",
                      main={"transport_maps": table(
        lab, "transport", "example.org plain:[smtp.office365.com]:587\n"
        "example.com plain:[mail.example.com]\n")})
    to = ["a@example.org", "b@example.org", "c@example.com", "d@example.net"]
    assert postfix.send(flow.SENDER, to).ok
    wait_counts(lab, 1, 1)
    with smtplib.SMTP(postfix.address, postfix.port, timeout=60) as old:
        old.ehlo()
        lab.configure(mailboxes={"relay": {"messages_per_minute": 6000}},
                      relay_hosts=["smtp.office365.com"])
        lab.relay365("reload")
        old.mail(flow.SENDER)
        assert old.rcpt("d@example.net")[0] == 250
        code, text = old.rcpt("a@example.org")
        assert code == 451 and b"relay_hosts" in text
    assert postfix.send(flow.SENDER, to).ok
    wait_counts(lab, 4, 2)


# -- other addresses -----------------------------------------------------------

def test_bcc_and_forwards_are_counted_when_delivered(lab):
    procs.write(lab.folder + "/bcc", "erp@contoso.com archive@example.net\n")
    postfix = gateway(lab, main={
        "always_bcc": "all@example.net",
        "sender_bcc_maps": "texthash:" + lab.folder + "/bcc",
        "recipient_bcc_maps": table(lab, "rbcc", "r0@example.net copy@example.net\n"),
        "alias_maps": table(lab, "aliases", "team a@example.net, b@example.net\n")})
    postfix.send(flow.SENDER, ["r0@example.net"])
    wait_counts(lab, 1, 4)
    # two copies again, and a forward, which is a message of Postfix's own that no milter sees
    postfix.send(flow.SENDER, ["team@gateway.test"])
    wait_counts(lab, 1, 4 + 2 + 2)
    assert flow.accepted(lab) == 8


def test_canonical_recipient(lab):
    postfix = gateway(lab, main={"recipient_canonical_maps": table(
        lab, "canonical", "@old.example.net new@example.net\n")})
    postfix.send(flow.SENDER, ["a@old.example.net", "b@old.example.net", "c@example.net"])
    wait_counts(lab, 3, 3)


def test_canonical_sender(lab):
    """The milter counts where Postfix says at RCPT; the mail leaves by the new sender."""
    postfix = gateway(lab, mailboxes={
        "relay": {"address": RELAY, "default": True, "senders": ["*@contoso.com"],
                  "messages_per_minute": 6000},
        "alerts": {"address": ALERTS, "messages_per_minute": 6000}},
        main={"sender_canonical_maps": table(lab, "canonical",
                                             "root@srv01.lan alerts@contoso.com\n")})
    sent = postfix.send("root@srv01.lan", flow.numbers(2))
    postfix.wait_status(sent.qid, "sent", 2)
    wait_counts(lab, 2, 0, "relay")
    wait_counts(lab, 0, 2, "alerts")
    # mail from sendmail(1) is shown to the milter when it has the new sender
    qid = postfix.submit(flow.numbers(3), sender="root@srv01.lan")
    postfix.wait_status(qid, "sent", 3)
    wait_counts(lab, 3, 5, "alerts")
    told = lab.relay365("doctor", "--config-dir", postfix.config, status=None).stdout
    assert "the milter counts by the sender that the client gave" in told, told


@pytest.mark.parametrize("main", [
    {"mail_name": "ESMTP"}, {"mail_name": "8.18.1", "mail_version": "8.18.1"},
    {"mail_name": "ESMTP", "milter_macro_defaults": ""}], ids=["word", "number", "by hand"])
def test_any_mail_name(lab, main):
    """Mail from sendmail(1) is known as such whatever Postfix calls itself."""
    postfix = gateway(lab, main=main)
    qid = postfix.submit(flow.numbers(2), sender=flow.SENDER)
    postfix.wait_status(qid, "sent", 2)
    wait_counts(lab, 2, 2)
    lab.milter.wait_log(qid + ": accept mailbox=relay source=local ")


# -- mail that comes round again -----------------------------------------------

@pytest.mark.parametrize("options, used", [
    ("", 4), (" -o smtpd_milters=", 2), (" -o receive_override_options=no_milters", 2)],
    ids=["twice", "no milter", "override"])
def test_content_filter(lab, options, used):
    """It comes back by SMTP; the milter must be asked once."""
    port = procs.free_port()
    postfix = gateway(lab, main={"content_filter": "smtp:[127.0.0.1]:%d" % port}, master=(
        "127.0.0.1:%d inet n - n - - smtpd -o content_filter=%s\n" % (port, options)))
    postfix.send(flow.SENDER, flow.numbers(2))
    wait_counts(lab, used, 2)


def test_before_queue_filter(lab):
    """Milters see no end of message there: `relay365 doctor` warns, and tokend counts."""
    port = procs.free_port()
    postfix = gateway(lab, main={"smtpd_proxy_filter": "127.0.0.1:%d" % port}, master=(
        "127.0.0.1:%d inet n - n - - smtpd -o smtpd_proxy_filter= -o smtpd_milters=\n"
        "    -o smtpd_authorized_xforward_hosts=127.0.0.1\n" % port))
    postfix.send(flow.SENDER, flow.numbers(2))
    wait_counts(lab, 0, 2)


def test_requeued_mail_counts_once(lab):
    """Postfix asks no milter about it; see MAIL_IS_REQUEUED in its pickup(8)."""
    postfix = gateway(lab, main={"defer_transports": "relay365-relay"})
    sent = postfix.send(flow.SENDER, flow.numbers(2))
    postfix.wait_queue(lambda queue: [m["queue_name"] for m in queue] == ["deferred"])
    assert counts(lab) == (2, 0, 0)
    # out of the hold queue: nothing is asked, and nothing counted
    postfix.postsuper("-h", sent.qid)
    postfix.postsuper("-H", sent.qid)
    mark = postfix.mark()
    postfix.postsuper("-r", sent.qid)
    # pickup may have seen it by itself, and close the door on postkick
    postfix.run("postkick", "public", "pickup", "W", check=False)
    postfix.wait_log(r"/pickup\[\d+\]: \w+: uid=.* orig_id=" + sent.qid, since=mark)
    assert counts(lab) == (2, 0, 0)
    postfix.set(defer_transports=None)
    postfix.reload()
    postfix.flush()
    wait_counts(lab, 2, 2)


# -- sendmail(1) ---------------------------------------------------------------

def test_address_verification(lab):
    """sendmail -bv asks Microsoft about the recipient, and sends nothing."""
    postfix = gateway(lab)
    qid = postfix.submit(["a@example.net"], sender=flow.SENDER, args=["-bv"])
    postfix.wait_log(qid + ": to=<a@example.net>.* status=deliverable")
    # to the milter it looks like mail: too high, never too low
    assert counts(lab)[0] == 1
    # the report of it goes to the sender, and may be there by now
    assert not [m for m in lab.sim.messages() if "a@example.net" in m["recipients"]]


# -- one mailbox and the others ------------------------------------------------

def test_a_full_mailbox_does_not_delay_the_others(lab):
    fast = {"messages_per_minute": 60000}
    postfix = gateway(lab, mailboxes={
        "relay": {"address": RELAY, "default": True, "recipients_per_day": 4,
                  "when_full": "warn", **fast},
        "alerts": {"address": ALERTS, "senders": [ALERTS], **fast}})

    def delay():
        """How long a message of the other mailbox takes, the median of ten."""
        times = []
        for _ in range(10):
            sent = postfix.send(ALERTS, ["a@example.net"])
            [done] = postfix.wait_status(sent.qid, "sent")
            line = postfix.wait_log(sent.qid + r": to=.* delay=([\d.]+), ")
            assert done.status == "sent"
            times.append(float(line.group(1)))
        return sorted(times)[5]

    delay()                             # the first ones start processes
    before = delay()
    for n in range(30):                 # 26 more than there is room for
        assert postfix.send("x%d@contoso.com" % n, ["a@example.net"]).ok
    procs.wait_for(lambda: len(postfix.queue()) >= 26, 20, "a queue of the full mailbox")
    after = delay()
    assert after < before + 5, (before, after)
    assert len(postfix.queue()) >= 26 and flow.accepted(lab, RELAY) <= 4
