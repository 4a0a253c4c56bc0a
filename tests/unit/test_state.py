"""runtime/state.py: whose process a state directory names."""

import fcntl
import os
import signal
import sys
from itertools import groupby
from pathlib import Path
from types import FrameType

from runtime import container
from runtime.state import StateDir


def test_a_process_that_ended_before_it_was_recorded_is_not_running(tmp_path: Path) -> None:
    """A quick program is over before Python has read init's message of its pid."""
    state = StateDir(str(tmp_path), "quick")
    state.make()
    try:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        state.record_pid(child)
        assert (state.process(), state.status()) == (0, "stopped")
        os.waitpid(child, 0)
        assert (state.process(), state.status()) == (0, "stopped")
    finally:
        state.unlock()
        state.remove()


def test_a_process_is_known_until_it_ends(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path), "slow")
    state.make()
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    try:
        state.record_pid(child)
        assert state.process() == child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert state.process() == 0
        os.waitpid(child, 0)
        state.unlock()
        state.remove()


def test_a_sweep_does_not_let_go_of_what_it_has_found_abandoned(tmp_path: Path) -> None:
    """Who has just made the directory could take the lock meanwhile, and have a container that is swept as it runs."""
    left = StateDir(str(tmp_path), "left")
    left.make()
    left.unlock()
    seen = []

    def look() -> None:
        try:
            fd = os.open(left.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append("free")
        except BlockingIOError:
            seen.append("held")
        finally:
            os.close(fd)

    def trace(frame: FrameType, _event: str, _argument: object) -> object:
        if not frame.f_code.co_filename.endswith(("runtime/container.py", "runtime/state.py")):
            return None
        look()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert container.sweep(str(tmp_path)) == []
    finally:
        sys.settrace(before)
    assert not left.exists()
    assert [word for word, _ in groupby(seen)] == ["free", "held"]
