"""Tokens outlive tokend: on disk in time, whatever the disk does, and for nobody else."""

import os
import subprocess
import time

import pytest

import flow
import hook
import lab as laboratory
import procs
import programs
import small_disk
import test_grants
import token_client

pytestmark = pytest.mark.needs_build


@pytest.fixture
def state_disk(lab):
    with small_disk.mounted(lab.folder + "/state") as disk:
        yield disk


@pytest.fixture
def web():
    it = hook.WebHook()
    yield it
    it.close()


def token_status(lab):
    return flow.status(lab)["tokend"]["tokens"][0]


def kill(lab):
    lab.tokend.kill()
    lab.tokend.unexpected.clear()


def kept(lab, name="tenant-contoso"):
    return procs.wait_for(lambda: procs.read(lab.folder + "/state/tokens/" + name), 10,
                          name + " in the vault")


def test_restart_during_an_outage(lab):
    lab.configure()
    postfix = flow.wire(lab, milter=False)
    kept(lab)
    kill(lab)
    lab.sim.listen("entra", open=False)
    lab.tokend.start()
    assert token_status(lab)["state"] == "valid" and token_status(lab)["kept"]
    assert postfix.send(flow.SENDER, ["r@example.net"]).ok
    lab.sim.wait_messages(1)
    lab.sim.listen("entra")
    # the longer the outage was, the later the next attempt
    procs.wait_for(lambda: not token_status(lab)["kept"], 90, "a token of its own")


def test_kept_token_of_another_client_is_not_used(lab):
    lab.configure()
    lab.tokend.start()
    kept(lab)
    lab.tokend.stop()
    lab.sim.listen("entra", open=False)
    test_grants.tenant_with(lab, secret_file=lab.secret_file, client_id="2" + "0" * 35)
    lab.tokend.start()
    assert token_client.ask(lab.folder + "/run/token")["status"] == "later"


@pytest.mark.parametrize("spoil", ["mode", "content"])
def test_spoilt_file_is_not_taken(lab, spoil):
    lab.configure()
    lab.tokend.start()
    kept(lab)
    lab.tokend.stop()
    path = lab.folder + "/state/tokens/tenant-contoso"
    if spoil == "mode":
        os.chmod(path, 0o644)
    else:
        procs.write(path, "relay365=1\nowner=\n", 0o600)
    lab.sim.listen("entra", open=False)
    lab.tokend.start()
    lab.tokend.wait_log("its tokens are not taken")
    assert token_client.ask(lab.folder + "/run/token")["status"] == "later"
    lab.sim.listen("entra")
    procs.wait_for(lambda: token_status(lab)["state"] == "valid", 30, "a token of its own")
    # a thread of its own writes it, maybe a moment later
    procs.wait_for(lambda: os.stat(path).st_mode & 0o777 == 0o600, 30, "a new file")


@pytest.mark.slow
def test_full_disk(lab, state_disk, web):
    """A rotated refresh token can't be written: it is used from memory, and an admin is told."""
    test_grants.delegated(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=2)
    with open(lab.config, "a", encoding="utf-8") as f:
        f.write('alarm_url = "%s"\n' % web.url)
    lab.tokend.start()
    test_grants.sign_in(lab)
    kept(lab, "mailbox-relay")
    web.wait(2)                     # nobody had signed in, then somebody had
    procs.wait_for(lambda: not procs.read(lab.folder + "/state/alarms/token:mailbox:relay"), 30,
                   "the end of that alarm on the disk")
    state_disk.fill()
    notice = web.wait(3)[-1]
    assert notice["id"] == "vault/mailbox/relay" and notice["event"] == "alarm"
    assert token_client.ask(lab.folder + "/run/token")["status"] == "ok"
    state_disk.make_room()
    assert [n["event"] for n in web.wait(4)][2:] == ["alarm", "recovery"]
    kill(lab)
    lab.tokend.start()              # the stand-in would refuse a token that was replaced
    procs.wait_for(lambda: token_status(lab)["requests"] >= 2, 20, "renewals")
    assert "last_error" not in token_status(lab)


def start_with_slow_disk(lab):
    """Each write takes 2 s while the file "slow" is there."""
    library = lab.folder + "/slow_disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library,
                    programs.TREE / "tests" / "bench" / "slow_disk.c", "-ldl"], check=True)
    lab.tokend.start(env={"LD_PRELOAD": library, "SLOW_DISK": lab.folder + "/slow",
                          "ASAN_OPTIONS": "verify_asan_link_order=0"})


@pytest.mark.slow
def test_stalled_disk(lab):
    """Three seconds are given to the disk; then mail matters more."""
    test_grants.delegated(lab)
    start_with_slow_disk(lab)
    procs.write(lab.folder + "/slow", "")
    begin = time.monotonic()
    test_grants.sign_in(lab)
    assert time.monotonic() - begin < 40
    lab.tokend.wait_log("takes longer than 3 s to store a new refresh token")
    assert token_client.ask(lab.folder + "/run/token")["status"] == "ok"
    os.unlink(lab.folder + "/slow")
    assert "refresh=" in kept(lab, "mailbox-relay")


@pytest.mark.slow
def test_refusal_while_the_disk_is_slow(lab):
    """The old token is refused when a new one is there already: the next renewal comes as well."""
    test_grants.delegated(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=60, refresh_in=4)
    start_with_slow_disk(lab)
    test_grants.sign_in(lab)
    procs.write(lab.folder + "/slow", "")
    since = lab.tokend.mark()
    lab.tokend.wait_log("token tenant=mailbox/relay result=ok", since=since)
    token_client.map_answer(lab, "relay", "4.7.3 host a said: 535 5.7.3 Authentication unsuccessful")
    renewals = test_grants.kinds(lab).count("refresh_token")
    os.unlink(lab.folder + "/slow")
    procs.wait_for(lambda: test_grants.kinds(lab).count("refresh_token") > renewals, 30,
                   "the next renewal")


@pytest.mark.slow
def test_killed_again_and_again(lab):
    """Each process goes on with the newest refresh token; a replaced one would be refused."""
    test_grants.delegated(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=test_grants.ROTATION_S)
    lab.tokend.start()
    test_grants.sign_in(lab)
    for _ in range(3):
        test_grants.wait_rotated(lab)
        kill(lab)
        lab.tokend.start()
    test_grants.wait_rotated(lab)
    assert "last_error" not in token_status(lab)
