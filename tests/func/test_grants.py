"""Every way to get a token: the application's credentials, and users who sign in."""

import json
import os
import resource
import subprocess
import threading
import time

import pytest

import flow
import lab as laboratory
import plain
import procs
import programs
import relay365_conf
import token_client

pytestmark = pytest.mark.needs_build

ISSUER = "https://issuer.contoso.com"
SUBJECT = "system:serviceaccount:mail:relay"
AUDIENCE = "api://AzureADTokenExchange"
SIGN_IN_SCOPE = "https://outlook.office.com/SMTP.Send offline_access"


def endpoint(lab, name):
    return lab.sim.token_endpoint(laboratory.TENANT).replace("/token", "/" + name)


def tenant_with(lab, client_id=laboratory.CLIENT_ID, probe=False, **keys):
    lab.configure(probe=probe, tenants={"contoso": relay365_conf.tenant_of(
        lab.sim, laboratory.TENANT, client_id,
        accepted_domains=laboratory.DOMAINS, **keys)})


def delegated(lab, **keys):
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, public=True, delegated=["SMTP.Send"])
    tenant_with(lab, **{"delegated": True, "scope": SIGN_IN_SCOPE,
                        "device_endpoint": endpoint(lab, "devicecode"),
                        "authorize_endpoint": endpoint(lab, "authorize"), **keys})


def token_status(lab):
    return flow.status(lab)["tokend"]["tokens"][0]


def wait_state(lab, state, timeout=30):
    procs.wait_for(lambda: token_status(lab)["state"] == state, timeout,
                   lambda: "state %s: %s" % (state, token_status(lab)))


def ask(lab):
    return token_client.ask(lab.folder + "/run/token")


def kinds(lab):
    return [r["kind"] for r in lab.sim.state()["entra"]["requests"]]


class Authorize(threading.Thread):
    """`relay365 authorize`, and a user who does what it asks for."""

    def __init__(self, lab, *args):
        super().__init__()
        self.lab, self.args, self.seen, self.code = lab, args, "", None
        self.process = subprocess.Popen(
            [programs.program("relay365"), "-c", lab.config, "authorize", "relay", *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=programs.environment(lab.folder))
        self.start()

    def run(self):
        for line in self.process.stderr:
            self.seen += line

    def user_code(self):
        def code():
            return self.seen.partition("enter the code ")[2].partition(" ")[0]

        return procs.wait_for(code, 20, lambda: "a code: %r" % self.seen)

    def url(self):
        def url():
            return [w for w in self.seen.split() if w.startswith("https://")]

        return procs.wait_for(url, 20, lambda: "an address: %r" % self.seen)[0]

    def type(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self, status=0):
        out = self.process.stdout.read()
        code = self.process.wait(60)
        self.join()
        self.process.stdin.close()
        self.lab.outputs["authorize"] = out + self.seen
        assert code == status, out + self.seen
        return out + self.seen


def sign_in(lab, user=laboratory.ADDRESS):
    command = Authorize(lab)
    lab.sim.approve(command.user_code(), user)
    return command.end()


# -- device code ---------------------------------------------------------------

def test_device_code(lab):
    delegated(lab)
    postfix = flow.wire(lab, milter=False)
    wait_state(lab, "error")
    assert "relay365 authorize relay" in token_status(lab)["last_error"]["reason"]
    command = Authorize(lab)
    code = command.user_code()
    procs.wait_for(lambda: len(kinds(lab)) >= 3, 20, "two polls")
    lab.sim.approve(code, laboratory.ADDRESS)
    assert "has a token of relay@contoso.com" in command.end()
    status = token_status(lab)
    assert status["state"] == "valid" and status["grant"] == "delegated"
    assert status["claims"]["user"] == laboratory.ADDRESS
    assert status["claims"]["rights"] == "SMTP.Send" and "wrong" not in status["claims"]
    assert postfix.send(flow.SENDER, ["r@example.net"]).ok
    lab.sim.wait_messages(1)
    requests = lab.sim.state()["entra"]["requests"]
    assert requests[0]["body_keys"] == ["client_id", "scope"]
    polls = [r["time"] for r in requests[1:]]
    assert all(b - a > 0.9 for a, b in zip(polls, polls[1:])), polls


@pytest.mark.slow
def test_device_code_slow_down(lab):
    delegated(lab)
    lab.tokend.start()
    # the server wants 4 s, says 1 s, and so answers slow_down
    lab.sim.tenant(laboratory.TENANT, device_interval=4)
    lab.sim.fault("entra", "fields", value={"interval": 1}, times=1)
    command = Authorize(lab)
    code = command.user_code()
    procs.wait_for(lambda: len(kinds(lab)) >= 3, 30, "two polls")
    lab.sim.approve(code, laboratory.ADDRESS)
    command.end()
    requests = lab.sim.state()["entra"]["requests"]
    slow = [r["error"] for r in requests].index("slow_down")
    assert requests[slow + 1]["time"] - requests[slow]["time"] > 5.5, "1 s, and 5 more"


@pytest.mark.parametrize("how, text", [
    ("decline", "declined"), ("expire", "expired"), ("blocked", "AADSTS53003"),
    ("unconsented", "AADSTS70011")])
def test_device_code_fails(lab, how, text):
    delegated(lab)
    lab.tokend.start()
    if how == "expire":
        lab.sim.tenant(laboratory.TENANT, device_seconds=2)
        lab.sim.fault("entra", "fields", value={"expires_in": 60}, times=1)
    if how == "blocked":
        lab.sim.tenant(laboratory.TENANT, block_device_code=True)
    if how == "unconsented":
        lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, delegated=["IMAP.Access"])
    command = Authorize(lab)
    if how == "decline":
        lab.sim.approve(command.user_code(), laboratory.ADDRESS, decline=True)
    assert text in command.end(status=1)
    assert token_status(lab)["state"] == "error"


