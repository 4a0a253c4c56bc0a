"""Images and the containers that use them."""

from ..config import ContainerConfig, image_config
from ..errors import ImageError, NotFoundError, StateError, UsageError
from .records import Record, exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..images.local import Image, LocalStore
    from ..images.store import Store
    from ..images.upkeep import Problem, Usage

    Fetch = Callable[[str, Store], Image]


def take_image(
    config: ContainerConfig, store: "LocalStore", policy: str, fetch: "Fetch | None" = None, platform: str = ""
) -> "Image":
    """choose_image() and use_image()."""
    image = choose_image(config.image, store, policy, fetch, platform)
    use_image(config, store, image)
    return image


def choose_image(
    name: str, store: "LocalStore", policy: str, fetch: "Fetch | None" = None, platform: str = ""
) -> "Image":
    """The image of that name, pulled if need be.

    `policy` is docker's --pull: missing, always, never; `fetch` pulls, images.pull.pull by default.  An image for
    another `platform` than the one that is asked for is as good as none.  Raises NotFoundError, ImageError.
    """
    if policy not in ("missing", "always", "never"):
        raise UsageError(f"--pull {policy!r} is unknown", hint="missing, always or never")
    return _stored(name, store, policy, platform) or _pull(name, store, fetch)


def use_image(config: ContainerConfig, store: "LocalStore", image: "Image") -> None:
    """Let the configuration be the image's where it says nothing itself, and keep its layers for the container."""
    if config.keep_changes:
        from ..images.changes import remember

        remember(config.keep_changes, image.manifest.digest)
    store.use(config.id, image.chains)
    config.layers = store.layer_paths(image.chains)
    image_config.apply(config, image.config)


def _stored(name: str, store: "LocalStore", policy: str, platform: str) -> "Image | None":
    """What is there already; None when it is to be pulled."""
    if policy == "always":
        return None
    try:
        image = store.find(name)
        if platform and not _is_for(image, platform):
            raise NotFoundError(
                f"no such image for {platform}: {name}", hint=f"warren pull --platform {platform} {name}"
            )
        return image
    except NotFoundError:
        if policy == "never":
            raise
        return None


def _is_for(image: "Image", platform: str) -> bool:
    from ..images.manifest import parse_platform

    return all(str(image.config.get(key) or "") == value for key, value in parse_platform(platform).items())


def _pull(name: str, store: "LocalStore", fetch: "Fetch | None") -> "Image":
    from ..images.pull import pull
    from ..images.store import Store

    whole = Store(store.root)
    try:
        return (fetch or pull)(name, whole)
    finally:
        store.notes += whole.notes


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


class Removed:
    """The names that went, and the id of the image if that was the last of them."""

    __slots__ = ("id", "names")

    def __init__(self, names: "list[str]", id: str) -> None:
        self.names = names
        self.id = id


def remove_image(text: str, store: "Store", *, force: bool = False) -> Removed:
    """Take a name away, or all of an image that is given by its id; what nobody needs is left to collect_images().

    As docker has it, `force` is needed for an image of several names that is given by its id, and for one that a
    container uses, whose layers stay as long as the container.  Raises NotFoundError, StateError.
    """
    names = store.names_of(text)
    try:
        image = store.find(names[0])
    except (ImageError, NotFoundError):
        image = None  # Damaged; it can go nevertheless.
    is_last = not image or len(image.names) == len(names)
    if image and not force:
        if len(names) > 1:
            raise StateError(
                f"image {text} has several names: {', '.join(names)}", hint="rmi --force takes all of them"
            )
        if is_last and (users := containers_of(image, store)):
            raise StateError(
                f"image {text} is used by container {', '.join(one[:12] for one in users)}",
                hint="remove that first, or rmi --force, which leaves it what it uses",
            )
    for name in names:
        store.untag(name)
    return Removed(names, image.id if image and is_last else "")


def containers_of(image: "Image", store: "Store") -> "list[str]":
    """Ids of the containers that were made of it; another image may have the same layers."""
    return [
        container
        for container in store.users_of(image, exists())
        if Record(container).read_optional("config.json").get("image_id", image.id) == image.id
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
