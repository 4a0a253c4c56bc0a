"""Limits of `warren run` and `runtime.run` by their effects; machines with cgroup v2 run some, too (tests/vm)."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import runtime
from runtime import cgroups
from runtime.cgroups import limits
from runtime.host import Host
from tests.helpers.host import require
from tests.helpers.oci import Bundle, Runtime
from tests.helpers.warren import Result, Warren

MIB = 1 << 20
TOUCH = "dd if=/dev/zero of=/dev/null count=1 bs="
APPLETS = ("sh", "true", "dd", "nproc", "cat", "mknod", "sleep", "time", "timeout")
Run = Callable[..., Result]


@pytest.fixture
def root(directory: Path) -> Path:
    """A root file system of busybox, which needs little memory and few processes."""
    path = directory / "busybox"
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (path / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", path / "bin/busybox")
    for name in APPLETS:
        (path / "bin" / name).symlink_to("busybox")
    return path


@pytest.fixture
def run(root: Path) -> Run:
    """Run a script in it under these options; the last word is the script."""

    def start(*words: str) -> Result:
        *options, script = words
        return Warren()("run", *options, "--rootfs", root, "sh", "-c", script)

    return start


def need(controller: str) -> None:
    if not limits.version(controller, Host.probe()):
        require(f"cgroup2-{controller}")


# ---- memory


def test_a_writer_over_its_memory_is_killed_and_that_is_said(run: Run) -> None:
    need("memory")
    done = run("--memory", "32m", "--memory-swap", "32m", f"exec {TOUCH}60M")
    done.fails(137, "out of memory", "32m")
    assert run("--memory", "32m", "--memory-swap", "32m", f"{TOUCH}8M 2>/dev/null; echo $?").ok().out == "0\n"


def test_a_kill_that_the_command_survives_is_not_its_end(run: Run) -> None:
    need("memory")
    done = run("--memory", "32m", "--memory-swap", "32m", f"{TOUCH}60M; echo $?").ok()
    assert done.out == "137\n"
    assert "warren: " not in done.err


def test_little_memory_is_enough_for_a_little_program(run: Run) -> None:
    """What the launch itself takes is not charged to it."""
    need("memory")
    assert run("--memory", "4m", "echo up").ok().out == "up\n"


def test_too_little_memory_to_start_is_said(run: Run) -> None:
    need("memory")
    done = run("--memory", "64k", "true")
    if limits.version("memory", Host.probe()) == 2 and done.code == 137:
        # v2 charges in larger pieces, and may notice only when the program has been executed.
        done.fails(137, "out of memory", "64k")
    else:
        done.fails(125, "a limit of 65536 bytes is too low to start")


def test_another_kill_is_no_matter_of_memory(run: Run) -> None:
    need("memory")
    done = run("--memory", "32m", "--init", "kill -9 $$")
    assert done.code == 137
    assert done.err == ""


# ---- processes


def test_a_single_process_runs_and_forks_nothing(run: Run) -> None:
    need("pids")
    assert run("--pids-limit", "1", "echo alone").ok().out == "alone\n"
    done = run("--pids-limit", "1", "sleep 0; echo forked")
    assert "can't fork" in done.err and done.out == ""


def test_a_fork_bomb_stops_and_goes(run: Run) -> None:
    need("pids")
    bomb = "b() { b | b & }; b 2>/dev/null; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo end"
    done = run("--pids-limit", "20", bomb)
    assert done.code in (0, 2), str(done)
    assert Warren()("run", "host", "--", "true").code == 0


@pytest.mark.parametrize(
    ("options", "limit"),
    [((), "1024"), (("--pids-limit", "50"), "50"), (("--pids-limit", "0"), "max"), (("--pids-limit", "-1"), "max")],
    ids=["default", "50", "0", "-1"],
)
def test_processes_are_1024_unless_the_caller_says_otherwise(root: Path, options: tuple[str, ...], limit: str) -> None:
    need("pids")
    assert told(root, "pids", "pids.max", *options)[1] == limit


def told(root: Path, controller: str, name: str, *options: str) -> tuple[str, str]:
    """The container's cgroup, as it sees it with --cgroupns host, and what a file of it says meanwhile."""
    script = "read -r line </proc/self/cgroup; echo $line; cat"
    process = Warren().popen("run", "-i", "--cgroupns", "host", *options, "--rootfs", root, "sh", "-c", script)
    try:
        assert process.stdout
        path = process.stdout.readline().strip().partition(":/")[2]
        top = limits.mount(controller, Host.probe()) or Host.probe().cgroup_unified
        return f"/{path}", Path(top, path, name).read_text().strip()
    finally:
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, out + err


