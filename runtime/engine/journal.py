"""Events: a line of JSON for each, in a file below the state root that two generations share."""

import posix
import time

from ..container import default_root
from ..jsontext import dump_json
from ..state import make_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Record

_MAX_SIZE = 1 << 22


def path(generation: int = 0) -> str:
    """Of the current file, or of the one before it."""
    return f"{default_root()}/.events" + (".1" if generation else "")


def note(record: "Record", action: str, **attributes: str) -> None:
    """Append an event of a container, with docker's keys; one write(2), so that lines of many writers never mix."""
    data = record.data
    labels = dict(label.partition("=")[::2] for label in data["config"].get("labels") or ())
    known = {"image": str(data.get("image") or ""), "name": record.name, **labels, **attributes}
    append("container", action, record.id, known)


def append(kind: str, action: str, actor: str, attributes: "dict[str, str]") -> None:
    now = time.time_ns()
    event = {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": attributes},
        "scope": "local",
        "time": now // 1_000_000_000,
        "timeNano": now,
    }
    make_root(default_root())
    try:
        _write(dump_json(event).encode("utf-8", "surrogateescape") + b"\n")
    except OSError:
        pass  # A full disk must not keep a container from being stopped.


def _write(line: bytes) -> None:
    flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
    fd = posix.open(path(), flags, 0o600)
    try:
        posix.write(fd, line)
        if posix.fstat(fd).st_size > _MAX_SIZE:
            posix.rename(path(), path(1))
    finally:
        posix.close(fd)
