"""runtime.run(): a container from its configuration to its removal, in the caller's process.

Nothing is left behind: a container made here dies with the thread that launched it, is deleted at the end, and if
this process is killed the next command removes what is left (container.sweep).
"""

import fcntl
import os
import posix
import select
import time

from ..config import HOST, ContainerConfig
from ..errors import ProcessError, StateError, TimeoutExpiredError, UsageError
from ..launch import Options
from ..syscalls import wait
from .launching import Launch, clean_up
from .names import new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Any

    from ..images.local import LocalStore

    Stream = int | IO[Any] | None

PIPE, STDOUT, DEVNULL = -1, -2, -3
"""As subprocess's."""
_SIGKILL = 9
_BUFFER = 1 << 16


class Result:
    """What a finished container leaves: subprocess.CompletedProcess's fields, and what became of its limits."""

    def __init__(
        self,
        args: "list[str]",
        returncode: int,
        stdout: "Any",
        stderr: "Any",
        enforced: "dict[str, str]",
        *,
        oom_killed: bool = False,
    ) -> None:
        self.args = args
        self.returncode = returncode
        """The command's exit code, 128+n when signal n ended it."""
        self.stdout = stdout
        self.stderr = stderr
        self.enforced = enforced
        """How each limit is held, by name, and what is weaker than asked or than the default, with the reason."""
        self.oom_killed = oom_killed
        """Whether the kernel has killed a process of it at its memory limit."""

    def check_returncode(self) -> None:
        """Raise ProcessError unless the command succeeded."""
        if self.returncode:
            raise ProcessError(f"command {self.args[0]!r} ended with exit code {self.returncode}", self)

    def __repr__(self) -> str:
        return (
            f"Result(args={self.args!r}, returncode={self.returncode}, stdout={self.stdout!r}, stderr={self.stderr!r})"
        )


def run(
    image: "str | os.PathLike[str]",
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
    network: str = "none",
    mounts: "Sequence[str]" = (),
    tmpfs: "Sequence[str]" = (),
    hide: "Sequence[str]" = (),
    read_only: bool = False,
    hostname: str = "",
    cap_add: "Sequence[str]" = (),
    cap_drop: "Sequence[str]" = (),
    userns: str = "",
    init: bool = False,
    memory: str = "",
    cpus: str = "",
    pids_limit: "int | None" = None,
    best_effort: bool = False,
) -> Result:
    """Run a command in a new container and wait for it; names and meanings are subprocess.run's.

    `image` is "host" (the host's own root under a throw-away overlay) or a directory to use as the root, under an
    overlay too.  `env` adds to a minimal environment; `mounts` are SRC:DST[:OPTIONS].  `memory` ("512m"), `cpus`
    ("1.5") and `pids_limit` (1024 by default, 0 for none) are docker's; a limit that this host cannot hold is an error,
    with `best_effort` a note in `enforced`.  Works from any thread; the container dies with the thread.

    Raises LaunchError when it cannot be started (CommandNotFoundError, CommandNotExecutableError), UsageError for
    bad arguments, TimeoutExpiredError after `timeout` seconds (the container is killed then), and with `check`
    ProcessError for an exit code other than 0.
    """
    config = ContainerConfig(
        [os.fspath(word) for word in argv],
        id=new_id(),
        rootfs=_rootfs(image),
        image=_image(image),
        env=[f"{name}={value}" for name, value in (env or {}).items()],
        workdir=os.fspath(cwd) if cwd is not None else "",
        user=None if user is None else str(user),
        network=network,
        volumes=mounts,
        tmpfs=tmpfs,
        hide=hide,
        read_only=read_only,
        hostname=hostname,
        cap_add=cap_add,
        cap_drop=cap_drop,
        userns=userns,
        init=init,
        timeout=timeout,
        memory=memory,
        cpus=cpus,
        pids_limit=pids_limit,
        best_effort=best_effort,
    )
    if capture_output:
        if stdout is not None or stderr is not None:
            raise UsageError("capture_output may not be used with stdout or stderr")
        stdout = stderr = PIPE
    if input is not None:
        if stdin is not None:
            raise UsageError("input may not be used with stdin")
        stdin = PIPE
    decode = text or bool(encoding) or bool(errors)
    data = input.encode(encoding or "utf-8", errors or "strict") if isinstance(input, str) else input
    if STDOUT in (stdin, stdout):
        raise UsageError("STDOUT is for stderr only")
    streams = _Streams(stdin, stdout, stderr)
    run = _Run(config, Options(stdio=streams.child))
    try:
        out, err, code = _communicate(run, streams, data or b"", timeout, config)
        result = run.result(code, out, err)
    finally:
        run.end()
        streams.close()
    if decode:
        result.stdout, result.stderr = (_text(data, encoding or "utf-8", errors or "strict") for data in (out, err))
    if check:
        result.check_returncode()
    return result


