"""Removing what nobody needs, and what all that is kept of containers takes."""

from ..errors import NotFoundError, StateError
from . import lifecycle
from .listing import Row, rows
from .sizes import changed_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    Filters = dict[str, list[str]]

_RUNS = ("running", "paused", "restarting")


def prune_containers(filters: "Filters") -> "tuple[list[str], int]":
    """Remove those that do not run and match; their ids, and the bytes that they took."""
    removed, freed = [], 0
    for row in rows(every=True, filters=filters):
        if row.status in _RUNS:
            continue
        size = changed_size(row.record)
        try:
            lifecycle.remove(row.record)
        except (NotFoundError, StateError):
            continue  # Somebody has removed or started it meanwhile.
        removed.append(row.record.id)
        freed += size
    return removed, freed


def container_usage() -> "tuple[list[tuple[Row, int]], int, int]":
    """All containers with the bytes of each, the bytes of all, and of those that do not run."""
    found = [(row, changed_size(row.record)) for row in rows(every=True)]
    idle = sum(size for row, size in found if row.status not in _RUNS)
    return found, sum(size for _, size in found), idle
