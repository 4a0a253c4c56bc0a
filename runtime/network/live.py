"""Networks of a container that runs: a link more, or one less.

No process of ours enters its namespace: a small plan has `init` open a route socket there and pass it to us.
"""

import posix

from ..errors import ExistsError, NotFoundError, StateError, WarrenError
from ..launch import Options, launch
from ..netlink import DELLINK, Netlink, attribute
from ..steps import PIDFD_SLOT, SYNC, LaunchPlan
from . import bridges, links, rules
from .attachment import Request, _Preparation, split_word
from .leases import Leases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

_NEWNET = 0x40000000


def connect(word: str, container_id: str, root: str, pid: int) -> None:
    """Give a running container a further link, on the network that `word` names (with podman's options).

    ExistsError when it is on it already, and what prepare() raises; nothing is left then.
    """
    name, options = split_word(word)
    with Leases(root) as leases:
        record = _record(leases, container_id)
        preparation = _Preparation(leases, Request(), container_id)
        network = bridges.load(name)
        if any(link["network"] == network.name for link in record["links"]):
            raise ExistsError(f"the container is on network {network.name!r} already")
        number = _free_number(record["links"])
        try:
            _, link = preparation.link(number, network.name, options)
            made = preparation.record["links"][0]
            old = bridges.of_container(container_id, record)
            leases.write(container_id, {**record, "links": [*record["links"], made]})
            new = [one for one in bridges.of_container(container_id, {**record, "links": [*record["links"], made]})
                   if one not in old]  # fmt: skip
            if new:
                rules.add(new)
            with_socket(pid, lambda fd: links.make((link,), pid, fd))
        except BaseException:
            leases.write(container_id, record)
            for key in ("ipv4", "ipv6"):
                for made in preparation.record["links"]:
                    leases.unclaim(network.name, made[key]) if made[key] else None
            raise
        if network.dns:
            from . import resolvers

            resolvers.ensure(leases, network)


def disconnect(name: str, container_id: str, root: str, pid: int) -> None:
    """Take a running container from a network; NotFoundError when it is not on it."""
    with Leases(root) as leases:
        record = _record(leases, container_id)
        gone = next((link for link in record["links"] if link["network"] == name), None)
        if gone is None:
            raise NotFoundError(f"the container is not on network {name!r}")
        kept = {**record, "links": [link for link in record["links"] if link is not gone]}
        before, after = (bridges.of_container(container_id, one) for one in (record, kept))
        if gone["host_name"]:
            links.remove(gone["host_name"])
        else:
            with_socket(pid, lambda fd: _remove_inside(fd, gone["name"]))
        rules.discard([one for one in before if one not in after])
        leases.write(container_id, kept)
        for key in ("ipv4", "ipv6"):
            if gone[key]:
                leases.unclaim(name, gone[key])


def _remove_inside(fd: int, name: str) -> None:
    with Netlink(fd) as theirs:
        theirs.request(DELLINK, links.LINK.pack(0, 0, 0, 0, 0) + attribute(3, name))


def _record(leases: Leases, container_id: str) -> "Json":
    record = leases.read(container_id)
    if record is None or record.get("making"):
        raise StateError("the container has no networks")
    return record


def _free_number(known: "list[Json]") -> int:
    taken = {link["name"] for link in known} | {link["host_name"][13:] for link in known if link["host_name"]}
    return next(number for number in range(1, 64) if f"eth{number}" not in taken and f"{number:x}" not in taken)


def with_socket(pid: int, act: "Callable[[int], None]") -> None:
    """Call `act` with a route socket of the network namespace of process `pid`."""
    plan = LaunchPlan()
    plan.add("undumpable")
    plan.add("setns", PIDFD_SLOT, _NEWNET)
    plan.add("clone", 0, -1)
    plan.add("netlink", "connect")
    process = posix.pidfd_open(pid)
    done = False

    def on_event(kind: int, value: int, _: str) -> str:
        nonlocal done
        if kind == SYNC:
            act(value)
            done = True
        return ""

    try:
        child = launch(plan, {PIDFD_SLOT: process}, Options(), on_event)
        posix.waitpid(child, 0)
    finally:
        posix.close(process)
    if not done:
        raise WarrenError("init did not open a socket in the container's network namespace")
