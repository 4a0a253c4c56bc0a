"""Our packet filter: the tables `inet warren` and `bridge warren`, in which a container is an element and not a rule.

    raw          nobody on a bridge reaches the host's loopback, which route_localnet would allow
    prerouting   published ports, from anywhere; output: from the host itself
    postrouting  masquerade: to the outside, back into the same network (hairpin), and from the host's loopback
    forward      who may talk to whom; egress: what a container with egress rules may reach, also in `input`
    guard        (bridge) a container with egress rules sends from its own addresses only

It owns what the rules say; nothing of the host's other tables is read or touched here.  Accepting is not final for
other tables: a host firewall that drops what is forwarded still does.
"""

import _socket
from errno import ENOENT

from ..errors import UnsupportedError
from ..netlink import DUMP, NETFILTER, Netlink, nested
from . import nft
from .nft import ACCEPT, BRIDGE, DROP, INET, IPV4, IPV6, JUMP, NAME, PORT, PROTOCOL, RETURN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .nft import Message

TABLE = "warren"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_SETS = {
    # name: fields of the key, flags, fields of the data
    "bridges": ((NAME,), 0, ()),
    "pairs": ((NAME, NAME), 0, ()),
    "external": ((NAME,), 0, ()),
    "uplinks": ((NAME,), 0, ()),
    "subnets4": ((IPV4,), nft.INTERVAL, ()),
    "subnets6": ((IPV6,), nft.INTERVAL, ()),
    "publish4": ((PROTOCOL, IPV4, PORT), nft.TIMEOUT, (IPV4, PORT)),
    "publish6": ((PROTOCOL, IPV6, PORT), nft.TIMEOUT, (IPV6, PORT)),
    "anywhere4": ((PROTOCOL, PORT), nft.TIMEOUT, (IPV4, PORT)),
    "anywhere6": ((PROTOCOL, PORT), nft.TIMEOUT, (IPV6, PORT)),
    "egress4": ((IPV4,), 0, ()),
    "egress6": ((IPV6,), 0, ()),
    "allowed4": ((IPV4, IPV4, PROTOCOL, PORT), nft.INTERVAL, ()),
    "allowed6": ((IPV6, IPV6, PROTOCOL, PORT), nft.INTERVAL, ()),
    "resolved4": ((IPV4, IPV4, PROTOCOL, PORT), nft.TIMEOUT, ()),
    "resolved6": ((IPV6, IPV6, PROTOCOL, PORT), nft.TIMEOUT, ()),
    "reached4": ((IPV4, IPV4), nft.TIMEOUT, ()),
    "reached6": ((IPV6, IPV6), nft.TIMEOUT, ()),
    "denied4": ((IPV4,), nft.COUNTED, ()),
    "denied6": ((IPV6,), nft.COUNTED, ()),
}
_GUARD_SETS = {"guarded": (NAME,), "sources4": (NAME, IPV4), "sources6": (NAME, IPV6)}
_V4, _V6 = 2, 10
_RAW, _DNAT, _FILTER, _SNAT = -300, -100, 0, 100
_ESTABLISHED = b"\x06\0\0\0"  # established or related
_DNATTED = b"\x20\0\0\0"


def missing() -> bool:
    """Whether the tables have to be made: nobody has yet, or a reload of the host's firewall has flushed them."""
    with Netlink(protocol=NETFILTER) as kernel:
        try:
            kernel.request(*nft.message(nft.GETTABLE, INET, nft.text(1, TABLE)))
        except OSError as error:
            if error.errno == ENOENT:
                return True
            raise
    return False


def install() -> None:
    """Make both tables, anew; without elements."""
    tables = ((INET, _inet()), (BRIDGE, _bridge()))
    for family, content in tables:
        # Made, so that it can be removed: in one transaction, whatever was there.
        gone = [nft.table(family, TABLE), nft.table(family, TABLE, nft.DELTABLE)]
        commit([*gone, nft.table(family, TABLE), *content])


def remove() -> None:
    """Remove both tables, and with them every rule of ours."""
    for family in (INET, BRIDGE):
        commit([nft.table(family, TABLE), nft.table(family, TABLE, nft.DELTABLE)])


def commit(messages: "list[Message]") -> None:
    """Do all of it or nothing; OSError with the kernel's errno."""
    with Netlink(protocol=NETFILTER) as kernel:
        try:
            kernel.transaction(messages)
        except PermissionError as error:
            raise UnsupportedError("nf_tables: not permitted", hint="networks of bridges need CAP_NET_ADMIN") from error


def add(items: "list[tuple[str, bytes]]") -> None:
    """Add elements, (set, element); OSError ENOENT when the table is missing."""
    commit([_element(nft.NEWELEMENT, name, item) for name, item in items])


