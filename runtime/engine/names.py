"""Ids and names of containers."""

import posix

from ..errors import UsageError

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_ADJECTIVES = (
    "agile", "bold", "brisk", "calm", "clever", "eager", "frank", "gentle", "happy", "hardy", "keen", "kind", "lively",
    "lucid", "merry", "nimble", "patient", "proud", "quick", "quiet", "sharp", "steady", "sunny", "swift", "tidy",
    "upbeat", "vivid", "warm", "wise", "witty", "young", "zealous",
)  # fmt: skip
_SURNAMES = (
    "allen", "babbage", "backus", "bartik", "boole", "church", "curie", "dijkstra", "engelbart", "floyd", "goldberg",
    "hamilton", "hopper", "johnson", "kay", "kernighan", "knuth", "lamport", "liskov", "lovelace", "mccarthy",
    "mcilroy", "milner", "naur", "perlman", "ritchie", "shannon", "stallman", "tarjan", "thompson", "turing", "wirth",
)  # fmt: skip


def new_id() -> str:
    """64 random hexadecimal digits, as docker's."""
    return posix.urandom(32).hex()


def new_name() -> str:
    """A name in docker's manner, such as keen_hopper."""
    first, second = posix.urandom(2)
    return f"{_ADJECTIVES[first % len(_ADJECTIVES)]}_{_SURNAMES[second % len(_SURNAMES)]}"


def check_name(name: str) -> None:
    """docker's rule for names; UsageError."""
    if len(name) < 2 or not name[0].isalnum() or not _NAME_CHARACTERS.issuperset(name):
        raise UsageError(f"invalid container name {name!r}", hint="letters, digits and _.- after a letter or digit")
