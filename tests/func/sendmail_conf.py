"""sendmail.cf and submit.cf of a private Sendmail, made with m4."""

import os
import subprocess

import programs

MC = """divert(0)dnl
define(`sm_version')dnl
VERSIONID(`relay365 test')dnl
OSTYPE(`linux')dnl
define(`PROCMAIL_MAILER_PATH', `%(mda)s')dnl
define(`LOCAL_MAILER_ARGS', `mda $u')dnl
define(`LOCAL_MAILER_PATH', `%(mda)s')dnl
define(`LOCAL_MAILER_FLAGS', `SPfhn9')dnl
define(`LOCAL_MAILER_EOL', `\\n')dnl
define(`confDOMAIN_NAME', `gateway.test')dnl
define(`ALIAS_FILE', `%(folder)s/etc/aliases')dnl
define(`STATUS_FILE', `%(folder)s/statistics')dnl
define(`HELP_FILE', `%(folder)s/etc/helpfile')dnl
define(`confPID_FILE', `%(folder)s/sendmail.pid')dnl
define(`confSERVICE_SWITCH_FILE', `%(folder)s/etc/service.switch')dnl
define(`confCW_FILE', `%(folder)s/etc/local-host-names')dnl
define(`confCR_FILE', `-o %(folder)s/etc/relay-domains')dnl
define(`confDEF_USER_ID', `nobody:nogroup')dnl
define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit,NonRootSafeAddr')dnl
define(`confDONT_PROBE_INTERFACES', `true')dnl
define(`confTO_IDENT', `0')dnl
define(`confMIN_QUEUE_AGE', `0')dnl
define(`confMAX_DAEMON_CHILDREN', `60')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
define(`confDELAY_LA', `1000')dnl
define(`confMAX_HEADERS_LENGTH', `262144')dnl
define(`confLOG_LEVEL', `14')dnl
define(`QUEUE_DIR', `%(folder)s/queue')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`local_procmail', `%(mda)s', `mda $u')dnl
DAEMON_OPTIONS(`Family=inet, Name=MTA, Addr=127.0.0.1, Port=%(port)d')dnl
%(more)s
MAILER(`local')dnl
MAILER(`smtp')dnl
%(last)s
"""

# sendmail(1), as a user of the machine runs it: the message goes to the daemon by SMTP.
SUBMIT_MC = """divert(0)dnl
define(`sm_version')dnl
VERSIONID(`relay365 test, submission')dnl
OSTYPE(`linux')dnl
define(`_USE_DECNET_SYNTAX_', `1')dnl
define(`confDOMAIN_NAME', `gateway.test')dnl
define(`confTIME_ZONE', `USE_TZ')dnl
define(`confDONT_INIT_GROUPS', `True')dnl
define(`confRUN_AS_USER', `nobody:nogroup')dnl
define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit')dnl
define(`confSERVICE_SWITCH_FILE', `%(folder)s/etc/service.switch')dnl
define(`MSP_QUEUE_DIR', `%(folder)s/clientqueue')dnl
define(`confPID_FILE', `%(folder)s/client.pid')dnl
define(`STATUS_FILE', `%(folder)s/client.statistics')dnl
define(`RELAY_MAILER_ARGS', `TCP $h %(port)d')dnl
FEATURE(`msp', `[127.0.0.1]')dnl
"""


def make_tree(package, to):
    """The cf macros of the package, and our feature among them."""
    for name in os.listdir(package):
        where = os.path.join(to, name)
        if name != "feature":
            os.makedirs(to, exist_ok=True)
            os.symlink(os.path.join(package, name), where)
            continue
        os.makedirs(where)
        for feature in os.listdir(os.path.join(package, name)):
            os.symlink(os.path.join(package, name, feature), os.path.join(where, feature))
    os.symlink(programs.TREE / "sendmail" / "relay365.m4",
               os.path.join(to, "feature", "relay365.m4"))


def compile_mc(tree, text, with_cf=True):
    """sendmail.cf of a .mc text. with_cf: it does not include m4/cf.m4 itself."""
    before = ["-D_CF_DIR_=%s/" % tree, os.path.join(tree, "m4", "cf.m4")] if with_cf else []
    done = subprocess.run(
        ["m4", *before, "-"], input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout
