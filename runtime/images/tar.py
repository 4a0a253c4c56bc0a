"""Tar archives, read once and forwards: POSIX ustar and pax, GNU long names, base-256 numbers and sparse files.

There is one reading of an archive or an error (tar(5), pax(1)): what other programs could read differently, such as
data behind a link, is refused (RULES 25).  Names stay bytes.
"""

import posix
from zlib import adler32

from ..errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Source(Protocol):
        def read(self, size: int, /) -> bytes:
            """Up to `size` bytes; b"" at the end."""


BLOCK = 512
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
MAX_NAME = 4095
"""PATH_MAX without its NUL, limits.h: no longer path could be opened, no longer link made."""
MAX_PAX = 1 << 20
"""Bytes of one pax header: hundreds of extended attributes."""
MAX_EXTENDED = 1 << 27
"""Bytes of all extended headers: 256 for each of 500,000 entries.  Names and attributes are kept in memory."""
MAX_SECONDS = 1 << 62
MAX_SPARSE = 1 << 16
"""Segments of a sparse file."""
_ZEROS = bytes(BLOCK)
_TYPES = (FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_MAX_KNOWN = 4096
_CONTENTS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE}
_GNU_MAGIC = b"ustar  \0"
_PAX_NUMBERS = (b"size", b"uid", b"gid", b"mtime")
_SPARSE = b"GNU.sparse."
_MAP, _OFFSET, _LENGTH = _SPARSE + b"map", _SPARSE + b"offset", _SPARSE + b"numbytes"


