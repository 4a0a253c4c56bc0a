"""What engines read from list, ps, spec, features, --version and the log: runc(8) is the reference."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.oci import Bundle, Container, Runtime


def test_list_in_json(oci: Runtime, bundle: Bundle, new_bundle: Callable[[], Bundle]) -> None:
    """runc-list(8): "--format json": ociVersion, id, pid, status, bundle, rootfs, created, annotations, owner."""
    assert oci.list() == []
    bundle.config["annotations"] = {"key": "value"}
    first, second = oci.create(bundle), oci.up(new_bundle())
    listed = {entry["id"]: entry for entry in oci.list()}
    assert set(listed) == {first.id, second.id}
    assert (listed[first.id]["status"], listed[second.id]["status"]) == ("created", "running")
    assert listed[second.id]["pid"] == second.pid
    assert listed[first.id]["bundle"] == str(bundle.path)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", listed[first.id]["created"])
    assert listed[first.id]["owner"] == "root"


def test_list_as_a_table(oci: Runtime, box: Container) -> None:
    """runc-list(8): columns ID PID STATUS BUNDLE CREATED OWNER; -q: "Only display container IDs"."""
    heading, line = oci("list").ok().out.splitlines()
    assert heading.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert line.split()[:4] == [box.id, str(box.pid), "running", str(box.bundle.path)]
    assert oci("list", "--quiet").ok().out.split() == [box.id]
    oci("list", "--format", "nonsense").fails()


@pytest.mark.parametrize("flags", [["-f", "json", "-q"], ["-q", "-f", "json"], ["--quiet", "--format=json"]], ids=str)
def test_a_quiet_list_is_of_ids_in_any_format(oci: Runtime, box: Container, flags: list[str]) -> None:
    """runc-list(8): "-q: Only display container IDs": before the format is looked at."""
    assert oci("list", *flags).ok().out == f"{box.id}\n"


def test_list_of_stopped_containers(oci: Runtime, bundle: Bundle) -> None:
    """A stopped container is listed until it is deleted."""
    container = oci.up(bundle.asks("true")).wait()
    assert [(entry["id"], entry["status"], entry["pid"]) for entry in oci.list()] == [(container.id, "stopped", 0)]


def test_ps_in_json(oci: Runtime, bundle: Bundle) -> None:
    """runc-ps(8): "--format json": the pids as seen by the host."""
    container = oci.up(bundle.asks("fork 60", "echo forked", "sleep 60"))
    container.expect("forked")
    pids = json.loads(oci("ps", "--format", "json", container.id).ok().out)
    assert container.pid in pids and len(pids) == 2


def test_ps_as_a_table(oci: Runtime, box: Container) -> None:
    """runc-ps(8): "the default format is a table", made by ps(1) and cut down to the container's processes."""
    heading, *lines = oci("ps", box.id).ok().out.splitlines()
    assert "PID" in heading.split() and "CMD" in heading.split()
    assert len(lines) == 1 and str(box.pid) in lines[0].split() and "/bin/probe sleep" in lines[0]


def test_ps_takes_options_of_ps(oci: Runtime, box: Container) -> None:
    """runc-ps(8): "ps-option: any options for the ps(1) utility"; it needs its PID column."""
    heading, line = oci("ps", box.id, "-o", "pid,comm").ok().out.splitlines()
    assert heading.split()[:1] == ["PID"] and line.split() == [str(box.pid), "probe"]
    oci("ps", box.id, "-o", "comm").fails("pid")
    oci("ps", "--format", "nonsense", box.id).fails("format")
    short = json.loads(oci("ps", "-f", "json", box.id).ok().out)
    assert short == [box.pid]


def test_ps_of_an_unknown_container_is_an_error(oci: Runtime) -> None:
    """ "Attempting to query a container that does not exist MUST generate an error." """
    oci("ps", "nobody").fails("does not exist")


