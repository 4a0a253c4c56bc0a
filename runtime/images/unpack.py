"""A layer's entries as files below one directory.

Everything is reached through descriptors of directories that are opened without following links, so that no entry
can name anything outside (CVE-2018-15664, CVE-2024-12718 and their kin).  Links that the layer itself laid are read
and followed name by name, as if its directory were "/".  Whiteouts become what overlayfs.rst wants.
"""

import functools
import os
import stat
from errno import (
    E2BIG,
    EEXIST,
    EINVAL,
    ELOOP,
    EMLINK,
    ENODATA,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    ENOTSUP,
    EPERM,
    ERANGE,
    errorcode,
)

from ..errors import ImageError
from . import tar
from .holes import MIN_HOLE, is_zero
from .overlay import DIRECTORY, Owner, descend, find_directory, is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .tar import Entry, Reader

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT, _OPAQUE, _AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."
_KEPT_OPEN = 64
_MAX_PART = 255
"""NAME_MAX, limits.h."""
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_MAX_LINKS = 40
"""Links in a path, as the kernel has it (path_resolution(7))."""
_MAX_STEPS = 1 << 21
"""Directories opened one below the other; a layer of 500,000 entries needs fewer than one for each."""
_MAX_NOTES = 100


class Limits:
    """What a layer may at most hold; beyond that it is taken for a bomb.  Bytes count the holes of sparse files."""

    __slots__ = ("bytes", "depth", "entries", "replaced")

    def __init__(
        self, *, entries: int = 1 << 19, bytes: int = 1 << 37, depth: int = 256, replaced: int = 1 << 13
    ) -> None:
        self.entries = entries
        self.bytes = bytes
        self.depth = depth
        self.replaced = replaced
        """Directories that are made in the place of something, or go for it: ext4 takes ten times as long for them."""


class Unpacked:
    """Notes on what of a layer could not be made, and the directories that it implies and does not name."""

    __slots__ = ("implied", "notes")

    def __init__(self, notes: "list[str]", implied: "list[bytes]") -> None:
        self.notes = notes
        self.implied = implied


def unpack(
    reader: "Reader", directory: int, owner: Owner, limits: "Limits | None" = None, *, unmasked: bool = False
) -> Unpacked:
    """Write the archive's entries below the open `directory`; complete() is to follow.

    `unmasked` says that the umask is 0 and stays it, which saves system calls.  Raises ImageError for what is malformed
    or hostile, OSError naming no path but the errno for a full disk.
    """
    layer = _Layer(directory, owner, limits or Limits(), unmasked and _is_plain(directory, owner))
    try:
        for entry in reader:
            layer.add(entry, reader.data())
        implied = layer.finish()
        layer.tell_others()
        return Unpacked(layer.notes, implied)
    finally:
        layer.close()


def complete(directory: int, implied: "list[bytes]", lower: "list[str]", owner: Owner) -> None:
    """Let directories that a layer implies keep what the layers below it, the highest first, say of them.

    Of which nobody says anything have the beginning of time as theirs: the same archive always gives the same layer.
    """
    for path in implied:
        fd = descend(directory, path)
        try:
            model = find_directory(path, lower)
            if model < 0:
                os.utime(fd, ns=(0, 0))
                continue
            try:
                _copy_attributes(model, fd, owner)
            finally:
                os.close(model)
        finally:
            os.close(fd)


