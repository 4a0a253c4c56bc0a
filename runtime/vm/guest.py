"""The plan of a guest: what `init` does as process 1 of a machine, once its line to the supervisor is open.

The same vocabulary as a container's plan, in the order that a machine needs; the kernel is the guest's own, so there
are no namespaces, no ids to map, no seccomp filter and no masked paths.
"""

from .. import capabilities
from ..namespaces.mount import normal
from ..steps import ALL_STREAMS, MAKE_DIR, MAKE_FILE, ON_KERNEL_FS, LaunchPlan
from .machine import Machine, Share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOSUID, _NODEV, _NOEXEC, _READONLY = 2, 4, 8, 1
_SAFE = _NOSUID | _NODEV | _NOEXEC
_LINKS = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
          "/dev/stderr": "/proc/self/fd/2"}  # fmt: skip
_RLIMITS = ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
            "MSGQUEUE", "NICE", "RTPRIO", "RTTIME")  # fmt: skip
ADDRESS, MASK, GATEWAY = "10.0.2.15", "255.255.255.0", "10.0.2.2"
"""Of the guest behind QEMU's and slirp's user networking; the host is the gateway."""


class Guest:
    """Collects the plan while the spec is converted; finish() orders it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.plan = LaunchPlan()
        self._root = -1
        self._late: list[tuple[str, tuple[Any, ...]]] = []

    # ---- the root

    def shared_root(self, share: Share) -> None:
        kind, options = self.machine.mount_options(share)
        self.plan.add("mount", kind, "/lower", options, 0, 0)
        self._make_root(overlaid=share.readonly)

    def disk_root(self) -> None:
        """The first IDE disk; writes go to what the hypervisor throws away (snapshot=on), or rather to the overlay."""
        self.plan.add("wait_path", "/dev/sda")
        self.plan.add("mount", "ext4", "/lower", ["source=/dev/sda"], _READONLY, 0)
        self._make_root(overlaid=True)

    def _make_root(self, *, overlaid: bool) -> None:
        lower = self.plan.slot()
        self.plan.add("open_tree", lower, "/lower", 0)
        self._root = lower
        if overlaid:
            self._root = self.plan.slot()
            self.plan.add("scratch", ["mode=755"])
            self.plan.add("overlay", self._root, -1, [str(lower)], [])

    # ---- mounts of the user

    def tmpfs(self, where: str, data: list[str], attr: int) -> None:
        self._late.append(("mount", ("tmpfs", where, data, attr, MAKE_DIR)))

    def volume(self, share: Share, where: str) -> None:
        kind, options = self.machine.mount_options(share)
        self._late.append(("mount", (kind, where, options, _READONLY if share.readonly else 0, MAKE_DIR)))

    def files(self, share: Share) -> None:
        """A share whose files are bound where they belong; it is mounted while the first root is still there."""
        kind, options = self.machine.mount_options(share)
        self.plan.add("mount", kind, "/share", options, 0, 0)

    def file(self, name: str, where: str, readonly: bool) -> None:
        slot = self.plan.slot()
        self.plan.add("open_tree", slot, f"/share/{name}", 0)
        if readonly:
            self.plan.add("mount_setattr", slot, 0, _READONLY, 0, 0, -1)
        self._late.append(("bind", (slot, where, MAKE_FILE)))

    def content(self, where: str, content: bytes) -> None:
        """A small file of the guest's own; it needs no share."""
        self._late.append(("file", (where, content)))

    # ---- the whole

    def finish(self, config: "Json", *, network: bool, shares: "list[Share]") -> LaunchPlan:
        plan, process = self.plan, config["process"]
        plan.add("root", self._root, "")
        self._kernel_mounts(config)
        for op, args in self._late:
            plan.add(op, *args)
        plan.add("chroot")
        if config.get("hostname"):
            plan.add("hostname", config["hostname"])
        plan.add("loopback")
        if network:
            plan.add("interface", self.machine.interface, ADDRESS, MASK, GATEWAY)
        for key, value in (config["linux"].get("sysctl") or {}).items():
            plan.add("sysctl", key.replace(".", "/"), value)
        if config["root"].get("readonly"):
            plan.add("mount_setattr", self._root, 0, _READONLY, 0, 0, -1)
        self._process(process)
        return plan

    def _kernel_mounts(self, config: "Json") -> None:
        plan = self.plan
        shm = next((e for e in config["mounts"] if e["destination"] == "/dev/shm" and e.get("type") == "tmpfs"), None)
        sizes = [word for word in (shm or {}).get("options") or [] if word.startswith("size=")]
        for kind, target, options, attr in (
            ("proc", "/proc", [], _SAFE),
            ("sysfs", "/sys", [], _SAFE),
            ("devtmpfs", "/dev", [], _NOSUID),
            ("devpts", "/dev/pts", ["ptmxmode=0666", "mode=0620", "gid=5"], _NOSUID | _NOEXEC),
            ("tmpfs", "/dev/shm", ["mode=1777", *sizes], _SAFE),
            ("mqueue", "/dev/mqueue", [], _SAFE),
            ("cgroup2", "/sys/fs/cgroup", [], _SAFE),
        ):
            resolve = ON_KERNEL_FS if target == "/sys/fs/cgroup" else MAKE_DIR
            plan.add("mount", kind, target, options, attr, resolve)
        for path, target in _LINKS.items():
            plan.add("symlink", target, path)

    def _process(self, process: "Json") -> None:
        """The order of create_plan(): what gives up power comes last."""
        plan, account = self.plan, process.get("user") or {}
        uid, gid = int(account.get("uid") or 0), int(account.get("gid") or 0)
        plan.add("guest", int(bool(process.get("terminal"))), 0, 0)
        for limit in process.get("rlimits") or []:
            number = _RLIMITS.index(limit["type"].removeprefix("RLIMIT_"))
            plan.add("rlimit", number, _signed(limit["soft"]), _signed(limit["hard"]))
        if uid:
            plan.add("own_stdio", uid, gid, ALL_STREAMS)
        plan.add("chdir", process["cwd"], MAKE_DIR)
        sets = process.get("capabilities")
        masks = {name: capabilities.mask((sets or {}).get(name) or [])[0] for name in capabilities.SETS}
        if sets is not None:
            plan.add("bounding", masks["bounding"])
        plan.add("user", uid, gid, 1, [str(group) for group in account.get("additionalGids") or []])
        if account.get("umask") is not None:
            plan.add("umask", account["umask"])
        if sets is not None:
            plan.add("capabilities", masks["effective"], masks["permitted"], masks["inheritable"], masks["ambient"])
        if process.get("noNewPrivileges"):
            plan.add("no_new_privs")
        env = process.get("env") or []
        path = next((entry[5:] for entry in reversed(env) if entry.startswith("PATH=")), DEFAULT_PATH)
        plan.add("find", process["args"][0], path)
        plan.add("exec", process["args"], env, 0)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


__all__ = ["ADDRESS", "GATEWAY", "Guest", "normal"]
