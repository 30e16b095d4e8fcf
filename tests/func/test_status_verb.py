"""The token protocol's leases of a known size, and verb=status: what the server answered."""

import pytest

import flow
import letters as letters_module
import procs
import token_client

pytestmark = pytest.mark.needs_build

OK = {"code": 250, "text": "2.0.0 OK <1@contoso> [Hostname=DB1PR01MB0001]"}
FULL = {"code": 554, "text": "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"}


def box(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0]


def started(lab, **keys):
    letters_module.fast(lab, **keys)
    lab.tokend.start()
    return lab.folder + "/run/token"


def wait_box(lab, **wanted):
    procs.wait_for(lambda: wanted.items() <= box(lab).items(), 10,
                   lambda: "%s; it is %s" % (wanted, box(lab)))


def test_reserves_what_the_message_needs(lab):
    """Ten recipients are left: two leases of five fit, and a third only when one is given back."""
    path = started(lab, recipients_per_day=100)
    assert token_client.ask(path, verb="status", **OK, recipients=90) == {"status": "ok"}
    with token_client.Client(path, recipients=5) as a, \
            token_client.Client(path, recipients=5) as b:
        assert a.answer()["status"] == b.answer()["status"] == "ok"
        wait_box(lab, leases=2, reserved=10, delivered=90)
        with token_client.Client(path, recipients=1) as c:
            wait_box(lab, waiting=1)
            a.request("status", **OK, recipients=4)
            assert a.answer() == {"status": "ok"}
            wait_box(lab, waiting=1, delivered=94, reserved=10)
            a.close()
            assert c.answer()["status"] == "ok"
            wait_box(lab, waiting=0, delivered=94, reserved=6)
    wait_box(lab, leases=0, reserved=0)
    told = token_client.ask(path, recipients=7)
    assert told["status"] == "later" and "94 of 100 recipients delivered" in told["reason"]
    told = token_client.ask(path, recipients=101)
    assert told["status"] == "later" and "never fits" in told["reason"]
    assert token_client.ask(path, recipients=6)["status"] == "ok"


def test_counts_what_the_server_took(lab):
    path = started(lab)
    with token_client.Client(path, recipients=3) as client:
        assert client.answer()["status"] == "ok"
        client.request("status", code=550, text="5.1.10 RESOLVER.ADR.RecipientNotFound")
        assert client.answer() == {"status": "ok"}
        client.request("status", **OK, recipients=2)
        assert client.answer() == {"status": "ok"}
        assert box(lab)["delivered"] == 2
    for status in ({"code": 250, "text": ""}, {"code": 250}, {"code": 250, "text": "x" * 20000},
                   {"code": 251, "text": "2.1.0 OK"}):
        assert token_client.ask(path, verb="status", **status, recipients=1) == {"status": "ok"}
    for status in ({"code": 250, "text": "2.1.5 Recipient OK"}, {"code": 354, "text": "go"},
                   {"code": 451, "text": "4.7.0 Temporary server error. Please try again later"},
                   {"code": 550, "text": ""}):
        assert token_client.ask(path, verb="status", **status, recipients=1)["status"] == "ok"
    assert box(lab)["delivered"] == 6


def test_explains_as_the_map_does(lab):
    path = started(lab)
    told = token_client.ask(path, verb="status", **FULL)
    assert told["status"] == "ok"
    assert told["text"].startswith(FULL["text"] + " [relay365: ")
    told = token_client.ask(path, recipients=1)
    assert told["status"] == "later" and "quota is exceeded; next try at" in told["reason"]
    assert int(told["retry_after"]) in range(880, 901)


def test_blocked_account(lab):
    path = started(lab)
    with token_client.Client(path, recipients=1) as client:
        assert client.answer()["status"] == "ok"
        client.request("status", code=550, text="5.1.8 Access denied, bad outbound sender")
        assert "restrictedusers" in client.answer()["text"]
    assert "relay365 unlock relay" in token_client.ask(path)["reason"]


