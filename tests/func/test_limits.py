"""Limits hold: at the gateway's door for what it sees, at Microsoft's for all."""

import concurrent.futures
import re
import socket
import time

import pytest

import flow
import procs
import token_client

pytestmark = pytest.mark.needs_build

ADDRESS = "relay@contoso.com"
USED_UP = (r"relay@contoso\.com: 5 of 5 recipients used in 24 h; "
           r"room for 5 at \d{4}-\d\d-\d\d \d\d:\d\d UTC")


def limited(lab, n, main=None, sim=None, **keys):
    """Postfix, all daemons, and a mailbox of n recipients a day, here and there."""
    lab.sim.mailbox(ADDRESS, tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    **{"recipients_per_day": n, "messages_per_minute": 60000, **(sim or {})})
    lab.configure(mailboxes={"relay": {"recipients_per_day": n, "messages_per_minute": 6000,
                                       **keys}})
    return flow.wire(lab, main=main)


def at_milter(lab):
    return flow.status(lab)["milter"]["mailboxes"][0]


def at_tokend(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0]


def wait_reserved(lab, n):
    procs.wait_for(lambda: at_milter(lab)["reserved"] == n, 10,
                   lambda: "%d reserved: %s" % (n, at_milter(lab)))


def exchange(lab):
    # not there until the first sign-in
    return lab.sim.state()["smtp"]["mailboxes"].get(ADDRESS, {"recipients": 0})


def race(postfix, sessions, to_each):
    """Sessions that send at the same time; the number of recipients taken."""
    def one(i):
        sent = postfix.send("s%d@contoso.com" % i, flow.numbers(to_each, first=i * to_each))
        return to_each - len(sent.refused) if sent.ok else 0

    with concurrent.futures.ThreadPoolExecutor(sessions) as pool:
        return sum(pool.map(one, range(sessions)))


# -- never more than the limit -------------------------------------------------

@pytest.mark.milter
def test_racing_sessions_get_what_there_is(lab):
    postfix = limited(lab, 100, when_full="defer")
    taken = race(postfix, 20, 8)
    assert taken == 100, "the last place is taken, and once"
    use = at_milter(lab)
    assert (use["used"], use["reserved"]) == (100, 0)
    # a transaction carries up to 5: what room is left for less is not used
    procs.wait_for(lambda: exchange(lab)["recipients"] > 95, 30, lambda: str(exchange(lab)))
    procs.wait_for(lambda: not postfix.queue() or "problem" in at_tokend(lab), 20, "the rest")
    assert exchange(lab)["max_recipients_in_window"] <= 100
    assert exchange(lab)["refused"] == {}, "Exchange never had to say no"
    procs.wait_for(lambda: at_tokend(lab)["leases"] == 0 and
                   at_tokend(lab)["delivered"] == exchange(lab)["recipients"], 30,
                   lambda: "the same counts: %s, %s" % (at_tokend(lab), exchange(lab)))


@pytest.mark.milter
def test_expansion_behind_the_milter(lab):
    """One recipient that becomes thirty: only tokend can hold them back."""
    lists = lab.folder + "/lists"
    procs.write(lists, "all@lists.test " + ",".join(flow.numbers(30)) + "\n")
    postfix = limited(lab, 100, when_full="defer", main={
        "virtual_alias_domains": "lists.test", "virtual_alias_maps": "texthash:" + lists})
    sent = [postfix.send(flow.SENDER, ["all@lists.test"]) for _ in range(5)]
    assert all(s.ok for s in sent)
    assert at_milter(lab)["used"] == 0, "it was asked about an alias, which goes nowhere"
    problem = procs.wait_for(lambda: at_tokend(lab).get("problem"), 30, "tokend says no")
    assert re.search(r"relay@contoso\.com: (9[6-9]|100) of 100 recipients delivered in 24 h; "
                     r"room for 5 at \d{4}-\d\d-\d\d \d\d:\d\d UTC$", problem), problem
    postfix.wait_log(r"status=deferred \(.*of 100 recipients delivered in 24 h")
    postfix.flush()
    procs.wait_for(lambda: at_tokend(lab)["leases"] == 0, 20, "all sessions to end")
    assert 95 < exchange(lab)["max_recipients_in_window"] <= 100
    assert exchange(lab)["refused"] == {}
    assert not [d for d in postfix.deliveries() if d.status == "bounced"]


# -- when it is full -----------------------------------------------------------

def fill(postfix):
    sent = postfix.send(flow.SENDER, flow.numbers(5))
    assert sent.ok and not sent.refused
    postfix.wait_status(sent.qid, "sent", 5)


@pytest.mark.parametrize("action, keys, code", [
    ("reject", {}, "5.7.1"), ("defer", {}, "4.7.1"),
    ("wait", {"max_wait": "4h"}, "4.7.1"),
    ("wait", {"max_wait": "4h", "then": "reject"}, "5.7.1")])
