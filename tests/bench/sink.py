"""An SMTP server that takes everything: STARTTLS, AUTH offered and never needed.

usage: sink.py ADDRESS PORT CERTIFICATE KEY

Each connection has a process of its own; nothing is stored, nothing waits.
Writes a byte to standard output for each message it took.
"""

import os
import socket
import socketserver
import ssl
import sys

OFFERS = ["SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME"]


class Session(socketserver.BaseRequestHandler):
    def setup(self):
        self.tls = False
        self.buffer = b""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def say(self, text):
        self.request.sendall(text.encode() + b"\r\n")

    def until(self, end):
        """What has come up to `end`, with it; empty if the client left."""
        start = 0
        while True:
            at = self.buffer.find(end, start)
            if at >= 0:
                part = self.buffer[:at + len(end)]
                self.buffer = self.buffer[at + len(end):]
                return part
            start = max(0, len(self.buffer) - len(end))
            more = self.request.recv(262144)
            if not more:
                return b""
            self.buffer += more

    def handle(self):
        self.say("220 sink ESMTP")
        try:
            while self.command(self.until(b"\r\n").decode("latin-1")):
                pass
        except OSError:
            pass

    def command(self, line):
        verb = line[:4].upper()
        if verb == "EHLO":
            offers = OFFERS + (["AUTH XOAUTH2"] if self.tls else ["STARTTLS"])
            self.say("\r\n".join(["250-sink"] + ["250-" + o for o in offers[:-1]]
                                 + ["250 " + offers[-1]]))
        elif verb == "STAR":
            self.say("220 2.0.0 ready")
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
            self.tls = True
        elif verb == "AUTH":
            self.say("334 ")
            self.until(b"\r\n")
            self.say("235 2.7.0 OK")
        elif verb == "DATA":
            self.say("354 go on")
            self.until(b"\r\n.\r\n")
            os.write(1, b".")
            self.say("250 2.0.0 taken")
        elif verb == "QUIT":
            self.say("221 2.0.0 bye")
        else:
            self.say("250 2.0.0 OK")
        return verb not in ("", "QUIT")


class Sink(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 256
    max_children = 200

    def __init__(self, address, certificate, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        super().__init__(address, Session)


if __name__ == "__main__":
    Sink((sys.argv[1], int(sys.argv[2])), sys.argv[3], sys.argv[4]).serve_forever()
