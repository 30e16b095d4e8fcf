"""The metadata service of an Azure machine: tokens of its own identity, without TLS."""

import http.server
import json
import time
import urllib.parse

from listen import Gone, wait_cleared

PATH = "/metadata/identity/oauth2/token"


class Imds:
    def __init__(self, state):
        self.state = state

    def serve(self, conn, peer):
        Connection(self.state, conn, peer).run()


class Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "IMDS/150.870.65.1854", ""

    # The base class would run everything from its constructor.
    def __init__(self, state, sock, peer):
        self.state, self.connection, self.client_address = state, sock, peer
        self.rfile, self.wfile = sock.makefile("rb"), sock.makefile("wb", 0)

    def run(self):
        try:
            self.close_connection = True
            self.handle_one_request()
        except (Gone, OSError, ValueError):
            pass
        finally:
            self.connection.close()

    def log_message(self, *_args):
        pass                            # we have a log of our own

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        record = {"time": time.time(), "query": query, "status": None,
                  "headers": dict(self.headers)}
        with self.state.lock:
            self.state.imds.append(record)
        for fault in self.state.faults.take("imds", ("status", "silence")):
            if fault.kind == "silence":
                wait_cleared(self.connection, fault)
                raise Gone()
            self._send(record, int(fault["status"]), {"error": "unavailable"})
            return
        self._send(record, *self._answer(parts.path, query))

    do_POST = do_PUT = do_GET

    def _answer(self, path, query):
        def bad(error, text):
            return 400, {"error": error, "error_description": text}

        config = self.state.settings["imds"]
        if path != PATH or self.command != "GET":
            return 404, {"error": "not_found"}
        if self.headers.get("Metadata") != "true":
            return bad("bad_request_102", "Required metadata header not specified")
        if "X-Forwarded-For" in self.headers:
            return bad("invalid_request", "Forwarded requests are not served")
        if query.get("api-version") != "2018-02-01":
            return bad("bad_request", "Invalid api-version")
        if query.get("resource") not in ("https://outlook.office365.com",):
            return bad("invalid_resource", "AADSTS500011: The resource principal was not found")
        tenant, _known = self.state.tenant(config["tenant"])
        identity = query.get("client_id", config["client_id"])
        if tenant is None or identity != config["client_id"]:
            return bad("invalid_request", "Identity not found")
        life = self.state.settings["tenants"][tenant]["expires_in"]
        token = self.state.mint(tenant, identity, query["resource"])
        now = int(time.time())
        return 200, {"access_token": token, "client_id": identity, "expires_in": str(life),
                     "expires_on": str(now + life), "ext_expires_in": str(life),
                     "not_before": str(now), "resource": query["resource"],
                     "token_type": "Bearer"}

    def _send(self, record, status, fields):
        record["status"] = status
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
