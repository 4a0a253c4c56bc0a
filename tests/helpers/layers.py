"""Archives of layers, byte by byte: also such as no program writes."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

from runtime.images import tar
from runtime.images.overlay import Owner
from runtime.images.unpack import Limits, complete, unpack

END = bytes(1024)


def header(name: bytes = b"name", kind: bytes = b"0", size: int = 0, **fields: bytes) -> bytes:
    """A ustar header; `fields` replace what it says: mode, uid, gid, size_field, mtime, link, magic, major, prefix."""
    octal = b"%011o\0"
    block = b"".join(
        [
            name.ljust(100, b"\0"),
            fields.get("mode", b"0000644\0"),
            fields.get("uid", b"0000000\0"),
            fields.get("gid", b"0000000\0"),
            fields.get("size_field", octal % size),
            fields.get("mtime", octal % 0),
            b" " * 8,
            kind,
            fields.get("link", b"").ljust(100, b"\0"),
            fields.get("magic", b"ustar\00000"),
            bytes(64),
            fields.get("major", b"0000000\0"),
            fields.get("minor", b"0000000\0"),
            fields.get("prefix", b"").ljust(155, b"\0"),
        ]
    ).ljust(512, b"\0")
    assert len(block) == 512
    return block[:148] + (b"%06o\0 " % sum(block)) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def extended(kind: bytes, text: bytes) -> bytes:
    return header(b"././@LongLink", kind, len(text)) + padded(text)


def pax(*records: tuple[bytes, bytes]) -> bytes:
    return extended(b"x", b"".join(record(key, value) for key, value in records))


def entry(name: str | bytes, kind: bytes = b"0", data: bytes = b"", *, link: str | bytes = "", **fields: int) -> bytes:
    """One member with whatever headers its names need; `fields`: mode, uid, gid, mtime, major, minor."""
    name, link = os.fsencode(name), os.fsencode(link)
    extra = []
    if len(name) > 100:
        extra.append((b"path", name))
    if len(link) > 100:
        extra.append((b"linkpath", link))
    mode = fields.get("mode", 0o755 if kind == b"5" else 0o644)
    made = header(
        name[:100],
        kind,
        len(data),
        mode=b"%07o\0" % mode,
        uid=b"%07o\0" % fields.get("uid", 0),
        gid=b"%07o\0" % fields.get("gid", 0),
        mtime=b"%011o\0" % fields.get("mtime", 1_600_000_000),
        link=link[:100],
        major=b"%07o\0" % fields.get("major", 0),
        minor=b"%07o\0" % fields.get("minor", 0),
    )
    return (pax(*extra) if extra else b"") + made + padded(data)


def directory(name: str | bytes, **fields: int) -> bytes:
    return entry(name, tar.DIRECTORY, **fields)


def symlink(name: str | bytes, target: str | bytes) -> bytes:
    return entry(name, tar.SYMLINK, link=target)


def hard_link(name: str | bytes, target: str | bytes) -> bytes:
    return entry(name, tar.LINK, link=target)


def whiteout(name: str) -> bytes:
    above, _, last = name.rpartition("/")
    return entry(f"{above}/.wh.{last}" if above else f".wh.{last}")


def opaque(name: str = "") -> bytes:
    return entry(f"{name}/.wh..wh..opq" if name else ".wh..wh..opq")


def unpack_into(
    path: Path,
    *entries: bytes,
    privileged: bool = True,
    limits: Limits | None = None,
    lower: Sequence[Path] = (),
) -> list[str]:
    """Unpack these into a new directory, on top of `lower`, the highest first; returns the notes."""
    return unpack_source(path, io.BytesIO(b"".join(entries) + END), privileged, limits, lower)


def unpack_source(
    path: Path,
    source: "tar.Source",
    privileged: bool,
    limits: Limits | None = None,
    lower: Sequence[Path] = (),
) -> list[str]:
    path.mkdir()
    path.chmod(0o755)
    owner = Owner(privileged=privileged)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = unpack(tar.Reader(source), fd, owner, limits)
        complete(fd, done.implied, [str(layer) for layer in lower], owner)
        return done.notes
    finally:
        os.close(fd)
