"""`warren exec` and `warren attach`: further processes in a container, and coming back to the first one."""

import hashlib
import os
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.terminal import Person
from tests.helpers.warren import PROGRAM, Warren

DETACH = "\x10\x11"


@pytest.fixture
def name(warren: Warren, token: str) -> Iterator[str]:
    """Of a container that is removed after the test."""
    found = f"wrn-{token}-proc"
    yield found
    warren("rm", "--force", "--volumes", found).ok()


@pytest.fixture
def up(warren: Warren, name: str) -> str:
    """Name of a container that runs."""
    warren("run", "-d", "--init", "--name", name, "-e", "OWN=1", "host", "--", "sleep", "1000").ok()
    return name


def until(condition: Callable[[], object], what: str, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def status(warren: Warren, name: str) -> str:
    return warren("inspect", "-f", "{{.State.Status}}", name).ok().out.strip()


# ---- exec


def test_streams_and_exit_codes(warren: Warren, up: str) -> None:
    done = warren("exec", up, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert warren("exec", up, "sh", "-c", "kill -9 $$").code == 137
    warren("exec", up, "no-such-command").fails(127, "no-such-command", "not found")
    warren("exec", up, "/etc").fails(126, "/etc", "permission denied")
    warren("exec", "--workdir", "/no/such", up, "true").fails(127, "/no/such")
    assert warren("exec", up, "--", "echo", "-n", "--", "x").ok().out == "-- x"


def test_input_is_given_only_when_asked_for(warren: Warren, up: str) -> None:
    assert warren("exec", up, "cat", input="text").ok().out == ""
    assert warren("exec", "-i", up, "cat", input="text").ok().out == "text"


def test_environment_and_directory_are_the_containers_and_mine(warren: Warren, up: str, directory: Path) -> None:
    (directory / "env").write_text("# none\nFROM_FILE=f\nOWN=file\n")
    words = ["-e", "MINE=2", "-e", "CALLERS", "-e", "ABSENT", "--env-file", directory / "env", "-w", "/usr"]
    found = warren("exec", *words, up, "sh", "-c", "pwd; env", env={"CALLERS": "c"}).ok().out.splitlines()
    assert found[0] == "/usr"
    assert {"OWN=file", "MINE=2", "CALLERS=c", "FROM_FILE=f", "HOME=/root"} <= set(found)
    assert not [line for line in found if line.startswith("ABSENT")]
    assert "OWN=1" in warren("exec", up, "env").ok().out.splitlines()


def test_users_by_name_and_number(warren: Warren, up: str) -> None:
    script = "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status"
    nobody = warren("exec", "-u", "nobody", up, "sh", "-c", script).ok().out.split()
    assert nobody[:4] == ["65534", "65534", "65534", "/nonexistent"]
    assert int(nobody[-1], 16) == 0
    assert warren("exec", "-u", "1234:5", up, "sh", "-c", "id -u; id -g; echo $HOME").ok().out.split() == [
        "1234",
        "5",
        "/",
    ]
    assert warren("exec", "-u", "daemon:games", up, "id", "-Gn").ok().out == "games\n"
    warren("exec", "-u", "noone", up, "true").fails(125, "noone")
    for text in ("", ":", "0:", "4294967295", "-1", "1:2:3"):
        assert warren("exec", "--user=" + text, up, "true").code == 125


def test_the_containers_own_accounts_count(warren: Warren, name: str, rootfs: Path) -> None:
    """/etc/passwd as it is in the container now, and nothing that it links to outside (RULES 11)."""
    (rootfs / "etc").mkdir(exist_ok=True)
    (rootfs / "etc/passwd").write_text("inside:x:77:78::/in:/bin/sh\n")
    (rootfs / "etc/group").write_text("more:x:79:inside\n")
    command = ["/bin/probe", "id", "--", "sleep", "1000"]
    warren("run", "-d", "--name", name, "--rootfs", rootfs, *command).ok()
    answers = warren("exec", "-u", "inside", name, "/bin/probe", "id").ok().out
    assert "77" in answers
    assert "78" in answers
    warren("exec", "-u", "nobody", name, "/bin/probe", "id").fails(125, "nobody")


@pytest.mark.parametrize("trap", ["ln -s /proc/1/root/etc/group", "mkfifo", "mkdir", "ln -s passwd", "ln -s /dev/zero"])
def test_an_account_file_that_is_none(warren: Warren, up: str, trap: str) -> None:
    warren("exec", up, "sh", "-c", f"mv /etc/passwd /etc/was; {trap} /etc/passwd").ok()
    warren("exec", "-u", "nobody", up, "true", timeout=30).fails(125)


def test_privileges_are_the_containers(warren: Warren, up: str) -> None:
    look = ["grep", "-E", "CapBnd|CapEff|NoNewPrivs|^Seccomp:", "/proc/self/status"]
    own = warren("exec", up, "cat", "/proc/1/status").ok().out.splitlines()
    found = warren("exec", up, *look).ok().out.splitlines()
    assert set(found) <= set(own)
    raised = dict(line.split() for line in warren("exec", "--privileged", up, *look).ok().out.splitlines())
    assert int(raised["CapEff:"], 16) & (1 << 40) - 1 == (1 << 40) - 1
    assert raised["Seccomp:"] == "2"


def test_streams_belong_to_the_user(warren: Warren, up: str) -> None:
    """/dev/stdout and /dev/stderr can be opened, in a user namespace as well: many an image's log is a link to them."""
    for user in ("0", "nobody"):
        script = "echo out >/dev/stdout; echo err >/dev/stderr"
        done = warren("exec", "-u", user, up, "sh", "-c", script).ok()
        assert (done.out, done.err) == ("out\n", "err\n")
        done = warren("run", "-u", user, "host", "--", "sh", "-c", script).ok()
        assert (done.out, done.err) == ("out\n", "err\n")


def test_detached_it_goes_on(warren: Warren, up: str) -> None:
    for flags in (["-d"], ["-dt"], ["-dit"]):
        done = warren("exec", *flags, up, "sh", "-c", "sleep 0.5; echo x >> /tmp/done; sleep 0.2").ok()
        assert (done.out, done.err) == ("", "")
    until(lambda: warren("exec", up, "cat", "/tmp/done").out == "x\nx\nx\n", "it does not go on")
    warren("exec", "-d", up, "no-such-command").fails(127)


def test_containers_that_take_no_process(warren: Warren, name: str) -> None:
    warren("exec", name, "true").fails(1, "no such container")
    warren("create", "--name", name, "host", "--", "sleep", "1000").ok()
    warren("exec", name, "true").fails(1, "is not running")
    warren("start", name).ok()
    warren("pause", name).ok()
    warren("exec", name, "true").fails(1, "is paused")
    warren("unpause", name).ok()
    warren("exec", name, "true").ok()
    warren("stop", "-t", "0", name).ok()
    warren("exec", name, "true").fails(1, "is not running")
    warren("exec").fails(125, "no container")
    warren("exec", name).fails(125, "no command")


def test_a_terminal(warren: Warren, up: str) -> None:
    with Person(
        PROGRAM, "exec", "-it", up, "sh", "-c", "stty size; tty; echo $TERM; read x; echo got $x; exit 4"
    ) as person:
        person.sees("30 100")
        person.sees("/dev/pts/0")
        person.sees("xterm")
        assert person.is_raw
        person.types("hello\r")
        person.sees("got hello")
        assert person.ends() == 4
        assert termios.tcgetattr(person.slave) == person.before
    warren("exec", "-it", up, "true").fails(1, "the input device is not a TTY")
    assert warren("exec", "-t", up, "tty").ok().out == "/dev/pts/0\n"


def test_detach_keys_leave_the_process(warren: Warren, up: str) -> None:
    script = "trap '' HUP; echo ready; read x; sleep 0.5; echo gone on > /tmp/note"
    with Person(PROGRAM, "exec", "-it", "--detach-keys", "ctrl-a,d", up, "sh", "-c", script) as person:
        person.sees("ready")
        person.types(DETACH)  # Not the keys here.
        person.types("\r")
        person.types("\x01d")
        assert person.ends() == 0
        assert termios.tcgetattr(person.slave) == person.before
    until(lambda: warren("exec", up, "cat", "/tmp/note").out == "gone on\n", "it does not go on")
    warren("exec", "--detach-keys", "ctrl-", up, "true").fails(125, "ctrl-")


def test_a_killed_exec_leaves_the_process(warren: Warren, up: str) -> None:
    with warren.popen("exec", up, "sh", "-c", "echo ready; sleep 1; echo lost; echo x > /tmp/after") as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.kill()
    until(lambda: warren("exec", up, "cat", "/tmp/after").out == "x\n", "it does not go on")


def test_signals_are_passed_on(warren: Warren, up: str) -> None:
    script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    with warren.popen("exec", up, "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 7


def test_a_stopped_container_ends_its_processes(warren: Warren, up: str) -> None:
    with warren.popen("exec", up, "sh", "-c", "echo ready; sleep 1000") as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        warren("stop", "-t", "0", up).ok()
        assert process.wait(20) == 137


# ---- volume and back-pressure


SIZE = 200_000_000


@pytest.fixture(scope="module")
def big(session_directory: Path) -> Iterator[tuple[Path, str]]:
    path = session_directory / "big"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(SIZE // 1_000_000):
            block = os.urandom(1_000_000)
            digest.update(block)
            file.write(block)
    yield path, digest.hexdigest()
    path.unlink()


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_much_input_and_output_come_whole(warren: Warren, up: str, big: tuple[Path, str], verb: str) -> None:
    path, digest = big
    words = ["run", "--rm", "-i", "--log-driver", "none", "host", "--"] if verb == "run" else ["exec", "-i", up]
    with path.open("rb") as file:
        done = subprocess.run([PROGRAM, *words, "sha256sum"], stdin=file, capture_output=True, timeout=120)
    assert done.stdout.split()[0].decode() == digest
    with (
        path.open("rb") as file,
        subprocess.Popen([PROGRAM, *words, "cat"], stdin=file, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout
        assert hashlib.file_digest(process.stdout, "sha256").hexdigest() == digest
        assert process.wait(20) == 0


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_nobody_reads_on(warren: Warren, up: str, verb: str) -> None:
    """`warren run --rm host yes | head -1` ends as `yes | head -1` does, at once: the grace for the deaf is 3 s."""
    words = ["run", "--rm", "host", "--"] if verb == "run" else ["exec", up]
    with subprocess.Popen([PROGRAM, *words, "yes"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(20) != 0


def test_a_stopped_client_holds_back_its_container_and_nobody_else(warren: Warren, name: str) -> None:
    words = ["run", "--name", name, "--init", "host", "--", "sh", "-c", "seq 1 300000; echo the end"]
    with warren.popen(*words) as process:
        assert process.stdout
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        assert warren("exec", name, "echo", "hello").ok().out == "hello\n"
        assert status(warren, name) == "running"
        process.send_signal(signal.SIGCONT)
        lines = process.stdout.read().splitlines()
        assert process.wait(20) == 0
        assert lines == [*map(str, range(2, 300001)), "the end"]
    shown = warren("logs", name).ok().out.splitlines()
    assert shown == [*map(str, range(1, 300001)), "the end"]


def test_a_stopped_client_does_not_hold_up_stop(warren: Warren, name: str) -> None:
    with warren.popen("run", "--name", name, "host", "--", "yes") as process:
        assert process.stdout
        assert process.stdout.readline() == "y\n"
        process.send_signal(signal.SIGSTOP)
        warren("stop", "-t", "0", name).ok()
        assert warren("inspect", "-f", "{{.State.ExitCode}}", name).ok().out == "137\n"
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
        assert process.returncode == 137


# ---- attach, and runs whose client goes


def test_detach_and_attach_with_the_terminal_restored(warren: Warren, name: str) -> None:
    # A signal interrupts `read`.
    script = "trap 'stty size' WINCH; echo ready; while [ \"$x\" != quit ]; do read x && echo got $x; done; echo end"
    with Person(PROGRAM, "run", "-it", "--name", name, "host", "--", "sh", "-c", script) as person:
        person.sees("ready")
        person.types("\x10x\r")  # A beginning of the keys only is input.
        person.sees("got \x10x")
        person.types(DETACH)
        assert person.ends() == 0
        assert termios.tcgetattr(person.slave) == person.before
    assert status(warren, name) == "running"
    with Person(PROGRAM, "attach", name) as person:
        deadline = time.monotonic() + 20
        while not person.is_raw:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        person.resize(33, 111)
        person.sees("33 111")
        person.types("again\r")
        person.sees("got again")
        person.types("quit\r")
        person.sees("end")
        assert person.ends() == 0
        assert termios.tcgetattr(person.slave) == person.before
    assert "got again" in warren("logs", name).ok().out
    assert status(warren, name) == "exited"


def test_attach_takes_output_input_and_the_exit_code(warren: Warren, name: str) -> None:
    warren(
        "run", "-d", "-i", "--name", name, "host", "--", "sh", "-c", "read x; echo got $x; echo err >&2; exit 9"
    ).ok()
    done = warren("attach", name, input="line\n")
    assert (done.code, done.out, done.err) == (9, "got line\n", "err\n")
    warren("attach", name).fails(1, "is not running")
    warren("attach", "nobody-here").fails(1, "no such container")


def test_attach_without_stdin_or_signals(warren: Warren, name: str) -> None:
    script = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done"
    warren("run", "-d", "-i", "--name", name, "host", "--", "sh", "-c", script).ok()
    with warren.popen("attach", "--no-stdin", "--sig-proxy=false", name) as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert status(warren, name) == "running"
    with warren.popen("attach", "--no-stdin", name) as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "caught\n"
        assert process.returncode == 6


def test_attach_to_a_paused_container_is_an_error(warren: Warren, up: str) -> None:
    warren("pause", up).ok()
    warren("attach", up).fails(1, "is paused")
    warren("unpause", up).ok()


def test_start_attached_with_input(warren: Warren, name: str) -> None:
    warren("create", "-i", "--name", name, "host", "--", "sh", "-c", "read x; echo got $x; exit 5").ok()
    done = warren("start", "-a", "-i", name, input="one\n")
    assert (done.code, done.out) == (5, "got one\n")
    done = warren("start", "--attach", "--interactive", name, input="two\n")
    assert (done.code, done.out) == (5, "got two\n")
    assert warren("logs", name).ok().out == "got one\ngot two\n"


def test_only_the_streams_that_are_asked_for(warren: Warren, name: str) -> None:
    script = "cat; echo out; echo err >&2"
    words = ["--rm", "-i", "host", "--", "sh", "-c", script]
    done = warren("run", "-a", "stderr", *[w if w != "-i" else "--init" for w in words], input="in\n").ok()
    assert (done.out, done.err) == ("", "err\n")
    done = warren("run", "-a", "stdin", "-a", "stdout", *words, input="in\n").ok()
    assert (done.out, done.err) == ("in\nout\n", "")
    warren("run", "-a", "stdlog", *words).fails(125, "stdlog")


@pytest.mark.parametrize("flags", [[], ["--rm"]])
def test_a_killed_run_leaves_its_container(warren: Warren, name: str, flags: list[str]) -> None:
    """docker's: it goes on, can be attached to, and with --rm it is removed at its end."""
    words = [
        "run",
        *flags,
        "-i",
        "--name",
        name,
        "host",
        "--",
        "sh",
        "-c",
        "echo ready; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 3",
    ]
    with warren.popen(*words) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait()
    warren("run", "host", "--", "true").ok()
    assert status(warren, name) == "running"
    with warren.popen("attach", name) as process:
        time.sleep(0.3)
        warren("exec", name, "touch", "/tmp/go").ok()
        assert process.wait(20) == 3
    if flags:
        until(lambda: warren("inspect", name).code, "it is not removed at its end")
    else:
        until(lambda: status(warren, name) == "exited", "it does not end")


def test_the_terminal_is_restored_whatever_goes_wrong(warren: Warren, name: str) -> None:
    """Also when the monitor is killed under us."""
    with Person(PROGRAM, "run", "-it", "--name", name, "host", "--", "sh", "-c", "echo ready; sleep 1000") as person:
        person.sees("ready")
        assert person.is_raw
        found = warren("inspect", "-f", "{{.Id}}", name).ok().out.strip()
        os.kill(int(os.readlink(f"/run/warren/{found}/monitor").split()[0]), signal.SIGKILL)
        assert person.ends() == 137
        assert termios.tcgetattr(person.slave) == person.before
