"""`inspect`: what is known of a container, or of anything else that has that name."""

import sys
from collections.abc import Callable
from typing import Any

import click

from ..errors import NotFoundError, UsageError
from ..jsontext import dump_json
from .printing import FORMAT, print_each
from .telling import tell_error

NAMES = click.argument("names", nargs=-1, required=True)
SIZE = click.option("-s", "--size", is_flag=True, help="Also what a container takes on disk.")


def look_at_container(name: str, size: bool) -> Any:
    from ..engine.view import inspect as look

    return look(name, size=size)


def look_at_image(name: str, _size: bool) -> Any:
    from ..images.store import Store
    from ..images.view import inspect

    return inspect(Store().find(name))


def look_at_volume(name: str, _size: bool) -> Any:
    from ..engine import volumes

    try:
        return volumes.inspect(volumes.find_volume(name))
    except UsageError as error:
        raise NotFoundError(str(error)) from error  # What cannot be the name of a volume is none.


def look_at_network(name: str, _size: bool) -> Any:
    from ..container import default_root
    from ..network import definitions
    from ..network.view import network_json

    return network_json(definitions.load(name), default_root())


KINDS: dict[str, Callable[[str, bool], Any]] = {
    "container": look_at_container, "image": look_at_image, "volume": look_at_volume, "network": look_at_network,
}  # fmt: skip
"""In the order in which a name is looked for."""


@click.command()
@FORMAT
@SIZE
@click.option("--type", "kind", default="", type=click.Choice(["", *KINDS]), help="What to look for.", metavar="KIND")
@NAMES
def inspect(names: tuple[str, ...], template: str, kind: str, size: bool) -> None:
    """Print what is known of containers, images and more as JSON.

    `enforced` says how each limit of a container is held, `relaxed` which options weaken its isolation.
    """
    inspect_each(names, template, [kind] if kind else list(KINDS), size)


def inspect_each(names: tuple[str, ...], template: str, kinds: list[str], size: bool = False) -> None:
    """What there is of the names is printed, an error for each of the others; exit code 1 then (docker)."""
    found, errors = [], []
    for name in names:
        try:
            found.append(_look(name, kinds, size))
        except (NotFoundError, UsageError) as error:
            errors.append(error)
    if template in ("", "json"):
        click.echo(dump_json(found, 2 if not template else 0))
    else:
        print_each(found, template)
    for problem in errors:
        tell_error(problem)
    if errors:
        sys.exit(1)


def _look(name: str, kinds: list[str], size: bool) -> Any:
    for kind in kinds:
        try:
            return KINDS[kind](name, size)
        except NotFoundError:
            continue
    what = kinds[0] if len(kinds) == 1 else "object"
    raise NotFoundError(f"no such {what}: {name!r}")
