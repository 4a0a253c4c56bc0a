"""Fixtures of all tiers.  The tier of a test is its folder; tiers that launch run inside a leak check."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.helpers import leaks, probe, processes
from tests.helpers.host import STRICT, is_host_lack
from tests.helpers.oci import Bundle, Runtime, make_rootfs

HERE = Path(__file__).parent
TIERS = ("unit", "rootless", "privileged", "conformance", "vm", "bench")
LAUNCHING = ("rootless", "privileged", "conformance", "vm")
# It holds tests, but is none by its name.
pytest.register_assert_rewrite("tests.conformance.clients")


def pytest_configure(config: pytest.Config) -> None:
    for tier in TIERS:
        config.addinivalue_line("markers", f"{tier}: tests of the folder tests/{tier}")
    processes.continue_below_a_reaper()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if tier := tier_of(item.path):
            item.add_marker(tier)


def tier_of(path: Path) -> str:
    folder = path.relative_to(HERE).parts[0] if path.is_relative_to(HERE) else ""
    return folder if folder in TIERS else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _no_silent_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _no_silent_skip(report)
    return report


def _no_silent_skip(report: "pytest.TestReport | pytest.CollectReport") -> None:
    """In CI a test that is skipped for anything but a known lack of the host has failed; helpers/host.py."""
    if not STRICT or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not is_host_lack(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI for a reason that is not allowed there: {reason}"


@pytest.fixture(scope="session")
def token() -> str:
    """Marks everything that this session launches; part of every container's id."""
    return uuid.uuid4().hex[:8]


@pytest.fixture(scope="session", autouse=True)
def marked_environment(token: str) -> Iterator[None]:
    os.environ[processes.MARKER] = token
    yield
    os.environ.pop(processes.MARKER, None)


@pytest.fixture(scope="session")
def session_directory(token: str) -> Iterator[Path]:
    """Unlike tmp_path it can be entered by other users, as containers with a user namespace must."""
    path = Path(tempfile.mkdtemp(prefix=f"warren-test-{token}-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def directory(session_directory: Path) -> Iterator[Path]:
    """A directory of the test's own that other users can enter."""
    path = Path(tempfile.mkdtemp(dir=session_directory))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest, token: str, session_directory: Path) -> Iterator[None]:
    """Fails the test that leaves anything behind on the host."""
    if tier_of(request.node.path) not in LAUNCHING:
        yield
        return
    before = leaks.Snapshot(token)
    yield
    found = leaks.check(before, session_directory)
    if found:
        found.remove()
        pytest.fail(f"{request.node.name} {found}", pytrace=False)


@pytest.fixture(scope="session")
def probe_program(session_directory: Path) -> Path:
    """The static helper that answers questions inside containers; tests/helpers/probe.c."""
    return probe.build(session_directory / "probe")


@pytest.fixture
def rootfs(directory: Path, probe_program: Path) -> Path:
    return make_rootfs(directory / "root", probe_program)


@pytest.fixture
def new_bundle(directory: Path, probe_program: Path, token: str) -> Callable[[], Bundle]:
    """Makes any number of bundles."""

    def make() -> Bundle:
        parent = Path(tempfile.mkdtemp(dir=directory))
        parent.chmod(0o711)
        return Bundle(parent / "bundle", probe_program, token)

    return make


@pytest.fixture
def bundle(new_bundle: Callable[[], Bundle]) -> Bundle:
    return new_bundle()


@pytest.fixture(scope="session")
def runtime_program() -> str:
    """The runtime under test: $RUNTIME, else the built warren-oci."""
    program = os.environ.get("RUNTIME") or str(HERE.parent / ".venv/bin/warren-oci")
    found = shutil.which(program)
    assert found, f"{program} does not exist: `make build` makes it, RUNTIME=... names another runtime"
    return os.path.abspath(found)


@pytest.fixture
def oci(runtime_program: str, directory: Path, token: str) -> Iterator[Runtime]:
    """The runtime under test with a state root of its own; containers that are left are removed with --force."""
    runtime = Runtime(runtime_program, directory / "runtime", f"{token}-{directory.name[-6:]}")
    yield runtime
    runtime.close()
