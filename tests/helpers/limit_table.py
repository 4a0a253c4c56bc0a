"""Every limit of linux.resources, and what a runtime makes of it on this kernel: held, refused or ignored.

What holds a limit is read from the cgroup files of a container that has been created; that these have the effect that
the kernel documents is what test_limits.py and test_cgroups.py are for.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from .oci import Bundle, Runtime

MIB = 1 << 20
NO_DEVICE = {"rdma"}
"""What takes hardware that there is not: the kernel refuses the line, and so must the runtime."""


class Limit(NamedTuple):
    name: str
    resources: dict[str, Any]
    files: dict[str, tuple[str, ...]]
    """Files of a cgroup, v2's or v1's, and the lines that hold the limit."""


def block_device() -> str:
    """Numbers of a whole disk, "" where there is none."""
    for entry in sorted(Path("/sys/block").iterdir()):
        if not entry.name.startswith(("ram", "zram")):
            return (entry / "dev").read_text().strip()
    return ""


def limits() -> list[Limit]:
    device = block_device()
    major, _, minor = device.partition(":")
    disk = {"major": int(major or 0), "minor": int(minor or 0)}
    memory = {"limit": 64 * MIB}
    size = f"{64 * MIB}"
    return [
        Limit("memory.limit", {"memory": memory}, {"memory.max": (size,), "memory.limit_in_bytes": (size,)}),
        Limit(
            "memory.swap", {"memory": {**memory, "swap": 128 * MIB}},
            {"memory.swap.max": (size,), "memory.memsw.limit_in_bytes": (f"{128 * MIB}",)},
        ),
        Limit(
            "memory.reservation", {"memory": {"reservation": 16 * MIB}},
            {"memory.low": (f"{16 * MIB}",), "memory.soft_limit_in_bytes": (f"{16 * MIB}",)},
        ),
        Limit("memory.swappiness", {"memory": {"swappiness": 7}}, {"memory.swappiness": ("7",)}),
        Limit(
            "memory.disableOOMKiller", {"memory": {**memory, "disableOOMKiller": True}},
            {"memory.oom_control": ("oom_kill_disable 1",)},
        ),
        Limit(
            "memory.kernelTCP", {"memory": {"kernelTCP": 8 * MIB}},
            {"memory.kmem.tcp.limit_in_bytes": (f"{8 * MIB}",)},
        ),
        # runc and crun had two formulas for the weight, one after the other.
        Limit("cpu.shares", {"cpu": {"shares": 512}}, {"cpu.weight": ("59", "20"), "cpu.shares": ("512",)}),
        Limit(
            "cpu.quota", {"cpu": {"quota": 50000, "period": 200000}},
            {"cpu.max": ("50000 200000",), "cpu.cfs_quota_us": ("50000",)},
        ),
        Limit(
            "cpu.burst", {"cpu": {"quota": 50000, "period": 100000, "burst": 20000}},
            {"cpu.max.burst": ("20000",), "cpu.cfs_burst_us": ("20000",)},
        ),
        Limit("cpu.idle", {"cpu": {"idle": 1}}, {"cpu.idle": ("1",)}),
        Limit("cpu.cpus", {"cpu": {"cpus": "0"}}, {"cpuset.cpus": ("0",)}),
        Limit("cpu.mems", {"cpu": {"mems": "0"}}, {"cpuset.mems": ("0",)}),
        Limit("pids.limit", {"pids": {"limit": 57}}, {"pids.max": ("57",)}),
        Limit("pids.limit 0", {"pids": {"limit": 0}}, {"pids.max": ("0",)}),
        Limit(
            "blockIO.weight", {"blockIO": {"weight": 200}},
            {"io.bfq.weight": ("default 200", "200"), "io.weight": ("default 1920",), "blkio.bfq.weight": ("200",)},
        ),
        Limit(
            "blockIO.throttleReadBpsDevice", {"blockIO": {"throttleReadBpsDevice": [{**disk, "rate": MIB}]}},
            {
                "io.max": (f"{device} rbps={MIB} wbps=max riops=max wiops=max",),
                "blkio.throttle.read_bps_device": (f"{device} {MIB}",),
            },
        ),
        Limit(
            "blockIO.throttleWriteIOPSDevice", {"blockIO": {"throttleWriteIOPSDevice": [{**disk, "rate": 99}]}},
            {
                "io.max": (f"{device} rbps=max wbps=max riops=max wiops=99",),
                "blkio.throttle.write_iops_device": (f"{device} 99",),
            },
        ),
        Limit(
            "hugepageLimits", {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
            {"hugetlb.2MB.max": (f"{4 * MIB}",), "hugetlb.2MB.limit_in_bytes": (f"{4 * MIB}",)},
        ),
        Limit("rdma", {"rdma": {"mlx5_0": {"hcaHandles": 3}}}, {"rdma.max": ("mlx5_0 hca_handle=3",)}),
        Limit("network.classID", {"network": {"classID": 0x100001}}, {"net_cls.classid": ("1048577",)}),
        Limit("unified memory.high", {"unified": {"memory.high": size}}, {"memory.high": (size,)}),
    ]  # fmt: skip


def check(oci: Runtime, bundle: Bundle, limit: Limit) -> None:
    """Print the verdict as a row; what there is a file for must be held, and nothing else may seem to be."""
    there = files(oci, bundle).keys() & limit.files.keys()
    found = verdict(oci, bundle, limit)
    print(f"| {limit.name} | {found} |")
    assert found.startswith("held") == (bool(there) and limit.name not in NO_DEVICE), found


def files(oci: Runtime, bundle: Bundle) -> dict[str, list[str]]:
    """The lines of every limit's file in the cgroups of a new container, those that the kernel has; it is removed."""
    container = oci.create(bundle)
    try:
        names = {name for limit in limits() for name in limit.files}
        directories = list(cgroups_of(container.pid))
        paths = [directory / name for directory in directories for name in sorted(names)]
        return {path.name: _lines(path) for path in paths if path.exists()}
    finally:
        container.delete("--force").ok()