def test_another_user_signs_in(lab):
    delegated(lab)
    lab.tokend.start()
    said = sign_in(lab, "anna@contoso.com")
    assert "anna@contoso.com signed in, not relay@contoso.com" in said
    assert "FullAccess and SendAs" in said


# -- browser -------------------------------------------------------------------

def test_browser(lab):
    delegated(lab)
    lab.tokend.start()
    command = Authorize(lab, "--browser")
    address = lab.sim.browse(command.url(), laboratory.ADDRESS)
    command.type(address)
    assert "has a token" in command.end()
    assert kinds(lab) == ["authorization_code"]
    assert ask(lab)["status"] == "ok"


def test_browser_with_the_address_of_another(lab):
    delegated(lab)
    lab.tokend.start()
    command = Authorize(lab, "--browser")
    address = lab.sim.browse(command.url(), laboratory.ADDRESS)
    command.type(address.replace("state=", "state=x"))
    assert "not of this sign-in" in command.end(status=1)
    assert kinds(lab) == []


def test_confidential_client_shows_its_secret(lab):
    delegated(lab, secret_file=lab.secret_file)
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, public=False)
    lab.tokend.start()
    sign_in(lab)
    assert lab.sim.state()["entra"]["requests"][-1]["credential"] == "secret"


# -- refresh tokens ------------------------------------------------------------

ROTATION_S = 4      # after a renewal, all the time that a restart or a kill may take


def newest(lab):
    """The refresh token in the vault, as its line has it."""
    return [line for line in procs.read(lab.folder + "/state/tokens/mailbox-relay").splitlines()
            if line.startswith("refresh=")]


def wait_rotated(lab):
    """Until a newer refresh token is on the disk, ROTATION_S before the next: to end tokend
    between Entra's answer and the disk would lose it, and the stand-in then revokes all."""
    before = newest(lab)
    procs.wait_for(lambda: newest(lab) not in ([], before), 30,
                   "a newer refresh token in the vault")


@pytest.mark.slow
def test_refresh_token_rotates(lab):
    """The stand-in revokes all when a replaced one comes back."""
    delegated(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=ROTATION_S)
    lab.tokend.start()
    sign_in(lab)
    for _ in range(2):
        wait_rotated(lab)
    lab.tokend.restart()
    for _ in range(2):
        wait_rotated(lab)
    assert kinds(lab).count("refresh_token") >= 4
    assert all(r["status"] == 200 for r in lab.sim.state()["entra"]["requests"]
               if r["kind"] == "refresh_token")
    mode = os.stat(lab.folder + "/state/tokens/mailbox-relay").st_mode & 0o7777
    assert mode == 0o600


