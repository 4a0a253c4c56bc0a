"""Nothing of a program's containers outlives the program: a process of a few pages clears up after one that is killed.

    python ──posix_spawn──> init ──fork──> guardian   in a session of its own, nobody's child; polls a pidfd of ours
                             └─ ends                  and, if we end without a farewell, becomes python for a sweep

A container of the library ends with its program by itself; this is for what the kernel does not take away with it:
cgroups, state, leases.  There is one guardian for each process, from its first container on.
"""

import atexit
import posix
import sys
import time

from ..launch import Options, send_off
from ..steps import FIRST_SLOT, LaunchPlan
from ..syscalls import wait
from .lifecycle import event_environment, sweep

_guarded = 0
_farewell = -1
_AGAIN = 0.3
"""Seconds; what was being made or removed when the program was killed is let go of by then."""


def guard() -> None:
    """Have one for this process; cheap from the second time on."""
    global _guarded, _farewell
    pid = posix.getpid()
    if _guarded == pid:
        return
    _guarded = pid
    reader, writer = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    own = posix.pidfd_open(pid)
    try:
        plan = LaunchPlan()
        plan.add("guard", FIRST_SLOT, FIRST_SLOT + 1)
        plan.add("exec", _argv(), event_environment(), 0)
        wait(send_off(plan, {FIRST_SLOT: own, FIRST_SLOT + 1: reader}, Options(stdio=(null, null, null))))
    except BaseException:
        posix.close(writer)
        _guarded = 0
        raise
    finally:
        for fd in (reader, null, own):
            posix.close(fd)
    _farewell = writer


def _argv() -> "list[str]":
    site = __file__.rpartition("/runtime/")[0]
    code = "import sys;sys.path.insert(0,sys.argv.pop(1));from runtime.engine.guardian import clear_up;clear_up()"
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, site]


def clear_up() -> None:
    """The sweep of the next command, right now; what is in use by others is left to them."""
    for pause in (_AGAIN, 0):
        try:
            sweep()
        except Exception:
            pass  # The next command finds what is left.
        time.sleep(pause)
    try:
        from .verbs import sweep_networks

        sweep_networks()
    except Exception:
        pass


def _forked() -> None:
    """The child is another program, with a guardian of its own from its first container on."""
    global _guarded, _farewell
    _guarded = 0
    if _farewell >= 0:
        posix.close(_farewell)
        _farewell = -1


def _at_exit() -> None:
    """Every container has been left in an orderly way: nothing is to be done."""
    if _farewell >= 0 and _guarded == posix.getpid():
        try:
            posix.write(_farewell, b"d")
        except OSError:
            pass


posix.register_at_fork(after_in_child=_forked)
atexit.register(_at_exit)
