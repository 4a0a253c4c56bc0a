"""A foreground container: its terminal, the signals that are passed on to it, and waiting for its end.

Signals arrive through a pipe (signal.set_wakeup_fd), beside the terminal's bytes in one poll loop: none is lost
between the launch and the wait, and no handler does anything.  Only the main thread may use this (signal(7)).
Nothing but the last rest of the output is written in a way that could block: a container that does not read, or a
reader of its output that does not, delays neither the other direction, nor a signal, nor the end.
"""

import _signal
import _socket
import fcntl
import posix
import select
import struct
import termios
import time

from .errors import WarrenError
from .syscalls import exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUFFER = 65536
# A pipe that poll(2) calls writable takes this much without blocking (pipe(7), PIPE_BUF).
_CHUNK = 4096
# More than a terminal buffers; what comes on top is from a process that outlives the container's.
_MAX_REST = 1 << 20
_NSIG = 65
# Not passed on: what the kernel tells us, what cannot be caught, what libc uses, and our own faults.
_KEPT = frozenset([4, 5, 6, 7, 8, 9, 11, 13, 17, 19, 23, 32, 33])
_SIGHUP, _SIGINT, _SIGQUIT, _SIGKILL, _SIGCHLD, _SIGCONT, _SIGWINCH = 1, 2, 3, 9, 17, 18, 28
# What a container may still do when its user's terminal has gone, in seconds.
_GRACE = 3


class Foreground:
    """Passes signals on and waits; a context manager around the launch and the wait.

    `terminal` is the master of the container's terminal once there is one, -1 otherwise.
    """

    def __init__(self) -> None:
        self.terminal = -1
        self._mid_line = False
        self._input = self._output = True
        self._terminals = [fd for fd in range(3) if posix.isatty(fd)]
        self._kill_at: float | None = None
        self._to_container = self._to_output = b""
        self._saved: dict[int, Any] = {}
        self._mode: list[Any] | None = None
        self._reader = self._writer = -1

    def __enter__(self) -> "Foreground":
        self._reader, self._writer = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self._old_wakeup = _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in range(1, _NSIG):
            if number not in _KEPT or number == _SIGCHLD:
                self._saved[number] = _signal.signal(number, _ignore)
        for number in (_SIGHUP, _SIGINT, _SIGQUIT):
            if self._saved[number] == _signal.SIG_IGN:
                _signal.signal(number, _signal.SIG_IGN)  # As nohup(1), or a shell for its background jobs, wants it.
        # Our caller's mask would keep signals from us, the end of the container (SIGCHLD) among them.
        self._mask = _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        return self

    def __exit__(self, *_: object) -> None:
        self.restore_mode()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)
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
        posix.set_blocking(self.terminal, False)
        self.resize()
        self._attach()

    def _attach(self) -> None:
        """Use our terminal only while we are its foreground: reading or setting it from the background would make
        the kernel stop us again and again (termios(3), SIGTTIN and SIGTTOU).
        """
        if not posix.isatty(0):
            return
        self._input = _in_foreground()
        if self._input:
            self._mode = self._mode or termios.tcgetattr(0)
            termios.tcsetattr(0, termios.TCSADRAIN, raw_mode(self._mode))

    def restore_mode(self) -> None:
        mode, self._mode = self._mode, None
        if mode is not None and _in_foreground():
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, mode)
            except termios.error:
                pass  # The terminal has been hung up: there is nothing to restore.

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        if self.terminal >= 0 and posix.isatty(0):
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    # ---- waiting

    def wait(self, pid: int, timeout: "float | None" = None) -> "int | None":
        """Wait for the container's process `pid`, our child; its exit code, or None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            done, status = posix.waitpid(pid, posix.WNOHANG)
            if done:
                self._drain()
                return exit_code(status)
            if _passed(self._kill_at):
                _send(pid, _SIGKILL)
                self._kill_at = None
            if _passed(deadline):
                return None
            for fd, _event in self._poll(_milliseconds(deadline, self._kill_at)):
                if fd == self._reader:
                    self._signals(pid)
                else:
                    self._copy(fd)

    def _poll(self, left: "int | None") -> "list[tuple[int, int]]":
        """What is ready; a direction is read from only once what was read before has been written."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if self.terminal >= 0:
            if self._to_output:
                poll.register(1, select.POLLOUT)
            wanted = select.POLLIN if self._output and not self._to_output else 0
            wanted |= select.POLLOUT if self._to_container else 0
            if wanted:
                poll.register(self.terminal, wanted)
            if self._input and not self._to_container:
                poll.register(0, select.POLLIN)
        return poll.poll(left)

    def _signals(self, pid: int) -> None:
        for number in posix.read(self._reader, 4096):
            if number == _SIGWINCH and self.terminal >= 0:
                self.resize()
            elif number != _SIGCHLD:
                if number == _SIGCONT and self.terminal >= 0:
                    self._attach()
                _send(pid, number)
                if number == _SIGHUP:
                    self._leave()

    def _leave(self) -> None:
        """Our user has closed a terminal of ours: process 1 of a pid namespace would outlive its SIGHUP for ever."""
        if not all(posix.isatty(fd) for fd in self._terminals):
            self._kill_at = time.monotonic() + _GRACE
            if self.terminal >= 0:
                self._hang_up()

    def _copy(self, fd: int) -> None:
        """Move bytes on at a descriptor that is ready."""
        if fd == 0:
            self._read_input()
        elif fd == 1:
            self._write_output()
        elif fd == self.terminal:
            if self._to_container:
                rest = write_some(fd, self._to_container)
                self._input = self._input and rest is not None
                self._to_container = rest or b""
            if self._output and not self._to_output:
                data = read_some(fd)
                self._output = data != b""
                self._to_output = data or b""

    def _read_input(self) -> None:
        data = read_some(0)
        if data:
            self._mid_line = data[-1:] != b"\n"
            self._to_container = data
        elif data == b"":
            self._input = False
            if not posix.isatty(0):
                # The end of a pipe is the end of input.  In the middle of a line VEOF only hands over what there is,
                # and it takes a second one (termios(3)).
                self._to_container = b"\x04\x04" if self._mid_line else b"\x04"

    def _write_output(self) -> None:
        rest = write_some(1, self._to_output[:_CHUNK])
        if rest is None:
            self._hang_up()
        else:
            self._to_output = rest + self._to_output[_CHUNK:]

    def _hang_up(self) -> None:
        """Nobody reads our output any more: the container's program gets EIO instead of waiting for ever (pty(7))."""
        posix.close(self.terminal)
        self.terminal = -1

    def _drain(self) -> None:
        """What the container has written before it ended; an orphan may keep the terminal open, so do not wait."""
        if self.terminal < 0:
            return
        data, left = self._to_output, _MAX_REST
        self._to_output = b""
        while write_all(1, data) and left > 0:
            data = read_some(self.terminal) or b""
            left -= len(data)
            if not data:
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


