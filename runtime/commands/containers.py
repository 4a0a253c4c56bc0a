"""Commands of containers: making, starting and ending them.  What they do is in quick.py."""

from typing import Any

import click

from ..config import ContainerConfig
from ..engine import lifecycle
from ..engine.records import find
from ..jsontext import dump_json
from ..options import KILL, ONLY_RUN, RESTART, RM, RUN, START, STOP, to_config
from . import quick
from .options import RunCommand, click_options
from .printing import failing_with_one

NAMES = click.argument("names", nargs=-1, required=True)
AS_WRITTEN = {"allow_interspersed_args": False, "help_option_names": ["--help"]}


@click.command(cls=RunCommand, context_settings=AS_WRITTEN)
@click_options([*RUN, *ONLY_RUN])
@click.argument("words", nargs=-1, metavar="IMAGE|host [COMMAND]...")
def run(words: tuple[str, ...], **values: Any) -> int:
    """Run a command in a new container.

    `warren run IMAGE COMMAND` uses an image, which is pulled if need be.  `warren run host -- COMMAND` uses the host's
    own root, read-only underneath: the host's files cannot be changed, but what root may read the command may read.
    `warren run --rootfs DIR COMMAND` uses a directory.
    """
    if values["plan"]:
        _print_plan(to_config(words, values), values["plan"])
        return 0
    return quick.run(words, values)


@click.command(cls=RunCommand, context_settings=AS_WRITTEN)
@click_options(RUN)
@click.argument("words", nargs=-1, metavar="IMAGE|host [COMMAND]...")
def create(words: tuple[str, ...], **values: Any) -> int:
    """Make a container and print its id; `start` runs it."""
    return quick.create(words, values)


@click.command()
@click_options(START)
@NAMES
def start(names: tuple[str, ...], **values: Any) -> int:
    """Start containers that do not run."""
    return quick.start(names, values)


@click.command()
@click_options(STOP)
@NAMES
def stop(names: tuple[str, ...], **values: Any) -> int:
    """Ask containers to end, and kill those that do not."""
    return quick.stop(names, values)


@click.command()
@click_options(RESTART)
@NAMES
def restart(names: tuple[str, ...], **values: Any) -> int:
    """Stop and start containers."""
    return quick.restart(names, values)


@click.command()
@click_options(KILL)
@NAMES
def kill(names: tuple[str, ...], **values: Any) -> int:
    """Send a signal to the first process of containers."""
    return quick.kill(names, values)


@click.command()
@NAMES
def pause(names: tuple[str, ...]) -> int:
    """Freeze all processes of containers."""
    return quick.pause(names, {})


@click.command()
@NAMES
def unpause(names: tuple[str, ...]) -> int:
    """Let paused containers go on."""
    return quick.unpause(names, {})


@click.command()
@click_options(RM)
@NAMES
def rm(names: tuple[str, ...], **values: Any) -> int:
    """Remove containers."""
    return quick.rm(names, values)


@click.command()
@NAMES
def wait(names: tuple[str, ...]) -> int:
    """Wait for containers to end, and print their exit codes."""
    return quick.wait(names, {})


@click.command()
@click.argument("container")
@click.argument("name")
@failing_with_one()
def rename(container: str, name: str) -> None:
    """Give a container another name."""
    lifecycle.rename(find(container), name)


def _print_plan(config: ContainerConfig, style: str) -> None:
    from ..engine.running import plan

    found = plan(config)
    click.echo(dump_json(found.to_list(), 2) if style == "json" else "\n".join(found.lines()))
