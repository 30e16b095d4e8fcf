"""A private Sendmail: the packages unpacked aside, in a folder of our own.

contrib/install-packages unpacks them; installing them would take the
machine's Postfix away. The daemon runs in a UTS namespace, where the machine
has a qualified name: with another one Sendmail waits a minute for DNS.
"""

import contextlib
import email
import email.policy
import glob
import os
import pwd
import re
import shlex
import signal
import smtplib
import subprocess

import procs
import sendmail_conf
import syslog_socket

UNPACKED = os.environ.get("RELAY365_SENDMAIL", "/var/cache/relay365-sendmail")
PROGRAM = UNPACKED + "/usr/libexec/sendmail/sendmail"
CF = UNPACKED + "/usr/share/sendmail/cf"
HOSTNAME = "gateway.test"
MDA = """#!/bin/sh
exec cat >"%s/$(date +%%s%%N).$$"
"""


def installed():
    return os.path.exists(PROGRAM)


class SendmailInstance:
    """folder: where everything goes. feature: lines for the .mc, for example
    FEATURE(`relay365'). last: lines behind the mailers."""

    def __init__(self, folder, feature="", last=""):
        self.folder = folder
        self.address, self.port = "127.0.0.1", procs.free_port()
        self.log_file = folder + "/log/mail.log"
        self.mail_dir = folder + "/mail"
        self.cf, self.submit_cf = folder + "/etc/sendmail.cf", folder + "/etc/submit.cf"
        self.process = None
        os.makedirs(folder + "/log", exist_ok=True)
        self.syslog = syslog_socket.SyslogSocket(folder, self.log_file)
        self.names = {"folder": folder, "port": self.port, "mda": folder + "/etc/mda",
                      "more": feature, "last": last}
        self._install()

    # -- installation ----------------------------------------------------------

    def _install(self):
        for name in ("etc", "queue", "clientqueue", "log", "mail"):
            os.makedirs(os.path.join(self.folder, name), mode=0o755, exist_ok=True)
        os.chmod(self.folder + "/queue", 0o700)
        nobody = pwd.getpwnam("nobody")
        os.chown(self.folder + "/clientqueue", nobody.pw_uid, nobody.pw_gid)
        os.chmod(self.folder + "/clientqueue", 0o770)
        os.chmod(self.mail_dir, 0o777)
        tree = self.folder + "/cf"
        sendmail_conf.make_tree(CF, tree)
        self._write("mda", MDA % self.mail_dir, 0o755)
        self._write("aliases", "postmaster: root\nMAILER-DAEMON: postmaster\n")
        self._write("local-host-names", HOSTNAME + "\n")
        self._write("relay-domains", "127.0.0.1\n")
        self._write("service.switch", "hosts files\naliases files\n")
        self._write("sendmail.cf", sendmail_conf.compile_mc(tree, sendmail_conf.MC % self.names))
        self._write("submit.cf", sendmail_conf.compile_mc(
            tree, sendmail_conf.SUBMIT_MC % self.names))
        self.run("-bi")

    def _write(self, name, text, mode=0o644):
        return procs.write(os.path.join(self.folder, "etc", name), text, mode)

    # -- life ------------------------------------------------------------------

    def _command(self, *args, cf=None):
        return ["unshare", "--uts", "--mount", "--propagation", "private", "--", "/bin/sh", "-c",
                '%s && hostname %s && exec "$0" "$@"' % (self.syslog.shell, HOSTNAME),
                PROGRAM, "-C", cf or self.cf, *args]

    def _env(self):
        libraries = glob.glob(UNPACKED + "/usr/lib/*-linux-gnu") + glob.glob(
            UNPACKED + "/lib/*-linux-gnu")
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "TZ": "UTC",
                "LD_LIBRARY_PATH": ":".join(libraries), "RELAY365_LAB": self.folder + "/"}

    def script(self):
        """A program that is this instance's sendmail(8), for who calls it by name."""
        env = " ".join("%s=%s" % pair for pair in self._env().items())
        return procs.write(self.folder + "/sendmail", "#!/bin/sh\nexec env %s %s \"$@\"\n" % (
            env, shlex.join(self._command())), 0o755)

    def run(self, *args, data="", cf=None, check=True, timeout=120):
        """Run sendmail with these options on this instance; its result."""
        done = subprocess.run(self._command(*args, cf=cf), input=data, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=self._env(), cwd="/", text=True,
                              errors="replace", timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise RuntimeError("sendmail %s: exit %d: %s" % (
                " ".join(args), done.returncode, done.stdout))
        return done

    def start(self):
        self.process = subprocess.Popen(
            self._command("-bD"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=self._env(), cwd="/")
        procs.wait_for(self._greets, 30, lambda: "Sendmail; log: " + procs.tail(self.log()))
        return self

    def _greets(self):
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtplib.SMTP(self.address, self.port, timeout=10).close()
            return True
        return False

    def stop(self, timeout=15):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        procs.kill_all(self.folder)
        if self.process:
            self.process.wait()
            self.process = None

    def close(self):
        self.stop()
        self.syslog.close()

    def log(self):
        return procs.read(self.log_file)

    # -- queue -----------------------------------------------------------------

    def queue(self):
        """The control files of the queue: name -> text. Quarantined ones begin with hf."""
        found = {}
        for path in glob.glob(self.folder + "/queue/[qh]f*"):
            found[os.path.basename(path)] = procs.read(path)
        return found

    def mailq(self):
        return self.run("-bp").stdout

    def wait_queue(self, condition, timeout=30, what="the queue"):
        return procs.wait_for(
            lambda: condition(self.queue()), timeout,
            lambda: "%s; queue: %s; log:\n%s" % (what, self.mailq(), procs.tail(self.log())))

    def wait_queue_empty(self, timeout=60):
        self.wait_queue(lambda queue: not queue, timeout, "an empty queue")

    def wait_deferred(self, text, timeout=30):
        """Wait until a message is queued for a reason with this text; the control file."""
        def found(queue):
            return [q for q in queue.values()
                    if re.search("^M.*" + re.escape(text), q, re.MULTILINE)]

        return self.wait_queue(found, timeout, "a message deferred for %r" % text)[0]

    def flush(self):
        """One run of the queue, to its end; of all of it, so not while something is in work."""
        procs.wait_for(lambda: not re.search(r"^ *\w{14}\*", self.mailq(), re.M), 60,
                       lambda: "the queue to be let go of:\n" + self.mailq())
        return self.run("-q", "-v")

    # -- mail in and out -------------------------------------------------------

    def smtp(self, timeout=120):
        """A connection on which EHLO has been said."""
        smtp = smtplib.SMTP(timeout=timeout)
        code, text = smtp.connect(self.address, self.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        smtp.ehlo("client.test")
        return smtp

    def send(self, sender, recipients, data=None):
        """One message; the last reply, as (code, text)."""
        if data is None:
            data = ("From: <%s>\r\nTo: %s\r\nSubject: test\r\n\r\ntest\r\n" % (
                sender, recipients[0])).encode()
        with self.smtp() as smtp:
            code, text = smtp.mail(sender)
            for recipient in recipients:
                if code == 250:
                    code, text = smtp.rcpt(recipient)
            if code == 250:
                code, text = smtp.data(data)
            return code, text.decode("utf-8", "replace")

    def submit(self, sender, recipients, data="Subject: test\n\ntest\n", args=(),
               **options):
        """By sendmail(1), through the submission queue. options: of run()."""
        return self.run("-f", sender, "-oi", *args, "--", *recipients, data=data,
                        cf=self.submit_cf, **options)

    def mailbox(self):
        """What came back to users of this machine, parsed."""
        return [email.message_from_string(procs.read(path), policy=email.policy.default)
                for path in sorted(glob.glob(self.mail_dir + "/*"))]
