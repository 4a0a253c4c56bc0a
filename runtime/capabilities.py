"""Names, numbers and sets of capabilities(7).

This module turns the names of a spec or of a command line into bit masks and back; it refuses to decide which
capabilities a container gets (config.py) and to set them (init does).
"""

import posix

from .errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
"""The five sets of process.capabilities, config.md, "Linux Process"."""

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""In the order of linux/capability.h: the index of a name is the capability's number."""

NUMBERS = {name: number for number, name in enumerate(NAMES)}

DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What a container gets unless told otherwise: podman's eleven, docker's without MKNOD, NET_RAW and AUDIT_WRITE."""


def mask(words: "Iterable[str]") -> tuple[int, list[str]]:
    """The bits of the names that are known, and the names that are not.

    A spec may name capabilities that only a newer runtime knows; runc and crun warn about them and go on.
    """
    bits = 0
    unknown = []
    for word in words:
        number = NUMBERS.get(word)
        if number is None:
            unknown.append(word)
        else:
            bits |= 1 << number
    return bits, unknown


def not_in(bits: int, words: "Iterable[str]") -> list[str]:
    """The names whose bits are not set, and the unknown ones, each once."""
    return [word for word in dict.fromkeys(words) if not mask([word])[0] & bits]


def names(bits: int) -> list[str]:
    """The known names in a mask, in the order of their numbers."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def adjust(base: "Iterable[str]", add: "Iterable[str]", drop: "Iterable[str]") -> list[str]:
    """Apply docker's --cap-add and --cap-drop to `base`, in the order of the numbers.

    Names are taken in any case, with or without CAP_.  ALL added is everything but what `drop` names; ALL dropped
    is nothing but what `add` names; a name in both is added (moby, TweakCapabilities).  UsageError for other words.
    """
    added, all_added = _given(add)
    dropped, all_dropped = _given(drop)
    if all_added and all_dropped:
        raise UsageError("capability ALL cannot be both added and dropped")
    if all_added:
        return names((1 << len(NAMES)) - 1 & ~dropped)
    start = 0 if all_dropped else mask(base)[0]
    return names(start & ~dropped | added)


def last_cap() -> int:
    """The highest capability that the running kernel knows (proc_sys_kernel(5), cap_last_cap)."""
    return int(_read("/proc/sys/kernel/cap_last_cap"))


def current() -> dict[str, int]:
    """Our own sets as masks: keys as in SETS; read from /proc/self/status (proc_pid_status(5))."""
    fields = {
        b"CapBnd": "bounding",
        b"CapEff": "effective",
        b"CapPrm": "permitted",
        b"CapInh": "inheritable",
        b"CapAmb": "ambient",
    }
    found = {}
    for line in _read("/proc/self/status").splitlines():
        key, _, value = line.partition(b":")
        if key in fields:
            found[fields[key]] = int(value, 16)
    return found


def _given(words: "Iterable[str]") -> tuple[int, bool]:
    bits = 0
    everything = False
    for word in words:
        name = word.upper()
        if name in ("ALL", "CAP_ALL"):
            everything = True
            continue
        number = NUMBERS.get(name if name.startswith("CAP_") else "CAP_" + name)
        if number is None:
            raise UsageError(f"unknown capability {word[:64]!r}", hint="see capabilities(7) for the names")
        bits |= 1 << number
    return bits, everything


def _read(path: str) -> bytes:
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(descriptor, 65536)
    finally:
        posix.close(descriptor)
