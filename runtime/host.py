"""What this machine and this caller can do: Host.probe(), with a reason for each "no".

Facts are read when first asked for and kept, since most launches need few of them.
"""

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class Mount:
    """One line of /proc/self/mountinfo (proc(5))."""

    __slots__ = ("options", "point", "root", "type")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.root = unescape(fields[3])
        self.point = unescape(fields[4])
        self.type, _source, self.options = right.split(" ", 2)


class Host:
    """Facts about the machine; `read` is replaced by tests to describe another one."""

    __slots__ = ("_facts", "read")

    _instance: "Host | None" = None

    def __init__(self, read: "Callable[[str], str] | None" = None) -> None:
        self.read = read or _read
        self._facts: dict[str, object] = {}

    @classmethod
    def probe(cls) -> "Host":
        """This machine, as this process (and user) sees it."""
        if cls._instance is None or cls._instance.euid != posix.geteuid():
            cls._instance = Host()
        return cls._instance

    def _fact(self, name: str, find: "Callable[[], object]") -> object:
        if name not in self._facts:
            self._facts[name] = find()
        return self._facts[name]

    # ---- the caller

    @property
    def euid(self) -> int:
        return self._fact("euid", posix.geteuid)  # type: ignore[return-value]

    @property
    def egid(self) -> int:
        return self._fact("egid", posix.getegid)  # type: ignore[return-value]

    @property
    def capabilities(self) -> int:
        """The effective set as a mask."""

        def find() -> int:
            for line in self.read("/proc/self/status").splitlines():
                if line.startswith("CapEff:"):
                    return int(line[7:], 16)
            return 0

        return self._fact("capabilities", find)  # type: ignore[return-value]

    @property
    def privileged(self) -> bool:
        """Whether mounts and namespaces can be made without a user namespace."""
        return bool(self.capabilities >> CAP_SYS_ADMIN & 1)

    @property
    def has_resource(self) -> bool:
        """Whether hard resource limits can be raised (CAP_SYS_RESOURCE)."""
        return bool(self.capabilities >> CAP_SYS_RESOURCE & 1)

    @property
    def initial_userns(self) -> bool:
        """Whether we are in the initial user namespace, the only one in which mknod(2) makes devices."""
        return self._fact("userns", lambda: self.read("/proc/self/uid_map").split() == ["0", "0", "4294967295"])  # type: ignore[return-value]

    # ---- subordinate ids

    @property
    def newuidmap(self) -> str:
        return self._fact("newuidmap", lambda: _program("newuidmap"))  # type: ignore[return-value]

    @property
    def newgidmap(self) -> str:
        return self._fact("newgidmap", lambda: _program("newgidmap"))  # type: ignore[return-value]

    def subordinate(self, kind: str) -> "tuple[int, int]":
        """First id and count of the caller's range in /etc/subuid or /etc/subgid (`kind`: uid, gid); else (0, 0)."""

        def find() -> "tuple[int, int]":
            owners = {str(self.euid), self._user_name()}
            for line in self.read(f"/etc/sub{kind}").splitlines():
                owner, _, numbers = line.strip().partition(":")
                first, _, count = numbers.partition(":")
                if owner in owners and first.isdecimal() and count.isdecimal():
                    return int(first), int(count)
            return 0, 0

        return self._fact("sub" + kind, find)  # type: ignore[return-value]

    def _user_name(self) -> str:
        """Our name in /etc/passwd; no NSS, which would load code."""
        for line in self.read("/etc/passwd").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(self.euid):
                return fields[0]
        return ""

    # ---- mounts and cgroups

    @property
    def mounts(self) -> "list[Mount]":
        return self._fact("mounts", lambda: [Mount(line) for line in self.read("/proc/self/mountinfo").splitlines()])  # type: ignore[return-value]

    @property
    def cgroup_unified(self) -> str:
        """Where the cgroup2 hierarchy is mounted; "" when it is not."""
        return next((m.point for m in self.mounts if m.type == "cgroup2"), "")

    @property
    def resctrl(self) -> str:
        """Where the file system of Intel RDT is mounted; "" when it is not."""
        return next((m.point for m in self.mounts if m.type == "resctrl"), "")

    @property
    def cgroup_legacy(self) -> "dict[str, str]":
        """Where each v1 hierarchy is mounted, by its controllers ("cpu,cpuacct") or name ("name=systemd")."""

        def find() -> "dict[str, str]":
            known = [line.split(":", 2)[1] for line in self.read("/proc/self/cgroup").splitlines()]
            found: dict[str, str] = {}
            for mount in self.mounts:
                if mount.type != "cgroup":
                    continue
                words = set(mount.options.split(","))
                for name in known:
                    if name and set(name.split(",")) <= words:
                        found.setdefault(name, mount.point)
            return found

        return self._fact("cgroup_legacy", find)  # type: ignore[return-value]

    @property
    def cgroup_controllers(self) -> "list[str]":
        """The controllers of the cgroup2 hierarchy, where it is mounted: those that no v1 hierarchy has taken."""

        def find() -> "list[str]":
            return self.read(self.cgroup_unified + "/cgroup.controllers").split() if self.cgroup_unified else []

        return self._fact("cgroup_controllers", find)  # type: ignore[return-value]

    @property
    def kernel(self) -> "tuple[int, int]":
        """Major and minor of the running kernel."""

        def find() -> "tuple[int, int]":
            major, minor = posix.uname().release.split(".")[:2]
            return int(major), int("".join([c for c in minor if c.isdecimal()]) or "0")

        return self._fact("kernel", find)  # type: ignore[return-value]

    @property
    def has_mqueue(self) -> bool:
        return self._fact("mqueue", lambda: "mqueue" in self.read("/proc/filesystems"))  # type: ignore[return-value]

    # ---- security modules

    @property
    def apparmor(self) -> bool:
        return self._fact("apparmor", lambda: self.read("/sys/module/apparmor/parameters/enabled").strip() == "Y")  # type: ignore[return-value]

    @property
    def selinux(self) -> bool:
        return self._fact("selinux", lambda: any(mount.type == "selinuxfs" for mount in self.mounts))  # type: ignore[return-value]

    # ---- reasons

    @property
    def reasons(self) -> "dict[str, str]":
        """Why each thing that this machine or caller cannot do is impossible, by name; only what is missing."""
        found = {
            "privileged": "" if self.privileged else "this process lacks CAP_SYS_ADMIN",
            "raise_limits": "" if self.has_resource else "this process lacks CAP_SYS_RESOURCE",
            "device_nodes": "" if self.initial_userns else "this process runs in a user namespace",
            "user_namespaces": self.no_user_namespaces,
            "subordinate_uids": "" if self.subordinate("uid")[1] else "/etc/subuid has no range for this user",
            "subordinate_gids": "" if self.subordinate("gid")[1] else "/etc/subgid has no range for this user",
            "newuidmap": "" if self.newuidmap else "newuidmap is not installed",
            "newgidmap": "" if self.newgidmap else "newgidmap is not installed",
            "cgroup_v2": "" if self.cgroup_unified else "no cgroup2 file system is mounted",
        }
        return {name: reason for name, reason in found.items() if reason}

    # ---- user namespaces

    @property
    def no_user_namespaces(self) -> str:
        """Why an ordinary user cannot make a user namespace here; "" if nothing speaks against it."""
        for path, bad in (
            ("/proc/sys/user/max_user_namespaces", "0"),
            ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
        ):
            if self.read(path).strip() == bad:
                return f"{path} is {bad}"
        return ""


def unescape(text: str) -> str:
    """Undo the octal escapes of mountinfo and fstab(5)."""
    if "\\" in text:
        for escape, character in _ESCAPES.items():
            text = text.replace(escape, character)
    return text


def writable_by_others(path: str) -> bool:
    """Whether another user could put a module into a directory that we import from (RULES 17)."""
    info = posix.stat(path)
    return bool(info.st_mode & 0o022) or info.st_uid not in (0, posix.geteuid())


def warning_for_root(directory: str) -> str:
    """RULES 17: whoever can write our modules becomes root with the next command.

    Root of a user namespace is nobody on the host, and cannot tell who owns what there.
    """
    if posix.geteuid() or not writable_by_others(directory) or not Host.probe().initial_userns:
        return ""
    return f"{directory} can be written by other users"


def _program(name: str) -> str:
    for directory in ("/usr/bin", "/usr/local/bin", "/bin"):
        if posix.access(f"{directory}/{name}", posix.X_OK):
            return f"{directory}/{name}"
    return ""


def _read(path: str) -> str:
    """A whole file of /proc or /etc; "" when it cannot be read."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    finally:
        posix.close(fd)
