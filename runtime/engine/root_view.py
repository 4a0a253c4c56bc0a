"""The root of a container as a helper sees it: the running one, or what would be its root, mounted for the helper."""

import os
import posix

from ..config import mounts
from ..config.mounts import TMPFS, VOLUME
from ..errors import NotFoundError, StateError
from ..host import Host
from ..steps import MAKE_DIR, MAKE_FILE, LaunchPlan
from ..syscalls import O_PATH
from .helper import NEWNS, Helper, enter, start
from .lifecycle import configured
from .processes import refuse_machine
from .volumes import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .records import Record

    Json = dict[str, Any]

_SLAVE = 1 << 19
_SAFE = 0x2 | 0x4 | 0x8  # nosuid, nodev, noexec
_READ_ONLY = 0x1


def on_container(record: "Record", request: "Json", *, writes: bool, volumes: bool = True) -> Helper:
    """Start a task on the root of a container; `writes` says which way the stream goes.  Lock held if it does not run.

    Raises StateError for a container without a root of its own that does not run.
    """
    refuse_machine(record, "files", "and only its guest knows them", hint="exec, or mount a directory with -v")
    pid = record.state_dir.process()
    if pid:
        return _on_running(pid, request, writes=writes)
    plan, host = LaunchPlan(), Host.probe()
    enter(plan, host, NEWNS)
    _mount_root(plan, record, volumes=volumes)
    return start(plan, {**request, "mounted": True}, -1, writes=writes)


def _on_running(pid: int, request: "Json", *, writes: bool) -> Helper:
    host, plan = Host.probe(), LaunchPlan()
    enter(plan, host, 0)
    if host.privileged:
        uids, gids = _extents(pid, "uid"), _extents(pid, "gid")
        request = {**request, "uids": uids, "gids": gids}
        if (uids[0][1], gids[0][1]) != (0, 0):
            request["create_as"] = [uids[0][1], gids[0][1]]
    try:
        root = posix.open(f"/proc/{pid}/root", O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise StateError("the container has just ended", hint="try again") from error
    try:
        return start(plan, {**request, "mounted": False}, root, writes=writes)
    finally:
        posix.close(root)


def _extents(pid: int, kind: str) -> "list[list[int]]":
    """The lines of a process's uid_map or gid_map."""
    with open(f"/proc/{pid}/{kind}_map", encoding="ascii") as file:
        return [[int(number) for number in line.split()] for line in file]


def _mount_root(plan: LaunchPlan, record: "Record", *, volumes: bool) -> None:
    """The root of a container that does not run, stacked on "/", which our own paths do not see."""
    config = configured(record)
    plan.add("scratch", ["mode=700"])
    root = plan.slot()
    if config.rootfs and config.write:
        plan.add("open_tree", root, config.rootfs, 0)
    elif config.layers or config.rootfs:
        lowers = [_clone(plan, path) for path in config.layers or [config.rootfs]]
        keep = _clone(plan, config.keep_changes)
        userxattr = ["userxattr"] if record.marks_for_users() else []
        plan.add("overlay", root, keep, [str(slot) for slot in lowers], userxattr)
    else:
        hint = f"warren start {record.name}"
        raise StateError(f"container {record.name!r} has nothing of its own while it does not run", hint=hint)
    plan.add("mount_setattr", root, 0, _SAFE, 0, 0, -1)
    plan.add("root", root, "")
    for wish in mounts.resolved(config) if volumes else ():
        source = _source(wish)
        if source and os.path.exists(source):
            slot = _clone(plan, source)
            plan.add("mount_setattr", slot, 0, _SAFE | (0 if wish.writable else _READ_ONLY), 0, 0, -1)
            plan.add("bind", slot, wish.target, MAKE_DIR | MAKE_FILE)


def _clone(plan: LaunchPlan, path: str) -> int:
    slot = plan.slot()
    plan.add("open_tree", slot, path, 0)
    plan.add("mount_setattr", slot, 0, 0, 0, _SLAVE, -1)
    return slot


def _source(wish: "mounts.Wish") -> str:
    if wish.type == TMPFS or "O" in wish.options:
        return ""
    if wish.type == VOLUME:
        try:
            return Volume(wish.name).source
        except NotFoundError:
            return ""
    return wish.source
