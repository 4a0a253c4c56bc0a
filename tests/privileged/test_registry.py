"""Images from and to a real registry, and what is made of its faults and of the network's."""

import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.errors import ImageError, NotFoundError, UnsupportedError, UsageError, WarrenError
from runtime.images import manifest, reference, signature, workers
from runtime.images.archive import load, save
from runtime.images.configuration import Endpoint, Registries
from runtime.images.manifest import Descriptor
from runtime.images.pull import pull
from runtime.images.push import push
from runtime.images.registry import Registry as Client
from runtime.images.registry import RegistryError
from runtime.images.store import Image, Store
from runtime.images.upkeep import usage, verify
from tests.helpers.daemons import make_image
from tests.helpers.host import require
from tests.helpers.layers import entry, pax
from tests.helpers.registry import (
    PASSWORD,
    USER,
    Answer,
    Proxy,
    Registry,
    environment,
    fetch,
    make_certificates,
    skopeo,
)
from tests.helpers.terminal import Person
from tests.helpers.warren import PROGRAM

KILLS = 200 if os.environ.get("WARREN_LONG") else 20
PLAIN = Registries({})


@pytest.fixture(scope="module")
def archive(session_directory: Path) -> Path:
    for tool in ("docker-registry", "skopeo"):
        require(tool)
    return make_image(session_directory / "burrow.tar")


@pytest.fixture(scope="module")
def registry(session_directory: Path, archive: Path) -> Iterator[Registry]:
    with Registry(session_directory / "registry") as registry:
        to = f"docker://{registry.host}/den/burrow"
        skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"{to}:1")
        put_zstd(registry, archive)
        yield registry


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    with Proxy(registry.host) as proxy:
        yield proxy


