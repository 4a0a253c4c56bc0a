"""Limits in docker's words as linux.resources, on hosts that are described; and what best effort makes of them."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups
from runtime.cgroups import Cgroup, limits, settings
from runtime.config import ContainerConfig, make_spec
from runtime.errors import SpecError, StateError, UnsupportedError, UsageError, WarrenError
from runtime.host import Host
from runtime.spec import validate

from .test_cgroup_limits import ALL_V2, HYBRID, LEGACY, NOTHING, UNIFIED, V1, V2, host

MIB = 1 << 20
ID = "0123456789abcdef" * 4
ORDINARY = host((V1 + V2.replace("/cgroup ", "/cgroup/unified ")).replace("/sys/fs/cgroup", "/no/such/directory"))
ORDINARY._facts.update(euid=1000, egid=1000, capabilities=0, newuidmap="", newgidmap="")
PIDS = {"pids": {"limit": 1024}}
NO_PIDS = {"pids_limit": -1}


def linux(on: Host = UNIFIED, enforced: "dict[str, str] | None" = None, **options: Any) -> dict[str, Any]:
    config = ContainerConfig(["true"], id=ID, **options)
    found: dict[str, Any] = make_spec(config, on, 1 << 20, {} if enforced is None else enforced).config["linux"]
    return found


def resources(on: Host = UNIFIED, **options: Any) -> dict[str, Any]:
    """Without the device rules; without the default limit of processes too, unless that is asked for."""
    found: dict[str, Any] = linux(on, **{**NO_PIDS, **options}).get("resources", {})
    return {name: section for name, section in found.items() if name != "devices"}


def refusal(kind: "type[WarrenError]", on: Host = UNIFIED, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        linux(on, **{**NO_PIDS, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what they mean


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"memory": "64m"}, {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}),
        ({"memory": "64m", "memory_swap": "0"}, {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}),
        ({"memory": "64m", "memory_swap": "64m"}, {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}),
        ({"memory": "64m", "memory_swap": "100m"}, {"memory": {"limit": 64 * MIB, "swap": 100 * MIB}}),
        ({"memory": "64m", "memory_swap": "-1"}, {"memory": {"limit": 64 * MIB, "swap": -1}}),
        ({"memory": "-1"}, {"memory": {"limit": -1}}),
        ({"memory": "-1", "memory_swap": "-1"}, {"memory": {"limit": -1, "swap": -1}}),
        ({"memory": "0"}, {}),
        ({"memory_swap": "-1"}, {"memory": {"swap": -1}}),
        ({"memory_reservation": "1.5g"}, {"memory": {"reservation": 3 << 29}}),
        ({"cpus": "1.5"}, {"cpu": {"period": 100000, "quota": 150000}}),
        ({"cpus": ".5"}, {"cpu": {"period": 100000, "quota": 50000}}),
        ({"cpus": "1."}, {"cpu": {"period": 100000, "quota": 100000}}),
        ({"cpus": "0.01"}, {"cpu": {"period": 100000, "quota": 1000}}),
        ({"cpus": "0.333333333"}, {"cpu": {"period": 100000, "quota": 33333}}),
        ({"cpu_quota": 20000}, {"cpu": {"quota": 20000}}),
        ({"cpu_quota": -1, "cpu_period": 5000}, {"cpu": {"quota": -1, "period": 5000}}),
        ({"cpu_shares": 512}, {"cpu": {"shares": 512}}),
        ({"cpus": "1", "cpu_shares": 2}, {"cpu": {"period": 100000, "quota": 100000, "shares": 2}}),
        ({"cpuset_cpus": "0-1", "cpuset_mems": "0"}, {"cpu": {"cpus": "0-1", "mems": "0"}}),
        ({"pids_limit": None}, PIDS),
        ({"pids_limit": 7}, {"pids": {"limit": 7}}),
        ({"pids_limit": 0}, {}),
        ({"pids_limit": -1}, {}),
        ({"blkio_weight": 10}, {"blockIO": {"weight": 10}}),
    ],
)
def test_dockers_words(options: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.cpu_count", lambda: 2)
    assert resources(**options) == expected


def test_v1_has_two_limits_only_where_swap_is_accounted(tmp_path: Path) -> None:
    """Without the kernel's swapaccount docker limits memory alone."""
    on = host(f"30 20 0:30 / {tmp_path} rw - cgroup cgroup rw,memory\n", "")
    assert resources(on, memory="64m") == {"memory": {"limit": 64 * MIB}}
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    assert resources(on, memory="64m") == {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}


