"""What an image is, in the keys and the order that docker's `image inspect` and `history` have."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .store import Image

    Json = dict[str, Any]


def inspect(image: "Image") -> "Json":
    """docker's keys.  Size is in bytes, of the blobs as they are transferred."""
    told = image.config
    found: Json = {
        "Id": image.id,
        "RepoTags": [name for name in image.names if "@" not in name],
        "RepoDigests": sorted({f"{_repository(name)}@{image.manifest.digest}" for name in image.names}),
        "Parent": "",
        "Comment": str(told.get("comment") or ""),
        "Created": _text(told, "created"),
        "Author": _text(told, "author"),
        "Config": told.get("config") or {},
        "Architecture": _text(told, "architecture"),
        "Os": _text(told, "os"),
        "Size": image.size,
        "RootFS": {"Type": "layers", "Layers": image.diffs},
    }
    if variant := _text(told, "variant"):
        found["Variant"] = variant
    return found


def history(image: "Image") -> "list[Json]":
    """Its steps, the last first: Id (of the image for the last, "" otherwise), Created, CreatedBy, Size, Comment."""
    told = image.config.get("history")
    steps = [step for step in told if isinstance(step, dict)] if isinstance(told, list) else []
    layers = [layer.size for layer in image.manifest.layers]
    if sum(not step.get("empty_layer") for step in steps) != len(layers):
        # It says nothing, or nothing that can be true.
        steps = [{} for _ in layers]
    sizes = iter(layers)
    found = [
        {
            "Id": "",
            "Created": _text(step, "created"),
            "CreatedBy": _text(step, "created_by"),
            "Size": 0 if step.get("empty_layer") else next(sizes),
            "Comment": _text(step, "comment"),
        }
        for step in steps
    ]
    if found:
        found[-1]["Id"] = image.id
    return found[::-1]


def labels(image: "Image") -> "dict[str, str]":
    config = image.config.get("config")
    found = config.get("Labels") if isinstance(config, dict) else None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _repository(name: str) -> str:
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]


def _text(told: "Json", key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""
