"""Exchange Online's verdicts: who may log in, and which message is taken."""

import email.parser
import email.utils
import re
import time

import replies

ADDRESS = re.compile(r"[^\s@<>]+@[^\s@<>]+")


# -- AUTH ---------------------------------------------------------------------

def login(state, user, token):
    """(None, claims) if the mailbox opens, else (reason, why).

    `reason` chooses Exchange's text, which tells little; `why` is for the
    test that wonders.
    """
    settings = state.settings
    mailbox = settings["mailboxes"].get(user.lower())
    if mailbox is None:
        return "unsuccessful", "no such mailbox"
    claims = state.claims(token)
    if claims is None:
        return "unsuccessful", "token unknown, altered, revoked or expired"
    if claims["aud"] not in settings["smtp"]["audiences"]:
        return "unsuccessful", "wrong audience: %s" % claims["aud"]
    tenant = settings["tenants"][mailbox["tenant"]]
    if claims["tid"] != tenant["tid"]:
        return "unsuccessful", "token of another tenant"
    client = tenant["clients"].get(claims["appid"])
    if client is None or not client["registered"]:
        return "unsuccessful", "service principal not registered"
    if "upn" in claims:
        return _user_login(claims, user, mailbox, tenant)
    if "SMTP.SendAsApp" not in claims["roles"] and not client["rbac"]:
        return "unsuccessful", "role SMTP.SendAsApp is missing"
    if mailbox["access"] is not True and \
            claims["appid"] not in (mailbox["access"] or []):
        return "unsuccessful", "no access to the mailbox"
    return _switches(mailbox, tenant) or (None, claims)


def _user_login(claims, user, mailbox, tenant):
    if "SMTP.Send" not in claims["scp"].split():
        return "unsuccessful", "permission SMTP.Send is missing"
    if claims["upn"] != user.lower() and claims["upn"] not in mailbox["users"]:
        return "unsuccessful", "token of another user"
    return _switches(mailbox, tenant) or (None, claims)


def _switches(mailbox, tenant):
    if not mailbox["licensed"]:
        return "unsuccessful", "mailbox without licence"
    off = mailbox["smtp_auth_disabled"]
    if off:
        return "mailbox", "SMTP AUTH is off for the mailbox"
    if off is None and tenant["smtp_auth_disabled"]:
        return "tenant", "SMTP AUTH is off for the organisation"
    return None


# -- end of data --------------------------------------------------------------

def may_send_as(address, mailbox, sender):
    sender = sender.lower()
    if sender == address:
        return True
    for allowed in mailbox["send_as"]:
        allowed = allowed.lower()
        if allowed in ("*", sender) or (
                allowed.startswith("*@") and sender.endswith(allowed[1:])):
            return True
    return False


def _headers(body):
    end = body.find(b"\r\n\r\n")
    head = body if end < 0 else body[:end + 4]
    return head, email.parser.BytesHeaderParser().parsebytes(head)


def _addresses(message, name):
    values = [str(v) for v in message.get_all(name, [])]
    return [a for _n, a in email.utils.getaddresses(values) if a]


def _senders(address, mailbox, message, envelope):
    """The refusal for From and Sender, or None."""
    froms = _addresses(message, "From")
    senders = _addresses(message, "Sender")
    if len(message.get_all("From", [])) != 1 or not froms or \
            not all(ADDRESS.fullmatch(a) for a in froms):
        return replies.NO_FROM + " " + replies.hostname()
    if len(froms) > 1 and not senders:
        return replies.MANY_FROM + " " + replies.hostname()
    for sender in froms + senders:
        if not may_send_as(address, mailbox, sender):
            return replies.send_as_denied(address, sender)
    if envelope and not may_send_as(address, mailbox, envelope):
        return replies.ENVELOPE + " " + replies.stamp()
    return None


def _content(state, address, mailbox, tenant, mail, body):
    """What is wrong with the message itself, or None."""
    options = state.settings["smtp"]
    if mailbox["blocked"]:
        text = mailbox["blocked"]
        return (replies.BLOCKED if text is True else text) + \
            " " + replies.stamp()
    if tenant["blocked"]:
        return replies.TENANT_BLOCKED + " " + replies.stamp()
    head, message = _headers(body)
    if len(head) > options["header_size"]:
        return replies.HEADER_SIZE + " " + replies.stamp()
    if not options["bare_lf"] and not mail["chunked"] and \
            re.search(rb"(?<!\r)\n", body):
        return replies.BARE_LF + " " + replies.stamp()
    refusal = _senders(address, mailbox, message,
                       mail["from"] if options["check_envelope"] else "")
    if refusal:
        return refusal
    if len(mail["recipients"]) > mailbox["recipients_per_message"]:
        return replies.RECIPIENT_LIMIT + " " + replies.hostname()
    if len(body) > mailbox["message_size"]:
        return replies.too_large()
    mail["message_id"] = (message.get("Message-ID") or "").strip() or \
        "<%s@%s>" % (mail["id"], replies.HOST)
    return None


