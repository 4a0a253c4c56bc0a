"""What `warren doctor` tells: what this machine can do for this caller and what not, each "no" with cause and remedy.

It looks and changes nothing.  What is `essential` keeps Warren from running containers at all.
"""

import posix

from . import cgroups
from .cgroups import devices, limits
from .host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_KERNEL = (5, 15)
CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma", "freezer", "devices")
_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time")
_REMEDIES = {
    "privileged": "run as root for cgroups, idmapped mounts and device nodes",
    "raise_limits": "none for hard resource limits above the caller's: give it CAP_SYS_RESOURCE",
    "device_nodes": "run outside of user namespaces, or bind devices",
    "user_namespaces": "set the sysctl that is named",
    "subordinate_uids": "usermod --add-subuids 100000-165535 USER",
    "subordinate_gids": "usermod --add-subgids 100000-165535 USER",
    "newuidmap": "install uidmap (shadow)",
    "newgidmap": "install uidmap (shadow)",
    "cgroup_v2": "mount cgroup2 on /sys/fs/cgroup",
}
_FEATURES = (
    ("clone3 into a cgroup", (5, 7), "joins in a third of the time"),
    ("idmapped mounts", (5, 12), "a user namespace of its own for each container"),
    ("idmapped overlay layers", (5, 19), "the same for containers of images"),
    ("memory peaks", (5, 19), "the most memory that a container has used"),
)
_MODULES = {
    "veth": ("veth_newlink", "networks of containers"),
    "bridge": ("br_dev_newlink", "networks of containers"),
}
"""A function of each: a kernel that has it built in, and no list of that beside it, is known by its symbols."""
_ROOT_DOES_WITHOUT = ("subordinate_uids", "subordinate_gids", "newuidmap", "newgidmap")


class Finding:
    """One line: `name` can be had (`ok`) or not; `text` says how or why not, `remedy` what to do about it."""

    __slots__ = ("essential", "name", "ok", "remedy", "text")

    def __init__(self, name: str, ok: bool, text: str, remedy: str = "", *, essential: bool = False) -> None:
        self.name = name
        self.ok = ok
        self.text = text
        self.remedy = "" if ok else remedy
        self.essential = essential

    def to_dict(self) -> "dict[str, object]":
        return {name: getattr(self, name) for name in ("name", "ok", "essential", "text", "remedy")}


def examine(host: Host) -> "list[Finding]":
    return [*_kernel(host), *_caller(host), *_networks(host), *_cgroups(host)]


def _networks(host: Host) -> "Iterator[Finding]":
    """Root's networks of bridges, and what an ordinary user's private network needs."""
    from .errors import WarrenError
    from .network import private, repair, rules

    if not host.privileged:
        try:
            private.check("private")
            yield Finding("private network", True, "pasta" if private.find("pasta")[0] else "slirp4netns")
        except WarrenError as error:
            yield Finding("private network", False, error.message, error.hint)
        return
    try:
        rules.missing()
        yield Finding("packet filter", True, "nf_tables")
    except (OSError, WarrenError) as error:
        reason = f"nf_tables cannot be asked: {error}"
        yield Finding("packet filter", False, reason, "modprobe nf_tables; networks of bridges need it")
        return
    found = repair.obstacles()
    text = "; ".join(map(str, found)) or "nothing of the host drops what is forwarded"
    yield Finding("forwarding", not found, text, "warren network repair --firewall")


def _kernel(host: Host) -> "Iterator[Finding]":
    release = ".".join(map(str, host.kernel))
    oldest = ".".join(map(str, OLDEST_KERNEL))
    yield Finding("kernel", host.kernel >= OLDEST_KERNEL, release, f"Linux {oldest} or newer", essential=True)
    missing = [name for name in _NAMESPACES if not posix.access(f"/proc/self/ns/{name}", posix.F_OK)]
    text = f"no {', '.join(missing)}" if missing else "all of them"
    yield Finding("namespaces", not missing, text, "a kernel that has them", essential="mnt" in missing)
    known = host.read("/proc/filesystems").split()
    yield Finding(
        "overlay", "overlay" in known, "in the kernel" if "overlay" in known else "not in /proc/filesystems",
        "modprobe overlay", essential=True,
    )  # fmt: skip
    actions = host.read("/proc/sys/kernel/seccomp/actions_avail").split()
    yield Finding("seccomp", bool(actions), " ".join(actions) or "not in this kernel", "a kernel with CONFIG_SECCOMP")
    for name, there in (("apparmor", host.apparmor), ("selinux", host.selinux)):
        yield Finding(name, there, "enabled" if there else "not enabled", "none is needed unless a bundle asks for it")
    yield from _features(host)
    for path, use in (
        ("/dev/net/tun", "private networks of ordinary users"),
        ("/dev/fuse", "file systems in programs"),
        ("/dev/kvm", "virtual machines; whether guests boot under it is probed by `warren vm`"),
    ):
        yield _device(path, use)


