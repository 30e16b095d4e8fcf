"""A disk of our own, small enough to be filled: a tmpfs in the laboratory's folder."""

import contextlib
import errno
import os
import subprocess

import pytest

SIZE_KB = 512
FILLER = "filler"


class SmallDisk:
    def __init__(self, path):
        self.path = path

    def fill(self):
        """Until not one byte more fits."""
        with open(os.path.join(self.path, FILLER), "ab", buffering=0) as f:
            for size in (65536, 4096, 1):
                while _write(f, b"\0" * size):
                    pass

    def make_room(self):
        os.unlink(os.path.join(self.path, FILLER))


def _write(file, data):
    try:
        return file.write(data) == len(data)
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        return False


@contextlib.contextmanager
def mounted(path):
    """A SmallDisk at path, which goes away whatever happens (the folder's guard helps)."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=%dk" % SIZE_KB,
                           "relay365-test", path], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no tmpfs can be mounted here: " + done.stderr.strip())
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", path], check=True)
