"""Assertions on isolation: each tries for real what is to be impossible, and a failure says what made it possible.

They ask inside a container (`container=`), or, in a test that is marked `inside`, right where it runs.
"""

import os
import warnings

import pytest

from runtime.engine.probing import Answer, Prober
from runtime.engine.records import Record, find
from runtime.errors import UsageError, WarrenError
from runtime.quantities import size
from runtime.state import start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.engine.handle import RunningContainer

    Where = RunningContainer | Record | str | None

_PLAIN = (
    "alg", "bpf", "chroot", "clock", "handle", "i386", "io_uring", "keyring", "log", "mknod", "modules", "mount",
    "perf", "raw", "userfaultfd", "userns", "vsock", "x32",
)  # fmt: skip
_WITH = {"connect": 2, "open": 1, "read": 1, "ptrace": 1, "signal": 1, "join": 2}
"""How many words each takes."""
_MEBIBYTE = 1 << 20
_CPU_MS = 400
_PERIOD_MS = 100
_ATTEMPTS = 4
_LEAST = 0.6
"""Share of the processors that are told which is not yet much less."""
_CPU_STAT = tuple(f"/sys/fs/cgroup/{place}cpu.stat" for place in ("", "cpu/", "cpu,cpuacct/"))
"""Of our own cgroup, if that is the root of what is mounted: of v2, or of v1."""


def denied(action: str, *words: "Any", mode: str = "r", user: str = "0", container: "Where" = None) -> None:
    """Assert that something cannot be done inside, by `user` (root); nothing is changed by trying.

        denied("mount"), denied("connect", "10.0.0.1", 80), denied("open", "/etc/shadow", mode="w")

    Further: read PATH, ptrace PID, signal PID, join PID KIND, mknod, userns, raw, keyring, bpf, perf, io_uring,
    userfaultfd, alg, vsock, modules, clock, handle, log, x32, i386, chroot.
    """
    __tracebackhide__ = True
    if action not in _PLAIN and len(words) != _WITH.get(action, -1):
        known = ", ".join(sorted((*_PLAIN, *_WITH)))
        raise UsageError(f"denied({', '.join(map(repr, (action, *words)))}): not so", hint=f"known are {known}")
    if action == "open":
        words = (mode, *words)
    answer = _ask(container, user, " ".join(map(str, ("try", action, *words))))
    if answer.allowed:
        what = " ".join(map(str, (action, *words)))
        raise AssertionError(f"{what} is not denied {_where(container)}: {_why(container)}")


def cannot_see(
    *, path: "str | os.PathLike[str]" = "", process: int = 0, network: "tuple[str, int] | None" = None,
    user: str = "0", container: "Where" = None,
) -> None:  # fmt: skip
    """Assert that a path, a process of the host (its pid here) and a network (address and port) are out of sight."""
    __tracebackhide__ = True
    questions = []
    if path:
        questions.append((f"path {os.fspath(path)}", f"see path {os.fspath(path)}"))
    if process:
        started = start_time(process)
        if not started:
            raise UsageError(f"cannot_see(process={process}): there is no such process")
        questions.append((f"process {process}", f"see process {process} {started}"))
    if network:
        questions.append((f"network {network[0]} port {network[1]}", f"see network {network[0]} {network[1]}"))
    if not questions:
        raise UsageError("cannot_see() of nothing", hint="path=, process= or network=")
    for what, question in questions:
        if _ask(container, user, question).allowed:
            raise AssertionError(f"{what} can be seen {_where(container)}: {_why(container)}")


