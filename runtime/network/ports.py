"""Published ports: docker's ways to write them, which host port each gets, and that it is free.

    [[IP:]HOST[-HOST]:]CONTAINER[-CONTAINER][/tcp|udp|sctp]        IP::CONTAINER and CONTAINER: a random host port

A free port is found by binding it; our own containers' ports, which nobody listens on, are names in a directory.
"""

import _socket
import posix
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EPROTONOSUPPORT

from ..errors import ExistsError, UnsupportedError, UsageError
from . import rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .leases import Leases

_PROTOCOLS = tuple(rules.PROTOCOLS)
_ANY = ("", "0.0.0.0", "::")
_MOST = 4096
"""Ports of one container."""


class Port:
    """One port of a container, and where the host gives it: `host_ip` "" is every address, `host_port` 0 any port."""

    __slots__ = ("container_port", "host_ip", "host_port", "last", "protocol")

    def __init__(self, protocol: str, host_ip: str, host_port: int, container_port: int, last: int = 0) -> None:
        self.protocol = protocol
        self.host_ip = host_ip
        self.host_port = host_port
        self.container_port = container_port
        self.last = last or host_port
        """The last host port that will do."""

    def to_json(self) -> "dict[str, object]":
        return {key: getattr(self, key) for key in ("protocol", "host_ip", "host_port", "container_port")}

    def __str__(self) -> str:
        ip = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        return f"{ip + ':' if ip else ''}{self.host_port}/{self.protocol}"


def parse(texts: "Iterable[str]") -> "list[Port]":
    """The ports of -p options; UsageError for what is none."""
    found = [port for text in texts for port in _parse(text)]
    if len(found) > _MOST:
        raise UsageError(f"--publish: {len(found)} ports", hint=f"at most {_MOST}")
    return found


def exposed(texts: "Iterable[str]") -> "list[Port]":
    """-P: each exposed port ("80/tcp", "8000-8010/udp") with a random port of the host."""
    return parse([text for text in texts if ":" not in text])


