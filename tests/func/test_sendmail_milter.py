"""relay365-milter under real Sendmail."""

import re

import pytest

import flow
import sendmail
from submit_client import SubmitClient

pytestmark = [pytest.mark.needs_build, pytest.mark.skipif(
    not sendmail.installed(), reason="Sendmail is not unpacked: contrib/install-packages test")]


def running(lab, relay=None, recipients="", **top):
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000, **(relay or {})}}, **top)
    box = lab.make_sendmail(recipients=recipients)
    lab.tokend.start()
    lab.milter.start()
    lab.submit.start()
    return box.start()


def used(lab):
    mailbox = flow.status(lab)["milter"]["mailboxes"][0]
    return mailbox["used"], mailbox["reserved"]


def test_what_goes_to_relay365_submit_counts(lab):
    box = running(lab)
    assert box.send("erp@contoso.com", ["a@example.net", "root@gateway.test",
                                        "b@example.net"])[0] == 250
    box.wait_queue_empty()
    assert used(lab) == (2, 0)
    assert len(box.mailbox()) == 1          # root's, delivered here
    lab.milter.wait_log(r"^\S+ relay365-milter: (\w+): accept mailbox=relay source=127.0.0.1 "
                        "client=127.0.0.1 from=<erp@contoso.com> nrcpt=2 ")


def test_refusals_at_rcpt(lab):
    box = running(lab, {"recipients_per_day": 3, "when_full": "reject"}, recipients="1")
    with box.smtp() as smtp:
        smtp.mail("erp@contoso.com")
        codes = [smtp.rcpt("r%d@example.net" % i) for i in range(4)]
        assert [code for code, _text in codes] == [250, 250, 250, 452]
        assert b"4.5.3 relay@contoso.com: a message may have 3 recipients" in codes[3][1]
        assert smtp.data(b"From: <erp@contoso.com>\r\n\r\ntest\r\n")[0] == 250
        smtp.mail("erp@contoso.com")
        code, text = smtp.rcpt("late@example.net")
        assert code == 550 and re.search(
            rb"3 of 3 recipients used in 24 h; room for 3 at .* UTC", text)
        smtp.rset()
    box.wait_queue_empty()
    assert flow.accepted(lab) == 3 and used(lab) == (3, 0)


def test_a_message_that_does_not_come_gives_its_room_back(lab):
    box = running(lab)
    with box.smtp() as smtp:
        for _ in range(3):              # a new MAIL after RSET
            smtp.mail("erp@contoso.com")
            smtp.rcpt("a@example.net")
            assert used(lab) == (0, 1)
            smtp.rset()
    lab.sim.wait(lambda _s: used(lab) == (0, 0))


def test_quarantine_and_release(lab):
    box = running(lab, limits={"runaway": {"per": "source", "count": "recipients", "max": 1,
                                           "window": "1h", "action": "hold"}})
    for number in range(2):
        assert box.send("erp@contoso.com", ["r%d@example.net" % number])[0] == 250
    held = box.wait_queue(lambda queue: [n for n in queue if n.startswith("hf")] or None)
    assert "QUARANTINE: source 127.0.0.1: 1 of 1 recipients used in 1 h" in box.run("-bp", "-qQ").stdout
    box.flush()                             # held mail is not in a normal run
    assert [m["recipients"] for m in lab.sim.wait_messages(1)] == [["r0@example.net"]]
    box.run("-Q", "-qQ", "-qI" + held[0][2:])
    box.flush()
    box.wait_queue_empty()
    assert [m["recipients"] for m in lab.sim.messages()] == [["r0@example.net"],
                                                            ["r1@example.net"]]
    assert used(lab) == (2, 0)


def test_a_dead_milter_refuses_for_now(lab):
    box = running(lab)
    lab.milter.stop()
    with box.smtp() as smtp:
        code, _text = smtp.mail("erp@contoso.com")
        if code == 250:
            code, _text = smtp.rcpt("a@example.net")
        assert code // 100 == 4
    lab.milter.start()
    assert box.send("erp@contoso.com", ["a@example.net"])[0] == 250
    box.wait_queue_empty()
    assert used(lab) == (1, 0)


def test_sendmail_command(lab):
    """Local submission reaches the milter as a session from this machine."""
    box = running(lab, {"recipients_per_day": 2, "when_full": "reject"}, recipients="1")
    box.submit("erp@contoso.com", ["a@example.net", "b@example.net"])
    box.wait_queue_empty()
    assert used(lab) == (2, 0)
    refused = box.submit("erp@contoso.com", ["c@example.net"], args=["-v"], check=False)
    assert "2 of 2 recipients used" in refused.stdout
    assert flow.accepted(lab) == 2


def test_no_token_is_shown(lab):
    box = running(lab)
    shown = box.submit("erp@contoso.com", ["a@example.net"], args=["-v"]).stdout
    with SubmitClient((box.address, box.port)) as client:
        client.hello()
        assert client.ask("VERB").startswith("250 ")
        client.message("erp@contoso.com", ["b@example.net"])
        client.send("QUIT\r\n")
        verbose = client.stream.read().decode()
    assert "050 >>> RCPT To:<b@example.net>" in verbose
    box.wait_queue_empty()
    lab.sim.fault("smtp", "auth_fail")
    box.send("erp@contoso.com", ["c@example.net"])
    box.wait_deferred("535 5.7.3")
    shown += verbose + box.flush().stdout + box.mailq()
    assert "a@example.net" in shown and "535 5.7.3" in shown
    lab.outputs["Sendmail"] = shown         # searched for the canaries
    assert flow.accepted(lab) == 2


def test_another_sender_becomes_the_mailbox(lab):
    """Fields go and come as with Postfix, though Sendmail counts them otherwise."""
    lab.sim.mailbox("relay@contoso.com", tenant=flow.relay365_conf_tenant(lab), send_as=[])
    box = running(lab, {"other_senders": "rewrite"})
    code, text = box.send("scan@fabrikam.com", ["a@example.net"], data=(
        b"DKIM-Signature: v=1; d=fabrikam.com; b=1\r\nDKIM-Signature: v=1; d=fabrikam.com; b=2\r\n"
        b"Sender: <x@fabrikam.com>\r\nFrom: \"Scanner, 2nd floor\" <scan@fabrikam.com>\r\n"
        b"Subject: test\r\n\r\ntest\r\n"))
    assert code == 250, text
    [message] = lab.sim.wait_messages(1)
    head = lab.sim.body(message).partition(b"\r\n\r\n")[0]
    assert message["from"] == "relay@contoso.com"
    assert re.findall(rb"^From: .*", head, re.MULTILINE) == [
        b'From: "Scanner, 2nd floor" <relay@contoso.com>\r']
    assert b'\r\nReply-To: "Scanner, 2nd floor" <scan@fabrikam.com>' in head
    assert not re.search(rb"^(DKIM-Signature|Sender):", head, re.MULTILINE), head


def test_another_from_is_refused(lab):
    box = running(lab, {"other_senders": "reject", "senders": ["*@contoso.com"]})
    code, text = box.send("erp@contoso.com", ["a@example.net"],
                          data=b"From: boss@fabrikam.com\r\n\r\ntest\r\n")
    assert code == 550 and "relay@contoso.com may not send as it" in text
    with box.smtp() as smtp:
        smtp.mail("boss@fabrikam.com")
        assert smtp.rcpt("a@example.net")[0] == 550
