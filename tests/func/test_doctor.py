"""relay365 doctor: planted faults, and the first line that must name each of them."""

import contextlib
import json
import os
import re
import socket
import subprocess

import pytest

import flow
import lab as laboratory
import postfix
import procs

pytestmark = pytest.mark.needs_build

MAILBOX = {"relay": {"senders": ["*@contoso.com"]}}


class Clinic:
    """A gateway that is well, wired by setup postfix --apply; its faults are planted and cured."""

    def __init__(self, lab):
        self.lab = lab
        lab.configure(mailboxes=MAILBOX)
        self.box = lab.make_postfix(chroot=True)
        lab.relay365("setup", "postfix", "--config-dir", self.box.config, "--apply")
        self.postconf(import_environment=re.sub(
            r"SASL_PATH=\S+", laboratory.sasl_path(), self.value("import_environment")))
        self.well = procs.read(self.box.config + "/main.cf")
        self.master = procs.read(self.box.config + "/master.cf")
        lab.tokend.start()
        lab.milter.start()
        self.box.start()

    def value(self, name):
        return self.box.run("postconf", "-h", name).stdout.strip()

    def age(self):
        """Postfix's programs wait for two seconds when a file was changed just now."""
        for name in ("main.cf", "master.cf"):
            os.utime(os.path.join(self.box.config, name), (1, 1))

    def postconf(self, **parameters):
        self.age()
        self.box.run("postconf", "-e", *("%s=%s" % item for item in parameters.items()))
        self.age()

    def restart_tokend(self):
        self.lab.tokend.restart()
        procs.wait_for(self.token_is_decided, 20, "tokend's first request to end")

    def token_is_decided(self):
        token = flow.status(self.lab)["tokend"]["tokens"][0]
        return token["state"] == "valid" or "last_error" in token

    def doctor(self, *args, status=None, **options):
        return self.lab.relay365("doctor", "--config-dir", self.box.config, *args,
                                 status=status, **options).stdout

    def first_line(self):
        return self.doctor().splitlines()[0]

    def heal(self):
        self.lab.sim.clear()
        self.lab.configure(mailboxes=MAILBOX)
        procs.write(self.lab.secret_file, self.lab.secret + "\n", 0o600)
        procs.write(self.box.config + "/main.cf", self.well)
        procs.write(self.box.config + "/master.cf", self.master)
        self.age()
        for name in ("relay365", "relay365m"):
            os.chmod(os.path.join(self.box.queue_dir, name), 0o2750)
        for daemon in (self.lab.tokend, self.lab.milter):
            if not daemon.running():
                daemon.start()


    def afresh(self):
        """Well again, and tokend with nothing to remember, as after the machine's restart."""
        self.heal()
        self.lab.tokend.stop()
        os.unlink(self.lab.folder + "/run/memo")
        self.restart_tokend()


def check(clinic, faults):
    """Plant each, look at the first line, cure it; all that is wrong, at once."""
    wrong = []
    for name, (plant, *pattern) in faults.items():
        with contextlib.ExitStack() as cure:
            cure.callback(clinic.heal)
            plant(clinic, cure)
            clinic.age()
            line = clinic.first_line()
        if not all(re.search(part, line) for part in pattern):
            wrong.append("%s: %s" % (name, line))
    assert not wrong, "\n".join(wrong)


# -- what can be planted: functions of (clinic, cure) --------------------------------------

def entra(**fault):
    def plant(clinic, cure):
        cure.callback(clinic.afresh)
        clinic.lab.sim.fault("entra", **fault)
        clinic.restart_tokend()
    return plant


def tenant(**keys):
    """Something about the tenant in relay365.conf is wrong."""
    def plant(clinic, cure):
        cure.callback(clinic.afresh)
        conf = laboratory.relay365_conf
        clinic.lab.configure(mailboxes=MAILBOX, tenants={"contoso": conf.tenant_of(
            clinic.lab.sim, **{**dict(tenant=laboratory.TENANT, client_id=laboratory.CLIENT_ID,
                                      secret_file=clinic.lab.secret_file), **keys})})
        clinic.restart_tokend()
    return plant


