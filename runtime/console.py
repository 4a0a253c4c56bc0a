"""A foreground container: its terminal, the signals that are passed on to it, and waiting for its end.

Signals arrive through a pipe (signal.set_wakeup_fd), beside the terminal's bytes in one poll loop: none is lost
between the launch and the wait, and no handler does anything.  Only the main thread may use this (signal(7)).
"""

import _signal
import _socket
import fcntl
import posix
import select
import struct
import termios
import time
from errno import EIO

from .errors import WarrenError
from .syscalls import exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUFFER = 65536
_NSIG = 65
# Not passed on: what the kernel tells us, what cannot be caught, what libc uses, and our own faults.
_KEPT = frozenset([4, 5, 6, 7, 8, 9, 11, 13, 17, 19, 23, 32, 33])
_SIGCHLD, _SIGWINCH = 17, 28


class Foreground:
    """Passes signals on and waits; a context manager around the launch and the wait.

    `terminal` is the master of the container's terminal once there is one, -1 otherwise.
    """

    def __init__(self) -> None:
        self.terminal = -1
        self._mid_line = False
        self._output = True
        self._saved: dict[int, Any] = {}
        self._mode: list[Any] | None = None
        self._reader = self._writer = -1

    def __enter__(self) -> "Foreground":
        self._reader, self._writer = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self._old_wakeup = _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in range(1, _NSIG):
            if number not in _KEPT or number == _SIGCHLD:
                self._saved[number] = _signal.signal(number, _ignore)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore_mode()
        _signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._saved.items():
            _signal.signal(number, handler if handler is not None else _signal.SIG_DFL)
        for fd in (self._reader, self._writer, self.terminal):
            if fd >= 0:
                posix.close(fd)

    # ---- terminal

    def take_terminal(self, sock: "_socket.socket") -> None:
        """Receive the container's terminal from the other end of its console socket; put ours into raw mode."""
        self.terminal = receive_master(sock)
        self.resize()
        if posix.isatty(0):
            self._mode = termios.tcgetattr(0)
            termios.tcsetattr(0, termios.TCSADRAIN, raw_mode(self._mode))

    def restore_mode(self) -> None:
        if self._mode is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._mode)
            self._mode = None

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        if self.terminal >= 0 and posix.isatty(0):
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    # ---- waiting

    def wait(self, pid: int, timeout: "float | None" = None) -> "int | None":
        """Wait for the container's process `pid`, our child; its exit code, or None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = self._poll()
        while True:
            done, status = posix.waitpid(pid, posix.WNOHANG)
            if done:
                self._drain()
                return exit_code(status)
            left = None if deadline is None else int((deadline - time.monotonic()) * 1000) + 1
            if left is not None and left <= 0:
                return None
            for fd, _event in poll.poll(left):
                if fd == self._reader:
                    self._signals(pid)
                elif not self._copy(fd):
                    poll.unregister(fd)
                    if fd == self.terminal and not self._output:
                        self._hang_up()
                        poll = self._poll()
                        break

    def _poll(self) -> "select.poll":
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if self.terminal >= 0:
            poll.register(self.terminal, select.POLLIN)
            poll.register(0, select.POLLIN)
        return poll

    def _signals(self, pid: int) -> None:
        for number in posix.read(self._reader, 4096):
            if number == _SIGWINCH and self.terminal >= 0:
                self.resize()
            elif number != _SIGCHLD:
                _send(pid, number)

    def _copy(self, fd: int) -> bool:
        """Copy what is there from the terminal to stdout, or from stdin to the terminal; False at its end."""
        source, target = (fd, 1) if fd == self.terminal else (0, self.terminal)
        try:
            data = posix.read(source, _BUFFER)
        except OSError as error:
            if error.errno != EIO:
                raise
            data = b""  # The last process that had the terminal open is gone (pty(7)).
        if data and source == 0:
            self._mid_line = data[-1:] != b"\n"
            return write_all(target, data)
        if data:
            self._output = write_all(target, data)
            return self._output
        if source == 0 and not posix.isatty(0):
            # The end of a pipe is the end of input.  In the middle of a line VEOF only hands over what there is, and it
            # takes a second one (termios(3)).
            write_all(self.terminal, b"\x04\x04" if self._mid_line else b"\x04")
        return False

    def _hang_up(self) -> None:
        """Nobody reads our output any more: the container's program gets EIO instead of waiting for ever (pty(7))."""
        posix.close(self.terminal)
        self.terminal = -1

    def _drain(self) -> None:
        """What the container has written before it ended; an orphan may keep the terminal open, so do not wait."""
        if self.terminal < 0:
            return
        poll = select.poll()
        poll.register(self.terminal, select.POLLIN)
        while poll.poll(0):
            if not self._copy(self.terminal):
                return


def terminal_size() -> "tuple[int, int]":
    """Rows and columns of our own terminal; (0, 0) without one."""
    if not posix.isatty(0):
        return 0, 0
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def console_pair() -> "tuple[_socket.socket, _socket.socket]":
    """Our end and the container's end of a console socket for a foreground terminal."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)


def receive_master(sock: "_socket.socket") -> int:
    """The descriptor that comes over a console socket (SCM_RIGHTS)."""
    integer = struct.Struct("=i")
    _, ancillary, _, _ = sock.recvmsg(64, _socket.CMSG_LEN(integer.size))
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            (master,) = integer.unpack_from(data)
            fcntl.fcntl(master, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            return int(master)
    raise WarrenError("no terminal came from the container")


def raw_mode(mode: "list[Any]") -> "list[Any]":
    """cfmakeraw(3) of a tcgetattr list."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = mode
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]


def write_all(fd: int, data: bytes) -> bool:
    """Write everything; False when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(fd, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True


def _send(pid: int, number: int) -> None:
    try:
        posix.kill(pid, number)
    except ProcessLookupError:
        pass


def _ignore(_number: int, _frame: object) -> None:
    """The signal is in the pipe already."""
