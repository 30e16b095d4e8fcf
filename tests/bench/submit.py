#!/usr/bin/python3
"""What relay365-submit costs: real Sendmail through it, and straight to the same server.

Both ways use TLS, take the same messages from the same client sessions, and
run in turns; the ratio of the medians counts. As root:

    tests/bench/submit.py [ROUNDS [MESSAGES [BYTES]]]

RELAY365_BUILD names the build folder.
"""

import concurrent.futures
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "func")]

import lab as laboratory  # noqa: E402  pylint: disable=C0413
import procs  # noqa: E402  pylint: disable=C0413
import programs  # noqa: E402  pylint: disable=C0413
import relay365_conf  # noqa: E402  pylint: disable=C0413
import sendmail as sendmail_module  # noqa: E402  pylint: disable=C0413

CLIENTS = 4
STRAIGHT = """define(`SMART_HOST', `relay:[127.0.0.2]')dnl
define(`RELAY_MAILER_ARGS', `TCP $h %d')dnl
define(`confCACERT', `%s')dnl"""


def prepare(lab):
    """Sendmail through relay365-submit, Sendmail straight, and the server's counter."""
    port = procs.free_port("127.0.0.2")
    pki = lab.sim.dir + "/pki/"
    sink = subprocess.Popen([sys.executable, HERE / "sink.py", "127.0.0.2", str(port),
                             pki + "smtp-good.pem", pki + "smtp-good.key"],
                            stdout=subprocess.PIPE, env=programs.environment(lab.folder))
    procs.wait_for(lambda: procs.accepts(("127.0.0.2", port)), 20, "the server")
    lab.configure(
        mailboxes={"relay": {"messages_per_minute": 60000, "recipients_per_day": 1000000,
                             "connections": 100}},
        tenants={"contoso": relay365_conf.tenant_of(
            lab.sim, laboratory.TENANT, laboratory.CLIENT_ID, lab.secret_file,
            smtp_address="127.0.0.2", smtp_port=port)})
    lab.tokend.start()
    lab.submit.start()
    through = lab.make_sendmail(milter=False).start()
    straight = sendmail_module.SendmailInstance(
        lab.folder + "/d", STRAIGHT % (port, lab.sim.ca)).start()
    return through, straight, sink.stdout.fileno()


def send(box, count, body):
    with box.smtp() as smtp:
        for _ in range(count):
            smtp.mail("erp@contoso.com")
            smtp.rcpt("reader@example.net")
            assert smtp.data(body)[0] == 250


def rate(box, counter, messages, body):
    """Messages a second, from the first MAIL to the server's last reply."""
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        shares = [pool.submit(send, box, messages // CLIENTS, body) for _ in range(CLIENTS)]
        left = messages // CLIENTS * CLIENTS
        while left:
            left -= len(os.read(counter, left))
        took = time.monotonic() - begin
        for share in shares:
            share.result()
    box.wait_queue_empty()
    return messages / took


def main(rounds=7, messages=200, size=10000):
    body = b"From: <erp@contoso.com>\r\n\r\n" + (b"x" * 76 + b"\r\n") * (size // 78)
    lab = laboratory.Lab()
    straight = None
    try:
        through, straight, counter = prepare(lab)
        rates = {through: [], straight: []}
        for number in range(rounds + 1):
            for box in (through, straight) if number % 2 else (straight, through):
                one = rate(box, counter, messages, body)
                if number:              # the first round warms up
                    rates[box].append(one)
        a, b = (statistics.median(rates[box]) for box in (through, straight))
        ratio = statistics.median(x / y for x, y in zip(rates[through], rates[straight]))
        print("%d rounds of %d messages, %d bytes: through relay365-submit %.0f/s, straight "
              "%.0f/s, ratio %.2f" % (rounds, messages, size, a, b, ratio))
    finally:
        if straight:
            straight.close()
        for problem in lab.close():
            print(problem, file=sys.stderr)
    return 0 if ratio >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main(*(int(arg) for arg in sys.argv[1:])))
