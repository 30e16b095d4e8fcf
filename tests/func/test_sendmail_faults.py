"""Whatever fails behind real Sendmail: the mail stays queued, says why, and is
delivered once when the cause is gone."""

import pytest

import flow
import sendmail

pytestmark = [pytest.mark.needs_build, pytest.mark.skipif(
    not sendmail.installed(), reason="Sendmail is not unpacked: contrib/install-packages test")]

QUOTA = ("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to "
         "process message due to a permanent exception")
# fault, its parameters, and what the queue says
FAULTS = [
    ("auth_fail", {}, "535 5.7.3 Authentication unsuccessful"),
    ("challenge", {}, "a question instead of an empty 334"),
    ("error_challenge", {}, "535 5.7.3"),
    ("no_auth", {}, "does not offer AUTH XOAUTH2"),
    ("no_starttls", {}, "does not offer STARTTLS"),
    ("certificate", {"which": "wrong"}, "is not trusted: hostname mismatch"),
    ("certificate", {"which": "expired"}, "is not trusted: certificate has expired"),
    ("certificate", {"which": "untrusted"}, "is not trusted: "),
    ("reply", {"at": "CONNECT", "text": "554 5.7.1 no service"}, "554 5.7.1 no service"),
    ("reply", {"at": "MAIL", "text": "530 5.7.57 Client not authenticated to send mail"},
     "430 4.7.57"),
    ("reply", {"at": "MAIL", "text": "535 5.7.3 Authentication unsuccessful"}, "435 4.7.3"),
    ("reply", {"at": "EOD", "text": QUOTA}, "454 4.2.0"),
    ("reply", {"at": "EOD", "text": "421 4.3.2 Service not active"}, "421"),
    *[("drop", {"at": at}, "hung up instead of answering") for at in (
        "CONNECT", "EHLO", "STARTTLS", "AUTH", "AUTH_RESPONSE")],
    ("drop", {"at": "TLS"}, "TLS with smtp.office365.com failed"),
    *[("drop", {"at": at, "reset": reset}, "hung up") for at in (
        "MAIL", "RCPT", "DATA", "BODY", "EOD") for reset in (False, True)],
]


def running(lab, **options):
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000}})
    box = lab.make_sendmail(milter=False, **options)
    lab.tokend.start()
    lab.submit.start()
    return box.start()


def recovers(lab, box, number, cause):
    """The message waits for this cause, then arrives once."""
    control = box.wait_deferred(cause)
    lab.sim.clear()
    lab.relay365("unlock", "relay", status=None)
    box.flush()
    box.wait_queue_empty()
    assert [m["recipients"] for m in lab.sim.messages()[number:]] == [["r%d@example.net" % number]]
    assert box.mailbox() == []
    return control


def test_each_fault_defers_and_is_mended(lab):
    box = running(lab)
    for number, (kind, parameters, cause) in enumerate(FAULTS):
        lab.sim.fault("smtp", kind, **parameters)
        assert box.send("erp@contoso.com", ["r%d@example.net" % number])[0] == 250
        recovers(lab, box, number, cause)
    assert flow.status(lab)["tokend"]["mailboxes"][0]["delivered"] == len(FAULTS)


def test_tokend_dead(lab):
    box = running(lab)
    lab.tokend.kill()
    lab.tokend.unexpected.clear()
    assert box.send("erp@contoso.com", ["r0@example.net"])[0] == 250
    box.wait_deferred("cannot connect to")
    lab.tokend.start()
    recovers(lab, box, 0, "cannot connect to")


def test_submit_dead(lab):
    box = running(lab)
    lab.submit.kill()
    assert box.send("erp@contoso.com", ["r0@example.net"])[0] == 250
    box.wait_deferred("Connection refused")
    lab.submit.start()
    recovers(lab, box, 0, "Connection refused")


def test_submit_killed_in_a_message(lab):
    box = running(lab)
    lab.sim.fault("smtp", "silence", at="BODY")
    assert box.send("erp@contoso.com", ["r0@example.net"])[0] == 250
    lab.sim.wait(lambda s: any(x["hits"] for x in s["faults"]))
    lab.submit.kill()
    lab.submit.start()
    recovers(lab, box, 0, "read error from localhost")


def test_sendmail_killed_in_a_message(lab):
    box = running(lab)
    lab.sim.fault("smtp", "silence", at="BODY")
    # more than sockets and buffers hold
    assert box.send("erp@contoso.com", ["r0@example.net"],
                    b"From: <erp@contoso.com>\r\n\r\n" + b"x" * 70 + b"\r\n" * 2 ** 23)[0] == 250
    lab.sim.wait(lambda s: any(x["hits"] for x in s["faults"]))
    box.stop()
    lab.sim.wait(lambda s: s["smtp"]["open"] == 0)     # its session ended with it
    lab.sim.clear()
    assert lab.sim.messages() == []
    box.start()
    box.flush()
    box.wait_queue_empty()
    assert len(lab.sim.messages()) == 1


def test_submit_ends_when_the_message_is_through(lab):
    box = running(lab)
    lab.sim.fault("smtp", "delay", at="EOD", seconds=3)
    assert box.send("erp@contoso.com", ["r0@example.net"])[0] == 250
    lab.sim.wait(lambda s: any(x["hits"] for x in s["faults"]))
    assert lab.submit.stop() == 0
    box.wait_queue_empty()
    assert len(lab.sim.messages()) == 1
    assert flow.status(lab)["tokend"]["mailboxes"][0]["delivered"] == 1


def test_what_microsoft_never_takes_bounces(lab):
    box = running(lab)
    lab.sim.mailbox("relay@contoso.com", send_as=[])
    assert box.send("erp@contoso.com", ["r0@example.net"])[0] == 250
    box.wait_queue(lambda queue: lab.sim.messages() == [] and box.log().count("DSN"))
    # Sendmail 8.15 keeps the reply to itself and the notice
    assert "SendAsDenied" in box.log() or "starting daemon (8.15." in box.log()


def test_a_full_mailbox_waits_at_tokend(lab):
    lab.configure(mailboxes={"relay": {"recipients_per_day": 20, "messages_per_minute": 60000}})
    box = lab.make_sendmail(milter=False, recipients="1")
    lab.tokend.start()
    lab.submit.start()
    box.start()

    def send(number):
        assert box.send("erp@contoso.com", ["r%d@example.net" % number])[0] == 250

    for number in range(20):
        send(number)
    lab.sim.wait_messages(20, 120)
    send(20)
    control = box.wait_deferred("20 of 20 recipients delivered in 24 h; room for", 120)
    assert "<r20@example.net>" in control
    assert flow.accepted(lab) == 20
