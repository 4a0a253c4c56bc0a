"""Changing the limits of a live container: everything is checked, then everything written, or nothing has changed."""

from errno import EINVAL

from ..errors import WarrenError
from . import checks, device_program, devices, files, freezer, legacy, limits, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..host import Host
    from . import Cgroup
    from .settings import Json, Setting
    from .systemd import Property

    T = TypeVar("T")
    Undo = list[tuple[str, str]]

_RESET = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
    "rdma.max": "hca_handle=max hca_object=max",
}
"""What undoes a line about a device that the file had none about before; "0" does in v1."""
_KEYED_V1 = ("blkio.throttle.", "blkio.weight_device", "blkio.leaf_weight_device", "blkio.bfq.weight_device")
_ZEROS = {"cpu": ("burst", "idle"), "memory": ("swappiness",), "pids": ("limit",)}
"""Where 0 means something; elsewhere it, what is empty and null stand for nothing: engines send whole objects."""


def merge(old: "Json", new: "Json") -> "Json":
    """Resources after an update: what `new` does not say is as in `old`; lists are replaced."""
    merged = dict(old)
    for name, value in new.items():
        if isinstance(value, dict):
            zeros = _ZEROS.get(name, ())
            said = {key: item for key, item in value.items() if item or item is False or (item == 0 and key in zeros)}
            if name == "memory" and said.get("limit") == -1:
                said.setdefault("swap", -1)  # What it includes cannot stay behind (runc).
            merged[name] = {**(old.get(name) or {}), **said}
        elif value is not None:
            merged[name] = value
    return merged


def update(cgroup: "Cgroup", old: "Json", new: "Json", host: "Host") -> "Json":
    """Bring the cgroup from `old` to `old` changed by `new` (linux.resources); returns the resources as they now are.

    Raises SpecError, UnsupportedError, StateError or WarrenError; whatever is raised, the old limits hold.
    """
    merged = merge(old, new)
    found = limits.settings(merged, host, best_effort=cgroup.best_effort)
    wanted = [setting for setting in found if setting.file and _mentioned(setting, new)]
    program = _program(cgroup, new, merged, host)
    _check_usage(cgroup, merged.get("memory") or {}, new)
    cgroup.enable({s.controller for s in wanted if s.version == 2 and s.controller != "cgroup"}, host)
    told: list[Property] = []
    # systemd writes to the same files, and before us.
    undo: Undo = [line for setting in wanted for line in _previous(cgroup, setting)] if cgroup.unit else []
    try:
        told = _tell_systemd(cgroup, wanted, merged, new, host)
        _write_each(cgroup, _ordered(cgroup, wanted), undo)
        _write_devices(cgroup, old, merged, program, new)
    except BaseException:
        _undo(cgroup, told, undo, host)
        raise
    return merged


def _tell_systemd(
    cgroup: "Cgroup", wanted: "list[Setting]", merged: "Json", new: "Json", host: "Host"
) -> "list[Property]":
    """Before the files are written, which may hold what systemd rounds; returns what brings its own values back."""
    if not cgroup.unit:
        return []
    from . import systemd

    if new.get("devices") is None:
        return systemd.set_properties(cgroup, systemd.properties(wanted), host)
    changes = [*systemd.properties(wanted), *systemd.device_properties(merged["devices"], host)]
    if devices.holder(host) == 1:
        return _while_frozen(cgroup, lambda: systemd.set_properties(cgroup, changes, host))
    return systemd.set_properties(cgroup, changes, host)


def _undo(cgroup: "Cgroup", told: "list[Property]", written: "Undo", host: "Host") -> None:
    """Backwards, and as far as it goes: the first error is the one that is told."""
    if told:
        from . import systemd

        try:
            systemd.set_properties(cgroup, told, host)
        except (WarrenError, OSError):
            pass
    for path, value in reversed(written):
        try:
            files.write(path, value)
        except OSError:
            continue


def _mentioned(setting: "Setting", new: "Json") -> bool:
    return bool(new.get(setting.limit.partition(".")[0]))


def _program(cgroup: "Cgroup", new: "Json", merged: "Json", host: "Host") -> bytes:
    """Assembled before anything is written, since that may fail."""
    rules = merged.get("devices") or []
    if new.get("devices") is None or devices.holder(host) != 2 or not cgroup.unified:
        devices.check(rules)
        return b""
    return device_program.assemble(rules)


