"""Network namespace: a new one gets its loopback interface up; anything more belongs to runtime/network."""

from ..steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec import Spec


def raise_loopback(plan: LaunchPlan, spec: "Spec") -> None:
    """runc does this for every namespace that it makes; one that is joined belongs to somebody else."""
    if spec.namespaces().get("network", "-") == "":
        plan.add("loopback")
