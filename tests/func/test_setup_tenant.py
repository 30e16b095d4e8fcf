"""relay365 setup tenant: the configuration, the key, and what the Microsoft 365 side is given."""

import json
import os
import pty
import re
import stat
import subprocess

import pytest

import lab as laboratory
import procs
import programs
import token_client

pytestmark = pytest.mark.needs_build

MAILBOXES = "relay@contoso.com,alerts@contoso.com"
GIVEN = ["--id", laboratory.TENANT, "--mailboxes", MAILBOXES,
         "--client-id", laboratory.CLIENT_ID]
# what is widely repeated and wrong
WRONG = ["SMTPAuthEnabled", "OAuth2ClientProfileEnabled", "AUTHENTICATE XOAUTH2",
         "SmtpClientAuthenticationDisabled $true", "Throttle message"]


def tenant(lab, *args, **options):
    return lab.relay365("setup", "tenant", *args, **options)


def texts(lab):
    folder = os.path.join(lab.folder, "handover")
    return {name: procs.read(os.path.join(folder, name)) for name in os.listdir(folder)}


def test_the_configuration_is_sound(lab):
    done = tenant(lab, *GIVEN, "--domains", "contoso.com, fabrikam.com", "--licences", "25",
                  "--send-as", "news@contoso.com", "--postmaster", "it@contoso.com")
    assert "setup postfix --apply" in done.stdout
    assert lab.relay365("check").stdout.endswith(" is well: 1 tenant, 2 mailboxes\n")
    text = procs.read(lab.config)
    assert 'senders = ["*@contoso.com", "*@fabrikam.com", "news@contoso.com"]' in text
    assert 'senders = ["alerts@contoso.com"]' in text and "licences = 25" in text
    assert stat.S_IMODE(os.stat(lab.folder + "/contoso.key").st_mode) == 0o600


@pytest.mark.parametrize("mailboxes, args, lines", [
    ("a@contoso.com", ["--licences", "trial"], ['licences = "trial"']),
    ("a@sub.contoso.com,b@contoso.com", [],
     ['accepted_domains = ["sub.contoso.com", "contoso.com"]',
      'senders = ["*@sub.contoso.com", "*@contoso.com"]']),
    ("noreply@contoso.com,noreply@fabrikam.com,noreply-2@fabrikam.com", [],
     ["noreply: {", "noreply-2: {", "noreply-2-2: {"]),
    ("erp.invoices@contoso.com,erp.orders@contoso.com", [], ["erp: {", "erp-2: {"])])
def test_what_is_written_can_be_read(lab, mailboxes, args, lines):
    tenant(lab, "--id", laboratory.TENANT, "--mailboxes", mailboxes, *args)
    lab.relay365("check")
    text = procs.read(lab.config)
    assert not [line for line in lines if line not in text], text


def test_many_domains(lab):
    domains = ["%s%d.example" % ("d" * 40, i) for i in range(50)]
    tenant(lab, "--id", laboratory.TENANT, "--mailboxes", ",".join("a@" + d for d in domains))
    lab.relay365("check")
    text = procs.read(lab.config)
    assert not [domain for domain in domains if '"*@%s"' % domain not in text]
    assert "  a-50: {" in text


def test_a_relative_path_is_made_whole(lab):
    done = subprocess.run(
        [programs.program("relay365"), "-c", "r.conf", "setup", "tenant", *GIVEN],
        cwd=lab.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True,
        env=programs.environment(lab.folder))
    assert done.stdout.startswith(lab.folder + "/r.conf is written.")
    assert 'private_key = "%s/contoso.key"' % lab.folder in procs.read(lab.folder + "/r.conf")


def test_entra_takes_the_certificate(lab):
    tenant(lab, *GIVEN)
    certificate = lab.folder + "/contoso.crt"
    lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID, secrets=[],
                   certificates=[procs.read(certificate)])
    lab.configure(tenants={"contoso": laboratory.relay365_conf.tenant_of(
        lab.sim, laboratory.TENANT, laboratory.CLIENT_ID, certificate=certificate,
        private_key=lab.folder + "/contoso.key")})
    lab.tokend.start()
    assert token_client.ask(lab.folder + "/run/token")["status"] == "ok"


