"""Removing what nobody needs, and what all that is kept of containers takes."""

from ..errors import NotFoundError, StateError
from . import lifecycle, volumes
from .listing import Row, rows
from .records import exists
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


class VolumeUsage:
    """A volume, the bytes in it, and how many containers have it."""

    __slots__ = ("links", "name", "size")

    def __init__(self, name: str, size: int, links: int) -> None:
        self.name = name
        self.size = size
        self.links = links

    @property
    def active(self) -> bool:
        return bool(self.links)


def volume_usage() -> "list[VolumeUsage]":
    there = exists()
    return [VolumeUsage(one.name, volumes.size_of(one), len(one.users(there))) for one in volumes.volumes()]


def container_usage() -> "tuple[list[tuple[Row, int]], int, int]":
    """All containers with the bytes of each, the bytes of all, and of those that do not run."""
    found = [(row, changed_size(row.record)) for row in rows(every=True)]
    idle = sum(size for row, size in found if row.status not in _RUNS)
    return found, sum(size for _, size in found), idle