def discard(items: "list[tuple[str, bytes]]") -> None:
    """Remove elements, those that are there."""
    if not items:
        return
    messages = [_element(nft.DELELEMENT, name, item) for name, item in items]
    try:
        commit(messages)
    except FileNotFoundError:
        for one in messages:
            try:
                commit([one])
            except FileNotFoundError:
                pass


def replace(item: "tuple[str, bytes]") -> None:
    """Add an element, or let its time begin anew."""
    new = _element(nft.NEWELEMENT, *item)
    try:
        commit([_element(nft.DELELEMENT, *item), new])
    except FileNotFoundError:
        commit([new])


CAN_EXPIRE = (6, 12)
"""Kernels that let the time of an element be set anew."""
SOON = 0.001


def expire(items: "list[tuple[str, bytes]]") -> None:
    """Let elements, given with SOON as their time, be gone at once; those that are there.

    To remove one takes 10 ms: whoever has done so waits for an RCU grace period when his socket is closed.
    """
    add(items)


def _element(kind: int, name: str, item: bytes) -> "Message":
    family = BRIDGE if name in _GUARD_SETS else INET
    return nft.elements(kind, family, TABLE, name, item)


# ---- elements


def name_key(name: str) -> bytes:
    data = name.encode()
    return data + bytes(16 - len(data))


def port_key(port: int) -> bytes:
    return port.to_bytes(2, "big") + b"\0\0"


def protocol_key(protocol: str) -> bytes:
    return bytes((PROTOCOLS[protocol], 0, 0, 0))


def pack(address: str) -> bytes:
    return _socket.inet_pton(_socket.AF_INET6 if ":" in address else _socket.AF_INET, address)


def of_network(bridge: str, subnets: "list[str]", *, internal: bool, isolated: bool) -> "list[tuple[str, bytes]]":
    """The elements of a network: its bridge, and what of it is masqueraded."""
    key = name_key(bridge)
    found = [("bridges", nft.element(key))]
    if not isolated:
        found.append(("pairs", nft.element(key + key)))
    if internal:
        return found
    found.append(("external", nft.element(key)))
    for subnet in subnets:
        first, after = _bounds(subnet)
        found.append((_family("subnets", subnet), nft.interval(first, after)))
    return found


def published(
    protocol: str, host: str, port: int, address: str, target: int, seconds: float = 0
) -> "tuple[str, bytes]":
    """A published port; host "" is every address of the host.  For ever, or for some seconds."""
    data = pack(address) + port_key(target)
    key = protocol_key(protocol) + (pack(host) if host else b"") + port_key(port)
    return _family("publish" if host else "anywhere", address), nft.element(key, data, seconds=seconds)


def restricted(interface: str, addresses: "list[str]") -> "list[tuple[str, bytes]]":
    """A container with egress rules: its addresses, and that it has no others."""
    name = name_key(interface)
    found = [("guarded", nft.element(name))]
    for address in addresses:
        key = pack(address)
        found += [(_family(kind, address), nft.element(key)) for kind in ("egress", "denied")]
        found.append((_family("sources", address), nft.element(name + key)))
    return found


def allowed(
    source: str, first: bytes, last: bytes, protocols: "tuple[int, int]", ports: "tuple[int, int]"
) -> "tuple[str, bytes]":
    """What a container with egress rules may reach: intervals, both ends included.  They must not overlap."""
    start = pack(source) + first + bytes((protocols[0], 0, 0, 0)) + port_key(ports[0])
    end = pack(source) + last + bytes((protocols[1], 0, 0, 0)) + port_key(ports[1])
    return _family("allowed", source), nft.element(start, end=end)


def resolved(source: str, address: str, protocol: int, port: int, seconds: int) -> "tuple[str, bytes]":
    """An address that a name stands for, for some seconds; port 0 is every protocol and port."""
    key = pack(source) + pack(address)
    if not port:
        return _family("reached", source), nft.element(key, seconds=seconds)
    key += bytes((protocol, 0, 0, 0)) + port_key(port)
    return _family("resolved", source), nft.element(key, seconds=seconds)


def _family(name: str, address: str) -> str:
    return name + ("6" if ":" in address else "4")


def _bounds(subnet: str) -> "tuple[bytes, bytes]":
    """First address of a subnet, and the first one after it."""
    address, _, prefix = subnet.partition("/")
    first = pack(address)
    size = len(first)
    after = int.from_bytes(first, "big") + (1 << 8 * size - int(prefix))
    return first, (after & ((1 << 8 * size) - 1)).to_bytes(size, "big")


# ---- the tables


