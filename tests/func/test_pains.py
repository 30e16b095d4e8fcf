"""What users of other OAuth helpers for mail servers suffer from, and why nobody does here.

Each pain, each thing that others test and each fault of the stand-in names the tests,
or the words of a manual page (a check, a table of a test) that cover it. Those that
nothing else shows are tested here.
"""

import os
import re

import pytest

import faults
import flow
import letters as letters_module
import procs
import test_faults_exchange as exchange
import test_grants as grants
import test_tokens as tokens
import test_traps as traps
import token_client

TOKEND = "token/relay365-tokend.8: "
PLUGIN = "postfix/librelay365.8: "
POSTFIX = "postfix/relay365-postfix.7: "
CONF = "lib/conf/relay365.conf.5: "
SYMBOLS = "tests/lint/plugin_symbols.sh: "
DOCTOR = "tests/func/test_doctor.py: "
GENERATED = "test_generate.c::test_master"

PAINS = {
    "a restart of Postfix takes the authorities out of the chroot": [
        TOKEND + "no token file, no authorities, no name service.",
        TOKEND + "which renews the chroot's files, takes nothing away."],
    "a path means one thing in the chroot and another outside": [
        "test_flow.py::test_message_arrives",
        "test_sasl_plugin.c::test_absolute_path_and_authzid",
        PLUGIN + "counts from Postfix's queue directory, chrooted or not"],
    "a folder's owner or mode is wrong": [
        "test_secrets.py::test_modes_of_folders_and_sockets",
        DOCTOR + '"token socket\'s folder": (', DOCTOR + '"milter socket\'s folder": (',
        "test_pains.py::test_postfix_check_is_content"],
    "SELinux": [
        POSTFIX + "relay365 brings no policy module, and was not tried with SELinux enforcing.",
        TOKEND + "mandatory access control need only allow a connection to the sockets"],
    "no sign-in without a user": [
        "test_faults_entra.py::test_credentials", "test_grants.py::test_federated",
        "test_grants.py::test_managed_identity"],
    "errors that nobody can read": [
        "test_explain.c::test_aadsts", "test_explain.c::test_replies",
        "test_explain.py::test_what_an_admin_may_paste",
        "test_faults_entra.py::test_passing_faults"],
    "535 though the token is valid": [
        "test_faults_exchange.py::test_sign_in_refused", "test_claims.c::test_application",
        DOCTOR + '"token for Graph": (', DOCTOR + '"no permission": ('],
    "SMTP AUTH is off for the tenant or the mailbox": [
        "test_faults_exchange.py::test_sign_in_refused",
        DOCTOR + '"SMTP AUTH off in the tenant": (',
        DOCTOR + '"SMTP AUTH off for the mailbox": ('],
    "the object id of the app registration": [
        DOCTOR + '"wrong object id": (', "test_explain.c::test_replies",
        "test_setup_tenant.py::test_what_is_handed_over"],
    "a sign-in dies of idleness, policy or a new password": [
        TOKEND + "A refresh token does not die of idleness",
        "test_grants.py::test_refresh_token_dies_and_a_user_mends_it",
        "test_tokens.py::test_renewed_without_mail", "test_calendar.py::test_sign_in"],
    "nobody is told": [
        "test_alarms.py::test_alarm_and_recovery", "test_alarms.py::test_waiting_mail_is_counted",
        "test_probe.py::test_refusal_shows_at_once"],
    "the client secret expires": [
        "test_calendar.py::test_secret", "test_calendar.py::test_certificate",
        "test_faults_entra.py::test_credentials"],
    "a secret is wanted, or forbidden": [
        "test_explain.c::test_aadsts",
        "test_grants.py::test_confidential_client_shows_its_secret"],
    "the endpoint of another kind of account": [
        "test_conf_mistakes.c::test_mistakes",
        'tests/unit/test_conf_mistakes.c: id \\"common\\" is no tenant'],
    "the plugin is not found": [
        DOCTOR + '"plugin missing": (', DOCTOR + '"no SASL_PATH": (',
        DOCTOR + '"reload instead of start": (', SYMBOLS + '"$needed" != libc.so.6',
        "test_conf_mistakes.c::test_mistakes"],
    "secrets in a log": [
        "test_secrets.py::test_well_and_talkative", "test_secrets.py::test_exchange_misbehaves",
        "test_secrets.py::test_entra_echoes_the_secret", DOCTOR + '"debug_peer_list": (',
        PLUGIN + "write the SASL dialogue into the log, and so the token."],
    "smtp(8) crashes": [
        TOKEND + "a fault in this daemon can't crash smtp 8",
        "test_sasl_plugin.c::test_tokends_answers", "test_sasl_plugin.c::test_wins_over_a_rival",
        SYMBOLS + "What would end, stop or signal the process"],
    "nothing is logged where the log is a file": [
        PLUGIN + "writes no log but through Cyrus SASL.", SYMBOLS + "syslog|openlog",
        "test_faults_daemons.py::test_tokend_never_started"],    # its log is a maillog_file
    "several accounts, by sender": [
        "test_submission.py::test_full_mailbox_does_not_hold_up_others",
        "test_faults_exchange.py::test_one_broken_mailbox",
        "test_generate.c::test_sender_transport"],
    "shared mailboxes, aliases, SendAs": [
        "test_faults_exchange.py::test_send_as_denied_bounces",
        "test_senders.py::test_another_sender_becomes_the_mailbox",
        DOCTOR + '"no licence": (', DOCTOR + '"SendAs missing": ('],
    "High Volume Email wants minutes of a token's life": [
        TOKEND + "High Volume Email wants ten minutes of a token's life",
        "test_explain.c::test_replies"],
    "an endpoint that hangs holds up everything": [
        "test_faults_entra.py::test_hanging_endpoint",
        "test_token_life.py::test_forty_slow_mailboxes_hold_up_nobody"],
    "an outage costs a good refresh token": [
        "test_grants.py::test_passing_errors_cost_no_refresh_token",
        TOKEND + "No error, password or outage makes this daemon throw a refresh token away."],
    "consent on a machine without a browser": [
        "test_grants.py::test_device_code", "test_grants.py::test_browser"],
    "old packages, or none": [
        "tests/package/try-deb: in_root postfix check", "README.md: contrib/debian/build"],
    "a proxy, its own authorities, DNS in the chroot": [
        "test_token_life.py::test_proxy", "test_token_life.py::test_proxy_that_is_down",
        "test_token_life.py::test_proxy_that_wants_a_password",
        TOKEND + "no token file, no authorities, no name service.",
        CONF + "authorities to trust, both for the token endpoint and for the SMTP server."],
    "memory grows, or a few connections are too many": [
        'tests/bench/tokens.py: bar("1,000 mailboxes: resident memory"',
        "test_tokens.py::test_crowd_at_a_cold_token"],
    "it sends without signing in, or by password": [
        "test_faults_exchange.py::test_strange_servers", GENERATED,
        TOKEND + "nothing falls back to another credential, to a password, or to sending without"],
    "Entra throttles who asks too often": [
        "test_faults_entra.py::test_passing_faults", "test_tokens.py::test_no_request_while_valid",
        TOKEND + "so it has no loop to complain of"],
    "another relay with a password beside it": [
        "test_setup_postfix.py::test_another_relay_keeps_what_no_mailbox_claims",
        "test_setup_postfix.py::test_relay_by_password_moves_over",
        "test_sasl_plugin.c::test_no_security_layer"],
}

