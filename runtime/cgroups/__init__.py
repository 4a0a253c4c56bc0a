"""A container's cgroup: one directory in the v2 tree and one in each hierarchy that a host still binds to v1.

Owns making, killing and removing them, and what is written to them.  Paths alone say what belongs to a container, so
that the clean-up after a crash needs nothing but them.

    limits.py          which hierarchy holds which limit; unified.py and legacy.py: what to write, checks.py: what never
    settings.py files.py    one value for one file, and what the kernel says to it
    devices.py device_program.py programs.py    device rules: their meaning, as a program, and its life in the kernel
    delegation.py      controllers down the v2 tree, ownership, where an ordinary user may make a cgroup
    systemd.py dbus.py unit_properties.py    the cgroup as a scope of systemd
    update.py freezer.py oom.py stats.py events.py    what happens to a container that runs
"""

import posix
import select
import time
from errno import EACCES, EBUSY, EEXIST, ENOENT, ENOTEMPTY, EPERM, EROFS

from ..errors import StateError, UnsupportedError, UsageError, WarrenError
from ..host import Host
from . import devices
from .files import exists as _exists
from .files import hierarchy as _hierarchy
from .files import read as _read
from .files import write as _write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..spec import Spec
    from .settings import Setting

_REMOVE_SECONDS = 10.0
_NO_CGROUP = "none: the caller may not make one"
_HOLDERS = (
    "not enforced: device programs need root outside of user namespaces",
    "devices.allow and devices.deny (cgroup v1 devices)",
    "a device program (cgroup v2)",
)


