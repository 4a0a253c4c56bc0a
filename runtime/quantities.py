"""What people and engines write: sizes (64m), durations (1m30s), signals (TERM), times; and how they are told of them.

Numbers are ASCII digits only.
"""

import time

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


# ---- times


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, UTC, as docker writes it; its zero for 0."""
    if not nanoseconds:
        return "0001-01-01T00:00:00Z"
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"


def parse_timestamp(text: str) -> int:
    """Nanoseconds since 1970 of RFC 3339; local time without a zone, and the day's beginning without a time (docker).

    ValueError for anything else.
    """
    day, separator, rest = text.replace("t", "T").partition("T")
    clock, zone = _split_zone(rest)
    clock, _, fraction = clock.partition(".")
    parts = [*day.split("-"), *(clock.split(":") if clock else [])]
    if not (3 <= len(parts) <= 6) or (separator and not clock) or (fraction and not is_number(fraction)):
        raise ValueError(text)
    if not is_number("".join(parts)) or max(map(len, parts)) > 4:
        raise ValueError(text)
    year, month, date, hour, minute, second = [*map(int, parts), 0, 0, 0][:6]
    day_number = _days(year, month, date)
    if time.gmtime(day_number * 86400)[:3] != (year, month, date) or hour > 23 or minute > 59 or second > 60:
        raise ValueError(text)
    seconds = day_number * 86400 + hour * 3600 + minute * 60 + second
    if zone is None:
        seconds = int(time.mktime((year, month, date, hour, minute, second, 0, 0, -1)))
    return (seconds - (zone or 0)) * 1_000_000_000 + int((fraction + "0" * 9)[:9])


def _split_zone(text: str) -> "tuple[str, int | None]":
    """The clock, and what it is ahead of UTC in seconds; None without a zone."""
    if text[-1:] in ("Z", "z"):
        return text[:-1], 0
    for sign in "+-":
        clock, found, offset = text.partition(sign)
        if found:
            hours, _, minutes = offset.partition(":")
            if not is_number(hours + minutes) or (len(hours), len(minutes)) != (2, 2):
                raise ValueError(text)
            return clock, (int(hours) * 3600 + int(minutes) * 60) * (1 if sign == "+" else -1)
    return text, None


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 in the Gregorian calendar; years begin in March, so that the leap day comes last."""
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719468


def moment(text: str, option: str) -> int:
    """Nanoseconds since 1970 of docker's --since and --until: seconds since 1970, RFC 3339, or how long ago (10m)."""
    whole, _, fraction = text.partition(".")
    if is_number(whole) and len(whole) < 12 and is_number(fraction or "0"):
        return int(whole) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    try:
        return parse_timestamp(text)
    except (ValueError, OverflowError):
        pass
    if text in ("0s", "0m", "0h"):
        return time.time_ns()
    try:
        return time.time_ns() - int(duration(text.removeprefix("-"), option) * 1e9)
    except UsageError:
        hint = "seconds since 1970, a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m"
        raise UsageError(f"{option} {text!r} is no time", hint=hint) from None


# ---- as docker words them for people


def format_size(size: float) -> str:
    """docker's: powers of 1000, three digits."""
    return _scaled(size, 1000, ("B", "kB", "MB", "GB", "TB"), 3)


def format_binary_size(size: float) -> str:
    """docker's of memory: powers of 1024, four digits."""
    return _scaled(size, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def _scaled(value: float, base: int, units: "tuple[str, ...]", digits: int) -> str:
    value, number = float(value), 0
    while value >= base and number < len(units) - 1:
        value /= base
        number += 1
    text = f"{value:.{digits}g}"
    return f"{int(value) if 'e' in text else text}{units[number]}"


_UNITS = (("year", 365 * 24), ("month", 30 * 24), ("week", 7 * 24), ("day", 24))
"""Hours; one is used from two of it on."""


def format_span(seconds: float) -> str:
    """docker's rough words for how long something has lasted: "Less than a second", "About a minute", "3 hours"."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    if seconds < 3600:
        return "About a minute" if seconds < 120 else f"{int(seconds // 60)} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    return next(f"{hours // length} {name}s" for name, length in _UNITS if hours >= 2 * length)


def format_age(text: str) -> str:
    """How long ago an RFC 3339 time was; "N/A" for none."""
    try:
        then = parse_timestamp(text)
    except (ValueError, OverflowError):
        return "N/A"
    return format_span(max(0, time.time_ns() - then) / 1e9) + " ago"
