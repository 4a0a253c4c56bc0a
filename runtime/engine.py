"""One run of a container from its configuration to its removal: the command line's and the library's common path.

Nothing is left behind: a container made here dies with the thread that launched it, is deleted at the end, and if
this process is killed the next command removes what is left (container.sweep).
"""

import fcntl
import os
import posix
import select
import time
from errno import EINVAL, EPERM

from .config import HOST, ContainerConfig, image_config, make_spec, raw_config, wants_userns
from .config.ids import lease_ids, reclaim_ids, release_ids
from .config.words import make_sources
from .console import Foreground, console_pair, terminal_size
from .container import Container, default_root, list_containers, sweep
from .errors import ExistsError, LaunchError, NotFoundError, ProcessError, StateError, TimeoutExpiredError, UsageError
from .host import Host
from .launch import Options
from .spec import Bundle
from .state import container_ids
from .steps import LaunchPlan
from .syscalls import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any

    from .images.store import Image, Store
    from .images.upkeep import Problem, Usage
    from .spec import Spec
    from .vm import Machine

    Fetch = Callable[[str, Store], Image]
    Stream = int | IO[Any] | None

PIPE, STDOUT, DEVNULL = -1, -2, -3
"""As subprocess's."""
_SIGKILL = 9
_BUFFER = 1 << 16
_NAME = "org.warren.name"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_NAMESPACES = {"pid": "pid", "ipc": "ipc", "uts": "uts", "network": "net"}
"""Option: its name under /proc/PID/ns."""
_ADJECTIVES = (
    "agile", "bold", "brisk", "calm", "clever", "eager", "frank", "gentle", "happy", "hardy", "keen", "kind", "lively",
    "lucid", "merry", "nimble", "patient", "proud", "quick", "quiet", "sharp", "steady", "sunny", "swift", "tidy",
    "upbeat", "vivid", "warm", "wise", "witty", "young", "zealous",
)  # fmt: skip
_SURNAMES = (
    "allen", "babbage", "backus", "bartik", "boole", "church", "curie", "dijkstra", "engelbart", "floyd", "goldberg",
    "hamilton", "hopper", "johnson", "kay", "kernighan", "knuth", "lamport", "liskov", "lovelace", "mccarthy",
    "mcilroy", "milner", "naur", "perlman", "ritchie", "shannon", "stallman", "tarjan", "thompson", "turing", "wirth",
)  # fmt: skip


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


def new_id() -> str:
    """64 random hexadecimal digits, as docker's."""
    return os.urandom(32).hex()


def new_name() -> str:
    """A name in docker's manner, such as keen_hopper."""
    first, second = os.urandom(2)
    return f"{_ADJECTIVES[first % len(_ADJECTIVES)]}_{_SURNAMES[second % len(_SURNAMES)]}"


def plan(config: ContainerConfig) -> LaunchPlan:
    """What running `config` would execute; launches nothing and takes nothing.

    The range of ids shown is the first one, since a real one is only taken by a launch.
    """
    run = _Run(config, Options())
    run.prepare()
    spec = make_spec(config, Host.probe(), 0x70000000, {})
    return run.container.plan(Bundle("/", spec, raw_config(spec)), run.options, detached=False)


