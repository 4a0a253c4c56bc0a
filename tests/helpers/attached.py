"""Attaches our own streams to a monitor, and ends with the container's exit code.

    python3 attached.py TREE DESCRIPTOR PID [terminal] [stdin] [send] [owner]

120 when detached, 121 when the monitor has been killed.  A process of its own, for the sake of its streams and signals.
"""

import contextlib
import os
import socket
import sys

sys.path.insert(0, sys.argv[1])

from runtime.monitor import Attached, Client


def main(fd: int, pid: int, *words: str) -> int:
    client = Client(socket.socket(fileno=fd))

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    attached = Attached(
        client,
        terminal="terminal" in words,
        stdin="stdin" in words,
        send=send if "send" in words else None,
        owner="owner" in words,
    )
    with attached:
        code = attached.follow()
    if code is not None:
        client.done()
    return code if code is not None else 120 if attached.detached else 121


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
