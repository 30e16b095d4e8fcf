"""The admin's own limits and sources, through the real Postfix."""

import pytest

import flow

pytestmark = pytest.mark.needs_build

ERP = {"ADDR": "10.1.0.5", "LOGIN": "erp"}
PRINTER = {"ADDR": "10.2.7.9"}


def gateway(lab, **top):
    """Postfix that only takes mail: nothing has to leave for these tests."""
    lab.configure(**top)
    return flow.wire(lab, main={"default_transport": "relay365-relay:[127.0.0.2]:1",
                                "defer_transports": "relay365-relay"})


def limit(**keys):
    return {"per": "source", "count": "messages", "max": 2, "window": "24h", **keys}


def answers(postfix, n, client, sender=flow.SENDER, recipients=None):
    """Codes that n messages get."""
    return [postfix.send(sender, recipients or flow.numbers(1), xclient=client).code
            for _ in range(n)]


def test_messages_per_user(lab):
    """The plainest wish: so many messages a user in 24 hours, reject beyond."""
    postfix = gateway(lab, limits={"per-user": limit()})
    assert answers(postfix, 3, ERP) == [250, 250, 550]
    refused = postfix.send(flow.SENDER, flow.numbers(1), xclient=ERP)
    assert "source erp: 2 of 2 messages used in 24 h (limit per-user); room for" in refused.text
    # somebody else is not concerned, and all recipients of a message are one message
    assert answers(postfix, 2, PRINTER, recipients=flow.numbers(9)) == [250, 250]


def test_accept_tells_the_day_and_what_is_fuller(lab):
    postfix = gateway(lab, limits={"per-user": limit()})
    sent = postfix.send(flow.SENDER, flow.numbers(3), xclient=ERP)
    lab.milter.wait_log(sent.qid + ": accept mailbox=relay .* used=3/10000 "
                        "limit=per-user limit_used=1/2$")
    lab.configure()
    lab.relay365("reload", "milter")
    sent = postfix.send(flow.SENDER, flow.numbers(3), xclient=ERP)
    lab.milter.wait_log(sent.qid + ": accept mailbox=relay .* used=6/10000$")


def test_external_recipients_only(lab):
    postfix = gateway(lab, limits={"outside": limit(count="external-recipients", max=3)})
    mixed = ["it@contoso.com", "hr@contoso.com", "a@example.net"]
    assert answers(postfix, 2, ERP, recipients=mixed) == [250, 250]
    assert answers(postfix, 2, ERP) == [250, 550]
    assert answers(postfix, 1, ERP, recipients=mixed[:2]) == [250]
    assert answers(postfix, 1, PRINTER, recipients=mixed) == [250]


def test_limit_of_bytes_finds_open_sessions(lab):
    """The MTA was not asked for the body then: what can't be counted is not let through."""
    postfix = gateway(lab)
    with postfix.smtp() as client:
        def transfer():
            client.mail(flow.SENDER)
            client.rcpt("r@example.net")
            return client.data(b"From: erp@contoso.com\r\n\r\n" + b"x" * 70 + b"\r\n")

        assert transfer()[0] == 250
        lab.configure(limits={"volume": limit(count="bytes", max=100000)})
        lab.relay365("reload", "milter")
        code, text = transfer()
        assert code == 451 and b"a limit of bytes of relay365.conf came into force" in text
    assert answers(postfix, 1, ERP) == [250]


def test_exception_ends_the_incident(lab):
    postfix = gateway(lab, limits={"per-user": limit()})
    assert answers(postfix, 3, ERP) == [250, 250, 550]
    lab.milter.wait_log("limit-high limit=per-user key=erp percent=95")
    lab.configure(limits={"per-user": limit(**{"except": ["erp"]})})
    lab.relay365("reload", "milter")
    lab.milter.wait_log("limit-ok limit=per-user key=erp")
    assert answers(postfix, 1, ERP) == [250]


def test_sources_have_one_count_for_all_their_names(lab):
    postfix = gateway(lab, limits={"per-user": limit()}, sources={
        "office": {"logins": ["erp"], "clients": ["10.2.0.0/16"]}})
    assert answers(postfix, 1, ERP) + answers(postfix, 2, PRINTER) == [250, 250, 550]
    lab.milter.wait_log("source=office")


def test_overrides_and_exceptions(lab):
    postfix = gateway(lab, limits={"per-user": limit(
        overrides=["erp=3", "10.2.7.9=0"], **{"except": ["monitor"]})})
    assert answers(postfix, 4, ERP) == [250, 250, 250, 550]
    assert answers(postfix, 1, PRINTER) == [550]
    assert answers(postfix, 4, {"ADDR": "10.3.0.1", "LOGIN": "Monitor"}) == [250] * 4


ONE = ['erp@contoso.com', '"erp"@contoso.com', '"e\\rp"@contoso.com', 'e\\rp@contoso.com',
       '@x.test:erp@contoso.com', 'erp@contoso.com.', 'erp(x)@contoso.com', 'erp @ contoso.com',
       'contoso.com!erp', 'erp%contoso.com', 'Erp <erp@contoso.com>']


