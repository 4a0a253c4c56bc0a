"""Talks with worker.py, and with the floor's loop: launches without the start of a program for each."""

import json
import subprocess
from pathlib import Path

from .commands import ENVIRONMENT, FailedError

WARM_UP = 3


class Library:
    """The worker; close() lets it finish what it does and waits for it."""

    def __init__(self, python: Path, rootfs: Path, bundle: Path, name: str) -> None:
        worker = Path(__file__).with_name("worker.py")
        command = [str(python), "-I", str(worker), str(rootfs), str(bundle), name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        for what in ("run", "threads", "bundle", "sandbox", "pool"):
            self.ask(what, WARM_UP)

    def ask(self, what: str, count: int) -> list[int]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{what} {count}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise FailedError(f"the library's process ended with {self._process.wait()}")
        numbers: list[int] = json.loads(answer)
        return numbers

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Floor:
    """The program floor.c, compiled, and its words."""

    def __init__(self, program: Path, cgroup: Path, rootfs: Path, filter: Path) -> None:
        self._start = [str(program), "--cgroup", str(cgroup)]
        self._filter = ["--seccomp", str(filter)]
        self._rootfs = str(rootfs)

    def command(self, *, seccomp: bool) -> list[str]:
        return [*self._start, *(self._filter if seccomp else []), self._rootfs]

    def loop(self, count: int) -> list[int]:
        """Nanoseconds of each launch, below the filter."""
        command = [*self._start, *self._filter, "--loop", str(count + 1), self._rootfs]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FailedError(f"{' '.join(command)}\n{done.stderr}")
        # The first one is slower, in a process that has never launched before.
        return [int(line) for line in done.stdout.split()][1:]
