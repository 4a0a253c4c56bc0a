"""The tar parser against GNU tar, bsdtar and Python's tarfile, and against archives that no program writes."""

import io
import itertools
import os
import random
import resource
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import ImageError
from runtime.images import tar
from tests.helpers.layers import END, extended, header, padded, pax, record

LONG = bool(os.environ.get("WARREN_LONG"))
SECONDS = 20
"""What issue 6 gives a bomb; nothing here needs a tenth of it."""


def read(archive: bytes) -> list[tuple[tar.Entry, bytes]]:
    """Every entry with the bytes of its file, holes filled in."""
    reader = tar.Reader(io.BytesIO(archive))
    return [(entry, expand(entry, b"".join(reader.data()))) for entry in reader]


def expand(entry: tar.Entry, data: bytes) -> bytes:
    assert len(data) == entry.size
    if entry.segments is None:
        return data
    whole, at = bytearray(entry.length), 0
    for offset, length in entry.segments:
        whole[offset : offset + length] = data[at : at + length]
        at += length
    return bytes(whole)


def one(archive: bytes) -> tar.Entry:
    ((entry, _),) = read(archive)
    return entry


# ---- what other programs write


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that an ordinary user can make, long names, holes, odd times."""
    root = tmp_path_factory.mktemp("tree")
    (root / "file").write_bytes(b"some data\n" * 100)
    (root / "empty").touch()
    (root / "block").write_bytes(bytes(range(256)) * 2)
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("f" * 60)).write_bytes(b"deep")
    (root / ("n" * 255)).write_bytes(b"long")
    (root / ("ü" * 100)).write_bytes(b"not ASCII")
    (root / os.fsdecode(b"\xff\xfe latin")).write_bytes(b"not UTF-8")
    (root / "link").symlink_to("file")
    (root / "long link").symlink_to("/".join(["x" * 200] * 3))
    os.link(root / "file", root / "zz hard")
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as file:
        for offset in range(0, 60 << 16, 1 << 16):
            file.seek(offset)
            file.write(b"%d" % offset * 900)
        file.truncate(5 << 20)
    with (root / "hole").open("wb") as file:
        file.truncate(1 << 20)
    for name, when in (("file", 1_700_000_000_123_456_789), ("block", 0)):
        os.utime(root / name, ns=(when, when))
    (root / "file").chmod(0o4755)
    return root


GNU = {
    "v7": ["--format=v7"],
    "ustar": ["--format=ustar"],
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "gnu sparse": ["--format=gnu", "--sparse"],
    "pax": ["--format=pax"],
    "pax 0.0": ["--format=pax", "--sparse", "--sparse-version=0.0"],
    "pax 0.1": ["--format=pax", "--sparse", "--sparse-version=0.1"],
    "pax 1.0": ["--format=pax", "--sparse", "--sparse-version=1.0"],
    "global": ["--format=pax", "--pax-option=globexthdr.name=g,comment=made by a test"],
}


@pytest.mark.parametrize("options", GNU.values(), ids=GNU)
def test_archives_of_gnu_tar(options: list[str], tree: Path) -> None:
    made = subprocess.run(
        ["tar", "-C", tree, *options, "--sort=name", "-cf", "-", "."], capture_output=True, check=False
    )
    if options[0] not in ("--format=v7", "--format=ustar"):
        assert not made.returncode, made.stderr  # Those two cannot hold every name.
    found = compare_with_tree(made.stdout, tree, nanoseconds=options[0] == "--format=pax")
    assert len(found) > 10
    if "--sparse" in options:
        segments = found[b"./sparse"].segments
        assert segments and len(segments) >= 60
        assert found[b"./sparse"].size < 1 << 20 < found[b"./sparse"].length


@pytest.mark.parametrize("format", ["ustar", "pax", "gnutar", "v7"])
def test_archives_of_bsdtar(format: str, tree: Path) -> None:
    made = subprocess.run(
        ["bsdtar", "-C", tree, f"--format={format}", "--no-read-sparse", "-cf", "-", "."],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert len(compare_with_tree(made.stdout, tree, nanoseconds=format == "pax")) >= 9


def compare_with_tree(archive: bytes, tree: Path, nanoseconds: bool) -> dict[bytes, tar.Entry]:
    entries = read(archive)
    for entry, data in entries:
        compare(entry, data, tree / os.fsdecode(entry.name), tree, nanoseconds)
    return {entry.name: entry for entry, _ in entries}


def compare(entry: tar.Entry, data: bytes, path: Path, tree: Path, nanoseconds: bool) -> None:
    kinds = {tar.FILE: stat.S_ISREG, tar.DIRECTORY: stat.S_ISDIR, tar.SYMLINK: stat.S_ISLNK, tar.FIFO: stat.S_ISFIFO}
    status = path.lstat()
    assert (entry.mode, entry.uid, entry.gid) == (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    wanted = status.st_mtime_ns if nanoseconds else status.st_mtime_ns // 10**9 * 10**9
    assert entry.mtime == wanted or entry.type == tar.LINK, entry.name
    if entry.type == tar.LINK:
        assert (tree / os.fsdecode(entry.link)).samefile(path)
    else:
        assert kinds[entry.type](status.st_mode), entry.name
    if entry.type == tar.SYMLINK:
        # V7 and ustar have room for 100 bytes.
        assert entry.link == os.readlink(os.fsencode(path)) or len(entry.link) <= 100 < status.st_size
    if entry.type == tar.FILE:
        assert entry.length == status.st_size
        assert data == path.read_bytes(), entry.name


def test_times_before_1970(tmp_path: Path) -> None:
    """bsdtar rounds them, or leaves them out."""
    (tmp_path / "f").touch()
    os.utime(tmp_path / "f", ns=(0, -1_500_000_000))
    for format, mtime in (("pax", -1_500_000_000), ("gnu", -2_000_000_000)):
        made = subprocess.run(
            ["tar", "-C", tmp_path, f"--format={format}", "-cf", "-", "f"], capture_output=True, check=True
        )
        assert one(made.stdout).mtime == mtime


def test_special_files_and_owners_of_gnu_tar() -> None:
    """mknod needs root, an archive does not: these are written by Python's tarfile and listed by GNU tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for kind, name in ((tarfile.CHRTYPE, "null"), (tarfile.BLKTYPE, "disk"), (tarfile.FIFOTYPE, "fifo")):
            member = tarfile.TarInfo(name)
            member.type, member.devmajor, member.devminor, member.uid, member.gid = kind, 1, 3, 3_000_000, 4_000_000_000
            archive.addfile(member)
    listed = subprocess.run(
        ["tar", "--numeric-owner", "-tvf", "-"], input=buffer.getvalue(), capture_output=True, check=True
    ).stdout
    assert listed.count(b"3000000/4000000000") == 3 and b" 1,3 " in listed
    null, disk, fifo = (entry for entry, _ in read(buffer.getvalue()))
    assert [entry.type for entry in (null, disk, fifo)] == [tar.CHARACTER, tar.BLOCK_DEVICE, tar.FIFO]
    assert (null.major, null.minor, null.uid, null.gid) == (1, 3, 3_000_000, 4_000_000_000)