@pytest.mark.slow
def test_refresh_token_dies_and_a_user_mends_it(lab):
    delegated(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=12)
    lab.tokend.start()
    sign_in(lab)
    lab.sim.tenant(laboratory.TENANT, users={laboratory.ADDRESS: {"refuse": 50173}})
    wait_state(lab, "error")
    reason = token_status(lab)["last_error"]["reason"]
    assert "AADSTS50173" in reason
    lab.sim.tenant(laboratory.TENANT, users={}, expires_in=3600)
    sign_in(lab)
    assert token_status(lab)["state"] == "valid"


@pytest.mark.slow
def test_passing_errors_cost_no_refresh_token(lab):
    delegated(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=ROTATION_S)
    lab.tokend.start()
    sign_in(lab)
    lab.sim.fault("entra", "status", status=503, times=2)
    procs.wait_for(lambda: [r["status"] for r in lab.sim.state()["entra"]["requests"]].count(
        503) == 2, 60, "two errors")
    wait_rotated(lab)
    lab.tokend.restart()
    wait_rotated(lab)
    assert token_status(lab)["state"] == "valid"


# -- another program's refresh token ---------------------------------------------

def token_file(lab, mode=0o600, cut=None, **more):
    """As sasl-xoauth2 keeps it."""
    token = lab.sim.refresh_token(laboratory.TENANT, laboratory.CLIENT_ID, laboratory.ADDRESS,
                                  SIGN_IN_SCOPE)
    lab.watch(token, "imported refresh token")
    text = json.dumps({"access_token": "", "expiry": "0", "refresh_token": token,
                       "user": laboratory.ADDRESS, **more}, indent=8)
    return procs.write(lab.folder + "/sasl-xoauth2.token", text[:cut], mode)


def import_file(lab, file, status):
    done = lab.relay365("authorize", "relay", "--import", file, status=status)
    lab.look_around()
    return done.stdout + done.stderr


def test_import(lab):
    delegated(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=ROTATION_S)
    postfix = flow.wire(lab, milter=False)
    file = token_file(lab, client_id=laboratory.CLIENT_ID.upper())
    before = procs.read(file)
    said = import_file(lab, file, status=0)
    assert "has a token of " + laboratory.ADDRESS in said and "Delete " + file in said
    assert procs.read(file) == before
    assert postfix.send(flow.SENDER, ["r@example.net"]).ok
    lab.sim.wait_messages(1)
    # the one that came of it is kept: the imported one, once more, would revoke all
    os.unlink(file)
    wait_rotated(lab)
    lab.tokend.restart()
    wait_rotated(lab)
    assert len(kinds(lab)) >= 3
    assert all(r["status"] == 200 for r in lab.sim.state()["entra"]["requests"])


@pytest.mark.parametrize("how, text, status", [
    ({"mode": 0o644}, "chmod o-rwx,g-w", 78), ({"cut": 400}, "is no JSON object", 78),
    ({"cut": 0}, "is no JSON object", 78), ({"refresh_token": ""}, "holds no refresh_token", 78),
    ({"refresh_token": "a\nverb=reload"}, "holds no refresh_token", 78),
    ({"refresh_token": 17}, "holds no refresh_token", 78),
    ({"client_id": "another"}, "is for another application", 78),
    ({"refresh_token": "1.unknown"}, "client_id must be the one that it was given to", 1)])
def test_import_of_a_bad_file(lab, how, text, status):
    delegated(lab)
    lab.tokend.start()
    assert text in import_file(lab, token_file(lab, **how), status)
    assert kinds(lab) == (["refresh_token"] if status == 1 else [])


def test_import_of_a_revoked_token_leaves_the_kept_one(lab):
    delegated(lab)
    lab.tokend.start()
    import_file(lab, token_file(lab), status=0)
    other = token_file(lab)
    lab.sim.tenant(laboratory.TENANT, users={laboratory.ADDRESS: {"refuse": 50173}})
    assert "AADSTS50173" in import_file(lab, other, status=1)
    assert ask(lab)["status"] == "ok"


def test_import_where_nobody_signs_in(lab):
    lab.configure()
    lab.tokend.start()
    assert "is not delegated" in import_file(lab, token_file(lab), status=78)


# -- the application's other credentials ------------------------------------------

def federated_token(lab, made, **changes):
    token = plain.assertion(made, AUDIENCE, ISSUER, "RS256",
                            **{"sub": SUBJECT, "aud": AUDIENCE, **changes})
    return procs.write(lab.folder + "/federated", token + "\n", 0o600)


def trust(lab, made):
    with open(made["certificate"], encoding="ascii") as f:
        lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, federated=[{
            "issuer": ISSUER, "subject": SUBJECT, "audience": AUDIENCE, "pem": f.read()}])


