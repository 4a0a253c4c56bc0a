"""containerd with its runc shim on the runtime under test, driven by ctr."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import Containerd, Room, wait_for
from tests.helpers.host import require

NUMBERS = itertools.count()
LOOP = ("sh", "-c", "while :; do sleep 0.1; done")


@pytest.fixture(scope="module")
def ctr(session_directory: Path, token: str, runtime_program: str) -> Iterator[Containerd]:
    require("containerd")
    with Room(session_directory / "containerd", token) as room, Containerd(room, runtime_program) as containerd:
        yield containerd


@pytest.fixture
def loop(ctr: Containerd) -> Iterator[str]:
    """A task that runs until it is killed."""
    ctr.run("--detach", "loop", *LOOP).ok()
    yield "loop"
    remove(ctr, "loop")


def remove(ctr: Containerd, name: str) -> None:
    ctr("task", "delete", "--force", name)
    ctr("container", "delete", name).ok()


def status(ctr: Containerd, name: str) -> str:
    rows = [line.split() for line in ctr("task", "ls").ok().out.splitlines()]
    return next((row[2] for row in rows if row[0] == name), "")


def exec(ctr: Containerd, name: str, *command: str, flags: tuple[str, ...] = ()) -> tuple[str, ...]:
    return ("task", "exec", "--exec-id", f"exec-{next(NUMBERS)}", *flags, name, *command)


def test_run_passes_output_and_exit_code(ctr: Containerd) -> None:
    assert ctr.run("--rm", "once", "sh", "-c", "echo out; echo err >&2; exit 6").exits(6, "out\n", "err\n")
    assert ctr("container", "ls", "--quiet").ok().line == ""


def test_a_missing_command_is_told(ctr: Containerd) -> None:
    ctr.run("--rm", "once", "nosuch").exits(1, "OCI runtime create failed", "nosuch", "executable file not found")
    assert ctr("container", "ls", "--quiet").ok().line == ""


def test_run_on_a_terminal(ctr: Containerd) -> None:
    words = ctr.run_words("--rm --tty", "once", "sh", "-c", "until stty size | grep '33 99'; do :; done; tty; exit 4")
    with ctr.room.terminal(*ctr.words(*words)) as (process, terminal):
        assert "/dev/pts/0" in terminal.expect("/dev/")
        assert process.wait(20) == 4


def test_exec(ctr: Containerd, loop: str) -> None:
    done = ctr(*exec(ctr, loop, "sh", "-c", "cat /proc/1/cmdline; id -u; pwd; exit 3",
                     flags=("--user", "1000", "--cwd", "/tmp")))  # fmt: skip
    done.exits(3, "while", "1000\n/tmp\n")
    ctr(*exec(ctr, loop, "nosuch")).exits(1, "OCI runtime exec failed", "executable file not found")


def test_exec_on_a_terminal(ctr: Containerd, loop: str) -> None:
    words = exec(ctr, loop, "sh", "-c", "tty; read line; echo got $line; exit 5", flags=("--tty",))
    with ctr.room.terminal(*ctr.words(*words)) as (process, terminal):
        terminal.expect("/dev/pts/")
        terminal.write("cheese\n")
        terminal.expect("got cheese")
        assert process.wait(20) == 5


def test_detached_exec(ctr: Containerd, loop: str) -> None:
    ctr(*exec(ctr, loop, "sh", "-c", "echo here > /tmp/mark; sleep 60", flags=("--detach",))).ok()
    wait_for(lambda: "here" in ctr(*exec(ctr, loop, "cat", "/tmp/mark")).out, "the detached command has not run")


def test_kill_with_a_signal_that_the_program_handles(ctr: Containerd) -> None:
    ctr.run("--detach", "handler", "sh", "-c", "trap 'exit 9' HUP; echo; while :; do sleep 0.1; done").ok()
    # The shell may not have set its trap yet; a signal that init has no handler for is ignored in its namespace.
    wait_for(
        lambda: ctr("task", "kill", "--signal", "HUP", "handler") and status(ctr, "handler") == "STOPPED", "still runs"
    )
    ctr("task", "delete", "handler").exits(0, "exit code 9")
    ctr("container", "delete", "handler").ok()


def test_kill_all_reaches_every_process(ctr: Containerd) -> None:
    ctr.run("--detach", "many", "sh", "-c", "sleep 100 & sleep 100 & wait").ok()
    ctr("task", "kill", "--all", "--signal", "KILL", "many").ok()
    wait_for(lambda: status(ctr, "many") == "STOPPED", "still runs")
    remove(ctr, "many")


def test_a_second_kill_is_told(ctr: Containerd, loop: str) -> None:
    ctr("task", "kill", "--signal", "KILL", loop).ok()
    wait_for(lambda: status(ctr, loop) == "STOPPED", "still runs")
    ctr("task", "kill", "--signal", "KILL", loop).exits(1, "process already finished: not found")


def test_pause_and_resume(ctr: Containerd, loop: str) -> None:
    ctr("task", "pause", loop).ok()
    assert status(ctr, loop) == "PAUSED"
    ctr("task", "resume", loop).ok()
    assert status(ctr, loop) == "RUNNING"
    assert ctr(*exec(ctr, loop, "echo", "awake")).ok().line == "awake"


def test_a_running_task_is_deleted_by_force_only(ctr: Containerd, loop: str) -> None:
    ctr("task", "delete", loop).exits(1, "task must be stopped before deletion")
    ctr("task", "delete", "--force", loop).ok()
    assert status(ctr, loop) == ""


def test_processes(ctr: Containerd, loop: str) -> None:
    pids = [line.split()[0] for line in ctr("task", "ps", loop).ok().out.splitlines()[1:]]
    listed = next(line.split()[1] for line in ctr("task", "ls").out.splitlines() if line.startswith(loop))
    assert listed in pids


def metrics(ctr: Containerd, name: str) -> dict[str, int]:
    rows = re.findall(r"^(\S+) +(\d+)", ctr("task", "metrics", name).ok().out, re.M)
    return {key: int(value) for key, value in rows}


def test_metrics(ctr: Containerd, loop: str) -> None:
    found = metrics(ctr, loop)
    assert found["pids.current"] in (1, 2), found
    assert found.get("memory.usage_in_bytes") or found.get("memory.usage"), found


def test_a_memory_limit(ctr: Containerd) -> None:
    ctr.run("--detach --memory-limit 33554432", "limited", *LOOP).ok()
    found = metrics(ctr, "limited")
    assert 33554432 in (found.get("memory.limit_in_bytes"), found.get("memory.usage_limit")), found
    remove(ctr, "limited")


def test_mounts(ctr: Containerd, directory: Path) -> None:
    (directory / "file").write_text("of the host")
    flags = f"--rm --mount type=bind,src={directory},dst=/data,options=rbind:ro --read-only"
    done = ctr.run(flags, "mounts", "sh", "-c", "cat /data/file; touch /data/x; touch /x")
    done.exits(1, "of the host", "/data/x: Read-only file system", "/x: Read-only file system")


def test_containers_survive_a_restart_of_containerd(directory: Path, token: str, runtime_program: str) -> None:
    require("containerd")
    with Room(directory / "restarted", token) as room, Containerd(room, runtime_program) as ctr:
        for name in ("first", "second"):
            ctr.run("--detach", name, *LOOP).ok()
        ctr.stop()
        ctr.start()
        _found_again(ctr)


def _found_again(ctr: Containerd) -> None:
    assert [status(ctr, name) for name in ("first", "second")] == ["RUNNING", "RUNNING"]
    ctr(*exec(ctr, "first", "sh", "-c", "echo inside; exit 2")).exits(2, "inside\n")
    ctr("task", "kill", "--signal", "TERM", "second").ok()
    ctr("task", "pause", "first").ok()
    ctr("task", "resume", "first").ok()
    for name in ("first", "second"):
        ctr("task", "kill", "--signal", "KILL", name).ok()
        wait_for(lambda name=name: status(ctr, name) == "STOPPED", f"{name} still runs")  # type: ignore[misc]
        ctr("task", "delete", name).exits(0, "137")
        ctr("container", "delete", name).ok()
