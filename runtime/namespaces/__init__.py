"""The namespaces of a container: which are new, which are joined, and in what order.

One file per namespace that has work to do, with the steps that run inside and the host's half side by side.
"""

from ..steps import LaunchPlan
from . import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec import Spec

# OCI's word (config-linux.md, Namespaces): its CLONE_NEW flag (clone(2)) and its name under /proc/PID/ns.
TYPES = {
    "user": (0x10000000, "user"),
    "mount": (0x00020000, "mnt"),
    "pid": (0x20000000, "pid"),
    "network": (0x40000000, "net"),
    "ipc": (0x08000000, "ipc"),
    "uts": (0x04000000, "uts"),
    "cgroup": (0x02000000, "cgroup"),
    "time": (0x00000080, "time"),
}
NEWUSER = TYPES["user"][0]


def new_flags(spec: "Spec", network: int = -1) -> int:
    """The CLONE_NEW flags of namespaces to create, but for user and time namespaces, which are made beforehand.

    Nor is that of the network which comes in the slot `network`.
    """
    flags = 0
    others = ("user", "time", "network" if network >= 0 else "")
    for kind, path in spec.namespaces().items():
        if not path and kind not in others:
            flags |= TYPES[kind][0]
    return flags


def joined(spec: "Spec") -> "list[tuple[str, str]]":
    """Namespaces to join by path."""
    return [(kind, path) for kind, path in spec.namespaces().items() if path]


def enter(plan: LaunchPlan, spec: "Spec", userns: int, privileged: bool) -> None:
    """Join what is joined by path and enter the user namespace in slot `userns` (-1: none).

    A privileged caller has power over every namespace and loses it on entering the user namespace, which therefore
    comes last; an ordinary user has power only inside it, and it comes first (user_namespaces(7), setns(2)).
    All paths are opened before the first setns, since joining a mount namespace changes what they mean.
    """
    slots = []
    for kind, path in joined(spec):
        flag = TYPES[kind][0]
        slot = plan.slot()
        plan.add("open_ns", slot, path, flag)
        slots.append((slot, flag))
    if userns >= 0:
        slots.append((userns, NEWUSER))
    own = userns >= 0 and not privileged
    if own:
        # Nobody is in it yet.  An ordinary user can write /proc/self/timens_offsets only while he is dumpable.
        plan.add("setns", *slots.pop())
        time.create(plan, spec)
    plan.add("undumpable")
    slots.sort(key=lambda item: (item[1] == NEWUSER) == privileged)
    for slot, flag in slots:
        plan.add("setns", slot, flag)
    if not own:
        time.create(plan, spec)
