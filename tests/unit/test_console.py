"""Foreground terminals and signals, on real pseudoterminals and real children."""

import _socket
import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.console import Foreground, console_pair, raw_mode, receive_master, terminal_size, write_all
from runtime.errors import WarrenError

ROOT = Path(__file__).parents[2]


def size_of(fd: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(fd: int, text: bytes, timeout: float = 10) -> bytes:
    seen, deadline = b"", time.monotonic() + timeout
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0, f"{text!r} did not come, only {seen!r}"
        if select.select([fd], [], [], left)[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            assert data, f"the end came before {text!r}: {seen!r}"
            seen += data
    return seen


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Master and slave of a new pseudoterminal."""
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def scenario(body: Callable[[], int], *, echo: bool = True) -> tuple[int, int]:
    """Run `body` in a forked process whose controlling terminal is a new one of 30 x 100; its pid and the master."""
    pid, master = pty.fork()
    if pid:
        return pid, master
    code = 99
    try:
        set_size(0, 30, 100)
        if not echo:
            mode = termios.tcgetattr(0)
            mode[3] &= ~termios.ECHO
            termios.tcsetattr(0, termios.TCSANOW, mode)
        code = body()
    except BaseException as error:
        os.write(2, f"failed: {error!r}".encode())
    os._exit(code)


def finish(pid: int, master: int, timeout: float = 20) -> tuple[int, bytes]:
    """Exit code and the rest of the output."""
    seen, deadline = b"", time.monotonic() + timeout
    while True:
        if select.select([master], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):
                seen += os.read(master, 65536)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            while select.select([master], [], [], 0)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                if not data:
                    break
                seen += data
            os.close(master)
            return os.waitstatus_to_exitcode(status), seen
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(master)
            raise AssertionError(f"it did not end: {seen!r}")


def send(sock: "_socket.socket", fds: list[int], data: bytes = b"/dev/pts/0") -> None:
    packed = struct.pack(f"={len(fds)}i", *fds)
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)] if fds else [])


def contain(*command: str) -> tuple[int, "_socket.socket", "_socket.socket"]:
    """A child on a terminal of its own, as a container is, and the console socket over which the master comes."""
    ours, theirs = console_pair()
    pid, master = pty.fork()
    if not pid:
        os.execvp(command[0], command)
    send(theirs, [master])
    os.close(master)
    return pid, ours, theirs


def foreground(*command: str) -> Callable[[], int]:
    """The body of a scenario: what the runtime's `run` does with a terminal."""

    def body() -> int:
        with Foreground() as front:
            pid, ours, theirs = contain(*command)
            front.take_terminal(ours)
            ours.close()
            theirs.close()
            code = front.wait(pid, 15)
        return 98 if code is None else code

    return body


# ---- raw mode


def test_raw_mode_is_cfmakeraws(terminal: tuple[int, int]) -> None:
    import tty

    ours = raw_mode(termios.tcgetattr(terminal[1]))
    tty.setraw(terminal[1])
    theirs = termios.tcgetattr(terminal[1])
    # tty.setraw leaves out bits that no terminal has set; what the kernel makes of both is the same.
    termios.tcsetattr(terminal[1], termios.TCSANOW, ours)
    assert termios.tcgetattr(terminal[1]) == theirs


def test_raw_mode_changes_nothing_of_what_it_was_given(terminal: tuple[int, int]) -> None:
    mode = termios.tcgetattr(terminal[1])
    copy: list[Any] = [list(entry) if isinstance(entry, list) else entry for entry in mode]
    raw_mode(mode)
    assert mode == copy


# ---- descriptors over sockets


def test_a_master_comes_over_the_socket(terminal: tuple[int, int]) -> None:
    ours, theirs = console_pair()
    send(theirs, [terminal[0]])
    received = receive_master(ours)
    assert os.fstat(received).st_rdev == os.fstat(terminal[0]).st_rdev
    assert not os.get_inheritable(received)
    set_size(received, 7, 9)
    assert size_of(terminal[1]) == (7, 9)
    for closing in (lambda: os.close(received), ours.close, theirs.close):
        closing()


@pytest.mark.parametrize("said", [b"no descriptor", b""])
def test_nothing_came(said: bytes) -> None:
    ours, theirs = console_pair()
    if said:
        theirs.send(said)
    theirs.close()
    with pytest.raises(WarrenError, match="no terminal came"):
        receive_master(ours)
    ours.close()


def test_both_ends_of_a_console_pair_are_closed_at_exec() -> None:
    for sock in (pair := console_pair()):
        assert not os.get_inheritable(sock.fileno())
    for sock in pair:
        sock.close()


# ---- writing


def test_all_is_written_to_a_reader_that_is_slow() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data, got = os.urandom(1 << 20), []

    def slowly() -> None:
        while part := os.read(reader, 50000):
            got.append(part)
            time.sleep(0.001)

    thread = threading.Thread(target=slowly)
    thread.start()
    assert write_all(writer, data)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert b"".join(got) == data


def test_nobody_reads_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert not write_all(writer, b"x")
    os.close(writer)


def test_a_reader_that_goes_away_meanwhile() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Timer(0.1, os.close, [reader]).start()
    assert not write_all(writer, b"x" * (1 << 20))
    os.close(writer)


# ---- the foreground


def test_without_a_terminal_there_is_no_size() -> None:
    script = "from runtime.console import terminal_size; print(terminal_size())"
    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT)
    assert done.stdout == b"(0, 0)\n"


def test_the_size_of_our_terminal() -> None:
    assert finish(*scenario(lambda: sum(terminal_size())))[0] == 130


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)])
def test_the_exit_code(script: str, code: int) -> None:
    with Foreground() as front:
        assert front.wait(subprocess.Popen(["sh", "-c", script]).pid) == code


