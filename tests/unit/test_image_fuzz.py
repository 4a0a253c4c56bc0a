"""Manifests, indexes, configurations and the store's own files with anything in them: an error of one line, or none."""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.commands.printing import printable
from runtime.config import ContainerConfig, image_config
from runtime.engine.image_filters import created, image_tests
from runtime.errors import ImageError, WarrenError
from runtime.images import manifest
from runtime.images.archive import load
from runtime.images.manifest import Descriptor
from runtime.images.pull import adopt
from runtime.images.reference import parse
from runtime.images.store import Image, Store
from runtime.images.upkeep import usage, verify
from runtime.images.view import history, inspect, labels
from tests.helpers.layers import END, entry, header

LONG = bool(os.environ.get("WARREN_LONG"))
fuzzing = settings(
    max_examples=1000 if LONG else 150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAME = "den.example/burrow:1"
WANTED = {"os": "linux", "architecture": "amd64", "variant": ""}
DIGEST = "sha256:" + "ab" * 32

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 1 << 65), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "..", "/", "a/b", "\n", "\0", "\ud800", DIGEST, "sha256:", "linux", "x" * 300, "9" * 5000]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
CONFIG: dict[str, Any] = {
    "os": "linux", "architecture": "amd64", "variant": "", "created": "2026-01-31T12:00:00Z", "author": "a beaver",
    "comment": "", "rootfs": {"type": "layers", "diff_ids": []},
    "config": {
        "User": "0:0", "Env": ["PATH=/bin", "A=b"], "Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"],
        "WorkingDir": "/srv", "Labels": {"den": "dry"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}},
        "StopSignal": "SIGTERM", "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Retries": 3},
    },
    "history": [{"created": "2026-01-31T12:00:00Z", "created_by": "RUN x", "comment": "", "empty_layer": False}],
}  # fmt: skip
DESCRIBED = {
    "mediaType": manifest.OCI_MANIFEST, "digest": DIGEST, "size": 3, "annotations": {"a": "b"},
    "platform": {"os": "linux", "architecture": "amd64", "variant": "v2"},
}  # fmt: skip
INDEX = {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": [DESCRIBED, {**DESCRIBED, "platform": None}]}


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a document."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from spots(inner, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


@st.composite
def mutated(draw: Callable[[st.SearchStrategy[Any]], Any], document: Any) -> bytes:
    """The document with some of its parts replaced by anything; sometimes cut off, or with bytes that are no text."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(spots(document))))
        document = replaced(document, path, draw(VALUES))
    raw = json.dumps(document).encode("ascii")
    how = draw(st.integers(0, 19))
    if how == 0:
        return raw[: draw(st.integers(0, len(raw)))]
    at = draw(st.integers(0, len(raw)))
    return raw[:at] + draw(st.binary(max_size=3)) + raw[at:] if how == 1 else raw


@contextmanager
def one_line() -> Iterator[None]:
    """Any other exception fails the test."""
    try:
        yield
    except WarrenError as error:
        text = str(error)
        assert text
        assert len(text.splitlines()) == 1
        assert len(text) < 1000
    except OSError as error:
        if not error.filename:
            raise  # The command line tells others by their paths.


@fuzzing
@given(mutated(INDEX), st.sampled_from(["", manifest.OCI_INDEX, manifest.OCI_MANIFEST]))
def test_indexes(raw: bytes, told: str) -> None:
    with one_line():
        found = manifest.document(raw, "index")
        assert manifest.kind(found, told) in (*manifest.MANIFESTS, *manifest.INDEXES)
    with one_line():
        for chosen in manifest.choose(manifest.parse_index(raw), WANTED):
            assert chosen.digest.startswith("sha256:")


@fuzzing
@given(mutated({**manifest.make_manifest(b"{}", [Descriptor(manifest.OCI_LAYER, DIGEST, 9)]).descriptor.to_json()}))
def test_descriptors(raw: bytes) -> None:
    with one_line():
        manifest.parse_descriptor(manifest.document(raw, "descriptor"), "somewhere").to_json()


class Kit:
    """A store with one image of one layer, to be copied; and what to put into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        store = Store(str(root))
        plain = entry("file", data=b"content") + END
        with store.adding():
            digest = store.add_blob(plain)
            self.layer = Descriptor(manifest.OCI_LAYER, digest, len(plain))
            self.config = {**CONFIG, "rootfs": {"type": "layers", "diff_ids": [digest]}}
            raw = json.dumps(self.config).encode()
            self.image = adopt(store, manifest.make_manifest(raw, [self.layer]), raw, [parse(NAME)])
        self.manifest = json.loads(self.image.manifest.raw)

    @contextmanager
    def copy(self) -> Iterator[Store]:
        with tempfile.TemporaryDirectory(dir=self.root.parent) as directory:
            shutil.copytree(self.root, directory + "/store")
            yield Store(directory + "/store")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("kit") / "store")


def put(store: Store, raw: bytes) -> str:
    digest = manifest.digest_of(raw)
    Path(store.blob_path(digest)).write_bytes(raw)
    return digest


def name_it(store: Store, digest: str) -> None:
    Path(store.root, "index.json").write_text(json.dumps({"names": {NAME: digest}}))


