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


REOPENED = "echo o >/dev/stdout; echo e >/dev/stderr; echo f >/proc/self/fd/2; read in </dev/stdin; echo $in"
WHOSE = "stat -L -c %u /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2"


@pytest.mark.parametrize("userns", ["", "host"])
@pytest.mark.parametrize("user", [None, 1000])
def test_its_streams_can_be_opened_again(user: int | None, userns: str) -> None:
    done = runtime.run("host", ["sh", "-c", REOPENED], input="i\n", text=True, capture_output=True, user=user,
                       userns=userns)  # fmt: skip
    assert (done.stdout, done.stderr) == ("o\ni\n", "e\nf\n")
    done = runtime.run("host", ["sh", "-c", WHOSE], input="", text=True, capture_output=True, user=user, userns=userns)
    assert done.stdout.split() == [str(user or 0)] * 3


def test_the_callers_own_pipes_stay_his() -> None:
    reader, writer = os.pipe()
    try:
        done = runtime.run("host", ["sh", "-c", "echo x >/dev/stderr"], stdout=writer, stderr=runtime.PIPE, text=True)
        assert done.stderr == "x\n"
        assert os.fstat(writer).st_uid == os.geteuid()
    finally:
        os.close(reader)
        os.close(writer)


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


def test_errors_have_subprocesss_fields() -> None:
    with pytest.raises(runtime.ProcessError) as failed:
        runtime.run("host", ["sh", "-c", "echo o; echo e >&2; exit 3"], capture_output=True, text=True, check=True)
    error = failed.value
    assert (error.returncode, error.stdout, error.output, error.stderr, error.cmd[0]) == (3, "o\n", "o\n", "e\n", "sh")
    with pytest.raises(runtime.TimeoutExpiredError) as late:
        runtime.run("host", ["sh", "-c", "echo o; sleep 60"], stdout=runtime.PIPE, timeout=0.3)
    assert (late.value.timeout, late.value.stdout, late.value.stderr, late.value.cmd[0]) == (0.3, b"o\n", None, "sh")


def test_errors_say_what_failed(directory: Path) -> None:
    with pytest.raises(runtime.CommandNotFoundError):
        runtime.run("host", ["no-such-command"])
    with pytest.raises(runtime.CommandNotExecutableError):
        runtime.run("host", ["/etc/passwd"])
    with pytest.raises(runtime.UsageError):
        runtime.run("No Image", ["true"])
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


def test_no_descriptor_stays_open_whatever_happens(directory: Path) -> None:
    """Success, failure at each stage, a time-out and streams of every kind."""
    runs: list[tuple[type[Exception] | None, dict[str, object]]] = [
        (None, {"capture_output": True, "input": b"x"}),
        (None, {"stdout": runtime.DEVNULL, "stderr": runtime.STDOUT, "stdin": runtime.DEVNULL}),
        (runtime.ProcessError, {"argv": ["false"], "check": True, "capture_output": True}),
        (runtime.CommandNotFoundError, {"argv": ["no-such-command"], "capture_output": True, "input": b"x"}),
        (runtime.CommandNotExecutableError, {"argv": ["/etc/passwd"], "capture_output": True}),
        (runtime.LaunchError, {"cwd": "/etc/passwd", "capture_output": True}),
        (runtime.WarrenError, {"mounts": ["/no/such/source:/mnt:bad-option"], "capture_output": True}),
        (runtime.UsageError, {"user": "no-such-user", "capture_output": True}),
        (runtime.UsageError, {"stdout": runtime.STDOUT, "stdin": runtime.PIPE, "capture_output": False}),
        (runtime.TimeoutExpiredError, {"argv": ["sleep", "60"], "timeout": 0.2, "capture_output": True}),
    ]
    runtime.run("host", ["true"])
    before = descriptors()
    for error, options in runs:
        argv = options.pop("argv", ["true"])
        if error is None:
            runtime.run("host", argv, **options)  # type: ignore[arg-type]
        else:
            with pytest.raises(error):
                runtime.run("host", argv, **options)  # type: ignore[arg-type]
        assert descriptors() == before, options
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_result_is_completed_processs() -> None:
    done = runtime.run("host", ("sh", "-c", "exit 4"))
    assert (done.args, done.returncode, done.stdout, done.stderr) == (["sh", "-c", "exit 4"], 4, None, None)
    assert isinstance(done.enforced, dict)
    assert repr(done) == "Result(args=['sh', '-c', 'exit 4'], returncode=4, stdout=None, stderr=None)"
    with pytest.raises(runtime.ProcessError, match="exit code 4"):
        done.check_returncode()
    runtime.run("host", ["true"]).check_returncode()


