"""Images, networks and volumes for programs: the verbs of the command line, as functions."""

import os

from ..container import default_root
from ..errors import UnsupportedError, UsageError, WarrenError
from ..host import Host
from ..images.local import Image
from ..network.definitions import Network
from ..state import start_time
from .volumes import Volume, find_volume, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# ---- images


def pull(name: str, *, platform: str = "") -> Image:
    """Fetch an image, with the credentials that podman and docker keep; by default for this machine's platform.

    Raises ImageError, NotFoundError, UsageError for a name that is none.
    """
    from ..images.manifest import parse_platform
    from ..images.pull import pull as fetch
    from ..images.store import Store

    return fetch(name, Store(), platform=parse_platform(platform) if platform else None)


def push(name: str, target: str = "") -> str:
    """Send an image to a registry, by default to the one that its name tells; the digest of its manifest."""
    from ..images import reference
    from ..images.push import push as send
    from ..images.store import Store

    store = Store()
    return send(store.find(name), reference.parse(target or name), store)


def list_images() -> "list[Image]":
    """The newest first; `names`, `id`, `size` (bytes) and `config` of each."""
    from ..images.local import LocalStore

    return LocalStore().images()


def tag_image(name: str, new: str) -> None:
    """Give an image a further name."""
    from ..images import reference
    from ..images.store import Store

    store = Store()
    store.tag(reference.parse(new), store.find(name).manifest.digest)


def remove_image(name: str, *, force: bool = False) -> "list[str]":
    """Take a name away, or all of an image that is given by its id; the names that went.

    Layers that nobody needs any more are removed.  StateError for one that a container uses, unless `force`.
    """
    from ..images.store import Store
    from .images import collect_images
    from .images import remove_image as remove

    store = Store()
    removed = remove(name, store, force=force)
    collect_images(store)
    return removed.names


def load_images(path: "str | os.PathLike[str]") -> "list[Image]":
    """Those of an archive of `docker save` or an OCI layout, compressed or not."""
    from ..images.archive import load
    from ..images.store import Store

    with open(path, "rb") as file:
        return load(file, Store())


def save_images(names: "Sequence[str]", path: "str | os.PathLike[str]", *, style: str = "docker-archive") -> None:
    """Write an archive that docker and podman load; `style` is docker-archive or oci-archive."""
    from ..images import reference
    from ..images.archive import save
    from ..images.store import Store

    store = Store()
    with open(path, "wb") as file:
        save([(store.find(name), [reference.parse(name).familiar]) for name in names], store, file, style)


# ---- networks


def create_network(
    name: str,
    *,
    subnets: "Sequence[str]" = (),
    ipv6: bool = False,
    internal: bool = False,
    labels: "Mapping[str, str] | None" = None,
) -> Network:
    """A bridge of its own with addresses of its own; ExistsError, UsageError, UnsupportedError without root."""
    from ..network.create import create
    from ..network.leases import Leases

    if not Host.probe().privileged:
        raise UnsupportedError(f"network {name!r}: networks of bridges need root", hint='network="private" needs none')
    with Leases(default_root()):
        return create(name, subnets=subnets, ipv6=ipv6, internal=internal, labels=labels)


def list_networks() -> "list[Network]":
    """By name; `name`, `subnets`, `labels` and so on of each."""
    from ..network.definitions import load_all

    return load_all()


def remove_network(name: str) -> None:
    """NotFoundError; UsageError while containers are on it."""
    from ..network import bridges, definitions
    from ..network.attachment import sweep_gone
    from ..network.leases import Leases

    with Leases(default_root()) as leases:
        sweep_gone(leases)
        found = definitions.load(name)
        users = [str((leases.read(user) or {}).get("name") or user[:12]) for user in leases.users(found.name)]
        if users:
            raise UsageError(f"network {found.name!r} is in use by {', '.join(users[:8])}", hint="remove them first")
        bridges.take_down(found)
        definitions.forget(found.name)


OWNER = "org.warren.owner"
"""Label of a network that goes with the process that made it, however that ends: pid and start time."""


def sweep_networks() -> None:
    """Remove those whose process has gone."""
    for one in list_networks():
        pid, _, started = one.labels.get(OWNER, "").partition(":")
        if pid.isdigit() and start_time(int(pid)) != started:
            try:
                remove_network(one.name)
            except WarrenError:
                pass  # By somebody else, or its last container is just being removed.


# ---- volumes


def create_volume(name: str = "", *, labels: "Mapping[str, str] | None" = None) -> Volume:
    """A directory that outlives containers; one of that name that there is already is returned as it is."""
    from .volumes import create

    return create(name, labels=dict(labels or {}))


def list_volumes() -> "list[Volume]":
    """Those with names and those without; `name`, `labels` and the directory of each."""
    return volumes()


def remove_volume(name: str) -> None:
    """NotFoundError; StateError while containers use it."""
    find_volume(name).remove()
