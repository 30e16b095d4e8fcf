"""The programs of tests/bench run and measure; what they measure is no test."""

import json
import subprocess

import pytest

import programs

pytestmark = pytest.mark.needs_build

MEASURED = {"CPU per message", "messages/s", "99th percentile of RCPT",
            "99th percentile of end of message", "10 recipients: messages/s",
            "20 idle sessions: CPU per message", "From policy: CPU per message",
            "through Postfix: messages/s", "a decision after 10 and 10,000 messages",
            "start with 1000 keys", "memory with 1000 keys"}


def test_smoke():
    done = subprocess.run(
        [str(programs.TREE / "tests/bench/run"), "--smoke", "--json", "--build",
         programs.build_folder()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert MEASURED <= {row["what"] for row in rows}
    assert all(row["ours"] > 0 and row["ratio"] > 0 for row in rows)
