"""The pytest plugin and `warren audit` as an ordinary user."""

import json
import os
import sys
from pathlib import Path

from tests.helpers.users import User
from tests.helpers.warren import PROGRAM

TESTS = """
import os
import pytest
from runtime.pytest_plugin import cannot_see, denied

def test_container(container):
    assert container.exec(["id", "-u"], capture_output=True, text=True).stdout == "0\\n"
    denied("mount", container=container)
    cannot_see(process=os.getpid(), container=container)

@pytest.mark.inside()
def test_inside():
    assert os.getpid() < 20
    denied("userns")

def test_network_of_its_own(container, network): ...
"""


def test_fixtures_tests_inside_and_a_reason_for_what_needs_root(user: User, directory: Path) -> None:
    path = directory / "tests"
    path.mkdir()
    (path / "test_it.py").write_text(TESTS)
    for one in (path, path / "test_it.py"):
        os.chown(one, user.uid, user.gid)
    done = user.run(sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", path, cwd=path, timeout=120)
    assert "2 passed, 1 skipped" in done.stdout, done.stdout
    assert "networks of bridges need root" in done.stdout


def test_what_an_audit_finds(user: User) -> None:
    """Nothing but the number of processes, where no cgroup of this user's can hold it."""
    done = user.run(PROGRAM, "audit", "--format", "json", "host")
    assert done.stdout, done.stderr
    failed = {one["key"] for one in json.loads(done.stdout)["findings"] if not one["passed"]}
    assert failed <= {"pids"}, done.stdout
    assert done.returncode == bool(failed)
