"""What a real launch has imported: each of the heavy modules costs as much as a good part of a launch."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import Room
from tests.helpers.oci import Bundle
from tests.helpers.warren import PROGRAM
from tests.unit.test_packaging import BIN, HEAVY, TELL


def loaded(directory: Path, *words: str | Path) -> set[str]:
    """Run warren-oci as its launcher does; the names in sys.modules at its end."""
    report = directory / "report"
    site = next((BIN.parent / "lib").glob("python3*/site-packages"))
    command = [BIN / "python3", "-I", "-S", "-c", TELL, site, report, "--root", directory / "state", *words]
    # A created container keeps its standard streams, so they must not be pipes that somebody reads to the end.
    with open(directory / "said", "w+") as said:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, timeout=60)
    code, *names = report.read_text().split()
    assert code == "0", (directory / "said").read_text()
    return set(names)


@pytest.mark.parametrize("seccomp", [False, True])
def test_a_launch_loads_nothing_heavy(bundle: Bundle, directory: Path, seccomp: bool) -> None:
    if seccomp:
        from runtime.seccomp import default_profile

        bundle.linux["seccomp"] = default_profile(set(), "x86_64")
    bundle.asks("true").save()
    name = f"wrn-{directory.name}"
    loaded(directory, "run", "--bundle", bundle.path, name)  # The first one compiles the profile.
    names = loaded(directory, "run", "--bundle", bundle.path, name)
    assert {"runtime.launch", "runtime.container"} <= names
    assert not HEAVY & names


def test_create_exec_and_delete_load_nothing_heavy(bundle: Bundle, directory: Path) -> None:
    bundle.save()
    name = f"wrn-{directory.name}"
    assert not HEAVY & loaded(directory, "create", "--bundle", bundle.path, name)
    try:
        assert not HEAVY & loaded(directory, "start", name)
        assert not HEAVY & loaded(directory, "exec", name, "/bin/probe", "true")
    finally:
        assert not HEAVY & loaded(directory, "delete", "--force", name)


TELL_WARREN = TELL.replace("warren-oci", "warren").replace("runtime.oci", "cli")


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    """With stores of its own, and an image."""
    with Room(session_directory / "hot", token) as room:
        room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        room(PROGRAM, "image", "bootstrap", "busybox", "small").ok()
        yield room


def loaded_by_warren(room: Room, *words: str) -> set[str]:
    report = room.directory / "report"
    site = next((BIN.parent / "lib").glob("python3*/site-packages"))
    done = room(BIN / "python3", "-I", "-S", "-c", TELL_WARREN, site, report, *words).ok()
    code, *names = report.read_text().split()
    assert code == "0", str(done)
    return set(names)


@pytest.mark.parametrize("words", ["--rm host true", "--rm small true", "small true", "-d --rm small true"])
def test_a_run_by_people_loads_nothing_heavy(room: Room, words: str) -> None:
    loaded_by_warren(room, "run", *words.split())  # The first one compiles the profile.
    names = loaded_by_warren(room, "run", *words.split())
    assert {"runtime.launch", "runtime.engine.running"} <= names
    assert not HEAVY & names


def test_the_life_of_a_container_loads_nothing_heavy(room: Room) -> None:
    loaded_by_warren(room, "create", "--name", "mole", "small", "sleep", "100")
    for words in ("start mole", "exec mole true", "ps -a", "pause mole", "unpause mole", "kill mole", "wait mole",
                  "restart mole", "stop -t 0 mole", "rm -f mole"):  # fmt: skip
        assert not HEAVY & loaded_by_warren(room, *words.split()), words


def test_what_is_odd_goes_by_click(room: Room) -> None:
    assert "click" in loaded_by_warren(room, "run", "--plan", "small", "true")
