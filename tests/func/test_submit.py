"""relay365-submit as an MTA sees it."""

import os
import signal
import socket
import subprocess
import sys

import pytest

import flow
import procs
import programs
from submit_client import SubmitClient

pytestmark = pytest.mark.needs_build
MIB = 1024 * 1024


def start(lab, mailboxes=None, run=True, **top):
    mailboxes = mailboxes or {"relay": {}}
    for keys in mailboxes.values():
        keys.setdefault("messages_per_minute", 60000)
    lab.configure(mailboxes=mailboxes, **top)
    lab.tokend.start()
    if run:
        lab.submit.start()
    return lab.folder + "/srun/submit"


def test_the_list_of_ehlo_is_the_servers_less_what_is_ours(lab):
    with SubmitClient(start(lab)) as client:
        assert client.hello() == ["SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES",
                                  "8BITMIME", "SMTPUTF8"]
        assert client.ask("HELO gateway.test").startswith("250 ")
        assert client.ask("STARTTLS").startswith("502 ")
        assert client.ask("AUTH XOAUTH2").startswith("502 ")
        assert client.ask("QUIT").startswith("221 ")
        assert client.reply() == ""


def test_commands_and_replies_pass_pipelined(lab):
    with SubmitClient(start(lab)) as client:
        client.hello()
        replies = client.message("erp@contoso.com", ["a@example.net", "b@example.net"])
        assert replies[:4] == ["250 2.1.0 Sender OK\r\n", "250 2.1.5 Recipient OK\r\n",
                               "250 2.1.5 Recipient OK\r\n",
                               "354 Start mail input; end with <CRLF>.<CRLF>\r\n"]
        assert replies[4].startswith("250 2.0.0 OK <")
        # the end of one message and the next one in one piece
        client.send("MAIL FROM:<erp@contoso.com>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n")
        assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        client.send("From: <erp@contoso.com>\r\n\r\n..dot\r\n.\r\nRSET\r\n"
                    "MAIL FROM:<erp@contoso.com>\r\nRCPT TO:<no address>\r\nQUIT\r\n")
        assert [client.reply()[:3] for _ in range(5)] == ["250", "250", "250", "501", "221"]
    assert [m["recipients"] for m in lab.sim.messages()] == [
        ["a@example.net", "b@example.net"], ["c@example.net"]]
    assert lab.sim.body(lab.sim.messages()[1]).endswith(b"\r\n\r\n.dot\r\n")
    assert lab.sim.state()["smtp"]["violations"] == []
    assert len(lab.sim.state()["smtp"]["sessions"]) == 1
    assert flow.status(lab)["tokend"]["mailboxes"][0]["delivered"] == 3


def test_several_mailboxes_by_sender(lab):
    alerts = flow.second_mailbox(lab)
    path = start(lab, {"relay": {"address": "relay@contoso.com", "senders": ["*@contoso.com"]},
                       "alerts": {"address": alerts, "senders": ["monitor@contoso.com"]}})
    with SubmitClient(path) as client:
        client.hello()
        for sender in ("erp@contoso.com", "monitor@contoso.com", "Monitor@Contoso.com"):
            assert client.message(sender, ["a@example.net"])[-1].startswith("250 ")
        assert "no mailbox" in client.ask("MAIL FROM:<who@example.org>")
        assert client.ask("RCPT TO:<a@example.net>").startswith("503 ")
        assert client.ask("MAIL FROM:<>").startswith("451 4.7.0 no mailbox")
        assert client.message("erp@contoso.com", ["a@example.net"])[-1].startswith("250 ")
    assert [m["mailbox"] for m in lab.sim.messages()] == [
        "relay@contoso.com", alerts, alerts, "relay@contoso.com"]


