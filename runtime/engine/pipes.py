"""Standard streams of what the library runs: pipes, files and what moves bytes between them and the caller."""

import fcntl
import posix
import select
import time

from ..errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    Stream = int | IO[Any] | None

PIPE, STDOUT, DEVNULL = -1, -2, -3
"""As subprocess's."""
_BUFFER = 1 << 16


class Text:
    """How bytes become text, as subprocess has it: `wanted` if any of its three options is given."""

    __slots__ = ("encoding", "errors", "wanted")

    def __init__(self, text: bool, encoding: "str | None", errors: "str | None") -> None:
        self.wanted = text or bool(encoding) or bool(errors)
        self.encoding = encoding or "utf-8"
        self.errors = errors or "strict"

    def encode(self, data: "str | bytes | None") -> bytes:
        return data.encode(self.encoding, self.errors) if isinstance(data, str) else data or b""

    def decode(self, data: "bytes | None") -> "Any":
        """With universal newlines; the bytes themselves if no text is wanted."""
        if data is None or not self.wanted:
            return data
        return data.decode(self.encoding, self.errors).replace("\r\n", "\n").replace("\r", "\n")


class Streams:
    """Both ends of the container's standard streams: `child`'s, and ours for those that are pipes (-1 otherwise).

    `pipes` has a bit for each of the child's that is one; the caller's own are not among them.
    """

    def __init__(self, stdin: "Stream", stdout: "Stream", stderr: "Stream") -> None:
        if STDOUT in (stdin, stdout):
            raise UsageError("STDOUT is for stderr only")
        self._open: list[int] = []
        self.feed = self.out = self.err = -1
        child = [0, 1, 2]
        try:
            if stdin == PIPE:
                child[0], self.feed = self._pipe()
                posix.set_blocking(self.feed, False)
            else:
                child[0] = self._given(stdin, 0)
            if stdout == PIPE:
                self.out, child[1] = self._pipe()
            else:
                child[1] = self._given(stdout, 1)
            if stderr == PIPE:
                self.err, child[2] = self._pipe()
            else:
                child[2] = child[1] if stderr == STDOUT else self._given(stderr, 2)
        except BaseException:
            self.close()
            raise
        self.child = (child[0], child[1], child[2])
        ours = (self.feed >= 0, self.out >= 0, self.err >= 0 or (stderr == STDOUT and self.out >= 0))
        self.pipes = sum(1 << fd for fd, is_pipe in enumerate(ours) if is_pipe)

    def _pipe(self) -> "tuple[int, int]":
        reader, writer = (self._above_standard(fd) for fd in posix.pipe2(posix.O_CLOEXEC))
        self._open += [reader, writer]
        return reader, writer

    def _above_standard(self, fd: int) -> int:
        """The caller may have closed 0, 1 or 2: a pipe there would be overwritten while the child's are laid out."""
        if fd > 2:
            return fd
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        posix.close(fd)
        return moved

    def _given(self, stream: "Stream", own: int) -> int:
        if stream is None:
            return own
        if stream == DEVNULL:
            self._open.append(self._above_standard(posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)))
            return self._open[-1]
        return stream if isinstance(stream, int) else stream.fileno()

    def give(self, owner: int) -> None:
        """Let a process that is there already open its streams again, as a launch does (plan.py): `owner` is its user
        as the host sees him."""
        for fd in range(3):
            if self.pipes >> fd & 1:
                try:
                    posix.chown(self.child[fd], owner, -1)
                except PermissionError:
                    # Nobody finds a pipe who is not of the container, or may trace it.
                    posix.chmod(self.child[fd], 0o666)

    def launched(self) -> None:
        """Close the child's ends that we opened, so that we see the end of its output."""
        for fd in set(self.child):
            if fd in self._open:
                self.shut(fd)

    def outputs(self, limit: "int | None") -> "dict[int, Output]":
        """What is to be read, and where it is kept."""
        return {fd: Output(limit) for fd in (self.out, self.err) if fd >= 0}

    def take(self, fd: int) -> int:
        """Our end, which is the caller's to close from now on."""
        self._open.remove(fd)
        return fd

    def shut(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            posix.close(fd)

    def close(self) -> None:
        for fd in list(self._open):
            self.shut(fd)


class Output:
    """What has come out of one pipe, of which at most `limit` bytes are kept; what is more is read and dropped."""

    __slots__ = ("_left", "_parts", "truncated")

    def __init__(self, limit: "int | None" = None) -> None:
        self._parts: list[bytes] = []
        self._left = limit
        self.truncated = False

    def add(self, part: bytes) -> None:
        if self._left is not None:
            if len(part) > self._left:
                self.truncated = True
                part = part[: self._left]
            self._left -= len(part)
        if part:
            self._parts.append(part)

    def read(self, fd: int) -> bool:
        """What is there now; False at the end."""
        part = posix.read(fd, _BUFFER)
        self.add(part)
        return bool(part)

    def drain(self, fd: int) -> None:
        """To its end: nobody holds the other one any more."""
        while self.read(fd):
            pass

    def value(self) -> bytes:
        self._parts = [b"".join(self._parts)]
        return self._parts[0]


def pump(streams: Streams, outputs: "dict[int, Output]", data: bytes, ended: int, timeout: "float | None") -> bool:
    """Move bytes until `ended`, a pidfd, tells of the end; False when `timeout` seconds passed first."""
    deadline = None if timeout is None else time.monotonic() + timeout
    view = memoryview(data)
    poll = select.poll()
    for fd in (*outputs, ended):
        poll.register(fd, select.POLLIN)
    if streams.feed >= 0:
        poll.register(streams.feed, select.POLLOUT)
    while True:
        left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
        events = [fd for fd, _ in poll.poll(left)]
        if deadline is not None and time.monotonic() >= deadline:
            return ended in events
        for fd in events:
            if fd in outputs:
                if not outputs[fd].read(fd):
                    poll.unregister(fd)
            elif fd == streams.feed:
                view = feed(fd, view)
                if not view:
                    poll.unregister(fd)
                    streams.shut(fd)
        if events == [ended]:
            return True


def feed(fd: int, view: memoryview) -> memoryview:
    """Write what fits; what a reader that is gone does not want is dropped, as subprocess does."""
    try:
        return view[posix.write(fd, view[:_BUFFER]) :]
    except BlockingIOError:
        return view
    except BrokenPipeError:
        return view[len(view) :]
