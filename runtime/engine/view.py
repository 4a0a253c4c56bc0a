"""What is told of containers, in docker's words and keys."""

from ..errors import NotFoundError
from .records import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .records import Record

    Json = dict[str, Any]


def inspect(text: str) -> "Json":
    """What is known of a container, in docker's keys; `enforced` says how each of its limits is held."""
    return describe(find(text))


def describe(record: "Record") -> "Json":
    data, life, ended = record.data, record.life(), record.exit()
    from .lifecycle import timestamp

    status = record.status()
    running = status in ("running", "paused")
    pid = record.state_dir.process()
    return {
        "Id": record.id,
        "Created": data.get("created"),
        "Name": record.name,
        "State": {
            "Status": status,
            "Running": running,
            "Paused": status == "paused",
            "Restarting": status == "restarting",
            "OOMKilled": bool(life.get("oom_killed")) or (running and _oom_kills(record) > 0),
            "Dead": False,
            "Pid": pid,
            "ExitCode": 0 if running else record.exit_code(),
            "Error": str(life.get("error") or ""),
            "StartedAt": timestamp(int(life.get("started") or 0)),
            "FinishedAt": timestamp(0 if running or not ended else ended.finished),
        },
        "Image": data.get("image_id"),
        "RestartCount": int(life.get("restarts") or 0),
        "LogPath": record.path + "/log",
        "enforced": life.get("enforced") or {},
    }


def _oom_kills(record: "Record") -> int:
    try:
        return record.container.oom_kills()
    except NotFoundError:
        return 0
