"""The harness itself: the private Postfix, the laboratory, what it must find."""

import os
import signal
import smtplib
import socketserver
import subprocess
import sys
import threading

import pytest

import postfix
import postfix_conf
import procs
import programs
import relay365_conf

CHROOT = pytest.mark.parametrize("chroot", [False, True], ids=["plain", "chroot"])


# -- a server that takes everything -------------------------------------------

class Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.say("220 sink.test ESMTP")
        envelope = {"from": None, "to": []}
        while True:
            line = self.rfile.readline().decode("utf-8", "replace").strip()
            verb = line.split(" ", 1)[0].upper()
            if not line or verb == "QUIT":
                self.say("221 bye")
                return
            if verb == "MAIL":
                envelope = {"from": line.split("<")[1].split(">")[0], "to": []}
            self.say(getattr(self, "on_" + verb, self.on_other)(line, envelope))

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def on_EHLO(self, _line, _envelope):
        return "250-sink.test\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES"

    def on_RCPT(self, line, envelope):
        recipient = line.split("<")[1].split(">")[0]
        reply = self.server.replies.get(recipient, "250 2.1.5 ok")
        if reply.startswith("2"):
            envelope["to"].append(recipient)
        return reply

    def on_DATA(self, _line, envelope):
        self.say("354 go ahead")
        lines = []
        while True:
            line = self.rfile.readline()
            if line in (b".\r\n", b""):
                break
            lines.append(line)
        self.server.messages.append({**envelope, "data": b"".join(lines)})
        return "250 2.0.0 taken"

    @staticmethod
    def on_other(_line, _envelope):
        return "250 2.0.0 ok"


class Sink(socketserver.ThreadingTCPServer):
    """replies: recipient -> what RCPT is answered. messages: what was taken."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address="127.0.0.2"):
        super().__init__((address, 0), Session)
        self.replies, self.messages = {}, []
        self.route = "smtp:[%s]:%d" % self.server_address[:2]


@pytest.fixture
def sink():
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# -- what must stay as it is ---------------------------------------------------

def fingerprint(top):
    found = {}
    for where, folders, files in os.walk(top):
        for name in [".", *folders, *files]:
            path = os.path.join(where, name)
            about = os.lstat(path)
            found[path] = (about.st_mode, about.st_uid, about.st_gid, about.st_size,
                           about.st_mtime_ns)
    return found


def port_25():
    """Lines of /proc/net/tcp about somebody who listens at port 25."""
    with open("/proc/net/tcp") as f:
        fields = [line.split() for line in f]
    return [f[1] for f in fields if f[1].endswith(":0019") and f[3] == "0A"]


@pytest.fixture
def machine():
    """The machine's own mail system must be the same afterwards."""
    def look():
        return ([fingerprint(top) for top in ("/etc/postfix", "/var/spool/postfix",
                                              "/var/lib/postfix", "/var/mail")], port_25())
    before = look()
    yield
    assert look() == before


# -- Postfix -------------------------------------------------------------------

@CHROOT
def test_mail_passes_and_nothing_is_left(machine, sink, chroot):
    box = postfix.PostfixInstance(chroot=chroot, main={"default_transport": sink.route})
    with box:
        sent = box.send("erp@contoso.com", ["a@example.com", "b@example.net"], "hello\r\n")
        assert sent.ok and not sent.refused
        done = {d.to: d for d in box.wait_status(sent.qid, "sent", 2)}
        assert set(done) == {"a@example.com", "b@example.net"}
        box.wait_queue_empty()
        assert done["a@example.com"].dsn == "2.0.0"
        assert "taken" in done["a@example.com"].text
        smtp = int(done["a@example.com"].pid)
        assert smtp in box.processes()
        root = os.readlink("/proc/%d/root" % smtp)
        assert root == (box.queue_dir if chroot else "/")
        everyone = box.processes()
    assert all(b"hello" in m["data"] for m in sink.messages)
    assert {to for m in sink.messages for to in m["to"]} == set(done)
    assert not [pid for pid in everyone if procs.command_line(pid).find("postfix") >= 0]
    assert not os.path.exists(box.folder)
    assert not procs.accepts((box.address, box.port))


