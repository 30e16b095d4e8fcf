"""The stand-in's submission server refuses what Exchange Online refuses."""

import base64
import concurrent.futures
import json
import smtplib
import ssl
import threading

import pytest

from sim_fixtures import (  # noqa: F401
    APP, BOX, TENANT, message, send, server, session, sim, token, xoauth2)
from client import canary_forms
from plain import Client, b64url, blob


def test_ehlo_offers_auth_only_after_tls(sim):
    client = Client(sim, tls=False)
    assert b"Microsoft ESMTP MAIL Service ready" in client.greeting
    assert not client.has_extn("auth") and client.has_extn("starttls")
    for name in ("pipelining", "dsn", "enhancedstatuscodes", "8bitmime",
                 "binarymime", "chunking", "smtputf8"):
        assert client.has_extn(name)
    assert client.esmtp_features["size"] == "157286400"
    assert client.docmd("AUTH", "XOAUTH2")[0] == 504
    code, text = client.mail(BOX)
    assert code == 530 and b"5.7.57" in text
    client.starttls(context=ssl.create_default_context(cafile=sim.ca))
    client.ehlo()
    assert client.esmtp_features["auth"].split() == ["LOGIN", "XOAUTH2"]
    assert not client.has_extn("starttls")
    assert sim.state()["smtp"]["sessions"][-1]["sni"] == "smtp.office365.com"


def test_token_from_entra_opens_the_mailbox(sim):
    access_token = token(sim)
    client = Client(sim)
    code, text = client.docmd("AUTH", "XOAUTH2 " + blob(BOX, access_token))
    assert (code, text) == (235, b"2.7.0 Authentication successful")
    code, text = send(client, ("a@example.org", "b@contoso.com"))
    assert code == 250 and text.startswith("2.0.0 OK <1@contoso.com> [Host")
    client.quit()
    (stored,) = sim.messages()
    assert stored["recipients"] == ["a@example.org", "b@contoso.com"]
    assert stored["mailbox"] == BOX and stored["external"] == 1
    assert sim.body(stored) == message()
    for log in (sim.log("smtp"), sim.log("entra")):
        assert not any(form in log for form in canary_forms("CANARYtoken"))


def test_two_step_with_a_long_token_and_the_line_limit(sim):
    client = Client(sim)
    assert xoauth2(client, sim.mint(TENANT, APP, length=9000))[0] == 235
    client = Client(sim)
    code, text = xoauth2(client, sim.mint(TENANT, APP, length=12000))
    assert (code, text[:5]) == (500, b"5.5.6")
    sim.set(smtp={"strict_line": True})
    assert client.docmd("AUTH", "XOAUTH2 " + "A" * 600)[0] == 500


def test_auth_response_must_be_exact(sim):
    client, good = Client(sim), sim.mint(TENANT, APP)
    for text in ("user=%s\1auth=Bearer %s\1" % (BOX, good),
                 "user=%s\1auth=%s\1\1" % (BOX, good),
                 "n,a=%s,\1auth=Bearer %s\1\1" % (BOX, good)):
        raw = base64.b64encode(text.encode()).decode()
        assert client.docmd("AUTH", "XOAUTH2 " + raw)[0] == 501
    assert client.docmd("AUTH", "XOAUTH2 !!!")[0] == 501
    client.docmd("AUTH", "XOAUTH2")
    assert client.docmd("*")[0] == 535
    assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 504
    client.docmd("AUTH", "LOGIN")
    client.docmd("YQ==")
    code, text = client.docmd("YQ==")
    assert code == 535 and b"basic authentication is disabled" in text


@pytest.mark.parametrize("claims, why", [
    ({"audience": "https://graph.microsoft.com"}, "audience"),
    ({"expires_in": -1}, "expired"),
    ({"roles": []}, "SendAsApp"),
])
def test_bad_tokens_are_refused(sim, claims, why):
    client = Client(sim)
    code, text = xoauth2(client, sim.mint(TENANT, APP, **claims))
    assert code == 535
    assert text.startswith(b"5.7.3 Authentication unsuccessful [")
    assert why in sim.state()["smtp"]["sessions"][-1]["auth"][0]["why"]


def test_altered_foreign_and_revoked_tokens_are_refused(sim):
    client, good = Client(sim), sim.mint(TENANT, APP)
    head, claims, tail = good.split(".")
    text = base64.urlsafe_b64decode(claims + "==").replace(
        b"outlook.office365.com", b"outlook.office365.net")
    altered = ".".join((head, b64url(text), tail))
    assert xoauth2(client, altered)[0] == 535
    assert xoauth2(client, "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA")[0] \
        == 535
    assert xoauth2(client, sim.mint("fabrikam.com", APP))[0] == 535
    assert xoauth2(client, good, "nobody@contoso.com")[0] == 535
    sim.revoke()
    assert xoauth2(client, good)[0] == 535
    assert xoauth2(client, sim.mint(TENANT, APP))[0] == 235


