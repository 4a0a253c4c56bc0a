"""Tests below systemd as process 1, with the fixtures of tests/vm/guest; every runtime gets --systemd-cgroup."""

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle, Runtime
from tests.vm.guest.conftest import bundle, not_yet, probe_program, program_of

__all__ = ["bundle", "not_yet", "probe_program"]

RUNTIMES = (*(["runc", "crun"] if os.environ.get("WARREN_LONG") else []), "warren-oci")
"""Others prove the tests, one by one, in the long run: they are slow here."""
USER = "daemon"
"""Whom tests/helpers/systemd.sh gives a service manager."""


@pytest.fixture(params=RUNTIMES)
def runtime_program(request: pytest.FixtureRequest) -> str:
    return program_of(request.param)


@pytest.fixture
def oci(oci: Runtime) -> Runtime:
    oci.flags.append("--systemd-cgroup")
    return oci


@pytest.fixture
def user_oci(runtime_program: str, directory: Path, token: str) -> Iterator[Runtime]:
    """As the ordinary user, from outside of his service manager's cgroups, as in a login session."""
    user = pwd.getpwnam(USER)
    runtime = Runtime(runtime_program, directory / "user", f"{token}-u{directory.name[-6:]}")
    os.chown(runtime.directory, user.pw_uid, user.pw_gid)
    runtime.prefix = as_user()
    runtime.flags.append("--systemd-cgroup")
    yield runtime
    runtime.close()


@pytest.fixture
def user_bundle(new_bundle: Callable[[], Bundle], bundle: Bundle) -> Bundle:
    user = pwd.getpwnam(USER)
    return bundle.for_ordinary_user(user.pw_uid, user.pw_gid)


def as_user() -> list[str]:
    """The words before a command that runs it as the ordinary user."""
    user = pwd.getpwnam(USER)
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "env", "HOME=/tmp", f"XDG_RUNTIME_DIR=/run/user/{user.pw_uid}"]


def shown(unit: str, *names: str, user: bool = False) -> dict[str, str]:
    """Properties of a unit, as systemctl(1) shows them; a line each for those that are lists."""
    prefix, flags = (as_user(), ["--user"]) if user else ([], [])
    command = [*prefix, "systemctl", *flags, "show", unit, *[f"--property={name}" for name in names]]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for line in out.splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name, []).append(value)
    return {name: "\n".join(values) for name, values in found.items()}


def is_loaded(unit: str, *, user: bool = False) -> bool:
    return shown(unit, "LoadState", user=user)["LoadState"] == "loaded"
