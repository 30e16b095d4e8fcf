"""Whether Exchange takes a token is known before mail meets it."""

import json
import re
import subprocess

import pytest

import flow
import hook
import lab as laboratory
import procs
import programs
import shifted_clock
import test_grants

pytestmark = pytest.mark.needs_build


def probe(lab, *args, status=0):
    return lab.relay365("probe", *args, status=status).stdout


def verdict(lab):
    return flow.status(lab)["tokend"]["mailboxes"][0].get("probe", {})


def wait_verdict(lab, result):
    procs.wait_for(lambda: verdict(lab).get("result") == result, 30,
                   lambda: "%s: %s" % (result, verdict(lab)))
    return verdict(lab)


def sessions(lab):
    return lab.sim.state()["smtp"]["sessions"]


def test_each_new_token_is_tried(lab):
    lab.configure(probe=True)
    lab.sim.tenant(laboratory.TENANT, expires_in=3600, refresh_in=2)
    lab.tokend.start()
    wait_verdict(lab, "ok")
    lab.sim.wait(lambda s: len(s["smtp"]["sessions"]) >= 2)
    first = sessions(lab)[0]
    assert first["commands"] == ["EHLO", "STARTTLS", "EHLO", "AUTH", "NOOP", "QUIT"], first
    assert first["tls"] and lab.sim.state()["smtp"]["violations"] == []
    assert lab.sim.messages() == [] and "problem" not in verdict(lab)
    assert re.search(r"signed in at 20\S+Z, in \d+ ms", lab.relay365("status", status=None).stdout)


def test_new_token_of_a_user_is_tried(lab):
    """And not the one before it, while its refresh token is on its way to the disk."""
    test_grants.delegated(lab, probe=True)
    lab.tokend.start()
    lengths = (2000, 3000, 4000)
    for number, length in enumerate(lengths, 1):
        lab.sim.tenant(laboratory.TENANT, token_length=length)
        test_grants.sign_in(lab)
        lab.sim.wait(lambda s, n=number: len(s["smtp"]["sessions"]) >= n)
        wait_verdict(lab, "ok")
    shown = [auth["token_length"] for session in sessions(lab) for auth in session["auth"]]
    assert len(shown) == len(lengths), shown
    assert all(abs(a - b) < 60 for a, b in zip(shown, lengths)), shown


def test_refusal_shows_at_once(lab):
    web = hook.WebHook()
    lab.configure(probe=True, alarm_url=web.url)
    lab.sim.mailbox(laboratory.ADDRESS, smtp_auth_disabled=True)
    lab.tokend.start()
    said = wait_verdict(lab, "refused")
    assert said["reply"].startswith("535 5.7.139") and "Set-CASMailbox" in said["action"]
    assert "Set-CASMailbox" in lab.relay365("status", status=1).stdout
    [notice] = web.wait(1)
    assert notice["id"] == "sign-in/relay" and "Set-CASMailbox" in notice["action"]
    lab.sim.mailbox(laboratory.ADDRESS, smtp_auth_disabled=False)
    assert "Exchange takes its token" in probe(lab)
    assert [n["event"] for n in web.wait(2)] == ["alarm", "recovery"]
    web.close()


@pytest.mark.parametrize("how, texts", [
    ("unregistered", ["535 5.7.3"]), ("audience", ["aud is Microsoft Graph: the scope must be"]),
    ("roles", ["note: roles has no SMTP.SendAsApp"]), ("mailbox off", ["535 5.7.139"]),
    ("down", ["could not be tried", "onnect"]), ("no tls", ["STARTTLS"]),
    ("no auth", ["does not offer AUTH XOAUTH2"]), ("challenge", ["sign in: 334"]),
    ("certificate", ["certificate"]), ("busy", ["421"]), ("no token", ["AADSTS7000215"])])
