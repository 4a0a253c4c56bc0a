"""What commands print alike: tables, JSON and templates, sizes and times, progress, warnings and questions."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

from ..errors import StateError
from ..jsontext import dump_json
from .tables import table_lines

FORMAT = click.option("-f", "--format", "template", default="", metavar="TEMPLATE", help="json, or a Go template.")


@contextmanager
def failing_with_one() -> Iterator[None]:
    """docker ends with 1, not 125, where there is no such container or it is in no state for the command."""
    try:
        yield
    except StateError as error:
        error.exit_code = 1
        raise


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
    """A table with these columns (key: heading), an object a line for json (docker), or a template for each row, after
    "table" headed."""
    if template == "json":
        for row in rows:
            click.echo(dump_json(row))
        return
    for line in table_lines(rows, template, columns):
        click.echo(line)


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
