"""The same image as a virtual machine: `run --isolation vm`.

A virtual machine is a container whose program is a hypervisor: it has the state directory, the cgroup and the
namespaces of a container, sees nothing of the host but /usr, its kernel and the files that it is to show its guest,
and dies with process 1 of its pid namespace.  That process (init/supervise.c) sends the guest, whose process 1 is our
`init` as well (init/guest.c), the rest of its plan.  So all verbs on containers work on it; a process of `exec` beside
the hypervisor stands for a program in the guest (init/reach.c).
"""

from ..errors import LaunchError, UsageError
from ..launch import failure
from .convert import INSIDE, ISOLATION, convert, inside_filter
from .guest import file_plan, program_plan
from .machine import KINDS, Machine
from .select import choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..launch import Options
    from ..spec import Spec
    from ..steps import LaunchPlan

__all__ = [
    "INSIDE", "ISOLATION", "KINDS", "Machine", "choose", "convert", "file_plan", "guest_failure", "inside_filter",
    "parse_isolation", "prepare", "program_plan",
]  # fmt: skip


def parse_isolation(text: str) -> str:
    """--isolation container|vm[:microvm|pc|uml]: the kind, "" for a container, "vm" for whatever this host can do."""
    if text in ("", "container"):
        return ""
    word, _, kind = text.partition(":")
    if word != "vm" or (kind and kind not in KINDS) or text.endswith(":"):
        raise UsageError(f"--isolation {text!r} is unknown", hint=f"container, vm or vm:{', vm:'.join(KINDS)}")
    return kind or "vm"


def prepare(
    spec: "Spec",
    options: "Options",
    machine: Machine,
    id: str,
    *,
    network: bool,
    ports: "Sequence[tuple[str, int]]" = (),
    idle: bool = False,
    privileged: bool = False,
) -> "tuple[Spec, LaunchPlan]":
    """The Spec of the container that runs the machine, and the plan of its guest; `options` are made to supervise it.

    `id` names files that live as long as the machine; `ports` (protocol, number) are passed on to the guest.  Raises
    UnsupportedError for what a machine cannot do.
    """
    outer, guest = convert(
        spec, machine, id, options.enforced, network=network, ports=ports, idle=idle, privileged=privileged
    )
    terminal = bool(outer.config["process"]["terminal"])
    options.supervise = (guest.encode({}), int(machine.boot_seconds * 1000), int(terminal))
    return outer, guest


def guest_failure(error: LaunchError, guest: "LaunchPlan", machine: "Machine | None" = None) -> LaunchError:
    """What a failed launch means: a step of the guest's plan, or the machine did not come up, or does not answer."""
    if error.step is None or error.step.op not in ("supervise", "reach"):
        return error
    number, _, text = error.detail.removeprefix("guest ").partition(" ")
    if error.detail.startswith("guest ") and number.isdigit():
        return failure(guest, int(number), error.errno, text)
    name, hint = (f" ({machine.label})", machine.hint) if machine else ("", "")
    return LaunchError(error.number, None, error.errno, f"virtual machine{name}: {error.detail}", hint=hint)
