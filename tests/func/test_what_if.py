"""relay365 limits --what-if: a log replayed gives what the milter itself does."""

import gzip
import json
import re

import pytest

import flow
import letters as letters_module
import procs

pytestmark = pytest.mark.needs_build

LIMITS = {
    "per-source": {"per": "source", "count": "messages", "max": 3, "window": "1h",
                   "action": "reject"},
    "burst": {"per": "sender", "count": "recipients", "max": 6, "window": "1h",
              "action": "hold"},
}
SOURCES = {"erp": {"clients": ["10.1.0.0/24"]}, "crm": {"logins": ["crm"]}}


def write_conf(lab, limits, **top):
    letters_module.fast(lab)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000}}, sources=SOURCES,
                  limits=limits, **top)


def traffic(letters):
    """Messages of several sources, senders and sizes."""
    for n in range(5):
        letters.send(xclient={"ADDR": "10.1.0.5"}, recipients=flow.numbers(1 + n % 2))
        letters.send("crm@contoso.com", xclient={"ADDR": "10.1.0.6", "LOGIN": "crm"},
                     recipients=flow.numbers(3))
        letters.send("x%d@contoso.com" % n, xclient={"ADDR": "10.9.0.%d" % n})
    for n in range(2):
        letters.qids.append(letters.postfix.submit(
            flow.numbers(2), sender=flow.SENDER, body="From: <erp@contoso.com>\n\nx\n"))
        letters.counts[letters.qids[-1]] = 2
    letters.wait_arrived(letters.qids)


def stopped_by_milter(lab):
    """(queue id, limit, action) of all that its log tells."""
    return {(m["id"], m["limit"], m["action"]) for m in re.finditer(
        r"(?P<id>\w+): (?P<action>reject|hold|defer|warn|wait) limit=(?P<limit>\S+) ",
        lab.milter.log())}


def replay(lab, *logs, config=None):
    return json.loads(lab.relay365("--json", "limits", "--what-if", config or lab.config, "--log",
                                   *logs).stdout)


def test_as_the_milter_does(lab):
    """The limits in shadow, with real mail; then the log replayed under the same, in force."""
    write_conf(lab, LIMITS, shadow=True)
    letters = letters_module.started(lab, milter=True)
    traffic(letters)
    wanted = stopped_by_milter(lab)
    assert {limit for _id, limit, _action in wanted} == set(LIMITS)
    log = letters.postfix.log_file
    found = replay(lab, log)
    # of several limits that a message meets the milter names one
    told = {(m["queue_id"], m["limit"], m["action"]) for m in found["mail"]}
    assert wanted <= told and {t[0] for t in told} == {w[0] for w in wanted}
    assert all(m["shadow"] for m in found["mail"]) and found["stopped_messages"] == 0
    assert (found["messages"], found["elsewhere"]) == (len(letters.qids), 0)
    assert found["recipients"] == sum(letters.counts.values())

    # nobody runs; the log comes in two files, one packed
    lines = procs.read(log).splitlines(True)
    first = procs.write(lab.folder + "/mail.log.1", "".join(lines[:len(lines) // 2]))
    packed = first + ".gz"
    with gzip.open(packed, "wt") as f:
        f.writelines(lines[:len(lines) // 2])
    second = procs.write(lab.folder + "/mail.log", "".join(lines[len(lines) // 2:]))
    assert replay(lab, packed, second) == found

    other = lab.folder + "/other.conf"
    procs.write(other, procs.read(lab.config).replace("shadow = true", "shadow = false"), 0o640)
    found = replay(lab, log, config=other)
    limits = {limit["limit"]: limit for limit in found["limits"]}
    assert limits["per-source"]["action"] == "reject"
    assert {k["key"] for k in limits["per-source"]["top"]} == {"erp", "crm"}
    assert limits["per-source"]["messages"] == 4
    assert found["stopped_messages"] >= 4
    text = lab.relay365("limits", "--what-if", other, "--log", log).stdout
    assert "per-source: reject 4 messages" in text
    assert re.search(r"^\S+Z \w+ <crm@contoso.com> of crm, 3 recipients: reject by per-source, crm: "
                     "3 of 3$", text, re.M)


def test_of_other_logs(lab):
    """Sendmail's, and one with no year and rubbish in between; nothing is stopped."""
    write_conf(lab, {"tiny": {**LIMITS["burst"], "max": 2}})
    text = (
        "Nov 26 10:38:14 gw sm-mta[11]: 6AQAcE0I000011: from=<erp@contoso.com>, size=312, class=0, "
        "nrcpts=3, msgid=<x@y>, proto=ESMTP, daemon=MTA, relay=erp.test [10.1.0.5]\n"
        "rubbish\n\0\n"
        "Nov 26 10:38:15 gw sm-mta[12]: 6AQAcE0I000011: to=<a@example.net>,<b@example.net>,"
        "<c@example.net>, ctladdr=<erp@contoso.com> (1/1), delay=00:00:01, mailer=relay, pri=1, "
        "relay=smtp.office365.com. [52.1.2.3], dsn=2.0.0, stat=Sent (OK)\n")
    found = replay(lab, procs.write(lab.folder + "/sendmail.log", text))
    assert (found["messages"], found["recipients"]) == (1, 3)
    assert [(m["queue_id"], m["source"], m["limit"], m["action"], m["recipients"])
            for m in found["mail"]] == [("6AQAcE0I000011", "erp", "tiny", "hold", 1)]
    nothing = replay(lab, procs.write(lab.folder + "/empty.log", ""))
    assert (nothing["messages"], nothing["mail"]) == (0, [])


@pytest.mark.parametrize("args, status, text", [
    (["--log", "x"], 2, "usage: "), (["x"], 2, "usage: "), (["--what-if"], 2, "needs a value"),
    (["--what-if", "/nonexistent"], 78, "cannot read /nonexistent"),
    (["--what-if", None, "--log", "/nonexistent"], 1, "cannot read /nonexistent"),
], ids=str)
def test_mistakes(lab, args, status, text):
    write_conf(lab, LIMITS)
    args = [lab.config if arg is None else arg for arg in args]
    done = lab.relay365("limits", *args, status=status)
    assert text in done.stderr and done.stdout == ""
