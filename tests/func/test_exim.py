"""Exim sends through relay365-submit: the recipe of contrib/clients, word for word but for the port.

Exim lies unpacked aside: to install it would take the machine's Postfix away.
It knows its user by name from its compilation, so it sees an /etc/passwd with
that user, in a mount namespace of its own.
"""

import os
import re
import shlex
import subprocess

import pytest

import flow
import lab as laboratory
import procs
import programs

ASIDE = os.environ.get("RELAY365_CLIENTS", "/var/cache/relay365-clients")
EXIM = ASIDE + "/usr/sbin/exim4"
UID = 63990

pytestmark = [pytest.mark.needs_build, pytest.mark.skipif(
    not os.path.exists(EXIM), reason="exim4 is not unpacked; contrib/install-packages does it")]


class Exim:
    def __init__(self, lab, port):
        self.lab, self.folder = lab, lab.folder + "/exim"
        recipe = procs.read(str(programs.TREE / "contrib" / "clients" / "exim.conf"))
        begin, port_found, rest = recipe.partition("\n  port = 10587\n")
        assert port_found
        self.config = procs.write(self.folder + "/exim.conf", (
            "spool_directory = %s/spool\nlog_file_path = %s/%%slog.log\nexim_path = %s\n"
            "primary_hostname = gateway.test\n%s\n  port = %d\n%s") % (
                self.folder, self.folder, EXIM, begin, port, rest))
        for path, line in (("/etc/passwd", "Debian-exim:x:%d:%d::/nonexistent:/bin/false\n"),
                           ("/etc/group", "Debian-exim:x:%d:%.0s\n")):
            others = re.sub("^Debian-exim:.*\n", "", procs.read(path), flags=re.M)
            procs.write(self.folder + path, others + line % (UID, UID))
        os.chown(self.folder, UID, UID)

    def run(self, *args, text=""):
        script = "mount --bind {0}/etc/passwd /etc/passwd && mount --bind {0}/etc/group " \
            "/etc/group && exec {1}".format(self.folder, shlex.join(
                [EXIM, "-C", self.config, *args]))
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], input=text, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=120, env=programs.environment(self.lab.folder))
        self.lab.outputs["exim " + " ".join(args)] = done.stdout
        assert done.returncode == 0, done.stdout
        return done.stdout

    def send(self, subject, *recipients):
        """Delivers in the foreground."""
        return self.run("-odf", "-oi", "-f", laboratory.ADDRESS, *recipients,
                        text="From: relay@contoso.com\nTo: %s\nSubject: %s\n\n.dot\n" % (
                            ", ".join(recipients), subject))

    def waiting(self):
        return int(self.run("-bpc"))


def test_exim(lab):
    port = procs.free_port()
    lab.configure(submit_listen="127.0.0.1:%d" % port)
    lab.tokend.start()
    lab.submit.start()
    exim = Exim(lab, port)
    exim.send("first", "a@example.net", "b@example.net")
    [message] = lab.sim.wait_messages(1)
    assert message["mailbox"] == laboratory.ADDRESS
    assert sorted(message["recipients"]) == ["a@example.net", "b@example.net"]
    assert b"\r\n\r\n.dot\r\n" in lab.sim.body(message)
    assert exim.waiting() == 0
    assert flow.accepted(lab) == 2
    # what is deferred stays with Exim, whoever defers it
    lab.sim.mailbox(laboratory.ADDRESS, smtp_auth_disabled=True)
    lab.submit.restart()
    exim.send("second", "c@example.net")
    assert exim.waiting() == 1
    lab.submit.stop()
    exim.send("third", "d@example.net")
    assert exim.waiting() == 2
    lab.sim.mailbox(laboratory.ADDRESS, smtp_auth_disabled=False)
    lab.tokend.restart()
    lab.submit.start()
    exim.run("-qff")
    lab.sim.wait_messages(3)
    assert exim.waiting() == 0
