"""Forgets what connection tracking remembers of UDP ports when they begin or cease to lead to a container.

A client that goes on sending from one port keeps its entry, and with it the old way, for as long as it sends.
"""

import _socket

from ..netlink import DUMP, NETFILTER, Netlink, attribute, attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_ORIGINAL, _REPLY, _IP, _PROTOCOL = 1, 2, 1, 2
_NUMBER, _DESTINATION_PORT = 1, 3
_UDP = 17


def forget(ports: "Collection[int]", addresses: "Collection[bytes]" = ()) -> None:
    """Delete the entries of UDP packets to these ports, or that went to these addresses; best effort."""
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            with Netlink(protocol=NETFILTER) as kernel:
                head = bytes((family, 0, 0, 0))
                for answer in kernel.request(_GET, head, DUMP):
                    entry = attributes(answer[4:])
                    if _is_stale(entry, ports, addresses):
                        _delete(kernel, head, entry)
        except OSError:
            return  # Without the module there is nothing to forget.


def _is_stale(entry: "dict[int, bytes]", ports: "Collection[int]", addresses: "Collection[bytes]") -> bool:
    original, reply = (attributes(entry.get(kind, b"")) for kind in (_ORIGINAL, _REPLY))
    protocol = attributes(original.get(_PROTOCOL, b""))
    if protocol.get(_NUMBER, b"")[:1] != bytes((_UDP,)):
        return False
    sources = attributes(reply.get(_IP, b""))
    return int.from_bytes(protocol.get(_DESTINATION_PORT, b"")[:2], "big") in ports or any(
        sources.get(kind) in addresses for kind in (1, 3)
    )


def _delete(kernel: Netlink, head: bytes, entry: "dict[int, bytes]") -> None:
    try:
        kernel.request(_DELETE, head + attribute(_ORIGINAL | 0x8000, entry[_ORIGINAL]))
    except FileNotFoundError:
        pass  # It has expired meanwhile.
