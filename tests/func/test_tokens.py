"""One token request, however many wait; renewal in time; no request too many."""

import concurrent.futures
import time

import pytest

import flow
import lab as laboratory
import procs
import relay365_conf
import token_client

pytestmark = pytest.mark.needs_build

CROWD = 50
SOME = 15       # of the crowd's deliveries that must wait at once: TLS takes each its time
ADDRESS = "relay@contoso.com"
# a form that is not percent-encoded would spoil each of these
SECRETS = ["a+b&c=d%zz~", "%41%2B", "a b", "=&client_secret=x", "~~", "+", "ü€"]


def socket_of(lab):
    return lab.folder + "/run/token"


def requests(lab):
    """Token requests that Entra has seen, finished or not."""
    return lab.sim.state()["entra"]["count"].get(flow.relay365_conf_tenant(lab), {}).get("all", 0)


def token_status(lab):
    return flow.status(lab)["tokend"]["tokens"][0]


def wait_for_crowd(lab, n=CROWD):
    procs.wait_for(lambda: token_status(lab)["waiters"] >= n, 20,
                   lambda: "%d waiters: %s" % (n, token_status(lab)))


def roomy(lab, **more):
    """A mailbox through which all of a crowd may send at once."""
    lab.sim.mailbox(ADDRESS, tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    max_connections=100, messages_per_minute=60000)
    lab.configure(mailboxes={"relay": {"connections": 100, "messages_per_minute": 60000,
                                       "recipients_per_message": 10}}, **more)


def lives(lab, seconds, **more):
    lab.sim.tenant(flow.relay365_conf_tenant(lab), expires_in=seconds, **more)


def hold_entra(lab, after=0):
    """Requests are answered when this fault is cleared, and not before; its number."""
    return lab.sim.fault("entra", "delay", seconds=60, after=after)


def crowd(lab):
    return [token_client.Client(socket_of(lab)) for _ in range(CROWD)]


def check_crowd(clients):
    got = token_client.answers(clients)
    assert [a["status"] for a in got] == ["ok"] * CROWD
    assert len({a["token"] for a in got}) == 1
    for client in clients:
        client.close()


def queued_crowd(lab):
    """Postfix with fifty messages in the queue, and nothing that it tries before let_go()."""
    postfix = flow.wire(lab, milter=False, start=False,
                        main={"defer_transports": "relay365-relay"})
    postfix.start()
    send_crowd(postfix)
    postfix.wait_queue(lambda queue: len(queue) == CROWD and
                       {m["queue_name"] for m in queue} == {"deferred"}, 60)
    return postfix


def let_go(postfix):
    postfix.set(defer_transports=None)
    postfix.reload()
    postfix.flush()


def send_crowd(postfix):
    """Fifty messages into the queue, quickly."""
    def share(first):
        return [postfix.send(flow.SENDER, ["r%d@example.net" % n])
                for n in range(first, CROWD, 5)]

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        assert all(s.ok for part in pool.map(share, range(5)) for s in part)


def check_arrived(lab, postfix):
    lab.sim.wait_messages(CROWD, timeout=60)
    postfix.wait_queue_empty()
    assert {d.status for d in postfix.deliveries() if d.text != "deferred transport"} == {"sent"}, \
        "nobody was deferred"


# -- cold ----------------------------------------------------------------------

def test_crowd_at_a_cold_token(lab):
    roomy(lab)
    hold_entra(lab)
    lab.tokend.start()
    clients = crowd(lab)
    wait_for_crowd(lab)
    assert not any(c.answered() for c in clients)
    lab.sim.clear()
    check_crowd(clients)
    assert requests(lab) == 1


def test_deliveries_at_a_cold_token(lab):
    roomy(lab)
    hold_entra(lab)
    postfix = queued_crowd(lab)
    lab.tokend.start()
    let_go(postfix)
    wait_for_crowd(lab, SOME)
    assert lab.sim.messages() == []
    lab.sim.clear()
    check_arrived(lab, postfix)
    assert requests(lab) == 1


def test_crowd_hears_of_one_failure(lab):
    roomy(lab)
    held = hold_entra(lab)
    lab.sim.fault("entra", "aadsts", code=7000215)
    lab.tokend.start()
    clients = crowd(lab)
    wait_for_crowd(lab)
    lab.sim.clear(number=held)
    got = token_client.answers(clients)
    assert {a["status"] for a in got} == {"later"}
    assert all("AADSTS7000215" in a["reason"] and int(a["retry_after"]) >= 1 for a in got)
    assert requests(lab) == 1


# -- expired -------------------------------------------------------------------

def expire(lab):
    """Let the first token end while its renewal hangs."""
    lives(lab, 11)      # renewed after half of that, not given out in its last 5 s
    hold_entra(lab, after=1)
    lab.tokend.start()
    procs.wait_for(lambda: token_status(lab)["state"] == "valid", 10, "the first token")
    lives(lab, 3600)
    procs.wait_for(lambda: token_status(lab)["state"] != "valid", 20, "its end")
    procs.wait_for(lambda: requests(lab) == 2, 10, "one for the token, one renewal under way")


def test_crowd_at_an_expired_token(lab):
    roomy(lab)
    expire(lab)
    clients = crowd(lab)
    wait_for_crowd(lab)
    assert not any(c.answered() for c in clients)
    lab.sim.clear()
    check_crowd(clients)
    assert requests(lab) == 2


def test_deliveries_at_an_expired_token(lab):
    roomy(lab)
    postfix = queued_crowd(lab)
    expire(lab)
    let_go(postfix)
    wait_for_crowd(lab, SOME)
    lab.sim.clear()
    check_arrived(lab, postfix)
    assert requests(lab) == 2


