"""Foreground terminals: `warren run -it` under a real pty, as a person has one."""

import os
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle
from tests.helpers.terminal import Person
from tests.helpers.warren import PROGRAM


def test_size_raw_mode_and_restoration() -> None:
    with Person(
        PROGRAM, "run", "--rm", "-it", "host", "--", "sh", "-c", "stty size; tty; read line; echo got $line"
    ) as person:
        person.sees("30 100")
        person.sees("/dev/pts/0")
        assert person.is_raw
        person.types("hello\r")
        person.sees("got hello")
        assert person.ends() == 0
        assert termios.tcgetattr(person.slave) == person.before


def test_resizing_reaches_the_container() -> None:
    script = "trap 'stty size' WINCH; trap 'exit 0' INT; echo ready; while :; do sleep 0.1; done"
    with Person(PROGRAM, "run", "--rm", "-it", "host", "--", "sh", "-c", script) as person:
        person.sees("ready")
        person.resize(40, 132)
        person.sees("40 132")
        person.types("\x03")
        assert person.ends() == 0


def test_control_c_is_the_containers() -> None:
    with Person(
        PROGRAM, "run", "--rm", "-it", "host", "--", "sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; read x"
    ) as person:
        person.sees("ready")
        person.types("\x03")
        person.sees("caught")
        assert person.ends() == 3


def test_the_terminal_is_restored_when_the_container_is_killed() -> None:
    with Person(
        PROGRAM, "run", "--rm", "-it", "--timeout", "1", "host", "--", "sh", "-c", "echo ready; sleep 100"
    ) as person:
        person.sees("ready")
        assert person.is_raw
        assert person.ends() == 124
        assert termios.tcgetattr(person.slave) == person.before


def test_an_orphan_that_keeps_the_terminal_does_not_keep_us() -> None:
    with Person(
        PROGRAM, "run", "--rm", "-it", "--pid", "host", "host", "--", "sh", "-c", "sleep 1000 & echo bye"
    ) as person:
        person.sees("bye")
        assert person.ends() == 0


def test_output_of_a_terminal_comes_whole() -> None:
    with Person(PROGRAM, "run", "--rm", "-it", "host", "--", "sh", "-c", "seq 1 20000; echo the end") as person:
        assert person.ends(60) == 0
        person.sees("the end", 5)
        numbers = [int(line) for line in person.screen.split("\r\n") if line.isdecimal()]
        assert numbers == list(range(1, 20001))


def test_a_bundle_with_a_terminal_in_the_foreground(bundle: Bundle, directory: Path) -> None:
    bundle.process["terminal"] = True
    bundle.asks("tty")
    bundle.save()
    command = [PROGRAM.with_name("warren-oci"), "--root", directory / "state", "run", "--bundle", bundle.path]
    with Person(*command, f"wrn-{directory.name}") as person:
        assert person.ends() == 0
        assert "30" in person.screen
        assert "100" in person.screen


def test_a_terminal_that_is_typed_at_needs_one() -> None:
    done = subprocess.run(
        [PROGRAM, "run", "--rm", "-it", "host", "--", "cat"], input=b"line\n", capture_output=True, timeout=30
    )
    assert done.returncode == 1
    assert b"cannot attach stdin to a TTY-enabled container because stdin is not a terminal" in done.stderr
    done = subprocess.run(
        [PROGRAM, "run", "--rm", "-t", "host", "--", "tty"], input=b"line\n", capture_output=True, timeout=30
    )
    assert done.returncode == 0
    assert done.stdout == b"/dev/pts/0\r\n"


