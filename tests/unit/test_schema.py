"""runtime/spec.py beside the spec's own JSON schema, as Debian packages it (runtime-spec 1.0.2 and a good deal more).

What Warren accepts the schema accepts too, or the difference is listed here with its reason; and `features` is what
features.md describes.
"""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from runtime import capabilities, spec
from runtime.errors import SpecError
from runtime.namespaces.mount import Options

from .test_oci import call
from .test_spec import LEGAL, MISSING, full, put

SCHEMA = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")

DIFFERENCES = {
    r"linux\.namespaces\.\d+: {'type': 'time'}": "time namespaces came with 1.1",
    r"linux\.rootfsPropagation: '(r(shared|slave|private|unbindable))?' is not one of": "as runc takes it",
    r"linux\.resources\.pids: 'limit' is a required property": "optional since 1.3",
    r"linux\.resources\.hugepageLimits\.\d+\.pageSize": "refused where limits are set (cgroups/checks.py)",
    r"linux\.seccomp\.architectures": "refused where filters are compiled (seccomp/document.py)",
}
"""What Warren accepts and the schema does not, by a pattern of the path, and why."""


REGISTRY = Registry().with_resources(
    (path.name, Resource(json.loads(path.read_text()), DRAFT4)) for path in SCHEMA.glob("*.json")
)


def validator(schema: Any) -> Draft4Validator:
    return Draft4Validator(schema, registry=REGISTRY)


CONFIG = validator({"$ref": "config-schema.json"})


def problems(config: object) -> list[str]:
    """What the schema says of a configuration, but for the known differences: "linux.x: 5 is not of type ..."."""
    found = []
    for error in CONFIG.iter_errors(config):
        where = ".".join(map(str, error.absolute_path))
        text = f"{where}: {error.message}"
        if not any(re.match(pattern, text) for pattern in DIFFERENCES):
            found.append(text[:300])
    return found


def paths(value: object, path: str = "") -> Iterator[str]:
    """Every place of a configuration, "linux|devices|0|path"."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        place = f"{path}|{key}" if path else str(key)
        yield place
        yield from paths(item, place)


@pytest.mark.parametrize("rootless", [False, True])
def test_the_schema_accepts_what_warren_writes(rootless: bool) -> None:
    assert problems(spec.default_spec(rootless)) == []


def test_the_schema_accepts_a_full_configuration() -> None:
    assert problems(spec.validate(full())) == []


@pytest.mark.parametrize(("path", "value"), LEGAL)
def test_the_schema_accepts_what_is_legal(path: str, value: object) -> None:
    config = full()
    put(config, path, copy.deepcopy(value))
    assert problems(spec.validate(config)) == []


STRANGE = (None, True, -1, 1 << 64, 1.5, "", "/x", [], [None], ["x"], {}, MISSING)


def test_warren_refuses_what_the_schema_refuses() -> None:
    """Each value of a full configuration is replaced by strange ones, and removed."""
    accepted, wrong = 0, []
    for path in paths(full()):
        for value in STRANGE:
            config = full()
            put(config, path, copy.deepcopy(value))
            # Warren takes known nulls out while it reads: Go writes them for nil, and they are as good as absent.
            try:
                config = spec.validate(config)
            except SpecError:
                continue
            accepted += 1
            wrong += [f"{path} = {value!r}: {problem}" for problem in problems(config)]
    assert accepted > 300, "most of this was about what Warren refuses"
    assert wrong == []


def _words(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "uniqueItems": True, "minItems": 1}


def _bools(*names: str) -> dict[str, Any]:
    return _object(**{name: {"type": "boolean"} for name in names})


def _object(**properties: Any) -> dict[str, Any]:
    """All of these and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _defined(name: str) -> dict[str, Any]:
    return {"$ref": f"defs-linux.json#/definitions/{name}"}


