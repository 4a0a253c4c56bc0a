"""Out of memory: a descriptor that tells of it, and how many processes the kernel has killed for it."""

import posix
import select

from ..errors import UnsupportedError
from . import files
from .files import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Cgroup


def kills(cgroup: "Cgroup") -> int:
    """Processes of the cgroup that the OOM killer has ended so far.

    0 for a scope that is over: systemd takes its cgroup away with the last process, and the count with it.
    """
    path = cgroup.legacy.get(hierarchy(cgroup.legacy, "memory"), "")
    text = files.read(path + "/memory.oom_control" if path else cgroup.unified + "/memory.events")
    return files.words(text).get("oom_kill", 0)


class OomWatch:
    """`wait()`, or poll() `fileno()` for `events`: v2's memory.events as POLLPRI, v1's eventfd as POLLIN.

    Raises UnsupportedError where neither hierarchy accounts the container's memory.
    """

    __slots__ = ("_cgroup", "_control", "_fd", "_legacy", "_seen", "events")

    def __init__(self, cgroup: "Cgroup") -> None:
        self._cgroup = cgroup
        self._legacy = cgroup.legacy.get(hierarchy(cgroup.legacy, "memory"), "")
        self._control = -1
        if self._legacy:
            self._fd, self.events = self._register(), select.POLLIN
        elif cgroup.unified and files.exists(cgroup.unified + "/memory.events"):
            self._fd = posix.open(cgroup.unified + "/memory.events", posix.O_RDONLY | posix.O_CLOEXEC)
            self.events = select.POLLPRI
            posix.pread(self._fd, 4096, 0)  # poll() tells of what changes after a read.
        else:
            raise UnsupportedError("no cgroup accounts the container's memory", hint="limit its memory")
        self._seen = kills(cgroup)

    def _register(self) -> int:
        """cgroup-v1/memory.rst, "OOM Control": the eventfd fires when a task is killed and when the cgroup goes."""
        self._control = posix.open(self._legacy + "/memory.oom_control", posix.O_RDONLY | posix.O_CLOEXEC)
        fd = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_NONBLOCK)
        try:
            files.write(self._legacy + "/cgroup.event_control", f"{fd} {self._control}")
        except BaseException:
            posix.close(fd)
            posix.close(self._control)
            raise
        return fd

    def fileno(self) -> int:
        return self._fd

    def wait(self, seconds: "float | None" = None) -> int:
        """How many processes have been killed since the last call, waiting for the first; 0 when there was none.

        That is after `seconds`, or because the cgroup is gone.
        """
        poll = select.poll()
        poll.register(self._fd, self.events)
        poll.poll(None if seconds is None else max(0, int(seconds * 1000)))
        return self.take()

    def take(self) -> int:
        """The same without waiting."""
        self._drain()
        now = kills(self._cgroup)
        new, self._seen = max(0, now - self._seen), now
        return new

    def _drain(self) -> None:
        try:
            posix.eventfd_read(self._fd) if self._legacy else posix.pread(self._fd, 4096, 0)
        except OSError:
            # Nothing to read yet, or the cgroup is gone.
            pass

    def __enter__(self) -> "OomWatch":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in (self._fd, self._control):
            if fd >= 0:
                posix.close(fd)
        self._fd = self._control = -1
