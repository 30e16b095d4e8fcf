"""The MTA's side of the milter protocol, as far as an envelope needs it."""

import socket
import struct

VERSION = 6
ACTIONS = 0x1ff         # all that libmilter knows, setsymlist among them
STEPS = 0x1fffff
NR_MAIL = 0x4000        # MAIL is not answered

CONTINUE, ACCEPT, QUARANTINE = b"c", b"a", b"q"


class Gone(Exception):
    """The milter closed the connection."""


class Client:
    def __init__(self, path, timeout=20):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(path)
            self._send(b"O", struct.pack("!III", VERSION, ACTIONS, STEPS))
            code, data = self._read()
        except OSError as e:
            self.sock.close()
            raise Gone(str(e))
        assert code == b"O", code
        self.actions, self.steps = struct.unpack("!II", data[4:12])

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        self.close()

    def close(self):
        self.sock.close()

    def _send(self, code, data=b""):
        self.sock.sendall(struct.pack("!I", len(data) + 1) + code + data)

    def _take(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise Gone("end of file")
            data += part
        return data

    def _read(self):
        size = struct.unpack("!I", self._take(4))[0]
        data = self._take(size)
        return data[:1], data[1:]

    def _macros(self, stage, values):
        data = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in values.items())
        self._send(b"D", stage + data)

    def _command(self, code, data=b""):
        self._send(code, data)
        return self._read()

    def mail(self, sender):
        """MAIL; the milter does not answer, having said so."""
        assert self.steps & NR_MAIL, "MAIL without a reply was not agreed"
        self._macros(b"M", {"v": "Postfix 3.7", "{client_addr}": "10.1.0.5",
                            "{client_port}": "1", "{daemon_addr}": "127.0.0.1"})
        self._send(b"M", b"<" + sender.encode() + b">\0")

    def rcpt(self, recipient, mailer="relay365-relay"):
        """RCPT; whether it is taken."""
        self._macros(b"R", {"{rcpt_mailer}": mailer, "{rcpt_host}": "[smtp.office365.com]:587"})
        return self._command(b"R", b"<" + recipient.encode() + b">\0")[0] in (CONTINUE, ACCEPT)

    def end(self, queue_id):
        """End of message; whether it is taken."""
        self._macros(b"E", {"i": queue_id})
        code, _data = self._command(b"E")
        while code == QUARANTINE:
            code, _data = self._read()
        return code in (CONTINUE, ACCEPT)

    def abort(self):
        self._send(b"A")
