"""relay365 metrics: OpenMetrics to the letter, and what status says."""

import contextlib
import datetime
import json
import os
import socketserver
import threading
import time

import pytest

import flow
import openmetrics
import procs
import token_client
from milter_client import Client

pytestmark = pytest.mark.needs_build

ODD = '"a\\\\b\\"c"@contoso.com'     # backslashes and quotes, as SMTP lets an address have them


def read(lab, **options):
    done = lab.relay365("metrics", **options)
    assert done.stderr == ""
    return openmetrics.parse(done.stdout)[1]


def seconds(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def names(samples):
    return {name for name, _labels in samples}


def with_labels(samples, name):
    return [dict(labels) for one, labels in samples if one == name]


# -- daemons that live -------------------------------------------------------------

def start(lab):
    lab.configure(limits={"per-sender": {"per": "sender", "count": "messages", "max": 50,
                                         "window": "24h"}})
    lab.tokend.start()
    lab.milter.start()
    path = lab.folder + "/run/token"
    assert token_client.ask(path, verb="status", code=250, text="2.0.0 OK", recipients=7)
    assert token_client.ask(path, verb="status", code=550, text="5.1.10 no", recipients=1)
    with Client(lab.milter_socket) as client:
        for n, sender in enumerate([ODD, ODD, "erp@contoso.com"]):
            client.mail(sender)
            assert client.rcpt("r%d@example.net" % n)
            assert client.end("4XyZ%d" % n)
    lab.relay365("lock", "source:" + ODD, "--reason", "a\\trial")


def test_says_what_status_says(lab):
    start(lab)
    procs.wait_for(lambda: flow.status(lab)["tokend"]["tokens"][0]["state"] == "valid", 10,
                   "the token")
    status, samples = flow.status(lab), read(lab)
    tokend, milter = status["tokend"], status["milter"]

    def value(name, **labels):
        return openmetrics.of(samples, "relay365_" + name, **labels)

    for name, answer in ("tokend", tokend), ("milter", milter):
        assert value("up", daemon=name) == 1
        assert value("build_info", daemon=name, version=answer["version"]) == 1
        assert value("start_time_seconds", daemon=name) == seconds(answer["started"])
        assert value("locks", daemon=name) == len(answer["locks"]) == 1
        [lock] = answer["locks"]
        assert value("lock_start_time_seconds", daemon=name, by="admin",
                     key=lock["key"]) == seconds(lock["since"])
        assert "\\" in lock["key"] and '"' in lock["key"]
    assert not with_labels(samples, "relay365_up") [2:], "there is no relay365-submit"
    [token], [box], [own] = tokend["tokens"], tokend["mailboxes"], milter["mailboxes"]
    assert value("token_valid", tenant="contoso") == 1
    assert abs(value("token_expires_in_seconds", tenant="contoso") - token["expires_in_s"]) < 20
    assert value("token_requests_total", tenant="contoso") == token["requests"] == 1
    assert value("token_failures", tenant="contoso") == 0
    assert value("mailbox_info", mailbox="relay", address=box["address"], tenant="contoso") == 1
    for name, row, member in [
            ("delivered_recipients", box, "delivered"), ("leases", box, "leases"),
            ("delivered_recipients_max", box, "recipients_per_day"),
            ("bounced_recipients_total", box, "bounced_recipients"),
            ("deferred_recipients_total", box, "deferred_recipients"),
            ("sent_recipients_total", box, "accepted_recipients"),
            ("leases_max", box, "connections"), ("accepted_recipients", own, "used"),
            ("accepted_recipients_max", own, "max")]:
        assert value("mailbox_" + name, mailbox="relay") == row[member], name
    assert (box["delivered"], own["used"]) == (7, 3)
    assert value("mailbox_problem", mailbox="relay") == ("problem" in box)
    rows = {row["key"]: row for row in milter["limits"] if row["limit"] == "per-sender"}
    assert [row["used"] for row in rows.values()] == [2, 1]
    for key, row in rows.items():
        for member in "used", "reserved", "max":
            assert value("limit_" + member, limit="per-sender", per="sender", count="messages",
                         key=key) == row[member]
    assert any("\\" in key and '"' in key for key in rows)
    # as JSON, the same but for the time that goes on
    listed = {(s["name"], frozenset(s["labels"].items())): s["value"] for s in
              json.loads(lab.relay365("metrics", "--json").stdout)["samples"]}
    assert listed.keys() == samples.keys()
    assert {k for k in samples if listed[k] != samples[k]} <= {
        k for k in samples if "_in_seconds" in k[0]}


def test_daemons_that_are_down(lab):
    lab.configure()
    assert read(lab) == {("relay365_up", frozenset({("daemon", name)})): 0
                         for name in ("tokend", "milter")}
    lab.milter.start()
    samples = read(lab)
    assert openmetrics.of(samples, "relay365_up", daemon="tokend") == 0
    assert openmetrics.of(samples, "relay365_up", daemon="milter") == 1
    assert openmetrics.of(samples, "relay365_mailbox_accepted_recipients", mailbox="relay") == 0
    assert not [n for n in names(samples) if n.startswith("relay365_token")]
    lab.submit.start()
    samples = read(lab)
    assert openmetrics.of(samples, "relay365_up", daemon="submit") == 1
    assert openmetrics.of(samples, "relay365_sessions", daemon="submit") == 0
    lab.submit.kill()
    assert openmetrics.of(read(lab), "relay365_up", daemon="submit") == 0


def test_token_that_is_refused(lab):
    lab.configure()
    lab.sim.fault("entra", "aadsts", code=7000222)
    lab.tokend.start()
    lab.tokend.wait_log("aadsts=7000222")
    samples = read(lab)
    assert openmetrics.of(samples, "relay365_token_valid", tenant="contoso") == 0
    assert openmetrics.of(samples, "relay365_token_failures", tenant="contoso") >= 1
    assert openmetrics.of(samples, "relay365_token_needs_admin", tenant="contoso") == 1
    assert openmetrics.of(samples, "relay365_mailbox_problem", mailbox="relay") == 1
    assert "relay365_token_expires_in_seconds" not in names(samples)


def test_who_may_not_ask(lab):
    """Root's daemons, asked by somebody: no empty picture that looks like a good one."""
    lab.configure(state_dir=None)
    lab.tokend.start()
    os.chmod(lab.config, 0o644)
    done = lab.relay365("metrics", status=1, user="nobody")
    assert done.stdout == "" and "may not ask relay365-" in done.stderr
    done = lab.relay365("metrics", "-j", status=1, user="nobody")
    assert "run this as root" in json.loads(done.stdout)["error"]


# -- answers that no daemon would give every day -----------------------------------

class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"status=ok\nlength=%d\n\n" % len(self.server.answer))
        self.wfile.write(self.server.answer)


