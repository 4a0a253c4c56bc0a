"""runtime.sandbox(): what it holds, that it fails closed, and its pool."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import runtime
from runtime.engine import sandbox as module


@pytest.fixture(params=[0, 2], ids=["single", "pool"])
def box(request: pytest.FixtureRequest) -> Iterator[runtime.Sandbox]:
    with runtime.sandbox("host", pool=request.param, timeout=30) as sandbox:
        yield sandbox


def said(box: runtime.Sandbox, script: str, **options: object) -> str:
    return str(box.run(["sh", "-c", script], text=True, **options).stdout)  # type: ignore[arg-type]


def test_it_runs_what_is_asked_for(box: runtime.Sandbox) -> None:
    done = box.run(
        ["sh", "-c", "cat; pwd; echo $A $HOME; echo err >&2; exit 3"], input="in\n", text=True, env={"A": "b"}
    )
    assert (done.args[0], done.returncode, done.stdout, done.stderr) == ("sh", 3, "in\n/tmp\nb /tmp\n", "err\n")
    assert done.usage.wall > 0
    assert "memory.limit" in done.enforced
    assert said(box, "pwd", cwd="/usr") == "/usr\n"
    with pytest.raises(runtime.ProcessError):
        box.run(["false"], check=True)


def test_its_streams_can_be_opened_again(box: runtime.Sandbox) -> None:
    script = "echo o >/dev/stdout; echo e >/dev/stderr; read in </dev/stdin; echo $in >/proc/self/fd/2"
    done = box.run(["sh", "-c", script], input="i\n", text=True)
    assert (done.stdout, done.stderr) == ("o\n", "e\ni\n")
    reader, writer = os.pipe()
    try:
        box.run(["true"], stdout=writer)
        assert os.fstat(writer).st_uid == os.geteuid()
    finally:
        os.close(reader)
        os.close(writer)


def test_each_run_has_a_container_of_its_own(box: runtime.Sandbox) -> None:
    assert said(box, "echo x >/tmp/left; ls /tmp") == "left\n"
    assert said(box, "ls /tmp; echo /proc/[0-9]*") == "/proc/1 /proc/2\n".replace(" /proc/2", "")


def test_the_errors_of_a_launch_name_the_command(box: runtime.Sandbox) -> None:
    with pytest.raises(runtime.CommandNotFoundError, match="no-such"):
        box.run(["no-such"])
    with pytest.raises(runtime.CommandNotExecutableError):
        box.run(["/etc/passwd"])
    with pytest.raises(runtime.WarrenError, match="/no/such"):
        box.run(["true"], cwd="/no/such")
    with pytest.raises(runtime.UsageError):
        box.run([])
    assert said(box, "echo it goes on") == "it goes on\n"


def test_nothing_is_left_to_it(box: runtime.Sandbox) -> None:
    status = dict(line.split(":", 1) for line in said(box, "cat /proc/self/status").splitlines())
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert status["Uid"].split()[0] == "65534"
    assert said(box, "cat /proc/self/uid_map").split()[1] != "0"
    assert len(said(box, "ls /proc/self/fd").split()) <= 4


@pytest.mark.parametrize(
    "path", ["/x", "/etc/x", "/usr/x", "/var/tmp/x", "/proc/sys/kernel/hostname", "/sys/x", "/run/x"]
)
def test_it_can_write_nowhere_but_to_tmp(box: runtime.Sandbox, path: str) -> None:
    assert box.run(["sh", "-c", f"echo x >{path}"]).returncode != 0
    assert box.run(["sh", "-c", "echo x >/tmp/x"]).returncode == 0


def test_it_reaches_no_network(box: runtime.Sandbox) -> None:
    assert said(box, "ls /sys/class/net") == "lo\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert box.run(["/usr/bin/python3", "-c", script]).returncode != 0


def test_what_it_is_protected_by_makes_the_difference() -> None:
    """The same attacks, where the protection is taken away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        assert runtime.run("host", ["/usr/bin/python3", "-c", script], network="host").returncode == 0
    assert runtime.run("host", ["sh", "-c", "echo x >/etc/x"]).returncode == 0


# ---- limits


def test_memory_has_an_end() -> None:
    with runtime.sandbox("host", memory="32m", tmp_size="1g") as box:
        done = box.run(["/usr/bin/python3", "-c", "x = bytearray(200 << 20)"])
        assert done.returncode == 137
        assert done.usage.oom
        assert done.usage.max_memory <= 32 << 20
        filled = box.run(["dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=100"])
        assert filled.returncode != 0, "what is in /tmp counts"


def test_processes_have_an_end() -> None:
    with runtime.sandbox("host", pids=16) as box:
        script = "for i in $(seq 40); do sleep 5 & done 2>&1; wait"
        assert b"ork" in box.run(["sh", "-c", script]).stdout


def test_tmp_and_files_have_an_end() -> None:
    with runtime.sandbox("host", tmp_size="1m", file_size="512k") as box:
        assert (
            b"No space" in box.run(["sh", "-c", "for i in 1 2 3 4; do head -c 400000 /dev/zero >/tmp/$i; done"]).stderr
        )
        assert box.run(["sh", "-c", "head -c 700000 /dev/zero >/tmp/x"]).returncode != 0


