"""From a registry into the store: manifest, configuration and layers; a layer is unpacked while it comes.

What has been fetched of a blob is kept when a pull is interrupted, and the next one goes on from there.  Nothing gets
its name before both digests, of what was sent and of what it decompresses to, are what was promised (RULES 22).
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

from ..errors import ImageError, NotFoundError, WarrenError
from . import manifest, signature, tar
from .configuration import Registries
from .registry import Registry, RegistryError
from .store import Store, discard
from .stream import Layer
from .unpack import complete, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from .manifest import Descriptor, Manifest
    from .reference import Reference
    from .store import Image

    Json = dict[str, Any]
    Progress = Callable[[str, int, int], None]
    """Told of a blob's digest, how many of its bytes are here, and how many it has."""

PARALLEL = 3
_NESTED = 4


def _silent(_digest: str, _done: int, _size: int) -> None:
    pass


def pull(
    text: str,
    store: Store,
    *,
    platform: "Json | None" = None,
    registries: "Registries | None" = None,
    progress: "Progress" = _silent,
    verify_key: str = "",
) -> "Image":
    """Fetch an image and give it its name; with the path of a public key only if it is signed by it.

    Raises NotFoundError, ImageError, UsageError, OSError for a full disk.
    """
    check = signature.load_key(verify_key) if verify_key else None
    registries = registries or Registries()
    wanted = platform or manifest.default_platform(os.uname().machine)
    errors: list[WarrenError] = []
    for ref in registries.candidates(text):
        for endpoint in registries.endpoints(ref):
            try:
                return _pull_from(Registry(endpoint), ref, store, wanted, progress, check)
            except (NotFoundError, RegistryError) as error:
                errors.append(error)
    raise errors[-1]


def _pull_from(
    registry: Registry,
    ref: "Reference",
    store: Store,
    platform: "Json",
    progress: "Progress",
    check: "signature.Check | None",
) -> "Image":
    with store.adding():
        wanted = signature.signed_digest(registry, ref.wanted, check) if check else ref.wanted
        found = _resolve(registry, wanted, platform)
        config = _small_blob(registry, store, found.config)
        diffs = manifest.diff_ids(manifest.document(config, "image configuration"), len(found.layers))
        fetch_layers(registry, store, found, diffs, progress)
        store.sync()
        store.add_blob(found.raw)
        store.tag(ref, found.digest)
        return store.load(found.digest)


def _resolve(registry: Registry, wanted: str, platform: "Json") -> "Manifest":
    """The manifest for the platform, through indexes of indexes."""
    queue = [(wanted, "", 0)]
    while queue:
        name, told, depth = queue.pop(0)
        raw, type = registry.manifest(name)
        if manifest.kind(manifest.document(raw, "manifest"), type or told) in manifest.MANIFESTS:
            return manifest.parse_manifest(raw, type or told)
        if depth == _NESTED:
            raise ImageError(f"{registry}: indexes nested more than {_NESTED} deep")
        chosen = manifest.choose(manifest.parse_index(raw), platform)
        queue = [(entry.digest, entry.type, depth + 1) for entry in chosen] + queue
        best = [entry for entry in chosen if entry.platform]
        queue = queue[: 1 if best else len(queue)]
    words = "/".join(str(platform[key]) for key in ("os", "architecture", "variant") if key in platform)
    raise NotFoundError(f"{registry}: {registry.repository} has no image for {words}", hint="--platform")


def _small_blob(registry: Registry, store: Store, descriptor: "Descriptor") -> bytes:
    if not store.has_blob(descriptor.digest):
        if descriptor.size > manifest.MAX_SIZE:
            raise ImageError(f"image configuration of {descriptor.size} bytes")
        store.add_blob(registry.small_blob(descriptor))
    return store.read_blob(descriptor.digest)


