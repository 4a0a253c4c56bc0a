"""runtime.sandbox(): a strict preset for code that nobody trusts, and a pool of containers that wait for theirs.

A container of a pool is complete but for the command: `init` waits in it, all power given up (the step wait_command),
until the rest of the plan comes, with the standard streams.  Without a pool it is launched with its command.  Either
way what is not held as it was asked for is known before, so that nothing is executed in a container that is weaker:
the sandbox fails closed.
"""

import _socket
import os
import posix
import threading
import time
from _struct import pack
from weakref import WeakSet

from ..errors import UnsupportedError, UsageError
from ..launch import Options, failure, memfd
from ..namespaces.user import host_user
from ..plan import DEFAULT_PATH
from ..quantities import size
from ..steps import FAIL, MAX_MESSAGE, MESSAGE, MUST_EXIST, LaunchPlan
from .library import Run
from .names import new_id
from .pipes import asked_streams
from .settings import configuration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .pipes import Stream, Streams
    from .results import Result

NOBODY = "65534:65534"
_WEAKER = ("devices", "user_namespace", "uid_map", "gid_map", "network", "capabilities", "seccomp")
"""Notes of a launch that may say that a protection is not there; what limits say is an error already (strict)."""
_BREATH = 0.005
"""Seconds after one was taken until the next is made, unless somebody waits: to make one takes processor time, and the
interpreter's lock, from the run that has just begun."""
_MISSING = ("not ", "off", "none", "without", "no ", "a single id")


def sandbox(
    image: "str | os.PathLike[str]",
    *,
    pool: int = 0,
    memory: "str | int" = "256m",
    cpus: float = 1.0,
    pids: int = 64,
    timeout: float = 30.0,
    cpu_time: "int | None" = None,
    output_limit: int = 1 << 20,
    tmp_size: "str | int" = "64m",
    file_size: "str | int" = "64m",
    egress: "Sequence[str]" = (),
    mounts: "Sequence[str]" = (),
    env: "Mapping[str, str] | None" = None,
    cwd: "str | os.PathLike[str]" = "/tmp",
    user: "str | int" = NOBODY,
    pull: str = "missing",
) -> "Sandbox":
    """Containers for code that is not trusted, one for each run(); with a `pool` that many wait for theirs.

    A user namespace with a range of its own, no capability, no new privileges, the default seccomp profile, an unnamed
    user, no network unless there are `egress` rules, a read-only root, and of what can be written only /tmp of
    `tmp_size` (and /dev/shm of 16 MiB) in memory.  `memory` has no swap beside it; `cpus` and `pids` are docker's.
    `timeout` is seconds of wall time and `cpu_time` seconds of processor time of one process (by default twice the
    former), `file_size` the size of its largest file, `output_limit` bytes of each stream that are kept of a run.
    `mounts` are SRC:DST[:OPTIONS], read-only unless the options say rw.

    A limit that is not wanted is named: memory="", cpus=0, pids=0.  It fails closed: UnsupportedError, before anything
    is executed, if any of the rest cannot be enforced on this host.
    """
    seconds = cpu_time if cpu_time is not None else max(1, int(timeout * 2))
    options: dict[str, Any] = {
        "userns": "private",
        "network": "" if egress else "none",
        "egress": egress,
        "read_only": True,
        "tmpfs": _tmpfs(image, tmp_size),
        "shm_size": "16m",
        "cap_drop": ["ALL"],
        "ulimits": [f"cpu={seconds}", "core=0", "nofile=1024", f"fsize={size(str(file_size), 'file_size')}"],
        "user": user,
        "cwd": cwd,
        "env": {"HOME": "/tmp", **(env or {})},
        "mounts": [_read_only(text) for text in mounts],
        "memory": memory,
        "memory_swap": memory,
        "cpus": cpus or "",
        "pids": pids,
    }
    return Sandbox(image, options, pool=pool, timeout=timeout, output_limit=output_limit, pull=pull)


def _tmpfs(image: "str | os.PathLike[str]", tmp_size: "str | int") -> "list[str]":
    """/run is only there to be written to where the host's root is the image."""
    bytes = size(str(tmp_size), "tmp_size")
    return [f"/tmp:size={bytes},mode=1777", *(["/run:size=64k,mode=755"] if image == "host" else [])]


def _read_only(text: str) -> str:
    parts = text.split(":")
    if len(parts) == 2:
        return f"{text}:ro"
    words = parts[2].split(",") if len(parts) == 3 else []
    return text if {"ro", "rw"} & set(words) else f"{text},ro"


