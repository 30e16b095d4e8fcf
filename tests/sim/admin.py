"""The admin interface: DIR/admin, one JSON object a line in, one out.

Every answer has "ok"; a refusal has "error". See README.md for the requests.
"""

import json
import os
import socket
import threading

import ca
import signin


class Admin:
    def __init__(self, state, listeners, stop):
        self.state, self.listeners, self.stop = state, listeners, stop

    def start(self):
        # The path may be longer than a socket's name can be, so bind in place.
        path = os.path.join(self.state.dir, "admin")
        here = os.open(".", os.O_RDONLY)
        os.chdir(self.state.dir)
        try:
            if os.path.lexists("admin"):
                os.unlink("admin")
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind("admin")
            os.chmod("admin", 0o600)
        finally:
            os.fchdir(here)
            os.close(here)
        sock.listen(64)
        threading.Thread(target=self._accept, args=(sock,),
                         daemon=True).start()
        return path

    def _accept(self, sock):
        while True:
            conn, _peer = sock.accept()
            threading.Thread(target=self._serve, args=(conn,),
                             daemon=True).start()

    def _serve(self, conn):
        with conn, conn.makefile("rwb") as stream:
            for line in stream:
                stream.write(json.dumps(self.answer(line)).encode() + b"\n")
                stream.flush()

    def answer(self, line):
        try:
            request = json.loads(line)
            op = request.pop("op")
            result = OPS[op](self, **request)
            return {"ok": True, **(result or {})}
        except Exception as error:      # the caller is told, whatever it is
            return {"ok": False,
                    "error": "%s: %s" % (type(error).__name__, error)}

    def ping(self):
        return {"pid": os.getpid()}

    def get(self):
        return {"settings": self.state.settings}

    def set(self, values):
        self.state.set(values)

    def show(self):
        return {"state": self.state.as_dict()}

    def messages(self, since=0):
        with self.state.lock:
            return {"messages": [m for m in self.state.messages
                                 if m["seq"] > since]}

    def reset(self, settings=False):
        self.state.reset(settings)

    def fault(self, server, kind, **values):
        return {"id": self.state.faults.add(server, kind, values)}

    def clear(self, server=None, id=None):
        return {"cleared": self.state.faults.clear(server, id)}

    def listen(self, server, open=True, drop=False):
        listener = self.listeners[server]
        if open:
            listener.open()
        else:
            listener.close(drop)

    def approve(self, user_code, user, decline=False):
        signin.approve(self.state, user_code, user, decline)

    def browse(self, url, user):
        return {"url": signin.browse(self.state, url, user)}

    def refresh_token(self, tenant, client_id, user, scope):
        return {"token": signin.refresh_token(self.state, tenant, client_id, user, scope)}

    def revoke(self):
        self.state.revoked = self.state.now()

    def mint(self, tenant, client_id, **options):
        ident, _tenant = self.state.tenant(tenant)
        if ident is None:
            raise ValueError("no such tenant: %s" % tenant)
        return {"token": self.state.mint(ident, client_id, **options)}

    def credentials(self, name="client", tenant=None, client_id=None,
                    days=365):
        made = ca.credentials(self.state.dir, name, days)
        if tenant is not None:
            with self.state.lock:
                ident, known = self.state.tenant(tenant)
                if ident is None:
                    raise ValueError("no such tenant: %s" % tenant)
                if client_id is None:
                    client_id = next(iter(known["clients"]))
                client = known["clients"].get(client_id.lower(), {})
                registered = [c for c in client.get("certificates", [])
                              if c["pem"] != made["pem"]]
                self.state.set({"tenants": {ident: {"clients": {client_id: {
                    "certificates": registered + [{"pem": made["pem"]}]}}}}})
        return made

    def quit(self):
        self.stop()


OPS = {"ping": Admin.ping, "get": Admin.get, "set": Admin.set,
       "state": Admin.show, "messages": Admin.messages, "reset": Admin.reset,
       "fault": Admin.fault, "clear": Admin.clear, "listen": Admin.listen,
       "approve": Admin.approve, "browse": Admin.browse,
       "refresh_token": Admin.refresh_token, "revoke": Admin.revoke, "mint": Admin.mint,
       "credentials": Admin.credentials, "quit": Admin.quit}
