"""Volumes: named, anonymous, filled from the image, shared, given away; as docker and podman have them."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, Result, Room, make_image
from tests.helpers.engines import OWN_PODMAN, RUN_PODMAN
from tests.helpers.host import require
from tests.helpers.warren import PROGRAM

VOLUMES = "/var/lib/warren/volumes"
PREPARE = """
mkdir -p /data/sub /vol && echo of the image > /data/sub/file && ln -s sub/file /data/link && ln -s /etc /data/escape
chown 5:6 /data && chmod 2750 /data && chown 7:8 /data/sub/file && chmod 4711 /data/sub/file && mkfifo /data/fifo
touch -d @1000000000 /data/sub/file && echo v > /vol/file && ln -s /etc /linked
"""
LIST = "cd $1 && find . -exec stat -c '%n %f %u:%g' {} + | sort"


class Shell:
    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, *words: str | Path, input: str = "") -> Result:
        return self.room(PROGRAM, *words, input=input)

    def run(self, *words: str | Path) -> str:
        """What a script prints in a container of the image `base`; the last word is the script."""
        return self("run", "--rm", *words[:-1], "base", "sh", "-ec", words[-1]).ok().out

    def host(self, script: str, *words: str | Path) -> str:
        return self.room("sh", "-ec", script, "sh", *words).ok().out

    def volumes(self) -> list[str]:
        return self("volume", "ls", "-q").ok().out.split()


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "volumes", token) as room:
        yield room


@pytest.fixture(scope="module")
def made(room: Room, session_directory: Path) -> Iterator[Shell]:
    room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
    shell = Shell(room)
    shell("load", "--input", make_image(session_directory / "volumes.tar")).ok()
    shell("run", "--name", "prepared", IMAGE, "sh", "-ec", PREPARE).ok()
    shell("commit", "prepared", "base").ok()
    change = ["-c", "VOLUME /vol", "-c", "LABEL of=image", "-c", "EXPOSE 80", "-c", "STOPSIGNAL SIGUSR1"]
    shell("commit", *change, "prepared", "declares").ok()
    shell("rm", "prepared").ok()
    yield shell
    room("umount", "/var/lib").ok()


@pytest.fixture
def warren(made: Shell) -> Iterator[Shell]:
    yield made
    for name in made.host("ls /var/lib/warren/containers/.names").split():
        made("rm", "-f", "-v", name).ok()
    made("volume", "prune", "--all", "--force").ok()


# ---- the commands


def test_the_commands(warren: Shell) -> None:
    assert warren("volume", "create", "-l", "a=b", "one").ok().line == "one"
    assert warren("volume", "create", "one").ok().line == "one"
    nameless = warren("volume", "create").ok().line
    assert len(nameless) == 64
    head, *rows = warren("volume", "ls").ok().out.splitlines()
    assert head.split() == ["DRIVER", "VOLUME", "NAME"]
    assert [row.split() for row in rows] == sorted([["local", "one"], ["local", nameless]])
    (found,) = json.loads(warren("volume", "inspect", "one").ok().out)
    assert found["Mountpoint"] == f"{VOLUMES}/one/_data"
    assert (found["Driver"], found["Scope"], found["Labels"]) == ("local", "local", {"a": "b"})
    assert warren("volume", "inspect", "-f", "{{.Name}}", "on").ok().line == "one"
    assert warren("volume", "ls", "-q", "--filter", "label=a=b", "--filter", "dangling=true").ok().line == "one"
    assert warren("volume", "ls", "-q", "--filter", "label=a=c").ok().line == ""
    assert warren("volume", "ls", "--format", "{{.Name}}: {{.Labels}}", "--filter", "name=on").ok().line == "one: a=b"
    assert warren("volume", "rm", "one").ok().line == "one"
    warren("volume", "rm", "one").exits(1, "no such volume: 'one'")
    warren("volume", "rm", "-f", "one").ok()
    assert nameless in warren("volume", "prune", "-f").ok().out
    assert warren.volumes() == []


def test_wrong_words(warren: Shell) -> None:
    for words, said in (
        (("-v", "a b:/x"), "is no name of a volume"),
        (("-v", "../x/../..:"), "malformed"),
        (("-v", "a:/x:wrong"), "unknown option 'wrong'"),
        (("-v", "a:/x:ro,rw"), "contradict"),
        (("-v", "a:/x", "-v", "b:/x/."), "more than one mount on /x"),
        (("-v", "a:/"), "on / itself"),
        (("--mount", "type=nfs,src=a,dst=/x"), "type 'nfs' is unknown"),
        (("--mount", "type=volume,src=a"), "needs a target"),
        (("--mount", "type=bind,src=/nonexistent,dst=/x"), "/nonexistent: not found"),
        (("--mount", "type=tmpfs,src=/x,dst=/x"), "a tmpfs has no source"),
        (("--mount", "type=volume,src=a,dst=/x,volume-driver=nfs"), "no volume driver but local"),
        (("--volumes-from", "nosuch"), "no such container"),
    ):
        assert warren("run", "--rm", *words, "base", "true").exits(125, said).out == ""
    warren("volume", "create", "-").exits(125)
    warren("volume", "create", "a/b").exits(125, "is no name of a volume")
    warren("volume", "create", "-d", "nfs", "x").exits(125, "no volume driver but local")
    warren("volume", "create", "-o", "type=nfs", "-o", "device=:/x", "x").exits(125, "only directories of the host")
    assert warren.volumes() == []


# ---- what they hold


def test_an_empty_volume_becomes_what_the_image_has_there(warren: Shell) -> None:
    before = warren.run(LIST.replace("$1", "/data"))
    assert warren.run("-v", "full:/data", LIST.replace("$1", "/data")) == before
    # What is on disk are the image's ids, whatever range the container had.
    assert warren.host(LIST, f"{VOLUMES}/full/_data") == before
    assert warren.host('stat -c %Y "$1"', f"{VOLUMES}/full/_data/sub/file") == "1000000000\n"
    assert warren.host('readlink "$1"', f"{VOLUMES}/full/_data/escape") == "/etc\n"
    assert warren.host('stat -c %a "$1"', VOLUMES) == "700\n"


def test_only_an_empty_one_and_only_at_first(warren: Shell) -> None:
    warren.run("-v", "some:/x", "echo mine > /x/mine")
    assert warren.run("-v", "some:/data", "ls /data") == "mine\n"
    assert warren.run("-v", "none:/data:nocopy", "ls -A /data") == ""
    assert warren.run("--mount", "src=none2,dst=/data,volume-nocopy", "ls -A /data") == ""
    assert warren.run("-v", "elsewhere:/nonexistent/deep", "ls -A /nonexistent/deep") == ""
    warren("create", "--name", "wrn-again", "-v", "again:/data", "base", "sh", "-c", "ls -A /data; rm -rf /data/*").ok()
    assert "sub" in warren("start", "--attach", "wrn-again").ok().out
    assert warren("start", "--attach", "wrn-again").ok().out == ""
    warren("rm", "wrn-again").ok()


def test_a_read_only_one_is_filled_and_then_read_only(warren: Shell) -> None:
    out = warren.run("-v", "sealed:/data:ro", "cat /data/link; touch /data/new 2>&1 || true")
    assert out.startswith("of the image\n") and "Read-only" in out


def test_a_link_of_the_image_leads_nowhere_else(warren: Shell) -> None:
    """CVE-2021-30465, 2018-15664: what is copied lies in the image's root, wherever the image's link points."""
    assert "passwd" in warren.run("-v", "led:/linked", "ls /linked")
    assert warren.host('cat "$1"/passwd', f"{VOLUMES}/led/_data") == warren.run("cat /etc/passwd")
    out = warren.run("-v", "led2:/data", "cat /data/escape/passwd")
    assert out == warren.run("cat /etc/passwd") != Path("/etc/passwd").read_text()


def test_it_outlives_containers_and_ranges_of_ids(warren: Shell) -> None:
    maps = set()
    for number in range(3):
        script = f"echo {number} >> /v/log; chown 9 /v/log; stat -c %u /v/log; cat /proc/self/uid_map"
        out = warren.run("-v", "lasts:/v", script)
        owner, uid_map = out.splitlines()
        assert owner == "9"
        maps.add(uid_map.split()[1])
    assert len(maps) > 1
    assert warren.host('cat "$1"', f"{VOLUMES}/lasts/_data/log") == "0\n1\n2\n"
    assert warren.host('stat -c %u "$1"', f"{VOLUMES}/lasts/_data/log") == "9\n"


def test_given_to_the_containers_user(warren: Shell, directory: Path) -> None:
    warren.run("-v", "given:/v", "mkdir /v/d; touch /v/d/f; ln -s /etc/passwd /v/l")
    out = warren.run("-v", "given:/v:U", "--user", "1000:1001", "touch /v/new; stat -c %u:%g /v /v/d /v/d/f /v/l")
    assert out == "1000:1001\n" * 4
    assert os.stat("/etc/passwd").st_uid == 0
    (directory / "file").touch()
    warren.run("-v", f"{directory}:/b:U,ro", "--user", "1000", "! touch /b/x 2>/dev/null")
    assert (directory / "file").stat().st_uid == 1000


def test_changes_over_a_volume_are_thrown_away(warren: Shell) -> None:
    warren.run("-v", "under:/v", "echo kept > /v/f")
    assert warren.run("-v", "under:/v:O", "echo changed > /v/f; cat /v/f") == "changed\n"
    assert warren.run("-v", "under:/v", "cat /v/f") == "kept\n"


def test_one_that_stands_for_a_directory(warren: Shell, directory: Path) -> None:
    options = ["-o", "type=none", "-o", "o=bind", "-o", f"device={directory}"]
    warren("volume", "create", *options, "stands").ok()
    warren.run("-v", "stands:/v", "echo there > /v/f")
    assert (directory / "f").read_text() == "there\n"
    warren("volume", "rm", "stands").ok()
    assert (directory / "f").exists()


def test_outer_mounts_come_first(warren: Shell) -> None:
    assert warren.run("-v", "inner:/o/i", "-v", "outer:/o", "touch /o/i/x /o/y; ls /o") == "i\ny\n"
    assert warren.host('ls "$1"', f"{VOLUMES}/inner/_data") == "x\n"


def test_labels_of_selinux_are_noted_where_there_is_none(warren: Shell) -> None:
    warren("create", "--name", "wrn-z", "-v", "z:/v:Z", "base", "true").ok()
    warren("start", "--attach", "wrn-z").ok()
    assert "SELinux" in warren("inspect", "-f", "{{.enforced.selinux_relabel}}", "wrn-z").ok().out
    warren("rm", "wrn-z").ok()


# ---- whose they are


def test_anonymous_ones_go_with_the_container(warren: Shell) -> None:
    assert warren("run", "--rm", "-v", "/a", "--mount", "dst=/b", "declares", "cat", "/vol/file").ok().line == "v"
    assert warren.volumes() == []
    warren("create", "--name", "wrn-anon", "-v", "/a", "declares", "true").ok()
    names = warren.volumes()
    assert len(names) == 2
    warren("volume", "rm", names[0]).exits(1, "in use by")
    assert "0B" in warren("volume", "prune", "-f").ok().out
    warren("rm", "wrn-anon").ok()
    assert warren.volumes() == names
    warren("create", "--name", "wrn-anon", "-v", "named:/a", "declares", "true").ok()
    warren("rm", "-v", "wrn-anon").ok()
    assert set(warren.volumes()) == {*names, "named"}
    warren("volume", "prune", "-f").ok()
    assert warren.volumes() == ["named"]


def test_the_users_mount_replaces_the_images_volume(warren: Shell) -> None:
    assert warren("run", "--rm", "-v", "mine:/vol:nocopy", "declares", "ls", "-A", "/vol").ok().line == ""
    assert warren.volumes() == ["mine"]
    warren("run", "--rm", "--tmpfs", "/vol", "declares", "grep", "-q", " /vol tmpfs ", "/proc/mounts").ok()
    assert warren.volumes() == ["mine"]


def test_volumes_of_another_container(warren: Shell, directory: Path) -> None:
    warren("create", "--name", "wrn-from", "-v", "shared:/s", "-v", f"{directory}:/b", "declares", "true").ok()
    assert warren.run("--volumes-from", "wrn-from", "echo x > /s/x; echo y > /b/y; cat /vol/file") == "v\n"
    assert (directory / "y").read_text() == "y\n"
    assert warren.run("--volumes-from", "wrn-from:ro", "cat /s/x; ! touch /b/x 2>/dev/null") == "x\n"
    assert len(warren.volumes()) == 2  # --rm of the other leaves what this one needs.
    warren("rm", "-v", "wrn-from").ok()
    assert warren.volumes() == ["shared"]


def test_a_failed_create_leaves_no_volume(warren: Shell) -> None:
    warren("create", "--name", "wrn-taken", "base", "true").ok()
    warren("create", "--name", "wrn-taken", "-v", "/anon", "declares", "true").exits(125, "in use")
    assert warren.volumes() == []
    warren("rm", "wrn-taken").ok()


def test_names_are_claimed_once(warren: Shell) -> None:
    """Two dozen at once: one volume, and nothing half made."""
    command = warren.room.command(PROGRAM, "volume", "create", "raced")
    racers = [subprocess.Popen(command, env=warren.room.env, stdout=subprocess.PIPE, text=True) for _ in range(24)]
    assert {racer.communicate()[0] for racer in racers} == {"raced\n"}
    assert {racer.returncode for racer in racers} == {0}
    assert warren.host(f"ls -A {VOLUMES}") == "raced\n"


def test_containers_that_fill_one_volume_at_once(warren: Shell) -> None:
    words = ["run", "--rm", "-v", "rush:/data", "base", "cat", "/data/link"]
    racers = [
        subprocess.Popen(warren.room.command(PROGRAM, *words), env=warren.room.env, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]  # fmt: skip
    assert {racer.communicate() for racer in racers} == {("of the image\n", "")}


def test_what_a_killed_command_left_is_removed(warren: Shell) -> None:
    warren("volume", "create", "x").ok()
    warren.host(f"mkdir -p {VOLUMES}/.new-1-1-aa/_data {VOLUMES}/.gone-bb/_data/x")
    warren("volume", "create", "y").ok()
    assert warren.host(f"ls -A {VOLUMES}") == "x\ny\n"


def test_a_file_system_that_cannot_be_idmapped_is_named(warren: Shell) -> None:
    """An overlay is one; without a name for the user namespace Warren does without, and says so."""
    warren.host(
        "mkdir -p /run/m /run/u /run/w; mount -t overlay o -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w /run/m"
    )
    words = ("-v", "/run/m:/m", "base", "true")
    said = ("/run/m cannot be idmapped", "file system overlay")
    try:
        warren("run", "--rm", "--userns", "private", *words).exits(125, *said)
        warren("run", "--rm", "-v", "/run/m:/m:idmap", "base", "true").exits(125, *said)
        warren("create", "--name", "wrn-no", *words).ok()
        warren("start", "-a", "wrn-no").ok()
        assert said[0] in warren("inspect", "-f", "{{.enforced.user_namespace}}", "wrn-no").ok().out
        warren("rm", "wrn-no").ok()
    finally:
        warren.host("umount /run/m")


def test_changes_of_the_root_outlive_stops_and_ranges_of_ids(warren: Shell) -> None:
    count = "n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) | tee /n; chown 77 /n; stat -c %u /n"
    script = f"{count}; rm -f /data/link; ls /data; cat /proc/self/uid_map"
    warren("create", "--name", "wrn-root", "base", "sh", "-c", script).ok()
    found = [warren("start", "--attach", "wrn-root").ok().out.splitlines() for _ in range(2)]
    other = [warren.run("sleep 0.01") for _ in range(2)]
    assert other == ["", ""]
    assert [lines[0] for lines in found] == ["1", "2"]
    assert [lines[1] for lines in found] == ["77", "77"]
    assert all("link" not in lines for lines in found)
    upper = warren("inspect", "-f", "{{.Id}}", "wrn-root").ok().line
    assert warren.host('stat -c %u "$1"', f"/var/lib/warren/containers/{upper}/upper/n") == "77\n"
    # Another range: the first one is taken by somebody else when it starts again.
    number = next(int(line.split()[1]) for line in [found[0][-1].strip()])
    lease = f"/run/warren/.ids/{(number - 0x70000000) >> 16}"
    warren.host(f'mkdir -p /run/warren/.ids; ln -s "x 1 $(cut -d\\  -f22 /proc/1/stat)" {lease}')
    again = warren("start", "--attach", "wrn-root").ok().out.splitlines()
    assert again[:2] == ["3", "77"]
    assert again[-1].split()[1] != str(number)
    warren.host(f"rm {lease}")
    warren("rm", "wrn-root").ok()


def test_layers_of_a_kept_container_survive_a_crash_of_the_machine(warren: Shell) -> None:
    """As the next boot finds it: a file of an earlier boot in pending/; the note of who uses layers is lost or torn."""
    with tarfile.open(warren.room.directory / "crash.tar", "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        info = tarfile.TarInfo("only-here")
        tar.addfile(info, BytesIO())
    warren("import", warren.room.directory / "crash.tar", "crashed").ok()
    warren("create", "--name", "wrn-crash", "crashed", "/bin/busybox", "ls", "/only-here").ok()
    warren("rmi", "--force", "crashed").ok()
    identity = warren("inspect", "-f", "{{.Id}}", "wrn-crash").ok().line
    for damage in (": >", "rm"):
        warren.host(
            f"{damage} /var/lib/warren/images/users/{identity}; touch /var/lib/warren/images/pending/other-boot.1"
        )
        with tarfile.open(warren.room.directory / "another.tar", "w") as tar:
            info = tarfile.TarInfo(f"by-{damage[0]}")
            tar.addfile(info, BytesIO())
        warren("import", warren.room.directory / "another.tar", "another").ok()
        assert warren.host("ls /var/lib/warren/images/pending") == ""
        assert warren("start", "--attach", "wrn-crash").ok().line == "/only-here"
    warren("image", "prune", "--force").ok()
    assert warren("start", "--attach", "wrn-crash").ok().line == "/only-here"
    warren("rm", "wrn-crash").ok()
    warren("image", "prune", "--force").ok()
    warren("run", "--rm", "crashed", "true").exits(125)


def test_the_images_configuration_reaches_the_container(warren: Shell) -> None:
    words = ("create", "--name", "wrn-told", "-l", "of=user", "declares", "true")
    warren(*words).ok()
    identity = warren("inspect", "-f", "{{.Id}}", "wrn-told").ok().line
    record = json.loads(warren.host('cat "$1"', f"/var/lib/warren/containers/{identity}/config.json"))["config"]
    assert record["labels"] == ["of=image", "of=user"]
    assert record["stop_signal"] == "SIGUSR1"
    assert record["exposed_ports"] == ["80/tcp"]
    assert record["image_volumes"] == ["/vol"]
    warren("rm", "-v", "wrn-told").ok()


def test_as_podman_does(warren: Shell) -> None:
    """The same commands on the same image: what is in the volume, and what inspect says of it."""
    require("podman")
    archive = warren.room.directory / "for-podman.tar"
    warren("save", "-o", archive, "base").ok()
    warren.room(*OWN_PODMAN, "load", "--input", archive).ok()
    warren.room(*OWN_PODMAN, "volume", "create", "--label", "a=b", "both").ok()
    warren("volume", "create", "--label", "a=b", "both").ok()
    script = LIST.replace("$1", "/data")
    theirs = warren.room(*RUN_PODMAN, "-v", "both:/data", "base", "sh", "-ec", script)
    if theirs.code:
        pytest.fail(f"podman: {theirs}")
    assert warren.run("-v", "both:/data", script) == theirs.out
    (their,) = json.loads(warren.room(*OWN_PODMAN, "volume", "inspect", "both").ok().out)
    (ours,) = json.loads(warren("volume", "inspect", "both").ok().out)
    for key in ("Name", "Driver", "Labels", "Scope", "Options"):
        assert ours[key] == their[key], key
