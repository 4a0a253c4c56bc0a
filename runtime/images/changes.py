"""What a container has changed of its image: the upper directory of an overlay, told and made into a layer.

The marks are overlayfs's (overlayfs.rst): a 0:0 character device hides a file of a lower layer, an opaque directory all
of them.  A layer says the same by names (image-spec, layer.md, "Whiteouts").  A container may go on writing meanwhile,
and everything in the directory is its own: nothing is followed, and a file that changes its size is padded or cut.
"""

import hashlib
import os
import shlex
import stat
import tarfile
from datetime import UTC, datetime

from ..errors import ImageError, SpecError, UsageError
from ..jsontext import dump_json, parse_json
from . import manifest
from .overlay import Owner, find_entry, is_opaque, is_whiteout, list_entries
from .pull import adopt
from .stream import Layer
from .tar import Exactly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO, Any

    from .reference import Reference
    from .store import Image, Store

    Json = dict[str, Any]

ADDED, CHANGED, DELETED = "A", "C", "D"
_PIECE = 1 << 20
_MAX_DEPTH = 256
"""What is unpacked (unpack.Limits); and os.fwalk() calls itself."""
_LISTS = {"CMD": "Cmd", "ENTRYPOINT": "Entrypoint"}
_WORDS = {"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}
_KEYS = {"EXPOSE": "ExposedPorts", "VOLUME": "Volumes"}
_MADE_FILES = {b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"}
_MADE_DIRECTORIES = {b"dev", b"proc", b"sys"}
_IMAGE = "image"
"""A file beside `upper`: the digest of the image's manifest that the changes are to."""


def remember(directory: str, digest: str) -> None:
    """Note to which image the changes kept in this directory are; UsageError if they are to another one."""
    try:
        known = read_base(directory)
    except UsageError:
        known = ""
    if known and known != digest:
        raise UsageError(f"{directory} keeps changes to another image", hint="use an empty directory")
    with open(f"{directory}/{_IMAGE}", "w", encoding="utf-8") as file:
        file.write(digest)


def read_base(directory: str) -> str:
    """Digest of the manifest that `warren run --keep-changes` has noted there; UsageError where it has not."""
    try:
        with open(f"{directory}/{_IMAGE}", encoding="utf-8") as file:
            return file.read(100).strip()
    except (OSError, UnicodeDecodeError) as error:
        hint = "warren run --keep-changes DIR IMAGE"
        raise UsageError(f"{directory} keeps no changes of a container of an image", hint=hint) from error


def changes(upper: str, lower: "list[str]") -> "list[tuple[str, str]]":
    """As `docker diff` tells them: (A, C or D, absolute path), sorted by path."""
    found: list[tuple[str, str]] = []
    etc_is_same = etc_is_used = False
    for path, directory, name, status in _walk(upper):
        shown = os.fsdecode(b"/" + path)
        before = find_entry(path, lower)
        if not before and _is_made_by_us(path, directory, name, status):
            etc_is_used |= path.startswith(b"etc/")
            continue
        if path == b"etc":
            etc_is_same = not before or _access(status) == _access(before)
        if is_whiteout(status):
            if before:
                found.append((DELETED, shown))
            continue
        found.append((CHANGED if before else ADDED, shown))
        if before and stat.S_ISDIR(before.st_mode) and _hides(directory, name, status):
            kept = _names(directory, name) if stat.S_ISDIR(status.st_mode) else set()
            gone = list_entries(path, lower) - kept
            found += [(DELETED, os.fsdecode(b"/" + path + b"/" + inner)) for inner in gone]
    if etc_is_same and etc_is_used and not any(path.startswith("/etc/") for _, path in found):
        found = [change for change in found if change[1] != "/etc"]
    return sorted(found, key=lambda change: change[1])


def _is_made_by_us(path: bytes, directory: int, name: bytes, status: os.stat_result) -> bool:
    """Whether it is there to be mounted on, in every container: docker makes these in a layer that it does not show."""
    if path in _MADE_FILES:
        return stat.S_ISREG(status.st_mode) and not status.st_size
    return path in _MADE_DIRECTORIES and stat.S_ISDIR(status.st_mode) and not _names(directory, name)


def _access(status: os.stat_result) -> "tuple[int, int, int]":
    return status.st_mode, status.st_uid, status.st_gid


def write_layer(upper: str, file: "Any", owner: Owner, lower: "list[str] | None" = None) -> None:
    """The directory as the tar of a layer: sorted, with hard links, extended attributes and times in nanoseconds.

    With the layers below, `lower`, it is a container's: what we have made in it to be mounted on is left out.
    """
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path, directory, name, status in _walk(upper):
            made = lower is not None and _is_made_by_us(path, directory, name, status)
            if made and not find_entry(path, lower or []):
                continue
            _write(tar, path, directory, name, status, owner, links)


def commit(
    store: "Store",
    base: "Image",
    upper: str,
    names: "Sequence[Reference]",
    *,
    instructions: "Sequence[str]" = (),
    author: str = "",
    message: str = "",
    write: "Callable[[Any], None] | None" = None,
) -> "Image":
    """A new image: `base` with one more layer of what `upper` has, and with Dockerfile instructions applied.

    `write` writes the layer's tar to a file instead of write_layer().  Raises UsageError for an instruction that is
    none, OSError for a full disk.
    """
    config = {**base.config, "config": _instructed(base.config.get("config"), instructions)}
    with store.adding():
        layer, diff = _store_layer(store, upper, write, store.layer_paths(base.chains))
        return _add(store, config, [*base.manifest.layers, layer], [*base.diffs, diff], names, "warren commit",
                    author, message)  # fmt: skip


def import_tar(
    store: "Store",
    file: "IO[bytes]",
    names: "Sequence[Reference]",
    *,
    instructions: "Sequence[str]" = (),
    message: str = "",
) -> "Image":
    """An image of one layer, which is a tar of a whole root, compressed or not."""
    platform = manifest.default_platform(os.uname().machine)
    config = {**platform, "config": _instructed({}, instructions)}
    with store.adding():
        with store.new_blob() as blob:
            while piece := file.read(_PIECE):
                blob.write(piece)
        layer = manifest.describe_layer(store.open_blob(blob.digest), blob.digest, blob.size)
        plain = Layer(store.open_blob(blob.digest))
        plain.drain()
        return _add(store, config, [layer], [plain.diff_id], names, "warren import", "", message)


def commit_tree(store: "Store", root: str, names: "Sequence[Reference]", config: "Json", by: str) -> "Image":
    """An image of one layer, which is what a directory has; all of it root's where this user is not."""
    with store.adding():
        layer, diff = _store_layer(store, root)
        whole = {**manifest.default_platform(os.uname().machine), "config": config}
        return _add(store, whole, [layer], [diff], names, by, "", "")


def _add(
    store: "Store",
    config: "Json",
    layers: "list[manifest.Descriptor]",
    diffs: "list[str]",
    names: "Sequence[Reference]",
    by: str,
    author: str,
    message: str,
) -> "Image":
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    step = {"created": now, "created_by": by, "author": author, "comment": message}
    told = config.get("history")
    history: list[Any] = told if isinstance(told, list) else []
    if sum(not entry.get("empty_layer") for entry in history if isinstance(entry, dict)) != len(layers) - 1:
        history = [{} for _ in layers[1:]]
    whole = {
        **config,
        "created": now,
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": [*history, {key: value for key, value in step.items() if value}],
        **({"author": author} if author else {}),
    }
    raw = dump_json(whole).encode()
    return adopt(store, manifest.make_manifest(raw, layers), raw, names)


def _store_layer(
    store: "Store",
    directory: str,
    write: "Callable[[Any], None] | None" = None,
    lower: "list[str] | None" = None,
) -> "tuple[manifest.Descriptor, str]":
    """A directory as a layer, compressed with gzip while it is written; its descriptor, and the digest of the tar."""
    from isal import igzip

    plain = hashlib.sha256()
    gzip: Any = igzip.GzipFile
    with store.new_blob() as blob, gzip(fileobj=blob, mode="wb", mtime=0) as compressed:
        hashed = _Hashed(compressed, plain)
        if write:
            write(hashed)
        else:
            write_layer(directory, hashed, store.owner, lower)
    return manifest.Descriptor(manifest.OCI_LAYER + "+gzip", blob.digest, blob.size), f"sha256:{plain.hexdigest()}"


class _Hashed:
    """A file that is written and hashed."""

    def __init__(self, file: "Any", digest: "Any") -> None:
        self._file = file
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return int(self._file.write(data))


# ---- the directory


def _walk(root: str) -> "Iterator[tuple[bytes, int, bytes, os.stat_result]]":
    """Below the root: path, descriptor of its directory, name and status; a directory before what is in it."""
    for above, directories, files, fd in os.fwalk(os.fsencode(root), follow_symlinks=False):
        directories.sort()
        inside = os.path.relpath(above, os.fsencode(root))
        if inside.count(b"/") >= _MAX_DEPTH:
            raise ImageError(f"the container has more than {_MAX_DEPTH} directories in each other: no layer can")
        for name in sorted([*directories, *files]):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # The container has removed it meanwhile.
            yield (name if inside == b"." else inside + b"/" + name), fd, name, status


def _open(directory: int, name: bytes) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)


def _names(directory: int, name: bytes) -> "set[bytes]":
    fd = _open(directory, name)
    try:
        return {os.fsencode(inner) for inner in os.listdir(fd)}
    finally:
        os.close(fd)


def _hides(directory: int, name: bytes, status: os.stat_result) -> bool:
    if not stat.S_ISDIR(status.st_mode):
        return True
    fd = _open(directory, name)
    try:
        return is_opaque(fd)
    finally:
        os.close(fd)


def _write(
    tar: tarfile.TarFile,
    path: bytes,
    directory: int,
    name: bytes,
    status: os.stat_result,
    owner: Owner,
    links: "dict[tuple[int, int], str]",
) -> None:
    above, _, last = path.rpartition(b"/")
    if is_whiteout(status):
        _write_mark(tar, os.path.join(above, b".wh." + last))
        return
    kinds = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
             stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}  # fmt: skip
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return  # Sockets belong to processes.
    info = tarfile.TarInfo(os.fsdecode(path))
    info.type = kind
    info.mode = stat.S_IMODE(status.st_mode)
    # All files of an ordinary user's containers are his own: root's, for the image.
    info.uid, info.gid = (status.st_uid, status.st_gid) if owner.chowns else (0, 0)
    info.mtime, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    if nanoseconds:
        info.pax_headers = {"mtime": f"{info.mtime}.{nanoseconds:09}"}
    if kind == tarfile.SYMTYPE:
        info.linkname = os.readlink(os.fsdecode(name), dir_fd=directory)
        tar.addfile(info)
        return
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        tar.addfile(info)
        return
    identity = (status.st_dev, status.st_ino)
    if kind == tarfile.REGTYPE and identity in links:
        info.type, info.linkname = tarfile.LNKTYPE, links[identity]
        tar.addfile(info)
        return
    fd = _open(directory, name)
    try:
        now = os.fstat(fd)
        if stat.S_IFMT(now.st_mode) != stat.S_IFMT(status.st_mode):
            raise ImageError(f"{info.name!r} became something else while it was read", hint="pause the container")
        info.pax_headers = {**info.pax_headers, **_attributes(fd)}
        if kind == tarfile.DIRTYPE:
            tar.addfile(info)
            if is_opaque(fd):
                _write_mark(tar, path + b"/.wh..wh..opq")
        else:
            links[identity] = info.name
            info.size = now.st_size
            tar.addfile(info, Exactly(fd))  # type: ignore[arg-type]
    finally:
        os.close(fd)