def as_written(postfix, sender, recipients):
    """What each recipient and the message are answered; no client library mends an address."""
    with postfix.smtp() as smtp:
        codes = [smtp.docmd("MAIL", "FROM:<%s>" % sender)[0]]
        codes += [smtp.docmd("RCPT", "TO:<%s>" % name)[0] for name in recipients]
        return [*codes, smtp.data(b"Subject: x\r\n\r\nx\r\n")[0] if 250 in codes[1:] else None]


def test_a_sender_has_one_count_however_it_is_spelled(lab):
    postfix = gateway(lab, limits={"per-sender": limit(per="sender", max=len(ONE))})
    for sender in ONE:
        assert as_written(postfix, sender, ["a@example.net"]) == [250] * 3, sender
    assert {message["sender"] for message in postfix.queue()} == {"erp@contoso.com"}
    [row] = flow.status(lab)["milter"]["limits"]
    assert (row["key"], row["used"]) == ("erp@contoso.com", len(ONE))
    assert as_written(postfix, '"er"."p"@contoso.com', ["a@example.net"]) == [250] * 3
    assert as_written(postfix, '"\\erp"@contoso.com', ["a@example.net"]) == [250, 550, None]


def test_external_recipients_however_they_are_spelled(lab):
    postfix = gateway(lab, limits={"ext": limit(count="external-recipients", max=100)})
    outside = ["a%example.net", "example.net!b", "c@example.net.", '"d%example.net"',
               "e%example.net@gateway.test", "f@example.net@"]
    inside = ["a@contoso.com.", '"b"@contoso.com', "c%contoso.com", "d%contoso.com@gateway.test"]
    assert as_written(postfix, flow.SENDER, outside + inside) == [250] * 12
    assert [row["used"] for row in flow.status(lab)["milter"]["limits"]] == [len(outside)]


def test_exempt_recipients_only_reduce_the_count(lab):
    """One exempt recipient does not let the others through."""
    postfix = gateway(lab, limits={"flood": limit(
        count="recipients", exempt_recipients=["*@contoso.com", "boss@example.net"])})
    sent = postfix.send(flow.SENDER, ["it@contoso.com", "Boss@example.net", "a@example.net",
                                      "b@example.net", "c@example.net"], xclient=ERP)
    assert sent.ok and list(sent.refused) == ["c@example.net"]


@pytest.mark.parametrize("per, keys", [
    ("sender", ["a@contoso.com", "A@Contoso.com"]),
    ("sender-domain", ["a@contoso.com", "b@contoso.com"]),
    ("everyone", ["a@contoso.com", "b@example.com"]),
    ("mailbox", ["a@contoso.com", "b@example.com"]),
    ("tenant", ["a@contoso.com", "b@example.com"])])
def test_keys(lab, per, keys):
    """Keys are case-folded; what belongs together shares a count."""
    postfix = gateway(lab, limits={"together": limit(per=per)})
    codes = [answers(postfix, 1, ERP, sender=key)[0] for key in keys]
    assert codes + answers(postfix, 1, PRINTER, sender=keys[0]) == [250, 250, 550]


def test_bytes(lab):
    """As announced at once; what was not announced is measured."""
    postfix = gateway(lab, limits={"volume": limit(count="bytes", max=4000)})
    early = postfix.send(flow.SENDER, flow.numbers(2), xclient=ERP, esmtp=["SIZE=4001"])
    assert early.code == 550 and "needs more than the 4000 bytes" in early.text
    assert len(early.refused) == 2
    sizes = {"": 1000, "SIZE=1": 1000, "SIZE=700": 500}
    codes = [postfix.send(flow.SENDER, flow.numbers(2), "x" * n + "\r\n", xclient=ERP,
                          esmtp=[word] if word else []).code for word, n in sizes.items()]
    assert codes == [250, 250, 250]
    [use] = flow.json.loads(lab.relay365("--json", "status", status=None).stdout)["milter"]["limits"]
    # the body with its header, which Postfix has completed; where more was announced, that
    assert 2700 + 2 * 60 < use["used"] <= 2700 + 2 * 200
    late = postfix.send(flow.SENDER, flow.numbers(1), "x" * 1500 + "\r\n", xclient=ERP)
    assert late.code == 550 and "bytes used in 24 h (limit volume); room for" in late.text
    assert not late.refused, "at the end of the message"
    never = postfix.send(flow.SENDER, flow.numbers(1), "x" * 5000 + "\r\n", xclient=PRINTER)
    assert never.code == 550 and "needs more than the 4000 bytes" in never.text
    # sendmail(1) announces nothing
    qid = postfix.submit(flow.numbers(1), sender=flow.SENDER, body="Subject: x\n\n" + "x" * 5000)
    assert "needs more than the 4000 bytes" in postfix.wait_log(
        qid + ": milter-reject: END-OF-MESSAGE .*").group(0)


