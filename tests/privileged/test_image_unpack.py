"""Layers as files: what overlayfs shows of them, what umoci makes of the same, and what hostile ones achieve."""

import gzip
import hashlib
import itertools
import json
import os
import resource
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images import tar
from runtime.images.apart import FUNCTIONS
from runtime.images.store import Store
from runtime.images.unpack import Limits
from tests.helpers.host import require
from tests.helpers.layers import (
    END,
    entry,
    hard_link,
    header,
    opaque,
    pax,
    record,
    symlink,
    unpack_into,
    unpack_source,
    whiteout,
)
from tests.helpers.layers import (
    directory as folder,
)

LONG = bool(os.environ.get("WARREN_LONG"))
SECONDS = 20
FIND = r"%P\t%y %m %U:%G %s %n %l %T@\n"


@pytest.fixture
def layer(directory: Path) -> Path:
    return directory / "layer"


@pytest.fixture(autouse=True)
def neighbour(directory: Path) -> Iterator[None]:
    """Nothing outside of the layer's directory changes, whatever the test unpacks."""
    beside = directory / "neighbour"
    beside.mkdir()
    (beside / "secret").write_text("untouched")
    (beside / "program").write_bytes(b"\x7fELF")
    (beside / "program").chmod(0o755)
    before = snapshot(beside), os.stat("/etc/passwd").st_nlink, sorted(os.listdir("/"))
    yield
    after = snapshot(beside), os.stat("/etc/passwd").st_nlink, sorted(os.listdir("/"))
    assert before == after, "something outside changed"


def snapshot(path: Path) -> list[tuple[str, os.stat_result, bytes]]:
    found = [path, *sorted(path.rglob("*"))]
    # Reading must not count as a change.
    return [
        (
            str(one),
            os.stat_result((*one.lstat()[:7], 0, *one.lstat()[8:10])),
            one.read_bytes() if one.is_file() else b"",
        )
        for one in found
    ]


def tree(path: Path) -> dict[str, str]:
    """What is below a directory, one line each: type, and content or target."""
    found = {}
    for one in sorted(path.rglob("*")):
        mode = one.lstat().st_mode
        if stat.S_ISLNK(mode):
            what = "-> " + os.readlink(one)
        elif stat.S_ISREG(mode):
            what = "= " + one.read_text(errors="replace")
        elif stat.S_ISCHR(mode) and not one.lstat().st_rdev:
            what = "whiteout"
        else:
            what = stat.filemode(mode)[0]
        found[str(one.relative_to(path))] = what
    return found


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def refused(path: Path, *entries: bytes, limits: Limits | None = None) -> str:
    started = time.monotonic()
    with pytest.raises(ImageError) as caught:
        unpack_into(path, *entries, limits=limits)
    assert time.monotonic() - started < SECONDS
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what a layer may do: the real overlayfs, and umoci, as witnesses

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
BASE = (
    folder("./"),
    folder("etc", mtime=1_500_000_000),
    entry("etc/passwd", data=b"root:x:0:0\n"),
    entry("etc/old", data=b"old"),
    folder("gone"),
    entry("gone/file"),
    folder("emptied"),
    entry("emptied/below", data=b"hidden"),
    folder("emptied/dir"),
    entry("becomes-dir", data=b"a file"),
    folder("becomes-file"),
    entry("becomes-file/x"),
    folder("becomes-link"),
    entry("becomes-link/x"),
    folder("both"),
    entry("both/lower"),
    folder("ahtob"),
    entry("ahtob/lower"),
    folder("usr"),
    folder("usr/lib", mode=0o2755, gid=5),
    symlink("lib", "usr/lib"),
    entry("lib/through", data=b"through a link"),
    entry("usr/su", data=b"su", mode=0o4755, uid=0, gid=0),
    entry("usr/owned", data=b"o", mode=0o6711, uid=1000, gid=1001),
    hard_link("usr/hard", "usr/owned"),
    hard_link("lib/soft", "lib"),
    entry("dev/null", tar.CHARACTER, major=1, minor=3, mode=0o666),
    entry("dev/disk", tar.BLOCK_DEVICE, major=8, minor=0, mode=0o660, gid=6),
    entry("run/pipe", tar.FIFO, mode=0o600),
    folder("tmp", mode=0o1777),
    entry("n" * 255, data=b"long"),
    entry("/".join(["d" * 100] * 3) + "/file", data=b"deep"),
    entry(b"\xff\xfe", data=b"not UTF-8"),
    entry("twice", data=b"first"),
    entry("twice", data=b"second"),
    pax((b"SCHILY.xattr.user.note", b"kept"), (b"SCHILY.xattr.security.capability", CAPABILITY)),
    entry("usr/ping", mode=0o755, uid=3),
)
UPPER = (
    folder("etc", mode=0o700, uid=7, mtime=1_400_000_000),
    entry("etc/new", data=b"new"),
    whiteout("etc/old"),
    whiteout("gone"),
    entry("emptied/after", data=b"mine, before the mark"),
    opaque("emptied"),
    entry("emptied/later", data=b"mine, behind the mark"),
    folder("emptied"),
    folder("becomes-dir"),
    entry("becomes-dir/inside"),
    entry("becomes-file", data=b"now a file"),
    symlink("becomes-link", "etc"),
    whiteout("both"),
    folder("both"),
    entry("both/upper"),
    folder("ahtob"),
    entry("ahtob/upper"),
    whiteout("ahtob"),
    whiteout("never-was"),
    folder("usr/lib", mode=0o2755, gid=5),
    entry("usr/lib/more"),
    folder("usr"),
)