# ---- what Python's tarfile writes and reads

NAMES = st.lists(
    st.binary(min_size=1, max_size=120).filter(lambda part: not set(part) & set(b"\0/") and part not in (b".", b"..")),
    min_size=1,
    max_size=4,
).map(b"/".join)
KINDS = [
    tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
]  # fmt: skip
MEMBERS = st.fixed_dictionaries(
    {
        "name": NAMES,
        "kind": st.sampled_from(KINDS),
        "link": NAMES,
        "data": st.binary(max_size=2000),
        "mode": st.integers(0, 0o7777),
        "uid": st.integers(0, 0xFFFFFFFE),
        "gid": st.integers(0, 0xFFFFFFFE),
        "mtime": st.integers(-(1 << 40), 1 << 40),
        "device": st.tuples(st.integers(0, 4095), st.integers(0, 0o7777777)),
        "xattrs": st.dictionaries(
            st.sampled_from(["SCHILY.xattr.user.a", "SCHILY.xattr.security.b", "comment"]),
            st.text(max_size=20),
            max_size=2,
        ),
    }
)


@settings(max_examples=2000 if LONG else 100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MEMBERS, max_size=5), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_tarfile_writes_is_read(members: list[dict[str, Any]], format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for member in members:
            archive.addfile(info_of(member, format), io.BytesIO(member["data"]))
    found = read(buffer.getvalue())
    assert len(found) == len(members)
    for member, (entry, data) in zip(members, found, strict=True):
        is_file, is_link = member["kind"] == tarfile.REGTYPE, member["kind"] in (tarfile.LNKTYPE, tarfile.SYMTYPE)
        assert entry.name.rstrip(b"/") == member["name"]
        assert (entry.type, entry.mode, entry.uid, entry.gid) == (
            member["kind"], member["mode"], member["uid"], member["gid"],
        )  # fmt: skip
        assert entry.mtime == member["mtime"] * 10**9
        assert data == (member["data"] if is_file else b"")
        assert entry.link == (member["link"] if is_link else b"")
        if member["kind"] in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            assert (entry.major, entry.minor) == member["device"]
        if format == tarfile.PAX_FORMAT:
            wanted = {k[13:].encode(): v.encode() for k, v in member["xattrs"].items() if k.startswith("SCHILY")}
            assert entry.xattrs == wanted


def info_of(member: dict[str, Any], format: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(member["name"]))
    info.type, info.mode, info.uid, info.gid = member["kind"], member["mode"], member["uid"], member["gid"]
    info.mtime = member["mtime"]
    if info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        info.linkname = os.fsdecode(member["link"])
    if info.type == tarfile.REGTYPE:
        info.size = len(member["data"])
    info.devmajor, info.devminor = member["device"]
    if format == tarfile.PAX_FORMAT:
        info.pax_headers = dict(member["xattrs"])
    return info


# ---- each field by itself


def test_prefix_of_ustar() -> None:
    assert one(header(b"b/c", prefix=b"a" * 150) + END).name == b"a" * 150 + b"/b/c"


def test_gnu_has_times_where_ustar_has_the_prefix() -> None:
    assert one(header(b"b/c", prefix=b"01234567012\0", magic=b"ustar  \0") + END).name == b"b/c"


def test_names_of_a_hundred_bytes_have_no_nul() -> None:
    assert one(header(b"n" * 100, b"2", link=b"l" * 100) + END).name == b"n" * 100
    assert one(header(b"n" * 100, b"2", link=b"l" * 100) + END).link == b"l" * 100


def test_v7_directories_are_files_with_a_slash() -> None:
    v7 = {"magic": bytes(8)}
    assert one(header(b"d/", b"\0", **v7) + END).type == tar.DIRECTORY
    assert one(header(b"d", b"\0", **v7) + END).type == tar.FILE
    for kind in (b"0", b"7"):  # A directory for GNU tar, a file for Go's archive/tar.
        refused(header(b"d/", kind) + END)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"\x80" + bytes(10) + b"\x05", 5),
        (b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7, (1 << 63) - 1),
        (b"\xff" * 12, -1),
        (b"\xff" * 4 + b"\x80" + bytes(7), -1 << 63),
        (b"00000000017\0", 15),
        (b"          7 ", 7),
        (b"777777777777", (1 << 36) - 1),
        (b" " * 12, 0),
        (bytes(12), 0),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    archive = header(mtime=field) + END
    with tarfile.open(fileobj=io.BytesIO(archive)) as theirs:
        assert theirs.getmembers()[0].mtime == value
    if abs(value) < tar.MAX_SECONDS:
        assert one(archive).mtime == value * 10**9
    else:
        refused(archive)


