"""The library for asyncio and trio, by anyio (the extra `async`): run, container and sandbox, with the same names.

    async with runtime.aio.container("host") as c:
        done = await c.exec(["id"], capture_output=True, text=True)

What is cancelled is killed, and gone when the cancelled call returns.  Waiting costs no thread: a pidfd and the pipes
are polled by the event loop.
"""

import inspect
import os
import posix
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from .engine import handle, library, settings
from .engine import sandbox as sandboxes
from .engine import wait as waiting
from .engine.files import Files
from .engine.library import Asked, Run
from .engine.pipes import Output, Streams, Text, feed
from .engine.popen import Process
from .engine.results import Result
from .errors import StateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType
    from typing import Unpack

    from .engine.settings import ContainerOptions

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["AsyncContainer", "AsyncFiles", "AsyncProcess", "AsyncSandbox", "container", "run", "sandbox"]


# ---- threads: a container of run() dies with the one that has launched it, and those of a pool of threads end


class _Launcher:
    """A thread that lives as long as the process, and launches what would die with another."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="warren-launcher", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._wanted.get()()

    def call(self, function: "Callable[[], T]") -> T:
        """Have it called there, and wait for that."""
        done = threading.Event()
        outcome: list[Any] = []

        def work() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))
            done.set()

        self._wanted.put(work)
        done.wait()
        value, error = outcome[0]
        if error:
            raise error
        return value  # type: ignore[no-any-return]


_launcher: "_Launcher | None" = None
_making = threading.Lock()


def _launch(function: "Callable[[], T]") -> T:
    global _launcher
    with _making:
        _launcher = _launcher or _Launcher()
        launcher = _launcher
    return launcher.call(function)


def _forked() -> None:
    global _launcher, _making
    _launcher, _making = None, threading.Lock()


posix.register_at_fork(after_in_child=_forked)


async def _in_thread(function: "Callable[[], T]") -> T:
    """To its end, also when we are cancelled, since a thread cannot be: who takes away what it makes comes after."""
    return await anyio.to_thread.run_sync(function)


async def _finally(function: "Callable[[], T]") -> T:
    """The same, and its result is not lost when we are cancelled."""
    made: list[T] = []
    with anyio.CancelScope(shield=True):
        made.append(await anyio.to_thread.run_sync(function))
    return made[0]


# ---- waiting and streams


async def _read(fd: int, output: Output) -> None:
    while True:
        await anyio.wait_readable(fd)
        if not output.read(fd):
            return


async def _write(streams: Streams, data: bytes) -> None:
    view = memoryview(data)
    while view:
        await anyio.wait_writable(streams.feed)
        view = feed(streams.feed, view)
    streams.shut(streams.feed)


async def _pump(streams: Streams, outputs: "dict[int, Output]", data: bytes, ended: int) -> None:
    """Move bytes until the process ends."""
    async with anyio.create_task_group() as tasks:
        for fd, output in outputs.items():
            tasks.start_soon(_read, fd, output)
        if streams.feed >= 0:
            tasks.start_soon(_write, streams, data)
        await anyio.wait_readable(ended)
        tasks.cancel_scope.cancel()


async def _attend(
    run: Run, streams: Streams, data: bytes, timeout: "float | None", words: Text, limit: "int | None"
) -> Result:
    """Run.attend() without a thread that waits."""
    ended, outputs = posix.pidfd_open(run.pid), streams.outputs(limit)
    try:
        with anyio.move_on_after(timeout) as limited:
            await _pump(streams, outputs, data, ended)
    finally:
        posix.close(ended)
    in_time = not limited.cancelled_caught
    return await _finally(lambda: run.finish(streams, outputs, words, None if in_time else timeout))


def _like(model: "Callable[P, object]") -> "Callable[[Callable[..., T]], Callable[P, T]]":
    """Let a function have another's parameters."""
    return lambda function: _signed(function, model)


def _like_method(
    model: "Callable[Concatenate[Any, P], object]",
) -> "Callable[[Callable[..., T]], Callable[Concatenate[Any, P], T]]":
    """The same for a method."""
    return lambda function: _signed(function, model)


def _signed(function: Any, model: "Callable[..., object]") -> Any:
    function.__signature__ = inspect.signature(model)
    return function


def _bound(function: "Callable[..., object]", args: "tuple[Any, ...]", options: "dict[str, Any]") -> "dict[str, Any]":
    bound = inspect.signature(function).bind(*args, **options)
    bound.apply_defaults()
    return bound.arguments


# ---- run


