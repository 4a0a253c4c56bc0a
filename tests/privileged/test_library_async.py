"""runtime.aio, on asyncio and on trio: the same as the library, and what is cancelled is killed and gone."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import runtime
from runtime import aio, wait
from tests.helpers.daemons import make_image
from tests.helpers.registry import Answer, Proxy, Registry, skopeo
from tests.helpers.rooms import own_store

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> Run:
    return lambda function: anyio.run(function, backend=request.param)


def test_run(loop: Run) -> None:
    async def main() -> None:
        done = await aio.run(
            "host", ["sh", "-c", "cat; echo err >&2; exit 3"], input="in\n", text=True, capture_output=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, "in\n", "err\n")
        assert done.usage.wall > 0
        data = os.urandom(1 << 20)
        assert (await aio.run("host", ["cat"], input=data, capture_output=True)).stdout == data
        assert (await aio.run("host", ["true"], input=data)).returncode == 0
        done = await aio.run("host", ["head", "-c", "100000", "/dev/zero"], capture_output=True, output_limit=10)
        assert (len(done.stdout), done.truncated) == (10, True)
        with pytest.raises(runtime.ProcessError):
            await aio.run("host", ["false"], check=True)
        with pytest.raises(runtime.CommandNotFoundError):
            await aio.run("host", ["no-such"])
        with pytest.raises(TypeError):
            await aio.run("host", ["true"], no_such_option=1)  # type: ignore[call-arg]

    loop(main)


def test_a_time_limit(loop: Run) -> None:
    async def main() -> None:
        with pytest.raises(runtime.TimeoutExpiredError) as late:
            await aio.run("host", ["sh", "-c", "echo begun; exec sleep 600"], capture_output=True, timeout=1)
        assert late.value.result.stdout == b"begun\n"  # type: ignore[attr-defined]

    loop(main)


def test_the_loop_goes_on_meanwhile(loop: Run) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            await aio.run("host", ["sleep", "1"])
            tasks.cancel_scope.cancel()
        assert ticks > 10

    loop(main)


def test_what_is_cancelled_is_killed_and_gone(loop: Run, directory: Path) -> None:
    """At whatever moment: before the launch, in it, and while it runs."""

    async def main() -> None:
        for moment in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.3):
            mounts = [f"{directory}:/mnt"]
            with anyio.move_on_after(moment) as scope:
                await aio.run("host", ["sh", "-c", "echo >/mnt/up; exec sleep 600"], mounts=mounts, capture_output=True)
            assert scope.cancelled_caught
        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(lambda: aio.run("host", ["sleep", "600"]))
                await anyio.sleep(0.3)
                tasks.cancel_scope.cancel()
        assert not scope.cancelled_caught

    descriptors = len(os.listdir("/proc/self/fd"))
    loop(main)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_container(loop: Run, directory: Path) -> None:
    async def main() -> Path:
        script = "echo up; exec sleep 600"
        async with aio.container("host", ["sh", "-c", script], wait=wait.log("up"), labels={"a": "b"}) as box:
            done = await box.exec(["sh", "-c", "cat; exit 4"], input=b"x" * 300000, capture_output=True)
            assert (done.returncode, len(done.stdout)) == (4, 300000)
            await box.fs.write("/root/f", "1")
            assert await box.fs.read("/root/f") == b"1"
            assert await box.logs() == b"up\n"
            assert (await box.inspect())["Config"]["Labels"]["a"] == "b"
            assert (await box.stats()).pids.current >= 1  # type: ignore[union-attr]
            await box.pause()
            assert box.status == "paused"
            await box.unpause()
            async with await box.popen(["sh", "-c", "exit 5"]) as process:
                assert await process.wait() == 5
            with anyio.move_on_after(0.3) as scope:
                await box.exec(["sleep", "1000"])
            assert scope.cancelled_caught
            assert (
                b"sleep\x001000"
                not in (await box.exec(["sh", "-c", "cat /proc/*/cmdline"], capture_output=True)).stdout
            )
            with pytest.raises(runtime.TimeoutExpiredError):
                await box.exec(["sleep", "600"], timeout=0.2)
            with pytest.raises(runtime.TimeoutExpiredError):
                await box.wait(0.1)
            with pytest.raises(runtime.TimeoutExpiredError):
                await box.wait_for(wait.log("never"), timeout=0.1)
            await box.kill()
            assert await box.wait() == 137
            return Path(box.sync.record.path)

    assert not loop(main).exists()


def test_everything_of_a_container_can_be_awaited() -> None:
    of_threads = {name for name in dir(runtime.RunningContainer) if name[0] != "_"}
    assert of_threads - set(dir(runtime.aio.AsyncContainer)) == {"discard", "let_go", "not_ended"}


def test_logs_are_followed(loop: Run) -> None:
    async def main() -> None:
        script = "for n in 1 2 3; do echo $n; sleep 0.1; done"
        async with runtime.aio.container("host", ["sh", "-c", script]) as box:
            assert [line async for line in box.follow_logs()] == [b"1\n", b"2\n", b"3\n"]
            assert "pids.limit" in box.enforced
            await box.close()
        async with runtime.aio.container("host", ["sleep", "600"]) as box:
            assert box.pid > 0
            with anyio.move_on_after(0.2) as limited:
                _ = [line async for line in box.follow_logs()]
            assert limited.cancelled_caught

    loop(main)


def test_a_cancelled_scope_removes_its_container(loop: Run) -> None:
    async def main() -> None:
        for moment in (0.0, 0.01, 0.05, 0.2):
            paths: list[str] = []
            with anyio.move_on_after(moment):
                async with aio.container("host") as box:
                    paths.append(box.sync.record.path)
                    await anyio.sleep(600)
            assert not any(os.path.exists(path) for path in paths)

    loop(main)


@pytest.mark.parametrize("pool", [0, 2])
def test_sandbox(loop: Run, pool: int) -> None:
    async def main() -> None:
        async with aio.sandbox("host", pool=pool, timeout=20) as box:
            found: list[str] = []

            async def work(number: int) -> None:
                found.append((await box.run(["echo", str(number)], text=True)).stdout)

            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(work, number)
            assert sorted(found) == [f"{number}\n" for number in range(8)]
            began = time.monotonic()
            with anyio.move_on_after(0.3):
                await box.run(["sleep", "600"])
            with pytest.raises(runtime.TimeoutExpiredError):
                await box.run(["sleep", "600"], timeout=0.2)
            assert time.monotonic() - began < 15
            with pytest.raises(runtime.CommandNotFoundError):
                await box.run(["no-such"])

    loop(main)


# It is done with the image while the test lets its layers come, after a launch of each other kind.
WITH_AN_IMAGE = """
import sys, anyio
from runtime import aio

