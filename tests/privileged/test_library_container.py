"""runtime.container(): processes, files, logs, waiting and the end of a container that is a scope of the program."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import runtime
from runtime import wait
from tests.helpers.lan import until
from tests.helpers.warren import Warren

ROOT = Path(__file__).parents[2]


@pytest.fixture
def box() -> Iterator[runtime.RunningContainer]:
    with runtime.container("host", labels={"kind": "box"}) as container:
        yield container


def shell(box: runtime.RunningContainer, script: str, **options: object) -> str:
    done = box.exec(["sh", "-c", script], capture_output=True, text=True, check=True, **options)  # type: ignore[arg-type]
    return str(done.stdout)


# ---- processes


def test_exec_is_subprocesss_run(box: runtime.RunningContainer) -> None:
    done = box.exec(["sh", "-c", "cat; echo err >&2; exit 3"], input="in\n", text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "in\n", "err\n")
    assert done.usage.wall > 0
    assert done.usage.max_memory > 0
    with pytest.raises(runtime.ProcessError):
        box.exec(["false"], check=True)


def test_exec_has_its_own_environment_directory_and_user(box: runtime.RunningContainer) -> None:
    assert shell(box, "echo $A; pwd; id -u", env={"A": "b"}, cwd="/usr", user=1000).split() == ["b", "/usr", "1000"]


@pytest.mark.parametrize("user", [None, 1000])
def test_streams_can_be_opened_again(box: runtime.RunningContainer, user: int | None) -> None:
    argv = ["sh", "-c", "echo o >/dev/stdout; echo e >/dev/stderr; read in </dev/stdin; echo $in >/proc/self/fd/2"]
    done = box.exec(argv, input="i\n", text=True, capture_output=True, user=user)
    assert (done.stdout, done.stderr) == ("o\n", "e\ni\n")
    streams = {"stdin": runtime.PIPE, "stdout": runtime.PIPE, "stderr": runtime.PIPE}
    with box.popen(argv, text=True, user=user, **streams) as process:  # type: ignore[arg-type]
        assert process.communicate("i\n") == ("o\n", "e\ni\n")


def test_pipes_of_the_caller_stay_his(box: runtime.RunningContainer) -> None:
    reader, writer = os.pipe()
    try:
        box.exec(["echo", "x"], stdout=writer, stderr=runtime.PIPE)
        assert os.fstat(writer).st_uid == os.geteuid()
    finally:
        os.close(reader)
        os.close(writer)


def test_exec_of_what_there_is_not(box: runtime.RunningContainer) -> None:
    for argv, error in ((["no-such"], runtime.CommandNotFoundError), ([], runtime.UsageError)):
        with pytest.raises(error):
            box.exec(argv)


def test_exec_is_killed_after_its_time(box: runtime.RunningContainer) -> None:
    began = time.monotonic()
    with pytest.raises(runtime.TimeoutExpiredError) as late:
        box.exec(["sh", "-c", "echo first; exec sleep 600"], capture_output=True, timeout=0.5)
    assert time.monotonic() - began < 30
    assert late.value.result.stdout == b"first\n"  # type: ignore[attr-defined]
    assert "sleep" not in shell(box, "cat /proc/[0-9]*/comm")


def test_output_is_capped(box: runtime.RunningContainer) -> None:
    done = box.exec(["head", "-c", "1000000", "/dev/zero"], capture_output=True, output_limit=1000)
    assert (len(done.stdout), done.truncated, done.returncode) == (1000, True, 0)
    assert not box.exec(["head", "-c", "1000", "/dev/zero"], capture_output=True, output_limit=1000).truncated


def test_an_orphan_that_holds_the_pipe_does_not_keep_exec(box: runtime.RunningContainer) -> None:
    began = time.monotonic()
    assert shell(box, "sleep 300 & echo done") == "done\n"
    assert time.monotonic() - began < 60


def test_popen_talks_both_ways(box: runtime.RunningContainer) -> None:
    with box.popen(["cat"], stdin=runtime.PIPE, stdout=runtime.PIPE, text=True) as process:
        assert process.poll() is None
        assert process.stdin and process.stdout
        for word in ("one\n", "two\n"):
            process.stdin.write(word)
            process.stdin.flush()
            assert process.stdout.readline() == word
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_popen_communicates_signals_and_waits(box: runtime.RunningContainer) -> None:
    big = b"x" * (1 << 20)
    with box.popen(["sh", "-c", "cat; echo e >&2"], stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.communicate(big, timeout=60) == (big, b"e\n")
    with box.popen(["sleep", "600"]) as process:
        with pytest.raises(runtime.TimeoutExpiredError):
            process.wait(0.1)
        process.terminate()
        assert process.wait(30) == 143
        process.kill()
    assert Path(f"/proc/{process.pid}").exists() is False


def test_communicate_loses_nothing_to_a_time_limit(box: runtime.RunningContainer) -> None:
    """As subprocess has it; nor does input that nobody reads hold it up."""
    script = "echo begun; echo e >&2; sleep 600 & wait"
    with box.popen(["sh", "-c", script], stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        with pytest.raises(runtime.TimeoutExpiredError) as late:
            process.communicate("x" * (1 << 20), timeout=0.3)
        assert late.value.timeout == 0.3
        box.exec(["pkill", "-f", "sleep 600"])
        assert process.communicate(timeout=60) == ("begun\n", "e\n")


def test_communicate_tells_of_what_is_no_text(box: runtime.RunningContainer) -> None:
    with box.popen(["printf", "\\377"], stdout=-1, text=True) as process, pytest.raises(UnicodeDecodeError):
        process.communicate()


def test_popen_has_real_descriptors(box: runtime.RunningContainer, directory: Path) -> None:
    with open(directory / "out", "wb") as file, box.popen(["ls", "-l", "/proc/self/fd"], stdout=file) as process:
        pass
    text = (directory / "out").read_text()
    assert str(directory / "out") in text
    assert len([line for line in text.splitlines() if " -> " in line]) <= 4, "no other descriptor of ours"
    assert process.returncode == 0


def test_a_process_ends_with_an_error_of_its_scope(box: runtime.RunningContainer) -> None:
    with pytest.raises(KeyError), box.popen(["sleep", "600"]) as process:
        raise KeyError
    assert process.returncode == 137


# ---- files


def test_files_go_in_and_out(box: runtime.RunningContainer, directory: Path) -> None:
    box.fs.write("/root/a", "text\n", mode=0o640)
    assert (box.fs.read("/root/a"), box.fs.read_text("/root/a")) == (b"text\n", "text\n")
    assert shell(box, "stat -c '%a %u' /root/a") == "640 0\n"
    assert box.fs.read("/root/a", limit=2) == b"te"
    (directory / "tree").mkdir()
    (directory / "tree/f").write_bytes(b"1")
    box.fs.put(directory / "tree", "/root/tree")
    assert shell(box, "cat /root/tree/f") == "1"
    box.fs.get("/root/tree", directory / "back")
    assert (directory / "back/f").read_bytes() == b"1"
    for path, error in (("/no/such", runtime.NotFoundError), ("/root", runtime.UsageError)):
        with pytest.raises(error):
            box.fs.read(path)


def test_links_in_the_container_do_not_lead_out(box: runtime.RunningContainer, directory: Path) -> None:
    """A hostile container lays links to the host's files where the program reads and writes."""
    secret = directory / "secret"
    secret.write_text("the host's")
    script = f"mkdir -p /work /run{directory}; ln -sfn {secret} /work/file; ln -sfn {directory} /work/dir"
    shell(box, script + f"; ln -sfn /proc/1/root{directory} /work/magic")
    with pytest.raises(runtime.NotFoundError):
        box.fs.read("/work/file")
    for path in ("/work/file", "/work/dir/new", "/work/magic/new"):
        with contextlib.suppress(runtime.WarrenError):
            box.fs.write(path, "the container's")
    assert secret.read_text() == "the host's"
    assert sorted(os.listdir(directory)) == ["secret"]


