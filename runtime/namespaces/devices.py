"""Device nodes and links of a container's /dev (config-linux.md, Devices and Default Devices)."""

from ..errors import SpecError
from ..steps import MAKE_FILE, LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host import Host
    from ..spec import Spec
    from .mount import Mount

_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}
_DEFAULT = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/core": "/proc/kcore",
    "/dev/ptmx": "pts/ptmx",
}


def device_number(major: int, minor: int) -> int:
    """makedev(3) of the kernel's own encoding."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


class Devices:
    """The nodes to make: path -> (type letter, major, minor, mode, uid, gid), or to bind from the host."""

    __slots__ = ("nodes", "skip", "slots")

    def __init__(self, spec: "Spec", mounts: "list[Mount]") -> None:
        self.nodes = {f"/dev/{name}": ("c", *numbers, 0o666, 0, 0) for name, numbers in _DEFAULT.items()}
        for index, device in enumerate((spec.config.get("linux") or {}).get("devices") or []):
            self._add(device, f"linux.devices[{index}]")
        self.slots: dict[str, int] = {}
        # A /dev that is bound from somewhere else has its nodes already, and is not ours to fill (runc, needsSetupDev).
        self.skip = any(mount.is_bind and mount.destination == "/dev" for mount in mounts)

    def _add(self, device: "dict[str, object]", where: str) -> None:
        path, kind = str(device["path"]), str(device["type"])
        numbers = (int(device.get("major") or 0), int(device.get("minor") or 0))  # type: ignore[call-overload]
        known = self.nodes.get(path)
        if known and path in [f"/dev/{name}" for name in _DEFAULT] and known[1:3] != numbers:
            raise SpecError(f"{where}: {path} is {known[1]}:{known[2]}, not {numbers[0]}:{numbers[1]}")
        mode = 0o666 if device.get("fileMode") is None else int(device["fileMode"])  # type: ignore[call-overload]
        owner = (int(device.get("uid") or 0), int(device.get("gid") or 0))  # type: ignore[call-overload]
        self.nodes[path] = (kind, *numbers, mode & 0o7777, *owner)


def clone(plan: LaunchPlan, devices: Devices, spec: "Spec", host: "Host") -> None:
    """Clone the host's nodes where mknod(2) is not allowed: in a user namespace other than the initial one."""
    if devices.skip or (host.initial_userns and host.privileged and "user" not in spec.namespaces()):
        return
    for path, node in devices.nodes.items():
        if node[0] == "p":
            continue
        devices.slots[path] = plan.slot()
        plan.add("open_tree", devices.slots[path], path, 0)


def build(plan: LaunchPlan, devices: Devices) -> None:
    """Make or bind the nodes, then the links of "Default Devices"."""
    if devices.skip:
        return
    for path, (kind, major, minor, mode, uid, gid) in devices.nodes.items():
        if path in devices.slots:
            plan.add("bind", devices.slots[path], path, MAKE_FILE)
        else:
            plan.add("mknod", path, _TYPES[kind] | mode, device_number(major, minor), uid, gid)
    for path, target in _LINKS.items():
        plan.add("symlink", target, path)
