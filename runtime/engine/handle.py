"""runtime.container(): a container that lives as long as a scope of the program.

It is a container as the command line has them, so that `warren ps`, `logs`, `exec` and `inspect` work on it; but its
monitor holds it on a leash: when this process ends, however it ends, the container is killed and removed.
"""

import os
import posix
import threading
from weakref import WeakSet

from ..config import ContainerConfig
from ..errors import NotFoundError, StateError, TimeoutExpiredError, UsageError
from ..state import poll_end
from ..syscalls import wait as wait_child
from . import lifecycle, log_reader, networking, view
from . import wait as waiting
from .files import Files
from .guardian import guard
from .library import captured, fed
from .pipes import Streams, Text
from .popen import Process
from .processes import Request
from .settings import configuration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Unpack

    from ..cgroups.stats import Stats
    from ..monitor import Client
    from .pipes import Stream
    from .records import Record
    from .results import Result
    from .settings import ContainerOptions
    from .wait import Condition

    Json = dict[str, Any]

_SIGKILL = 9


def container(
    image: "str | os.PathLike[str]",
    argv: "Sequence[str] | None" = None,
    *,
    pull: str = "missing",
    wait: "Condition | None" = None,
    timeout: float = 60.0,
    **options: "Unpack[ContainerOptions]",
) -> "RunningContainer":
    """Start a container that ends with the `with` block, or close(), or this process.

    `argv` None is the image's own command; an empty one, and None for "host" and directories, runs nothing: the
    container is there for exec() and popen().  `image`, `pull` and the options mean what they mean to run(); besides,
    there are docker's `publish`, `labels`, `name`, `health_cmd` and so on: runtime.ContainerOptions lists them all.
    `wait` is what to wait for (runtime.wait), for at most `timeout` seconds.

    Raises what run() raises; StateError and TimeoutExpiredError of `wait`.  Nothing is left then.
    """
    started = RunningContainer(configuration(image, argv, options), pull)
    try:
        if wait:
            started.wait_for(wait, timeout)
    except BaseException:
        started.close()
        raise
    return started


