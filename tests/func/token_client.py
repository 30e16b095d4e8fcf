"""The token protocol, spoken to relay365-tokend's `token` socket by Python."""

import select
import socket
import time

ADDRESS = "relay@contoso.com"


class Client:
    """One connection: one request, and the lease lasts as long as it is open.

    fields: further keys of the request.
    """

    def __init__(self, path, mailbox=ADDRESS, verb="lease", timeout=40, **fields):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.buffer = b""
        self.mailbox = mailbox
        self.request(verb, **fields)

    def request(self, verb, **fields):
        """A further one may tell the status of a lease's message."""
        pairs = {"relay365": 1, "verb": verb, "mailbox": self.mailbox, **fields}
        self.sock.sendall(("".join("%s=%s\n" % pair for pair in pairs.items()) + "\n").encode())

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        self.close()

    def answer(self):
        """Wait for the answer: key -> value; None if it hung up without one."""
        while b"\n\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\n\n", 1)
        lines = text.decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def answered(self):
        return bool(self.buffer) or bool(select.select([self.sock], [], [], 0)[0])

    def close(self):
        self.sock.close()


def ask(path, mailbox=ADDRESS, verb="lease", **fields):
    """The answer to one request, whose connection is closed at once."""
    with Client(path, mailbox, verb, **fields) as client:
        return client.answer()


def answers(clients, timeout=40):
    """What all of them are told, in their order."""
    end = time.monotonic() + timeout
    found = []
    for client in clients:
        client.sock.settimeout(max(0.1, end - time.monotonic()))
        found.append(client.answer())
    return found


def map_answer(lab, name, status):
    """What Postfix gets when it asks for map status/NAME."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(40)
        sock.connect(lab.queue_dir + "/relay365/map")
        request = ("status/%s %s" % (name, status)).encode()
        sock.sendall(b"%d:%s," % (len(request), request))
        return sock.recv(65536).partition(b":")[2].rstrip(b",").decode()
