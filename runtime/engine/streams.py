"""Trees of files read into a tar stream and written from one, below a root whose contents are not to be trusted.

A path is resolved with openat2(2), scoped to the root (RULES 4); from there on everything is reached by descriptor, and
no link on the way is followed (CVE-2018-15664).  Nothing of the tree is executed or loaded (CVE-2019-14271), and
devices, fifos and sockets are never opened.  Where the tree is the host's and the stream a container's, links of the
stream are made, but never walked through.
"""

import os
import stat
import tarfile
from errno import EBUSY, ELOOP, ENODATA, ENOENT, ENOTDIR, ENOTSUP, EPERM

from ..errors import NotFoundError, UsageError
from ..images import tar
from ..images.overlay import DIRECTORY, descend
from ..syscalls import O_PATH, openat2_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

MAX_DEPTH = 512
"""Of directories in each other: one descriptor each."""
_MAX_LINKS = 40
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
}  # fmt: skip
STAND_IN = "x"
"""What the copied thing is called in a stream between the two sides of a copy."""


class Ids:
    """How ids of the tree's owners are told: extents of (inside, outside, count), as in uid_map."""

    def __init__(self, uids: "list[tuple[int, int, int]] | None" = None, gids: "Any" = None) -> None:
        self._uids = uids
        self._gids = gids

    def inside(self, uid: int, gid: int) -> "tuple[int, int]":
        return _translate(self._uids, uid, 1, 0), _translate(self._gids, gid, 1, 0)

    def outside(self, uid: int, gid: int) -> "tuple[int, int]":
        return _translate(self._uids, uid, 0, 1), _translate(self._gids, gid, 0, 1)


def _translate(extents: "list[tuple[int, int, int]] | None", number: int, source: int, target: int) -> int:
    if extents is None:
        return number
    for extent in extents:
        if 0 <= number - extent[source] < extent[2]:
            return extent[target] + number - extent[source]
    return 65534


