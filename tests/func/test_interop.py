"""An OAuth server and an XOAUTH2 server that nobody here wrote: npm's oidc-provider, and Dovecot.

Skipped when there is no npm or it can't install that package, or no Dovecot.
"""

import json
import os
import shutil
import ssl
import subprocess
import urllib.request

import pytest

import flow
import lab as laboratory
import plain
import procs
import programs
import relay365_conf
import test_grants
import token_client

pytestmark = [pytest.mark.needs_build, pytest.mark.slow]

PROVIDER = programs.TREE / "tests" / "interop" / "provider.mjs"
PACKAGE = "oidc-provider@9"


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A folder with the package in it."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", PACKAGE], cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=180, check=False)
    if done.returncode != 0:
        pytest.skip("npm can't install oidc-provider: " + done.stdout[-300:])
    return str(folder)


def public_key(made):
    """The certificate's key as a JWK."""
    text = subprocess.run(["openssl", "x509", "-in", made["certificate"], "-noout", "-modulus"],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    number = bytes.fromhex(text.strip().partition("=")[2])
    return {"kty": "RSA", "e": "AQAB", "n": plain.b64url(number), "use": "sig"}


class Provider:
    def __init__(self, lab, modules, lifetime=3600):
        self.lab, self.port = lab, procs.free_port()
        self.made = lab.sim.credentials("client")
        self.url = "https://localhost:%d" % self.port
        pki = os.path.join(lab.sim.dir, "pki", "entra-good")
        config = procs.write(lab.folder + "/provider.json", json.dumps({
            "port": self.port, "key": pki + ".key", "certificate": pki + ".pem",
            "secret": lab.secret, "jwk": public_key(self.made), "lifetime": lifetime,
            "modules": modules}), 0o600)
        with open(lab.folder + "/log/provider.log", "wb") as log:
            self.process = subprocess.Popen(
                ["node", str(PROVIDER), config], stdout=log, stderr=log,
                env=programs.environment(lab.folder, PATH=os.environ["PATH"]))
        procs.wait_for(lambda: "ready" in procs.read(lab.folder + "/log/provider.log"), 60,
                       "the provider")

    def get(self, path):
        with urllib.request.urlopen(
                self.url + path, timeout=20,
                context=ssl.create_default_context(cafile=self.lab.sim.ca)) as answer:
            return json.loads(answer.read())

    def configure(self, client_id, **keys):
        self.lab.configure(tenants={"contoso": relay365_conf.tenant_of(
            self.lab.sim, laboratory.TENANT, client_id, token_endpoint=self.url + "/token",
            scope="SMTP.Send", **keys)})

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def provider(lab, modules):
    made = Provider(lab, modules)
    yield made
    made.stop()


def ask(lab):
    return token_client.ask(lab.folder + "/run/token")


def test_client_secret(lab, provider):
    provider.configure("secret", secret_file=lab.secret_file)
    lab.tokend.start()
    assert ask(lab)["status"] == "ok"
    assert provider.get("/requests") == [{"grant": "client_credentials", "client": "secret"}]


def test_wrong_client_secret(lab, provider):
    procs.write(lab.secret_file, "wrong\n", 0o600)
    provider.configure("secret", secret_file=lab.secret_file)
    lab.tokend.start()
    assert "does not accept the application's credential" in ask(lab)["reason"]


@pytest.mark.parametrize("signature", ["PS256", "RS256"])
def test_private_key_jwt(lab, provider, signature):
    provider.configure("certificate-" + signature, certificate=provider.made["certificate"],
                       private_key=provider.made["private_key"], signature=signature)
    lab.tokend.start()
    assert ask(lab)["status"] == "ok", provider.get("/requests")


def test_device_code_and_rotating_refresh_tokens(lab, modules):
    provider = Provider(lab, modules, lifetime=12)
    try:
        provider.configure("device", delegated=True,
                           device_endpoint=provider.url + "/device/auth")
        # the scope of users has what keeps them signed in
        text = procs.read(lab.config).replace(
            'scope = "SMTP.Send"', 'scope = "openid offline_access SMTP.Send"')
        procs.write(lab.config, text, 0o640)
        lab.tokend.start()
        command = test_grants.Authorize(lab)
        provider.get("/approve?user_code=" + command.user_code())
        command.end()

        def renewals():
            return [r for r in provider.get("/requests") if r.get("grant") == "refresh_token"]

        procs.wait_for(lambda: len(renewals()) >= 2, 60, lambda: provider.get("/requests"))
        # what a kill takes between an answer and the disk is this server's loss (relay365(7))
        vault = lab.folder + "/state/tokens/mailbox-relay"
        procs.wait_for(lambda: renewals()[-1]["refresh_token"] in procs.read(vault), 30,
                       "the newest refresh token in the vault")
        lab.tokend.kill()
        lab.tokend.unexpected.clear()
        lab.tokend.start()
        # this server revokes everything when a refresh token that was replaced comes back
        procs.wait_for(lambda: len(renewals()) >= 4, 60, lambda: provider.get("/requests"))
        assert flow.status(lab)["tokend"]["tokens"][0]["state"] == "valid"
    finally:
        provider.stop()


# -- Dovecot ---------------------------------------------------------------------

DOVECOT = """
base_dir = %(folder)s/run
log_path = %(log)s
protocols = submission
listen = 127.0.0.1
ssl = required
ssl_cert = <%(pki)s.pem
ssl_key = <%(pki)s.key
hostname = smtp.office365.com
auth_mechanisms = xoauth2
auth_failure_delay = 0
disable_plaintext_auth = yes
default_login_user = nobody
default_internal_user = nobody
default_internal_group = nogroup
submission_relay_host = 127.0.0.1
submission_relay_port = %(sink)d
submission_relay_trusted = no
mail_location = maildir:%(folder)s/mail
first_valid_uid = 0
service anvil {
  chroot =
}
service submission-login {
  chroot =
  inet_listener submission {
    port = %(port)d
  }
}
passdb {
  driver = oauth2
  mechanisms = xoauth2
  args = %(folder)s/oauth2.conf
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=%(folder)s/mail
}
"""
INTROSPECTION = """
introspection_url = %(url)s/token/introspection
introspection_mode = post
client_id = dovecot
client_secret = %(secret)s
username_attribute = client_id
active_attribute = active
active_value = true
tls_ca_cert_file = %(ca)s
"""


class Dovecot:
    """A private submission server, and behind it a sink that takes every message."""

    def __init__(self, lab, provider):
        self.folder = lab.folder + "/dovecot"
        self.port, self.sink_port = procs.free_port(), procs.free_port()
        os.makedirs(self.folder + "/mail")
        os.chmod(self.folder + "/mail", 0o777)
        self.dump = self.folder + "/mail/dump"
        procs.write(self.folder + "/oauth2.conf", INTROSPECTION % {
            "url": provider.url, "secret": lab.secret, "ca": lab.sim.ca}, 0o600)
        config = procs.write(self.folder + "/dovecot.conf", DOVECOT % {
            "folder": self.folder, "log": lab.folder + "/log/dovecot.log", "port": self.port,
            "pki": os.path.join(lab.sim.dir, "pki", "smtp-good"), "sink": self.sink_port}, 0o600)
        env = programs.environment(lab.folder)
        self.processes = [
            subprocess.Popen(["smtp-sink", "-u", "nobody", "-D", self.dump + ".",
                              "127.0.0.1:%d" % self.sink_port, "64"], env=env),
            subprocess.Popen(["dovecot", "-F", "-c", config], env=env)]
        for port in (self.sink_port, self.port):
            procs.wait_for(lambda: procs.accepts(("127.0.0.1", port)), 30, "port %d" % port)

    def messages(self):
        return [name for name in os.listdir(self.folder + "/mail") if name.startswith("dump.")]

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait(20)


@pytest.fixture
def dovecot(lab, provider):
    if not shutil.which("dovecot") or not os.path.exists("/usr/lib/dovecot/submission-login"):
        pytest.skip("Dovecot's submission server is not installed")
    made = Dovecot(lab, provider)
    provider.configure(laboratory.ADDRESS, secret_file=lab.secret_file, smtp_address="127.0.0.1",
                       smtp_port=made.port)
    yield made
    made.stop()


def test_dovecot_takes_the_token(lab, dovecot):
    lab.tokend.start()
    assert "Exchange takes its token" in lab.relay365("probe").stdout


def test_dovecot_refuses_another(lab, provider, dovecot):
    """A token of another client: Dovecot answers as Google does, with a challenge."""
    provider.configure("secret", secret_file=lab.secret_file, smtp_address="127.0.0.1",
                       smtp_port=dovecot.port)
    lab.tokend.start()
    said = lab.relay365("probe", "--transcript", status=1)
    assert "does not let it sign in: 334" in said.stdout, said.stdout


def test_postfix_delivers_to_dovecot(lab, dovecot):
    postfix = flow.wire(lab, milter=False)
    sent = postfix.send(flow.SENDER, ["r@example.net"])
    procs.wait_for(dovecot.messages, 30, lambda: "a message; log:\n" + postfix.log())
    postfix.wait_status(sent.qid, "sent")
    assert {d.status for d in postfix.deliveries()} == {"sent"}
