"""A container's cgroup as a transient scope of systemd: `--systemd-cgroup`, and ordinary users' own service manager.

systemd makes the cgroup, moves the first process in and keeps the limits that it has properties for, so that a
daemon-reload changes none; all else goes to the scope's directory as anywhere.  The names are runc's (docs/systemd.md):
a cgroupsPath of "slice:prefix:name" is the unit prefix-name.scope in that slice.
"""

import posix

from ..errors import ExistsError, SpecError, StateError, UnsupportedError
from . import devices
from .dbus import CallError, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..host import Host
    from . import Cgroup
    from .settings import Setting

    Property = tuple[str, tuple[str, object]]

_SERVICE, _OBJECT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = _SERVICE + ".Manager"
_EXISTS, _NO_UNIT = _SERVICE + ".UnitExists", _SERVICE + ".NoSuchUnit"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
_INFINITY = (1 << 64) - 1
_NUMBERS = {
    "memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax", "cpu.weight": "CPUWeight", "io.weight": "IOWeight", "pids.max": "TasksMax",
    "memory.limit_in_bytes": "MemoryLimit", "cpu.shares": "CPUShares", "blkio.weight": "BlockIOWeight",
}  # fmt: skip
"""Files of either version and the properties with which systemd writes them (systemd.resource-control(5))."""
_POSITIVE = ("MemoryMax", "MemoryHigh", "TasksMax")
_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_QUOTAS = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
_PERIOD = 100000
_MANAGED_V1 = {"cpu", "cpuacct", "blkio", "memory", "devices", "pids", "name=systemd"}


def runs_here() -> bool:
    """Whether systemd is process 1 (sd_booted(3))."""
    try:
        return posix.lstat("/run/systemd/system").st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def is_system(host: "Host") -> bool:
    """Whether our service manager is the system's; that of the user otherwise, also for root in a user namespace."""
    return host.euid == 0 and host.initial_userns


def name(path: str, container_id: str, host: "Host") -> "tuple[str, str]":
    """Slice and unit of a container with this linux.cgroupsPath; SpecError for one that names none."""
    parts = (path or f":warren:{container_id}").split(":")
    if len(parts) != 3:
        wanted = 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups'
        raise SpecError(f"linux.cgroupsPath: {wanted}, got {path!r} instead")
    slice = parts[0] or ("system.slice" if is_system(host) else "user.slice")
    unit = f"{parts[1]}-{parts[2]}.scope"
    if parts[2].endswith(".slice"):
        raise UnsupportedError(f"linux.cgroupsPath: {parts[2]} is a slice, which has no processes", hint="name a scope")
    if not parts[2] or len(unit) > 255 or not set(_LETTERS).issuperset(unit):
        raise SpecError(f"linux.cgroupsPath: {unit!r} is no name of a unit", hint="letters, digits and :-_.\\@")
    expand(slice)
    return slice, unit


def expand(slice: str) -> str:
    """The path of a slice below its manager's cgroup: a-b.slice lies in a.slice (systemd.slice(5))."""
    stem = slice.removesuffix(".slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if stem == slice or not all(parts) or not set(_LETTERS).issuperset(stem):
        raise SpecError(f"linux.cgroupsPath: {slice!r} is no name of a slice", hint="such as system.slice")
    return "".join([f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts))])


def locate(path: str, container_id: str, host: "Host") -> "tuple[str, str, str]":
    """Slice, unit and its cgroup below each hierarchy's mount.

    Raises SpecError for a name, UnsupportedError where there is no service manager for us.
    """
    slice, unit = name(path, container_id, host)
    if not is_system(host) and (not host.cgroup_unified or host.cgroup_legacy):
        raise UnsupportedError("--systemd-cgroup: an ordinary user needs cgroup v2 alone", hint="use cgroupfs")
    return slice, unit, _top(host).rstrip("/") + expand(slice) + "/" + unit


def _top(host: "Host") -> str:
    """The cgroup below which our service manager has its units; the system's tells by its own, which is quicker."""
    if is_system(host):
        lines = [line.split(":", 2) for line in host.read("/proc/1/cgroup").splitlines()]
        path = next((path for _, name, path in lines if name in ("", "name=systemd")), "")
        return path.removesuffix("init.scope")
    with _Manager(host) as manager:
        return manager.control_group()


def makes(hierarchy: str) -> bool:
    """Whether systemd makes, and removes, the directories in this hierarchy ("" is v2's)."""
    return not hierarchy or bool(_MANAGED_V1 & set(hierarchy.split(",")))


