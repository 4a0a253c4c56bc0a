"""buildah builds images with the runtime under test: each RUN is a container."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, Room
from tests.helpers.engines import Buildah, Podman
from tests.helpers.host import require
from tests.helpers.warren import PROGRAM

CONTAINERFILE = f"""
FROM {IMAGE}
ARG WHO=nobody
ENV GREETING=hello
WORKDIR /srv
COPY --chown=1000:1000 file .
RUN echo "$GREETING $WHO" > made && hostname > /etc/name && ls /sys/class/net > /etc/interfaces
USER bee
RUN ["sh", "-c", "id -un > /tmp/user; stat -c %u file >> /tmp/user; cp made /srv/mine || echo not mine >> /tmp/user"]
CMD ["cat", "/srv/made", "/etc/interfaces", "/tmp/user"]
"""


@pytest.fixture(scope="module")
def podman(session_directory: Path, token: str, runtime_program: str) -> Iterator[Podman]:
    require("podman")
    require("buildah")
    with Room(session_directory / "buildah", token) as room, Podman(room, runtime_program) as podman:
        yield podman


@pytest.fixture(scope="module")
def buildah(podman: Podman, runtime_program: str) -> Buildah:
    return Buildah(podman, runtime_program)


def test_an_image_is_built_and_runs(podman: Podman, buildah: Buildah, directory: Path) -> None:
    (directory / "file").write_text("of the context\n")
    (directory / "Containerfile").write_text(CONTAINERFILE)
    buildah("build", "--build-arg=WHO=bee", "--tag=built", directory).ok()
    found = podman.run("--rm", image="localhost/built").ok().out.splitlines()
    assert found == ["hello bee", "lo", "bee", "1000", "not mine"]


def test_layers_are_kept_for_the_next_build(buildah: Buildah, directory: Path) -> None:
    (directory / "Containerfile").write_text(f"FROM {IMAGE}\nRUN echo ran\nRUN echo too\n")
    assert "ran" in buildah("build", "--layers", directory).ok().out.splitlines()
    assert "ran" not in buildah("build", "--layers", directory).ok().out.splitlines()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("RUN exit 7", "exit status 7"),
        ('RUN ["nosuch"]', "executable file not found in $PATH"),
        ('RUN ["/etc/passwd"]', "permission denied"),
    ],
)
def test_a_step_that_fails_ends_the_build(buildah: Buildah, directory: Path, step: str, words: str) -> None:
    (directory / "Containerfile").write_text(f"FROM {IMAGE}\n{step}\nRUN echo went on\n")
    done = buildah("build", directory)
    assert done.code != 0
    assert words in done.err
    assert "went on" not in done.out


def test_commands_in_a_container_that_stays(podman: Podman, buildah: Buildah, directory: Path) -> None:
    (directory / "file").write_text("of the host\n")
    box = buildah("from", IMAGE).ok().line
    script = "cp /data/file /kept; cat; exit 6"
    volume = f"--volume={directory}:/data"
    buildah("run", volume, "--user=0", box, "--", "sh", "-c", script).exits(6)
    buildah("commit", "--quiet", box, "kept").ok()
    assert podman.run("--rm", "cat", "/kept", image="localhost/kept").ok().line == "of the host"
    buildah("rm", box).ok()


def test_warren_runs_what_was_built(podman: Podman, buildah: Buildah, directory: Path) -> None:
    """By the name that buildah was given, which it puts below localhost; in /var/lib of the room only."""
    (directory / "Containerfile").write_text(f"FROM {IMAGE}\nRUN echo built > /made\n")
    buildah("build", "--tag=loaf", directory).ok()
    buildah("push", "loaf", f"oci-archive:{directory}/loaf.tar:loaf").ok()
    podman.room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
    assert "localhost/loaf:latest" in podman.room(PROGRAM, "load", "--input", directory / "loaf.tar").ok().out
    assert podman.room(PROGRAM, "run", "--rm", "loaf", "cat", "/made").ok().line == "built"
    untagged, deleted = podman.room(PROGRAM, "rmi", "loaf").ok().out.splitlines()
    assert untagged == "Untagged: localhost/loaf:latest"
    assert deleted.startswith("Deleted: sha256:")
