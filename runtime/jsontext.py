"""Strict JSON, and reading the files that hold it: no surprises from hostile text or from files that are none.

This module owns the syntax; what a text means is not its business.
"""

import _json
import posix
from errno import ELOOP, ENOENT, ENOTDIR, errorcode

from .errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_JSON = 16 << 20
"""Most bytes of any JSON text that Warren reads."""
_MAX_DIGITS = 20
_BLANK = " \t\n\r"


# --- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(data: bytes, what: str) -> object:
    """Parse one JSON text strictly; `what` names it in errors.

    Refused: more than MAX_JSON bytes, anything but UTF-8 without BOM, NUL and lone surrogates in strings, NaN and
    Infinity, numbers of more digits than any 64-bit one has, nesting that exhausts the stack, and trailing garbage.
    Of duplicate keys the last counts, as in Go.
    """
    if len(data) > MAX_JSON:
        raise SpecError(f"{what}: larger than {MAX_JSON >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise SpecError(f"{what}: not UTF-8 at byte {error.start}") from None
    start = len(text) - len(text.lstrip(_BLANK))
    try:
        value, end = _scan(text, start)
    except WrongError as wrong:
        raise SpecError(f"{what}: {wrong.message}") from None
    except RecursionError:
        raise SpecError(f"{what}: nested too deeply") from None
    except StopIteration as stop:
        raise _syntax(what, text, stop.value) from None
    except (SystemError, ValueError):
        raise _syntax(what, text, _error_position(text, start)) from None
    if text[end:].strip(_BLANK):
        raise _syntax(what, text, end + len(text[end:]) - len(text[end:].lstrip(_BLANK)), "trailing garbage")
    # Escapes are the only way in for both, and rare enough that only then every string is looked at.
    if b"\\u0000" in data or b"\\ud" in data or b"\\uD" in data:
        _refuse_bad_strings(value, what)
    return value


def dump_json(value: object, indent: int = 0) -> str:
    """Write JSON in ASCII: compact, or with `indent` spaces for each level.

    Raises TypeError for what JSON cannot express, SpecError for what is nested too deeply.
    """
    try:
        return _pretty(value, "\n", " " * indent) if indent else "".join(_encode(value, 0))
    except RecursionError:
        raise SpecError("JSON: nested too deeply") from None


class WrongError(Exception):
    """Something is wrong with a value; the path to it is collected, innermost first, on the way out."""

    __slots__ = ("message", "path")

    def __init__(self, message: str, *path: "str | int") -> None:
        self.message = message
        self.path: list[str | int] = list(path)


def _parse_int(text: str) -> int:
    if len(text) > _MAX_DIGITS and len(text.lstrip("-")) > _MAX_DIGITS:
        raise WrongError(f"number of more than {_MAX_DIGITS} digits")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text) if len(text) <= 64 else 0.0
    if len(text) > 64 or value in (float("inf"), float("-inf")):
        raise WrongError("number that no double can hold")
    return value


def _refuse_constant(word: str) -> None:
    raise WrongError(f"{word} is not JSON")


class _Context:
    """What the C scanner wants to know of its decoder; `json` itself takes 7 ms to import."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None  # Python 3.15
    parse_float = _parse_float
    parse_int = _parse_int
    parse_constant = _refuse_constant


def _no_json(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


_scan: "Callable[[str, int], tuple[object, int]]" = _json.make_scanner(_Context)  # type: ignore[arg-type]
_encode: "Callable[[object, int], tuple[str, ...]]" = _json.make_encoder(
    None, _no_json, _json.encode_basestring_ascii, None, ":", ",", False, False, False
)


def _error_position(text: str, start: int) -> int:
    """Scan again for the position: Python 3.11's scanner can only tell it once json.decoder has been imported."""
    from json.decoder import JSONDecodeError

    try:
        _scan(text, start)
    except JSONDecodeError as error:
        return error.pos
    except StopIteration as stop:
        return int(stop.value)
    except (ValueError, SystemError):
        pass
    return start


def _syntax(what: str, text: str, position: int, problem: str = "") -> SpecError:
    position = min(position, len(text))
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    if not problem:
        problem = "invalid JSON" if position < len(text) else "ends too early" if text.strip(_BLANK) else "empty"
    return SpecError(f"{what}: {problem} at line {line} column {column}")


def _refuse_bad_strings(value: object, what: str) -> None:
    todo = [value]
    while todo:
        item = todo.pop()
        if type(item) is dict:
            todo.extend(item)
            todo.extend(item.values())
        elif type(item) is list:
            todo.extend(item)
        elif type(item) is str and not is_clean(item):
            raise SpecError(f"{what}: {show(item)} holds a NUL or a lone surrogate")


def is_clean(text: str) -> bool:
    """Whether a string can be handed to the kernel and written as UTF-8."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _pretty(value: object, newline: str, step: str) -> str:
    inner = newline + step
    if isinstance(value, dict) and value:
        items = [f"{_json.encode_basestring_ascii(key)}: {_pretty(item, inner, step)}" for key, item in value.items()]
        return "{" + inner + ("," + inner).join(items) + newline + "}"
    if isinstance(value, (list, tuple)) and value:
        return "[" + inner + ("," + inner).join([_pretty(item, inner, step) for item in value]) + newline + "]"
    return "".join(_encode(value, 0))


# --- Files ------------------------------------------------------------------------------------------------------------


def read_regular(path: str, what: str, directory: "int | None" = None) -> bytes:
    """A whole regular file of at most MAX_JSON bytes; SpecError for anything else, without reading or waiting for it.

    `path` starts at the open `directory` if there is one.
    """
    try:
        flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
        descriptor = posix.open(path, flags, dir_fd=directory)
    except (OSError, ValueError) as error:
        raise SpecError(f"{what}: {why(error)}") from None
    try:
        status = posix.fstat(descriptor)
        if status.st_mode & 0o170000 != 0o100000:
            raise SpecError(f"{what}: not a regular file")
        if status.st_size > MAX_JSON:
            raise SpecError(f"{what}: larger than {MAX_JSON >> 20} MiB")
        return _read_all(descriptor)
    except OSError as error:
        raise SpecError(f"{what}: {why(error)}") from None
    finally:
        posix.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    """Read to the end or one byte past the limit: a file may grow after fstat(2), and one on procfs has no size."""
    parts = []
    left = MAX_JSON + 1
    while left:
        part = posix.read(descriptor, min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def why(error: Exception) -> str:
    """The reason in words that no engine takes for a missing or unusable command (podman reads errors)."""
    if not isinstance(error, OSError):
        return "not a path"
    known = {ENOENT: "not found", ENOTDIR: "not a directory", ELOOP: "too many links"}
    number = error.errno or 0
    return known.get(number) or errorcode.get(number, "cannot be opened")


def show(value: object) -> str:
    """A value for an error message, short even where it is hostile."""
    text = repr(value[:40] if isinstance(value, str) else value)
    return text if not isinstance(value, str) or len(value) <= 40 else text + "..."
