"""Sizes and durations: docker's and Go's words, and one UsageError for everything else."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import UsageError
from runtime.quantities import (
    duration,
    format_binary_size,
    format_size,
    format_span,
    is_number,
    moment,
    parse_timestamp,
    size,
    timestamp,
)

UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
BAD_SIZES = [
    "", " ", "m", "-1", "-1m", "+1m", "1 m", " 1m", "1m ", "1mm", "1bb", "1x", "1p", "1e3", "0x10", ".5m", "1.m",
    "1..5m", "1.5.5m", "1,5m", "1_000", "1im", "1ib", "1kk", "1mi", "m1", "1\n", "1\0", "nan", "inf", "٣m", "²k",
    "1" * 16, "9" * 5000,
]  # fmt: skip
BAD_DURATIONS = [
    "", " ", "5", "s", "0", "0s", "-1s", "+1s", "1 s", "1s ", "1sec", "1d", "1e3s", ".s", "1..5s", "1.5.5s", "1s5",
    "s1", "٣s", "²s", "1s\n", "1\0s", "nans", "infs", "1m-30s", "9" * 19 + "s", "999999999h",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "bytes"),
    [
        ("1", 1), ("100b", 100), ("100B", 100), ("4k", 4096), ("64m", 64 << 20), ("64M", 64 << 20),
        ("512kb", 512 << 10), ("512KB", 512 << 10), ("8MiB", 8 << 20), ("2gib", 2 << 30), ("1t", 1 << 40),
        ("1.5g", 3 << 29),
        ("0.5k", 512), ("1.0", 1), ("007m", 7 << 20), ("0.00390625m", 4096), ("999999999999999", 999999999999999),
    ],
)  # fmt: skip
def test_sizes_are_dockers(text: str, bytes: int) -> None:
    assert size(text, "--memory") == bytes


@given(st.integers(1, 10**15 - 1), st.sampled_from(list(UNITS)), st.sampled_from(["", "b", "B", "ib", "iB"]))
def test_a_whole_number_and_a_unit_are_a_shift(number: int, unit: str, tail: str) -> None:
    tail = tail if unit not in ("", "b") else ""
    for text in (f"{number}{unit}{tail}", f"{number}{unit.upper()}{tail}"):
        assert size(text, "--memory") == number << UNITS[unit]


@given(st.integers(1, 1 << 53))
def test_what_a_size_says_is_what_it_means(bytes: int) -> None:
    """As people would write it, in any unit, down to a millionth of it."""
    for unit, shift in UNITS.items():
        whole, rest = divmod(bytes, 1 << shift)
        millionths = rest * 10**6 >> shift
        if whole >= 10**15 or not (whole or millionths):
            continue
        found = size(f"{whole}.{millionths:06}{unit}", "--memory", zero=True)
        assert bytes - (1 << shift) / 10**6 - 1 <= found <= bytes


@pytest.mark.parametrize("text", BAD_SIZES)
def test_what_is_no_size(text: str) -> None:
    refused(size, text)


@pytest.mark.parametrize("text", ["0", "0m", "0.0g", "0.1b"])
def test_nothing_is_a_size_only_where_it_means_something(text: str) -> None:
    assert size(text, "--memory", zero=True) == 0
    refused(size, text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("1h1m1s1ms", 3661.001), ("1.5s", 1.5), (".5s", 0.5),
        ("1.s", 1), ("250us", 250e-6), ("250µs", 250e-6), ("1ns", 1e-9), ("0s1ms", 1e-3), ("1s1s", 2), ("30s1m", 90),
    ],
)  # fmt: skip
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert duration(text, "--interval") == pytest.approx(seconds, rel=1e-12)


@given(st.lists(st.tuples(st.integers(0, 10000), st.sampled_from(list(GO_UNITS))), min_size=1, max_size=6))
def test_the_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    total = sum(number * GO_UNITS[unit] for number, unit in parts)
    if total:
        assert duration(text, "--interval") == pytest.approx(total)
    else:
        refused(duration, text)


@pytest.mark.parametrize("text", BAD_DURATIONS)
def test_what_is_no_duration(text: str) -> None:
    refused(duration, text)


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_one_error(text: str) -> None:
    for parse in (size, duration):
        try:
            found, message = parse(text, "--option"), ""
        except UsageError as error:
            found, message = 0, str(error)
        assert (found > 0) != message.startswith("--option ")
        assert "\n" not in message


@given(st.text(max_size=6))
def test_a_number_is_ascii(text: str) -> None:
    assert is_number(text) == (bool(text) and set(text) <= set("0123456789"))


def refused(parse: Callable[[str, str], float], text: str) -> None:
    with pytest.raises(UsageError, match=r"^--option ") as caught:
        parse(text, "--option")
    assert "\n" not in str(caught.value)


# ---- times, and how they are told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:34:56Z", 951827696),
        ("2026-11-29T07:17:01.884254303Z", 1795936621.884254303),
        ("2026-11-29T08:17:01+01:00", 1795936621),
        ("2026-11-29T02:47:01-04:30", 1795936621),
        ("1795936621", 1795936621),
        ("1795936621.5", 1795936621.5),
        ("1969-12-31T23:59:59Z", -1),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert moment(text, "--since") == pytest.approx(seconds * 1e9, abs=300)


def test_a_time_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    try:
        assert moment("2026-11-29T09:17:01", "--since") == 1795936621 * 10**9
        assert moment("2026-11-29", "--since") == (1795936621 - 9 * 3600 - 17 * 60 - 1) * 10**9
        assert moment("2026-11-29T09:17", "--since") == (1795936621 - 1) * 10**9
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["10m", "-10m", "600s"])
def test_a_duration_is_that_long_ago(text: str) -> None:
    assert moment(text, "--since") == pytest.approx(time.time_ns() - 600 * 10**9, abs=60 * 10**9)


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-02-30", "2026-13-01", "2026-11-29T", "2026-11-29T24:00:00Z", "2026-11-29T10:60:00Z",
        "2026-11-29T10:00:00+x", "2026-11-29T02:47:01-0430",
        "2026-11", "1.2.3", "99999999999999", "\u0661", "2026-11-29T10:00:00.Z.5",
    ],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    refused(moment, text)


@given(st.integers(0, 2**33 * 10**9))
def test_a_timestamp_is_read_as_it_was_written(nanoseconds: int) -> None:
    if nanoseconds:
        assert parse_timestamp(timestamp(nanoseconds)) == nanoseconds


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_one_error(text: str) -> None:
    try:
        message = str(moment(text, "--since"))
    except UsageError as error:
        message = str(error)
    assert message.lstrip("-").isdecimal() or message.startswith("--since ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_spans_are_dockers(seconds: float, text: str) -> None:
    """go-units, HumanDuration."""
    assert format_span(seconds) == text


@pytest.mark.parametrize(
    ("size", "decimal", "binary"),
    [
        (0, "0B", "0B"), (999, "999B", "999B"), (1000, "1kB", "1000B"), (1024, "1.02kB", "1KiB"),
        (67108864, "67.1MB", "64MiB"), (340000, "340kB", "332KiB"), (1e12, "1TB", "931.3GiB"),
        (5e15, "5000TB", "4.441PiB"),
    ],
)  # fmt: skip
def test_sizes_for_people(size: float, decimal: str, binary: str) -> None:
    assert (format_size(size), format_binary_size(size)) == (decimal, binary)
