"""What people and engines write: sizes (64m), durations (1m30s), signals (TERM).  Numbers are ASCII digits only."""

from .errors import UsageError

_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_SIGNALS = {
    name: number
    for number, name in enumerate(
        "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
        "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS".split(),
        1,
    )
} | {"IOT": 6, "POLL": 29, "RTMIN": 34, "RTMAX": 64}


def size(text: str, option: str, *, zero: bool = False) -> int:
    """Bytes of docker's sizes: 64m, 1.5g, 512kb, 8MiB, 100b, 1024; 0 with `zero` only.  UsageError names `option`."""
    number = text.rstrip("bBkKmMgGtTiI")
    unit = text[len(number) :].lower()
    unit = unit[:1] if unit[1:] in ("", "b", "ib") and unit != "bb" and unit[:1] in _SIZES else "?"
    whole, dot, part = number.partition(".")
    if unit not in _SIZES or not is_number(whole) or len(whole) > 15 or (dot and not is_number(part)):
        raise UsageError(f"{option} {text!r} is not a size", hint="a number with b, k, m or g")
    bytes = int(whole) * _SIZES[unit] + (int(part[:9]) * _SIZES[unit] // 10 ** len(part[:9]) if dot else 0)
    if not bytes and not zero:
        raise UsageError(f"{option} {text!r} is no size at all")
    return bytes


def duration(text: str, option: str) -> float:
    """Seconds of Go's durations: 5s, 1m30s, 500ms (time.ParseDuration).  UsageError names `option`."""
    seconds, rest = 0.0, text
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = next((name for name in ("ns", "us", "µs", "ms", "s", "m", "h") if rest.startswith(name)), "")
        if not unit or number.count(".") > 1 or not is_number(number.replace(".", "")) or len(number) > 18:
            seconds = 0.0
            break
        seconds += float(number) * _SECONDS[unit]
        rest = rest[len(unit) :]
    if not 0 < seconds < 1e9:
        raise UsageError(f"{option} {text!r} is not a duration", hint="such as 5s, 1m30s or 500ms")
    return seconds


def is_number(text: str) -> bool:
    """ASCII digits; int() takes those of every script."""
    return text.isascii() and text.isdecimal()


def signal_number(text: str) -> int:
    """A signal's number from its number or name, with or without SIG, in any case."""
    name = text.upper().removeprefix("SIG")
    if is_number(name) and len(name) < 4 and int(name) < 65:
        return int(name)
    base, sign, offset = name.partition("+")
    number = _SIGNALS.get(base, 0)
    if sign and base == "RTMIN" and is_number(offset) and int(offset[:3]) <= 30:
        return number + int(offset)
    if not number or sign:
        raise UsageError(f"unknown signal {text!r}")
    return number
