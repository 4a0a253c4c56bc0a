"""--memory, --cpus, --pids-limit and the like, in docker's words, as the spec's linux.resources.

What a user asks for is held or refused; only the default, a number of processes, is given up with a note where this
caller has no cgroup.
"""

import posix

from .. import cgroups
from ..cgroups import checks, limits
from ..errors import UnsupportedError, UsageError
from ..quantities import is_number, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..host import Host
    from . import ContainerConfig

    Json = dict[str, Any]

DEFAULT_PIDS = 1024
_PERIOD = 100000
_THROTTLES = (
    ("device_read_bps", "throttleReadBpsDevice"), ("device_write_bps", "throttleWriteBpsDevice"),
    ("device_read_iops", "throttleReadIOPSDevice"), ("device_write_iops", "throttleWriteIOPSDevice"),
)  # fmt: skip


def resources(config: "ContainerConfig", host: "Host", enforced: "dict[str, str]") -> "Json":
    """linux.resources without the device rules; raises UsageError and UnsupportedError."""
    sections = {
        "memory": _memory(config, host),
        "cpu": _cpu(config),
        "pids": _pids(config, host, enforced),
        "blockIO": _block_io(config),
    }
    return {name: section for name, section in sections.items() if section}


def cgroups_path(config: "ContainerConfig") -> str:
    """linux.cgroupsPath; "" for the default one."""
    parent = config.cgroup_parent
    if not parent:
        return ""
    if ".." in parent.split("/") or "\0" in parent:
        raise UsageError(f"--cgroup-parent {parent!r} climbs", hint="a path below the root of each hierarchy")
    return f"/{parent.strip('/')}/warren-{config.id}"


def device_rules(texts: "Sequence[str]") -> "list[Json]":
    """--device-cgroup-rule "TYPE MAJOR:MINOR ACCESS", such as "c 10:* rwm"."""
    return [_device_rule(text) for text in texts]


def _device_rule(text: str) -> "Json":
    words = text.split()
    kind, numbers, access = words if len(words) == 3 else ("", "", "")
    major, colon, minor = numbers.partition(":")
    if kind not in ("a", "b", "c") or not colon or not access or set(access) - set("rwm"):
        raise UsageError(f"--device-cgroup-rule {text!r} is no rule", hint='such as "c 10:229 rwm" or "b 8:* r"')
    rule: Json = {"allow": True, "type": kind, "access": access}
    for name, number in (("major", major), ("minor", minor)):
        if number != "*":
            rule[name] = _integer(number, "--device-cgroup-rule", 0xFFFFFFFF)
    return rule


def _memory(config: "ContainerConfig", host: "Host") -> "Json":
    """docker's: without --memory-swap, twice the memory may be used together with swap; -1 is no limit."""
    limit = _bytes(config.memory, "--memory")
    swap = _bytes(config.memory_swap, "--memory-swap")
    reservation = _bytes(config.memory_reservation, "--memory-reservation")
    if swap > 0 >= limit:
        raise UsageError("--memory-swap needs --memory, which it includes")
    if 0 < swap < limit:
        raise UsageError("--memory-swap is less than --memory, which it includes")
    if 0 < limit < reservation:
        raise UsageError("--memory-reservation is more than --memory")
    found = {"limit": limit, "swap": swap, "reservation": reservation}
    if limit > 0 and not swap and (limits.version("memory", host) == 2 or _counts_swap(host)):
        found["swap"] = 2 * limit
    section: Json = {name: value for name, value in found.items() if value}
    if config.memory_swappiness is not None and config.memory_swappiness != -1:
        section["swappiness"] = _within(config.memory_swappiness, "--memory-swappiness", 0, 100)
        _refuse_on_v2(config, host, "--memory-swappiness", "has no swappiness")
    if config.oom_kill_disable:
        section["disableOOMKiller"] = True
        _refuse_on_v2(config, host, "--oom-kill-disable", "cannot disable the OOM killer")
    return section


def _counts_swap(host: "Host") -> bool:
    """Whether v1 accounts swap (kernel parameter swapaccount); docker then limits memory alone."""
    path = limits.mount("memory", host)
    return bool(path) and posix.access(path + "/memory.memsw.limit_in_bytes", posix.F_OK)


def _refuse_on_v2(config: "ContainerConfig", host: "Host", option: str, what: str) -> None:
    if not config.best_effort and limits.version("memory", host) == 2:
        raise UnsupportedError(f"{option}: cgroup v2 {what}", hint="leave it out, or add --best-effort")


def _bytes(text: str, option: str) -> int:
    return -1 if text == "-1" else size(text, option, zero=True) if text else 0


