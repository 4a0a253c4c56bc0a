"""--systemd-cgroup: a container's cgroup is a scope of systemd, which knows its limits and forgets it with it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.machines import PROJECT
from tests.helpers.oci import Bundle, Runtime
from tests.vm.guest.conftest import CGROUPS, box, cgroup_of, members, wait_for

from .conftest import is_loaded, shown

MEGABYTE = 1 << 20
LONG = bool(os.environ.get("WARREN_LONG"))
# crun 1.8 sets no properties but those of annotations; runc 1.1 joins a unit that is there already, and nothing with
# `exec` as an ordinary user.
not_crun = pytest.mark.parametrize("runtime_program", ["runc"] * LONG + ["warren-oci"], indirect=True)
only_warren = pytest.mark.parametrize("runtime_program", ["warren-oci"], indirect=True)
LIBRARY = """
import os, sys
from runtime.container import Container
from runtime.launch import Options
from runtime.spec import Bundle
container = Container("library", sys.argv[1])
os.waitpid(container.run(Bundle.load(sys.argv[2], ""), Options(cgroup_manager="auto")), 0)
print(container._record()["cgroup"]["unit"])
container.delete()
"""
GREEDY = ["/bin/sh", "-c", "dd if=/dev/zero of=/dev/null count=1 bs=64M; echo dd $?"]


@pytest.fixture
def unit(bundle: Bundle) -> str:
    """The scope that the bundle asks for."""
    bundle.linux["cgroupsPath"] = f"system.slice:box:{bundle.path.parent.name}"
    return f"box-{bundle.path.parent.name}.scope"


@pytest.fixture
def slices(token: str) -> Iterator[str]:
    """A slice within a slice, which nothing else ends."""
    yield f"wrn{token}-inner.slice"
    subprocess.run(["systemctl", "stop", f"wrn{token}.slice"], check=True)


def scope_of(pid: int) -> Path:
    """crun puts the container one deeper, into a cgroup "container" of the scope."""
    cgroup = cgroup_of(pid)
    return cgroup if cgroup.name.endswith(".scope") else cgroup.parent


def test_a_scope_in_an_expanded_slice(oci: Runtime, bundle: Bundle, unit: str, slices: str) -> None:
    bundle.linux["cgroupsPath"] = f"{slices}:box:{unit[4:-6]}"
    container, pid = box(oci, bundle)
    path = f"/{slices.split('-')[0]}.slice/{slices}/{unit}"
    assert scope_of(pid) == CGROUPS / path[1:]
    assert members(scope_of(pid)) == {pid}
    wanted = {
        "ControlGroup": path,
        "Delegate": "yes",
        "ActiveState": "active",
        "DefaultDependencies": "no",
        "Slice": slices,
    }
    assert shown(unit, *wanted) == wanted
    container.delete("--force").ok()
    assert not is_loaded(unit)
    assert not (CGROUPS / path[1:]).exists()


def test_without_a_path_it_is_in_the_system_slice(oci: Runtime, bundle: Bundle) -> None:
    container, pid = box(oci, bundle)
    cgroup = scope_of(pid)
    assert cgroup.parent == CGROUPS / "system.slice"
    assert cgroup.name.endswith(f"-{container.id}.scope")


@not_crun
def test_a_path_that_names_no_scope_is_refused(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["cgroupsPath"] = "/some/cgroup"
    oci.refuses(bundle, "slice:prefix:name")


@not_crun
def test_kernel_and_systemd_agree_about_limits(oci: Runtime, bundle: Bundle, unit: str) -> None:
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 * MEGABYTE, "reservation": 32 * MEGABYTE, "swap": 96 * MEGABYTE},
        "cpu": {"quota": 30000, "period": 60000},
        "pids": {"limit": 77},
    }
    _, pid = box(oci, bundle)
    wanted = {
        "MemoryMax": str(64 * MEGABYTE),
        "MemoryLow": str(32 * MEGABYTE),
        "CPUQuotaPerSecUSec": "500ms",
        "CPUQuotaPeriodUSec": "60ms",
        "TasksMax": "77",
    }
    assert shown(unit, *wanted) == wanted
    files = {"memory.max": str(64 * MEGABYTE), "memory.low": str(32 * MEGABYTE), "cpu.max": "30000 60000"}
    files["pids.max"] = "77"
    cgroup = scope_of(pid)
    assert {name: (cgroup / name).read_text().strip() for name in files} == files
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert {name: (cgroup / name).read_text().strip() for name in files} == files


def test_the_memory_limit_holds(oci: Runtime, bundle: Bundle, unit: str) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 32 * MEGABYTE, "swap": 32 * MEGABYTE}
    bundle.process["args"] = GREEDY
    assert oci.run(bundle).out.split() == ["dd", "137"]
    wait_for(lambda: not is_loaded(unit))


@not_crun
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
    box(oci, bundle)
    found = shown(unit, "DevicePolicy", "DeviceAllow")
    assert found["DevicePolicy"] == "strict"
    assert "/dev/char/1:3 rwm" in found["DeviceAllow"]


def test_annotations_are_properties(oci: Runtime, bundle: Bundle, unit: str) -> None:
    prefix = "org.systemd.property."
    bundle.config["annotations"] = {
        prefix + "TimeoutStopUSec": "uint64 123000000",
        prefix + "CollectMode": "'inactive-or-failed'",
    }
    box(oci, bundle)
    wanted = {"TimeoutStopUSec": "2min 3s", "CollectMode": "inactive-or-failed"}
    assert shown(unit, *wanted) == wanted


@not_crun
def test_annotations_that_are_no_values_are_refused(oci: Runtime, bundle: Bundle, unit: str) -> None:
    bundle.config["annotations"] = {"org.systemd.property.TimeoutStopUSec": "uint64 -1"}
    oci.refuses(bundle)
    assert not is_loaded(unit)


@not_crun
def test_an_update_tells_systemd(oci: Runtime, bundle: Bundle, unit: str) -> None:
    container, pid = box(oci, bundle)
    oci("update", "--pids-limit", "33", "--cpu-quota", "25500", "--cpu-period", "100000", container.id).ok()
    assert shown(unit, "TasksMax", "CPUQuotaPerSecUSec") == {"TasksMax": "33", "CPUQuotaPerSecUSec": "260ms"}
    assert (scope_of(pid) / "pids.max").read_text() == "33\n"
    wanted = "26000 100000\n" if oci.program.endswith("crun") else "25500 100000\n"
    assert (scope_of(pid) / "cpu.max").read_text() == wanted


@only_warren
def test_an_update_that_fails_changes_nothing(oci: Runtime, bundle: Bundle, unit: str) -> None:
    container, pid = box(oci, bundle)

    def now() -> tuple[dict[str, list[str]], list[str]]:
        found = shown(unit, "TasksMax", "CPUWeight", "MemoryMax", "DeviceAllow")
        files = [(cgroup_of(pid) / name).read_text() for name in ("pids.max", "cpu.weight", "memory.max")]
        return {name: sorted(value.splitlines()) for name, value in found.items()}, files

    before = now()
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", "major": 7, "minor": 0, "access": "rw"}]
    unified = {"memory.max": "nonsense"}
    changes = {"pids": {"limit": 33}, "cpu": {"shares": 2000}, "devices": rules, "unified": unified}
    oci("update", "--resources", "-", container.id, input=json.dumps(changes)).fails("memory.max")
    assert now() == before


def test_exec_joins_pause_stops_and_delete_kills(oci: Runtime, bundle: Bundle, unit: str) -> None:
    container, pid = box(oci, bundle)
    done, _ = oci.spawn("exec", container.id, "/bin/busybox", "sleep", "60")
    wait_for(lambda: len(members(scope_of(pid))) == 2)
    oci("pause", container.id).ok()
    assert container.status == "paused"
    container.delete("--force").ok()
    done.wait()
    assert not is_loaded(unit)


@only_warren
def test_a_unit_of_somebody_else_is_left_alone(oci: Runtime, bundle: Bundle, unit: str) -> None:
    first, pid = box(oci, bundle)
    second = oci.refuses(bundle)
    assert second.code
    assert first.status == "running" and scope_of(pid).name == unit
    assert is_loaded(unit)


@only_warren
def test_limits_below_two_processes(oci: Runtime, bundle: Bundle, unit: str) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 1}
    _, pid = box(oci, bundle)
    assert shown(unit, "TasksMax") == {"TasksMax": "1"}
    assert (scope_of(pid) / "pids.max").read_text() == "1\n"


def test_over_the_bus(oci: Runtime, bundle: Bundle, unit: str) -> None:
    """Where systemd's own socket cannot be reached."""
    oci.prefix = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /run/systemd/private && exec "$@"', "sh"]
    container, pid = box(oci, bundle)
    assert scope_of(pid).name == unit
    container.delete("--force").ok()
    assert not is_loaded(unit)


