"""The network of an ordinary user's container: pasta(1) or slirp4netns(1), which carry its connections.

A program of the host without privileges, it is started at the launch's sync on the container's network namespace, which
comes with init's route socket, and ended with the container.  Ports are published by it.
"""

import _signal
import _socket
import fcntl
import posix

from ..errors import UnsupportedError, UsageError, WarrenError
from ..launch import Options, launch
from ..spec import Link
from ..state import start_time
from ..steps import PID, SYNC, LaunchPlan
from . import names, programs
from .attachment import Attachment, Request
from .attachment import check as check_request
from .leases import Leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .ports import Port

    Json = dict[str, Any]

_TUN = "/dev/net/tun"
_SIOCGSKNS = 0x894C
_NS_GET_USERNS = 0xB701
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_PATHS = ("/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin")
_SLIRP_ADDRESS, _SLIRP_DNS = "10.0.2.100", "10.0.2.3"


def find(mode: str) -> "tuple[str, str]":
    """Name and path of the program for a mode; ("", "") without one."""
    wanted = ("pasta", "slirp4netns") if mode == "private" else (mode,)
    for name in wanted:
        for directory in _PATHS:
            if posix.access(f"{directory}/{name}", posix.X_OK):
                return name, f"{directory}/{name}"
    return "", ""


def check(mode: str) -> None:
    """Whether this host can do it; UnsupportedError that says what is missing."""
    if not find(mode)[0]:
        package = "slirp4netns" if mode == "slirp4netns" else "passt"
        raise UnsupportedError(f"--network {mode}: the program is not installed", hint=f"package {package}")
    if not posix.access(_TUN, posix.R_OK | posix.W_OK):
        state = "cannot be opened by this user" if posix.access(_TUN, posix.F_OK) else "is missing"
        raise UnsupportedError(f"--network {mode}: {_TUN} {state}", hint=f"as root: modprobe tun; chmod 666 {_TUN}")


def prepare(mode: str, request: Request, container_id: str, root: str, owner: int) -> Attachment:
    """As attachment.prepare(), for a private network."""
    check_request(request)
    name, path = find(mode)
    if request.egress:
        raise UnsupportedError("--egress: nobody outside can hold it on a private network", hint="as root")
    if request.ip or request.ip6 or request.mac or request.aliases:
        raise UsageError(f"--ip, --ip6, --mac-address, --network-alias: not with --network {mode}")
    ports = request.ports()
    for port in ports:
        if port.protocol == "sctp":
            raise UnsupportedError("--publish: neither pasta nor slirp4netns knows SCTP")
    with Leases(root) as leases:
        from .ports import take

        record: Json = {"owner": leases.owner(), "name": request.name, "mode": name, "links": [], "resolver": []}
        take(leases, container_id, ports, v6=False)
        record["ports"] = [port.to_json() for port in ports]
        leases.write(container_id, record)
        directory = f"{leases.path}/files/{container_id}"
        mounts = names.write(directory, _files(name, request, container_id), owner)
    return _Private(record, mounts, name, path, ports, directory)


def _files(name: str, request: Request, container_id: str) -> "dict[str, str]":
    host = names.of_host()
    servers = list(request.dns) or [one for one in host.servers if not names.is_loopback(one)]
    if name == "slirp4netns" and not request.dns:
        servers = [_SLIRP_DNS]
    hostname = request.hostname or container_id[:12]
    added = names.added_hosts(request.add_host, "10.0.2.2" if name == "slirp4netns" else "")
    conf = names.ResolvConf(servers, request.dns_search or host.search, request.dns_option or host.options)
    hosts = names.hosts(["127.0.1.1"], [hostname, *([request.name] if request.name else [])], added, "")
    return {"hosts": hosts, "resolv.conf": str(conf), "hostname": hostname + "\n"}