class Sandbox:
    """A preset and, with a pool, what is prepared of it; any thread may use it, and it is closed once."""

    def __init__(
        self, image: "str | os.PathLike[str]", options: "Mapping[str, Any]", *, pool: int, timeout: float,
        output_limit: int, pull: str,
    ) -> None:  # fmt: skip
        self._image = image
        self._options = dict(options)
        self._pull = pull
        self.timeout = timeout
        self.output_limit = output_limit
        # What is wrong with the words is told now.
        self._idle = configuration(image, (), self._options)
        self._ready = configuration(image, ("true",), {**self._options, "entrypoint": ""})
        self._pool = _Pool(self._prepare, pool) if pool else None
        if self._pool:
            self._pool.fill()

    def run(
        self,
        argv: "Sequence[str]",
        *,
        input: "str | bytes | None" = None,
        stdin: "Stream" = None,
        stdout: "Stream" = None,
        stderr: "Stream" = None,
        capture_output: bool = True,
        text: bool = False,
        encoding: "str | None" = None,
        errors: "str | None" = None,
        timeout: "float | None" = None,
        check: bool = False,
        env: "Mapping[str, str] | None" = None,
        cwd: "str | os.PathLike[str] | None" = None,
    ) -> "Result":
        """Run a command in a container of its own and wait; as runtime.run, with the sandbox's limits.

        The output is captured, and standard input is empty, unless something else is asked for; `argv` is the whole
        command, whatever the image's entry point is; `timeout` can only be shorter than the sandbox's.
        """
        call = Call(self, locals())
        try:
            call.begin()
            result = call.run.attend(call.streams, call.data, call.timeout, call.words, self.output_limit)
        finally:
            call.close()
        if check:
            result.check_returncode()
        return result

    @property
    def pooled(self) -> bool:
        """Whether containers wait for their commands."""
        return self._pool is not None

    def take(self) -> "Prepared":
        """A container of the pool's, which waits for a command."""
        assert self._pool
        return self._pool.take()

    def container(self, argv: "Sequence[str]" = (), env: "Mapping[str, str] | None" = None) -> Run:
        """A container that is about to be launched, with a command or without one."""
        if argv:
            # Of a variable that is there twice the last one counts.
            variables = [*self._ready.env, *(f"{name}={value}" for name, value in (env or {}).items())]
            config = self._ready.copy(id=new_id(), argv=list(argv), env=variables)
        else:
            config = self._idle.copy(id=new_id())
        run = Run(config, Options(approve=_check))
        run.pull = self._pull
        return run

    def _prepare(self) -> "Prepared":
        return Prepared(self.container())

    @property
    def ready(self) -> int:
        """How many containers of the pool wait for a command."""
        return self._pool.ready if self._pool else 0

    def close(self) -> None:
        """Remove what waits; idempotent."""
        if self._pool:
            self._pool.close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Call:
    """One run of a sandbox, by the names of run()'s parameters; to be closed.

    Without a pool the container dies with the thread that begins it.
    """

    def __init__(self, owner: Sandbox, options: "dict[str, Any]") -> None:
        get = options.__getitem__
        self._owner = owner
        self.timeout = owner.timeout if get("timeout") is None else min(get("timeout"), owner.timeout)
        self._argv = [os.fspath(word) for word in get("argv")]
        if not self._argv:
            raise UsageError("no command is given")
        self._env, self._cwd = get("env") or {}, get("cwd")
        self._began = time.monotonic()
        self._taken: Prepared | Run | None = None
        # Here the output is captured, and the input empty, by default.
        streams = {
            **options,
            "capture_output": get("capture_output") and get("stdout") is None and get("stderr") is None,
            "input": b"" if get("input") is None and get("stdin") is None else get("input"),
        }
        self.streams, self.words = asked_streams(streams)
        self.data = self.words.encode(get("input"))

    @property
    def run(self) -> Run:
        assert self._taken
        return self._taken.run if isinstance(self._taken, Prepared) else self._taken

    def begin(self) -> None:
        """Returns when the program has been executed.  What a launch raises."""
        if self._owner.pooled:
            self._taken = prepared = self._owner.take()
            prepared.run.began = self._began
            prepared.start(self._argv, self._env, self._cwd, self.streams)
            return
        self._taken = run = self._owner.container(self._argv, self._env)
        run.began = self._began
        run.options.stdio, run.options.pipes = self.streams.child, self.streams.pipes
        run.options.enter = os.fspath(self._cwd) if self._cwd is not None else ""
        run.launch()
        self.streams.launched()

    def close(self) -> None:
        try:
            if self._taken:
                self._taken.end()
        finally:
            self.streams.close()