def _text(data: "bytes | None", encoding: str, errors: str) -> "str | None":
    """Decode with universal newlines, as subprocess does."""
    if data is None:
        return None
    return data.decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


class _Run:
    """A container of this process between its launch and its end."""

    def __init__(self, config: ContainerConfig, options: Options) -> None:
        options.ephemeral = True
        options.pdeathsig = _SIGKILL
        self.launching = Launch(config, options)
        self.container = self.launching.container
        self.config = config
        self.options = options
        self.store: LocalStore | None = None
        self.pid = 0
        """The container's process from its launch until it is waited for."""
        self.oom_killed = False

    def launch(self) -> int:
        clean_up(self.launching.root)
        if self.config.image:
            from ..images.local import LocalStore
            from .images import take_image

            self.store = LocalStore()
            take_image(self.config, self.store, "missing")
            if self.store.notes:
                self.options.enforced = {**self.options.enforced, "image": "; ".join(self.store.notes)}
        self.pid = self.launching.run()
        return self.pid

    def wait(self) -> int:
        """Wait for the container's process; its exit code."""
        code = wait(self.pid)
        self.pid = 0
        return code

    def kill(self) -> int:
        """Kill the container's process, which may have ended by itself meanwhile; its exit code."""
        try:
            self.container.kill(_SIGKILL)
        except StateError:
            pass
        return self.wait()

    def remove(self) -> None:
        """Delete it, and whatever it left running; its cgroup is asked before it goes."""
        self.oom_killed = bool(self.config.memory) and self.container.oom_kills() > 0
        self.container.delete(force=True)

    def result(self, code: int, stdout: "bytes | None", stderr: "bytes | None") -> Result:
        argv, enforced = list(self.config.argv), self.options.enforced
        return Result(argv, code, stdout, stderr, enforced, oom_killed=self.oom_killed)

    def end(self) -> None:
        """Delete it, if it is still there, and leave no zombie of it; idempotent."""
        self.container.delete(force=True)
        if self.pid:
            self.wait()
        self.launching.release()
        if self.config.resolved_mounts:
            from ..config.mounts import resolved
            from .volumes import release

            release(resolved(self.config), self.config.id, remove=True)
        if self.store:
            self.store.release(self.config.id)


def _timed_out(config: ContainerConfig) -> TimeoutExpiredError:
    return TimeoutExpiredError(f"command {config.argv[0]!r} took longer than {config.timeout:g} s and was killed")


def _is_directory(image: "str | os.PathLike[str]") -> bool:
    """A path, or words that begin like one, is a directory; other words name an image."""
    return not isinstance(image, str) or image.startswith(("/", "."))


def _rootfs(image: "str | os.PathLike[str]") -> str:
    return os.fsdecode(image) if _is_directory(image) else ""


def _image(image: "str | os.PathLike[str]") -> str:
    if not image:
        raise UsageError("the image has no name", hint='use an image, "host" or a directory')
    return "" if _is_directory(image) or image == HOST else str(image)


# ---- pipes of the library


