"""cp, export, diff and commit of containers that run and of those that do not; what a hostile container makes of it."""

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, Result, Room, make_image
from tests.helpers.engines import OWN_PODMAN
from tests.helpers.host import require
from tests.helpers.warren import PROGRAM

PREPARE = """
mkdir -p /tree/sub && echo one > /tree/one && echo two > /tree/sub/two && ln /tree/one /tree/hard
ln -s sub/two /tree/soft && ln -s /tree /way && ln -s /nowhere /dangling
chown 5:6 /tree/one && chmod 4755 /tree/sub/two
"""


class Shell:
    def __init__(self, room: Room, place: Path) -> None:
        self.room, self.place = room, place

    def __call__(self, *words: str | Path, input: str = "", timeout: float = 60) -> Result:
        return self.room(PROGRAM, *words, input=input, timeout=timeout)

    def bytes(self, *words: str | Path, input: bytes = b"") -> bytes:
        command = self.room.command(PROGRAM, *words)
        return subprocess.run(command, env=self.room.env, input=input, stdout=subprocess.PIPE, check=True).stdout

    def inside(self, name: str, script: str) -> str:
        """What a script prints in the container, which is started for it if need be and left as it was."""
        identity = self("inspect", "-f", "{{.Id}}", name).ok().line
        kept = f"/var/lib/warren/containers/{identity}"
        return self.room("sh", "-ec", f"cd {kept}/upper && {script}").ok().out


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "copy", token) as room:
        yield room


@pytest.fixture(scope="module")
def made(room: Room, session_directory: Path) -> Iterator[Shell]:
    room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
    shell = Shell(room, session_directory)
    shell("load", "--input", make_image(session_directory / "copy.tar")).ok()
    shell("run", "--name", "prepared", IMAGE, "sh", "-ec", PREPARE).ok()
    shell("commit", "prepared", "base").ok()
    shell("rm", "prepared").ok()
    yield shell
    room("umount", "/var/lib").ok()


@pytest.fixture
def warren(made: Shell) -> Iterator[Shell]:
    yield made
    for name in made.room("ls", "/var/lib/warren/containers/.names").ok().out.split():
        made("rm", "-f", "-v", name).ok()
    made("volume", "prune", "--all", "--force").ok()


SLEEP = ("sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")


@pytest.fixture(params=["running", "running without a user namespace", "stopped", "created"])
def name(request: pytest.FixtureRequest, warren: Shell) -> str:
    """A container in each state; it has a volume in /v."""
    options = ["--userns", "host"] if "without" in request.param else []
    words = [*options, "--name", "wrn-cp", "-v", "vol:/v", "base", *SLEEP]
    if request.param == "created":
        warren("create", *words).ok()
    else:
        warren("run", "-d", *words).ok()
    if request.param == "stopped":
        warren("stop", "-t", "1", "wrn-cp").ok()
    return "wrn-cp"


