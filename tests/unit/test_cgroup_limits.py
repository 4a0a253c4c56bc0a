"""linux.resources as writes: values, order, the choice of the hierarchy, and what is refused before anything exists."""

from typing import Any

import pytest

from runtime import cgroups
from runtime.cgroups import Cgroup, delegation, limits, unified
from runtime.cgroups.update import _lines_before, merge
from runtime.errors import SpecError, UnsupportedError
from runtime.host import Host

V2 = "26 20 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "".join(
    f"{30 + n} 20 0:{30 + n} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
    for n, name in enumerate(
        [
            "cpu,cpuacct",
            "cpuset",
            "memory",
            "blkio",
            "pids",
            "devices",
            "freezer",
            "net_cls,net_prio",
            "hugetlb",
            "rdma",
        ]
    )
)
V1_OWN = "".join(f"{n}:{line.rsplit('rw,')[-1]}:/\n" for n, line in enumerate(V1.splitlines(), 1)) + "0::/\n"
ALL_V2 = "cpuset cpu io memory hugetlb pids rdma misc"


def host(mounts: str = V2, controllers: str = ALL_V2, *, uid_map: str = "0 0 4294967295\n") -> Host:
    texts = {
        "/proc/self/mountinfo": mounts,
        "/proc/self/cgroup": V1_OWN,
        "/proc/self/status": "CapEff:\t000001ffffffffff\n",
        "/proc/self/uid_map": uid_map,
    }
    found = Host(lambda path: controllers if path.endswith("cgroup.controllers") else texts.get(path, ""))
    found._facts.update(euid=0, egid=0)
    return found


UNIFIED, LEGACY = host(), host(V1, "")
HYBRID = host(
    V1.replace("hugetlb", "gone").replace("rdma", "gone") + V2.replace("/cgroup ", "/cgroup/unified "), "hugetlb"
)
NOTHING = host("", "")


def writes(resources: dict[str, Any], on: Host = UNIFIED) -> list[tuple[str, str]]:
    return [(s.file, s.value) for s in limits.settings(resources, on) if s.file]


@pytest.mark.parametrize(
    ("resources", "v2", "v1"),
    [
        ({}, [], []),
        ({"memory": {}, "cpu": {}, "pids": {}, "blockIO": {"weight": 0}, "network": {}, "unified": {}}, [], []),
        ({"memory": {"limit": 0, "swap": None, "disableOOMKiller": False}}, [], []),
        (
            {"memory": {"limit": 1 << 20}},
            [("memory.max", "1048576")],
            [("memory.limit_in_bytes", "1048576")],
        ),
        (
            {"memory": {"limit": 100 << 20, "swap": 150 << 20, "reservation": 50 << 20}},
            [("memory.swap.max", str(50 << 20)), ("memory.max", str(100 << 20)), ("memory.low", str(50 << 20))],
            [
                ("memory.limit_in_bytes", str(100 << 20)),
                ("memory.memsw.limit_in_bytes", str(150 << 20)),
                ("memory.soft_limit_in_bytes", str(50 << 20)),
            ],
        ),
        (
            {"memory": {"limit": 1 << 20, "swap": 1 << 20}},
            [("memory.swap.max", "0"), ("memory.max", "1048576")],
            [("memory.limit_in_bytes", "1048576"), ("memory.memsw.limit_in_bytes", "1048576")],
        ),
        (
            {"memory": {"limit": -1}},
            [("memory.swap.max", "max"), ("memory.max", "max")],
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
        ),
        (
            {"memory": {"limit": 1 << 20, "swap": -1}},
            [("memory.swap.max", "max"), ("memory.max", "1048576")],
            [("memory.limit_in_bytes", "1048576"), ("memory.memsw.limit_in_bytes", "-1")],
        ),
        (
            {"memory": {"swappiness": 0, "disableOOMKiller": True, "kernel": 1 << 20}},
            [],
            [("memory.swappiness", "0"), ("memory.oom_control", "1")],
        ),
        (
            {"cpu": {"shares": 1024, "quota": 20000, "period": 50000, "burst": 10000}},
            [("cpu.weight", "100"), ("cpu.max", "20000 50000"), ("cpu.max.burst", "10000")],
            [
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "50000"),
                ("cpu.cfs_quota_us", "20000"),
                ("cpu.cfs_burst_us", "10000"),
            ],
        ),
        ({"cpu": {"quota": -1}}, [("cpu.max", "max 100000")], [("cpu.cfs_quota_us", "-1")]),
        ({"cpu": {"period": 5000}}, [("cpu.max", "max 5000")], [("cpu.cfs_period_us", "5000")]),
        ({"cpu": {"idle": 1, "shares": 512}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
        (
            {"cpu": {"idle": 0, "shares": 512}},
            [("cpu.idle", "0"), ("cpu.weight", "59")],
            [("cpu.idle", "0"), ("cpu.shares", "512")],
        ),
        (
            {"cpu": {"cpus": "0-1", "mems": "0"}},
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        ),
        ({"pids": {"limit": 0}}, [("pids.max", "0")], [("pids.max", "0")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
        ({"pids": {"limit": 7}}, [("pids.max", "7")], [("pids.max", "7")]),
        (
            {"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 16, "weight": 10}]}},
            [("io.bfq.weight", "500"), ("io.bfq.weight", "8:16 10")],
            [("blkio.weight", "500"), ("blkio.weight_device", "8:16 10")],
        ),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2000}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
                    "throttleWriteIOPSDevice": [
                        {"major": 8, "minor": 0, "rate": 4},
                        {"major": 9, "minor": 1, "rate": 5},
                    ],
                }
            },
            [
                ("io.max", "8:0 rbps=1000"),
                ("io.max", "8:0 wbps=2000"),
                ("io.max", "8:0 riops=max"),
                ("io.max", "8:0 wiops=4"),
                ("io.max", "9:1 wiops=5"),
            ],
            [
                ("blkio.throttle.read_bps_device", "8:0 1000"),
                ("blkio.throttle.write_bps_device", "8:0 2000"),
                ("blkio.throttle.read_iops_device", "8:0 0"),
                ("blkio.throttle.write_iops_device", "8:0 4"),
                ("blkio.throttle.write_iops_device", "9:1 5"),
            ],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]},
            [("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
            [("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")],
        ),
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}, "mlx3": {}}},
            [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "mlx4_0 hca_object=1")],
            [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "mlx4_0 hca_object=1")],
        ),
    ],
)
def test_what_is_written(resources: dict[str, Any], v2: list[tuple[str, str]], v1: list[tuple[str, str]]) -> None:
    assert writes(resources) == v2
    assert writes(resources, LEGACY) == v1