# ---- processors


def test_a_fifth_of_a_processor_is_a_fifth(run: Run) -> None:
    need("cpu")
    done = run("--cpus", "0.2", "time timeout 2 sh -c 'while :; do :; done'; true").ok()
    words = done.err.split()
    real, user, system = (
        int(minutes[:-1]) * 60 + float(seconds[:-1])
        for minutes, seconds in (
            (words[words.index(w) + 1], words[words.index(w) + 2]) for w in ("real", "user", "sys")
        )
    )
    assert 0.16 <= (user + system) / real <= 0.24, done.err


def test_processors_are_those_of_the_list(run: Run) -> None:
    need("cpuset")
    assert run("--cpuset-cpus", "0", "nproc").ok().out == "1\n"


# ---- devices


def test_a_device_rule_lets_a_node_be_opened(run: Run) -> None:
    options = ("--userns", "host", "--cap-add", "MKNOD")
    script = "mknod /tmp/fuse c 10 229; : <>/tmp/fuse && echo open"
    assert "Operation not permitted" in run(*options, script).err
    assert "Operation not permitted" in run(*options, "--device-cgroup-rule", "c 10:229 r", script).err
    assert "Operation not permitted" not in run(*options, "--device-cgroup-rule", "c 10:229 rw", script).err
    assert "Operation not permitted" not in run(*options, "--device-cgroup-rule", "c *:* rw", script).err


# ---- where the cgroup is


def test_the_cgroup_of_a_parent(root: Path, token: str) -> None:
    """It and the parent that was made for it are gone afterwards."""
    parent = f"/wrn-test-{token}/middle"
    path, processes = told(root, "pids", "cgroup.procs", "--cgroup-parent", parent)
    assert path.startswith(f"{parent}/warren-")
    assert processes
    host = Host.probe()
    for top in (host.cgroup_unified, *host.cgroup_legacy.values()):
        assert not top or not Path(top + parent).parent.exists()


def test_the_cgroup_namespace_hides_the_path(run: Run) -> None:
    def paths(*options: str) -> set[str]:
        return {line.split(":", 2)[2] for line in run(*options, "cat /proc/self/cgroup").ok().out.splitlines()}

    assert paths() == paths("--cgroupns", "private") == {"/"}
    assert all(path.startswith("/warren-") for path in paths("--cgroupns", "host"))


# ---- what cannot be had


def test_what_v2_has_not_is_refused_or_noted(root: Path, run: Run) -> None:
    """v1 does disable the OOM killer."""
    need("memory")
    if limits.version("memory", Host.probe()) == 1:
        text = told(root, "memory", "memory.oom_control", "--memory", "32m", "--oom-kill-disable")[1]
        assert text.startswith("oom_kill_disable 1")
        return
    for options in (("--oom-kill-disable",), ("--memory-swappiness", "10")):
        run("--memory", "32m", *options, "true").fails(125, options[0], "--best-effort")
        run("--memory", "32m", *options, "--best-effort", "true").ok()


