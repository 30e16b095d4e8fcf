"""Real Sendmail delivers through relay365-submit."""

import pytest

import sendmail

pytestmark = [pytest.mark.needs_build, pytest.mark.skipif(
    not sendmail.installed(), reason="Sendmail is not unpacked: contrib/install-packages test")]


def test_one_message(lab):
    lab.configure()
    box = lab.make_sendmail(milter=False)
    lab.tokend.start()
    lab.submit.start()
    box.start()
    assert box.send("erp@contoso.com", ["reader@example.net"])[0] == 250
    stored = lab.sim.wait_messages(1)[0]
    assert stored["from"] == "erp@contoso.com"
    assert stored["recipients"] == ["reader@example.net"]
    box.wait_queue_empty()
    lab.submit.wait_log("submit mailbox=relay from=<erp@contoso.com> nrcpt=1 ")
