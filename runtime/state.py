"""What is known of a container between two commands: a directory, a record in it, and what the kernel says.

    ROOT/ID/            0700; an flock on it serialises the commands on one container
        state.json      the intent record: everything that a later command needs, written before the first resource
        pid             a symbolic link to "PID STARTTIME BOOTID", made once, as soon as the process exists
        monitor         the same of its monitor, if it has one; made before `pid`
        attach          the monitor's socket for those who want to attach
        fifo            `create` only: init holds it open until it executes the user's program
        report          where init writes what fails after `create` has returned

A status is computed from these and /proc, never stored.
"""

import fcntl
import posix
import select
import time
from errno import ELOOP, ENOENT, ENXIO

from .errors import ExistsError, NotFoundError, SpecError, StateError, UsageError
from .jsontext import dump_json, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    Json = dict[str, object]

_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
MAX_ID = 1024
_HERTZ = posix.sysconf("SC_CLK_TCK")
_STAGED = "/state.json.tmp"
_boot_id = ""
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW


def check_id(container_id: str) -> str:
    """The id, if runc's rule allows it: letters, digits and _+-., neither "." nor ".."; UsageError otherwise."""
    if not container_id:
        raise UsageError("container id is empty")
    if len(container_id) > MAX_ID:
        raise UsageError(f"container id is longer than {MAX_ID} characters")
    if container_id[0] == "." or not _ID.issuperset(container_id):
        raise UsageError(f"invalid container id {container_id!r}", hint="letters, digits and _+-. are allowed")
    return container_id


class StateDir:
    """The directory of one container; with `lock` held nobody else changes it."""

    __slots__ = ("_lock", "id", "path", "root")

    def __init__(self, root: str, container_id: str) -> None:
        self.id = check_id(container_id)
        self.root = root
        self.path = f"{root}/{container_id}"
        self._lock = -1

    # ---- existence and lock

    def make(self) -> None:
        """Make the directory and lock it; ExistsError when the id is taken."""
        make_root(self.root)
        while True:
            try:
                posix.mkdir(self.path, 0o700)
                self.lock()
                return
            except NotFoundError:
                continue  # A sweep took the new directory for an abandoned one before we held its lock.
            except FileExistsError as error:
                hint = "choose another id or delete it"
                raise ExistsError(f"container {self.id!r} already exists", hint=hint) from error

    def lock(self, *, wait: bool = True) -> bool:
        """Take the lock; False when it is held and `wait` is not wanted; NotFoundError without a directory."""
        try:
            fd = lock_directory(self.path, wait=wait)
        except FileNotFoundError as error:
            raise NotFoundError(f"container {self.id!r} does not exist") from error
        if fd < 0:
            return False
        self._lock = fd
        return True

    def unlock(self) -> None:
        if self._lock >= 0:
            unlock(self._lock)
            self._lock = -1

    def exists(self) -> bool:
        try:
            return posix.lstat(self.path).st_mode & 0o170000 == 0o040000
        except OSError:
            return False

    def locked_by_other(self) -> bool:
        if self._lock >= 0:
            return False
        free = self.lock(wait=False)
        self.unlock()
        return not free

    def remove(self) -> None:
        """Remove the directory and all in it, whatever somebody has put there; idempotent."""
        _remove_tree(self.path)

    # ---- the record

    def write_record(self, head: "Json", config: bytes) -> None:
        """Write the intent record: `head` and, verbatim, the bytes of config.json (fsync, rename)."""
        self.stage_record(head, config)
        self.commit_record()

    def stage_record(self, head: "Json", config: bytes) -> None:
        """Write it where nobody looks until commit_record(): everything that may fail."""
        data = dump_json(head)[:-1].encode("utf-8", "surrogateescape") + b',"config":' + config + b"}"
        write_file(self.path + _STAGED, data, sync=True)

    def commit_record(self) -> None:
        posix.rename(self.path + _STAGED, self.path + "/state.json")

    def read_record(self) -> "Json | None":
        """The record; None when it is missing or corrupt (RULES 20: that must not hide a container)."""
        if not self.exists():
            raise NotFoundError(f"container {self.id!r} does not exist")
        try:
            record = parse_json(read_file(self.path + "/state.json"), "state.json")
        except (OSError, SpecError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("config"), dict) else None

    def read_head(self) -> "Json":
        """The record without `config`, which is most of it; {} when there is none that can be read."""
        try:
            # Quotes within strings are escaped: the first of these is the key, after all others.
            head, config, _ = read_file(self.path + "/state.json").partition(b',"config":')
            record = parse_json(head + b"}", "state.json") if config else None
        except (OSError, SpecError):
            return {}
        return record if isinstance(record, dict) else {}

    # ---- the process

    def record_pid(self, pid: int) -> None:
        """Note our child `pid`, which may have ended already: then as a process that is no more."""
        self._record("pid", pid)

    def record_monitor(self, pid: int) -> None:
        self._record("monitor", pid)

    def process(self) -> int:
        """Pid of the container's init while it lives, 0 otherwise; never another process that got its number."""
        return self._identify("pid")

    def age(self) -> float:
        """Seconds since that process was made; 0 where none was."""
        try:
            ticks = posix.readlink(self.path + "/pid").split(" ")[1]
            return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / _HERTZ
        except (OSError, ValueError, IndexError):
            return 0.0

    def monitor(self) -> int:
        """Pid of the container's monitor while it lives, 0 otherwise."""
        return self._identify("monitor")

    def _record(self, name: str, pid: int) -> None:
        posix.symlink(identify(pid), f"{self.path}/{name}")

    def _identify(self, name: str) -> int:
        try:
            return living(posix.readlink(f"{self.path}/{name}"))
        except OSError:
            return 0

    # ---- start

    def make_fifo(self) -> int:
        """Make and open the fifo.  Opened for both directions, so that init's read waits instead of ending."""
        posix.mkfifo(self.path + "/fifo", 0o600)
        return posix.open(self.path + "/fifo", posix.O_RDWR | posix.O_NONBLOCK | posix.O_CLOEXEC)

    def open_fifo(self) -> int:
        """The fifo's writing end; -1 when no init waits for it any more: the program has been executed, or died."""
        flags = posix.O_WRONLY | posix.O_NONBLOCK | posix.O_NOFOLLOW | posix.O_CLOEXEC
        try:
            fd = posix.open(self.path + "/fifo", flags)
        except OSError as error:
            if error.errno in (ENXIO, ENOENT, ELOOP):
                return -1
            raise
        if posix.fstat(fd).st_mode & 0o170000 == 0o010000:
            return fd
        posix.close(fd)  # Somebody damaged the state: nobody would ever read from that.
        return -1

    def open_report(self) -> int:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
        return posix.open(self.path + "/report", flags, 0o600)

    def read_report(self) -> bytes:
        try:
            return read_file(self.path + "/report")
        except OSError:
            return b""

    def status(self, frozen: bool = False) -> str:
        """creating, created, running, paused or stopped (runtime.md, State)."""
        if not self.process():
            has_pid = _lexists(self.path + "/pid")
            return "stopped" if has_pid or not self.locked_by_other() else "creating"
        fifo = self.open_fifo()
        if fifo >= 0:
            posix.close(fifo)
            return "created"
        return "paused" if frozen else "running"


