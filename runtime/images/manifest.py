"""Manifests and indexes, OCI's and docker's (image-spec, manifest.md, image-index.md; distribution, manifest-v2-2).

Reads what a registry or an archive holds, and says no to what is not what it claims to be; fetches nothing.
"""

from ..errors import ImageError, SpecError, UnsupportedError
from ..jsontext import dump_json, parse_json
from .reference import Reference, is_digest

try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # Python 3.11.
    from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFESTS, INDEXES = (OCI_MANIFEST, DOCKER_MANIFEST), (OCI_INDEX, DOCKER_LIST)
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
MAX_SIZE = 4 << 20
"""Bytes of a manifest, an index or a configuration, as registries have it."""
MAX_LAYERS = 500
"""overlayfs takes no more."""
_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)


class Descriptor:
    """What a blob is, its digest and its size in bytes (image-spec, descriptor.md)."""

    __slots__ = ("annotations", "digest", "platform", "size", "type")

    def __init__(self, type: str, digest: str, size: int, platform: "Json | None" = None) -> None:
        self.type = type
        self.digest = digest
        self.size = size
        self.platform = platform or {}
        self.annotations: dict[str, str] = {}

    def to_json(self) -> "Json":
        found: Json = {"mediaType": self.type, "digest": self.digest, "size": self.size}
        if self.platform:
            found["platform"] = self.platform
        if self.annotations:
            found["annotations"] = self.annotations
        return found


class Manifest:
    """An image for one platform; `raw` are the very bytes that its digest is of."""

    __slots__ = ("config", "digest", "layers", "raw", "type")

    def __init__(self, type: str, raw: bytes, config: Descriptor, layers: "list[Descriptor]") -> None:
        self.type = type
        self.raw = raw
        self.digest = digest_of(raw)
        self.config = config
        self.layers = layers

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.type, self.digest, len(self.raw))


def digest_of(data: bytes) -> str:
    """Of small documents.  hashlib loads OpenSSL, 2.5 ms that a launch from a stored image does not have to pay."""
    return f"sha256:{sha256(data).hexdigest()}"


def kind(document: "Json", told: str = "") -> str:
    """The media type: what the document says of itself, else what came with it, else what it looks like.

    Raises ImageError for one that says two things (CVE-2021-41190), UnsupportedError for docker's schema 1.
    """
    if document.get("schemaVersion") == 1:
        raise UnsupportedError("manifest of docker's schema 1, given up in 2017", hint="push the image again")
    said = document.get("mediaType")
    if said is not None and not isinstance(said, str):
        raise ImageError("manifest: mediaType must be a string")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ImageError("manifest: it is an index and a manifest at once")
    looks = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if (said in MANIFESTS and told in INDEXES) or (said in INDEXES and told in MANIFESTS):
        raise ImageError(f"manifest: it says {said} and came as {told}")
    found = said or (told if told in (*MANIFESTS, *INDEXES) else looks)
    if (found in INDEXES) != ("manifests" in document):
        raise ImageError(f"manifest: it says {found} and looks like {looks}")
    if found not in (*MANIFESTS, *INDEXES):
        raise UnsupportedError(f"manifest of type {found}")
    return found


def document(raw: bytes, what: str) -> "Json":
    """A JSON object of at most MAX_SIZE bytes."""
    if len(raw) > MAX_SIZE:
        raise ImageError(f"{what}: {len(raw)} bytes, more than {MAX_SIZE}")
    try:
        found = parse_json(raw, what)
    except SpecError as error:
        raise ImageError(error.message) from error
    if not isinstance(found, dict):
        raise ImageError(f"{what}: not an object")
    return found


def parse_manifest(raw: bytes, told: str = "") -> Manifest:
    """Raises ImageError for what is none; layers of unknown types are an error, artifacts are no images."""
    found = document(raw, "manifest")
    type = kind(found, told)
    if type not in MANIFESTS:
        raise ImageError(f"manifest: {type} where an image was expected")
    layers = found.get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise ImageError("manifest: layers must be a list, not too long")
    config = parse_descriptor(found.get("config"), "config")
    if config.type not in _CONFIGS:
        raise UnsupportedError(f"{config.type} is no image that can be run")
    descriptors = [parse_descriptor(layer, f"layers[{index}]") for index, layer in enumerate(layers)]
    for layer in descriptors:
        if "image.layer" not in layer.type and "rootfs.diff" not in layer.type:
            raise UnsupportedError(f"layer of type {layer.type}")
    return Manifest(type, raw, config, descriptors)


