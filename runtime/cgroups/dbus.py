"""As much of D-Bus as a conversation with a service manager needs: connect, call a method, wait for a signal.

It owns sockets, authentication and the wire format (dbus-specification, "Type System" and "Message Protocol"), and
refuses what nobody asks for here: objects of our own, descriptors, more than one caller at a time.  Our own because a
launch cannot pay for a library: jeepney takes 13 ms to import and dbus-python 20, this module one.
"""

import _socket
from struct import calcsize, error, pack, unpack_from

from ..errors import WarrenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 30.0
"""How long one answer may take; systemd may be busy with a reload."""
MAX_MESSAGE = 1 << 27
_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_TO, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIXED = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "b": "I", "x": "q", "t": "Q", "d": "d"}
_ALIGNMENT = {"s": 4, "o": 4, "a": 4, "g": 1, "v": 1, "(": 8, "{": 8} | {c: calcsize(f) for c, f in _FIXED.items()}


class CallError(WarrenError):
    """The other side answered a call with an error; `name` is its D-Bus name."""

    def __init__(self, member: str, name: str, text: str) -> None:
        super().__init__(f"systemd: {member}: {text or name}".replace("\n", " "))
        self.name = name


class Connection:
    """A conversation over the socket `path`: with a bus, or with `bus=False` with the service itself.

    Raises OSError where nobody listens there, WarrenError for one that refuses us; a later silence is WarrenError, too.
    """

    __slots__ = ("_buffer", "_serial", "_signals", "_socket", "bus")

    def __init__(self, path: str, *, bus: bool) -> None:
        self.bus = bus
        self._serial = 0
        self._buffer = bytearray()
        self._signals: list[tuple[str, list[object]]] = []
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._socket.settimeout(SECONDS)
            self._socket.connect(path)
            self._authenticate(path)
            if bus:
                self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def call(
        self, service: str, path: str, interface: str, member: str, signature: str = "", *values: object
    ) -> "list[object]":
        """What the method returns; CallError for an error."""
        self._serial += 1
        fields: list[object] = [(_PATH, ("o", path)), (_INTERFACE, ("s", interface)), (_MEMBER, ("s", member))]
        if self.bus:
            fields.append((_DESTINATION, ("s", service)))
        if signature:
            fields.append((_SIGNATURE, ("g", signature)))
        body = marshal(signature, *values)
        head = marshal("yyyyuua(yv)", ord("l"), _CALL, 0, 1, len(body), self._serial, fields)
        self._send(head + bytes(-len(head) % 8) + body)
        while True:
            kind, found, answer = self._message()
            if kind in (_RETURN, _ERROR) and found.get(_REPLY_TO) == self._serial:
                break
            self._keep(kind, found, answer)
        if kind == _ERROR:
            raise CallError(member, str(found.get(_ERROR_NAME)), str(answer[0]) if answer else "")
        return answer

    def wait_for(self, member: str, wanted: "Callable[[list[object]], bool]") -> "list[object]":
        """The values of the first signal `member` that is wanted, which may have come during a call."""
        while True:
            for name, values in self._signals:
                if name == member and wanted(values):
                    return values
            self._signals.clear()
            self._keep(*self._message())

    def _keep(self, kind: int, fields: "dict[int, object]", values: "list[object]") -> None:
        if kind == _SIGNAL:
            self._signals.append((str(fields.get(_MEMBER)), values))

    def _authenticate(self, path: str) -> None:
        """EXTERNAL, without a name: the other side knows it (SO_PEERCRED), and in a user namespace we do not."""
        self._send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        answers = [self._line(), self._line()]
        if answers[0] != b"DATA" or not answers[1].startswith(b"OK "):
            raise WarrenError(f"{path}: the service manager does not accept this user", hint="is it this user's own?")

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._receive()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _message(self) -> "tuple[int, dict[int, object], list[object]]":
        """Kind, header fields by number, and values of the next message."""
        self._have(16)
        order = "<" if self._buffer[0] == ord("l") else ">"
        body, fields = unpack_from(order + "I4xI", self._buffer, 4)
        head = 16 + fields + -fields % 8
        if body + head > MAX_MESSAGE:
            raise WarrenError("systemd: a message is larger than D-Bus allows")
        self._have(head + body)
        data = bytes(self._buffer[: head + body])
        del self._buffer[: head + body]
        try:
            found = dict(unmarshal("a(yv)", data[:head], order, 12)[0])  # type: ignore[call-overload]
            return data[1], found, unmarshal(str(found.get(_SIGNATURE, "")), data[head:], order)
        except (error, IndexError, KeyError, ValueError, TypeError) as wrong:
            raise WarrenError(f"systemd: a message cannot be understood: {wrong}") from wrong

    def _have(self, count: int) -> None:
        while len(self._buffer) < count:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except TimeoutError as wrong:
            raise WarrenError(f"systemd did not answer within {SECONDS:g} seconds") from wrong
        if not data:
            raise WarrenError("systemd closed the connection")
        self._buffer += data

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (TimeoutError, BrokenPipeError, ConnectionResetError) as wrong:
            raise WarrenError("systemd closed the connection") from wrong


