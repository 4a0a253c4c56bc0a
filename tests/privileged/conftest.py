"""`warren` as root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.lan import Lan
from tests.helpers.warren import Warren


@pytest.fixture(scope="session", autouse=True)
def as_root() -> None:
    require("root")


@pytest.fixture
def warren() -> Warren:
    return Warren()


@pytest.fixture(scope="module")
def hosts(session_directory: Path, token: str) -> Iterator[Lan]:
    """Two hosts with a wire between them, for the tests of a module."""
    for tool in ("root", "ip", "nft"):
        require(tool)
    directory = session_directory / "lan"
    directory.mkdir(exist_ok=True)
    lan = Lan(directory, token)
    yield lan
    lan.close()


@pytest.fixture
def lan(hosts: Lan) -> Iterator[Lan]:
    """The same, for one test, after which nothing of its containers and networks may be left."""
    yield hosts
    if names := hosts.containers():
        hosts.warren("rm", "-f", *names)
    left = hosts.settled()
    for name in hosts.warren("network", "ls", "-q").ok().out.split():
        if name != "bridge":
            hosts.warren("network", "rm", name)
    assert left == []
