"""Restart policies and health checks: what the monitor's event program decides, without any command of ours running."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.warren import Warren

PATIENCE = 30.0
"""Seconds until something must have happened; the machine may be busy."""


@pytest.fixture
def name(warren: Warren, token: str, directory: Path) -> Iterator[str]:
    name = f"wrn-{token}-{directory.name[-6:]}"
    yield name
    warren("rm", "--force", name)


def state(warren: Warren, name: str) -> dict[str, Any]:
    (found,) = json.loads(warren("inspect", name).ok().out)
    return {**found["State"], "RestartCount": found["RestartCount"]}


def until(warren: Warren, name: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = state(warren, name)
        if condition(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def ended(found: dict[str, Any]) -> bool:
    return bool(found["Status"] == "exited")


def test_on_failure_tries_so_often(warren: Warren, name: str) -> None:
    warren("run", "-d", "--name", name, "--restart", "on-failure:2", "host", "--", "sh", "-c", "exit 4").ok()
    found = until(warren, name, lambda found: ended(found) and found["RestartCount"] == 2)
    assert (found["ExitCode"], found["Restarting"]) == (4, False)


def test_on_failure_leaves_success_alone(warren: Warren, name: str) -> None:
    warren("run", "-d", "--name", name, "--restart", "on-failure", "host", "--", "true").ok()
    assert until(warren, name, ended)["RestartCount"] == 0
    time.sleep(0.5)
    assert state(warren, name)["RestartCount"] == 0


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_always_starts_it_again_until_it_is_stopped(warren: Warren, name: str, policy: str) -> None:
    warren("run", "-d", "--name", name, "--restart", policy, "host", "--", "sh", "-c", "sleep 0.1").ok()
    until(warren, name, lambda found: found["RestartCount"] >= 2)
    warren("stop", "--time", "0", name).ok()
    count = until(warren, name, ended)["RestartCount"]
    time.sleep(1)
    assert (state(warren, name)["Status"], state(warren, name)["RestartCount"]) == ("exited", count)
    warren("start", name).ok()
    assert state(warren, name)["RestartCount"] == 0


def test_a_container_that_waits_to_be_restarted_says_so(warren: Warren, name: str) -> None:
    warren("run", "-d", "--name", name, "--restart", "always", "host", "--", "false").ok()
    found = until(warren, name, lambda found: found["Status"] == "restarting")
    assert (found["Restarting"], found["Pid"]) == (True, 0)
    warren("rm", "--force", name).ok()
    warren("inspect", name).fails(1, "no such object")


def test_a_container_that_is_killed_is_restarted_but_not_if_its_user_did_it(warren: Warren, name: str) -> None:
    warren("run", "-d", "--name", name, "--restart", "always", "host", "--", "sleep", "1000").ok()
    before = state(warren, name)["Pid"]
    os.kill(before, 9)
    after = until(warren, name, lambda found: found["Running"] and found["Pid"] != before)
    assert after["RestartCount"] == 1
    warren("kill", name).ok()
    until(warren, name, ended)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--restart", "often"], "--restart 'often' is unknown"),
        (["--restart", "always:3"], "number of tries"),
        (["--restart", "on-failure:x"], "number of tries"),
        (["--restart", "always", "--rm"], "exclude each other"),
        (["--health-cmd", "true", "--health-interval", "x"], "--health-interval 'x' is not a duration"),
        (["--health-cmd", "true", "--no-healthcheck"], "exclude each other"),
        (["--health-cmd", "true", "--health-retries", "-1"], "--health-retries -1"),
    ],
)
def test_bad_policies_and_checks(warren: Warren, name: str, words: list[str], problem: str) -> None:
    warren("run", "-d", "--name", name, *words, "host", "--", "true").fails(125, problem)
    warren("inspect", name).fails(1, "no such object")


def health(warren: Warren, name: str) -> dict[str, Any]:
    container = warren("inspect", "--format", "{{.Id}}", name).ok().out.strip()
    found: dict[str, Any] = json.loads(Path(f"/var/lib/warren/containers/{container}/health.json").read_text())
    return found


def test_health_follows_the_check(warren: Warren, name: str, directory: Path) -> None:
    well = directory / "well"
    warren(
        "run", "-d", "--name", name, "--health-cmd", f"echo looked; test -e {directory}/well", "--health-interval",
        "200ms", "--health-retries", "2", "-v", f"{directory}:{directory}", "host", "--", "sleep", "1000",
    ).ok()  # fmt: skip
    assert health(warren, name)["status"] in ("starting", "unhealthy")
    wait_for_health(warren, name, "unhealthy")
    found = health(warren, name)
    assert found["failing"] >= 2
    assert (found["log"][-1]["ExitCode"], found["log"][-1]["Output"]) == (1, "looked\n")
    well.touch()
    wait_for_health(warren, name, "healthy")
    assert health(warren, name)["failing"] == 0
    assert len(health(warren, name)["log"]) <= 5


def wait_for_health(warren: Warren, name: str, status: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while health(warren, name)["status"] != status:
        assert time.monotonic() < deadline, health(warren, name)
        time.sleep(0.05)


def test_a_check_may_open_its_streams_again(warren: Warren, name: str) -> None:
    check = "echo out >/dev/stdout && echo err >/dev/stderr"
    warren("run", "-d", "--name", name, "--health-cmd", check, "--health-interval", "100ms", "--health-retries", "1",
           "host", "--", "sleep", "1000").ok()  # fmt: skip
    wait_for_health(warren, name, "healthy")
    assert health(warren, name)["log"][-1]["Output"] == "out\nerr\n"


def test_a_check_that_takes_too_long_is_killed(warren: Warren, name: str) -> None:
    warren(
        "run", "-d", "--name", name, "--health-cmd", "sleep 1000", "--health-interval", "100ms", "--health-timeout",
        "200ms", "--health-retries", "1", "host", "--", "sleep", "1000",
    ).ok()  # fmt: skip
    wait_for_health(warren, name, "unhealthy")
    last = health(warren, name)["log"][-1]
    assert last["ExitCode"] == -1
    assert "exceeded timeout" in last["Output"]


def test_failures_while_it_starts_do_not_count(warren: Warren, name: str) -> None:
    warren(
        "run", "-d", "--name", name, "--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1",
        "--health-start-period", "1h", "host", "--", "sleep", "1000",
    ).ok()  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while len(health(warren, name)["log"]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert health(warren, name)["status"] == "starting"


def test_a_time_out_of_a_detached_container(warren: Warren, name: str) -> None:
    warren("run", "-d", "--name", name, "--timeout", "0.5", "host", "--", "sleep", "1000").ok()
    assert until(warren, name, ended)["ExitCode"] == 137