def at_entra(**client):
    """Something about the application at the stand-in is wrong."""
    def plant(clinic, cure):
        def put(**values):
            clinic.lab.sim.set(tenants={laboratory.TENANT: {"clients": {
                laboratory.CLIENT_ID: values}}})
        cure.callback(clinic.afresh)
        cure.callback(put, disabled=False, registered=True, roles=["SMTP.SendAsApp"])
        put(**client)
        clinic.restart_tokend()
    return plant


def secret_id(clinic, cure):
    cure.callback(clinic.afresh)
    procs.write(clinic.lab.secret_file, "0a1b2c3d-0000-4000-8000-000000000000\n", 0o600)
    clinic.restart_tokend()


def old_certificate(clinic, cure):
    """It signs in, and ends in five days."""
    path = clinic.lab.folder + "/old"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5",
                    "-subj", "/CN=relay365", "-keyout", path + ".key", "-out", path + ".crt"],
                   stderr=subprocess.DEVNULL, check=True)
    os.chmod(path + ".key", 0o600)
    clinic.lab.sim.client(laboratory.TENANT, laboratory.CLIENT_ID,
                          certificates=[procs.read(path + ".crt")])
    tenant(secret_file=None, certificate=path + ".crt", private_key=path + ".key")(clinic, cure)


def clock(clinic, cure):
    cure.callback(clinic.lab.sim.set, clock_offset=0)
    clinic.lab.sim.set(clock_offset=600)


def graph_token(clinic, cure):
    """A token for Microsoft Graph, as a wrong scope gets."""
    token = clinic.lab.sim.mint(laboratory.TENANT, laboratory.CLIENT_ID,
                                audience="https://graph.microsoft.com")
    entra(kind="token", value=token)(clinic, cure)


def exchange(**fault):
    def plant(clinic, _cure):
        clinic.lab.sim.fault("smtp", **fault)
    return plant


def mailbox(back, **keys):
    def plant(clinic, cure):
        cure.callback(clinic.lab.sim.mailbox, laboratory.ADDRESS, **back)
        clinic.lab.sim.mailbox(laboratory.ADDRESS, **keys)
    return plant


def organisation(clinic, cure):
    cure.callback(clinic.lab.sim.set,
                  tenants={laboratory.TENANT: {"smtp_auth_disabled": False}})
    clinic.lab.sim.set(tenants={laboratory.TENANT: {"smtp_auth_disabled": True}})


def closed(clinic, cure):
    cure.callback(clinic.lab.sim.listen, "smtp", True)
    clinic.lab.sim.listen("smtp", False)


def black_hole(clinic, cure):
    """A port that takes no more connections: the kernel drops what comes, as a firewall does."""
    hole = cure.enter_context(socket.socket())
    hole.bind(("127.0.0.3", 0))
    hole.listen(0)
    for _ in range(2):
        filler = cure.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(hole.getsockname())
    clinic.lab.configure(mailboxes=MAILBOX, tenants={"contoso": {
        **laboratory.relay365_conf.tenant_of(
            clinic.lab.sim, laboratory.TENANT, laboratory.CLIENT_ID, clinic.lab.secret_file),
        "smtp_address": "127.0.0.3", "smtp_port": hole.getsockname()[1]}})


def main_cf(**parameters):
    def plant(clinic, _cure):
        clinic.postconf(**parameters)
    return plant


def master_cf(edit):
    def plant(clinic, _cure):
        procs.write(clinic.box.config + "/master.cf", edit(clinic.master))
    return plant


def more_services(text):
    return master_cf(lambda master: master + text)


def stopped(name):
    def plant(clinic, _cure):
        getattr(clinic.lab, name).stop()
    return plant


def postfix_stopped(clinic, cure):
    cure.callback(clinic.box.start)
    clinic.box.stop()


def folder_mode(name):
    def plant(clinic, _cure):
        os.chmod(os.path.join(clinic.box.queue_dir, name), 0o2700)
    return plant


def started_too_early(clinic, cure):
    """Postfix was started before import_environment had SASL_PATH, and only reloaded since."""
    def restart():
        clinic.box.stop()
        clinic.box.start()
    cure.callback(restart)
    cure.callback(clinic.heal)
    environment = clinic.value("import_environment")
    clinic.postconf(import_environment="MAIL_CONFIG TZ LANG=C")
    restart()
    clinic.postconf(import_environment=environment)
    clinic.box.run("postfix", "reload")


