"""A user's own layers: attributes of user.overlay, nothing chowned, devices noted, and an overlay of the user's."""

from pathlib import Path

import pytest

from runtime.images import tar
from tests.helpers.host import require
from tests.helpers.layers import END, entry, opaque, pax, symlink, whiteout
from tests.helpers.layers import directory as folder
from tests.helpers.users import User
from tests.helpers.warren import PROGRAM

UNPACK = """
import os, sys
from runtime.images.tar import Reader
from runtime.images.overlay import Owner
from runtime.images.unpack import unpack
os.mkdir(sys.argv[1])
with open(sys.argv[2], "rb") as file:
    print(*unpack(Reader(file), os.open(sys.argv[1], os.O_RDONLY), Owner(privileged=False)).notes, sep="\\n")
"""
LOWER = (
    folder("./", mode=0o555),
    folder("kept", mode=0o500, uid=7),
    entry("kept/file", mode=0o400, uid=1000, gid=1000),
    entry("gone"),
    folder("emptied"),
    entry("emptied/below"),
    entry("su", mode=0o4755),
    entry("dev/null", tar.CHARACTER, major=1, minor=3),
    pax((b"SCHILY.xattr.user.overlay.opaque", b"y"), (b"SCHILY.xattr.security.capability", b"x")),
    folder("marked"),
    symlink("way", "kept"),
    entry("way/through"),
)
UPPER = (
    whiteout("gone"),
    entry("emptied/mine"),
    opaque("emptied"),
    folder("kept", mode=0o500),
    entry("marked/mine"),
)


@pytest.fixture
def place(user: User, directory: Path) -> Path:
    return user.give(directory)


def unpacked(user: User, path: Path, *entries: bytes) -> str:
    archive = path.with_suffix(".tar")
    archive.write_bytes(b"".join(entries) + END)
    archive.chmod(0o644)
    done = user.run(PROGRAM.with_name("python3"), "-I", "-c", UNPACK, path, archive)
    assert not done.returncode, done.stderr
    return done.stdout


def test_an_overlay_of_the_users_own(user: User, place: Path) -> None:
    require("overlay")
    notes = unpacked(user, place / "lower", *LOWER)
    unpacked(user, place / "upper", *UPPER)
    assert "dev/null: this user may not make device nodes" in notes
    assert "user.overlay.opaque" in notes and "security.capability" in notes
    script = (
        'mkdir "$1/merged" && mount -t overlay overlay -o "userxattr,lowerdir=$1/upper:$1/lower" "$1/merged" '
        '&& cd "$1/merged" && find . -mindepth 1 -printf "%P %y %m %U:%G\\n"'
    )
    done = user.run("unshare", "-Urm", "sh", "-c", script, "sh", place)
    assert not done.returncode, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "dev d 755 0:0", "emptied d 755 0:0", "emptied/mine f 644 0:0", "kept d 500 0:0", "kept/file f 400 0:0",
        "kept/through f 644 0:0", "marked d 755 0:0", "marked/mine f 644 0:0", "su f 4755 0:0", "way l 777 0:0",
    ]  # fmt: skip
    assert (place / "lower/kept/file").lstat().st_uid == user.uid
