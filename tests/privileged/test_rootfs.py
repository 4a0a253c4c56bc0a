"""`warren run --rootfs`: docker's options with docker's meanings, asked of the probe inside."""

import os
from pathlib import Path

import pytest

from tests.helpers import probe
from tests.helpers.warren import Warren


@pytest.fixture
def base(rootfs: Path) -> list[str]:
    return ["--rootfs", str(rootfs)]


def test_a_directory_is_overlaid_unless_write(warren: Warren, base: list[str], rootfs: Path) -> None:
    warren("run", *base, "/bin/probe", "write", "/etc/new", "text").ok()
    assert not (rootfs / "etc/new").exists()
    warren("run", "--write", *base, "/bin/probe", "write", "/etc/new", "text").ok()
    assert (rootfs / "etc/new").exists()


def test_environment(warren: Warren, base: list[str], directory: Path) -> None:
    file = directory / "env"
    file.write_text("# comment\nFROM_FILE=1\nTAKEN\n")
    result = warren(
        "run",
        *base,
        "--env",
        "A=1",
        "-e",
        "TAKEN",
        "--env-file",
        str(file),
        "/bin/probe",
        "env",
        env={"TAKEN": "caller"},
    )
    lines = result.ok().out.split()
    assert {"A=1", "FROM_FILE=1", "TAKEN=caller"} <= set(lines)
    assert any(line.startswith("PATH=") for line in lines)


def test_user_by_name_has_its_groups(warren: Warren, base: list[str]) -> None:
    answer = warren.ask(*base, "--user", "bee", "--", "id")
    assert "1000" in answer["id"][0]
    assert "2000" in " ".join(answer["id"])


@pytest.mark.parametrize("user", ["nobody-here", "1000:", "", "-1", "4294967295", "99999999999", "1000:nogroup-here"])
def test_unknown_and_malformed_users_are_refused(warren: Warren, base: list[str], user: str) -> None:
    result = warren("run", *base, "--user", user, "/bin/probe", "id")
    result.fails(125)


def test_a_passwd_that_is_a_fifo_or_a_link_to_the_host_is_not_read(
    warren: Warren, base: list[str], rootfs: Path
) -> None:
    (rootfs / "etc/passwd").unlink()
    os.mkfifo(rootfs / "etc/passwd")
    warren("run", *base, "--user", "bee", "/bin/probe", "id").fails(125)
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("/../../../../../../../../etc/passwd")
    warren("run", *base, "--user", "daemon", "/bin/probe", "id").fails(125)


def test_workdir_is_made_and_hostname_is_set(warren: Warren, base: list[str]) -> None:
    answers = warren.ask(*base, "--workdir", "/work/here", "--hostname", "burrow", "--", "cwd", "hostname")
    assert (answers.one("cwd"), answers.one("hostname")) == ("/work/here", "burrow")


def test_volumes(warren: Warren, base: list[str], directory: Path) -> None:
    data = directory / "data"
    data.mkdir()
    (data / "file").write_text("host")
    warren("run", *base, "-v", f"{data}:/data", "/bin/probe", "write", "/data/new", "x").ok()
    assert (data / "new").exists()
    assert (data / "new").stat().st_uid == 0
    result = warren("run", *base, "-v", f"{data}:/data:ro", "/bin/probe", "write", "/data/other", "x")
    assert "EROFS" in result.out
    warren("run", *base, "-v", f"{data}:/data:O", "/bin/probe", "write", "/data/other", "x").ok()
    warren("run", *base, "--mount", f"type=bind,src={data},dst=/data,readonly", "/bin/probe", "cat", "/data/file").ok()
    assert not (data / "other").exists()


def test_a_missing_source_is_one_line(warren: Warren, base: list[str]) -> None:
    warren("run", *base, "--mount", "type=bind,src=/no/such/place,dst=/data", "/bin/probe", "true").fails(
        125, "/no/such/place"
    )