TESTED_ELSEWHERE = {
    "prompts, and none": ["test_sasl_plugin.c::test_prompts"],
    "callbacks, user names, no token yet": [
        "test_sasl_plugin.c::test_wrong_set_up", "test_sasl_plugin.c::test_no_daemon"],
    "a tenant's own endpoint and secret": [
        "test_vault.py::test_kept_token_of_another_client_is_not_used",
        "test_faults_entra.py::test_credentials"],
    "error as JSON, with each status": ["test_answer.c::test_errors"],
    "401 brings a new token": ["test_faults_exchange.py::test_tokens_revoked"],
    "renewal before the end": [
        "test_tokens.py::test_renewed_without_mail",
        "test_tokens.py::test_renewed_when_entra_says"],
    "renewal fails before the end": [
        "test_tokens.py::test_valid_token_is_served_during_an_outage",
        "test_faults_entra.py::test_token_is_served_to_its_end"],
    "token file empty, cut, unreadable": [
        "test_vault.py::test_spoilt_file_is_not_taken", "test_vault.c::test_what_is_not_taken"],
    "secrets from the environment or a file": [
        "test_grants.py::test_credential_of_systemd",
        "test_secrets.py::test_secret_file_with_a_fault"],
    "bad credentials defer and never bounce": ["test_faults_entra.py::test_credentials"],
    "size of an answer": ["test_answer.c::test_deep_and_huge"],
    "suspend": ["test_tokens.py::test_token_that_ends_while_the_machine_sleeps"],
    "a hook that hangs or fails": [
        "test_alarms.py::test_hanging_command_holds_up_nobody",
        "test_alarms.py::test_hook_that_fails_is_tried_again"],
    "an answer in pieces": ["test_lease.c::test_byte_by_byte"],
    "IPv4 and IPv6": ["test_token_life.py::test_either_protocol_alone_will_do"],
    "SASL messages, valid and not": [
        "test_xoauth2.c::test_compose", "test_kv.c::test_parse", "test_kv.c::test_every_prefix"],
    "JWT: escapes, dates, depth, keys": [
        "test_claims.c::test_hostile", "test_claims.c::test_days",
        "test_assertion.c::test_assertion", "test_assertion.c::test_ec_certificate",
        "test_grants.py::test_rs256"],
    "the first fetches, the others reuse": ["test_tokens.py::test_no_request_while_valid"],
    "one who gives up takes nothing from the others": [
        "test_pains.py::test_who_gives_up_takes_nothing_from_others"],
    "a failure is everybody's": ["test_tokens.py::test_crowd_hears_of_one_failure"],
    "sliding window: bounds, roll-over, refusals": [
        "test_window.c::test_bounds", "test_window.c::test_expiry", "test_quota.c::test_undivided"],
    "a live tenant": ["README.md: not yet against a live tenant"],
    "a slow tenant and another one": ["test_faults_entra.py::test_hanging_endpoint"],
    "silence, drip, 429, 5xx, HTML": [
        "test_faults_entra.py::test_hanging_endpoint", "test_faults_entra.py::test_passing_faults",
        "test_answer.c::test_retry_after"],
    "expires_in missing or as text": ["test_answer.c::test_expires_in"],
    "a token of 30 kB": [
        "test_token_life.py::test_token_beyond_all_measure", "test_answer.c::test_token_size",
        "test_lease.c::test_oversize"],
    "a secret with signs of its own": [
        "test_tokens.py::test_secret_arrives_as_it_is", "test_grant.c::test_secret_encoding"],
    "rotation": ["test_grants.py::test_refresh_token_rotates"],
    "a store that can't be written": [
        "test_secret_file.c::test_replace_fails", "test_vault.py::test_full_disk"],
    "kill -9 in a write": [
        "test_vault.py::test_killed_again_and_again", "test_vault.c::test_no_token_is_lost"],
    "beyond 2038": ["test_token_life.py::test_start_in_2046"],
    "the clock jumps": ["test_token_life.py::test_wall_clock_steps"],
    "fifty at the moment of expiry": ["test_tokens.py::test_crowd_at_an_expired_token"],
    "restart under load": ["test_activation.py::test_restart_turns_nobody_away",
                           "test_kill.py::test_tokend"],
    "daemon down": ["test_faults_daemons.py::test_tokend_never_started",
                    "test_faults_daemons.py::test_tokend_killed_while_idle"],
    "a token with line feed, control A, NUL": [
        "test_answer.c::test_bad_tokens", "test_sasl_plugin.c::test_tokends_answers"],
    "long AUTH lines": ["test_token_life.py::test_long_tokens",
                        "test_sasl_plugin.c::test_size_of_the_token"],
    "535 again and again": ["test_token_life.py::test_one_fresh_token_for_many_refusals"],
    "334 with an error": ["test_sasl_plugin.c::test_error_challenge"],
    "two plugins": ["test_sasl_plugin.c::test_wins_over_a_rival", DOCTOR + '"two plugins": ('],
    "the MTA's verbose log": [
        DOCTOR + '"smtp -v": (', PLUGIN + "Do not use them for the services of relay365."],
    "versions of Postfix": ["README.md: Seen to pass all tests on Debian 12 (Postfix 3.7"],
}

