"""What devices through CDI change in a container; cdi.py, which reads their specs, is loaded for one that is asked for."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Json = dict[str, Any]


class Edits:
    """What a container gets: words of the OCI spec, and the device nodes as config.words.device() tells them."""

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


def is_name(text: str) -> bool:
    """Whether the value of --device names a CDI device: VENDOR/CLASS=NAME."""
    return not text.startswith("/") and "=" in text


def edits_of(devices: "Sequence[str]") -> Edits:
    """Of those values of --device that are names; UsageError."""
    names = [text for text in devices if is_name(text)]
    if not names:
        return Edits()
    from .cdi import edits

    return edits(names)
