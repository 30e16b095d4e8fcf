"""A daemon is killed, hangs, was never started, or has no disk: mail waits or is refused,
goes on by itself, and comes once."""

import contextlib
import os
import re
import smtplib
import sqlite3

import pytest

import flow
import lab as laboratory
import letters as letters_module
import procs
import small_disk
import token_client

pytestmark = pytest.mark.needs_build

ABSENT = "cannot connect to relay365/token: .*is relay365-tokend running"


def ready(lab, milter=False, **options):
    letters_module.fast(lab)
    return letters_module.started(lab, milter=milter, **options)


def at_tokend(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0]


def at_milter(lab):
    return flow.status(lab)["milter"]["mailboxes"][0]


def warned(lab, text, since=0):
    """Postfix's words for what happened to AUTH; it gives them a line of their own."""
    lab.postfix.wait_log("relay365: relay@contoso.com: .*" + text, timeout=40, since=since)


# -- tokend killed, or not there -----------------------------------------------

def test_tokend_never_started(lab):
    letters_module.fast(lab)
    letters = letters_module.Letters(lab, flow.wire(lab, milter=False, chroot=False, start=False))
    lab.postfix.start()
    letters.wait_deferred(letters.send())
    warned(lab, ABSENT)
    assert "relay365-tokend does not answer" in lab.relay365("status", status=1).stdout
    lab.tokend.start()
    letters.check_arrived()


def test_tokend_killed_while_idle(lab):
    letters = ready(lab)
    letters.wait_arrived([letters.send()])
    lab.tokend.kill()
    letters.wait_deferred(letters.send())
    warned(lab, ABSENT)
    lab.tokend.start()
    letters.check_arrived()


def hold(lab, at):
    """Sessions stand still at this point; until lab.sim.clear()."""
    lab.sim.fault("smtp", "delay", at=at, seconds=90)


def wait_held(lab, at):
    lab.sim.wait(lambda state: any(s["end"] == "fault delay at " + at
                                   for s in state["smtp"]["sessions"]))


@pytest.mark.parametrize("at", ["MAIL", "EOD", "STORED"])
@pytest.mark.parametrize("restarted", [False, True], ids=["down", "restarted"])
def test_tokend_killed_in_a_delivery(lab, at, restarted):
    """The session needs it no more: the message goes out, once, without being asked about."""
    letters = ready(lab)
    hold(lab, at)
    qid = letters.send(recipients=flow.numbers(3))
    wait_held(lab, at)
    lab.tokend.kill()
    if restarted:
        lab.tokend.start()
    lab.sim.clear("smtp")
    letters.wait_arrived([qid])
    if not restarted:
        lab.tokend.start()
    letters.send()
    letters.check_arrived()
    assert {d.status for d in lab.postfix.deliveries()} == {"sent"}
    if restarted:
        assert at_tokend(lab)["delivered"] == 4, "asked for the status, it counted"


def test_tokend_killed_while_smtp_waits_for_a_lease(lab):
    letters_module.fast(lab)
    lab.sim.fault("entra", "delay", seconds=60)
    letters = letters_module.started(lab)
    qid = letters.send()
    procs.wait_for(lambda: at_tokend(lab)["waiting"] + flow.status(lab)["tokend"]["tokens"][0][
        "waiters"] > 0, 20, "smtp(8) at tokend")
    lab.tokend.kill()
    letters.wait_deferred(qid)
    warned(lab, "hung up before it had answered")
    lab.sim.clear()
    lab.tokend.start()
    letters.check_arrived()


# -- tokend hangs --------------------------------------------------------------

def map_connections(lab):
    """UNIX sockets of the map's name: who listens, who is connected."""
    return sum(1 for line in procs.read("/proc/net/unix").splitlines()
               if line.endswith(lab.queue_dir + "/relay365/map"))


