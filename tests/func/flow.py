"""The whole path: stand-in, tokend, milter and a private Postfix, wired as
`relay365 setup postfix` says."""

import json

import relay365_conf

SENDER = "erp@contoso.com"


def wire(lab, *, chroot=True, milter=True, start=True, main=None, master_edit=None, **options):
    """Postfix with the generated configuration; daemons started. Needs lab.configure() before.

    master_edit: a function that changes the generated master.cf text.
    """
    made = json.loads(lab.relay365("--json", "setup", "postfix").stdout)
    master = made["master_cf"]
    if not chroot:
        master = master.replace(" unix - - y - - smtp", " unix - - n - - smtp")
    if master_edit:
        master = master_edit(master)
    parameters = made["main_cf"]
    # where the build left the plugin, instead of where it would be installed
    del parameters["import_environment"]
    if milter:
        parameters.update(made["main_cf_last_in_list"])
    postfix = lab.make_postfix(chroot=chroot, main={**parameters, **(main or {})}, **options)
    postfix.apply(text_master=master, files=made["files"])
    if start:
        lab.tokend.start()
        if milter:
            lab.milter.start()
        postfix.start()
    return postfix


def numbers(n, domain="example.net", first=0):
    """n recipients."""
    return ["r%d@%s" % (i, domain) for i in range(first, first + n)]


def accepted(lab, address="relay@contoso.com"):
    """Recipients that Exchange took for this mailbox so far."""
    return lab.sim.state()["smtp"]["mailboxes"].get(address, {}).get("recipients", 0)


def status(lab):
    """What `relay365 status --json` says, whatever its exit status."""
    return json.loads(lab.relay365("--json", "status", status=None).stdout)


def second_mailbox(lab, address="alerts@contoso.com", **keys):
    """A further mailbox of the same tenant at the stand-in."""
    lab.sim.mailbox(address, tenant=relay365_conf_tenant(lab), send_as=["*"], **keys)
    return address


def relay365_conf_tenant(lab):
    return next(iter(lab.sim.settings()["tenants"]))


__all__ = ["SENDER", "accepted", "numbers", "relay365_conf", "second_mailbox", "status", "wire"]
