"""Compiles the small C programs beside this file."""

import os
import subprocess
from pathlib import Path

from .commands import FailedError
from .runtimes import need

STATIC = ["-static", "-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
SOURCES = Path(__file__).parent


def compile_all(directory: Path) -> tuple[Path, Path, Path]:
    """The floor, the peak meter, and the stub to preload."""
    floor = _compile("musl-gcc", directory / "floor", "floor.c", *STATIC)
    peak = _compile("musl-gcc", directory / "peak", "peak.c", *STATIC)
    return floor, peak, _compile("gcc", directory / "rlimit.so", "rlimit.c", "-shared", "-fPIC")


def compile_first(rootfs: Path) -> None:
    """What tells when it began, as /bin/first."""
    _compile("musl-gcc", rootfs / "bin/first", "first.c", *STATIC)


def _compile(compiler: str, target: Path, source: str, *flags: str) -> Path:
    command = [need(compiler), "-O2", "-Wall", "-Wextra", *flags, "-o", str(target), str(SOURCES / source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(done.stderr)
    return target
