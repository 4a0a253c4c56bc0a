"""Blobs as they come: every way in which tools compress them, damaged ones, and bombs."""

import gzip
import hashlib
import itertools
import os
import random
import resource
import struct
import subprocess
import time
import zlib
from collections.abc import Iterable, Iterator

import pytest
from backports import zstd

from runtime.errors import ImageError
from runtime.images import stream
from runtime.images.stream import Layer

LONG = bool(os.environ.get("WARREN_LONG"))
SECONDS = 20
TEXT = b"".join(b"line %d of a layer\n" % n for n in range(20_000)) + random.Random(6).randbytes(100_000)


def pieces(blob: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (blob[at : at + size] for at in range(0, len(blob), size))


def read(chunks: Iterable[bytes], size: int = 1 << 20) -> tuple[bytes, Layer]:
    layer = Layer(chunks)
    parts = []
    while part := layer.read(size):
        assert len(part) <= size
        parts.append(part)
    assert layer.read(size) == b""
    return b"".join(parts), layer


def refused(chunks: Iterable[bytes]) -> str:
    with pytest.raises(ImageError) as caught:
        read(chunks)
    return str(caught.value)


def run(*command: str, data: bytes = TEXT) -> bytes:
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def members(data: bytes, size: int) -> bytes:
    """As estargz: a member for each piece, and one without data that has its own extra field."""
    extra = b"SG" + struct.pack("<H", 22) + b"0" * 16 + b"STARGZ"
    footer = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
    return b"".join(gzip.compress(piece) for piece in pieces(data, size)) + footer + b"\x01\0\0\xff\xff" + bytes(8)


def header_fields(data: bytes) -> bytes:
    """A member with all that RFC 1952 has: extra field, name, comment, and a checksum of these."""
    start = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x02\0ab" + b"name\0" + b"comment\0"
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    return (
        start + struct.pack("<H", zlib.crc32(start) & 0xFFFF) + body + struct.pack("<II", zlib.crc32(data), len(data))
    )


def skippable(data: bytes, number: int = 0) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + struct.pack("<I", len(data)) + data


def chunked(data: bytes) -> bytes:
    """As zstd:chunked: frames, and a manifest and a footer that readers skip."""
    frames = b"".join(zstd.compress(piece) for piece in pieces(data, 30_000))
    return frames + skippable(zstd.compress(b"{}")) + skippable(b"x" * 64, 15)


KINDS = {
    "plain": lambda: TEXT,
    "empty": lambda: b"",
    "gzip": lambda: gzip.compress(TEXT),
    "gzip of nothing": lambda: gzip.compress(b""),
    "gzip -1": lambda: run("gzip", "-1"),
    "gzip -9": lambda: run("gzip", "-9"),
    "pigz": lambda: run("pigz", "-b", "128"),
    "pigz -i": lambda: run("pigz", "-i", "-b", "128"),
    "stored": lambda: gzip.compress(TEXT, 0),
    "all fields": lambda: header_fields(TEXT),
    "estargz": lambda: members(TEXT, 1000),
    "trailing zeros": lambda: gzip.compress(TEXT) + bytes(100_000),
    "zeros between members": lambda: gzip.compress(TEXT) + bytes(70_000) + gzip.compress(b""),
    "zstd": lambda: run("zstd"),
    "zstd -19": lambda: run("zstd", "-19"),
    "zstd without a size": lambda: run("zstd", "--no-check"),
    "zstd of nothing": lambda: zstd.compress(b""),
    "zstd frames": lambda: run("zstd", data=TEXT[:300_000]) + run("zstd", data=TEXT[300_000:]),
    "zstd:chunked": lambda: chunked(TEXT),
    "skippable first": lambda: skippable(b"first", 7) + zstd.compress(TEXT),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    return request.param, KINDS[request.param]()


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 16, 1 << 30])
def test_what_comes_out(kind: tuple[str, bytes], size: int) -> None:
    """With digests and sizes of both sides, in whatever pieces it comes."""
    name, blob = kind
    wanted = b"" if name in ("empty", "gzip of nothing", "zstd of nothing") else TEXT
    blob, wanted = (blob, wanted) if size > 3 or LONG else cut_short(name, blob)
    found, layer = read(pieces(blob, size), 1 << 20 if size > 1 else 777)
    assert found == wanted
    assert layer.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert layer.diff_id == "sha256:" + hashlib.sha256(wanted).hexdigest()
    assert (layer.size, layer.length) == (len(blob), len(wanted))


def cut_short(name: str, blob: bytes) -> tuple[bytes, bytes]:
    """The same with less in it: byte by byte takes its time."""
    if len(blob) < 1000:
        return blob, b""
    if name == "plain":
        return blob[:3000], TEXT[:3000]
    text = TEXT[:3000]
    made = chunked(text) if "zstd" in name or "skippable" in name else members(text, 100)
    return made, text


def test_empty_chunks_are_no_end() -> None:
    blob = gzip.compress(TEXT)
    assert read([b"", blob[:1], b"", b"", blob[1:100], b"", blob[100:], b""])[0] == TEXT


SMALL = {
    "gzip": gzip.compress(b"some data, " * 20),
    "members": members(b"some data, " * 20, 50),
    "zstd": zstd.compress(b"some data, " * 20),
    "frames": chunked(b"some data, " * 20),
}


@pytest.mark.parametrize("name", SMALL)
def test_cut_off_anywhere(name: str) -> None:
    """Between whole members nothing shows that more should come; the digest does."""
    blob, whole = SMALL[name], read([SMALL[name]])[0]
    complete = 0
    for length in range(4, len(blob)):
        try:
            found, _ = read(pieces(blob[:length], 7))
        except ImageError:
            continue
        complete += 1
        assert whole.startswith(found)
    assert complete == {"gzip": 0, "members": 5, "zstd": 0, "frames": 2}[name]


@pytest.mark.parametrize("name", SMALL)
def test_bit_flips(name: str) -> None:
    """An error or what was meant; fields that say nothing of the data may differ."""
    blob, whole = SMALL[name], read([SMALL[name]])[0]
    wrong = set()
    for byte, bit in itertools.product(range(len(blob)), range(8)):
        changed = bytearray(blob)
        changed[byte] ^= 1 << bit
        try:
            found, _ = read([bytes(changed)])
        except ImageError:
            continue
        if found != whole:
            wrong.add(byte)
    # The magic numbers make it another kind; frames of zstd have a checksum only where it was asked for.
    assert name in ("zstd", "frames") or wrong <= {0, 1}, "checksums are not looked at"


@pytest.mark.parametrize("rest", [b"x", b"\0x", b"\x1f", b"\x1f\x8b", b"garbage " * 20_000, bytes(70_000) + b"\1"])
def test_something_else_behind_gzip(rest: bytes) -> None:
    refused([gzip.compress(TEXT) + rest])
    refused(pieces(gzip.compress(TEXT) + rest, 100))


@pytest.mark.parametrize("rest", [b"x", bytes(10), b"\x28\xb5", b"garbage " * 20_000, gzip.compress(b"")])
def test_something_else_behind_zstd(rest: bytes) -> None:
    refused([zstd.compress(TEXT) + rest])
    refused(pieces(zstd.compress(TEXT) + rest, 100))


def test_wrong_checksums() -> None:
    blob = gzip.compress(TEXT)
    refused([blob[:-8] + b"\0\0\0\0" + blob[-4:]])
    refused([blob[:-4] + b"\0\0\0\0"])
    checked = run("zstd", "--check")
    refused([checked[:-1] + bytes([checked[-1] ^ 1])])


def test_a_window_that_is_too_large() -> None:
    """A frame may ask for 2 GiB of memory."""
    options = {zstd.CompressionParameter.window_log: 30, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    refused([compressor.compress(b"x" * 100) + compressor.flush()])


# ---- bombs


def ends(chunks: Iterable[bytes]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    layer = Layer(chunks)
    with pytest.raises(ImageError, match="bomb"):
        layer.drain()
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10


def gzip_of_zeros(gigabytes: int) -> Iterator[bytes]:
    """1,000-fold; one gigabyte of it is made, and sent as members."""
    compressor = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 24)
    blob = b"".join([compressor.compress(zeros) for _ in range(16)]) + compressor.flush()
    return pieces(blob * 4 * gigabytes, 1 << 20)


@pytest.fixture
def fewer_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    if not LONG:
        monkeypatch.setattr(stream, "MAX_ZEROS", 1 << 30)


@pytest.mark.usefixtures("fewer_zeros")
def test_a_gzip_bomb() -> None:
    ends(gzip_of_zeros(10))


@pytest.mark.usefixtures("fewer_zeros")
def test_zstd_bombs() -> None:
    zeros = zstd.compress(bytes(1 << 26))
    ends(pieces(zeros * 160, 1 << 20))
    ends(itertools.repeat(zeros, 160))


@pytest.mark.parametrize(
    "piece", [gzip.compress(b""), zstd.compress(b""), skippable(b"")], ids=["gzip", "zstd", "skippable"]
)
def test_empty_pieces_without_end(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """They decompress to nothing, so no ratio counts them; and what follows is not copied for each."""
    if not LONG:
        monkeypatch.setattr(stream, "MAX_FRAMES", 1 << 17)
    ends(itertools.repeat(piece * ((1 << 20) // len(piece))))


def test_zeros_behind_the_end_are_only_read() -> None:
    started = time.monotonic()
    _, layer = read(itertools.chain([gzip.compress(TEXT)], itertools.repeat(bytes(1 << 20), 200)))
    assert layer.size > 200 << 20
    assert time.monotonic() - started < SECONDS


def test_a_layer_of_much_the_same_is_no_bomb() -> None:
    """Below some gigabytes any ratio goes: an image may hold a sparse disk image, or files filled with zeros."""
    layer = Layer(gzip_of_zeros(1))
    layer.drain()
    assert layer.length == 1 << 30
    assert layer.length > stream.MAX_RATIO * layer.size


def test_what_stands_behind_a_long_frame_is_read() -> None:
    """A frame that is asked for less than it holds has taken nothing of the next one yet."""
    first, second = os.urandom(stream._PIECE * 3), TEXT
    for size in (stream._PIECE, stream._PIECE - 1, stream._PIECE + 1):
        assert read([zstd.compress(first[:size]) + zstd.compress(second)])[0] == first[:size] + second
        assert read([gzip.compress(first[:size], 1) + gzip.compress(second)])[0] == first[:size] + second
    blob = zstd.compress(first) + zstd.compress(second)
    assert read(pieces(blob, 1 << 16))[0] == read([blob])[0] == first + second
