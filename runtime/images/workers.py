"""Processes that unpack layers beside us: threads of one interpreter would take turns, thousands of times a second.

A worker reads a blob while it is being written, and writes below a directory that it is given; it knows nothing of
registries and names.  What it does is in unpacker.py.  For an ordinary user with subordinate ids (`mapped`) it is
root of a user namespace that has them: the only one that can give files to these ids, and take them away.
"""

import marshal
import os
import select
import socket
import sys
from queue import Empty, SimpleQueue
from signal import SIGINT, SIGKILL

from ..container import map_ids
from ..errors import ImageError
from ..host import Host
from ..namespaces.user import subordinate_map
from .unpack import Unpacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WORTH = 4 << 20
"""Bytes of a blob from which on telling another process takes less time than unpacking it here."""
_CODE = "import sys;sys.path[:0]=sys.argv[3:];from runtime.images.unpacker import serve;serve(*sys.argv[1:3])"


class Result(Unpacked):
    """What has become of a blob of `size` bytes; `diff_id` is "" where it is the blob's own digest."""

    __slots__ = ("diff_id", "size")

    def __init__(self, size: int, diff_id: str, notes: "list[str]", implied: "list[bytes]") -> None:
        super().__init__(notes, implied)
        self.size = size
        self.diff_id = diff_id


def can_map() -> bool:
    """Whether we have subordinate ids, and may use them."""
    host = Host.probe()
    return bool(subordinate_map(host, "uid") and subordinate_map(host, "gid") and _can_start())


def call(what: str, *told: object, lock: str = "") -> "Any":
    """Let a process that is root of our subordinate ids do one thing (apart.py); raises its OSError."""
    worker = _Worker(lock, mapped=True)
    try:
        worker.tell((what, *told))
        return _heard(worker.answer())[0]
    finally:
        worker.end()


class Workers:
    """No more than processors, and none where there is but one and no other reason for them; started when first needed.

    Used in a `with`, by several threads at a time.  `lock` is the store's, which we hold.
    """

    def __init__(self, lock: str, *, mapped: bool = False) -> None:
        self._lock = lock
        self._mapped = mapped
        self._all: list[_Worker] = []
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        processors = len(os.sched_getaffinity(0))
        self.count = processors if mapped or (processors > 1 and _can_start()) else 0
        self._unborn = SimpleQueue[None]()
        for _ in range(self.count):
            self._unborn.put(None)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.end()

    def kill(self) -> None:
        """Whoever waits for one gets an error."""
        for worker in self._all:
            worker.kill()

    def take(self, size: int, path: str, directory: str, *, privileged: bool) -> "Feed | None":
        """Let the blob in this file be unpacked, while it comes; None for one that is not worth it."""
        if not self.count or (size < WORTH and not self._mapped):
            return None
        return Feed(self, ("unpack", path, directory, privileged, self._mapped))

    def get(self, *, wait: bool) -> "_Worker | None":
        """One that is free; to be given back with put()."""
        try:
            return self._free.get_nowait()
        except Empty:
            pass
        try:
            self._unborn.get_nowait()
        except Empty:
            return self._free.get() if wait else None
        worker = _Worker(self._lock, mapped=self._mapped)
        self._all.append(worker)
        return worker

    def put(self, worker: "_Worker") -> None:
        self._free.put(worker)


class Feed:
    """A blob on its way through a worker, which it gets when one is free."""

    def __init__(self, workers: Workers, job: "tuple[str, str, str, bool, bool]") -> None:
        self._workers = workers
        self._job = job
        self._worker: _Worker | None = None

    def more(self, size: int) -> None:
        """So many bytes of it are in its file.  Raises what unpack() does, as soon as it is known."""
        worker = self._worker or self._begin(wait=False)
        if worker:
            worker.tell((size, False))
            if worker.has_answered():
                worker.tell(None)
                self._answer(worker)

    def finish(self, size: int) -> Result:
        """All of it is: wait for what becomes of it.  Raises what unpack() does."""
        worker = self._worker or self._begin(wait=True)
        assert worker
        worker.tell((size, True))
        return self._answer(worker)

    def abandon(self) -> None:
        """No more will come, and nobody wants to know; of one that is finished nothing."""
        if self._worker:
            self._worker.tell(None)
            try:
                self._answer(self._worker)
            except (ImageError, OSError):
                pass

    def _begin(self, *, wait: bool) -> "_Worker | None":
        self._worker = self._workers.get(wait=wait)
        if self._worker:
            self._worker.tell(self._job)
        return self._worker

    def _answer(self, worker: "_Worker") -> Result:
        self._worker = None
        try:
            answer = worker.answer()
        finally:
            self._workers.put(worker)
        return Result(*_heard(answer))


def _can_start() -> bool:
    return os.access(sys.executable or "", os.X_OK)


def _heard(answer: "tuple[Any, ...]") -> "list[Any]":
    """What a worker has to say, or its error."""
    kind, *said = answer
    if kind == "image":
        raise ImageError(said[0], hint=said[1])
    if kind == "system":
        raise OSError(*said)
    return said


class _Worker:
    """A process, and the socket to it."""

    def __init__(self, lock: str, *, mapped: bool) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Nothing of the environment, and no directory that depends on where we are, says what it loads.
            paths = [path for path in sys.path if path.startswith("/")]
            words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _CODE, lock, "mapped" if mapped else "", *paths]
            quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_WRONLY, 0) for fd in (1, 2)]
            # Whoever presses Ctrl-C means us, and we tell it.
            self._pid = os.posix_spawn(
                sys.executable, words, os.environ, setsigmask=[SIGINT],
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), *quiet],
            )  # fmt: skip
        self._file = self._socket.makefile("rb")
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        if mapped:
            try:
                self._map()
            except BaseException:
                self.end()
                raise

    def _map(self) -> None:
        """Give it its ids, once it is in its namespace."""
        _heard(self.answer())
        host = Host.probe()
        map_ids(self._pid, subordinate_map(host, "uid"), subordinate_map(host, "gid"))
        self.tell(("mapped",))

    def tell(self, what: "tuple[Any, ...] | None") -> None:
        try:
            self._socket.sendall(marshal.dumps(what))
        except (BrokenPipeError, ConnectionResetError):
            pass  # It has ended, says answer().

    def has_answered(self) -> bool:
        return bool(self._poll.poll(0))

    def answer(self) -> "Any":
        try:
            return marshal.load(self._file)
        except (EOFError, ConnectionResetError) as error:
            hint = "was it killed for want of memory?"
            raise ImageError("layer: the process that unpacks it has ended", hint=hint) from error

    def kill(self) -> None:
        try:
            os.kill(self._pid, SIGKILL)
        except ProcessLookupError:
            pass  # A program that ignores SIGCHLD has no children to wait for.

    def end(self) -> None:
        self.kill()
        self._file.close()
        self._socket.close()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass
