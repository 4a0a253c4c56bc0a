"""Images as files: docker's archive and the OCI image layout, in and out, also through a pipe.

An archive is a tar, so it is read by the one parser there is, once and forwards: its blobs go into the store as they
come, each under the digest that it has.
"""

import os
import tarfile

from ..errors import ImageError, NotFoundError, UsageError
from ..jsontext import dump_json, parse_json
from . import manifest, reference, tar
from .manifest import Descriptor, Manifest
from .pull import Early, adopt
from .store import Store
from .stream import Layer, looks_like_a_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    from .store import Image

    Json = dict[str, Any]

_PIECE = 1 << 20
_SMALL = manifest.MAX_SIZE
_LINKS = 1000


class _Contents:
    """What an archive holds: blobs by path (as digests in the store), small files with their bytes."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.small: dict[str, bytes] = {}
        self.links: dict[str, str] = {}

    def path(self, name: str) -> str:
        """Follow symbolic links, as docker's archives had them for shared layers."""
        for _ in range(_LINKS):
            if name not in self.links:
                return name
            name = os.path.normpath(os.path.join(os.path.dirname(name), self.links[name]))
        raise ImageError(f"archive: {name} is a link in a circle")

    def json(self, name: str) -> "Json":
        return manifest.document(self.bytes(name), f"archive: {name}")

    def bytes(self, name: str) -> bytes:
        found = self.small.get(self.path(name))
        if found is None:
            raise ImageError(f"archive: no {name}", hint="is it whole, and an image?")
        return found


def load(file: "IO[bytes]", store: Store) -> "list[Image]":
    """Take over every image of a docker-archive or of an OCI layout; compressed archives too.

    Raises ImageError for what is neither, or damaged.
    """
    with store.adding(), Early(store) as early:
        contents = _read(file, store, early)
        if "index.json" in contents.small and "oci-layout" in contents.small:
            return _load_layout(contents, store, early)
        if "manifest.json" in contents.small:
            return _load_docker(contents, store, early)
        raise ImageError("archive: neither manifest.json nor index.json is in it", hint="docker save makes one")


def _read(file: "IO[bytes]", store: Store, early: Early) -> _Contents:
    contents = _Contents()
    outer = Layer(iter(lambda: file.read(_PIECE), b""), hashes_blob=False, hashes_content=False)
    for entry, data in _entries(outer):
        name = os.path.normpath(os.fsdecode(entry.name))
        if name.startswith(("/", "..")):
            raise ImageError(f"archive: {name!r} is outside of it")
        if entry.type == tar.SYMLINK:
            contents.links[name] = os.fsdecode(entry.link)
        elif entry.type == tar.FILE:
            digest, size, kept = _keep(data, entry.size, store, early)
            contents.digests[name], contents.sizes[name] = digest, size
            if kept is not None:
                contents.small[name] = kept
    return contents


def _entries(outer: Layer) -> "Iterator[tuple[tar.Entry, Iterator[memoryview]]]":
    reader = tar.Reader(outer)
    for entry in reader:
        yield entry, reader.data()


def _keep(data: "Iterator[memoryview]", size: int, store: Store, early: Early) -> "tuple[str, int, bytes | None]":
    """Put one file into the store under its digest, which is known at its end only; small ones are returned as well.

    What may be a layer is unpacked while the archive is read on.
    """
    if size <= _SMALL:
        content = b"".join(map(bytes, data))
        return store.add_blob(content), size, content
    with store.new_blob() as blob:
        start = b""
        for piece in data:
            if len(start) < tar.BLOCK:
                start += bytes(piece[: tar.BLOCK])
            blob.write(piece)
        is_new = not store.has_blob(blob.digest)
    if is_new and looks_like_a_layer(start):
        early.begin(Descriptor("", blob.digest, blob.size))
    return blob.digest, blob.size, None


def _load_docker(contents: _Contents, store: Store, early: Early) -> "list[Image]":
    """docker save's manifest.json: a list of {Config, RepoTags, Layers}."""
    found = []
    entries = parse_json(contents.bytes("manifest.json"), "archive: manifest.json")
    if not isinstance(entries, list):
        raise ImageError("archive: manifest.json is no list")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise ImageError("archive: manifest.json: an entry without Config")
        paths = [contents.path(str(path)) for path in _listed(entry, "Layers")]
        if missing := next((path for path in paths if path not in contents.digests), ""):
            raise ImageError(f"archive: no layer {missing}")
        config = contents.bytes(entry["Config"])
        layers = [_layer(store, contents, path) for path in paths]
        made = manifest.make_manifest(config, layers)
        names = [reference.parse(str(name)) for name in _listed(entry, "RepoTags")]
        found.append(adopt(store, made, config, names, early))
    return found


