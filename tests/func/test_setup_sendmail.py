"""relay365 setup sendmail: what it changes, with the macros of the real Sendmail."""

import json
import os

import pytest

import procs
import programs
import sendmail
import sendmail_conf

pytestmark = [pytest.mark.needs_build, pytest.mark.skipif(
    not sendmail.installed(), reason="Sendmail is not unpacked: contrib/install-packages test")]

FEATURE = str(programs.TREE / "sendmail" / "relay365.m4")


class Mail:
    """An /etc/mail of our own, with macros that may be added to."""

    def __init__(self, lab, more=""):
        self.lab, self.folder = lab, lab.folder + "/mail"
        self.tree = lab.folder + "/cf"
        sendmail_conf.make_tree(sendmail.CF, self.tree)
        self.feature = self.tree + "/feature/relay365.m4"
        os.unlink(self.feature)
        names = {"folder": lab.folder, "port": 25, "mda": "/bin/true", "more": more, "last": ""}
        self.mc = ("include(`%s/m4/cf.m4')dnl\n" % self.tree) + sendmail_conf.MC % names
        procs.write(self.folder + "/sendmail.mc", self.mc)
        self.cf = sendmail_conf.compile_mc(self.tree, self.mc, with_cf=False)
        procs.write(self.folder + "/sendmail.cf", self.cf)
        lab.configure()

    def setup(self, *args, **options):
        return self.lab.relay365("setup", "sendmail", "--config-dir", self.folder,
                                 "--feature", FEATURE, *args, **options)

    def read(self, name):
        return procs.read(self.folder + "/" + name)


def test_it_shows_applies_and_undoes(lab):
    mail = Mail(lab)
    shown = mail.setup()
    line = "FEATURE(`relay365', `%s/srun/submit', `local:%s', `100')dnl" % (
        lab.folder, lab.milter_socket)
    assert "+" + line in shown.stdout and "Nothing was changed" in shown.stdout
    assert mail.read("sendmail.mc") == mail.mc and not os.path.exists(mail.feature)

    assert "restart Sendmail" in mail.setup("--apply").stdout
    assert line in mail.read("sendmail.mc")
    cf = mail.read("sendmail.cf")
    assert "\nDSrelay365:office365\n" in cf and "A=FILE %s/srun/submit\n" % lab.folder in cf
    assert "Xrelay365, S=local:%s, F=T, " % lab.milter_socket in cf
    assert procs.read(mail.feature) == procs.read(FEATURE)
    assert procs.read(lab.folder + "/sendmail-backup/sendmail.mc") == mail.mc
    assert "Nothing is to be changed." in mail.setup("--apply").stdout

    # what the admin changes meanwhile stays
    procs.write(mail.folder + "/sendmail.mc", mail.read("sendmail.mc").replace(
        "FEATURE(`nocanonify')", "FEATURE(`always_add_domain')"))
    assert "not what m4 makes" in mail.setup("--undo", status=78).stderr
    procs.write(mail.folder + "/sendmail.cf", sendmail_conf.compile_mc(
        mail.tree, mail.read("sendmail.mc"), with_cf=False))
    mail.setup("--undo")
    assert mail.read("sendmail.mc") == mail.mc.replace(
        "FEATURE(`nocanonify')", "FEATURE(`always_add_domain')")
    assert "Mrelay365" not in mail.read("sendmail.cf")


def test_a_change_of_relay365_conf_is_followed(lab):
    mail = Mail(lab)
    mail.setup("--apply")
    lab.configure(mailboxes={"relay": {"recipients_per_day": 400}}, milter_socket="inet:8365@localhost")
    mail.setup("--apply")
    assert "`inet:8365@localhost', `20')dnl" in mail.read("sendmail.mc")
    assert mail.read("sendmail.mc").count("relay365 setup sendmail: begin") == 1
    assert "r=20, " in mail.read("sendmail.cf")


def test_notes(lab):
    mail = Mail(lab, "define(`SMART_HOST', `old.example.net')dnl\n"
                     "FEATURE(`authinfo', `hash /etc/mail/authinfo')dnl")
    shown = mail.setup("--apply").stdout
    assert "Note: sendmail.mc names a SMART_HOST; relay365 takes its place." in shown
    assert "Note: sendmail.mc has authinfo" in shown
    assert "\nDSrelay365:office365\n" in mail.read("sendmail.cf")


