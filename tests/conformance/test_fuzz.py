"""`create` of configurations that nobody would write: refused in one line, or done; nothing is left either way.

Every example is a run of the real program, as root, on a bundle whose config.json has been mutated.  WARREN_LONG=1
makes it 5,000.
"""

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.oci import Bundle, Runtime

Path_ = tuple[str | int, ...]

EXAMPLES = 5000 if os.environ.get("WARREN_LONG") else 300
SECONDS = 20.0


class Raw(str):
    """Text that goes into the file as it is; JSON's own writer would not write it."""


def nested(depth: int, left: str, right: str) -> Raw:
    return Raw(left * depth + right * depth)


STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 7, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 64, -(1 << 63), -(1 << 200),
    Raw("9" * 5000), Raw("-" + "1" * 400), Raw("1e999"), Raw("NaN"), Raw("0x10"), 0.0, 1.5,
    "", "x", "..", "../../x", "a/b", "a:b", "\0", "\n\x1b[31m", "%s%n", "é" * 70, "x" * 300, "x" * 70_000, "0", "a=b",
    Raw('"\\ud800"'), Raw('"\\u0000"'), Raw('"\udcff"'), Raw("'x'"), Raw("{"),
    [], {}, [None], [[]], [{}], [1, "a"], ["x", "x"], {"": 0}, {"x": None}, {"x": {}},
    nested(50, "[", "]"), Raw('{"a":' * 50 + "1" + "}" * 50), nested(100_000, "[", "]"),
]  # fmt: skip