def test_two_layers_as_overlayfs_shows_them_and_umoci_unpacks_them(directory: Path) -> None:
    require("overlay")
    lower, upper = directory / "lower", directory / "upper"
    assert unpack_into(lower, *BASE) == []
    assert unpack_into(upper, *UPPER) == []
    shown = overlay([upper, lower], directory)
    theirs = umoci(directory, BASE, UPPER)
    for name in set(shown) | set(theirs):
        ours, other = shown.get(name, ""), theirs.get(name, "")
        assert ours.split()[:3] == other.split()[:3], name
        if ours[0] == "f":
            assert ours == other, name
        elif ours[0] == "l":
            assert ours.split()[5] == other.split()[5], name
    assert shown["etc"].startswith("d 700 7:0 ") and shown["etc"].endswith(" 1400000000.0000000000")
    assert sorted(name for name in shown if name.startswith(("both", "ahtob", "emptied", "gone", "becomes"))) == [
        "ahtob", "ahtob/upper", "becomes-dir", "becomes-dir/inside", "becomes-file", "becomes-link",
        "both", "both/upper", "emptied", "emptied/after", "emptied/later",
    ]  # fmt: skip
    assert (lower / "twice").read_text() == "second"
    assert (lower / "usr/lib/through").read_text() == "through a link"
    assert shown["usr/su"].startswith("f 4755 0:0") and shown["usr/owned"].startswith("f 6711 1000:1001")
    assert (lower / "usr/owned").samefile(lower / "usr/hard")
    assert os.getxattr(lower / "usr/ping", "security.capability") == CAPABILITY
    assert os.getxattr(lower / "usr/ping", "user.note") == b"kept"
    assert (lower / "dev/null").stat().st_rdev == os.makedev(1, 3)


def test_the_same_archive_always_gives_the_same_layer(directory: Path) -> None:
    """`image verify` compares with what it unpacks again, whiteouts and implied directories too."""
    for name, entries in (("base", BASE), ("upper", UPPER)):
        for number in (1, 2):
            unpack_into(directory / f"{name}{number}", *entries)
            time.sleep(0.01)
        one, two = (str(directory / f"{name}{number}") for number in (1, 2))
        assert FUNCTIONS["compare"](one, two) == ""
    os.utime(directory / "upper2/gone", (5, 5), follow_symlinks=False)
    assert FUNCTIONS["compare"](one, two) == "'gone' has other attributes"


