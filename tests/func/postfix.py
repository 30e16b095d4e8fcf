"""A private Postfix: the installed programs in a folder of our own.

The machine's own mail system stays untouched: nothing in /etc/postfix is read
except postfix-files and dynamicmaps.cf, nothing in /var/spool/postfix at all.

`postfix -c FOLDER` is enough, because alternate_config_directories in
/etc/postfix/main.cf is asked only when somebody other than root uses -C, or
runs a set-gid program (postdrop, postqueue). submit() knows a way round.
"""

import collections
import contextlib
import email
import email.policy
import grp
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import smtplib
import subprocess
import time

import postfix_conf
import procs

DELIVERY = re.compile(
    r"^.*?/(?P<service>[\w.-]+)\[(?P<pid>\d+)\]: (?P<qid>\w+): to=<(?P<to>[^>]*)>, "
    r"(?:orig_to=<(?P<orig_to>[^>]*)>, )?relay=(?P<relay>[^,]*), .*?"
    r"dsn=(?P<dsn>[\d.]+), status=(?P<status>\w+) \((?P<text>.*)\)$", re.MULTILINE)

# more than the minute for which Postfix leaves a message alone that it finds locked, as it does
# when it tries it again while smtp(8), on a busy machine, still lets it go
PATIENCE_S = 100

Delivery = collections.namedtuple(
    "Delivery", "service pid qid to orig_to relay dsn status text")


class Sent(collections.namedtuple("Sent", "qid code text refused")):
    """What the SMTP server said to a message.

    code and text: the last reply to the message as a whole; qid: None if it
    wasn't taken; refused: recipient -> (code, text).
    """

    @property
    def ok(self):
        return self.qid is not None


def installed():
    return os.path.exists("/usr/sbin/postfix") or shutil.which("postfix") is not None


def tool(name):
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") or name


def _text(reply):
    return reply.decode("utf-8", "replace")


