"""Exim and OpenSMTPD send through relay365-submit: the recipes of contrib/clients.

They lie unpacked aside: to install them would take the machine's Postfix
away. They know their users and folders from their compilation, so each sees
its own ones in a mount namespace. Of the recipes the ports are changed.
"""

import os
import re
import shlex
import signal
import smtplib
import subprocess

import pytest

import flow
import lab as laboratory
import procs
import programs

ASIDE = os.environ.get("RELAY365_CLIENTS", "/var/cache/relay365-clients")
EXIM = ASIDE + "/usr/sbin/exim4"
SMTPD, SMTPCTL = ASIDE + "/usr/sbin/smtpd", ASIDE + "/usr/sbin/smtpctl"
MESSAGE = "From: relay@contoso.com\nTo: %s\nSubject: test\n\n.dot\n"

pytestmark = [pytest.mark.needs_build, pytest.mark.skipif(
    not os.path.exists(EXIM) or not os.path.exists(SMTPD),
    reason="Exim and OpenSMTPD are not unpacked; contrib/install-packages does it")]


def recipe(name, old, new):
    text = procs.read(str(programs.TREE / "contrib" / "clients" / name))
    assert text.count(old) == 1
    return text.replace(old, new)


def binds(folder, users):
    """The start of a script: /etc/passwd and /etc/group with these users, name -> number."""
    for path, line in (("/etc/passwd", "%s:x:%d:%d::%s/empty:/bin/false\n"),
                       ("/etc/group", "%s:x:%d:%.0s%.0s\n")):
        others = re.sub("^(%s):.*\n" % "|".join(users), "", procs.read(path), flags=re.M)
        procs.write(folder + path, others + "".join(
            line % (name, number, number, folder) for name, number in users.items()))
    return "".join("mount --bind %s%s %s && " % (folder, path, path)
                   for path in ("/etc/passwd", "/etc/group"))


class Exim:
    def __init__(self, lab, port):
        self.lab, self.folder = lab, lab.folder + "/exim"
        self.config = procs.write(self.folder + "/exim.conf", (
            "spool_directory = %s/spool\nlog_file_path = %s/%%slog.log\nexim_path = %s\n"
            "primary_hostname = gateway.test\n%s") % (
                self.folder, self.folder, EXIM,
                recipe("exim.conf", "port = 10587\n", "port = %d\n" % port)))
        self.script = binds(self.folder, {"Debian-exim": 63990})
        os.chown(self.folder, 63990, 63990)

    def run(self, *args, text=""):
        script = self.script + "exec " + shlex.join([EXIM, "-C", self.config, *args])
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], input=text, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=120, env=programs.environment(self.lab.folder))
        self.lab.outputs["exim " + " ".join(args)] = done.stdout
        assert done.returncode == 0, done.stdout
        return done.stdout

    def send(self, *recipients):
        """Delivers in the foreground."""
        self.run("-odf", "-oi", "-f", laboratory.ADDRESS, *recipients,
                 text=MESSAGE % ", ".join(recipients))

    def waiting(self):
        return int(self.run("-bpc"))

    def flush(self):
        self.run("-qff")

    def stop(self):
        pass


class OpenSmtpd:
    def __init__(self, lab, port):
        self.lab, self.folder = lab, lab.folder + "/opensmtpd"
        self.port = procs.free_port()
        text = recipe("smtpd.conf", "listen on localhost\n",
                      "listen on 127.0.0.1 port %d\n" % self.port)
        config = procs.write(self.folder + "/smtpd.conf", text.replace("10587", str(port)))
        script = binds(self.folder, {"opensmtpd": 63991, "opensmtpq": 63992})
        for path in ("/var/spool", "/var/lib", "/run"):
            os.makedirs(self.folder + path)
            script += "mount --bind %s%s %s && " % (self.folder, path, path)
        os.makedirs(self.folder + "/var/lib/opensmtpd/empty")
        os.mkdir(self.folder + "/var/spool/smtpd", 0o711)
        self.command = ["unshare", "--mount", "sh", "-c", script + "exec " + shlex.join(
            [SMTPD, "-dv", "-f", config])]
        self.start()

    def start(self):
        with open(self.folder + "/smtpd.log", "a", encoding="ascii") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT,
                                            env=programs.environment(self.lab.folder))
        procs.wait_for(lambda: procs.accepts(("127.0.0.1", self.port)), 30, "OpenSMTPD")

    def control(self, *args):
        return subprocess.run(
            ["nsenter", "--mount", "--root", "--setgid", "63992", "--target", str(self.process.pid),
             SMTPCTL, *args], check=True, text=True, stdout=subprocess.PIPE, timeout=60).stdout

    def send(self, *recipients):
        text = (MESSAGE % ", ".join(recipients)).replace("\n", "\r\n")
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
            client.sendmail(laboratory.ADDRESS, recipients, text)
        # it has been tried when it is gone or its last field says why not
        procs.wait_for(lambda: all(line.rpartition("|")[2] for line in
                                   self.control("show", "queue").splitlines()),
                       60, lambda: self.control("show", "queue"))

    def waiting(self):
        return len(self.control("show", "queue").splitlines())

    def flush(self):
        """Anew, since it leaves a route alone for some time that has failed."""
        self.stop()
        self.start()

        def emptied():
            # once is not enough: it is still reading its queue, message by message
            if self.waiting() > 0:
                self.control("schedule", "all")
            return self.waiting() == 0

        procs.wait_for(emptied, 60, lambda: self.control("show", "queue"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def wait_waiting(mta, count):
    procs.wait_for(lambda: mta.waiting() == count, 60, "%d messages in the queue" % count)


@pytest.mark.parametrize("mta_class", [Exim, pytest.param(OpenSmtpd, marks=pytest.mark.slow)])
def test_recipe(lab, mta_class):
    port = procs.free_port()
    lab.configure(submit_listen="127.0.0.1:%d" % port)
    lab.tokend.start()
    lab.submit.start()
    mta = mta_class(lab, port)
    try:
        mta.send("a@example.net", "b@example.net")
        lab.sim.wait(lambda _: flow.accepted(lab) == 2)
        assert {m["mailbox"] for m in lab.sim.messages()} == {laboratory.ADDRESS}
        assert b"\r\n\r\n.dot\r\n" in lab.sim.body(lab.sim.messages()[0])
        wait_waiting(mta, 0)
        # what is deferred stays, whoever defers it
        lab.sim.mailbox(laboratory.ADDRESS, smtp_auth_disabled=True)
        lab.submit.restart()
        mta.send("c@example.net")
        wait_waiting(mta, 1)
        lab.submit.stop()
        mta.send("d@example.net")
        wait_waiting(mta, 2)
        lab.sim.mailbox(laboratory.ADDRESS, smtp_auth_disabled=False)
        lab.tokend.restart()
        lab.submit.start()
        mta.flush()
        lab.sim.wait(lambda _: flow.accepted(lab) == 4)
        wait_waiting(mta, 0)
    finally:
        mta.stop()
