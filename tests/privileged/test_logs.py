"""`warren logs`: what containers have said and are saying, and what becomes of it when something breaks."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.rooms import own_store
from tests.helpers.warren import Warren

STATE, CONTAINERS = Path("/run/warren"), Path("/var/lib/warren/containers")


@pytest.fixture
def name(warren: Warren, token: str) -> Iterator[str]:
    """Of a container that is removed after the test."""
    found = f"wrn-{token}-log"
    yield found
    warren("rm", "--force", "--volumes", found).ok()


def until(condition: Callable[[], object], what: str, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def start(warren: Warren, name: str, script: str, *options: str) -> str:
    return warren("run", "-d", "--name", name, *options, "host", "--", "sh", "-c", script).ok().out.strip()


@pytest.mark.parametrize("driver", ["json-file", "k8s-file"])
def test_each_stream_comes_where_it_went(warren: Warren, name: str, driver: str) -> None:
    script = "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf 'three\\nrest'"
    start(warren, name, script, "--log-driver", driver)
    assert warren("wait", name).ok().out == "0\n"
    shown = warren("logs", name).ok()
    assert (shown.out, shown.err) == ("one\nthree\nrest", "two\n")
    assert warren("logs", "--tail", "1", name).ok().out == "rest"
    assert warren("logs", "-n", "0", name).ok().out == ""
    stamped = warren("logs", "-t", name).ok()
    first, second, third = [*stamped.out.split("\n")[:2], stamped.err]
    assert first.split()[0] < third.split()[0] < second.split()[0]
    assert first.endswith("Z one")
    assert warren("logs", "--since", second.split()[0], name).ok().out == "three\nrest"
    assert warren("logs", "--until", first.split()[0], name).ok().out == "one\n"
    assert warren("logs", "--since", "1h", "--details", name).ok().out == shown.out


@pytest.fixture
def pair(warren: Warren, name: str) -> Iterator[tuple[str, str]]:
    names = f"{name}-a", f"{name}-b"
    yield names
    warren("rm", "--force", *names).ok()


def test_several_at_once_as_podman_tells_them(warren: Warren, pair: tuple[str, str]) -> None:
    """In the order of time; each line says whose it is, and none is torn by another's."""
    script = "echo {0} first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo {0} later; echo {0} err >&2"
    ids = [
        start(warren, name, f"{script}; printf '{{0}} no end'".format(one))
        for name, one in zip(pair, "ab", strict=True)
    ]
    for name in reversed(pair):
        warren("exec", name, "touch", "/tmp/go").ok()
        warren("wait", name).ok()
    lines = ["a first", "b first", "b later", "b no end", "a later", "a no end"]
    owner = dict(zip("ab", ids, strict=True))
    shown = warren("logs", *pair).ok()
    assert shown.out.splitlines() == [f"{owner[line[0]][:12]} {line}" for line in lines]
    assert shown.err.splitlines() == [f"{owner[one][:12]} {one} err" for one in "ba"]
    owner = dict(zip("ab", pair, strict=True))
    assert warren("logs", "--names", *pair).ok().out.splitlines() == [f"{owner[line[0]]} {line}" for line in lines]
    coloured = warren("logs", "--color", "--names", *pair).ok().out.splitlines()
    assert [line.partition("m")[2].removesuffix("\x1b[0m") for line in coloured] == [
        f"{owner[x[0]]} {x}" for x in lines
    ]
    assert len({line.partition("m")[0] for line in coloured}) == 2
    assert warren("logs", "--tail", "1", "--names", *pair).ok().out.splitlines() == [
        f"{owner[line[0]]} {line}" for line in ("b no end", "a no end")
    ]
    stamped = warren("logs", "-t", "--names", *pair).ok().out.splitlines()
    times = [line.split()[1] for line in stamped]
    assert times == sorted(times) and times[0].endswith("Z")
    assert warren("logs", "--names", "--color", pair[0]).ok().out.startswith("\x1b[")
    assert warren("logs", "--names", pair[0]).ok().out == "a first\na later\na no end"
    warren("logs", pair[0], "no-such").fails(1, "no-such")


