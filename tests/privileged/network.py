"""Fixtures of the tests of networks: a near and a far host for a module, and a check that each test leaves nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.lan import Lan


@pytest.fixture(scope="module")
def hosts(session_directory: Path, token: str) -> Iterator[Lan]:
    for tool in ("root", "ip", "nft"):
        require(tool)
    directory = session_directory / "lan"
    directory.mkdir(exist_ok=True)
    lan = Lan(directory, token)
    yield lan
    lan.close()


@pytest.fixture
def lan(hosts: Lan) -> Iterator[Lan]:
    yield hosts
    names = hosts.warren("ps", "-aq", "--no-trunc").out.split() if _has_ps(hosts) else []
    for name in names:
        hosts.warren("rm", "-f", name)
    left = hosts.settled()
    for name in hosts.warren("network", "ls", "-q").ok().out.split():
        if name != "bridge":
            hosts.warren("network", "rm", name)
    assert left == []


def _has_ps(hosts: Lan) -> bool:
    return hosts.warren("ps", "--help").code == 0
