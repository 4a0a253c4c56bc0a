"""`run`, `create` and `start --attach`: a container from its options to its end, in the foreground or detached."""

import posix

from ..config import ContainerConfig
from ..errors import (
    ExistsError,
    NoTerminalError,
    NotFoundError,
    StateError,
    TimeoutExpiredError,
    UnsupportedError,
    UsageError,
    WarrenError,
)
from ..launch import Options
from ..monitor import Attached, Client, parse_keys
from ..steps import LaunchPlan
from ..syscalls import wait
from . import lifecycle
from .launching import Launch
from .names import new_id
from .policy import RestartPolicy
from .records import Record, find, unmark_brief

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..launch import Monitor
    from .images import Fetch

    Values = dict[str, Any]

_KILLED = 137
"""Of a container whose monitor was killed: the kernel has killed the container with it."""


def plan(config: ContainerConfig) -> LaunchPlan:
    """What running `config` would execute; launches nothing."""
    config.id = config.id or new_id()
    return Launch(config, Options()).plan()


def create(config: ContainerConfig, values: "Values", fetch: "Fetch | None" = None) -> Record:
    """A container of the options of `create`: --replace and --cidfile too."""
    record = _create(config, values, fetch)
    unmark_brief(record.id)
    return record


def _create(config: ContainerConfig, values: "Values", fetch: "Fetch | None") -> Record:
    """One that is to be started, and goes if that does not happen."""
    cidfile = values["cidfile"]
    if cidfile and posix.access(cidfile, posix.F_OK):
        raise ExistsError(f"--cidfile {cidfile} exists", hint="remove it first")
    lifecycle.sweep()
    source = lifecycle.choose(config, values["pull"], fetch, values["platform"])
    if values["replace"]:
        _replace(config.name)
    record = lifecycle.make(config, source)
    lifecycle.keep(record)
    if cidfile:
        try:
            _write_new(cidfile, record.id)
        except OSError as error:
            lifecycle.remove(record, force=True)
            raise UsageError(f"--cidfile {cidfile}: {posix.strerror(error.errno or 0)}".lower()) from error
    return record


def create_checked(config: ContainerConfig, values: "Values", fetch: "Fetch | None" = None) -> Record:
    """create(), and what a start would find wrong with the options is found now: nothing is left then."""
    record = create(config, values, fetch)
    try:
        Launch(lifecycle.configured(record), Options(), record.root).plan()
    except (UsageError, UnsupportedError):
        lifecycle.remove(record, force=True, volumes=True)
        if values["cidfile"]:
            posix.unlink(values["cidfile"])
        raise
    except WarrenError:
        pass  # What it is to join, for one, may be there by then.
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
    """Start it, or --replicas of it, and leave; the ids, each as soon as it runs."""
    if values["attach"]:
        raise UsageError("--attach and --detach exclude each other")
    if values["replicas"]:
        yield from _run_replicas(config, values, fetch)
        return
    record = _create(config, values, fetch)
    _start(record)
    yield record.id


def _run_replicas(config: ContainerConfig, values: "Values", fetch: "Fetch | None") -> "Iterator[str]":
    """What is the same for all is done once; the first error ends it, and says how many run."""
    count = values["replicas"]
    if count < 1:
        raise UsageError(f"--replicas {count} is none")
    if values["cidfile"]:
        raise UsageError("--cidfile and --replicas exclude each other", hint="the ids are printed")
    from .parallel import in_parallel

    lifecycle.sweep()
    source = lifecycle.choose(config, values["pull"], fetch, values["platform"])
    wanted, started = config.to_dict(), []

    def run(number: int) -> Record:
        one = ContainerConfig.from_dict(wanted)
        one.name = f"{config.name}-{number}" if config.name else ""
        if values["replace"]:
            _replace(one.name)
        record = lifecycle.make(one, source)
        _start(record)
        return record

    try:
        for record in in_parallel(run, count):
            started.append(record)
            yield record.id
    except WarrenError as error:
        error.message = f"{len(started)} of {count} replicas run: {error.message}"
        raise
    finally:
        for record in started:
            lifecycle.keep(record)


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
    streams = values["attach"]
    outputs = _outputs(streams)
    _need_terminal(config)
    record = _create(config, values, fetch)
    config = record.config()
    config.interactive = config.interactive and (not streams or "stdin" in streams)
    return _attend(record, config, sends=values["sig_proxy"] == "true", outputs=outputs, start=_start)


