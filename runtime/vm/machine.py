"""The kinds of machines: what each needs, and the command line of its hypervisor.

    uml      user-mode Linux: a kernel as an ordinary program, which knows that it is one (paravirtualization)
    microvm  QEMU's microvm: no firmware to speak of, no PCI, virtio devices (paravirtualization)
    pc       QEMU's PC of 1996: firmware, IDE, e1000, VGA; the guest need not know (full virtualization)

Inside the hypervisor's container its files lie below PLACE.
"""

import os
import zlib

from ..errors import UnsupportedError
from .kernel import Kernel
from .kvm import KVM_CPU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .disk import Disk

PLACE = "/run/vm"
NINE_P = ["trans=virtio", "version=9p2000.L", "msize=262144"]
_QUIET = "quiet panic=-1 mitigations=off"


class Share:
    """A directory of the hypervisor's container that its guest sees under a tag."""

    __slots__ = ("path", "readonly", "tag")

    def __init__(self, tag: str, path: str, readonly: bool) -> None:
        self.tag = tag
        self.path = path
        self.readonly = readonly


class Equipment:
    """What one guest gets: bytes of memory, processors, what it sees of files, a raw disk ("" for none), a network."""

    __slots__ = ("cpus", "disk", "memory", "network", "ports", "seed", "shares")

    def __init__(
        self,
        memory: int,
        cpus: int,
        *,
        shares: "Sequence[Share]" = (),
        disk: str = "",
        network: bool = False,
        ports: "Sequence[tuple[str, int]]" = (),
        seed: str = "",
    ) -> None:
        self.memory = memory
        self.cpus = cpus
        self.shares = shares
        self.disk = disk
        self.network = network
        self.ports = ports
        """Protocol and number of what is published."""
        self.seed = seed
        """Chooses where there is nothing to choose by, the same each time."""


class Machine:
    """One kind, with a kernel, and what accelerates it."""

    kind: str
    title: str
    modules: "tuple[str, ...]"
    network_modules: "tuple[str, ...]" = ()
    devices: "list[str]"
    """Of the line to the supervisor, as the guest sees it."""
    root_on_disk = False
    forwards = True
    """Whether connections to the hypervisor's network reach the guest."""
    interface = "eth0"
    hint = "a larger --boot-timeout"

    def __init__(
        self, kernel: Kernel, hypervisor: str, *, accel: str = "", memory: int = 0, boot_seconds: float = 60.0
    ) -> None:
        self.kernel = kernel
        self.hypervisor = hypervisor
        """Path of the program on the host."""
        self.accel = accel
        self.default_memory = memory or self.least_memory
        self.boot_seconds = boot_seconds
        self.planning = False
        """Whether it is only to be shown: then nothing is made for it."""
        self.held: list[Disk] = []
        """Disks that release() is to remove once the hypervisor has them mounted."""
        self.files: dict[str, int] = {}
        """What it needs of this host's disk, by path, in bytes: kernel, initramfs, disk."""

    @property
    def can_be_mapped(self) -> bool:
        """Whether root of a user namespace may use what it needs: the node of KVM belongs to the host's root."""
        return self.accel != "kvm" or os.stat("/dev/kvm").st_mode & 0o006 == 0o006

    def release(self) -> None:
        for disk in self.held:
            disk.close()

    least_memory = 128 << 20

    @property
    def label(self) -> str:
        return f"{self.kind}, {self.accel}" if self.accel else self.kind

    def command(self, equipment: Equipment) -> list[str]:
        """The hypervisor's arguments."""
        raise NotImplementedError

    def mount_options(self, share: Share) -> "tuple[str, list[str]]":
        """Type and options with which the guest mounts a share."""
        cache = "cache=loose" if share.readonly else "cache=mmap"
        return "9p", [*NINE_P, cache, f"source={share.tag}", *(["ro"] if share.readonly else [])]


class UserModeLinux(Machine):
    kind = "uml"
    title = "user-mode Linux"
    modules = ("overlay",)
    devices = ["/dev/ttyS0"]
    forwards = False
    least_memory = 64 << 20
    hint = "a larger --boot-timeout"

    def command(self, equipment: Equipment) -> list[str]:
        # It hands over between its processes all the time, which is twice as fast within one CPU.
        processors = sorted(os.sched_getaffinity(0))
        chosen = processors[zlib.crc32(equipment.seed.encode()) % len(processors)]
        return [
            *("/usr/bin/taskset", "--cpu-list", str(chosen)),
            *(
                f"{PLACE}/kernel",
                f"mem={equipment.memory >> 10}K",
                f"initrd={PLACE}/initrd",
                f"uml_dir={PLACE}/",
                "umid=guest",
            ),
            *("con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:0,fd:1", "console=tty0", *_QUIET.split()),
            *([f"eth0=slirp,,{_slirp()}"] if equipment.network else []),
            *("--", "--guest", "/plan"),
        ]

    def mount_options(self, share: Share) -> "tuple[str, list[str]]":
        return "hostfs", [share.path]


