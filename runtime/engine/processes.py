"""Further processes in containers that run: `exec`.

A process that is attached to has a monitor of its own, as a container has: it survives this command, so that the
detach keys leave it running, and its streams belong to its user.
"""

import _signal
import posix

from ..capabilities import NAMES
from ..config.accounts import Account, Accounts
from ..console import terminal_size
from ..errors import (
    CommandNotFoundError,
    LaunchError,
    NoTerminalError,
    StateError,
    UnsupportedError,
    UsageError,
    WorkingDirectoryError,
)
from ..host import Host
from ..launch import Options
from ..monitor import Attached, make_monitor, parse_keys
from ..spec import validate_process
from . import journal
from .records import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .records import Record

    Json = dict[str, Any]

_KILLED = 137
"""Of a process whose monitor was killed: the kernel has killed it, too."""


class Request:
    """A process that is wanted: `env` and `workdir` are on top of the container's own, `user` None is its user.

    Of a virtual machine only: `content` is a static program that is in no file there, and with `beside` it is a process
    in the container of its hypervisor.
    """

    __slots__ = (
        "argv", "beside", "content", "detach", "detach_keys", "env", "interactive", "privileged", "tty", "user",
        "workdir",
    )  # fmt: skip

    def __init__(
        self,
        argv: "Sequence[str]",
        *,
        env: "Sequence[str]" = (),
        workdir: str = "",
        user: "str | None" = None,
        interactive: bool = False,
        tty: bool = False,
        detach: bool = False,
        privileged: bool = False,
        detach_keys: str = "",
        content: bytes = b"",
        beside: bool = False,
    ) -> None:
        self.argv = list(argv)
        self.beside = beside
        self.content = content
        self.env = env
        self.workdir = workdir
        self.user = user
        self.interactive = interactive
        self.tty = tty
        self.detach = detach
        self.privileged = privileged
        self.detach_keys = detach_keys


def exec_process(name: str, request: Request) -> int:
    """Run it in the foreground, or start it with `detach`; its exit code, 0 when it goes on without us.

    Raises StateError for a container that does not run, UsageError, and what a launch raises.  Main thread only.
    """
    record = find(name)
    keys = parse_keys(request.detach_keys or "ctrl-p,ctrl-q")
    if request.tty and request.interactive and not request.detach and not posix.isatty(0):
        raise NoTerminalError("the input device is not a TTY", hint="-t without -i needs none")
    process = process_object(record, record.running_pid(), request)
    monitor, client = make_monitor(
        terminal=request.tty,
        stdin=request.interactive and not request.detach,
        stdin_once=True,
        owner=not request.detach,
        attachable=False,
    )
    options = Options(monitor=monitor, size=terminal_size() if request.tty else (0, 0))
    if client is None:
        launch_process(record, process, options, request)
        return 0
    pidfd = -1
    try:
        with Attached(
            client,
            terminal=request.tty,
            stdin=request.interactive,
            send=lambda number: _send(pidfd, number),
            detach_keys=keys,
            owner=True,
        ) as attached:
            pidfd = _pidfd(launch_process(record, process, options, request))
            code = attached.follow()
            return 0 if attached.detached else _KILLED if code is None else code
    finally:
        client.close()
        if pidfd >= 0:
            posix.close(pidfd)


def is_machine(record: "Record") -> bool:
    """Whether it is a virtual machine."""
    return record.config().isolation not in ("", "container")


def refuse_machine(record: "Record", what: str, why: str, hint: str = "") -> None:
    """UnsupportedError for what cannot be had of a virtual machine."""
    if is_machine(record):
        raise UnsupportedError(f"{what}: container {record.name!r} is a virtual machine, {why}", hint=hint)


def start_process(record: "Record", process: "Json", options: Options, request: Request) -> int:
    """Start it; its pid, or in a virtual machine that of the process beside the hypervisor that stands for it."""
    if is_machine(record) and not request.beside:
        from .machines import launch_in_guest

        return launch_in_guest(record, process, options, request.content)
    if request.beside:
        from .machines import hypervisor

        options.beside = hypervisor(record.running_pid())
    return record.container.exec(process, options)


def launch_process(record: "Record", process: "Json", options: Options, request: Request) -> int:
    """The same with errors that people understand, and a note in the journal."""
    try:
        pid = start_process(record, process, options, request)
    except WorkingDirectoryError as error:
        error.exit_code = CommandNotFoundError.exit_code  # docker's.
        raise
    except (StateError, LaunchError):
        if record.container.is_frozen():
            hint = f"warren unpause {record.name}"
            raise StateError(f"container {record.name!r} is paused", hint=hint) from None
        record.running_pid()  # It may have ended meanwhile.
        raise
    finally:
        if options.monitor:
            options.monitor.close()
    journal.note(record, "exec_start: " + " ".join(process["args"]))
    return pid


def _pidfd(pid: int) -> int:
    """-1 for a process that has ended already."""
    try:
        return posix.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _send(pidfd: int, number: int) -> None:
    try:
        if pidfd >= 0:
            _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # Its exit code is on the way.


def process_object(record: "Record", pid: int, request: Request) -> "Json":
    """The container's own process object with the request laid on it."""
    process, root = record.container.exec_defaults(), f"/proc/{pid}/root"
    if is_machine(record) and not request.beside:
        from .machines import guest_defaults, image_root

        process, root = guest_defaults(record), image_root(pid)
    process["args"], process["terminal"] = request.argv, request.tty
    process.pop("consoleSize", None)
    if request.workdir:
        if not request.workdir.startswith("/"):
            raise UsageError(f"--workdir {request.workdir!r} is not an absolute path")
        process["cwd"] = request.workdir
    account = None
    if request.user is not None:
        account = Accounts([root]).find(request.user)
        process["user"] = {"uid": account.uid, "gid": account.gid, "additionalGids": _groups(account, request.user)}
    if account or request.privileged:
        process["capabilities"] = _capabilities(process, request.privileged)
    process["env"] = _env(record, process, request, account)
    return validate_process(process)


def _groups(account: Account, user: str) -> "list[int]":
    host = Host.probe()
    # A single-id map denies setgroups(2) (user_namespaces(7)).
    return account.groups if ":" not in user and (host.privileged or host.subordinate("gid")[1]) else []


def _capabilities(process: "Json", privileged: bool) -> "Json":
    """Those of the container, or all; who is not root has them in reserve only, for set-user-ID programs."""
    own = process.get("capabilities") or {}
    bounding = list(NAMES) if privileged else list(own.get("bounding") or [])
    held = bounding if not process["user"]["uid"] else []
    return {"bounding": bounding, "permitted": held, "effective": held, "inheritable": [], "ambient": []}


def _env(record: "Record", process: "Json", request: Request, account: "Account | None") -> "list[str]":
    values = dict(entry.partition("=")[::2] for entry in process.get("env") or ())
    if account and not any(entry.startswith("HOME=") for entry in record.data["config"].get("env") or ()):
        values["HOME"] = account.home
    if request.tty:
        values.setdefault("TERM", "xterm")
    values.update(entry.partition("=")[::2] for entry in request.env)
    return [f"{name}={value}" for name, value in values.items()]
