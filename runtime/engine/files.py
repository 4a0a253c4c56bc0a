"""Files in a container of the library, by the machinery of `warren cp`: no link in the container leads out of it.

Whoever controls the container may put links anywhere: each path is resolved below its root, by a helper that is in none
of its namespaces (helper.py), and nothing of the container is executed.
"""

import os
import tempfile

from ..errors import UsageError
from ..images import tar
from . import copying
from .root_view import on_container
from .streams import STAND_IN, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Record


class Files:
    """`with runtime.container(...) as c: c.fs.write("/etc/motd", "hello")`; paths are the container's, absolute."""

    def __init__(self, record: "Record") -> None:
        self._record = record

    def read(self, path: str, *, limit: "int | None" = None) -> bytes:
        """A regular file's content, links in the path followed within the container; at most `limit` bytes of it.

        NotFoundError where there is none, UsageError for what is no regular file.
        """
        asked = Source(path)
        request = {"task": "pack", "path": asked.path, "name": STAND_IN, "follow": True}
        with copying.at_rest(self._record), on_container(self._record, request, writes=True) as helper:
            reader = tar.Reader(helper.stream)
            first = next(iter(reader), None)
            if first is None:
                helper.finish()  # It says why.
            if first is None or first.type != tar.FILE:
                raise UsageError(f"{path}: not a regular file")
            parts, left = [], first.size if limit is None else limit
            for part in reader.data():
                parts.append(bytes(part[:left]))
                left -= len(parts[-1])
            helper.finish()
        return b"".join(parts)

    def read_text(self, path: str, *, encoding: str = "utf-8") -> str:
        """The same as text, without any translation of line ends; UnicodeDecodeError."""
        return self.read(path).decode(encoding)

    def write(self, path: str, data: "bytes | str", *, mode: int = 0o644) -> None:
        """Make or replace a file of the container's root user; its directory must be there.

        NotFoundError, UsageError; StateError for a read-only root.
        """
        with tempfile.TemporaryDirectory(prefix="warren-") as directory:
            source = f"{directory}/{os.path.basename(path)}"
            with open(source, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
            os.chmod(source, mode)
            copying.copy_in(self._record, source, path)

    def put(self, source: "str | os.PathLike[str]", target: str, *, archive: bool = False) -> "list[str]":
        """Copy a file or directory of the host to the container, as `warren cp` does; notes on what was left out.

        Files become root's there; with `archive` they keep the numbers of their owners.
        """
        return copying.copy_in(self._record, os.fspath(source), target, archive=archive)

    def get(self, source: str, target: "str | os.PathLike[str]", *, archive: bool = False) -> "list[str]":
        """Copy a file or directory of the container to the host; notes on what was left out.

        Files become the caller's, without set-user-ID bits; with `archive` they stay what they are.
        """
        return copying.copy_out(self._record, source, os.fspath(target), archive=archive)
