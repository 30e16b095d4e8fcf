"""relay365-submit while relay365-tokend restarts or hangs, and when it ends itself: what
Microsoft took counts once, and no slot stays taken."""

import contextlib

import pytest

import flow
import procs
import shifted_clock
import token_client
from submit_client import SubmitClient

pytestmark = pytest.mark.needs_build
TAKEN = {"code": 250, "text": "2.0.0 OK <1@contoso>"}


def start(lab, environment=None, **keys):
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000, **keys}})
    lab.tokend.start()
    lab.submit.start(env=environment)
    return lab.folder + "/srun/submit"


def box(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0]


def wait_box(lab, **wanted):
    procs.wait_for(lambda: wanted.items() <= box(lab).items(), 10,
                   lambda: "%s; it is %s" % (wanted, box(lab)))


def crash(lab):
    """tokend is gone, which is no fault here."""
    lab.tokend.kill()
    lab.tokend.unexpected.clear()


def send_all_but_the_reply(lab, client):
    """A message whose end is at the server, and unanswered."""
    hits = sum(x["hits"] for x in lab.sim.state()["faults"])
    client.hello()
    client.send("MAIL FROM:<erp@contoso.com>\r\nRCPT TO:<a@example.net>\r\nDATA\r\n")
    assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
    client.send("From: <erp@contoso.com>\r\n\r\ntest\r\n.\r\n")
    lab.sim.wait(lambda s: sum(x["hits"] for x in s["faults"]) > hits)


@pytest.mark.parametrize("last", ["QUIT", "RSET", ""])
def test_a_session_that_outlives_tokend_frees_its_slot(lab, last):
    with SubmitClient(start(lab, connections=1)) as client:
        client.hello()
        lab.tokend.restart()
        assert (box(lab)["leases"], box(lab)["reserved"]) == (1, 500)
        if last:
            assert client.ask(last)[0] == "2"
        client.close()
        wait_box(lab, leases=0, reserved=0)


def test_sessions_that_end_while_tokend_is_away(lab):
    """Their messages count, and their slots are free, as soon as it is back."""
    path = start(lab)
    lab.sim.fault("smtp", "delay", at="EOD", seconds=1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(SubmitClient(path)) for _ in range(3)]
        for client in clients:
            send_all_but_the_reply(lab, client)
        crash(lab)
        assert [client.reply()[:3] for client in clients] == ["250"] * 3
        for client in clients:
            client.send("QUIT\r\n")     # nobody waits for tokend
            assert client.reply()[:3] == "221"
    lab.tokend.start()
    wait_box(lab, leases=0, reserved=0, delivered=3)


@pytest.mark.parametrize("dies", [False, True])
def test_a_session_that_ends_while_tokend_hangs(lab, dies):
    """And it counts once, though it was told again."""
    path = start(lab)
    lab.sim.fault("smtp", "delay", at="EOD", seconds=1)
    with SubmitClient(path) as client:
        send_all_but_the_reply(lab, client)
        lab.tokend.pause()
        assert client.reply()[:3] == "250"
        client.send("QUIT\r\n")
        assert client.reply()[:3] == "221"
        assert client.reply() == ""     # what was said to tokend at once was in vain
    if dies:
        crash(lab)
        lab.tokend.start()
    else:
        lab.tokend.resume()
    wait_box(lab, leases=0, reserved=0, delivered=1)


def test_a_refused_recipient_ends_nothing(lab):
    """Of two messages in progress when tokend restarts, one has its recipient refused."""
    path = start(lab, connections=2)
    with SubmitClient(path) as one, SubmitClient(path) as other:
        for client in (one, other):
            client.hello()
            assert client.ask("MAIL FROM:<erp@contoso.com>")[:3] == "250"
        lab.tokend.restart()
        assert one.ask("RCPT TO:<no address>")[:3] == "501"
        wait_box(lab, bounced_recipients=1, leases=2, reserved=1000)
        told = token_client.ask(lab.folder + "/run/token", verb="status", **TAKEN | {"code": 550})
        assert told["status"] == "ok"
        with contextlib.suppress(procs.Timeout):    # as long as it took to end one
            procs.wait_for(lambda: box(lab)["leases"] < 2, 4, "a slot")
        assert (box(lab)["leases"], box(lab)["reserved"]) == (2, 1000)
        assert one.ask("RSET")[:3] == "250"
        wait_box(lab, leases=1, reserved=500)


