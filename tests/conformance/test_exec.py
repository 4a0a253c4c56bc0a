"""exec: no operation of the specification, but every engine's; runc(8), "exec", is the reference."""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import probe, processes
from tests.helpers.host import require
from tests.helpers.oci import Bundle, Container, Runtime
from tests.helpers.terminal import ConsoleSocket


def process_json(directory: Path, *questions: str, **changes: Any) -> Path:
    """A file for --process."""
    process = {
        "args": probe.command(*questions),
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/bin"],
    } | changes
    path = directory / "process.json"
    path.write_text(json.dumps(process))
    return path


def test_it_joins_every_namespace(box: Container) -> None:
    """ "exec: execute new process inside the container" """
    inside = box.ask("ns").table("ns")
    for name in ("pid", "net", "ipc", "uts", "mnt", "user", "cgroup"):
        assert inside[name] == os.readlink(f"/proc/{box.pid}/ns/{name}"), name


def test_it_joins_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    """user_namespaces(7): the ids of the executed process are those inside."""
    container = oci.up(bundle.maps(200000))
    answers = container.ask("id", "ns", "stat /bin/probe")
    assert answers.table("id")["uid"] == "0 0 0"
    assert answers.table("ns")["user"] == os.readlink(f"/proc/{container.pid}/ns/user")
    assert answers.one("stat /bin/probe").split()[3] == "0"


def test_it_joins_the_cgroup(box: Container) -> None:
    """What is executed counts against the container's limits, and dies with it."""
    mine = box.ask("cgroup")["cgroup"]
    assert sorted(mine) == sorted(Path(f"/proc/{box.pid}/cgroup").read_text().splitlines())


def test_the_defaults_are_those_of_the_container(oci: Runtime, bundle: Bundle) -> None:
    """Environment, working directory, user, capabilities and limits come from the container's process."""
    bundle.process.update(cwd="/tmp", user={"uid": 1000, "gid": 1001, "additionalGids": [2000]})
    bundle.process["env"].append("KEY=value")
    bundle.process["rlimits"] = [{"type": "RLIMIT_MSGQUEUE", "soft": 512, "hard": 1024}]
    answers = oci.up(bundle).ask("env", "cwd", "id", "caps", "rlimits", "nnp")
    assert {"KEY=value", "PATH=/usr/bin:/bin"} <= set(answers["env"])
    assert answers.one("cwd") == "/tmp"
    assert (answers.table("id")["uid"], answers.table("id")["gid"]) == ("1000 1000 1000", "1001 1001 1001")
    assert answers.table("rlimits")["MSGQUEUE"] == "512 1024"
    assert answers.one("nnp") == "1"
    assert int(answers.table("caps")["CapBnd"], 16) == 1 << 29 | 1 << 5 | 1 << 10


def test_flags_change_them(box: Container) -> None:
    """ "--cwd, --env, --user UID:GID, --additional-gids" """
    flags = ["--cwd", "/tmp", "--env", "ONE=1", "--env", "PATH=/other", "--user", "1000:1001"]
    answers = box.ask("env", "cwd", "id", flags=flags)
    assert {"ONE=1", "PATH=/other"} <= set(answers["env"])
    assert answers.one("cwd") == "/tmp"
    assert (answers.table("id")["uid"], answers.table("id")["gid"]) == ("1000 1000 1000", "1001 1001 1001")


def test_additional_groups(box: Container) -> None:
    """ "--additional-gids, -g: additional gids" """
    answer = box.ask("id", flags=["--user", "1000:1001", "-g", "2000", "-g", "5"]).table("id")
    assert set(answer["groups"].split()) - {"1001"} == {"2000", "5"}


@pytest.mark.parametrize("user", ["", ":", "1000:", "x", "-1", "4294967296", "1000:x", "1e3", "0x10"])
def test_users_are_parsed_strictly(box: Container, user: str) -> None:
    """CVE-2026-30892, CVE-2024-40635: what is no number must not become root."""
    result = box.exec(*probe.command("id"), flags=[f"--user={user}"])
    if result.code == 0:
        assert result.answers.table("id")["uid"] != "0 0 0", f"{user!r} became root"
    else:
        result.fails()


