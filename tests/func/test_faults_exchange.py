"""Exchange refuses, breaks off or is somebody else: mail waits, once, and arrives by itself."""

import re

import pytest

import flow
import lab as laboratory
import letters as letters_module
import tenants

pytestmark = pytest.mark.needs_build

LATER = "451 4.7.0 Temporary server error. Please try again later. PRX4"


# -- sign-in refused -----------------------------------------------------------

# mailbox -> the fault there, and what must be said beside Microsoft's own words
SIGN_IN = {
    "unsuccessful": ({"kind": "auth_fail", "reason": "unsuccessful"},
                     "35 [45].7.3 .*check New-ServicePrincipal"),
    "organisation": ({"kind": "auth_fail", "reason": "tenant"},
                     "35 [45].7.139 .*off for the whole tenant; .*Set-CASMailbox"),
    "mailbox": ({"kind": "auth_fail", "reason": "mailbox"},
                "35 [45].7.139 .*off for this mailbox; .*Set-CASMailbox"),
    "policy": ({"kind": "auth_fail", "reason": "policy"}, "35 [45].7.139 .*sign-in log"),
    "defaults": ({"kind": "auth_fail", "reason": "security_defaults"},
                 "35 [45].7.139 .*security defaults refuse"),
    "basic": ({"kind": "auth_fail", "reason": "basic"}, "35 [45].7.139 .*instead of a token"),
    "removed": ({"kind": "auth_fail", "reason": "removed"}, "[45].7.30 .*instead of a token"),
    "temporary": ({"kind": "auth_fail", "reason": "temporary"},
                  "454 4.7.0 .*passing fault"),
    "unheard": ({"kind": "auth_fail", "reason": "535 5.7.199 No more of this"}, "[45].7.199"),
    "json": ({"kind": "error_challenge"}, "35 [45].7.3 .*check New-ServicePrincipal"),
}
FINE = "fine"


def one_tenant(lab, names):
    """Mailboxes of one tenant, each with a sender of its own."""
    domain = laboratory.DOMAINS[0]
    for name in names:
        lab.sim.mailbox("%s@%s" % (name, domain), tenant=laboratory.TENANT, send_as=["*"],
                        messages_per_minute=60000)
    lab.configure(mailboxes={n: {"address": "%s@%s" % (n, domain), "messages_per_minute": 60000,
                                 "senders": ["from-%s@%s" % (n, domain)]} for n in names})


def from_each(letters, names):
    return {n: letters.send("from-%s@%s" % (n, laboratory.DOMAINS[0])) for n in names}


def test_sign_in_refused(lab):
    """Each refusal at a mailbox of its own: it waits, the mailbox beside it sends."""
    one_tenant(lab, [FINE, *SIGN_IN])
    for name, (fault, _text) in SIGN_IN.items():
        lab.sim.fault("smtp", mailbox="%s@%s" % (name, laboratory.DOMAINS[0]), **fault)
    letters = letters_module.started(lab)
    qids = from_each(letters, [FINE, *SIGN_IN])
    letters.wait_arrived([qids[FINE]])
    for name, (_fault, text) in SIGN_IN.items():
        assert letters.wait_deferred(qids[name], text).dsn[0] == "4"
    letters.wait_mailq(*(text for _fault, text in SIGN_IN.values()))
    problems = lab.relay365("status", status=1).stdout
    for name in SIGN_IN:
        assert re.search(r"^  %s: Microsoft refuses its mail" % name, problems, re.M) or \
            name in ("temporary", "unheard"), name
    lab.sim.clear("smtp")
    letters.check_arrived()
    assert lab.sim.state()["smtp"]["violations"] == []
    found = flow.status(lab)["tokend"]["mailboxes"]
    assert [m["name"] for m in found if "problem" in m or m["delivered"] != 1] == []


def test_tokens_revoked(lab):
    """Exchange takes none of the tokens there are: a new one is got without being told to."""
    letters_module.fast(lab)
    letters = letters_module.started(lab)
    letters.wait_arrived([letters.send()])
    lab.sim.revoke()
    letters.send()
    letters.check_arrived()


