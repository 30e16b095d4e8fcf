"""Several tenants in one laboratory, each with one mailbox and a fate of its own.

Names serve for everything: tenant NAME has the id NAME.example, and its mailbox
NAME the address relay@NAME.example and the senders *@NAME.example.
"""

import lab as laboratory
import procs
import relay365_conf


def ident(name):
    return name + ".example"


def address(name):
    return "relay@" + ident(name)


def sender(name):
    return "erp@" + ident(name)


def secret_file(lab, name):
    return "%s/%s.secret" % (lab.folder, name)


def put_secret(lab, name, text):
    return procs.write(secret_file(lab, name), text + "\n", 0o600)


def at_sim(lab, names):
    """The stand-in with these tenants, all of whom have the lab's secret."""
    lab.start_sim({
        "tenants": {ident(n): {"domains": [ident(n)], "clients": {
            laboratory.CLIENT_ID: {"secrets": [lab.secret]}}} for n in names},
        "mailboxes": {address(n): {"tenant": ident(n), "send_as": ["*"],
                                   "messages_per_minute": 60000} for n in names}})


def configure(lab, names, tenants=None, mailbox=None, **top):
    """relay365.conf for them. tenants: further keys of some; None leaves a key out. mailbox:
    further keys of each mailbox."""
    more = tenants or {}
    lab.configure(
        tenants={n: relay365_conf.tenant_of(
            lab.sim, ident(n), laboratory.CLIENT_ID,
            **{"secret_file": put_secret(lab, n, lab.secret), "accepted_domains": [ident(n)],
               **more.get(n, {})}) for n in names},
        mailboxes={n: {"address": address(n), "tenant": n, "senders": ["*@" + ident(n)],
                       "messages_per_minute": 60000, **(mailbox or {})} for n in names}, **top)


def make(lab, names, tenants=None, **top):
    at_sim(lab, names)
    configure(lab, names, tenants, **top)
