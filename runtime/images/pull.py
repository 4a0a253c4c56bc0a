"""From a registry into the store: manifest, configuration and layers; a layer is unpacked while it comes.

What has been fetched of a blob is kept when a pull is interrupted, and the next one goes on from there.  Nothing gets
its name before both digests, of what was sent and of what it decompresses to, are what was promised (RULES 22).
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from threading import Event

from ..errors import ImageError, NotFoundError, WarrenError
from . import manifest, signature, tar
from .configuration import Registries
from .registry import Registry, RegistryError
from .store import Store
from .stream import Layer
from .unpack import unpack
from .workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from .manifest import Descriptor, Manifest
    from .reference import Reference
    from .store import Image
    from .unpack import Unpacked
    from .workers import Result

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
        first = registry.manifest(ref.wanted)
        if check:
            signature.check_signed(registry, first[0], check)
        found = _resolve(registry, first, platform)
        config = _small_blob(registry, store, found.config)
        diffs = manifest.diff_ids(manifest.document(config, "image configuration"), len(found.layers))
        fetch_layers(registry, store, found, diffs, progress)
        store.sync()
        store.add_blob(found.raw)
        store.tag(ref, found.digest)
        return store.load(found.digest)


def _resolve(registry: Registry, first: "tuple[bytes, str]", platform: "Json") -> "Manifest":
    """The manifest for the platform, through indexes of indexes; what was asked for is the `first`."""
    queue: list[tuple[str, str, int]] = [("", "", 0)]
    while queue:
        name, told, depth = queue.pop(0)
        raw, type = registry.manifest(name) if depth else first
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
    workers = Workers(store.lock_path, mapped=store.mapped)

    def job(layer: "Layered", below: "Future[None] | None") -> None:
        try:
            _fetch_layer(registry, store, layer, below, progress, stop, workers)
        except BaseException:
            stop.set()
            raise

    # Its processes end behind the threads that wait for them.
    with store.writing(), workers, ThreadPoolExecutor(PARALLEL) as pool:
        try:
            for layer in layered(found, diffs):
                # Started in this order, so that whom one waits for is already at work.
                results.append(pool.submit(job, layer, results[-1] if results else None))
            errors = [error for result in results if (error := result.exception()) is not None]
        except BaseException:
            stop.set()
            workers.kill()
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
    workers: Workers,
) -> None:
    """No lock is held while another layer is waited for: they may stand in another order in another image."""
    with ExitStack() as cleanup:
        new = _fetch(registry, store, layer, progress, stop, Unpacker(store, workers, cleanup))
        if below and below.exception() is not None:
            raise _StoppedError("another layer failed")
        if new:
            new.publish(layer)


def _fetch(
    registry: Registry, store: Store, layer: Layered, progress: "Progress", stop: Event, unpacker: "Unpacker"
) -> "NewLayer | None":
    """The layer, unpacked while it came; None when the store has it."""
    blob = layer.blob
    with store.partial(blob.digest) as partial:
        # Somebody else may have brought it while we waited.
        if store.has_blob(blob.digest):
            partial.restart()
            new = unpacker.take(layer, store.open_blob(blob.digest), store.blob_path(blob.digest))
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
            new = unpacker.take(layer, arriving(), partial.path)
        except _RestartError:
            partial.restart()
            new = unpacker.take(layer, arriving(), partial.path)
        except ImageError as error:
            if not isinstance(error, RegistryError):
                partial.restart()  # What is there is wrong: it is not worth to be resumed.
            raise
        partial.commit(sync=False)
        return new


class _RestartError(WarrenError):
    pass


class Unpacker:
    """Makes layers of blobs, in a worker where that is worth it; `cleanup` removes those that do not get a name."""

    def __init__(self, store: Store, workers: Workers, cleanup: ExitStack) -> None:
        self._store = store
        self._workers = workers
        self._cleanup = cleanup

    def take(self, layer: Layered, chunks: "Iterator[bytes]", path: str) -> "NewLayer | None":
        """What `chunks` bring is in the file `path` when they have brought it.  Of a layer that the store has the blob
        is only read and checked: None."""
        if self._store.has_layer(layer.chain):
            stream = Layer(chunks)
            stream.drain()
            _check_blob(layer.blob, stream.size, stream.digest)
            _check_content(layer, stream.diff_id)
            return None
        return self.make(layer, chunks, path)

    def make(self, layer: Layered, chunks: "Iterator[bytes]", path: str) -> "NewLayer":
        """take(), whether the store has the layer or not."""
        new = NewLayer(self._store, self._cleanup)
        feed = self._workers.take(layer.blob.size, path, new.path, privileged=self._store.privileged)
        if not feed:
            new.unpack(layer.blob, chunks)
        else:
            try:
                size, digest = 0, sha256()
                for piece in chunks:
                    size += len(piece)
                    digest.update(piece)
                    feed.more(size)
                _check_blob(layer.blob, size, "sha256:" + digest.hexdigest())
                new.keep(layer.blob, feed.finish(size))
            finally:
                feed.abandon()
        _check_content(layer, new.diff_id)
        return new

    def take_own(self, blob: "Descriptor") -> "NewLayer":
        """Of a blob that we ourselves have just hashed and written; whose layer it is, is not known yet."""
        store, new = self._store, NewLayer(self._store, self._cleanup)
        feed = self._workers.take(blob.size, store.blob_path(blob.digest), new.path, privileged=store.privileged)
        if feed:
            new.keep(blob, feed.finish(blob.size))
        else:
            new.unpack(blob, store.open_blob(blob.digest))
        return new


def unpack_blob(store: Store, layer: Layered) -> None:
    """Unpack a layer whose blob is in the store, as are the layers below it."""
    with ExitStack() as cleanup:
        unpack_again(store, layer, cleanup).publish(layer)


def unpack_again(store: Store, layer: Layered, cleanup: ExitStack) -> "NewLayer":
    """What its blob, which is in the store, unpacks to."""
    with Workers(store.lock_path, mapped=store.mapped) as workers:
        blob = layer.blob.digest
        return Unpacker(store, workers, cleanup).make(layer, store.open_blob(blob), store.blob_path(blob))


def adopt(
    store: Store, made: "Manifest", config: bytes, names: "Sequence[Reference]", early: "Early | None" = None
) -> "Image":
    """Check, unpack and name an image whose layers' blobs we have just put into the store."""
    if manifest.digest_of(config) != made.config.digest:
        raise ImageError(f"image configuration {made.config.digest} hashes to {manifest.digest_of(config)}")
    diffs = manifest.diff_ids(manifest.document(config, "image configuration"), len(made.layers))
    missing = [layer for layer in layered(made, diffs) if not store.has_layer(layer.chain)]
    with ExitStack() as cleanup:
        early = early or cleanup.enter_context(Early(store))
        for layer in missing:
            early.begin(layer.blob)
        for layer in missing:
            new = early.take(layer.blob)
            _check_content(layer, new.diff_id)
            new.publish(layer)
    store.add_blob(config)
    store.add_blob(made.raw)
    store.sync()
    # One without a name is found by its digest, until it is pruned.
    for name in names or [manifest.nameless(made.digest)]:
        store.tag(name, made.digest)
    return store.load(made.digest)


