"""Commands of networks: defining and removing them, who is on them, and published ports."""

import sys
from typing import Any

import click

from ..container import default_root
from ..engine import networking
from ..engine.records import find
from ..errors import NotFoundError, UsageError, WarrenError
from .printing import FORMAT, combine, confirm, failing_with_one, many, print_objects, print_rows
from .telling import tell_error

_COLUMNS = {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Subnets": "SUBNETS"}


@click.group()
def network() -> None:
    """Networks that containers share.

    A container without --network is on the network `bridge`, made when it is first needed.  On networks that you create
    containers know each other by name.
    """


@network.command()
@combine(
    click.option("-d", "--driver", default="bridge", show_default=True, help="bridge or macvlan."),
    many("--subnet", help="Such as 10.9.0.0/24; one for each of IPv4 and IPv6.", metavar="SUBNET"),
    many("--gateway", help="The host's address in it; the first by default.", metavar="ADDRESS"),
    many("--ip-range", help="Where containers get addresses from.", metavar="SUBNET"),
    click.option("--ipv6", is_flag=True, help="IPv6 too; a private subnet unless one is given."),
    click.option("--internal", is_flag=True, help="Without a way out or in."),
    click.option("--disable-dns", is_flag=True, help="Containers do not know each other by name."),
    many(
        "-o",
        "--opt",
        "options",
        help="mtu=, bridge=, icc=, masquerade=, parent=; docker's names too.",
        metavar="KEY=VALUE",
    ),
    many("--label", "labels", help="Note something on the network.", metavar="KEY[=VALUE]"),
)
@click.argument("name")
def create(
    name: str, driver: str, subnet: tuple[str, ...], gateway: tuple[str, ...], ip_range: tuple[str, ...], ipv6: bool,
    internal: bool, disable_dns: bool, options: tuple[str, ...], labels: tuple[str, ...],
) -> None:  # fmt: skip
    """Define a network and print its name; its bridge is made with its first container."""
    from ..network import create as make
    from ..network.leases import Leases

    with Leases(default_root()):
        made = make.create(
            name, driver=driver, subnets=subnet, gateways=gateway, ranges=ip_range, ipv6=ipv6, internal=internal,
            dns=not disable_dns, options=_pairs(options, "--opt"),
            labels=dict(text.partition("=")[::2] for text in labels),
        )  # fmt: skip
    click.echo(made.name)


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE")
    return dict(text.partition("=")[::2] for text in texts)


@network.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="name=, driver=, label=, id=.")
@FORMAT
def list_networks(quiet: bool, filters: tuple[str, ...], template: str) -> None:
    """List networks."""
    from ..network import definitions

    found = [one for one in definitions.load_all() if all(_passes(one, text) for text in filters)]
    if quiet:
        for one in found:
            click.echo(one.name)
        return
    rows = [
        {"ID": one.id[:12], "Name": one.name, "Driver": one.driver, "Scope": "local", "Internal": one.internal,
         "Subnets": ",".join(subnet.subnet for subnet in one.subnets), "CreatedAt": one.created}
        for one in found
    ]  # fmt: skip
    print_rows(rows, template, _COLUMNS)


def _passes(one: Any, text: str) -> bool:
    key, equals, value = text.partition("=")
    if key not in ("name", "driver", "label", "id") or not equals:
        raise UsageError(f"--filter {text!r} is unknown", hint="name=, driver=, label=, id=")
    if key == "label":
        name, wants_value, wanted = value.partition("=")
        return name in one.labels and (not wants_value or one.labels[name] == wanted)
    return bool(value == one.driver if key == "driver" else value in getattr(one, key))


@network.command()
@FORMAT
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], template: str) -> None:
    """Print what is known of networks as JSON; Kernel is what the kernel has of it now."""
    from ..network import definitions
    from ..network.view import network_json

    print_objects([network_json(definitions.load(name), default_root()) for name in names], template)


@network.command()
@click.option("-f", "--force", is_flag=True, help="One that is missing is no error.")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...], force: bool) -> None:
    """Remove networks that no container is on."""
    from ..engine.verbs import remove_network

    failed = False
    for name in names:
        try:
            remove_network(name)
            click.echo(name)
        except WarrenError as error:
            if not (force and isinstance(error, NotFoundError)):
                tell_error(error)
                failed = True
    if failed:
        sys.exit(1)


@network.command()
@combine(
    many("--alias", help="A further name of the container there.", metavar="NAME"),
    click.option("--ip", default="", metavar="ADDRESS", help="Its IPv4 address."),
    click.option("--ip6", default="", metavar="ADDRESS", help="Its IPv6 address."),
    click.option("--mac-address", "mac", default="", metavar="MAC", help="Its hardware address."),
)
@click.argument("name")
@click.argument("container")
def connect(name: str, container: str, alias: tuple[str, ...], ip: str, ip6: str, mac: str) -> None:
    """Put a container on a further network, at once if it runs."""
    networking.connect(name, container, {"alias": alias, "ip": [ip], "ip6": [ip6], "mac": [mac]})


@network.command()
@click.option("-f", "--force", is_flag=True, help="One that is not on it is no error.")
@click.argument("name")
@click.argument("container")
def disconnect(name: str, container: str, force: bool) -> None:
    """Take a container from a network."""
    networking.disconnect(name, container, force=force)


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune(force: bool) -> None:
    """Remove networks that no container is on, and what killed commands have left of links and leases."""
    confirm("This will remove all networks that no container is on.", force)
    prune_networks()


def prune_networks() -> None:
    from ..engine.verbs import remove_network
    from ..network import definitions
    from ..network.attachment import sweep
    from ..network.leases import Leases

    sweep(default_root())
    for one in definitions.load_all():
        if one.name != definitions.DEFAULT and not Leases(default_root()).users(one.name):
            remove_network(one.name)
            click.echo(one.name)


@network.command()
@click.option("--firewall", is_flag=True, help="Have the host's firewall let our networks through, too.")
def repair(firewall: bool) -> None:
    """Make bridges, rules and forwarding anew where a reload of the host's firewall or a program has removed them."""
    from ..network import repair as mend

    for line in mend.repair(default_root(), firewall=firewall):
        click.echo(line)


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def reset(force: bool) -> None:
    """Take bridges, rules and forwarding out of the kernel.  Definitions stay; containers lose their network."""
    from ..network import bridges
    from ..network.attachment import sweep
    from ..network.leases import Leases

    confirm("This will cut all containers off.", force)
    sweep(default_root())
    with Leases(default_root()) as leases:
        bridges.reset(leases)


@click.command()
@click.argument("container")
@click.argument("private_port", required=False)
@failing_with_one()
def port(container: str, private_port: str | None) -> None:
    """Print where the ports of a container are published, or one of them (80 or 53/udp)."""
    record = find(container)
    ports = networking.settings(record.id, record.root)["Ports"]
    if private_port is None:
        for inside, hosts in ports.items():
            for one in hosts:
                click.echo(f"{inside} -> {_address(one)}")
        return
    wanted = private_port if "/" in private_port else f"{private_port}/tcp"
    if not ports.get(wanted):
        raise NotFoundError(f"no public port {wanted!r} published for {container}")
    for one in ports[wanted]:
        click.echo(_address(one))


def _address(one: dict[str, str]) -> str:
    host = f"[{one['HostIp']}]" if ":" in one["HostIp"] else one["HostIp"]
    return f"{host}:{one['HostPort']}"
