"""What is told of containers, as docker and podman tell it: ps, inspect, top, stats, events, update, prune and more.

Everything lies in namespaces of the test's own, so that what other containers of the machine do is not seen.
"""

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.daemons import IMAGE, Docker, Result, Room, make_image, wait_for
from tests.helpers.engines import Podman
from tests.helpers.host import require
from tests.helpers.warren import PROGRAM

FLAGS = (
    "--detach --name one --env A=b --label k=v --volume /tmp:/mnt:ro --memory 64m --cap-add SYS_ADMIN "
    "--restart on-failure:3 --hostname hh --workdir /tmp --user 1000 --tmpfs /t"
)
LONG = ("sleep", "1000")


class Shell:
    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, *words: str | Path, timeout: float = 60) -> Result:
        return self.room(PROGRAM, *words, timeout=timeout)

    def run(self, flags: str, *command: str) -> Result:
        return self("run", "--network=none", *flags.split(), IMAGE, *command)

    def popen(self, *words: str) -> "subprocess.Popen[str]":
        command = self.room.command(PROGRAM, *words)
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.room.env)

    def inspect(self, name: str) -> dict[str, Any]:
        return json.loads(self("inspect", name).ok().out)[0]  # type: ignore[no-any-return]

    def fails(self, code: int, *words: str, says: str = "") -> None:
        done = self(*words)
        assert done.code == code, str(done)
        assert len(done.err.splitlines()) == 1, str(done)
        assert done.err.startswith("warren: "), str(done)
        assert says in done.err, str(done)


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "views", token) as room:
        room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        Shell(room)("load", "--input", make_image(session_directory / "views.tar")).ok()
        yield room


@pytest.fixture
def warren(room: Room) -> Iterator[Shell]:
    shell = Shell(room)
    yield shell
    if left := shell("ps", "--all", "--quiet").ok().out.split():
        shell("rm", "--force", "--volumes", *left).ok()


@pytest.fixture
def one(warren: Shell) -> dict[str, Any]:
    """The container `one`, that runs; what inspect tells of it."""
    warren.run(FLAGS, *LONG).ok()
    return warren.inspect("one")


# ---- as data

LISTINGS = {
    "ps --all": "Names", "container ls": "Names", "images": "Repository", "image ls": "Digest", "network ls": "Name",
    "history IMAGE": "CreatedBy", "volume ls": "Name", "system df": "Type", "diff one": "Path",
    "stats --no-stream": "Name",
}  # fmt: skip


@pytest.mark.parametrize("command", LISTINGS)
def test_every_list_is_an_object_a_line(warren: Shell, command: str) -> None:
    """docker's --format json, the same as a template of {{json .}}; of nothing it is nothing."""
    warren.run("--detach --name one", "sh", "-c", "touch /a /b; exec sleep 1000").ok()
    warren.run("--detach --name two", *LONG).ok()
    for name in ("n1", "n2"):
        warren("volume", "create", name).ok()
        warren("network", "create", name).ok()
    wait_for(lambda: "/b" in warren("diff", "one").ok().out, "changes")
    words = command.replace("IMAGE", IMAGE).split()
    try:
        lines = warren(*words, "--format", "json").ok().out.splitlines()
        templated = warren(*words, "--format", "{{json .}}").ok().out.splitlines()
    finally:
        for kind in ("volume", "network"):
            warren(kind, "rm", "n1", "n2").ok()
    rows = [json.loads(line) for line in lines]
    assert all(row[LISTINGS[command]] for row in rows), rows
    assert len(rows) >= (1 if "image" in command.lower() else 2)
    if words[0] != "stats":  # Of another moment.
        assert templated == lines


def test_a_list_of_nothing_is_nothing(warren: Shell) -> None:
    for command in ("ps", "volume ls", "images nosuch"):
        assert warren(*command.split(), "--format", "json").ok().out == ""