@only_warren
def test_killed_anywhere_it_leaves_no_unit(oci: Runtime, bundle: Bundle, unit: str) -> None:
    bundle.save()
    killed = 0
    for step in range(8 if LONG else 3):
        id = oci.new_id() + f"-{step}"
        process, _ = oci.spawn("create", "--bundle", bundle.path, id)
        time.sleep(0.1 + step * 0.07)
        killed += process.poll() is None
        process.kill()
        process.wait()
        oci("delete", "--force", id).ok()
        assert not is_loaded(unit)
    assert killed


@not_crun
def test_an_ordinary_users_scope(user_oci: Runtime, user_bundle: Bundle, unit: str) -> None:
    uid = user_bundle.linux["uidMappings"][0]["hostID"]
    user_bundle.linux["cgroupsPath"] = f"user.slice:box:{unit[4:-6]}"
    user_bundle.linux["resources"] = {"memory": {"limit": 32 * MEGABYTE, "swap": 32 * MEGABYTE}, "pids": {"limit": 55}}
    script = f"{GREEDY[-1]}; exec sleep 60"
    container, pid = box(user_oci, user_bundle, [*GREEDY[:2], script])
    below = f"user.slice/user-{uid}.slice/user@{uid}.service/user.slice"
    assert scope_of(pid) == CGROUPS / below / unit
    assert (scope_of(pid) / "pids.max").read_text() == "55\n"
    assert shown(unit, "TasksMax", user=True) == {"TasksMax": "55"}
    assert container.expect("dd").split() == ["dd", "137"]
    container.delete("--force").ok()
    assert not is_loaded(unit, user=True)
    assert not (CGROUPS / below / unit).exists()


