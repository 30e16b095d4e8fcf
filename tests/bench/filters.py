"""The programs that are measured: started in a private folder, stopped by their pids.

Each is a context manager that gives a Filter: where it listens, and the processes
whose CPU time and memory count.
"""

import collections
import contextlib
import os
import shutil
import signal
import subprocess

import procs

Filter = collections.namedtuple("Filter", "name socket pids")

CONFIG = """
postmaster = "it@contoso.com"
log = "stderr"
state_dir = "{folder}/state"
milter_state_dir = "{folder}/mstate"
run_dir = "{folder}/run"
milter_run_dir = "{folder}/mrun"
queue_directories = []
milter_socket = "{folder}/milter"
tenants: {{ contoso: {{
    id = "contoso.onmicrosoft.com"
    client_id = "11111111-2222-3333-4444-555555555555"
    secret_file = "{folder}/secret"
    accepted_domains = ["contoso.com"]
    external_recipients_per_day = 100000000
}} }}
mailboxes: {{ relay: {{
    address = "relay@contoso.com"
    tenant = "contoso"
    senders = ["*@contoso.com"]
    default = true
    recipients_per_day = 100000000
    messages_per_minute = 60000
    {mailbox}
}} }}
limits: {{ per-user: {{
    per = "source"  count = "messages"  max = 100000000  window = "24h"  action = "reject"
}} }}
"""
READY_S = 60


def wait_socket(path):
    procs.wait_for(lambda: procs.accepts(path), READY_S, "an answer at " + str(path))


@contextlib.contextmanager
def running(command, log, socket, **options):
    """A process from the moment that its socket answers until it is told to end."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "ab") as out, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/",
            **options) as process:
        try:
            wait_socket(socket)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def noop(programs, folder, quiet=False):
    """The filter that does nothing."""
    path = folder + "/noop" + ("-quiet" if quiet else "")
    command = [programs + "/tests/bench/noop_milter", "unix:" + path] + ["quiet"] * quiet
    with running(command, path + ".log", path) as process:
        os.chmod(path, 0o666)       # Postfix runs as another user
        yield Filter("no-op, quiet" if quiet else "no-op", path, [process.pid])


@contextlib.contextmanager
def relay365(programs, folder, mailbox="", name="relay365"):
    """relay365-milter with limits that nobody meets, and its ledger on the disk."""
    for part in ("state", "mstate", "run", "mrun"):
        os.makedirs(os.path.join(folder, part), mode=0o700, exist_ok=True)
    procs.write(folder + "/secret", "secret", 0o600)
    config = procs.write(folder + "/relay365.conf",
                         CONFIG.format(folder=folder, mailbox=mailbox), 0o640)
    with running([programs + "/relay365-milter", "-c", config], folder + "/milter.log",
                 folder + "/milter") as process:
        yield Filter(name, folder + "/milter", [process.pid])


# -- what others offer, where it is installed -----------------------------------

def children(pid):
    """A process and all that come from it."""
    found = [pid]
    for one in found:
        listing = procs.read("/proc/%d/task/%d/children" % (one, one)).split()
        found += [int(child) for child in listing]
    return found


@contextlib.contextmanager
def postfwd(folder):
    """It only listens as a daemon."""
    port, pid_file = procs.free_port(), folder + "/postfwd.pid"
    rule = "id=R; action=rate(sender/100000000/86400/450 4.7.1 too much)"
    subprocess.run([shutil.which("postfwd1"), "--daemon", "--interface=127.0.0.1",
                    "--port=%d" % port, "--rule=" + rule, "--pidfile=" + pid_file,
                    "--user=root", "--group=root"], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_socket(("127.0.0.1", port))
    pid = int(procs.read(pid_file))
    try:
        yield Filter("postfwd", "%d@127.0.0.1" % port, children(pid))
    finally:
        os.kill(pid, signal.SIGTERM)


@contextlib.contextmanager
def policyd_rate_limit(folder):
    config = procs.write(folder + "/policyd.yaml", """
debug: False
user: root
group: root
pidfile: "{0}/policyd.pid"
sqlite_config:
  database: "{0}/policyd.sqlite3"
backend: 0
SOCKET: "{0}/policyd"
socket_permission: 0666
limits:
  - [100000000, 86400]
limits_by_id: {{}}
limit_by_sasl: True
limit_by_sender: False
limit_by_ip: False
limited_networks: []
success_action: "dunno"
fail_action: "defer_if_permit Rate limit reach, retry later"
db_error_action: "dunno"
report: False
""".format(folder))
    with running([shutil.which("policyd-rate-limit"), "-f", config],
                 folder + "/policyd.log", folder + "/policyd") as process:
        yield Filter("policyd-rate-limit", folder + "/policyd", children(process.pid))


@contextlib.contextmanager
def rspamd(folder):
    """rspamd's ratelimit with its redis, behind its own milter proxy."""
    redis, proxy = folder + "/redis", procs.free_port()
    conf = procs.write(folder + "/rspamd.conf", """
options {{ pidfile = "{0}/rspamd.pid"; control_socket = "{0}/control mode=0600";
  filters = ""; local_addrs = []; dns {{ nameserver = ["127.0.0.1:1"]; }} }}
logging {{ type = "file"; filename = "{0}/rspamd-own.log"; level = "error"; }}
modules {{ path = "/usr/share/rspamd/plugins/ratelimit.lua"; }}
redis {{ servers = "{1}"; }}
ratelimit {{ whitelisted_rcpts = ["postmaster", "mailer-daemon"];
  rates {{ user {{ selector = "user.lower"; bucket {{ burst = 100000000; rate = "100000000 / 1d"; }} }} }} }}
actions {{ reject = 1000; }}
worker "rspamd_proxy" {{ bind_socket = "127.0.0.1:{2}"; milter = yes; count = 1;
  upstream "local" {{ default = yes; self_scan = yes; }} }}
""".format(folder, redis, proxy), 0o644)
    store = [shutil.which("redis-server"), "--port", "0", "--unixsocket", redis, "--dir", folder,
             "--appendonly", "yes", "--appendfsync", "everysec"]
    with running(store, folder + "/redis.log", redis) as base, \
            running([shutil.which("rspamd"), "-f", "-i", "-c", conf], folder + "/rspamd.log",
                    ("127.0.0.1", proxy)) as process:
        yield Filter("rspamd ratelimit", "%d@127.0.0.1" % proxy,
                     children(process.pid) + [base.pid])


# name -> (how it is started, which program shows that it is installed, its load generator)
PEERS = {
    "rspamd ratelimit": (rspamd, ("rspamd", "redis-server"), "milter_load"),
    "postfwd": (postfwd, ("postfwd1",), "policy_load"),
    "policyd-rate-limit": (policyd_rate_limit, ("policyd-rate-limit",), "policy_load"),
}


def installed_peers():
    return {name: (start, load) for name, (start, needs, load) in PEERS.items()
            if all(shutil.which(program) for program in needs)}
