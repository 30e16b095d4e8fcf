"""relay365: what it says, what it exits with, and what a reload changes."""

import concurrent.futures
import contextlib
import json
import os
import re
import socket
import subprocess
import threading

import pytest

import flow
import lab as laboratory
import procs
import programs
import relay365_conf
import small_disk
import token_client

pytestmark = pytest.mark.needs_build

ADDRESS = "relay@contoso.com"


def rows(lab, daemon):
    """Name of the mailbox -> what the daemon says of it."""
    return {row["name"]: row for row in flow.status(lab)[daemon]["mailboxes"]}


def json_of(done):
    assert done.stderr == ""
    return json.loads(done.stdout)


# -- usage -----------------------------------------------------------------------

@pytest.mark.parametrize("args", [
    [], ["nonsense"], ["check", "more"], ["status", "more"], ["reload", "more"], ["token"],
    ["token", "a", "b"], ["setup"], ["setup", "exim"], ["--nonsense"]])
def test_usage(lab, args):
    lab.configure()
    done = lab.relay365(*args, status=2)
    assert done.stdout == "" and "usage: relay365 " in done.stderr


def test_help_and_version(lab):
    lab.configure()
    done = lab.relay365("--help")
    assert done.stdout.startswith("usage: relay365 ") and "reload" in done.stdout
    assert re.fullmatch(r"relay365 \d+\.\d+\S*\n", lab.relay365("--version").stdout)


@pytest.mark.parametrize("command", [
    ["check"], ["status"], ["reload"], ["token", "relay"], ["setup", "postfix"], ["alarm"],
    ["metrics"]])
def test_every_command_refuses_a_broken_file(lab, command):
    lab.configure(nonsense="x")
    done = lab.relay365(*command, status=78, data=NOTICE)
    assert done.stdout == ""
    assert re.match(r"relay365: %s:\d+: unknown key \"nonsense\"" % re.escape(lab.config),
                    done.stderr)
    said = json_of(lab.relay365("--json", *command, status=78, data=NOTICE))
    assert "unknown key" in said["error"]


def test_no_file(lab):
    done = lab.relay365("check", status=78)
    assert done.stderr == "relay365: cannot read %s: No such file or directory\n" % lab.config


def test_json_may_stand_anywhere(lab):
    lab.configure()
    for args in (["-j", "check"], ["check", "-j"], ["--json", "check"], ["check", "--json"]):
        assert json_of(lab.relay365(*args))["mailboxes"] == 1
    done = lab.relay365("limits", "--what-if", "/nonexistent", "-j", status=78)
    assert json_of(done) == {"error": "cannot read /nonexistent: No such file or directory"}


NOTICE = '{"event": "alarm", "what": "a trial"}'
MISSING = "/nonexistent/x"


@pytest.mark.parametrize("args, status, text", [
    (["alarm"], 78, "sets neither alarm_command"), (["limits"], 75, "relay365-milter: cannot connect"),
    (["authorize", "relay"], 75, "relay365-tokend: cannot connect"),
    (["authorize", "relay", "--import", MISSING], 78, MISSING), (["token", "relay"], 75, "connect"),
    (["token", "nobody"], 78, 'no mailbox "nobody"'), (["probe", "nobody"], 78, 'no mailbox "nobody"'),
    (["backup", MISSING], 75, "cannot connect"),
    (["why", "4FA2B1C00D", "--log", MISSING], 1, MISSING),
    (["why", "4FA2B1C00D", "--log", "/dev/null"], 1, "no message"),
    (["hold", "4FA2B1C00D"], None, ""), (["release", "4FA2B1C00D", "--log", MISSING], None, ""),
    (["limits", "--what-if", MISSING], 78, MISSING),
    (["setup", "postfix", "--apply", "--config-dir", MISSING], 78, MISSING),
    (["setup", "postfix", "--undo", "--config-dir", MISSING], 78, MISSING),
    (["setup", "sendmail", "--config-dir", MISSING], 78, MISSING)], ids=str)
def test_every_command_tells_errors_as_json(lab, args, status, text):
    lab.configure()
    plainly = lab.relay365(*args, status=status, data=NOTICE)
    said = json_of(lab.relay365(*args, "--json", status=plainly.returncode, data=NOTICE))
    assert said["error"] and text in said["error"]
    assert said["error"] in plainly.stderr and plainly.stdout == ""


