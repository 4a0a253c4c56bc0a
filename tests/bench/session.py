"""One benchmark from its set-up to its last round.

Every round does everything once: what is compared was measured within a second, on a machine in the same mood.
"""

import random
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from . import figures
from .bundle import filter_program, make_bundle, make_rootfs
from .commands import Commands, Ns
from .host import Host
from .library import Floor, Library
from .programs import compile_all, compile_first
from .runtimes import Runtime, find, make_usable, need, pss

BACK_TO_BACK, AFTER_IDLE, IN_A_LOOP, AT_REST = "back to back", "30 ms idle", "in a loop", ""
SPACINGS = {BACK_TO_BACK: 0.0, AFTER_IDLE: 0.03}
"""Seconds of sleep before each command that is timed."""
BLOCK = 8
"""Launches of a block of the library's, in each round."""
MEMORY_ROUNDS = 5

Key = tuple[str, str, str]
"""Scenario, spacing, and who did it."""
Samples = dict[Key, list[float]]
"""Milliseconds, KiB for memory, launches a second for throughput; by round."""
Task = Callable[[float], Ns]


class Session:
    """A context within that of Host: the programs, the runtimes with one running container each, and the worker."""

    def __init__(self, host: Host, bin: Path, extra: str, seed: int) -> None:
        self._host, self._bin, self._extra = host, bin, extra
        self._random = random.Random(seed)
        self._commands = Commands()
        self._open = ExitStack()
        self.samples: Samples = {}
        self.stubbed: list[str] = []
        self.unenforced: dict[str, str] = {}
        """What warren-oci says that it did not do, though the bundle asked for it."""
        self.runtimes: list[Runtime] = []

    def __enter__(self) -> "Session":
        try:
            self._set_up()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()

    def _set_up(self) -> None:
        directory = self._host.directory
        floor, self._peak, stub = compile_all(directory)
        rootfs = make_rootfs(directory, need("busybox"))
        compile_first(rootfs)
        (directory / "filter").write_bytes(filter_program())
        self._floor = Floor(floor, self._host.cgroup, rootfs, directory / "filter")
        for name, program in find(self._bin, self._extra).items():
            self._add(Runtime(name, program, self._commands, self._host, rootfs), stub)
        self.unenforced = self.runtimes[0].unenforced()
        name = f"{self._host.cgroup.name}-library"
        bundle = make_bundle(directory / "library", rootfs, "seccomp", f"/{self._host.cgroup.name}/library")
        self._library = Library(self._bin / "python3", rootfs, bundle, name)
        self._open.callback(self._library.close)
        self._scenarios = self._make_scenarios(str(rootfs))
        # In this order, whoever comes first in the first round.
        for spacing in SPACINGS:
            for scenario, tasks in self._scenarios.items():
                for who in tasks:
                    self.samples[scenario, spacing, who] = []

    def _add(self, runtime: Runtime, stub: Path) -> None:
        self._open.callback(runtime.close)
        self.runtimes.append(runtime)
        if make_usable(runtime, stub):
            self.stubbed.append(runtime.name)
        runtime.keep_one_running()

    # ---- rounds

    def rounds(self, count: int) -> None:
        for _ in range(min(count, MEMORY_ROUNDS)):
            self._measure_memory()
        for number in range(count):
            self._round()
            print(f"\rround {number + 1} of {count}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    def _round(self) -> None:
        for spacing, idle in SPACINGS.items():
            for scenario, tasks in self._scenarios.items():
                for who in self._shuffled(tasks):
                    self._note((scenario, spacing, who), tasks[who](idle) / 1e6)
        self._round_in_loops()

    def _round_in_loops(self) -> None:
        """Blocks of launches without the start of a program, in any order."""
        for what in self._shuffled(["run", "threads", "bundle", "sandbox", "pool", "floor"]):
            numbers = self._floor.loop(BLOCK) if what == "floor" else self._library.ask(what, BLOCK)
            if what == "pool":
                self._note(("first instruction", IN_A_LOOP, what), figures.median(numbers) / 1e6)
            elif what != "threads":
                self._note(("launch", IN_A_LOOP, what), figures.median(numbers) / 1e6)
            if what in ("run", "threads"):
                launches = BLOCK * (2 if what == "threads" else 1)
                self._note(("launches a second", IN_A_LOOP, what), launches / sum(numbers) * 1e9)

    def _note(self, key: Key, value: float) -> None:
        self.samples.setdefault(key, []).append(value)

    def _shuffled(self, names: Any) -> list[str]:
        """Nobody always comes after the same other, whose remains the kernel may still be tidying up."""
        return self._random.sample(list(names), len(names))

    def _make_scenarios(self, rootfs: str) -> dict[str, dict[str, Task]]:
        each = {runtime.name: runtime for runtime in self.runtimes}
        scenarios: dict[str, dict[str, Task]] = {
            "run": {name: partial(r.run, "plain") for name, r in each.items()},
            "run, seccomp": {name: partial(r.run, "seccomp") for name, r in each.items()},
            "run, engine's seccomp": {name: partial(r.run, "engine") for name, r in each.items()},
            "create + start + delete": {name: r.lifecycle for name, r in each.items()},
            "exec": {name: r.exec for name, r in each.items()},
            "state": {name: r.state for name, r in each.items()},
        }
        bwrap = [need("bwrap"), "--unshare-all"]
        contained = ["--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]
        scenarios["run"]["bwrap"] = self._command(*bwrap, *contained)
        scenarios["run"]["floor"] = self._command(*self._floor.command(seccomp=False))
        scenarios["run, seccomp"]["floor"] = self._command(*self._floor.command(seccomp=True))
        scenarios["host true"] = {
            "warren": self._command(
                str(self._bin / "warren"), "run", "--rm", "--network", "none", "host", "--", "true"
            ),
            "bwrap": self._command(*bwrap, "--ro-bind", "/", "/", "true"),
        }
        return scenarios

    def _command(self, *words: str) -> Task:
        return lambda idle: self._commands.timed(words, idle=idle)

    # ---- memory

    def _measure_memory(self) -> None:
        for runtime in self.runtimes:
            for verb, words in (("run", runtime.run_words("plain")), ("create", runtime.create_words("plain"))):
                self._note((f"peak of {verb}", AT_REST, runtime.name), self._peak_of(runtime, words))
            self._note(("created init", AT_REST, runtime.name), pss(runtime.pid("plain")))
            runtime.remove("plain")

    def _peak_of(self, runtime: Runtime, words: list[str]) -> int:
        report = self._host.directory / "peak.txt"
        self._commands.timed([str(self._peak), str(report), *runtime.command(*words)], runtime.environment)
        return int(report.read_text())
