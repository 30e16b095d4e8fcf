"""Stand-in for Entra ID: the token endpoint, over HTTPS.

A grant is one function in GRANTS; it gets the form and returns the fields of
the answer, or raises Refused.
"""

import base64
import email.utils
import http.server
import json
import re
import ssl
import time
import urllib.parse

import aadsts
import assertion
import signin
from aadsts import Refused
from listen import Gone, reset, wait_cleared

PATH = re.compile(r"/([^/]+)/oauth2/v2\.0/(token|devicecode)")
FORM = "application/x-www-form-urlencoded"
MAX_BODY = 1024 * 1024
# resources with a service principal in every tenant
RESOURCES = ("https://outlook.office365.com", "https://outlook.office.com",
             "https://graph.microsoft.com")
HIDDEN = ("authorization", "proxy-authorization", "cookie")


def decode(body):
    """The form as a dict; what isn't exactly encoded is refused."""
    form = {}
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(9002014, "There are octets beyond ASCII.")
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise Refused(9002014, "A % is not followed by two hexadecimal "
                      "digits.")
    if re.search(r"[\x00-\x20\x7f\"<>\\^`{|}]", text):
        raise Refused(9002014, "A character stands there that must be "
                      "percent-encoded.")
    for pair in text.split("&") if text else []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Refused(9002014, "A parameter has no value.")
        try:
            name, value = (urllib.parse.unquote_plus(x, errors="strict")
                           for x in (name, value))
        except UnicodeDecodeError:
            raise Refused(9002014, "A value is not UTF-8.")
        if name in form:
            raise Refused(9000411, name)
        form[name] = value
    return form


