"""The root of a container: a directory, or an overlay of layers; its pivot, and the paths hidden below it."""

from ..steps import LaunchPlan
from .mount import SLAVE, overlay_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host import Host
    from ..spec import Spec

_PROPAGATION = {"unbindable": 1 << 17, "private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}


class Root:
    """Slots of what the root is made of, between cloning it and building it."""

    __slots__ = ("keep", "lowers", "slot")

    def __init__(self) -> None:
        self.slot = -1
        self.lowers: list[int] = []
        self.keep = -1


def clone(plan: LaunchPlan, spec: "Spec") -> Root:
    """Clone the directories that the root is made of as detached mounts."""
    root = Root()
    if spec.layers is None:
        root.slot = plan.slot()
        plan.add("open_tree", root.slot, spec.root_path(), 1)
        return root
    for path in spec.layers.lower:
        root.lowers.append(plan.slot())
        plan.add("open_tree", root.lowers[-1], path, 0)
    if spec.layers.keep:
        root.keep = plan.slot()
        plan.add("open_tree", root.keep, spec.layers.keep, 0)
    return root


def set_attributes(plan: LaunchPlan, root: Root, spec: "Spec", userns: int) -> None:
    """Detach the clones from the host's propagation and idmap layers that the container's own ids shall own.

    rootfsPropagation waits until after the pivot: pivot_root(2) refuses shared mounts.
    """
    if root.slot >= 0:
        plan.add("mount_setattr", root.slot, 1, 0, 0, SLAVE, -1)
    idmap = userns if spec.layers is not None and spec.layers.idmap else -1
    for slot in [*root.lowers, root.keep]:
        if slot >= 0:
            plan.add("mount_setattr", slot, 0, 0, 0, SLAVE, idmap)


def propagation(spec: "Spec") -> int:
    """linux.rootfsPropagation as a flag of mount(2); 0 when it is not given."""
    word = str((spec.config.get("linux") or {}).get("rootfsPropagation") or "")
    return _PROPAGATION.get(word if word in _PROPAGATION else word[1:], 0)


def needs_scratch(spec: "Spec") -> bool:
    """Whether any overlay keeps its changes in the scratch tmpfs."""
    if spec.layers is not None and spec.layers.lower:
        return True
    return any("O" in (mount.get("options") or []) for mount in spec.config.get("mounts") or [])


def build(plan: LaunchPlan, root: Root, spec: "Spec", host: "Host") -> None:
    """Make the root and move onto it."""
    if needs_scratch(spec):
        plan.add("scratch", ["mode=755"])
    if spec.layers is not None:
        root.slot = plan.slot()
        if spec.layers.lower:
            lowers = [str(slot) for slot in root.lowers]
            plan.add("overlay", root.slot, root.keep, lowers, overlay_options(spec, host))
        else:
            plan.add("tmpfs", root.slot, ["mode=755"])
    plan.add("root", root.slot, spec.root_path() if spec.layers is None else "")


def finish(plan: LaunchPlan, root: Root, spec: "Spec") -> None:
    """Hide and protect paths; make the root read-only last, since everything before may create targets in it."""
    linux = spec.config.get("linux") or {}
    for path in linux.get("readonlyPaths") or []:
        plan.add("readonly", path)
    for path in linux.get("maskedPaths") or []:
        plan.add("mask", path)
    if spec.config["root"].get("readonly"):
        plan.add("mount_setattr", root.slot, 0, 0x1, 0, 0, -1)
    flag = propagation(spec)
    if flag and flag != SLAVE:
        plan.add("propagation", flag)