# ---- what it is


def test_the_command_line_sees_it(box: runtime.RunningContainer) -> None:
    assert box.inspect()["Config"]["Labels"]["kind"] == "box"
    assert box.status == "running"
    assert box.stats().pids.current >= 1  # type: ignore[union-attr]
    assert "pids.limit" in box.enforced
    until(lambda: Path(f"/proc/{box.pid}/comm").read_text() == "warren-init\n")  # It names itself when it has begun.


def test_pause(box: runtime.RunningContainer) -> None:
    box.pause()
    assert box.status == "paused"
    with pytest.raises(runtime.StateError):
        box.exec(["true"])
    box.unpause()
    assert box.exec(["true"]).returncode == 0


def test_process_1_that_runs_nothing_reaps(box: runtime.RunningContainer) -> None:
    shell(box, "(sleep 0.1 &); :")
    time.sleep(0.4)
    states = shell(box, "cat /proc/[0-9]*/stat | cut -d' ' -f3").split()
    assert "Z" not in states


def test_logs_and_the_exit_code() -> None:
    script = "echo out; echo err >&2; sleep 0.2; echo last; exit 7"
    with runtime.container("host", ["sh", "-c", script]) as box:
        assert list(box.follow_logs())[-1] == b"last\n"
        assert box.wait(30) == 7
        assert box.logs(stderr=False) == b"out\nlast\n"
        assert box.logs(tail=1) == b"last\n"
        assert box.status == "exited"
        with pytest.raises(runtime.StateError):
            box.exec(["true"])


