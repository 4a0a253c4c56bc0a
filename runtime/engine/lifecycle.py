"""The verbs on containers that are kept: create, start, stop, kill, pause, wait, rename, remove; and settling a run.

    create ──start──> running ──(its process ends)──> exited ──start──> running ...
                                                        └─remove──> gone

Every verb holds the container's lock.  settle() is the one way in which a run is cleared away, whoever notices its end
first: `warren run` in the foreground, the monitor's event program, or the next command after all of them were killed.
"""

import posix
import sys
import time

from ..config import ContainerConfig
from ..config.ids import release_ids
from ..console import terminal_size
from ..errors import NotFoundError, StateError, UnsupportedError, UsageError, WarrenError
from ..launch import Options, forget_sealed
from ..monitor import Events, make_monitor, parse_keys
from ..quantities import signal_number, timestamp
from ..state import poll_end
from . import journal, logs, networking
from .health import HealthCheck, begin
from .launching import Launch, clean_up
from .names import new_id
from .policy import RestartPolicy
from .records import (
    Record,
    abandoned,
    begun,
    containers_root,
    is_abandoned,
    make_record,
    mark_brief,
    record_ids,
    release_name,
    release_names,
    rename_record,
    unmark_brief,
)
from .trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..images.local import Image, LocalStore
    from ..launch import Monitor
    from ..monitor import Client
    from .images import Fetch

    Json = dict[str, Any]
    Source = tuple[LocalStore, Image]

SIGKILL, SIGTERM = 9, 15
STOP_SECONDS = 10
"""docker's grace between the stop signal and SIGKILL."""
_END_SECONDS = 10.0
_GONE = ".gone-"


def create(config: ContainerConfig, pull: str = "missing", fetch: "Fetch | None" = None, platform: str = "") -> Record:
    """Make a container that does not run yet.  `pull`, `fetch` and `platform` are choose_image()'s.

    Raises UsageError, ExistsError for a name that is taken, NotFoundError and ImageError; nothing is left then.
    """
    sweep()
    record = make(config, choose(config, pull, fetch, platform))
    keep(record)
    unmark_brief(record.id)
    return record


def choose(config: ContainerConfig, pull: str, fetch: "Fetch | None", platform: str) -> "Source | None":
    """The image that the configuration names, and its store; None for the host and directories."""
    _check(config)
    if not config.image:
        return None
    from ..images.local import LocalStore
    from .images import choose_image

    store = LocalStore()
    return store, choose_image(config.image, store, pull, fetch, platform)


def make(config: ContainerConfig, source: "Source | None") -> Record:
    """create() with the image chosen, which several containers may share; to be kept by keep().

    It goes with this process until it has been started, or unmark_brief() is told that it may wait for that.
    """
    config.id = config.id or new_id()
    mark_brief(config.id)
    try:
        if source:
            from .images import use_image

            use_image(config, *source)
        if _wants_mounts(config):
            from .volumes import resolve

            config.resolved_mounts = resolve(config)
        head = _head(config, source[1] if source else None)
        if source and (store := source[0]).notes:
            head["notes"] = {"image": "; ".join(store.notes)}
        record = make_record(config.id, config.name, head)
    except BaseException:
        _release_volumes(config, remove=True)
        _take_back(config.id)
        raise
    journal.note(record, "create")
    return record


def keep(record: Record) -> None:
    """Let it outlive a crash of the machine, unless it would be removed then anyway."""
    if not record.config().auto_remove:
        record.sync()


def outlive(record: Record) -> None:
    """It is no longer removed at its end, nor goes with the process that has made it."""
    with record:
        config = record.config()
        config.auto_remove = False
        record.write({**record.data, "config": _kept(config)})
        unmark_brief(record.id)
        record.sync()


def _wants_mounts(config: ContainerConfig) -> bool:
    return bool(config.volumes or config.mounts or config.tmpfs or config.volumes_from or config.image_volumes)


def _release_volumes(config: ContainerConfig, *, remove: bool) -> None:
    if config.resolved_mounts:
        from ..config.mounts import Wish
        from .volumes import release

        release([Wish.from_dict(entry) for entry in config.resolved_mounts], config.id, remove=remove)


def _check(config: ContainerConfig) -> None:
    """What a launch would find too late, or never; UsageError."""
    if RestartPolicy(config.restart).restarts and config.auto_remove:
        raise UsageError("--restart and --rm exclude each other")
    if config.stop_signal:
        signal_number(config.stop_signal)
    logs.log_of("", config)
    parse_keys(config.detach_keys)
    HealthCheck(config)


