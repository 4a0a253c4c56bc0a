"""`run --isolation vm`: what holds for a container holds for the same image as a virtual machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.host import GUEST_KERNEL, require
from tests.helpers.processes import everything, namespace
from tests.helpers.terminal import Person
from tests.helpers.warren import PROGRAM, Warren

NEEDS = {"uml": ["user-mode-linux"], "microvm": ["qemu", "guest-kernel"], "pc": ["qemu", "guest-kernel"]}
SECONDS = 120
"""An emulated machine boots in 5 s here, on a busy machine in a multiple of that."""


class Machine:
    """`warren run` with one kind of machine and the busybox root."""

    def __init__(self, kind: str, rootfs: Path) -> None:
        self.kind = kind
        self.rootfs = rootfs
        self.warren = Warren()

    def options(self, *words: str | Path) -> list[str | Path]:
        kernel: list[str | Path] = []
        if self.kind != "uml":
            kernel = ["--kernel", next(GUEST_KERNEL.glob("boot/vmlinuz-*")), "--accel", "tcg"]
        return ["--isolation", f"vm:{self.kind}", "--boot-timeout", "110", *kernel, *words, "--rootfs", self.rootfs]

    def run(self, *words: str | Path, options: tuple[str | Path, ...] = (), input: str = ""):
        return self.warren("run", *self.options(*options), *words, input=input, timeout=SECONDS)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for name in ("bin", "etc", "tmp", "data"):
        (root / name).mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in "sh cat id uname pwd env ls echo sleep mount stty tty head dd true kill wget md5sum touch".split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\njoe:x:1000:1001::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\njoe:x:1001:\n")
    (root / "etc/motd").write_text("image\n")
    root.chmod(0o755)
    return root


def machine_of(kind: str, rootfs: Path) -> Machine:
    for feature in ["root", *NEEDS[kind]]:
        require(feature)
    return Machine(kind, rootfs)


@pytest.fixture(params=["uml", "microvm"])
def machine(request: pytest.FixtureRequest, rootfs: Path) -> Machine:
    return machine_of(request.param, rootfs)


@pytest.fixture
def uml(rootfs: Path) -> Machine:
    return machine_of("uml", rootfs)


class Running:
    """A machine that runs by a name, and its processes: those of its own pid namespace."""

    def __init__(self, machine: Machine) -> None:
        self.name = f"vm-{os.getpid()}"
        self.warren = machine.warren
        words = ["run", "--name", self.name, *machine.options(), "sh", "-c", "echo up; sleep 1000"]
        self.command = self.warren.popen(*words)
        assert self.command.stdout is not None and self.command.stdout.readline() == "up\n"
        state = json.loads(self.warren("inspect", self.name).ok().out)[0]["State"]
        self.supervisor = int(state["Pid"])
        self.space = namespace(self.supervisor, "pid")

    def processes(self) -> list[int]:
        return [one.pid for one in everything() if namespace(one.pid, "pid") == self.space]

    def hypervisor(self) -> int:
        """The supervisor's first child."""
        return min(one.pid for one in everything() if one.parent == self.supervisor)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.command.kill()
        self.command.communicate()
        self.warren("rm", "-f", self.name, timeout=SECONDS)


def test_it_is_the_same_with_a_kernel_of_its_own(machine: Machine, tmp_path: Path) -> None:
    """One boot, since it is emulated: exit code, streams, user, environment, directory, root, volumes."""
    tmp_path.chmod(0o777)
    (tmp_path / "given").write_text("from the host\n")
    (tmp_path / "file").write_text("a file\n")
    script = """
        uname -r; id -u; id -g; pwd; echo $WORD; cat /etc/motd; echo changed >/etc/motd 2>/dev/null; cat /etc/motd
        cat /data/given; echo written >/data/new; cat /config; (echo no >/config) 2>/dev/null || echo read-only
        echo complaint >&2; exit 7
    """
    done = machine.run(
        "sh", "-c", script,
        options=("-u", "0:1001", "-w", "/tmp", "-e", "WORD=two words", "-v", f"{tmp_path}:/data", "-v",
                 f"{tmp_path / 'file'}:/config:ro"),
    )  # fmt: skip
    assert done.code == 7, str(done)
    kernel, *rest = done.out.splitlines()
    assert kernel != os.uname().release
    assert rest == ["0", "1001", "/tmp", "two words", "image", "changed", "from the host", "a file", "read-only"]
    assert done.err == "complaint\n"
    assert (tmp_path / "new").read_text() == "written\n"
    assert (machine.rootfs / "etc/motd").read_text() == "image\n"


