"""relay365 queue, why, hold and release, with a real queue and its log."""

import datetime
import gzip
import json
import os
import re
import subprocess
import time

import pytest

import flow
import letters as letters_module
import procs
import programs

pytestmark = pytest.mark.needs_build

ADDRESS = "relay@contoso.com"
ERP, CRM = {"ADDR": "10.1.0.5"}, {"ADDR": "10.2.0.5"}
# what has been deferred stays so until it is flushed
PATIENT = {"minimal_backoff_time": "300s", "maximal_backoff_time": "300s"}


def started(lab, limits=None, milter=True, main=None, log_format="text", **keys):
    letters_module.fast(lab)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000, **keys}}, limits=limits,
                  log_format=log_format,
                  sources={"erp": {"clients": ["10.1.0.0/24"]}, "crm": {"clients": ["10.2.0.5"]}})
    return letters_module.started(lab, milter=milter, main=main)


def wait_deferred(postfix, count):
    """So many are deferred, and nothing else is in the queue."""
    postfix.wait_queue(lambda queue: len(queue) == count and
                       {m["queue_name"] for m in queue} == {"deferred"})


def log(lab):
    """Both logs in one, as syslog would have them."""
    return procs.write(lab.folder + "/mail.txt", lab.postfix.log() + lab.milter.log())


def run(lab, *args, **options):
    return json.loads(lab.relay365("--json", *args, **options).stdout)


