"""Starts `init`, sends it the plan, answers its syncs and turns its report into exceptions.

Works from any thread of any process: nothing of Python runs between fork and exec, since there is no fork
(posix_spawn(3) is vfork and exec), and `init` never shares memory with Python.
"""

import _socket
import fcntl
import posix
import sys
from _struct import pack, unpack
from errno import EACCES, EAGAIN, EBADMSG, EINTR, EINVAL, EISDIR, ENOENT, ENOEXEC, ENOSPC, ENOTDIR, EPERM, EROFS

from .errors import CommandNotExecutableError, CommandNotFoundError, LaunchError, WarrenError, WorkingDirectoryError
from .steps import (
    FAIL,
    HOLD_SLOT,
    LISTENER_SLOT,
    MAP,
    MAX_MESSAGE,
    MESSAGE,
    OK,
    PID,
    READY,
    SYNC,
    SYNC_SLOT,
    LaunchPlan,
)
from .syscalls import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .steps import Step

    OnEvent = Callable[[int, int, str], str]

_SEALS = 0x000F  # F_SEAL_SEAL | SHRINK | GROW | WRITE
_ROOM_FOR_FD = _socket.CMSG_SPACE(4)
_MSG_CMSG_CLOEXEC = 0x40000000
_MFD_FLAGS = 0x0003  # MFD_CLOEXEC | MFD_ALLOW_SEALING
_MFD_EXEC = 0x0010  # Linux 6.3; without it vm.memfd_noexec may refuse execution

ATTACH = "attach"
"""Name of the monitor's socket in the state directory."""

_init_fd = -1


class Options:
    """How a launch is wired to its caller; not part of the spec.

    console_socket  path of a unix stream socket that receives the terminal's master (SCM_RIGHTS)
    console_fd      an already connected one instead; it stays the caller's
    pid_file        written, by rename, before the launch returns
    pidfd_socket    path of a unix stream socket that receives a pidfd of the process (SCM_RIGHTS)
    cgroups         of `exec`: where below the container's cgroup, by controller (Cgroup.below)
    ignore_paused   `exec` in a paused container waits for it to be resumed instead of being refused
    preserve_fds    how many descriptors from 3 on the container's process keeps
    no_new_keyring  the container keeps the session keyring of its caller (keyrings(7))
    stdio           descriptors that become its 0, 1 and 2
    pipes           which of them are pipes that were made for it, a bit each: they become its user's own
    pdeathsig       signal it gets when the launching thread ends (prctl(2), PR_SET_PDEATHSIG); 0 none
    init            a reaper as process 1
    idle            process 1 is a reaper that runs nothing
    command         a socket over which the container gets its command later; it stays the caller's; -1 none
    enter           a directory that the program's own user enters at last, where it may; "" none
    approve         called with `enforced` before anything of the user's is executed; what it raises ends the launch
    size            rows and columns of the terminal
    enforced        notes on what could not be enforced; kept in the container's state
    best_effort     limits that this host cannot hold are such notes, not errors
    cgroup_manager  who makes the cgroup: cgroupfs, systemd, or auto, which is systemd for an ordinary user without one
    connect         makes the links of the spec: called with the pid of the container's init and a route socket in there
    monitor         the container's process is to be the child of a monitor, not of this process
    supervise       the program is a hypervisor: its guest's plan, milliseconds to come up, whether it has a terminal
    ephemeral       the container lives with this process: if it is killed, the next sweep() removes the container
    """

    __slots__ = (
        "approve", "best_effort", "cgroup_manager", "cgroups", "command", "connect", "console_fd", "console_socket",
        "enforced", "enter", "ephemeral", "idle", "ignore_paused", "init", "monitor", "no_new_keyring", "no_pivot",
        "pdeathsig", "pid_file", "pidfd_socket", "pipes", "preserve_fds", "size", "stdio", "supervise",
    )  # fmt: skip

    def __init__(
        self,
        *,
        console_socket: str = "",
        console_fd: int = -1,
        pid_file: str = "",
        pidfd_socket: str = "",
        cgroups: "dict[str, str] | None" = None,
        ignore_paused: bool = False,
        preserve_fds: int = 0,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        stdio: "tuple[int, int, int]" = (0, 1, 2),
        pipes: int = 0,
        pdeathsig: int = 0,
        init: bool = False,
        idle: bool = False,
        command: int = -1,
        enter: str = "",
        approve: "Callable[[dict[str, str]], None] | None" = None,
        size: "tuple[int, int]" = (0, 0),
        enforced: "dict[str, str] | None" = None,
        best_effort: bool = False,
        cgroup_manager: str = "cgroupfs",
        ephemeral: bool = False,
        connect: "Callable[[int, int], None] | None" = None,
        monitor: "Monitor | None" = None,
        supervise: "tuple[bytes, int, int] | None" = None,
    ) -> None:
        self.console_socket = console_socket
        self.console_fd = console_fd
        self.pid_file = pid_file
        self.pidfd_socket = pidfd_socket
        self.cgroups = cgroups or {}
        self.ignore_paused = ignore_paused
        self.preserve_fds = preserve_fds
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.stdio = stdio
        self.pipes = pipes
        self.pdeathsig = pdeathsig
        self.init = init
        self.idle = idle
        self.command = command
        self.enter = enter
        self.approve = approve
        self.size = size
        self.enforced = enforced or {}
        self.best_effort = best_effort
        self.cgroup_manager = cgroup_manager
        self.ephemeral = ephemeral
        self.connect = connect
        self.monitor = monitor
        self.supervise = supervise


