"""--filter KEY=VALUE as docker reads it: values of one key are alternatives, keys have to hold together."""

from ..errors import NotFoundError, UsageError
from ..quantities import is_number, moment, parse_timestamp
from .records import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .listing import Row

    Test = Callable[[Row], bool]

STATUSES = ("created", "running", "paused", "restarting", "exited", "dead", "removing")
HEALTHS = ("starting", "healthy", "unhealthy", "none")


def parse_filters(texts: "Iterable[str]", known: "Iterable[str]") -> "dict[str, list[str]]":
    """Values by key; UsageError for a key that is not `known`."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals:
            raise UsageError(f"--filter {text!r} is not KEY=VALUE", hint=f"such as {next(iter(known))}=...")
        if key not in known:
            raise UsageError(f"--filter {key!r} is unknown", hint=f"one of {', '.join(sorted(known))}")
        found.setdefault(key, []).append(value)
    return found


def has_labels(labels: "dict[str, str]", wanted: "Sequence[str]") -> bool:
    """Whether all of KEY or KEY=VALUE are there: labels alone have to hold all together (docker)."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def tests_of(filters: "dict[str, list[str]]") -> "list[Test]":
    """What a container must answer to with True; UsageError for values that are off, NotFoundError for containers."""
    return [_TESTS[key](values) for key, values in filters.items()]


def wants_stopped(filters: "dict[str, list[str]]") -> bool:
    """Whether a filter makes no sense unless those that do not run are looked at."""
    return bool({"status", "exited"} & set(filters))


def _among(option: str, values: "list[str]", known: "Sequence[str]") -> "set[str]":
    for value in values:
        if value not in known:
            raise UsageError(f"--filter {option}={value}: unknown {option}", hint=f"one of {', '.join(known)}")
    return set(values)


def _id(values: "list[str]") -> "Test":
    return lambda row: any(row.record.id.startswith(value.lower()) for value in values)


def _name(values: "list[str]") -> "Test":
    """Regular expressions that are found in it; a leading slash is docker's."""
    import re

    try:
        patterns = [re.compile(value) for value in values]
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--filter name: {error}") from error
    return lambda row: any(pattern.search(row.name) or pattern.search("/" + row.name) for pattern in patterns)


def _label(values: "list[str]") -> "Test":
    return lambda row: has_labels(row.labels, values)


def _status(values: "list[str]") -> "Test":
    known = {"dead" if value == "removing" else value for value in _among("status", values, STATUSES)}
    return lambda row: row.status in known


def _exited(values: "list[str]") -> "Test":
    for value in values:
        if not is_number(value):
            raise UsageError(f"--filter exited={value} is no exit code")
    codes = set(map(int, values))
    return lambda row: row.status == "exited" and row.record.exit_code() in codes


def _ancestor(values: "list[str]") -> "Test":
    """By the name that was given, by the image's id, or by an image that the container's is built on."""
    from ..images.store import Store

    store, chains, names = Store(), [], set(values)
    for value in values:
        try:
            image = store.find(value)
        except NotFoundError:
            continue
        chains.append(image.chains)
        names |= {*image.names, image.id}

    def test(row: "Row") -> bool:
        own = row.record.data.get("chains") or []
        return row.image in names or any(own[: len(chain)] == chain for chain in chains if chain)

    return test


def _before(values: "list[str]") -> "Test":
    created = [str(find(value).data["created"]) for value in values]
    return lambda row: any(row.created < other for other in created)


def _since(values: "list[str]") -> "Test":
    created = [str(find(value).data["created"]) for value in values]
    return lambda row: any(row.created > other for other in created)


def _until(values: "list[str]") -> "Test":
    ends = [moment(value, "--filter until") for value in values]
    return lambda row: all(parse_timestamp(row.created) < end for end in ends)


def _volume(values: "list[str]") -> "Test":
    return lambda row: any(
        value in (mount.get("Name"), mount["Source"], mount["Destination"]) for mount in row.mounts for value in values
    )


def _network(values: "list[str]") -> "Test":
    return lambda row: any(value in row.networks for value in values)


def _health(values: "list[str]") -> "Test":
    known = _among("health", values, HEALTHS)
    return lambda row: (row.health or "none") in known


def _ports(option: str, values: "list[str]") -> "list[tuple[int, int, str]]":
    """First, last and protocol of PORT[-PORT][/PROTOCOL]."""
    found = []
    for value in values:
        ports, _, protocol = value.partition("/")
        first, _, last = ports.partition("-")
        if not is_number(first) or not is_number(last or first) or len(first) > 5 or len(last) > 5:
            raise UsageError(f"--filter {option}={value} is no port", hint="such as 80, 8000-8080/tcp")
        found.append((int(first), int(last or first), protocol or "tcp"))
    return found


def _holds(wanted: "list[tuple[int, int, str]]", port: str, protocol: str) -> bool:
    return is_number(port) and any(first <= int(port) <= last and protocol == kind for first, last, kind in wanted)


def _publish(values: "list[str]") -> "Test":
    wanted = _ports("publish", values)
    return lambda row: any(
        _holds(wanted, binding["HostPort"], key.partition("/")[2])
        for key, bindings in row.ports.items() for binding in bindings or ()
    )  # fmt: skip


def _expose(values: "list[str]") -> "Test":
    wanted = _ports("expose", values)
    return lambda row: any(_holds(wanted, *key.split("/")[:2]) for key in row.ports)


_TESTS: "dict[str, Callable[[list[str]], Test]]" = {
    "id": _id, "name": _name, "label": _label, "status": _status, "exited": _exited, "ancestor": _ancestor,
    "before": _before, "since": _since, "until": _until, "volume": _volume, "network": _network, "health": _health,
    "publish": _publish, "expose": _expose,
}  # fmt: skip
OF_PS = tuple(key for key in _TESTS if key != "until")
OF_PRUNE = ("until", "label")
