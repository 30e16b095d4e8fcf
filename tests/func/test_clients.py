"""Other programs that sign in with `relay365 token`: the recipes of contrib/clients, word for word.

In a mount namespace of its own /etc/hosts leads smtp.office365.com to the
stand-in, which listens at Microsoft's port, and the system trusts its authority.
"""

import os
import shlex
import shutil
import subprocess

import pytest

import lab as laboratory
import procs
import programs

pytestmark = pytest.mark.needs_build

RECIPES = programs.TREE / "contrib" / "clients"
ADDRESS = "127.0.0.58"      # for this test alone: the port is fixed
MESSAGE = "From: relay@contoso.com\nTo: a@example.net\nSubject: test\n\nhello\n"
PROGRAMS = {
    "msmtp": (["msmtp", "-C", RECIPES / "msmtprc", "a@example.net"], MESSAGE),
    "mutt": (["mutt", "-n", "-F", RECIPES / "muttrc", "-s", "test", "a@example.net"], "hello\n"),
}


def run(lab, command, text):
    """As somebody would whose machine has all of this where it usually is."""
    hosts = procs.write(lab.folder + "/hosts",
                        "127.0.0.1 localhost\n%s smtp.office365.com\n" % ADDRESS)
    procs.write(lab.folder + "/bin/relay365", "#!/bin/sh\nexec %s -c %s \"$@\"\n" % (
        programs.program("relay365"), lab.config), 0o755)
    home = lab.folder + "/home"
    os.makedirs(home, exist_ok=True)
    # some programs want a recipe to be private
    private = procs.write(home + "/rc", procs.read(str(command[2 if command[0] == "msmtp" else 3])),
                          0o600)
    words = [private if str(word).startswith(str(RECIPES)) else str(word) for word in command]
    script = "mount --bind %s /etc/hosts && mount --bind %s %s && exec %s" % (
        hosts, lab.sim.ca, "/etc/ssl/certs/ca-certificates.crt", shlex.join(words))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], input=text, text=True, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        env=programs.environment(lab.folder, HOME=home,
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
