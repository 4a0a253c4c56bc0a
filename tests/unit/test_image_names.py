"""What images are called, what manifests say, and what people have configured: as docker and podman read the same."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ImageError, UnsupportedError, UsageError, WarrenError
from runtime.images import credentials, manifest, reference
from runtime.images.configuration import Registries

HEX = "86e0e091d0da6bde2456dbb48306f3956bbeb2eae1b5b9a43045843f69fe4aaa"
DIGEST = f"sha256:{HEX}"

# ---- references; what distribution/reference's tests take and refuse

SPLIT = {
    "redis": ("docker.io", "library/redis", "redis"),
    "library/redis": ("docker.io", "library/redis", "redis"),
    "docker.io/redis": ("docker.io", "library/redis", "redis"),
    "docker.io/library/redis": ("docker.io", "library/redis", "redis"),
    "index.docker.io/library/redis": ("docker.io", "library/redis", "redis"),
    "registry-1.docker.io/user/app": ("docker.io", "user/app", "user/app"),
    "user/app": ("docker.io", "user/app", "user/app"),
    "other/library": ("docker.io", "other/library", "other/library"),
    "docker.io/library/foo/bar": ("docker.io", "library/foo/bar", "library/foo/bar"),
    "store/foo/bar": ("docker.io", "store/foo/bar", "store/foo/bar"),
    "test_com/foo": ("docker.io", "test_com/foo", "test_com/foo"),
    "ubuntu-12.04-base": ("docker.io", "library/ubuntu-12.04-base", "ubuntu-12.04-base"),
    "192.168.0.1": ("docker.io", "library/192.168.0.1", "192.168.0.1"),
    "dock__er/a---b": ("docker.io", "dock__er/a---b", "dock__er/a---b"),
    "d/t": ("docker.io", "d/t", "d/t"),
    f"docker.io/{HEX}": ("docker.io", f"library/{HEX}", f"docker.io/library/{HEX}"),
    HEX[:63]: ("docker.io", f"library/{HEX[:63]}", HEX[:63]),
    "localhost/foo": ("localhost", "foo", "localhost/foo"),
    "localhost:5000/foo": ("localhost:5000", "foo", "localhost:5000/foo"),
    "test-com:8080/foo": ("test-com:8080", "foo", "test-com:8080/foo"),
    "127.0.0.1:8000/private/moonbase": ("127.0.0.1:8000", "private/moonbase", "127.0.0.1:8000/private/moonbase"),
    "example.com/privatebase": ("example.com", "privatebase", "example.com/privatebase"),
    "xn--n3h.com:18080/foo": ("xn--n3h.com:18080", "foo", "xn--n3h.com:18080/foo"),
    "Foo/bar": ("Foo", "bar", "Foo/bar"),
    "FOO/bar": ("FOO", "bar", "FOO/bar"),
    "[fc00::1]:5000/docker": ("[fc00::1]:5000", "docker", "[fc00::1]:5000/docker"),
    "[2001:db8::1]/repo": ("[2001:db8::1]", "repo", "[2001:db8::1]/repo"),
}


ENDINGS = {
    "": ("latest", ""),
    ":tag": ("tag", ""),
    f"@{DIGEST}": ("", DIGEST),
    f":V1.0_x-y@{DIGEST}": ("V1.0_x-y", DIGEST),
}


@pytest.mark.parametrize("text", SPLIT)
@pytest.mark.parametrize("ending", ENDINGS)
def test_names(text: str, ending: str) -> None:
    registry, repository, familiar = SPLIT[text]
    found = reference.parse(text + ending)
    assert (found.registry, found.repository) == (registry, repository)
    assert (found.tag, found.digest) == ENDINGS[ending]
    assert (str(found), found.familiar) == (
        f"{registry}/{repository}{ending or ':latest'}",
        familiar + (ending or ":latest"),
    )
    assert reference.parse(str(found)) == found == reference.parse(found.familiar)


WRONG = [
    "", "/", ":", "@", ":tag", "a:", "a@", "a/", "/a", "a//b", "https://example.com/a", "docker/Docker", "-docker",
    "-foo/bar", "docker-/docker", "____/____", "_docker/_docker", "dock..er/docker", "dock_.er/docker", "a-.b/c",
    "a___b",
    "docker.io/docker///docker", "-docker.io/a", "docker-.io/a", "example..com/a", "example.com:/a",
    "example.com:80a/b",
    "example.com:٣/b", "[fc00::1]", "[fc00::1]:5000", "fc00::1:5000/debian", "[fe80::1%eth0]:5000/debian", "[]/a",
    "[::1/a", "[::1]x/a", "[2001:db8:3:4::192.0.2.33]:5000/debian",
    HEX, f"{HEX}:tag", "a:-tag", "a:.tag", "a:" + "t" * 129,
    "a:t g", "a@sha256:1234", f"a@sha256:{HEX.upper()}", f"a@{DIGEST}x", f"a@{DIGEST}@{DIGEST}", f"a@sha512:{HEX}",
    "a" * 256, "a/" * 200 + "a", "a b", "a\n", "a\0", "ä", "a/ä",
    "docker.io/", "..", "../a", "a/../b", "a?x=1",
    "a%2fb", "a:t/x:",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        reference.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="aA0._-/:@[]é \n", max_size=40))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    try:
        found = reference.parse(text)
    except UsageError:
        return
    assert reference.parse(str(found)) == found


def test_docker_io_answers_elsewhere() -> None:
    assert reference.parse("redis").host == "registry-1.docker.io"
    assert reference.parse("redis:1").wanted == "1"
    assert reference.parse(f"redis:1@{DIGEST}").wanted == DIGEST


# ---- manifests

LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 5}
CONFIG = {"mediaType": manifest.OCI_CONFIG, "digest": DIGEST, "size": 7}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "mediaType": manifest.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": []}


def raw(document: object) -> bytes:
    return json.dumps(document).encode()


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}


def test_a_manifest() -> None:
    found = manifest.parse_manifest(raw(IMAGE))
    assert (found.type, found.digest) == (manifest.OCI_MANIFEST, manifest.digest_of(raw(IMAGE)))
    assert (found.config.size, [layer.size for layer in found.layers]) == (7, [5])
    for told in ("", manifest.OCI_MANIFEST, manifest.DOCKER_MANIFEST, "application/json"):
        assert manifest.parse_manifest(raw(IMAGE), told).type == manifest.OCI_MANIFEST
    assert manifest.parse_manifest(raw(without(IMAGE, "mediaType"))).type == manifest.OCI_MANIFEST
    told = manifest.parse_manifest(raw(without(IMAGE, "mediaType")), manifest.DOCKER_MANIFEST)
    assert told.type == manifest.DOCKER_MANIFEST


CONFUSED = {
    "both at once": (IMAGE | {"manifests": []}, ""),
    "index with a config": (INDEX | {"config": CONFIG}, ""),
    "index with null layers": (INDEX | {"layers": None}, ""),
    "index that says manifest": (INDEX | {"mediaType": manifest.OCI_MANIFEST}, ""),
    "manifest that says index": (IMAGE | {"mediaType": manifest.OCI_INDEX}, ""),
    "manifest that came as index": (IMAGE, manifest.DOCKER_LIST),
    "untyped index that came as manifest": (without(INDEX, "mediaType"), manifest.OCI_MANIFEST),
    "untyped manifest that came as index": (without(IMAGE, "mediaType"), manifest.OCI_INDEX),
    "type is no text": (IMAGE | {"mediaType": 5}, ""),
}


@pytest.mark.parametrize("case", CONFUSED)
def test_documents_that_are_two_things(case: str) -> None:
    """CVE-2021-41190: the same bytes, an image to one and an index to another."""
    document, told = CONFUSED[case]
    with pytest.raises(ImageError):
        manifest.kind(document, told)


def test_schema_1_and_artifacts_are_named() -> None:
    with pytest.raises(UnsupportedError, match="schema 1"):
        manifest.parse_manifest(raw({"schemaVersion": 1, "fsLayers": [], "signatures": []}))
    with pytest.raises(UnsupportedError, match="no image"):
        manifest.parse_manifest(raw(IMAGE | {"config": CONFIG | {"mediaType": "application/vnd.oci.empty.v1+json"}}))
    with pytest.raises(UnsupportedError, match="layer"):
        manifest.parse_manifest(raw(IMAGE | {"layers": [LAYER | {"mediaType": "application/x-thing"}]}))
    with pytest.raises(UnsupportedError, match="type"):
        manifest.parse_manifest(raw(IMAGE | {"mediaType": "application/x-thing"}))


BAD = {
    "nothing": b"", "no JSON": b"{", "null": b"null", "list": b"[]", "NaN": b'{"a": NaN}', "deep": b"[" * 100_000,
    "not UTF-8": b'{"a": "\xff"}', "too large": b'{"a": "' + b"x" * manifest.MAX_SIZE + b'"}',
    "an index": raw(INDEX), "no layers": raw(without(IMAGE, "layers")), "no config": raw(without(IMAGE, "config")),
    "null layers": raw(IMAGE | {"layers": None}), "too many": raw(IMAGE | {"layers": [LAYER] * 501}),
    "layer null": raw(IMAGE | {"layers": [None]}),
    **{
        f"{key} {value!r}": raw(IMAGE | {"layers": [LAYER | {key: value}]})
        for key, value in [
            ("size", -1), ("size", True), ("size", 1.5), ("size", "5"), ("size", None), ("size", 1 << 60),
            ("digest", "sha256:12"), ("digest", None), ("digest", f"sha256:{HEX.upper()}"), ("digest", f"../{HEX}"),
            ("digest", f"sha256:{HEX}\n"), ("mediaType", None), ("platform", []),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_manifests(case: str) -> None:
    with pytest.raises(ImageError):
        manifest.parse_manifest(BAD[case])


def descriptor(name: str, **platform: str) -> dict[str, Any]:
    digest = manifest.digest_of(name.encode())
    return {
        "mediaType": manifest.OCI_MANIFEST,
        "digest": digest,
        "size": 1,
        **({"platform": platform} if platform else {}),
    }


def chosen(wanted: str, *entries: dict[str, Any]) -> list[int]:
    """The numbers of those that come into question, the best first."""
    found = manifest.parse_index(raw(INDEX | {"manifests": list(entries)}))
    digests = [entry["digest"] for entry in entries]
    return [digests.index(one.digest) for one in manifest.choose(found, manifest.parse_platform(wanted))]


def linux(architecture: str, variant: str = "") -> dict[str, Any]:
    more = {"variant": variant} if variant else {}
    return descriptor(architecture + variant, os="linux", architecture=architecture, **more)


def test_platforms() -> None:
    every = [
        linux("amd64"), linux("arm", "v5"), linux("arm", "v6"), linux("arm", "v7"), linux("arm64", "v8"), linux("386"),
        descriptor("windows", os="windows", architecture="amd64"),
        descriptor("attestation", os="unknown", architecture="unknown"),
        {**descriptor("nested"), "mediaType": manifest.OCI_INDEX},
    ]  # fmt: skip
    assert chosen("linux/amd64", *every) == [0, 8]
    assert chosen("linux/arm/v7", *every) == [3, 2, 1, 8]
    assert chosen("linux/arm/v6", *every) == [2, 1, 8]
    assert chosen("linux/arm64/v8", *every) == [4, 8]
    assert chosen("linux/arm64", *every) == [4, 8]
    assert chosen("windows/amd64", *every) == [6, 8]
    assert chosen("linux/s390x", *every) == [8]
    assert chosen("linux/arm64/v8", linux("arm64")) == [0]


@pytest.mark.parametrize("variant", ["v²", "v" + "9" * 5000, "9", "v", "V7", "v-1", "x", " "])
def test_odd_variants_are_none_of_ours(variant: str) -> None:
    assert chosen("linux/arm/v7", linux("arm", variant)) == []


def test_platforms_of_odd_types() -> None:
    odd = descriptor("odd") | {"platform": {"os": ["linux"], "architecture": {"a": 1}, "variant": 7}}
    assert chosen("linux/arm/v7", odd) == []


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v7"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(WarrenError):
        manifest.parse_platform(text)


def test_configurations_have_a_diff_id_for_each_layer() -> None:
    assert manifest.diff_ids({"rootfs": {"diff_ids": [DIGEST]}}, 1) == [DIGEST]
    for rootfs in (
        None,
        [],
        {},
        {"diff_ids": None},
        {"diff_ids": [DIGEST] * 2},
        {"diff_ids": [5]},
        {"diff_ids": ["x"]},
    ):
        with pytest.raises(ImageError):
            manifest.diff_ids({"rootfs": rootfs}, 1)


# ---- registries.conf


def names(found: list[reference.Reference]) -> list[str]:
    return [str(one) for one in found]


def test_short_names() -> None:
    known = Registries({
        "unqualified-search-registries": ["one.example", "two.example:5000"],
        "aliases": {"fedora": "registry.example/fedora", "team/app": "registry.example/team/app"},
    })  # fmt: skip
    assert names(known.candidates("fedora:40")) == ["registry.example/fedora:40"]
    assert names(known.candidates(f"team/app@{DIGEST}")) == [f"registry.example/team/app@{DIGEST}"]
    assert names(known.candidates("busybox")) == ["one.example/busybox:latest", "two.example:5000/busybox:latest"]
    for full in (
        "docker.io/fedora",
        "docker.io/library/fedora",
        "index.docker.io/fedora",
        "registry-1.docker.io/fedora",
    ):
        assert names(known.candidates(full)) == ["docker.io/library/fedora:latest"]
    assert names(known.candidates("docker.iox")) == [
        "one.example/docker.iox:latest",
        "two.example:5000/docker.iox:latest",
    ]
    assert names(known.candidates("localhost/fedora")) == ["localhost/fedora:latest"]
    assert names(Registries({}).candidates("fedora")) == ["docker.io/library/fedora:latest"]


def endpoints(config: dict[str, Any], name: str) -> list[tuple[str, str, bool]]:
    found = Registries({"registry": [config]}).endpoints(reference.parse(name))
    return [(one.host, one.repository, one.insecure) for one in found]


def test_mirrors_and_locations() -> None:
    mirrors = [
        {"location": "m.example/cache", "insecure": True},
        {"location": "n.example", "pull-from-mirror": "digest-only"},
    ]
    config = {"prefix": "example.com/a", "location": "real.example/b", "mirror": mirrors}
    own, first = ("real.example", "b/x", False), ("m.example", "cache/x", True)
    assert endpoints(config, "example.com/a/x") == [first, own]
    assert endpoints(config, f"example.com/a/x@{DIGEST}") == [first, ("n.example", "x", False), own]
    assert endpoints(config, "example.com/ab/x") == [("example.com", "ab/x", False)]
    tags = {"location": "example.com", "mirror": [{"location": "m.example", "pull-from-mirror": "tag-only"}]}
    assert len(endpoints(tags, "example.com/x")) == 2 and len(endpoints(tags, f"example.com/x@{DIGEST}")) == 1
    digests = {"location": "example.com", "mirror-by-digest-only": True, "mirror": [{"location": "m.example"}]}
    assert len(endpoints(digests, "example.com/x")) == 1 and len(endpoints(digests, f"example.com/x@{DIGEST}")) == 2


def test_wildcards() -> None:
    config = {"prefix": "*.example.com", "insecure": True}
    assert endpoints(config, "a.b.example.com/x") == [("a.b.example.com", "x", True)]
    for name in ("example.com/x", "badexample.com/x", "a.example.com.evil/x"):
        assert endpoints(config, name) == [(name.split("/")[0], "x", False)]


def test_the_longest_prefix_counts() -> None:
    known = Registries({"registry": [
        {"location": "example.com", "blocked": True}, {"prefix": "example.com/free", "location": "example.com/free"},
    ]})  # fmt: skip
    assert known.endpoints(reference.parse("example.com/free/x"))[0].repository == "free/x"
    with pytest.raises(UsageError, match="blocked"):
        known.endpoints(reference.parse("example.com/x"))


def test_the_hub_and_loopback() -> None:
    assert endpoints({}, "redis") == [("registry-1.docker.io", "library/redis", False)]
    mirrored = endpoints({"location": "docker.io", "mirror": [{"location": "m.example"}]}, "redis")
    assert mirrored == [("m.example", "library/redis", False), ("registry-1.docker.io", "library/redis", False)]
    for host, insecure in (
        ("localhost:5000", True),
        ("127.0.0.1:1", True),
        ("[::1]:5000", True),
        ("127.evil.com", False),
    ):
        assert endpoints({}, f"{host}/x") == [(host, "x", insecure)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user who has configured nothing yet."""
    for name in ("XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "CONTAINERS_REGISTRIES_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_and_drop_ins(home: Path) -> None:
    main = home / ".config/containers/registries.conf"
    write(main, '[[registry]]\nlocation = "a.example"\nblocked = true\n[aliases]\n"warren/x" = "b.example/x"\n')
    write(main.with_name("registries.conf.d") / "10.conf", '[[registry]]\nlocation = "a.example"\ninsecure = true\n')
    write(main.with_name("registries.conf.d") / "20.conf", '[aliases]\n"warren/y" = "c.example/y"\n')
    write(main.with_name("registries.conf.d") / "30.off", "not TOML")
    known = Registries()
    assert known.endpoints(reference.parse("a.example/x"))[0].insecure
    assert names(known.candidates("warren/x")) == ["b.example/x:latest"]
    assert names(known.candidates("warren/y")) == ["c.example/y:latest"]
    write(main, "not TOML")
    with pytest.raises(UsageError, match=r"registries\.conf"):
        Registries()


# ---- credentials


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_most_specific_entry_of_the_first_file(home: Path) -> None:
    write(
        home / ".docker/config.json", json.dumps({"auths": {"r.example": auth("docker", "d"), "only": auth("o", "o")}})
    )
    assert credentials.find("r.example") == ("docker", "d")
    entries = {
        "r.example": auth("podman", "p:q"),
        "r.example/team": auth("team", "t"),
        "r.example/team/app": auth("app", "a"),
    }
    write(home / "run/containers/auth.json", json.dumps({"auths": entries}))
    assert credentials.find("r.example") == ("podman", "p:q")
    assert credentials.find("r.example", "other/app") == ("podman", "p:q")
    assert credentials.find("r.example", "team/other") == ("team", "t")
    assert credentials.find("r.example", "team/app") == ("app", "a")
    assert credentials.find("r.example", "teammate/app") == ("podman", "p:q")
    assert credentials.find("only") == ("o", "o")
    assert credentials.find("evil.example") is None


def test_keys_as_docker_writes_them(home: Path) -> None:
    entries = {
        "https://index.docker.io/v1/": auth("hub", "h"),
        "https://r.example/v2/": {"identitytoken": "t0"},
        "e": {},
    }
    write(home / ".docker/config.json", json.dumps({"auths": entries}))
    assert credentials.find("docker.io", "library/x") == ("hub", "h")
    assert credentials.find("r.example") == ("<token>", "t0")
    assert credentials.find("e") is None


def test_login_and_logout(home: Path) -> None:
    path = Path(credentials.store("r.example", "user", "pass:word"))
    assert path == home / "run/containers/auth.json"
    assert path.stat().st_mode & 0o777 == 0o600
    credentials.store("other.example", "u", "p")
    assert credentials.find("r.example", "a/b") == ("user", "pass:word")
    assert credentials.forget("r.example") and not credentials.forget("r.example")
    assert credentials.find("r.example") is None and credentials.find("other.example") == ("u", "p")


HELPER = """#!/bin/sh
read -r server
echo "$1 $server" >>"$HOME/asked"
[ "$1 $server" = "get r.example" ] || { echo "credentials not found in native keychain"; exit 1; }
echo '{"ServerURL": "r.example", "Username": "helped", "Secret": "s"}'
"""


def test_credential_helpers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "bin/docker-credential-my-keys", HELPER).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin:/usr/bin:/bin")
    config = write(home / ".docker/config.json", json.dumps({"credsStore": "my-keys", "auths": {"r.example": {}}}))
    assert credentials.find("r.example") == ("helped", "s")
    assert credentials.find("other.example") is None
    config.write_text(json.dumps({"credHelpers": {"r.example": "my-keys"}}))
    assert credentials.find("r.example", "team/app") == ("helped", "s")
    (home / "asked").unlink()
    assert credentials.find("other.example") is None
    assert not (home / "asked").exists()
    for name in ("../my-keys", "no-such", "x;touch y"):
        config.write_text(json.dumps({"credsStore": name}))
        assert credentials.find("r.example") is None


