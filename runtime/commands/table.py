"""The table of all commands: which module each is in.  A module is loaded when a command of it is asked for."""

import os
from importlib import import_module

import click

from .. import __version__
from . import VARIABLE

MODULES = {
    "containers": "create kill pause rename restart rm run start stop unpause wait",
    "copy": "commit cp diff export",
    "images": "history image images import load login logout pull push rmi save search tag untag",
    "about": "info version",
    "audit": "audit",
    "changing": "update",
    "groups": "container",
    "inspecting": "inspect",
    "processes": "attach exec logs",
    "listing": "ps",
    "contrast": "contrast vm",
    "networks": "network port",
    "completion": "completion",
    "system": "doctor system",
    "units": "generate",
    "volumes": "volume",
    "watching": "events stats top",
}
HOMES = {name: module for module, names in MODULES.items() for name in names.split()}
FUNCTIONS = {"import": "import_image", "exec": "exec_"}
"""Where the function cannot be called as the command is."""


SECTIONS = {
    "Containers": "containers audit copy changing groups inspecting processes listing watching units",
    "Images": "images", "Networks": "networks", "Volumes": "volumes", "Virtual machines": "contrast",
    "System": "about completion system",
}  # fmt: skip
"""Under which head of --help the commands of a module stand; ELSEWHERE those that stand apart from their module."""
ELSEWHERE = {"port": "Containers"}


def section_of(name: str) -> str:
    home = HOMES[name]
    return ELSEWHERE.get(name) or next((head for head, homes in SECTIONS.items() if home in homes.split()), "System")


class Table(click.Group):
    """A group whose commands are loaded one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = HOMES.get(cmd_name)
        if home is None:
            return None
        found: click.Command = getattr(import_module(f"{__package__}.{home}"), FUNCTIONS.get(cmd_name, cmd_name))
        if VARIABLE in os.environ:
            _teach(found, (cmd_name,))
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By what they are about."""
        lines: dict[str, list[tuple[str, str]]] = {head: [] for head in SECTIONS}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command and not command.hidden:
                lines[section_of(name)].append((name, _summary(command, formatter.width - 16)))
        for section, entries in lines.items():
            with formatter.section(section):
                formatter.write_dl(entries)


def _summary(command: click.Command, limit: int) -> str:
    """Its first sentence, or as much of it as makes sense and fits."""
    text = command.get_short_help_str(1000)
    while len(text) > limit:
        end = max(text.rfind(mark) for mark in (",", ";", ":"))
        if end < 0:
            return command.get_short_help_str(limit)
        text = text[:end]
    return text.removesuffix(".") + "."


def _teach(command: click.Command, path: tuple[str, ...]) -> None:
    from .completion import teach

    teach(command, path)
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            _teach(child, (*path, name))


@click.group(cls=Table, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="warren")
def commands() -> None:
    """Run isolated processes on this host's kernel."""