class Monitor:
    """What leaves a monitor behind: steps for the front of the plan, and the descriptors that they use, by slot.

    The descriptors are ours from here on; close() is the caller's to call, after as many launches as it takes.
    From a launch on `pid` is the monitor's: a child of this process, and its parent's to wait for.  Until let_go() the
    monitor waits with all that follows from the container's end; call_off(), or our own end, ends both.
    """

    __slots__ = ("_attachable", "_hold", "_listener", "fds", "pid", "steps")

    def __init__(self, steps: "Sequence[Step]", fds: "dict[int, int]", *, attachable: bool = True) -> None:
        self.steps = steps
        self.fds = fds
        self.pid = 0
        self._attachable = attachable
        self._hold = -1
        self._listener: _socket.socket | None = None

    def listen(self, directory: str) -> None:
        """Bind the socket `attach` in the container's state directory, which keeps others out."""
        if not self._attachable:
            return
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        # AF_UNIX limits a path to 107 bytes.
        fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{fd}/{ATTACH}")
            self._listener.listen(16)
        finally:
            posix.close(fd)

    def stop_listening(self) -> None:
        """From our side: the monitor has a descriptor of its own."""
        if self._listener:
            self._listener.close()
            self._listener = None

    def descriptors(self) -> "dict[int, int]":
        """What the launch passes on; the one in HOLD_SLOT is the launch's to close."""
        reader, self._hold = posix.pipe2(posix.O_CLOEXEC)
        fds = {**self.fds, HOLD_SLOT: reader}
        if self._listener:
            fds[LISTENER_SLOT] = self._listener.fileno()
        return fds

    def let_go(self) -> None:
        """All that must be known of the container has been written down; LaunchError if somebody killed the monitor."""
        try:
            posix.write(self._hold, b"g")
        except BrokenPipeError as error:
            self.call_off()
            raise LaunchError(0, None, 0, "the container's monitor was killed") from error
        self._close_hold()

    def call_off(self) -> None:
        """End it and what it has launched; idempotent.  A monitor that has been let go is left alone."""
        if self._hold >= 0:
            self._close_hold()
            if self.pid:
                wait(self.pid)
                self.pid = 0

    def _close_hold(self) -> None:
        posix.close(self._hold)
        self._hold = -1

    def close(self) -> None:
        """The monitor has descriptors of its own."""
        self.stop_listening()
        fds, self.fds = self.fds, {}
        for fd in fds.values():
            posix.close(fd)


