"""Where the time of one launch goes: the start of the command, what Python does, and each step of the plan.

The steps are timed by `init` itself, through the plan's word `timestamps`; Python's part by wrapping the functions
that the launch goes through.  Both in one process that launches again and again, so that nothing is paid twice.
"""

import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import runtime
from runtime import container as verbs
from runtime import launch, plan, spec, state
from runtime.steps import LaunchPlan, Step

from . import figures
from .bundle import make_bundle, make_rootfs
from .commands import Commands
from .host import Host
from .runtimes import need

Times = dict[str, list[float]]
"""Milliseconds by what took them, one for each launch."""

PHASES: list[tuple[Any, str, str]] = [
    (spec.Bundle, "load", "config.json: read, parse, validate"),
    (verbs, "_filter", "seccomp program from the cache"),
    (plan, "create_plan", "plan"),
    (state.StateDir, "make", "state directory"),
    (state.StateDir, "write_record", "intent record (fsync)"),
    (verbs, "_make_cgroup", "cgroup"),
    (LaunchPlan, "encode", "plan to bytes"),
    (launch, "_spawn", "spawn init"),
]
MODULES = "runtime.oci container spec launch console plan seccomp"


class Profile:
    """Launches the bundle and collects; `steps` keeps the text of each step in order."""

    def __init__(self, bundle: Path, name: str) -> None:
        self.bundle, self.name = bundle, name
        self.phases: Times = {}
        self.steps: Times = {}
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.options: dict[str, Any] = {"stdio": (null, null, null), "pdeathsig": signal.SIGKILL}

    def launch(self) -> None:
        container = runtime.Container(self.name, runtime.default_root())
        stamps = os.memfd_create("stamps", os.MFD_CLOEXEC)
        try:
            with self._stamping(stamps):
                start = time.monotonic_ns()
                pid = container.run(runtime.Bundle.load(str(self.bundle)), runtime.Options(**self.options))
                launched = time.monotonic_ns()
            os.waitpid(pid, 0)
            ended = time.monotonic_ns()
            container.delete(force=True)
            self._note(self.phases, "program: run, exit, reaped", launched, ended)
            self._note(self.phases, "delete", ended, time.monotonic_ns())
            self._note(self.phases, "all of it", start, time.monotonic_ns())
            self._read(stamps, launched)
        finally:
            os.close(stamps)
            container.delete(force=True)

    @contextmanager
    def _stamping(self, fd: int) -> Iterator[None]:
        """Put `timestamps` in front of the plan, and time the phases."""

        def stamped(steps: LaunchPlan, fds: dict[int, int], *rest: Any) -> int:
            slot = steps.slot()
            steps.steps.insert(0, Step("timestamps", slot))
            self.plan = steps
            return original(steps, {**fds, slot: fd}, *rest)

        original: Callable[..., int] = launch.launch
        saved = [(owner, name, owner.__dict__[name]) for owner, name, _ in PHASES]
        launch.__dict__["launch"] = stamped
        for owner, name, text in PHASES:
            setattr(owner, name, self._timed(owner.__dict__[name], getattr(owner, name), text))
        try:
            yield
        finally:
            launch.__dict__["launch"] = original
            for owner, name, function in saved:
                setattr(owner, name, function)

    def _timed(self, raw: object, bound: Callable[..., Any], text: str) -> object:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.monotonic_ns()
            try:
                return bound(*arguments, **options)
            finally:
                self._note(self.phases, text, start, time.monotonic_ns())

        return staticmethod(timed) if isinstance(raw, classmethod) else timed

    def _read(self, fd: int, launched: int) -> None:
        """When each step ended; the `exec` step's end is Python's noticing it."""
        data = os.pread(fd, 1 << 20, 0)
        moments = [*struct.unpack(f"={len(data) // 8}q", data)[1:-1], launched]
        if len(moments) != len(self.plan.steps):
            raise RuntimeError(f"{len(moments)} time stamps for {len(self.plan.steps)} steps")
        for number in range(1, len(moments)):
            text = f"{number:3} {self.plan.steps[number]}"
            self._note(self.steps, text, moments[number - 1], moments[number])

    @staticmethod
    def _note(times: Times, what: str, start: int, end: int) -> None:
        times.setdefault(what, []).append((end - start) / 1e6)


def starts(bin: Path, rounds: int) -> Times:
    """What comes before anything of ours: medians of whole commands, and our modules as what is on top."""
    commands, times = Commands(), Times()
    python = [str(bin / "python3"), "-I", "-S", "-X", "utf8", "-c"]
    site = str(Path(runtime.__file__).parent.parent)
    first, *others = MODULES.split()
    load = f"import sys;sys.path.insert(0,{site!r});import {first};from runtime import {','.join(others)}"
    for _ in range(rounds):
        empty = commands.timed([*python, "pass"]) / 1e6
        times.setdefault("python3 -I -S -c pass", []).append(empty)
        times.setdefault("our modules", []).append(commands.timed([*python, load]) / 1e6 - empty)
    return times


def report(rounds: int, outside: str) -> str:
    with Host(outside) as host:
        rootfs = make_rootfs(host.directory, need("busybox"))
        bundle = make_bundle(host.directory / "profile", rootfs, "seccomp", f"/{host.cgroup.name}/profile")
        begin = starts(Path(sys.prefix) / "bin", rounds)
        warm = Profile(bundle, f"{host.cgroup.name}-profile")
        warm.launch()  # Fills the caches.
        profile = Profile(bundle, warm.name)
        for _ in range(rounds):
            profile.launch()
    parts = [("start of a command, cold", begin), ("launch, warm", profile.phases), ("steps", profile.steps)]
    return "\n\n".join([_section(title, times) for title, times in parts])


def _section(title: str, times: Times) -> str:
    lines = [f"{title} (median, quartiles; ms)"]
    for what, values in times.items():
        found = figures.summary(values)
        lines.append(f"  {found.value:7.3f}  ({found.low:.3f} to {found.high:.3f})  {what[:100]}")
    lines.append(f"  {sum(figures.median(values) for name, values in times.items() if name != 'all of it'):7.3f}  sum")
    return "\n".join(lines)
