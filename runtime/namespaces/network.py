"""Network namespace: a new one gets its loopback interface up; the spec may move devices of the host into it.

Anything more belongs to runtime/network.
"""

from ..steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec import Spec


def raise_loopback(plan: LaunchPlan, spec: "Spec") -> None:
    """runc does this for every namespace that it makes; one that is joined belongs to somebody else."""
    if spec.namespaces().get("network", "-") == "":
        plan.add("loopback")


def take_devices(plan: LaunchPlan, spec: "Spec") -> None:
    """Wait for netdevices.move(), before anything that may look for the devices: hooks, sysctls of an interface."""
    if (spec.config.get("linux") or {}).get("netDevices"):
        plan.add("netlink", "netDevices")
