"""The stand-in refuses what Microsoft refuses.

Clients here are Python's own smtplib and urllib, so that nothing of relay365
takes part.
"""

import base64
import concurrent.futures
import json
import os
import pathlib
import smtplib
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

SIM = pathlib.Path(__file__).resolve().parent.parent / "sim"
sys.path.insert(0, str(SIM))

import plain  # noqa: E402
from client import Sim, SimError, canary_forms  # noqa: E402
from plain import Client, b64url, blob  # noqa: E402

TENANT = "contoso.onmicrosoft.com"
TID = "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb"
APP = "11111111-2222-3333-4444-555555555555"
SECRET = "S~cret+with/odd=&%chars"
BOX = "relay@contoso.com"
SCOPE = plain.SCOPE
CONFIG = {
    "canary": "CANARYtoken",
    "tenants": {
        TENANT: {"tid": TID, "domains": ["contoso.com", TENANT],
                 "clients": {APP: {"secrets": [SECRET]}}},
        "fabrikam.com": {"clients": {APP: {"secrets": [SECRET]}}}},
    "mailboxes": {
        BOX: {"tenant": TENANT, "send_as": ["*@contoso.com"],
              "hold_seconds": 0},
        "other@fabrikam.com": {"tenant": "fabrikam.com"}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Sim.start(tmp_path_factory.mktemp("sim"), config=CONFIG) as sim:
        yield sim


@pytest.fixture
def sim(server):
    for name in ("entra", "smtp"):
        server.listen(name, open=False, drop=True)
    server.clear()
    server.wait(lambda s: s["smtp"]["open"] == s["entra"]["open"] == 0)
    for name in ("entra", "smtp"):
        server.listen(name)
    server.reset(settings=True)
    return server


# -- Entra --------------------------------------------------------------------

def post(sim, fields, tenant=TENANT, **options):
    return plain.post(sim, fields, tenant, **options)


def form(**changes):
    fields = {"grant_type": "client_credentials", "client_id": APP,
              "client_secret": SECRET, "scope": SCOPE, **changes}
    return {k: v for k, v in fields.items() if v is not None}


def token(sim, **changes):
    status, _headers, body = post(sim, form(**changes))
    assert status == 200, body
    return body["access_token"]


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


def assertion(sim, made, alg="PS256", **changes):
    """A form with a client assertion in place of the secret."""
    changes.setdefault("aud", sim.token_endpoint(TENANT))
    return form(client_secret=None, client_assertion_type=plain.ASSERTION,
                client_assertion=plain.assertion(
                    made, changes["aud"], APP, alg, **changes))


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
    assert len(json.dumps(broken("fields", value={"refresh_in": 9})[2]))
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


# -- Exchange -----------------------------------------------------------------

def xoauth2(client, access_token, user=BOX):
    return client.xoauth2(user, access_token)


def message(sender=BOX, **options):
    return plain.message(sender, **options)


def session(sim, user=BOX, **claims):
    client = Client(sim)
    mine = TENANT if user == BOX else "fabrikam.com"
    code, text = xoauth2(client, sim.mint(mine, APP, **claims), user)
    assert code == 235, text
    return client


def send(client, recipients=("a@example.org",), body=None, sender=BOX):
    """The reply to the message, given command by command."""
    code, text = client.mail(sender)
    if code != 250:
        client.rset()
        return code, text
    for recipient in recipients:
        code, text = client.rcpt(recipient)
        assert code == 250, text
    code, text = client.data(message() if body is None else body)
    return code, text.decode()


def test_ehlo_offers_auth_only_after_tls(sim):
    client = Client(sim, tls=False)
    assert b"Microsoft ESMTP MAIL Service ready" in client.greeting
    assert not client.has_extn("auth") and client.has_extn("starttls")
    for name in ("pipelining", "dsn", "enhancedstatuscodes", "8bitmime",
                 "binarymime", "chunking", "smtputf8"):
        assert client.has_extn(name)
    assert client.esmtp_features["size"] == "157286400"
    assert client.docmd("AUTH", "XOAUTH2")[0] == 504
    code, text = client.mail(BOX)
    assert code == 530 and b"5.7.57" in text
    client.starttls(context=ssl.create_default_context(cafile=sim.ca))
    client.ehlo()
    assert client.esmtp_features["auth"].split() == ["LOGIN", "XOAUTH2"]
    assert not client.has_extn("starttls")
    assert sim.state()["smtp"]["sessions"][-1]["sni"] == "smtp.office365.com"


def test_token_from_entra_opens_the_mailbox(sim):
    access_token = token(sim)
    client = Client(sim)
    code, text = client.docmd("AUTH", "XOAUTH2 " + blob(BOX, access_token))
    assert (code, text) == (235, b"2.7.0 Authentication successful")
    code, text = send(client, ("a@example.org", "b@contoso.com"))
    assert code == 250 and text.startswith("2.0.0 OK <1@contoso.com> [Host")
    client.quit()
    (stored,) = sim.messages()
    assert stored["recipients"] == ["a@example.org", "b@contoso.com"]
    assert stored["mailbox"] == BOX and stored["external"] == 1
    assert sim.body(stored) == message()
    for log in (sim.log("smtp"), sim.log("entra")):
        assert not any(form in log for form in canary_forms("CANARYtoken"))


def test_two_step_with_a_long_token_and_the_line_limit(sim):
    client = Client(sim)
    assert xoauth2(client, sim.mint(TENANT, APP, length=9000))[0] == 235
    client = Client(sim)
    code, text = xoauth2(client, sim.mint(TENANT, APP, length=12000))
    assert (code, text[:5]) == (500, b"5.5.6")
    sim.set(smtp={"strict_line": True})
    assert client.docmd("AUTH", "XOAUTH2 " + "A" * 600)[0] == 500


def test_auth_response_must_be_exact(sim):
    client, good = Client(sim), sim.mint(TENANT, APP)
    for text in ("user=%s\1auth=Bearer %s\1" % (BOX, good),
                 "user=%s\1auth=%s\1\1" % (BOX, good),
                 "n,a=%s,\1auth=Bearer %s\1\1" % (BOX, good)):
        raw = base64.b64encode(text.encode()).decode()
        assert client.docmd("AUTH", "XOAUTH2 " + raw)[0] == 501
    assert client.docmd("AUTH", "XOAUTH2 !!!")[0] == 501
    client.docmd("AUTH", "XOAUTH2")
    assert client.docmd("*")[0] == 535
    assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 504
    client.docmd("AUTH", "LOGIN")
    client.docmd("YQ==")
    code, text = client.docmd("YQ==")
    assert code == 535 and b"basic authentication is disabled" in text


@pytest.mark.parametrize("claims, why", [
    ({"audience": "https://graph.microsoft.com"}, "audience"),
    ({"expires_in": -1}, "expired"),
    ({"roles": []}, "SendAsApp"),
])
def test_bad_tokens_are_refused(sim, claims, why):
    client = Client(sim)
    code, text = xoauth2(client, sim.mint(TENANT, APP, **claims))
    assert code == 535
    assert text.startswith(b"5.7.3 Authentication unsuccessful [")
    assert why in sim.state()["smtp"]["sessions"][-1]["auth"][0]["why"]


def test_altered_foreign_and_revoked_tokens_are_refused(sim):
    client, good = Client(sim), sim.mint(TENANT, APP)
    head, claims, tail = good.split(".")
    text = base64.urlsafe_b64decode(claims + "==").replace(
        b"outlook.office365.com", b"outlook.office365.net")
    altered = ".".join((head, b64url(text), tail))
    assert xoauth2(client, altered)[0] == 535
    assert xoauth2(client, "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA")[0] \
        == 535
    assert xoauth2(client, sim.mint("fabrikam.com", APP))[0] == 535
    assert xoauth2(client, good, "nobody@contoso.com")[0] == 535
    sim.revoke()
    assert xoauth2(client, good)[0] == 535
    assert xoauth2(client, sim.mint(TENANT, APP))[0] == 235


@pytest.mark.parametrize("where, values, text", [
    ("tenant", {"smtp_auth_disabled": True}, "disabled for the Tenant"),
    ("mailbox", {"smtp_auth_disabled": True}, "disabled for the Mailbox"),
    ("mailbox", {"licensed": False}, "5.7.3 "),
    ("mailbox", {"access": []}, "5.7.3 "),
    ("client", {"registered": False}, "5.7.3 "),
])
def test_switches_of_exchange(sim, where, values, text):
    {"tenant": lambda: sim.tenant(TENANT, **values),
     "mailbox": lambda: sim.mailbox(BOX, **values),
     "client": lambda: sim.client(TENANT, APP, **values)}[where]()
    code, reply = xoauth2(Client(sim), sim.mint(TENANT, APP))
    assert code == 535 and text in reply.decode()
    # the mailbox's own switch goes before the organisation's
    if where == "tenant":
        sim.mailbox(BOX, smtp_auth_disabled=False)
        session(sim).quit()


def test_send_as_is_judged_on_the_header(sim):
    sim.mailbox(BOX, send_as=["erp@contoso.com"])
    client = session(sim)
    assert send(client, body=message("erp@contoso.com"))[0] == 250
    assert send(client, sender="elsewhere@example.com")[0] == 250
    code, text = send(client, body=message("boss@contoso.com"))
    assert code == 554
    assert text.startswith("5.2.252 SendAsDenied; relay@contoso.com not "
                           "allowed to send as boss@contoso.com; STOREDRV.")
    code, text = send(client, body=message(
        extra="Sender: boss@contoso.com\r\n"))
    assert text.startswith("5.2.252")
    code, text = send(client, body=b"Subject: no sender\r\n\r\nx\r\n")
    assert code == 550 and text.startswith("5.7.512")
    code, text = send(client, body=message("%s>, B <%s" % (BOX, BOX)))
    assert text.startswith("5.1.20")
    sim.set(smtp={"check_envelope": True})
    assert send(client, sender="x@example.com")[1].startswith("5.7.60")


def test_recipients_per_day_is_exact_and_rolls(sim):
    sim.mailbox(BOX, recipients_per_day=5, window_seconds=3600)
    client = session(sim)
    assert send(client, ["r%d@example.org" % i for i in range(4)])[0] == 250
    code, text = send(client, ["a@example.org", "b@example.org"])
    assert code == 554 and text.startswith(
        "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceeded")
    assert send(client)[0] == 250
    assert send(client)[0] == 554
    sim.set(clock_offset=3601)
    assert send(client)[0] == 250
    use = sim.state()["smtp"]["mailboxes"][BOX]
    assert use["max_recipients_in_window"] == 5
    assert use["recipients"] == 6 and use["refused"] == {"554 5.2.0": 2}


def test_messages_per_minute(sim):
    sim.mailbox(BOX, messages_per_minute=2, minute_seconds=1)
    client = session(sim)
    assert send(client)[0] == send(client)[0] == 250
    code, text = send(client)
    assert code == 421 and text.startswith("4.4.2 Message submission rate")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()
    sim.mailbox(BOX, minute_mode="delay")
    client = session(sim)
    for _i in range(3):
        assert send(client)[0] == 250
    use = sim.state()["smtp"]["mailboxes"][BOX]
    assert use["max_messages_in_minute"] == 2 and use["over_rate"] >= 2
    sim.mailbox(BOX, minute_mode="carry", minute_seconds=3600)
    assert send(client)[0] == 250
    assert sim.messages()[-1]["carried"]


def test_three_submissions_at_once(sim):
    sim.mailbox(BOX, hold_seconds=0.5)
    clients = [session(sim) for _i in range(5)]
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        results = list(pool.map(send, clients))
    codes = sorted(code for code, _text in results)
    assert codes == [250, 250, 250, 432, 432]
    text = next(text for code, text in results if code == 432)
    assert text.startswith("4.3.2 Concurrent connections limit exceeded.")
    use = sim.state()["smtp"]["mailboxes"][BOX]
    assert use["peak_sessions"] == 5
    for client in clients:
        client.quit()
    assert sim.state()["smtp"]["mailboxes"][BOX]["sessions"] == 0


def test_sizes_and_recipient_limits(sim):
    sim.mailbox(BOX, message_size=100000, recipients_per_message=3)
    client = session(sim)
    code, text = client.mail(BOX, ["SIZE=157286401"])
    assert code == 552
    code, text = send(client, body=message(size=200000))
    assert code == 554 and text.startswith("5.2.270")
    four = ["r%d@example.org" % i for i in range(4)]
    code, text = send(client, four)
    assert code == 550 and "RESOLVER.ADR.RecipLimit" in text
    sim.set(smtp={"max_recipients": 3, "header_size": 1000})
    client.mail(BOX)
    replies = [client.rcpt(r) for r in four]
    assert [code for code, _text in replies] == [250, 250, 250, 452]
    assert replies[3][1].startswith(b"4.5.3")
    client.rset()
    code, text = send(client, body=message(extra="X-Long: %s\r\n" % (
        "\r\n ".join(["x" * 70] * 20))))
    assert code == 552 and text.startswith("5.3.4 Header size")
    sim.set(smtp={"same_domain_limit": 2, "max_recipients": 1000})
    client.mail(BOX)
    assert [client.rcpt(r)[0] for r in four] == [250, 250, 452, 452]
    assert client.rcpt("x@example.net")[0] == 250


def test_tenant_limits_and_blocks(sim):
    sim.tenant(TENANT, external_recipients_per_day=1)
    client = session(sim)
    assert send(client, ("a@example.org", "b@contoso.com"))[0] == 250
    assert send(client)[1].startswith("5.7.233")
    assert send(client, ("b@contoso.com",))[0] == 250
    sim.tenant(TENANT, trial=True)
    assert send(client)[1].startswith("5.7.232")
    sim.tenant(TENANT, blocked=True)
    assert send(client)[1].startswith("5.7.705")
    sim.mailbox(BOX, blocked=True)
    assert send(client)[1].startswith("5.1.8")


def test_order_of_commands(sim):
    client = session(sim)
    assert client.docmd("DATA")[0] == 503
    assert client.rcpt("a@example.org")[0] == 503
    assert client.docmd("AUTH", "XOAUTH2")[0] == 503
    assert client.docmd("MAIL", "FROM: <a@b>")[0] == 501
    assert client.docmd("MAIL", "FROM:<a@b> FOO=BAR")[0] == 501
    assert client.mail("")[0] == 250
    assert client.mail(BOX)[0] == 503
    assert client.docmd("DATA")[0] == 503
    assert client.docmd("BOGUS")[0] == 500
    assert client.docmd("STARTTLS")[0] == 503


def test_pipelining_and_a_message_that_is_only_dots(sim):
    client = session(sim)
    rcpts = ["r%d@example.org" % i for i in range(500)]
    client.send("MAIL FROM:<%s>\r\n" % BOX)
    client.send("".join("RCPT TO:<%s>\r\n" % r for r in rcpts))
    client.send("DATA\r\n")
    codes = [client.getreply()[0] for _i in range(502)]
    assert codes == [250] * 501 + [354]
    text = message() + b"\r\n.\r\nMAIL FROM:<x@y>\r\n..\r\n"
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line
                           for line in text.split(b"\r\n"))
    client.send(stuffed + b".\r\nNOOP\r\n")
    assert client.getreply()[0] == 250
    assert client.getreply()[0] == 250
    (stored,) = sim.messages()
    assert sim.body(stored) == text and stored["recipients"] == rcpts
    assert sim.state()["smtp"]["violations"] == []


def test_bare_line_feeds_and_early_talkers_are_noticed(sim):
    client = session(sim)
    client.mail(BOX)
    client.rcpt("a@example.org")
    client.docmd("DATA")
    client.send(message() + b"a\nb\r\n.\r\n")
    code, text = client.getreply()
    assert code == 550 and text.startswith(b"5.6.11")
    client.send("NOOP\nNOOP\r\n")
    assert client.getreply()[0] == 500
    assert client.getreply()[0] == 250
    assert sim.state()["smtp"]["violations"]


def test_bdat(sim):
    client = session(sim)
    client.mail(BOX, ["BODY=BINARYMIME"])
    client.rcpt("a@example.org")
    assert client.docmd("DATA")[0] == 503
    first, second = message() + b"\n.\r\n", b"\0binary"
    client.send(b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (
        len(first), first, len(second), second))
    assert client.getreply()[0] == 250
    assert client.getreply()[0] == 250
    assert sim.body(sim.messages()[0]) == first + second
    client.send(b"BDAT 4 LAST\r\nNOOPNOOP\r\n")
    assert client.getreply()[0] == 503
    assert client.getreply()[0] == 250


def test_fifty_sessions_and_large_messages(sim):
    sim.mailbox(BOX, max_connections=60, messages_per_minute=1000)
    clients = [session(sim) for _i in range(50)]
    body = message(size=5000000)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        small = list(pool.map(send, clients))
        large = list(pool.map(lambda c: send(c, body=body), clients[:4]))
    assert [code for code, _text in small + large] == [250] * 54
    smtp = sim.state()["smtp"]
    assert smtp["authenticated"] == 50 and smtp["messages"] == 54
    assert sim.body(sim.messages()[-1]) == body


@pytest.mark.parametrize("at", ["CONNECT", "EHLO", "STARTTLS", "TLS", "AUTH",
                                "AUTH_RESPONSE", "MAIL", "RCPT", "DATA",
                                "BODY", "EOD", "STORED"])
def test_connection_drops_where_asked(sim, at):
    sim.fault("smtp", "drop", at=at, times=1)
    with pytest.raises((OSError, smtplib.SMTPException)):
        send(session(sim))
    assert len(sim.messages()) == (1 if at == "STORED" else 0)
    assert send(session(sim))[0] == 250


def test_replies_on_demand(sim):
    sim.fault("smtp", "reply", at="RCPT", match="<b@", times=1,
              text="451 4.7.500 Server busy. (S77719)")
    sim.fault("smtp", "reply", at="EOD", after=1, mailbox=BOX,
              text="451 4.7.0 Temporary server error. PRX4")
    client = session(sim)
    assert send(client)[0] == 250
    client.mail(BOX)
    assert client.rcpt("a@example.org")[0] == 250
    assert client.rcpt("b@example.org")[0] == 451
    assert client.data(message())[0] == 451
    sim.clear()
    sim.fault("smtp", "reply", at="MAIL", text="421 4.3.2 Service not active")
    assert client.mail(BOX)[0] == 421
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()


def test_silence_lasts_until_it_is_cleared(sim):
    sim.fault("smtp", "silence", at="MAIL")
    clients = [session(sim), session(sim)]
    for client in clients:
        client.send("MAIL FROM:<%s>\r\n" % BOX)
    sim.wait(lambda s: s["faults"][0]["hits"] == 2)
    assert sim.state()["smtp"]["authenticated"] == 2
    clients.pop().close()               # or until the client leaves
    sim.wait(lambda s: s["smtp"]["authenticated"] == 1)
    sim.clear()
    assert clients[0].sock.recv(1) == b""
    sim.wait(lambda s: s["smtp"]["authenticated"] == 0)


def test_idle_session_is_ended(sim):
    sim.set(smtp={"idle_seconds": 0.2})
    client = session(sim)
    code, text = client.getreply()
    assert code == 421 and text.startswith(b"4.4.2")


def test_auth_faults(sim):
    good = sim.mint(TENANT, APP)
    for reason, text in (("unsuccessful", b"5.7.3 "), ("policy", b"criteria"),
                         ("tenant", b"for the Tenant")):
        number = sim.fault("smtp", "auth_fail", reason=reason)
        code, reply = xoauth2(Client(sim), good)
        assert code == 535 and text in reply
        sim.clear(number=number)
    sim.fault("smtp", "error_challenge", times=1)
    client = Client(sim)
    code, challenge = xoauth2(client, good)
    assert code == 334
    assert json.loads(base64.b64decode(challenge))["status"] == "401"
    assert client.docmd("")[0] == 535
    assert sim.state()["smtp"]["violations"] == []
    sim.fault("smtp", "challenge", times=1)
    code, challenge = client.docmd("AUTH", "XOAUTH2")
    assert code == 334 and base64.b64decode(challenge)
    assert client.docmd(blob(BOX, good))[0] == 235
    sim.fault("smtp", "no_auth")
    client = Client(sim)
    assert not client.has_extn("auth")
    assert client.docmd("AUTH", "XOAUTH2")[0] == 504
    sim.fault("smtp", "no_starttls")
    with pytest.raises(smtplib.SMTPNotSupportedError):
        Client(sim)


@pytest.mark.parametrize("which", ["wrong", "expired", "untrusted"])
def test_bad_certificates_of_exchange(sim, which):
    sim.fault("smtp", "certificate", which=which, times=1)
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(sim)
    Client(sim).quit()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(sim):
    client = Client(sim, tls=False)
    context = ssl.create_default_context(cafile=sim.ca)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        client.starttls(context=context)
    sim.wait(lambda s: s["smtp"]["tls_failed"] == 1)


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
