"""The OCI runtime spec: reading, checking and writing config.json, and the bundle around it.

This module owns what a well-formed configuration is (runtime-spec 1.3; unknown fields are ignored as the spec
demands).  It refuses what is malformed or contradicts itself, always with one line that names the field.  What this
host or this version cannot do is not its business (plan.py, host.py).
"""

import posix

from .errors import SpecError
from .jsontext import WrongError, is_clean, parse_json, read_regular, show, why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Check = Callable[[Any], None]
    Config = dict[str, Any]


SPEC_VERSION = "1.3.0"
"""The newest runtime-spec whose every Linux field is known."""


class Layers:
    """The layers of a root that Warren mounts itself as an overlay."""

    __slots__ = ("idmap", "keep", "lower")

    def __init__(self, lower: list[str], keep: str = "", idmap: bool = False) -> None:
        self.lower = lower
        """Directories on the host, the topmost first; none at all makes the root an empty tmpfs."""
        self.keep = keep
        """A directory that keeps the changes (in `upper` and `work`); "" throws them away with the container."""
        self.idmap = idmap
        """Whether the layers are idmapped with the container's user namespace."""


class Link:
    """An interface that Warren makes in the container's network namespace, beside loopback."""

    __slots__ = (
        "addresses",
        "bridge",
        "gateways",
        "hairpin",
        "host_name",
        "isolated",
        "kind",
        "mac",
        "mtu",
        "name",
        "parent",
    )

    def __init__(
        self,
        name: str,
        *,
        kind: str = "veth",
        host_name: str = "",
        bridge: str = "",
        parent: str = "",
        mac: str = "",
        mtu: int = 0,
        addresses: "tuple[str, ...]" = (),
        gateways: "tuple[str, ...]" = (),
        isolated: bool = False,
        hairpin: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        """veth, macvlan, or tap: one that a program of the host makes, such as pasta."""
        self.host_name = host_name
        """The end of a veth that stays on the host, in `bridge`."""
        self.bridge = bridge
        self.parent = parent
        """The host's interface that a macvlan lies on."""
        self.mac = mac
        self.mtu = mtu
        """0: as the kernel has it."""
        self.addresses = addresses
        """With their prefix lengths, 10.0.0.2/24."""
        self.gateways = gateways
        """Of default routes, one for each family at most."""
        self.isolated = isolated
        """Whether its neighbours on the bridge are out of reach."""
        self.hairpin = hairpin
        """Whether the bridge may send back to it what came from it: its own published ports."""

    def __str__(self) -> str:
        via = f" via {','.join(self.gateways)}" if self.gateways else ""
        return f"{self.name} {','.join(self.addresses) or self.kind}{via}"


class Spec:
    """A valid configuration and where it came from; alone it determines the launch plan."""

    __slots__ = ("bundle", "config", "layers", "links")

    def __init__(
        self, config: "Config", bundle: str, layers: Layers | None = None, links: tuple[Link, ...] = ()
    ) -> None:
        self.config = config
        self.bundle = bundle
        """Absolute path; relative paths of the configuration start here."""
        self.layers = layers
        """None: root.path is a plain directory."""
        self.links = links

    def namespaces(self) -> dict[str, str]:
        """The namespaces of the container: type -> path of the one to join, "" for a new one."""
        linux = self.config.get("linux") or {}
        return {entry["type"]: entry.get("path") or "" for entry in linux.get("namespaces") or ()}

    def root_path(self) -> str:
        """The absolute path of root.path on the host; links in it are not resolved."""
        path: str = self.config["root"]["path"]
        return path if path.startswith("/") else f"{self.bundle.rstrip('/')}/{path}"


class Bundle:
    """A directory with a config.json, read once: later edits of the file have no effect (runtime.md, "Create")."""

    __slots__ = ("path", "raw", "spec")

    def __init__(self, path: str, spec: Spec, raw: bytes) -> None:
        self.path = path
        """Absolute, links resolved."""
        self.spec = spec
        self.raw = raw
        """The bytes that were read, exactly."""

    @classmethod
    def load(cls, path: str, config: str = "") -> "Bundle":
        """Read and validate the bundle in `path`, with the file `config` (relative to our own directory) if given.

        Raises SpecError, also when there is no such directory or file.
        """
        directory, real = _open_directory(path)
        try:
            what = config or f"{real}/config.json"
            raw = read_regular(config, what) if config else read_regular("config.json", what, directory)
        finally:
            posix.close(directory)
        value = validate(parse_json(raw, what))
        return cls(real, Spec(value, real), raw)


def _open_directory(path: str) -> tuple[int, str]:
    """Open a bundle; returns the descriptor and the path without links, as the kernel knows it."""
    try:
        directory = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise SpecError(f"bundle {path}: {why(error)}") from None
    return directory, posix.readlink(f"/proc/self/fd/{directory}")


# --- Vocabulary of the tables -----------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a bool", int: "an integer", float: "a float"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _anything(value: "Any") -> None:
    pass


def _bool(value: "Any") -> None:
    if value is not True and value is not False:
        raise WrongError(f"must be a bool, not {_kind(value)}")


def _string(value: "Any") -> None:
    if not isinstance(value, str):
        raise WrongError(f"must be a string, not {_kind(value)}")
    if "\0" in value or not (value.isascii() or is_clean(value)):
        raise WrongError("must not hold a NUL or a lone surrogate")


def _filled(value: "Any") -> None:
    _string(value)
    if not value:
        raise WrongError("must not be empty")


def _absolute(value: "Any") -> None:
    _string(value)
    if not value.startswith("/"):
        raise WrongError(f"must be an absolute path, not {show(value)}")


def _strings(value: "Any") -> None:
    """A list of strings; joining them checks types at the speed of C, and the slow way finds the culprit."""
    if type(value) is not list:
        raise WrongError(f"must be a list, not {_kind(value)}")
    try:
        joined = "".join(value)
    except TypeError:
        joined = "\0"
    if "\0" in joined or not (joined.isascii() or is_clean(joined)):
        _each(_string, value)


def _each(check: "Check", value: "Any") -> None:
    index = 0
    try:
        for item in value:
            check(item)
            index += 1
    except WrongError as wrong:
        wrong.path.append(index)
        raise


def _list(check: "Check", also: "Check | None" = None) -> "Check":
    """A list of which each item passes `check`, and that as a whole passes `also`."""

    def checked(value: "Any") -> None:
        if type(value) is not list:
            raise WrongError(f"must be a list, not {_kind(value)}")
        _each(check, value)
        if also is not None:
            also(value)

    return checked


def _map(check: "Check", also: "Check | None" = None) -> "Check":
    """An object with keys of the user's choice, none of them empty."""

    def checked(value: "Any") -> None:
        if type(value) is not dict:
            raise WrongError(f"must be an object, not {_kind(value)}")
        for key, item in value.items():
            if not key:
                raise WrongError("must not have an empty key")
            try:
                _string(key)
                check(item)
            except WrongError as wrong:
                wrong.path.append(key)
                raise
        if also is not None:
            also(value)

    return checked


def _object(fields: "dict[str, Check]", required: "Iterable[str]" = (), also: "Check | None" = None) -> "Check":
    """An object with known fields; unknown ones are ignored, and null is as good as absent.

    Go writes empty lists and pointers as null, so nulls of known fields are taken out of the object: nothing that
    reads it later needs to think of them.
    """
    find = fields.get
    required = tuple(required)

    def checked(value: "Any") -> None:
        if type(value) is not dict:
            raise WrongError(f"must be an object, not {_kind(value)}")
        nulls: tuple[str, ...] = ()
        key = ""
        try:
            for key, item in value.items():
                check = find(key)
                if check is None:
                    continue
                if item is None:
                    nulls += (key,)
                else:
                    check(item)
        except WrongError as wrong:
            wrong.path.append(key)
            raise
        for key in nulls:
            del value[key]
        for key in required:
            if key not in value:
                raise WrongError("required", key)
        if also is not None:
            also(value)

    return checked


def _integer(low: int, high: int) -> "Check":
    def checked(value: "Any") -> None:
        if type(value) is not int:
            raise WrongError(f"must be an integer, not {_kind(value)}")
        if not low <= value <= high:
            raise WrongError(f"must be {low} to {high}, not {_number(value)}")

    return checked


def _number(value: int) -> str:
    """A number for an error message; converting a huge one to decimal digits would be refused or take for ever."""
    return str(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"


def _one_of(*words: str) -> "Check":
    known = frozenset(words)

    def checked(value: "Any") -> None:
        if not isinstance(value, str):
            raise WrongError(f"must be a string, not {_kind(value)}")
        if value not in known:
            raise WrongError(f"unknown: {show(value)}")

    return checked


# --- What the spec says, as tables ------------------------------------------------------------------------------------

_UINT16 = _integer(0, (1 << 16) - 1)
_UINT32 = _integer(0, (1 << 32) - 1)
_UINT64 = _integer(0, (1 << 64) - 1)
_INT32 = _integer(-(1 << 31), (1 << 31) - 1)
_INT64 = _integer(-(1 << 63), (1 << 63) - 1)
_ID = _integer(0, (1 << 32) - 2)  # The last one means "no id" to the kernel (credentials(7)).

_MAX_EXTENTS = 340
"""Lines that the kernel takes in one uid_map (user_namespaces(7))."""


def _mappings_fit(value: "Any") -> None:
    if not 1 <= len(value) <= _MAX_EXTENTS:
        raise WrongError(f"must hold 1 to {_MAX_EXTENTS} mappings, not {len(value)}")
    for side in ("containerID", "hostID"):
        end = 0
        for first, size in sorted([(entry[side], entry["size"]) for entry in value]):
            if first < end:
                raise WrongError(f"mappings overlap at {side} {first}")
            end = first + size
            if end > (1 << 32) - 1:
                raise WrongError(f"mapping of {side} {first} runs past the last id")


_MAPPING = _object(
    {"containerID": _ID, "hostID": _ID, "size": _integer(1, (1 << 32) - 1)}, ("containerID", "hostID", "size")
)
_mapping_list = _list(_MAPPING, _mappings_fit)


def _mappings(value: "Any") -> None:
    """An empty list is as good as none, as Go writes both for a nil slice."""
    if value != []:
        _mapping_list(value)


def _no_empty_name(value: "Any") -> None:
    """Entries without "=" are legal (environ(7) does not care); one without a name is not."""
    _strings(value)
    for index, entry in enumerate(value):
        if entry[:1] in ("", "="):
            raise WrongError(f"has no name: {show(entry)}", index)


def _argv(value: "Any") -> None:
    _strings(value)
    if not value:
        raise WrongError("must not be empty")


def _limit_fits(value: "Any") -> None:
    if value["soft"] > value["hard"]:
        raise WrongError(f"soft limit {value['soft']} is above the hard limit {value['hard']}")


def _distinct_types(value: "Any") -> None:
    seen: set[str] = set()
    for index, entry in enumerate(value):
        if entry["type"] in seen:
            raise WrongError(f"duplicate of {entry['type']}", index)
        seen.add(entry["type"])


_RLIMIT_TYPE = _one_of(
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
)
_RLIMIT = _object(
    {"type": _RLIMIT_TYPE, "soft": _UINT64, "hard": _UINT64},
    ("type", "soft", "hard"),
    _limit_fits,
)

_POLICY = _one_of("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")


def _schedule_fits(value: "Any") -> None:
    policy = value["policy"]
    if value.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise WrongError("only for SCHED_FIFO and SCHED_RR", "priority")
    for key in ("runtime", "deadline", "period"):
        if value.get(key) and policy != "SCHED_DEADLINE":
            raise WrongError("only for SCHED_DEADLINE", key)


_USER = _object(
    {
        "uid": _ID,
        "gid": _ID,
        "umask": _integer(0, 0o777),
        "additionalGids": _list(_ID),
        "username": _string,
    }
)

_PROCESS = _object(
    {
        "terminal": _bool,
        "consoleSize": _object({"height": _UINT16, "width": _UINT16}, ("height", "width")),
        "user": _USER,
        "args": _argv,
        "env": _no_empty_name,
        "cwd": _absolute,
        "capabilities": _object(
            dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), _strings)
        ),
        "rlimits": _list(_RLIMIT, _distinct_types),
        "noNewPrivileges": _bool,
        "apparmorProfile": _string,
        "selinuxLabel": _string,
        "oomScoreAdj": _integer(-1000, 1000),
        "scheduler": _object(
            {
                "policy": _POLICY,
                "nice": _integer(-20, 19),
                "priority": _INT32,
                "flags": _strings,
                "runtime": _UINT64,
                "deadline": _UINT64,
                "period": _UINT64,
            },
            ("policy",),
            _schedule_fits,
        ),
        "ioPriority": _object(
            {
                "class": _one_of("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
                "priority": _integer(0, 7),
            },
            ("class",),
        ),
        "execCPUAffinity": _object({"initial": _string, "final": _string}),
    },
    ("args", "cwd"),
)


def _mount_maps(value: "Any") -> None:
    """Whether mappings of a mount's own make sense (runc, checkIDMapMounts)."""
    uids, gids = value.get("uidMappings"), value.get("gidMappings")
    if not uids and not gids:
        return
    if not uids or not gids:
        raise WrongError("required beside the other mappings", "gidMappings" if uids else "uidMappings")
    options = value.get("options") or []
    if value.get("type") != "bind" and "bind" not in options and "rbind" not in options:
        raise WrongError("only for bind mounts", "uidMappings")


_MOUNT = _object(
    {
        "destination": _filled,
        "type": _string,
        "source": _string,
        "options": _strings,
        "uidMappings": _mappings,
        "gidMappings": _mappings,
    },
    ("destination",),
    _mount_maps,
)

_HOOK = _object(
    {"path": _absolute, "args": _strings, "env": _no_empty_name, "timeout": _integer(1, (1 << 31) - 1)}, ("path",)
)
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_HOOKS = _object(dict.fromkeys(HOOKS, _list(_HOOK)))


def _namespace_path(value: "Any") -> None:
    """An empty path asks for a new namespace, as no path does."""
    if value != "":
        _absolute(value)


_NAMESPACE = _object(
    {
        "type": _one_of("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"),
        "path": _namespace_path,
    },
    ("type",),
)


def _device_has_number(value: "Any") -> None:
    if value["type"] != "p":
        for key in ("major", "minor"):
            if key not in value:
                raise WrongError("required", key)


_DEVICE = _object(
    {
        "path": _absolute,
        "type": _one_of("c", "b", "u", "p"),
        # A dev_t has 12 and 20 bits; more would be cut off, and name another device.
        "major": _integer(0, (1 << 12) - 1),
        "minor": _integer(0, (1 << 20) - 1),
        "fileMode": _UINT32,
        "uid": _ID,
        "gid": _ID,
    },
    ("path", "type"),
    _device_has_number,
)


def _access(value: "Any") -> None:
    _string(value)
    if value.strip("rwm"):
        raise WrongError(f"must be of r, w and m, not {show(value)}")


def _file_names(value: "Any") -> None:
    for key in value:
        if "/" in key or key in (".", ".."):
            raise WrongError("must be a file name", key)


def _hugepage_fits(value: "Any") -> None:
    if "/" in value["pageSize"]:
        raise WrongError(f"must be a size, not {show(value['pageSize'])}", "pageSize")


_NUMBERS: "dict[str, Check]" = {"major": _INT64, "minor": _INT64}
_WEIGHTS: "dict[str, Check]" = {"weight": _UINT16, "leafWeight": _UINT16}
_THROTTLED = _list(_object({**_NUMBERS, "rate": _UINT64}, ("major", "minor", "rate")))

_RESOURCES = _object(
    {
        "devices": _list(
            _object({**_NUMBERS, "allow": _bool, "type": _one_of("", "a", "b", "c"), "access": _access}, ("allow",))
        ),
        "memory": _object(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _INT64),
                "swappiness": _UINT64,
                **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), _bool),
            }
        ),
        "cpu": _object(
            {
                **dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), _UINT64),
                **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _INT64),
                "cpus": _string,
                "mems": _string,
            }
        ),
        "pids": _object({"limit": _INT64}),
        "blockIO": _object(
            {
                **_WEIGHTS,
                "weightDevice": _list(_object({**_NUMBERS, **_WEIGHTS}, ("major", "minor"))),
                "throttleReadBpsDevice": _THROTTLED,
                "throttleWriteBpsDevice": _THROTTLED,
                "throttleReadIOPSDevice": _THROTTLED,
                "throttleWriteIOPSDevice": _THROTTLED,
            }
        ),
        "hugepageLimits": _list(
            _object({"pageSize": _filled, "limit": _UINT64}, ("pageSize", "limit"), _hugepage_fits)
        ),
        "network": _object(
            {
                "classID": _UINT32,
                "priorities": _list(_object({"name": _filled, "priority": _UINT32}, ("name", "priority"))),
            }
        ),
        "rdma": _map(_object({"hcaHandles": _UINT32, "hcaObjects": _UINT32})),
        "unified": _map(_string, _file_names),
    }
)