def test_directories_that_a_layer_does_not_name_keep_what_the_lower_one_says(directory: Path) -> None:
    """As docker and umoci have it; /tmp would lose its sticky bit to a layer that has only tmp/file."""
    lower, upper = (folder("tmp", mode=0o1777, uid=3),), (entry("tmp/file"),)
    unpack_into(directory / "lower", *lower)
    unpack_into(directory / "upper", *upper, lower=[directory / "lower"])
    assert umoci(directory, lower, upper)["tmp"].startswith("d 1777 3:0")
    assert overlay([directory / "upper", directory / "lower"], directory)["tmp"].startswith("d 1777 3:0")


def test_attributes_come_from_the_highest_layer_that_shows_the_directory(directory: Path) -> None:
    os.setxattr(
        make(directory, "base", folder("a", mode=0o700), folder("a/b", mode=0o711, uid=5)) / "a/b", "user.x", b"1"
    )
    make(directory, "hole", folder("other"))
    unpack_into(directory / "top", entry("a/b/c/file"), lower=[directory / "hole", directory / "base"])
    assert modes(directory / "top", "a", "a/b", "a/b/c") == ["700 0", "711 5", "755 0"]
    assert os.getxattr(directory / "top/a/b", "user.x") == b"1"


@pytest.mark.parametrize(
    "hides",
    [
        (entry("a/.wh.b"),),
        (entry("a/.wh..wh..opq"),),
        (entry(".wh.a"),),
        (entry(".wh..wh..opq"),),
        (entry("a", b"2", link="other"), folder("other/b", mode=0o777)),
        (entry("a/b"),),
    ],
    ids=["whiteout", "opaque", "whiteout above", "opaque root", "link", "file"],
)
def test_what_a_layer_hides_lends_no_attributes(directory: Path, hides: tuple[bytes, ...]) -> None:
    make(directory, "base", folder("a", mode=0o700), folder("a/b", mode=0o711))
    make(directory, "hiding", *hides)
    unpack_into(directory / "top", entry("a/b/file"), lower=[directory / "hiding", directory / "base"])
    assert modes(directory / "top", "a/b") == ["755 0"]


def test_the_root_keeps_what_the_lower_layer_says_of_it(directory: Path) -> None:
    make(directory, "base", folder(".", mode=0o711, uid=4))
    unpack_into(directory / "top", entry("file"), lower=[directory / "base"])
    assert modes(directory / "top", ".") == ["711 4"]


def test_an_opaque_root_hides_all_layers_below(directory: Path) -> None:
    """overlayfs does not look for the mark there: such a layer is the last that is mounted."""
    store = Store(str(directory / "store"))
    chains = [f"sha256:{digit * 64}" for digit in "abc"]
    (directory / "store/layers").mkdir(parents=True)
    for chain, name in zip(chains, ("low", ".wh..wh..opq", "high"), strict=True):
        unpack_into(Path(store.layer_path(chain)), entry(name))
    assert store.layer_paths(chains) == [store.layer_path(chains[2]), store.layer_path(chains[1])]


def make(directory: Path, name: str, *entries: bytes) -> Path:
    unpack_into(directory / name, *entries)
    return directory / name


def modes(layer: Path, *names: str) -> list[str]:
    return [f"{stat.S_IMODE((layer / name).stat().st_mode):o} {(layer / name).stat().st_uid}" for name in names]


def overlay(layers: list[Path], directory: Path) -> dict[str, str]:
    """What a read-only overlay of these shows, the highest first; in a mount namespace that ends with find(1)."""
    target = directory / "merged"
    target.mkdir(exist_ok=True)
    script = 'mount -t overlay overlay -o "lowerdir=$1" "$2" && cd "$2" && find . -mindepth 1 -printf "$3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", ":".join(map(str, layers)), target, FIND],
        capture_output=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return lines(done.stdout)


