"""UTS namespace: host name and NIS domain name."""

from ..steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec import Spec


def set_names(plan: LaunchPlan, spec: "Spec") -> None:
    if spec.config.get("hostname"):
        plan.add("hostname", spec.config["hostname"])
    if spec.config.get("domainname"):
        plan.add("domainname", spec.config["domainname"])
