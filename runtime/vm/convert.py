"""A container's spec as a virtual machine: the spec of the container that runs the hypervisor, and the guest's plan.

What the spec says of the process holds inside the guest, what it says of resources for the hypervisor, and its
namespaces are the hypervisor's.  What has no meaning for a machine is refused.
"""

import os

from .. import seccomp
from ..container import default_root
from ..errors import UnsupportedError
from ..host import Host
from ..jsontext import dump_json
from ..namespaces import mount as mounts_of
from ..spec import MASKED_PATHS, READONLY_PATHS, Layers, Spec
from . import disk, guest, initramfs
from .machine import PLACE, Machine, Share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..namespaces.mount import Mount
    from ..seccomp import Program
    from ..steps import LaunchPlan

    Json = dict[str, Any]

ISOLATION, INSIDE = "org.warren.isolation", "org.warren.inside"
"""Annotations of the hypervisor's container: "vm:uml", and what holds inside: the process object, on which `exec` lays
its own, and the seccomp profile."""
_MORE_PIDS = 256
"""That the hypervisor has, beside those that its guest's programs may have: user-mode Linux has one for each."""
_CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETUID",
]  # fmt: skip
"""What serving files to a guest takes: its root may do to them what root of a container may, and make no devices."""
_KERNELS = ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup")
_CONFIGURED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""What a launch writes for a container; a machine gets copies."""
_MOST_CONFIGURED = 1 << 20
_SAFE = ["nosuid", "noexec", "nodev"]
_MOST_LAYERS = 18
"""Names of so many fit the 255 bytes that an older kernel's fsconfig(2) takes."""


def convert(
    spec: Spec,
    machine: Machine,
    id: str,
    enforced: "dict[str, str]",
    *,
    network: bool,
    ports: "Sequence[tuple[str, int]]" = (),
    idle: bool = False,
    privileged: bool = False,
) -> "tuple[Spec, LaunchPlan]":
    """The spec of the container of the hypervisor, and the plan of its guest; raises UnsupportedError.

    An `idle` machine runs nothing until it is told to; `privileged` programs have all of their kernel.
    """
    return _Conversion(spec, machine, id, enforced, network, ports).convert(idle=idle, privileged=privileged)


