"""`generate systemd`: a unit that starts a container at boot."""

import os
from typing import Any

import click

from ..engine import units
from ..engine.records import Record, find
from ..errors import UsageError
from ..options import FLAG, MANY, ONLY_RUN, RUN, Option, parse
from .printing import many

_OURS = ("attach", "cidfile", "detach", "interactive", "name", "pull", "replace", "replicas", "restart", "rm", "tty")
"""Options of the container's own command that mean nothing to a unit, or that it has of its own."""


@click.group()
def generate() -> None:
    """Write files about containers for other programs."""


@generate.command()
@click.option("--new", is_flag=True, help="Make a new container at each start, as the container was made.")
@click.option("-n", "--name", "by_name", is_flag=True, help="Call it by the container's name, not its id.")
@click.option("-f", "--files", is_flag=True, help="Write it to a file here and print the path.")
@click.option("--restart-policy", default="on-failure", show_default=True, metavar="POLICY", help="systemd's Restart=.")
@click.option("--restart-sec", type=int, default=0, metavar="SECONDS", help="Until it is started again.")
@click.option("-t", "--time", "--stop-timeout", "seconds", type=int, default=None, help="Until it is killed (10).")
@click.option("--container-prefix", "prefix", default="container", show_default=True)
@click.option("--separator", default="-", show_default=True)
@click.option("--no-header", is_flag=True, help="Without the comments on top.")
@many("--wants", help="Another unit that is wanted.", metavar="UNIT")
@many("--after", help="Another unit that comes first.", metavar="UNIT")
@many("--requires", help="Another unit that is required.", metavar="UNIT")
@click.argument("container")
def systemd(container: str, new: bool, by_name: bool, files: bool, prefix: str, separator: str, **given: Any) -> None:
    """Print a unit of systemd that starts a container at boot.

    Put it in /etc/systemd/system (an ordinary user in ~/.config/systemd/user), then `systemctl enable --now` it.
    """
    record = find(container)
    label = record.name if by_name else record.id
    file = f"{prefix}{separator}{label}.service"
    seconds = given["seconds"]
    if seconds is None:
        own = record.config().stop_timeout
        seconds = units.STOP_SECONDS if own is None else own
    unit = units.Unit(
        record.name if by_name or new else record.id,
        run=_run_again(record) if new else (),
        restart=given["restart_policy"], restart_seconds=given["restart_sec"], seconds=seconds,
        header=not given["no_header"], wants=given["wants"], after=given["after"], requires=given["requires"],
    )  # fmt: skip
    text = unit.text(record, file)
    if not files:
        click.echo(text, nl=False)
        return
    if "/" in file:
        raise UsageError(f"{file!r} is no name of a file", hint="--container-prefix and --separator")
    path = os.path.join(os.getcwd(), file)
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as unit_file:
        unit_file.write(text)
    click.echo(path)


def _run_again(record: Record) -> list[str]:
    """The words of `run` that make such a container anew, in the foreground."""
    words = [str(word) for word in record.data.get("command") or ()]
    start = next((index for index, word in enumerate(words[:2]) if word in ("run", "create")), -1)
    parsed = parse([*RUN, *ONLY_RUN], words[start + 1 :]) if start >= 0 else None
    if parsed is None:
        raise UsageError(f"how container {record.name!r} was made is not known", hint="leave --new out")
    values, rest = parsed
    kept = [text for option in [*RUN, *ONLY_RUN] if option.key not in _OURS for text in _written(option, values)]
    return ["run", "--name", record.name, "--replace", "--rm", *kept, *rest]


def _written(option: Option, values: dict[str, Any]) -> list[str]:
    """An option as it is written, if its value is not the default."""
    value, name = values[option.key], max(option.names, key=len)
    if value == option.default:
        return []
    if option.kind == FLAG:
        return [name]
    return [f"{name}={one}" for one in (value if option.kind == MANY else [value])]
