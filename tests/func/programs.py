"""relay365's own programs, run from the build folder in the foreground.

RELAY365_BUILD names the build folder; without it, the top of the tree.
"""

import contextlib
import glob
import os
import pathlib
import pwd
import re
import resource
import select
import signal
import socket
import subprocess
import time

import procs

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
DAEMONS = ("relay365-tokend", "relay365-milter", "relay365-submit")
PLUGIN = "sasl2/librelay365.so"
# What a test run may want to tell a sanitizer or a coverage build; nothing
# else of its environment (proxies, locales) reaches our programs.
PASSED_ON = re.compile(r"^(\w+SAN_OPTIONS|LLVM_PROFILE_FILE|GCOV_\w+|LD_LIBRARY_PATH)$")
READY_TIMEOUT_S = 30
# A program that never says READY=1 is taken as ready when its sockets answer,
# but only after this time: sockets may answer before everything is ready.
NOTIFY_GRACE_S = 5


def build_folder():
    return os.path.abspath(os.environ.get("RELAY365_BUILD") or TREE)


def program(name):
    return os.path.join(build_folder(), name)


def plugin_folder():
    return os.path.dirname(program(PLUGIN))


def missing(names=(*DAEMONS, "relay365", PLUGIN)):
    """Those of the programs that have not been built."""
    return [name for name in names if not os.path.exists(program(name))]


def environment(folder, **more):
    """RELAY365_LAB lets procs.processes_of() find the process."""
    env = {k: v for k, v in os.environ.items() if PASSED_ON.match(k)}
    env.update({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "TZ": "UTC",
                "RELAY365_LAB": folder + "/", "RELAY365_COMMAND": program("relay365"),
                # not PostfixInstance's own spelling: this is none of its processes
                "MAIL_CONFIG": os.path.join(folder, ".", "p", "etc")}, **more)
    return env


class NotifySocket:
    """The end of NOTIFY_SOCKET at which systemd would listen."""

    def __init__(self, path):
        self.path = path
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.said = []

    def read(self):
        """Everything said so far, one assignment an item."""
        while select.select([self.sock], [], [], 0)[0]:
            text = self.sock.recv(4096).decode("utf-8", "replace")
            self.said += text.splitlines()
        return self.said

    def close(self):
        self.sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class Program:
    """One daemon. `sockets`: paths that answer when it is ready."""

    def __init__(self, name, folder, config, sockets=(), path=None):
        self.name, self.folder, self.config = name, folder, config
        self.path = path or program(name)
        self.sockets = list(sockets)
        self.log_file = os.path.join(folder, "log", name + ".log")
        self.process = None
        self.notify = None
        self.unexpected = []        # ends that nobody asked for
        self.wrapper, self.pass_fds = [], ()    # a command that starts it

    def start(self, *args, wait=True, env=None):
        """Start; unless told otherwise, wait until it is ready. env: more of it."""
        assert not self.running(), self.name + " runs already"
        self._collect()
        os.makedirs(os.path.dirname(self.log_file), exist_ok=True)
        self.notify = NotifySocket(os.path.join(self.folder, self.name + ".n"))
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, self.path, "-c", self.config, *args],
                stdin=subprocess.DEVNULL, pass_fds=self.pass_fds,
                stdout=log, stderr=log, cwd="/",
                env=environment(self.folder, NOTIFY_SOCKET=self.notify.path, **(env or {})),
                preexec_fn=_no_core)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=READY_TIMEOUT_S):
        begin = time.monotonic()

        def ready():
            if not self.running():
                raise AssertionError("%s ended with %s:\n%s" % (
                    self.name, self.process.poll(), procs.tail(self.log())))
            if "READY=1" in self.notify.read():
                return True
            return (time.monotonic() - begin > NOTIFY_GRACE_S and self.sockets
                    and all(procs.accepts(path) for path in self.sockets))

        procs.wait_for(ready, timeout, lambda: "%s to be ready; log:\n%s" % (
            self.name, procs.tail(self.log())))

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout=20):
        """Wait until it has ended by itself; its exit status (-N: signal N)."""
        return self.process.wait(timeout)

    def stop(self, timeout=20):
        """SIGTERM; its exit status, which should be 0."""
        if not self.running():
            self._collect()
            return None
        # In this order: behind SIGTERM, SIGCONT could meet a sanitizer that stops the
        # ending process to look for leaks, and undo its SIGSTOP.
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.unexpected.append("%s ignored SIGTERM for %g s" % (self.name, timeout))
            return None
        if code != 0:
            self.unexpected.append("%s ended with %d on SIGTERM" % (self.name, code))
        self._forget()
        return code

    def kill(self):
        """SIGKILL, as a crash would."""
        if self.running():
            self.process.kill()
            self.process.wait()
            self._forget()
        self._collect()

    def restart(self):
        self.stop()
        return self.start()

    def pause(self):
        """SIGSTOP: it hangs, and its sockets still take connections."""
        self.process.send_signal(signal.SIGSTOP)
        procs.wait_for(lambda: self._state() == "T", 10, self.name + " to stand still")

    def resume(self):
        self.process.send_signal(signal.SIGCONT)
        procs.wait_for(lambda: self._state() != "T", 10, self.name + " to go on")

    def log(self):
        return procs.read(self.log_file)

    def mark(self):
        """A place in the log; give it as `since` to see only what follows."""
        return len(self.log())

    def wait_log(self, pattern, timeout=20, since=0):
        """Wait for a line that matches; the match object."""
        expression = re.compile(pattern, re.MULTILINE)
        return procs.wait_for(
            lambda: expression.search(self.log(), since), timeout,
            lambda: "%r in the log of %s, which ends with\n%s" % (
                pattern, self.name, procs.tail(self.log())))

    def _state(self):
        return procs.read("/proc/%d/stat" % self.pid).rpartition(")")[2].split()[0]

    def _collect(self):
        """Remember an end that nobody asked for."""
        if self.process is not None:
            self.unexpected.append("%s ended by itself with %s" % (
                self.name, self.process.wait()))
            self._forget()

    def expect_end(self, timeout=20):
        """It must end by itself now, which is no fault; its exit status."""
        code = self.wait(timeout)
        self._forget()
        return code

    def _forget(self):
        self.process = None
        if self.notify:
            self.notify.close()
            self.notify = None


def _no_core():
    # a core would hold the secrets of the test, and take time to write
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def command(folder, config, *args, timeout=60, data=None, user=None):
    """Run `relay365 -c CONFIG ARGS`, as user, in no other group; what subprocess.run() returns."""
    who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    return subprocess.run(
        [program("relay365"), "-c", config, *args], input=data or "",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout,
        cwd="/", check=False, env=environment(folder), **who)


def sasl_folders():
    """Where libsasl2 looks for plugins if nobody tells it."""
    return [path for path in sorted(glob.glob("/usr/lib/*/sasl2"))
            + ["/usr/lib64/sasl2", "/usr/lib/sasl2"] if os.path.isdir(path)]
