"""Compiles `init` and the launchers, writes the manual pages, and makes the wheel one for this architecture and every
Python 3.

Needs musl-gcc (musl-tools): `init` lives beside every container, and with glibc a static program takes thirty times
the memory.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHITECTURES = ("x86_64", "aarch64")
COMMANDS = ("warren", "warren-oci")
FLAGS = [
    "-static", "-Os", "-std=gnu11", "-Wall", "-Wextra", "-ffunction-sections", "-fdata-sections",
    "-fno-pie", "-no-pie", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-Wl,--gc-sections",
    "-Wl,-z,noseparate-code", "-s", "-flto",
    # Each page of `init` is one more beside every container: without these two it is 2 % smaller.
    "-fno-ipa-cp", "-fno-optimize-sibling-calls",
]  # fmt: skip


def compile_c(sources: list[Path], target: Path, *flags: str) -> None:
    """Compile a static program; SystemExit with one line where that is impossible."""
    for program, package in (("musl-gcc", "musl-tools"), ("gcc", "gcc")):
        if not shutil.which(program):
            raise SystemExit(f"warren: {program} is missing: install the package {package}")
    # musl-gcc hides the kernel's headers.
    headers = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{platform.machine()}-linux-gnu"]
    if subprocess.run(
        ["musl-gcc", *FLAGS, *flags, *headers, "-o", str(target), *map(str, sources)], check=False
    ).returncode:
        raise SystemExit(f"warren: {target.name} does not compile; are gcc, musl-tools and linux-libc-dev installed?")


def write_manual(root: Path, target: Path) -> list[Path]:
    """The manual pages, from the definitions of the commands."""
    subprocess.run([sys.executable, "-B", str(root / "tools/man_pages.py"), str(target)], check=True)
    return sorted(target.iterdir())


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        machine = platform.machine()
        if machine not in ARCHITECTURES:
            raise SystemExit(f"warren: {machine} is not supported, only {' and '.join(ARCHITECTURES)}")
        root = Path(self.root)
        # Outside the tree, which may be read-only; removed with the hook.
        self.scratch = tempfile.TemporaryDirectory(prefix="warren-build-")
        build = Path(self.scratch.name)
        compile_c(sorted(root.glob("runtime/init/*.c")), build / "init")
        compile_c(sorted(root.glob("runtime/init/*.c")), build / "init-guest", "-DWARREN_GUEST")
        compile_c([root / "launcher/launcher.c"], build / "launcher")
        compile_c(sorted(root.glob("runtime/probe/*.c")), build / "probe")
        for name in ("init", "init-guest"):
            build_data["force_include"][str(build / name)] = f"runtime/init/{name}"
        build_data["force_include"][str(build / "probe")] = "runtime/probe/probe"
        for name in COMMANDS:
            shutil.copy2(build / "launcher", build / name)
            build_data["shared_scripts"][str(build / name)] = name
        for path in write_manual(root, build / "man"):
            build_data["shared_data"][str(path)] = f"share/man/man{path.suffix[1:]}/{path.name}"
        build_data["pure_python"] = False
        # The static programs ask nothing of the C library that is there: both families of Linux take the wheel.
        build_data["tag"] = f"py3-none-manylinux2014_{machine}.musllinux_1_1_{machine}"
