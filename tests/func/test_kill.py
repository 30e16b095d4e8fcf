"""kill -9 at any moment: nothing that was accepted is missing from the ledgers."""

import concurrent.futures
import contextlib
import itertools
import random
import smtplib
import socket
import sqlite3
import threading
import time

import pytest

import flow
import milter_client
import procs
import token_client

pytestmark = pytest.mark.needs_build

ADDRESS = "relay@contoso.com"
DIRECT_ROUNDS = 50
POSTFIX_ROUNDS = 10
TOKEND_ROUNDS = 25
CLIENTS = 6


class Load:
    """Clients that send until they are told to stop, counting what came of it.

    one(rng, open_r): sends one message; its number of recipients if it was
    accepted, 0 if it was refused. While nobody knows, open_r[0] is their number.
    """

    def __init__(self, one, errors):
        self.one, self.errors = one, errors
        self.accepted = self.unknown = 0
        self.error = None       # what no kill explains
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    def client(self, seed):
        try:
            self._client(random.Random(seed))
        except Exception as e:
            self.error = e
            raise

    def _client(self, rng):
        while not self.stopping.is_set():
            doubt = [0]
            taken = 0
            with contextlib.suppress(*self.errors):
                taken = self.one(rng, doubt)
                doubt[0] = 0
            with self.lock:
                self.accepted += taken
                self.unknown += doubt[0]
            if doubt[0]:
                return

    @contextlib.contextmanager
    def running(self, seed):
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            jobs = [pool.submit(self.client, seed * 100 + i) for i in range(CLIENTS)]
            try:
                yield
            finally:
                self.stopping.set()
        for job in jobs:
            job.result()


def wait_some(load, n):
    """Until about that many recipients have been accepted: where to strike."""
    procs.wait_for(lambda: load.error or load.accepted >= n, 20,
                   lambda: "%d of %d" % (load.accepted, n))


