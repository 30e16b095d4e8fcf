"""Faults on demand.

A fault belongs to a server ("entra" or "smtp"), has a kind, and lasts for the
next `times` matching events, or until it is cleared. `after` lets that many
matching events pass first.
"""

import itertools
import threading

ANY = {"times": None, "after": 0}

ENTRA = {
    # kind: its parameters with defaults; None means "must be given"
    "status": {"status": 500, "retry_after": "", "retry_after_date": "",
               "body": ""},
    "aadsts": {"code": None},
    "silence": {},                      # read the request, never answer
    "delay": {"seconds": None},         # then answer as usual
    "drip": {"seconds": 0.05},          # the answer, one byte at a time
    "garbage": {"body": "<html><body>It works!</body></html>"},
    "truncated": {"missing": 50},       # Content-Length promises more
    "huge": {"bytes": 8 * 1024 * 1024},
    "redirect": {"status": 302, "location": "/redirected"},
    "reset": {},                        # after the request, RST
    "drop": {},                         # after the request, FIN
    "certificate": {"which": "wrong"},  # wrong, expired, untrusted
    "no_tls": {},                       # plain text where TLS should start
    "expires_in": {"value": ""},        # replaces the number; None: left out
    "token": {"value": None},           # replaces the access token
    "fields": {"value": None},          # merged into the JSON answer
}

# points of an SMTP session at which drop, reply, silence and delay may act
POINTS = ("CONNECT", "EHLO", "HELO", "STARTTLS", "TLS", "AUTH",
          "AUTH_RESPONSE", "MAIL", "RCPT", "DATA", "BODY", "BDAT", "EOD",
          "STORED", "RSET", "NOOP", "QUIT")

SMTP = {
    "drop": {"at": None, "reset": False},
    "reply": {"at": None, "text": None},
    "silence": {"at": None},
    "delay": {"at": None, "seconds": None},
    "no_auth": {},                      # AUTH is not offered, nor taken
    "no_starttls": {},
    "auth_fail": {"reason": "unsuccessful"},    # a key of
                                # replies.AUTH_FAILURES, or the whole reply
    "challenge": {"text": ""},          # first 334 is not empty
    "error_challenge": {"text": ""},    # 334 JSON, empty line, then 535
    "certificate": {"which": "wrong"},
}

IMDS = {"status": {"status": 500}, "silence": {}}

KINDS = {"entra": ENTRA, "smtp": SMTP, "imds": IMDS}
# what narrows a fault: entra by tenant, smtp by mailbox (known from AUTH on)
# and by a text that the command line must contain
FILTERS = {"entra": ("tenant", "client_id"), "smtp": ("mailbox", "match"), "imds": ()}


class Fault:
    def __init__(self, number, server, kind, values):
        self.id, self.server, self.kind = number, server, kind
        self.values = values
        self.left = values["times"]
        self.skip = values["after"]
        self.hits = 0
        self.cleared = threading.Event()

    def __getitem__(self, key):
        return self.values[key]

    def as_dict(self):
        return {"id": self.id, "server": self.server, "kind": self.kind,
                "hits": self.hits, "left": self.left, **self.values}

    def matches(self, kinds, facts):
        if kinds is not None and self.kind not in kinds:
            return False
        if "at" in self.values and self["at"] != facts.get("at"):
            return False
        for name in FILTERS[self.server]:
            wanted = self.values.get(name)
            if wanted is None:
                continue
            found = str(facts.get(name) or "").lower()
            if name == "match" and str(wanted).lower() not in found:
                return False
            if name != "match" and str(wanted).lower() != found:
                return False
        return True


class Faults:
    """The list of faults in force. Thread safe."""

    def __init__(self):
        self.lock = threading.Lock()
        self.list = []
        self.numbers = itertools.count(1)

    def add(self, server, kind, values):
        if server not in KINDS or kind not in KINDS[server]:
            raise ValueError("no such fault: %s %s; known: %s" % (
                server, kind, ", ".join(KINDS.get(server, KINDS))))
        known = {**ANY, **KINDS[server][kind],
                 **dict.fromkeys(FILTERS[server])}
        for key in values:
            if key not in known:
                raise ValueError("fault %s: unknown key %r; known: %s" % (
                    kind, key, ", ".join(known)))
        full = {**known, **values}
        for key, default in KINDS[server][kind].items():
            if default is None and full[key] is None:
                raise ValueError("fault %s: %r must be given" % (kind, key))
        if "at" in full and full["at"] not in POINTS:
            raise ValueError("fault %s: at is one of %s" % (
                kind, ", ".join(POINTS)))
        with self.lock:
            fault = Fault(next(self.numbers), server, kind, full)
            self.list.append(fault)
        return fault.id

    def take(self, server, kinds=None, **facts):
        """The faults that strike this event, each counted as used.

        At most one that ends the event is taken; delays come before it.
        """
        taken = []
        with self.lock:
            for fault in list(self.list):
                if fault.server != server or not fault.matches(kinds, facts):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left <= 0:
                        self.list.remove(fault)
                taken.append(fault)
                if fault.kind != "delay":
                    break
        return taken

    def clear(self, server=None, number=None):
        with self.lock:
            gone = [f for f in self.list
                    if server in (None, f.server) and number in (None, f.id)]
            self.list = [f for f in self.list if f not in gone]
        for fault in gone:
            fault.cleared.set()
        return len(gone)

    def as_list(self):
        with self.lock:
            return [fault.as_dict() for fault in self.list]