def test_a_reader_that_goes_away_ends_the_container() -> None:
    """`warren run -t host yes | head -1`, as without -t: the container must not wait for ever to be read."""
    command = [PROGRAM, "run", "--rm", "-t", "host", "--", "yes"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"y\r\n"
    process.stdout.close()
    try:
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


FAULT = """
import sys
sys.path.insert(0, sys.argv[1])
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair
from runtime.monitor import Attached, Client
ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
with Attached(Client(ours), terminal=True, stdin=True) as attached:
    theirs.send(b"oready")
    theirs.send(b"x")  # No exit code in it.
    attached.follow()
"""


def test_the_terminal_is_restored_when_we_are_at_fault() -> None:
    project = Path(__file__).parents[2]
    with Person(project / ".venv/bin/python3", "-c", FAULT, project) as person:
        person.sees("ready")
        person.sees("struct.error")
        assert person.ends() == 1
        assert termios.tcgetattr(person.slave) == person.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_terminal_is_restored_when_we_are_told_to_end(number: int) -> None:
    with Person(
        PROGRAM, "run", "--rm", "-it", "--init", "host", "--", "sh", "-c", "echo ready; exec sleep 1000"
    ) as person:
        person.sees("ready")
        assert person.is_raw
        os.kill(person.pid, number)
        assert person.ends() == 128 + number
        assert termios.tcgetattr(person.slave) == person.before


@pytest.mark.parametrize("flags", [["-it"], []])
def test_closing_the_terminal_ends_a_container_that_ignores_it(flags: list[str]) -> None:
    """Process 1 of a pid namespace gets no signal that it does not catch: it has to be killed."""
    with Person(
        PROGRAM, "run", "--rm", *flags, "host", "--", "sh", "-c", "echo ready; sleep 1000; sleep 1000"
    ) as person:
        person.sees("ready")
        os.close(person.slave)
        os.close(person.master)
        person.master = person.slave = os.open(os.devnull, os.O_RDONLY)
        person.slave = os.dup(person.master)
        deadline = time.monotonic() + 20
        while not os.waitpid(person.pid, os.WNOHANG)[0]:
            assert time.monotonic() < deadline, "the container lives on without its terminal"
            time.sleep(0.05)
        person.pid = 0


@pytest.mark.parametrize(("prefix", "code"), [(["nohup"], 7), ([], 129)])
def test_nohup_keeps_a_hang_up_from_the_container(prefix: list[str], code: int) -> None:
    script = "echo ready; for i in 1 2 3 4 5 6; do sleep 0.5; done; exit 7"
    command = [*prefix, PROGRAM, "run", "--rm", "--init", "host", "--", "sh", "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == code


@pytest.mark.parametrize("words", [["no-such-command"], ["/etc/passwd"], ["--workdir", "/etc/passwd", "true"]])
def test_the_terminal_is_left_alone_when_a_launch_fails(words: list[str]) -> None:
    flags = words[:-1]
    with Person(PROGRAM, "run", "--rm", "-it", *flags, "host", "--", words[-1]) as person:
        assert person.ends() in (125, 126, 127)
        assert termios.tcgetattr(person.slave) == person.before


def test_job_control_characters_are_the_containers() -> None:
    """Ctrl-Z, Ctrl-\\, Ctrl-D and flow control: our own terminal interprets none of them."""
    script = "stty raw -echo; echo ready; head -c 5 | od -An -tx1"
    with Person(PROGRAM, "run", "--rm", "-it", "host", "--", "sh", "-c", script) as person:
        person.sees("ready")
        person.types("\x1a\x1c\x04\x11\x13")
        person.sees("1a 1c 04 11 13")
        assert person.ends() == 0


def test_what_is_typed_before_the_container_is_up_is_not_lost() -> None:
    """People, and scripts even more, do not wait for a prompt."""
    with Person(PROGRAM, "run", "--rm", "-it", "host", "--", "sh", "-c", "read line; echo got $line") as person:
        person.types("early\n")
        person.sees("got early")
        assert person.ends() == 0


def test_a_session_and_a_controlling_terminal_of_its_own() -> None:
    """RULES 13: nothing inside can push characters into the caller's terminal (TIOCSTI)."""
    script = "ps -o pid=,sid=,tty= -p $$ | xargs echo is; tty </dev/tty; readlink /proc/self/fd/0 /proc/self/fd/2"
    with Person(PROGRAM, "run", "--rm", "-it", "host", "--", "sh", "-c", script) as person:
        person.sees("is 1 1 pts/0")
        assert person.ends() == 0
        assert os.ttyname(person.slave) not in person.screen.replace("/dev/pts/0", "")


def test_a_directory_as_root_has_a_terminal_too(rootfs: Path) -> None:
    with Person(PROGRAM, "run", "--rm", "-it", "--rootfs", rootfs, "/bin/probe", "tty") as person:
        assert person.ends() == 0
        assert "30" in person.screen
        assert "100" in person.screen


def test_exec_with_a_terminal_in_the_foreground(bundle: Bundle, directory: Path) -> None:
    oci = [str(PROGRAM.with_name("warren-oci")), "--root", str(directory / "state")]
    name = f"wrn-{directory.name}"
    bundle.save()
    null = subprocess.DEVNULL
    created = subprocess.run(
        [*oci, "create", "--bundle", bundle.path, name], stdin=null, stdout=null, stderr=null, timeout=30
    )
    assert created.returncode == 0
    try:
        subprocess.run([*oci, "start", name], check=True, timeout=30)
        with Person(*oci, "exec", "--tty", name, "/bin/probe", "tty", "--", "wait-winch", "--", "exit", "6") as person:
            person.sees("100")
            deadline = time.monotonic() + 10
            while not person.is_raw:
                assert time.monotonic() < deadline
            time.sleep(0.3)
            person.resize(44, 144)
            person.sees("144")
            assert person.ends() == 6
            assert termios.tcgetattr(person.slave) == person.before
    finally:
        subprocess.run([*oci, "delete", "--force", name], check=True, timeout=30)


def test_a_detached_bundle_hands_its_terminal_over(bundle: Bundle, directory: Path) -> None:
    from tests.helpers.terminal import ConsoleSocket

    oci = [str(PROGRAM.with_name("warren-oci")), "--root", str(directory / "state")]
    name = f"wrn-{directory.name}"
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"height": 21, "width": 77}
    bundle.asks("tty", "sleep 60").save()
    with ConsoleSocket(directory / "console") as console:
        command = [*oci, "run", "--detach", "--console-socket", console.path, "--bundle", bundle.path, name]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            terminal = console.receive()
            assert process.wait(20) == 0
            assert terminal.size() == (21, 77)
            terminal.expect("77")
        finally:
            process.wait(20)
            subprocess.run([*oci, "delete", "--force", name], check=True, timeout=30)
