"""What is kept of a container between commands: a directory of its own, and what it tells of the container.

    DATA/containers/.names/NAME   a symbolic link to the id: whoever makes it has the name
    DATA/containers/ID/           0700; an flock on it serialises the commands on one container
        config.json     what was asked for, the image's part included; written once (fsync, rename)
        health.json     what health checks have found
        life.json       how often it was started, and what the kernel does not remember
        exit            "CODE STARTED FINISHED LOST", by the monitor when the process has ended
        log, log.1 ...  its output
        upper, work     what it has changed of its root

A status is computed from these and the state directory (state.py), never stored.
"""

import fcntl
import posix
from errno import EEXIST, ENOENT, ENOTEMPTY

from ..config import ContainerConfig, wants_userns
from ..container import Container, default_data, default_root
from ..errors import ExistsError, NotFoundError, SpecError, StateError, UsageError
from ..host import Host
from ..jsontext import dump_json, parse_json
from ..monitor import Exit, read_exit
from ..state import StateDir, living, make_root, read_file, unlock
from .names import check_name, new_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Json = dict[str, Any]

_UNKNOWN_EXIT = 137
"""Of a container whose monitor was killed: the kernel has killed the container with it."""


class Record:
    """The container `id`; what it was made from is in `data`, read once."""

    __slots__ = ("_data", "_lock", "id", "path", "root")

    def __init__(self, container_id: str, data: "Json | None" = None, root: str = "") -> None:
        self.id = container_id
        self.root = root or default_root()
        self.path = f"{containers_root()}/{container_id}"
        self._data = data
        self._lock = -1

    # ---- what was asked for

    @property
    def data(self) -> "Json":
        """id, name, created, image, image_id, chains, config; NotFoundError when it has been removed."""
        if self._data is None:
            self._data = self._read("config.json")
        return self._data

    @property
    def name(self) -> str:
        return str(self.data["name"])

    def config(self) -> ContainerConfig:
        return ContainerConfig.from_dict(self.data["config"])

    def write(self, data: "Json") -> None:
        self._data = data
        self.write_json("config.json", data)

    # ---- its life

    def life(self) -> "Json":
        return self.read_optional("life.json")

    def update_life(self, **changes: object) -> None:
        self.write_json("life.json", {**self.life(), **changes})

    def read_optional(self, name: str) -> "Json":
        """A file beside config.json; empty when it is not there."""
        try:
            return self._read(name)
        except NotFoundError:
            return {}

    def write_json(self, name: str, value: "Json") -> None:
        self._write(name, dump_json(value).encode("utf-8", "surrogateescape"))

    def exit(self) -> "Exit | None":
        """None until it has ended; the one of its last start."""
        return read_exit(self.path)

    def write_exit(self, code: int, started: int, finished: int) -> None:
        """What the monitor writes, for an end that it has not seen."""
        self._write("exit", f"{code} {started} {finished} 0\n".encode())

    def forget_exit(self) -> None:
        _unlink(self.path + "/exit")

    @property
    def state_dir(self) -> StateDir:
        return StateDir(self.root, self.id)

    @property
    def container(self) -> Container:
        return Container(self.id, self.root)

    def monitor(self) -> int:
        """Pid of its monitor while that lives, else 0."""
        return self.state_dir.monitor() or living(str(self.life().get("monitor") or ""))

    def status(self) -> str:
        """docker's: created, running, paused, restarting or exited."""
        state = self.state_dir
        if state.process():
            return "paused" if self.container.is_frozen() else "running"
        life = self.life()
        if not life.get("starts"):
            return "created"
        if life.get("restart_at") and self.monitor():
            return "restarting"
        if life.get("launching"):
            return "created"
        # Its monitor is about to write down how it has ended.
        return "running" if state.monitor() and not self.exit() else "exited"

    def exit_code(self) -> int:
        """Of the last start that has ended; 0 before."""
        found, life = self.exit(), self.life()
        if found:
            return found.code
        ended = life.get("starts") and not life.get("launching") and not self.state_dir.process()
        return _UNKNOWN_EXIT if ended else 0

    def running_pid(self) -> int:
        """Its process; StateError when there is none."""
        pid = self.state_dir.process()
        if not pid:
            raise StateError(f"container {self.name!r} is not running", hint=f"warren start {self.name}")
        return pid

    @property
    def upper(self) -> str:
        """The directory of what it has changed of its root; it is there from the first start on."""
        return str(self.data["config"].get("keep_changes") or self.path) + "/upper"

    def marks_for_users(self) -> bool:
        """Whether overlayfs's marks in it are those of user namespaces (userxattr); by the last launch, if any."""
        host = Host.probe()
        off = "user_namespace" in (self.life().get("enforced") or {})
        return not host.privileged or (wants_userns(self.config(), host) and not off)

    # ---- existence, lock

    def lock(self, *, wait: bool = True) -> bool:
        """Serialise commands on it; False when it is held and `wait` is not wanted; NotFoundError when it is gone."""
        try:
            fd = posix.open(self.path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError(f"no such container: {self.id[:12]!r}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            posix.close(fd)
            return False
        self._lock = fd
        self._data = self._data if posix.access(self.path + "/config.json", posix.F_OK) else None
        return True

    def unlock(self) -> None:
        if self._lock >= 0:
            unlock(self._lock)
            self._lock = -1

    def __enter__(self) -> "Record":
        self.lock()
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()

    # ---- files

    def _read(self, name: str) -> "Json":
        path = f"{self.path}/{name}"
        try:
            found = parse_json(read_file(path), name)
        except OSError as error:
            if error.errno == ENOENT:
                raise NotFoundError(f"no such container: {self.id[:12]!r}") from error
            raise
        except SpecError as error:
            raise StateError(f"{path} is damaged: {error.message}", hint=f"warren rm --force {self.id[:12]}") from error
        if not isinstance(found, dict):
            raise StateError(f"{path} is damaged", hint=f"warren rm --force {self.id[:12]}")
        return found

    def _write(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """By rename: a reader sees all of it or what was before."""
        staged = f"{self.path}/.{name}.tmp"
        fd = posix.open(staged, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[posix.write(fd, view) :]
            if sync:
                posix.fsync(fd)
        finally:
            posix.close(fd)
        posix.rename(staged, f"{self.path}/{name}")


def containers_root() -> str:
    return default_data() + "/containers"


def make_record(container_id: str, name: str, data: "Json") -> Record:
    """Take the name and write the record; UsageError for a bad name, ExistsError for one that is taken."""
    record = Record(container_id)
    make_root(record.path)
    try:
        name = claim_name(name, container_id)
        record.write({**data, "id": container_id, "name": name})
    except BaseException:
        remove_tree(record.path)
        raise
    return record


def claim_name(name: str, container_id: str) -> str:
    """Make the name the container's own, or one made up for ""; the name."""
    make_root(containers_root() + "/.names")
    if name:
        check_name(name)
    while True:
        chosen = name or new_name()
        path = f"{containers_root()}/.names/{chosen}"
        try:
            posix.symlink(container_id, path)
            return chosen
        except FileExistsError as error:
            if _is_stale(path):
                _unlink(path)
            elif name:
                other = posix.readlink(path)[:12]
                hint = "choose another --name, or --replace it"
                raise ExistsError(f"container name {name!r} is in use by {other}", hint=hint) from error


def release_name(name: str, container_id: str) -> None:
    path = f"{containers_root()}/.names/{name}"
    try:
        if posix.readlink(path) == container_id:
            _unlink(path)
    except OSError:
        pass


def rename_record(record: Record, name: str) -> None:
    """Lock held.  ExistsError for a name that is taken."""
    old = record.name
    claim_name(name, record.id)
    record.write({**record.data, "name": name})
    release_name(old, record.id)


def _is_stale(path: str) -> bool:
    """Whether the container of a name is gone: who took it was killed before it was made, or after it was removed."""
    try:
        return not posix.access(f"{containers_root()}/{posix.readlink(path)}", posix.F_OK)
    except OSError:
        return False


def record_ids() -> "list[str]":
    try:
        return [name for name in posix.listdir(containers_root()) if name[0] != "."]
    except FileNotFoundError:
        return []


def records() -> "Iterator[Record]":
    """All containers, the newest first."""
    found = []
    for container_id in record_ids():
        record = Record(container_id)
        try:
            found.append((str(record.data.get("created")), record))
        except NotFoundError:
            continue  # Being made or removed.
    for _, record in sorted(found, key=lambda one: one[0], reverse=True):
        yield record


def find(text: str) -> Record:
    """A container by its name, its id or an unambiguous beginning of the id; NotFoundError and UsageError."""
    text = text.removeprefix("/")
    if not text or "/" in text:
        return _none(text)
    try:
        return _existing(posix.readlink(f"{containers_root()}/.names/{text}"))
    except OSError:
        pass
    found = [name for name in record_ids() if name.startswith(text)]
    if text in found:
        found = [text]
    if len(found) > 1:
        raise UsageError(f"container {text!r} is ambiguous", hint="give more of the id")
    return _existing(found[0]) if found else _none(text)


def _existing(container_id: str) -> Record:
    record = Record(container_id)
    _ = record.data
    return record


def _none(text: str) -> Record:
    raise NotFoundError(f"no such container: {text!r}")


def exists() -> "Callable[[str], bool]":
    """Tells of an id whether there is such a container now: one that is kept, or one of a program's that runs."""
    from ..state import container_ids

    return {*record_ids(), *container_ids(default_root())}.__contains__


def remove_tree(path: str) -> None:
    """rm -rf, whatever the container has made there: nothing is followed, and no depth or mode is too much.

    An ordinary user's containers make files that are not his own: what he may not remove, a helper does.
    """
    try:
        _Removal(path).run()
    except FileNotFoundError:
        pass
    except PermissionError:
        if not posix.geteuid():
            raise
        from .helper import on_files

        on_files({"task": "remove", "paths": [path]}).finish()


class _Removal:
    """Empties directories one by one; those in them are moved up first, so that neither the stack nor the number of
    open descriptors grows with the depth that a container has chosen."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._top = -1
        self._moved = 0

    def run(self) -> None:
        self._top = self._open(self._path, None)
        try:
            waiting = self._empty(self._top)
            while waiting:
                name = waiting.pop()
                directory = self._open(name, self._top)
                try:
                    waiting += self._empty(directory)
                finally:
                    posix.close(directory)
                posix.rmdir(name, dir_fd=self._top)
        finally:
            posix.close(self._top)
        posix.rmdir(self._path)

    def _open(self, path: str, above: "int | None") -> int:
        flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
        try:
            return posix.open(path, flags, dir_fd=above)
        except PermissionError:
            # Overlayfs's own work directory has mode 0, too.  A link has no mode, and is no directory.
            posix.chmod(path, 0o700, dir_fd=above)
            return posix.open(path, flags, dir_fd=above)

    def _empty(self, directory: int) -> "list[str]":
        """Unlink what is in a directory; the directories that were, and what they are called at the top now."""
        found = []
        for name in posix.listdir(directory):
            try:
                posix.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                continue
            except IsADirectoryError:
                found.append(self._move_up(directory, name))
        return found

    def _move_up(self, directory: int, name: str) -> str:
        if directory == self._top:
            return name
        while True:
            self._moved += 1
            moved = f".warren-{self._moved}"
            try:
                posix.rename(name, moved, src_dir_fd=directory, dst_dir_fd=self._top)
                return moved
            except PermissionError:
                if self._made_writable(directory, name):
                    continue
                raise
            except OSError as error:
                if error.errno not in (EEXIST, ENOTEMPTY):
                    raise

    def _made_writable(self, directory: int, name: str) -> bool:
        """Moving a directory changes its "..", for which it must be writable."""
        mode = posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if mode & 0o700 == 0o700:
            return False
        posix.chmod(name, 0o700, dir_fd=directory)
        return True


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass
