"""Limits by their effect.  runc and crun prove each test; NOT_YET lists what Warren still refuses or leaves out.

An entry of NOT_YET is a strict expectation: whoever makes Warren hold a limit deletes its line.
"""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.oci import Bundle, Container, Runtime

from .conftest import box, cgroup_of, wait_for

MEGABYTE = 1 << 20
DISK, OTHER = (98, 0), (7, 0)
"""Numbers of the machine's scratch disk, ubda, and of another block device, loop0."""

NOT_YET: dict[str, str] = {}


def limited(oci: Runtime, bundle: Bundle, script: str, **resources: Any) -> tuple[Container, int, Path]:
    """A container under these resources, its pid and its cgroup's directory."""
    bundle.linux["resources"].update(resources)
    container, pid = box(oci, bundle, ["/bin/sh", "-c", script])
    return container, pid, cgroup_of(pid)


def events(file: Path) -> dict[str, int]:
    return {name: int(count) for name, count in map(str.split, file.read_text().splitlines())}


def seconds_run(pid: int) -> float:
    """Seconds of CPU time that a process has had (sched-stats.rst: nanoseconds come first)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def node(path: str, number: tuple[int, int]) -> dict[str, Any]:
    return {"path": path, "type": "b", "major": number[0], "minor": number[1], "fileMode": 0o666}


def rule(number: tuple[int, int], access: str) -> dict[str, Any]:
    return {"allow": True, "type": "b", "major": number[0], "minor": number[1], "access": access}


def test_a_process_over_memory_max_is_killed(oci: Runtime, bundle: Bundle) -> None:
    touch = "dd if=/dev/zero of=/dev/null count=1 bs"
    script = f"{touch}=16M; echo small $?; {touch}=64M; echo large $?; exec sleep 60"
    limit = {"limit": 32 * MEGABYTE, "swap": 32 * MEGABYTE}
    container, _, cgroup = limited(oci, bundle, script, memory=limit)
    assert container.expect("large").split() == ["small", "0", "large", "137"]
    assert events(cgroup / "memory.events")["oom_kill"] == 1


def test_a_fork_bomb_stops_at_pids_max(oci: Runtime, bundle: Bundle) -> None:
    script = "sh -c 'bomb() { bomb | bomb & }; bomb' 2>/dev/null; exec sleep 60"
    container, _, cgroup = limited(oci, bundle, script, pids={"limit": 16})
    wait_for(lambda: events(cgroup / "pids.events")["max"] > 3)
    assert 8 < int((cgroup / "pids.peak").read_text()) <= 16
    container.delete("--force").ok()
    assert not cgroup.exists()


def test_a_busy_loop_gets_its_share(oci: Runtime, bundle: Bundle) -> None:
    _, pid, _ = limited(oci, bundle, "while :; do :; done", cpu={"quota": 20000, "period": 100000})
    began, before = time.monotonic(), seconds_run(pid)
    time.sleep(3)
    share = (seconds_run(pid) - before) / (time.monotonic() - began)
    assert share == pytest.approx(0.20, abs=0.03)


def test_frozen_tasks_do_not_run(oci: Runtime, bundle: Bundle) -> None:
    container, pid, _ = limited(oci, bundle, "while :; do :; done")
    oci("pause", container.id).ok()
    assert container.status == "paused"
    before = seconds_run(pid)
    time.sleep(0.5)
    assert seconds_run(pid) == before
    oci("resume", container.id).ok()
    wait_for(lambda: seconds_run(pid) > before)


def test_a_write_is_slowed_down_to_io_max(oci: Runtime, bundle: Bundle) -> None:
    """2 MB at 1 MB a second; outside the container the same write is fast."""
    write = "dd if=/dev/zero of=/dev/{} bs=64k count=32 oflag=direct 2>/dev/null"
    began = time.monotonic()
    subprocess.run(write.format("ubda"), shell=True, check=True)
    assert time.monotonic() - began < 1
    bundle.linux["devices"] = [node("/dev/disk", DISK)]
    bundle.linux["resources"]["devices"].append(rule(DISK, "w"))
    rate = {"major": DISK[0], "minor": DISK[1], "rate": MEGABYTE}
    script = f"echo ready; {write.format('disk')}; echo written $?; exec sleep 60"
    container, _, _ = limited(oci, bundle, script, blockIO={"throttleWriteBpsDevice": [rate]})
    container.expect("ready")
    began = time.monotonic()
    assert "written 0" in container.expect("written")
    assert 1.3 < time.monotonic() - began < 4


def test_an_allowed_device_opens_and_no_other(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [node("/dev/disk", DISK), node("/dev/other", OTHER)]
    bundle.linux["resources"]["devices"].append(rule(DISK, "r"))
    answers = oci.ask(bundle, "access r /dev/disk", "access w /dev/disk", "access r /dev/other", "access w /dev/null")
    assert list(map(answers.one, answers.lines)) == ["OK", "EPERM", "EPERM", "OK"]


def test_devices_are_denied_by_default(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [node("/dev/disk", DISK)]
    answers = oci.ask(bundle, "access r /dev/disk", "access r /dev/zero")
    assert list(map(answers.one, answers.lines)) == ["EPERM", "OK"]
