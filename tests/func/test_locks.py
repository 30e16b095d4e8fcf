"""relay365 lock and unlock: mail of a locked mailbox waits, a locked source is refused."""

import json
import re

import pytest

import flow
import letters as letters_module
import procs
import token_client

pytestmark = pytest.mark.needs_build

ADDRESS = "relay@contoso.com"
ERP = {"ADDR": "10.1.0.5", "NAME": "erp.test"}


def locks(lab, daemon="tokend"):
    """Key -> lock, as the daemon remembers it."""
    return {lock["key"]: lock for lock in flow.status(lab)[daemon]["locks"]}


def lock(lab, key, reason="sends spam", **options):
    args = ["--reason", reason, *sum((["--" + k, v] for k, v in options.items()), [])]
    return lab.relay365("lock", key, *args)


def with_sources(lab, **options):
    letters_module.fast(lab, **options)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000, **options}},
                  sources={"erp": {"clients": ["10.1.0.0/24"]}})
    return letters_module.started(lab, milter=True, main={
        "smtpd_authorized_xclient_hosts": "127.0.0.1"})


def test_locked_mailbox_waits(lab):
    """No lease, at once and with the reason; what comes in is taken, and flows when unlocked."""
    letters_module.fast(lab)
    letters = letters_module.started(lab, milter=True)
    letters.wait_arrived([letters.send()])
    said = lock(lab, "relay", "the auditor asked").stdout
    assert said.count("mailbox:relay@contoso.com is locked until somebody unlocks it") == 2
    told = token_client.ask(lab.folder + "/run/token")
    assert told["status"] == "later" and told["reason"] == (
        "relay@contoso.com is locked until somebody runs relay365 unlock relay: "
        "the auditor asked")
    deferred = letters.wait_deferred(letters.send(), "the auditor asked")
    assert deferred.dsn[0] == "4"
    lab.tokend.restart()
    lab.milter.restart()
    assert list(locks(lab)) == list(locks(lab, "milter")) == ["mailbox:" + ADDRESS]
    text = lab.relay365("status", status=1).stdout
    assert re.search(r"^Locks\n  mailbox:relay@contoso.com until unlocked, by admin: "
                     r"the auditor asked\n", text, re.M)
    assert "relay: relay@contoso.com is locked" in text
    assert flow.accepted(lab) == 1
    answer = json.loads(lab.relay365("unlock", ADDRESS, "--json").stdout)
    assert answer == {d: {"key": "mailbox:" + ADDRESS, "was_locked": True}
                      for d in ("tokend", "milter")}
    assert locks(lab) == {}
    letters.check_arrived()


def test_who_waits_for_a_slot_is_told(lab):
    letters_module.fast(lab, connections=1)
    lab.tokend.start()
    path = lab.folder + "/run/token"
    with token_client.Client(path) as first:
        assert first.answer()["status"] == "ok"
        with token_client.Client(path) as second:
            procs.wait_for(lambda: flow.status(lab)["tokend"]["mailboxes"][0]["waiting"], 10,
                           "one who waits")
            lab.relay365("lock", "relay", "--reason", "stop", status=75)     # no milter
            assert second.answer()["status"] == "later"


def test_locked_source_is_refused(lab):
    letters = with_sources(lab)
    lock(lab, "erp", "sends 100% spam", **{"for": "2h"})
    sent = letters.try_to_send(xclient=ERP)
    assert not sent.ok and sent.code == 550
    assert re.search(r"5\.7\.1 source erp is locked until \S+ UTC: sends 100% spam", sent.text)
    line = lab.milter.wait_log(": reject limit=lock mailbox=relay source=erp client=10.1.0.5 ")
    assert 'key=source:erp text="sends 100% spam"' in line.string[line.start():]
    other = letters.send(xclient={"ADDR": "10.2.0.5"})
    lab.relay365("unlock", "source:erp")
    again = letters.send(xclient=ERP)
    letters.wait_arrived([other, again])
    letters.check_arrived()


def test_locked_client_or_login(lab):
    """What no source names can be locked too, by what the MTA knows of it."""
    letters = with_sources(lab)
    for name, attributes in (("10.1.0.5", {"ADDR": "10.1.0.5"}), ("10.9.0.9", {"ADDR": "10.9.0.9"}),
                             ("mia", {"ADDR": "10.9.0.1", "LOGIN": "Mia"})):
        assert letters.send(xclient=attributes)
        lock(lab, "source:" + name)
        assert letters.try_to_send(xclient=attributes).code == 550, name
        assert letters.send(xclient={"ADDR": "10.1.0.6"}), "the others go on"
        lab.relay365("unlock", "source:" + name)
    letters.check_arrived()


