"""Asking what can be done inside: the static program of runtime/probe/, in a container or as a process of our own.

A container needs no file for it: it is executed from a sealed memfd that the process has as its standard error.
"""

import os
import posix
import subprocess
from select import select

from ..errors import UsageError, WarrenError
from .pipes import PIPE, Streams, Text
from .popen import Process
from .processes import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from .records import Record

_SECONDS = 60.0
"""Within which each question is answered; a cgroup at its limits may take its time."""
_SEALS = 0x000F
_F_ADD_SEALS = 1033
_MFD_EXEC = 0x0010
_probe = -1


class Answer:
    """What came of one attempt: whether it could be done, and why not; `amount` of what it could have."""

    __slots__ = ("allowed", "amount", "reason")

    def __init__(self, allowed: bool, reason: str, amount: int = 0) -> None:
        self.allowed = allowed
        self.reason = reason
        self.amount = amount

    def __repr__(self) -> str:
        return f"<{'allowed' if self.allowed else f'denied: {self.reason}'}>"


class Prober:
    """A process with the probe in it; `record` None is our own surroundings.  To be closed."""

    def __init__(self, record: "Record | None", *, user: "str | None" = None) -> None:
        self._buffer = b""
        self._process: Process | subprocess.Popen[bytes]
        if record is None:
            self._process = _start_here(user)
        else:
            if user == "0" and record.config().user in (None, "", "0", "root"):
                user = None  # It is so anyway, and its accounts need not be looked up.
            request = Request(["/proc/self/fd/2"], workdir="/", user=user)
            streams = Streams(PIPE, PIPE, _probe_fd())
            self._process = Process(record, request, streams, Text(False, None, None)).open_files()
        assert self._process.stdin and self._process.stdout
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout
        self._line()

    def ask(self, command: str) -> "list[str]":
        """The lines of an answer; WarrenError for a question that cannot be asked or is not answered."""
        if "\n" in command or len(command) > 600:
            raise WarrenError(f"probe: {command[:40]!r} is no question")
        self._to.write(os.fsencode(command) + b"\n")
        self._to.flush()
        lines: list[str] = []
        while (line := self._line()) != "done":
            lines.append(line)
        if failed := next((line for line in lines if line.startswith("error ")), ""):
            raise WarrenError(f"probe: {failed[6:]}: {command}")
        return lines

    def attempt(self, command: str) -> Answer:
        """Of a `try`, `see` or `eat`."""
        lines = self.ask(command)
        _, outcome, reason = [*lines[0].split(" ", 2), ""][:3]
        amount = next((int(line.split()[1]) for line in lines if line.startswith("amount ")), 0)
        return Answer(outcome == "yes", reason, amount)

    def _line(self) -> str:
        fd = self._from.fileno()
        while b"\n" not in self._buffer:
            piece = os.read(fd, 65536) if select([fd], [], [], _SECONDS)[0] else b""
            if not piece:
                raise WarrenError("probe: it has ended, or does not answer", hint="was it killed at a limit?")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def close(self) -> None:
        for file in (self._to, self._from):
            try:
                file.close()
            except BrokenPipeError:
                pass
        self._process.kill()
        self._process.wait()
        if isinstance(self._process, Process):
            self._process.close()

    def __enter__(self) -> "Prober":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _start_here(user: "str | None") -> "subprocess.Popen[bytes]":
    """As whoever we are, if it is to be root; UsageError if we cannot become somebody else."""
    ids: dict[str, Any] = {}
    if user not in (None, "0"):
        name, _, group = user.partition(":")
        uid, gid = (int(word) if word.isdigit() else word for word in (name, group or "65534"))
        ids = {"user": uid, "group": gid, "extra_groups": []}
    try:
        return subprocess.Popen([probe_path()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **ids)
    except (PermissionError, KeyError) as error:
        raise UsageError(f"user={user!r} cannot be had here: {error}".lower()) from error


def probe_path() -> str:
    """The probe as it is installed; WarrenError where it was not built."""
    path = os.path.join(os.path.dirname(os.path.dirname(__file__)), "probe", "probe")
    if not os.access(path, os.X_OK):
        raise WarrenError(f"probe: {path} is missing", hint="build it: pip install . or make build")
    return path


def _probe_fd() -> int:
    """A sealed copy, which nobody in a container can change."""
    global _probe
    if _probe < 0:
        with open(probe_path(), "rb") as file:
            data = file.read()
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            fd = os.memfd_create("warren-probe", flags | _MFD_EXEC)
        except OSError:  # Before Linux 6.3.
            fd = os.memfd_create("warren-probe", flags)
        posix.write(fd, data)
        import fcntl

        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        _probe = fd
    return _probe
