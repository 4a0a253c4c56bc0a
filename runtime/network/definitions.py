"""Networks as they are defined: one file a network, which outlives containers and reboots.

    DATA/networks/NAME.json      root: /var/lib/warren/networks

This is the reading half, on the path of every launch; create.py makes and checks them.
"""

import posix

from ..errors import NotFoundError, StateError, UsageError
from ..jsontext import dump_json, parse_json
from ..state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

DEFAULT = "bridge"
"""Name of the network that containers are in if they name none, as docker's."""
DEFAULT_BRIDGE = "warren0"
RESOLVER_PORT = 21053
"""Where a network's resolver listens on the gateway's address; below the ports that the kernel gives out."""
_FIELDS = (
    "name", "id", "created", "driver", "subnets", "internal", "mtu", "bridge", "parent", "icc", "dns", "options",
    "labels", "masquerade",
)  # fmt: skip


class Subnet:
    """One subnet of a network: "10.0.0.0/24", its gateway (the host's address there), where leases come from."""

    __slots__ = ("gateway", "range", "subnet")

    def __init__(self, subnet: str, gateway: str = "", range: str = "") -> None:
        self.subnet = subnet
        self.gateway = gateway
        self.range = range

    @property
    def prefix(self) -> str:
        return self.subnet.partition("/")[2]

    @property
    def is_v6(self) -> bool:
        return ":" in self.subnet


class Network:
    """A network; bridge and macvlan are its drivers."""

    __slots__ = _FIELDS

    def __init__(
        self,
        name: str,
        *,
        id: str = "",
        created: str = "",
        driver: str = "bridge",
        subnets: "list[Subnet] | None" = None,
        internal: bool = False,
        mtu: int = 0,
        bridge: str = "",
        parent: str = "",
        icc: bool = True,
        dns: bool = True,
        masquerade: bool = True,
        options: "dict[str, str] | None" = None,
        labels: "dict[str, str] | None" = None,
    ) -> None:
        self.name = name
        self.id = id
        self.created = created
        self.driver = driver
        self.subnets = subnets or []
        self.internal = internal
        """Whether it reaches nothing outside, and nobody outside reaches it."""
        self.mtu = mtu
        self.bridge = bridge
        self.parent = parent
        """Interface of the host that a macvlan lies on."""
        self.icc = icc
        """Whether its containers reach each other."""
        self.dns = dns
        """Whether they know each other by name."""
        self.masquerade = masquerade
        self.options = options or {}
        self.labels = labels or {}

    def gateways(self) -> "list[str]":
        """The host's addresses in it, with prefix lengths."""
        return [f"{one.gateway}/{one.prefix}" for one in self.subnets if one.gateway]

    def to_json(self) -> "Json":
        found = {name: getattr(self, name) for name in _FIELDS}
        found["subnets"] = [{key: getattr(one, key) for key in Subnet.__slots__} for one in self.subnets]
        return found

    @classmethod
    def from_json(cls, data: "Json") -> "Network":
        known = {key: value for key, value in data.items() if key in _FIELDS}
        return cls(**{**known, "subnets": [Subnet(**one) for one in known.get("subnets") or []]})


def directory() -> str:
    """/var/lib/warren/networks for root; below the XDG data directory for ordinary users."""
    if posix.geteuid() == 0:
        return "/var/lib/warren/networks"
    env = posix.environ
    home = env.get(b"XDG_DATA_HOME", b"") or env.get(b"HOME", b"") + b"/.local/share"
    if not home.startswith(b"/"):
        raise UsageError("no place for networks: neither XDG_DATA_HOME nor HOME is set")
    return home.decode("utf-8", "surrogateescape") + "/warren/networks"


def load(name: str) -> Network:
    """A network by its name, its id or an unambiguous beginning of the id; NotFoundError."""
    if name and "/" not in name and name[0] != ".":
        try:
            return _read(name)
        except FileNotFoundError:
            pass
    found = [network for network in load_all() if name and network.id.startswith(name)]
    if len(found) > 1:
        raise UsageError(f"network {name!r} is ambiguous", hint="give more of the id")
    if not found:
        raise NotFoundError(f"no such network: {name!r}", hint="warren network ls lists them")
    return found[0]


def load_all() -> "list[Network]":
    """Every network, by name; a file that cannot be read is left out."""
    try:
        names = sorted(posix.listdir(directory()))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if name.endswith(".json") and name[0] != ".":
            try:
                found.append(_read(name[:-5]))
            except (FileNotFoundError, StateError):
                continue
    return found


def _read(name: str) -> Network:
    path = f"{directory()}/{name}.json"
    try:
        data = parse_json(read_file(path), path)
        return Network.from_json(data)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StateError(f"network {name!r}: {path} cannot be read: {error}", hint="remove the file") from error


def save(network: Network) -> None:
    """Write it, durably (fsync, rename)."""
    place = directory()
    _make_directories(place)
    temporary = f"{place}/.{network.name}.{posix.getpid()}"
    fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o644)
    try:
        posix.write(fd, dump_json(network.to_json()).encode())
        posix.fsync(fd)
    finally:
        posix.close(fd)
    posix.rename(temporary, f"{place}/{network.name}.json")


def forget(name: str) -> None:
    posix.unlink(f"{directory()}/{name}.json")


def _make_directories(path: str) -> None:
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make_directories(path.rpartition("/")[0])
        posix.mkdir(path, 0o755)