def test_a_child_that_ended_before_the_wait() -> None:
    with Foreground() as front:
        pid = os.posix_spawn("/bin/true", ["true"], {})
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert front.wait(pid, 10) == 0


def test_too_long_is_none_and_it_can_be_waited_for_again() -> None:
    with Foreground() as front:
        pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
        began = time.monotonic()
        assert front.wait(pid, 0.2) is None
        assert 0.15 < time.monotonic() - began < 5
        os.kill(pid, signal.SIGKILL)
        assert front.wait(pid, 10) == 137


def test_handlers_and_wakeup_are_restored() -> None:
    def handler(number: int, frame: object) -> None:
        pass

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    old = signal.signal(signal.SIGUSR1, handler)
    wakeup = signal.set_wakeup_fd(writer)
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    count = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(ZeroDivisionError), Foreground():
            1 / 0  # noqa: B018
        assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
        assert len(os.listdir("/proc/self/fd")) == count
        assert signal.set_wakeup_fd(-1) == writer
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGUSR1, old)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "CONT", "WINCH", "RTMIN", "RTMAX"])
def test_signals_are_passed_on(name: str, tmp_path: Path) -> None:
    """Without a terminal of the container's own SIGWINCH is a signal like any other."""
    number = signal.Signals[f"SIG{name}"]
    script = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(5))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "time.sleep(20)"
    )
    with Foreground() as front:
        pid = os.posix_spawn("/usr/bin/python3", ["python3", "-c", script], {})
        until((tmp_path / "ready").exists)
        os.kill(os.getpid(), number)
        assert front.wait(pid, 20) == 5


def test_many_signals_at_once_are_not_lost(tmp_path: Path) -> None:
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 3]
    script = (
        "import signal, time\n"
        f"seen, wanted = set(), {{{', '.join(str(int(number)) for number in numbers)}}}\n"
        "for number in wanted: signal.signal(number, lambda number, _: seen.add(number))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "end = time.monotonic() + 15\n"
        "while seen != wanted and time.monotonic() < end: time.sleep(0.01)\n"
        "raise SystemExit(0 if seen == wanted else 9)"
    )
    with Foreground() as front:
        pid = os.posix_spawn("/usr/bin/python3", ["python3", "-c", script], {})
        until((tmp_path / "ready").exists)
        for number in numbers:
            os.kill(os.getpid(), number)
        assert front.wait(pid, 20) == 0