def verdict(oci: Runtime, bundle: Bundle, limit: Limit) -> str:
    """ "held: FILE = LINE", "refused: WORDS", "noted: WORDS" or "ignored"."""
    bundle.linux["resources"].update(limit.resources)
    try:
        found = files(oci, bundle)
    except AssertionError:
        return f"refused: {_error(oci)}"
    for name, wanted in limit.files.items():
        for line in found.get(name, ()):
            if line in wanted:
                return f"held: {name} = {line}"
    return _note(oci, bundle) or "ignored"


def _note(oci: Runtime, bundle: Bundle) -> str:
    """What a runtime that tells has to say in its state about a limit that it does not hold."""
    container = oci.create(bundle)
    notes = container.state().get("enforced") or {}
    container.delete("--force").ok()
    return next((f"noted: {note}" for note in notes.values() if note.startswith("not enforced")), "")


def _error(oci: Runtime) -> str:
    errors = sorted(oci.directory.glob("call-*.err"), key=lambda path: int(path.stem.partition("-")[2]))
    lines = [line for path in errors for line in path.read_text().splitlines() if line]
    message = lines[-1]
    if "msg=" in message:
        return str(json.loads(message.partition("msg=")[2]))
    return message.removeprefix("warren-oci: ")


def cgroups_of(pid: int) -> "set[Path]":
    """The directories of a process in every hierarchy, as the host sees them."""
    found = set()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for mount in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = mount.partition(" - ")
            kind, _, options = right.split(" ", 2)
            fits = kind == "cgroup" and set(names.split(",")) <= set(options.split(","))
            if fits if names else kind == "cgroup2":
                found.add(Path(left.split()[4] + path))
    return {path for path in found if os.path.isdir(path)}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
