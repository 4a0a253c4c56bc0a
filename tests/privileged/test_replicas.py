"""`run --replicas`: many from one command, and what is left when it is interrupted or killed on its way."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import Result, Room, wait_for
from tests.helpers.warren import PROGRAM

COUNT = 60


class Shell:
    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, *words: str) -> Result:
        return self.room(PROGRAM, *words)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """In the room; a signal reaches the command itself, which nsenter becomes."""
        command = self.room.command(PROGRAM, *words)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.room.env)

    def ids(self, *words: str) -> set[str]:
        return set(self("ps", "--quiet", "--no-trunc", *words).ok().out.split())

    def remove_all(self) -> None:
        if found := self.ids("--all"):
            self("rm", "--force", *found).ok()

    def sweep(self) -> bool:
        return self("run", "--rm", "--network", "none", "small", "true").ok().code == 0

    def leftovers(self) -> str:
        """Whatever there is of any container; the directories themselves stay."""
        data, state = "/var/lib/warren", "/run/warren"
        kept = f"{data}/containers {data}/containers/.names {data}/containers/.brief {data}/images/users"
        return self.room("sh", "-c", f"for d in {kept} {state} {state}/.ids; do ls $d; done").ok().out


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "replicas", token) as room:
        room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        room(PROGRAM, "image", "bootstrap", "busybox", "small").ok()
        room(PROGRAM, "run", "--rm", "--network", "none", "small", "true").ok()
        yield room


@pytest.fixture
def warren(room: Room) -> Iterator[Shell]:
    shell = Shell(room)
    yield shell
    shell.remove_all()
    assert shell.leftovers() == ""


RUN = ("run", "--network", "none", "--replicas", str(COUNT))


def test_a_line_for_each_and_all_of_them_run(warren: Shell) -> None:
    found = warren(*RUN, "--name", "hare", "small", "sleep", "1000").ok().out.split()
    assert len(found) == len(set(found)) == COUNT
    assert warren.ids() == set(found)
    names = warren("ps", "--format", "{{.Names}}").ok().out.split()
    assert set(names) == {f"hare-{number}" for number in range(1, COUNT + 1)}


def test_an_interruption_leaves_those_that_run(warren: Shell) -> None:
    process = warren.start(*RUN, "small", "sleep", "1000")
    assert process.stdout
    first = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    told = {first, *out.split()}
    running = warren.ids()
    assert told <= running == warren.ids("--all")
    assert len(running) < COUNT


@pytest.mark.parametrize("lines", [1, 5, 17, 30])
@pytest.mark.parametrize("options", [(), ("--rm",)])
def test_a_kill_leaves_those_that_run_and_nothing_of_the_others(
    warren: Shell, options: tuple[str, ...], lines: int
) -> None:
    process = warren.start(*RUN, *options, "small", "sleep", "1000")
    assert process.stdout
    told = {process.stdout.readline().strip() for _ in range(lines)}
    process.kill()
    process.communicate(timeout=60)
    # The monitors of those that were not complete end them when they notice; the next command after that removes them.
    wait_for(lambda: warren.sweep() and warren.ids() == warren.ids("--all"), "something is left that does not run")
    assert told <= warren.ids()


MANY = 500 if os.environ.get("WARREN_LONG") else 40


def test_a_crowd_from_its_start_to_its_end(warren: Shell) -> None:
    """Start, ps, stats, stop all; nothing is left."""
    ids = set(warren("run", "--network", "none", "--replicas", str(MANY), "small", "sleep", "1000").ok().out.split())
    assert len(ids) == MANY
    assert warren.ids() == ids
    told = warren("stats", "--no-stream", "--no-trunc", "--format", "{{.ID}} {{.PIDs}}").ok().out.splitlines()
    assert {line.split()[0] for line in told} == ids
    assert {line.split()[1] for line in told} == {"1"}
    warren("stop", "--time", "0", *ids).ok()
    assert warren.ids() == set()
    assert set(warren("ps", "--all", "--format", "{{.State}}").ok().out.split()) == {"exited"}
    warren("rm", *ids).ok()
    assert warren.ids("--all") == set()


def test_a_crowd_whose_monitors_are_killed(warren: Shell) -> None:
    """Their containers end with them; the next command tells how, and clears away those of --rm."""
    kept = set(
        warren("run", "--network", "none", "--replicas", str(MANY // 2), "small", "sleep", "1000").ok().out.split()
    )
    brief = (
        warren("run", "--rm", "--network", "none", "--replicas", str(MANY // 2), "small", "sleep", "1000")
        .ok()
        .out.split()
    )
    pids = [warren("inspect", "--format", "{{.State.Pid}}", *part).ok().out.split() for part in (kept, brief)]
    parents = {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for part in pids for pid in part}
    assert len(parents) == len(kept) + len(brief)
    for monitor in parents:
        os.kill(int(monitor), signal.SIGKILL)
    wait_for(lambda: warren.ids() == set(), "a container lives on without its monitor")
    wait_for(lambda: warren.sweep() and warren.ids("--all") == kept, "one of --rm is left")
    codes = warren("inspect", "--format", "{{.State.ExitCode}}", *kept).ok().out.split()
    assert set(codes) == {"137"}
