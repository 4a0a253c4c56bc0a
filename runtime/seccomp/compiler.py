"""Compiles `linux.seccomp` to classic BPF: an interval tree over system call numbers, arguments checked at its leaves.

It owns what a profile means; that is what libseccomp makes of it when runc calls it, so that a profile written for
those means the same here.  It refuses rules that contradict each other; document.py refuses what is malformed.

- Architectures that are not listed are killed (SCMP_ACT_KILL, libseccomp's bad architecture action), the native one is
  always listed.  x86_64 without x32 kills numbers with bit 30, except -1, with which a tracer skips a call.
- A rule whose action is the default's is dropped, and so are names that no architecture knows.
- Two conditions on one argument in one rule make each condition a rule of its own (runc, seccomp_linux.go).
- The first unconditional rule of a call beats everything else that is said of the call.  Among conditional rules of
  different actions the more specific is asked first: see _ordered().
- Numbers above the highest one that the profile names answer ENOSYS if the default action is not permissive: they are
  newer than the profile, and programs handle ENOSYS but not EPERM (runc, patchbpf/enosys_linux.go).

struct seccomp_data, offsets in bytes: nr 0, arch 4, instruction pointer 8, six arguments of 8 from 16.
"""

from sys import byteorder

from ..errors import SpecError
from . import bpf, tables
from .document import ALL, ERRNO, KILL_THREAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .document import Condition, Profile

    # What happens to a call: a value to return, or (conditions, value) in the order in which they are asked.
    Rules = tuple[tuple[tuple[Condition, ...], int], ...]
    Treatment = int | Rules

NR, ARCH, ARGUMENTS = 0, 4, 16

ENOSYS = ERRNO | 38

# The table, AUDIT_ARCH_* of linux/audit.h and the width of arguments.  libseccomp compares 32 bits for x32.
MACHINES = {
    "SCMP_ARCH_X86_64": ("x86_64", 0xC000003E, 64),
    "SCMP_ARCH_X32": ("x32", 0xC000003E, 32),
    "SCMP_ARCH_X86": ("i386", 0x40000003, 32),
    "SCMP_ARCH_AARCH64": ("aarch64", 0xC00000B7, 64),
    "SCMP_ARCH_ARM": ("arm", 0x40000028, 32),
}
X32_BIT = 1 << 30
END = 1 << 32
WORD = (1 << 32) - 1

# Which conditions libseccomp asks first when several rules of one call could match.
PRECEDENCE = {
    "SCMP_CMP_EQ": 3, "SCMP_CMP_NE": 3, "SCMP_CMP_MASKED_EQ": 3,
    "SCMP_CMP_LE": 2, "SCMP_CMP_LT": 2, "SCMP_CMP_GE": 1, "SCMP_CMP_GT": 1,
}  # fmt: skip

OPPOSITE = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}


def translate(profile: "Profile") -> bytes:
    """struct sock_filter[] for a profile: the architecture first, then one tree for each."""
    assembler = bpf.Assembler()
    sections: dict[int, list[str]] = {}
    for architecture in profile.architectures:
        sections.setdefault(MACHINES[architecture][1], []).append(architecture)
    starts = {audit: _section(assembler, profile, sections[audit]) for audit in reversed(sections)}
    label = assembler.answer(KILL_THREAD)
    for audit in reversed(sections):
        label = assembler.jump(bpf.JEQ, audit, starts[audit], label)
    assembler.load(ARCH, label)
    return assembler.program()


def _section(assembler: bpf.Assembler, profile: "Profile", architectures: "list[str]") -> int:
    """The tree for one AUDIT_ARCH_*; x86_64 and x32 share one and differ by bit 30 of the number."""
    treatments: dict[int, tuple[Treatment, int]] = {}
    highest: dict[int, int] = {}
    for architecture in architectures:
        name, _, width = MACHINES[architecture]
        bit = X32_BIT if name == "x32" else 0
        calls, top = _calls(profile, name, width)
        treatments.update({number | bit: (treatment, width) for number, treatment in calls.items()})
        if top and not profile.permissive:
            highest[bit] = top | bit
    x86_64 = "SCMP_ARCH_X86_64" in architectures
    base = _base(profile, x86_64, "SCMP_ARCH_X32" in architectures)
    intervals = _newer(_overlaid(base, treatments), highest, x86_64)
    return assembler.load(NR, bpf.search(assembler, intervals, _Leaves(assembler, profile.default)))


