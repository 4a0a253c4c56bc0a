"""The mounts that a container was asked to have, as docker's `inspect` tells them."""

from ..container import default_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def mounts_of(config: "Json") -> "list[Json]":
    """Mounts of -v and --mount, and the volumes of the image, by destination; --tmpfs is none for docker either."""
    found = [_volume(str(text)) for text in config.get("volumes") or ()]
    found += [_mount(str(text)) for text in config.get("mounts") or ()]
    return found


def _volume(text: str) -> "Json":
    source, _, rest = text.partition(":")
    destination, _, options = rest.partition(":")
    if not rest:
        source, destination = "", source
    words = [word for word in options.split(",") if word]
    return _described(source, destination, words, "volume" if _is_name(source) else "bind")


def _mount(text: str) -> "Json":
    given = {part.partition("=")[0]: part.partition("=")[2] for part in text.split(",")}
    source = given.get("source") or given.get("src") or ""
    destination = given.get("target") or given.get("destination") or given.get("dst") or ""
    words = ["ro"] if any(given.get(name, "false") in ("", "true", "1") for name in ("ro", "readonly")) else []
    return _described(source, destination, [*words, given.get("bind-propagation", "")], given.get("type") or "volume")


def _is_name(source: str) -> bool:
    return not source.startswith(("/", "."))


def _described(source: str, destination: str, words: "list[str]", kind: str) -> "Json":
    named = kind == "volume"
    return {
        "Type": kind,
        "Name": source if named else "",
        "Source": f"{default_data()}/volumes/{source}/_data" if named and source else source,
        "Destination": destination,
        "Driver": "local" if named else "",
        "Mode": ",".join(word for word in words if word and word not in _PROPAGATIONS),
        "RW": not {"ro", "rro"} & set(words),
        "Propagation": next((word for word in words if word in _PROPAGATIONS), "rprivate" if kind == "bind" else ""),
    }
