"""What mypy --strict makes of a program that uses the library as it is installed."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """\
from pathlib import Path
from typing import assert_type

import runtime
from runtime.pytest_plugin import cannot_see, denied, limited

done = runtime.run("busybox", ["true"], capture_output=True, memory="64m", cpus=0.5, env={"A": "b"}, cwd=Path("/"))
assert_type(done, runtime.Result)
assert_type(done.returncode, int)
assert_type(done.usage.cpu, float)
assert_type(done.enforced, dict[str, str])
runtime.run("busybox", ["true"], memori="64m")  # type: ignore[call-arg]
runtime.run("busybox", ["true"], memory=1.5)  # type: ignore[arg-type]

with runtime.container(
    "busybox", ["httpd"], publish=[80], wait=runtime.wait.tcp(80) & runtime.wait.log("x") | runtime.wait.healthy()
) as web:
    assert_type(web, runtime.RunningContainer)
    assert_type(web.addr(80), tuple[str, int])
    assert_type(web.exec(["id"], input=b"x"), runtime.Result)
    assert_type(web.fs.read("/x"), bytes)
    with web.popen(["cat"], stdin=runtime.PIPE) as process:
        assert_type(process, runtime.Process)
        assert_type(process.wait(timeout=3), int)
    web.put  # type: ignore[attr-defined]
    container: runtime.RunningContainer = web
    limited(cpus=0.5, container=container)
runtime.container("busybox", publik=[80])  # type: ignore[call-arg]
runtime.container("busybox", publish=80)  # type: ignore[arg-type]

with runtime.sandbox("busybox", pool=2, memory="64m") as box:
    assert_type(box.run(["id"], text=True), runtime.Result)
    box.run(["id"], memory="64m")  # type: ignore[call-arg]


async def main() -> None:
    assert_type(await runtime.aio.run("busybox", ["id"], text=True), runtime.Result)
    await runtime.aio.run("busybox", ["id"], memori="64m")  # type: ignore[call-arg]
    async with runtime.aio.container("busybox", publish=[80]) as one:
        assert_type(await one.exec(["id"]), runtime.Result)
        assert_type(await one.logs(tail=3), bytes)
        assert_type(await one.fs.read("/x"), bytes)
        await one.exec(["id"], memory=3)  # type: ignore[call-arg]
    async with runtime.aio.sandbox("busybox", pool=2) as many:
        assert_type(await many.run(["id"]), runtime.Result)


try:
    denied("mount", container="name")
    cannot_see(path="/x", network=("1.2.3.4", 80))
except runtime.TimeoutExpiredError as error:
    assert_type(error.hint, str)
    print(error.result.stdout)
except runtime.ProcessError as error:
    print(error.result.returncode, error.exit_code)
assert_type(runtime.audit("host").grade, str)
assert_type([image.id for image in runtime.list_images()], list[str])
"""


def check(path: Path) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(path.parent / "cache"), path.name]
    return subprocess.run(command, cwd=path.parent, env=env, capture_output=True, text=True)


def test_a_program_that_uses_the_library_is_typed(tmp_path: Path) -> None:
    """What is wrong in it is expected to be found: `--strict` complains of an `ignore` that nothing needs."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = check(program)
    assert done.returncode == 0, done.stdout
