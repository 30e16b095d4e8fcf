"""Messages that must arrive exactly once, whatever fails in between.

    letters = Letters(lab, postfix)
    qid = letters.send()
    letters.wait_deferred(qid, "AADSTS7000222")
    ...mend...
    letters.check_arrived()

Nobody sends anything again by hand: Postfix's own queue has to do it.
"""

import collections
import re

import flow
import procs
from postfix import PATIENCE_S

NOTICE = re.compile(r"sender non-delivery notification|status=bounced|removed \(expired\)")


class Letters:
    def __init__(self, lab, postfix):
        self.lab, self.postfix = lab, postfix
        self.sent = {}              # Message-ID -> recipients
        self.qids = []
        self.counts = {}            # queue id -> number of recipients

    def send(self, sender=flow.SENDER, recipients=None, **options):
        """Hand one message to Postfix, which must take it; its queue id."""
        sent = self.try_to_send(sender, recipients, **options)
        assert sent.ok, (sent, procs.tail(self.postfix.log()))
        return sent.qid

    def try_to_send(self, sender=flow.SENDER, recipients=None, **options):
        """The same, though it may be refused; what was answered."""
        number = len(self.sent)
        name = "<letter-%d@gateway.test>" % number
        recipients = recipients or ["r%d@example.net" % number]
        headers = {"Message-ID": name, **options.pop("headers", {})}
        sent = self.postfix.send(sender, recipients, headers=headers, **options)
        if sent.ok:
            self.sent[name] = [r for r in recipients if r not in sent.refused]
            self.qids.append(sent.qid)
            self.counts[sent.qid] = len(self.sent[name])
        return sent

    # -- waiting ---------------------------------------------------------------

    def wait_deferred(self, qid, text="", timeout=PATIENCE_S):
        """Wait until it is deferred for this cause (a regular expression); the delivery."""
        cause = re.compile(text)

        def deferred():
            return [d for d in self.postfix.deliveries(qid)
                    if d.status == "deferred" and cause.search(d.text)]

        return procs.wait_for(deferred, timeout, lambda: "%s deferred for %r; log:\n%s" % (
            qid, text, procs.tail(self.postfix.log())))[0]

    def wait_mailq(self, *texts):
        """mailq tells all these causes; not at every moment, as one that is tried has none."""
        for text in texts:
            procs.wait_for(lambda cause=re.compile(text): cause.search(self.postfix.mailq()),
                           PATIENCE_S, lambda wanted=text: "%r in mailq" % wanted)

    def wait_arrived(self, qids, timeout=PATIENCE_S):
        """Wait until Postfix knows that all recipients of these have been taken."""
        for qid in qids:
            self.postfix.wait_status(qid, "sent", self.counts[qid], timeout)

    # -- the end ---------------------------------------------------------------

    def copies(self):
        """Message-ID -> how often each of its recipients got it."""
        found = collections.defaultdict(collections.Counter)
        for message in self.lab.sim.messages():
            found[message["message_id"]].update(message["recipients"])
        return found

    def missing(self):
        copies = self.copies()
        return [name for name, recipients in self.sent.items()
                if any(copies[name][r] == 0 for r in recipients)]

    def check_arrived(self, doubled=(), timeout=PATIENCE_S):
        """All are there by themselves, once to each recipient, and nobody was told otherwise.

        doubled: Message-IDs that may have come more than once.
        """
        procs.wait_for(lambda: not self.missing(), timeout, lambda: (
            "%s to arrive; queue: %s; log:\n%s" % (
                self.missing(), self.postfix.queue(), procs.tail(self.postfix.log()))))
        self.postfix.wait_queue_empty(timeout)
        copies = self.copies()
        assert set(copies) == set(self.sent), "nothing but what was accepted"
        for name, recipients in self.sent.items():
            if name not in doubled:
                assert copies[name] == collections.Counter(recipients), name
        self.check_no_bounce()

    def check_no_bounce(self):
        found = NOTICE.search(self.postfix.log())
        assert not found, found and self.postfix.log()[found.start():][:400]
        assert self.postfix.mailbox() == []


def name_of(number):
    """The Message-ID of the number-th letter, from 0."""
    return "<letter-%d@gateway.test>" % number


def fast(lab, **keys):
    """One mailbox, here and at the stand-in, whose pace is no matter."""
    lab.sim.mailbox("relay@contoso.com", tenant=flow.relay365_conf_tenant(lab), send_as=["*"],
                    messages_per_minute=60000)
    lab.configure(mailboxes={"relay": {"messages_per_minute": 60000, **keys}})


def started(lab, milter=False, **options):
    """Everything runs; its letters."""
    return Letters(lab, flow.wire(lab, milter=milter, chroot=False, **options))


__all__ = ["Letters", "fast", "name_of", "started"]
