"""Whether a store still holds what it was given, and putting right what it does not."""

import hashlib
import os
from contextlib import ExitStack

from ..errors import ImageError, WarrenError
from . import manifest
from .pull import Layered, layered, pull, unpack_again, unpack_blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .store import Image, Store


class Problem:
    """What is wrong, and how it was put right; "" when it was not."""

    __slots__ = ("repaired", "text")

    def __init__(self, text: str, repaired: str = "") -> None:
        self.text = text
        self.repaired = repaired

    def __str__(self) -> str:
        return f"{self.text}: {self.repaired or 'not repaired'}"


class Usage:
    """Bytes on disk that an image's blobs and unpacked layers take: all of them, and those that are its alone."""

    __slots__ = ("active", "image", "size", "unique")

    def __init__(self, image: "Image", size: int, unique: int, active: int) -> None:
        self.image = image
        self.size = size
        self.unique = unique
        self.active = active
        """How many containers use it."""


def usage(store: "Store", exists: "Callable[[str], bool]") -> "tuple[list[Usage], int, int, int]":
    """Each image's share, the bytes of all of them together, those of them that removing unused images would free, and
    those of interrupted downloads."""
    sizes: dict[str, int] = {}
    holders: dict[str, list[Image]] = {}
    images = store.images()
    for image in images:
        blobs = {store.blob_path(blob.digest) for blob in (image.manifest.descriptor, image.manifest.config)}
        blobs |= {store.blob_path(layer.digest) for layer in image.manifest.layers}
        for path in blobs | {store.layer_path(chain) for chain in image.chains}:
            holders.setdefault(path, []).append(image)
            if path not in sizes:
                sizes[path] = _disk(path)
    used = store.chains_in_use(exists)
    found = []
    for image in images:
        parts = {path for path, who in holders.items() if image in who}
        alone = sum(sizes[path] for path in parts if len(holders[path]) == 1)
        found.append(Usage(image, sum(sizes[path] for path in parts), alone, used.count(image.chains)))
    active = {one.image for one in found if one.active}
    free = sum(size for path, size in sizes.items() if not active.intersection(holders[path]))
    partial = f"{store.root}/partial"
    interrupted = sum(_disk(f"{partial}/{name}") for name in os.listdir(partial)) if os.path.isdir(partial) else 0
    return found, sum(sizes.values()), free, interrupted


def _disk(path: str) -> int:
    """Bytes that a file or a directory with all in it takes on disk; 0 for what is not there."""
    try:
        size = os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0
    seen: set[tuple[int, int]] = set()
    for _, directories, files, fd in os.fwalk(path) if os.path.isdir(path) else ():
        for name in (*directories, *files):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # A pull goes on meanwhile.
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                size += status.st_blocks * 512
    return size


def verify(
    store: "Store", *, repair: bool = False, in_use: "Callable[[str], bool]" = lambda _: False
) -> "list[Problem]":
    """Hash every blob and compare every layer with its archive; of an undamaged store the list is empty.

    With `repair` damaged blobs are fetched again from where the image's name says, and damaged layers unpacked again
    from their blobs, but for those that a container uses (`in_use` says whether a container exists).
    """
    try:
        names = store.names()
    except ImageError as error:
        return [Problem(error.message)]
    problems: list[Problem] = []
    used = {chain for chains in store.chains_in_use(in_use) for chain in chains}
    seen: set[str] = set()
    for digest in dict.fromkeys(names.values()):
        known = [name for name, named in names.items() if named == digest]
        damaged = _damaged_blobs(store, digest)
        if damaged:
            how = _fetch_again(store, known, damaged) if repair else ""
            problems += [Problem(f"{known[0]}: blob {text}", how) for text in damaged.values()]
            if not how:
                continue
        problems += _verify_layers(store, store.load(digest), known[0], used, seen, repair)
    return problems


def _damaged_blobs(store: "Store", digest: str) -> "dict[str, str]":
    """Blobs of an image that are missing or hash to something else: digest and what is wrong."""
    found = _check_blob(store, digest)
    if found:
        return {digest: found}
    image = manifest.parse_manifest(store.read_blob(digest))
    blobs = [image.config, *image.layers]
    return {blob.digest: wrong for blob in blobs if (wrong := _check_blob(store, blob.digest))}


def _check_blob(store: "Store", digest: str) -> str:
    try:
        with open(store.blob_path(digest), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{digest} is missing"
    return "" if f"sha256:{found}" == digest else f"{digest} hashes to sha256:{found}"


def _fetch_again(store: "Store", names: "list[str]", damaged: "dict[str, str]") -> str:
    with store.adding():
        for digest in damaged:
            if store.has_blob(digest):
                os.unlink(store.blob_path(digest))
    for name in names:
        try:
            pull(name, store)
        except WarrenError:
            continue
        if not any(_check_blob(store, digest) for digest in damaged):
            return "fetched again"
    return ""


def _verify_layers(
    store: "Store", image: "Image", name: str, used: "set[str]", seen: "set[str]", repair: bool
) -> "list[Problem]":
    problems = []
    with store.adding():
        for layer in layered(image.manifest, image.diffs):
            if layer.chain in seen:
                continue
            seen.add(layer.chain)
            if wrong := _difference(store, layer):
                how = ""
                if repair and layer.chain not in used:
                    if store.has_layer(layer.chain):
                        store.discard(store.retire_layer(layer.chain))
                    unpack_blob(store, layer)
                    how = "unpacked again"
                problems.append(Problem(f"{name}: layer {layer.chain}: {wrong}", how))
    return problems


def _difference(store: "Store", layer: Layered) -> str:
    """How an unpacked layer differs from what its blob unpacks to; "" for not at all."""
    if not store.has_layer(layer.chain):
        return "it is missing"
    with ExitStack() as cleanup:
        fresh = unpack_again(store, layer, cleanup)
        fresh.complete(layer)
        return str(store.apart("compare", fresh.path, store.layer_path(layer.chain), lock=store.lock_path))
