"""The six kinds of hooks: config.md, "POSIX-platform Hooks", and runtime.md, "Lifecycle"."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.oci import Bundle, Runtime

IN_RUNTIME_NAMESPACE = ["prestart", "createRuntime", "poststart", "poststop"]
ON_CREATE = ["prestart", "createRuntime", "createContainer"]
KINDS = [*ON_CREATE, "startContainer", "poststart", "poststop"]


class Recorder:
    """Hooks that note their turn in one log and keep the state that they are given."""

    def __init__(self, bundle: Bundle, directory: Path) -> None:
        self.directory = directory / "record"
        self.directory.mkdir()
        self.directory.chmod(0o777)
        self.hooks: dict[str, list[dict[str, Any]]] = bundle.config.setdefault("hooks", {})
        bundle.mount("/data", "bind", self.directory, "rbind", "rw")

    def record(self, kind: str, then: str = "") -> "Recorder":
        """Add a hook of this kind that records, and then does something (in sh, not for startContainer)."""
        if kind == "startContainer":
            probe = ["/bin/probe", "append", "/data/log", kind, "--", "save", f"/data/{kind}.json"]
            return self.add(kind, *probe, *(["--", "exit", "1"] if then else []))
        here = self.directory
        return self.add(kind, "/bin/sh", "-c", f"echo {kind} >>{here}/log; cat >{here}/{kind}.json; {then}")

    def add(self, kind: str, *command: str, **more: Any) -> "Recorder":
        self.hooks.setdefault(kind, []).append({"path": command[0], "args": list(command), **more})
        return self

    @property
    def log(self) -> list[str]:
        path = self.directory / "log"
        return path.read_text().split() if path.exists() else []

    def state(self, kind: str) -> dict[str, Any]:
        return json.loads((self.directory / f"{kind}.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def recorder(bundle: Bundle, directory: Path) -> Recorder:
    return Recorder(bundle, directory)


@pytest.fixture
def all_hooks(recorder: Recorder) -> Recorder:
    for kind in KINDS:
        recorder.record(kind)
    return recorder


def test_hooks_run_in_the_order_of_the_lifecycle(oci: Runtime, bundle: Bundle, all_hooks: Recorder) -> None:
    """ "The prestart hooks MUST be invoked by the runtime. ... The createRuntime hooks ... The createContainer
    hooks ... start ... The startContainer hooks ... the user-specified program ... The poststart hooks ... delete
    ... The poststop hooks MUST be invoked by the runtime." """
    container = oci.create(bundle.asks("append /data/log program"))
    # When poststart hooks run has a test of its own.
    assert [line for line in all_hooks.log if line != "poststart"] == ON_CREATE
    container.start().ok()
    container.wait().delete().ok()
    assert [line for line in all_hooks.log if line != "poststart"] == [
        *ON_CREATE,
        "startContainer",
        "program",
        "poststop",
    ]
    assert sorted(all_hooks.log) == sorted([*KINDS, "program"])


@pytest.mark.parametrize("command", ["run", "delete --force"])
def test_shorter_ways_run_every_hook_too(oci: Runtime, bundle: Bundle, all_hooks: Recorder, command: str) -> None:
    """ "Hooks allow users to specify programs to run before or after various lifecycle events." """
    if command == "run":
        oci.run(bundle.asks("true")).ok()
    else:
        oci.up(bundle).delete("--force").ok()
    assert sorted(all_hooks.log) == sorted(KINDS)


def test_hooks_are_given_the_state(oci: Runtime, bundle: Bundle, all_hooks: Recorder) -> None:
    """ "The state of the container MUST be passed to hooks over stdin so that they may do work appropriate to the
    current state of the container." "pid: For hooks executed in the runtime namespace, it is the pid as seen by the
    runtime. For hooks executed in the container namespace, it is the pid as seen by the container." """
    bundle.config["annotations"] = {"com.example.key": "value"}
    container = oci.up(bundle)
    pid = container.pid
    container.delete("--force").ok()
    for kind in KINDS:
        state = all_hooks.state(kind)
        assert state["id"] == container.id, kind
        assert state["ociVersion"].startswith("1."), kind
        assert Path(state["bundle"]) == bundle.path, kind
        assert state["annotations"]["com.example.key"] == "value", kind
    assert {kind: all_hooks.state(kind)["pid"] for kind in KINDS[:5]} == {
        "prestart": pid,
        "createRuntime": pid,
        "createContainer": 1,
        "startContainer": 1,
        "poststart": pid,
    }


