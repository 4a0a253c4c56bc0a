"""Health checks: a command that is run in the container again and again, and what its results make of the container.

    DATA/containers/ID/health.json    status, failures in a row, the last five results, when the next is due

The words are docker's: starting, healthy, unhealthy.
"""

import posix
import select
import time

from ..config import ContainerConfig
from ..errors import StateError, UsageError, WarrenError
from ..launch import Options
from ..quantities import duration
from ..syscalls import wait
from . import journal
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_SECOND = 1_000_000_000
_INTERVAL, _TIMEOUT, _RETRIES = 30 * _SECOND, 30 * _SECOND, 3
_KEPT, _MAX_OUTPUT = 5, 4096
_SIGKILL = 9
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


class HealthCheck:
    """What is to be run and when; times in nanoseconds.  Raises UsageError for options that make no sense."""

    __slots__ = ("argv", "interval", "retries", "start_period", "timeout")

    def __init__(self, config: ContainerConfig) -> None:
        image: Json = config.image_health or {}
        self.argv = _argv(config.health_cmd, image.get("Test"))
        self.interval = _time(config.health_interval, "--health-interval", image.get("Interval"), _INTERVAL)
        self.timeout = _time(config.health_timeout, "--health-timeout", image.get("Timeout"), _TIMEOUT)
        self.start_period = _time(config.health_start_period, "--health-start-period", image.get("StartPeriod"), 0)
        self.retries = config.health_retries or _whole(image.get("Retries")) or _RETRIES
        if self.retries < 0:
            raise UsageError(f"--health-retries {self.retries} is negative")
        if config.no_healthcheck:
            if config.health_cmd is not None:
                raise UsageError("--no-healthcheck and --health-cmd exclude each other")
            self.argv = []

    def __bool__(self) -> bool:
        return bool(self.argv)


def _argv(command: "str | None", test: object) -> "list[str]":
    """Of --health-cmd, else of the image's Test: [CMD, ...], [CMD-SHELL, TEXT], [NONE] (docker's image-spec)."""
    if command is not None:
        return ["/bin/sh", "-c", command] if command not in ("", "none") else []
    words = [str(word) for word in test] if isinstance(test, list) else []
    if words[:1] == ["CMD-SHELL"]:
        return ["/bin/sh", "-c", *words[1:2]]
    return words[1:] if words[:1] == ["CMD"] else []


def _time(text: str, option: str, image: object, default: int) -> int:
    if text:
        return int(duration(text, option) * _SECOND) if text not in ("0", "0s") else default
    return _whole(image) or default


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def read(record: Record) -> "Json":
    """status, failing, log and next; empty before the first start of a container with a health check."""
    return record.read_optional("health.json")


def begin(record: Record, check: HealthCheck) -> None:
    """A container with a check has just been started."""
    now = time.time_ns()
    record.write_json("health.json", {"status": STARTING, "failing": 0, "log": [], "next": now + check.interval})


def perform(record: Record, check: HealthCheck) -> None:
    """Run the check and note the result; holds no lock, as it may take long.  One that is not due is left."""
    began = time.time_ns()
    code, output = _run(record, check)
    if code is None:
        return  # The container has ended.
    known = read(record)
    failing = 0 if code == 0 else int(known.get("failing") or 0) + 1
    before = status = str(known.get("status") or STARTING)
    in_start_period = before == STARTING and began - int(record.life().get("started") or 0) < check.start_period
    if code == 0:
        status = HEALTHY
    elif in_start_period:
        failing = 0
    elif failing >= check.retries:
        status = UNHEALTHY
    entry = {"Start": began, "End": time.time_ns(), "ExitCode": code, "Output": output}
    log = [*(known.get("log") or []), entry][-_KEPT:]
    following = time.time_ns() + check.interval
    record.write_json("health.json", {"status": status, "failing": failing, "log": log, "next": following})
    if status != before:
        journal.note(record, f"health_status: {status}")


def _run(record: Record, check: HealthCheck) -> "tuple[int | None, str]":
    """Exit code (-1 after the time-out or when it cannot be run) and output; None when the container has ended."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    null = posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        container = record.container
        process = {**container.exec_defaults(), "args": check.argv, "terminal": False}
        try:
            pid = container.exec(process, Options(stdio=(null, writer, writer), pipes=0b110))
        except StateError:
            return None, ""
        except WarrenError as error:
            return -1, str(error)
        posix.close(writer)
        writer = -1
        output, in_time = _collect(reader, pid, check.timeout)
        if not in_time:
            posix.kill(pid, _SIGKILL)
        code = wait(pid)
    finally:
        for fd in (reader, writer, null):
            if fd >= 0:
                posix.close(fd)
    if not record.state_dir.process():
        return None, ""
    if not in_time:
        return -1, f"health check exceeded timeout ({check.timeout / _SECOND:g}s)"
    return code, output.decode("utf-8", "replace")


def _collect(reader: int, pid: int, timeout: int) -> "tuple[bytes, bool]":
    """What the command says until it ends, at most 4 KiB of it; whether that was in time."""
    deadline = time.monotonic_ns() + timeout
    ended = posix.pidfd_open(pid)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(ended, select.POLLIN)
    found = b""
    try:
        while (left := deadline - time.monotonic_ns()) > 0:
            ready = [fd for fd, _ in poll.poll(left // 1_000_000 + 1)]
            if reader in ready:
                part = posix.read(reader, 65536)
                found += part[: _MAX_OUTPUT - len(found)]
                if not part:
                    poll.unregister(reader)
            elif ended in ready:
                return found, True
        return found, False
    finally:
        posix.close(ended)
