"""A root file system as a disk image, for a guest that knows nothing but disks: mkfs.ext4 -d, which mounts nothing.

It runs in a container like the hypervisor's, where the ids of the files are those that the guest shall see.  Disks of
image layers, which never change, are kept; others lose their name once the hypervisor has them.
"""

import hashlib
import os
import posix
import stat

from ..container import Container, default_root
from ..errors import LaunchError, UnsupportedError
from ..jsontext import dump_json
from ..launch import Options
from ..spec import Bundle, Layers, Spec
from ..state import start_time
from ..syscalls import wait
from .kernel import data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

MOST = 4 << 30
"""Bytes of files that are copied into a disk; whoever has more is better served by a machine with 9p."""
_PROGRAM = "/usr/sbin/mkfs.ext4"
_KILL = 9


class Disk:
    """An image's path; one of a directory, which may change, goes as soon as the hypervisor has it mounted."""

    __slots__ = ("kept", "path")

    def __init__(self, path: str, *, kept: bool) -> None:
        self.path = path
        self.kept = kept

    def close(self) -> None:
        if not self.kept:
            _unlink(self.path)


def build(layers: "list[str]", outer: Spec, root: str, idmap: "list[str]", id: str) -> Disk:
    """The disk of these layers, which `outer`'s container sees below `root`.

    Raises UnsupportedError for a tree that is too large, or without mkfs.ext4.
    """
    name = _kept_name(layers)
    directory = data_directory() + "/disks"
    path = f"{directory}/{name}"
    if name and os.path.exists(path):
        return Disk(path, kept=True)
    if not os.path.exists(_PROGRAM):
        raise UnsupportedError("mkfs.ext4 is missing", hint="apt install e2fsprogs")
    size = _size(layers)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _sweep(directory)
    own = posix.getpid()
    temporary = f"{directory}/{own}.{start_time(own)}.{id[:12]}"
    fd = posix.open(temporary, posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        posix.ftruncate(fd, size)
        _make(outer, temporary, root, idmap, f"{id[:12]}-disk")
    except BaseException:
        _unlink(temporary)
        raise
    finally:
        posix.close(fd)
    if not name:
        return Disk(temporary, kept=False)
    posix.rename(temporary, path)
    return Disk(path, kept=True)


def _sweep(directory: str) -> None:
    """Remove what killed processes have left; the names say whose they are."""
    for name in os.listdir(directory):
        pid, dot, rest = name.partition(".")
        if dot and (not pid.isdigit() or str(start_time(int(pid))) != rest.partition(".")[0]):
            _unlink(f"{directory}/{name}")


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def _kept_name(layers: "list[str]") -> str:
    """Layers of the store are named after what they hold; "" for other directories."""
    own = data_directory() + "/layers/"
    if not all("/images/layers/" in path or path.startswith(own) for path in layers):
        return ""
    return hashlib.sha256("\n".join(layers).encode()).hexdigest()[:32]


def _size(layers: "list[str]") -> int:
    """Bytes of a file system that holds all layers, and a tenth more; a file in several layers is counted twice."""
    total = 0
    for layer in layers:
        total += _tree_size(layer, posix.stat(layer).st_dev)
        if total > MOST:
            raise UnsupportedError(
                f"{layer}: more than {MOST >> 30} GiB are not copied to a disk",
                hint="vm:microvm and vm:uml copy nothing",
            )
    return (total * 11 // 10 + (64 << 20)) & ~0xFFFFF


def _tree_size(path: str, device: int) -> int:
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            total += (info.st_size + 4095 & ~4095) + 512 if stat.S_ISREG(info.st_mode) else 4608
            if total > MOST:
                break
            if entry.is_dir(follow_symlinks=False) and info.st_dev == device:
                total += _tree_size(entry.path, device)
    return total


def _make(outer: Spec, source: str, root: str, idmap: "list[str]", id: str) -> None:
    target = "/run/vm/new-disk"
    process: Json = {
        **outer.config["process"],
        "terminal": False,
        "args": [_PROGRAM, "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "root_owner=0:0",
                 "-d", root, target],
    }  # fmt: skip
    mount = {"destination": target, "type": "bind", "source": source, "options": ["bind", *idmap]}
    config = {**outer.config, "process": process, "mounts": [*outer.config["mounts"], mount]}
    linux = {key: value for key, value in config["linux"].items() if key not in ("cgroupsPath", "resources")}
    config["linux"] = {**linux, "resources": {"devices": [{"allow": False, "access": "rwm"}]}}
    code, said = _run(Spec(config, "/", Layers([])), id)
    if code:
        last = said.decode(errors="replace").strip().splitlines()
        raise UnsupportedError(f"mkfs.ext4: {last[-1] if last else f'exit code {code}'}")


def _run(spec: Spec, id: str) -> "tuple[int, bytes]":
    """Run a container to its end; its exit code and what it said."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    container = Container(id, default_root())
    try:
        options = Options(stdio=(null, writer, writer), pdeathsig=_KILL, ephemeral=True, cgroup_manager="auto")
        pid = container.run(Bundle("/", spec, dump_json(spec.config).encode()), options)
        posix.close(writer)
        writer = -1
        said = b""
        while piece := posix.read(reader, 65536):
            said = (said + piece)[-65536:]
        return wait(pid), said
    except LaunchError as error:
        return error.exit_code, str(error).encode()
    finally:
        container.delete(force=True)
        for fd in (reader, writer, null):
            if fd >= 0:
                posix.close(fd)
