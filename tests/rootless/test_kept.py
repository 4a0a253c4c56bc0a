"""What an ordinary user's containers keep: changes of the root, volumes, and copies of both."""

import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.users import User
from tests.helpers.warren import PROGRAM

BUSYBOX = Path("/bin/busybox")
APPLETS = "sh cat echo ls stat id touch mkdir chown chmod rm sleep true false wc test".split()
PASSWD = b"root:x:0:0::/:/bin/sh\nother:x:1000:1000::/:/bin/sh\n"


def image(path: Path) -> Path:
    """A root of busybox, with files of another user's."""
    with tarfile.open(path, "w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, data in (("etc/passwd", PASSWD), ("data/file", b"of the image\n"), ("gone", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    path.chmod(0o644)
    return path


class Kept:
    def __init__(self, user: User) -> None:
        self.user = user
        self.ids = user.name.endswith("test")

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        done = self.user.run(PROGRAM, *words)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip() if not code else done.stderr


@pytest.fixture
def warren(user: User, session_directory: Path) -> Iterator[Kept]:
    require("overlay")
    kept = Kept(user)
    if "kept-base" not in kept("images"):
        kept("import", image(session_directory / f"{user.name}.tar"), "kept-base")
    yield kept
    for name in kept("volume", "ls", "-q").split():
        kept("volume", "rm", name)


@pytest.fixture
def name(warren: Kept, token: str) -> Iterator[str]:
    yield f"wrn-{token}"
    warren.user.run(PROGRAM, "rm", "-f", "-v", f"wrn-{token}")


def test_changes_of_the_root_outlive_a_stop(warren: Kept, name: str) -> None:
    script = "echo $(($(cat /count || echo 0) + 1)) > /count; rm -f /gone; cat /count"
    warren("create", "--name", name, "kept-base", "sh", "-c", script)
    assert warren("start", "--attach", name) == "1"
    assert warren("start", "--attach", name) == "2"
    assert "changes" not in warren("inspect", "--format", "{{json .enforced}}", name)
    assert {"A /count", "D /gone"} <= set(warren("diff", name).splitlines())


def test_others_files_in_the_container_are_kept_copied_committed_and_removed(warren: Kept, name: str) -> None:
    """With subordinate ids some files are not the user's, who could neither read nor remove them himself."""
    own = "chown -R 1000:1000 /secret;" if warren.ids else ""
    script = f"mkdir /secret; echo hidden > /secret/file; {own} chmod 700 /secret; chmod 600 /secret/file"
    warren("run", "--name", name, "kept-base", "sh", "-ec", script)
    out = warren.user.home / f"out-{name}"
    warren("cp", f"{name}:/secret", out)
    assert (out / "file").read_text() == "hidden\n"
    assert (out / "file").stat().st_uid == warren.user.uid
    archive = warren.user.home / f"root-{name}.tar"
    warren("export", "-o", archive, name)
    with tarfile.open(archive) as tar:
        assert tar.getmember("secret/file").uid == (1000 if warren.ids else 0)
    warren("commit", name, "kept-made")
    assert warren("run", "--rm", "kept-made", "cat", "/secret/file") == "hidden"
    warren("rm", name)
    kept = os.listdir(warren.user.home / ".local/share/warren/containers")
    assert not [entry for entry in kept if len(entry) == 64 or entry.startswith(".gone")]


def test_copies_into_one_that_runs_and_one_that_does_not(warren: Kept, name: str) -> None:
    file = warren.user.home / f"in-{name}"
    file.write_text("mine\n")
    warren.user.give(file)
    warren("run", "-d", "--name", name, "kept-base", "sleep", "1000")
    warren("cp", file, f"{name}:/running")
    warren("stop", "-t", "0", name)
    warren("cp", file, f"{name}:/stopped")
    out = warren.user.home / f"both-{name}"
    for path in ("/running", "/stopped"):
        warren("cp", f"{name}:{path}", out)
        assert out.read_text() == "mine\n"
        out.unlink()


def test_a_volume_is_filled_and_shared(warren: Kept, name: str) -> None:
    warren("volume", "create", "kept-v")
    assert warren("run", "--rm", "-v", "kept-v:/data", "kept-base", "cat", "/data/file") == "of the image"
    warren("run", "--rm", "-v", "kept-v:/x", "kept-base", "sh", "-c", "echo more > /x/more")
    assert warren("run", "--rm", "-v", "kept-v:/y:ro", "kept-base", "cat", "/y/more") == "more"
    warren("run", "-d", "--name", name, "-v", "kept-v:/data", "kept-base", "sleep", "1000")
    assert "in use" in warren("volume", "rm", "kept-v", code=1)
    warren("rm", "-f", name)


def test_a_volume_of_another_user_of_the_container(warren: Kept, user_with_ids: User) -> None:
    if warren.user is not user_with_ids:
        assert "chown" in warren("run", "--rm", "--user", "0", "-v", "kept-u:/v", "kept-base", "sh", "-c",
                                 "chown 1000 /v || echo chown")  # fmt: skip
        return
    out = warren("run", "--rm", "--user", "1000", "-v", "kept-u:/v:U", "kept-base", "sh", "-c",
                 "mkdir -m 700 /v/d; touch /v/d/f; stat -c %u /v/d/f")  # fmt: skip
    assert out == "1000"
    assert "only root can" in warren("run", "--rm", "-v", "kept-u:/v:idmap", "kept-base", "true", code=125)


def test_keep_changes_in_a_directory(warren: Kept, name: str) -> None:
    kept = warren.user.home / f"changes-{name}"
    kept.mkdir()
    warren.user.give(kept)
    warren("run", "--rm", "--keep-changes", kept, "kept-base", "touch", "/made")
    assert (kept / "upper/made").exists()
    assert "A /made" in warren("diff", kept)
    assert "needs root" in warren("run", "--rm", "--keep-changes", kept, "host", "--", "true", code=125)
