"""Names inside: /etc/hosts, /etc/resolv.conf and /etc/hostname of a container, as files of its own.

They are written into the container's state and bound over the image's, which is read and written by nobody here
(RULES of images: what lies in a root file system is the image's author's).
"""

import _socket
import posix

from ..errors import UsageError
from ..state import make_root, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PLACES = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf", "hostname": "/etc/hostname"}
_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
_HOST_NAMES = "host.containers.internal host.docker.internal"
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


class ResolvConf:
    """What resolv.conf(5) says."""

    __slots__ = ("options", "search", "servers")

    def __init__(self, servers: "Sequence[str]", search: "Sequence[str]", options: "Sequence[str]") -> None:
        self.servers = list(servers)
        self.search = list(search)
        self.options = list(options)

    def __str__(self) -> str:
        lines = [f"search {' '.join(self.search)}"] if self.search else []
        lines += [f"nameserver {server}" for server in self.servers]
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join([line + "\n" for line in lines])


def of_host() -> ResolvConf:
    """The host's own; of systemd-resolved the one that names the servers behind its stub."""
    found = _read_resolv("/etc/resolv.conf")
    if found.servers and all(server.startswith("127.0.0.53") for server in found.servers):
        behind = _read_resolv("/run/systemd/resolve/resolv.conf")
        return behind if behind.servers else found
    return found


def _read_resolv(path: str) -> ResolvConf:
    found = ResolvConf((), (), ())
    try:
        # A link is what it often is: read_file() would refuse it.
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return found
    try:
        text = posix.read(fd, 1 << 16).decode("utf-8", "replace")
    finally:
        posix.close(fd)
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1].partition("%")[0]):
            found.servers.append(words[1])
        elif len(words) > 1 and words[0] in ("search", "domain"):
            found.search = words[1:]
        elif len(words) > 1 and words[0] == "options":
            found.options = words[1:]
    return found


def is_loopback(server: str) -> bool:
    return server.startswith("127.") or server == "::1"


def _is_address(text: str) -> bool:
    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except OSError:
        return False
    return True


def check_server(text: str) -> str:
    if not _is_address(text):
        raise UsageError(f"--dns {text!r} is no IP address")
    return text


def is_host_name(text: str) -> bool:
    return bool(text) and len(text) <= 253 and _CHARACTERS.issuperset(text)


def check_name(text: str, option: str) -> str:
    """A host's name, as /etc/hosts and the resolver take it."""
    if not is_host_name(text):
        raise UsageError(f"{option} {text!r} is no host name")
    return text


def added_hosts(entries: "Iterable[str]", gateway: str) -> "list[tuple[str, str]]":
    """Address and name of each --add-host NAME:IP (or NAME=IP); host-gateway is the host as the container sees it."""
    found = []
    for entry in entries:
        name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
        if address == "host-gateway":
            if not gateway:
                raise UsageError(f"--add-host {entry!r}: this network has no gateway")
            address = gateway
        address = address.removeprefix("[").removesuffix("]")
        if not separator or not _is_address(address):
            raise UsageError(f"--add-host {entry!r} is malformed", hint="NAME:ADDRESS, or NAME:host-gateway")
        found.append((address, check_name(name, "--add-host")))
    return found


def hosts(own: "list[str]", names: "list[str]", added: "list[tuple[str, str]]", gateway: str) -> str:
    """A container's /etc/hosts."""
    lines = [f"{gateway}\t{_HOST_NAMES}\n"] if gateway else []
    lines += [f"{address}\t{name}\n" for address, name in added]
    lines += [f"{address}\t{' '.join(names)}\n" for address in own if names]
    return _HOSTS + "".join(lines)


def hosts_of_host(added: "list[tuple[str, str]]") -> str:
    """For a container on the host's network: the host's own and what is added."""
    try:
        text = read_file("/etc/hosts").decode("utf-8", "surrogateescape")
    except OSError:
        text = _HOSTS
    return text.rstrip("\n") + "\n" + "".join([f"{address}\t{name}\n" for address, name in added])


def write(directory: str, contents: "dict[str, str]", owner: int) -> "list[tuple[str, str]]":
    """Write files of `owner`, the container's root; (source, target) of each, to be bound."""
    make_root(directory)
    mounts = []
    for name, text in contents.items():
        path = f"{directory}/{name}"
        fd = posix.open(
            path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW, 0o644
        )
        try:
            # Whatever the caller's umask is.
            posix.fchmod(fd, 0o644)
            posix.write(fd, text.encode("utf-8", "surrogateescape"))
            if owner:
                posix.fchown(fd, owner, owner)
        finally:
            posix.close(fd)
        mounts.append((path, PLACES[name]))
    return mounts
