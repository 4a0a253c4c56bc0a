"""Commands that make, remove and sweep the same containers at once: all succeed, and none takes what is another's."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.rooms import own_store

MAKERS, SWEEPERS = 4, 3
SECONDS = 30 if os.environ.get("WARREN_LONG") else 4
ROOT = Path(__file__).parents[2]

# Each of a round's containers goes another way, while all processes sweep.
PROGRAM = """
import os, sys, time
from runtime.config import ContainerConfig
from runtime.engine import lifecycle
from runtime.engine.records import containers_root

def config():
    return ContainerConfig(["true"], id="", rootfs="/", network="none")

def fill(record):
    for inner in ("upper/etc/a", "work/work"):
        os.makedirs(f"{record.path}/{inner}")
        open(f"{record.path}/{inner}/file", "w").close()

def killed():
    "While it was made, and while it was removed: nobody but a sweep removes them."
    child = os.fork()
    if not child:
        fill(lifecycle.make(config(), None))
        left = lifecycle.create(config())
        fill(left)
        os.rename(left.path, f"{containers_root()}/.gone-{left.id}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def kept():
    record = lifecycle.create(config())
    fill(record)
    lifecycle.remove(record, force=True)

end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    if sys.argv[1] == "sweep":
        lifecycle.sweep()
    else:
        killed()
        for _ in range(5):
            kept()
"""
LEFT = "cd /var/lib/warren/containers; find . -mindepth 1 ! -name .names ! -name .brief"


def test_what_several_sweep_at_once_fails_none_of_them() -> None:
    with own_store() as (warren, prefix):
        command = [*prefix, sys.executable, "-c", PROGRAM]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        running = [
            subprocess.Popen([*command, task, str(SECONDS)], env=environment, stderr=subprocess.PIPE, text=True)
            for task in ["make"] * MAKERS + ["sweep"] * SWEEPERS
        ]
        errors = [process.communicate()[1] for process in running]
        assert errors == [""] * (MAKERS + SWEEPERS)
        assert warren("ps", "-aq").ok().out == ""
        assert subprocess.check_output([*prefix, "sh", "-c", LEFT], text=True) == ""
