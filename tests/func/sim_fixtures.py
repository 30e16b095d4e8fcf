"""The stand-in for the tests of itself, and plain requests to it.

Clients here are Python's own smtplib and urllib, so that nothing of relay365
takes part.
"""

import pathlib
import sys

import pytest

SIM = pathlib.Path(__file__).resolve().parent.parent / "sim"
sys.path.insert(0, str(SIM))

import plain  # noqa: E402
from client import Sim  # noqa: E402
from plain import Client  # noqa: E402

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


def assertion(sim, made, alg="PS256", **changes):
    """A form with a client assertion in place of the secret."""
    changes.setdefault("aud", sim.token_endpoint(TENANT))
    return form(client_secret=None, client_assertion_type=plain.ASSERTION,
                client_assertion=plain.assertion(
                    made, changes["aud"], APP, alg, **changes))


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