class Cgroup:
    """Directories of one container.

    `unified` is the cgroup2 directory ("" without one), `legacy` maps a v1 hierarchy's name (its controllers, or
    "name=systemd") to its directory; `made` are parents that `create` had to make and `remove` may take away again.
    With `best_effort` limits that this host cannot hold are noted in `enforced` instead of refused.  `unit` is the
    scope, in `slice`, whose cgroup it is; "" where it is not systemd's.
    """

    __slots__ = ("_found", "best_effort", "legacy", "made", "slice", "unified", "unit")

    def __init__(
        self,
        unified: str,
        legacy: "dict[str, str]",
        made: "Iterable[str]" = (),
        *,
        best_effort: bool = False,
        unit: str = "",
        slice: str = "",
    ) -> None:
        self.unified = unified
        self.legacy = legacy
        self.made = list(made)
        self.best_effort = best_effort
        self.unit = unit
        self.slice = slice
        self._found: tuple[object, list[Setting]] = (None, [])

    def directories(self) -> "list[str]":
        return [path for path in (self.unified, *self.legacy.values()) if path]

    def start_unit(self, pid: int, config: "dict[str, Any]", host: "Host") -> None:
        """Before create(): have systemd make the scope and move `pid` in.  Raises as systemd.start()."""
        from . import systemd

        early = [setting for setting in self._settings(config, host) if not _is_late(setting)]
        rules = _resources(config).get("devices") or []
        systemd.start(self, pid, config.get("annotations") or {}, early, rules, host)

    def forget(self) -> None:
        """It turned out to be somebody else's."""
        self.unified, self.legacy, self.made, self.unit = "", {}, [], ""

    def check_empty(self) -> None:
        """Refuse a cgroup that holds somebody's processes: the container's limits would be theirs, and its end, too.

        StateError, in runc's words.
        """
        for path in self.directories():
            if _exists(path) and (found := len(_processes(path))):
                raise StateError(f"container's cgroup is not empty: {found} process(es) found in {path}")

    def create(self) -> None:
        """Make every directory; parents that are missing too.  Raises OSError naming the directory."""
        for name, path in self.legacy.items():
            _make(path)
            if "cpuset" in name.split(","):
                _inherit_cpuset(path)
        if self.unified:
            _make(self.unified)

    def apply(self, config: "dict[str, Any]", host: "Host") -> None:
        """Set every limit of linux.resources, and the v1 device rules; nothing is touched where nothing is asked.

        A device program for v2 is a step of the launch plan, and what holds_late() is left to apply_late().  Raises
        WarrenError and its kin, naming the limit.
        """
        wanted = [setting for setting in self._settings(config, host) if not _is_late(setting)]
        if wanted and self.directories():
            from . import settings

            self.enable({s.controller for s in wanted if s.version == 2 and s.file and s.controller != "cgroup"}, host)
            settings.write_all(self, wanted, best_effort=self.best_effort)
        path = self.legacy.get(_hierarchy(self.legacy, "devices"))
        if path:
            devices.write(path, _resources(config).get("devices") or [])

    def holds_late(self, config: "dict[str, Any]", host: "Host") -> bool:
        """Whether there are limits that would keep the container's own process from being made."""
        return any(_is_late(setting) for setting in self._settings(config, host))

    def apply_late(self, config: "dict[str, Any]", host: "Host") -> None:
        """Set these, once the process is there; errors as apply()'s."""
        from . import settings

        late = [setting for setting in self._settings(config, host) if _is_late(setting)]
        if self.unit:
            from . import systemd

            systemd.set_properties(self, systemd.properties(late), host)
        self.enable({setting.controller for setting in late if setting.version == 2}, host)
        settings.write_all(self, late, best_effort=self.best_effort)

    def _settings(self, config: "dict[str, Any]", host: "Host") -> "list[Setting]":
        """What limits.py makes of linux.resources, once a launch: three places ask.

        The drivers are not even loaded where nothing but device rules is asked.
        """
        resources = _resources(config)
        if not any(resources[name] for name in resources if name != "devices"):
            return []
        if self._found[0] is not resources:
            from . import limits

            self._found = resources, limits.settings(resources, host, best_effort=self.best_effort)
        return self._found[1]

    def enable(self, controllers: "set[str]", host: "Host") -> None:
        """Have these v2 controllers; the usual case, a parent that passes them on already, costs one read."""
        parent = self.unified.rpartition("/")[0]
        if self.unified and controllers - set(_read(parent + "/cgroup.subtree_control").split()):
            from . import delegation

            delegation.enable(self.unified, host.cgroup_unified, controllers)

    def give_to_container(self, config: "dict[str, Any]") -> None:
        """Let the root of the container's user namespace make cgroups of its own, where the spec says so."""
        if self.unified and not self.legacy and (config.get("linux") or {}).get("uidMappings"):
            from . import delegation

            uid = delegation.owner(config)
            if uid >= 0:
                delegation.give(self.unified, uid)

    def enforced(self, config: "dict[str, Any]", host: "Host") -> "dict[str, str]":
        """How each limit that was asked for is held, or why it is not, by name."""
        found: dict[str, str] = {}
        nowhere = not self.directories()
        if nowhere:
            found["cgroup"] = _NO_CGROUP
        for setting in self._settings(config, host):
            # What one limit needs beyond its first file (reservations of huge pages) goes without saying.
            if not setting.lifts:
                found.setdefault(setting.limit, "not enforced: no cgroup" if nowhere else str(setting))
        if not nowhere and _resources(config).get("devices"):
            found["devices"] = _HOLDERS[devices.holder(host)]
        return found

    def missing_parents(self) -> "list[str]":
        """Parents that create() will make, outermost first; recorded before it does.  Slices are systemd's."""
        if self.unit:
            from . import systemd

            paths = [path for name, path in self.legacy.items() if not systemd.makes(name)]
        else:
            paths = self.directories()
        missing = []
        for path in paths:
            parent = path.rpartition("/")[0]
            while not _exists(parent):
                missing.append(parent)
                parent = parent.rpartition("/")[0]
        return sorted(missing, key=len)

    def join_paths(self) -> "list[str]":
        """Files that a single-threaded process writes 0 to in order to join; v2 is joined by clone3(2)."""
        return [path + "/tasks" for path in self.legacy.values()]

    def beside(self, pid: int, host: "Host") -> "Cgroup":
        """Where another process of the container can join.

        Not in a v2 directory that has controllers enabled for its children (cgroups(7), "no internal processes"):
        that of the container's process `pid` then, which moved on before it could enable them.
        """
        if not self.unified or not _read(self.unified + "/cgroup.subtree_control").strip():
            return self
        below = of_process(pid, host).unified
        return Cgroup(below, self.legacy, unit=self.unit) if below.startswith(self.unified + "/") else self

    def below(self, paths: "dict[str, str]") -> "Cgroup":
        """The cgroups that others have made below this one, by controller; under "" one path for all hierarchies.

        Raises UsageError for what is not below, or does not exist.
        """
        if "" in paths:
            paths = {"": paths[""], **dict.fromkeys(self.legacy, paths[""])}
        legacy = dict(self.legacy)
        for wanted, path in paths.items():
            name = wanted if wanted in legacy else next((n for n in legacy if wanted in n.split(",")), "")
            if wanted and not name:
                raise UsageError(f"--cgroup: the container is in no hierarchy of {wanted!r}")
            if name:
                legacy[name] = _below(self.legacy[name], path)
        unified = _below(self.unified, paths[""]) if self.unified and "" in paths else self.unified
        return Cgroup(unified, legacy, unit=self.unit)

    def processes(self) -> "list[int]":
        """Host pids of everything in the cgroup and below it."""
        top = next(iter(self.directories()), "")
        return sorted(_processes(top)) if top else []

    def populated(self) -> bool:
        return bool(self.processes())

    def kill(self) -> None:
        """SIGKILL everything inside, through cgroup.kill (Linux 5.14) where there is a v2 directory."""
        self._thaw_to_die()
        if self.unified:
            try:
                _write(self.unified + "/cgroup.kill", "1")
                return
            except OSError as error:
                if error.errno == ENOENT and not _exists(self.unified):
                    return
        _kill_each(self)

    def frozen(self) -> bool:
        """Whether it has been told to freeze and has come to rest."""
        if self.unified and "frozen 1" in _read(self.unified + "/cgroup.events"):
            return True
        legacy = self.legacy.get("freezer")
        return bool(legacy) and _read(f"{legacy}/freezer.state").strip() == "FROZEN"

    def freeze(self) -> None:
        """Stop every process; raises StateError, with everything thawed, when one does not stop in ten seconds."""
        from . import freezer

        freezer.freeze(self)

    def thaw(self) -> None:
        from . import freezer

        freezer.thaw(self)

    def _thaw_to_die(self) -> None:
        """A frozen v1 cgroup takes SIGKILL only when it is thawed; v2 needs no help."""
        legacy = self.legacy.get("freezer")
        if legacy and _read(legacy + "/freezer.state").strip() not in ("", "THAWED"):
            _write(legacy + "/freezer.state", "THAWED")

    def remove(self) -> None:
        """Remove the scope and the directories, waiting for killed processes to leave; idempotent.

        Raises StateError when they do not leave within ten seconds (an uninterruptible sleep).
        """
        if self.unit:
            from . import systemd

            systemd.stop(self.unit, Host.probe())
        deadline = time.monotonic() + _REMOVE_SECONDS
        for path in self.directories():
            _remove_tree(path, self.unified, deadline)
        for path in reversed(self.made):
            try:
                posix.rmdir(path)
            except OSError as error:
                if error.errno not in (ENOENT, EBUSY, ENOTEMPTY):
                    raise


