"""A laboratory: one private folder with whatever parts a test needs.

    def test_it(lab):
        lab.sim.mailbox("relay@contoso.com", messages_per_minute=5)
        lab.configure(mailboxes={"relay": {"senders": ["*@contoso.com"]}})
        lab.tokend.start()
        lab.make_postfix(chroot=True).start()

Parts come to life when they are first asked for. When the test is over, all
processes end and the laboratory looks for what no test may leave behind: a
sanitizer's report, a daemon that died, a secret where none may be.
"""

import contextlib
import copy
import grp
import json
import os
import re
import secrets
import subprocess
import sys

import postfix
import postfix_conf
import procs
import programs
import relay365_conf
import sendmail

sys.path.append(str(programs.TREE / "tests" / "sim"))
from client import Sim, canary_forms  # noqa: E402  pylint: disable=C0413

TENANT = "contoso.onmicrosoft.com"
CLIENT_ID = "11111111-2222-3333-4444-555555555555"
DOMAINS = ["contoso.com", TENANT]
ADDRESS = "relay@contoso.com"

REPORT = re.compile(r"ERROR: (Address|Leak|Memory)Sanitizer|runtime error:|"
                    r"ThreadSanitizer|^==\d+==ERROR", re.MULTILINE)
LOGS = (".log", ".err", ".out")