def _cpu(config: "ContainerConfig") -> "Json":
    """--cpus is a quota of 100 ms; it and --cpu-quota exclude each other."""
    section: Json = {}
    if config.cpus:
        if config.cpu_quota or config.cpu_period:
            raise UsageError("--cpus cannot be used with --cpu-quota or --cpu-period")
        section = {"period": _PERIOD, "quota": _quota(config.cpus)}
    for name, text in (("cpus", config.cpuset_cpus), ("mems", config.cpuset_mems)):
        if not checks.is_list(text):
            raise UsageError(f"--cpuset-{name} {text!r} is no list", hint="such as 0-2,7")
        section[name] = text
    section["shares"] = config.cpu_shares and _within(config.cpu_shares, "--cpu-shares", 2, checks.MAX_SHARES)
    if config.cpu_quota:
        least = -1 if config.cpu_quota == -1 else 1000
        section["quota"] = _within(config.cpu_quota, "--cpu-quota", least, checks.MAX_QUOTA)
    if config.cpu_period:
        section["period"] = _within(config.cpu_period, "--cpu-period", *checks.PERIODS)
    return {name: value for name, value in section.items() if value}


def _quota(text: str) -> int:
    whole, _, part = text.partition(".")
    number = (whole or "0") + (part + "0" * 5)[:5]
    if not is_number(number) or (part and not is_number(part)) or len(number) > 12 or text == ".":
        raise UsageError(f"--cpus {text!r} is not a number of processors", hint="such as 1.5")
    quota = int(number)
    count = len(posix.sched_getaffinity(0))
    if not 1000 <= quota <= (posix.cpu_count() or count) * _PERIOD:
        raise UsageError(f"--cpus {text} is out of range", hint=f"0.01 to {posix.cpu_count() or count}")
    return quota


def _pids(config: "ContainerConfig", host: "Host", enforced: "dict[str, str]") -> "Json":
    """0 and -1 are no limit (docker).  The default is for whoever has a cgroup with the controller."""
    if config.pids_limit is not None:
        limit = _within(config.pids_limit, "--pids-limit", -1, checks.MAX_PIDS)
        return {"limit": limit} if limit > 0 else {}
    if not cgroups.for_container(None, config.id, host, manager="auto").directories():
        enforced["pids_limit"] = f"not the default of {DEFAULT_PIDS}: the caller may not make a cgroup"
    elif not limits.version("pids", host):
        enforced["pids_limit"] = f"not the default of {DEFAULT_PIDS}: this host has no pids controller"
    else:
        return {"limit": DEFAULT_PIDS}
    return {}


def _block_io(config: "ContainerConfig") -> "Json":
    section: Json = {}
    if config.blkio_weight:
        section["weight"] = _within(config.blkio_weight, "--blkio-weight", 10, 1000)
    if config.blkio_weight_device:
        section["weightDevice"] = [_weight(text) for text in config.blkio_weight_device]
    for name, key in _THROTTLES:
        if texts := getattr(config, name):
            section[key] = [_throttle(text, "--" + name.replace("_", "-")) for text in texts]
    return section


def _weight(text: str) -> "Json":
    device, value = _split(text, "--blkio-weight-device")
    weight = _within(_integer(value, "--blkio-weight-device", 1000), "--blkio-weight-device", 10, 1000)
    return {**_block_device(device, "--blkio-weight-device"), "weight": weight}


def _throttle(text: str, option: str) -> "Json":
    """PATH:RATE; bytes may have a unit, operations are plain."""
    device, value = _split(text, option)
    rate = size(value, option) if option.endswith("bps") else _integer(value, option, (1 << 64) - 1)
    return {**_block_device(device, option), "rate": rate}


def _split(text: str, option: str) -> "tuple[str, str]":
    device, colon, value = text.rpartition(":")
    if not colon or not device.startswith("/") or "\0" in device:
        raise UsageError(f"{option} {text!r} is not PATH:NUMBER", hint="such as /dev/sda:1mb")
    return device, value


def _block_device(path: str, option: str) -> "Json":
    try:
        info = posix.stat(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: {posix.strerror(error.errno or 0)}".lower()) from error
    if info.st_mode & 0o170000 != 0o060000:
        raise UsageError(f"{option} {path} is no block device")
    return {"major": posix.major(info.st_rdev), "minor": posix.minor(info.st_rdev)}


def _integer(text: str, option: str, most: int) -> int:
    if not is_number(text) or len(text) > 20:
        raise UsageError(f"{option}: {text!r} is not a number")
    return _within(int(text), option, 0, most)


def _within(number: int, option: str, least: int, most: int) -> int:
    if not least <= number <= most:
        raise UsageError(f"{option} {number} is out of range", hint=f"{least} to {most}")
    return number
