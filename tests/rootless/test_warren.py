"""`warren` and `warren-oci` as an ordinary user, with and without subordinate ids."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers import probe
from tests.helpers.oci import Bundle
from tests.helpers.probe import Answers
from tests.helpers.processes import kill_monitors
from tests.helpers.users import User
from tests.helpers.warren import PROGRAM

OCI = PROGRAM.with_name("warren-oci")
Done = subprocess.CompletedProcess[str]


def host(user: User, script: str, *flags: str) -> Done:
    return user.run(PROGRAM, "run", *flags, "host", "--", "sh", "-c", script)


def ok(done: Done) -> str:
    assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_host_as_root_of_a_namespace(user: User) -> None:
    out = ok(host(user, "echo $$; id -u; head -1 /proc/self/uid_map"))
    pid, uid, uid_map = out.splitlines()
    assert (pid, uid) == ("1", "0")
    assert uid_map.split() == ["0", str(user.uid), "1"]


def test_subordinate_ids_are_mapped_where_there_are_some(user_with_ids: User, plain_user: User) -> None:
    assert len(ok(host(user_with_ids, "cat /proc/self/uid_map")).splitlines()) == 2
    assert len(ok(host(plain_user, "cat /proc/self/uid_map")).splitlines()) == 1


def test_another_user_inside(user_with_ids: User, plain_user: User) -> None:
    assert ok(host(user_with_ids, "id -u; id -g", "--user", "1000:1000")).split() == ["1000", "1000"]
    assert ok(host(plain_user, "id -u", "--user", "1000:1000")).split() == ["1000"]


def test_writes_are_thrown_away(user: User) -> None:
    out = ok(host(user, "echo mine > /usr/warren-test && cat /usr/warren-test"))
    assert out == "mine\n"
    assert not Path("/usr/warren-test").exists()


def test_even_the_users_own_files_are_protected(user: User) -> None:
    mine = Path("/var/tmp/warren-test-own")
    mine.write_text("before")
    user.give(mine)
    try:
        host(user, f"echo after > {mine}")
        assert mine.read_text() == "before"
    finally:
        mine.unlink()


def test_kernel_file_systems_are_its_own(user: User) -> None:
    out = ok(
        host(user, "ls -A /tmp /run | grep -v : | wc -w; tail -n +3 /proc/net/dev | cut -d: -f1; echo x >/dev/null")
    )
    assert out.split() == ["0", "lo"]


def test_exit_codes(user: User) -> None:
    assert host(user, "exit 7").returncode == 7
    assert user.run(PROGRAM, "run", "host", "--", "no-such-command").returncode == 127
    assert user.run(PROGRAM, "run", "host", "--", "/etc/passwd").returncode == 126


def test_what_an_ordinary_user_cannot_have_is_said(user: User) -> None:
    for flags in (["--userns", "host"], ["--keep-changes", "."]):
        done = host(user, "true", *flags)
        assert done.returncode == 125
        assert done.stderr.startswith("warren: ")
        assert len(done.stderr.splitlines()) == 1


def test_no_place_for_state_is_one_line(user: User) -> None:
    done = user.run(PROGRAM, "run", "host", "--", "true", env={"HOME": "/nonexistent", "XDG_RUNTIME_DIR": ""})
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1


def test_a_directory_as_root(user: User, rootfs: Path) -> None:
    user.give(rootfs)
    done = user.run(PROGRAM, "run", "--rootfs", rootfs, *probe.command("id", "write /new x", "hostname"), cwd=rootfs)
    answers = Answers(ok(done))
    assert "uid 0 0 0" in "\n".join(answers["id"])
    assert not (rootfs / "new").exists()


def test_the_bundle_of_spec_rootless_runs(user: User, rootfs: Path, directory: Path) -> None:
    bundle = directory / "bundle"
    bundle.mkdir()
    rootfs.rename(bundle / "rootfs")
    user.give(bundle)
    ok(user.run(OCI, "spec", "--rootless", "--bundle", bundle))
    config = bundle / "config.json"
    config.write_text(
        config.read_text().replace('"terminal": true', '"terminal": false').replace('"sh"', '"/bin/probe", "id"')
    )
    assert "uid 0 0 0" in ok(user.run(OCI, "run", "--bundle", bundle, "wrn-rootless"))


def test_the_whole_lifecycle(user: User, user_bundle: Bundle, token: str) -> None:
    user_bundle.save()
    name = f"wrn-{token}-rootless"
    out = user.home / "created"
    create = f"{OCI} create --bundle {user_bundle.path} {name} </dev/null >{out} 2>&1"
    try:
        assert user.run("sh", "-c", create).returncode == 0, out.read_text()
        assert '"status": "created"' in ok(user.run(OCI, "state", name))
        ok(user.run(OCI, "start", name))
        assert '"status": "running"' in ok(user.run(OCI, "state", name))
        assert "uid 0 0 0" in ok(user.run(OCI, "exec", name, "/bin/probe", "id"))
        assert len(ok(user.run(OCI, "ps", "--format", "json", name)).split(",")) == 1
        ok(user.run(OCI, "kill", name, "KILL"))
    finally:
        ok(user.run(OCI, "delete", "--force", name))
    assert user.run(OCI, "state", name).returncode == 1


def test_a_bundle_without_a_user_namespace_is_refused(user: User, new_bundle: object, bundle: Bundle) -> None:
    bundle.save()
    user.give(bundle.path)
    done = user.run(OCI, "create", "--bundle", bundle.path, "wrn-refused")
    assert done.returncode == 1
    assert "user namespace" in done.stderr


@pytest.mark.parametrize("command", [["list"], ["state", "none"], ["delete", "--force", "none"]])
def test_looking_makes_nothing(user: User, command: list[str]) -> None:
    state = user.runtime_dir / "warren"
    before = state.exists()
    user.run(OCI, *command)
    assert state.exists() == before


def test_writes_at_the_top_are_thrown_away(user: User) -> None:
    """What belongs to unmapped users, most of the host, stays closed to this root."""
    assert (
        ok(host(user, "set -e; mkdir /new; echo x >/new/file; mkdir /usr/new; mv /new/file /usr/new; echo done"))
        == "done\n"
    )
    assert not Path("/new").exists()
    assert not Path("/usr/new").exists()


def test_the_working_directory_and_the_environment(user: User) -> None:
    out = ok(host(user, "pwd; echo $NAME; hostname", "--workdir", "/usr", "--env", "NAME=x", "--hostname", "burrow"))
    assert out.split() == ["/usr", "x", "burrow"]


def test_a_volume_is_the_users_directory(user: User) -> None:
    place = user.home / "volume"
    place.mkdir(exist_ok=True)
    user.give(place)
    ok(host(user, "echo x >/mnt/file", "--volume", f"{place}:/mnt"))
    assert (place / "file").read_text() == "x\n"
    assert (place / "file").stat().st_uid == user.uid
    assert host(user, "echo y >/mnt/file", "--volume", f"{place}:/mnt:ro").returncode != 0
    assert (place / "file").read_text() == "x\n"


def test_input_and_a_large_output(user: User) -> None:
    assert ok(user.run(PROGRAM, "run", "-i", "host", "--", "cat", input="x" * 300000)) == "x" * 300000


def test_a_signal_and_a_time_limit_have_their_codes(user: User) -> None:
    assert host(user, "sh -c 'kill -TERM $$'").returncode == 143
    done = host(user, "sleep 60", "--timeout", "0.5")
    assert done.returncode == 124
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "flags",
    [["--network", "host"], ["--pid", "host"], ["--ipc", "host"], ["--uts", "host"], ["--read-only"], ["--init"],
     ["--tmpfs", "/mnt"], ["--hide", "/etc/passwd"], ["--cap-drop", "ALL"], ["--privileged"]],
    ids=" ".join,
)  # fmt: skip
def test_flags_work_or_are_refused_in_one_line(user: User, flags: list[str]) -> None:
    done = host(user, "echo up", *flags)
    if done.returncode:
        assert done.returncode == 125, done
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("warren: ")
    else:
        assert done.stdout == "up\n"


def test_exec_logs_and_attach(user: User) -> None:
    script = "echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo late; exit 3"
    try:
        ok(host(user, script, "-d", "--name", "box"))
        assert ok(user.run(PROGRAM, "exec", "-e", "A=1", "box", "sh", "-c", "echo $A; id -u >/dev/stderr")) == "1\n"
        assert ok(user.run(PROGRAM, "exec", "-i", "box", "cat", input="in")) == "in"
        attached = user.spawn(PROGRAM, "attach", "--no-stdin", "box")
        time.sleep(1)
        ok(user.run(PROGRAM, "exec", "box", "touch", "/tmp/go"))
        assert attached.communicate(timeout=20)[0] == "late\n"
        assert attached.returncode == 3
        assert ok(user.run(PROGRAM, "logs", "box")) == "up\nlate\n"
        assert user.run(PROGRAM, "exec", "box", "true").returncode == 1
    finally:
        ok(user.run(PROGRAM, "rm", "-f", "box"))


@pytest.mark.parametrize("flags", [[], ["--user", "1000"]], ids=["root", "another"])
def test_a_container_with_a_reaper_is_as_open_to_its_user_as_others(user: User, flags: list[str]) -> None:
    """Who was forked by a process of the host's user namespace belongs to that, until it executes something."""
    inside = "1000" if flags else "0"
    mine = user.home / "mine"
    mine.write_text("data")
    user.give(mine)
    try:
        ok(host(user, "trap 'exit 5' TERM; while :; do sleep 0.1; done", "-d", "--init", "--name", "box", *flags))
        assert ok(user.run(PROGRAM, "exec", "box", "id", "-u")) == f"{inside}\n"
        names = ok(user.run(PROGRAM, "exec", "box", "cat", "/proc/1/cmdline", "/proc/2/comm"))
        reaper, program = names.split("\0")[::3]
        assert (reaper, program) == ("warren-init", "sh\n")
        assert ok(user.run(PROGRAM, "exec", "box", "ls", "/proc/1/fd")).split() == ["0", "1", "2"]
        ok(user.run(PROGRAM, "cp", mine, "box:/tmp/mine"))
        ok(user.run(PROGRAM, "cp", "box:/tmp/mine", user.home / "back"))
        assert (user.home / "back").read_text() == "data"
        lines = ok(user.run(PROGRAM, "top", "box")).splitlines()
        assert len(lines) >= 3, lines
        assert "box" in ok(user.run(PROGRAM, "stats", "--no-stream", "box"))
        ok(user.run(PROGRAM, "stop", "-t", "10", "box"))
        assert ok(user.run(PROGRAM, "wait", "box")) == "5\n"
    finally:
        ok(user.run(PROGRAM, "rm", "-f", "box"))


