"""A `linux.seccomp` object, validated: names, actions and conditions as they were written, actions as numbers.

It owns what runtime-spec (config-linux.md#seccomp) and runc refuse; it refuses to know how rules become a program.
"""

from ..errors import SpecError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    # (argument, operator, value, mask); mask is that of SCMP_CMP_MASKED_EQ and all ones for the others.
    Condition = tuple[int, str, int, int]

KILL_THREAD = 0x00000000
ERRNO = 0x00050000
NOTIFY = 0x7FC00000
EPERM = 1

ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
# Default actions under which a call that the profile does not know is let through anyway.
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")

NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
# What a kernel of that architecture can report.  Others may be listed; no process can ever use them there.
FAMILIES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_X86"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
ELSEWHERE = (
    "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X",
    "PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB",
)  # fmt: skip
ARCHITECTURES = {name for names in FAMILIES.values() for name in names} | {f"SCMP_ARCH_{name}" for name in ELSEWHERE}

TSYNC = "SECCOMP_FILTER_FLAG_TSYNC"
WAIT_KILLABLE = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
FLAGS = {"SECCOMP_FILTER_FLAG_LOG": 1 << 1, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2, TSYNC: 0, WAIT_KILLABLE: 1 << 5}
NEW_LISTENER = 1 << 3

ALL = (1 << 64) - 1

OPERATORS = (
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
)  # fmt: skip


class Profile:
    """A validated `linux.seccomp`: names, actions and conditions as they were written, actions as numbers."""

    __slots__ = ("architectures", "default", "flags", "notify", "permissive", "rules")

    def __init__(self, seccomp: "dict[str, Any]", arch: str) -> None:
        action = _text(seccomp.get("defaultAction"), "defaultAction")
        self.default: Final = _action(action, seccomp.get("defaultErrnoRet"), "defaultAction", "defaultErrnoRet")
        if self.default == NOTIFY:
            raise SpecError("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default action")
        self.permissive = action in PERMISSIVE
        self.architectures = _architectures(_array(seccomp, "architectures", ""), arch)
        self.rules: list[tuple[str, int, tuple[tuple[Condition, ...], ...]]] = []
        for index, entry in enumerate(_array(seccomp, "syscalls", "")):
            self._add(entry, f"syscalls[{index}]")
        self.notify = any(rule[1] == NOTIFY for rule in self.rules)
        self.flags = _flags(_array(seccomp, "flags", ""), self.notify)
        _check_listener(seccomp, self.notify)

    def _add(self, entry: object, where: str) -> None:
        """One entry of `syscalls`: each alternative of its conditions is a rule for each of its names."""
        if not isinstance(entry, dict):
            raise SpecError(f"linux.seccomp.{where}: must be an object")
        names = _array(entry, "names", where + ".")
        if not names:
            raise SpecError(f"linux.seccomp.{where}.names: must name at least one system call")
        action = _action(entry.get("action"), entry.get("errnoRet"), f"{where}.action", f"{where}.errnoRet")
        conditions = [
            _condition(argument, f"{where}.args[{index}]")
            for index, argument in enumerate(_array(entry, "args", where + "."))
        ]
        alternatives: tuple[tuple[Condition, ...], ...] = (tuple(sorted(conditions)),)
        if len({condition[0] for condition in conditions}) < len(conditions):
            alternatives = tuple((condition,) for condition in conditions)
        for entry in names:
            name = _text(entry, f"{where}.names")
            if not name:
                raise SpecError(f"linux.seccomp.{where}.names: a name is empty")
            if action == NOTIFY and name == "write":
                # The listener's number is written before the agent is there to answer (runc refuses it, too).
                raise SpecError(f"linux.seccomp.{where}: SCMP_ACT_NOTIFY cannot be used for write")
            self.rules.append((name, action, alternatives))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"linux.seccomp.{where}: must be a string")
    return value


def _array(owner: "dict[str, Any]", key: str, where: str) -> "list[object]":
    value = owner.get(key)
    if value is not None and not isinstance(value, list):
        raise SpecError(f"linux.seccomp.{where}{key}: must be an array")
    return value or []


def _number(value: object, limit: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise SpecError(f"linux.seccomp.{where}: must be a number from 0 to {limit}")
    return value


def _action(name: object, errno: object, where: str, where_errno: str) -> int:
    """SECCOMP_RET_* with its data; the spec wants an error where the action cannot carry an errno."""
    name = _text(name, where)
    if name not in ACTIONS:
        raise SpecError(f"linux.seccomp.{where}: unknown action {name!r}")
    if name in WITH_ERRNO:
        return ACTIONS[name] | (EPERM if errno is None else _number(errno, 0xFFFF, where_errno))
    if errno is not None:
        raise SpecError(f"linux.seccomp.{where_errno}: {name} does not return an errno")
    return ACTIONS[name]


def _architectures(names: "list[object]", arch: str) -> "tuple[str, ...]":
    """Those of the listed ones that a kernel on `arch` can see, the native one first and always."""
    if arch not in NATIVE:
        raise UnsupportedError(f"linux.seccomp: no table of system calls for {arch}")
    here = [name for family in FAMILIES.values() for name in family]
    for name in names:
        text = _text(name, "architectures")
        if text not in here and text.removeprefix("SCMP_ARCH_") not in ELSEWHERE:
            raise SpecError(f"linux.seccomp.architectures: unknown architecture {text!r}")
    return tuple(name for name in FAMILIES[arch] if name in names or name == NATIVE[arch])


def _condition(entry: object, where: str) -> "Condition":
    if not isinstance(entry, dict):
        raise SpecError(f"linux.seccomp.{where}: must be an object")
    argument = _number(entry.get("index"), 5, f"{where}.index")
    operator = _text(entry.get("op"), f"{where}.op")
    if operator not in OPERATORS:
        raise SpecError(f"linux.seccomp.{where}.op: unknown operator {operator!r}")
    value = _number(entry.get("value"), ALL, f"{where}.value")
    two = entry.get("valueTwo")
    second = 0 if two is None else _number(two, ALL, f"{where}.valueTwo")
    if operator == "SCMP_CMP_MASKED_EQ":
        return (argument, operator, second, value)
    return (argument, operator, value, ALL)


def _flags(names: "list[object]", notify: bool) -> int:
    """Flags of seccomp(2).

    TSYNC is accepted and dropped as in runc: whoever loads the filter has one thread, and the kernel refuses it
    together with a listener.  WAIT_KILLABLE_RECV is EINVAL without a listener, and means nothing then.
    """
    flags = NEW_LISTENER if notify else 0
    for name in names:
        if _text(name, "flags") not in FLAGS:
            raise SpecError(f"linux.seccomp.flags: unknown flag {name!r}")
        if notify or name != WAIT_KILLABLE:
            flags |= FLAGS[str(name)]
    return flags


def _check_listener(seccomp: "dict[str, Any]", notify: bool) -> None:
    path = _text(seccomp.get("listenerPath") or "", "listenerPath")
    metadata = _text(seccomp.get("listenerMetadata") or "", "listenerMetadata")
    if metadata and not path:
        raise SpecError("linux.seccomp.listenerMetadata: must not be set without listenerPath")
    if notify and not path:
        raise SpecError("linux.seccomp.listenerPath: must be set, because a rule's action is SCMP_ACT_NOTIFY")
