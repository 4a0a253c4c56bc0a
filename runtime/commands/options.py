"""Click's form of the tables of options."""

from collections.abc import Callable
from typing import Any

import click

from ..config import HOST
from ..options import FLAG, MANY, NUMBER, SECONDS, Option
from .printing import combine


def click_options(table: list[Option]) -> Callable[[Any], Any]:
    return combine(*(_click_option(option) for option in table))


def _click_option(option: Option) -> Any:
    names = [*option.names, option.key]
    if option.kind == FLAG:
        return click.option(*names, is_flag=True, help=option.help)
    types: dict[str, Any] = {NUMBER: int, SECONDS: click.FloatRange(min=0, min_open=True)}
    kind = click.Choice(list(option.choices)) if option.choices else types.get(option.kind, str)
    return click.option(*names, type=kind, default=option.default, multiple=option.kind == MANY, help=option.help,
                        metavar=option.metavar)  # fmt: skip


class RunCommand(click.Command):
    """`run`, whose options end at the source, or for `host` at a "--" behind it; --plan may stand without a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        source = self._source(args)
        is_host = args[source : source + 1] == [HOST] and not any(_is_rootfs(word) for word in args[:source])
        if is_host and "--" in args[source:]:
            end = args.index("--", source)
            between = args[source + 1 : end]
            if between and between[0].startswith("-"):
                args = [*args[:source], *between, HOST, *args[end:]]
                source += len(between)
        args[:source] = ["--plan=text" if word == "--plan" else word for word in args[:source]]
        return super().parse_args(ctx, args)

    def _source(self, args: list[str]) -> int:
        """Index of the first word that is neither an option nor the value of one."""
        valued = {name for option in self.params if isinstance(option, click.Option) and not option.is_flag
                  for name in option.opts} - {"--plan"}  # fmt: skip
        index = 0
        while index < len(args) and args[index].startswith("-") and args[index] not in ("-", "--"):
            index += 2 if _takes_next(args[index], valued) else 1
        return min(index, len(args))


def _is_rootfs(word: str) -> bool:
    return word == "--rootfs" or word.startswith("--rootfs=")


def _takes_next(word: str, valued: set[str]) -> bool:
    """Whether the value of an option is the next word; short options may stand together, as in -itw DIR."""
    if word.startswith("--"):
        return word in valued
    letters = word[1:]
    first = next((n for n, letter in enumerate(letters) if f"-{letter}" in valued), len(letters))
    return first == len(letters) - 1
