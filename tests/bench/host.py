"""The place where everything is measured: a mount namespace, a cgroup and a directory of the benchmark's own.

Whatever the runtimes keep below /run goes to a tmpfs that ends with the namespace; cgroups are visible on the whole
host, so they are all below one, which is removed.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

CGROUPS = Path("/sys/fs/cgroup")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def mount_namespace() -> str:
    return os.readlink("/proc/self/ns/mnt")


def enter_namespace(arguments: list[str]) -> NoReturn:
    """Execute this program again in a private mount namespace, telling it which one it must not be in."""
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", __package__]
    os.execvp(words[0], [*words, "--outside", mount_namespace(), *arguments])


class Host:
    """A context; on leaving it, however that happens, nothing of it is left."""

    def __init__(self, outside: str) -> None:
        if mount_namespace() == outside:
            raise RuntimeError("still in the host's mount namespace: refusing to touch its mounts")
        self.cgroup = CGROUPS / f"warren-bench-{os.getpid()}"

    def __enter__(self) -> "Host":
        for number in SIGNALS:
            signal.signal(number, _leave)
        _mount_cgroup2()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
        # As an engine's shim does: what `create` leaves running becomes our child.
        ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
        self._controllers = _controllers()
        self.directory = Path(tempfile.mkdtemp(prefix="warren-bench-"))
        self.directory.chmod(0o755)
        self.cgroup.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _remove_cgroup(self.cgroup)
        for name in _controllers() - self._controllers:
            with contextlib.suppress(OSError):
                (CGROUPS / "cgroup.subtree_control").write_text(f"-{name}")
        shutil.rmtree(self.directory)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _mount_cgroup2() -> None:
    """A hybrid host has v1 hierarchies where crun expects v2: in this namespace, and only here, it is v2."""
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    types = [after.split()[0] for before, after in mounts if before.split()[4] == str(CGROUPS)]
    if types and types[-1] == "cgroup2":
        return
    if types:
        subprocess.run(["umount", "-l", CGROUPS], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", CGROUPS], check=True)


def _controllers() -> set[str]:
    """Those that the host's root cgroup hands down; runc and crun turn on what they find."""
    return set((CGROUPS / "cgroup.subtree_control").read_text().split())


def _remove_cgroup(cgroup: Path) -> None:
    """Kill what is in it, and remove it from the leaves up."""
    with contextlib.suppress(OSError):
        (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 10
    while cgroup.exists():
        reap_orphans()
        for path, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if time.monotonic() > deadline:
            print(f"bench: cannot remove {cgroup}", file=sys.stderr)
            return
        time.sleep(0.01)


def reap_orphans() -> None:
    """Children that nobody waits for by their pid: what a command left to us, its sub-reaper."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
