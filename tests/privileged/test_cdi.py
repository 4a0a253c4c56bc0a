"""Devices through CDI: nodes, mounts, environment, hooks and groups from specs in /etc/cdi and /var/run/cdi."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, Result, Room, make_image
from tests.helpers.engines import OWN_PODMAN, RUN_PODMAN
from tests.helpers.host import require
from tests.helpers.warren import PROGRAM

ETC, RUN = "/etc/cdi", "/run/cdi"
NULL = {"path": "/dev/cdi0", "hostPath": "/dev/null"}
SPEC = {
    "cdiVersion": "0.7.0",
    "kind": "vendor.com/thing",
    "containerEdits": {"env": ["COMMON=1"]},
    "devices": [
        {"name": "zero", "containerEdits": {
            "deviceNodes": [NULL], "env": ["NAME=zero", "PATH=/bin"], "additionalGids": [0, 4321],
        }},
        {"name": "one", "containerEdits": {
            "deviceNodes": [{"path": "/dev/cdi1", "hostPath": "/dev/zero", "permissions": "rw"}], "env": ["NAME=one"],
        }},
    ],
}  # fmt: skip


class Shell:
    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, *words: str | Path) -> Result:
        return self.room(PROGRAM, *words)

    def spec(self, content: object, place: str = ETC, name: str = "vendor.json") -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        self.room("sh", "-ec", 'mkdir -p "$1"; cat > "$1/$2"', "sh", place, name, input=text).ok()

    def run(self, *words: str) -> Result:
        """A script, the last word, in a container with these options."""
        return self("run", "--rm", *words[:-1], IMAGE, "sh", "-ec", words[-1])


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "cdi", token) as room:
        options = "lowerdir=/etc,upperdir=/run/etc,workdir=/run/work"
        room("sh", "-ec", f"mkdir -p /run/etc /run/work; mount -t overlay o -o {options} /etc").ok()
        room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        Shell(room)("load", "--input", make_image(session_directory / "cdi.tar")).ok()
        yield room


@pytest.fixture
def warren(room: Room) -> Iterator[Shell]:
    yield Shell(room)
    room("rm", "-rf", ETC, RUN).ok()


USERNS = pytest.mark.parametrize("userns", [["--userns", "host"], ["--userns", "private"]], ids=["host", "private"])


@USERNS
def test_a_device(warren: Shell, userns: list[str]) -> None:
    warren.spec(SPEC)
    script = "stat -c '%t:%T' /dev/cdi0; echo x > /dev/cdi0; ls /dev; echo $NAME $COMMON $PATH; id -G"
    out = warren.run(*userns, "--device", "vendor.com/thing=zero", script).ok().out
    assert out.splitlines()[0] == "1:3"
    assert "cdi0" in out and "cdi1" not in out
    assert out.splitlines()[-2:] == ["zero 1 /bin", "0 4321"]


@USERNS
def test_all_of_a_kind(warren: Shell, userns: list[str]) -> None:
    warren.spec(SPEC)
    out = warren.run(*userns, "--device", "vendor.com/thing=all", "ls /dev/cdi*; env | grep -c COMMON").ok().out
    assert out.split() == ["/dev/cdi0", "/dev/cdi1", "1"]
    named = {**SPEC, "kind": "vendor.com/other", "devices": [{"name": "all", "containerEdits": {"env": ["ALL=named"]}}]}
    warren.spec(named, name="other.json")
    assert warren.run("--device", "vendor.com/other=all", "echo $ALL").ok().line == "named"


@USERNS
def test_mounts_and_hooks(warren: Shell, userns: list[str], directory: Path) -> None:
    (directory / "library").write_text("of the host\n")
    directory.chmod(0o755)
    hook = {
        "hookName": "createRuntime",
        "path": "/bin/sh",
        "args": ["sh", "-c", f"cat > {directory}/ran"],
        "env": ["A=b"],
    }
    warren.spec({
        "cdiVersion": "0.5.0", "kind": "vendor.com/lib",
        "containerEdits": {"hooks": [hook], "mounts": [
            {"hostPath": str(directory / "library"), "containerPath": "/usr/lib/library",
             "options": ["ro", "nosuid", "nodev", "bind"]},
        ]},
        "devices": [{"name": "x", "containerEdits": {}}],
    })  # fmt: skip
    out = warren.run(
        *userns, "--device", "vendor.com/lib=x", "cat /usr/lib/library; ! touch /usr/lib/library 2>/dev/null"
    )
    assert out.ok().line == "of the host"
    assert json.loads((directory / "ran").read_text())["pid"] > 0


def test_yaml(warren: Shell) -> None:
    text = """
