"""Programs in a virtual machine that runs: exec, popen, files, assertions, whole tests and an audit, as in a container.

In user-mode Linux, which boots in a second or two; what is of the line alone is in tests/unit/test_guest_line.py.
"""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import runtime
from runtime.engine.handle import RunningContainer
from runtime.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    NotFoundError,
    StateError,
    TimeoutExpiredError,
    UnsupportedError,
    UsageError,
)
from runtime.launch import GUEST, connect_in
from runtime.pytest_plugin import cannot_see, denied, limited
from tests.helpers.host import GUEST_KERNEL, require
from tests.helpers.warren import Warren

SECONDS = 120


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of busybox, which knows the applets that are asked for by `busybox NAME`, and no other program."""
    root = tmp_path_factory.mktemp("root")
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in "sh cat id pwd env ls echo sleep head yes true stty tty kill".split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\njoe:x:1000:1001::/home/joe:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\njoe:x:1001:\n")
    (root / "etc/text").write_text("no program\n")
    root.chmod(0o755)
    return root


@pytest.fixture(scope="module")
def machine(rootfs: Path) -> Iterator[RunningContainer]:
    """One for all tests that leave it as it was."""
    for feature in ("root", "user-mode-linux"):
        require(feature)
    with runtime.container(rootfs, isolation="vm:uml", memory="128m", pids=60, env={"OF": "the machine"}) as made:
        yield made


def said(machine: RunningContainer, script: str, **options: object) -> str:
    done = machine.exec(["sh", "-c", script], capture_output=True, text=True, check=True, **options)  # type: ignore[arg-type]
    return str(done.stdout)


# ---- exec and popen


def test_a_program_has_its_streams_and_its_exit_code(machine: RunningContainer) -> None:
    done = machine.exec(["sh", "-c", "cat; echo complaint >&2; exit 7"], input="given", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "given", "complaint\n")


def test_it_runs_in_the_guest(machine: RunningContainer) -> None:
    inside = machine.fs.read("/proc/sys/kernel/random/boot_id")
    assert len(inside) > 30 and inside != Path("/proc/sys/kernel/random/boot_id").read_bytes()


def test_user_directory_and_environment(machine: RunningContainer) -> None:
    told = said(
        machine, "id -u; id -g; pwd; echo $OF; echo $AND; echo $HOME", user="joe", cwd="/tmp", env={"AND": "mine"}
    )
    assert told.splitlines() == ["1000", "1001", "/tmp", "the machine", "mine", "/home/joe"]


def test_much_goes_both_ways_unharmed(machine: RunningContainer) -> None:
    data = os.urandom(400_000)
    assert machine.exec(["cat"], input=data, capture_output=True).stdout == data


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["missing"], CommandNotFoundError),
        (["/etc/text"], CommandNotExecutableError),
        (["/no/x"], CommandNotFoundError),
    ],
)
def test_what_cannot_be_executed(machine: RunningContainer, argv: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        machine.exec(argv)


def test_a_directory_that_there_is_not(machine: RunningContainer) -> None:
    with pytest.raises(runtime.WarrenError, match="/no/such"):
        machine.exec(["pwd"], cwd="/no/such")


def test_a_user_that_there_is_not(machine: RunningContainer) -> None:
    with pytest.raises(UsageError, match="jane"):
        machine.exec(["id"], user="jane")


def test_popen_talks_and_is_told_signals(machine: RunningContainer) -> None:
    script = "trap 'echo told; exit 9' TERM; read word; echo $word; while :; do sleep 0.1; done"
    with machine.popen(["sh", "-c", script], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == "hello\n"
        assert process.poll() is None
        process.terminate()
        assert process.stdout.readline() == "told\n"
        assert process.wait(SECONDS) == 9


def test_a_program_that_dies_of_a_signal(machine: RunningContainer) -> None:
    assert machine.exec(["sh", "-c", "kill -KILL $$"]).returncode == 137


def test_a_time_out_kills_it_in_the_guest(machine: RunningContainer) -> None:
    with pytest.raises(TimeoutExpiredError):
        machine.exec(["sleep", "4321"], timeout=0.5)
    deadline = time.monotonic() + SECONDS
    while "4321" in said(machine, "cat /proc/[0-9]*/cmdline") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "4321" not in said(machine, "cat /proc/[0-9]*/cmdline | head -c 10000")


def test_a_client_that_is_killed_takes_its_program_along(machine: RunningContainer) -> None:
    with machine.popen(["sleep", "8765"]) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(SECONDS) == 137
    deadline = time.monotonic() + SECONDS
    while "8765" in said(machine, "cat /proc/[0-9]*/cmdline") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "8765" not in said(machine, "cat /proc/[0-9]*/cmdline")


def test_whose_output_nobody_reads_holds_up_nobody(machine: RunningContainer) -> None:
    with machine.popen(["yes"], stdout=-1) as endless:
        for _ in range(3):
            assert machine.exec(["head", "-c", "100000", "/dev/zero"], capture_output=True).stdout == bytes(100_000)
        with machine.popen(["sleep", "100"], stdin=-1) as deaf:
            assert deaf.stdin
            os.set_blocking(deaf.stdin.fileno(), False)
            deaf.stdin.write(bytes(60_000))
            assert said(machine, "echo still here") == "still here\n"
            deaf.kill()
        assert endless.stdout
        endless.stdout.close()
        assert endless.wait(SECONDS) == 128 + signal.SIGPIPE, "nobody reads it any more"


def test_the_end_of_a_stream_is_seen_while_the_program_goes_on(machine: RunningContainer) -> None:
    with machine.popen(["sh", "-c", "echo all; exec >&-; sleep 100"], stdout=-1) as process:
        assert process.stdout and process.stdout.read() == b"all\n"
        assert process.poll() is None
        process.kill()


def test_what_is_started_in_the_background_does_not_keep_it_waiting(machine: RunningContainer) -> None:
    began = time.monotonic()
    pid = said(machine, "sleep 60 & echo $!; exit 0")
    assert time.monotonic() - began < 50
    assert said(machine, f"kill {pid}") == ""


def test_many_at_once(machine: RunningContainer) -> None:
    wrong: list[object] = []

    def work(own: int) -> None:
        for round in range(4):
            data = f"{own} {round}\n".encode() * 500
            done = machine.exec(["cat"], input=data, capture_output=True)
            if (done.returncode, done.stdout) != (0, data):
                wrong.append((own, round, done))

    threads = [threading.Thread(target=work, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_who_is_no_client_of_ours_harms_nobody_else(machine: RunningContainer) -> None:
    """Root of this host alone gets to the socket; what it says wrong ends what it is about, and no more."""

    def frame(kind: str, data: bytes = b"") -> bytes:
        return struct.pack("=BBH", ord(kind), 0, len(data)) + data

    opening = struct.pack("=IHHI", 100, 0, 0, 0)
    for words in (
        [frame("i", bytes(900))] * 5,
        [frame("P", b"a plan of nothing")],
        [frame("n", struct.pack("=IHHI", 0xFFFFFFFF, 0, 0, 0))],
        [frame("n", struct.pack("=IHHI", 0, 0, 0, 0))],
        [frame("n", opening), frame("P", bytes(101))],
        [frame("n", opening), frame("n", opening)],
        [frame("n", opening), frame("P", bytes(100)), frame("P", bytes(10))],
        [frame("n", b"short")],
        [frame("k", b""), frame("w", b"1"), frame("a", b"\x09"), frame("h", b"\x03"), frame("e")],
        [b"\xff" * 900],
    ):
        sock = connect_in(machine.record.state_dir.path, GUEST)
        sock.settimeout(SECONDS)
        for word in words:
            try:
                sock.send(word)
            except BrokenPipeError:
                break
        time.sleep(0.05)
        sock.close()
        assert said(machine, "echo still here") == "still here\n"
    assert machine.status == "running"


def test_a_plan_that_is_none_is_refused_with_a_reason(machine: RunningContainer) -> None:
    sock = connect_in(machine.record.state_dir.path, GUEST)
    sock.settimeout(SECONDS)
    sock.send(struct.pack("=BBHIHHI", ord("n"), 0, 12, 64, 0, 0, 0))
    sock.send(struct.pack("=BBH", ord("P"), 0, 64) + bytes(64))
    assert b"not a launch plan" in sock.recv(4096)
    assert sock.recv(4096) == b""
    sock.close()


def test_the_end_of_the_machine_is_the_end_of_its_programs(rootfs: Path) -> None:
    require("user-mode-linux")
    with runtime.container(rootfs, isolation="vm:uml") as short, short.popen(["sleep", "100"]) as process:
        short.signal(signal.SIGTERM)
        assert short.wait(SECONDS) == 143
        assert process.wait(SECONDS) == 137
        with pytest.raises(StateError):
            short.exec(["true"])


def test_a_paused_machine_is_told_apart(machine: RunningContainer) -> None:
    machine.pause()
    try:
        with pytest.raises(StateError, match="paused"):
            machine.exec(["true"])
    finally:
        machine.unpause()
    assert machine.exec(["true"]).returncode == 0


@pytest.mark.parametrize(("command", "status"), [("test -e /etc/text", "healthy"), ("test -e /etc/no", "unhealthy")])
def test_health_is_asked_in_the_guest(rootfs: Path, command: str, status: str) -> None:
    require("user-mode-linux")
    with runtime.container(
        rootfs, isolation="vm:uml", health_cmd=f"/bin/busybox {command}", health_interval="200ms", health_retries=1
    ) as made:
        if status == "healthy":
            made.wait_for(runtime.wait.healthy(), SECONDS)
        deadline = time.monotonic() + SECONDS
        while made.inspect()["State"]["Health"]["Status"] == "starting" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert made.inspect()["State"]["Health"]["Status"] == status


# ---- files


def test_files_are_the_guests(machine: RunningContainer) -> None:
    data = os.urandom(100_000)
    machine.fs.write("/tmp/data", data, mode=0o640)
    assert machine.fs.read("/tmp/data") == data
    assert machine.fs.read("/tmp/data", limit=10) == data[:10]
    assert said(machine, "ls -l /tmp/data").startswith("-rw-r-----")
    machine.fs.write("/tmp/data", "shorter")
    assert machine.fs.read_text("/tmp/data") == "shorter"


def test_files_that_cannot_be_had(machine: RunningContainer, tmp_path: Path) -> None:
    for path, error in (("/nothing", NotFoundError), ("/tmp", UsageError), ("/dev/zero", UsageError)):
        with pytest.raises(error):
            machine.fs.read(path)
    with pytest.raises(NotFoundError):
        machine.fs.write("/no/such/place", b"")
    with pytest.raises(StateError, match="read-only"):
        machine.fs.write("/proc/sys/kernel/panic", b"1")
    with pytest.raises(UnsupportedError, match="directory"):
        machine.fs.put(tmp_path, "/tmp/tree")


def test_a_read_that_is_interrupted_ends(machine: RunningContainer) -> None:
    """What stands for it here is not waited for while it waits for us to read."""

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    said(machine, "busybox truncate -s 1000000000000 /tmp/endless")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.alarm(3)
        with pytest.raises(Interrupted):
            machine.fs.read("/tmp/endless", limit=10)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert said(machine, "rm /tmp/endless; echo goes on") == "goes on\n"


@pytest.mark.parametrize("verb", ["diff", "commit"])
def test_what_a_machine_cannot_do_is_refused_with_a_reason(machine: RunningContainer, verb: str) -> None:
    with pytest.raises(UnsupportedError, match="is a virtual machine"):
        getattr(machine, verb)()


# ---- what a container may not do its guest's programs may not do


def test_isolation_assertions(machine: RunningContainer) -> None:
    for action in ("mount", "bpf", "userns", "io_uring", "mknod", "keyring", "log", "x32"):
        denied(action, container=machine)
    denied("open", "/proc/sys/kernel/panic", mode="w", container=machine)
    denied("open", "/dev/ttyS0", container=machine)
    cannot_see(path=machine.record.state_dir.path, process=os.getpid(), container=machine)
    cannot_see(network=("192.0.2.1", 80), container=machine)
    with pytest.raises(AssertionError, match="it is a virtual machine"):
        denied("read", "/etc/text", container=machine)
    with pytest.raises(AssertionError, match="can be seen"):
        cannot_see(path="/etc/text", container=machine)


def test_limits_are_held(machine: RunningContainer) -> None:
    limited(pids=60, memory="128m", container=machine)
    with pytest.raises(AssertionError, match="processes could be started"):
        limited(pids=20, container=machine)
    assert machine.exec(["true"]).returncode == 0


def test_time_is_limited(rootfs: Path) -> None:
    require("user-mode-linux")
    with runtime.container(rootfs, isolation="vm:uml", cpus=0.5) as half:
        limited(cpus=0.5, container=half)
        with pytest.raises(AssertionError, match="processors could be used"):
            limited(cpus=0.2, container=half)


def test_privileged_programs_may_do_all_of_it(rootfs: Path) -> None:
    require("user-mode-linux")
    with runtime.container(rootfs, isolation="vm:uml", privileged=True) as ruler:
        for action in ("mount", "bpf", "userns", "mknod"):
            with pytest.raises(AssertionError, match="is not denied"):
                denied(action, container=ruler)


# ---- whole tests


PLUGIN_TESTS = """
import os
import pytest
from runtime.pytest_plugin import cannot_see, denied, limited

