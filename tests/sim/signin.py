"""Users who sign in: device codes, authorization codes with PKCE, refresh tokens.

Strict where Entra is, and stricter where a client could do harm elsewhere: a
refresh token that was replaced may not come back (RFC 9700, 4.14.2), unless
entra.refresh_reuse allows it as Entra does.
"""

import base64
import hashlib
import re
import secrets
import time
import urllib.parse

from aadsts import Refused

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = ("https://outlook.office.com", "https://outlook.office365.com")


class Codes:
    """Device and authorization codes and refresh tokens; they die with the process."""

    def __init__(self):
        self.device, self.browser, self.refresh = {}, {}, {}


def _client(entra, request, form, tenant):
    """The client; a public one, or one that shows its credential."""
    ident, client = entra.client(request, form, tenant)
    if not client["delegated"]:
        raise Refused(65001)
    return ident, client


def _scopes(form, client):
    words = (form.get("scope") or "").split()
    if not words:
        raise Refused(900144, "scope")
    resources = set()
    for word in words:
        if word in ("openid", "profile", "email", "offline_access"):
            continue
        resource, _slash, name = word.rpartition("/")
        if resource not in EXCHANGE or name not in client["delegated"]:
            raise Refused(70011, word)
        resources.add(resource)
    if len(resources) != 1:
        raise Refused(70011, " ".join(words))
    return words, resources.pop()


def _issue(entra, request, grant):
    """The answer with both tokens for what a user granted."""
    state = entra.state
    tenant_id, ident = grant["tenant"], grant["client_id"]
    tenant = state.settings["tenants"][tenant_id]
    user = tenant["users"].get(grant["user"], {})
    if user.get("refuse"):
        raise Refused(user["refuse"])
    resource = grant["resource"]
    answer = {"token_type": "Bearer", "scope": " ".join(
        w for w in grant["scopes"] if w != "offline_access"),
        "expires_in": tenant["expires_in"], "ext_expires_in": tenant["expires_in"]}
    if tenant["refresh_in"] is not None:
        answer["refresh_in"] = tenant["refresh_in"]
    answer["access_token"] = state.mint(
        tenant_id, ident, resource, user=grant["user"],
        scp=" ".join(w.rpartition("/")[2] for w in grant["scopes"] if "/" in w))
    if "offline_access" in grant["scopes"]:
        token = "1.A%s-%s.%s" % (state.settings["canary"], secrets.token_urlsafe(24), "x" * 900)
        state.codes.refresh[token] = {**grant, "used": False, "at": time.time(),
                                      "family": grant.get("family") or token}
        answer["refresh_token"] = token
    request["user"] = grant["user"]
    return answer


def refresh_token(state, tenant, client_id, user, scope):
    """A refresh token as from a sign-in long ago."""
    ident, _known = state.tenant(tenant)
    words = scope.split()
    token = "1.A%s-%s.%s" % (state.settings["canary"], secrets.token_urlsafe(24), "x" * 900)
    state.codes.refresh[token] = {
        "tenant": ident, "client_id": client_id.lower(), "scopes": words, "user": user.lower(),
        "resource": words[0].rpartition("/")[0], "used": False, "at": time.time(),
        "family": token}
    return token


def device_code(entra, request, form, tenant_id, tenant):
    """POST to .../devicecode"""
    ident = form.get("client_id")
    if not ident:
        raise Refused(900144, "client_id")
    request["client_id"] = ident
    client = tenant["clients"].get(ident.lower())
    if client is None:
        raise Refused(700016)
    if "client_secret" in form or "client_assertion" in form:
        raise Refused(9002014, "A credential is not expected here.")
    if tenant["block_device_code"]:
        raise Refused(53003)
    scopes, resource = _scopes(form, client)
    code, user_code = secrets.token_urlsafe(60), secrets.token_hex(5).upper()[:9]
    entra.state.codes.device[code] = {
        "tenant": tenant_id, "client_id": ident.lower(), "scopes": scopes, "resource": resource,
        "user_code": user_code, "user": None, "declined": False, "asked": 0,
        "interval": tenant["device_interval"],
        "ends": time.time() + tenant["device_seconds"]}
    uri = "https://microsoft.com/devicelogin"
    return {"user_code": user_code, "device_code": code, "verification_uri": uri,
            "expires_in": tenant["device_seconds"], "interval": tenant["device_interval"],
            "message": "To sign in, use a web browser to open the page %s and enter the code "
            "%s to authenticate." % (uri, user_code)}