def test_one_broken_mailbox_leaves_the_others_alone(lab):
    alerts = flow.second_mailbox(lab)
    path = start(lab, {"relay": {"address": "relay@contoso.com", "senders": ["*@contoso.com"],
                                 "default": True},
                       "alerts": {"address": alerts, "senders": ["monitor@contoso.com"]}})
    lab.sim.fault("smtp", "auth_fail", mailbox=alerts)
    with SubmitClient(path) as client:
        client.hello()
        assert client.ask("MAIL FROM:<monitor@contoso.com>").startswith("451 4.7.0 ")
        assert client.message("erp@contoso.com", ["a@example.net"])[-1].startswith("250 ")
        assert client.message("", ["a@example.net"])[-1].startswith("250 ")
    assert {m["mailbox"] for m in lab.sim.messages()} == {"relay@contoso.com"}


def test_recipients_beyond_the_lease_are_for_later(lab):
    # a twentieth of the day is what a lease reserves
    with SubmitClient(start(lab, {"relay": {"recipients_per_day": 60}})) as client:
        client.hello()
        replies = client.message("erp@contoso.com", flow.numbers(5))
        assert [r[:3] for r in replies] == ["250"] * 4 + ["452"] * 2 + ["354", "250"]
    assert lab.sim.messages()[0]["recipients"] == flow.numbers(3)


@pytest.mark.parametrize("length", [3500, 11000])
def test_long_tokens(lab, length):
    tenant = flow.relay365_conf_tenant(lab)
    lab.sim.tenant(tenant, token_length=length)
    lab.sim.set(smtp={"auth_line_limit": 16384})
    with SubmitClient(start(lab)) as client:
        client.hello()
        assert client.message("erp@contoso.com", ["a@example.net"])[-1].startswith("250 ")
    assert lab.sim.state()["smtp"]["sessions"][0]["auth"][0]["token_length"] == length