# ---- beside docker and podman


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where what we tell is not what they tell; what only one of the two tells is not compared."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() & theirs.keys():
            yield from _differences(ours[key], theirs[key], f"{path}.{key}")
    elif (ours or None) != (theirs or None):
        yield f"{path}: {ours!r}, theirs {theirs!r}"


OWN = {
    # Of each container, and of where things are.
    "Id", "Created", "Image", "ImageDigest", "LogPath", "ResolvConfPath", "HostsPath", "HostnamePath", "GraphDriver",
    "NetworkSettings", "Driver", "Pid", "StartedAt", "FinishedAt", "Runtime", "CgroupParent", "Health",
    # Other defaults, which README.md tells.
    "CgroupnsMode", "IpcMode", "PidsLimit",
}  # fmt: skip


def _compared(told: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _compared(value) if isinstance(value, dict) else value for key, value in told.items() if key not in OWN
    }


def test_inspect_and_ps_as_docker(warren: Shell, one: dict[str, Any]) -> None:
    require("dockerd")
    with Docker(warren.room, "/usr/sbin/runc") as docker:
        docker.run(FLAGS, *LONG).ok()
        theirs, row = docker.inspect("one"), json.loads(docker("ps", "--format", "{{json .}}").ok().out)
    missing = set(theirs) - set(one)
    assert not missing
    for section in ("State", "Config", "HostConfig"):
        absent = set(theirs[section]) - set(one[section])
        assert absent <= {
            "Cgroup", "ConsoleSize", "CpuCount", "CpuPercent", "CpuRealtimePeriod", "CpuRealtimeRuntime",
            "DeviceRequests", "GroupAdd", "IOMaximumBandwidth", "IOMaximumIOps", "Isolation", "KernelMemory",
            "KernelMemoryTCP", "Links", "MaskedPaths", "OomScoreAdj", "ReadonlyPaths", "VolumeDriver",
        }, section  # fmt: skip
    ours = _compared(one)
    ours["Name"] = "/" + ours["Name"]
    ours["Config"]["Env"].sort()
    ours["Mounts"][0]["Propagation"] = theirs["Mounts"][0]["Propagation"]
    assert not [*_differences(ours, _compared(theirs))]
    (mine,) = map(json.loads, warren("ps", "--size", "--format", "json").ok().out.splitlines())
    assert set(mine) == set(row)
    same = ("Command", "Image", "Labels", "LocalVolumes", "Mounts", "Names", "Networks", "Ports", "State")
    assert {key: mine[key] for key in same} == {key: row[key] for key in same}


CHANGING = {
    "nothing": ("", "true"),
    "what the options make": (
        "--volume /tmp:/a/b --workdir /work/dir --tmpfs /t --hostname h --add-host x:1.2.3.4",
        "true",
    ),
    "others in /etc": ("", "touch /etc/own /f; rm /bin/cat"),
    "/etc itself": ("", "chmod 700 /etc"),
    "what is behind the names' files": ("", "echo x >>/etc/hosts"),
}


def test_diff_as_docker(warren: Shell) -> None:
    """Neither shows, nor commits, what is made for /etc/hosts and its like to be mounted on."""
    require("dockerd")
    with Docker(warren.room, "/usr/sbin/runc") as docker:
        for what, (flags, script) in CHANGING.items():
            told, files = [], []
            for engine in (docker, warren):
                engine.run(f"--name changed {flags}", "sh", "-c", script).ok()
                told.append(sorted(engine("diff", "changed").ok().out.splitlines()))
                engine("commit", "changed", "changed:1").ok()
                engine("save", "--output", warren.room.directory / "changed.tar", "changed:1").ok()
                files.append(_second_layer(warren.room.directory / "changed.tar"))
                engine("rmi", "--force", "changed:1").ok()
                engine("rm", "changed").ok()
            assert told[0] == told[1], what
            assert files[0] - {"etc"} == files[1] - {"etc"}, what