@_like(library.run)
async def run(*args: Any, **options: Any) -> Result:
    """runtime.run(); when it is cancelled the container is killed and removed."""
    asked = Asked(values := _bound(library.run, args, options))
    try:
        await _in_thread(lambda: asked.run.get_image() and _launch(asked.run.launch))
        asked.streams.launched()
        result = await _attend(
            asked.run, asked.streams, asked.data, values["timeout"], asked.words, values["output_limit"]
        )
    finally:
        await _finally(asked.close)
    if values["check"]:
        result.check_returncode()
    return result


# ---- containers


def _threaded(function: "Callable[Concatenate[Any, P], T]") -> "Callable[Concatenate[Any, P], Awaitable[T]]":
    """The same method of `self.sync`, in a thread."""
    name = function.__name__

    async def method(self: Any, /, *args: P.args, **options: P.kwargs) -> T:
        bound: Callable[[], T] = lambda: getattr(self.sync, name)(*args, **options)  # noqa: E731
        return await _in_thread(bound)

    method.__doc__ = function.__doc__
    method.__name__ = name
    return method


class AsyncFiles:
    """Files of a container: runtime's, awaited."""

    def __init__(self, sync: "Files") -> None:
        self.sync = sync

    read = _threaded(Files.read)
    read_text = _threaded(Files.read_text)
    write = _threaded(Files.write)
    put = _threaded(Files.put)
    get = _threaded(Files.get)


class AsyncProcess:
    """A process of popen(); `sync` is the same for threads, with files where PIPE was asked for."""

    def __init__(self, sync: Process) -> None:
        self.sync = sync

    @property
    def pid(self) -> int:
        """The host's."""
        return self.sync.pid

    @property
    def returncode(self) -> "int | None":
        """None until its end is known, then its exit code, 128+n when signal n ended it."""
        return self.sync.returncode

    async def wait(self) -> int:
        """Its exit code; to be cancelled at will, which leaves the process alone."""
        if self.sync.returncode is None:
            await anyio.wait_readable(self.sync.fileno())
        return self.sync.wait()

    communicate = _threaded(Process.communicate)

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        self.sync.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.sync.terminate()

    def kill(self) -> None:
        """Send SIGKILL; what it has started itself goes on."""
        self.sync.kill()

    async def __aenter__(self) -> "AsyncProcess":
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        try:
            if kind is None:
                await self.wait()
        finally:
            await _finally(self.sync.close)


class AsyncContainer:
    """A container of this process, as runtime.container() makes them; `sync` is the same for threads."""

    def __init__(self, sync: "handle.RunningContainer") -> None:
        self.sync = sync
        self.fs = AsyncFiles(sync.fs)

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.sync.id

    @property
    def name(self) -> str:
        """As asked for, else one that is made up."""
        return self.sync.name

    @property
    def pid(self) -> int:
        """RunningContainer.pid."""
        return self.sync.pid

    @property
    def status(self) -> str:
        """running, paused or exited."""
        return self.sync.status

    @property
    def enforced(self) -> "dict[str, str]":
        """RunningContainer.enforced."""
        return self.sync.enforced

    @_like_method(handle.RunningContainer.exec)
    async def exec(self, *args: Any, **options: Any) -> Result:
        """RunningContainer.exec(); when it is cancelled the process is killed."""
        values = _bound(handle.RunningContainer.exec, (self.sync, *args), options)
        process = await _finally(lambda: handle.begin_exec(self.sync, values))
        outputs, in_time = process.streams.outputs(values["output_limit"]), False
        try:
            with anyio.move_on_after(values["timeout"]):
                await _pump(process.streams, outputs, process.words.encode(values["input"]), process.fileno())
                in_time = True
        finally:
            result = await _finally(lambda: process.finish(outputs, killed=not in_time))
        if not in_time:
            raise process.timed_out(values["timeout"], result)
        if values["check"]:
            result.check_returncode()
        return result

    @_like_method(handle.RunningContainer.popen)
    async def popen(self, *args: Any, **options: Any) -> AsyncProcess:
        """RunningContainer.popen()."""
        return AsyncProcess(await _finally(lambda: self.sync.popen(*args, **options)))

    async def wait(self, timeout: "float | None" = None) -> int:
        """The exit code of its first process; TimeoutExpiredError."""
        try:
            ended = self.sync.record.container.pidfd()
        except StateError:
            return await _in_thread(self.sync.wait)
        try:
            with anyio.move_on_after(timeout) as limited:
                await anyio.wait_readable(ended)
        finally:
            posix.close(ended)
        if limited.cancelled_caught:
            raise self.sync.not_ended(timeout)
        return await _in_thread(self.sync.wait)

    async def wait_for(self, condition: "waiting.Condition", timeout: float = 60.0) -> "AsyncContainer":
        """RunningContainer.wait_for()."""
        deadline, pause = anyio.current_time() + timeout, waiting.pauses()
        while not await _in_thread(lambda: condition.holds(self.sync)):
            if anyio.current_time() >= deadline:
                raise waiting.too_late(self.sync, condition, timeout)
            await anyio.sleep(pause())
        return self

    async def follow_logs(self) -> "AsyncIterator[bytes]":
        """RunningContainer.follow_logs(); a thread waits for each line, and when we are cancelled no longer for us."""
        lines = self.sync.follow_logs()
        while (line := await anyio.to_thread.run_sync(next, lines, None, abandon_on_cancel=True)) is not None:
            yield line

    async def close(self) -> None:
        """RunningContainer.close(); not to be cancelled."""
        await _finally(self.sync.close)

    addr = _threaded(handle.RunningContainer.addr)
    commit = _threaded(handle.RunningContainer.commit)
    diff = _threaded(handle.RunningContainer.diff)
    inspect = _threaded(handle.RunningContainer.inspect)
    kill = _threaded(handle.RunningContainer.kill)
    logs = _threaded(handle.RunningContainer.logs)
    pause = _threaded(handle.RunningContainer.pause)
    signal = _threaded(handle.RunningContainer.signal)
    stats = _threaded(handle.RunningContainer.stats)
    stop = _threaded(handle.RunningContainer.stop)
    unpause = _threaded(handle.RunningContainer.unpause)


