"""Another milter beside relay365's: it refuses what it is told to.

    with milter_server.Server(refuse={b"R": b"no@example.net", b"E": b""}) as other:
        ... smtpd_milters = "... " + other.name

refuse: command ("R" recipient, "E" end of message) -> text that its data must
have in it to be refused with 550.
"""

import socketserver
import struct
import threading

NO_ANSWER = b"DAQ"          # macros, abort and the end
NEEDS = 0x01 | 0x02 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200    # no CONNECT, HELO, BODY, HDRS, ...


class Handler(socketserver.StreamRequestHandler):
    def _read(self):
        head = self.rfile.read(5)
        if len(head) < 5:
            return None, b""
        return head[4:], self.rfile.read(struct.unpack("!I", head[:4])[0] - 1)

    def _answer(self, code, data=b""):
        self.wfile.write(struct.pack("!I", len(data) + 1) + code + data)

    def handle(self):
        while True:
            code, data = self._read()
            if code in (None, b"Q"):
                return
            if code == b"O":
                version, _actions, steps = struct.unpack("!III", data[:12])
                self._answer(b"O", struct.pack("!III", min(version, 6), 0, steps & NEEDS))
            elif code in self.server.refuse and self.server.refuse[code] in data:
                self._answer(b"r")
            elif code not in NO_ANSWER:
                self._answer(b"c")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, refuse):
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuse = refuse
        self.name = "inet:127.0.0.1:%d" % self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_args):
        self.shutdown()
        self.server_close()
