"""Guest tests: collected and reported here, run in a test machine (tests/helpers/vm.py).

Each machine boots once, when the first of its tests is due, and runs all that are selected.  This file is loaded on
both sides: on the host it replaces the running of a test, in the machine it reports.
"""

import os
from collections.abc import Iterator

import pytest

from tests.helpers import vm
from tests.helpers.machines import Machine, machine_of
from tests.helpers.vm import WORK, Guest

collect_ignore = [] if os.environ.get("WARREN_LONG") else ["hybrid", "qemu", "guest/test_limit_table.py"]
"""An emulated machine takes half a minute, and so do three runtimes with twenty limits; v1 below systemd gets rare."""

GUESTS = pytest.StashKey[dict[str, Guest]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[GUESTS] = {}
    config.add_cleanup(lambda: _stop(config.stash[GUESTS]))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if WORK:
        chosen = {nodeid: place for place, nodeid in enumerate(vm.selection())}
        items[:] = sorted((item for item in items if item.nodeid in chosen), key=lambda item: chosen[item.nodeid])
    else:
        # Fixtures of the host's tests are torn down when the next test is known, and a guest test never is set up.
        items.sort(key=lambda item: machine_of(item.path) is not None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    machine = machine_of(item.path)
    if WORK or not machine or not machine.bootable():
        return None
    guest = _guest(machine, item.session)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(guest, item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if WORK:
        # What pytest_report_to_serializable does; but that needs the configuration.
        vm.report(report._to_json())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, guest in config.stash[GUESTS].items():
        terminalreporter.write_line(f"{name}: {guest.summary()}")


@pytest.fixture(autouse=True)
def in_a_machine(request: pytest.FixtureRequest) -> None:
    """Where the host cannot boot the machine its tests are skipped, or fail where that is not allowed."""
    machine = machine_of(request.path)
    if machine and not WORK:
        machine.require()


def _guest(machine: Machine, session: pytest.Session) -> Guest:
    guests = session.config.stash[GUESTS]
    if machine.name not in guests:
        selection = [item.nodeid for item in session.items if machine_of(item.path) is machine]
        guests[machine.name] = Guest(machine, selection)
    return guests[machine.name]


def _stop(guests: dict[str, Guest]) -> None:
    for guest in guests.values():
        guest.stop()


def _reports(guest: Guest, item: pytest.Item) -> Iterator[pytest.TestReport]:
    """Of one test: the machine's, and a failure if they are not complete."""
    reports = [pytest.TestReport._from_json(data) for data in guest.reports(item.nodeid)]
    for report in reports:
        if report.failed:
            report.sections.append((f"console of {guest.machine.name}", guest.console()))
    yield from reports
    if not reports or reports[-1].when != "teardown":
        yield _vanished(guest, item)


def _vanished(guest: Guest, item: pytest.Item) -> pytest.TestReport:
    text = f"{guest.machine.name} ended without a complete report of this test\n{guest.console()}"
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
