"""The other end of syslog(3) for one process tree, in a /dev of its own."""

import os
import select
import socket
import subprocess
import threading

import procs

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class SyslogSocket:
    """folder/dev can stand in for /dev; what is logged there goes to `log_file`."""

    def __init__(self, folder, log_file):
        self.dev = os.path.join(folder, "dev")
        self.log_file = log_file
        os.makedirs(self.dev, exist_ok=True)
        for name in DEVICES:
            procs.write(os.path.join(self.dev, name), "")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(os.path.join(self.dev, "log"))
        os.chmod(os.path.join(self.dev, "log"), 0o666)
        self.wake, self.end = os.pipe()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    @property
    def shell(self):
        """A command line that makes it /dev, in a mount namespace."""
        binds = ["mount --bind /dev/%s %s/%s" % (name, self.dev, name) for name in DEVICES]
        return " && ".join([*binds, "mount --rbind %s /dev" % self.dev])

    def _read(self):
        with open(self.log_file, "ab", buffering=0) as log:
            while True:
                ready = select.select([self.sock, self.wake], [], [])[0]
                if self.sock in ready:
                    log.write(self.sock.recv(65536).rstrip(b"\0\n") + b"\n")
                elif self.wake in ready:
                    return

    def close(self):
        os.close(self.end)
        self.thread.join()
        os.close(self.wake)
        self.sock.close()
        for path in procs.mounts_below(self.dev):
            subprocess.run(["umount", "-l", path], check=False)
