"""The other end of --console-socket: receives the terminal's master, as conmon and containerd's shim do."""

import array
import fcntl
import os
import select
import socket
import struct
import termios
import time
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
