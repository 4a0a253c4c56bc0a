"""Test machines: a kernel that boots with the host's / as its read-only root and runs the guest tests of a folder.

The host collects guest tests like all others; conftest.py of tests/vm then has the machine run them and takes over
its reports.  Nothing of a machine outlives its Guest: it runs in a pid namespace, and in a directory of its own.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import probe, processes
from .machines import PROJECT, Machine

WORK = os.environ.get("WARREN_GUEST", "")
"""The directory shared with the host, where these are the tests inside a test machine."""

DISK = 64 << 20
"""Bytes of each machine's scratch disk."""

Json = dict[str, Any]


class Guest:
    """A running machine; `selection` are the node ids of its tests."""

    def __init__(self, machine: Machine, selection: Sequence[str]) -> None:
        self.machine = machine
        self.started = self._heard = time.monotonic()
        self.work = Path(tempfile.mkdtemp(prefix="warren-vm-"))
        self._reports: dict[str, list[Json]] = {}
        self._read = 0
        self.killed = ""
        _prepare(self.work, machine, selection)
        self._process = _start(machine.command(self.work), self.work / "console")

    def reports(self, nodeid: str) -> list[Json]:
        """Wait for the serialised reports of one test: set-up, call and tear-down.

        They are fewer where the machine ended before, or was killed since it did not report anything for too long.
        """
        while not self._complete(nodeid):
            ended = self._process.poll() is not None
            self._collect()
            if ended and not self._complete(nodeid):
                break
            if not ended and time.monotonic() - self._heard > self.machine.seconds:
                self.kill(f"nothing was heard of it for {self.machine.seconds:g} s")
            time.sleep(0.02)
        return self._reports.get(nodeid, [])

    def summary(self) -> str:
        """How many tests have been reported from set-up to tear-down, and how long that took, in seconds."""
        count = sum(self._complete(nodeid) for nodeid in self._reports)
        booted = _modified(self.work / "booted") - _modified(self.work / "init")
        return f"{count} tests in {self._heard - self.started:.1f} s, {booted:.1f} s of it to boot"

    def console(self, lines: int = 60) -> str:
        """The end of what kernel and tests printed, and how the machine ended."""
        text = (self.work / "console").read_text(errors="replace").splitlines()[-lines:]
        code = self._process.poll()
        ended = "it still runs" if code is None else f"exit code {code}"
        return "\n".join([*text, f"[{self.machine.name}: {self.killed or ended}]"])

    def kill(self, why: str) -> None:
        if self._process.poll() is None:
            self.killed = f"killed: {why}"
            _kill_namespace(self._process.pid)
        self._process.wait()

    def stop(self) -> None:
        """Ends it, if it has not, and leaves nothing behind."""
        self.kill("the tests are over")
        shutil.rmtree(self.work, ignore_errors=True)

    def _complete(self, nodeid: str) -> bool:
        return any(report["when"] == "teardown" for report in self._reports.get(nodeid, []))

    def _collect(self) -> None:
        """Take over the lines that are complete."""
        with open(self.work / "reports", "rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._heard = time.monotonic()
                report = json.loads(line)
                self._reports.setdefault(report["nodeid"], []).append(report)


def report(line: Json) -> None:
    """Inside a machine: tell the host.  The file is closed each time, which makes hostfs write it out."""
    with open(Path(WORK, "reports"), "a") as file:
        file.write(json.dumps(line) + "\n")


def selection() -> list[str]:
    """Inside a machine: the node ids to run."""
    return json.loads(Path(WORK, "selection").read_text())  # type: ignore[no-any-return]


def _prepare(work: Path, machine: Machine, selection: Sequence[str]) -> None:
    # The machine mounts its own there, on a tree in which it can make no directory.
    Path("/var/lib/warren").mkdir(mode=0o711, exist_ok=True)
    (work / "selection").write_text(json.dumps(list(selection)))
    (work / "reports").touch()
    (work / "disk").touch()
    os.truncate(work / "disk", DISK)
    probe.build(work / "probe")
    files = sorted({nodeid.split("::")[0] for nodeid in selection})
    values = {
        "PROJECT": str(PROJECT),
        "PYTHON": sys.executable,
        "WORK": str(work),
        "FILES": shlex.join(files),
        "CI": os.environ.get("CI", ""),
        "WARREN_LONG": os.environ.get("WARREN_LONG", ""),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines += [f'export {name}="{value}"' for name, value in machine.environment(work).items()]
    lines.append(f". {shlex.quote(str(PROJECT))}/tests/helpers/guest.sh")
    (work / "init").write_text("\n".join(["#!/bin/sh", *lines]))
    (work / "init").chmod(0o755)


def _start(command: Sequence[str], console: Path) -> "subprocess.Popen[bytes]":
    """In a pid namespace, since the processes of user-mode Linux outlive the one that traces them.

    The namespace ends with the process that is returned, and that one with this thread.
    """
    wrapper = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--pid", "--kill-child"]
    with open(console, "wb") as out:
        return subprocess.Popen(
            [*wrapper, *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(console.parent), "TERM": "dumb"},
            start_new_session=True,
        )


def _kill_namespace(pid: int) -> None:
    """Kill the first process of the namespace that `pid` made: it is waited for when all others are gone."""
    first = [process.pid for process in processes.everything() if process.parent == pid]
    os.kill(next(iter(first), pid), signal.SIGKILL)


def _modified(path: Path) -> float:
    """Not a number for a file that there is not."""
    return path.stat().st_mtime if path.exists() else float("nan")
