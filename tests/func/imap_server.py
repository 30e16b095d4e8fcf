"""As much of an IMAP server (RFC 3501) as hands out one message for an XOAUTH2 token."""

import base64
import socketserver
import ssl
import threading

MESSAGE = b"From: a@example.net\r\nTo: relay@contoso.com\r\nSubject: in the mailbox\r\n\r\nhello\r\n"


class Session(socketserver.StreamRequestHandler):
    def say(self, *lines):
        for line in lines:
            self.wfile.write((line if isinstance(line, bytes) else line.encode()) + b"\r\n")

    def read(self):
        return self.rfile.readline().decode("ascii").rstrip("\r\n")

    def authenticate(self, tag, response):
        if not response:
            self.say("+ ")
            response = self.read()
        shown = base64.b64decode(response).decode("ascii")
        if shown != "user=%s\x01auth=Bearer %s\x01\x01" % (self.server.user, self.server.token):
            self.say(tag + " NO AUTHENTICATE failed.")
            return
        self.server.signed_in += 1
        self.say(tag + " OK AUTHENTICATE completed.")

    def fetch(self, words):
        if "BODY.PEEK[]" in words:
            self.say(b"* 1 FETCH (UID 1 FLAGS () BODY[] {%d}" % len(MESSAGE), MESSAGE + b")")
        else:
            self.say("* 1 FETCH (UID 1 FLAGS () RFC822.SIZE %d)" % len(MESSAGE))

    def handle(self):
        self.say("* OK The Microsoft Exchange IMAP4 service is ready.")
        while line := self.read():
            tag, verb, *words = line.split()
            self.server.verbs.append(verb)
            if verb == "AUTHENTICATE":
                self.authenticate(tag, words[1] if len(words) > 1 else "")
                continue
            if verb == "CAPABILITY":
                self.say("* CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS")
            elif verb == "LIST":
                self.say('* LIST () "/" INBOX')
            elif verb in ("SELECT", "EXAMINE"):
                self.say("* 1 EXISTS", "* 0 RECENT", "* FLAGS (\\Seen)",
                         "* OK [UIDVALIDITY 7] valid", "* OK [UIDNEXT 2] next")
            elif verb == "UID" and words[0] == "FETCH":
                self.fetch(line)
            self.say(tag + " OK completed.")
            if verb == "LOGOUT":
                return


class ImapServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address, context, user, token):
        super().__init__(address, Session)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.user, self.token = user, token
        self.signed_in, self.verbs = 0, []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_args):
        self.shutdown()
        self.server_close()


def context(certificate, key):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made
