"""Device programs of a live cgroup by bpf(2): load, attach, replace.  For `update`; a launch leaves it to `init`."""

import posix
from errno import EPERM, errorcode

from ..errors import UnsupportedError, WarrenError
from ..syscalls import bpf

# bpf(2), linux/bpf.h.
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
_ALLOW_MULTI, _REPLACE = 2, 4
_LOG, _MANY = 1 << 16, 64


def replace(path: str, program: bytes) -> None:
    """Attach the program to the cgroup `path`, in one step instead of the one that is there.

    Raises UnsupportedError where bpf(2) is not permitted, WarrenError with the verifier's words where it refuses.
    """
    cgroup = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    opened = [cgroup]
    try:
        opened.append(load(program))
        olds = [_call("BPF_PROG_GET_FD_BY_ID", _PROG_GET_FD_BY_ID, "=I", number)[0] for number in attached(cgroup)]
        opened += olds
        attach(cgroup, opened[1], olds[0] if olds else -1)
        for extra in olds[1:]:
            _call("BPF_PROG_DETACH", _PROG_DETACH, "=III", cgroup, extra, _CGROUP_DEVICE)
    finally:
        for fd in opened:
            posix.close(fd)


def load(program: bytes) -> int:
    """The descriptor of a loaded program."""
    arguments = (_TYPE_CGROUP_DEVICE, len(program) // 8, bytearray(program), bytearray(b"Apache-2.0\0"))
    try:
        return bpf(_PROG_LOAD, "=IIQQ", *arguments)[0]
    except OSError as error:
        if error.errno == EPERM:
            raise _refusal("BPF_PROG_LOAD", error) from error
        raise _refusal("BPF_PROG_LOAD", error, _verdict(arguments)) from error


def attach(cgroup: int, program: int, instead_of: int = -1) -> None:
    flags = _ALLOW_MULTI if instead_of < 0 else _ALLOW_MULTI | _REPLACE
    _call("BPF_PROG_ATTACH", _PROG_ATTACH, "=IIIII", cgroup, program, _CGROUP_DEVICE, flags, max(0, instead_of))


def attached(cgroup: int) -> "list[int]":
    """Ids of the device programs of a cgroup, its parents' not among them."""
    from struct import unpack, unpack_from

    ids = bytearray(4 * _MANY)
    _, attr = _call("BPF_PROG_QUERY", _PROG_QUERY, "=IIIIQI", cgroup, _CGROUP_DEVICE, 0, 0, ids, _MANY)
    count = unpack_from("=I", attr, 24)[0]
    return list(unpack(f"={count}I", ids[: 4 * count]))


def _verdict(arguments: "tuple[int | bytearray, ...]") -> str:
    """The last line of the verifier's log that is no statistics."""
    log = bytearray(_LOG)
    try:
        posix.close(bpf(_PROG_LOAD, "=IIQQIIQ", *arguments, 1, len(log), log)[0])
    except OSError:
        pass
    lines = bytes(log).rstrip(b"\0").decode("utf-8", "replace").splitlines()
    return next((line for line in reversed(lines) if line and not line.startswith("processed ")), "")


def _call(name: str, command: int, layout: str, *values: "int | bytearray") -> "tuple[int, bytes]":
    try:
        return bpf(command, layout, *values)
    except OSError as error:
        raise _refusal(name, error) from error


def _refusal(name: str, error: OSError, words: str = "") -> WarrenError:
    what = f"device program: {name}: {errorcode.get(error.errno or 0, error.errno)}"
    if error.errno == EPERM:
        return UnsupportedError(what, hint="it needs CAP_BPF or CAP_SYS_ADMIN, outside of user namespaces")
    return WarrenError(f"{what}: {words}" if words else what)
