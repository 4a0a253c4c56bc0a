"""What an image says of its containers (image-spec, config.md), laid below what the user says, as docker does it."""

from ..errors import ImageError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import ContainerConfig

    Json = dict[str, Any]


def apply(config: "ContainerConfig", image: "Json") -> None:
    """Entrypoint, Cmd, Env, User, WorkingDir, and what the engine does with the container.

    --entrypoint takes the image's Cmd away with its Entrypoint; of labels with one key the user's is the last.
    """
    told = image.get("config") or {}
    if not isinstance(told, dict):
        raise ImageError("image configuration: config is no object")
    entrypoint, command = _strings(told, "Entrypoint"), _strings(told, "Cmd")
    own = list(config.argv)
    argv = [*entrypoint, *(own or command)] if config.entrypoint is None else own
    if not argv and not config.entrypoint:
        raise UsageError("no command is given, and the image has none", hint="warren run IMAGE COMMAND...")
    config.argv = argv
    config.env = [*_strings(told, "Env"), *config.env]
    if config.user is None and told.get("User"):
        config.user = str(told["User"])
    config.workdir = config.workdir or str(told.get("WorkingDir") or "/")
    config.labels = [*(f"{key}={value}" for key, value in _object(told, "Labels").items()), *config.labels]
    config.stop_signal = config.stop_signal or str(told.get("StopSignal") or "")
    config.image_volumes = [path for path in _object(told, "Volumes") if path.startswith("/") and "\0" not in path]
    config.exposed_ports = sorted({*config.exposed_ports, *(_port(port) for port in _object(told, "ExposedPorts"))})
    if isinstance(told.get("Healthcheck"), dict) and not config.no_healthcheck:
        config.image_health = told["Healthcheck"]


def _object(told: "Json", key: str) -> "Json":
    """An object of the configuration; buildah and old builders write null for an empty one."""
    found = told.get(key) or {}
    if not isinstance(found, dict):
        raise ImageError(f"image configuration: {key} must be an object")
    return found


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _strings(told: "Json", key: str) -> "list[str]":
    found = told.get(key) or []
    if not isinstance(found, list) or not all(isinstance(word, str) and "\0" not in word for word in found):
        raise ImageError(f"image configuration: {key} must be a list of strings")
    return found