def launch(plan: LaunchPlan, fds: "dict[int, int]", options: Options, on_event: "OnEvent") -> int:
    """Execute the plan; returns the pid of the container's process, a child of this process or of `options.monitor`.

    Returns when the user's program has been executed or, if the plan waits for start, when it is ready to be.
    `fds` maps slots to descriptors.  `on_event(kind, value, text)` is called for PID, SYNC and MAP; what it returns
    goes back with the OK.  The monitor waits for let_go().  A SYNC of `init` outside comes with its pid.  Raises
    LaunchError, CommandNotFoundError or CommandNotExecutableError; whatever is raised, no process is left.
    """
    _check_preserved(options.preserve_fds)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    monitor = options.monitor
    watched = monitor.descriptors() if monitor else {}
    try:
        outside = send_off(plan, {SYNC_SLOT: theirs.fileno(), **fds, **watched}, options)
        # Ours must be the only copy left here: init's end of file is how we learn that the program runs.
        theirs.close()
        if monitor:
            monitor.pid = outside
        return _Conversation(plan, ours, outside, on_event, monitor).run()
    finally:
        theirs.close()
        ours.close()
        if HOLD_SLOT in watched:
            posix.close(watched[HOLD_SLOT])


def send_off(plan: LaunchPlan, fds: "dict[int, int]", options: Options) -> int:
    """Start `init` with the plan and duplicates of `fds` out of the way of the preserved ones; returns its pid."""
    lowest = 3 + options.preserve_fds
    passed: list[int] = []
    try:
        passed += [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest) for fd in fds.values()]
        numbers = dict(zip(fds, passed, strict=True))
        passed.append(memfd("plan", plan.encode(numbers), lowest, sealed=False))
        plan_fd = passed[-1]
        # Standard streams that change places would overwrite each other while they are laid out.
        stdio = list(options.stdio)
        for target, fd in enumerate(stdio):
            if fd < 3 and fd != target:
                stdio[target] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
                passed.append(stdio[target])
        return _spawn(plan_fd, passed, stdio, options.preserve_fds)
    finally:
        for fd in passed:
            posix.close(fd)