def _check_usage(cgroup: "Cgroup", memory: "Json", new: "Json") -> None:
    """memory.checkBeforeUpdate: refuse what the kernel would enforce by killing."""
    if not memory.get("checkBeforeUpdate") or not new.get("memory"):
        return
    path = cgroup.legacy.get(files.hierarchy(cgroup.legacy, "memory"), "")
    used = int(files.read(path + "/memory.usage_in_bytes" if path else cgroup.unified + "/memory.current") or 0)
    for name in ("limit", "swap"):
        if 0 < (memory.get(name) or 0) < used:
            raise checks.wrong(f"memory.{name}", f"{memory[name]} is less than is in use, {used}")


def _ordered(cgroup: "Cgroup", wanted: "list[Setting]") -> "list[Setting]":
    """v1 memory: what is to become the larger one of limit and limit with swap is raised first (runc)."""
    names = [s.file for s in wanted]
    if legacy.LIMIT not in names or legacy.SWAP not in names:
        return wanted
    limit, swap = names.index(legacy.LIMIT), names.index(legacy.SWAP)
    now = int(files.read(f"{settings.directory(cgroup, wanted[limit])}/{legacy.LIMIT}") or 0)
    if wanted[swap].value == "-1" or now < int(wanted[swap].value):
        wanted[limit], wanted[swap] = wanted[swap], wanted[limit]
    return wanted


def _write_each(cgroup: "Cgroup", wanted: "list[Setting]", undo: "Undo") -> None:
    """Some pairs bound each other (quota and burst, quota and period): one more try once the others are written."""
    late = [setting for setting in wanted if not _write(cgroup, setting, undo, again=True)]
    for setting in late:
        _write(cgroup, setting, undo, again=False)


def _write(cgroup: "Cgroup", setting: "Setting", undo: "Undo", *, again: bool) -> bool:
    """False for a value that the kernel did not take, where it is to be tried again."""
    known = _previous(cgroup, setting)
    try:
        settings.write(cgroup, setting)
    except OSError as error:
        if again and error.errno == EINVAL:
            return False
        raise settings.refusal(setting, error) from error
    undo += known
    return True


def _previous(cgroup: "Cgroup", setting: "Setting") -> "Undo":
    """The writes that bring back what the file says now."""
    path = settings.directory(cgroup, setting)
    file, value = setting.file, setting.value
    if setting.instead and not files.exists(f"{path}/{file}"):
        file, value = setting.instead
    if not files.exists(f"{path}/{file}"):
        return []
    text = files.read(f"{path}/{file}")
    return [(f"{path}/{file}", line) for line in _lines_before(file, value, text)]


def _lines_before(file: str, value: str, text: str) -> "list[str]":
    if file == "memory.oom_control":
        return [text.split()[1]]
    if file in _RESET or file.startswith(_KEYED_V1):
        key = value.split()[0] if " " in value else "default"
        before = [line for line in text.splitlines() if line.split()[:1] == [key]]
        return before or ([] if key == "default" else [f"{key} {_RESET.get(file, '0')}"])
    # An empty value is written as an empty line: a write of no bytes never reaches the kernel's parser.
    return [line or "\n" for line in text.splitlines()] or ["\n"]


def _write_devices(cgroup: "Cgroup", old: "Json", merged: "Json", program: bytes, new: "Json") -> None:
    """The last of all, and all or nothing in itself."""
    if new.get("devices") is None:
        return
    path = cgroup.legacy.get(files.hierarchy(cgroup.legacy, "devices"), "")
    if program:
        from . import programs

        programs.replace(cgroup.unified, program)
    elif path:
        _write_lines(cgroup, path, old.get("devices") or [], merged["devices"])


def _write_lines(cgroup: "Cgroup", path: str, old: "list[devices.Rule]", new: "list[devices.Rule]") -> None:
    def write() -> None:
        try:
            devices.write(path, new)
        except OSError as error:
            devices.write(path, old or [{"allow": True}])
            raise WarrenError(f"linux.resources.devices: {error.filename}: {error.strerror}".lower()) from error

    _while_frozen(cgroup, write)


def _while_frozen(cgroup: "Cgroup", change: "Callable[[], T]") -> "T":
    """v1 forgets all rules before it learns the new ones: nothing may run, or see its devices denied, meanwhile."""
    was_frozen = cgroup.frozen()
    if not was_frozen:
        freezer.freeze(cgroup)
    try:
        return change()
    finally:
        if not was_frozen:
            freezer.thaw(cgroup)