def test_an_edited_sendmail_cf_is_left_alone(lab):
    mail = Mail(lab)
    procs.write(mail.folder + "/sendmail.cf", mail.cf + "D{mine}1\n")
    assert "it was edited" in mail.setup("--apply", status=78).stderr
    assert mail.read("sendmail.mc") == mail.mc and mail.read("sendmail.cf").endswith("D{mine}1\n")
    assert not os.path.exists(mail.feature)


def test_when_m4_fails_all_is_put_back(lab):
    mail = Mail(lab)
    broken = procs.write(lab.folder + "/broken.m4", "errprint(`no good\n')\n")
    done = mail.setup("--apply", "--feature", broken, status=78)
    assert "nothing is changed: m4 does not make a sendmail.cf of it: no good" in done.stderr
    assert mail.read("sendmail.mc") == mail.mc and mail.read("sendmail.cf") == mail.cf
    assert not os.path.exists(mail.feature)


def test_the_example_is_whole(lab):
    tree = Mail(lab).tree
    os.symlink(FEATURE, tree + "/feature/relay365.m4")
    text = procs.read(str(programs.TREE / "sendmail" / "sendmail.mc"))
    assert "include(`/usr/share/sendmail/cf/m4/cf.m4')" in text
    cf = sendmail_conf.compile_mc(tree, "include(`%s/debian/autoconf.m4')dnl\n" % tree
                                  + text.replace("/usr/share/sendmail/cf", tree), with_cf=False)
    assert "\nDSrelay365:office365\n" in cf and "A=FILE /run/relay365s/submit\n" in cf
    assert "Xrelay365, S=local:/run/relay365m/milter, F=T, T=C:30s;S:30s;R:60s;E:5m\n" in cf
    assert "InputMailFilters=relay365" in cf


def test_what_is_missing_is_named(lab):
    mail = Mail(lab)
    lab.configure(queue_directories=["/nowhere/postfix"], milter_socket="inet:1@localhost")
    assert "set queue_directories = []" in mail.setup(status=78).stderr
    lab.configure()
    os.unlink(mail.folder + "/sendmail.cf")
    assert "--config-dir" in mail.setup(status=78).stderr
    procs.write(mail.folder + "/sendmail.cf", mail.cf)
    procs.write(mail.folder + "/sendmail.mc", "nothing\n")
    assert "m4/cf.m4" in mail.setup(status=78).stderr
    assert "FEATURE(`relay365', " in lab.relay365("setup", "sendmail", "--print").stdout
    assert "usage: " in mail.setup("--apply", "--undo", status=2).stderr


def seen_by_doctor(lab, mail):
    """What the doctor finds of Sendmail: verdict and evidence of each."""
    done = lab.relay365("--json", "doctor", "--sendmail-dir", mail.folder, status=None)
    return [(f["verdict"], f["evidence"]) for f in json.loads(done.stdout)["findings"]
            if f["check"] == "sendmail"]


def test_doctor(lab):
    mail = Mail(lab)
    lab.configure(queue_directories=[])
    lab.tokend.start()
    lab.milter.start()
    assert seen_by_doctor(lab, mail) == [
        ("warning", "Sendmail does not deliver through relay365")]
    mail.setup("--apply")
    found = seen_by_doctor(lab, mail)
    assert [verdict for verdict, _evidence in found] == ["ok", "ok", "fault"]
    assert found[2][1] == "relay365-submit is not running: Sendmail keeps all mail"
    lab.submit.start()
    assert [verdict for verdict, _evidence in seen_by_doctor(lab, mail)] == ["ok", "ok"]

    cf = mail.read("sendmail.cf")
    procs.write(mail.folder + "/sendmail.cf", cf.replace("F=T, ", ""))
    assert "without F=T mail passes uncounted" in str(seen_by_doctor(lab, mail))
    procs.write(mail.folder + "/sendmail.cf", cf.replace("A=FILE " + lab.folder, "A=FILE /else"))
    assert seen_by_doctor(lab, mail)[0][0] == "fault"
