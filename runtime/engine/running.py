"""`run`, `create` and `start --attach`: a container from its options to its end, in the foreground or detached."""

import posix
import time

from ..config import ContainerConfig
from ..console import Foreground, console_pair, terminal_size
from ..errors import ExistsError, NotFoundError, TimeoutExpiredError, UsageError, WarrenError
from ..launch import Options
from ..steps import LaunchPlan
from ..syscalls import wait
from . import lifecycle
from .launching import Launch
from .names import new_id
from .records import Record, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .images import Fetch

    Values = dict[str, Any]


def plan(config: ContainerConfig) -> LaunchPlan:
    """What running `config` would execute; launches nothing."""
    config.id = config.id or new_id()
    return Launch(config, Options()).plan()


def create(config: ContainerConfig, values: "Values", fetch: "Fetch | None" = None) -> Record:
    """A container of the options of `create`: --replace and --cidfile too."""
    cidfile = values["cidfile"]
    if cidfile and posix.access(cidfile, posix.F_OK):
        raise ExistsError(f"--cidfile {cidfile} exists", hint="remove it first")
    if values["replace"]:
        _replace(config.name)
    record = lifecycle.create(config, values["pull"], fetch)
    if cidfile:
        try:
            _write_new(cidfile, record.id)
        except OSError as error:
            lifecycle.remove(record, force=True)
            raise UsageError(f"--cidfile {cidfile}: {posix.strerror(error.errno or 0)}".lower()) from error
    return record


def _replace(name: str) -> None:
    if not name:
        raise UsageError("--replace needs --name")
    try:
        lifecycle.remove(find(name), force=True, volumes=True)
    except NotFoundError:
        pass


def _write_new(path: str, content: str) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    try:
        posix.write(fd, content.encode())
    finally:
        posix.close(fd)


def run_detached(config: ContainerConfig, values: "Values", fetch: "Fetch | None" = None) -> "Iterator[str]":
    """Start it, or --replicas of it, and leave; the ids."""
    if values["attach"]:
        raise UsageError("--attach and --detach exclude each other")
    for one in _replicas(config, values["replicas"]):
        record = create(one, values, fetch)
        _start(record)
        yield record.id


def _replicas(config: ContainerConfig, count: int) -> "Iterator[ContainerConfig]":
    if not count:
        yield config
        return
    if count < 1:
        raise UsageError(f"--replicas {count} is none")
    for number in range(1, count + 1):
        one = ContainerConfig.from_dict(config.to_dict())
        one.name = f"{config.name}-{number}" if config.name else ""
        yield one


def _start(record: Record, options: "Options | None" = None) -> int:
    """Start a new container; one whose options are wrong, or that is removed at its end, does not stay."""
    try:
        return lifecycle.start(record, options)
    except WarrenError as error:
        if record.config().auto_remove or error.exit_code == WarrenError.exit_code:
            lifecycle.remove(record, force=True, volumes=True)
        raise


def run_attached(config: ContainerConfig, values: "Values", fetch: "Fetch | None" = None) -> "tuple[int, Record]":
    """Run it in the foreground, with the caller's own streams and terminal, and pass signals on; its exit code.

    Raises TimeoutExpiredError after config.timeout seconds, and what a launch raises.  Main thread only.
    """
    with Foreground() as foreground:
        record = create(config, values, fetch)
        return _attend(record, config, foreground), record


def _attend(record: Record, config: ContainerConfig, foreground: Foreground) -> int:
    with _Input(config) as stdin:
        options = Options(stdio=(stdin, 1, 2), size=terminal_size())
        ours, theirs = console_pair() if config.tty else (None, None)
        if theirs is not None:
            options.console_fd = theirs.fileno()
        try:
            begun = time.time_ns()
            pid = _start(record, options)
            if ours is not None:
                foreground.take_terminal(ours)
            code = foreground.wait(pid, config.timeout)
            timed_out = code is None
            if code is None:
                lifecycle.kill(record)
                code = wait(pid)
                foreground.restore_mode()
            record.write_exit(code, begun, time.time_ns())
            if timed_out:
                what = f"command {config.argv[0]!r} took longer than {config.timeout:g} s and was killed"
                raise TimeoutExpiredError(what)
            return code
        finally:
            for sock in (ours, theirs):
                if sock is not None:
                    sock.close()
            lifecycle.finish(record)


class _Input:
    """Descriptor of the container's stdin: ours with -i, /dev/null without, as docker's."""

    def __init__(self, config: ContainerConfig) -> None:
        self._wanted = config.interactive or config.tty
        self._fd = -1

    def __enter__(self) -> int:
        if self._wanted:
            return 0
        self._fd = posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            posix.close(self._fd)


def last_words(record: Record, config: ContainerConfig, code: int) -> str:
    """What a user should know of a run that has ended; "" for nothing."""
    return ""


def start_attached(record: Record, *, interactive: bool, detach_keys: str) -> int:
    """`start --attach`: in the foreground, as run_attached(); its exit code."""
    with Foreground() as foreground:
        return _attend(record, record.config(), foreground)