def for_container(
    spec: "Spec | None", container_id: str, host: "Host", *, best_effort: bool = False, manager: str = "cgroupfs"
) -> Cgroup:
    """Name the cgroup of a container; none where the caller may not make one.

    linux.cgroupsPath, else warren-ID, below each hierarchy's mount, or for an ordinary user below what has been
    delegated to him.  With the `manager` "systemd" a scope; with "auto" for an ordinary user who has nothing else.
    """
    linux = (spec.config.get("linux") or {}) if spec is not None else {}
    asked = str(linux.get("cgroupsPath") or "")
    if manager == "systemd":
        return _scope(asked, container_id, host, best_effort=best_effort)
    relative = "/" + (
        "/".join([part for part in asked.split("/") if part not in ("", ".")]) or "warren-" + container_id
    )
    unified = host.cgroup_unified + relative if host.cgroup_unified else ""
    legacy = {name: mount + relative for name, mount in host.cgroup_legacy.items()}
    if host.privileged and host.initial_userns:
        return Cgroup(unified, legacy, best_effort=best_effort)
    if all(_writable(path) for path in [unified, *legacy.values()] if path):
        return Cgroup(unified, legacy, best_effort=best_effort)
    from . import delegation

    base = delegation.own(host) if not legacy else ""
    if manager == "auto" and not asked and not (base and delegation.can_pass_on(base)):
        try:
            return _scope("", container_id, host, best_effort=best_effort)
        except WarrenError:
            pass  # No manager, or one that will not have us: it is what there is without.
    return Cgroup(base and base + relative, {}, best_effort=best_effort)


