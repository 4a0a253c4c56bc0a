"""podman with the runtime under test: podman calls conmon, and conmon the runtime."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.clients import CANNOT_RUN, ClientTests
from tests.helpers.daemons import BUSYBOX, IMAGE, LOOP, MEMORY, Room, limit, wait_for
from tests.helpers.engines import Podman
from tests.helpers.host import require


@pytest.fixture(scope="module")
def podman(session_directory: Path, token: str, runtime_program: str) -> Iterator[Podman]:
    require("podman")
    with Room(session_directory / "podman", token) as room, Podman(room, runtime_program) as podman:
        yield podman


@pytest.fixture(scope="module")
def box(podman: Podman) -> str:
    """A container with one process, for tests that leave it as it was."""
    podman.run("--detach --name box", "sleep", "100000").ok()
    return "box"


@pytest.fixture
def client(podman: Podman) -> Podman:
    return podman


@pytest.fixture
def loop(podman: Podman) -> Iterator[str]:
    with podman.looping() as name:
        yield name


class TestPodman(ClientTests):
    INIT = "/run/podman-init"
    AT_ONCE = 20


def test_the_runtime_is_known(podman: Podman, runtime_program: str) -> None:
    runtime = json.loads(podman("info", "--format", "{{json .Host.OCIRuntime}}").ok().out)
    version = subprocess.run([runtime_program, "--version"], capture_output=True, text=True, check=True).stdout
    assert (runtime["path"], runtime["version"]) == (runtime_program, version.strip())


def test_run_passes_output_and_exit_code(podman: Podman) -> None:
    done = podman.run("--rm --interactive", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    assert podman("ps", "--all", "--quiet", "--filter=status=exited").ok().out == ""


@pytest.mark.parametrize(
    ("program", "code", "words"),
    CANNOT_RUN,
)
def test_what_cannot_run_has_podmans_exit_codes(podman: Podman, box: str, program: str, code: int, words: str) -> None:
    """podman classifies what the runtime prints."""
    classes = {126: "OCI permission denied", 127: "a command that was not found"}
    podman.run("--rm", program).exits(code, program, words, classes[code])
    podman("exec", box, program).exits(code, program, words, classes[code])


def test_exec_in_a_directory_that_there_is_not(podman: Podman, box: str) -> None:
    podman("exec", "--workdir", "/nosuch", box, "true").exits(127, "/nosuch", "no such file or directory")
    podman("exec", "--workdir", "/etc/passwd", box, "true").exits(255, "/etc/passwd")


def test_a_privileged_exec(podman: Podman, box: str) -> None:
    podman("exec", "--privileged", box, "grep", "NoNewPrivs:.0", "/proc/self/status").ok()


def test_stop_start_and_kill(podman: Podman, loop: str) -> None:
    podman("stop", loop).ok()
    assert (podman.state(loop)["Status"], podman.state(loop)["ExitCode"]) == ("exited", 5)
    podman("start", loop).ok()
    assert podman.state(loop)["Running"]
    podman("kill", loop).ok()
    assert podman("wait", loop).ok().line == "137"
    podman("kill", loop).exits(125, "can only kill running containers")
    podman("restart", loop).ok()
    assert podman.state(loop)["Running"]


def test_start_with_input_and_output(podman: Podman) -> None:
    podman("create", *podman.run_words("--interactive --name pipe", "sh", "-c", "cat; exit 8")[1:]).ok()
    podman("start", "--attach", "--interactive", "pipe", input="through").exits(8, "through")
    podman("rm", "pipe").ok()


def test_pause_and_unpause(podman: Podman, loop: str) -> None:
    podman("pause", loop).ok()
    assert podman.state(loop)["Status"] == "paused"
    podman("exec", loop, "true").exits(255, "can only create exec sessions on running containers")
    podman("unpause", loop).ok()
    assert podman("exec", loop, "echo", "awake").ok().line == "awake"


def test_copying_and_committing_pause_the_container(podman: Podman, box: str, directory: Path) -> None:
    (directory / "file").write_text("of the host\n")
    podman("cp", directory / "file", f"{box}:/tmp/copied").ok()
    assert podman("exec", box, "cat", "/tmp/copied").ok().line == "of the host"
    podman("commit", "--quiet", "--pause", box, "localhost/committed").ok()
    copied = podman.run("--rm", "cat", "/tmp/copied", image="localhost/committed")
    assert copied.ok().line == "of the host"
    podman("rmi", "localhost/committed").ok()


def test_logs(podman: Podman) -> None:
    podman.run("--name chatty", "sh", "-c", "echo bad >&2; for n in 1 2 3; do echo line $n; done").ok()
    done = podman("logs", "chatty").ok()
    assert (done.out, done.err) == ("line 1\nline 2\nline 3\n", "bad\n")
    podman("rm", "chatty").ok()


def test_restart_on_failure(podman: Podman) -> None:
    """conmon runs `podman container cleanup`, which starts it again."""
    podman.run("--detach --name failing --restart on-failure:2", "sh", "-c", "echo run; exit 4").ok()
    wait_for(lambda: podman("logs", "failing").out == "run\n" * 3, "does not start again")
    wait_for(lambda: podman.state("failing")["Status"] == "exited", "goes on", lambda: podman.state("failing"))
    assert podman.inspect("failing")["RestartCount"] == 2
    podman("rm", "failing").ok()


def test_a_health_check(podman: Podman) -> None:
    flags = '--detach --name sick --health-cmd ["test","-e","/tmp/well"] --health-interval disable --health-retries 1'
    podman.run(flags, *LOOP).ok()
    podman("healthcheck", "run", "sick").exits(1, "unhealthy")
    podman("exec", "sick", "touch", "/tmp/well").ok()
    podman("healthcheck", "run", "sick").ok()
    assert podman.state("sick")["Health"]["Status"] == "healthy"
    podman(*podman.remove, "sick").ok()


def test_stats_and_top(podman: Podman, box: str) -> None:
    stats = json.loads(podman("stats", "--no-stream", "--format", "json", box).ok().out)[0]
    assert re.match(r"[1-9][0-9.]*[kM]B / ", stats["mem_usage"]), stats
    assert stats["pids"] == "1"
    assert "sleep 100000" in podman("top", box, "args").ok().out


def test_an_out_of_memory_kill_is_told(podman: Podman) -> None:
    """Debian's conmon makes a file called oom for podman to find, but does so in its working directory, which is /."""
    stray = Path("/oom")
    stray.unlink(missing_ok=True)
    podman.run("--name greedy --memory 16m --memory-swap 16m", "sh", "-c", "a=$(yes | head -c 64000000)").exits(137)
    try:
        assert podman.state("greedy")["OOMKilled"] or stray.exists()
    finally:
        stray.unlink(missing_ok=True)
    podman("rm", "greedy").ok()


