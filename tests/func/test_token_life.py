"""The life of a token: long ones, far ones, clocks that step, proxies, both Internet protocols."""

import base64
import contextlib
import ctypes
import os
import select
import socket
import subprocess
import threading
import time

import pytest

import flow
import lab as laboratory
import procs
import relay365_conf
import shifted_clock
import test_grants
import token_client

pytestmark = pytest.mark.needs_build


def ask(lab, verb="lease"):
    return token_client.ask(lab.folder + "/run/token", verb=verb)


def requests(lab):
    return lab.sim.state()["entra"]["requests"]


def token_status(lab):
    return flow.status(lab)["tokend"]["tokens"][0]


def wait_state(lab, state, timeout=30):
    procs.wait_for(lambda: token_status(lab)["state"] == state, timeout,
                   lambda: "state %s: %s" % (state, token_status(lab)))


# -- size ------------------------------------------------------------------------

@pytest.mark.parametrize("length, low, high", [(200, 250, 600), (15900, 15840, 15960)],
                         ids=["the shortest", "long"])
def test_long_tokens(lab, length, low, high):
    lab.configure()
    lab.sim.tenant(laboratory.TENANT, token_length=length)
    lab.tokend.start()
    token = ask(lab)["token"]
    assert low < len(token) < high
    # the vault takes it too
    lab.tokend.stop()
    lab.sim.listen("entra", open=False)
    lab.tokend.start()
    assert ask(lab)["token"] == token


def test_token_beyond_all_measure(lab):
    lab.configure()
    lab.sim.tenant(laboratory.TENANT, token_length=30000)
    lab.tokend.start()
    assert "no usable access_token" in ask(lab)["reason"]


# -- refusals ----------------------------------------------------------------------

@pytest.mark.slow
def test_one_fresh_token_for_many_refusals(lab):
    """Exchange refuses again and again; Entra is asked once more, and then left alone."""
    lab.configure(mailboxes={"relay": {"messages_per_minute": 6000}})
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, registered=False)
    postfix = flow.wire(lab, milter=False)
    for n in range(6):
        assert postfix.send(flow.SENDER, ["r%d@example.net" % n]).ok
    procs.wait_for(lambda: len([d for d in postfix.deliveries() if d.status == "deferred"]) >= 6,
                   60, "six refusals")
    for _ in range(2):
        seen = len(postfix.deliveries())
        postfix.flush()
        procs.wait_for(lambda: len(postfix.deliveries()) > seen, 60, "another refusal")
    assert len(requests(lab)) == 2


# -- clocks ------------------------------------------------------------------------

@pytest.mark.parametrize("hours", [1, -1, 24 * 365 * 20])
def test_wall_clock_steps(lab, hours):
    """A valid token stays valid: its life is counted by the boot clock. 2046 is no problem."""
    lab.configure()
    clock = shifted_clock.ShiftedClock(lab)
    lab.tokend.start(env=clock.environment(CLOCK_SHIFT_WALL="1"))
    before = ask(lab)["token"]
    clock.step(hours * 3600)
    status = token_status(lab)
    assert status["state"] == "valid" and 3000 < status["expires_in_s"] <= 3600
    assert ask(lab)["token"] == before and len(requests(lab)) == 1


def test_start_in_2046(lab):
    """Beyond 2^31 seconds: certificate, assertion, vault and answers."""
    made = lab.sim.ask("credentials", name="client", tenant=laboratory.TENANT, days=20000)
    test_grants.tenant_with(lab, certificate=made["certificate"],
                            private_key=made["private_key"])
    clock = shifted_clock.ShiftedClock(lab)
    clock.step(20 * 365 * 86400)
    lab.sim.set(clock_offset=clock.shift)
    lab.tokend.start(env=clock.environment(CLOCK_SHIFT_WALL="1"))
    answer = ask(lab)
    assert int(answer["expires_at"]) > 2 ** 31
    assert requests(lab)[0]["assertion"]["lifetime"] == 600
    lab.tokend.stop()
    lab.sim.listen("entra", open=False)
    lab.tokend.start(env=clock.environment(CLOCK_SHIFT_WALL="1"))
    assert ask(lab)["token"] == answer["token"]


# -- networks ----------------------------------------------------------------------

