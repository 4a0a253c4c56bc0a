"""Starts and stops a network's resolver (resolver.py): a process on the host that lives as long as its containers.

It listens on the gateway's address, on a port of its own, and the packet filter leads port 53 there: a name server of
the host, or a container that is one, is in nobody's way.  Its sockets are bound here, so that queries wait in them
while it starts, and nobody waits for it.
"""

import _signal
import _socket
import posix
import sys

from ..errors import WarrenError
from ..state import start_time
from . import rules
from .definitions import RESOLVER_PORT, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .definitions import Network
    from .leases import Leases

_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.network.resolver import main; main(sys.argv[2:])"


def ensure(leases: "Leases", network: "Network") -> None:
    """Start the network's resolver unless it runs.  The lock is held.  Raises WarrenError."""
    running = leases.resolver(network.name)
    if running and start_time(running[0]) == running[1]:
        return
    sockets: list[_socket.socket] = []
    try:
        for subnet in network.subnets:
            sockets += _bind(subnet.gateway)
        pid = _start(leases.root, network.name, sockets)
    finally:
        for sock in sockets:
            sock.close()
    leases.note_resolver(network.name, pid)
    rules.add(elements(network))


def elements(network: "Network") -> "list[tuple[str, bytes]]":
    """What leads port 53 of the gateway to the resolver."""
    return [
        rules.published(protocol, subnet.gateway, 53, subnet.gateway, RESOLVER_PORT)
        for subnet in network.subnets
        for protocol in ("udp", "tcp")
    ]


def _bind(address: str) -> "list[_socket.socket]":
    """A datagram and a stream socket on the gateway's address."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    found = []
    try:
        for kind in (_socket.SOCK_DGRAM, _socket.SOCK_STREAM):
            sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
            found.append(sock)
            if kind == _socket.SOCK_STREAM:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind((address, RESOLVER_PORT))
            if kind == _socket.SOCK_STREAM:
                sock.listen(64)
    except OSError as error:
        for sock in found:
            sock.close()
        reason = (error.strerror or "failed").lower()
        raise WarrenError(f"resolver: cannot listen on {address} port {RESOLVER_PORT}: {reason}") from error
    return found


def _start(root: str, network: str, sockets: "list[_socket.socket]") -> int:
    """A session of its own, with the sockets from 3 on and nothing else."""
    package = __file__.rpartition("/runtime/")[0]
    # Out of the way of the numbers that they get.
    passed = [_above(sock.fileno(), 3 + len(sockets)) for sock in sockets]
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    try:
        actions = [(posix.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        actions += [(posix.POSIX_SPAWN_DUP2, fd, 3 + number) for number, fd in enumerate(passed)]
        python = sys.executable or "/usr/bin/python3"
        argv = [python, "-I", "-S", "-c", _CODE, package, root, network, str(len(sockets))]
        return posix.posix_spawn(python, argv, {}, file_actions=actions, setsid=True)
    finally:
        for fd in (*passed, null):
            posix.close(fd)


def _above(fd: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def stop(leases: "Leases", name: str) -> None:
    """End it, if it runs.  The lock is held."""
    running = leases.resolver(name)
    leases.forget_resolver(name)
    try:
        rules.discard(elements(load(name)))
    except (OSError, WarrenError):
        pass  # The network is gone, or the table.
    if not running or start_time(running[0]) != running[1]:
        return
    try:
        fd = posix.pidfd_open(running[0])
    except OSError:
        return
    try:
        if start_time(running[0]) == running[1]:
            _signal.pidfd_send_signal(fd, _signal.SIGTERM)
    except ProcessLookupError:
        pass
    finally:
        posix.close(fd)
    _reap(running[0])


def _reap(pid: int) -> None:
    """It may be our own child; somebody else's is not ours to wait for."""
    try:
        posix.waitpid(pid, 0)
    except ChildProcessError:
        pass
