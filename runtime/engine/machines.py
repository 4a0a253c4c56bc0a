"""Further programs in virtual machines that run: the process beside the hypervisor that stands for each of them."""

import posix

from .. import vm
from ..errors import LaunchError, StateError
from ..jsontext import parse_json
from ..launch import GUEST, connect_in
from ..vm.machine import PLACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..launch import Options
    from .records import Record

    Json = dict[str, Any]

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
    inside: Json = parse_json(annotations[vm.INSIDE].encode(), "what holds in the guest")
    return inside


def image_root(pid: int) -> str:
    """Where the accounts of its image are, as the hypervisor has it: what the guest has changed of them only it knows."""
    return f"/proc/{pid}/root{PLACE}/root"


def launch_in_guest(record: "Record", process: "Json", options: "Options", content: bytes = b"") -> int:
    """Start a program in the guest; the pid of what stands for it here.  Raises what Container.exec() raises."""
    guest = vm.program_plan(process, vm.inside_filter(_inside(record)), content)
    outer = record.container.exec_defaults()
    outer["terminal"] = terminal = bool(process.get("terminal"))
    outer.pop("consoleSize", None)
    try:
        sock = connect_in(record.state_dir.path, GUEST)
    except OSError as error:
        record.running_pid()
        reason = posix.strerror(error.errno or 0).lower()
        raise StateError(f"container {record.name!r}: its supervisor does not answer: {reason}") from error
    try:
        options.reach = (sock.fileno(), guest.encode({}), _MILLISECONDS, int(terminal))
        return record.container.exec(outer, options)
    except LaunchError as error:
        raise vm.guest_failure(error, guest) from None
    finally:
        sock.close()