def test_refused_with_limit_use_and_time(lab, action, keys, code):
    postfix = limited(lab, 5, when_full=action, **keys)
    fill(postfix)
    sent = postfix.send(flow.SENDER, ["late@example.net"])
    [reply] = sent.refused.values()
    assert reply[0] == (550 if code == "5.7.1" else 451)
    assert re.fullmatch(code.replace(".", r"\.") + " " + USED_UP, reply[1]), reply
    event = "reject" if code == "5.7.1" else "defer"
    lab.milter.wait_log(event + " limit=recipients_per_day mailbox=relay .* "
                        "used=5/5 need=1 room_at=")
    use = at_milter(lab)
    assert (use["used"], use["reserved"]) == (5, 0)


def test_wait_accepts_what_will_fit_in_time(lab):
    postfix = limited(lab, 5, when_full="wait", max_wait="30h")
    fill(postfix)
    sent = postfix.send(flow.SENDER, ["late@example.net"])
    assert sent.ok
    lab.milter.wait_log(sent.qid + ": wait limit=recipients_per_day mailbox=relay .* used=5/5")
    [deferred] = postfix.wait_status(sent.qid, "deferred")
    assert "5 of 5 recipients delivered in 24 h; room for 1 at" in deferred.text
    assert at_milter(lab)["used"] == 6
    assert exchange(lab)["recipients"] == 5


def test_hold_puts_it_on_hold(lab):
    postfix = limited(lab, 5, when_full="hold")
    fill(postfix)
    sent = postfix.send(flow.SENDER, ["late@example.net"])
    assert sent.ok
    postfix.wait_queue(lambda q: [m["queue_name"] for m in q] == ["hold"])
    # since 3.9 or 3.10 Postfix logs the reason that the milter gave
    postfix.wait_log(sent.qid + r": milter-hold: END-OF-MESSAGE .*: (milter triggers HOLD action|"
                     r"relay@contoso.com: 5 of 5 recipients used in 24 h);")
    lab.milter.wait_log(sent.qid + ": hold limit=recipients_per_day .* used=5/5")
    assert exchange(lab)["recipients"] == 5


def test_warn_accepts_and_submission_holds(lab):
    postfix = limited(lab, 5, when_full="warn")
    fill(postfix)
    sent = postfix.send(flow.SENDER, ["late@example.net"])
    assert sent.ok
    lab.milter.wait_log(sent.qid + ": warn limit=recipients_per_day .* used=5/5")
    postfix.wait_status(sent.qid, "deferred")
    assert exchange(lab)["recipients"] == 5 and exchange(lab)["refused"] == {}


def test_recipients_per_message(lab):
    postfix = limited(lab, 1000, recipients_per_message=7)
    sent = postfix.send(flow.SENDER, flow.numbers(10))
    assert sent.ok
    assert [r[0] for r in sent.refused.values()] == [452] * 3
    assert set(sent.refused) == set(flow.numbers(3, first=7))
    text = sent.refused["r9@example.net"][1]
    assert text == ("4.5.3 relay@contoso.com: a message may have 7 recipients; send it to the "
                    "others once more")
    postfix.wait_status(sent.qid, "sent", 7)
    assert at_milter(lab)["used"] == 7


def test_elsewhere_does_not_count(lab):
    transport = lab.folder + "/transport"
    procs.write(transport, "elsewhere.test discard:\n")
    postfix = limited(lab, 5, when_full="reject", main={
        "transport_maps": "texthash:" + transport})
    to = ["root@gateway.test"] + flow.numbers(20, "elsewhere.test")
    sent = postfix.send(flow.SENDER, to + ["one@example.net"])
    assert sent.ok and not sent.refused
    postfix.wait_status(sent.qid, "sent", 22)
    assert at_milter(lab)["used"] == 1
    assert exchange(lab)["recipients"] == 1
    postfix.wait_mailbox(1)


# -- what is given back --------------------------------------------------------

def reserve(lab, postfix, n=5):
    """A session that has reserved everything."""
    smtp = postfix.smtp()
    smtp.mail(flow.SENDER)
    assert [smtp.rcpt(r)[0] for r in flow.numbers(n)] == [250] * n
    wait_reserved(lab, n)
    assert postfix.send("other@contoso.com", ["x@example.net"]).code == 451
    return smtp


def drop(smtp):
    smtp.sock.shutdown(socket.SHUT_RDWR)
    smtp.close()


def drop_in_data(smtp):
    assert smtp.docmd("DATA")[0] == 354
    smtp.send(b"From: <erp@contoso.com>\r\n\r\nhalf of")
    drop(smtp)


def header_refused(smtp):
    code, text = smtp.data(b"From: <erp@contoso.com>\r\nX-Refuse: me\r\n\r\n")
    assert code == 550, text


@pytest.mark.parametrize("end", [
    lambda s: s.rset(), lambda s: s.quit(), drop, drop_in_data, header_refused,
    lambda s: s.ehlo("again.test")],
    ids=["rset", "quit", "dropped", "dropped in data", "refused in data", "ehlo"])