class Lab:
    def __init__(self):
        self._private = procs.PrivateFolder()
        self.folder = self._private.path
        self.log_folder = self._make("log")
        self.config = os.path.join(self.folder, "relay365.conf")
        self.queue_dir = os.path.join(self.folder, "p", "q")
        self.milter_socket = os.path.join(self.queue_dir, "relay365m", "milter")
        self.canaries = {}          # secret -> what it is
        self.outputs = {}           # what commands printed: name -> text
        self.secret = self.canary("client secret")
        self.secret_file = procs.write(self.folder + "/contoso.secret",
                                       self.secret + "\n", 0o600)
        self._sim = None
        self._postfix = None
        self._sendmail = None
        self._daemons = {}
        self._closed = False

    def _make(self, name, mode=0o755, group=None):
        path = os.path.join(self.folder, name)
        os.makedirs(path, exist_ok=True)
        if group:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        os.chmod(path, mode)        # after chown, which clears the set-gid bit
        return path

    # -- secrets ---------------------------------------------------------------

    def canary(self, what):
        """A new secret, to be planted; it must never be seen again."""
        # characters that a form or an unquoted text would spoil
        text = "cAn4ry~%s+/=&%%" % secrets.token_hex(12)
        return self.watch(text, what)

    def watch(self, secret, what):
        """From now on this secret must not be found anywhere; returns it."""
        self.canaries[secret] = what
        return secret

    # -- parts -----------------------------------------------------------------

    @property
    def sim(self):
        """Entra ID and Exchange; made with one tenant and one mailbox."""
        return self._sim or self.start_sim()

    def start_sim(self, config=None, **options):
        """Start the stand-in with these settings, or the usual ones."""
        config = copy.deepcopy(config) if config else {
            "tenants": {TENANT: {"domains": DOMAINS, "clients": {
                CLIENT_ID: {"secrets": [self.secret]}}}},
            "mailboxes": {ADDRESS: {"tenant": TENANT, "send_as": ["*"]}}}
        # every token contains it, so all tokens are watched at once
        config.setdefault("canary", "cAn4ryT0ken" + secrets.token_hex(8))
        self.watch(config["canary"], "access token")
        self._sim = Sim.start(os.path.join(self.folder, "sim"), config=config, **options)
        return self._sim

    @property
    def postfix(self):
        """The private Postfix; not started by this."""
        return self._postfix or self.make_postfix()

    def make_postfix(self, milter=False, plugin=True, **options):
        """Install Postfix: options of PostfixInstance.

        milter: ask relay365-milter. plugin: let smtp(8) find our plugin.
        """
        assert self._postfix is None, "there is one already"
        if plugin:
            options.setdefault("env", [sasl_path()])
        if milter:
            options.setdefault("milters", "unix:relay365m/milter")
        self._postfix = postfix.PostfixInstance(os.path.join(self.folder, "p"), **options)
        self._make_socket_folders()
        return self._postfix

    def _make_socket_folders(self):
        for name in ("relay365", "relay365m"):
            self._make(os.path.join(self.queue_dir, name), 0o2750, "postfix")

    def configure(self, mailboxes=None, tenants=None, **top):
        """Write relay365.conf; its text.

        mailboxes: name -> keys; address, tenant and default are filled in if
        there is only one. tenants: name -> keys, the sim's if not given. top:
        any other key or section, for example limits={...}; None leaves it out.
        """
        if tenants is None:
            tenants = {"contoso": relay365_conf.tenant_of(
                self.sim, TENANT, CLIENT_ID, self.secret_file, accepted_domains=DOMAINS)}
        mailboxes = copy.deepcopy(mailboxes) if mailboxes else {"relay": {}}
        if len(mailboxes) == 1:
            keys = next(iter(mailboxes.values()))
            keys.setdefault("address", ADDRESS)
            keys.setdefault("default", True)
        if len(tenants) == 1:
            for keys in mailboxes.values():
                keys.setdefault("tenant", next(iter(tenants)))
        # probes would be met by faults that are meant for mail, and counted with it
        everything = {"postmaster": "it@contoso.com", "log": "stderr", "probe": False,
                      "token_users": ["postfix", "root"],
                      **relay365_conf.paths(self.folder, self.queue_dir), **top}
        for key in ("state_dir", "milter_state_dir", "run_dir", "milter_run_dir", "submit_run_dir"):
            if everything[key]:
                os.makedirs(everything[key], mode=0o700, exist_ok=True)
        os.makedirs(self.queue_dir, exist_ok=True)
        self._make_socket_folders()
        return relay365_conf.write(self.config, tenants, mailboxes, **everything)

    @property
    def tokend(self):
        """relay365-tokend; not started by this."""
        return self._daemon("relay365-tokend", [
            self.folder + "/run/token", self.folder + "/run/control",
            self.queue_dir + "/relay365/token", self.queue_dir + "/relay365/map"])

    @property
    def milter(self):
        """relay365-milter; not started by this."""
        # the milter's own socket is not tried: libmilter would log it
        return self._daemon("relay365-milter", [self.folder + "/mrun/control"])

    @property
    def submit(self):
        """relay365-submit; not started by this."""
        # its own socket is not tried: it would sign in
        return self._daemon("relay365-submit", [])

    @property
    def sendmail(self):
        """The private Sendmail; not started by this."""
        return self._sendmail or self.make_sendmail()

    def make_sendmail(self, milter=True, recipients="", last=""):
        """Install Sendmail with our feature in its .mc."""
        assert self._sendmail is None, "there is one already"
        milter = "local:" + self.milter_socket if milter else "none"
        feature = "FEATURE(`relay365', `%s/srun/submit', `%s', `%s')dnl" % (
            self.folder, milter, recipients)
        self._sendmail = sendmail.SendmailInstance(self.folder + "/s", feature, last)
        return self._sendmail

    def _daemon(self, name, sockets):
        if name not in self._daemons:
            self._daemons[name] = programs.Program(name, self.folder, self.config, sockets)
        return self._daemons[name]

    def relay365(self, *args, status=0, secret_output=False, **options):
        """Run the relay365 command; what it prints is searched for secrets.

        status: the exit status it must have; None: any.
        """
        done = programs.command(self.folder, self.config, *args, **options)
        number = len(self.outputs)
        self.outputs["%d: relay365 %s" % (number, " ".join(args))] = (
            done.stderr + ("" if secret_output else done.stdout))
        assert status in (None, done.returncode), "relay365 %s: exit %d\n%s%s" % (
            " ".join(args), done.returncode, done.stdout, done.stderr)
        return done

    def setup_postfix(self, **options):
        """Install Postfix with what `relay365 setup postfix` prints.

        options: of make_postfix(). Postfix is not started.
        """
        box = self.make_postfix(**options)
        printed = json.loads(self.relay365("--json", "setup", "postfix").stdout)
        box.apply(postfix_conf.main_text(printed["main_cf"]), printed["master_cf"],
                  printed["files"])
        for name, value in printed["main_cf_last_in_list"].items():
            box.parameters[name] = " ".join([box.parameters.get(name, ""), value]).strip()
        # the plugin of the build folder, and Postfix's own default for the rest
        box.parameters["import_environment"] = " ".join(
            [postfix_conf.default_value("import_environment"), sasl_path()])
        if not box.chroot:
            box.services = postfix_conf.without_chroot(box.services)
        box.write_config()
        return box

    # -- the end ---------------------------------------------------------------

    def log_files(self):
        """Every log below the folder: path relative to it -> text."""
        found = {}
        for where, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if name not in ("q", "mail", "pki")]
            for name in files:
                if name.endswith(LOGS):
                    path = os.path.join(where, name)
                    found[os.path.relpath(path, self.folder)] = procs.read(path)
        return found

    def tails(self, lines=60):
        """The ends of all logs, for somebody who wonders what happened."""
        return "\n".join("--- %s ---\n%s" % (name, procs.tail(text, lines))
                         for name, text in sorted(self.log_files().items()) if text)

    def look_around(self):
        """Keep what can be seen only while processes live. Call it any time."""
        number = len(self.outputs)
        self.outputs["%d: command lines" % number] = "\n".join(
            procs.command_line(pid) for pid in procs.pids() if pid != os.getpid())
        if self._postfix and self._postfix.processes():
            self.outputs["%d: mailq" % number] = self._postfix.mailq()

    def leaks(self):
        """Where a watched secret has been seen: sentences."""
        places = {**self.log_files(), **self.outputs}
        return ["%s seen in %s" % (what, place)
                for secret, what in self.canaries.items()
                for place, text in places.items()
                if any(form in text for form in canary_forms(secret))]

    def problems(self):
        """What nobody may leave behind: sentences. Processes must have ended."""
        found = ["%s: %s" % (name, _report(text))
                 for name, text in self.log_files().items() if REPORT.search(text)]
        for daemon in self._daemons.values():
            found += daemon.unexpected
        return found + self.leaks()

    def stop(self):
        """End all processes, whatever happens; what went wrong, as sentences."""
        found = []
        steps = [self.look_around]
        steps += [self._sendmail.close] if self._sendmail else []
        # tokend, on which others wait, was started first and ends last, as under systemd
        daemons = reversed(list(self._daemons.values()))
        steps += [part.stop for part in (self._postfix, *daemons, self._sim) if part]
        for step in [*steps, lambda: procs.kill_all(self.folder)]:
            try:
                step()
            except Exception as e:      # the others must end all the same
                found.append("%s: %s" % (type(e).__name__, e))
        return found

    def close(self):
        """Stop; the problems found. A copy stays if RELAY365_KEEP is set."""
        found = []
        if self._closed:
            return found
        self._closed = True
        with contextlib.ExitStack() as stack:
            stack.callback(self._private.remove)
            found += self.stop()
            found += self.problems()
            if os.environ.get("RELAY365_KEEP"):
                subprocess.run(["cp", "-a", self.folder, self.folder + ".kept"], check=True)
        return found


def _report(text):
    return procs.tail(text[REPORT.search(text).start():][:4000], 40)


def sasl_path():
    """For import_environment: the system's SASL plugins, and ours.

    SASL_PATH replaces the built-in folder, which other transports and the
    SMTP server may need.
    """
    return "SASL_PATH=" + ":".join([*programs.sasl_folders(), programs.plugin_folder()])