@pytest.mark.parametrize(
    "field",
    [
        b"0000000008\0\0",
        b"-0000000001\0",
        b"0x000000001\0",
        b"1 2        \0",
        b"\x80" + b"\xff" * 11,
        b"\xc0" + bytes(11),
    ],
)
def test_what_is_no_number(field: bytes) -> None:
    refused(header(mtime=field) + END)
    refused(header(size_field=field) + END)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"-0.25", -250_000_000),
        (b"12", 12_000_000_000),
        (b"3.", 3_000_000_000),
        (b"0.1234567899", 123_456_789),
        (b"", 7_000_000_000),
    ],
)
def test_times_of_pax(text: bytes, nanoseconds: int) -> None:
    assert one(pax((b"mtime", text)) + header(mtime=b"00000000007\0") + END).mtime == nanoseconds


@pytest.mark.parametrize(
    "text", [b"--1", b"1e5", b"nan", b"inf", b".5", b"-", b"1.-5", b"1_0", b"\xd9\xa1", b"9" * 20, b"9" * 19]
)
def test_what_is_no_time(text: bytes) -> None:
    refused(pax((b"mtime", text)) + header() + END)


@pytest.mark.parametrize("key", [b"size", b"uid", b"gid"])
@pytest.mark.parametrize("text", [b"-1", b"1.0", b"0x1", b" 1", b"+1", b"9" * 20, b"99999999999999"])
def test_what_is_no_number_in_pax(key: bytes, text: bytes) -> None:
    refused(pax((key, text)) + header() + END)