def _scope(path: str, container_id: str, host: "Host", *, best_effort: bool) -> Cgroup:
    from . import systemd

    slice, unit, relative = systemd.locate(path, container_id, host)
    return Cgroup(
        host.cgroup_unified + relative if host.cgroup_unified else "",
        {name: mount + relative for name, mount in host.cgroup_legacy.items()},
        best_effort=best_effort,
        unit=unit,
        slice=slice,
    )


def check(config: "dict[str, Any]", cgroup: Cgroup, host: "Host") -> None:
    """Refuse, before anything is made, limits that contradict themselves or that this host cannot hold.

    Raises SpecError or UnsupportedError.  Zero, null and unlimited values are no limit, but for pids.limit.
    """
    resources = _resources(config)
    if not resources:
        return
    rules = resources.get("devices") or []
    devices.check(rules)
    held = [setting for setting in cgroup._settings(config, host) if setting.file and not setting.lifts]
    if held and not cgroup.directories() and not cgroup.best_effort:
        raise UnsupportedError(
            f"linux.resources.{held[0].limit}: this user may not make a cgroup", hint="leave the limit out, or be root"
        )
    # In a user namespace nobody makes nodes, and mounts are nodev: there it is noted, not refused (runc).
    if not devices.is_default(rules) and not devices.holder(host) and host.privileged and host.initial_userns:
        raise UnsupportedError(
            "linux.resources.devices: this host has neither cgroup v2 nor a v1 devices hierarchy", hint="mount one"
        )


def assemble_device_program(config: "dict[str, Any]", cgroup: Cgroup, host: "Host") -> bytes:
    """The program that the launch has to attach to the v2 cgroup; none where v1, or nobody, holds the rules."""
    rules = _resources(config).get("devices")
    if not rules or not cgroup.unified or devices.holder(host) != 2:
        return b""
    if devices.is_default(rules):
        return devices.DEFAULT_PROGRAM
    from .device_program import assemble

    return assemble(rules)


def _resources(config: "dict[str, Any]") -> "dict[str, Any]":
    return (config.get("linux") or {}).get("resources") or {}


def _is_late(setting: "Setting") -> bool:
    """With fewer than two, no launch comes to its end: what joins v1 hierarchies is not yet the container's process."""
    return setting.file == "pids.max" and setting.value in ("0", "1")


def of_process(pid: int, host: "Host") -> Cgroup:
    """The cgroup that a process is in (cgroups(7), /proc/PID/cgroup), but for hierarchies where that is the root."""
    unified, legacy = "", {}
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, name, path = line.split(":", 2)
        if path == "/" or "/.." in path:
            continue
        if not name and host.cgroup_unified:
            unified = host.cgroup_unified + path
        elif name in host.cgroup_legacy:
            legacy[name] = host.cgroup_legacy[name] + path
    return Cgroup(unified, legacy)


