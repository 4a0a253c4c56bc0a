"""`update`: other limits for containers that exist."""

import sys
from typing import Any

import click

from ..engine.changing import update as change
from ..engine.records import find
from ..errors import UsageError, WarrenError
from ..options import UPDATE
from .options import click_options
from .telling import tell_error


@click.command()
@click_options(UPDATE)
@click.argument("names", nargs=-1, required=True)
def update(names: tuple[str, ...], **values: Any) -> None:
    """Change limits or the restart policy of containers, at once where they run, and for every start from now on."""
    changes = {key: value for key, value in values.items() if value is not None}
    failed = 0
    for name in names:
        try:
            change(find(name), changes)
        except UsageError:
            raise
        except WarrenError as error:
            tell_error(error)
            failed = 1
            continue
        click.echo(name)
    sys.exit(failed)