def test_pax_and_gnu_names() -> None:
    long = b"l/" * 100 + b"n"
    assert one(extended(b"L", long + b"\0") + extended(b"K", long + b"x\0") + header(kind=b"2") + END).name == long
    assert (
        one(extended(b"L", long + b"\0") + extended(b"K", long + b"x\0") + header(kind=b"2") + END).link == long + b"x"
    )
    entry = one(pax((b"path", long), (b"linkpath", b"to\xff\n=x"), (b"uid", b"4000000000")) + header(kind=b"2") + END)
    assert (entry.name, entry.link, entry.uid) == (long, b"to\xff\n=x", 4_000_000_000)
    assert one(pax((b"path", long)) + extended(b"L", long) + header() + END).name == long
    refused(pax((b"path", b"one")) + extended(b"L", b"other") + header() + END)


def test_the_size_of_pax_counts() -> None:
    """TARmageddon (CVE-2025-62518): a reader that takes the header's 0 finds entries inside the file's data."""
    inner = header(b"smuggled") + END
    archive = pax((b"size", b"%d" % len(inner))) + header(b"outer", size_field=b"00000000000\0") + padded(inner) + END
    ((entry, data),) = read(archive)
    assert (entry.name, data) == (b"outer", inner)


def test_global_headers() -> None:
    archive = extended(b"g", record(b"comment", b"x") + record(b"uid", b"7") + record(b"mtime", b"1.5"))
    archive += (
        header(b"a") + pax((b"uid", b"8")) + header(b"b") + pax((b"uid", b"")) + header(b"c", uid=b"0000003\0") + END
    )
    a, b, c = (entry for entry, _ in read(archive))
    assert (a.uid, b.uid, c.uid, c.mtime) == (7, 8, 3, 1_500_000_000)
    for key in (b"path", b"linkpath", b"size", b"GNU.sparse.name", b"SCHILY.xattr.user.a"):
        refused(extended(b"g", record(key, b"1")) + header() + END)  # Go's archive/tar skips global headers.


# ---- hostile


def refused(archive: bytes) -> ImageError:
    """ImageError with one line, and soon."""
    started = time.monotonic()
    with pytest.raises(ImageError) as caught:
        read(archive)
    assert time.monotonic() - started < SECONDS
    assert "\n" not in str(caught.value)
    return caught.value


def sparse(*records: tuple[bytes, bytes], data: bytes = b"", kind: bytes = b"0") -> bytes:
    return (
        pax(*[(b"GNU.sparse." + key, value) for key, value in records])
        + header(kind=kind, size=len(data))
        + padded(data)
    )