def test_output_that_cannot_be_written(lab):
    """Whatever the command: what was not said was not done well."""
    lab.configure()
    lab.milter.start()
    copy = lab.folder + "/copy.db"
    with small_disk.mounted(lab.folder + "/full") as disk, \
            open(disk.path + "/out", "wb") as out:
        disk.fill()
        for args in (["--help"], ["--version"], ["check"], ["check", "-j"], ["reload", "milter"],
                     ["backup", copy], ["explain", "535"], ["limits"], ["setup", "postfix", "--print"]):
            done = subprocess.run(
                [programs.program("relay365"), "-c", lab.config, *args], stdout=out,
                stderr=subprocess.PIPE, text=True, check=False,
                env=programs.environment(lab.folder))
            assert done.returncode == 1, args
            assert done.stderr.startswith("relay365: cannot write the output"), args


# -- check -----------------------------------------------------------------------

def test_check(lab):
    lab.configure()
    assert lab.relay365("check").stdout == lab.config + " is well: 1 tenant, 1 mailbox\n"
    assert json_of(lab.relay365("--json", "check")) == {
        "configuration": lab.config, "tenants": 1, "mailboxes": 1, "notes": []}


def test_check_notes_what_may_surprise(lab):
    lab.configure(mailboxes={
        "relay": {"address": "relay@contoso.com", "other_senders": "reject"},
        "cron": {"address": "cron@contoso.com", "senders": ["*@contoso.onmicrosoft.com"]}})
    notes = lab.relay365("check").stdout.splitlines()[1:]
    assert len(notes) == 3 and all(note.startswith("note: ") for note in notes), notes
    assert "sends as relay@contoso.com only" in notes[0]
    assert "100 external recipients in 24 hours (5.7.236)" in notes[1]
    assert "no mailbox is the default" in notes[2]


def test_check_notes_what_office_365_slows_down(lab):
    def notes(**keys):
        lab.configure(tenants={"contoso": {"id": laboratory.TENANT, "secret_file": lab.secret_file,
                                           "client_id": laboratory.CLIENT_ID}},
                      mailboxes={"relay": keys})
        return json_of(lab.relay365("--json", "check"))["notes"]

    assert notes() == [] == notes(messages_per_minute=30, connections=3)
    [pace, at_once] = notes(messages_per_minute=0, connections=4)
    assert "messages_per_minute = 0, no pace: smtp.office365.com takes 30 a minute" in pace
    assert "connections = 4: smtp.office365.com takes 3 at a time" in at_once
    [pace] = notes(messages_per_minute=31)
    assert "messages_per_minute = 31: smtp.office365.com takes 30" in pace
    lab.configure(mailboxes={"relay": {"messages_per_minute": 0, "connections": 4}})
    assert lab.relay365("check").stdout.count("\n") == 1, "another server's limits are not known"


def tenant(lab, **keys):
    usual = relay365_conf.tenant_of(lab.sim, laboratory.TENANT, laboratory.CLIENT_ID,
                                    lab.secret_file)
    return {"contoso": {**usual, **keys}}


def box(**keys):
    return {"mailboxes": {"relay": keys}}


def boxes(first, second):
    return {"mailboxes": {
        "a": {"address": "a@contoso.com", **first}, "b": {"address": "b@contoso.com", **second}}}


# (what configure() is given, what check must say behind file and line)
MISTAKES = {
    "unknown at the top": ({"postmaste": "x"},
                           'unknown key "postmaste" in the top level; '
                           'did you mean "postmaster"?'),
    "unknown and like nothing": ({"zzz": 1}, 'unknown key "zzz" in the top level; '
                                 r"see relay365.conf\(5\)"),
    "unknown in a mailbox": (box(sendres=["*@contoso.com"]),
                             'unknown key "sendres" in a mailbox; did you mean "senders"?'),
    "unit missing": (box(max_wait="4"), "max_wait must be a time with its unit in quotes"),
    "unit unknown": (box(max_wait="4 hours"), "max_wait must be a time with its unit"),
    "time without quotes": (box(max_wait=4), "max_wait must be a time with its unit"),
    "time out of range": (box(max_wait="6d"), "max_wait = \"6d\" is out of range"),
    "number in quotes": (box(recipients_per_day="10000"),
                         "recipients_per_day must be a whole number without quotes"),
    "number out of range": (box(recipients_per_day=0), "recipients_per_day = 0 is out of range"),
    "too many at once": (box(recipients_per_message=1001),
                         "recipients_per_message = 1001 is out of range: 1 to 1000"),
    "no such choice": (box(when_full="wiat"), 'when_full = "wiat" is not one of'),
    "bool in quotes": (box(default="true"), "default must be true or false, without quotes"),
    "text for a list": (box(senders="*@contoso.com"), "senders must be a list"),
    "bad pattern": (box(senders=["*contoso.com"]), ".*is neither user@domain nor"),
    "no address": (box(address="relay"), '.*"relay" is not of the form user@domain'),
    "no such tenant": (box(tenant="fabrikam"), '.*names tenant "fabrikam", which is not'),
    "name for no transport": ({"mailboxes": {"Relay_1": {}}}, 'the name of mailbox "Relay_1"'),
    "sender claimed twice": (boxes({"senders": ["*@contoso.com"]},
                                   {"senders": ["*@Contoso.com"]}),
                             r'.*claims sender "\*@contoso.com" as mailbox "a" does'),
    "two defaults": (boxes({"default": True}, {"default": True}),
                     '.*is a second default beside mailbox "a"'),
    "address taken": (boxes({}, {"address": "A@contoso.com"}),
                      '.*has the address of mailbox "a"'),
}