@pytest.mark.parametrize("where, values, text", [
    ("tenant", {"smtp_auth_disabled": True}, "disabled for the Tenant"),
    ("mailbox", {"smtp_auth_disabled": True}, "disabled for the Mailbox"),
    ("mailbox", {"licensed": False}, "5.7.3 "),
    ("mailbox", {"access": []}, "5.7.3 "),
    ("client", {"registered": False}, "5.7.3 "),
])
def test_switches_of_exchange(sim, where, values, text):
    {"tenant": lambda: sim.tenant(TENANT, **values),
     "mailbox": lambda: sim.mailbox(BOX, **values),
     "client": lambda: sim.client(TENANT, APP, **values)}[where]()
    code, reply = xoauth2(Client(sim), sim.mint(TENANT, APP))
    assert code == 535 and text in reply.decode()
    # the mailbox's own switch goes before the organisation's
    if where == "tenant":
        sim.mailbox(BOX, smtp_auth_disabled=False)
        session(sim).quit()


def test_send_as_is_judged_on_the_header(sim):
    sim.mailbox(BOX, send_as=["erp@contoso.com"])
    client = session(sim)
    assert send(client, body=message("erp@contoso.com"))[0] == 250
    assert send(client, sender="elsewhere@example.com")[0] == 250
    code, text = send(client, body=message("boss@contoso.com"))
    assert code == 554
    assert text.startswith("5.2.252 SendAsDenied; relay@contoso.com not "
                           "allowed to send as boss@contoso.com; STOREDRV.")
    code, text = send(client, body=message(
        extra="Sender: boss@contoso.com\r\n"))
    assert text.startswith("5.2.252")
    code, text = send(client, body=b"Subject: no sender\r\n\r\nx\r\n")
    assert code == 550 and text.startswith("5.7.512")
    code, text = send(client, body=message("%s>, B <%s" % (BOX, BOX)))
    assert text.startswith("5.1.20")
    sim.set(smtp={"check_envelope": True})
    assert send(client, sender="x@example.com")[1].startswith("5.7.60")


def test_recipients_per_day_is_exact_and_rolls(sim):
    sim.mailbox(BOX, recipients_per_day=5, window_seconds=3600)
    client = session(sim)
    assert send(client, ["r%d@example.org" % i for i in range(4)])[0] == 250
    code, text = send(client, ["a@example.org", "b@example.org"])
    assert code == 554 and text.startswith(
        "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceeded")
    assert send(client)[0] == 250
    assert send(client)[0] == 554
    sim.set(clock_offset=3601)
    assert send(client)[0] == 250
    use = sim.state()["smtp"]["mailboxes"][BOX]
    assert use["max_recipients_in_window"] == 5
    assert use["recipients"] == 6 and use["refused"] == {"554 5.2.0": 2}


def test_messages_per_minute(sim):
    sim.mailbox(BOX, messages_per_minute=2, minute_seconds=3600)
    client = session(sim)
    assert send(client)[0] == send(client)[0] == 250
    code, text = send(client)
    assert code == 421 and text.startswith("4.4.2 Message submission rate")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()
    sim.mailbox(BOX, minute_mode="delay")
    client = session(sim)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        third = pool.submit(send, client)
        sim.wait(lambda s: s["smtp"]["mailboxes"][BOX]["over_rate"] == 2)
        assert sim.state()["smtp"]["mailboxes"][BOX]["max_messages_in_minute"] == 2
        sim.mailbox(BOX, minute_seconds=1)
        assert third.result()[0] == 250
    assert sim.messages()[-1]["delayed"]
    for _i in range(2):
        assert send(client)[0] == 250
    assert sim.state()["smtp"]["mailboxes"][BOX]["max_messages_in_minute"] <= 2
    sim.mailbox(BOX, minute_mode="carry", minute_seconds=3600)
    assert send(client)[0] == 250
    assert sim.messages()[-1]["carried"]


def test_three_submissions_at_once(sim):
    sim.mailbox(BOX, hold_seconds=3)
    clients = [session(sim) for _i in range(5)]
    for client in clients:
        client.mail(BOX)
        client.rcpt("a@example.org")
        assert client.docmd("DATA")[0] == 354
    together = threading.Barrier(5)

    def submit(client):
        together.wait()
        client.send(message() + b".\r\n")
        return client.getreply()

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        results = list(pool.map(submit, clients))
    codes = sorted(code for code, _text in results)
    assert codes == [250, 250, 250, 432, 432]
    text = next(text for code, text in results if code == 432)
    assert text.startswith(b"4.3.2 Concurrent connections limit exceeded.")
    use = sim.state()["smtp"]["mailboxes"][BOX]
    assert use["peak_sessions"] == 5
    for client in clients:
        client.quit()
    assert sim.state()["smtp"]["mailboxes"][BOX]["sessions"] == 0


