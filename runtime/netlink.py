"""rtnetlink(7), just enough of it: requests and answers over a raw socket, attributes in and out.

It owns the wire format; what is asked of the kernel is its callers' business.  pyroute2 takes 105 ms to import.
"""

import _socket
import posix
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NEWLINK, GETLINK, SETLINK, NEWADDR, GETADDR = 16, 18, 19, 20, 22
REQUEST, ACK, DUMP, CREATE, EXCL = 0x1, 0x4, 0x300, 0x400, 0x200

_HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # length, type
_NUMBER = Struct("=i")
_ERROR, _DONE = 2, 3
_TYPE_MASK = 0x3FFF  # Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
_SIZE = 1 << 16


class Netlink:
    """A route socket of our own network namespace, or `fd`, which stays the caller's, of wherever it was opened."""

    def __init__(self, fd: int = -1) -> None:
        self._sequence = 0
        if fd < 0:
            self._sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _socket.NETLINK_ROUTE)
        else:
            self._sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _socket.NETLINK_ROUTE, posix.dup(fd))

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
