"""Ranges of 65,536 host ids, one for each container that root runs in a user namespace."""

import fcntl
import posix

from ..errors import UsageError
from ..namespaces.user import RANGE
from ..state import container_ids, make_root, own_start_time, start_time, unlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST_RANGE, _END_OF_RANGES = 0x70000000, 0x7FFE0000
"""Ids that systemd's overview leaves unused (Users, Groups, UIDs and GIDs on systemd Systems): 4,094 ranges."""


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
    target = f"{container_id} {posix.getpid()} {own_start_time()}"
    lock = _lock(directory)
    try:
        for offset in range(count):
            number = (start + offset) % count
            try:
                posix.symlink(target, f"{directory}/{number}")
                return _FIRST_RANGE + number * RANGE
            except FileExistsError:
                continue
    finally:
        unlock(lock)
    raise UsageError(f"all {count} ranges of ids are taken", hint="remove containers, or use --userns host")


def release_ids(root: str, container_id: str) -> None:
    """Give back every lease of a container."""
    for path, holder, _pid, _started in _leases(root):
        if holder == container_id:
            _unlink(path)


def reclaim_ids(root: str) -> None:
    """Give back leases whose container is gone and whose taker has died before making it."""
    try:
        lock = _lock(f"{root}/.ids")
    except FileNotFoundError:
        return
    try:
        leases = list(_leases(root))
        there = set(container_ids(root)) if leases else set()
        for path, holder, pid, started in leases:
            if holder not in there and start_time(int(pid)) != started:
                _unlink(path)
    finally:
        unlock(lock)


def _lock(directory: str) -> int:
    """Lock out others who take or reclaim: of two who find a lease abandoned, the slower would remove a new one."""
    fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _leases(root: str) -> "Iterator[tuple[str, str, str, str]]":
    directory = f"{root}/.ids"
    try:
        names = posix.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        try:
            holder, pid, started = posix.readlink(f"{directory}/{name}").split(" ")
        except (OSError, ValueError):
            continue  # Given back meanwhile, or no lease.
        yield f"{directory}/{name}", holder, pid, started


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass
