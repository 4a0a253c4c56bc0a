"""Ctrl-C at any line of what makes a container: nothing of it is left, at once and not by the next command's sweep."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.rooms import own_store
from tests.helpers.warren import PROGRAM

CONTAINERS = Path("/var/lib/warren/containers")
SEED = int(os.environ.get("WARREN_SEED") or time.time())
EVERY = 1 if os.environ.get("WARREN_LONG") else 15

INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
at, sys.argv = int(sys.argv[1]), ["warren", *sys.argv[2:]]
MAKERS = ("engine/lifecycle.py", "engine/records.py", "engine/running.py", "engine/images.py")

def trace(frame, event, argument):
    return trace_line if frame.f_code.co_filename.endswith(MAKERS) else None

def trace_line(frame, event, argument):
    global at
    at -= event == "line"
    if at == 0:
        sys.settrace(None)
        signal.raise_signal(signal.SIGINT)
    return trace_line

import cli
sys.settrace(trace)
cli.main()
"""


RUN, DETACHED = ["run", "--rm", "--init"], ["run", "-d", "--rm", "--init"]
FIND = ["find", CONTAINERS, "-mindepth", "1", "-not", "-name", ".brief", "-not", "-name", ".names"]


@pytest.mark.parametrize("words", [RUN, DETACHED, ["run", "-d", "--init"], ["create"]], ids=" ".join)
def test_interrupted_at_any_line_leaves_nothing(words: list[str]) -> None:
    """Or all of it, where it was made to stay and only the answer is missing."""
    python = [PROGRAM.with_name("python3"), "-I", "-c", INTERRUPTED]
    with own_store() as (warren, room):

        def output(*command: "str | Path") -> str:
            return subprocess.run([*room, *command], capture_output=True, text=True, timeout=20, check=True).stdout

        output("mkdir", "--mode=700", CONTAINERS)
        for line in range(random.Random(SEED).randint(1, EVERY), 1000, EVERY):
            command = [*room, *python, str(line), *words, "host", "--", "sleep", "0.3"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
            if done.returncode == 0:  # All of it has been made before so many lines were executed.
                warren("rm", "-f", done.stdout.strip()).ok()
                break
            assert (done.returncode, done.stderr) == (130, ""), f"WARREN_SEED={SEED}: line {line}: {done}"
            deadline = time.monotonic() + 10
            while (left := output(*FIND)) and words == DETACHED and time.monotonic() < deadline:
                time.sleep(0.05)  # It has been started, and goes by itself.
            stays = words not in (RUN, DETACHED) and ".brief/" not in left
            assert not left or stays, f"WARREN_SEED={SEED}: line {line}: {left}"
            if left:
                warren("rm", "-f", *warren("ps", "-aq").out.split()).ok()
        else:
            raise AssertionError(f"{words} goes on for ever")