class Prepared:
    """A container that waits for its command; it dies with the thread that has made it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._process = posix.getpid()
        self._line, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        run.options.command = theirs.fileno()
        run.options.stdio = (null, null, null)
        try:
            run.launch()
            process, self._owner = _process(run)
            self._env = {name: value for name, _, value in (entry.partition("=") for entry in process.get("env") or ())}
        except BaseException:
            run.end()
            self._line.close()
            raise
        finally:
            theirs.close()
            posix.close(null)

    def start(
        self, argv: "list[str]", env: "Mapping[str, str]", cwd: "str | os.PathLike[str] | None", streams: "Streams"
    ) -> None:
        """Send the rest of its plan; returns when the program has been executed.  What a launch raises."""
        values = {**self._env, **env}
        plan = LaunchPlan()
        if cwd is not None:
            plan.add("chdir", os.fspath(cwd), MUST_EXIST)
        plan.add("find", argv[0], values.get("PATH") or DEFAULT_PATH)
        plan.add("exec", argv, [f"{name}={value}" for name, value in values.items()], 0)
        self.run.config.argv = argv
        streams.give(self._owner)
        fd = memfd("plan", plan.encode({}), 3, sealed=False)
        try:
            rights = pack("=4i", fd, *streams.child)
            self._line.sendmsg([b"c"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL)
        except OSError:
            pass  # It has been killed, and its exit code tells.
        finally:
            posix.close(fd)
        streams.launched()
        self._await(plan)

    def _await(self, plan: LaunchPlan) -> None:
        try:
            said = self._line.recv(MAX_MESSAGE)
        except ConnectionResetError:
            return
        if said:
            kind, number, value = MESSAGE.unpack_from(said)
            if kind == FAIL:
                raise failure(plan, number, value, said[MESSAGE.size :].decode("utf-8", "replace"))

    def lives(self) -> bool:
        """Whether it still waits: it may have been killed meanwhile."""
        try:
            self._line.recv(1, _socket.MSG_DONTWAIT | _socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False  # The end of it, or a failure.

    def end(self) -> None:
        self._line.close()
        if self._process == posix.getpid():
            self.run.end()

    def let_go(self) -> None:
        """In a child of fork(2): it is the parent's."""
        self._line.close()


def _process(run: Run) -> "tuple[dict[str, Any], int]":
    """The container's own process object, and its user as the host sees him."""
    config: dict[str, Any] = run.container.config()
    return config["process"], host_user(config, config["process"])


def _check(enforced: "Mapping[str, str]") -> None:
    """Nothing has been executed yet."""
    for name in _WEAKER:
        note = enforced.get(name, "")
        if note.startswith(_MISSING):
            raise UnsupportedError(
                f"sandbox: {name}: {note}", hint="runtime.run() says what it cannot hold, and goes on"
            )


class _Pool:
    """Keeps `size` containers prepared, by a thread whose death would be theirs (PR_SET_PDEATHSIG)."""

    def __init__(self, prepare: "Callable[[], Prepared]", size: int) -> None:
        if size < 1:
            raise UsageError(f"a pool of {size} is none")
        self._make = prepare
        self._size = size
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._waiting: list[Prepared] = []
        lock = threading.RLock()
        self._supply, self._demand = threading.Condition(lock), threading.Condition(lock)
        """What takers wait for, and what the keeper does."""
        self._takers = 0
        """How many wait."""
        self._taken = 0.0
        """When the last one was given out."""
        self._error: BaseException | None = None
        self._closed = False
        self._keeper: threading.Thread | None = None

    @property
    def ready(self) -> int:
        return len(self._waiting)

    def take(self) -> Prepared:
        """One that waits, as soon as there is one; what has kept the pool from making one is raised."""
        with self._supply:
            while True:
                if self._closed:
                    raise UsageError("the sandbox is closed")
                self._start_keeper()
                while self._waiting:
                    found = self._waiting.pop(0)
                    self._taken = time.monotonic()
                    self._demand.notify()
                    if found.lives():
                        return found
                    found.end()
                if self._error:
                    error, self._error = self._error, None
                    self._demand.notify()
                    raise error
                self._await_one()

    def _await_one(self) -> None:
        self._takers += 1
        self._demand.notify()
        try:
            self._supply.wait()
        finally:
            self._takers -= 1
            self._demand.notify()

    def _start_keeper(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="warren-sandbox-pool", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        while True:
            with self._demand:
                while not self._closed and (pause := self._pause()) != 0:
                    self._demand.wait(pause)
                if self._closed:
                    return
            try:
                made, error = self._make(), None
            except BaseException as failed:
                made, error = None, failed
            with self._supply:
                if made:
                    self._waiting.append(made)
                self._error = error
                self._supply.notify_all()

    def _pause(self) -> "float | None":
        """Seconds until the keeper is to make the next; None for until it is told of something."""
        if self._error or len(self._waiting) >= self._size:
            return None
        if self._takers:
            return 0 if self._takers > len(self._waiting) else None
        return max(0.0, self._taken + _BREATH - time.monotonic())

    def fill(self) -> None:
        """Begin to prepare now instead of at the first run."""
        with self._demand:
            self._start_keeper()

    def close(self) -> None:
        with self._supply:
            self._closed = True
            self._supply.notify_all()
            self._demand.notify()
            keeper = self._keeper
        if keeper and keeper is not threading.current_thread():
            keeper.join()
        while self._waiting:
            self._waiting.pop().end()

    def forked(self) -> None:
        """The child has neither the thread nor the containers."""
        for one in self._waiting:
            one.let_go()
        closed = self._closed
        self._begin()
        self._closed = closed


_pools: "WeakSet[_Pool]" = WeakSet()


def _forked() -> None:
    for pool in list(_pools):
        pool.forked()


posix.register_at_fork(after_in_child=_forked)