def test_verdicts(lab, how, texts):
    lab.configure()
    status = 1
    if how == "unregistered":
        lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, registered=False)
    elif how == "audience":
        token = lab.sim.mint(laboratory.TENANT, laboratory.CLIENT_ID,
                             audience="https://graph.microsoft.com")
        lab.sim.fault("entra", "token", value=token)
    elif how == "roles":
        lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, roles=["IMAP.AccessAsApp"])
    elif how == "mailbox off":
        lab.sim.mailbox(laboratory.ADDRESS, smtp_auth_disabled=True)
    elif how == "busy":
        lab.sim.fault("smtp", "reply", at="CONNECT", text="421 4.3.2 Service not active")
    elif how == "challenge":
        lab.sim.fault("smtp", "error_challenge", text="eyJzdGF0dXMiOiI0MDEifQ==")
    elif how == "no token":
        lab.sim.fault("entra", "aadsts", code=7000215)
        status = 75
    else:
        status = 75
        if how == "down":
            lab.sim.listen("smtp", open=False)
        else:
            lab.sim.fault("smtp", {"no tls": "no_starttls", "no auth": "no_auth"}.get(
                how, "certificate"))
    lab.tokend.start()
    said = probe(lab, status=status)
    assert all(text in said for text in texts), said


def test_json_and_transcript(lab):
    lab.configure()
    lab.tokend.start()
    [said] = json.loads(lab.relay365("--json", "probe", "relay@contoso.com").stdout)
    assert said["result"] == "ok" and said["mailbox"] == "relay"
    assert said["token"]["claims"]["aud"] == "https://outlook.office365.com"
    text = "\n".join(said["transcript"])
    assert "> AUTH XOAUTH2\n< 334" in text and "> (the token, " in text
    assert "< 235 2.7.0" in text and "* SSL connection using TLSv1." in text
    assert "> NOOP" in probe(lab, "relay", "--transcript")


def test_json_of_what_is_down(lab):
    lab.configure()
    [said] = json.loads(probe(lab, "--json", status=75))
    assert said["mailbox"] == "relay" and "cannot connect" in said["error"]


def test_server_that_repeats_the_token(lab):
    """What it says is shown, but for what may be secret; the lab looks for it."""
    lab.configure()
    token = lab.sim.mint(laboratory.TENANT, laboratory.CLIENT_ID, length=1200)
    lab.sim.fault("entra", "token", value=token)
    lab.sim.fault("smtp", "auth_fail", reason="535 5.7.3 No: %s" % token[:400])
    lab.tokend.start()
    assert "(hidden)" in probe(lab, "--transcript", status=1)


def test_wait_until_it_counts(lab):
    lab.configure()
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, registered=False)
    lab.tokend.start()
    done = lab.relay365("probe", "--wait", "30s", status=1)
    assert "5.7.3" in done.stdout and "next try" not in done.stderr, "no round fits any more"


def test_wait_for_a_later_round(lab):
    """The permission arrives while it waits; a minute passes at once."""
    lab.configure()
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, registered=False)
    lab.tokend.start()
    clock = shifted_clock.ShiftedClock(lab)
    out, err = lab.folder + "/probe.out", lab.folder + "/probe.err"
    with open(out, "w", encoding="utf-8") as stdout, open(err, "w", encoding="utf-8") as stderr, \
            subprocess.Popen([programs.program("relay365"), "-c", lab.config, "probe", "--wait",
                              "10m"], stdout=stdout, stderr=stderr,
                             env=programs.environment(lab.folder, **clock.environment())) as run:
        try:
            procs.wait_for(lambda: procs.read(err).count("next try in a minute, for 9 more") == 1,
                           30, lambda: procs.read(out) + procs.read(err))
            refused = procs.read(out)
            assert "535 5.7.3" in refused and len(sessions(lab)) == 1
            lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, registered=True)
            clock.step(60)
            assert run.wait(30) == 0
        finally:
            run.kill()
    assert "Exchange takes its token" in procs.read(out)[len(refused):]
    assert procs.read(err).count("next try") == 1 and len(sessions(lab)) == 2


def test_errors_of_the_command(lab):
    lab.configure()
    assert lab.relay365("probe", status=75).stderr.count("relay365-tokend") == 1
    lab.relay365("probe", "nobody", status=78)
    lab.relay365("probe", "--wait", "soon", status=2)


def test_probe_does_not_hinder_mail(lab):
    """Exchange allows three submissions; three go on while the token is tried."""
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000}})
    lab.sim.mailbox(laboratory.ADDRESS, messages_per_minute=60000, hold_seconds=1)
    postfix = flow.wire(lab, milter=False)
    for n in range(9):
        assert postfix.send(flow.SENDER, ["r%d@example.net" % n]).ok
    while len(lab.sim.messages()) < 9:
        probe(lab)
    postfix.wait_queue_empty()
    assert {d.status for d in postfix.deliveries()} == {"sent"}
