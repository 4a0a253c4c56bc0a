"""Starts and stops a network's resolver (resolver.py): a process on the host that lives as long as its containers.

It listens on the gateway's address, on a port of its own, and the packet filter leads port 53 there: a name server of
the host, or a container that is one, is in nobody's way.  Its sockets are bound here, so that queries wait in them
while it starts, and nobody waits for it.
"""

import _signal
import _socket
import posix
import sys
import time

from ..errors import WarrenError
from ..state import poll_end, start_time
from . import rules
from .definitions import RESOLVER_PORT, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .definitions import Network
    from .leases import Leases

_SECONDS = 3.0
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.network.resolver import main; main(sys.argv[2:])"


def ensure(leases: "Leases", network: "Network") -> None:
    """Start the network's resolver unless it runs.  The lock is held.  Raises WarrenError."""
    if not _is_running(leases, network.name):
        sockets = _bind_all(leases, network)
        try:
            if sockets:
                leases.note_resolver(network.name, _start(leases.root, network.name, sockets))
        finally:
            for sock in sockets:
                sock.close()
    rules.add(elements(network))


def _is_running(leases: "Leases", name: str) -> bool:
    running = leases.resolver(name)
    return running is not None and start_time(running[0]) == running[1]


def _bind_all(leases: "Leases", network: "Network") -> "list[_socket.socket]":
    """The sockets; none when one turns out to run, whose starter was killed before noting it: it does so itself."""
    deadline = time.monotonic() + _SECONDS
    while True:
        sockets: list[_socket.socket] = []
        try:
            for subnet in network.subnets:
                sockets += _bind(subnet.gateway)
            return sockets
        except WarrenError:
            for sock in sockets:
                sock.close()
            if _is_running(leases, network.name):
                return []
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


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
        # A foreground command has blocked signals.
        return posix.posix_spawn(python, argv, {}, file_actions=actions, setsid=True, setsigmask=[])
    finally:
        for fd in (*passed, null):
            posix.close(fd)


def _above(fd: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def forget(leases: "Leases", name: str) -> None:
    """Lead nobody there any more.  The lock is held."""
    leases.forget_resolver(name)
    try:
        rules.discard(elements(load(name)))
    except (OSError, WarrenError):
        pass  # The network is gone, or the table.


def stop(leases: "Leases", name: str) -> None:
    """End it, if it runs, and then forget it: whoever is killed in between leaves a note of one that is dead.

    The lock is held.
    """
    if running := leases.resolver(name):
        _kill(*running)
    forget(leases, name)


def _kill(pid: int, started: str) -> None:
    """Returns when it is gone, and its sockets with it."""
    try:
        fd = posix.pidfd_open(pid)
    except OSError:
        return
    try:
        if start_time(pid) == started:
            _signal.pidfd_send_signal(fd, _signal.SIGKILL)
            poll_end(fd, _SECONDS)
            posix.waitpid(pid, posix.WNOHANG)
    except (ProcessLookupError, ChildProcessError):
        pass  # It was faster, or is somebody else's child.
    finally:
        posix.close(fd)
