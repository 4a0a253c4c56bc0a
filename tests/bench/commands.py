"""Runs commands and takes their time, from before the spawn to after the wait."""

import os
import signal
import time
from collections.abc import Mapping, Sequence

Ns = int
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""Of every command: a runtime must not find settings of the person who measures."""


class FailedError(Exception):
    """A command that did not succeed; nothing can be measured then."""


class Commands:
    """Starts commands with /dev/null as input and output; what they say on stderr is kept for the case of failure."""

    def __init__(self) -> None:
        self._said = os.memfd_create("stderr", os.MFD_CLOEXEC)

    def timed(self, command: Sequence[str], environment: Mapping[str, str] = ENVIRONMENT, idle: float = 0) -> Ns:
        """Sleep for `idle` seconds, then run the command; raises FailedError unless it exits with 0."""
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, self._said, 2),
        ]
        if idle:
            time.sleep(idle)
        start = time.perf_counter_ns()
        pid = os.posix_spawn(command[0], list(command), environment, file_actions=actions)
        status = _wait(pid)
        elapsed = time.perf_counter_ns() - start
        if status:
            raise FailedError(f"{' '.join(command)}\nended with {_words(status)}\n{self._tail()}")
        return elapsed

    def _tail(self) -> str:
        return os.pread(self._said, 1 << 20, 0).decode(errors="replace")[-2000:]


def _wait(pid: int) -> int:
    """Whatever interrupts us, no command is left running."""
    try:
        return os.wait4(pid, 0)[1]
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        if not _ends(pid, 5):
            os.kill(pid, signal.SIGKILL)
            os.wait4(pid, 0)
        raise


def _ends(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


def _words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