class Tree:
    """What is below a directory `root` (a descriptor, which stays the caller's)."""

    def __init__(self, root: int, ids: "Ids | None" = None) -> None:
        self.root = root
        self.ids = ids or Ids()

    def open(self, path: str, *, follow: bool) -> int:
        """A descriptor (O_PATH) of what is there; NotFoundError.  Without `follow` the last part may be a link."""
        flags = O_PATH | (0 if follow else os.O_NOFOLLOW)
        try:
            return openat2_in_root(self.root, path or "/", flags)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR, ELOOP):
                raise NotFoundError(f"{path}: {os.strerror(error.errno).lower()}") from error
            raise

    def open_directory(self, path: str) -> int:
        return openat2_in_root(self.root, path or "/", os.O_RDONLY | os.O_DIRECTORY)

    def kind(self, path: str, *, follow: bool) -> int:
        """The S_IFMT of what is there; 0 when there is nothing."""
        try:
            fd = self.open(path, follow=follow)
        except NotFoundError:
            return 0
        try:
            return stat.S_IFMT(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    def final(self, path: str) -> str:
        """The path with links in its last part replaced by where they lead, dangling or not."""
        for _ in range(_MAX_LINKS):
            if self.kind(path, follow=False) != stat.S_IFLNK:
                return path
            fd = self.open(path, follow=False)
            try:
                path = os.path.join(os.path.dirname(path.rstrip("/")), os.readlink("", dir_fd=fd))
            finally:
                os.close(fd)
        raise UsageError(f"{path}: too many links")


class Source:
    """A path as it was given, taken apart: docker tells "dir/.", "dir/" and "dir" from each other."""

    def __init__(self, path: str) -> None:
        self.contents = path.rstrip("/").endswith("/.") or path in (".", "/", "/.") or set(path) == {"/"}
        self.slash = self.contents or path.endswith("/")
        self.path = os.path.normpath("/" + path.lstrip("/"))
        self.name = os.path.basename(self.path)


def place(tree: Tree, path: str, name: str, *, is_directory: bool, contents: bool) -> "tuple[str, str]":
    """Where a copy goes: the directory, and what it is called there, "" for the directory's own contents.

    docker's rules (docker cp, "Extended description"); UsageError and NotFoundError.
    """
    wanted = Source(path)
    target = tree.final(wanted.path)
    kind = tree.kind(target, follow=True)
    if kind == stat.S_IFDIR:
        return (target, "") if contents and is_directory else (target, name)
    if kind and (is_directory or wanted.slash):
        why = "a directory cannot be copied onto a file" if is_directory else "not a directory"
        raise UsageError(f"{path}: {why}")
    if not kind and wanted.slash and not is_directory:
        raise NotFoundError(f"{path}: no such directory")
    parent, last = os.path.split(target)
    if tree.kind(parent, follow=True) != stat.S_IFDIR:
        raise NotFoundError(f"{parent}: no such directory")
    return parent, last


# ---- reading


def pack(
    tree: Tree, path: str, file: "IO[bytes] | Any", name: str, *, follow: bool = False, one_file_system: bool = False
) -> None:
    """Write what is at `path` as a tar in which it is called `name`; "" leaves out the directory itself.

    Owners are told as the tree's ids say.  With `one_file_system` nothing that is mounted below is gone into.
    """
    top = tree.open(path, follow=follow)
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        writer = _Packer(archive, tree.ids, _mount_of(top) if one_file_system else "")
        try:
            writer.add(top, name)
        finally:
            os.close(top)


class _Packer:
    def __init__(self, archive: tarfile.TarFile, ids: Ids, mount: str) -> None:
        self._archive = archive
        self._ids = ids
        self._mount = mount
        self._links: dict[tuple[int, int], str] = {}

    def add(self, top: int, name: str) -> None:
        """Without recursion, since how deep a tree is its maker says; one descriptor a level."""
        levels: list[tuple[int, str, list[str]]] = []
        try:
            if (inner := self._one(top, name)) is not None:
                levels.append(inner)
            while levels:
                fd, above, names = levels[-1]
                if not names:
                    os.close(fd)
                    levels.pop()
                    continue
                if (deeper := self._below(fd, above, names.pop())) is not None:
                    levels.append(deeper)
                if len(levels) > MAX_DEPTH:
                    raise UsageError(f"more than {MAX_DEPTH} directories in each other")
        finally:
            for fd, _, _ in levels:
                os.close(fd)

    def _below(self, directory: int, above: str, name: str) -> "tuple[int, str, list[str]] | None":
        try:
            fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return None  # Removed meanwhile.
        try:
            return self._one(fd, f"{above}/{name}" if above else name)
        finally:
            os.close(fd)

    def _one(self, fd: int, name: str) -> "tuple[int, str, list[str]] | None":
        """Write one entry; of a directory the descriptor, its name and what is in it, in the order of pop()."""
        status = os.fstat(fd)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None  # Sockets belong to processes.
        info = self._info(name, kind, status)
        if kind == tarfile.SYMTYPE:
            info.linkname = os.readlink("", dir_fd=fd)
        elif kind == tarfile.REGTYPE:
            self._file(fd, info, status)
            return None
        elif kind == tarfile.DIRTYPE:
            return self._directory(fd, info, name)
        if name:
            self._archive.addfile(info)
        return None

    def _info(self, name: str, kind: bytes, status: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = self._ids.inside(status.st_uid, status.st_gid)
        info.mtime, nanoseconds = divmod(status.st_mtime_ns, 10**9)
        if nanoseconds:
            info.pax_headers = {"mtime": f"{info.mtime}.{nanoseconds:09}"}
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return info

    def _file(self, fd: int, info: tarfile.TarInfo, status: os.stat_result) -> None:
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and identity in self._links:
            info.type, info.linkname = tarfile.LNKTYPE, self._links[identity]
            self._archive.addfile(info)
            return
        self._links[identity] = info.name
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            hidden = bool(self._mount) and _mount_of(fd) != self._mount
            info.size = 0 if hidden else status.st_size
            info.pax_headers = {**info.pax_headers, **_attributes(readable)}
            self._archive.addfile(info, tar.Exactly(readable))  # type: ignore[arg-type]
        finally:
            os.close(readable)

    def _directory(self, fd: int, info: tarfile.TarInfo, name: str) -> "tuple[int, str, list[str]]":
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        info.pax_headers = {**info.pax_headers, **_attributes(readable)}
        if name:
            self._archive.addfile(info)
        if self._mount and _mount_of(fd) != self._mount:
            return readable, name, []
        return readable, "" if name in ("", ".") else name, sorted(os.listdir(readable), reverse=True)


def _mount_of(fd: int) -> str:
    """The id of the mount that a descriptor is of (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii", errors="replace") as file:
        return next((line.split()[1] for line in file if line.startswith("mnt_id:")), "")


def _attributes(fd: int) -> "dict[str, str]":
    """Extended attributes, but for overlayfs's own."""
    found = {}
    try:
        for key in os.listxattr(fd):
            if not key.startswith(("trusted.", "user.overlay.", "system.", "security.selinux")):
                found[f"SCHILY.xattr.{key}"] = os.getxattr(fd, key).decode("utf-8", "surrogateescape")
    except OSError as error:
        if error.errno not in (ENOTSUP, ENODATA, EPERM):
            raise
    return found


# ---- writing


class Unpacker:
    """Writes entries of a tar below the directory `base` of a tree.

    tree      where it goes
    contained the tree is a container's: links that are there are followed, scoped to its root, as in a chroot; else
              none is, and what the host has to be careful with (devices, set-user-ID bits, attributes) is left out
    archive   owners are the archive's (and all modes and attributes with them)
    owner     else these; None leaves them the caller's
    rename    the first part of each name becomes this; "" takes it away, None leaves it
    """

    def __init__(
        self,
        tree: Tree,
        base: str,
        *,
        contained: bool,
        archive: bool = False,
        owner: "tuple[int, int] | None" = None,
        rename: "str | None" = None,
    ) -> None:
        self._tree = tree
        self._base = base
        self._contained = contained
        self._archive = archive
        self._owner = owner
        self._rename = None if rename is None else os.fsencode(rename)
        self._fd = tree.open_directory(base)
        self._last: tuple[bytes, int] | None = None
        self._directories: dict[bytes, tar.Entry] = {}
        self.notes: list[str] = []
        """What was left out."""

    def unpack(self, reader: "tar.Reader") -> None:
        try:
            for entry in reader:
                self.add(entry, reader.data())
            self.finish()
        finally:
            self.close()

    def close(self) -> None:
        if self._last:
            os.close(self._last[1])
            self._last = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(self, entry: "tar.Entry", data: "Iterator[memoryview]") -> None:
        path = self._path(entry.name)
        if not path:
            return  # The directory itself, which is there.
        above, _, name = path.rpartition(b"/")
        parent = self._directory(above)
        if entry.type == tar.DIRECTORY:
            self._make_directory(entry, path, parent, name)
            return
        if entry.type == tar.FILE:
            self._write(entry, parent, name, data)
            return
        self._make_way(parent, name)
        if entry.type == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
            self._link_attributes(parent, name, entry)
        elif entry.type == tar.LINK:
            self._hard_link(entry, parent, name)
        elif entry.type == tar.FIFO or self._contained:
            self._node(entry, parent, name)
        else:
            self.notes.append(f"{os.fsdecode(path)}: devices are not made outside of containers")

    def finish(self) -> None:
        """What making files in directories would have changed of them."""
        for path in sorted(self._directories, key=lambda path: path.count(b"/"), reverse=True):
            try:
                fd = self._open(path)
            except OSError:
                continue  # Something else by now.
            try:
                self._set_attributes(fd, self._directories[path])
            finally:
                os.close(fd)

    # ---- names

    def _path(self, name: bytes) -> bytes:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise UsageError(f"tar: {os.fsdecode(name)!r} leads out of its directory")
        if len(parts) > MAX_DEPTH:
            raise UsageError(f"more than {MAX_DEPTH} directories in each other")
        if self._rename is not None:
            parts = [*([self._rename] if self._rename else []), *parts[1:]]
        return b"/".join(parts)

    def _directory(self, path: bytes) -> int:
        """The directory for an entry, kept open for the next one."""
        if self._last and self._last[0] == path:
            return self._last[1]
        try:
            fd = self._open(path)
        except FileNotFoundError:
            fd = self._make_parents(path)
        except OSError as error:
            if error.errno not in (ELOOP, ENOTDIR):
                raise
            raise UsageError(f"{os.fsdecode(path)}: not a directory, or a link to one") from error
        if self._last:
            os.close(self._last[1])
        self._last = (path, fd)
        return fd

    def _open(self, path: bytes) -> int:
        if not path:
            return os.dup(self._fd)
        if self._contained:
            return self._tree.open_directory(f"{self._base}/{os.fsdecode(path)}")
        return descend(self._fd, path)

    def _make_parents(self, path: bytes) -> int:
        parts = path.split(b"/")
        for depth in range(1, len(parts) + 1):
            above = self._open(b"/".join(parts[: depth - 1]))
            try:
                os.mkdir(parts[depth - 1], 0o755, dir_fd=above)
                if self._owner:
                    os.chown(
                        parts[depth - 1], *self._tree.ids.outside(*self._owner), dir_fd=above, follow_symlinks=False
                    )
            except FileExistsError:
                pass
            finally:
                os.close(above)
        return self._open(path)

    # ---- entries

    def _make_directory(self, entry: "tar.Entry", path: bytes, parent: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError as error:
            try:
                os.close(self._open(path))
            except OSError:
                raise UsageError(f"{os.fsdecode(path)}: a directory cannot be copied onto a file") from error
            if not self._archive:
                return
        self._directories[path] = entry

    def _make_way(self, parent: int, name: bytes) -> bool:
        """Remove a file that is in the place; False when that is a mount, and has to be written to instead."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError as error:
            raise UsageError(f"{os.fsdecode(name)}: a file cannot be copied onto a directory") from error
        except OSError as error:
            if error.errno != EBUSY:
                raise
            return False
        return True

    def _write(self, entry: "tar.Entry", parent: int, name: bytes, data: "Iterator[memoryview]") -> None:
        free = self._make_way(parent, name)
        fd = os.open(name, _NEW, 0o600, dir_fd=parent) if free else _open_file(parent, name)
        try:
            if entry.segments is None:
                for piece in data:
                    _write_all(fd, piece)
            else:
                _write_segments(fd, entry, data)
            self._set_attributes(fd, entry)
        finally:
            os.close(fd)

    def _hard_link(self, entry: "tar.Entry", parent: int, name: bytes) -> None:
        above, _, last = self._path(entry.link).rpartition(b"/")
        if not last:
            raise UsageError(f"tar: {os.fsdecode(entry.name)!r} is a link to nothing that can be named")
        origin = self._open(above)
        try:
            os.link(last, name, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(origin)

    def _node(self, entry: "tar.Entry", parent: int, name: bytes) -> None:
        kinds = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
        if entry.type not in kinds or (entry.type != tar.FIFO and not (entry.major or entry.minor)):
            raise UsageError(f"tar: {os.fsdecode(entry.name)!r} is of no kind that is known")
        device = 0 if entry.type == tar.FIFO else os.makedev(entry.major, entry.minor)
        try:
            os.mknod(name, kinds[entry.type] | 0o600, device, dir_fd=parent)
        except PermissionError:
            self.notes.append(f"{os.fsdecode(entry.name)}: device nodes cannot be made here")
            return
        self._link_attributes(parent, name, entry)
        os.chmod(f"/proc/self/fd/{parent}/".encode() + name, entry.mode & 0o777)

    # ---- attributes

    def _ids(self, entry: "tar.Entry") -> "tuple[int, int] | None":
        wanted = (entry.uid, entry.gid) if self._archive else self._owner
        return wanted and self._tree.ids.outside(*wanted)

    def _set_attributes(self, fd: int, entry: "tar.Entry") -> None:
        """Owner before mode, since chown(2) clears setuid; the time last."""
        if ids := self._ids(entry):
            _chown(fd, ids)
        trusted = self._archive or self._contained
        os.fchmod(fd, entry.mode if trusted else entry.mode & ~_SPECIAL)
        for key, value in entry.xattrs.items() if trusted else ():
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno not in (ENOTSUP, EPERM):
                    raise
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _link_attributes(self, parent: int, name: bytes, entry: "tar.Entry") -> None:
        if ids := self._ids(entry):
            try:
                os.chown(name, *ids, dir_fd=parent, follow_symlinks=False)
            except PermissionError:
                if os.geteuid() == 0:
                    raise
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _chown(fd: int, ids: "tuple[int, int]") -> None:
    """As cp -a: an ordinary user keeps what he cannot give away."""
    try:
        os.fchown(fd, *ids)
    except PermissionError:
        if os.geteuid() == 0:
            raise


def _open_file(parent: int, name: bytes) -> int:
    """A file that is mounted in its place, to be written anew; nothing but a regular one is opened."""
    found = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise UsageError(f"{os.fsdecode(name)}: something else is mounted there")
        return os.open(f"/proc/self/fd/{found}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    finally:
        os.close(found)


def _write_all(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _write_segments(fd: int, entry: "tar.Entry", data: "Iterator[memoryview]") -> None:
    segments, left, at = iter(entry.segments or ()), 0, 0
    for piece in data:
        while piece:
            while not left:
                at, left = next(segments)
            part = piece[:left]
            os.lseek(fd, at, os.SEEK_SET)
            _write_all(fd, part)
            at, left, piece = at + len(part), left - len(part), piece[len(part) :]
    os.ftruncate(fd, entry.length)


__all__ = ["DIRECTORY", "Ids", "Source", "Tree", "Unpacker", "pack", "place"]
