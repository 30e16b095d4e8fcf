"""The sender policy: whom a mailbox sends as, and what becomes of all others."""

import email
import email.policy
import re

import pytest

import flow
import milter_client
import procs

pytestmark = pytest.mark.needs_build

NO_HEADERS, HEADERS_UNANSWERED = 0x20, 0x80     # SMFIP_NOHDRS, SMFIP_NR_HDR
CHANGES = 0x01 | 0x10 | 0x40                    # SMFIF_ADDHDRS, CHGHDRS, CHGFROM


def gateway(lab, other_senders, send_as=("*@contoso.com",), main=None, **top):
    """The whole path; Microsoft allows the mailbox no more than the configuration does."""
    lab.sim.mailbox("relay@contoso.com", tenant=flow.relay365_conf_tenant(lab),
                    send_as=list(send_as), messages_per_minute=60000)
    lab.configure(mailboxes={"relay": {"senders": ["*@contoso.com"], "messages_per_minute": 6000,
                                       "other_senders": other_senders}}, **top)
    return flow.wire(lab, main=main)


def arrived(lab, count=1):
    """The last message that Microsoft took: envelope sender, header."""
    message = lab.sim.wait_messages(count)[-1]
    parsed = email.message_from_bytes(lab.sim.body(message), policy=email.policy.default)
    return message["from"], parsed


# -- reject --------------------------------------------------------------------

def test_other_envelope_is_refused_at_rcpt(lab):
    postfix = gateway(lab, "reject")
    sent = postfix.send("scan@fabrikam.com", ["a@example.net", "root@gateway.test"])
    assert sent.ok, "the recipient on this machine is no business of the mailbox"
    assert sent.refused["a@example.net"] == (550, (
        '5.7.1 sender scan@fabrikam.com: relay@contoso.com may not send as it; to allow it, add '
        '"scan@fabrikam.com" to senders of mailbox relay in relay365.conf'))
    lab.milter.wait_log("reject limit=senders mailbox=relay .*from=<scan@fabrikam.com>")
    bare = postfix.send("root", ["a@example.net"])
    assert bare.code == 550 and "root has no domain" in bare.text
    for own in ("erp@contoso.com", "ERP@CONTOSO.COM", "relay@contoso.com"):
        assert postfix.send(own, ["a@example.net"]).ok


FROMS = [
    (["From: Boss <boss@fabrikam.com>"], "From boss@fabrikam.com: relay@contoso.com may not"),
    (["From: a@contoso.com, b@fabrikam.com"], "From b@fabrikam.com: "),
    (["From: a@contoso.com", "From: b@contoso.com"], "can't be read, or there are several"),
    (["From: a@contoso.com <"], "can't be read, or there are several"),
    (["From: a@contoso.com", "Sender: b@fabrikam.com"], "Sender b@fabrikam.com: "),
    (["From: erp@contoso.com"], None),
    (['From: "Erp, old" <Erp@Contoso.com>'], None),
    (["From: Erp\r\n <erp@contoso.com>"], None),
    (["From: =?utf-8?Q?M=C3=BCller?= <m@contoso.com>"], None),
    (["From: Team: a@contoso.com, b@contoso.com;"], None)]


def test_other_from_is_refused_at_the_end(lab):
    postfix = gateway(lab, "reject")
    for fields, text in FROMS:
        with postfix.smtp() as smtp:
            smtp.mail("erp@contoso.com")
            assert smtp.rcpt("a@example.net")[0] == 250
            code, said = smtp.data(("\r\n".join([*fields, "Subject: x", "", "x"])).encode())
        assert code == (250 if text is None else 550), (fields, said)
        assert text is None or text in said.decode()
    use = flow.status(lab)["milter"]["mailboxes"][0]
    assert (use["used"], use["reserved"]) == (5, 0)


# -- rewrite -------------------------------------------------------------------

def test_another_sender_becomes_the_mailbox(lab):
    postfix = gateway(lab, "rewrite", send_as=[])
    sent = postfix.send("scan@fabrikam.com", flow.numbers(2), headers={
        "From": '"Scanner, 2nd floor" <scan@fabrikam.com>', "Sender": "x@fabrikam.com",
        "DKIM-Signature": "v=1; a=rsa-sha256; d=fabrikam.com; s=x; h=from; bh=x; b=x"})
    postfix.wait_status(sent.qid, "sent", 2)
    envelope, message = arrived(lab)
    assert envelope == "relay@contoso.com"
    assert message.get_all("From") == ['"Scanner, 2nd floor" <relay@contoso.com>']
    assert message.get_all("Reply-To") == ['"Scanner, 2nd floor" <scan@fabrikam.com>']
    assert message["Sender"] is None, "From is a single sender now"
    assert message["DKIM-Signature"] is None, "it signed the other From"
    lab.milter.wait_log(sent.qid + ": rewrite mailbox=relay .*from=<scan@fabrikam.com> "
                        "header_from=scan@fabrikam.com")
    # limits and the log go on to know who it was
    lab.milter.wait_log(sent.qid + ": accept mailbox=relay .*from=<scan@fabrikam.com> nrcpt=2")


def test_reply_to_stays(lab):
    postfix = gateway(lab, "rewrite", send_as=[])
    sent = postfix.send("scan@fabrikam.com", ["a@example.net"],
                        headers={"Reply-To": "help@fabrikam.com"})
    postfix.wait_status(sent.qid, "sent")
    assert arrived(lab)[1].get_all("Reply-To") == ["help@fabrikam.com"]


def test_own_mail_is_left_alone(lab):
    postfix = gateway(lab, "rewrite")
    signature = "v=1; d=contoso.com"
    sent = postfix.send("erp@contoso.com", ["a@example.net"], headers={
        "From": "Erp <erp@contoso.com>", "DKIM-Signature": signature})
    postfix.wait_status(sent.qid, "sent")
    envelope, message = arrived(lab)
    assert (envelope, message["From"], message["Reply-To"]) == (
        "erp@contoso.com", "Erp <erp@contoso.com>", None)
    assert message["DKIM-Signature"] == signature
    assert "rewrite" not in lab.milter.log()


def test_several_or_no_from(lab):
    postfix = gateway(lab, "rewrite", send_as=[])
    for n, head in enumerate(["From: a@x.test\r\nFrom: b@x.test\r\nFrom: c@x.test\r\n", ""], 1):
        with postfix.smtp() as smtp:
            smtp.mail("relay@contoso.com")
            smtp.rcpt("a@example.net")
            assert smtp.data((head + "Subject: x\r\n\r\nx").encode())[0] == 250
        _envelope, message = arrived(lab, n)
        assert [str(v).split("<")[-1].rstrip(">") for v in message.get_all("From")] == [
            "relay@contoso.com"]


def test_other_sender_field_goes(lab):
    """Microsoft judges it like From, which may stay as it is."""
    postfix = gateway(lab, "rewrite")
    sent = postfix.send("erp@contoso.com", ["a@example.net"], headers={
        "From": "Erp <erp@contoso.com>", "Sender": "root@fabrikam.com"})
    postfix.wait_status(sent.qid, "sent")
    envelope, message = arrived(lab)
    assert (envelope, message["From"], message["Sender"], message["Reply-To"]) == (
        "erp@contoso.com", "Erp <erp@contoso.com>", None, None)


def test_null_sender_stays_null(lab):
    """A bounce must not become a message that bounces."""
    lab.sim.set(smtp={"null_sender": True})
    postfix = gateway(lab, "rewrite", send_as=[])
    sent = postfix.send("", ["a@example.net"],
                        headers={"From": "MAILER-DAEMON@fabrikam.com (Mail Delivery System)"})
    postfix.wait_status(sent.qid, "sent")
    envelope, message = arrived(lab)
    assert envelope == ""
    assert message["From"] == "Mail Delivery System <relay@contoso.com>"
    lab.milter.wait_log(r"accept mailbox=relay source=127.0.0.1 .*from=<> nrcpt=1")


def test_cron_of_a_default_debian_host(lab):
    """The host has a name without a domain, and so have its senders."""
    mailname = procs.write(lab.folder + "/mailname", "srv01\n")
    postfix = gateway(lab, "rewrite", send_as=[], main={
        "myorigin": mailname, "append_dot_mydomain": "no"})
    qid = postfix.submit(["admin@contoso.com"], body=(
        "From: root (Cron Daemon)\nTo: admin@contoso.com\nSubject: Cron <root@srv01> run-parts\n"
        "\nx\n"))
    postfix.wait_status(qid, "sent")
    envelope, message = arrived(lab)
    assert envelope == "relay@contoso.com"
    assert message["From"] == "Cron Daemon <relay@contoso.com>"
    assert message["Reply-To"] is None, "nobody could answer to root@srv01"
    lab.milter.wait_log(qid + r": rewrite .*from=<root@srv01> header_from=root@srv01")


def used(lab):
    return flow.status(lab)["milter"]["mailboxes"][0]["used"]


def test_null_client(lab):
    """Not even its own name is local: cron's mail to root leaves too, and must be Microsoft's."""
    postfix = gateway(lab, "rewrite", send_as=[], main={
        "mydestination": "", "local_transport": "error:none"}, limits={
            "all": {"per": "everyone", "count": "messages", "max": 1, "window": "24h"}})
    qid = postfix.submit(["root"], sender="root", body="From: root (Cron Daemon)\n\nx\n")
    postfix.wait_status(qid, "sent")
    envelope, message = arrived(lab)
    assert (envelope, message["From"]) == ("relay@contoso.com", "Cron Daemon <relay@contoso.com>")
    assert used(lab) == 1
    qid = postfix.submit(["ops@gateway.test"], sender="root")
    postfix.wait_log(qid + ": milter-reject: .*limit all: 1 of 1 messages used")


