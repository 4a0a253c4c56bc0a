"""Which processes exist and whose they are, read from /proc; and how to become the parent of orphans.

The tests run below a sub-reaper (PR_SET_CHILD_SUBREAPER): whatever they launch and leave behind stays a descendant
of it, so that a leak is told apart from other work on the same machine, and is waited for when it ends.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MARKER = "WARREN_TEST"


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    state: str
    started: int
    name: str

    @property
    def alive(self) -> bool:
        return self.state not in "ZX"

    def describe(self) -> str:
        """Command line and the namespaces in which it differs from us."""
        try:
            words = Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            words = ""
        kinds = ("pid", "net", "mnt", "ipc", "uts", "user")
        apart = [kind for kind in kinds if namespace(self.pid, kind) != namespace(0, kind)]
        return f"pid {self.pid} ({words or self.name})" + (f", own {', '.join(apart)}" if apart else "")


def namespace(pid: int, kind: str) -> str:
    """`net:[4026531840]`; of ourselves for pid 0, "" where it cannot be seen."""
    try:
        return os.readlink(f"/proc/{pid or 'self'}/ns/{kind}")
    except OSError:
        return ""


def read(pid: int | str) -> Process | None:
    """None when there is no such process (any more)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    return Process(int(text.split(" ", 1)[0]), int(fields[1]), fields[0], int(fields[19]), name)


def everything() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := read(entry)):
            yield process


def ours(token: str) -> list[Process]:
    """Descendants of the tests, and what carries `token` in its environment wherever it went."""
    table = {process.pid: process for process in everything()}
    others = [process for process in table.values() if process.pid not in _roots and not guards(process)]
    return [process for process in others if descends(process, table) or (token and marked(process.pid, token))]


def guards(process: Process) -> bool:
    """Whether it is the guardian of a program that lives, which is to stay until then (runtime/engine/guardian.py)."""
    if process.name != "warren-guardian":
        return False
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{process.pid}/fdinfo"):
            for line in Path(f"/proc/{process.pid}/fdinfo/{entry}").read_text().splitlines():
                if line.startswith("Pid:") and (watched := read(line.split()[1])):
                    return watched.alive
    return False


def descends(process: Process, table: dict[int, Process]) -> bool:
    seen = set()
    while process.parent in table and process.pid not in seen:
        if process.parent in _roots:
            return True
        seen.add(process.pid)
        process = table[process.parent]
    return False


def marked(pid: int, token: str) -> bool:
    try:
        return f"{MARKER}={token}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def continue_below_a_reaper() -> None:
    """Fork: the parent becomes the reaper, as conmon or systemd are, and ends when and as the child does.

    A pid namespace ends only when each of its processes has been waited for, also those that `exec --detach` left.
    """
    if _roots != {os.getpid()}:
        return
    child = os.fork()
    if child == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _roots.update({os.getpid(), os.getppid()})
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The terminal sends it to the child as well.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda got, _: os.kill(child, got))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


_roots = {os.getpid()}
"""Whose descendants are the tests' own: this process and, later, the reaper above it."""


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


SUBREAPER = r"""
import ctypes, json, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
with open(sys.argv[1], "wb") as out:
    code = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode
def parent(pid):
    try:
        text = open(f"/proc/{pid}/stat").read()
    except OSError:
        return 0
    return int(text[text.rindex(")") + 2:].split()[1])
children = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent(pid) == os.getpid()]
print(json.dumps({"code": code, "children": children}), flush=True)
sys.stdin.readline()
ended = {}
while True:
    try:
        pid, status = os.wait()
    except ChildProcessError:
        break
    ended[pid] = os.waitstatus_to_exitcode(status)
print(json.dumps(ended), flush=True)
"""


class Subreaper:
    """Stands where conmon or containerd's shim stand: runs a command and inherits what it leaves behind."""

    def __init__(self, command: Sequence[str], output: Path) -> None:
        self.output = output
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUBREAPER, output, *command],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        report = self._line()
        self.code: int = report["code"]
        self.children: list[int] = report["children"]

    def collect(self) -> dict[int, int]:
        """Wait for every child; pid to exit code, negative for a signal."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return {int(pid): code for pid, code in self._line().items()}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


def kill_monitors(state_root: Path, names: Collection[str] | None = None) -> None:
    """kill -9 of the monitors of all containers, or those of `names`; each takes its container with it."""
    for container in os.listdir(state_root) if state_root.exists() else ():
        if names is None or container in names:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, NotADirectoryError):
                os.kill(int(os.readlink(state_root / container / "monitor").split()[0]), signal.SIGKILL)
