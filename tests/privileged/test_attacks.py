"""Attacks on the host from inside `warren run`: none succeeds with the defaults, and each does without the protection.

An attack prints "won" or "lost: why".  What an attacker may do with image layers, links in the root, mount targets and
bundles is in tests/conformance (test_mounts, test_devices, test_exec, test_process), test_copy, test_volumes and
test_image_unpack; system calls one by one are in test_audit.
"""

import ctypes
import os
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.warren import PROGRAM, Warren

ALL = ("--privileged",)
PREAMBLE = """
import ctypes, os, socket, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def attack():
{body}
try:
    print("won" if attack() is not False else "lost: without an error")
except OSError as error:
    print("lost:", error)
"""


class Attacker:
    def __init__(self, warren: Warren) -> None:
        self._warren = warren

    def __call__(self, body: str, *options: str | Path) -> str:
        """What came of the attack in a container with these options."""
        text = PREAMBLE.format(body="".join(f"    {line}\n" for line in body.strip().splitlines()))
        return self._warren("run", *options, "host", "--", "python3", "-c", text).ok().out.strip()

    def fails_but_for(self, body: str, *relaxed: str | Path, always: tuple[str | Path, ...] = ()) -> None:
        """It is lost with the defaults (and `always`), and won with `relaxed`."""
        assert self(body, *always).startswith("lost"), "the attack succeeds with the defaults"
        assert self(body, *always, *relaxed) == "won", "the attack does not work at all"


@pytest.fixture
def attack(warren: Warren) -> Attacker:
    return Attacker(warren)


@pytest.fixture
def secret(directory: Path) -> Path:
    """A file of root's that no container is given."""
    path = directory / "secret"
    path.write_text("the host's secret\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def victim() -> Iterator[int]:
    """A process of the host's root."""
    process = subprocess.Popen(["sleep", "300"])
    yield process.pid
    process.kill()
    process.wait()


def test_settings_of_the_kernel_through_proc(attack: Attacker) -> None:
    attack.fails_but_for(
        """
path = "/proc/sys/kernel/core_pattern"
value = open(path).read()
open(path, "w").write(value)
""",
        *ALL,
    )


def test_settings_of_the_kernel_through_sys(attack: Attacker) -> None:
    paths = ("/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/ksm/run", "/sys/kernel/rcu_expedited")
    path = next(path for path in paths if os.access(path, os.W_OK))
    attack.fails_but_for(f"os.close(os.open({path!r}, os.O_WRONLY))", *ALL)


def test_proc_remounted_writable(attack: Attacker) -> None:
    body = """
call(libc.mount(b"none", b"/proc/sys", None, 32 | 4096, None))  # MS_REMOUNT | MS_BIND
open("/proc/sys/kernel/panic", "r+").close()
"""
    assert attack(body).startswith("lost")
    assert attack(body, "--cap-add", "SYS_ADMIN").startswith("lost"), "its procfs is its user namespace's"
    assert attack(body, "--cap-add", "SYS_ADMIN", "--userns", "host") == "won"


def test_files_of_the_host_through_a_process_of_it(attack: Attacker, secret: Path, victim: int) -> None:
    body = f'open("/proc/{victim}/root{secret}").read()'
    attack.fails_but_for(body, "--pid", "host", *ALL)
    assert attack(body, "--pid", "host").startswith("lost"), "the user namespace alone keeps it out"


def test_tracing_and_signalling_a_process_of_the_host(attack: Attacker, victim: int) -> None:
    attack.fails_but_for(f"call(libc.ptrace(0x4206, {victim}, 0, 0))", "--pid", "host", *ALL)
    body = f"os.kill({victim}, 0)"
    attack.fails_but_for(body, "--pid", "host", *ALL)
    assert attack(body, "--pid", "host").startswith("lost")


def test_joining_the_hosts_namespaces(attack: Attacker, victim: int) -> None:
    attack.fails_but_for(
        f"""
fd = os.open("/proc/{victim}/ns/mnt", os.O_RDONLY)
call(libc.setns(fd, 0))
""",
        "--pid", "host", *ALL,
    )  # fmt: skip


def test_descriptors_that_the_caller_has_left_open(secret: Path, warren: Warren) -> None:
    """A careless caller leaks a directory; without the protection, as a program on the host, it is there."""
    body = f'import os; os.chdir("/proc/self/fd/77"); print(open("{secret.name}").read())'
    fd = os.open(secret.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(fd, 77, inheritable=True)
    os.close(fd)
    try:
        inside = [str(PROGRAM), "run", "--rm", "host", "--", "python3", "-c", body]
        done = subprocess.run(inside, pass_fds=[77], capture_output=True, text=True, env=warren.env)
        assert done.returncode == 1 and "FileNotFoundError" in done.stderr
        outside = subprocess.run(["python3", "-c", body], pass_fds=[77], capture_output=True, text=True)
        assert outside.stdout.strip() == "the host's secret"
    finally:
        os.close(77)


def test_a_working_directory_that_is_a_descriptor_of_the_runtime(warren: Warren, token: str) -> None:
    """CVE-2024-21626, of `run` and of `exec`."""
    name = f"cwd-{token}"
    warren("run", "-d", "--name", name, "host", "--", "sleep", "100").ok()
    try:
        for number in range(3, 14):
            words = ["-w", f"/proc/self/fd/{number}"]
            for command in (["exec", *words, name], ["run", *words, "host", "--"]):
                result = warren(*command, "sh", "-c", "ls -d ../../../../../../../var/lib/warren/containers/*")
                assert result.code != 0 and not result.out, str(result)
    finally:
        warren("rm", "-f", name).ok()


OVERWRITE = """
import glob, os, sys, time
end, held, won = time.time() + float(sys.argv[1]), {}, set()
while time.time() < end:
    for path in glob.glob("/proc/[0-9]*/exe"):
        try:
            target = os.readlink(path)
            if path.split("/")[2] not in (str(os.getpid()), "1") and target not in held:
                held[target] = os.open(path, os.O_RDONLY)
        except OSError:
            pass
for target, fd in held.items():  # None runs any more, which is what kept them from being written.
    try:
        won.add(target) if os.write(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY), b"#") else None
    except OSError:
        pass
print("overwritten", sorted(won), "of", sorted(held))
"""


def test_overwriting_the_program_that_enters(warren: Warren, token: str, directory: Path) -> None:
    """CVE-2019-5736: what enters by `exec` runs from a sealed memfd; a program of the container's own is its own."""
    name = f"exe-{token}"
    script = directory / "attack.py"
    script.write_text(OVERWRITE)
    warren("run", "-d", "--name", name, "-v", f"{script}:/attack.py:ro", "host", "--", "sleep", "100").ok()
    try:
        warren("exec", name, "sh", "-c", "cp /bin/sleep /usr/bin/own; printf '#!/proc/self/exe\\n' >/usr/bin/evil").ok()
        warren("exec", name, "chmod", "755", "/usr/bin/evil").ok()
        attacker = warren.popen("exec", name, "python3", "/attack.py", "4")
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            warren("exec", name, "evil")
            warren("exec", name, "true").ok()
        warren("exec", name, "own", "0.3").ok()
        told = attacker.communicate(timeout=30)[0]
    finally:
        warren("rm", "-f", name).ok()
    won, _, held = told.partition(" of ")
    assert "memfd:warren-init" in held
    assert "/usr/bin/own" in won, "the attack does not work at all"
    assert "memfd" not in won


def test_a_program_for_empty_cgroups(attack: Attacker) -> None:
    body = """
import glob
found = glob.glob("/sys/fs/cgroup/**/release_agent", recursive=True)
if not found:
    raise OSError(2, "no release_agent")
os.close(os.open(found[0], os.O_WRONLY))
"""
    assert attack(body).startswith("lost")
    mounting = """
call(libc.mount(b"x", b"/mnt", b"cgroup", 0, b"memory"))
os.close(os.open("/mnt/release_agent", os.O_WRONLY))
"""
    assert attack(mounting).startswith("lost")
    if Path("/sys/fs/cgroup/memory/release_agent").exists():
        assert attack(mounting, "--cgroupns", "host", *ALL) == "won"


def test_leaving_ones_cgroup(attack: Attacker) -> None:
    body = """
import glob
found = [path for path in glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True)]
opened = 0
for path in found:
    try:
        os.close(os.open(path, os.O_WRONLY))
        opened += 1
    except OSError:
        pass
return opened > 0
"""
    attack.fails_but_for(body, "--cgroupns", "host", *ALL)


def test_keyrings(attack: Attacker) -> None:
    """add_key(2) and keyctl(2): a user's keys are shared by all containers of that user."""
    attack.fails_but_for(
        "call(libc.syscall(250 if os.uname().machine == 'x86_64' else 219, 0, -3, 1))", "--security-opt",
        "seccomp=unconfined",
    )  # fmt: skip


def test_abstract_sockets_of_the_host(attack: Attacker, token: str) -> None:
    name = f"\0warren-attack-{token}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        body = f"socket.socket(socket.AF_UNIX).connect({name!r})"
        attack.fails_but_for(body, "--network", "host")


def _handle(path: Path) -> tuple[bytes, int]:
    """What name_to_handle_at(2) says of a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(8 + 128)
    room[0:4] = (128).to_bytes(4, "little")
    mount = ctypes.c_int()
    assert libc.name_to_handle_at(-100, os.fsencode(path), room, ctypes.byref(mount), 0) == 0
    size = int.from_bytes(room.raw[0:4], "little")
    return room.raw[: 8 + size], mount.value


def test_opening_a_file_by_its_handle(attack: Attacker, secret: Path) -> None:
    """Shocker: any file of a file system of which the container has some directory."""
    given = secret.parent / "given"
    given.mkdir()
    handle, _ = _handle(secret)
    body = f"""
root = os.open("/given", os.O_RDONLY)
fd = call(libc.open_by_handle_at(root, {handle!r}, os.O_RDONLY))
return os.read(fd, 100) == b"the host's secret\\n"
"""
    attack.fails_but_for(body, *ALL, always=("-v", f"{given}:/given:ro"))


def test_reading_the_disk_by_a_node_of_ones_own(attack: Attacker, directory: Path) -> None:
    disks = [line.split() for line in Path("/proc/partitions").read_text().splitlines()[2:]]
    major, minor = (int(word) for word in disks[0][:2]) if disks else (1, 0)
    body = f"""
os.mknod("/usr/disk", 0o600 | stat.S_IFBLK, os.makedev({major}, {minor}))
os.close(os.open("/usr/disk", os.O_RDONLY))
"""
    assert attack(body).startswith("lost")
    assert attack(body, "--userns", "host", "--cap-add", "MKNOD").startswith("lost"), "its cgroup has no such device"
    if _host_reads_disks(directory / "disk", os.makedev(major, minor)):
        assert attack(body, *ALL) == "won"


def _host_reads_disks(path: Path, device: int) -> bool:
    """It may itself be kept from it."""
    os.mknod(path, 0o600 | stat.S_IFBLK, device)
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    finally:
        path.unlink()
    return True


def test_programs_that_gain_privileges(warren: Warren, rootfs: Path) -> None:
    """A set-user-ID program of the image is no way back to root."""
    (rootfs / "bin/probe").chmod(0o4755)
    words = ["--user", "1000", "--rootfs", str(rootfs), "/bin/probe", "caps"]
    none = "CapEff:\t" + "0" * 16
    assert none in warren("run", *words).ok().out
    assert none not in warren("run", "--security-opt", "no-new-privileges=false", *words).ok().out


def test_ping_and_low_ports_need_no_privilege(warren: Warren) -> None:
    body = """
import socket
socket.socket(socket.AF_INET, socket.SOCK_STREAM).bind(("", 80))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
"""
    words = ["--network", "bridge", "--user", "65534:65534", "--cap-drop", "ALL"]
    warren("run", *words, "host", "--", "python3", "-c", body).ok()
    words += ["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"]
    assert warren("run", *words, "host", "--", "python3", "-c", body).code == 1
