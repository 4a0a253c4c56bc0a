"""`warren audit`: with the defaults everything holds, and each probe fails where its protection is taken away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.container import default_root
from runtime.engine.audit import _ATTEMPTS, _no_directories, keys
from runtime.engine.probing import Prober
from tests.helpers.warren import Warren

RELAXED = [
    "--privileged", "--pid", "host", "--network", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host",
    "--security-opt", "no-new-privileges=false", "--pids-limit", "-1",
]  # fmt: skip


def test_everything_holds_with_the_defaults(warren: Warren) -> None:
    told = json.loads(warren("audit", "--format", "json", "host").ok().out)
    assert (told["grade"], told["failed"], told["relaxed"]) == ("A", 0, [])
    assert [one["key"] for one in told["findings"]] == [key for key, _ in keys()]


def _out_of_this_hosts_power() -> set[str]:
    """What not even root of the host can do here: there is no such file, device or system call."""
    found = set()
    with Prober(None) as prober:
        for _, key, _, question in _ATTEMPTS:
            if "{" not in question and not prober.attempt(question).allowed:
                found.add(key)
    if not list(Path("/sys/fs/cgroup").glob("*/release_agent")):
        found.add("release-agent")
    return found


def test_each_probe_fails_where_its_protection_is_taken_away(warren: Warren) -> None:
    state = default_root()
    result = warren(
        "audit",
        *RELAXED,
        "-v",
        f"{state}:{state}:ro",
        "-v",
        "/sys/fs/cgroup:/sys/fs/cgroup",
        "--format",
        "json",
        "host",
    )
    assert result.code == 1, str(result)
    told = json.loads(result.out)
    held = {one["key"]: one["seen"] for one in told["findings"] if one["passed"]}
    held.pop("descriptors")  # Below.
    assert {key: held[key] for key in held.keys() - _out_of_this_hosts_power()} == {}
    assert told["grade"] == "F"
    assert "--privileged" in told["relaxed"] and "--pid host" in told["relaxed"]


def test_an_open_directory_of_another_file_system_is_found() -> None:
    fd = os.open("/proc/sys", os.O_RDONLY | os.O_DIRECTORY)
    try:
        passed, seen = _no_directories(os.getpid(), None)  # type: ignore[arg-type]
        assert not passed and "/proc/sys" in seen
    finally:
        os.close(fd)


def test_a_container_that_runs_is_audited_as_it_is(warren: Warren, token: str) -> None:
    name = f"audited-{token}"
    warren("run", "-d", "--name", name, "--cap-add", "SYS_ADMIN", "host", "--", "sleep", "100").ok()
    try:
        warren("exec", name, "touch", "/usr/marker").ok()
        result = warren("audit", name)
        assert result.code == 1 and f"{name}: grade" in result.out
        failed = {line.split("  ")[2] for line in result.out.splitlines() if line.startswith("  FAIL")}
        assert "no capability beyond the default" in failed and "no file system can be mounted" in failed
        assert "relaxed: --cap-add SYS_ADMIN" in result.out
        assert warren("exec", name, "find", "/", "-xdev", "-newer", "/usr/marker").ok().out == ""
    finally:
        warren("rm", "-f", name).ok()


def test_a_directory_without_any_program_can_be_audited(warren: Warren, directory: Path) -> None:
    (directory / "empty").mkdir()
    assert "grade A" in warren("audit", "--rootfs", directory / "empty").ok().out


def test_the_suite_that_it_writes_passes_and_can_fail(warren: Warren, tmp_path: Path) -> None:
    suite = tmp_path / "test_isolation.py"
    warren("audit", "--pytest", suite, "host").ok()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and f"{len(keys())} passed" in done.stdout, done.stdout
    warren("audit", "--pytest", suite, "host").fails(125, "file exists")
    suite.write_text(suite.read_text().replace("OPTIONS = {}", 'OPTIONS = {"cap_add": ["SYS_TIME"]}'))
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "no capability beyond the default: 12" in done.stdout, done.stdout


def test_the_library_has_the_same_report() -> None:
    """In a process of its own, as everything of the library: this one would have its guardian until it ends."""
    code = """
import runtime
report = runtime.audit("host", cap_add=["NET_RAW"])
assert [one.key for one in report.failed] == ["raw", "capabilities"], report.failed
assert report.grade == "B" and not report["raw"].passed and report["mount"].passed
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "complaint"), [([], "nothing to audit"), (["host", "true"], "one word too many"), (["no such"], "")]
)
def test_what_cannot_be_audited(warren: Warren, words: list[str], complaint: str) -> None:
    warren("audit", *words).fails(125, complaint)
