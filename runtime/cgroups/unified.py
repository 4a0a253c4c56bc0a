"""linux.resources as writes to a cgroup v2 directory (cgroup-v2.rst), in order; pure functions, a controller each.

The spec still speaks v1: its numbers are converted as runc and crun convert them, so that a bundle means the same here.
"""

from .settings import Setting, asked, cpuset_lists, pids_limit, rdma_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .settings import Json

_THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


def cpu_weight(shares: int) -> int:
    """cpu.weight, 1 to 10000, for v1 shares, 2 to 262144: a curve through (2, 1), (1024, 100) and (262144, 10000).

    The formula that runc and crun changed to in 2025 (opencontainers/cgroups#20); the linear one before it made
    a third of a default process of a container that asks for the default.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    from math import ceil, log2

    log = log2(shares)
    return ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """io.weight, 1 to 10000, for blkio.weight, 10 to 1000 (runc, ConvertBlkIOToIOWeightValue)."""
    return 1 + (weight - 10) * 9999 // 990


def _limit(value: int) -> str:
    return "max" if value == -1 else str(value)


def memory(resources: "Json") -> "list[Setting]":
    """Swap first, as runc: where it is missing nothing has been changed yet."""
    section = resources["memory"]
    limit, swap, low = asked(section, "limit"), asked(section, "swap"), asked(section, "reservation")
    found = []
    if value := _swap(limit, swap):
        # Without swap accounting there is none to limit (runc ignores it as well).
        lifts = value == "max"
        found.append(
            _memory("swap" if swap else "limit", "memory.swap.max", value, lifts=lifts, optional=lifts or value == "0")
        )
    if limit:
        found.append(_memory("limit", "memory.max", _limit(limit), lifts=limit == -1))
    if low:
        found.append(_memory("reservation", "memory.low", _limit(low), lifts=low == -1))
    return found + _no_memory(section)


def _memory(limit: str, file: str, value: str, *, lifts: bool = False, optional: bool = False) -> Setting:
    return Setting(2, "memory", "memory." + limit, file, value, lifts=lifts, optional=optional)


def _swap(limit: int, swap: int) -> str:
    """memory.swap.max counts swap alone, memory.swap of the spec memory and swap together; "" for none asked."""
    if swap > 0:
        return str(swap - limit)
    return "max" if swap == -1 or limit == -1 else ""


def _no_memory(section: "Json") -> "list[Setting]":
    """What v1 had and v2 has not: noted, not refused, since engines ask for it by habit (runc ignores it)."""
    kernel = [name for name in ("kernel", "kernelTCP") if asked(section, name) > 0]
    found = [_memory(name, "", "kernel memory counts as memory in cgroup v2") for name in kernel]
    if section.get("swappiness") is not None:
        found.append(_memory("swappiness", "", "cgroup v2 has no swappiness"))
    if section.get("disableOOMKiller"):
        found.append(_memory("disableOOMKiller", "", "cgroup v2 cannot disable the OOM killer"))
    return found


def cpu(resources: "Json") -> "list[Setting]":
    section = resources["cpu"]
    idle = section.get("idle")
    found = _cpu_weight(section, idle) + _cpu_max(section)
    for name in ("realtimeRuntime", "realtimePeriod"):
        if asked(section, name):
            found.append(_refusal("cpu", f"cpu.{name}", "cgroup v2 does not limit real-time tasks", "leave it out"))
    if section.get("burst") is not None:
        found.append(Setting(2, "cpu", "cpu.burst", "cpu.max.burst", section["burst"], lifts=not section["burst"]))
    return found


def _cpu_weight(section: "Json", idle: "int | None") -> "list[Setting]":
    """An idle cgroup refuses a weight: idleness ends before one is set."""
    shares = asked(section, "shares")
    found = [] if idle is None else [Setting(2, "cpu", "cpu.idle", "cpu.idle", idle, lifts=not idle)]
    if shares and idle:
        found.append(Setting(2, "cpu", "cpu.shares", "", "an idle cgroup has no weight"))
    elif shares:
        found.append(Setting(2, "cpu", "cpu.shares", "cpu.weight", cpu_weight(shares)))
    return found


def _cpu_max(section: "Json") -> "list[Setting]":
    quota, period = asked(section, "quota"), asked(section, "period")
    if not quota and not period:
        return []
    value = f"{quota if quota > 0 else 'max'} {period or 100000}"
    return [Setting(2, "cpu", "cpu.quota" if quota else "cpu.period", "cpu.max", value, lifts=quota <= 0)]


def cpuset(resources: "Json") -> "list[Setting]":
    return cpuset_lists(resources, 2)


def pids(resources: "Json") -> "list[Setting]":
    return pids_limit(resources, 2)


def io(resources: "Json") -> "list[Setting]":
    section = resources["blockIO"]
    return _io_weights(section) + _io_limits(section)


def _io_weights(section: "Json") -> "list[Setting]":
    """BFQ's weight where the kernel has it, taken as it is; else the cost model's, converted."""
    found = []
    if weight := asked(section, "weight"):
        found.append(_weight("blockIO.weight", "", weight))
    for index, entry in enumerate(section.get("weightDevice") or []):
        name, device = f"blockIO.weightDevice[{index}].", f"{entry['major']}:{entry['minor']} "
        if weight := asked(entry, "weight"):
            found.append(_weight(name + "weight", device, weight))
        if asked(entry, "leafWeight"):
            found.append(Setting(2, "io", name + "leafWeight", "", "cgroup v2 has no weights of leaves"))
    if asked(section, "leafWeight"):
        found.append(Setting(2, "io", "blockIO.leafWeight", "", "cgroup v2 has no weights of leaves"))
    return found


def _weight(limit: str, device: str, weight: int) -> Setting:
    converted = ("io.weight", f"{device}{io_weight(weight)}")
    return Setting(2, "io", limit, "io.bfq.weight", f"{device}{weight}", instead=converted)


def _io_limits(section: "Json") -> "list[Setting]":
    """One write each: io.max takes one device at a time and leaves the keys that are not named."""
    found = []
    for name, key in _THROTTLES.items():
        for index, entry in enumerate(section.get(name) or []):
            value = f"{entry['major']}:{entry['minor']} {key}={entry['rate'] or 'max'}"
            limit = f"blockIO.{name}[{index}]"
            found.append(Setting(2, "io", limit, "io.max", value, lifts=not entry["rate"]))
    return found


def hugetlb(resources: "Json") -> "list[Setting]":
    """Reservations (rsvd, Linux 5.7) too: they fail at mmap(2), where the limit itself ends in SIGBUS."""
    found = []
    for entry in resources["hugepageLimits"]:
        size, limit = entry["pageSize"], f"hugepageLimits.{entry['pageSize']}"
        found.append(Setting(2, "hugetlb", limit, f"hugetlb.{size}.max", entry["limit"]))
        found.append(Setting(2, "hugetlb", limit, f"hugetlb.{size}.rsvd.max", entry["limit"], optional=True))
    return found


def rdma(resources: "Json") -> "list[Setting]":
    return rdma_lines(resources, 2)


def net_cls(resources: "Json") -> "list[Setting]":
    asks = asked(resources["network"], "classID")
    return [_no_hierarchy("net_cls", "network.classID")] if asks else []


def net_prio(resources: "Json") -> "list[Setting]":
    asks = resources["network"].get("priorities")
    return [_no_hierarchy("net_prio", "network.priorities")] if asks else []


def _no_hierarchy(controller: str, limit: str) -> Setting:
    return _refusal(controller, limit, f"this host has no v1 {controller} hierarchy", "v2 has no such thing")


def _refusal(controller: str, limit: str, why: str, hint: str) -> Setting:
    return Setting(2, controller, limit, "", why, hint=hint)


def unified(resources: "Json") -> "list[Setting]":
    """Verbatim; the controller is what stands before the first dot."""
    files = resources["unified"].items()
    return [Setting(2, name.partition(".")[0], f"unified.{name}", name, value) for name, value in files]


DRIVERS = {
    "memory": memory,
    "cpu": cpu,
    "cpuset": cpuset,
    "pids": pids,
    "io": io,
    "hugetlb": hugetlb,
    "rdma": rdma,
    "net_cls": net_cls,
    "net_prio": net_prio,
}
