"""`images --filter`, as docker has it: values of one key are alternatives, keys have to hold together."""

import re

from ..errors import UsageError
from ..images import reference
from ..images.view import inspect, labels
from ..quantities import moment, parse_timestamp
from .filters import has_labels, parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..images.store import Image, Store

    Test = Callable[[str, Image], bool]
    """Whether an image is to be listed under that name."""

NAMELESS = "localhost/loaded@"
"""How the names begin that are made up for images that came without one."""


def image_tests(texts: "Iterable[str]", store: "Store") -> "list[Test]":
    """What an image must answer to with True; UsageError for filters that are off, NotFoundError for images."""
    return [_TESTS[key](values, store) for key, values in parse_filters(texts, _TESTS).items()]


def is_nameless(name: str) -> bool:
    return name.startswith(NAMELESS)


def created(image: "Image") -> int:
    """Nanoseconds since 1970; 0 where the image does not say."""
    try:
        return parse_timestamp(inspect(image)["Created"])
    except (ValueError, OverflowError):
        return 0


def _dangling(values: "list[str]", _store: "Store") -> "Test":
    wanted = set()
    for value in values:
        if value.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"--filter dangling={value}: true or false")
        wanted.add(value.lower() in ("true", "1"))
    return lambda name, _image: is_nameless(name) in wanted


def _reference(values: "list[str]", _store: "Store") -> "Test":
    """Patterns of names as people write them, with the tag or without; "*" stops at "/" (Go's path.Match)."""
    patterns = [_pattern(value) for value in values]

    def test(name: str, _image: "Image") -> bool:
        ref = reference.parse(name)
        bare = reference.parse(ref.name).familiar.removesuffix(":latest")
        texts = (bare, ref.familiar, ref.name, name)
        return not is_nameless(name) and any(pattern.fullmatch(text) for pattern in patterns for text in texts)

    return test


def _pattern(text: str) -> "re.Pattern[str]":
    found = ""
    for part in re.findall(r"\[\^?[^\]]+\]|\\.|.", text):
        if part == "*":
            found += "[^/]*"
        elif part == "?":
            found += "[^/]"
        elif len(part) > 2:
            found += "[" + re.sub(r"([\[\\&~|])", r"\\\1", part[1:-1]) + "]"
        else:
            found += re.escape(part[-1])
    try:
        return re.compile(found)
    except re.error as error:
        raise UsageError(f"--filter reference={text}: {error}") from error


def _label(values: "list[str]", _store: "Store") -> "Test":
    return lambda _name, image: has_labels(labels(image), values)


def _before(values: "list[str]", store: "Store") -> "Test":
    ends = [created(store.find(value)) for value in values]
    return lambda _name, image: any(created(image) < end for end in ends)


def _since(values: "list[str]", store: "Store") -> "Test":
    begins = [created(store.find(value)) for value in values]
    return lambda _name, image: any(created(image) > begin for begin in begins)


def _until(values: "list[str]", _store: "Store") -> "Test":
    ends = [moment(value, "--filter until") for value in values]
    return lambda _name, image: all(created(image) < end for end in ends)


_TESTS: "dict[str, Callable[[list[str], Store], Test]]" = {
    "dangling": _dangling, "reference": _reference, "label": _label, "before": _before, "since": _since,
    "until": _until,
}  # fmt: skip