def device_poll(entra, request, form, _tenant_id, tenant):
    ident, _known = _client(entra, request, form, tenant)
    code = form.get("device_code")
    if not code:
        raise Refused(900144, "device_code")
    pending = entra.state.codes.device.get(code)
    if pending is None or pending["client_id"] != ident:
        raise Refused(70018)
    now = time.time()
    early = now - pending["asked"] < pending["interval"] - 0.2
    pending["asked"] = now
    if now > pending["ends"]:
        raise Refused(70020)
    if pending["declined"]:
        raise Refused("authorization_declined")
    if pending["user"] is None and early:
        pending["interval"] += 5
        raise Refused("slow_down")
    if pending["user"] is None:
        raise Refused(70016)
    del entra.state.codes.device[code]
    return _issue(entra, request, pending)


def approve(state, user_code, user, decline=False):
    """What a user does with the code that was shown."""
    for pending in state.codes.device.values():
        if pending["user_code"] == user_code:
            pending["user"], pending["declined"] = user.lower(), decline
            return
    raise ValueError("no such user code: %s" % user_code)


def browse(state, url, user):
    """A browser is sent to `url` and `user` signs in; where it is sent back to."""
    parts = urllib.parse.urlsplit(url)
    pairs = urllib.parse.parse_qsl(parts.query, strict_parsing=True)
    form = dict(pairs)
    match = re.fullmatch(r"/([^/]+)/oauth2/v2\.0/authorize", parts.path)
    assert match and len(form) == len(pairs), url
    ident, tenant = state.tenant(urllib.parse.unquote(match.group(1)))
    client = tenant["clients"][form["client_id"].lower()]
    assert form["response_type"] == "code" and form["response_mode"] == "query", form
    assert form["redirect_uri"] in client["redirects"], "AADSTS50011"
    assert form["code_challenge_method"] == "S256", form
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", form["code_challenge"]), form
    scopes, resource = _scopes(form, client)
    code = "0.%s" % secrets.token_urlsafe(300)
    state.codes.browser[code] = {
        "tenant": ident, "client_id": form["client_id"].lower(), "scopes": scopes,
        "resource": resource, "user": user.lower(), "redirect": form["redirect_uri"],
        "challenge": form["code_challenge"], "used": False, "ends": time.time() + 600}
    return form["redirect_uri"] + "/?" + urllib.parse.urlencode(
        {"code": code, "state": form["state"], "session_state": "x"})


def code(entra, request, form, _tenant_id, tenant):
    ident, _known = _client(entra, request, form, tenant)
    for name in ("code", "redirect_uri", "code_verifier"):
        if not form.get(name):
            raise Refused(900144, name)
    grant = entra.state.codes.browser.get(form["code"])
    if grant is None or grant["client_id"] != ident:
        raise Refused(70000)
    if grant["used"]:
        raise Refused(54005)
    grant["used"] = True
    if time.time() > grant["ends"]:
        raise Refused(70008)
    if form["redirect_uri"] != grant["redirect"]:
        raise Refused(50011)
    if not re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", form["code_verifier"]):
        raise Refused(501481)
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != grant["challenge"]:
        raise Refused(501481)
    return _issue(entra, request, grant)


def refresh(entra, request, form, _tenant_id, tenant):
    ident, _known = _client(entra, request, form, tenant)
    token = form.get("refresh_token")
    if not token:
        raise Refused(900144, "refresh_token")
    tokens = entra.state.codes.refresh
    grant = tokens.get(token)
    if grant is None or grant["client_id"] != ident:
        raise Refused(70000)
    if time.time() - grant["at"] > tenant["refresh_seconds"]:
        raise Refused(700082)
    if grant["used"] and not entra.state.settings["entra"]["refresh_reuse"]:
        for old in [t for t, g in tokens.items() if g["family"] == grant["family"]]:
            del tokens[old]
        raise Refused(50173)
    if form.get("scope"):
        words = form["scope"].split()
        if not set(words) <= set(grant["scopes"]):
            raise Refused(70011, form["scope"])
    answer = _issue(entra, request, grant)
    grant["used"] = True
    return answer


GRANTS = {DEVICE: device_poll, "authorization_code": code, "refresh_token": refresh}