class Entra:
    """Serves connections; one object for all of them."""

    def __init__(self, state, contexts):
        self.state, self.contexts = state, contexts

    def serve(self, conn, peer):
        state = self.state
        with state.lock:
            state.entra["connections"] += 1
            state.entra["open"] += 1
            state.entra["peak_open"] = max(state.entra["peak_open"],
                                           state.entra["open"])
        try:
            Connection(self, self._tls(conn), peer).run()
        finally:
            with state.lock:
                state.entra["open"] -= 1

    def _tls(self, conn):
        which = "good"
        for fault in self.state.faults.take("entra", ("certificate",
                                                      "no_tls")):
            if fault.kind == "no_tls":
                conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                raise Gone()
            which = fault["which"]
        conn.settimeout(self.state.settings["entra"]["idle_seconds"])
        try:
            return self.contexts[which].wrap_socket(conn, server_side=True)
        except (ssl.SSLError, OSError) as error:
            with self.state.lock:
                self.state.entra["tls_failed"] += 1
            self.state.log("entra", "TLS failed (%s): %s" % (which, error))
            raise Gone()

    # -- the token endpoint --------------------------------------------------

    def grant(self, request, form):
        """The fields of a good answer; `request` is the record to fill."""
        tenant_id = request["tenant"]
        if tenant_id in ("common", "organizations", "consumers"):
            raise Refused(9001023)
        if not re.fullmatch(r"[0-9a-fA-F-]{36}|[A-Za-z0-9-]+"
                            r"(\.[A-Za-z0-9-]+)+", tenant_id):
            raise Refused(900023)
        ident, tenant = self.state.tenant(tenant_id)
        if tenant is None:
            raise Refused(90002)
        request["tenant"] = ident
        if request["kind"] == "devicecode":
            return signin.device_code(self, request, form, ident, tenant)
        if not form.get("grant_type"):
            raise Refused(900144, "grant_type")
        grant = GRANTS.get(form["grant_type"])
        if grant is None:
            raise Refused(70003, form["grant_type"])
        return grant(self, request, form, ident, tenant)

    def client(self, request, form, tenant):
        """The client, its credential checked."""
        ident, secret = form.get("client_id"), form.get("client_secret")
        if not ident:
            raise Refused(900144, "client_id")
        request["client_id"] = ident
        client = tenant["clients"].get(ident.lower())
        if client is None:
            raise Refused(700016)
        if client["disabled"]:
            raise Refused(7000112)
        given = form.get("client_assertion")
        if client["public"]:
            if secret is not None or given is not None:
                raise Refused(700025)
        elif given is not None:
            self._assertion(request, form, ident, client, tenant)
        elif secret is not None:
            self._secret(request, secret, client)
        else:
            raise Refused(7000218)
        return ident.lower(), client

    def _secret(self, request, secret, client):
        request["credential"] = "secret"
        now = self.state.now()
        for known in client["secrets"]:
            if known["value"] == secret and not known["disabled"]:
                if known["expires_at"] is not None and \
                        known["expires_at"] <= now:
                    raise Refused(7000222)
                return
        raise Refused(7000215)

    def _assertion(self, request, form, ident, client, tenant):
        request["credential"] = "certificate"
        if form.get("client_assertion_type") != assertion.TYPE:
            raise Refused(900144, "client_assertion_type")
        config = self.state.settings["entra"]
        names = {request["tenant"], tenant["tid"], *tenant["domains"]}
        if client["federated"] and assertion.issuer(form["client_assertion"]) != ident:
            request["credential"] = "federated"
            request["assertion"] = assertion.check_federated(
                form["client_assertion"], client, self.state.now(), config["clock_skew"])
            return
        audiences = {request["url"]} | {
            pattern.replace("{tenant}", name)
            for pattern in config["canonical"] for name in names}
        request["assertion"] = assertion.check(
            form["client_assertion"], ident, client, audiences,
            self.state.now(), config["clock_skew"], self.state.seen_jti)

    def client_credentials(self, request, form, tenant_id, tenant):
        ident, client = self.client(request, form, tenant)
        scope = form.get("scope")
        if not scope:
            raise Refused(900144, "scope")
        request["scope"] = scope
        if len(scope.split(" ")) > 1:
            raise Refused(70011, scope)
        if not scope.endswith("/.default"):
            raise Refused(1002012, scope)
        resource = scope[:-len("/.default")]
        if resource.rstrip("/") not in RESOURCES:
            raise Refused(500011, resource)
        self._loop(request)
        answer = {"token_type": "Bearer", "expires_in": tenant["expires_in"],
                  "ext_expires_in": tenant["expires_in"]}
        if tenant["refresh_in"] is not None:
            answer["refresh_in"] = tenant["refresh_in"]
        answer["access_token"] = self.state.mint(tenant_id, ident, resource)
        return answer

    def _loop(self, request):
        """50196 for a client that asks again and again for what it has."""
        config = self.state.settings["entra"]
        if config["loop_requests"] is None:
            return
        since = time.time() - config["loop_seconds"]
        with self.state.lock:
            same = [r for r in self.state.requests
                    if r["time"] >= since and r["status"] == 200
                    and r["client_id"] == request["client_id"]
                    and r["tenant"] == request["tenant"]]
        if len(same) >= config["loop_requests"]:
            raise Refused(50196)


GRANTS = {"client_credentials": Entra.client_credentials, **signin.GRANTS}


