"""The OCI verbs where cgroup v2 is all there is: joined by clone3, a namespace of its own, killed and removed."""

from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.oci import Bundle, Runtime
from tests.helpers.probe import mounts

from .conftest import CGROUPS, SLEEP, box, cgroup_of, members, wait_for


def test_the_machine_has_all_controllers() -> None:
    assert {"cpu", "io", "memory", "pids"} <= set((CGROUPS / "cgroup.subtree_control").read_text().split())
    assert " - cgroup " not in Path("/proc/self/mountinfo").read_text()


def test_run_returns_what_the_program_returns(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["args"] = ["/bin/sh", "-c", "echo $$; exit 7"]
    done = oci.run(bundle)
    assert (done.code, done.out) == (7, "1\n"), str(done)


def test_the_verbs_in_turn(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["args"] = list(SLEEP)
    container = oci.create(bundle)
    assert container.status == "created"
    container.start().ok()
    state = container.state()
    assert state["status"] == "running"
    cgroup = cgroup_of(state["pid"])
    assert cgroup != CGROUPS and members(cgroup) == {state["pid"]}
    container.kill().ok()
    wait_for(lambda: not members(cgroup))
    assert container.status == "stopped"
    container.delete().ok()
    oci("state", container.id).fails()
    assert not cgroup.exists()


def test_the_namespace_begins_at_the_containers_cgroup(oci: Runtime, bundle: Bundle) -> None:
    answers = oci.ask(bundle, "cgroup", "mounts", "cat /sys/fs/cgroup/cgroup.procs", "mkdir /sys/fs/cgroup/x")
    assert answers["cgroup"] == ["0::/"]
    mount = mounts(answers["mounts"])["/sys/fs/cgroup"]
    assert (mount.type, mount.root) == ("cgroup2", "/")
    assert answers["cat /sys/fs/cgroup/cgroup.procs"] == ["1"]
    assert answers.one("mkdir /sys/fs/cgroup/x") == "EROFS"


def test_a_cgroup_can_be_named(oci: Runtime, bundle: Bundle, token: str) -> None:
    bundle.linux["cgroupsPath"] = f"/{token}-parent/child"
    container, pid = box(oci, bundle)
    cgroup = cgroup_of(pid)
    assert cgroup == CGROUPS / f"{token}-parent/child"
    container.delete("--force").ok()
    assert not cgroup.exists()
    if cgroup.parent.exists():
        # runc and crun leave parents that they made.
        cgroup.parent.rmdir()


def test_exec_joins_the_cgroup(oci: Runtime, bundle: Bundle) -> None:
    container, pid = box(oci, bundle)
    cgroup = cgroup_of(pid)
    file = bundle.path / "exec-pid"
    container.exec(*SLEEP, flags=["--detach", "--pid-file", file]).ok()
    assert members(cgroup) == {pid, int(file.read_text())}
    assert container.ask("cgroup")["cgroup"] == ["0::/"]


def test_exec_joins_a_container_that_nests_cgroups(oci: Runtime, bundle: Bundle) -> None:
    """A container may enable controllers for its children; its own cgroup then takes no processes (cgroups(7))."""
    bundle.config["mounts"][-1]["options"].remove("ro")
    script = "mkdir leaf; echo 1 >leaf/cgroup.procs; echo +pids >cgroup.subtree_control; echo nested; exec sleep 60"
    container, pid = box(oci, bundle, ["/bin/sh", "-c", f"cd /sys/fs/cgroup; {script}"])
    container.expect("nested")
    cgroup = cgroup_of(pid)
    assert cgroup.name == "leaf"
    assert container.ask("cgroup")["cgroup"] == ["0::/leaf"]
    container.delete("--force").ok()
    assert not cgroup.parent.exists()


def test_kill_all_reaches_every_process(oci: Runtime, bundle: Bundle) -> None:
    """A container without a pid namespace of its own: nothing but the cgroup says what belongs to it."""
    bundle.shares("pid")
    container, pid = box(oci, bundle, ["/bin/sh", "-c", "for i in 1 2; do setsid sleep 60 & done; exec sleep 60"])
    cgroup = cgroup_of(pid)
    wait_for(lambda: len(members(cgroup)) == 3)
    container.kill("KILL", "--all").ok()
    wait_for(lambda: not members(cgroup))
    container.delete().ok()
    assert not cgroup.exists()


# runc 1.1 kills the orphan but does not wait for it, and now and then leaves the cgroup to it.
@pytest.mark.parametrize("runtime_program", ["crun", "warren-oci"], indirect=True)
def test_delete_force_ends_orphans_too(oci: Runtime, bundle: Bundle) -> None:
    bundle.shares("pid")
    container, pid = box(oci, bundle, ["/bin/sh", "-c", "setsid sleep 60 & echo $!; exec sleep 60"])
    orphan = int(container.expect("\n"))
    cgroup = cgroup_of(pid)
    container.delete("--force").ok()
    assert not cgroup.exists()
    process = processes.read(orphan)
    assert process is None or not process.alive
