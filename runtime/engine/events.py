"""Reading the events that journal.py notes: those that have been, and those that come."""

import posix
import select
import time

from ..container import default_root
from ..errors import SpecError
from ..jsontext import parse_json
from ..state import make_root
from ..syscalls import watch_directory
from . import journal
from .filters import has_labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]

FILTERS = ("container", "event", "image", "label", "network", "type", "volume")
_PAUSE, _SHORT_PAUSE = 1000, 100
"""Milliseconds between two looks at a file that nobody writes to: where the kernel tells of writing, and where not."""
_CHUNK = 1 << 16


def events(since: int, until: "int | None", filters: "dict[str, list[str]]") -> "Iterator[Json]":
    """Those from `since` to `until` (nanoseconds since 1970), as they come; without an end for None."""
    for line in _lines(until, past=since < time.time_ns()):
        event = _event(line)
        if event and since <= event["timeNano"] <= (until or event["timeNano"]) and matches(event, filters):
            yield event


def matches(event: "Json", filters: "dict[str, list[str]]") -> bool:
    return all(any(_TESTS[key](event, value) for value in values) if key != "label"
               else has_labels(event["Actor"]["Attributes"], values) for key, values in filters.items())  # fmt: skip


def _is(kind: str, event: "Json", value: str) -> bool:
    actor = event["Actor"]
    name = actor["Attributes"].get("name", "")
    return event["Type"] == kind and bool(value) and (name == value or actor["ID"].startswith(value))


_TESTS: "dict[str, Any]" = {
    "container": lambda event, value: _is("container", event, value.removeprefix("/")),
    "event": lambda event, value: event["Action"].partition(":")[0] == value,
    "image": lambda event, value: _is("image", event, value) or event["Actor"]["Attributes"].get("image") == value,
    "network": lambda event, value: _is("network", event, value),
    "type": lambda event, value: event["Type"] == value,
    "volume": lambda event, value: _is("volume", event, value),
}


def _event(line: bytes) -> "Json | None":
    """None for a line that is none: a full disk may have cut it off."""
    try:
        event = parse_json(line, "event")
    except SpecError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("timeNano"), int) else None


def _lines(until: "int | None", *, past: bool) -> "Iterator[bytes]":
    """Of both generations of the file, and what is appended, until then."""
    if past:
        before = _Tail(journal.path(1))
        yield from before.read()
        before.close()
    tail = _Tail(journal.path())
    old: list[_Tail] = []
    if not past:
        tail.skip()
    change = _Change()
    try:
        while True:
            is_over = until is not None and time.time_ns() > until
            for one in [*old, tail]:
                yield from one.read()
            while old:
                old.pop().close()
            if is_over:
                return
            if tail.is_renamed():
                # Who has opened it before that may still write to it: it is looked at once more.
                old.append(tail)
                tail = _Tail(journal.path())
                continue
            change.wait(until)
    finally:
        change.close()
        for one in [*old, tail]:
            one.close()


class _Change:
    """Waits until something happens in the directory of the journal (inotify(7)), or for a little while."""

    def __init__(self) -> None:
        self._poll = select.poll()
        try:
            make_root(default_root())
            self._fd = watch_directory(default_root())
            self._poll.register(self._fd, select.POLLIN)
        except OSError:
            self._fd = -1  # The user has no more of them.

    def wait(self, until: "int | None") -> None:
        longest = _PAUSE if self._fd >= 0 else _SHORT_PAUSE
        left = longest if until is None else max(0, until - time.time_ns()) // 1_000_000 + 1
        if self._poll.poll(min(longest, left)):
            posix.read(self._fd, _CHUNK)

    def close(self) -> None:
        if self._fd >= 0:
            posix.close(self._fd)


class _Tail:
    """A file that grows, and that may not be there yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""

    def _open(self) -> int:
        if self._fd < 0:
            try:
                self._fd = posix.open(self._path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
            except FileNotFoundError:
                pass
        return self._fd

    def skip(self) -> None:
        """What is there now is not wanted."""
        if self._open() >= 0:
            posix.lseek(self._fd, 0, 2)

    def read(self) -> "Iterator[bytes]":
        """Whole lines that have come since the last time."""
        if self._open() < 0:
            return
        while part := posix.read(self._fd, _CHUNK):
            *lines, self._rest = (self._rest + part).split(b"\n")
            yield from lines

    def is_renamed(self) -> bool:
        if self._fd < 0:
            return False
        try:
            now, ours = posix.stat(self._path), posix.fstat(self._fd)
        except FileNotFoundError:
            return True
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        if self._fd >= 0:
            posix.close(self._fd)
        self._fd = -1
