"""Settings to the files of a cgroup, and what it means when the kernel does not take one."""

from errno import EACCES, EBUSY, EINVAL, ENODEV, ENOENT, EPERM, ERANGE, EROFS, errorcode

from ..errors import SpecError, StateError, UnsupportedError, WarrenError
from . import files
from .files import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Cgroup
    from .settings import Setting


def directory(cgroup: "Cgroup", setting: "Setting") -> str:
    """Where a setting's file lies; raises StateError when the container was made without that hierarchy."""
    name = hierarchy(cgroup.legacy, setting.controller)
    path = cgroup.unified if setting.version == 2 else cgroup.legacy.get(name, "")
    if not path:
        raise StateError(f"linux.resources.{setting.limit}: the container has no cgroup for {setting.controller}")
    return path


def write_all(cgroup: "Cgroup", settings: "list[Setting]") -> None:
    """Write in order; raises what refusal() makes of the first failure."""
    for setting in settings:
        if setting.file:
            try:
                write(cgroup, setting)
            except OSError as error:
                raise refusal(setting, error) from error


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
        return SpecError(f"{what}: no such device (ENODEV)", hint="the kernel limits whole disks by major:minor")
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
