"""What a container changes of its image, told, made into a layer, and run again."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images import reference
from runtime.images.bootstrap import debian
from runtime.images.store import Store
from tests.helpers.daemons import IMAGE, Result, Room, make_image
from tests.helpers.host import require
from tests.helpers.registry import skopeo
from tests.helpers.warren import PROGRAM

SCRIPT = """
mkdir -p /new/deep && echo added > /new/deep/file && ln /new/deep/file /new/link && ln -s file /new/deep/soft
chown 5:6 /new/deep/file && chmod 4711 /new/deep/file
rm /etc/group
rm -r /data/gone
rm -r /data/again && mkdir /data/again && echo only > /data/again/one
rm -r /data/dir && echo file > /data/dir
rm /data/file && mkdir /data/file
chmod 700 /root
echo more >> /data/kept
mkfifo /new/fifo
"""
LIST = """
cd / && find new data etc root -exec stat -c '%n %f %u:%g' {} + | sort
find new data -type f | sort | xargs md5sum
"""
PREPARE = """
mkdir -p /data/gone/x /data/again/sub /data/dir/sub
touch /data/again/a /data/again/sub/b /data/file /data/kept /data/untouched
"""


class Shell:
    def __init__(self, room: Room, directory: Path) -> None:
        self.room, self.directory = room, directory

    def __call__(self, *words: str | Path) -> Result:
        return self.room(PROGRAM, *words)

    def change(self, image: str, script: str, name: str) -> Path:
        """Run a script in a container, and keep what it changes."""
        kept = self.directory / name
        kept.mkdir()
        self("run", "--keep-changes", kept, image, "sh", "-ec", script).ok()
        return kept


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "changes", token) as room:
        yield room


@pytest.fixture(scope="module")
def warren(room: Room, session_directory: Path) -> Iterator[Shell]:
    room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
    directory = session_directory / "kept"
    directory.mkdir()
    shell = Shell(room, directory)
    shell("load", "--input", make_image(session_directory / "changes.tar")).ok()
    shell("commit", shell.change(IMAGE, PREPARE, "prepared"), "base").ok()
    yield shell
    room("umount", "/var/lib").ok()


@pytest.fixture(scope="module")
def kept(warren: Shell) -> Path:
    return warren.change("base", SCRIPT, "changed")


def tree(warren: Shell, image: str) -> str:
    """All that a container of the image sees of these directories."""
    return warren("run", image, "sh", "-c", LIST).ok().out


def test_diff_tells_as_docker_does(warren: Shell, kept: Path) -> None:
    assert warren("diff", kept).ok().out.splitlines() == [
        "C /data", "C /data/again", "D /data/again/a", "A /data/again/one", "D /data/again/sub", "C /data/dir",
        "D /data/dir/sub", "C /data/file", "D /data/gone", "C /data/kept", "C /etc", "D /etc/group", "A /new",
        "A /new/deep", "A /new/deep/file", "A /new/deep/soft", "A /new/fifo", "A /new/link", "C /root",
    ]  # fmt: skip
    assert {"Kind": "D", "Path": "/etc/group"} in [
        *map(json.loads, warren("diff", "--format", "json", kept).ok().out.splitlines())
    ]


def test_a_committed_image_shows_what_the_container_saw(warren: Shell, kept: Path) -> None:
    options = (
        "--change",
        'CMD ["cat","/data/dir"]',
        "-c",
        "ENV A=b C='d e'",
        "-c",
        "LABEL x=y",
        "-m",
        "why",
        "-a",
        "me",
    )
    id = warren("commit", *options, kept, "changed:1").ok().line
    (found,) = json.loads(warren("image", "inspect", "changed:1").ok().out)
    assert (found["Id"], found["Author"], found["Config"]["Labels"]) == (id, "me", {"x": "y"})
    assert found["Config"]["Env"] == ["PATH=/bin", "A=b", "C=d e"]
    assert warren("run", "changed:1").ok().line == "file"
    assert "why" in warren("history", "changed:1").ok().out.splitlines()[1]
    before = tree(warren, "changed:1")
    assert "new/deep/file 89c9 5:6\n" in before
    assert "data/gone" not in before and "again/a" not in before and "again/sub" not in before
    saw = warren.change("base", f"{SCRIPT}\n({LIST}) > /tmp/t", "saw")
    assert before == (saw / "upper/tmp/t").read_text()


def test_others_read_the_layer(warren: Shell, kept: Path) -> None:
    require("skopeo")
    warren("commit", kept, "for-others").ok()
    file = warren.directory / "others.tar"
    warren("save", "--format", "oci-archive", "--output", file, "for-others").ok()
    layout = warren.directory / "layout"
    skopeo("copy", f"oci-archive:{file}", f"oci:{layout}:1")
    require("umoci")
    bundle = warren.directory / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:1", bundle], check=True, capture_output=True)
    root = bundle / "rootfs"
    assert (root / "new/deep/file").stat().st_nlink == 2
    assert (root / "new/deep/file").stat().st_mode & 0o7777 == 0o4711
    assert sorted(path.name for path in (root / "data/again").iterdir()) == ["one"]
    assert (root / "data/dir").read_text() == "file\n"
    assert not (root / "data/gone").exists() and not (root / "etc/group").exists()


def test_a_root_is_imported(warren: Shell) -> None:
    file = warren.directory / "root.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    id = warren("import", "--change", 'ENTRYPOINT ["/bin/busybox"]', "-m", "from a tar", file, "root:1").ok().line
    assert warren("image", "inspect", "--format", "{{.Id}}", "root:1").ok().line == id
    assert warren("run", "root:1", "echo", "imported").ok().line == "imported"
    assert "from a tar" in warren("history", "root:1").ok().out


def test_what_cannot_be_committed_is_said(warren: Shell, kept: Path) -> None:
    (warren.directory / "empty").mkdir()
    warren("commit", warren.directory / "empty", "x").exits(125, "keeps no changes of a container of an image")
    for change, said in (
        ("FROM x", "unknown instruction"),
        ("CMD", "nothing behind"),
        ("ENV A='", "no closing quotation"),
    ):
        warren("commit", "--change", change, kept, "x").exits(125, said)
    warren("run", "--keep-changes", kept, IMAGE, "true").exits(125, "keeps changes to another image")
    warren("import", "/etc/passwd", "x").exits(125)
    assert "docker.io/library/x" not in warren("images").out


def test_an_image_of_busybox(warren: Shell) -> None:
    id = warren("image", "bootstrap", "busybox").ok().line
    assert warren("image", "inspect", "--format", "{{.Id}}", "busybox").ok().line == id
    assert warren("run", "--user", "nobody", "busybox", "id", "-un").ok().line == "nobody"
    assert warren("run", "busybox", "stat", "-c", "%a %u", "/tmp", "/bin").ok().out == "1777 0\n755 0\n"
    warren("image", "bootstrap", "--suite", "x", "busybox").exits(125, "for debian")


if os.environ.get("WARREN_LONG"):

    def test_an_image_of_debian(directory: Path) -> None:
        """A minute, with the packages of debootstrap's own mirror."""
        require("debootstrap")
        store = Store(str(directory / "store"))
        made = debian(store, reference.parse("localhost/debian"), mirror=os.environ.get("WARREN_MIRROR", ""))
        layer = Path(store.layer_path(made.chains[0]))
        assert (layer / "usr/bin/dpkg").exists()
        assert (layer / "usr/bin/passwd").stat().st_mode & 0o4000


def test_debootstrap_says_what_is_wrong(directory: Path) -> None:
    require("debootstrap")
    store = Store(str(directory / "store"))
    with pytest.raises(ImageError, match="debootstrap failed: ") as caught:
        debian(store, reference.parse("localhost/debian"), "nosuch", "http://127.0.0.1:1/")
    assert "\n" not in str(caught.value)