def test_spec_writes_a_configuration(oci: Runtime, directory: Path) -> None:
    """runc-spec(8): "creates the new specification file named config.json in the bundle"; never over an old one."""
    oci("spec", "--bundle", directory).ok()
    config = json.loads((directory / "config.json").read_text())
    assert config["ociVersion"].startswith("1.")
    assert config["root"]["path"] == "rootfs"
    assert config["process"]["args"] == ["sh"]
    assert {entry["type"] for entry in config["linux"]["namespaces"]} >= {"pid", "network", "ipc", "uts", "mount"}
    oci("spec", "--bundle", directory).fails("exist")


def test_specs_configuration_runs(oci: Runtime, bundle: Bundle) -> None:
    """runc-spec(8): "The spec generated is just a starter file": with a program that exists it works as it is."""
    oci("spec", cwd=bundle.path).ok()
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.process.update(terminal=False)
    for limit in bundle.process.get("rlimits", []):
        limit.update(soft=min(limit["soft"], 1024), hard=min(limit["hard"], 1024))
    answers = oci.ask(bundle, "id", "nnp", "pids")
    assert answers.table("id")["uid"] == "0 0 0"
    assert answers.one("nnp") == "1"


def test_spec_for_ordinary_users(oci: Runtime, directory: Path) -> None:
    """runc-spec(8): "--rootless: generate a configuration for a rootless container" """
    oci("spec", "--rootless", "--bundle", directory).ok()
    config = json.loads((directory / "config.json").read_text())
    assert "user" in {entry["type"] for entry in config["linux"]["namespaces"]}
    assert "network" not in {entry["type"] for entry in config["linux"]["namespaces"]}
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert not [option for entry in config["mounts"] for option in entry.get("options", []) if "gid=" in option]


def test_features(oci: Runtime) -> None:
    """features.md: "ociVersionMin (string, REQUIRED) The minimum recognized version of the OCI Runtime
    Specification. ... hooks, mountOptions, linux.namespaces, linux.capabilities, linux.cgroup" """
    features = json.loads(oci("features").ok().out)
    assert features["ociVersionMin"] == "1.0.0"
    assert features["ociVersionMax"].startswith("1.")
    assert set(features["hooks"]) >= {
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    }
    assert {"bind", "rbind", "ro", "rw", "nosuid", "noexec", "rprivate", "rro"} <= set(features["mountOptions"])
    linux = features["linux"]
    assert {"pid", "network", "mount", "ipc", "uts", "user", "cgroup"} <= set(linux["namespaces"])
    assert "CAP_KILL" in linux["capabilities"]
    assert linux["cgroup"].keys() >= {"v1", "v2"}


def test_version(oci: Runtime) -> None:
    """dockerd reads "NAME version V", "commit: C" and "spec: S" from --version."""
    lines = oci("--version").ok().out.splitlines()
    assert re.match(r"\S+ version \d+\.\d+", lines[0])
    assert [line.split(":")[0] for line in lines[1:3]] == ["commit", "spec"]
    assert re.match(r"spec: \d+\.\d+\.\d+", lines[2])


def test_errors_go_to_the_log(oci: Runtime, directory: Path) -> None:
    """containerd reads the last line of --log with --log-format json: an object with level and msg."""
    log = directory / "log.json"
    oci("--log", log, "--log-format", "json", "start", "nobody").fails("does not exist")
    entry = json.loads(log.read_text().splitlines()[-1])
    assert entry["level"] == "error" and "does not exist" in entry["msg"]


def test_an_unknown_command_or_flag_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """A typing error must never be taken for something else."""
    bundle.save()
    for words in (
        ["--nonsense", "list"],
        ["create", "--nonsense", "--bundle", bundle.path, "x"],
        ["state", "--nonsense", "x"],
    ):
        result = oci(*words)
        assert result.code != 0, str(result)
    assert oci.list() == []