_ACTION = _one_of(
    *[
        f"SCMP_ACT_{word}"
        for word in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
    ]
)
_COMPARISON = _one_of(*[f"SCMP_CMP_{word}" for word in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")])
_SECCOMP_ARGUMENT = _object(
    {"index": _integer(0, 5), "value": _UINT64, "valueTwo": _UINT64, "op": _COMPARISON}, ("index", "value", "op")
)
_SECCOMP = _object(
    {
        "defaultAction": _ACTION,
        "defaultErrnoRet": _UINT16,
        "architectures": _strings,
        "flags": _strings,
        "listenerPath": _string,
        "listenerMetadata": _string,
        "syscalls": _list(
            _object(
                {"names": _argv, "action": _ACTION, "errnoRet": _UINT16, "args": _list(_SECCOMP_ARGUMENT)},
                ("names", "action"),
            )
        ),
    },
    ("defaultAction",),
)


def _stays_below(value: "Any") -> None:
    """A cgroup path never climbs; a systemd "slice:prefix:name" has no components to climb with."""
    _string(value)
    if ".." in value and ".." in value.split("/"):
        raise WrongError(f"must not climb with '..': {show(value)}")


def _absolute_paths(value: "Any") -> None:
    _strings(value)
    for index, path in enumerate(value):
        if not path.startswith("/"):
            raise WrongError(f"must be an absolute path, not {show(path)}", index)


_SYSCTL_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./"


def _dotted(key: str) -> str:
    """A sysctl's name with '.' between its parts and '/' for a '.' inside of one (sysctl(8))."""
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key.replace(".", "\0").replace("/", ".").replace("\0", "/")
    return key


def _sysctl_names(value: "Any") -> None:
    """Each name must be one file below /proc/sys: no empty, "." or ".." part may lead elsewhere."""
    for key in value:
        parts = [part.replace("/", ".") for part in _dotted(key).split(".")]
        if key.strip(_SYSCTL_LETTERS) or not set(parts).isdisjoint(("", ".", "..")):
            raise WrongError("is no name of a sysctl", key)


def _closid(value: "Any") -> None:
    """A directory's name, or "/" for the default class."""
    _string(value)
    if value in (".", "..") or ("/" in value and value != "/"):
        raise WrongError(f"must be a directory's name, not {show(value)}")


MEMORY_MODES = (
    "MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
)  # fmt: skip
"""In the order of their numbers (set_mempolicy(2), linux/mempolicy.h)."""
MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}

_MAX_INTERFACE = 15
"""Bytes of an interface's name (IFNAMSIZ)."""


def _interface(name: str) -> bool:
    """What the kernel takes for the name of a network interface (dev_valid_name())."""
    fits = 0 < len(name.encode()) <= _MAX_INTERFACE and name not in (".", "..")
    return fits and not any(c in "/:" or c.isspace() for c in name)


def _interface_names(value: "Any") -> None:
    """Names on the host, and new ones in the container, which must not meet; "eth%d" lets the kernel number them."""
    taken: set[str] = set()
    for key, device in value.items():
        name = device.get("name") or key
        for text, *where in ((key, key), (name, "name", key)):
            if not _interface(text):
                raise WrongError(f"is no name of a network interface: {show(text)}", *where)
        if name in taken:
            raise WrongError(f"duplicate of {show(name)}", "name", key)
        if "%" not in name:
            taken.add(name)


def _known_clocks(value: "Any") -> None:
    for clock in value:
        if clock not in ("monotonic", "boottime"):
            raise WrongError("unknown clock", clock)


_LINUX = _object(
    {
        "namespaces": _list(_NAMESPACE, _distinct_types),
        "uidMappings": _mappings,
        "gidMappings": _mappings,
        "timeOffsets": _map(_object({"secs": _INT64, "nanosecs": _integer(0, 999_999_999)}), _known_clocks),
        "devices": _list(_DEVICE),
        "cgroupsPath": _stays_below,
        "resources": _RESOURCES,
        "rootfsPropagation": _one_of(
            "", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"
        ),
        "sysctl": _map(_string, _sysctl_names),
        "seccomp": _SECCOMP,
        "maskedPaths": _absolute_paths,
        "readonlyPaths": _absolute_paths,
        "mountLabel": _string,
        "personality": _object({"domain": _one_of("LINUX", "LINUX32"), "flags": _strings}, ("domain",)),
        "intelRdt": _object(
            {
                "closID": _closid,
                "schemata": _strings,
                "l3CacheSchema": _string,
                "memBwSchema": _string,
                "enableCMT": _bool,
                "enableMBM": _bool,
                "enableMonitoring": _bool,
            }
        ),
        "netDevices": _map(_object({"name": _string}), _interface_names),
        "memoryPolicy": _object(
            {"mode": _one_of(*MEMORY_MODES), "nodes": _string, "flags": _list(_one_of(*MEMORY_FLAGS))}, ("mode",)
        ),
    }
)


def _version(value: "Any") -> None:
    """SemVer 2.0.0 with major version 1, such as 1.0.2-dev."""
    _string(value)
    core, _, label = value.partition("+")[0].partition("-")
    numbers = core.split(".")
    proper = [part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") for part in numbers]
    if len(numbers) != 3 or not all(proper) or value.endswith(("-", "+")) or not (label + "a").isascii():
        raise WrongError(f"must be a semantic version, not {show(value)}")
    if numbers[0] != "1":
        raise WrongError(f"unsupported version {show(value)}")


def _host_name(value: "Any") -> None:
    _string(value)
    if len(value.encode()) > 64:
        raise WrongError("must not be longer than 64 bytes")


_CONFIG = _object(
    {
        "ociVersion": _version,
        "process": _PROCESS,
        "root": _object({"path": _filled, "readonly": _bool}, ("path",)),
        "hostname": _host_name,
        "domainname": _host_name,
        "mounts": _list(_MOUNT),
        "hooks": _HOOKS,
        "annotations": _map(_string),
        "linux": _LINUX,
    },
    ("ociVersion", "root"),
)

# --- What contradicts itself across fields (runc, libcontainer/configs/validate) --------------------------------------


_NEEDS = {"maskedPaths": "mount", "readonlyPaths": "mount", "timeOffsets": "time", "netDevices": "network"}
"""What of `linux` makes sense only in a namespace of the container's own."""


def _check_whole(config: "Config") -> None:
    linux = config.get("linux") or {}
    namespaces = {entry["type"]: entry.get("path") or "" for entry in linux.get("namespaces") or ()}
    for key in ("hostname", "domainname"):
        if config.get(key) and "uts" not in namespaces:
            raise WrongError("needs a uts namespace", key)
    for key, kind in _NEEDS.items():
        if linux.get(key) and kind not in namespaces:
            raise WrongError(f"needs a {kind} namespace", key, "linux")
    _check_ids(config, linux, namespaces)
    for key in linux.get("sysctl") or ():
        problem = _sysctl_problem(_dotted(key), namespaces)
        if problem:
            raise WrongError(problem, key, "sysctl", "linux")


def _check_ids(config: "Config", linux: "Config", namespaces: dict[str, str]) -> None:
    """Mappings belong to a user namespace, a new one needs both, and they must hold the user of the process."""
    user = (config.get("process") or {}).get("user") or {}
    for key, id_key in (("uidMappings", "uid"), ("gidMappings", "gid")):
        mappings = linux.get(key)
        if mappings and "user" not in namespaces:
            raise WrongError("needs a user namespace", key, "linux")
        if namespaces.get("user") == "":
            if not mappings:
                raise WrongError("required by a new user namespace", key, "linux")
            number = user.get(id_key, 0)
            if config.get("process") and not _is_mapped(mappings, number):
                raise WrongError(f"{number} is not in linux.{key}", id_key, "user", "process")
    if "user" not in namespaces:
        for index, mount in enumerate(config.get("mounts") or ()):
            options = mount.get("options") or ()
            if ("idmap" in options or "ridmap" in options) and not mount.get("uidMappings"):
                raise WrongError("idmap needs a user namespace or mappings of its own", "options", index, "mounts")


def _is_mapped(mappings: "list[dict[str, int]]", number: int) -> bool:
    return any(0 <= number - entry["containerID"] < entry["size"] for entry in mappings)


_IPC_SYSCTLS = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)


def _sysctl_problem(name: str, namespaces: dict[str, str]) -> str:
    """Why a sysctl would change the host instead of the container, "" if it does not."""
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return "" if "ipc" in namespaces else "needs an ipc namespace"
    if name.startswith("net."):
        return "" if "network" in namespaces else "needs a network namespace"
    if name == "kernel.hostname":
        return "conflicts with the field hostname"
    if name == "kernel.domainname":
        return "" if "uts" in namespaces else "needs a uts namespace"
    return "is not of a namespace and would change the host"


# --- Validation -------------------------------------------------------------------------------------------------------


def validate(config: object, need_process: bool = False) -> "Config":
    """Check a whole configuration and return it, without the nulls of its known fields.

    Raises SpecError, "process.args[0]: must be a string, not null".  A process is demanded with `need_process` only:
    the spec wants it at `start`, not in every configuration.
    """
    try:
        _CONFIG(config)
        assert isinstance(config, dict)
        if need_process and "process" not in config:
            raise WrongError("required", "process")
        _check_whole(config)
    except WrongError as wrong:
        raise SpecError(f"{_where(wrong.path) or 'config'}: {wrong.message}") from None
    return config


def validate_process(process: object, where: str = "process") -> "Config":
    """Check a process object, as that of `exec --process`, and return it without the nulls of its known fields.

    `where` is what errors call it: "process.cwd: required".
    """
    return _validate_part(_PROCESS, process, where)


def validate_resources(resources: object) -> "Config":
    """Check a linux.resources object, as that of `update --resources`, likewise."""
    return _validate_part(_RESOURCES, resources, "linux.resources")


def _validate_part(check: "Check", part: object, where: str) -> "Config":
    try:
        check(part)
    except WrongError as wrong:
        raise SpecError(f"{_where(wrong.path, where)}: {wrong.message}") from None
    assert isinstance(part, dict)
    return part


def _where(path: "list[str | int]", text: str = "") -> str:
    """A path, continuing `text`, as people write it; keys that are no plain names are quoted."""
    for part in reversed(path):
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and len(part) <= 40:
            text += f".{part}" if text else part
        else:
            text += f"[{show(part)}]"
    return text


# --- The configuration of `warren-oci spec` ---------------------------------------------------------------------------

_DEFAULT_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""What moby hides: secrets of the host, and side channels of its hardware."""

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def default_mounts(rootless: bool = False) -> "list[Config]":
    """The mounts of config-linux.md, "Default Filesystems", and the usual /dev, as `runc spec` writes them."""
    safe = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    sys = _mount("/sys", "sysfs", "sysfs", [*safe, "ro"])
    if rootless:
        # Group 5 is not mapped, and a new sysfs needs a network namespace of one's own.
        sys = _mount("/sys", "none", "/sys", ["rbind", *safe, "ro"])
    else:
        pts.append("gid=5")
    return [
        _mount("/proc", "proc", "proc", []),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=65536k"]),
        _mount("/dev/mqueue", "mqueue", "mqueue", safe),
        sys,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", "ro"]),
    ]


def default_spec(rootless: bool = False) -> "Config":
    """What `warren-oci spec` writes: runc's example, with moby's masked paths and a cgroup namespace."""
    sets = ("bounding", "effective", "permitted", "ambient")
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: list(_DEFAULT_CAPABILITIES) for name in sets},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "warren",
        "mounts": default_mounts(rootless),
        "linux": _default_linux(rootless),
    }


def _default_linux(rootless: bool) -> "Config":
    kinds = ["pid", "ipc", "uts", "mount", "cgroup", "user" if rootless else "network"]
    linux: Config = {
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
    }
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": posix.getegid(), "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return linux


def _mount(destination: str, type: str, source: str, options: list[str]) -> "Config":
    mount: Config = {"destination": destination, "type": type, "source": source}
    if options:
        mount["options"] = list(options)
    return mount
