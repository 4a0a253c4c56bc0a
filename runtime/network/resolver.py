"""A network's resolver: the names of its containers, everything else from the host's servers, and names of --egress.

It is a program of its own on the host, started by resolvers.py on the gateway's address and ended with the network's
last container.  It reads what containers there are from their records, whenever a directory has changed.  A container
with egress rules gets answers for names that they allow, and the way to what they stand for is open before it reads
the answer.
"""

import os
import select
import signal
import socket
import threading
import time
from errno import EEXIST

from ..errors import WarrenError
from . import egress, names, rules
from .definitions import load
from .leases import Leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dnslib import DNSRecord

    Json = dict[str, Any]

_TTL = 5
"""Seconds that a container's name may be kept: it may be another's soon."""
_LEAST, _MOST = 60, 86400
"""Seconds for which a name of --egress opens the way, whatever its time to live."""
_GRACE = 30
_TIMEOUT = 3.0
_IDLE = 5.0
_WORKERS = 64
_KEPT_NAMES = 64
_TICK = 50_000_000
"""Nanoseconds: more than the kernel's clock for times of files takes to move on."""
_A, _PTR, _AAAA = 1, 12, 28
_NXDOMAIN, _REFUSED, _SERVFAIL = 3, 5, 2


class Directory:
    """Who is who: the containers of a root, read anew when their records have changed."""

    def __init__(self, root: str) -> None:
        self._leases = Leases(root)
        self._seen = -1
        self._lock = threading.Lock()
        self.by_address: dict[str, tuple[str, Json]] = {}
        self.by_name: dict[str, list[tuple[str, str, str]]] = {}
        """Name: network, IPv4 and IPv6 address of each who has it."""

    def refresh(self) -> None:
        with self._lock:
            seen = os.stat(f"{self._leases.path}/containers").st_mtime_ns
            if time.time_ns() - seen < _TICK:
                seen = 0  # It may change again without a later time.
            if seen and seen == self._seen:
                return
            self.by_address, self.by_name = {}, {}
            for container_id, record in self._leases.records():
                self._add(container_id, record)
            self._seen = seen

    def _add(self, container_id: str, record: "Json") -> None:
        for link in record.get("links") or []:
            for key in ("ipv4", "ipv6"):
                if link.get(key):
                    self.by_address[link[key]] = (container_id, record)
            known = {record.get("name"), record.get("hostname"), container_id[:12], *link["aliases"]}
            for name in filter(None, known):
                entry = (link["network"], link["ipv4"], link["ipv6"])
                self.by_name.setdefault(name.lower(), []).append(entry)