def test_federated(lab):
    made = lab.sim.credentials("issuer")
    trust(lab, made)
    path = federated_token(lab, made)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=2)
    tenant_with(lab, federated_token_file=path)
    lab.tokend.start()
    assert ask(lab)["status"] == "ok"
    first = procs.read(path)
    federated_token(lab, made, jti="another")
    assert procs.read(path) != first
    procs.wait_for(lambda: len(kinds(lab)) >= 2, 20, "a renewal with the new file")
    assert {r["credential"] for r in lab.sim.state()["entra"]["requests"]} == {"federated"}
    federated_token(lab, made, sub="system:serviceaccount:mail:another")
    lab.tokend.wait_log("token-alarm .*AADSTS700213")


@pytest.mark.parametrize("change, text", [
    ({"sub": "System:serviceaccount:mail:relay"}, "AADSTS700213"),
    ({"iss": ISSUER + "/"}, "AADSTS700211"), ({"aud": "api://azureadtokenexchange"},
                                              "AADSTS700212"),
    ({"exp": int(time.time()) - 4000}, "AADSTS700024")])
def test_federated_refused(lab, change, text):
    made = lab.sim.credentials("issuer")
    trust(lab, made)
    tenant_with(lab, federated_token_file=federated_token(lab, made, **change))
    lab.tokend.start()
    assert text in ask(lab)["reason"]


def managed(lab, **keys):
    lab.sim.set(imds={"tenant": laboratory.TENANT, "client_id": laboratory.CLIENT_ID})
    tenant_with(lab, managed_identity=True, token_endpoint=lab.sim.imds_endpoint, **keys)


def test_managed_identity(lab):
    managed(lab)
    postfix = flow.wire(lab, milter=False)
    assert postfix.send(flow.SENDER, ["r@example.net"]).ok
    lab.sim.wait_messages(1)
    [request] = lab.sim.state()["imds"]
    assert request["query"]["client_id"] == laboratory.CLIENT_ID
    assert request["query"]["resource"] == "https://outlook.office365.com"


def test_managed_identity_of_the_system(lab):
    lab.sim.set(imds={"tenant": laboratory.TENANT, "client_id": laboratory.CLIENT_ID})
    lab.configure(tenants={"contoso": {
        k: v for k, v in relay365_conf.tenant_of(
            lab.sim, laboratory.TENANT, "", managed_identity=True,
            token_endpoint=lab.sim.imds_endpoint).items() if k != "client_id"}})
    lab.tokend.start()
    assert ask(lab)["status"] == "ok"
    assert "client_id" not in lab.sim.state()["imds"][0]["query"]


@pytest.mark.parametrize("status, retried", [
    (404, True), (410, True), (429, True), (400, False)])
@pytest.mark.slow
def test_managed_identity_retries(lab, status, retried):
    managed(lab)
    lab.sim.fault("imds", "status", status=status, times=1)
    lab.tokend.start()
    assert ask(lab)["status"] == "later"
    assert token_status(lab)["last_error"]["permanent"] is not retried
    if retried:
        wait_state(lab, "valid")


# -- certificates ----------------------------------------------------------------

def test_rs256(lab):
    made = lab.sim.credentials("client", tenant=laboratory.TENANT)
    tenant_with(lab, certificate=made["certificate"], private_key=made["private_key"],
                signature="RS256")
    lab.tokend.start()
    assert ask(lab)["status"] == "ok"
    assert lab.sim.state()["entra"]["requests"][0]["assertion"]["alg"] == "RS256"


def encrypted(lab, made, passphrase):
    path = lab.folder + "/encrypted.key"
    subprocess.run(["openssl", "pkey", "-in", made["private_key"], "-aes256", "-passout",
                    "pass:" + passphrase, "-out", path], check=True, capture_output=True)
    os.chmod(path, 0o600)
    return path


def test_encrypted_key(lab):
    made = lab.sim.credentials("client", tenant=laboratory.TENANT)
    passphrase = lab.watch("pAssphr4se " + os.urandom(8).hex(), "passphrase")
    key = encrypted(lab, made, passphrase)
    file = procs.write(lab.folder + "/passphrase", "wrong\n", 0o600)
    tenant_with(lab, certificate=made["certificate"], private_key=key, passphrase_file=file)
    lab.tokend.start()
    assert "that the passphrase in" in ask(lab)["reason"]
    procs.write(file, passphrase + "\n", 0o600)
    assert ask(lab)["status"] == "ok"