def limited(
    *, memory: "str | int" = 0, pids: int = 0, cpus: float = 0, user: str = "0", container: "Where" = None
) -> None:
    """Assert that there is no more inside than so much memory ("64m"; as much again may be swapped), so many processes
    and so many processors (0.5), by using it up; and not much less of the latter.

    What a busy host has not left to be used says nothing of a limit: PytestWarning, after some attempts.
    """
    __tracebackhide__ = True
    if memory:
        most = 2 * size(str(memory), "memory")
        answer = _ask(container, user, f"eat memory {most + 32 * _MEBIBYTE}")
        _expect(answer.amount <= most, f"{answer.amount >> 20} MiB of memory could be used", container)
    if pids:
        answer = _ask(container, user, f"eat processes {pids + 8}")
        _expect(answer.amount <= pids, f"{answer.amount} processes could be started", container)
    if cpus and not any(_is_held(cpus, user, container) for _ in range(_ATTEMPTS)):
        warnings.warn(
            pytest.PytestWarning(f"limited(cpus={cpus:g}): the host is too busy to see the limit {_where(container)}"),
            stacklevel=2,
        )


def _is_held(cpus: float, user: str, container: "Where") -> bool:
    """Use what there is: whether the limit was seen at work.  AssertionError if there is another or none."""
    __tracebackhide__ = True
    before = _periods(container)
    used = _ask(container, user, f"eat cpu {_CPU_MS}").amount / 1000 / _CPU_MS
    after = _periods(container)
    # The last period may have begun just before the end.
    _expect(used <= cpus * (1 + _PERIOD_MS / _CPU_MS) * 1.1, f"{used:.2f} processors could be used", container)
    if before is None or after is None:
        return used >= _LEAST * cpus
    periods, throttled = (now - then for now, then in zip(after, before, strict=True))
    _expect(periods > 0, f"no limit of processors holds; {used:.2f} could be used", container)
    if throttled < 0.75 * periods:
        return cpus >= 0.9 * (os.cpu_count() or 1)  # More cannot be had anyway.
    # In all of that time it has used what it may.
    _expect(used >= _LEAST * cpus, f"no more than {used:.2f} of {cpus:g} processors could be used", container)
    return True


def _periods(container: "Where") -> "tuple[int, int] | None":
    """Periods of the limit so far, and those in which it was reached; None where no file tells of it."""
    if record := _record(container):
        cpu = record.container.stats().cpu
        return (cpu.periods, cpu.throttled_periods) if cpu else (0, 0)
    for path in _CPU_STAT:
        if os.path.exists(path):
            with open(path) as file:
                found = dict(line.split() for line in file)
            return int(found.get("nr_periods", 0)), int(found.get("nr_throttled", 0))
    return None


def _expect(fine: bool, text: str, container: "Where") -> None:
    __tracebackhide__ = True
    if not fine:
        raise AssertionError(f"{text} {_where(container)}: {_why(container)}")


def _record(container: "Where") -> "Record | None":
    if container is None or isinstance(container, Record):
        return container
    return find(container) if isinstance(container, str) else container.record


def _ask(container: "Where", user: str, question: str) -> Answer:
    record = _record(container)
    with Prober(record, user=user) as prober:
        return prober.attempt(question)


def _where(container: "Where") -> str:
    record = _record(container)
    return f"in container {record.name}" if record else "here"


def _why(container: "Where") -> str:
    """What of its protection is not there, as far as it can be told from outside."""
    from runtime import capabilities
    from runtime.engine.relaxations import relaxations

    record = _record(container)
    pid = "self"
    told = []
    if record:
        try:
            pid = str(record.running_pid())
        except WarrenError as error:
            return str(error)
        if relaxed := relaxations(record.config()):
            told.append(f"relaxed by {', '.join(relaxed)}")
        notes = (record.life().get("enforced") or {}).items()
        told += [f"{name}: {text}" for name, text in notes if text.startswith(("off", "not", "none", "without"))]
    with open(f"/proc/{pid}/status") as file:
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    more = [name for name in capabilities.names(int(status["CapBnd"], 16)) if name not in capabilities.DEFAULT]
    if more:
        told.append(f"it has {len(more)} capabilities beyond the default, {more[0]} among them")
    if status.get("Seccomp") == "0":
        told.append("no system call is filtered")
    return "; ".join(told) or "nothing of the defaults is relaxed, so it is not among what they deny"