def _base(profile: "Profile", x86_64: bool, x32: bool) -> "list[tuple[int, object]]":
    if x86_64 and not x32:
        return [(0, profile.default), (X32_BIT, KILL_THREAD), (END - 1, profile.default)]
    return [(0, profile.default)]


def _overlaid(
    base: "list[tuple[int, object]]", treatments: "dict[int, tuple[Treatment, int]]"
) -> "list[tuple[int, object]]":
    """`base` with single numbers treated differently.  No call of any table has a number where a base starts anew."""
    points: dict[int, object] = {}
    current = base[0][1]
    for number in sorted(treatments):
        treatment, width = treatments[number]
        points[number] = treatment if isinstance(treatment, int) else (treatment, width)
        if number + 1 not in treatments:
            points[number + 1] = current
    return bpf.merged(sorted({**dict(base), **points}.items()))


def _newer(
    intervals: "list[tuple[int, object]]", highest: "dict[int, int]", x86_64: bool
) -> "list[tuple[int, object]]":
    """ENOSYS above the highest known number; on x86_64 for each value of bit 30 on its own, as runc's stub does."""
    if not x86_64:
        regions = [(highest[0] + 1, END)] if highest else []
    else:
        regions = [(highest[0] + 1, X32_BIT), (2 * X32_BIT, 3 * X32_BIT)] if 0 in highest else []
        regions += [(highest[X32_BIT] + 1, 2 * X32_BIT), (3 * X32_BIT, END)] if X32_BIT in highest else []
    for start, end in regions:
        after = [interval for interval in intervals if interval[0] <= end][-1][1] if end < END else None
        inside = [interval for interval in intervals if not start <= interval[0] < end]
        inside.append((start, ENOSYS))
        if end < END and end not in [interval[0] for interval in inside]:
            inside.append((end, after))
        intervals = sorted(inside, key=_start)
    return bpf.merged(intervals)


def _start(interval: "tuple[int, object]") -> int:
    return interval[0]


def _calls(profile: "Profile", name: str, width: int) -> "tuple[dict[int, Treatment], int]":
    """What happens to each call of an architecture, and the highest number that the profile names."""
    numbers = tables.numbers(name)
    behind = tables.multiplexed() if name == "i386" else {}
    found: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    highest = 0
    for call, action, alternatives in profile.rules:
        number = numbers.get(call)
        if number is not None and call not in behind and number > highest:
            highest = number
        if action == profile.default:
            continue
        for alternative in alternatives:
            conditions = _narrowed(alternative, width)
            if call in behind:
                multiplexer, which = behind[call]
                rest = tuple(condition for condition in conditions if condition[0] != 0)
                found.setdefault(multiplexer, []).append((((0, "SCMP_CMP_EQ", which, WORD), *rest), action))
            if number is not None:
                found.setdefault(number, []).append((conditions, action))
    return {number: _settled(rules, width) for number, rules in found.items()}, highest


def _narrowed(conditions: "tuple[Condition, ...]", width: int) -> "tuple[Condition, ...]":
    """Conditions as an architecture of that width sees them; a mask of nothing is no condition."""
    limit = ALL if width == 64 else WORD
    return tuple([(c[0], c[1], c[2] & c[3] & limit, c[3] & limit) for c in conditions if c[3] & limit])