cdiVersion: "0.6.0"
kind: vendor.com/net
devices:
- name: "0"
  containerEdits:
    env:
    - FROM=yaml
    deviceNodes:
    - path: /dev/cdi
      hostPath: /dev/null
"""
    warren.spec(text, name="net.yaml")
    assert warren.run("--device", "vendor.com/net=0", "echo $FROM; ls /dev/cdi").ok().out == "yaml\n/dev/cdi\n"


def test_a_later_directory_wins_and_conflicts_are_errors(warren: Shell) -> None:
    warren.spec(SPEC)
    other = {**SPEC, "devices": [{"name": "zero", "containerEdits": {"env": ["NAME=late"]}}]}
    warren.spec(other, RUN)
    assert warren.run("--device", "vendor.com/thing=zero", "echo $NAME").ok().line == "late"
    assert warren.run("--device", "vendor.com/thing=one", "echo $NAME").ok().line == "one"
    warren.spec(other, RUN, "second.json")
    done = warren.run("--device", "vendor.com/thing=zero", "true").exits(
        125, "defined by", "second.json", "vendor.json"
    )
    assert len(done.err.splitlines()) == 1
    warren.run("--device", "vendor.com/thing=one", "true").ok()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cdiVersion": "9.0.0"}, "cdiversion '9.0.0' is not known"),
        ({"cdiVersion": "0.4.0"}, "too low for what it has: it needs 0.7.0"),
        ({"cdiVersion": None}, "is not known"),
        ({"kind": "novendor"}, "no kind"),
        ({"devices": "x"}, "must be a list"),
        ({"devices": [{"name": "zero"}, {"name": "zero"}]}, "defined twice"),
        ({"devices": [{"name": "-"}]}, "malformed"),
    ],
)
def test_a_damaged_spec_is_told_of(warren: Shell, change: dict[str, object], said: str) -> None:
    warren.spec({**SPEC, **change})
    done = warren.run("--device", "vendor.com/thing=zero", "true").exits(125, "no such CDI device", said)
    assert len(done.err.splitlines()) == 1
    warren.run("true").ok()


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/nosuch"}]}, "/dev/nosuch"),
        ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]}, "not a device"),
        ({"deviceNodes": [{"path": "/dev/null", "major": 9}]}, "major is 1, not 9"),
        ({"deviceNodes": [{"path": "x"}]}, "absolute path"),
        ({"hooks": [{"hookName": "whenever", "path": "/x"}]}, "'whenever' is unknown"),
        ({"mounts": [{"hostPath": "/nosuch", "containerPath": "/x"}]}, "/nosuch"),
        ({"env": ["x"]}, "not NAME=VALUE"),
        ({"additionalGids": ["x"]}, "list of numbers"),
    ],
)
def test_edits_that_cannot_be_had(warren: Shell, edits: dict[str, object], said: str) -> None:
    warren.spec({**SPEC, "devices": [{"name": "bad", "containerEdits": edits}]})
    done = warren.run("--device", "vendor.com/thing=bad", "true").exits(125, said)
    assert len(done.err.splitlines()) == 1


def test_names(warren: Shell) -> None:
    warren.run("--device", "vendor.com/thing=zero", "true").exits(
        125, "no such CDI device in /etc/cdi and /var/run/cdi"
    )
    warren.spec(SPEC)
    warren.run("--device", "vendor.com/thing=two", "true").exits(
        125, "there are vendor.com/thing=one, vendor.com/thing=zero"
    )
    warren.run("--device", "novendor=x", "true").exits(125, "no kind of CDI devices")
    warren.run("--device", "/dev/null:/dev/other", "ls /dev/other").ok()


def test_as_podman_does(warren: Shell, session_directory: Path) -> None:
    """podman of Debian knows the versions up to 0.5.0."""
    require("podman")
    spec = {
        **SPEC,
        "cdiVersion": "0.5.0",
        "devices": [{"name": "n", "containerEdits": {"deviceNodes": [NULL], "env": ["NAME=n"]}}],
    }
    warren.spec(spec)
    warren.room(*OWN_PODMAN, "load", "--input", session_directory / "cdi.tar").ok()
    script = "stat -c '%n %t:%T' /dev/cdi0; echo $NAME $COMMON"
    words = ["--device", "vendor.com/thing=n"]
    theirs = warren.room(*RUN_PODMAN, *words, IMAGE, "sh", "-c", script).ok().out
    assert warren("run", "--rm", *words, "--userns", "host", IMAGE, "sh", "-c", script).ok().out == theirs