class Entry:
    """One member.  `size` counts the bytes that follow in the archive, `length` those of the file (sparse files
    differ); `segments` are (offset, length) of what is stored, None for all of it."""

    __slots__ = (
        "gid", "length", "link", "major", "minor", "mode", "mtime", "name", "segments", "size", "type", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name = b""
        self.type = FILE
        self.link = b""
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.size = 0
        self.length = 0
        self.mtime = 0
        """Nanoseconds since the epoch."""
        self.major = 0
        self.minor = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.segments: list[tuple[int, int]] | None = None


class Reader:
    """Entries of the archive that `source` gives; after each, `data()` gives its bytes, or they are skipped."""

    def __init__(self, source: "Source") -> None:
        self._source = source
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._padding = 0
        self._extended = 0
        self._known: dict[bytes, int] = {}
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> "Iterator[Entry]":
        while (entry := self._next()) is not None:
            yield entry
        self._drain()

    def data(self) -> "Iterator[memoryview]":
        """What is left of the entry's data, in pieces as they come."""
        while self._left:
            if self._at == len(self._buffer):
                self._fill()
            piece = memoryview(self._buffer)[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    # ---- headers

    def _next(self) -> "Entry | None":
        """The next entry, with what the headers before it say; None at the end."""
        said: dict[bytes, bytes] = {}
        while True:
            self._skip()
            header = self._header()
            if header is None:
                if said:
                    raise ImageError("tar: the archive ends behind an extended header")
                return None
            kind = header[156:157]
            if kind not in (b"x", b"g", b"L", b"K"):
                break
            size = _number(header[124:136], "size")
            self._extended += size
            if size > MAX_PAX or self._extended > MAX_EXTENDED:
                raise ImageError(f"tar: an extended header of {size} bytes", hint="is it a bomb?")
            text = self._take(size)
            self._take(-size % BLOCK)
            if kind == b"g":
                self._for_all(_pax(text))
            elif kind in said:
                raise ImageError("tar: two extended headers of one kind for one entry")
            else:
                said[kind] = text
        if not said and not self._global:
            return self._entry(header, kind, {}, b"", b"")
        records = {**self._global, **_pax(said.get(b"x", b""))}
        for key in _PAX_NUMBERS:
            if records.get(key) == b"":
                del records[key]
        names = said.get(b"L", b"").rstrip(b"\0"), said.get(b"K", b"").rstrip(b"\0")
        return self._entry(header, kind, records, *names)

    def _for_all(self, records: "dict[bytes, bytes]") -> None:
        """A global header; what programs that skip it would take for another file or other data is refused."""
        for key in records:
            if key in (b"path", b"linkpath", b"size") or key.startswith((_SPARSE, b"SCHILY.xattr.")):
                raise ImageError(f"tar: a global header has {key[:64]!r}, which programs read differently")
        self._global.update({key: records[key] for key in _PAX_NUMBERS if key in records})

    def _entry(self, header: bytes, kind: bytes, records: "dict[bytes, bytes]", name: bytes, link: bytes) -> Entry:
        entry = Entry()
        entry.type = _CONTENTS.get(kind, kind)
        entry.name = _one(records.get(b"path"), name) or _name(header)
        entry.mode = self._repeated(header[100:108], "mode") & 0o7777
        entry.uid = _decimal(records, b"uid") if b"uid" in records else self._repeated(header[108:116], "uid")
        entry.gid = _decimal(records, b"gid") if b"gid" in records else self._repeated(header[116:124], "gid")
        entry.size = _decimal(records, b"size") if b"size" in records else _number(header[124:136], "size")
        entry.mtime = _time(records[b"mtime"]) if b"mtime" in records else _signed(header[136:148]) * 10**9
        if entry.type in (CHARACTER, BLOCK_DEVICE):
            entry.major, entry.minor = _number(header[329:337], "devmajor"), _number(header[337:345], "devminor")
        if kind == b"\0" and entry.name.endswith(b"/"):
            entry.type = DIRECTORY  # As tar had it before there was a type for it (V7).
        if records:
            for key, value in records.items():
                if key.startswith(b"SCHILY.xattr."):
                    entry.xattrs[key[13:]] = value
            entry.name = records.get(_SPARSE + b"name") or entry.name
        if link or header[157] or records:
            entry.link = _one(records.get(b"linkpath"), link) or _text(header[157:257])
        self._check(entry)
        self._left, self._padding = entry.size, -entry.size % BLOCK
        entry.length = entry.size
        if records or kind == b"S":
            self._sparse(entry, header, records)
        return entry

    def _repeated(self, field: bytes, what: str) -> int:
        """A number that most entries share."""
        value = self._known.get(field)
        if value is None:
            value = _number(field, what)
            if len(self._known) < _MAX_KNOWN:
                self._known[field] = value
        return value

    def _check(self, entry: Entry) -> None:
        if entry.type not in _TYPES:
            raise ImageError(f"tar: entry {entry.name!r} is of unknown type {entry.type!r}")
        if entry.type == FILE and entry.name.endswith(b"/"):
            raise ImageError(f"tar: entry {entry.name!r} is a file and called a directory")
        if entry.type == SYMLINK and not entry.link:
            raise ImageError(f"tar: entry {entry.name!r} is a link to nothing")
        for what in (entry.name, entry.link):
            if len(what) > MAX_NAME or b"\0" in what:
                raise ImageError(f"tar: a name of {len(what)} bytes, or with a NUL: {what[:64]!r}")
        if entry.size and entry.type != FILE:
            raise ImageError(
                f"tar: entry {entry.name!r} of type {entry.type!r} has data, which programs read differently"
            )
        if not -MAX_SECONDS < entry.mtime // 10**9 < MAX_SECONDS:
            raise ImageError(f"tar: entry {entry.name!r} has no time: {entry.mtime // 10**9}")
        if entry.uid > 0xFFFFFFFE or entry.gid > 0xFFFFFFFE:
            raise ImageError(f"tar: entry {entry.name!r} belongs to {entry.uid}:{entry.gid}")

    def _header(self) -> "bytes | None":
        """A header block with a right checksum; None at the end: a block of zeros, or nothing at all."""
        if not self._available():
            return None
        block = self._take(BLOCK)
        if block == _ZEROS:
            return None
        field = block[148:156]
        told = _number(field, "checksum")
        # Adler's first half is one more than the sum, modulo 65,521 (RFC 1950), which 256 bytes cannot reach.
        if block.count(0) >= 256 and (adler32(block) & 0xFFFF) - 1 == told - 256 + sum(field):
            return block
        without = block[:148] + b" " * 8 + block[156:]
        if told != sum(without) and told != sum(byte - 256 if byte > 127 else byte for byte in without):
            raise ImageError("tar: a header has a wrong checksum")
        return block

    # ---- sparse files

    def _sparse(self, entry: Entry, header: bytes, records: "dict[bytes, bytes]") -> None:
        """GNU's four formats (GNU tar manual, "Storing Sparse Files")."""
        version = records.get(_SPARSE + b"major"), records.get(_SPARSE + b"minor")
        if header[156:157] == b"S":
            self._sparse_old(entry, header)
        elif version == (b"1", b"0"):
            entry.length = _decimal(records, _SPARSE + b"realsize")
            entry.segments = self._sparse_map(entry)
        elif _MAP in records and version in ((None, None), (b"0", b"0"), (b"0", b"1")):
            entry.length = _decimal(records, _SPARSE + b"size")
            entry.segments = _pairs(records[_MAP].split(b",") if records[_MAP] else [])
        elif any(key.startswith(_SPARSE) for key in records):
            raise ImageError(f"tar: {entry.name!r} is sparse in a way that is not known")
        if entry.segments is not None:
            self._check_sparse(entry)

    def _sparse_old(self, entry: Entry, header: bytes) -> None:
        if header[257:265] != _GNU_MAGIC:
            raise ImageError(f"tar: {entry.name!r} is sparse in a way that is not known")
        entry.length = _number(header[483:495], "real size")
        found: list[tuple[int, int]] = []
        block, at, count = header, 386, 4
        while True:
            for index in range(at, at + count * 24, 24):
                if block[index] == 0:
                    break
                pair = (_number(block[index : index + 12], "sparse"), _number(block[index + 12 : index + 24], "sparse"))
                found.append(pair)
            extended = block[482] if at else block[504]
            if not extended or len(found) > MAX_SPARSE:
                break
            block, at, count = self._take(BLOCK), 0, 21
        entry.segments = found

    def _sparse_map(self, entry: Entry) -> "list[tuple[int, int]]":
        """Format 1.0: lines of numbers before the data, in whole blocks."""
        blocks: list[bytes] = []
        lines, wanted = 0, 0
        while lines <= wanted:
            if self._left < BLOCK or len(blocks) * BLOCK > MAX_SPARSE * 40:
                raise ImageError(f"tar: sparse map of {entry.name!r}")
            blocks.append(self._take(BLOCK))
            self._left -= BLOCK
            if not lines and b"\n" in blocks[-1]:
                wanted = 2 * _positive(b"".join(blocks).partition(b"\n")[0], "sparse map")
            lines += blocks[-1].count(b"\n")
        entry.size = self._left
        return _pairs(b"".join(blocks).split(b"\n")[1 : wanted + 1])

    def _check_sparse(self, entry: Entry) -> None:
        segments = entry.segments or []
        ends = [0, *(offset + length for offset, length in segments)]
        ordered = all(offset >= end for (offset, _), end in zip(segments, ends, strict=False))
        if entry.type != FILE or len(segments) > MAX_SPARSE or not ordered or max(ends) > entry.length:
            raise ImageError(f"tar: sparse map of {entry.name!r} contradicts itself")
        if sum(length for _, length in segments) != entry.size:
            raise ImageError(f"tar: sparse map of {entry.name!r} does not fit its data")

    # ---- bytes

    def _available(self) -> bool:
        if self._at == len(self._buffer):
            self._buffer, self._at = self._source.read(1 << 20), 0
        return bool(self._buffer)

    def _fill(self) -> None:
        if not self._available():
            raise ImageError("tar: the archive is cut off")

    def _take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        end = self._at + count
        if end <= len(self._buffer):
            taken, self._at = self._buffer[self._at : end], end
            return taken
        parts = []
        while count:
            if self._at == len(self._buffer):
                self._fill()
            part = self._buffer[self._at : self._at + count]
            parts.append(part)
            self._at += len(part)
            count -= len(part)
        return b"".join(parts)

    def _skip(self) -> None:
        if self._left:
            for _ in self.data():
                pass
        if self._padding:
            if self._at + self._padding <= len(self._buffer):
                self._at += self._padding
            else:
                self._take(self._padding)
            self._padding = 0

    def _drain(self) -> None:
        """Digests are of the whole stream; what stands behind the end means nothing."""
        self._buffer, self._at = b"", 0
        while self._source.read(1 << 20):
            pass


def _one(pax: "bytes | None", gnu: bytes) -> bytes:
    """A long name: pax has one, GNU another; readers differ in which one counts."""
    if pax and gnu and pax != gnu:
        raise ImageError(f"tar: an entry is called {pax[:64]!r} and {gnu[:64]!r}")
    return pax or gnu


def _text(field: bytes) -> bytes:
    return field[: field.find(0)] if 0 in field else field


def _name(header: bytes) -> bytes:
    """ustar's prefix; GNU archives have other things in its place."""
    name = _text(header[:100])
    if header[345] and header[257:263] == b"ustar\0":
        return _text(header[345:500]) + b"/" + name
    return name


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's base 256; never negative."""
    value = _signed(field)
    if value < 0:
        raise ImageError(f"tar: {what} is negative")
    return value


def _signed(field: bytes) -> int:
    digits = field[:-1]
    if digits.isdigit() and field[-1] in b" \0" and b"8" not in digits and b"9" not in digits:
        return int(digits, 8)
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        negative = field[0] & 0x40
        value -= (1 << (8 * len(field) - 1)) if negative else 0
        if not -(1 << 63) <= value < 1 << 63:
            raise ImageError("tar: a number of more than 63 bits")
        return value
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise ImageError(f"tar: {field!r} is not a number")
    return int(digits, 8) if digits else 0


def _pax(text: bytes) -> "dict[bytes, bytes]":
    """Records "LENGTH KEY=VALUE\\n" (pax(1)); an empty value takes back what a global header says."""
    records: dict[bytes, bytes] = {}
    pieces: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(text):
        space = text.find(b" ", at, at + 20)
        digits = text[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = text[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(text) or text[end - 1 : end] != b"\n" or not equals or not key:
            raise ImageError("tar: a malformed pax record")
        if key in (_OFFSET, _LENGTH):
            pieces.append((key, value))
        elif key in records and (key in (b"path", b"linkpath", *_PAX_NUMBERS) or key.startswith(_SPARSE)):
            raise ImageError(f"tar: two pax records for {key.decode()}")
        else:
            records[key] = value
        at = end
    if pieces:
        # GNU's sparse format 0.0 repeats its records; 0.1 says the same in one.
        keys = [key for key, _ in pieces]
        if _MAP in records or keys != [_OFFSET, _LENGTH] * (len(keys) // 2):
            raise ImageError("tar: a sparse map contradicts itself")
        records[_MAP] = b",".join([value for _, value in pieces])
    return records


def _pairs(numbers: "list[bytes]") -> "list[tuple[int, int]]":
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SPARSE:
        raise ImageError(f"tar: a sparse map of {len(numbers)} numbers")
    values = [_positive(number, "sparse map") for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def _decimal(records: "dict[bytes, bytes]", key: bytes) -> int:
    return _positive(records.get(key, b""), key.decode())


def _positive(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise ImageError(f"tar: {what} {text[:32]!r} is not a number")
    return int(text)


def _time(text: bytes) -> int:
    """Nanoseconds of seconds with a fraction, such as -1.5."""
    whole, _, part = text.removeprefix(b"-").partition(b".")
    if (part and not part.isdigit()) or len(part) > 100:
        raise ImageError(f"tar: mtime {text[:32]!r}")
    value = _positive(whole, "mtime") * 10**9 + int((part + b"0" * 9)[:9])
    return -value if text.startswith(b"-") else value


class Exactly:
    """As many bytes as are asked for: zeros where the file has become shorter."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int) -> bytes:
        data = posix.read(self._fd, size)
        while data and len(data) < size and (more := posix.read(self._fd, size - len(data))):
            data += more
        return data.ljust(size, b"\0")