def _second_layer(archive: Path) -> set[str]:
    """Names of what an image's second layer has; docker makes none where nothing has changed."""
    with tarfile.open(archive) as outer:
        manifest = outer.extractfile("manifest.json")
        assert manifest
        layers = json.loads(manifest.read())[0]["Layers"]
        if len(layers) < 2:
            return set()
        layer = outer.extractfile(layers[1])
        with tarfile.open(fileobj=layer) as inner:
            return {name.rstrip("/") for name in inner.getnames()}


@pytest.fixture(scope="module")
def podman(room: Room) -> Iterator[Podman]:
    require("podman")
    with Podman(room, "/usr/sbin/runc") as podman:
        yield podman


def test_inspect_as_podman(warren: Shell, podman: Podman, one: dict[str, Any]) -> None:
    podman.run(FLAGS, *LONG).ok()
    theirs = podman.inspect("one")
    (row,) = json.loads(podman("ps", "--format", "json").ok().out)
    podman(*podman.remove, "one").ok()
    for key in ("Path", "Args", "Name", "RestartCount"):
        assert one[key] == theirs[key]
    state = ("Status", "Running", "Paused", "Restarting", "OOMKilled", "Dead", "ExitCode", "Error")
    assert {key: one["State"][key] for key in state} == {key: theirs["State"][key] for key in state}
    config = ("Hostname", "User", "Tty", "OpenStdin", "StdinOnce", "Cmd", "Image", "WorkingDir", "Labels")
    assert {key: one["Config"][key] for key in config} == {key: theirs["Config"][key] for key in config}
    limits = ("Memory", "MemorySwap", "NanoCpus", "RestartPolicy", "Privileged", "ReadonlyRootfs", "NetworkMode")
    assert {key: one["HostConfig"][key] for key in limits} == {key: theirs["HostConfig"][key] for key in limits}
    (mine,) = map(json.loads, warren("ps", "--no-trunc", "--format", "json").ok().out.splitlines())
    assert (mine["Names"], mine["Image"], mine["State"]) == (row["Names"][0], row["Image"], row["State"])


