"""Makes and checks definitions of networks: names, subnets that overlap nothing, docker's and podman's options.

Slow path: it may import what it likes.
"""

import ipaddress
import os
import re
import time

from ..errors import ExistsError, NotFoundError, UnsupportedError, UsageError
from . import definitions, links
from .definitions import DEFAULT, DEFAULT_BRIDGE, Network, Subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Net = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_RESERVED = ("none", "host", "default", "private", "pasta", "slirp4netns")
_BRIDGE_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
_POOLS = ("10.77.0.0/16", "10.78.0.0/15", "10.80.0.0/12", "172.28.0.0/14", "192.168.192.0/18")
"""Where subnets come from that nobody has chosen; pieces of /20."""
_PIECE = 20
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_OPTIONS = {
    "mtu": "mtu", "com.docker.network.driver.mtu": "mtu",
    "bridge": "bridge", "com.docker.network.bridge.name": "bridge",
    "icc": "icc", "com.docker.network.bridge.enable_icc": "icc",
    "masquerade": "masquerade", "com.docker.network.bridge.enable_ip_masquerade": "masquerade",
    "parent": "parent",
}  # fmt: skip


def create(
    name: str,
    *,
    driver: str = "bridge",
    subnets: "Sequence[str]" = (),
    gateways: "Sequence[str]" = (),
    ranges: "Sequence[str]" = (),
    ipv6: bool = False,
    internal: bool = False,
    dns: bool = True,
    options: "Mapping[str, str] | None" = None,
    labels: "Mapping[str, str] | None" = None,
) -> Network:
    """Define a network and write it down; its bridge is made with its first container.

    The caller holds the lock of networks.  Raises UsageError, ExistsError.
    """
    check_name(name)
    others = definitions.load_all()
    if any(one.name == name for one in others):
        raise ExistsError(f"network {name!r} already exists", hint="choose another name, or remove it")
    if driver not in ("bridge", "macvlan"):
        raise UnsupportedError(f"--driver {driver!r} is unknown", hint="bridge or macvlan")
    network = Network(
        name, id=os.urandom(32).hex(), created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), driver=driver,
        internal=internal, dns=dns and driver == "bridge", labels=dict(labels or {}),
    )  # fmt: skip
    _take_options(network, options or {})
    network.subnets = _subnets(network, subnets, gateways, ranges, ipv6, others)
    if driver == "macvlan":
        network.parent = network.parent or _default_interface()
    else:
        network.bridge = network.bridge or f"wr-{network.id[:12]}"
        if any(one.bridge == network.bridge for one in others):
            raise ExistsError(f"bridge {network.bridge} belongs to another network", hint="choose another name")
    definitions.save(network)
    return network


def create_default() -> Network:
    """The network of containers that name none: made when it is first needed."""
    return create(DEFAULT, options={"bridge": DEFAULT_BRIDGE}, dns=False)


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in _RESERVED:
        hint = "letters, digits and _.- after a letter or digit" if name not in _RESERVED else "it is a mode"
        raise UsageError(f"invalid network name {name!r}", hint=hint)


def _take_options(network: Network, options: "Mapping[str, str]") -> None:
    for key, value in options.items():
        field = _OPTIONS.get(key)
        if not field:
            raise UsageError(f"network option {key!r} is unknown", hint=", ".join(sorted(set(_OPTIONS.values()))))
        if field == "mtu":
            if not value.isdecimal() or not 1280 <= int(value) <= 65535:
                raise UsageError(f"network option {key}={value}: no MTU", hint="1280 to 65535")
            network.mtu = int(value)
        elif field in ("icc", "masquerade"):
            if value.lower() not in _BOOLEANS:
                raise UsageError(f"network option {key}={value}: neither true nor false")
            setattr(network, field, _BOOLEANS[value.lower()])
        else:
            if not _BRIDGE_NAME.fullmatch(value) or value in (".", ".."):
                raise UsageError(f"network option {key}={value}: no name of an interface", hint="15 characters at most")
            setattr(network, field, value)
    network.options = dict(options)
    if network.parent and network.driver != "macvlan":
        raise UsageError("network option parent: for --driver macvlan only")


def _default_interface() -> str:
    import socket

    for destination, index in links.routes():
        if destination == "0.0.0.0/0" and index:
            return socket.if_indextoname(index)
    raise UsageError("--driver macvlan: there is no default route to take the interface of", hint="use -o parent=NAME")


# ---- subnets