def _listed(entry: "Json", key: str) -> "list[Any]":
    found = entry.get(key) or []
    if not isinstance(found, list):
        raise ImageError(f"archive: manifest.json: {key} is no list")
    return found


def _layer(store: Store, contents: _Contents, path: str) -> Descriptor:
    digest = contents.digests[path]
    return manifest.describe_layer(store.open_blob(digest), digest, contents.sizes[path])


def _load_layout(contents: _Contents, store: Store, early: Early) -> "list[Image]":
    """image-layout.md; the name is the annotation that containerd, skopeo or docker give."""
    found = []
    for entry in manifest.parse_index(contents.bytes("index.json")):
        raw = contents.bytes(f"blobs/sha256/{entry.digest[7:]}")
        if manifest.digest_of(raw) != entry.digest:
            raise ImageError(f"archive: manifest {entry.digest} hashes to {manifest.digest_of(raw)}")
        names = _names(entry)
        for made in _manifests(contents, raw, entry.type):
            config = contents.bytes(f"blobs/sha256/{made.config.digest[7:]}")
            for layer in made.layers:
                if contents.digests.get(f"blobs/sha256/{layer.digest[7:]}") != layer.digest:
                    raise ImageError(f"archive: layer {layer.digest} is missing or damaged")
            found.append(adopt(store, made, config, names, early))
    return found


def _manifests(contents: _Contents, raw: bytes, type: str, depth: int = 0) -> "list[Manifest]":
    if manifest.kind(manifest.document(raw, "manifest"), type) in manifest.MANIFESTS:
        return [manifest.parse_manifest(raw, type)]
    wanted = manifest.default_platform(os.uname().machine)
    chosen = manifest.choose(manifest.parse_index(raw), wanted)[:1]
    if not chosen or depth > 4:
        raise NotFoundError("archive: no image for this machine's platform")
    inner = contents.bytes(f"blobs/sha256/{chosen[0].digest[7:]}")
    if manifest.digest_of(inner) != chosen[0].digest:
        raise ImageError(f"archive: manifest {chosen[0].digest} hashes to {manifest.digest_of(inner)}")
    return _manifests(contents, inner, chosen[0].type, depth + 1)


def _names(entry: Descriptor) -> "list[reference.Reference]":
    """containerd's annotation is a whole name; the specification's may be a bare word, for podman one of localhost."""
    full = entry.annotations.get("io.containerd.image.name") or ""
    short = entry.annotations.get("org.opencontainers.image.ref.name") or ""
    if full or "/" in short or ":" in short:
        return [reference.parse(full or short)]
    return [reference.parse(f"localhost/{short}")] if short else []


def save(images: "list[tuple[Image, list[str]]]", store: Store, file: "IO[bytes]", style: str) -> None:
    """Write images, with these names, as `docker-archive` or `oci-archive`; blobs are written as they were fetched."""
    if style not in ("docker-archive", "oci-archive"):
        raise UsageError(f"unknown format {style!r}", hint="docker-archive or oci-archive")
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as out:
        writer = _Writer(out, store)
        if style == "docker-archive":
            entries = []
            for image, names in images:
                layers = [writer.blob(layer.digest) for layer in image.manifest.layers]
                config = writer.blob(image.id)
                entries.append({"Config": config, "RepoTags": names, "Layers": layers})
            writer.small("manifest.json", dump_json(entries).encode())
            return
        index = []
        for image, names in images:
            for digest in (*(layer.digest for layer in image.manifest.layers), image.id, image.manifest.digest):
                writer.blob(digest)
            for name in names or [""]:
                descriptor = image.manifest.descriptor
                if name:
                    tag = reference.parse(name).tag
                    descriptor.annotations = {
                        "io.containerd.image.name": name,
                        "org.opencontainers.image.ref.name": tag,
                    }
                index.append(descriptor.to_json())
        content = {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": index}
        writer.small("index.json", dump_json(content).encode())
        writer.small("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


class _Writer:
    def __init__(self, out: tarfile.TarFile, store: Store) -> None:
        self._out = out
        self._store = store
        self._written: set[str] = set()

    def blob(self, digest: str) -> str:
        """Write a blob once; its path in the archive, the same in both formats."""
        path = f"blobs/sha256/{digest[7:]}"
        if digest not in self._written:
            self._written.add(digest)
            with open(self._store.blob_path(digest), "rb") as file:
                info = tarfile.TarInfo(path)
                info.size = os.fstat(file.fileno()).st_size
                info.mode = 0o444
                self._out.addfile(info, file)
        return path

    def small(self, name: str, data: bytes) -> None:
        import io

        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o444
        self._out.addfile(info, io.BytesIO(data))
