"""The monitor beside real containers: what it is spared of them, terminals, full disks, and deaths of all kinds."""

import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.config import ContainerConfig, make_spec, raw_config
from runtime.container import Container
from runtime.errors import CommandNotFoundError, HookError, LaunchError
from runtime.host import Host
from runtime.launch import Options
from runtime.monitor import Client, Events, Exit, Log, make_monitor, read_exit
from runtime.spec import Bundle
from runtime.state import StateDir
from runtime.syscalls import wait
from tests.helpers import processes
from tests.unit.test_monitor import SECONDS, collect_until_x, gone, next_message, program, until

ROOT = Path(__file__).parents[2]
COUNT = 300 if os.environ.get("WARREN_LONG") else 25
SEED = int(os.environ.get("WARREN_SEED") or time.time())
FIRST_ID = 0x7A000000
PATH = "PATH=/usr/bin:/bin"


class Run:
    """A container with its monitor; `durable` is where the log and the exit code go."""

    def __init__(self, directory: Path, id: str, script: str, options: dict[str, Any]) -> None:
        self.durable = directory / "durable"
        self.durable.mkdir(exist_ok=True)
        self.root = str(options.pop("root", directory / "state"))
        change = options.pop("change", None)
        log = options.pop("log", Log(str(self.durable), "log"))
        launch = {name: options.pop(name) for name in ("init", "preserve_fds", "pid_file") if name in options}
        config = ContainerConfig(
            ["/bin/sh", "-c", script], id=id, network="none", tty=options.get("terminal", False),
            userns=options.pop("userns", "host"), pid=options.pop("pid_namespace", ""),
        )  # fmt: skip
        spec = make_spec(config, Host.probe(), FIRST_ID, {})
        if change:
            change(spec.config)
        self.monitor, self.owner = make_monitor(log=log, exit_directory=str(self.durable), **options)
        self.container = Container(id, self.root)
        self.state = StateDir(self.root, id)
        self.pid = 0
        try:
            bundle = Bundle("/", spec, raw_config(spec))
            self.pid = self.container.run(bundle, Options(monitor=self.monitor, cgroup_manager="auto", **launch))
        finally:
            self.monitor.close()

    def attach(self) -> Client:
        return Client.connect(self.state.path)

    def finish(self) -> Exit:
        """Wait for the monitor; what it has written down."""
        assert wait(self.monitor.pid) == 0
        self.monitor.pid = 0
        found = read_exit(str(self.durable))
        assert found
        return found

    def log(self) -> str:
        return (self.durable / "log").read_text()

    def close(self) -> None:
        if self.owner:
            self.owner.close()
        self.container.delete(force=True)
        if self.monitor.pid:
            wait(self.monitor.pid)


@pytest.fixture
def run(directory: Path, token: str) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def begin(script: str, **options: Any) -> Run:
        id = options.pop("id", f"wrn-{token}-{directory.name[-6:]}-{len(made)}")
        made.append(Run(directory, id, script, options))
        return made[-1]

    yield begin
    for one in made:
        one.close()


Start = Callable[..., Run]


def test_who_is_whose_child(run: Start) -> None:
    one = run("sleep 1000")
    assert one.state.process() == one.pid
    assert one.state.monitor() == one.monitor.pid
    monitor, container = processes.read(one.monitor.pid), processes.read(one.pid)
    assert monitor and container
    assert container.parent == monitor.pid
    assert monitor.parent == os.getpid()
    assert monitor.name == "warren-monitor"


def test_the_monitor_is_outside(run: Start) -> None:
    """Of the container's cgroup, whose limits are not the monitor's, and of all its namespaces."""
    one = run("sleep 1000", userns="")
    own, theirs = Path(f"/proc/{one.monitor.pid}"), Path(f"/proc/{one.pid}")
    assert (own / "cgroup").read_text() == Path("/proc/self/cgroup").read_text()
    assert (own / "cgroup").read_text() != (theirs / "cgroup").read_text()
    for kind in ("mnt", "pid", "ipc", "uts", "net", "user", "cgroup"):
        assert os.readlink(own / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}")
        assert os.readlink(own / "ns" / kind) != os.readlink(theirs / "ns" / kind)
    assert os.readlink(own / "cwd") == "/"
    until(lambda: os.getsid(one.monitor.pid) == one.monitor.pid)


def test_it_is_small(run: Start) -> None:
    """Beside a whole container, whose plan is larger than one of the unit tests'."""
    one = run("seq 1 100000; sleep 1000", owner=True)
    assert one.owner
    received = b""
    while len(received) < 588895:
        received += next_message(one.owner)[1]
    rollup = Path(f"/proc/{one.monitor.pid}/smaps_rollup")
    until(lambda: int(rollup.read_text().split("\nPss:")[1].split()[0]) < 100)


