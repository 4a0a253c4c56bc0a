"""Device rules as a BPF_PROG_TYPE_CGROUP_DEVICE program: rules in, struct bpf_insn[] out, and nothing else.

cgroup v2 has no files for devices (cgroup-v2.rst, "Device controller"); the kernel asks the program for each mknod(2)
and open(2) of a node, with a struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.

Meaning: of the rules that match the device, the last one that speaks of an access (r, w or m) decides that access;
without one the last "all devices" rule does, which also makes all rules before it void, as v1 has it; without such
a rule everything is denied (runc).  What is asked is allowed if all of it is.  Where nothing is asked (access(2) with
F_OK) any rule that allows the device something says yes, and one that denies it everything says no.
"""

from _struct import pack

from ..errors import UnsupportedError
from .devices import check, with_defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .devices import Rule

MAX_INSTRUCTIONS = 1 << 16
"""Far below the kernel's million; more than four thousand rules."""
ACCESS = {"m": 1, "r": 2, "w": 4}
ALL = 7
BLOCK, CHARACTER = 1, 2

# linux/bpf_common.h and linux/bpf.h; the 32-bit forms, as all numbers here are u32.
_LOAD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE, _MOVE_REGISTER = 0xB4, 0xBC  # BPF_ALU | BPF_MOV
_AND, _SHIFT_RIGHT = 0x54, 0x74
_JUMP = 0x05
_JUMP_UNEQUAL, _JUMP_BITS = 0x56, 0x46  # BPF_JMP32 | BPF_JNE, BPF_JSET
_EXIT = 0x95
# Registers: the answer, the context, what is left to decide, and the device.
_ANSWER, _CONTEXT, _TYPE, _LEFT, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5


def assemble(rules: "list[Rule]") -> bytes:
    """The program for linux.resources.devices, with what every container may use laid on top.

    Raises SpecError for numbers that do not fit, UnsupportedError for more rules than a program can hold.
    """
    check(rules)
    default, rest = _effective(with_defaults(rules))
    code = [
        _instruction(_LOAD, _TYPE, _CONTEXT, 0),
        _instruction(_MOVE_REGISTER, _LEFT, _TYPE),
        _instruction(_SHIFT_RIGHT, _LEFT, value=16),
        _instruction(_AND, _TYPE, value=0xFFFF),
        _instruction(_LOAD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD, _MINOR, _CONTEXT, 8),
    ]
    for rule in reversed(rest):
        code += _block(rule)
    code += _answer(default)
    if len(code) > MAX_INSTRUCTIONS:
        raise UnsupportedError(f"linux.resources.devices: {len(rest)} rules are too many for a program")
    return b"".join(code)


def _effective(rules: "list[Rule]") -> "tuple[bool, list[Rule]]":
    """What holds for devices that no rule matches, and the rules after it."""
    default, rest = False, list(rules)
    for index, rule in enumerate(rules):
        if (rule.get("type") or "a") == "a":
            default, rest = bool(rule.get("allow")), rules[index + 1 :]
    return default, rest


def _block(rule: "Rule") -> "list[bytes]":
    """One rule: jumps to the next where it does not match, and to an answer where it is the last word."""
    access = access_mask(rule)
    allow = bool(rule.get("allow"))
    tests = [(_TYPE, BLOCK if rule["type"] == "b" else CHARACTER)]
    for register, key in ((_MAJOR, "major"), (_MINOR, "minor")):
        value = rule.get(key)
        if value is not None and value >= 0:
            tests.append((register, value))
    decision = _decision(allow, access)
    length = len(tests) + len(decision)
    return [
        *[_instruction(_JUMP_UNEQUAL, register, 0, length - n - 1, value) for n, (register, value) in enumerate(tests)],
        *decision,
    ]


def _decision(allow: bool, access: int) -> "list[bytes]":
    if access == ALL:
        return _answer(allow)
    if allow:
        take = _instruction(_AND, _LEFT, value=ALL & ~access)
        return [take, _instruction(_JUMP_UNEQUAL, _LEFT, 0, 2, 0), *_answer(True)]
    return [_instruction(_JUMP_BITS, _LEFT, 0, 1, access), _instruction(_JUMP, 0, 0, 2), *_answer(False)]


def _answer(allow: bool) -> "list[bytes]":
    return [_instruction(_MOVE, _ANSWER, value=int(allow)), _instruction(_EXIT)]


def access_mask(rule: "Rule") -> int:
    mask = 0
    for letter in rule.get("access") or "rwm":
        mask |= ACCESS[letter]
    return mask


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """struct bpf_insn, as little-endian machines lay out its two registers; both of ours are."""
    return pack("<BBhI", code, target | source << 4, offset, value)