def check_fails(lab, pattern):
    done = lab.relay365("check", status=78)
    assert re.match("relay365: %s:\\d+: (?:tenant \"contoso\"|mailbox \"\\w+\")?:? ?%s" % (
        re.escape(lab.config), pattern), done.stderr), done.stderr
    return done.stderr


@pytest.mark.parametrize("what", MISTAKES)
def test_check_says_what_is_wrong_and_where(lab, what):
    changes, pattern = MISTAKES[what]
    text = lab.configure(**changes)
    said = check_fails(lab, pattern)
    line = int(re.match(r"relay365: [^:]+:(\d+):", said).group(1))
    assert 1 <= line <= len(text.splitlines())
    key = re.search(r"nonsense|postmaste|zzz|sendres|max_wait|recipients_per_\w+|when_full",
                    pattern)
    if key:
        assert key.group(0) in text.splitlines()[line - 1], "the line is that of the key"


@pytest.mark.parametrize("changes, pattern", [
    ({"client_id": None}, 'tenant "contoso": has no client_id'),
    ({"id": "common"}, '.*"common" is no tenant'),
    ({"id": "a/b"}, '.*"a/b" is neither a tenant id nor a domain'),
    ({"secret_file": None}, ".*has no credential; set certificate and private_key"),
    ({"certificate": "/tmp/x", "private_key": "/tmp/y"},
     ".*has both secret_file and a certificate"),
    ({"secret_file": None, "certificate": "/tmp/x"}, ".*private_key is missing"),
    ({"secret_file": "/nonexistent/secret"}, ".*cannot read /nonexistent/secret: No such file"),
    ({"secret_file": "/"}, ".*/ is not a plain file"),
    ({"scope": None}, '.*has cloud = "custom" and so needs scope'),
    ({"token_endpoint": "http://login.test/"}, ".*token_endpoint must begin with https://"),
    ({"cloud": "global"}, '.*which need cloud = "custom"'),
    ({"smtp_port": 65536}, "smtp_port = 65536 is out of range"),
    ({"licences_": 5}, 'unknown key "licences_"')])
def test_check_of_a_tenant(lab, changes, pattern):
    lab.configure(tenants=tenant(lab, **changes))
    check_fails(lab, pattern)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_check_of_a_secret_that_others_can_read(lab, mode):
    lab.configure()
    procs.write(lab.secret_file, lab.secret, mode)
    said = check_fails(lab, ".*holds a secret but has mode %04o; run: chmod o-rwx,g-w " % mode)
    assert lab.secret_file in said


def test_check_of_names_given_twice(lab):
    text = lab.configure()
    procs.write(lab.config, text + 'postmaster = "again"\n', 0o640)
    done = lab.relay365("check", status=78)
    assert "%s:%d: duplicate setting name" % (
        lab.config, len(text.splitlines()) + 1) in done.stderr


def test_check_of_bad_syntax(lab):
    text = lab.configure()
    procs.write(lab.config, text + "shadow = = true\n", 0o640)
    assert "%s:%d: syntax error" % (lab.config, len(text.splitlines()) + 1) in \
        lab.relay365("check", status=78).stderr


def test_two_tenants_and_a_mailbox_of_neither(lab):
    lab.configure(tenants={**tenant(lab), "other": tenant(lab)["contoso"]})
    check_fails(lab, ".*has no tenant; there are 2")


