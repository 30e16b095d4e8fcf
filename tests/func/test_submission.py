"""Many messages and one limit: what is queued leaves at Microsoft's pace, within its limits,
and nothing bounces."""

import re
import statistics
import time

import pytest

import flow
import procs
from shifted_clock import ShiftedClock

pytestmark = pytest.mark.needs_build

ADDRESS = "relay@contoso.com"
ALERTS = "alerts@contoso.com"
HOUR = 3600
OVER = re.compile("status=bounced|sender non-delivery notification")


def exchange(lab, address=ADDRESS):
    return lab.sim.state()["smtp"]["mailboxes"].get(address, {
        "recipients": 0, "messages": 0, "refused": {}})


def feed(postfix, messages, recipients=1, sender=flow.SENDER, first=0, xclient=None):
    """Hand over so many messages in one session, each to so many recipients."""
    with postfix.smtp(timeout=120) as smtp:
        if xclient:
            assert smtp.docmd("XCLIENT", " ".join("%s=%s" % p for p in xclient.items()))[0] == 220
            smtp.ehlo("client.test")
        for n in range(messages):
            assert smtp.mail(sender)[0] == 250
            replies = {smtp.rcpt(r) for r in
                       flow.numbers(recipients, first=(first + n) * recipients)}
            assert {code for code, _text in replies} == {250}, replies
            assert smtp.data(b"From: <%s>\r\n\r\nx\r\n" % sender.encode())[0] == 250


# -- a backlog -------------------------------------------------------------------

@pytest.mark.slow
def test_backlog_drains_at_the_pace(lab):
    """500 queued messages at 30 a minute, fifty times as fast: each is tried once."""
    lab.sim.mailbox(ADDRESS, tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    messages_per_minute=150, minute_seconds=6, concurrency="sessions")
    lab.configure(mailboxes={"relay": {"messages_per_minute": 1500}})
    postfix = flow.wire(lab, main={"defer_transports": "relay365-relay"})
    feed(postfix, 500)
    postfix.wait_queue(lambda queue: len(queue) == 500 and
                       all(m["queue_name"] == "deferred" for m in queue), 60)
    mark, begun = postfix.mark(), time.monotonic()
    postfix.set(defer_transports=None)
    postfix.reload()
    postfix.flush()
    postfix.wait_queue_empty(120)
    took = time.monotonic() - begun

    use = exchange(lab)
    assert (use["messages"], use["refused"], use["over_rate"]) == (500, {}, 0)
    assert use["max_messages_in_minute"] <= 150 and use["peak_sessions"] <= 3
    # the queue manager of before the reload may be in the middle of a look at the queue
    deliveries = [d for d in postfix.deliveries(since=mark) if d.text != "deferred transport"]
    assert len(deliveries) == 500 and {d.status for d in deliveries} == {"sent"}, \
        "no message is tried twice, suspended or returned"
    assert 499 * 60 / 1500 <= took < 499 * 60 / 1500 * 5, "and it is not much slower than needed"


# -- more than a day's limit -------------------------------------------------------

def day_of(lab, when_full, **keys):
    """Microsoft's real limit of a day, and a pace that is no matter."""
    clock = ShiftedClock(lab)
    lab.sim.mailbox(ADDRESS, tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    messages_per_minute=60000)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000, "when_full": when_full,
                                       **keys}},
                  sources={"monitoring": {"clients": ["10.1.0.5"], "priority": True}})
    postfix = flow.wire(lab, start=False, main={"smtpd_recipient_limit": "1000"})
    clock.start_daemons()
    postfix.start()
    return clock, postfix


def wait_recipients(lab, n):
    procs.wait_for(lambda: exchange(lab)["recipients"] >= n, 60,
                   lambda: "%d recipients: %s" % (n, exchange(lab)))


def wait_full(lab, postfix, text):
    """Wait until all that is in the queue was refused a slot, for this reason."""
    def refused():
        queue = postfix.queue()
        return queue and all(m["queue_name"] == "deferred" for m in queue)

    procs.wait_for(refused, 60, lambda: "what waits: %s" % postfix.queue())
    box = flow.status(lab)["tokend"]["mailboxes"][0]
    assert text in box["problem"] and box["leases"] == 0, box


