"""relay365 setup postfix: what it changes in a Postfix that is there, and that it takes all of it back."""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

import flow
import lab as laboratory
import postfix_conf
import procs
import programs
import relay365_conf
import small_disk

pytestmark = pytest.mark.needs_build

DEBIAN = "/usr/share/postfix"
OURS = re.compile(r"^# ---- relay365 begin.*^# ---- relay365 end ----\n", re.M | re.S)


# -- starting configurations: a function that changes a private Postfix -----------------

def usual(_lab, _box):
    pass


def debian(lab, box):
    """Debian's own files, with the folders of this laboratory."""
    if not os.path.exists(DEBIAN + "/master.cf.dist"):
        pytest.skip("no Debian templates")
    keep = {name: box.parameters[name] for name in (
        "queue_directory", "data_directory", "multi_instance_name", "maillog_file",
        "maillog_file_prefixes", "inet_interfaces")}
    text = procs.read(DEBIAN + "/main.cf.debian") + postfix_conf.main_text(keep)
    procs.write(box.config + "/main.cf", text)
    shutil.copy(DEBIAN + "/master.cf.dist", box.config + "/master.cf")


def basic(lab, box):
    """Today's relay: everything to Office 365 with a password."""
    procs.write(box.config + "/sasl_passwd",
                "# relays\n[smtp.office365.com]:587 %s:%s\n[mail.isp.example]:587 me:%s\n" % (
                    laboratory.ADDRESS, lab.canary("password"), lab.canary("ISP password")), 0o600)
    box.set(relayhost="[smtp.office365.com]:587", smtp_sasl_auth_enable="yes",
            smtp_sasl_password_maps="texthash:%s/sasl_passwd" % box.config,
            smtp_sasl_security_options="noanonymous", smtp_tls_security_level="encrypt",
            delay_warning_time="1h")


def busy(_lab, box):
    """Other relays by sender, other milters, a SASL_PATH, a default transport of its own."""
    procs.write(box.config + "/transports", "news@contoso.com smtp:[news.example]:25\n")
    procs.write(box.config + "/relays", "@fabrikam.com [mail.isp.example]:587\n")
    box.set(sender_dependent_default_transport_maps="texthash:%s/transports" % box.config,
            sender_dependent_relayhost_maps="texthash:%s/relays" % box.config,
            smtpd_milters="inet:127.0.0.1:8891, unix:/run/rspamd/milter",
            non_smtpd_milters="$smtpd_milters", milter_default_action="accept",
            milter_macro_defaults="{auth_type}=plain",
            import_environment="MAIL_CONFIG TZ LANG=C SASL_PATH=/opt/sasl2:/usr/lib/sasl2")


def odd(_lab, box):
    """Continued lines with comments inside, doubled names, pasted services, no last line feed."""
    path = box.config + "/main.cf"
    procs.write(path, procs.read(path) + (
        "# relay365 by hand\nsmtpd_milters =\n  # the old one\n    inet:127.0.0.1:9999\n\n"
        "\tinet:127.0.0.1:9998\ndefault_transport=smtp\nimport_environment = MAIL_CONFIG\n"
        "relay365-relay_destination_concurrency_limit=2\nrelayhost = [other.example]"))
    path = box.config + "/master.cf"
    procs.write(path, procs.read(path) + (
        "relay365-relay  unix\t- - n - - smtp\n  -o smtp_sasl_auth_enable=no\n# between\n"
        "  -o smtp_tls_security_level=none\nrelay365-relay unix-dgram - - n - - smtp"))


SLOW = pytest.mark.slow
STARTS = [pytest.param(usual, True, marks=SLOW), pytest.param(usual, False, marks=SLOW),
          pytest.param(debian, True), pytest.param(basic, False, marks=SLOW),
          pytest.param(busy, True, marks=SLOW), pytest.param(odd, False)]


def begin(lab, start, **options):
    lab.configure(mailboxes={"relay": {"senders": ["*@contoso.com"]}})
    box = lab.make_postfix(**options)
    start(lab, box)
    return box


def set_up(lab, box, *args, **options):
    return lab.relay365("setup", "postfix", "--config-dir", box.config, *args, **options)


def said(lab, box, *args):
    return json.loads(set_up(lab, box, "--json", *args).stdout)


def picture(folder):
    """Everything that a folder holds: names, bytes, modes, owners."""
    found = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        stat = os.lstat(path)
        with open(path, "rb") as f:
            found[name] = (f.read(), stat.st_mode, stat.st_uid, stat.st_gid)
    return found


def value(box, name):
    return box.run("postconf", "-h", name).stdout.strip()


# -- there and back -----------------------------------------------------------------------

