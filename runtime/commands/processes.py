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
@click.argument("container")
@failing_with_one()
def logs(container: str, follow: bool, since: str, until: str, tail: str, timestamps: bool, details: bool) -> None:
    """Print the output of a container."""
    from ..engine import log_reader

    wanted = log_reader.Selection(
        since=log_reader.moment(since, "--since"),
        until=log_reader.moment(until, "--until"),
        tail=log_reader.lines(tail),
    )
    record = find(container)
    _print(log_reader.read(record, wanted, follow=follow), timestamps)
    ended = record.exit()
    if ended and ended.lost:
        warn([f"{ended.lost} bytes of output were lost: the log could not be written"])


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
