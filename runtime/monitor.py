"""The monitor of a container, seen from Python: how one is asked for, and how to talk to it.

The monitor itself is a role of `init` (init/monitor.c).  It outlives whoever launched the container: it keeps the log
and the exit code, serves those who attach, and runs a program for what needs a decision.  Nothing here decides what
that is.
"""

import _socket
import posix
import select
import struct
import time

from .console import (
    _CHUNK,
    _GRACE,
    _SIGCHLD,
    _SIGCONT,
    _SIGHUP,
    _SIGINT,
    _SIGKILL,
    _SIGQUIT,
    _SIGWINCH,
    Foreground,
    _milliseconds,
    _passed,
    read_some,
    terminal_size,
    write_some,
)
from .errors import StateError, UsageError, WarrenError
from .launch import ATTACH, Monitor, connect_in
from .state import read_file
from .steps import (
    CONSOLE_SLOT,
    EXIT_SLOT,
    HOLD_SLOT,
    INPUT_ONCE,
    LEASH,
    LISTENER_SLOT,
    LOG_SLOT,
    OWNER_SLOT,
    WANT_INPUT,
    Step,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_DATA = 32768
"""Most data of one message."""
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_O_PATH = 0o10000000
_SIGTERM, _SIGPIPE = 15, 13


class Log:
    """Where the container's output goes: the file `name` in `directory`, in format json-file or k8s-file.

    A file of more than `max_size` bytes becomes NAME.1, that NAME.2 and so on, `max_file` files in all; with one file
    it starts anew (docker's rule).  0 bytes: it grows for ever.
    """

    __slots__ = ("directory", "format", "max_file", "max_size", "name")

    def __init__(
        self, directory: str, name: str, *, format: str = "json-file", max_size: int = 0, max_file: int = 1
    ) -> None:
        self.directory = directory
        self.name = name
        self.format = format
        self.max_size = max_size
        self.max_file = max_file


class Events:
    """The program that is run when the container has ended, as `argv` "exited" CODE, and when a timer is due.

    argv[0] is a path; there are no other descriptors than 0 to 2.  It may print "MILLISECONDS REASON": it is run again
    then, as `argv` REASON.  `first` is such a timer from the beginning; (0, "") is none.
    """

    __slots__ = ("argv", "env", "first")

    def __init__(self, argv: "Sequence[str]", env: "Sequence[str]" = (), first: "tuple[int, str]" = (0, "")) -> None:
        self.argv = argv
        self.env = env
        self.first = first


class Exit:
    """What a monitor wrote down at the container's end; times in nanoseconds since 1970."""

    __slots__ = ("code", "finished", "lost", "started")

    def __init__(self, code: int, started: int, finished: int, lost: int) -> None:
        self.code = code
        self.started = started
        self.finished = finished
        self.lost = lost


def read_exit(directory: str) -> "Exit | None":
    """The end of the container whose durable directory that is; None before it, or if it was killed (not written)."""
    try:
        numbers = [int(word) for word in read_file(directory + "/exit").split()]
        return Exit(*numbers) if len(numbers) == 4 else None
    except (OSError, ValueError):
        return None


def make_monitor(
    *,
    terminal: bool = False,
    stdin: bool = False,
    stdin_once: bool = False,
    log: "Log | None" = None,
    exit_directory: str = "",
    events: "Events | None" = None,
    owner: bool = False,
    attachable: bool = True,
    leash: bool = False,
) -> "tuple[Monitor, Client | None]":
    """A monitor for launch.Options, to be closed after the launch; with `owner` also its first client.

    The owner says done() when it has cleaned up after the container; without that, or without an owner, the event
    program is run at the container's end.  With `leash` the container is killed when its owner goes.
    `exit_directory` "": the exit code is only told.  Raises WarrenError for
    directories that cannot be opened.
    """
    fds: dict[int, int] = {}
    client = None
    steps = []
    try:
        if log:
            fds[LOG_SLOT] = _open_directory(log.directory, "log")
            steps.append(Step("monitor_log", log.format, LOG_SLOT, log.name, log.max_size, log.max_file))
        if exit_directory:
            fds[EXIT_SLOT] = _open_directory(exit_directory, "exit")
        if events:
            steps.append(Step("monitor_events", list(events.argv), list(events.env), *events.first))
        if owner or leash:
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            fds[OWNER_SLOT] = theirs.detach()
            client = Client(ours)
    except BaseException:
        for fd in fds.values():
            posix.close(fd)
        raise
    flags = (WANT_INPUT if stdin or terminal else 0) | (INPUT_ONCE if stdin_once else 0) | (LEASH if leash else 0)
    steps.append(
        Step(
            "monitor",
            HOLD_SLOT,
            EXIT_SLOT if exit_directory else -1,
            LISTENER_SLOT if attachable else -1,
            OWNER_SLOT if owner or leash else -1,
            CONSOLE_SLOT if terminal else -1,
            flags,
        )
    )
    return Monitor(steps, fds, attachable=attachable), client


def _open_directory(path: str, what: str) -> int:
    try:
        return posix.open(path, _DIRECTORY)
    except OSError as error:
        raise WarrenError(f"{what} directory {path}: {posix.strerror(error.errno or 0)}".lower()) from error


class Client:
    """A connection to a monitor; only done(), keep() and wait() block."""

    __slots__ = ("_sock",)

    def __init__(self, sock: "_socket.socket") -> None:
        self._sock = sock
        sock.setblocking(False)

    @classmethod
    def connect(cls, state_directory: str) -> "Client":
        """Attach to the container of a state directory; StateError when nobody listens there (any more)."""
        try:
            return cls(connect_in(state_directory, ATTACH))
        except OSError as error:
            reason = posix.strerror(error.errno or 0).lower()
            raise StateError(f"cannot attach: {reason}", hint="is the container running?") from error

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    # ---- to the monitor: False when it takes nothing now, as when the container does not read

    def send_input(self, data: bytes) -> bool:
        """At most MAX_DATA bytes."""
        return self._send(b"i" + data)

    def send_end(self) -> bool:
        """The end of the container's input, if it ends with its first client."""
        return self._send(b"e")

    def resize(self, rows: int, columns: int) -> bool:
        return self._send(struct.pack("=cHH", b"w", rows, columns))

    def hang_up(self, kind: str) -> bool:
        """The owner's: nobody reads "o" or "E" any more, so the container's writes are to fail (EPIPE)."""
        return self._send(b"c" + kind.encode())

    def done(self) -> None:
        """The owner has cleaned up after the container: no event program is run.  Waits until that is told."""
        self._tell(b"d")

    def keep(self) -> None:
        """The owner takes the container off its leash.  Waits until that is told."""
        self._tell(b"k")

    def _tell(self, message: bytes) -> None:
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        while not self._send(message):
            poll.poll()

    def _send(self, message: bytes) -> bool:
        try:
            self._sock.send(message, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            pass  # It has ended: what it still had to say can be received.
        return True

    # ---- from the monitor

    def receive(self) -> "tuple[str, bytes] | None":
        """Kind and data of the next message; kind "" at the end, None when there is none now.

        o  output, or the terminal's    E  error output    x  the exit code (exit_code())
        """
        while True:
            try:
                message = self._sock.recv(MAX_DATA + 1)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # It ended with input of ours unread; what it has sent is still to come.
            except OSError:
                return "", b""
            return message[:1].decode("latin-1"), message[1:]

    def wait(self, timeout: "float | None" = None) -> "int | None":
        """Drop output until the container ends; its exit code, None when that cannot be known or time is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self, select.POLLIN)
        while not _passed(deadline):
            poll.poll(_milliseconds(deadline))
            message = self.receive()
            if message and message[0] in ("x", ""):
                return exit_code(message)
        return None


def exit_code(message: "tuple[str, bytes]") -> "int | None":
    """Of the last message; None when the monitor has been killed."""
    return int(struct.unpack("=I", message[1])[0]) if message[0] == "x" else None


def parse_keys(text: str) -> bytes:
    """docker's --detach-keys: letters, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas between; "" for none."""
    keys = b""
    for word in text.split(",") if text else ():
        name = word[5:].upper() if word.startswith("ctrl-") else ""
        if len(name) == 1 and "@" <= name <= "_":
            keys += bytes([ord(name) - 64])
        elif len(word) == 1 and word.isascii():
            keys += word.encode()
        else:
            raise UsageError(f"detach keys {text!r}: {word!r} is no key", hint="such as ctrl-p,ctrl-q")
    return keys


class _Keys:
    """Finds the sequence that detaches; its beginning is held back until it is known to be none."""

    def __init__(self, sequence: bytes) -> None:
        self.sequence = sequence
        self.held = b""

    def feed(self, data: bytes) -> "tuple[bytes, bool]":
        """What is input, and whether the sequence is complete."""
        data = self.held + data
        at = data.find(self.sequence) if self.sequence else -1
        if at >= 0:
            return data[:at], True
        length = min(len(data), max(0, len(self.sequence) - 1))
        while length and not self.sequence.startswith(data[-length:]):
            length -= 1
        self.held = data[len(data) - length :]
        return data[: len(data) - length], False


class Attached(Foreground):
    """Our streams and terminal, connected to a container over its monitor.

    `send` passes a signal on; None: the signals that would end us detach us instead (--sig-proxy=false).  An `owner`
    takes the container with it when its terminal or its output is closed; others detach.  Only `outputs` are shown.
    """

    def __init__(
        self,
        client: Client,
        *,
        terminal: bool = False,
        stdin: bool = False,
        send: "Callable[[int], object] | None" = None,
        detach_keys: bytes = b"\x10\x11",
        owner: bool = False,
        outputs: "tuple[int, ...]" = (1, 2),
    ) -> None:
        super().__init__()
        self.detached = False
        self._outputs = outputs
        self._client = client
        self._tty = terminal
        self._send = send
        self._owner = owner
        self._input = stdin
        self._wants_input = stdin
        self._keys = _Keys(detach_keys if terminal and stdin and posix.isatty(0) else b"")
        self._waiting: list[bytes] = []
        """Input that the monitor has not taken yet; the end is b""."""
        self._rest = {1: b"", 2: b""}

    def __enter__(self) -> "Attached":
        super().__enter__()
        return self

    def resize(self) -> None:
        if self._tty:
            size = terminal_size()
            if size != (0, 0):
                self._client.resize(*size)

    def follow(self) -> "int | None":
        """Until the container ends: its exit code.  None when detached, or (not `detached`) the monitor was killed."""
        if self._tty:
            self.resize()
            self._attach_terminal()
        while not self.detached:
            if _passed(self._kill_at):
                self._kill_at = None
                self._pass_on(_SIGKILL)
            for fd, events in self._ready(_milliseconds(self._kill_at)):
                if fd == self._reader:
                    self._take_signals()
                elif fd == 0:
                    self._take_input()
                elif fd in self._rest:
                    self._write_rest(fd)
                else:
                    if events & select.POLLOUT:
                        self._send_waiting()
                    ended = self._take_messages() if events & ~select.POLLOUT else None
                    if ended:
                        return exit_code(ended)
        return None

    def _attach_terminal(self) -> None:
        if self._wants_input:
            self._attach()

    def _ready(self, left: "int | None") -> "list[tuple[int, int]]":
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        wanted = select.POLLOUT if self._waiting else 0
        for fd, rest in self._rest.items():
            if rest:
                poll.register(fd, select.POLLOUT)
        if not any(self._rest.values()):
            wanted |= select.POLLIN
        if wanted:
            poll.register(self._client, wanted)
        if self._input and not self._waiting:
            poll.register(0, select.POLLIN)
        return poll.poll(left)

    # ---- signals

    def _take_signals(self) -> None:
        for number in posix.read(self._reader, 4096):
            if number == _SIGWINCH:
                self.resize()
            elif number != _SIGCHLD:
                if number == _SIGCONT and self._tty:
                    self._attach_terminal()
                self._pass_on(number)
                if number == _SIGHUP:
                    self._hung_up()

    def _pass_on(self, number: int) -> None:
        if self._send:
            self._send(number)
        elif number in (_SIGHUP, _SIGINT, _SIGQUIT, _SIGTERM):
            self.detached = True

    def _hung_up(self) -> None:
        """The user has closed a terminal of ours."""
        if all(posix.isatty(fd) for fd in self._terminals):
            return
        self._give_up()

    def _give_up(self) -> None:
        """Nobody is there any more: a container that was only theirs gets a little time to end."""
        self._rest = {1: b"", 2: b""}
        if self._owner and self._send:
            self._kill_at = self._kill_at or time.monotonic() + _GRACE
        else:
            self.detached = True

    # ---- input

    def _take_input(self) -> None:
        data = read_some(0)
        if data:
            self._mid_line = data[-1:] != b"\n"
            data, self.detached = self._keys.feed(data)
            if self.detached:
                write_some(0, b"\r\n")  # What our user sees next is not on the container's line.
            self._waiting += [data[at : at + MAX_DATA] for at in range(0, len(data), MAX_DATA)]
        elif data == b"":
            self._input = False
            if not self._tty:
                self._waiting.append(b"")
            elif not posix.isatty(0):
                # The end of a pipe is the end of input; in the middle of a line it takes two VEOF (termios(3)).
                self._waiting.append(b"\x04\x04" if self._mid_line else b"\x04")
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if not (self._client.send_input(first) if first else self._client.send_end()):
                return
            del self._waiting[0]

    # ---- output

    def _take_messages(self) -> "tuple[str, bytes] | None":
        """Until there is output that our reader does not take yet; the message that was the last one."""
        while not any(self._rest.values()):
            message = self._client.receive()
            if message is None:
                return None
            if message[0] in ("x", ""):
                return message
            fd = 2 if message[0] == "E" else 1
            if not self._kill_at and fd in self._outputs:
                self._rest[fd] = message[1]
                self._write_rest(fd)
        return None

    def _write_rest(self, fd: int) -> None:
        """As much as does not block: a pipe that poll(2) calls writable takes one _CHUNK."""
        while rest := self._rest[fd]:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if not poll.poll(0):
                return
            left = write_some(fd, rest[:_CHUNK])
            if left is None:
                if self._owner:
                    self._client.hang_up("E" if fd == 2 else "o")
                    self._pass_on(_SIGPIPE)
                self._give_up()
                return
            self._rest[fd] = left + rest[_CHUNK:]
