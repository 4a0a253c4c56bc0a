"""Where a root file system comes from: a directory, or the host's own root with all that is mounted below it."""

import posix

from ..errors import UsageError
from ..host import Host, Mount
from .words import absolute_path, mount_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

OWN_IN_CONTAINER = ("/proc", "/sys", "/dev", "/run", "/tmp")
"""What a container on the host's root has of its own."""
NO_IDMAP = ("nfs", "nfs4", "9p", "cifs", "fuse", "fuseblk", "autofs", "vboxsf", "virtiofs", "overlay")
"""File systems that cannot be idmapped, or not everywhere."""
_PSEUDO = ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue", "autofs", "debugfs", "tracefs",
           "securityfs", "pstore", "bpf", "configfs", "hugetlbfs", "binfmt_misc", "fusectl", "efivarfs")  # fmt: skip

_DEVICE_DIRECTORIES = ("pts", "shm", "fd", "mqueue", "hugepages", ".lxc", ".lxd-mounts", ".udev")
_OWN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx",
                "/dev/console")  # fmt: skip


def root_of(rootfs: str, write: bool) -> str:
    """The directory that the root is made of; UsageError when it is none."""
    if not rootfs:
        if write:
            raise UsageError("--write is for --rootfs: the host's own root is never written", hint="see --keep-changes")
        return "/"
    path = absolute_path(rootfs)
    need_directory(path, "--rootfs")
    return path


def need_directory(path: str, option: str) -> None:
    if not is_directory(path):
        raise UsageError(f"{option} {path} is not a directory")


def is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def is_shown(mount: Mount) -> bool:
    """Whether a mount of the host belongs into a container on the host's root: what is on disk, seen from there."""
    if mount.type in _PSEUDO or any(is_below(mount.point, top) for top in OWN_IN_CONTAINER):
        return False
    try:
        posix.stat(mount.point)
    except OSError:
        return False
    return True


def unprivileged_root(mounts: "list[Mount]") -> "list[Json]":
    """The host's root for an ordinary user, entry by entry; `mounts` are all of the host's.

    Mounts that are copied into a user namespace are locked together, and an overlay of a directory that has some
    below it is EINVAL.  So each entry of / without mounts is overlaid, and the others are bound read-only.
    """
    points = [mount.point for mount in mounts if mount.point != "/"]
    found = []
    for name in sorted(posix.listdir("/")):
        path = "/" + name
        if path in OWN_IN_CONTAINER or path == "/lost+found":
            continue
        try:
            kind = posix.lstat(path).st_mode & 0o170000
        except FileNotFoundError:
            continue
        if kind == 0o120000:
            found.append(mount_entry(path, "bind", path, ["bind", "copy-symlink"]))
        elif kind == 0o040000 and not any(is_below(point, path) for point in points):
            found.append(mount_entry(path, "bind", path, ["bind", "O"]))
        elif kind in (0o040000, 0o100000):
            found.append(mount_entry(path, "bind", path, ["rbind", "rro"]))
    return found


def host_devices(directory: str = "/dev") -> "list[str]":
    """Device nodes of the host that --privileged gives; not those that every container has its own of."""
    found = []
    for name in sorted(posix.listdir(directory)):
        path = f"{directory}/{name}"
        kind = posix.lstat(path).st_mode & 0o170000
        if kind == 0o040000 and name not in _DEVICE_DIRECTORIES:
            found += host_devices(path)
        elif kind in (0o020000, 0o060000) and path not in _OWN_DEVICES:
            found.append(path)
    return found


def has_mqueue(host: Host) -> bool:
    return host.has_mqueue