HOST = {host!r}

@pytest.mark.container(image=HOST["rootfs"], isolation=["container", "vm:uml"], memory="128m", pids=50)
def test_both(container):
    assert container.exec(["/bin/echo", "word"], capture_output=True, text=True).stdout == "word\\n"
    denied("mount", container=container)
    denied("bpf", container=container)
    cannot_see(process=os.getppid(), container=container)
    limited(pids=50, container=container)

@pytest.mark.inside(isolation="vm:uml")
def test_inside():
    own = open("/proc/sys/kernel/random/boot_id").read()
    assert own != HOST["boot_id"]
    assert os.path.exists(HOST["file"])
    denied("mount")
    limited(pids=1024)

@pytest.mark.inside(isolation="vm:uml")
def test_inside_fails():
    value = [1, 2]
    assert value == [1, 3]
"""


def test_the_plugin_runs_the_same_tests_in_machines(rootfs: Path, tmp_path: Path) -> None:
    for feature in ("root", "user-mode-linux"):
        require(feature)
    file = tmp_path / "test_it.py"
    host = {"rootfs": str(rootfs), "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(), "file": str(file)}
    file.write_text(PLUGIN_TESTS.format(host=host))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--color=no", "-p", "no:cacheprovider", "--container-strict", file],
        cwd=tmp_path, capture_output=True, text=True, timeout=5 * SECONDS,
    )  # fmt: skip
    for line in ("test_both[container] PASSED", "test_both[vm:uml] PASSED", "test_inside PASSED",
                 "test_inside_fails FAILED", "assert [1, 2] == [1, 3]", "1 failed, 3 passed"):  # fmt: skip
        assert line in done.stdout, done.stdout + done.stderr


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    for feature in ("root", "user-mode-linux"):
        require(feature)
    text = (Path(__file__).parents[2] / "docs/pytest.md").read_text()
    (example,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "test_it.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--container-strict", "test_it.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=3 * SECONDS,
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout + done.stderr


# ---- audit


def test_an_audit_tells_both_sides_beside_each_other() -> None:
    """What --privileged takes away of a container it does not take away of a machine: its kernel is its own."""
    for feature in ("root", "user-mode-linux"):
        require(feature)
    warren = Warren()
    result = warren("audit", "--beside", "vm:uml", "--privileged", "--format", "json", "host", timeout=SECONDS)
    container, machine = json.loads(result.out)
    assert (container["isolation"], machine["isolation"]) == ("container", "vm:uml")
    assert container["grade"] == "F" and (machine["grade"], machine["failed"]) == ("A", 0)
    seen = {one["key"]: one["seen"] for one in machine["findings"]}
    assert seen["mount"].startswith("to its own kernel; outside it: ")
    assert result.code == 1
    table = warren("audit", "--beside", "container", "--isolation", "vm:uml", "host", timeout=SECONDS).ok().out
    assert "host as vm:uml: grade A" in table and "host as container: grade A" in table


def test_an_audit_of_a_machine_can_fail(machine: RunningContainer, rootfs: Path) -> None:
    report = runtime.audit(machine.id)
    assert (report.isolation, report.failed) == ("vm:uml", [])
    with runtime.container(rootfs, isolation="vm:uml", pids=0) as unlimited:
        state = unlimited.record.state_dir.path
        assert [one.key for one in runtime.audit(unlimited.id).failed] == ["pids"]
    with runtime.container(
        rootfs, isolation="vm:uml", mounts=[f"{os.path.dirname(state)}:{os.path.dirname(state)}:ro"]
    ) as open_to:
        assert "host-file" in [one.key for one in runtime.audit(open_to.id).failed]


# ---- nothing is left


def test_a_socket_goes_with_the_machine(rootfs: Path) -> None:
    require("user-mode-linux")
    with runtime.container(rootfs, isolation="vm:uml") as made:
        directory = made.record.state_dir.path
        mode = os.stat(directory).st_mode
        assert mode & 0o077 == 0, "only its owner gets to the socket"
        connect_in(directory, GUEST).close()
    assert not os.path.exists(directory)


# ---- the other kinds


@pytest.mark.parametrize("kind", ["microvm", "pc"])
def test_the_line_of_emulated_machines(rootfs: Path, kind: str) -> None:
    """One boot each, since it takes its time: a virtio port, and a serial one that loses what is not read."""
    for feature in ("root", "qemu", "guest-kernel"):
        require(feature)
    kernel = str(next(GUEST_KERNEL.glob("boot/vmlinuz-*")))
    with runtime.container(
        rootfs, isolation=f"vm:{kind}", kernel=kernel, accel="tcg", boot_timeout=110, memory="192m", pids=40
    ) as made:
        data = os.urandom(60_000)
        assert made.exec(["cat"], input=data, capture_output=True).stdout == data
        assert said(made, "id -u; exit 0", user="joe") == "1000\n"
        for action in ("mount", "bpf", "mknod"):
            denied(action, container=made)
        limited(pids=40, container=made)
        assert runtime.audit(made.id).failed == []
