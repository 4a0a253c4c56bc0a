"""Network namespace: a new one gets its loopback interface up; the spec may move devices of the host into it, and
name links that somebody above makes there.

How they are made belongs to runtime/network.
"""

from ..steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host import Host
    from ..spec import Spec

LINKS = "links "
"""How the sync of take_links() begins."""
_LOOKING = ("sync", "hook", "chroot", "pivot_root")
"""Steps that run or wait for somebody; what comes after the pivot belongs to the network, or may."""


def order(plan: LaunchPlan, spec: "Spec", host: "Host") -> int:
    """A slot for a network namespace that is made while the container's process is busy with its mounts.

    -1 where clone(2) makes it: without a user namespace there is no helper that could, and who waits for somebody to
    bring interfaces needs it at once.
    """
    kinds = spec.namespaces()
    new = kinds.get("network", "-") == "" and kinds.get("user", "-") == ""
    early = spec.links or (spec.config.get("linux") or {}).get("netDevices")
    return plan.slot() if new and host.privileged and not early else -1


def take(plan: LaunchPlan, slot: int) -> None:
    """Enter what has been ordered, in front of the first step that may look at it: as late as can be."""
    if slot < 0:
        return
    inside = next(index for index, step in enumerate(plan.steps) if step.op == "clone")
    for index, step in enumerate(plan.steps[inside:], inside):
        if step.op in _LOOKING or (step.op == "mount" and step.args[0] == "sysfs"):
            plan.insert(index, "take_network", slot)
            return


def raise_loopback(plan: LaunchPlan, spec: "Spec") -> None:
    """runc does this for every namespace that it makes; one that is joined belongs to somebody else."""
    if spec.namespaces().get("network", "-") == "":
        plan.add("loopback")


def take_devices(plan: LaunchPlan, spec: "Spec") -> None:
    """Wait for netdevices.move(), before anything that may look for the devices: hooks, sysctls of an interface."""
    if (spec.config.get("linux") or {}).get("netDevices"):
        plan.add("netlink", "netDevices")


def quiet_links(plan: LaunchPlan, spec: "Spec") -> None:
    """Where the addresses of a link are given, what neighbours advertise is not believed."""
    for link in spec.links:
        if any(":" in address for address in link.addresses):
            plan.add("sysctl", f"net/ipv6/conf/{link.name}/accept_ra", "0")


def take_links(plan: LaunchPlan, spec: "Spec") -> None:
    """Wait for Options.connect(), before anything that may look for the interfaces."""
    if spec.links:
        plan.add("netlink", f"{LINKS}{'; '.join(map(str, spec.links))}")