def start(
    cgroup: "Cgroup",
    pid: int,
    annotations: "dict[str, str]",
    settings: "Iterable[Setting]",
    rules: "list[devices.Rule]",
    host: "Host",
) -> None:
    """Make the scope with these limits and process `pid` in it.

    Raises ExistsError for a unit that somebody else has, whose cgroup is then no longer `cgroup`; WarrenError with
    systemd's words.
    """
    wanted: list[Property] = [
        ("Description", ("s", f"Warren container {cgroup.unit.removesuffix('.scope')}")),
        ("Slice", ("s", cgroup.slice)),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [pid])),
        *((f"{name}Accounting", ("b", True)) for name in ("Memory", "CPU", "IO", "Tasks")),
        ("DefaultDependencies", ("b", False)),
        *properties(settings),
        *(device_properties(rules, host) if rules else ()),
    ]
    if any(key.startswith("org.systemd.property.") for key in annotations):
        from . import unit_properties

        wanted += unit_properties.from_annotations(annotations)
    with _Manager(host) as manager:
        try:
            manager.start(cgroup.unit, wanted)
        except CallError as error:
            if error.name != _EXISTS:
                raise
            unit = cgroup.unit
            cgroup.forget()
            raise ExistsError(f"systemd has a unit {unit} already", hint="choose another cgroupsPath") from error


def stop(unit: str, host: "Host") -> None:
    """Have systemd forget the scope, and end what runs in it; idempotent."""
    try:
        manager = _Manager(host)
    except UnsupportedError:
        return  # A manager that is gone has left no unit.
    with manager:
        manager.stop(unit)


def attach(cgroup: "Cgroup", below: "Cgroup", pid: int, host: "Host") -> None:
    """Have systemd move a process into the scope, or into a cgroup `below` it.

    An ordinary user may not do that himself from outside of what was delegated to him (cgroup-v2.rst, "Delegation").
    """
    with _Manager(host) as manager:
        subgroup = below.unified[len(cgroup.unified) :]
        manager.call("AttachProcessesToUnit", "ssau", cgroup.unit, subgroup, [pid])


def set_properties(cgroup: "Cgroup", wanted: "list[Property]", host: "Host") -> "list[Property]":
    """Change properties; those of limits before the same are written to the files.  Returns what they were before.

    Returns when systemd has written them, so that it does not overwrite ours, which may be finer.
    """
    if not wanted:
        return []
    with _Manager(host) as manager:
        before = manager.properties(cgroup.unit, wanted)
        manager.call("SetUnitProperties", "sba(sv)", cgroup.unit, True, wanted)
        # It writes between two messages, so the answer to one more comes after that.
        manager.control_group()
    return before


def properties(settings: "Iterable[Setting]") -> "list[Property]":
    """Of the limits that systemd knows; the last one wins where two say the same."""
    found: dict[str, tuple[str, object]] = {}
    quota: dict[str, str] = {}
    for setting in settings:
        for file, value in ((setting.file, setting.value), setting.instead or ("", "")):
            if file in _NUMBERS and (number := _number(value)) is not None:
                found[_NUMBERS[file]] = ("t", max(number, 1) if _NUMBERS[file] in _POSITIVE else number)
            elif file in _LISTS and (mask := _mask(value)):
                found[_LISTS[file]] = ("ay", mask)
            elif file in _QUOTAS:
                quota[file] = value
    return [*found.items(), *_quota(quota)]


