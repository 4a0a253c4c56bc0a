"""The kinds of test machines: how each boots with the host's / as its read-only root, and what it needs of the host."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from . import host

PROJECT = Path(__file__).parents[2]
FOLDERS = PROJECT / "tests/vm"

NINE_P = "trans=virtio,version=9p2000.L,msize=262144"

INITRAMFS = """#!/bin/busybox sh
busybox mount -t devtmpfs devtmpfs /dev
for file in {modules}; do busybox insmod "/$file"; done
busybox mount -t 9p -o ro,cache=loose,{nine_p} root /root
exec busybox switch_root /root {init}
"""


class Machine:
    """One kind of machine: its tests' folder, what it needs of the host, and the seconds that one test may take."""

    name: str
    folder: Path
    features: tuple[str, ...]
    seconds: float

    def bootable(self) -> bool:
        return not any(host.FEATURES[feature]() for feature in self.features)

    def require(self) -> None:
        for feature in self.features:
            host.require(feature)

    def environment(self, work: Path) -> dict[str, str]:
        """What guest.sh wants to know of this kind of machine: SHARE and MODULES."""
        raise NotImplementedError

    def command(self, work: Path) -> list[str]:
        """Boots with `work`/init as init, the console on standard output and `work`/disk as a disk."""
        raise NotImplementedError


class UserModeLinux(Machine):
    """Debian's kernel as an ordinary program: cgroup v2 with cpu, io, memory and pids, one CPU, slow fork."""

    name = "user-mode Linux"
    folder = FOLDERS / "guest"
    features: tuple[str, ...] = ("root", "user-mode-linux")
    seconds = 60.0

    def environment(self, work: Path) -> dict[str, str]:
        return {"SHARE": f"-t hostfs -o {work} none", "MODULES": "/usr/lib/uml/modules/$(uname -r)"}

    def command(self, work: Path) -> list[str]:
        boot = ["root=/dev/root", "rootfstype=hostfs", "hostfs=/", "ro", f"init={work}/init", "quiet"]
        devices = ["con=null", "con0=fd:0,fd:1", f"ubd0={work}/disk"]
        # It hands over between its processes all the time, which is twice as fast within one CPU.
        pinned = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]
        return [*pinned, "linux.uml", "mem=1G", f"uml_dir={work}/", "umid=guest", *boot, *devices]


class SystemdLinux(UserModeLinux):
    """The same kernel with systemd as process 1, a system bus, and a service manager for one ordinary user."""

    name = "user-mode Linux with systemd"
    folder = FOLDERS / "systemd"
    features = (*UserModeLinux.features, "systemd", "dbus-daemon")

    def environment(self, work: Path) -> dict[str, str]:
        return {**super().environment(work), "SYSTEMD": "/lib/systemd/systemd"}


class HybridLinux(SystemdLinux):
    """With the controllers in v1 hierarchies, as systemd mounted them until 2021 or so, and v2 beside them."""

    name = "user-mode Linux with systemd and v1 hierarchies"
    folder = FOLDERS / "hybrid"

    def environment(self, work: Path) -> dict[str, str]:
        return {**super().environment(work), "HYBRID": "1"}


class Qemu(Machine):
    """Debian's generic kernel on an emulated PC: also cpuset, hugetlb and two CPUs, but computes 30 times slower."""

    name = "QEMU"
    folder = FOLDERS / "qemu"
    features = ("root", "qemu", "guest-kernel")
    seconds = 300.0

    def environment(self, work: Path) -> dict[str, str]:
        modules = next(host.GUEST_KERNEL.glob("lib/modules/*"))
        return {"SHARE": f"-t 9p -o {NINE_P} share", "MODULES": str(modules)}

    def command(self, work: Path) -> list[str]:
        kernel = next(host.GUEST_KERNEL.glob("boot/vmlinuz-*"))
        initramfs = _initramfs(work, next(host.GUEST_KERNEL.glob("lib/modules/*")))
        return [
            f"qemu-system-{os.uname().machine}",
            *("-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(initramfs)),
            *("-append", "console=ttyS0 quiet panic=-1 reboot=t edd=off mitigations=off"),
            *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
            *("-fsdev", f"local,id=share,path={work},security_model=none"),
            *("-device", "virtio-9p-pci,fsdev=share,mount_tag=share"),
            *("-drive", f"file={work}/disk,format=raw,if=virtio"),
        ]


MACHINES: tuple[Machine, ...] = (UserModeLinux(), SystemdLinux(), HybridLinux(), Qemu())


def machine_of(path: Path) -> Machine | None:
    """The machine in which the tests of this file run; None for tests of the host."""
    return next((machine for machine in MACHINES if path.is_relative_to(machine.folder)), None)


def _initramfs(work: Path, modules: Path) -> Path:
    """What finds the host's / over 9p and hands over to `work`/init."""
    tree = work / "initramfs"
    for name in ("bin", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    files = _with_needs(["virtio_pci", "virtio_blk", "9pnet_virtio", "9p"], modules)
    for file in files:
        shutil.copy(modules / file, tree)
    names = " ".join(Path(file).name for file in files)
    (tree / "init").write_text(INITRAMFS.format(modules=names, nine_p=NINE_P, init=shlex.quote(f"{work}/init")))
    (tree / "init").chmod(0o755)
    pack = "find . | busybox cpio -o -H newc >../initrd"
    subprocess.run(pack, shell=True, cwd=tree, capture_output=True, check=True)
    return work / "initrd"


def _with_needs(names: list[str], modules: Path) -> list[str]:
    """The files of these modules, after those that they need; busybox's depmod does not order them."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        needs[Path(file).stem] = (file, [Path(other).stem for other in others.split()])

    def walk(name: str) -> list[str]:
        file, others = needs[name]
        return [*(below for other in others for below in walk(other)), file]

    return list(dict.fromkeys(file for name in names for file in walk(name)))
