"""As much of an eBPF machine as device programs need: it knows nothing of rules, and checks what the verifier would."""

import struct

EXIT, LOAD, JUMP = 0x95, 0x61, 0x05


def run(program: bytes, context: bytes) -> int:
    """The program's answer; AssertionError for wild jumps, loops and unknown instructions."""
    instructions = list(struct.iter_unpack("<BBhi", program))
    registers: dict[int, int] = {1: 0}
    at = 0
    while True:
        assert 0 <= at < len(instructions), "ran off the program"
        code, pair, offset, value = instructions[at]
        target, source = pair & 15, pair >> 4
        at += 1
        if code == EXIT:
            return registers[0]
        if code == JUMP:
            assert offset >= 0
            at += offset
        elif code == LOAD:
            assert source == 1
            registers[target] = struct.unpack_from("=I", context, offset)[0]
        elif code in JUMPS:
            assert offset >= 0
            at += offset if JUMPS[code](registers[target], value & 0xFFFFFFFF) else 0
        else:
            operand = registers[source] if code & 8 else value & 0xFFFFFFFF
            registers[target] = OPERATIONS[code & ~8](registers.get(target, 0), operand) & 0xFFFFFFFF


JUMPS = {0x56: lambda a, b: a != b, 0x46: lambda a, b: bool(a & b), 0x16: lambda a, b: a == b}
OPERATIONS = {0xB4: lambda _, b: b, 0x54: lambda a, b: a & b, 0x74: lambda a, b: a >> b}


def reachable(program: bytes) -> set[int]:
    """Indices of instructions that some path reaches; the verifier refuses programs with others."""
    instructions = list(struct.iter_unpack("<BBhi", program))
    found: set[int] = set()
    todo = [0]
    while todo:
        at = todo.pop()
        if at in found:
            continue
        found.add(at)
        code, _, offset, _ = instructions[at]
        if code == EXIT:
            continue
        todo += [at + 1 + offset] if code == JUMP else [at + 1, *([at + 1 + offset] if code in JUMPS else [])]
    return found
