"""What a process of workers.py does: it unpacks one blob after the other, each while it is being written.

It holds the store's lock for itself, so that what it writes is nobody's to collect though the process that asked be
killed; and it ends when that one does.
"""

import fcntl
import marshal
import os
import select
from errno import EIO

from ..errors import ImageError
from ..syscalls import CLONE_NEWUSER, unshare
from . import tar
from .overlay import Owner
from .stream import Layer
from .unpack import unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    Answer = tuple[Any, ...]

_ASKED = 0
"""The descriptor of the socket to who asks."""
_PIECE = 1 << 17


class _AbandonedError(Exception):
    """Nobody wants this blob any more."""


def serve(lock: str, mapped: str) -> None:
    """Until nobody asks for more.  With `mapped` as root of a user namespace, whose ids who asks writes."""
    with open(_ASKED, "rb", closefd=False) as asked:
        try:
            if mapped:
                unshare(CLONE_NEWUSER)
                _tell(("unshared",))
                marshal.load(asked)
            os.umask(0)
            if lock:
                fcntl.flock(os.open(lock, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
            while True:
                what, *told = marshal.load(asked)
                if what == "unpack":
                    _Job(asked, *told).run()
                else:
                    _call(what, told)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            pass


def _call(what: str, told: "list[Any]") -> None:
    from .apart import FUNCTIONS

    try:
        _tell(("done", FUNCTIONS[what](*told)))
    except OSError as error:
        _tell(_of_system(error))


def _tell(what: "Answer") -> None:
    answer = marshal.dumps(what)
    while answer:
        answer = answer[os.write(_ASKED, answer) :]


def _of_system(error: OSError) -> "Answer":
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
    return "system", error.errno or EIO, error.strerror or str(error), path


class _Job:
    """A blob's file, of which we are told how much there is; the directory; and whose the files are (Owner)."""

    def __init__(self, asked: "BinaryIO", path: str, directory: str, privileged: bool, mapped: bool) -> None:
        self._asked = asked
        self._path = path
        self._directory = directory
        self._owner = Owner(privileged=privileged, mapped=mapped)
        self._there = 0
        self._told_all = False
        self._poll = select.poll()
        self._poll.register(_ASKED, 0)  # POLLHUP is told unasked.

    def run(self) -> None:
        """Answer as soon as the answer is known, and hear to the end of what is told."""
        _tell(self._answer())
        try:
            while not self._told_all:
                self._listen()
        except _AbandonedError:
            pass

    def _answer(self) -> "Answer":
        try:
            with open(self._path, "rb", buffering=0) as blob:
                return self._unpack(Layer(self._arriving(blob.fileno()), hashes_blob=False))
        except ImageError as error:
            return "image", error.message, error.hint
        except OSError as error:
            return _of_system(error)
        except _AbandonedError:
            self._told_all = True
            return "image", "abandoned", ""

    def _unpack(self, stream: Layer) -> "Answer":
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            unpacked = unpack(tar.Reader(stream), fd, self._owner, unmasked=True)
        finally:
            os.close(fd)
        stream.drain()
        return "unpacked", stream.size, stream.diff_id, unpacked.notes, unpacked.implied

    def _arriving(self, blob: int) -> "Iterator[bytes]":
        at = 0
        while at < self._there or not self._told_all:
            if at == self._there:
                self._listen()
                continue
            if self._poll.poll(0):
                raise EOFError
            piece = os.pread(blob, min(_PIECE, self._there - at), at)
            if not piece:
                raise ImageError("layer: its blob has been cut off while it was read")
            at += len(piece)
            yield piece

    def _listen(self) -> None:
        told = marshal.load(self._asked)
        if told is None:
            raise _AbandonedError
        self._there, self._told_all = told
