"""Other programs that sign in with `relay365 token`: the recipes of contrib/clients, word for word.

In a mount namespace of its own /etc/hosts leads Microsoft's names to the
stand-in, which listens at Microsoft's port, and the system trusts its authority.
"""

import glob
import os
import shlex
import shutil
import subprocess

import pytest

import imap_server
import lab as laboratory
import procs
import programs

pytestmark = pytest.mark.needs_build

RECIPES = programs.TREE / "contrib" / "clients"
# the ports are fixed, so each process that runs tests has an address of its own
ADDRESS = "127.%d.%d.%d" % (58 + (os.getpid() >> 16), os.getpid() >> 8 & 255, os.getpid() & 255)
# contrib/install-packages unpacks packages here that have no business in the system itself
ASIDE = os.environ.get("RELAY365_CLIENTS", "/var/cache/relay365-clients")
MESSAGE = "From: relay@contoso.com\nTo: a@example.net\nSubject: test\n\nhello\n"
PROGRAMS = {
    "msmtp": (["msmtp", "-C", RECIPES / "msmtprc", "a@example.net"], MESSAGE),
    "mutt": (["mutt", "-n", "-F", RECIPES / "muttrc", "-s", "test", "a@example.net"], "hello\n"),
}


def run(lab, command, text, **env):
    """As somebody would whose machine has all of this where it usually is."""
    hosts = procs.write(lab.folder + "/hosts",
                        "127.0.0.1 localhost\n%s smtp.office365.com outlook.office365.com\n" %
                        ADDRESS)
    procs.write(lab.folder + "/bin/relay365", "#!/bin/sh\nexec %s -c %s \"$@\"\n" % (
        programs.program("relay365"), lab.config), 0o755)
    home = lab.folder + "/home"
    os.makedirs(home, exist_ok=True)
    # some programs want a recipe to be private
    words = [procs.write(home + "/rc", procs.read(str(word)), 0o600)
             if isinstance(word, os.PathLike) else word for word in command]
    script = "mount --bind %s /etc/hosts && mount --bind %s %s && exec %s" % (
        hosts, lab.sim.ca, "/etc/ssl/certs/ca-certificates.crt", shlex.join(words))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], input=text, text=True, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        env=programs.environment(lab.folder, HOME=home, **env,
                                 PATH=lab.folder + "/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
    lab.outputs["client"] = done.stdout
    assert done.returncode == 0, done.stdout
    return done


@pytest.mark.parametrize("name", PROGRAMS)
def test_recipe(lab, name):
    if not shutil.which(name):
        pytest.skip(name + " is not installed")
    lab.start_sim(smtp_address=ADDRESS, smtp_port=587)
    lab.configure()
    lab.tokend.start()
    run(lab, *PROGRAMS[name])
    message = lab.sim.wait_messages(1)[0]
    assert message["mailbox"] == laboratory.ADDRESS
    assert message["recipients"] == ["a@example.net"]


def test_isync(lab):
    """It reads the mailbox; the token is a password to the SASL plugin it needs."""
    plugins = glob.glob(ASIDE + "/usr/lib/*/sasl2/libkdexoauth2.so")
    if not plugins or not shutil.which("mbsync"):
        pytest.skip("isync or libsasl2-modules-kdexoauth2 is not there")
    lab.configure()
    lab.tokend.start()
    token = lab.relay365("token", "relay", secret_output=True).stdout.strip()
    pki = lab.folder + "/sim/pki/smtp-good"
    context = imap_server.context(pki + ".pem", pki + ".key")
    with imap_server.ImapServer((ADDRESS, 993), context, laboratory.ADDRESS, token) as server:
        os.makedirs(lab.folder + "/home/Maildir", exist_ok=True)
        run(lab, ["mbsync", "-c", RECIPES / "mbsyncrc", "relay"], "",
            SASL_PATH=os.path.dirname(plugins[0]))
    assert server.signed_in == 1 and "LOGIN" not in server.verbs
    [message] = glob.glob(lab.folder + "/home/Maildir/INBOX/*/*U=1*")
    assert "Subject: in the mailbox" in procs.read(message)
