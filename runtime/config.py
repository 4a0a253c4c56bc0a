"""ContainerConfig: what a user asked for, in docker's words; and make_spec(), which turns it into a Spec.

Everything that a person may get wrong is found here, before anything is made: UsageError for words that are off,
UnsupportedError for what this host or version cannot do.
"""

import posix
from errno import ENOENT, ENOTDIR

from . import capabilities
from .errors import UnsupportedError, UsageError
from .host import Host, Mount
from .plan import DEFAULT_PATH
from .spec import MASKED_PATHS, READONLY_PATHS, Layers, Spec, dump_json, validate
from .state import StateDir, make_root, start_time
from .syscalls import O_PATH, openat2_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    Json = dict[str, Any]

HOST = "host"
RANGE = 65536
_FIRST_RANGE, _END_OF_RANGES = 0x70000000, 0x7FFE0000
"""Ids that systemd's overview leaves unused (Users, Groups, UIDs and GIDs on systemd Systems): 4,094 ranges."""
_MAX_DATABASE = 1 << 20
_SAFE = ["nosuid", "noexec", "nodev"]
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_RLIMITS = ("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
            "rttime", "sigpending", "stack", "as")  # fmt: skip
_RESOURCE_NUMBERS = {"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7,
                     "memlock": 8, "as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14,
                     "rttime": 15}  # fmt: skip
_OWN_IN_CONTAINER = ("/proc", "/sys", "/dev", "/run", "/tmp")
_NO_IDMAP = ("nfs", "nfs4", "9p", "cifs", "fuse", "fuseblk", "autofs", "vboxsf", "virtiofs", "overlay")
_PSEUDO = ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue", "autofs", "debugfs", "tracefs",
           "securityfs", "pstore", "bpf", "configfs", "hugetlbfs", "binfmt_misc", "fusectl", "efivarfs")  # fmt: skip


class ContainerConfig:
    """One container as a user describes it; the names are docker's options, the defaults DESIGN's.

    source      "host", or with `rootfs` anything
    rootfs      a directory to use as the root, "" for the host's own
    argv        the command and its arguments
    env         NAME=VALUE entries, later ones win
    user        NAME|UID[:NAME|GID] as the root file system's /etc/passwd and /etc/group know them
    volumes     SRC:DST[:OPTIONS]; mounts: type=bind|tmpfs,src=,dst=,...; tmpfs: DST[:OPTIONS]
    userns      "" (the default for the caller), host, private
    pid, ipc, uts, network  "" or private, host, ns:PATH
    timeout     seconds, None for ever
    """

    __slots__ = (
        "argv", "cap_add", "cap_drop", "devices", "entrypoint", "env", "hide", "hostname", "id", "init", "interactive",
        "ipc", "keep_changes", "mounts", "name", "network", "pid", "privileged", "read_only", "rootfs", "security_opt",
        "shm_size", "sysctl", "timeout", "tmpfs", "tty", "ulimits", "user", "userns", "uts", "volumes", "workdir",
        "write",
    )  # fmt: skip

    def __init__(
        self,
        argv: "Sequence[str]",
        *,
        id: str,
        rootfs: str = "",
        write: bool = False,
        keep_changes: str = "",
        hide: "Sequence[str]" = (),
        name: str = "",
        env: "Sequence[str]" = (),
        workdir: str = "",
        user: "str | None" = None,
        hostname: str = "",
        read_only: bool = False,
        volumes: "Sequence[str]" = (),
        mounts: "Sequence[str]" = (),
        tmpfs: "Sequence[str]" = (),
        cap_add: "Sequence[str]" = (),
        cap_drop: "Sequence[str]" = (),
        security_opt: "Sequence[str]" = (),
        ulimits: "Sequence[str]" = (),
        sysctl: "Sequence[str]" = (),
        devices: "Sequence[str]" = (),
        shm_size: str = "64m",
        pid: str = "",
        ipc: str = "",
        uts: str = "",
        network: str = "none",
        userns: str = "",
        init: bool = False,
        privileged: bool = False,
        entrypoint: "str | None" = None,
        interactive: bool = False,
        tty: bool = False,
        timeout: "float | None" = None,
    ) -> None:
        for key, value in locals().items():
            if key in self.__slots__:
                setattr(self, key, value)

    if TYPE_CHECKING:
        argv: Sequence[str]
        id: str
        rootfs: str
        write: bool
        keep_changes: str
        hide: Sequence[str]
        name: str
        env: Sequence[str]
        workdir: str
        user: str | None
        hostname: str
        read_only: bool
        volumes: Sequence[str]
        mounts: Sequence[str]
        tmpfs: Sequence[str]
        cap_add: Sequence[str]
        cap_drop: Sequence[str]
        security_opt: Sequence[str]
        ulimits: Sequence[str]
        sysctl: Sequence[str]
        devices: Sequence[str]
        shm_size: str
        pid: str
        ipc: str
        uts: str
        network: str
        userns: str
        init: bool
        privileged: bool
        entrypoint: str | None
        interactive: bool
        tty: bool
        timeout: float | None


