"""Warren's filters against libseccomp's, instruction by instruction executed on the same inputs.

libseccomp is driven as runc drives it (libcontainer/seccomp/seccomp_linux.go), the stub that runc puts before its
program (patchbpf/enosys_linux.go) is modelled here.  60 generated profiles, 1,000 with WARREN_LONG=1.

Every other profile (`plain` of generated()) has only rules that libseccomp handles well, and both programs must answer
everything alike.  The rest has rules of one call that overlap and contradict each other at will.  libseccomp 2.5 loses
some of those: its tree shares the comparison of a high word between rules, and a comparison that fails inside a branch
may skip the branch's neighbours.  There each difference must be an answer of libseccomp's that the plain reading of the
rules (`meaning`) does not allow, while Warren's is allowed; both are allowed in no more than 2 % of the profiles, where
libseccomp has lost the rule that its own order asks first.
"""

import ctypes
import os
import random
import struct
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from runtime import seccomp
from runtime.errors import SpecError
from runtime.seccomp import tables

oracle = pytest.importorskip("pyseccomp")

PROFILES = 1000 if os.environ.get("WARREN_LONG") else 60
HELPER = Path(__file__).resolve().parent.parent / "helpers" / "bpf.c"

X32 = 1 << 30
ALL = (1 << 64) - 1
MACHINES = {
    "x86_64": {"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0xC000003E, "SCMP_ARCH_X86": 0x40000003},
    "aarch64": {"SCMP_ARCH_AARCH64": 0xC00000B7, "SCMP_ARCH_ARM": 0x40000028},
}
NAMES = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X32": "x32", "SCMP_ARCH_X86": "i386",
         "SCMP_ARCH_AARCH64": "aarch64", "SCMP_ARCH_ARM": "arm"}  # fmt: skip
FOREIGN = 0x80000016  # s390x
OPERATORS = ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
             "SCMP_CMP_MASKED_EQ"]  # fmt: skip
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
ENOSYS = 0x50026
# Numbers that the headers and libseccomp 2.5 give differently: an alias, and calls newer than that libseccomp.
DIFFERENT = {"sync_file_range2"}