class Resolver:
    """Answers queries of a network's containers."""

    def __init__(self, root: str, network: str) -> None:
        self.root = root
        self.network = network
        self.directory = Directory(root)
        self._refused = threading.Lock()

    def answer(self, data: bytes, client: str, *, stream: bool) -> "bytes | None":
        """The answer to a query, None for what is none."""
        from dnslib import DNSRecord

        try:
            query = DNSRecord.parse(data)
        except Exception:  # Whatever a parser says of a stranger's bytes.
            return None
        if query.header.qr or len(query.questions) != 1:
            return None
        self.directory.refresh()
        container_id, record = self.directory.by_address.get(client.partition("%")[0], ("", {}))
        name = str(query.q.qname).lower().rstrip(".")
        reply = self._own(query, name, record)
        if reply is not None:
            return bytes(reply.pack())
        return self._foreign(data, query, name, container_id, record, stream=stream)

    def _own(self, query: "DNSRecord", name: str, record: "Json") -> "DNSRecord | None":
        """The answer for a container's name or address; None when it is neither."""
        from dnslib import AAAA, PTR, RR, A

        networks = {link["network"] for link in record.get("links") or []}
        reply = query.reply()
        if query.q.qtype == _PTR:
            owner = self.directory.by_address.get(_reversed(name))
            if not owner:
                return None
            reply.add_answer(RR(query.q.qname, _PTR, rdata=PTR(owner[1].get("name") or owner[0][:12]), ttl=_TTL))
            return reply
        entries = [entry for entry in self.directory.by_name.get(name, []) if entry[0] in networks]
        if not entries:
            return None
        for _, v4, v6 in entries:
            if query.q.qtype == _A and v4:
                reply.add_answer(RR(query.q.qname, _A, rdata=A(v4), ttl=_TTL))
            if query.q.qtype == _AAAA and v6:
                reply.add_answer(RR(query.q.qname, _AAAA, rdata=AAAA(v6), ttl=_TTL))
        return reply

    # ---- everything else

    def _foreign(
        self, data: bytes, query: "DNSRecord", name: str, container_id: str, record: "Json", *, stream: bool
    ) -> bytes:
        if not record or all(load(link["network"]).internal for link in record["links"]):
            return _failure(query, _REFUSED)
        allowed = None
        if record.get("egress") is not None:
            allowed = [rule for rule in egress.parse(record["egress"]) or [] if rule.matches(name)]
            if not allowed:
                self._note_refused(container_id, name)
                return _failure(query, _REFUSED)
        servers = record.get("dns") or names.of_host().servers
        answer = _ask(data, [server for server in servers if not self._is_ours(server)], stream=stream)
        if answer is None:
            return _failure(query, _SERVFAIL)
        if allowed and not self._open(answer, allowed, record):
            return _failure(query, _SERVFAIL)
        return answer

    def _is_ours(self, server: str) -> bool:
        return any(one.gateway == server for one in load(self.network).subnets)

    def _note_refused(self, container_id: str, name: str) -> None:
        """For inspect: names that were asked for and denied, each once."""
        path = f"{self.root}/.networks/files/{container_id}/refused"
        with self._refused:
            try:
                known = open(path).read().split() if os.path.exists(path) else []
                if name not in known and len(known) < _KEPT_NAMES and names.is_host_name(name):
                    with open(path, "a") as file:
                        file.write(name + "\n")
            except OSError:
                pass

    def _open(self, answer: bytes, allowed: "list[egress.Rule]", record: "Json") -> bool:
        """Let the container reach what an allowed name stands for; False when the kernel does not."""
        from dnslib import DNSRecord

        try:
            found = [(str(rr.rdata), rr.ttl) for rr in DNSRecord.parse(answer).rr if rr.rtype in (_A, _AAAA)]
        except Exception:
            return False
        wanted: list[tuple[str, bytes]] = []
        for address, ttl in found:
            if not _is_outside(address):
                continue
            seconds = min(max(ttl, _LEAST), _MOST) + _GRACE
            for link in record["links"]:
                source = link["ipv6" if ":" in address else "ipv4"]
                if source and link["bridge"]:
                    wanted += [one for rule in allowed for one in rule.elements(source, address, seconds)]
        for one in wanted:
            _renew(one)
        return True


def _renew(one: "tuple[str, bytes]") -> None:
    """Add an element, or let its time begin anew, which before Linux 6.12 takes removing it."""
    try:
        rules.replace(one)
    except OSError as error:
        if error.errno != EEXIST:
            raise


def _is_outside(address: str) -> bool:
    """Whether an answer may open a way: never to the host itself, however a name's owner answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    first = socket.inet_pton(family, address)
    if family == socket.AF_INET:
        if first[0] in (0, 127) or first[0] >= 224 or first[:2] == b"\xa9\xfe":
            return False
    elif first[0] in (0, 0xFF) or first[:2] == b"\xfe\x80":
        return False
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except (OSError, WarrenError):
            return True
    return False


def _reversed(name: str) -> str:
    """The address that a name of in-addr.arpa or ip6.arpa stands for; "" for another name."""
    try:
        if name.endswith(".in-addr.arpa"):
            return socket.inet_ntop(socket.AF_INET, bytes(int(part) for part in reversed(name[:-13].split("."))))
        if name.endswith(".ip6.arpa"):
            digits = "".join(reversed(name[:-9].split(".")))
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
    except (ValueError, OSError):
        pass
    return ""


def _failure(query: "DNSRecord", code: int) -> bytes:
    reply = query.reply()
    reply.header.rcode = code
    return bytes(reply.pack())


def _ask(data: bytes, servers: "list[str]", *, stream: bool) -> "bytes | None":
    """The answer of the first server that gives one, as it is."""
    for server in servers:
        try:
            return _ask_stream(data, server) if stream else _ask_datagram(data, server)
        except OSError:
            continue
    return None


def _ask_datagram(data: bytes, server: str) -> bytes:
    """By a socket of its own: a random port, and nobody else's answers."""
    with socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        sock.settimeout(_TIMEOUT)
        sock.connect((server, 53))
        sock.send(data)
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            answer = sock.recv(65535)
            if answer[:2] == data[:2]:
                return answer
    raise TimeoutError