def test_a_pc_boots_from_a_disk(rootfs: Path) -> None:
    pc = machine_of("pc", rootfs)
    done = pc.run("sh", "-c", "cat /etc/motd; mount | head -1; echo >/etc/motd; id -u; exit 3", options=("-u", "joe"))
    assert done.code == 3, str(done)
    motd, root, user = done.out.splitlines()
    assert (motd, user) == ("image", "1000") and root.startswith("overlay on / ")


def test_input_and_output_are_unharmed(uml: Machine, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    command = [PROGRAM, "run", "--rm", "-i", *map(str, uml.options()), "cat"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


def test_memory_is_the_size_of_the_machine(machine: Machine) -> None:
    done = machine.run("sh", "-c", "head -1 /proc/meminfo", options=("-m", "160m")).ok()
    assert 80 << 10 < int(done.out.split()[1]) < 160 << 10


def test_more_memory_than_there_is_ends_the_program(uml: Machine) -> None:
    """The guest's own kernel kills it; the host's is not asked."""
    done = uml.run("sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?", options=("-m", "96m"))
    assert "0" not in done.out.split() and done.code == 0, str(done)


def test_signals_reach_the_program(machine: Machine) -> None:
    script = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    process = machine.warren.popen("run", "--rm", *machine.options(), "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=SECONDS)
    assert (out, process.returncode) == ("told\n", 9)


@pytest.mark.parametrize(("number", "code"), [("TERM", 143), ("KILL", 137)])
def test_a_program_that_dies_of_a_signal(uml: Machine, number: str, code: int) -> None:
    assert uml.run("sh", "-c", f"kill -{number} $$").code == code


def test_nothing_is_left_when_the_command_is_killed(machine: Machine) -> None:
    """The machine goes on, as a container does; its removal leaves no hypervisor."""
    with Running(machine) as running:
        assert len(running.processes()) >= 2
        running.command.kill()
        running.command.communicate()
        running.warren("rm", "-f", running.name, timeout=SECONDS).ok()
        assert running.processes() == []


def test_a_hypervisor_that_is_killed_ends_the_container(machine: Machine) -> None:
    with Running(machine) as running:
        os.kill(running.hypervisor(), signal.SIGKILL)
        running.command.communicate(timeout=60)
        assert running.command.returncode == 137
        assert running.processes() == []


def test_a_supervisor_that_is_killed_takes_the_hypervisor_along(uml: Machine) -> None:
    with Running(uml) as running:
        os.kill(running.supervisor, signal.SIGKILL)
        running.command.communicate(timeout=60)
        assert running.command.returncode == 137
        assert running.processes() == []


def test_a_terminal_is_the_guests_own(uml: Machine) -> None:
    with Person(PROGRAM, "run", "--rm", "-it", *map(str, uml.options()), "sh") as person:
        person.sees("# ", 60)
        person.resize(33, 77)
        time.sleep(0.5)
        person.types("stty size; tty; exit 5\n")
        seen = person.sees("/dev/pts/", 60)
        assert "33 77" in seen
        assert person.ends(60) == 5


@pytest.mark.parametrize(
    ("command", "code", "word"),
    [
        ("missing", 127, "executable file not found"),
        ("/etc/motd", 126, "permission denied"),
        ("/nowhere/x", 127, "no such"),
    ],
)
def test_a_command_that_cannot_run(uml: Machine, command: str, code: int, word: str) -> None:
    uml.run(command).fails(code, word)


def test_it_does_not_wait_for_ever_for_a_boot(machine: Machine) -> None:
    words = machine.options()
    words[words.index("110")] = "0.2"
    machine.warren("run", *words, "true", timeout=60).fails(125, "did not come up in time", machine.kind)


def test_verbs_of_containers(uml: Machine) -> None:
    name = f"vm-{os.getpid()}"
    warren = uml.warren
    script = "trap 'echo bye; exit 4' TERM; echo hello; while :; do sleep 0.1; done"
    warren("run", "-d", "--name", name, *uml.options(), "sh", "-c", script, timeout=SECONDS).ok()
    try:
        assert name in warren("ps").ok().out
        done = warren("exec", "-e", "A=b", name, "sh", "-c", "echo $A; echo complaint >&2; exit 6")
        assert (done.code, done.out, done.err) == (6, "b\n", "complaint\n")
        warren("exec", name, "missing").fails(127, "executable file not found")
        warren("cp", f"{name}:/etc/motd", "/tmp").fails(125, "is a virtual machine")
        warren("diff", name).fails(125, "is a virtual machine")
        warren("stop", name, timeout=SECONDS).ok()
        assert warren("wait", name).ok().out == "4\n"
        assert warren("logs", name).ok().out == "hello\nbye\n"
    finally:
        warren("rm", "-f", name).ok()


@pytest.fixture
def greeting() -> Iterator[int]:
    """Port of a server on this host's loopback that says hello to one who connects."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello guest\n")

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def test_the_network_reaches_out(machine: Machine, greeting: int) -> None:
    if machine.kind == "uml":
        require("slirp")
    done = machine.run("wget", "-qO-", f"http://10.0.2.2:{greeting}/", options=("--network", "host")).ok()
    assert done.out == "hello guest\n"


def test_without_a_network_there_is_none(uml: Machine) -> None:
    assert uml.run("ls", "/sys/class/net", options=("--network", "none")).ok().out.split() == ["lo"]


def test_privileged_root_rules_its_own_kernel_and_not_the_host(uml: Machine) -> None:
    script = "mount -t tmpfs none /tmp && echo mounted; echo 5 >/proc/sys/kernel/panic && cat /proc/sys/kernel/panic"
    before = Path("/proc/sys/kernel/panic").read_text()
    assert uml.run("sh", "-c", script, options=("--privileged",)).ok().out == "mounted\n5\n"
    assert Path("/proc/sys/kernel/panic").read_text() == before
    assert uml.run("mount", "-t", "tmpfs", "none", "/tmp").code != 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--isolation", "vm:hyper"], "--isolation 'vm:hyper' is unknown"),
        (["--isolation", "vm:"], "is unknown"),
        (["--isolation", "vm:uml", "--pid", "host"], "shares no pid namespace"),
        (["--isolation", "vm:uml", "--device", "/dev/null"], "devices of its own"),
        (["--isolation", "vm:uml", "-m", "8m"], "needs 64m at least"),
        (["--isolation", "vm:uml", "--kernel", "/nonexistent/linux"], "not an executable file"),
        (["--isolation", "vm:uml", "--kernel", "/bin/true"], "no user-mode Linux"),
        (["--isolation", "vm:microvm", "--kernel", "/nonexistent/vmlinuz"], "not found"),
        (["--isolation", "vm:microvm", "--kernel", "/etc/passwd"], "no Linux kernel"),
        (["--isolation", "vm:pc", "--accel", "tcg", "--kernel", "/bin/busybox", "--write"], "is a disk"),
    ],
)
def test_what_cannot_be_is_refused(rootfs: Path, words: list[str], part: str) -> None:
    for feature in ("root", "user-mode-linux", "qemu"):
        require(feature)
    Warren()("run", *words, "--rootfs", rootfs, "true").fails(125, part)


def test_what_is_no_kernel_does_not_hang(rootfs: Path) -> None:
    """An ELF program that QEMU loads and that never says hello."""
    microvm = machine_of("microvm", rootfs)
    done = microvm.warren(
        "run", "--isolation", "vm:microvm", "--accel", "tcg", "--kernel", "/bin/busybox", "--boot-timeout", "5",
        "--rootfs", rootfs, "true", timeout=SECONDS,
    )  # fmt: skip
    done.fails(125, "virtual machine (microvm, tcg)")


def test_a_plan_shows_both_sides_and_starts_nothing(uml: Machine) -> None:
    lines = uml.warren("run", "--plan", *uml.options(), "sh", "-c", "id").ok().out.splitlines()
    middle = lines.index("in the guest:")
    assert "fork, send the guest its plan" in lines[middle - 2] and "/run/vm/kernel" in lines[middle - 1]
    assert lines[-1].endswith("execute sh -c id")