COMMANDS = [
    "inspect nope", "inspect --type image one", "stop nope", "rm nope", "rm --force nope", "rm one", "start nope",
    "kill nope", "pause nope", "unpause one", "wait nope", "top nope", "port nope", "port one 80",
    "stats --no-stream nope", "logs nope", "rename nope x", "rename one one", "update --memory 64m nope",
    "exec nope true", "attach nope",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_codes_of_what_is_not_there(
    warren: Shell, one: dict[str, Any], docker_codes: dict[str, int], command: str
) -> None:
    done = warren(*command.split())
    assert done.code == docker_codes[command], str(done)
    assert len(done.err.splitlines()) == (0 if command == "rm --force nope" else 1), str(done)
    assert done.out == ("[]\n" if command.startswith("inspect") else ""), str(done)


@pytest.fixture(scope="module")
def docker_codes(room: Room) -> dict[str, int]:
    """What docker itself ends with."""
    require("dockerd")
    with Docker(room, "/usr/sbin/runc") as docker:
        docker.run("--detach --name one", *LONG).ok()
        return {command: docker(*command.split()).code for command in COMMANDS}


# ---- ps


def test_ps_of_one(warren: Shell, one: dict[str, Any]) -> None:
    head, row = warren("ps").ok().out.splitlines()
    assert head.split("   ")[0] == "CONTAINER ID"
    assert row.startswith(f'{one["Id"][:12]}   {IMAGE}   "sleep 1000"')
    assert row.endswith("   one")
    assert warren("ps", "-q", "--no-trunc").ok().line == one["Id"]
    assert warren("container", "ls", "--quiet").ok().line == one["Id"][:12]
    template = 'table {{.Names}}\t{{.Label "k"}}'
    assert warren("ps", "--format", template).ok().out.split() == ["NAMES", "k", "one", "v"]


def test_sentences(warren: Shell) -> None:
    def sentence() -> str:
        return warren("ps", "--all", "--filter", "name=^one$", "--format", "{{.Status}}").ok().line

    assert warren("create", "--name", "one", "--network=none", IMAGE, "sh", "-c", "sleep 0.2; exit 3").ok()
    assert sentence() == "Created"
    warren("start", "one").ok()
    assert sentence() == "Up Less than a second"
    assert warren("wait", "one").ok().line == "3"
    assert sentence() == "Exited (3) Less than a second ago"
    warren("rm", "one").ok()
    warren.run("--detach --name one --health-cmd true --health-interval 100ms", *LONG).ok()
    wait_for(lambda: sentence().endswith(" (healthy)"), "it does not become healthy", sentence)
    warren("pause", "one").ok()
    assert sentence().startswith("Up ")
    assert sentence().endswith(" (Paused)")
    warren("rm", "--force", "one").ok()
    warren.run("--detach --name one --restart always", "false").ok()
    wait_for(lambda: sentence().startswith("Restarting (1) "), "it is not started again", sentence)


def test_filters(warren: Shell) -> None:
    warren("volume", "create", "store").ok()
    warren.run("--detach --name up --label a=b --label c --volume store:/data --expose 80", *LONG).ok()
    warren.run("--name ended --label a=x", "sh", "-c", "exit 7")
    warren("create", "--name", "made", "--network=none", IMAGE, "true").ok()

    def names(*filters: str) -> set[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return set(warren("ps", "-a", "--format", "{{.Names}}", *words).ok().out.split())

    everything = {"up", "ended", "made"}
    identity = warren.inspect("up")["Id"]
    assert names() == everything
    assert names(f"id={identity[:5]}") == {"up"}
    assert names("name=e") == {"ended", "made"}
    assert names("name=^/up") == {"up"}
    assert names("label=a") == {"up", "ended"}
    assert names("label=a=b", "label=c") == {"up"}
    assert names("label=a=b", "label=d") == set()
    assert names("status=created") == {"made"}
    assert names("status=created", "status=running") == {"made", "up"}
    assert names("exited=7") == {"ended"}
    assert names("exited=0") == set()
    assert names(f"ancestor={IMAGE}") == everything
    assert names("ancestor=" + warren.inspect("up")["Image"]) == everything
    assert names("ancestor=other") == set()
    assert names("before=ended") == {"up"}
    assert names("since=ended") == {"made"}
    assert names("volume=store") == names("volume=/data") == {"up"}
    assert names("network=none") == everything
    assert names("health=none") == everything
    assert names("health=healthy") == set()
    assert names("expose=80/tcp") == {"up"}
    assert names("publish=80") == set()
    assert warren("ps", "-n", "2", "--format", "{{.Names}}").ok().out.split() == ["made", "ended"]
    assert warren("ps", "--latest", "--format", "{{.Names}}").ok().line == "made"
    assert warren("ps", "--filter", "exited=7", "--format", "{{.Names}}").ok().line == "ended"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("ps --filter foo=bar", "'foo' is unknown"),
        ("ps --filter foo", "not KEY=VALUE"),
        ("ps --filter status=bar", "unknown status"),
        ("ps --filter name=(", "--filter name"),
        ("ps --filter exited=x", "no exit code"),
        ("ps --filter publish=x", "no port"),
        ("ps --nosuch", "no such option"),
        ("ps --last x", "not a valid integer"),
        ("ps --format {{.Nosuch}}", "no field"),
        ("update one", "nothing is to be changed"),
        ("update --memory x one", "not a size"),
        ("update --restart sometimes one", "unknown"),
        ("update --cpus 0.5 --cpu-quota 1000 one", "cannot be used"),
        ("events --since yesterday --until 0s", "is no time"),
        ("events --filter a=b --until 0s", "'a' is unknown"),
        ("container prune --force --filter until=x", "is no time"),
        ("top one -o comm", "no PID"),
        ("inspect --format {{.Nosuch}} one", "no field"),
    ],
)
def test_bad_words(warren: Shell, one: dict[str, Any], words: str, says: str) -> None:
    warren.fails(125, *words.split(), says=says)


