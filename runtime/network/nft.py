"""nf_tables' wire format: tables, chains, rules, sets and their elements as messages of nfnetlink.

It owns the encoding; what the rules say is rules.py's.  Values of keys are in network byte order, each field of a
concatenation padded to four bytes, as the kernel's registers are.  Attribute numbers are those of
linux/netfilter/nf_tables.h.
"""

from _struct import Struct

from ..netlink import CREATE, attribute, attributes, nested

INET, BRIDGE = 1, 7
"""Families (NFPROTO_INET, NFPROTO_BRIDGE)."""
_NFTABLES = 10 << 8
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, NEWRULE, NEWSET = (
    _NFTABLES | n for n in (0, 1, 2, 3, 4, 6, 9)
)  # fmt: skip
NEWELEMENT, GETELEMENT, DELELEMENT = (_NFTABLES | n for n in (12, 13, 14))
_APPEND = 0x800
_BIG = Struct(">I")
_LONG = Struct(">Q")
_LIST_ELEMENT = 1

# Datatypes of nft(8), for its listing alone.
IPV4, IPV6, PROTOCOL, PORT, NAME = 7, 8, 12, 13, 41
SIZES = {IPV4: 4, IPV6: 16, PROTOCOL: 4, PORT: 4, NAME: 16}
INTERVAL, MAP, TIMEOUT, CONCATENATION, COUNTED = 0x4, 0x8, 0x10, 0x80, 0x100
"""Flags of a set; COUNTED ones count packets and bytes for each element."""
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5
IIFNAME, OIFNAME, NFPROTO, L4PROTO = 6, 7, 15, 16
_INTERVAL_END = 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    Message = tuple[int, bytes, int]


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value)


def big(kind: int, value: int) -> bytes:
    return attribute(kind, _BIG.pack(value & 0xFFFFFFFF))


def message(kind: int, family: int, body: bytes, flags: int = 0) -> "Message":
    return kind, bytes((family, 0, 0, 0)) + body, flags


def table(family: int, name: str, kind: int = NEWTABLE) -> "Message":
    return message(kind, family, text(1, name), CREATE if kind == NEWTABLE else 0)


def chain(family: int, table: str, name: str, hook: int = -1, priority: int = 0, type: str = "filter") -> "Message":
    """A chain; with a hook a base chain of policy accept."""
    body = text(1, table) + text(3, name)
    if hook >= 0:
        body += nested(4, big(1, hook), big(2, priority)) + text(7, type)
    return message(NEWCHAIN, family, body, CREATE)


def rule(family: int, table: str, chain: str, expressions: "list[bytes]") -> "Message":
    parts = [nested(_LIST_ELEMENT, one) for one in expressions]
    return message(NEWRULE, family, text(1, table) + text(2, chain) + nested(4, *parts), CREATE | _APPEND)


def new_set(
    family: int,
    table: str,
    name: str,
    key: "tuple[int, ...]",
    number: int,
    flags: int = 0,
    data: "tuple[int, ...]" = (),
) -> "Message":
    """`number` names it within the transaction.  A concatenation may hold intervals of every field."""
    if len(key) > 1 and flags & INTERVAL:
        flags |= CONCATENATION
    if data:
        flags |= MAP
    body = text(1, table) + text(2, name) + big(3, flags & ~COUNTED)
    body += big(4, _type(key)) + big(5, _size(key)) + big(10, number)
    if data:
        body += big(6, _type(data)) + big(7, _size(data))
    if flags & CONCATENATION:
        fields = [nested(_LIST_ELEMENT, big(1, SIZES[kind])) for kind in key]
        body += nested(9, nested(2, *fields))
    if flags & COUNTED:
        body += nested(17, text(1, "counter") + nested(2))
    return message(NEWSET, family, body, CREATE)


def _type(key: "tuple[int, ...]") -> int:
    number = 0
    for kind in key:
        number = number << 6 | kind
    return number


def _size(key: "tuple[int, ...]") -> int:
    return sum([SIZES[kind] for kind in key])


