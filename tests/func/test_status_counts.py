"""What Postfix tells of its deliveries is counted once, whatever happens to the answers."""

import os
import socket
import subprocess

import pytest

import flow
import letters as letters_module
import procs
import programs
import token_client

pytestmark = pytest.mark.needs_build

TAKEN = b"2.0.0 250 2.0.0 OK <1@contoso>"


def netstring(data):
    return b"%d:%s," % (len(data), data)


def ask(lab, status=TAKEN):
    """A connection on which the status of one recipient was asked for."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(lab.queue_dir + "/relay365/map")
    sock.sendall(netstring(b"status/relay " + status))
    return sock


def box(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0]


def started(lab):
    letters_module.fast(lab)
    lab.tokend.start()


def test_lookup_repeated_after_a_lost_answer(lab):
    """smtp(8) waited in vain, hung up, and asks again on a new connection, as it does once."""
    started(lab)
    lab.tokend.pause()
    ask(lab).close()
    with ask(lab) as again:
        lab.tokend.resume()
        assert again.recv(100) == netstring(b"NOTFOUND ")
    assert box(lab)["delivered"] == 1


def rename(lab, name, **keys):
    lab.configure(mailboxes={name: {"connections": 2, "messages_per_minute": 6000,
                                    "recipients_per_day": 1000, **keys}})


def test_renamed_mailbox(lab):
    """It is the same for Microsoft: what it delivered and what is under way go on counting."""
    rename(lab, "relay")
    lab.tokend.start()
    held = [token_client.Client(lab.folder + "/run/token") for _ in range(2)]
    assert [a["status"] for a in token_client.answers(held)] == ["ok", "ok"]
    assert token_client.map_answer(lab, "relay", TAKEN.decode()) == "NOTFOUND "
    for name in ("office", "post"):
        rename(lab, name)
        lab.relay365("reload", status=None)
        # Postfix was not set up again: it asks as before
        assert token_client.map_answer(lab, "relay", TAKEN.decode()) == "NOTFOUND "
        assert box(lab)["name"] == name
    assert box(lab)["delivered"] == 3 and box(lab)["leases"] == 2
    assert "belongs to no mailbox" not in lab.tokend.log()
    with token_client.Client(lab.folder + "/run/token") as third:
        procs.wait_for(lambda: box(lab)["waiting"] == 1, 10, "a third that must wait")
        held[0].close()
        assert third.answer()["status"] == "ok"
    held[1].close()
    # its name goes to another mailbox: whoever asks by it means that one
    rename(lab, "relay", address="other@contoso.com")
    lab.relay365("reload", status=None)
    assert token_client.map_answer(lab, "relay", TAKEN.decode()) == "NOTFOUND "
    assert (box(lab)["address"], box(lab)["delivered"]) == ("other@contoso.com", 1)


def test_killed_before_the_disk_has_it(lab, tmp_path):
    """Answered is counted, though the disk was slow and the process is gone."""
    library, slow = str(tmp_path / "slow_disk.so"), tmp_path / "slow"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library,
                    str(programs.TREE / "tests/bench/slow_disk.c"), "-ldl"], check=True)
    letters_module.fast(lab)
    environment = {"LD_PRELOAD": library, "SLOW_DISK": str(slow),
                   "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") +
                   ":verify_asan_link_order=0"}
    for n in range(1, 11):
        lab.tokend.start(env=environment)
        slow.touch()
        with ask(lab) as first, ask(lab) as second:
            assert first.recv(100) == second.recv(100) == netstring(b"NOTFOUND ")
            lab.tokend.kill()
        slow.unlink()
        lab.tokend.start()
        assert box(lab)["delivered"] == 2 * n
        lab.tokend.stop()   # it is on the disk now, and is not counted again


def test_lookup_repeated_after_a_kill(lab):
    started(lab)
    lab.tokend.pause()
    with ask(lab) as first:
        lab.tokend.kill()
        with pytest.raises(ConnectionResetError):
            first.recv(100)
    lab.tokend.start()
    with ask(lab) as again:
        assert again.recv(100) == netstring(b"NOTFOUND ")
    assert box(lab)["delivered"] == 1


def test_probe_is_not_counted(lab):
    """sendmail -bv asks Exchange for the recipient and sends nothing. Its report stays here."""
    letters_module.fast(lab)
    letters = letters_module.started(lab)
    letters.wait_arrived([letters.send()])
    mark = letters.postfix.mark()
    letters.postfix.submit(["r9@example.net"], sender="root@gateway.test", args=["-bv"])
    letters.postfix.wait_log(r"to=<r9@example.net>, .*status=deliverable", since=mark)
    letters.postfix.wait_queue_empty()
    assert flow.accepted(lab) == 1 == box(lab)["delivered"]