class _Conversation:
    """The Python side of the protocol that steps.py draws."""

    def __init__(
        self, plan: LaunchPlan, sock: "_socket.socket", outside: int, on_event: "OnEvent", monitor: "Monitor | None"
    ) -> None:
        self.plan = plan
        self.sock = sock
        self.monitor = monitor
        self.outside = outside
        self.pid = 0
        self.ready = not any(step.op in ("wait_start", "wait_command") for step in plan.steps)
        self.on_event = on_event

    def run(self) -> int:
        try:
            while self._message():
                pass
            return self._finished()
        except BaseException:
            self._abandon()
            raise

    def _message(self) -> bool:
        """Take one message; False when the launch is over."""
        try:
            data, passed, *_ = self.sock.recvmsg(MAX_MESSAGE, _ROOM_FOR_FD, _MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            data = b""
        if not data:
            return False
        if passed:
            return self._with_fd(data, unpack("=i", passed[0][2])[0])
        return self._take(data)

    def _with_fd(self, data: bytes, fd: int) -> bool:
        """A SYNC that comes with a descriptor of init's, which is its value; it is closed afterwards."""
        kind, step, _ = MESSAGE.unpack_from(data)
        try:
            return self._take(MESSAGE.pack(kind, step, fd) + data[MESSAGE.size :])
        finally:
            posix.close(fd)

    def _take(self, data: bytes) -> bool:
        kind, step, value = MESSAGE.unpack_from(data)
        text = data[MESSAGE.size :].decode("utf-8", "replace")
        if kind == FAIL:
            raise failure(self.plan, step, value, text)
        if kind == READY:
            self.ready = True
            return False
        if kind == PID:
            self.pid = value
            self._reap_outside()
            self.on_event(PID, value, "")
            return True
        if kind not in (SYNC, MAP):
            raise LaunchError(step, None, EBADMSG, f"unknown message {kind} from init")
        answer = MESSAGE.pack(OK, step, 0) + self.on_event(kind, value or self.outside, text).encode()
        if len(answer) > MAX_MESSAGE:
            raise WarrenError(f"state of the container is over {MAX_MESSAGE} bytes", hint="use smaller annotations")
        self.sock.send(answer)
        return True

    def _finished(self) -> int:
        self._reap_outside()
        if not self.pid:
            raise LaunchError(0, None, 0, "init ended before it made a process")
        if not self.ready:
            raise LaunchError(0, None, 0, "init was killed before it was ready")
        return self.pid

    def _reap_outside(self) -> None:
        if self.outside and not self.monitor:
            wait(self.outside)
            self.outside = 0

    def _abandon(self) -> None:
        """Leave no process: the child first, since `init` outside may still be about to tell of it."""
        self.sock.close()
        if self.monitor:
            self.monitor.call_off()
            return
        for pid in (self.outside, self.pid):
            if pid:
                try:
                    posix.kill(pid, 9)
                    wait(pid)
                except (ProcessLookupError, ChildProcessError):
                    pass


def failure(plan: LaunchPlan, number: int, errno: int, detail: str) -> LaunchError:
    """The exception for a FAIL message about step `number`, counted from 1."""
    step = plan.steps[number - 1] if 0 < number <= len(plan.steps) else None
    if step is not None and step.op in ("find", "exec"):
        program = step.args[0] if step.op == "find" else step.args[0][0]  # type: ignore[index]
        if errno in (ENOENT, ENOTDIR):
            return CommandNotFoundError(number, step, errno, str(program))
        if errno in (EACCES, EPERM, ENOEXEC, EISDIR):
            return CommandNotExecutableError(number, step, errno, str(program), detail)
    if step is not None and step.op == "chdir" and errno == ENOENT:
        return WorkingDirectoryError(number, step, errno, str(step.args[0]))
    error = LaunchError(number, step, errno, detail, hint=_hint(step.op if step else "", errno))
    error.source = _source(plan, step)
    return error


def _source(plan: LaunchPlan, step: "Step | None") -> str:
    """The path of the mount in the slot that a step is about; "" for other steps."""
    slot = step.fields().get("slot") if step else None
    return next((str(one.args[1]) for one in plan.steps if one.op == "open_tree" and one.args[0] == slot), "")


def _hint(op: str, errno: int) -> str:
    if errno == EPERM and op == "userns":
        return "are unprivileged user namespaces allowed here?"
    if errno == EAGAIN and op == "clone":
        return "is the limit of processes too low for a container to start?"
    if errno == EPERM and op == "device_program":
        return "bpf(2) is not permitted here"
    if errno == ENOENT and op == "open_tree":
        return "the source of a mount does not exist"
    if op == "monitor_log":
        return "can the log be written there?"
    if op == "monitor" and errno in (ENOSPC, EROFS):
        return "is there room where containers are kept?"
    if errno == EACCES and op == "oom_score_adj":
        return "lowering it needs CAP_SYS_RESOURCE"
    if op in ("scheduler", "io_priority") and errno == EPERM:
        return "it needs CAP_SYS_NICE on the host"
    if op == "affinity" and errno == EINVAL:
        return "this machine, or the container's cpuset, has none of these processors"
    if op == "memory_policy":
        return "has this machine these memory nodes, and do the mode and its flags go with them?"
    if op == "keyring":
        return "use --no-new-keyring"
    if op == "bind" and errno == EINVAL:
        return "not a directory? a file goes on a file and a directory on a directory"
    if op == "mount_setattr" and errno == EINVAL:
        return "can the file system be idmapped?"
    return ""


def init_path() -> str:
    """The installed static `init`, beside this module."""
    return __file__.rpartition("/")[0] + "/init/init"


def guest_init_path() -> str:
    """The same for virtual machines, as their process 1."""
    return init_path() + "-guest"


class Callers:
    """What an engine waits for: the terminal and a pidfd over sockets of its own, and a pid file.

    The sockets are connected to before anything is made; to be closed.
    """

    __slots__ = ("console", "options", "pidfd")

    def __init__(self, options: Options) -> None:
        self.options = options
        self.console = _connect(options.console_socket, "console")
        self.pidfd = _connect(options.pidfd_socket, "pidfd")

    @property
    def console_fd(self) -> int:
        return self.console.fileno() if self.console else self.options.console_fd

    def announce(self, pid: int) -> None:
        """Tell of the process `pid`, our child that has not been waited for yet."""
        if self.pidfd:
            _send_pidfd(self.pidfd, pid)
        if self.options.pid_file:
            write_pid_file(self.options.pid_file, pid)

    def close(self) -> None:
        for sock in (self.console, self.pidfd):
            if sock:
                sock.close()


def _send_pidfd(sock: "_socket.socket", pid: int) -> None:
    fd = posix.pidfd_open(pid)
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", fd))
        sock.sendmsg([b"pidfd"], [rights], _socket.MSG_NOSIGNAL)
    except OSError as error:
        raise WarrenError(f"pidfd socket: {posix.strerror(error.errno or 0)}".lower()) from error
    finally:
        posix.close(fd)


def write_pid_file(path: str, pid: int) -> None:
    """Write by rename: a reader sees all of it or nothing."""
    temporary = f"{path}.{posix.getpid()}.tmp"
    fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o644)
    try:
        posix.write(fd, b"%d" % pid)
    finally:
        posix.close(fd)
    posix.rename(temporary, path)


