"""`warren` as root."""

import pytest

from tests.helpers.host import require
from tests.helpers.warren import Warren


@pytest.fixture(scope="session", autouse=True)
def as_root() -> None:
    require("root")


@pytest.fixture
def warren() -> Warren:
    return Warren()
