"""What `events` prints: readings and OOM notices as the JSON that runc prints (runc, types/events.go)."""

from .stats import CPUSET, UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .stats import CpuStats, DeviceIo, MemoryStats, Pressure, Stats

    Json = dict[str, object]

_MAX = (1 << 64) - 1
_MAX_V1 = (1 << 63) - 4096
"""How runc writes that there is no limit: in v1 as the kernel does."""


def stats_event(container_id: str, stats: "Stats") -> "Json":
    return {"type": "stats", "id": container_id, "data": stats_data(stats)}


def oom_event(container_id: str) -> "Json":
    return {"type": "oom", "id": container_id}


def stats_data(stats: "Stats") -> "Json":
    """types.Stats; what is empty is left out where runc leaves it out, and only there."""
    return {
        "cpu": _cpu(stats),
        "cpuset": _cpuset(stats),
        "memory": _memory(stats),
        "pids": _pids(stats),
        "blkio": _blkio(stats),
        "hugetlb": {
            size: {**_filled(usage=page.usage, max=page.peak), "failcnt": page.failures}
            for size, page in stats.hugetlb.items()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpuset(stats: "Stats") -> "Json":
    """The lists by their members; the flags are always there, all 0 in v2 (runc)."""
    lists = {name: _members(stats.cpuset.get(name, "")) for name in ("cpus", "mems")}
    flags = {name: int(stats.cpuset.get(name) or 0) for name in CPUSET if name not in lists}
    return {**_filled(**lists), **flags}


def _members(text: str) -> "list[int]":
    ends = [part.split("-") for part in text.split(",") if part]
    return [number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)]


def _filled(**values: object) -> "Json":
    """Go's omitempty."""
    return {key: value for key, value in values.items() if value}


def _cpu(stats: "Stats") -> "Json":
    cpu: CpuStats | None = stats.cpu
    if cpu is None:
        return {"usage": {"kernel": 0, "user": 0}, "throttling": {}}
    by_cpu = _filled(percpu=cpu.per_cpu, percpu_kernel=cpu.per_cpu_system, percpu_user=cpu.per_cpu_user)
    usage = {**_filled(total=cpu.usage), **by_cpu, "kernel": cpu.system, "user": cpu.user}
    throttling = _filled(periods=cpu.periods, throttledPeriods=cpu.throttled_periods, throttledTime=cpu.throttled)
    return {"usage": usage, "throttling": throttling, **_psi(stats, "cpu")}


def _memory(stats: "Stats") -> "Json":
    """Swap is memory and swap together, as v1 counts; v2's readings are added up for that (runc)."""
    memory: MemoryStats | None = stats.memory
    none: Json = {"limit": 0, "failcnt": 0}
    if memory is None:
        return {"usage": none, "swap": none, "kernel": none, "kernelTCP": none}
    both = memory.limit + memory.swap_limit if memory.limit >= 0 and memory.swap_limit >= 0 else UNLIMITED
    v1 = "hierarchical_memory_limit" in memory.raw
    most = _MAX_V1 if v1 else _MAX
    return {
        **_filled(cache=memory.file),
        "usage": _entry(
            most if memory.limit == UNLIMITED else memory.limit, memory.current, memory.peak, memory.failures
        ),
        "swap": _entry(most if both == UNLIMITED else both, memory.current + memory.swap, memory.swap_peak, 0),
        "kernel": _entry(most, memory.kernel, memory.kernel_peak, 0) if v1 else none,
        "kernelTCP": _entry(most, 0, 0, 0) if v1 else none,
        **_filled(raw=memory.raw),
        **_psi(stats, "memory"),
    }


def _entry(limit: int, usage: int, peak: int, failures: int) -> "Json":
    return {"limit": limit, **_filled(usage=usage, max=peak), "failcnt": failures}


def _pids(stats: "Stats") -> "Json":
    pids = stats.pids
    return _filled(current=pids.current, limit=max(0, pids.limit)) if pids else {}


def _blkio(stats: "Stats") -> "Json":
    """Lists with an entry for each device and operation."""
    devices: list[DeviceIo] = stats.io or []
    moved = [_io_entry(d, op, n) for d in devices for op, n in (("Read", d.read), ("Write", d.written))]
    served = [_io_entry(d, op, n) for d in devices for op, n in (("Read", d.reads), ("Write", d.writes))]
    return {**_filled(ioServiceBytesRecursive=moved, ioServicedRecursive=served), **_psi(stats, "io")}


def _io_entry(device: "DeviceIo", operation: str, value: int) -> "Json":
    return _filled(major=device.major, minor=device.minor, op=operation, value=value)


def _psi(stats: "Stats", name: str) -> "Json":
    pressure: Pressure | None = stats.pressure.get(name)
    if pressure is None:
        return {}
    nothing = {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}
    return {"psi": {"some": pressure.some or nothing, "full": pressure.full or nothing}}