@pytest.mark.parametrize("userns", ["host", ""])
@pytest.mark.parametrize("init", [False, True])
def test_output_exit_code_and_log(run: Start, userns: str, init: bool) -> None:
    one = run("echo out; echo err >&2; exit 7", userns=userns, init=init, owner=True)
    assert one.owner
    found = collect_until_x(one.owner)
    assert (found["o"], found["E"]) == (b"out\n", b"err\n")
    one.owner.done()
    assert one.finish().code == 7
    assert one.log().count("\n") == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_container(run: Start, number: int) -> None:
    one = run("sleep 1000", pid_namespace="host")
    one.container.kill(number)
    assert one.finish().code == 128 + number


def test_only_standard_streams_reach_the_container(run: Start) -> None:
    saved = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 100)
    with open("/dev/zero") as kept:
        os.dup2(kept.fileno(), 3)
    try:
        one = run("ls -l /proc/self/fd >&2", preserve_fds=1, stdin=True, owner=True)
    finally:
        os.dup2(saved, 3, inheritable=False)
        os.close(saved)
    assert one.owner
    found = collect_until_x(one.owner)
    names = [line.split()[-3] for line in found["E"].decode().splitlines()[1:]]
    assert names == ["0", "1", "2", "3", "4"], found["E"]
    assert b"3 -> /dev/zero" in found["E"]


def test_orphans_of_a_container_without_a_pid_namespace(run: Start) -> None:
    one = run("(sleep 0.05 &); (sleep 0.1 &); sleep 0.3", pid_namespace="host")
    children = lambda: [p for p in processes.everything() if p.parent == one.monitor.pid]  # noqa: E731
    until(lambda: len(children()) == 1 or not processes.read(one.pid))
    assert one.finish().code == 0


def test_long_names_and_paths(run: Start, directory: Path, token: str) -> None:
    """A full id, and a state root for which AF_UNIX has no room."""
    root = directory / ("long" * 15) / ("path" * 15)
    id = (token * 8)[:64]
    one = run("read line; echo $line", stdin=True, root=root, id=id)
    assert len(one.state.path) > 200
    client = one.attach()
    client.send_input(b"hello\n")
    assert collect_until_x(client)["o"] == b"hello\n"
    client.close()
    assert one.finish().code == 0


def test_two_clients(run: Start) -> None:
    one = run("read a; echo $a; read b; echo $b >&2; exit 3", stdin=True)
    first, second = one.attach(), one.attach()
    second.send_input(b"one\n")
    assert next_message(first) == ("o", b"one\n")
    assert next_message(second) == ("o", b"one\n")
    first.send_input(b"two\n")
    assert next_message(second) == ("E", b"two\n")
    assert first.wait(SECONDS) == second.wait(SECONDS) == 3
    first.close()
    second.close()


def test_the_socket_is_its_users_only(run: Start) -> None:
    one = run("sleep 1000")
    assert os.stat(one.state.path).st_mode & 0o777 == 0o700
    script = "import os, socket; os.fchdir({}); s = socket.socket(1, 5); s.connect('attach'); print(s.recv(9))"
    held = os.open(one.state.path, os.O_PATH)
    os.set_inheritable(held, True)
    os.chmod(one.state.path, 0o755)
    os.chmod(one.state.path + "/attach", 0o777)
    for parent in (one.root, str(Path(one.root).parent)):
        os.chmod(parent, 0o755)
    try:
        done = subprocess.run(
            ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "/usr/bin/python3", "-c",
             script.format(held)],
            pass_fds=[held], capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
    finally:
        os.close(held)
    assert done.stdout == "b''\n", done.stderr


# ---- terminals -----------------------------------------------------------------------------------------------------