@pytest.fixture
def store(directory: Path) -> Store:
    return Store(str(directory / "store"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between retries."""
    monkeypatch.setattr("runtime.images.registry._pause", lambda *_: None)


@pytest.fixture(params=["here", "in workers"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of all sizes are unpacked by threads, or by processes."""
    monkeypatch.setattr("runtime.images.workers.WORTH", 0 if request.param == "in workers" else 1 << 60)


def name(registry: "Registry | Proxy", ending: str = ":1") -> str:
    return f"{registry.host}/den/burrow{ending}"


def check(store: Store, image: Image) -> None:
    """Everything of it is there and is what its digest says; nothing else is."""
    blobs = {path.name: path for path in Path(store.root, "blobs/sha256").iterdir()}
    wanted = {image.manifest.digest, image.id, *(layer.digest for layer in image.manifest.layers)}
    assert {f"sha256:{digest}" for digest in blobs} == wanted
    for digest, path in blobs.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert sorted(os.listdir(store.root + "/layers")) == sorted(chain[7:] for chain in image.chains)
    assert os.listdir(store.root + "/partial") == os.listdir(store.root + "/pending") == []
    assert (Path(store.layer_path(image.chains[0])) / "bin/busybox").stat().st_mode & 0o777 == 0o755


# ---- what works


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("tag", ["1", "zstd"])
def test_pull(registry: Registry, store: Store, tag: str) -> None:
    image = pull(name(registry, f":{tag}"), store, registries=PLAIN)
    said = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name(registry, ':' + tag)}"))
    assert image.manifest.digest == said["Digest"]
    assert image.names == [name(registry, f":{tag}")]
    assert ("zstd" in image.manifest.layers[0].type) == (tag == "zstd")
    check(store, image)


def test_pull_by_digest_and_by_short_name(registry: Registry, store: Store) -> None:
    digest = pull(name(registry), store, registries=PLAIN).manifest.digest
    assert pull(name(registry, f"@{digest}"), store, registries=PLAIN).manifest.digest == digest
    short = Registries({"unqualified-search-registries": ["127.0.0.1:1", registry.host]})
    assert pull("den/burrow:1", store, registries=short).manifest.digest == digest
    alias = Registries({"aliases": {"hole": f"{registry.host}/den/burrow"}})
    assert pull("hole:1", store, registries=alias).manifest.digest == digest


def test_a_mirror_is_asked_first(registry: Registry, proxy: Proxy, store: Store) -> None:
    mirrors = Registries({"registry": [{"location": "far.example", "mirror": [{"location": proxy.host}]}]})
    image = pull("far.example/den/burrow:1", store, registries=mirrors)
    assert image.names == ["far.example/den/burrow:1"]
    assert any("/den/burrow/blobs/" in path for path in proxy.asked)


def test_an_index_gives_the_platforms_image(registry: Registry, store: Store, directory: Path) -> None:
    digest = pull(name(registry), store, registries=PLAIN).manifest.digest
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    raw = fetch(f"http://{registry.host}/v2/den/burrow/manifests/{digest}")
    ours = {"digest": digest, "size": len(raw), "mediaType": json.loads(raw)["mediaType"]}
    other = {**ours, "platform": {"os": "linux", "architecture": "s390x"}}
    inner = put_index(registry, [{**ours, "platform": {"os": "linux", "architecture": machine}}], "inner")
    put_index(registry, [other, {**inner, "mediaType": "application/vnd.oci.image.index.v1+json"}], "index")
    put_index(registry, [other], "foreign")
    assert pull(name(registry, ":index"), store, registries=PLAIN).manifest.digest == digest
    with pytest.raises(NotFoundError, match="no image for linux/"):
        pull(name(registry, ":foreign"), store, registries=PLAIN)


def test_what_is_pushed_is_read_by_others(registry: Registry, store: Store, directory: Path) -> None:
    image = pull(name(registry), store, registries=PLAIN)
    target = reference.parse(f"{registry.host}/moved/burrow:2")
    store.tag(target, image.manifest.digest)
    digest = push(store.find(str(target)), target, store, registries=PLAIN)
    skopeo("copy", "--src-tls-verify=false", f"docker://{target}", f"oci:{directory}/layout:2")
    index = json.loads((directory / "layout/index.json").read_text())
    assert digest == image.manifest.digest
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{target}"))["Digest"] == digest
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "2"


def test_blobs_are_uploaded_in_chunks(
    registry: Registry, proxy: Proxy, store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.images.registry._CHUNK", 1 << 18)
    image = pull(name(registry), store, registries=PLAIN)
    with Registry(directory / "empty") as empty:
        target = reference.parse(f"{empty.host}/den/burrow:1")
        assert push(image, target, store, registries=PLAIN) == image.manifest.digest
        other = Store(str(directory / "other"))
        check(other, pull(str(target), other, registries=PLAIN))


def test_blobs_are_mounted_from_another_repository(registry: Registry, store: Store) -> None:
    image = pull(name(registry), store, registries=PLAIN)
    sent: list[int] = []
    target = reference.parse(f"{registry.host}/beside/burrow:1")
    push(image, target, store, registries=PLAIN, progress=lambda _digest, done, size: sent.append(size - done))
    assert not any(sent), "bytes were uploaded"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("style", ["docker-archive", "oci-archive"])
def test_archives_go_both_ways(registry: Registry, store: Store, directory: Path, style: str) -> None:
    image = pull(name(registry), store, registries=PLAIN)
    with open(directory / "ours.tar", "wb") as file:
        save([(image, ["burrow:saved"])], store, file, style)
    skopeo("copy", f"{style}:{directory}/ours.tar", f"oci:{directory}/layout:1")
    skopeo("copy", "--src-tls-verify=false", f"docker://{name(registry)}", f"{style}:{directory}/theirs.tar:burrow:2")
    for file_name, names in (("ours", ["docker.io/library/burrow:saved"]), ("theirs", ["docker.io/library/burrow:2"])):
        other = Store(str(directory / file_name))
        with subprocess.Popen(["cat", directory / f"{file_name}.tar"], stdout=subprocess.PIPE) as cat:
            assert cat.stdout
            (loaded,) = load(cat.stdout, other)
        # skopeo writes another configuration for an image that changes its kind.
        assert loaded.id == image.id or (file_name, style) == ("theirs", "oci-archive")
        assert loaded.names == names
        assert loaded.chains == image.chains
        other.collect(lambda _container: False)
        check(other, loaded)


def test_a_user_and_a_password(session_directory: Path, archive: Path, store: Store, directory: Path) -> None:
    require("htpasswd")
    with Registry(directory / "guarded", users=True) as registry:
        login = f"--dest-creds={USER}:{PASSWORD}"
        skopeo("copy", "--dest-tls-verify=false", login, f"docker-archive:{archive}", f"docker://{name(registry)}")
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        files = {"good": {registry.host: {"auth": auth}}, "bad": {registry.host: {"auth": auth[:-4]}}, "none": {}}
        for kind, entries in files.items():
            (directory / kind).write_text(json.dumps({"auths": entries}))
            with environment(REGISTRY_AUTH_FILE=str(directory / kind)):
                if kind == "good":
                    check(store, pull(name(registry), store, registries=PLAIN))
                    continue
                with pytest.raises(RegistryError, match=f"warren login {registry.host}"):
                    pull(name(registry), Store(str(directory / f"store-{kind}")), registries=PLAIN)


def test_certificates_are_checked(directory: Path, archive: Path) -> None:
    require("openssl")
    authority, server = make_certificates(directory / "certificates")
    with Registry(directory / "secure", tls=server) as registry:
        skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name(registry)}")
        endpoint = Endpoint(registry.host, "den/burrow")
        with environment(SSL_CERT_FILE=str(authority)):
            assert Client(endpoint).manifest("1")[0]
        with pytest.raises(RegistryError, match="unable to get local issuer certificate"):
            Client(endpoint).manifest("1")


# ---- what goes wrong


def once(change: "Callable[[Answer], None]") -> "Callable[[Answer], None]":
    """For the first blob that is large enough to matter."""
    done: list[str] = []

    def apply(answer: Answer) -> None:
        if answer.is_blob and len(answer.body) > 1 << 17 and not done:
            done.append(answer.path)
            change(answer)

    return apply


def half(answer: Answer) -> None:
    answer.cut = len(answer.body) // 2


@pytest.mark.usefixtures("way")
def test_a_connection_that_breaks_is_resumed(proxy: Proxy, store: Store) -> None:
    proxy.change = once(half)
    image = pull(name(proxy), store, registries=PLAIN)
    check(store, image)
    sizes = sum(layer.size for layer in image.manifest.layers) + image.manifest.config.size
    assert proxy.sent == sizes, "only the rest is fetched again"
    assert any(headers.get("Range", "").startswith("bytes=") for headers in proxy.requests)


@pytest.mark.usefixtures("way")
@pytest.mark.usefixtures("impatient")
def test_an_interrupted_pull_is_resumed_by_the_next(proxy: Proxy, store: Store) -> None:
    size: list[int] = []

    def fail(answer: Answer) -> None:
        if answer.is_blob and len(answer.body) > 1 << 17:
            if not size:
                size.append(len(answer.body))
                half(answer)
            else:
                answer.replace(503)

    proxy.change = fail
    with pytest.raises(WarrenError):
        pull(name(proxy), store, registries=PLAIN)
    assert [file.stat().st_size for file in Path(store.root, "partial").iterdir()] == [size[0] // 2]
    proxy.change, proxy.sent = lambda _answer: None, 0
    check(store, pull(name(proxy), store, registries=PLAIN))
    assert proxy.sent < size[0] * 3 // 4


@pytest.mark.usefixtures("way")
def test_a_registry_without_ranges(proxy: Proxy, store: Store) -> None:
    """200 for a Range: the blob begins again."""
    whole: dict[str, bytes] = {}
    cut = once(half)

    def change(answer: Answer) -> None:
        if answer.status == 206:
            answer.replace(200, whole[answer.path])
        elif answer.is_blob:
            whole[answer.path] = answer.body
            cut(answer)

    proxy.change = change
    check(store, pull(name(proxy), store, registries=PLAIN))
    assert proxy.sent > sum(map(len, whole.values()))


@pytest.mark.usefixtures("way")
def test_a_partial_file_that_is_too_long_or_wrong(proxy: Proxy, store: Store, directory: Path) -> None:
    """The rest after a wrong beginning fits no digest: it is thrown away, and the next pull is right."""
    image = pull(name(proxy), Store(str(directory / "other")), registries=PLAIN)
    layer = image.manifest.layers[0]
    with store.adding():
        partial = Path(store.root, "partial", layer.digest[7:])
        partial.write_bytes(bytes(layer.size // 2))
        with pytest.raises(ImageError):
            pull(name(proxy), store, registries=PLAIN)
        assert not partial.exists()
        partial.write_bytes(bytes(layer.size + 5))
        pull(name(proxy), store, registries=PLAIN)


def corrupt(answer: Answer) -> None:
    middle = len(answer.body) // 2
    answer.body = answer.body[:middle] + bytes([answer.body[middle] ^ 255]) + answer.body[middle + 1 :]


def shorten(answer: Answer) -> None:
    answer.body = answer.body[:-100]


def lengthen(answer: Answer) -> None:
    answer.body += b"more"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("fault", [corrupt, shorten, lengthen])
@pytest.mark.usefixtures("impatient")
def test_a_blob_that_is_not_what_was_promised(proxy: Proxy, store: Store, fault: "Callable[[Answer], None]") -> None:

    def change(answer: Answer) -> None:
        if answer.is_blob and answer.body:
            answer.headers.pop("Content-Range", None)
            fault(answer)

    proxy.change = change
    with pytest.raises(WarrenError) as caught:
        pull(name(proxy), store, registries=PLAIN)
    assert "\n" not in str(caught.value)
    assert store.names() == {}
    assert os.listdir(store.root + "/layers") == []
    proxy.change = lambda _answer: None
    check(store, pull(name(proxy), store, registries=PLAIN))


def test_a_manifest_of_another_digest(proxy: Proxy, store: Store) -> None:
    digest = pull(name(proxy), store, registries=PLAIN).manifest.digest
    proxy.change = lambda answer: setattr(answer, "body", answer.body + b" ") if "/manifests/" in answer.path else None
    with pytest.raises(ImageError, match="hashes to"):
        pull(name(proxy, f"@{digest}"), store, registries=PLAIN)
    proxy.change = lambda answer: answer.replace(200, b"[" * (5 << 20)) if "/manifests/" in answer.path else None
    with pytest.raises(ImageError, match="larger than"):
        pull(name(proxy), store, registries=PLAIN)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_registry_that_is_busy_is_asked_again(proxy: Proxy, store: Store, status: int) -> None:
    seen: dict[str, int] = {}

    def busy(answer: Answer) -> None:
        seen[answer.path] = seen.get(answer.path, 0) + 1
        if seen[answer.path] == 1 and answer.path != "/v2/":
            answer.replace(status, Retry_After="0")

    proxy.change = busy
    check(store, pull(name(proxy), store, registries=PLAIN))
    assert min(count for path, count in seen.items() if path != "/v2/") == 2


def test_authorization_does_not_go_to_another_host(
    proxy: Proxy, store: Store, directory: Path, registry: Registry
) -> None:
    """The proxy wants a password and sends blobs' readers elsewhere, as registries do that keep them in a store."""
    auth = "Basic " + base64.b64encode(b"me:secret").decode()
    with Proxy(registry.host) as elsewhere:

        def guard(answer: Answer) -> None:
            if answer.sent.get("Authorization") != auth:
                answer.replace(401, WWW_Authenticate='Basic realm="x"')
            elif answer.is_blob:
                answer.replace(307, Location=f"http://{elsewhere.host}{answer.path}")

        proxy.change = guard
        (directory / "auth").write_text(json.dumps({"auths": {proxy.host: {"auth": auth[6:]}}}))
        with environment(REGISTRY_AUTH_FILE=str(directory / "auth")):
            check(store, pull(name(proxy), store, registries=PLAIN))
        assert any("/blobs/" in path for path in elsewhere.asked)
        assert not any("Authorization" in headers for headers in elsewhere.requests)


@pytest.mark.usefixtures("way")
@pytest.mark.usefixtures("impatient")
def test_the_registry_dies_in_mid_blob(directory: Path, archive: Path, store: Store) -> None:
    with Registry(directory / "mortal") as registry, Proxy(registry.host) as proxy:
        skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name(registry)}")

        def die(answer: Answer) -> None:
            if answer.is_blob and len(answer.body) > 1 << 17:
                half(answer)
                registry.kill()

        proxy.change = die
        with pytest.raises(WarrenError):
            pull(name(proxy), store, registries=PLAIN)
        proxy.change = lambda _answer: None
        registry.restart()
        check(store, pull(name(proxy), store, registries=PLAIN))


# ---- the store under fire

PULL = """
import sys
from runtime.images import workers
from runtime.images.configuration import Registries
from runtime.images.pull import pull
from runtime.images.store import Store
workers.WORTH = int(sys.argv[3])
print("ready", flush=True)
pull(sys.argv[2], Store(sys.argv[1]), registries=Registries({}))
"""


def puller(store: Store, wanted: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", PULL, store.root, wanted, str(workers.WORTH)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("way")
def test_a_pull_killed_anywhere_leaves_a_store_for_the_next(registry: Registry, directory: Path) -> None:
    seed = int(os.environ.get("WARREN_SEED", random.randrange(1 << 32)))
    chance = random.Random(seed)
    begin = time.monotonic()
    pull(name(registry), Store(str(directory / "timed")), registries=PLAIN)
    whole = time.monotonic() - begin
    for number in range(KILLS):
        store = Store(str(directory / f"store-{number % 3}"))
        process = puller(store, name(registry))
        assert process.stdout
        process.stdout.readline()
        time.sleep(chance.uniform(0, 1.2 * whole))
        process.kill()
        process.communicate()
        image = pull(name(registry), store, registries=PLAIN)
        # A worker may not have noticed yet that it is alone; while it has the lock nothing is collected.
        subprocess.run(["flock", "--exclusive", store.lock_path, "true"], check=True, timeout=20)
        store.collect(lambda _container: False)
        try:
            check(store, image)
        except AssertionError as error:
            raise AssertionError(f"WARREN_SEED={seed} round {number}") from error
        if chance.random() < 0.5:
            shutil.rmtree(store.root)
        else:
            store.untag(image.names[0])
            store.collect(lambda _container: False)
            assert os.listdir(store.root + "/blobs/sha256") == os.listdir(store.root + "/layers") == []


@pytest.mark.usefixtures("way")
def test_two_pulls_at_once(registry: Registry, proxy: Proxy, store: Store) -> None:
    first, second = puller(store, name(proxy)), puller(store, name(proxy))
    for process in (first, second):
        _, err = process.communicate(timeout=60)
        assert not process.returncode, err
    image = store.find(name(proxy))
    check(store, image)
    assert proxy.sent <= sum(layer.size for layer in image.manifest.layers) + 2 * image.manifest.config.size


def test_pulls_while_names_are_removed(registry: Registry, store: Store) -> None:
    stop = threading.Event()
    with store.adding():
        pass

    def remove() -> None:
        while not stop.is_set():
            for known in store.names():
                store.untag(known)
            store.collect(lambda _container: False)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for _ in range(5):
            process = puller(store, name(registry))
            _, err = process.communicate(timeout=60)
            # The name may be gone again before the image is looked up.
            assert not process.returncode or "is not in the store" in err, err
    finally:
        stop.set()
        thread.join()
    check(store, pull(name(registry), store, registries=PLAIN))


def test_a_layer_in_use_is_kept(registry: Registry, store: Store) -> None:
    image = pull(name(registry), store, registries=PLAIN)
    store.use("a-container", image.chains)
    store.untag(image.names[0])
    store.collect(lambda container: container == "a-container")
    assert store.has_layer(image.chains[0])
    store.collect(lambda _container: False)
    assert not store.has_layer(image.chains[0])


def test_a_crash_of_the_machine(registry: Registry, store: Store) -> None:
    """What was being added at another boot is not trusted: partial blobs go, named images stay."""
    image = pull(name(registry), store, registries=PLAIN)
    Path(store.root, "pending/another-boot.0").write_bytes(b"")
    Path(store.root, "partial", "0" * 64).write_bytes(b"half")
    Path(store.root, "blobs/sha256", "1" * 64).write_bytes(b"")
    with store.adding():
        pass
    check(store, image)


@pytest.mark.usefixtures("way")
def test_a_full_disk(registry: Registry, directory: Path) -> None:
    small = directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        store = Store(str(small / "store"))
        with pytest.raises((OSError, WarrenError), match=r"(?i)no space"):
            pull(name(registry), store, registries=PLAIN)
        assert store.names() == {}
        assert os.listdir(store.root + "/layers") == []
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        check(store, pull(name(registry), store, registries=PLAIN))
    finally:
        subprocess.run(["umount", small], check=True)


# ---- damage


def damage_blob(store: Store, image: Image) -> None:
    with open(store.blob_path(image.manifest.layers[0].digest), "r+b") as file:
        file.seek(1000)
        file.write(b"moth")


def lose_blob(store: Store, image: Image) -> None:
    os.unlink(store.blob_path(image.id))


def damage_manifest(store: Store, image: Image) -> None:
    Path(store.blob_path(image.manifest.digest)).write_bytes(b"{}")


def in_layer(change: "Callable[[Path], object]") -> "Callable[[Store, Image], None]":
    def damage(store: Store, image: Image) -> None:
        change(Path(store.layer_path(image.chains[0])))

    return damage


DAMAGE: "dict[str, tuple[Callable[[Store, Image], None], str, str]]" = {
    "blob": (damage_blob, "hashes to", "fetched again"),
    "lost blob": (lose_blob, "is missing", "fetched again"),
    "manifest": (damage_manifest, "hashes to", "fetched again"),
    "lost layer": (in_layer(shutil.rmtree), "it is missing", "unpacked again"),
    "lost file": (in_layer(lambda layer: (layer / "etc/passwd").unlink()), "'etc/passwd' is missing", "unpacked again"),
    "more": (in_layer(lambda layer: (layer / "etc/more").touch()), "'etc/more' is one too many", "unpacked again"),
    "mode": (in_layer(lambda layer: (layer / "bin").chmod(0o777)), "'bin' has other attributes", "unpacked again"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_repaired(registry: Registry, store: Store, kind: str) -> None:
    damage, said, repaired = DAMAGE[kind]
    image = pull(name(registry), store, registries=PLAIN)
    assert verify(store) == []
    damage(store, image)
    (problem,) = verify(store)
    assert said in problem.text
    assert not problem.repaired
    (problem,) = verify(store, repair=True)
    assert problem.repaired == repaired
    assert verify(store) == []
    check(store, pull(name(registry), store, registries=PLAIN))


def test_layers_of_containers_are_not_repaired(registry: Registry, store: Store) -> None:
    image = pull(name(registry), store, registries=PLAIN)
    store.use("a-container", image.chains)
    (Path(store.layer_path(image.chains[0])) / "etc/passwd").write_text("changed")
    (problem,) = verify(store, repair=True, in_use=lambda container: container == "a-container")
    assert not problem.repaired


def test_a_damaged_image_does_not_hide_others(registry: Registry, store: Store) -> None:
    image = pull(name(registry), store, registries=PLAIN)
    other = pull(name(registry, ":zstd"), store, registries=PLAIN)
    assert image.id == other.id or len(store.images()) == 2
    damage_manifest(store, image)
    assert [found.manifest.digest for found in store.images()] == [other.manifest.digest]
    (note,) = store.notes
    assert name(registry) in note
    assert "warren image verify --repair" in note
    with pytest.raises(ImageError, match="nothing is removed while it is damaged"):
        store.collect(lambda _: False)
    assert store.names_of(name(registry)) == [name(registry)]
    store.untag(name(registry))
    assert store.collect(lambda _: False)
    check(store, store.load(other.manifest.digest))


def test_what_images_take_on_disk(registry: Registry, store: Store) -> None:
    image = pull(name(registry), store, registries=PLAIN)
    store.tag(reference.parse("localhost/again"), image.manifest.digest)
    (one,), size, free, interrupted = usage(store, lambda _: False)
    assert size == free == one.size == one.unique >= image.size
    assert one.active == interrupted == 0
    taken = subprocess.run(["du", "-sk", *(Path(store.root, part) for part in ("blobs/sha256", "layers"))],
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    blobs, layers = (int(line.split()[0]) for line in taken.splitlines())
    assert 0 <= blobs + layers - size / 1024 <= 16  # Their own directories are not counted.
    store.use("a-container", image.chains)
    (one,), _, free, _ = usage(store, lambda container: container == "a-container")
    assert (one.active, free) == (1, 0)


# ---- search


def test_search_in_a_catalog(registry: Registry) -> None:
    found = [(host, one["name"]) for host, one in PLAIN.search(f"{registry.host}/urr", 25)]
    assert (registry.host, "den/burrow") in found
    assert all(host == registry.host and "urr" in name for host, name in found)
    assert list(PLAIN.search(f"{registry.host}/nosuch", 25)) == []
    hosts = Registries({"unqualified-search-registries": [registry.host]})
    assert "den/burrow" in [one["name"] for _, one in hosts.search("den/burr", 25)]


def test_a_catalog_of_many_pages(proxy: Proxy) -> None:
    pages = {"": ("a", "b"), "last=b": ("c",), "last=c": ("bc",)}

    def answer(answer: Answer) -> None:
        if answer.path.startswith("/v2/_catalog"):
            names = pages[answer.path.partition("?")[2]]
            more = {"Link": f'</v2/_catalog?last={names[-1]}>; rel="next"'} if names != ("bc",) else {}
            answer.replace(200, json.dumps({"repositories": names}).encode(), **more)

    proxy.change = answer
    assert [one["name"] for _, one in PLAIN.search(f"{proxy.host}/c", 25)] == ["c", "bc"]
    assert [one["name"] for _, one in PLAIN.search(f"{proxy.host}/", 3)] == ["a", "b", "c"]
    assert proxy.asked[-1] == "/v2/_catalog?last=b"


def test_search_in_an_index_as_dockers(proxy: Proxy) -> None:
    results = [{"name": f"one/{number}", "star_count": number} for number in range(5)]

    def answer(answer: Answer) -> None:
        if answer.path.startswith("/v1/search"):
            answer.replace(200, json.dumps({"results": results}).encode())

    proxy.change = answer
    assert [one["star_count"] for _, one in PLAIN.search(f"{proxy.host}/one two", 3)] == [0, 1, 2]
    assert proxy.asked[-1] == "/v1/search?q=one+two&n=3"


def test_a_registry_that_offers_no_search(proxy: Proxy) -> None:
    proxy.change = lambda answer: answer.replace(404)
    with pytest.raises(UnsupportedError, match=f"registry {proxy.host} offers no search"):
        list(PLAIN.search(f"{proxy.host}/one", 3))
    proxy.change = lambda answer: answer.replace(200, b"<html>")
    with pytest.raises(ImageError, match="is no JSON"):
        list(PLAIN.search(f"{proxy.host}/one", 3))


# ---- what a person sees


IN_A_STORE = 'mount -t tmpfs none /var/lib && exec "$@"'


def typed(*words: str | Path) -> list[str]:
    """A command of root with a store of its own."""
    unshare = shutil.which("unshare")
    assert unshare
    return [unshare, "-m", "sh", "-c", IN_A_STORE, "sh", str(PROGRAM), *map(str, words)]


def test_a_bar_for_each_blob_on_a_terminal(registry: Registry) -> None:
    with Person(*typed("pull", name(registry))) as person:
        person.sees("━")
        assert person.ends() == 0
        assert "100" in person.screen or "bytes" in person.screen or "kB" in person.screen or "MB" in person.screen
        assert termios.tcgetattr(person.slave) == person.before
    quiet = subprocess.run(typed("pull", "--quiet", name(registry)), capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
    plain = subprocess.run(typed("pull", name(registry)), capture_output=True, text=True, check=True)
    assert all(line.endswith(" bytes") for line in plain.stderr.splitlines())
    assert plain.stderr.count("\n") == 1
    assert plain.stdout.startswith("sha256:")


def test_control_c_ends_a_pull(proxy: Proxy) -> None:
    """The bar goes, the cursor comes back, and the exit code is the shell's for an interrupt."""

    def wait(answer: Answer) -> None:
        if answer.is_blob and int(answer.headers.get("Content-Length", "0")) > 1 << 16:
            answer.cut = 1 << 15
            time.sleep(0.3)

    proxy.change = wait
    with Person(*typed("pull", name(proxy))) as person:
        person.sees("━")
        person.types("\x03")
        assert person.ends() == 130
        assert "Traceback" not in person.screen
        assert person.screen.rindex("\x1b[?25h") > person.screen.rindex("\x1b[?25l")
        assert termios.tcgetattr(person.slave) == person.before


def test_what_cannot_be_unpacked_is_told(registry: Registry, archive: Path, directory: Path) -> None:
    """An attribute of overlayfs's own in a layer, with a name that would steer the terminal."""
    name = "evil\x1b[2J"
    data = pax((b"SCHILY.xattr.trusted.overlay.opaque", b"y")) + entry(name)
    plain = data + bytes(1024)
    (directory / "layer.tar").write_bytes(plain)
    done = subprocess.run(typed("import", directory / "layer.tar", "evil"), capture_output=True, text=True, check=True)
    assert done.stderr.startswith("warren: warning: layer ")
    assert "trusted.overlay.opaque" in done.stderr
    assert "is left out" in done.stderr
    assert "\x1b" not in done.stderr


# ---- signatures


def test_a_signature_is_demanded(registry: Registry, proxy: Proxy, store: Store, directory: Path) -> None:
    """The very bytes that `cosign sign --key` would upload (specs/SIGNATURE_SPEC.md), made with openssl."""
    require("openssl")
    for key in ("mine", "other"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", directory / f"{key}.key")
        openssl("ec", "-in", directory / f"{key}.key", "-pubout", "-out", directory / f"{key}.pub")
    plain = pull(name(registry), Store(str(directory / "plain")), registries=PLAIN)
    mine = str(directory / "mine.pub")

    def signed(key: str = mine) -> Image:
        return pull(name(registry), store, registries=PLAIN, verify_key=key)

    with pytest.raises(ImageError, match="is not signed"):
        signed()
    digest = plain.manifest.digest
    for about, said in (("sha256:" + "0" * 64, "no signature by this key"), (digest, "")):
        put_signature(registry, digest, about, directory / "mine.key", directory)
        if said:
            with pytest.raises(ImageError, match=said):
                signed()
    assert signed().manifest.digest == digest
    pull(name(proxy), store, registries=PLAIN, verify_key=mine)
    assert proxy.asked.count("/v2/den/burrow/manifests/1") == 1
    assert not any("/manifests/sha256:" in path for path in proxy.asked)
    with pytest.raises(ImageError, match="no signature by this key"):
        signed(str(directory / "other.pub"))
    (directory / "none").write_text("no key")
    with pytest.raises(UsageError, match="no public key"):
        signed(str(directory / "none"))


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def put_signature(registry: Registry, digest: str, about: str, key: Path, directory: Path) -> None:
    document = json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": name(registry, "")},
                "image": {"docker-manifest-digest": about},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    ).encode()
    (directory / "document").write_bytes(document)
    openssl("dgst", "-sha256", "-sign", key, "-out", directory / "signature", directory / "document")
    signed = base64.b64encode((directory / "signature").read_bytes()).decode()
    put_manifest(
        registry, digest.replace(":", "-") + ".sig", b"{}", signature.TYPE, document, {signature.ANNOTATION: signed}
    )


def put_zstd(registry: Registry, archive: Path) -> None:
    """The archive's image with its layer as zstd:chunked has it: frames, between them one that is to be skipped."""
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        content = {path: file.read() for path, file in files.items() if file}
    plain = next(data for path, data in content.items() if path.endswith("layer.tar"))
    frames = [
        subprocess.run(["zstd", "-qc"], input=piece, capture_output=True, check=True).stdout
        for piece in (plain[: 1 << 16], plain[1 << 16 :])
    ]
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"extra"
    put_manifest(registry, "zstd", content["config.json"], manifest.OCI_LAYER + "+zstd", skipped.join(frames))


def put_manifest(
    registry: Registry, tag: str, config: bytes, type: str, data: bytes, annotations: "dict[str, str] | None" = None
) -> None:
    """An OCI manifest with one layer of this type."""
    client = Client(Endpoint(registry.host, "den/burrow", insecure=True))
    described = Descriptor(manifest.OCI_CONFIG, manifest.digest_of(config), len(config))
    layer = Descriptor(type, manifest.digest_of(data), len(data))
    layer.annotations = annotations or {}
    for blob, content in ((described, config), (layer, data)):
        client.push_blob(blob.digest, blob.size, iter([content]))
    body = {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_MANIFEST,
        "config": described.to_json(),
        "layers": [layer.to_json()],
    }
    client.push_manifest(tag, json.dumps(body).encode(), manifest.OCI_MANIFEST)


def put_index(registry: Registry, entries: "list[dict[str, object]]", tag: str) -> "dict[str, object]":
    raw = json.dumps({"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": entries}).encode()
    Client(Endpoint(registry.host, "den/burrow", insecure=True)).push_manifest(tag, raw, manifest.OCI_INDEX)
    return {"digest": manifest.digest_of(raw), "size": len(raw)}
