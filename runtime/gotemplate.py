"""The common part of Go's text/template, for --format: fields, pipelines of a few functions, if, range and with.

docker's and podman's users write these; what is not understood is a UsageError that quotes it, never printed as it is.
"""

from .errors import UsageError
from .jsontext import dump_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Node = Callable[[Any], str]
    """Text for a value of the dot."""
    Term = Callable[[Any], Any]

_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "r": "\r"}
_DEPTH = 20


def render(template: str, value: "Any") -> str:
    """The text of a template for a JSON value; UsageError for what is no template or no field."""
    return compile_template(template)(value)


def compile_template(template: str) -> "Node":
    """A function from the value to the text; UsageError for what is not understood."""
    pieces = _Pieces(template)
    node, ending = _block(pieces, 0)
    if ending:
        raise UsageError(f"--format: {{{{{ending}}}}} without a beginning")
    return node


class _Pieces:
    """Text and actions in turn."""

    def __init__(self, template: str) -> None:
        self._items = list(self._split(template))
        self._at = 0

    def next(self) -> "tuple[str, bool] | None":
        """A piece, and whether it is an action."""
        if self._at == len(self._items):
            return None
        self._at += 1
        return self._items[self._at - 1]

    @staticmethod
    def _split(template: str) -> "Iterator[tuple[str, bool]]":
        while template:
            text, opening, rest = template.partition("{{")
            if rest.startswith("- "):
                text, rest = text.rstrip(), rest[2:]
            if text:
                yield _unescape(text), False
            if not opening:
                return
            action, closing, template = rest.partition("}}")
            if not closing:
                raise UsageError(f"--format: {{{{ without }}}} in {rest[:40]!r}")
            if action.endswith(" -"):
                action, template = action[:-2], template.lstrip()
            yield action.strip(), True


