"""The plan of a guest: what `init` does as process 1 of a machine, once its line to the supervisor is open.

The same vocabulary as a container's plan, in the order that a machine needs.  The kernel is the guest's own, so there
are no namespaces and no ids to map; what a container's programs may not do or see holds here all the same: devices,
masked and read-only paths, the seccomp filter, the limits of a cgroup.
"""

import os

from .. import capabilities
from ..namespaces.mount import normal
from ..steps import ALL_STREAMS, MAKE_DIR, MAKE_FILE, MUST_EXIST, ON_KERNEL_FS, LaunchPlan
from .machine import Machine, Share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..seccomp import Program

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


_DIRECTORY = 0o200000
_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_CGROUP = "/sys/fs/cgroup"
_PROGRAMS = f"{_CGROUP}/programs"
"""Where all programs of the guest are, but its process 1."""


class Guest:
    """Collects the plan while the spec is converted; finish() orders it."""

    def __init__(self, machine: Machine, filter: "Program | None" = None) -> None:
        self.machine = machine
        self.filter = filter
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

    def finish(self, config: "Json", *, network: bool, idle: bool = False, privileged: bool = False) -> LaunchPlan:
        """`privileged` programs may do all to their own kernel; an `idle` machine runs none until it is told to."""
        plan, process = self.plan, config["process"]
        plan.add("root", self._root, "")
        self._kernel_mounts(config, privileged=privileged)
        limited = self._limit(config["linux"].get("resources") or {})
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
        cgroup = -1
        if limited:
            cgroup = plan.slot()
            plan.add("open_path", cgroup, _PROGRAMS, _DIRECTORY)
        if not privileged:
            self._protect(config)
        if config["root"].get("readonly"):
            plan.add("mount_setattr", self._root, 0, _READONLY, 0, 0, -1)
        plan.add("guest", int(bool(process.get("terminal"))), 0, 0, cgroup)
        if idle:
            plan.add("linger")
        else:
            _become(plan, process, MAKE_DIR, self.filter)
            _execute(plan, process, self.filter)
        return plan

    def _kernel_mounts(self, config: "Json", *, privileged: bool) -> None:
        plan = self.plan
        shm = next((e for e in config["mounts"] if e["destination"] == "/dev/shm" and e.get("type") == "tmpfs"), None)
        sizes = [word for word in (shm or {}).get("options") or [] if word.startswith("size=")]
        for kind, target, options, attr in (
            ("proc", "/proc", [], _SAFE),
            ("sysfs", "/sys", [], _SAFE),
            ("devtmpfs" if privileged else "tmpfs", "/dev", [] if privileged else ["mode=755"], _NOSUID),
            ("devpts", "/dev/pts", ["ptmxmode=0666", "mode=0620", "gid=5"], _NOSUID | _NOEXEC),
            ("tmpfs", "/dev/shm", ["mode=1777", *sizes], _SAFE),
            ("mqueue", "/dev/mqueue", [], _SAFE),
            ("cgroup2", "/sys/fs/cgroup", [], _SAFE),
        ):
            resolve = ON_KERNEL_FS if target == "/sys/fs/cgroup" else MAKE_DIR
            plan.add("mount", kind, target, options, attr, resolve)
        for path, target in _LINKS.items():
            plan.add("symlink", target, path)
        if not privileged:
            plan.add("symlink", "pts/ptmx", "/dev/ptmx")
            for name, number in _NODES.items():
                plan.add("mknod", f"/dev/{name}", 0o20666, os.makedev(*number), 0, 0)

    def _limit(self, resources: "Json") -> bool:
        """Limits that only the guest's kernel can hold; whether there are any."""
        pids = (resources.get("pids") or {}).get("limit") or 0
        cpu = resources.get("cpu") or {}
        quota = (cpu.get("quota") or 0) if self.machine.accel != "tcg" else 0  # Whose clock is wrong.
        wanted = {}
        if pids > 0:
            wanted["pids.max"] = str(pids)
        if quota > 0:
            wanted["cpu.max"] = f"{quota} {cpu.get('period') or 100000}"
        if wanted:
            self.plan.add("mkdir", _PROGRAMS, 0o755)
            controllers = " ".join(f"+{name.partition('.')[0]}" for name in wanted)
            self.plan.add("file", f"{_CGROUP}/cgroup.subtree_control", controllers.encode())
            for name, value in wanted.items():
                self.plan.add("file", f"{_PROGRAMS}/{name}", value.encode())
        return bool(wanted)

    def _protect(self, config: "Json") -> None:
        """As rootfs.finish() and the container's mounts have it."""
        for entry in config["mounts"]:
            if entry["destination"] in ("/sys", _CGROUP) and {"ro", "rro"} & set(entry.get("options") or []):
                self.plan.add("readonly", entry["destination"])
        for path in config["linux"].get("readonlyPaths") or []:
            self.plan.add("readonly", path)
        for path in config["linux"].get("maskedPaths") or []:
            self.plan.add("mask", path)


def program_plan(process: "Json", filter: "Program | None", content: bytes = b"") -> LaunchPlan:
    """Of a further program, whose streams are there: `content` is a static program that is in no file of the guest."""
    plan = LaunchPlan()
    _become(plan, process, MUST_EXIST, filter)
    _execute(plan, process, filter, content)
    return plan


def file_plan(path: str, mode: int = -1) -> LaunchPlan:
    """Of a program that writes what is in a file; with a `mode` of one that makes a file of what it reads."""
    plan = LaunchPlan()
    if mode < 0:
        plan.add("send_file", path)
    else:
        plan.add("receive_file", path, mode)
    return plan


def _become(plan: LaunchPlan, process: "Json", cwd: int, filter: "Program | None") -> None:
    """The order of create_plan(): what gives up power comes last."""
    account = process.get("user") or {}
    uid, gid = int(account.get("uid") or 0), int(account.get("gid") or 0)
    for limit in process.get("rlimits") or []:
        number = _RLIMITS.index(limit["type"].removeprefix("RLIMIT_"))
        plan.add("rlimit", number, _signed(limit["soft"]), _signed(limit["hard"]))
    if uid:
        plan.add("own_stdio", uid, gid, ALL_STREAMS)
    plan.add("chdir", process["cwd"], cwd)
    sets = process.get("capabilities")
    masks = {name: capabilities.mask((sets or {}).get(name) or [])[0] for name in capabilities.SETS}
    if sets is not None:
        plan.add("bounding", masks["bounding"])
    if filter and not process.get("noNewPrivileges"):
        plan.add("seccomp", filter.program, filter.flags, 0)
    plan.add("user", uid, gid, 1, [str(group) for group in account.get("additionalGids") or []])
    if account.get("umask") is not None:
        plan.add("umask", account["umask"])
    if sets is not None:
        plan.add("capabilities", masks["effective"], masks["permitted"], masks["inheritable"], masks["ambient"])
    if process.get("noNewPrivileges"):
        plan.add("no_new_privs")


def _execute(plan: LaunchPlan, process: "Json", filter: "Program | None", content: bytes = b"") -> None:
    env = process.get("env") or []
    path = next((entry[5:] for entry in reversed(env) if entry.startswith("PATH=")), DEFAULT_PATH)
    if content:
        plan.add("program", content)
    else:
        plan.add("find", process["args"][0], path)
    if filter and process.get("noNewPrivileges"):
        plan.add("seccomp", filter.program, filter.flags, 1)
    plan.add("exec", process["args"], env, 0)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


__all__ = ["ADDRESS", "GATEWAY", "Guest", "file_plan", "normal", "program_plan"]