def _connect(path: str, what: str) -> "_socket.socket | None":
    """Connect to an engine's socket; AF_UNIX limits the path to 107 bytes, which a short link to it gets around."""
    if not path:
        return None
    name = path
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    fd = -1
    try:
        if len(path.encode()) > 107:
            fd = posix.open(path, 0o10000000 | posix.O_CLOEXEC)  # O_PATH
            path = f"/proc/self/fd/{fd}"
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise WarrenError(f"{what} socket {name}: {posix.strerror(error.errno or 0)}".lower()) from error
    finally:
        if fd >= 0:
            posix.close(fd)
    return sock


def _check_preserved(count: int) -> None:
    for fd in range(3, 3 + count):
        try:
            posix.fstat(fd)
        except OSError as error:
            raise WarrenError(f"--preserve-fds {count}: descriptor {fd} is not open") from error


def _spawn(plan_fd: int, passed: "list[int]", stdio: "list[int]", preserve_fds: int) -> int:
    """Start `init`; every descriptor of ours is close-on-exec but those passed, which keep their numbers."""
    actions = [(posix.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio) if fd != target]
    actions += [(posix.POSIX_SPAWN_DUP2, fd, fd) for fd in passed]
    actions += [(posix.POSIX_SPAWN_DUP2, fd, fd) for fd in range(3, 3 + preserve_fds)]
    path = f"/proc/self/fd/{sealed_init()}"
    while True:
        try:
            return posix.posix_spawn(path, ["warren-init", str(plan_fd)], {}, file_actions=actions)
        except OSError as error:
            if error.errno != EINTR:
                raise LaunchError(0, None, error.errno or 0, "cannot execute init") from error


def sealed_init() -> int:
    """A sealed copy of `init` in memory, made once per process (RULES 1; CVE-2019-5736)."""
    global _init_fd
    if _init_fd < 0:
        path = init_path()
        try:
            fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError as error:
            raise WarrenError(f"init: {path} is missing", hint="build it: pip install . or make build") from error
        try:
            data = posix.read(fd, 1 << 24)
        finally:
            posix.close(fd)
        _init_fd = memfd("warren-init", data, 3, sealed=True)
    return _init_fd


def memfd(name: str, data: bytes, lowest: int, *, sealed: bool) -> int:
    try:
        fd = posix.memfd_create(name, _MFD_FLAGS | (_MFD_EXEC if sealed else 0))
    except OSError:
        fd = posix.memfd_create(name, _MFD_FLAGS)
    if fd < lowest:
        low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
        posix.close(low)
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def fail_text(data: bytes) -> "tuple[int, int, str]":
    """Step, errno and text of a FAIL that `init` wrote to the report file."""
    _kind, step, value = MESSAGE.unpack_from(data)
    return step, value, data[MESSAGE.size :].decode("utf-8", sys.getfilesystemencodeerrors())
