"""Tables and templates of lists, as lines; loads nothing, for `ps` has no time for click."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

_GAP = 3


def table_lines(rows: "Sequence[Mapping[str, Any]]", template: str, columns: "dict[str, str]") -> "Iterator[str]":
    """A table with these columns (key: heading), or a template for each row, which "table" in front gives a heading."""
    if not template:
        cells = [tuple(columns.values()), *(tuple(str(row[key]) for key in columns) for row in rows)]
        yield from aligned(cells)
        return
    from ..gotemplate import compile_template

    if not template.startswith("table"):
        yield from map(compile_template(template), rows)
        return
    render = compile_template(template.removeprefix("table").strip() or "\t".join(f"{{{{.{key}}}}}" for key in columns))
    headings = Headings({key: columns.get(key, key.upper()) for key in (*columns, *(rows[0] if rows else ()))})
    yield from aligned([tuple(render(row).split("\t")) for row in (headings, *rows)])


class Headings(dict[str, str]):
    """What a template makes of the heading of each column; a label's is the last part of its name (docker)."""

    @property
    def methods(self) -> "dict[str, Any]":
        return {"Label": lambda name: name.rpartition(".")[2].replace("-", " ").replace("_", " ")}


def aligned(rows: "Sequence[Sequence[str]]") -> "Iterator[str]":
    widths = [0] * max(map(len, rows))
    for row in rows:
        for number, cell in enumerate(row):
            if len(cell) > widths[number]:
                widths[number] = len(cell)
    for row in rows:
        cells = [cell.ljust(width + _GAP) for cell, width in zip(row, widths, strict=False)]
        yield "".join(cells).rstrip()