def test_what_only_v1_has() -> None:
    resources = {
        "network": {"classID": 0x100001, "priorities": [{"name": "eth0", "priority": 5}]},
        "cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 950000},
    }
    assert writes(resources, LEGACY) == [
        ("cpu.rt_period_us", "1000000"),
        ("cpu.rt_runtime_us", "950000"),
        ("net_cls.classid", "1048577"),
        ("net_prio.ifpriomap", "eth0 5"),
    ]
    for section in resources:
        with pytest.raises(UnsupportedError, match=f"linux.resources.{section}"):
            writes({section: resources[section]})


def test_unified_is_verbatim_and_last() -> None:
    resources = {"unified": {"memory.high": "5m", "cgroup.max.depth": "1"}, "memory": {"limit": 1 << 20}}
    assert writes(resources) == [("memory.max", "1048576"), ("memory.high", "5m"), ("cgroup.max.depth", "1")]


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (262143, 10000), (262144, 10000)]
)
def test_shares_become_a_weight_by_the_curve_of_runc_and_crun(shares: int, weight: int) -> None:
    assert unified.cpu_weight(shares) == weight


@pytest.mark.parametrize(("weight", "converted"), [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_weights_of_io(weight: int, converted: int) -> None:
    assert unified.io_weight(weight) == converted
    (setting,) = limits.settings({"blockIO": {"weight": weight}}, UNIFIED)
    assert setting.instead == ("io.weight", str(converted))


def test_a_hybrid_host_holds_each_limit_where_its_controller_is() -> None:
    resources = {
        "memory": {"limit": 32 << 20},
        "pids": {"limit": 5},
        "cpu": {"quota": 20000},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "blockIO": {"weight": 20},
    }
    cgroup = Cgroup("/u/c", {"memory": "/m/c"})
    config = {"linux": {"resources": resources}}
    assert cgroup.enforced(config, HYBRID) == {
        "memory.limit": "memory.limit_in_bytes = 33554432 (cgroup v1 memory)",
        "cpu.quota": "cpu.cfs_quota_us = 20000 (cgroup v1 cpu)",
        "pids.limit": "pids.max = 5 (cgroup v1 pids)",
        "hugepageLimits.2MB": "hugetlb.2MB.max = 0 (cgroup v2)",
        "blockIO.weight": "blkio.weight = 20 or blkio.bfq.weight = 20 (cgroup v1 blkio)",
    }


def test_what_v2_has_not_is_told() -> None:
    resources = {"memory": {"swappiness": 10, "disableOOMKiller": True}, "devices": [{"allow": False}]}
    told = Cgroup("/u/c", {}).enforced({"linux": {"resources": resources}}, UNIFIED)
    assert told == {
        "memory.swappiness": "not enforced: cgroup v2 has no swappiness",
        "memory.disableOOMKiller": "not enforced: cgroup v2 cannot disable the OOM killer",
        "devices": "a device program (cgroup v2)",
    }


def test_without_limits_nothing_is_asked_of_the_host() -> None:
    def refuse(path: str) -> str:
        raise AssertionError(path)

    blind = Host(refuse)
    for resources in ({}, {"memory": {}, "cpu": None}, {"devices": []}):
        config = {"linux": {"resources": resources}}
        cgroups.check(config, Cgroup("/u/c", {}), blind)
        Cgroup("/u/c", {}).apply(config, blind)


@pytest.mark.parametrize(
    ("resources", "where"),
    [
        ({"memory": {"limit": 1 << 20}}, "memory.limit: this host has no memory controller"),
        ({"memory": {"reservation": 1 << 20}}, "memory.reservation: this host has no memory controller"),
        ({"cpu": {"shares": 5}}, "cpu.shares: this host has no cpu controller"),
        ({"cpu": {"cpus": "0"}}, "cpu.cpus: this host has no cpuset controller"),
        ({"pids": {"limit": 0}}, "pids.limit: this host has no pids controller"),
        ({"blockIO": {"weight": 10}}, "blockIO.weight: this host has no io controller"),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
            "hugepageLimits.2MB: this host has no hugetlb controller",
        ),
        ({"rdma": {"mlx": {"hcaHandles": 1}}}, "rdma.mlx: this host has no rdma controller"),
        ({"network": {"classID": 1}}, "network.classID: this host has no v1 net_cls hierarchy"),
        ({"unified": {"memory.high": "1"}}, "unified.memory.high: this host has no cgroup v2"),
        ({"devices": [{"allow": True, "type": "c"}]}, "devices: this host has neither"),
    ],
)
def test_a_limit_without_a_controller_is_refused(resources: dict[str, Any], where: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        cgroups.check({"linux": {"resources": resources}}, Cgroup("/c", {}), NOTHING)
    assert str(caught.value).startswith("linux.resources." + where)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_unknown_controller_of_v2() -> None:
    with pytest.raises(UnsupportedError, match="this cgroup v2 has no magic controller"):
        writes({"unified": {"magic.max": "1"}})


def test_no_limit_needs_no_controller() -> None:
    nothing = {"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1, "burst": 0}, "pids": {"limit": -1}}
    assert writes(nothing, NOTHING) == []


def test_a_limit_without_a_cgroup_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="this user may not make a cgroup"):
        cgroups.check({"linux": {"resources": {"pids": {"limit": 5}}}}, Cgroup("", {}), UNIFIED)


@pytest.mark.parametrize(
    ("resources", "where"),
    [
        ({"memory": {"limit": -2}}, "memory.limit"),
        ({"memory": {"swap": 1 << 20}}, "memory.swap"),
        ({"memory": {"limit": -1, "swap": 1 << 20}}, "memory.swap"),
        ({"memory": {"limit": 2 << 20, "swap": 1 << 20}}, "memory.swap"),
        ({"memory": {"limit": 1 << 20, "reservation": 2 << 20}}, "memory.reservation"),
        ({"memory": {"swappiness": 101}}, "memory.swappiness"),
        ({"cpu": {"shares": 1}}, "cpu.shares"),
        ({"cpu": {"shares": 262145}}, "cpu.shares"),
        ({"cpu": {"quota": -2}}, "cpu.quota"),
        ({"cpu": {"quota": 999}}, "cpu.quota"),
        ({"cpu": {"quota": 1 << 44}}, "cpu.quota"),
        ({"cpu": {"period": 999}}, "cpu.period"),
        ({"cpu": {"period": 1000001}}, "cpu.period"),
        ({"cpu": {"quota": 5000, "burst": 5001}}, "cpu.burst"),
        ({"cpu": {"idle": 2}}, "cpu.idle"),
        ({"cpu": {"realtimeRuntime": 2, "realtimePeriod": 1}}, "cpu.realtimeRuntime"),
        ({"cpu": {"cpus": "all"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "3-1"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "0,,1"}}, "cpu.cpus"),
        ({"cpu": {"mems": "-1"}}, "cpu.mems"),
        ({"pids": {"limit": -2}}, "pids.limit"),
        ({"pids": {"limit": 1 << 40}}, "pids.limit"),
        ({"blockIO": {"weight": 9}}, "blockIO.weight"),
        ({"blockIO": {"leafWeight": 1001}}, "blockIO.leafWeight"),
        ({"blockIO": {"weightDevice": [{"major": 1, "minor": 1, "weight": 5}]}}, r"blockIO.weightDevice\[0\].weight"),
        ({"blockIO": {"weightDevice": [{"major": -1, "minor": 1}]}}, r"blockIO.weightDevice\[0\]"),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 4096, "minor": 0, "rate": 1}]}},
            r"blockIO.throttleReadBpsDevice\[0\]",
        ),
        ({"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}, r"hugepageLimits\[0\].pageSize"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}] * 2}, r"hugepageLimits\[1\].pageSize"),
        ({"rdma": {"a b": {}}}, "rdma"),
        ({"network": {"priorities": [{"name": "a b", "priority": 1}]}}, r"network.priorities\[0\].name"),
        ({"unified": {"memory": "1"}}, "unified"),
        ({"unified": {".max": "1"}}, "unified"),
        ({"unified": {"cgroup.procs": "1"}}, "unified"),
        ({"unified": {"cgroup.freeze": "1"}}, "unified"),
    ],
)
def test_nonsense_is_refused_on_every_host(resources: dict[str, Any], where: str) -> None:
    for on in (UNIFIED, LEGACY, HYBRID, NOTHING):
        with pytest.raises(SpecError, match=rf"^linux\.resources\.{where}: ") as caught:
            limits.settings(resources, on)
        assert "\n" not in str(caught.value)


