"""The runtime's own hooks: what they are given, when they have failed, and that nothing of them stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import HookError
from runtime.hooks import run_hooks

SHELL = "/bin/sh"


def sh(script: str, **more: Any) -> dict[str, Any]:
    """A hook that is a shell script; PATH is given, because a hook has no environment but its own."""
    return {"path": SHELL, "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], **more}


def descriptors() -> set[str]:
    """Without the one that os.listdir itself opens."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Any:
    """No descriptor and no zombie survives a hook, whatever became of it."""
    before = descriptors()
    yield
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("hooks", [None, []])
def test_no_hooks(hooks: "list[dict[str, Any]] | None") -> None:
    run_hooks(hooks, "{}")


def test_the_state_is_the_standard_input(tmp_path: Path) -> None:
    state = json.dumps({"id": "c", "status": "creating", "annotations": {"\xe4": "\u4e16"}}, ensure_ascii=False)
    run_hooks([sh(f"cat >{tmp_path}/state")], state)
    assert (tmp_path / "state").read_text() == state


def test_a_state_larger_than_a_pipe_arrives_whole(tmp_path: Path) -> None:
    state = json.dumps({"annotations": {"a": "x" * (1 << 20)}})
    run_hooks([sh(f"sleep 0.1; cat >{tmp_path}/state")], state)
    assert (tmp_path / "state").read_text() == state


def test_a_state_that_nobody_reads_is_no_failure() -> None:
    run_hooks([sh("true"), sh("exec <&-; sleep 0.1"), sh("head -c 10 >/dev/null")], "x" * (1 << 20))


def test_a_large_state_and_much_to_say_do_not_wait_for_each_other() -> None:
    hook = sh("head -c 300000 /dev/zero >&2; cat >/dev/null; exit 3", timeout=20)
    with pytest.raises(HookError, match="exit status 3"):
        run_hooks([hook], "x" * (1 << 20))


def test_hooks_run_in_order_and_end_at_the_first_failure(tmp_path: Path) -> None:
    hooks = [sh(f"echo {n} >>{tmp_path}/log; test {n} -lt 2") for n in (1, 2, 3)]
    with pytest.raises(HookError, match=r"hook 2 \(/bin/sh\): exit status 1"):
        run_hooks(hooks, "{}")
    assert (tmp_path / "log").read_text().split() == ["1", "2"]


def test_exactly_its_own_arguments_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config.md: args has the semantics of IEEE Std 1003.1-2008 execv's argv, env of environ."""
    monkeypatch.setenv("WARREN_TEST_SECRET", "leaked")
    script = f"tr '\\0' '\\n' </proc/$$/cmdline >{tmp_path}/args; tr '\\0' '\\n' </proc/$$/environ >{tmp_path}/env"
    hook = {"path": SHELL, "args": ["called", "-c", script, "", "a b"], "env": ["A=1=2", "PATH=/usr/bin:/bin"]}
    run_hooks([hook], "{}")
    assert (tmp_path / "args").read_text().split("\n") == ["called", "-c", *script.split("\n"), "", "a b", ""]
    assert set((tmp_path / "env").read_text().split()) == {"A=1=2", "PATH=/usr/bin:/bin"}


@pytest.mark.parametrize("empty", [{}, {"args": None}, {"args": []}])
def test_without_arguments_the_path_is_the_only_one(tmp_path: Path, empty: dict[str, Any]) -> None:
    program = tmp_path / "hook"
    program.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\ntr '\\0' '\\n' </proc/$$/cmdline >{tmp_path}/args\n")
    program.chmod(0o755)
    run_hooks([{"path": str(program), **empty}], "{}")
    assert (tmp_path / "args").read_text().split() == ["/bin/sh", str(program)]


@pytest.mark.parametrize("env", [[], None])
def test_without_an_environment_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: "list[str] | None"
) -> None:
    monkeypatch.setenv("WARREN_TEST_SECRET", "leaked")
    run_hooks([sh(f"PATH=/bin:/usr/bin; cat /proc/$$/environ >{tmp_path}/env", env=env)], "{}")
    assert (tmp_path / "env").read_bytes() == b""