def test_a_signal_is_128_and_its_number() -> None:
    """Unlike subprocess's negative number: what a shell and docker say (RULES 26)."""
    assert runtime.run("host", ["sh", "-c", "sh -c 'kill -TERM $$'"]).returncode == 143


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"text": True}, "\xe4\n\n"),
        ({"encoding": "utf-8"}, "\xe4\n\n"),
        ({"encoding": "latin-1"}, "\xc3\xa4\n\n"),
        ({"encoding": "ascii", "errors": "replace"}, "\ufffd\ufffd\n\n"),
        ({}, b"\xc3\xa4\r\n\n"),
    ],
)
def test_text_is_subprocesss(options: dict[str, object], expected: "str | bytes") -> None:
    script = r"printf '\303\244\r\n\n'"
    assert runtime.run("host", ["sh", "-c", script], capture_output=True, **options).stdout == expected  # type: ignore[arg-type]
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, **options)  # type: ignore[call-overload]
    assert done.stdout == expected


def test_text_goes_in_as_it_comes_out() -> None:
    done = runtime.run("host", ["cat"], input="a\u4e16\n", text=True, stdout=runtime.PIPE)
    assert (done.stdout, done.stderr) == ("a\u4e16\n", None)


def test_two_streams_that_are_both_full_do_not_wait_for_each_other() -> None:
    script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; cat | wc -c"
    done = runtime.run("host", ["sh", "-c", script], input=b"x" * 1000000, capture_output=True, timeout=60)
    assert (len(done.stderr), done.stdout[1000000:].split()) == (1000000, [b"1000000"])


def test_an_orphan_that_holds_the_pipe_does_not_keep_us() -> None:
    """With process 1 its pid namespace ends, and the pipes with it."""
    began = time.monotonic()
    done = runtime.run("host", ["sh", "-c", "sleep 1000 & echo done"], capture_output=True, text=True)
    assert done.stdout == "done\n"
    assert time.monotonic() - began < 10


def test_a_time_limit_holds_though_it_never_stops_talking() -> None:
    began = time.monotonic()
    with pytest.raises(runtime.TimeoutExpiredError):
        runtime.run("host", ["head", "-c", "100000000000", "/dev/zero"], stdout=runtime.DEVNULL, timeout=0.5)
    with pytest.raises(runtime.TimeoutExpiredError):
        runtime.run("host", ["sh", "-c", "while :; do echo x; sleep 0.01; done"], capture_output=True, timeout=0.5)
    assert time.monotonic() - began < 20


def test_descriptors_of_the_program_are_not_the_containers() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        done = runtime.run("host", ["sh", "-c", "ls /proc/self/fd"], capture_output=True, text=True)
    finally:
        os.close(reader)
        os.close(writer)
    assert len(done.stdout.split()) <= 4  # The fourth is ls's own.
    assert str(writer) not in done.stdout.split()[3:]


