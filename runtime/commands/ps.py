"""Commands that are done without click, which takes longer to load than they take: `ps`.

What the parser of options.py is not sure of is left to click, which has the same options (listing.py).
"""

import sys

from ..engine.filters import OF_PS, parse_filters
from ..engine.listing import FIELDS, Fields, Row, rows
from ..jsontext import dump_json
from ..options import PS, parse
from .tables import table_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_COLUMNS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "Status": "STATUS",
    "Ports": "PORTS", "Names": "NAMES",
}  # fmt: skip
_HEADINGS = {
    **_COLUMNS, "CreatedAt": "CREATED AT", "Labels": "LABELS", "LocalVolumes": "LOCAL VOLUMES", "Mounts": "MOUNTS",
    "Networks": "NETWORKS", "Size": "SIZE", "State": "STATE",
}  # fmt: skip


def answer(words: "Sequence[str]") -> "int | None":
    """Print the list; None for what click has to deal with.  The first word is the command."""
    parsed = parse(PS, words[1:])
    if parsed is None or parsed[1]:
        return None
    sys.stdout.write("".join([line + "\n" for line in ps_lines(parsed[0])]))
    return 0


def ps_lines(values: "dict[str, Any]") -> "Iterator[str]":
    last = 1 if values["latest"] else values["last"]
    filters = parse_filters(values["filter"], OF_PS)
    found = rows(every=values["all"], last=last, filters=filters)
    whole, template = values["no_trunc"], values["format"]
    if values["quiet"]:
        return iter([row.record.id if whole else row.record.id[:12] for row in found])
    if template == "json":
        names = [name for name in FIELDS if name != "Size" or values["size"]]
        return iter([dump_json(Fields(row, names, whole=whole)) for row in found])
    return _table(found, values["size"], template, whole=whole)


def _table(found: "list[Row]", size: bool, template: str, *, whole: bool) -> "Iterator[str]":
    columns = {**_COLUMNS, **({"Size": "SIZE"} if size else {})}
    shown = [name for name in FIELDS if name != "Size" or size or ".Size" in template]
    asked = shown if template else list(columns)
    fields = [Fields(row, asked, whole=whole) for row in found]
    return table_lines(fields, template, columns if not template else {name: _HEADINGS[name] for name in asked})