def test_a_signal_between_launch_and_wait_is_passed_on(tmp_path: Path) -> None:
    with Foreground() as front:
        os.kill(os.getpid(), signal.SIGTERM)
        assert front.wait(os.posix_spawn("/bin/sleep", ["sleep", "20"], {}), 10) == 143


def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- the terminal in the foreground


def test_bytes_go_both_ways_untouched() -> None:
    """Raw: what is typed is not interpreted by our own terminal, only by the container's."""
    pid, master = scenario(foreground("sh", "-c", "stty raw -echo; echo ready; head -c 4 | od -An -tx1"))
    read_until(master, b"ready")
    os.write(master, b"\x03\x04\x1a\r")
    code, out = finish(pid, master)
    assert code == 0
    assert out.split() == [b"03", b"04", b"1a", b"0d"]


def test_it_gets_our_size_and_each_new_one() -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    pid, master = scenario(foreground("sh", "-c", script))
    read_until(master, b"30 100")
    set_size(master, 41, 133)
    read_until(master, b"41 133")
    os.write(master, b"\x03")
    assert finish(pid, master)[0] == 130


def test_a_large_output_comes_whole() -> None:
    code, out = finish(*scenario(foreground("seq", "1", "30000")))
    assert code == 0
    assert [int(line) for line in out.split()] == list(range(1, 30001))


def modes(change: "Callable[[Foreground, int], None]") -> Callable[[], int]:
    """A scenario's body: 0 when the terminal was raw inside and is afterwards as it was before."""

    def body() -> int:
        before = termios.tcgetattr(0)
        with contextlib.suppress(ZeroDivisionError), Foreground() as front:
            pid, ours, theirs = contain("sleep", "20")
            front.take_terminal(ours)
            ours.close()
            theirs.close()
            if termios.tcgetattr(0)[3] & (termios.ICANON | termios.ECHO | termios.ISIG):
                return 2
            change(front, pid)
        return 0 if termios.tcgetattr(0) == before else 1

    return body


def killed(front: Foreground, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    front.wait(pid, 10)


def fails(front: Foreground, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    1 / 0  # noqa: B018


def early(front: Foreground, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    front.restore_mode()
    assert termios.tcgetattr(0)[3] & termios.ICANON


@pytest.mark.parametrize("change", [killed, fails, early])
def test_the_terminal_is_raw_meanwhile_and_restored(change: "Callable[[Foreground, int], None]") -> None:
    assert finish(*scenario(modes(change)))[0] == 0


def piped(script: str, *, stdin: int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
    """A container's terminal in the foreground of a process that has no terminal itself."""
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.unit.test_console import foreground\n"
        f"raise SystemExit(foreground('sh', '-c', {script!r})())"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=stdin, stdout=subprocess.PIPE, cwd=ROOT)


@pytest.mark.parametrize(
    "data",
    [
        b"a\nb\n",
        b"",
        # VEOF ends the input only at the beginning of a line; in the middle of one it merely hands the bytes over.
        b"a\nb",
    ],
)
def test_the_end_of_a_pipe_is_the_end_of_the_containers_input(data: bytes) -> None:
    """Standard input is no terminal: its end becomes end-of-file on the container's terminal (termios(3), VEOF)."""
    process = piped("cat >/dev/null; echo over")
    out, _ = process.communicate(data, 30)
    assert process.returncode == 0, out
    assert out.endswith(b"over\r\n")


def test_a_reader_of_our_output_that_is_gone_does_not_keep_the_container() -> None:
    """As in `warren run -t host yes | head -1`: the container must not wait for its terminal to be read for ever."""
    process = piped("yes", stdin=subprocess.DEVNULL)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    # 98 is the scenario's own limit of time.
    assert process.wait(30) not in (0, 98)