ONE = ((b"major", b"1"), (b"minor", b"0"), (b"name", b"n"), (b"realsize", b"10"))
CONTRADICTIONS: dict[str, bytes] = {
    "two pax headers": pax((b"path", b"a")) + pax((b"path", b"b")) + header(),
    "two long names": extended(b"L", b"a") + extended(b"L", b"b") + header(),
    "two long links": extended(b"K", b"a") + extended(b"K", b"b") + header(kind=b"2"),
    "path twice": pax((b"path", b"a"), (b"path", b"b")) + header(),
    "size twice": pax((b"size", b"1"), (b"size", b"2")) + header(),
    "NUL in pax path": pax((b"path", b"a\0b")) + header(),
    "NUL in long name": extended(b"L", b"a\0b") + header(),
    "NUL in a sparse name": sparse((b"map", b""), (b"size", b"0"), (b"name", b"a\0b")),
    "long sparse name": sparse((b"map", b""), (b"size", b"0"), (b"name", b"a" * 5000)),
    "name of 4096 bytes": pax((b"path", b"a/" * 2048)) + header(kind=b"5"),
    "link of 4096 bytes": pax((b"linkpath", b"a/" * 2048)) + header(kind=b"2"),
    "link to nothing": header(kind=b"2"),
    "directory with data": header(kind=b"5", size=512) + bytes(512),
    "hard link with data": header(kind=b"1", size=512, link=b"x") + bytes(512),
    "unknown type": header(kind=b"Q"),
    "type NUL 0x80": header(kind=b"\x80"),
    "negative size": header(size_field=b"\xff" * 12),
    "negative uid": header(uid=b"\xff" * 8),
    "uid -1": pax((b"uid", b"4294967295")) + header(),
    "huge pax": header(kind=b"x", size=2 << 20) + bytes(2 << 20),
    "extended header at the end": pax((b"path", b"a")),
    "checksum": header()[:511] + b"\1",
    "pax length 0": extended(b"x", b"0 a=b\n"),
    "pax length too long": extended(b"x", b"99 a=b\n") + header(),
    "pax length too short": extended(b"x", b"5 a=b\n") + header(),
    "pax length signed": extended(b"x", b"+6 a=b\n") + header(),
    "pax without =": extended(b"x", b"6 abc\n") + header(),
    "pax without key": extended(b"x", b"5 =b\n") + header(),
    "pax without newline": extended(b"x", b"6 a=bc") + header(),
    "pax of zeros": extended(b"x", bytes(100)) + header(),
    "sparse 2.0": sparse((b"major", b"2"), (b"minor", b"0"), (b"realsize", b"1")),
    "sparse without map": sparse((b"size", b"1")),
    "sparse odd map": sparse((b"map", b"0,1,2"), (b"size", b"9"), data=b"x"),
    "sparse map twice": sparse((b"map", b"0,1"), (b"map", b"0,1"), (b"size", b"9"), data=b"x"),
    "sparse both formats": sparse((b"map", b"0,1"), (b"offset", b"0"), (b"numbytes", b"1"), (b"size", b"9"), data=b"x"),
    "sparse offsets only": sparse((b"offset", b"0"), (b"offset", b"4"), (b"size", b"9"), data=b"x"),
    "sparse overlap": sparse((b"map", b"0,4,2,4"), (b"size", b"9"), data=b"x" * 8),
    "sparse backwards": sparse((b"map", b"4,4,0,4"), (b"size", b"9"), data=b"x" * 8),
    "sparse beyond the end": sparse((b"map", b"8,4"), (b"size", b"9"), data=b"x" * 4),
    "sparse less data": sparse((b"map", b"0,4"), (b"size", b"9"), data=b"x" * 3),
    "sparse more data": sparse((b"map", b"0,4"), (b"size", b"9"), data=b"x" * 5),
    "sparse negative": sparse((b"map", b"0,-4"), (b"size", b"9")),
    "sparse without size": sparse((b"map", b"0,0")),
    "sparse link": sparse((b"map", b""), (b"size", b"9"), kind=b"2"),
    "sparse directory": sparse((b"map", b""), (b"size", b"9"), kind=b"5"),
    "sparse 1.0 without map": sparse(*ONE),
    "sparse 1.0 cut map": sparse(*ONE, data=b"5\n0\n1\n".ljust(512, b"\0")),
    "sparse 1.0 no newline": sparse(*ONE, data=b"1" * 5120),
    "sparse 1.0 many": sparse(*ONE, data=b"99999999999\n".ljust(5120, b"0")),
    "sparse 1.0 no number": sparse(*ONE, data=b"x\n".ljust(512, b"\0")),
    "sparse S of star": header(kind=b"S"),
}  # fmt: skip