def test_what_only_v1_has() -> None:
    assert resources(LEGACY, memory_swappiness=0) == {"memory": {"swappiness": 0}}
    assert resources(LEGACY, memory_swappiness=-1) == {}
    assert resources(LEGACY, oom_kill_disable=True) == {"memory": {"disableOOMKiller": True}}
    for option in ({"memory_swappiness": 10}, {"oom_kill_disable": True}):
        name = "--" + next(iter(option)).replace("_", "-")
        assert refusal(UnsupportedError, **option).startswith(f"{name}: cgroup v2 ")
        assert resources(best_effort=True, **option)["memory"]


def block_devices() -> list[str]:
    names = [f"/dev/{name}" for name in os.listdir("/dev")]
    return [name for name in names if stat.S_ISBLK(os.stat(name).st_mode)] if os.access("/dev", os.R_OK) else []


@pytest.mark.skipif(not block_devices(), reason="host lacks disk: there is no block device in /dev")
def test_a_devices_path_becomes_its_number() -> None:
    path = block_devices()[0]
    number = os.stat(path).st_rdev
    place = {"major": os.major(number), "minor": os.minor(number)}
    options = {
        "blkio_weight_device": [f"{path}:500"],
        "device_read_bps": [f"{path}:1mb", f"{path}:5"],
        "device_write_bps": [f"{path}:1.5g"],
        "device_read_iops": [f"{path}:100"],
        "device_write_iops": [f"{path}:18446744073709551615"],
    }
    assert resources(**options) == {
        "blockIO": {
            "weightDevice": [{**place, "weight": 500}],
            "throttleReadBpsDevice": [{**place, "rate": MIB}, {**place, "rate": 5}],
            "throttleWriteBpsDevice": [{**place, "rate": 3 << 29}],
            "throttleReadIOPSDevice": [{**place, "rate": 100}],
            "throttleWriteIOPSDevice": [{**place, "rate": (1 << 64) - 1}],
        }
    }
    for option in options:
        for bad in (f"{path}:", f"{path}:-1", f"{path}:x", f"{path}", "sda:1", ":1", f"{path}:1:", f"{path}: 1"):
            assert refusal(UsageError, **{option: [bad]}).startswith("--" + option.replace("_", "-"))
    for bad in (f"{path}:9", f"{path}:1001", f"{path}:1k"):
        assert "--blkio-weight-device" in refusal(UsageError, blkio_weight_device=[bad])
    for bad in (f"{path}:18446744073709551616", f"{path}:1k", f"{path}:1.5"):
        assert "--device-read-iops" in refusal(UsageError, device_read_iops=[bad])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("c 10:229 rwm", {"type": "c", "major": 10, "minor": 229, "access": "rwm"}),
        ("b 8:* r", {"type": "b", "major": 8, "access": "r"}),
        ("c *:* m", {"type": "c", "access": "m"}),
        ("a *:* rwm", {"type": "a", "access": "rwm"}),
        (" c  *:3   w ", {"type": "c", "minor": 3, "access": "w"}),
        ("c 4294967295:0 mw", {"type": "c", "major": 4294967295, "minor": 0, "access": "mw"}),
    ],
)
def test_device_rules_follow_the_default(text: str, rule: dict[str, Any]) -> None:
    for on in (UNIFIED, LEGACY, HYBRID):
        rules = linux(on, device_cgroup_rule=[text, "c 1:1 r"])["resources"]["devices"]
        assert rules[0]["allow"] is False
        assert rules[-2] == {"allow": True, **rule}
        assert rules[-1] == {"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"}


def test_device_rules_need_a_holder() -> None:
    nobody = host("", "")
    assert "--device-cgroup-rule" in refusal(UnsupportedError, nobody, device_cgroup_rule=["c 1:1 r"])
    enforced: dict[str, str] = {}
    rules = linux(nobody, enforced, best_effort=True, device_cgroup_rule=["c 1:1 r"])["resources"]["devices"]
    assert rules == [{"allow": False, "access": "rwm"}]
    assert enforced["device_cgroup_rule"].startswith("not enforced")


def test_privileged_has_all_devices_and_still_its_limits() -> None:
    found = linux(LEGACY, privileged=True, memory="64m", **NO_PIDS)["resources"]
    assert set(found) == {"memory"}


# ---- the number of processes


def test_the_default_number_of_processes_is_given_up_with_a_note() -> None:
    """What nobody asked for is no reason to refuse."""
    enforced: dict[str, str] = {}
    assert "pids" not in linux(host(V2, "cpu memory"), enforced)["resources"]
    assert enforced["pids_limit"] == "not the default of 1024: this host has no pids controller"
    enforced = {}
    assert "pids" not in linux(ORDINARY, enforced).get("resources", {})
    assert enforced["pids_limit"] == "not the default of 1024: the caller may not make a cgroup"
    enforced = {}
    assert linux(ORDINARY, enforced, pids_limit=5)["resources"]["pids"] == {"limit": 5}
    assert "pids_limit" not in enforced


# ---- cgroup, namespace


