"""create, start, state, kill, delete: runtime.md, "Lifecycle" and "Operations"."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.oci import Bundle, Container, Runtime
from tests.helpers.processes import Subreaper

MakeBundle = Callable[[], Bundle]


@pytest.fixture
def created(oci: Runtime, bundle: Bundle) -> Container:
    return oci.create(bundle)


def test_create_does_not_run_the_program(oci: Runtime, bundle: Bundle) -> None:
    """ "the user-specified program (from process) MUST NOT be run at this time." """
    container = oci.create(bundle.asks("echo here"))
    time.sleep(0.2)
    assert (container.status, container.output) == ("created", "")
    container.start().ok()
    container.expect("here")


def test_state_has_the_required_properties(oci: Runtime, bundle: Bundle) -> None:
    """ "The state of a container includes the following properties: ociVersion, id, status, pid, bundle,
    annotations." """
    bundle.config["annotations"] = {"com.example.key": "value", "com.example.empty": ""}
    container = oci.create(bundle)
    state = container.state()
    assert state["id"] == container.id
    assert state["status"] == "created"
    assert state["ociVersion"].startswith("1.")
    assert processes.read(state["pid"])
    assert Path(state["bundle"]) == bundle.path
    assert state["annotations"].items() >= bundle.config["annotations"].items()


def test_status_follows_the_lifecycle(created: Container) -> None:
    """ "created: the runtime has finished the create operation; running: the container process has executed the
    user-specified program but has not exited; stopped: the container process has exited." """
    seen = [created.status]
    created.start().ok()
    seen.append(created.status)
    created.kill("KILL").ok()
    created.wait("stopped")
    assert seen == ["created", "running"]
    created.delete().ok()


def test_the_pid_is_the_containers_process(box: Container) -> None:
    """ "pid: is the ID of the container process. For hooks executed in the runtime namespace, it is the pid as seen
    by the runtime." """
    assert Path(f"/proc/{box.pid}/cmdline").read_bytes().startswith(b"/bin/probe\0sleep\0")


def test_a_stopped_container_has_no_pid(oci: Runtime, bundle: Bundle) -> None:
    """ "pid (int, REQUIRED when status is created or running on Linux, OPTIONAL on other platforms)" """
    container = oci.up(bundle.asks("true")).wait()
    assert container.state().get("pid", 0) == 0


def test_state_of_an_unknown_container_is_an_error(oci: Runtime) -> None:
    """ "Attempting to query a container that does not exist MUST generate an error." """
    oci("state", "nobody").fails("does not exist")
    oci("state").fails()


def test_create_needs_a_bundle(oci: Runtime, directory: Path) -> None:
    """ "This operation MUST generate an error if it is not provided a path to the bundle and the container ID to
    associate with the container." """
    oci("create", "--bundle", directory, "x").fails()
    oci("create").fails()
    assert oci.list() == []


def test_an_id_is_unique(oci: Runtime, created: Container, new_bundle: MakeBundle) -> None:
    """ "If the ID provided is not unique across all containers within the scope of the runtime, or is not valid in any
    other way, the implementation MUST generate an error and a new container MUST NOT be created." """
    before = created.state()
    oci("create", "--bundle", new_bundle().save().path, created.id).fails("exist")
    assert created.state() == before


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "../x", "/x", "a b", "a\nb", "ä", "x" * 1100, "a*", "a;b"])
def test_ids_are_validated(oci: Runtime, bundle: Bundle, id: str) -> None:
    """ "or is not valid in any other way, the implementation MUST generate an error" """
    bundle.save()
    oci("create", "--bundle", bundle.path, id).fails()
    assert oci.list() == []
    assert not (oci.root / ".." / "x").exists()


@pytest.mark.parametrize("id", ["a", "A-b_c.d+e", "0", "x" * 60])
def test_usual_ids_are_accepted(oci: Runtime, bundle: Bundle, id: str) -> None:
    """ "id: is the container's ID. This MUST be unique across all containers on this host." """
    bundle.linux["cgroupsPath"] = f"/{oci.new_id()}"
    bundle.asks("true").save()
    oci("run", "--bundle", bundle.path, id).ok()


def test_the_bundle_defaults_to_the_working_directory(oci: Runtime, bundle: Bundle) -> None:
    """runc(8): "-b: path to the root of the bundle directory, defaults to the current directory" """
    bundle.asks("echo here").save()
    assert "here" in oci("run", oci.new_id(), cwd=bundle.path).ok().out


def test_the_configuration_is_read_once(created: Container) -> None:
    """ "Any changes made to the config.json file after this operation will not have an effect on the container." """
    created.bundle.asks("echo changed").save()
    created.start().ok()
    assert created.status == "running"
    assert "changed" not in created.output


