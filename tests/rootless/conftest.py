"""Tests as an ordinary user, which is made for the session where the tests run as root."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.oci import Bundle
from tests.helpers.users import User, ordinary_user

NAMES = {"subordinate ids": "warren-test", "no subordinate ids": "warren-plain"}


@pytest.fixture(scope="session")
def user_with_ids(session_directory: Path) -> Iterator[User]:
    """Has entries in /etc/subuid and /etc/subgid, and newuidmap to use them."""
    yield from _user("subordinate ids", session_directory)


@pytest.fixture(scope="session")
def plain_user(session_directory: Path) -> Iterator[User]:
    """Has no subordinate ids: only its own id can be mapped."""
    yield from _user("no subordinate ids", session_directory)


def _user(kind: str, directory: Path) -> Iterator[User]:
    require("unprivileged-user-namespaces")
    if os.geteuid() == 0:
        require("useradd")
    if kind == "subordinate ids":
        require("newuidmap")
    home = Path(tempfile.mkdtemp(prefix="home-", dir=directory))
    with ordinary_user(NAMES[kind], home, subordinate_ids=kind == "subordinate ids") as user:
        yield user


@pytest.fixture(params=list(NAMES))
def user(request: pytest.FixtureRequest) -> User:
    """Each of both kinds in turn; tests of one kind ask for user_with_ids or plain_user."""
    name = "user_with_ids" if request.param == "subordinate ids" else "plain_user"
    return request.getfixturevalue(name)  # type: ignore[no-any-return]


@pytest.fixture
def user_bundle(new_bundle: Callable[[], Bundle], user: User) -> Bundle:
    """A bundle that belongs to the user and maps that one id, as `spec --rootless` would write it."""
    return new_bundle().for_ordinary_user(user.uid, user.gid)
