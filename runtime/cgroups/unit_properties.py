"""Annotations org.systemd.property.NAME, by which a bundle sets any property of its scope (runc, docs/systemd.md).

Values are in GVariant's text format, as far as godbus reads it for runc: booleans, numbers, strings and arrays, with a
type in front where the obvious one is not meant: `uint64 100`, `@as []`.
"""

from ..errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .systemd import Property

PREFIX = "org.systemd.property."
_TYPES = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t",
    "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
_RANGES = {"y": (0, 8), "n": (1, 16), "q": (0, 16), "i": (1, 32), "u": (0, 32), "x": (1, 64), "t": (0, 64)}
"""Whether signed, and bits."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def from_annotations(annotations: "dict[str, str]") -> "list[Property]":
    """Raises SpecError naming the annotation; an unknown property is for systemd to refuse."""
    found: list[Property] = []
    for key, text in sorted(annotations.items()):
        if key.startswith(PREFIX):
            name = key[len(PREFIX) :]
            if len(name) < 3 or not (name.isascii() and name.isalpha()):
                raise SpecError(f"annotation {key}: {name!r} is no name of a property", hint="three letters or more")
            try:
                found.append(_in_microseconds(name, *parse(text)))
            except (ValueError, IndexError, RecursionError) as error:
                why = str(error) if isinstance(error, ValueError) else "it is not complete"
                raise SpecError(f"annotation {key}: {text!r}: {why}", hint="as in `uint64 5` or 'text'") from error
    return found


def _in_microseconds(name: str, kind: str, value: object) -> "Property":
    """What ends in Sec for people ends in USec on the bus (TimeoutStopSec is TimeoutStopUSec)."""
    if not name.endswith("Sec") or not name[-4:-3].islower():
        return name, (kind, value)
    if kind not in (*_RANGES, "d") or value < 0:  # type: ignore[operator]
        raise ValueError("seconds are a number")
    return name.removesuffix("Sec") + "USec", ("t", int(value * 1000000))  # type: ignore[operator]


def parse(text: str) -> "tuple[str, object]":
    """Type and value of GVariant text; ValueError or IndexError for what is none."""
    reader = _Reader(text)
    kind, value = reader.value("")
    reader.skip_space()
    if reader.at < len(text):
        raise ValueError(f"{text[reader.at :]!r} is too much")
    return kind, value


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip_space(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def value(self, kind: str) -> "tuple[str, object]":
        """The next value, of type `kind` if that is known already."""
        self.skip_space()
        first = self.text[self.at]
        if first in "'\"":
            return self._of(kind, "s", "sog"), self._string(first)
        if first == "[":
            return self._array(kind)
        word = self._word()
        if word[:1] == "@":
            if word.lstrip("@a") not in ("", *_TYPES.values()) or word == "@":
                raise ValueError(f"{word!r} is no type")
            return self.value(word[1:])
        if word in _TYPES:
            return self.value(_TYPES[word])
        if word in ("true", "false"):
            return self._of(kind, "b", "b"), word == "true"
        return self._number(word, kind)

    def _of(self, kind: str, usual: str, possible: str) -> str:
        if kind and kind not in possible:
            raise ValueError(f"it is not of type {kind}")
        return kind or usual

    def _word(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in " \t\n,[]'\"":
            self.at += 1
        return self.text[start : self.at]

    def _number(self, word: str, kind: str) -> "tuple[str, object]":
        if kind == "d" or (not kind and "." in word):
            return "d", float(word)
        kind = kind or "i"
        if kind not in _RANGES or len(word) > 24 or not word.isascii() or "_" in word:
            raise ValueError(f"{word!r} is no value of type {kind}")
        number = int(word, 0)
        signed, bits = _RANGES[kind]
        if not -signed << bits - 1 <= number < 1 << bits - signed:
            raise ValueError(f"{number} is out of range")
        return kind, number

    def _string(self, quote: str) -> str:
        found = []
        self.at += 1
        while (letter := self.text[self.at]) != quote:
            self.at += 1
            if letter == "\\":
                letter = self.text[self.at]
                letter = _ESCAPES.get(letter, letter)
                self.at += 1
            found.append(letter)
        self.at += 1
        return "".join(found)

    def _array(self, kind: str) -> "tuple[str, object]":
        if kind and kind[0] != "a":
            raise ValueError(f"it is not of type {kind}")
        items: list[object] = []
        inner = kind[1:]
        self.at += 1
        self.skip_space()
        while self.text[self.at] != "]":
            inner, item = self.value(inner)
            items.append(item)
            self.skip_space()
            if self.text[self.at] == ",":
                self.at += 1
                self.skip_space()
            elif self.text[self.at] != "]":
                raise ValueError("a comma is missing")
        self.at += 1
        if not inner:
            raise ValueError("an empty array needs its type, such as @as []")
        return "a" + inner, items