class _Scope(Generic[T]):
    """An asynchronous context manager that makes something and closes it, also when it is cancelled in between."""

    def __init__(self, make: "Callable[[], Awaitable[T]]", close: "Callable[[T], object]") -> None:
        self._make, self._close = make, close
        self._made: T | None = None

    async def __aenter__(self) -> T:
        self._made = await self._make()
        return self._made

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        made = self._made
        if made is not None:
            await _finally(lambda: self._close(made))


def container(
    image: "str | os.PathLike[str]",
    argv: "Sequence[str] | None" = None,
    *,
    pull: str = "missing",
    wait: "waiting.Condition | None" = None,
    timeout: float = 60.0,
    **options: "Unpack[ContainerOptions]",
) -> "_Scope[AsyncContainer]":
    """runtime.container(), for `async with`."""

    async def make() -> AsyncContainer:
        started = await _finally(lambda: handle.container(image, argv, pull=pull, **options))
        made = AsyncContainer(started)
        try:
            await anyio.lowlevel.checkpoint()
            if wait:
                await made.wait_for(wait, timeout)
        except BaseException:
            await _finally(started.close)
            raise
        return made

    return _Scope(make, lambda made: made.sync.close())


# ---- sandboxes


class _Pull:
    """Gets an image before what needs it is launched: the launcher has others to launch meanwhile."""

    def __init__(self, name: str, policy: str) -> None:
        self._name, self._policy = name, policy
        self._there = not name or policy == "never"

    async def __call__(self) -> None:
        if not self._there:
            await _in_thread(lambda: library.get_image(self._name, self._policy))
            self._there = self._policy == "missing"


class AsyncSandbox:
    """A sandbox as runtime.sandbox() makes them; `sync` is the same for threads."""

    def __init__(self, sync: "sandboxes.Sandbox", get_image: "Callable[[], Awaitable[None]] | None" = None) -> None:
        self.sync = sync
        self._get_image = get_image

    @_like_method(sandboxes.Sandbox.run)
    async def run(self, *args: Any, **options: Any) -> Result:
        """Sandbox.run(); when it is cancelled the container is killed and removed."""
        values = _bound(sandboxes.Sandbox.run, (self.sync, *args), options)
        if self._get_image:
            await self._get_image()
        call = sandboxes.Call(self.sync, values)
        try:
            await _in_thread(call.begin if self.sync.pooled else lambda: _launch(call.begin))
            limit = self.sync.output_limit
            result = await _attend(call.run, call.streams, call.data, call.timeout, call.words, limit)
        finally:
            await _finally(call.close)
        if values["check"]:
            result.check_returncode()
        return result


@_like(sandboxes.sandbox)
def sandbox(*args: Any, **options: Any) -> "_Scope[AsyncSandbox]":
    """runtime.sandbox(), for `async with`."""
    values = _bound(sandboxes.sandbox, args, options)
    get_image = None
    if not values["pool"]:
        get_image = _Pull(settings.image_of(values["image"]), values["pull"])
        values["pull"] = "missing" if values["pull"] == "always" else values["pull"]

    async def make() -> AsyncSandbox:
        return AsyncSandbox(await _finally(lambda: sandboxes.sandbox(**values)), get_image)

    return _Scope(make, lambda made: made.sync.close())