def when(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")


# -- queue ---------------------------------------------------------------------

def test_queue(lab):
    """What Postfix does not even try shows tokend's reason, and until when."""
    letters = started(lab, main=PATIENT, recipients_per_day=4, max_wait="5d")
    assert lab.relay365("queue").stdout == "No mail waits.\n"
    letters.wait_arrived([letters.send(recipients=flow.numbers(4))])
    qids = [letters.send() for _ in range(3)]
    wait_deferred(letters.postfix, 3)
    letters.postfix.postsuper("-h", qids[2])
    letters.wait_mailq("delivery temporarily suspended|4 of 4 recipients")
    queue = {m["queue_id"]: m for m in run(lab, "queue")["messages"]}
    assert sorted(queue) == sorted(qids)
    state = flow.status(lab)["tokend"]["mailboxes"][0]
    for qid in qids[:2]:
        message = queue[qid]
        assert message["queue"] == "deferred" and message["mailbox"] == "relay"
        assert abs(when(message["until"]) - when(state["room_at"])) < datetime.timedelta(minutes=2)
        assert when(message["expires"]) - when(message["arrived"]) == datetime.timedelta(days=5)
        assert "relay@contoso.com: 4 of 4 recipients delivered in 24 h; room for 1 at " in \
            message["reasons"][0]["reason"]
        assert "temporarily suspended" not in message["reasons"][0]["reason"]
    assert queue[qids[2]]["queue"] == "hold" and queue[qids[2]]["expires"] is None
    text = lab.relay365("queue").stdout
    assert re.search(r"^%s  hold  <erp@contoso.com> to 1 recipient, mailbox relay; relay365 why tells"
                     % qids[2], text, re.M)
    assert text.count("\n    expires 2") == 2
    lab.configure(queue_directories=[lab.queue_dir + "/"])
    done = subprocess.run(
        [programs.program("relay365"), "-c", lab.config, "queue"], stdout=subprocess.PIPE,
        text=True, check=True, env=programs.environment(lab.folder, PATH="/usr/bin:/bin"))
    assert done.stdout == text, "with a slash more, for who has no sbin in PATH"
    lab.tokend.stop()
    assert len(run(lab, "queue", status=75)["messages"]) == 3, "without tokend too"


def test_queue_of_no_postfix(lab):
    lab.configure()
    done = lab.relay365("queue", status=1)
    assert "no Postfix on this machine has the queue directory" in done.stderr
    assert "relay365-tokend does not answer" in done.stderr


# -- hold and release ------------------------------------------------------------

RUNAWAY = {"runaway": {"per": "source", "count": "messages", "max": 1, "window": "1h",
                       "action": "hold"}}


def wait_hold(postfix, qids):
    postfix.wait_queue(lambda queue: sorted(qids) == sorted(
        m["queue_id"] for m in queue if m["queue_name"] == "hold"))


@pytest.mark.parametrize("form", ["text", "json"])
def test_release(lab, form):
    """The milter's own holds are told from others', and let go by message, source or mailbox."""
    letters = started(lab, RUNAWAY, log_format=form)
    for who in (ERP, CRM):
        letters.wait_arrived([letters.send(xclient=who)])
    erp = [letters.send(xclient=ERP) for _ in range(3)]
    crm = letters.send(xclient=CRM)
    wait_hold(letters.postfix, [*erp, crm])
    letters.postfix.postsuper("-h", "ALL")
    listed = run(lab, "release", "--log", log(lab))["messages"]
    assert {m["queue_id"] for m in listed} == {*erp, crm}
    assert all("limit=runaway" in m["why"] for m in listed)
    assert "limit=runaway mailbox=relay source=crm" in lab.relay365(
        "release", "--log", log(lab)).stdout

    said = lab.relay365("release", erp[0], "--log", log(lab)).stdout
    assert said.endswith("1 message released\n")
    letters.wait_arrived([erp[0]])
    assert run(lab, "release", "erp", "--log", log(lab))["messages"]
    letters.wait_arrived(erp)
    wait_hold(letters.postfix, [crm])
    lab.relay365("release", "relay", "--log", log(lab))
    letters.check_arrived()


def test_release_leaves_what_others_hold(lab):
    letters = started(lab, main=PATIENT)
    lab.sim.listen("smtp", open=False, drop=True)
    qid = letters.send(xclient=ERP)
    wait_deferred(letters.postfix, 1)
    letters.postfix.postsuper("-h", qid)
    wait_hold(letters.postfix, [qid])
    assert "not held by relay365, as far as the log goes" in lab.relay365(
        "release", "--log", log(lab)).stdout
    assert run(lab, "release", "erp", "--log", log(lab))["messages"] == []
    wait_hold(letters.postfix, [qid])
    lab.sim.listen("smtp")
    assert run(lab, "release", "erp", "--any", "--log", log(lab))["messages"]
    letters.postfix.flush()
    letters.check_arrived()


def test_release_of_what_was_not_seen(lab):
    """Without the queue, or a log that is named, it does not say how it is."""
    letters = started(lab, milter=False, main=PATIENT)
    for args in (["release"], ["release", "--log", "/nonexistent"]):
        done = lab.relay365(*args, status=1 if "--log" in args else 0)
        assert ("cannot read /nonexistent" in done.stderr) == ("--log" in args)
        assert (done.stdout == "No mail is held.\n") == ("--log" not in args)
    lab.sim.listen("smtp", open=False, drop=True)
    qid = letters.send()
    wait_deferred(letters.postfix, 1)
    letters.postfix.postsuper("-h", qid)
    wait_hold(letters.postfix, [qid])
    nobody = lab.relay365("release", "--log", "/nonexistent", status=1)
    assert nobody.stdout == "" and "cannot read /nonexistent" in nobody.stderr
    lab.relay365("release", qid, "--log", "/nonexistent", status=1)
    wait_hold(letters.postfix, [qid])
    procs.write(lab.config, procs.read(lab.config).replace(lab.queue_dir, lab.queue_dir + "x"),
                0o640)
    gone = lab.relay365("release", "--log", lab.postfix.log_file, status=78)
    assert gone.stdout == "" and "no Postfix on this machine has" in gone.stderr


def test_hold(lab):
    """What a source has in the queue is kept back, and nothing else."""
    letters = started(lab, main=PATIENT)
    lab.sim.listen("smtp", open=False, drop=True)
    erp = [letters.send(xclient=ERP) for _ in range(3)]
    crm = letters.send(xclient=CRM)
    local = letters.postfix.submit(["local@example.net"], sender=flow.SENDER,
                                   body="From: <erp@contoso.com>\n\nx\n")
    wait_deferred(letters.postfix, 5)
    lab.relay365("lock", "erp", "--reason", "compromised")
    done = lab.relay365("hold", "erp")
    assert done.stdout.endswith("3 messages put on hold\n")
    held = re.findall(r"(\w+): hold by=admin key=source:erp", done.stderr)
    assert sorted(held) == sorted(erp)
    wait_hold(letters.postfix, erp)
    lab.sim.listen("smtp")
    letters.postfix.flush()
    letters.wait_arrived([crm])
    letters.postfix.wait_status(local, "sent")
    assert len(lab.sim.messages()) == 2
    both = procs.write(lab.folder + "/held.txt", done.stderr)
    released = run(lab, "release", "erp", "--log", both)["messages"]
    assert {m["queue_id"] for m in released} == set(erp)
    letters.postfix.flush()
    letters.wait_arrived(erp)
    assert run(lab, "hold", "relay")["messages"] == [], "there is no more"


def test_hold_again(lab):
    letters = started(lab, milter=False, main=PATIENT)
    lab.sim.listen("smtp", open=False, drop=True)
    qid = letters.send(xclient=ERP)
    wait_deferred(letters.postfix, 1)
    assert lab.relay365("hold", qid).stdout.endswith("1 message put on hold\n")
    done = lab.relay365("hold", qid)
    assert done.stderr == "relay365: message %s is on hold already\n" % qid
    assert done.stdout == "0 messages put on hold\n"


@pytest.mark.parametrize("args, status, text", [
    (["release", "a", "b"], 2, "usage: "), (["hold"], 2, "usage: "), (["hold", "--any"], 2, "usage: "),
    (["queue", "x"], 2, "usage: "), (["why"], 2, "usage: "), (["why", "A", "B"], 2, "usage: "),
    (["release", "NOSUCHID"], 1, 'on hold is called "NOSUCHID"'),
    (["hold", "NOSUCHID"], 1, 'in the queue is called "NOSUCHID"'),
    (["why", "NOSUCHID"], 1, 'has no message "NOSUCHID"'),
    (["why", "NOSUCHID", "--log", "/nonexistent"], 1, "cannot read /nonexistent"),
], ids=str)
def test_mistakes(lab, args, status, text):
    started(lab, milter=False)
    if args[0] in ("release", "why") and status == 1 and "--log" not in args:
        args = [*args, "--log", lab.postfix.log_file]
    assert text in lab.relay365(*args, status=status).stderr


# -- why -------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["text", "json"])
def test_why(lab, form):
    letters = started(lab, RUNAWAY, log_format=form)
    sent = letters.send(xclient=ERP, recipients=flow.numbers(2))
    letters.wait_arrived([sent])
    letters.postfix.wait_log(sent + ": removed")
    lab.milter.wait_log(sent + '(: |".*")accept')
    story = run(lab, "why", sent, "--log", log(lab))
    texts = [step["program"].rpartition("/")[2] + ": " + step["text"] for step in story["steps"]]
    assert any(t.startswith("smtpd: client=unknown[10.1.0.5]") for t in texts)
    name = "relay365-milter" if form == "text" else "relay365"  # JSON does not tell it by itself
    assert any(t.startswith(name + ": accept mailbox=relay source=erp") for t in texts)
    assert "qmgr: removed" in texts
    assert [(r["recipient"], r["attempts"], r["status"][:9]) for r in story["recipients"]] == [
        ("r0@example.net", 1, "sent (250"), ("r1@example.net", 1, "sent (250")]
    assert story["queue"] is None and "advice" not in story

    held = letters.send(xclient=ERP)
    lab.milter.wait_log(held + '(: |".*")hold')
    text = lab.relay365("why", held, "--log", log(lab)).stdout
    assert name + ": hold limit=runaway" in text
    assert "It is on hold; to let it go: relay365 release " + held in text


def test_log_that_postfix_keeps_itself(lab):
    """Its maillog_file, and what that was rotated to, are found without being named."""
    letters = started(lab)
    first = letters.send(recipients=flow.numbers(2))
    letters.wait_arrived([first])
    letters.postfix.wait_log(first + ": removed")
    letters.postfix.run("postfix", "logrotate")
    second = letters.send()
    letters.wait_arrived([second])
    for qid, n in ((first, 2), (second, 1)):
        story = run(lab, "why", qid)
        assert [r["attempts"] for r in story["recipients"]] == [1] * n


def test_why_it_waits(lab):
    letters = started(lab, main=PATIENT)
    lab.sim.fault("smtp", "reply", at="EOD",
                  text="554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException")
    qid = letters.send(xclient=CRM)
    letters.wait_deferred(qid)
    path = log(lab)
    packed = lab.folder + "/mail.txt.gz"
    with gzip.open(packed, "wt") as f:
        f.write(procs.read(path))
    other = procs.write(lab.folder + "/other.txt", "Nov 26 10:38:14 gw x[1]: y\n\0\xff garbage\n")
    story = run(lab, "why", qid, "--log", other, packed)
    assert story["recipients"][0]["status"].startswith("deferred (")
    assert story["advice"]["meaning"].startswith("the mailbox has reached its recipients")
    assert "quota is exceeded; next try at" in story["queue"]["mailbox_problem"]
    text = lab.relay365("why", qid, "--log", packed).stdout
    assert "That means: the mailbox has reached its recipients of 24 hours" in text
    procs.write(packed, "")
    with open(packed, "wb") as f:
        f.write(gzip.compress(procs.read(path).encode())[:-40])
    assert "cannot read" in lab.relay365("why", qid, "--log", packed, status=1).stderr


def test_what_a_terminal_obeys(lab):
    """Control characters of a client's never reach the terminal, whatever prints them."""
    sender = '"\033[31mred"@contoso.com'
    per_sender = {"per-sender": {"per": "sender", "count": "messages", "max": 1, "window": "1h",
                                 "action": "hold"}}
    letters = started(lab, per_sender)
    _first, held = (letters.send(sender, xclient=ERP) for _ in range(2))
    wait_hold(letters.postfix, [held])
    lab.relay365("lock", "crm", "--reason", "\033[32m\u00fcbel")
    text = log(lab)
    sent = ("Nov 26 10:38:14 gw postfix/smtpd[7]: 4FA2B1%d: client=x[10.1.0.5]\n"
            "Nov 26 10:38:14 gw postfix/qmgr[7]: 4FA2B1%d: from=<" + sender + ">, size=3, nrcpt=1\n"
            "Nov 26 10:38:14 gw postfix/smtp[7]: 4FA2B1%d: to=<a@b.test>, relay=x[10.1.0.9]:25\n")
    procs.write(text, procs.read(text).replace("?[31mred", "\033[31mred") +
                "".join(sent % (n, n, n) for n in range(2)))
    said = {" ".join(args[:2]): lab.relay365(*args, status=None).stdout for args in (
        ["limits"], ["limits", "--what-if", lab.config, "--log", text], ["status"], ["queue"],
        ["why", held, "--log", text], ["release", "--log", text])}
    assert not [name for name, out in said.items() if "\033" in out]
    for name in ("limits", "limits --what-if", "queue", "why " + held, "release --log"):
        assert '?[31mred' in said[name], name
    assert "?[32m\u00fcbel" in said["status"], "what is no control character stays"


STORY = [
    "client=erp.test[10.1.0.5]",
    "from=<erp@contoso.com>, size=312, nrcpt=2 (queue active)",
    "to=<a@example.net>, relay=none, dsn=4.4.1, status=deferred (connect: timed out)",
    "to=<b@example.net>, relay=x[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
    "to=<a@example.net>, relay=x[52.1.2.3]:587, dsn=2.0.0, status=sent (250 OK)",
    "removed",
]
PROGRAMS = ["smtpd", "qmgr", "smtp", "smtp", "smtp", "qmgr"]


def hand_made(stamps):
    return ["%s gw postfix/%s[7]: 4FA2B1C00D: %s\n" % line for line in zip(stamps, PROGRAMS, STORY)]


def in_two_files(lab, lines, changed=None):
    """An older file, packed, and a newer one, as they are rotated; changed: when each was."""
    old, new = lab.folder + "/mail.log.1.gz", lab.folder + "/mail.log"
    with gzip.open(old, "wt") as f:
        f.writelines(lines[:3])
    procs.write(new, "".join(lines[3:]))
    for path, at in zip([old, new], changed or []):
        os.utime(path, (at, at))
    return old, new


@pytest.mark.parametrize("newest_first", [False, True])
def test_why_of_files_in_any_order(lab, newest_first):
    """The file that begins first is read first; one that is empty, or no log, is no matter."""
    lab.configure()
    old, new = in_two_files(lab, hand_made("2026-11-2%dT10:38:14Z" % n for n in range(6)))
    files = [new, procs.write(lab.folder + "/empty", ""), old,
             procs.write(lab.folder + "/rubbish", "rubbish\n\0\n")]
    story = run(lab, "why", "4FA2B1C00D", "--log",
                *(files if newest_first else reversed(files)), status=1)
    assert {(r["recipient"], r["attempts"], r["status"][:4]) for r in story["recipients"]} == {
        ("a@example.net", 2, "sent"), ("b@example.net", 1, "sent")}
    assert story["steps"][0]["text"].startswith("client=")
    assert story["steps"][-1]["text"] == "removed"


def test_why_of_stamps_without_a_year(lab):
    """The year is that of the file: the older one began this very day a year ago."""
    lab.configure()
    begin = time.time() - 366 * 86400
    times = [begin + n * 86400 for n in range(6)]
    lines = hand_made(time.strftime("%b %e %H:%M:%S", time.localtime(at)) for at in times)
    old, new = in_two_files(lab, lines, [times[2], times[5]])
    story = run(lab, "why", "4FA2B1C00D", "--log", new, old, status=1)
    assert [r["status"][:4] for r in story["recipients"]] == ["sent", "sent"]
    assert story["steps"][0]["at"][:4] == time.strftime("%Y", time.gmtime(begin))


def test_why_reads_pipes(lab):
    """What can be read only once is read once, and in its turn."""
    lab.configure()
    old, new = in_two_files(lab, hand_made("2026-11-2%dT10:38:14Z" % n for n in range(6)))
    with gzip.open(old, "rt") as f:
        text = f.read()
    story = json.loads(lab.relay365("--json", "why", "4FA2B1C00D", "--log", new, "-", data=text,
                                    status=1).stdout)
    assert [r["status"][:4] for r in story["recipients"]] == ["sent", "sent"]


def test_why_without_the_queue(lab):
    """It does not say that a message is gone when it has not looked."""
    lab.configure()
    path = procs.write(lab.folder + "/mail.log",
                       "".join(hand_made("2026-11-2%dT10:38:14Z" % n for n in range(6))))
    done = lab.relay365("why", "4FA2B1C00D", "--log", path, status=1)
    assert "Whether it is still in the queue can't be seen: no Postfix on this machine has" in \
        done.stdout
    assert "not in the queue" not in done.stdout
    story = run(lab, "why", "4FA2B1C00D", "--log", path, status=1)
    assert "queue" not in story and story["queue_unread"].startswith("no Postfix")
    assert "failed with status" in run(lab, "why", "4FA2B1C00D", "--sendmail", "/nonexistent/x",
                                       "--log", path, status=1)["queue_unread"]
