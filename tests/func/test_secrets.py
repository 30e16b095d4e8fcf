"""No secret gets out, and none but the named users gets a token.

Whatever a test here lets happen, the laboratory searches all logs, mailq, what
commands printed and the command lines of processes for its canaries at the end.
"""

import base64
import contextlib
import grp
import json
import os
import pwd
import stat
import subprocess
import sys

import pytest

import flow
import procs
import programs
import token_client

pytestmark = pytest.mark.needs_build

ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
n = 0
try:
    s.sendall(b"relay365=1\\nverb=%s\\nmailbox=relay@contoso.com\\n\\n" % sys.argv[2].encode())
    n = len(s.recv(65536))
except (BrokenPipeError, ConnectionResetError):
    pass
print(n)
"""


def look_everywhere(lab):
    """Let every command say what it knows, while all processes live."""
    for command in (["check"], ["status"], ["--json", "status"], ["setup", "postfix"],
                    ["--json", "setup", "postfix"], ["reload"], ["nonsense"]):
        lab.relay365(*command, status=None)
    lab.look_around()
    assert any("relay365-tokend" in text for text in lab.outputs.values())
    assert lab.leaks() == []


def token_of(lab):
    return token_client.ask(lab.folder + "/run/token", verb="token")["token"]


def deliver_and_look(lab, status, **options):
    postfix = flow.wire(lab, **options)
    sent = postfix.send(flow.SENDER, flow.numbers(2))
    assert sent.ok
    [delivery, _other] = postfix.wait_status(sent.qid, status, 2)
    look_everywhere(lab)
    return delivery


# -- logs, mailq, commands, processes -------------------------------------------

@pytest.mark.parametrize("log_format", ["text", "json"])
def test_well_and_talkative(lab, log_format):
    lab.configure(log_debug=True, log_format=log_format)
    deliver_and_look(lab, "sent")
    lines = lab.tokend.log().splitlines()
    assert any("lease" in line for line in lines), "debug events are written"
    if log_format == "json":
        assert all(json.loads(line)["event"] for line in lines)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("fault", [
    {"kind": "challenge", "text": base64.b64encode(b"who are you?").decode()},
    {"kind": "error_challenge"}, {"kind": "auth_fail"},
    {"kind": "reply", "at": "AUTH_RESPONSE", "text": "454 4.7.0 come again"},
    {"kind": "drop", "at": "AUTH_RESPONSE"}, {"kind": "drop", "at": "AUTH"}],
    ids=["challenge", "error challenge", "535", "454", "dropped", "dropped at AUTH"])
def test_exchange_misbehaves(lab, fault, log_format):
    lab.configure(log_debug=True, log_format=log_format)
    lab.sim.fault("smtp", **fault)
    delivery = deliver_and_look(lab, "deferred", milter=False)
    assert delivery.dsn.startswith("4.")
    assert lab.sim.messages() == []


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_entra_echoes_the_secret(lab, log_format):
    lab.configure(log_debug=True, log_format=log_format)
    answer = {"error": "invalid_client", "error_codes": [7000215], "client": lab.secret,
              "error_description": "AADSTS7000215: Invalid client secret %s provided. "
              "Trace ID: %s" % (lab.secret, lab.secret), "correlation_id": lab.secret,
              "error_uri": "https://login.example/?s=" + lab.secret}
    lab.sim.fault("entra", "status", status=401, body=json.dumps(answer))
    delivery = deliver_and_look(lab, "deferred", milter=False)
    assert "AADSTS7000215" in delivery.text

    def failed():
        status = flow.status(lab)["tokend"]["tokens"][0]
        return status if status["state"] == "error" else None

    # after the reload it may be asking again
    status = procs.wait_for(failed, 20, "the state of an error")
    assert "AADSTS7000215" in status["last_error"]["reason"]


@pytest.mark.parametrize("body", [
    '{"error": "%s"}', '{"error": "invalid_client", "error_description": "%s"}',
    "<html>%s</html>", '{"access_token": "%s bad", "expires_in": 3600}', '{"%s": 1}'])
@pytest.mark.parametrize("status", [200, 400, 503])
def test_entra_answers_with_a_secret_in_odd_places(lab, status, body):
    lab.configure(log_debug=True)
    lab.sim.fault("entra", "status", status=status, body=body % lab.secret)
    lab.tokend.start()
    refused = lab.relay365("token", "relay", status=75)
    assert refused.stdout == ""
    look_everywhere(lab)


def test_secret_file_with_a_fault(lab):
    """Whatever is wrong with it, its contents are not shown."""
    for text, mode in ((lab.secret + "\n" + lab.secret, 0o600), (lab.secret * 2000, 0o600),
                       (lab.secret, 0o644)):
        procs.write(lab.secret_file, text, mode)
        lab.configure()
        done = lab.relay365("check", status=None)
        assert done.returncode == (78 if mode == 0o644 else 0)
        if done.returncode == 0:
            lab.tokend.start()
            lab.relay365("token", "relay", status=75)
            lab.tokend.stop()
    assert lab.leaks() == []


def test_secret_where_none_belongs(lab):
    """A secret written into the configuration itself, by one who guessed the key."""
    lab.configure()
    text = procs.read(lab.config)
    for line in ('client_secret = "%s"', 'secret_file = "%s"', 'smtp_port = "%s"'):
        procs.write(lab.config, text.replace("tenants : {\n    contoso : {\n",
                                             "tenants : {\n    contoso : {\n" +
                                             line % lab.secret + "\n", 1), 0o640)
        lab.relay365("check", status=78)


# -- who gets a token ------------------------------------------------------------

def as_user(user, path, verb="lease"):
    """How many bytes that user is answered; 0: turned away."""
    entry = pwd.getpwnam(user)
    done = subprocess.run([sys.executable, "-c", ASK, path, verb], user=entry.pw_uid,
                          group=entry.pw_gid, extra_groups=[], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=30, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def without_protection(lab):
    """The token socket's path, as if folder and mode did not guard it."""
    path = lab.queue_dir + "/relay365/token"
    os.chmod(lab.queue_dir, 0o755)
    os.chmod(os.path.dirname(path), 0o755)
    os.chmod(path, 0o666)
    return path


