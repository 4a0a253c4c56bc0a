"""Limits for an ordinary user who has been given no cgroup: refused, or noted where best effort is asked for."""

import json
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.users import User
from tests.helpers.warren import PROGRAM

LIMITS = [
    ("--memory", "64m", "memory.limit"),
    ("--cpus", "0.5", "cpu.quota"),
    ("--pids-limit", "50", "pids.limit"),
    ("--cpuset-cpus", "0", "cpu.cpus"),
]
RUN = """
import json, sys
import runtime
options = json.loads(sys.argv[1])
try:
    done = runtime.run("host", ["true"], **options)
    print(json.dumps([done.returncode, done.enforced, done.oom_killed]))
except runtime.UnsupportedError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(autouse=True)
def without_cgroup(user: User) -> None:
    done = user.run(PROGRAM, "doctor", "--format", "json")
    if next(entry for entry in json.loads(done.stdout) if entry["name"] == "cgroup")["ok"]:
        require("users-without-cgroups")


@pytest.mark.parametrize(("option", "value", "limit"), LIMITS)
def test_a_limit_is_refused_in_one_line(user: User, option: str, value: str, limit: str) -> None:
    done = user.run(PROGRAM, "run", option, value, "host", "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("warren: ") and limit in line and line.endswith(")"), line


def test_a_device_rule_is_refused(user: User) -> None:
    done = user.run(PROGRAM, "run", "--device-cgroup-rule", "c 1:1 r", "host", "--", "true")
    assert done.returncode == 125
    assert "--device-cgroup-rule" in done.stderr and len(done.stderr.splitlines()) == 1


def test_with_best_effort_it_runs(user: User) -> None:
    words = [word for option, value, _ in LIMITS for word in (option, value)]
    done = user.run(PROGRAM, "run", *words, "--best-effort", "host", "--", "echo", "up")
    assert (done.returncode, done.stdout) == (0, "up\n"), done.stderr


def test_enforced_says_what_is_not(user: User, directory: Path) -> None:
    def run(**options: object) -> object:
        done = user.run(PROGRAM.with_name("python3"), "-c", RUN, json.dumps(options), cwd=directory)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    limits = {"memory": "64m", "cpus": "0.5", "pids": 50}
    assert isinstance(run(**limits), str)
    code, enforced, killed = run(**limits, strict=False)  # type: ignore[misc]
    assert (code, killed) == (0, False)
    for name in ("memory.limit", "cpu.quota", "pids.limit"):
        assert enforced[name] == "not enforced: no cgroup"
    # The default, which nobody asked for, is given up and told of.
    assert "not the default of 1024" in run()[1]["pids_limit"]  # type: ignore[index]


def test_doctor_says_so(user: User) -> None:
    done = user.run(PROGRAM, "doctor")
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "the caller may not make one" in line]
    assert line.split()[:2] == ["no", "cgroup"] and "limits are refused" in line
