"""Labels of the host's security module: AppArmor profiles, SELinux contexts of processes and of mounts.

Only containers that ask for one load this module; where the module is not at work, asking is an error.
"""

import posix

from .errors import UnsupportedError
from .steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .host import Host

    Json = dict[str, object]

_UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")
"""File systems that take no context= of their own (runc, mountPropagate)."""


def add_steps(plan: LaunchPlan, process: "Json", host: "Host") -> None:
    """What the security module is to make of the process at execve(2); needs the privileges of the set-up."""
    profile = str(process.get("apparmorProfile") or "")
    if profile and not host.apparmor:
        if profile != "unconfined":
            raise UnsupportedError(
                f"process.apparmorProfile {profile!r}: AppArmor is not enabled on this host", hint="leave it out"
            )
    elif profile:
        new = posix.access("/proc/self/attr/apparmor/exec", posix.F_OK)  # Linux 5.8.
        plan.add("exec_label", "attr/apparmor/exec" if new else "attr/exec", f"exec {profile}")
    label = str(process.get("selinuxLabel") or "")
    if label:
        _need_selinux("process.selinuxLabel", label, host)
        plan.add("exec_label", "attr/exec", label)


def mount_option(type: str, label: str, host: "Host") -> "list[str]":
    """The option that gives a new file system of this type the context of linux.mountLabel, if it takes one."""
    if not label or type in _UNLABELLED:
        return []
    _need_selinux("linux.mountLabel", label, host)
    return [f"context={label}"]


def _need_selinux(field: str, label: str, host: "Host") -> None:
    if not host.selinux:
        raise UnsupportedError(f"{field} {label!r}: SELinux is not enabled on this host", hint="leave it out")
