"""The network of one container, from before its launch until after its end.

    prepare()   before anything starts: addresses, ports, files; the record first, so that whatever is killed is swept
    connect()   at the launch's sync: the links, made in the container's network namespace
    release()   when the container is gone; sweep() for those that nobody released

The links themselves end with the container's network namespace.
"""

import posix
import time

from ..errors import UnsupportedError, UsageError, WarrenError
from ..spec import Link
from . import bridges, egress, links, names, ports, rules
from .definitions import DEFAULT, Network
from .leases import Leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Json = dict[str, Any]

MODES = ("none", "host", "private", "pasta", "slirp4netns")
_BRIDGE_WORDS = {"bridge": DEFAULT, "default": DEFAULT, "": DEFAULT}
_MOST_LINKS = 16
_TRIES = 20
_REPAIR = "warren network repair"


class Request:
    """What a container wants of networks, in docker's words.

    networks    names of networks, each with options as podman writes them ("name:ip=10.0.0.2,mac=...,alias=db")
    publish     -p; publish_all and expose: -P, and what the image exposes
    egress      --egress; none at all restricts nothing
    dns ... add_host  as docker's options of that name
    """

    __slots__ = (
        "add_host", "aliases", "dns", "dns_option", "dns_search", "egress", "expose", "hostname", "ip", "ip6", "mac",
        "name", "networks", "publish", "publish_all",
    )  # fmt: skip

    def __init__(
        self,
        networks: "Sequence[str]" = (),
        *,
        publish: "Sequence[str]" = (),
        publish_all: bool = False,
        expose: "Sequence[str]" = (),
        egress: "Sequence[str]" = (),
        dns: "Sequence[str]" = (),
        dns_search: "Sequence[str]" = (),
        dns_option: "Sequence[str]" = (),
        add_host: "Sequence[str]" = (),
        aliases: "Sequence[str]" = (),
        hostname: str = "",
        name: str = "",
        ip: str = "",
        ip6: str = "",
        mac: str = "",
    ) -> None:
        for key, value in locals().items():
            if key in self.__slots__:
                setattr(self, key, value)

    if TYPE_CHECKING:
        networks: Sequence[str]
        publish: Sequence[str]
        publish_all: bool
        expose: Sequence[str]
        egress: Sequence[str]
        dns: Sequence[str]
        dns_search: Sequence[str]
        dns_option: Sequence[str]
        add_host: Sequence[str]
        aliases: Sequence[str]
        hostname: str
        name: str
        ip: str
        ip6: str
        mac: str

    def ports(self) -> "list[ports.Port]":
        found = ports.parse(self.publish)
        if self.publish_all:
            published = {(port.protocol, port.container_port) for port in found}
            found += [
                port for port in ports.exposed(self.expose) if (port.protocol, port.container_port) not in published
            ]
        return found


class Attachment:
    """What a launch needs of networks: the links for the spec, files to bind, and connect() for its options."""

    __slots__ = ("links", "mounts", "notes", "record")

    def __init__(self, record: "Json", made: "tuple[Link, ...]", mounts: "list[tuple[str, str]]") -> None:
        self.record = record
        self.links = made
        self.mounts = mounts
        """Source on the host and target in the container."""
        self.notes: dict[str, str] = {}

    def connect(self, pid: int, fd: int) -> None:
        """Make the links; `fd` is a route socket in the network namespace of process `pid`."""
        links.make(self.links, pid, fd)


def check(request: Request) -> None:
    """Everything of a request that can be wrong without looking at the host.  UsageError."""
    request.ports()
    egress.parse(request.egress)
    for server in request.dns:
        names.check_server(server)
    names.added_hosts(request.add_host, "0.0.0.0")
    for alias in request.aliases:
        names.check_name(alias, "--network-alias")
    if request.mac:
        _check_mac(request.mac)


def prepare(request: Request, container_id: str, root: str, owner: int = 0) -> Attachment:
    """Take what a container needs on networks of bridges and macvlan.

    `root` is the root of the containers' state, `owner` the host's id of the container's root.  Whatever is raised,
    nothing is left: UsageError, ExistsError (a port or an address is in use), NotFoundError, UnsupportedError.
    """
    check(request)
    wanted = request.ports()
    with Leases(root) as leases:
        sweep_gone(leases)
        try:
            return _Preparation(leases, request, container_id).run(wanted, owner)
        except BaseException:
            drop(leases, container_id)
            raise


