"""The leak check itself: it sees what is left behind on purpose, and nothing else."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import conftest
from tests.helpers import host, leaks, processes


def cgroup_root() -> Path:
    """A hierarchy in which this process may make cgroups."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = Path(line.split()[4])
        if line.split(" - ", 1)[1].split()[0] in ("cgroup", "cgroup2") and os.access(target, os.W_OK):
            return target
    pytest.skip(f"{host.PREFIX}root: no writable cgroup hierarchy")


def test_nothing_left_is_no_leak(token: str, directory: Path) -> None:
    before = leaks.Snapshot(token)
    subprocess.run(["true"], check=True)
    (directory / "file").write_text("a file in the test's own directory is no leak")
    assert leaks.check(before, directory) is None


def test_a_process_is_seen(token: str, directory: Path) -> None:
    before = leaks.Snapshot(token)
    with subprocess.Popen(["sleep", "60"]) as process:
        found = leaks.check(before, directory, settle=0)
        assert found and [leak.pid for leak in found.processes] == [process.pid]
        assert f"process: pid {process.pid} (sleep 60)" in str(found)
        found.remove()
        assert process.wait(5) == -9


def test_an_orphan_is_seen(token: str) -> None:
    """Its parents are gone, its session and its environment are its own: it is still a descendant of the reaper."""
    before = leaks.Snapshot(token)
    subprocess.run("setsid env -i sleep 60 >/dev/null 2>&1 &", shell=True, check=True)
    found = leaks.check(before, settle=0.2)
    assert found and [leak.name for leak in found.processes] == ["sleep"]
    found.remove()
    assert leaks.check(before) is None


def test_others_processes_are_no_leak(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What neither descends from the tests nor carries their mark is somebody else's."""
    before = leaks.Snapshot(token)
    monkeypatch.setattr(processes, "_roots", {1})
    with subprocess.Popen(["sleep", "60"], env={}) as process:
        table = {p.pid: p for p in processes.everything()}
        monkeypatch.setattr(processes, "_roots", {0x7FFFFFFF})
        assert not processes.descends(table[process.pid], table)
        found = leaks.check(before, settle=0)
        process.kill()
    assert not found or process.pid not in [leak.pid for leak in found.processes]


def test_the_mark_tells_what_is_ours(token: str) -> None:
    environment = {processes.MARKER: token}
    with (
        subprocess.Popen(["sleep", "60"], env=environment) as marked,
        subprocess.Popen(["sleep", "60"], env={}) as other,
    ):
        assert processes.marked(marked.pid, token) and not processes.marked(other.pid, token)
        marked.kill()
        other.kill()


def test_a_state_directory_is_seen(token: str, directory: Path) -> None:
    before = leaks.Snapshot(token, (directory,))
    (directory / "stray").mkdir()
    found = leaks.check(before, settle=0)
    assert found and found.things["state"] == [str(directory / "stray")]
    found.remove()
    assert leaks.check(before, settle=0) is None


def test_a_cgroup_is_seen(token: str) -> None:
    before = leaks.Snapshot(token)
    stray = cgroup_root() / f"warren-stray-{token}"
    stray.mkdir()
    try:
        found = leaks.check(before, settle=0)
        assert found and str(stray) in found.things["cgroup"]
        found.remove()
        assert not stray.exists()
    finally:
        if stray.exists():
            stray.rmdir()


def test_a_mount_is_seen(token: str, directory: Path) -> None:
    host.require("root")
    before = leaks.Snapshot(token)
    subprocess.run(["mount", "-t", "tmpfs", "stray", directory], check=True)
    found = leaks.check(before, directory, settle=0)
    assert found and f"mount: {directory} / tmpfs" in str(found)
    found.remove()
    assert leaks.check(before, directory, settle=0) is None


def test_what_goes_away_soon_is_no_leak(token: str) -> None:
    before = leaks.Snapshot(token)
    with subprocess.Popen(["sleep", "0.3"]):
        assert leaks.check(before) is None


def test_a_silent_skip_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(reason: str) -> str:
        report = pytest.TestReport("x", ("x", 0, "x"), {}, "skipped", ("x", 1, reason), "setup")
        conftest._no_silent_skip(report)
        return report.outcome

    assert outcome("Skipped: not today") == "skipped" or host.STRICT
    monkeypatch.setattr(conftest, "STRICT", True)
    assert outcome("Skipped: not today") == "failed"
    assert outcome("Skipped: host lacks kvm: there is no /dev/kvm") == "skipped"


@pytest.mark.parametrize(
    ("reason", "allowed"),
    [
        ("Skipped: host lacks kvm: there is no /dev/kvm", True),
        ("host lacks root: the tests run as an ordinary user", True),
        ("Skipped: not today", False),
        ("host lacks coffee: it is late", False),
        ("", False),
    ],
)
def test_which_skips_are_allowed_in_ci(reason: str, allowed: bool) -> None:
    assert host.is_host_lack(reason) == allowed
