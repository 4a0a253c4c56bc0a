"""Click's form of the tables of options."""

from collections.abc import Callable
from typing import Any

import click

from ..config import HOST
from ..options import BOOLEANS, FLAG, FOREVER, MANY, NUMBER, SECONDS, Option
from .printing import combine


def click_options(table: list[Option]) -> Callable[[Any], Any]:
    return combine(*(_click_option(option) for option in table))


class GroupedOption(click.Option):
    """One that stands in --help below the head of its group."""

    group = ""


def _click_option(option: Option) -> Any:
    names = [*option.names, option.key]
    more: dict[str, Any] = {"is_flag": True}
    if option.kind != FLAG:
        types: dict[str, Any] = {NUMBER: int, SECONDS: _Seconds()}
        kind = click.Choice(list(option.choices)) if option.choices else types.get(option.kind, str)
        more = dict(type=kind, default=option.default, multiple=option.kind == MANY, metavar=option.metavar)

    def apply(function: Any) -> Any:
        decorated = click.option(*names, cls=GroupedOption, help=option.help, **more)(function)
        params = getattr(decorated, "__click_params__", None) or decorated.params
        params[-1].group = option.group
        return decorated

    return apply


class _Seconds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0
        if not 0 < seconds < FOREVER:
            self.fail(f"{value!r} is no number of seconds above 0", param, ctx)
        return seconds


class OptionsCommand(click.Command):
    """One with many options, which --help shows by their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                groups.setdefault(getattr(param, "group", "") or "General", []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=32)


class RunCommand(OptionsCommand):
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
        front, flags = self._plain_flags(args[:source])
        rest = super().parse_args(ctx, [*front, *args[source:]])
        ctx.params.update(flags)
        return rest

    def _plain_flags(self, args: list[str]) -> tuple[list[str], dict[str, bool]]:
        """Without --flag=true and --flag=false, which click's flags cannot have, and what those say."""
        keys = {name: option.name or "" for option in self.params if isinstance(option, click.Option)
                and option.is_flag for name in option.opts}  # fmt: skip
        valued, values = self._valued(), dict[str, bool]()
        found: list[str] = []
        rest = iter(args)
        for word in rest:
            name, equals, value = word.partition("=")
            if equals and name in keys and value in BOOLEANS:
                values[keys[name]] = BOOLEANS[value]
                continue
            values.pop(keys.get(word, ""), None)
            found.append("--plan=text" if word == "--plan" else word)
            if word.startswith("-") and _takes_next(word, valued):
                found += [value for value in [next(rest, None)] if value is not None]
        return found, values

    def _valued(self) -> set[str]:
        """The options that have a value; --plan has one behind = only."""
        return {name for option in self.params if isinstance(option, click.Option) and not option.is_flag
                for name in option.opts} - {"--plan"}  # fmt: skip

    def _source(self, args: list[str]) -> int:
        """Index of the first word that is neither an option nor the value of one."""
        valued = self._valued()
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
