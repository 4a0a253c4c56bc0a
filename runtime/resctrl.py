"""Intel RDT: a container's class of service in the resctrl file system (config-linux.md, "IntelRdt").

It owns the directories of a container below the mount, and what is written to them; joining is a step of the plan,
since whatever a process starts is in its class.  Only containers that ask for it load this module.
"""

import posix

from .errors import SpecError, WarrenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Json = dict[str, object]

_SCHEMATA = ("l3CacheSchema", "memBwSchema", "schemata")


class Group:
    """Where a container belongs: `path` is its class, `monitor` its group of counters, "" if it has none."""

    __slots__ = ("monitor", "own", "path", "wanted")

    def __init__(self, mount: str, id: str, wanted: "Json") -> None:
        name = str(wanted.get("closID") or "")
        self.wanted = wanted
        self.own = not name
        """Whether the class is of this container alone, and ends with it."""
        self.path = mount if name == "/" else f"{mount}/{name or id}"
        self.monitor = f"{self.path}/mon_groups/{id}" if wanted.get("enableMonitoring") else ""

    def tasks(self) -> "list[str]":
        """The files to write "0" to, in this order: a group of counters takes only tasks of its class."""
        return [f"{path}/tasks" for path in (self.path, self.monitor) if path]

    def create(self) -> None:
        """Make what is missing, and set the class; SpecError for a class that is not as the spec says."""
        exists = _is_directory(self.path)
        lines = _lines(self.wanted)
        if not self.own and not exists and not any(self.wanted.get(key) for key in _SCHEMATA):
            raise SpecError(f"linux.intelRdt.closID: there is no class {self.path}, and no schema to make it with")
        if exists and not self.own:
            self._compare(lines)
        _make(self.path)
        for line in [*lines, *self.wanted.get("schemata", [])]:  # type: ignore[misc]
            _write(f"{self.path}/schemata", line)
        if self.monitor:
            _make(self.monitor)

    def _compare(self, lines: "list[str]") -> None:
        """A class that others use is not changed by the old fields; `schemata` may change it."""
        now = {_normal(line) for line in _read(f"{self.path}/schemata").splitlines()}
        for line in lines:
            if _normal(line) not in now:
                raise SpecError(f"linux.intelRdt: {self.path} exists, and {line!r} is not in its schemata")

    def remove(self) -> None:
        """Remove what belongs to the container alone; may be repeated."""
        for path in (self.monitor, self.path if self.own else ""):
            try:
                if path:
                    posix.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _error(path, error) from error


def _lines(wanted: "Json") -> "list[str]":
    """l3CacheSchema and memBwSchema as lines; of two that set the memory bandwidth the latter counts."""
    bandwidth = str(wanted.get("memBwSchema") or "")
    lines = [line for line in str(wanted.get("l3CacheSchema") or "").split("\n") if line.strip()]
    if bandwidth:
        lines = [line for line in lines if not line.startswith("MB:")] + [bandwidth]
    return lines


def _normal(line: str) -> str:
    """As the kernel shows it, but for leading zeros and blanks: "L3:0=00f;1=f" is "L3:0=f;1=f"."""
    resource, _, domains = line.strip().partition(":")
    pairs = [domain.partition("=") for domain in domains.split(";")]
    return (
        resource.strip()
        + ":"
        + ";".join([f"{key.strip()}={value.strip().lstrip('0') or '0'}" for key, _, value in pairs])
    )


def _make(path: str) -> None:
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise _error(path, error) from error


def _write(path: str, line: str) -> None:
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        try:
            posix.write(fd, line.encode() + b"\n")
        finally:
            posix.close(fd)
    except OSError as error:
        raise _error(f"{path}: {line!r}", error) from error


def _read(path: str) -> str:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        try:
            return posix.read(fd, 1 << 16).decode("utf-8", "replace")
        finally:
            posix.close(fd)
    except OSError as error:
        raise _error(path, error) from error


def _is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def _error(where: str, error: OSError) -> WarrenError:
    return WarrenError(
        f"linux.intelRdt: {where}: {posix.strerror(error.errno or 0).lower()}",
        hint="the kernel says more in info/last_cmd_status of the resctrl mount",
    )
