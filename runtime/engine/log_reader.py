"""Reading the log of a container, whose monitor may be writing and rotating it meanwhile.

    log.2   log.1   log     the oldest first; `follow` goes on in `log`, and in the one after it when that is rotated

An entry that is damaged, as after a crash of the host, hides none of the others.
"""

import heapq
import json
import os
import queue
import select
import threading
import time
from collections.abc import Iterator, Sequence

from ..errors import StateError, UsageError
from ..quantities import is_number, timestamp
from ..quantities import moment as nanoseconds
from ..syscalls import watch_directory
from .logs import NAME
from .records import Record

_BLOCK = 65536
_PAUSE = 1000
"""Milliseconds between looks at what no event tells of: that a monitor was killed."""
_SHORT_PAUSE = 10
_WAITING = 1000
"""Entries of several logs that nobody has taken yet."""


class Entry:
    """A line of output, or a part of one: then `data` has no newline at its end."""

    __slots__ = ("data", "stream", "time")

    def __init__(self, time: str, stream: str, data: bytes) -> None:
        self.time = time
        self.stream = stream
        self.data = data


class Selection:
    """Which entries: `since` and `until` are moment()'s, `tail` the number of lines at the end, -1 all."""

    __slots__ = ("since", "tail", "until")

    def __init__(self, since: str = "", until: str = "", tail: int = -1) -> None:
        self.since = since
        self.until = until
        self.tail = tail

    def takes(self, entry: Entry) -> bool:
        return entry.time >= self.since and (not self.until or entry.time <= self.until)


def moment(text: str, option: str) -> str:
    """A time as entries have it, whose order is that of their text: from RFC 3339, seconds since 1970, or 10m ago.

    "" for "".  Without a zone it is the local time (docker).  UsageError names `option`.
    """
    return timestamp(nanoseconds(text, option)) if text else ""


def lines(text: str) -> int:
    """--tail: a number of lines, or all, which is -1; UsageError."""
    if text in ("all", "-1"):
        return -1
    if not is_number(text) or len(text) > 9:
        raise UsageError(f"--tail {text!r} is not a number of lines", hint="or all")
    return int(text)


def read(record: Record, selection: Selection, *, follow: bool = False) -> "Iterator[Entry | None]":
    """The entries; with `follow` until the container ends, and None each time that there are no more for now.

    StateError when no log is kept of it.
    """
    driver = record.config().log_driver or "json-file"
    if driver == "none":
        raise StateError(f"container {record.name!r} has no log", hint="it was made with --log-driver none")
    reader = _Reader(record, driver)
    try:
        for entry in reader.entries(selection.tail, follow and bool(record.state_dir.process())):
            if entry is None:
                yield None
                if selection.until and timestamp(time.time_ns()) > selection.until:
                    return
            elif selection.takes(entry):
                yield entry
            elif follow and entry.time > selection.until > "":
                return
    finally:
        reader.close()


def read_all(
    records: "Sequence[Record]", selection: Selection, *, follow: bool = False
) -> "Iterator[tuple[int, Entry | None]]":
    """The same of several, each entry with the number of its record: in the order of time, with `follow` as they come.

    Of each the last `tail` lines, and at its end an entry of no stream.
    """

    def numbered(number: int) -> "Iterator[tuple[int, Entry | None]]":
        last = ""
        for entry in read(records[number], selection, follow=follow):
            yield number, entry
            last = entry.time if entry else last
        yield number, Entry(last, "", b"")

    logs = [numbered(number) for number in range(len(records))]
    return _as_they_come(logs) if follow else heapq.merge(*logs, key=lambda found: found[1].time if found[1] else "")


def _as_they_come(logs: "Sequence[Iterator[tuple[int, Entry | None]]]") -> "Iterator[tuple[int, Entry | None]]":
    """A thread for each, which waits for whoever reads."""
    found: queue.Queue[tuple[int, Entry | None] | BaseException | None] = queue.Queue(_WAITING)

    def take(log: "Iterator[tuple[int, Entry | None]]") -> None:
        try:
            for one in log:
                found.put(one)
            found.put(None)
        except BaseException as error:
            found.put(error)

    for log in logs:
        threading.Thread(target=take, args=(log,), daemon=True).start()
    left = len(logs)
    while left:
        one = found.get()
        if isinstance(one, BaseException):
            raise one
        if one is None:
            left -= 1
        else:
            yield one


