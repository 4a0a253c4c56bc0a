"""Networks and ports of a container, as its configuration and its leases tell them, in docker's shape."""

from ..quantities import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    Ports = dict[str, list[dict[str, str]] | None]


def networks_of(config: "Json") -> "list[str]":
    """Names of the networks that it is in; its mode where that is no network."""
    named = [str(word).partition(":")[0] for word in config.get("networks") or ()]
    return named or [str(config.get("network") or "none")]


def ports_of(config: "Json") -> "Ports":
    """docker's NetworkSettings.Ports: "80/tcp" to its addresses on the host, None for what is exposed only."""
    found: Ports = {}
    for port in config.get("exposed_ports") or ():
        number, _, protocol = str(port).partition("/")
        found.setdefault(f"{number}/{protocol or 'tcp'}", None)
    for text in config.get("publish") or ():
        for key, binding in _published(str(text)):
            found[key] = [*(found.get(key) or []), binding]
    return found


def _published(text: str) -> "list[tuple[str, dict[str, str]]]":
    """[IP:][HOST:]CONTAINER[/PROTOCOL], each of the two perhaps a range."""
    ports, _, protocol = text.partition("/")
    rest, _, inside = ports.rpartition(":")
    address, _, outside = rest.rpartition(":")
    first, count = _span(inside)
    host, many = _span(outside)
    address = address.strip("[]")
    return [
        (
            f"{first + step}/{protocol or 'tcp'}",
            {"HostIp": address, "HostPort": str(host + min(step, max(many - 1, 0))) if host else ""},
        )
        for step in range(count)
    ]


def _span(text: str) -> "tuple[int, int]":
    first, _, last = text.partition("-")
    if not is_number(first) or (last and not is_number(last)):
        return 0, 0
    return int(first), max(1, int(last or first) - int(first) + 1)


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
    return int(number) if is_number(number) else 0, protocol