def test_update(podman: Podman, loop: str) -> None:
    podman("update", "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", loop).ok()
    processors = limit("cpu/cpu.cfs_quota_us", "cpu.max")
    found = podman("exec", loop, "sh", "-c", f"{MEMORY}; {processors}").ok().out.split()
    assert found[:2] == [str(64 << 20), "50000"]


def test_a_seccomp_profile(podman: Podman, directory: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    profile = directory / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    flags = f"--rm --security-opt seccomp={profile}"
    podman.run(flags, "mkdir", "/tmp/x").exits(1, "No space left on device")


def test_user_namespaces(podman: Podman, directory: Path) -> None:
    """`auto` takes a range of the subordinate ids of the user `containers`, whom only the room has."""
    (directory / "ids").write_text("containers:1000000:655360\n")
    for file in ("/etc/subuid", "/etc/subgid"):
        podman.room("mount", "--bind", directory / "ids", file).ok()
    script = "cat /proc/self/uid_map; id -u; touch /mine && stat -c %u /mine; test -c /dev/null"
    for flags, base in (("--userns auto", 1000000), ("--uidmap 0:200000:5000 --gidmap 0:200000:5000", 200000)):
        inside, outside, _, *rest = podman.run(f"--rm {flags}", "sh", "-c", script).ok().out.split()
        assert [inside, int(outside), *rest] == ["0", base, "0", "0"]


def test_a_root_file_system_without_an_image(podman: Podman, directory: Path) -> None:
    (directory / "root/bin").mkdir(parents=True)
    (directory / "root/bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (directory / "root/bin/busybox").chmod(0o755)
    flags = f"--rm --rootfs {directory}/root"
    podman.run(flags, "touch", "/made", image="/bin/busybox").ok()
    assert (directory / "root/made").exists()


def test_options_of_mounts_devices_and_the_kernel(podman: Podman) -> None:
    flags = (
        "--rm --tmpfs /t:size=1m --shm-size 2m --ulimit nofile=100:200 --ulimit nproc=99:99 --group-add hive "
        "--sysctl net.ipv4.ip_forward=1 --device /dev/zero:/dev/naught --oom-score-adj 900 --workdir /tmp --env A=b"
    )
    script = (
        "df /t /dev/shm | awk 'NR > 1 { print $2 }'; ulimit -n; id -G; cat /proc/sys/net/ipv4/ip_forward;"
        "head -c 3 /dev/naught | od -An -c; cat /proc/self/oom_score_adj; pwd; echo $A"
    )
    found = podman.run(flags, "sh", "-c", script).ok().out.split()
    assert found == ["1024", "2048", "100", "0", "2000", "1", "\\0", "\\0", "\\0", "900", "/tmp", "b"]


def test_namespaces_of_the_host_and_of_another_container(podman: Podman, box: str) -> None:
    flags = f"--rm --network host --ipc host --uts host --cgroupns host --pid container:{box}"
    script = "hostname; tr '\\0' ' ' </proc/1/cmdline; grep libpod- /proc/self/cgroup"
    podman.run(flags, "sh", "-c", script).exits(
        0, podman.room("hostname").line, "sleep 100000", f"/{podman.room.cgroup}/"
    )


def test_hooks(podman: Podman, directory: Path) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo >>{directory}/ran; cat >>{directory}/ran"]}
    stages = ["prestart", "createRuntime", "poststart", "poststop"]
    declared = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": stages}
    (directory / "hook.json").write_text(json.dumps(declared))
    podman("--hooks-dir", directory, *podman.run_words("--rm", "true")).ok()
    states = [json.loads(line)["status"] for line in (directory / "ran").read_text().splitlines() if line]
    assert [states[0], states[1], states[-1]] == ["creating", "creating", "stopped"]


def test_a_pod(podman: Podman) -> None:
    """The containers of a pod join the namespaces of one that runs catatonit."""
    podman("pod", "create", "--name", "flock", "--network=none", "--share=ipc,net,uts,pid").ok()
    found = podman("run", "--rm", "--pod=flock", IMAGE, "ps", "-o", "args").ok()
    assert "catatonit" in found.out
    podman("pod", "rm", "--force", "flock").ok()
