"""Device access rules, linux.resources.devices: what every container may use, and v1's lines (devices.rst)."""

import posix

from ..errors import SpecError
from .files import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..host import Host

    Rule = dict[str, Any]

# What every container may use whatever its rules say (runc, AllowedDevices): nodes of any kind may be made, the
# default devices, terminals and /dev/console opened.
_ALWAYS = (
    ("c", 1, 3, "rwm"), ("c", 1, 5, "rwm"), ("c", 1, 7, "rwm"), ("c", 1, 8, "rwm"), ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"), ("c", 5, 1, "rwm"), ("c", 5, 2, "rwm"), ("c", 136, -1, "rwm"),
    ("c", -1, -1, "m"), ("b", -1, -1, "m"),
)  # fmt: skip
DEFAULT_PROGRAM = bytes.fromhex(
    "6112000000000000bc23000000000000740300001000000054020000ffff000061140400000000006115080000000000"
    "540300000600000016030f000000000056020c0002000000560401008800000005000c00000000005604030005000000"
    "16050a000200000016050900010000001605080000000000560405000100000016050600090000001605050008000000"
    "160504000700000016050300050000001605020003000000b4000000000000009500000000000000b400000001000000"
    "9500000000000000"
)
"""What device_program.py makes of them alone, so that the usual launch does without it."""
_DENY_ALL: "Rule" = {"allow": False, "type": "a"}


def is_default(rules: "list[Rule]") -> bool:
    """Whether the rules are the lone "deny all" that engines and `spec` write: the default device set."""
    return all(not rule.get("allow") and rule.get("type") in (None, "", "a") for rule in rules)


def holder(host: "Host") -> int:
    """Who holds device rules: 1 a v1 hierarchy, 2 a program on the v2 cgroup, 0 nobody.

    bpf(2) is for the initial user namespace alone, and nobody but its root makes device nodes (runc skips it, too).
    """
    if hierarchy(host.cgroup_legacy, "devices"):
        return 1
    return 2 if host.cgroup_unified and host.privileged and host.initial_userns else 0


def check(rules: "list[Rule]") -> None:
    """Raise SpecError for numbers that no device has; -1 and absent mean any."""
    for index, rule in enumerate(rules):
        for key in ("major", "minor"):
            value = rule.get(key)
            if value is not None and not -1 <= value < 1 << 32:
                raise SpecError(f"linux.resources.devices[{index}].{key}: {value} is no device number")


def with_defaults(rules: "list[Rule]") -> "list[Rule]":
    """The rules between the default, which denies everything (runc), and what every container may use."""
    always = [{"allow": True, "type": t, "major": a, "minor": i, "access": m} for t, a, i, m in _ALWAYS]
    return [_DENY_ALL, *rules, *always]


def writes(rules: "list[Rule]") -> "list[tuple[str, str]]":
    """Files of a v1 `devices` cgroup and the lines to write to them, in order; none when there are no rules."""
    return [_write(rule) for rule in with_defaults(rules)] if rules else []


def write(path: str, rules: "list[Rule]") -> None:
    """Write them to the v1 cgroup `path`, each file opened once.  Raises OSError naming the file."""
    fds: dict[str, int] = {}
    try:
        for file, line in writes(rules):
            if file not in fds:
                fds[file] = posix.open(f"{path}/{file}", posix.O_WRONLY | posix.O_CLOEXEC)
            posix.write(fds[file], line.encode())
    except OSError as error:
        raise OSError(error.errno, posix.strerror(error.errno or 0), f"{path}/{file}") from error
    finally:
        for fd in fds.values():
            posix.close(fd)


def _write(rule: "Rule") -> "tuple[str, str]":
    file = "devices.allow" if rule.get("allow") else "devices.deny"
    kind = rule.get("type") or "a"
    if kind == "a":
        # "a" means all devices and all access, whatever stands behind it.
        return file, "a"
    return file, f"{kind} {_number(rule.get('major'))}:{_number(rule.get('minor'))} {rule.get('access') or 'rwm'}"


def _number(value: "int | None") -> str:
    """-1 and absent mean any."""
    return "*" if value is None or value < 0 else str(value)
