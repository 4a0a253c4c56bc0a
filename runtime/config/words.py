"""Options in docker's words, taken apart: --security-opt, --ulimit, --device."""

import posix

from ..errors import UnsupportedError, UsageError
from ..host import Host
from ..quantities import is_number
from ..spec import MASKED_PATHS, READONLY_PATHS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Json = dict[str, Any]

_RLIMITS = ("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
            "rttime", "sigpending", "stack", "as")  # fmt: skip
_RESOURCE_NUMBERS = {"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7,
                     "memlock": 8, "as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14,
                     "rttime": 15}  # fmt: skip


def mount_entry(destination: str, kind: str, source: str, options: "list[str]") -> "Json":
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def absolute_path(path: str) -> str:
    """Absolute, from the caller's directory."""
    return path if path.startswith("/") else f"{posix.getcwd().rstrip('/')}/{path}"


class Security:
    """--security-opt, taken apart."""

    __slots__ = ("masked", "no_new_privileges", "readonly", "seccomp", "unconfined_paths")

    def __init__(self) -> None:
        self.no_new_privileges = True
        self.seccomp = "builtin"  # or unconfined, or a file
        self.unconfined_paths = False
        self.masked = list(MASKED_PATHS)
        self.readonly = list(READONLY_PATHS)


def security_options(texts: "Sequence[str]") -> Security:
    """--security-opt KEY=VALUE; UsageError for an unknown one."""
    security = Security()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            key, _, value = text.partition(":")
        if key == "no-new-privileges":
            security.no_new_privileges = yes_or_no(value or "true", "--security-opt no-new-privileges")
        elif key == "systempaths" and value == "unconfined":
            security.unconfined_paths = True
        elif key == "mask" and value:
            security.masked += [absolute(path) for path in value.split(":")]
        elif key == "unmask" and value:
            _unmask(security, value)
        elif key == "seccomp" and value:
            security.seccomp = value
        elif key in ("apparmor", "label") and value in ("unconfined", "disable"):
            pass
        elif key in ("apparmor", "label"):
            raise UnsupportedError(f"--security-opt {key} is not supported yet", hint="it comes with a later release")
        else:
            raise UsageError(f"--security-opt {text!r} is unknown")
    return security


def _unmask(security: Security, value: str) -> None:
    if value.upper() == "ALL":
        security.unconfined_paths = True
        return
    paths = value.split(":")
    security.masked = [path for path in security.masked if path not in paths]
    security.readonly = [path for path in security.readonly if path not in paths]


def yes_or_no(text: str, option: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise UsageError(f"{option} is true or false, not {text!r}")
    return text.lower() in ("true", "1")


def pair(text: str, option: str) -> "tuple[str, str]":
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{option} {text!r} is not KEY=VALUE")
    return key, value


def absolute(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{path!r} is not an absolute path")
    return path


def rlimits(texts: "Iterable[str]", host: Host) -> "list[Json]":
    """--ulimit TYPE=SOFT[:HARD]; -1 is unlimited.  One above our own hard limit needs CAP_SYS_RESOURCE."""
    limits = {}
    for text in texts:
        kind, value = pair(text, "--ulimit")
        soft, _, hard = value.partition(":")
        if kind not in _RLIMITS:
            raise UsageError(f"--ulimit {kind!r} is unknown", hint=", ".join(_RLIMITS))
        numbers = [_limit(part, text) for part in (soft, hard or soft)]
        if numbers[0] > numbers[1]:
            raise UsageError(f"--ulimit {text}: the soft limit is above the hard one")
        _check_hard(kind, numbers[1], host)
        limits[kind] = {"type": f"RLIMIT_{kind.upper()}", "soft": numbers[0], "hard": numbers[1]}
    return list(limits.values())


def _limit(text: str, whole: str) -> int:
    if text == "-1":
        return (1 << 64) - 1
    if not is_number(text) or len(text) > 19:
        raise UsageError(f"--ulimit {whole!r} is malformed", hint="TYPE=SOFT[:HARD]")
    return int(text)


def _check_hard(kind: str, hard: int, host: Host) -> None:
    import resource

    own = resource.getrlimit(_RESOURCE_NUMBERS[kind])[1]
    if own != resource.RLIM_INFINITY and hard > own and not host.has_resource:
        raise UsageError(f"--ulimit {kind}: the hard limit here is {own}", hint="raising it needs CAP_SYS_RESOURCE")


def device(text: str) -> "tuple[str, Json, str]":
    """--device HOST[:CONTAINER[:PERMISSIONS]]: the host's path, the container's node and what it may do with it."""
    parts = text.split(":")
    if len(parts) == 2 and not parts[1].startswith("/"):
        parts.insert(1, parts[0])
    source, target = parts[0], parts[1] if len(parts) > 1 else parts[0]
    if len(parts) > 3 or not source.startswith("/") or not target.startswith("/"):
        raise UsageError(f"--device {text!r} is malformed", hint="HOST[:CONTAINER[:PERMISSIONS]]")
    if len(parts) == 3 and (not parts[2] or set(parts[2]) - set("rwm")):
        raise UsageError(f"--device {text!r}: permissions are made of r, w and m")
    permissions = parts[2] if len(parts) == 3 else "rwm"
    return source, device_node(source, target), permissions


def device_node(source: str, target: str) -> "Json":
    """The spec's description of the host's device `source` as `target`; UsageError when it is none."""
    try:
        info = posix.stat(source)
    except OSError as error:
        raise UsageError(f"--device {source}: {posix.strerror(error.errno or 0)}".lower()) from error
    kind = {0o020000: "c", 0o060000: "b"}.get(info.st_mode & 0o170000)
    if not kind:
        raise UsageError(f"--device {source} is not a device")
    device = info.st_rdev
    major = (device >> 8 & 0xFFF) | (device >> 32 & ~0xFFF)
    minor = (device & 0xFF) | (device >> 12 & ~0xFF)
    return {
        "path": target, "type": kind, "major": major, "minor": minor,
        "fileMode": info.st_mode & 0o777, "uid": info.st_uid, "gid": info.st_gid,
    }  # fmt: skip


def is_cdi_name(text: str) -> bool:
    """Whether the value of --device names a CDI device: VENDOR/CLASS=NAME."""
    return not text.startswith("/") and "=" in text


class Edits:
    """What a container gets for its CDI devices: words of the OCI spec, and device nodes as device() tells them."""

    __slots__ = ("env", "gids", "hooks", "mounts", "net_devices", "nodes", "owned", "rdt")

    def __init__(self) -> None:
        self.env: list[str] = []
        self.mounts: list[Json] = []
        self.nodes: list[tuple[str, Json, str]] = []
        self.owned = False
        """Whether a node is to have another owner or mode than the host's."""
        self.hooks: dict[str, list[Json]] = {}
        self.gids: list[int] = []
        self.rdt: Json | None = None
        self.net_devices: dict[str, Json] = {}