class PostfixInstance:
    """folder: where everything goes (a new PrivateFolder if not given).

    chroot: as Debian's master.cf, else everything outside.
    main: extra main.cf parameters (a dict, later ones win).
    master: extra services, as text.
    milters: value of smtpd_milters and non_smtpd_milters.
    env: names or NAME=value to add to import_environment.
    """

    def __init__(self, folder=None, *, chroot=False, main=None, master="",
                 milters="", env=()):
        self._own = None
        if folder is None:
            self._own = procs.PrivateFolder()
            folder = os.path.join(self._own.path, "p")
        self.folder = folder
        self.name = "postfix-" + os.path.basename(os.path.dirname(folder)).rpartition("-")[2]
        self.config = os.path.join(folder, "etc")
        self.queue_dir = os.path.join(folder, "q")
        self.data_dir = os.path.join(folder, "data")
        self.mail_dir = os.path.join(folder, "mail")
        self.log_file = os.path.join(folder, "log", "mail.log")
        self.address, self.port = "127.0.0.1", procs.free_port()
        self.hostname = "gateway.test"
        self.chroot = chroot
        self.parameters = postfix_conf.main_parameters(self, milters, env)
        self.parameters.update(main or {})
        self.services = postfix_conf.master_services(self)
        self.services.update(postfix_conf.parse_master(master))
        self._install()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_args):
        self.close()

    # -- installation ----------------------------------------------------------

    def _install(self):
        for path in (self.config, self.queue_dir, self.data_dir, self.mail_dir,
                     os.path.dirname(self.log_file)):
            os.makedirs(path, mode=0o755, exist_ok=True)
        postfix = pwd.getpwnam("postfix")
        os.chown(self.data_dir, postfix.pw_uid, -1)
        os.chmod(self.data_dir, 0o700)
        nobody = pwd.getpwnam("nobody")
        os.chown(self.mail_dir, nobody.pw_uid, nobody.pw_gid)
        self._write("aliases", "postmaster root\n")
        if self.chroot:
            postfix_conf.populate_chroot(self.queue_dir)
        self.write_config()

    def write_config(self):
        """Write main.cf and master.cf; start() or reload() makes them count."""
        self._write("main.cf", postfix_conf.main_text(self.parameters))
        self._write("master.cf", postfix_conf.master_text(self.services))

    def _write(self, name, text):
        """A file that looks older than it is.

        Postfix waits until a file has not changed for two seconds, in every
        process that reads it.
        """
        path = procs.write(os.path.join(self.config, name), text)
        then = time.time() - 10
        os.utime(path, (then, then))

    def set(self, **parameters):
        """Change main.cf parameters (None: back to Postfix's default)."""
        for name, value in parameters.items():
            if value is None:
                self.parameters.pop(name, None)
            else:
                self.parameters[name] = value
        self.write_config()

    def apply(self, text_main="", text_master="", files=None):
        """Install what `relay365 setup postfix` prints.

        files: path -> text; a relative path is below the config folder, an
        absolute one must be below this instance's folder or its parent.
        Same-named parameters and services are replaced, as postconf(1) would.
        """
        root = os.path.dirname(self.folder) + "/"
        for path, text in (files or {}).items():
            path = os.path.normpath(os.path.join(self.config, path))
            if not path.startswith(root):
                raise ValueError("%s is outside of %s" % (path, root))
            self._write(path, text)
        self.parameters.update(postfix_conf.parse_main(text_main))
        self.services.update(postfix_conf.parse_master(text_master))
        self.write_config()

    # -- life ------------------------------------------------------------------

    def run(self, *command, check=True, **options):
        """Run one of Postfix's commands on this instance; its result."""
        done = subprocess.run(
            [tool(command[0]), "-c", self.config, *command[1:]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self._env(), cwd="/", text=True, errors="replace", timeout=120, check=False,
            **options)
        if check and done.returncode != 0:
            raise RuntimeError("%s: exit %d: %s%s\n%s" % (
                " ".join(command), done.returncode, done.stdout,
                done.stderr or self._complaint(done.args), procs.tail(self.log(), 20)))
        return done

    def _complaint(self, command):
        """What a failing command says. Most of them tell only a terminal."""
        return subprocess.run(
            ["script", "-qec", shlex.join(command), "/dev/null"], env=self._env(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120,
            check=False).stdout

    @staticmethod
    def _env():
        """Nothing of the test run's environment may change the mail system."""
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}

    def start(self):
        """Start and wait until the SMTP server answers."""
        self.run("postfix", "start")
        procs.wait_for(self._greets, 30, lambda: "the SMTP server; log: "
                       + procs.tail(self.log()))
        return self

    def _greets(self):
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtplib.SMTP(self.address, self.port, timeout=10).close()
            return True
        return False

    def master_pid(self):
        text = procs.read(os.path.join(self.queue_dir, "pid", "master.pid")).strip()
        return int(text) if text else None

    def processes(self):
        return procs.processes_of(self.config.rpartition("/")[0])

    def stop(self, timeout=15):
        """End at once, deliveries in progress too (they stay in the queue)."""
        pid = self.master_pid()
        if pid in self.processes():
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(procs.Timeout):
                procs.wait_for(lambda: not self.processes(), timeout, "the end")
        self.kill()

    def kill(self):
        """SIGKILL for everything, as a power failure would."""
        procs.kill_all(self.config.rpartition("/")[0])

    def close(self):
        """Stop; remove the folder if it is our own."""
        self.stop()
        if self._own:
            self._own.remove()

    def restart(self):
        self.stop()
        return self.start()

    def reload(self):
        """Make the configuration count for every process that starts now on."""
        mark = self.mark()
        self.run("postfix", "reload")
        self.wait_log(r"/master\[\d+\]: reload -- version", since=mark)

    # -- log -------------------------------------------------------------------

    def log(self):
        return procs.read(self.log_file)

    def mark(self):
        """A place in the log; give it as `since` to see only what follows."""
        return len(self.log())

    def wait_log(self, pattern, timeout=20, since=0):
        """Wait for a line that matches; the match object."""
        expression = re.compile(pattern, re.MULTILINE)
        return procs.wait_for(
            lambda: expression.search(self.log(), since), timeout,
            lambda: "%r in the log, which ends with\n%s" % (
                pattern, procs.tail(self.log())))

    def deliveries(self, qid=None, since=0):
        """Every delivery attempt logged, oldest first."""
        found = [Delivery(**m.groupdict()) for m in DELIVERY.finditer(self.log(), since)]
        return [d for d in found if qid in (None, d.qid)]

    def status(self, qid):
        """Recipient -> Delivery: the latest of each recipient."""
        return {d.to: d for d in self.deliveries(qid)}

    def wait_status(self, qid, status, count=1, timeout=PATIENCE_S):
        """Wait until `count` recipients have this status; those deliveries."""
        def enough():
            found = [d for d in self.status(qid).values() if d.status == status]
            return found if len(found) >= count else None

        return procs.wait_for(enough, timeout, lambda: "%d x %s of %s; log:\n%s" % (
            count, status, qid, procs.tail(self.log())))

    # -- queue -----------------------------------------------------------------

    def queue(self):
        """Messages in the queue as postqueue -j tells them."""
        text = self.run("postqueue", "-j").stdout
        return [json.loads(line) for line in text.splitlines()]

    def mailq(self):
        return self.run("postqueue", "-p").stdout

    def wait_queue(self, condition, timeout=30, what="the queue"):
        """Wait until condition(queue()) is true; its value."""
        return procs.wait_for(
            lambda: condition(self.queue()), timeout,
            lambda: "%s; queue: %s; log:\n%s" % (
                what, json.dumps(self.queue(), indent=1), procs.tail(self.log())))

    def wait_queue_empty(self, timeout=PATIENCE_S):
        self.wait_queue(lambda queue: not queue, timeout, "an empty queue")

    def flush(self):
        """Try everything now, whatever its back-off."""
        self.run("postqueue", "-f")

    def postsuper(self, *args):
        """postsuper(1), for example postsuper("-h", qid)."""
        return self.run("postsuper", *args)

    # -- mail in and out -------------------------------------------------------

    def send(self, sender, recipients, body="test\r\n", *, headers=None, xclient=None,
             esmtp=(), timeout=60):
        """Send one message by SMTP; what was answered, as Sent.

        body: text or bytes. headers: added to From, To and Subject; None as a
        value leaves that header out. xclient: for example {"ADDR": "10.1.0.5",
        "LOGIN": "erp"}, to be somebody else. esmtp: options of MAIL.
        """
        with self.smtp(timeout) as smtp:
            if xclient:
                line = " ".join("%s=%s" % item for item in xclient.items())
                reply = smtp.docmd("XCLIENT", line)
                if reply[0] != 220:
                    return Sent(None, reply[0], _text(reply[1]), {})
                smtp.ehlo("client.test")
            return self._transaction(smtp, sender, recipients,
                                     self._message(sender, recipients, body, headers),
                                     esmtp)

    def smtp(self, timeout=60):
        """A connection on which EHLO has been said."""
        smtp = smtplib.SMTP(timeout=timeout)
        code, text = smtp.connect(self.address, self.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        smtp.ehlo("client.test")
        return smtp

    @staticmethod
    def _transaction(smtp, sender, recipients, message, esmtp):
        code, text = smtp.mail(sender, list(esmtp))
        refused, taken = {}, 0
        if code != 250:
            return Sent(None, code, _text(text), {})
        for recipient in recipients:
            code, text = smtp.rcpt(recipient)
            if code in (250, 251):
                taken += 1
            else:
                refused[recipient] = (code, _text(text))
        if not taken:
            return Sent(None, code, _text(text), refused)
        try:
            code, text = smtp.data(message)
        except smtplib.SMTPDataError as e:
            code, text = e.smtp_code, e.smtp_error
        queued = re.search(r"queued as (\w+)", _text(text))
        return Sent(queued.group(1) if code == 250 and queued else None, code,
                    _text(text), refused)

    @staticmethod
    def _message(sender, recipients, body, headers):
        lines = {"From": "<%s>" % sender if sender else "MAILER-DAEMON@gateway.test",
                 "To": recipients[0], "Subject": "test"}
        lines.update(headers or {})
        head = "".join("%s: %s\r\n" % item for item in lines.items() if item[1] is not None)
        return head.encode() + b"\r\n" + (body if isinstance(body, bytes) else body.encode())

    def submit(self, recipients, body="Subject: test\n\ntest\n", *, sender=None,
               user="root", args=()):
        """Submit by sendmail(1) as a user of the machine; wait until it's queued.

        Its queue id.
        """
        mark = self.mark()
        command, env, who = [tool("sendmail")], self._env(), {}
        if user == "root":
            command += ["-C", self.config]
        else:
            # Only root may use -C. The environment is trusted by a process that
            # gains no group, and postdrop gains none that it has already.
            env["MAIL_CONFIG"] = self.config
            who = {"user": pwd.getpwnam(user).pw_uid, "extra_groups": [],
                   "group": grp.getgrnam("postdrop").gr_gid}
        if sender is not None:
            command += ["-f", sender]
        subprocess.run([*command, "-oi", *args, "--", *recipients], input=body.encode(),
                       check=True, env=env, cwd="/", timeout=60, **who)
        return self.wait_log(r"/pickup\[\d+\]: (\w+): uid=%d " % pwd.getpwnam(user).pw_uid,
                             since=mark).group(1)

    def mailbox(self):
        """Mail delivered on this machine (bounces, local users), parsed."""
        folder = os.path.join(self.mail_dir, "new")
        with contextlib.suppress(FileNotFoundError):
            return [email.message_from_string(
                procs.read(os.path.join(folder, name)), policy=email.policy.default)
                for name in sorted(os.listdir(folder))]
        return []

    def wait_mailbox(self, count=1, timeout=20):
        return procs.wait_for(
            lambda: self.mailbox() if len(self.mailbox()) >= count else None, timeout,
            lambda: "%d messages in the mailbox; log:\n%s" % (
                count, procs.tail(self.log())))