class _Layer:
    def __init__(self, root: int, owner: Owner, limits: Limits, plain: bool) -> None:
        self.notes: list[str] = []
        self._root = root
        self._owner = owner
        self._limits = limits
        self._open: dict[bytes, int] = {}
        self._directories: dict[bytes, Entry] = {}
        self._implied: set[bytes] = {b""}
        self._links: dict[bytes, bytes] = {}
        """Directories that were reached through links, and where they are."""
        self._stale: list[int] = []
        self._last: tuple[bytes, bytes, int] | None = None
        """The directory of the last entry: how it was called, where it is, and its descriptor."""
        self._plain = plain
        """Whether files get the mode that open(2) is told."""
        self._entries = 0
        self._steps = 0
        self._replaced = 0
        self._others = ""
        self._other_count = 0
        self._bytes = 0

    def add(self, entry: "Entry", data: "Iterator[memoryview]") -> None:
        self._count(entry.length)
        above, _, name = entry.name.rpartition(b"/")
        last = self._last
        # Most entries lie beside the one before; what has been looked at is not looked at again.
        if last is None or above != last[0] or name.startswith(b".") or not 0 < len(name) <= _MAX_PART:
            found = self._place(entry)
            if found is None:
                return
            place, parent, name = found
            if name.startswith(_WHITEOUT):
                self._whiteout(parent, name)
                return
        else:
            place, parent = last[1], last[2]
        self._make(entry, _join(place, name), parent, name, data)

    def _place(self, entry: "Entry") -> "tuple[bytes, int, bytes] | None":
        """Where it belongs: the directory, a descriptor of it, and the name in it; None for the root, or AUFS's."""
        path = self._clean(entry.name)
        self._last = None
        self._close_stale()
        if not path:
            self._root_entry(entry)
            return None
        above, _, name = path.rpartition(b"/")
        if b".wh." in above and self._is_aufs(above):
            return None
        place, parent = self._parent(above)
        told, _, last = entry.name.rpartition(b"/")
        if last == name:  # Directories may be called "name/".
            self._last = told, place, parent
        return place, parent, name

    def finish(self) -> "list[bytes]":
        """Directories last: what is made in them changes their times, and their modes may forbid it.

        Returns those that were made and not named, the deepest first.
        """
        implied = []
        for path in sorted(self._implied | self._directories.keys(), reverse=True):
            entry = self._directories.get(path)
            self._close_stale()
            above, _, name = path.rpartition(b"/")
            try:
                fd = os.open(name, DIRECTORY, dir_fd=self._get(above)) if path else os.dup(self._root)
            except OSError as error:
                if error.errno in (ENOENT, ENOTDIR, ELOOP):
                    continue  # A later entry put something else in its place.
                raise
            try:
                if entry:
                    self._attributes(fd, entry)
                else:
                    implied.append(path)
            finally:
                os.close(fd)
        return implied

    def tell_others(self) -> None:
        if self._other_count:
            what = f"{self._other_count} files of other owners, such as {self._others}, belong to root in containers"
            self._note(f"{what}: this user has no subordinate ids (/etc/subuid, newuidmap)")

    def close(self) -> None:
        self._forget(b"")
        self._close_stale()

    def _close_stale(self) -> None:
        while self._stale:
            os.close(self._stale.pop())

    # ---- bounds

    def _clean(self, name: bytes) -> bytes:
        """The path below the root, without "." and empty parts; "" for the root itself."""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise ImageError(f"layer: entry {name!r} climbs with '..'")
        if len(parts) > self._limits.depth or any(len(part) > _MAX_PART for part in parts):
            raise ImageError(f"layer: entry {name[:64]!r}... is too deep, or has too long a name")
        return b"/".join(parts)

    def _count(self, length: int) -> None:
        """One more file, or directory that the archive forgot."""
        self._entries += 1
        self._bytes += length
        if self._entries > self._limits.entries:
            raise ImageError(f"layer: more than {self._limits.entries} entries", hint="is it a bomb?")
        if self._bytes > self._limits.bytes:
            raise ImageError(f"layer: more than {self._limits.bytes} bytes", hint="is it a bomb?")

    def _count_steps(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise ImageError("layer: its paths are too deep and too many", hint="is it a bomb?")

    def _count_replaced(self) -> None:
        self._replaced += 1
        if self._replaced > self._limits.replaced:
            raise ImageError(f"layer: more than {self._limits.replaced} directories replaced", hint="is it a bomb?")

    @staticmethod
    def _is_aufs(above: bytes) -> bool:
        """Whether it is below a directory of AUFS's own; nothing can be below any other whiteout."""
        names = [part for part in above.split(b"/") if part.startswith(_WHITEOUT)]
        if names and not names[0].startswith(_AUFS):
            raise ImageError(f"layer: an entry below the whiteout {names[0]!r}")
        return bool(names)

    # ---- directories

    def _parent(self, path: bytes, *, make: bool = True) -> "tuple[bytes, int]":
        """Where the directory `path` really is, and a descriptor; made with its parents where the archive forgot
        them, unless `make` says no."""
        place = self._links.get(path, path)
        try:
            return place, self._get(place)
        except OSError as error:
            if error.errno not in (ENOENT, ENOTDIR, ELOOP):
                raise
        place = self._walk(path, make)
        if place != path:
            self._links[path] = place
        return place, self._get(place)

    def _walk(self, path: bytes, make: bool) -> bytes:
        """`path` without links, as chroot(2) into the layer would find it."""
        place, links = b"", 0
        todo = path.split(b"/")[::-1]
        while todo:
            self._count_steps(1)
            name = todo.pop()
            if name == b"..":
                place = place.rpartition(b"/")[0]
                continue
            inner = self._clean(_join(place, name))
            target = self._enter(place, name, make)
            if not target:
                place = inner
                continue
            links += 1
            self._count_steps(len(target) // 64)
            if links > _MAX_LINKS:
                raise ImageError(f"layer: {path!r} leads through more than {_MAX_LINKS} links")
            todo += [part for part in target.split(b"/")[::-1] if part not in (b"", b".")]
            if target.startswith(b"/"):
                place = b""
        return place

    def _enter(self, place: bytes, name: bytes, make: bool) -> bytes:
        """See to it that there is such a directory: what is there and is none goes, as if an entry had named it.
        For a link: what it says."""
        parent, path = self._get(place), _join(place, name)
        try:
            self._get(path)
        except OSError as error:
            if error.errno not in (ENOENT, ENOTDIR, ELOOP):
                raise
            if error.errno != ENOENT and (target := _link(parent, name)):
                return target
            if not make:
                raise
            self._count(0)
            if error.errno == ENOENT:
                os.mkdir(name, 0o755, dir_fd=parent)
                self._implied.add(path)
            else:
                self._replace_by_directory(path, parent, name)
            os.chmod(name, 0o755, dir_fd=parent)  # Whatever the umask.
        return b""

    def _get(self, path: bytes) -> int:
        """A descriptor that is kept; closed by _close_stale() at the earliest."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is None:
            fd = self._openat(path)
            if len(self._open) >= _KEPT_OPEN:
                self._stale.append(self._open.pop(next(iter(self._open))))
            self._open[path] = fd
        return fd

    def _openat(self, path: bytes) -> int:
        """Open a directory below the root part by part, none of them a link; through the nearest that is open."""
        above, parts = path, []
        while above and above not in self._open:
            above, _, name = above.rpartition(b"/")
            parts.append(name)
        self._count_steps(len(parts))
        fd = self._open[above] if above else self._root
        if not parts:
            return os.dup(fd)
        own = -1
        for name in reversed(parts):
            try:
                deeper = os.open(name, DIRECTORY, dir_fd=fd)
            finally:
                if own >= 0:
                    os.close(own)
                    own = -1
            fd = own = deeper
        return fd

    def _forget(self, path: bytes) -> None:
        """No longer hold what is at `path` or below: it is about to be something else.

        Descriptors are closed later, so that none is another file's while somebody still holds its number.
        """
        self._links.clear()
        self._last = None
        for known in [known for known in self._open if not path or known == path or known.startswith(path + b"/")]:
            self._stale.append(self._open.pop(known))

    # ---- entries

    def _root_entry(self, entry: "Entry") -> None:
        if entry.type != tar.DIRECTORY:
            raise ImageError(f"layer: entry {entry.name!r} stands for the root and is no directory")
        self._directories[b""] = entry

    def _make(self, entry: "Entry", path: bytes, parent: int, name: bytes, data: "Iterator[memoryview]") -> None:
        kind = entry.type
        if kind == tar.DIRECTORY:
            self._make_directory(entry, path, parent, name)
        elif kind == tar.FILE:
            self._write(entry, path, parent, name, data)
        elif kind == tar.SYMLINK:
            self._again(parent, name, path, lambda: os.symlink(entry.link, name, dir_fd=parent))
            self._link_attributes(parent, name, entry)
        elif kind == tar.LINK:
            self._hard_link(entry, path, parent, name)
        else:
            self._node(entry, path, parent, name)

    def _again(self, parent: int, name: bytes, path: bytes, make: "Callable[[], object]") -> None:
        """Make it; where something is in its place, that goes first."""
        try:
            make()
        except FileExistsError:
            self._remove(parent, name, path)
            make()

    def _make_directory(self, entry: "Entry", path: bytes, parent: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not self._is_directory(parent, name):
                self._replace_by_directory(path, parent, name)
        self._directories[path] = entry

    def _replace_by_directory(self, path: bytes, parent: int, name: bytes) -> None:
        """What was there, be it a file or a whiteout, hid all that lower layers have; the directory has to as well."""
        self._count_replaced()
        self._remove(parent, name, path)
        os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, DIRECTORY, dir_fd=parent)
        try:
            self._mark_opaque(fd)
        finally:
            os.close(fd)

    def _write(self, entry: "Entry", path: bytes, parent: int, name: bytes, data: "Iterator[memoryview]") -> None:
        """What a file is from the start need not be said of it later."""
        plain = self._plain and not (entry.mode & _SPECIAL or entry.xattrs or self._chowned(entry))
        mode = entry.mode if plain else 0o600
        try:
            fd = os.open(name, _NEW, mode, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, name, path)
            fd = os.open(name, _NEW, mode, dir_fd=parent)
        try:
            if entry.segments is None:
                _write_all(fd, data)
            else:
                _write_segments(fd, entry, data)
            if plain:
                os.utime(fd, ns=(entry.mtime, entry.mtime))
            else:
                self._attributes(fd, entry)
        finally:
            os.close(fd)

    def _hard_link(self, entry: "Entry", path: bytes, parent: int, name: bytes) -> None:
        """To a file of this layer (RULES 24); a link to itself is nothing to do, as with GNU tar."""
        above, _, last = self._clean(entry.link).rpartition(b"/")
        if not last or last.startswith(_WHITEOUT):
            raise ImageError(f"layer: {entry.name!r} is a hard link to {entry.link!r}")
        try:
            place, origin = self._parent(above, make=False)
            status = os.stat(last, dir_fd=origin, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or is_whiteout(status):
                raise ImageError(f"layer: {entry.name!r} is a hard link to {entry.link!r}, which is no file")
            if _join(place, last) != path:
                link = functools.partial(os.link, last, name, src_dir_fd=origin, dst_dir_fd=parent)
                self._again(parent, name, path, functools.partial(link, follow_symlinks=False))
        except OSError as error:
            if error.errno not in (ENOENT, ENOTDIR, ELOOP, EPERM, EMLINK):
                raise
            why = errorcode.get(error.errno, "")
            raise ImageError(f"layer: {entry.name!r} cannot be a hard link to {entry.link!r}: {why}") from error

    def _node(self, entry: "Entry", path: bytes, parent: int, name: bytes) -> None:
        """Devices and fifos; a 0:0 character device would be a whiteout that the archive's reader cannot see."""
        kinds = {tar.CHARACTER: 0o020000, tar.BLOCK_DEVICE: 0o060000, tar.FIFO: 0o010000}
        if entry.type != tar.FIFO and not (entry.major or entry.minor):
            raise ImageError(f"layer: {entry.name!r} is the device 0:0, a whiteout in disguise")
        if entry.major >= 1 << 12 or entry.minor >= 1 << 20:
            raise ImageError(f"layer: {entry.name!r} has no device number: {entry.major}:{entry.minor}")
        device = os.makedev(entry.major, entry.minor)
        try:
            self._again(parent, name, path, lambda: os.mknod(name, kinds[entry.type] | 0o600, device, dir_fd=parent))
        except PermissionError:
            self._note(f"{os.fsdecode(path)}: this user may not make device nodes")
            return
        self._link_attributes(parent, name, entry)
        os.chmod(f"/proc/self/fd/{parent}/".encode() + name, entry.mode)

    # ---- whiteouts

    def _whiteout(self, parent: int, name: bytes) -> None:
        """image-spec, layer.md, "Whiteouts": they hide what lower layers have, never this one's own entries."""
        if name == _OPAQUE:
            self._mark_opaque(parent)
            return
        if name.startswith(_AUFS):
            return  # AUFS's own files.
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise ImageError(f"layer: whiteout {name!r} hides nothing that can be named")
        try:
            os.mknod(hidden, 0o020000, 0, dir_fd=parent)
            # The same archive always gives the same layer.
            os.utime(hidden, ns=(0, 0), dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if self._is_directory(parent, hidden):
                fd = os.open(hidden, DIRECTORY, dir_fd=parent)
                try:
                    self._mark_opaque(fd)
                finally:
                    os.close(fd)

    def _mark_opaque(self, fd: int) -> None:
        for namespace in self._owner.namespaces:
            os.setxattr(fd, namespace + b".overlay.opaque", b"y")

    # ---- attributes

    def _chowned(self, entry: "Entry") -> bool:
        return bool(entry.uid or entry.gid)

    def _attributes(self, fd: int, entry: "Entry") -> None:
        """Owner before mode, since chown(2) clears setuid; the time last."""
        if self._owner.chowns:
            self._chown(fd, entry)
        else:
            self._count_other(entry)
        os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs.items():
            self._xattr(fd, key, value, entry, follow=True)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _link_attributes(self, parent: int, name: bytes, entry: "Entry") -> None:
        if self._owner.chowns:
            self._chown(name, entry, dir_fd=parent, follow_symlinks=False)
        else:
            self._count_other(entry)
        path = f"/proc/self/fd/{parent}/".encode() + name
        for key, value in entry.xattrs.items():
            self._xattr(path, key, value, entry, follow=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _chown(self, place: "int | bytes", entry: "Entry", **where: "Any") -> None:
        try:
            os.chown(place, entry.uid, entry.gid, **where)
        except OSError as error:
            if error.errno != EINVAL:
                raise
            what = f"layer: {os.fsdecode(entry.name)!r} belongs to {entry.uid}:{entry.gid}, which no id here stands for"
            raise ImageError(what, hint="give the user more ids in /etc/subuid and /etc/subgid") from error

    def _count_other(self, entry: "Entry") -> None:
        if entry.uid or entry.gid:
            self._others = self._others or f"{os.fsdecode(entry.name)} ({entry.uid}:{entry.gid})"
            self._other_count += 1

    def _xattr(self, place: "int | bytes", key: bytes, value: bytes, entry: "Entry", *, follow: bool) -> None:
        """Not overlayfs's own, which would be whiteouts and redirections (RULES 24); others as far as they go."""
        if key.startswith((b"trusted.overlay.", b"user.overlay.")) or b"\0" in key:
            self._note(f"{os.fsdecode(entry.name)}: attribute {key!r} is left out")
            return
        try:
            os.setxattr(place, key, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (ENOTSUP, EPERM, EINVAL, ERANGE, ENODATA, E2BIG):
                raise
            self._note(f"{os.fsdecode(entry.name)}: attribute {os.fsdecode(key)} cannot be set here")

    def _note(self, text: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    # ---- what is there

    def _is_directory(self, parent: int, name: bytes) -> bool:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)

    def _remove(self, parent: int, name: bytes, path: bytes) -> None:
        """Whatever it is; of a directory everything."""
        self._forget(path)
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            self._remove_tree(parent, name)

    def _remove_tree(self, parent: int, name: bytes) -> None:
        """rm -r by descriptors; links are removed, never followed."""
        self._count_replaced()
        fd = os.open(name, DIRECTORY, dir_fd=parent)
        try:
            for inner in map(os.fsencode, os.listdir(fd)):
                try:
                    os.unlink(inner, dir_fd=fd)
                except OSError as error:
                    if error.errno not in (EPERM, EEXIST, ENOTEMPTY) and not isinstance(error, IsADirectoryError):
                        raise
                    self._remove_tree(fd, inner)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)


def _is_plain(root: int, owner: Owner) -> bool:
    """Whether new files belong to 0:0, or to whom they may, and nothing but the umask changes their mode."""
    status = os.fstat(root)
    try:
        os.getxattr(root, "system.posix_acl_default")
        return False
    except OSError as error:
        if error.errno not in (ENODATA, ENOTSUP):
            raise
    ours = (status.st_uid, status.st_gid, os.geteuid(), os.getegid()) == (0, 0, 0, 0)
    return not status.st_mode & stat.S_ISGID and (ours or not owner.chowns)


def _copy_attributes(model: int, fd: int, owner: Owner) -> None:
    status = os.fstat(model)
    if owner.chowns:
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    for key in os.listxattr(model):
        if not key.startswith(("trusted.overlay.", "user.overlay.")):
            os.setxattr(fd, key, os.getxattr(model, key))
    os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _link(parent: int, name: bytes) -> bytes:
    """What a link says; b"" for all that is none."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        return b""


def _join(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above else name


def _write_all(fd: int, data: "Iterator[memoryview]") -> None:
    """Long runs of zeros become holes: a disk image of which a tenth is used takes a tenth of the disk."""
    hole = 0
    for piece in data:
        if len(piece) >= MIN_HOLE and is_zero(piece):
            hole = os.lseek(fd, len(piece), os.SEEK_CUR)
            continue
        written = os.write(fd, piece)
        while written < len(piece):
            written += os.write(fd, piece[written:])
    if hole and os.lseek(fd, 0, os.SEEK_CUR) == hole:
        os.ftruncate(fd, hole)


def _write_segments(fd: int, entry: "Entry", data: "Iterator[memoryview]") -> None:
    piece = memoryview(b"")
    for offset, length in entry.segments or ():
        while length:
            if not piece:
                piece = next(data)
            written = os.pwrite(fd, piece[:length], offset)
            piece, offset, length = piece[written:], offset + written, length - written
    os.ftruncate(fd, entry.length)
