"""netlink(7), just enough of it: requests and answers over a raw socket, attributes in and out.

It owns the wire format of rtnetlink(7) and of nfnetlink's transactions; what is asked of the kernel is its callers'
business.  pyroute2 takes 105 ms to import.
"""

import _socket
import posix
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NEWLINK, DELLINK, GETLINK, SETLINK, NEWADDR, DELADDR, GETADDR = 16, 17, 18, 19, 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
ROUTE, NETFILTER = 0, 12
"""Protocols of netlink(7)."""
REQUEST, ACK, DUMP, CREATE, EXCL = 0x1, 0x4, 0x300, 0x400, 0x200

_HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # length, type
_NUMBER = Struct("=i")
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF  # Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
_SIZE = 1 << 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_BATCH_HEAD = b"\0\0\0\x0a"  # struct nfgenmsg; the transaction is nf_tables' (subsystem 10).


class Netlink:
    """A socket of our own network namespace, or `fd`, which stays the caller's, of wherever it was opened."""

    def __init__(self, fd: int = -1, protocol: int = ROUTE) -> None:
        self._sequence = 0
        if fd < 0:
            self._sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        else:
            self._sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol, posix.dup(fd))

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def request(self, kind: int, body: bytes, flags: int = 0) -> "list[bytes]":
        """Send one message; the bodies of the answers.  Raises OSError with the kernel's errno."""
        self._sequence += 1
        flags |= REQUEST if flags == DUMP else REQUEST | ACK
        self._sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
        answers: list[bytes] = []
        while True:
            for answer, text in _messages(self._sock.recv(_SIZE)):
                if answer == _DONE:
                    return answers
                if answer != _ERROR:
                    answers.append(text)
                elif error := -_NUMBER.unpack_from(text)[0]:
                    raise OSError(error, posix.strerror(error))
                else:
                    return answers

    def requests(self, messages: "list[tuple[int, bytes, int]]") -> None:
        """Send (kind, body, flags) all at once; the kernel takes them in order.

        Raises OSError for the first that failed, with its place in the list as `filename2`; those after it have been
        tried all the same.
        """
        first = self._sequence + 1
        data = []
        for kind, body, flags in messages:
            self._sequence += 1
            data.append(_HEADER.pack(_HEADER.size + len(body), kind, flags | REQUEST | ACK, self._sequence, 0) + body)
            data.append(bytes(-len(body) % 4))
        self._sock.send(b"".join(data))
        failed: OSError | None = None
        left = len(messages)
        while left:
            for sequence, error in self._results():
                if error and not failed:
                    failed = OSError(error, posix.strerror(error), None, None, sequence - first)
                left -= 1
        if failed:
            raise failed

    def transaction(self, messages: "list[tuple[int, bytes, int]]") -> None:
        """Send (kind, body, flags) as one transaction of nf_tables: all of it is done or nothing.

        Raises OSError for the first that failed, with its place in the list as `filename2`.
        """
        if not messages:
            return
        first = self._sequence + 1
        data = [_message(_BATCH_BEGIN, _BATCH_HEAD, REQUEST, first)]
        for number, (kind, body, flags) in enumerate(messages, first + 1):
            # Errors are always told; success of the whole by the last one.
            flags |= REQUEST | (ACK if number == first + len(messages) else 0)
            data.append(_message(kind, body, flags, number))
        last = first + len(messages)
        self._sequence = last + 1
        data.append(_message(_BATCH_END, _BATCH_HEAD, REQUEST, self._sequence))
        self._sock.send(b"".join(data))
        failed: OSError | None = None
        ended = False
        while not ended:
            for sequence, error in self._results():
                if error and not failed:
                    failed = OSError(error, posix.strerror(error), None, None, sequence - first - 1)
                # Without the privilege the beginning is refused, and nothing else is answered.
                ended = ended or sequence in (first, last)
        if failed:
            raise failed

    def _results(self) -> "Iterator[tuple[int, int]]":
        """Sequence number and errno of the acknowledgements of one datagram."""
        data = self._sock.recv(_SIZE)
        while len(data) >= _HEADER.size:
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(data)
            if kind == _ERROR:
                yield sequence, -_NUMBER.unpack_from(data, _HEADER.size)[0]
            data = data[_align(length) :]


def _message(kind: int, body: bytes, flags: int, sequence: int) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def _messages(data: bytes) -> "Iterator[tuple[int, bytes]]":
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[_align(length) :]


def attribute(kind: int, value: "bytes | int | str") -> bytes:
    """One attribute; numbers are 32 bits, text ends with a NUL."""
    if isinstance(value, int):
        value = _NUMBER.pack(value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_align(length) - length)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def attributes(data: bytes) -> "dict[int, bytes]":
    """The attributes behind the fixed part of an answer."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[_align(max(length, _ATTRIBUTE.size)) :]
    return found


def _align(length: int) -> int:
    return (length + 3) & ~3
