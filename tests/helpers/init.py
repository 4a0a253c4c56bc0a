"""The real `init` on plans made by hand: compiled here, started here, its sync socket in our hand."""

import os
import platform
import shutil
import socket
import subprocess
from pathlib import Path

from runtime import steps
from runtime.steps import LaunchPlan

SOURCES = sorted((Path(__file__).parents[2] / "runtime/init").glob("*.c"))
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]
HEADERS = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{platform.machine()}-linux-gnu"]
# hatch_build.py's, without which a program is half as large again.
SMALL = [
    "-static", "-Os", "-s", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-Wl,-z,noseparate-code",
    "-fno-pie", "-no-pie", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-flto",
]  # fmt: skip
SECONDS = 20
"""Nothing here takes a second; what takes this long hangs."""


def compile_init(target: Path, *command: str) -> Path | None:
    done = subprocess.run([*command, *FLAGS, "-o", target, *SOURCES], capture_output=True, text=True)
    return target if done.returncode == 0 else None


def compile_small(target: Path) -> Path:
    """As it is installed, or nearly so."""
    if shutil.which("musl-gcc"):
        found = compile_init(target, "musl-gcc", *SMALL, *HEADERS)
    else:
        found = compile_init(target, "gcc", "-static", "-Os")
    assert found, "init does not compile"
    return found


def compile_checked(target: Path) -> Path | None:
    """With the sanitizers where the compiler has them: an overrun ends in their report, not in luck."""
    return compile_init(target, "gcc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Launched:
    """A running `init` and our end of its sync socket."""

    def __init__(self, process: "subprocess.Popen[bytes]", sock: socket.socket) -> None:
        self.process = process
        self.sock = sock

    def receive(self) -> tuple[int, int, int, str] | None:
        """Kind, step, value and text of the next message; None at the end."""
        data = self.sock.recv(steps.MAX_MESSAGE)
        if not data:
            return None
        return (*steps.MESSAGE.unpack_from(data), data[steps.MESSAGE.size :].decode())

    def answer(self, text: str = "", kind: int = steps.OK) -> None:
        self.sock.send(steps.MESSAGE.pack(kind, 0, 0) + text.encode())

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out.decode(), err.decode()


def spawn(binary: Path, plan: bytes, fds: tuple[int, ...] = (), terminal: int = -1) -> "subprocess.Popen[bytes]":
    """With pipes, or a terminal, as its output."""
    fd = memfd(plan)
    try:
        return subprocess.Popen(
            [binary, str(fd)],
            pass_fds=(fd, *fds),
            stdin=subprocess.DEVNULL if terminal < 0 else terminal,
            stdout=subprocess.PIPE if terminal < 0 else terminal,
            stderr=subprocess.PIPE,
            env={"ASAN_OPTIONS": "detect_leaks=0:exitcode=99", "UBSAN_OPTIONS": "exitcode=99"},
        )
    finally:
        os.close(fd)


def memfd(data: bytes) -> int:
    fd = os.memfd_create("plan")
    os.write(fd, data)
    return fd


def plan_of(*lines: tuple[object, ...]) -> LaunchPlan:
    plan = LaunchPlan()
    for op, *args in lines:
        plan.add(str(op), *args)  # type: ignore[arg-type]
    return plan


def run_sh(script: str, env: tuple[str, ...] = ("PATH=/usr/bin:/bin",)) -> tuple[object, ...]:
    return ("exec", ["/bin/sh", "-c", script], list(env), 0)