def test_it_gets_no_other_descriptor(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        run_hooks([sh(f"ls /proc/$$/fd >{tmp_path}/fds")], "{}")
    finally:
        os.close(reader)
        os.close(writer)
    assert not {str(reader), str(writer)} & set((tmp_path / "fds").read_text().split())


def test_descriptors_that_we_let_others_inherit_are_not_the_hooks(tmp_path: Path) -> None:
    """A descriptor without close-on-exec of a program that uses the library; only 0, 1 and 2 are a hook's."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        run_hooks([sh(f"exec 9>{tmp_path}/fds; ls -l /proc/$$/fd >&9")], "{}")
    finally:
        os.close(reader)
        os.close(writer)
    assert f" {writer} -> " not in (tmp_path / "fds").read_text()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 7", "exit status 7$"),
        ("echo 'no network' >&2; exit 1", "exit status 1: no network$"),
        ("printf '\\nfirst\\nsecond\\n' >&2; exit 1", "exit status 1: first$"),
        ("printf '\\377\\376' >&2; exit 1", "exit status 1: \ufffd\ufffd$"),
        ("kill -KILL $$", "killed by signal 9$"),
        ("kill -SEGV $$", "killed by signal 11$"),
    ],
)
def test_a_failure_is_one_line(script: str, problem: str) -> None:
    with pytest.raises(HookError, match=problem) as failed:
        run_hooks([sh(script)], "{}")
    assert len(str(failed.value).splitlines()) == 1


def test_a_control_character_cannot_reach_the_callers_terminal() -> None:
    """Standard error of a hook is text of others; it becomes part of our one line."""
    with pytest.raises(HookError) as failed:
        run_hooks([sh("printf 'a\\rb\\033[2Jc\\n' >&2; exit 1")], "{}")
    assert "\x1b" not in str(failed.value)
    assert "\r" not in str(failed.value)


def test_what_it_says_is_cut() -> None:
    with pytest.raises(HookError) as failed:
        run_hooks([sh("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1")], "{}")
    assert len(str(failed.value)) < 5000


@pytest.mark.parametrize("content", [None, "not a program\n", "#!/no/such/interpreter\n"])
def test_what_cannot_be_executed(tmp_path: Path, content: "str | None") -> None:
    path = tmp_path / "hook"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    with pytest.raises(HookError, match=r"hook 1 .*: cannot be executed"):
        run_hooks([{"path": str(path)}], "{}")


def test_what_may_not_be_executed(tmp_path: Path) -> None:
    path = tmp_path / "hook"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)
    with pytest.raises(HookError, match="permission denied"):
        run_hooks([{"path": str(path)}], "{}")
    with pytest.raises(HookError, match="cannot be executed"):
        run_hooks([{"path": str(tmp_path)}], "{}")


def test_a_hook_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 100 & echo $! $$ >{tmp_path}/pids; wait"
    began = time.monotonic()
    with pytest.raises(HookError, match="took longer than 1 s and was killed"):
        run_hooks([sh(script, timeout=1)], "{}")
    assert 0.9 < time.monotonic() - began < 10
    for pid in (tmp_path / "pids").read_text().split():
        assert gone(int(pid)), pid


def test_a_hook_that_never_reads_its_input_is_killed_too() -> None:
    with pytest.raises(HookError, match="took longer"):
        run_hooks([sh("sleep 100", timeout=1)], "x" * (1 << 20))


def test_a_hook_that_never_stops_talking_is_killed_in_time() -> None:
    """The deadline holds although there is always something to read."""
    began = time.monotonic()
    with pytest.raises(HookError, match="took longer"):
        run_hooks([sh("yes >&2", timeout=1)], "{}")
    assert time.monotonic() - began < 10


def test_a_hook_in_time_is_left_alone() -> None:
    run_hooks([sh("sleep 0.2", timeout=20), sh("true", timeout=None), sh("true", timeout=0)], "{}")


def test_a_child_that_a_hook_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    """A daemon that keeps standard error open, as plugins of networks start them."""
    began = time.monotonic()
    run_hooks([sh(f"sleep 100 & echo $! >{tmp_path}/pid")], "{}")
    took = time.monotonic() - began
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert took < 10


def test_a_child_that_keeps_talking_does_not_keep_us(tmp_path: Path) -> None:
    """Its standard error is never silent and never ends; the hook's own end counts."""
    script = f"yes >&2 & echo $! >{tmp_path}/pid"
    began = time.monotonic()
    try:
        run_hooks([sh(script, timeout=5)], "{}")
        took = time.monotonic() - began
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert took < 3


def test_signals_are_the_systems_defaults(tmp_path: Path) -> None:
    """Whatever the caller ignores or blocks; Python itself ignores SIGPIPE."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        # The shell itself reads: while it starts another program it blocks signals for a moment.
        read = 'while read -r line; do case "$line" in Sig*) echo "$line";; esac; done </proc/$$/status'
        run_hooks([sh(f"{read} >{tmp_path}/signals")], "{}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        signal.signal(signal.SIGHUP, handler)
    masks = dict(line.split() for line in (tmp_path / "signals").read_text().splitlines())
    assert int(masks["SigBlk:"], 16) == 0
    # The C library's own two, 32 and 33, are not for posix_spawn to set.
    assert int(masks["SigIgn:"], 16) & ~(3 << 31) == 0


def test_it_is_a_process_group_of_its_own(tmp_path: Path) -> None:
    run_hooks([sh(f"echo $$ >{tmp_path}/pid; ps -o pgid= -p $$ >{tmp_path}/group")], "{}")
    assert (tmp_path / "pid").read_text().split() == (tmp_path / "group").read_text().split()


def test_our_own_standard_streams_may_be_closed(tmp_path: Path) -> None:
    """The pipes' descriptors are then 0, 1 and 2 themselves; dup2 onto itself would leave close-on-exec set."""
    script = f"cat >{tmp_path}/state; echo problem >&2; exit 4"
    code = (
        "import os\nfor fd in (0, 1, 2): os.close(fd)\n"
        "from runtime.hooks import run_hooks\n"
        f"hook = {sh(script)!r}\n"
        "try: run_hooks([hook], '{\"id\": 1}')\n"
        f"except Exception as error: open({str(tmp_path / 'error')!r}, 'w').write(repr(error))\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
    assert (tmp_path / "state").read_text() == '{"id": 1}'
    assert "exit status 4: problem" in (tmp_path / "error").read_text()


def gone(pid: int, within: float = 5) -> bool:
    """Whether a process has ended; a zombie has, whoever its parent is."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False