def run_foreground(config: ContainerConfig, pull: str = "missing", fetch: "Fetch | None" = None) -> Result:
    """Run with the caller's own streams and terminal, passing signals on; `pull` and `fetch` are take_image()'s.

    Raises TimeoutExpiredError after config.timeout seconds, and what a launch raises.  Main thread only.
    """
    with Foreground() as foreground:
        with _Input(config) as stdin:
            options = Options(stdio=(stdin, 1, 2), size=terminal_size())
            ours, theirs = console_pair() if config.tty else (None, None)
            if theirs is not None:
                options.console_fd = theirs.fileno()
            run = _Run(config, options)
            run.pull, run.fetch = pull, fetch
            try:
                pid = run.launch()
                if ours is not None:
                    foreground.take_terminal(ours)
                code = foreground.wait(pid, config.timeout)
                if code is None:
                    run.kill()
                    foreground.restore_mode()
                    raise _timed_out(config)
                run.pid = 0
                run.remove()
                return run.result(code, None, None)
            finally:
                run.end()
                for sock in (ours, theirs):
                    if sock is not None:
                        sock.close()


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
    """A container between its launch and its end; of `config.image`, where that is named."""

    def __init__(self, config: ContainerConfig, options: Options) -> None:
        self.config = config
        self.options = options
        self.root = default_root()
        self.container = Container(config.id, self.root)
        self.store: Store | None = None
        self.pull = "missing"
        self.fetch: Fetch | None = None
        self.pid = 0
        """The container's process from its launch until it is waited for."""
        self.oom_killed = False
        options.ephemeral = True
        options.init = config.init
        options.best_effort = config.best_effort
        options.cgroup_manager = "auto"
        options.pdeathsig = _SIGKILL

    def prepare(self) -> None:
        """Settle what depends on the other containers: the name, and the namespaces of a container to join."""
        config = self.config
        taken = list_containers(self.root) if config.name or _joins_container(config) else []
        _check_name(config.name, taken)
        config.name = config.name or new_name()
        joined = _join_containers(config, taken)
        if joined and not config.userns and Host.probe().privileged:
            # procfs and mqueue can be mounted by the user namespace only that owns the pid or ipc namespace.
            config.userns = "host"
            self.options.enforced["user_namespace"] = f"off: the container joins a namespace (--{joined})"

    def launch(self) -> int:
        """Start it; falls back to no user namespace where a file system cannot be idmapped and nobody insists."""
        clean_up(self.root)
        self.prepare()
        try:
            self.pid = self._try()
        except LaunchError as error:
            if self.config.userns or not _is_idmap_failure(error):
                raise
            self.config.userns = "host"
            self.options.enforced = {**self.options.enforced, "user_namespace": f"off: {error}"}
            self.pid = self._try()
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

    def _try(self) -> int:
        host, config = Host.probe(), self.config
        machine = _machine(config)
        try:
            if config.image:
                from .images.store import Store

                self.store = Store()
                take_image(config, self.store, self.pull, self.fetch)
                if self.store.notes:
                    self.options.enforced = {**self.options.enforced, "image": "; ".join(self.store.notes)}
            leased = wants_userns(config, host) and host.privileged
            first = lease_ids(self.root, config.id) if leased else 0
            spec = make_spec(config, host, first, self.options.enforced)
            make_sources(config.volumes)
            if machine is not None:
                return self._boot(spec, machine)
            return self.container.run(Bundle("/", spec, raw_config(spec)), self.options)
        except BaseException:
            self._release()
            raise

    def _boot(self, spec: "Spec", machine: "Machine") -> int:
        """The same as a virtual machine: its hypervisor is the container's program."""
        from . import vm

        config = self.config
        outer, guest = vm.prepare(spec, self.options, machine, config.id, network=config.network not in ("", "none"))
        try:
            return self.container.run(Bundle("/", outer, raw_config(outer)), self.options)
        except LaunchError as error:
            raise vm.guest_failure(error, guest, machine) from None
        finally:
            machine.release()

    def _release(self) -> None:
        release_ids(self.root, self.config.id)
        if self.store:
            self.store.release(self.config.id)

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
        self._release()


def _machine(config: ContainerConfig) -> "Machine | None":
    """The virtual machine that the configuration asks for; None for a container."""
    if config.isolation in ("", "container"):
        return None
    from . import vm

    kind = vm.parse_isolation(config.isolation)
    return vm.choose(kind, kernel=config.kernel, accel=config.accel, boot_seconds=config.boot_timeout)


def take_image(config: ContainerConfig, store: "Store", policy: str, fetch: "Fetch | None" = None) -> None:
    """Let the configuration be the image's where it says nothing itself, and keep its layers for the container.

    `policy` is docker's --pull: missing, always, never; `fetch` pulls, images.pull.pull by default.  Raises
    NotFoundError, ImageError.
    """
    if policy not in ("missing", "always", "never"):
        raise UsageError(f"--pull {policy!r} is unknown", hint="missing, always or never")
    try:
        image = store.find(config.image) if policy != "always" else None
    except NotFoundError:
        if policy == "never":
            raise
        image = None
    if image is None:
        from .images.pull import pull

        image = (fetch or pull)(config.image, store)
    if config.keep_changes:
        from .images.changes import remember

        remember(config.keep_changes, image.manifest.digest)
    store.use(config.id, image.chains)
    config.layers = store.layer_paths(image.chains)
    image_config.apply(config, image.config)