def listing(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


# ---- docker's rules


def test_out(warren: Shell, name: str, directory: Path) -> None:
    warren("cp", f"{name}:/tree", directory / "new").ok()
    assert listing(directory / "new") == ["hard", "one", "soft", "sub", "sub/two"]
    assert (directory / "new/one").read_text() == "one\n"
    assert (directory / "new/one").stat().st_ino == (directory / "new/hard").stat().st_ino
    assert os.readlink(directory / "new/soft") == "sub/two"
    # The caller's own, and without what would make a program of the container's powerful here.
    assert (directory / "new/one").stat().st_uid == 0
    assert (directory / "new/sub/two").stat().st_mode & 0o7777 == 0o755
    warren("cp", f"{name}:/tree", directory / "new").ok()
    assert (directory / "new/tree/sub/two").exists()
    (directory / "contents").mkdir()
    warren("cp", f"{name}:/tree/.", directory / "contents").ok()
    assert listing(directory / "contents") == ["hard", "one", "soft", "sub", "sub/two"]
    warren("cp", f"{name}:/tree/one", directory / "contents/renamed").ok()
    assert (directory / "contents/renamed").read_text() == "one\n"
    warren("cp", "-a", f"{name}:/tree", directory / "archive").ok()
    assert (directory / "archive/one").stat().st_uid == 5
    assert (directory / "archive/sub/two").stat().st_mode & 0o7777 == 0o4755


def test_links_out(warren: Shell, name: str, directory: Path) -> None:
    warren("cp", f"{name}:/way", directory / "link").ok()
    assert os.readlink(directory / "link") == "/tree"
    warren("cp", "-L", f"{name}:/way", directory / "followed").ok()
    assert "one" in listing(directory / "followed")
    warren("cp", f"{name}:/way/", directory / "slashed").ok()
    assert "one" in listing(directory / "slashed")
    warren("cp", f"{name}:/way/one", directory / "through").ok()
    assert (directory / "through").read_text() == "one\n"


def test_in(warren: Shell, name: str, directory: Path) -> None:
    (directory / "d/e").mkdir(parents=True)
    (directory / "d/e/f").write_text("deep\n")
    (directory / "file").write_text("mine\n")
    os.chown(directory / "file", 1234, 1234)
    (directory / "file").chmod(0o640)
    warren("cp", directory / "file", f"{name}:/tree/sub").ok()
    warren("cp", directory / "file", f"{name}:/tree/renamed").ok()
    warren("cp", "-a", directory / "file", f"{name}:/tree/owned").ok()
    warren("cp", directory / "d", f"{name}:/tree").ok()
    warren("cp", directory / "d", f"{name}:/made").ok()
    warren("cp", f"{directory}/d/.", f"{name}:/tree/sub").ok()
    warren("cp", directory / "file", f"{name}:/way/linked").ok()
    warren("cp", directory / "file", f"{name}:/dangling").ok()
    found = warren.inside(name, "find tree made nowhere -type f -exec stat -c '%n %a %u' {} + | sort").splitlines()
    assert found == [
        "made/e/f 644 0", "nowhere 640 0", "tree/d/e/f 644 0", "tree/linked 640 0", "tree/owned 640 1234",
        "tree/renamed 640 0", "tree/sub/e/f 644 0", "tree/sub/file 640 0",
    ]  # fmt: skip
    warren("cp", directory / "file", f"{name}:/v/in-volume").ok()
    assert warren.room("stat", "-c", "%u", "/var/lib/warren/volumes/vol/_data/in-volume").ok().line == "0"
    warren("cp", f"{name}:/v/in-volume", directory / "back").ok()
    assert (directory / "back").read_text() == "mine\n"


def test_tars(warren: Shell, name: str) -> None:
    data = io.BytesIO(warren.bytes("cp", f"{name}:/tree", "-"))
    with tarfile.open(fileobj=data) as tar:
        assert sorted(tar.getnames()) == ["tree", "tree/hard", "tree/one", "tree/soft", "tree/sub", "tree/sub/two"]
        assert (tar.getmember("tree/one").uid, tar.getmember("tree/one").gid) == (5, 6)
    warren.bytes("cp", "-", f"{name}:/way/sub", input=data.getvalue())
    assert warren.inside(name, "stat -c '%u %a' tree/sub/tree/one tree/sub/tree/sub/two") == "5 644\n0 4755\n"
    warren("cp", "-", f"{name}:/nosuch", input="").exits(125, "/nosuch: no such directory")
    warren("cp", "-", f"{name}:/tree", input="x" * 1024).exits(125, "tar: ")


def test_what_cannot_be_copied(warren: Shell, name: str, directory: Path) -> None:
    (directory / "file").touch()
    (directory / "d").mkdir()
    for words, said in (
        ((f"{name}:/nosuch", directory), "/nosuch"),
        ((f"{name}:/tree/one/", directory), "/tree/one"),
        ((f"{name}:/tree", directory / "file"), "a directory cannot be copied onto a file"),
        ((f"{name}:/tree/one", f"{directory}/nosuch/"), "no such directory"),
        ((f"{name}:/tree/one", directory / "nosuch/x"), "no such directory"),
        ((directory / "d", f"{name}:/tree/one"), "a directory cannot be copied onto a file"),
        ((directory / "nosuch", f"{name}:/"), "nosuch"),
        ((directory / "file", f"{name}:/nosuch/x"), "no such directory"),
        (("nosuch:/x", directory), "no such container"),
        ((f"{name}:/x", f"{name}:/y"), "between containers"),
        ((directory, directory), "neither is in a container"),
    ):  # fmt: skip
        assert len(warren("cp", *words).exits(125, said).err.splitlines()) == 1
    assert listing(directory) == ["d", "file"]


# ---- hostile containers


def test_the_host_side_follows_no_link_of_the_container(warren: Shell, name: str, directory: Path) -> None:
    """CVE-2018-15664: a link that comes in a directory's place, within one stream, leads nowhere."""
    (directory / "victim").mkdir()
    with tarfile.open(directory / "evil.tar", "w") as tar:
        for entry in ("e", "e/up"):
            info = tarfile.TarInfo(entry)
            info.type, info.linkname = (
                (tarfile.DIRTYPE, "") if entry == "e" else (tarfile.SYMTYPE, str(directory / "victim"))
            )
            info.mode = 0o755
            tar.addfile(info)
    warren.bytes("cp", "-", f"{name}:/", input=(directory / "evil.tar").read_bytes())
    warren("cp", f"{name}:/e", directory / "out").ok()
    assert os.readlink(directory / "out/up") == str(directory / "victim")
    (directory / "in").write_text("x")
    # In the container the link means the container's own path, which is not there.
    warren("cp", directory / "in", f"{name}:/e/up/x").exits(125, "no such directory")
    assert listing(directory / "victim") == []


def test_links_out_of_the_root_stay_in_it(warren: Shell, name: str, directory: Path) -> None:
    with tarfile.open(directory / "evil.tar", "w") as tar:
        for entry, target in (
            ("a", "/etc/shadow"),
            ("b", "../../../../../../etc"),
            ("c", "/proc/self/root"),
            ("d", "/proc/1/root/etc"),
        ):
            info = tarfile.TarInfo(f"tree/{entry}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    warren.bytes("cp", "-", f"{name}:/", input=(directory / "evil.tar").read_bytes())
    for path in ("/tree/a", "/tree/b/shadow", "/tree/c/etc/shadow", "/tree/d/shadow"):
        warren("cp", "-L", f"{name}:{path}", directory / "stolen").exits(125)
        assert not (directory / "stolen").exists()


def test_a_tar_that_climbs_is_refused(warren: Shell, name: str, directory: Path) -> None:
    for entry in ("../x", "a/../../x"):
        with tarfile.open(directory / "evil.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo(entry))
        done = subprocess.run(
            warren.room.command(PROGRAM, "cp", "-", f"{name}:/tree"), env=warren.room.env,
            input=(directory / "evil.tar").read_bytes(), capture_output=True,
        )  # fmt: skip
        assert done.returncode == 125
        assert b"leads out of its directory" in done.stderr


def test_a_container_that_swaps_directories_for_links_meanwhile(warren: Shell, directory: Path) -> None:
    """The race of CVE-2018-15664: whatever the copy sees, nothing of the host comes out and nothing goes in."""
    swap = "mv /race/d /race/k; ln -s /etc /race/d; rm /race/d; mv /race/k /race/d"
    script = f"mkdir /race /race/d; touch /race/d/passwd; while :; do {swap}; done"
    warren("run", "-d", "--name", "wrn-race", "base", "sh", "-c", script).ok()
    (directory / "in").write_text("from the host\n")
    secret = Path("/etc/passwd").read_text()
    before = os.stat("/etc").st_mtime_ns
    end = time.monotonic() + 4
    while time.monotonic() < end:
        warren("cp", f"{'wrn-race'}:/race/d/passwd", directory / "out")
        if (directory / "out").is_file():
            assert (directory / "out").read_text() != secret
        warren("cp", directory / "in", "wrn-race:/race/d/passwd")
    assert Path("/etc/passwd").read_text() == secret
    assert os.stat("/etc").st_mtime_ns == before


def test_special_files_are_not_opened_and_devices_not_made(warren: Shell, directory: Path) -> None:
    warren("create", "--name", "wrn-special", "base", "true").ok()
    with tarfile.open(directory / "special.tar", "w") as tar:
        for entry, kind in (("s/fifo", tarfile.FIFOTYPE), ("s/null", tarfile.CHRTYPE), ("s/file", tarfile.REGTYPE)):
            info = tarfile.TarInfo(entry)
            info.type, info.devmajor, info.devminor = kind, 1, 3
            tar.addfile(info)
    warren.bytes("cp", "-", "wrn-special:/", input=(directory / "special.tar").read_bytes())
    done = warren("cp", "wrn-special:/s", directory / "s", timeout=30)
    assert "devices are not made" in done.err and done.code == 0
    assert listing(directory / "s") == ["fifo", "file"]


def test_a_tree_without_end(warren: Shell, directory: Path) -> None:
    """Refused where it cannot be had; what has been made is removed all the same."""
    script = "i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || exit; i=$((i+1)); done"
    warren("run", "--name", "wrn-deep", "base", "sh", "-c", f"mkdir /deep; cd /deep; {script}").ok()
    warren("cp", "wrn-deep:/deep", directory / "deep").exits(125, "directories in each other")
    warren("commit", "wrn-deep", "deep").exits(125, "directories in each other")
    warren("rm", "wrn-deep").ok()
    assert ".gone" not in warren.room("ls", "-A", "/var/lib/warren/containers").ok().out
    subprocess.run(["rm", "-rf", directory / "deep"], check=True)


def test_a_read_only_root(warren: Shell, directory: Path) -> None:
    (directory / "x").touch()
    warren("create", "--name", "wrn-ro", "--read-only", "base", "true").ok()
    warren("cp", directory / "x", "wrn-ro:/").exits(125, "read-only")
    warren("run", "-d", "--name", "wrn-ro2", "--read-only", "base", *SLEEP).ok()
    warren("cp", directory / "x", "wrn-ro2:/tree").exits(125, "read-only")
    warren("cp", "wrn-ro2:/tree/one", directory / "one").ok()


def test_a_container_of_the_hosts_root(warren: Shell, directory: Path) -> None:
    warren("run", "-d", "--name", "wrn-host", "host", "--", "sh", "-c", "echo in > /mine; sleep 1000").ok()
    for _ in range(50):
        if not warren("cp", "wrn-host:/mine", directory / "mine").code:
            break
        time.sleep(0.1)
    assert (directory / "mine").read_text() == "in\n"
    warren("stop", "-t", "0", "wrn-host").ok()
    warren("cp", "wrn-host:/mine", directory / "mine").exits(125, "nothing of its own")


# ---- changes


def test_diff_and_commit_by_name(warren: Shell, name: str, directory: Path) -> None:
    (directory / "new").write_text("x")
    warren("cp", directory / "new", f"{name}:/tree/new").ok()
    found = warren("diff", name).ok().out.splitlines()
    assert {"C /tree", "A /tree/new"} <= set(found)
    assert {"Kind": "A", "Path": "/tree/new"} in [
        *map(json.loads, warren("diff", "--format", "json", name).ok().out.splitlines())
    ]
    id = warren("commit", "-a", "me", "-m", "why", "-c", "CMD cat /tree/new", name, "made").ok().line
    assert warren("run", "--rm", "made").ok().line == "x"
    (image,) = json.loads(warren("image", "inspect", id).ok().out)
    assert image["Author"] == "me"
    assert "why" in warren("history", id).ok().out
    warren("rmi", "made").ok()


def test_export(warren: Shell, name: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(warren.bytes("export", name))) as tar:
        names = tar.getnames()
        assert {"bin/busybox", "tree/sub/two", "way"} <= set(names)
        assert tar.getmember("tree/one").uid == 5
        assert not [inner for inner in names if inner.startswith(("proc/", "sys/", "v/"))]
    assert names == sorted(names, key=lambda path: path.split("/"))


def test_export_can_be_imported(warren: Shell, directory: Path) -> None:
    warren("create", "--name", "wrn-export", "base", "true").ok()
    warren("export", "-o", directory / "root.tar", "wrn-export").ok()
    warren("import", directory / "root.tar", "again").ok()
    assert warren("run", "--rm", "again", "cat", "/tree/sub/two").ok().line == "two"
    warren("export", "nosuch").exits(125, "no such container")


def test_a_commit_pauses_a_container_that_runs(warren: Shell) -> None:
    """Two files that are always written together are never found apart."""
    script = "i=0; while :; do i=$((i+1)); echo $i > /t; mv /t /one; echo $i > /t; mv /t /two; done"
    warren("run", "-d", "--name", "wrn-pause", "base", "sh", "-c", script).ok()
    while warren("cp", "wrn-pause:/two", "-").code:
        time.sleep(0.05)
    warren("commit", "wrn-pause", "paused").ok()
    one, two = warren("run", "--rm", "paused", "cat", "/one", "/two").ok().out.split()
    assert 0 <= int(one) - int(two) <= 1
    assert warren("inspect", "-f", "{{.State.Status}}", "wrn-pause").ok().line == "running"


def test_as_podman_does(warren: Shell, directory: Path) -> None:
    """The same copies with podman, on the same image: the same files on both sides."""
    require("podman")
    warren("save", "-o", directory / "base.tar", "base").ok()
    warren.room(*OWN_PODMAN, "load", "--input", directory / "base.tar").ok()
    warren.room(*OWN_PODMAN, "create", "--network", "none", "--name", "theirs", "base", "true").ok()
    warren("create", "--name", "ours", "base", "true").ok()
    (directory / "src/d").mkdir(parents=True)
    (directory / "src/d/f").write_text("f")
    for side, tool in (("ours", (PROGRAM,)), ("theirs", OWN_PODMAN)):
        top = directory / side
        top.mkdir()
        for words in (
            (f"{side}:/tree", top / "new"), (f"{side}:/tree", top / "new"), (f"{side}:/tree/.", top / "new/sub"),
            (f"{side}:/tree/one", top / "file"), (directory / "src", f"{side}:/srv"),
            (directory / "src", f"{side}:/tree"), (f"{directory}/src/.", f"{side}:/tree/sub"),
            (directory / "src/d/f", f"{side}:/tree/g"), (f"{side}:/srv", top / "srv"),
            (f"{side}:/tree", top / "after"),
        ):  # fmt: skip
            warren.room(*tool, "cp", *words).ok()
    assert listing(directory / "ours") == listing(directory / "theirs")
    warren.room(*OWN_PODMAN, "rm", "theirs").ok()