class Relay:
    """Listens at `address` and joins each connection to (host, port); a CONNECT proxy if asked,
    which may want NAME:PASSWORD."""

    def __init__(self, address, target, connect=False, family=socket.AF_INET, secret=None):
        self.target, self.connect, self.asked, self.secret = target, connect, [], secret
        self.socket = socket.socket(family)
        self.socket.bind((address, 0))
        self.socket.listen(16)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                conn, _peer = self.socket.accept()
                threading.Thread(target=self._join, args=(conn,), daemon=True).start()

    def _join(self, conn):
        with contextlib.suppress(OSError), conn:
            if self.connect:
                while not self._admit(conn):
                    pass
            else:
                self.asked.append("connection")
            with socket.create_connection(self.target) as other:
                pair = {conn: other, other: conn}
                while True:
                    for sock in select.select(list(pair), [], [])[0]:
                        data = sock.recv(65536)
                        if not data:
                            return
                        pair[sock].sendall(data)

    def _admit(self, conn):
        """Whether the CONNECT that comes shows the secret, if one is wanted."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = conn.recv(1)
            if not byte:
                raise OSError("gone")
            head += byte
        lines = head.decode().split("\r\n")
        shown = [line.split(": ", 1)[1] for line in lines if
                 line.lower().startswith("proxy-authorization: ")]
        wanted = self.secret and "Basic " + base64.b64encode(self.secret.encode()).decode()
        if wanted and shown != [wanted]:
            self.asked.append("refused")
            conn.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                         b"Proxy-Authenticate: Basic realm=\"proxy\"\r\n"
                         b"Content-Length: 0\r\n\r\n")
            return False
        self.asked.append(lines[0])
        conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return True

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def entra(lab):
    return lab.sim.entra_address, lab.sim.entra_port


def test_proxy(lab):
    proxy = Relay("127.0.0.1", entra(lab), connect=True)
    test_grants.tenant_with(lab, secret_file=lab.secret_file,
                            proxy="http://127.0.0.1:%d" % proxy.port)
    # the environment's proxies are none of tokend's
    lab.tokend.start(env={"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"})
    assert ask(lab)["status"] == "ok"
    assert proxy.asked == ["CONNECT %s:%d HTTP/1.1" % entra(lab)]
    proxy.close()


def careful_proxy(lab):
    """One that wants a password with signs which a URL would have to encode; keys for it."""
    secret = "gate way:" + lab.watch("p@ss:w/rd#%+%41" + os.urandom(8).hex(), "the proxy's password")
    proxy = Relay("127.0.0.1", entra(lab), connect=True, secret=secret)
    file = procs.write(lab.folder + "/proxy.secret", secret + "\n", 0o600)
    return proxy, {"proxy": "http://127.0.0.1:%d" % proxy.port, "proxy_secret_file": file}


def test_proxy_that_wants_a_password(lab):
    proxy, keys = careful_proxy(lab)
    test_grants.tenant_with(lab, secret_file=lab.secret_file, **keys)
    right = procs.read(keys["proxy_secret_file"])
    procs.write(keys["proxy_secret_file"], "gate way:wrong\n", 0o600)
    lab.tokend.start()
    assert "407" in ask(lab)["reason"] and requests(lab) == []
    procs.write(keys["proxy_secret_file"], "no colon\n", 0o600)
    lab.relay365("reload", status=None)
    assert "is not NAME:PASSWORD for the proxy" in ask(lab)["reason"]
    procs.write(keys["proxy_secret_file"], right, 0o600)
    lab.relay365("reload", status=None)
    assert ask(lab)["status"] == "ok"
    assert proxy.asked[-1] == "CONNECT %s:%d HTTP/1.1" % entra(lab)
    proxy.close()


def test_sign_in_by_such_a_proxy(lab):
    proxy, keys = careful_proxy(lab)
    test_grants.delegated(lab, **keys)
    lab.tokend.start()
    assert "has a token of relay@contoso.com" in test_grants.sign_in(lab)
    assert proxy.asked.count("CONNECT %s:%d HTTP/1.1" % entra(lab)) >= 2
    proxy.close()


def test_proxy_that_is_down(lab):
    test_grants.tenant_with(lab, secret_file=lab.secret_file, proxy="http://127.0.0.1:9")
    lab.tokend.start()
    assert "can't be reached" in ask(lab)["reason"] and requests(lab) == []


def test_managed_identity_never_uses_the_proxy(lab):
    test_grants.managed(lab, proxy="http://127.0.0.1:9")
    lab.tokend.start()
    assert ask(lab)["status"] == "ok"


@pytest.mark.parametrize("family, address, name", [(socket.AF_INET, "127.0.0.1", "localhost"),
                                                   (socket.AF_INET6, "::1", "localhost"),
                                                   (socket.AF_INET6, "::1", "[::1]")])
def test_either_protocol_alone_will_do(lab, family, address, name):
    """"localhost" has both addresses; somebody listens at one of them only."""
    try:
        relay = Relay(address, entra(lab), family=family)
    except OSError:
        pytest.skip("this machine has no " + address)
    test_grants.tenant_with(lab, secret_file=lab.secret_file,
                            token_endpoint="https://%s:%d/%s/oauth2/v2.0/token" % (
                                name, relay.port, laboratory.TENANT))
    lab.tokend.start()
    assert ask(lab)["status"] == "ok" and relay.asked == ["connection"]
    relay.close()


# -- one tenant and another ----------------------------------------------------------

def test_forty_slow_mailboxes_hold_up_nobody(lab):
    """Users' mailboxes of a tenant whose endpoint hangs, more than the gate lets through."""
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, delegated=["SMTP.Send"])
    lab.sim.tenant("fast.example", clients={laboratory.CLIENT_ID: {"secrets": [lab.secret]}})
    lab.sim.mailbox("relay@fast.example", tenant="fast.example")
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(64)
    hanging = "https://127.0.0.1:%d/%s/oauth2/v2.0/" % (silent.getsockname()[1],
                                                        laboratory.TENANT)
    names = ["m%d" % n for n in range(40)]
    lab.configure(
        tenants={
            "slow": relay365_conf.tenant_of(
                lab.sim, laboratory.TENANT, laboratory.CLIENT_ID, delegated=True,
                scope=test_grants.SIGN_IN_SCOPE, token_endpoint=hanging + "token",
                device_endpoint=hanging + "devicecode"),
            "fast": relay365_conf.tenant_of(lab.sim, "fast.example", laboratory.CLIENT_ID,
                                            lab.secret_file)},
        mailboxes={**{n: {"address": n + "@contoso.com", "tenant": "slow"} for n in names},
                   "z": {"address": "relay@fast.example", "tenant": "fast"}})
    for name in names:
        procs.write(lab.folder + "/state/tokens/mailbox-" + name,
                    "relay365=1\nowner=%s %stoken %s %s@contoso.com\nrefreshed=%d\nrefresh=x\n\n"
                    % (laboratory.CLIENT_ID, hanging, test_grants.SIGN_IN_SCOPE, name,
                       time.time()), 0o600)
    lab.tokend.start()
    begin = time.monotonic()
    path = lab.folder + "/run/token"
    assert token_client.ask(path, "relay@fast.example")["status"] == "ok"
    assert time.monotonic() - begin < 15, "one endpoint's time-out is 20 s"
    silent.close()


