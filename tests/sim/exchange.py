"""Stand-in for smtp.office365.com:587: the SMTP session."""

import base64
import binascii
import itertools
import json
import re
import ssl
import time
import uuid

import judge
import replies
from listen import Gone, wait_cleared
from wire import TooLong, Wire

LINE_LIMIT = 32 * 1024          # Exchange takes long AUTH lines in one piece
MAIL_PARAMETERS = {"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"}
RCPT_PARAMETERS = {"NOTIFY", "ORCPT"}
BODIES = ("7BIT", "8BITMIME", "BINARYMIME")
# what other servers send in place of a verdict (RFC 7628 style)
ERROR_CHALLENGE = base64.b64encode(json.dumps(
    {"status": "401", "schemes": "Bearer",
     "scope": "https://outlook.office365.com/.default"}).encode()).decode()
POINT_FAULTS = ("drop", "reply", "silence", "delay")
# commands after which a client must wait for the reply (RFC 2920, 3.1)
LAST_IN_GROUP = ("EHLO", "HELO", "STARTTLS", "AUTH", "DATA", "QUIT", "NOOP")


class Exchange:
    """Serves connections; one object for all of them."""

    def __init__(self, state, contexts):
        self.state, self.contexts = state, contexts
        self.numbers = itertools.count(1)

    def serve(self, conn, peer):
        state = self.state
        with state.lock:
            state.smtp["connections"] += 1
            state.smtp["open"] += 1
            state.smtp["peak_open"] = max(state.smtp["peak_open"],
                                          state.smtp["open"])
            record = {"id": next(self.numbers), "time": time.time(),
                      "peer": "%s:%d" % peer, "tls": None, "sni": None,
                      "helo": None, "auth": [], "mailbox": None,
                      "commands": [], "messages": 0, "recipients": 0,
                      "end": None}
            state.sessions.append(record)
        session = Session(self, conn, record)
        try:
            session.run()
        except (Gone, OSError) as error:
            record["end"] = record["end"] or (
                "gone" if isinstance(error, Gone) else
                "%s: %s" % (type(error).__name__, error))
        finally:
            with state.lock:
                state.smtp["open"] -= 1
                session.logout()
            session.log("*", "end: %s" % record["end"])
            session.wire.sock.close()


