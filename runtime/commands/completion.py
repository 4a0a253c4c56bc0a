"""`completion`, and what a shell is told that completes a word of `warren`: names of containers, images and the like.

The scripts are click's, which run `warren` for each word; commands and options come from their definitions.  Names are
read from directories alone, so that pressing the key is answered at once.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from ..config import HOST
from ..container import default_data
from ..errors import WarrenError
from . import VARIABLE

Names = Callable[[], Iterable[str]]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete the words of `warren`.

    For bash: eval "$(warren completion bash)" in ~/.bashrc; for zsh the same with zsh in ~/.zshrc; for fish: warren
    completion fish > ~/.config/fish/completions/warren.fish.
    """
    commands = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(commands, {}, "warren", VARIABLE).source())
    if shell == "bash":
        click.echo("# A name and its tag are one word.\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//:}")


def containers() -> list[str]:
    return [name for name in _entries("containers/.names") if name[0] != "."]


def images() -> list[str]:
    """As `warren images` shows them."""
    from ..images import reference
    from ..images.local import LocalStore

    try:
        return [
            reference.parse(name).familiar for name in LocalStore().names() if not name.startswith("localhost/loaded@")
        ]
    except WarrenError:
        return []


def sources() -> list[str]:
    return [HOST, *images()]


def volumes() -> list[str]:
    return [name for name in _entries("volumes") if name[0] != "."]


def networks() -> list[str]:
    found = [name.removesuffix(".json") for name in _entries("networks") if name.endswith(".json") and name[0] != "."]
    return sorted({"bridge", *found})


def network_modes() -> list[str]:
    return [*networks(), "none", "host", "private", *(f"container:{name}" for name in containers())]


def _entries(name: str) -> list[str]:
    try:
        return sorted(os.listdir(f"{default_data()}/{name}"))
    except (OSError, WarrenError):
        return []


_BY_PATH: dict[str, Names] = {
    "cp": lambda: [name + ":" for name in containers()], "create": sources, "run": sources, "exec": containers,
    "image": images, "images": images, "history": images, "push": images, "pull": images, "rmi": images,
    "save": images, "tag": images, "untag": images, "volume": volumes, "network": networks,
    "inspect": lambda: [*containers(), *images(), *volumes(), *networks()],
}  # fmt: skip
"""What the arguments of a command or of a group are, where it is not containers."""
_BY_ARGUMENT: dict[str, Names | str] = {"container": containers, "containers": containers, "path": "file"}
_NO_NAME = {("create", "name"), ("rename", "name"), ("import", "name"), ("bootstrap", "name"), ("search", "term"),
            ("login", "registry"), ("logout", "registry"), ("port", "private_port")}  # fmt: skip
"""Command and argument: what only the user knows."""
_BY_OPTION: dict[str, Names | str] = {
    "network": network_modes, "volumes_from": containers, "volume": volumes, "file": "file", "cidfile": "file",
    "label_file": "file", "env_file": "file", "input": "file", "output": "file", "rootfs": "dir", "keep_changes": "dir",
    "device": "file", "verify_key": "file",
}  # fmt: skip


def teach(command: click.Command, path: tuple[str, ...]) -> None:
    """Let the parameters of a command, the last of `path`, complete what they are."""
    for param in command.params:
        argument = isinstance(param, click.Argument)
        what = _of_argument(param.name or "", path) if argument else _BY_OPTION.get(param.name or "")
        if what is not None and not isinstance(param.type, click.Choice):
            _set(param, what)


def _of_argument(name: str, path: tuple[str, ...]) -> Names | str | None:
    if (path[-1], name) in _NO_NAME:
        return None
    return _BY_ARGUMENT.get(name) or _BY_PATH.get(path[0], containers)


def _set(param: click.Parameter, what: Names | str) -> None:
    def complete(context: click.Context, incomplete: str) -> list[CompletionItem]:
        if isinstance(what, str):
            return [CompletionItem(incomplete, type=what)]
        given = context.params.get(param.name or "") or ()
        words = given if isinstance(given, tuple) else ()
        if param.name == "words" and words:
            return []  # The command of a container is its own business.
        return [CompletionItem(name) for name in what() if name.startswith(incomplete) and name not in words]

    taught: Any = param
    taught.shell_complete = complete
