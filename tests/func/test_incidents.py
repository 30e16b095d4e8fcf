"""What is told before a limit is full, and of sources that run away."""

import re
import time

import pytest

import flow
import hook
import procs
from test_own_limits import ERP, PRINTER, gateway

pytestmark = pytest.mark.needs_build


def milter(lab):
    return flow.status(lab)["milter"]


def send(postfix, n, client=None, first=0):
    sent = postfix.send(flow.SENDER, flow.numbers(n, first=first), xclient=client)
    assert sent.ok, sent
    return sent


# -- limits that are nearly full -----------------------------------------------

def test_warning_at_80_and_95_percent(lab):
    line, path = hook.command(lab)
    postfix = gateway(lab, mailboxes={"relay": {"recipients_per_day": 100, "when_full": "defer"}},
                      alarm_command=line)
    send(postfix, 79, ERP)
    assert milter(lab)["incidents"] == []
    send(postfix, 1, PRINTER)
    warned = lab.milter.wait_log(
        r"limit-high limit=recipients_per_day key=relay@contoso.com percent=80 used=80/100 "
        r'full_at=\S+Z top="erp \(79\), 10\.2\.7\.9 \(1\)" incident=([0-9a-f]{4})$')
    number = warned.group(1)

    # whatever follows is the same incident, and carries its number
    sent = send(postfix, 15, ERP)
    lab.milter.wait_log(sent.qid + ": accept .* used=95/100 incident=" + number)
    lab.milter.wait_log("limit-high .* percent=95 used=95/100 .* incident=" + number)
    refused = postfix.send(flow.SENDER, flow.numbers(6), xclient=ERP)
    assert refused.refused
    lab.milter.wait_log("defer limit=recipients_per_day .* used=100/100 .* incident=" + number)
    assert len(re.findall("limit-high", lab.milter.log())) == 2

    told = [notice for notice, _env in hook.wait_command(path, 2)]
    assert [n["id"] for n in told] == ["limit/recipients_per_day/relay@contoso.com"] * 2
    assert re.fullmatch(r"relay@contoso\.com: 80 of 100 recipients used in 24 h; at this pace it "
                        r"is full at .* UTC; most in 24 h is from erp \(79\), 10\.2\.7\.9 \(1\); "
                        "incident " + number, told[0]["what"]), told[0]["what"]

    [incident] = milter(lab)["incidents"]
    assert (incident["incident"], incident["percent"], incident["used"]) == (number, 95, 100)
    assert incident["top"][0] == {"source": "erp", "recipients": 99}
    text = lab.relay365("status", status=None).stdout
    assert "\nWarnings\n" in text and "100 of 100 recipients used in 24 h" in text

    # a restart neither forgets it nor tells it again: what comes next is its end
    record = lab.folder + "/mstate/alarms/limit:recipients_per_day:relay@contoso.com"
    procs.wait_for(lambda: '"level":2' in procs.read(record), 20, "the record")
    mark = lab.milter.mark()
    lab.milter.restart()
    lab.milter.wait_log("limit-high .*percent=95 used=100/100", since=mark)
    lab.configure(mailboxes={"relay": {"recipients_per_day": 1000}}, alarm_command=line)
    lab.relay365("reload", "milter")
    lab.milter.wait_log("limit-ok limit=recipients_per_day .* used=100/1000 ", since=mark)
    assert [notice["event"] for notice, _env in hook.wait_command(path, 3)] == [
        "alarm", "alarm", "recovery"]


def test_room_again(lab):
    line, path = hook.command(lab)
    postfix = gateway(lab, alarm_command=line, limits={"burst": {
        "per": "everyone", "count": "recipients", "max": 10, "window": "8s"}})
    send(postfix, 8)
    number = lab.milter.wait_log(
        "limit-high limit=burst key=\\* percent=80 used=8/10 .*incident=(....)").group(1)
    lab.milter.wait_log("limit-ok limit=burst key=\\* used=0/10 incident=" + number)
    assert milter(lab)["incidents"] == []
    assert [n["event"] for n, _env in hook.wait_command(path, 2)] == ["alarm", "recovery"]
    # armed again, as another incident
    send(postfix, 8)
    assert lab.milter.wait_log("limit-high .*incident=(....)",
                               since=lab.milter.log().index("limit-ok")).group(1) != number


def test_alarm_of_one_user_at_95_percent_only(lab):
    line, path = hook.command(lab)
    postfix = gateway(lab, alarm_command=line, limits={"per-user": {
        "per": "source", "count": "recipients", "max": 20, "window": "24h"}})
    send(postfix, 16, ERP)
    lab.milter.wait_log("limit-high limit=per-user key=erp percent=80 used=16/20")
    send(postfix, 3, ERP)
    [(notice, _env)] = hook.wait_command(path, 1)
    assert notice["id"] == "limit/per-user/erp" and "19 of 20" in notice["what"]