def elements(kind: int, family: int, table: str, name: str, *items: bytes) -> "Message":
    """Add or delete `items`, as element() and interval() make them."""
    flags = CREATE if kind == NEWELEMENT else 0
    return message(kind, family, text(1, table) + text(2, name) + nested(3, *items), flags)


def element(key: bytes, data: bytes = b"", *, end: bytes = b"", seconds: float = 0) -> bytes:
    """One element; with `end` a concatenation's interval from `key` to `end`, both included."""
    body = nested(1, attribute(1, key))
    if end:
        body += nested(10, attribute(1, end))
    if data:
        body += nested(2, attribute(1, data))
    if seconds:
        body += attribute(4, _LONG.pack(int(seconds * 1000)))
    return nested(_LIST_ELEMENT, body)


def interval(first: bytes, after: bytes) -> bytes:
    """An interval of a set with one field: from `first` to before `after`."""
    return element(first) + nested(_LIST_ELEMENT, nested(1, attribute(1, after)), big(3, _INTERVAL_END))


# ---- expressions: each a list, so that a rule is their sum


def _expression(name: str, *attributes: bytes) -> "list[bytes]":
    return [text(1, name) + nested(2, *attributes)]


def meta(key: int, register: int = 8) -> "list[bytes]":
    return _expression("meta", big(2, key), big(1, register))


def payload(base: int, offset: int, length: int, register: int = 8) -> "list[bytes]":
    """Bytes of the packet; base 0 is the link's header, 1 the network's, 2 the transport's."""
    return _expression("payload", big(1, register), big(2, base), big(3, offset), big(4, length))


def compare(value: bytes, *, equal: bool = True, register: int = 8) -> "list[bytes]":
    return _expression("cmp", big(1, register), big(2, 0 if equal else 1), nested(3, attribute(1, value)))


def masked(mask: bytes, register: int = 8) -> "list[bytes]":
    return _expression(
        "bitwise", big(1, register), big(2, register), big(3, len(mask)),
        nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(len(mask)))),
    )  # fmt: skip


def lookup(name: str, *, inverted: bool = False, data: int = 0, register: int = 8) -> "list[bytes]":
    """Whether the register's key is in a set; of a map, its value goes to register `data`."""
    parts = [text(1, name), big(2, register)]
    if data:
        parts.append(big(3, data))
    if inverted:
        parts.append(big(5, 1))
    return _expression("lookup", *parts)


def ct(key: int, register: int = 8) -> "list[bytes]":
    """Connection tracking: 0 its state, 2 its status."""
    return _expression("ct", big(2, key), big(1, register))


def is_local() -> "list[bytes]":
    """Whether the destination is an address of this host (fib daddr type local)."""
    return _expression("fib", big(1, 8), big(2, 3), big(3, 2)) + compare(b"\2\0\0\0")


def verdict(code: int, chain: str = "") -> "list[bytes]":
    inner = big(1, code) + (text(2, chain) if chain else b"")
    return _expression("immediate", big(1, 0), nested(2, nested(2, inner)))


def masquerade() -> "list[bytes]":
    return _expression("masq")


def dnat(family: int, address: int, port: int) -> "list[bytes]":
    """To what the registers hold; family 2 is IPv4, 10 IPv6."""
    return _expression(
        "nat", big(1, 1), big(2, family), big(3, address), big(4, address), big(5, port), big(6, port), big(7, 3)
    )


# ---- answers


def packets(answer: bytes) -> int:
    """The counter of the one element in an answer to GETELEMENT."""
    listed = attributes(attributes(answer[4:]).get(3, b""))
    item = attributes(listed.get(_LIST_ELEMENT, b""))
    inner = attributes(item.get(7, b"") or attributes(item.get(11, b"")).get(_LIST_ELEMENT, b""))
    count = attributes(inner.get(2, b"")).get(2, bytes(8))
    return int(_LONG.unpack(count)[0])


def keys(answer: bytes) -> "list[bytes]":
    """The keys in one message of a dump of elements."""
    data = attributes(answer[4:]).get(3, b"")
    found = []
    while len(data) >= 4:
        length = int.from_bytes(data[:2], "little")
        found.append(attributes(attributes(data[4:length]).get(1, b"")).get(1, b""))
        data = data[(length + 3) & ~3 :]
    return found