class _Reader:
    def __init__(self, record: Record, driver: str) -> None:
        self.record = record
        self.parse = _parse_json if driver == "json-file" else _parse_k8s
        self.files: list[_File] = []

    def close(self) -> None:
        while self.files:
            self.files.pop().close()

    def entries(self, tail: int, follow: bool) -> "Iterator[Entry | None]":
        watch = _Watch(self.record) if follow else None
        try:
            self._open_all()
            if tail >= 0:
                self._skip(tail)
            for file in self.files:
                yield from self._rest(file)
            if watch and self.files:
                yield from self._follow(watch)
        finally:
            if watch:
                watch.close()

    def _open_all(self) -> None:
        """The newest first: a rotation meanwhile makes us see a file twice, but miss none."""
        seen = set()
        for number in range(1_000_000):
            try:
                file = _File(self._path(number))
            except FileNotFoundError:
                if number:
                    return
                continue
            if file.inode in seen:
                file.close()
                continue
            seen.add(file.inode)
            self.files.insert(0, file)

    def _path(self, number: int) -> str:
        return f"{self.record.path}/{NAME}" + (f".{number}" if number else "")

    def _skip(self, tail: int) -> None:
        """Go to where the last `tail` lines begin.  The end of the last one may still be missing."""
        count = 0
        first = True
        for number in range(len(self.files) - 1, -1, -1):
            file = self.files[number]
            file.at = file.end()
            for at, line in file.backward():
                entry = self.parse(line)
                if entry and (first or entry.data.endswith(b"\n")):
                    if count == tail:
                        for older in self.files[:number]:
                            older.at = older.end()
                        return
                    count += 1
                    first = False
                file.at = at

    def _rest(self, file: "_File") -> "Iterator[Entry]":
        for line in file.forward():
            if entry := self.parse(line):
                yield entry

    def _follow(self, watch: "_Watch") -> "Iterator[Entry | None]":
        """What comes, until the monitor has written all of it down."""
        file = self.files[-1]
        while True:
            over = watch.is_over()
            yield from self._rest(file)
            if (newer := self._newer(file)) is not None:
                yield from self._rest(file)  # What was written before the rotation.
                self.files.append(newer)
                file = newer
                continue
            yield None
            if over:
                return
            watch.wait()

    def _newer(self, file: "_File") -> "_File | None":
        """The one that was begun after `file`; None while that is the current one."""
        number = 0
        try:
            while os.stat(self._path(number)).st_ino != file.inode:
                number += 1
        except OSError:
            # It is not there any more: the oldest that is.
            return _File(self._path(number - 1)) if number else None
        return _File(self._path(number - 1)) if number else None


class _File:
    """One file of a log, read from `at` on."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self.inode = os.fstat(self.fd).st_ino
        self.at = 0

    def close(self) -> None:
        os.close(self.fd)

    def end(self) -> int:
        return os.fstat(self.fd).st_size

    def forward(self) -> "Iterator[bytes]":
        """The whole lines that there are now; one whose end is missing is left for the next time."""
        if self.at > self.end():
            self.at = 0  # It was begun anew, as the only file that there is to be.
        rest, read_to = b"", self.at
        while block := os.pread(self.fd, _BLOCK, read_to):
            read_to += len(block)
            *found, rest = (rest + block).split(b"\n")
            for line in found:
                self.at += len(line) + 1
                yield line

    def backward(self) -> "Iterator[tuple[int, bytes]]":
        """Whole lines and where they begin, the last one first."""
        rest, place = b"", self.end()
        last = True
        while place:
            size = min(_BLOCK, place)
            place -= size
            rest, *found = (os.pread(self.fd, size, place) + rest).split(b"\n")
            at = place + len(rest) + sum(len(line) + 1 for line in found)
            for line in reversed(found):
                at -= len(line)
                if not last:
                    yield at, line
                last = False  # Behind the last newline is what is being written.
                at -= 1
        if not last:
            yield 0, rest


class _Watch:
    """Waits for changes of a container's directory, or its end."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._ended = False
        self._poll = select.poll()
        try:
            self._fd = watch_directory(record.path)
            self._poll.register(self._fd, select.POLLIN)
        except OSError:
            self._fd = -1  # The user has no more of them; then we look ten times a second.
        try:
            self._pidfd = record.container.pidfd()
            self._poll.register(self._pidfd, select.POLLIN)
        except StateError:
            self._pidfd, self._ended = -1, True

    def is_over(self) -> bool:
        """Whether nothing more will be written."""
        return self._ended and (self.record.exit() is not None or not self.record.monitor())

    def wait(self) -> None:
        pause = _SHORT_PAUSE if self._ended else _PAUSE if self._fd >= 0 else _PAUSE // 10
        for fd, _ in self._poll.poll(pause):
            if fd == self._pidfd:
                self._poll.unregister(fd)
                self._ended = True
            else:
                os.read(fd, _BLOCK)

    def close(self) -> None:
        for fd in (self._fd, self._pidfd):
            if fd >= 0:
                os.close(fd)


def _parse_json(line: bytes) -> "Entry | None":
    try:
        found = json.loads(line)
        return Entry(str(found["time"]), str(found["stream"]), str(found["log"]).encode("utf-8", "replace"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _parse_k8s(line: bytes) -> "Entry | None":
    parts = line.split(b" ", 3)
    if len(parts) < 4 or parts[2] not in (b"F", b"P"):
        return None
    return Entry(
        parts[0].decode("latin-1"), parts[1].decode("latin-1"), parts[3] + (b"\n" if parts[2] == b"F" else b"")
    )