def _head(config: ContainerConfig, image: "Image | None") -> "Json":
    return {
        "created": timestamp(time.time_ns()),
        "image": config.image,
        "image_id": image.id if image else "",
        "manifest": image.manifest.digest if image else "",
        "chains": image.chains if image else [],
        "entrypoint": _entrypoint(config, image),
        "command": sys.argv[1:],
        "config": _kept(config),
    }


def _kept(config: ContainerConfig) -> "Json":
    wanted = config.to_dict()
    wanted.pop("layers", None)  # They are found by the chain: a store may be moved.
    return wanted


def _entrypoint(config: ContainerConfig, image: "Image | None") -> "list[str]":
    """How argv begins because of the image; `inspect` tells the two apart."""
    told = image.config.get("config") if image and config.entrypoint is None else None
    found = told.get("Entrypoint") if isinstance(told, dict) else None
    return found if isinstance(found, list) else []


def start(record: Record, monitor: "Monitor | None" = None, *, restarting: bool = False) -> int:
    """Start it; its pid.  A container that runs is left alone.  `monitor` is by default one without an owner.

    `restarting` is for restart policies: 0 unless the restart is still wanted.

    Raises what a launch raises; the container is there then, with the error and its exit code.
    """
    with record:
        settle(record)
        if pid := record.state_dir.process():
            return pid
        life = record.life()
        if restarting and not life.get("restart_at"):
            return 0
        config = configured(record)
        if config.auto_remove:
            mark_brief(record.id)
        record.forget_exit()
        restarts = {"restarts": int(life.get("restarts") or 0) + 1} if restarting else {"restarts": 0, "delay": 0}
        life.update(
            starts=int(life.get("starts") or 0) + 1, started=time.time_ns(), stopped=False, launching=True,
            oom_killed=False, timed_out=False, error="", enforced={}, **restarts,
        )  # fmt: skip
        if not config.auto_remove:  # One that goes anyway if we are killed now needs no word of it.
            record.write_json("life.json", life)
        if check := HealthCheck(config):
            begin(record, check)
        monitor = monitor or monitor_of(record, config)[0]
        try:
            options = Options(monitor=monitor, size=terminal_size() if config.tty else (0, 0))
            launch = Launch(config, options, record.root, fill=not life.get("filled"), scratch=not _keeps(record))
            pid = launch.run()
        except WarrenError as error:
            record.write_json("life.json", life)
            _note_failure(record, error)
            if not config.auto_remove:
                unmark_brief(record.id)
            raise
        finally:
            monitor.close()
        notes = {**options.enforced, **record.data.get("notes", {})}
        life.update(enforced=notes, launching=False, restart_at=0, monitor="", filled=True)
        record.write_json("life.json", life)
        if not config.auto_remove:
            unmark_brief(record.id)
        journal.note(record, "start")
        return pid


def monitor_of(
    record: Record, config: ContainerConfig, *, owner: bool = False, leash: bool = False
) -> "tuple[Monitor, Client | None]":
    """What keeps its output and its exit code, and runs event.py.

    With `owner` also a client that is attached to it; with `leash` one without which the container is not to be.
    """
    return make_monitor(
        terminal=config.tty,
        stdin=config.interactive,
        stdin_once=config.interactive and owner,
        log=logs.log_of(record.path, config),
        exit_directory=record.path,
        events=Events(event_argv(record.id), event_environment(), event_timer(config)),
        owner=owner,
        leash=leash,
    )


def event_argv(container_id: str) -> "list[str]":
    """The command that the monitor runs: `warren _event ID`, by way of the interpreter that runs us."""
    site = __file__.rpartition("/runtime/")[0]
    code = "import sys;sys.path.insert(0,sys.argv.pop(1));from cli import main;main()"
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, site, "_event", container_id]


def event_environment() -> "list[str]":
    """What places of files depend on."""
    wanted = (b"PATH", b"HOME", b"USER", b"XDG_RUNTIME_DIR", b"XDG_DATA_HOME", b"XDG_STATE_HOME", b"XDG_CONFIG_HOME",
              b"DBUS_SESSION_BUS_ADDRESS")  # fmt: skip
    found = [name + b"=" + posix.environ[name] for name in wanted if name in posix.environ]
    return [entry.decode("utf-8", "surrogateescape") for entry in found]