# -- status ------------------------------------------------------------------------

def test_status_of_what_is_well(lab):
    lab.configure()
    lab.tokend.start()
    lab.milter.start()
    procs.wait_for(lambda: flow.status(lab)["tokend"]["tokens"][0]["state"] == "valid", 10,
                   "the token")
    text = lab.relay365("status").stdout
    assert "relay365-tokend: up since " in text and "relay365-milter: up since " in text
    assert "accepted  [....................] 0 of 10000 recipients in 24 h" in text
    assert text.endswith("\nAll is well.\n")
    said = json_of(lab.relay365("status", "--json"))
    assert said["problems"] == []
    assert said["tokend"]["pid"] == lab.tokend.pid and said["milter"]["pid"] == lab.milter.pid


def test_what_may_not_be_asked(lab):
    """Who may not ask a daemon does not know how it is."""
    lab.configure(control_group="mail")
    lab.tokend.start()
    os.chmod(lab.folder, 0o755)
    os.chmod(lab.config, 0o644)
    for name in ("run", "mrun", "srun"):
        os.makedirs(lab.folder + "/" + name, exist_ok=True)
        os.chmod(lab.folder + "/" + name, 0o750)
    text = lab.relay365("status", status=1, user="nobody").stdout
    for name in ("tokend", "milter", "submit"):
        assert "relay365-%s: not proven\n" % name in text
    assert "down" not in text
    assert "run this as root, or join the group mail" in text
    said = json_of(lab.relay365("--json", "status", status=1, user="nobody"))
    assert set(said["daemons"].values()) == {"denied"}
    assert "relay365-tokend can't be asked: cannot connect to " in lab.relay365(
        "queue", status=None, user="nobody").stderr
    assert json_of(lab.relay365("--json", "status", status=1))["daemons"] == {
        "tokend": "up", "milter": "down"}
    os.chmod(lab.config, 0o640)
    assert re.match(r"RELAY365 UNKNOWN - cannot read .*Permission denied \| faults=0 ",
                    lab.relay365("doctor", "--nagios", status=3, user="nobody").stdout)
    assert re.match("Not proven: cannot read .*Permission denied. What to do: run this as root.\n",
                    lab.relay365("doctor", status=1, user="nobody").stdout)


def hang_up(listening):
    """On all that call, until it is shut down."""
    with contextlib.suppress(OSError):
        while True:
            listening.accept()[0].close()


def test_status_of_what_is_silent(lab):
    """Somebody listens and does not answer: no start would help."""
    lab.configure()
    os.makedirs(lab.folder + "/run", exist_ok=True)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(lab.folder + "/run/control")
        deaf.listen()
        rude = threading.Thread(target=hang_up, args=[deaf])
        rude.start()
        text = lab.relay365("status", status=1).stdout
        found = lab.relay365("doctor", status=1).stdout
        deaf.shutdown(socket.SHUT_RDWR)
        rude.join()
    assert "relay365-tokend: does not answer\n" in text and "relay365-milter: down\n" in text
    for said in (text, found):
        assert re.search(r"relay365-tokend does not answer.*\s.*systemctl restart relay365-tokend",
                         said), said
        assert re.search(r"relay365-milter does not answer.*\s.*systemctl start relay365-milter",
                         said), said


def test_status_of_what_is_down(lab):
    lab.configure()
    text = lab.relay365("status", status=1).stdout
    assert "relay365-tokend: down" in text and "relay365-milter: down" in text
    assert "relay365-tokend does not answer: cannot connect to " in text
    said = json_of(lab.relay365("--json", "status", status=1))
    assert said["tokend"] is None and said["milter"] is None and len(said["problems"]) == 2


def test_status_of_a_refused_secret(lab):
    lab.configure()
    lab.sim.fault("entra", "aadsts", code=7000222)
    lab.tokend.start()
    lab.milter.start()
    lab.tokend.wait_log("aadsts=7000222")
    text = lab.relay365("status", status=1).stdout
    assert re.search(r"^  contoso: AADSTS7000222: .*", text, re.MULTILINE), text
    assert "last error" in text and "next try in" in text


# -- token ---------------------------------------------------------------------------

def test_token_exit_status(lab):
    lab.configure()
    down = lab.relay365("token", "relay", status=75)
    assert down.stdout == "" and "cannot connect to" in down.stderr
    lab.sim.fault("entra", "aadsts", code=7000215)
    lab.tokend.start()
    refused = lab.relay365("token", ADDRESS, status=75)
    assert refused.stdout == "" and "AADSTS7000215" in refused.stderr
    unknown = lab.relay365("token", "nobody", status=78)
    assert unknown.stdout == "" and 'has no mailbox "nobody"' in unknown.stderr


