"""Who has which address: a container's record and its claims, which die with it.

    ROOT/.networks/                 0700; ROOT is the root of the containers' state
        lock                        one flock(2) for all that changes here
        containers/ID               the record (JSON) of what a container has: written before any of it is made
        addresses/NETWORK/ADDRESS   a symbolic link to the id of who has it
        files/ID/                   hosts, resolv.conf and hostname, bound into the container
        ports/PROTOCOL.PORT.IP      the same for published ports
        resolvers/NETWORK           a symbolic link to "PID STARTTIME" of its resolver
        uplinks                     interfaces whose forwarding was switched on for us, one a line

A record whose container is gone, and whose maker has died, is swept (attachment.sweep).
"""

import _blake2
import _socket
import fcntl
import posix

from ..errors import NotFoundError, UsageError, WarrenError
from ..jsontext import dump_json, parse_json
from ..state import StateDir, make_root, read_file, start_time, unlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .definitions import Network, Subnet

    Json = dict[str, Any]

_TRIES = 4096
"""Addresses to look at one by one; in larger subnets the start varies with the container."""


class Leases:
    """The state of networks below one root; `with` it, locked."""

    __slots__ = ("_lock", "path", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.path = f"{root}/.networks"
        self._lock = -1

    def __enter__(self) -> "Leases":
        try:
            self._lock = posix.open(f"{self.path}/lock", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            make_root(self.root)
            for name in ("", "/containers", "/addresses", "/files", "/ports", "/resolvers"):
                make_root(self.path + name)
            return self.__enter__()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        unlock(self._lock)
        self._lock = -1

    # ---- records

    def ids(self) -> "list[str]":
        return [name for name in _listdir(self.path + "/containers") if name[0] != "."]

    def read(self, container_id: str) -> "Json | None":
        """A container's record; None without one."""
        try:
            data = parse_json(read_file(f"{self.path}/containers/{container_id}"), "record")
        except (OSError, WarrenError):
            return None
        return data if isinstance(data, dict) else None

    def records(self) -> "Iterator[tuple[str, Json]]":
        for container_id in self.ids():
            if record := self.read(container_id):
                yield container_id, record

    def write(self, container_id: str, record: "Json") -> None:
        path = f"{self.path}/containers/{container_id}"
        temporary = f"{self.path}/containers/.{container_id}"
        fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
        try:
            posix.write(fd, dump_json(record).encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
        posix.rename(temporary, path)

    def owner(self) -> str:
        """Us, as a record names its maker."""
        return f"{posix.getpid()} {start_time(posix.getpid())}"

    def is_dead(self, container_id: str) -> bool:
        """Whether there is no such container, and who was to make it has died."""
        if StateDir(self.root, container_id).exists():
            return False
        pid, _, started = str((self.read(container_id) or {}).get("owner") or "").partition(" ")
        return not pid or start_time(int(pid)) != started

    def forget(self, container_id: str) -> None:
        """Remove the record and the files; the last thing done."""
        for path in (f"{self.path}/files/{container_id}", f"{self.path}/containers/{container_id}"):
            remove_tree(path)

    # ---- addresses

    def claim(self, network: "Network", subnet: "Subnet", container_id: str, wanted: str = "") -> str:
        """Take an address; a `wanted` one or any.  UsageError when it is taken, or all are."""
        place = f"{self.path}/addresses/{network.name}"
        try:
            taken = set(posix.listdir(place))
        except FileNotFoundError:
            make_root(place)
            taken = set()
        if wanted:
            address = _check_wanted(network, subnet, wanted)
            if address in taken or address == subnet.gateway:
                holder = "the gateway" if address == subnet.gateway else "another container"
                raise UsageError(f"network {network.name}: {address} belongs to {holder}", hint="choose another --ip")
        else:
            address = _free(network, subnet, taken, container_id)
        posix.symlink(container_id, f"{place}/{address}")
        return address

    def unclaim(self, network: str, address: str) -> None:
        _unlink(f"{self.path}/addresses/{network}/{address}")

    def claims(self) -> "Iterator[tuple[str, str, str]]":
        """Network, address and holder of every claim."""
        for network in _listdir(self.path + "/addresses"):
            for address in _listdir(f"{self.path}/addresses/{network}"):
                try:
                    yield network, address, posix.readlink(f"{self.path}/addresses/{network}/{address}")
                except OSError:
                    continue

    # ---- ports and resolvers

    def ports(self) -> "Iterator[tuple[str, str]]":
        """Name ("tcp.80.127.0.0.1") and holder of every published port."""
        for name in _listdir(self.path + "/ports"):
            try:
                yield name, posix.readlink(f"{self.path}/ports/{name}")
            except OSError:
                continue

    def unclaim_port(self, name: str) -> None:
        _unlink(f"{self.path}/ports/{name}")

    def resolver(self, network: str) -> "tuple[int, str] | None":
        """Process and start time of a network's resolver, which may have ended."""
        try:
            pid, _, started = posix.readlink(f"{self.path}/resolvers/{network}").partition(" ")
            return int(pid), started
        except (OSError, ValueError):
            return None

    def note_resolver(self, network: str, pid: int) -> None:
        self.forget_resolver(network)
        posix.symlink(f"{pid} {start_time(pid)}", f"{self.path}/resolvers/{network}")

    def adopt_resolver(self, network: str) -> None:
        """Note ourselves, should who has started us have been killed before he could.  Needs no lock."""
        try:
            posix.symlink(self.owner(), f"{self.path}/resolvers/{network}")
        except FileExistsError:
            pass

    def forget_resolver(self, network: str) -> None:
        _unlink(f"{self.path}/resolvers/{network}")

    # ---- who uses what

    def users(self, network: str) -> "list[str]":
        """Ids of the containers that have a link in it."""
        return [
            container_id
            for container_id, record in self.records()
            if any(link["network"] == network for link in record.get("links") or [])
        ]

    def has_users(self, network: str) -> bool:
        return bool(_listdir(f"{self.path}/addresses/{network}"))


def of_container(root: str, container_id: str) -> "Json":
    """The record of a container, read without the lock; NotFoundError."""
    record = Leases(root).read(container_id)
    if record is None:
        raise NotFoundError(f"container {container_id!r} has no network")
    return record


def _bounds(subnet: str) -> "tuple[int, int, int]":
    """First and last address of a subnet as numbers, and their size in bytes."""
    text, _, prefix = subnet.partition("/")
    data = _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    first = int.from_bytes(data, "big")
    return first, first + (1 << 8 * len(data) - int(prefix)) - 1, len(data)


def address_text(number: int, size: int) -> str:
    return _socket.inet_ntop(_socket.AF_INET6 if size == 16 else _socket.AF_INET, number.to_bytes(size, "big"))


def _free(network: "Network", subnet: "Subnet", taken: "set[str]", container_id: str) -> str:
    """Begin where the id says, so that an address is not given out again at once: others may still remember it."""
    first, last, size = _bounds(subnet.range or subnet.subnet)
    low, high, _ = _bounds(subnet.subnet)
    # The first is the network's own; the last of IPv4 its broadcast address.
    first, last = max(first, low + 1), min(last, high - 1 if size == 4 else high)
    count = last - first + 1
    start = int.from_bytes(_blake2.blake2b(container_id.encode(), digest_size=8).digest(), "big") % count
    for offset in range(min(count, max(_TRIES, len(taken) + 2))):
        address = address_text(first + (start + offset) % count, size)
        if address not in taken and address != subnet.gateway:
            return address
    raise UsageError(
        f"network {network.name}: all {count} addresses of {subnet.range or subnet.subnet} are taken",
        hint="remove containers, or create a network with a larger subnet",
    )


def _check_wanted(network: "Network", subnet: "Subnet", wanted: str) -> str:
    first, last, size = _bounds(subnet.subnet)
    try:
        data = _socket.inet_pton(_socket.AF_INET6 if size == 16 else _socket.AF_INET, wanted)
    except OSError as error:
        raise UsageError(f"{wanted!r} is no address of {subnet.subnet}", hint="see --ip and --ip6") from error
    number = int.from_bytes(data, "big")
    if not first < number <= last or (size == 4 and number == last):
        raise UsageError(f"{wanted} is not an address of a host in network {network.name}, {subnet.subnet}")
    return address_text(number, size)


def _listdir(path: str) -> "list[str]":
    try:
        return posix.listdir(path)
    except FileNotFoundError:
        return []


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def remove_tree(path: str) -> None:
    """Remove a file, or a directory of files."""
    try:
        posix.unlink(path)
    except IsADirectoryError:
        for name in _listdir(path):
            _unlink(f"{path}/{name}")
        posix.rmdir(path)
    except FileNotFoundError:
        pass
