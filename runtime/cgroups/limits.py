"""Which hierarchy holds which limit: one choice a controller, from what Host.probe() found.

It owns the order of writing and the refusal, before anything exists, of what no hierarchy of this host can hold.
"""

from ..errors import UnsupportedError
from .checks import check
from .files import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..host import Host
    from .settings import Json, Setting

_SECTIONS = (
    ("memory", "memory"), ("cpu", "cpu"), ("cpu", "cpuset"), ("pids", "pids"), ("blockIO", "io"),
    ("hugepageLimits", "hugetlb"), ("rdma", "rdma"), ("network", "net_cls"), ("network", "net_prio"),
)  # fmt: skip
"""Sections of linux.resources and the controllers that hold them, in the order of writing; `unified` comes last."""
_V1_NAMES = {"io": "blkio"}


def settings(resources: "Json", host: "Host", *, best_effort: bool = False) -> "list[Setting]":
    """Everything to write for linux.resources but the device rules; empty, at no cost, where nothing is asked.

    Raises SpecError for values that contradict themselves, UnsupportedError for a limit that this host cannot hold;
    with `best_effort` that is a setting without a file, which says why.
    """
    check(resources)
    found: list[Setting] = []
    for section, controller in _SECTIONS:
        if resources.get(section):
            found += _of_controller(controller, resources, host)
    if resources.get("unified"):
        found += _verbatim(resources, host)
    for setting in found:
        if setting.hint and not best_effort:
            raise UnsupportedError(f"linux.resources.{setting.limit}: {setting.value}", hint=setting.hint)
    return found


def version(controller: str, host: "Host") -> int:
    """The hierarchy, 1 or 2, that has the controller (as v2 calls it); 0 for none."""
    if mount(controller, host):
        return 1
    return 2 if controller in host.cgroup_controllers else 0


def mount(controller: str, host: "Host") -> str:
    """Where the v1 hierarchy with the controller (as v2 calls it) is mounted; "" when there is none."""
    return host.cgroup_legacy.get(hierarchy(host.cgroup_legacy, _V1_NAMES.get(controller, controller)), "")


def _of_controller(controller: str, resources: "Json", host: "Host") -> "list[Setting]":
    number = version(controller, host)
    found: list[Setting] = _drivers(number)[controller](resources)
    if number:
        return found
    return [_nowhere(setting, "host") if setting.file else setting for setting in found if not setting.lifts]


def _drivers(number: int) -> "Mapping[str, Callable[[Json], list[Setting]]]":
    """Each is loaded where it is needed: a launch pays for it."""
    if number == 1:
        from . import legacy

        return legacy.DRIVERS
    from . import unified

    return unified.DRIVERS


def _verbatim(resources: "Json", host: "Host") -> "list[Setting]":
    from . import unified

    found = unified.unified(resources)
    for setting in found:
        if not host.cgroup_unified:
            setting.give_up("this host has no cgroup v2")
            setting.hint = "`unified` names files of v2"
        elif setting.controller != "cgroup" and setting.controller not in host.cgroup_controllers:
            _nowhere(setting, "cgroup v2")
    return found


def _nowhere(setting: "Setting", where: str) -> "Setting":
    setting.give_up(f"this {where} has no {setting.controller} controller")
    setting.hint = "leave the limit out, or have the kernel provide the controller (/proc/cgroups)"
    return setting
