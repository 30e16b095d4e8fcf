"""relay365 reset: a counter set to zero, in the ledger that is named, over a restart."""

import json

import pytest

import flow
import letters as letters_module
import procs

pytestmark = pytest.mark.needs_build

ERP, CRM = {"ADDR": "10.1.0.5"}, {"ADDR": "10.2.0.5"}
LIMITS = {"per-source": {"per": "source", "count": "messages", "max": 2, "window": "24h"},
          "per-sender": {"per": "sender", "count": "messages", "max": 100, "window": "24h"}}


def started(lab, **keys):
    letters_module.fast(lab)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000, **keys}}, limits=LIMITS,
                  sources={"erp": {"clients": ["10.1.0.0/24"]}})
    return letters_module.started(lab, milter=True)


def used(lab):
    """Limit and key -> use, as the milter counts it."""
    status = flow.status(lab)["milter"]
    rows = {(row["limit"], row["key"]): row["used"] for row in status["limits"]}
    return {**rows, ("day", "relay"): status["mailboxes"][0]["used"]}


def reset(lab, *args):
    answer = json.loads(lab.relay365("--json", "reset", *args).stdout)
    (daemon, told), = answer.items()
    return daemon, told


def test_a_key_that_no_terminal_should_see(lab):
    """A sender's control characters are not shown, and what is shown names the key."""
    letters = started(lab)
    for sender in ('"\x1b[2JAll is well"@contoso.com', '"\x07[2JAll is well"@contoso.com'):
        assert letters.postfix.send(sender, ["a@example.net"], xclient=CRM).ok
    shown = '"?[2jall is well"@contoso.com'
    for told in (lab.relay365("--json", "status").stdout, lab.relay365("--json", "limits").stdout):
        assert told.count(json.dumps(shown)) == 2 and "\\u00" not in told, told
    _daemon, told = reset(lab, shown)
    assert [(c["limit"], c["key"], c["used"]) for c in told["counters"]] == [
        ("per-sender", shown, 1)] * 2
    assert used(lab)["per-sender", shown] == 0


def test_accepted(lab):
    letters = started(lab)
    for who in (ERP, CRM):
        for _ in range(2):
            letters.wait_arrived([letters.send(xclient=who)])
        assert letters.try_to_send(xclient=who).code == 550
    daemon, told = reset(lab, "erp")
    assert (daemon, told) == ("milter", {"ledger": "accepted", "counters": [
        {"limit": "per-source", "per": "source", "key": "erp", "used": 2}]})
    lab.milter.wait_log("reset ledger=accepted limit=per-source key=erp used=2")
    assert letters.send(xclient=ERP)
    assert letters.try_to_send(xclient=CRM).code == 550, "the others keep theirs"
    assert used(lab) == {("per-source", "erp"): 1, ("per-source", "10.2.0.5"): 2,
                         ("per-sender", flow.SENDER): 5, ("day", "relay"): 5}

    assert lab.relay365("reset", "relay").stdout == (
        "accepted, recipients_per_day of relay@contoso.com: was 5, is 0\n")
    _daemon, told = reset(lab, flow.SENDER, "--limit", "per-sender")
    assert [c["used"] for c in told["counters"]] == [5]
    for slip in "per_source", "x" * 64, "":
        done = lab.relay365("reset", "erp", "--limit", slip, status=1)
        assert 'no limit in force is called "%s' % slip[:63] in done.stderr
        assert "there are: recipients_per_day, per-source, per-sender" in done.stderr
    assert used(lab)["per-source", "erp"] == 1, "a slip resets nothing"
    assert reset(lab, "nobody")[1]["counters"] == []
    assert "nothing is counted for it" in lab.relay365("reset", "source:relay").stdout
    # a restart does not bring it back
    letters.send(xclient=ERP)
    lab.milter.restart()
    assert used(lab) == {("per-source", "erp"): 2, ("per-source", "10.2.0.5"): 2,
                         ("per-sender", flow.SENDER): 1, ("day", "relay"): 1}
    letters.check_arrived()


def delivered(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0]["delivered"]


def test_delivered(lab):
    """What waits for room goes at once."""
    letters = started(lab, recipients_per_day=3, max_wait="5d")
    lab.milter.wait_log("start ")
    letters.wait_arrived([letters.send(recipients=flow.numbers(3))])
    procs.wait_for(lambda: delivered(lab) == 3, 10, "three delivered")
    letters.wait_deferred(letters.send(xclient=ERP), "3 of 3 recipients delivered")
    assert reset(lab, "--delivered", "relay") == ("tokend", {"ledger": "delivered", "counters": [
        {"key": "relay@contoso.com", "used": 3}]})
    lab.tokend.wait_log("reset ledger=delivered key=relay@contoso.com used=3")
    letters.check_arrived()
    procs.wait_for(lambda: delivered(lab) == 1, 10, "one delivered")
    lab.tokend.restart()
    assert delivered(lab) == 1


@pytest.mark.parametrize("args, status, text", [
    ([], 2, "usage: "), (["a", "b"], 2, "usage: "), (["--delivered"], 2, "usage: "),
    (["--delivered", "relay", "--limit", "x"], 2, "usage: "),
    (["--delivered", "nobody"], 1, 'has no mailbox called "nobody"'),
    (["x" * 400], 1, "longer than"),
], ids=lambda value: None)
def test_mistakes(lab, args, status, text):
    lab.configure()
    lab.tokend.start()
    lab.milter.start()
    assert text in lab.relay365("reset", *args, status=status).stderr