def read_some(fd: int) -> "bytes | None":
    """What is there; b"" at the end, None for nothing yet."""
    try:
        return posix.read(fd, _BUFFER)
    except BlockingIOError:
        return None
    except OSError:
        # EIO: the last process that had the terminal open is gone (pty(7)).  Whatever else it is, no more will come.
        return b""


def write_some(fd: int, data: bytes) -> "bytes | None":
    """Write what fits; the rest, or None when nobody reads any more."""
    try:
        return data[posix.write(fd, data) :]
    except BlockingIOError:
        return data
    except OSError:
        return None


def write_all(fd: int, data: bytes) -> bool:
    """Write everything, waiting for the reader; False when nobody reads any more."""
    rest: bytes | None = data
    while rest:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll()
        rest = write_some(fd, rest)
    return rest is not None


def _passed(moment: "float | None") -> bool:
    return moment is not None and time.monotonic() >= moment


def _milliseconds(*moments: "float | None") -> "int | None":
    """Until the first of them, for poll(2); None for never."""
    left = [int((moment - time.monotonic()) * 1000) + 1 for moment in moments if moment is not None]
    return max(0, min(left)) if left else None


def _in_foreground() -> bool:
    """Whether our standard input is a terminal that lets us read and set it."""
    try:
        return posix.tcgetpgrp(0) == posix.getpgrp()
    except OSError:
        return True  # Not our controlling terminal: no job control here.


def _send(pid: int, number: int) -> None:
    try:
        posix.kill(pid, number)
    except ProcessLookupError:
        pass


def _ignore(_number: int, _frame: object) -> None:
    """The signal is in the pipe already."""