def files_only(request: Request, container_id: str, root: str, owner: int, *, host: bool) -> Attachment:
    """The names of a container without a network, or on the host's."""
    check(request)
    servers = names.of_host()
    conf = names.ResolvConf(
        request.dns or servers.servers, request.dns_search or servers.search, request.dns_option or servers.options
    )
    added = names.added_hosts(request.add_host, "127.0.0.1" if host else "")
    hostname = request.hostname or (posix.uname().nodename if host else container_id[:12])
    contents = {
        "hosts": names.hosts_of_host(added) if host else names.hosts(["127.0.1.1"], [hostname], added, ""),
        "hostname": hostname + "\n",
    }
    if host or request.dns:
        contents["resolv.conf"] = str(conf)
    with Leases(root) as leases:
        record: Json = {"owner": leases.owner(), "name": request.name, "links": [], "ports": []}
        leases.write(container_id, record)
        mounts = names.write(f"{leases.path}/files/{container_id}", contents, owner)
    return Attachment(record, (), mounts)


class _Preparation:
    def __init__(self, leases: Leases, request: Request, container_id: str) -> None:
        self.leases = leases
        self.request = request
        self.id = container_id
        self.record: Json = {
            "owner": leases.owner(),
            "name": request.name,
            "hostname": request.hostname or container_id[:12],
            "links": [],
            "ports": [],
            "claims": [],
            "egress": list(request.egress) or None,
            "dns": list(request.dns),
            "resolver": [],
        }

    def run(self, wanted: "list[ports.Port]", owner: int) -> Attachment:
        # Whatever is claimed from here on, it tells the next command whose it is.
        self.leases.write(self.id, {"owner": self.record["owner"], "making": True})
        words = self.request.networks or [""]
        if len(words) > _MOST_LINKS:
            raise UsageError(f"--network: {len(words)} networks", hint=f"{_MOST_LINKS} at most")
        made = [self.link(number, *split_word(word)) for number, word in enumerate(words)]
        networks = [network for network, _ in made]
        record_links: list[Json] = self.record["links"]
        if len({link["network"] for link in record_links}) < len(record_links):
            raise UsageError("--network: a network is given twice")
        self._take_ports(wanted, networks)
        if self.record["egress"] is not None:
            self._restrict(networks)
        mounts = self._write_files(networks, owner)
        # All of it is written down before the kernel hears of it.
        self.leases.write(self.id, self.record)
        if found := bridges.of_container(self.id, self.record):
            self._add(found)
        _forget_udp(self.record)
        self._start_resolvers(networks)
        return Attachment(self.record, tuple(link for _, link in made), mounts)

    def link(self, number: int, name: str, options: "dict[str, list[str]]") -> "tuple[Network, Link]":
        network = bridges.load(name)
        mtu = bridges.ensure(self.leases, network)
        request = self.request
        first = number == 0
        mac = (options.get("mac") or [""])[-1] or (request.mac if first else "")
        ip = (options.get("ip") or [""])[-1] or (request.ip if first else "")
        ip6 = (options.get("ip6") or [""])[-1] or (request.ip6 if first else "")
        if mac:
            _check_mac(mac)
        found: Json = {
            "network": network.name,
            "name": (options.get("interface_name") or [f"eth{number}"])[-1],
            "host_name": links.host_name(self.id, number) if network.bridge else "",
            "bridge": network.bridge,
            "mac": mac.lower() or links.mac_address(f"{self.id} {network.id}"),
            "ipv4": "",
            "ipv6": "",
            "aliases": [*(options.get("alias") or []), *request.aliases],
        }
        self.record["links"].append(found)
        addresses, gateways = self._addresses(network, found, ip, ip6, first=first)
        return network, Link(
            found["name"], kind="veth" if network.bridge else "macvlan", host_name=found["host_name"],
            bridge=network.bridge, parent=network.parent, mac=found["mac"], mtu=mtu, hairpin=bool(request.publish),
            addresses=tuple(addresses), gateways=tuple(gateways), isolated=not network.icc,
        )  # fmt: skip

    def _addresses(
        self, network: Network, found: "Json", ip: str, ip6: str, *, first: bool
    ) -> "tuple[list[str], list[str]]":
        addresses, gateways = [], []
        for subnet in network.subnets:
            key = "ipv6" if subnet.is_v6 else "ipv4"
            address = self.leases.claim(network, subnet, self.id, ip6 if subnet.is_v6 else ip)
            found[key] = address
            addresses.append(f"{address}/{subnet.prefix}")
            if first and subnet.gateway and not network.internal:
                gateways.append(subnet.gateway)
        for wanted, key, option in ((ip, "ipv4", "--ip"), (ip6, "ipv6", "--ip6")):
            if wanted and not found[key]:
                raise UsageError(f"{option} {wanted}: network {network.name} has no such addresses")
        if found["ipv6"]:
            found["link_local"] = link_local(found["mac"])
        return addresses, gateways

    # ---- ports

    def _take_ports(self, wanted: "list[ports.Port]", networks: "list[Network]") -> None:
        if not wanted:
            return
        inside = next((link for link in self.record["links"] if link["bridge"]), None)
        if inside is None:
            raise UnsupportedError("--publish: a macvlan has addresses of its own outside", hint="use those")
        if all(network.internal for network in networks):
            raise UsageError("--publish: nobody outside reaches an internal network")
        claims = ports.take(self.leases, self.id, wanted, v6=bool(inside["ipv6"]))
        self.record["ports"] = [port.to_json() for port in wanted]
        self.record["claims"] = [name for name, _ in claims]
        for name in self.record["claims"]:
            posix.symlink(self.id, f"{self.leases.path}/ports/{name}")

    def _add(self, found: "list[tuple[str, bytes]]") -> None:
        for tries in range(_TRIES, -1, -1):
            try:
                rules.add(found)
                return
            except FileExistsError as error:
                # The port of a container that has just ended is gone within a millisecond.
                if not tries:
                    raise WarrenError("nf_tables: a published port leads elsewhere", hint=_REPAIR) from error
                time.sleep(rules.SOON)
            except OSError as error:
                raise WarrenError(f"nf_tables: {(error.strerror or 'failed').lower()}", hint=_REPAIR) from error

    # ---- egress

    def _restrict(self, networks: "list[Network]") -> None:
        if any(not network.bridge for network in networks):
            raise UnsupportedError("--egress: nobody but the wire sees what a macvlan sends", hint="use a bridge")
        for network in networks:
            try:
                links.filter_neighbours(network.bridge)
            except OSError as error:
                raise UnsupportedError(
                    "--egress: what containers of one bridge send to each other cannot be filtered",
                    hint="load the module br_netfilter",
                ) from error

    # ---- names

    def _write_files(self, networks: "list[Network]", owner: int) -> "list[tuple[str, str]]":
        request = self.request
        gateway = next((one.gateway for network in networks for one in network.subnets if not one.is_v6), "")
        conf = self._resolv_conf(networks)
        own = [link[key] for link in self.record["links"] for key in ("ipv4", "ipv6") if link[key]]
        known = list(dict.fromkeys([self.record["hostname"], *([request.name] if request.name else [])]))
        contents = {
            "hosts": names.hosts(own, known, names.added_hosts(request.add_host, gateway), gateway),
            "resolv.conf": str(conf),
            "hostname": f"{self.record['hostname']}\n",
        }
        return names.write(f"{self.leases.path}/files/{self.id}", contents, owner)

    def _resolv_conf(self, networks: "list[Network]") -> names.ResolvConf:
        request, host = self.request, names.of_host()
        servers = list(request.dns) or [one for one in host.servers if not names.is_loopback(one)]
        if any(self._wants_resolver(network) for network in networks):
            servers = [one.gateway for one in self._resolving(networks).subnets]
            self.record["resolver"] = servers
        search = [] if list(request.dns_search) == ["."] else list(request.dns_search) or host.search
        return names.ResolvConf(servers, search, list(request.dns_option) or host.options)

    def _wants_resolver(self, network: Network) -> bool:
        """Where containers know each other by name, where only the host reaches its servers, and with egress rules.

        Other servers would be a way out.
        """
        if not network.bridge:
            return False
        if network.dns or self.record["egress"] is not None:
            return True
        host = names.of_host()
        return not self.request.dns and bool(host.servers) and all(names.is_loopback(one) for one in host.servers)

    def _resolving(self, networks: "list[Network]") -> Network:
        return next(network for network in networks if self._wants_resolver(network))

    def _start_resolvers(self, networks: "list[Network]") -> None:
        if any(self._wants_resolver(network) for network in networks):
            from . import resolvers

            resolvers.ensure(self.leases, self._resolving(networks))