def test_a_damaged_record_hides_no_container(warren: Shell, one: dict[str, Any]) -> None:
    path = f"/var/lib/warren/containers/{one['Id']}/config.json"
    kept = warren.room("cat", path).out
    warren.room("sh", "-c", f"echo '{{' > {path}").ok()
    try:
        assert warren("ps", "--format", "{{.Names}} {{.State}}").ok().line == "one running"
        warren.fails(1, "top", "one", says="damaged")
    finally:
        warren.room("sh", "-c", 'printf %s "$1" > "$2"', "sh", kept, path).ok()


COPY = """
import json, os, sys
os.chdir("/var/lib/warren/containers")
data = json.load(open(sys.argv[1] + "/config.json"))
for number in range(1, 500):
    data["id"] = data["config"]["id"] = f"{number:03}" + sys.argv[1][3:]
    data["name"], data["config"]["labels"] = f"many{number}", [f"which={number}"]
    os.mkdir(data["id"], 0o700)
    json.dump(data, open(data["id"] + "/config.json", "w"))
    os.symlink(data["id"], ".names/" + data["name"])
"""


def test_five_hundred(warren: Shell) -> None:
    """Records suffice: whether one runs is asked of each all the same."""
    made = warren("create", "--network=none", "--label", "which=0", IMAGE, "true").ok().line
    warren.room("/usr/bin/python3", "-c", COPY, made).ok()
    assert len(warren("ps", "--all").ok().out.splitlines()) == 501
    assert warren("ps", "--all", "--quiet", "--filter", "label=which=77").ok().line == f"077{made[3:12]}"
    assert not warren("ps", "--quiet").ok().out
    assert len(warren("container", "prune", "--force").ok().out.splitlines()) == 500 + 3
    assert not warren("ps", "--all", "--quiet").ok().out


# ---- inspect


def test_what_is_relaxed_and_how_limits_are_held(warren: Shell, one: dict[str, Any]) -> None:
    assert one["relaxed"] == ["--cap-add SYS_ADMIN"]
    assert "67108864" in one["enforced"]["memory.limit"]
    words = "--detach --name two --privileged --pid host --security-opt seccomp=unconfined --security-opt mask=/etc"
    warren.run(words, *LONG)
    expected = ["--privileged", "--pid host", "--security-opt seccomp=unconfined"]
    assert [text for text in warren.inspect("two")["relaxed"] if text != "--userns host"] == expected


def test_inspect_finds_anything(warren: Shell, one: dict[str, Any]) -> None:
    warren("volume", "create", "store").ok()
    warren("network", "create", "net").ok()
    try:
        done = warren("inspect", "--format", "{{.Id}}", "one", IMAGE)
        assert done.ok().out.split() == [one["Id"], one["Image"]]
        assert json.loads(warren("inspect", "store").ok().out)[0]["Name"] == "store"
        assert json.loads(warren("inspect", "--type", "network", "net").ok().out)[0]["Name"] == "net"
        done = warren("inspect", "nope", "one").exits(1, "no such object: 'nope'")
        assert [found["Name"] for found in json.loads(done.out)] == ["one"]
        warren.fails(1, "inspect", "--type", "volume", "one", says="no such volume: 'one'")
    finally:
        warren("network", "rm", "net").ok()
        warren("volume", "rm", "store").ok()


def test_size(warren: Shell) -> None:
    warren.run("--name one", "sh", "-c", "head -c 100000 /dev/zero > /file").ok()
    found = json.loads(warren("inspect", "--size", "one").ok().out)[0]
    assert found["SizeRw"] == 100000
    assert found["SizeRootFs"] > 100000
    assert warren("ps", "-as", "--format", "{{.Size}}").ok().line.startswith("100kB (virtual ")
    words = [line.split() for line in warren("system", "df").ok().out.splitlines()]
    assert ["Containers", "1", "0", "100kB", "100kB", "(100%)"] in words


# ---- top, stats, events


