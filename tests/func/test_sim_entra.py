"""The stand-in's token endpoint refuses what Entra refuses; its interface."""

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pytest

from sim_fixtures import (  # noqa: F401
    APP, BOX, SCOPE, SECRET, SIM, TENANT, TID, assertion, form, post,
    server, session, sim, token, xoauth2)
from client import Sim, SimError
from plain import Client


def refused(sim, number, fields, tenant=TENANT, **options):
    """Assert that the request is refused with this AADSTS number."""
    status, _headers, body = post(sim, fields, tenant, **options)
    assert body["error_codes"] == [number], body
    assert body["error_description"].startswith("AADSTS%d: " % number)
    assert "Trace ID: " in body["error_description"]
    for key in ("error", "timestamp", "trace_id", "correlation_id",
                "error_uri"):
        assert body[key]
    return status, body


def test_secret_gives_a_token_shaped_like_a_jwt(sim):
    status, headers, body = post(sim, form())
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert body["token_type"] == "Bearer" and body["expires_in"] == 3600
    head, claims, tail = body["access_token"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert claims["aud"] == "https://outlook.office365.com"
    assert claims["appid"] == APP and claims["tid"] == TID
    assert len(body["access_token"]) == 2500
    assert "CANARYtoken" in tail
    seen = sim.state()["entra"]["requests"][-1]
    assert seen["body_keys"] == ["grant_type", "client_id", "client_secret",
                                 "scope"]
    assert SECRET not in json.dumps(sim.state())


@pytest.mark.parametrize("number, status, changes", [
    (7000215, 401, {"client_secret": "wrong"}),
    (700016, 400, {"client_id": str(uuid.uuid4())}),
    (900144, 400, {"grant_type": None}),
    (900144, 400, {"client_id": None}),
    (900144, 400, {"scope": None}),
    (7000218, 401, {"client_secret": None}),
    (1002012, 400, {"scope": "https://outlook.office.com/SMTP.Send"}),
    (70011, 400, {"scope": SCOPE + " offline_access"}),
    (500011, 400, {"scope": "https://example.com/.default"}),
    (70003, 400, {"grant_type": "password"}),
])
def test_wrong_request_is_refused(sim, number, status, changes):
    assert refused(sim, number, form(**changes))[0] == status


def test_tenant_must_exist(sim):
    refused(sim, 90002, form(), tenant="nobody.onmicrosoft.com")
    refused(sim, 900023, form(), tenant="no_tenant")
    refused(sim, 9001023, form(), tenant="common")
    assert post(sim, form(), tenant=TID)[0] == 200
    assert post(sim, form(), tenant="contoso.com")[0] == 200


def test_secret_expiry_and_switches(sim):
    sim.client(TENANT, APP, secrets=[{"value": SECRET, "expires_at": 1}])
    refused(sim, 7000222, form())
    sim.client(TENANT, APP, secrets=[{"value": SECRET, "disabled": True}])
    refused(sim, 7000215, form())
    sim.client(TENANT, APP, secrets=[SECRET], disabled=True)
    refused(sim, 7000112, form())


def test_body_must_be_a_well_encoded_form(sim):
    raw = urllib.parse.urlencode(form())
    json_type = {"Content-Type": "application/json"}
    refused(sim, 900144, form(), headers=json_type)
    refused(sim, 9002014, raw.replace("%7E", "~").replace(
        "S~cret", "S%cret").encode())
    refused(sim, 9000411, (raw + "&client_id=x").encode())
    # a secret pasted without encoding: + is a blank, & ends it
    plain = "grant_type=client_credentials&client_id=%s&scope=%s" % (
        APP, SCOPE)
    sim.client(TENANT, APP, secrets=["a+b"])
    refused(sim, 7000215, (plain + "&client_secret=a+b").encode())
    assert post(sim, (plain + "&client_secret=a%2Bb").encode())[0] == 200


@pytest.mark.parametrize("alg", ["PS256", "RS256"])
def test_certificate_gives_a_token(sim, alg):
    made = sim.credentials("app", TENANT, APP)
    assert post(sim, assertion(sim, made, alg))[0] == 200
    # the public name of the endpoint is as good as the address
    aud = "https://login.microsoftonline.com/%s/oauth2/v2.0/token"
    assert post(sim, assertion(sim, made, alg, aud=aud % TENANT))[0] == 200
    assert post(sim, assertion(sim, made, alg, aud=aud % TID))[0] == 200


def test_assertion_is_checked(sim):
    made = sim.credentials("app", TENANT, APP)
    other = sim.credentials("other")
    now = int(time.time())

    def bad(number, *args, **changes):
        refused(sim, number, assertion(sim, made, *args, **changes))

    bad(700027, key=other["private_key"])
    bad(700027, salt="20")
    bad(700027, header={"x5t#S256": other["x5t#S256"]})
    bad(700027, header={"x5t#S256": None, "x5t": made["x5t"]})
    bad(700027, header={"alg": "none"})
    bad(700023, aud="https://login.microsoftonline.com/other"
        "/oauth2/v2.0/token")
    bad(700023, aud=sim.token_endpoint(TENANT) + "/")
    bad(700021, iss=str(uuid.uuid4()))
    bad(700022, sub=None)
    bad(700024, nbf=now - 4000, exp=now - 400)
    bad(700024, nbf=now + 400, exp=now + 900)
    bad(700024, exp=now + 3601, nbf=now)
    bad(50027, exp=str(now + 600))
    bad(50027, jti=None)
    again = assertion(sim, made)
    assert post(sim, again)[0] == 200
    refused(sim, 50013, again)
    refused(sim, 900144, {**again, "client_assertion_type": ""})
    refused(sim, 50027, {**again, "client_assertion": "a.b"})


def test_certificate_out_of_its_validity_is_refused(sim):
    made = sim.credentials("app")
    sim.client(TENANT, APP, certificates=[
        {"pem": made["pem"], "not_after": 1000}])
    _status, body = refused(sim, 700027, assertion(sim, made))
    assert "expired" in body["error_description"]


def test_status_faults_last_as_long_as_asked(sim):
    sim.fault("entra", "status", status=429, retry_after=7, times=1)
    sim.fault("entra", "status", status=503, retry_after_date=60, times=1)
    status, headers, _body = post(sim, form())
    assert (status, headers["Retry-After"]) == (429, "7")
    status, headers, _body = post(sim, form())
    assert status == 503 and headers["Retry-After"].endswith(" GMT")
    assert post(sim, form())[0] == 200
    assert sim.state()["entra"]["count"][TENANT]["failed"] == 2


def test_faults_can_be_bound_to_a_tenant(sim):
    number = sim.fault("entra", "aadsts", code=53003, tenant="fabrikam.com")
    assert post(sim, form())[0] == 200
    refused(sim, 53003, form(), tenant="fabrikam.com")
    assert sim.clear(number=number) == 1
    assert post(sim, form(), tenant="fabrikam.com")[0] == 200


def test_answers_go_wrong_on_demand(sim):
    def broken(kind, **values):
        sim.clear()
        sim.fault("entra", kind, **values)
        return post(sim, form(), timeout=5)

    assert isinstance(broken("expires_in")[2]["expires_in"], str)
    assert "expires_in" not in broken("expires_in", value=None)[2]
    assert broken("token", value="a\nb")[2]["access_token"] == "a\nb"
    assert b"<html>" in broken("garbage")[2]
    assert broken("redirect")[0] == 302
    assert broken("fields", value={"refresh_in": 9})[2]["refresh_in"] == 9
    with pytest.raises(Exception, match="IncompleteRead"):
        broken("truncated")
    for kind in ("reset", "drop"):
        with pytest.raises(OSError):
            broken(kind)
    sim.clear()
    sim.fault("entra", "silence")
    with pytest.raises(OSError):
        post(sim, form(), timeout=0.2)
    sim.clear()
    sim.wait(lambda s: s["entra"]["in_flight"] == 0)
    assert sim.state()["entra"]["redirect_hits"] == 0


def test_slow_and_huge_answers(sim):
    sim.fault("entra", "drip", seconds=0, times=1)
    assert post(sim, form())[2]["expires_in"] == 3600
    sim.fault("entra", "huge", bytes=3000000, times=1)
    request = urllib.request.Request(
        sim.token_endpoint(TENANT), urllib.parse.urlencode(form()).encode())
    context = ssl.create_default_context(cafile=sim.ca)
    with urllib.request.urlopen(request, context=context) as answer:
        assert len(answer.read()) > 3000000
    sim.fault("entra", "delay", seconds=0.3, times=1)
    start = time.monotonic()
    assert post(sim, form())[0] == 200
    assert time.monotonic() - start >= 0.3
    sim.fault("entra", "no_tls", times=1)
    with pytest.raises(urllib.error.URLError, match="SSL"):
        post(sim, form())


def test_reset_is_a_reset(sim):
    sim.fault("entra", "reset", times=1)
    with pytest.raises(ConnectionResetError):
        post(sim, form())
    sim.fault("smtp", "drop", at="MAIL", reset=True, times=1)
    client = session(sim)
    client.send("MAIL FROM:<%s>\r\n" % BOX)
    with pytest.raises(ConnectionResetError):
        socket.socket.recv(client.sock, 1)      # ssl would hide it


def test_basic_header_is_a_credential_too(sim):
    pair = "%s:%s" % (APP, urllib.parse.quote(SECRET, safe=""))
    header = {"Authorization": "Basic " + base64.b64encode(
        pair.encode()).decode()}
    fields = form(client_id=None, client_secret=None)
    assert post(sim, fields, headers=header)[0] == 200
    assert header["Authorization"] not in json.dumps(sim.state())


@pytest.mark.parametrize("which", ["wrong", "expired", "untrusted"])
def test_bad_certificates_of_entra(sim, which):
    sim.fault("entra", "certificate", which=which)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY"):
        post(sim, form())


def test_listener_closes_and_opens_again(sim):
    for server, address in (("entra", (sim.entra_address, sim.entra_port)),
                            ("smtp", (sim.smtp_address, sim.smtp_port))):
        sim.listen(server, open=False)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        sim.listen(server)
        socket.create_connection(address).close()


def test_a_request_loop_is_noticed(sim):
    sim.set(entra={"loop_requests": 2})
    token(sim)
    token(sim)
    refused(sim, 50196, form())


# -- the interface ------------------------------------------------------------

def test_misspelt_settings_are_errors(sim):
    for values in ({"mailbox": {}}, {"mailboxes": {BOX: {"licenced": True}}},
                   {"smtp": {"sise": 1}}, {"tenants": {TENANT: {"x": 1}}}):
        with pytest.raises(SimError, match="unknown"):
            sim.set(**values)
    with pytest.raises(SimError, match="no such fault"):
        sim.fault("smtp", "explode")
    with pytest.raises(SimError, match="at is one of"):
        sim.fault("smtp", "drop", at="Mail")
    with pytest.raises(SimError, match="must be given"):
        sim.fault("smtp", "reply", at="MAIL")


def test_restart_keeps_ports_settings_and_tokens(tmp_path):
    deep = tmp_path / ("d" * 120)       # longer than a socket's name may be
    with Sim.start(deep) as sim:
        good = sim.mint(TENANT, APP)
        sim.mailbox(BOX, hold_seconds=0.25)
        before = (sim.smtp_port, sim.entra_port, sim.pid)
        sim.restart()
        assert (sim.smtp_port, sim.entra_port) == before[:2]
        assert sim.pid != before[2]
        assert sim.settings()["mailboxes"][BOX]["hold_seconds"] == 0.25
        assert xoauth2(Client(sim), good)[0] == 235


def test_command_line(tmp_path):
    with Sim.start(tmp_path / "sim") as sim:
        def run(*args):
            return subprocess.run([sys.executable, SIM, *args],
                                  stdout=subprocess.PIPE)

        done = run("ctl", sim.dir, '{"op": "ping"}')
        assert done.returncode == 0
        assert json.loads(done.stdout) == {"ok": True, "pid": sim.pid}
        assert run("ctl", sim.dir, '{"op": "nonsense"}').returncode == 1
        done = run("credentials", sim.dir, "--name", "gw", "--tenant", TENANT)
        made = json.loads(done.stdout)
        assert os.stat(made["private_key"]).st_mode & 0o77 == 0
        assert post(sim, assertion(sim, made))[0] == 200
        sim.stop()
        assert not os.path.exists(os.path.join(sim.dir, "sim.json"))