def stop_at_lookup(lab, letters):
    """tokend stands still, and smtp(8) has asked it what to make of Exchange's 250."""
    idle = map_connections(lab)
    hold(lab, "STORED")
    qid = letters.send(recipients=flow.numbers(2))
    lab.sim.wait_messages(1)
    wait_held(lab, "STORED")
    lab.tokend.pause()
    lab.sim.clear("smtp")
    procs.wait_for(lambda: map_connections(lab) > idle, 20, "the lookup")
    assert lab.postfix.deliveries(qid) == [], "nothing is recorded before the answer"
    return qid


def test_tokend_stopped_at_a_status_lookup(lab):
    letters = ready(lab)
    qid = stop_at_lookup(lab, letters)
    lab.tokend.resume()
    letters.wait_arrived([qid])
    letters.send()
    letters.check_arrived()
    assert {d.status for d in lab.postfix.deliveries()} == {"sent"}
    assert at_tokend(lab)["delivered"] == 3


def test_tokend_killed_at_a_status_lookup(lab):
    letters = ready(lab)
    qid = stop_at_lookup(lab, letters)
    lab.tokend.kill()
    letters.wait_arrived([qid])
    lab.tokend.start()
    letters.send()
    letters.check_arrived()


@pytest.mark.slow
def test_tokend_stopped_beyond_the_deadline(lab):
    """The plugin gives up after 30 s; the message waits in the queue instead."""
    letters = ready(lab)
    letters.wait_arrived([letters.send()])
    lab.tokend.pause()
    letters.send()
    warned(lab, "did not answer within 30 s")
    lab.tokend.resume()
    letters.wait_deferred(letters.qids[1])
    letters.check_arrived()
    assert at_tokend(lab)["delivered"] == 2


# -- the milter ----------------------------------------------------------------

IMPATIENT = {"milter_connect_timeout": "5s", "milter_command_timeout": "5s",
             "milter_content_timeout": "5s"}


def check_refused(letters):
    """Clients are told to come again, and nothing has got in unseen."""
    sent = letters.try_to_send()
    assert not sent.ok
    assert sent.code == 451 or {c for c, _text in sent.refused.values()} == {451}, sent
    letters.postfix.wait_queue_empty()
    assert len(letters.copies()) == len(letters.sent)


def test_milter_never_started(lab):
    letters_module.fast(lab)
    letters = letters_module.Letters(lab, flow.wire(lab, chroot=False, start=False))
    lab.tokend.start()
    lab.postfix.start()
    check_refused(letters)
    lab.milter.start()
    letters.send()
    letters.check_arrived()


def test_milter_killed(lab):
    letters = ready(lab, milter=True)
    letters.wait_arrived([letters.send()])
    lab.milter.kill()
    check_refused(letters)
    lab.milter.start()
    letters.send()
    letters.check_arrived()
    assert at_milter(lab)["used"] == 2, "both of the accepted ones, one before the kill"


def test_milter_stopped(lab):
    letters = ready(lab, milter=True, main=IMPATIENT)
    letters.wait_arrived([letters.send()])
    lab.milter.pause()
    check_refused(letters)
    lab.milter.resume()
    letters.send()
    letters.check_arrived()


@contextlib.contextmanager
def half_sent(postfix):
    """A client that has been allowed one recipient and has not sent its message."""
    with postfix.smtp(30) as smtp:
        assert smtp.mail(flow.SENDER)[0] == 250
        assert smtp.rcpt("half@example.net")[0] == 250
        yield smtp


@pytest.mark.parametrize("strike", ["kill", "pause"])
def test_milter_gone_in_a_message(lab, strike):
    """It has counted the recipient, and fails before the message is accepted."""
    letters = ready(lab, milter=True, main=IMPATIENT)
    with half_sent(lab.postfix) as smtp:
        getattr(lab.milter, strike)()
        try:
            code, _text = smtp.data(b"From: <erp@contoso.com>\r\n\r\nhalf\r\n")
        except smtplib.SMTPDataError as e:
            code = e.smtp_code
    assert code == 451
    assert lab.postfix.queue() == []
    if strike == "kill":
        lab.milter.start()
    else:
        lab.milter.resume()
    letters.send()
    letters.check_arrived()
    procs.wait_for(lambda: at_milter(lab)["reserved"] == 0, 20, "the reservation's end")