def receive_until(client: Client, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        kind, data = next_message(client)
        assert kind == "o", (kind, seen)
        seen += data
    return seen


def test_a_terminal(run: Start) -> None:
    one = run(
        "tty; stty size; read line; stty size; echo got $line; read more || echo ended", terminal=True, owner=True
    )
    assert one.owner
    assert receive_until(one.owner, b"0 0\r\n").startswith(b"/dev/pts/0\r\n")
    other = one.attach()
    assert other.resize(33, 111)
    other.send_input(b"hello\n")
    assert b"hello\r\n33 111\r\n" in receive_until(other, b"got hello\r\n")
    receive_until(one.owner, b"got hello\r\n")
    one.owner.send_input(b"\x04")
    receive_until(one.owner, b"ended\r\n")
    assert one.owner.wait(SECONDS) == 0
    other.close()
    one.owner.done()
    one.finish()
    assert '"log":"got hello\\r\\n","stream":"stdout"' in one.log()


def test_a_terminal_that_is_closed_for_a_while(run: Start) -> None:
    one = run("exec </dev/null >/dev/null 2>&1; sleep 0.3; echo back >/dev/console; exit 4", terminal=True, owner=True)
    assert one.owner
    found = collect_until_x(one.owner)
    assert found["o"] == b"back\r\n"
    assert found["x"] == b"\4\0\0\0"


def test_the_last_words_of_a_terminal(run: Start) -> None:
    for _ in range(10):
        one = run("seq 1 2000", terminal=True, owner=True)
        assert one.owner
        found = collect_until_x(one.owner)["o"].decode().split("\r\n")
        assert found == [str(number) for number in range(1, 2001)] + [""]
        one.owner.done()
        one.finish()


def test_an_orphan_that_keeps_the_terminal(run: Start) -> None:
    one = run("trap '' HUP; sleep 1000 & echo $!", terminal=True, pid_namespace="host")
    assert one.finish().code == 0
    assert '\\r\\n","stream"' in one.log()


def test_a_slow_client_of_a_terminal(run: Start) -> None:
    one = run("seq 1 100000; sleep 0.1; exit 5", terminal=True, owner=True)
    assert one.owner
    time.sleep(0.3)
    found = collect_until_x(one.owner)
    assert found["o"].decode().split("\r\n")[:-1] == [str(number) for number in range(1, 100001)]


# ---- disks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    place = directory / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "warren-test", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("format", ["json-file", "k8s-file"])
def test_a_full_disk_costs_the_log_and_nothing_else(run: Start, small_disk: Path, directory: Path, format: str) -> None:
    """Also the exit code, which is on the same disk, is kept."""
    log = Log(str(small_disk), "log", format=format)
    (directory / "durable").symlink_to(small_disk)
    one = run("seq 1 100000; read go; echo later; exit 6", log=log, stdin=True, owner=True)
    assert one.owner
    received = b""
    while len(received) < 588895:
        received += next_message(one.owner)[1]
    assert received == b"".join(b"%d\n" % number for number in range(1, 100001))
    content = (small_disk / "log").read_bytes()
    assert 30000 < len(content) < 131072
    assert content.endswith(b"\n"), "no entry is cut off"
    os.truncate(small_disk / "log", 0)
    one.owner.send_input(b"\n")
    assert one.owner.wait(SECONDS) == 6
    one.owner.done()
    end = one.finish()
    assert end.lost > 400000
    text = (small_disk / "log").read_text().splitlines()
    told = re.compile(r"warren: (\d+) bytes of output were lost: no space left on device")
    entries = [*content.decode().splitlines(), *text]
    assert sum(int(number) for entry in entries for number in told.findall(entry)) == end.lost
    assert all("stderr" in entry for entry in entries if told.search(entry))
    assert "later" in text[-1]


def test_a_full_disk_for_good(run: Start, small_disk: Path, directory: Path) -> None:
    (directory / "durable").symlink_to(small_disk)
    with open(small_disk / "filler", "wb") as filler:
        filler.write(bytes(100 << 10))
    one = run("seq 1 100000; exit 9")
    end = one.finish()
    assert end.code == 9
    assert end.lost > 500000


def test_a_disk_without_any_room_is_an_error_at_the_start(run: Start, small_disk: Path, directory: Path) -> None:
    (directory / "durable").symlink_to(small_disk)
    subprocess.run(["dd", "if=/dev/zero", f"of={small_disk}/filler"], stderr=subprocess.DEVNULL)
    with pytest.raises(LaunchError, match=r"step 2: leave a monitor behind.*ENOSPC.*is there room"):
        run("true")


def test_a_read_only_log_is_an_error_at_the_start(run: Start, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(LaunchError, match=r"step 1: log to log in .*EROFS.*can the log be written there"):
        run("true", log=Log(str(small_disk), "log"))


# ---- launches that fail --------------------------------------------------------------------------------------------


def strays() -> list[str]:
    """Our children that are monitors or `init`, zombies too."""
    return [p.name for p in processes.everything() if p.parent == os.getpid() and p.name.startswith("warren-")]


def test_a_failed_launch_leaves_nothing(run: Start, directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    events = Events(program(directory), [PATH])

    def no_such_program(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["/no/such/program"]

    def failing_hook(config: dict[str, Any]) -> None:
        config["hooks"] = {"poststart": [{"path": "/bin/false"}]}

    def failing_mount(config: dict[str, Any]) -> None:
        config["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]})

    for change, error in (
        (no_such_program, CommandNotFoundError), (failing_hook, HookError), (failing_mount, LaunchError),
    ):  # fmt: skip
        with pytest.raises(error):
            run("sleep 1000", change=change, events=events)
        assert strays() == []
        assert not (directory / "told").exists()
        assert os.listdir(directory / "durable") == ["log"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_step_is_counted_with_those_of_the_monitor(run: Start) -> None:
    def change(config: dict[str, Any]) -> None:
        config["process"]["cwd"] = "/proc/version"

    with pytest.raises(LaunchError, match=r"step [0-9]+: change directory to /proc/version"):
        run("true", change=change)


def test_a_monitor_that_is_killed_during_the_launch(run: Start, directory: Path) -> None:
    hook = directory / "hook"
    hook.write_text(f"#!/bin/sh\npkill -KILL -P {os.getpid()} warren-\n")
    hook.chmod(0o755)

    def change(config: dict[str, Any]) -> None:
        config["hooks"] = {"poststart": [{"path": str(hook)}]}

    with pytest.raises(LaunchError, match="monitor was killed"):
        run("sleep 1000", change=change)
    assert strays() == []


# ---- deaths --------------------------------------------------------------------------------------------------------


def ours() -> list[processes.Process]:
    """Monitors and inits that have lost their launcher: children of the reaper above the tests."""
    found = [p for p in processes.everything() if p.name.startswith("warren-") and p.parent in processes._roots]
    return [p for p in found if not processes.guards(p)]  # That of the tests' own use of the library.


def test_a_launcher_killed_anywhere(directory: Path, token: str) -> None:
    """Either the container runs with its monitor, and both are known, or nothing of it does."""
    dice = random.Random(SEED)
    durable, root = directory / "durable", str(directory / "state")
    durable.mkdir()
    running = 0
    for number in range(COUNT):
        name = f"wrn-{token}-kill-{number}"
        command = [sys.executable, ROOT / "tests/helpers/launcher.py", ROOT, root, durable, name, "sleep", "1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
            assert launcher.stdout
            launcher.stdout.readline()
            time.sleep(dice.uniform(0, 0.04))
            launcher.kill()
        state = StateDir(root, name)

        def settled(state: StateDir = state) -> bool:
            process, monitor = state.process(), state.monitor()
            return bool(process and monitor) or not (process or monitor or ours())

        deadline, times = time.monotonic() + SECONDS, 0
        while times < 10:  # And stays so: what was just being made when its launcher was killed is ending.
            times = times + 1 if settled() else 0
            assert time.monotonic() < deadline, f"WARREN_SEED={SEED} round {number}: {ours()}"
            time.sleep(0.005)
        running += bool(state.process())
        monitor = state.monitor()
        Container(name, root).delete(force=True)
        until(lambda monitor=monitor: not monitor or gone(monitor))
    assert 0 < running < COUNT
    assert strays() == []


def test_a_monitor_killed_takes_the_container_with_it(run: Start) -> None:
    one = run("trap '' TERM; sleep 1000 & sleep 1000", userns="")
    os.kill(one.monitor.pid, signal.SIGKILL)
    wait(one.monitor.pid)
    one.monitor.pid = 0
    until(lambda: gone(one.pid))
    assert one.state.monitor() == one.state.process() == 0
    assert read_exit(str(one.durable)) is None
    assert one.container.state()["status"] == "stopped"


def test_a_restart_by_the_program_is_a_monitor_of_its_own(run: Start, directory: Path, token: str) -> None:
    """What `warren _event` does: a new container from below the old monitor, which ends."""
    name = f"wrn-{token}-again"
    launcher = (
        f"{sys.executable} {ROOT}/tests/helpers/launcher.py {ROOT} {directory}/state {directory}/durable {name}"
        f" sleep 1000 >{directory}/out 2>&1"
    )
    (directory / "state").mkdir(mode=0o700)
    one = run("exit 1", events=Events(program(directory, launcher), [PATH, f"{processes.MARKER}={token}"]))
    assert one.finish().code == 1
    state = StateDir(str(directory / "state"), name)
    assert state.process(), (directory / "out").read_text()
    monitor = processes.read(state.monitor())
    assert monitor and monitor.name == "warren-monitor"
    Container(name, str(directory / "state")).delete(force=True)
    until(lambda: gone(monitor.pid))
