"""The MTA's side of relay365-submit's socket, byte by byte."""

import socket


class SubmitClient:
    def __init__(self, address, timeout=60):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        self.stream = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        self.close()

    def close(self):
        self.stream.close()
        self.sock.close()

    def reply(self):
        """The next reply with its line ends; empty at the end of the session."""
        lines = [self.stream.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(self.stream.readline())
        return b"".join(lines).decode()

    def send(self, text):
        self.sock.sendall(text if isinstance(text, bytes) else text.encode())

    def ask(self, line):
        self.send(line + "\r\n")
        return self.reply()

    def hello(self):
        """Greeting and EHLO; the keywords."""
        assert self.reply().startswith("220 ")
        reply = self.ask("EHLO gateway.test")
        return [line[4:] for line in reply.splitlines()[1:]]

    def message(self, sender, recipients, body=b"From: <erp@contoso.com>\r\n\r\ntest\r\n"):
        """One message, commands in one piece; all replies."""
        self.send("MAIL FROM:<%s>\r\n" % sender + "".join(
            "RCPT TO:<%s>\r\n" % r for r in recipients) + "DATA\r\n")
        replies = [self.reply() for _ in range(len(recipients) + 2)]
        if replies[-1].startswith("354"):
            self.send(body + b".\r\n")
            replies.append(self.reply())
        return replies
