"""The image store: blobs by digest, names, and each layer unpacked once and shared.

    ROOT/               0700
        lock            whoever adds holds it shared (flock), whoever removes exclusively
        index.json      names, and the digest of the manifest that each stands for
        blobs/sha256/   complete blobs, named after what they hash to
        partial/        blobs that are being fetched, each locked by who fetches it; kept to be resumed
        layers/CHAIN/   an unpacked layer, below the others of its chain; published by rename
        layers/.new-*   layers that are being unpacked
        users/ID        what a container uses: its chain ids
        pending/        a file for each that adds, which names the boot: it goes when all is on disk

Whatever is killed at whatever instant, the next command finds a store that it can use: nothing has its final name
before it is complete.  Bringing it to disk is one syncfs(2) at the end of a pull; where the machine itself went down
before that, the next boot finds the file in pending/, and removes all that no name in the index vouches for.
"""

import fcntl
import os
import time
from contextlib import contextmanager
from errno import EAGAIN, EEXIST, ENOENT, ENOTEMPTY

from ..errors import ImageError, NotFoundError, SpecError, UsageError
from ..jsontext import dump_json, parse_json
from ..syscalls import syncfs
from . import reference
from .holes import MIN_HOLE, is_zero
from .local import Image as Image
from .local import LocalStore, readings
from .manifest import digest_of
from .overlay import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .reference import Reference

    Json = dict[str, Any]

_PARTIAL_SECONDS = 7 * 24 * 3600
"""How long an interrupted download is kept to be resumed."""
_PIECE = 1 << 20
_FLUSH_SECONDS = 0.1


