"""Whether KVM works: /dev/kvm may open and guests still hang, so only a bounded boot counts.  Its result is kept
until the machine reboots or the hypervisor or the kernel changes."""

import os
import posix
import subprocess

from ..jsontext import dump_json, parse_json
from . import initramfs
from .kernel import Kernel, data_directory

PROBE_SECONDS = 10.0
KVM_CPU = "host,arch-capabilities=off"
"""Nested KVM may refuse to set the MSR of that feature, upon which QEMU aborts."""
_HELLO = b"\nwarren guest \x01\n"


def reason(hypervisor: str, kernel: Kernel) -> str:
    """Why KVM cannot be used; "" when it can."""
    try:
        posix.close(posix.open("/dev/kvm", posix.O_RDWR | posix.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm: {posix.strerror(error.errno or 0)}".lower().replace("no such file or directory", "not there")
    key = _key(hypervisor, kernel)
    kept = _read().get(key)
    if kept is None:
        kept = _probe(hypervisor, kernel)
        _write({key: kept})
    return str(kept)


def _probe(hypervisor: str, kernel: Kernel) -> str:
    """Boot a microvm up to its first word, the kernel's own initramfs in it."""
    initrd = initramfs.build(kernel, ("virtio_mmio", "virtio_console"), ["/dev/vport0p1"])
    command = [
        hypervisor, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "microvm",
        "-accel", "kvm", "-cpu", KVM_CPU, "-m", "128M", "-kernel", kernel.file, "-initrd", initrd,
        "-chardev", "stdio,id=line,signal=off", "-device", "virtio-serial-device",
        "-device", "virtserialport,chardev=line,name=warren",
        "-append", "quiet panic=-1 reboot=t rdinit=/init -- --guest /plan",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        import select

        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], PROBE_SECONDS)[0]
        if not ready:
            return f"/dev/kvm opens, but a guest did not come up within {PROBE_SECONDS:g} s"
        if _HELLO[1:8] in os.read(process.stdout.fileno(), 4096):
            return ""
        _, errors = process.communicate(timeout=PROBE_SECONDS)
        lines = errors.decode(errors="replace").strip().splitlines()
        return f"QEMU does not start with it: {lines[-1] if lines else 'it says nothing'}"
    finally:
        process.kill()
        process.communicate()


def _key(hypervisor: str, kernel: Kernel) -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    files = [f"{path}:{os.stat(path).st_mtime_ns}" for path in (hypervisor, kernel.file)]
    return " ".join([boot, *files])


def _path() -> str:
    return data_directory() + "/kvm.json"


def _read() -> "dict[str, object]":
    try:
        with open(_path(), "rb") as file:
            found = parse_json(file.read(1 << 16), _path())
    except Exception:  # Whatever is there, it is only a kept result.
        return {}
    return found if isinstance(found, dict) else {}


def _write(result: "dict[str, object]") -> None:
    os.makedirs(data_directory(), exist_ok=True)
    temporary = f"{_path()}.{os.getpid()}"
    with open(temporary, "w") as file:
        file.write(dump_json(result))
    os.rename(temporary, _path())
