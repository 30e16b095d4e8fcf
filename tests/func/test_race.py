"""64 sessions at once for the last ten places."""

import concurrent.futures
import threading

import pytest

import flow
import milter_client

pytestmark = [pytest.mark.needs_build, pytest.mark.milter]

SESSIONS, LEFT, MAX = 64, 10, 400


def test_last_places(lab):
    lab.configure(mailboxes={"relay": {"recipients_per_day": MAX, "when_full": "defer"}})
    lab.milter.start()
    path = lab.queue_dir + "/relay365m/milter"
    with milter_client.Client(path) as client:
        client.mail(flow.SENDER)
        assert all(client.rcpt(r) for r in flow.numbers(MAX - LEFT))
        assert client.end("4Q")
    start = threading.Barrier(SESSIONS)

    def one(number):
        with milter_client.Client(path) as client:
            client.mail("s%d@contoso.com" % number)
            start.wait(60)
            return client.rcpt("r@example.net") and client.end("4Q%d" % number)

    with concurrent.futures.ThreadPoolExecutor(SESSIONS) as pool:
        assert sum(pool.map(one, range(SESSIONS))) == LEFT
    row = flow.status(lab)["milter"]["mailboxes"][0]
    assert (row["used"], row["reserved"]) == (MAX, 0)