def test_chroot_is_populated(make_postfix):
    box = make_postfix(chroot=True)
    for name in ("etc/resolv.conf", "etc/services", "etc/localtime"):
        if os.path.exists("/" + name):
            assert os.path.isfile(os.path.join(box.queue_dir, name))
    # Postfix itself finds nothing to say against folder and owners
    assert box.run("postfix", "check").returncode == 0
    terminal = box._complaint(["postfix", "-c", box.config, "check"])
    assert terminal == ""


def test_deferred_until_the_server_relents(make_postfix, sink):
    sink.replies["full@example.com"] = "452 4.2.2 come later"
    sink.replies["gone@example.com"] = "550 5.1.1 no such user"
    box = make_postfix(main={"default_transport": sink.route}).start()
    sent = box.send("root@gateway.test",
                    ["ok@example.com", "full@example.com", "gone@example.com"])
    (late,) = box.wait_status(sent.qid, "deferred")
    assert late.to == "full@example.com" and late.dsn == "4.2.2"
    assert [d.to for d in box.wait_status(sent.qid, "bounced")] == ["gone@example.com"]
    # at a moment when it is tried, it has neither this queue nor a reason
    (entry,) = box.wait_queue(lambda q: [m["queue_name"] for m in q] == ["deferred"] and
                              ["come later" in r.get("delay_reason", "")
                               for r in q[0]["recipients"]] == [True] and q)
    assert entry["queue_id"] == sent.qid and entry["sender"] == "root@gateway.test"
    procs.wait_for(lambda: "come later" in box.mailq(), 20, "the reason in mailq")
    (notice,) = box.wait_mailbox()
    assert notice.get_content_type() == "multipart/report"
    assert "no such user" in notice.as_string()
    del sink.replies["full@example.com"]
    box.flush()
    assert {d.to for d in box.wait_status(sent.qid, "sent", 2)} == {
        "ok@example.com", "full@example.com"}
    box.wait_queue_empty()


def test_sendmail_and_local_users(make_postfix, sink):
    box = make_postfix(main={"default_transport": sink.route}).start()
    by_root = box.submit(["a@example.com"])
    by_nobody = box.submit(["b@example.com"], user="nobody", sender="erp@contoso.com")
    assert [d.to for d in box.wait_status(by_root, "sent")] == ["a@example.com"]
    assert [d.to for d in box.wait_status(by_nobody, "sent")] == ["b@example.com"]
    assert {m["from"] for m in sink.messages} == {"root@gateway.test", "erp@contoso.com"}
    assert any(b"from userid 65534" in m["data"] for m in sink.messages)
    box.send("x@contoso.com", ["joe@gateway.test", "postmaster@gateway.test"])
    assert {m["Delivered-To"] for m in box.wait_mailbox(2)} == {
        "joe@gateway.test", "root@gateway.test"}


def test_hold_and_release(make_postfix, sink):
    sink.replies["a@example.com"] = "450 4.2.0 later"
    box = make_postfix(main={"default_transport": sink.route}).start()
    sent = box.send("erp@contoso.com", ["a@example.com"])
    box.wait_status(sent.qid, "deferred")
    box.postsuper("-h", sent.qid)
    assert [m["queue_name"] for m in box.queue()] == ["hold"]
    sink.replies.clear()
    box.postsuper("-H", sent.qid)
    box.flush()
    box.wait_queue_empty()
    assert len(sink.messages) == 1


def test_refusals_are_told(make_postfix):
    box = make_postfix(main={"smtpd_recipient_restrictions":
                             "check_recipient_access inline:{bad@example.com=REJECT}"}).start()
    sent = box.send("a@contoso.com", ["bad@example.com"])
    assert not sent.ok and sent.code == 554
    assert list(sent.refused) == ["bad@example.com"]
    sent = box.send("a@contoso.com", ["bad@example.com", "joe@gateway.test"])
    assert sent.ok and list(sent.refused) == ["bad@example.com"]
    assert box.send("a@contoso.com", ["joe@gateway.test"], xclient={
        "ADDR": "192.0.2.7"}).ok
    box.wait_log(r"client=unknown\[192\.0\.2\.7\]")
    sent = box.send("a@contoso.com", ["joe@gateway.test"], xclient={
        "ADDR": "10.1.0.5", "LOGIN": "erp"})
    box.wait_log(sent.qid + r": client=unknown\[10\.1\.0\.5\].*sasl_username=erp")