def test_a_reaper_that_is_executed_is_no_way_to_the_host(user: User) -> None:
    """CVE-2019-5736: its program is the sealed one in memory; nothing of the launch is left in its own memory."""
    script = (
        "(printf x >/proc/1/exe) 2>/dev/null && echo written; cat /proc/1/environ | wc -c; readlink /proc/1/exe;"
        " grep -c / /proc/1/maps; tr '\\0' ' ' </proc/1/cmdline"
    )
    length, *rest = ok(host(user, script, "--rm", "--init")).split()
    assert (length, rest[0], rest[-3:]) == ("0", "/memfd:warren-init", ["warren-init", "--reap", "2"])


def test_a_plan_that_waits_for_start_keeps_the_reapers_program(user: User, user_bundle: Bundle, token: str) -> None:
    """As a program that uses the library may ask for it."""
    user_bundle.config["process"]["args"] = ["/bin/probe", "sleep", "100000"]
    user_bundle.save()
    script = f"""
import os, runtime
container = runtime.Container("wrn-{token}-reaper", runtime.default_root())
container.create(runtime.Bundle.load({str(user_bundle.path)!r}), runtime.Options(init=True))
try:
    container.start()
    process = dict(container.exec_defaults(), args=["/bin/probe", "id"])
    os.waitpid(container.exec(process, runtime.Options()), 0)
finally:
    container.delete(force=True)
"""
    assert "uid 0 0 0" in ok(user.run(PROGRAM.with_name("python3"), "-c", script))


