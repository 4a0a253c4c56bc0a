"""Networks and ports of a container, as its configuration and its leases tell them, in docker's shape."""

from ..host import Host
from . import networking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..config import ContainerConfig
    from .records import Record

    Json = dict[str, Any]
    Ports = dict[str, list[dict[str, str]] | None]


def networks_of(config: "Json") -> "list[str]":
    """Names of the networks that it is in; its mode where that is no network.  Where none is told, it is none."""
    named = [str(word).partition(":")[0] for word in config.get("networks") or ()]
    default = "bridge" if Host.probe().privileged else "private"
    return named or [str(config.get("network", "none") or default)]


def ports_of(record: "Record") -> "Ports":
    """docker's NetworkSettings.Ports of one that runs: "80/tcp" to its addresses on the host, None for what is exposed
    only."""
    config = record.data["config"]
    found: Ports = {}
    for port in config.get("exposed_ports") or ():
        number, _, protocol = str(port).partition("/")
        found[f"{number}/{protocol or 'tcp'}"] = None
    if config.get("publish") or config.get("publish_all"):
        found |= networking.settings(record.id, record.root)["Ports"]
    return found


def settings_of(record: "Record") -> "Json":
    """docker's NetworkSettings."""
    pid = record.state_dir.process()
    found = networking.settings(record.id, record.root)
    return {
        "SandboxKey": f"/proc/{pid}/ns/net" if pid else "",
        **found,
        "Ports": ports_of(record) if pid else {},
        "Networks": found["Networks"] or {name: {} for name in _modes(record)},
    }


def _modes(record: "Record") -> "list[str]":
    """What stands for a network where there are no links."""
    return [name for name in networks_of(record.data["config"]) if not name.startswith(("container", "ns"))]


def bindings_of(config: "ContainerConfig") -> "Ports":
    """docker's HostConfig.PortBindings: what was asked for; no port of the host is one at random."""
    if not config.publish:
        return {}
    from ..network.ports import parse

    found: Ports = {}
    for port in parse(config.publish):
        key = f"{port.container_port}/{port.protocol}"
        binding = {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
        found[key] = [*(found.get(key) or []), binding]
    return found


def ports_text(ports: "Ports") -> str:
    """As `ps` has them: "0.0.0.0:8080->80/tcp, 443/tcp"."""
    words = []
    for key, bindings in sorted(ports.items(), key=lambda item: _order(item[0])):
        if not bindings:
            words.append(key)
        for binding in bindings or ():
            address = binding["HostIp"] or "0.0.0.0"
            address = f"[{address}]" if ":" in address else address
            words.append(f"{address}:{binding['HostPort']}->{key}")
    return ", ".join(words)


def _order(key: str) -> "tuple[int, str]":
    number, _, protocol = key.partition("/")
    return int(number.partition("-")[0] or 0), protocol
