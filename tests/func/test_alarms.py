"""An admin is told once, in time, and outside of the mail path."""

import json
import re
import time

import pytest

import flow
import hook
import lab as laboratory
import postfix
import procs
import relay365_conf
import token_client

pytestmark = pytest.mark.needs_build


@pytest.fixture
def web():
    it = hook.WebHook()
    yield it
    it.close()


def wait_state(lab, state):
    procs.wait_for(lambda: flow.status(lab)["tokend"]["tokens"][0]["state"] == state, 20,
                   lambda: "state %s: %s" % (state, flow.status(lab)))


def mend(lab):
    lab.sim.clear()
    lab.relay365("reload", status=None)     # the milter does not run
    wait_state(lab, "valid")


def test_alarm_and_recovery(lab, web):
    line, path = hook.command(lab)
    lab.sim.fault("entra", "aadsts", code=7000222)
    lab.configure(alarm_url=web.url, alarm_command=line)
    lab.tokend.start()
    [notice] = web.wait(1)
    assert notice["event"] == "alarm" and notice["id"] == "token/contoso"
    assert notice["daemon"] == "relay365-tokend" and notice["postmaster"] == "it@contoso.com"
    assert "AADSTS7000222" in notice["what"] and "certificate" in notice["action"]
    assert notice["since"].endswith("Z") and notice["text"].startswith("relay365 on ")
    assert [a["id"] for a in flow.status(lab)["tokend"]["alarms"]] == ["token/contoso"]
    # the same trouble again is the same incident
    lab.relay365("reload", status=None)
    procs.wait_for(lambda: len(lab.sim.state()["entra"]["requests"]) >= 2, 20, "another request")
    mend(lab)
    assert [n["event"] for n in web.wait(2)] == ["alarm", "recovery"]
    told = hook.wait_command(path, 2)
    assert [n["event"] for n, _env in told] == ["alarm", "recovery"]
    assert told[0][1].startswith("alarm|token/contoso|")
    assert told[1][0]["since"] == notice["since"]
    assert flow.status(lab)["tokend"]["alarms"] == []


def test_waiting_mail_is_counted(lab, web):
    lab.sim.fault("entra", "aadsts", code=700016)
    lab.configure(alarm_url=web.url)
    postfix = flow.wire(lab, milter=False, start=False, main={"maximal_queue_lifetime": "2d"})
    postfix.start()
    begin = time.time()
    for n in range(3):
        assert postfix.send(flow.SENDER, ["r%d@example.net" % n]).ok
    postfix.wait_queue(lambda queue: len(queue) == 3)
    lab.tokend.start()
    [notice] = web.wait(1)
    assert notice["waiting"]["messages"] == 3 and notice["waiting"]["recipients"] == 3
    expires = notice["waiting"]["first_expires"]
    lowest = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(begin + 2 * 86400 - 60))
    highest = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(begin + 2 * 86400 + 120))
    assert lowest <= expires[:16] <= highest
    assert "3 messages wait." in notice["text"] and expires in notice["text"]


def test_waiting_mail_of_each_instance_is_counted(lab, web):
    """Two queues, and one that no Postfix has; what can't be read is said."""
    lab.sim.fault("entra", "aadsts", code=700016)
    none = lab.folder + "/none"

    def put(*queues):
        lab.configure(alarm_url=web.url, queue_directories=[lab.queue_dir, *queues],
                      milter_socket="unix:%s/relay365m/milter" % lab.queue_dir)

    put()
    first = flow.wire(lab, milter=False, start=False, main={"maximal_queue_lifetime": "4d"})
    first.start()
    with postfix.PostfixInstance(lab.folder + "/out", main={
            "default_transport": "smtp", "defer_transports": "smtp",
            "maximal_queue_lifetime": "2d"}) as out:
        put(out.queue_dir, none)
        for box, n in ((first, 1), (out, 2)):
            for i in range(n):
                assert box.send(flow.SENDER, ["r%d@example.net" % i]).ok
            box.wait_queue(lambda queue, n=n: len(queue) == n)
        lab.tokend.start()
        [notice] = web.wait(1)
        lab.relay365("alarm", data='{"event": "alarm", "what": "a trial"}')
        for notice in web.wait(2):
            waiting = notice["waiting"]
            assert (waiting["messages"], waiting["recipients"], waiting["held"]) == (3, 3, 0)
            assert waiting["queues_unread"] == 1
            assert "3 messages wait. (1 more queue can't be read.)" in notice["text"]
            assert waiting["first_expires"] < time.strftime(
                "%Y-%m-%dT%H:%M", time.gmtime(time.time() + 2 * 86400 + 60))


def test_restart_repeats_nothing(lab, web):
    lab.sim.fault("entra", "aadsts", code=7000222)
    lab.configure(alarm_url=web.url)
    lab.tokend.start()
    web.wait(1)
    record = lab.folder + "/state/alarms/token:contoso"
    procs.wait_for(lambda: procs.read(record), 10, "the record")
    lab.tokend.kill()
    lab.tokend.unexpected.clear()
    lab.tokend.start()
    wait_state(lab, "error")
    mend(lab)
    assert [n["event"] for n in web.wait(2)] == ["alarm", "recovery"]
    procs.wait_for(lambda: procs.read(record) == "", 10, "the end of the record")