def test_token_as_json(lab):
    lab.configure()
    lab.tokend.start()
    bare = lab.relay365("token", "relay", secret_output=True).stdout
    said = json_of(lab.relay365("token", "relay", "--json", secret_output=True))
    [token] = flow.status(lab)["tokend"]["tokens"]
    assert said == {"token": bare.rstrip("\n"), "expires_at": token["expires_at"]}


# -- setup ---------------------------------------------------------------------------

def test_setup_says_the_same_as_text_and_json(lab):
    lab.configure()
    made = json_of(lab.relay365("--json", "setup", "postfix"))
    text = lab.relay365("setup", "postfix", "--print").stdout
    assert made["master_cf"] in text
    assert all("%s = %s\n" % item in text for item in {
        **made["main_cf"], **made["main_cf_last_in_list"]}.items())
    assert all(content in text for content in made["files"].values())
    # named from the queue directory, for smtpd(8) with and without chroot
    assert made["main_cf_last_in_list"]["smtpd_milters"] == "unix:relay365m/milter"


@pytest.mark.parametrize("socket, named", [
    # libmilter and Postfix disagree on how to write this
    ("inet:8365@127.0.0.1", "inet:127.0.0.1:8365"),
    ("/run/relay365m/milter", "unix:/run/relay365m/milter"),
    (None, "unix:relay365m/milter"), ("unix:/run/x", "unix:/run/x")])
def test_setup_names_the_milter(lab, socket, named):
    lab.configure(milter_socket=socket)
    made = json_of(lab.relay365("--json", "setup", "postfix"))
    lists = made["main_cf_last_in_list"]
    assert {lists["smtpd_milters"], lists["non_smtpd_milters"]} == {named}


# -- reload --------------------------------------------------------------------------

def start(lab):
    lab.configure()
    lab.tokend.start()
    lab.milter.start()


def test_reload(lab):
    start(lab)
    done = lab.relay365("reload")
    assert done.stderr == ""
    assert "relay365-tokend" in done.stdout and "relay365-milter" in done.stdout
    done = lab.relay365("reload", "milter")
    assert done.stdout == "relay365-milter has read the configuration again\n"
    assert lab.milter.log().count("reload result=ok") == 2
    assert lab.tokend.log().count("reload result=ok") == 1
    done = lab.relay365("reload", "submit", status=75)
    assert done.stderr == "relay365-submit: it does not run\n"


def test_reload_as_json(lab):
    start(lab)
    lab.configure(log_format="json")
    well = {"reloaded": True, "restart_for": "log_format"}
    assert json_of(lab.relay365("reload", "--json")) == {"tokend": well, "milter": well}
    assert json_of(lab.relay365("reload", "milter", "-j")) == {"milter": well}
    assert json_of(lab.relay365("reload", "submit", "-j", status=75)) == {
        "submit": {"error": "it does not run"}}
    lab.milter.stop()
    lab.configure(nonsense=1)       # the command reads it first
    assert "unknown key" in json_of(lab.relay365("reload", "-j", status=78))["error"]
    lab.configure()
    said = json_of(lab.relay365("reload", "-j", status=75))
    assert said["tokend"]["reloaded"] and "cannot connect" in said["milter"]["error"]


def test_reload_of_what_is_down(lab):
    lab.configure()
    done = lab.relay365("reload", status=75)
    assert done.stdout == ""
    assert done.stderr.count("cannot connect to ") == 2
    lab.tokend.start()
    done = lab.relay365("reload", status=75)
    assert "relay365-tokend" in done.stdout and "relay365-milter: " in done.stderr


def test_broken_file_leaves_the_old_one_in_force(lab):
    start(lab)
    lab.configure(mailboxes={"relay": {"recipients_per_day": 77, "nonsense": 1}})
    done = lab.relay365("reload", status=78)
    assert re.search(r"%s:\d+: unknown key \"nonsense\"" % re.escape(lab.config), done.stderr)
    # the daemons say it too when they are asked behind the command's back
    lab.milter.process.send_signal(1)
    refused = lab.milter.wait_log(r"reload result=refused .*")
    assert re.search(lab.config + r":\d+: unknown key", refused.group(0))
    procs.write(lab.config, lab.configure(), 0o640)
    assert rows(lab, "milter")["relay"]["max"] == 10000
    assert rows(lab, "tokend")["relay"]["recipients_per_day"] == 10000
    assert token_client.ask(lab.folder + "/run/token")["status"] == "ok"


