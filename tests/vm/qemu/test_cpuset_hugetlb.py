"""Limits that only a kernel with several CPUs, cpuset and hugetlb shows.  NOT_YET as in guest/test_limits.py."""

from pathlib import Path

import pytest

from tests.helpers.oci import Bundle, Runtime
from tests.vm.guest.conftest import CGROUPS, box, wait_for

HUGE = 2 << 20
NOT_YET: dict[str, str] = {}


@pytest.fixture(scope="module")
def huge_pages() -> None:
    Path("/proc/sys/vm/nr_hugepages").write_text("8")


def test_run_works_here_too(oci: Runtime, bundle: Bundle) -> None:
    assert {"cpuset", "hugetlb"} <= set((CGROUPS / "cgroup.subtree_control").read_text().split())
    bundle.process["args"] = ["/bin/busybox", "nproc"]
    assert oci.run(bundle).ok().out == "2\n"


@pytest.mark.parametrize("cpu", [0, 1])
def test_a_process_stays_on_its_cpus(oci: Runtime, bundle: Bundle, cpu: int) -> None:
    bundle.linux["resources"]["cpu"] = {"cpus": str(cpu), "mems": "0"}
    container, pid = box(oci, bundle, ["/bin/sh", "-c", "nproc; while :; do :; done"])
    assert container.expect("\n") == "1\n"
    wait_for(lambda: ticks(pid) > 50, 60)
    assert last_cpu(pid) == cpu


@pytest.mark.usefixtures("huge_pages")
def test_huge_pages_end_at_their_limit(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "2MB", "limit": 2 * HUGE}]
    bundle.mount("/huge", "hugetlbfs", "hugetlbfs", "pagesize=2M")
    script = f"for n in 1 2 3; do fallocate -l $((n * {HUGE})) /huge/file 2>/dev/null; echo $n $?; done"
    bundle.process["args"] = ["/bin/sh", "-c", script]
    assert oci.run(bundle).ok().out.split() == ["1", "0", "2", "0", "3", "1"]


def stat(pid: int) -> list[str]:
    """Fields of proc(5) from the third on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def last_cpu(pid: int) -> int:
    """Where it runs or ran last."""
    return int(stat(pid)[36])


def ticks(pid: int) -> int:
    """Hundredths of a second that it has run, in user mode."""
    return int(stat(pid)[11])
