"""From the store to a registry: what it has already is not sent again, and blobs go as they were fetched."""

from ..errors import NotFoundError
from . import reference
from .configuration import Registries
from .registry import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .reference import Reference
    from .store import Image, Store

    Progress = Callable[[str, int, int], None]


def _silent(_digest: str, _done: int, _size: int) -> None:
    pass


def push(
    image: "Image",
    ref: "Reference",
    store: "Store",
    *,
    registries: "Registries | None" = None,
    progress: "Progress" = _silent,
) -> str:
    """Upload the image under this name; the digest of its manifest.  Raises RegistryError, NotFoundError."""
    endpoint = (registries or Registries()).endpoints(ref)[-1]  # Never to a mirror.
    registry = Registry(endpoint)
    with store.adding():
        near = _neighbours(image, ref)
        for blob in [*image.manifest.layers, image.manifest.config]:
            if not registry.has_blob(blob.digest):
                if not store.has_blob(blob.digest):
                    raise NotFoundError(f"blob {blob.digest} is not in the store", hint="pull the image again")
                pieces = _watched(store.open_blob(blob.digest), blob.digest, blob.size, progress)
                registry.push_blob(blob.digest, blob.size, pieces, mount_from=near)
            progress(blob.digest, blob.size, blob.size)
        registry.push_manifest(ref.wanted, image.manifest.raw, image.manifest.type)
    return image.manifest.digest


def _neighbours(image: "Image", ref: "Reference") -> str:
    """Another repository of the same registry that has the image, by its names here: its blobs can be mounted."""
    names = [reference.parse(name) for name in image.names]
    return next((name.repository for name in names if name.host == ref.host and name.repository != ref.repository), "")


def _watched(pieces: "Iterator[bytes]", digest: str, size: int, progress: "Progress") -> "Iterator[bytes]":
    done = 0
    for piece in pieces:
        done += len(piece)
        progress(digest, done, size)
        yield piece
