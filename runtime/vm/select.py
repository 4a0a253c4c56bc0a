"""Which machine there can be on this host: kind, kernel, hypervisor, and KVM where a bounded boot shows it to work."""

import os
import posix
import shutil

from ..errors import UnsupportedError
from . import kernel as kernels
from . import kvm
from .machine import KINDS, Machine

_PROGRAM = "qemu-system-x86_64"


def choose(kind: str, *, kernel: str = "", accel: str = "auto", boot_seconds: float = 60.0) -> Machine:
    """A machine of this kind; "vm" is microvm with KVM, else user-mode Linux, else microvm with TCG.

    `accel` is auto, kvm or tcg.  Raises UnsupportedError and UsageError with what is missing.
    """
    if kind == "vm":
        kind = _best(kernel, accel)
    if posix.uname().machine != "x86_64":
        raise UnsupportedError(f"virtual machines on {posix.uname().machine} are not supported")
    if kind == "uml":
        found = kernels.find_uml(kernel)
        return KINDS[kind](found, found.file, boot_seconds=boot_seconds)
    hypervisor = find_qemu()
    found = kernels.find(kernel)
    used = accel if accel != "auto" else "tcg" if kvm.reason(hypervisor, found) else "kvm"
    if used == "kvm" and (why := kvm.reason(hypervisor, found)):
        raise UnsupportedError(f"KVM: {why}", hint="--accel tcg emulates the processor")
    return KINDS[kind](found, hypervisor, accel=used, boot_seconds=boot_seconds)


def _best(kernel: str, accel: str) -> str:
    """The fastest that there is."""
    try:
        if accel != "tcg" and not kvm.reason(find_qemu(), kernels.find(kernel)):
            return "microvm"
    except UnsupportedError:
        return "uml"
    try:
        kernels.find_uml(kernel)
    except UnsupportedError:
        return "microvm"
    return "uml"


def find_qemu() -> str:
    """The installed QEMU; UnsupportedError without one.  Where it is must be visible below /usr."""
    path = os.path.realpath(shutil.which(_PROGRAM, path="/usr/bin:/usr/local/bin") or "")
    if not path.startswith("/usr/"):
        raise UnsupportedError("QEMU is not installed", hint="apt install qemu-system-x86, or warren vm setup")
    return path