class _Streams:
    """Both ends of the container's standard streams: `child`'s, and ours for those that are pipes (-1 otherwise)."""

    def __init__(self, stdin: "Stream", stdout: "Stream", stderr: "Stream") -> None:
        self._open: list[int] = []
        self.feed = self.out = self.err = -1
        child = [0, 1, 2]
        if stdin == PIPE:
            child[0], self.feed = self._pipe()
            posix.set_blocking(self.feed, False)
        else:
            child[0] = self._given(stdin, 0)
        if stdout == PIPE:
            self.out, child[1] = self._pipe()
        else:
            child[1] = self._given(stdout, 1)
        if stderr == PIPE:
            self.err, child[2] = self._pipe()
        else:
            child[2] = child[1] if stderr == STDOUT else self._given(stderr, 2)
        self.child = (child[0], child[1], child[2])

    def _pipe(self) -> "tuple[int, int]":
        reader, writer = (self._above_standard(fd) for fd in posix.pipe2(posix.O_CLOEXEC))
        self._open += [reader, writer]
        return reader, writer

    def _above_standard(self, fd: int) -> int:
        """The caller may have closed 0, 1 or 2: a pipe there would be overwritten while the child's are laid out."""
        if fd > 2:
            return fd
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        posix.close(fd)
        return moved

    def _given(self, stream: "Stream", own: int) -> int:
        if stream is None:
            return own
        if stream == DEVNULL:
            self._open.append(self._above_standard(posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)))
            return self._open[-1]
        return stream if isinstance(stream, int) else stream.fileno()

    def launched(self) -> None:
        """Close the child's ends that we opened, so that we see the end of its output."""
        for fd in set(self.child):
            if fd in self._open:
                self.shut(fd)

    def shut(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            posix.close(fd)

    def close(self) -> None:
        for fd in list(self._open):
            self.shut(fd)


def _communicate(
    run: _Run, streams: _Streams, data: bytes, timeout: "float | None", config: ContainerConfig
) -> "tuple[bytes | None, bytes | None, int]":
    """Launch, feed, collect and wait: stdout and stderr (None unless piped) and the exit code."""
    pid = run.launch()
    streams.launched()
    ended = posix.pidfd_open(pid)
    collected: dict[int, list[bytes]] = {fd: [] for fd in (streams.out, streams.err) if fd >= 0}
    try:
        in_time = _pump(streams, collected, data, ended, timeout)
        code = run.wait() if in_time else run.kill()
    finally:
        posix.close(ended)
    # Killing the cgroup ends orphans that could hold the pipes open.
    run.remove()
    for fd, parts in collected.items():
        while part := posix.read(fd, _BUFFER):
            parts.append(part)
    if not in_time:
        raise _timed_out(config)
    out, err = (b"".join(collected[fd]) if fd >= 0 else None for fd in (streams.out, streams.err))
    return out, err, code


def _pump(
    streams: _Streams, collected: "dict[int, list[bytes]]", data: bytes, ended: int, timeout: "float | None"
) -> bool:
    """Move bytes until the process ends; False when `timeout` seconds passed first."""
    deadline = None if timeout is None else time.monotonic() + timeout
    view = memoryview(data)
    poll = select.poll()
    for fd in (*collected, ended):
        poll.register(fd, select.POLLIN)
    if streams.feed >= 0:
        poll.register(streams.feed, select.POLLOUT)
    while True:
        left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
        events = [fd for fd, _ in poll.poll(left)]
        if deadline is not None and time.monotonic() >= deadline:
            return ended in events
        for fd in events:
            if fd in collected:
                part = posix.read(fd, _BUFFER)
                collected[fd].append(part)
                if not part:
                    poll.unregister(fd)
            elif fd == streams.feed:
                view = _feed(fd, view)
                if not view:
                    poll.unregister(fd)
                    streams.shut(fd)
        if events == [ended]:
            return True


def _feed(fd: int, view: memoryview) -> memoryview:
    """Write what fits; what a reader that is gone does not want is dropped, as subprocess does."""
    try:
        return view[posix.write(fd, view[:_BUFFER]) :]
    except BlockingIOError:
        return view
    except BrokenPipeError:
        return view[len(view) :]