def test_lock_ends_by_itself(lab):
    letters = with_sources(lab)
    lock(lab, "erp", **{"for": "10s"})
    lock(lab, "relay", **{"for": "10s"})
    assert letters.try_to_send(xclient=ERP).code == 550
    assert token_client.ask(lab.folder + "/run/token")["status"] == "later"
    lab.milter.wait_log("unlock key=source:erp by=time", timeout=40)
    lab.tokend.wait_log("unlock key=mailbox:relay@contoso.com by=time", timeout=40)
    procs.wait_for(lambda: locks(lab) == locks(lab, "milter") == {}, 20, "no locks")
    letters.send(xclient=ERP)
    letters.check_arrived()


def test_shadow_refuses_nobody(lab):
    letters_module.fast(lab)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000}}, shadow=True)
    letters = letters_module.started(lab, milter=True)
    lock(lab, "source:127.0.0.1")
    letters.send()
    lab.milter.wait_log(": reject limit=lock .* shadow=yes")
    letters.check_arrived()


@pytest.mark.parametrize("args, status, text", [
    (["lock"], 2, "usage: "),
    (["lock", "relay"], 2, "usage: "),
    (["lock", "relay", "--reason", "x", "--for", "2"], 2, "usage: "),
    (["lock", "relay", "--reason", "x", "--for", "0s"], 2, "usage: "),
    (["lock", "relay", "erp", "--reason", "x"], 2, "usage: "),
    (["unlock"], 2, "usage: "),
    (["lock", "nobody", "--reason", "x"], 1, 'no mailbox or source called "nobody"'),
    (["lock", "10.1.0.5", "--reason", "x"], 1, "is written source:NAME"),
    (["lock", "relay", "--reason", ""], 1, "a lock needs a reason"),
    (["lock", "relay", "--reason", "x" * 201], 1, "1 to 200 bytes"),
    (["lock", "relay", "--reason", "a\nb"], 1, "line break"),
    (["lock", "relay", "--reason", "x", "--for", "400d"], 1, "366 days"),
    (["unlock", "nobody"], 1, 'no mailbox or source called "nobody"'),
], ids=lambda value: None)
def test_mistakes(lab, args, status, text):
    lab.configure(mailboxes={"relay": {}})
    lab.tokend.start()
    lab.milter.start()
    done = lab.relay365(*args, status=status)
    assert text in done.stderr and done.stdout == ""
    assert locks(lab) == {}


# -- Microsoft blocks ----------------------------------------------------------

BLOCKED = {
    "mailbox": "550 5.1.8 Access denied, bad outbound sender AS(42004)",
    "tenant": "550 5.7.705 Access denied, tenant has exceeded threshold",
    "domain": "550 5.7.750 Client blocked from sending from unregistered domains",
}


@pytest.mark.parametrize("text", [
    "5.1.10 host a said: 550 5.1.10 RecipientNotFound; Recipient v5.1.8@example.net not found",
    "5.1.3 host a said: 501 5.1.3 Invalid address <a-5.7.705@example..net>",
    "5.1.1 host a said: 550 5.1.1 <5.1.90@example.net> unknown"])
def test_address_that_looks_like_a_code(lab, text):
    """What the server repeats is the sender's choice: it locks nothing, and tells of nothing."""
    lab.configure()
    lab.tokend.start()
    assert token_client.map_answer(lab, "relay", text) == "NOTFOUND "
    assert locks(lab) == {}
    [mailbox] = flow.status(lab)["tokend"]["mailboxes"]
    assert "problem" not in mailbox and "paused_until" not in mailbox


@pytest.mark.parametrize("reply", BLOCKED.values(), ids=BLOCKED)
def test_blocked_account_is_locked(lab, reply):
    """One refusal, then nothing is tried until an admin says so; nothing bounces."""
    letters_module.fast(lab)
    letters = letters_module.started(lab)
    lab.sim.fault("smtp", "reply", at="EOD", text=reply)
    letters.wait_deferred(letters.send(), "Microsoft (has blocked|blocks)")
    lab.tokend.wait_log("lock key=mailbox:relay@contoso.com by=microsoft reason=")
    lab.tokend.wait_log("delivery-alarm mailbox=relay class=blocked ")
    letters.send()
    letters.postfix.flush()
    letters.wait_mailq("relay365 unlock relay: Microsoft (has blocked|blocks)")
    lab.tokend.restart()
    letters.postfix.flush()
    procs.wait_for(lambda: token_client.ask(lab.folder + "/run/token")["status"] == "later",
                   10, "the lock")
    assert lab.sim.state()["smtp"]["mailboxes"][ADDRESS]["sessions_total"] == 1
    lab.sim.clear("smtp")
    lab.relay365("unlock", "relay", status=75)      # no milter runs
    letters.check_arrived()
