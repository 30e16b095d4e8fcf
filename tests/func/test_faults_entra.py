"""Entra ID fails in every way: mail waits, says why, and leaves by itself when it is mended."""

import os
import re
import shutil
import subprocess
import time

import pytest

import flow
import lab as laboratory
import letters as letters_module
import procs
import tenants

pytestmark = pytest.mark.needs_build

FINE = "fine"           # a tenant that has no fault
RETRY_AFTER_S = 8       # more than the first pause of relay365's own, which is 5 s
# tenant -> fault at the stand-in, and what Postfix must say
PASSING = {
    "status503": ({"kind": "status", "status": 503}, "HTTP 503: Entra has a passing fault"),
    "later503": ({"kind": "status", "status": 503, "retry_after": RETRY_AFTER_S},
                 "HTTP 503: Entra has a passing fault"),
    "later429": ({"kind": "status", "status": 429, "retry_after": RETRY_AFTER_S},
                 "HTTP 429: Entra is not available for the moment"),
    "busy90033": ({"kind": "aadsts", "code": 90033}, "AADSTS90033"),
    "garbage": ({"kind": "garbage"}, "HTTP 200 without an answer in JSON"),
    "notoken": ({"kind": "fields", "value": {"access_token": None}}, "no usable access_token"),
    "truncated": ({"kind": "truncated"}, "can't be reached: .*(closed|missing|remaining|eof)"),
    "huge": ({"kind": "huge"}, "larger than 65536 bytes"),
    "redirect": ({"kind": "redirect"}, "a redirect, which is not followed"),
    "reset": ({"kind": "reset"}, "can't be reached"),
    "drop": ({"kind": "drop"}, "can't be reached"),
}
HANGING = {
    "silence": ({"kind": "silence"}, "can't be reached: .*[Tt]imed? ?out"),
    "drip": ({"kind": "drip", "seconds": 0.2}, "can't be reached: .*[Tt]imed? ?out"),
}


def strike(lab, faults):
    for name, (fault, _text) in faults.items():
        lab.sim.fault("entra", tenant=tenants.ident(name), **fault)


def requests(lab, name):
    return [r for r in lab.sim.state()["entra"]["requests"] if r["tenant"] == tenants.ident(name)]


def problems(lab):
    """What `relay365 status` tells people when something is wrong."""
    return lab.relay365("status", status=1).stdout


def send_to_each(letters, names):
    return {n: letters.send(tenants.sender(n)) for n in names}


def check_passing(lab, faults):
    """Each of the faults at a tenant of its own, and one tenant without."""
    tenants.make(lab, [FINE, *faults])
    strike(lab, faults)
    letters = letters_module.started(lab)
    qids = send_to_each(letters, [FINE, *faults])
    letters.wait_arrived([qids[FINE]])
    for name, (_fault, text) in faults.items():
        assert "relay365: no access token" in letters.wait_deferred(qids[name], text).text
    assert [m["mailbox"] for m in lab.sim.messages()] == [tenants.address(FINE)]
    letters.wait_mailq(*(text for _fault, text in faults.values()))
    status = problems(lab)
    for name, (_fault, text) in faults.items():
        assert re.search(name + ".*" + text, status), name
    lab.sim.clear("entra")
    letters.check_arrived()
    assert lab.sim.state()["entra"]["redirect_hits"] == 0
    # nothing is left but the milter, which does not run here
    assert re.search(r"\nProblems\n  relay365-milter does not answer.*\n\Z", problems(lab))


@pytest.mark.slow
def test_passing_faults(lab):
    check_passing(lab, PASSING)
    for name in ("later503", "later429"):
        times = [r["time"] for r in requests(lab, name)]
        assert times[1] - times[0] >= RETRY_AFTER_S - 0.2, name
    for name in PASSING:
        times = [r["time"] for r in requests(lab, name)]
        assert all(b - a > 4 for a, b in zip(times, times[1:])), "nobody was hammered: " + name