class RunningContainer:
    """A container of this process; any thread may use it, and it is closed once.

    One without `leash` stays when it is closed, and after this process.
    """

    def __init__(self, config: ContainerConfig, pull: str = "missing", *, leash: bool = True) -> None:
        config.auto_remove = leash
        guard()
        lifecycle.sweep()
        record = lifecycle.make(config, lifecycle.choose(config, pull, None, ""))
        self.record: Record = record
        self._closing = threading.Lock()
        self._process = posix.getpid()
        self._client: Client | None = None
        self._monitor = 0
        try:
            monitor, self._client = lifecycle.monitor_of(record, record.config(), leash=leash)
            lifecycle.start(record, monitor)
            self._monitor = monitor.pid
            if not leash:
                lifecycle.keep(record)
        except BaseException:
            lifecycle.remove(record, force=True, volumes=True)
            if self._client:
                self._client.close()
            raise
        self.fs = Files(record)
        _living.add(self)

    # ---- what it is

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.id

    @property
    def name(self) -> str:
        """As asked for, else one that is made up."""
        return self.record.name

    @property
    def pid(self) -> int:
        """Of its first process, in the host's view; StateError when it has ended."""
        return self.record.running_pid()

    @property
    def status(self) -> str:
        """running, paused or exited."""
        return self.record.status()

    @property
    def enforced(self) -> "dict[str, str]":
        """How each limit is held, by name, and what is weaker than asked or than the default, with the reason."""
        return dict(self.record.life().get("enforced") or {})

    def inspect(self) -> "Json":
        """What `warren inspect` shows, in docker's keys."""
        return view.describe(self.record)

    # ---- processes

    def popen(
        self,
        argv: "Sequence[str]",
        *,
        stdin: "Stream" = None,
        stdout: "Stream" = None,
        stderr: "Stream" = None,
        text: bool = False,
        encoding: "str | None" = None,
        errors: "str | None" = None,
        env: "Mapping[str, str] | None" = None,
        cwd: "str | os.PathLike[str] | None" = None,
        user: "str | int | None" = None,
        privileged: bool = False,
    ) -> Process:
        """Start a further process in it, as subprocess.Popen does on the host.

        `env` adds to the container's environment.  StateError when it has ended; what a launch raises.
        """
        words = Text(text, encoding, errors)
        request = _request(argv, env, cwd, user, privileged=privileged)
        return Process(self.record, request, Streams(stdin, stdout, stderr), words).open_files()

    def exec(
        self,
        argv: "Sequence[str]",
        *,
        input: "str | bytes | None" = None,
        stdin: "Stream" = None,
        stdout: "Stream" = None,
        stderr: "Stream" = None,
        capture_output: bool = False,
        text: bool = False,
        encoding: "str | None" = None,
        errors: "str | None" = None,
        timeout: "float | None" = None,
        check: bool = False,
        env: "Mapping[str, str] | None" = None,
        cwd: "str | os.PathLike[str] | None" = None,
        user: "str | int | None" = None,
        privileged: bool = False,
        output_limit: "int | None" = None,
    ) -> "Result":
        """Run a further process in it and wait, as subprocess.run does on the host.

        After `timeout` seconds the process is killed (TimeoutExpiredError), its own children are the container's.
        """
        process = begin_exec(self, locals())
        result = process.result(input, timeout, output_limit)
        if check:
            result.check_returncode()
        return result

    def signal(self, number: int) -> None:
        """Send a signal to its first process; StateError when it has ended."""
        lifecycle.kill(self.record, number)

    def kill(self) -> None:
        """Send SIGKILL to its first process, with which all others end; StateError when it has ended."""
        self.signal(_SIGKILL)

    def stop(self, timeout: "float | None" = None) -> None:
        """Ask it to end, and kill it `timeout` seconds later (10 by default, or what its options say)."""
        lifecycle.stop(self.record, timeout)

    def pause(self) -> None:
        """Freeze all of its processes; StateError unless it runs."""
        lifecycle.pause(self.record)

    def unpause(self) -> None:
        """Let them go on; StateError unless it is paused."""
        lifecycle.unpause(self.record)

    def wait(self, timeout: "float | None" = None) -> int:
        """Wait for the end of its first process; its exit code.  TimeoutExpiredError."""
        try:
            ended = self.record.container.pidfd()
        except (StateError, NotFoundError):
            return lifecycle.wait(self.record)
        try:
            if not poll_end(ended, timeout):
                raise self.not_ended(timeout)
        finally:
            posix.close(ended)
        return lifecycle.wait(self.record)

    def not_ended(self, timeout: "float | None") -> TimeoutExpiredError:
        """For a wait() of `timeout` seconds."""
        return TimeoutExpiredError(f"container {self.name!r} has not ended after {timeout:g} s", timeout=timeout)

    def wait_for(self, condition: "Condition", timeout: float = 60.0) -> "RunningContainer":
        """Return when it has come to be (runtime.wait).

        TimeoutExpiredError after `timeout` seconds, StateError when the container has ended before.
        """
        waiting.wait_for(self, condition, timeout)
        return self

    # ---- what it says, uses and has changed

    def logs(
        self, *, stdout: bool = True, stderr: bool = True, since: str = "", until: str = "", tail: int = -1
    ) -> bytes:
        """Its output so far; the last `tail` lines, or those since and until a moment ("10m" ago, or RFC 3339)."""
        chosen = log_reader.Selection(log_reader.moment(since, "since"), log_reader.moment(until, "until"), tail)
        wanted = [name for name, is_wanted in (("stdout", stdout), ("stderr", stderr)) if is_wanted]
        entries = log_reader.read(self.record, chosen)
        return b"".join(entry.data for entry in entries if entry and entry.stream in wanted)

    def follow_logs(self) -> "Iterator[bytes]":
        """Its output from the beginning, line by line as it comes, until it ends."""
        for entry in log_reader.read(self.record, log_reader.Selection(), follow=True):
            if entry:
                yield entry.data

    def stats(self) -> "Stats":
        """What it uses now: bytes, nanoseconds, counts.  StateError when it has ended."""
        return self.record.container.stats()

    def diff(self) -> "list[tuple[str, str]]":
        """(A, C or D, path) of what it has added, changed and deleted of its image."""
        from .copying import Changes

        return Changes(self.id).tell()

    def commit(
        self, name: str = "", *, instructions: "Sequence[str]" = (), author: str = "", message: str = "",
        pause: bool = True,
    ) -> str:  # fmt: skip
        """Make an image of its image and its changes; the id.  `instructions` are such as "CMD ..." (docker's)."""
        from ..images.reference import parse
        from .copying import Changes

        names = [parse(name)] if name else []
        made = Changes(self.id).commit(names, instructions=instructions, author=author, message=message, pause=pause)
        return made.id

    # ---- network

    def addr(self, port: int, protocol: str = "tcp") -> "tuple[str, int]":
        """Where a port of the container is reached from this host: published there, or on its own address.

        StateError for a container that has ended or has no network that leads to it.
        """
        key = f"{port}/{protocol}"
        for place in networking.published(self.id, self.record.root).get(key) or ():
            host = place["HostIp"]
            return "127.0.0.1" if host in ("", "0.0.0.0", "::") else host, int(place["HostPort"])
        found = networking.settings(self.id, self.record.root)
        if found.get("Mode", "") in ("", "bridge") and found.get("IPAddress"):
            return str(found["IPAddress"]), port
        if self.record.config().network == "host":
            return "127.0.0.1", port
        hint = f'publish=[{port}], or network="bridge"'
        raise StateError(f"port {key} of container {self.name!r} cannot be reached from here", hint=hint)

    # ---- the end

    def close(self) -> None:
        """Kill and remove it, and its anonymous volumes; idempotent."""
        with self._closing:
            client, self._client = self._client, None
            if client is None or posix.getpid() != self._process:
                return
            try:
                lifecycle.remove(self.record, force=True, volumes=True)
            except NotFoundError:
                pass  # By somebody else.
            except BaseException:
                client.close()
                raise
            client.done()
            client.close()
            _reap(self._monitor)

    def discard(self) -> None:
        """As close(), of one without a leash too."""
        leashed = self._client is not None
        self.close()
        if leashed or posix.getpid() != self._process:
            return
        try:
            lifecycle.remove(self.record, force=True, volumes=True)
        except NotFoundError:
            return
        _reap(self._monitor)

    def let_go(self) -> None:
        """In a child of fork(2): the container is the parent's."""
        client, self._client = self._client, None
        self._closing = threading.Lock()
        if client:
            client.close()

    def __enter__(self) -> "RunningContainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RunningContainer {self.id[:12]}>"