FAULTS_OF_OTHERS = {
    "the margin of renewal is ignored": ["test_tokens.py::test_renewed_without_mail"],
    "no percent-encoding": ["test_grant.c::test_secret_encoding"],
    "a stampede": ["test_tokens.py::test_deliveries_at_a_cold_token"],
    "no time limit": ["test_faults_entra.py::test_hanging_endpoint"],
    "a token is lost when the folder can't be written": ["test_vault.py::test_full_disk"],
    "a file's mode grows when it is written again": [
        "test_secret_file.c::test_replace",
        TOKEND + "never written in place, and never with another mode than 0600."],
    "the log hides the cause, or shows the secret": [
        "test_secrets.py::test_entra_echoes_the_secret"],
    "535 brings no new token": ["test_faults_exchange.py::test_tokens_revoked"],
    "the library ends its host": [SYMBOLS + "(_?exit|abort|kill"],
    "a server's text without its end": ["test_sasl_plugin.c::test_error_challenge",
                                        "test_lease.c::test_printable"],
    "every SASL client loads it": [
        PLUGIN + "It is not in the system's folder for plugins"],
    "an error challenge is left without an answer": [
        "test_sasl_plugin.c::test_error_challenge",
        "test_faults_exchange.py::test_sign_in_refused"],
    "another plugin's callbacks crash": ["test_sasl_plugin.c::test_wins_over_a_rival"],
    "an empty token is sent": ["test_answer.c::test_bad_tokens",
                               "test_sasl_plugin.c::test_no_daemon"],
    "anybody may ask for a token": ["test_secrets.py::test_users_who_are_not_named_get_nothing"],
    "files written in place": ["test_vault.c::test_no_token_is_lost"],
    "a security option must be emptied by hand": [
        "test_sasl_plugin.c::test_no_security_layer", GENERATED],
    "a lookup without result sends without signing in": [
        GENERATED, PLUGIN + "All of them defer the mail."],
    "long-lived clients of the map": [
        "test_faults_daemons.py::test_tokend_stopped_at_a_status_lookup",
        "test_faults_daemons.py::test_tokend_killed_at_a_status_lookup"],
    "nobody hears of a 535": ["test_probe.py::test_each_new_token_is_tried",
                              "test_faults_exchange.py::test_sign_in_refused"],
    "a password that stays the same pins a failure": [
        "test_pains.py::test_refusal_is_not_pinned"],
    "`postfix check` complains": ["test_pains.py::test_postfix_check_is_content"],
    "several instances": [POSTFIX + "to all of them and"],
    "one daemon more that can fail": [
        "test_activation.py::test_restart_turns_nobody_away",
        "test_vault.py::test_restart_during_an_outage", "test_alarms.py::test_watchdog"],
}

