"""Handing controllers down the v2 tree, and a container's cgroup to its own root.

Only what is needed is enabled, and nothing is moved: a cgroup with processes of its own stays as it is ("no internal
processes", cgroup-v2.rst).
"""

import posix
from errno import EACCES, EBUSY, ENOENT, EOPNOTSUPP, EPERM, EROFS

from ..errors import StateError, UnsupportedError
from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..host import Host

_OWNED = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n"


def enable(path: str, mount: str, controllers: "Iterable[str]") -> None:
    """Give the cgroup `path` its controllers: each directory from the mount down to the parent passes them on.

    Raises StateError or UnsupportedError naming the cgroup that cannot.
    """
    needed = set(controllers)
    parent = path.rpartition("/")[0]
    at = mount
    for name in ["", *parent[len(mount) :].strip("/").split("/")]:
        at = f"{at}/{name}" if name else at
        if missing := _missing(at, needed):
            _pass_on(at, missing)


def _missing(directory: str, needed: "set[str]") -> "list[str]":
    return sorted(needed - set(files.read(directory + "/cgroup.subtree_control").split()))


def _pass_on(directory: str, controllers: "list[str]") -> None:
    try:
        files.write(directory + "/cgroup.subtree_control", " ".join(["+" + name for name in controllers]))
    except OSError as error:
        raise _refusal(directory, ", ".join(controllers), error) from error


def _refusal(directory: str, names: str, error: OSError) -> Exception:
    what = f"cgroup {directory}: cannot enable {names} for what is below it"
    if error.errno == EBUSY:
        return StateError(f"{what}: it has processes of its own", hint="choose another parent, or move them to a leaf")
    if error.errno == EOPNOTSUPP:
        return StateError(f"{what}: it is threaded", hint="choose another parent")
    if error.errno in (EACCES, EPERM, EROFS):
        return UnsupportedError(f"{what}: not permitted", hint="it has not been delegated to this user")
    if error.errno == ENOENT:
        return UnsupportedError(f"{what}: its parent does not pass them on", hint="choose another parent")
    return error


def own(host: "Host") -> str:
    """Where an ordinary user may make cgroups: the nearest to his own one that has no processes, else his own; or "".

    Not among the units of a slice, of which systemd alone has the say.
    """
    line = next((line for line in files.read("/proc/self/cgroup").splitlines() if line.startswith("0::/")), "")
    path = line[3:].rstrip("/")
    if not host.cgroup_unified or not line or "/.." in path or not _writable(host.cgroup_unified + path):
        return ""
    at = path
    while not can_pass_on(host.cgroup_unified + at):
        at = at.rpartition("/")[0]
        if not at or at.endswith(".slice") or not _writable(host.cgroup_unified + at):
            return host.cgroup_unified + path
    return host.cgroup_unified + at


def can_pass_on(directory: str) -> bool:
    """Whether it has no processes of its own, which would keep it from enabling controllers for its children."""
    return not files.read(directory + "/cgroup.procs").strip()


def _writable(directory: str) -> bool:
    """Both are needed to move a process below it (cgroup-v2.rst, "Delegation Containment")."""
    return posix.access(directory, posix.W_OK) and posix.access(directory + "/cgroup.procs", posix.W_OK)


def owner(config: "dict[str, Any]") -> int:
    """Host uid that the container's v2 cgroup is to belong to, -1 for the caller's.

    config-linux.md, "Cgroup ownership": with a cgroup namespace of its own and /sys/fs/cgroup mounted read-write, the
    directory belongs to the host uid of process.user.uid.
    """
    linux = config.get("linux") or {}
    kinds = {entry["type"]: entry.get("path") for entry in linux.get("namespaces") or ()}
    if kinds.get("cgroup", "-") or kinds.get("user", "-") or not _writable_mount(config):
        return -1
    uid = int(((config.get("process") or {}).get("user") or {}).get("uid") or 0)
    for entry in linux.get("uidMappings") or ():
        if entry["containerID"] <= uid < entry["containerID"] + entry["size"]:
            return int(entry["hostID"] + uid - entry["containerID"])
    return -1


def _writable_mount(config: "dict[str, Any]") -> bool:
    mounts = [m for m in config.get("mounts") or () if m["destination"].rstrip("/") == "/sys/fs/cgroup"]
    return (
        bool(mounts)
        and mounts[-1].get("type") in ("cgroup", "cgroup2")
        and "ro" not in (mounts[-1].get("options") or ())
    )


def give(path: str, uid: int) -> None:
    """Let `uid` make cgroups below `path`: the directory and the files that the kernel lists for that, no others."""
    posix.chown(path, uid, -1)
    for name in (files.read("/sys/kernel/cgroup/delegate") or _OWNED).split():
        try:
            posix.chown(f"{path}/{name}", uid, -1)
        except OSError as error:
            # A list of all files of this kernel: those of controllers that are not enabled are not here.
            if error.errno != ENOENT:
                raise
