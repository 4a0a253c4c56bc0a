"""The words that engines look for in errors, and that the last error in the log is the runtime's own.

podman: "permission denied" and "operation not permitted" are exit code 126, "executable file not found in" and "no such
file or directory" 127; containerd: "does not exist", "container not running", "process already finished", "no such
process"; both read the last error of --log, as JSON.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.oci import Bundle, Container, Result, Runtime

NOT_FOUND = ("executable file not found in", "no such file or directory")
NOT_ALLOWED = ("permission denied", "operation not permitted")

Fault = Callable[[Runtime, Bundle, Path], Result]


def program(*args: str) -> Fault:
    def fault(oci: Runtime, bundle: Bundle, directory: Path) -> Result:
        bundle.process["args"] = list(args)
        return oci("--log", directory / "log", "--log-format=json", "run", "--bundle", bundle.save().path, oci.new_id())

    return fault


def config(change: Callable[[Bundle, Path], Any], command: str = "create") -> Fault:
    def fault(oci: Runtime, bundle: Bundle, directory: Path) -> Result:
        change(bundle, directory)
        oci._new(bundle)
        id = oci.containers[-1].id
        return oci("--log", directory / "log", "--log-format=json", command, "--bundle", bundle.path, id)

    return fault


def verb(*words: str, status: str = "stopped") -> Fault:
    """A command on a container in this state; "ID" stands for its name."""

    def fault(oci: Runtime, bundle: Bundle, directory: Path) -> Result:
        container: Container | None = None
        if status:
            container = oci.create(bundle.asks("true") if status == "stopped" else bundle)
        if container and status != "created":
            container.start().ok()
        if container and status == "stopped":
            container.wait()
        if container and status == "paused":
            oci("pause", container.id).ok()
        id = container.id if container else "wrn-nobody"
        spoken = [word.replace("ID", id).replace("BUNDLE", str(bundle.path)) for word in words]
        return oci("--log", directory / "log", "--log-format=json", *spoken)

    return fault


def call(*words: str) -> Fault:
    return lambda oci, bundle, directory: oci(*(word.replace("LOG", str(directory / "log")) for word in words))


def mount(bundle: Bundle, source: str) -> Any:
    return bundle.mount("/data", "bind", source, "rbind")


FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    # The container's own command: podman makes 127 and 126 of these.
    "no such program": (program("nosuchprogram"), ("executable file not found in $path",)),
    "no such path": (program("/bin/nosuch"), ("no such file or directory",)),
    "not executable": (program("/etc/passwd"), ("permission denied",)),
    "a directory": (program("/etc"), NOT_ALLOWED[:1]),
    "exec: no such program": (verb("exec", "ID", "nosuch", status="running"), ("executable file not found in $path",)),
    "exec: no working directory": (
        verb("exec", "--cwd", "/nosuch", "ID", "x", status="running"),
        ("no such file or directory",),
    ),
    "exec: not executable": (verb("exec", "ID", "/etc/passwd", status="running"), ("permission denied",)),
    # Whatever else is missing must never read like a missing command.
    "no bundle": (call("--log", "LOG", "--log-format", "json", "create", "--bundle", "/nosuch", "wrn-x"), ()),
    "no config.json": (verb("create", "--bundle", "BUNDLE/rootfs", "ID", status=""), ()),
    "no rootfs": (config(lambda b, d: b.config["root"].update(path="nosuch")), ()),
    "no source": (config(lambda b, d: mount(b, "/nosuch")), ()),
    "no working directory": (config(lambda b, d: b.process.update(cwd="/bin/probe/x")), ()),
    "no namespace": (config(lambda b, d: b.unshares("network", "/nosuch/ns")), ()),
    "no hook": (config(lambda b, d: b.config.update(hooks={"createRuntime": [{"path": "/nosuch"}]})), ("hook",)),
    "a hook's own words": (
        config(lambda b, d: b.config.update(hooks={"prestart": [{"path": "/bin/cat", "args": ["cat", "/nosuch"]}]})),
        ("hook",),
    ),
    "no console": (verb("exec", "-t", "-d", "--console-socket", "/nosuch", "ID", "x", status="running"), ("socket",)),
    "no process file": (verb("exec", "--process", "/nosuch.json", "ID", status="running"), ()),
    "no sysctl": (config(lambda b, d: b.linux.update(sysctl={"net.ipv4.nosuch": "1"})), ("sysctl",)),
    # containerd makes "not found" and "failed precondition" of these.
    "state of nobody": (verb("state", "ID", status=""), ("does not exist",)),
    "start of nobody": (verb("start", "ID", status=""), ("does not exist",)),
    "kill of nobody": (verb("kill", "ID", "KILL", status=""), ("does not exist",)),
    "delete of nobody": (verb("delete", "ID", status=""), ("does not exist",)),
    "exec in nobody": (verb("exec", "ID", "x", status=""), ("does not exist",)),
    "pause of nobody": (verb("pause", "ID", status=""), ("does not exist",)),
    "ps of nobody": (verb("ps", "ID", status=""), ("does not exist",)),
    "kill of a stopped one": (verb("kill", "ID", "TERM"), ("container not running",)),
    "start of a stopped one": (verb("start", "ID"), ("stopped",)),
    "exec in a stopped one": (verb("exec", "ID", "x"), ("stopped",)),
    "pause of a stopped one": (verb("pause", "ID"), ("not running",)),
    "start of a running one": (verb("start", "ID", status="running"), ("running",)),
    "delete of a running one": (verb("delete", "ID", status="running"), ("not stopped",)),
    "resume of a running one": (verb("resume", "ID", status="running"), ("not paused",)),
    "exec in a paused one": (verb("exec", "ID", "x", status="paused"), ("paused",)),
    "checkpoint of a stopped one": (verb("checkpoint", "--image-path", "BUNDLE/x", "ID"), ("stopped",)),
    "restore without images": (verb("restore", "--bundle", "BUNDLE", "--image-path", "/nosuch", "ID", status=""), ()),
    "an id that is taken": (verb("create", "--bundle", "BUNDLE", "ID", status="created"), ("exist",)),
    # Words on the command line.
    "an unknown command": (call("--log", "LOG", "--log-format=json", "nosuch"), ()),
    "an unknown flag": (call("--log=LOG", "--log-format", "json", "state", "--nosuch", "x"), ("nosuch",)),
    "an unknown global flag": (call("--log", "LOG", "--log-format", "json", "--nosuch", "state", "x"), ("nosuch",)),
    "no id": (call("--log", "LOG", "--log-format", "json", "state"), ()),
    "a flag without its value": (call("--log", "LOG", "--log-format", "json", "create", "--bundle"), ("bundle",)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_words_of_an_error(oci: Runtime, bundle: Bundle, directory: Path, name: str) -> None:
    fault, words = FAULTS[name]
    result = fault(oci, bundle, directory).fails() if not name.startswith("exec: ") else fault(oci, bundle, directory)
    lines = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
    last = [line for line in lines if line["level"] == "error"][-1]["msg"].lower()
    assert result.code != 0
    for word in words:
        assert word in last
    for word in (*NOT_FOUND, *NOT_ALLOWED):
        assert word in last if word in " ".join(words) else word not in last
    assert last in result.err.lower(), "the log and standard error differ"
