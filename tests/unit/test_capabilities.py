"""runtime/capabilities.py: names to masks and back, and docker's words for changing them."""

from pathlib import Path

import pytest

from runtime import capabilities
from runtime.errors import UsageError

HEADER = Path("/usr/include/linux/capability.h")


def test_numbers_are_the_kernel_headers() -> None:
    if not HEADER.exists():
        pytest.skip("no kernel headers")
    found = {}
    for line in HEADER.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "#define" and words[1].startswith("CAP_") and words[2].isdigit():
            found[words[1]] = int(words[2])
    assert {name: found[name] for name in capabilities.NAMES} == capabilities.NUMBERS


def test_the_table() -> None:
    assert len(capabilities.NAMES) == len(set(capabilities.NAMES)) == 41
    assert capabilities.NUMBERS["CAP_CHOWN"] == 0
    assert capabilities.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40
    assert len(capabilities.DEFAULT) == 11


def test_mask_keeps_unknown_names_apart() -> None:
    assert capabilities.mask(["CAP_CHOWN", "CAP_NEW", "CAP_KILL", "chown"]) == (0b100001, ["CAP_NEW", "chown"])
    assert capabilities.mask([]) == (0, [])


def test_names_reverses_mask() -> None:
    assert capabilities.names(capabilities.mask(capabilities.DEFAULT)[0]) == sorted(
        capabilities.DEFAULT, key=capabilities.NAMES.index
    )
    assert capabilities.names(1 << 60) == []


ALL = list(capabilities.NAMES)
BASE = ["CAP_CHOWN", "CAP_KILL"]


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], BASE),
        (["sys_admin"], [], [*BASE, "CAP_SYS_ADMIN"]),
        (["cap_Sys_Admin"], ["KILL"], ["CAP_CHOWN", "CAP_SYS_ADMIN"]),
        ([], ["NET_RAW"], BASE),
        (["ALL"], [], ALL),
        (["all"], ["CAP_SYS_ADMIN"], [name for name in ALL if name != "CAP_SYS_ADMIN"]),
        ([], ["ALL"], []),
        (["NET_RAW"], ["all"], ["CAP_NET_RAW"]),
        (["KILL"], ["KILL"], BASE),
    ],
)
def test_adjust(add: list[str], drop: list[str], expected: list[str]) -> None:
    assert capabilities.adjust(BASE, add, drop) == expected


@pytest.mark.parametrize("word", ["", "CAP_", "SYS-ADMIN", "NEW", "CAP_CAP_CHOWN", "CHOWN\n", "x" * 100_000])
def test_adjust_refuses_unknown_words(word: str) -> None:
    with pytest.raises(UsageError, match="unknown capability") as caught:
        capabilities.adjust(BASE, [word], [])
    assert len(str(caught.value)) < 200
    with pytest.raises(UsageError):
        capabilities.adjust(BASE, [], [word])


def test_adjust_refuses_all_against_all() -> None:
    with pytest.raises(UsageError, match="ALL cannot be both"):
        capabilities.adjust(BASE, ["ALL"], ["ALL"])


def test_what_the_kernel_says() -> None:
    assert capabilities.last_cap() >= 37
    current = capabilities.current()
    assert sorted(current) == sorted(capabilities.SETS)
    assert current["effective"] & ~current["permitted"] == 0
