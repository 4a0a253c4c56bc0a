"""The processes of a container, as ps(1) on the host tells of them."""

import posix
import time

from ..errors import UnsupportedError, UsageError, WarrenError
from ..state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import CompletedProcess

    from .records import Record

    Table = tuple[list[str], list[list[str]]]

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
"""Of `ps -ef`, docker's default."""
_PTS = range(136, 144)
"""Majors of pseudoterminals (devices.txt)."""


def top(record: "Record", options: "Sequence[str]" = ()) -> "Table":
    """Titles and a row for each process, with the host's pids; with `options` what ps(1) makes of them.

    Without, the users are those inside the container, as numbers.  StateError when it does not run.
    """
    record.running_pid()
    pids = record.container.processes()
    if options:
        return _by_ps(pids, options)
    return TITLES, [row for pid in sorted(pids) if (row := _row(pid))]


def _row(pid: int) -> "list[str]":
    """[] for a process that has ended meanwhile."""
    try:
        stat = read_file(f"/proc/{pid}/stat").decode("utf-8", "replace")
        words = read_file(f"/proc/{pid}/cmdline")
        status = read_file(f"/proc/{pid}/status").decode("utf-8", "replace")
        ids = read_file(f"/proc/{pid}/uid_map").decode()
    except OSError:
        return []
    name, _, rest = stat.rpartition(")")
    fields = rest.split()
    used = (int(fields[11]) + int(fields[12])) / _HERTZ
    started = _boot_time() + int(fields[19]) / _HERTZ
    share = int(100 * used / max(time.time() - started, 1))
    uid = next(line.split()[2] for line in status.splitlines() if line.startswith("Uid:"))
    command = " ".join(words.decode("utf-8", "replace").rstrip("\0").split("\0")) or f"[{name.partition('(')[2]}]"
    return [_inside(int(uid), ids), str(pid), fields[1], str(min(share, 99)), _clock(started), _tty(int(fields[4])),
            _duration(used), _printable(command)]  # fmt: skip


_HERTZ = posix.sysconf("SC_CLK_TCK")


def _boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _inside(uid: int, ids: str) -> str:
    """The user in the container's namespace (user_namespaces(7), uid_map), as a number; root by name."""
    for line in ids.splitlines():
        inside, outside, count = map(int, line.split())
        if outside <= uid < outside + count:
            uid = inside + uid - outside
            break
    return str(uid) if uid else "root"


def _clock(started: float) -> str:
    """As ps(1): the time of today's, the day of older ones."""
    then, now = time.localtime(started), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%b%d", then)


def _tty(number: int) -> str:
    major, minor = number >> 8 & 0xFFF, (number & 0xFF) | (number >> 12 & 0xFFF00)
    if major in _PTS:
        return f"pts/{(major - _PTS[0]) * 256 + minor}"
    return f"{major}/{minor}" if number else "?"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _printable(text: str) -> str:
    """What a container calls its processes may not steer the terminal."""
    return "".join([char if char.isprintable() else "?" for char in text])


def _ps(words: "Sequence[str]") -> "CompletedProcess[bytes]":
    import subprocess

    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    try:
        return subprocess.run(["ps", *words], capture_output=True, check=False, env=env)
    except FileNotFoundError:
        raise UnsupportedError("top with options needs ps on the host", hint="install procps") from None


def _by_ps(pids: "list[int]", options: "Sequence[str]") -> "Table":
    """ps(1) is asked for them; with options that exclude -q for all, among which its column PID finds them (docker)."""
    done = _ps([*options, "-q", ",".join(map(str, pids))])
    if done.returncode:
        done = _ps(options)
    if done.returncode:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
        raise WarrenError(f"ps {' '.join(options)}: {reason or f'exit code {done.returncode}'}")
    head, *lines = done.stdout.decode("utf-8", "replace").splitlines() or [""]
    titles = head.split()
    if "PID" not in titles:
        raise UsageError("the columns that ps was asked for have no PID", hint="add pid to -o")
    column, wanted = titles.index("PID"), set(map(str, pids))
    rows = [line.split(None, len(titles) - 1) for line in lines]
    return titles, [[*map(_printable, row)] for row in rows if len(row) > column and row[column] in wanted]