@only_warren
def test_what_an_ordinary_user_executes_joins_the_scope(user_oci: Runtime, user_bundle: Bundle) -> None:
    user_bundle.linux["resources"] = {"memory": {"limit": 32 * MEGABYTE, "swap": 32 * MEGABYTE}}
    container, _ = box(user_oci, user_bundle)
    assert container.exec(*GREEDY).out.split() == ["dd", "137"]


@only_warren
def test_root_of_a_user_namespace_is_still_an_ordinary_user(user_oci: Runtime, user_bundle: Bundle, unit: str) -> None:
    """As podman calls a runtime for an ordinary user."""
    user_oci.prefix += ["unshare", "--user", "--map-root-user", "--mount"]
    for kind in ("uidMappings", "gidMappings"):
        user_bundle.linux[kind][0]["hostID"] = 0
    user_bundle.linux["resources"] = {"memory": {"limit": 32 * MEGABYTE, "swap": 32 * MEGABYTE}}
    user_bundle.linux["cgroupsPath"] = f"user.slice:box:{unit[4:-6]}"
    container, pid = box(user_oci, user_bundle, [*GREEDY[:2], f"{GREEDY[-1]}; exec sleep 60"])
    assert scope_of(pid).name == unit
    assert "/user@" in str(scope_of(pid))
    assert container.expect("dd").split() == ["dd", "137"]
    container.delete("--force").ok()
    assert not is_loaded(unit, user=True)


@not_crun
def test_who_has_no_service_manager_is_told(user_oci: Runtime, user_bundle: Bundle) -> None:
    user_oci.prefix = [word for word in user_oci.prefix if not word.startswith("XDG_")]
    user_oci.prefix.append("XDG_RUNTIME_DIR=/nowhere")
    user_oci.refuses(user_bundle)


@only_warren
def test_the_library_makes_an_ordinary_user_a_scope(user_oci: Runtime, user_bundle: Bundle) -> None:
    """As `warren run` does, whose overlays of detached mounts this machine's kernel does not know."""
    user_bundle.linux["resources"] = {"memory": {"limit": 32 * MEGABYTE, "swap": 32 * MEGABYTE}}
    user_bundle.process["args"] = GREEDY
    user_bundle.save()
    command = [*user_oci.prefix, sys.executable, "-c", LIBRARY, user_oci.root, user_bundle.path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.split() == ["dd", "137", "warren-library.scope"], done.stderr
