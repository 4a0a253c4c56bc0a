"""`run`, `create` and `start --attach`: a container from its options to its end, in the foreground or detached."""

import posix

from ..config import ContainerConfig
from ..errors import ExistsError, NotFoundError, StateError, TimeoutExpiredError, UsageError, WarrenError
from ..launch import Options
from ..monitor import Attached, parse_keys
from ..steps import LaunchPlan
from ..syscalls import wait
from . import lifecycle
from .launching import Launch
from .names import new_id
from .policy import RestartPolicy
from .records import Record, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..launch import Monitor
    from ..monitor import Client
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


def _start(record: Record, monitor: "Monitor | None" = None) -> int:
    """Start a new container; one whose options are wrong, or that is removed at its end, does not stay."""
    try:
        return lifecycle.start(record, monitor)
    except WarrenError as error:
        if record.config().auto_remove or error.exit_code == WarrenError.exit_code:
            lifecycle.remove(record, force=True, volumes=True)
        raise


class Outcome:
    """How a run in the foreground has ended."""

    __slots__ = ("code", "detached", "notes", "oom_killed", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.code = 0
        self.detached = False
        self.oom_killed = False
        self.notes: dict[str, str] = {}
        """What the user should know of how it was held, by name."""


def run_attached(config: ContainerConfig, values: "Values", fetch: "Fetch | None" = None) -> Outcome:
    """Run it in the foreground, with the caller's own streams and terminal, and pass signals on.

    Raises TimeoutExpiredError after config.timeout seconds, and what a launch raises.  Main thread only.
    """
    record = create(config, values, fetch)
    send = values["sig_proxy"] == "true"
    return _attend(record, interactive=config.interactive, detach_keys=config.detach_keys, sends=send, first=True)


def start_attached(record: Record, *, interactive: bool, detach_keys: str) -> Outcome:
    """`start --attach`: in the foreground, as run_attached()."""
    return _attend(record, interactive=interactive, detach_keys=detach_keys, sends=True, first=False)


def _attend(record: Record, *, interactive: bool, detach_keys: str, sends: bool, first: bool) -> Outcome:
    config = record.config()
    outcome = Outcome(record)
    monitor, client = lifecycle.monitor_of(record, config, owner=True)
    assert client is not None
    with Attached(
        client,
        terminal=config.tty,
        stdin=interactive,
        send=lambda number: _pass_on(record, number) if sends else None,
        detach_keys=parse_keys(detach_keys or "ctrl-p,ctrl-q"),
        owner=config.auto_remove,
    ) as attached:
        try:
            if first:
                _start(record, monitor)
            else:
                lifecycle.start(record, monitor)
            code = attached.follow()
            outcome.detached = attached.detached
            attached.restore_mode()
            if not outcome.detached:
                outcome.code = record.exit_code() if code is None else code
                _end(outcome, config, client, monitor.pid)
        finally:
            client.close()
    return outcome


def _end(outcome: Outcome, config: ContainerConfig, client: "Client", monitor: int) -> None:
    """Do what the monitor would have done by another program; one with a restart policy is left to that."""
    record = outcome.record
    if RestartPolicy(config.restart).restarts:
        return
    with record:
        lifecycle.settle(record)
        life = record.life()
    outcome.oom_killed, outcome.notes = bool(life.get("oom_killed")), life.get("enforced") or {}
    lifecycle.finish(record)
    client.done()
    wait(monitor)
    if life.get("timed_out"):
        what = f"command {config.argv[0]!r} took longer than {config.timeout:g} s and was killed"
        raise TimeoutExpiredError(what)


def _pass_on(record: Record, number: int) -> None:
    try:
        record.container.kill(number)
    except StateError:
        pass  # It has ended; its exit code is on the way.