@pytest.mark.slow
def test_twelve_thousand_for_ten(lab):
    """12,000 recipients are accepted for a limit of 10,000; the rest goes when there is room."""
    clock, postfix = day_of(lab, "wait", max_wait="5d")
    feed(postfix, 12, 500)
    wait_recipients(lab, 6000)
    clock.sleep(12 * HOUR)
    feed(postfix, 12, 500, first=12)
    wait_recipients(lab, 10000)
    wait_full(lab, postfix, "10000 of 10000 recipients delivered in 24 h; room for 500 at ")
    clock.sleep(11 * HOUR)
    mark = postfix.mark()
    postfix.flush()
    postfix.wait_log(r"status=deferred \((?!delivery temporarily suspended).*room for 500 at ",
                     60, since=mark)
    wait_full(lab, postfix, "10000 of 10000 recipients delivered in 24 h; room for 500 at ")
    assert exchange(lab)["recipients"] == 10000, "23 hours are not 24"
    clock.sleep(HOUR + 180)
    postfix.wait_queue_empty()  # by itself
    use = exchange(lab)
    assert (use["recipients"], use["refused"]) == (12000, {})
    assert use["max_recipients_in_window"] <= 10000
    assert not OVER.search(postfix.log())
    counts = {m["recipients"][0]: len(m["recipients"]) for m in lab.sim.messages()}
    assert len(counts) == 24 and set(counts.values()) == {500}, "each message once"


@pytest.mark.slow
def test_priority_mail_passes_what_is_refused(lab):
    """With when_full = "defer" the reserve is there for priority mail at submission too."""
    _clock, postfix = day_of(lab, "defer", recipients_per_day=1000, reserve_for_priority=10)
    feed(postfix, 18, 50)
    wait_recipients(lab, 900)
    refused = postfix.send(flow.SENDER, ["more@example.net"])
    assert refused.code == 451 and "the rest is kept for priority mail" in refused.text
    begun = time.monotonic()
    feed(postfix, 2, 50, first=18, xclient={"ADDR": "10.1.0.5"})
    wait_recipients(lab, 1000)
    assert time.monotonic() - begun < 20
    postfix.wait_queue_empty()
    assert exchange(lab)["refused"] == {} and not OVER.search(postfix.log())


@pytest.mark.slow
def test_priority_mail_first(lab):
    """What waits for room leaves some to priority_senders, who pass all that waits at once."""
    clock, postfix = day_of(lab, "wait", recipients_per_day=1000, reserve_for_priority=10,
                            max_wait="5d", priority_senders=["alert@contoso.com"])
    feed(postfix, 24, 50)                   # 1200 for what leaves 900 to ordinary mail
    wait_recipients(lab, 900)
    wait_full(lab, postfix, "900 of 1000 recipients delivered in 24 h, the rest is kept for "
              "priority mail; room for 50 at ")
    feed(postfix, 2, 50, sender="alert@contoso.com", first=100)
    wait_recipients(lab, 1000)
    lab.sim.wait_messages(20)
    senders = [m["from"] for m in lab.sim.messages()]
    assert senders == ["erp@contoso.com"] * 18 + ["alert@contoso.com"] * 2
    postfix.wait_queue(lambda queue: len(queue) == 6)
    feed(postfix, 1, 50, sender="alert@contoso.com", first=200)     # now it is full for them too
    wait_full(lab, postfix, "1000 of 1000 recipients delivered in 24 h")
    clock.sleep(24 * HOUR + 180)
    postfix.wait_queue_empty()
    use = exchange(lab)
    assert (use["recipients"], use["refused"]) == (1350, {})
    assert use["max_recipients_in_window"] <= 1000 and not OVER.search(postfix.log())


# -- one full mailbox --------------------------------------------------------------

def delays(postfix, n=15):
    """How long each of n messages of the other mailbox takes to its delivery, in seconds."""
    found = []
    for number in range(n):
        begun = time.monotonic()
        sent = postfix.send("from-alerts@contoso.com", ["a%d@example.net" % number])
        postfix.wait_status(sent.qid, "sent")
        found.append(time.monotonic() - begun)
    return found


def test_full_mailbox_does_not_hold_up_others(lab):
    for address in (ADDRESS, ALERTS):
        lab.sim.mailbox(address, tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                        messages_per_minute=60000)
    lab.configure(mailboxes={
        "relay": {"address": ADDRESS, "default": True, "recipients_per_day": 20,
                  "max_wait": "5d", "messages_per_minute": 60000},
        "alerts": {"address": ALERTS, "senders": ["from-alerts@contoso.com"],
                   "messages_per_minute": 60000}})
    postfix = flow.wire(lab)
    feed(postfix, 60)
    wait_recipients(lab, 20)
    postfix.wait_queue(lambda queue: len(queue) == 40, 60)
    found = delays(postfix)
    assert statistics.median(found) < 10, found
    assert not [d for d in postfix.deliveries() if "a" == d.to[0] and d.status != "sent"]
    assert exchange(lab)["recipients"] == 20 and exchange(lab)["refused"] == {}
    assert exchange(lab, ALERTS)["messages"] == 15
