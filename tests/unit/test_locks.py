"""Locks end with who took them, whatever a program that uses the library forks meanwhile (flock(2): the child has the
same open file, and with it the lock)."""

import contextlib
import os
import posix
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.config.ids import lease_ids, reclaim_ids, release_ids
from runtime.state import StateDir

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def a_fork_at(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[list[int]]:
    """While the lock is held another thread forks: here, in the middle of the first call of posix.`name`."""
    children: list[int] = []
    original = getattr(posix, name)

    def forking(*arguments: object, **options: object) -> object:
        if not children:
            pid = os.fork()
            if not pid:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
        return original(*arguments, **options)

    monkeypatch.setattr(posix, name, forking)
    try:
        yield children
    finally:
        monkeypatch.setattr(posix, name, original)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def another_process(code: str, *arguments: str) -> bool:
    """Whether it got its lock, and so came to its end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", f"import sys\n{code}", *arguments], cwd=ROOT, check=True, timeout=5)
        return True
    return False


def test_a_lease_does_not_stay_locked_by_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_fork_at(monkeypatch, "symlink") as children:
        lease_ids(str(tmp_path), "one")
        assert children
        code = "from runtime.config.ids import lease_ids; lease_ids(sys.argv[1], 'two')"
        assert another_process(code, str(tmp_path)), "a forked child kept the lock of the leases"


def test_reclaiming_does_not_stay_locked_by_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease_ids(str(tmp_path), "one")
    with a_fork_at(monkeypatch, "readlink") as children:
        reclaim_ids(str(tmp_path))
        assert children
        code = "from runtime.config.ids import reclaim_ids; reclaim_ids(sys.argv[1])"
        assert another_process(code, str(tmp_path)), "a forked child kept the lock of the leases"
    release_ids(str(tmp_path), "one")


def test_a_container_does_not_stay_locked_by_a_fork(tmp_path: Path) -> None:
    directory = StateDir(str(tmp_path), "c")
    directory.make()
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    try:
        directory.unlock()
        code = "from runtime.state import StateDir; StateDir(sys.argv[1], 'c').lock()"
        assert another_process(code, str(tmp_path)), "a forked child kept the container's lock"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_lock_keeps_others_out_until_it_is_given_back(tmp_path: Path) -> None:
    first, second = StateDir(str(tmp_path), "c"), StateDir(str(tmp_path), "c")
    first.make()
    assert not second.lock(wait=False)
    assert second.locked_by_other()
    assert second.status() == "creating"
    first.unlock()
    assert second.lock(wait=False)
    second.unlock()
    assert not second.locked_by_other()


@pytest.mark.parametrize("parent", ["/proc", "/proc/self/fd", "/sys/kernel"])
def test_a_state_root_that_cannot_be_made_is_one_line(parent: str) -> None:
    """mkdir(2) on procfs says ENOENT although the parent exists."""
    from runtime.errors import WarrenError
    from runtime.state import make_root

    with pytest.raises((WarrenError, OSError)):
        make_root(f"{parent}/warren")
