"""Images of an ordinary user: with subordinate ids files keep their owners; without, the user is told."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.layers import END, entry, hard_link, pax, symlink, whiteout
from tests.helpers.layers import directory as folder
from tests.helpers.users import User
from tests.helpers.warren import PROGRAM

Done = subprocess.CompletedProcess[str]
ROOT = (
    folder("bin"),
    folder("etc"),
    entry("etc/passwd", data=b"root:x:0:0::/:/bin/sh\nrat:x:999:998::/srv:/bin/sh\n"),
    folder("srv", mode=0o700, uid=999, gid=998),
    entry("srv/secret", mode=0o600, uid=999, gid=998, data=b"cheese\n"),
    hard_link("srv/again", "srv/secret"),
    folder("srv/deep", mode=0o500, uid=999, gid=998),
    entry("srv/deep/file", uid=65534, gid=65534),
    symlink("way", "srv"),
    entry("su", mode=0o4755, uid=999),
    folder("tmp", mode=0o1777),
)


def ok(done: Done) -> str:
    assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def warren(user: User, *words: str | Path) -> Done:
    return user.run(PROGRAM, *words)


@pytest.fixture
def archive(directory: Path) -> Path:
    require("overlay")
    programs = [entry("bin/busybox", mode=0o755, data=Path("/bin/busybox").read_bytes())]
    programs += [symlink(f"bin/{name}", "busybox") for name in ("sh", "stat", "cat", "id", "touch", "ls")]
    path = directory / "root.tar"
    path.write_bytes(b"".join([*ROOT[:1], *programs, *ROOT[1:]]) + END)
    directory.chmod(0o755)
    path.chmod(0o644)
    return path


def empty(user: User) -> None:
    """Remove all of the user's images, which proves that they can be."""
    ok(warren(user, "image", "prune", "--all", "--force"))
    left = user.run("find", f"{user.home}/.local/share/warren/images/layers", "-mindepth", "1").stdout
    assert left == ""


@pytest.fixture
def rat(user_with_ids: User, archive: Path) -> Iterator[User]:
    done = warren(user_with_ids, "import", archive, "burrow")
    ok(done)
    assert done.stderr == ""
    yield user_with_ids
    empty(user_with_ids)


def test_files_keep_their_owners(rat: User) -> None:
    out = ok(warren(rat, "run", "--rm", "burrow", "stat", "-c", "%n %u:%g %a", "/srv", "/srv/secret", "/srv/deep",
                    "/srv/deep/file", "/su", "/way", "/bin"))  # fmt: skip
    assert out.splitlines() == [
        "/srv 999:998 700", "/srv/secret 999:998 600", "/srv/deep 999:998 500", "/srv/deep/file 65534:65534 644",
        "/su 999:0 4755", "/way 0:0 777", "/bin 0:0 755",
    ]  # fmt: skip


def test_who_owns_them_may_use_them(rat: User) -> None:
    own = "id -un; cat /srv/secret && touch /srv/new && ls /srv"
    out = ok(warren(rat, "run", "--rm", "--user", "rat", "burrow", "sh", "-c", own))
    assert out.split() == ["rat", "cheese", "again", "deep", "new", "secret"]
    assert warren(rat, "run", "--rm", "--user", "1000", "burrow", "cat", "/srv/secret").returncode == 1


def test_they_are_the_users_on_the_host(rat: User) -> None:
    """Nobody gets an id that /etc/subuid does not give."""
    numbers = user_range(rat)
    layers = Path(rat.home, ".local/share/warren/images/layers")
    found = {path.lstat().st_uid for path in layers.rglob("*")}
    assert len(found) == 3
    assert all(uid == rat.uid or uid in numbers for uid in found)


def user_range(user: User) -> range:
    for line in Path("/etc/subuid").read_text().splitlines():
        name, first, count = line.split(":")
        if name in (user.name, str(user.uid)):
            return range(int(first), int(first) + int(count))
    raise AssertionError(f"{user.name} has no subordinate ids")


def test_a_layer_above_keeps_them_too(rat: User, directory: Path) -> None:
    """What it implies gets the attributes of the layer below; what it hides is hidden, what it lacks is there."""
    image = directory / "image"
    layers = Path(rat.home, ".local/share/warren/images")
    ok(warren(rat, "save", "--output", rat.give(directory) / "out.tar", "burrow"))
    subprocess.run(["tar", "-C", make(image), "-xf", directory / "out.tar"], check=True)
    (entries,) = json.loads((image / "manifest.json").read_text())
    config = json.loads((image / entries["Config"]).read_text())
    upper = entry("srv/deep/more", uid=999, gid=998) + whiteout("srv/secret") + END
    (image / "upper.tar").write_bytes(upper)
    config["rootfs"]["diff_ids"].append("sha256:" + hashlib.sha256(upper).hexdigest())
    config.pop("history", None)
    (image / "config.json").write_text(json.dumps(config))
    entries.update(Config="config.json", RepoTags=["burrow:2"], Layers=[*entries["Layers"], "upper.tar"])
    (image / "manifest.json").write_text(json.dumps([entries]))
    subprocess.run(["tar", "-C", image, "-cf", directory / "in.tar", "."], check=True)
    (directory / "in.tar").chmod(0o644)
    ok(warren(rat, "load", "--input", directory / "in.tar"))
    out = ok(
        warren(rat, "run", "--rm", "burrow:2", "sh", "-c", "stat -c '%n %u:%g %a' /srv /srv/deep; ls /srv /srv/deep")
    )
    assert out.split() == [
        "/srv", "999:998", "700", "/srv/deep", "999:998", "500", "/srv:", "again", "deep", "/srv/deep:", "file", "more",
    ]  # fmt: skip
    assert ok(warren(rat, "image", "verify")) == ""
    for path in layers.glob("layers/*/srv/deep/file"):
        path.chmod(0o600)
    done = warren(rat, "image", "verify", "--repair")
    assert done.returncode == 0
    assert "'srv/deep/file' has other attributes: unpacked again" in done.stdout
    assert ok(warren(rat, "image", "verify")) == ""


def make(path: Path) -> Path:
    path.mkdir()
    return path


def test_an_id_beyond_the_users_is_an_error(user_with_ids: User, directory: Path) -> None:
    directory.chmod(0o755)
    path = directory / "far.tar"
    path.write_bytes(pax((b"uid", b"3000000000")) + entry("far") + END)
    path.chmod(0o644)
    done = warren(user_with_ids, "import", path, "far")
    assert done.returncode == 125
    assert done.stderr.startswith("warren: layer: 'far' belongs to 3000000000:0, which no id here stands for (")
    empty(user_with_ids)


def test_without_subordinate_ids_the_user_is_told(plain_user: User, archive: Path) -> None:
    done = warren(plain_user, "import", archive, "burrow")
    ok(done)
    (line,) = done.stderr.splitlines()
    assert ": 5 files of other owners, such as srv/secret (999:998), belong to root in containers" in line
    assert "no subordinate ids" in line
    try:
        out = ok(warren(plain_user, "run", "--rm", "burrow", "stat", "-c", "%u:%g %a", "/srv", "/srv/secret"))
        assert out.splitlines() == ["0:0 700", "0:0 600"]
    finally:
        empty(plain_user)
