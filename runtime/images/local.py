"""What a launch needs of the store: an image that is there, its layers, and the note that a container uses them.

store.py is the rest.  It is apart since most launches are of images that are there, and take a few milliseconds.
"""

import fcntl
import posix

from ..container import default_data
from ..errors import ImageError, NotFoundError, SpecError, UsageError
from ..jsontext import dump_json, parse_json
from . import reference
from .manifest import Manifest, chain_ids, diff_ids, digest_of, document, parse_manifest
from .overlay import is_opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


def default_store() -> str:
    """/var/lib/warren/images for root; below the XDG data directory for ordinary users."""
    return default_data() + "/images"


class Image:
    """What a name stands for: the manifest of one platform, its configuration, and the chain of its layers."""

    __slots__ = ("chains", "config", "diffs", "manifest", "names")

    def __init__(self, manifest: Manifest, config: "Json", names: "list[str]") -> None:
        self.manifest = manifest
        self.config = config
        self.names = names
        self.diffs = diff_ids(config, len(manifest.layers))
        self.chains = chain_ids(self.diffs)

    @property
    def id(self) -> str:
        """docker's image id: the digest of the configuration."""
        return self.manifest.config.digest

    @property
    def size(self) -> int:
        """Bytes of its blobs, as they are transferred."""
        return sum(layer.size for layer in self.manifest.layers) + self.manifest.config.size


class LocalStore:
    """The images that are in the store below `root`."""

    def __init__(self, root: str = "") -> None:
        self.root = root or default_store()
        self.lock_path = self.root + "/lock"
        self.notes: list[str] = []
        """What could not be taken over as it was given, or is damaged; for the user to see."""

    def _lock(self, kind: int) -> int:
        fd = posix.open(self.lock_path, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
        except BaseException:
            posix.close(fd)
            raise
        return fd

    # ---- blobs

    def blob_path(self, digest: str) -> str:
        if not reference.is_digest(digest):
            raise ImageError(f"{digest!r} is no digest")
        return f"{self.root}/blobs/sha256/{digest[7:]}"

    def has_blob(self, digest: str) -> bool:
        return posix.access(self.blob_path(digest), posix.F_OK)

    def read_blob(self, digest: str) -> bytes:
        """A small blob, checked; NotFoundError, or ImageError when it is damaged."""
        try:
            with open(self.blob_path(digest), "rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            raise NotFoundError(f"blob {digest} is not in the store", hint="pull the image again") from error
        if digest_of(data) != digest:
            raise ImageError(f"blob {digest} is damaged in the store", hint="warren image verify")
        return data

    # ---- layers

    def layer_path(self, chain: str) -> str:
        return f"{self.root}/layers/{chain[7:]}"

    def layer_paths(self, chains: "list[str]") -> "list[str]":
        """What an overlay is mounted of, the highest first.

        It ends with a layer whose root is opaque: overlayfs looks for that mark below the root only.
        """
        found = []
        for chain in reversed(chains):
            found.append(self.layer_path(chain))
            if is_opaque(found[-1]):
                break
        return found

    def has_layer(self, chain: str) -> bool:
        try:
            return posix.stat(self.layer_path(chain)).st_mode & 0o170000 == 0o040000
        except OSError:
            return False

    # ---- names

    def names(self) -> "dict[str, str]":
        """Every name, and the digest of its manifest."""
        try:
            with open(self.root + "/index.json", "rb") as file:
                found = parse_json(file.read(), "index.json of the store")
        except FileNotFoundError:
            return {}
        except SpecError as error:
            raise ImageError(f"{error.message}: the store's index is damaged", hint="warren image verify") from error
        names = found.get("names") if isinstance(found, dict) else None
        return {str(name): str(digest) for name, digest in names.items()} if isinstance(names, dict) else {}

    def find(self, text: str) -> Image:
        """By name, by digest, or by an unambiguous beginning of its id; NotFoundError, UsageError."""
        names = self.names()
        if wanted := self._by_name(text, names):
            return self.load(wanted, names)
        start = text.removeprefix("sha256:")
        images = {image.id: image for image in self.images() if start and image.id[7:].startswith(start)}
        if len(images) > 1:
            raise UsageError(f"image {text!r} is ambiguous", hint="give more of the id")
        if not images:
            raise NotFoundError(f"no such image: {text}", hint=f"warren pull {text}")
        return next(iter(images.values()))

    def _by_name(self, text: str, names: "dict[str, str]") -> str:
        try:
            ref = reference.parse(text)
        except UsageError:
            return ""
        if ref.digest:
            same = [
                digest for name, digest in names.items() if name.startswith(ref.name + ":") and digest == ref.digest
            ]
            return names.get(str(ref)) or names.get(f"{ref.name}@{ref.digest}") or next(iter(same), "")
        return next((names[name] for name in readings(ref) if name in names), "")

    def load(self, manifest: str, names: "dict[str, str] | None" = None) -> Image:
        """The image of a manifest that is in the store; `names` saves reading them."""
        names = self.names() if names is None else names
        found = parse_manifest(self.read_blob(manifest))
        config = document(self.read_blob(found.config.digest), "image configuration")
        return Image(found, config, [name for name, digest in names.items() if digest == manifest])

    def images(self) -> "list[Image]":
        """One for each manifest that has a name; of those that are damaged only a note."""
        names = self.names()
        found = []
        for digest in dict.fromkeys(names.values()):
            try:
                found.append(self.load(digest, names))
            except (ImageError, NotFoundError) as error:
                known = next(name for name, named in names.items() if named == digest)
                self.notes.append(f"image {known}: {error.message} (warren image verify --repair)")
        return found

    # ---- use

    def use(self, container: str, chains: "list[str]") -> None:
        """Keep these layers while the container exists; NotFoundError when they have just been collected."""
        fd = self._lock(fcntl.LOCK_SH)
        try:
            # Not synced: a container does not outlive the machine.
            with open(f"{self.root}/users/{container}", "wb") as file:
                file.write(dump_json({"chains": chains}).encode())
            if missing := next((chain for chain in chains if not self.has_layer(chain)), ""):
                self.release(container)
                raise NotFoundError(f"layer {missing} is not in the store", hint="pull the image again")
        finally:
            posix.close(fd)

    def release(self, container: str) -> None:
        try:
            posix.unlink(f"{self.root}/users/{container}")
        except FileNotFoundError:
            pass


def readings(ref: reference.Reference) -> "list[str]":
    """The names that may be meant: what podman, buildah and archives name without a registry lies below localhost."""
    return [str(ref), f"localhost/{ref.familiar}"]