class Store(LocalStore):
    """All of it below `root`; nothing is made before it is needed."""

    def __init__(self, root: str = "") -> None:
        super().__init__(root)
        self.privileged = os.geteuid() == 0
        self.owner = Owner(privileged=self.privileged)
        """Whose the files of layers are that are made by this process."""
        self._mapped: bool | None = None

    @property
    def mapped(self) -> bool:
        """Whether layers are unpacked by a process that is root of our subordinate ids: files keep their owners."""
        if self._mapped is None:
            from .workers import can_map

            self._mapped = not self.privileged and can_map()
        return self._mapped

    def apart(self, what: str, *told: object, lock: str = "") -> "Any":
        """One of the functions of apart.py, by whoever may do such a thing to layers."""
        if not self.mapped:
            from .apart import FUNCTIONS

            return FUNCTIONS[what](*told)
        from .workers import call

        return call(what, *told, lock=lock)

    def discard(self, *paths: str) -> None:
        """Remove directories of layers."""
        if paths:
            self.apart("discard", *paths)

    # ---- locks

    @contextmanager
    def adding(self) -> "Iterator[None]":
        """Nothing that is in the store, or comes, is collected meanwhile; at the end it is on disk."""
        for name in ("", "/blobs/sha256", "/partial", "/layers", "/users", "/pending"):
            os.makedirs(self.root + name, 0o700, exist_ok=True)
        # Others must be able to pass through to what their containers' roots are made of, but not look around.
        os.chmod(self.root, 0o711 if self.privileged else 0o700)
        os.chmod(self.root + "/layers", 0o711 if self.privileged else 0o700)
        self._recover()
        fd = self._lock(fcntl.LOCK_SH)
        marker = f"{self.root}/pending/{_boot_id()}.{os.urandom(8).hex()}"
        try:
            write_file(marker, b"")
            try:
                yield
            finally:
                self.sync()
                os.unlink(marker)
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Bring everything of the file system to disk, once for all that was added (syncfs(2))."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    @contextmanager
    def writing(self) -> "Iterator[None]":
        """Bring what is written meanwhile to disk as it comes: at the end there is little left to wait for."""
        from threading import Event, Thread

        done = Event()
        errors: list[OSError] = []

        def flush() -> None:
            try:
                while not done.wait(_FLUSH_SECONDS):
                    self.sync()
            except OSError as error:
                errors.append(error)

        thread = Thread(target=flush, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if errors:
            raise errors[0]

    def _recover(self) -> None:
        """After a crash of the machine: what was not yet on disk may be there by name only."""
        boot = _boot_id()
        old = [name for name in os.listdir(self.root + "/pending") if not name.startswith(boot)]
        if not old:
            return
        fd = self._lock(fcntl.LOCK_EX)
        try:
            for name in os.listdir(self.root + "/partial"):
                os.unlink(f"{self.root}/partial/{name}")
            self._collect(self._is_kept)
        finally:
            os.close(fd)

    # ---- blobs

    def open_blob(self, digest: str) -> "Iterator[bytes]":
        """A blob in pieces."""
        with open(self.blob_path(digest), "rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def add_blob(self, data: bytes) -> str:
        digest = digest_of(data)
        if not self.has_blob(digest):
            with self.partial(digest) as partial:
                partial.restart()
                partial.write(data)
                partial.commit()
        return digest

    def new_blob(self) -> "NewBlob":
        """One whose digest is known at its end only, to be written in a `with`."""
        return NewBlob(self)

    @contextmanager
    def partial(self, digest: str) -> "Iterator[Partial]":
        """The beginning of a blob, for one process and thread at a time; another one waits here."""
        partial = Partial(self, digest)
        try:
            yield partial
        finally:
            partial.close()

    # ---- layers

    def new_layer(self) -> str:
        """An empty directory to unpack into; to be published or discarded."""
        while True:
            path = f"{self.root}/layers/.new-{os.urandom(8).hex()}"
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                continue
            os.chmod(path, 0o755)
            return path

    def publish_layer(self, path: str, chain: str) -> None:
        """Give it its name; somebody else may have been faster."""
        try:
            os.rename(path, self.layer_path(chain))
        except OSError as error:
            if error.errno not in (EEXIST, ENOTEMPTY):
                raise
            self.discard(path)

    def retire_layer(self, chain: str) -> str:
        """Take its name away, for a path that nobody looks for: never is there half of a layer under its name."""
        path = self.new_layer()
        os.rename(self.layer_path(chain), path)
        return path

    # ---- names

    def tag(self, ref: "Reference", manifest: str) -> None:
        """Let the name stand for a manifest that is in the store."""
        self._change_index(lambda names: names.__setitem__(str(ref), manifest))

    def untag(self, name: str) -> None:
        self._change_index(lambda names: names.pop(name, None))

    def names_of(self, text: str) -> "list[str]":
        """The names that removing `text` takes away: the one that it is, damaged or not, else all of the image's."""
        try:
            known = self.names()
            named = [name for name in readings(reference.parse(text)) if name in known]
        except UsageError:
            named = []
        return named[:1] or self.find(text).names

    def _change_index(self, change: "Callable[[dict[str, str]], object]") -> None:
        fd = os.open(self.root + "/index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            names = self.names()
            change(names)
            write_file(self.root + "/index.json", dump_json({"names": names}, 1).encode())
        finally:
            os.close(fd)

    def chains_in_use(self, exists: "Callable[[str], bool]") -> "list[list[str]]":
        """What each container that there is has taken."""
        return [self._used(container) for container in sorted(self._users()) if exists(container)]

    def users_of(self, image: Image, exists: "Callable[[str], bool]") -> "list[str]":
        """Containers that there are and that have taken exactly its layers."""
        return [one for one in sorted(self._users()) if exists(one) and self._used(one) == image.chains]

    def _users(self) -> "set[str]":
        """Ids of containers that have taken layers, of those that are kept even if the note here is lost."""
        found: set[str] = set()
        for directory in (self.root + "/users", self._records):
            try:
                found |= {name for name in os.listdir(directory) if name[0] != "."}
            except FileNotFoundError:
                continue
        return found

    @property
    def _records(self) -> str:
        """Where the containers that are kept lie (engine/records.py)."""
        return os.path.dirname(self.root) + "/containers"

    def _is_kept(self, container: str) -> bool:
        return os.path.exists(f"{self._records}/{container}/config.json")

    # ---- removal

    def collect(self, exists: "Callable[[str], bool]") -> int:
        """Remove what no name and no container needs; bytes of the blobs that went.  `exists` says whether a container
        does.  While somebody adds, nothing is collected: 0."""
        try:
            fd = self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (EAGAIN, ENOENT):
                return 0
            raise
        try:
            return self._collect(exists)
        finally:
            os.close(fd)

    def _collect(self, exists: "Callable[[str], bool]") -> int:
        blobs: set[str] = set()
        chains: set[str] = set()
        for digest in set(self.names().values()):
            image = self._load_whole(digest)
            blobs |= {digest, image.id, *(layer.digest for layer in image.manifest.layers)}
            chains |= set(image.chains)
        for container in self._users():
            if exists(container):
                chains |= set(self._used(container))
            else:
                self.release(container)
        freed = 0
        gone: list[str] = []
        for name in os.listdir(self.root + "/blobs/sha256"):
            if "sha256:" + name not in blobs:
                path = f"{self.root}/blobs/sha256/{name}"
                freed += os.stat(path).st_size
                os.unlink(path)
        for name in os.listdir(self.root + "/layers"):
            if "sha256:" + name not in chains:
                chain = "sha256:" + name
                gone.append(f"{self.root}/layers/{name}" if name.startswith(".") else self.retire_layer(chain))
        self.discard(*gone)
        for name in os.listdir(self.root + "/partial"):
            path = f"{self.root}/partial/{name}"
            if time.time() - os.stat(path).st_mtime > _PARTIAL_SECONDS:
                os.unlink(path)
        self.sync()
        for name in os.listdir(self.root + "/pending"):
            os.unlink(f"{self.root}/pending/{name}")
        return freed

    def _load_whole(self, digest: str) -> Image:
        """What a damaged image needs is not known, so nothing can be removed."""
        try:
            return self.load(digest)
        except (ImageError, NotFoundError) as error:
            known = next((name for name, named in self.names().items() if named == digest), digest)
            raise ImageError(
                f"image {known}: {error.message}; nothing is removed while it is damaged",
                hint=f"warren image verify --repair, or warren untag {known}",
            ) from error

    def _used(self, container: str) -> "list[str]":
        """What a container needs: by the note here and, as that may be lost or torn by a crash, by its own record."""
        for path in (f"{self.root}/users/{container}", f"{self._records}/{container}/config.json"):
            try:
                with open(path, "rb") as file:
                    told = parse_json(file.read(), path)
            except (FileNotFoundError, NotADirectoryError, SpecError):
                continue
            chains = told.get("chains") if isinstance(told, dict) else None
            if isinstance(chains, list):
                return [str(chain) for chain in chains]
        return []


class Partial:
    """What there is of a blob so far.  Written at the end, and given its name when it hashes to it."""

    def __init__(self, store: Store, digest: str) -> None:
        self._store = store
        self._digest = digest
        self.path = f"{store.root}/partial/{digest[7:]}"
        self._fd = -1
        while self._fd < 0:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Whoever had it may have given it its final name meanwhile.
            if _same(fd, self.path):
                self._fd = fd
            else:
                os.close(fd)
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size += len(data)

    def pieces(self) -> "Iterator[bytes]":
        """What is there already."""
        at = 0
        while piece := os.pread(self._fd, _PIECE, at):
            at += len(piece)
            yield piece

    def restart(self) -> None:
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.size = 0

    def commit(self, *, sync: bool = True) -> None:
        """It is whole, and what its name says; without `sync` somebody else brings it to disk before it is named in the
        index."""
        if sync:
            os.fsync(self._fd)
        os.rename(self.path, self._store.blob_path(self._digest))

    def close(self) -> None:
        if self._fd >= 0:
            if not self.size and _same(self._fd, self.path):
                os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1


class NewBlob:
    """A blob that is hashed while it is written; the store has it at the end of the `with`, if nothing was raised."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = f"{store.root}/partial/.new-{os.urandom(8).hex()}"
        self._file = open(self._path, "wb")
        from hashlib import sha256

        self._hash = sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: "bytes | memoryview") -> int:
        self._hash.update(data)
        self.size += len(data)
        if len(data) >= MIN_HOLE and is_zero(data):
            self._file.seek(len(data), os.SEEK_CUR)
            return len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def __enter__(self) -> "NewBlob":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._file.truncate(self.size)  # It may end with a hole.
            self._file.close()
            if kind is None:
                os.rename(self._path, self._store.blob_path(self.digest))
        finally:
            if os.path.exists(self._path):
                os.unlink(self._path)


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def write_file(path: str, data: bytes) -> None:
    """Whole or not at all (fsync, rename)."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def _same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