class Interpreter:
    def __init__(self, directory: Path) -> None:
        library = directory / "bpf.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, HELPER], check=True)
        self.run_all: Any = ctypes.CDLL(str(library)).run_all

    def run(self, program: bytes, inputs: bytes) -> "tuple[int, ...]":
        count = len(inputs) // 64
        answers = (ctypes.c_uint32 * count)()
        self.run_all(program, ctypes.c_size_t(len(program) // 8), inputs, ctypes.c_size_t(count), answers)
        return tuple(answers)


@pytest.fixture(scope="module")
def interpreter() -> Any:
    with tempfile.TemporaryDirectory() as directory:
        yield Interpreter(Path(directory))


def action(name: str, errno: "int | None") -> Any:
    number = 1 if errno is None else errno
    return {
        "SCMP_ACT_KILL": oracle.KILL, "SCMP_ACT_KILL_THREAD": oracle.KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS": oracle.KILL_PROCESS, "SCMP_ACT_TRAP": oracle.TRAP,
        "SCMP_ACT_ERRNO": oracle.ERRNO(number), "SCMP_ACT_TRACE": oracle.TRACE(number),
        "SCMP_ACT_LOG": oracle.LOG, "SCMP_ACT_ALLOW": oracle.ALLOW, "SCMP_ACT_NOTIFY": oracle.NOTIFY,
    }[name]  # fmt: skip


def condition(argument: "dict[str, Any]") -> Any:
    operator = getattr(oracle, argument["op"].removeprefix("SCMP_CMP_"))
    return oracle.Arg(argument["index"], operator, argument["value"], argument.get("valueTwo", 0))


def alternatives(rule: "dict[str, Any]") -> "list[list[dict[str, Any]]]":
    arguments = rule.get("args", [])
    if len({argument["index"] for argument in arguments}) < len(arguments):
        return [[argument] for argument in arguments]
    return [arguments]


def listed(profile: "dict[str, Any]", arch: str) -> "list[str]":
    native = next(iter(MACHINES[arch]))
    return [name for name in MACHINES[arch] if name == native or name in profile["architectures"]]


def expected(profile: "dict[str, Any]", arch: str) -> bytes:
    """libseccomp's program; OSError if it refuses the rules."""
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    wanted = oracle.SyscallFilter(default)
    for name in MACHINES[arch]:
        token = getattr(oracle.Arch, name.removeprefix("SCMP_ARCH_"))
        if name in listed(profile, arch) and not wanted.exist_arch(token):
            wanted.add_arch(token)
    if arch != "x86_64":
        wanted.remove_arch(oracle.Arch.X86_64)
    if sum(len(rule["names"]) for rule in profile["syscalls"]) > 32:
        wanted.set_attr(oracle.Attr.CTL_OPTIMIZE, 2)
    for rule in profile["syscalls"]:
        answer = action(rule["action"], rule.get("errnoRet"))
        for name in rule["names"]:
            number = oracle.resolve_syscall(oracle.Arch.NATIVE, name)
            if answer == default or number == -1:
                continue
            for arguments in alternatives(rule):
                wanted.add_rule(answer, number, *[condition(argument) for argument in arguments])
    with tempfile.TemporaryFile() as file:
        wanted.export_bpf(file)
        file.seek(0)
        return file.read()


def highest(profile: "dict[str, Any]", architecture: str) -> int:
    token = getattr(oracle.Arch, architecture.removeprefix("SCMP_ARCH_"))
    numbers = [oracle.resolve_syscall(token, name) for rule in profile["syscalls"] for name in rule["names"]]
    return int(max([0, *numbers]))


def stub(profile: "dict[str, Any]", arch: str) -> Any:
    """runc's generateEnosysStub: does a number on that AUDIT_ARCH answer ENOSYS before the filter is asked?"""
    if profile["defaultAction"] in PERMISSIVE:
        return lambda audit, number: False
    tops: dict[str, int] = {name: highest(profile, name) for name in listed(profile, arch)}

    def answers(audit: int, number: int) -> bool:
        for name, top in tops.items():
            if not top or MACHINES[arch][name] != audit:
                continue
            mode = number & X32 if name in ("SCMP_ARCH_X86_64", "SCMP_ARCH_X32") else 0
            if mode == (X32 if name == "SCMP_ARCH_X32" else 0):
                return number > top
        return False

    return answers


def pack(number: int, audit: int, *arguments: int) -> bytes:
    return struct.pack("=IIQ6Q", number, audit, 0x401000, *(arguments or (0,) * 6))


def plain(arch: str) -> bytes:
    """Every number of each architecture and 64 more, around the boundaries, and with bit 30 and bit 31."""
    result = []
    for audit in {*MACHINES[arch].values(), FOREIGN, 0x40000003}:
        for number in [*range(470 + 64), *range(512, 548 + 64), *range(0xF0000, 0xF0010)]:
            result.append(pack(number, audit, *[(number * 0x9E3779B97F4A7C15 + n) & ALL for n in range(6)]))
            result.append(pack(number, audit))
            result.append(pack(number | X32, audit))
        for edge in (X32, 2 * X32, 3 * X32, 4 * X32):
            result += [pack(number % (4 * X32), audit) for number in (edge - 2, edge - 1, edge, edge + 1)]
    return b"".join(result)


PLAIN = {arch: plain(arch) for arch in MACHINES}


def boundaries(argument: "dict[str, Any]") -> "set[int]":
    value, two = argument["value"], argument.get("valueTwo", 0)
    values = {0, 1, 2**32 - 1, 2**32, 2**63, ALL}
    for edge in (value, two, value & two, two | ~value, two & value | (~value & 0xA5A5A5A5A5A5A5A5)):
        for high in (0, 2**32, -(2**32), 2**40):
            values.update((edge + high + delta) & ALL for delta in (-1, 0, 1))
        values.update((edge & 0xFFFFFFFF, edge | (0xFFFFFFFF << 32), edge & ~0xFFFFFFFF & ALL))
    return {value & ALL for value in values}


def pointed(profile: "dict[str, Any]", arch: str, chance: random.Random) -> bytes:
    """Inputs at the boundaries of every comparison, in all combinations or 600 of them."""
    edges: dict[str, list[set[int]]] = {}
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            for argument in rule.get("args", []):
                sets = edges.setdefault(name, [{0} for _ in range(6)])
                sets[argument["index"]] |= boundaries(argument)
    result = []
    for name, sets in edges.items():
        total = 1
        for values in sets:
            total *= len(values)
        if total <= 600:
            inputs = list(product(*sets))
        else:
            ordered = [sorted(values) for values in sets]
            inputs = [tuple(chance.choice(values) for values in ordered) for _ in range(600)]
        for architecture, audit in MACHINES[arch].items():
            for number in placed(name, architecture):
                # The kernel zero-extends the arguments of 32-bit processes, but a filter must not rely on it.
                result += [pack(number, audit, *values) for values in inputs]
    return b"".join(result)


def placed(name: str, architecture: str) -> "list[int]":
    numbers = tables.numbers(NAMES[architecture])
    bit = X32 if architecture == "SCMP_ARCH_X32" else 0
    found = [numbers[name] | bit] if name in numbers else []
    if architecture == "SCMP_ARCH_X86" and name in tables.multiplexed():
        found.append(tables.multiplexed()[name][0])
    return found


def loads_number(program: bytes) -> bool:
    """False for programs of libseccomp 2.5 that compare AUDIT_ARCH_* with numbers, having forgotten to load those."""
    code = list(struct.iter_unpack("=HBBI", program))
    audits = {audit for machines in MACHINES.values() for audit in machines.values()}
    return all(
        code[at + 1 + true][0] in (0x20, 0x06) and (code[at + 1 + true][0] == 0x06 or code[at + 1 + true][3] == 0)
        for at, (operation, true, _, k) in enumerate(code)
        if operation == 0x15 and k in audits
    )


class Counts:
    def __init__(self) -> None:
        self.profiles = self.inputs = self.refused = self.broken = 0
        self.different = self.lost = self.ambiguous = 0


def holds(argument: "dict[str, Any]", width: int, arguments: "tuple[int, ...]") -> bool:
    limit = (1 << width) - 1
    got, value = arguments[argument["index"]] & limit, argument["value"] & limit
    if argument["op"] == "SCMP_CMP_MASKED_EQ":
        return bool(got & value == argument.get("valueTwo", 0) & value)
    outcomes: dict[str, bool] = {
        "SCMP_CMP_NE": got != value, "SCMP_CMP_LT": got < value, "SCMP_CMP_LE": got <= value,
        "SCMP_CMP_EQ": got == value, "SCMP_CMP_GE": got >= value, "SCMP_CMP_GT": got > value,
    }  # fmt: skip
    return outcomes[argument["op"]]


def meaning(profile: "dict[str, Any]", arch: str, audit: int, number: int, arguments: "tuple[int, ...]") -> "set[int]":
    """The plain reading: the actions of the rules that match, the default's if none does."""
    matching, default = set(), action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    for architecture in listed(profile, arch):
        if MACHINES[arch][architecture] != audit:
            continue
        width = 64 if NAMES[architecture] in ("x86_64", "aarch64") else 32
        for rule in profile["syscalls"]:
            answer = action(rule["action"], rule.get("errnoRet"))
            for name in rule["names"]:
                numbers = placed(name, architecture)
                if answer == default or number not in numbers:
                    continue
                behind = architecture == "SCMP_ARCH_X86" and tables.multiplexed().get(name, (0, 0))
                through = bool(behind and number == behind[0])
                if through and behind and arguments[0] & 0xFFFFFFFF != behind[1]:
                    continue
                for alternative in alternatives(rule):
                    asked = [one for one in alternative if not (through and one["index"] == 0)]
                    if all(holds(one, width, arguments) for one in asked):
                        matching.add(answer & 0xFFFFFFFF)
    return matching or {default & 0xFFFFFFFF}


def compare(
    interpreter: Interpreter, profile: "dict[str, Any]", arch: str, counts: Counts, seed: int, plain: bool = True
) -> None:
    """One profile; see the module's text for what `plain` means."""
    try:
        theirs = expected(profile, arch)
    except OSError:
        counts.refused += 1
        return
    if not loads_number(theirs):
        counts.broken += 1
        return
    inputs = PLAIN[arch] + pointed(profile, arch, random.Random(seed))
    newer = stub(profile, arch)
    different, ambiguous = 0, False
    ours_all = interpreter.run(seccomp.compile(profile, arch).program, inputs)
    theirs_all = interpreter.run(theirs, inputs)
    for index, (got, theirs_alone) in enumerate(zip(ours_all, theirs_all, strict=True)):
        if got == theirs_alone != ENOSYS:
            continue
        number, audit = struct.unpack_from("=II", inputs, index * 64)
        wanted = ENOSYS if newer(audit, number) else theirs_alone
        if got != wanted:
            arguments = struct.unpack_from("=6Q", inputs, index * 64 + 16)
            right = meaning(profile, arch, audit, number, arguments)
            different += 1
            ambiguous = ambiguous or (got != wanted and got in right and wanted in right)
            assert got in right and not plain, (
                f"{arch} {audit:#x} call {number:#x} {[hex(value) for value in arguments]}: {got:#x}, "
                f"libseccomp {wanted:#x}, meant {[hex(value) for value in right]}: {profile}"
            )
    counts.profiles += 1
    counts.inputs += len(inputs) // 64
    counts.different += different
    counts.lost += bool(different)
    counts.ambiguous += ambiguous


def known() -> "list[str]":
    """Names that mean the same to both sides, whichever architecture has them."""
    names = set().union(*[tables.numbers(arch) for arch in NAMES.values()]) | set(tables.multiplexed())
    return sorted(n for n in names - DIFFERENT if oracle.resolve_syscall(oracle.Arch.NATIVE, n) != -1)


KNOWN = known()
VALUES = [0, 1, 2, 3, 7, 8, 100, 0x7E020000, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 5 << 32, 2**63, ALL - 1, ALL]
ACTIONS = ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO",
           "SCMP_ACT_TRACE", "SCMP_ACT_LOG", "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"]  # fmt: skip


def generated(seed: int, arch: str, plain: bool) -> "dict[str, Any]":
    """Mostly names alone, some calls with one rule of several conditions, some with several rules."""
    chance = random.Random(seed)
    default = chance.choice([name for name in ACTIONS if name != "SCMP_ACT_NOTIFY"])
    profile: dict[str, Any] = {
        "defaultAction": default,
        "architectures": [name for name in MACHINES[arch] if chance.random() < 0.6],
        "listenerPath": "/run/agent.sock",
        "syscalls": [],
    }
    if default in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") and chance.random() < 0.5:
        profile["defaultErrnoRet"] = chance.choice([1, 13, 38])
    pool = chance.sample(KNOWN, chance.choice([8, 40, 300]))
    for _ in range(chance.choice([1, 5, 20])):
        names = chance.sample(pool, chance.randrange(1, 1 + len(pool) // 2))
        profile["syscalls"].append(rule(chance, names, []))
    for name in chance.sample(pool, min(6, len(pool))):
        same = chance.choice(ACTIONS)
        if plain:
            profile["syscalls"] += consistent(chance, name, same)
            continue
        for _ in range(chance.randrange(1, 5)):
            arguments = [argument(chance) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
            profile["syscalls"].append(rule(chance, [name], arguments, same if chance.random() < 0.85 else ""))
    chance.shuffle(profile["syscalls"])
    return profile


def consistent(chance: random.Random, name: str, same: str) -> "list[dict[str, Any]]":
    """One rule with up to four conditions, or equalities with one argument, or bounds on several, of one action."""
    if chance.random() < 0.5:
        indices = chance.sample(range(6), chance.randrange(1, 5))
        return [rule(chance, [name], [argument(chance) | {"index": index} for index in indices], same)]
    index, errno = chance.randrange(6), chance.choice([1, 38])
    made = []
    for value in chance.sample(VALUES, chance.randrange(2, 12)):
        one = rule(chance, [name], [{"index": index, "value": value, "op": "SCMP_CMP_EQ"}], same)
        made.append(
            one | {"errnoRet": errno} if "errnoRet" in one or same in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else one
        )
    return made


def rule(chance: random.Random, names: "list[str]", arguments: "list[Any]", what: str = "") -> "dict[str, Any]":
    what = what or chance.choice(ACTIONS)
    if what == "SCMP_ACT_NOTIFY" and "write" in names:
        what = "SCMP_ACT_ALLOW"
    made: dict[str, Any] = {"names": names, "action": what}
    if what in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") and chance.random() < 0.5:
        made["errnoRet"] = chance.choice([1, 2, 38, 4094])
    if arguments:
        made["args"] = arguments
    return made


def argument(chance: random.Random) -> "dict[str, Any]":
    value = chance.choice(VALUES) if chance.random() < 0.7 else chance.getrandbits(chance.choice([8, 32, 64]))
    made: dict[str, Any] = {"index": chance.randrange(6), "value": value, "op": chance.choice(OPERATORS)}
    if made["op"] == "SCMP_CMP_MASKED_EQ":
        made["valueTwo"] = chance.choice([0, value, value & -value, chance.choice(VALUES)])
    return made


def test_default_profile(interpreter: Any, capsys: Any) -> None:
    """With and without capabilities, natively alone and with all of the machine's ABIs."""
    counts = Counts()
    for arch, machines in MACHINES.items():
        for capabilities in (set(), {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYS_TIME"}):
            for architectures in ([], list(machines)):
                profile = seccomp.default_profile(capabilities, arch) | {"architectures": architectures}
                for entry in profile["syscalls"]:
                    entry["names"] = [name for name in entry["names"] if name in KNOWN]
                profile["syscalls"] = [entry for entry in profile["syscalls"] if entry["names"]]
                compare(interpreter, profile, arch, counts, 0)
    assert counts.profiles == 8
    with capsys.disabled():
        print(f"\nseccomp: default profile, {counts.profiles} variants, {counts.inputs} inputs: equal")


def test_jumps_over_more_than_255_instructions(interpreter: Any) -> None:
    """Argument checks for every call: some thousand instructions, which conditional jumps cannot span."""
    counts = Counts()
    names = [name for name in sorted(tables.numbers("x86_64")) if name in KNOWN]
    entries = [
        {"names": [name], "action": "SCMP_ACT_KILL", "args": [
            {"index": 0, "value": number << 20, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": number << 20},
            {"index": 1, "value": number, "op": OPERATORS[number % 6]},
        ]}
        for number, name in enumerate(names, 1)
    ]  # fmt: skip
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": entries}
    assert len(seccomp.compile(profile, "x86_64")) > 2000
    compare(interpreter, profile, "x86_64", counts, 0)
    assert counts.profiles == 1


def test_generated_profiles(interpreter: Any, capsys: Any) -> None:
    """Counts are printed; refused: by libseccomp, for contradictions; broken: see loads_number()."""
    counts, seed = {True: Counts(), False: Counts()}, 0
    while sum(count.profiles for count in counts.values()) < PROFILES:
        arch = ("x86_64", "x86_64", "aarch64")[seed % 3]
        plain = bool(seed % 2)
        profile = generated(seed, arch, plain)
        try:
            compare(interpreter, profile, arch, counts[plain], seed, plain)
        except SpecError as error:
            raise AssertionError(f"libseccomp takes what Warren refuses: {error}: {profile}") from error
        seed += 1
    assert counts[False].ambiguous <= max(1, counts[False].profiles // 50)
    with capsys.disabled():
        for plain, count in counts.items():
            print(f"seccomp: {'plain' if plain else 'contradictory'} profiles {vars(count)}")