# -- somebody else, or Exchange in another state -------------------------------

# what the stand-in does to every session, and what must be said
STRANGE = {
    "no-auth": ({"kind": "no_auth"}, "5.7.57|no mechanism available|does not offer|AUTH"),
    "no-starttls": ({"kind": "no_starttls"}, "TLS is required, but was not offered"),
    "challenge": ({"kind": "challenge"}, "SASL authentication failed"),
    "wrong-name": ({"kind": "certificate", "which": "wrong"}, "Server certificate not verified"),
    "expired": ({"kind": "certificate", "which": "expired"},
                "Server certificate not (trusted|verified)"),
    "untrusted": ({"kind": "certificate", "which": "untrusted"},
                  "Server certificate not (trusted|verified)"),
}


def test_strange_servers(lab):
    """AUTH or TLS is not as it must be: no token, no mail, no bounce."""
    letters_module.fast(lab)
    letters = letters_module.started(lab)
    for name, (fault, text) in STRANGE.items():
        number = lab.sim.fault("smtp", **fault)
        letters.wait_deferred(letters.send(), text)
        assert lab.sim.state()["smtp"]["messages"] == len(letters.sent) - 1, name
        lab.sim.clear("smtp", number)
        letters.wait_arrived(letters.qids[-1:])
    letters.check_arrived()
    sessions = lab.sim.state()["smtp"]["sessions"]
    assert all(a["ok"] or not a["user"] for s in sessions for a in s["auth"]), \
        "no token to a server that does not ask for one properly"
    assert not lab.sim.state()["smtp"]["violations"]


# -- broken off ----------------------------------------------------------------

BEFORE = ("CONNECT", "EHLO", "STARTTLS", "TLS", "AUTH", "AUTH_RESPONSE")
AFTER = ("MAIL", "RCPT", "DATA", "BODY", "EOD")


def through(lab, letters, faults):
    """One message through each fault, which strikes once: deferred, then delivered."""
    for fault in faults:
        number = lab.sim.fault("smtp", times=1, **fault)
        qid = letters.send(recipients=flow.numbers(2, first=2 * len(letters.sent)))
        letters.wait_arrived([qid])
        assert number not in [f["id"] for f in lab.sim.state()["faults"]], fault
        assert [d.status for d in lab.postfix.deliveries(qid)].count("sent") == 2
        assert [d.status for d in lab.postfix.deliveries(qid)].count("deferred") >= 1, fault
    letters.check_arrived()


@pytest.mark.slow
@pytest.mark.parametrize("points", [BEFORE, AFTER], ids=["before-mail", "mail"])
def test_dropped(lab, points):
    letters_module.fast(lab)
    through(lab, letters_module.started(lab),
            [{"kind": "drop", "at": at, "reset": reset}
             for at in points for reset in (False, True)])


@pytest.mark.slow
def test_4xx(lab):
    letters_module.fast(lab)
    through(lab, letters_module.started(lab), [
        {"kind": "reply", "at": at, "text": text} for at, text in (
            ("CONNECT", "421 4.3.2 Service not active"), ("EHLO", "421 4.3.2 Service not active"),
            ("STARTTLS", "454 4.7.0 TLS not available due to temporary reason"),
            ("AUTH", "454 4.7.0 Temporary authentication failure"),
            ("AUTH_RESPONSE", "454 4.7.0 Temporary authentication failure"),
            ("MAIL", LATER), ("RCPT", LATER), ("DATA", LATER), ("EOD", LATER),
            ("EOD", "432 4.3.2 Concurrent connections limit exceeded."),
            ("EOD", "421 4.4.2 Message submission rate for this client has exceeded the "
             "configured limit"))])


def test_dropped_at_quit(lab):
    """The message is taken by then: nobody tries again."""
    letters_module.fast(lab)
    letters = letters_module.started(lab)
    for reset in (False, True):
        lab.sim.fault("smtp", "drop", at="QUIT", reset=reset, times=1)
        letters.wait_arrived([letters.send()])
    letters.check_arrived()
    assert {d.status for d in lab.postfix.deliveries()} == {"sent"}


