"""A unit of `generate systemd`, started and stopped by systemd itself; the machine's / is read-only."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle
from tests.helpers.warren import Warren

from .conftest import shown

UNITS = Path("/run/systemd/system")


@pytest.fixture
def runtime_program() -> str:
    """Nobody else has these commands."""
    return "warren"


@pytest.fixture
def warren() -> Iterator[Warren]:
    """With a place for data of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"], check=True)
    yield Warren()
    subprocess.run(["umount", "/var/lib"], check=True)


def systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("new", [False, True], ids=["start", "new"])
def test_systemd_starts_restarts_and_stops_it(warren: Warren, bundle: Bundle, token: str, new: bool) -> None:
    name, script = f"wrn-{token}", "echo up >> /log; trap 'echo down >> /log; exit' TERM; while :; do sleep 1; done"
    log = bundle.rootfs / "log"
    options = ("--network", "none", "--write", "--rootfs", bundle.rootfs)
    warren("create", "--name", name, *options, "sh", "-c", script).ok()
    flags = ["--new"] * new
    text = warren("generate", "systemd", "-n", "-t", "20", "--restart-policy", "always", *flags, name).ok().out
    unit = UNITS / f"container-{name}.service"
    # What a real machine needs to boot would mount a /tmp over that of the tests (tests/helpers/systemd.sh).
    unit.write_text(text.replace("[Unit]", "[Unit]\nDefaultDependencies=no"))
    try:
        systemctl("daemon-reload")
        systemctl("start", unit.name)
        wait_for(log, "up\n")
        assert shown(unit.name, "ActiveState")["ActiveState"] == "active"
        warren("kill", name).ok()
        wait_for(log, "up\nup\n")
        systemctl("stop", unit.name)
        assert log.read_text() == "up\nup\ndown\n"
        assert shown(unit.name, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    finally:
        unit.unlink()
        systemctl("daemon-reload")
        warren("rm", "-f", name)


def wait_for(path: Path, content: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and path.read_text() == content:
            return
        time.sleep(0.2)
    pytest.fail(f"{path}: {path.read_text() if path.exists() else 'is not there'}")
