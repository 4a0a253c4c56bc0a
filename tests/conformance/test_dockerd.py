"""dockerd with the runtime under test as its default, driven by docker's own command line."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.clients import CANNOT_RUN, ClientTests
from tests.helpers.daemons import IMAGE, LOOP, MEMORY, Docker, Room, limit, wait_for
from tests.helpers.host import require


@pytest.fixture(scope="module")
def docker(session_directory: Path, token: str, runtime_program: str) -> Iterator[Docker]:
    require("dockerd")
    with Room(session_directory / "dockerd", token) as room, Docker(room, runtime_program) as docker:
        yield docker


@pytest.fixture
def client(docker: Docker) -> Docker:
    return docker


@pytest.fixture
def loop(docker: Docker) -> Iterator[str]:
    with docker.looping() as name:
        yield name


class TestDocker(ClientTests):
    INIT = "/sbin/docker-init"
    AT_ONCE = 10


def test_the_runtime_is_known(docker: Docker, runtime_program: str) -> None:
    """dockerd parses --version; with a version and a commit that it understands it has nothing to warn of."""
    assert docker("info", "--format", "{{.DefaultRuntime}} {{.Runtimes.tested.Path}}").ok().line == (
        f"tested {runtime_program}"
    )
    assert not re.search(r"failed to (retrieve|parse)", docker.log.read_text())


def test_run_passes_output_and_exit_code(docker: Docker) -> None:
    done = docker.run("--rm --interactive", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    assert docker("ps", "--all", "--quiet").ok().line == ""


@pytest.mark.parametrize(
    ("program", "code", "words"),
    CANNOT_RUN,
)
def test_what_cannot_run_has_dockers_exit_codes(docker: Docker, program: str, code: int, words: str) -> None:
    """dockerd looks for the program's name and these words in the last error of the runtime's log."""
    docker.run("--rm", program).exits(code, "OCI runtime create failed", program, words)


def test_exec_of_what_there_is_not(docker: Docker, loop: str) -> None:
    docker("exec", loop, "nosuch").exits(126, "OCI runtime exec failed", "executable file not found in $PATH")


def test_stop_start_and_kill(docker: Docker, loop: str) -> None:
    docker("stop", loop).ok()
    assert (docker.state(loop)["Status"], docker.state(loop)["ExitCode"]) == ("exited", 5)
    docker("start", loop).ok()
    assert docker.state(loop)["Running"]
    docker("kill", loop).ok()
    assert (docker.state(loop)["Status"], docker.state(loop)["ExitCode"]) == ("exited", 137)
    docker("kill", loop).exits(1, "is not running")


def test_pause_and_unpause(docker: Docker, loop: str) -> None:
    docker("pause", loop).ok()
    assert docker.state(loop)["Status"] == "paused"
    docker("exec", loop, "true").exits(1, "paused")
    docker("unpause", loop).ok()
    assert docker("exec", loop, "echo", "awake").ok().line == "awake"


def test_restart_on_failure(docker: Docker) -> None:
    docker.run("--detach --name failing --restart on-failure:2", "sh", "-c", "echo run; exit 4").ok()
    wait_for(lambda: docker.state("failing")["Status"] == "exited", "goes on", lambda: docker.state("failing"))
    assert docker("logs", "failing").ok().out == "run\n" * 3
    assert docker.inspect("failing")["RestartCount"] == 2
    docker("rm", "failing").ok()


def test_restart_always(docker: Docker) -> None:
    docker.run("--detach --name again --restart always", "sh", "-c", "echo run; sleep 0.2").ok()
    wait_for(lambda: docker.inspect("again")["RestartCount"] >= 2, "does not start again")
    docker("rm", "--force", "again").ok()


def test_logs(docker: Docker) -> None:
    docker.run("--name chatty", "sh", "-c", "echo bad >&2; sleep 0.1; for n in 1 2 3; do echo line $n; done").ok()
    done = docker("logs", "chatty").ok()
    assert (done.out, done.err) == ("line 1\nline 2\nline 3\n", "bad\n")
    assert docker("logs", "--tail", "2", "chatty").ok().out == "line 2\nline 3\n"
    docker("rm", "chatty").ok()


def test_stats(docker: Docker, loop: str) -> None:
    line = docker("stats", "--no-stream", "--format", "{{.MemUsage}}|{{.PIDs}}|{{.CPUPerc}}", loop).ok().line
    memory, pids, processor = line.split("|")
    assert re.match(r"[1-9][0-9.]*[KM]iB / ", memory), line
    assert pids in ("1", "2")
    assert re.fullmatch(r"[0-9.]+%", processor), line


def test_top(docker: Docker, loop: str) -> None:
    lines = docker("top", loop).ok().out.splitlines()
    assert str(docker.state(loop)["Pid"]) in [line.split()[1] for line in lines[1:]]
    assert "trap 'exit 5' TERM" in lines[1]


def test_an_out_of_memory_kill_is_told(docker: Docker) -> None:
    docker.run("--name greedy --memory 16m --memory-swap 16m", "sh", "-c", "a=$(yes | head -c 64000000)").exits(137)
    assert docker.state("greedy")["OOMKilled"] is True
    docker("rm", "greedy").ok()


def test_update(docker: Docker, loop: str) -> None:
    docker("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "9", loop).ok()
    found = docker("exec", loop, "sh", "-c", f"{MEMORY}; {limit('pids/pids.max', 'pids.max')}").ok().out
    assert found.splitlines() == [str(64 << 20), "9"]


def test_a_volume_keeps_what_is_written(docker: Docker) -> None:
    docker.run("--rm --volume store:/data", "sh", "-c", "echo kept > /data/file").ok()
    assert docker.run("--rm --volume store:/data", "cat", "/data/file").ok().line == "kept"
    docker("volume", "rm", "store").ok()


def test_containers_reach_each_other_over_a_network(docker: Docker) -> None:
    """dockerd finishes a network in a prestart hook, which is given the state on its standard input."""
    docker("network", "create", "field").ok()
    docker.run("--detach --name server --network field", "nc", "-l", "-p", "7", "-e", "echo", "squeak").ok()
    done = docker.run("--rm --network field", "sh", "-c", "until nc server 7; do sleep 0.1; done", timeout=20)
    assert done.ok().line == "squeak"
    docker("rm", "--force", "server").ok()
    docker("network", "rm", "field").ok()


def test_namespaces_of_another_container(docker: Docker, loop: str) -> None:
    flags = f"--rm --network container:{loop} --pid container:{loop} --ipc host"
    assert "trap" in docker.run(flags, "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline").ok().out


def test_processes_of_a_shared_pid_namespace_end_with_the_container(docker: Docker) -> None:
    """The shim asks for `kill --all` once the container's own process has ended."""
    docker.run("--rm --pid host", "sh", "-c", "sleep 1001 & exit 3").exits(3)
    wait_for(lambda: "sleep 1001" not in docker.room("ps", "-ef").out, "a process is left")