def split_word(word: str) -> "tuple[str, dict[str, list[str]]]":
    """NAME[:KEY=VALUE,...] as podman writes it."""
    name, _, rest = word.partition(":")
    options: dict[str, list[str]] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals or key not in ("ip", "ip6", "mac", "alias", "interface_name"):
            raise UsageError(
                f"--network {word!r}: {part!r} is unknown", hint="ip=, ip6=, mac=, alias=, interface_name="
            )
        options.setdefault(key, []).append(value)
    interface = (options.get("interface_name") or ["eth0"])[-1]
    if not 0 < len(interface) <= links.NAME_LENGTH or "/" in interface or interface in (".", "..", "lo"):
        raise UsageError(f"--network {word!r}: {interface!r} is no name of an interface")
    return _BRIDGE_WORDS.get(name, name), options


def _check_mac(text: str) -> None:
    parts = text.split(":")
    digits = "0123456789abcdefABCDEF"
    if len(parts) != 6 or any(len(part) != 2 or part.strip(digits) for part in parts):
        raise UsageError(f"--mac-address {text!r} is malformed", hint="such as 02:42:ac:11:00:02")
    if int(parts[0], 16) & 1 or not any(int(part, 16) for part in parts):
        raise UsageError(f"--mac-address {text!r} is no address of one station")