# -- no disk for the ledgers ---------------------------------------------------

def in_ledger(path, name):
    with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % path, uri=True)) as db:
        return db.execute("SELECT coalesce(sum(n), 0) FROM counter JOIN bucket ON counter = id "
                          "WHERE name = ?", [name]).fetchone()[0]


MANY = 120      # messages that no ledger can take without growing


@pytest.fixture
def state_disk(lab):
    """tokend's state on a small disk."""
    with small_disk.mounted(lab.folder + "/state") as disk:
        yield disk
        lab.tokend.stop()       # while its files are there


@pytest.fixture
def milter_disk(lab):
    """The milter's state on a small disk."""
    with small_disk.mounted(lab.folder + "/mstate") as disk:
        yield disk
        lab.milter.stop()


def milter_config(lab, **top):
    """Each sender has a counter, so that the ledger grows with each message."""
    lab.sim.mailbox(laboratory.ADDRESS, tenant=laboratory.TENANT, send_as=["*"],
                    messages_per_minute=60000)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000}}, limits={
        "each": {"per": "sender", "count": "messages", "max": 1000, "window": "1h"}}, **top)


def long_sender(number):
    return "%s-%d@contoso.com" % ("x" * 50, number)


def send_until_refused(letters):
    """Accepted ones, then the first refusal."""
    for number in range(MANY):
        sent = letters.try_to_send(long_sender(number))
        if not sent.ok:
            return sent
    raise AssertionError("the disk is full, and %d messages were accepted" % MANY)


def test_milter_ledger_full_tempfail(lab, milter_disk):
    milter_config(lab)
    letters = letters_module.started(lab, milter=True)
    letters.wait_arrived([letters.send()])
    milter_disk.fill()
    refused = send_until_refused(letters)
    assert refused.code == 451 and "can't write down what it accepts" in refused.text, refused
    assert "the disk is full" in lab.milter.log()
    assert "accepted mail can't be written down" in lab.relay365("status", status=1).stdout
    milter_disk.make_room()
    lab.milter.wait_log("can be written again")
    for number in range(3):
        letters.send(long_sender(1000 + number))
    letters.check_arrived()
    check_milter_ledger(lab, letters)


def check_milter_ledger(lab, letters):
    """What was accepted is what it says, before and after a restart, and on the disk."""
    n = len(letters.sent)
    assert at_milter(lab)["used"] == n
    lab.milter.restart()
    assert at_milter(lab)["used"] == n
    assert "ledger_problem" not in flow.status(lab)["milter"]
    lab.milter.stop()
    assert in_ledger(lab.folder + "/mstate/ledger.db",
                     "recipients_per_day/" + laboratory.ADDRESS) == n


def test_milter_ledger_full_accept(lab, milter_disk):
    """Mail goes on; it is counted in memory, and written down when there is room."""
    milter_config(lab, on_ledger_error="accept")
    letters = letters_module.started(lab, milter=True)
    milter_disk.fill()
    number = 0
    while "the disk is full" not in lab.milter.log():
        letters.send(long_sender(number))
        number += 1
        assert number < MANY, "the disk is full, and nobody noticed"
    for more in range(5):
        letters.send(long_sender(MANY + more))
    assert at_milter(lab)["used"] == len(letters.sent)
    assert "accepted mail can't be written down" in lab.relay365("status", status=1).stdout
    milter_disk.make_room()
    lab.milter.wait_log("can be written again")
    letters.send()
    letters.check_arrived()
    check_milter_ledger(lab, letters)


