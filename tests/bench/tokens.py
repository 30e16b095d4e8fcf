"""What tokend is asked to hold, measured: one line a bar, exit status 1 if one is missed.

usage: RELAY365_BUILD=FOLDER python3 tests/bench/tokens.py [--first-served] [NAME...]

NAME is one of cached, crowd, thousand, slow_tenant and stalled_disk. Latencies
are medians of several runs, of processes that run as any other does; behind
each stands how much of a core the rest of the machine used meanwhile. Where a
bar says "on one core" the server's CPU time counts as well. With --first-served
server and load have real-time priority: what is left is their own latency, on a
machine that has other work too.
"""

import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TREE / "tests" / "func")]

import flow  # noqa: E402
import lab as laboratory  # noqa: E402
import procs  # noqa: E402
import relay365_conf  # noqa: E402
import tenants  # noqa: E402

SIGN_IN_SCOPE = "https://outlook.office.com/SMTP.Send offline_access"
TOOLS = tempfile.mkdtemp(prefix="relay365-bench-")
RUNS = 7
# As many slots as there are clients, and nothing that makes one wait.
FREE = {"messages_per_minute": 0, "connections": 100, "recipients_per_day": 1000000}
TICKS = os.sysconf("SC_CLK_TCK")
MISSED = []
FIRST_SERVED = "--first-served" in sys.argv


def build():
    here = TREE / "tests" / "bench"
    subprocess.run(["cc", "-O2", "-o", TOOLS + "/load", here / "token_load.c"], check=True)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", TOOLS + "/slow_disk.so",
                    here / "slow_disk.c", "-ldl"], check=True)


def start_load(path, verb, clients, seconds, *names):
    first = ["chrt", "-f", "10"] if FIRST_SERVED else []
    return subprocess.Popen([*first, TOOLS + "/load", path, verb, str(clients),
                             str(seconds), *names], stdout=subprocess.PIPE, text=True)


def finish(process):
    out = process.communicate(timeout=180)[0]
    assert process.returncode == 0, "token_load failed"
    return json.loads(out)


def cpu_s(pid, children=False):
    fields = procs.read("/proc/%d/stat" % pid).rpartition(")")[2].split()
    return sum(map(int, fields[11:15 if children else 13])) / TICKS


