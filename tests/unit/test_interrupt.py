"""Ctrl-C while modules are loaded: CPython forgets what a callback of its import system raises."""

import subprocess
import sys

PROGRAM = """
import signal, sys, weakref
from runtime.syscalls import take_interrupt
if {taken}:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    take_interrupt()
names = {{"raise_signal": signal.raise_signal}}
exec(compile("def cb(reference): raise_signal(2)", "<frozen importlib._bootstrap>", "exec"), names)

def leave(lock):
    reference = weakref.ref(lock.pop(), names["cb"])
    return 1

try:
    leave([set()])
except KeyboardInterrupt:
    print("interrupted", sys.gettrace())
else:
    print("lost")
"""


def run(taken: bool) -> "tuple[str, str]":
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(taken=taken)], capture_output=True, text=True)
    return done.stdout.strip(), done.stderr.strip()


def test_an_interruption_of_an_import_is_not_forgotten() -> None:
    assert run(taken=True) == ("interrupted None", "")


def test_by_default_it_is() -> None:
    """What the test above would miss if CPython did not forget."""
    out, error = run(taken=False)
    assert out == "lost"
    assert "KeyboardInterrupt" in error


WITHDRAWN = """
import os
from runtime.engine.lifecycle import withdraw
from runtime.launch import sealed_init
first = sealed_init()
withdraw()
other = os.open("/dev/null", os.O_RDONLY)
while other < first:
    other = os.dup(other)
print(os.readlink(f"/proc/self/fd/{first}"), os.readlink(f"/proc/self/fd/{sealed_init()}"))
"""


def test_what_has_been_closed_is_not_executed() -> None:
    """An ordinary user's files are removed by a process of our own, for which `init` is started."""
    done = subprocess.run([sys.executable, "-I", "-c", WITHDRAWN], capture_output=True, text=True)
    assert done.stdout.split() == ["/dev/null", "/memfd:warren-init", "(deleted)"], done