def test_the_state_root_is_private(oci: Runtime, box: Container) -> None:
    """What lies there can be used to control containers: nobody else may look."""
    assert (oci.root / box.id).stat().st_mode & 0o077 & ~0o011 == 0 or oci.root.stat().st_mode & 0o077 & ~0o011 == 0


@pytest.mark.parametrize("text", ["", "{", "null"])
def test_a_damaged_state_hides_no_container(oci: Runtime, box: Container, text: str) -> None:
    """A container whose state cannot be read is still known, and removed by force together with its processes."""
    pid = box.pid
    for path in (oci.root / box.id).rglob("*.json"):
        path.write_text(text)
    oci("delete", "--force", box.id).ok()
    oci("state", box.id).fails("does not exist")
    process = processes.read(pid)
    assert not process or not process.alive


def test_pause_and_resume(oci: Runtime, box: Container) -> None:
    """runc(8): "The pause command suspends all processes in the instance of the container." A paused one takes no
    other process, and is removed all the same."""
    oci("pause", box.id).ok()
    assert box.status == "paused"
    assert "frozen 1" in frozen_of(box.pid)
    oci("exec", box.id, "/bin/probe", "true").fails("paused")
    oci("resume", box.id).ok()
    assert box.status == "running"
    assert "frozen 1" not in frozen_of(box.pid)
    oci("exec", box.id, "/bin/probe", "true").ok()


def frozen_of(pid: int) -> str:
    """What the freezer, of v2 or v1, says of a process: "frozen 1" when it is."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer" and "FROZEN" in Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").read_text():
            return "frozen 1"
        for mount in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
            file = Path(f"{mount}{path}/cgroup.events")
            if not controllers and file.exists() and "frozen 1" in file.read_text():
                return "frozen 1"
    return "frozen 0"


def test_pausing_and_resuming_what_cannot(oci: Runtime, bundle: Bundle, box: Container) -> None:
    oci("resume", box.id).fails("not paused")
    oci("pause", "wrn-no-such").fails("does not exist")
    oci("resume", "wrn-no-such").fails("does not exist")
    box.kill("KILL")
    box.wait("stopped")
    oci("pause", box.id).fails("not running")


def test_a_paused_container_can_be_removed(oci: Runtime, box: Container) -> None:
    oci("pause", box.id).ok()
    box.delete("--force").ok()
    oci("state", box.id).fails("does not exist")


@pytest.mark.parametrize("value", ["true", "false", "auto"])
def test_rootless_is_told(oci: Runtime, bundle: Bundle, value: str) -> None:
    """runc(8): "--rootless true|false|auto: Enable or disable rootless mode. Default is auto"."""
    bundle.linux.pop("resources")
    container = oci._new(bundle.asks("id"))
    result = oci("--rootless", value, "run", "--bundle", bundle.path, container.id).ok()
    assert "uid 0 0 0" in result.out
    assert oci(f"--rootless={value}", "list").ok().out


def test_rootless_is_one_of_three_words(oci: Runtime) -> None:
    oci("--rootless", "perhaps", "list").fails("rootless")


def test_run_can_keep_the_container(oci: Runtime, bundle: Bundle) -> None:
    """runc-run(8): "--keep: Keep container's state directory and cgroup. This can be helpful if a user wants to check
    the state." """
    container = oci._new(bundle.asks("exit 7"))
    assert oci("run", "--keep", "--bundle", bundle.path, container.id).code == 7
    assert container.status == "stopped"
    container.delete().ok()
    oci("state", container.id).fails("does not exist")


def test_a_detached_run_is_kept_anyway(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """runc-run(8): "-d: Detach from the container's process": then nobody waits to delete it."""
    container = oci._new(bundle)
    oci("run", "--detach", "--keep", "--pid-file", directory / "pid", "--bundle", bundle.path, container.id).ok()
    assert (container.status, container.pid) == ("running", int((directory / "pid").read_text()))
    container.kill("KILL").ok()
    container.wait().delete().ok()
