"""libmilter's threads run as a batch, unless somebody chose otherwise."""

import os

import pytest

import flow
import milter_client

pytestmark = pytest.mark.needs_build


def policies(daemon):
    found = set()
    for thread in os.listdir("/proc/%d/task" % daemon.pid):
        try:
            found.add(os.sched_getscheduler(int(thread)))
        except ProcessLookupError:
            pass        # it has ended since
    return found


def started(lab):
    lab.configure()
    lab.milter.start()
    with milter_client.Client(lab.queue_dir + "/relay365m/milter") as client:
        client.mail(flow.SENDER)


def test_a_batch(lab):
    started(lab)
    assert os.SCHED_BATCH in policies(lab.milter)
    # who answers the command and writes to the disk does not wait for others
    assert os.SCHED_OTHER in policies(lab.milter)


def test_a_choice_stays(lab):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))      # inherited by what is started
    try:
        started(lab)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assert policies(lab.milter) == {os.SCHED_IDLE}
