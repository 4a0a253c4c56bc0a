"""What containers take on disk: what each has changed of its root, and the image below."""

import os

from ..errors import NotFoundError
from ..quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Record


def changed_size(record: "Record") -> int:
    """Bytes of the files that it has changed or made (docker's SizeRw)."""
    keep = record.data["config"].get("keep_changes") or record.path
    return tree_size(f"{keep}/upper")


def whole_size(record: "Record") -> int:
    """The same and the layers of its image (docker's SizeRootFs)."""
    from ..images.store import Store

    store = Store()
    size = changed_size(record)
    for chain in record.data.get("chains") or ():
        try:
            size += tree_size(store.layer_path(chain))
        except NotFoundError:
            continue
    return size


def size_text(record: "Record") -> str:
    own = changed_size(record)
    return f"{format_size(own)} (virtual {format_size(whole_size(record))})"


def tree_size(path: str) -> int:
    """Bytes of all regular files and links below, each once; nothing is followed, what is not there counts nothing."""
    size, seen = 0, set()
    for _, directories, files, fd in os.fwalk(path) if os.path.isdir(path) else ():
        for name in (*directories, *files):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_file = status.st_mode & 0o170000 in (0o100000, 0o120000)
            if is_file and (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                size += status.st_size
    return size