def _slirp() -> str:
    """slirp without its idea of a modem's speed, which loses packets here."""
    path = "/usr/bin/slirp-fullbolt"
    if not os.path.exists(path):
        raise UnsupportedError("--network: user-mode Linux needs slirp", hint="apt install slirp, or vm:microvm")
    return path


class _Qemu(Machine):
    def base(self, equipment: Equipment) -> list[str]:
        accel = (
            ["-accel", "kvm", "-cpu", KVM_CPU] if self.accel == "kvm" else ["-accel", "tcg,thread=multi", "-cpu", "max"]
        )
        return [
            self.hypervisor,
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-name", "warren"),
            *(*accel, "-smp", str(equipment.cpus), "-m", f"{(equipment.memory + (1 << 20) - 1) >> 20}M"),
            *("-chardev", "stdio,id=line,signal=off", "-chardev", "file,id=console,path=/dev/fd/2"),
            *("-kernel", f"{PLACE}/kernel", "-initrd", f"{PLACE}/initrd"),
        ]

    def shares(self, shares: "Sequence[Share]", device: str) -> list[str]:
        model = "passthrough" if os.geteuid() == 0 else "none"
        words = []
        for share in shares:
            readonly = ",readonly=on" if share.readonly else ""
            words += [
                "-fsdev",
                f"local,id={share.tag},path={share.path},security_model={model},multidevs=remap{readonly}",
            ]
            words += ["-device", f"{device},fsdev={share.tag},mount_tag={share.tag}"]
        return words

    def user_network(self, device: str, ports: "Sequence[tuple[str, int]]") -> list[str]:
        forwards = "".join(f",hostfwd={protocol}::{port}-:{port}" for protocol, port in ports)
        return ["-netdev", f"user,id=net{forwards}", "-device", f"{device},netdev=net"]

    def append(self, words: str) -> list[str]:
        return ["-append", f"console=ttyS0 {_QUIET} {words} rdinit=/init -- --guest /plan"]


class MicroVM(_Qemu):
    kind = "microvm"
    title = "QEMU microvm"
    modules = ("virtio_mmio", "virtio_console", "9pnet_virtio", "9p", "overlay")
    network_modules = ("virtio_net",)
    devices = ["/dev/vport0p1", "/dev/vport1p1", "/dev/vport2p1", "/dev/vport3p1"]

    def command(self, equipment: Equipment) -> list[str]:
        kvm = self.accel == "kvm"
        machine = "microvm" if kvm else "microvm,pic=on,pit=on,rtc=on,isa-serial=on"
        clock = "" if kvm else f"tsc_early_khz={host_khz()}"
        return [
            *self.base(equipment), "-M", machine, "-serial", "chardev:console",
            *("-device", "virtio-serial-device", "-device", "virtserialport,chardev=line,name=warren"),
            *self.shares(equipment.shares, "virtio-9p-device"),
            *(self.user_network("virtio-net-device", equipment.ports) if equipment.network else []),
            *self.append(f"reboot=t {clock}"),
        ]  # fmt: skip


class PC(_Qemu):
    kind = "pc"
    title = "QEMU PC"
    modules = ("ata_piix", "sd_mod", "crc32c_generic", "ext4", "overlay")
    network_modules = ("e1000",)
    devices = ["/dev/ttyS1"]
    root_on_disk = True

    def command(self, equipment: Equipment) -> list[str]:
        disk = f"file={equipment.disk},format=raw,if=ide,readonly=off,snapshot=on"
        return [
            *self.base(equipment), "-M", "pc", "-vga", "std",
            *("-serial", "chardev:console", "-serial", "chardev:line"),
            *(["-drive", disk] if equipment.disk else []),
            *self.shares(equipment.shares, "virtio-9p-pci"),
            *(self.user_network("e1000", equipment.ports) if equipment.network else []),
            *self.append("reboot=t edd=off"),
        ]  # fmt: skip


KINDS: "dict[str, type[Machine]]" = {kind.kind: kind for kind in (UserModeLinux, MicroVM, PC)}


def host_khz() -> int:
    """The host's clock rate: TCG's time-stamp counter runs with it, and cannot be calibrated on a busy machine."""
    try:
        with open("/proc/cpuinfo") as file:
            rates = [float(line.partition(":")[2]) for line in file if line.startswith("cpu MHz")]
    except (OSError, ValueError):
        rates = []
    return int(rates[0] * 1000) if rates else 1000000
