"""What can be set: every key with its default, and the merging of changes.

An unknown key is an error, so that a misspelt setting can't make a test pass.
A null removes a tenant, client or mailbox.
"""

import copy
import uuid

DAY = 86400
MIB = 1024 * 1024

TENANT = {
    "tid": None,                # GUID; derived from the id when not given
    "domains": None,            # accepted domains; the id itself when not given
    "clients": {},              # client id -> CLIENT
    "smtp_auth_disabled": False,        # the organisation's switch
    "expires_in": 3600,         # seconds a token lives
    "refresh_in": None,         # seconds; sent only if set
    "token_length": 2500,       # characters; below 800 the token is opaque
    "external_recipients_per_day": None,        # None: not limited
    "trial": False,             # which of the two texts refuses the above
    "blocked": False,           # 550 5.7.705 at end of data
    "users": {},                # address -> {"refuse": AADSTS number}
    "block_device_code": False,         # Conditional Access: 53003
    "device_interval": 1,       # seconds between polls; Entra says 5
    "device_seconds": 900,
    "refresh_seconds": 90 * DAY,        # a refresh token that is not used
}

CLIENT = {
    "secrets": [],              # SECRET, or just the text
    "certificates": [],         # CERTIFICATE, or just the PEM
    "disabled": False,          # the enterprise application is switched off
    "public": False,            # must not show a credential
    "roles": ["SMTP.SendAsApp"],        # in the token
    "rbac": False,              # Exchange lets it in without the role
    "registered": True,         # New-ServicePrincipal has been run
    "delegated": [],            # delegated permissions, such as SMTP.Send
    "redirects": ["http://localhost"],
    "federated": [],            # {"issuer", "subject", "audience", "pem"}
}

SECRET = {"value": "", "expires_at": None, "disabled": False}
CERTIFICATE = {"pem": "", "not_before": None, "not_after": None,
               "disabled": False}

MAILBOX = {
    "tenant": None,             # id of its tenant; the only one if not given
    "licensed": True,
    "smtp_auth_disabled": None,         # None: as the organisation
    "access": True,             # FullAccess: for all clients, or a list of ids
    "users": [],                # who may sign in for it beside its own user
    "send_as": [],              # addresses, "*@domain" or "*"
    "recipients_per_day": 10000,
    "window_seconds": DAY,
    "messages_per_minute": 30,
    "minute_seconds": 60,
    "minute_mode": "refuse",    # or "delay": the reply waits for room,
                                # or "carry": taken, and only counted
    "max_connections": 3,
    "concurrency": "submissions",       # or "sessions": stricter than Exchange
    "hold_seconds": 0.05,       # how long a submission stays in progress
    "recipients_per_message": 500,
    "message_size": 35 * MIB,   # effective limit, below the advertised SIZE
    "blocked": False,           # True: 550 5.1.8; or the whole reply
}

ENTRA = {
    # audiences accepted in a client assertion beside the address the client
    # used; {tenant} stands for the id, the GUID and each domain
    "canonical": ["https://login.microsoftonline.com/{tenant}"
                  "/oauth2/v2.0/token"],
    "clock_skew": 300,          # seconds of grace for an assertion's times
    "loop_requests": None,      # N successes within loop_seconds are a loop
    "loop_seconds": 300,
    "idle_seconds": 120,
    "refresh_reuse": False,     # a replaced refresh token stays good
}

IMDS = {
    "tenant": None,             # of the machine's identity
    "client_id": "",
}

SMTP = {
    "size": 157286400,          # advertised
    "challenge": "",            # the text after "334 " to AUTH XOAUTH2
    "strict_line": False,       # refuse AUTH lines over 512 octets
    "auth_line_limit": 12288,   # octets of an AUTH response
    "auth_failure_delay": 0,    # seconds; Exchange takes about 5
    "audiences": ["https://outlook.office365.com", "https://outlook.office.com"],
    "max_recipients": 1000,     # more get 452 4.5.3 at RCPT
    "same_domain_limit": None,  # recipients of one domain, else 452 4.5.3
    "header_size": 256 * 1024,
    "check_envelope": False,    # judge MAIL FROM like From (5.7.60)
    "null_sender": True,        # accept MAIL FROM:<>
    "bare_lf": False,           # accept bare LF in DATA
    "idle_seconds": 300,
    "store": True,              # False: count, but keep no files
}