def is_frozen(pid: int, host: "Host") -> bool:
    """Whether the cgroup of a process is frozen; of_process(pid, host).frozen() with one look at each hierarchy.

    `ps` asks this of hundreds.
    """
    try:
        lines = _read(f"/proc/{pid}/cgroup").split("\n")
    except ProcessLookupError:
        return False
    for line in lines:
        if line.startswith("0::"):
            path, file, word = host.cgroup_unified, "cgroup.events", "frozen 1"
        elif ":freezer:" in line:
            path, file, word = host.cgroup_legacy.get("freezer", ""), "freezer.state", "FROZEN"
        else:
            continue
        name = line.split(":", 2)[2]
        if path and name != "/" and "/.." not in name and word in _read(f"{path}{name}/{file}"):
            return True
    return False


def _writable(path: str) -> bool:
    parent = path.rpartition("/")[0]
    while parent and not _exists(parent):
        parent = parent.rpartition("/")[0]
    return posix.access(parent, posix.W_OK) and posix.access(parent + "/cgroup.procs", posix.W_OK)


def _make(path: str) -> None:
    """mkdir -p; a parent that a finishing neighbour removes meanwhile is made again."""
    for _ in range(16):
        try:
            posix.mkdir(path, 0o755)
            return
        except OSError as error:
            if error.errno == EEXIST:
                return
            if error.errno != ENOENT:
                raise
            _make(path.rpartition("/")[0])
    raise StateError(f"cgroup {path} is removed as fast as it is made", hint="try again")


def _inherit_cpuset(path: str) -> None:
    """A new v1 cpuset is empty and refuses every task (cpusets.rst): take over the parent's CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if _read(f"{path}/{name}").strip():
            continue
        parent = path.rpartition("/")[0]
        value = _read(f"{parent}/{name}").strip()
        if not value:
            _inherit_cpuset(parent)
            value = _read(f"{parent}/{name}").strip()
        _write(f"{path}/{name}", value)


def _processes(path: str) -> "set[int]":
    try:
        names = posix.listdir(path)
    except OSError as error:
        if error.errno == ENOENT:
            return set()
        raise
    pids = {int(pid) for pid in _read(path + "/cgroup.procs").split()}
    for name in names:
        if "." not in name and name not in ("tasks", "notify_on_release", "release_agent"):
            pids |= _processes(f"{path}/{name}")
    return pids


def _kill_each(cgroup: Cgroup) -> None:
    """Without cgroup.kill: signal until nothing is left, since children may be forked meanwhile."""
    for _ in range(1000):
        pids = [pid for path in cgroup.directories() for pid in _processes(path)]
        if not pids:
            return
        for pid in pids:
            try:
                posix.kill(pid, 9)
            except OSError as error:
                if error.errno == EPERM:
                    raise
        time.sleep(0.001)


def _remove_tree(path: str, unified: str, deadline: float) -> None:
    """rmdir, children first; EBUSY means that a killed process has not left yet."""
    while True:
        try:
            posix.rmdir(path)
            return
        except OSError as error:
            if error.errno == ENOENT:
                return
            if error.errno in (EACCES, EPERM, EROFS):
                raise
            if time.monotonic() > deadline:
                raise StateError(f"cgroup {path} is still busy", hint="a process in it does not die") from error
        for name in posix.listdir(path) if _exists(path) else []:
            if _is_directory(f"{path}/{name}"):
                _remove_tree(f"{path}/{name}", unified, deadline)
        _wait_for_change(unified)


def _is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def _wait_for_change(unified: str) -> None:
    """Wait at most 5 ms for cgroup.events to change (cgroup-v2.rst: it then polls as POLLPRI)."""
    try:
        fd = posix.open(unified + "/cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        time.sleep(0.001)
        return
    try:
        if b"populated 1" in posix.read(fd, 256):
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            poll.poll(5)
        else:
            time.sleep(0.0005)
    finally:
        posix.close(fd)


def _below(directory: str, path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"--cgroup: {path!r} is not below the container's cgroup")
    found = "/".join([directory, *parts])
    if not _exists(found):
        raise UsageError(f"--cgroup: there is no {found}")
    return found