def plugin_folder(*names):
    def plant(clinic, _cure):
        folder = clinic.lab.folder + "/plugins"
        os.makedirs(folder, exist_ok=True)
        for name in names:
            procs.write(os.path.join(folder, name), "")
        clinic.postconf(import_environment="MAIL_CONFIG TZ LANG=C SASL_PATH=" + folder)
    return plant


def configuration(**top):
    def plant(clinic, _cure):
        clinic.lab.configure(mailboxes=MAILBOX, **top)
    return plant


def secret_mode(clinic, _cure):
    os.chmod(clinic.lab.secret_file, 0o644)


def milter_from_the_root(clinic, _cure):
    # as somebody may have it who has moved the socket
    clinic.lab.configure(mailboxes=MAILBOX, milter_socket="unix:/run/relay365m/milter")
    clinic.postconf(smtpd_milters="unix:/run/relay365m/milter",
                    non_smtpd_milters="unix:/run/relay365m/milter")
    procs.write(clinic.box.config + "/master.cf", clinic.master + "smtp inet n - y - - smtpd\n")


def refused_message(**keys):
    """Mail goes out and is refused at Exchange for a reason of the mailbox's."""
    def plant(clinic, cure):
        cure.callback(clinic.lab.sim.mailbox, laboratory.ADDRESS,
                      send_as=["*"], recipients_per_day=10000, blocked=False)
        clinic.lab.sim.mailbox(laboratory.ADDRESS, **keys)
        sent = clinic.box.send(flow.SENDER, ["a@example.net"])
        assert sent.ok, sent
        procs.wait_for(lambda: clinic.box.status(sent.qid), 30, clinic.box.log)
        procs.wait_for(lambda: flow.status(clinic.lab)["tokend"]["mailboxes"][0].get(
            "last_refusal"), 20, "tokend to hear of it")
        cure.callback(clinic.afresh)    # it remembers what was refused
        cure.callback(clinic.box.postsuper, "-d", "ALL")
    return plant


FAULT, WARNING = "^Fault: ", "^Warning: "
DO = r"\. What to do: "

AT_ENTRA = {
    "secret expired": (entra(kind="aadsts", code=7000222), FAULT, "AADSTS7000222", DO,
                       "secret"),
    "secret id instead of value": (secret_id, FAULT, "AADSTS7000215", DO + ".*Value"),
    "wrong client id": (tenant(client_id="99999999-2222-3333-4444-555555555555"), FAULT,
                        "AADSTS700016", DO + ".*client_id"),
    "application disabled": (at_entra(disabled=True), FAULT, "AADSTS7000112",
                             DO + ".*Enterprise applications"),
    "consent missing": (entra(kind="aadsts", code=65001), FAULT, DO + ".*consent"),
    "conditional access": (entra(kind="aadsts", code=53003), FAULT, "Conditional Access"),
    "wrong authority": (entra(kind="certificate", which="untrusted"), WARNING, "certificate",
                        DO, "ca_file"),
    "Entra is down": (entra(kind="status", status=503), WARNING, "503",
                      "mail flows until the token ends"),
    "certificate ends soon": (old_certificate, WARNING, "certificate.* ends at .*, in [45] days",
                              DO + "renew it"),
    "clock ten minutes off": (clock, FAULT, r"clock is (59[5-9]|60[0-5]) s behind Entra's",
                              "timedatectl"),
}

