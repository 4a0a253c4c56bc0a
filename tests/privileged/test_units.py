"""`generate systemd`: systemd takes the unit, and what is in it starts and stops the container."""

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, Result, Room, make_image
from tests.helpers.engines import OWN_PODMAN
from tests.helpers.host import require
from tests.helpers.warren import PROGRAM


class Shell:
    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, *words: str | Path) -> Result:
        return self.room(PROGRAM, *words)


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "units", token) as room:
        room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        Shell(room)("load", "--input", make_image(session_directory / "units.tar")).ok()
        yield room


@pytest.fixture
def warren(room: Room) -> Iterator[Shell]:
    shell = Shell(room)
    yield shell
    for name in room("ls", "/var/lib/warren/containers/.names").ok().out.split():
        shell("rm", "-f", "-v", name).ok()


def verify(text: str, name: str, directory: Path) -> None:
    require("systemd-analyze")
    (directory / name).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", directory / name], capture_output=True, text=True)
    assert done.returncode == 0 and name not in done.stderr, done.stderr


def command(text: str, key: str) -> list[str]:
    """A command line of a unit, as systemd reads it."""
    (line,) = re.findall(rf"^{key}=-?(.*)$", text, re.MULTILINE)
    return [word.replace("$$", "$").replace("%%", "%").replace("\\n", "\n") for word in shlex.split(line)]


def wait_for(warren: Shell, name: str, status: str) -> None:
    for _ in range(100):
        if warren("inspect", "-f", "{{.State.Status}}", name).line == status:
            return
        time.sleep(0.05)
    pytest.fail(f"{name} is not {status}")


def test_a_unit_of_a_container_that_is_there(warren: Shell, directory: Path) -> None:
    identity = (
        warren("create", "--name", "wrn-unit", "--stop-timeout", "1", IMAGE, "sh", "-c", "sleep 1000; exit 3").ok().line
    )
    text = warren("generate", "systemd", "wrn-unit").ok().out
    verify(text, f"container-{identity}.service", directory)
    assert command(text, "ExecStart") == [str(PROGRAM), "start", "--attach", identity]
    assert "TimeoutStopSec=61" in text and "Restart=on-failure" in text
    start = warren.room.command(*command(text, "ExecStart"))
    with subprocess.Popen(start, env=warren.room.env, stdout=subprocess.PIPE) as main:
        wait_for(warren, "wrn-unit", "running")
        warren.room(*command(text, "ExecStop")).ok()
        assert main.wait(20) == 137
    wait_for(warren, "wrn-unit", "exited")


def test_a_unit_that_makes_a_new_container(warren: Shell, directory: Path) -> None:
    script = 'echo "$A"; exit 7'
    words = ("-dit", "--name", "wrn-new", "-e", 'A=b $c %d "q"\n\\', "-v", "wrn-v:/data", "--restart", "no")
    warren("create", *words[1:], IMAGE, "sh", "-c", script).ok()
    text = warren("generate", "systemd", "--new", "--name", "-t", "3", "--restart-policy", "always", "wrn-new").ok().out
    verify(text, "container-wrn-new.service", directory)
    start = command(text, "ExecStart")
    assert start[1:6] == ["run", "--name", "wrn-new", "--replace", "--rm"]
    assert not {"--detach", "--tty", "--interactive"} & set(start)
    done = warren.room(*start)
    assert (done.code, done.out) == (7, 'b $c %d "q"\n\\\n')
    warren("inspect", "wrn-new").exits(1, "no such object")
    assert command(text, "ExecStopPost")[1:] == ["rm", "--force", "--volumes", "wrn-new"]
    warren.room(*command(text, "ExecStopPost")).ok()


def test_files_and_names(warren: Shell, directory: Path) -> None:
    warren("create", "--name", "wrn-file", IMAGE, "true").ok()
    words = ("generate", "systemd", "-f", "-n", "--container-prefix", "c", "--separator", "_", "--restart-sec", "5")
    done = warren.room("sh", "-c", f'cd "$1" && shift && exec {PROGRAM} "$@"', "sh", directory, *words, "wrn-file")
    path = directory / "c_wrn-file.service"
    assert done.ok().line == str(path)
    assert "RestartSec=5" in path.read_text()
    extra = ("--wants", "a.service", "--after", "b.service", "--requires", "c.service", "--no-header")
    text = warren("generate", "systemd", *extra, "wrn-file").ok().out
    assert text.startswith("[Unit]\n")
    assert "Wants=network-online.target a.service" in text and "Requires=c.service" in text
    warren("generate", "systemd", "--restart-policy", "sometimes", "wrn-file").exits(125, "'sometimes' is unknown")
    warren("generate", "systemd", "nosuch").exits(125, "no such container")


def test_the_keys_that_podman_writes(warren: Shell) -> None:
    require("podman")
    warren.room(*OWN_PODMAN, "load", "--input", warren.room.directory.parent / "units.tar").ok()
    warren.room(*OWN_PODMAN, "create", "--network", "none", "--name", "both", IMAGE, "true").ok()
    warren("create", "--name", "both", IMAGE, "true").ok()
    words = ("generate", "systemd", "--name", "--restart-policy", "on-abnormal", "both")
    theirs, ours = warren.room(*OWN_PODMAN, *words).ok().out, warren(*words).ok().out
    for key in ("Restart", "TimeoutStopSec", "Wants", "After", "WantedBy"):
        pattern = re.compile(rf"^{key}=(.*)$", re.MULTILINE)
        assert pattern.findall(ours) == pattern.findall(theirs), key