def test_dropped_after_the_message_was_stored(lab):
    """Exchange has it, and its 250 is lost: RFC 5321, 4.2.5 and RFC 1047.

    The only place where a message may come twice: nobody on this side can know.
    """
    letters_module.fast(lab)
    letters = letters_module.started(lab)
    lab.sim.fault("smtp", "drop", at="STORED", times=1)
    qid = letters.send()
    letters.wait_deferred(qid, "lost connection")
    letters.wait_arrived([qid])
    letters.wait_arrived([letters.send()])
    letters.check_arrived(doubled=[letters_module.name_of(0)])
    assert letters.copies()[letters_module.name_of(0)]["r0@example.net"] == 2


# -- judged at the end of the message ------------------------------------------

# tenant -> what the stand-in has against its mail, what mends it, what is said
JUDGED = {
    "quota": ({"mailbox": {"recipients_per_day": 0}}, {"mailbox": {"recipients_per_day": 100}},
              "SubmissionQuotaExceeded.*reached its recipients of 24 hours"),
    "trial": ({"tenant": {"external_recipients_per_day": 0, "trial": True}},
              {"tenant": {"external_recipients_per_day": None}},
              "7.232 .*reached its external recipients"),
    "external": ({"tenant": {"external_recipients_per_day": 0}},
                 {"tenant": {"external_recipients_per_day": None}},
                 "7.233 .*reached its external recipients"),
    "blocked": ({"mailbox": {"blocked": True}}, {"mailbox": {"blocked": False}},
                "1.8 .*has blocked the mailbox.*restrictedusers"),
    "tenantblocked": ({"tenant": {"blocked": True}}, {"tenant": {"blocked": False}},
                      "7.705 .*has blocked the tenant"),
    "full": ({"mailbox": {"blocked": "554 5.2.2 mailbox full; STOREDRV.Submission."
                          "MapiExceptionShutoffQuotaExceeded"}},
             {"mailbox": {"blocked": False}}, "2.2 .*empty Sent Items"),
}


def set_at_sim(lab, name, what):
    if "mailbox" in what:
        lab.sim.mailbox(tenants.address(name), **what["mailbox"])
    if "tenant" in what:
        lab.sim.tenant(tenants.ident(name), **what["tenant"])


def test_judged(lab):
    """5xx that an admin or time can mend: 4xx for Postfix, a problem in status."""
    tenants.make(lab, [FINE, *JUDGED])
    for name, (against, _mend, _text) in JUDGED.items():
        set_at_sim(lab, name, against)
    letters = letters_module.started(lab)
    qids = {n: letters.send(tenants.sender(n)) for n in (FINE, *JUDGED)}
    for name, (_against, _mend, text) in JUDGED.items():
        assert letters.wait_deferred(qids[name], text).dsn[0] == "4"
    letters.wait_arrived([qids[FINE]])
    # the tenant's limit is for the outside only
    inside = [letters.send(tenants.sender(n), ["you@" + tenants.ident(n)])
              for n in ("trial", "external")]
    letters.wait_arrived(inside)
    problems = lab.relay365("status", status=1).stdout
    for name in JUDGED:
        if name not in ("trial", "external"):       # mail to the inside went out since
            assert re.search("^  %s: .*Microsoft" % name, problems, re.M), name
    for name, (_against, mend, _text) in JUDGED.items():
        set_at_sim(lab, name, mend)
    # nothing is tried until somebody says so; with the quota reply, not for 15 minutes
    for name in ("blocked", "tenantblocked", "quota"):
        lab.relay365("unlock", name, status=None)
    letters.check_arrived()


