"""What is contrasted: one row for each way of running the same image, with the term that it stands for."""

from .. import vm
from ..errors import WarrenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..vm import Machine

PROCESS, CONTAINER, UML, MICROVM, PC = "process", "container", "uml", "microvm", "pc"


class Row:
    """One way of running; `reason` says why this host cannot, "" where it can."""

    __slots__ = ("accel", "key", "kind", "machine", "reason", "term", "title")

    def __init__(self, kind: str, title: str, term: str, accel: str = "") -> None:
        self.kind = kind
        self.accel = accel
        self.key = f"{kind}-{accel}" if accel else kind
        self.title = title
        self.term = term
        self.reason = ""
        self.machine: Machine | None = None

    @property
    def is_machine(self) -> bool:
        return self.kind not in (PROCESS, CONTAINER)

    @property
    def isolation(self) -> str:
        return f"vm:{self.kind}" if self.is_machine else ""

    def __repr__(self) -> str:
        return f"Row({self.key!r}, {self.reason!r})"


def all_rows() -> "list[Row]":
    """Every row, in the order in which they are shown."""
    return [
        Row(PROCESS, "process", "no isolation: an ordinary process of this host, for comparison"),
        Row(CONTAINER, "container", "container: the host's kernel, shared; isolation by namespaces and cgroups"),
        Row(UML, "user-mode Linux", "paravirtualization: a kernel as an ordinary program of its host"),
        Row(MICROVM, "microvm (KVM)", "paravirtualization (virtio) on a hardware-assisted hypervisor", "kvm"),
        Row(MICROVM, "microvm (TCG)", "paravirtualization (virtio) on a software hypervisor", "tcg"),
        Row(PC, "PC (KVM)", "full virtualization (IDE, e1000, VGA, firmware) on a hardware-assisted hypervisor", "kvm"),
        Row(PC, "PC (TCG)", "full virtualization (IDE, e1000, VGA, firmware) on a software hypervisor", "tcg"),
    ]


def find_machines(rows: "list[Row]", kernel: str, boot_seconds: float) -> None:
    """Settle which rows this host can run."""
    for row in rows:
        if not row.is_machine:
            continue
        given = kernel if row.kind != UML else ""
        try:
            row.machine = vm.choose(row.kind, kernel=given, accel=row.accel or "auto", boot_seconds=boot_seconds)
        except WarrenError as error:
            row.reason = error.message