@pytest.mark.parametrize("start, chroot", STARTS)
def test_apply_and_undo_leave_every_byte(lab, start, chroot):
    box = begin(lab, start, chroot=chroot)
    os.chmod(box.config + "/master.cf", 0o640)
    before = picture(box.config)
    shown = set_up(lab, box)
    assert "+++ %s/main.cf" % box.config in shown.stdout and "--apply" in shown.stdout
    assert picture(box.config) == before, "without --apply nothing is changed"
    set_up(lab, box, "--apply")
    assert picture(box.config) != before
    service = box.run("postconf", "-M", "relay365-relay/unix").stdout.split()
    smtp = box.run("postconf", "-M", "smtp/unix").stdout.split()
    assert service[4] == smtp[4], "in the chroot if smtp(8) is"
    applied = picture(box.config)
    assert "Nothing is to be changed." in set_up(lab, box, "--apply").stdout
    assert picture(box.config) == applied, "once more changes nothing"
    assert "stop Postfix and start it" in set_up(lab, box, "--undo").stdout
    assert picture(box.config) == before
    assert "Nothing is to be changed." in set_up(lab, box, "--undo").stdout


def test_undo_keeps_what_the_admin_changed_meanwhile(lab):
    box = begin(lab, basic)
    set_up(lab, box, "--apply")
    box.run("postconf", "-e", "biff=yes", "myorigin=else.test")
    procs.write(box.config + "/main.cf", procs.read(box.config + "/main.cf") + "# mine\n")
    set_up(lab, box, "--undo")
    text = procs.read(box.config + "/main.cf")
    # import_environment, which was there before, may name a build folder of any name
    ours = [line for line in text.splitlines()
            if "relay365" in line and not line.startswith("import_environment")]
    assert not ours and text.endswith("# mine\n")
    assert value(box, "myorigin") == "else.test" and value(box, "biff") == "yes"
    kept = os.path.join(lab.folder, "postfix", "backup-etc", "main.cf")
    assert "relayhost = [smtp.office365.com]:587" in procs.read(kept)


def test_undo_needs_no_configuration(lab):
    box = begin(lab, basic)
    before = picture(box.config)
    set_up(lab, box, "--apply")
    os.unlink(lab.config)
    set_up(lab, box, "--undo")
    assert picture(box.config) == before


def test_a_change_of_the_configuration_is_followed(lab):
    box = begin(lab, usual)
    before = picture(box.config)
    set_up(lab, box, "--apply")
    alerts = flow.second_mailbox(lab)
    lab.configure(mailboxes={"relay": {"address": laboratory.ADDRESS, "default": True},
                             "alerts": {"address": alerts, "senders": ["mon@contoso.com"]}})
    assert "Now run: postfix reload" in set_up(lab, box, "--apply").stdout
    assert "relay365-alerts" in box.run("postconf", "-M").stdout
    assert procs.read(box.config + "/main.cf").count("relay365 begin") == 1
    set_up(lab, box, "--undo")
    assert picture(box.config) == before


# -- what it makes of what is there ------------------------------------------------------

def test_relay_by_password_moves_over(lab):
    box = begin(lab, basic)
    done = said(lab, box, "--apply")
    assert value(box, "default_transport").startswith("relay365-relay:[")
    assert value(box, "relayhost") == "[smtp.office365.com]:587", "left as it is"
    assert value(box, "smtp_sasl_password_maps").endswith("/sasl_passwd")
    assert "relayhost = [smtp.office365.com]:587 counts no more" in done["notes"]
    assert "%s with a password" % laboratory.ADDRESS in done["notes"]
    assert "mailbox relay takes over" in done["notes"]
    assert "delay_warning_time = 1h" in done["notes"]
    assert "mail.isp.example" not in done["notes"], "another relay goes on as before"


def test_token_files_of_another_plugin_are_seen(lab):
    box = begin(lab, basic)
    procs.write(box.config + "/sasl_passwd",
                "[smtp.office365.com]:587 old@contoso.com:/etc/tokens/old\n"
                "smtp.office365.com %s:/etc/tokens/relay\n" % laboratory.ADDRESS, 0o600)
    notes = said(lab, box)["notes"]
    assert "as old@contoso.com, and no mailbox has this address" in notes
    assert "/etc/tokens/relay for %s, a token file of sasl-xoauth2" % laboratory.ADDRESS in notes
    assert "--import" not in notes, "the application has a credential"
    tenant = relay365_conf.tenant_of(lab.sim, laboratory.TENANT, laboratory.CLIENT_ID,
                                     delegated=True, scope="a/SMTP.Send offline_access",
                                     device_endpoint="https://localhost/devicecode")
    lab.configure(tenants={"contoso": tenant})
    file = procs.write(box.queue_dir + "/etc/tokens/relay", "{}", 0o600)
    notes = said(lab, box)["notes"]
    assert "relay365 authorize relay --import %s;" % file in notes, "where it is in the chroot"


