"""What a test may ask of the host, and the only reasons for which it may be skipped in CI."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

STRICT = os.environ.get("CI") == "true"
"""Tolerant on a laptop, strict in CI: there a skip for any reason outside `FEATURES` fails."""

GUEST_KERNEL = Path(__file__).parents[2] / "build/guest-kernel"
"""Where `make guest-kernel` unpacks Debian's generic kernel."""


def _root() -> str:
    return "" if os.geteuid() == 0 else "the tests run as an ordinary user"


def _tool(name: str) -> Callable[[], str]:
    return lambda: (
        "" if shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") else f"{name} is not installed"
    )


def _file(path: str, why: str) -> Callable[[], str]:
    return lambda: "" if Path(path).exists() else why


def _filesystem(name: str) -> Callable[[], str]:
    def check() -> str:
        known = Path("/proc/filesystems").read_text().split()
        return "" if name in known else f"the kernel does not know {name} (or its module is not loaded)"

    return check


def _resource() -> str:
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return "" if int(effective.split()[1], 16) >> 24 & 1 else "the tests lack CAP_SYS_RESOURCE"


def _cgroup2(controller: str) -> Callable[[], str]:
    def check() -> str:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if (
                " - cgroup2 " in line
                and controller in (Path(line.split()[4]) / "cgroup.controllers").read_text().split()
            ):
                return ""
        return f"no cgroup v2 with {controller}"

    return check


def _cgroup1() -> str:
    return "" if " - cgroup " in Path("/proc/self/mountinfo").read_text() else "no v1 hierarchy is mounted"


def _hierarchy(controller: str) -> Callable[[], str]:
    def check() -> str:
        mounts = [line.split(" - cgroup ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        options = [after[0].split()[-1].split(",") for _, *after in mounts if after]
        return "" if any(controller in words for words in options) else f"no v1 hierarchy has {controller}"

    return check


def _leaf_weight() -> str:
    found = list(Path("/sys/fs/cgroup").glob("blkio*/blkio*.leaf_weight"))
    return "" if found else "the kernel has no blkio.leaf_weight"


def _userns() -> str:
    for knob in ("/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces"):
        if Path(knob).exists() and Path(knob).read_text().strip() == "0":
            return f"{knob} is 0"
    return ""


FEATURES: dict[str, Callable[[], str]] = {
    "root": _root,
    "cap-sys-resource": _resource,
    "unprivileged-user-namespaces": _userns,
    "time-namespaces": _file("/proc/self/ns/time", "the kernel has no time namespaces"),
    "cgroup-namespaces": _file("/proc/self/ns/cgroup", "the kernel has no cgroup namespaces"),
    "memory-policies": _file("/proc/self/numa_maps", "the kernel has no memory policies (CONFIG_NUMA)"),
    "overlay": _filesystem("overlay"),
    "mqueue": _filesystem("mqueue"),
    "kvm": _file("/dev/kvm", "there is no /dev/kvm"),
    "tun": _file("/dev/net/tun", "there is no /dev/net/tun"),
    "cgroup2-memory": _cgroup2("memory"),
    "cgroup2-pids": _cgroup2("pids"),
    "cgroup2-cpu": _cgroup2("cpu"),
    "cgroup2-cpuset": _cgroup2("cpuset"),
    "cgroup2-io": _cgroup2("io"),
    "cgroup2-hugetlb": _cgroup2("hugetlb"),
    "cgroup1": _cgroup1,
    "cgroup1-hugetlb": _hierarchy("hugetlb"),
    "cgroup1-net_cls": _hierarchy("net_cls"),
    "leaf-weight": _leaf_weight,
    "selinux": _file("/sys/fs/selinux/enforce", "the kernel has no SELinux, or none is loaded"),
    "disk": lambda: "temporary files lie on no disk",
    "users-without-cgroups": lambda: "this user has been given a cgroup",
    "useradd": _tool("useradd"),
    "newuidmap": _tool("newuidmap"),
    "ip": _tool("ip"),
    "nft": _tool("nft"),
    "runc": _tool("runc"),
    "crun": _tool("crun"),
    "containerd": _tool("containerd"),
    "dockerd": _tool("dockerd"),
    "podman": _tool("podman"),
    "docker-registry": _tool("docker-registry"),
    "skopeo": _tool("skopeo"),
    "umoci": _tool("umoci"),
    "debootstrap": _tool("debootstrap"),
    "htpasswd": _tool("htpasswd"),
    "openssl": _tool("openssl"),
    "tmux": _tool("tmux"),
    "buildah": _tool("buildah"),
    "strace": _tool("strace"),
    "criu": _tool("criu"),
    "user-mode-linux": _tool("linux.uml"),
    "systemd": _file("/lib/systemd/systemd", "systemd is not installed"),
    "systemd-analyze": _tool("systemd-analyze"),
    "dbus-daemon": _tool("dbus-daemon"),
    "qemu": _tool(f"qemu-system-{os.uname().machine}"),
    "slirp": _tool("slirp-fullbolt"),
    "chromium": _tool("chromium"),
    "guest-kernel": _file(f"{GUEST_KERNEL}/boot", "`make guest-kernel` unpacks it"),
}
"""Each feature's check returns "" or why this host lacks it."""

MACHINES = ("user-mode-linux", "systemd", "systemd-analyze", "dbus-daemon", "qemu", "guest-kernel", "slirp", "chromium")
ENGINES = ("containerd", "dockerd", "podman", "buildah")
TOOLS = ("docker-registry", "skopeo", "htpasswd", "openssl", "debootstrap", "tmux")
PROVIDED = (*MACHINES, *ENGINES, *TOOLS)
"""What the Makefile installs: in CI its absence is a failure, and no property of the host."""

PREFIX = "host lacks "


def require(feature: str) -> None:
    """Skip the test where the host lacks `feature`, one of FEATURES."""
    if why := FEATURES[feature]():
        pytest.skip(f"{PREFIX}{feature}: {why}")


def is_host_lack(reason: str) -> bool:
    """Whether a skip's reason was written by require(); pytest puts "Skipped: " in front."""
    feature = reason.removeprefix("Skipped: ").removeprefix(PREFIX).split(":")[0]
    return feature in FEATURES and feature not in PROVIDED and PREFIX in reason
