"""Device access rules in a v1 `devices` hierarchy (cgroup-v1/devices.rst): linux.resources.devices, line by line."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Rule = dict[str, Any]

# What every container may use whatever its rules say (runc, AllowedDevices): nodes of any kind may be made, the
# default devices, terminals and /dev/console opened.
_ALWAYS = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm",
    "c 5:1 rwm", "c 136:* rwm",
)  # fmt: skip


def is_default(rules: "list[Rule]") -> bool:
    """Whether the rules are the lone "deny all" that engines and `spec` write: the default device set."""
    return all(not rule.get("allow") and rule.get("type") in (None, "", "a") for rule in rules)


def writes(rules: "list[Rule]") -> "list[tuple[str, str]]":
    """Files of the cgroup and the lines to write to them, in order; none when there are no rules."""
    if not rules:
        return []
    return [_write(rule) for rule in rules] + [("devices.allow", line) for line in _ALWAYS]


def _write(rule: "Rule") -> "tuple[str, str]":
    file = "devices.allow" if rule.get("allow") else "devices.deny"
    kind = rule.get("type") or "a"
    if kind == "a":
        # "a" means all devices and all access, whatever stands behind it.
        return file, "a"
    kind = "c" if kind == "u" else kind
    return file, f"{kind} {_number(rule.get('major'))}:{_number(rule.get('minor'))} {rule.get('access') or 'rwm'}"


def _number(value: "int | None") -> str:
    """-1 and absent mean any."""
    return "*" if value is None or value < 0 else str(value)