def _device(path: str, use: str) -> Finding:
    name = path.rpartition("/")[2]
    if not posix.access(path, posix.F_OK):
        return Finding(path, False, f"is not there, it is for {use}", f"modprobe {name}")
    there = posix.access(path, posix.R_OK | posix.W_OK)
    return Finding(path, there, use if there else f"cannot be opened, it is for {use}", f"permission to use {path}")


def _features(host: Host) -> "Iterator[Finding]":
    """What Warren uses where the kernel has it, and goes without elsewhere; by the version that brought it."""
    for name, since, use in _FEATURES:
        release = ".".join(map(str, since))
        ok = host.kernel >= since
        yield Finding(name, ok, use if ok else f"not before Linux {release}: {use}", f"Linux {release} or newer")
    for module, (symbol, use) in _MODULES.items():
        ok = _has_module(module, host) or f" {symbol}\n" in host.read("/proc/kallsyms")
        yield Finding(f"module {module}", ok, use if ok else f"not in this kernel, it is for {use}",
                      f"modprobe {module}, or a kernel that has it")  # fmt: skip


def _has_module(name: str, host: Host) -> bool:
    """Loaded, built in, or a file that the kernel loads when it is needed."""
    if posix.access(f"/sys/module/{name}", posix.F_OK) or f"\n{name} " in "\n" + host.read("/proc/modules"):
        return True
    directory = f"/lib/modules/{posix.uname().release}"
    known = host.read(f"{directory}/modules.builtin") + host.read(f"{directory}/modules.dep")
    return any(f"/{word}.ko" in known for word in (name, name.replace("_", "-")))


def _caller(host: Host) -> "Iterator[Finding]":
    reasons = host.reasons
    for name, remedy in _REMEDIES.items():
        if host.privileged and name in _ROOT_DOES_WITHOUT:
            continue
        essential = name == "user_namespaces" and not host.privileged
        yield Finding(name, name not in reasons, reasons.get(name, ""), remedy, essential=essential)


def _cgroups(host: Host) -> "Iterator[Finding]":
    """The hierarchies, and the choice for each controller, as every launch makes it."""
    yield _hierarchies(host)
    own = bool(cgroups.for_container(None, "doctor", host, manager="auto").directories())
    text = "can be made" if own else "the caller may not make one: limits are refused, and containers are not frozen"
    yield Finding("cgroup", own, text, "be root, or have a cgroup delegated (systemd: Delegate=yes)")
    for name in CONTROLLERS:
        held = _held_by(name, host)
        yield Finding(f"cgroup {name}", bool(held), held or "nobody holds it: limits are refused",
                      "have the kernel provide the controller (/proc/cgroups)")  # fmt: skip


def _hierarchies(host: Host) -> Finding:
    taken = [name for names in host.cgroup_legacy for name in names.split(",") if not names.startswith("name=")]
    remedy = "boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all"
    if not taken:
        return Finding("cgroup hierarchy", bool(host.cgroup_unified), "v2 alone" if host.cgroup_unified else "none",
                       "mount cgroup2 on /sys/fs/cgroup")  # fmt: skip
    kind = "hybrid: v1 has" if host.cgroup_unified else "v1 has"
    rest = f", v2 {' '.join(host.cgroup_controllers) or 'none'}" if host.cgroup_unified else ""
    text = f"{kind} {' '.join(taken)}{rest}; limits hold through v1"
    return Finding("cgroup hierarchy", False, text, remedy)


def _held_by(controller: str, host: Host) -> str:
    if controller == "freezer" and host.cgroup_unified:
        return f"cgroup.freeze (cgroup v2 at {host.cgroup_unified})"
    number = devices.holder(host) if controller == "devices" else limits.version(controller, host)
    if number == 2:
        return f"{'device programs, ' * (controller == 'devices')}cgroup v2 at {host.cgroup_unified}"
    return f"cgroup v1 at {limits.mount(controller, host)}" if number else ""
