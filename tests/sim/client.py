"""What tests import: start the stand-in, set it, look at it.

    from client import Sim
    with Sim.start(tmp_path, config={...}) as sim:
        sim.mailbox("relay@contoso.com", messages_per_minute=5)
        sim.fault("entra", "status", status=429, retry_after=2, times=1)
        ...
        assert sim.state()["smtp"]["messages"] == 3

Standard library only, and nothing of the server's own modules, so it may lie
on sys.path beside anything.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
EXCHANGE = "https://outlook.office365.com"


class SimError(Exception):
    """The stand-in refused a request, or did not start."""


def ask(directory, request, timeout=30):
    """Send one admin request to the stand-in of `directory`."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            # by way of the folder's descriptor: a test's path may be too long
            sock.connect("/proc/self/fd/%d/admin" % fd)
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as stream:
                return json.loads(stream.readline())
    finally:
        os.close(fd)


def canary_forms(text):
    """`text`, and what every base64 of something containing it contains."""
    raw, forms = text.encode(), [text]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        # characters that also depend on the neighbours are cut off
        whole = (shift + len(raw)) // 3 * 4
        forms.append(encoded[(0, 2, 3)[shift]:whole])
    return forms


class Sim:
    def __init__(self, directory):
        self.dir = os.path.abspath(str(directory))
        self.process = None
        self.options = {}

    @classmethod
    def start(cls, directory, **options):
        """Start the stand-in and wait until it serves.

        Options: entra_port, smtp_port (0: any), entra_address, smtp_address,
        config (a dict of settings; without it, the example of settings.py).
        """
        sim = cls(directory)
        sim.options = options
        sim._run()
        return sim

    @classmethod
    def attach(cls, directory):
        """The stand-in that somebody else has started."""
        sim = cls(directory)
        sim._read()
        return sim

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        self.stop()

    # -- life ------------------------------------------------------------------

    def _run(self):
        os.makedirs(self.dir, exist_ok=True)
        ready = os.path.join(self.dir, "sim.json")
        if os.path.exists(ready):
            os.unlink(ready)
        # --stdin: it ends when we do, however we end
        command = [sys.executable, HERE, "--dir", self.dir, "--stdin"]
        for key, value in self.options.items():
            if key == "config":
                path = os.path.join(self.dir, "config.json")
                with open(path, "w") as f:
                    json.dump(value, f)
                value = path
            command += ["--" + key.replace("_", "-"), str(value)]
        with open(os.path.join(self.dir, "sim.err"), "ab") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=err)
        end = time.monotonic() + 60
        while not os.path.exists(ready):
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                with open(os.path.join(self.dir, "sim.err")) as f:
                    raise SimError("did not start: " + f.read()[-2000:])
            time.sleep(0.01)
        self._read()

    def _read(self):
        with open(os.path.join(self.dir, "sim.json")) as f:
            about = json.load(f)
        self.pid, self.ca = about["pid"], about["ca"]
        self.entra_address, self.entra_port = (about["entra"]["address"],
                                               about["entra"]["port"])
        self.smtp_address, self.smtp_port = (about["smtp"]["address"],
                                             about["smtp"]["port"])
        self.imds_port = about["imds"]["port"]
        self.imds_endpoint = "http://%s:%d/metadata/identity/oauth2/token" % (
            about["imds"]["address"], self.imds_port)

    def _end(self, number):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process = None

    def stop(self):
        self._end(signal.SIGTERM)

    def kill(self):
        self._end(signal.SIGKILL)

    def restart(self):
        """Stop and start on the same ports with the settings now in force.

        Tokens stay good; counters, faults and revocations are gone.
        """
        settings = self.settings() if self.process.poll() is None else \
            self.options.get("config")
        self.stop()
        self.options = {**self.options, "entra_port": self.entra_port,
                        "smtp_port": self.smtp_port, "imds_port": self.imds_port}
        if settings is not None:
            self.options["config"] = settings
        self._run()

    # -- requests --------------------------------------------------------------

    def ask(self, op, **values):
        answer = ask(self.dir, {"op": op, **values})
        if not answer.pop("ok"):
            raise SimError(answer["error"])
        return answer

    def settings(self):
        return self.ask("get")["settings"]

    def set(self, **values):
        """Merge settings: tenants, mailboxes, entra, smtp, canary, ..."""
        self.ask("set", values=values)

    def tenant(self, name, **values):
        self.set(tenants={name: values})

    def client(self, tenant, client_id, **values):
        self.set(tenants={tenant: {"clients": {client_id: values}}})

    def mailbox(self, address, **values):
        self.set(mailboxes={address: values})

    def fault(self, server, kind, **values):
        """Add a fault; its number. See faults.py for kinds and values."""
        return self.ask("fault", server=server, kind=kind, **values)["id"]

    def clear(self, server=None, number=None):
        return self.ask("clear", server=server, id=number)["cleared"]

    def listen(self, server, open=True, drop=False):
        """Close or reopen a listener; `drop` also ends its connections."""
        self.ask("listen", server=server, open=open, drop=drop)

    def approve(self, user_code, user, decline=False):
        """A user enters the code that was shown to him, or declines."""
        self.ask("approve", user_code=user_code, user=user, decline=decline)

    def browse(self, url, user):
        """A user signs in at `url`; the address the browser ends at."""
        return self.ask("browse", url=url, user=user)["url"]

    def refresh_token(self, tenant, client_id, user, scope):
        """One as from a sign-in long ago."""
        return self.ask("refresh_token", tenant=tenant, client_id=client_id, user=user,
                        scope=scope)["token"]

    def revoke(self):
        """Every token issued so far is refused from now on."""
        self.ask("revoke")

    def mint(self, tenant, client_id, **options):
        """A token without asking Entra: audience, expires_in, roles, length."""
        return self.ask("mint", tenant=tenant, client_id=client_id,
                        **options)["token"]

    def credentials(self, name="client", tenant=None, client_id=None):
        """Make a certificate; register it with the client if tenant is given.

        Returns certificate, private_key (paths), pem, x5t, x5t#S256,
        thumbprint.
        """
        return self.ask("credentials", name=name, tenant=tenant,
                        client_id=client_id)

    def state(self):
        return self.ask("state")["state"]

    def messages(self, since=0):
        return self.ask("messages", since=since)["messages"]

    def body(self, message):
        """The stored bytes of one of messages()."""
        with open(message["path"], "rb") as f:
            return f.read()

    def reset(self, settings=False):
        """Drop counters, faults and mail; with `settings`, these as well."""
        self.ask("reset", settings=settings)

    def log(self, name):
        """The text of "smtp" or "entra" log."""
        with open(os.path.join(self.dir, name + ".log"),
                  encoding="utf-8", errors="replace") as f:
            return f.read()

    # -- waiting ---------------------------------------------------------------

    def wait(self, condition, timeout=30):
        """Wait until condition(state()) is true; its value."""
        end = time.monotonic() + timeout
        while True:
            state = self.state()
            value = condition(state)
            if value:
                return value
            if time.monotonic() > end:
                raise SimError("waited %s s in vain; smtp: %s; entra: %s" % (
                    timeout, {k: v for k, v in state["smtp"].items()
                              if isinstance(v, int)},
                    state["entra"]["count"]))
            time.sleep(0.02)

    def wait_messages(self, n, timeout=30):
        """Wait until at least n messages are stored; all of them."""
        end = time.monotonic() + timeout
        while True:
            messages = self.messages()
            if len(messages) >= n:
                return messages
            if time.monotonic() > end:
                raise SimError("%d of %d messages after %s s" % (
                    len(messages), n, timeout))
            time.sleep(0.02)

    def token_endpoint(self, tenant, host=None):
        return "https://%s:%d/%s/oauth2/v2.0/token" % (
            host or self.entra_address, self.entra_port, tenant)
