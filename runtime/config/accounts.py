"""Users of a root file system: its /etc/passwd and /etc/group, read without leaving it and without waiting."""

import posix
from errno import ELOOP, ENOENT, ENOTDIR, ENXIO

from ..errors import UsageError
from ..syscalls import O_PATH, openat2_in_root

_MAX_DATABASE = 1 << 20


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Account:
    """A user of the container's root file system."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, home: str, groups: "list[int]") -> None:
        self.uid = uid
        self.gid = gid
        self.home = home
        self.groups = groups


class Accounts:
    """/etc/passwd and /etc/group below a root, or in the topmost layer that has them, read without leaving it and
    without waiting (RULES 11)."""

    def __init__(self, roots: "Sequence[str]") -> None:
        self._roots = roots
        self._lines: dict[str, list[list[str]]] = {}

    def find(self, text: str) -> Account:
        """NAME|UID[:NAME|GID].  Digits are numbers, never names; UsageError for anything unknown or malformed."""
        user, colon, group = text.partition(":")
        if not user or (colon and not group) or ":" in group:
            raise UsageError(f"--user {text!r} is malformed", hint="NAME|UID[:NAME|GID]")
        number = str(_number(user, "uid")) if user.isdecimal() else ""
        entry = self._passwd(number or user, 2 if number else 0)
        uid = int(number) if number else _field(entry, 2, f"user {user!r}")
        gid = _field(entry, 3, f"group of user {user!r}") if entry else 0
        if group:
            gid = self._gid(group)
        home = entry[5] if entry and len(entry) > 5 and entry[5].startswith("/") else "/"
        return Account(uid, gid, home, self._groups(entry[0], gid) if entry else [])

    def _passwd(self, user: str, column: int) -> "list[str] | None":
        return next((row for row in self._rows("passwd") if len(row) > 3 and row[column] == user), None)

    def _gid(self, group: str) -> int:
        if group.isdecimal():
            return _number(group, "gid")
        entry = next((row for row in self._rows("group") if len(row) > 2 and row[0] == group), None)
        return _field(entry, 2, f"group {group!r}")

    def _groups(self, user: str, gid: int) -> "list[int]":
        """Supplementary groups of a user, by /etc/group."""
        rows = [row for row in self._rows("group") if len(row) > 3 and user in row[3].split(",")]
        return sorted({_field(row, 2, f"group {row[0]!r}") for row in rows} - {gid})

    def _rows(self, name: str) -> "list[list[str]]":
        if name not in self._lines:
            self._lines[name] = [line.split(":") for line in self._text(f"etc/{name}").splitlines()]
        return self._lines[name]

    def _text(self, path: str) -> str:
        """The file that an overlay of the roots, the highest first, shows; "" when there is none."""
        for root in self._roots:
            text = read_inside(root, path)
            if text is not None:
                return text
            if len(self._roots) > 1 and _is_opaque(f"{root}/{path.rpartition('/')[0]}"):
                break
        return ""


def _is_opaque(directory: str) -> bool:
    from ..images.overlay import is_opaque

    try:
        return is_opaque(directory)
    except OSError:
        return False  # The layer has no such directory.


def read_inside(root: str, path: str) -> "str | None":
    """A small regular file below `root`, no link out of it followed; "" for a whiteout, None when there is nothing.

    UsageError for another kind of file or one over 1 MiB: an image must not make us wait on a FIFO.
    """
    flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC
    top = posix.open(root, O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        # No link leads out of "/".
        fd = _open_inside(top, path, flags) if root != "/" else posix.open("/" + path, flags)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return None
        if error.errno == ENXIO:
            return ""
        raise UsageError(f"{path} in the root file system: {posix.strerror(error.errno or 0)}".lower()) from error
    finally:
        posix.close(top)
    try:
        info = posix.fstat(fd)
        if info.st_mode & 0o170000 != 0o100000 or info.st_size > _MAX_DATABASE:
            raise UsageError(f"{path} in the root file system is not a regular file of at most 1 MiB")
        return posix.read(fd, _MAX_DATABASE).decode("utf-8", "replace")
    finally:
        posix.close(fd)


def _open_inside(top: int, path: str, flags: int) -> int:
    """Part by part while none is a link; else by openat2(2), which costs 3 ms for ctypes."""
    parts = path.split("/")
    directory = posix.dup(top)
    try:
        for part in parts[:-1]:
            deeper = posix.open(part, O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=directory)
            posix.close(directory)
            directory = deeper
        return posix.open(parts[-1], flags | posix.O_NOFOLLOW, dir_fd=directory)
    except OSError as error:
        if error.errno not in (ELOOP, ENOTDIR):
            raise
        return openat2_in_root(top, path, flags)
    finally:
        posix.close(directory)


def _number(text: str, kind: str) -> int:
    """A number that is an id: 2^32-1 means "none" to the kernel (RULES 11)."""
    if not text.isascii() or len(text) > 10 or int(text) > 0xFFFFFFFE:
        raise UsageError(f"{kind} {text} is out of range", hint="0 to 4294967294")
    return int(text)


def _field(entry: "list[str] | None", column: int, what: str) -> int:
    if entry is None:
        raise UsageError(f"{what} is unknown in the root file system", hint="use a number")
    if not entry[column].isdecimal():
        raise UsageError(f"{what} has no number in the root file system")
    return _number(entry[column], what)
