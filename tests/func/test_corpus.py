"""Two hundred messages of mixed shape: each arrives once, as it was sent."""

import collections
import concurrent.futures
import random
import re

import pytest

import flow
import postfix_conf

pytestmark = [pytest.mark.needs_build, pytest.mark.milter]

MESSAGES = 200
SESSIONS = 6
LINE = 998              # smtp_line_length_limit
ADDED = re.compile(rb"\A(?:Received: from client\.test .*\r\n(?:[ \t].*\r\n)*)")
ADDED_LATER = re.compile(rb"^(?:Message-Id|Date): .*\r\n", re.MULTILINE)
STAMPS = "Date: Mon, 23 Nov 2026 14:07:05 +0000\r\nMessage-ID: <%d@contoso.com>\r\n"

Message = collections.namedtuple("Message", "number sender recipients data stamped")


# -- shapes of a body ----------------------------------------------------------

def plain(rng):
    return b"".join(b"%d %s\r\n" % (i, b"x" * rng.randrange(76))
                    for i in range(rng.randrange(1, 60)))


def empty(_rng):
    return b""


def dots(_rng):
    return b".\r\n..\r\n...\r\n.x\r\n\r\n.\r\nQUIT\r\n.\r\n"


def eight_bit(rng):
    return b"".join(bytes(rng.randrange(128, 256) for _ in range(60)) + b"\r\n"
                    for _ in range(40))


def limit_lines(_rng):
    return b"".join(b"%d" % (n % 10) * n + b"\r\n" for n in (996, 997, 998))