def make_spec(config: ContainerConfig, host: Host, first_id: int, enforced: "dict[str, str]") -> Spec:
    """The Spec of a container.  `first_id` begins its range of the host's ids when root gives it one (lease_ids).

    Notes what is weaker than the default, with the reason, in `enforced`.
    """
    builder = _Builder(config, host, first_id, enforced)
    spec = builder.build()
    validate(spec.config)
    return spec


def wants_userns(config: ContainerConfig, host: Host) -> bool:
    """Whether the container gets a user namespace of its own."""
    if config.userns not in ("", "host", "private", "auto"):
        raise UsageError(f"--userns {config.userns!r} is unknown", hint="host or private")
    if not host.privileged:
        if config.userns == "host":
            raise UnsupportedError("--userns host: an ordinary user cannot do without a user namespace")
        if reason := host.no_user_namespaces:
            raise UnsupportedError(f"user namespaces are not allowed here: {reason}", hint="ask the administrator")
        return True
    return config.userns in ("private", "auto") or (config.userns == "" and not config.privileged and not config.write)


class _Builder:
    """Collects a spec; one method per part of it."""

    def __init__(self, config: ContainerConfig, host: Host, first_id: int, enforced: "dict[str, str]") -> None:
        self.config = config
        self.host = host
        self.first_id = first_id
        self.enforced = enforced
        self.userns = wants_userns(config, host)
        # Where ids are mapped by root, the file systems below are idmapped instead of chowned.
        self.idmap = ["idmap"] if self.userns and host.privileged else []
        self.root = _root_of(config)
        self.namespaces = self._namespaces()
        self.security = _security(config)
        self.accounts = Accounts(self.root)

    def build(self) -> Spec:
        config = self.config
        uid, gid, groups, home = self._user()
        spec: Json = {
            "ociVersion": "1.2.0",
            "process": {
                "terminal": config.tty,
                "user": {"uid": uid, "gid": gid, "additionalGids": groups},
                "args": self._args(),
                "env": self._env(home),
                "cwd": self._cwd(),
                "capabilities": self._capabilities(),
                "rlimits": _rlimits(config.ulimits, self.host),
                "noNewPrivileges": self.security.no_new_privileges,
            },
            "root": {"path": self.root, "readonly": config.read_only},
            "mounts": [*self._kernel_mounts(), *self._source_mounts(), *self._user_mounts()],
            "linux": self._linux(uid, gid),
            "annotations": {"org.warren.name": config.name or config.id[:12]},
        }
        if "uts" in self.namespaces:
            spec["hostname"] = self._hostname()
        elif config.hostname:
            raise UsageError("--hostname cannot be set in somebody else's UTS namespace")
        return Spec(spec, "/", self._layers())

    # ---- process

    def _args(self) -> "list[str]":
        args = list(self.config.argv)
        if self.config.entrypoint:
            args.insert(0, self.config.entrypoint)
        if not args:
            raise UsageError("no command is given", hint="warren run SOURCE COMMAND...")
        return args

    def _env(self, home: str) -> "list[str]":
        values = {"PATH": DEFAULT_PATH, "HOSTNAME": self._hostname(), "HOME": home}
        if self.config.tty:
            values["TERM"] = posix.environ.get(b"TERM", b"xterm").decode("utf-8", "replace")
        for entry in self.config.env:
            name, _, value = entry.partition("=")
            values[name] = value
        return [f"{name}={value}" for name, value in values.items()]

    def _hostname(self) -> str:
        if self.config.uts == "host":
            return posix.uname().nodename
        return self.config.hostname or self.config.id[:12]

    def _cwd(self) -> str:
        """--workdir; for the host's own root the caller's directory, if it exists in the container."""
        if self.config.workdir:
            if not self.config.workdir.startswith("/"):
                raise UsageError(f"--workdir {self.config.workdir!r} is not an absolute path")
            return self.config.workdir
        if self.config.rootfs:
            return "/"
        try:
            here = posix.getcwd()
        except FileNotFoundError:
            return "/"
        hidden = (*_OWN_IN_CONTAINER, *self.config.hide)
        return "/" if not here.startswith("/") or any(_is_below(here, path) for path in hidden) else here

    def _user(self) -> "tuple[int, int, list[int], str]":
        """Uid, gid, supplementary gids and home directory."""
        user = self.accounts.find(self.config.user if self.config.user is not None else "0")
        groups = user.groups if self.config.user is not None and ":" not in self.config.user else []
        if not self.host.privileged and not self.host.subordinate("gid")[1]:
            # A single-id map denies setgroups(2) (user_namespaces(7)).
            if groups:
                self.enforced["supplementary_groups"] = "none: no subordinate ids in /etc/subgid"
            groups = []
        return user.uid, user.gid, groups, user.home

    def _capabilities(self) -> "Json":
        config = self.config
        base = capabilities.DEFAULT
        add = list(config.cap_add)
        if config.privileged:
            add.append("ALL")
        kept = capabilities.adjust(base, add, config.cap_drop)
        if any(word.upper() == "ALL" for word in add) and not self.userns:
            # All that there are here: nobody can give more than he has.
            kept = [name for name in kept if name in capabilities.names(self.host.capabilities)]
        root = self.accounts.find(config.user if config.user is not None else "0").uid == 0
        own = kept if root else []
        return {"bounding": kept, "permitted": own, "effective": own, "inheritable": [], "ambient": []}

    # ---- namespaces, ids, paths

    def _namespaces(self) -> "dict[str, str]":
        config, found = self.config, {"mount": "", "cgroup": ""}
        for kind, word in (("pid", config.pid), ("ipc", config.ipc), ("uts", config.uts), ("network", config.network)):
            if word in ("", "private") or (kind == "network" and word == "none"):
                found[kind] = ""
            elif word.startswith("ns:/"):
                found[kind] = word[3:]
            elif word.startswith("container:"):
                raise UnsupportedError(f"--{kind} {word}: containers cannot be joined yet", hint="use ns:PATH")
            elif kind == "network" and word != "host":
                raise UnsupportedError(f"--network {word}: there are no networks yet", hint="none or host")
            elif word != "host":
                raise UsageError(f"--{kind} {word!r} is unknown", hint="host, private or ns:PATH")
        if self.userns:
            found["user"] = ""
        return found

    def _linux(self, uid: int, gid: int) -> "Json":
        config = self.config
        linux: Json = {
            "namespaces": [
                {"type": kind, **({"path": path} if path else {})} for kind, path in self.namespaces.items()
            ],
            "maskedPaths": [*([] if self._unmasked else self.security.masked), *map(_absolute, config.hide)],
            "readonlyPaths": [] if self._unmasked else self.security.readonly,
            "devices": [] if self.userns else [_device(text)[1] for text in config.devices],
        }
        if self.userns:
            linux["uidMappings"] = self._mappings("uid", uid)
            linux["gidMappings"] = self._mappings("gid", gid)
        if not config.privileged and self.host.privileged:
            linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}, *self._device_rules()]}
        if config.sysctl:
            linux["sysctl"] = dict(_pair(text, "--sysctl") for text in config.sysctl)
        return linux

    def _device_rules(self) -> "list[Json]":
        if "devices" not in self.host.cgroup_legacy:
            return []  # Not enforced there yet; the record of the container says so.
        devices = [_device(text)[1] for text in self.config.devices]
        return [
            {"allow": True, "access": "rwm", **{key: d[key] for key in ("type", "major", "minor")}} for d in devices
        ]

    @property
    def _unmasked(self) -> bool:
        return self.config.privileged or self.security.unconfined_paths

    def _mappings(self, kind: str, wanted: int) -> "list[dict[str, int]]":
        if self.host.privileged:
            return [{"containerID": 0, "hostID": self.first_id, "size": RANGE}]
        own = self.host.euid if kind == "uid" else self.host.egid
        first, count = self.host.subordinate(kind)
        if count and self.host.newuidmap and self.host.newgidmap:
            return [
                {"containerID": 0, "hostID": own, "size": 1},
                {"containerID": 1, "hostID": first, "size": min(count, RANGE)},
            ]
        self.enforced[f"{kind}_map"] = f"a single id: no subordinate ids in /etc/sub{kind}, or no newuidmap"
        return [{"containerID": wanted, "hostID": own, "size": 1}]

    # ---- root and mounts

    def _layers(self) -> "Layers | None":
        config = self.config
        if config.rootfs and config.write:
            if self.host.privileged and config.userns == "":
                self.enforced["user_namespace"] = "off: --write gives the container the directory with its own ids"
            return None
        keep = posix_path(config.keep_changes) if config.keep_changes else ""
        if keep and not self.host.privileged:
            raise UnsupportedError("--keep-changes needs root", hint="mount a directory with -v instead")
        if keep:
            _need_directory(keep, "--keep-changes")
        if not config.rootfs and not self.host.privileged:
            return Layers([])
        return Layers([self.root], keep, bool(self.idmap))

    def _kernel_mounts(self) -> "list[Json]":
        # Group 5 owns terminals, where it is mapped (devpts.rst, gid).
        tty_group = ["gid=5"] if self.host.privileged or self.host.subordinate("gid")[1] > 5 else []
        pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty_group]
        size = _size(self.config.shm_size, "--shm-size")
        readonly = [] if self.config.privileged else ["ro"]
        mounts = [
            _mount("/proc", "proc", "proc", _SAFE),
            _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            _mount("/dev/pts", "devpts", "devpts", pts),
            self._shm(size),
            _mount("/dev/mqueue", "mqueue", "mqueue", _SAFE),
            self._sys(readonly),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*_SAFE, "relatime", *readonly]),
        ]
        if self.namespaces.get("pid") is None:
            # A procfs shows the namespace it was mounted from; the host's is bound, as a user namespace demands.
            mounts[0] = _mount("/proc", "bind", "/proc", ["rbind", *_SAFE])
        if self.namespaces.get("ipc") is None:
            mounts[4] = _mount("/dev/mqueue", "bind", "/dev/mqueue", ["rbind", *_SAFE])
        if not self.config.rootfs:
            mounts.append(_mount("/run", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=755"]))
            mounts.append(_mount("/tmp", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=1777"]))
        return mounts if _has_mqueue(self.host) else [m for m in mounts if m["destination"] != "/dev/mqueue"]

    def _shm(self, size: int) -> "Json":
        if self.namespaces.get("ipc") is None:
            return _mount("/dev/shm", "bind", "/dev/shm", ["rbind", *_SAFE])
        return _mount("/dev/shm", "tmpfs", "shm", [*_SAFE, "mode=1777", f"size={size}"])

    def _sys(self, readonly: "list[str]") -> "Json":
        """A new sysfs belongs to the owner of the network namespace; with another's the host's is bound."""
        if self.namespaces.get("network") == "" or not self.userns:
            return _mount("/sys", "sysfs", "sysfs", [*_SAFE, *readonly])
        return _mount("/sys", "bind", "/sys", ["rbind", *_SAFE, *["r" + word for word in readonly]])

    def _source_mounts(self) -> "list[Json]":
        """What the root is completed by: for the host's own, everything that is mounted below it."""
        if self.config.rootfs:
            return []
        mounts = [mount for mount in self.host.mounts if _is_shown(mount)]
        if not self.host.privileged:
            return _unprivileged_root(mounts)
        return [
            self._further(mount) for mount in sorted(mounts, key=lambda m: m.point.count("/")) if mount.point != "/"
        ]

    def _further(self, mount: Mount) -> "Json":
        """A further mount of the host: overlaid like the root, or read-only where that cannot be."""
        point = mount.point
        if mount.type in _NO_IDMAP or not _is_directory(point):
            return _mount(point, "bind", point, ["bind", "ro"])
        return _mount(point, "bind", point, ["bind", "O", *self.idmap])

    def _user_mounts(self) -> "list[Json]":
        config = self.config
        mounts = [_volume(text, self.idmap) for text in config.volumes]
        mounts += [_mount_option(text, self.idmap) for text in config.mounts]
        mounts += [_tmpfs(text) for text in config.tmpfs]
        if self.userns:
            # mknod(2) makes no devices in a user namespace: the host's node is bound.
            devices = [_device(text) for text in config.devices]
            mounts += [_mount(device["path"], "bind", source, ["bind"]) for source, device in devices]
        return mounts


# ---- the source


def _root_of(config: ContainerConfig) -> str:
    if not config.rootfs:
        if config.write:
            raise UsageError("--write is for --rootfs: the host's own root is never written", hint="see --keep-changes")
        return "/"
    path = posix_path(config.rootfs)
    _need_directory(path, "--rootfs")
    return path


def posix_path(path: str) -> str:
    """Absolute, from the caller's directory."""
    return path if path.startswith("/") else f"{posix.getcwd().rstrip('/')}/{path}"


def _need_directory(path: str, option: str) -> None:
    if not _is_directory(path):
        raise UsageError(f"{option} {path} is not a directory")


def _is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _is_shown(mount: Mount) -> bool:
    """Whether a mount of the host belongs into a container on the host's root: what is on disk, seen from there."""
    if mount.type in _PSEUDO or any(_is_below(mount.point, top) for top in _OWN_IN_CONTAINER):
        return False
    try:
        posix.stat(mount.point)
    except OSError:
        return False
    return True


def _unprivileged_root(mounts: "list[Mount]") -> "list[Json]":
    """The host's root for an ordinary user, entry by entry.

    Mounts that are copied into a user namespace are locked together, and an overlay of a directory that has some
    below it is EINVAL.  So each entry of / without mounts is overlaid, and the others are bound read-only.
    """
    points = [mount.point for mount in mounts if mount.point != "/"]
    found = []
    for name in sorted(posix.listdir("/")):
        path = "/" + name
        if path in _OWN_IN_CONTAINER or path == "/lost+found":
            continue
        kind = posix.lstat(path).st_mode & 0o170000
        if kind == 0o120000:
            found.append(_mount(path, "bind", path, ["bind", "copy-symlink"]))
        elif kind == 0o040000 and not any(_is_below(point, path) for point in points):
            found.append(_mount(path, "bind", path, ["bind", "O"]))
        elif kind in (0o040000, 0o100000):
            found.append(_mount(path, "bind", path, ["rbind", "rro"]))
    return found


def _has_mqueue(host: Host) -> bool:
    return "mqueue" in host.read("/proc/filesystems")


# ---- users


class Account:
    """A user of the container's root file system."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, home: str, groups: "list[int]") -> None:
        self.uid = uid
        self.gid = gid
        self.home = home
        self.groups = groups


class Accounts:
    """/etc/passwd and /etc/group below a root, read without leaving it and without waiting (RULES 11)."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lines: dict[str, list[list[str]]] = {}

    def find(self, text: str) -> Account:
        """NAME|UID[:NAME|GID].  Digits are numbers, never names; UsageError for anything unknown or malformed."""
        user, colon, group = text.partition(":")
        if not user or (colon and not group) or ":" in group:
            raise UsageError(f"--user {text!r} is malformed", hint="NAME|UID[:NAME|GID]")
        entry = self._passwd(user)
        uid = _number(user, "uid") if user.isdecimal() else _field(entry, 2, f"user {user!r}")
        gid = int(entry[3]) if entry and len(entry) > 3 and entry[3].isdecimal() else 0
        if group:
            gid = self._gid(group)
        home = entry[5] if entry and len(entry) > 5 and entry[5].startswith("/") else "/"
        return Account(uid, gid, home, self._groups(entry[0], gid) if entry else [])

    def _passwd(self, user: str) -> "list[str] | None":
        column = 2 if user.isdecimal() else 0
        return next((row for row in self._rows("passwd") if len(row) > 3 and row[column] == user), None)

    def _gid(self, group: str) -> int:
        if group.isdecimal():
            return _number(group, "gid")
        entry = next((row for row in self._rows("group") if len(row) > 2 and row[0] == group), None)
        return _field(entry, 2, f"group {group!r}")

    def _groups(self, user: str, gid: int) -> "list[int]":
        """Supplementary groups of a user, by /etc/group."""
        rows = [row for row in self._rows("group") if len(row) > 3 and user in row[3].split(",")]
        return sorted({int(row[2]) for row in rows if row[2].isdecimal()} - {gid})

    def _rows(self, name: str) -> "list[list[str]]":
        if name not in self._lines:
            text = read_inside(self._root, f"etc/{name}")
            self._lines[name] = [line.split(":") for line in text.splitlines()]
        return self._lines[name]


def read_inside(root: str, path: str) -> str:
    """A small regular file below `root`, no link out of it followed; "" when there is none.

    UsageError for another kind of file or one over 1 MiB: an image must not make us wait on a FIFO.
    """
    top = posix.open(root, O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        fd = openat2_in_root(top, path, posix.O_RDONLY | posix.O_NONBLOCK)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return ""
        raise UsageError(f"{path} in the root file system: {posix.strerror(error.errno or 0)}".lower()) from error
    finally:
        posix.close(top)
    try:
        info = posix.fstat(fd)
        if info.st_mode & 0o170000 != 0o100000 or info.st_size > _MAX_DATABASE:
            raise UsageError(f"{path} in the root file system is not a regular file of at most 1 MiB")
        return posix.read(fd, _MAX_DATABASE).decode("utf-8", "replace")
    finally:
        posix.close(fd)


def _number(text: str, kind: str) -> int:
    if not text.isascii() or len(text) > 10 or int(text) > 0xFFFFFFFE:
        raise UsageError(f"{kind} {text} is out of range", hint="0 to 4294967294")
    return int(text)


def _field(entry: "list[str] | None", column: int, what: str) -> int:
    if entry is None:
        raise UsageError(f"{what} is unknown in the root file system", hint="use a number")
    if not entry[column].isdecimal():
        raise UsageError(f"{what} has no number in the root file system")
    return _number(entry[column], what)


# ---- ranges of ids


def lease_ids(root: str, container_id: str) -> int:
    """Take a range of 65,536 host ids for a container; its first id.

    A lease is a symbolic link ROOT/.ids/N to "ID PID STARTTIME" (of the taker), made in one step; given back with
    the container, or by reclaim_ids() after a crash.  UsageError when all are taken.
    """
    directory = f"{root}/.ids"
    make_root(root)
    make_root(directory)
    count = (_END_OF_RANGES - _FIRST_RANGE) // RANGE
    start = sum(byte << 8 * (index % 4) for index, byte in enumerate(container_id.encode())) % count
    target = f"{container_id} {posix.getpid()} {start_time(posix.getpid())}"
    for offset in range(count):
        number = (start + offset) % count
        try:
            posix.symlink(target, f"{directory}/{number}")
            return _FIRST_RANGE + number * RANGE
        except FileExistsError:
            continue
    raise UsageError(f"all {count} ranges of ids are taken", hint="remove containers, or use --userns host")


def release_ids(root: str, container_id: str) -> None:
    """Give back every lease of a container."""
    for path, holder, _pid, _started in _leases(root):
        if holder == container_id:
            _unlink(path)


def reclaim_ids(root: str) -> None:
    """Give back leases whose container is gone and whose taker has died before making it."""
    for path, holder, pid, started in _leases(root):
        if not StateDir(root, holder).exists() and start_time(int(pid)) != started:
            _unlink(path)


def _leases(root: str) -> "Iterator[tuple[str, str, str, str]]":
    directory = f"{root}/.ids"
    try:
        names = posix.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        try:
            holder, pid, started = posix.readlink(f"{directory}/{name}").split(" ")
        except FileNotFoundError:
            continue
        yield f"{directory}/{name}", holder, pid, started


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


# ---- options in words


class _Security:
    """--security-opt, taken apart."""

    __slots__ = ("masked", "no_new_privileges", "readonly", "unconfined_paths")

    def __init__(self) -> None:
        self.no_new_privileges = True
        self.unconfined_paths = False
        self.masked = list(MASKED_PATHS)
        self.readonly = list(READONLY_PATHS)


def _security(config: ContainerConfig) -> _Security:
    security = _Security()
    for text in config.security_opt:
        key, equals, value = text.partition("=")
        if not equals:
            key, _, value = text.partition(":")
        if key == "no-new-privileges":
            security.no_new_privileges = _boolean(value or "true", "--security-opt no-new-privileges")
        elif key == "systempaths" and value == "unconfined":
            security.unconfined_paths = True
        elif key == "mask" and value:
            security.masked += [_absolute(path) for path in value.split(":")]
        elif key == "unmask" and value:
            _unmask(security, value)
        elif key == "seccomp" and value == "unconfined":
            pass  # There is no profile yet; see below.
        elif key == "seccomp":
            raise UnsupportedError("--security-opt seccomp: profiles are not supported yet", hint="it comes next")
        elif key in ("apparmor", "label") and value in ("unconfined", "disable"):
            pass
        elif key in ("apparmor", "label"):
            raise UnsupportedError(f"--security-opt {key} is not supported yet", hint="it comes with a later release")
        else:
            raise UsageError(f"--security-opt {text!r} is unknown")
    return security


def _unmask(security: _Security, value: str) -> None:
    if value.upper() == "ALL":
        security.unconfined_paths = True
        return
    paths = value.split(":")
    security.masked = [path for path in security.masked if path not in paths]
    security.readonly = [path for path in security.readonly if path not in paths]


def _boolean(text: str, option: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise UsageError(f"{option} is true or false, not {text!r}")
    return text.lower() in ("true", "1")


def _pair(text: str, option: str) -> "tuple[str, str]":
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{option} {text!r} is not KEY=VALUE")
    return key, value


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{path!r} is not an absolute path")
    return path


def _size(text: str, option: str) -> int:
    """Bytes of docker's sizes: 64m, 1g, 512k, 100b, 1024."""
    unit = text[-1:].lower() if not text[-1:].isdecimal() else ""
    number = text[: len(text) - len(unit)]
    if unit not in _SIZES or not number.isdecimal() or len(number) > 15 or int(number) == 0:
        raise UsageError(f"{option} {text!r} is not a size", hint="a number with b, k, m or g")
    return int(number) * _SIZES[unit]


def _rlimits(texts: "Iterable[str]", host: Host) -> "list[Json]":
    """--ulimit TYPE=SOFT[:HARD]; -1 is unlimited.  One above our own hard limit needs CAP_SYS_RESOURCE."""
    limits = {}
    for text in texts:
        kind, value = _pair(text, "--ulimit")
        soft, _, hard = value.partition(":")
        if kind not in _RLIMITS:
            raise UsageError(f"--ulimit {kind!r} is unknown", hint=", ".join(_RLIMITS))
        numbers = [_limit(part, text) for part in (soft, hard or soft)]
        if numbers[0] > numbers[1]:
            raise UsageError(f"--ulimit {text}: the soft limit is above the hard one")
        _check_hard(kind, numbers[1], host)
        limits[kind] = {"type": f"RLIMIT_{kind.upper()}", "soft": numbers[0], "hard": numbers[1]}
    return list(limits.values())


def _limit(text: str, whole: str) -> int:
    if text == "-1":
        return (1 << 64) - 1
    if not text.isdecimal() or len(text) > 19:
        raise UsageError(f"--ulimit {whole!r} is malformed", hint="TYPE=SOFT[:HARD]")
    return int(text)


def _check_hard(kind: str, hard: int, host: Host) -> None:
    import resource

    own = resource.getrlimit(_RESOURCE_NUMBERS[kind])[1]
    if own != resource.RLIM_INFINITY and hard > own and not host.has_resource:
        raise UsageError(f"--ulimit {kind}: the hard limit here is {own}", hint="raising it needs CAP_SYS_RESOURCE")


def _device(text: str) -> "tuple[str, Json]":
    """--device HOST[:CONTAINER[:PERMISSIONS]]: the host's path and the container's node."""
    parts = text.split(":")
    if len(parts) == 2 and not parts[1].startswith("/"):
        parts.insert(1, parts[0])
    source, target = parts[0], parts[1] if len(parts) > 1 else parts[0]
    if len(parts) > 3 or not source.startswith("/") or not target.startswith("/"):
        raise UsageError(f"--device {text!r} is malformed", hint="HOST[:CONTAINER[:PERMISSIONS]]")
    if len(parts) == 3 and (not parts[2] or set(parts[2]) - set("rwm")):
        raise UsageError(f"--device {text!r}: permissions are made of r, w and m")
    try:
        info = posix.stat(source)
    except OSError as error:
        raise UsageError(f"--device {source}: {posix.strerror(error.errno or 0)}".lower()) from error
    kind = {0o020000: "c", 0o060000: "b"}.get(info.st_mode & 0o170000)
    if not kind:
        raise UsageError(f"--device {source} is not a device")
    device = info.st_rdev
    major = (device >> 8 & 0xFFF) | (device >> 32 & ~0xFFF)
    minor = (device & 0xFF) | (device >> 12 & ~0xFF)
    return source, {
        "path": target, "type": kind, "major": major, "minor": minor,
        "fileMode": info.st_mode & 0o777, "uid": info.st_uid, "gid": info.st_gid,
    }  # fmt: skip


def _mount(destination: str, kind: str, source: str, options: "list[str]") -> "Json":
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _volume(text: str, idmap: "list[str]") -> "Json":
    """-v SRC:DST[:OPTIONS] with docker's and podman's options; named volumes do not exist yet."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise UsageError(f"--volume {text!r} is malformed", hint="SRC:DST[:OPTIONS]")
    source, target = parts[0], _absolute(parts[1])
    if not source.startswith(("/", ".")):
        raise UnsupportedError(f"--volume {text!r}: there are no named volumes yet", hint="give a path")
    words = [word for word in (parts[2].split(",") if len(parts) == 3 else []) if word not in ("z", "Z", "nocopy", "")]
    known = ("ro", "rw", "O", "nosuid", "nodev", "noexec", "suid", "dev", "exec", "bind", "rbind")
    for word in words:
        if word not in known and word.removeprefix("r") not in ("shared", "slave", "private", "unbindable"):
            raise UsageError(f"--volume {text!r}: unknown option {word!r}")
    source = posix_path(source)
    _make_source(source)
    tree = [] if "bind" in words or "O" in words else ["rbind"]
    return _mount(target, "bind", source, [*tree, *words, *idmap])


def _make_source(source: str) -> None:
    """docker makes a missing source of -v a directory; --mount refuses it."""
    try:
        posix.stat(source)
    except FileNotFoundError:
        try:
            posix.mkdir(source, 0o755)
        except OSError as error:
            raise UsageError(f"--volume {source}: {posix.strerror(error.errno or 0)}".lower()) from error


def _mount_option(text: str, idmap: "list[str]") -> "Json":
    """--mount type=bind|tmpfs,source=...,target=...,..., as docker reads it."""
    given = {part.partition("=")[0]: part.partition("=")[2] for part in text.split(",")}
    kind = given.pop("type", "volume")
    source = given.pop("source", given.pop("src", ""))
    target = given.pop("target", given.pop("destination", given.pop("dst", "")))
    if not target:
        raise UsageError(f"--mount {text!r} needs a target")
    flags = [given.pop(name) or "true" for name in ("readonly", "ro") if name in given]
    options = ["ro"] if any(_boolean(flag, "--mount readonly") for flag in flags) else []
    if kind == "tmpfs":
        options += [f"size={_size(given.pop('tmpfs-size'), '--mount tmpfs-size')}"] if "tmpfs-size" in given else []
        options += [f"mode={given.pop('tmpfs-mode')}"] if "tmpfs-mode" in given else []
        _refuse_rest(text, given)
        return _mount(_absolute(target), "tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", *options])
    if kind != "bind":
        raise UsageError(f"--mount {text!r}: type {kind!r} is unknown", hint="bind or tmpfs; volumes come later")
    if "bind-propagation" in given:
        options.append(given.pop("bind-propagation"))
    recursive = not _boolean(given.pop("bind-nonrecursive", "false") or "true", "--mount bind-nonrecursive")
    _refuse_rest(text, given)
    source = posix_path(_filled(source, text))
    try:
        posix.stat(source)
    except OSError as error:
        raise UsageError(f"--mount source {source}: {posix.strerror(error.errno or 0)}".lower()) from error
    return _mount(_absolute(target), "bind", source, ["rbind" if recursive else "bind", *options, *idmap])


def _filled(source: str, text: str) -> str:
    if not source:
        raise UsageError(f"--mount {text!r} needs a source")
    return source


def _refuse_rest(text: str, given: "dict[str, str]") -> None:
    if given:
        raise UsageError(f"--mount {text!r}: unknown option {next(iter(given))!r}")


def _tmpfs(text: str) -> "Json":
    """--tmpfs DST[:OPTIONS]."""
    target, _, options = text.partition(":")
    words = [word for word in options.split(",") if word]
    return _mount(_absolute(target), "tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", *words])


def raw_config(spec: Spec) -> bytes:
    """A spec's config as bytes, for the intent record."""
    return dump_json(spec.config).encode()