@contextlib.contextmanager
def daemon(path, answer):
    """Something that answers status with these bytes, or this object."""
    if not isinstance(answer, bytes):
        answer = json.dumps(answer).encode()
    with socketserver.ThreadingUnixStreamServer(path, Answer) as server:
        server.answer = answer
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def text_time(at):
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_names_that_need_care(lab):
    lab.configure()
    odd = 'line\nbreak "quoted" back\\slash \\n ümläut {a="b",c="d"} # EOF'
    now = int(time.time())
    tokend = {"version": "1", "tokens": [{"tenant": odd, "state": "error", "requests": 3,
                                          "last_error": {"permanent": False, "failures": 2}}],
              "calendar": [{"id": "past", "ends": text_time(now - 1000)},
                           {"id": "next", "ends": text_time(now + 1000)}],
              "mailboxes": [{"name": odd, "paused_until": text_time(now + 500)},
                            {"name": "over", "paused_until": text_time(now - 500)},
                            {"name": "none", "probe": {"result": "refused"}}]}
    shown = odd.replace("\n", " ")
    milter = json.dumps({"limits": [
        {"limit": "l", "key": "A%d" % n, "used": n} for n in range(3)]}).encode()
    # bytes that are no text, and keys that look the same without them
    milter = milter.replace(b"A0", b"\xff\x01").replace(b"A1", b"\xfe\x02").replace(b"A2", b"??")
    with daemon(lab.folder + "/run/control", tokend), daemon(lab.folder + "/mrun/control", milter):
        samples = read(lab)
        listed = json.loads(lab.relay365("metrics", "-j").stdout)["samples"]
    assert {(s["name"], frozenset(s["labels"].items())) for s in listed} == samples.keys()
    assert openmetrics.of(samples, "relay365_token_requests_total", tenant=shown) == 3
    assert openmetrics.of(samples, "relay365_token_failures", tenant=shown) == 2
    assert openmetrics.of(samples, "relay365_token_needs_admin", tenant=shown) == 0
    assert -1100 < openmetrics.of(samples, "relay365_calendar_ends_in_seconds", id="past") <= -1000
    assert 900 < openmetrics.of(samples, "relay365_calendar_ends_in_seconds", id="next") <= 1000
    pause = "relay365_mailbox_pause_seconds"
    assert 400 < openmetrics.of(samples, pause, mailbox=shown) <= 500
    assert openmetrics.of(samples, pause, mailbox="over") == 0
    assert openmetrics.of(samples, pause, mailbox="none") == 0
    assert with_labels(samples, "relay365_mailbox_sign_in_ok") == [{"mailbox": "none"}]
    assert [row["key"] for row in with_labels(samples, "relay365_limit_used")] == ["??"]


def test_there_is_an_end_to_what_is_told(lab):
    """Of each limit's name the ten fullest keys, whichever of its entries they belong to."""
    lab.configure()
    rows = [{"limit": limit, "per": "sender", "count": "messages", "key": "k%d" % n,
             "used": n, "max": top}
            for limit, top in (("a", 1000), ("b", 500)) for n in range(300)]
    rows += [{"limit": "a", "per": "sender", "count": "messages", "key": "own", "used": 1, "max": 1}]
    milter = {"limits": rows, "mailboxes": [{"name": "m%d" % n, "used": n} for n in range(150)],
              "locks": [{"key": "source:%d" % n, "since": "2026-11-26T10:00:00Z"}
                        for n in range(150)]}
    with daemon(lab.folder + "/mrun/control", milter):
        samples = read(lab)
    for limit, own in ("a", {"own"}), ("b", set()):
        keys = {row["key"] for row in with_labels(samples, "relay365_limit_used")
                if row["limit"] == limit}
        assert keys == own | {"k%d" % n for n in range(299, 289 + len(own), -1)}
    assert len(with_labels(samples, "relay365_mailbox_accepted_recipients")) == 150
    assert openmetrics.of(samples, "relay365_locks", daemon="milter") == 150
    assert len(with_labels(samples, "relay365_lock_start_time_seconds")) == 100