def test_top(warren: Shell) -> None:
    warren.run("--detach --name one --user 1000", "sh", "-c", "sleep 1000 & exec sleep 2000").ok()
    pid = warren.inspect("one")["State"]["Pid"]
    wait_for(lambda: "sleep 1000" in warren("top", "one").ok().out, "the second process does not start")
    head, *rows = [line.split(None, 7) for line in warren("top", "one").ok().out.splitlines()]
    assert head == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert sorted(row[7] for row in rows) == ["sleep 1000", "sleep 2000"]
    assert {row[0] for row in rows} == {"1000"}
    assert [row[1] for row in rows if row[7] == "sleep 2000"] == [str(pid)]
    head, *rows = [line.split() for line in warren("top", "one", "-o", "pid,comm").ok().out.splitlines()]
    assert head == ["PID", "COMMAND"]
    assert [str(pid), "sleep"] in rows
    assert len(rows) == 2
    warren("stop", "-t", "0", "one").ok()
    warren.fails(1, "top", "one", says="not running")


def test_stats(warren: Shell) -> None:
    warren.run("--detach --name busy --memory 32m", "sh", "-c", "while :; do :; done").ok()
    warren.run("--name ended", "true").ok()
    (row,) = map(json.loads, warren("stats", "--no-stream", "--format", "json").ok().out.splitlines())
    assert set(row) == {
        "BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs",
    }  # fmt: skip
    assert row["Name"] == "busy"
    assert row["MemUsage"].endswith(" / 32MiB")
    assert 1 < float(row["CPUPerc"].rstrip("%")) < 110
    assert row["PIDs"] == "1"
    names = warren("stats", "--no-stream", "--all", "--format", "{{.Name}} {{.PIDs}}").ok().out.splitlines()
    assert sorted(names) == ["busy 1", "ended 0"]
    head = warren("stats", "--no-stream", "ended").ok().out.splitlines()[0]
    assert head.split()[:5] == ["CONTAINER", "ID", "NAME", "CPU", "%"]


def test_live_stats_on_a_terminal(warren: Shell) -> None:
    """It is cut to the size of the terminal, at once when that changes, and shows what comes and goes."""
    warren.run("--detach --name first", *LONG).ok()
    with warren.room.terminal(PROGRAM, "stats") as (process, terminal):
        terminal.expect("BLOCK I/O")
        terminal.expect("first")
        terminal.resize(10, 20)
        terminal.expect("CONTAINER ID   NAME \033[K")
        warren.run("--detach --name new", *LONG).ok()
        terminal.expect("new")
        terminal.write("\x03")
        assert process.wait(10) == 130


def _watches(pid: int) -> bool:
    """Whether it has come as far as to wait for what happens (inotify(7))."""
    return any(os.readlink(path) == "anon_inode:inotify" for path in Path(f"/proc/{pid}/fd").iterdir())


def test_events(warren: Shell) -> None:
    follower = warren.popen("events", "--format", "json", "--filter", "container=one")
    assert follower.stdout
    try:
        wait_for(lambda: _watches(follower.pid), "it does not wait")
        warren.run("--name other", "true").ok()
        warren.run("--name one --label k=v", "sh", "-c", "exit 3")
        warren("rm", "one").ok()
        found = [json.loads(follower.stdout.readline()) for _ in range(4)]
    finally:
        follower.terminate()
        follower.communicate()
    assert [event["Action"] for event in found] == ["create", "start", "die", "destroy"]
    assert found[2]["Actor"]["Attributes"] == {"exitCode": "3", "image": IMAGE, "k": "v", "name": "one"}
    assert {event["Type"] for event in found} == {"container"}
    past = warren("events", "--since", "1h", "--until", "0s", "--filter", "event=die", "--format", "{{.Actor.ID}}")
    assert found[0]["id"] in past.ok().out.split()
    lines = warren("events", "--since", "1h", "--until", "0s", "--filter", "event=die").ok().out.splitlines()
    (line,) = [line for line in lines if found[0]["id"] in line]
    assert line.endswith(f" container die {found[0]['id']} (exitCode=3, image={IMAGE}, k=v, name=one)")