def test_a_parent_for_the_cgroup() -> None:
    assert "cgroupsPath" not in linux()
    for text in ("/some/where", "some/where", "some/where/", "//some/where//"):
        assert linux(cgroup_parent=text)["cgroupsPath"] == f"/some/where/warren-{ID}"
    for text in ("..", "/a/../b", "a/..", "\0"):
        assert "--cgroup-parent" in refusal(UsageError, cgroup_parent=text)
    assert "cgroupsPath" in linux(cgroup_parent="/a..b/...")


def test_the_cgroup_namespace() -> None:
    def kinds(**options: Any) -> set[str]:
        return {entry["type"] for entry in linux(**options)["namespaces"]}

    assert "cgroup" in kinds() & kinds(cgroupns="private")
    assert "cgroup" not in kinds(cgroupns="host")
    for bad in ("Host", "ns:/proc/1/ns/cgroup", "container:x", "public"):
        assert "--cgroupns" in refusal(UsageError, cgroupns=bad)


# ---- bad input


SIZES = ("memory", "memory_swap", "memory_reservation")


@pytest.mark.parametrize("text", ["1x", "-2", "-1m", "--1", "m", "1.5.5m", " 1m", "1m ", "0x10", "1e9", "\u0663m"])
def test_bad_sizes(text: str) -> None:
    for name in SIZES:
        options = {"memory": "1m", name: text}
        assert refusal(UsageError, **options).startswith(f"--{name.replace('_', '-')} ")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"memory_swap": "1m"}, "--memory-swap"),
        ({"memory": "2m", "memory_swap": "1m"}, "--memory-swap"),
        ({"memory": "-1", "memory_swap": "1m"}, "--memory-swap"),
        ({"memory": "1m", "memory_reservation": "2m"}, "--memory-reservation"),
        ({"memory_swappiness": 101}, "--memory-swappiness"),
        ({"memory_swappiness": -2}, "--memory-swappiness"),
        *(({"cpus": text}, "--cpus") for text in (
            "0", "-1", "+1", ".", "..", "x", "1x", "1.x", "1 ", "1e1", "0.001", "0.00999", "3", "2.00001", "9" * 50,
            "\u0661", "1.5.5", "0.", "1,5", "nan", "inf",
        )),
        ({"cpus": "1", "cpu_quota": 1000}, "--cpus"),
        ({"cpus": "1", "cpu_period": 1000}, "--cpus"),
        *(({"cpu_shares": number}, "--cpu-shares") for number in (1, -5, 262145)),
        *(({"cpu_quota": number}, "--cpu-quota") for number in (999, -2, 1 << 62)),
        *(({"cpu_period": number}, "--cpu-period") for number in (999, -1, 1000001)),
        *(({option: text}, "--" + option.replace("_", "-"))
          for option in ("cpuset_cpus", "cpuset_mems")
          for text in ("x", "3-1", "-1", "0,,1", ",", "0-", "1 2", "\u0661", "0-1-2", "0-" + "9" * 5000)),
        ({"pids_limit": -2}, "--pids-limit"),
        ({"pids_limit": 4194305}, "--pids-limit"),
        ({"blkio_weight": 9}, "--blkio-weight"),
        ({"blkio_weight": 1001}, "--blkio-weight"),
        ({"blkio_weight": -1}, "--blkio-weight"),
        *(({option: [text]}, "--" + option.replace("_", "-"))
          for option in ("blkio_weight_device", "device_read_bps", "device_write_iops")
          for text in ("", ":", "/dev/null", "/dev/null:10", "/no/such:10", "dev/null:10", "/:10", "/dev/n\0ll:10")),
        *(({"device_cgroup_rule": [text]}, "--device-cgroup-rule") for text in (
            "", "c", "c 1:1", "c 1 r", "d 1:1 r", "c 1:1 x", "c 1:1 r w", "c -1:1 r", "c 1:-1 r", "c x:1 r", "c :1 r",
            "c 1: r", "c 1:1:1 r", "c **:1 r", "c 4294967296:1 r", "c \u0661:1 r", "C 1:1 r", "c 1:1 R",
        )),
    ],
)  # fmt: skip
def test_bad_words_are_one_line_that_names_the_option(
    options: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posix.cpu_count", lambda: 2)
    for on in (UNIFIED, LEGACY):
        assert name in refusal(UsageError, on, **options)


# ---- best effort


def test_what_no_hierarchy_has_is_noted_and_the_rest_is_kept() -> None:
    wanted = {
        "memory": {"limit": MIB, "swap": 2 * MIB},
        "cpu": {"quota": 5000, "cpus": "0"},
        "pids": {"limit": 5},
        "rdma": {"mlx": {"hcaHandles": 1}},
        "unified": {"memory.high": "1m", "magic.max": "1"},
    }
    on = host(V2, "memory pids")
    with pytest.raises(UnsupportedError):
        limits.settings(wanted, on)
    told = Cgroup("/u/c", {}, best_effort=True).enforced({"linux": {"resources": wanted}}, on)
    assert told.pop("cgroup", None) is None
    held = {name for name, how in told.items() if not how.startswith("not enforced: ")}
    assert held == {"memory.limit", "memory.swap", "pids.limit", "unified.memory.high"}
    assert told["cpu.quota"] == "not enforced: this host has no cpu controller"
    assert told["cpu.cpus"] == "not enforced: this host has no cpuset controller"
    assert told["unified.magic.max"] == "not enforced: this cgroup v2 has no magic controller"
    nothing = Cgroup("", {}, best_effort=True)
    cgroups.check({"linux": {"resources": {"pids": {"limit": 5}}}}, nothing, UNIFIED)
    told = nothing.enforced({"linux": {"resources": {"pids": {"limit": 5}}}}, UNIFIED)
    assert told == {"cgroup": "none: the caller may not make one", "pids.limit": "not enforced: no cgroup"}


def test_contradictions_are_errors_at_best_effort_too() -> None:
    for on in (UNIFIED, NOTHING):
        with pytest.raises(SpecError):
            limits.settings({"memory": {"limit": 5, "swap": 2}}, on, best_effort=True)


def written(directory: Path, names: str, *, best_effort: bool) -> dict[str, str]:
    """Write these settings into a directory that stands for the cgroup; how each is held."""
    cgroup = Cgroup(str(directory), {})
    wanted = [settings.Setting(2, "memory", name, name, "7") for name in names.split()]
    settings.write_all(cgroup, wanted, best_effort=best_effort)
    return {setting.limit: str(setting) for setting in wanted}


def test_a_file_that_the_kernel_has_not(tmp_path: Path) -> None:
    (tmp_path / "first").touch()
    (tmp_path / "last").touch()
    with pytest.raises(UnsupportedError, match="middle = 7: this kernel has no such file"):
        written(tmp_path, "first middle last", best_effort=False)
    assert ((tmp_path / "first").read_text(), (tmp_path / "last").read_text()) == ("7", "")
    held = written(tmp_path, "first middle last", best_effort=True)
    assert (tmp_path / "last").read_text() == "7"
    assert held == {
        "first": "first = 7 (cgroup v2)",
        "middle": "not enforced: linux.resources.middle: middle = 7: this kernel has no such file",
        "last": "last = 7 (cgroup v2)",
    }


def test_a_value_that_is_wrong_is_no_matter_of_effort(tmp_path: Path) -> None:
    """A directory in the file's place fails otherwise than by a lack: EISDIR."""
    (tmp_path / "bad").mkdir()
    with pytest.raises(WarrenError, match="bad = 7: EISDIR"):
        written(tmp_path, "bad", best_effort=True)


# ---- what is set when the process is there


@pytest.mark.parametrize(("limit", "late"), [(-1, False), (0, True), (1, True), (2, False), (1024, False)])
def test_fewer_than_two_processes_come_late(limit: int, late: bool, tmp_path: Path) -> None:
    config = {"linux": {"resources": {"pids": {"limit": limit}, "memory": {"limit": MIB}}}}
    (tmp_path / "cgroup.subtree_control").write_text(ALL_V2)
    below = tmp_path / "c"
    below.mkdir()
    for name in ("pids.max", "memory.max"):
        (below / name).touch()
    on = host(V2.replace("/sys/fs/cgroup", str(tmp_path)))
    cgroup = Cgroup(str(below), {})
    assert cgroup.holds_late(config, on) == late
    cgroup.apply(config, on)
    assert (below / "memory.max").read_text() == str(MIB)
    value = "max" if limit == -1 else str(limit)
    assert (below / "pids.max").read_text() == ("" if late else value)
    cgroup.apply_late(config, on)
    assert (below / "pids.max").read_text() == value


def test_a_container_without_the_hierarchy_cannot_be_limited() -> None:
    with pytest.raises(StateError, match=r"pids\.limit: the container has no cgroup for pids"):
        settings.write_all(Cgroup("/u", {}), settings.pids_limit({"pids": {"limit": 5}}, 1))


def test_every_section_is_valid_by_the_spec() -> None:
    options = {
        "memory": "64m", "memory_reservation": "1m", "memory_swappiness": 3, "oom_kill_disable": True, "cpus": "1",
        "cpu_shares": 3, "cpuset_cpus": "0", "cpuset_mems": "0", "pids_limit": 3, "blkio_weight": 20,
        "device_cgroup_rule": ["c 1:1 r"], "cgroup_parent": "/x",
    }  # fmt: skip
    config = ContainerConfig(["true"], id=ID, **options)  # type: ignore[arg-type]
    validate(make_spec(config, LEGACY, 1 << 20, {}).config)
