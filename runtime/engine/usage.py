"""What containers use, as `stats` shows it: readings of the cgroups that are kept open, and rates between two."""

import posix
import time

from ..cgroups.stats import UNLIMITED
from ..errors import NotFoundError, StateError
from ..quantities import format_binary_size, format_size
from ..state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..cgroups.stats import MemoryStats, Reader, Stats
    from .records import Record

_NOTHING = "--"


class Gauge:
    """One container, read again and again; close() it."""

    __slots__ = ("_last", "_pid", "_reader", "record")

    def __init__(self, record: "Record") -> None:
        self.record = record
        self._reader: Reader | None = None
        self._pid = 0
        self._last = (0, 0)

    def close(self) -> None:
        if self._reader:
            self._reader.close()
        self._reader, self._last = None, (0, 0)

    def read(self, *, whole: bool = False) -> "dict[str, str]":
        """docker's fields; the share of CPU time is that since the last reading.  Zeros for one that does not run."""
        stats = self._read()
        memory = stats.memory if stats else None
        used, limit = _memory(memory)
        known = bool(memory) or not stats
        identity = self.record.id if whole else self.record.id[:12]
        return {
            "BlockIO": _block_io(stats),
            "CPUPerc": self._cpu(stats),
            "Container": identity,
            "ID": identity,
            "MemPerc": f"{100 * used / limit if limit else 0:.2f}%" if known else _NOTHING,
            "MemUsage": f"{format_binary_size(used)} / {format_binary_size(limit)}" if known else "-- / --",
            "Name": self.record.name,
            "NetIO": self._net_io(),
            "PIDs": str(stats.pids.current if stats and stats.pids else _NOTHING if stats else 0),
        }

    def _read(self) -> "Stats | None":
        pid = self.record.state_dir.process()
        if pid != self._pid:
            self.close()
            self._pid = pid
        if not pid:
            return None
        try:
            self._reader = self._reader or self.record.container.stats_reader()
            return self._reader.read()
        except (StateError, NotFoundError):
            self._pid = 0
            return None  # It has ended just now.

    def _cpu(self, stats: "Stats | None") -> str:
        if not stats:
            return "0.00%"
        if not stats.cpu:
            return _NOTHING
        before, now = self._last, (time.monotonic_ns(), stats.cpu.usage)
        self._last = now
        elapsed = now[0] - before[0]
        return f"{100 * (now[1] - before[1]) / elapsed:.2f}%" if before[0] and elapsed else "0.00%"

    def _net_io(self) -> str:
        """Of a network of its own, all that is not loopback (proc(5), /proc/PID/net/dev)."""
        received = sent = 0
        if self._pid and self.record.data["config"].get("network") != "host":
            try:
                lines = read_file(f"/proc/{self._pid}/net/dev").decode().splitlines()[2:]
            except OSError:
                lines = []
            for name, _, numbers in [line.partition(":") for line in lines]:
                if name.strip() != "lo":
                    fields = numbers.split()
                    received, sent = received + int(fields[0]), sent + int(fields[8])
        return f"{format_size(received)} / {format_size(sent)}"


def _memory(memory: "MemoryStats | None") -> "tuple[int, int]":
    """What is used and what may be: the host's memory where there is no limit."""
    if memory is None:
        return 0, 0
    whole = posix.sysconf("SC_PHYS_PAGES") * posix.sysconf("SC_PAGE_SIZE")
    limit = whole if memory.limit == UNLIMITED else min(memory.limit, whole)
    return memory.working_set, limit


def _block_io(stats: "Stats | None") -> str:
    devices = stats.io or [] if stats else []
    read, written = sum(one.read for one in devices), sum(one.written for one in devices)
    return f"{format_size(read)} / {format_size(written)}"


class Gauges:
    """Those of the containers that are looked at, kept between readings; a context manager."""

    def __init__(self) -> None:
        self._known: dict[str, Gauge] = {}

    def __enter__(self) -> "Gauges":
        return self

    def __exit__(self, *_: object) -> None:
        for gauge in self._known.values():
            gauge.close()

    def read(self, records: "Iterable[Record]", *, whole: bool = False) -> "list[dict[str, str]]":
        """Fields of each; what is not among `records` any more is forgotten."""
        gauges = [self._known.get(record.id) or Gauge(record) for record in records]
        for gone in set(self._known) - {gauge.record.id for gauge in gauges}:
            self._known.pop(gone).close()
        self._known = {gauge.record.id: gauge for gauge in gauges}
        found = []
        for gauge in gauges:
            try:
                found.append(gauge.read(whole=whole))
            except NotFoundError:
                continue  # Removed just now.
        return found