def test_start_of_an_unknown_container_is_an_error(oci: Runtime) -> None:
    """ "Attempting to start a container that does not exist MUST generate an error." """
    oci("start", "nobody").fails("does not exist")
    oci("start").fails()


def test_start_twice_is_an_error(box: Container) -> None:
    """ "Attempting to start a container that is not created MUST have no effect on the container and MUST generate an
    error." """
    pid = box.pid
    box.start().fails()
    assert (box.status, box.pid) == ("running", pid)


def test_start_of_a_stopped_container_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "Attempting to start a container that is not created MUST have no effect on the container" """
    container = oci.up(bundle.asks("true")).wait()
    container.start().fails()
    assert container.status == "stopped"


@pytest.mark.parametrize("name", ["SIGUSR1", "USR1", str(int(signal.SIGUSR1)), "usr1"])
def test_kill_sends_the_signal(oci: Runtime, bundle: Bundle, name: str) -> None:
    """ "This operation MUST send the specified signal to the container process." """
    container = oci.up(bundle.asks(f"trap {int(signal.SIGUSR1)}"))
    container.expect("ready")
    container.kill(name).ok()
    container.expect(f"signal {int(signal.SIGUSR1)}")


def test_kill_sends_sigterm_by_default(oci: Runtime, bundle: Bundle) -> None:
    """runc(8), kill: "By default, SIGTERM" """
    container = oci.up(bundle.asks("trap"))
    container.expect("ready")
    oci("kill", container.id).ok()
    container.expect("signal 15")
    container.wait("stopped")


@pytest.mark.parametrize("name", ["SIGNOTHING", "999", "-1", "KILL "])
def test_kill_refuses_what_is_no_signal(box: Container, name: str) -> None:
    """ "Attempting to send a signal to a container that is neither created nor running MUST have no effect" and so has
    a signal that does not exist."""
    box.runtime("kill", "--", box.id, name).fails()
    assert box.status == "running"


def test_kill_works_on_a_created_container(created: Container) -> None:
    """ "Attempting to send a signal to a container that is neither created nor running MUST have no effect on the
    container and MUST generate an error": so it works on a created one."""
    created.kill("KILL").ok()
    created.wait("stopped")
    created.start().fails()
    created.delete().ok()


def test_kill_of_a_stopped_container_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "Attempting to send a signal to a container that is neither created nor running MUST have no effect on the
    container and MUST generate an error." containerd knows it by the words."""
    container = oci.up(bundle.asks("true")).wait()
    container.kill("TERM").fails("not running")
    oci("kill", "nobody", "TERM").fails("does not exist")


def test_kill_all_reaches_every_process(oci: Runtime, bundle: Bundle) -> None:
    """runc(8), kill: "-a: Send the signal to all processes inside the container" (here the host's pid namespace is
    shared, so that the end of process 1 does not end the rest)."""
    container = oci.up(bundle.shares("pid").asks("fork 60", "echo forked", "sleep 60"))
    child = int(container.expect("forked").splitlines()[1])
    container.kill("KILL", "--all").ok()
    container.wait("stopped")
    assert gone(child)


def test_delete_of_a_running_container_is_an_error(box: Container) -> None:
    """ "Attempting to delete a container that is not stopped MUST have no effect on the container and MUST generate an
    error." """
    box.delete().fails()
    assert box.status == "running"


def test_delete_of_an_unknown_container_is_an_error(oci: Runtime) -> None:
    """ "Attempting to delete a container that does not exist MUST generate an error." """
    oci("delete", "nobody").fails("does not exist")
    oci("delete").fails()


def test_delete_force_of_an_unknown_container_is_none(oci: Runtime) -> None:
    """runc(8), delete: "-f: Forcibly deletes the container if it is still running"; engines call it blindly."""
    oci("delete", "--force", "nobody").ok()


@pytest.mark.parametrize("started", [False, True])
def test_delete_force_kills_first(oci: Runtime, created: Container, started: bool) -> None:
    """runc(8), delete: "-f: Forcibly deletes the container if it is still running (uses SIGKILL)" """
    if started:
        created.start().ok()
    pid = created.pid
    created.delete("--force").ok()
    oci("state", created.id).fails("does not exist")
    assert gone(pid)


def test_deleted_ids_can_be_used_again(created: Container, oci: Runtime) -> None:
    """ "Once a container is deleted its ID MAY be used by a subsequent container." """
    created.delete("--force").ok()
    oci("create", "--bundle", created.bundle.path, created.id).ok()
    assert created.status == "created"