def begin_exec(container: RunningContainer, options: "Mapping[str, Any]") -> Process:
    """Start what exec() was asked for, by the names of its parameters; finish() is to be called."""
    get = options.__getitem__
    stdin, stdout, stderr = get("stdin"), get("stdout"), get("stderr")
    if get("capture_output"):
        stdout, stderr = captured(stdout, stderr)
    if get("input") is not None:
        stdin = fed(stdin)
    words = Text(get("text"), get("encoding"), get("errors"))
    request = _request(get("argv"), get("env"), get("cwd"), get("user"), privileged=get("privileged"))
    return Process(container.record, request, Streams(stdin, stdout, stderr), words)


_living: "WeakSet[RunningContainer]" = WeakSet()


def _request(
    argv: "Sequence[str]",
    env: "Mapping[str, str] | None",
    cwd: "str | os.PathLike[str] | None",
    user: "str | int | None",
    *,
    privileged: bool,
) -> Request:
    words = [os.fspath(word) for word in argv]
    if not words:
        raise UsageError("no command is given")
    return Request(
        words,
        env=[f"{name}={value}" for name, value in (env or {}).items()],
        workdir=os.fspath(cwd) if cwd is not None else "",
        user=None if user is None else str(user),
        privileged=privileged,
    )


def _reap(pid: int) -> None:
    try:
        wait_child(pid)
    except ChildProcessError:
        pass  # The program ignores SIGCHLD, or waits for every child itself.


def _forked() -> None:
    for one in list(_living):
        one.let_go()


posix.register_at_fork(after_in_child=_forked)