def test_hooks_are_told_the_right_status(oci: Runtime, bundle: Bundle, all_hooks: Recorder) -> None:
    """ "creating: the container is being created (step 2 in the lifecycle); created ...; running ...; stopped ..." """
    oci.up(bundle).delete("--force").ok()
    assert {kind: all_hooks.state(kind)["status"] for kind in KINDS if kind != "poststart"} == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststop": "stopped",
    }


def test_poststart_hooks_follow_the_start(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "The poststart hooks MUST be called after the user-specified process is executed but before the start operation
    returns." """
    recorder.record("poststart")
    container = oci.create(bundle)
    assert recorder.log == []
    container.start().ok()
    assert recorder.log == ["poststart"]
    assert recorder.state("poststart")["status"] == "running"


def test_hooks_of_one_kind_run_as_listed(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "Hooks MUST be called in the listed order." """
    for number in range(4):
        recorder.add("createRuntime", "/bin/sh", "-c", f"echo {number} >>{recorder.directory}/log")
    oci.create(bundle)
    assert recorder.log == ["0", "1", "2", "3"]


def test_hooks_run_in_their_namespaces(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "The createRuntime hooks' path MUST resolve in the runtime namespace [and] MUST be executed in the runtime
    namespace. The createContainer hooks' path MUST resolve in the runtime namespace [and] MUST be executed in the
    container namespace. The startContainer hooks' path MUST resolve in the container namespace [and] MUST be
    executed in the container namespace." """
    kinds = ("mnt", "net", "uts", "ipc", "pid")
    for kind in (*IN_RUNTIME_NAMESPACE, "createContainer"):
        recorder.add(
            kind,
            "/bin/sh",
            "-c",
            " ".join(f"readlink /proc/self/ns/{name} >>{recorder.directory}/{kind};" for name in kinds),
        )
    recorder.add("startContainer", "/bin/probe", "write", "/data/startContainer", "seen")
    container = oci.up(bundle)
    inside = [os.readlink(f"/proc/{container.pid}/ns/{name}") for name in kinds]
    container.delete("--force").ok()
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in kinds]
    for kind in IN_RUNTIME_NAMESPACE:
        assert (recorder.directory / kind).read_text().split() == outside, kind
    assert (recorder.directory / "createContainer").read_text().split() == inside
    assert (recorder.directory / "startContainer").read_text() == "seen"


def test_hooks_before_create_container_see_no_pivot(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "The createContainer hooks MUST be called as part of the create operation after the runtime environment has
    been created ... but before the pivot_root or any equivalent operation has been executed": the container's
    mounts are there."""
    recorder.add(
        "createContainer",
        "/bin/sh",
        "-c",
        f"grep -c ' {bundle.rootfs}/proc ' /proc/self/mountinfo >{recorder.directory}/mounts",
    )
    oci.create(bundle)
    assert (recorder.directory / "mounts").read_text().strip() == "1"


def test_args_and_env_are_exactly_those_given(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "args (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008 execv's argv. env (array of
    strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's environ." """
    out = recorder.directory / "out"
    recorder.hooks["createRuntime"] = [
        {
            "path": "/bin/sh",
            "args": [
                "other name",
                "-c",
                f'echo "$0" "$1" >{out}; tr "\\0" "\\n" </proc/self/environ >>{out}',
                "zero",
                "one two",
            ],
            "env": ["KEY=value", "EMPTY="],
        }
    ]
    oci.create(bundle)
    lines = out.read_text().splitlines()
    assert lines[0] == "zero one two"
    assert {line for line in lines[1:] if line} == {"KEY=value", "EMPTY="}


def test_hooks_inherit_no_descriptors(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """A hook is given the state on standard input; a descriptor of the runtime's would be a way into its inside."""
    recorder.add("createRuntime", "/bin/sh", "-c", f"exec {bundle.rootfs}/bin/probe fds >{recorder.directory}/fds")
    oci.create(bundle)
    fds = [line.split()[0] for line in (recorder.directory / "fds").read_text().splitlines()]
    assert fds == ["0", "1", "2"]


@pytest.mark.parametrize("kind", ON_CREATE)
def test_a_failing_hook_ends_the_creation(oci: Runtime, bundle: Bundle, recorder: Recorder, kind: str) -> None:
    """ "If any prestart [createRuntime, createContainer] hook fails, the runtime MUST generate an error, stop the
    container, and continue the lifecycle at step 12": it is destroyed."""
    recorder.record(kind, then="exit 3").add(kind, "/bin/sh", "-c", f"echo second >>{recorder.directory}/log")
    oci.refuses(bundle, "hook")
    assert recorder.log == [kind]
    assert oci.list() == []


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_poststop_hooks_follow_a_failed_creation(oci: Runtime, bundle: Bundle, recorder: Recorder, kind: str) -> None:
    """ "continue the lifecycle at step 12. ... 13. The poststop hooks MUST be invoked by the runtime." """
    recorder.record(kind, then="exit 3").record("poststop")
    oci.refuses(bundle, "hook")
    assert recorder.log == [kind, "poststop"]


def test_a_failing_start_container_hook_ends_the_container(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "If any startContainer hook fails, the runtime MUST generate an error, stop the container, and continue the
    lifecycle at step 12." """
    recorder.record("startContainer", then="exit")
    container = oci.create(bundle.asks("append /data/log program"))
    container.start().fails()
    time.sleep(0.1)
    assert recorder.log == ["startContainer"]
    state = oci("state", container.id)
    assert state.code or json.loads(state.out)["status"] == "stopped"


def test_a_failing_poststart_hook_ends_the_container(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "If any poststart hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle
    at step 12": since 1.2.1; before, a warning was enough."""
    recorder.record("poststart", then="exit 3").record("poststart")
    container = oci.create(bundle)
    container.start().fails("hook")
    assert recorder.log == ["poststart"]
    state = oci("state", container.id)
    assert state.code or json.loads(state.out)["status"] == "stopped"


@pytest.mark.parametrize("flags", [[], ["--detach"]], ids=["foreground", "detached"])
def test_a_failing_poststart_hook_ends_run(oci: Runtime, bundle: Bundle, recorder: Recorder, flags: list[str]) -> None:
    """The same in one command: "The poststop hooks MUST be invoked by the runtime", and nothing is left."""
    recorder.record("poststart", then="exit 3").record("poststop")
    result = oci.run(bundle, *flags).fails("hook")
    assert recorder.log == ["poststart", "poststop"], str(result)
    assert oci.list() == []


def test_a_failing_poststop_hook_is_a_warning(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue
    as if the hook had succeeded." """
    recorder.record("poststop", then="exit 3").add("poststop", "/bin/sh", "-c", f"echo next >>{recorder.directory}/log")
    container = oci.up(bundle.asks("true")).wait()
    assert "hook" in container.delete().ok().err
    assert recorder.log == ["poststop", "next"]
    oci("state", container.id).fails("does not exist")


def test_a_hook_that_takes_too_long_has_failed(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "timeout (int, OPTIONAL) is the number of seconds before aborting the hook." """
    recorder.add("createRuntime", "/bin/sleep", "60", timeout=1)
    before = time.monotonic()
    oci.refuses(bundle, "hook")
    assert time.monotonic() - before < 10


def test_a_missing_hook_has_failed(oci: Runtime, bundle: Bundle, recorder: Recorder) -> None:
    """ "If any createRuntime hook fails, the runtime MUST generate an error" """
    recorder.add("createRuntime", "/no/such/hook")
    oci.refuses(bundle, "hook")


@pytest.mark.parametrize(
    "hook",
    [
        {"path": "bin/true"},
        {"path": "/bin/sleep", "args": ["sleep", "2"], "timeout": 0},
        {"path": "/bin/sleep", "args": ["sleep", "2"], "timeout": -1},
        {"args": ["/bin/true"]},
    ],
    ids=["relative", "zero", "negative", "pathless"],
)
def test_malformed_hooks_are_errors(oci: Runtime, bundle: Bundle, hook: dict[str, Any]) -> None:
    """ "path (string, REQUIRED) ... This specification extends the IEEE standard in that path MUST be absolute. ...
    If set, timeout MUST be greater than zero." """
    bundle.config["hooks"] = {"createRuntime": [hook]}
    oci.refuses(bundle)