def umoci(directory: Path, *layers: tuple[bytes, ...]) -> dict[str, str]:
    image = directory / "image"
    (image / "blobs/sha256").mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (image / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    plain = [b"".join(layer) + END for layer in layers]
    described = [blob(gzip.compress(layer), "layer.v1.tar+gzip") for layer in plain]
    diffs = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in plain]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}, "config": {}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": described,
    }
    named = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": "test"}
    (image / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (image / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    subprocess.run(
        ["umoci", "unpack", "--image", f"{image}:test", directory / "bundle"], check=True, capture_output=True
    )
    found = subprocess.run(
        ["find", ".", "-mindepth", "1", "-printf", FIND],
        cwd=directory / "bundle/rootfs",
        check=True,
        capture_output=True,
    )
    return lines(found.stdout)


def lines(text: bytes) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in os.fsdecode(text).splitlines())


MARKS = {
    "whiteout, directory": ((whiteout("d"), folder("d"), entry("d/mine")), {"d", "d/mine"}),
    "directory, whiteout": ((folder("d"), entry("d/mine"), whiteout("d")), {"d", "d/mine"}),
    "whiteout, implied directory": ((whiteout("d"), entry("d/mine")), {"d", "d/mine"}),
    "whiteout, file": ((whiteout("d"), entry("d")), {"d"}),
    "file, whiteout": ((entry("d"), whiteout("d")), {"d"}),
    "whiteout, file, directory": ((whiteout("d"), entry("d"), folder("d")), {"d"}),
    "file, directory": ((entry("d"), folder("d"), entry("d/mine")), {"d", "d/mine"}),
    "file, implied directory": ((entry("d"), entry("d/mine")), {"d", "d/mine"}),
    "link, directory": ((symlink("d", "e"), folder("d")), {"d"}),
    "whiteout twice": ((whiteout("d"), whiteout("d")), set()),
    "whiteout of a directory's file": ((whiteout("d/lower"),), {"d"}),
    "opaque": ((opaque("d"),), {"d"}),
    "opaque, then entries": ((opaque("d"), entry("d/mine")), {"d", "d/mine"}),
    "entries, then opaque": ((entry("d/mine"), opaque("d")), {"d", "d/mine"}),
    "opaque, then the directory": ((opaque("d"), folder("d", mode=0o700)), {"d"}),
    "only the directory": ((folder("d"),), {"d", "d/lower"}),
    "AUFS's own files": (
        (entry(".wh..wh.aufs"), folder(".wh..wh.plnk"), entry(".wh..wh.plnk/1.2"), folder("d")),
        {"d", "d/lower"},
    ),
}


@pytest.mark.parametrize("case", MARKS)
def test_whiteouts_hide_lower_layers_and_nothing_else(case: str, directory: Path) -> None:
    require("overlay")
    entries, wanted = MARKS[case]
    unpack_into(directory / "lower", folder("d"), entry("d/lower"))
    unpack_into(directory / "upper", *entries)
    assert set(overlay([directory / "upper", directory / "lower"], directory)) == wanted


def test_an_opaque_root_carries_the_mark(directory: Path) -> None:
    """overlayfs takes no notice of it there: who mounts the layers must leave out those below."""
    require("overlay")
    unpack_into(directory / "lower", entry("lower"))
    unpack_into(directory / "upper", entry("mine"), opaque(), folder("./"))
    assert is_opaque(directory / "upper")
    assert set(overlay([directory / "upper", directory / "lower"], directory)) == {"mine", "lower"}


def test_a_link_of_one_layer_is_not_followed_by_the_next(directory: Path) -> None:
    """Each layer has a directory of its own; overlayfs lets the later directory hide the link."""
    unpack_into(directory / "lower", symlink("data", str(directory / "neighbour")))
    unpack_into(directory / "upper", entry("data/secret", data=b"overwritten"))
    assert (directory / "upper/data/secret").read_text() == "overwritten"


# ---- links within a layer


LINKS = {
    "absolute": (symlink("l", "/target"), entry("l/f")),
    "absolute, implied": (symlink("l", "/a/b/c"), entry("l/f")),
    "climbing": (symlink("l", "../../../../../../../../target"), entry("l/f")),
    "chain": (symlink("l", "m"), symlink("m", "./n/"), symlink("n", "//target"), entry("l/f")),
    "climbing through a link": (folder("a/b"), symlink("x", "a/b"), symlink("l", "x/../../target"), entry("l/f")),
    "to the root": (symlink("l", "/"), entry("l/f")),
    "to the root by ..": (symlink("l", ".."), entry("l/f")),
    "to the host's root": (symlink("l", "/proc/self/root"), entry("l/f")),
    "to a descriptor": (symlink("l", "/proc/self/fd/3"), entry("l/f")),
}
PLACES = {
    "absolute": "target/f", "absolute, implied": "a/b/c/f", "climbing": "target/f", "chain": "target/f",
    "climbing through a link": "target/f", "to the root": "f", "to the root by ..": "f",
    "to the host's root": "proc/self/root/f", "to a descriptor": "proc/self/fd/3/f",
}  # fmt: skip


@pytest.mark.parametrize("case", LINKS)
def test_links_of_the_layer_itself_lead_to_places_in_it(case: str, layer: Path) -> None:
    unpack_into(layer, *LINKS[case])
    found = tree(layer)
    assert found[PLACES[case]] == "= "
    assert found["l"].startswith("-> ")


def test_directories_behind_links_get_their_attributes(layer: Path) -> None:
    unpack_into(layer, folder("real"), symlink("l", "real"), folder("l/d", mode=0o2710, uid=5, mtime=1_000_000_000))
    status = (layer / "real/d").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_mtime) == (0o2710, 5, 1_000_000_000)


