"""Removing what containers have written, whatever they have made there.  shutil would cost a launch 6 ms."""

import posix
from errno import EACCES, EEXIST, ENOENT, ENOTDIR, ENOTEMPTY

from .syscalls import O_PATH

_TRIES = 1000
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


def remove_tree(path: str) -> None:
    """rm -rf, followed by no link; idempotent.

    However deep it is, there are two descriptors and short names: a directory below another one is first moved up to
    the top.  Others may be at it too.
    """
    for _ in range(_TRIES):
        try:
            _remove_once(path)
            return
        except OSError as error:
            if error.errno not in (ENOENT, ENOTEMPTY, EEXIST):
                raise  # Else somebody was faster, or was just about to write there.
    _remove_once(path)


def _remove_once(path: str) -> None:
    try:
        top = posix.open(path, _DIRECTORY)
    except OSError as error:
        if error.errno == ENOENT:
            return
        if error.errno != ENOTDIR:
            raise
        posix.unlink(path)  # Somebody has put something else there.
        return
    try:
        _empty(top)
    finally:
        posix.close(top)
    posix.rmdir(path)


def _empty(top: int) -> None:
    number = 0
    while names := posix.listdir(top):
        for name in names:
            if _remove(top, name):
                continue
            directory = _open(top, name)
            try:
                for inner in posix.listdir(directory):
                    if not _remove(directory, inner):
                        number = _move_up(directory, inner, top, number)
            finally:
                posix.close(directory)


def _move_up(directory: int, name: str, top: int, number: int) -> int:
    """Under the next number that is free; that number."""
    posix.close(_open(directory, name))  # Only who may write to a directory can move it.
    while True:
        number += 1
        try:
            posix.rename(name, f".{number}.gone", src_dir_fd=directory, dst_dir_fd=top)
            return number
        except OSError as error:
            if error.errno not in (EEXIST, ENOTEMPTY, ENOTDIR):
                raise


def _remove(directory: int, name: str) -> bool:
    """Remove what is no directory, or an empty one; False for another."""
    try:
        posix.unlink(name, dir_fd=directory)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if not _is_directory(directory, name):
            raise error
    try:
        posix.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno not in (EEXIST, ENOTEMPTY):
            raise
        return False
    return True


def _is_directory(directory: int, name: str) -> bool:
    return posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mode & 0o170000 == 0o040000


def _open(directory: int, name: str) -> int:
    """Its owner may open and change any, whatever its mode."""
    try:
        fd = posix.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno != EACCES:
            raise
        # O_PATH needs no right to read; and by way of /proc no link is followed that has taken the place.
        fd = posix.open(name, posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC | O_PATH, dir_fd=directory)
        try:
            posix.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            posix.close(fd)
        fd = posix.open(name, _DIRECTORY, dir_fd=directory)
    if posix.geteuid():
        posix.chmod(fd, 0o700)
    return fd