def test_what_was_delivered(lab):
    """Aliases and forwards are seen by tokend alone."""
    line, path = hook.command(lab)
    lab.sim.mailbox("relay@contoso.com", tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    messages_per_minute=60000)
    lab.configure(alarm_command=line, mailboxes={"relay": {
        "recipients_per_day": 20, "messages_per_minute": 60000}})
    postfix = flow.wire(lab, milter=False)
    send(postfix, 16)
    number = lab.tokend.wait_log("limit-high limit=recipients_per_day key=relay@contoso.com "
                                 "percent=80 used=16/20 incident=(....)$").group(1)
    assert flow.status(lab)["tokend"]["mailboxes"][0]["incident"] == number
    send(postfix, 3)
    lab.tokend.wait_log("limit-high .* percent=95 used=19/20 incident=" + number)
    [(notice, _env)] = hook.wait_command(path, 1)
    assert notice["id"] == "delivered/relay" and "19 of 20 recipients delivered" in notice["what"]


# -- sources that run away -----------------------------------------------------

def known(lab, **usual):
    """These sources have sent so much in their busiest hour."""
    hour = int(time.time() // 3600)
    procs.write(lab.folder + "/mstate/sources", "".join(
        "%d %d %d %s\n" % (hour - 100, hour - 1, n * 256, name) for name, n in usual.items()))


def runaway(lab, usual=5, **top):
    # what is sent counts for this hour, which must not end meanwhile
    procs.wait_for(lambda: time.time() % 3600 < 3540, 90, "the next hour")
    lab.configure(**top)
    known(lab, erp=usual)
    return flow.wire(lab, main={"default_transport": "relay365-relay:[127.0.0.2]:1",
                                "defer_transports": "relay365-relay"})


def test_runaway_is_named(lab):
    line, path = hook.command(lab)
    postfix = runaway(lab, alarm_command=line)
    send(postfix, 100, ERP)
    send(postfix, 150, PRINTER)         # not known for a day
    assert milter(lab)["runaways"] == []
    sent = send(postfix, 1, ERP)
    number = lab.milter.wait_log(
        sent.qid + r": runaway source=erp client=10\.1\.0\.5 from=<erp@contoso.com> hour=101 "
        r"usual=\d incident=(....)$").group(1)
    lab.milter.wait_log(sent.qid + ": accept .*incident=" + number)
    [item] = milter(lab)["runaways"]
    assert (item["source"], item["hour"], item["incident"]) == ("erp", 101, number)
    [(notice, _env)] = hook.wait_command(path, 1)
    assert notice["id"] == "runaway/erp" and "to 101 recipients in this hour" in notice["what"]
    assert "erp sends far more than usual" in lab.relay365("status", status=None).stdout


def test_runaway_is_held(lab):
    postfix = runaway(lab, runaway_action="hold")
    sent = send(postfix, 120, ERP)
    lab.milter.wait_log(sent.qid + ": hold limit=runaway source=erp .*hour=120 usual=")
    other = send(postfix, 3, PRINTER)
    postfix.wait_queue(lambda queue: {m["queue_id"]: m["queue_name"] for m in queue} == {
        sent.qid: "hold", other.qid: "deferred"})
    postfix.wait_log(sent.qid + ": milter-hold: END-OF-MESSAGE")


def test_runaway_is_locked(lab):
    postfix = runaway(lab, runaway_action="lock")
    sent = send(postfix, 120, ERP)
    postfix.wait_queue(lambda queue: [(m["queue_id"], m["queue_name"]) for m in queue] == [
        (sent.qid, "hold")])
    refused = postfix.send(flow.SENDER, ["a@example.net"], xclient=ERP)
    assert (refused.code, refused.text) == (550, (
        "5.7.1 source erp is locked: it sent to 120 recipients in an hour, and usually to 5 at "
        "most"))
    send(postfix, 1, PRINTER)
    [lock] = milter(lab)["locks"]
    assert (lock["key"], lock["by"]) == ("source:erp", "runaway")
    # an admin's word counts more
    lab.relay365("unlock", "source:erp")
    postfix.wait_queue(lambda queue: len(queue) == 2)
    again = postfix.send(flow.SENDER, ["a@example.net"], xclient=ERP)
    assert again.ok, again


def test_runaway_only_in_the_log(lab):
    postfix = runaway(lab, runaway_action="hold", shadow=True)
    sent = send(postfix, 120, ERP)
    lab.milter.wait_log(sent.qid + ": runaway source=erp")
    assert "hold limit=runaway" not in lab.milter.log()


@pytest.mark.parametrize("top", [
    {"runaway_factor": 0}, {"runaway_factor": 30},
    {"sources": {"erp": {"logins": ["erp"], "runaway_watch": False}}}])
def test_runaway_may_be_usual(lab, top):
    postfix = runaway(lab, **top)
    send(postfix, 120, ERP)
    assert "runaway" not in lab.milter.log()
    lab.milter.stop()
    kept = procs.read(lab.folder + "/mstate/sources")
    assert " %d erp\n" % (120 * 256) in kept, "it is usual from now on"
