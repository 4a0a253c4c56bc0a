"""runtime/state.py: whose process a state directory names."""

import os
import signal
from pathlib import Path

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
