"""Black-box tests of an OCI runtime's command line; $RUNTIME names the runtime (default: the built warren-oci)."""

import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.host import require
from tests.helpers.machines import PROJECT
from tests.helpers.oci import Bundle, Container, Runtime
from tests.helpers.terminal import ConsoleSocket

from .known import KNOWN

collect_ignore = [] if (PROJECT / "build/validation/.done").exists() else ["test_validation.py"]
"""The validation suite is there once `make validation` has built it."""

RUNTIME_NAME = pytest.StashKey[str]()
DIFFERED = pytest.StashKey[bool]()


@pytest.fixture(scope="session", autouse=True)
def runtime_name(runtime_program: str, request: pytest.FixtureRequest) -> str:
    """The first word of --version: runc, crun, warren-oci."""
    done = subprocess.run([runtime_program, "--version"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stdout, f"{runtime_program} --version: {done}"
    name = done.stdout.split()[0]
    request.config.stash[RUNTIME_NAME] = name
    return name


@pytest.fixture(scope="session", autouse=True)
def as_root(runtime_name: str) -> None:
    require("root")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    known = KNOWN.get(item.config.stash.get(RUNTIME_NAME, ""), {})
    reason = known.get(item.name) or known.get(item.name.split("[")[0])
    if reason and report.when != "setup":
        if report.outcome == "failed":
            report.outcome, report.known_difference, report.longrepr = "passed", reason, None
            item.stash[DIFFERED] = True
        elif report.when == "teardown" and not item.stash.get(DIFFERED, False):
            report.outcome, report.longrepr = "failed", f"passes, though known.py says: {reason}"
    return report


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    if report.when == "call" and hasattr(report, "known_difference"):
        return "known difference", "k", f"KNOWN ({report.known_difference})"
    return None


@pytest.fixture
def box(oci: Runtime, bundle: Bundle) -> Container:
    """A running container that sleeps, for tests that exec or look from outside."""
    return oci.up(bundle)


@pytest.fixture
def console(directory: Path) -> Iterator[ConsoleSocket]:
    with ConsoleSocket(directory / "console.sock") as socket:
        yield socket