def test_events_outlast_the_rotation_of_their_file(warren: Shell) -> None:
    warren.run("--rm", "true").ok()
    follower = warren.popen("events", "--filter", "event=die", "--format", "{{.Actor.Attributes.name}}")
    assert follower.stdout
    try:
        wait_for(lambda: _watches(follower.pid), "it does not wait")
        for name in ("first", "second"):
            warren.run(f"--rm --name {name}", "true").ok()
            warren.room("mv", "/run/warren/.events", "/run/warren/.events.1").ok()
            assert follower.stdout.readline().strip() == name
    finally:
        follower.terminate()
        follower.communicate()


def test_events_until_later(warren: Shell) -> None:
    begin = time.time()
    done = warren("events", "--until", str(int(begin) + 2)).ok()
    assert time.time() >= int(begin) + 2
    assert not done.out


# ---- update, prune, info


def test_update(warren: Shell, one: dict[str, Any]) -> None:
    assert warren("update", "--memory", "96m", "--pids-limit", "77", "--restart", "no", "one").ok().line == "one"
    for _ in range(2):
        found = warren.inspect("one")
        assert found["HostConfig"]["Memory"] == 96 << 20
        assert found["HostConfig"]["PidsLimit"] == 77
        assert found["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
        assert str(96 << 20) in found["enforced"]["memory.limit"]
        assert "77" in found["enforced"]["pids.limit"]
        assert "96MiB" in warren("stats", "--no-stream", "one").ok().out
        warren("restart", "-t", "0", "one").ok()
    warren("update", "--pids-limit", "-1", "one").ok()
    assert warren.inspect("one")["relaxed"] == ["--cap-add SYS_ADMIN", "--pids-limit -1"]
    warren.fails(1, "update", "--memory", "4k", "one", says="memory.limit")
    assert warren.inspect("one")["HostConfig"]["Memory"] == 96 << 20


def test_update_of_one_that_does_not_run(warren: Shell) -> None:
    warren.run("--name one", "true").ok()
    warren("update", "--cpus", "0.5", "one").ok()
    assert warren.inspect("one")["HostConfig"]["NanoCpus"] == 500_000_000
    warren("start", "one").ok()


def test_prune(warren: Shell) -> None:
    warren.run("--detach --name up", *LONG).ok()
    for name in ("kept", "gone"):
        warren.run(f"--name {name} --label {name}", "true").ok()
    identity = warren.inspect("gone")["Id"]
    done = warren("container", "prune", "--force", "--filter", "label=gone").ok()
    assert done.out.splitlines()[:2] == ["Deleted Containers:", identity]
    assert set(warren("ps", "-a", "--format", "{{.Names}}").ok().out.split()) == {"up", "kept"}
    assert not warren("container", "prune", "--force", "--filter", "until=1h").ok().out.startswith("Deleted")
    done = warren("system", "prune", "--force", "--volumes").ok()
    assert done.out.splitlines()[-1].startswith("Total reclaimed space:")
    assert warren("ps", "-a", "--format", "{{.Names}}").ok().line == "up"
    assert warren("images", "-q").ok().line


def test_info_and_version(warren: Shell, one: dict[str, Any]) -> None:
    found = json.loads(warren("info", "--format", "json").ok().out)
    assert (found["Containers"], found["ContainersRunning"], found["Images"]) == (1, 1, 1)
    assert found["KernelVersion"] == os.uname().release
    assert "Containers: 1\n Running: 1\n" in warren("system", "info").ok().out
    told = json.loads(warren("version", "--format", "json").ok().out)
    assert warren("version", "--format", "{{.Client.Version}}").ok().line == told["Client"]["Version"]
    assert told["Client"]["KernelVersion"] == os.uname().release


def test_container_has_the_short_commands(warren: Shell) -> None:
    name = warren("container", "run", "--detach", "--network=none", IMAGE, *LONG).ok().line
    assert warren("container", "inspect", "--format", "{{.Id}}", name).ok().line == name
    for verb in ("pause", "unpause", "kill", "rm --force"):
        warren("container", *verb.split(), name).ok()
    warren.fails(125, "container", "nosuch", says="no such command")
