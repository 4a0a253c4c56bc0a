"""Device rules as a program, against a straightforward model of what they mean."""

import random
import struct
from typing import Any

import pytest

from runtime.cgroups import device_program, devices
from runtime.errors import SpecError, UnsupportedError
from tests.helpers import ebpf

Rule = dict[str, Any]

ALWAYS = [
    *({"allow": True, "type": kind, "access": "m"} for kind in "cb"),
    *({"allow": True, "type": "c", "major": 1, "minor": minor} for minor in (3, 5, 7, 8, 9)),
    *({"allow": True, "type": "c", "major": 5, "minor": minor} for minor in (0, 1, 2)),
    {"allow": True, "type": "c", "major": 136},
]


def context(kind: str, major: int, minor: int, access: str) -> bytes:
    """struct bpf_cgroup_dev_ctx"""
    mask = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    return struct.pack("=III", mask << 16 | {"b": 1, "c": 2}[kind], major, minor)


def model(rules: list[Rule], kind: str, major: int, minor: int, access: str) -> bool:
    """Letter by letter, the last rule that speaks of it; as slow and plain as can be."""
    matching = []
    for rule in [{"allow": False}, *rules, *ALWAYS]:
        if rule.get("type") in (None, "", "a"):
            matching = [(rule["allow"], "rwm")]
        elif rule["type"] == kind and all(
            rule.get(key) in (None, -1, number) for key, number in (("major", major), ("minor", minor))
        ):
            matching.append((rule["allow"], rule.get("access") or "rwm"))
    if not access:
        for allow, letters in reversed(matching):
            if allow or set(letters) == set("rwm"):
                return bool(allow)
    return all(next(allow for allow, letters in reversed(matching) if letter in letters) for letter in access)


def allowed(rules: list[Rule], kind: str, major: int, minor: int, access: str) -> bool:
    return bool(ebpf.run(device_program.assemble(rules), context(kind, major, minor, access)))


DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "type": "a"}


@pytest.mark.parametrize(
    ("rules", "device", "access", "answer"),
    [
        ([DENY_ALL], ("c", 1, 3), "rw", True),
        ([DENY_ALL], ("c", 1, 5), "rwm", True),
        ([DENY_ALL], ("c", 136, 12), "rw", True),
        ([DENY_ALL], ("c", 10, 229), "r", False),
        ([DENY_ALL], ("c", 10, 229), "m", True),
        ([DENY_ALL], ("b", 8, 0), "m", True),
        ([DENY_ALL], ("b", 8, 0), "mr", False),
        ([DENY_ALL], ("c", 10, 229), "", True),
        ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229}], ("c", 10, 229), "rw", True),
        ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229}], ("b", 10, 229), "rw", False),
        ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": -1, "access": "r"}], ("c", 10, 1), "r", True),
        ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": -1, "access": "r"}], ("c", 10, 1), "rw", False),
        ([{"allow": True, "type": "a"}], ("b", 8, 0), "rwm", True),
        ([ALLOW_ALL, {"allow": False, "type": "b", "major": 8, "minor": 0}], ("b", 8, 0), "r", False),
        ([ALLOW_ALL, {"allow": False, "type": "b", "major": 8, "minor": 0}], ("b", 8, 1), "r", True),
        # What runc's and crun's programs let through, since neither rule alone denies all of it.
        (
            [{"allow": True, "type": "a"}, {"allow": False, "type": "b", "major": 8, "access": "w"}],
            ("b", 8, 0), "rw", False,
        ),
        ([{"allow": True, "type": "b", "major": 8}, DENY_ALL], ("b", 8, 0), "r", False),
        ([], ("b", 8, 0), "r", False),
    ],
)  # fmt: skip
def test_what_is_allowed(rules: list[Rule], device: tuple[str, int, int], access: str, answer: bool) -> None:
    assert allowed(rules, *device, access) is answer
    assert model(rules, *device, access) is answer


def random_rule(chance: random.Random) -> Rule:
    rule: Rule = {"allow": chance.random() < 0.5}
    kind = chance.choice(["a", "", "c", "c", "c", "c", "b", "b", "b"])
    if kind or chance.random() < 0.5:
        rule["type"] = kind
    for key in ("major", "minor"):
        if chance.random() < 0.8:
            rule[key] = chance.choice([-1, 0, 1, 5, 8, 136, 4095])
    if chance.random() < 0.8:
        rule["access"] = "".join(chance.sample("rwm", chance.randint(0, 3)))
    return rule


@pytest.mark.parametrize("seed", range(60))
def test_the_program_means_what_the_model_says(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        rules = [random_rule(chance) for _ in range(chance.randint(0, 7))]
        program = device_program.assemble(rules)
        assert ebpf.reachable(program) == set(range(len(program) // 8)), rules
        for _ in range(60):
            device = (chance.choice("bc"), chance.choice([0, 1, 5, 8, 136, 4095]), chance.choice([0, 1, 3, 5, 8, 9]))
            access = "".join(chance.sample("rwm", chance.randint(0, 3)))
            got = bool(ebpf.run(program, context(*device, access)))
            assert got is model(rules, *device, access), (rules, device, access)


def test_a_number_above_two_to_the_31_is_not_negative() -> None:
    rules = [{"allow": True, "type": "c", "major": 0xFFFFFFFF, "minor": 0}]
    assert allowed(rules, "c", 0xFFFFFFFF, 0, "r")
    assert not allowed(rules, "c", 0x7FFFFFFF, 0, "r")


@pytest.mark.parametrize("number", [1 << 32, 1 << 62, -2])
def test_no_device_has_such_a_number(number: int) -> None:
    with pytest.raises(SpecError, match=r"devices\[0\]\.major"):
        device_program.assemble([{"allow": True, "type": "c", "major": number}])


def test_a_program_is_bounded() -> None:
    rules = [{"allow": True, "type": "c", "major": n % 4096, "minor": n, "access": "r"} for n in range(9000)]
    with pytest.raises(UnsupportedError, match="too many"):
        device_program.assemble(rules)


def test_the_program_of_the_default_set_is_the_one_that_is_kept() -> None:
    assert device_program.assemble([DENY_ALL]) == devices.DEFAULT_PROGRAM
