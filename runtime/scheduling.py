"""How a process is scheduled: its policy, its I/O priority, its processors and its memory nodes (config.md, process;
config-linux.md, "Memory policy").

Only processes that ask for it load this module.
"""

from .errors import SpecError, UnsupportedError
from .spec import MEMORY_FLAGS, MEMORY_MODES
from .steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    Json = dict[str, object]

# sched(7), linux/sched.h.
_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}  # fmt: skip
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
# ioprio_set(2), linux/ioprio.h.
_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_CLASS_SHIFT = 13
_MAX_PROCESSORS = 8192
"""The kernel's own limit (NR_CPUS)."""
_MAX_NODES = 1024
"""The kernel's own limit (MAX_NUMNODES)."""


def add_steps(plan: LaunchPlan, process: "Json") -> None:
    """Policy and I/O priority; before privileges go, since most of them take CAP_SYS_NICE.

    Raises SpecError and UnsupportedError for what no kernel knows.
    """
    if process.get("scheduler"):
        plan.add("scheduler", *_schedule(process["scheduler"]))  # type: ignore[arg-type]
    if process.get("ioPriority"):
        wanted: dict[str, str | int] = process["ioPriority"]  # type: ignore[assignment]
        plan.add("io_priority", _CLASSES[str(wanted["class"])] << _CLASS_SHIFT | int(wanted.get("priority") or 0))


def _schedule(wanted: "Json") -> "list[int]":
    """The fields of struct sched_attr (sched_setattr(2)); times in nanoseconds."""
    policy = str(wanted["policy"])
    if policy not in _POLICIES:
        raise UnsupportedError(f"process.scheduler.policy: Linux has no {policy}")
    flags = 0
    for name in wanted.get("flags") or []:  # type: ignore[attr-defined]
        if name not in _FLAGS:
            raise SpecError(f"process.scheduler.flags: unknown: {name!r}")
        flags |= _FLAGS[name]
    keys = ("runtime", "deadline", "period")
    nice, priority, *times = [int(wanted.get(key) or 0) for key in ("nice", "priority", *keys)]  # type: ignore[call-overload]
    return [_POLICIES[policy], nice, priority, flags, *times]


def affinity(process: "Json", moment: str) -> "bytes | None":
    """execCPUAffinity.initial or .final as a mask for sched_setaffinity(2); None for no change.

    Without `final` the container's own processors are used: asking for all, one gets those of the cpuset.
    """
    wanted: dict[str, str] = process.get("execCPUAffinity") or {}  # type: ignore[assignment]
    text = (wanted.get(moment) or "").strip()
    if text:
        return _mask(text, f"process.execCPUAffinity.{moment}", "processors", _MAX_PROCESSORS)
    return bytes([0xFF]) * (_MAX_PROCESSORS // 8) if moment == "final" and wanted.get("initial") else None


def memory_policy(wanted: "Json") -> "tuple[int, bytes]":
    """linux.memoryPolicy as mode, with its flags, and mask for set_mempolicy(2); b"" for no nodes.

    Which modes take nodes and which flags go together is the kernel's to say.
    """
    mode = MEMORY_MODES.index(str(wanted["mode"]))
    for flag in wanted.get("flags") or []:  # type: ignore[attr-defined]
        mode |= MEMORY_FLAGS[flag]
    nodes = str(wanted.get("nodes") or "").strip()
    return mode, _mask(nodes, "linux.memoryPolicy.nodes", "memory nodes", _MAX_NODES) if nodes else b""


def _mask(text: str, where: str, what: str, end: int) -> bytes:
    """cpuset(7), List format: "0-3,7"; numbers below `end`."""
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not all(word.isascii() and word.isdecimal() and len(word) < 6 for word in (first, last)):
            raise SpecError(f"{where}: {text!r} is no list of {what} such as 0-3,7")
        if int(first) > int(last) or int(last) >= end:
            raise SpecError(f"{where}: {part.strip()!r} is no range of {what} below {end}")
        mask |= (1 << int(last) + 1) - (1 << int(first))
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")
