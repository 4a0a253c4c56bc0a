"""Files and changes of containers: cp in both directions, export, diff and commit; of those that run and those that do
not."""

import os
from contextlib import contextmanager

from ..errors import NotFoundError, StateError, UsageError
from ..host import Host
from ..images import tar
from ..images.store import Image, Store
from ..jsontext import parse_json
from . import journal, lifecycle
from .helper import on_files
from .records import Record, find
from .root_view import on_container
from .streams import STAND_IN, Source, Tree, Unpacker, pack, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO, Any

    from ..images.reference import Reference

_PIECE = 1 << 16


def split(text: str) -> "tuple[str, str]":
    """CONTAINER:PATH as the two; ("", text) for a path of the host, which begins with / or . or has no colon."""
    name, colon, path = text.partition(":")
    if not colon or not name or text[0] in "/." or "/" in name:
        return "", text
    return name, path


@contextmanager
def at_rest(record: Record) -> "Iterator[None]":
    """Nobody starts it meanwhile; one that runs is left alone."""
    if record.state_dir.process():
        yield
        return
    with record:
        lifecycle.settle(record)
        yield


# ---- out


def copy_out(record: Record, source: str, target: str, *, archive: bool = False, follow: bool = False) -> "list[str]":
    """Copy a container's file or directory to a path of the host; notes on what was left out.

    Files become the caller's, without set-user-ID bits and attributes; with `archive` they stay what they are, as far
    as the caller may make such.  Raises NotFoundError and UsageError.
    """
    asked = Source(source)
    request = {"task": "pack", "path": asked.path, "name": STAND_IN, "follow": follow or asked.slash}
    with at_rest(record), on_container(record, request, writes=True) as helper:
        reader = tar.Reader(helper.stream)
        entries = iter(reader)
        first = next(entries, None)
        if first is None:
            helper.finish()
            raise NotFoundError(f"{source}: a socket cannot be copied")
        notes = _write_out(reader, first, entries, asked, target, archive=archive)
        helper.finish()
        return notes


def _write_out(
    reader: "tar.Reader",
    first: "tar.Entry",
    entries: "Iterator[tar.Entry]",
    asked: Source,
    target: str,
    *,
    archive: bool,
) -> "list[str]":
    directory = first.type == tar.DIRECTORY
    if asked.slash and not directory:
        raise UsageError(f"{asked.path}: not a directory")
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree, wanted = Tree(root), _absolute(target)
        base, rename = place(tree, wanted, asked.name, is_directory=directory, contents=asked.contents)
        unpacker = Unpacker(tree, base, contained=False, archive=archive, rename=rename)
        try:
            unpacker.add(first, reader.data())
            for entry in entries:
                unpacker.add(entry, reader.data())
            unpacker.finish()
        finally:
            unpacker.close()
        return unpacker.notes
    finally:
        os.close(root)


def _absolute(path: str) -> str:
    """From the caller's directory; "x/." and "x/" stay what they are."""
    return path if path.startswith("/") else f"{os.getcwd()}/{path}"


def read_out(record: Record, source: str, file: "IO[bytes]", *, follow: bool = False) -> None:
    """Write a container's file or directory as a tar; owners are those in the container."""
    asked = Source(source)
    name = "." if asked.contents else asked.name
    _stream(record, {"task": "pack", "path": asked.path, "name": name, "follow": follow or asked.slash}, file)


def export(record: Record, file: "IO[bytes]") -> None:
    """Write a container's whole root as a tar, without what is mounted in it."""
    _stream(record, {"task": "pack", "path": "/", "name": "", "one_file_system": True}, file, volumes=False)


def _stream(record: Record, request: "dict[str, Any]", file: "IO[bytes]", *, volumes: bool = True) -> None:
    with at_rest(record), on_container(record, request, writes=True, volumes=volumes) as helper:
        while piece := helper.stream.read(_PIECE):
            file.write(piece)
        helper.finish()


# ---- in