STAND_IN = {
    "entra status": ["test_faults_entra.py::test_passing_faults"],
    "entra aadsts": ["test_faults_entra.py::test_passing_faults"],
    "entra silence": ["test_faults_entra.py::test_hanging_endpoint"],
    "entra delay": ["test_tokens.py::test_crowd_at_a_cold_token"],
    "entra drip": ["test_faults_entra.py::test_hanging_endpoint"],
    "entra garbage": ["test_faults_entra.py::test_passing_faults"],
    "entra truncated": ["test_faults_entra.py::test_passing_faults"],
    "entra huge": ["test_faults_entra.py::test_passing_faults"],
    "entra redirect": ["test_faults_entra.py::test_passing_faults"],
    "entra reset": ["test_faults_entra.py::test_passing_faults"],
    "entra drop": ["test_faults_entra.py::test_passing_faults"],
    "entra certificate": ["test_faults_entra.py::test_endpoint_not_there"],
    "entra no_tls": ["test_faults_entra.py::test_endpoint_not_there"],
    "entra expires_in": ["test_pains.py::test_life_that_is_not_told",
                         "test_answer.c::test_expires_in"],
    "entra token": ["test_probe.py::test_verdicts"],
    "entra fields": ["test_faults_entra.py::test_passing_faults"],
    "smtp drop": ["test_faults_exchange.py::test_dropped",
                  "test_faults_exchange.py::test_dropped_at_quit",
                  "test_faults_exchange.py::test_dropped_after_the_message_was_stored"],
    "smtp reply": ["test_faults_exchange.py::test_4xx"],
    "smtp silence": ["test_pains.py::test_exchange_falls_silent",
                     "test_sendmail_faults.py::test_submit_killed_in_a_message"],
    "smtp delay": ["test_faults_daemons.py::test_tokend_killed_in_a_delivery",
                   "test_sendmail_faults.py::test_submit_ends_when_the_message_is_through"],
    "smtp no_auth": ["test_faults_exchange.py::test_strange_servers"],
    "smtp no_starttls": ["test_faults_exchange.py::test_strange_servers"],
    "smtp auth_fail": ["test_faults_exchange.py::test_sign_in_refused"],
    "smtp challenge": ["test_faults_exchange.py::test_strange_servers"],
    "smtp error_challenge": ["test_faults_exchange.py::test_sign_in_refused"],
    "smtp certificate": ["test_faults_exchange.py::test_strange_servers"],
    "imds status": ["test_grants.py::test_managed_identity_retries"],
    "imds silence": ["test_pains.py::test_metadata_service_falls_silent"],
}

ALL = [(title, pain) for title in ("PAINS", "TESTED_ELSEWHERE", "FAULTS_OF_OTHERS", "STAND_IN")
       for pain in globals()[title]]
FAULT_FOLDER = traps.TESTS / "fault"


def words(text):
    """A page as it is read: one line, without the macros at the front of lines."""
    return " ".join(re.sub(r"(?m)^\.[A-Z][a-z] ", "", text).split())