def test_the_environment_of_the_program_is_not_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARREN_TEST_SECRET", "leaked")
    done = runtime.run("host", ["env"], env={"A": "1=2", "EMPTY": ""}, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert {"A=1=2", "EMPTY="} <= set(lines)
    assert "leaked" not in done.stdout


def test_odd_words_arrive_as_they_are() -> None:
    words = ["", " ", "a b", "\u4e16", "$HOME", "-x", "--", "\n"]
    done = runtime.run("host", ["printf", r"%s\0", *words], capture_output=True)
    assert done.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"], ["true", "\0"], ["true", "\udcff"]])
def test_words_that_cannot_be_are_refused(argv: list[str]) -> None:
    with pytest.raises(runtime.WarrenError):
        runtime.run("host", argv)


def test_handlers_masks_and_wakeup_stay_the_programs() -> None:
    def handler(number: int, frame: object) -> None:
        seen.append(number)

    seen: list[int] = []
    old = signal.signal(signal.SIGCHLD, handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    try:
        assert runtime.run("host", ["sh", "-c", "exit 3"]).returncode == 3
        assert signal.getsignal(signal.SIGCHLD) is handler
        assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mask
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_a_program_that_ignores_sigchld_gets_the_exit_code_or_an_error() -> None:
    """The kernel reaps then (sigaction(2), SIG_IGN): the status is lost, but we must neither hang nor say 0."""
    script = (
        "import signal, runtime\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "try: code = runtime.run('host', ['sh', '-c', 'exit 3']).returncode\n"
        "except (runtime.WarrenError, ChildProcessError): code = 3\n"
        "raise SystemExit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, timeout=60
    )
    assert done.returncode == 3, done.stderr


def test_a_child_of_the_programs_own_stays_its_own() -> None:
    child = subprocess.Popen(["sh", "-c", "exit 5"])
    runtime.run("host", ["true"])
    assert child.wait() == 5


def test_a_signal_handler_that_raises_ends_the_container() -> None:
    """KeyboardInterrupt and the like: nothing goes on running behind the program's back (the leak check looks)."""

    def handler(number: int, frame: object) -> None:
        raise InterruptedError("now")

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    try:
        with pytest.raises(InterruptedError):
            runtime.run("host", ["sleep", "60"], capture_output=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_a_directory_is_a_root_and_stays_as_it_is(rootfs: Path) -> None:
    for image in (rootfs, str(rootfs)):
        done = runtime.run(image, ["/bin/probe", "write", "/data/new", "x", "--", "id"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "uid 0 0 0" in done.stdout
    assert not (rootfs / "data/new").exists()


def test_a_containers_whole_life_with_errors(bundle: object, token: str, directory: Path) -> None:
    from tests.helpers.oci import Bundle

    assert isinstance(bundle, Bundle)
    bundle.save()
    root = str(directory / "state")
    loaded = runtime.Bundle.load(str(bundle.path))
    container = runtime.Container(f"wrn-{token}-life", root)
    for verb in (container.start, container.state, container.delete, lambda: container.kill(9)):
        with pytest.raises(runtime.NotFoundError):
            verb()
    pid = container.create(loaded, runtime.Options())
    with pytest.raises(runtime.ExistsError):
        runtime.Container(container.id, root).create(loaded, runtime.Options())
    with pytest.raises(runtime.StateError):
        container.delete()
    assert [state["id"] for state in runtime.list_containers(root)] == [container.id]
    container.start()
    with pytest.raises(runtime.StateError):
        container.start()
    container.kill(9)
    os.waitpid(pid, 0)
    assert container.state()["status"] == "stopped"
    with pytest.raises(runtime.StateError, match="container not running"):
        container.kill(9)
    container.delete()
    container.delete(force=True)
    assert list(runtime.list_containers(root)) == []
    with pytest.raises(runtime.UsageError):
        runtime.Container("../x", root)


def in_a_program(script: str, result: Path) -> str:
    """What a program of its own writes to `result`; such programs play with their own standard streams."""
    code = f"import os, sys, runtime\nresult = {str(result)!r}\n" + script
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    return result.read_text() if result.exists() else f"failed: {done.stderr}"


def test_streams_that_change_places(directory: Path) -> None:
    """stdout=2, stderr=1: neither may be overwritten before it has been copied."""
    script = (
        "out, err = os.open(result, os.O_RDWR | os.O_CREAT), os.open(result + '.err', os.O_RDWR | os.O_CREAT)\n"
        "os.dup2(out, 1); os.dup2(err, 2)\n"
        "runtime.run('host', ['sh', '-c', 'echo to-out; echo to-err >&2'], stdout=2, stderr=1)\n"
    )
    assert in_a_program(script, directory / "result") == "to-err\n"
    assert (directory / "result.err").read_text() == "to-out\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_standard_streams_that_are_closed(directory: Path, closed: tuple[int, ...]) -> None:
    """The pipes that we open get the free numbers."""
    script = (
        f"for fd in {closed}: os.close(fd)\n"
        "done = runtime.run('host', ['sh', '-c', 'cat; echo err >&2; exit 3'], input=b'in', capture_output=True)\n"
        "open(result, 'w').write(repr((done.returncode, done.stdout, done.stderr)))\n"
    )
    assert in_a_program(script, directory / "result") == repr((3, b"in", b"err\n"))


def test_closed_streams_that_are_not_asked_for(directory: Path) -> None:
    script = (
        "for fd in (0, 1, 2): os.close(fd)\n"
        "code = runtime.run('host', ['sh', '-c', 'exit 3']).returncode\n"
        "open(result, 'w').write(str(code))\n"
    )
    assert in_a_program(script, directory / "result") == "3"


# ---- use and limits


def test_what_a_command_used() -> None:
    script = "import time; x = bytearray(40 << 20)\nwhile time.process_time() < 0.4: pass"
    done = runtime.run("host", ["/usr/bin/python3", "-c", script], memory="128m")
    assert 0.3 <= done.usage.cpu < 30
    assert done.usage.wall >= 0.3
    assert 40 << 20 <= done.usage.max_memory <= 128 << 20
    assert not done.usage.oom
    without = runtime.run("host", ["/usr/bin/python3", "-c", script])
    assert without.usage.max_memory >= 40 << 20, "without a limit too"


def test_what_was_killed_for_its_memory_says_so() -> None:
    done = runtime.run("host", ["/usr/bin/python3", "-c", "x = bytearray(200 << 20)"], memory="32m", memory_swap="32m")
    assert (done.returncode, done.usage.oom, done.oom_killed) == (137, True, True)


def test_limits_are_strict() -> None:
    """More processors than there are cannot be held."""
    for options in ({"strict": True}, {}):
        with pytest.raises(runtime.WarrenError):
            runtime.run("host", ["true"], cpus="1000000", **options)  # type: ignore[arg-type]
    done = runtime.run("host", ["true"], memory=64 << 20, cpus=0.5, pids=8)
    assert {"memory.limit", "cpu.quota", "pids.limit"} <= set(done.enforced)


def test_an_entry_point_and_output_with_an_end() -> None:
    done = runtime.run("host", ["x"], entrypoint="echo", capture_output=True)
    assert done.stdout == b"x\n"
    done = runtime.run("host", ["head", "-c", "5000", "/dev/zero"], capture_output=True, output_limit=100)
    assert (len(done.stdout), done.truncated) == (100, True)


def test_a_guardian_holds_nothing_of_the_programs(directory: Path) -> None:
    """Who reads a program's output to its end does not wait for its guardian."""
    script = "import os, runtime; runtime.run('host', ['true']); os.close(0); print('done', flush=True); os._exit(0)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n"
    assert time.monotonic() - began < 30


def test_volumes_of_a_run(directory: Path) -> None:
    """A volume that is named stays, one without a name goes with the run; what the host has is copied to neither."""
    from runtime.engine import volumes

    name = f"wrn-{directory.name}"
    before = {volume.name for volume in volumes.volumes()}
    try:
        script = "echo kept > /mnt/f; ls -A /etc"
        done = runtime.run(
            "host", ["sh", "-c", script], mounts=[f"{name}:/mnt", "/etc"], capture_output=True, text=True
        )
        assert done.stdout == ""
        done = runtime.run("host", ["cat", "/mnt/f"], mounts=[f"{name}:/mnt:ro"], capture_output=True, text=True)
        assert done.stdout == "kept\n"
        assert {volume.name for volume in volumes.volumes()} - before == {name}
        assert volumes.Volume(name).users() == []
    finally:
        volumes.Volume(name).remove()
