"""Mail flows: through Postfix, authenticated, to Exchange."""

import pytest

import flow

pytestmark = pytest.mark.needs_build


@pytest.mark.parametrize("chroot", [True, False])
def test_message_arrives(lab, chroot):
    lab.configure()
    postfix = flow.wire(lab, chroot=chroot, milter=False)
    sent = postfix.send(flow.SENDER, flow.numbers(3), "Hello\r\n.dot\r\n")
    assert sent.ok
    postfix.wait_status(sent.qid, "sent", 3)
    [message] = lab.sim.wait_messages(1)
    assert message["mailbox"] == "relay@contoso.com"
    assert sorted(message["recipients"]) == flow.numbers(3)
    assert lab.sim.body(message).endswith(b"\r\n\r\nHello\r\n.dot\r\n")
    postfix.wait_queue_empty()
    assert flow.status(lab)["tokend"]["mailboxes"][0]["delivered"] == 3