def link_local(mac: str) -> str:
    """The address of the link alone that the kernel makes of a MAC address (EUI-64, RFC 4291)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    data = bytes([0xFE, 0x80, *bytes(6), *octets[:3], 0xFF, 0xFE, *octets[3:]])
    import _socket

    return _socket.inet_ntop(_socket.AF_INET6, data)


# ---- the end


def release(container_id: str, root: str) -> None:
    """Give back everything of a container that is gone; idempotent."""
    try:
        posix.lstat(f"{root}/.networks/containers/{container_id}")
    except OSError:
        return
    with Leases(root) as leases:
        drop(leases, container_id)


def drop(leases: Leases, container_id: str) -> None:
    """The same with the lock held.  The record goes last."""
    record = leases.read(container_id)
    if record is None or record.get("making"):
        _unclaim_all(leases, container_id)
        leases.forget(container_id)
        return
    if record.get("mode"):
        from . import programs

        programs.stop(f"{leases.path}/files/{container_id}")
    try:
        bridges.withdraw(container_id, record)
        _forget_udp(record)
    except (OSError, WarrenError):
        pass  # The tables are gone, and with them the elements.
    made: list[Json] = record.get("links") or []
    if record.get("egress") is not None:
        # Who gets these addresses next has not asked for the same names.
        rules.forget_resolved([link[key] for link in made for key in ("ipv4", "ipv6") if link.get(key)])
    networks = set()
    for link in made:
        networks.add(link["network"])
        for key in ("ipv4", "ipv6"):
            if link.get(key):
                leases.unclaim(link["network"], link[key])
    for name in record.get("claims") or []:
        leases.unclaim_port(name)
    leases.forget(container_id)
    _stop_resolvers(leases, networks)


def _forget_udp(record: "Json") -> None:
    ports = {int(one["host_port"]) for one in record.get("ports") or [] if one["protocol"] == "udp"}
    if ports:
        from .conntrack import forget

        forget(ports, {rules.pack(link[key]) for link in record["links"] for key in ("ipv4", "ipv6") if link.get(key)})


def _unclaim_all(leases: Leases, container_id: str) -> None:
    """Of a container whose record is not complete: each claim tells whose it is."""
    for network, address, holder in list(leases.claims()):
        if holder == container_id:
            leases.unclaim(network, address)
    for name, holder in list(leases.ports()):
        if holder == container_id:
            leases.unclaim_port(name)


def _stop_resolvers(leases: Leases, networks: "set[str]") -> None:
    for name in networks:
        if not leases.has_users(name) and leases.resolver(name):
            from . import resolvers

            resolvers.stop(leases, name)


def sweep_gone(leases: Leases) -> None:
    """Drop the records of containers that are gone; cheap when there are none."""
    for container_id in leases.ids():
        if leases.is_dead(container_id):
            drop(leases, container_id)


def sweep(root: str) -> None:
    """The same, and claims, ports and links on the host that no record explains."""
    with Leases(root) as leases:
        sweep_gone(leases)
        known = set(leases.ids())
        for network, address, holder in list(leases.claims()):
            if holder not in known:
                leases.unclaim(network, address)
        for name, holder in list(leases.ports()):
            if holder not in known:
                leases.unclaim_port(name)
        ours = {link["host_name"] for _, record in leases.records() for link in record.get("links") or []}
        for name in links.names():
            # Ten digits and a number: no bridge, whose name has twelve.
            if name.startswith("wr-") and len(name) < links.NAME_LENGTH and name not in ours:
                links.remove(name)
