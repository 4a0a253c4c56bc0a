"""The unit of work of both drivers: one value for one file of a cgroup, the limit that it comes from, and what it
means when the kernel does not take it."""

from errno import EACCES, EBUSY, EINVAL, ENODEV, ENOENT, EPERM, ERANGE, EROFS, errorcode

from ..errors import SpecError, StateError, UnsupportedError, WarrenError
from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import Cgroup

    Json = dict[str, Any]


class Setting:
    """`value` is to be written to `file` of the cgroup that `controller` has the container in.

    limit     its name below linux.resources: "memory.limit"
    version   of the hierarchy, 1 or 2
    file      "" for what the hierarchy cannot hold though the spec has it; `value` then says why
    hint      of what is an error for that, unless the caller asked for best effort; "" for what is only noted
    instead   file and value where the kernel has no `file`
    optional  nothing is lost where the kernel has no `file`
    lifts     the value is no limit: without a controller there is nothing to do
    """

    __slots__ = ("controller", "file", "hint", "instead", "lifts", "limit", "optional", "value", "version")

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
        hint: str = "",
    ) -> None:
        self.version = version
        self.controller = controller
        self.limit = limit
        self.file = file
        self.value = str(value)
        self.optional = optional
        self.lifts = lifts
        self.instead = instead
        self.hint = hint

    def give_up(self, why: str) -> None:
        """Let it be a note of why it is not enforced."""
        self.file, self.value, self.hint = "", why, ""

    def __repr__(self) -> str:
        return f"Setting({self})"

    def __str__(self) -> str:
        """How the limit is held, for people."""
        if not self.file:
            return "not enforced: " + self.value
        where = "cgroup v2" if self.version == 2 else f"cgroup v1 {self.controller}"
        other = f" or {self.instead[0]} = {self.instead[1]}" if self.instead else ""
        return f"{self.file} = {self.value}{other} ({where})"


def asked(section: "Json", name: str) -> int:
    """A number of the spec; 0 where it is absent or null, which mean the same nearly everywhere (runc)."""
    return int(section.get(name) or 0)


def cpuset_lists(resources: "Json", version: int) -> "list[Setting]":
    section = resources["cpu"]
    return [
        Setting(version, "cpuset", f"cpu.{name}", f"cpuset.{name}", section[name])
        for name in ("cpus", "mems")
        if section.get(name)
    ]


def pids_limit(resources: "Json", version: int) -> "list[Setting]":
    """0 is a limit: no process at all may be added by fork (runtime-spec 1.3)."""
    limit = resources["pids"].get("limit")
    if limit is None:
        return []
    return [Setting(version, "pids", "pids.limit", "pids.max", "max" if limit == -1 else limit, lifts=limit == -1)]


def rdma_lines(resources: "Json", version: int) -> "list[Setting]":
    """Both hierarchies have the same file (cgroup-v1/rdma.rst)."""
    found = []
    for device, limits in resources["rdma"].items():
        keys = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        words = [f"{key}={limits[name]}" for name, key in keys if limits.get(name) is not None]
        if words:
            found.append(Setting(version, "rdma", f"rdma.{device}", "rdma.max", " ".join([device, *words])))
    return found


def directory(cgroup: "Cgroup", setting: "Setting") -> str:
    """Where a setting's file lies; raises StateError when the container was made without that hierarchy."""
    name = files.hierarchy(cgroup.legacy, setting.controller)
    path = cgroup.unified if setting.version == 2 else cgroup.legacy.get(name, "")
    if not path:
        raise StateError(f"linux.resources.{setting.limit}: the container has no cgroup for {setting.controller}")
    return path


def write_all(cgroup: "Cgroup", settings: "list[Setting]", *, best_effort: bool = False) -> None:
    """Write in order; raises what refusal() makes of the first failure.

    With `best_effort` what this kernel or caller cannot hold is given up, and the setting says so.
    """
    for setting in settings:
        if setting.file:
            try:
                write(cgroup, setting)
            except OSError as error:
                refused = refusal(setting, error)
                if not best_effort or not isinstance(refused, UnsupportedError):
                    raise refused from error
                setting.give_up(refused.message)


def write(cgroup: "Cgroup", setting: "Setting") -> None:
    """Write one value, to the file that the kernel has of the two that it may have; remembers which."""
    path = directory(cgroup, setting)
    try:
        files.write(f"{path}/{setting.file}", setting.value)
    except OSError as error:
        if error.errno != ENOENT or (not setting.instead and not setting.optional):
            raise
        if setting.instead:
            (setting.file, setting.value), setting.instead = setting.instead, None
            files.write(f"{path}/{setting.file}", setting.value)


def refusal(setting: "Setting", error: OSError) -> WarrenError:
    """The exception for a value that the kernel did not take."""
    what = f"linux.resources.{setting.limit}: {setting.file} = {setting.value}"
    name = errorcode.get(error.errno or 0, str(error.errno))
    if error.errno == ENOENT:
        return UnsupportedError(f"{what}: this kernel has no such file", hint="leave the limit out")
    if error.errno == ENODEV:
        hint = "the kernel limits whole disks by major:minor" if setting.controller in ("io", "blkio") else ""
        return SpecError(f"{what}: no such device (ENODEV)", hint=hint)
    if error.errno in (EINVAL, ERANGE):
        return SpecError(f"{what}: the kernel does not take this value ({name})", hint=_hint(setting))
    if error.errno == EBUSY:
        return StateError(f"{what}: more is in use (EBUSY)", hint="choose a higher limit")
    if error.errno in (EACCES, EPERM, EROFS):
        return UnsupportedError(f"{what}: not permitted ({name})", hint=_hint(setting) or "is the cgroup delegated?")
    return WarrenError(f"{what}: {name}")


def _hint(setting: "Setting") -> str:
    if setting.limit.startswith("cpu.realtime"):
        return "the parent cgroups need real-time runtime first"
    return "the parent cgroup may allow less" if setting.controller in ("cpu", "cpuset") else ""