@pytest.mark.parametrize("archive", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_refused(archive: bytes) -> None:
    refused(archive + END)


def samples() -> dict[str, bytes]:
    old = bytearray(header(b"old", b"S", 4, magic=b"ustar  \0"))
    old[386:410] = b"00000000002\0" + b"00000000004\0"
    old[483:495] = b"00000000011\0"
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    data = b"1\n2\n4\n".ljust(512, b"\0") + b"data"
    return {
        "pax": pax((b"path", b"p" * 120), (b"mtime", b"-1.5"), (b"size", b"5"))
        + header(size=5)
        + padded(b"hello")
        + END,
        "gnu": extended(b"L", b"n" * 120 + b"\0")
        + header(size=5, uid=b"\x80" + bytes(6) + b"\1")
        + padded(b"hello")
        + END,
        "1.0": sparse(*ONE, data=data) + END,
        "0.1": sparse((b"map", b"2,4"), (b"size", b"9"), data=b"data") + END,
        "0.0": sparse((b"size", b"9"), (b"offset", b"2"), (b"numbytes", b"4"), data=b"data") + END,
        "old": bytes(old) + padded(b"data") + END,
        "device": header(kind=b"3", major=b"0000001\0") + header(kind=b"2", link=b"x") + header(kind=b"5") + END,
    }


@pytest.mark.parametrize("name", samples())
def test_cut_off_anywhere(name: str) -> None:
    """At every byte: an error, but behind a whole entry, where an archive without an end is none."""
    archive = samples()[name]
    whole = read(archive)
    for length in range(len(archive)):
        try:
            found = read(archive[:length])
        except ImageError:
            continue
        assert length % 512 == 0 or len(found) == len(whole), "cut within a block that means something"
        assert len(found) <= len(whole)
        assert [data for _, data in found] == [data for _, data in whole[: len(found)]]


@pytest.mark.parametrize("name", samples())
def test_bit_flips(name: str) -> None:
    """Checksums are made right again, or few flips would get far."""
    archive = samples()[name]
    for byte, bit in flips(len(archive)):
        changed = bytearray(archive)
        changed[byte] ^= 1 << bit
        for start in range(0, len(changed), 512):
            block = changed[start : start + 512]
            if archive[start + 257 : start + 262] == b"ustar":
                block[148:156] = b" " * 8
                changed[start + 148 : start + 156] = b"%06o\0 " % sum(block)
        read_or_refuse(bytes(changed))


def flips(length: int) -> Iterator[tuple[int, int]]:
    every = itertools.product(range(length), range(8))
    yield from every if LONG else random.Random(6).sample(list(every), 1500)


def read_or_refuse(archive: bytes) -> None:
    try:
        for entry, _ in read(archive):
            assert b"\0" not in entry.name + entry.link and len(entry.name) <= tar.MAX_NAME
    except ImageError:
        pass


@settings(max_examples=20000 if LONG else 300)
@given(st.lists(st.one_of(
    st.binary(max_size=600).map(padded),
    st.binary(max_size=200).map(lambda text: extended(b"x", text)),
    st.dictionaries(
        st.sampled_from([b"path", b"linkpath", b"size", b"uid", b"mtime", b"GNU.sparse.map", b"GNU.sparse.size",
                         b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.realsize", b"GNU.sparse.name"]),
        st.one_of(st.binary(max_size=12), st.integers(0, 3000).map(lambda n: b"%d" % n), st.sampled_from([b"0", b"1"])),
    ).map(lambda records: pax(*records.items())),
    st.builds(header, st.binary(max_size=100), st.sampled_from([bytes([n]) for n in range(256)]), st.integers(0, 3000)),
), max_size=8))  # fmt: skip
def test_anything(parts: list[bytes]) -> None:
    read_or_refuse(b"".join(parts))


def test_a_number_of_ten_thousand_digits() -> None:
    refused(pax((b"size", b"1" * 10_000)) + header() + END)
    refused(extended(b"x", b"1" * 10_000 + b" a=b\n") + header() + END)


# ---- bombs

MIB = 1 << 20


class Source:
    """`first`, then `again` over and over, `limit` bytes in all."""

    def __init__(self, first: bytes, again: bytes, limit: int) -> None:
        self._next, self._again, self._left = io.BytesIO(first), again, limit

    def read(self, size: int) -> bytes:
        data = self._next.read(min(size, self._left))
        self._left -= len(data)
        if not data and self._left:
            self._next = io.BytesIO(self._again)
            return self.read(size)
        return data


def drained(source: Source) -> int:
    """How many entries there were; in bounded time and memory, whether it ends in an error or not."""
    count = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    try:
        for _ in tar.Reader(source):
            count += 1
    except ImageError:
        pass
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    return count


TINY = b"".join(record(b"%x" % n, b"") for n in range(80_000))


@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_endless_extended_headers(kind: bytes) -> None:
    """Each of tens of thousands of records: memory and time are bounded for all of them together."""
    drained(Source(b"", extended(kind, TINY) + header(b"n"), 1 << 40 if LONG else 8 * MIB))


def test_a_global_header_is_not_paid_for_by_every_entry() -> None:
    assert drained(Source(extended(b"g", TINY), header(b"n"), 20 * MIB)) > 30_000


def test_a_sparse_map_is_read_once() -> None:
    """Not from its start for each of its 5,000 blocks."""
    count = 1_000_000
    text = b"%d\n" % (count // 2) + b"0\n" * (2 * count)
    refused(sparse(*ONE, data=text) + END)
    segments = 60_000
    text = b"%d\n" % segments + b"".join(b"%d\n0\n" % n for n in range(segments))
    many = ((b"major", b"1"), (b"minor", b"0"), (b"name", b"n"), (b"realsize", b"%d" % segments))
    assert len(one(sparse(*many, data=padded(text)) + END).segments or ()) == segments


def test_huge_files_of_nothing_are_told_not_read() -> None:
    """8 TiB in an archive of two kilobytes: the reader says so, and the unpacker refuses it by its length."""
    archive = sparse((b"map", b""), (b"size", b"%d" % (8 << 40))) + END
    (entry,) = tar.Reader(io.BytesIO(archive))
    assert (entry.length, entry.size, entry.segments) == (8 << 40, 0, [])
