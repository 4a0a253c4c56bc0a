"""Time namespace: offsets of the clocks that count from boot (time_namespaces(7))."""

from ..errors import SpecError
from ..steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec import Spec


def create(plan: LaunchPlan, spec: "Spec") -> None:
    """Make a new one for the process that will be cloned; clone3(2) itself would leave no time for offsets."""
    path = spec.namespaces().get("time")
    offsets = (spec.config.get("linux") or {}).get("timeOffsets") or {}
    if path and offsets:
        raise SpecError("linux.timeOffsets: only a new time namespace has offsets to set")
    if path == "":
        clocks = [f"{clock} {o.get('secs') or 0} {o.get('nanosecs') or 0}\n" for clock, o in offsets.items()]
        plan.add("time_offsets", "".join(clocks))
