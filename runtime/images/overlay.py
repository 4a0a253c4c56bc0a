"""What an overlay of layers shows: overlayfs's marks (overlayfs.rst, "whiteouts and opaque directories") and the search
through layers, none of whose links is followed."""

import posix
import sys
from errno import ELOOP, ENODATA, ENOENT, ENOTDIR, ENOTSUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
"""How directories are opened that are not trusted."""


class Owner:
    """Whose the files are: the image's own ids (root, and who is root of subordinate ids: `mapped`), or all of them the
    caller's."""

    __slots__ = ("chowns", "namespaces")

    def __init__(self, *, privileged: bool, mapped: bool = False) -> None:
        self.chowns = privileged or mapped
        self.namespaces = (b"trusted", b"user") if privileged else (b"user",)
        """Where overlayfs reads its marks from: user.* in a user namespace (its option userxattr), else trusted.*.

        What root unpacks is for both.
        """


def is_opaque(directory: "int | str") -> bool:
    """Whether a directory of a layer, or of what a container has changed, hides what lower layers have there.

    A link is never followed: it is no directory of the layer.
    """
    for key in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if posix.getxattr(directory, key, follow_symlinks=isinstance(directory, int)) == b"y":
                return True
        except OSError as error:
            if error.errno not in (ENODATA, ENOTSUP):
                raise
    return False


def is_whiteout(status: "os.stat_result") -> bool:
    return status.st_mode & 0o170000 == 0o020000 and not status.st_rdev


def find_entry(path: bytes, layers: "list[str]") -> "os.stat_result | None":
    """What an overlay of these layers, the highest first, shows under this path."""
    above, _, name = path.rpartition(b"/")
    for parent, is_last in _directories(above, layers):
        try:
            status = posix.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if is_last:
                break
            continue
        return None if is_whiteout(status) else status
    return None


def list_entries(path: bytes, layers: "list[str]") -> "set[bytes]":
    """The names that an overlay of these layers shows in a directory."""
    shown: set[bytes] = set()
    hidden: set[bytes] = set()
    for directory, _ in _directories(path, layers):
        for name in _names(directory) - hidden:
            if not is_whiteout(posix.stat(name, dir_fd=directory, follow_symlinks=False)):
                shown.add(name)
            hidden.add(name)
    return shown


def _names(directory: int) -> "set[bytes]":
    """listdir(3) of a descriptor gives text only."""
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    return {name.encode(encoding, errors) for name in posix.listdir(directory)}


def _directories(path: bytes, layers: "list[str]") -> "Iterator[tuple[int, bool]]":
    """The directories that are merged at `path`, each with whether it hides those below it; closed behind each."""
    for layer in layers:
        fd = posix.open(layer, DIRECTORY)
        try:
            try:
                found = descend(fd, path)
            except OSError as error:
                if error.errno not in (ENOENT, ENOTDIR, ELOOP):
                    raise
                if error.errno != ENOENT or _hides(fd, path):
                    return
                continue
            try:
                is_last = is_opaque(found) or _hides(fd, path)
                yield found, is_last
            finally:
                posix.close(found)
            if is_last:
                return
        finally:
            posix.close(fd)


def find_directory(path: bytes, layers: "list[str]") -> int:
    """What an overlay of these layers, the highest first, shows as the directory `path`: a descriptor, or -1."""
    for directory, _ in _directories(path, layers):
        return posix.dup(directory)
    return -1


def descend(directory: int, path: bytes) -> int:
    """Open a directory below another one, no part of it a link."""
    fd = posix.dup(directory)
    for name in path.split(b"/") if path else ():
        try:
            deeper = posix.open(name, DIRECTORY, dir_fd=fd)
        finally:
            posix.close(fd)
        fd = deeper
    return fd


def _hides(directory: int, path: bytes) -> bool:
    """Whether one of the directories that are there on the way to `path` is opaque."""
    parts = path.split(b"/")
    for depth in range(len(parts)):
        try:
            fd = descend(directory, b"/".join(parts[:depth]))
        except FileNotFoundError:
            break
        try:
            if is_opaque(fd):
                return True
        finally:
            posix.close(fd)
    return False
