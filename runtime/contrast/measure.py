"""The rounds of a contrast: every row once a round, in turning order, so that what else the machine does hits all."""

import os
import posix
import shutil
import tempfile
import time

from ..errors import WarrenError
from ..vm.guest import GATEWAY
from ..vm.kernel import data_directory
from .rows import PC, PROCESS, UML, Row, all_rows, find_machines
from .session import DATA, PROBE, Instance, Server, Source, make_layer, start_and_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Json = dict[str, Any]
    Progress = Callable[[str], None]

SAMPLE_SECONDS = 0.25
"""What one sample of a loop takes at least: long against the way of the question and the answer."""
_GIB = 1 << 30


class Metric:
    """A figure: its key, its unit, and what is better."""

    __slots__ = ("claim", "key", "less_is_better", "scale", "title", "unit")

    def __init__(self, key: str, title: str, unit: str, scale: float = 1.0, *, less_is_better: bool = True) -> None:
        self.key = key
        self.title = title
        self.unit = unit
        self.scale = scale
        """A figure as it is kept (seconds, bytes) times this is in `unit`."""
        self.less_is_better = less_is_better


METRICS = [
    Metric("started", "Start to the program's first instruction", "ms", 1e3),
    Metric("exited", "Start to the program's end", "ms", 1e3),
    Metric("cpu", "CPU time of start and end", "ms", 1e3),
    Metric("memory", "Memory of an idle instance (PSS)", "MiB", 1 / (1 << 20)),
    Metric("disk", "Files needed besides the image", "MiB", 1 / (1 << 20)),
    Metric("compute", "Compute loop, a million rounds", "ms", 1e3),
    Metric("syscall", "System call", "ns", 1e9),
    Metric("fork", "fork, exec and wait", "ms", 1e3),
    Metric("fsync", "Write 4 KiB to a volume and fsync", "ms", 1e3),
    Metric("read", "Open, read and close a small file", "µs", 1e6),
    Metric("rtt", "Network round trip to the host", "µs", 1e6),
    Metric("throughput", "Network throughput to the host", "MB/s", 1e-6, less_is_better=False),
    Metric("density", "Instances per GiB of memory", "", less_is_better=False),
]
_LOOPS = {"compute": 20, "syscall": 20000, "fork": 5, "read": 500, "fsync": 5, "rtt": 100, "throughput": 256}
"""How often the first sample goes round; later ones take SAMPLE_SECONDS at least."""


