"""Network namespace: a new one gets its loopback interface up; the spec may move devices of the host into it, and
name links that somebody above makes there.

How they are made belongs to runtime/network.
"""

from ..steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec import Spec

LINKS = "links "
"""How the sync of take_links() begins."""


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
