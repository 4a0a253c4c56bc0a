"""runtime/spec.py: what a valid configuration is, and that everything else is one line."""

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import jsontext, spec
from runtime.errors import SpecError

Config = dict[str, Any]

EXAMPLES = 5000 if os.environ.get("WARREN_LONG") == "1" else 100
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

MISSING = ...
MAPPING = {"containerID": 0, "hostID": 100000, "size": 65536}
NAMESPACES = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]


def full() -> Config:
    """A configuration that uses every part of the spec."""
    config = spec.default_spec()
    config["process"] |= {
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1000, "gid": 1000, "umask": 0o22, "additionalGids": [5, 6]},
        "oomScoreAdj": 100,
        "apparmorProfile": "",
        "selinuxLabel": "",
        "scheduler": {"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4},
        "execCPUAffinity": {"initial": "0", "final": "0-1"},
    }
    config["domainname"] = "example.org"
    config["annotations"] = {"org.example.key": "value"}
    config["mounts"].append(
        {
            "destination": "data",
            "source": "/data",
            "options": ["rbind"],
            "uidMappings": [MAPPING],
            "gidMappings": [MAPPING],
        }
    )
    config["hooks"] = {
        "prestart": [{"path": "/bin/hook", "args": ["hook"], "env": ["A=b"], "timeout": 3}],
        "poststop": None,
    }
    config["linux"] |= {
        "namespaces": [{"type": kind} for kind in NAMESPACES],
        "uidMappings": [MAPPING],
        "gidMappings": [MAPPING],
        "timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 5}, "boottime": {"secs": 1}},
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "cgroupsPath": "/warren/test",
        "rootfsPropagation": "rslave",
        "sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1", "kernel.shmmax": "1"},
        "personality": {"domain": "LINUX"},
        "intelRdt": {"closID": "group", "l3CacheSchema": "L3:0=f"},
        "netDevices": {"eth0": {"name": "eth1"}},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"},
        "resources": {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": -1, "minor": 3, "access": "r"},
            ],
            "memory": {"limit": -1, "swap": 1 << 62, "swappiness": 60, "disableOOMKiller": False},
            "cpu": {"shares": 1024, "quota": -1, "period": 100000, "cpus": "0-1"},
            "pids": {"limit": 100},
            "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": (1 << 64) - 1}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3}},
            "unified": {"memory.high": "1000"},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["read", "write"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": (1 << 64) - 1, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
    }
    unshared: Config = json.loads(json.dumps(config))
    return unshared


