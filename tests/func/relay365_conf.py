"""relay365.conf for a private folder: every path set, nothing of the machine."""

import json
import os

import procs

SCOPE = "https://outlook.office365.com/.default"
SMTP_HOST = "smtp.office365.com"


def libconfig(value, depth=0):
    """A Python value in the language of libconfig."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # beyond 32 bits libconfig wants to be told
        return str(value) + ("L" if abs(value) > 0x7fffffff else "")
    if isinstance(value, dict):
        pad = "    " * depth
        return "{\n%s%s}" % (settings(value, depth + 1), pad)
    if isinstance(value, (list, tuple)):
        return "[%s]" % ", ".join(libconfig(item) for item in value)
    # JSON's escapes are libconfig's, as long as the text is not made ASCII
    return json.dumps(str(value), ensure_ascii=False)


def settings(values, depth=0):
    pad = "    " * depth
    return "".join("%s%s %s %s\n" % (pad, name, ":" if isinstance(value, dict) else "=",
                                     libconfig(value, depth))
                   for name, value in values.items() if value is not None)


def paths(folder, queue_dir):
    """Every key of relay365.conf that names a place, below folder."""
    def under(name):
        return os.path.join(folder, name)

    return {
        "state_dir": under("state"),
        "milter_state_dir": under("mstate"),
        "run_dir": under("run"),
        "milter_run_dir": under("mrun"),
        "queue_directories": [queue_dir],
        "submit_run_dir": under("srun"),
        "milter_socket": "unix:" + os.path.join(queue_dir, "relay365m", "milter"),
    }


def tenant_of(sim, tenant, client_id, secret_file=None, **more):
    """A tenant whose cloud is the stand-in `sim`.

    more: further keys, or other values; None leaves a key out.
    """
    values = {
        "id": tenant,
        "client_id": client_id,
        "secret_file": secret_file,
        "cloud": "custom",
        "token_endpoint": sim.token_endpoint(tenant),
        "scope": SCOPE,
        "smtp_host": SMTP_HOST,
        "smtp_address": sim.smtp_address,
        "smtp_port": sim.smtp_port,
        "ca_file": sim.ca,
    }
    values.update(more)
    return values


def write(path, tenants, mailboxes, **top):
    """Write relay365.conf; its text.

    tenants, mailboxes: name -> keys. top: every other key and section.
    """
    text = settings({**top, "tenants": tenants, "mailboxes": mailboxes})
    procs.write(path, text, 0o640)
    return text
