"""`warren run host`: any program that the host has, isolated, in one command."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.warren import Warren


def sh(warren: Warren, script: str, *flags: str | Path) -> str:
    return warren("run", *flags, "host", "--", "sh", "-c", script).ok().out


def test_is_process_one_and_root_of_a_user_namespace_of_its_own(warren: Warren) -> None:
    out = sh(warren, "echo $$; id -u; cat /proc/self/uid_map")
    pid, uid, uid_map = out.splitlines()
    inside, outside, size = map(int, uid_map.split())
    assert (pid, uid, inside, size) == ("1", "0", 0, 65536)
    assert outside >= 0x70000000


def test_two_containers_have_different_ids_on_the_host(warren: Warren) -> None:
    first = warren.popen("run", "-i", "host", "--", "sh", "-c", "cat /proc/self/uid_map; read wait || true")
    assert first.stdout
    assert first.stdin
    mine = first.stdout.readline()
    other = sh(warren, "cat /proc/self/uid_map")
    first.stdin.close()
    assert first.wait(20) == 0
    first.stdout.close()
    first.stderr.close()  # type: ignore[union-attr]
    assert mine.split() != other.split()


@pytest.mark.parametrize("path", ["/etc/warren-test", "/usr/lib/warren-test", "/warren-test"])
def test_writes_are_thrown_away(warren: Warren, path: str) -> None:
    assert sh(warren, f"echo x > {path} && cat {path}") == "x\n"
    assert not Path(path).exists()


def test_deletions_do_not_reach_the_host(warren: Warren) -> None:
    assert sh(warren, "rm /etc/passwd && ls /etc/passwd 2>&1; true") != "/etc/passwd\n"
    assert Path("/etc/passwd").exists()


def test_keep_changes_keeps_them(warren: Warren, directory: Path) -> None:
    sh(warren, "echo kept > /etc/warren-test", "--keep-changes", directory)
    kept = directory / "upper/etc/warren-test"
    assert kept.read_text() == "kept\n"
    assert kept.stat().st_uid == 0
    assert not Path("/etc/warren-test").exists()


def test_the_kernel_file_systems_are_the_containers_own(warren: Warren) -> None:
    out = sh(warren, "ls /proc | grep -c '^[0-9]'; ls -A /tmp /run | grep -v : | wc -w; ls /dev | sort | tr '\\n' ' '")
    processes, files, nodes = out.splitlines()
    assert int(processes) <= 5
    assert files == "0"
    assert set(nodes.split()) <= {
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    }


def test_hide_covers_files_and_directories(warren: Warren) -> None:
    out = sh(warren, "ls -A /etc/apt | wc -l; wc -c < /etc/passwd", "--hide", "/etc/apt", "--hide", "/etc/passwd")
    assert out.split() == ["0", "0"]


def test_no_network_but_loopback(warren: Warren) -> None:
    assert sh(warren, "tail -n +3 /proc/net/dev | cut -d: -f1", "--network", "none").split() == ["lo"]
    host = sorted(os.listdir("/sys/class/net"))
    assert sorted(sh(warren, "tail -n +3 /proc/net/dev | cut -d: -f1", "--network", "host").split()) == host


def test_privileges_are_few_and_none_can_be_gained(warren: Warren) -> None:
    status = dict(line.split(":\t", 1) for line in sh(warren, "cat /proc/self/status").splitlines() if ":\t" in line)
    assert status["CapEff"] == status["CapBnd"] == "00000000800405fb"
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_the_exit_code_is_the_commands(warren: Warren) -> None:
    assert warren("run", "host", "--", "sh", "-c", "exit 7").code == 7
    assert warren("run", "host", "--", "sh", "-c", "kill -9 $$; sleep 1").code in (137, 0)
    assert warren("run", "--init", "host", "--", "sh", "-c", "kill -9 $$").code == 137


def test_a_missing_command_is_127_and_a_file_that_is_none_126(warren: Warren) -> None:
    warren("run", "host", "--", "no-such-command").fails(127, "executable file not found in $PATH")
    warren("run", "host", "--", "/no/such/command").fails(127, "no such file or directory")
    warren("run", "host", "--", "/etc/passwd").fails(126, "permission denied")


def test_timeout_kills_everything(warren: Warren) -> None:
    began = time.monotonic()
    result = warren("run", "--timeout", "1", "host", "--", "sh", "-c", "sleep 60 & sleep 60")
    assert result.code == 124
    assert 1 <= time.monotonic() - began < 20


def test_standard_input_and_output_are_the_callers(warren: Warren) -> None:
    result = warren("run", "-i", "host", "--", "sh", "-c", "cat; echo problem >&2", input="hello")
    assert (result.out, result.err) == ("hello", "problem\n")


def test_signals_are_passed_on(warren: Warren) -> None:
    process = warren.popen(
        "run", "host", "--", "sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("got it\n", 5)


def test_a_container_outlives_a_killed_warren_and_goes_when_it_is_removed(warren: Warren, token: str) -> None:
    name = f"wrn-{token}-killed"
    process = warren.popen("run", "--rm", "--name", name, "host", "--", "sh", "-c", "echo $$; exec sleep 1000")
    assert process.stdout
    assert process.stdout.readline() == "1\n"
    process.kill()
    process.communicate(timeout=20)
    assert warren("exec", name, "echo", "here").ok().out == "here\n"
    warren("rm", "--force", name).ok()
    # The leak check finds what is left.


def test_plan_prints_the_steps_and_launches_nothing(warren: Warren) -> None:
    lines = warren("run", "--plan", "host", "--", "true").ok().out.splitlines()
    assert lines[-1].endswith("execute true")
    assert any("pivot into the root" in line for line in lines)
    assert [int(line.split()[0]) for line in lines] == list(range(1, len(lines) + 1))


def test_further_mounts_of_the_host_are_there_but_protected(warren: Warren, directory: Path) -> None:
    place = directory / "mounted"
    place.mkdir()
    assert os.system(f"mount -t tmpfs -o mode=755 warren-test {place}") == 0
    try:
        (place / "file").write_text("host")
        # /tmp is the container's own, so the mount is looked at from a place that is not.
        target = Path("/mnt/warren-test-mount")
        target.mkdir()
        try:
            assert os.system(f"mount --bind {place} {target}") == 0
            out = sh(warren, f"cat {target}/file; echo container > {target}/file; cat {target}/file")
            assert out.splitlines()[0].startswith("host")
            assert (target / "file").read_text() == "host"
        finally:
            os.system(f"umount {target}")
            target.rmdir()
    finally:
        os.system(f"umount {place}")