def test_capabilities_can_be_added(box: Container) -> None:
    """ "--cap, -c: add a capability to the bounding set for the process" """
    found = box.ask("caps", flags=["--cap", "CAP_SYS_CHROOT"]).table("caps")
    for name in ("CapBnd", "CapPrm", "CapEff"):
        assert int(found[name], 16) >> 18 & 1, name
    assert int(found["CapInh"], 16) == 0


def test_no_new_privileges(oci: Runtime, bundle: Bundle) -> None:
    """ "--no-new-privs: set the no new privileges value for the process" """
    bundle.process["noNewPrivileges"] = False
    container = oci.up(bundle)
    assert container.ask("nnp").one("nnp") == "0"
    assert container.ask("nnp", flags=["--no-new-privs"]).one("nnp") == "1"


def test_a_whole_process_can_be_given(box: Container, directory: Path) -> None:
    """ "--process, -p: path to the process.json": nothing of the container's own process is mixed in."""
    path = process_json(
        directory,
        "env",
        "cwd",
        "id",
        "caps",
        cwd="/tmp",
        env=["ONLY=this", "HOME=/"],
        user={"uid": 7, "gid": 8, "additionalGids": [9]},
        capabilities={"bounding": ["CAP_KILL"]},
    )
    answers = box.exec(flags=["--process", path]).ok().answers
    assert sorted(answers["env"]) == ["HOME=/", "ONLY=this"]
    assert answers.one("cwd") == "/tmp"
    assert answers.table("id")["uid"] == "7 7 7"
    assert "9" in answers.table("id")["groups"].split()
    assert {name: int(value, 16) for name, value in answers.table("caps").items()} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 1 << 5,
        "CapAmb": 0,
    }


def test_a_process_has_a_umask(box: Container, directory: Path) -> None:
    """ "umask (int, OPTIONAL) specifies the umask of the user." """
    path = process_json(directory, "umask", user={"uid": 0, "gid": 0, "umask": 0o27})
    assert box.exec(flags=["--process", path]).ok().answers.one("umask") == "0027"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"args": []}', '{"args": "x", "cwd": "/"}', '{"args": ["/bin/probe"]}']
)
def test_a_malformed_process_is_an_error(box: Container, directory: Path, text: str) -> None:
    """ "cwd (string, REQUIRED)", "args (array of strings, OPTIONAL)... This property is REQUIRED when start is
    called." """
    (directory / "process.json").write_text(text)
    box.exec(flags=["--process", directory / "process.json"]).fails()
    assert box.status == "running"


@pytest.mark.parametrize(
    ("question", "code"), [("exit 0", 0), ("exit 7", 7), ("kill-self 9", 137), ("kill-self 15", 143)]
)
def test_it_returns_the_exit_code(box: Container, question: str, code: int) -> None:
    """The exit status is that of the process, 128 + n after a signal."""
    assert box.exec(*probe.command(question)).code == code


def test_it_leaves_the_container_alone(box: Container) -> None:
    """The container lives as long as its first process, whatever is executed beside it."""
    before = box.state()
    box.ask("true")
    assert box.state() == before


def test_standard_streams_pass_through(box: Container) -> None:
    """Without --tty the streams are inherited."""
    result = box.exec(*probe.command("read", "error to-stderr"), input="from stdin\n").ok()
    assert result.answers["read"] == ["from stdin"]
    assert "to-stderr" in result.err


def test_detached(box: Container, directory: Path) -> None:
    """ "--detach, -d: detach from the container's process. --pid-file: specify the file to write the process id to" """
    result = box.exec("/bin/probe", "sleep", "60", flags=["--detach", "--pid-file", directory / "pid"]).ok()
    pid = int((directory / "pid").read_text())
    assert result.out == ""
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/probe\0sleep")
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{box.pid}/ns/pid")
    box.kill("KILL").ok()
    assert gone(pid)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/bin/nothing", "no such file or directory"),
        ("nothing", "executable file not found in $PATH"),
        ("/etc/passwd", "permission denied"),
    ],
)
def test_a_program_that_cannot_run(box: Container, program: str, words: str) -> None:
    """podman and docker turn these words into 127 and 126."""
    result = box.exec(program)
    assert result.code != 0 and words in result.err, str(result)


def test_it_needs_a_running_container(oci: Runtime, bundle: Bundle) -> None:
    """containerd reads "not running" out of the message."""
    container = oci.up(bundle.asks("true")).wait()
    container.exec("/bin/probe", "true").fails()
    oci("exec", "nobody", "/bin/probe").fails("does not exist")
    oci("exec", container.id).fails()


