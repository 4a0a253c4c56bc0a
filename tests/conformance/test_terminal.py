"""The terminal and its console socket: config.md, "terminal" and "consoleSize"; runc's terminals.md."""

import os
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle, Container, Runtime
from tests.helpers.terminal import ConsoleSocket


@pytest.fixture
def wants_terminal(bundle: Bundle) -> Bundle:
    bundle.process["terminal"] = True
    return bundle


def test_the_terminal_comes_over_the_console_socket(
    oci: Runtime, wants_terminal: Bundle, console: ConsoleSocket
) -> None:
    """ "terminal (bool, OPTIONAL) specifies whether a terminal is attached to that process. ... a pseudoterminal
    pair is allocated for the process and the pseudoterminal pty is duplicated on the process's standard streams." """
    container = oci.create(
        wants_terminal.asks("tty", "stat /dev/console", "process", "fds"), "--console-socket", console.path
    )
    terminal = console.receive()
    container.start().ok()
    seen = terminal.expect("## fds\n0 ")
    lines = seen.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert all("/dev/pts/" in line or "/dev/console" in line for line in lines[1:4]), seen
    assert "controlling yes" in lines
    assert "sid 1" in lines
    assert next(line for line in lines if line.startswith("/dev/console ")).split()[1] == "c"


def test_the_terminal_has_the_given_size(oci: Runtime, wants_terminal: Bundle, console: ConsoleSocket) -> None:
    """ "consoleSize (object, OPTIONAL) specifies the console size in characters of the terminal. height, width" """
    wants_terminal.process["consoleSize"] = {"height": 33, "width": 99}
    container = oci.create(wants_terminal.asks("tty", "echo end"), "--console-socket", console.path)
    terminal = console.receive()
    container.start().ok()
    assert "33x99" in terminal.expect("## echo end")


def test_a_resize_reaches_the_program(oci: Runtime, wants_terminal: Bundle, console: ConsoleSocket) -> None:
    """tty_ioctl(4): TIOCSWINSZ on the master sends SIGWINCH to the foreground process group."""
    container = oci.create(wants_terminal.asks("wait-winch"), "--console-socket", console.path)
    terminal = console.receive()
    container.start().ok()
    terminal.expect("ready")
    terminal.resize(44, 111)
    assert "44x111" in terminal.expect("controlling")


def test_input_and_output_pass_through(oci: Runtime, wants_terminal: Bundle, console: ConsoleSocket) -> None:
    """ "the pseudoterminal pty is duplicated on the process's standard streams." """
    container = oci.create(wants_terminal.asks("read"), "--console-socket", console.path)
    terminal = console.receive()
    container.start().ok()
    terminal.expect("## read")
    terminal.write("hello there\n")
    terminal.expect("hello there\nhello there\n")  # Once as the terminal's echo.
    terminal.write("\x04")
    container.wait("stopped")


def test_the_interrupt_key_interrupts(oci: Runtime, wants_terminal: Bundle, console: ConsoleSocket) -> None:
    """The terminal controls the program's session: termios(3), ISIG."""
    container = oci.create(wants_terminal.asks("trap 2"), "--console-socket", console.path)
    terminal = console.receive()
    container.start().ok()
    terminal.expect("ready")
    terminal.write("\x03")
    terminal.expect("signal 02")


def test_the_terminal_belongs_to_the_user(oci: Runtime, wants_terminal: Bundle, console: ConsoleSocket) -> None:
    """A program that is not root can open its own terminal again: the pty is given to it."""
    wants_terminal.process["user"] = {"uid": 1000, "gid": 1000}
    container = oci.create(
        wants_terminal.asks("access rw /proc/self/fd/0", "echo end"), "--console-socket", console.path
    )
    terminal = console.receive()
    container.start().ok()
    assert "\nOK\n" in terminal.expect("## echo end")


def test_a_terminal_needs_a_console_socket(oci: Runtime, wants_terminal: Bundle, directory: Path) -> None:
    """runc's terminals.md: "create ... requires --console-socket" when terminal is true, and refuses it when it is
    not."""
    oci.refuses(wants_terminal)
    oci.refuses(wants_terminal, flags=["--console-socket", directory / "nobody-listens"])
    wants_terminal.process["terminal"] = False
    oci.refuses(wants_terminal, flags=["--console-socket", directory / "nobody-listens"])


def test_exec_can_have_a_terminal(box: Container, console: ConsoleSocket) -> None:
    """runc(8), exec: "-t: allocate a pseudo-TTY", detached with --console-socket."""
    box.exec(
        "/bin/probe", "tty", "--", "echo", "end", flags=["--tty", "--detach", "--console-socket", console.path]
    ).ok()
    seen = console.receive().expect("## echo end")
    assert "0 /dev/pts/" in seen and "controlling yes" in seen


def test_dev_console_is_the_containers_own(oci: Runtime, wants_terminal: Bundle, console: ConsoleSocket) -> None:
    """CVE-2025-52565: /dev/console is bound from the pty itself; a link there is not followed to anything else."""
    (wants_terminal.rootfs / "dev/console").symlink_to("/etc/passwd")
    wants_terminal.config["mounts"] = [m for m in wants_terminal.config["mounts"] if m["destination"] != "/dev"]
    container = oci._new(wants_terminal.asks("stat /etc/passwd", "echo end"))
    if (
        oci("create", "--bundle", wants_terminal.path, "--console-socket", console.path, container.id, timeout=10).code
        == 0
    ):
        terminal = console.receive()
        container.start().ok()
        assert "/etc/passwd f " in terminal.expect("## echo end")
    assert os.path.isfile(wants_terminal.rootfs / "etc/passwd")