def test_stop_and_signal() -> None:
    with runtime.container("host", ["sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done"]) as box:
        box.wait_for(wait.log("up"))
        with pytest.raises(runtime.TimeoutExpiredError):
            box.wait(0.1)
        box.signal(signal.SIGUSR1)
        assert box.wait(30) == 9
    with runtime.container("host") as box:
        box.stop(5)
        assert box.wait() == 143


def test_output_that_nobody_reads_does_not_hold_it_up() -> None:
    """The monitor has a client that never reads: the leash."""
    with runtime.container("host", ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; exit 5"]) as box:
        assert box.wait(60) == 5
        assert len(box.logs()) == 3000000


# ---- waiting


def test_conditions_compose() -> None:
    script = "echo one; sleep 0.1; echo two; exec sleep 600"
    with runtime.container("host", ["sh", "-c", script], wait=wait.log("one") & wait.log("two")) as box:
        assert box.logs() == b"one\ntwo\n"
        box.wait_for(wait.log("never") | wait.log("o", times=2), timeout=20)
        box.wait_for(wait.exec_ok("true"), timeout=20)
        with pytest.raises(runtime.TimeoutExpiredError, match=r"no 'never' in the output and .* within 0.1 s"):
            box.wait_for(wait.all_of(wait.log("never"), wait.healthy()), timeout=0.1)
        with pytest.raises(runtime.UsageError):
            box.wait_for(wait.healthy(), timeout=1)


def test_what_has_ended_is_not_waited_for() -> None:
    with pytest.raises(runtime.StateError, match=r"exit code 4 before 'never'.*last words: bye"):
        runtime.container("host", ["sh", "-c", "echo bye; exit 4"], wait=wait.log("never"), timeout=600)
    with runtime.container("host", ["true"], wait=wait.ended()) as box:
        assert box.wait() == 0


def test_healthy() -> None:
    options = {"health_cmd": "test -e /root/well", "health_interval": "200ms"}
    with runtime.container("host", **options) as box:  # type: ignore[arg-type]
        with pytest.raises(runtime.TimeoutExpiredError):
            box.wait_for(wait.healthy(), timeout=0.5)
        box.fs.write("/root/well", "")
        box.wait_for(wait.healthy(), timeout=60)


SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/up" else 500); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.mark.parametrize("options", [{"publish": [8080]}, {"network": "bridge"}], ids=["published", "own-address"])
def test_a_server_is_found_and_waited_for(options: dict[str, object]) -> None:
    command = ["/usr/bin/python3", "-c", SERVER]
    ready = wait.tcp(8080) & wait.http(8080, "/up")
    with runtime.container("host", command, wait=ready, timeout=60, **options) as box:  # type: ignore[arg-type]
        socket.create_connection(box.addr(8080), 5).close()
        box.wait_for(wait.http(8080, "/down", status=500))
        with pytest.raises(runtime.TimeoutExpiredError):
            box.wait_for(wait.http(8080, "/down"), timeout=0.2)


def test_without_a_network_there_is_no_address(box: runtime.RunningContainer) -> None:
    with pytest.raises(runtime.StateError, match="cannot be reached"):
        box.addr(80)


# ---- the end


def test_its_scope_ends_it_and_all_that_it_has_started() -> None:
    with runtime.container("host") as box:
        box.popen(["sh", "-c", "setsid sleep 600 & setsid sleep 600 & sleep 600"])
        pids = box.record.container.processes()
        path = Path(box.record.path)
        assert path.is_dir()
    assert not path.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids[:1])
    box.close()
    with pytest.raises(runtime.WarrenError):
        box.exec(["true"])


