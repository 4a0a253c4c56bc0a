"""The harness itself: no guest test that failed, erred or vanished passes on the host, and no machine outlives it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.machines import PROJECT, UserModeLinux
from tests.helpers.vm import Guest

SAMPLES = "tests/vm/guest/samples/outcomes.py"


@pytest.fixture(autouse=True)
def with_user_mode_linux() -> None:
    UserModeLinux().require()


def session(directory: Path, *arguments: str, **env: str) -> str:
    """What another session of pytest prints that runs the samples; its machine lives in `directory`."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--color=no", SAMPLES, *arguments],
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(directory), "CI": "", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_each_outcome_is_carried_out(directory: Path) -> None:
    out = session(directory, "-k", "not unselected")
    outcomes = dict(re.findall(r"^tests.*::(\w+) (\w+)", out, re.MULTILINE))
    assert outcomes == {
        "test_passes": "PASSED",
        "test_fails": "FAILED",
        "test_errors": "ERROR",
        "test_passes_against_expectation": "FAILED",
        "test_fails_as_expected": "XFAIL",
        "test_ends_the_machine": "FAILED",
        "test_comes_too_late": "FAILED",
    }, out
    assert "1 deselected" in out
    assert "printed by the test" in out
    assert "console of user-mode Linux" in out and "[user-mode Linux: exit code" in out
    assert "user-mode Linux: 5 tests in " in out
    assert os.listdir(directory) == []


def test_guest_tests_are_found(directory: Path) -> None:
    """A folder without tests would pass unnoticed beside the other tiers."""
    names = re.findall(r"::test_\w+\[warren-oci\]", session(directory, "tests/vm/guest", "--collect-only", "-qq"))
    assert len(names) > 10


@pytest.mark.parametrize(("ci", "word"), [("true", "8 errors"), ("", "8 skipped")], ids=["in CI", "elsewhere"])
def test_a_host_that_cannot_boot_it_is_told(directory: Path, ci: str, word: str) -> None:
    assert word in session(directory, "-rs", CI=ci, PATH="/nonexistent")


def test_a_silent_machine_is_killed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    machine = UserModeLinux()
    machine.seconds = 0.5
    nodeid = f"{SAMPLES}::test_passes"
    began = time.monotonic()
    guest = Guest(machine, [nodeid])
    assert guest.reports(nodeid) == []
    assert time.monotonic() - began < 10
    assert guest.console().endswith("[user-mode Linux: killed: nothing was heard of it for 0.5 s]")
    guest.stop()
    assert os.listdir(directory) == []