def peak_memory(pid):
    text = procs.read("/proc/%d/status" % pid)
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_message_of_150_mb_needs_no_memory(lab):
    lab.sim.mailbox("relay@contoso.com", message_size=157286400)
    lab.sim.set(smtp={"store": False})
    with SubmitClient(start(lab)) as client:
        client.hello()
        before = peak_memory(lab.submit.pid)
        client.send("MAIL FROM:<erp@contoso.com>\r\nRCPT TO:<a@example.net>\r\nDATA\r\n")
        assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        client.send(b"From: <erp@contoso.com>\r\n\r\n")
        line = b"x" * 998 + b"\r\n"
        for _ in range(149):
            client.send(line * (MIB // 1000))
        client.send(b".\r\n")
        assert client.reply().startswith("250 ")
        # a sanitizer keeps what was freed
        with open(programs.program("relay365-submit"), "rb") as f:
            sanitized = b"__asan_init" in f.read()
        assert sanitized or peak_memory(lab.submit.pid) - before < 4 * MIB
    assert lab.sim.messages()[0]["size"] > 148 * MIB


def test_half_closed(lab):
    """Who has said all and still listens hears all."""
    with SubmitClient(start(lab)) as client:
        client.hello()
        client.send("MAIL FROM:<erp@contoso.com>\r\nRCPT TO:<a@example.net>\r\nDATA\r\n")
        assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        client.send("From: <erp@contoso.com>\r\n\r\ntest\r\n.\r\nQUIT\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.reply()[:3] for _ in range(3)] == ["250", "221", ""]


def test_half_a_message_is_none(lab):
    path = start(lab)
    with SubmitClient(path) as client:
        client.hello()
        client.send("MAIL FROM:<erp@contoso.com>\r\nRCPT TO:<a@example.net>\r\nDATA\r\n")
        assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        client.send("From: <erp@contoso.com>\r\n\r\ntest\r\n\r\n.")
    lab.sim.wait(lambda s: s["smtp"]["open"] == 0)
    assert lab.sim.messages() == []
    with SubmitClient(path) as client:      # and its slot is free again
        client.hello()
        assert client.message("erp@contoso.com", ["a@example.net"])[-1].startswith("250 ")


def test_a_slow_reader(lab):
    path = start(lab)
    with SubmitClient(path) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.hello()
        client.send("NOOP\r\n" * 300)
        assert [client.reply()[:3] for _ in range(300)] == ["250"] * 300
        client.send("MAIL FROM:<erp@contoso.com>\r\n" + "".join(
            "RCPT TO:<%s>\r\n" % r for r in flow.numbers(500)))
        assert [client.reply()[:3] for _ in range(501)] == ["250"] * 501


def test_bare_line_feeds_and_endless_lines_end_the_session(lab):
    path = start(lab)
    for text in ("NOOP\n", "NOOP " + "x" * 70000):
        with SubmitClient(path) as client:
            client.hello()
            client.send(text)
            assert client.reply().startswith("500 5.5.2 ")
            client.sock.shutdown(socket.SHUT_WR)
            assert client.reply() == ""


def test_other_users_are_turned_away(lab):
    path = start(lab)
    os.chmod(os.path.dirname(path), 0o755)
    os.chmod(path, 0o666)
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); " \
           "print(s.recv(100))"
    done = subprocess.run([sys.executable, "-c", code, path], stdout=subprocess.PIPE,
                          user="nobody", check=True, text=True, timeout=30)
    assert done.stdout == "b''\n"
    lab.submit.wait_log("wanted to send and was turned away; token_users in")


def test_a_network_address_is_guarded(lab):
    port = procs.free_port()
    start(lab, submit_listen="127.0.0.1:%d" % port, submit_clients=["127.0.0.1"])
    with SubmitClient(("127.0.0.1", port)) as client:
        client.hello()
        assert client.message("erp@contoso.com", ["a@example.net"])[-1].startswith("250 ")
    with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0)) as other:
        assert other.recv(100) == b""
    lab.submit.wait_log("a client at 127.0.0.9 wanted to send and was turned away")


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="there is no IPv6 here")
def test_both_protocols_at_one_network_address(lab):
    """Where [::] takes IPv4 too, its clients go by the addresses that they have there."""
    port = procs.free_port()
    start(lab, submit_listen="[::]:%d" % port, submit_clients=["127.0.0.1"])
    with SubmitClient(("127.0.0.1", port)) as client:
        client.hello()
    with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0)) as other:
        assert other.recv(100) == b""
    lab.submit.wait_log("a client at 127.0.0.9 wanted to send and was turned away")


def test_a_reload_is_for_new_sessions(lab):
    path = start(lab)
    good = procs.read(lab.config)
    with SubmitClient(path) as client:
        client.hello()
        for text, result in ((good + "nonsense = 1\n", "refused"), (good, "ok")):
            procs.write(lab.config, text, 0o640)
            mark = lab.submit.mark()
            lab.submit.process.send_signal(signal.SIGHUP)
            lab.submit.wait_log("reload result=" + result, since=mark)
        assert client.message("erp@contoso.com", ["a@example.net"])[-1].startswith("250 ")


def test_the_command_reaches_it(lab):
    path = start(lab, run=False)
    assert "submit" not in flow.status(lab)
    lab.milter.start()
    lab.submit.start()
    with SubmitClient(path) as client:
        client.hello()
        assert flow.status(lab)["submit"]["sessions"] == 1
    assert "relay365-submit: up since" in lab.relay365("status").stdout
    assert "relay365-submit has read the configuration again" in lab.relay365("reload").stdout
    lab.submit.wait_log("reload result=ok by=control")


def test_wrong_settings_end_it_at_the_start(lab):
    for keys, words in (({"submit_listen": "localhost"}, "no address with a port"),
                        ({"submit_listen": "127.0.0.1:1", "submit_clients": ["here"]},
                         "no address or network")):
        lab.configure(**keys)
        done = subprocess.run([programs.program("relay365-submit"), "-c", lab.config],
                              stderr=subprocess.PIPE, text=True, timeout=30, check=False,
                              env=programs.environment(lab.folder))
        assert done.returncode == 78 and words in done.stderr
