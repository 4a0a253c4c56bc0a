"""Seccomp filters: `linux.seccomp` in, a program for the kernel out, and a cache in between.

It owns the cache and refuses to trust it: an entry counts only in a directory that nobody else can write, and only if
its digest fits.  What a profile means is compiler.py's; how the program reaches the kernel is init's.
"""

import posix
from _blake2 import blake2b
from _stat import S_ISREG
from _struct import pack, unpack_from
from marshal import dumps

from ..jsontext import dump_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Changes whenever the compiler or a table does, so that a program of an older Warren is never used.
# tests/unit/test_seccomp.py says what it has to be.
FINGERPRINT = b"8b689f5334ca21dc"

DIGEST = 32
HEADER = DIGEST + 8
LIMIT = HEADER + 8 * 4096
ENTRIES = 256


class Program:
    """A compiled filter.

    `program` is struct sock_filter[] in native byte order, `flags` are seccomp(2)'s SECCOMP_FILTER_FLAG_*, NEW_LISTENER
    among them if `notify`: then the call returns a listener, which belongs to the agent at `listener_path`.
    """

    __slots__ = ("flags", "listener_metadata", "listener_path", "notify", "program")

    def __init__(self, program: bytes, flags: int, notify: bool, path: str = "", metadata: str = "") -> None:
        self.program = program
        self.flags = flags
        self.notify = notify
        self.listener_path = path
        self.listener_metadata = metadata

    def __len__(self) -> int:
        """In instructions."""
        return len(self.program) // 8


def compile(seccomp: "dict[str, Any]", arch: str) -> Program:
    """Compile a whole `linux.seccomp` (runtime-spec, config-linux.md#seccomp) for a kernel on `arch`, as in uname -m.

    Raises SpecError for what the spec or runc refuse, UnsupportedError for what does not fit into a filter.
    """
    from .compiler import translate
    from .document import Profile

    profile = Profile(seccomp, arch)
    return _program(translate(profile), profile.flags, profile.notify, seccomp)


def load(seccomp: "dict[str, Any]", arch: str, directory: str) -> Program:
    """What compile() returns, from the cache in `directory` if it is there; "" means no cache.

    A cache that cannot be used is no error: the program is compiled again.
    """
    known = _known(seccomp)
    if known and known.program:
        return known.program
    program = _load(seccomp, arch, directory)
    if known:
        known.program = program
    return program


def _load(seccomp: "dict[str, Any]", arch: str, directory: str) -> Program:
    if not directory:
        return compile(seccomp, arch)
    # Version 0 of marshal has no references, so equal content gives equal bytes; another order of keys is a miss.
    key = blake2b(dumps((arch, seccomp), 0), key=FINGERPRINT, digest_size=32).digest()
    found = _read(directory, key)
    if found:
        flags, notify = unpack_from("=II", found, DIGEST)
        return _program(found[HEADER:], flags, bool(notify), seccomp)
    program = compile(seccomp, arch)
    _write(directory, key, pack("=II", program.flags, program.notify) + program.program)
    return program


class _Default:
    """A profile that default_profile() has made, and what has been made of it since."""

    __slots__ = ("profile", "program", "text")

    def __init__(self, profile: "dict[str, Any]") -> None:
        self.profile = profile
        self.program: Program | None = None
        self.text = ""


_defaults: "dict[tuple[frozenset[str], str], _Default]" = {}
_MOST_DEFAULTS = 16


def default_profile(capabilities: "set[str]", arch: str) -> "dict[str, Any]":
    """Warren's default `linux.seccomp` for a process with that bounding set; see profile.py.

    The same object again for the same set: nobody changes it.
    """
    key = frozenset(capabilities), arch
    if key not in _defaults:
        from .profile import resolve

        if len(_defaults) >= _MOST_DEFAULTS:
            _defaults.clear()
        _defaults[key] = _Default(resolve(capabilities, arch))
    return _defaults[key].profile


def _known(seccomp: object) -> "_Default | None":
    return next((one for one in list(_defaults.values()) if one.profile is seccomp), None)


def is_default(seccomp: object) -> bool:
    """Whether it is an object of default_profile()'s, which needs no validation."""
    return _known(seccomp) is not None


def text_of(seccomp: "dict[str, Any]") -> str:
    """A profile as JSON."""
    known = _known(seccomp)
    if not known:
        return dump_json(seccomp)
    known.text = known.text or dump_json(seccomp)
    return known.text


def _program(program: bytes, flags: int, notify: bool, seccomp: "dict[str, Any]") -> Program:
    return Program(program, flags, notify, seccomp.get("listenerPath") or "", seccomp.get("listenerMetadata") or "")


def _digest(key: bytes, body: bytes) -> bytes:
    """Keyed with the profile's own hash: an entry under another's name does not pass."""
    return blake2b(body, key=key, digest_size=DIGEST).digest()


def _read(directory: str, key: bytes) -> bytes:
    """A verified entry, b"" if there is none."""
    try:
        folder = _open(directory)
        try:
            entry = _read_file(folder, key.hex())
        finally:
            posix.close(folder)
    except OSError:
        return b""
    valid = len(entry) > HEADER and len(entry) % 8 == 0 and entry[:DIGEST] == _digest(key, entry[DIGEST:])
    return entry if valid else b""


def _open(directory: str) -> int:
    """The directory, if only its owner, who is this process's user, can do anything with it."""
    folder = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    status = posix.fstat(folder)
    if status.st_uid != posix.geteuid() or status.st_mode & 0o077:
        posix.close(folder)
        raise OSError(f"{directory} is open to others")
    return folder


def _read_file(folder: int, name: str) -> bytes:
    flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    descriptor = posix.open(name, flags, dir_fd=folder)
    try:
        status = posix.fstat(descriptor)
        if not S_ISREG(status.st_mode) or status.st_uid != posix.geteuid() or status.st_mode & 0o022:
            return b""
        return posix.read(descriptor, LIMIT + 1) if status.st_size <= LIMIT else b""
    finally:
        posix.close(descriptor)


def _write(directory: str, key: bytes, body: bytes) -> None:
    """Best effort: a full or read-only file system costs the next launch some milliseconds."""
    try:
        _make(directory)
        folder = _open(directory)
    except OSError:
        return
    name = key.hex()
    temporary = f".{name[:16]}.{posix.getpid()}.{posix.urandom(4).hex()}"
    try:
        _prune(folder)
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        descriptor = posix.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            # A short write leaves an entry whose digest does not fit, which is as good as none.
            posix.write(descriptor, _digest(key, body) + body)
        finally:
            posix.close(descriptor)
        posix.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        pass
    finally:
        posix.close(folder)


def _make(directory: str) -> None:
    try:
        posix.mkdir(directory, 0o700)
    except FileNotFoundError:
        _make(directory.rstrip("/").rpartition("/")[0] or "/")
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        pass


def _prune(folder: int) -> None:
    """Profiles that change with every container must not fill the disk: start over once there are many."""
    names = posix.listdir(folder)
    if len(names) >= ENTRIES:
        for name in names:
            posix.unlink(name, dir_fd=folder)