def long_lines(_rng):
    return b"".join(b"." + b"abcdefghij" * (n // 10) + b"\r\n"
                    for n in (1000, 1990, 2050, 5000, 30000))


def blank_lines(_rng):
    return b"\r\n" * 500 + b" \r\n\t\r\nFrom here on\r\n>From there\r\n" + b"\r\n" * 3


def large(rng):
    line = bytes(rng.randrange(33, 127) for _ in range(76)) + b"\r\n"
    return line * (rng.choice((1, 5)) * 1024 * 1024 // 78)


def no_line_end(_rng):
    return b"the last line has no end"


def bare_ends(_rng):
    # a bare LF is a line end to Postfix; a bare CR is made a space
    return b"one\ntwo\n.three\r\nfour\rfive\r\n"


SHAPES = [plain] * 8 + [empty, dots, eight_bit, limit_lines, long_lines, blank_lines,
                        no_line_end, bare_ends]


# -- the corpus ----------------------------------------------------------------

def headers(number, sender, rng, stamped):
    lines = ["X-Corpus: %d" % number, "From: <%s>" % (sender or "daemon@contoso.com"),
             "To: undisclosed:;", "Subject: =?utf-8?q?caf=C3=A9_%d?=\r\n\tsecond line" % number]
    if number % 20 == 3:
        lines += ["X-Many-%d: %s" % (i, "v" * rng.randrange(200)) for i in range(400)]
    if number % 20 == 4:
        lines.append("X-Long: " + "\r\n ".join(["w" * 900] * 20))
    text = "\r\n".join(lines) + "\r\n"
    return (text + STAMPS % number if stamped else text).encode()


def recipients_of(number, rng):
    if number % 50 == 7:
        return 500
    return rng.choice((1, 1, 1, 2, 3, 5, 8, 20))


def corpus(rng):
    for number in range(MESSAGES):
        sender = "" if number % 9 == 1 else "s%d@contoso.com" % (number % 5)
        stamped = number % 7 != 2
        shape = large if number % 40 == 5 else rng.choice(SHAPES)
        data = headers(number, sender, rng, stamped) + b"\r\n" + shape(rng)
        to = flow.numbers(recipients_of(number, rng), "d%d.example.net" % number)
        yield Message(number, sender, to, data, stamped)


def broken(line):
    """A line as Postfix's SMTP client sends it."""
    parts = [line[:LINE]]
    parts += [b" " + line[i:i + LINE - 1] for i in range(LINE, len(line), LINE - 1)]
    return b"\r\n".join(parts)


def expected(data):
    if not data.endswith((b"\n", b"\r")):
        data += b"\r\n"
    data = data.replace(b"\r\n", b"\n")
    stray = postfix_conf.default_value("cleanup_replace_stray_cr_lf") == "yes"
    if stray:
        data = data.replace(b"\r", b" ")
    return b"\r\n".join(broken(line) for line in data.split(b"\n"))


def without_additions(stored, stamped):
    text, n = ADDED.subn(b"", stored)
    assert n == 1, "no Received header of the gateway in %r" % stored[:200]
    if stamped:
        return text
    head, gap, body = text.partition(b"\r\n\r\n")
    head, n = ADDED_LATER.subn(b"", head + b"\r\n")
    assert n == 2, "Date and Message-Id are not there: %r" % head[-300:]
    return head + gap[2:] + body


# -- sending and looking -------------------------------------------------------

def send(postfix, messages):
    """One session for several messages; what was not taken."""
    bad = []
    with postfix.smtp() as smtp:
        for m in messages:
            code, text = smtp.mail(m.sender, ["BODY=8BITMIME"])
            refused = [r for r in m.recipients if smtp.rcpt(r)[0] != 250]
            if code == 250 and not refused:
                code, text = smtp.data(m.data)
            if code != 250 or refused:
                bad.append((m.number, code, text, refused))
    return bad


def send_all(postfix, messages):
    with concurrent.futures.ThreadPoolExecutor(SESSIONS) as pool:
        shares = [messages[i::SESSIONS] for i in range(SESSIONS)]
        return sum(pool.map(lambda share: send(postfix, share), shares), [])


def check_message(lab, message, copies):
    got = collections.Counter(r for c in copies for r in c["recipients"])
    assert got == collections.Counter(message.recipients), \
        "message %d: %s" % (message.number, (got - collections.Counter(message.recipients),
                                             collections.Counter(message.recipients) - got))
    want = expected(message.data)
    for c in copies:
        assert c["from"] == message.sender
        assert without_additions(lab.sim.body(c), message.stamped) == want, message.number


def by_number(lab):
    copies = collections.defaultdict(list)
    for stored in lab.sim.messages():
        head = lab.sim.body(stored)[:4000]
        number = re.search(rb"^X-Corpus: (\d+)\r$", head, re.MULTILINE).group(1)
        copies[int(number)].append(stored)
    return copies


def test_each_arrives_once_and_unchanged(lab):
    # 6000 a day make transactions of 300 recipients: 500 go in two
    lab.sim.mailbox("relay@contoso.com", tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    messages_per_minute=60000, recipients_per_day=6000)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 6000, "recipients_per_day": 6000}})
    postfix = flow.wire(lab, main={"smtpd_recipient_limit": "1000"})
    messages = list(corpus(random.Random(365)))
    total = sum(len(m.recipients) for m in messages)
    assert max(len(m.recipients) for m in messages) == 500 and total < 6000 - 3 * 300
    assert send_all(postfix, messages) == []
    postfix.wait_queue_empty()

    copies = by_number(lab)
    assert len(copies) == MESSAGES
    for message in messages:
        check_message(lab, message, copies[message.number])
    assert any(len(copies[m.number]) == 2 for m in messages if len(m.recipients) == 500)
    use = lab.sim.state()["smtp"]["mailboxes"]["relay@contoso.com"]
    assert use["refused"] == {} and use["peak_submissions"] <= 3
    assert {d.status for d in postfix.deliveries()} == {"sent"}
    assert postfix.mailbox() == []
    now = flow.status(lab)
    assert now["milter"]["mailboxes"][0]["used"] == total
    assert now["tokend"]["mailboxes"][0]["delivered"] == total
    assert now["problems"] == []