def is_there(reference):
    path, found, wanted = reference.partition(": ")
    if found:
        return words(wanted) in words(procs.read(str(traps.TESTS.parent / path)))
    name, _, test = reference.partition("::")
    if (FAULT_FOLDER / name).exists():
        return "static void %s(" % test in procs.read(str(FAULT_FOLDER / name))
    return traps.is_there(reference)


@pytest.mark.parametrize("title, pain", ALL)
def test_names_what_is_there(title, pain):
    assert [r for r in globals()[title][pain] if not is_there(r)] == []


def test_names_every_fault_of_the_stand_in():
    assert set(STAND_IN) == {"%s %s" % (server, kind)
                             for server, kinds in faults.KINDS.items() for kind in kinds}


# -- what nothing else shows -----------------------------------------------------------

@pytest.mark.needs_build
def test_postfix_check_is_content(lab):
    """Postfix looks at owners and modes in its queue directory, ours included."""
    lab.configure()
    postfix = flow.wire(lab)

    def said():
        mark = postfix.mark()
        done = postfix.run("postfix", "check")
        # postlogd writes one line after the other, at its leisure
        postfix.run("postlog", "the check is over")
        postfix.wait_log("the check is over", since=mark)
        return done.stdout + done.stderr + postfix.log()[mark:]

    assert os.path.exists(postfix.queue_dir + "/relay365/token")
    assert "relay365" not in said()
    planted = procs.write(postfix.queue_dir + "/etc/relay365", "")
    os.chown(planted, 65534, 65534)
    assert re.search("not owned by root: .*/etc/relay365", said()), "it would have said so"


@pytest.mark.needs_build
def test_who_gives_up_takes_nothing_from_others(lab):
    """The one for whom Entra was asked hangs up: the request goes on for those who wait."""
    tokens.roomy(lab)
    tokens.hold_entra(lab)
    lab.tokend.start()
    first = token_client.Client(tokens.socket_of(lab))
    tokens.wait_for_crowd(lab, 1)
    others = [token_client.Client(tokens.socket_of(lab)) for _ in range(3)]
    tokens.wait_for_crowd(lab, 4)
    first.close()
    procs.wait_for(lambda: tokens.token_status(lab)["waiters"] == 3, 20, "one waiter less")
    lab.sim.clear()
    assert [a["status"] for a in token_client.answers(others)] == ["ok"] * 3
    assert tokens.requests(lab) == 1
    for client in others:
        client.close()


@pytest.mark.needs_build
@pytest.mark.parametrize("value", [None, "", "soon", -5])
def test_life_that_is_not_told(lab, value):
    """The token is used, and not for ever."""
    lab.configure()
    lab.sim.fault("entra", "expires_in", value=value)
    lab.tokend.start()
    assert token_client.ask(tokens.socket_of(lab))["status"] == "ok"
    assert 0 < tokens.token_status(lab)["expires_in_s"] <= 3600


@pytest.mark.needs_build
def test_refusal_is_not_pinned(lab):
    """main.cf would keep a refused sign-in in mind for months, and bounce what it refuses."""
    letters_module.fast(lab)
    letters = letters_module.started(lab, main={
        "smtp_sasl_auth_cache_name": "proxy:btree:$data_directory/refused",
        "smtp_sasl_auth_soft_bounce": "no"})
    lab.sim.fault("smtp", "auth_fail", reason="535 5.7.199 No more of this")
    letters.wait_deferred(letters.send(), "5.7.199")
    lab.sim.clear("smtp")
    letters.check_arrived()


SILENT = ("CONNECT", "EHLO", "AUTH_RESPONSE", "RCPT", "EOD")


@pytest.mark.needs_build
@pytest.mark.slow
def test_exchange_falls_silent(lab):
    """Postfix's time runs out; the slot is free again, and the message comes once."""
    letters_module.fast(lab, connections=1)
    times = {"smtp_%s_timeout" % name: "3s"
             for name in ("helo", "starttls", "mail", "rcpt", "data_done")}
    letters = letters_module.started(lab, main=times)
    exchange.through(lab, letters, [{"kind": "silence", "at": at} for at in SILENT])


@pytest.mark.needs_build
@pytest.mark.slow
def test_metadata_service_falls_silent(lab):
    grants.managed(lab)
    lab.sim.fault("imds", "silence", times=1)
    lab.tokend.start()
    answer = token_client.ask(tokens.socket_of(lab))
    assert answer["status"] == "later" and "can't be reached" in answer["reason"]
    grants.wait_state(lab, "valid")
    assert len(lab.sim.state()["imds"]) == 2