def others_s(lab):
    """CPU time of all processes, and of their children that ended, but for tokend and us."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) not in (lab.tokend.pid, os.getpid()):
            with contextlib.suppress(OSError):
                total += cpu_s(int(pid), children=True)
    return total


class Runs:
    """Several runs of the same load: their medians, and what else went on."""

    def __init__(self, lab, path, verb, clients, *names, runs=RUNS):
        if FIRST_SERVED:
            subprocess.run(["chrt", "-f", "-a", "-p", "10", str(lab.tokend.pid)], check=True)
        others, cpu, begin = others_s(lab), cpu_s(lab.tokend.pid), time.monotonic()
        self.runs = [finish(start_load(path, verb, clients, 1, *names)) for _ in range(runs)]
        assert all(run["bad"] == 0 for run in self.runs), self.runs
        self.server_s = cpu_s(lab.tokend.pid) - cpu
        self.others = (others_s(lab) - others) / (time.monotonic() - begin)

    def median(self, key):
        return statistics.median(run[key] for run in self.runs)

    def p99_ms(self):
        return self.median("p99_us") / 1000

    def count(self):
        return sum(run["count"] for run in self.runs)


def bar(what, value, unit, limit, at_least=False, runs=None):
    good = value >= limit if at_least else value <= limit
    if not good:
        MISSED.append(what)
    others = "" if runs is None else "; others: %.0f %% of a core" % (100 * runs.others)
    print("%-6s %-58s %10.2f %s (bar: %s %g%s)" % (
        "ok" if good else "MISSED", what, value, unit, "at least" if at_least else "at most",
        limit, others), flush=True)


def requests(lab):
    return lab.sim.state()["entra"]["requests"]


def states(lab):
    return [t["state"] for t in flow.status(lab)["tokend"]["tokens"]]


def wait_valid(lab, timeout=60):
    procs.wait_for(lambda: set(states(lab)) == {"valid"}, timeout, "tokens")


def cached(lab):
    lab.configure(mailboxes={"relay": FREE})
    lab.tokend.start()
    wait_valid(lab)
    path = lab.folder + "/run/token"
    full = Runs(lab, path, "lease", 64, laboratory.ADDRESS)
    bar("leases of 64 clients as fast as they can", full.median("rate"), "/s", 20000, True, full)
    bar("leases a second of the server's CPU time", full.count() / full.server_s, "/s", 20000,
        True)
    print("       as fast as they can: p50 %.2f ms, p99 %.2f ms" % (
        full.median("p50_us") / 1000, full.p99_ms()))
    paced = Runs(lab, path, "lease", "64@20000", laboratory.ADDRESS)
    bar("64 clients, 20,000 leases a second: p99", paced.p99_ms(), "ms", 1, runs=paced)
    bar("64 clients, 20,000 leases a second: granted", paced.median("rate"), "/s", 19900, True)
    bar("HTTP requests for all of them", len(requests(lab)), "", 1)


def crowd(lab):
    """A thousand leases of ten mailboxes, which have one token, that has just ended."""
    names = ["m%d" % n for n in range(10)]
    addresses = ["%s@contoso.com" % name for name in names]
    lab.configure(mailboxes={name: {"address": address, **FREE}
                             for name, address in zip(names, addresses)})
    lab.sim.tenant(laboratory.TENANT, expires_in=11)
    lab.sim.fault("entra", "delay", seconds=120, after=1)
    lab.tokend.start()
    wait_valid(lab)
    procs.wait_for(lambda: states(lab)[0] != "valid", 30, "the token's end")
    lab.sim.tenant(laboratory.TENANT, expires_in=3600)
    many = start_load(lab.folder + "/run/token", "crowd", 1000, 0, *addresses)
    procs.wait_for(lambda: flow.status(lab)["tokend"]["tokens"][0]["waiters"] >= 1000, 30,
                   "a thousand waiters")
    lab.sim.clear()
    answers = finish(many)
    assert (answers["count"], answers["bad"]) == (1000, 0)
    renewals = requests(lab)[1:]
    bar("1,000 clients at expiry: requests", len(renewals), "", 1)
    answered = renewals[0]["time"] + renewals[0]["took_ms"] / 1000
    bar("1,000 clients at expiry: the last lease after the answer",
        (answers["last_at"] - answered) * 1000, "ms", 50)


def thousand(lab):
    number = 1000
    addresses = ["m%d@contoso.com" % n for n in range(number)]
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, public=True,
                   delegated=["SMTP.Send"])
    endpoint = lab.sim.token_endpoint(laboratory.TENANT)
    lab.configure(
        tenants={"contoso": relay365_conf.tenant_of(
            lab.sim, laboratory.TENANT, laboratory.CLIENT_ID, delegated=True,
            scope=SIGN_IN_SCOPE, device_endpoint=endpoint.replace("/token", "/devicecode"))},
        mailboxes={"m%d" % n: {"address": a} for n, a in enumerate(addresses)})
    os.makedirs(lab.folder + "/state/tokens", mode=0o700)
    for n, address in enumerate(addresses):
        token = lab.sim.ask("refresh_token", tenant=laboratory.TENANT,
                            client_id=laboratory.CLIENT_ID, user=address,
                            scope=SIGN_IN_SCOPE)["token"]
        procs.write(lab.folder + "/state/tokens/mailbox-m%d" % n,
                    "relay365=1\nowner=%s %s %s %s\nrefreshed=%d\nrefresh=%s\n\n" % (
                        laboratory.CLIENT_ID, endpoint, SIGN_IN_SCOPE, address, time.time(),
                        token), 0o600)
    lab.sim.tenant(laboratory.TENANT, expires_in=120)
    lab.tokend.start()
    begin = time.monotonic()
    wait_valid(lab, 120)
    print("       1,000 mailboxes: all have a token after %.1f s" % (time.monotonic() - begin))
    # all are renewed after 54 to 60 s of 120
    procs.wait_for(lambda: len(requests(lab)) >= 2 * number or set(states(lab)) != {"valid"},
                   120, "a renewal of each")
    bar("1,000 mailboxes: without a valid token at any time", states(lab).count("error"), "", 0)
    bar("1,000 mailboxes: requests in flight at once",
        lab.sim.state()["entra"]["peak_in_flight"], "", 20)
    text = procs.read("/proc/%d/status" % lab.tokend.pid)
    rss = int(text.partition("VmRSS:")[2].split()[0]) / 1024
    bar("1,000 mailboxes: resident memory", rss, "MB", 64)


def slow_tenant(lab):
    tenants.make(lab, ["fast", "slow"], mailbox=FREE)
    path = lab.folder + "/run/token"
    with_slow, without = [], []

    def measure(runs):
        runs.append(Runs(lab, path, "lease", "64@5000", tenants.address("fast"), runs=3))

    for _ in range(3):
        lab.sim.fault("entra", "silence", tenant="slow.example")
        lab.tokend.start()
        procs.wait_for(lambda: "valid" in states(lab), 20, "the token of the fast tenant")
        waiting = start_load(path, "crowd", 100, 0, tenants.address("slow"))
        measure(with_slow)
        lab.sim.clear()
        finish(waiting)     # refused: the endpoint hung up
        wait_valid(lab)
        measure(without)
        lab.tokend.stop()
        subprocess.run(["rm", "-rf", lab.folder + "/state/tokens"], check=True)
    adds = [a.p99_ms() - b.p99_ms() for a, b in zip(with_slow, without)]
    print("       another's p99 without it: %.2f ms" % statistics.median(
        b.p99_ms() for b in without))
    bar("a tenant that never answers: adds to another's p99", statistics.median(adds), "ms", 1,
        runs=with_slow[-1])


def deliver(path, stop):
    """Thirty deliveries a second, so that there is something to write all the time."""
    question = b"status/relay 2.0.0 250 2.0.0 OK"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        while not stop.wait(0.03):
            sock.sendall(b"%d:%s," % (len(question), question))
            sock.recv(1000)


def stalled_disk(lab):
    lab.configure()
    path = lab.queue_dir + "/relay365/map"
    lab.tokend.start(env={"LD_PRELOAD": TOOLS + "/slow_disk.so", "SLOW_DISK": lab.folder + "/slow"})
    wait_valid(lab)
    procs.write(lab.folder + "/slow", "")
    stop = threading.Event()
    writing = threading.Thread(target=deliver, args=(path, stop))
    writing.start()
    lookups = Runs(lab, path, "map", "64@5000", "relay")
    bar("a status lookup while each write takes 2 s: p99", lookups.p99_ms(), "ms", 1, runs=lookups)
    stop.set()
    writing.join()
    os.unlink(lab.folder + "/slow")


def main(names):
    if "--help" in names or "-h" in names:
        print(__doc__)
        return 0
    build()
    bars = {"cached": cached, "crowd": crowd, "thousand": thousand,
            "slow_tenant": slow_tenant, "stalled_disk": stalled_disk}
    for name in [n for n in names if n != "--first-served"] or bars:
        lab = laboratory.Lab()
        try:
            bars[name](lab)
        except Exception:
            print(lab.tails(30))
            raise
        finally:
            problems = lab.close()
        assert not problems, problems
    subprocess.run(["rm", "-rf", TOOLS], check=True)
    return 1 if MISSED else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
