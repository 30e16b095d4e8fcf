"""relay365 status --watch: pictures that follow each other, at 80 columns and without colours."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

import postfix
import procs
import programs

pytestmark = pytest.mark.needs_build

CLEAR = "\033[H\033[2J"


@contextlib.contextmanager
def watching(lab, out):
    with subprocess.Popen(
            [programs.program("relay365"), "-c", lab.config, "status", "--watch"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env=programs.environment(lab.folder)) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_terminal(lab):
    lab.configure()
    lab.tokend.start()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    with watching(lab, theirs):
        os.close(theirs)
        text = ""
        while text.count(CLEAR) < 3:        # then two pictures are whole
            text += os.read(ours, 65536).decode()
        os.close(ours)
    first, second = text.split(CLEAR)[1:3]
    assert re.match(r"relay365 at \S+Z\r\n", first) and first[:32] != second[:32]
    assert "delivered [....................] 0 of 10000" in second
    assert "relay365-milter: down" in second and "Problems" in second
    assert "\033" not in first + second, "no colours"
    assert max(len(line) for line in second.split("\r\n")) <= 80
    # what is broken is whole
    assert "does not answer: cannot connect to" in re.sub(r"\r\n {6}", " ", second)


def test_mail_of_each_instance(lab):
    lab.configure()
    stays = {"default_transport": "smtp", "defer_transports": "smtp"}
    box = lab.make_postfix(main=stays)
    with box, postfix.PostfixInstance(lab.folder + "/out", main=stays) as out:
        lab.configure(queue_directories=[box.queue_dir, out.queue_dir, lab.folder + "/none"],
                      milter_socket="unix:%s/relay365m/milter" % box.queue_dir)
        for each in box, out:
            assert each.send("erp@contoso.com", ["a@example.net", "b@example.net"]).ok
            each.wait_queue(lambda queue: len(queue) == 1)
        path = lab.folder + "/watched"
        with open(path, "wb") as file, watching(lab, file):
            procs.wait_for(lambda: "Problems" in procs.read(path), 30, "a picture")
    said = re.search(r"^queue: .*(\n {6}.*)*", procs.read(path), re.M).group()
    said = re.sub(r"\n +", " ", said)
    assert said.startswith("queue: 2 messages for 4 recipients, 0 on hold, the first expires 2")
    assert said.endswith("; 1 of 3 queues can't be read")


def test_a_file(lab):
    lab.configure()
    path = lab.folder + "/watched"
    with open(path, "wb") as out, watching(lab, out):
        procs.wait_for(lambda: procs.read(path).count("relay365 at ") >= 2, 30, "two pictures")
    assert "\033" not in procs.read(path)


def test_usage(lab):
    lab.configure()
    assert "usage: " in lab.relay365("--json", "status", "--watch", status=2).stderr
