"""Hands a listener of SCMP_ACT_NOTIFY to the agent that answers for the container (config-linux.md, "Seccomp").

It owns the one message to `listenerPath`; it refuses to answer system calls itself.
"""

import _socket
import posix
from _struct import pack

from ..errors import UnsupportedError, WarrenError
from ..syscalls import pidfd_getfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Program


def hand_over(program: "Program", pid: int, number: int, state: str, version: str) -> None:
    """Take descriptor `number` out of process `pid`, which waits for us, and send it with a containerProcessState.

    `state` is the container's state as JSON.  Raises UnsupportedError where the kernel does not let us take it.
    """
    from ..jsontext import dump_json

    process = dump_json(
        {
            "ociVersion": version,
            "fds": ["seccompFd"],
            "pid": pid,
            **({"metadata": program.listener_metadata} if program.listener_metadata else {}),
        }
    )
    # `state` is JSON already: it becomes the last member of the object.
    message = f'{process.rstrip()[:-1].rstrip()},"state":{state}}}'.encode()
    listener = _take(pid, number)
    try:
        _send(program.listener_path, message, listener)
    finally:
        posix.close(listener)


def _take(pid: int, number: int) -> int:
    process = posix.pidfd_open(pid)
    try:
        return pidfd_getfd(process, number)
    except PermissionError as error:
        # Init is undumpable, so that the container's processes cannot reach it: that takes CAP_SYS_PTRACE.
        raise UnsupportedError("linux.seccomp: SCMP_ACT_NOTIFY needs CAP_SYS_PTRACE", hint="run it as root") from error
    finally:
        posix.close(process)


def _send(path: str, message: bytes, listener: int) -> None:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", listener))])
    except OSError as error:
        reason = posix.strerror(error.errno) if error.errno else str(error)
        raise WarrenError(
            f"linux.seccomp.listenerPath {path}: {reason}".lower(), hint="does the agent listen?"
        ) from error
    finally:
        sock.close()
