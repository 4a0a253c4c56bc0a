"""Seccomp: what is refused, the cache's distrust, the default profile's promises, and the kernel's opinion."""

import ctypes
import errno
import json
import os
import struct
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from runtime import seccomp
from runtime.errors import SpecError, UnsupportedError
from runtime.seccomp import profile, tables

PACKAGE = Path(seccomp.__file__).parent
MACHINE = os.uname().machine

DENIED = {
    "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "keyctl", "add_key", "request_key",
    "unshare", "setns", "clone", "clone3", "mount", "umount2", "pivot_root", "bpf", "perf_event_open", "init_module",
    "kexec_load", "open_by_handle_at", "socket", "personality", "chroot", "reboot", "swapon", "move_mount", "fsopen",
    "open_tree", "mount_setattr",
}  # fmt: skip

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2


def rules(*syscalls: "dict[str, Any]", **more: object) -> "dict[str, Any]":
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(syscalls), **more}


def argument(**more: object) -> "dict[str, Any]":
    return {
        "names": ["read"],
        "action": "SCMP_ACT_KILL",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"} | more],
    }


def test_fingerprint_covers_the_compiler() -> None:
    """Programs in caches are by the fingerprint; whoever changes the compiler or a table changes it too."""
    files = sorted(PACKAGE.glob("*.py")) + sorted((PACKAGE / "tables").glob("*.py"))
    sources = [file for file in files if file not in (PACKAGE / "__init__.py", PACKAGE / "profile.py")]
    digest = blake2b(b"".join(source.read_bytes() for source in sources), digest_size=8)
    assert digest.hexdigest().encode() == seccomp.FINGERPRINT, "set FINGERPRINT in runtime/seccomp/__init__.py"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({}, "defaultAction"),
        (rules(defaultAction="SCMP_ACT_NONE"), "defaultAction"),
        (rules(defaultAction="SCMP_ACT_NOTIFY"), "defaultAction"),
        (rules(defaultErrnoRet=1), "defaultErrnoRet"),
        (rules(architectures=["SCMP_ARCH_PDP11"]), "architectures"),
        (rules(architectures="SCMP_ARCH_X86"), "architectures"),
        (rules(flags=["SECCOMP_FILTER_FLAG_NEW_LISTENER"]), "flags"),
        (rules(listenerMetadata="x"), "listenerMetadata"),
        (rules(syscalls={}), "syscalls"),
        (rules({"names": [], "action": "SCMP_ACT_KILL"}), "syscalls[0].names"),
        (rules({"names": [""], "action": "SCMP_ACT_KILL"}), "syscalls[0].names"),
        (rules({"names": ["read"]}), "syscalls[0].action"),
        (rules({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1}), "syscalls[0].errnoRet"),
        (rules({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": -1}), "syscalls[0].errnoRet"),
        (rules({"names": ["write"], "action": "SCMP_ACT_NOTIFY"}, listenerPath="/s"), "syscalls[0]"),
        (rules({"names": ["read"], "action": "SCMP_ACT_NOTIFY"}), "listenerPath"),
        (rules(argument(index=6)), "syscalls[0].args[0].index"),
        (rules(argument(value=2**64)), "syscalls[0].args[0].value"),
        (rules(argument(value=True)), "syscalls[0].args[0].value"),
        (rules(argument(valueTwo="1")), "syscalls[0].args[0].valueTwo"),
        (rules(argument(op="==")), "syscalls[0].args[0].op"),
        (rules(argument(), argument() | {"action": "SCMP_ACT_TRAP"}), "syscalls"),
    ],
)
def test_refused(value: "dict[str, Any]", where: str) -> None:
    with pytest.raises(SpecError) as caught:
        seccomp.compile(value, "x86_64")
    assert str(caught.value).startswith(f"linux.seccomp.{where}: ")


def test_flags_and_listener() -> None:
    flags = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")]
    assert seccomp.compile(rules(flags=flags), "x86_64").flags == 2 | 4
    notify = {"names": ["mknod"], "action": "SCMP_ACT_NOTIFY"}
    program = seccomp.compile(rules(notify, flags=flags, listenerPath="/s", listenerMetadata="m"), "x86_64")
    assert (program.flags, program.notify) == (2 | 4 | 8 | 32, True)
    assert (program.listener_path, program.listener_metadata) == ("/s", "m")


def test_too_long_and_unknown_machine() -> None:
    many = [
        {"names": [name], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}
        for number, name in enumerate(sorted(tables.numbers("x86_64")))
        for value in range(number * 100, number * 100 + 40, 2)
    ]
    with pytest.raises(UnsupportedError, match="instructions"):
        seccomp.compile(rules(*many), "x86_64")
    with pytest.raises(UnsupportedError, match="no table"):
        seccomp.compile(rules(), "alpha")
    with pytest.raises(UnsupportedError, match="no default seccomp profile"):
        seccomp.default_profile(set(), "alpha")


class TestDefaultProfile:
    def test_names_are_known(self) -> None:
        known = set().union(*[tables.numbers(arch) for arch in ("x86_64", "i386", "x32", "aarch64", "arm")])
        known |= set(tables.multiplexed())
        named = {name for names in (profile.ALLOWED, *profile.CAPABLE.values()) for name in names.split()}
        # Listed by moby and in no table here: riscv's own, and names of libseccomp for calls that no kernel has.
        assert named - known <= {"riscv_hwprobe", "getsid", "fadvise64_64"}

    def test_denied(self) -> None:
        allowed = {
            name for entry in seccomp.default_profile(set(), "x86_64")["syscalls"] for name in entry["names"]
            if entry["action"] == "SCMP_ACT_ALLOW" and "args" not in entry
        }  # fmt: skip
        assert not allowed & DENIED

    def test_capabilities_bring_calls(self) -> None:
        names = {
            name
            for entry in seccomp.default_profile({"CAP_SYS_CHROOT"}, "x86_64")["syscalls"]
            for name in entry["names"]
        }
        assert "chroot" in names
        assert "mount" not in names
        admin = seccomp.default_profile({"CAP_SYS_ADMIN"}, "aarch64")
        assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} not in admin["syscalls"]
        assert admin["architectures"] == ["SCMP_ARCH_AARCH64"]


class TestCache:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        return tmp_path / "deep" / "seccomp"

    @pytest.fixture
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> "list[int]":
        count: list[int] = []
        compile_: Callable[..., Any] = seccomp.compile

        def counted(*arguments: Any) -> Any:
            count.append(1)
            return compile_(*arguments)

        monkeypatch.setattr(seccomp, "compile", counted)
        return count

    def load(self, directory: Path, **more: object) -> seccomp.Program:
        value = rules({"names": ["mknod"], "action": "SCMP_ACT_NOTIFY"}, listenerPath="/s", **more)
        return seccomp.load(value, "x86_64", str(directory))

    def test_hit(self, directory: Path, compiled: "list[int]") -> None:
        first, second = self.load(directory), self.load(directory)
        assert len(compiled) == 1
        assert [getattr(first, name) for name in first.__slots__] == [getattr(second, name) for name in first.__slots__]
        assert directory.stat().st_mode & 0o777 == 0o700
        self.load(directory, listenerMetadata="other")
        assert len(compiled) == 2

    @pytest.mark.parametrize("at", [0, 31, 32, 36, 40, -1])
    def test_corrupted_is_rebuilt(self, directory: Path, compiled: "list[int]", at: int) -> None:
        wanted = self.load(directory).program
        (entry,) = directory.iterdir()
        content = bytearray(entry.read_bytes())
        content[at] ^= 1
        entry.write_bytes(content)
        assert self.load(directory).program == wanted
        assert len(compiled) == 2
        self.load(directory)
        assert len(compiled) == 2

    def test_truncated_is_rebuilt(self, directory: Path, compiled: "list[int]") -> None:
        wanted = self.load(directory).program
        (entry,) = directory.iterdir()
        for content in (b"", entry.read_bytes()[:40], entry.read_bytes()[:-8]):
            entry.write_bytes(content)
            assert self.load(directory).program == wanted
        assert len(compiled) == 4

    def test_entry_of_another_profile_is_rebuilt(self, directory: Path, compiled: "list[int]") -> None:
        self.load(directory)
        (entry,) = directory.iterdir()
        seccomp.load(rules(), "x86_64", str(directory))
        (other,) = set(directory.iterdir()) - {entry}
        entry.write_bytes(other.read_bytes())
        assert self.load(directory).notify
        assert len(compiled) == 3

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o750, 0o755])
    def test_directory_open_to_others_is_ignored(self, directory: Path, compiled: "list[int]", mode: int) -> None:
        self.load(directory)
        directory.chmod(mode)
        self.load(directory)
        self.load(directory)
        assert len(compiled) == 3

    def test_writable_entry_is_rebuilt(self, directory: Path, compiled: "list[int]") -> None:
        self.load(directory)
        (entry,) = directory.iterdir()
        entry.chmod(0o620)
        self.load(directory)
        assert len(compiled) == 2
        (entry,) = directory.iterdir()
        assert entry.stat().st_mode & 0o777 == 0o600

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
    def test_foreign_owner_is_ignored(self, directory: Path, compiled: "list[int]") -> None:
        self.load(directory)
        (entry,) = directory.iterdir()
        os.chown(entry, 1, 1)
        self.load(directory)
        os.chown(directory, 1, 1)
        self.load(directory)
        assert len(compiled) == 3

    def test_symbolic_links_are_not_followed(self, directory: Path, compiled: "list[int]", tmp_path: Path) -> None:
        self.load(directory)
        (tmp_path / "link").symlink_to(directory)
        self.load(tmp_path / "link")
        (entry,) = directory.iterdir()
        entry.rename(tmp_path / "entry")
        entry.symlink_to(tmp_path / "entry")
        self.load(directory)
        assert len(compiled) == 3

    def test_unusable_directory_costs_only_time(self, compiled: "list[int]") -> None:
        for place in ("", "/proc/warren/seccomp", "/dev/null/seccomp"):
            assert len(seccomp.load(rules(), "x86_64", place))
        assert len(compiled) == 3

    def test_old_entries_go(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seccomp, "ENTRIES", 5)
        for number in range(12):
            self.load(directory, listenerMetadata=str(number))
        assert len(list(directory.iterdir())) <= 5


def in_child(program: seccomp.Program, calls: "list[tuple[int, ...]]") -> "list[int]":
    """errno of each system call (0: none) under the filter, of a child process that has loaded it."""
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(program.program)
    filter_ = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answers = []
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(PR_SET_SECCOMP, MODE_FILTER, filter_, 0, 0):
            os.write(writer, struct.pack("=i", -ctypes.get_errno()))
            os._exit(0)
        for call in calls:
            ctypes.set_errno(0)
            libc.syscall(*[ctypes.c_long(value) for value in call])
            answers.append(ctypes.get_errno())
        os.write(writer, struct.pack(f"={len(answers)}i", *answers))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    return list(struct.unpack(f"={len(content) // 4}i", content))


def test_specs_share_a_profile_and_its_program_and_callers_get_one_of_their_own(tmp_path: Path) -> None:
    shared = seccomp.shared_profile(set(), MACHINE)
    assert shared is seccomp.shared_profile(set(), MACHINE)
    assert shared is not seccomp.shared_profile({"CAP_SYS_ADMIN"}, MACHINE)
    program = seccomp.load(shared, MACHINE, str(tmp_path / "cache"))
    assert program is seccomp.load(shared, MACHINE, "")
    assert program.program == seccomp.compile(seccomp.default_profile(set(), MACHINE), MACHINE).program
    own = seccomp.default_profile(set(), MACHINE)
    own["syscalls"].clear()
    assert not seccomp.is_default(own)
    assert seccomp.shared_profile(set(), MACHINE) == seccomp.default_profile(set(), MACHINE)
    assert json.loads(seccomp.text_of(shared)) == shared
    assert json.loads(seccomp.text_of(own)) == own


@pytest.mark.skipif(MACHINE not in profile.ARCHITECTURES, reason="no profile for this machine")
def test_kernel_enforces_the_default_profile() -> None:
    number = tables.numbers(MACHINE)
    program = seccomp.compile(seccomp.default_profile(set(), MACHINE), MACHINE)
    cases = {
        (number["getpid"],): 0,
        (number["socket"], 1, 1, 0): 0,
        (number["socket"], 38, 5, 0): errno.EPERM,
        (number["socket"], 40, 1, 0): errno.EPERM,
        (number["socket"], 1 << 32 | 1, 1, 0): errno.EPERM,
        (number["unshare"], 0x10000000): errno.EPERM,
        (number["clone"], 0x10000000 | 17, 0, 0, 0, 0): errno.EPERM,
        (number["clone3"], 0, 0): errno.ENOSYS,
        (number["io_uring_setup"], 1, 0): errno.EPERM,
        (number["userfaultfd"], 0): errno.EPERM,
        (number["keyctl"], 0, 0, 0): errno.EPERM,
        (number["personality"], 0xFFFFFFFF): 0,
        (number["personality"], 0x40000): errno.EPERM,
        (number["bpf"], 0, 0, 0): errno.EPERM,
        (number["mount"], 0, 0, 0, 0, 0): errno.EPERM,
        (number["mseal"], 1, 0, 0): errno.EINVAL,
        (1000,): errno.ENOSYS,
    }
    # Kernels before 6.10 have no mseal, others may have been built without it.
    if in_child(seccomp.compile(rules(), MACHINE), [(number["mseal"], 1, 0, 0)]) != [errno.EINVAL]:
        del cases[(number["mseal"], 1, 0, 0)]
    assert in_child(program, list(cases)) == list(cases.values())


@pytest.mark.skipif(MACHINE not in profile.ARCHITECTURES, reason="no profile for this machine")
def test_kernel_accepts_what_is_compiled() -> None:
    """Each operator, alone and with others, on calls that nobody makes here; the answer proves that it was loaded."""
    number = tables.numbers(MACHINE)
    operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
    for seed in range(3 * len(operators)):
        arguments = [
            {"index": n, "value": (seed << 31) + n, "valueTwo": n, "op": f"SCMP_CMP_{operators[(seed + n) % 7]}"}
            for n in range(1 + seed // 7)
        ]
        program = seccomp.compile(
            rules(
                {"names": ["kcmp", "swapon"], "action": "SCMP_ACT_KILL", "args": arguments},
                {"names": ["acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99},
            ),
            MACHINE,
        )
        assert in_child(program, [(number["acct"], 0)]) == [99]


def test_a_default_profile_is_had_whenever_another_thread_clears_them() -> None:
    """As one does that wants more of them than are kept."""

    def clear_at(line: int) -> "dict[str, Any]":
        left = line

        def trace(frame: FrameType, event: str, _argument: object) -> object:
            nonlocal left
            if frame.f_code is not seccomp.default_profile.__code__:
                return None
            left -= event == "line"
            if left == 0:
                seccomp._defaults.clear()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            return seccomp.default_profile({"CAP_CHOWN"}, "x86_64")
        finally:
            sys.settrace(before)

    assert all(clear_at(line)["defaultAction"] == "SCMP_ACT_ERRNO" for line in range(1, 12))