def test_sizes_and_recipient_limits(sim):
    sim.mailbox(BOX, message_size=100000, recipients_per_message=3)
    client = session(sim)
    code, text = client.mail(BOX, ["SIZE=157286401"])
    assert code == 552
    code, text = send(client, body=message(size=200000))
    assert code == 554 and text.startswith("5.2.270")
    four = ["r%d@example.org" % i for i in range(4)]
    code, text = send(client, four)
    assert code == 550 and "RESOLVER.ADR.RecipLimit" in text
    sim.set(smtp={"max_recipients": 3, "header_size": 1000})
    client.mail(BOX)
    replies = [client.rcpt(r) for r in four]
    assert [code for code, _text in replies] == [250, 250, 250, 452]
    assert replies[3][1].startswith(b"4.5.3")
    client.rset()
    code, text = send(client, body=message(extra="X-Long: %s\r\n" % (
        "\r\n ".join(["x" * 70] * 20))))
    assert code == 552 and text.startswith("5.3.4 Header size")
    sim.set(smtp={"same_domain_limit": 2, "max_recipients": 1000})
    client.mail(BOX)
    assert [client.rcpt(r)[0] for r in four] == [250, 250, 452, 452]
    assert client.rcpt("x@example.net")[0] == 250


def test_tenant_limits_and_blocks(sim):
    sim.tenant(TENANT, external_recipients_per_day=1)
    client = session(sim)
    assert send(client, ("a@example.org", "b@contoso.com"))[0] == 250
    assert send(client)[1].startswith("5.7.233")
    assert send(client, ("b@contoso.com",))[0] == 250
    sim.tenant(TENANT, trial=True)
    assert send(client)[1].startswith("5.7.232")
    sim.tenant(TENANT, blocked=True)
    assert send(client)[1].startswith("5.7.705")
    sim.mailbox(BOX, blocked=True)
    assert send(client)[1].startswith("5.1.8")


def test_order_of_commands(sim):
    client = session(sim)
    assert client.docmd("DATA")[0] == 503
    assert client.rcpt("a@example.org")[0] == 503
    assert client.docmd("AUTH", "XOAUTH2")[0] == 503
    assert client.docmd("MAIL", "FROM: <a@b>")[0] == 501
    assert client.docmd("MAIL", "FROM:<a@b> FOO=BAR")[0] == 501
    assert client.mail("")[0] == 250
    assert client.mail(BOX)[0] == 503
    assert client.docmd("DATA")[0] == 503
    assert client.docmd("BOGUS")[0] == 500
    assert client.docmd("STARTTLS")[0] == 503


def test_pipelining_and_a_message_that_is_only_dots(sim):
    client = session(sim)
    rcpts = ["r%d@example.org" % i for i in range(500)]
    client.send("MAIL FROM:<%s>\r\n" % BOX)
    client.send("".join("RCPT TO:<%s>\r\n" % r for r in rcpts))
    client.send("DATA\r\n")
    codes = [client.getreply()[0] for _i in range(502)]
    assert codes == [250] * 501 + [354]
    text = message() + b"\r\n.\r\nMAIL FROM:<x@y>\r\n..\r\n"
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line
                           for line in text.split(b"\r\n"))
    client.send(stuffed + b".\r\nNOOP\r\n")
    assert client.getreply()[0] == 250
    assert client.getreply()[0] == 250
    (stored,) = sim.messages()
    assert sim.body(stored) == text and stored["recipients"] == rcpts
    assert sim.state()["smtp"]["violations"] == []


def test_bare_line_feeds_and_early_talkers_are_noticed(sim):
    client = session(sim)
    client.mail(BOX)
    client.rcpt("a@example.org")
    client.docmd("DATA")
    client.send(message() + b"a\nb\r\n.\r\n")
    code, text = client.getreply()
    assert code == 550 and text.startswith(b"5.6.11")
    client.send("NOOP\nNOOP\r\n")
    assert client.getreply()[0] == 500
    assert client.getreply()[0] == 250
    assert sim.state()["smtp"]["violations"]


def test_bdat(sim):
    client = session(sim)
    client.mail(BOX, ["BODY=BINARYMIME"])
    client.rcpt("a@example.org")
    assert client.docmd("DATA")[0] == 503
    first, second = message() + b"\n.\r\n", b"\0binary"
    client.send(b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (
        len(first), first, len(second), second))
    assert client.getreply()[0] == 250
    assert client.getreply()[0] == 250
    assert sim.body(sim.messages()[0]) == first + second
    client.send(b"BDAT 4 LAST\r\nNOOPNOOP\r\n")
    assert client.getreply()[0] == 503
    assert client.getreply()[0] == 250