@pytest.mark.parametrize("argv", [["sleep", "600"], ["sh", "-c", "echo said; exit 3"]])
def test_one_that_is_kept_outlives_its_program(argv: list[str], warren: Warren) -> None:
    """Whether it has ended or not, its program is killed or not."""
    code = (
        "import os, runtime, sys\n"
        "with runtime.container('host', sys.argv[1:]) as box:\n"
        "    if sys.argv[1] == 'sh': box.wait()\n"
        "    box.keep()\n"
        "print(box.id, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *argv], env=env, capture_output=True, text=True)
    name = done.stdout.strip()
    try:
        time.sleep(1)  # What would take it away has had its time.
        state = warren("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).ok().out
        assert state == ("running 0\n" if argv[0] == "sleep" else "exited 3\n")
        assert warren("logs", name).ok().out == ("" if argv[0] == "sleep" else "said\n")
    finally:
        warren("rm", "-f", name).ok()


def test_an_error_in_its_scope_ends_it() -> None:
    with pytest.raises(KeyError), runtime.container("host", ["sleep", "600"]) as box:
        raise KeyError
    assert not Path(box.record.path).exists()


def test_one_that_others_have_removed() -> None:
    from runtime.engine import lifecycle

    with runtime.container("host") as box:
        lifecycle.remove(box.record, force=True)


@pytest.mark.parametrize(
    ("argv", "options", "error"),
    [
        (["no-such-program"], {}, runtime.CommandNotFoundError),
        (["true"], {"cwd": "/etc/passwd"}, runtime.LaunchError),
        (["true"], {"memory": "lots"}, runtime.UsageError),
        (["true"], {"memroy": "1g"}, runtime.UsageError),
        (["true"], {"user": "no-such-user"}, runtime.UsageError),
        (["true"], {"network": "no-such-network"}, runtime.WarrenError),
    ],
)
def test_what_cannot_be_started_leaves_nothing(
    argv: list[str], options: dict[str, object], error: type[Exception]
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        runtime.container("host", argv, **options)  # type: ignore[arg-type]
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_program_that_is_killed_leaves_nothing_within_a_second(directory: Path) -> None:
    """No daemon, and no next command: the monitor's leash, and the guardian for the rest."""
    script = (
        "import runtime, time\n"
        f"box = runtime.container('host', ['sleep', '1000'], mounts=['{directory}:/mnt'])\n"
        "print(box.id, box.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    container, pid = process.stdout.readline().split()
    path = Path("/var/lib/warren/containers") / container
    assert path.is_dir()
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while (Path(f"/proc/{pid}").exists() or path.exists() or Path("/run/warren", container).exists()) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    assert not path.exists()
    assert not Path("/run/warren", container).exists()


def test_a_child_of_fork_leaves_it_alone() -> None:
    with runtime.container("host") as box:
        child = os.fork()
        if not child:
            box.close()
            with runtime.container("host") as own:
                code = own.exec(["sh", "-c", "exit 5"]).returncode
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        assert box.exec(["true"]).returncode == 0
        # And the other way round: who has inherited everything does not keep it alive.
        child = os.fork()
        if not child:
            time.sleep(600)
            os._exit(0)
        path = box.record.path
    assert not Path(path).exists()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_threads_share_one(box: runtime.RunningContainer) -> None:
    said: list[str] = []

    def work(number: int) -> None:
        said.append(shell(box, f"echo {number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said, key=int) == [f"{number}\n" for number in range(16)]


def test_the_container_outlives_the_thread_that_made_it() -> None:
    made: list[runtime.RunningContainer] = []
    thread = threading.Thread(target=lambda: made.append(runtime.container("host")))
    thread.start()
    thread.join()
    with made[0] as box:
        time.sleep(0.2)
        assert box.exec(["true"]).returncode == 0