@pytest.mark.parametrize("inside", ["0", "1000:1000"])
def test_ping_and_low_ports_need_no_capability(user: User, inside: str) -> None:
    """In a namespace with a single id, too; ordinary users cannot map any other group."""
    body = "from socket import *; socket(2, SOCK_STREAM).bind(('', 80)); socket(2, SOCK_DGRAM, IPPROTO_ICMP)"
    words = ["--rm", "--network", "none", "--cap-drop", "ALL", "--user", inside, "host", "--", "python3", "-c", body]
    ok(user.run(PROGRAM, "run", *words))


def test_killed_anywhere(user: User) -> None:
    """kill -9 at any instant, of the monitors too; the next command removes what is left."""
    seed = int(os.environ.get("WARREN_SEED") or time.time())
    dice = random.Random(seed)
    for _ in range(60 if os.environ.get("WARREN_LONG") else 6):
        process = user.spawn(PROGRAM, "run", "--rm", "host", "--", "sleep", "1000")
        time.sleep(dice.uniform(0, 0.15))
        process.kill()
        process.communicate()
    time.sleep(0.2)  # Monitors whose launch was killed end by themselves.
    kill_monitors(user.runtime_dir / "warren")
    time.sleep(0.2)
    ok(host(user, "true", "--rm"))
    left = [entry.name for entry in (user.runtime_dir / "warren").glob("[!.]*")]
    assert left == [], f"WARREN_SEED={seed}"


def test_from_a_directory_that_is_gone(user: User) -> None:
    done = user.run(
        "sh", "-c", f"mkdir gone && cd gone && rmdir ../gone && exec {PROGRAM} run host -- pwd", cwd=user.home
    )
    assert done.returncode in (0, 125)
    assert "Traceback" not in done.stderr