AT_EXCHANGE = {
    "wrong object id": (at_entra(registered=False), FAULT, "5.7.3 ", "New-ServicePrincipal"),
    "token for Graph": (graph_token, FAULT, "the token is wrong", DO,
                        "aud is Microsoft Graph", "scope"),
    "no permission": (at_entra(roles=[]), FAULT, "5.7.3 ", "permission or RBAC scope"),
    "not spread yet": (exchange(kind="auth_fail", reason="unsuccessful"), FAULT,
                       "a change takes up to 2 hours"),
    "SMTP AUTH off in the tenant": (organisation, FAULT, "off for the whole tenant",
                                    "Set-CASMailbox"),
    "SMTP AUTH off for the mailbox": (
        mailbox({"smtp_auth_disabled": None}, smtp_auth_disabled=True), FAULT,
        "off for this mailbox", "Set-CASMailbox"),
    "no access to the mailbox": (mailbox({"access": True}, access=False), FAULT, "5.7.3 "),
    "no licence": (mailbox({"licensed": True}, licensed=False), FAULT, "5.7.3 "),
    "authentication policy": (exchange(kind="auth_fail", reason="policy"), FAULT,
                              "sign-in log"),
    "no XOAUTH2": (exchange(kind="no_auth"), FAULT, "does not offer AUTH XOAUTH2"),
    "no STARTTLS": (exchange(kind="no_starttls"), FAULT, "offers no STARTTLS", "inspect esmtp"),
    "another name": (exchange(kind="certificate", which="wrong"), FAULT, "TLS to .* fails"),
    "another authority": (exchange(kind="certificate", which="untrusted"), FAULT,
                          "TLS to .* fails", "ca_file"),
    "port refused": (closed, FAULT, "refuses connections to port"),
}

FIREWALL = {
    "port dropped by a firewall": (black_hole, FAULT, "does not answer on port",
                                   "a firewall drops packets"),
}

HERE = {
    "no such key": (configuration(nonsense=1), FAULT, "unknown key \"nonsense\"", "mend the file"),
    "secret for all to read": (secret_mode, FAULT, "has mode 0644; run: chmod"),
    "tokend down": (stopped("tokend"), FAULT, "relay365-tokend does not answer",
                    "systemctl start relay365-tokend"),
    "milter down": (stopped("milter"), FAULT, "relay365-milter does not answer",
                    "systemctl start relay365-milter"),
    "Postfix down": (postfix_stopped, FAULT, "Postfix does not run", "postfix start"),
    "another queue": (configuration(queue_directories=["/var/spool/other"]), FAULT,
                      "queue_directories does not name"),
    "no service": (master_cf(lambda text: text.replace("relay365-relay unix", "gone unix")), FAULT,
                   "master.cf has no service relay365-relay", "setup postfix --apply"),
    "no map": (main_cf(sender_dependent_default_transport_maps=""), FAULT,
               "no mail is sent through relay365", "setup postfix --apply"),
    "another SASL": (main_cf(smtp_sasl_type="dovecot"), FAULT, "loads no SASL plugin"),
    "no milter": (main_cf(smtpd_milters=""), FAULT, "relay365-milter is not asked"),
    "milter not last": (main_cf(smtpd_milters="unix:relay365m/milter, inet:127.0.0.1:8891"),
                        WARNING, "is not the last", "put it last"),
    "local domains not told": (main_cf(milter_macro_defaults="", mydestination="srv01"), WARNING,
                               "has no {relay365_local}", "is taken to stay on this machine",
                               "setup postfix --apply"),
    "taken for Sendmail": (main_cf(milter_macro_defaults="", milter_macro_v="8.18.1"), FAULT,
                           "from sendmail.1. is not counted", "setup postfix --apply"),
    "milter outside of the chroot": (milter_from_the_root, FAULT, "smtpd.8. is chrooted"),
    "plugin missing": (plugin_folder(), FAULT, "librelay365.so is in none of", "SASL_PATH"),
    "no SASL_PATH": (main_cf(import_environment="MAIL_CONFIG"), FAULT, "has no SASL_PATH"),
    "two plugins": (plugin_folder("librelay365.so", "libsasl-xoauth2.so"), WARNING,
                    "libsasl-xoauth2.so is another plugin"),
    "reload instead of start": (started_too_early, FAULT, "started before SASL_PATH",
                                "postfix stop; postfix start"),
    "token socket's folder": (folder_mode("relay365"), FAULT, "user postfix, in the chroot, can't",
                              "relay365/token: Permission denied", "make .*/relay365 2750"),
    "milter socket's folder": (folder_mode("relay365m"), FAULT, "relay365m/milter: Permission",
                               "make .*/relay365m 2750"),
}

