"""Tests on pure cgroup v2: each runs with crun, which proves it, and with Warren; with WARREN_LONG=1 with runc too."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.machines import PROJECT
from tests.helpers.oci import Bundle, Container, Runtime
from tests.helpers.vm import WORK

# Starting runc takes three times as long as crun, too long for every `make test`.
RUNTIMES = (*(["runc"] if os.environ.get("WARREN_LONG") else []), "crun", "warren-oci")
CGROUPS = Path("/sys/fs/cgroup")
SLEEP = ("/bin/busybox", "sleep", "60")


@pytest.fixture(scope="session")
def probe_program() -> Path:
    """Compiled by the host, where that takes a tenth of the time."""
    return Path(WORK, "probe")


@pytest.fixture(params=RUNTIMES)
def runtime_program(request: pytest.FixtureRequest) -> str:
    return program_of(request.param)


@pytest.fixture(autouse=True)
def not_yet(request: pytest.FixtureRequest) -> None:
    """A module's NOT_YET names the tests that Warren must fail so far, each with the reason."""
    reason = getattr(request.module, "NOT_YET", {}).get(request.node.originalname)
    if reason and request.node.callspec.params["runtime_program"] == "warren-oci":
        request.node.add_marker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))


@pytest.fixture
def bundle(new_bundle: Callable[[], Bundle]) -> Bundle:
    """A root file system with busybox and the probe; a cgroup namespace and its cgroups mounted, as engines ask for."""
    bundle = new_bundle()
    shutil.copy("/bin/busybox", bundle.rootfs / "bin/busybox")
    (bundle.rootfs / "bin/sh").symlink_to("busybox")
    bundle.unshares("cgroup")
    return bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")


def program_of(runtime: str) -> str:
    if runtime == "warren-oci":
        return str(PROJECT / ".venv/bin/warren-oci")
    require(runtime)
    return str(shutil.which(runtime, path="/usr/sbin:/usr/bin"))


def box(oci: Runtime, bundle: Bundle, args: Sequence[str] = SLEEP) -> tuple[Container, int]:
    """A running container and its pid; asking `state` for it would start a program, which is slow here."""
    bundle.process["args"] = list(args)
    file = bundle.path / "pid"
    return oci.up(bundle, "--pid-file", file), int(file.read_text())


def cgroup_of(pid: int) -> Path:
    """The directory of a process's cgroup, as the machine sees it."""
    line = Path(f"/proc/{pid}/cgroup").read_text().strip()
    assert line.startswith("0::/") and "\n" not in line, f"not only cgroup v2: {line}"
    return CGROUPS / line.removeprefix("0::/")


def members(cgroup: Path) -> set[int]:
    return {int(pid) for file in cgroup.rglob("cgroup.procs") for pid in file.read_text().split()}


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
