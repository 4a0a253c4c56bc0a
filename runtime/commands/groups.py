"""`warren container`: all commands of containers under one name, as docker has them; each is the short one itself."""

import click

from ..engine import pruning
from ..engine.filters import OF_PRUNE, parse_filters
from ..quantities import format_size
from .inspecting import NAMES, SIZE, inspect_each
from .listing import ps
from .printing import FORMAT, confirm, many
from .table import commands

SHORT = (
    "attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "ps", "rename",
    "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
)  # fmt: skip
PRUNE_FILTER = many("--filter", help="Only those of until=TIME, label=KEY[=VALUE].", metavar="KEY=VALUE")


class ShortCommands(click.Group):
    """A group that has commands of the outermost one, too, which are loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        known = set(commands.list_commands(ctx))
        return sorted({*super().list_commands(ctx), *(name for name in SHORT if name in known)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        return own or (commands.get_command(ctx, cmd_name) if cmd_name in SHORT else None)


@click.group(cls=ShortCommands)
def container() -> None:
    """Work with containers; `warren ps`, `run`, `rm` and the like are short for these."""


for _name in ("ls", "list"):
    container.add_command(ps, _name)


@container.command("inspect")
@FORMAT
@SIZE
@NAMES
def inspect_container(names: tuple[str, ...], template: str, size: bool) -> None:
    """Print what is known of containers as JSON."""
    inspect_each(names, template, ["container"], size)


@container.command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@PRUNE_FILTER
def prune_containers(force: bool, filter: tuple[str, ...]) -> None:
    """Remove all containers that do not run."""
    filters = parse_filters(filter, OF_PRUNE)
    confirm("This will remove all stopped containers.", force)
    freed = prune_containers_of(filters)
    click.echo(f"Total reclaimed space: {format_size(freed)}")


def prune_containers_of(filters: dict[str, list[str]]) -> int:
    """Remove and print; bytes that are free then."""
    removed, freed = pruning.prune_containers(filters)
    if removed:
        click.echo("Deleted Containers:\n" + "".join(f"{container_id}\n" for container_id in removed))
    return freed
