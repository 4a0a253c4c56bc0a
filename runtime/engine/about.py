"""What Warren is here and what it keeps: `version` and `info`."""

import hashlib
import posix
import sys

from .. import __version__
from ..cgroups import limits
from ..container import OCI_VERSION, default_data, default_root
from ..errors import WarrenError
from ..host import Host
from ..launch import init_path
from ..state import read_file
from .listing import rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def version() -> "Json":
    """docker's Client, and the parts that it is made of; there is no server."""
    names = posix.uname()
    init = read_file(init_path())
    return {
        "Client": {
            "Version": __version__,
            "Python": ".".join(map(str, sys.version_info[:3])),
            "OCIVersion": OCI_VERSION,
            "Os": "linux",
            "Arch": _ARCHITECTURES.get(names.machine, names.machine),
            "KernelVersion": names.release,
        },
        "Init": {"Digest": f"sha256:{hashlib.sha256(init).hexdigest()}", "Size": len(init)},
    }


def info() -> "Json":
    """docker's keys, where there is something to tell."""
    host, names = Host.probe(), posix.uname()
    found = [row.status for row in rows(every=True)]
    images, warnings = _images()
    return {
        "Containers": len(found),
        "ContainersRunning": found.count("running"),
        "ContainersPaused": found.count("paused"),
        "ContainersStopped": sum(status not in ("running", "paused") for status in found),
        "Images": images,
        "Driver": "overlay",
        "LoggingDriver": "json-file",
        "CgroupVersion": _cgroup_version(host),
        "CgroupDriver": "cgroupfs",
        "Limits": {name: bool(limits.version(name, host)) for name in ("memory", "cpu", "cpuset", "pids", "io")},
        "SecurityOptions": _security(host),
        "KernelVersion": names.release,
        "OperatingSystem": _distribution(host),
        "OSType": "linux",
        "Architecture": names.machine,
        "NCPU": len(posix.sched_getaffinity(0)),
        "MemTotal": posix.sysconf("SC_PHYS_PAGES") * posix.sysconf("SC_PAGE_SIZE"),
        "Name": names.nodename,
        "ServerVersion": __version__,
        "DefaultRuntime": "warren",
        "DataRoot": default_data(),
        "StateRoot": default_root(),
        "Rootless": not host.privileged,
        "Warnings": [*(f"{name}: {reason}" for name, reason in _reasons(host).items()), *warnings],
    }


def _images() -> "tuple[int, list[str]]":
    from ..images.store import Store

    try:
        store = Store()
        return len(store.images()), store.notes
    except WarrenError as error:
        return 0, [str(error)]


def _reasons(host: Host) -> "dict[str, str]":
    """What doctor.py explains; root needs no subordinate ids."""
    rootless = ("subordinate_uids", "subordinate_gids", "newuidmap", "newgidmap")
    return {key: why for key, why in host.reasons.items() if not (host.privileged and key in rootless)}


def _cgroup_version(host: Host) -> str:
    controllers = [name for name in host.cgroup_legacy if not name.startswith("name=")]
    if not controllers:
        return "2" if host.cgroup_unified else ""
    return "hybrid" if host.cgroup_unified else "1"


def _security(host: Host) -> "list[str]":
    found = ["name=seccomp,profile=builtin"] if host.read("/proc/sys/kernel/seccomp/actions_avail") else []
    found += ["name=apparmor"] if host.apparmor else []
    found += ["name=selinux"] if host.selinux else []
    return [*found, "name=userns", "name=no-new-privileges", *(["name=rootless"] if not host.privileged else [])]


def _distribution(host: Host) -> str:
    """os-release(5)."""
    for line in (host.read("/etc/os-release") or host.read("/usr/lib/os-release")).splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return "Linux"
