"""What a container may reach: the words of --egress.

    none                      nothing
    10.0.0.0/8, fd00::/8      every protocol and port of these addresses
    192.0.2.7:443             TCP and UDP, this port; :8000-8010 these; /tcp or /udp one protocol
    [2001:db8::1]:443
    example.org, *.example.org:443   what the resolver finds there, as long as it says

It is enforced by the host's packet filter (rules.py): by addresses at once, by names when the resolver answers.
"""

import _socket

from ..errors import UsageError
from . import rules
from .definitions import RESOLVER_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST_PORTS = 64
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Rule:
    """One destination; a subnet ("10.0.0.0/8") or a name ("example.org", "*.example.org")."""

    __slots__ = ("name", "ports", "protocols", "subnet")

    def __init__(self, subnet: str, name: str, protocols: "tuple[int, ...]", ports: "tuple[int, int]") -> None:
        self.subnet = subnet
        self.name = name
        self.protocols = protocols
        """Numbers; none at all are all."""
        self.ports = ports

    def matches(self, name: str) -> bool:
        """Whether a name of the DNS, in lower case and without the last dot, is this rule's."""
        if self.name.startswith("*."):
            return name.endswith(self.name[1:]) and len(name) > len(self.name) - 1
        return bool(self.name) and name == self.name

    def elements(self, source: str, address: str, seconds: int) -> "list[tuple[str, bytes]]":
        """Elements that let `source` reach an address that this rule's name stands for."""
        if not self.protocols:
            return [rules.resolved(source, address, 0, 0, seconds)]
        ports = range(self.ports[0], self.ports[1] + 1)
        return [rules.resolved(source, address, one, port, seconds) for one in self.protocols for port in ports]


def parse(texts: "Iterable[str]") -> "list[Rule] | None":
    """The rules of --egress options, each a list with commas; None without any option, [] for none."""
    words = [word.strip() for text in texts for word in text.split(",")]
    if not words:
        return None
    if "none" in words:
        if len(words) > 1:
            raise UsageError("--egress none: there is more than that", hint="leave either out")
        return []
    return [_parse(word) for word in words]


def _parse(word: str) -> Rule:
    host, port = word, ""
    if word.startswith("["):
        host, bracket, port = word[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise _malformed(word)
        port = port[1:]
    elif word.count(":") == 1:
        host, _, port = word.partition(":")
    subnet = _subnet(host)
    name = "" if subnet else _name(host, word)
    protocols, ports = _ports(port, word) if port else ((), (0, 65535))
    if name and ports[1] - ports[0] >= _MOST_PORTS and protocols:
        raise UsageError(f"--egress {word!r}: {ports[1] - ports[0] + 1} ports of a name", hint=f"{_MOST_PORTS} at most")
    return Rule(subnet, name, protocols, ports)


def _malformed(word: str) -> UsageError:
    return UsageError(f"--egress {word!r} is malformed", hint="none, NAME[:PORT], ADDRESS[/BITS], [IPV6]:PORT, *.NAME")


def _subnet(text: str) -> str:
    """ "ADDRESS/BITS" with the host's bits cleared; "" for what is no address."""
    address, slash, bits = text.partition("/")
    try:
        data = _socket.inet_pton(_socket.AF_INET6 if ":" in address else _socket.AF_INET, address)
    except OSError:
        return ""
    size = 8 * len(data)
    if slash and (not bits.isascii() or not bits.isdecimal() or int(bits) > size):
        raise UsageError(f"--egress {text!r}: {bits!r} is no length of a prefix")
    length = int(bits) if slash else size
    number = int.from_bytes(data, "big") >> size - length << size - length
    family = _socket.AF_INET6 if size == 128 else _socket.AF_INET
    return f"{_socket.inet_ntop(family, number.to_bytes(size // 8, 'big'))}/{length}"


def _name(text: str, word: str) -> str:
    name = text.lower().rstrip(".")
    labels = (name[2:] if name.startswith("*.") else name).split(".")
    if not name or len(name) > 253 or any(not 0 < len(label) < 64 or not _LABEL.issuperset(label) for label in labels):
        raise _malformed(word)
    if labels[-1].isdecimal():
        raise UsageError(f"--egress {word!r}: neither an address nor a name")
    return name


def _ports(text: str, word: str) -> "tuple[tuple[int, ...], tuple[int, int]]":
    numbers, _, protocol = text.partition("/")
    if protocol and protocol not in rules.PROTOCOLS:
        raise UsageError(f"--egress {word!r}: unknown protocol {protocol!r}", hint="tcp, udp or sctp")
    first, dash, last = numbers.partition("-")
    ends = [first, last] if dash else [first, first]
    if any(not end.isascii() or not end.isdecimal() or not 0 < int(end) < 65536 for end in ends):
        raise UsageError(f"--egress {word!r}: {numbers!r} is no port", hint="1 to 65535")
    if int(ends[0]) > int(ends[1]):
        raise UsageError(f"--egress {word!r}: {numbers!r} is no range")
    protocols = (rules.PROTOCOLS[protocol],) if protocol else (rules.PROTOCOLS["tcp"], rules.PROTOCOLS["udp"])
    return protocols, (int(ends[0]), int(ends[1]))


def elements(texts: "Iterable[str]", servers: "Iterable[str]", sources: "list[str]") -> "list[tuple[str, bytes]]":
    """What may be reached by address, from each of the container's; `servers` are where its resolver listens."""
    known = list(parse(texts) or [])
    known += [_parse(f"[{server}]:{RESOLVER_PORT}") for server in servers]
    found = []
    for size in (4, 16):
        spans = [(*_ends(rule.subnet), rule) for rule in known if rule.subnet]
        boxes = list(_disjoint([(a, b, rule) for a, b, length, rule in spans if length == size]))
        for source in sources:
            if (":" in source) == (size == 16):
                for first, last, protocols, ports in boxes:
                    ends = first.to_bytes(size, "big"), last.to_bytes(size, "big")
                    found.append(rules.allowed(source, *ends, protocols, ports))
    return found


def _disjoint(spans: "list[tuple[int, int, Rule]]") -> "Iterator[tuple[int, int, tuple[int, int], tuple[int, int]]]":
    """Boxes (first and last address, protocols, ports) that cover what the rules cover, and do not overlap.

    The kernel refuses overlapping intervals of a concatenation (ENOTEMPTY).
    """
    edges = sorted({first for first, _, _ in spans} | {last + 1 for _, last, _ in spans})
    for number, first in enumerate(edges[:-1]):
        after = edges[number + 1]
        here = [rule for low, high, rule in spans if low <= first and after - 1 <= high]
        if any(not rule.protocols for rule in here):
            yield first, after - 1, (0, 255), (0, 65535)
            continue
        for protocol in sorted({one for rule in here for one in rule.protocols}):
            for ports in _merged([rule.ports for rule in here if protocol in rule.protocols]):
                yield first, after - 1, (protocol, protocol), ports


def _merged(spans: "list[tuple[int, int]]") -> "list[tuple[int, int]]":
    found: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _ends(subnet: str) -> "tuple[int, int, int]":
    """First and last address of a subnet as numbers, and their size in bytes."""
    address, _, bits = subnet.partition("/")
    data = rules.pack(address)
    first = int.from_bytes(data, "big")
    return first, first | (1 << 8 * len(data) - int(bits)) - 1, len(data)
