"""Ends the program that carries a private network (private.py) when its container is gone."""

import _signal
import posix
import time

from ..state import read_file, start_time

_SECONDS = 5.0


def api_socket(directory: str) -> str:
    """Of slirp4netns; beside the container's directory, since AF_UNIX allows for 107 bytes."""
    place, _, container_id = directory.rpartition("/")
    return f"{place}/{container_id[:12]}.api"


def stop(directory: str) -> None:
    """End the program of a container that is gone; idempotent."""
    try:
        posix.unlink(api_socket(directory))
    except FileNotFoundError:
        pass
    try:
        number, _, started = posix.readlink(f"{directory}/program").partition(" ")
    except OSError:
        number = _read(f"{directory}/pid")
        started = start_time(int(number)) if number.isdecimal() else ""
    if not number.isdecimal() or start_time(int(number)) != started or not started:
        return
    try:
        fd = posix.pidfd_open(int(number))
        if start_time(int(number)) == started:
            _signal.pidfd_send_signal(fd, _signal.SIGKILL)
        posix.close(fd)
    except OSError:
        return
    deadline = time.monotonic() + _SECONDS
    while start_time(int(number)) and time.monotonic() < deadline:
        time.sleep(0.001)
    try:
        posix.waitpid(int(number), 0)
    except ChildProcessError:
        pass


def _read(path: str) -> str:
    try:
        return read_file(path).decode("utf-8", "replace").strip()
    except OSError:
        return ""