def _settled(rules: "list[tuple[tuple[Condition, ...], int]]", width: int) -> "Treatment":
    """Contradictions between rules of one call resolved: see the module's text."""
    first: dict[tuple[Condition, ...], int] = {}
    for conditions, action in rules:
        if not conditions:
            return action
        if first.setdefault(conditions, action) != action:
            raise SpecError("linux.seccomp.syscalls: two rules with the same conditions have different actions")
    if len(set(first.values())) == 1:
        return tuple(first.items())
    return _ordered(first, width)


def _ordered(rules: "dict[tuple[Condition, ...], int]", width: int) -> "Rules":
    """Rules of different actions in the order in which libseccomp's decision tree comes upon them.

    Rules that begin with the same comparisons share a branch; within a branch a rule that ends there is first, then
    higher arguments before lower ones, equality before less before greater, the tighter bound before the wider.
    """
    top = _Branch((), ())
    for conditions, action in rules.items():
        branch = top
        for comparison, rank in _comparisons(conditions, width):
            branch = branch.descend(comparison, rank)
        branch.rules.append((conditions, action))
    return tuple(top.flat())


def _comparisons(conditions: "tuple[Condition, ...]", width: int) -> "list[tuple[tuple[int, ...], tuple[int, ...]]]":
    """Word by word, high ones first: what is compared with what, and the rank among its neighbours."""
    result: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for argument, operator, value, mask in conditions:
        precedence = PRECEDENCE[operator]
        kind = 0 if operator == "SCMP_CMP_MASKED_EQ" else 1 if precedence == 3 else 2
        for shift in (32, 0) if width == 64 else (0,):
            word = (value >> shift) & WORD
            if kind == 2 and shift == 0:
                kind = 3 if operator in ("SCMP_CMP_GT", "SCMP_CMP_LE") else 4
            place = argument * 2 + (shift == 32)
            rank = (place, precedence, -word if precedence == 2 else word)
            result.append(((place, kind, word, (mask >> shift) & WORD), rank))
    return result


class _Branch:
    __slots__ = ("branches", "comparison", "rank", "rules")

    def __init__(self, comparison: "tuple[int, ...]", rank: "tuple[int, ...]") -> None:
        self.comparison = comparison
        self.rank = rank
        self.rules: list[tuple[tuple[Condition, ...], int]] = []
        self.branches: list[_Branch] = []

    def descend(self, comparison: "tuple[int, ...]", rank: "tuple[int, ...]") -> "_Branch":
        """The branch for that comparison; a new one comes after those of a higher or the same rank."""
        place = 0
        for branch in self.branches:
            if branch.comparison == comparison:
                return branch
            if branch.rank < rank:
                break
            place += 1
        self.branches.insert(place, _Branch(comparison, rank))
        return self.branches[place]

    def flat(self) -> "list[tuple[tuple[Condition, ...], int]]":
        return [*self.rules, *[rule for branch in self.branches for rule in branch.flat()]]


