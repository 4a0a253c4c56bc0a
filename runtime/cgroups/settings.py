"""The unit of work of both drivers: one value for one file of a cgroup, and the limit that it comes from."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


class Setting:
    """`value` is to be written to `file` of the cgroup that `controller` has the container in.

    limit     its name below linux.resources: "memory.limit"
    version   of the hierarchy, 1 or 2
    file      "" for what the hierarchy cannot hold though the spec has it; `value` then says why
    instead   file and value where the kernel has no `file`
    optional  nothing is lost where the kernel has no `file`
    lifts     the value is no limit: without a controller there is nothing to do
    """

    __slots__ = ("controller", "file", "instead", "lifts", "limit", "optional", "value", "version")

    def __init__(
        self,
        version: int,
        controller: str,
        limit: str,
        file: str,
        value: "int | str",
        *,
        optional: bool = False,
        lifts: bool = False,
        instead: "tuple[str, str] | None" = None,
    ) -> None:
        self.version = version
        self.controller = controller
        self.limit = limit
        self.file = file
        self.value = str(value)
        self.optional = optional
        self.lifts = lifts
        self.instead = instead

    def __repr__(self) -> str:
        return f"Setting({self})"

    def __str__(self) -> str:
        """How the limit is held, for people."""
        if not self.file:
            return "not enforced: " + self.value
        where = "cgroup v2" if self.version == 2 else f"cgroup v1 {self.controller}"
        return f"{self.file} = {self.value} ({where})"


def asked(section: "Json", name: str) -> int:
    """A number of the spec; 0 where it is absent or null, which mean the same nearly everywhere (runc)."""
    return int(section.get(name) or 0)