class Early:
    """Layers that are unpacked before it is known which image they are of, several at a time; used in a `with`."""

    def __init__(self, store: Store) -> None:
        self._workers = Workers(store.lock_path, mapped=store.mapped)
        self._cleanup = ExitStack()
        self._cleanup.enter_context(store.writing())
        self._unpacker = Unpacker(store, self._workers, self._cleanup)
        # More threads than processors would only be in each other's way.
        self._pool = ThreadPoolExecutor(self._workers.count or 1)
        self._begun: dict[str, Future[NewLayer]] = {}

    def __enter__(self) -> "Early":
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.kill()
        self._pool.shutdown(cancel_futures=True)
        self._workers.__exit__()
        self._cleanup.close()

    def begin(self, blob: "Descriptor") -> None:
        """If it is not begun yet."""
        if blob.digest not in self._begun:
            self._begun[blob.digest] = self._pool.submit(self._unpacker.take_own, blob)

    def take(self, blob: "Descriptor") -> "NewLayer":
        """Wait for one, or do it; once for each layer.  Raises what was wrong with it."""
        self.begin(blob)
        return self._begun.pop(blob.digest).result()


class NewLayer:
    """A layer that is unpacked and has no name yet: nobody finds one that lacks a layer below it.

    `cleanup` removes it if it does not get one.  `diff_id` is what its content hashes to.
    """

    def __init__(self, store: Store, cleanup: ExitStack) -> None:
        self.path = store.new_layer()
        cleanup.callback(self._discard)
        self.diff_id = ""
        self._store = store
        self._implied: list[bytes] = []

    def unpack(self, blob: "Descriptor", chunks: "Iterator[bytes]") -> None:
        """Here and now; the blob is checked."""
        stream = Layer(chunks)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            unpacked = unpack(tar.Reader(stream), fd, self._store.owner)
        finally:
            os.close(fd)
        stream.drain()
        _check_blob(blob, stream.size, stream.digest)
        self._keep(blob, unpacked, stream.diff_id)

    def keep(self, blob: "Descriptor", result: "Result") -> None:
        """What a worker has made of a blob that is checked."""
        self._keep(blob, result, result.diff_id or blob.digest)

    def _keep(self, blob: "Descriptor", unpacked: "Unpacked", diff_id: str) -> None:
        self.diff_id = diff_id
        self._implied = unpacked.implied
        self._store.notes += [f"layer {blob.digest[7:19]}: {note}" for note in unpacked.notes]

    def complete(self, layer: Layered) -> None:
        """Fill in what the layers below it say, which the store has."""
        if not self._implied:
            return
        store = self._store
        lower = store.layer_paths(layer.chains[:-1])
        owner = store.privileged, store.mapped
        store.apart("complete", self.path, self._implied, lower, *owner, lock=store.lock_path)

    def publish(self, layer: Layered) -> None:
        """Give it its name; the layers below it have theirs."""
        self.complete(layer)
        self._store.publish_layer(self.path, layer.chain)

    def _discard(self) -> None:
        if os.path.exists(self.path):
            self._store.discard(self.path)


def _check_blob(blob: "Descriptor", size: int, digest: str) -> None:
    if size != blob.size:
        raise ImageError(f"layer {blob.digest}: {size} bytes, {blob.size} were promised")
    if digest != blob.digest:
        raise ImageError(f"layer {blob.digest} hashes to {digest}")


def _check_content(layer: Layered, diff_id: str) -> None:
    if diff_id != layer.diff:
        raise ImageError(f"layer {layer.blob.digest}: its content hashes to {diff_id}, {layer.diff} was promised")
