"""The bundle that every runtime is given: what `runc spec` writes, on a root file system of one static program."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from runtime.seccomp import compile, default_profile

Json = dict[str, Any]

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
NAMESPACES = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"),
]
QUIET = ["nosuid", "noexec", "nodev"]
MOUNTS: list[tuple[str, str, str, list[str]]] = [
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", [*QUIET, "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", QUIET),
    ("/sys", "sysfs", "sysfs", [*QUIET, "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", [*QUIET, "relatime", "ro"]),
]

OWN, ENGINE = "own", "engine"
KINDS: dict[str, tuple[list[str], str]] = {
    "plain": (["/bin/true"], ""),
    "seccomp": (["/bin/true"], OWN),
    "engine": (["/bin/true"], ENGINE),
    "sleep": (["/bin/sleep", "3600"], ""),
}
"""What the container runs, and below which filter."""

FOREIGN = {"x86_64": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "aarch64": ["SCMP_ARCH_ARM"]}
"""The sub-architectures that docker, podman and containerd allow too, and Warren's own profile denies."""


def make_rootfs(directory: Path, busybox: str) -> Path:
    rootfs = directory / "rootfs"
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp"):
        (rootfs / name).mkdir(parents=True, mode=0o755)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for name in ("true", "sleep", "sh"):
        (rootfs / "bin" / name).symlink_to("busybox")
    return rootfs


def make_bundle(directory: Path, rootfs: Path, kind: str, cgroup: str) -> Path:
    """A bundle of one of KINDS; `cgroup` is the spec's cgroupsPath."""
    command, filter = KINDS[kind]
    directory.mkdir(parents=True)
    config = make_config(command, rootfs, cgroup, profile(filter) if filter else None)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    return directory


def make_config(command: list[str], rootfs: Path, cgroup: str, seccomp: Json | None) -> Json:
    linux: Json = {
        "cgroupsPath": cgroup,
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in NAMESPACES],
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    }
    if seccomp:
        linux["seccomp"] = seccomp
    return {
        "ociVersion": "1.0.2",
        "process": _process(command),
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "burrow",
        "mounts": [dict(destination=d, type=t, source=s, options=o) for d, t, s, o in MOUNTS],
        "linux": linux,
    }


def _process(command: list[str]) -> Json:
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": command,
        "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def profile(whose: str = OWN) -> Json:
    """Warren's default profile as an object that every OCI runtime takes, or with the architectures of engines."""
    machine = os.uname().machine
    found = default_profile(set(CAPABILITIES), machine)
    if whose == ENGINE:
        return {**found, "architectures": [*found["architectures"], *FOREIGN[machine]]}
    return found


def filter_program() -> bytes:
    """What Warren loads for its own profile, for the floor to load too."""
    return compile(profile(), os.uname().machine).program