def test_delete_leaves_what_it_did_not_make(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """ "Note that resources associated with the container, but not created by this container, MUST NOT be deleted." """
    (directory / "volume").mkdir()
    (directory / "volume/kept").write_text("kept")
    container = oci.up(bundle.mount("/data", "bind", directory / "volume", "rbind").asks("write /data/new text"))
    container.wait().delete().ok()
    assert (directory / "volume/kept").read_text() == "kept"
    assert (directory / "volume/new").read_text() == "text"
    assert (bundle.rootfs / "bin/probe").exists() and (bundle.path / "config.json").exists()


@pytest.mark.parametrize(
    "fault",
    [
        {"process": {"args": ["/bin/nothing"]}},
        {"process": {"cwd": "/bin/probe"}},
        {"mounts": [{"destination": "/data", "type": "bind", "source": "/no/such/source", "options": ["bind"]}]},
        {"mounts": [{"destination": "/data", "type": "nofs", "source": "none"}]},
        {"root": {"path": "missing"}},
        {"process": {"args": []}},
        {"linux": {"namespaces": [{"type": "network", "path": "/no/such/namespace"}]}},
        {"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "warp"}]}},
    ],
    ids=["program", "cwd", "source", "type", "root", "args", "path", "namespace"],
)
def test_a_failed_create_leaves_nothing(oci: Runtime, bundle: Bundle, fault: dict[str, dict[str, object]]) -> None:
    """ "Unless otherwise stated, generating an error MUST leave the state of the environment as if the operation were
    never attempted - modulo any possible trivial ancillary changes such as logging." """
    for section, change in fault.items():
        if isinstance(change, list):
            bundle.config[section] += change
        else:
            bundle.config[section].update(change)
    oci.refuses(bundle)
    assert oci.list() == []
    assert not oci.root.exists() or os.listdir(oci.root) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"ociVersion":"1.0.2"}', '{"ociVersion":"1.0.2"} x', "\0", '{"ociVersion": 1}']
)
def test_a_malformed_configuration_is_an_error(oci: Runtime, bundle: Bundle, text: str) -> None:
    """ "If the runtime is unable to create the environment specified in the config.json, it MUST generate an
    error." """
    (bundle.path / "config.json").write_text(text)
    oci("create", "--bundle", bundle.path, "x").fails()
    assert oci.list() == []


def test_unknown_properties_are_ignored(oci: Runtime, bundle: Bundle) -> None:
    """ "Runtimes MAY log unknown properties but MUST otherwise ignore them. That includes not generating errors if they
    encounter an unknown property." """
    for section in (bundle.config, bundle.process, bundle.linux, bundle.config["root"], bundle.config["mounts"][0]):
        section["com.example.unknown"] = {"a": [1, None]}
    assert oci.ask(bundle, "echo here").one("echo here") == "here"


def test_another_version_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "ociVersion MUST be in SemVer v2.0.0 format and specifies the version of the Open Container Initiative Runtime
    Specification with which the bundle complies." """
    bundle.config["ociVersion"] = "not-a-version"
    oci.refuses(bundle)


def test_init_is_a_child_of_the_callers_subreaper(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """runtime.md knows no parents, engines do: conmon and containerd's shim wait for the process of --pid-file."""
    bundle.asks("exit 7").save()
    container = oci._new(bundle)
    pid_file = directory / "pid"
    shim = Subreaper(
        [
            oci.program,
            "--root",
            str(oci.root),
            "create",
            "--bundle",
            str(bundle.path),
            "--pid-file",
            str(pid_file),
            container.id,
        ],
        directory / "shim.out",
    )
    try:
        assert shim.code == 0, shim.output.read_text()
        pid = int(pid_file.read_text())
        assert pid == container.pid
        assert pid in shim.children
        container.start().ok()
        assert shim.collect()[pid] == 7
        assert container.status == "stopped"
    finally:
        shim.close()


def test_create_leaves_no_other_process(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """A container costs its own process: whatever helped to create it has ended when create returns."""
    bundle.save()
    container = oci._new(bundle)
    shim = Subreaper(
        [oci.program, "--root", str(oci.root), "create", "--bundle", str(bundle.path), container.id],
        directory / "shim.out",
    )
    try:
        alive = [pid for pid in shim.children if (process := processes.read(pid)) and process.alive]
        assert alive == [container.pid]
        container.delete("--force").ok()
    finally:
        shim.close()


def test_states_json_is_one_object(box: Container) -> None:
    """ "The state operation ... MUST return the state of a container as specified in the State section", as JSON."""
    text = box.runtime("state", box.id).ok().out
    assert isinstance(json.loads(text), dict) and text.endswith("\n") | text.endswith("}")


def gone(pid: int) -> bool:
    """Dead, waited for or not, within a second."""
    for _ in range(50):
        process = processes.read(pid)
        if not process or not process.alive:
            return True
        time.sleep(0.02)
    return False