def _write_mark(tar: tarfile.TarFile, path: bytes) -> None:
    info = tarfile.TarInfo(os.fsdecode(path))
    info.mode = 0o600
    tar.addfile(info)


def _attributes(fd: int) -> "dict[str, str]":
    """Extended attributes, but for overlayfs's own."""
    found = {}
    for key in os.listxattr(fd):
        if not key.startswith(("trusted.overlay.", "user.overlay.")):
            found[f"SCHILY.xattr.{key}"] = os.getxattr(fd, key).decode("utf-8", "surrogateescape")
    return found


# ---- instructions


def _instructed(config: object, instructions: "Sequence[str]") -> "Json":
    """A configuration after Dockerfile instructions, as `docker commit --change` takes them."""
    found: Json = dict(config) if isinstance(config, dict) else {}
    for text in instructions:
        word, _, rest = text.strip().partition(" ")
        word, rest = word.upper(), rest.strip()
        if not rest:
            raise UsageError(f"--change {text!r}: nothing behind the instruction")
        if word in _LISTS:
            found[_LISTS[word]] = _command(rest)
        elif word in _WORDS:
            found[_WORDS[word]] = rest
        elif word in _KEYS:
            found[_KEYS[word]] = {**(found.get(_KEYS[word]) or {}), **{key: {} for key in _values(word, rest)}}
        elif word == "ENV":
            new = dict(_pairs(text, rest))
            old = [entry for entry in found.get("Env") or [] if entry.partition("=")[0] not in new]
            found["Env"] = [*old, *(f"{key}={value}" for key, value in new.items())]
        elif word == "LABEL":
            found["Labels"] = {**(found.get("Labels") or {}), **dict(_pairs(text, rest))}
        else:
            known = ", ".join(sorted([*_LISTS, *_WORDS, *_KEYS, "ENV", "LABEL"]))
            raise UsageError(f"--change {text!r}: unknown instruction", hint=f"one of {known}")
    return found


def _command(text: str) -> "list[str]":
    """A JSON list is the words; anything else a line for the shell."""
    try:
        words = parse_json(text.encode(), "--change") if text.startswith("[") else None
    except SpecError:
        words = None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words
    return ["/bin/sh", "-c", text]


def _values(word: str, text: str) -> "list[str]":
    values = _command(text) if text.startswith("[") else text.split()
    return [value if word != "EXPOSE" or "/" in value else f"{value}/tcp" for value in values]


def _pairs(text: str, rest: str) -> "list[tuple[str, str]]":
    """NAME=VALUE ..., with quotes, or NAME VALUE."""
    name, _, value = rest.partition(" ")
    if "=" not in name:
        return [(name, value.strip())]
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"--change {text!r}: {str(error).lower()}") from error
    if bad := next((word for word in words if "=" not in word or word.startswith("=")), ""):
        raise UsageError(f"--change {text!r}: {bad!r} is not NAME=VALUE")
    return [(word.partition("=")[0], word.partition("=")[2]) for word in words]
