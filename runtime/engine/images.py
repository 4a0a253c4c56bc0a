"""Images and the containers that use them."""

from ..config import ContainerConfig, image_config
from ..errors import NotFoundError, UsageError
from .records import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..images.store import Image, Store
    from ..images.upkeep import Problem, Usage

    Fetch = Callable[[str, Store], Image]


def take_image(config: ContainerConfig, store: "Store", policy: str, fetch: "Fetch | None" = None) -> "Image":
    """Let the configuration be the image's where it says nothing itself, and keep its layers for the container.

    `policy` is docker's --pull: missing, always, never; `fetch` pulls, images.pull.pull by default.  Raises
    NotFoundError, ImageError.
    """
    if policy not in ("missing", "always", "never"):
        raise UsageError(f"--pull {policy!r} is unknown", hint="missing, always or never")
    try:
        image = store.find(config.image) if policy != "always" else None
    except NotFoundError:
        if policy == "never":
            raise
        image = None
    if image is None:
        from ..images.pull import pull

        image = (fetch or pull)(config.image, store)
    if config.keep_changes:
        from ..images.changes import remember

        remember(config.keep_changes, image.manifest.digest)
    store.use(config.id, image.chains)
    config.layers = store.layer_paths(image.chains)
    image_config.apply(config, image.config)
    return image


def unused_names(store: "Store", *, every: bool) -> "list[str]":
    """Names of images that no container uses; without `every` only those that were made up for nameless images."""
    used = store.chains_in_use(exists())
    return [
        name
        for image in store.images()
        if image.chains not in used
        for name in image.names
        if every or name.startswith("localhost/loaded@")
    ]


def verify_images(*, repair: bool) -> "list[Problem]":
    """What is damaged in the store, and whether it was repaired; layers of containers are left alone."""
    from ..images.store import Store
    from ..images.upkeep import verify

    return verify(Store(), repair=repair, in_use=exists())


def image_usage(store: "Store") -> "tuple[list[Usage], int, int, int]":
    """What images take on disk; images.upkeep.usage's."""
    from ..images.upkeep import usage

    return usage(store, exists())


def collect_images(store: "Store") -> int:
    """Remove what no image's name and no container needs any more; bytes of the blobs."""
    return store.collect(exists())