SETTINGS = {
    "smtp -v": (master_cf(lambda text: re.sub(
        r"^(relay365-relay .*) smtp$", r"\1 smtp -v", text, flags=re.M)), FAULT,
        "writes tokens into the mail log", "take -v out"),
    "debug_peer_list": (main_cf(debug_peer_list="smtp.office365.com"), WARNING, "tokens included"),
    "everybody": (main_cf(mynetworks="127.0.0.0/8 0.0.0.0/0"), FAULT, "mynetworks has 0.0.0.0/0"),
    "a wide network": (main_cf(mynetworks="127.0.0.0/8 10.0.0.0/8 198.0.0.0/9"), WARNING,
                       "mynetworks has 198.0.0.0/9"),
    "open relay": (main_cf(smtpd_relay_restrictions="permit"), FAULT, "this is an open relay"),
    "proxy filter": (main_cf(smtpd_proxy_filter="127.0.0.1:10025"), FAULT, "nothing is counted"),
    "counted twice": (more_services("127.0.0.1:10026 inet n - n - - smtpd -o content_filter=\n"),
                      WARNING, "127.0.0.1:10026/inet .*counted twice", "-o smtpd_milters="),
    "submission of its own": (more_services(
        "2525 inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:8891\n"), WARNING,
        "2525/inet/smtpd_milters", "add the milter"),
    "local domains in a table": (main_cf(mydestination="localhost, hash:/etc/mail/local"),
                                 WARNING, "mydestination has hash:/etc/mail/local", "name the"),
    "local domains leave": (main_cf(local_transport="relay365-relay:[127.0.0.2]:1"), FAULT,
                            "local_transport = relay365-relay.* uncounted", "take the domains"),
    "recipient limit": (main_cf(**{"relay365-relay_destination_recipient_limit": "5000"}), WARNING,
                        "more recipients in a transaction"),
    "concurrency": (main_cf(**{"relay365-relay_destination_concurrency_limit": "20"}), WARNING,
                    "more sessions than the mailbox may have"),
    "connection reuse": (master_cf(lambda text: text.replace(
        "smtp_tls_connection_reuse=no", "smtp_tls_connection_reuse=yes")), WARNING,
        "the pace is lost"),
    "queue lifetime": (main_cf(maximal_queue_lifetime="1h"), WARNING, "bounces while it waits"),
    "delay warning": (main_cf(delay_warning_time="10m"), WARNING, "senders are told"),
}

OF_THE_MAILBOX = {
    "SendAs missing": (refused_message(send_as=[]), WARNING, "may not send as", "SendAs"),
    "mailbox over quota": (refused_message(recipients_per_day=0), FAULT, "quota|24 hours"),
    "mailbox blocked": (refused_message(blocked=True), FAULT, "has blocked the mailbox",
                        "restrictedusers"),
}


@pytest.mark.parametrize("faults", [
    AT_ENTRA, AT_EXCHANGE, HERE, SETTINGS, OF_THE_MAILBOX,
    pytest.param(FIREWALL, marks=pytest.mark.slow)],    # its time must run out
    ids=["entra", "exchange", "here", "settings", "mailbox", "firewall"])
def test_planted_faults(lab, faults):
    check(Clinic(lab), faults)


def test_what_is_well(lab):
    clinic = Clinic(lab)
    said = json.loads(clinic.doctor("--json", "--send", "a@example.net"))
    found = {}
    for finding in said["findings"]:
        found.setdefault(finding["check"], set()).add(finding["verdict"])
    assert found.pop("unseen") == {"not proven"}
    found.pop("domains", None)      # whatever DNS says here
    assert found.pop("server") <= {"ok", "not proven"}
    assert all(verdicts == {"ok"} for verdicts in found.values()), found
    assert set(found) >= {"configuration", "files", "daemons", "clock", "tokens", "postfix",
                          "wiring", "plugin", "sockets", "sign-in", "mailboxes", "settings",
                          "limits", "send"}
    assert flow.accepted(lab) == 1
    assert lab.sim.state()["smtp"]["violations"] == []