def make_root(root: str) -> None:
    """Make the root of all state directories, 0700 (RULES 13), and the directories above it that are missing."""
    parent = root.rpartition("/")[0]
    try:
        posix.mkdir(root, 0o700)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno == ENOENT and parent and not _lexists(parent):
            make_root(parent)
            make_root(root)
            return
        reason = posix.strerror(error.errno or 0).lower()
        hint = "set XDG_RUNTIME_DIR, or use warren-oci --root"
        raise StateError(f"state directory {root}: {reason}", hint=hint) from error


def unlock(fd: int) -> None:
    """Give back a flock(2) and close its descriptor; closing alone would leave it to a child that another thread
    has just forked.
    """
    fcntl.flock(fd, fcntl.LOCK_UN)
    posix.close(fd)


def lock_directory(path: str, *, wait: bool = True) -> int:
    """Lock a directory that others may remove meanwhile, for unlock(); -1 when it is held and `wait` is not wanted.

    What is locked still has that name.  FileNotFoundError without one.
    """
    while True:
        fd = posix.open(path, _DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            posix.close(fd)
            return -1
        if _is_at(fd, path):
            return fd
        unlock(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        now, locked = posix.stat(path), posix.fstat(fd)
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (locked.st_dev, locked.st_ino)


def container_ids(root: str) -> "list[str]":
    try:
        with posix.scandir(root) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno == ENOENT:
            return []
        raise
    return sorted(name for name in found if name[0] != "." and _ID.issuperset(name))


def start_time(pid: int, *, ended: bool = False) -> str:
    """Field 22 of /proc/PID/stat, clock ticks since boot; "" for a process that is gone (proc(5)).

    A zombie counts as gone, unless `ended` ones are asked for.
    """
    try:
        text = read_file(f"/proc/{pid}/stat")
    except OSError:
        return ""
    fields = text[text.rindex(b")") + 2 :].split()
    return "" if fields[0] in (b"Z", b"X") and not ended else fields[19].decode()


_own = (0, "")


def own_start_time() -> str:
    """Of this process, read once."""
    global _own
    pid = posix.getpid()
    if _own[0] != pid:
        _own = pid, start_time(pid)
    return _own[1]


def identify(pid: int) -> str:
    """What no other process will ever be called: pid, start time and boot."""
    return f"{pid} {start_time(pid, ended=True)} {boot_id()}"


def living(identity: str) -> int:
    """Pid of the process that identify() has named, while it lives; 0 otherwise."""
    try:
        pid, started, boot = identity.split(" ")
        return int(pid) if boot == boot_id() and start_time(int(pid)) == started else 0
    except ValueError:
        return 0


def boot_id() -> str:
    """Read once: the kernel takes 0.1 ms to tell."""
    global _boot_id
    _boot_id = _boot_id or read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    return _boot_id


def poll_end(fd: int, timeout: "float | None") -> bool:
    """Wait until a pidfd is readable (its process ended); False after `timeout` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000))))


def read_file(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK)
    try:
        parts = []
        # Small enough for malloc(3) not to ask the kernel for it each time.
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        posix.close(fd)


def write_file(path: str, data: bytes, *, sync: bool = False) -> None:
    """Write a file of the user's own anew; with `sync` it is on disk then."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[posix.write(fd, view) :]
        if sync:
            posix.fsync(fd)
    finally:
        posix.close(fd)


def _remove_tree(path: str) -> None:
    try:
        for name in posix.listdir(path):
            try:
                posix.unlink(f"{path}/{name}")
            except IsADirectoryError:
                _remove_tree(f"{path}/{name}")
        posix.rmdir(path)
    except OSError as error:
        if error.errno != ENOENT:
            raise


def _lexists(path: str) -> bool:
    try:
        posix.lstat(path)
    except OSError:
        return False
    return True
