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
_PIECE = 1 << 20
MAX_RATIO = 400
"""Bytes out for one in, once _FREE have come out; zeros reach 1,000, programs and their data 3 to 20."""
_FREE = 256 << 20


class Layer:
    """`read()` gives what the layer's blob, which `chunks` brings, decompresses to.

    `digest` and `size` are of the blob, `diff_id` of what it decompresses to; right when all has been read.  Raises
    ImageError for data that is damaged, cut off, followed by something else, or a bomb.
    """

    def __init__(self, chunks: "Iterable[bytes]") -> None:
        self.size = 0
        self.length = 0
        self._chunks = iter(chunks)
        self._blob = hashlib.sha256()
        self._plain = hashlib.sha256()
        self._ready = b""
        self._codec: _Plain | _Gzip | _Zstd | None = None

    @property
    def digest(self) -> str:
        return "sha256:" + self._blob.hexdigest()

    @property
    def diff_id(self) -> str:
        return "sha256:" + self._plain.hexdigest()

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
        self._plain.update(data)
        if self.length > _FREE and self.length > MAX_RATIO * self.size:
            raise ImageError(f"layer: {self.size} bytes have become {self.length}", hint="is it a bomb?")
        return data

    def drain(self) -> None:
        """Read to the end, for the digests."""
        while self.read(_PIECE):
            pass

    def _chunk(self) -> bytes:
        chunk = next(self._chunks, b"")
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

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data

    def end(self) -> None:
        pass


class _Gzip:
    """RFC 1952: members, each complete; zeros may follow the last one."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._library: Any = isal_zlib
        self._member: Any = None
        self._data = b""

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self, size: int) -> bytes:
        while True:
            if self._member is None:
                self._data = self._data.lstrip(b"\0") if self._between else self._data
                if not self._data:
                    return b""
                self._member = self._library.decompressobj(wbits=31)
            data = self._decompress(size)
            if self._member.eof:
                self._data, self._member = self._member.unused_data, None
                self._between = True
            if data or not self._data:
                return data

    _between = False

    def _decompress(self, size: int) -> bytes:
        try:
            data: bytes = self._member.decompress(self._data, size)
        except self._library.error as error:
            raise ImageError(f"layer: gzip: {error}") from error
        self._data = self._member.unconsumed_tail
        return data

    def end(self) -> None:
        if self._member is not None or self._data:
            raise ImageError("layer: gzip: the data is cut off")


class _Zstd:
    """RFC 8878: frames, skippable ones among them."""

    def __init__(self) -> None:
        try:
            from compression import zstd  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            from backports import zstd

        self._library: Any = zstd
        self._frame: Any = None
        self._data = b""

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self, size: int) -> bytes:
        while self._frame is not None or self._data:
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor()
            elif self._frame.needs_input and not self._data:
                return b""
            try:
                data: bytes = self._frame.decompress(self._data, size)
            except self._library.ZstdError as error:
                raise ImageError(f"layer: zstd: {error}".lower()) from error
            self._data = b""
            if self._frame.eof:
                self._data, self._frame = self._frame.unused_data, None
            if data:
                return data
        return b""

    def end(self) -> None:
        if self._frame is not None or self._data:
            raise ImageError("layer: zstd: the data is cut off")