@pytest.mark.slow
def test_hanging_endpoint(lab):
    """Entra takes the request and does not answer, or one byte at a time."""
    check_passing(lab, HANGING)


def close_listener(lab):
    lab.sim.listen("entra", open=False, drop=True)
    return lambda: lab.sim.listen("entra", open=True)


def fault(kind, **values):
    def strike_all(lab):
        lab.sim.fault("entra", kind, **values)
        return lambda: lab.sim.clear("entra")
    return strike_all


@pytest.mark.parametrize("break_it, text", [
    (close_listener, r"can't be reached: .*(refused|connect)"),
    (fault("certificate", which="wrong"), r"can't be reached: .*(SSL|certificate)"),
    (fault("certificate", which="expired"), r"can't be reached: .*expired"),
    (fault("certificate", which="untrusted"), r"can't be reached: .*(self.signed|certificate)"),
    (fault("no_tls"), r"can't be reached: .*(SSL|TLS)"),
], ids=["closed", "wrong-name", "expired", "untrusted", "no-tls"])
def test_endpoint_not_there(lab, break_it, text):
    letters_module.fast(lab)
    mend = break_it(lab)
    letters = letters_module.started(lab)
    letters.wait_deferred(letters.send(), text)
    letters.wait_mailq(text)
    assert re.search("contoso.*" + text, problems(lab))
    assert lab.sim.state()["entra"]["requests"] == [], "the secret was shown to nobody"
    mend()
    letters.check_arrived()


# -- what an admin must mend ---------------------------------------------------

def expired_certificate(lab, name):
    """A certificate that ended long ago, and its key: (certificate, private_key)."""
    folder = os.path.join(lab.folder, name + ".ca")
    procs.write(folder + "/index.txt", "")
    procs.write(folder + "/ca.cnf", (
        "[ca]\ndefault_ca=c\n[c]\ndir=.\ndatabase=index.txt\nrand_serial=yes\nnew_certs_dir=.\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
        "[req]\ndistinguished_name=d\n[d]\n"))
    for args in (["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.key",
                  "-config", "ca.cnf", "-subj", "/CN=relay365 old", "-out", "k.csr"],
                 ["ca", "-batch", "-notext", "-config", "ca.cnf", "-selfsign", "-keyfile", "k.key",
                  "-in", "k.csr", "-out", "k.crt", "-startdate", "20200101000000Z",
                  "-enddate", "20200201000000Z"]):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)
    return folder + "/k.crt", folder + "/k.key"


def put_certificate(lab, name, source):
    """Copy a (certificate, private_key) to where the tenant's configuration looks."""
    for path, ending in zip(source, ("crt", "key")):
        target = "%s/%s.%s" % (lab.folder, name, ending)
        shutil.copyfile(path, target + ".new")
        os.chmod(target + ".new", 0o600)
        os.rename(target + ".new", target)


def registered_certificate(lab, name):
    made = lab.sim.credentials("good-" + name, tenants.ident(name), laboratory.CLIENT_ID)
    return made["certificate"], made["private_key"]


def by_certificate(lab, name):
    return {"secret_file": None, "certificate": "%s/%s.crt" % (lab.folder, name),
            "private_key": "%s/%s.key" % (lab.folder, name)}


def set_secrets(lab, name, *secrets):
    lab.sim.client(tenants.ident(name), laboratory.CLIENT_ID, secrets=list(secrets))


def break_certificates(lab):
    """FINE has a good one, unknowncert one that Entra does not know, oldcert one that is over."""
    stranger = lab.sim.credentials("stranger")
    put_certificate(lab, FINE, registered_certificate(lab, FINE))
    put_certificate(lab, "unknowncert", (stranger["certificate"], stranger["private_key"]))
    put_certificate(lab, "oldcert", expired_certificate(lab, "oldcert"))


