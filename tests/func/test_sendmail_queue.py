"""relay365 queue, why and release with Sendmail's queue and quarantine."""

import json

import pytest

import flow
import procs
import sendmail

pytestmark = [pytest.mark.needs_build, pytest.mark.skipif(
    not sendmail.installed(), reason="Sendmail is not unpacked: contrib/install-packages test")]

LIMITS = {"runaway": {"per": "source", "count": "messages", "max": 1, "window": "1h",
                      "action": "hold"}}


def running(lab, **top):
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000}},
                  sources={"here": {"clients": ["127.0.0.1"]}}, **top)
    box = lab.make_sendmail(recipients="")
    for daemon in (lab.tokend, lab.milter, lab.submit):
        daemon.start()
    return box.start()


def run(lab, box, *args):
    command, *rest = args
    return json.loads(lab.relay365("--json", command, "--sendmail", box.script(), *rest).stdout)


def send(box, n, sender="erp@contoso.com"):
    assert box.send(sender, ["r%d@example.net" % n])[0] == 250


def test_release(lab):
    box = running(lab, limits=LIMITS)
    for n in range(4):
        send(box, n)
    held = box.wait_queue(lambda queue: len(queue) == 3 and all(
        name.startswith("hf") for name in queue) and [name[2:] for name in queue])
    listed = run(lab, box, "release")["messages"]
    assert sorted(m["queue_id"] for m in listed) == sorted(held)
    assert all(m["why"].startswith("source here: ") and m["sender"] == "erp@contoso.com" and
               m["recipients"] == 1 for m in listed)
    assert {m["queue"] for m in run(lab, box, "queue")["messages"]} == {"hold"}
    log = procs.write(lab.folder + "/mail.txt", box.log())
    assert run(lab, box, "why", held[0], "--log", log)["queue"] == {"name": "hold"}

    assert len(run(lab, box, "release", held[0])["messages"]) == 1
    box.flush()
    lab.sim.wait_messages(2)
    assert run(lab, box, "release", "source:else")["messages"] == []
    assert len(run(lab, box, "release", "here")["messages"]) == 2
    box.flush()
    box.wait_queue_empty()
    assert len(lab.sim.messages()) == 4
    assert "No mail is held." in lab.relay365("release", "--sendmail", box.script()).stdout


def test_queue_and_why(lab):
    box = running(lab)
    lab.relay365("lock", "relay", "--reason", "the auditor asked")
    send(box, 1)
    qid, = (name[2:] for name in box.wait_queue(lambda queue: queue))
    box.wait_deferred("the auditor asked")
    message, = run(lab, box, "queue")["messages"]
    assert (message["queue_id"], message["queue"], message["mailbox"], message["recipients"]) == (
        qid, "deferred", "relay", 1)
    assert message["reasons"][0]["reason"].endswith("relay365 unlock relay: the auditor asked")
    log = procs.write(lab.folder + "/mail.txt", box.log() + lab.milter.log())
    story = run(lab, box, "why", qid, "--log", log)
    assert story["queue"]["name"] == "deferred"
    assert story["queue"]["mailbox_problem"].endswith("the auditor asked")
    assert any(step["text"].startswith("from=<erp@contoso.com>") for step in story["steps"])
    assert any(step["text"].startswith("accept mailbox=relay source=here") for step in story["steps"])
    recipient, = story["recipients"]
    assert recipient["recipient"] == "r1@example.net" and "Deferred" in recipient["status"]
    lab.relay365("unlock", "relay")
    box.flush()
    box.wait_queue_empty()
    assert flow.accepted(lab) == 1
    assert run(lab, box, "why", qid, "--log", log)["queue"] is None


def test_no_sendmail(lab):
    lab.configure()
    done = lab.relay365("release", "--sendmail", "/nonexistent/sendmail", status=1)
    assert "/nonexistent/sendmail -bp -qQ failed" in done.stderr and done.stdout == ""


def test_priority(lab):
    """The sender decides at MAIL; its mail may use what is kept from the others."""
    lab.configure(mailboxes={"relay": {
        "messages_per_minute": 60000, "recipients_per_day": 20, "reserve_for_priority": 50,
        "max_wait": "5d", "priority_senders": ["alert@contoso.com"]}})
    box = lab.make_sendmail(recipients="")
    for daemon in (lab.tokend, lab.milter, lab.submit):
        daemon.start()
    box.start()
    for n in range(11):
        send(box, n)
    lab.sim.wait_messages(10)
    box.wait_deferred("10 of 20 recipients delivered")
    send(box, 20, "alert@contoso.com")
    assert lab.sim.wait_messages(11)[-1]["from"] == "alert@contoso.com"
    assert len(box.wait_queue(lambda queue: len(queue) == 1 and queue)) == 1
