"""From a registry into the store: manifest, configuration and layers; a layer is unpacked while it comes.

What has been fetched of a blob is kept when a pull is interrupted, and the next one goes on from there.  Nothing gets
its name before both digests, of what was sent and of what it decompresses to, are what was promised (RULES 22).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from ..errors import ImageError, NotFoundError, WarrenError
from . import manifest, signature, tar
from .configuration import Registries
from .registry import Registry, RegistryError
from .store import Store, discard
from .stream import Layer
from .unpack import Owner, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    chains = manifest.chain_ids(diffs)
    jobs = list(
        {chain: (layer, diff, chain) for layer, diff, chain in zip(found.layers, diffs, chains, strict=True)}.values()
    )

    def job(layer: "Descriptor", diff: str, chain: str) -> None:
        try:
            _fetch_layer(registry, store, layer, diff, chain, progress, stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(PARALLEL) as pool:
        results = [pool.submit(job, *words) for words in jobs]
        try:
            errors = [error for result in results if (error := result.exception()) is not None]
        except BaseException:
            stop.set()
            raise
    if errors:
        raise next((error for error in errors if not isinstance(error, _StoppedError)), errors[0])


class _StoppedError(WarrenError):
    pass


def _fetch_layer(
    registry: Registry, store: Store, layer: "Descriptor", diff: str, chain: str, progress: "Progress", stop: Event
) -> None:
    with store.partial(layer.digest) as partial:
        # Somebody else may have brought it while we waited.
        if store.has_blob(layer.digest):
            partial.restart()
            if not store.has_layer(chain):
                unpack_blob(store, layer, diff, chain)
            progress(layer.digest, layer.size, layer.size)
            return
        if partial.size > layer.size:
            partial.restart()

        def arriving() -> "Iterator[bytes]":
            yield from partial.pieces()
            for piece in registry.blob(layer.digest, layer.size, partial.size):
                if stop.is_set():
                    raise _StoppedError("another layer failed")
                if piece is None:
                    raise _RestartError("the registry does not resume")
                partial.write(piece)
                progress(layer.digest, partial.size, layer.size)
                yield piece

        try:
            _unpack(store, arriving(), layer, diff, chain)
        except _RestartError:
            partial.restart()
            _unpack(store, arriving(), layer, diff, chain)
        except ImageError as error:
            if not isinstance(error, RegistryError):
                partial.restart()  # What is there is wrong: it is not worth to be resumed.
            raise
        partial.commit(sync=False)


class _RestartError(WarrenError):
    pass


def unpack_blob(store: Store, layer: "Descriptor", diff: str, chain: str) -> None:
    """Unpack a layer whose blob is in the store."""
    _unpack(store, store.open_blob(layer.digest), layer, diff, chain)


def _unpack(store: Store, chunks: "Iterator[bytes]", layer: "Descriptor", diff: str, chain: str) -> None:
    stream = Layer(chunks)
    if store.has_layer(chain):
        stream.drain()
        _check(stream, layer, diff)
        return
    path = store.new_layer()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            unpack(tar.Reader(stream), fd, Owner(privileged=store.privileged))
        finally:
            os.close(fd)
        stream.drain()
        _check(stream, layer, diff)
    except BaseException:
        discard(path)
        raise
    store.publish_layer(path, chain)


def _check(stream: Layer, layer: "Descriptor", diff: str) -> None:
    if stream.size != layer.size:
        raise ImageError(f"layer {layer.digest}: {stream.size} bytes, {layer.size} were promised")
    if stream.digest != layer.digest:
        raise ImageError(f"layer {layer.digest} hashes to {stream.digest}")
    if stream.diff_id != diff:
        raise ImageError(f"layer {layer.digest}: its content hashes to {stream.diff_id}, {diff} was promised")