# -- names -------------------------------------------------------------------------

def libcurl():
    """As (7, 88)."""
    text = ctypes.cdll.LoadLibrary("libcurl.so.4").curl_version
    text.restype = ctypes.c_char_p
    return tuple(int(n) for n in text().decode().split()[0].partition("/")[2].split(".")[:2])


@pytest.fixture
def dead_name_server(lab):
    """The only one that tokend knows takes questions and answers none."""
    if libcurl() < (7, 87):
        pytest.skip("an older libcurl waits for it")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.bind(("127.0.0.77", 53))
    except OSError as e:
        pytest.skip("no name server can be played here: %s" % e)
    server.settimeout(20)
    resolv = procs.write(lab.folder + "/resolv.conf",
                         "nameserver 127.0.0.77\noptions timeout:15 attempts:3\n")
    switch = procs.write(lab.folder + "/nsswitch.conf", "hosts: files dns\n")
    wrapper = ["unshare", "-m", "sh", "-c",
               "mount --bind %s /etc/resolv.conf && mount --bind %s /etc/nsswitch.conf && "
               "exec \"$@\"" % (resolv, switch), "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no mounting here")
    lab.tokend.wrapper = wrapper
    with server:
        yield server


def test_dead_name_server(lab, dead_name_server):
    """A lookup takes a minute; it holds up nobody else, nor a reload, nor the end."""
    here = relay365_conf.tenant_of(lab.sim, laboratory.TENANT, laboratory.CLIENT_ID,
                                   lab.secret_file)
    far = {**here, "token_endpoint": "https://login.nowhere.example/token"}
    lab.configure(tenants={"here": here, "far": far}, mailboxes={
        "relay": {"address": laboratory.ADDRESS, "tenant": "here", "default": True},
        "far": {"address": "far@contoso.com", "tenant": "far", "senders": ["*@far.example"]}})
    lab.tokend.start()
    dead_name_server.recv(512)
    begin = time.monotonic()
    # takes the request back while the name is looked up
    lab.relay365("reload", status=None)
    assert token_client.map_answer(lab, "relay", "2.0.0 250 2.0.0 OK") == "NOTFOUND "
    assert {t["tenant"]: t["state"] for t in flow.status(lab)["tokend"]["tokens"]} == {
        "here": "valid", "far": "fetching"}
    assert ask(lab)["status"] == "ok"
    assert lab.tokend.stop() == 0
    assert time.monotonic() - begin < 12, "a lookup takes 45 s"