def look(store: Store) -> None:
    """All that commands do with what is there."""
    with one_line():
        store.names()
    images: list[Image] = []
    with one_line():
        images = store.images()
    for note in store.notes:
        assert len(printable(note).splitlines()) == 1
    for image in images:
        with one_line():
            json.dumps([inspect(image), history(image)])
            labels(image)
            created(image)
        with one_line():
            image_config.apply(ContainerConfig([], id="den", image=NAME), image.config)
        with one_line():
            tests = image_tests(["reference=den*/*", "dangling=false", "label=den"], store)
            assert [test(name, image) in (True, False) for test in tests for name in image.names]
    for text in (NAME, "burrow", DIGEST, "ab"):
        with one_line():
            store.find(text)
        with one_line():
            store.names_of(text)
    with one_line():
        usage(store, lambda _: True)
    with one_line():
        assert all(len(printable(str(problem)).splitlines()) == 1 for problem in verify(store))
    with one_line():
        store.tag(parse("other.example/name:2"), DIGEST)
    with one_line():
        store.collect(lambda _: True)


@fuzzing
@given(st.data())
def test_manifests(kit: Kit, data: st.DataObject) -> None:
    raw = data.draw(mutated(kit.manifest))
    with kit.copy() as store:
        with one_line():
            manifest.parse_manifest(raw)
        name_it(store, put(store, raw))
        look(store)


@fuzzing
@given(st.data())
def test_configurations(kit: Kit, data: st.DataObject) -> None:
    raw = data.draw(mutated(kit.config))
    with kit.copy() as store:
        made = manifest.make_manifest(raw, [kit.layer])
        put(store, raw)
        name_it(store, put(store, made.raw))
        look(store)
        with one_line(), store.adding():
            adopt(store, made, raw, [parse("again.example/name")])


FILES = ("index.json", "users/container", "blobs/sha256/manifest", "blobs/sha256/config", "pending/old", "partial/x")


@fuzzing
@given(st.data())
def test_the_stores_own_files(kit: Kit, data: st.DataObject) -> None:
    """Damaged in any way: what a program or a disk may leave there."""
    with kit.copy() as store:
        (Path(store.root) / "users/container").write_text(json.dumps({"chains": kit.image.chains}))
        for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=3, unique=True)):
            path = Path(
                store.root, name.replace("manifest", kit.image.manifest.digest[7:]).replace("config", kit.image.id[7:])
            )
            kind = data.draw(st.sampled_from(["mutated", "mutated", "bytes", "missing", "directory"]))
            if kind == "mutated" and path.exists():
                with suppress(ValueError):
                    document = json.loads(path.read_bytes())
                    path.write_bytes(data.draw(mutated(document)))
                continue
            path.unlink(missing_ok=True)
            if kind == "directory":
                path.mkdir()
            elif kind != "missing":
                path.write_bytes(data.draw(st.binary(max_size=100)))
        with one_line(), store.adding():
            pass
        look(store)


@pytest.mark.parametrize(("key", "value"), [("Layers", True), ("RepoTags", 7), ("Layers", {"a": 1}), ("Config", None)])
def test_a_docker_archive_whose_lists_are_none(kit: Kit, key: str, value: object) -> None:
    told = [{"Config": "config.json", "RepoTags": [NAME], "Layers": [], key: value}]
    parts = entry("config.json", data=json.dumps(kit.config).encode())
    parts += entry("manifest.json", data=json.dumps(told).encode()) + END
    with kit.copy() as store, pytest.raises(ImageError, match=rf"^archive: manifest.json: .*{key}"):
        load(io.BytesIO(parts), store)


@fuzzing
@given(st.data())
def test_archives(kit: Kit, data: st.DataObject) -> None:
    """docker's and OCI's, whose small files say anything."""
    plain = entry("file", data=b"content") + END
    config = json.dumps(kit.config).encode()
    described = kit.image.manifest.descriptor.to_json()
    files = {
        "manifest.json": [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}],
        "index.json": {
            "schemaVersion": 2,
            "manifests": [{**described, "annotations": {"org.opencontainers.image.ref.name": "1"}}],
        },
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "config.json": kit.config,
    }
    which = data.draw(st.sampled_from(["manifest.json", "index.json", "oci-layout", "config.json"]))
    style = data.draw(st.sampled_from([["manifest.json"], ["index.json", "oci-layout"], list(files)]))
    parts = [entry("layer.tar", data=plain), entry("config.json", data=config)]
    for name in {*style, which}:
        raw = data.draw(mutated(files[name])) if name == which else json.dumps(files[name]).encode()
        parts.append(entry(name, data=raw))
    for blob in (kit.image.manifest.raw, config, plain):
        parts.append(entry(f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", data=blob))
    with kit.copy() as store, tempfile.TemporaryFile() as file:
        file.write(b"".join(parts) + END)
        file.seek(0)
        with one_line():
            load(file, store)
        assert all(len(printable(note).splitlines()) == 1 for note in store.notes)


@fuzzing
@given(st.binary(max_size=3000), st.integers(0, 511), st.binary(min_size=1, max_size=12))
def test_tars(rest: bytes, at: int, patch: bytes) -> None:
    """A header of which a part is overwritten and whose sum is right again."""
    from runtime.images import tar

    block = bytearray(header(b"name", size=3))
    block[at : at + len(patch)] = patch
    block = block[:512]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    source = iter([bytes(block) + rest])

    class Source:
        def read(self, _size: int) -> bytes:
            return next(source, b"")

    with one_line():
        reader = tar.Reader(Source())
        for _ in reader:
            for _piece in reader.data():
                pass
