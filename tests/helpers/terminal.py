"""The other end of --console-socket, which receives the terminal's master as conmon and containerd's shim do, and a
person at a terminal."""

import array
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType


class Terminal:
    """A pseudoterminal's master."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""

    def expect(self, text: str, timeout: float = 10) -> str:
        """Read until `text` has been seen; everything that was seen so far is returned."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come, only {self.seen!r}"
            if select.select([self.fd], [], [], left)[0] and not self._read():
                break
        assert text in self.seen, f"the terminal ended without {text!r}: {self.seen!r}"
        return self.seen

    def write(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def size(self) -> tuple[int, int]:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self.fd, termios.TIOCGWINSZ, b"\0" * 8))
        return rows, columns

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def _read(self) -> bool:
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody holds the other end any more.
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


class ConsoleSocket:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # sun_path holds 107 bytes; a relative name through /proc keeps deep test directories possible.
        directory = os.open(path.parent, os.O_PATH)
        self._socket.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        self._socket.listen(1)
        self._terminals: list[Terminal] = []

    def receive(self, timeout: float = 10) -> Terminal:
        """The terminal of runc(8)'s --console-socket."""
        terminal = Terminal(self.receive_fd(timeout))
        self._terminals.append(terminal)
        return terminal

    def receive_fd(self, timeout: float = 10) -> int:
        """The descriptor that comes with SCM_RIGHTS; runc(8): exactly one, with a name as text."""
        self._socket.settimeout(timeout)
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(timeout)
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(64))
        fds = array.array("i")
        for level, kind, data in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        assert len(fds) == 1, f"{len(fds)} descriptors came over the socket"
        return fds[0]

    def __enter__(self) -> "ConsoleSocket":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for terminal in self._terminals:
            terminal.close()
        self._socket.close()


class Person:
    """Types at a terminal of 30 rows and 100 columns and reads what comes; a context manager."""

    def __init__(self, *command: str | Path) -> None:
        self.master, slave = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.screen = ""
        self.pid = os.fork()
        if not self.pid:
            os.login_tty(slave) if hasattr(os, "login_tty") else self._login(slave)
            os.execv(str(command[0]), [str(word) for word in command])

    def _login(self, slave: int) -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in range(3):
            os.dup2(slave, fd)

    def __enter__(self) -> "Person":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def types(self, text: str) -> None:
        os.write(self.master, text.encode())

    def sees(self, text: str, timeout: float = 20) -> str:
        """Wait until the text is on the screen."""
        self._read_until(lambda: text in self.screen, timeout, f"{text!r} did not appear")
        return self.screen

    def ends(self, timeout: float = 20) -> int:
        """Wait for the command; its exit code."""
        code: list[int] = []

        def over() -> bool:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                code.append(os.waitstatus_to_exitcode(status))
            return bool(done)

        self._read_until(over, timeout, "the command did not end")
        self.pid = 0
        return code[0]

    def _read_until(self, condition: Callable[[], bool], timeout: float, complaint: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{complaint}; the screen has {self.screen!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                self.screen += os.read(self.master, 65536).decode(errors="replace")

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON
