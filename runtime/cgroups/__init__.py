"""A container's cgroup: one directory in the v2 tree and one in each hierarchy that a host still binds to v1.

Owns making, killing and removing them; limits come with their drivers.  Paths alone say what belongs to a
container, so that the clean-up after a crash needs nothing but them.
"""

import posix
import select
import time
from errno import EACCES, EBUSY, EEXIST, ENOENT, ENOTEMPTY, EPERM, EROFS

from ..errors import StateError
from . import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..host import Host
    from ..spec import Spec

_REMOVE_SECONDS = 10.0


class Cgroup:
    """Directories of one container.

    `unified` is the cgroup2 directory ("" without one), `legacy` maps a v1 hierarchy's name (its controllers, or
    "name=systemd") to its directory; `made` are parents that `create` had to make and `remove` may take away again.
    """

    __slots__ = ("legacy", "made", "unified")

    def __init__(self, unified: str, legacy: "dict[str, str]", made: "Iterable[str]" = ()) -> None:
        self.unified = unified
        self.legacy = legacy
        self.made = list(made)

    def directories(self) -> "list[str]":
        return [path for path in (self.unified, *self.legacy.values()) if path]

    def create(self) -> None:
        """Make every directory; parents that are missing too.  Raises OSError naming the directory."""
        for name, path in self.legacy.items():
            _make(path)
            if "cpuset" in name.split(","):
                _inherit_cpuset(path)
        if self.unified:
            _make(self.unified)

    def apply(self, resources: "dict[str, Any]") -> None:
        """Set the device rules, the only resource so far, where a v1 hierarchy takes them."""
        path = self.legacy.get("devices")
        for file, line in devices.writes(resources.get("devices") or []) if path else ():
            _write(f"{path}/{file}", line)

    def unenforced(self, config: "dict[str, Any]") -> "dict[str, str]":
        """What of a container's resources is not enforced, by name, with the reason."""
        if not self.directories():
            return {"cgroup": "none: the caller may not make one"}
        if ((config.get("linux") or {}).get("resources") or {}).get("devices") and "devices" not in self.legacy:
            return {"devices": "not enforced: needs a v1 devices hierarchy until device programs for v2 come"}
        return {}

    def missing_parents(self) -> "list[str]":
        """Parents that create() will make, outermost first; recorded before it does."""
        missing = []
        for path in self.directories():
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
        return Cgroup(below, self.legacy) if below.startswith(self.unified + "/") else self

    def processes(self) -> "list[int]":
        """Host pids of everything in the cgroup and below it."""
        top = next(iter(self.directories()), "")
        return sorted(_processes(top)) if top else []

    def populated(self) -> bool:
        return bool(self.processes())

    def kill(self) -> None:
        """SIGKILL everything inside, through cgroup.kill (Linux 5.14) where there is a v2 directory."""
        if self.unified:
            try:
                _write(self.unified + "/cgroup.kill", "1")
                return
            except OSError as error:
                if error.errno == ENOENT and not _exists(self.unified):
                    return
        _kill_each(self)

    def frozen(self) -> bool:
        return "frozen 1" in _read(self.unified + "/cgroup.events") if self.unified else False

    def remove(self) -> None:
        """Remove the directories, waiting for killed processes to leave; idempotent.

        Raises StateError when they do not leave within ten seconds (an uninterruptible sleep).
        """
        deadline = time.monotonic() + _REMOVE_SECONDS
        for path in self.directories():
            _remove_tree(path, self.unified, deadline)
        for path in reversed(self.made):
            try:
                posix.rmdir(path)
            except OSError as error:
                if error.errno not in (ENOENT, EBUSY, ENOTEMPTY):
                    raise


def for_container(spec: "Spec | None", container_id: str, host: "Host") -> Cgroup:
    """Name the cgroup of a container: linux.cgroupsPath below each hierarchy's mount, else warren-ID."""
    linux = (spec.config.get("linux") or {}) if spec is not None else {}
    relative = "/" + (str(linux.get("cgroupsPath") or "").strip("/") or "warren-" + container_id)
    unified = host.cgroup_unified + relative if host.cgroup_unified else ""
    legacy = {name: mount + relative for name, mount in host.cgroup_legacy.items()}
    if not host.privileged and not all(_writable(path) for path in [unified, *legacy.values()] if path):
        return Cgroup("", {})
    return Cgroup(unified, legacy)


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


def _writable(path: str) -> bool:
    parent = path.rpartition("/")[0]
    while parent and not _exists(parent):
        parent = parent.rpartition("/")[0]
    return posix.access(parent, posix.W_OK) and posix.access(parent + "/cgroup.procs", posix.W_OK)


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


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


def _read(path: str) -> str:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno == ENOENT:
            return ""
        raise
    try:
        parts = []
        while part := posix.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError as error:
        if error.errno == 19:  # ENODEV: the cgroup was removed while its file was open.
            return ""
        raise
    finally:
        posix.close(fd)


def _write(path: str, value: str) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, posix.strerror(error.errno or 0), path) from error
    finally:
        posix.close(fd)