class Connection(http.server.BaseHTTPRequestHandler):
    """One HTTPS connection; requests follow each other on it."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Microsoft-IIS/10.0", ""

    # The base class would run everything from its constructor.
    def __init__(self, entra, sock, peer):
        self.entra, self.state = entra, entra.state
        self.connection, self.client_address = sock, peer
        self.rfile, self.wfile = sock.makefile("rb"), sock.makefile("wb", 0)

    def date_time_string(self, timestamp=None):
        return super().date_time_string(self.state.now() if timestamp is None else timestamp)

    def run(self):
        try:
            self.close_connection = True
            self.handle_one_request()
            while not self.close_connection:
                self.handle_one_request()
        except (Gone, OSError, ValueError):
            pass
        finally:
            self.connection.close()

    def log_message(self, *_args):
        pass                            # we have a log of our own

    def do_GET(self):
        self._answer()

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def _body(self):
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refused(9002014, "Transfer-Encoding is not supported.")
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            raise Refused(9002014, "Content-Length is wrong or too large.")
        return self.rfile.read(length)

    def _record(self):
        path = urllib.parse.urlsplit(self.path)
        match = PATH.fullmatch(path.path)
        return {
            "time": time.time(), "peer": "%s:%d" % self.client_address,
            "method": self.command, "path": self.path,
            "url": "https://%s%s" % (self.headers.get("Host"), path.path),
            "sni": getattr(self.connection, "sni", None),
            "tls": self.connection.version(),
            "headers": {k: "(hidden)" if k.lower() in HIDDEN else v
                        for k, v in self.headers.items()},
            "tenant": urllib.parse.unquote(match.group(1)) if match else None,
            "kind": "devicecode" if match and match.group(2) == "devicecode" else "other",
            "user": None, "client_id": None, "credential": None,
            "scope": None, "assertion": None, "body_keys": [],
            "status": None, "error": None, "aadsts": None, "fault": None,
        }

    def _answer(self):
        request, state = self._record(), self.state
        with state.lock:
            state.entra["in_flight"] += 1
            state.entra["peak_in_flight"] = max(
                state.entra["peak_in_flight"], state.entra["in_flight"])
            state.requests.append(request)
            if request["tenant"] is None:
                state.entra["redirect_hits"] += \
                    self.path.startswith("/redirected")
        try:
            self._answer_one(request)
        finally:
            request["took_ms"] = round((time.time() - request["time"]) * 1e3)
            with state.lock:
                state.entra["in_flight"] -= 1
            state.log("entra", "%s %s %s kind=%s client=%s -> %s %s%s" % (
                request["peer"], self.command, self.path, request["kind"],
                request["client_id"], request["status"],
                request["aadsts"] or "", " fault=" + request["fault"]
                if request["fault"] else ""))

    def _answer_one(self, request):
        try:
            form = self._form(request)
            problem = None
        except Refused as refused:
            form, problem = {}, refused
        ident, _tenant = self.state.tenant(request["tenant"])
        faults = self.state.faults.take(
            "entra", tuple(REQUEST_FAULTS), tenant=ident or request["tenant"],
            client_id=form.get("client_id"))
        for fault in faults:
            request["fault"] = fault.kind
            if fault.kind == "delay":
                if not wait_cleared(self.connection, fault, fault["seconds"]):
                    raise Gone()
        last = faults[-1] if faults and faults[-1].kind != "delay" else None
        if last and last.kind in BEFORE:
            BEFORE[last.kind](self, request, last)
            return
        try:
            if problem:
                raise problem
            if request["tenant"] is None:
                self._send(request, 404, b"")
                return
            if last and last.kind == "aadsts":
                raise Refused(int(last["code"]))
            fields = self.entra.grant(request, form)
        except Refused as refused:
            status, fields = aadsts.body(
                refused.number, request["client_id"] or form.get("client_id"),
                request["tenant"], refused.detail)
            request["error"] = fields["error"]
            request["aadsts"] = refused.number
            self._json(request, status, fields, last)
            return
        if last and last.kind in FIELDS:
            FIELDS[last.kind](fields, last)
        self._json(request, 200, fields, last)

    def _form(self, request):
        body = self._body()
        if request["tenant"] is None:
            return {}
        if self.command != "POST":
            raise Refused(900561, self.command)
        # with another type Entra ID does not see a form at all
        kind = self.headers.get("Content-Type", "").split(";")[0].strip()
        if kind.lower() != FORM:
            raise Refused(900144, "grant_type")
        form = decode(body)
        request["body_keys"] = list(form)
        if request["kind"] != "devicecode":
            request["kind"] = form.get("grant_type", "other")
        request["client_id"] = form.get("client_id")
        header = self.headers.get("Authorization", "")
        if header.lower().startswith("basic "):
            try:
                user, _colon, password = base64.b64decode(
                    header[6:], validate=True).decode("utf-8").partition(":")
            except ValueError:
                raise Refused(9002014, "The Authorization header is broken.")
            form.setdefault("client_id", urllib.parse.unquote_plus(user))
            form.setdefault("client_secret",
                            urllib.parse.unquote_plus(password))
            request["client_id"] = form["client_id"]
        return form

    # -- answers and how they go wrong ---------------------------------------

    def _json(self, request, status, fields, fault):
        body = json.dumps(fields).encode("utf-8")
        self._send(request, status, body, "application/json; charset=utf-8",
                   fault if fault and fault.kind in ("drip", "truncated",
                                                     "huge") else None)

    def _send(self, request, status, body, kind="text/html", fault=None,
              headers=()):
        request["status"] = status
        claimed = len(body)
        if fault and fault.kind == "huge":
            body = body[:-1] + b" " * int(fault["bytes"]) + body[-1:]
            claimed = len(body)
        elif fault and fault.kind == "truncated":
            body = body[:max(0, claimed - int(fault["missing"]))]
            self.close_connection = True
        self.send_response(status)
        self.send_header("Cache-Control", "no-store, no-cache")
        self.send_header("Pragma", "no-cache")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(claimed))
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if fault and fault.kind == "drip":
            self._headers_buffer.append(b"\r\n")
            everything = b"".join(self._headers_buffer) + body
            self._headers_buffer = []
            for i in range(len(everything)):
                self.wfile.write(everything[i:i + 1])
                if not wait_cleared(self.connection, fault, fault["seconds"]):
                    raise Gone()
            return
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _status(self, request, fault):
        headers = []
        if fault["retry_after"] != "":
            headers.append(("Retry-After", str(fault["retry_after"])))
        elif fault["retry_after_date"] != "":
            headers.append(("Retry-After", email.utils.formatdate(
                time.time() + float(fault["retry_after_date"]),
                usegmt=True)))
        status = int(fault["status"])
        request["error"] = "http"
        body = fault["body"] or json.dumps(
            {"error": "temporarily_unavailable" if status == 429
             else "server_error", "error_description": "HTTP %d" % status})
        self._send(request, status, body.encode("utf-8"),
                   "application/json", headers=headers)

    def _silence(self, _request, fault):
        wait_cleared(self.connection, fault)
        raise Gone()

    def _garbage(self, request, fault):
        request["error"] = "garbage"
        self._send(request, 200, fault["body"].encode("utf-8"))

    def _redirect(self, request, fault):
        request["error"] = "redirect"
        self._send(request, int(fault["status"]), b"",
                   headers=[("Location", fault["location"])])

    def _reset(self, _request, _fault):
        # unwrap first: the SSL object would send its own close
        reset(self.connection)
        raise Gone()

    def _drop(self, _request, _fault):
        raise Gone()


def _expires_in(fields, fault):
    if fault["value"] is None:
        fields.pop("expires_in")
    elif fault["value"] == "":
        fields["expires_in"] = str(fields["expires_in"])
    else:
        fields["expires_in"] = fault["value"]


def _token(fields, fault):
    fields["access_token"] = fault["value"]


def _fields(fields, fault):
    for key, value in fault["value"].items():
        if value is None:
            fields.pop(key, None)
        else:
            fields[key] = value


# faults that take the place of the answer, and those that change its fields
BEFORE = {"status": Connection._status, "silence": Connection._silence,
          "garbage": Connection._garbage, "redirect": Connection._redirect,
          "reset": Connection._reset, "drop": Connection._drop}
FIELDS = {"expires_in": _expires_in, "token": _token, "fields": _fields}
REQUEST_FAULTS = [*BEFORE, *FIELDS, "delay", "aadsts", "drip", "truncated",
                  "huge"]