def test_two_at_once(make_postfix, sink):
    one = make_postfix(main={"default_transport": sink.route}).start()
    two = make_postfix(main={"default_transport": sink.route}, chroot=True).start()
    assert one.port != two.port
    assert not set(one.processes()) & set(two.processes())
    a, b = one.send("one@a.test", ["x@b.test"]), two.send("two@a.test", ["x@b.test"])
    one.wait_queue_empty()
    two.wait_queue_empty()
    one.wait_log("one@a.test")
    two.wait_log("two@a.test")
    assert "two@a.test" not in one.log()
    one.stop()
    assert not one.processes() and two.processes()
    assert two.send("two@a.test", ["y@b.test"]).ok
    assert a.ok and b.ok


def test_apply_and_reload(make_postfix, sink):
    box = make_postfix().start()
    box.apply(
        "# a comment\nsender_dependent_default_transport_maps =\n"
        "    texthash:%s/routes\nto-sink_destination_concurrency_limit = 3\n" % box.config,
        "to-sink unix - - y - - smtp\n    -o smtp_helo_name=applied.test\n",
        {"routes": "@contoso.com to-sink:%s\n" % sink.route.split(":", 1)[1]})
    box.reload()
    sent = box.send("erp@contoso.com", ["a@example.com"])
    assert [d.to for d in box.wait_status(sent.qid, "sent")] == ["a@example.com"]
    assert box.run("postconf", "-Mf", "to-sink/unix").stdout.split()[:2] == ["to-sink", "unix"]
    assert box.run("postconf", "-h", "to-sink_destination_concurrency_limit").stdout == "3\n"
    with pytest.raises(ValueError):
        box.apply(files={"/etc/postfix/main.cf": ""})


def test_a_broken_configuration_is_told(make_postfix):
    box = make_postfix(main={"inet_interfaces": "192.0.2.1"})
    with pytest.raises(RuntimeError, match="no local interface found"):
        box.start()


def test_kill_and_restart_keep_the_queue(make_postfix, sink):
    sink.replies["a@example.com"] = "450 4.2.0 later"
    box = make_postfix(main={"default_transport": sink.route}).start()
    sent = box.send("erp@contoso.com", ["a@example.com"])
    box.wait_status(sent.qid, "deferred")
    box.kill()
    assert not box.processes()
    sink.replies.clear()
    box.start()
    box.wait_status(sent.qid, "sent")
    box.wait_queue_empty()
    box.restart()
    assert box.queue() == []


