"""Further programs, and files, in virtual machines that run: the process beside the hypervisor that stands for each."""

import posix
from errno import EINVAL, EISDIR, ENOENT, ENOTDIR, ENXIO, EROFS

from .. import vm
from ..errors import LaunchError, NotFoundError, StateError, UsageError, WarrenError
from ..host import Host
from ..jsontext import parse_json
from ..launch import GUEST, Options, connect_in
from ..state import read_file as read_file_of_host
from ..syscalls import wait
from ..vm.machine import PLACE
from .pipes import DEVNULL, PIPE, Streams, pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..steps import LaunchPlan
    from .records import Record

    Json = dict[str, Any]

_SIGKILL = 9
_MILLISECONDS = 60000
"""Within which a program begins: a guest may be emulated, and have a lot to do."""


def guest_defaults(record: "Record") -> "Json":
    """The process object of a machine's own program, on which exec's flags are laid."""
    process: Json = _inside(record)["process"]
    return process


def kind_of(record: "Record") -> str:
    """Which machine it is: "vm:uml"."""
    annotations: Json = record.container.config().get("annotations") or {}  # type: ignore[assignment]
    return str(annotations.get(vm.ISOLATION) or "vm")


def _inside(record: "Record") -> "Json":
    annotations: Json = record.container.config().get("annotations") or {}  # type: ignore[assignment]
    if vm.INSIDE not in annotations:
        raise StateError(f"container {record.name!r} was started by another version", hint="start it anew")
    inside: Any = parse_json(annotations[vm.INSIDE].encode(), "what holds in the guest")
    return dict(inside)


def hypervisor(pid: int) -> int:
    """Of an ordinary user's machine the process whose namespaces he may join; the supervisor `pid` for root.

    The supervisor was executed in his own user namespace, to which its memory belongs (ptrace(2), PTRACE_MODE_READ).
    """
    if Host.probe().privileged:
        return pid
    children = read_file_of_host(f"/proc/{pid}/task/{pid}/children").split()
    if not children:
        raise StateError("the virtual machine has just ended", hint="try again")
    return int(children[0])


def image_root(pid: int) -> str:
    """Where the accounts of its image are, as the hypervisor has it; what the guest has changed only it knows."""
    return f"/proc/{hypervisor(pid)}/root{PLACE}/root"


def launch_in_guest(record: "Record", process: "Json", options: Options, content: bytes = b"") -> int:
    """Start a program in the guest; the pid of what stands for it here.  Raises what Container.exec() raises."""
    plan = vm.program_plan(process, vm.inside_filter(_inside(record)), content)
    return _launch(record, plan, options, terminal=bool(process.get("terminal")))


def _launch(record: "Record", plan: "LaunchPlan", options: Options, *, terminal: bool = False) -> int:
    outer = record.container.exec_defaults()
    outer["terminal"] = terminal
    outer.pop("consoleSize", None)
    try:
        sock = connect_in(record.state_dir.path, GUEST)
    except OSError as error:
        record.running_pid()
        reason = posix.strerror(error.errno or 0).lower()
        raise StateError(f"container {record.name!r}: its supervisor does not answer: {reason}") from error
    try:
        options.reach = (sock.fileno(), plan.encode({}), _MILLISECONDS, int(terminal))
        options.beside = hypervisor(record.running_pid())
        return record.container.exec(outer, options)
    except LaunchError as error:
        raise vm.guest_failure(error, plan) from None
    finally:
        sock.close()


# ---- files


def read_file(record: "Record", path: str, limit: "int | None") -> bytes:
    """What is in a regular file of the guest, at most `limit` bytes; links are followed there.

    NotFoundError, UsageError for what is no regular file, WarrenError when reading fails.
    """
    return _move(record, path, vm.file_plan(path), b"", limit)


def write_file(record: "Record", path: str, data: bytes, mode: int) -> None:
    """Make or replace a file of the guest's root; the same errors, StateError for a read-only one."""
    _move(record, path, vm.file_plan(path, mode), data, 0)


def _move(record: "Record", path: str, plan: "LaunchPlan", data: bytes, limit: "int | None") -> bytes:
    record.running_pid()
    streams = Streams(PIPE, PIPE, DEVNULL)
    try:
        pid = _launch(record, plan, Options(stdio=streams.child))
        outputs = streams.outputs(limit)
        try:
            streams.launched()
            ended = posix.pidfd_open(pid)
            try:
                pump(streams, outputs, data, ended, None)
            finally:
                posix.close(ended)
        except BaseException:
            posix.kill(pid, _SIGKILL)  # It would wait for somebody who reads, or goes on writing.
            raise
        finally:
            code = wait(pid)
        found = outputs[streams.out]
        found.drain(streams.out)
    except LaunchError as error:
        raise _file_error(path, error.errno, error) from None
    finally:
        streams.close()
    if code:
        raise WarrenError(f"{path}: {posix.strerror(code).lower()}")
    return found.value()


def _file_error(path: str, errno: int, error: LaunchError) -> WarrenError:
    reason = f"{path}: {posix.strerror(errno).lower()}"
    if errno in (ENOENT, ENOTDIR):
        return NotFoundError(reason)
    if errno in (EINVAL, EISDIR, ENXIO):
        return UsageError(f"{path}: not a regular file")
    return StateError(reason) if errno == EROFS else error
