"""Whole tests inside a container: a pytest of its own there runs them, and their reports are replayed here.

    pytest ──> runtime.run("host", [python, ...]) ──> pytest FILES     the tree and the interpreter are read-only
       │  ──> the next test, a line of JSON on its stdin ──┤
       │  <── its reports, on what was its stdout ─────────┘

Tests that share fixtures share it (groups.py).  One that ends with a test is followed by a new one at the next test.
"""

import json
import os
import posix
import select
import time

import pytest

from runtime.engine.library import Asked
from runtime.engine.pipes import PIPE, feed
from runtime.errors import UnsupportedError, WarrenError
from runtime.state import poll_end

from .containers import end_with_session, reason
from .groups import groups, wanted
from .place import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    Json = dict[str, Any]

_HOST = "host"
_SECONDS = 300.0
_GRACE = 10.0
"""Seconds to end in, once there is nothing more to do."""
_TAIL = 4000
_BUFFER = 1 << 16


def run_protocol(item: pytest.Item, nextitem: "pytest.Item | None") -> bool:
    """pytest_runtest_protocol of one that is marked `inside`."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _room(item).reports(item, nextitem):
        hook.pytest_runtest_logreport(report=report)
    # Nothing of it was set up here, but what earlier tests have left to it may have to go.
    call = pytest.CallInfo.from_call(
        lambda: item.session._setupstate.teardown_exact(nextitem),
        when="teardown", reraise=(KeyboardInterrupt, pytest.exit.Exception),
    )  # fmt: skip
    if call.excinfo:
        hook.pytest_runtest_logreport(report=hook.pytest_runtest_makereport(item=item, call=call))
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


_ROOMS = pytest.StashKey["dict[str, Room]"]()


def _room(item: pytest.Item) -> "Room":
    rooms = item.session.stash.get(_ROOMS, None)
    if rooms is None:
        rooms = item.session.stash[_ROOMS] = {}
        for room in map(Room, groups(item.session.items)):
            rooms.update((one.nodeid, room) for one in room.items)
    return rooms.get(item.nodeid) or rooms.setdefault(item.nodeid, Room([item]))


def finish(session: pytest.Session) -> None:
    """End what still waits for tests, after -x and Ctrl-C."""
    for room in set(session.stash.get(_ROOMS, {}).values()):
        room.close()


class Room:
    """Tests that share a container, which is there from the first to the last of them."""

    def __init__(self, items: "list[pytest.Item]") -> None:
        self.items = items
        self._names = {item.nodeid for item in items}
        self._inner: _Inner | None = None

    def reports(self, item: pytest.Item, nextitem: "pytest.Item | None") -> "Iterator[pytest.TestReport]":
        """Of one test, as they come.  Its fixtures stay as long as they would stay here."""
        following = nextitem.nodeid if nextitem and nextitem.nodeid in self._names else None
        stay = [node.nodeid for node in item.listchain() if nextitem and node in nextitem.listchain()]
        is_last = nextitem is None or item is self.items[-1]
        request = {"run": item.nodeid, "next": following, "stay": [] if is_last else stay}
        try:
            yield from self._told(item, request)
        except UnsupportedError as error:
            yield _cannot(item, error)
        except (WarrenError, pytest.fail.Exception) as error:  # The latter of other plugins, such as a time limit's.
            self.close()
            yield _made_up(item, "failed", f"the container of this test failed: {error}")
        if is_last:
            self.close()

    def _told(self, item: pytest.Item, request: "Json") -> "Iterator[pytest.TestReport]":
        seconds = wanted(item).get("timeout", _SECONDS)
        deadline = time.monotonic() + seconds
        if not self._inner:
            self._inner = _Inner(self.items)
        found = False
        try:
            for data in self._inner.ask(request, deadline):
                found = True
                yield _report(item, data)
        except TimeoutError as error:
            raise WarrenError(f"it took longer than {seconds:g} s and was killed") from error
        except EOFError as error:
            raise WarrenError(self._inner.ending()) from error
        if not found:
            yield _made_up(item, "failed", "the test inside the container ended without a report")

    def close(self) -> None:
        """Idempotent."""
        inner, self._inner = self._inner, None
        if inner:
            inner.close()


def _report(item: pytest.Item, data: "Json") -> pytest.TestReport:
    if "failed" in data:
        return _made_up(item, "failed", data["failed"])
    report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
    assert isinstance(report, pytest.TestReport)
    report.nodeid, report.location = item.nodeid, item.location
    if isinstance(report.longrepr, list):  # Where and why it was skipped; JSON knows no tuples.
        report.longrepr = tuple(report.longrepr)
    return report


def _cannot(item: pytest.Item, error: UnsupportedError) -> pytest.TestReport:
    if item.config.getoption("container_strict"):
        return _made_up(item, "failed", str(error))
    path, line, _ = item.location
    return _made_up(item, "skipped", (path, line or 0, f"Skipped: {reason(error)}"))


def _made_up(item: pytest.Item, outcome: "Any", text: "Any") -> pytest.TestReport:
    keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(
        item.nodeid, item.location, keywords, outcome, text, "call" if outcome == "failed" else "setup"
    )


# ---- the container


class _Inner:
    """A container and the pytest in it; raises what runtime.run() raises.  To be closed."""

    def __init__(self, items: "list[pytest.Item]") -> None:
        config, options = items[0].config, wanted(items[0])
        image, more = options.pop("image", _HOST), options.pop("args", ())
        options.pop("timeout", None)
        end_with_session(config)
        place = Place(str(config.rootpath), {str(item.path.parent) for item in items}, image)
        mounts = [*place.mounts, *options.pop("mounts", ())]
        self._asked = Asked({
            "image": image, "argv": place.argv, "cwd": str(config.rootpath), "entrypoint": "", **options,
            "mounts": mounts, "stdin": PIPE, "stdout": PIPE, "stderr": PIPE,
        })  # fmt: skip
        self._run, self._streams = self._asked.run, self._asked.streams
        files = dict.fromkeys(str(item.path) for item in items)
        self._unsent = _line({"path": place.path, "args": [*files, *_arguments(config), *more]})
        self._unread, self._complaints = b"", b""
        self._outputs = [self._streams.out, self._streams.err]
        self._is_idle, self._is_over = True, False
        try:
            self._run.launch()
            self._streams.launched()
        except BaseException:
            self._asked.close()
            raise

    def ask(self, request: "Json", deadline: float) -> "Iterator[Json]":
        """What it says of a test.  TimeoutError, EOFError when it has ended before it was through."""
        self._unsent += _line(request)
        self._is_idle = False
        while True:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                data = json.loads(line)
                if "done" in data:
                    self._is_idle = True
                    return
                yield data
            self._move(deadline)

    def _move(self, deadline: float) -> None:
        """Bytes to and fro, as soon as there are any."""
        streams, poll = self._streams, select.poll()
        for fd in self._outputs:
            poll.register(fd, select.POLLIN)
        if self._unsent:
            poll.register(streams.feed, select.POLLOUT)
        events = [fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
        if not events:
            raise TimeoutError
        if streams.feed in events:
            self._unsent = bytes(feed(streams.feed, memoryview(self._unsent)))
        if streams.err in events:
            self._listen()
        if streams.out in events:
            said = os.read(streams.out, _BUFFER)
            self._unread += said
            if not said:
                raise EOFError

    def _listen(self) -> None:
        """To what it says beside its reports, of which the end is kept."""
        said = os.read(self._streams.err, _BUFFER)
        self._complaints = (self._complaints + said)[-_TAIL:]
        if not said:
            self._outputs.remove(self._streams.err)

    def ending(self) -> str:
        """How it has ended, though nobody has asked it to."""
        self._end(0.1)
        how = "was killed at its memory limit" if self._run.usage.oom else "ended without a report"
        return f"the test inside the container {how}\n{self._complaints.decode(errors='replace')}"

    def close(self) -> None:
        """Let it end by itself, unless it is in the middle of a test."""
        try:
            self._streams.shut(self._streams.feed)
            self._unsent = b""
            self._end(_GRACE if self._is_idle else 0)
        finally:
            self._asked.close()

    def _end(self, seconds: float) -> None:
        """Wait so long for its end, and kill it."""
        if self._is_over:
            return
        self._is_over, deadline = True, time.monotonic() + seconds
        try:
            while True:
                self._move(deadline)
        except (TimeoutError, EOFError):
            pass
        pidfd = posix.pidfd_open(self._run.pid)
        try:
            if poll_end(pidfd, max(0.0, deadline - time.monotonic())):
                self._run.wait()
            else:
                self._run.kill()
        finally:
            posix.close(pidfd)
        self._run.remove()
        while self._streams.err in self._outputs:
            self._listen()


def _line(data: "Json") -> bytes:
    return json.dumps(data).encode() + b"\n"


def _arguments(config: pytest.Config) -> "list[str]":
    """What of this run's options changes how a test is run and told of."""
    option = config.option
    found = [f"--rootdir={config.rootpath}"]
    if config.inipath:
        found.append(f"-c{config.inipath}")
    for plugin in option.plugins or ():
        found += ["-p", plugin]
    found += ["-p", "no:cacheprovider", "-p", "no:terminalreporter", "-oaddopts="]
    found += [f"-o{one}" for one in option.override_ini or ()]
    found += [f"--import-mode={option.importmode}", f"--assert={option.assertmode}", f"--tb={option.tbstyle}"]
    found += ["-l"] if option.showlocals else []
    return [*found, f"--capture={option.capture}", *["-v"] * max(0, option.verbose)]