def test_it_works_before_start(oci: Runtime, bundle: Bundle) -> None:
    """A created container has its namespaces: runc and crun execute in it, and the program still waits."""
    container = oci.create(bundle.asks("echo started"))
    assert container.ask("hostname").one("hostname") == "burrow"
    assert (container.status, container.output) == ("created", "")


def test_descriptors_are_closed(box: Container, directory: Path) -> None:
    """CVE-2024-21626, CVE-2016-9962: nothing of the runtime or its caller is open in the executed process."""
    assert set(box.exec("/bin/probe", "fds", "--", opens=[directory] * 3).ok().answers.table("fds")) == {"0", "1", "2"}


def test_preserve_fds(box: Container, directory: Path) -> None:
    """ "--preserve-fds: Pass N additional file descriptors to the container" """
    flags = ["--preserve-fds", "2"]
    found = box.exec("/bin/probe", "fds", "--", flags=flags, opens=[directory] * 4).ok().answers.table("fds")
    assert set(found) == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize("cwd", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/8"])
def test_cwd_cannot_be_a_descriptor_of_the_runtime(box: Container, cwd: str) -> None:
    """CVE-2024-21626 once more, by exec."""
    result = box.exec(*probe.command("cwd"), flags=["--cwd", cwd])
    assert result.code or result.answers.one("cwd").startswith("/proc"), str(result)


def test_no_process_of_the_host_can_be_reached(box: Container) -> None:
    """CVE-2019-5736: /proc/self/exe of what enters a container is the container's own program, never the runtime's."""
    assert box.ask("readlink /proc/self/exe").one("readlink /proc/self/exe") == "/bin/probe"


def test_it_sees_the_containers_processes(box: Container) -> None:
    """The executed process is a stranger in the pid namespace: no parent, and process 1 beside it."""
    answers = box.ask("pids", "process")
    own = answers.table("process")
    assert own["ppid"] == "0" and own["sid"] == own["pid"]
    assert sorted(answers["pids"]) == sorted(["1", own["pid"]])


def test_signals_are_forwarded(box: Container) -> None:
    """A foreground exec passes the signals that it gets on to its process."""
    command, base = box.runtime.spawn("exec", box.id, "/bin/probe", "trap", "10")
    out = Path(f"{base}.out")
    until(lambda: "ready" in out.read_text())
    command.send_signal(signal.SIGUSR1)
    until(lambda: "signal 10" in out.read_text())
    command.send_signal(signal.SIGTERM)
    assert command.wait(10) == 0


def test_run_forwards_signals_too(oci: Runtime, bundle: Bundle) -> None:
    """The same for a container in the foreground."""
    container = oci._new(bundle.asks("trap 10"))
    command, base = oci.spawn("run", "--bundle", bundle.path, container.id)
    out = Path(f"{base}.out")
    until(lambda: "ready" in out.read_text())
    command.send_signal(signal.SIGUSR1)
    until(lambda: "signal 10" in out.read_text())
    command.send_signal(signal.SIGTERM)
    assert command.wait(10) == 0


@pytest.fixture
def subgroup(box: Container) -> Iterator[str]:
    """A cgroup named `sub` below the container's in every hierarchy."""
    made = []
    for directory in cgroups_of(box.pid).values():
        made.append(directory / "sub")
        made[-1].mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (directory / file).exists():
                (made[-1] / file).write_text((directory / file).read_text())
    yield "sub"
    box.kill("KILL", "--all")
    box.wait()
    for directory in made:
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()


def cgroups_of(pid: int) -> dict[str, Path]:
    """Directories by hierarchy, those in which the container has one of its own."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=") or "unified"
        for top in (Path("/sys/fs/cgroup") / name, Path("/sys/fs/cgroup")):
            if path != "/" and (top / path[1:] / "cgroup.procs").exists():
                found[controllers] = top / path[1:]
                break
    return found


def cgroups_inside(box: Container, *flags: str) -> dict[str, str]:
    lines = box.ask("cat /proc/self/cgroup", flags=flags)["cat /proc/self/cgroup"]
    return {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}


def test_it_joins_a_cgroup_below(box: Container, subgroup: str) -> None:
    """runc-exec(8): "--cgroup path: Execute a process in a sub-cgroup." """
    inside = cgroups_inside(box, "--cgroup", subgroup)
    own = cgroups_of(box.pid)
    assert own and all(inside[name].endswith("/sub") for name in own), inside
    inside = cgroups_inside(box, "--cgroup", "/")
    assert not any(inside[name].endswith("/sub") for name in own), inside


def test_it_joins_a_cgroup_of_one_controller(box: Container, subgroup: str) -> None:
    """runc-exec(8): "For cgroup v1 only, a particular controller (or multiple comma-separated controllers) can be
    specified, and the option can be used multiple times"."""
    require("cgroup1")
    inside = cgroups_inside(box, "--cgroup", f"pids,memory:{subgroup}", "--cgroup", f"freezer:/{subgroup}")
    assert {name for name, path in inside.items() if path.endswith("/sub")} == {"pids", "memory", "freezer"}


@pytest.mark.parametrize(
    "flags", [["../.."], ["nosuch"], ["nosuch:sub"], ["a:b:c"], ["sub", "pids:sub"], ["pids:../x"]], ids=str
)
def test_a_cgroup_that_is_not_below_is_an_error(box: Container, flags: list[str]) -> None:
    """runc-exec(8): "If the specified cgroup does not exist, an error is returned." """
    words = [word for flag in flags for word in ("--cgroup", flag)]
    box.exec("/bin/probe", "true", flags=words).fails("cgroup")


@pytest.mark.parametrize("command", ["create", "run", "exec"])
def test_a_pidfd_is_sent(
    oci: Runtime, bundle: Bundle, box: Container, console: ConsoleSocket, directory: Path, command: str
) -> None:
    """runc(8): "--pidfd-socket: path to an AF_UNIX socket which will receive a file descriptor referencing the init
    process", or of the process that exec starts."""
    flags = ["--pidfd-socket", str(console.path), "--pid-file", str(directory / "pid")]
    if command == "exec":
        box.exec("/bin/probe", "sleep", "60", flags=["--detach", *flags]).ok()
    else:
        container = oci._new(second := Bundle(directory / "second", bundle.rootfs / "bin/probe", ""))
        second.process["env"] = bundle.process["env"]
        second.save()
        oci(command, "--bundle", second.path, *flags, *(["--detach"] if command == "run" else []), container.id).ok()
    pidfd = console.receive_fd()
    try:
        info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        assert f"Pid:\t{(directory / 'pid').read_text()}\n" in info
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("command", ["create", "exec"])
def test_a_pidfd_that_nobody_takes_is_an_error(
    oci: Runtime, bundle: Bundle, box: Container, directory: Path, command: str
) -> None:
    """Whoever asked for it would wait for ever."""
    before = oci.list()
    flags = ["--pidfd-socket", str(directory / "nobody.sock")]
    if command == "exec":
        box.exec("/bin/probe", "true", flags=flags).fails("socket")
    else:
        oci("create", "--bundle", bundle.path, *flags, f"{oci.name}-other").fails("socket")
    assert oci.list() == before


def test_a_paused_container_holds_it_back(box: Container) -> None:
    """runc-exec(8): "--ignore-paused: Allow exec in a paused container. By default, if a container is paused, runc exec
    errors out; this option can be used to override it. A paused container needs to be resumed for the exec to
    complete." """
    box.runtime("pause", box.id).ok()
    command, base = box.runtime.spawn("exec", "--ignore-paused", box.id, "/bin/probe", "echo", "late")
    time.sleep(0.3)
    assert command.poll() is None
    box.runtime("resume", box.id).ok()
    assert command.wait(10) == 0
    assert "late" in Path(f"{base}.out").read_text()


def test_it_joins_a_time_namespace(oci: Runtime, bundle: Bundle) -> None:
    """Where the runtime knows time namespaces, exec sees the same clocks."""
    require("time-namespaces")
    bundle.unshares("time").linux["timeOffsets"] = {"monotonic": {"secs": 100000}}
    container = oci._new(bundle)
    if oci("run", "--detach", "--bundle", bundle.path, container.id).code == 0:
        clock = container.ask("clock").table("clock")
        assert int(clock["monotonic"]) > time.clock_gettime(time.CLOCK_MONOTONIC) + 90000


def until(condition: Any, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    for _ in range(50):
        process = processes.read(pid)
        if not process or not process.alive:
            return True
        time.sleep(0.02)
    return False
