"""An SMTP server's side of a connection: lines, message data, TLS, faults."""

import re
import select
import ssl

from listen import Gone, reset

CHUNK = 256 * 1024


class TooLong(Exception):
    """The line is longer than allowed; it has been read and dropped."""


class Wire:
    def __init__(self, sock, idle_seconds):
        self.sock = sock
        self.sock.settimeout(idle_seconds)
        self.buffer = bytearray()
        self.out = []
        self.tls = False

    def early(self):
        """Whether the client has sent something it should have waited with."""
        return bool(self.buffer) or bool(
            select.select([self.sock], [], [], 0)[0])

    def send(self, text):
        """Queue a reply; pipelined commands get their replies together."""
        self.out.append(text.encode("utf-8") + b"\r\n")

    def flush(self):
        if self.out:
            data, self.out = b"".join(self.out), []
            self.sock.sendall(data)

    def _fill(self):
        self.flush()
        data = self.sock.recv(CHUNK)
        if not data:
            raise Gone()
        self.buffer += data

    def line(self, limit):
        """The next line without its CRLF, and whether that was CRLF."""
        long = False
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                break
            if len(self.buffer) > limit:
                long = True
                del self.buffer[:-1]
            self._fill()
        line = bytes(self.buffer[:end])
        del self.buffer[:end + 1]
        if long or len(line) + 1 > limit:
            raise TooLong()
        if line.endswith(b"\r"):
            return line[:-1], True
        return line, False

    def data(self, limit, first=None):
        """Message data up to the lone dot, unstuffed; None if over `limit`.

        `first` is called once, when the first part has come.
        """
        over = False
        start = 0
        if len(self.buffer) < 3:
            self._fill()
        while True:
            if first:
                first()
                first = None
            # the CRLF that begins CRLF.CRLF may be the one behind DATA
            if not over and self.buffer.startswith(b".\r\n"):
                end, size = 0, 3
                break
            end, size = self.buffer.find(b"\r\n.\r\n", start), 5
            if end >= 0:
                break
            if len(self.buffer) > limit:
                over = True
                del self.buffer[:-4]
            start = max(0, len(self.buffer) - 4)
            self._fill()
        body = bytes(self.buffer[:end + size - 3])
        del self.buffer[:end + size]
        if over or len(body) > limit:
            return None
        return re.sub(rb"(\A|\r\n)\.", rb"\1", body)

    def octets(self, n, keep):
        """Exactly n octets (for BDAT); None, but read, unless `keep`."""
        parts, left = [], n
        while left:
            if not self.buffer:
                self._fill()
            part = bytes(self.buffer[:left])
            del self.buffer[:left]
            left -= len(part)
            if keep:
                parts.append(part)
        return b"".join(parts) if keep else None

    def start_tls(self, context):
        self.flush()
        self.buffer.clear()             # nothing unencrypted may come after
        self.sock = context.wrap_socket(self.sock, server_side=True)
        self.tls = True

    def goodbye(self):
        """Flush and, with TLS, say so before closing."""
        self.flush()
        if self.tls:
            try:
                self.sock.settimeout(1)
                self.sock.unwrap()
            except (OSError, ssl.SSLError, ValueError):
                pass

    def drop(self, with_reset):
        self.flush()
        if with_reset:
            reset(self.sock)
        raise Gone()
