"""What commands print alike: tables, JSON and templates, sizes and times, progress, warnings and questions."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Any

import click

from ..jsontext import dump_json

FORMAT = click.option("-f", "--format", "template", default="", metavar="TEMPLATE", help="json, or a Go template.")


def combine(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


def many(*names: str, help: str, metavar: str) -> Callable[[Any], Any]:
    return click.option(*names, multiple=True, help=help, metavar=metavar)


def print_objects(found: list[Any], template: str) -> None:
    """As docker does: all of them as one JSON list, or the template for each, a line each."""
    if template in ("", "json"):
        click.echo(dump_json(found, 2 if not template else 0))
    else:
        print_each(found, template)


def print_each(values: list[Any], template: str) -> None:
    from ..gotemplate import compile_template

    render = compile_template(template)
    for value in values:
        click.echo(render(value))


def print_rows(rows: list[dict[str, Any]], template: str, columns: dict[str, str]) -> None:
    """A table with these columns (key: heading), a list for json, or a template for each row, after "table" headed."""
    from ..gotemplate import compile_template

    if template == "json":
        click.echo(dump_json(rows, 2))
        return
    if template and not template.startswith("table"):
        print_each(rows, template)
        return
    chosen = template.removeprefix("table").strip() or "\t".join(f"{{{{.{key}}}}}" for key in columns)
    render = compile_template(chosen)
    headings = {key: columns.get(key, key.upper()) for key in (*columns, *(rows[0] if rows else ()))}
    lines = [render(row).split("\t") for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    for line in lines:
        click.echo("   ".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip())


def format_size(size: int) -> str:
    """docker's: powers of 1000, three digits."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g}{units[0]}"


_UNITS = {"year": 31536000, "month": 2592000, "week": 604800, "day": 86400, "hour": 3600, "minute": 60}
"""Seconds."""


def format_age(time: str) -> str:
    """How long ago an RFC 3339 time was, in one unit; "N/A" for none."""
    try:
        then = datetime.fromisoformat(time[:19] + "+00:00")
    except ValueError:
        return "N/A"
    seconds = max(0, (datetime.now(UTC) - then).total_seconds())
    for name, length in _UNITS.items():
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {name}s ago"
    return f"{int(seconds)} seconds ago"


@contextmanager
def show_progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each blob on a terminal; else a line for each that is complete."""
    if quiet or not sys.stderr.isatty():
        yield partial(_tell_complete, set(), quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bars = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    console=Console(stderr=True))  # fmt: skip
    tasks: dict[str, Any] = {}

    def tell(digest: str, done: int, size: int) -> None:
        task = tasks.get(digest)
        if task is None:
            task = tasks[digest] = bars.add_task(digest[7:19], total=size)
        bars.update(task, completed=done)

    with bars:
        yield tell


def _tell_complete(told: set[str], quiet: bool, digest: str, done: int, size: int) -> None:
    if done == size and not quiet and digest not in told:
        told.add(digest)
        click.echo(f"{digest[7:19]}: {size} bytes", err=True)


def warn(notes: list[str]) -> None:
    for note in notes:
        click.echo(f"warren: warning: {printable(note)}", err=True)


def confirm(what: str, force: bool) -> None:
    if not force:
        click.confirm(f"{what} Continue?", abort=True, err=True)


def printable(text: str) -> str:
    """What an image says may not steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def tell_error(error: Exception) -> None:
    """An error that does not end the command."""
    message = str(error)
    click.echo(f"warren: {message[:1].lower()}{message[1:]}", err=True)