async def main():
    async with aio.sandbox(sys.argv[2], pull=sys.argv[3]) as box, aio.sandbox("host") as other:
        async def first():
            print("first", (await box.run(["echo", "up"], text=True)).stdout.strip(), flush=True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            assert (await other.run(["true"])).returncode == 0
            assert (await aio.run("host", ["true"])).returncode == 0
            print("others", flush=True)
        print("again", (await box.run(["echo", "up"], text=True)).stdout.strip(), flush=True)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("policy", ["missing", "always"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_others_are_launched_while_a_sandboxs_image_is_pulled(directory: Path, backend: str, policy: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold_back(answer: Answer) -> None:
        if answer.is_blob and not go_on.is_set():
            begun.set()
            go_on.wait(20)

    with Registry(directory / "registry") as registry, Proxy(registry.host) as proxy, own_store() as (_, prefix):
        archive = make_image(directory / "burrow.tar")
        skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{registry.host}/den/burrow:1")
        proxy.change = hold_back
        command = [*prefix, sys.executable, "-c", WITH_AN_IMAGE, backend, f"{proxy.host}/den/burrow:1", policy]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as program:  # type: ignore[call-overload]
            assert begun.wait(20)
            program.stdin.write("\n")
            program.stdin.flush()
            said = [program.stdout.readline()]
            go_on.set()
            said += program.stdout
        assert said == ["others\n", "first up\n", "again up\n"]
        assert program.returncode == 0
        manifests = [path for path in proxy.asked if "/manifests/1" in path]
        assert (len(manifests) > 1) == (policy == "always")