class _Conversion:
    def __init__(
        self,
        spec: Spec,
        machine: Machine,
        id: str,
        enforced: "dict[str, str]",
        network: bool,
        ports: "Sequence[tuple[str, int]]",
    ) -> None:
        self.spec = spec
        self.config: Json = spec.config
        self.machine = machine
        self.id = id
        self.enforced = enforced
        self.network = network
        self.ports = ports
        self.idmap = ["ridmap"] if spec.layers is not None and spec.layers.idmap else []
        self.mounts: list[Json] = []
        self.shares: list[Share] = []
        self.guest = guest.Guest(machine)
        self.inside: Json = {"process": self.config["process"]}
        """What holds in the guest, and for further programs there."""
        if ports and not machine.forwards:
            enforced["ports"] = f"not passed on: {machine.title} has no way in"

    def convert(self, *, idle: bool, privileged: bool) -> "tuple[Spec, LaunchPlan]":
        self._refuse()
        if not privileged:
            self.inside["seccomp"] = self.config["linux"].get("seccomp")
        self.guest.filter = inside_filter(self.inside)
        self._jail()
        image = self._root()
        self._user_mounts()
        memory, cpus = self._memory(), self._cpus()
        modules = [*self.machine.modules, *(self.machine.network_modules if self.network else ())]
        if self.shares and self.machine.root_on_disk:
            modules += ["virtio_pci", "9pnet_virtio", "9p"]
        for name, path in (
            ("kernel", self.machine.kernel.file),
            ("initrd", self._initramfs(modules)),
        ):
            self._bind(path, name)
            self.machine.files[path] = os.stat(path).st_size if os.path.exists(path) else 0
        command = self.machine.command(
            memory, cpus, self.shares, disk=image, network=self.network, ports=self.ports, seed=self.id
        )
        outer = self._outer(command)
        plan = self.guest.finish(self.config, network=self.network, idle=idle, privileged=privileged)
        return outer, plan

    def _refuse(self) -> None:
        spaces = self.spec.namespaces()
        for kind in ("pid", "ipc", "uts"):
            if spaces.get(kind) != "":
                raise UnsupportedError(f"--{kind}: a virtual machine shares no {kind} namespace")
        if self.spec.layers is not None and self.spec.layers.keep:
            raise UnsupportedError("--keep-changes: a virtual machine keeps its changes in its memory", hint="use -v")

    # ---- the hypervisor's container

    def _jail(self) -> None:
        """Nothing of the host but its programs, which cannot be changed, and what the kernel gives every container."""
        for path in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
            if os.path.islink(path):
                self.mounts.append(_entry(path, "", path, ["copy-symlink"]))
            elif os.path.isdir(path):
                self.mounts.append(_entry(path, "bind", path, ["rbind", "rro", "nosuid", "nodev"]))
        for path in ("/etc/ld.so.cache", "/etc/resolv.conf"):
            if os.path.isfile(path):
                self.mounts.append(_entry(path, "bind", os.path.realpath(path), ["bind", "ro"]))
        given = {entry["destination"]: entry for entry in self.config["mounts"]}
        self.mounts += [given[path] for path in _KERNELS[:4] if path in given]
        # The guest's memory is a file here for user-mode Linux, which maps it executable.
        self.mounts.append(_entry("/var/tmp", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=1777"]))
        self.mounts.append(_entry("/run", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=755"]))
        if self.machine.accel == "kvm":
            self.mounts.append(_entry("/dev/kvm", "bind", "/dev/kvm", ["bind"]))

    def _bind(self, source: str, name: str, options: "list[str] | None" = None) -> str:
        target = f"{PLACE}/{name}"
        self.mounts.append(_entry(target, "bind", source, ["bind", "ro"] if options is None else options))
        return target

    def _outer(self, command: list[str]) -> Spec:
        config = self.config
        capabilities = [*_CAPABILITIES, *(["CAP_NET_BIND_SERVICE"] if self.ports else [])]
        process = {
            "terminal": bool(config["process"].get("terminal")),
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": ["PATH=/usr/bin:/usr/sbin:/bin:/sbin", "HOME=/var/tmp", "TMPDIR=/var/tmp"],
            "cwd": "/",
            "capabilities": {
                **dict.fromkeys(("bounding", "permitted", "effective"), capabilities),
                "inheritable": [],
                "ambient": [],
            },
            "noNewPrivileges": True,
        }
        if box := config["process"].get("consoleSize"):
            process["consoleSize"] = box
        linux = {key: value for key, value in config["linux"].items()
                 if key in ("namespaces", "uidMappings", "gidMappings", "cgroupsPath")}  # fmt: skip
        linux["resources"] = self._resources()
        linux["maskedPaths"], linux["readonlyPaths"] = list(MASKED_PATHS), list(READONLY_PATHS)
        if config["linux"].get("seccomp"):
            linux["seccomp"] = seccomp.default_profile(set(capabilities), os.uname().machine)
        annotations = {
            **(config.get("annotations") or {}),
            ISOLATION: f"vm:{self.machine.kind}",
            INSIDE: dump_json(self.inside),
        }
        outer = {
            "ociVersion": config["ociVersion"],
            "process": process,
            "root": {"path": "/", "readonly": False},
            "mounts": self.mounts,
            "linux": linux,
            "annotations": annotations,
        }
        if hostname := config.get("hostname"):
            outer["hostname"] = hostname
        if hooks := config.get("hooks"):
            outer["hooks"] = hooks
        made = Spec(outer, "/", Layers([]))
        made.links = self.spec.links
        return made

    def _resources(self) -> "Json":
        """The machine's size is its limit of memory; everything else holds for the hypervisor with all it does."""
        found: Json = {**(self.config["linux"].get("resources") or {})}
        if found.pop("memory", None):
            self.enforced["memory"] = "held: it is the size of the virtual machine"
        limit = (found.get("pids") or {}).get("limit") or 0
        if limit > 0:
            found["pids"] = {"limit": limit + _MORE_PIDS}
        if self.machine.accel == "kvm" and found.get("devices"):
            rule = {"allow": True, "type": "c", "major": 10, "minor": 232, "access": "rw"}
            found["devices"] = [*found["devices"], rule]
        return found

    def _memory(self) -> int:
        limit = ((self.config["linux"].get("resources") or {}).get("memory") or {}).get("limit") or 0
        if 0 < limit < self.machine.least_memory:
            least = self.machine.least_memory >> 20
            raise UnsupportedError(
                f"--memory {limit}: {self.machine.title} needs {least}m at least for its kernel", hint=f"-m {least}m"
            )
        return limit if limit > 0 else max(self.machine.default_memory, self.machine.least_memory)

    def _cpus(self) -> int:
        """As many processors as the limit of time is worth; one without a limit."""
        cpu: Json = (self.config["linux"].get("resources") or {}).get("cpu") or {}
        quota, period = cpu.get("quota") or 0, cpu.get("period") or 100000
        count = max(1, -(-quota // period)) if quota > 0 else 1
        if count > 1 and self.machine.kind == "uml":
            self.enforced["cpus"] = "user-mode Linux has one processor"
            return 1
        return int(count)

    # ---- what the guest sees

    def _root(self) -> str:
        """Make the root visible to the hypervisor; returns a disk's path in its container, "" without one."""
        place, layers = f"{PLACE}/root", self.spec.layers
        writable = layers is None
        if layers is None:
            self._bind(self.spec.root_path(), "root", ["rbind"])
        elif not layers.lower:
            raise UnsupportedError(
                "the host as an image of a virtual machine needs root", hint="use an image or --rootfs"
            )
        elif len(layers.lower) == 1:
            self._bind(layers.lower[0], "root", ["bind", "ro", *self.idmap])
        else:
            self._stack(layers.lower)
        self._further_host_mounts()
        if self.machine.root_on_disk:
            if writable:
                raise UnsupportedError("--write: the root of this machine is a disk", hint="vm:microvm or vm:uml")
            self._bind(self._disk(layers.lower if layers else [], place), "disk", ["bind", *self.idmap])
            self.guest.disk_root()
            return f"{PLACE}/disk"
        share = Share("root", place, not writable)
        self.shares.append(share)
        self.guest.shared_root(share)
        return ""

    def _disk(self, lower: list[str], place: str) -> str:
        if self.machine.planning:
            return "/a/new/disk"
        made = disk.build(lower, self._outer(["-"]), place, self.idmap, self.id)
        self.machine.held.append(made)
        self.machine.files[made.path] = os.stat(made.path).st_blocks * 512
        return made.path

    def _initramfs(self, modules: list[str]) -> str:
        machine = self.machine
        return initramfs.build(machine.kernel, modules, machine.devices, keep=not machine.planning)

    def _stack(self, lower: list[str]) -> None:
        """Several layers: an overlay of them, without changes, made by the hypervisor's container."""
        if len(lower) > _MOST_LAYERS:
            raise UnsupportedError(
                f"an image of {len(lower)} layers", hint=f"at most {_MOST_LAYERS} for a virtual machine"
            )
        for number, path in enumerate(lower):
            self._bind(path, f"l/{number}", ["bind", "ro", *self.idmap])
        # Relative to the container's root, where `init` is while it mounts.
        names = ":".join(f"{PLACE[1:]}/l/{number}" for number in range(len(lower)))
        options = ["ro", f"lowerdir={names}", *(["userxattr"] if self.idmap else [])]
        self.mounts.append(_entry(f"{PLACE}/root", "overlay", "overlay", options))

    def _further_host_mounts(self) -> None:
        """What is mounted below the host's own root, where that is the image."""
        if self.spec.layers is None or self.spec.layers.lower != ["/"]:
            return
        for entry in self.config["mounts"]:
            if self._is_further(entry):
                self.mounts.append({**entry, "destination": f"{PLACE}/root{entry['destination']}"})

    def _is_further(self, entry: "Json") -> bool:
        """Whether it completes the host's root, and nobody has asked for it."""
        on_host = self.spec.layers is not None and self.spec.layers.lower == ["/"]
        where = entry["destination"]
        own = on_host and where not in _KERNELS and "bind" in (entry.get("options") or [])
        return own and entry["source"] == where and any(where == mount.point for mount in Host.probe().mounts)

    def _user_mounts(self) -> None:
        """Directories become shares, single files one share together; a tmpfs is the guest's own."""
        for entry, mount in zip(self.config["mounts"], mounts_of.load(self.spec), strict=True):
            where = mount.destination
            if where in _KERNELS or self._is_further(entry):
                continue
            if mount.is_bind:
                self._volume(entry, mount)
            elif mount.type == "tmpfs":
                self.guest.tmpfs(where, mount.options.data, mount.options.attr)
            else:
                raise UnsupportedError(f"mount on {where}: a virtual machine cannot have type {mount.type}")

    def _volume(self, entry: "Json", mount: "Mount") -> None:
        readonly = bool((mount.options.attr | mount.options.recursive_set) & 1)
        options = list(entry.get("options") or [])
        if os.path.isdir(mount.source):
            tag = f"v{len(self.shares)}"
            path = self._bind(mount.source, f"share/{tag}", options)
            share = Share(tag, path, readonly)
            self.shares.append(share)
            self.guest.volume(share, mount.destination)
            return
        if mount.destination in _CONFIGURED:
            with open(mount.source, "rb") as file:
                self.guest.content(mount.destination, file.read(_MOST_CONFIGURED))
            return
        if not os.path.isfile(mount.source):
            raise UnsupportedError(f"mount on {mount.destination}: neither a directory nor a plain file")
        if not any(share.tag == "files" for share in self.shares):
            self.shares.append(Share("files", f"{PLACE}/files", False))
            self.guest.files(self.shares[-1])
        name = str(sum(entry["destination"].startswith(f"{PLACE}/files/") for entry in self.mounts))
        self._bind(mount.source, f"files/{name}", options)
        self.guest.file(name, mount.destination, readonly)


def inside_filter(inside: "Json") -> "Program | None":
    """The seccomp filter of the guest's programs, which its own kernel holds; None without one."""
    if not inside.get("seccomp"):
        return None
    filter = seccomp.load(inside["seccomp"], os.uname().machine, f"{default_root()}-seccomp")
    if filter.notify:
        raise UnsupportedError("a seccomp profile that asks an agent: a virtual machine has none")
    return filter


def _entry(destination: str, kind: str, source: str, options: list[str]) -> "Json":
    return {"destination": destination, **({"type": kind} if kind else {}), "source": source, "options": list(options)}