# tenant -> what must be said: the number, what it means, what to do
CREDENTIALS = {
    "wrongsecret": "AADSTS7000215: the client secret is wrong; copy the Value, not the Secret ID",
    "oldsecret": "AADSTS7000222: the client secret has expired; make a new secret",
    "unknowncert": "AADSTS700027: .*; upload the file that certificate names",
    "oldcert": "the certificate in .*oldcert.crt has expired; make a new one",
    "nosecret": "nosecret.secret is empty; put the client secret's value into it",
}


def break_credentials(lab):
    names = [FINE, *CREDENTIALS]
    tenants.at_sim(lab, names)
    tenants.configure(lab, names, {n: by_certificate(lab, n)
                                   for n in (FINE, "unknowncert", "oldcert")})
    break_certificates(lab)
    tenants.put_secret(lab, "wrongsecret", lab.canary("wrong secret"))
    set_secrets(lab, "oldsecret", {"value": lab.secret, "expires_at": time.time() - 60})
    tenants.put_secret(lab, "nosecret", "")


def mend_credentials(lab):
    """Only files change, as when an admin puts new ones in their place."""
    new = lab.canary("new secret")
    set_secrets(lab, "oldsecret", {"value": lab.secret, "expires_at": time.time() - 60}, new)
    tenants.put_secret(lab, "oldsecret", new)
    for name in ("wrongsecret", "nosecret"):
        tenants.put_secret(lab, name, lab.secret)
    for name in ("unknowncert", "oldcert"):
        put_certificate(lab, name, registered_certificate(lab, name))


def test_credentials(lab):
    """A broken credential defers; a changed file is noticed without a word to tokend."""
    break_credentials(lab)
    letters = letters_module.started(lab)
    qids = send_to_each(letters, [FINE, *CREDENTIALS])
    letters.wait_arrived([qids[FINE]])
    [request] = requests(lab, FINE)
    assert request["assertion"]["alg"] == "PS256"
    for name, text in CREDENTIALS.items():
        letters.wait_deferred(qids[name], text)
    letters.wait_mailq(*CREDENTIALS.values())
    status = problems(lab)
    for name, text in CREDENTIALS.items():
        assert re.search("  %s: .*%s" % (name, text), status), name
        alarms = re.findall("token-alarm.*tenant=" + name, lab.tokend.log())
        assert len(alarms) == 1, "one alarm, however many retries: " + name
        assert len(requests(lab, name)) <= 1, "Entra counts loops: " + name
    mend_credentials(lab)
    letters.check_arrived()


def test_mended_at_entra(lab):
    """Nothing changes here, so that an admin has to say so: relay365 reload."""
    letters_module.fast(lab)
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, disabled=True, secrets=[lab.secret])
    letters = letters_module.started(lab)
    letters.wait_deferred(letters.send(), "AADSTS7000112: the application is disabled; set Enabled for users to sign-in")
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, disabled=False)
    lab.relay365("reload", status=None)
    letters.check_arrived()


# -- outage while there is a token ---------------------------------------------

LIFE_S = 40     # renewed after half of it, not given out in its last 5 s


def token(lab):
    return flow.status(lab)["tokend"]["tokens"][0]


@pytest.mark.slow
def test_token_is_served_to_its_end(lab):
    letters_module.fast(lab)
    lab.sim.tenant(laboratory.TENANT, expires_in=LIFE_S)
    lab.sim.fault("entra", "status", status=503, after=1)
    letters = letters_module.started(lab)
    procs.wait_for(lambda: "last_error" in token(lab), LIFE_S, "a renewal that fails")
    assert token(lab)["state"] == "valid"
    letters.wait_arrived([letters.send()])
    assert "HTTP 503" in problems(lab), "an admin sees it before mail does"
    procs.wait_for(lambda: token(lab)["state"] != "valid", LIFE_S, "the token's end")
    issued = lab.sim.state()["entra"]["requests"][0]["time"]
    assert time.time() - issued > LIFE_S - 6, "it was served to its end"
    letters.wait_deferred(letters.send(), "HTTP 503")
    lab.sim.clear("entra")
    letters.check_arrived()
    assert {d.status for d in lab.postfix.deliveries(letters.qids[0])} == {"sent"}