def _ask_stream(data: bytes, server: str) -> bytes:
    with socket.create_connection((server, 53), _TIMEOUT) as sock:
        sock.sendall(len(data).to_bytes(2, "big") + data)
        return _receive(sock)


def _receive(sock: socket.socket) -> bytes:
    """One message of a stream, without its length."""
    size = int.from_bytes(_exactly(sock, 2), "big")
    return _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("cut off")
        data += part
    return data


def _family(server: str) -> int:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


# ---- the process


class Server:
    """Takes queries from the sockets, each answered by a thread, and ends when the network has no container."""

    def __init__(self, root: str, network: str, fds: "list[int]") -> None:
        self.resolver = Resolver(root, network)
        self.leases = Leases(root)
        self.network = network
        self.sockets = {fd: socket.socket(fileno=fd) for fd in fds}
        self._free = threading.Semaphore(_WORKERS)

    def run(self) -> None:
        self.leases.adopt_resolver(self.network)
        poll = select.poll()
        for fd in self.sockets:
            poll.register(fd, select.POLLIN)
        while True:
            ready = poll.poll(int(_IDLE * 1000))
            if not ready and self._is_over():
                return
            for fd, _ in ready:
                self._take(self.sockets[fd])

    def _is_over(self) -> bool:
        """Looked at with the lock, so that nobody counts on us who has just come."""
        try:
            with self.leases as leases:
                mine = leases.resolver(self.network)
                if mine and mine[0] == os.getpid() and leases.has_users(self.network):
                    return False
                if mine and mine[0] == os.getpid():
                    from .resolvers import forget

                    forget(leases, self.network)
                return True
        except (OSError, WarrenError):
            return True

    def _take(self, sock: socket.socket) -> None:
        if not self._free.acquire(timeout=_TIMEOUT):
            return
        try:
            if sock.type == socket.SOCK_DGRAM:
                data, client = sock.recvfrom(4096)
                work: Any = self._datagram
                arguments: Any = (sock, data, client)
            else:
                connection, client = sock.accept()
                work, arguments = self._stream, (connection, b"", client)
        except OSError:
            self._free.release()
            return
        threading.Thread(target=self._work, args=(work, arguments), daemon=True).start()

    def _work(self, work: "Any", arguments: "tuple[Any, ...]") -> None:
        try:
            work(*arguments)
        except (OSError, WarrenError):
            pass  # A client that is gone, or a record that is: nobody is left to tell.
        finally:
            self._free.release()

    def _datagram(self, sock: socket.socket, data: bytes, client: "tuple[Any, ...]") -> None:
        if answer := self.resolver.answer(data, client[0], stream=False):
            sock.sendto(answer, client)

    def _stream(self, connection: socket.socket, _: bytes, client: "tuple[Any, ...]") -> None:
        with connection:
            connection.settimeout(_TIMEOUT)
            while True:
                answer = self.resolver.answer(_receive(connection), client[0], stream=True)
                if answer is None:
                    return
                connection.sendall(len(answer).to_bytes(2, "big") + answer)


def main(arguments: "list[str]") -> None:
    """ROOT NETWORK COUNT: descriptors from 3 on are the sockets."""
    root, network, count = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Server(root, network, list(range(3, 3 + int(count)))).run()
