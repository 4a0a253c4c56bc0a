"""Device rules as a BPF_PROG_TYPE_CGROUP_DEVICE program: rules in, struct bpf_insn[] out, and nothing else.

cgroup v2 has no files for devices (cgroup-v2.rst, "Device controller"); the kernel asks the program for each mknod(2)
and open(2) of a node, with a struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.

Meaning: of the rules that match the device, the last one that speaks of an access (r, w or m) decides that access;
without one the last "all devices" rule does, which also makes all rules before it void, as v1 has it; without such
a rule everything is denied (runc).  What is asked is allowed if all of it is.  Where nothing is asked (access(2) with
F_OK) any rule that allows the device something says yes, and one that denies it everything says no.

The kernel takes three to four microseconds to check and translate an instruction, so neighbours share their tests: a
tree of type, major and minor.  It is put together from the end backwards, so that every jump's target is already known.
"""

from _struct import pack

from ..errors import UnsupportedError
from .devices import check, with_defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .devices import Rule

MAX_INSTRUCTIONS = 32000
"""As far as a jump's 16 bits reach; some ten thousand rules."""
ACCESS = {"m": 1, "r": 2, "w": 4}
ALL = 7
TYPES = {"b": 1, "c": 2}

# linux/bpf_common.h and linux/bpf.h; the 32-bit forms, as all numbers here are u32.
_LOAD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE, _MOVE_REGISTER = 0xB4, 0xBC  # BPF_ALU | BPF_MOV
_AND, _SHIFT_RIGHT = 0x54, 0x74
_JUMP = 0x05
_JUMP_EQUAL, _JUMP_UNEQUAL, _JUMP_BITS = 0x16, 0x56, 0x46  # BPF_JMP32 | BPF_JEQ, BPF_JNE, BPF_JSET
_EXIT = 0x95
# Registers: the answer, the context, the device's type, what is left to decide, and the device's number.
_ANSWER, _CONTEXT, _TYPE, _LEFT, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5


class _Node:
    """A rule in numbers; `kind`, `major` and `minor` are None for any."""

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, rule: "Rule") -> None:
        self.allow = bool(rule.get("allow"))
        self.kind: int | None = TYPES[rule["type"]]
        self.major = _number(rule.get("major"))
        self.minor = _number(rule.get("minor"))
        self.access = 0
        for letter in rule.get("access") or "rwm":
            self.access |= ACCESS[letter]

    def place(self) -> "tuple[int | None, int | None, int | None]":
        return self.kind, self.major, self.minor

    def twin_of(self, other: "_Node") -> bool:
        """Whether the two differ in nothing but the type: then together they are about any device."""
        ours = (self.allow, self.major, self.minor, self.access)
        return ours == (other.allow, other.major, other.minor, other.access) and {self.kind, other.kind} == {1, 2}