def test_time_has_an_end() -> None:
    with runtime.sandbox("host", timeout=0.5) as box:
        began = time.monotonic()
        with pytest.raises(runtime.TimeoutExpiredError) as late:
            box.run(["sh", "-c", "echo begun; sleep 600"], timeout=600)
        assert time.monotonic() - began < 60, "a run cannot ask for more than the sandbox has"
        assert late.value.result.stdout == b"begun\n"  # type: ignore[attr-defined]
    with runtime.sandbox("host", cpu_time=1) as box:
        assert box.run(["sh", "-c", "while :; do :; done"]).returncode == 128 + 9


def test_output_has_an_end() -> None:
    with runtime.sandbox("host", output_limit=1000) as box:
        done = box.run(["sh", "-c", "head -c 5000000 /dev/zero; head -c 500 /dev/zero >&2"])
        assert (len(done.stdout), len(done.stderr), done.truncated, done.returncode) == (1000, 500, True, 0)


def test_mounts_are_read_only_unless_asked_for(directory: Path) -> None:
    (directory / "f").write_text("data")
    os.chmod(directory, 0o777)
    with runtime.sandbox("host", mounts=[f"{directory}:/mnt"]) as box:
        assert said(box, "cat /mnt/f; echo x >/mnt/new; ls /mnt") == "dataf\n"
    with runtime.sandbox("host", mounts=[f"{directory}:/mnt:rw"]) as box:
        assert said(box, "echo x >/mnt/new; ls /mnt") == "f\nnew\n"


# ---- failing closed


@pytest.mark.parametrize(
    "note",
    [
        {"devices": "not enforced: nobody holds device rules here"},
        {"user_namespace": "off: why"},
        {"network": "none: why"},
    ],
)
def test_what_is_weaker_executes_nothing(
    note: dict[str, str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notes are a launch's own; one is added to what this host says of itself."""
    from runtime.cgroups import Cgroup

    real = Cgroup.enforced
    monkeypatch.setattr(Cgroup, "enforced", lambda self, *rest: {**real(self, *rest), **note})
    os.chmod(directory, 0o777)
    for pool in (0, 1):
        with runtime.sandbox("host", mounts=[f"{directory}:/mnt:rw"], pool=pool) as box:
            with pytest.raises(runtime.UnsupportedError, match=next(iter(note))):
                box.run(["touch", "/mnt/executed"])
    assert os.listdir(directory) == []


def test_notes_of_a_good_launch_are_no_weakness() -> None:
    module._check({"devices": "devices.allow and devices.deny (cgroup v1 devices)", "memory.limit": "memory.max = 1"})


@pytest.mark.parametrize(
    "options", [{"memory": "much"}, {"tmp_size": "x"}, {"pool": -1}, {"mounts": ["/a:/b:/c:/d"]}, {"cpus": -1.0}]
)
def test_words_that_are_off_are_told_at_once(options: dict[str, object]) -> None:
    with pytest.raises(runtime.WarrenError):
        with runtime.sandbox("host", **options) as box:  # type: ignore[arg-type]
            box.run(["true"])


# ---- the pool


def wait_ready(box: runtime.Sandbox, count: int) -> None:
    deadline = time.monotonic() + 60
    while box.ready < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_pool_is_filled_again() -> None:
    with runtime.sandbox("host", pool=3) as box:
        wait_ready(box, 3)
        for number in range(6):
            assert said(box, f"echo {number}") == f"{number}\n"
        wait_ready(box, 3)
    with pytest.raises(runtime.UsageError):
        box.run(["true"])
    box.close()


def test_one_that_was_killed_while_it_waited_is_not_given_out() -> None:
    with runtime.sandbox("host", pool=1) as box:
        wait_ready(box, 1)
        assert box._pool
        os.kill(box._pool._waiting[0].run.pid, 9)
        time.sleep(0.1)
        assert said(box, "echo alive") == "alive\n"


def test_a_run_is_not_disturbed_by_what_is_made_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next is made a moment later, or at once for who waits for it."""
    monkeypatch.setattr(module, "_BREATH", 3600.0)
    with runtime.sandbox("host", pool=2) as box:
        wait_ready(box, 2)
        for left in (1, 0, 0, 0):
            assert box.run(["true"]).returncode == 0
            assert box.ready == left
        with ThreadPoolExecutor(4) as threads:
            assert [done.returncode for done in threads.map(lambda _: box.run(["true"]), range(16))] == [0] * 16


def test_a_pool_serves_threads_and_outlives_them() -> None:
    found: list[str] = []
    with runtime.sandbox("host", pool=4) as box:

        def work(number: int) -> None:
            found.append(said(box, f"echo {number}"))

        for _ in range(2):
            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert sorted(found) == sorted(f"{number}\n" for number in [*range(8)] * 2)


def test_after_fork_the_child_has_a_pool_of_its_own() -> None:
    with runtime.sandbox("host", pool=2) as box:
        wait_ready(box, 2)
        child = os.fork()
        if not child:
            code = box.run(["sh", "-c", "exit 6"]).returncode
            box.close()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
        assert box.ready == 2
        assert said(box, "echo still") == "still\n"


def test_a_command_of_many_words() -> None:
    with runtime.sandbox("host") as box:
        words = ["x" * 1000] * 1000
        assert box.run(["sh", "-c", "echo $#", "sh", *words]).stdout == b"1000\n"
        assert box.run(["printf", "%s", "", "\u4e16"], text=True).stdout == "\u4e16"
        for words in (["true", "a\0b"], ["true", "\ud800"]):
            with pytest.raises(runtime.WarrenError):
                box.run(words)