def test_fifty_sessions_and_large_messages(sim):
    sim.mailbox(BOX, max_connections=60, messages_per_minute=1000)
    clients = [session(sim) for _i in range(50)]
    body = message(size=5000000)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        small = list(pool.map(send, clients))
        large = list(pool.map(lambda c: send(c, body=body), clients[:4]))
    assert [code for code, _text in small + large] == [250] * 54
    smtp = sim.state()["smtp"]
    assert smtp["authenticated"] == 50 and smtp["messages"] == 54
    assert sim.body(sim.messages()[-1]) == body


@pytest.mark.parametrize("at", ["CONNECT", "EHLO", "STARTTLS", "TLS", "AUTH",
                                "AUTH_RESPONSE", "MAIL", "RCPT", "DATA",
                                "BODY", "EOD", "STORED"])
def test_connection_drops_where_asked(sim, at):
    sim.fault("smtp", "drop", at=at, times=1)
    with pytest.raises((OSError, smtplib.SMTPException)):
        send(session(sim))
    assert len(sim.messages()) == (1 if at == "STORED" else 0)
    assert send(session(sim))[0] == 250


def test_replies_on_demand(sim):
    sim.fault("smtp", "reply", at="RCPT", match="<b@", times=1,
              text="451 4.7.500 Server busy. (S77719)")
    sim.fault("smtp", "reply", at="EOD", after=1, mailbox=BOX,
              text="451 4.7.0 Temporary server error. PRX4")
    client = session(sim)
    assert send(client)[0] == 250
    client.mail(BOX)
    assert client.rcpt("a@example.org")[0] == 250
    assert client.rcpt("b@example.org")[0] == 451
    assert client.data(message())[0] == 451
    sim.clear()
    sim.fault("smtp", "reply", at="MAIL", text="421 4.3.2 Service not active")
    assert client.mail(BOX)[0] == 421
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()


def test_silence_lasts_until_it_is_cleared(sim):
    sim.fault("smtp", "silence", at="MAIL")
    clients = [session(sim), session(sim)]
    for client in clients:
        client.send("MAIL FROM:<%s>\r\n" % BOX)
    sim.wait(lambda s: s["faults"][0]["hits"] == 2)
    assert sim.state()["smtp"]["authenticated"] == 2
    clients.pop().close()               # or until the client leaves
    sim.wait(lambda s: s["smtp"]["authenticated"] == 1)
    sim.clear()
    assert clients[0].sock.recv(1) == b""
    sim.wait(lambda s: s["smtp"]["authenticated"] == 0)


def test_idle_session_is_ended(sim):
    sim.set(smtp={"idle_seconds": 3})
    client = session(sim)
    code, text = client.getreply()
    assert code == 421 and text.startswith(b"4.4.2")


def test_auth_faults(sim):
    good = sim.mint(TENANT, APP)
    for reason, text in (("unsuccessful", b"5.7.3 "), ("policy", b"criteria"),
                         ("tenant", b"for the Tenant")):
        number = sim.fault("smtp", "auth_fail", reason=reason)
        code, reply = xoauth2(Client(sim), good)
        assert code == 535 and text in reply
        sim.clear(number=number)
    sim.fault("smtp", "error_challenge", times=1)
    client = Client(sim)
    code, challenge = xoauth2(client, good)
    assert code == 334
    assert json.loads(base64.b64decode(challenge))["status"] == "401"
    assert client.docmd("")[0] == 535
    assert sim.state()["smtp"]["violations"] == []
    sim.fault("smtp", "challenge", times=1)
    code, challenge = client.docmd("AUTH", "XOAUTH2")
    assert code == 334 and base64.b64decode(challenge)
    assert client.docmd(blob(BOX, good))[0] == 235
    sim.fault("smtp", "no_auth")
    client = Client(sim)
    assert not client.has_extn("auth")
    assert client.docmd("AUTH", "XOAUTH2")[0] == 504
    sim.fault("smtp", "no_starttls")
    with pytest.raises(smtplib.SMTPNotSupportedError):
        Client(sim)


@pytest.mark.parametrize("which", ["wrong", "expired", "untrusted"])
def test_bad_certificates_of_exchange(sim, which):
    sim.fault("smtp", "certificate", which=which, times=1)
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(sim)
    Client(sim).quit()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(sim):
    client = Client(sim, tls=False)
    context = ssl.create_default_context(cafile=sim.ca)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        client.starttls(context=context)
    sim.wait(lambda s: s["smtp"]["tls_failed"] == 1)