def test_who_it_is(lab):
    """A login in any case, and whatever it gives as the sender."""
    postfix = gateway(lab, limits={"per-user": limit(max=3)})
    assert answers(postfix, 1, {**ERP, "LOGIN": "ERP"}) + answers(postfix, 1, ERP, sender="") + \
        answers(postfix, 2, ERP, sender="other@contoso.com") == [250, 250, 250, 550]


def test_external_recipients_of_the_tenant(lab):
    lab.sim
    tenants = {"contoso": {**flow.relay365_conf.tenant_of(
        lab.sim, "contoso.onmicrosoft.com", "11111111-2222-3333-4444-555555555555",
        lab.secret_file, accepted_domains=["contoso.com"]), "external_recipients_per_day": 2}}
    postfix = gateway(lab, tenants=tenants)
    sent = postfix.send(flow.SENDER, ["a@contoso.com", "b@CONTOSO.com", *flow.numbers(3)])
    assert sent.ok and list(sent.refused) == ["r2@example.net"]
    code, text = sent.refused["r2@example.net"]
    assert code == 451 and "2 of 2 external recipients used in 24 h" in text


def test_licences_give_the_limit(lab):
    lab.configure()
    lab.milter.start()
    with open(lab.config, encoding="utf-8") as f:
        text = f.read()
    for licences, limit_text in (("200", "29902"), ('"trial"', "5000"), ("1000", "72446")):
        with open(lab.config, "w", encoding="utf-8") as f:
            f.write(text.replace("client_id", "licences = %s\nclient_id" % licences, 1))
        lab.relay365("reload", status=None)
        shown = flow.json.loads(lab.relay365("--json", "limits").stdout)
        [external] = [it for it in shown["limits"]
                      if it["limit"] == "external_recipients_per_day"]
        assert str(external["max"]) == limit_text


def test_built_in_limits_are_shown(lab):
    lab.configure(mailboxes={"relay": {"messages_per_minute": 20, "message_size": 5000}})
    lab.milter.start()
    shown = {it["limit"]: it for it in flow.json.loads(
        lab.relay365("--json", "limits").stdout)["limits"]}
    assert {name: (it["max"], it["action"], it["kept_by"]) for name, it in shown.items()} == {
        "recipients_per_day": (10000, "wait", "relay365-milter"),
        "recipients_per_message": (500, "defer", "relay365-milter"),
        "message_size": (5000, "reject", "relay365-milter"),
        "messages_per_minute": (20, "wait", "relay365-tokend"),
        "connections": (3, "wait", "relay365-tokend")}
    text = lab.relay365("limits").stdout
    assert "messages_per_minute: 20 messages per relay@contoso.com in 60 s, wait" in text
    assert "connections: 3 connections per relay@contoso.com, wait" in text
    lab.configure(mailboxes={"relay": {"messages_per_minute": 0}})
    lab.relay365("reload", status=None)
    assert "messages_per_minute" not in lab.relay365("limits").stdout


def test_priority_may_use_the_reserve(lab):
    postfix = gateway(lab, mailboxes={"relay": {
        "recipients_per_day": 10, "reserve_for_priority": 20, "when_full": "defer"}},
        sources={"monitoring": {"clients": ["10.1.0.5"], "priority": True}})
    sent = postfix.send(flow.SENDER, flow.numbers(9), xclient=PRINTER)
    assert list(sent.refused) == ["r8@example.net"]
    assert "the rest is kept for priority mail" in sent.refused["r8@example.net"][1]
    urgent = postfix.send(flow.SENDER, flow.numbers(3), xclient={"ADDR": "10.1.0.5"})
    assert urgent.ok and list(urgent.refused) == ["r2@example.net"]


def test_source_may_use_its_mailboxes_only(lab):
    lab.sim.mailbox("alerts@contoso.com", tenant="contoso.onmicrosoft.com")
    postfix = gateway(lab, mailboxes={
        "relay": {"address": "relay@contoso.com", "default": True},
        "alerts": {"address": "alerts@contoso.com", "senders": ["alerts@contoso.com"]}},
        sources={"erp": {"logins": ["erp"], "mailboxes": ["alerts"]}})
    refused = postfix.send(flow.SENDER, flow.numbers(1), xclient=ERP)
    assert refused.code == 550 and "source erp may not send through relay@contoso.com" in \
        refused.text
    assert answers(postfix, 1, ERP, sender="alerts@contoso.com") == [250]


@pytest.mark.parametrize("where", ["limit", "all"])
def test_shadow_decides_and_logs_only(lab, where):
    top = {"shadow": True} if where == "all" else {}
    postfix = gateway(lab, limits={"per-user": limit(shadow=where == "limit")}, **top)
    assert answers(postfix, 4, ERP) == [250] * 4
    lab.milter.wait_log(r"reject limit=per-user .*shadow=yes")
