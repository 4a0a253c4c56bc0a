"""What is wrong with limits whatever the host: out of range, or at odds with each other.  One SpecError line each.

The bounds are the kernel's: better our sentence before anything exists than its EINVAL after.
"""

from ..errors import SpecError
from .settings import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .settings import Json

MAX_SHARES = 262144
PERIODS = 1000, 1000000
MAX_QUOTA = (1 << 44) - 1  # kernel/sched: MAX_BW, microseconds
MAX_PIDS = 4194304  # PID_MAX_LIMIT
_LISTS = "0123456789,-:/ \n"
# What writing to does not limit but acts; a process that joins, freezes or dies is not a resource.
_ACTIONS = {"procs", "threads", "kill", "freeze", "type", "subtree_control"}


def check(resources: "Json") -> None:
    """Raise SpecError for the first limit of linux.resources that no host could hold."""
    for section, checker in _SECTIONS.items():
        if resources.get(section):
            checker(resources[section])


def wrong(limit: str, why: str, hint: str = "") -> SpecError:
    return SpecError(f"linux.resources.{limit}: {why}", hint=hint)


def _memory(memory: "Json") -> None:
    for name in ("limit", "reservation", "swap"):
        if asked(memory, name) < -1:
            raise wrong(f"memory.{name}", f"must be -1 (no limit) or a number of bytes, not {memory[name]}")
    limit, swap, reservation = asked(memory, "limit"), asked(memory, "swap"), asked(memory, "reservation")
    if swap > 0 and limit <= 0:
        raise wrong("memory.swap", "needs a memory.limit, which it includes")
    if 0 < swap < limit:
        raise wrong("memory.swap", f"{swap} is less than memory.limit, {limit}", "it counts memory and swap together")
    if 0 < limit < reservation:
        raise wrong("memory.reservation", f"{reservation} is more than memory.limit, {limit}")
    if asked(memory, "swappiness") > 100:
        raise wrong("memory.swappiness", f"must be 0 to 100, not {memory['swappiness']}")


def _cpu(cpu: "Json") -> None:
    shares, quota, period = asked(cpu, "shares"), asked(cpu, "quota"), asked(cpu, "period")
    if shares and not 2 <= shares <= MAX_SHARES:
        raise wrong("cpu.shares", f"must be 2 to {MAX_SHARES}, not {shares}")
    if quota and quota != -1 and not 1000 <= quota <= MAX_QUOTA:
        raise wrong("cpu.quota", f"must be -1 (no limit) or 1000 microseconds to {MAX_QUOTA}, not {quota}")
    if period and not PERIODS[0] <= period <= PERIODS[1]:
        raise wrong("cpu.period", f"must be 1000 to 1000000 microseconds, not {period}")
    if asked(cpu, "burst") > (quota if quota > 0 else MAX_QUOTA):
        raise wrong("cpu.burst", f"{cpu['burst']} is more than {'cpu.quota' if quota > 0 else 'the kernel takes'}")
    if asked(cpu, "idle") not in (0, 1):
        raise wrong("cpu.idle", f"must be 0 or 1, not {cpu['idle']}")
    _realtime(cpu)
    for name in ("cpus", "mems"):
        if not is_list(cpu.get(name) or ""):
            raise wrong(f"cpu.{name}", f"must be a list such as 0-2,7, not {cpu[name]!r}")


def _realtime(cpu: "Json") -> None:
    runtime, period = asked(cpu, "realtimeRuntime"), asked(cpu, "realtimePeriod")
    if runtime < -1:
        raise wrong("cpu.realtimeRuntime", f"must be -1 (no limit) or microseconds, not {runtime}")
    if period and runtime > period:
        raise wrong("cpu.realtimeRuntime", f"{runtime} is more than cpu.realtimePeriod, {period}")


def is_list(text: str) -> bool:
    """Whether it is a list of CPUs or memory nodes (cpuset(7), "List format"): 0-4,9; "" is one."""
    for part in text.split(",") if text.strip() else ():
        low, dash, high = part.strip().partition(":")[0].partition("-")
        if len(part) > 32 or not low.isdecimal() or (dash and (not high.isdecimal() or int(high) < int(low))):
            return False
    return not text.strip(_LISTS)


def _pids(pids: "Json") -> None:
    limit = asked(pids, "limit")
    if not -1 <= limit <= MAX_PIDS:
        raise wrong("pids.limit", f"must be -1 (no limit) or 0 to {MAX_PIDS}, not {limit}")


def _block_io(io: "Json") -> None:
    weights = [("blockIO.", io)]
    weights += [(f"blockIO.weightDevice[{i}].", entry) for i, entry in enumerate(io.get("weightDevice") or [])]
    for where, entry in weights:
        for name in ("weight", "leafWeight"):
            if asked(entry, name) and not 10 <= entry[name] <= 1000:
                raise wrong(where + name, f"must be 10 to 1000, not {entry[name]}")
    for name, entries in io.items():
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if min(entry["major"], entry["minor"]) < 0 or max(entry["major"] >> 12, entry["minor"] >> 20):
                raise wrong(f"blockIO.{name}[{index}]", f"{entry['major']}:{entry['minor']} is no device number")


def _hugetlb(limits: "list[Json]") -> None:
    seen = set()
    for index, limit in enumerate(limits):
        size = limit["pageSize"]
        if not size[:-2].isdecimal() or size[0] == "0" or size[-2:] not in ("KB", "MB", "GB"):
            raise wrong(f"hugepageLimits[{index}].pageSize", f"must be a size such as 2MB, not {size!r}")
        if size in seen:
            raise wrong(f"hugepageLimits[{index}].pageSize", f"{size} has two limits")
        seen.add(size)


def _rdma(devices: "Json") -> None:
    for name in devices:
        if not name or len(name.split()) != 1:
            raise wrong("rdma", f"{name!r} is no name of a device")


def _network(network: "Json") -> None:
    for index, entry in enumerate(network.get("priorities") or []):
        if len(entry["name"].split()) != 1:
            raise wrong(f"network.priorities[{index}].name", f"{entry['name']!r} is no name of an interface")


def _unified(files: "Json") -> None:
    for name in files:
        controller, dot, rest = name.partition(".")
        if not controller or not dot or not rest:
            raise wrong("unified", f"{name!r} is no file of a controller", "such as memory.high")
        if controller == "cgroup" and rest in _ACTIONS:
            raise wrong("unified", f"{name} is no limit")


_SECTIONS: "dict[str, Callable[[Any], None]]" = {
    "memory": _memory,
    "cpu": _cpu,
    "pids": _pids,
    "blockIO": _block_io,
    "hugepageLimits": _hugetlb,
    "rdma": _rdma,
    "network": _network,
    "unified": _unified,
}