def event_timer(config: ContainerConfig) -> "tuple[int, str]":
    """When event.py is wanted for the first time, in milliseconds; (0, "") if only at the end."""
    check = HealthCheck(config)
    times = [int((config.timeout or 0) * 1000), check.interval // 1_000_000 if check else 0]
    first = min((one for one in times if one > 0), default=1 if config.timeout else 0)
    return (first, "timer") if first else (0, "")


def configured(record: Record) -> ContainerConfig:
    """Its configuration with what depends on where things are: the layers, and where changes are kept."""
    config = record.config()
    config.name = record.name
    if record.data.get("chains"):
        from ..images.local import LocalStore

        config.layers = LocalStore().layer_paths(record.data["chains"])
    machine = config.isolation not in ("", "container")  # Its changes are in its memory.
    if not config.keep_changes and not config.write and not machine and (config.layers or config.rootfs):
        config.keep_changes = record.path
    return config


def _keeps(record: Record) -> bool:
    """Whether the user insists on a directory for the changes of the root."""
    return bool(record.data["config"].get("keep_changes"))


def _note_failure(record: Record, error: WarrenError) -> None:
    """A launch that failed is an end, with the code that the command line ends with."""
    now = time.time_ns()
    record.write_exit(error.exit_code, now, now)
    record.update_life(error=str(error), launching=False, restart_at=0)
    journal.note(record, "die", exitCode=str(error.exit_code))


def settle(record: Record) -> None:
    """Clear away a run whose process has ended: its cgroup, leases and state; idempotent.  Lock held."""
    state = record.state_dir
    if not state.exists() or state.process():
        return
    try:
        if record.container.oom_kills() > 0:
            record.update_life(oom_killed=True)
            journal.note(record, "oom")
    except (StateError, UnsupportedError):
        pass
    record.container.delete(force=True)
    release_ids(record.root, record.id)
    _note_denied(record)
    networking.release(record.id, record.root)
    if record.life().get("launching"):
        record.update_life(launching=False, error="the command that started it was killed")


def end_orphan(record: Record) -> None:
    """Settle a run whose monitor was killed.  Lock held.

    The kernel has killed its process with the monitor, unless that has changed its user since: then we do (prctl(2),
    PR_SET_PDEATHSIG).
    """
    if record.state_dir.process() and not record.monitor():
        record.container.delete(force=True)
        release_ids(record.root, record.id)
        networking.release(record.id, record.root)
    settle(record)


def _note_denied(record: Record) -> None:
    """An event of what a container's egress rules have denied it."""
    if not record.data["config"].get("egress"):
        return
    told = networking.settings(record.id, record.root).get("Egress") or {}
    if told.get("DeniedPackets") or told.get("DeniedNames"):
        names = ",".join(told["DeniedNames"])
        journal.note(record, "egress-denied", packets=str(told["DeniedPackets"]), names=names)


def finish(record: Record) -> None:
    """Settle a run that its own command has waited for, and remove what was to go with it; idempotent."""
    try:
        with record:
            ended = record.exit()
            if record.state_dir.process() or not ended:
                return
            settle(record)
            journal.note(record, "die", exitCode=str(ended.code))
            if record.config().auto_remove:
                discard(record, volumes=True)
    except NotFoundError:
        pass


def kill(record: Record, signal: int = SIGKILL) -> None:
    """Send a signal to its process; StateError when it does not run."""
    with record:
        record.running_pid()
        if signal in (SIGKILL, SIGTERM):
            record.update_life(stopped=True)
        record.container.kill(signal)
        journal.note(record, "kill", signal=str(signal))


def stop(record: Record, seconds: "float | None" = None, signal: int = 0) -> None:
    """Ask it to end, and kill it `seconds` later; returns when it has ended.  One that does not run is left alone.

    `seconds` and `signal` are by default the container's own, else 10 and SIGTERM; a negative number waits for ever.
    """
    with record:
        pid = record.state_dir.process()
        record.update_life(stopped=True, restart_at=0)
        if not pid:
            settle(record)
            return
        config = record.config()
        if seconds is None:
            seconds = STOP_SECONDS if config.stop_timeout is None else config.stop_timeout
        _end(record, signal or signal_number(config.stop_signal or "TERM"), seconds)
        journal.note(record, "stop")


def _end(record: Record, signal: int, seconds: float) -> None:
    container = record.container
    try:
        ended = container.pidfd()
    except StateError:
        return
    try:
        if container.is_frozen():
            container.resume()
        container.kill(signal)
        if not poll_end(ended, None if seconds < 0 else seconds):
            container.kill(SIGKILL)
            if not poll_end(ended, _END_SECONDS):
                raise StateError(f"container {record.name!r} does not end", hint="is it stuck in the kernel?")
    except StateError:
        if record.state_dir.process():
            raise
    finally:
        posix.close(ended)
    await_exit(record)


def await_exit(record: Record) -> None:
    """Wait until the monitor of a process that has ended has written down how, or is gone itself."""
    deadline = time.monotonic() + _END_SECONDS
    while record.exit() is None and record.monitor() and time.monotonic() < deadline:
        time.sleep(0.002)


def wait(record: Record) -> int:
    """Wait for the end of a container that runs; the exit code of its last end otherwise."""
    while True:
        try:
            ended = record.container.pidfd()
        except (StateError, NotFoundError):
            await_exit(record)
            return record.exit_code()
        try:
            poll_end(ended, None)
        finally:
            posix.close(ended)


def pause(record: Record) -> None:
    with record:
        record.running_pid()
        record.container.pause()
        journal.note(record, "pause")


def unpause(record: Record) -> None:
    with record:
        record.running_pid()
        record.container.resume()
        journal.note(record, "unpause")


def restart(record: Record, seconds: "float | None" = None) -> None:
    stop(record, seconds)
    start(record)
    journal.note(record, "restart")


def rename(record: Record, name: str) -> None:
    """ExistsError for a name that is taken, UsageError for one that is none."""
    with record:
        old = record.name
        rename_record(record, name)
        journal.note(record, "rename", oldName=old)


def remove(record: Record, *, force: bool = False, volumes: bool = False) -> None:
    """Remove a container that does not run, with `force` any; with `volumes` also its anonymous volumes."""
    with record:
        if record.state_dir.process():
            if not force:
                hint = f"warren stop {record.name}, or --force"
                raise StateError(f"cannot remove container {record.name!r}: it is {record.status()}", hint=hint)
            record.update_life(stopped=True)
            _end(record, SIGKILL, _END_SECONDS)
        settle(record)
        discard(record, volumes=volumes)


def discard(record: Record, *, volumes: bool = False) -> None:
    """Remove all that is kept of a container that has been settled.  Lock held."""
    config: ContainerConfig | None = None
    try:
        journal.note(record, "destroy")
        name, config = record.name, record.config()
    except StateError:
        name = ""  # What is damaged can be removed, too.
    gone = f"{containers_root()}/{_GONE}{record.id}"
    posix.rename(record.path, gone)
    if name:
        release_name(name, record.id)
    else:
        release_names(record.id)
    _release_image(record.id)
    if config:
        _release_volumes(config, remove=volumes)
    remove_tree(gone)
    unmark_brief(record.id)


def _release_image(container_id: str) -> None:
    from ..images.local import default_store

    path = f"{default_store()}/users/{container_id}"
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def sweep() -> None:
    """Finish what killed commands and monitors have begun or left; cheap where there is nothing to do."""
    left = clean_up()
    known = set(record_ids()) if left else set()
    for container_id in left:
        record = Record(container_id)
        if container_id in known:
            _sweep_one(record)
    for container_id in abandoned(Record("", {}).root):
        _sweep_abandoned(Record(container_id))
    for name in _leftovers():
        release_names(name.removeprefix(_GONE))
        _release_image(name.removeprefix(_GONE))
        remove_tree(f"{containers_root()}/{name}")


def withdraw() -> None:
    """For a command that was interrupted, and ends: remove at once what it has begun to make.

    What it has started is done, and stays.  Afterwards the next sweep() would remove the rest, but for what runs
    without being started.  All its descriptors are closed, as by the end of the process: it may have been interrupted
    just as a lock was taken, by a frame that will not give it back.
    """
    posix.closerange(3, 1 << 16)
    forget_sealed()
    for container_id in begun():
        record = Record(container_id)
        if record.life().get("launching") is False and record.state_dir.process():
            if not record.config().auto_remove:
                unmark_brief(container_id)
            continue
        try:
            remove(record, force=True, volumes=True)
        except NotFoundError:
            _take_back(container_id)


def _sweep_one(record: Record) -> None:
    """It had no monitor; whether it has one is certain with its lock held only."""
    try:
        if not record.lock(wait=False):
            return
    except NotFoundError:
        return
    try:
        if record.monitor():
            return
        end_orphan(record)
        if record.config().auto_remove:
            discard(record, volumes=True)
    finally:
        record.unlock()


def _sweep_abandoned(record: Record) -> None:
    """Its command was killed before it was started, or before all of it was removed."""
    try:
        if record.lock(wait=False) and is_abandoned(record.root, record.id):
            settle(record)
            discard(record, volumes=True)
    except NotFoundError:
        _take_back(record.id)
    finally:
        record.unlock()


def _take_back(container_id: str) -> None:
    """Remove what there is of one that has no record yet, or none any more."""
    remove_tree(f"{containers_root()}/{container_id}")
    _release_image(container_id)
    release_names(container_id)
    unmark_brief(container_id)


def _leftovers() -> "list[str]":
    try:
        return [name for name in posix.listdir(containers_root()) if name.startswith(_GONE)]
    except FileNotFoundError:
        return []
