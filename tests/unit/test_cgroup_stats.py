"""Statistics from files of both versions, and the JSON that runc makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import Cgroup, events, oom
from runtime.cgroups.stats import UNLIMITED, Reader, read_stats
from runtime.jsontext import dump_json

V2 = {
    "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 10\nnr_throttled 4\nthrottled_usec 70\n",
    "memory.stat": "anon 100\nfile 50\nkernel 7\nshmem 3\ninactive_file 30\n",
    "memory.current": "160\n",
    "memory.peak": "200\n",
    "memory.max": "1000\n",
    "memory.swap.current": "20\n",
    "memory.swap.max": "500\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
    "pids.events": "max 6\n",
    "io.stat": "8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=1\n7:0 \n8:0 rbytes=1 wbytes=0 rios=1 wios=0\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.events": "max 3\n",
    "hugetlb.2MB.max": "max\n",
    "cpu.pressure": (
        "some avg10=1.50 avg60=0.20 avg300=0.03 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    ),
    "io.pressure": "",
}
NONE = 9223372036854771712
V1: dict[str, dict[str, str]] = {
    "cpu,cpuacct": {
        "cpuacct.usage": "1500000\n",
        "cpuacct.usage_user": "1000000\n",
        "cpuacct.usage_sys": "500000\n",
        "cpuacct.usage_percpu": "700000 800000 \n",
        "cpuacct.usage_all": "cpu user system\n0 600000 100000\n1 400000 400000\n",
        "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 70000\n",
    },
    "memory": {
        "memory.stat": (
            "cache 1\nhierarchical_memory_limit 1000\nhierarchical_memsw_limit 1500\ntotal_cache 50\ntotal_rss 100\n"
            "total_shmem 3\ntotal_swap 20\ntotal_inactive_file 30\n"
        ),
        "memory.usage_in_bytes": "160\n",
        "memory.max_usage_in_bytes": "200\n",
        "memory.kmem.usage_in_bytes": "7\n",
        "memory.failcnt": "9\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    },
    "cpuset": {"cpuset.cpus": "0-1,3\n", "cpuset.mems": "0\n", "cpuset.sched_relax_domain_level": "-1\n"},
    "pids": {"pids.current": "3\n", "pids.max": "max\n", "pids.events": "max 6\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": (
            "8:16 Read 10\n8:16 Write 20\n8:16 Sync 30\n8:16 Async 0\n8:16 Discard 5\n8:16 Total 30\n"
            "8:0 Read 1\n8:0 Write 0\nTotal 31\n"
        ),
        "blkio.throttle.io_serviced_recursive": "8:16 Read 1\n8:16 Write 2\n8:16 Discard 1\n8:0 Read 1\nTotal 4\n",
    },
    "hugetlb": {
        "hugetlb.2MB.usage_in_bytes": "2097152\n",
        "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
        "hugetlb.2MB.failcnt": "3\n",
        "hugetlb.2MB.rsvd.usage_in_bytes": "0\n",
    },
}


def lay_out(directory: Path, files: dict[str, str]) -> str:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


@pytest.fixture
def unified(tmp_path: Path) -> Cgroup:
    return Cgroup(lay_out(tmp_path / "v2", V2), {})


@pytest.fixture
def legacy(tmp_path: Path) -> Cgroup:
    return Cgroup("", {name: lay_out(tmp_path / name, files) for name, files in V1.items()})


@pytest.mark.parametrize("kind", ["unified", "legacy"])
def test_the_same_container_reads_the_same_in_both_versions(kind: str, request: pytest.FixtureRequest) -> None:
    cgroup: Cgroup = request.getfixturevalue(kind)
    found = read_stats(cgroup)
    cpu, memory, pids, io = found.cpu, found.memory, found.pids, found.io
    assert cpu and memory and pids and io
    assert (cpu.usage, cpu.user, cpu.system) == (1500000, 1000000, 500000)
    assert (cpu.periods, cpu.throttled_periods, cpu.throttled) == (10, 4, 70000)
    assert (memory.current, memory.peak, memory.limit, memory.working_set) == (160, 200, 1000, 130)
    assert (memory.anon, memory.file, memory.shmem, memory.kernel) == (100, 50, 3, 7)
    assert (memory.swap, memory.swap_limit, memory.oom_kills, memory.failures) == (20, 500, 1, 9)
    assert (pids.current, pids.limit, pids.failures) == (3, UNLIMITED, 6)
    disk, other = io
    assert (disk.major, disk.minor, disk.read, disk.written) == (8, 16, 10, 20)
    assert (disk.reads, disk.writes, disk.discarded) == (1, 2, 5)
    assert (other.minor, other.read) == (0, 1)
    assert list(found.hugetlb) == ["2MB"]
    assert (found.hugetlb["2MB"].usage, found.hugetlb["2MB"].failures) == (2 << 20, 3)
    assert oom.kills(cgroup) == 1


def test_pressure(unified: Cgroup) -> None:
    found = read_stats(unified).pressure
    assert list(found) == ["cpu"]
    assert found["cpu"].some == {"avg10": 1.5, "avg60": 0.2, "avg300": 0.03, "total": 12345}


def test_a_hybrid_host_reads_each_part_where_it_is(unified: Cgroup, legacy: Cgroup) -> None:
    """The CPU time of v2 is always there; its throttling is not where cpu is bound to v1."""
    hybrid = Cgroup(unified.unified, {"cpu": legacy.legacy["cpu,cpuacct"], "memory": legacy.legacy["memory"]})
    cpu = read_stats(hybrid).cpu
    assert cpu
    assert (cpu.usage, cpu.throttled) == (1500000, 70000)


def test_what_is_not_accounted_is_none(tmp_path: Path) -> None:
    found = read_stats(Cgroup(lay_out(tmp_path / "v2", {"cpu.stat": "usage_usec 1\n"}), {}))
    assert found.cpu
    assert (found.memory, found.pids, found.io, found.hugetlb, found.pressure) == (None, None, None, {}, {})
    nothing = read_stats(Cgroup("", {}))
    assert (nothing.cpu, nothing.memory, nothing.pids, nothing.io) == (None, None, None, None)


def test_no_limit_of_memory_in_v1(tmp_path: Path) -> None:
    stat = f"hierarchical_memory_limit {NONE}\nhierarchical_memsw_limit {NONE}\n"
    memory = read_stats(Cgroup("", {"memory": lay_out(tmp_path / "m", {"memory.stat": stat})})).memory
    assert memory
    assert (memory.limit, memory.swap_limit) == (UNLIMITED, UNLIMITED)


def test_files_stay_open_between_readings(unified: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(unified)
    reader.read()
    monkeypatch.setattr("runtime.cgroups.stats.posix.open", None)
    (Path(unified.unified) / "pids.current").write_text("4\n")
    pids = reader.read().pids
    assert pids
    assert pids.current == 4
    reader.close()


def test_without_descriptors_to_spare_they_do_not(unified: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.cgroups.stats._spare_descriptors", lambda: 0)
    reader = Reader(unified)
    memory = reader.read().memory
    assert memory
    assert memory.current == 160
    assert reader._fds == {}


# ---- events


def test_a_reading_as_runc_prints_it(legacy: Cgroup) -> None:
    event: Any = json.loads(dump_json(events.stats_event("box", read_stats(legacy))))
    assert (event["type"], event["id"]) == ("stats", "box")
    data = event["data"]
    assert list(data) == [
        "cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces",
    ]  # fmt: skip
    assert data["cpu"] == {
        "usage": {
            "total": 1500000,
            "percpu": [700000, 800000],
            "percpu_kernel": [100000, 400000],
            "percpu_user": [600000, 400000],
            "kernel": 500000,
            "user": 1000000,
        },
        "throttling": {"periods": 10, "throttledPeriods": 4, "throttledTime": 70000},
    }
    assert data["memory"]["usage"] == {"limit": 1000, "usage": 160, "max": 200, "failcnt": 9}
    assert data["memory"]["swap"] == {"limit": 1500, "usage": 180, "failcnt": 0}
    assert data["memory"]["kernel"] == {"limit": (1 << 63) - 4096, "usage": 7, "failcnt": 0}
    assert data["memory"]["cache"] == 50
    assert data["memory"]["raw"]["total_rss"] == 100
    assert data["pids"] == {"current": 3}
    assert (data["cpuset"]["cpus"], data["cpuset"]["mems"]) == ([0, 1, 3], [0])
    assert (data["cpuset"]["sched_relax_domain_level"], data["cpuset"]["cpu_exclusive"]) == (-1, 0)
    assert data["blkio"]["ioServiceBytesRecursive"][:2] == [
        {"major": 8, "minor": 16, "op": "Read", "value": 10},
        {"major": 8, "minor": 16, "op": "Write", "value": 20},
    ]
    assert data["hugetlb"] == {"2MB": {"usage": 2097152, "max": 4194304, "failcnt": 3}}


def test_a_reading_of_v2_as_runc_prints_it(unified: Cgroup) -> None:
    data: Any = events.stats_data(read_stats(unified))
    assert data["memory"]["swap"]["usage"] == 180
    assert data["cpu"]["psi"]["some"]["total"] == 12345
    (Path(unified.unified) / "memory.max").write_text("max\n")
    data = events.stats_data(read_stats(unified))
    assert data["memory"]["usage"]["limit"] == (1 << 64) - 1
    assert data["memory"]["swap"]["limit"] == (1 << 64) - 1


def test_nothing_at_all_has_the_keys_that_are_always_there() -> None:
    data: Any = events.stats_data(read_stats(Cgroup("", {})))
    assert data["cpu"]["usage"] == {"kernel": 0, "user": 0}
    assert data["memory"]["usage"] == {"limit": 0, "failcnt": 0}


def test_an_oom_event() -> None:
    assert events.oom_event("box") == {"type": "oom", "id": "box"}
