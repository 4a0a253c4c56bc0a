"""linux.resources as writes to v1 hierarchies (cgroup-v1/*.rst), in order; pure functions, a controller each.

For the controllers that a host still binds to v1; the same interface as unified.py, and the spec's own numbers.
"""

from .settings import Setting, asked, cpuset_lists, pids_limit, rdma_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .settings import Json

_THROTTLES = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}
LIMIT, SWAP = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


def memory(resources: "Json") -> "list[Setting]":
    """Limit before limit with swap, which may never be the smaller one; a new cgroup has neither.

    update.py turns the two around where the old values demand it.
    """
    section = resources["memory"]
    limit, swap = asked(section, "limit"), asked(section, "swap")
    found = []
    if limit:
        found.append(_memory("limit", LIMIT, limit, lifts=limit == -1))
    if swap:
        found.append(_memory("swap", SWAP, swap, lifts=swap == -1, optional=swap == -1))
    elif limit == -1:
        # No limit of memory means none with swap either (runc); kernels without swap accounting have no file.
        found.append(_memory("limit", SWAP, -1, lifts=True, optional=True))
    if low := asked(section, "reservation"):
        found.append(_memory("reservation", "memory.soft_limit_in_bytes", low, lifts=low == -1))
    return found + _behaviour(section)


def _memory(limit: str, file: str, value: "int | str", *, lifts: bool = False, optional: bool = False) -> Setting:
    return Setting(1, "memory", "memory." + limit, file, value, lifts=lifts, optional=optional)


def _behaviour(section: "Json") -> "list[Setting]":
    found = []
    if section.get("swappiness") is not None:
        found.append(_memory("swappiness", "memory.swappiness", section["swappiness"]))
    if section.get("disableOOMKiller"):
        found.append(_memory("disableOOMKiller", "memory.oom_control", 1))
    if tcp := asked(section, "kernelTCP"):
        found.append(_memory("kernelTCP", "memory.kmem.tcp.limit_in_bytes", tcp, lifts=tcp == -1))
    if asked(section, "kernel") > 0:
        # It takes the number and holds nothing (Linux 5.16).
        found.append(_memory("kernel", "", "the kernel has given up limits of kernel memory"))
    return found


def cpu(resources: "Json") -> "list[Setting]":
    """Period before quota, so that the quota is never compared with a period that is about to go."""
    section = resources["cpu"]
    quota, idle = asked(section, "quota"), section.get("idle")
    found = [] if idle is None else [_cpu("idle", "cpu.idle", idle, lifts=not idle)]
    if asked(section, "shares") and idle:
        found.append(_cpu("shares", "", "an idle cgroup has no weight"))
    elif shares := asked(section, "shares"):
        found.append(_cpu("shares", "cpu.shares", shares))
    if period := asked(section, "period"):
        found.append(_cpu("period", "cpu.cfs_period_us", period, lifts=True))
    if quota:
        found.append(_cpu("quota", "cpu.cfs_quota_us", quota, lifts=quota == -1))
    if section.get("burst") is not None:
        found.append(_cpu("burst", "cpu.cfs_burst_us", section["burst"], lifts=not section["burst"]))
    return found + _realtime(section)


def _realtime(section: "Json") -> "list[Setting]":
    found = []
    if period := asked(section, "realtimePeriod"):
        found.append(_cpu("realtimePeriod", "cpu.rt_period_us", period))
    if runtime := asked(section, "realtimeRuntime"):
        found.append(_cpu("realtimeRuntime", "cpu.rt_runtime_us", runtime))
    return found


def _cpu(limit: str, file: str, value: "int | str", *, lifts: bool = False) -> Setting:
    return Setting(1, "cpu", "cpu." + limit, file, value, lifts=lifts)


def cpuset(resources: "Json") -> "list[Setting]":
    return cpuset_lists(resources, 1)


def pids(resources: "Json") -> "list[Setting]":
    return pids_limit(resources, 1)


def io(resources: "Json") -> "list[Setting]":
    """CFQ's files until Linux 5.0, BFQ's since."""
    section = resources["blockIO"]
    found = []
    for name, file in (("weight", "weight"), ("leafWeight", "leaf_weight")):
        if value := asked(section, name):
            found.append(_weight(f"blockIO.{name}", file, str(value)))
    for index, entry in enumerate(section.get("weightDevice") or []):
        for name, file in (("weight", "weight_device"), ("leafWeight", "leaf_weight_device")):
            if value := asked(entry, name):
                line = f"{entry['major']}:{entry['minor']} {value}"
                found.append(_weight(f"blockIO.weightDevice[{index}].{name}", file, line))
    return found + _throttles(section)


def _weight(limit: str, file: str, value: str) -> Setting:
    return Setting(1, "blkio", limit, "blkio." + file, value, instead=("blkio.bfq." + file, value))


def _throttles(section: "Json") -> "list[Setting]":
    return [
        Setting(1, "blkio", f"blockIO.{name}[{i}]", file, f"{e['major']}:{e['minor']} {e['rate']}", lifts=not e["rate"])
        for name, file in _THROTTLES.items()
        for i, e in enumerate(section.get(name) or [])
    ]


def hugetlb(resources: "Json") -> "list[Setting]":
    found = []
    for entry in resources["hugepageLimits"]:
        size, limit = entry["pageSize"], f"hugepageLimits.{entry['pageSize']}"
        found.append(Setting(1, "hugetlb", limit, f"hugetlb.{size}.limit_in_bytes", entry["limit"]))
        reserved = f"hugetlb.{size}.rsvd.limit_in_bytes"
        found.append(Setting(1, "hugetlb", limit, reserved, entry["limit"], optional=True))
    return found


def rdma(resources: "Json") -> "list[Setting]":
    return rdma_lines(resources, 1)


def net_cls(resources: "Json") -> "list[Setting]":
    value = asked(resources["network"], "classID")
    return [Setting(1, "net_cls", "network.classID", "net_cls.classid", value)] if value else []


def net_prio(resources: "Json") -> "list[Setting]":
    return [
        Setting(1, "net_prio", f"network.priorities[{i}]", "net_prio.ifpriomap", f"{e['name']} {e['priority']}")
        for i, e in enumerate(resources["network"].get("priorities") or [])
    ]


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