class _Code:
    """Instructions, the last one first; a label is the index of one.  Each runs on into the one emitted before it."""

    __slots__ = ("code", "labels")

    def __init__(self, default: bool, both: bool) -> None:
        self.code: list[tuple[int, int, int, int, int]] = []
        self.labels: dict[bool, int] = {}
        for allow in (not default, default) if both else (default,):
            self.emit(_EXIT)
            self.labels[allow] = self.emit(_MOVE, _ANSWER, value=int(allow))

    def emit(self, code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> int:
        self.code.append((code, target, source, offset, value))
        return len(self.code) - 1

    def jump(self, code: int, register: int, value: int, label: int) -> int:
        return self.emit(code, register, 0, len(self.code) - 1 - label, value)

    def here(self) -> int:
        return len(self.code) - 1

    def program(self) -> bytes:
        """struct bpf_insn[], as little-endian machines lay out the two registers; both of ours are."""
        return b"".join([pack("<BBhI", c, t | s << 4, offset, value) for c, t, s, offset, value in reversed(self.code)])


def assemble(rules: "list[Rule]") -> bytes:
    """The program for linux.resources.devices, with what every container may use laid on top.

    Raises SpecError for numbers that do not fit, UnsupportedError for more rules than a program can hold.
    """
    check(rules)
    default, rest = _effective(with_defaults(rules))
    nodes = _merged(_in_force(list(map(_Node, rest))))
    if nodes and nodes[0].place() == (None, None, None) and nodes[0].access == ALL:
        default, nodes = nodes[0].allow, nodes[1:]
    code = _Code(default, any(node.allow != default for node in nodes))
    for group in _runs(nodes, "kind"):
        _group(code, group)
    for register, offset in ((_MINOR, 8), (_MAJOR, 4)):
        code.emit(_LOAD, register, _CONTEXT, offset)
    code.emit(_AND, _TYPE, value=0xFFFF)
    code.emit(_SHIFT_RIGHT, _LEFT, value=16)
    code.emit(_MOVE_REGISTER, _LEFT, _TYPE)
    code.emit(_LOAD, _TYPE, _CONTEXT, 0)
    if len(code.code) > MAX_INSTRUCTIONS:
        raise UnsupportedError(f"linux.resources.devices: {len(rules)} rules are too many for a program")
    return code.program()


def _effective(rules: "list[Rule]") -> "tuple[bool, list[Rule]]":
    """What holds for devices that no rule matches, and the rules after it."""
    default, rest = False, list(rules)
    for index, rule in enumerate(rules):
        if (rule.get("type") or "a") == "a":
            default, rest = bool(rule.get("allow")), rules[index + 1 :]
    return default, rest


def _in_force(nodes: "list[_Node]") -> "list[_Node]":
    """Without those that a later rule about all access makes void: the verifier refuses what nothing leads to."""
    found: list[_Node] = []
    covered: set[tuple[int | None, int | None, int | None]] = set()
    for node in reversed(nodes):
        if covered.isdisjoint([(node.kind, a, i) for a in (node.major, None) for i in (node.minor, None)]):
            found.append(node)
            if node.access == ALL:
                covered.add(node.place())
    return found[::-1]


def _merged(nodes: "list[_Node]") -> "list[_Node]":
    found: list[_Node] = []
    for node in nodes:
        if found and node.twin_of(found[-1]):
            found[-1].kind = None
        else:
            found.append(node)
    return found


def _runs(nodes: "list[_Node]", field: str) -> "list[list[_Node]]":
    """Neighbours with the same value in `field`."""
    runs: list[list[_Node]] = []
    for node in nodes:
        if runs and getattr(runs[-1][-1], field) == getattr(node, field):
            runs[-1].append(node)
        else:
            runs.append([node])
    return runs


def _group(code: _Code, nodes: "list[_Node]") -> None:
    """Rules of one type: those of lower rank first, since they stand further back."""
    behind = code.here()
    for run in _runs(nodes, "major"):
        _run(code, run)
    if nodes[0].kind is not None:
        code.jump(_JUMP_UNEQUAL, _TYPE, nodes[0].kind, behind)


def _run(code: _Code, nodes: "list[_Node]") -> None:
    """Rules of one type and major."""
    behind = code.here()
    for node in nodes:
        _rule(code, node)
    if nodes[0].major is not None:
        code.jump(_JUMP_UNEQUAL, _MAJOR, nodes[0].major, behind)


def _rule(code: _Code, node: _Node) -> None:
    """Decide if the minor matches and nothing is left open; else run on into the rules of lower rank."""
    behind, answer = code.here(), code.labels[node.allow]
    if node.access == ALL:
        if node.minor is None:
            code.jump(_JUMP, 0, 0, answer)
        else:
            code.jump(_JUMP_EQUAL, _MINOR, node.minor, answer)
        return
    if node.allow:
        code.jump(_JUMP_EQUAL, _LEFT, 0, answer)
        code.emit(_AND, _LEFT, value=ALL & ~node.access)
    else:
        code.jump(_JUMP_BITS, _LEFT, node.access, answer)
    if node.minor is not None:
        code.jump(_JUMP_UNEQUAL, _MINOR, node.minor, behind)


def _number(value: "int | None") -> "int | None":
    """-1 means any."""
    return None if value is None or value < 0 else value