def test_build(docker: Docker) -> None:
    """The classic builder runs each step in a container."""
    steps = ["RUN id -u >/who", "USER bee", "RUN id -u >/tmp/who", 'CMD ["cat", "/who", "/tmp/who"]']
    docker("build", "--network=none", "--tag=built", "-", input="\n".join([f"FROM {IMAGE}", *steps])).ok()
    assert docker("run", "--rm", "--network=none", "built").ok().out == "0\n1000\n"
    docker("rmi", "built").ok()


def test_privileged(docker: Docker) -> None:
    require("cap-sys-resource")  # It asks for every capability.
    script = "mount -t tmpfs none /tmp && test -e /dev/kmsg && grep 'Seccomp:.0' /proc/self/status"
    docker.run("--rm --privileged", "sh", "-c", script).ok()


def test_a_restart_policy_outlives_the_daemon(directory: Path, token: str, runtime_program: str) -> None:
    require("dockerd")
    with Room(directory / "restarted", token) as room, Docker(room, runtime_program) as docker:
        docker.run("--detach --name lasting --restart always", *LOOP).ok()
        before = docker.state("lasting")["Pid"]
        docker.stop()
        docker.start()
        wait_for(lambda: docker.state("lasting")["Running"], "does not come back")
        assert docker.state("lasting")["Pid"] != before
        assert docker("exec", "lasting", "echo", "inside").ok().line == "inside"


def test_containers_live_on_without_the_daemon(directory: Path, token: str, runtime_program: str) -> None:
    """--live-restore: dockerd, and its containerd, find the containers again."""
    require("dockerd")
    with Room(directory / "restored", token) as room, Docker(room, runtime_program, "--live-restore") as docker:
        docker.run("--detach --name lasting", *LOOP).ok()
        before = docker.state("lasting")["Pid"]
        docker.stop()
        docker.start()
        assert docker.state("lasting")["Pid"] == before
        assert docker("exec", "lasting", "echo", "inside").ok().line == "inside"
        docker("stop", "lasting").ok()
        assert docker.state("lasting")["ExitCode"] == 5
