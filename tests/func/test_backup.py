"""relay365 backup: a copy of the ledger that can take its place."""

import contextlib
import os
import shutil
import sqlite3
import stat
import threading

import pytest

import flow
import milter_client
import procs

pytestmark = pytest.mark.needs_build


def send(lab, n):
    """One message of n recipients, by the milter protocol."""
    with milter_client.Client(lab.queue_dir + "/relay365m/milter") as client:
        client.mail(flow.SENDER)
        for i in range(n):
            assert client.rcpt("r%d@example.net" % i)
        assert client.end("4Q1")


def used(lab):
    return flow.status(lab)["milter"]["mailboxes"][0]["used"]


def counted(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return db.execute("SELECT coalesce(sum(n), 0) FROM counter JOIN bucket ON counter = id "
                          "WHERE name LIKE 'recipients_per_day/%'").fetchone()[0]


def test_backup_and_restore(lab):
    lab.configure()
    lab.milter.start()
    copy = lab.folder + "/copy.db"
    send(lab, 5)
    lab.milter.restart()        # it is in the ledger, not only in the journal
    send(lab, 3)
    assert "is copied to " + copy in lab.relay365("backup", copy).stdout
    assert counted(copy) in (5, 8), "as it was a second ago"
    assert os.stat(copy).st_mode & 0o777 == 0o600
    lab.milter.restart()
    lab.relay365("backup", copy)
    assert counted(copy) == 8
    send(lab, 10)
    assert used(lab) == 18
    lab.milter.stop()
    shutil.copy(copy, lab.folder + "/mstate/ledger.db")
    lab.milter.start()
    assert used(lab) == 8


def test_backup_under_load(lab):
    lab.configure(mailboxes={"relay": {"recipients_per_day": 1000000}})
    lab.milter.start()
    copy = lab.folder + "/copy.db"
    sent, failed, stop = [], [], threading.Event()

    def clients():
        try:
            while not stop.is_set():
                send(lab, 2)
                sent.append(2)
        except (AssertionError, OSError) as error:
            failed.append(error)

    thread = threading.Thread(target=clients)
    thread.start()
    try:
        last = 0
        for _ in range(20):
            lab.relay365("backup", copy)
            now = counted(copy)
            assert last <= now <= sum(sent) + 2
            last = now
    finally:
        stop.set()
        thread.join()
    assert not failed
    assert used(lab) == sum(sent)


def test_damaged_ledger_is_moved_aside(lab):
    """Loudly, and never fatal; a backup can take its place."""
    lab.configure()
    lab.milter.start()
    send(lab, 5)
    lab.milter.restart()
    copy = lab.folder + "/copy.db"
    lab.relay365("backup", copy)
    lab.milter.stop()
    ledger = lab.folder + "/mstate/ledger.db"
    with open(ledger, "r+b") as f:
        f.write(b"x" * 512)
    lab.milter.start()
    assert "counting starts anew" in lab.milter.log()
    [aside] = [n for n in os.listdir(lab.folder + "/mstate") if "damaged" in n]
    assert "moved_to=%s/mstate/%s" % (lab.folder, aside) in lab.milter.log()
    assert used(lab) == 0
    send(lab, 2)
    assert used(lab) == 2
    lab.milter.stop()
    shutil.copy(copy, ledger)
    lab.milter.start()
    assert used(lab) == 5


def test_backup_replaces_nothing_but_a_file(lab):
    lab.configure()
    lab.milter.start()
    there, fifo, link = (lab.folder + "/" + name for name in ("there", "fifo", "link"))
    procs.write(there, "as it was")
    os.mkfifo(fifo)
    os.symlink(there, link)
    for path, what in (fifo, "no plain file"), (link, "a symbolic link"), (lab.folder, "a folder"):
        assert "%s is %s" % (path, what) in lab.relay365("backup", path, status=1).stderr
    assert stat.S_ISFIFO(os.lstat(fifo).st_mode) and os.path.islink(link)
    assert procs.read(there) == "as it was"
    lab.relay365("backup", there)
    assert counted(there) == 0


def test_backup_that_cannot_be(lab):
    lab.configure()
    result = lab.relay365("backup", lab.folder + "/copy.db", status=75)
    assert "cannot connect to %s/mrun/control: " % lab.folder in result.stderr
    lab.milter.start()
    result = lab.relay365("backup", lab.folder + "/nowhere/copy.db", status=1)
    assert "cannot write %s/nowhere/copy.db" % lab.folder in result.stderr