def test_circuit(lab):
    """After a quota reply Exchange is left alone: one try, however much mail there is."""
    letters_module.fast(lab)
    lab.sim.mailbox(laboratory.ADDRESS, recipients_per_day=0)
    letters = letters_module.started(lab)
    letters.wait_deferred(letters.send(), "SubmissionQuotaExceeded")
    for _ in range(5):
        letters.wait_deferred(letters.send(), "sending quota is exceeded; next try at"
                              "|delivery temporarily suspended")
    refused = lab.sim.state()["smtp"]["mailboxes"][laboratory.ADDRESS]["refused"]
    assert refused == {"554 5.2.0": 1}
    assert "paused_until" in flow.status(lab)["tokend"]["mailboxes"][0]
    lab.sim.mailbox(laboratory.ADDRESS, recipients_per_day=100)
    lab.relay365("reload", status=None)     # for whatever reason: it has none to try
    assert "paused_until" in flow.status(lab)["tokend"]["mailboxes"][0]
    said = lab.relay365("unlock", "relay", status=None).stdout
    assert "relay@contoso.com: its pause after a quota reply is over" in said
    assert "relay@contoso.com was not locked" in lab.relay365("unlock", "relay",
                                                              status=None).stdout
    letters.check_arrived()


# -- bounced, as it must be ----------------------------------------------------

def check_bounced(lab, postfix, send, text):
    """What no waiting mends goes back to its sender at once, with the cause."""
    sent = send(postfix)
    assert sent.ok
    [delivery] = postfix.wait_status(sent.qid, "bounced")
    assert re.search(text, delivery.text)
    [notice] = postfix.wait_mailbox()
    assert re.search(text, notice.as_string())
    postfix.wait_queue_empty()
    assert lab.sim.messages() == []


def test_send_as_denied_bounces(lab):
    letters_module.fast(lab)
    lab.sim.mailbox(laboratory.ADDRESS, send_as=[])
    letters = letters_module.started(lab)
    check_bounced(lab, lab.postfix, lambda p: p.send(
        "app@gateway.test", ["r@example.net"]), "SendAsDenied")
    lab.sim.mailbox(laboratory.ADDRESS, send_as=["*"])
    letters.wait_arrived([letters.send()])


def test_too_large_bounces(lab):
    letters_module.fast(lab)
    lab.sim.mailbox(laboratory.ADDRESS, message_size=2000)
    letters = letters_module.started(lab)
    check_bounced(lab, lab.postfix, lambda p: p.send(
        "app@gateway.test", ["r@example.net"], "x" * 70 + "\r\n" * 3000), "maximum size limit")
    letters.wait_arrived([letters.send()])


# -- one mailbox broken, another well ------------------------------------------

def break_sign_in(lab):
    lab.sim.fault("smtp", "auth_fail", mailbox=tenants.address("bad"))


def break_secret(lab):
    tenants.put_secret(lab, "bad", lab.canary("wrong secret"))
    lab.sim.client(tenants.ident("bad"), laboratory.CLIENT_ID, secrets=["another-secret"])


def mend(lab):
    lab.sim.clear()
    lab.sim.client(tenants.ident("bad"), laboratory.CLIENT_ID, secrets=[lab.secret])
    tenants.put_secret(lab, "bad", lab.secret)


@pytest.mark.parametrize("break_it, text", [
    (break_sign_in, "35 [45].7.3"), (break_secret, "AADSTS7000215")], ids=["535", "secret"])
def test_one_broken_mailbox(lab, break_it, text):
    """The other's mail overtakes it all: delivered at the first try, none of it deferred."""
    tenants.make(lab, ["bad", "good"])
    break_it(lab)
    letters = letters_module.started(lab)
    bad = [letters.send(tenants.sender("bad")) for _ in range(10)]
    letters.wait_deferred(bad[0], text)
    good = []
    for _ in range(15):     # both kinds, one after the other
        good.append(letters.send(tenants.sender("good")))
        bad.append(letters.send(tenants.sender("bad")))
    letters.wait_arrived(good)
    assert [d.status for q in good for d in lab.postfix.deliveries(q)] == ["sent"] * len(good)
    lab.postfix.wait_queue(lambda queue: {m["queue_id"] for m in queue} == set(bad), 30,
                           "the broken one's mail, and no other")
    assert {m["mailbox"] for m in lab.sim.messages()} == {tenants.address("good")}
    mend(lab)
    letters.check_arrived()


