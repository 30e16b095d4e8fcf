"""libmilter's threads run as a batch, unless somebody chose otherwise."""

import concurrent.futures
import os

import pytest

import flow
import milter_client

pytestmark = pytest.mark.needs_build


def started_under(lab, policy, priority=0):
    """The policies of the milter's threads; a thread that has this one starts it."""
    def start():
        try:
            os.sched_setscheduler(0, policy, os.sched_param(priority))
        except PermissionError:
            pytest.skip("no policy can be set here")
        lab.milter.start()

    lab.configure()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(start).result()
    with milter_client.Client(lab.queue_dir + "/relay365m/milter") as client:
        client.mail(flow.SENDER)
        return set(policies(lab.milter.pid))


def policies(pid):
    for thread in os.listdir("/proc/%d/task" % pid):
        try:
            yield os.sched_getscheduler(int(thread))
        except ProcessLookupError:
            pass        # it has ended since


def test_a_batch(lab):
    # who answers the command and writes to the disk does not wait for others
    assert started_under(lab, os.SCHED_OTHER) == {os.SCHED_OTHER, os.SCHED_BATCH}


def test_a_choice_stays(lab):
    # not SCHED_IDLE, which gets no time on a busy machine
    assert started_under(lab, os.SCHED_RR, 1) == {os.SCHED_RR}
