"""`update`: other limits and another restart policy for containers, which hold now and after the next start."""

from ..config import ContainerConfig, limits
from ..errors import UsageError
from ..host import Host
from . import journal
from .policy import RestartPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .records import Record

    Json = dict[str, Any]

_UNLIMITED = {("pids", "limit"): -1, ("cpu", "quota"): -1}
"""What takes a limit away that the new configuration does not have any more."""


def update(record: "Record", changes: "Json") -> None:
    """`changes` are values of ContainerConfig by name.  Whatever is raised, the old ones hold.

    Raises UsageError and UnsupportedError for what is off, and what Container.update() raises.
    """
    with record:
        config = record.config()
        before = limits.resources(config, Host.probe(), {})
        _change(config, changes)
        resources = _difference(before, limits.resources(config, Host.probe(), {}))
        running = bool(record.state_dir.process())
        if resources and running:
            record.container.update(resources)
        wanted = config.to_dict()
        wanted.pop("layers", None)
        record.write({**record.data, "config": wanted})
        if resources and running:
            record.update_life(enforced=record.container.state().get("enforced") or {})
        journal.note(record, "update")


def _change(config: ContainerConfig, changes: "Json") -> None:
    if not changes:
        raise UsageError("nothing is to be changed", hint="such as --memory 512m")
    if "restart" in changes:
        _check_policy(changes["restart"], config)
    if "cpus" in changes and ("cpu_quota" in changes or "cpu_period" in changes):
        raise UsageError("--cpus cannot be used with --cpu-quota or --cpu-period")
    if "cpus" in changes:
        config.cpu_quota = config.cpu_period = 0
    elif "cpu_quota" in changes or "cpu_period" in changes:
        config.cpus = ""
    if changes.get("memory") == "-1" and "memory_swap" not in changes:
        config.memory_swap = "-1"
    for name, value in changes.items():
        setattr(config, name, value)


def _check_policy(text: str, config: ContainerConfig) -> None:
    if RestartPolicy(text).restarts and config.auto_remove:
        raise UsageError("--restart: the container is removed when it ends (--rm)")


def _difference(before: "Json", after: "Json") -> "Json":
    """linux.resources of what has changed; update() takes nothing else for a change."""
    found: Json = {}
    for section in {*before, *after}:
        old, new = before.get(section) or {}, after.get(section) or {}
        changed = {key: value for key, value in new.items() if old.get(key) != value}
        changed |= {key: _UNLIMITED[section, key] for key in old if key not in new and (section, key) in _UNLIMITED}
        if changed:
            found[section] = changed
    return found