def test_tmpfs_shm_and_read_only(warren: Warren, base: list[str]) -> None:
    answers = warren.ask(*base, "--read-only", "--tmpfs", "/scratch:size=1m", "--shm-size", "2m", "--", "mounts")
    mounts = probe.mounts(answers["mounts"])
    assert "ro" in mounts["/"].options
    assert "size=1024k" in mounts["/scratch"].super_options
    assert "size=2048k" in mounts["/dev/shm"].super_options


def test_capabilities_are_added_and_dropped(warren: Warren, base: list[str]) -> None:
    status = (
        warren("run", *base, "--cap-drop", "all", "--cap-add", "net_admin", "/bin/probe", "status", "CapEff").ok().out
    )
    assert f"{1 << 12:016x}" in status
    warren("run", *base, "--cap-add", "no_such", "/bin/probe", "true").fails(125, "no_such")


def test_ulimit_and_sysctl(warren: Warren, base: list[str]) -> None:
    answers = warren.ask(
        *base,
        "--ulimit",
        "nofile=100:200",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--",
        "rlimits",
        "cat /proc/sys/net/ipv4/ip_forward",
    )
    assert any("100" in line and "200" in line for line in answers["rlimits"])
    assert answers.one("cat /proc/sys/net/ipv4/ip_forward") == "1"
    warren("run", *base, "--sysctl", "vm.swappiness=1", "/bin/probe", "true").fails(125, "vm.swappiness")


def test_userns_host_and_privileged(warren: Warren, base: list[str]) -> None:
    identity = warren("run", "--userns", "host", *base, "/bin/probe", "cat", "/proc/self/uid_map").ok().out.split()
    assert identity[-3:] == Path("/proc/self/uid_map").read_text().split()
    status = warren("run", "--privileged", *base, "/bin/probe", "status", "CapEff").ok().out
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    assert own.split()[1] in status


def test_entrypoint_and_init(warren: Warren, base: list[str]) -> None:
    assert warren("run", *base, "--entrypoint", "/bin/probe", "echo", "hello").ok().out.strip().endswith("hello")
    answers = warren.ask(*base, "--init", "--", "pids")
    assert len(answers["pids"]) == 2


def test_a_device(warren: Warren, base: list[str]) -> None:
    out = warren("run", *base, "--device", "/dev/null:/dev/nothing", "/bin/probe", "stat", "/dev/nothing").ok().out
    assert "1:3" in out or "1,3" in out


@pytest.mark.parametrize(
    "flags",
    [["--network", "no-such"], ["--env-file", "/no/such"], ["--ulimit", "nofile=9999999999"], ["--ulimit", "what=1"],
     ["--tmpfs", "relative"], ["-v", "./a:relative"], ["--shm-size", "many"], ["--security-opt", "what=ever"],
     ["--device", "/dev/no-such"], ["--user", "a:b:c"], ["--mount", "type=what"], ["--pid", "container:none"]],
)  # fmt: skip
def test_bad_input_is_one_line_and_125(warren: Warren, base: list[str], flags: list[str]) -> None:
    warren("run", *flags, *base, "/bin/probe", "true").fails(125)


def test_an_unknown_source_is_explained(warren: Warren) -> None:
    warren("run", "Alpine", "true").fails(125, "Alpine")
    warren("run", "--rootfs", "/no/such/root", "true").fails(125, "/no/such/root")


@pytest.mark.parametrize("source", ["host", "--rootfs"])
def test_a_working_directory_that_the_containers_root_may_not_enter_is_no_obstacle(
    warren: Warren, rootfs: Path, directory: Path, source: str
) -> None:
    private = directory / "private"
    private.mkdir(mode=0o700)
    words = ["host", "--", "true"] if source == "host" else ["--rootfs", rootfs, "/bin/probe", "true"]
    warren("run", *words, cwd=private).ok()