def test_what_is_handed_over(lab):
    tenant(lab, *GIVEN, "--send-as", "news@contoso.com", "--address", "192.0.2.7",
           "--object-id", "0b1e0000-1111-2222-3333-444455556666")
    found = texts(lab)
    assert set(found) == {"handover.md", "grant.ps1", "audit.ps1", "contoso.crt"}
    everything = "\n".join(found.values())
    assert not re.findall(r"@[A-Z_]+@", everything), "all is filled in"
    assert "PRIVATE KEY" not in everything
    to_read = found["handover.md"] + found["grant.ps1"] + found["audit.ps1"]
    assert not [text for text in WRONG if text in to_read]
    assert not re.search(r"port 465|:465\b", to_read)
    grant = found["grant.ps1"]
    for part in ("New-ServicePrincipal -AppId $ClientId -ObjectId $ObjectId",
                 "'0b1e0000-1111-2222-3333-444455556666'", "New-ManagementScope",
                 "-Role 'Application SMTP.SendAsApp'", "Test-ServicePrincipalAuthorization",
                 "Set-CASMailbox -Identity $mailbox -SmtpClientAuthenticationDisabled $false",
                 "@('relay@contoso.com', 'alerts@contoso.com')",
                 "@{ Sender = 'news@contoso.com'; Mailbox = 'relay@contoso.com' }"):
        assert part in grant, part
    for part in ("192.0.2.7", laboratory.CLIENT_ID, "SMTP.Send`", "Conditional", "Sent Items"):
        assert part in found["handover.md"], part
    thumbprint = subprocess.run(
        ["openssl", "x509", "-in", lab.folder + "/contoso.crt", "-noout", "-fingerprint", "-sha1"],
        stdout=subprocess.PIPE, text=True, check=True).stdout
    assert thumbprint.split("=")[1].strip().replace(":", "") in found["handover.md"]


def test_nothing_is_overwritten_unasked(lab):
    tenant(lab, *GIVEN[:4])
    before = procs.read(lab.config), procs.read(lab.folder + "/contoso.key")
    assert "is there already; --replace" in tenant(lab, *GIVEN, status=78).stderr
    assert procs.read(lab.config) == before[0]
    assert "00000000-0000-0000-0000-000000000000" in before[0], "until it is known"
    tenant(lab, *GIVEN, "--replace")
    assert laboratory.CLIENT_ID in procs.read(lab.config)
    assert procs.read(lab.folder + "/contoso.key") == before[1], "keys stay"


@pytest.mark.parametrize("args, said", [
    ([], "--id is needed"), (["--id", "contoso.com"], "--mailboxes is needed"),
    (["--id", "x'y", "--mailboxes", "a@b"], "the character \"'\" can't stand here"),
    (["--id", 'x"y', "--mailboxes", "a@b"], "can't stand here"),
    (["--id", "x", "--mailboxes", "a@b$(id)"], "can't stand here"),
    (["--id", "x", "--mailboxes", "relay"], "is no mail address"),
    ([*GIVEN, "--mailboxes", "relay@contoso.com,foo"], '--mailboxes: "foo" is no mail address'),
    ([*GIVEN, "--send-as", "Alerts@contoso.com"], "--send-as: Alerts@contoso.com is one of the"),
    ([*GIVEN, "--licences", "abc"], "licences = abc is neither a number"),
    ([*GIVEN, "--licences", "0"], "licences = 0 is neither a number"),
    ([*GIVEN, "--id", "con toso"], 'id "con toso" is neither a tenant id'),
    ([*GIVEN, "--mailboxes", "relay@contoso.com,x@" + "y" * 2000], "nothing is written"),
    ([*GIVEN, "--secret-file", "/nonexistent"], "cannot read /nonexistent: No such file")])
def test_what_is_refused(lab, args, said):
    before = set(os.listdir(lab.folder))
    done = tenant(lab, *args, status=78)
    assert said in done.stderr and ".trial" not in done.stderr
    assert set(os.listdir(lab.folder)) == before, "nothing is left behind"


def test_a_mistake_leaves_what_was_there(lab):
    tenant(lab, *GIVEN)
    before = procs.read(lab.config)
    done = tenant(lab, "--json", *GIVEN, "--replace", "--licences", "abc", status=78)
    assert json.loads(done.stdout)["error"].startswith("nothing is written, for the config")
    assert procs.read(lab.config) == before
    assert os.path.exists(lab.folder + "/contoso.key")
    lab.relay365("check")


def test_usage(lab):
    assert "usage: " in tenant(lab, "--nonsense", status=2).stderr
    assert "usage: " in tenant(lab, "more", status=2).stderr


def test_a_terminal_is_asked(lab):
    """As somebody who types: answers to the questions, and Enter for the rest."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
            [programs.program("relay365"), "-c", lab.config, "setup", "tenant"], stdin=theirs,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=programs.environment(lab.folder)) as process:
        os.close(theirs)
        os.write(ours, ("%s\nrelay@contoso.com\n%s\n\n\n\n\n" % (
            laboratory.TENANT, laboratory.CLIENT_ID)).encode())
        text = process.communicate(timeout=60)[0]
        os.close(ours)
    assert process.returncode == 0 and "Tenant: its id, or a domain" in text
    assert lab.relay365("check").stdout.endswith("1 tenant, 1 mailbox\n")
