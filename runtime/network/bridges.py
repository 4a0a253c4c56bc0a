"""Networks in the kernel: a bridge and the packet filter's elements, made when a container first needs them.

Everything here can be repeated, and puts right what a reboot, a reload of the host's firewall or a killed process has
left.
"""

from errno import EEXIST, ENOENT

from ..errors import NotFoundError, WarrenError
from ..host import Host
from . import definitions, egress, forwarding, links, ports, rules
from .definitions import DEFAULT, Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .leases import Leases

    Json = dict[str, Any]


def load(name: str) -> Network:
    """A network; the default one is defined when it is first asked for.  The lock is held."""
    try:
        return definitions.load(name)
    except NotFoundError:
        if name != DEFAULT:
            raise
    from .create import create_default

    return create_default()


def ensure(leases: "Leases", network: Network) -> int:
    """Make the network if it is not there; the MTU of its links.  The lock is held."""
    if rules.missing():
        rebuild(leases)
    if network.driver == "macvlan":
        return network.mtu
    index, mtu = links.find(network.bridge)
    if not index:
        mtu = _make(network)
    if not network.internal:
        forwarding.of_uplinks(leases.path, v6=has_v6(network))
    return mtu


def _make(network: Network) -> int:
    mtu = network.mtu or links.default_mtu() or 1500
    try:
        links.make_bridge(network.bridge, links.mac_address(network.id), mtu, network.gateways())
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        links.remove(network.bridge) if error.errno != EEXIST else None
        raise WarrenError(f"network {network.name}: cannot make bridge {network.bridge}: {reason}") from error
    forwarding.of_bridge(network.bridge, v6=has_v6(network), internal=network.internal)
    rules.add(elements(network))
    return mtu


def elements(network: Network) -> "list[tuple[str, bytes]]":
    subnets = [one.subnet for one in network.subnets] if network.masquerade else []
    return rules.of_network(network.bridge, subnets, internal=network.internal, isolated=False)


def has_v6(network: Network) -> bool:
    return any(one.is_v6 for one in network.subnets)


def rebuild(leases: "Leases") -> None:
    """Make the packet filter's tables, with what exists now."""
    rules.install()
    there = set(links.names())
    wanted = forwarding.noted(leases.path)
    for network in definitions.load_all():
        if network.bridge in there:
            wanted += elements(network)
    for network in definitions.load_all():
        if leases.resolver(network.name):
            from . import resolvers

            wanted += resolvers.elements(network)
    for container_id, record in leases.records():
        wanted += of_container(container_id, record)
    if wanted:
        rules.add(wanted)


def of_container(container_id: str, record: "Json") -> "list[tuple[str, bytes]]":
    """A container's elements, from its record."""
    found: list[tuple[str, bytes]] = []
    made: list[Json] = record.get("links") or []
    bridged = [link for link in made if link.get("bridge")]
    if record.get("ports") and bridged:
        found += published(record)
    if record.get("egress") is not None:
        for link in bridged:
            own = [link[key] for key in ("ipv4", "ipv6", "link_local") if link.get(key)]
            found += rules.restricted(link["host_name"], own)
            found += egress.elements(record["egress"], record.get("resolver") or [], own)
    return found


def published(record: "Json", seconds: float = 0) -> "list[tuple[str, bytes]]":
    """The elements of a container's ports, with a time to be in the set."""
    bridged = [link for link in record.get("links") or [] if link.get("bridge")]
    v4 = next((link["ipv4"] for link in bridged if link["ipv4"]), "")
    v6 = next((link["ipv6"] for link in bridged if link["ipv6"]), "")
    return ports.elements(record.get("ports") or [], v4, v6, seconds)


def withdraw(container_id: str, record: "Json") -> None:
    """Take a container's elements out of the packet filter."""
    if record.get("egress") is None and Host.probe().kernel >= rules.CAN_EXPIRE:
        if found := published(record, rules.SOON):
            rules.expire(found)
    else:
        rules.discard(of_container(container_id, record))


def take_down(network: Network) -> None:
    """Remove the bridge and its elements; idempotent."""
    if network.bridge:
        links.remove(network.bridge)
        try:
            rules.discard(elements(network))
        except OSError as error:
            if error.errno != ENOENT:
                raise


def reset(leases: "Leases") -> None:
    """Take everything of ours out of the kernel: bridges, rules, forwarding.  Definitions stay."""
    forwarding.restore(leases.path)
    for network in definitions.load_all():
        links.remove(network.bridge) if network.bridge else None
    rules.remove()
