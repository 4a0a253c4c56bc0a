"""Host: facts and reasons, read from texts of other machines."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.host import Host, Mount, unescape, writable_by_others

HYBRID = """\
21 26 0:20 / /sys rw,nosuid,nodev,noexec shared:2 - sysfs sysfs rw
22 26 0:21 / /proc rw,nosuid - proc proc rw
26 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 21 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 /.. /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu
34 30 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
40 26 8:2 / /srv/a\\040b\\134040 ro,nodev shared:5 master:1 - xfs /dev/sdb rw,attr2
"""
CGROUPS = "5:devices:/\n4:cpu,cpuacct:/\n3:memory:/\n1:name=systemd:/\n0::/\n"


def describe(**files: str) -> Host:
    """A machine of which these files are known, by the last part of their path; all others cannot be read."""
    return Host(lambda path: files.get(path.rpartition("/")[2], ""))


def test_hybrid_cgroups() -> None:
    host = describe(mountinfo=HYBRID, cgroup=CGROUPS)
    assert host.cgroup_unified == "/sys/fs/cgroup/unified"
    assert host.cgroup_legacy == {
        "devices": "/sys/fs/cgroup/devices",
        "cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }


def test_unified_cgroups_only() -> None:
    host = describe(mountinfo="30 21 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", cgroup="0::/\n")
    assert (host.cgroup_unified, host.cgroup_legacy) == ("/sys/fs/cgroup", {})


def test_a_machine_that_tells_nothing_can_nothing() -> None:
    host = describe()
    assert not host.privileged
    assert not host.has_resource
    assert not host.initial_userns
    assert host.mounts == []
    assert (host.cgroup_unified, host.cgroup_legacy) == ("", {})
    assert host.subordinate("uid") == (0, 0)


def test_mount_lines_are_unescaped() -> None:
    mount = Mount(HYBRID.splitlines()[-1])
    assert (mount.point, mount.root, mount.type, mount.options) == ("/srv/a b\\040", "/", "xfs", "rw,attr2")


@given(st.text(st.sampled_from("a\\ \t\n0134")))
def test_unescape_undoes_what_the_kernel_does(text: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)
    assert unescape(escaped) == text


@pytest.mark.parametrize(
    ("mask", "privileged", "resource"),
    [("000001ffffffffff", True, True), ("000001fffeffffff", True, False), ("0000000000000000", False, False)],
)
def test_capabilities(mask: str, privileged: bool, resource: bool) -> None:
    host = describe(status=f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n")
    assert (host.privileged, host.has_resource) == (privileged, resource)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("7:100000:65536", (100000, 65536)),
        ("sam:200000:10", (200000, 10)),
        ("eve:100000:65536", (0, 0)),
        ("sam:x:10", (0, 0)),
        ("sam:5", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_subordinate_ids_by_number_or_name(line: str, found: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.geteuid", lambda: 7)
    host = describe(subuid=f"# comment\nroot:1:1\n{line}\n", passwd="broken\nsam:x:7:7::/home/sam:/bin/sh\n")
    assert host.subordinate("uid") == found


@pytest.mark.parametrize("file", ["max_user_namespaces", "unprivileged_userns_clone"])
def test_reason_why_user_namespaces_are_not_allowed(file: str) -> None:
    assert file in describe(**{file: "0\n"}).no_user_namespaces
    assert describe(**{file: "1\n"}).no_user_namespaces == ""


def test_apparmor_may_restrict_user_namespaces() -> None:
    host = describe(apparmor_restrict_unprivileged_userns="1\n")
    assert host.reasons["user_namespaces"] == "/proc/sys/kernel/apparmor_restrict_unprivileged_userns is 1"


def test_every_no_has_a_reason_and_no_yes_has() -> None:
    nothing = describe().reasons
    assert {"privileged", "raise_limits", "device_nodes", "subordinate_uids", "cgroup_v2"} <= nothing.keys()
    able = describe(
        mountinfo=HYBRID, status="CapEff:\t000001ffffffffff\n", uid_map="0 0 4294967295\n", cgroup=CGROUPS
    ).reasons
    assert not {"privileged", "raise_limits", "device_nodes", "cgroup_v2", "user_namespaces"} & able.keys()
    assert all(able.values())


def test_facts_are_read_once() -> None:
    read: list[str] = []

    def file(path: str) -> str:
        read.append(path)
        return "CapEff:\t1\n"

    host = Host(file)
    assert read == []
    assert [host.capabilities for _ in range(3)] == [1, 1, 1]
    assert read == ["/proc/self/status"]


def test_this_machine() -> None:
    host = Host.probe()
    assert host is Host.probe()
    assert (host.euid, host.egid) == (os.geteuid(), os.getegid())
    assert "/" in [mount.point for mount in host.mounts]
    assert host.kernel >= (5, 0)


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert Host().read(str(tmp_path / "missing")) == ""
    assert Host().read(str(tmp_path)) == ""


@pytest.mark.parametrize(("mode", "writable"), [(0o755, False), (0o775, True), (0o757, True), (0o700, False)])
def test_a_directory_that_others_can_write(mode: int, writable: bool, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    assert writable_by_others(str(tmp_path)) is writable