@pytest.mark.parametrize("fields", [
    {}, {**OK, "refused": 1001}, {"code": 25}, {"code": 600}, {"code": 150}, {"code": "2x0"}, {**OK, "recipients": -1},
    {**OK, "recipients": 1001}, {**OK, "recipients": "x"}], ids=str)
def test_not_a_status(lab, fields):
    path = started(lab)
    told = token_client.ask(path, verb="status", **fields)
    assert told["status"] == "denied" and "a status needs" in told["reason"]
    assert box(lab)["delivered"] == 0


def test_not_a_lease(lab):
    path = started(lab)
    assert token_client.ask(path, recipients=1001)["status"] == "denied"
    with token_client.Client(path) as client:
        client.answer()
        client.request("lease")
        assert client.answer() is None, "one lease a connection"


def test_lease_of_an_earlier_tokend(lab):
    """A process with several leases: each is over when its message is told of, not before."""
    path = started(lab, connections=3)
    held = [token_client.Client(path, recipients=n) for n in (5, 7)]
    assert [client.answer()["status"] for client in held] == ["ok", "ok"]
    lab.tokend.kill()
    lab.tokend.start()
    assert (box(lab)["leases"], box(lab)["reserved"]) == (2, 12)
    with token_client.Client(path, recipients=1) as another:
        assert another.answer()["status"] == "ok", "the third connection"
        assert token_client.ask(path, verb="status", **OK, recipients=7) == {"status": "ok"}
        wait_box(lab, leases=2, reserved=6, delivered=7)
        assert token_client.ask(path, verb="status", **OK, recipients=5) == {"status": "ok"}
        wait_box(lab, leases=1, reserved=1, delivered=12)


def test_a_lease_has_a_name(lab):
    """By which its message counts once, and its end is told, on any connection."""
    path = started(lab)
    held = [token_client.Client(path, recipients=n) for n in (5, 7)]
    a, b = [client.answer()["lease"] for client in held]

    def tell(lease, n):
        assert token_client.ask(path, verb="status", **OK, recipients=n, lease=lease) == {
            "status": "ok"}
        return box(lab)["delivered"], box(lab)["leases"], box(lab)["reserved"]

    assert tell(a, 5) == (5, 2, 12)
    assert tell(a, 5) == (5, 2, 12)
    lab.tokend.kill()
    lab.tokend.start()
    assert tell(a, 5) == (5, 2, 12)
    assert tell("0123456789abcdef", 1) == (6, 2, 12)    # nobody knows that it was told before
    assert token_client.ask(path, verb="end", lease=a) == {"status": "ok"}
    wait_box(lab, leases=1, reserved=7)
    assert tell(b, 7) == (13, 1, 7)
    assert token_client.ask(path, verb="end", lease=b) == {"status": "ok"}
    assert token_client.ask(path, verb="end", lease=b) == {"status": "ok"}
    wait_box(lab, leases=0, reserved=0, delivered=13)
    with token_client.Client(path, recipients=3) as client:
        name = client.answer()["lease"]
        client.request("end", lease=name)
        assert client.answer() == {"status": "ok"}
        wait_box(lab, leases=0)
    told = token_client.ask(path, verb="end")
    assert told["status"] == "denied" and "needs the lease" in told["reason"]


def test_a_status_that_nobody_heard_of_counts_by_name(lab):
    """tokend hung; who told it has hung up and tells it again."""
    path = started(lab)
    with token_client.Client(path, recipients=2) as client:
        name = client.answer()["lease"]
        lab.tokend.pause()
        token_client.Client(path, verb="status", **OK, recipients=2, lease=name).close()
        lab.tokend.resume()
        wait_box(lab, delivered=2)
        token_client.ask(path, verb="status", **OK, recipients=2, lease=name)
        assert box(lab)["delivered"] == 2