class _Private(Attachment):
    __slots__ = ("_directory", "_name", "_path", "_ports")

    def __init__(
        self, record: "Json", mounts: "list[tuple[str, str]]", name: str, path: str, ports: "list[Port]", directory: str
    ) -> None:
        super().__init__(record, (Link("tap0", kind="tap"),), mounts)
        self._name = name
        self._path = path
        self._ports = ports
        self._directory = directory

    def connect(self, pid: int, fd: int) -> None:
        network = _ioctl_fd(fd, _SIOCGSKNS)
        user = _ioctl_fd(network, _NS_GET_USERNS)
        try:
            if self._name == "pasta":
                _with_holder(network, user, self._start_pasta)
            else:
                # By ours, not the container's: init is undumpable, and its /proc is closed to its own user.
                self._start_slirp(*(f"/proc/{posix.getpid()}/fd/{number}" for number in (network, user)))
        finally:
            posix.close(network)
            posix.close(user)

    # ---- pasta

    def _start_pasta(self, holder: int) -> None:
        """It goes into the background by itself, when everything is set up."""
        argv = [self._path, "--config-net", "--quiet", "--no-map-gw", "--pid", f"{self._directory}/pid"]
        for option, protocol in (("-t", "tcp"), ("-u", "udp")):
            for place in [_pasta_port(port) for port in self._ports if port.protocol == protocol] or ["none"]:
                argv += [option, place]
        argv += ["-T", "none", "-U", "none", "--ns-ifname", "tap0", str(holder)]
        log = f"{self._directory}/log"
        pid = _spawn(argv, log)
        if posix.waitpid(pid, 0)[1]:
            raise WarrenError(f"pasta: {_last_line(log)}", hint="the private network could not be set up")
        self._note(f"{self._directory}/pid")

    def _note(self, path: str) -> None:
        number = int(_read(path) or 0)
        posix.symlink(f"{number} {start_time(number)}", f"{self._directory}/program")

    # ---- slirp4netns

    def _start_slirp(self, network: str, user: str) -> None:
        ready, told = posix.pipe2(posix.O_CLOEXEC)
        socket_path = programs.api_socket(self._directory)
        argv = [self._path, "--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=3"]
        argv += [f"--api-socket={socket_path}", "--netns-type=path", f"--userns-path={user}", network, "tap0"]
        log = f"{self._directory}/log"
        try:
            pid = _spawn(argv, log, told)
        finally:
            posix.close(told)
        posix.symlink(f"{pid} {start_time(pid)}", f"{self._directory}/program")
        if not posix.read(ready, 1):
            posix.waitpid(pid, 0)
            raise WarrenError(f"slirp4netns: {_last_line(log)}", hint="the private network could not be set up")
        posix.close(ready)
        for port in self._ports:
            _publish_with_slirp(socket_path, port)


def _with_holder(network: int, user: int, act: "Callable[[int], None]") -> None:
    """Call `act` with the pid of a process in both namespaces that pasta may look at.

    pasta opens the network namespace after it has joined the user namespace, in which nobody may look at us; and the
    container's init is undumpable.  This one is an `init` that joins both, and nothing else.
    """
    plan = LaunchPlan()
    slots = [plan.slot(), plan.slot()]
    plan.add("setns", slots[0], _NEWUSER)
    plan.add("setns", slots[1], _NEWNET)
    plan.add("clone", 0, -1)
    plan.add("sync", "hold")
    pid = 0

    def on_event(kind: int, value: int, _: str) -> str:
        nonlocal pid
        if kind == PID:
            pid = value
        elif kind == SYNC:
            act(pid)
        return ""

    child = launch(plan, {slots[0]: user, slots[1]: network}, Options(), on_event)
    posix.waitpid(child, 0)


def _pasta_port(port: "Port") -> str:
    """As pasta's -t and -u take it."""
    return f"{port.host_ip + '/' if port.host_ip else ''}{port.host_port}:{port.container_port}"


def _publish_with_slirp(path: str, port: "Port") -> None:
    from ..jsontext import dump_json

    request = {
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol, "host_addr": port.host_ip or "0.0.0.0", "host_port": port.host_port,
            "guest_addr": _SLIRP_ADDRESS, "guest_port": port.container_port,
        },
    }  # fmt: skip
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
        sock.send(dump_json(request).encode())
        sock.shutdown(_socket.SHUT_WR)
        answer = sock.recv(4096)
    finally:
        sock.close()
    if b'"error"' in answer:
        raise WarrenError(f"slirp4netns: cannot publish {port}: {answer.decode('utf-8', 'replace')[:200]}")


def _ioctl_fd(fd: int, request: int) -> int:
    try:
        return int(fcntl.ioctl(fd, request))
    except OSError as error:
        raise WarrenError(f"network namespace: {(error.strerror or 'failed').lower()}") from error


def _spawn(argv: "list[str]", log: str, extra: int = -1) -> int:
    """A session of its own, with its messages in a file and `extra` as descriptor 3."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC
    output = posix.open(log, flags, 0o600)
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (null, output, *((extra,) if extra >= 0 else ()))]
    try:
        targets = [(moved[0], 0), (moved[1], 1), (moved[1], 2), *((fd, 3) for fd in moved[2:])]
        actions = [(posix.POSIX_SPAWN_DUP2, fd, target) for fd, target in targets]
        environment = {"PATH": ":".join(_PATHS)}
        # CPython ignores SIGPIPE, which pasta takes for a failure; and a foreground command has blocked signals.
        return posix.posix_spawn(
            argv[0], argv, environment, file_actions=actions, setsid=True, setsigmask=[], setsigdef=[_signal.SIGPIPE]
        )
    finally:
        for fd in (output, null, *moved):
            posix.close(fd)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(1 << 16)
    except OSError:
        return ""


def _last_line(path: str) -> str:
    lines = [line for line in _read(path).splitlines() if line.strip() and "syslog" not in line]
    return lines[-1].strip()[:200] if lines else "it failed and does not say why"