TOP = {"canary": "", "clock_offset": 0}

MINUTE_MODES = ("refuse", "delay", "carry")

# What stands there without any configuration: enough for a first try.
EXAMPLE = {
    "tenants": {"contoso.onmicrosoft.com": {
        "domains": ["contoso.com", "contoso.onmicrosoft.com"],
        "clients": {"11111111-2222-3333-4444-555555555555": {
            "secrets": ["example-secret"]}}}},
    "mailboxes": {"relay@contoso.com": {
        "tenant": "contoso.onmicrosoft.com",
        "send_as": ["*@contoso.com"]}},
}


def empty():
    return {**copy.deepcopy(TOP), "tenants": {}, "mailboxes": {},
            "entra": copy.deepcopy(ENTRA), "imds": copy.deepcopy(IMDS), "smtp": copy.deepcopy(SMTP)}


def _fill(kind, defaults, old, new, where):
    if not isinstance(new, dict):
        raise ValueError("%s: an object is expected" % where)
    unknown = sorted(set(new) - set(defaults))
    if unknown:
        raise ValueError("%s: unknown %s key %r; known: %s" % (
            where, kind, unknown[0], ", ".join(defaults)))
    return {**copy.deepcopy(defaults), **(old or {}), **copy.deepcopy(new)}


def _client(old, new, where):
    client = _fill("client", CLIENT, old, new, where)
    client["secrets"] = [
        _fill("secret", SECRET, None,
              {"value": s} if isinstance(s, str) else s, where)
        for s in client["secrets"]]
    client["certificates"] = [
        _fill("certificate", CERTIFICATE, None,
              {"pem": c} if isinstance(c, str) else c, where)
        for c in client["certificates"]]
    return client


def _tenant(name, old, new):
    where = "tenants." + name
    new = dict(new)
    changes = new.pop("clients", {})
    tenant = _fill("tenant", TENANT, old, new, where)
    tenant["clients"] = _each(tenant["clients"], changes,
                              lambda key, was, now: _client(
                                  was, now, where + ".clients." + key))
    if tenant["tid"] is None:
        tenant["tid"] = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    if tenant["domains"] is None:
        tenant["domains"] = [name]
    return tenant


def _each(old, changes, make):
    merged = dict(old)
    for key, new in changes.items():
        key = key.lower()
        if new is None:
            merged.pop(key, None)
        else:
            merged[key] = make(key, merged.get(key), new)
    return merged


def merge(settings, changes):
    """A new settings object: `settings` with `changes`, or ValueError."""
    merged = dict(settings)
    for key, new in changes.items():
        if key == "tenants":
            merged[key] = _each(settings[key], new, _tenant)
        elif key == "mailboxes":
            merged[key] = _each(
                settings[key], new, lambda address, was, now: _fill(
                    "mailbox", MAILBOX, was, now, "mailboxes." + address))
        elif key == "entra":
            merged[key] = _fill(key, ENTRA, settings[key], new, key)
        elif key == "imds":
            merged[key] = _fill(key, IMDS, settings[key], new, key)
        elif key == "smtp":
            merged[key] = _fill(key, SMTP, settings[key], new, key)
        elif key in TOP:
            merged[key] = new
        else:
            raise ValueError("unknown key %r; known: tenants, mailboxes, "
                             "entra, imds, smtp, %s" % (key, ", ".join(TOP)))
    for address, mailbox in merged["mailboxes"].items():
        if mailbox["tenant"] is None and len(merged["tenants"]) == 1:
            mailbox["tenant"] = next(iter(merged["tenants"]))
        if mailbox["tenant"] not in merged["tenants"]:
            raise ValueError("mailboxes.%s: no such tenant: %r" % (
                address, mailbox["tenant"]))
        if mailbox["messages_per_minute"] < 1:
            raise ValueError("mailboxes.%s: messages_per_minute is at least "
                             "1" % address)
        if mailbox["minute_mode"] not in MINUTE_MODES:
            raise ValueError("mailboxes.%s: minute_mode is one of %s" % (
                address, ", ".join(MINUTE_MODES)))
        if mailbox["concurrency"] not in ("submissions", "sessions"):
            raise ValueError("mailboxes.%s: concurrency is submissions or "
                             "sessions" % address)
    return merged
