"""Interfaces, addresses and routes: the bridge of a network on the host, and a container's links, by raw rtnetlink.

This is the path of every launch, hence no pyroute2.  A container's links are made from outside, straight into its
network namespace, and set up through a socket that `init` opened there.  They end with that namespace.
"""

import _blake2
import _socket
import posix
from _struct import Struct
from errno import EEXIST, ENODEV, EPERM

from ..errors import WarrenError
from ..netlink import (
    CREATE,
    DELLINK,
    DUMP,
    EXCL,
    GETADDR,
    GETLINK,
    GETROUTE,
    NEWADDR,
    NEWLINK,
    NEWROUTE,
    SETLINK,
    Netlink,
    attribute,
    attributes,
    nested,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec import Link

LINK = Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = Struct("=BBBBBBBBI")  # family, lengths of destination and source, tos, table, protocol, scope, type, flags
_SHORT = Struct("=H")
_UP = 0x1
_MAC, _IFNAME, _MTU, _PARENT, _MASTER, _LINKINFO, _NET_NS_PID, _AF_SPEC, _NET_NS_FD = 1, 3, 4, 5, 10, 18, 19, 26, 28
_KIND, _DATA = 1, 2
_PEER = 1
_NODAD = 0x02
_MAIN, _BOOT, _UNIVERSE, _UNICAST = 254, 3, 0, 1
_BRIDGE_DATA = {"forward_delay": 1, "stp": 5, "call_iptables": 36, "call_ip6tables": 37}
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
NAME_LENGTH = 15


def host_name(container_id: str, number: int) -> str:
    """Name of the host's end of a container's link; follows from the id."""
    return f"wr-{_blake2.blake2b(container_id.encode(), digest_size=5).hexdigest()}{number:x}"


def mac_address(seed: str) -> str:
    """A locally administered unicast address that follows from `seed`."""
    digits = _blake2.blake2b(seed.encode(), digest_size=5).hexdigest()
    return ":".join(["02", *[digits[at : at + 2] for at in range(0, 10, 2)]])


def pack(address: str) -> bytes:
    return _socket.inet_pton(_family(address), address)


def _family(address: str) -> int:
    return _socket.AF_INET6 if ":" in address else _socket.AF_INET


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return LINK.pack(0, 0, index, flags, change)


def _mac(text: str) -> bytes:
    return attribute(_MAC, bytes.fromhex(text.replace(":", "")))


# ---- the host's side


def find(name: str) -> "tuple[int, int]":
    """Index and MTU of an interface of ours; (0, 0) without one."""
    try:
        with Netlink() as ours:
            answer = ours.request(GETLINK, _link() + attribute(_IFNAME, name))[0]
    except OSError as error:
        if error.errno == ENODEV:
            return 0, 0
        raise
    mtu = attributes(answer[LINK.size :])[_MTU]
    return LINK.unpack_from(answer)[2], int.from_bytes(mtu, "little")


def make_bridge(name: str, mac: str, mtu: int, gateways: "list[str]", *, filtered: bool = False) -> None:
    """Make a bridge with addresses (with prefix lengths), up; with `filtered` ip filters see what neighbours send."""
    inner = [attribute(_BRIDGE_DATA["forward_delay"], 0), attribute(_BRIDGE_DATA["stp"], 0)]
    info = nested(_LINKINFO, attribute(_KIND, "bridge"), nested(_DATA, *inner))
    body = LINK.pack(0, 0, 0, _UP, _UP) + attribute(_IFNAME, name) + _mac(mac) + (attribute(_MTU, mtu) if mtu else b"")
    with Netlink() as ours:
        ours.request(NEWLINK, body + info, CREATE | EXCL)
        index = _socket.if_nametoindex(name)
        ours.requests([(NEWADDR, _address(index, one), CREATE) for one in gateways])
    if filtered:
        filter_neighbours(name)


def filter_neighbours(bridge: str) -> None:
    """Let IP filters see what containers of one bridge send to each other; UnsupportedError without br_netfilter."""
    switches = [attribute(_BRIDGE_DATA[name], b"\1") for name in ("call_iptables", "call_ip6tables")]
    info = nested(_LINKINFO, attribute(_KIND, "bridge"), nested(_DATA, *switches))
    with Netlink() as ours:
        ours.request(NEWLINK, _link(_socket.if_nametoindex(bridge)) + info)


def remove(name: str) -> None:
    """Remove an interface, if it is there."""
    try:
        with Netlink() as ours:
            ours.request(DELLINK, _link() + attribute(_IFNAME, name))
    except OSError as error:
        if error.errno != ENODEV:
            raise


def _address(index: int, address: str) -> bytes:
    text, _, prefix = address.partition("/")
    family, data = _family(text), pack(text)
    flags = _NODAD if family == _socket.AF_INET6 else 0
    return _ADDRESS.pack(family, int(prefix), flags, 0, index) + attribute(2, data) + attribute(1, data)


# ---- a container's side


def make(links: "tuple[Link, ...]", pid: int, fd: int) -> None:
    """Make `links` in the network namespace of process `pid`, of which `fd` is a route socket.  Raises WarrenError."""
    with Netlink() as ours, Netlink(fd) as theirs:
        made = [link for link in links if link.kind != "tap"]
        try:
            for link in made:
                _create(ours, link, pid)
            for link in made:
                if link.isolated or link.hairpin:
                    _set_port(ours, link)
        except OSError as error:
            raise _failure("make the container's interface", link, error) from error
        for link in made:
            try:
                set_up(theirs, link)
            except OSError as error:
                raise _failure("set up the container's interface", link, error) from error


def _create(ours: Netlink, link: "Link", pid: int) -> None:
    if link.kind == "macvlan":
        ours.request(NEWLINK, _macvlan(link, pid), CREATE | EXCL)
        return
    try:
        ours.request(NEWLINK, _veth(link, pid), CREATE | EXCL)
    except FileExistsError:
        # The kernel takes its time to end the namespace of this container's last run, and the link with it.
        remove(link.host_name)
        ours.request(NEWLINK, _veth(link, pid), CREATE | EXCL)


def _failure(what: str, link: "Link", error: OSError) -> WarrenError:
    reasons = {EEXIST: "has it been given twice?", EPERM: "it takes CAP_NET_ADMIN"}
    reason = posix.strerror(error.errno or 0).lower()
    return WarrenError(f"network: cannot {what} {link}: {reason}", hint=reasons.get(error.errno or 0, ""))


def _veth(link: "Link", pid: int) -> bytes:
    """One message: a pair, ours up and in the bridge, the other in the container's namespace by its name there."""
    mtu = attribute(_MTU, link.mtu) if link.mtu else b""
    peer = _link() + attribute(_IFNAME, link.name) + (_mac(link.mac) if link.mac else b"") + mtu
    peer += attribute(_NET_NS_PID, pid)
    master = attribute(_MASTER, _socket.if_nametoindex(link.bridge)) if link.bridge else b""
    info = nested(_LINKINFO, attribute(_KIND, "veth"), nested(_DATA, attribute(_PEER, peer)))
    return LINK.pack(0, 0, 0, _UP, _UP) + attribute(_IFNAME, link.host_name) + mtu + master + info


def _macvlan(link: "Link", pid: int) -> bytes:
    mode = attribute(1, _MACVLAN_MODES["bridge"])
    info = nested(_LINKINFO, attribute(_KIND, "macvlan"), nested(_DATA, mode))
    body = _link() + attribute(_IFNAME, link.name) + attribute(_PARENT, _socket.if_nametoindex(link.parent))
    body += attribute(_MTU, link.mtu) if link.mtu else b""
    return body + (_mac(link.mac) if link.mac else b"") + attribute(_NET_NS_PID, pid) + info


def _set_port(ours: Netlink, link: "Link") -> None:
    """As a port of its bridge: one that reaches no other isolated one, one that hears itself (bridge(8))."""
    flags = (attribute(33, b"\1") if link.isolated else b"") + (attribute(4, b"\1") if link.hairpin else b"")
    index = _socket.if_nametoindex(link.host_name)
    # IFLA_PROTINFO, with IFLA_BRPORT_ISOLATED and IFLA_BRPORT_MODE.
    ours.request(SETLINK, LINK.pack(_socket.AF_BRIDGE, 0, index, 0, 0) + nested(12, flags))


def set_up(theirs: Netlink, link: "Link") -> None:
    """Addresses, up, and default routes, by a socket of the link's namespace."""
    answer = theirs.request(GETLINK, _link() + attribute(_IFNAME, link.name))[0]
    index = LINK.unpack_from(answer)[2]
    messages = []
    if not any(":" in address for address in link.addresses):
        # No address of the link alone either: what is not asked for is not there.
        no_address = nested(_AF_SPEC, nested(_socket.AF_INET6, attribute(8, b"\1")))
        messages.append((SETLINK, _link(index) + no_address, 0))
    messages.append((SETLINK, LINK.pack(0, 0, index, _UP, _UP), 0))
    messages += [(NEWADDR, _address(index, address), CREATE | EXCL) for address in link.addresses]
    messages += [(NEWROUTE, _default_route(index, gateway), CREATE | EXCL) for gateway in link.gateways]
    theirs.requests(messages)


def _default_route(index: int, gateway: str) -> bytes:
    head = _ROUTE.pack(_family(gateway), 0, 0, 0, _MAIN, _BOOT, _UNIVERSE, _UNICAST, 0)
    return head + attribute(5, pack(gateway)) + attribute(4, index)


# ---- what the host has


def interfaces_with_addresses() -> "set[int]":
    """Indices of interfaces that have an IPv4 or IPv6 address beyond the link."""
    with Netlink() as ours:
        answers = ours.request(GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), DUMP)
    return {index for _, _, _, scope, index in map(_ADDRESS.unpack_from, answers) if scope == 0}


def routes() -> "Iterator[tuple[str, int]]":
    """Destination ("10.0.0.0/8", with prefix) and output interface's index of every unicast route of the host."""
    with Netlink() as ours:
        answers = ours.request(GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), DUMP)
    for answer in answers:
        family, length, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(answer)
        found = attributes(answer[_ROUTE.size :])
        if kind != _UNICAST or family not in (_socket.AF_INET, _socket.AF_INET6):
            continue
        size = 4 if family == _socket.AF_INET else 16
        destination = _socket.inet_ntop(family, found.get(1, bytes(size)))
        yield f"{destination}/{length}", int.from_bytes(found.get(4, b""), "little")


def default_mtu() -> int:
    """MTU of the interface of the default route; 0 without one."""
    for destination, index in routes():
        if destination == "0.0.0.0/0" and index:
            return find(_socket.if_indextoname(index))[1]
    return 0


def names() -> "list[str]":
    """Every interface of ours."""
    return [name for _, name in _socket.if_nameindex()]