def ledger(path):
    """Name of the counter -> what it has, as any program may read it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(db.execute("SELECT name, sum(n) FROM counter JOIN bucket ON counter = id "
                               "GROUP BY name").fetchall())


# -- the milter ----------------------------------------------------------------

def milter_use(lab):
    """What it says of itself: used, and nothing reserved."""
    row = flow.status(lab)["milter"]["mailboxes"][0]
    assert row["reserved"] == 0
    return row["used"]


def configure(lab):
    lab.sim.mailbox(ADDRESS, tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    messages_per_minute=60000, recipients_per_day=1000000)
    lab.configure(mailboxes={"relay": {"recipients_per_day": 1000000, "connections": 3,
                                       "messages_per_minute": 60000}})


def round_of_milter(lab, load, seed, before):
    """Strike it under load. What it has counted when it is up again, which is checked."""
    rng = random.Random(seed)
    with load.running(seed):
        wait_some(load, rng.randrange(1, 60))
        lab.milter.kill()
        load.stopping.set()
    ledger(lab.folder + "/mstate/ledger.db")
    lab.milter.start()
    after = milter_use(lab)
    assert load.accepted <= after - before <= load.accepted + load.unknown, \
        "seed %d: %d accepted, %d in doubt, %d counted" % (
            seed, load.accepted, load.unknown, after - before)
    return after


def direct(path):
    """One message over a connection of its own, by the milter protocol."""
    numbers = itertools.count()

    def one(rng, doubt):
        with milter_client.Client(path) as client:
            for _ in range(rng.randrange(1, 4)):
                n = rng.randrange(1, 6)
                client.mail(flow.SENDER)
                for i in range(n):
                    assert client.rcpt("r%d@example.net" % i)
                if rng.random() < 0.2:
                    client.abort()
                    continue
                doubt[0] = n
                return n if client.end("4Q%d" % next(numbers)) else 0
        return 0

    return one


@pytest.mark.milter
def test_milter_direct(lab):
    configure(lab)
    lab.milter.start()
    used, in_doubt, total = 0, 0, 0
    for seed in range(DIRECT_ROUNDS):
        load = Load(direct(lab.queue_dir + "/relay365m/milter"),
                    (milter_client.Gone, OSError))
        used = round_of_milter(lab, load, seed, used)
        in_doubt += load.unknown
        total += load.accepted
    assert total > 10 * DIRECT_ROUNDS
    assert in_doubt > 0, "no round struck between the charge and the reply"
    lab.milter.stop()
    assert ledger(lab.folder + "/mstate/ledger.db")["recipients_per_day/" + ADDRESS] == used


def through(postfix):
    def one(rng, doubt):
        n = rng.randrange(1, 6)
        with postfix.smtp(20) as smtp:
            smtp.mail(flow.SENDER)
            if [smtp.rcpt(r)[0] for r in flow.numbers(n)] != [250] * n:
                return 0
            doubt[0] = n
            code, _text = smtp.data(b"From: <erp@contoso.com>\r\n\r\n")
            if code != 250:         # Postfix says so when the milter is gone
                raise smtplib.SMTPServerDisconnected(str(code))
            return n

    return one


def queued(postfix, least):
    """Recipients in the queue, when all are seen: while a message moves from one
    queue to the next, a listing may have it twice or not at all."""
    def look(listing):
        messages = {m["queue_id"]: len(m["recipients"]) for m in listing}
        return sum(messages.values()) >= least and messages

    return sum(postfix.wait_queue(look, 20, "%d recipients" % least).values())


@pytest.mark.milter
def test_milter_through_postfix(lab):
    configure(lab)
    postfix = flow.wire(lab, start=False, main={
        "defer_transports": "relay365-relay", "smtpd_error_sleep_time": "0"})
    lab.milter.start()
    postfix.start()
    used, total = 0, 0
    for seed in range(POSTFIX_ROUNDS):
        load = Load(through(postfix), (smtplib.SMTPException, OSError))
        used = round_of_milter(lab, load, seed, used)
        total += load.accepted
    assert total <= queued(postfix, total) <= used, "what is queued was counted"


# -- tokend --------------------------------------------------------------------

def fill_queue(postfix, n):
    """n messages of five recipients each."""
    for i in range(n):
        assert postfix.send("s%d@contoso.com" % i, flow.numbers(5)).ok


def at_exchange(lab):
    return lab.sim.state()["smtp"]["mailboxes"].get(ADDRESS, {}).get("recipients", 0)


def test_tokend(lab):
    """What Exchange took is in the ledger, but for what was on its way when it died."""
    configure(lab)
    # an idle smtp(8) counts as sending until it ends, if its session outlived tokend
    postfix = flow.wire(lab, milter=False, main={"max_idle": "1s"})
    in_flight = 3 * 5       # connections times recipients of a message
    rng = random.Random(365)
    counted = 0
    for _ in range(TOKEND_ROUNDS):
        known = counted
        before = at_exchange(lab)
        fill_queue(postfix, 8)
        some = before + rng.randrange(1, 30)
        procs.wait_for(lambda least=some: at_exchange(lab) >= least, 60, "deliveries")
        lab.tokend.kill()
        ledger(lab.folder + "/state/delivered.db")
        lab.tokend.start()
        postfix.flush()
        postfix.wait_queue_empty()
        took = at_exchange(lab)
        counted = flow.status(lab)["tokend"]["mailboxes"][0]["delivered"]
        assert abs((counted - known) - (took - before)) <= in_flight
    assert took == TOKEND_ROUNDS * 8 * 5
    assert {d.status for d in postfix.deliveries()} <= {"sent", "deferred"}
    lab.tokend.stop()
    assert ledger(lab.folder + "/state/delivered.db")[ADDRESS] == counted


def tell_map(lab, status):
    """What smtp(8) asks when a recipient has been dealt with; the answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(lab.queue_dir + "/relay365/map")
        text = b"status/relay " + status
        sock.sendall(b"%d:%s," % (len(text), text))
        return sock.recv(1000)


@pytest.mark.parametrize("status, ends", [(b"2.0.0 (250 2.0.0 OK)", True),
                                          (b"5.1.1 (550 5.1.1 unknown)", False)])
def test_lease_that_outlives_tokend(lab, status, ends):
    """It keeps its slot until its message is delivered, however long its process idles."""
    configure(lab)
    lab.tokend.start()
    with token_client.Client(lab.folder + "/run/token") as client:
        assert client.answer()["status"] == "ok"
        lab.tokend.kill()
        lab.tokend.start()
        assert leases(lab) == 1
        told = time.monotonic()
        tell_map(lab, status)
        assert leases(lab) == 1 or time.monotonic() > told + 2, "its other recipients may follow"
        if ends:
            procs.wait_for(lambda: leases(lab) == 0, 30, "the end of the lease")
        else:
            with pytest.raises(procs.Timeout):
                procs.wait_for(lambda: leases(lab) == 0, 6, "the end of the lease")


def leases(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0]["leases"]
