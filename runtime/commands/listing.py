"""`ps`, for what ps.py leaves alone: help, and options that are off."""

from typing import Any

import click

from ..options import PS
from .options import click_options
from .ps import ps_lines


@click.command()
@click_options(PS)
def ps(**values: Any) -> None:
    """List containers."""
    for line in ps_lines(values):
        click.echo(line)