MAPPING = {"containerID": 0, "hostID": 1 << 30, "size": 65536}
ADDED: dict[Path_, Any] = {
    ("linux", "netDevices"): {"wrn-nosuch": {"name": "eth7"}},
    ("linux", "intelRdt"): {"closID": "warren", "schemata": ["L3:0=f"]},
    ("linux", "uidMappings"): [MAPPING],
    ("linux", "gidMappings"): [MAPPING],
    ("linux", "timeOffsets"): {"monotonic": {"secs": 5}},
    ("linux", "personality"): {"domain": "LINUX32", "flags": ["X"]},
    ("linux", "mountLabel"): "system_u:object_r:x:s0",
    ("linux", "resources", "hugepageLimits"): [{"pageSize": "2MB", "limit": 0}],
    ("linux", "resources", "rdma"): {"mlx5_0": {"hcaHandles": 1}},
    ("linux", "resources", "unified"): {"memory.high": "max", "../x": "1"},
    ("linux", "resources", "network"): {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
    ("linux", "resources", "blockIO"): {"weight": 5, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
    ("process", "apparmorProfile"): "unconfined",
    ("process", "selinuxLabel"): "system_u:system_r:x:s0",
    ("process", "execCPUAffinity"): {"initial": "0", "final": "0-99999"},
    ("process", "ioPriority"): {"class": "IOPRIO_CLASS_RT", "priority": 0},
    ("process", "consoleSize"): {"height": 1 << 15, "width": 0},
    ("mounts", 0, "uidMappings"): [MAPPING],
}
"""What the configuration does not ask for; most of it is refused here, so it comes one at a time."""

NEVER = {("root", "path"), ("root",), ("hooks",)}
"""Places whose mutation could make the host's own files the container's root, or start its programs."""


def rich(bundle: Bundle) -> dict[str, Any]:
    """A configuration with many parts, which works as it is."""
    config = copy.deepcopy(bundle.config)
    config["ociVersion"] = "1.3.0"
    config["domainname"] = "example.org"
    config["annotations"] = {"org.example.key": "value"}
    config["process"] |= {
        "user": {"uid": 1000, "gid": 1000, "umask": 0o22, "additionalGids": [5]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}],
        "oomScoreAdj": 500,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "env": [*config["process"]["env"], "A=b"],
    }
    config["mounts"] += [
        {
            "destination": "/data/source",
            "type": "bind",
            "source": str(bundle.path / "source"),
            "options": ["rbind", "ro"],
        },
        {"destination": "/data/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "nodev", "rprivate"]},
    ]
    config["linux"] |= {
        "namespaces": [*config["linux"]["namespaces"], {"type": "cgroup"}],
        "devices": [{"path": "/dev/wrn", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "rootfsPropagation": "private",
        "memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "", "flags": []},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {
                    "names": ["acct", "nosuchcall"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
    }
    config["linux"]["resources"] |= {"pids": {"limit": 100}, "cpu": {"shares": 512}, "memory": {"limit": 1 << 28}}
    return config


def places(value: Any, path: Path_ = ()) -> list[Path_]:
    """Every place of a configuration, but for those that are never changed."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = []
    for key in keys:
        place = (*path, key)
        found += [] if place in NEVER else [place]
        found += places(value[key], place)
    return found


def mutate(config: dict[str, Any], change: "tuple[str, int, Any]") -> None:
    """One change: another value at a place, one of its own type (tweak), another place's (swap), none, or once more."""
    kind, seed, value = change
    if kind == "add":
        where = sorted(ADDED, key=str)[seed % len(ADDED)]
        value = copy.deepcopy(ADDED[where])
    else:
        known = places(config)
        where = known[seed % len(known)]
        if kind == "tweak":
            own = _at(config, where)
            alike = [item for item in STRANGE if type(item) is type(own)] or [value]
            value = alike[seed // len(known) % len(alike)]
        elif kind == "swap":
            other = known[seed // len(known) % len(known)]
            value = copy.deepcopy(_at(config, other))
    try:
        parent = _at(config, where[:-1])
        if kind == "delete":
            del parent[where[-1]]
        elif kind == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[where[-1]]))  # type: ignore[index]
        else:
            parent[where[-1]] = copy.deepcopy(value)  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        pass  # An earlier change has taken its place away.


def _at(value: Any, path: Path_) -> Any:
    for key in path:
        value = value[key]
    return value


def encode(config: Any) -> bytes:
    """JSON, with Raw text as it is."""
    if isinstance(config, Raw):
        return config.encode("utf-8", "surrogateescape")
    if isinstance(config, dict):
        return b"{" + b",".join([json.dumps(key).encode() + b":" + encode(item) for key, item in config.items()]) + b"}"
    if isinstance(config, list):
        return b"[" + b",".join(map(encode, config)) + b"]"
    return json.dumps(config).encode()


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["tweak"] * 6 + ["delete"] * 3 + ["replace"] * 2 + ["repeat"] * 2 + ["swap", "add"]),
        st.integers(0, 1 << 30),
        st.sampled_from(STRANGE),
    ),
    min_size=1,
    max_size=3,
)


def test_the_configuration_works_as_it_is(oci: Runtime, bundle: Bundle) -> None:
    """Without which nothing that follows would mean anything."""
    (bundle.path / "source").mkdir()
    bundle.config = rich(bundle)
    oci.create(bundle).delete("--force").ok()


def test_strange_configurations(oci: Runtime, bundle: Bundle, runtime_name: str) -> None:
    if runtime_name != "warren-oci":
        return  # What others print is theirs, and what they leave would be on this host.
    (bundle.path / "source").mkdir()
    base = rich(bundle)
    count = {"created": 0, "refused": 0}

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(CHANGES)
    def check(changes: "list[tuple[str, int, Any]]") -> None:
        config = copy.deepcopy(base)
        for change in changes:
            mutate(config, change)
        (bundle.path / "config.json").write_bytes(encode(config))
        id = f"wrn-{oci.name}-{sum(count.values())}"
        result = oci("create", "--bundle", bundle.path, id, timeout=SECONDS)
        errors = [line for line in result.err.splitlines() if not line.startswith("warren-oci: warning: ")]
        assert "internal error" not in result.err and "Traceback" not in result.err, str(result)
        if result.code == 0:
            assert errors == [], str(result)
            oci("delete", "--force", id, timeout=SECONDS).ok()
            count["created"] += 1
        else:
            assert len(errors) == 1 and re.match(r"warren-oci: [^A-Z]", errors[0]), str(result)
            assert errors[0].isprintable() and len(errors[0]) < 1000, str(result)
            count["refused"] += 1
        assert not (oci.root / id).exists(), f"state is left: {result}"
        assert not left_in_cgroups(id), f"cgroups are left: {result}"
        for call in bundle.path.parent.glob("**/call-*"):
            call.unlink()

    check()
    print(count)
    assert min(count.values()) > EXAMPLES // 30, f"one side is hardly seen: {count}"


def left_in_cgroups(id: str) -> list[Path]:
    return [path for top in Path("/sys/fs/cgroup").iterdir() if (path := top / f"warren-{id}").exists()]
