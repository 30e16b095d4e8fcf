"""Processes, deadlines and files: what the rest of the harness stands on."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

POLL_S = 0.02


class Timeout(AssertionError):
    """A condition did not come true in time."""


def wait_for(condition, timeout, what):
    """Wait until condition() is true and return its value.

    `what` says what was waited for; if callable, it is asked only on failure.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            text = what() if callable(what) else what
            raise Timeout("waited %g s in vain for %s" % (timeout, text))
        time.sleep(POLL_S)


def read(path):
    """A text file's content; empty if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def tail(text, lines=60):
    return "\n".join(text.splitlines()[-lines:])


def write(path, text, mode=0o644):
    """Write a file with exactly this mode, making its folders."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    with open(path, "wb") as f:
        os.fchmod(f.fileno(), mode)
        f.write(data)
    return path


# Below the range from which the kernel takes ports for outgoing connections:
# otherwise one of these may occupy the port before its server starts.
PORTS = range(10000, 30000)


def _own_ports():
    """PORTS, or a part of them for each of pytest-xdist's workers: a port that is free now may
    be taken before its server starts."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return PORTS[worker::int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


def free_port(address="127.0.0.1"):
    for port in random.sample(_own_ports(), 100):
        with socket.socket() as sock:
            # as servers do: a connection in TIME_WAIT is no obstacle
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                sock.bind((address, port))
                return port
    raise RuntimeError("no free port on " + address)


def accepts(address):
    """Whether somebody listens there: (host, port) or a UNIX socket's path."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family) as sock:
        sock.settimeout(5)
        try:
            sock.connect(address)
            return True
        except OSError:
            return False


# -- processes of a folder -----------------------------------------------------

def _names(pid, folder):
    """Whether the environment of pid names a path in folder."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as f:
            return folder.encode() + b"/" in f.read()
    except OSError:
        return False


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            return f.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _is_zombie(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def processes_of(folder):
    """Living processes whose environment names a path inside `folder`.

    Postfix gives MAIL_CONFIG to every process it starts, whatever its user,
    parent and process group. So nobody escapes, and nobody else's is meant.
    """
    return [pid for pid in pids()
            if pid != os.getpid() and _names(pid, folder) and not _is_zombie(pid)]


def kill_all(folder, timeout=20):
    """Kill processes_of(folder) until there are none."""
    def none_left():
        left = processes_of(folder)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for(none_left, timeout, lambda: "the end of %s" % [
        command_line(pid) for pid in processes_of(folder)])


class PrivateFolder:
    """A folder with a short name that goes away, and its processes with it.

    Short, because the paths of UNIX sockets end at 107 characters. A guard, a
    process of its own, cleans up when the test run is killed.
    """

    def __init__(self, prefix="r365-"):
        self.path = tempfile.mkdtemp(prefix=prefix, dir="/tmp")
        os.chmod(self.path, 0o755)  # users of the MTA must get through
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
        self._guard = subprocess.Popen(
            [sys.executable, "-B", os.path.abspath(__file__), self.path],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env, cwd="/",
            # Control-C is for the test run; the guard sees the pipe's end
            start_new_session=True)

    def remove(self):
        if self._guard is None:
            return
        self._guard.stdin.close()
        self._guard.wait()
        self._guard = None


def mounts_below(folder):
    """Mount points inside `folder`, the innermost first."""
    found = [line.split()[1] for line in read("/proc/self/mounts").splitlines()]
    return sorted((path for path in found if path.startswith(folder + "/")), reverse=True)


def unmount_below(folder):
    """Lazily: whoever still has a file open there does not stop it."""
    for path in mounts_below(folder):
        subprocess.run(["umount", "-l", path], check=False)


def _guard_main(folder):
    sys.stdin.buffer.read()
    kill_all(folder)
    unmount_below(folder)
    subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)


if __name__ == "__main__":
    _guard_main(sys.argv[1])
