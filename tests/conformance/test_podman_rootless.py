"""podman and buildah as an ordinary user with subordinate ids: the runtime is root of a user namespace of podman's."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, Room
from tests.helpers.engines import Buildah, Podman
from tests.helpers.host import require
from tests.helpers.users import User, ordinary_user


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    for feature in ("podman", "unprivileged-user-namespaces", "useradd", "newuidmap"):
        require(feature)
    with Room(session_directory / "rootless", token) as room:
        yield room


@pytest.fixture(scope="module")
def user(room: Room, session_directory: Path) -> Iterator[User]:
    home = Path(tempfile.mkdtemp(prefix="home-", dir=session_directory))
    with ordinary_user("warren-podman", home, subordinate_ids=True) as user:
        yield user


@pytest.fixture(scope="module")
def podman(room: Room, user: User, runtime_program: str) -> Iterator[Podman]:
    with Podman(room, runtime_program, user) as podman:
        yield podman


@pytest.fixture
def loop(podman: Podman) -> Iterator[str]:
    with podman.looping() as name:
        yield name


def test_run(podman: Podman, user: User) -> None:
    script = "id -u; cat /proc/self/uid_map; touch /x && chown bee /x && stat -c %u /x; exit 4"
    done = podman.run("--rm", "sh", "-c", script)
    assert (done.code, done.err) == (4, "")
    found = done.out.split()
    assert [*found[:4], found[-1]] == ["0", "0", str(user.uid), "1", "1000"]


def test_keep_id(podman: Podman, user: User) -> None:
    shared = user.home / "shared"
    shared.mkdir()
    user.give(shared)
    podman.run(f"--rm --userns=keep-id --volume {shared}:/data", "sh", "-c", "id -u; touch /data/mine").exits(
        0, f"{user.uid}\n"
    )
    assert (shared / "mine").stat().st_uid == user.uid


def test_a_range_of_ids(podman: Podman) -> None:
    podman.run("--rm --userns=auto", "sh", "-c", "id -u; cat /proc/self/uid_map").exits(0, "0\n")


def test_exec_and_stop(podman: Podman, loop: str) -> None:
    podman("exec", "--user", "bee", loop, "sh", "-c", "id -u; exit 3").exits(3, "1000\n")
    podman("exec", loop, "nosuch").exits(127, "executable file not found in $PATH")
    podman("stop", loop).ok()
    assert podman.state(loop)["ExitCode"] == 5


def test_on_a_terminal(podman: Podman) -> None:
    words = podman.run_words("--rm -it", "sh", "-c", "until stty size | grep '33 99'; do :; done; tty; read x; exit 4")
    with podman.room.terminal(*podman.words(*words)) as (process, terminal):
        terminal.expect("/dev/pts/0")
        terminal.write("\n")
        assert process.wait(20) == 4


def test_an_image_is_built(podman: Podman, runtime_program: str, directory: Path) -> None:
    require("buildah")
    (directory / "Containerfile").write_text(f"FROM {IMAGE}\nRUN id -u > /who && chown 1000 /who\n")
    directory.chmod(0o755)
    Buildah(podman, runtime_program)("build", "--tag=built", directory).ok()
    assert podman.run("--rm", "stat", "-c", "%u", "/who", image="localhost/built").ok().line == "1000"
