"""Commands of volumes."""

import sys
from typing import Any

import click

from ..engine import volumes
from ..errors import NotFoundError, UsageError, WarrenError
from ..quantities import format_size
from .printing import FORMAT, confirm, many, print_objects, print_rows
from .telling import tell_error

FILTER = many("--filter", help="name=, label=, dangling=true, driver=.", metavar="KEY=VALUE")


@click.group()
def volume() -> None:
    """Work with volumes: directories that outlive containers."""


@volume.command()
@click.option("-d", "--driver", default="local", help="Only local.")
@many("-l", "--label", help="Note something on it.", metavar="KEY[=VALUE]")
@many("-o", "--opt", help="type=none, o=bind, device=DIR: it stands for a directory of the host.", metavar="KEY=VALUE")
@click.option("--name", "also", default="", help="The same as NAME.")
@click.argument("name", default="")
def create(name: str, also: str, driver: str, label: tuple[str, ...], opt: tuple[str, ...]) -> None:
    """Make a volume and print its name; one that is there already stays as it is."""
    if driver != "local":
        raise UsageError(f"--driver {driver!r}: there is no volume driver but local")
    if name and also:
        raise UsageError("two names are given")
    labels, options = _pairs(label), _pairs(opt)
    click.echo(volumes.create(name or also, labels=labels, options=options, anonymous=not (name or also)).name)


def _pairs(entries: tuple[str, ...]) -> dict[str, str]:
    return {entry.partition("=")[0]: entry.partition("=")[2] for entry in entries}


@volume.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@FILTER
@FORMAT
def list_volumes(quiet: bool, filter: tuple[str, ...], template: str) -> None:
    """List volumes."""
    found = volumes.select(filter)
    if quiet:
        for one in found:
            click.echo(one.name)
        return
    rows = [{
        "Driver": "local", "Name": one.name, "Scope": "local", "Mountpoint": one.source, "Availability": "N/A",
        "Labels": ",".join(f"{key}={value}" for key, value in one.labels.items()),
    } for one in found]  # fmt: skip
    print_rows(rows, template, {"Driver": "DRIVER", "Name": "VOLUME NAME"})


@volume.command()
@FORMAT
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], template: str) -> None:
    """Print what is known of volumes as JSON."""
    print_objects([volumes.inspect(volumes.find_volume(name)) for name in names], template)


@volume.command()
@click.option("-f", "--force", is_flag=True, help="A volume that is not there is no error.")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...], force: bool) -> None:
    """Remove volumes that no container uses."""
    failed = 0
    for name in names:
        try:
            volumes.find_volume(name).remove()
        except NotFoundError as error:
            if not force:
                tell_error(error)
                failed = 1
            continue
        except WarrenError as error:
            tell_error(error)
            failed = 1
            continue
        click.echo(name)
    if failed:
        sys.exit(failed)


@volume.command()
@click.option("-a", "--all", "every", is_flag=True, help="Also those that have a name.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@many("--filter", help="label=, label!=, name=.", metavar="KEY=VALUE")
def prune(every: bool, force: bool, filter: tuple[str, ...]) -> None:
    """Remove volumes that no container uses: those without a name of their own."""
    every = every or any(text in ("all=true", "all=1") for text in filter)
    filters = [text for text in filter if not text.startswith("all=")]
    what = "all volumes" if every else "anonymous volumes"
    confirm(f"This will remove {what} that no container uses.", force)
    click.echo(f"Total reclaimed space: {format_size(prune_volumes(every, filters))}")


def prune_volumes(every: bool, filters: Any = ()) -> int:
    """Remove and print; bytes that are free then."""
    total, names = 0, []
    for name, freed in volumes.prune(every=every, filters=filters):
        names.append(name)
        total += freed
    if names:
        click.echo("Deleted Volumes:\n" + "\n".join(names) + "\n")
    return total