class _Leaves:
    """Emits the argument checks of a call; equal ones are emitted once."""

    __slots__ = ("assembler", "default", "done")

    def __init__(self, assembler: bpf.Assembler, default: int) -> None:
        self.assembler = assembler
        self.default = default
        self.done: dict[object, int] = {}

    def __call__(self, treatment: "Any") -> int:
        if treatment not in self.done:
            rules, width = treatment
            emit = self._ranges if _is_ranges(rules) else self._chain
            self.done[treatment] = emit(rules, width)
        return self.done[treatment]

    def _chain(self, rules: "Rules", width: int) -> int:
        """One rule after the other, the first that matches decides."""
        label = self.assembler.answer(self.default)
        for conditions, action in reversed(rules):
            no = label
            label = self.assembler.answer(action)
            for condition in reversed(conditions):
                label = self._condition(condition, width, label, no)
        return label

    def _condition(self, condition: "Condition", width: int, yes: int, no: int) -> int:
        """The kernel hands over 64 bits, BPF compares 32: the high word first, where there is one to compare."""
        argument, operator, value, mask = condition
        if operator in OPPOSITE:
            operator, yes, no = OPPOSITE[operator], no, yes
        low, high = _offsets(argument)
        if operator in ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"):
            label = self._equal(low, value & WORD, mask & WORD, yes, no) if mask & WORD else yes
            return self._equal(high, value >> 32, mask >> 32, label, no) if mask >> 32 else label
        operation = bpf.JGT if operator == "SCMP_CMP_GT" else bpf.JGE
        label = self.assembler.load(low, self.assembler.jump(operation, value & WORD, yes, no))
        if width == 32:
            return label
        label = self.assembler.jump(bpf.JEQ, value >> 32, label, no)
        return self.assembler.load(high, self.assembler.jump(bpf.JGT, value >> 32, yes, label))

    def _equal(self, offset: int, value: int, mask: int, yes: int, no: int) -> int:
        if value == 0 and mask != WORD:
            label = self.assembler.jump(bpf.JSET, mask, no, yes)
        else:
            label = self.assembler.jump(bpf.JEQ, value, yes, no)
            if mask != WORD:
                label = self.assembler.mask(mask, label)
        return self.assembler.load(offset, label)

    def _ranges(self, rules: "Rules", width: int) -> int:
        """All rules look at one argument: a tree over its values, first the high words, then the low ones."""
        intervals = _valued(rules, self.default, width)
        low, high = _offsets(rules[0][0][0][0])
        if width == 32:
            return self.assembler.load(low, bpf.search(self.assembler, intervals, self))
        words: dict[int, list[tuple[int, object]]] = {}
        for start, treatment in intervals:
            words.setdefault(start >> 32, []).append((start & WORD, treatment))
        outer: list[tuple[int, object]] = []
        before: object = None
        for word in sorted(words):
            inner = words[word]
            if inner[0][0]:
                # Values of this high word below the first start belong to the interval that began before it.
                inner.insert(0, (0, before))
            before = inner[-1][1]
            outer.append((word, inner[0][1] if len(inner) == 1 else _Low(low, inner)))
            if len(inner) > 1 and word + 1 not in words:
                outer.append((word + 1, inner[-1][1]))
        outer = [interval for interval in outer if interval[0] <= WORD]
        return self.assembler.load(high, bpf.search(self.assembler, bpf.merged(outer), self._low))

    def _low(self, treatment: "Any") -> int:
        return self.assembler.load(treatment.offset, bpf.search(self.assembler, treatment.intervals, self))


class _Low:
    """A treatment that the low word decides."""

    __slots__ = ("intervals", "offset")

    def __init__(self, offset: int, intervals: "list[tuple[int, object]]") -> None:
        self.offset = offset
        self.intervals = intervals


def _is_ranges(rules: "Rules") -> bool:
    arguments = {conditions[0][0] for conditions, _ in rules}
    return len(arguments) == 1 and all(
        len(conditions) == 1 and conditions[0][1] != "SCMP_CMP_MASKED_EQ" for conditions, _ in rules
    )


def _valued(rules: "Rules", default: int, width: int) -> "list[tuple[int, object]]":
    """What is answered for which values of the one argument that `rules` are about."""
    starts = {0}
    for conditions, _ in rules:
        starts.update((conditions[0][2], conditions[0][2] + 1))
    intervals: list[tuple[int, object]] = []
    for start in sorted(starts):
        if start >> width == 0:
            matching = [action for conditions, action in rules if _holds(conditions[0], start)]
            intervals.append((start, matching[0] if matching else default))
    return bpf.merged(intervals)


def _holds(condition: "Condition", argument: int) -> bool:
    _, operator, value, _ = condition
    if operator in ("SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_LE") and argument == value:
        return True
    if operator in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        return argument > value
    if operator in ("SCMP_CMP_LT", "SCMP_CMP_LE"):
        return argument < value
    return operator == "SCMP_CMP_NE" and argument != value


def _offsets(argument: int) -> "tuple[int, int]":
    """Where the low and the high word of an argument are in struct seccomp_data."""
    offset = ARGUMENTS + 8 * argument
    return (offset, offset + 4) if byteorder == "little" else (offset + 4, offset)