def test_what_is_refused_counts_as_the_mta_hears_it(lab):
    """A softened refusal is no bounce; MAIL has no recipients, the end of the message has all."""
    quota = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"
    path = start(lab)
    for at, text, code, deferred, bounced in (
            ("MAIL", "550 5.7.60 SendAsDenied", "550", 0, 0),
            ("RCPT", "550 5.1.10 Recipient not found", "550", 0, 2),
            ("DATA", "451 4.7.0 not now", "451", 2, 2),
            ("EOD", "550 5.7.60 SendAsDenied", "550", 2, 4),
            ("EOD", quota, "454", 4, 4)):
        lab.sim.clear()
        lab.sim.fault("smtp", "reply", at=at, text=text)
        with SubmitClient(path) as client:
            client.hello()
            replies = [client.ask("MAIL FROM:<erp@contoso.com>")]
            replies += [client.ask("RCPT TO:<%s>" % r) for r in flow.numbers(2)]
            replies.append(client.ask("DATA"))
            if replies[-1].startswith("354"):
                replies.append(client.ask("From: <erp@contoso.com>\r\n\r\ntest\r\n."))
            assert code in {reply[:3] for reply in replies}
        wait_box(lab, deferred_recipients=deferred, bounced_recipients=bounced, leases=0)
    assert "paused_until" in box(lab), "tokend knows a quota that was softened"


def test_a_server_that_hangs_up_during_the_wait_for_a_lease(lab):
    """Its 421 answers nothing of ours: another session is opened, no mailbox is doubted."""
    flow.second_mailbox(lab)
    lab.sim.set(smtp={"idle_seconds": 2})
    lab.configure(mailboxes={
        "relay": {"address": "relay@contoso.com", "default": True, "connections": 1,
                  "messages_per_minute": 60000},
        "alerts": {"address": "alerts@contoso.com", "senders": ["monitor@contoso.com"]}})
    lab.tokend.start()
    lab.submit.start()
    with token_client.Client(lab.folder + "/run/token", recipients=1) as holder, \
            SubmitClient(lab.folder + "/srun/submit") as client:
        assert holder.answer()["status"] == "ok"
        client.hello()
        client.send("MAIL FROM:<erp@contoso.com>\r\n")
        procs.wait_for(lambda: box(lab)["waiting"] == 1, 10, "the wait for a lease")
        lab.sim.wait(lambda s: s["smtp"]["open"] == 0)
        holder.close()
        assert client.reply().startswith("250 ")
    assert "last_refusal" not in box(lab)


def test_the_daemon_waits_for_the_answer_to_a_message(lab):
    """Half a minute after SIGTERM it is not "try again": it may be taken, and then counts."""
    clock = shifted_clock.ShiftedClock(lab)
    path = start(lab, clock.environment())
    lab.sim.fault("smtp", "delay", at="EOD", seconds=3)
    with SubmitClient(path) as client, SubmitClient(path) as idle:
        idle.hello()
        send_all_but_the_reply(lab, client)
        lab.submit.process.terminate()
        assert idle.reply()[:3] == "421", "all know now"
        client.send("NOOP\r\n")
        clock.step(30)
        client.send("NOOP\r\n")        # so that it looks at the clock
        assert client.reply().startswith("250 2.0.0 OK <"), "and for the rest there is no time"
    assert lab.submit.expect_end() == 0
    wait_box(lab, leases=0, delivered=1)


def test_the_daemon_tells_what_it_knows_before_it_ends(lab):
    path = start(lab)
    lab.sim.fault("smtp", "delay", at="EOD", seconds=1)
    with SubmitClient(path) as client:
        send_all_but_the_reply(lab, client)
        crash(lab)
        assert client.reply()[:3] == "250"
        assert client.ask("QUIT")[:3] == "221"
    lab.submit.process.terminate()
    procs.wait_for(lambda: not procs.accepts(path), 10, "the end of new sessions")
    lab.tokend.start()
    assert lab.submit.expect_end() == 0
    wait_box(lab, leases=0, delivered=1)