def start_attached(record: Record, *, interactive: bool, detach_keys: str) -> Outcome:
    """`start --attach`: in the foreground, as run_attached()."""
    config = record.config()
    config.interactive = config.interactive and interactive
    config.detach_keys = detach_keys or config.detach_keys
    _need_terminal(config)
    return _attend(record, config, sends=True, outputs=(1, 2), start=lifecycle.start)


def attach(record: Record, *, stdin: bool, sends: bool, detach_keys: str) -> Outcome:
    """Go on as if it had been started in the foreground by us; StateError for one that does not run."""
    config = record.config()
    config.interactive = config.interactive and stdin
    _need_terminal(config)
    record.running_pid()
    if record.container.is_frozen():
        raise StateError(f"container {record.name!r} is paused", hint=f"warren unpause {record.name}")
    outcome = Outcome(record)
    client = Client.connect(record.state_dir.path)
    with _attached(record, config, client, sends=sends, detach_keys=detach_keys or config.detach_keys) as attached:
        try:
            code = attached.follow()
            outcome.detached = attached.detached
            if not outcome.detached:
                outcome.code = _orphans_code(record) if code is None else code
        finally:
            client.close()
    return outcome


def _need_terminal(config: ContainerConfig) -> None:
    if config.tty and config.interactive and not posix.isatty(0):
        what = "cannot attach stdin to a TTY-enabled container because stdin is not a terminal"
        raise NoTerminalError(what, hint="-t without -i needs none")


def _outputs(attach: "tuple[str, ...]") -> "tuple[int, ...]":
    """Our descriptors that --attach names; both if it names none."""
    known = {"stdin": 0, "stdout": 1, "stderr": 2}
    for name in attach:
        if name not in known:
            raise UsageError(f"--attach {name!r} is no stream", hint="stdin, stdout or stderr")
    return tuple(known[name] for name in attach) or (1, 2)


def _attached(
    record: Record,
    config: ContainerConfig,
    client: Client,
    *,
    sends: bool,
    detach_keys: str,
    owner: bool = False,
    outputs: "tuple[int, ...]" = (1, 2),
) -> Attached:
    return Attached(
        client,
        terminal=config.tty,
        stdin=config.interactive,
        send=(lambda number: _pass_on(record, number)) if sends else None,
        detach_keys=parse_keys(detach_keys or "ctrl-p,ctrl-q"),
        owner=owner,
        outputs=outputs,
    )


def _attend(
    record: Record,
    config: ContainerConfig,
    *,
    sends: bool,
    outputs: "tuple[int, ...]",
    start: "Callable[[Record, Monitor], int]",
) -> Outcome:
    outcome = Outcome(record)
    monitor, client = lifecycle.monitor_of(record, record.config(), owner=True)
    assert client is not None
    keys = config.detach_keys
    with _attached(
        record, config, client, sends=sends, detach_keys=keys, owner=config.auto_remove, outputs=outputs
    ) as attached:
        try:
            start(record, monitor)
            code = attached.follow()
            outcome.detached = attached.detached
            attached.restore_mode()
            if not outcome.detached:
                outcome.code = _orphans_code(record) if code is None else code
                _end(outcome, config, client, monitor.pid)
        finally:
            client.close()
    return outcome


def _orphans_code(record: Record) -> int:
    """The monitor has gone without a word."""
    try:
        with record:
            lifecycle.end_orphan(record)
        return lifecycle.wait(record)
    except NotFoundError:
        return _KILLED  # It has been removed since.


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
