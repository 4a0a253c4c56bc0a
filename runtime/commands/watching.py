"""Commands that look at what containers do: top, stats, events."""

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from ..engine.records import Record, find
from ..jsontext import dump_json
from .printing import failing_with_one, many, printable
from .tables import table_lines

TEMPLATE = click.option("--format", "template", default="", metavar="TEMPLATE", help="json, table, or a Go template.")
_STATS = {
    "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
    "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip
_SAMPLE = 0.25
"""Seconds between the two readings that a rate needs, where nobody waits for the next."""
_REFRESH = 1.0
_HOME, _END_OF_LINE, _BELOW = "\033[H", "\033[K", "\033[J"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("container")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTION]...")
@failing_with_one()
def top(container: str, options: tuple[str, ...]) -> None:
    """List the processes of a container, by the host's pids.

    With options it is ps(1) of the host that is asked: `warren top NAME -o pid,comm`.
    """
    from ..engine.top import top as look

    titles, rows = look(find(container), options)
    columns = {title: title for title in titles}
    for line in table_lines([dict(zip(titles, row, strict=False)) for row in rows], "", columns):
        click.echo(line)


@click.command()
@click.option("-a", "--all", "every", is_flag=True, help="Also containers that do not run.")
@click.option("--no-stream", is_flag=True, help="Print it once.")
@click.option("--no-trunc", is_flag=True, help="Print whole ids.")
@TEMPLATE
@click.argument("names", nargs=-1)
@failing_with_one()
def stats(names: tuple[str, ...], every: bool, no_stream: bool, no_trunc: bool, template: str) -> None:
    """Show what containers use, all that run or those that are named, every second until Ctrl-C."""
    from ..engine.usage import Gauges

    named = [find(name) for name in names]
    with Gauges() as gauges:

        def read() -> list[str]:
            found = gauges.read(named or _running(every), whole=no_trunc)
            return [dump_json(row) for row in found] if template == "json" else [*table_lines(found, template, _STATS)]

        read()
        time.sleep(_SAMPLE)
        if no_stream:
            click.echo("".join(line + "\n" for line in read()), nl=False)
        else:
            _show_live(read)


def _running(every: bool) -> list[Record]:
    from ..engine.listing import rows

    return [row.record for row in rows(every=every)]


def _show_live(read: Callable[[], list[str]]) -> None:
    """Again and again; on a terminal in place, cut to its size, at once when that changes."""
    terminal = sys.stdout.isatty()
    if terminal:
        click.echo(_HOME + _BELOW, nl=False)
    with _resizes() as wakeup:
        while True:
            lines = read()
            if terminal:
                size = shutil.get_terminal_size()
                shown = [line[: size.columns] for line in lines[: max(size.lines - 1, 1)]]
                click.echo(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in shown) + _BELOW, nl=False)
            else:
                click.echo("".join(line + "\n" for line in lines), nl=False)
            wakeup(_REFRESH)


class _resizes:  # noqa: N801
    """A pause that ends early when the terminal's size changes (SIGWINCH)."""

    def __enter__(self) -> Callable[[float], None]:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._handler = signal.signal(signal.SIGWINCH, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self._pause

    def _pause(self, seconds: float) -> None:
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 4096)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGWINCH, self._handler)
        os.close(self._reader)
        os.close(self._writer)


@click.command()
@click.option("--since", default="", metavar="TIME", help="Also those since then: 10m, a time, seconds since 1970.")
@click.option("--until", default="", metavar="TIME", help="Stop then.")
@many("-f", "--filter", help="Of container, event, image, label, network, type, volume.", metavar="KEY=VALUE")
@TEMPLATE
def events(since: str, until: str, filter: tuple[str, ...], template: str) -> None:
    """Print what happens to containers, as it happens, until Ctrl-C or --until."""
    from ..engine.events import FILTERS
    from ..engine.events import events as follow
    from ..engine.filters import parse_filters
    from ..quantities import moment

    filters = parse_filters(filter, FILTERS)
    begin = moment(since, "--since") if since else time.time_ns()
    end = moment(until, "--until") if until else None
    for line in _event_lines(follow(begin, end, filters), template):
        click.echo(line)
        sys.stdout.flush()


def _event_lines(found: Iterator[dict[str, Any]], template: str) -> Iterator[str]:
    from ..gotemplate import compile_template

    render = compile_template(template) if template and template != "json" else None
    for event in found:
        if event["Type"] == "container":
            actor = event["Actor"]
            event = {"status": event["Action"], "id": actor["ID"], "from": actor["Attributes"].get("image"), **event}
        if render:
            yield render({**event, "Status": event["Action"], "ID": event["Actor"]["ID"],
                          "From": event.get("from") or ""})  # fmt: skip
        else:
            yield dump_json(event) if template else _event_text(event)


def _event_text(event: dict[str, Any]) -> str:
    """docker's: the time in our zone, what has happened, and the attributes."""
    seconds, rest = divmod(event["timeNano"], 1_000_000_000)
    then = time.localtime(seconds)
    zone = time.strftime("%z", then)
    moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', then)}.{rest:09}" + (
        "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    )
    known = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
    return printable(f"{moment} {event['Type']} {event['Action']} {event['Actor']['ID']} ({known})")
