"""Where limiters of mail go wrong, and what shows that this one does not.

Each trap names the tests, or the finding of `relay365 check` and `relay365 doctor`
that warns of what only the MTA's configuration can avoid. Those that nothing else
shows are tested here.
"""

import pathlib
import re

import pytest

import flow
import milter_client
import procs
import test_own_limits as own_limits

TESTS = pathlib.Path(__file__).resolve().parent.parent
FINDINGS = ("postfix/check.c", "ctl/doctor_postfix.c")

TRAPS = {
    "a message fails after the milter has taken it": [
        "test_counting.py::test_milter_after_ours_refuses",
        "check: is not the last, so mail that a later "],
    "another milter refuses a recipient afterwards": [
        "test_counting.py::test_milter_after_ours_refuses",
        "test_counting.py::test_milter_before_ours_refuses"],
    "recipients that the MTA itself refuses are counted": [
        "test_limits.py::test_recipient_that_postfix_refuses"],
    "what was reserved is not given back": [
        "test_limits.py::test_reservation_is_given_back",
        "test_limits.py::test_next_message_of_a_session_starts_anew",
        "test_sendmail_milter.py::test_a_message_that_does_not_come_gives_its_room_back",
        "test_quota.c::test_sweep"],
    "mail is counted at DATA and refused later": [
        "test_limits.py::test_reservation_is_given_back"],
    "before-queue filters hide the end of message": [
        "test_counting.py::test_before_queue_filter",
        "check: milters see no end of message there, "],
    "mail from sendmail(1) can't be refused by recipient": [
        "test_limits.py::test_submission_is_counted",
        "test_limits.py::test_submission_over_the_limit_is_refused_as_a_whole",
        "test_quota.c::test_undivided"],
    "postsuper -r counts again": [
        "test_counting.py::test_requeued_mail_counts_once"],
    "mail comes back from a content filter and counts again": [
        "test_counting.py::test_content_filter",
        "check: takes mail back from a content filter and asks the milters"],
    "aliases and bcc maps expand behind the milter": [
        "test_limits.py::test_expansion_behind_the_milter",
        "test_counting.py::test_bcc_and_forwards_are_counted_when_delivered"],
    "a message is split into many transactions": [
        "test_submission.py::test_backlog_drains_at_the_pace",
        "test_limits.py::test_pace_and_connections"],
    "one timer for all mailboxes of a next hop": [
        "test_submission.py::test_full_mailbox_does_not_hold_up_others",
        "test_counting.py::test_a_full_mailbox_does_not_delay_the_others"],
    "what was accepted is delivered all at once": [
        "test_submission.py::test_twelve_thousand_for_ten",
        "test_faults_exchange.py::test_circuit"],
    "a client repeats what was taken": [
        "test_traps.py::test_each_copy_counts"],
    "the null sender is not limited": [
        "test_traps.py::test_null_sender_counts_under_its_source",
        "test_senders.py::test_null_sender_stays_null"],
    "one exempt recipient exempts all": [
        "test_own_limits.py::test_exempt_recipients_only_reduce_the_count"],
    "keys differ by case, or are cut": [
        "test_own_limits.py::test_keys", "test_quota.c::test_keys"],
    "macros are not there when they are asked for": [
        "test_own_limits.py::test_who_it_is",
        "test_sendmail_milter.py::test_what_goes_to_relay365_submit_counts"],
    "quarantine that nobody can release": [
        "test_limits.py::test_hold_puts_it_on_hold",
        "test_sendmail_milter.py::test_quarantine_and_release",
        "test_quota_session.c::test_hold"],
    "a dead filter lets mail pass": [
        "test_faults_daemons.py::test_milter_killed",
        "test_sendmail_milter.py::test_a_dead_milter_refuses_for_now",
        "check: mail passes uncounted"],
    "steps without a reply where something is to be refused": [
        "test_traps.py::test_steps_without_a_reply"],
    "Sendmail and refused recipients": [
        "test_sendmail_milter.py::test_refusals_at_rcpt"],
    "what never fits is tried for ever": [
        "test_limits.py::test_refused_with_limit_use_and_time",
        "test_limits.py::test_recipients_per_message",
        "test_policy.c::test_one_limit"],
    "the clock steps": [
        "test_promise.c::test_promise", "test_clock.c::test_restarts",
        "test_quota.c::test_clock_steps"],
}


def is_there(reference):
    if reference.startswith("check: "):
        return any(reference[len("check: "):] in procs.read(str(TESTS.parent / name))
                   for name in FINDINGS)
    name, _, test = reference.partition("::")
    folder, start = ("unit", "static void ") if name.endswith(".c") else ("func", "def ")
    return re.search(r"^%s%s\(" % (start, test), procs.read(str(TESTS / folder / name)), re.M)


@pytest.mark.parametrize("trap", TRAPS)
def test_names_what_is_there(trap):
    assert [r for r in TRAPS[trap] if not is_there(r)] == []


@pytest.mark.needs_build
def test_each_copy_counts(lab):
    """A client that has not seen our answer sends again: Microsoft gets both, so both count."""
    lab.sim.mailbox("relay@contoso.com", tenant=flow.relay365_conf_tenant(lab), send_as=["*"])
    lab.configure(mailboxes={"relay": {"messages_per_minute": 6000}})
    postfix = flow.wire(lab)
    message = b"From: <erp@contoso.com>\r\nMessage-Id: <same@contoso.com>\r\n\r\n.\r\n"
    for lost in (True, False):
        mark = postfix.mark()
        smtp = postfix.smtp()
        smtp.mail(flow.SENDER)
        assert [smtp.rcpt(r)[0] for r in flow.numbers(2)] == [250, 250]
        assert smtp.docmd("DATA")[0] == 354
        smtp.send(message)
        if lost:
            postfix.wait_log("status=sent", since=mark)
            smtp.sock.close()
        else:
            assert smtp.getreply()[0] == 250
            smtp.quit()
    procs.wait_for(lambda: flow.accepted(lab) == 4, 30, "both copies at Exchange")
    assert flow.status(lab)["milter"]["mailboxes"][0]["used"] == 4


@pytest.mark.needs_build
def test_null_sender_counts_under_its_source(lab):
    postfix = own_limits.gateway(lab, limits={"per-user": own_limits.limit()})
    assert own_limits.answers(postfix, 3, own_limits.ERP, sender="") == [250, 250, 550]
    assert own_limits.answers(postfix, 1, own_limits.PRINTER, sender="") == [250]


NO_CONNECT, NO_HELO, NO_DATA = 0x1, 0x2, 0x200
NR_RCPT, NR_DATA = 0x8000, 0x10000


@pytest.mark.needs_build
def test_steps_without_a_reply(lab):
    """MAIL needs none; RCPT and the end of message are where it says no."""
    lab.configure()
    lab.milter.start()
    with milter_client.Client(lab.queue_dir + "/relay365m/milter") as client:
        assert client.steps & (NO_CONNECT | NO_HELO | NO_DATA) == NO_CONNECT | NO_HELO | NO_DATA
        assert client.steps & milter_client.NR_MAIL
        assert not client.steps & (NR_RCPT | NR_DATA)