def test_what_is_there_stays(lab):
    box = begin(lab, busy)
    done = said(lab, box, "--apply")
    maps = value(box, "sender_dependent_default_transport_maps")
    assert maps == "texthash:%s/postfix/sender_transport, texthash:%s/transports" % (
        lab.folder, box.config)
    assert value(box, "smtpd_milters") == (
        "inet:127.0.0.1:8891, unix:/run/rspamd/milter, "
        "{ unix:relay365m/milter, default_action=tempfail }")
    assert value(box, "non_smtpd_milters") == "$smtpd_milters"
    assert value(box, "milter_default_action") == "accept", "for the others"
    assert value(box, "milter_macro_defaults") == (
        "{auth_type}=plain, { {relay365_local} = $mydestination $virtual_mailbox_domains }")
    assert value(box, "default_transport") == "smtp"
    path = value(box, "import_environment")
    assert re.fullmatch(r"MAIL_CONFIG TZ LANG=C SASL_PATH=\S+/relay365/sasl2:"
                        r"/opt/sasl2:/usr/lib/sasl2", path)
    assert "sender_dependent_relayhost_maps" in done["notes"]
    # another sender's own route still wins
    assert box.run("postmap", "-q", "news@contoso.com", maps.split(", ")[1]).stdout
    assert not box.run("postmap", "-q", "news@contoso.com", maps.split(", ")[0],
                       check=False).stdout


def test_another_relay_keeps_what_no_mailbox_claims(lab):
    box = begin(lab, usual)
    box.set(relayhost="[mail.isp.example]:25")
    done = said(lab, box, "--apply")
    assert value(box, "default_transport") == "smtp"
    assert "relayhost = [mail.isp.example]:25 stays" in done["notes"]


def test_pasted_lines_are_replaced(lab):
    box = begin(lab, odd)
    set_up(lab, box, "--apply")
    text = procs.read(box.config + "/main.cf")
    assert "#relay365# \tinet:127.0.0.1:9998\n" in text
    assert value(box, "relay365-relay_destination_concurrency_limit") == "3"
    assert value(box, "smtpd_milters").split() == [
        "inet:127.0.0.1:9999", "inet:127.0.0.1:9998,", "unix:relay365m/milter"]
    services = box.run("postconf", "-M").stdout
    assert len(re.findall(r"^relay365-relay +unix ", services, re.M)) == 1
    assert "unix-dgram" in re.search(r"^relay365-relay +unix-dgram", services, re.M).group(0)


# -- several instances -----------------------------------------------------------------------

def as_primary(box, *words, status=0):
    """Run where box is the machine's own Postfix, in /etc/postfix."""
    script = "mount --bind %s /etc/postfix && exec %s" % (box.config, shlex.join(words))
    env = programs.environment(os.path.dirname(box.folder))
    del env["MAIL_CONFIG"]
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], env=env, text=True,
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_several_instances(lab):
    box = begin(lab, usual)
    out = {what: "%s/out/%s" % (lab.folder, what) for what in ("config", "queue", "data")}
    set_up_here = [programs.program("relay365"), "-c", lab.config, "setup", "postfix"]
    assert "+++ /etc/postfix/main.cf" in as_primary(box, *set_up_here).stdout, "there is one"
    # what postmulti makes instances from
    for name in ("main.cf", "master.cf"):
        shutil.copy(box.config + "/" + name, "%s/%s.proto" % (box.config, name))
    procs.write(box.config + "/postfix-files", "".join(re.findall(
        r"^\$(?:data|queue)_directory[:/].*\n", procs.read("/etc/postfix/postfix-files"), re.M)))
    as_primary(box, "postmulti", "-e", "init")
    os.mkdir(lab.folder + "/out")
    as_primary(box, "postmulti", "-I", "postfix-out", "-e", "create",
               *("%s_directory=%s" % item for item in out.items()))
    before = picture(box.config), picture(out["config"])
    for option in ("--apply", "--undo"):
        text = as_primary(box, *set_up_here, option, status=78).stderr
        assert "several Postfix instances" in text
        assert "--config-dir /etc/postfix" in text and out["config"] in text
    assert (picture(box.config), picture(out["config"])) == before, "no guess"
    # the second one sends
    set_up_here += ["--config-dir", out["config"]]
    assert out["queue"] in as_primary(box, *set_up_here, "--apply", status=78).stderr
    lab.configure(queue_directories=[box.queue_dir, out["queue"]])
    as_primary(box, *set_up_here, "--apply")
    assert picture(box.config) == before[0]
    asked = as_primary(box, "postconf", "-c", out["config"], "-h", "default_transport",
                       "multi_instance_name").stdout.split()
    assert asked[0].startswith("relay365-relay:") and asked[1] == "postfix-out"
    as_primary(box, *set_up_here, "--undo")
    assert (picture(box.config), picture(out["config"])) == before