def put(config: Config, path: str, value: object) -> None:
    """Set what a path such as linux/devices/0/type names; MISSING removes it."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("|")]
    here: Any = config
    for part in parents:
        here = here[part]
    if value is MISSING:
        del here[last]
    elif isinstance(here, list) and last == len(here):
        here.append(value)
    else:
        here[last] = value


def refusal(config: object, check: Callable[[object], object] = spec.validate) -> str:
    with pytest.raises(SpecError) as caught:
        check(config)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 300
    assert caught.value.exit_code == 125
    return text


# --- Valid ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rootless", [False, True])
def test_default_spec_is_valid_and_survives_json(rootless: bool) -> None:
    config = spec.default_spec(rootless)
    assert spec.validate(copy.deepcopy(config), need_process=True) == config
    for indent in (0, 4):
        assert jsontext.parse_json(jsontext.dump_json(config, indent).encode(), "config.json") == config


def test_default_spec_differs_where_rootless_must() -> None:
    root, rootless = spec.default_spec(), spec.default_spec(rootless=True)
    kinds = [{entry["type"] for entry in config["linux"]["namespaces"]} for config in (root, rootless)]
    assert kinds[0] - kinds[1] == {"network"} and kinds[1] - kinds[0] == {"user"}
    assert rootless["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert "resources" not in rootless["linux"]
    assert rootless["mounts"][5]["type"] == "none" and "rbind" in rootless["mounts"][5]["options"]
    assert root["linux"]["maskedPaths"] is not spec.default_spec()["linux"]["maskedPaths"]


def test_a_full_configuration_is_valid() -> None:
    config = full()
    expected = copy.deepcopy(config)
    del expected["hooks"]["poststop"]
    assert spec.validate(config) == expected


LEGAL: list[tuple[str, object]] = [
    ("ociVersion", "1.0.2-dev"),
    ("ociVersion", "1.3.0+build.1"),
    ("unknown", [{"deep": None}]),
    ("linux|unknown", 1.5),
    ("process|env", ["NOEQUALS", "A=1", "A=2", "B="]),
    ("process|args", [""]),
    ("process|capabilities|bounding", ["CAP_OF_TOMORROW"]),
    ("process|rlimits", [{"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1}]),
    ("process", MISSING),
    ("mounts|1|destination", "dev"),
    ("mounts|7", {"destination": "/proc"}),
    ("linux|cgroupsPath", "system.slice:warren:a..b"),
    ("linux|devices", [{"path": "/dev/p", "type": "p"}]),
    ("linux|uidMappings", [MAPPING, {"containerID": 65536, "hostID": 0, "size": 1}]),
    ("linux|namespaces|5|path", ""),
    ("annotations", {"k": ""}),
]


@pytest.mark.parametrize(("path", "value"), LEGAL)
def test_legal(path: str, value: object) -> None:
    config = full()
    put(config, path, value)
    spec.validate(config)


def test_null_is_absent() -> None:
    config = spec.default_spec()
    config |= {"hooks": None, "annotations": None, "vendor": None}
    config["process"] |= {"rlimits": None, "capabilities": None, "env": None, "terminal": None}
    config["process"]["user"]["umask"] = None
    config["mounts"][0]["options"] = None
    config["linux"] |= {"uidMappings": [], "seccomp": None}
    valid = spec.validate(config)
    assert "hooks" not in valid and valid["vendor"] is None
    assert "rlimits" not in valid["process"] and "umask" not in valid["process"]["user"]
    assert "options" not in valid["mounts"][0]


# --- Refused ones -----------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, object, str]] = [
    ("ociVersion", MISSING, "ociVersion: required"),
    ("ociVersion", None, "ociVersion: required"),
    ("ociVersion", 1, "ociVersion: must be a string, not an integer"),
    ("ociVersion", "1.2", "ociVersion: must be a semantic version, not '1.2'"),
    ("ociVersion", "1.02.0", "ociVersion: must be a semantic version, not '1.02.0'"),
    ("ociVersion", "2.0.0", "ociVersion: unsupported version '2.0.0'"),
    ("root", MISSING, "root: required"),
    ("root|path", "", "root.path: must not be empty"),
    ("root|readonly", 1, "root.readonly: must be a bool, not an integer"),
    ("process", [], "process: must be an object, not a list"),
    ("process|args", MISSING, "process.args: required"),
    ("process|args", None, "process.args: required"),
    ("process|args", [], "process.args: must not be empty"),
    ("process|args", "sh", "process.args: must be a list, not a string"),
    ("process|args", [None], "process.args[0]: must be a string, not null"),
    ("process|args", ["a", "b\0"], "process.args[1]: must not hold a NUL or a lone surrogate"),
    ("process|args", ["\ud800"], "process.args[0]: must not hold a NUL or a lone surrogate"),
    ("process|cwd", MISSING, "process.cwd: required"),
    ("process|cwd", "", "process.cwd: must be an absolute path, not ''"),
    ("process|cwd", "a\nb", "process.cwd: must be an absolute path, not 'a\\nb'"),
    ("process|env", ["=x"], "process.env[0]: has no name: '=x'"),
    ("process|env", ["A=1", ""], "process.env[1]: has no name: ''"),
    ("process|terminal", "yes", "process.terminal: must be a bool, not a string"),
    ("process|user|uid", True, "process.user.uid: must be an integer, not a bool"),
    ("process|user|uid", "0", "process.user.uid: must be an integer, not a string"),
    ("process|user|uid", 0.0, "process.user.uid: must be an integer, not a float"),
    ("process|user|uid", -1, "process.user.uid: must be 0 to 4294967294, not -1"),
    ("process|user|uid", (1 << 32) - 1, "process.user.uid: must be 0 to 4294967294, not 4294967295"),
    ("process|user|uid", 1 << 5000, "process.user.uid: must be 0 to 4294967294, not a number of 5001 bits"),
    ("process|user|uid", 70000, "process.user.uid: 70000 is not in linux.uidMappings"),
    ("process|user|umask", 0o1000, "process.user.umask: must be 0 to 511, not 512"),
    ("process|user|additionalGids", [0, False], "process.user.additionalGids[1]: must be an integer, not a bool"),
    ("process|rlimits|0|type", "NOFILE", "process.rlimits[0].type: unknown: 'NOFILE'"),
    ("process|rlimits|0|soft", 2048, "process.rlimits[0]: soft limit 2048 is above the hard limit 1024"),
    (
        "process|rlimits|0|hard",
        1 << 64,
        "process.rlimits[0].hard: must be 0 to 18446744073709551615, not 18446744073709551616",
    ),
    (
        "process|rlimits|1",
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
        "process.rlimits[1]: duplicate of RLIMIT_NOFILE",
    ),
    ("process|capabilities", [], "process.capabilities: must be an object, not a list"),
    ("process|capabilities|ambient", "CAP_CHOWN", "process.capabilities.ambient: must be a list, not a string"),
    ("process|consoleSize", {"height": 1}, "process.consoleSize.width: required"),
    ("process|oomScoreAdj", 1001, "process.oomScoreAdj: must be -1000 to 1000, not 1001"),
    ("process|scheduler|policy", "SCHED_OTHER", "process.scheduler.priority: only for SCHED_FIFO and SCHED_RR"),
    ("hostname", "x" * 65, "hostname: must not be longer than 64 bytes"),
    ("linux|namespaces", [{"type": "mount"}], "hostname: needs a uts namespace"),
    ("linux|namespaces", [{"type": "uts"}], "linux.maskedPaths: needs a mount namespace"),
    ("linux|namespaces|1|type", "net", "linux.namespaces[1].type: unknown: 'net'"),
    ("linux|namespaces|1|type", "pid", "linux.namespaces[1]: duplicate of pid"),
    ("linux|namespaces|1|path", "net", "linux.namespaces[1].path: must be an absolute path, not 'net'"),
    ("linux|namespaces|5", MISSING, "linux.uidMappings: needs a user namespace"),
    ("linux|namespaces|7", MISSING, "linux.timeOffsets: needs a time namespace"),
    ("linux|namespaces|1", MISSING, "linux.netDevices: needs a network namespace"),
    ("linux|namespaces|3", MISSING, "linux.sysctl['kernel.shmmax']: needs an ipc namespace"),
    ("linux|uidMappings", [], "linux.uidMappings: required by a new user namespace"),
    ("linux|gidMappings", MISSING, "linux.gidMappings: required by a new user namespace"),
    ("linux|uidMappings|0|size", 0, "linux.uidMappings[0].size: must be 1 to 4294967295, not 0"),
    (
        "linux|uidMappings|0|hostID",
        (1 << 32) - 3,
        "linux.uidMappings: mapping of hostID 4294967293 runs past the last id",
    ),
    ("linux|uidMappings|1", {**MAPPING, "hostID": 0}, "linux.uidMappings: mappings overlap at containerID 0"),
    ("linux|gidMappings|1", {**MAPPING, "containerID": 65536}, "linux.gidMappings: mappings overlap at hostID 100000"),
    (
        "linux|uidMappings",
        [{"containerID": i, "hostID": i, "size": 1} for i in range(341)],
        "linux.uidMappings: must hold 1 to 340 mappings, not 341",
    ),
    ("linux|timeOffsets|boot", {}, "linux.timeOffsets.boot: unknown clock"),
    ("linux|devices|0|path", "dev/fuse", "linux.devices[0].path: must be an absolute path, not 'dev/fuse'"),
    ("linux|devices|0|type", "a", "linux.devices[0].type: unknown: 'a'"),
    ("linux|devices|0|major", MISSING, "linux.devices[0].major: required"),
    ("linux|devices|0|major", 4096, "linux.devices[0].major: must be 0 to 4095, not 4096"),
    ("linux|cgroupsPath", "/a/../../b", "linux.cgroupsPath: must not climb with '..': '/a/../../b'"),
    ("linux|rootfsPropagation", "public", "linux.rootfsPropagation: unknown: 'public'"),
    ("linux|maskedPaths", ["/a", "proc"], "linux.maskedPaths[1]: must be an absolute path, not 'proc'"),
    ("linux|sysctl", {"net/../kernel/x": ""}, "linux.sysctl['net/../kernel/x']: is no name of a sysctl"),
    ("linux|sysctl", {"net..x": ""}, "linux.sysctl['net..x']: is no name of a sysctl"),
    ("linux|sysctl", {"net.a b": ""}, "linux.sysctl['net.a b']: is no name of a sysctl"),
    ("linux|sysctl", {"net.x": 1}, "linux.sysctl['net.x']: must be a string, not an integer"),
    ("linux|sysctl", {"kernel.hostname": "x"}, "linux.sysctl['kernel.hostname']: conflicts with the field hostname"),
    (
        "linux|sysctl",
        {"kernel/core_pattern": "|/x"},
        "linux.sysctl['kernel/core_pattern']: is not of a namespace and would change the host",
    ),
    ("linux|intelRdt|closID", "..", "linux.intelRdt.closID: must be a directory's name, not '..'"),
    ("linux|resources|unified", {"../x": "1"}, "linux.resources.unified['../x']: must be a file name"),
    ("linux|resources|memory|limit", "1g", "linux.resources.memory.limit: must be an integer, not a string"),
    ("linux|resources|devices|0|access", "x", "linux.resources.devices[0].access: must be of r, w and m, not 'x'"),
    ("linux|resources|devices|0|allow", None, "linux.resources.devices[0].allow: required"),
    ("linux|seccomp|defaultAction", "ALLOW", "linux.seccomp.defaultAction: unknown: 'ALLOW'"),
    ("linux|seccomp|syscalls|0|names", [], "linux.seccomp.syscalls[0].names: must not be empty"),
    (
        "linux|seccomp|syscalls|0|args|0|value",
        -1,
        "linux.seccomp.syscalls[0].args[0].value: must be 0 to 18446744073709551615, not -1",
    ),
    ("mounts|0|destination", "", "mounts[0].destination: must not be empty"),
    ("mounts|0|options", ["ro", 1], "mounts[0].options[1]: must be a string, not an integer"),
    ("mounts|0", None, "mounts[0]: must be an object, not null"),
    ("mounts|7|gidMappings", None, "mounts[7].gidMappings: required beside the other mappings"),
    ("mounts|7|options", ["ro"], "mounts[7].uidMappings: only for bind mounts"),
    ("hooks|prestart|0|path", "hook", "hooks.prestart[0].path: must be an absolute path, not 'hook'"),
    ("hooks|prestart|0|timeout", 0, "hooks.prestart[0].timeout: must be 1 to 2147483647, not 0"),
    ("annotations", {"": "x"}, "annotations: must not have an empty key"),
    ("annotations", {"a b": None}, "annotations['a b']: must be a string, not null"),
    ("annotations", {"k" * 999: 1}, f"annotations['{'k' * 40}'...]: must be a string, not an integer"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED, ids=[f"{row[0]}-{n}" for n, row in enumerate(REFUSED)])
def test_refused(path: str, value: object, message: str) -> None:
    config = full()
    put(config, path, copy.deepcopy(value))
    assert refusal(config) == message


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_a_configuration_is_an_object(value: object) -> None:
    assert refusal(value).startswith("config: must be an object, not ")


def test_need_process() -> None:
    config = spec.default_spec()
    del config["process"]
    assert refusal(config, lambda value: spec.validate(value, need_process=True)) == "process: required"


def test_idmap_needs_something_to_map_with() -> None:
    config = spec.default_spec()
    config["mounts"][0] = {"destination": "/a", "type": "bind", "source": "/a", "options": ["bind", "idmap"]}
    assert refusal(config) == "mounts[0].options: idmap needs a user namespace or mappings of its own"
    config["mounts"][0] |= {"uidMappings": [dict(MAPPING)], "gidMappings": [dict(MAPPING)]}
    spec.validate(config)


def test_validate_process() -> None:
    process = {"args": ["true"], "cwd": "/", "env": None}
    assert spec.validate_process(process) == {"args": ["true"], "cwd": "/"}
    assert refusal({"cwd": "/"}, spec.validate_process) == "process.args: required"
    assert refusal([], lambda value: spec.validate_process(value, "p.json")) == "p.json: must be an object, not a list"
    assert refusal({"args": [1]}, lambda value: spec.validate_process(value, "p.json")).startswith(
        "p.json.args[0]: must"
    )


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty at line 1 column 1"),
        (b" \n", "empty at line 2 column 1"),
        (b"{", "ends too early at line 1 column 2"),
        (b'{"a" 1}', "invalid JSON at line 1 column 6"),
        (b'{\n "a": tru}', "invalid JSON at line 2 column 7"),
        (b'["a\nb"]', "invalid JSON at line 1 column 4"),
        (b"{} x", "trailing garbage at line 1 column 4"),
        (b"{}\n\n{}", "trailing garbage at line 3 column 1"),
        (b"[NaN]", "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"[1e999]", "number that no double can hold"),
        (b"[1" + b"0" * 20 + b"]", "number of more than 20 digits"),
        (b"[-" + b"9" * 100_000 + b"]", "number of more than 20 digits"),
        (b"\xef\xbb\xbf{}", "invalid JSON at line 1 column 1"),
        (b'["\xff"]', "not UTF-8 at byte 2"),
        (b'["\xed\xa0\x80"]', "not UTF-8 at byte 2"),
        (b'["\\ud800"]', "'\\ud800' holds a NUL or a lone surrogate"),
        (b'{"a": [{"\\uDFFF": 1}]}', "'\\udfff' holds a NUL or a lone surrogate"),
        (b'["a\\u0000b"]', "'a\\x00b' holds a NUL or a lone surrogate"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b" " * (jsontext.MAX_JSON + 1), "larger than 16 MiB"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_json_refused(data: bytes, message: str) -> None:
    assert refusal(data, lambda value: jsontext.parse_json(value, "x.json")) == f"x.json: {message}"  # type: ignore[arg-type]


def test_json_accepted() -> None:
    assert jsontext.parse_json(b'\r\n {"a": [1, -2, 1.5, true, null, "\xc3\xa9"]}\n', "x") == {
        "a": [1, -2, 1.5, True, None, "é"]
    }
    assert jsontext.parse_json(b'"\\ud83d\\ude00 \\\\ud800 \\\\u0000"', "x") == "\U0001f600 \\ud800 \\u0000"
    assert jsontext.parse_json(b"[18446744073709551615, -9223372036854775808]", "x") == [(1 << 64) - 1, -(1 << 63)]
    assert jsontext.parse_json(b'{"a": 1, "a": 2}', "x") == {"a": 2}


def test_json_written() -> None:
    value = {"a": [1, "é\n", None, True, 1.5, {}, []], "b": {"c": []}}
    assert jsontext.dump_json(value) == json.dumps(value, separators=(",", ":"))
    assert jsontext.dump_json(value, 2) == json.dumps(value, indent=2)
    with pytest.raises(TypeError):
        jsontext.dump_json({"a": b""})
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for indent in (0, 2):
        with pytest.raises(SpecError, match="nested too deeply"):
            jsontext.dump_json(deep, indent)


# --- Bundles ----------------------------------------------------------------------------------------------------------


def test_bundle(tmp_path: Path) -> None:
    raw = json.dumps(spec.default_spec()).encode() + b"\n"
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "config.json").write_bytes(raw)
    (tmp_path / "link").symlink_to("real")
    bundle = spec.Bundle.load(str(tmp_path / "link"))
    assert bundle.raw == raw
    assert bundle.path == bundle.spec.bundle == str(tmp_path / "real")
    assert bundle.spec.root_path() == f"{tmp_path}/real/rootfs"
    assert bundle.spec.namespaces() == dict.fromkeys(["pid", "ipc", "uts", "mount", "cgroup", "network"], "")
    assert bundle.spec.layers is None


def test_bundle_with_another_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = spec.default_spec()
    config["root"]["path"] = "/srv/root"
    config["linux"]["namespaces"][0]["path"] = "/proc/1/ns/pid"
    (tmp_path / "other.json").write_text(json.dumps(config))
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    loaded = spec.Bundle.load("b", "other.json").spec
    assert loaded.root_path() == "/srv/root"
    assert loaded.namespaces()["pid"] == "/proc/1/ns/pid"


def test_bundle_reads_a_linked_config(tmp_path: Path) -> None:
    (tmp_path / "c").write_text(json.dumps(spec.default_spec()))
    (tmp_path / "config.json").symlink_to("c")
    spec.Bundle.load(str(tmp_path))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, jsontext.MAX_JSON + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "not found"),
        (_fifo, "not a regular file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "too many links"),
        (lambda path: path.touch(), "empty at line 1 column 1"),
        (_huge, "larger than 16 MiB"),
    ],
)
def test_bad_config_file(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "config.json")
    text = refusal(str(tmp_path), spec.Bundle.load)  # type: ignore[arg-type]
    assert text == f"{tmp_path}/config.json: {message}"


def test_bad_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, message in [
        (str(tmp_path / "no"), "not found"),
        (str(tmp_path / "file"), "not a directory"),
        ("a\0b", "not a path"),
    ]:
        text = refusal(path, spec.Bundle.load)  # type: ignore[arg-type]
        assert text.endswith(f": {message}") and "no such file" not in text


# --- Fuzzing ----------------------------------------------------------------------------------------------------------


def _nested(depth: int) -> object:
    value: object = {}
    for _ in range(depth):
        value = [value]
    return value


STRANGE: list[object] = [
    None, True, False, 0, 1, -1, 1 << 31, (1 << 32) - 1, 1 << 63, 1 << 64, -(1 << 200), 1 << 20000, 0.0, 1.5, 1e308,
    float("nan"), "", "/", "..", "/../x", "\0", "\n\x1b[31m", "\ud800", "\u202e", "é" * 70, "x" * 100_000, "0", "a=b",
    [], {}, [None], [[]], [{}], {"": 0}, {"\ud800": {}}, {"a": "b"}, [1, "a"], ["a", "a"], _nested(5), _nested(5000),
]  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    found = []
    todo = [value]
    while todo:
        here = todo.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        for key in keys:
            found.append((here, key))
            todo.append(here[key])
    return found


@fuzz
@given(seed=st.integers(0, 1 << 32), changes=st.integers(1, 4))
def test_mutated_configurations(seed: int, changes: int) -> None:
    config = full()
    dice = random.Random(seed)
    for _ in range(changes):
        here, key = dice.choice(_places(config))
        match dice.randrange(4):
            case 0:
                del here[key]
            case 1:
                here[key] = copy.copy(dice.choice(_places(full()))[0])
            case _:
                here[key] = copy.copy(dice.choice(STRANGE))
    _returns_or_refuses(lambda: spec.validate(config))


@fuzz
@given(data=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_raw_bytes(data: bytes) -> None:
    _returns_or_refuses(lambda: jsontext.parse_json(data, "x"))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
)


@fuzz
@given(value=JSON_VALUES, indent=st.sampled_from([0, 1, 4]))
def test_json_survives(value: object, indent: int) -> None:
    assert jsontext.parse_json(jsontext.dump_json(value, indent).encode(), "x") == value


@fuzz
@given(seed=st.integers(0, 1 << 32))
def test_damaged_json(seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(jsontext.dump_json(full()).encode())
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data))
        match dice.randrange(3):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randrange(1, 50)]
            case _:
                data[at:at] = dice.choice(
                    [b"\\u0000", b"\\ud800", b"null", b"[" * 5000, b"9" * 5000, b"NaN", b"\xff", b"}"]
                )
    _returns_or_refuses(lambda: spec.validate(jsontext.parse_json(bytes(data), "config.json")))


def _returns_or_refuses(work: Callable[[], object]) -> None:
    try:
        work()
    except SpecError as error:
        text = str(error)
        assert text.isprintable() and 0 < len(text) < 400
        text.encode()


def test_no_json_import() -> None:
    """The hot path reads and writes JSON without the package json; that alone takes 7 ms."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from runtime import capabilities, jsontext, spec\n"
        "spec.validate(jsontext.parse_json(jsontext.dump_json(spec.default_spec(), 2).encode(), 'x'))\n"
        "print(*sorted(sys.modules))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, root], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"json", "re", "os", "typing", "enum", "collections", "functools", "dataclasses", "ctypes"}
