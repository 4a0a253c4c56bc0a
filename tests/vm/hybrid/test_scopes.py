"""--systemd-cgroup where systemd makes the scope in v1 hierarchies, and others are for the runtime to join."""

import json
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle, Runtime
from tests.vm.guest.conftest import CGROUPS, box, wait_for
from tests.vm.systemd.conftest import is_loaded, shown

MEGABYTE = 1 << 20


@pytest.fixture
def unit(bundle: Bundle) -> str:
    bundle.linux["cgroupsPath"] = f"system.slice:box:{bundle.path.parent.name}"
    return f"box-{bundle.path.parent.name}.scope"


def cgroups(pid: int) -> dict[str, str]:
    """Paths by hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {name: path for _, name, path in (line.split(":", 2) for line in lines)}


def test_the_machine_is_hybrid() -> None:
    assert (CGROUPS / "memory/memory.limit_in_bytes").exists()
    assert (CGROUPS / "unified/cgroup.procs").exists()


def test_the_scope_is_in_every_hierarchy(oci: Runtime, bundle: Bundle, unit: str) -> None:
    container, pid = box(oci, bundle)
    assert set(cgroups(pid).values()) == {f"/system.slice/{unit}"}
    container.delete("--force").ok()
    assert not is_loaded(unit)
    assert not list(CGROUPS.glob(f"*/system.slice/{unit}"))


def test_kernel_and_systemd_agree_about_limits(oci: Runtime, bundle: Bundle, unit: str) -> None:
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 * MEGABYTE},
        "cpu": {"shares": 512, "quota": 30000, "period": 60000},
        "pids": {"limit": 77},
    }
    container, _ = box(oci, bundle)
    wanted = {"MemoryLimit": str(64 * MEGABYTE), "CPUShares": "512", "CPUQuotaPerSecUSec": "500ms", "TasksMax": "77"}
    assert shown(unit, *wanted) == wanted
    oci("update", "--pids-limit", "66", "--cpu-share", "256", container.id).ok()
    files = {"memory/memory.limit_in_bytes": 64 * MEGABYTE, "cpu/cpu.shares": 256, "cpu/cpu.cfs_quota_us": 30000}
    for name, value in {**files, "pids/pids.max": 66}.items():
        controller, _, file = name.partition("/")
        assert (CGROUPS / controller / "system.slice" / unit / file).read_text() == f"{value}\n"
    assert shown(unit, "TasksMax", "CPUShares") == {"TasksMax": "66", "CPUShares": "256"}


def test_device_rules_are_updated(oci: Runtime, bundle: Bundle, unit: str) -> None:
    container, _ = box(oci, bundle)
    if oci.program.endswith("runc"):
        return  # It takes no device rules for an update.
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", "major": 7, "minor": 0, "access": "rw"}]
    oci("update", "--resources", "-", container.id, input=json.dumps({"devices": rules})).ok()
    assert "/dev/block/7:0 rw" in shown(unit, "DeviceAllow")["DeviceAllow"]
    assert "b 7:0 rw" in (CGROUPS / "devices/system.slice" / unit / "devices.list").read_text()
    assert container.status == "running"


def test_limits_hold(oci: Runtime, bundle: Bundle, unit: str) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 32 * MEGABYTE}
    bundle.process["args"] = ["/bin/sh", "-c", "dd if=/dev/zero of=/dev/null count=1 bs=64M; echo dd $?"]
    assert oci.run(bundle).out.split() == ["dd", "137"]
    wait_for(lambda: not is_loaded(unit))


def test_devices_are_what_the_rules_say(oci: Runtime, bundle: Bundle, unit: str) -> None:
    node = {"path": "/dev/loop9", "type": "b", "major": 7, "minor": 0, "fileMode": 0o666}
    bundle.linux["devices"] = [node, {**node, "path": "/dev/loop8", "minor": 1}]
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", "major": 7, "minor": 0, "access": "rw"}]
    bundle.linux["resources"]["devices"] = rules
    script = "for n in null loop9 loop8; do head -c0 /dev/$n 2>&1 && echo $n opens; done; true"
    bundle.process["args"] = ["/bin/sh", "-c", script]
    out = oci.run(bundle).ok().out
    assert "null opens" in out and "loop8: Operation not permitted" in out
    assert "loop9: Operation not permitted" not in out