def _subnets(
    network: Network,
    subnets: "Sequence[str]",
    gateways: "Sequence[str]",
    ranges: "Sequence[str]",
    ipv6: bool,
    others: "Iterable[Network]",
) -> "list[Subnet]":
    taken = [*_subnets_of(others), *(_host_subnets() if network.driver == "bridge" else ())]
    nets = [_parse(text, "--subnet") for text in subnets]
    for position, net in enumerate(nets):
        _check_free(net, taken + nets[:position])
    if network.driver == "macvlan" and not nets:
        raise UsageError("--driver macvlan needs --subnet", hint="the subnet of the network outside")
    if not any(net.version == 4 for net in nets) and not (nets and ipv6):
        nets.insert(0, _pick(taken + nets))
    if ipv6 and not any(net.version == 6 for net in nets):
        nets.append(_random_v6(taken))
    if any(sum(net.version == version for net in nets) > 1 for version in (4, 6)):
        raise UsageError("--subnet: one for each of IPv4 and IPv6 at most")
    found = [_with_gateway(net, gateways, ranges) for net in nets]
    _check_used("--gateway", gateways, nets)
    _check_used("--ip-range", [text.partition("/")[0] for text in ranges], nets)
    return found


def _subnets_of(networks: "Iterable[Network]") -> "Iterator[Net]":
    for network in networks:
        for one in network.subnets:
            yield ipaddress.ip_network(one.subnet)


def _host_subnets() -> "list[Net]":
    """What the host has a route to, but for the default, and its name servers."""
    found: list[Net] = []
    for destination, _ in links.routes():
        net = ipaddress.ip_network(destination, strict=False)
        if net.prefixlen and not net.is_multicast and not net.is_link_local:
            found.append(net)
    try:
        lines = open("/etc/resolv.conf").read().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("nameserver "):
            try:
                found.append(ipaddress.ip_network(line.split()[1].partition("%")[0]))
            except ValueError:
                continue
    return found


def _parse(text: str, option: str) -> "Net":
    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is no subnet", hint="such as 10.9.0.0/24 or fd00:9::/64") from error
    if "/" not in text or net.prefixlen > net.max_prefixlen - 2:
        raise UsageError(f"{option} {text!r} has no room for containers", hint="/30 or larger, /126 for IPv6")
    if net.is_multicast or net.is_loopback or net.is_unspecified or net.prefixlen == 0:
        raise UsageError(f"{option} {text!r} cannot be a container network's")
    return net


def _check_free(net: "Net", taken: "list[Net]") -> None:
    for other in taken:
        if net.version == other.version and net.overlaps(other):
            raise UsageError(f"--subnet {net} overlaps {other}, which this host uses", hint="choose another")


def _pick(taken: "list[Net]") -> "Net":
    for pool in _POOLS:
        for net in ipaddress.ip_network(pool).subnets(new_prefix=_PIECE):
            if not any(net.version == other.version and net.overlaps(other) for other in taken):
                return net
    raise UsageError("no private subnet is free on this host", hint="use --subnet")


def _random_v6(taken: "list[Net]") -> "Net":
    """A unique local prefix (RFC 4193)."""
    while True:
        net = ipaddress.IPv6Network((bytes([0xFD]) + os.urandom(7) + bytes(8), 64))
        if not any(other.version == 6 and net.overlaps(other) for other in taken):
            return net


def _with_gateway(net: "Net", gateways: "Sequence[str]", ranges: "Sequence[str]") -> Subnet:
    gateway = next((text for text in gateways if _is_in(text, net)), "") or str(net[1])
    own = [one for text in ranges if (one := _parse_range(text)).version == net.version]
    if own and not own[0].subnet_of(net):  # type: ignore[arg-type]
        raise UsageError(f"--ip-range {own[0]} is not within {net}")
    if net.version == 4 and gateway in (str(net[0]), str(net[-1])):
        raise UsageError(f"--gateway {gateway} is no address of a host in {net}")
    return Subnet(str(net), str(ipaddress.ip_address(gateway)), str(own[0]) if own else "")


def _parse_range(text: str) -> "Net":
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(f"--ip-range {text!r} is no range", hint="such as 10.9.0.128/25") from error


def _is_in(text: str, net: "Net") -> bool:
    try:
        return ipaddress.ip_address(text) in net
    except ValueError as error:
        raise UsageError(f"{text!r} is no IP address") from error


def _check_used(option: str, texts: "Sequence[str]", nets: "list[Net]") -> None:
    for text in texts:
        if not any(_is_in(text, net) for net in nets):
            raise UsageError(f"{option} {text} is in none of the subnets")


def remove(name: str, users: "Sequence[str]") -> None:
    """Forget a network that nobody uses."""
    network = definitions.load(name)
    if users:
        raise UsageError(f"network {network.name!r} is in use by {', '.join(sorted(users))[:200]}", hint="remove them")
    definitions.forget(network.name)


__all__ = ["NotFoundError", "check_name", "create", "create_default", "remove"]