class Session:
    def __init__(self, exchange, conn, record):
        self.exchange, self.state = exchange, exchange.state
        self.record = record
        self.wire = Wire(conn, self.options["idle_seconds"])
        self.mailbox = None             # address, once authenticated
        self.helo = None
        self.mail = None                # the transaction
        self.parts = None               # BDAT chunks so far
        self.hidden = set()             # what a fault kept out of EHLO

    @property
    def options(self):
        return self.state.settings["smtp"]

    def log(self, who, text):
        self.state.log("smtp", "#%d %s %s" % (self.record["id"], who, text))

    def violation(self, what):
        self.log("!", what)
        with self.state.lock:
            self.state.violations.append(
                {"session": self.record["id"], "what": what})

    def reply(self, text, log=None):
        lines = text.replace("\r\n", "\n").split("\n")
        for line in lines:
            self.wire.send(line)
        self.log("S:", log or " | ".join(lines))
        if text.startswith("421"):
            self.record["end"] = "421"
            self.wire.goodbye()
            raise Gone()

    def refuse(self, text):
        self.reply(text + " " + replies.stamp())

    # -- faults --------------------------------------------------------------

    def fault(self, *kinds, mailbox=None):
        taken = self.state.faults.take("smtp", kinds,
                                       mailbox=mailbox or self.mailbox)
        return taken[-1] if taken else None

    def strike(self, at, line="", mailbox=None):
        """Let the faults of this point act; True if one has replied."""
        for fault in self.state.faults.take(
                "smtp", POINT_FAULTS, at=at, match=line,
                mailbox=mailbox or self.mailbox):
            self.log("*", "fault %s at %s" % (fault.kind, at))
            if fault.kind == "reply":
                self.reply(fault["text"])
                return True
            self.record["end"] = "fault %s at %s" % (fault.kind, at)
            self.wire.flush()
            if fault.kind == "drop":
                self.wire.drop(fault["reset"])
            if fault.kind == "silence":
                wait_cleared(self.wire.sock, fault)
                raise Gone()
            if not wait_cleared(self.wire.sock, fault, fault["seconds"]):
                raise Gone()
            self.record["end"] = None
        return False

    # -- the session -----------------------------------------------------------

    def run(self):
        self.log("*", "connection from %s" % self.record["peer"])
        if self.wire.early():
            self.violation("sent before the greeting")
        if not self.strike("CONNECT"):
            self.reply(replies.greeting())
        while True:
            try:
                line, clean = self.wire.line(LINE_LIMIT)
            except TooLong:
                self.refuse("500 5.5.2 Line too long")
                continue
            except OSError as error:
                if "timed out" not in str(error):
                    raise
                self.reply("421 4.4.2 Connection timed out")
            if not clean:
                self.violation("line ends with a bare LF")
                self.refuse("500 5.5.2 Syntax error, bare LF")
                continue
            self.command(line.decode("utf-8", "surrogateescape"))

    def command(self, line):
        verb = line.split(" ", 1)[0].upper()
        self._log_command(verb, line)
        self._remember(verb if verb in COMMANDS else "?")
        if verb in LAST_IN_GROUP and self.wire.buffer:
            self.violation("did not wait for the reply to " + verb)
        handler = COMMANDS.get(verb)
        # MAIL and RCPT faults look at the line, so that one recipient of
        # many can be chosen
        if handler is not None and self.strike(verb, line):
            return
        if handler is None:
            self.refuse("500 5.3.3 Unrecognized command 'unknown'")
            return
        if self.parts is not None and verb not in (
                "BDAT", "RSET", "QUIT", "NOOP", "EHLO", "HELO"):
            self.refuse("503 5.5.1 Bad sequence of commands")
            return
        handler(self, line[len(verb):].strip(" "), line)

    def _remember(self, verb):
        commands = self.record["commands"]
        # five hundred recipients are one RCPT here
        if commands[-1:] != [verb] and len(commands) < 1000:
            commands.append(verb)

    def _log_command(self, verb, line):
        if verb == "AUTH" and line.count(" ") > 1:
            words = line.split(" ", 2)
            line = "%s %s (%d octets)" % (words[0], words[1][:20],
                                          len(words[2]))
        # whatever it is, nothing long enough for a token enters the log
        self.log("C:", line if len(line) <= 600 else
                 line[:40] + "... (%d octets)" % len(line))

    def ehlo(self, argument, _line):
        if not argument:
            self.refuse("501 5.0.0 Invalid domain name")
            return
        self.helo = self.record["helo"] = argument
        self._forget()
        self.hidden = {name for name, kind, when in (
            ("AUTH", "no_auth", self.wire.tls),
            ("STARTTLS", "no_starttls", not self.wire.tls))
            if when and self.fault(kind)}
        offered = ["SIZE %d" % self.options["size"], "PIPELINING", "DSN",
                   "ENHANCEDSTATUSCODES"]
        if self.wire.tls:
            if "AUTH" not in self.hidden:
                offered.append("AUTH LOGIN XOAUTH2")
        elif "STARTTLS" not in self.hidden:
            offered.append("STARTTLS")
        offered += ["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]
        lines = ["%s Hello [%s]" % (replies.GREETING_HOST, self.record["peer"]
                                    .rpartition(":")[0])] + offered
        self.reply("\n".join("250-" + x for x in lines[:-1])
                   + "\n250 " + lines[-1])

    def helo_(self, argument, _line):
        if not argument:
            self.refuse("501 5.0.0 Invalid domain name")
            return
        self.helo = self.record["helo"] = argument
        self._forget()
        self.reply("250 %s Hello" % replies.GREETING_HOST)

    def starttls(self, argument, _line):
        if self.wire.tls:
            self.refuse("503 5.5.2 Only one STARTTLS command can be issued "
                        "per session")
            return
        if argument:
            self.refuse("501 5.5.4 Invalid arguments")
            return
        if "STARTTLS" in self.hidden:
            self.refuse("502 5.3.3 Command not implemented")
            return
        self.reply("220 2.0.0 SMTP server ready")
        fault = self.fault("certificate")
        which = fault["which"] if fault else "good"
        if self.wire.early() and self.wire.buffer:
            self.violation("sent plain text behind STARTTLS")
        self.wire.flush()
        self.strike("TLS")
        try:
            self.wire.start_tls(self.exchange.contexts[which])
        except (ssl.SSLError, OSError) as error:
            with self.state.lock:
                self.state.smtp["tls_failed"] += 1
            self.record["end"] = "TLS failed (%s): %s" % (which, error)
            raise Gone()
        self.record["tls"] = self.wire.sock.version()
        self.record["sni"] = getattr(self.wire.sock, "sni", None)
        self.log("*", "TLS %s, name %s" % (self.record["tls"],
                                           self.record["sni"]))
        self.helo = None                # RFC 3207, 4.2: start over
        self._forget()

    # -- AUTH ------------------------------------------------------------------

    def auth(self, argument, line):
        mechanism, _space, initial = argument.partition(" ")
        if self.helo is None:
            self.refuse("503 5.5.2 Send hello first")
        elif not self.wire.tls or "AUTH" in self.hidden:
            self.refuse(replies.AUTH_TYPE)
        elif self.mailbox or self.mail:
            self.refuse("503 5.5.2 Bad sequence of commands")
        elif mechanism.upper() == "LOGIN":
            self._login(initial)
        elif mechanism.upper() != "XOAUTH2":
            self.refuse(replies.AUTH_TYPE)
        elif initial and self.options["strict_line"] and len(line) + 2 > 512:
            self.refuse(replies.TOO_LONG)
        else:
            self._xoauth2(initial)

    def _challenge(self, text):
        """Send a challenge; the client's line, or None if it was too long."""
        self.reply("334 " + text)
        try:
            line, _clean = self.wire.line(
                self.options["auth_line_limit"] + 2)
        except TooLong:
            self.log("C:", "(too long)")
            return None
        self.log("C:", "(%d octets)" % len(line) if line else "(empty)")
        return line.decode("ascii", "replace")

    def _login(self, initial):
        # Exchange asks for name and password before it says no
        if not initial and self._challenge("VXNlcm5hbWU6") is None or \
                self._challenge("UGFzc3dvcmQ6") is None:
            self.refuse(replies.TOO_LONG)
            return
        self._auth_failed(None, "basic", "AUTH LOGIN")

    def _xoauth2(self, initial):
        strange = self.fault("challenge")
        challenge = self.options["challenge"]
        if strange:
            challenge = strange["text"] or ERROR_CHALLENGE
        blob = initial
        if not initial or strange:
            answer = self._challenge(challenge)
            blob = initial or answer
        if blob is None:
            self.refuse(replies.TOO_LONG)
            return
        user, token = self._blob(blob)
        if self.strike("AUTH_RESPONSE", mailbox=user):
            return
        if blob == "*":                 # Exchange says 535 here, not 501
            self._auth_failed(user, "unsuccessful", "cancelled by the client")
            return
        if user is None:
            self.record["auth"].append({"ok": False, "user": None,
                                        "why": "malformed response"})
            self.refuse(replies.BAD_BLOB)
            return
        fault = self.fault("auth_fail", "error_challenge", mailbox=user)
        if fault and fault.kind == "auth_fail":
            self._auth_failed(user, fault["reason"], "fault")
            return
        reason, found = judge.login(self.state, user, token)
        if fault and fault.kind == "error_challenge":
            answer = self._challenge(fault["text"] or ERROR_CHALLENGE)
            if answer:
                self.violation("error challenge not answered by an empty "
                               "line")
            reason, found = "unsuccessful", "fault"
        if reason:
            self._auth_failed(user, reason, found)
            return
        self._authenticated(user.lower(), token)

    @staticmethod
    def _blob(blob):
        """(user, token) of an XOAUTH2 response, or (None, None)."""
        try:
            text = base64.b64decode(blob, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return None, None
        match = re.fullmatch("user=([^\x01]+)\x01auth=Bearer ([^\x01 ]+)"
                             "\x01\x01", text)
        return match.groups() if match else (None, None)

    def _auth_failed(self, user, reason, why):
        if self.options["auth_failure_delay"]:
            self.wire.flush()
            time.sleep(self.options["auth_failure_delay"])
        self.record["auth"].append({"ok": False, "user": user, "why": why})
        with self.state.lock:
            if user and user.lower() in self.state.settings["mailboxes"]:
                self.state.uses[user.lower()].auth_failed += 1
        self.log("*", "AUTH refused for %s: %s" % (user, why))
        self.refuse(replies.AUTH_FAILURES.get(reason, reason))

    def _authenticated(self, user, token):
        self.mailbox = self.record["mailbox"] = user
        self.record["auth"].append({"ok": True, "user": user, "why": None,
                                    "token_length": len(token)})
        with self.state.lock:
            use, smtp = self.state.uses[user], self.state.smtp
            use.sessions += 1
            use.sessions_total += 1
            use.peak_sessions = max(use.peak_sessions, use.sessions)
            smtp["authenticated"] += 1
            smtp["authenticated_total"] += 1
            smtp["peak_authenticated"] = max(smtp["peak_authenticated"],
                                             smtp["authenticated"])
        self.reply(replies.AUTH_OK)

    def logout(self):
        """Undo the counting of _authenticated(); the caller has the lock."""
        if self.mailbox:
            self.state.uses[self.mailbox].sessions -= 1
            self.state.smtp["authenticated"] -= 1
            self.mailbox = None

    # -- the transaction -------------------------------------------------------

    def _forget(self):
        self.mail = self.parts = None

    @staticmethod
    def _path(argument, keyword, known):
        """(address, parameters) or None; `FROM: <a@b>` is not SMTP."""
        match = re.fullmatch(keyword + r":<([^<>\s]*)>((?: +\S+)*) *",
                             argument, re.I)
        if not match:
            return None
        parameters = {}
        for word in match.group(2).split():
            name, _equals, value = word.partition("=")
            if name.upper() not in known or name.upper() in parameters:
                return None
            parameters[name.upper()] = value
        return match.group(1), parameters

    def mail_from(self, argument, _line):
        if self.helo is None:
            self.refuse("503 5.5.2 Send hello first")
            return
        if not self.mailbox:
            self.refuse(replies.NOT_AUTHENTICATED)
            return
        if self.mail:
            self.refuse("503 5.5.2 Sender already specified")
            return
        path = self._path(argument, "FROM", MAIL_PARAMETERS)
        if path is None or (path[0] and "@" not in path[0]):
            self.refuse("501 5.5.4 Invalid arguments")
            return
        address, parameters = path
        size, body = parameters.get("SIZE", "0"), parameters.get(
            "BODY", "7BIT").upper()
        if not size.isdigit() or body not in BODIES:
            self.refuse("501 5.5.4 Invalid arguments")
        elif not address.isascii() and "SMTPUTF8" not in parameters:
            self.refuse("553 5.6.7 SMTPUTF8 is required")
        elif int(size) > self.options["size"]:
            self.refuse(replies.SIZE_AT_MAIL)
        elif not address and not self.options["null_sender"]:
            self.refuse("550 5.7.60 SMTP; Client does not have permissions "
                        "to send as this sender")
        else:
            self.mail = {"from": address, "recipients": [], "body": body,
                         "parameters": parameters, "chunked": False}
            self.reply("250 2.1.0 Sender OK")

    def rcpt_to(self, argument, _line):
        if self.mail is None:
            self.refuse("503 5.5.2 Need mail command")
            return
        path = self._path(argument, "TO", RCPT_PARAMETERS)
        if path is None or not judge.ADDRESS.fullmatch(path[0]):
            self.refuse("501 5.1.3 Invalid address")
            return
        recipients, address = self.mail["recipients"], path[0]
        domain = address.rpartition("@")[2].lower()
        same = self.options["same_domain_limit"]
        if len(recipients) >= self.options["max_recipients"] or (
                same is not None and same <= sum(
                    1 for r in recipients
                    if r.rpartition("@")[2].lower() == domain)):
            self.refuse(replies.TOO_MANY)
            return
        recipients.append(address)
        self.reply("250 2.1.5 Recipient OK")

    def data(self, argument, _line):
        if self.mail is None or not self.mail["recipients"]:
            self.refuse("503 5.5.2 Need mail command" if self.mail is None
                        else "503 5.5.2 Need rcpt command")
            return
        if argument or self.mail["body"] == "BINARYMIME":
            self.refuse("501 5.5.4 Invalid arguments" if argument else
                        "503 5.5.1 BINARYMIME needs BDAT")
            return
        self.reply("354 Start mail input; end with <CRLF>.<CRLF>")
        body = self.wire.data(self.options["size"],
                              lambda: self.strike("BODY"))
        self._end_of_data(body)

    def bdat(self, argument, _line):
        match = re.fullmatch(r"(\d{1,10})( +LAST)?", argument, re.I)
        if not match:
            self.refuse("501 5.5.4 Invalid arguments")
            return
        size, last = int(match.group(1)), bool(match.group(2))
        ready = self.mail is not None and bool(self.mail["recipients"])
        so_far = sum(len(p) for p in self.parts or [])
        fits = so_far + size <= self.options["size"]
        # the octets come in any case (RFC 3030, 2)
        part = self.wire.octets(size, ready and fits)
        if not ready:
            self.refuse("503 5.5.2 Need rcpt command")
            return
        if not fits:
            self._forget()
            self.refuse(replies.SIZE_AT_MAIL)
            return
        self.parts = (self.parts or []) + [part]
        self.mail["chunked"] = True
        if last:
            self._end_of_data(b"".join(self.parts))
        else:
            self.reply("250 2.6.0 CHUNK received OK, %d octets" % size)

    def _end_of_data(self, body):
        self.log("C:", "(message of %s octets)" % (
            "too many" if body is None else len(body)))
        mail, mailbox = self.mail, self.mailbox
        self._forget()
        mail.update(id=uuid.uuid4().hex, mailbox=mailbox,
                    peer=self.record["peer"], session=self.record["id"],
                    received=time.time())
        if self.strike("EOD"):
            return
        if body is None:
            self.refuse(replies.SIZE_AT_MAIL)
            return
        self.wire.flush()
        refusal = judge.submit(self.state, mailbox, mail, body)
        if refusal:
            self.reply(refusal)
            return
        self.record["messages"] += 1
        self.record["recipients"] += len(mail["recipients"])
        if not self.strike("STORED"):
            self.reply(replies.accepted(mail["message_id"]))

    # -- the rest --------------------------------------------------------------

    def rset(self, _argument, _line):
        self._forget()
        self.reply("250 2.0.0 Resetting")

    def noop(self, _argument, _line):
        self.reply("250 2.0.0 OK")

    def vrfy(self, _argument, _line):
        self.reply("252 2.1.5 Cannot VRFY user")

    def help(self, _argument, _line):
        self.reply("214 This server supports the following commands")

    def quit(self, _argument, _line):
        self.reply("221 2.0.0 Service closing transmission channel")
        self.record["end"] = "quit"
        # The client may come again the moment it has read 221: by then this
        # session must no longer count.
        with self.state.lock:
            self.logout()
        self.wire.goodbye()
        raise Gone()


COMMANDS = {
    "EHLO": Session.ehlo, "HELO": Session.helo_, "STARTTLS": Session.starttls,
    "AUTH": Session.auth, "MAIL": Session.mail_from, "RCPT": Session.rcpt_to,
    "DATA": Session.data, "BDAT": Session.bdat, "RSET": Session.rset,
    "NOOP": Session.noop, "VRFY": Session.vrfy, "HELP": Session.help,
    "QUIT": Session.quit,
}