def test_passphrase_and_key_from_systemd(lab):
    """As LoadCredentialEncrypted= leaves them: readable by the daemon's user alone."""
    made = lab.sim.credentials("client", tenant=laboratory.TENANT)
    passphrase = lab.watch("pAssphr4se " + os.urandom(8).hex(), "passphrase")
    folder = lab.folder + "/credentials"
    with open(encrypted(lab, made, passphrase), "rb") as key:
        procs.write(folder + "/contoso.key", key.read(), 0o400)
    procs.write(folder + "/contoso.pass", passphrase + "\n", 0o400)
    tenant_with(lab, certificate=made["certificate"], private_key="credential:contoso.key",
                passphrase_file="credential:contoso.pass")
    lab.tokend.start(env={"CREDENTIALS_DIRECTORY": folder})
    assert ask(lab)["status"] == "ok"


def test_encrypted_key_without_passphrase(lab):
    made = lab.sim.credentials("client", tenant=laboratory.TENANT)
    tenant_with(lab, certificate=made["certificate"],
                private_key=encrypted(lab, made, "something"))
    lab.tokend.start()
    assert "set passphrase_file" in ask(lab)["reason"]


def two_certificates(lab, **fate):
    """The first does not count any more at Entra, by fate; the second one, which does."""
    old = lab.sim.credentials("old", tenant=laboratory.TENANT)
    new = lab.sim.credentials("new", tenant=laboratory.TENANT)
    registered = lab.sim.settings()["tenants"][laboratory.TENANT]["clients"][
        laboratory.CLIENT_ID]["certificates"]
    registered[0].update(fate)
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, certificates=registered)
    tenant_with(lab, certificate=old["certificate"], private_key=old["private_key"],
                next_certificate=new["certificate"], next_private_key=new["private_key"])
    return new


@pytest.mark.parametrize("fate", [{"disabled": True}, {"not_after": 1}],
                         ids=["removed", "expired"])
def test_second_certificate_takes_over(lab, fate):
    """The first is refused; no mail waits for an admin."""
    two_certificates(lab, **fate)
    lab.tokend.start()
    assert ask(lab)["status"] == "ok"
    assert [r["status"] for r in lab.sim.state()["entra"]["requests"]] == [401, 200]
    assert token_status(lab)["certificate"] == "next"


def test_change_of_certificates_is_finished(lab):
    """The second becomes the only one: tokens go on being renewed with it."""
    new = two_certificates(lab, disabled=True)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=2)
    lab.tokend.start()
    wait_state(lab, "valid")
    assert token_status(lab)["certificate"] == "next"
    tenant_with(lab, certificate=new["certificate"], private_key=new["private_key"])
    lab.relay365("reload", status=None)
    before = token_status(lab)["requests"]
    # of which the one before the last has ended
    procs.wait_for(lambda: token_status(lab)["requests"] >= before + 2, 20,
                   lambda: "two renewals: %s" % token_status(lab))
    assert "last_error" not in token_status(lab)


def test_too_many_open_files(lab):
    """A fault of the machine that passes: no admin is asked to change anything."""
    two_certificates(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=60, refresh_in=3)
    lab.tokend.start()
    wait_state(lab, "valid")
    _soft, hard = resource.prlimit(lab.tokend.pid, resource.RLIMIT_NOFILE)
    # no new one; a file that the vault closes just now makes no room
    resource.prlimit(lab.tokend.pid, resource.RLIMIT_NOFILE, (3, hard))
    lab.tokend.wait_log("token tenant=contoso result=error")
    resource.prlimit(lab.tokend.pid, resource.RLIMIT_NOFILE, (hard, hard))
    error = token_status(lab)["last_error"]
    assert "Too many open files" in error["reason"] and not error["permanent"]
    procs.wait_for(lambda: "last_error" not in token_status(lab), 20, "a renewal")
    assert token_status(lab)["certificate"] == "first"


def test_credential_of_systemd(lab):
    folder = lab.folder + "/credentials"
    procs.write(folder + "/contoso.secret", lab.secret + "\n", 0o400)
    tenant_with(lab, secret_file="credential:contoso.secret")
    lab.tokend.start(env={"CREDENTIALS_DIRECTORY": folder})
    assert ask(lab)["status"] == "ok"