def _number(text: str) -> "int | None":
    """None for what the kernel is left to judge, and for a line about one device."""
    text = text.strip()
    if text in ("max", "-1"):
        return _INFINITY
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _mask(text: str) -> bytes:
    """A cpuset(7) list as systemd takes it: a bit each, the lowest byte first; empty for what is no such list."""
    mask = 0
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        numbers = part.isascii() and first.isdigit() and last.isdigit() and len(last) < 5
        if not numbers or int(first) > int(last):
            return b""
        mask |= (1 << int(last) + 1) - (1 << int(first))
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _quota(files: "dict[str, str]") -> "list[Property]":
    """systemd keeps a quota per second, in hundredths of a CPU: rounded up, as our own write is exact (runc)."""
    words = files.get("cpu.max", "").split() or [files.get("cpu.cfs_quota_us", ""), files.get("cpu.cfs_period_us", "")]
    quota, period = _number(words[0]), _number(words[1] if len(words) > 1 else "")
    found: list[Property] = [("CPUQuotaPeriodUSec", ("t", period))] if period else []
    if quota:
        share = -(-quota * 100 // (period or _PERIOD)) * 10000
        found.append(("CPUQuotaPerSecUSec", ("t", _INFINITY if quota == _INFINITY else share)))
    return found


def device_properties(rules: "list[devices.Rule]", host: "Host") -> "list[Property]":
    """What the rules allow, as systemd can say it; where it cannot it is kept out of the way of our own program.

    None for an ordinary user, whose service manager does not hold them either.
    """
    if not is_system(host):
        return []
    allowed: list[tuple[str, str]] | None = None
    for rule in devices.with_defaults(rules):
        kind = rule.get("type") or "a"
        if kind == "a":
            allowed = None if rule.get("allow") else []
        elif rule.get("allow") and allowed is not None:
            if not (node := _node(kind, rule)):
                return _NO_POLICY
            allowed.append((node, rule.get("access") or "rwm"))
        elif not rule.get("allow") and allowed != []:
            return _NO_POLICY
    if allowed is None:
        return _NO_POLICY
    # The empty list first takes away what the unit allowed before.
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", [])), ("DeviceAllow", ("a(ss)", allowed))]


_NO_POLICY: "list[Property]" = [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]


def _node(kind: str, rule: "devices.Rule") -> str:
    """systemd's words for the devices of a rule; "" for any major with one minor number."""
    major, minor = (-1 if rule.get(key) is None else rule[key] for key in ("major", "minor"))
    family = {"b": "block", "c": "char"}.get(kind, "")
    if major < 0:
        return f"{family}-*" if family and minor < 0 else ""
    return (f"{family}-{major}" if minor < 0 else f"/dev/{family}/{major}:{minor}") if family else ""


class _Manager:
    """A conversation with our service manager, through its own socket or else the bus.

    Raises UnsupportedError where neither is there.
    """

    def __init__(self, host: "Host") -> None:
        for path, bus in _sockets(host):
            try:
                self._connection = Connection(path, bus=bus)
                break
            except OSError:
                continue
        else:
            who = "systemd does not run here" if is_system(host) else "this user has no service manager here"
            raise UnsupportedError(f"--systemd-cgroup: {who}", hint="use cgroupfs")

    def __enter__(self) -> "_Manager":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, member: str, signature: str = "", *values: object) -> "list[Any]":
        return self._connection.call(_SERVICE, _OBJECT, _MANAGER, member, signature, *values)

    def control_group(self) -> str:
        """The cgroup below which its units are."""
        return str(self._get(_OBJECT, _MANAGER, "ControlGroup"))

    def properties(self, scope: str, like: "list[Property]") -> "list[Property]":
        """What these properties of a scope are now; a list once to empty it and once with its items, as in `like`."""
        path = str(self.call("GetUnit", "s", scope)[0])
        return [
            (name, (kind, [] if name == "DeviceAllow" and not value else self._get(path, _SERVICE + ".Scope", name)))
            for name, (kind, value) in like
        ]

    def _get(self, path: str, interface: str, name: str) -> object:
        properties = "org.freedesktop.DBus.Properties"
        return self._connection.call(_SERVICE, path, properties, "Get", "ss", interface, name)[0]

    def start(self, unit: str, wanted: "list[Property]") -> None:
        self._listen()
        try:
            job = self._start(unit, wanted)
        except CallError as error:
            if error.name != _EXISTS:
                raise
            # It may be what is left of one that failed.
            self._reset(unit)
            job = self._start(unit, wanted)
        if (result := self._result(job)) != "done":
            raise StateError(f"systemd: starting {unit} ended with {result!r}", hint="see journalctl")

    def _start(self, unit: str, wanted: "list[Property]") -> object:
        return self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", wanted, [])[0]

    def stop(self, unit: str) -> None:
        self._listen()
        try:
            self._result(self.call("StopUnit", "ss", unit, "replace")[0])
        except CallError as error:
            if error.name != _NO_UNIT:
                raise
        self._reset(unit)

    def _reset(self, unit: str) -> None:
        try:
            self.call("ResetFailedUnit", "s", unit)
        except CallError as error:
            if error.name != _NO_UNIT:
                raise

    def _listen(self) -> None:
        """Over its own socket systemd tells everybody; on a bus it tells who asked."""
        if self._connection.bus:
            rule = f"type='signal',interface='{_MANAGER}',member='JobRemoved'"
            bus = "org.freedesktop.DBus"
            self._connection.call(bus, "/org/freedesktop/DBus", bus, "AddMatch", "s", rule)
            self.call("Subscribe")

    def _result(self, job: object) -> str:
        return str(self._connection.wait_for("JobRemoved", lambda values: values[1:2] == [job])[3])


def _sockets(host: "Host") -> "tuple[tuple[str, bool], tuple[str, bool]]":
    """Paths, and whether a bus listens there; systemd's own is quicker and needs no D-Bus daemon."""
    if is_system(host):
        return ("/run/systemd/private", False), ("/run/dbus/system_bus_socket", True)
    directory = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    directory = directory if directory.startswith("/") else f"/run/user/{host.euid}"
    return (directory + "/systemd/private", False), (directory + "/bus", True)
