"""Turns samples into a Markdown table, and puts it into docs/benchmarks.md between two marks."""

import os
from collections.abc import Sequence
from pathlib import Path

from .figures import Range, Target, median
from .session import Key, Samples, Session
from .targets import Comparison, How, comparisons

BEGIN = "<!-- `make bench` writes from here -->"
END = "<!-- to here -->"
HEAD = ("what", "spacing", "who", "median", "against", "median", "ratio or difference (quartiles)", "target", "")
UNITS = {"launches a second": "/s", "created init": " KiB", "peak of run": " KiB", "peak of create": " KiB"}
NAMES = {
    "run": "`runtime.run()`",
    "threads": "`runtime.run()`, two threads",
    "bundle": "library, the bundle",
    "sandbox": "`Sandbox.run()`",
    "pool": "from a pool",
}
"""Of the library's blocks."""


def table(samples: Samples) -> str:
    return render([HEAD, *(line(comparison, samples) for comparison in comparisons(samples))])


def line(comparison: Comparison, samples: Samples) -> tuple[str, ...]:
    scenario, spacing, _ = comparison.ours
    value = comparison.value(samples)
    theirs = comparison.theirs
    return (
        scenario,
        spacing,
        name(comparison.ours),
        amount(comparison.ours, samples),
        name(theirs) if theirs else "",
        amount(theirs, samples) if theirs else "",
        spread(value, comparison.how) if theirs else "",
        *target_cells(comparison.target, value, comparison.how, comparison.ours),
    )


def name(key: Key) -> str:
    scenario, _, who = key
    return NAMES.get(who, who) if scenario.startswith(("launch", "first")) else who


def amount(key: Key, samples: Samples) -> str:
    value = median(samples[key])
    unit = UNITS.get(key[0], " ms")
    return f"{value:.2f}{unit}" if unit == " ms" else f"{value:.0f}{unit}"


def spread(value: Range, how: How) -> str:
    if how == "difference":
        return f"{value.value:+.1f} ms ({value.low:+.1f} to {value.high:+.1f})"
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def target_cells(target: Target | None, value: Range, how: How, ours: Key) -> tuple[str, str]:
    """What is asked for, and whether it was reached; both empty where nothing is."""
    if target is None:
        return "", ""
    unit = {"ratio": "", "difference": " ms", "itself": UNITS.get(ours[0], " ms")}[how]
    stretch = f" ({target.stretch:g})" if target.stretch is not None else ""
    return f"{'≥' if target.at_least else '≤'} {target.bound:g}{stretch}{unit}", target.verdict(value.value)


def render(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])


def conditions(session: Session, rounds: int, load: tuple[float, float]) -> str:
    """What one must know to read the figures, and nothing that names the machine."""
    system = os.uname()
    programs = ", ".join(f"{runtime.name} {runtime.version}" for runtime in session.runtimes)
    machine = f"Linux {system.release.split('-')[0]}, {system.machine}, {os.cpu_count()} CPUs"
    lines = [f"{machine}; {programs}; {rounds} rounds; load average {load[0]:.1f} before and {load[1]:.1f} after."]
    for name in session.stubbed:
        lines.append(f"{name} ran with setrlimit(RLIMIT_MEMLOCK), which this host forbids, preloaded away.")
    for what, why in session.unenforced.items():
        lines.append(f"warren-oci did less than it was asked for: {what}: {why}.")
    return "\n".join(lines)


def publish(text: str, page: Path, begins: str = BEGIN) -> None:
    """Replace what stands in `page` between the mark `begins` and END; ValueError when it has none."""
    before, begin, rest = page.read_text().partition(begins)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the marks between which the table goes")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{END}{after}")