STRINGS = {"$ref": "defs.json#/definitions/ArrayOfStrings"}
NEWER_ARCHITECTURES = {"enum": [f"SCMP_ARCH_{name}" for name in ("LOONGARCH64", "M68K", "SH", "SHEB")]}
FEATURES = _object(
    ociVersionMin={"$ref": "defs.json#/definitions/ociVersion"},
    ociVersionMax={"$ref": "defs.json#/definitions/ociVersion"},
    hooks=STRINGS,
    mountOptions=STRINGS,
    annotations={"$ref": "defs.json#/definitions/annotations"},
    potentiallyUnsafeConfigAnnotations=STRINGS,
    linux=_object(
        namespaces=_words({"anyOf": [_defined("NamespaceType"), {"enum": ["time"]}]}),
        capabilities=_words({"pattern": "^CAP_[A-Z_]+$"}),
        cgroup=_bools("v1", "v2", "systemd", "systemdUser", "rdma"),
        seccomp=_object(
            enabled={"type": "boolean"},
            actions=_words(_defined("SeccompAction")),
            operators=_words(_defined("SeccompOperators")),
            archs=_words({"anyOf": [_defined("SeccompArch"), NEWER_ARCHITECTURES]}),
            knownFlags=_words(_defined("SeccompFlag")),
            supportedFlags=_words(_defined("SeccompFlag")),
        ),
        apparmor=_bools("enabled"),
        selinux=_bools("enabled"),
        intelRdt=_bools("enabled", "schemata", "monitoring"),
        memoryPolicy=_object(
            modes=_words({"pattern": "^MPOL_[A-Z_]+$"}), flags=_words({"pattern": "^MPOL_F_[A-Z_]+$"})
        ),
        mountExtensions=_object(idmap=_bools("enabled")),
        netDevices=_bools("enabled"),
    ),
)
"""features.md and features-linux.md of 1.3, whose own schema Debian does not package yet; all that they describe must
be there, since what is absent means "unknown" to an engine."""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return json.loads(call(tmp_path_factory.mktemp("features"), "features").stdout)


def test_features_are_what_the_spec_describes(features: Any) -> None:
    assert [error.message for error in validator(FEATURES).iter_errors(features)] == []


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("namespaces", "NamespaceType"),
        ("seccomp actions", "SeccompAction"),
        ("seccomp operators", "SeccompOperators"),
        ("seccomp archs", "SeccompArch"),
        ("seccomp knownFlags", "SeccompFlag"),
    ],
)
def test_features_hold_every_word_of_the_schema(features: Any, where: str, name: str) -> None:
    known = features["linux"]
    for key in where.split():
        known = known[key]
    words = json.loads((SCHEMA / "defs-linux.json").read_text())["definitions"][name]["enum"]
    assert set(words) <= set(known)


def test_features_are_true(features: Any) -> None:
    """ "The runtime MUST recognize the elements in this array": each word is put into a configuration."""
    linux = features["linux"]
    for mode in linux["memoryPolicy"]["modes"]:
        spec.validate({**full(), "linux": {**full()["linux"], "memoryPolicy": {"mode": mode}}})
    for flag in linux["memoryPolicy"]["flags"]:
        policy = {"mode": "MPOL_BIND", "flags": [flag], "nodes": "0"}
        spec.validate({**full(), "linux": {**full()["linux"], "memoryPolicy": policy}})
    for hook in features["hooks"]:
        with pytest.raises(SpecError, match=hook):
            spec.validate({**full(), "hooks": {hook: 1}})
    for options in ([word] for word in features["mountOptions"]):
        assert Options(options).data in ([], options)
        assert Options(options).data == [] or options[0] in SUPERBLOCK, "the file system's own, so not known"
    assert linux["capabilities"] == list(capabilities.NAMES)


SUPERBLOCK = ("sync", "dirsync", "lazytime", "mand", "async", "nolazytime", "nomand")
"""Words that fsconfig(2) knows itself."""
