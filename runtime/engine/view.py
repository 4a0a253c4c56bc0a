"""What `inspect` tells of a container, in docker's keys.

Beyond docker's there are `enforced`, how each limit is held or why not, and `relaxed`, each option that takes away
from the isolation that is the default.
"""

import posix

from ..errors import NotFoundError, StateError, UnsupportedError
from ..quantities import duration, timestamp
from . import health
from .connections import settings_of
from .hostconfig import host_config
from .listing import has_health_check, labels_of
from .records import find
from .relaxations import relaxations
from .volumes import mounts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..config import ContainerConfig
    from .records import Record

    Json = dict[str, Any]


def inspect(text: str, *, size: bool = False) -> "Json":
    """What is known of a container; with `size` also what it takes on disk.  NotFoundError."""
    return describe(find(text), size=size)


def describe(record: "Record", *, size: bool = False) -> "Json":
    data, config = record.data, record.config()
    argv = [*([config.entrypoint] if config.entrypoint else []), *config.argv]
    found = {
        "Id": record.id,
        "Created": data.get("created"),
        "Path": argv[0] if argv else "",
        "Args": argv[1:],
        "State": _state(record),
        "Image": data.get("image_id"),
        "ImageDigest": data.get("manifest") or "",
        "ResolvConfPath": _own_file(record, "resolv.conf"),
        "HostnamePath": _own_file(record, "hostname"),
        "HostsPath": _own_file(record, "hosts"),
        "LogPath": "" if config.log_driver == "none" else record.path + "/log",
        "LogLost": ended.lost if (ended := record.exit()) else 0,
        "Name": record.name,
        "RestartCount": int(record.life().get("restarts") or 0),
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host_config(config),
        "GraphDriver": _graph(record, config),
        "Mounts": mounts_of(record),
        "Config": _config(record, config),
        "NetworkSettings": settings_of(record),
        "enforced": record.life().get("enforced") or {},
        "relaxed": relaxations(config),
    }
    if size:
        from .sizes import changed_size, whole_size

        found |= {"SizeRw": changed_size(record), "SizeRootFs": whole_size(record)}
    return found


def _state(record: "Record") -> "Json":
    life, ended, status = record.life(), record.exit(), record.status()
    running = status in ("running", "paused")
    state = {
        "Status": status,
        "Running": running,
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": bool(life.get("oom_killed")) or (running and _oom_kills(record) > 0),
        "Dead": status == "dead",
        "Pid": record.state_dir.process(),
        "ExitCode": 0 if running else record.exit_code(),
        "Error": str(life.get("error") or ""),
        "StartedAt": timestamp(int(life.get("started") or 0)),
        "FinishedAt": timestamp(0 if running or not ended else ended.finished),
    }
    if has_health_check(record.data["config"]):
        known = health.read(record)
        results = known.get("log") or []
        state["Health"] = {
            "Status": str(known.get("status") or ("starting" if running else "none")),
            "FailingStreak": int(known.get("failing") or 0),
            "Log": [{**one, "Start": timestamp(one["Start"]), "End": timestamp(one["End"])} for one in results],
        }
    return state


def _oom_kills(record: "Record") -> int:
    try:
        return record.container.oom_kills()
    except (NotFoundError, StateError, UnsupportedError):
        return 0


def _own_file(record: "Record", name: str) -> str:
    """A file that is bound over the image's, where there is one."""
    path = f"{record.path}/{name}"
    return path if posix.access(path, posix.F_OK) else ""


def _graph(record: "Record", config: "ContainerConfig") -> "Json":
    chains, keep = record.data.get("chains") or [], config.keep_changes or record.path
    if chains:
        from ..images.store import Store

        store = Store()
        lower = [store.layer_path(chain) for chain in chains]
    else:
        lower = [] if config.write else [config.rootfs or "/"]
    pid = record.state_dir.process()
    writes_below = config.write and bool(config.rootfs)
    return {
        "Name": "overlay",
        "Data": {
            "LowerDir": ":".join(lower),
            "MergedDir": f"/proc/{pid}/root" if pid else "",
            "UpperDir": config.rootfs if writes_below else f"{keep}/upper",
            "WorkDir": "" if writes_below else f"{keep}/work",
        },
    }


def _config(record: "Record", config: "ContainerConfig") -> "Json":
    entrypoint, command = _words(record, config)
    found: Json = {
        "Hostname": config.hostname or record.id[:12],
        "Domainname": "",
        "User": config.user or "",
        "AttachStdin": config.stdin_once,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": {port: {} for port in config.exposed_ports} or None,
        "Tty": config.tty,
        "OpenStdin": config.interactive,
        "StdinOnce": config.stdin_once,
        "Env": list({entry.partition("=")[0]: entry for entry in config.env}.values()),
        "Cmd": command or None,
        "Healthcheck": _health_check(config),
        "Image": record.data.get("image") or "",
        "Volumes": {path: {} for path in config.image_volumes} or None,
        "WorkingDir": config.workdir,
        "Entrypoint": entrypoint or None,
        "OnBuild": None,
        "Labels": labels_of(record.data["config"]),
        "Annotations": dict(entry.partition("=")[::2] for entry in config.annotations),
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
        "Timeout": config.timeout,
    }
    optional = ("ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Timeout", "Annotations")
    return {key: value for key, value in found.items() if key not in optional or value not in (None, "", {})}


def _words(record: "Record", config: "ContainerConfig") -> "tuple[list[str], list[str]]":
    """Entrypoint and Cmd; the image's Entrypoint has become a part of argv."""
    if config.entrypoint:
        return [config.entrypoint], list(config.argv)
    entrypoint = list(record.data.get("entrypoint") or [])
    argv = list(config.argv)
    if entrypoint and argv[: len(entrypoint)] == entrypoint:
        return entrypoint, argv[len(entrypoint) :]
    return [], argv


def _health_check(config: "ContainerConfig") -> "Json | None":
    """The image's, and what --health-* say instead; durations in nanoseconds."""
    if config.no_healthcheck:
        return {"Test": ["NONE"]}
    found: Json = dict(config.image_health or {})
    if config.health_cmd:
        found["Test"] = ["CMD-SHELL", config.health_cmd]
    words = {"Interval": config.health_interval, "Timeout": config.health_timeout,
             "StartPeriod": config.health_start_period}  # fmt: skip
    found |= {key: int(duration(text, "--health") * 1e9) for key, text in words.items() if text}
    if config.health_retries:
        found["Retries"] = config.health_retries
    return found if found.get("Test") else None
