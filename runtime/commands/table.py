"""The table of all commands: which module each is in.  A module is loaded when a command of it is asked for."""

from importlib import import_module
from typing import Any

import click

from .. import __version__

MODULES = {
    "containers": "create kill pause rename restart rm run start stop unpause wait",
    "images": "commit diff history image images import load login logout pull push rmi save search tag untag",
    "processes": "attach exec logs",
    "inspecting": "inspect",
    "listing": "ps",
    "contrast": "contrast vm",
    "networks": "network port",
    "system": "doctor system",
    "volumes": "volume",
}
HOMES = {name: module for module, names in MODULES.items() for name in names.split()}
FUNCTIONS = {"import": "import_image", "exec": "exec_"}
"""Where the function cannot be called as the command is."""


class Table(click.Group):
    """A group whose commands are loaded one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = HOMES.get(cmd_name)
        if home is None:
            return None
        found: Any = getattr(import_module(f"{__package__}.{home}"), FUNCTIONS.get(cmd_name, cmd_name))
        return found  # type: ignore[no-any-return]


@click.group(cls=Table, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="warren")
def commands() -> None:
    """Run isolated processes on this host's kernel."""
