"""What is told of networks and of containers' links, in docker's words and keys."""

from ..errors import NotFoundError
from . import bridges, definitions, forwarding, rules
from .leases import Leases, of_container
from .ports import docker_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .definitions import Network

    Json = dict[str, Any]


def settings(container_id: str, root: str) -> "Json":
    """NetworkSettings of a container; empty without a network."""
    try:
        record = of_container(root, container_id)
    except NotFoundError:
        record = {}
    made: list[Json] = record.get("links") or []
    first = made[0] if made else {}
    found = {
        "Bridge": first.get("bridge", ""),
        "Ports": docker_json(record.get("ports") or [], v6=bool(first.get("ipv6"))),
        "IPAddress": first.get("ipv4", ""),
        "GlobalIPv6Address": first.get("ipv6", ""),
        "MacAddress": first.get("mac", ""),
        "Networks": {link["network"]: _endpoint(link) for link in made},
    }
    if found["Networks"]:
        known = next(iter(found["Networks"].values()))
        found.update({key: known[key] for key in ("Gateway", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6PrefixLen")})
    if record.get("mode"):
        found["Mode"] = record["mode"]
    if record.get("egress") is not None:
        found["Egress"] = {
            "Rules": [word for text in record["egress"] for word in text.split(",")],
            "DeniedPackets": sum(rules.denied(link[key]) for link in made for key in _ADDRESSES if link.get(key)),
            "DeniedNames": denied_names(container_id, root),
        }
    return found


def ports(container_id: str, root: str) -> "dict[str, list[dict[str, str]]]":
    """NetworkSettings.Ports of a container."""
    record = Leases(root).read(container_id) or {}
    made: list[Json] = record.get("links") or []
    return docker_json(record.get("ports") or [], v6=bool(made and made[0].get("ipv6")))


_ADDRESSES = ("ipv4", "ipv6", "link_local")


def denied_names(container_id: str, root: str) -> "list[str]":
    """Names that the resolver has refused to a container."""
    try:
        with open(f"{Leases(root).path}/files/{container_id}/refused") as file:
            return file.read().split()
    except OSError:
        return []


def _endpoint(link: "Json") -> "Json":
    try:
        network = definitions.load(link["network"])
    except NotFoundError:
        network = definitions.Network(link["network"])
    v4 = next((one for one in network.subnets if not one.is_v6), None)
    v6 = next((one for one in network.subnets if one.is_v6), None)
    return {
        "NetworkID": network.id,
        "IPAddress": link["ipv4"],
        "IPPrefixLen": int(v4.prefix) if v4 and link["ipv4"] else 0,
        "Gateway": v4.gateway if v4 else "",
        "GlobalIPv6Address": link["ipv6"],
        "GlobalIPv6PrefixLen": int(v6.prefix) if v6 and link["ipv6"] else 0,
        "IPv6Gateway": v6.gateway if v6 else "",
        "MacAddress": link["mac"],
        "Aliases": link["aliases"],
        "InterfaceName": link["name"],
    }


def network_json(network: "Network", root: str) -> "Json":
    """`network inspect`, in docker's keys; Kernel says what is there of it."""
    leases = Leases(root)
    containers = {}
    for container_id, record in leases.records():
        for link in record.get("links") or []:
            if link["network"] == network.name:
                containers[container_id] = _member(network, record, link)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": bridges.has_v6(network),
        "IPAM": {
            "Driver": "default",
            "Config": [
                {"Subnet": one.subnet, "Gateway": one.gateway, **({"IPRange": one.range} if one.range else {})}
                for one in network.subnets
            ],
        },
        "Internal": network.internal,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
        "DNS": network.dns,
        "Kernel": {**kernel(network), "ForwardingSwitchedOn": forwarding.switched_on(leases.path)},
    }


def _member(network: "Network", record: "Json", link: "Json") -> "Json":
    lengths = {one.is_v6: one.prefix for one in network.subnets}
    return {
        "Name": record.get("name") or "",
        "MacAddress": link["mac"],
        "IPv4Address": f"{link['ipv4']}/{lengths[False]}" if link["ipv4"] else "",
        "IPv6Address": f"{link['ipv6']}/{lengths[True]}" if link["ipv6"] else "",
    }


def kernel(network: "Network") -> "Json":
    """What the kernel has of a network, asked by pyroute2: bridge, state, addresses, ports."""
    from pyroute2 import IPRoute

    name = network.bridge or network.parent
    with IPRoute() as kernel:
        found = kernel.link_lookup(ifname=name)
        if not found:
            return {"Interface": name, "Exists": False}
        link = kernel.get_links(found[0])[0]
        addresses = [f"{one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}" for one in kernel.get_addr(index=found[0])]
        ports = [one.get_attr("IFLA_IFNAME") for one in kernel.get_links() if one.get_attr("IFLA_MASTER") == found[0]]
    return {
        "Interface": name,
        "Exists": True,
        "State": link.get_attr("IFLA_OPERSTATE"),
        "MTU": link.get_attr("IFLA_MTU"),
        "MacAddress": link.get_attr("IFLA_ADDRESS"),
        "Addresses": addresses,
        "Ports": sorted(ports),
    }