def _parse(text: str) -> "list[Port]":
    rest, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise UsageError(f"--publish {text!r}: unknown protocol {protocol!r}", hint=", ".join(_PROTOCOLS))
    host_ip = ""
    if rest.startswith("["):
        host_ip, bracket, rest = rest[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise _malformed(text)
        rest = rest[1:]
        _check_address(host_ip, text)
        parts = ["", *rest.split(":")] if ":" in rest else []
        if len(parts) != 3:
            raise _malformed(text)
        parts[0] = host_ip
    else:
        parts = rest.split(":")
    if len(parts) == 1:
        first, last = _range(parts[0], text)
        return [Port(protocol, "", 0, number) for number in range(first, last + 1)]
    if len(parts) == 3:
        host_ip = parts[0]
        _check_address(host_ip, text)
    elif len(parts) != 2:
        raise _malformed(text)
    return _pair(protocol, host_ip, parts[-2], parts[-1], text)


def _pair(protocol: str, host_ip: str, host: str, container: str, text: str) -> "list[Port]":
    first, last = _range(container, text)
    if not host:
        return [Port(protocol, host_ip, 0, number) for number in range(first, last + 1)]
    low, high = _range(host, text, zero=True)
    if low == 0 == high:
        return [Port(protocol, host_ip, 0, number) for number in range(first, last + 1)]
    if first == last and high > low:
        # docker: any of the range for the one port.
        return [Port(protocol, host_ip, low, first, high)]
    if high - low != last - first:
        raise UsageError(f"--publish {text!r}: ranges of different length")
    return [Port(protocol, host_ip, low + offset, first + offset) for offset in range(last - first + 1)]


def _malformed(text: str) -> UsageError:
    return UsageError(f"--publish {text!r} is malformed", hint="[[IP:]HOST_PORT:]CONTAINER_PORT[/PROTOCOL]")


def _range(text: str, whole: str, *, zero: bool = False) -> "tuple[int, int]":
    first, dash, last = text.partition("-")
    low, high = _number(first, whole), _number(last if dash else first, whole)
    if low > high or (low == 0 and not (zero and high == 0)):
        raise UsageError(f"--publish {whole!r}: {text!r} is no range of ports")
    return low, high


def _number(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise UsageError(f"--publish {whole!r}: {text!r} is no port", hint="1 to 65535")
    return int(text)


def _check_address(address: str, text: str) -> None:
    if not address:
        return
    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in address else _socket.AF_INET, address)
    except OSError as error:
        raise UsageError(f"--publish {text!r}: {address!r} is no IP address") from error


# ---- host ports


def take(leases: "Leases", container_id: str, ports: "Sequence[Port]", *, v6: bool) -> "list[tuple[str, str]]":
    """Choose every host port and claim it; what to add to the record.  ExistsError for one that is in use.

    `v6` says whether the container has an IPv6 address to lead to.
    """
    claims: list[tuple[str, str]] = []
    taken = {name for name, _ in leases.ports()}
    for port in ports:
        _check_reachable(port, v6=v6)
        _choose(port, taken, v6=v6)
        name = f"{port.protocol}.{port.host_port}.{port.host_ip}"
        taken.add(name)
        claims.append((name, container_id))
    return claims


def _check_reachable(port: Port, *, v6: bool) -> None:
    if port.host_ip == "::1":
        raise UnsupportedError(
            f"--publish {port}: the kernel routes nothing from ::1 to a container", hint="publish on 127.0.0.1"
        )
    if ":" in port.host_ip and not v6:
        raise UsageError(f"--publish {port}: the container has no IPv6 address", hint="use a network made with --ipv6")


def _choose(port: Port, taken: "set[str]", *, v6: bool) -> None:
    """Settle `host_port`: the one that is wanted, or one that is free."""
    addresses = _addresses(port, v6=v6)
    if not port.host_port:
        for _ in range(64):
            number = _bind(port.protocol, addresses[0], 0)
            if not _conflicts(port, number, taken) and not _why_not(port.protocol, addresses[1:], number):
                port.host_port = port.last = number
                return
        raise ExistsError(f"--publish: no free {port.protocol} port for {port.container_port}")
    reason = ""
    for number in range(port.host_port, port.last + 1):
        if _conflicts(port, number, taken):
            reason = reason or "is published by another container"
            continue
        if why := _why_not(port.protocol, addresses, number):
            reason = reason or why
            continue
        port.host_port = port.last = number
        return
    raise ExistsError(f"port {port} {reason}", hint="choose another --publish")


def _addresses(port: Port, *, v6: bool) -> "list[str]":
    if port.host_ip:
        return [port.host_ip]
    return ["0.0.0.0", "::"] if v6 else ["0.0.0.0"]


def _conflicts(port: Port, number: int, taken: "set[str]") -> bool:
    """Whether one of our containers has the port at an address that overlaps."""
    start = f"{port.protocol}.{number}."
    for name in taken:
        if name.startswith(start):
            other = name[len(start) :]
            if other == port.host_ip or other in _ANY or port.host_ip in _ANY:
                return True
    return False


def _why_not(protocol: str, addresses: "list[str]", number: int) -> str:
    """Why nobody could listen there; "" when somebody could."""
    for address in addresses:
        try:
            _bind(protocol, address, number)
        except OSError as error:
            if error.errno == EADDRINUSE:
                return "is in use on this host"
            if error.errno == EADDRNOTAVAIL:
                return f"cannot be had: {address} is no address of this host"
            if error.errno == EACCES:
                return "is not for ordinary users"
            if error.errno != EPROTONOSUPPORT:
                return f"cannot be had: {posix.strerror(error.errno or 0).lower()}"
    return ""


def _bind(protocol: str, address: str, number: int) -> int:
    """Bind and let go; the port, which the kernel chooses for 0."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    kind = _socket.SOCK_DGRAM if protocol == "udp" else _socket.SOCK_STREAM
    sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, 132 if protocol == "sctp" else 0)
    try:
        if protocol == "tcp":
            # Connections that linger are in nobody's way.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        sock.bind((address, number))
        if protocol == "tcp" and number:
            sock.listen(1)
        return int(sock.getsockname()[1])
    finally:
        sock.close()


def elements(
    record_ports: "Iterable[dict[str, object]]", v4: str, v6: str, seconds: float = 0
) -> "list[tuple[str, bytes]]":
    """The elements of published ports, for the container's addresses; "" where it has none."""
    found = []
    for one in record_ports:
        host, protocol = str(one["host_ip"]), str(one["protocol"])
        numbers = int(str(one["host_port"])), int(str(one["container_port"]))
        if v4 and ":" not in host:
            found.append(rules.published(protocol, "" if host in _ANY else host, numbers[0], v4, numbers[1], seconds))
        if v6 and (not host or ":" in host):
            found.append(rules.published(protocol, "" if host in _ANY else host, numbers[0], v6, numbers[1], seconds))
    return found


def docker_json(ports: "Iterable[dict[str, object]]", *, v6: bool) -> "dict[str, list[dict[str, str]]]":
    """NetworkSettings.Ports as docker writes it."""
    found: dict[str, list[dict[str, str]]] = {}
    for one in ports:
        hosts = [str(one["host_ip"])] if one["host_ip"] else ["0.0.0.0", "::"] if v6 else ["0.0.0.0"]
        entry = found.setdefault(f"{one['container_port']}/{one['protocol']}", [])
        entry += [{"HostIp": host, "HostPort": str(one["host_port"])} for host in hosts]
    return found