def test_each_postfix_instance(lab):
    """Two of them; the second is not wired, then it is, and then it is not there."""
    box = Clinic(lab).box

    def look(second):
        lab.configure(mailboxes=MAILBOX, queue_directories=[box.queue_dir, second],
                      milter_socket="unix:%s/relay365m/milter" % box.queue_dir)
        return lab.relay365("doctor", status=1).stdout

    def found(what, text):
        assert re.search("^  ok +" + what, text, re.M), text

    with postfix.PostfixInstance(lab.folder + "/out") as out:
        text = look(out.queue_dir)
        assert text.startswith("Fault: %s: " % out.config)
        assert "master.cf has no service relay365-relay" in text.splitlines()[0]
        for config in box.config, out.config:
            found("Postfix: %s: Postfix .* runs" % config, text)
        found("relay365 in Postfix: %s: services" % box.config, text)
        assert "can't connect to %s/relay365/map" % out.queue_dir in text
        lab.relay365("setup", "postfix", "--config-dir", out.config, "--apply")
        assert "unix:%s/relay365m/milter" % box.queue_dir in out.run(
            "postconf", "-h", "smtpd_milters").stdout, "it is in the other's queue directory"
        lab.tokend.restart()
        text = look(out.queue_dir)
        found("relay365 in Postfix: %s: services" % out.config, text)
        found("sockets.*: %s: %s/relay365/map answers" % (out.config, out.queue_dir), text)
        with open(out.config + "/master.cf", "a") as f:
            f.write("smtp inet n - y - - smtpd\n")
        text = look(out.queue_dir)
        assert "%s: smtpd(8) is chrooted and can't reach unix:%s/relay365m/milter" % (
            out.config, box.queue_dir) in text
        assert "set milter_socket to a network address" in text
    text = look(lab.folder + "/none")
    assert text.startswith("Fault: queue_directories has %s/none, and no Postfix does" % lab.folder)
    found("Postfix: Postfix .* runs", text)


def test_secret_that_systemd_hands_over(lab):
    clinic = Clinic(lab)
    lab.configure(mailboxes=MAILBOX, tenants={"contoso": laboratory.relay365_conf.tenant_of(
        lab.sim, tenant=laboratory.TENANT, client_id=laboratory.CLIENT_ID,
        secret_file="credential:contoso.secret")})
    assert re.search(r"(?m)^  ok +keys and secrets: credential:contoso\.secret: systemd hands it",
                     clinic.doctor())


def test_transcript_hides_the_token(lab):
    clinic = Clinic(lab)        # the laboratory looks for tokens in what is printed
    text = clinic.doctor("--transcript")
    assert re.search(r"^> STARTTLS\n< 220 .*\n== TLS: chain and name verified\n", text, re.M)
    assert re.search(r"^> AUTH XOAUTH2", text, re.M) and "< 235 2.7.0 " in text


def test_nagios(lab):
    clinic = Clinic(lab)
    lab.tokend.stop()
    text = clinic.doctor("--nagios", status=2)
    assert re.fullmatch(r"RELAY365 CRITICAL - relay365-tokend does not answer.* \| "
                        r"faults=[1-9]\d* warnings=\d+\n", text)


def test_nagios_of_who_may_not_ask(lab):
    clinic = Clinic(lab)
    for path, mode in ((lab.folder, 0o755), (lab.config, 0o644), (lab.folder + "/run", 0o750),
                       (lab.folder + "/mrun", 0o750)):
        os.chmod(path, mode)
    found = json.loads(clinic.doctor("--json", user="nobody"))["findings"]
    daemons = [f for f in found if f["check"] == "daemons"]
    assert len(daemons) >= 2 and all(f["verdict"] == "not proven" and "Permission denied" in
                                     f["evidence"] for f in daemons)
    assert "fault" not in {f["verdict"] for f in found}
    # the laboratory's domains have no records, and that is known to anybody
    assert clinic.doctor("--nagios", status=1, user="nobody").startswith(
        "RELAY365 WARNING - contoso.com has no SPF record | faults=0 ")


def test_a_message_that_does_not_leave(lab):
    clinic = Clinic(lab)
    lab.sim.fault("smtp", kind="reply", at="EOD", text="550 5.7.703 blocked")
    assert "block list" in clinic.doctor("--send", "a@example.net").splitlines()[0]


def test_usage_and_no_configuration(lab):
    done = lab.relay365("doctor", status=1)
    assert done.stdout.startswith("Fault: cannot read ")
    assert "usage: " in lab.relay365("doctor", "more", status=2).stderr
    assert json.loads(lab.relay365("--json", "doctor", status=1).stdout)["verdict"] == "fault"