def parse_index(raw: bytes) -> "list[Descriptor]":
    """Descriptors of manifests and of further indexes, but for attestations (unknown/unknown, RULES 21)."""
    entries = document(raw, "index").get("manifests")
    if not isinstance(entries, list) or len(entries) > 10000:
        raise ImageError("index: manifests must be a list, not too long")
    found = [parse_descriptor(entry, f"manifests[{index}]") for index, entry in enumerate(entries)]
    return [entry for entry in found if entry.platform.get("os") != "unknown"]


def choose(entries: "list[Descriptor]", wanted: "Json") -> "list[Descriptor]":
    """Those for the platform, the best first: the very variant, then older ones of arm, then those that name none.

    Nested indexes have no platform, and stand at the end.
    """
    ranked = [(_rank(entry.platform, wanted), entry) for entry in entries]
    return [entry for rank, entry in sorted(ranked, key=lambda pair: pair[0]) if rank < 100]


def _rank(platform: "Json", wanted: "Json") -> int:
    if not platform:
        return 50
    if platform.get("os", "linux") != wanted["os"] or platform.get("architecture") != wanted["architecture"]:
        return 100
    have, want = str(platform.get("variant") or ""), str(wanted.get("variant") or "")
    if have == want:
        return 0
    if not have or not want:
        return 20
    has, needs = _version(have), _version(want)
    return 100 if has < 0 or has > needs >= 0 else 10 - has


def _version(variant: str) -> int:
    """5 of v5; -1 for what has no such number."""
    return int(variant[1]) if len(variant) == 2 and variant[0] == "v" and variant[1] in "123456789" else -1


def default_platform(machine: str) -> "Json":
    """Of this machine, in Go's words (image-spec, image-index.md, "Platform Variants")."""
    names = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "i686": ("386", "")}
    architecture, variant = names.get(machine, (machine, ""))
    return {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}


def parse_platform(text: str) -> "Json":
    """linux/arm64/v8, as docker's --platform."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or "" in parts:
        raise ImageError(f"platform {text!r} is not OS/ARCHITECTURE[/VARIANT]")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))


def parse_descriptor(value: object, where: str) -> Descriptor:
    """Raises ImageError that names `where`."""
    if not isinstance(value, dict):
        raise ImageError(f"manifest: {where}: not an object")
    type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(type, str) or not isinstance(digest, str) or not is_digest(digest):
        raise ImageError(f"manifest: {where}: mediaType or digest is none")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise ImageError(f"manifest: {where}: size {size!r}")
    platform = value.get("platform")
    if platform is not None and not isinstance(platform, dict):
        raise ImageError(f"manifest: {where}: platform is no object")
    found = Descriptor(type, digest, size, platform)
    annotations = value.get("annotations")
    if isinstance(annotations, dict):
        found.annotations = {str(key): str(text) for key, text in annotations.items()}
    return found


def diff_ids(config: "Json", layers: int) -> "list[str]":
    """rootfs.diff_ids of an image's configuration (config.md), one for each layer."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if (
        not isinstance(found, list)
        or len(found) != layers
        or not all(isinstance(d, str) and is_digest(d) for d in found)
    ):
        raise ImageError(f"image configuration: {layers} layers and other diff_ids")
    return found


def chain_ids(diffs: "list[str]") -> "list[str]":
    """What names a layer together with all below it (config.md, "Layer ChainID")."""
    chains: list[str] = []
    for diff in diffs:
        chains.append(digest_of(f"{chains[-1]} {diff}".encode()) if chains else diff)
    return chains


def make_manifest(config: bytes, layers: "list[Descriptor]") -> Manifest:
    """An OCI manifest of an image that was made here."""
    described = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return Manifest(OCI_MANIFEST, dump_json(content).encode(), described, layers)


def describe_layer(pieces: "Iterator[bytes]", digest: str, size: int) -> Descriptor:
    """A layer's descriptor, whose type tells how it is compressed, by its first bytes."""
    start = next(pieces, b"")[:4]
    ending = "+gzip" if start.startswith(b"\x1f\x8b") else "+zstd" if start == b"\x28\xb5\x2f\xfd" else ""
    return Descriptor(OCI_LAYER + ending, digest, size)


def nameless(digest: str) -> Reference:
    """What an image without a name is found by, until it is pruned."""
    return Reference("localhost", "loaded", digest=digest)
