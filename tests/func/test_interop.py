"""Tokens from an OAuth server that nobody here wrote: npm's oidc-provider.

Skipped when there is no npm or it can't install that package.
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

        procs.wait_for(lambda: len(renewals()) >= 2, 60, provider.get("/requests"))
        lab.tokend.kill()
        lab.tokend.unexpected.clear()
        lab.tokend.start()
        # this server revokes everything when a refresh token that was replaced comes back
        procs.wait_for(lambda: len(renewals()) >= 4, 60, provider.get("/requests"))
        assert flow.status(lab)["tokend"]["tokens"][0]["state"] == "valid"
    finally:
        provider.stop()
