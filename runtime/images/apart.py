"""What is done with layers' files after they are unpacked, here or by a process that is root of the caller's own ids.

An ordinary user's layers may have files of subordinate ids, which only the root of a user namespace with these ids can
read, change and remove.
"""

import filecmp
import os
import stat

from ..trees import remove_tree
from .overlay import Owner
from .unpack import complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _complete(path: str, implied: "list[bytes]", lower: "list[str]", privileged: bool, mapped: bool) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        complete(fd, implied, lower, Owner(privileged=privileged, mapped=mapped))
    finally:
        os.close(fd)


def _discard(*paths: str) -> None:
    for path in paths:
        remove_tree(path)


def compare(right: str, found: str) -> str:
    """How one directory differs from another, which is right; "" for not at all."""
    wanted = _paths(right)
    for path in sorted(wanted ^ _paths(found)):
        return f"{path!r} is {'missing' if path in wanted else 'one too many'}"
    for path in sorted(wanted):
        ours, theirs = os.path.join(right, path), os.path.join(found, path)
        if _facts(ours) != _facts(theirs):
            return f"{path!r} has other attributes"
        if stat.S_ISREG(os.lstat(ours).st_mode) and not filecmp.cmp(ours, theirs, shallow=False):
            return f"{path!r} has another content"
    return ""


def _paths(root: str) -> "set[str]":
    found = {"."}
    for above, directories, files in os.walk(root):
        found |= {os.path.relpath(os.path.join(above, name), root) for name in (*directories, *files)}
    return found


def _facts(path: str) -> "tuple[object, ...]":
    status = os.lstat(path)
    keys = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = [(key, os.getxattr(path, key, follow_symlinks=False)) for key in keys]
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns, size, link, attributes)


FUNCTIONS: "dict[str, Callable[..., Any]]" = {"complete": _complete, "discard": _discard, "compare": compare}
"""What a process can be asked for by name."""