def _inet() -> "list[Message]":
    sets = [
        nft.new_set(INET, TABLE, name, key, number, flags, data)
        for number, (name, (key, flags, data)) in enumerate(_SETS.items(), 1)
    ]
    chains = [
        nft.chain(INET, TABLE, "raw", nft.PREROUTING, _RAW),
        nft.chain(INET, TABLE, "prerouting", nft.PREROUTING, _DNAT, "nat"),
        nft.chain(INET, TABLE, "output", nft.OUTPUT, _DNAT, "nat"),
        nft.chain(INET, TABLE, "postrouting", nft.POSTROUTING, _SNAT, "nat"),
        nft.chain(INET, TABLE, "input", nft.INPUT, _FILTER),
        nft.chain(INET, TABLE, "forward", nft.FORWARD, _FILTER),
        nft.chain(INET, TABLE, "egress"),
    ]
    rules = [*_raw(), *_nat(), *_masquerade(), *_input(), *_forward(), *_egress()]
    return [*sets, *chains, *(nft.rule(INET, TABLE, chain, expressions) for chain, expressions in rules)]


def _bridge() -> "list[Message]":
    sets = [nft.new_set(BRIDGE, TABLE, name, key, number) for number, (name, key) in enumerate(_GUARD_SETS.items(), 1)]
    guarded = nft.meta(nft.IIFNAME) + nft.lookup("guarded")
    rules = [
        # Neighbour discovery and duplicate detection of an address that it does not have yet.
        guarded + _ether(0x86DD) + nft.payload(1, 8, 16) + nft.compare(bytes(16)) + nft.verdict(ACCEPT),
        _own_source(guarded, 0x0800, 12, 4, "sources4"),
        _own_source(guarded, 0x86DD, 8, 16, "sources6"),
    ]
    return [
        *sets,
        nft.chain(BRIDGE, TABLE, "guard", nft.PREROUTING, _RAW),
        *(nft.rule(BRIDGE, TABLE, "guard", one) for one in rules),
    ]


def _own_source(guarded: "list[bytes]", type: int, offset: int, size: int, name: str) -> "list[bytes]":
    load = nft.meta(nft.IIFNAME) + nft.payload(1, offset, size, 12)
    return guarded + _ether(type) + load + nft.lookup(name, inverted=True) + nft.verdict(DROP)


def _ether(type: int) -> "list[bytes]":
    return nft.payload(0, 12, 2) + nft.compare(type.to_bytes(2, "big"))


def _is(family: int) -> "list[bytes]":
    return nft.meta(nft.NFPROTO) + nft.compare(bytes((family,)))


def _source(family: int, register: int = 8) -> "list[bytes]":
    return nft.payload(1, 12, 4, register) if family == _V4 else nft.payload(1, 8, 16, register)


def _destination(family: int, register: int = 8) -> "list[bytes]":
    return nft.payload(1, 16, 4, register) if family == _V4 else nft.payload(1, 24, 16, register)


def _loopback(load: "list[bytes]") -> "list[bytes]":
    return load + nft.masked(b"\xff\0\0\0") + nft.compare(b"\x7f\0\0\0")


_FROM_US = nft.meta(nft.IIFNAME) + nft.lookup("bridges")
_TO_US = nft.meta(nft.OIFNAME) + nft.lookup("bridges")
_TO_OTHERS = nft.meta(nft.OIFNAME) + nft.lookup("bridges", inverted=True)
_IS_DNATTED = nft.ct(2) + nft.masked(_DNATTED) + nft.compare(bytes(4), equal=False)
_IS_ESTABLISHED = nft.ct(0) + nft.masked(_ESTABLISHED) + nft.compare(bytes(4), equal=False)


def _raw() -> "list[tuple[str, list[bytes]]]":
    return [("raw", _is(_V4) + _FROM_US + _loopback(_destination(_V4)) + nft.verdict(DROP))]