def test_reload_names_what_counts_at_the_start(lab):
    start(lab)
    lab.configure(log_format="json")
    for _again in range(2):     # it is so until they start again
        said = lab.relay365("reload").stdout
        for daemon in "tokend", "milter":
            assert ("relay365-%s has read the configuration again\n  but log_format counts only "
                    "when it starts: systemctl restart relay365-%s\n" % (daemon, daemon)) in said
    lab.milter.wait_log(r"reload result=ok by=control restart_for=log_format")
    lab.tokend.wait_log(r"reload result=ok by=control restart_for=log_format")
    lab.configure(queue_directories=[lab.queue_dir, lab.folder], milter_socket="inet:1@127.0.0.1")
    said = lab.relay365("reload").stdout
    assert "but queue_directories counts only when it starts: systemctl restart relay365-t" in said
    assert re.search("but queue_directories, milter_socket count only .* relay365-milter$", said, re.M)
    lab.configure()
    assert "only" not in lab.relay365("reload").stdout


def stream(postfix, stop):
    """Send until told to stop; the number of recipients taken."""
    n = 0
    while not stop:
        sent = postfix.send(flow.SENDER, ["r%d@example.net" % n])
        assert sent.ok, sent
        n += 1
    return n


def test_mailbox_comes_and_goes_while_mail_flows(lab):
    alerts = flow.second_mailbox(lab, messages_per_minute=60000)
    lab.sim.mailbox(ADDRESS, messages_per_minute=60000)
    relay = {"address": ADDRESS, "default": True, "messages_per_minute": 6000}
    second = {"address": alerts, "senders": ["mon@contoso.com"], "messages_per_minute": 6000}
    lab.configure(mailboxes={"relay": relay, "alerts": second})
    postfix = flow.wire(lab)    # Postfix knows both from the beginning
    stop = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        flowing = pool.submit(stream, postfix, stop)
        try:
            only = {"relay": {**relay, "recipients_per_day": 5000}}
            come_and_go(lab, postfix, only, {**only, "alerts": second}, alerts)
        finally:
            stop.append(True)
        n = flowing.result()
    postfix.wait_queue_empty()
    assert n > 0 and flow.accepted(lab) == n, "the stream never stood still"
    assert not [d for d in postfix.deliveries() if d.status == "bounced"]
    assert rows(lab, "milter")["relay"]["used"] == n
    assert rows(lab, "tokend")["relay"]["delivered"] == n


def come_and_go(lab, postfix, one, both, alerts):
    assert set(rows(lab, "tokend")) == set(rows(lab, "milter")) == {"relay", "alerts"}
    lab.configure(mailboxes=one)
    lab.relay365("reload")
    assert set(rows(lab, "tokend")) == set(rows(lab, "milter")) == {"relay"}
    assert rows(lab, "milter")["relay"]["max"] == 5000
    assert rows(lab, "tokend")["relay"]["recipients_per_day"] == 5000
    sent = postfix.send("mon@contoso.com", ["a@example.net"])
    postfix.wait_status(sent.qid, "deferred")
    assert flow.accepted(lab, alerts) == 0
    lab.configure(mailboxes=both)
    lab.relay365("reload")
    postfix.flush()
    postfix.wait_status(sent.qid, "sent")
    assert flow.accepted(lab, alerts) == 1


def test_reload_changes_limits(lab):
    lab.configure(mailboxes={"relay": {"recipients_per_day": 3, "when_full": "reject"}})
    postfix = flow.wire(lab)
    sent = postfix.send(flow.SENDER, flow.numbers(3))
    postfix.wait_status(sent.qid, "sent", 3)
    assert postfix.send(flow.SENDER, ["late@example.net"]).code == 550
    lab.configure(mailboxes={"relay": {"recipients_per_day": 4, "when_full": "defer"}})
    lab.relay365("reload")
    assert rows(lab, "milter")["relay"]["used"] == 3, "the use is kept"
    sent = postfix.send(flow.SENDER, flow.numbers(2))
    assert [r[0] for r in sent.refused.values()] == [451]
    postfix.wait_status(sent.qid, "sent")
    assert rows(lab, "tokend")["relay"]["delivered"] == 4