class Result:
    """What one row showed: samples by metric in seconds, bytes or numbers, and why some are missing."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.samples: dict[str, list[float]] = {}
        self.missing: dict[str, str] = {}
        self.isolation: Json = {}
        self.guest_memory: Json = {}
        self.density: Json = {}
        self.counts = dict(_LOOPS)

    def add(self, metric: str, value: float) -> None:
        self.samples.setdefault(metric, []).append(value)

    def median(self, metric: str) -> float | None:
        values = sorted(self.samples.get(metric, ()))
        if not values:
            return None
        middle = len(values) // 2
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


class Plan:
    """What a contrast is to do."""

    def __init__(
        self,
        source: str,
        *,
        rootfs: str = "",
        command: "Sequence[str]" = (),
        rounds: int = 3,
        rows: "Sequence[str]" = (),
        memory: str = "128m",
        budget: int = _GIB,
        kernel: str = "",
        boot_timeout: float = 60.0,
        density: bool = True,
    ) -> None:
        self.source = source
        self.rootfs = rootfs
        self.command = command
        self.rounds = rounds
        self.rows = rows
        self.memory = memory
        self.budget = budget
        self.kernel = kernel
        self.boot_timeout = boot_timeout
        self.density = density


def contrast(plan: Plan, progress: "Progress") -> "list[Result]":
    """Measure; a row that fails on the way says why, and the others go on.

    Raises what is wrong with the source itself, as the container row finds it.
    """
    rows = [row for row in all_rows() if not plan.rows or row.key in plan.rows or row.kind in plan.rows]
    progress("looking for machines")
    find_machines(rows, plan.kernel, plan.boot_timeout)
    os.makedirs(data_directory(), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="contrast-", dir=data_directory())
    server = Server()
    try:
        source = Source(plan.source, plan.rootfs, plan.command, make_layer(), scratch)
        results = [Result(row) for row in rows]
        _warm_up(plan, source, results, progress)
        for number in range(plan.rounds):
            for result in _turned(results, number):
                _round(plan, source, result, server, number, progress)
        if plan.density:
            for result in results:
                _density(plan, source, result, progress)
        return results
    finally:
        server.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _turned(results: "list[Result]", number: int) -> "list[Result]":
    """Those that can run, each round beginning with another."""
    able = [result for result in results if not result.row.reason]
    start = number % len(able) if able else 0
    return able[start:] + able[:start]


def _warm_up(plan: Plan, source: Source, results: "list[Result]", progress: "Progress") -> None:
    """The first run of each row pulls, unpacks, makes disks and fills caches; it is not counted."""
    for result in results:
        row = result.row
        if row.reason:
            continue
        progress(f"{row.title}: first run, not counted")
        try:
            start_and_end(row, source, plan.memory)
        except WarrenError as error:
            if not row.is_machine and row.kind != PROCESS:
                raise
            row.reason = str(error)


def _round(plan: Plan, source: Source, result: Result, server: Server, number: int, progress: "Progress") -> None:
    row = result.row
    where = f"round {number + 1} of {plan.rounds}, {row.title}"
    try:
        progress(f"{where}: start")
        start = start_and_end(row, source, plan.memory)
        result.add("started", start.started)
        result.add("exited", start.exited)
        result.add("cpu", start.cpu)
        progress(f"{where}: loops")
        with _open(plan, source, result) as instance:
            _measure(instance, result, server, first=number == 0)
    except WarrenError as error:
        row.reason = f"failed in round {number + 1}: {error}"


def _open(plan: Plan, source: Source, result: Result) -> Instance:
    """An instance with the probe, with the network where it can be had."""
    network = "rtt" not in result.missing
    instance = Instance(result.row, source, [PROBE], memory=plan.memory, network=network)
    try:
        instance.start()
        instance.ready()
        return instance
    except BaseException as error:
        instance.close()
        if not network or not isinstance(error, WarrenError):
            raise
        result.missing["rtt"] = result.missing["throughput"] = str(error)
        return _open(plan, source, result)


def _measure(instance: Instance, result: Result, server: Server, *, first: bool) -> None:
    row = result.row
    result.add("memory", instance.memory())
    result.add("disk", instance.disk())
    if first:
        _look(instance, result)
    address = GATEWAY if row.is_machine else "127.0.0.1"
    folder = instance.source.scratch if row.kind == PROCESS else DATA
    commands = {
        "compute": "compute {}", "syscall": "syscall {}", "fork": "fork {}", "read": "read {}",
        "fsync": f"fsync {folder}/file {{}}", "rtt": f"rtt {address} {server.port} {{}}",
        "throughput": f"send {address} {server.port} {{}}",
    }  # fmt: skip
    if row.kind == PC:
        result.missing["fsync"] = "its disk is a throw-away copy, which QEMU does not bring to the host's disk"
    for metric, command in commands.items():
        if metric not in result.missing:
            try:
                _sample(instance, result, metric, command)
            except WarrenError as error:
                result.missing[metric] = str(error)
                raise


def _sample(instance: Instance, result: Result, metric: str, command: str) -> None:
    """One sample; the first time the loop is made long enough."""
    while True:
        count = result.counts[metric]
        seconds, _ = instance.ask(command.format(count))
        if seconds >= SAMPLE_SECONDS * 0.6:
            break
        result.counts[metric] = max(count * 2, int(count * SAMPLE_SECONDS / max(seconds, 0.0005)) + 1)
    each = seconds / count
    result.add(metric, 1024 / each if metric == "throughput" else each)


def _look(instance: Instance, result: Result) -> None:
    """Isolation: what can be seen and done inside, and how much memory the guest says it has."""
    found: Json = {}
    row = result.row
    # What it tries would be done to this host where there is nothing between.
    for command in ("info", "calls") if row.kind != PROCESS else ("info",):
        for line in instance.ask(command)[1]:
            name, _, value = line.partition(" ")
            found[name] = int(value) if value.isdigit() else value
    result.guest_memory = {name: found.pop(name) for name in ("memory_total", "memory_available") if name in found}
    lines = instance.ask(f"reach {posix.getpid()} {__file__}")[1] if row.kind != PROCESS else []
    found["reach"] = {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in lines if line.startswith("reach ")}
    with open("/proc/sys/kernel/random/boot_id") as file:
        found["kernel_shared"] = found.get("boot_id") == file.read().strip()
    result.isolation = found


def _density(plan: Plan, source: Source, result: Result, progress: "Progress") -> None:
    """So many at once, within the budget: what one more costs, from a run and not from a division."""
    row, memory = result.row, result.median("memory")
    if row.reason or not memory:
        return
    most = 3 if row.is_machine and row.kind != UML else 8 if row.kind == UML else 64
    count = max(1, min(most, int(plan.budget / memory)))
    progress(f"{row.title}: {count} at once")
    instances: list[Instance] = []
    begun = time.monotonic()
    try:
        for _ in range(count):
            instances.append(Instance(row, source, [PROBE], memory=plan.memory))
            instances[-1].start()
            instances[-1].ready()
        seconds = time.monotonic() - begun
        total = sum(instance.memory() for instance in instances)
        result.density = {"count": count, "memory": total, "seconds": seconds}
        if total:
            result.add("density", _GIB * count / total)
    except WarrenError as error:
        result.missing["density"] = str(error)
    finally:
        for instance in instances:
            instance.close()