def test_local_mail_without_setup(lab):
    """A Postfix that was wired by hand does not tell its domains: Debian's default is assumed."""
    postfix = gateway(lab, "reject", main={
        "mydestination": "$myhostname, localhost.test, localhost", "milter_macro_defaults": ""})
    for name in ("root", "root@gateway.test", "root@localhost.test", "root@localhost"):
        postfix.wait_status(postfix.submit([name], sender="root"), "sent")
    assert used(lab) == 0
    qid = postfix.submit(["a@localhost.example.net"], sender="root")
    postfix.wait_log(qid + ": milter-reject: END-OF-MESSAGE .*")


def test_local_mail_of_a_default_debian_host(lab):
    """What stays on the machine is no business of a mailbox, however it is written."""
    postfix = gateway(lab, "rewrite", send_as=[], main={
        "mydestination": "$myhostname, srv01, localhost.lan, , localhost"})
    for name in ("root", "root@gateway.test", "root@srv01", "root@localhost.lan",
                 '"root"@LOCALHOST.', "root%localhost@gateway.test"):
        qid = postfix.submit([name], sender="root")
        postfix.wait_status(qid, "sent")
    assert used(lab) == 0 and "rewrite" not in lab.milter.log()
    for n, name in enumerate(["a@localhost.example.net", "a%example.net@gateway.test",
                              "example.net!a@localhost"], 1):
        postfix.wait_status(postfix.submit([name], sender="root"), "sent")
        assert used(lab) == n, name
    assert {m["from"] for m in lab.sim.messages()} == {"relay@contoso.com"}


def test_cron_is_refused_with_the_line_to_add(lab):
    postfix = gateway(lab, "reject", main={
        "myorigin": procs.write(lab.folder + "/mailname", "srv01\n"),
        "append_dot_mydomain": "no"})
    qid = postfix.submit(["admin@contoso.com"], body="Subject: x\n\nx\n")
    refused = postfix.wait_log(qid + ": milter-reject: END-OF-MESSAGE .*")
    assert 'add "root@srv01" to senders of mailbox relay' in refused.group(0)


def test_without_a_policy_microsoft_bounces_it(lab):
    """What the other tests are there for."""
    postfix = gateway(lab, "accept")
    sent = postfix.send("erp@contoso.com", ["a@example.net"],
                        headers={"From": "boss@fabrikam.com"})
    [bounced] = postfix.wait_status(sent.qid, "bounced")
    assert "SendAsDenied" in bounced.text


def test_shadow_changes_nothing(lab):
    postfix = gateway(lab, "rewrite", send_as=["*"], shadow=True)
    sent = postfix.send("scan@fabrikam.com", ["a@example.net"])
    postfix.wait_status(sent.qid, "sent")
    envelope, message = arrived(lab)
    assert (envelope, message["From"]) == ("scan@fabrikam.com", "scan@fabrikam.com")
    lab.milter.wait_log("rewrite mailbox=relay .*shadow=yes")


# -- what it costs -------------------------------------------------------------

def test_headers_are_asked_for_where_they_are_needed(lab):
    for policy, header, changes in (("accept", False, 0), ("reject", True, 0),
                                    ("rewrite", True, CHANGES)):
        lab.configure(mailboxes={"relay": {"other_senders": policy}})
        if lab.milter.running():
            lab.relay365("reload", status=None)
        else:
            lab.milter.start()
        with milter_client.Client(lab.queue_dir + "/relay365m/milter") as client:
            assert bool(client.steps & NO_HEADERS) is not header
            assert bool(client.steps & HEADERS_UNANSWERED) is header
            assert client.actions & CHANGES == changes


def test_session_from_before_the_policy(lab):
    """It was agreed that the milter sees no header: the message must come again."""
    postfix = gateway(lab, "accept")
    text = procs.read(lab.config)
    with postfix.smtp() as smtp:
        assert smtp.mail("erp@contoso.com")[0] == 250
        assert smtp.rcpt("a@example.net")[0] == 250
        assert smtp.rset()[0] == 250
        procs.write(lab.config, text.replace('"accept"', '"rewrite"'), 0o640)
        lab.relay365("reload", status=None)
        smtp.mail("erp@contoso.com")
        smtp.rcpt("a@example.net")
        code, said = smtp.data(b"From: erp@contoso.com\r\n\r\nx")
    assert code == 451 and re.search("4.3.5 .*send it again", said.decode())
    assert postfix.send("erp@contoso.com", ["a@example.net"]).ok


# -- size ----------------------------------------------------------------------

def test_message_size(lab):
    lab.configure(mailboxes={"relay": {"message_size": 5000}}, limits={"volume": {
        "per": "source", "count": "bytes", "max": 1000000, "window": "1h"}})
    postfix = flow.wire(lab)
    sent = postfix.send("erp@contoso.com", ["a@example.net"], esmtp=["SIZE=5001"])
    assert sent.code == 552
    assert sent.text == ("5.3.4 relay@contoso.com: a message may have 5000 bytes; this one has "
                         "5001")
    assert postfix.send("erp@contoso.com", ["a@example.net"], esmtp=["SIZE=5000"]).ok
    # where bytes are counted, what was not announced is found out too
    late = postfix.send("erp@contoso.com", ["a@example.net"], "x" * 990 + "\r\n" + "x" * 4500)
    assert late.code == 552 and not late.refused
