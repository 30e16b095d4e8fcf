"""The corpus of test_corpus.py through real Sendmail: each message once, as it was sent.

Sendmail itself adds Received, Date and Message-Id, and breaks lines over 2,040
bytes, as it says, with "!" before the break and a blank behind it.
"""

import collections
import random
import re

import pytest

import flow
import sendmail
import test_corpus

pytestmark = [pytest.mark.needs_build, pytest.mark.milter, pytest.mark.skipif(
    not sendmail.installed(), reason="Sendmail is not unpacked: contrib/install-packages test")]
RECEIVED = re.compile(rb"\AReceived: from client\.test .*\r\n(?:\t.*\r\n)+")
STAMPS = re.compile(rb"\ADate: .*\r\nMessage-Id: .*\r\n")
BREAK = re.compile(rb"(?<=[^\r\n]{2039})!\r\n ")


def corpus():
    """Without bare line ends: Sendmail answers 421 to them, which is its own affair."""
    for message in test_corpus.corpus(random.Random(365)):
        data = re.sub(rb"\r?\n", b"\r\n", message.data).replace(b"four\rfive", b"four five")
        yield message._replace(data=data)


def without_additions(stored, stamped):
    text, n = RECEIVED.subn(b"", stored)
    assert n == 1, stored[:300]
    if not stamped:
        text, n = STAMPS.subn(b"", text)
        assert n == 1, text[:300]
    return BREAK.sub(b"", text)


def check(lab, message, copies):
    got = collections.Counter(r for c in copies for r in c["recipients"])
    assert got == collections.Counter(message.recipients), message.number
    want = message.data if message.data.endswith(b"\r\n") else message.data + b"\r\n"
    for c in copies:
        assert c["from"] == message.sender
        assert without_additions(lab.sim.body(c), message.stamped) == want, message.number


def test_each_arrives_once_and_unchanged(lab):
    lab.sim.mailbox("relay@contoso.com", tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    messages_per_minute=60000, recipients_per_day=6000)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 6000, "recipients_per_day": 6000}})
    box = lab.make_sendmail()
    lab.tokend.start()
    lab.milter.start()
    lab.submit.start()
    box.start()
    messages = list(corpus())
    assert test_corpus.send_all(box, messages) == []
    box.wait_queue_empty(80)

    copies = test_corpus.by_number(lab)
    assert len(copies) == len(messages) == 200
    for message in messages:
        check(lab, message, copies[message.number])
    assert any(len(copies[m.number]) == 5 for m in messages if len(m.recipients) == 500)
    total = sum(len(m.recipients) for m in messages)
    use = lab.sim.state()["smtp"]
    assert use["violations"] == [] and box.mailbox() == []
    assert use["mailboxes"]["relay@contoso.com"]["refused"] == {}
    assert use["mailboxes"]["relay@contoso.com"]["peak_submissions"] <= 3
    now = flow.status(lab)
    assert now["milter"]["mailboxes"][0]["used"] == total
    assert now["tokend"]["mailboxes"][0]["delivered"] == total