@pytest.mark.slow
def test_hook_that_fails_is_tried_again(lab, web):
    web.answers = [500, 503]
    lab.sim.fault("entra", "aadsts", code=7000222)
    lab.configure(alarm_url=web.url)
    lab.tokend.start()
    [notice] = web.wait(1)
    assert notice["event"] == "alarm"


def test_hanging_command_holds_up_nobody(lab, web):
    lab.sim.fault("entra", "aadsts", code=7000222)
    lab.configure(alarm_command="sleep 60", alarm_url=web.url)
    lab.tokend.start()
    wait_state(lab, "error")
    begin = time.monotonic()
    mend(lab)
    assert time.monotonic() - begin < 20
    assert lab.tokend.running()


def test_broken_configuration_stops_no_alarm(lab, web):
    """While an admin edits the file, the daemon goes on with the old one, and tells."""
    lab.configure(alarm_url=web.url)
    lab.sim.tenant("contoso.onmicrosoft.com", expires_in=3600, refresh_in=3)
    lab.tokend.start()
    wait_state(lab, "valid")
    good = procs.read(lab.config)
    procs.write(lab.config, good + "nonsense\n", 0o640)
    lab.sim.fault("entra", "aadsts", code=7000222)
    [notice] = web.wait(1)
    assert "can't be renewed" in notice["what"] and "settings" not in notice
    procs.write(lab.config, good, 0o640)


def test_what_leaves_the_configuration_ends_its_alarms(lab, web):
    """At a reload, or when the daemon starts with another configuration."""
    keys = relay365_conf.tenant_of(lab.sim, laboratory.TENANT, laboratory.CLIENT_ID,
                                   lab.secret_file)
    mailboxes = {name: {"address": name + "@contoso.com", "tenant": name,
                        "senders": ["*@%s.example" % name]} for name in ("one", "two", "three")}
    mailboxes["one"]["default"] = True

    def configure(*names):
        lab.configure(tenants={name: keys for name in names}, alarm_url=web.url,
                      mailboxes={name: mailboxes[name] for name in names})

    def raised():
        return {alarm["id"] for alarm in flow.status(lab)["tokend"]["alarms"]}

    def ended():
        return {n["id"] for n in web.notices if n["event"] == "recovery"}

    lab.sim.fault("entra", "aadsts", code=7000222)
    configure("one", "two", "three")
    lab.tokend.start()
    # as a mailbox has them when Microsoft refuses its mail
    token_client.map_answer(lab, "three", "5.7.64 TenantAttribution; Relay Access Denied")
    web.wait(4)
    assert raised() == {"token/one", "token/two", "token/three", "mailbox/three"}
    configure("one", "two")
    lab.relay365("reload", status=None)
    assert raised() == {"token/one", "token/two"}
    procs.wait_for(lambda: ended() == {"token/three", "mailbox/three"}, 30, "their recovery")
    lab.tokend.stop()
    configure("one")
    lab.tokend.start()
    assert raised() == {"token/one"}
    procs.wait_for(lambda: "token/two" in ended(), 30, "its recovery")


def test_trial(lab, web):
    lab.configure(alarm_url=web.url)
    lab.relay365("alarm", data='{"event": "alarm", "what": "a trial"}')
    [notice] = web.wait(1)
    assert "a trial" in notice["text"] and notice["postmaster"] == "it@contoso.com"
    assert re.search(r" Since %s\." % notice["since"], notice["text"]) and notice["since"]
    lab.relay365("alarm", data="nothing", status=2)
    web.answers = [500] * 9
    lab.relay365("alarm", data='{"event": "alarm", "what": "a trial"}', status=1)
    web.answers = []
    done = lab.relay365("alarm", "-j", data='{"event": "alarm", "what": "a trial"}')
    assert json.loads(done.stdout) == {"taken": True}


def test_trial_without_anybody_to_tell(lab):
    lab.configure()
    done = lab.relay365("alarm", data='{"event": "alarm", "what": "a trial"}', status=78)
    assert "sets neither alarm_command nor alarm_url" in done.stderr


def test_watchdog(lab):
    """systemd hears of tokend, and hears nothing when it hangs."""
    lab.configure()
    lab.tokend.start(env={"WATCHDOG_USEC": "300000"})
    procs.wait_for(lambda: lab.tokend.notify.read().count("WATCHDOG=1") >= 3, 10,
                   "signs of life")
    lab.tokend.pause()
    lab.tokend.notify.read()
    before = len(lab.tokend.notify.said)
    time.sleep(1)       # what must not happen takes its time to be seen
    assert len(lab.tokend.notify.read()) == before
    lab.tokend.resume()
    procs.wait_for(lambda: len(lab.tokend.notify.read()) > before, 10, "another")


def test_short_outage_alarms_nobody(lab, web):
    lab.sim.fault("entra", "status", status=503, times=1)
    lab.configure(alarm_url=web.url)
    lab.tokend.start()
    procs.wait_for(lambda: len(lab.sim.state()["entra"]["requests"]) >= 2, 20, "a second try")
    wait_state(lab, "valid")
    assert flow.status(lab)["tokend"]["alarms"] == []
    assert web.notices == []