def test_a_killed_run_leaves_nothing():
    """The guard cleans up behind a test run that is killed."""
    code = ("import postfix, sys, time\n"
            "box = postfix.PostfixInstance().start()\n"
            "print(box.folder, flush=True)\n"
            "sys.stdin.read()\n")
    run = subprocess.Popen([sys.executable, "-B", "-c", code], text=True,
                           cwd=os.path.dirname(os.path.abspath(__file__)),
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    folder = run.stdout.readline().strip()
    assert procs.processes_of(folder)
    run.kill()
    run.wait()
    procs.wait_for(lambda: not os.path.exists(folder), 30, folder + " to go")
    assert not procs.processes_of(folder)
    run.stdin.close()
    run.stdout.close()


def test_main_cf_is_parsed():
    assert postfix_conf.parse_main("# no\na = 1\n\nb =\n  x\n  y\na=2\n") == {
        "a": "2", "b": "x y"}
    services = postfix_conf.parse_master("s unix - - y - - smtp\n  -o a=b\n# no\nt inet x\n")
    assert services == {("s", "unix"): "s unix - - y - - smtp\n  -o a=b",
                        ("t", "inet"): "t inet x"}
    with pytest.raises(ValueError):
        postfix_conf.parse_main("nonsense\n")


# -- programs ------------------------------------------------------------------

DAEMON = """#!%s -B
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(os.environ.get("CODE", "0"))))
print("config", sys.argv[2], flush=True)
%s
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.sendto(b"STATUS=up\\nREADY=1\\n", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""


@pytest.fixture
def daemon(lab, tmp_path):
    """A Program that stands for one of ours and runs these lines first."""
    def make(lines=""):
        path = procs.write(str(tmp_path / "daemon"), DAEMON % (sys.executable, lines), 0o755)
        program = programs.Program("relay365-tokend", lab.folder, lab.config, path=path)
        lab._daemons["relay365-tokend"] = program
        return program
    return make


def test_life_of_a_program(lab, daemon):
    it = daemon().start()
    assert it.notify.said == ["STATUS=up", "READY=1"]
    assert "config " + lab.config in it.log()
    first = it.pid
    it.pause()
    it.resume()
    it.restart()
    assert it.running() and it.pid != first
    it.kill()
    assert not it.running()
    it.start()
    assert it.stop() == 0
    assert lab.close() == []


def test_a_program_that_does_not_start(daemon):
    it = daemon("sys.exit('relay365.conf:3: no')")
    with pytest.raises(AssertionError, match=r"conf:3: no"):
        it.start()
    assert it.expect_end() == 1


def test_a_program_that_dies_is_found(lab, daemon):
    it = daemon().start()
    os.kill(it.pid, signal.SIGABRT)
    it.process.wait()
    assert lab.close() == ["relay365-tokend ended by itself with -6"]


def test_sanitizer_reports_are_found(lab, daemon):
    daemon("print('x.c:3:1: runtime error: shift', flush=True)").start()
    (problem,) = lab.close()
    assert problem.startswith("log/relay365-tokend.log: runtime error: shift")


def test_leaks_are_found(lab, daemon, sink):
    secret = lab.canary("a refresh token")
    daemon("print('token=%s', flush=True)" % secret.replace("%", "%%")).start()
    # tried once: a message that is tried has no cause in mailq
    lab.make_postfix(plugin=False, main={
        "default_transport": sink.route,
        "minimal_backoff_time": "1h", "maximal_backoff_time": "1h"}).start()
    sink.replies["a@example.com"] = "450 4.2.0 " + secret
    sent = lab.postfix.send("erp@contoso.com", ["a@example.com"])
    lab.postfix.wait_status(sent.qid, "deferred")
    # the log tells it a moment before the queue manager lets go of the message
    procs.wait_for(lambda: secret in lab.postfix.mailq(), 30, lambda: lab.postfix.mailq())
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", secret],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sleeper.stdout.readline()       # before, its command line may not be there yet
    try:
        problems = lab.close()
    finally:
        sleeper.communicate()
    assert sorted(p.rpartition(" ")[2] for p in problems) == [
        "lines", "log/relay365-tokend.log", "mailq", "p/log/mail.log"]


def test_the_usual_laboratory(lab):
    text = lab.configure(limits={"runaway": {"per": "source", "max": 5, "shadow": True}})
    assert 'state_dir = "%s/state"' % lab.folder in text
    assert 'secret_file = "%s"' % lab.secret_file in text
    assert "smtp_port = %d" % lab.sim.smtp_port in text
    assert os.stat(lab.queue_dir + "/relay365").st_mode & 0o7777 == 0o2750
    box = lab.make_postfix(chroot=True).start()
    assert os.path.isdir(box.queue_dir + "/relay365m")
    with open("/proc/%d/environ" % box.processes()[-1], "rb") as f:
        environ = f.read().decode()
    assert "SASL_PATH=" + ":".join(programs.sasl_folders()) in environ
    assert programs.plugin_folder() in environ
    with pytest.raises(smtplib.SMTPException):
        with smtplib.SMTP(lab.sim.smtp_address, lab.sim.smtp_port) as smtp:
            smtp.login("relay@contoso.com", "wrong")


@pytest.mark.needs_build
@CHROOT
def test_everything_together(lab, chroot):
    lab.configure()
    lab.tokend.start()
    lab.milter.start()
    box = lab.setup_postfix(chroot=chroot).start()
    assert lab.tokend.notify.said[0] == "READY=1"
    sent = box.send("erp@contoso.com", ["a@example.com", "b@contoso.com"])
    assert sent.ok, sent
    box.wait_status(sent.qid, "sent", 2)
    (message,) = lab.sim.wait_messages(1)
    assert message["mailbox"] == "relay@contoso.com"
    lab.tokend.pause()
    lab.tokend.resume()
    lab.relay365("status", status=None)
    assert lab.close() == []


def test_libconfig_language():
    assert relay365_conf.settings({
        "a": True, "b": ["x", 'q"\\'], "c": {"d-e": {"max": 3}}, "n": None,
        "big": 1 << 40}) == (
            'a = true\nb = ["x", "q\\"\\\\"]\nc : {\n    d-e : {\n        max = 3\n'
            "    }\n}\nbig = 1099511627776L\n")