# -- what goes wrong -----------------------------------------------------------------------

def refused(lab, box, *args, status=78):
    before = picture(box.config)
    done = set_up(lab, box, *args, status=status)
    assert done.stdout == "" and picture(box.config) == before
    return done.stderr


def test_a_queue_that_the_daemons_do_not_know(lab):
    box = begin(lab, usual)
    lab.configure(queue_directories=["/var/spool/other"])
    text = refused(lab, box, "--apply")
    assert 'set queue_directories = ["%s"]' % box.queue_dir in text


def test_a_folder_that_cannot_be_made(lab):
    """The reason is told, and Postfix is left as it was."""
    box = begin(lab, usual)
    before = picture(box.config)
    with small_disk.mounted(lab.folder + "/etc") as disk:
        shutil.copy(lab.config, disk.path)
        subprocess.run(["mount", "-o", "remount,ro", disk.path], check=True)
        done = lab.relay365("-c", disk.path + "/relay365.conf", "setup", "postfix", "--apply",
                            "--config-dir", box.config, status=78)
    assert "cannot make the folder %s/postfix: Read-only file system" % disk.path in done.stderr
    assert picture(box.config) == before


def test_a_broken_master_cf(lab):
    box = begin(lab, usual)
    procs.write(box.config + "/master.cf", procs.read(box.config + "/master.cf") + "bad line\n")
    assert "postconf fails" in refused(lab, box, "--apply")


@pytest.mark.parametrize("mark", ["# ---- relay365 begin ----\n", "# ---- relay365 end ----\n"])
def test_marks_that_do_not_match(lab, mark):
    box = begin(lab, usual)
    procs.write(box.config + "/main.cf", procs.read(box.config + "/main.cf") + mark)
    assert box.config + "/main.cf: " in refused(lab, box, "--apply")
    assert box.config + "/main.cf: " in refused(lab, box, "--undo")


def test_what_postfix_refuses_is_taken_back(lab):
    box = begin(lab, usual)
    # postconf has nothing against the one but a warning, which is not the cause, and postfix
    # check has something against the other
    box.set(unheard_of="1", daemon_directory=lab.folder + "/nowhere")
    text = refused(lab, box, "--apply")
    # Postfix before 3.9 or so says so to the mail log or a terminal only
    assert re.search("nothing is changed: postfix check fails, see the mail log(: .*fatal: .*)?\n",
                     text)


def test_no_such_folder_and_no_files(lab):
    lab.configure()
    done = lab.relay365("setup", "postfix", "--config-dir", lab.folder + "/x", status=78)
    assert "there is no folder" in done.stderr
    os.mkdir(lab.folder + "/empty")
    done = lab.relay365("setup", "postfix", "--config-dir", lab.folder + "/empty", status=78)
    assert "Postfix is not configured" in done.stderr


@pytest.mark.parametrize("args", [["--apply", "--undo"], ["--print", "--apply"], ["--config-dir"],
                                  ["--nonsense"], ["more"], ["--apply=yes"]])
def test_usage(lab, args):
    lab.configure()
    assert "usage: " in lab.relay365("setup", "postfix", *args, status=2).stderr


# -- and mail flows --------------------------------------------------------------------------

@pytest.mark.parametrize("start, chroot", [
    (basic, True), pytest.param(busy, False, marks=SLOW)])
def test_mail_flows_after_apply_and_as_before_after_undo(lab, start, chroot):
    box = begin(lab, start, chroot=chroot)
    set_up(lab, box, "--apply")
    # the plugin where the build left it
    value_now = value(box, "import_environment")
    box.run("postconf", "-e", "import_environment=" + re.sub(
        r"SASL_PATH=\S+", laboratory.sasl_path(), value_now))
    # the milters of others are not here
    box.run("postconf", "-e", "smtpd_milters={ unix:relay365m/milter, default_action=tempfail }")
    lab.tokend.start()
    lab.milter.start()
    box.start()
    sent = box.send(flow.SENDER, ["a@example.net"])
    box.wait_status(sent.qid, "sent")
    assert flow.accepted(lab) == 1
    box.stop()
    set_up(lab, box, "--undo")
    box.set(smtpd_milters="", non_smtpd_milters="", relayhost="", default_transport="error:gone",
            sender_dependent_default_transport_maps="")
    box.start()
    refused_now = box.send(flow.SENDER, ["b@example.net"]).refused
    assert "gone" in refused_now["b@example.net"][1]
    assert flow.accepted(lab) == 1