def unused_names(store: "Store", *, every: bool) -> "list[str]":
    """Names of images that no container uses; without `every` only those that were made up for nameless images."""
    used = store.chains_in_use(_container_exists())
    return [
        name
        for image in store.images()
        if image.chains not in used
        for name in image.names
        if every or name.startswith("localhost/loaded@")
    ]


def verify_images(*, repair: bool) -> "list[Problem]":
    """What is damaged in the store, and whether it was repaired; layers of containers are left alone."""
    from .images.store import Store
    from .images.upkeep import verify

    return verify(Store(), repair=repair, in_use=_container_exists())


def image_usage(store: "Store") -> "tuple[list[Usage], int, int, int]":
    """What images take on disk; images.upkeep.usage's."""
    from .images.upkeep import usage

    return usage(store, _container_exists())


def collect_images(store: "Store") -> int:
    """Remove what no image's name and no container needs any more; bytes of the blobs."""
    return store.collect(_container_exists())


def _container_exists() -> "Callable[[str], bool]":
    """Tells of an id whether there is such a container now."""
    return set(container_ids(default_root())).__contains__


def clean_up(root: str = "") -> None:
    """Remove what killed Warren processes left behind; below `root`, by default the user's own."""
    root = root or default_root()
    sweep(root)
    reclaim_ids(root)


def _check_name(name: str, taken: "list[dict[str, object]]") -> None:
    """docker's rule for names; ExistsError for one that another container has."""
    if name and (len(name) < 2 or not name[0].isalnum() or not _NAME_CHARACTERS.issuperset(name)):
        raise UsageError(f"invalid container name {name!r}", hint="letters, digits and _.- after a letter or digit")
    if name and any(_name_of(state) == name for state in taken):
        raise ExistsError(f"container name {name!r} is in use", hint="choose another --name")


def _name_of(state: "dict[str, object]") -> str:
    annotations: dict[str, str] = state.get("annotations") or {}  # type: ignore[assignment]
    return annotations.get(_NAME, "")


def _joins_container(config: ContainerConfig) -> bool:
    return any(getattr(config, option).startswith("container:") for option in _NAMESPACES)


def _join_containers(config: ContainerConfig, known: "list[dict[str, object]]") -> str:
    """Turn container:NAME into the namespace of that container's process; the options that join a namespace of
    which the owner matters, "" when there is none.  A network or a host name can be joined from any user namespace."""
    joined = []
    for option, name in _NAMESPACES.items():
        value: str = getattr(config, option)
        if value.startswith("container:"):
            value = f"ns:/proc/{_pid_of(value[10:], known)}/ns/{name}"
            setattr(config, option, value)
        if value.startswith("ns:") and option in ("pid", "ipc"):
            joined.append(option)
    return ", --".join(joined)


def inspect(text: str) -> "dict[str, Any]":
    """What is known of a container, in docker's keys; `enforced` says how each of its limits is held."""
    root = default_root()
    state = _find(text, list_containers(root))
    status = str(state["status"])
    return {
        "Id": state["id"],
        "Name": _name_of(state),
        "Created": state.get("created"),
        "State": {
            "Status": "exited" if status == "stopped" else status,
            "Running": status in ("running", "paused"),
            "Paused": status == "paused",
            "OOMKilled": Container(str(state["id"]), root).oom_kills() > 0,
            "Pid": state["pid"],
        },
        "enforced": state.get("enforced") or {},
    }


def _pid_of(text: str, known: "list[dict[str, object]]") -> int:
    """Process of a running container."""
    pid = _find(text, known).get("pid")
    if not isinstance(pid, int) or not pid:
        raise StateError(f"container {text!r} is not running")
    return pid


def _find(text: str, known: "list[dict[str, object]]") -> "dict[str, object]":
    """A container by its name, its id or an unambiguous beginning of the id; NotFoundError and UsageError."""
    found = [state for state in known if text and text in (state["id"], _name_of(state))]
    found = found or [state for state in known if text and str(state["id"]).startswith(text)]
    if not found:
        raise NotFoundError(f"no such container: {text!r}")
    if len(found) > 1:
        raise UsageError(f"container {text!r} is ambiguous", hint="give more of the id")
    return found[0]


def _is_idmap_failure(error: LaunchError) -> bool:
    """Whether a mount could not be idmapped: its file system cannot, or belongs to another user namespace."""
    step = error.step
    if step is None or step.op != "mount_setattr" or error.errno not in (EINVAL, EPERM):
        return False
    userns = step.fields()["userns"]
    return isinstance(userns, int) and userns >= 0


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