def test_several_are_followed_to_the_end_of_the_last(warren: Warren, pair: tuple[str, str]) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo {0} $i; printf {0}-; sleep {1}; done; echo"
    for name, one, wait in zip(pair, "ab", ("0.05", "0.15"), strict=True):
        start(warren, name, script.format(one, wait))
    with warren.popen("logs", "--follow", "--names", *pair) as follower:
        out, err = follower.communicate(timeout=30)
    assert follower.returncode == 0, err
    for name, one in zip(pair, "ab", strict=True):
        own = [line.partition(" ")[2] for line in out.splitlines() if line.startswith(name + " ")]
        assert own == [f"{one} 1", *(f"{one}-{one} {i}" for i in range(2, 9)), f"{one}-"]


def test_a_terminal_has_one_stream(warren: Warren, name: str) -> None:
    start(warren, name, "echo out; echo err >&2", "-t")
    warren("wait", name).ok()
    shown = warren("logs", name).ok()
    assert (shown.out, shown.err) == ("out\nerr\n", "")  # Text mode: \r\n is \n.


@pytest.mark.parametrize("options", [["max-file=100"], []], ids=["rotated", "begun anew"])
def test_following_through_rotations_to_the_end(warren: Warren, name: str, options: list[str]) -> None:
    words = [word for option in ["max-size=4k", *options] for word in ("--log-opt", option)]
    start(warren, name, "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.005; done; exit 3", *words)
    with warren.popen("logs", "-f", name) as follower:
        out, err = follower.communicate(timeout=60)
    assert follower.returncode == 0, err
    numbers = [int(line.split()[1]) for line in out.splitlines()]
    if options:
        assert numbers == list(range(1, 401))
        found = CONTAINERS / warren("inspect", "-f", "{{.Id}}", name).ok().out.strip()
        assert len(list(found.glob("log.*"))) > 3
    else:
        # One file only: what it held before it was begun anew is gone for whoever comes late.
        assert numbers[-1] == 400
        assert numbers == sorted(numbers)
    assert warren("wait", name).ok().out == "3\n"
    assert warren("logs", "-f", "-n", "1", name).ok().out == "line 400\n"


def test_no_more_files_than_asked_for(warren: Warren, name: str) -> None:
    start(warren, name, "seq 1 20000", "--log-opt", "max-size=10k", "--log-opt", "max-file=3")
    warren("wait", name).ok()
    found = CONTAINERS / warren("inspect", "-f", "{{.Id}}", name).ok().out.strip()
    assert sorted(path.name for path in found.glob("log*")) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 10240 for path in found.glob("log*"))
    shown = [int(line) for line in warren("logs", name).ok().out.split()]
    assert shown == list(range(shown[0], 20001))


def test_following_shows_output_at_once_and_stops_at_until(warren: Warren, name: str) -> None:
    start(warren, name, "echo up; sleep 1000")
    with warren.popen("logs", "--follow", name) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "up\n"
        warren("exec", name, "sh", "-c", "echo more >/proc/1/fd/1").ok()
        assert follower.stdout.readline() == "more\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130
    moment = str(time.time() + 1)
    assert warren("logs", "--follow", "--until", moment, name, timeout=20).ok().out == "up\nmore\n"


def test_without_a_log(warren: Warren, name: str) -> None:
    start(warren, name, "echo lost", "--log-driver", "none")
    warren("logs", name).fails(1, "has no log", "--log-driver none")


@pytest.mark.parametrize(
    "words", [["--tail", "x"], ["--since", "soon"], ["--until", "2026-02-31"], ["--since", "99999999999999"]]
)
def test_bad_values(warren: Warren, name: str, words: list[str]) -> None:
    start(warren, name, "true")
    warren("logs", *words, name).fails(125, words[0])


def test_a_removed_container_ends_its_followers(warren: Warren, token: str) -> None:
    name = f"wrn-{token}-gone"
    start(warren, name, "echo up; sleep 1000")
    with warren.popen("logs", "-f", name) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "up\n"
        warren("rm", "-f", name).ok()
        assert follower.wait(20) == 0