def copy_in(record: Record, source: str, target: str, *, archive: bool = False, follow: bool = False) -> "list[str]":
    """Copy a file or directory of the host into a container; notes on what was left out.

    Files become root's there; with `archive` they keep the numbers of their owners.
    """
    asked = Source(_absolute(source))
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = Tree(root)
        directory = tree.kind(asked.path, follow=follow or asked.slash) == 0o040000
        if asked.slash and not directory:
            tree.open_directory(asked.path)
        os.close(tree.open(asked.path, follow=follow or asked.slash))
        request = {"task": "unpack", "path": target, "name": asked.name, "is_directory": directory,
                   "contents": asked.contents, "archive": archive}  # fmt: skip
        with _writable(record), on_container(record, request, writes=False) as helper:
            try:
                pack(tree, asked.path, helper.stream, STAND_IN, follow=follow or asked.slash)
                helper.stream.flush()
            except BrokenPipeError:
                pass  # The helper says why.
            return list(helper.finish().get("notes") or ())
    finally:
        os.close(root)


def write_in(record: Record, file: "IO[bytes]", target: str) -> "list[str]":
    """Unpack a tar, compressed or not, in a directory of a container; owners are those that it tells."""
    from ..images.stream import Layer

    plain = Layer(iter(lambda: file.read(_PIECE), b""), hashes_blob=False, hashes_content=False)
    request = {"task": "unpack", "path": target, "archive": True}
    with _writable(record), on_container(record, request, writes=False) as helper:
        try:
            while piece := plain.read(_PIECE):
                helper.stream.write(piece)
            helper.stream.flush()
        except BrokenPipeError:
            pass
        return list(helper.finish().get("notes") or ())


@contextmanager
def _writable(record: Record) -> "Iterator[None]":
    with at_rest(record):
        if record.config().read_only and not record.state_dir.process():
            raise StateError(f"container {record.name!r} has a read-only root")
        yield


# ---- changes


class Changes:
    """What a container, or what `run --keep-changes DIRECTORY` has left, has changed of its image."""

    def __init__(self, text: str) -> None:
        self.store = Store()
        self.record: Record | None = None
        try:
            self.record = find(text)
        except (NotFoundError, UsageError):
            if not os.path.isdir(text):
                raise
        if self.record is None:
            from ..images.changes import read_base

            self.upper, self.manifest = f"{text}/upper", read_base(text)
            return
        self.upper, self.manifest = self.record.upper, str(self.record.data.get("manifest") or "")
        if not self.manifest:
            raise UsageError(f"container {text!r} is of no image", hint="warren export")

    def tell(self) -> "list[tuple[str, str]]":
        """As docker diff: (A, C or D, path)."""
        if not os.path.isdir(self.upper):
            return []
        lower = self.store.layer_paths(self._chains())
        if Host.probe().privileged:
            from ..images.changes import changes

            return changes(self.upper, lower)
        with on_files({"task": "changes", "upper": self.upper, "lower": lower}) as helper:
            said = helper.stream.read()
            helper.finish()
        found: Any = parse_json(said, "changes")
        return [(str(kind), str(path)) for kind, path in found]

    def _chains(self) -> "list[str]":
        if self.record:
            return list(self.record.data.get("chains") or ())
        return self.store.load(self.manifest).chains

    def commit(
        self, names: "Sequence[Reference]", *, instructions: "Sequence[str]", author: str, message: str, pause: bool
    ) -> Image:
        """An image of the image and the changes; a container that runs is paused meanwhile, if that is wanted."""
        from ..images.changes import commit

        base = self.store.load(self.manifest)
        with self._paused(pause), self._written() as write:
            made = commit(self.store, base, self.upper, names, instructions=instructions, author=author,
                          message=message, write=write)  # fmt: skip
        if self.record:
            journal.note(self.record, "commit")
        return made

    @contextmanager
    def _paused(self, wanted: bool) -> "Iterator[None]":
        record = self.record
        if not (wanted and record and record.state_dir.process() and record.status() == "running"):
            yield
            return
        with record:
            record.container.pause()
            try:
                yield
            finally:
                record.container.resume()

    @contextmanager
    def _written(self) -> "Iterator[Any]":
        """What writes the layer: for an ordinary user a helper, who may read all that his containers have made."""
        if not os.path.isdir(self.upper):
            yield _write_empty
            return
        if Host.probe().privileged:
            yield None
            return

        lower = self.store.layer_paths(self._chains())

        def write(file: "Any") -> None:
            with on_files({"task": "layer", "upper": self.upper, "lower": lower}) as helper:
                while piece := helper.stream.read(_PIECE):
                    file.write(piece)
                helper.finish()

        yield write


def _write_empty(file: "Any") -> None:
    """A tar without entries: two blocks of zeros."""
    file.write(bytes(1024))