def _charge(state, address, mailbox, tenant, mail, now):
    """Check the windows and count the message: (refusal, seconds to wait).

    All under one lock, so that no two messages share the last free place.
    """
    use, n = state.uses[address], len(mail["recipients"])
    messages = [(when, 1) for when, _n in
                use.history[-2 * max(1, mailbox["messages_per_minute"]):]]
    recent = sum(1 for when, _n in messages
                 if now - when < mailbox["minute_seconds"])
    if recent >= mailbox["messages_per_minute"]:
        if mailbox["minute_mode"] == "delay":
            oldest = use.history[-mailbox["messages_per_minute"]][0]
            return None, max(0.01, oldest + mailbox["minute_seconds"] - now)
        use.over_rate += 1
        if mailbox["minute_mode"] == "refuse":
            return replies.RATE + " " + replies.stamp(), 0
        mail["carried"] = True
    if use.day.used(use.history, mailbox["window_seconds"], now) + n > \
            mailbox["recipients_per_day"]:
        return replies.quota(), 0
    own = [d.lower() for d in tenant["domains"]]
    mail["external"] = sum(1 for r in mail["recipients"]
                           if r.rpartition("@")[2].lower() not in own)
    outside = state.external[mailbox["tenant"]]
    if tenant["external_recipients_per_day"] is not None and mail["external"]:
        used = state.external_day[mailbox["tenant"]].used(
            outside, mailbox["window_seconds"], now)
        if used + mail["external"] > tenant["external_recipients_per_day"]:
            return (replies.TRIAL_EXTERNAL if tenant["trial"] else
                    replies.TENANT_EXTERNAL) + " " + replies.stamp(), 0
    use.history.append((now, n))
    if mail["external"]:
        outside.append((now, mail["external"]))
    state.smtp["messages"] += 1
    state.smtp["recipients"] += n
    return None, 0


def submit(state, address, mail, body):
    """The refusal of a message at end of data, or None if it was stored."""
    with state.lock:
        use = state.uses[address]
        mailbox = state.settings["mailboxes"].get(address)
        if mailbox is None:             # removed while the session lasted
            return replies.BLOCKED + " " + replies.stamp()
        tenant = state.settings["tenants"][mailbox["tenant"]]
        use.submissions += 1
        use.peak_submissions = max(use.peak_submissions, use.submissions)
        state.smtp["submissions"] += 1
        state.smtp["peak_submissions"] = max(
            state.smtp["peak_submissions"], state.smtp["submissions"])
        busy = use.sessions if mailbox["concurrency"] == "sessions" \
            else use.submissions
    try:
        refusal = _submit(state, address, mailbox, tenant, mail, body, busy)
    finally:
        with state.lock:
            state.uses[address].submissions -= 1
            state.smtp["submissions"] -= 1
    if refusal:
        with state.lock:
            state.uses[address].refused[" ".join(refusal.split()[:2])] += 1
    return refusal


def _submit(state, address, mailbox, tenant, mail, body, busy):
    if busy > mailbox["max_connections"]:
        return replies.concurrent()
    if mailbox["hold_seconds"]:
        time.sleep(mailbox["hold_seconds"])     # still in progress meanwhile
    refusal = _content(state, address, mailbox, tenant, mail, body)
    if refusal:
        return refusal
    waited = False
    while True:
        with state.lock:
            now = state.now()
            refusal, wait = _charge(state, address, mailbox, tenant, mail,
                                    now)
        if refusal:
            return refusal
        if not wait:
            break
        if not waited:
            with state.lock:
                state.uses[address].over_rate += 1
            waited = mail["delayed"] = True
        time.sleep(min(wait, 0.2))      # the settings may change meanwhile
        mailbox = state.settings["mailboxes"].get(address, mailbox)
    mail["time"] = now
    state.store(mail, body)
    return None
