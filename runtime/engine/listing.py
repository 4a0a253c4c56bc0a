"""Containers as `ps` lists them, with docker's fields.

Of each no more is read than is asked for: of hundreds most of the time goes into opening files.
"""

import time

from ..cgroups import is_frozen
from ..container import default_root
from ..errors import NotFoundError, WarrenError
from ..host import Host
from ..quantities import format_age, format_span, parse_timestamp
from .connections import networks_of, ports_of, ports_text
from .filters import tests_of, wants_stopped
from .records import Record, record_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Json = dict[str, Any]

_LONGEST = 20
"""Characters of a command."""


class Row:
    """One container; what is asked for is found out once."""

    __slots__ = ("_known", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self._known: Json = {}

    def _once(self, key: str, find: "Callable[[], Any]") -> "Any":
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def config(self) -> "Json":
        return self.record.data["config"]  # type: ignore[no-any-return]

    @property
    def created(self) -> str:
        """RFC 3339; sorts by time."""
        return str(self.record.data.get("created") or "")

    @property
    def life(self) -> "Json":
        return self._once("life", self._life)  # type: ignore[no-any-return]

    def _life(self) -> "Json":
        try:
            return self.record.life()
        except WarrenError:
            return {}  # Damaged; `inspect` says so.

    @property
    def pid(self) -> int:
        return self._once("pid", lambda: self.record.state_dir.process())  # type: ignore[no-any-return]

    @property
    def status(self) -> str:
        """Record.status()."""
        return self._once("status", self._status)  # type: ignore[no-any-return]

    def _status(self) -> str:
        if self.pid:
            return "paused" if is_frozen(self.pid, Host.probe()) else "running"
        return self.record.idle_status(self.life)

    @property
    def image(self) -> str:
        """The name that it was made from; for a directory its path, and "host" for the host's root."""
        return str(self.record.data.get("image") or self.config.get("rootfs") or "host")

    @property
    def command(self) -> str:
        entrypoint = self.config.get("entrypoint")
        return " ".join([*([entrypoint] if entrypoint else []), *self.config.get("argv", [])])

    @property
    def labels(self) -> "dict[str, str]":
        return labels_of(self.config)

    @property
    def mounts(self) -> "list[Json]":
        return self._once("mounts", self._mounts)  # type: ignore[no-any-return]

    def _mounts(self) -> "list[Json]":
        if not self.config.get("resolved_mounts"):
            return []
        from .volumes import mounts_of

        return mounts_of(self.record)

    @property
    def networks(self) -> "list[str]":
        return networks_of(self.config)

    @property
    def ports(self) -> "Any":
        return self._once("ports", lambda: ports_of(self.record) if self.pid else {})

    @property
    def health(self) -> str:
        """starting, healthy or unhealthy; "" for one that nobody checks, or that does not run."""
        if not self.pid or not has_health_check(self.config):
            return ""
        return str(self.record.read_optional("health.json").get("status") or "starting")

    @property
    def status_text(self) -> str:
        """docker's sentence."""
        status = self.status
        if status in ("running", "paused"):
            up = "Up " + format_span(self.record.state_dir.age())
            health = {"": "", "starting": " (health: starting)"}.get(self.health, f" ({self.health})")
            return f"{up} (Paused)" if status == "paused" else up + health
        if status in ("exited", "restarting"):
            ended = self.record.exit()
            ago = format_span(max(0, time.time_ns() - ended.finished) / 1e9) + " ago" if ended else ""
            return f"{status.capitalize()} ({self.record.exit_code()}) {ago}".rstrip()
        return status.capitalize()


class Fields(dict[str, str]):
    """The fields of a row, with docker's method .Label "KEY"."""

    __slots__ = ("methods",)

    def __init__(self, row: Row, names: "Iterable[str]", *, whole: bool = False) -> None:
        super().__init__([(name, FIELDS[name](row, whole)) for name in names])
        self.methods = {"Label": lambda key: row.labels.get(key, "")}


def rows(*, every: bool = False, last: int = -1, filters: "dict[str, list[str]] | None" = None) -> "list[Row]":
    """The newest first: those that run; all with `every`, with a filter for their status, and of the `last` so many."""
    tests = tests_of(filters or {})
    every = every or last >= 0 or wants_stopped(filters or {})
    found = sorted(_candidates(every), key=lambda row: row.created, reverse=True)
    if tests:
        found = [row for row in found if all(test(row) for test in tests)]
    return found[:last] if last >= 0 else found


def _candidates(every: bool) -> "Iterator[Row]":
    root = default_root()
    for container_id in record_ids():
        row = Row(Record(container_id, root=root))
        if not every and not row.pid and row.record.idle_status(row.life) != "restarting":
            continue
        try:
            _ = row.created
        except NotFoundError:
            continue  # Being made or removed.
        except WarrenError:
            row.record.take_damaged()
        yield row


def labels_of(config: "Json") -> "dict[str, str]":
    return {key: value for key, _, value in [str(label).partition("=") for label in config.get("labels") or ()]}


def has_health_check(config: "Json") -> bool:
    if config.get("no_healthcheck"):
        return False
    test = (config.get("image_health") or {}).get("Test") or []
    return bool(config.get("health_cmd")) or bool(test and test[0] != "NONE")


def _id(row: Row, whole: bool) -> str:
    return row.record.id if whole else row.record.id[:12]


def _command(row: Row, whole: bool) -> str:
    return quoted(row.command if whole else _cut(row.command, _LONGEST))


def quoted(text: str) -> str:
    """As Go quotes it: on one line, whatever is in it."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    if not text.isprintable():
        text = "".join([char if char.isprintable() else repr(char)[1:-1] for char in text])
    return f'"{text}"'


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _created_at(row: Row, _whole: bool) -> str:
    if not row.created:
        return ""  # Its record is damaged.
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(parse_timestamp(row.created) // 1_000_000_000))


def _mounts(row: Row, whole: bool) -> str:
    return ",".join([(text if whole else _cut(text, 15)) for mount in row.mounts
                     for text in [mount.get("Name") or mount["Source"]]])  # fmt: skip


def _size(row: Row, _whole: bool) -> str:
    from .sizes import size_text

    return size_text(row.record)


FIELDS: "dict[str, Callable[[Row, bool], str]]" = {
    "Command": _command,
    "CreatedAt": _created_at,
    "ID": _id,
    "Image": lambda row, _: row.image,
    "Labels": lambda row, _: ",".join(f"{key}={value}" for key, value in row.labels.items()),
    "LocalVolumes": lambda row, _: str(sum(mount["Type"] == "volume" for mount in row.mounts)),
    "Mounts": _mounts,
    "Names": lambda row, _: row.name,
    "Networks": lambda row, _: ",".join(row.networks),
    "Ports": lambda row, _: ports_text(row.ports),
    "RunningFor": lambda row, _: format_age(row.created),
    "Size": _size,
    "State": lambda row, _: row.status,
    "Status": lambda row, _: row.status_text,
}
"""docker's, in alphabetical order, with a function of the row and of --no-trunc."""
