"""Mounts of a container: the option words of the OCI spec and the steps that each mount becomes.

Bind sources are cloned as detached mounts: outside, with the host's privileges, where the caller has them; inside
the new namespaces otherwise.  Everything is attached by descriptor to targets resolved inside the root (RULES 4).
"""

from ..errors import SpecError
from ..steps import COPY_UP, MAKE_DIR, MAKE_FILE, NO_SYMLINKS, ON_KERNEL_FS, LaunchPlan
from .user import map_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host import Host
    from ..spec import Spec

# mount_setattr(2): word -> attribute.  Words that clear only take back what an earlier word has set, as in mount(8).
_SET = {
    "ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "nodiratime": 0x80, "nosymfollow": 0x200000,
    "relatime": 0, "noatime": 0x10, "strictatime": 0x20,
}  # fmt: skip
_CLEAR = {
    "rw": 0x1, "suid": 0x2, "dev": 0x4, "exec": 0x8, "diratime": 0x80, "symfollow": 0x200000,
    "atime": 0x70, "norelatime": 0x70, "nostrictatime": 0x70,
}  # fmt: skip
_ATIME = 0x70
_PROPAGATION = {"unbindable": 1 << 17, "private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}
SLAVE = _PROPAGATION["slave"]
_IDMAP_RECURSIVE = 2  # steps_outside.c
# Flags of a superblock, which fsconfig(2) knows by the same words.
_SUPERBLOCK = ("sync", "dirsync", "lazytime", "mand", "async", "nolazytime", "nomand")
_IGNORED = ("defaults", "silent", "loud", "iversion", "noiversion", "acl", "noacl")
_BIND = {"bind": 0, "rbind": 1}
_IDMAP = {"idmap": 0, "ridmap": 1}

MOUNT_OPTIONS = sorted(
    [*_SET, *_CLEAR, *_PROPAGATION, *_SUPERBLOCK, *_IGNORED, *_BIND, *_IDMAP, "remount", "tmpcopyup"]
    + ["r" + word for word in [*_SET, *_CLEAR, *_PROPAGATION] if word not in ("strictatime", "nostrictatime")]
    + ["rstrictatime", "rnostrictatime"]
)
"""What `warren-oci features` lists as mountOptions (features.md)."""

# What may be mounted below /proc, always as a bind (runc, checkProcMount; CVE-2019-16884).
_BELOW_PROC = (
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
    "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
)  # fmt: skip


class Options:
    """A mount's option words, sorted by what they are."""

    __slots__ = (
        "attr", "clear", "copy_up", "data", "fill", "idmap", "overlay", "own", "propagation", "recursive_clear",
        "recursive_set", "remount", "symlink", "tree",
    )  # fmt: skip

    def __init__(self, words: "list[str]") -> None:
        self.attr = 0
        self.clear = 0  # what words such as "rw" name; only a remount has something to take back
        self.recursive_set = 0
        self.recursive_clear = 0
        self.propagation = 0
        self.tree = -1  # not a bind; 0 bind, 1 rbind
        self.idmap = -1  # none; 0 idmap, 1 ridmap
        self.copy_up = self.fill = self.overlay = self.own = self.remount = self.symlink = False
        self.data: list[str] = []
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        plain = word[1:] if word[:1] == "r" else ""
        if word in _SET:
            self.attr = _with(self.attr, word)
            self.clear &= ~_SET[word]
        elif word in _CLEAR:
            self.attr &= ~_CLEAR[word]
            self.clear |= _CLEAR[word]
        elif word in _BIND:
            self.tree = max(self.tree, _BIND[word])
        elif word in _PROPAGATION or plain in _PROPAGATION:
            self.propagation = _PROPAGATION[plain if plain in _PROPAGATION else word]
        elif plain in _SET:
            self.recursive_set = _with(self.recursive_set, plain)
        elif plain in _CLEAR:
            self.recursive_clear |= _CLEAR[plain]
        elif word in _IDMAP:
            self.idmap = max(self.idmap, _IDMAP[word])
        elif word == "remount":
            self.remount = True
        elif word == "O":
            self.overlay = True
        elif word == "tmpcopyup":
            self.copy_up = True
        elif word == "copyup":
            self.fill = True
        elif word == "U":
            self.own = True
        elif word == "copy-symlink":
            self.symlink = True
        elif word not in _IGNORED:
            self.data.append(word)


def _with(attr: int, word: str) -> int:
    value = _SET[word]
    return (attr & ~_ATIME) | value if value & _ATIME or word == "relatime" else attr | value


class Mount:
    """One entry of the spec's mounts, ready to be turned into steps."""

    __slots__ = ("destination", "index", "maps", "options", "resolve", "slot", "source", "type")

    def __init__(self, index: int, entry: "dict[str, object]", bundle: str) -> None:
        where = f"mounts[{index}]"
        self.index = index
        self.destination = normal(str(entry["destination"]))
        self.options = Options(list(entry.get("options") or []))  # type: ignore[call-overload]
        self.maps = _maps(entry)
        self.type = str(entry.get("type") or "")
        source = str(entry.get("source") or "")
        if self.type == "bind" and self.options.tree < 0:
            self.options.tree = 0
        if self.maps and self.options.idmap < 0:
            self.options.idmap = 0
        if self.options.remount:
            pass  # It names what is mounted already.
        elif self.is_bind or self.options.symlink:
            if not source:
                raise SpecError(f"{where}: a bind mount needs a source")
            source = source if source[0] == "/" else f"{bundle}/{source}"
        elif not self.type:
            raise SpecError(f"{where}: a mount needs a type, or the option bind or rbind")
        self.source = source
        self.resolve = _target_rules(self, where)
        self.slot = -1

    @property
    def is_bind(self) -> bool:
        return self.options.tree >= 0 and not self.options.remount

    @property
    def is_written_first(self) -> bool:
        """Whether something is done to the source before it may become read-only."""
        return self.options.fill or self.options.own


def _maps(entry: "dict[str, object]") -> "tuple[str, str] | None":
    """A mount's own id maps, as the text of uid_map and gid_map; None when it has none."""
    if not entry.get("uidMappings"):
        return None
    return map_text(entry["uidMappings"]), map_text(entry["gidMappings"])  # type: ignore[arg-type]


def normal(path: str) -> str:
    """Absolute and without '.', '..' and empty components, as filepath.Clean("/" + path)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _target_rules(mount: Mount, where: str) -> int:
    """How the target is to be resolved; SpecError for one that nothing may be mounted on (RULES 3)."""
    target = mount.destination
    if target == "/" and not mount.options.symlink:
        raise SpecError(f"{where}: destination / is the root itself")
    if target == "/proc" or target.startswith("/proc/"):
        if target == "/proc" and (mount.type == "proc" or (mount.is_bind and mount.source == "/proc")):
            return MAKE_DIR | NO_SYMLINKS
        if mount.is_bind and target in _BELOW_PROC:
            return NO_SYMLINKS | ON_KERNEL_FS
        raise SpecError(f"{where}: {target} must not be covered", hint="only procfs may be mounted on /proc")
    if mount.type in ("proc", "sysfs"):
        return MAKE_DIR | NO_SYMLINKS
    if target == "/sys" or target.startswith("/sys/"):
        return MAKE_DIR | NO_SYMLINKS | ON_KERNEL_FS
    return MAKE_DIR | MAKE_FILE if mount.is_bind else MAKE_DIR


def load(spec: "Spec") -> "list[Mount]":
    entries = spec.config.get("mounts") or []
    return [Mount(index, entry, spec.bundle) for index, entry in enumerate(entries)]


def clone_sources(plan: LaunchPlan, mounts: "list[Mount]") -> None:
    """Clone the source of each bind mount as a detached mount."""
    for mount in mounts:
        if mount.is_bind and not mount.options.symlink:
            mount.slot = plan.slot()
            recursive = 0 if mount.options.overlay else mount.options.tree
            plan.add("open_tree", mount.slot, mount.source, recursive)


def set_attributes(plan: LaunchPlan, mounts: "list[Mount]", userns: int) -> None:
    """Give each cloned source its attributes, propagation and id map before anybody can reach it.

    A clone of a shared mount is its peer: unless asked to share, it becomes a slave, so that nothing mounted below
    it in the container shows up on the host.
    """
    maps = _make_maps(plan, mounts)
    for mount in mounts:
        options = mount.options
        if mount.slot < 0:
            continue
        idmap = -1 if options.idmap < 0 else maps[mount.maps] if mount.maps else userns
        if options.idmap >= 0 and idmap < 0:
            raise SpecError(f"mounts[{mount.index}]: option idmap needs a new user namespace")
        plan.add("mount_setattr", mount.slot, 1, 0, 0, options.propagation or SLAVE, -1)
        later = _SET["ro"] if mount.is_written_first else 0
        attr, recursive_attr = options.attr & ~later, options.recursive_set & ~later
        if attr or idmap >= 0:
            recursive = _IDMAP_RECURSIVE if options.idmap > 0 else 0
            plan.add("mount_setattr", mount.slot, recursive, attr, 0, 0, idmap)
        if recursive_attr or options.recursive_clear:
            plan.add("mount_setattr", mount.slot, 1, recursive_attr, options.recursive_clear, 0, -1)


def _make_maps(plan: LaunchPlan, mounts: "list[Mount]") -> "dict[tuple[str, str], int]":
    """A user namespace for each pair of maps that mounts have of their own: it is what mount_setattr(2) takes."""
    slots: dict[tuple[str, str], int] = {}
    for mount in mounts:
        if mount.maps and mount.maps not in slots:
            slots[mount.maps] = plan.slot()
            plan.add("userns", slots[mount.maps], *mount.maps, 0, 0, -1)
    return slots


def attach(
    plan: LaunchPlan, mounts: "list[Mount]", spec: "Spec", host: "Host", unified: str, legacy: "dict[str, str]"
) -> None:
    """Mount everything in the order of the spec.

    `unified` and `legacy` are the container's cgroup directories, the latter by the name of their v1 hierarchy.
    """
    for mount in mounts:
        if mount.options.symlink:
            plan.add("symlink", _read_link(mount), mount.destination)
        elif mount.options.overlay:
            slot = plan.slot()
            plan.add("overlay", slot, -1, [str(mount.slot)], overlay_options(spec, host))
            plan.add("bind", slot, mount.destination, mount.resolve)
        elif mount.options.remount:
            _remount(plan, mount)
        elif mount.is_bind:
            _bind(plan, mount, spec)
        elif mount.type == "cgroup":
            _mount_cgroups(plan, mount, spec, host, unified, legacy)
        else:
            _mount_new(plan, mount, spec, host)


def _bind(plan: LaunchPlan, mount: Mount, spec: "Spec") -> None:
    """Attach a source; one that is to be filled or given away becomes read-only after that."""
    options = mount.options
    if options.fill:
        plan.add("fill", mount.slot, mount.destination)
    if options.own:
        account = spec.config["process"].get("user") or {}
        plan.add("own", mount.slot, int(account.get("uid") or 0), int(account.get("gid") or 0))
    plan.add("bind", mount.slot, mount.destination, mount.resolve)
    if mount.is_written_first and (options.attr | options.recursive_set) & _SET["ro"]:
        plan.add("readonly", mount.destination)


def _mount_new(plan: LaunchPlan, mount: Mount, spec: "Spec", host: "Host") -> None:
    options = mount.options
    resolve = mount.resolve | (COPY_UP if options.copy_up else 0)
    data, label = options.data, str((spec.config.get("linux") or {}).get("mountLabel") or "")
    if mount.source:
        # What /proc/mounts and df(1) show; a file system on a device is mounted from it.
        data = [*data, f"source={mount.source}"]
    if label:
        from .. import labels

        data = [*data, *labels.mount_option(mount.type, label, host)]
    plan.add("mount", mount.type, mount.destination, data, options.attr | options.recursive_set, resolve)
    if options.propagation:
        plan.add("remount", mount.destination, [], 0, 0, options.propagation)


def _remount(plan: LaunchPlan, mount: Mount) -> None:
    """Change what is mounted there: the words that are given, and no others (unlike MS_REMOUNT, which clears them)."""
    options = mount.options
    data = [] if options.tree >= 0 else options.data
    set, clear = options.attr | options.recursive_set, options.clear | options.recursive_clear
    plan.add("remount", mount.destination, data, set, clear, options.propagation)


def keep_propagation(plan: LaunchPlan, mounts: "list[Mount]", root: int) -> None:
    """A propagation of the root, set after the pivot for everything below, leaves mounts that have named their own."""
    for mount in mounts if root not in (0, SLAVE) else ():
        if mount.options.propagation:
            plan.add("remount", mount.destination, [], 0, 0, mount.options.propagation)


def overlay_options(spec: "Spec", host: "Host") -> "list[str]":
    """Overlayfs may set trusted.* attributes only in the initial user namespace (overlayfs.rst, userxattr)."""
    inside = "user" in spec.namespaces() or not host.privileged
    return ["userxattr"] if inside else []


def _read_link(mount: Mount) -> str:
    import posix

    try:
        return posix.readlink(mount.source)
    except OSError as error:
        raise SpecError(f"mounts[{mount.index}]: {mount.source} is not a symbolic link") from error


def _mount_cgroups(
    plan: LaunchPlan, mount: Mount, spec: "Spec", host: "Host", unified: str, legacy: "dict[str, str]"
) -> None:
    """The container's view of its cgroups: cgroup2 alone, or on a v1 or hybrid host each hierarchy as runc does it."""
    attr, target = mount.options.attr, mount.destination
    private = spec.namespaces().get("cgroup") == ""
    if not host.cgroup_legacy and private:
        plan.add("mount", "cgroup2", target, [], attr, mount.resolve)
        return
    if not host.cgroup_legacy:
        _bind_cgroup(plan, unified, target, attr, mount.resolve)
        return
    plan.add("mount", "tmpfs", target, ["mode=755", "size=64k"], attr & ~0x1, mount.resolve)
    hierarchies = dict(legacy)
    if unified:
        hierarchies["unified"] = unified
    for name, path in sorted(hierarchies.items()):
        below = f"{target}/{name.removeprefix('name=')}"
        if not private:
            _bind_cgroup(plan, path, below, attr, MAKE_DIR)
        elif name == "unified":
            plan.add("mount", "cgroup2", below, [], attr, MAKE_DIR)
        else:
            # The legacy mount parser takes bare controller names; a named hierarchy has none.
            plan.add("mount", "cgroup", below, ["none", name] if "=" in name else name.split(","), attr, MAKE_DIR)
    for name in hierarchies:
        for alias in name.split(",") if "," in name else ():
            plan.add("symlink", name, f"{target}/{alias}")
    if attr & 0x1:
        plan.add("readonly", target)


def _bind_cgroup(plan: LaunchPlan, path: str, target: str, attr: int, resolve: int) -> None:
    slot = plan.slot()
    plan.add("open_tree", slot, path, 0)
    plan.add("mount_setattr", slot, 0, attr, 0, SLAVE, -1)
    plan.add("bind", slot, target, resolve)
