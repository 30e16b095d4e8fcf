"""relay365 explain: offline, without a configuration, from arguments, files and standard input."""

import gzip
import json
import os

import pytest

import procs

pytestmark = pytest.mark.needs_build

LOG = """\
Nov 26 09:00:01 gw postfix/smtp[101]: 4A1: to=<a@example.net>, relay=smtp.office365.com[192.0.2.1]:587, delay=1, delays=0/0/5.7/1, dsn=2.0.0, status=sent (250 2.0.0 OK <x@y> [Hostname=A.5.7.3.x])
Nov 26 09:00:02 gw postfix/relay365-relay/smtp[102]: 4A2: to=<b@example.net>, relay=smtp.office365.com[192.0.2.1]:587, delay=5, dsn=4.7.139, status=deferred (SASL authentication failed; server smtp.office365.com[192.0.2.1] said: 435 4.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. [X 2026])
Nov 26 09:00:03 gw postfix/relay365-relay/smtp[102]: 4A3: to=<c@example.net>, relay=none, delay=5, dsn=4.7.139, status=deferred (delivery temporarily suspended: SASL authentication failed; server smtp.office365.com[192.0.2.1] said: 435 4.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. [X 2026])
Nov 26 09:00:04 gw relay365-tokend[9]: token tenant=contoso result=error class=config aadsts=7000222 retry_in=300
Nov 26 09:00:05 gw postfix/smtp[103]: 4A4: to=<d@example.org>, relay=none, dsn=4.4.1, status=deferred (connect to mx.example.org[192.0.2.9]:25: Connection timed out)
"""
ODD = "Nov 26 09:00:06 gw postfix/smtp[1]: 4A5: to=<e@x>, status=deferred (\x1b[31mnew words)\n"


def explained(lab, *args, status=0, **options):
    done = lab.relay365("--json", "explain", *args, status=status, **options)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("args, ids", [
    (["7000215"], ["AADSTS7000215"]),
    (["AADSTS7000215"], ["AADSTS7000215"]),
    (["aadsts700016"], ["AADSTS700016"]),
    (["535"], ["535"]),
    (["5.7.60"], ["5.7.60"]),
    (["invalid_scope"], ["invalid_scope"]),
    (["535", "5.7.3", "Authentication", "unsuccessful"], ["5.7.3"]),
    (["535 5.7.3 Authentication unsuccessful [X]"], ["5.7.3"])])
def test_what_an_admin_may_paste(lab, args, ids):
    assert [e["id"] for e in explained(lab, *args)["explanations"]] == ids


def test_a_code_with_several_meanings_prints_each(lab):
    found = {e["id"] for e in explained(lab, "5.7.139")["explanations"]}
    assert {"5.7.139 tenant", "5.7.139 mailbox", "5.7.139 criteria", "5.7.139"} <= found
    text = lab.relay365("explain", "5.7.139").stdout
    assert "Set-CASMailbox" in text and "Conditional Access" in text


@pytest.mark.parametrize("what", ["999", "5.7.999", "AADSTS1", "it is broken", ""])
def test_unknown(lab, what):
    done = lab.relay365("explain", what, status=1)
    assert "does not know" in done.stdout
    assert explained(lab, what, status=1)["explanations"] == []


def test_a_log_file(lab):
    path = procs.write(lab.folder + "/mail.txt", LOG)
    said = explained(lab, path)
    counts = {e["id"]: e["count"] for e in said["explanations"]}
    assert counts == {"5.7.139 mailbox": 2, "AADSTS7000222": 1, "firewall": 1}
    assert said["explanations"][0]["id"] == "5.7.139 mailbox", "the most frequent first"
    assert said["lines"] == 5 and said["unexplained"] == 0
    text = lab.relay365("explain", path).stdout
    assert "5.7.139 mailbox (config), 2 lines\n" in text
    assert "What to do: " in text and "Last: Nov 26 09:00:03" in text


def test_a_packed_log_file(lab):
    path = lab.folder + "/mail.log.2.gz"
    with gzip.open(path, "wt") as f:
        f.write(LOG * 100)
    said = explained(lab, path)
    assert said["lines"] == 500 and said["unexplained"] == 0
    assert {e["id"]: e["count"] for e in said["explanations"]} == {
        e["id"]: e["count"] * 100 for e in explained(lab, data=LOG)["explanations"]}
    with open(path, "r+b") as f:
        f.truncate(os.path.getsize(path) - 20)
    assert "cannot read %s on" % path in lab.relay365("explain", path, status=1).stderr


def test_standard_input_and_what_is_not_known(lab):
    said = explained(lab, data=LOG + ODD, status=1)
    assert said["unexplained"] == 1 and len(said["explanations"]) == 3
    done = lab.relay365("explain", "-", data=ODD, status=1)
    assert "new words" in done.stdout and "\x1b" not in done.stdout


def test_a_log_without_failures_is_well(lab):
    done = lab.relay365("explain", data=LOG.splitlines()[0] + "\nanother line\n")
    assert done.stdout == "no failure found in 2 lines\n"


def test_a_line_without_end_is_cut(lab):
    long = "x" * 200000 + " 5.7.57 \n" + LOG.splitlines()[1] + "\n"
    assert [e["id"] for e in explained(lab, data=long)["explanations"]] == ["5.7.139 mailbox"]


def test_needs_no_configuration(lab):
    assert lab.relay365("explain", "5.7.57").stdout.startswith("5.7.57 (config)")
    lab.configure(nonsense=1)
    lab.relay365("explain", "5.7.57")


def test_a_file_that_cannot_be_read(lab):
    procs.write(lab.folder + "/relay365.conf", "")
    done = lab.relay365("explain", lab.folder + "/missing.log", status=1)
    assert "does not know" in done.stdout
