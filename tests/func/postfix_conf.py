"""main.cf, master.cf and the chroot of a private Postfix, written from scratch."""

import os
import re
import shutil
import subprocess

# Debian's master.cf, but for qmgr's wake-up time, which is 300 there: with a
# back-off of one second a message may come up again while its delivery agent
# still has it open, and is then left for the next wake-up. Those with "n" never
# run in the chroot; "-" stands for what the instance has chosen.
MASTER = """
pickup    unix  n  -  -  60    1  pickup
cleanup   unix  n  -  -  -     0  cleanup
qmgr      unix  n  -  n  1     1  qmgr
tlsmgr    unix  -  -  -  1000? 1  tlsmgr
rewrite   unix  -  -  -  -     -  trivial-rewrite
bounce    unix  -  -  -  -     0  bounce
defer     unix  -  -  -  -     0  bounce
trace     unix  -  -  -  -     0  bounce
verify    unix  -  -  -  -     1  verify
flush     unix  n  -  -  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
proxywrite unix -  -  n  -     1  proxymap
smtp      unix  -  -  -  -     -  smtp
relay     unix  -  -  -  -     -  smtp
showq     unix  n  -  -  -     -  showq
error     unix  -  -  -  -     -  error
retry     unix  -  -  -  -     -  error
discard   unix  -  -  -  -     -  discard
local     unix  -  n  n  -     -  local
virtual   unix  -  n  n  -     -  virtual
lmtp      unix  -  -  -  -     -  lmtp
anvil     unix  -  -  -  -     1  anvil
scache    unix  -  -  -  -     1  scache
postlog   unix-dgram n - n  -  1  postlogd
"""

# What Debian's configure-instance.sh copies. Its libraries are not needed:
# the C library resolves names by itself since glibc 2.34.
CHROOT_FILES = ("etc/localtime", "etc/services", "etc/resolv.conf", "etc/hosts",
                "etc/host.conf", "etc/nsswitch.conf")


def default_value(name):
    """The default of a main.cf parameter, as this Postfix was built."""
    return subprocess.run(["postconf", "-dh", name], check=True, text=True,
                          stdout=subprocess.PIPE,
                          env={"PATH": "/usr/sbin:/usr/bin"}).stdout.strip()


def main_parameters(instance, milters, env):
    """A small gateway for the domains of others, in a hurry."""
    return {
        "compatibility_level": "3.6",
        "multi_instance_name": instance.name,
        "syslog_name": instance.name,
        "queue_directory": instance.queue_dir,
        "data_directory": instance.data_dir,
        "maillog_file": instance.log_file,
        "maillog_file_prefixes": os.path.dirname(instance.log_file),
        "import_environment": " ".join([default_value("import_environment"), *env]),

        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "myhostname": instance.hostname,
        "mydomain": "gateway.test",
        "myorigin": "$myhostname",
        "mydestination": "$myhostname localhost",
        "mynetworks": "127.0.0.0/8 10.0.0.0/8",
        "smtpd_relay_restrictions":
            "permit_mynetworks permit_sasl_authenticated reject_unauth_destination",
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
        "smtpd_peername_lookup": "no",
        "smtp_host_lookup": "native",
        "smtp_dns_support_level": "disabled",
        # many connections from one address are what tests make
        "smtpd_client_connection_count_limit": "0",
        "biff": "no",

        # aliases work; whoever the user is, the mail stays in the folder
        "alias_maps": "texthash:%s/aliases" % instance.config,
        "alias_database": "",
        "local_recipient_maps": "",
        "mailbox_transport": "virtual",
        "allow_mail_to_commands": "",
        "allow_mail_to_files": "",
        "virtual_mailbox_base": instance.mail_dir,
        "virtual_mailbox_domains": "",
        "virtual_mailbox_maps": "static:./",
        "virtual_uid_maps": "static:65534",
        "virtual_gid_maps": "static:65534",

        "queue_run_delay": "1s",
        "minimal_backoff_time": "1s",
        "maximal_backoff_time": "2s",
        "transport_retry_time": "1s",

        "smtpd_milters": milters,
        "non_smtpd_milters": milters,
    }


def main_text(parameters):
    return "".join("%s = %s\n" % (name, str(value).replace("\n", "\n    "))
                   for name, value in parameters.items())


def master_services(instance):
    """(name, type) -> the service's lines."""
    chroot = "y" if instance.chroot else "n"
    services = {}
    smtpd = "127.0.0.1:%d inet n - - - - smtpd" % instance.port
    for line in [smtpd, *MASTER.strip().splitlines()]:
        fields = line.split()
        if fields[4] == "-":
            fields[4] = chroot
        services[fields[0], fields[1]] = " ".join(fields)
    return services


def master_text(services):
    return "".join(text.rstrip() + "\n" for text in services.values())


def without_chroot(services):
    """The same services, each outside of the chroot."""
    found = {}
    for key, text in services.items():
        fields = text.split(None, 5)    # the last: all the rest, line ends too
        found[key] = " ".join([*fields[:4], "n", fields[5]])
    return found


def _logical_lines(text):
    """Lines with their continuations (kept as lines); comments dropped."""
    lines = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and lines:
            lines[-1] += "\n" + line
        else:
            lines.append(line)
    return lines


def parse_master(text):
    """(name, type) -> lines, of master.cf text."""
    return {tuple(line.split()[:2]): line for line in _logical_lines(text)}


def parse_main(text):
    """name -> value, of main.cf text."""
    parameters = {}
    for line in _logical_lines(text):
        match = re.match(r"([\w.$-]+)\s*=\s*(.*)", line, re.DOTALL)
        if not match:
            raise ValueError("not a main.cf line: " + line)
        value = re.sub(r"\n\s*", " ", match.group(2))
        parameters[match.group(1)] = value.strip()
    return parameters


def populate_chroot(queue_dir):
    for name in CHROOT_FILES:
        target = os.path.join(queue_dir, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isfile("/" + name):
            shutil.copyfile("/" + name, target)
