"""What the stand-in knows: settings, faults, counters, tokens, stored mail."""

import base64
import collections
import glob
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
import uuid

import faults
import settings
import signin
from ca import b64url

EXCHANGE = "https://outlook.office365.com"


class Rolling:
    """Sum of what happened less than `length` seconds ago; exact."""

    def __init__(self):
        self.length = None
        self.kept = collections.deque()
        self.total = 0
        self.seen = 0           # how much of the history is already in

    def used(self, history, length, now):
        if length != self.length:       # the setting has changed: start anew
            self.length, self.total, self.seen = length, 0, 0
            self.kept.clear()
        for when, n in history[self.seen:]:
            self.kept.append((when, n))
            self.total += n
        self.seen = len(history)
        while self.kept and now - self.kept[0][0] >= length:
            self.total -= self.kept.popleft()[1]
        return self.total

    def room_in(self, need, limit, now):
        """Seconds until `need` fits, by what used() has just kept."""
        total = self.total
        if total + need <= limit:
            return 0.0
        for when, n in self.kept:
            total -= n
            if total + need <= limit:
                return max(0.0, when + self.length - now)
        return None


def most_in_window(history, length):
    """The largest sum in any window of `length` seconds, wherever it lies."""
    most = total = start = 0
    for when, n in history:
        total += n
        while when - history[start][0] >= length:
            total -= history[start][1]
            start += 1
        most = max(most, total)
    return most


class Use:
    """Counters of one mailbox."""

    def __init__(self):
        self.sessions = self.peak_sessions = self.sessions_total = 0
        self.submissions = self.peak_submissions = 0
        self.auth_failed = self.over_rate = 0
        self.refused = collections.Counter()
        self.history = []               # (time, recipients), one a message
        self.day, self.minute = Rolling(), Rolling()

    def as_dict(self, mailbox):
        ones = [(when, 1) for when, _n in self.history]
        return {
            "sessions": self.sessions, "peak_sessions": self.peak_sessions,
            "sessions_total": self.sessions_total,
            "submissions": self.submissions,
            "peak_submissions": self.peak_submissions,
            "auth_failed": self.auth_failed, "over_rate": self.over_rate,
            "refused": dict(self.refused),
            "messages": len(self.history),
            "recipients": sum(n for _when, n in self.history),
            "history": self.history,
            "max_recipients_in_window": most_in_window(
                self.history, mailbox["window_seconds"]),
            "max_messages_in_minute": most_in_window(
                ones, mailbox["minute_seconds"]),
        }


class State:
    """One for the process. `lock` guards everything but the faults."""

    def __init__(self, directory, config):
        self.dir = directory
        self.lock = threading.RLock()
        self.initial = settings.merge(settings.empty(), config)
        self.settings = self.initial
        self.faults = faults.Faults()
        self.codes = signin.Codes()
        self.maildir = os.path.join(directory, "mail")
        os.makedirs(self.maildir, exist_ok=True)
        self.seq = max([int(os.path.basename(p).split(".")[0]) for p in
                        glob.glob(os.path.join(self.maildir, "*.json"))],
                       default=0)
        self.token_key = self._token_key()
        self.logs = {name: open(os.path.join(directory, name + ".log"), "a",
                                buffering=1, encoding="utf-8",
                                errors="backslashreplace")
                     for name in ("smtp", "entra")}
        self._zero()

    def _zero(self):
        self.uses = collections.defaultdict(Use)
        self.external = collections.defaultdict(list)   # tenant -> history
        self.external_day = collections.defaultdict(Rolling)
        self.requests = collections.deque(maxlen=20000)
        self.entra = collections.Counter()
        self.smtp = collections.Counter()
        self.sessions = collections.deque(maxlen=20000)
        self.violations = []
        self.revoked = 0                # tokens issued up to then are void
        self.seen_jti = {}
        self.imds = collections.deque(maxlen=1000)
        self.messages = []

    # -- settings ----------------------------------------------------------

    def now(self):
        return time.time() + self.settings["clock_offset"]

    def set(self, changes):
        with self.lock:
            self.settings = settings.merge(self.settings, changes)

    def reset(self, also_settings=False):
        self.faults.clear()
        with self.lock:
            busy = {name: use for name, use in self.uses.items()
                    if use.sessions or use.submissions}
            now = {name: (self.smtp[name], self.entra[name]) for name in
                   ("open", "in_flight", "authenticated", "submissions")}
            for path in glob.glob(os.path.join(self.maildir, "*")):
                os.unlink(path)
            self._zero()
            # what goes on at this moment stays counted
            for name, (smtp, entra) in now.items():
                self.smtp[name] = self.smtp["peak_" + name] = smtp
                self.entra[name] = self.entra["peak_" + name] = entra
            for name, old in busy.items():
                use = self.uses[name]
                use.sessions = use.peak_sessions = old.sessions
                use.submissions = use.peak_submissions = old.submissions
            if also_settings:
                self.settings = self.initial

    def tenant(self, name):
        """(id, settings) of the tenant with this id, GUID or domain."""
        name = (name or "").lower()
        for ident, tenant in self.settings["tenants"].items():
            if name in (ident, tenant["tid"].lower()) or name in [
                    d.lower() for d in tenant["domains"]]:
                return ident, tenant
        return None, None

    # -- log ---------------------------------------------------------------

    def log(self, name, text):
        now = time.time()
        self.logs[name].write("%s.%03d %s\n" % (
            time.strftime("%H:%M:%S", time.gmtime(now)), now % 1 * 1000,
            text))

    # -- tokens ------------------------------------------------------------
    # They sign themselves with a key that lies in DIR, so that they outlive
    # a restart, as real ones do.

    def _token_key(self):
        path = os.path.join(self.dir, "pki", "token.key")
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            with open(path, "rb") as f:
                return f.read()
        with open(fd, "wb") as f:
            key = secrets.token_bytes(32)
            f.write(key)
        return key

    def _mac(self, text):
        return b64url(hmac.new(self.token_key, text.encode("utf-8"),
                               hashlib.sha256).digest())

    def mint(self, tenant_id, client_id, audience=EXCHANGE, expires_in=None,
             roles=None, length=None, user=None, scp=None):
        """A new access token; its last part carries the canary in clear."""
        tenant = self.settings["tenants"][tenant_id]
        client = tenant["clients"].get(client_id, settings.CLIENT)
        length = tenant["token_length"] if length is None else length
        now = self.now()
        expires = now + (tenant["expires_in"] if expires_in is None
                         else expires_in)
        header = {"typ": "JWT", "alg": "RS256", "kid": b64url(
            hashlib.sha1(self.token_key).digest())}
        claims = {
            "aud": audience, "iss": "https://sts.windows.net/%s/" %
            tenant["tid"], "iat": int(now), "nbf": int(now) - 300,
            "exp": int(expires), "aio": b64url(secrets.token_bytes(32)),
            "app_displayname": "relay365", "appid": client_id,
            "appidacr": "1", "idp": "https://sts.windows.net/%s/" %
            tenant["tid"], "oid": str(uuid.uuid5(
                uuid.NAMESPACE_URL, client_id)),
            "roles": client["roles"] if roles is None else roles,
            "tid": tenant["tid"], "uti": b64url(secrets.token_bytes(16)),
            "ver": "1.0", "x_issued": now, "x_expires": expires,
        }
        if user is not None:            # a user's token names no roles
            del claims["roles"]
            claims.update({"upn": user, "unique_name": user, "scp": scp or "",
                           "appidacr": "0"})
        short = length < 800            # too short for all that
        if short:
            header = {"typ": "JWT"}
            claims = {k: claims[k] for k in (
                "aud", "appid", "tid", "roles", "upn", "scp", "x_issued", "x_expires")
                if k in claims}
        parts = [b64url(json.dumps(p, separators=(",", ":")).encode())
                 for p in (header, claims)]
        head = ".".join(parts)
        mac = self._mac(head)
        # header.claims.canary + filling + MAC: three parts, as every decoder
        # expects, and the filling keeps the length that was asked for
        tail = self.settings["canary"]
        filling = max(0, length - len(head) - 1 - len(tail) - len(mac))
        tail += b64url(secrets.token_bytes(filling))[:filling]
        return head + "." + tail + mac

    def claims(self, token):
        """The claims of a token of ours that is good now, else None."""
        try:
            head, tail = token.rsplit(".", 1)
            if not hmac.compare_digest(self._mac(head), tail[-43:]):
                return None
            body = head.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(
                body + "=" * (-len(body) % 4)))
        except (ValueError, IndexError, TypeError):
            return None
        if claims["x_expires"] <= self.now():
            return None
        if claims["x_issued"] <= self.revoked:
            return None
        return claims

    # -- mail --------------------------------------------------------------

    def store(self, record, body):
        """Keep an accepted message; returns its number."""
        with self.lock:
            self.seq += 1
            record["seq"] = seq = self.seq
        record["size"] = len(body)
        record["sha256"] = hashlib.sha256(body).hexdigest()
        base = os.path.join(self.maildir, "%06d" % seq)
        if self.settings["smtp"]["store"]:
            record["path"] = base + ".eml"
            with open(base + ".eml", "wb") as f:
                f.write(body)
            with open(base + ".tmp", "w") as f:
                json.dump(record, f, indent=1)
            os.rename(base + ".tmp", base + ".json")
        with self.lock:
            self.messages.append(record)
        return seq

    def as_dict(self):
        with self.lock:
            mailboxes = {
                name: use.as_dict(self.settings["mailboxes"].get(
                    name, settings.MAILBOX))
                for name, use in self.uses.items()}
            return {
                "entra": {**{k: 0 for k in (
                    "connections", "open", "peak_open", "in_flight",
                    "peak_in_flight",
                    "redirect_hits", "tls_failed")}, **self.entra,
                    "count": self._counts(),
                    "requests": [dict(r) for r in self.requests]},
                "smtp": {**{k: 0 for k in (
                    "connections", "open", "peak_open", "tls_failed",
                    "authenticated", "authenticated_total",
                    "peak_authenticated", "submissions", "peak_submissions",
                    "messages", "recipients")}, **self.smtp,
                    "mailboxes": mailboxes,
                    "sessions": [dict(s) for s in self.sessions],
                    "violations": list(self.violations)},
                "imds": [dict(r) for r in self.imds],
                "external": {t: [list(h) for h in hist]
                             for t, hist in self.external.items()},
                "faults": self.faults.as_list(),
                "messages": len(self.messages),
            }

    def _counts(self):
        counts = {}
        for request in self.requests:
            per = counts.setdefault(request["tenant"] or "", {})
            for kind in ("all", request["kind"],
                         "ok" if request["error"] is None and
                         request["status"] == 200 else "failed"):
                per[kind] = per.get(kind, 0) + 1
        return counts
