"""A mount namespace in which Warren has a store and a state of its own, on a file system of a chosen size."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from .warren import Warren

_MOUNT = (
    "mount -t tmpfs -o mode=711,size={size} room /var/lib/warren && mount -t tmpfs -o mode=711 room /run/warren"
    " && echo ready && exec sleep infinity"
)


@contextmanager
def own_store(size: str = "64m") -> Iterator[tuple[Warren, list[str]]]:
    """Its `warren`, and the words that go before another command that is to see the same."""
    for place in ("/var/lib/warren", "/run/warren"):
        subprocess.run(["mkdir", "-p", place], check=True)
    command = ["unshare", "--mount", "sh", "-c", _MOUNT.format(size=size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "ready\n"
            prefix = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
            yield Warren(prefix), prefix
        finally:
            holder.kill()