def test_a_link_that_changes_its_mind(layer: Path) -> None:
    """What was reached through it is looked up again, and its descriptor is not another file's."""
    unpack_into(
        layer, folder("a"), folder("b"), symlink("l", "a"), entry("l/d/1"), symlink("l", "b"), entry("l/d/2"),
        entry("a", data=b"a file now"), symlink("m", "b"), entry("m/d/3"), entry("b/d", data=b"and this"),
        entry("m/d/4"), entry("l/d/5"),
    )  # fmt: skip
    found = tree(layer)
    assert found["a"] == "= a file now"
    assert {"b/d/4", "b/d/5"} <= set(found)
    assert not {"b/d/2", "b/d/3"} & set(found)


# ---- refused

REFUSED = {
    "..": (entry("../neighbour/secret"),),
    ".. within": (entry("a/../../neighbour/secret"),),
    "absolute ..": (entry("/../neighbour/secret"),),
    ".. at the end": (folder("a/.."),),
    "hard link out": (hard_link("l", "../neighbour/secret"),),
    "hard link to the host": (hard_link("l", "/etc/passwd"),),
    "hard link through a link": (symlink("e", "/etc"), hard_link("l", "e/passwd")),
    "hard link to a directory": (folder("d"), hard_link("l", "d")),
    "hard link to nothing": (hard_link("l", ""),),
    "hard link to itself": (hard_link("l", "l"),),
    "hard link to what comes later": (hard_link("l", "f"), entry("f")),
    "hard link to the root": (hard_link("l", "/"),),
    "hard link to a whiteout": (whiteout("w"), hard_link("l", "w")),
    "hard link to a whiteout's name": (whiteout("w"), hard_link("l", ".wh.w")),
    "hard link to its own parent's file": (entry("d/f"), hard_link("d", "d/f")),
    "link to nothing": (symlink("l", ""),),
    "loop": (symlink("a", "b"), symlink("b", "a"), entry("a/f")),
    "loop of one": (symlink("a", "a/x"), entry("a/f")),
    "device 0:0": (entry("w", tar.CHARACTER),),
    "block device 0:0": (entry("w", tar.BLOCK_DEVICE),),
    "no such device": (entry("w", tar.CHARACTER, major=1 << 12, minor=1),),
    "root is a file": (entry("./"),),
    "root is a link": (symlink(".", "etc"),),
    "root is empty": (header(b""),),
    "whiteout of nothing": (entry(".wh."),),
    "whiteout of .": (entry("d/.wh.."),),
    "whiteout of the parent": (entry("d/.wh..."),),
    "below a whiteout": (entry("d/.wh.x/y"),),
    "name of 256 bytes": (entry("n" * 256),),
    "too deep": (entry("d/" * 256 + "f"),),
    "too deep through links": (
        entry("d/" * 200 + "f"), symlink("l", "d/" * 200), entry("l/" + "e/" * 100 + "f"),
    ),
    "far too deep a link": (symlink("l", "d/" * 2000), entry("l/f")),
    "component of a link too long": (symlink("l", "n" * 300), entry("l/f")),
    "8 TiB of nothing": (
        pax((b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"%d" % (8 << 40))), entry("sparse"),
    ),
    "many large ones": tuple(
        pax((b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"%d" % (1 << 36))) + entry(f"sparse{n}") for n in range(3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, layer: Path) -> None:
    refused(layer, *REFUSED[case])


def test_entries_of_the_wrong_place_are_tamed_not_refused(layer: Path) -> None:
    unpack_into(layer, entry("/etc/x"), entry("//y"), entry("./././z"), entry("a//b/./c"))
    assert set(tree(layer)) == {"etc", "etc/x", "y", "z", "a", "a/b", "a/b/c"}


def test_overlays_own_attributes_are_left_out(layer: Path) -> None:
    keys = [b"trusted.overlay.opaque", b"trusted.overlay.redirect", b"user.overlay.opaque", b"user.overlay.metacopy"]
    records = [(b"SCHILY.xattr." + key, b"y") for key in keys]
    notes = unpack_into(layer, pax(*records), folder("d"), pax(*records), entry("f"), pax(*records), symlink("l", "f"))
    assert [os.listxattr(layer / name, follow_symlinks=False) for name in ("d", "f", "l")] == [[], [], []]
    assert len(notes) == 12 and "trusted.overlay.redirect" in notes[1]


def test_attributes_that_no_file_can_have_are_noted(layer: Path) -> None:
    odd = [
        (b"user." + b"n" * 300, b""),
        (b"user.big", b"x" * 70_000),
        (b"nonsense", b""),
        (b"system.odd", b""),
        (b"", b""),
    ]
    notes = unpack_into(layer, pax(*[(b"SCHILY.xattr." + key, value) for key, value in odd]), entry("f"))
    assert len(notes) == len(odd)


def test_implied_directories_whatever_the_umask(layer: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack_into(layer, entry("a/b/f", mode=0o644), symlink("l", "/c/d"), entry("l/f"))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((layer / name).stat().st_mode) for name in ("a", "a/b", "c/d")] == [0o755] * 3


def test_files_replace_directories_and_the_reverse(layer: Path) -> None:
    unpack_into(
        layer, entry("a/b/c/d"), entry("a/b", data=b"file"), folder("f"), symlink("f", "x"), entry("f/g"),
        entry("h"), hard_link("i", "h"), folder("i"), folder("j/k"), hard_link("j", "h"),
        entry("p", tar.FIFO), entry("p"),
    )  # fmt: skip
    assert tree(layer) == {
        "a": "d", "a/b": "= file", "f": "-> x", "x": "d", "x/g": "= ", "h": "= ", "i": "d", "j": "= ", "p": "= ",
    }  # fmt: skip
    assert is_opaque(layer / "i") and not is_opaque(layer / "a")


def test_a_sparse_file_stays_sparse(layer: Path) -> None:
    data = b"x" * 4096
    records = (b"GNU.sparse.map", b"1073741824,4096"), (b"GNU.sparse.size", b"2147483648")
    unpack_into(layer, pax(*records), entry("f", data=data))
    status = (layer / "f").stat()
    assert (status.st_size, status.st_blocks <= 64) == (2 << 30, True)
    with (layer / "f").open("rb") as file:
        file.seek(1 << 30)
        assert file.read(4097) == data + b"\0"


@pytest.mark.parametrize("tail", [b"", b"end"])
def test_zeros_become_holes(layer: Path, tail: bytes) -> None:
    """What a disk image does not use takes no disk here, as it took none where the image was made."""
    size = 1 << 28
    head = header(b"disk", size=size + len(tail) + 5)
    data = b"begin" + bytes(size) + tail
    unpack_into(layer, head + data + bytes(-len(data) % 512), entry("next", data=b"whole"))
    status = (layer / "disk").stat()
    assert status.st_size == len(data)
    assert status.st_blocks * 512 < size // 64
    assert hashlib.sha256((layer / "disk").read_bytes()).digest() == hashlib.sha256(data).digest()
    assert (layer / "next").read_bytes() == b"whole"


def test_times_at_the_ends_of_the_world(layer: Path) -> None:
    for number, text in enumerate((b"-%d" % (1 << 60), b"%d" % (1 << 60), b"-0.5")):
        unpack_into(layer.with_name(f"layer{number}"), pax((b"mtime", text)), entry("f"))
    assert layer.with_name("layer2").joinpath("f").stat().st_mtime_ns == -500_000_000


# ---- many and deep: no loop of ours may be quadratic


class Endless:
    """The entries that `make` makes of 0, 1, 2 ...; read in pieces."""

    def __init__(self, make: "Iterator[bytes]") -> None:
        self._make, self._rest = make, b""

    def read(self, size: int) -> bytes:
        parts, length = [self._rest], len(self._rest)
        while length < 1 << 16 and (part := next(self._make, b"")):
            parts.append(part)
            length += len(part)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def deep_and_many() -> Iterator[bytes]:
    """More deep directories than are kept open, each entry in another one."""
    chains = ["/".join([f"c{n}", *"d" * 250]) for n in range(100)]
    for number in itertools.count():
        yield entry(f"{chains[number % len(chains)]}/f{number}")


def through_links() -> Iterator[bytes]:
    """Chains of links with long targets, more than are remembered, forgotten by something that is replaced."""
    for chain in range(100):
        yield from (symlink(f"l{chain}.{n}", "./" * 1000 + f"l{chain}.{n + 1}") for n in range(35))
        yield folder(f"l{chain}.35")
    for number in itertools.count():
        yield entry(f"l{number % 100}.0/f{number}")
        yield entry("again")


def replaced() -> Iterator[bytes]:
    for number in itertools.count():
        yield entry("d/" * 200 + f"f{number % 100}")
        yield entry("d") if number % 100 == 99 else entry(f"x{number % 5}")


def long_names() -> Iterator[bytes]:
    for number in itertools.count():
        yield folder(f"{'n' * 240}/" * 16 + f"{number}")


def attributes() -> Iterator[bytes]:
    text = b"".join(record(b"SCHILY.xattr.user.%d" % n, b"x" * 1000) for n in range(1000))
    for number in itertools.count():
        yield header(b"x", b"x", len(text)) + text + bytes(-len(text) % 512) + folder(f"d{number}")


def alternating() -> Iterator[bytes]:
    for _ in itertools.count():
        yield folder("d")
        yield entry("d")


def deep_and_replaced() -> Iterator[bytes]:
    for _ in itertools.count():
        yield entry("d/" * 200 + "f")
        yield entry("d")


BOMBS = {
    "deep and many": deep_and_many, "through links": through_links, "replaced": replaced, "long names": long_names,
    "attributes": attributes, "alternating": alternating, "deep and replaced": deep_and_replaced,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_endless_layers_end(name: str, layer: Path) -> None:
    limits = Limits(entries=20_000 if LONG else 5000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises((ImageError, OSError)):
        unpack_source(layer, Endless(BOMBS[name]()), True, limits)
    seconds = time.monotonic() - started
    assert seconds < SECONDS, seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10


@pytest.mark.parametrize("make", [alternating, deep_and_replaced])
def test_directories_are_not_replaced_for_ever(make: Callable[[], Iterator[bytes]], layer: Path) -> None:
    """Within the bound that real layers have."""
    started = time.process_time()
    with pytest.raises(ImageError, match="directories replaced"):
        unpack_source(layer, Endless(make()), True, None)
    assert time.process_time() - started < SECONDS


def test_a_million_entries(layer: Path) -> None:
    count = 1_000_000 if LONG else 20_000
    limits = None if LONG else Limits(entries=10_000)
    source = Endless(entry(f"d{n // 1000}/f{n}") for n in range(count))
    with pytest.raises(ImageError, match="entries"):
        unpack_source(layer, source, True, limits)
