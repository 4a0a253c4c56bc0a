"""Commands on the files of containers: cp, diff, commit, export."""

import sys

import click

from ..errors import UsageError
from .images import CHANGE_OPTIONS
from .printing import FORMAT, print_rows, printable, warn


@click.command()
@click.option("-a", "--archive", is_flag=True, help="Keep owners, modes and attributes.")
@click.option("-L", "--follow-link", "follow", is_flag=True, help="Copy what a link in SOURCE leads to.")
@click.option("-q", "--quiet", is_flag=True, help="Accepted: nothing is printed anyway.")
@click.argument("source")
@click.argument("target")
def cp(source: str, target: str, archive: bool, follow: bool, quiet: bool) -> None:
    """Copy files between a container and the host: CONTAINER:PATH is a path in it, - a tar on standard input or output.

    SOURCE/. is what is in a directory.  A directory that is there gets the copy inside, one that is not becomes it.
    """
    from ..engine import copying
    from ..engine.records import find

    (here, path), (there, to) = copying.split(source), copying.split(target)
    if bool(here) == bool(there):
        what = "copying between containers is not supported" if here else "neither is in a container"
        raise UsageError(what, hint="warren cp CONTAINER:PATH PATH, or the other way round")
    if here and to == "-":
        if sys.stdout.isatty():
            raise UsageError("a tar is not written to a terminal", hint="redirect it")
        with open(1, "wb", closefd=False) as file:
            copying.read_out(find(here), path, file, follow=follow)
    elif here:
        warn(copying.copy_out(find(here), path, to, archive=archive, follow=follow))
    elif path == "-":
        warn(copying.write_in(find(there), sys.stdin.buffer, to))
    else:
        warn(copying.copy_in(find(there), path, to, archive=archive, follow=follow))


@click.command()
@click.option("-o", "--output", default="-", metavar="FILE", help="Instead of standard output.")
@click.argument("container")
def export(container: str, output: str) -> None:
    """Write the root of a container as a tar, without what is mounted in it."""
    from ..engine import copying
    from ..engine.records import find

    record = find(container)
    if output == "-" and sys.stdout.isatty():
        raise UsageError("a tar is not written to a terminal", hint="--output FILE")
    with click.open_file(output, "wb", lazy=False) as file:
        copying.export(record, file)


@click.command()
@FORMAT
@click.argument("container")
def diff(container: str, template: str) -> None:
    """List what a container has changed of its image: A added, C changed, D deleted.

    Or what one has left in the DIRECTORY of `warren run --keep-changes DIRECTORY IMAGE`.
    """
    from ..engine.copying import Changes

    found = Changes(container).tell()
    if template:
        print_rows([{"Kind": kind, "Path": path} for kind, path in found], template, {"Kind": "KIND", "Path": "PATH"})
        return
    for kind, path in found:
        click.echo(f"{kind} {printable(path)}")


@click.command()
@CHANGE_OPTIONS
@click.option("-a", "--author", default="", help="Who has done it.")
@click.option("-p", "--pause/--no-pause", default=True, help="Pause the container meanwhile (the default).")
@click.argument("container")
@click.argument("name", default="")
def commit(container: str, name: str, author: str, message: str, change: tuple[str, ...], pause: bool) -> None:
    """Make an image of a container's image and what it has changed.

    Or of what one has left in the DIRECTORY of `warren run --keep-changes DIRECTORY IMAGE`.
    """
    from ..engine.copying import Changes
    from ..images import reference

    names = [reference.parse(name)] if name else []
    found = Changes(container)
    made = found.commit(names, instructions=change, author=author, message=message, pause=pause)
    click.echo(made.id)
