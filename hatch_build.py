"""Compiles `init` and the launchers, and makes the wheel one for this architecture and every Python 3.

Needs musl-gcc (musl-tools): `init` lives beside every container, and glibc makes static programs thirty times as large.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = [
    "-static", "-Os", "-std=gnu11", "-Wall", "-Wextra", "-ffunction-sections", "-fdata-sections",
    "-fno-pie", "-no-pie", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-Wl,--gc-sections",
    "-Wl,-z,noseparate-code", "-s",
]  # fmt: skip


def compile_c(sources: list[Path], target: Path) -> None:
    """Compile a static program; SystemExit with one line where the compiler is missing."""
    compiler = shutil.which("musl-gcc")
    if not compiler:
        raise SystemExit("warren: musl-gcc is missing: install the package musl-tools (and gcc, linux-libc-dev)")
    # musl-gcc hides the kernel's headers.
    headers = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{platform.machine()}-linux-gnu"]
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, *FLAGS, *headers, "-o", str(target), *map(str, sources)], check=True)


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        build = root / "build"
        compile_c(sorted(root.glob("runtime/init/*.c")), build / "init")
        compile_c([root / "launcher/launcher.c"], build / "warren")
        shutil.copy2(build / "warren", build / "warren-oci")
        build_data["force_include"][str(build / "init")] = "runtime/init/init"
        for name in ("warren", "warren-oci"):
            build_data["shared_scripts"][str(build / name)] = name
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{os.uname().machine}"
