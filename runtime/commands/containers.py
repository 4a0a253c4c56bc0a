"""Commands of containers: making, starting and ending them."""

import sys
from typing import Any, NoReturn

import click

from ..config import ContainerConfig
from ..engine import lifecycle
from ..engine.records import Record, find
from ..errors import NotFoundError, UsageError, WarrenError
from ..jsontext import dump_json
from ..options import ONLY_RUN, RUN, to_config
from ..quantities import signal_number
from .images import fetch_image, look_at_image
from .options import RunCommand, click_options
from .printing import FORMAT, print_objects, tell_error, warn

SECONDS = click.option("-t", "--time", "seconds", type=int, default=None, help="Seconds until it is killed (10).")
NAMES = click.argument("names", nargs=-1, required=True)
KILLED = 137
"""Exit code of what SIGKILL has ended, as the kernel's OOM killer does."""
AS_WRITTEN = {"allow_interspersed_args": False, "help_option_names": ["--help"]}


@click.command(cls=RunCommand, context_settings=AS_WRITTEN)
@click_options([*RUN, *ONLY_RUN])
@click.argument("words", nargs=-1, metavar="IMAGE|host [COMMAND]...")
def run(words: tuple[str, ...], **values: Any) -> None:
    """Run a command in a new container.

    `warren run IMAGE COMMAND` uses an image, which is pulled if need be.  `warren run host -- COMMAND` uses the host's
    own root, read-only underneath: the host's files cannot be changed, but what root may read the command may read.
    `warren run --rootfs DIR COMMAND` uses a directory.
    """
    from ..engine import running

    config = to_config(words, values)
    if values["plan"]:
        _print_plan(config, values["plan"])
        return
    if values["detach"] or values["replicas"]:
        for container_id in running.run_detached(config, values, fetch_image):
            click.echo(container_id)
        return
    _leave(running.run_attached(config, values, fetch_image))


def _leave(outcome: Any) -> NoReturn:
    """End as the container has."""
    warn([outcome.notes[key] for key in ("image",) if key in outcome.notes])
    if outcome.oom_killed and outcome.code == KILLED:
        limit = outcome.record.config().memory
        click.echo(f"warren: out of memory: a process was killed at the limit of {limit}", err=True)
    sys.exit(outcome.code)


@click.command(cls=RunCommand, context_settings=AS_WRITTEN)
@click_options(RUN)
@click.argument("words", nargs=-1, metavar="IMAGE|host [COMMAND]...")
def create(words: tuple[str, ...], **values: Any) -> None:
    """Make a container and print its id; `start` runs it."""
    from ..engine import running

    click.echo(running.create(to_config(words, values), values, fetch_image).id)


@click.command()
@click.option("-a", "--attach", is_flag=True, help="Show its output, pass signals on, end with its exit code.")
@click.option("-i", "--interactive", is_flag=True, help="Give it this command's standard input.")
@click.option("--detach-keys", default="", help="What leaves the container alone (ctrl-p,ctrl-q).")
@NAMES
def start(names: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str) -> None:
    """Start containers that do not run."""
    from ..engine import running

    if attach or interactive:
        if len(names) > 1:
            raise UsageError("--attach and --interactive take one container")
        _leave(running.start_attached(find(names[0]), interactive=interactive, detach_keys=detach_keys))
    _each(names, lifecycle.start)


@click.command()
@SECONDS
@click.option("-s", "--signal", default="", help="Instead of the container's stop signal.")
@NAMES
def stop(names: tuple[str, ...], seconds: int | None, signal: str) -> None:
    """Ask containers to end, and kill those that do not."""
    number = signal_number(signal) if signal else 0
    _each(names, lambda record: lifecycle.stop(record, seconds, number))


@click.command()
@SECONDS
@NAMES
def restart(names: tuple[str, ...], seconds: int | None) -> None:
    """Stop and start containers."""
    _each(names, lambda record: lifecycle.restart(record, seconds))


@click.command()
@click.option("-s", "--signal", default="KILL", show_default=True, help="By name or number.")
@NAMES
def kill(names: tuple[str, ...], signal: str) -> None:
    """Send a signal to the first process of containers."""
    number = signal_number(signal)
    _each(names, lambda record: lifecycle.kill(record, number))


@click.command()
@NAMES
def pause(names: tuple[str, ...]) -> None:
    """Freeze all processes of containers."""
    _each(names, lifecycle.pause)


@click.command()
@NAMES
def unpause(names: tuple[str, ...]) -> None:
    """Let paused containers go on."""
    _each(names, lifecycle.unpause)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Also those that run; they are killed.")
@click.option("-v", "--volumes", is_flag=True, help="With their anonymous volumes.")
@NAMES
def rm(names: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove containers."""

    def remove(record: Record) -> None:
        lifecycle.remove(record, force=force, volumes=volumes)

    _each(names, remove, missing_is_fine=force)


@click.command()
@NAMES
def wait(names: tuple[str, ...]) -> None:
    """Wait for containers to end, and print their exit codes."""
    for record in [find(name) for name in names]:
        click.echo(lifecycle.wait(record))


@click.command()
@click.argument("container")
@click.argument("name")
def rename(container: str, name: str) -> None:
    """Give a container another name."""
    lifecycle.rename(find(container), name)


@click.command()
@FORMAT
@NAMES
def inspect(names: tuple[str, ...], template: str) -> None:
    """Print what is known of containers, or else of images, as JSON; `enforced` says how each limit is held."""
    print_objects([_inspect(name) for name in names], template)


def _inspect(name: str) -> Any:
    from ..engine.view import inspect as look

    try:
        return look(name)
    except NotFoundError:
        try:
            return look_at_image(name)
        except NotFoundError:
            raise NotFoundError(f"no such container or image: {name!r}") from None


def _each(names: tuple[str, ...], act: Any, *, missing_is_fine: bool = False) -> None:
    """Do it to each, whatever fails; prints the words that named those it was done to, exit code 1 after errors."""
    failed = 0
    for name in names:
        try:
            act(find(name))
        except NotFoundError as error:
            if not missing_is_fine:
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


def _print_plan(config: ContainerConfig, style: str) -> None:
    from ..engine.running import plan

    found = plan(config)
    click.echo(dump_json(found.to_list(), 2) if style == "json" else "\n".join(found.lines()))