def send_until_status_says(lab, letters, text):
    """Ten at a time, the ones before under way: behind a quiet second the ledger's log starts
    over, and then there is room even on a full disk, for a while."""
    before = []
    while text not in lab.relay365("status", status=None).stdout:
        assert len(letters.sent) < MANY, "the disk is full, and nobody noticed"
        burst = [letters.send() for _ in range(10)]
        letters.wait_arrived(before)
        before = burst


def test_tokend_ledger_full(lab, state_disk):
    """Mail flows, is counted in memory, and written down when there is room."""
    letters = ready(lab)
    state_disk.fill()
    send_until_status_says(lab, letters, "the disk is full")
    assert re.search("kept in memory: .*the disk is full", lab.tokend.log())
    letters.send(recipients=flow.numbers(20, first=500))
    letters.check_arrived()
    # smtp(8) tells tokend after the stand-in has the message
    counted = flow.accepted(lab)
    procs.wait_for(lambda: at_tokend(lab)["delivered"] == counted, 20, "the count")
    state_disk.make_room()
    procs.wait_for(lambda: "ledger_problem" not in flow.status(lab)["tokend"], 20, "its end")
    assert "written down again" in lab.tokend.log()
    lab.tokend.stop()
    assert in_ledger(lab.folder + "/state/delivered.db", laboratory.ADDRESS) == counted
    lab.tokend.start()
    assert at_tokend(lab)["delivered"] == counted
    assert "ledger_problem" not in flow.status(lab)["tokend"]


def test_tokend_starts_on_a_full_disk(lab, state_disk):
    """A restart while there is no room: what it knew is there, and mail flows."""
    letters = ready(lab)
    letters.wait_arrived([letters.send(recipients=flow.numbers(7))])
    lab.tokend.stop()
    state_disk.fill()
    lab.tokend.start()
    assert at_tokend(lab)["delivered"] == 7
    letters.wait_arrived([letters.send()])
    assert at_tokend(lab)["delivered"] == 8
    state_disk.make_room()
    lab.tokend.restart()
    assert at_tokend(lab)["delivered"] == 8
    letters.check_arrived()


def test_milter_starts_on_a_full_disk(lab, milter_disk):
    """It comes up all the same, and refuses what it can't write down."""
    milter_config(lab)
    letters = letters_module.started(lab, milter=True)
    letters.wait_arrived([letters.send()])
    lab.milter.stop()
    milter_disk.fill()
    lab.milter.start()
    assert at_milter(lab)["used"] == 1
    assert send_until_refused(letters).code == 451
    milter_disk.make_room()
    lab.milter.wait_log("can be written again")
    letters.send()
    letters.check_arrived()
    check_milter_ledger(lab, letters)


def test_a_queue_directory_comes_later(lab):
    """One Postfix instance that is not there, or whose socket can't be made, keeps no other
    from its token."""
    late, odd = lab.folder + "/late", lab.folder + "/odd"
    os.makedirs(odd + "/relay365/token")
    lab.configure(queue_directories=[late, odd, lab.queue_dir], milter_socket="inet:1@127.0.0.1")
    lab.tokend.start()
    for folder, why in (late, "cannot make the folder"), (odd, "cannot listen at .*/token: "):
        lab.tokend.wait_log("mail in the queue directory %s waits: %s" % (folder, why))
    assert token_client.ask(lab.queue_dir + "/relay365/token")["status"] == "ok"
    os.mkdir(late)
    os.rmdir(odd + "/relay365/token")
    for path in late + "/relay365/map", odd + "/relay365/token":
        lab.tokend.wait_log(path + " is served now", timeout=30)
    for folder in late, odd:
        assert token_client.ask(folder + "/relay365/token")["status"] == "ok"


def test_no_queue_directory_at_all(lab):
    lab.configure(queue_directories=[lab.folder + "/never", lab.folder + "/nor"],
                  milter_socket="inet:1@127.0.0.1")
    lab.tokend.start(wait=False)
    assert lab.tokend.expect_end() == 78
    assert 'fault text="cannot make the folder' in lab.tokend.log()
    assert "tried again" not in lab.tokend.log()