def test_reservation_is_given_back(lab, end):
    checks = lab.folder + "/header_checks"
    procs.write(checks, "/^X-Refuse:/ REJECT\n")
    postfix = limited(lab, 5, when_full="defer", main={"header_checks": "regexp:" + checks})
    end(reserve(lab, postfix))
    wait_reserved(lab, 0)
    assert at_milter(lab)["used"] == 0
    fill(postfix)


def test_next_message_of_a_session_starts_anew(lab):
    postfix = limited(lab, 5, when_full="defer")
    with postfix.smtp() as smtp:
        for _ in range(3):
            smtp.mail(flow.SENDER)
            assert smtp.rcpt("a@example.net")[0] == 250
            smtp.rset()
        smtp.mail(flow.SENDER)
        assert [smtp.rcpt(r)[0] for r in flow.numbers(5)] == [250] * 5
        assert smtp.data(b"From: <erp@contoso.com>\r\n\r\n")[0] == 250
    assert at_milter(lab)["used"] == 5


def test_recipient_that_postfix_refuses(lab):
    access = lab.folder + "/access"
    procs.write(access, "no@example.net REJECT\n")
    postfix = limited(lab, 5, when_full="defer", main={
        "smtpd_recipient_restrictions": "check_recipient_access texthash:" + access,
        "smtpd_error_sleep_time": "0"})
    sent = postfix.send(flow.SENDER, ["no@example.net"] * 10 + flow.numbers(5))
    assert sent.ok and set(sent.refused) == {"no@example.net"}
    assert at_milter(lab)["used"] == 5


# -- sendmail(1) ---------------------------------------------------------------

def test_submission_is_counted(lab):
    postfix = limited(lab, 100)
    qid = postfix.submit(flow.numbers(3), sender=flow.SENDER,
                         body="From: <erp@contoso.com>\n\nx\n")
    postfix.wait_status(qid, "sent", 3)
    assert at_milter(lab)["used"] == 3
    lab.milter.wait_log(qid + ": accept mailbox=relay source=local .* nrcpt=3 ")


def test_submission_over_the_limit_is_refused_as_a_whole(lab):
    """At RCPT Postfix would take it for a fault of ours, and bounce it."""
    postfix = limited(lab, 5, when_full="defer")
    fill(postfix)
    mark = postfix.mark()
    qid = postfix.submit(flow.numbers(3), sender=flow.SENDER,
                         body="From: <erp@contoso.com>\n\nx\n")
    refused = postfix.wait_log(qid + r": milter-reject: END-OF-MESSAGE .*", since=mark)
    assert re.search("4.7.1 " + USED_UP, refused.group(0)), refused.group(0)
    assert not re.search("milter-reject: RCPT", postfix.log()[mark:])
    assert not [d for d in postfix.deliveries(since=mark) if d.status == "bounced"]
    use = at_milter(lab)
    assert (use["used"], use["reserved"]) == (5, 0)


# -- pace ----------------------------------------------------------------------

def test_pace_and_connections(lab):
    """Microsoft's 30 a minute, five times as fast in a window a sixth as long."""
    postfix = limited(lab, 10000, messages_per_minute=300,
                      # each of three sessions may come late with its message
                      sim={"messages_per_minute": 53, "minute_seconds": 10,
                           "recipients_per_day": 10000, "concurrency": "sessions"})

    def seven(_number):
        with postfix.smtp() as smtp:
            for n in range(7):
                smtp.mail(flow.SENDER)
                smtp.rcpt("r%d@example.net" % n)
                assert smtp.data(b"From: <erp@contoso.com>\r\n\r\n")[0] == 250

    assert race(postfix, 10, 1) == 10       # a burst, and a crowd behind it
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(seven, range(10)))
    postfix.wait_queue_empty()
    use = exchange(lab)
    assert use["messages"] == 80 and use["refused"] == {} and use["over_rate"] == 0
    assert use["peak_sessions"] <= 3
    times = [when for when, _n in use["history"]]
    assert 78 * 0.2 - 2 < times[-1] - times[0] < 79 * 0.2 * 3, "it is not slower than needed"
    assert {d.status for d in postfix.deliveries()} == {"sent"}, "pacing makes wait, not fail"


def test_no_pace(lab):
    """Slots at once, one after the other too; the connections are what is left of limits."""
    lab.configure(mailboxes={"relay": {"messages_per_minute": 0, "connections": 2}})
    lab.tokend.start()
    path = lab.folder + "/run/token"
    begin = time.monotonic()
    for _ in range(40):
        assert token_client.ask(path)["status"] == "ok"
    assert time.monotonic() - begin < 25, "30 a minute would take 80 s"
    with token_client.Client(path) as first, token_client.Client(path) as second:
        assert [c.answer()["status"] for c in (first, second)] == ["ok", "ok"]
        third = token_client.Client(path)
        procs.wait_for(lambda: flow.status(lab)["tokend"]["mailboxes"][0]["waiting"] == 1, 10,
                       "the third waits")
        first.close()
        assert third.answer()["status"] == "ok"
        third.close()
