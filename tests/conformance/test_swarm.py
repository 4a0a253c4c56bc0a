"""Two dockerd nodes form a swarm, with the runtime under test below both: how Warren scales out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, Docker, Room, wait_for
from tests.helpers.host import require

REPLICAS = 10
ADDRESSES = ("10.77.0.1", "10.77.0.2")


@pytest.fixture
def rooms(directory: Path, token: str) -> Iterator[list[Room]]:
    """Two network namespaces at the ends of one cable."""
    require("dockerd")
    with Room(directory / "one", token) as one, Room(directory / "two", token) as two:
        one("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(two.pid)).ok()
        for room, address, other in zip((one, two), ADDRESSES, reversed(ADDRESSES), strict=True):
            room("ip", "address", "add", f"{address}/24", "dev", "cable").ok()
            room("ip", "link", "set", "cable", "up").ok()
            room("ip", "route", "add", "default", "via", other).ok()
        yield [one, two]


@pytest.fixture
def nodes(rooms: list[Room], runtime_program: str) -> Iterator[list[Docker]]:
    """A manager and a worker; containers use the network of their node."""
    flags = ("--bridge=none", "--iptables=false")
    with Docker(rooms[0], runtime_program, *flags) as manager, Docker(rooms[1], runtime_program, *flags) as worker:
        manager("swarm", "init", "--advertise-addr", ADDRESSES[0]).ok()
        join = manager("swarm", "join-token", "--quiet", "worker").ok().line
        worker("swarm", "join", "--token", join, f"{ADDRESSES[0]}:2377").ok()
        yield [manager, worker]
        for node in (worker, manager):
            node("swarm", "leave", "--force").ok()


def running(node: Docker) -> int:
    return len(node("ps", "--quiet", "--filter", "status=running").ok().out.split())


def test_a_service_spreads_over_two_nodes_and_leaves_one_that_is_drained(nodes: list[Docker]) -> None:
    manager, worker = nodes
    service = ["--name", "herd", "--network", "host", "--no-resolve-image", "--stop-grace-period", "0s"]
    manager("service", "create", "--detach", *service, "--replicas", str(REPLICAS), IMAGE, "sleep", "1000").ok()

    def where() -> list[int]:
        return [running(node) for node in nodes]

    wait_for(lambda: where() == [REPLICAS // 2] * 2, "the replicas do not spread", where)
    name = worker("info", "--format", "{{.Swarm.NodeID}}").ok().line
    manager("node", "update", "--availability", "drain", name).ok()
    wait_for(lambda: where() == [REPLICAS, 0], "the replicas do not move", where)
    manager("service", "scale", "--detach", "herd=3").ok()
    wait_for(lambda: where() == [3, 0], "the service does not shrink", where)
    manager("service", "rm", "herd").ok()
    wait_for(lambda: where() == [0, 0], "the service does not end", where)
