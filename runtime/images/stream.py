"""A layer as it comes: hashed, decompressed and hashed again while it is read, with a bound on what it may grow to.

gzip through isal, with the members of pigz and estargz one after the other; zstd with its frames, also those that
zstd:chunked lets readers skip.  Neither library is loaded before a layer needs it.
"""

import hashlib

from ..errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))
_PIECE = 1 << 17
"""Bytes at a time: they are inflated, hashed and written while the processor's cache has them."""
MAX_RATIO = 400
"""Bytes out for one in, once MAX_ZEROS have come out; zeros reach 1,000, programs and their data 3 to 20."""
MAX_ZEROS = 8 << 30
"""Bytes that may be as small as they like: sparse disk images are.  More would take longer than 20 s to hash."""
MAX_FRAMES = 1 << 20
"""Members or frames; estargz and zstd:chunked have a few for each file."""
_SLICE = 1 << 16


def looks_like_a_layer(start: bytes) -> bool:
    """By the first bytes of a file: compressed in a way that we read, or a tar of this century."""
    return start.startswith((GZIP, ZSTD, *_SKIPPABLE)) or start[257:262] == b"ustar"


class Layer:
    """`read()` gives what the layer's blob, which `chunks` brings, decompresses to.

    `digest` and `size` are of the blob, `diff_id` of what it decompresses to; right when all has been read.  Raises
    ImageError for data that is damaged, cut off, followed by something else, or a bomb.  `hashes_blob` and
    `hashes_content` say which of them will be asked for.
    """

    def __init__(self, chunks: "Iterable[bytes]", *, hashes_blob: bool = True, hashes_content: bool = True) -> None:
        self.size = 0
        self.length = 0
        self._chunks = iter(chunks)
        self._hashes_blob = hashes_blob
        self._hashes_content = hashes_content
        self._blob = hashlib.sha256()
        self._plain = hashlib.sha256()
        self._ready = b""
        self._codec: _Plain | _Gzip | _Zstd | None = None

    @property
    def digest(self) -> str:
        return "sha256:" + self._blob.hexdigest()

    @property
    def diff_id(self) -> str:
        """Of what is not compressed the blob's own digest; "" if that is not hashed."""
        if not isinstance(self._codec, _Plain):
            return "sha256:" + self._plain.hexdigest()
        return self.digest if self._hashes_blob else ""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        codec = self._codec or self._start()
        while not (data := codec.take(min(size, _PIECE))):
            chunk = self._chunk()
            if not chunk:
                codec.end()
                return b""
            codec.feed(chunk)
        self.length += len(data)
        if self._hashes_content and not isinstance(codec, _Plain):
            self._plain.update(data)
        if self.length > MAX_ZEROS and self.length > MAX_RATIO * self.size:
            raise ImageError(f"layer: {self.size} bytes have become {self.length}", hint="is it a bomb?")
        return data

    def drain(self) -> None:
        """Read to the end, for the digests."""
        while self.read(_PIECE):
            pass

    def _chunk(self) -> bytes:
        chunk = next((chunk for chunk in self._chunks if chunk), b"")
        if self._hashes_blob:
            self._blob.update(chunk)
        self.size += len(chunk)
        return chunk

    def _start(self) -> "_Plain | _Gzip | _Zstd":
        first = b""
        while len(first) < 4 and (chunk := self._chunk()):
            first += chunk
        codec = _Gzip() if first.startswith(GZIP) else _Zstd() if first.startswith((ZSTD, *_SKIPPABLE)) else _Plain()
        codec.feed(first)
        self._codec = codec
        return codec


class _Plain:
    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """More, when take() has had it all."""
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        """Copied once: a piece holds thousands of headers."""
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        return data

    def end(self) -> None:
        pass


class _Frames:
    """Members or frames, each complete, one after the other."""

    padding = b""
    """What may stand between them."""

    def __init__(self) -> None:
        self._fed = memoryview(b"")
        self._data = b""
        self._frame: Any = None
        self._count = 0

    def feed(self, data: bytes) -> None:
        """More, when take() has had it all."""
        self._fed = memoryview(data)

    def take(self, size: int) -> bytes:
        while True:
            if not self._data:
                # What stands behind a frame is copied for each of them.
                self._data, self._fed = bytes(self._fed[:_SLICE]), self._fed[_SLICE:]
            if self._frame is None and not self._begin():
                if self._fed:
                    continue
                return b""
            data = self.decompress(size)
            if self._frame.eof:
                self._data, self._frame = self.rest(), None
            elif not data and not self._data and not self._fed:
                return b""
            if data:
                return data

    def _begin(self) -> bool:
        if self._count and self.padding:
            self._data = self._data.lstrip(self.padding)
        if not self._data:
            return False
        self._count += 1
        if self._count > MAX_FRAMES:
            raise ImageError(f"layer: more than {MAX_FRAMES} compressed pieces", hint="is it a bomb?")
        self._frame = self.new()
        return True

    def end(self) -> None:
        if self._frame is not None:
            raise ImageError("layer: the compressed data is cut off")

    def new(self) -> "Any":
        raise NotImplementedError

    def rest(self) -> bytes:
        """What stands behind the frame that has just ended."""
        rest: bytes = self._frame.unused_data
        return rest

    def decompress(self, size: int) -> bytes:
        raise NotImplementedError


class _Gzip(_Frames):
    """RFC 1952; zeros may follow a member."""

    padding = b"\0"

    def __init__(self) -> None:
        from isal import isal_zlib

        super().__init__()
        self._library: Any = isal_zlib

    def new(self) -> "Any":
        return self._library.decompressobj(wbits=31)

    def decompress(self, size: int) -> bytes:
        try:
            data: bytes = self._frame.decompress(self._data, size)
        except self._library.error as error:
            raise ImageError(f"layer: gzip: {error}".lower()) from error
        self._data = self._frame.unconsumed_tail
        return data


class _Zstd(_Frames):
    """RFC 8878; skippable frames are frames."""

    def __init__(self) -> None:
        try:
            from compression import zstd  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            from backports import zstd

        super().__init__()
        self._library: Any = zstd

    def new(self) -> "Any":
        return self._library.ZstdDecompressor()

    def rest(self) -> bytes:
        """It may have had more to say than was asked for, and got nothing of what is at hand."""
        return super().rest() + self._data

    def decompress(self, size: int) -> bytes:
        given, self._data = (self._data, b"") if self._frame.needs_input else (b"", self._data)
        try:
            data: bytes = self._frame.decompress(given, size)
        except self._library.ZstdError as error:
            raise ImageError(f"layer: zstd: {error}".lower()) from error
        return data
