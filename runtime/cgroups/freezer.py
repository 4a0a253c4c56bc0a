"""Freezing and thawing, each bounded: what cannot be frozen in time is thawed again and reported."""

import posix
import select
import time

from ..errors import StateError, UnsupportedError
from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Cgroup

SECONDS = 10.0
_KICK = 25
"""After how many looks at a v1 freezer that does not come to rest it is thawed in between (runc)."""


def freeze(cgroup: "Cgroup", seconds: float = SECONDS) -> None:
    """Stop every process of the cgroup; returns when all have stopped.

    Raises StateError after `seconds`, UnsupportedError without a freezer; the cgroup is then thawed.
    """
    _require(cgroup)
    try:
        done = _freeze_unified(cgroup.unified, seconds) if cgroup.unified else _freeze_legacy(_legacy(cgroup), seconds)
    except BaseException:
        _quietly_thaw(cgroup)
        raise
    if not done:
        thaw(cgroup)
        raise StateError("the container cannot be frozen: a process does not stop", hint="is it stuck in the kernel?")


def thaw(cgroup: "Cgroup") -> None:
    """Let them go on; a v1 freezer that was frozen beside the v2 one, by whomever, is thawed as well."""
    _require(cgroup)
    if cgroup.unified:
        files.write(cgroup.unified + "/cgroup.freeze", "0")
    legacy = _legacy(cgroup)
    if legacy and files.read(legacy + "/freezer.state").strip() not in ("", "THAWED"):
        files.write(legacy + "/freezer.state", "THAWED")


def _legacy(cgroup: "Cgroup") -> str:
    return cgroup.legacy.get("freezer", "")


def _require(cgroup: "Cgroup") -> None:
    if not cgroup.unified and not _legacy(cgroup):
        raise UnsupportedError("the container has no cgroup that can be frozen", hint="it was made without cgroups")


def _quietly_thaw(cgroup: "Cgroup") -> None:
    try:
        thaw(cgroup)
    except OSError:
        pass


def _freeze_unified(path: str, seconds: float) -> bool:
    """cgroup.events changes when all have stopped, and then polls as POLLPRI (cgroup-v2.rst)."""
    files.write(path + "/cgroup.freeze", "1")
    deadline = time.monotonic() + seconds
    fd = posix.open(path + "/cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while b"frozen 1" not in posix.pread(fd, 256, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(int(left * 1000) + 1)
        return True
    finally:
        posix.close(fd)


def _freeze_legacy(path: str, seconds: float) -> bool:
    """FREEZING may last for ever when a task forks at the wrong moment: write again, and thaw now and then (runc)."""
    deadline = time.monotonic() + seconds
    tries = 0
    while time.monotonic() < deadline:
        tries += 1
        if tries % _KICK == 0:
            files.write(path + "/freezer.state", "THAWED")
            time.sleep(0.01)
        files.write(path + "/freezer.state", "FROZEN")
        if files.read(path + "/freezer.state").strip() == "FROZEN":
            return True
        time.sleep(0.0001 * min(tries, 50))
    return False