def marshal(signature: str, *values: object) -> bytes:
    """Values as a message body, little-endian; a variant is a pair of signature and value, a structure a tuple."""
    data = bytearray()
    for kind, value in zip(split(signature), values, strict=True):
        _write(data, kind, value)
    return bytes(data)


def unmarshal(signature: str, data: bytes, order: str = "<", at: int = 0) -> "list[object]":
    """The values from byte `at` on; a variant is its value alone.  struct.error or IndexError for too few bytes."""
    found = []
    for kind in split(signature):
        value, at = _read(data, at, kind, order)
        found.append(value)
    return found


def split(signature: str) -> "Iterator[str]":
    """Single complete types: "ssa(sv)" is "s", "s" and "a(sv)"."""
    start = 0
    while start < len(signature):
        end = start
        while signature[end] == "a":
            end += 1
        depth = 0
        while True:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(signature[end], 0)
            end += 1
            if not depth:
                break
        yield signature[start:end]
        start = end


def _write(data: bytearray, kind: str, value: "object") -> None:
    data += bytes(-len(data) % _ALIGNMENT[kind[0]])
    if kind in _FIXED:
        data += pack("<" + _FIXED[kind], value)
    elif kind in ("s", "o", "g"):
        text = str(value).encode("utf-8", "surrogateescape")
        data += pack("<B" if kind == "g" else "<I", len(text)) + text + b"\0"
    elif kind == "v":
        inner, value = value  # type: ignore[misc]
        _write(data, "g", inner)  # type: ignore[has-type]
        _write(data, inner, value)  # type: ignore[has-type]
    elif kind[0] == "a":
        data += bytes(4)
        start = len(data)
        data += bytes(-start % _ALIGNMENT[kind[1]])
        first = len(data)
        for item in value:  # type: ignore[attr-defined]
            _write(data, kind[1:], item)
        data[start - 4 : start] = pack("<I", len(data) - first)
    else:
        for inner, item in zip(split(kind[1:-1]), value, strict=True):  # type: ignore[call-overload]
            _write(data, inner, item)


def _read(data: bytes, at: int, kind: str, order: str) -> "tuple[object, int]":
    at += -at % _ALIGNMENT[kind[0]]
    if kind in _FIXED:
        (number,) = unpack_from(order + _FIXED[kind], data, at)
        return bool(number) if kind == "b" else number, at + calcsize(_FIXED[kind])
    if kind in ("s", "o", "g"):
        (size,) = unpack_from(order + ("B" if kind == "g" else "I"), data, at)
        at += 1 if kind == "g" else 4
        return data[at : at + size].decode("utf-8", "surrogateescape"), at + size + 1
    if kind == "v":
        inner, at = _read(data, at, "g", order)
        return _read(data, at, str(inner), order)
    items = []
    if kind[0] == "a":
        (size,) = unpack_from(order + "I", data, at)
        at += 4
        at += -at % _ALIGNMENT[kind[1]]
        end = at + size
        while at < end:
            item, at = _read(data, at, kind[1:], order)
            items.append(item)
        return items, at
    for inner in split(kind[1:-1]):
        item, at = _read(data, at, inner, order)
        items.append(item)
    return tuple(items), at