# ---- device rules: who holds them


def program(rules: list[dict[str, Any]], on: Host, cgroup: Cgroup = Cgroup("/u/c", {})) -> bytes:  # noqa: B008
    return cgroups.assemble_device_program({"linux": {"resources": {"devices": rules}}}, cgroup, on)


def test_device_rules_are_a_program_where_no_v1_hierarchy_takes_them() -> None:
    rules = [{"allow": False}]
    assert program(rules, UNIFIED)
    assert not program([], UNIFIED)
    assert not program(rules, HYBRID)
    assert not program(rules, host(uid_map="0 1000 1\n"))
    assert not program(rules, UNIFIED, Cgroup("", {}))


def test_v1_lines_have_the_defaults_of_the_program() -> None:
    lines = cgroups.devices.writes([{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}])
    assert lines[:2] == [("devices.deny", "a"), ("devices.allow", "c 10:229 rw")]
    assert ("devices.allow", "c 136:* rwm") in lines
    assert cgroups.devices.writes([]) == []


# ---- ownership


def config(*, mount: str = "rw", kinds: tuple[str, ...] = ("user", "cgroup"), uid: int = 0) -> dict[str, Any]:
    return {
        "process": {"user": {"uid": uid}},
        "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": [mount]}],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": [
                {"containerID": 0, "hostID": 5000, "size": 10},
                {"containerID": 100, "hostID": 9000, "size": 10},
            ],
        },
    }