def _nat() -> "list[tuple[str, list[bytes]]]":
    # A neighbour of the host could send to 127.0.0.1 from outside: that is no published port.
    rules = [("prerouting", _is(_V4) + _loopback(_destination(_V4)) + nft.verdict(RETURN))]
    for chain in ("prerouting", "output"):
        for family, size in ((_V4, 4), (_V6, 16)):
            local = _is(family) + nft.is_local()
            suffix = "4" if family == _V4 else "6"
            behind = 8 + size // 4  # The register after an address in the first one.
            key = nft.meta(nft.L4PROTO) + _destination(family, 9) + nft.payload(2, 2, 2, 9 + size // 4)
            to = nft.dnat(family, 8, behind) + nft.verdict(ACCEPT)
            rules.append((chain, local + key + nft.lookup("publish" + suffix, data=8) + to[:1]))
            key = nft.meta(nft.L4PROTO) + nft.payload(2, 2, 2, 9)
            rules.append((chain, local + key + nft.lookup("anywhere" + suffix, data=8) + to[:1]))
    return rules


def _masquerade() -> "list[tuple[str, list[bytes]]]":
    rules = []
    for family, name in ((_V4, "subnets4"), (_V6, "subnets6")):
        ours = _is(family) + _source(family) + nft.lookup(name)
        rules.append(("postrouting", ours + _TO_OTHERS + nft.masquerade()))
        rules.append(("postrouting", ours + _TO_US + _IS_DNATTED + nft.masquerade()))
    rules.append(("postrouting", _is(_V4) + _TO_US + _loopback(_source(_V4)) + nft.masquerade()))
    return rules


def _jump_to_egress(chain: str) -> "list[tuple[str, list[bytes]]]":
    return [
        (chain, _is(family) + _source(family) + nft.lookup(name) + nft.verdict(JUMP, "egress"))
        for family, name in ((_V4, "egress4"), (_V6, "egress6"))
    ]


def _input() -> "list[tuple[str, list[bytes]]]":
    """What containers may send to the host itself."""
    return [("input", _FROM_US + _IS_ESTABLISHED + nft.verdict(ACCEPT)), *_jump_to_egress("input")]


def _forward() -> "list[tuple[str, list[bytes]]]":
    pair = nft.meta(nft.IIFNAME, 1) + nft.meta(nft.OIFNAME, 2) + nft.lookup("pairs", register=1)
    return [
        ("forward", _IS_ESTABLISHED + nft.verdict(ACCEPT)),
        *_jump_to_egress("forward"),
        ("forward", pair + nft.verdict(ACCEPT)),
        # Published is published for everybody, other networks included.
        ("forward", _TO_US + _IS_DNATTED + nft.verdict(ACCEPT)),
        ("forward", _TO_US + nft.verdict(DROP)),
        ("forward", nft.meta(nft.IIFNAME) + nft.lookup("external") + nft.verdict(ACCEPT)),
        ("forward", _FROM_US + nft.verdict(DROP)),
        # Forwarding was switched on there for us, not to make a router of the host.
        ("forward", nft.meta(nft.IIFNAME) + nft.lookup("uplinks") + nft.verdict(DROP)),
    ]


def _egress() -> "list[tuple[str, list[bytes]]]":
    """Return for what is allowed; count and drop the rest.  Neighbour discovery is how anything is reached."""
    discovery = _is(_V6) + nft.meta(nft.L4PROTO) + nft.compare(b"\x3a") + nft.payload(2, 0, 1)
    rules = [("egress", discovery + nft.compare(bytes((kind,))) + nft.verdict(RETURN)) for kind in (133, 135, 136)]
    for family, size, suffix in ((_V4, 1, "4"), (_V6, 4, "6")):
        pair = _source(family, 8) + _destination(family, 8 + size)
        key = pair + nft.meta(nft.L4PROTO, 8 + 2 * size) + nft.payload(2, 2, 2, 9 + 2 * size)
        for name, what in (("allowed", key), ("resolved", key), ("reached", pair)):
            rules.append(("egress", _is(family) + what + nft.lookup(name + suffix) + nft.verdict(RETURN)))
        rules.append(("egress", _is(family) + _source(family) + nft.lookup("denied" + suffix) + nft.verdict(DROP)))
    # Without an element to count in.
    rules.append(("egress", nft.verdict(DROP)))
    return rules


def denied(address: str) -> int:
    """How many packets of a container its egress rules have denied."""
    name = _family("denied", address)
    key = nested(3, nft.element(pack(address)))
    with Netlink(protocol=NETFILTER) as kernel:
        try:
            answers = kernel.request(
                *nft.message(nft.GETELEMENT, INET, nft.text(1, TABLE) + nft.text(2, name) + key)[:2]
            )
        except FileNotFoundError:
            return 0
    return nft.packets(answers[0]) if answers else 0


def forget_resolved(sources: "list[str]") -> None:
    """Close the ways that names have opened for these addresses of containers."""
    for source in sources:
        for name in (_family("resolved", source), _family("reached", source)):
            found = [key for key in _keys(name) if key.startswith(pack(source))]
            discard([(name, nft.element(key)) for key in found])


def _keys(name: str) -> "list[bytes]":
    with Netlink(protocol=NETFILTER) as kernel:
        try:
            body = nft.message(nft.GETELEMENT, INET, nft.text(1, TABLE) + nft.text(2, name))
            answers = kernel.request(*body[:2], DUMP)
        except FileNotFoundError:
            return []
    return [key for answer in answers for key in nft.keys(answer)]
