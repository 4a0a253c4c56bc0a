"""cgroupfs as files: whole reads and single writes, cheap enough for a launch; every OSError names the path."""

import posix
from errno import ENODEV, ENOENT


def exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def read(path: str) -> str:
    """The whole file; "" where it, or its cgroup, is not there (any more)."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return ""
        raise
    try:
        parts = []
        while part := posix.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError as error:
        if error.errno == ENODEV:  # The cgroup was removed while its file was open.
            return ""
        raise OSError(error.errno, posix.strerror(error.errno or 0), path) from error
    finally:
        posix.close(fd)


def write(path: str, value: str) -> None:
    """One write(2), which cgroupfs takes as a whole or not at all."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, posix.strerror(error.errno or 0), path) from error
    finally:
        posix.close(fd)


def words(text: str) -> "dict[str, int]":
    """Flat keyed files (cgroup-v2.rst, "Flat keyed"): a word and a number a line."""
    parts = text.split()
    return dict(zip(parts[::2], map(int, parts[1::2]), strict=False))


def hierarchy(legacy: "dict[str, str]", controller: str) -> str:
    """The name, such as "cpu,cpuacct", of the v1 hierarchy with the controller; "" for none."""
    if controller in legacy:
        return controller
    return next((name for name in legacy if controller in name.split(",")), "")
