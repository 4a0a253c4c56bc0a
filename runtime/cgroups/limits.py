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


def settings(resources: "Json", host: "Host") -> "list[Setting]":
    """Everything to write for linux.resources but the device rules; empty, at no cost, where nothing is asked.

    Raises SpecError for values that contradict themselves, UnsupportedError for a limit that this host cannot hold.
    """
    check(resources)
    found: list[Setting] = []
    for section, controller in _SECTIONS:
        if resources.get(section):
            found += _of_controller(controller, resources, host)
    if resources.get("unified"):
        found += _verbatim(resources, host)
    return found


def version(controller: str, host: "Host") -> int:
    """The hierarchy, 1 or 2, that has the controller (as v2 calls it); 0 for none."""
    if hierarchy(host.cgroup_legacy, _V1_NAMES.get(controller, controller)):
        return 1
    return 2 if controller in host.cgroup_controllers else 0


def _of_controller(controller: str, resources: "Json", host: "Host") -> "list[Setting]":
    number = version(controller, host)
    found: list[Setting] = _drivers(number)[controller](resources)
    if number:
        return found
    for setting in found:
        if not setting.lifts and setting.file:
            raise _nowhere(setting)
    return []


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
            raise UnsupportedError(
                f"linux.resources.{setting.limit}: this host has no cgroup v2", hint="`unified` names files of v2"
            )
        if setting.controller != "cgroup" and setting.controller not in host.cgroup_controllers:
            raise _nowhere(setting)
    return found


def _nowhere(setting: "Setting") -> UnsupportedError:
    where = "cgroup v2" if setting.limit.startswith("unified.") else "host"
    return UnsupportedError(
        f"linux.resources.{setting.limit}: this {where} has no {setting.controller} controller",
        hint="leave the limit out, or have the kernel provide the controller (/proc/cgroups)",
    )
