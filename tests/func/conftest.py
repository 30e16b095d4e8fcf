"""Fixtures of the functional tests."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lab as laboratory  # noqa: E402  pylint: disable=C0413
import postfix as postfix_module  # noqa: E402  pylint: disable=C0413
import programs  # noqa: E402  pylint: disable=C0413


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "needs_build: uses relay365's programs; skipped if they are not built, "
        "an error if RELAY365_BUILD is set")
    config.addinivalue_line("markers", "slow: takes more than about 20 s")
    config.addinivalue_line(
        "markers", "milter: keeps the milter busy from many threads; worth a run with a "
        "ThreadSanitizer build")
    # a test's thread that dies would else be a mere note
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")


def _need_mta():
    if os.getuid() != 0:
        pytest.skip("a private Postfix must be started by root")
    if not postfix_module.installed():
        pytest.skip("Postfix is not installed")


@pytest.fixture(autouse=True)
def _built(request):
    if request.node.get_closest_marker("needs_build"):
        missing = programs.missing()
        if missing and os.environ.get("RELAY365_BUILD"):
            pytest.fail("not in RELAY365_BUILD: " + ", ".join(missing))
        if missing:
            pytest.skip("not built: " + ", ".join(missing))


@pytest.fixture
def lab(request):
    """A Lab; see lab.py. Whatever it finds at the end fails the test."""
    _need_mta()
    it = laboratory.Lab()
    try:
        yield it
    finally:
        failed = getattr(request.node, "call_failed", True)
        found = it.close()
    if found:
        text = "\n".join(found)
        if failed:
            print(text)         # the first cause is the test's own
        else:
            pytest.fail(text, pytrace=False)


@pytest.fixture
def make_postfix():
    """Makes private Postfixes without a laboratory; closes them all."""
    _need_mta()
    made = []

    def make(**options):
        made.append(postfix_module.PostfixInstance(**options))
        return made[-1]

    yield make
    for instance in made:
        instance.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when != "call":
        return
    item.call_failed = report.failed
    it = item.funcargs.get("lab")
    if report.failed and isinstance(it, laboratory.Lab):
        report.sections.append(("ends of all logs", it.tails()))


def pytest_runtest_logreport(report):
    """Note what failed where tests/run wants it, which tries it once more."""
    path = os.environ.get("RELAY365_FAILED")
    if path and report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        with open(path, "a", encoding="utf-8") as f:
            f.write(report.nodeid + "\n")
