"""Commands of what runs in containers: further processes, attaching, output."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..engine.records import find
from ..options import EXEC
from . import quick
from .options import click_options
from .printing import failing_with_one, warn

if TYPE_CHECKING:
    from ..engine.log_reader import Entry

_COLORS = [b"\033[%dm" % code for code in (32, 33, 34, 35, 36, 31)]
_LONGEST = 1 << 20
"""Bytes of a line that are waited for."""
AS_WRITTEN = {"allow_interspersed_args": False, "help_option_names": ["--help"]}


@click.command("exec", context_settings=AS_WRITTEN)
@click_options(EXEC)
@click.argument("words", nargs=-1, metavar="CONTAINER COMMAND...")
def exec_(words: tuple[str, ...], **values: Any) -> int:
    """Run another command in a container that runs."""
    return quick.exec_(words, values)


@click.command()
@click.option("--no-stdin", is_flag=True, help="Do not pass standard input on.")
@click.option("--sig-proxy", type=click.BOOL, default=True, show_default=True, metavar="BOOL", help="Pass signals on.")
@click.option("--detach-keys", default="", metavar="KEYS", help="What leaves the container alone (ctrl-p,ctrl-q).")
@click.argument("container")
@failing_with_one()
def attach(container: str, no_stdin: bool, sig_proxy: bool, detach_keys: str) -> None:
    """Show the output of a container from now on, pass input and signals on, end with its exit code."""
    from ..engine import running

    outcome = running.attach(find(container), stdin=not no_stdin, sends=sig_proxy, detach_keys=detach_keys)
    sys.exit(outcome.code)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("--since", default="", metavar="TIME", help="From then on: RFC 3339, seconds since 1970, or 10m ago.")
@click.option("--until", default="", metavar="TIME", help="Up to then.")
@click.option("-n", "--tail", default="all", metavar="NUMBER", help="Lines from the end, or all.")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--details", is_flag=True, help="With the attributes of each line; this log keeps none.")
@click.option("--names", "by_name", is_flag=True, help="Of several, with their names and not their ids.")
@click.option("--color", is_flag=True, help="Each container's lines in a colour of their own.")
@click.argument("containers", nargs=-1, required=True, metavar="CONTAINER...")
@failing_with_one()
def logs(
    containers: tuple[str, ...], follow: bool, since: str, until: str, tail: str, timestamps: bool, details: bool,
    by_name: bool, color: bool,
) -> None:  # fmt: skip
    """Print the output of containers; of several in the order of time, and each line says whose it is."""
    from ..engine import log_reader

    wanted = log_reader.Selection(
        since=log_reader.moment(since, "--since"),
        until=log_reader.moment(until, "--until"),
        tail=log_reader.lines(tail),
    )
    records = [find(name) for name in containers]
    if len(records) == 1 and not color:
        _print(log_reader.read(records[0], wanted, follow=follow), timestamps)
    else:
        labels = [f"{record.name if by_name else record.id[:12]} " if len(records) > 1 else "" for record in records]
        printer = _Labelled(labels, timestamps=timestamps, color=color)
        printer.print(log_reader.read_all(records, wanted, follow=follow))
    for record in records:
        ended = record.exit()
        if ended and ended.lost:
            whose = f" of {record.name}" if len(records) > 1 else ""
            warn([f"{ended.lost} bytes of output{whose} were lost: the log could not be written"])


def _print(entries: "Iterator[Entry | None]", timestamps: bool) -> None:
    """Each to its own stream, in their order."""
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    current, begins = sys.stdout.buffer, {"stdout": True, "stderr": True}
    for entry in entries:
        if entry is None:
            current.flush()
            continue
        stream = streams.get(entry.stream, sys.stdout.buffer)
        if stream is not current:
            current.flush()
            current = stream
        if timestamps and begins.get(entry.stream):
            stream.write(entry.time.encode() + b" ")
        stream.write(entry.data)
        begins[entry.stream] = entry.data.endswith(b"\n")
    current.flush()


class _Labelled:
    """Prints whole lines of several containers: what has no end yet waits for it, for another's may come first."""

    def __init__(self, labels: list[str], *, timestamps: bool, color: bool) -> None:
        self._labels, self._timestamps, self._color = labels, timestamps, color
        self._streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        self._current = sys.stdout.buffer
        self._begun: dict[tuple[int, str], list[bytes]] = {}

    def print(self, entries: "Iterator[tuple[int, Entry | None]]") -> None:
        for number, entry in entries:
            if entry is None:
                self._current.flush()
            elif entry.stream:
                self._take(number, entry)
            else:
                for stream in [stream for whose, stream in self._begun if whose == number]:
                    self._show(number, stream)
        self._current.flush()

    def _take(self, number: int, entry: "Entry") -> None:
        parts = self._begun.setdefault((number, entry.stream), [])
        if self._timestamps and not parts:
            parts.append(entry.time.encode() + b" ")
        parts.append(entry.data)
        if entry.data.endswith(b"\n") or sum(map(len, parts)) > _LONGEST:
            self._show(number, entry.stream)

    def _show(self, number: int, stream: str) -> None:
        start, end = (_COLORS[number % len(_COLORS)], b"\033[0m") if self._color else (b"", b"")
        line = b"".join(self._begun.pop((number, stream))).removesuffix(b"\n")
        out = self._streams.get(stream, sys.stdout.buffer)
        if out is not self._current:
            self._current.flush()
            self._current = out
        out.write(start + self._labels[number].encode() + line + end + b"\n")