def test_token_that_ends_while_the_machine_sleeps(lab):
    """Everything is late when tokend wakes: the timer and fifty clients at once."""
    roomy(lab)
    lives(lab, 8)
    lab.tokend.start()
    procs.wait_for(lambda: token_status(lab)["state"] == "valid", 10, "the first token")
    end = lab.sim.state()["entra"]["requests"][0]["time"] + 8
    lives(lab, 3600)
    lab.tokend.pause()
    clients = crowd(lab)
    procs.wait_for(lambda: time.time() > end, 20, "the token's end")
    lab.tokend.resume()
    check_crowd(clients)
    assert requests(lab) == 2


# -- renewal -------------------------------------------------------------------

def test_renewed_without_mail(lab):
    roomy(lab)
    lives(lab, 14)      # more than twice the 5 s that a token must have left
    lab.tokend.start()
    procs.wait_for(lambda: token_status(lab)["state"] == "valid", 10, "the first token")
    seen = set()

    def renewed_twice():
        seen.add(token_status(lab)["state"])
        return requests(lab) >= 3

    procs.wait_for(renewed_twice, 30, "two renewals")
    assert seen == {"valid"}, "there was a token all the time"
    times = [r["time"] for r in lab.sim.state()["entra"]["requests"]]
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert all(gap > 5.5 for gap in gaps), gaps
    assert lab.sim.state()["smtp"]["connections"] == 0


def test_renewed_when_entra_says(lab):
    roomy(lab)
    lives(lab, 3600, refresh_in=2)
    lab.tokend.start()
    procs.wait_for(lambda: requests(lab) >= 2, 10, "a renewal after two seconds")
    times = [r["time"] for r in lab.sim.state()["entra"]["requests"]]
    assert 1.5 < times[1] - times[0] < 4


def test_token_too_short_to_be_used(lab):
    """An error with a reason, and no loop."""
    roomy(lab)
    lives(lab, 5)
    lab.tokend.start()
    procs.wait_for(lambda: token_status(lab)["state"] == "error", 10, "the error")
    error = token_status(lab)["last_error"]
    assert "lives 5 s, which is too short" in error["reason"] and not error["permanent"]
    assert "lives 5 s" in token_client.ask(socket_of(lab))["reason"]
    procs.wait_for(lambda: requests(lab) >= 2, 10, "another try")
    times = [r["time"] for r in lab.sim.state()["entra"]["requests"]]
    assert times[1] - times[0] > 4, "after an error that passes"
    lives(lab, 3600)
    lab.relay365("reload", status=None)
    procs.wait_for(lambda: token_status(lab)["state"] == "valid", 20, "a longer one")


def test_valid_token_is_served_during_an_outage(lab):
    roomy(lab)
    lives(lab, 60, refresh_in=3)
    lab.sim.fault("entra", "status", status=503, after=1)
    lab.tokend.start()
    procs.wait_for(lambda: requests(lab) >= 2, 10, "a renewal that fails")
    procs.wait_for(lambda: "last_error" in token_status(lab), 10, "the failure")
    assert token_status(lab)["state"] == "valid"
    assert token_client.ask(socket_of(lab))["status"] == "ok"


def test_boundless_retry_after(lab):
    """As milliseconds no clock holds it: an hour, as for all that is longer."""
    roomy(lab)
    lab.sim.fault("entra", "status", status=429, retry_after="9300000000000000")
    lab.tokend.start()
    procs.wait_for(lambda: "last_error" in token_status(lab), 10, "the failure")
    assert 3500 < token_status(lab)["last_error"]["retry_in_s"] <= 3600


def test_no_request_while_valid(lab):
    roomy(lab)
    postfix = flow.wire(lab, milter=False)
    procs.wait_for(lambda: token_status(lab)["state"] == "valid", 10, "the token")
    tokens = {token_client.ask(socket_of(lab))["token"] for _ in range(CROWD)}
    tokens |= {lab.relay365("token", "relay", secret_output=True).stdout.strip()}
    send_crowd(postfix)
    check_arrived(lab, postfix)
    assert len(tokens) == 1 and requests(lab) == 1


# -- reload --------------------------------------------------------------------

def test_who_waits_gets_the_new_tenants_token(lab):
    """A reload gives the mailbox to another tenant while leases wait for a token."""
    keys = relay365_conf.tenant_of(lab.sim, laboratory.TENANT, laboratory.CLIENT_ID,
                                   lab.secret_file)
    mailbox = {"address": ADDRESS, "default": True, "messages_per_minute": 6000}
    lab.configure(tenants={"old": keys}, mailboxes={"relay": {**mailbox, "tenant": "old"}})
    hold_entra(lab)
    lab.tokend.start()
    clients = [token_client.Client(socket_of(lab)) for _ in range(3)]
    wait_for_crowd(lab, 3)
    lab.configure(tenants={"new": keys}, mailboxes={"relay": {**mailbox, "tenant": "new"}})
    lab.relay365("reload", status=None)
    assert token_status(lab)["tenant"] == "new"
    lab.sim.clear()
    assert [a["status"] for a in token_client.answers(clients)] == ["ok"] * 3


# -- secrets -------------------------------------------------------------------

@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("ending", ["", "\r\n"], ids=["bare", "crlf"])
def test_secret_arrives_as_it_is(lab, secret, ending):
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, secrets=[secret])
    procs.write(lab.secret_file, secret + ending, 0o600)
    lab.configure()
    lab.tokend.start()
    answer = token_client.ask(socket_of(lab))
    assert answer["status"] == "ok", answer
    [request] = lab.sim.state()["entra"]["requests"]
    assert request["body_keys"] == ["grant_type", "client_id", "scope", "client_secret"]