def test_many_lines_come_whole(warren: Warren, name: str) -> None:
    start(warren, name, "seq 1 200000")
    assert warren("logs", "-f", name).ok().out == "".join(f"{number}\n" for number in range(1, 200001))


# ---- what breaks


def test_a_full_disk_stops_no_container_and_the_loss_is_told() -> None:
    with own_store("1m") as (warren, prefix):
        subprocess.run([*prefix, "fallocate", "-l", "400k", "/var/lib/warren/ballast"], check=True)
        script = "yes | head -c 2000000; echo written >&2; touch /tmp/done; while [ ! -e /tmp/go ]; do sleep 0.05; done"
        warren("run", "-d", "--name", "full", "host", "--", "sh", "-c", f"{script}; echo after; exit 5").ok()
        until(lambda: warren("exec", "full", "test", "-e", "/tmp/done").code == 0, "a full disk holds it up")
        found = warren("inspect", "full").ok()
        assert json.loads(found.out)[0]["State"]["Status"] == "running"
        # Room again: what follows is in the log, and that something is missing.
        subprocess.run([*prefix, "rm", "/var/lib/warren/ballast"], check=True)
        warren("exec", "full", "touch", "/tmp/go").ok()
        assert warren("wait", "full").ok().out == "5\n"
        shown = warren("logs", "full").ok()
        assert shown.out.endswith("after\n")
        assert "bytes of output were lost: no space left on device" in shown.err
        lost = json.loads(warren("inspect", "full").ok().out)[0]["LogLost"]
        assert 0 < lost < 2000000
        warren("rm", "full").ok()


def test_a_disk_that_stays_full_keeps_the_exit_code() -> None:
    with own_store("512k") as (warren, _):
        warren("run", "-d", "--name", "full", "host", "--", "sh", "-c", "yes | head -c 2000000; exit 5").ok()
        assert warren("wait", "full").ok().out == "5\n"
        assert warren("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "full").ok().out == "5 exited\n"
        assert "bytes of output were lost" in warren("logs", "full").ok().err
        warren("rm", "full").ok()


def test_a_read_only_store_is_an_error_of_one_line() -> None:
    with own_store() as (warren, prefix):
        made = warren("create", "--name", "made", "host", "--", "true").ok().out.strip()
        subprocess.run([*prefix, "mount", "-o", "remount,ro", "/var/lib/warren"], check=True)
        warren("run", "host", "--", "true").fails(125, "ead-only file system")
        warren("start", "made").fails(125, "ead-only file system")
        subprocess.run([*prefix, "mount", "-o", "remount,rw", "/var/lib/warren"], check=True)
        assert not subprocess.run([*prefix, "ls", "/run/warren"], capture_output=True, text=True, check=True).stdout
        assert warren("start", "-a", "made").ok().code == 0
        assert warren("inspect", "-f", "{{.Id}}", "made").ok().out.strip() == made


def test_a_monitor_that_is_killed_takes_its_container_and_leaves_its_log(warren: Warren, name: str) -> None:
    found = start(warren, name, "echo said; sleep 1000")
    until(lambda: warren("logs", name).ok().out == "said\n", "it says nothing")
    pid = int(warren("inspect", "-f", "{{.State.Pid}}", name).ok().out)
    with warren.popen("logs", "-f", name) as follower:
        os.kill(int(os.readlink(STATE / found / "monitor").split()[0]), signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists(), "the container goes on without its monitor")
        assert follower.wait(20) == 0
    assert warren("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).ok().out == "exited 137\n"
    assert warren("wait", name).ok().out == "137\n"
    assert warren("logs", name).ok().out == "said\n"
    warren("run", "host", "--", "true").ok()
    assert not (STATE / found).exists()
    warren("start", name).ok()
    warren("stop", "-t", "0", name).ok()
    assert warren("logs", name).ok().out == "said\nsaid\n"