def fetch_layers(registry: Registry, store: Store, found: "Manifest", diffs: "list[str]", progress: "Progress") -> None:
    """All layers, several at a time; the first error stops the others."""
    stop = Event()
    results: list[Future[None]] = []

    def job(layer: "Layered", below: "Future[None] | None") -> None:
        try:
            _fetch_layer(registry, store, layer, below, progress, stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(PARALLEL) as pool:
        try:
            for layer in layered(found, diffs):
                # Started in this order, so that whom one waits for is already at work.
                results.append(pool.submit(job, layer, results[-1] if results else None))
            errors = [error for result in results if (error := result.exception()) is not None]
        except BaseException:
            stop.set()
            raise
    if errors:
        raise next((error for error in errors if not isinstance(error, _StoppedError)), errors[0])


class Layered:
    """A layer in its place: its own chain is the last of `chains`, before it are those below."""

    __slots__ = ("blob", "chains", "diff")

    def __init__(self, blob: "Descriptor", diff: str, chains: "list[str]") -> None:
        self.blob = blob
        self.diff = diff
        self.chains = chains

    @property
    def chain(self) -> str:
        return self.chains[-1]


def layered(found: "Manifest", diffs: "list[str]") -> "list[Layered]":
    """An image's layers, the lowest first."""
    chains = manifest.chain_ids(diffs)
    return [Layered(*pair, chains[: number + 1]) for number, pair in enumerate(zip(found.layers, diffs, strict=True))]


class _StoppedError(WarrenError):
    pass


def _fetch_layer(
    registry: Registry,
    store: Store,
    layer: Layered,
    below: "Future[None] | None",
    progress: "Progress",
    stop: Event,
) -> None:
    """No lock is held while another layer is waited for: they may stand in another order in another image."""
    with ExitStack() as cleanup:
        new = _fetch(registry, store, layer, progress, stop, cleanup)
        if below and below.exception() is not None:
            raise _StoppedError("another layer failed")
        if new:
            new.publish()


def _fetch(
    registry: Registry, store: Store, layer: Layered, progress: "Progress", stop: Event, cleanup: ExitStack
) -> "NewLayer | None":
    """The layer, unpacked while it came; None when the store has it."""
    blob = layer.blob
    with store.partial(blob.digest) as partial:
        # Somebody else may have brought it while we waited.
        if store.has_blob(blob.digest):
            partial.restart()
            new = _unpack_missing(store, store.open_blob(blob.digest), layer, cleanup)
            progress(blob.digest, blob.size, blob.size)
            return new
        if partial.size > blob.size:
            partial.restart()

        def arriving() -> "Iterator[bytes]":
            yield from partial.pieces()
            for piece in registry.blob(blob.digest, blob.size, partial.size):
                if stop.is_set():
                    raise _StoppedError("another layer failed")
                if piece is None:
                    raise _RestartError("the registry does not resume")
                partial.write(piece)
                progress(blob.digest, partial.size, blob.size)
                yield piece

        try:
            new = _unpack_missing(store, arriving(), layer, cleanup)
        except _RestartError:
            partial.restart()
            new = _unpack_missing(store, arriving(), layer, cleanup)
        except ImageError as error:
            if not isinstance(error, RegistryError):
                partial.restart()  # What is there is wrong: it is not worth to be resumed.
            raise
        partial.commit(sync=False)
        return new


class _RestartError(WarrenError):
    pass


def _unpack_missing(store: Store, chunks: "Iterator[bytes]", layer: Layered, cleanup: ExitStack) -> "NewLayer | None":
    """Of a layer that the store has only the blob is read and checked: None."""
    if not store.has_layer(layer.chain):
        return NewLayer(store, chunks, layer, cleanup)
    stream = Layer(chunks)
    stream.drain()
    _check(stream, layer)
    return None


def unpack_blob(store: Store, layer: Layered) -> None:
    """Unpack a layer whose blob is in the store, as are the layers below it."""
    with ExitStack() as cleanup:
        NewLayer(store, store.open_blob(layer.blob.digest), layer, cleanup).publish()


def adopt(store: Store, made: "Manifest", config: bytes, names: "Sequence[Reference]") -> "Image":
    """Check, unpack and name an image whose layers' blobs are in the store."""
    if manifest.digest_of(config) != made.config.digest:
        raise ImageError(f"image configuration {made.config.digest} hashes to {manifest.digest_of(config)}")
    diffs = manifest.diff_ids(manifest.document(config, "image configuration"), len(made.layers))
    missing = [layer for layer in layered(made, diffs) if not store.has_layer(layer.chain)]
    # Nothing is waited for: more threads than processors would only be in each other's way.
    threads = min(PARALLEL, len(os.sched_getaffinity(0)))
    with ExitStack() as cleanup, ThreadPoolExecutor(threads) as pool:
        for new in pool.map(lambda layer: NewLayer(store, store.open_blob(layer.blob.digest), layer, cleanup), missing):
            new.publish()
    store.add_blob(config)
    store.add_blob(made.raw)
    store.sync()
    # One without a name is found by its digest, until it is pruned.
    for name in names or [manifest.nameless(made.digest)]:
        store.tag(name, made.digest)
    return store.load(made.digest)


class NewLayer:
    """A layer that is unpacked and checked, and has no name yet: nobody finds one that lacks a layer below it.

    `cleanup` removes it if it does not get one.
    """

    def __init__(self, store: Store, chunks: "Iterator[bytes]", layer: Layered, cleanup: ExitStack) -> None:
        self.path = store.new_layer()
        cleanup.callback(self._discard)
        self._store = store
        self._layer = layer
        stream = Layer(chunks)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            unpacked = unpack(tar.Reader(stream), fd, store.owner)
        finally:
            os.close(fd)
        self._implied = unpacked.implied
        stream.drain()
        _check(stream, layer)
        store.notes += [f"layer {layer.blob.digest[7:19]}: {note}" for note in unpacked.notes]

    def complete(self) -> None:
        """Fill in what the layers below it say, which the store has."""
        if not self._implied:
            return
        lower = self._store.layer_paths(self._layer.chains[:-1])
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            complete(fd, self._implied, lower, self._store.owner)
        finally:
            os.close(fd)

    def publish(self) -> None:
        """Give it its name; the layers below it have theirs."""
        self.complete()
        self._store.publish_layer(self.path, self._layer.chain)

    def _discard(self) -> None:
        if os.path.exists(self.path):
            discard(self.path)


def _check(stream: Layer, layer: Layered) -> None:
    blob = layer.blob
    if stream.size != blob.size:
        raise ImageError(f"layer {blob.digest}: {stream.size} bytes, {blob.size} were promised")
    if stream.digest != blob.digest:
        raise ImageError(f"layer {blob.digest} hashes to {stream.digest}")
    if stream.diff_id != layer.diff:
        raise ImageError(f"layer {blob.digest}: its content hashes to {stream.diff_id}, {layer.diff} was promised")