@pytest.mark.parametrize("verb", ["lease", "token"])
def test_users_who_are_not_named_get_nothing(lab, verb):
    lab.configure()
    lab.tokend.start()
    path = without_protection(lab)
    assert as_user("postfix", path, verb) > 800
    assert as_user("nobody", path, verb) == 0
    lab.tokend.wait_log("user id %d asked for a token and was turned away; token_users"
                        % pwd.getpwnam("nobody").pw_uid)
    lab.configure(token_users=["nobody"])
    without_protection(lab)
    lab.relay365("reload", status=None)
    assert as_user("nobody", path, verb) > 800
    assert as_user("postfix", path, verb) == 0


def mode_of(path):
    found = os.stat(path)
    return "%04o %s:%s" % (stat.S_IMODE(found.st_mode), pwd.getpwuid(found.st_uid).pw_name,
                           grp.getgrgid(found.st_gid).gr_name)


def test_modes_of_folders_and_sockets(lab):
    lab.configure()
    for name in ("relay365", "relay365m"):
        os.rmdir(os.path.join(lab.queue_dir, name))
    for name in ("state", "mstate", "run", "mrun"):
        os.rmdir(os.path.join(lab.folder, name))
    lab.tokend.start()
    lab.milter.start()
    modes = {name: mode_of(os.path.join(lab.folder, name)) for name in (
        "state", "mstate", "p/q/relay365", "p/q/relay365m", "p/q/relay365/token",
        "p/q/relay365/map", "p/q/relay365m/milter", "run/token", "run/control", "mrun/control")}
    assert modes == {
        "state": "0700 root:root", "mstate": "0700 root:root",
        "p/q/relay365": "2750 root:postfix", "p/q/relay365m": "2750 root:postfix",
        "p/q/relay365/token": "0660 root:postfix", "p/q/relay365/map": "0660 root:postfix",
        "p/q/relay365m/milter": "0660 root:postfix", "run/token": "0660 root:root",
        "run/control": "0660 root:root", "mrun/control": "0660 root:root"}
    for folder in ("run", "mrun", "state", "mstate"):
        where = os.path.join(lab.folder, folder)
        assert os.stat(where).st_mode & stat.S_IRWXO == 0, folder
        for name in os.listdir(where):
            path = os.path.join(where, name)
            assert os.stat(path).st_mode & stat.S_IRWXO == 0, path


def test_control_sockets_of_the_admins_group(lab):
    lab.configure(control_group="adm")
    lab.tokend.start()
    lab.milter.start()
    for name in ("run/control", "mrun/control"):
        assert mode_of(os.path.join(lab.folder, name)) == "0660 root:adm"


# -- the token command ------------------------------------------------------------

def test_token_is_printed_to_standard_output_only(lab):
    lab.configure(log_debug=True)
    lab.tokend.start()
    done = lab.relay365("token", "relay", secret_output=True)
    assert done.stderr == "" and done.stdout == token_of(lab) + "\n"
    assert lab.relay365("token", "RELAY@contoso.com", secret_output=True).stdout == done.stdout
    assert lab.leaks() == []


# -- the process -------------------------------------------------------------------

def start_as(lab, user, name):
    """A daemon as the user that systemd would give it; without the laboratory's help."""
    entry = pwd.getpwnam(user)
    own = [os.path.join(lab.folder, folder) for folder in ("state", "run", "mstate", "mrun")]
    for where in (lab.secret_file, lab.config, *own):
        os.chown(where, entry.pw_uid, entry.pw_gid)
    for folder in ("relay365", "relay365m"):    # group postfix, and it is inherited
        os.chown(os.path.join(lab.queue_dir, folder), entry.pw_uid, -1)
        os.chmod(os.path.join(lab.queue_dir, folder), 0o2750)
    with open(os.path.join(lab.log_folder, "as-user.log"), "ab") as log:
        return subprocess.Popen([programs.program(name), "-c", lab.config], stdout=log,
                                stderr=log, stdin=subprocess.DEVNULL, user=entry.pw_uid,
                                group=entry.pw_gid, extra_groups=[], cwd="/",
                                env=programs.environment(lab.folder))


