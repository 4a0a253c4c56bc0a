"""`import runtime`: containers from any Python process, also a threaded one."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import runtime


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_output_and_exit_code() -> None:
    done = runtime.run("host", ["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_bytes_without_text_and_none_without_pipe() -> None:
    done = runtime.run("host", ["echo", "x"], stdout=runtime.PIPE)
    assert (done.stdout, done.stderr) == (b"x\n", None)


def test_input_larger_than_a_pipe_comes_back() -> None:
    data = os.urandom(1 << 20)
    assert runtime.run("host", ["cat"], input=data, capture_output=True).stdout == data


def test_input_that_nobody_reads() -> None:
    assert runtime.run("host", ["true"], input=b"x" * (1 << 20)).returncode == 0


def test_streams_are_subprocesss(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        runtime.run("host", ["sh", "-c", "echo a; echo b >&2"], stdout=file, stderr=runtime.STDOUT)
    assert (tmp_path / "out").read_text() == "a\nb\n"
    assert runtime.run("host", ["cat"], stdin=runtime.DEVNULL, capture_output=True).stdout == b""


def test_env_cwd_user_hostname() -> None:
    script = "echo $NAME; pwd; id -u; hostname"
    done = runtime.run("host", ["sh", "-c", script], env={"NAME": "x"}, cwd="/usr", user=1000, hostname="burrow",
                       capture_output=True, text=True)  # fmt: skip
    assert done.stdout.split() == ["x", "/usr", "1000", "burrow"]


def test_mounts(directory: Path) -> None:
    (directory / "file").write_text("data")
    done = runtime.run("host", ["cat", "/mnt/file"], mounts=[f"{directory}:/mnt:ro"], capture_output=True, text=True)
    assert done.stdout == "data"


def test_check_and_timeout() -> None:
    with pytest.raises(runtime.ProcessError) as failed:
        runtime.run("host", ["false"], check=True)
    assert failed.value.result.returncode == 1  # type: ignore[attr-defined]
    began = time.monotonic()
    with pytest.raises(runtime.TimeoutExpiredError):
        runtime.run("host", ["sleep", "60"], timeout=0.3)
    assert time.monotonic() - began < 10


def test_errors_say_what_failed(directory: Path) -> None:
    with pytest.raises(runtime.CommandNotFoundError):
        runtime.run("host", ["no-such-command"])
    with pytest.raises(runtime.CommandNotExecutableError):
        runtime.run("host", ["/etc/passwd"])
    with pytest.raises(runtime.UsageError):
        runtime.run("no-such-image", ["true"])
    with pytest.raises(runtime.LaunchError) as failed:
        runtime.run("host", ["true"], cwd="/etc/passwd")
    assert failed.value.step is not None
    assert failed.value.step.op == "chdir"


def test_from_many_threads_at_once() -> None:
    runtime.run("host", ["true"])
    before = descriptors()

    def one(number: int) -> str:
        return str(runtime.run("host", ["echo", str(number)], capture_output=True, text=True).stdout)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(32))) == [f"{number}\n" for number in range(32)]
    assert descriptors() == before


def test_a_container_dies_with_its_thread_and_not_before() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(runtime.run("host", ["sleep", "0.3"]).returncode))
    thread.start()
    thread.join()
    assert results == [0]


def test_after_fork() -> None:
    runtime.run("host", ["true"])
    pid = os.fork()
    if not pid:
        os._exit(runtime.run("host", ["sh", "-c", "exit 9"]).returncode)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_the_callers_signal_handlers_stay() -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    runtime.run("host", ["true"])
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_a_killed_program_takes_its_container_along(directory: Path) -> None:
    """The container's init gets SIGKILL with the launching thread; the next launch removes what else is left."""
    command = ["sh", "-c", "echo up > /mnt/up; exec sleep 1000"]
    script = f"import runtime; runtime.run('host', {command}, mounts=['{directory}:/mnt'])"
    process = subprocess.Popen([sys.executable, "-c", script], cwd="/")
    while not (directory / "up").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    runtime.run("host", ["true"])


def test_a_container_from_the_library(bundle: object, token: str) -> None:
    from tests.helpers.oci import Bundle

    assert isinstance(bundle, Bundle)
    bundle.save()
    container = runtime.Container(f"wrn-{token}-library", runtime.default_root())
    pid = container.create(runtime.Bundle.load(str(bundle.path)), runtime.Options())
    try:
        assert container.state()["status"] == "created"
        container.start()
        assert container.state()["status"] == "running"
        assert container.processes() == [pid]
        process = container.exec_defaults() | {"args": ["/bin/probe", "exit", "4"]}
        assert os.waitstatus_to_exitcode(os.waitpid(container.exec(process, runtime.Options()), 0)[1]) == 4
    finally:
        container.delete(force=True)
        os.waitpid(pid, 0)
    with pytest.raises(runtime.NotFoundError):
        container.state()


def test_every_public_name_can_be_had() -> None:
    for name in runtime.__all__:
        assert getattr(runtime, name) is not None
    with pytest.raises(AttributeError):
        runtime.no_such_name  # noqa: B018
