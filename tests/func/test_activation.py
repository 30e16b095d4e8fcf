"""Sockets that a supervisor keeps: a restart turns nobody away."""

import os
import socket
import stat

import pytest

import flow
import token_client

pytestmark = pytest.mark.needs_build

@pytest.fixture
def kept(lab):
    """The token socket of tokend's run folder, bound here."""
    lab.configure()
    path = lab.folder + "/run/token"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(64)
    # What systemd does: descriptors from 3 on, and LISTEN_PID is the program's. Here, 3 may be
    # anything, for example what pytest-xdist talks to its worker by.
    lab.tokend.wrapper = ["/bin/bash", "-c", 'exec 3<&%d; LISTEN_PID=$$ exec "$@"' % sock.fileno(),
                          "bash"]
    lab.tokend.pass_fds = (sock.fileno(),)
    yield path
    sock.close()


def test_restart_turns_nobody_away(lab, kept):
    lab.tokend.start(env={"LISTEN_FDS": "1"})
    assert token_client.ask(kept)["status"] == "ok"
    lab.tokend.stop()
    assert stat.S_ISSOCK(os.stat(kept).st_mode), "it is not the daemon's to remove"
    clients = [token_client.Client(kept) for _ in range(20)]
    lab.tokend.start(env={"LISTEN_FDS": "1"})
    assert {a["status"] for a in token_client.answers(clients[:3])} == {"ok"}
    for client in clients:
        client.close()
    lab.tokend.kill()
    lab.tokend.unexpected.clear()
    waiting = token_client.Client(kept, verb="token")
    lab.tokend.start(env={"LISTEN_FDS": "1"})
    assert waiting.answer()["status"] == "ok"
    waiting.close()
    assert flow.status(lab)["tokend"]["daemon"] == "relay365-tokend"


def test_others_descriptors_are_left_alone(lab):
    """LISTEN_PID of somebody else means nothing."""
    lab.configure()
    lab.tokend.start(env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert token_client.ask(lab.folder + "/run/token")["status"] == "ok"
