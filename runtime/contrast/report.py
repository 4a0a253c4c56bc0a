"""The report of a contrast: one page that needs nothing else, light and dark, with plots as inline SVG."""

import math
from html import escape

from .findings import format_figure, isolation_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_WIDTH, _LEFT, _RIGHT, _BAR, _GAP, _TOP = 760, 150, 120, 16, 12, 8
_KINDS = {"process": "process", "container": "container"}

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2024; --soft: #5a636c; --line: #d5dadf; --panel: #f5f7f9;
  --process: #8a939c; --container: #0b6e99; --machine: #b4530a; --yes: #1a7f4b; --no: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --ink: #e6eaed; --soft: #9aa5ae; --line: #39424a;
  --panel: #1c2226; --process: #7d8790; --container: #4fb3dd; --machine: #f0944d; --yes: #5ccf92; --no: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 880px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3em; text-wrap: balance; }
h2 { font-size: 1.3rem; margin: 2.4em 0 .6em; padding-top: .7em; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8em 0 .2em; }
p, li { max-width: 68ch; } .soft { color: var(--soft); } .small { font-size: .875rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { font-weight: 600; background: var(--panel); } td { font-variant-numeric: tabular-nums; }
tbody th { font-weight: 400; color: var(--soft); min-width: 13em; }
.claims { list-style: none; padding: 0; } .claims li { padding: 10px 14px; margin: 8px 0; background: var(--panel);
  border-left: 4px solid var(--no); max-width: none; } .claims li.shown { border-color: var(--yes); }
.tag { font-weight: 600; color: var(--no); } .shown .tag, td.no { color: var(--yes); } td.yes { color: var(--no); }
svg { display: block; width: 100%; height: auto; max-width: 760px; } svg text { font: 13px system-ui, "DejaVu Sans",
  sans-serif; fill: var(--ink); } svg .axis { fill: var(--soft); font-size: 11px; } svg .grid { stroke: var(--line); }
svg .range { stroke: var(--ink); stroke-width: 1.5; } .process { fill: var(--process); }
.container { fill: var(--container); } .machine { fill: var(--machine); }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .4em 0 1em; vertical-align: -1px; }
.key.process { background: var(--process); margin-left: 0; } .key.container { background: var(--container); }
.key.machine { background: var(--machine); }
"""


def html(told: "Json") -> str:
    """The whole page."""
    title = f"{told['source']}: container and virtual machines"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><main>",
        *_head(told),
        *_claims(told),
        *_figures(told),
        *_isolation(told),
        *_rows(told),
        *_published(told),
        *_method(told),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(told: "Json") -> "list[str]":
    machine = told["machine"]
    memory = format_figure(machine["memory"] / (1 << 30))
    command = f" -- {' '.join(told['command'])}" if told["command"] else ""
    return [
        f"<h1>{escape(str(told['source']))} as a container and as virtual machines</h1>",
        (
            f'<p class="soft">Measured with <code>warren contrast {escape(str(told["source"]) + command)}</code> on '
            f"{escape(told['when'][:10])}, {told['rounds']} rounds in {told['seconds']:.0f} s, on "
            f"{escape(machine['processor'] or machine['architecture'])}, {machine['processors']} processors, "
            f"{memory} GiB, Linux {escape(machine['kernel'])}; load at the end {machine['load']:.1f}.</p>"
        ),
    ]


def _claims(told: "Json") -> "list[str]":
    lines = ["<h2>What is said of containers, and what these figures show</h2>", '<ul class="claims">']
    for claim in told["claims"]:
        word = "shown" if claim["shown"] else "not shown"
        mark = ' class="shown"' if claim["shown"] else ""
        lines.append(
            f'<li{mark}><span class="tag">{word}</span> &ensp;<strong>{escape(claim["claim"])}</strong>: '
            f"{escape(claim['why'])}.</li>"
        )
    return [*lines, "</ul>"]


def _figures(told: "Json") -> "list[str]":
    rows = [row for row in told["rows"] if row["available"]]
    lines = [
        "<h2>Figures</h2>",
        (
            '<p class="small"><span class="key process"></span>process of the host '
            '<span class="key container"></span>container <span class="key machine"></span>virtual machine. '
            "Bars are medians on a logarithmic scale, lines go from the smallest to the largest sample.</p>"
        ),
    ]
    sentences = {text.partition(":")[0]: text for text in told["findings"]}
    for metric in told["metrics"]:
        lines += _figure(metric, rows, sentences.get(metric["title"], ""))
    rest = [text for text in told["findings"] if text.partition(":")[0] not in {m["title"] for m in told["metrics"]}]
    return [*lines, *(f"<p>{escape(text)}</p>" for text in rest)]


def _figure(metric: "Json", rows: "list[Json]", sentence: str) -> "list[str]":
    """One metric: its plot, and why rows are not in it."""
    shown = [(row, row["metrics"][metric["key"]]) for row in rows if metric["key"] in row["metrics"]]
    missing = [(row["title"], row["missing"][metric["key"]]) for row in rows if metric["key"] in row["missing"]]
    if not shown and not missing:
        return []
    unit = f" ({metric['unit']})" if metric["unit"] else ""
    better = "less is better" if metric["less_is_better"] else "more is better"
    lines = [f"<h3>{escape(metric['title'] + unit)}</h3>"]
    if shown:
        lines += [f'<p class="small soft">{escape(_tail(sentence) + better)}.</p>', _plot(metric, shown)]
    return lines + [
        f'<p class="small soft">Not measured: {escape(title)}: {escape(reason)}.</p>' for title, reason in missing
    ]


def _tail(sentence: str) -> str:
    text = sentence.partition(": ")[2].rstrip(".")
    return f"{text[:1].upper()}{text[1:]}; " if text else ""


def _plot(metric: "Json", shown: "list[tuple[Json, Json]]") -> str:
    """Horizontal bars on a log scale; what is zero has none."""
    low, high = _decades([figure for _, figure in shown])
    height = _TOP + len(shown) * (_BAR + _GAP) + 22

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low) if value > 0 else 0
        return _LEFT + max(0.0, min(1.0, share)) * (_WIDTH - _LEFT - _RIGHT)

    label = escape(f"{metric['title']} by row, logarithmic scale")
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">']
    bottom = height - 20
    step = max(1, (high - low) // 6)
    for power in range(low, high + 1, step):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text class="axis" x="{at:.1f}" y="{height - 5}" text-anchor="middle">{_power(power)}</text>')
    for number, (row, figure) in enumerate(shown):
        parts += _bar(row, figure, _TOP + number * (_BAR + _GAP), x)
    return "".join([*parts, "</svg>"])


def _bar(row: "Json", figure: "Json", top: float, x: "Any") -> "list[str]":
    kind = _KINDS.get(row["key"], "machine")
    middle = top + _BAR / 2
    end, least, most = x(figure["median"]), x(figure["min"]), x(figure["max"])
    parts = [
        f'<text x="{_LEFT - 10}" y="{middle + 4.5:.1f}" text-anchor="end">{escape(row["title"])}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{max(2.0, end - _LEFT):.1f}" height="{_BAR}" rx="2"/>',
    ]
    if most - least > 1:
        parts.append(f'<line class="range" x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}"/>')
        ends = ((at, middle - 4, middle + 4) for at in (least, most))
        parts += [f'<line class="range" x1="{at:.1f}" x2="{at:.1f}" y1="{up}" y2="{down}"/>' for at, up, down in ends]
    after = max(end, most) + 8
    parts.append(f'<text x="{after:.1f}" y="{middle + 4.5:.1f}">{format_figure(figure["median"])}</text>')
    return parts


def _decades(figures: "list[Json]") -> "tuple[int, int]":
    """Powers of ten around all figures that are above zero; the smallest bar is still seen."""
    values = [value for figure in figures for value in (figure["min"], figure["median"], figure["max"]) if value > 0]
    if not values:
        return 0, 1
    low, high = math.floor(math.log10(min(values)) - 0.3), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _power(power: int) -> str:
    return format_figure(10.0**power) if -4 < power < 6 else f"1e{power}"


def _isolation(told: "Json") -> "list[str]":
    rows = [row for row in told["rows"] if row["available"] and row.get("isolation")]
    head = "".join(f"<th>{escape(row['title'])}</th>" for row in rows)
    lines = [
        "<h2>Isolation</h2>",
        (
            "<p>What root inside sees and may do. “Its own” means that it may, and that what it does it to is the "
            "guest's own kernel or devices, not the host's. A “yes” reaches the host. Nothing is tried on "
            "the host itself.</p>"
        ),
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>',
    ]
    for question, answers in isolation_table(rows):
        cells = "".join(f"<td{_mark(question, answer)}>{escape(answer)}</td>" for answer in answers)
        lines.append(f'<tr><th scope="row">{escape(question)}</th>{cells}</tr>')
    return [*lines, "</tbody></table></div>"]


def _mark(question: str, answer: str) -> str:
    if not question.startswith("Root may"):
        return ""
    return {"yes": ' class="yes"', "no": ' class="no"', "its own": ' class="no"'}.get(answer, ' class="soft"')


def _rows(told: "Json") -> "list[str]":
    lines = ["<h2>What the rows stand for</h2>", '<div class="scroll"><table><tbody>']
    for row in told["rows"]:
        state = "" if row["available"] else f'<br><span class="tag">not run here</span>: {escape(row["reason"])}'
        kernel = (
            f"<br>kernel: {escape(row['kernel_file'])} ({escape(row['kernel_origin'])})" if "kernel_file" in row else ""
        )
        lines.append(
            f'<tr><th scope="row">{escape(row["title"])}</th><td>{escape(row["term"])}{kernel}{state}</td></tr>'
        )
    lines.append("</tbody></table></div>")
    for row in told["rows"]:
        density = row.get("density")
        if density:
            total = format_figure(density["memory"] / (1 << 20))
            lines.append(
                f"<p class='small'>{escape(row['title'])}: {density['count']} at once took {total} MiB together and "
                f"were up after {format_figure(density['seconds'])} s.</p>"
            )
    return lines


def _published(told: "Json") -> "list[str]":
    lines = [
        "<h2>Published figures</h2>",
        (
            "<p>Measured by others, on other machines, most of them with hardware virtualization: not comparable with "
            "the figures above line by line.</p>"
        ),
        '<div class="scroll"><table><thead><tr><th>What</th><th>System</th><th>Figure</th><th>Source</th></tr></thead>',
        "<tbody>",
    ]
    for entry in told["published"]:
        cells = "".join(f"<td>{escape(entry[key])}</td>" for key in ("what", "system", "figure", "source"))
        lines.append(f"<tr>{cells}</tr>")
    return [*lines, "</tbody></table></div>"]


def _method(told: "Json") -> "list[str]":
    return ["<h2>Method</h2>", "<ul>", *(f"<li>{escape(text)}</li>" for text in told["method"]), "</ul>"]