BROKEN = [
    "{", "[" * 100_000, '{"auths": [1]}', '{"auths": {"r": 5}}', '{"auths": {"r": {"auth": "%"}}}',
    '{"auths": {"r": {"auth": 5}}}', '{"credHelpers": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_broken_files_are_one_line(text: str, home: Path) -> None:
    write(home / ".docker/config.json", text)
    with pytest.raises(WarrenError) as caught:
        credentials.find("r")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('registry = "x"', "registry must be a list"),
        ("registry = [1]", "registry[0] must be a table"),
        ('[[registry]]\nlocation = "a"\nmirror = ["x"]', "registry[0].mirror[0] must be a table"),
        ('[[registry]]\nlocation = "a"\ninsecure = "false"', "registry[0].insecure must be true or false"),
        ("[[registry]]\nlocation = 5", "registry[0].location must be a string"),
        ('unqualified-search-registries = "docker.io"', "unqualified-search-registries must be a list"),
        ("unqualified-search-registries = [5]", "unqualified-search-registries[0] must be a string"),
        ('aliases = "x"', "aliases must be a table"),
        ("[aliases]\na = 5", "aliases.a must be a string"),
        ("a = [", "invalid"),
    ],
)
def test_a_registries_conf_of_wrong_types_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    file = tmp_path / "Registries.conf"
    file.write_text(text)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(file))
    with pytest.raises(UsageError) as caught:
        Registries()
    assert said in str(caught.value) and str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
