"""What is kept of a container between commands: a directory of its own, and what it tells of the container.

    DATA/containers/.names/NAME   a symbolic link to the id: whoever makes it has the name
    DATA/containers/.brief/ID     a symbolic link to "PID START" of who makes or starts it: once neither that process
                                  nor the container runs it is to go (what is being made, and all of --rm)
    DATA/containers/ID/           0700; an flock on it serialises the commands on one container
        config.json     what was asked for, the image's part included; written once (rename, fsync)
        health.json     what health checks have found
        life.json       how often it was started, and what the kernel does not remember
        exit            "CODE STARTED FINISHED LOST", by the monitor when the process has ended
        log, log.1 ...  its output
        upper, work     what it has changed of its root

A status is computed from these and the state directory (state.py), never stored.
"""

import posix
from errno import ENOENT

from ..config import ContainerConfig, wants_userns
from ..container import Container, default_data, default_root
from ..errors import ExistsError, NotFoundError, SpecError, StateError, UsageError
from ..host import Host
from ..jsontext import dump_json, parse_json
from ..monitor import Exit, read_exit
from ..state import (
    StateDir,
    living,
    lock_directory,
    make_root,
    own_start_time,
    read_file,
    start_time,
    unlock,
    write_file,
)
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

    def sync(self) -> None:
        """Bring it to disk: it is to outlive a crash of the machine."""
        fd = posix.open(self.path + "/config.json", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            posix.fsync(fd)
        finally:
            posix.close(fd)

    # ---- its life

    def life(self) -> "Json":
        return self.read_optional("life.json")

    def update_life(self, **changes: object) -> None:
        self.write_json("life.json", {**self.life(), **changes})

    def read_optional(self, name: str) -> "Json":
        """A file beside config.json; empty when it is not there, or was lost in a crash (it is not synced)."""
        try:
            return self._read(name)
        except NotFoundError:
            return {}
        except StateError:
            if posix.stat(f"{self.path}/{name}").st_size:
                raise
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
        return self.idle_status(self.life())

    def idle_status(self, life: "Json") -> str:
        """The status of one that has no process, and this `life`."""
        if not life.get("starts") and not self.exit():
            return "created"
        if life.get("restart_at") and self.monitor():
            return "restarting"
        if life.get("launching"):
            return "created"
        # Its monitor is about to write down how it has ended.
        return "running" if self.state_dir.monitor() and not self.exit() else "exited"

    def take_damaged(self) -> None:
        """Let `data` tell what can be told without config.json: a damaged record hides no container (RULES 20)."""
        self._data = {"id": self.id, "name": self._named(), "created": "", "image": "", "config": {}}

    def _named(self) -> str:
        """By the link; "" where none names it."""
        names = f"{containers_root()}/.names"
        try:
            return next((name for name in posix.listdir(names) if posix.readlink(f"{names}/{name}") == self.id), "")
        except OSError:
            return ""

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
            fd = lock_directory(self.path, wait=wait)
        except FileNotFoundError as error:
            raise NotFoundError(f"no such container: {self.id[:12]!r}") from error
        if fd < 0:
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
        write_file(staged, data, sync=sync)
        posix.rename(staged, f"{self.path}/{name}")


def containers_root() -> str:
    return default_data() + "/containers"


def make_record(container_id: str, name: str, data: "Json") -> Record:
    """Take the name and write the record; UsageError for a bad name, ExistsError for one that is taken.

    What an error or an interruption leaves is the caller's to remove.
    """
    record = Record(container_id)
    make_root(record.path)
    record.write({**data, "id": container_id, "name": claim_name(name, container_id)})
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


def release_names(container_id: str) -> None:
    """Every name of a container whose record does not tell it any more, or not yet."""
    try:
        names = posix.listdir(containers_root() + "/.names")
    except FileNotFoundError:
        return
    for name in names:
        release_name(name, container_id)


def rename_record(record: Record, name: str) -> None:
    """Lock held.  ExistsError for a name that is taken."""
    old = record.name
    claim_name(name, record.id)
    record.write({**record.data, "name": name})
    record.sync()
    release_name(old, record.id)


def _is_stale(path: str) -> bool:
    """Whether the container of a name is gone: who took it was killed before it was made, or after it was removed."""
    try:
        return not posix.access(f"{containers_root()}/{posix.readlink(path)}", posix.F_OK)
    except OSError:
        return False


def mark_brief(container_id: str) -> None:
    """It is to go with this process, unless it runs, until unmark_brief() is told of it."""
    make_root(containers_root() + "/.brief")
    target = f"{posix.getpid()} {own_start_time()} {default_root()}"
    try:
        posix.symlink(target, _brief(container_id))
    except FileExistsError:
        if _mark(container_id)[0] <= 0:
            _unlink(_brief(container_id))
            posix.symlink(target, _brief(container_id))


def unmark_brief(container_id: str) -> None:
    _unlink(_brief(container_id))


def begun() -> "list[str]":
    """Ids of those that are to go with this process."""
    return [name for name in _brief_ids() if _mark(name)[0] == posix.getpid()]


def abandoned(root: str) -> "list[str]":
    """Ids of those that were to go, whose process has ended and that have no state below `root`."""
    return [name for name in _brief_ids() if is_abandoned(root, name)]


def is_abandoned(root: str, container_id: str) -> bool:
    """The same of one.  It is certain only with its lock held: it may have been started, or be there to stay, since.

    Nor has it state where the process that marked it keeps that: XDG_RUNTIME_DIR is not everywhere the same.
    """
    pid, there = _mark(container_id)
    return pid == 0 and not any(posix.access(f"{one}/{container_id}", posix.F_OK) for one in {root, there or root})


def _mark(container_id: str) -> "tuple[int, str]":
    """The pid of the living process that it is to go with, and that one's root of states, which old marks do not tell.

    0 if the process has ended, -1 if the container is to go with none.
    """
    try:
        pid, started, *root = posix.readlink(_brief(container_id)).split(" ", 2)
    except OSError:
        return -1, ""
    except ValueError:
        return 0, ""
    lives = pid.isdecimal() and start_time(int(pid)) == started
    return int(pid) if lives else 0, root[0] if root else ""


def _brief_ids() -> "list[str]":
    try:
        return posix.listdir(containers_root() + "/.brief")
    except FileNotFoundError:
        return []


def _brief(container_id: str) -> str:
    return f"{containers_root()}/.brief/{container_id}"


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


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass
