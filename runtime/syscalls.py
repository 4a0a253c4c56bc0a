"""System calls that Python's posix module lacks, and the one place that reads an exit status.

ctypes costs 2.5 ms to import and is loaded by the functions that need it; the launch itself needs none of them.
Raises OSError that names the path.
"""

import _signal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

O_PATH = 0o10000000
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
# The same number on every architecture that Linux has gained openat2 on (5.6).
_NR_OPENAT2 = 437
_NR_PIDFD_GETFD = 438


def take_interrupt() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt; until here it has ended the process (launcher.c)."""
    if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
        _signal.signal(_signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: "FrameType | None") -> None:
    if frame and frame.f_code.co_filename.startswith("<frozen importlib") and frame.f_code.co_name == "cb":
        # A callback that ends the lock of a module: what it raises is told on stderr and forgotten.  Whoever has let go
        # of the lock raises instead, at its next line.
        sys.settrace(lambda *_: None)
        if frame.f_back:
            frame.f_back.f_trace = _interrupt_line
        return
    raise KeyboardInterrupt


def _interrupt_line(*_: object) -> None:
    raise KeyboardInterrupt


def ignore_interrupt() -> None:
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)


def exit_code(status: int) -> int:
    """A wait status as a shell's exit code: 128+n when signal n ended the process."""
    code = posix.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def wait(pid: int) -> int:
    """Wait for a child; its exit code as above."""
    return exit_code(posix.waitpid(pid, 0)[1])


def wait_used(pid: int) -> "tuple[int, float, int]":
    """The same, with what the child and its own children used: seconds of processor time, most bytes of memory."""
    _, status, used = posix.wait4(pid, 0)
    return exit_code(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def openat2_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2) with RESOLVE_IN_ROOT: links in `path` never lead out of the directory `root` (RULES 4)."""
    import ctypes

    class OpenHow(ctypes.Structure):
        _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]

    how = OpenHow(flags | posix.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(128):
        fd = libc.syscall(
            ctypes.c_long(_NR_OPENAT2), ctypes.c_int(root), path.encode("utf-8", "surrogateescape"),
            ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)),
        )  # fmt: skip
        if fd >= 0:
            return int(fd)
        # EAGAIN: something was renamed during the lookup.
        if ctypes.get_errno() != 11:
            break
    number = ctypes.get_errno()
    raise OSError(number, posix.strerror(number), path)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A duplicate, close-on-exec, of another process's descriptor (pidfd_getfd(2), Linux 5.6)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(ctypes.c_long(_NR_PIDFD_GETFD), ctypes.c_int(pidfd), ctypes.c_int(number), ctypes.c_uint(0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd: " + posix.strerror(ctypes.get_errno()))
    return int(fd)


_NR_KCMP = {"x86_64": 312, "aarch64": 272}


def same_memory(one: int, other: int) -> bool:
    """Whether two processes share their address space (kcmp(2), KCMP_VM); False also where the kernel does not tell."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_NR_KCMP[posix.uname().machine])
    arguments = (ctypes.c_int(one), ctypes.c_int(other), ctypes.c_int(1), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return int(libc.syscall(number, *arguments)) == 0


_NR_BPF = {"x86_64": 321, "aarch64": 280}


def bpf(command: int, layout: str, *values: "int | bytearray") -> "tuple[int, bytes]":
    """bpf(2): `values` as struct(3py) lays them out in union bpf_attr, a bytearray as the address of its contents.

    Returns the result and the attr as the kernel left it.
    """
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    held = [(ctypes.c_char * len(v)).from_buffer(v) if isinstance(v, bytearray) else v for v in values]
    numbers = [v if isinstance(v, int) else ctypes.addressof(v) for v in held]
    attr = ctypes.create_string_buffer(struct.pack(layout, *numbers).ljust(128, b"\0"), 128)
    number = ctypes.c_long(_NR_BPF[posix.uname().machine])
    result = libc.syscall(number, ctypes.c_int(command), ctypes.byref(attr), ctypes.c_uint(len(attr)))
    if result < 0:
        raise OSError(ctypes.get_errno(), posix.strerror(ctypes.get_errno()))
    return int(result), attr.raw


def syncfs(fd: int) -> None:
    """Write the file system of `fd` to disk (syncfs(2)); raises OSError for errors of writing since it was opened."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(ctypes.c_int(fd)):
        number = ctypes.get_errno()
        raise OSError(number, posix.strerror(number))


CLONE_NEWUSER = 0x10000000


def unshare(flags: int) -> None:
    """unshare(2); os has it since Python 3.12."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ctypes.c_int(flags)):
        number = ctypes.get_errno()
        raise OSError(number, "unshare: " + posix.strerror(number))


_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE, _IN_MOVE_SELF = 0x2, 0x80, 0x100, 0x800
_IN_NONBLOCK, _IN_CLOEXEC = 0o4000, 0o2000000
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 1, 28, 1 << 2


def set_parent_death_signal(number: int) -> None:
    """The signal that this process gets when the thread that has made it ends; prctl(2), PR_SET_PDEATHSIG."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(number), 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, "prctl: " + posix.strerror(error))


def watch_directory(path: str) -> int:
    """inotify(7): a descriptor that becomes readable when a file in it is written, made or renamed, or it is moved."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    wanted = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_MOVE_SELF
    if fd < 0 or libc.inotify_add_watch(fd, path.encode("utf-8", "surrogateescape"), wanted) < 0:
        errno = ctypes.get_errno()
        if fd >= 0:
            posix.close(fd)
        raise OSError(errno, "inotify: " + posix.strerror(errno))
    return int(fd)


def create_files_as(uid: int, gid: int) -> None:
    """From here on files that this thread makes belong to these ids, and it keeps the power over all others.

    An idmapped mount makes no files for ids that it does not map (EOVERFLOW), root's among them; a change of the file
    system's ids would take capabilities away, but for a secure bit (capabilities(7), setfsuid(2)).
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(ctypes.c_int(_PR_SET_SECUREBITS), ctypes.c_ulong(_NO_SETUID_FIXUP), 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, "prctl: " + posix.strerror(number))
    libc.setfsgid(ctypes.c_uint(gid))
    libc.setfsuid(ctypes.c_uint(uid))
    if libc.setfsuid(ctypes.c_uint(0xFFFFFFFF)) != ctypes.c_int(uid).value:
        raise OSError(1, "setfsuid: " + posix.strerror(1))
