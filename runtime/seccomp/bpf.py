"""Classic BPF (linux/filter.h) put together from the end backwards, so that every jump's target is already known.

It owns encodings, jump distances and the search tree; it refuses to know what a system call or a profile is.

A label is the index of an instruction counted from the end of the program.  Conditional jumps reach 255
instructions; whatever is further is reached through a BPF_JA placed directly behind the jump.
"""

from _struct import pack

from ..errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAXINSNS = 4096  # BPF_MAXINSNS; seccomp(2) answers EINVAL beyond
REACH = 255

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K
JA = 0x05
JEQ = 0x15
JGT = 0x25
JGE = 0x35
JSET = 0x45


class Assembler:
    __slots__ = ("code", "returns")

    def __init__(self) -> None:
        self.code: list[tuple[int, int, int, int]] = []  # (operation, jump if true, jump if false, k), last one first
        self.returns: dict[int, int] = {}

    def program(self) -> bytes:
        """struct sock_filter[] in native byte order."""
        if len(self.code) > MAXINSNS:
            raise UnsupportedError(
                f"linux.seccomp: the filter needs {len(self.code)} instructions, the kernel takes {MAXINSNS}"
            )
        return b"".join([pack("=HBBI", *instruction) for instruction in reversed(self.code)])

    def answer(self, value: int) -> int:
        """A return; one within reach is shared, because a copy is no longer than the jump that would replace it."""
        label = self.returns.get(value, -1)
        if label < 0 or len(self.code) - label > REACH - 2:
            label = self.returns[value] = self._emit(RETURN, 0, 0, value)
        return label

    def load(self, offset: int, then: int) -> int:
        self._fall_through(then)
        return self._emit(LOAD, 0, 0, offset)

    def mask(self, value: int, then: int) -> int:
        self._fall_through(then)
        return self._emit(AND, 0, 0, value)

    def jump(self, operation: int, k: int, true: int, false: int) -> int:
        if true == false:
            return true
        distance = len(self.code) - 1
        while distance - true > REACH or distance - false > REACH:
            if distance - true > REACH:
                true = self._emit(JA, 0, 0, distance - true)
            else:
                false = self._emit(JA, 0, 0, distance - false)
            distance += 1
        return self._emit(operation, distance - true, distance - false, k)

    def _fall_through(self, label: int) -> None:
        distance = len(self.code) - 1 - label
        if distance:
            self._emit(JA, 0, 0, distance)

    def _emit(self, operation: int, true: int, false: int, k: int) -> int:
        self.code.append((operation, true, false, k))
        return len(self.code) - 1


def search(assembler: Assembler, intervals: "Sequence[tuple[int, object]]", leaf: "Callable[[object], int]") -> int:
    """A balanced tree over `intervals`, (first value, treatment) in ascending order, deciding on the accumulator.

    A treatment that is a number is the value to return; `leaf` emits any other and says where it is.
    """
    if len(intervals) == 1:
        return _leaf(assembler, intervals[0][1], leaf)
    if len(intervals) == 3 and intervals[0][1] == intervals[2][1] and intervals[2][0] == intervals[1][0] + 1:
        return _fork(assembler, JEQ, intervals[1][0], intervals[1:2], intervals[2:], leaf)
    middle = len(intervals) // 2
    return _fork(assembler, JGE, intervals[middle][0], intervals[middle:], intervals[:middle], leaf)


def _fork(
    assembler: Assembler,
    operation: int,
    k: int,
    true: "Sequence[tuple[int, object]]",
    false: "Sequence[tuple[int, object]]",
    leaf: "Callable[[object], int]",
) -> int:
    """Returns come last, that is nearest to the jump: what is emitted in between could put them out of reach."""
    labels = {}
    for side in sorted((true, false), key=_is_return):
        labels[side[0][0]] = search(assembler, side, leaf)
    return assembler.jump(operation, k, labels[true[0][0]], labels[false[0][0]])


def _is_return(intervals: "Sequence[tuple[int, object]]") -> bool:
    return len(intervals) == 1 and isinstance(intervals[0][1], int)


def _leaf(assembler: Assembler, treatment: object, leaf: "Callable[[object], int]") -> int:
    return assembler.answer(treatment) if isinstance(treatment, int) else leaf(treatment)


def merged(intervals: "Sequence[tuple[int, object]]") -> "list[tuple[int, object]]":
    """The same intervals, neighbours of equal treatment made one."""
    result: list[tuple[int, object]] = []
    for interval in intervals:
        if not result or result[-1][1] != interval[1]:
            result.append(interval)
    return result