READ = """
import sys
for name in ("environ", "mem", "maps"):
    try:
        open("/proc/%s/%s" % (sys.argv[1], name), "rb").close()
        print(name)
    except PermissionError:
        pass
"""


def look_into(pid, entry):
    """What a process of that user can open of another."""
    return subprocess.run([sys.executable, "-c", READ, str(pid)], text=True, cwd="/",
                          stdout=subprocess.PIPE, user=entry.pw_uid, group=entry.pw_gid,
                          extra_groups=[], check=True, timeout=30).stdout.split()


@pytest.mark.parametrize("name, ready", [("relay365-tokend", "run/control"),
                                         ("relay365-milter", "mrun/control")])
def test_own_user_cannot_look_into_it(lab, name, ready):
    lab.configure(token_users=["nobody"])
    entry = pwd.getpwnam("nobody")
    process = start_as(lab, "nobody", name)
    try:
        procs.wait_for(lambda: process.poll() is not None or
                       procs.accepts(os.path.join(lab.folder, ready)), 20, name)
        assert process.poll() is None, lab.tails()
        assert look_into(process.pid, entry) == []
        # the kernel gives what can't be dumped to root
        assert os.stat("/proc/%d/environ" % process.pid).st_uid == 0
        assert os.stat("/proc/%d" % os.getpid()).st_uid == os.getuid()
        limits = procs.read("/proc/%d/limits" % process.pid)
        assert [line.split()[4:6] for line in limits.splitlines()
                if line.startswith("Max core file size")] == [["0", "0"]]
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_the_check_above_can_see(lab):
    """Another program of the same user can be looked into."""
    entry = pwd.getpwnam("nobody")
    with subprocess.Popen(["sleep", "60"], user=entry.pw_uid, group=entry.pw_gid,
                          extra_groups=[], env=programs.environment(lab.folder)) as process:
        try:
            procs.wait_for(lambda: procs.command_line(process.pid) == "sleep 60", 10, "sleep")
            assert look_into(process.pid, entry) == ["environ", "mem", "maps"]
        finally:
            process.kill()


def content(memory, begin, end):
    """What stands there; nothing if it was the stack of a thread that has ended since."""
    with contextlib.suppress(OSError):
        memory.seek(begin)
        return memory.read(end - begin)
    return b""


def times_in_memory(pid, secret):
    """How often it stands in the memory that the process can write."""
    times = 0
    with open("/proc/%d/maps" % pid, encoding="utf-8") as maps, \
            open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        for line in maps:
            begin, end = (int(at, 16) for at in line.split()[0].split("-"))
            if line.split()[1].startswith("rw") and end - begin < 1 << 30:
                times += content(memory, begin, end).count(secret)
    return times


def test_token_stands_in_memory_once(lab):
    """Whatever read, wrote, sent or tried it has wiped its copy."""
    lab.configure(probe=True)
    lab.tokend.start()
    path = lab.folder + "/run/token"
    with token_client.Client(path) as client:
        token = client.answer()["token"].encode()
        lab.relay365("probe", "--transcript")
        assert token_client.ask(path, verb="token")["token"].encode() == token
    middle = len(token) // 2
    # the answer is read here a moment before tokend has wiped what it wrote
    procs.wait_for(lambda: times_in_memory(lab.tokend.pid, token[middle:middle + 40]) == 1, 10,
                   "one copy")
    response = base64.b64encode(b"user=relay@contoso.com\1auth=Bearer " + token + b"\1\1")
    for part in (response[middle:middle + 40], response[-60:-8], lab.secret.encode()):
        assert times_in_memory(lab.tokend.pid, part) == 0


def mappings_with(pid, secret):
    """The flags (proc(5), VmFlags) of each mapping in which it stands."""
    found, flags = [], {}
    for line in procs.read("/proc/%d/smaps" % pid).splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            area, rights = words[0], words[1]
        elif words[0] == "VmFlags:" and rights.startswith("rw"):
            flags[area] = words[1:]
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        for area, those in flags.items():
            begin, end = (int(at, 16) for at in area.split("-"))
            if end - begin < 1 << 30 and secret in content(memory, begin, end):
                found.append(those)
    return found


def test_token_is_locked_in_memory(lab):
    """Neither swapped out nor, were there any, in a core dump."""
    lab.configure()
    lab.tokend.start()
    token = token_client.ask(lab.folder + "/run/token", verb="token")["token"].encode()
    middle = len(token) // 2
    part = token[middle:middle + 40]
    procs.wait_for(lambda: len(mappings_with(lab.tokend.pid, part)) == 1, 10, "one copy")
    [flags] = mappings_with(lab.tokend.pid, part)
    with open(programs.program("relay365-tokend"), "rb") as f:
        sanitized = b"__asan_init" in f.read()      # then mlock() does nothing
    assert "dd" in flags and (sanitized or "lo" in flags), flags
