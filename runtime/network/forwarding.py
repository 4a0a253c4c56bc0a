"""Forwarding of packets, switched on only where a network needs it, and noted.

IPv4 asks the interface that a packet comes in by, IPv6 does so since Linux 6.17 (force_forwarding); before, it knows
one switch for all interfaces.  What was switched on for us is in the set `uplinks`, from which nothing is forwarded but
to our bridges (rules.py): the host does not become a router.
"""

import _socket
import posix

from . import definitions, links, nft, rules

_V4 = "/proc/sys/net/ipv4/conf/"
_V6 = "/proc/sys/net/ipv6/conf/"


def of_bridge(name: str, *, v6: bool, internal: bool) -> None:
    """The settings of a bridge of ours; an internal one routes nothing but between its own containers."""
    _write(f"{_V4}{name}/route_localnet", "1")
    if not internal:
        _write(f"{_V4}{name}/forwarding", "1")
    if not v6:
        # No address of the link alone, by which containers could reach the host.
        _write(f"{_V6}{name}/disable_ipv6", "1")
        return
    _write(f"{_V6}{name}/accept_ra", "0")
    if not internal:
        _forward_v6(name)


def of_uplinks(place: str, *, v6: bool) -> None:
    """Switch forwarding on for the interfaces by which answers come back and published ports are asked for.

    Those that did not forward before are noted, in the directory `place` and in the set.
    """
    changed = []
    ours = {network.bridge for network in definitions.load_all()}
    for index in links.interfaces_with_addresses():
        try:
            name = _socket.if_indextoname(index)
        except OSError:
            continue
        if name == "lo" or name in ours:
            continue
        switched = _switch(f"{_V4}{name}/forwarding")
        if v6:
            switched = _forward_v6(name) or switched
        if switched:
            changed.append(name)
    if changed:
        _note(place, changed)
        rules.add(_elements(changed))


def _elements(names: "list[str]") -> "list[tuple[str, bytes]]":
    return [("uplinks", nft.element(rules.name_key(name))) for name in names]


def _note(place: str, names: "list[str]") -> None:
    fd = posix.open(f"{place}/uplinks", posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o600)
    try:
        posix.write(fd, "".join([name + "\n" for name in names]).encode())
    finally:
        posix.close(fd)


def switched_on(place: str) -> "list[str]":
    """Names of the interfaces whose forwarding was switched on for us."""
    return sorted(set((_read(f"{place}/uplinks", 1 << 16) or "").split()))


def noted(place: str) -> "list[tuple[str, bytes]]":
    """The elements of `uplinks`."""
    return _elements(switched_on(place))


def _forward_v6(name: str) -> bool:
    """Whether something was switched on."""
    one = f"{_V6}{name}/force_forwarding"
    if _read(one) is not None:
        return _switch(one)
    if _read(f"{_V6}all/forwarding") != "0":
        return False
    # A host that forwards ignores router advertisements, by which it may have its own route, unless told to.
    for index in links.interfaces_with_addresses():
        other = _socket.if_indextoname(index)
        if _read(f"{_V6}{other}/accept_ra") == "1":
            _write(f"{_V6}{other}/accept_ra", "2")
    return _write(f"{_V6}all/forwarding", "1")


def _switch(path: str) -> bool:
    return _read(path) == "0" and _write(path, "1")


def _read(path: str, most: int = 64) -> "str | None":
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        return posix.read(fd, most).decode().strip()
    finally:
        posix.close(fd)


def _write(path: str, value: str) -> bool:
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        posix.write(fd, value.encode())
        return True
    except OSError:
        return False
    finally:
        posix.close(fd)


def restore(place: str) -> None:
    """Switch off again what was switched on."""
    for name in switched_on(place):
        _write(f"{_V4}{name}/forwarding", "0")
        _write(f"{_V6}{name}/force_forwarding", "0")
    try:
        posix.unlink(f"{place}/uplinks")
    except FileNotFoundError:
        pass