def test_the_containers_root_owns_its_cgroup_where_it_could_use_it() -> None:
    assert delegation.owner(config()) == 5000
    assert delegation.owner(config(uid=3)) == 5003
    assert delegation.owner(config(uid=105)) == 9005
    for other in (config(mount="ro"), config(kinds=("user",)), config(kinds=("cgroup",)), config(uid=50), {}):
        assert delegation.owner(other) == -1


# ---- update


def test_an_update_changes_what_it_names() -> None:
    old = {"memory": {"limit": 5, "swap": 6}, "pids": {"limit": 1}, "devices": [1]}
    new = {"memory": {"limit": 7, "swap": None}, "cpu": {"shares": 3}, "devices": [2], "pids": None}
    assert merge(old, new) == {
        "memory": {"limit": 7, "swap": 6},
        "pids": {"limit": 1},
        "devices": [2],
        "cpu": {"shares": 3},
    }
    assert old["memory"] == {"limit": 5, "swap": 6}


@pytest.mark.parametrize(
    ("file", "value", "text", "lines"),
    [
        ("memory.max", "5", "max\n", ["max"]),
        ("cpu.max", "5 100000", "max 100000\n", ["max 100000"]),
        ("cpuset.cpus", "0", "\n", ["\n"]),
        ("cpuset.cpus", "0", "", ["\n"]),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", ["0"]),
        ("io.max", "8:0 rbps=1", "8:16 rbps=5 wbps=max\n", ["8:0 rbps=max wbps=max riops=max wiops=max"]),
        (
            "io.max",
            "8:0 rbps=1",
            "8:0 rbps=5 wbps=max riops=max wiops=max\n",
            ["8:0 rbps=5 wbps=max riops=max wiops=max"],
        ),
        ("io.weight", "50", "default 100\n8:0 5\n", ["default 100"]),
        ("io.weight", "8:0 50", "default 100\n", ["8:0 default"]),
        ("io.bfq.weight", "8:0 50", "default 100\n8:0 7\n", ["8:0 7"]),
        ("blkio.throttle.read_bps_device", "8:0 50", "", ["8:0 0"]),
        ("rdma.max", "mlx hca_handle=1", "mlx hca_handle=max hca_object=5\n", ["mlx hca_handle=max hca_object=5"]),
    ],
)
def test_what_undoes_a_write(file: str, value: str, text: str, lines: list[str]) -> None:
    assert _lines_before(file, value, text) == lines
