"""What the manual pages and README show, tried: an example that fails is a defect.

Configuration: each block is completed with what it leaves out (a tenant, a
mailbox) and read by `relay365 check`. Commands: relay365 has each that is shown.
"""

import re
import subprocess

import pytest

import procs
import programs

pytestmark = pytest.mark.needs_build

PAGES = sorted(str(path.relative_to(programs.TREE)) for pattern in ("*.[578]", "*.md")
               for folder in ("ctl", "lib", "milter", "postfix", "sendmail", "token")
               for path in (programs.TREE / folder).rglob(pattern)) + ["README.md"]
SECTION = re.compile(r"^\s*(tenants|mailboxes|sources|limits)\s*:\s*\{", re.MULTILINE)
TENANT = """tenants: { contoso: { id = "contoso.onmicrosoft.com"
    client_id = "11111111-2222-3333-4444-555555555555"  secret_file = "%s" } }
"""
MAILBOX = 'mailboxes: { relay: { address = "relay@contoso.com" } }\n'
# behind a prompt or sudo, if any
COMMAND = re.compile(r"^(?:[#$] |\s*)(?:sudo )?relay365 ([a-z]+)\b", re.MULTILINE)


def blocks(page):
    """The literal texts of a manual page or Markdown file."""
    text = procs.read(str(programs.TREE / page))
    if page.endswith(".md"):
        return re.findall(r"((?:^    .*\n|^\n(?=    ))+)", text, re.MULTILINE)
    return [block.replace("\\&", "").replace("\\e", "\\")
            for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", text,
                                    re.MULTILINE | re.DOTALL)]


def shell(page):
    """What a page shows as it would be typed: literal texts, and displayed lines."""
    lines = re.findall(r"^\.D[l1] (.*)", procs.read(str(programs.TREE / page)), re.MULTILINE)
    return "\n".join(blocks(page) + lines)


def examples():
    return [pytest.param(block, id="%s-%d" % (page, number))
            for page in PAGES for number, block in enumerate(blocks(page))
            if SECTION.search(block)]


def files(folder):
    """Where examples say that certificate, key and secret are: here."""
    made = {}
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
                    "/CN=relay365", "-keyout", folder + "/key", "-out", folder + "/crt"],
                   check=True, capture_output=True)
    for key, name in (("certificate", "crt"), ("private_key", "key")):
        made[key] = folder + "/" + name
    made["secret_file"] = procs.write(folder + "/secret", "value\n", 0o600)
    return made


@pytest.mark.parametrize("block", examples())
def test_configuration(lab, block):
    made = files(lab.folder)
    text = re.sub(r'\b(certificate|private_key|secret_file)(\s*=\s*)"[^"]*"',
                  lambda m: '%s%s"%s"' % (m[1], m[2], made[m[1]]), block)
    there = set(SECTION.findall(text))
    if "tenants" not in there:
        text += TENANT % made["secret_file"]
    if "mailboxes" not in there:
        text += MAILBOX
    procs.write(lab.config, text)
    done = programs.command(lab.folder, lab.config, "check")
    assert done.returncode == 0, done.stderr + "\n" + text


def test_there_are_examples():
    assert len(examples()) >= 5


def test_commands():
    """Each that a page shows is one that relay365 has."""
    usage = subprocess.run([programs.program("relay365"), "--help"], check=True,
                           capture_output=True, text=True).stdout
    known = set(re.findall(r"^  ([a-z]+)\b", usage, re.MULTILINE))
    shown = {name for page in PAGES for name in COMMAND.findall(shell(page))}
    assert {"doctor", "setup", "status"} <= shown <= known, shown - known
