"""Hours pass for the daemons and the stand-in, at once, as if the machine had slept.

    clock = ShiftedClock(lab)
    flow.wire(lab, start=False, ...)
    clock.start_daemons()
    clock.sleep(12 * 3600)
"""

import mmap
import os
import struct
import subprocess

import procs

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shifted_clock.c")


class ShiftedClock:
    def __init__(self, lab):
        self.lab = lab
        self.library = os.path.join(lab.folder, "shifted_clock.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", self.library, SOURCE], check=True)
        self.file = procs.write(os.path.join(lab.folder, "shift"), "\0" * 8)
        self.shift = 0

    def environment(self, **more):
        return {"LD_PRELOAD": self.library, "CLOCK_SHIFT": self.file,
                # a sanitizer's own library wants to come first
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") +
                ":verify_asan_link_order=0", **more}

    def start_daemons(self):
        for daemon in (self.lab.tokend, self.lab.milter):
            daemon.start(env=self.environment())

    def sleep(self, seconds):
        self.shift += seconds
        # at no moment may a daemon be ahead of the stand-in: that would give it room
        # which Microsoft does not see yet
        self.lab.sim.set(clock_offset=self.shift)
        self._write()

    def step(self, seconds):
        """The daemons' clocks only."""
        self.shift += seconds
        self._write()

    def _write(self):
        with open(self.file, "r+b") as f, mmap.mmap(f.fileno(), 8) as shared:
            shared[:] = struct.pack("=q", self.shift)