def _unescape(text: str) -> str:
    """docker lets a shell's user write \\t and \\n."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


def _block(pieces: _Pieces, depth: int) -> "tuple[Node, str]":
    """Everything up to {{end}} or {{else}}, or to the end; and which of them it was."""
    if depth > _DEPTH:
        raise UsageError("--format: nested too deep")
    nodes: list[Node] = []
    while piece := pieces.next():
        text, is_action = piece
        if not is_action:
            nodes.append(lambda _dot, text=text: text)  # type: ignore[misc]
            continue
        word, _, rest = text.partition(" ")
        if word in ("end", "else"):
            return _all(nodes), text
        if word in ("if", "range", "with"):
            nodes.append(_conditional(word, rest, pieces, depth))
        elif not text.startswith("/*"):
            term = _pipeline(text)
            nodes.append(lambda dot, term=term: _show(term(dot)))  # type: ignore[misc]
    return _all(nodes), ""


def _all(nodes: "list[Node]") -> "Node":
    return lambda dot: "".join([node(dot) for node in nodes])


def _conditional(word: str, condition: str, pieces: _Pieces, depth: int) -> "Node":
    term = _pipeline(condition)
    body, ending = _block(pieces, depth + 1)
    other: Node = lambda _dot: ""  # noqa: E731
    if ending == "else":
        other, ending = _block(pieces, depth + 1)
    if ending != "end":
        raise UsageError(f"--format: {{{{{word}}}}} without {{{{end}}}}")

    def node(dot: "Any") -> str:
        value = term(dot)
        if not value:
            return other(dot)
        if word == "if":
            return body(dot)
        if word == "with":
            return body(value)
        if not isinstance(value, (list, dict)):
            raise UsageError(f"--format: range over {_show(value)[:40]!r}, which is no list")
        values = [value[key] for key in sorted(value)] if isinstance(value, dict) else value
        return "".join([body(item) for item in values])

    return node


def _pipeline(text: str) -> "Term":
    words = _words(text)
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    if not all(commands):
        raise UsageError(f"--format: nothing to do in {{{{{text}}}}}")
    terms = [_command(command, number > 0) for number, command in enumerate(commands)]

    def run(dot: "Any") -> "Any":
        value: Any = None
        for term in terms:
            value = term(dot, value)
        return value

    return run


def _words(text: str) -> "list[str]":
    """Separated by spaces; a string in quotes is one word, with its first quote."""
    found, at = [], 0
    while at < len(text):
        char = text[at]
        if char.isspace():
            at += 1
        elif char in "\"'`":
            end = at + 1
            while end < len(text) and text[end] != char:
                end += 2 if text[end] == "\\" and char != "`" else 1
            if end >= len(text):
                raise UsageError(f"--format: a string without its end in {text!r}")
            found.append('"' + _string(text[at + 1 : end], raw=char == "`"))
            at = end + 1
        elif char == "|":
            found.append("|")
            at += 1
        else:
            end = at
            while end < len(text) and not text[end].isspace() and text[end] not in "|\"'`":
                end += 1
            found.append(text[at:end])
            at = end
    return found


def _string(text: str, *, raw: bool) -> str:
    if raw or "\\" not in text:
        return text
    out, at = "", 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            out += _ESCAPES.get(text[at + 1], text[at : at + 2])
            at += 2
        else:
            out += text[at]
            at += 1
    return out


def _command(words: "list[str]", piped: bool) -> "Callable[[Any, Any], Any]":
    """A function with its arguments, or one term; behind a | the value before is the last argument."""
    name, *rest = words
    function = _FUNCTIONS.get(name)
    if function is None and rest and not piped and name.startswith("."):
        return _method(name, [_term(word) for word in rest])
    if function is None:
        if rest or piped:
            raise UsageError(f"--format: unknown function {name!r}", hint=f"one of {', '.join(sorted(_FUNCTIONS))}")
        term = _term(name)
        return lambda dot, _value: term(dot)
    terms = [_term(word) for word in rest]

    def call(dot: "Any", value: "Any") -> "Any":
        arguments = [term(dot) for term in terms] + ([value] if piped else [])
        try:
            return function(*arguments)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            raise UsageError(f"--format: {name}: not with these arguments") from error

    return call


def _method(name: str, terms: "list[Term]") -> "Callable[[Any, Any], Any]":
    """{{.Label "x"}}: the object that is rendered has it in its attribute `methods`."""

    def call(dot: "Any", _value: "Any") -> "Any":
        method = getattr(dot, "methods", {}).get(name[1:])
        if method is None:
            raise UsageError(f"--format: no method {name!r}")
        return method(*[term(dot) for term in terms])

    return call


def _term(word: str) -> "Term":
    if word.startswith('"'):
        return lambda _dot: word[1:]
    if word.lstrip("-").isdigit():
        return lambda _dot: int(word)
    if word in ("true", "false"):
        return lambda _dot: word == "true"
    if not word.startswith("."):
        raise UsageError(f"--format: {word!r} is not understood", hint="{{.Field}}, or {{json .Field}}")
    path = [part for part in word.split(".") if part]

    def field(dot: "Any") -> "Any":
        for part in path:
            if not isinstance(dot, dict) or part not in dot:
                known = f"there are {', '.join(sorted(dot))[:300]}" if isinstance(dot, dict) else ""
                raise UsageError(f"--format: no field {word!r}", hint=known)
            dot = dot[part]
        return dot

    return field


def _index(value: "Any", *keys: "Any") -> "Any":
    for key in keys:
        # A key that a map does not have is no error in Go.
        value = value.get(str(key), "") if isinstance(value, dict) else value[key]
    return value


_FUNCTIONS: "dict[str, Callable[..., Any]]" = {
    "json": dump_json,
    "index": _index,
    "len": len,
    "join": lambda values, separator: separator.join(_show(value) for value in values),
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "title": lambda text: str(text).title(),
    "split": lambda text, separator: text.split(separator),
    "println": lambda *values: " ".join(map(_show, values)) + "\n",
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}


def _show(value: "Any") -> str:
    """As Go prints it with %v."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(map(_show, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_show(value[key])}" for key in sorted(value)) + "]"
    return str(value)
