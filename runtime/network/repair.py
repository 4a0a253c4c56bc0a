"""Puts networks right, and finds what of the host stands in their way: a firewall that drops what is forwarded.

Whatever our own tables accept, a base chain of somebody else's with policy drop still drops.  Slow path.
"""

import json
import shutil
import subprocess

from ..errors import UnsupportedError, WarrenError
from . import bridges, definitions, forwarding, rules
from .attachment import sweep
from .leases import Leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_SECONDS = 20


class Obstacle:
    """A chain of the host that drops what is forwarded, and how to have our bridges pass."""

    __slots__ = ("family", "kind", "name", "table")

    def __init__(self, kind: str, family: str, table: str, name: str) -> None:
        self.kind = kind
        """nft, or iptables-legacy's command."""
        self.family = family
        self.table = table
        self.name = name

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.table} ({self.family}) drops what is forwarded"


def repair(root: str, *, firewall: bool) -> "list[str]":
    """Sweep, and make anew what is missing; what was done, a line each."""
    sweep(root)
    done = []
    with Leases(root) as leases:
        if rules.missing():
            done.append("the packet filter's tables were missing: made anew")
        bridges.rebuild(leases)
        for network in definitions.load_all():
            if network.driver == "bridge" and leases.users(network.name):
                bridges.ensure(leases, network)
                forwarding.of_bridge(network.bridge, v6=bridges.has_v6(network), internal=network.internal)
                done += _missing_ports(leases, network)
    found = obstacles()
    for one in found:
        done += _open(one) if firewall else [f"{one}: --firewall lets our networks through"]
    return done


def _missing_ports(leases: Leases, network: "definitions.Network") -> "list[str]":
    """Links that are no longer in their bridge are put back, by pyroute2."""
    from pyroute2 import IPRoute

    done = []
    with IPRoute() as kernel:
        bridge = kernel.link_lookup(ifname=network.bridge)[0]
        for _, record in leases.records():
            for link in record.get("links") or []:
                found = kernel.link_lookup(ifname=link["host_name"]) if link["network"] == network.name else []
                if found and kernel.get_links(found[0])[0].get_attr("IFLA_MASTER") != bridge:
                    kernel.link("set", index=found[0], master=bridge, state="up")
                    done.append(f"{link['host_name']} was not in {network.bridge}: put back")
    return done


# ---- the host's firewall


def obstacles() -> "list[Obstacle]":
    """Chains of the host that drop what is forwarded and do not name our bridges."""
    return [*_nft_obstacles(), *_legacy_obstacles()]


def _run(*command: str) -> str:
    """A program's output; "" if it is not there or fails."""
    program = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not program:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _nft_obstacles() -> "list[Obstacle]":
    text = _run("nft", "-j", "list", "chains")
    if not text:
        return []
    found = []
    for entry in json.loads(text).get("nftables", []):
        chain = entry.get("chain") or {}
        if (
            chain.get("hook") == "forward"
            and chain.get("policy") == "drop"
            and chain["family"] in ("ip", "ip6", "inet")
        ):
            one = Obstacle("nft", chain["family"], chain["table"], chain["name"])
            if not _is_open(one):
                found.append(one)
    return found


def _is_open(one: Obstacle) -> bool:
    listed = _run("nft", "list", "chain", one.family, one.table, _target(one))
    return f'"{_COMMENT}"' in listed


_COMMENT = "warren"


def _target(one: Obstacle) -> str:
    """The chain for rules of others: docker's own, where docker is."""
    chains = _run("nft", "list", "table", one.family, one.table)
    return "DOCKER-USER" if "chain DOCKER-USER" in chains else one.name


def _legacy_obstacles() -> "list[Obstacle]":
    found = []
    for command, family in (("iptables-legacy", "ip"), ("ip6tables-legacy", "ip6")):
        listed = _run(command, "-S", "FORWARD")
        if "-P FORWARD DROP" in listed and f"--comment {_COMMENT} " not in listed:
            found.append(Obstacle(command, family, "filter", "FORWARD"))
    return found


def _open(one: Obstacle) -> "list[str]":
    """Insert two rules for our bridges in front, from each and to each, marked with a comment."""
    names = [network.bridge for network in definitions.load_all() if network.bridge]
    for name in names:
        if one.kind == "nft":
            for direction in ("iifname", "oifname"):
                _must("nft", "insert", "rule", one.family, one.table, _target(one), direction, name, "accept",
                      "comment", f'"{_COMMENT}"')  # fmt: skip
        else:
            for direction in ("-i", "-o"):
                _must(
                    one.kind, "-I", "FORWARD", direction, name, "-m", "comment", "--comment", _COMMENT, "-j", "ACCEPT"
                )
    return [f"{one}: lets {', '.join(names)} through now"] if names else []


def _must(*command: str) -> None:
    program = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not program:
        raise UnsupportedError(f"{command[0]} is not installed")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        raise WarrenError(f"{command[0]}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
