"""What a container becomes as a virtual machine: plans, command lines, initramfs; nothing is booted here."""

import gzip
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import vm
from runtime.errors import CommandNotFoundError, LaunchError, UnsupportedError, UsageError
from runtime.launch import Options
from runtime.spec import MASKED_PATHS, READONLY_PATHS, Layers, Spec, default_spec
from runtime.steps import GUEST_SLOT, LaunchPlan, Step
from runtime.vm import initramfs, kernel, kvm
from runtime.vm.kernel import Kernel
from runtime.vm.machine import KINDS, Machine, Share, host_khz


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this host's own store is touched."""
    for module in (initramfs, kvm, kernel):
        monkeypatch.setattr(module, "data_directory", lambda: str(tmp_path / "data"))
    monkeypatch.setattr(sys.modules["runtime.vm.convert"], "default_root", lambda: str(tmp_path / "state"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kernel"
    path.write_bytes(b"\x7fELF")
    return path


def machine(kind: str, file: Path, accel: str = "") -> Machine:
    return KINDS[kind](Kernel(str(file), "", "--kernel"), "/usr/bin/qemu-system-x86_64", accel=accel)


def spec(**changes: object) -> Spec:
    config = default_spec()
    config["process"]["terminal"] = False
    config["mounts"] += changes.pop("mounts", [])  # type: ignore[arg-type]
    config["process"].update(changes.pop("process", {}))  # type: ignore[arg-type]
    config["linux"].update(changes.pop("linux", {}))  # type: ignore[arg-type]
    config.update(changes)
    return Spec(config, "/", Layers(["/image"]))


def convert(given: Spec, kind: Machine, network: bool = False) -> tuple[Spec, LaunchPlan, dict[str, str]]:
    enforced: dict[str, str] = {}
    outer, guest = vm.convert(given, kind, "f" * 64, enforced, network=network)
    return outer, guest, enforced


# ---- words


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", ""), ("container", ""), ("vm", "vm"), ("vm:uml", "uml"), ("vm:microvm", "microvm"), ("vm:pc", "pc")],
)
def test_isolation_is_parsed(text: str, kind: str) -> None:
    assert vm.parse_isolation(text) == kind


@pytest.mark.parametrize("text", ["vm:", "vm:xen", "VM", "pod", "vm:uml:", "container:vm"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is unknown"):
        vm.parse_isolation(text)


# ---- the guest's plan


def test_the_plan_of_a_guest(file: Path) -> None:
    given = spec(process={"user": {"uid": 1000, "gid": 100, "additionalGids": [7]}, "args": ["sh", "-c", "id"]})
    _, guest, _ = convert(given, machine("microvm", file, "tcg"))
    nodes = ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"]
    assert [line[4:] for line in guest.lines()] == [
        "mount 9p on /lower trans=virtio,version=9p2000.L,msize=262144,cache=loose,source=root,ro",
        "clone mount /lower as #5",
        "mount scratch tmpfs for layers mode=755",
        "overlay #6 of #5 with changes in the scratch tmpfs",
        "use #6 as the container's root",
        "mount proc on /proc nosuid,nodev,noexec",
        "mount sysfs on /sys nosuid,nodev,noexec",
        "mount tmpfs on /dev mode=755 nosuid",
        "mount devpts on /dev/pts ptmxmode=0666,mode=0620,gid=5 nosuid,noexec",
        "mount tmpfs on /dev/shm mode=1777,size=65536k nosuid,nodev,noexec",
        "mount mqueue on /dev/mqueue nosuid,nodev,noexec",
        "mount cgroup2 on /sys/fs/cgroup nosuid,nodev,noexec",
        "link /dev/fd to /proc/self/fd",
        "link /dev/stdin to /proc/self/fd/0",
        "link /dev/stdout to /proc/self/fd/1",
        "link /dev/stderr to /proc/self/fd/2",
        "link /dev/ptmx to pts/ptmx",
        *(f"make node /dev/{node} 0666 0:0" for node in nodes),
        "move the root to / and chroot into it",
        "set hostname warren",
        "bring loopback up",
        "make /sys read-only",
        "make /sys/fs/cgroup read-only",
        *(f"make {path} read-only" for path in READONLY_PATHS),
        *(f"mask {path}" for path in MASKED_PATHS),
        "set mount #6 ro",
        "fork, pass on streams and signals as process 1 of the machine",
        "set rlimit nofile 1024:1024",
        "give the standard streams to 1000:100",
        "change directory to /",
        "bound capabilities to 0x20000420",
        "become user 1000:100 groups 7",
        "set capabilities 0x20000420 ambient 0x20000420",
        "gain no new privileges",
        "find sh",
        "execute sh -c id",
    ]


def test_a_guest_holds_limits_and_filter_by_its_own_kernel(file: Path) -> None:
    limits = {"pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100000}}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]}
    given = spec(linux={"resources": limits, "seccomp": profile})
    outer, guest, _ = convert(given, machine("uml", file))
    lines = [line[4:] for line in guest.lines()]
    assert lines.count("write /sys/fs/cgroup/programs/pids.max") == 1
    contents = {step.args[0]: step.args[1] for step in guest.steps if step.op == "file"}
    assert contents == {
        "/sys/fs/cgroup/cgroup.subtree_control": b"+pids +cpu",
        "/sys/fs/cgroup/programs/pids.max": b"20",
        "/sys/fs/cgroup/programs/cpu.max": b"50000 100000",
    }
    assert any(line.startswith("fork in cgroup #") for line in lines)
    assert lines[-2].startswith("load seccomp filter") and lines[-2].endswith("at execve")
    assert outer.config["linux"]["resources"]["pids"]["limit"] > 20, "the hypervisor has processes of its own"
    further = [
        step.op for step in vm.program_plan(given.config["process"], vm.inside_filter({"seccomp": profile})).steps
    ]
    assert further[-3:] == ["find", "seccomp", "exec"] and "guest" not in further


def test_a_clock_that_is_wrong_limits_no_time(file: Path) -> None:
    given = spec(linux={"resources": {"cpu": {"quota": 50000, "period": 100000}}})
    _, guest, _ = convert(given, machine("microvm", file, "tcg"))
    assert not any(step.op == "file" for step in guest.steps)


def test_privileged_programs_have_all_of_their_kernel(file: Path) -> None:
    uml = machine("uml", file)
    outer, guest = vm.convert(spec(), uml, "f" * 64, {}, network=False, privileged=True)
    assert not {"mask", "readonly", "seccomp"} & {step.op for step in guest.steps}
    assert "mount devtmpfs on /dev nosuid" in "\n".join(guest.lines())
    assert outer.config["linux"]["maskedPaths"] == list(MASKED_PATHS), "the hypervisor's container stays as it is"


def test_an_idle_guest_runs_nothing(file: Path) -> None:
    _, guest = vm.convert(spec(), machine("uml", file), "f" * 64, {}, network=False, idle=True)
    assert [step.op for step in guest.steps][-2:] == ["guest", "linger"]


def test_a_pc_waits_for_its_disk(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = vm.convert.__globals__["disk"]
    monkeypatch.setattr(disk, "build", lambda *_: disk.Disk(str(file), kept=True))
    outer, guest, _ = convert(spec(), machine("pc", file, "tcg"))
    assert [step.op for step in guest.steps][:3] == ["wait_path", "mount", "open_tree"]
    command = outer.config["process"]["args"]
    assert "file=/run/vm/disk,format=raw,if=ide,readonly=off,snapshot=on" in command
    assert not any("virtio" in word for word in command), "a guest that need not know"


def test_the_network_of_a_guest(file: Path) -> None:
    outer, guest, _ = convert(spec(), machine("microvm", file, "tcg"), network=True)
    assert "give eth0 the address 10.0.2.15" in "\n".join(guest.lines())
    assert "user,id=net" in outer.config["process"]["args"]
    _, without, _ = convert(spec(), machine("microvm", file, "tcg"))
    assert not any(step.op == "interface" for step in without.steps)


def test_volumes_become_shares(file: Path, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "one").touch()
    mounts = [
        {"destination": "/data", "type": "bind", "source": str(tmp_path / "dir"), "options": ["rbind", "rro"]},
        {"destination": "/etc/one", "type": "bind", "source": str(tmp_path / "one"), "options": ["bind"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "nodev"]},
    ]
    outer, guest, _ = convert(spec(mounts=mounts), machine("uml", file))
    text = "\n".join(guest.lines())
    assert "mount hostfs on /data /run/vm/share/v1 ro" in text
    assert "clone mount /share/0 as" in text and "on /etc/one" in text
    assert "mount tmpfs on /scratch size=1m nodev" in text
    assert {"/run/vm/share/v1", "/run/vm/files/0"} <= {entry["destination"] for entry in outer.config["mounts"]}


# ---- the hypervisor's container


def test_the_hypervisor_sees_little_of_the_host(file: Path) -> None:
    outer, _, _ = convert(spec(), machine("microvm", file, "tcg"))
    assert outer.layers is not None and outer.layers.lower == []
    binds = {
        entry["source"]: entry["options"] for entry in outer.config["mounts"] if "bind" in str(entry.get("options"))
    }
    outside = {path for path in binds if path not in ("/usr", "/etc/ld.so.cache", os.path.realpath("/etc/resolv.conf"))}
    assert {"/image", str(file)} <= outside
    assert all(path in ("/image", str(file)) or "/initramfs/" in path or os.path.islink(path) or path.startswith("/lib")
               for path in outside)  # fmt: skip
    assert all({"ro", "rro"} & set(options) for path, options in binds.items())
    assert outer.config["process"]["noNewPrivileges"]
    assert "CAP_SYS_ADMIN" not in outer.config["process"]["capabilities"]["bounding"]
    assert outer.config["annotations"][vm.ISOLATION] == "vm:microvm"


@pytest.mark.parametrize(("limit", "words"), [(0, "128M"), (200 << 20, "200M"), ((200 << 20) + 1, "201M")])
def test_memory_is_the_machines(file: Path, limit: int, words: str) -> None:
    resources = {"resources": {"memory": {"limit": limit}} if limit else {}}
    outer, _, enforced = convert(spec(linux=resources), machine("microvm", file, "tcg"))
    command = outer.config["process"]["args"]
    assert command[command.index("-m") + 1] == words
    assert "memory" not in outer.config["linux"]["resources"], "the host's cgroup would have to hold the hypervisor too"
    assert ("memory" in enforced) == bool(limit)


@pytest.mark.parametrize(("quota", "count"), [(0, "1"), (50000, "1"), (100000, "1"), (150000, "2"), (400000, "4")])
def test_processors_are_the_limits(file: Path, quota: int, count: str) -> None:
    resources = {"resources": {"cpu": {"quota": quota, "period": 100000}} if quota else {}}
    outer, _, _ = convert(spec(linux=resources), machine("microvm", file, "tcg"))
    command = outer.config["process"]["args"]
    assert command[command.index("-smp") + 1] == count
    assert outer.config["linux"]["resources"] == resources["resources"], "the quota holds as well"
    _, _, enforced = convert(spec(linux=resources), machine("uml", file))
    assert ("cpus" in enforced) == (int(count) > 1)


def test_accelerators(file: Path) -> None:
    tcg = machine("microvm", file, "tcg").command(1 << 27, 1, [], disk="", network=False, ports=[], seed="")
    assert "tcg,thread=multi" in tcg and any("tsc_early_khz=" in word for word in tcg)
    kvm_words = machine("microvm", file, "kvm").command(1 << 27, 1, [], disk="", network=False, ports=[], seed="")
    assert "kvm" in kvm_words and not any("tsc_early_khz=" in word for word in kvm_words)
    assert host_khz() > 100_000


def test_ports_are_passed_on(file: Path) -> None:
    ports = [("tcp", 80), ("udp", 53)]
    command = machine("pc", file, "tcg").command(1 << 27, 1, [], disk="", network=True, ports=ports, seed="")
    assert "user,id=net,hostfwd=tcp::80-:80,hostfwd=udp::53-:53" in command


def test_shares_of_both_kinds(file: Path) -> None:
    share = Share("v1", "/run/vm/share/v1", readonly=False)
    assert machine("uml", file).mount_options(share) == ("hostfs", ["/run/vm/share/v1"])
    kind, options = machine("microvm", file).mount_options(share)
    assert kind == "9p" and "cache=mmap" in options and "ro" not in options


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}}, "--pid"),
        ({"linux": {"namespaces": [{"type": "pid"}, {"type": "uts"}]}}, "--ipc"),
        ({"linux": {"resources": {"memory": {"limit": 1 << 20}}}}, "needs 64m at least"),
        ({"mounts": [{"destination": "/x", "type": "ext4", "source": "/dev/sda1"}]}, "cannot have type ext4"),
        ({"mounts": [{"destination": "/x", "type": "bind", "source": "/dev/null", "options": ["bind"]}]}, "plain file"),
    ],
)
def test_what_a_machine_cannot_do_is_refused(file: Path, change: dict[str, object], word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        convert(spec(**change), machine("uml", file))


def test_failures_of_the_guest_name_its_steps(file: Path) -> None:
    uml = machine("uml", file)
    options = Options()
    _, guest = vm.prepare(spec(process={"args": ["missing"]}), options, uml, "f" * 64, network=False)
    assert options.supervise is not None and options.supervise[1:] == (60000, 0)
    number = next(n for n, step in enumerate(guest.steps, 1) if step.op == "find")
    step = Step("supervise", *options.supervise, GUEST_SLOT)
    found = vm.guest_failure(LaunchError(9, step, 2, f"guest {number} "), guest, uml)
    assert isinstance(found, CommandNotFoundError) and found.exit_code == 127
    late = vm.guest_failure(LaunchError(9, step, 110, "the virtual machine did not come up in time"), guest, uml)
    assert "virtual machine (uml)" in str(late) and late.exit_code == 125
    other = LaunchError(3, Step("loopback"), 1)
    assert vm.guest_failure(other, guest, uml) is other


# ---- kernels and initramfs


def test_an_initramfs_is_what_cpio_reads(tmp_path: Path) -> None:
    plan = initramfs.boot_plan(["one", "two"], ["/dev/ttyS0"])
    assert [str(step) for step in plan.steps][2:] == [
        "load module /modules/one.ko", "load module /modules/two.ko",
        "go on with what the supervisor sends over /dev/ttyS0",
    ]  # fmt: skip
    data = initramfs.archive(b"program", [("one", b"1"), ("two", b"22222")], plan)
    done = subprocess.run(["busybox", "cpio", "-itv"], input=data, capture_output=True, check=True)
    names = {line.split()[-1] for line in done.stdout.decode().splitlines()}
    assert {"dev/console", "dev/null", "init", "plan", "modules/one.ko", "modules/two.ko"} <= names


def test_an_initramfs_is_made_once(file: Path) -> None:
    known = Kernel(str(file), "", "--kernel")
    path = initramfs.build(known, ["9p"], ["/dev/ttyS0"])
    before = os.stat(path)
    assert initramfs.build(known, ["9p"], ["/dev/ttyS0"]) == path
    assert os.stat(path).st_ino == before.st_ino
    assert initramfs.build(known, ["9p"], ["/dev/ttyS1"]) != path


def module(*needed: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needed).encode() + b"\0name=x\0"


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    tree = tmp_path / "modules"
    tree.mkdir()
    (tree / "top.ko").write_bytes(module("mid-dle", "base"))
    (tree / "mid-dle.ko.xz").write_bytes(lzma.compress(module("base")))
    (tree / "base.ko").write_bytes(module())
    (tree / "modules.builtin").write_text("kernel/fs/in-side.ko\n")
    known = Kernel("/boot/vmlinuz", str(tree), "--kernel")
    assert [name for name, _ in known.module_files(["top", "in_side"])] == ["base", "mid_dle", "top"]
    with pytest.raises(UnsupportedError, match="no module missing"):
        known.module_files(["missing"])
    assert Kernel("/boot/vmlinuz", "", "--kernel").module_files(["anything"]) == []


@pytest.mark.skipif(not shutil.which("zstd"), reason="host lacks zstd: it is not installed")
def test_modules_may_be_packed_with_zstd(tmp_path: Path) -> None:
    (tmp_path / "one.ko").write_bytes(module())
    subprocess.run(["zstd", "-q", tmp_path / "one.ko"], check=True)
    assert kernel.read_module(str(tmp_path / "one.ko.zst")) == module()


def test_modules_of_a_given_kernel_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    image = tmp_path / "boot/vmlinuz-9.9"
    image.write_bytes(bytes(0x202) + b"HdrS")
    assert kernel.find(str(image)).modules == ""
    (tmp_path / "lib/modules/9.9").mkdir(parents=True)
    assert kernel.find(str(image)).modules == str(tmp_path / "lib/modules/9.9")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", gzip.compress(b"kernel")])
def test_what_is_no_kernel_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no Linux kernel"):
        kernel.find(str(path))
    with pytest.raises(UsageError, match="not found"):
        kernel.find(str(tmp_path / "missing"))


def test_a_missing_kernel_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    monkeypatch.setattr(kernel, "_SYSTEM", "/nonexistent")
    with pytest.raises(UnsupportedError, match="warren vm setup"):
        kernel.find()


def test_without_qemu_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UnsupportedError, match="apt install qemu-system-x86"):
        vm.choose("pc", accel="tcg")


def test_kvm_is_not_trusted_for_its_device(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hypervisor that says nothing stands for a guest that hangs; one that fails is quoted; the result is kept."""
    opened = os.open
    monkeypatch.setattr(
        kvm.posix, "open", lambda path, flags: opened("/dev/null" if path == "/dev/kvm" else path, flags)
    )
    monkeypatch.setattr(kvm, "PROBE_SECONDS", 0.3)
    silent, failing, good = (tmp_path / name for name in ("silent", "failing", "good"))
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    failing.write_text("#!/bin/sh\necho failed to set MSR >&2\nexit 134\n")
    good.write_text("#!/bin/sh\nprintf '\\nwarren guest \\001\\n'; exec sleep 60\n")
    for program in (silent, failing, good):
        program.chmod(0o755)
    known = Kernel(str(file), "", "--kernel")
    assert "did not come up within" in kvm.reason(str(silent), known)
    monkeypatch.setattr(kvm, "PROBE_SECONDS", 10.0)
    assert "failed to set MSR" in kvm.reason(str(failing), known)
    assert kvm.reason(str(good), known) == ""
    monkeypatch.setattr(kvm, "_probe", lambda *_: pytest.fail("it is known"))
    assert kvm.reason(str(good), known) == ""