@pytest.mark.parametrize(
    "options",
    [
        ("--memory", "junk"), ("--memory", "-5"), ("--memory", "64m", "--memory-swap", "1m"), ("--cpus", "0"),
        ("--cpus", "1000000"), ("--cpus", "1", "--cpu-quota", "5000"), ("--pids-limit", "-7"),
        ("--pids-limit", "many"), ("--cpuset-cpus", "4000"), ("--cpuset-cpus", "3-1"), ("--cpu-shares", "1"),
        ("--blkio-weight", "5"), ("--device-read-bps", "/dev/null:1"), ("--device-cgroup-rule", "all"),
        ("--cgroup-parent", "../up"), ("--cgroupns", "mine"),
    ],
    ids="=".join,
)  # fmt: skip
def test_bad_limits_are_one_line_and_leave_nothing(run: Run, options: tuple[str, ...]) -> None:
    run(*options, "true").fails(125)


# ---- the library


def test_the_library_has_them_too(root: Path) -> None:
    for controller in ("memory", "cpu", "pids"):
        need(controller)
    done = runtime.run(root, ["true"], memory="32m", cpus="0.5", pids=20)
    assert (done.returncode, done.oom_killed) == (0, False)
    starts = {name: how.split(" (")[0] for name, how in done.enforced.items()}
    v1 = limits.version("memory", Host.probe()) == 1
    assert starts["memory.limit"] == f"{'memory.limit_in_bytes' if v1 else 'memory.max'} = {32 * MIB}"
    assert starts["pids.limit"] == "pids.max = 20"
    v1 = limits.version("cpu", Host.probe()) == 1
    assert starts["cpu.quota"] == ("cpu.cfs_quota_us = 50000" if v1 else "cpu.max = 50000 100000")
    assert runtime.run(root, ["true"]).enforced["pids.limit"].startswith("pids.max = 1024 (")
    killed = runtime.run(root, ["sh", "-c", f"{TOUCH}60M; exit 3"], memory="32m", stderr=runtime.DEVNULL)
    assert (killed.returncode, killed.oom_killed) == (3, True)
    for bad in ({"memory": "x"}, {"cpus": "-1"}, {"pids": -2}):
        with pytest.raises(runtime.UsageError):
            runtime.run(root, ["true"], **bad)  # type: ignore[arg-type]
    with pytest.raises(runtime.LaunchError, match="too low to start"):
        runtime.run(root, ["true"], memory="4k")


# ---- containers of the other command line


def test_a_container_tells_what_it_uses(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"].update(memory={"limit": 48 * MIB}, pids={"limit": 33})
    box = oci.up(bundle)
    container = runtime.Container(box.id, str(oci.root))
    found = container.stats()
    assert found.memory and found.pids and found.cpu
    assert (found.memory.limit, found.pids.limit, found.pids.current) == (48 * MIB, 33, 1)
    assert 0 < found.memory.current < 48 * MIB
    with container.stats_reader() as reader:
        assert reader.read().cpu.usage >= found.cpu.usage  # type: ignore[union-attr]
    box.kill().ok()
    box.wait()
    with pytest.raises(runtime.StateError, match="not running"):
        container.stats()


def test_the_state_tells_how_limits_are_held_now(oci: Runtime, bundle: Bundle) -> None:
    """And a second update knows of the first one."""
    bundle.linux["resources"]["pids"] = {"limit": 33}
    box = oci.up(bundle)
    assert "memory.limit" not in box.state()["enforced"]
    for flags in (("--memory", "48m"), ("--cpu-quota", "20000"), ("--pids-limit", "44")):
        oci("update", *flags, box.id).ok()
    told = box.state()["enforced"]
    assert f"= {48 * MIB} " in told["memory.limit"]
    assert "20000" in told["cpu.quota"]
    assert told["pids.limit"].startswith("pids.max = 44 ")
    oci("update", "--memory", "1x", box.id).fails()
    oci("update", "--cpuset-cpus", "4000", box.id).fails()
    assert box.state()["enforced"] == told
    held = cgroups.of_process(box.pid, Host.probe())
    assert {how.split(" = ")[0] for how in told.values() if " = " in how} <= {
        name for path in held.directories() for name in os.listdir(path)
    }
