"""What will end is told in time: secrets, certificates, sign-ins."""

import json
import time

import pytest

import flow
import hook
import lab as laboratory
import procs
import test_grants

pytestmark = pytest.mark.needs_build

DAY = 86400


@pytest.fixture
def web():
    it = hook.WebHook()
    yield it
    it.close()


def day(days):
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY))


def alarm_to(lab, web):
    with open(lab.config, "a", encoding="utf-8") as f:
        f.write('alarm_url = "%s"\n' % web.url)


def calendar(lab):
    return {entry["id"]: entry for entry in flow.status(lab)["tokend"]["calendar"]}


def test_secret(lab, web):
    test_grants.tenant_with(lab, secret_file=lab.secret_file, secret_expires=day(40))
    alarm_to(lab, web)
    lab.tokend.start()
    entry = calendar(lab)["calendar/contoso/secret"]
    assert entry["days_left"] in (39, 40) and not entry["near"]
    for number, days in ((1, 20), (1, 19), (2, 10), (3, 5), (4, -3),
                         # it was put off, and comes near again
                         (4, 20), (5, 5)):
        test_grants.tenant_with(lab, secret_file=lab.secret_file, secret_expires=day(days))
        alarm_to(lab, web)
        lab.relay365("reload", status=None)
        web.wait(number)
    assert [n["level"] for n in web.notices] == [1, 2, 3, 5, 3]
    assert "ended on" in web.notices[3]["what"]
    assert "secret_expires" in web.notices[0]["action"]
    assert "client secret" in lab.relay365("status", status=1).stdout
    test_grants.tenant_with(lab, secret_file=lab.secret_file, secret_expires=day(300))
    alarm_to(lab, web)
    lab.relay365("reload", status=None)
    procs.wait_for(lambda: web.notices[-1]["event"] == "recovery", 20, "the end of it")


def test_certificate(lab, web):
    near = lab.sim.ask("credentials", name="near", tenant=laboratory.TENANT, days=10)
    far = lab.sim.ask("credentials", name="far", tenant=laboratory.TENANT, days=100)
    test_grants.tenant_with(lab, certificate=near["certificate"],
                            private_key=near["private_key"])
    alarm_to(lab, web)
    lab.tokend.start()
    [notice] = web.wait(1)
    assert notice["id"] == "calendar/contoso/certificate" and notice["level"] == 2
    assert near["certificate"] in notice["what"]
    test_grants.tenant_with(lab, certificate=far["certificate"], private_key=far["private_key"])
    alarm_to(lab, web)
    lab.relay365("reload", status=None)
    assert [n["event"] for n in web.wait(2)] == ["alarm", "recovery"]


def test_sign_in(lab):
    """A refresh token that was not used for long, as after months without power."""
    test_grants.delegated(lab)
    lab.tokend.start()
    test_grants.sign_in(lab)
    assert calendar(lab) == {}, "looked at every few hours"
    lab.tokend.stop()
    path = lab.folder + "/state/tokens/mailbox-relay"
    text = procs.wait_for(lambda: procs.read(path), 10, "the token")
    old = int(time.time()) - 80 * DAY
    procs.write(path, "\n".join("refreshed=%d" % old if line.startswith("refreshed=") else line
                                for line in text.split("\n")), 0o600)
    lab.sim.listen("entra", open=False)
    lab.tokend.start()
    entry = calendar(lab)["calendar/mailbox/relay"]
    assert entry["near"] and entry["days_left"] in (9, 10)
    assert "sign-in" in json.dumps(flow.status(lab)["problems"])
