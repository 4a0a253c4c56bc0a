"""Volumes: directories that outlive the containers that they are mounted in.

    DATA/volumes/           0700: what containers make in them (set-user-ID programs, say) is kept from others
        NAME/               made elsewhere and renamed, so whoever makes it has the name; an flock on it serialises
            volume.json     created, labels, options, whether it was made for one container
            _data/          what is mounted; the ids on disk are the containers' own
            users/ID        a link to "PID STARTTIME" for each container; the process is who makes the container
        .new-PID-START-N    being made
        .gone-N             being removed

A volume is in use while one of its users is there (records.exists), or is being made.
"""

import posix
import time
from errno import EEXIST, ENOENT, ENOTEMPTY

from ..config import mounts
from ..config.mounts import VOLUME, Wish
from ..container import default_data
from ..errors import NotFoundError, SpecError, StateError, UnsupportedError, UsageError
from ..jsontext import dump_json, parse_json
from ..state import lock_directory, make_root, read_file, start_time, unlock
from .records import exists, find
from .trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from ..config import ContainerConfig
    from .records import Record

    Json = dict[str, Any]

_NEW, _GONE = ".new-", ".gone-"
_MAX_COUNTED = 256
"""Directories in each other that count for a size."""


def volumes_root() -> str:
    return default_data() + "/volumes"


class Volume:
    """The volume `name`; what it was made with is in `data`, read once."""

    __slots__ = ("_data", "_lock", "name", "path")

    def __init__(self, name: str) -> None:
        self.name = mounts.check_name(name)
        self.path = f"{volumes_root()}/{name}"
        self._data: Json | None = None
        self._lock = -1

    @property
    def data(self) -> "Json":
        """created, labels, options, anonymous; NotFoundError when there is no such volume."""
        if self._data is None:
            self._data = self._read()
        return self._data

    def _read(self) -> "Json":
        try:
            found = parse_json(read_file(f"{self.path}/volume.json"), "volume.json")
        except OSError as error:
            if error.errno == ENOENT:
                raise NotFoundError(f"no such volume: {self.name!r}", hint="warren volume ls") from error
            raise
        except SpecError as error:
            raise StateError(f"{self.path}/volume.json is damaged: {error.message}", hint="see _data there") from error
        return found if isinstance(found, dict) else {}

    @property
    def source(self) -> str:
        """What is mounted: a directory of its own, or the one that it stands for (--opt o=bind)."""
        return str((self.data.get("options") or {}).get("device") or f"{self.path}/_data")

    @property
    def labels(self) -> "dict[str, str]":
        return dict(self.data.get("labels") or {})

    @property
    def anonymous(self) -> bool:
        return bool(self.data.get("anonymous"))

    def is_empty(self) -> bool:
        return not posix.listdir(self.source)

    # ---- users

    def users(self, there: "Callable[[str], bool] | None" = None) -> "list[str]":
        """Ids of the containers that need it; `there` is records.exists()'s answer, where it has been asked for."""
        there = there or exists()
        return [user for user, taker in self._takers() if there(user) or start_time(taker[0]) == taker[1]]

    def _takers(self) -> "Iterator[tuple[str, tuple[int, str]]]":
        try:
            names = posix.listdir(f"{self.path}/users")
        except FileNotFoundError:
            return
        for name in names:
            try:
                pid, started = posix.readlink(f"{self.path}/users/{name}").split(" ")
            except (OSError, ValueError):
                continue  # Let go meanwhile.
            yield name, (int(pid), started)

    def take(self, container_id: str) -> None:
        """Note a user; NotFoundError when it has just been removed."""
        with self:
            try:
                posix.symlink(f"{posix.getpid()} {start_time(posix.getpid())}", f"{self.path}/users/{container_id}")
            except FileExistsError:
                pass

    def let_go(self, container_id: str) -> None:
        try:
            posix.unlink(f"{self.path}/users/{container_id}")
        except OSError as error:
            if error.errno != ENOENT:
                raise

    # ---- the lock

    def __enter__(self) -> "Volume":
        try:
            self._lock = lock_directory(self.path)
        except FileNotFoundError as error:
            raise NotFoundError(f"no such volume: {self.name!r}", hint="warren volume ls") from error
        return self

    def __exit__(self, *_: object) -> None:
        unlock(self._lock)
        self._lock = -1

    # ---- its end

    def remove(self) -> None:
        """StateError while a container needs it."""
        with self:
            if users := self.users():
                others = ", ".join(user[:12] for user in users)
                raise StateError(f"volume {self.name!r} is in use by {others}", hint="remove the container first")
            gone = f"{volumes_root()}/{_GONE}{posix.urandom(8).hex()}"
            posix.rename(self.path, gone)
        remove_tree(gone)


def create(
    name: str = "",
    *,
    labels: "dict[str, str] | None" = None,
    options: "dict[str, str] | None" = None,
    anonymous: bool = False,
) -> Volume:
    """Make a volume, one with a name made up for ""; one that is there already is as good (docker).

    Raises UsageError for a bad name or options that the one that is there does not have.
    """
    options = _checked(options or {})
    _sweep()
    volume = Volume(name or posix.urandom(32).hex())
    staged = f"{volumes_root()}/{_NEW}{posix.getpid()}-{start_time(posix.getpid())}-{posix.urandom(4).hex()}"
    posix.mkdir(staged, 0o700)
    try:
        _fill(staged, {"created": _now(), "labels": labels or {}, "options": options, "anonymous": anonymous})
        posix.rename(staged, volume.path)
    except OSError as error:
        remove_tree(staged)
        if error.errno not in (EEXIST, ENOTEMPTY):
            raise
        if options and options != (volume.data.get("options") or {}):
            raise UsageError(f"volume {name!r} is there, with other options") from error
    return volume


def _fill(directory: str, data: "Json") -> None:
    posix.mkdir(f"{directory}/users", 0o700)
    posix.mkdir(f"{directory}/_data", 0o755)
    posix.chmod(f"{directory}/_data", 0o755)
    fd = posix.open(f"{directory}/volume.json", posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        posix.write(fd, dump_json(data).encode("utf-8", "surrogateescape"))
        if not data["anonymous"]:
            posix.fsync(fd)
    finally:
        posix.close(fd)


def _checked(options: "dict[str, str]") -> "dict[str, str]":
    """Of docker's local driver: a directory that the volume stands for (type=none, o=bind, device=DIR)."""
    if not options:
        return {}
    words = options.get("o", "").split(",")
    if set(options) - {"type", "o", "device"} or options.get("type", "none") not in ("none", "bind"):
        hint = "type=none, o=bind, device=DIR; for others mount them on the host, or use --tmpfs"
        raise UnsupportedError("volume options: only directories of the host can be volumes", hint=hint)
    device = options.get("device", "")
    if not {"bind", "rbind"} & set(words) or not device.startswith("/"):
        raise UsageError("volume options: o=bind and device=DIR belong together")
    return dict(options)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _sweep() -> None:
    """Remove what killed commands have left half made or half removed."""
    root = volumes_root()
    make_root(root)
    for name in posix.listdir(root):
        if name.startswith(_NEW):
            pid, started, _ = name.removeprefix(_NEW).split("-")
            if start_time(int(pid)) == started:
                continue
        elif not name.startswith(_GONE):
            continue
        remove_tree(f"{root}/{name}")


def volumes() -> "list[Volume]":
    """All of them, by name."""
    try:
        names = posix.listdir(volumes_root())
    except FileNotFoundError:
        return []
    return [Volume(name) for name in sorted(names) if name[0] != "."]


def find_volume(name: str) -> Volume:
    """By its name, or an unambiguous beginning; NotFoundError and UsageError."""
    known = [volume for volume in volumes() if name and volume.name.startswith(name)]
    exact = [volume for volume in known if volume.name == name]
    if len(exact or known) > 1:
        raise UsageError(f"volume {name!r} is ambiguous", hint="give more of the name")
    if not known:
        raise NotFoundError(f"no such volume: {name!r}", hint="warren volume ls")
    return (exact or known)[0]


# ---- volumes of containers


def resolve(config: "ContainerConfig") -> "list[Json]":
    """What is mounted in a container that is being made: its image's volumes, other containers', its own wishes.

    Volumes that are not there are made, those without a name get one, and all are taken for `config.id`.  Raises
    UsageError, NotFoundError; what has been taken is let go then.
    """
    inherited = [wish for text in config.volumes_from for wish in _of_container(text)]
    wanted = mounts.merge(mounts.wishes_of_image(config), inherited, mounts.wishes(config))
    taken: list[Wish] = []
    try:
        for wish in wanted:
            if wish.type == VOLUME:
                wish.name = wish.name or posix.urandom(32).hex()
                taken.append(wish)
                take(wish, config.id)
    except BaseException:
        release(taken, config.id, remove=True)
        raise
    return [wish.to_dict() for wish in wanted]


def take(wish: Wish, container_id: str) -> Volume:
    """The volume of a wish for a container; made if need be."""
    while True:
        volume = Volume(wish.name)
        try:
            volume.take(container_id)
            return volume
        except NotFoundError:
            create(wish.name, labels=wish.labels, anonymous=wish.anonymous)


def _of_container(text: str) -> "list[Wish]":
    """--volumes-from CONTAINER[:ro|rw|z|Z]: what that has from its host, at the same places."""
    name, _, words = text.partition(":")
    options = [word for word in words.split(",") if word]
    if set(options) - {"ro", "rw", "z", "Z", "nocopy"}:
        raise UsageError(f"--volumes-from {text!r}: unknown option", hint="CONTAINER[:ro]")
    found = [Wish.from_dict(entry) for entry in find(name).config().resolved_mounts]
    for wish in found:
        if "ro" in options:
            wish.options = [*(word for word in wish.options if word not in ("ro", "rw")), "ro"]
        wish.options = [word for word in wish.options if word != "U"]
    return [wish for wish in found if wish.type != mounts.TMPFS]


def release(wishes: "Iterable[Wish]", container_id: str, *, remove: bool) -> None:
    """Let a container's volumes go; with `remove` those that were made for it, too, unless others need them."""
    for wish in wishes:
        if wish.type != VOLUME or not wish.name:
            continue
        volume = Volume(wish.name)
        volume.let_go(container_id)
        try:
            if remove and wish.anonymous and volume.anonymous:
                volume.remove()
        except (NotFoundError, StateError):
            pass  # Gone, or others need it.


class Places:
    """The mounts of one launch: `wishes` with the sources of volumes filled in.

    Empty volumes that are to get what the image has in their place are locked until close(): of two containers that
    find one empty only the first fills it.
    """

    def __init__(self, config: "ContainerConfig", *, fill: bool) -> None:
        self.wishes = mounts.resolved(config)
        self._filled: list[Volume] = []
        # The host's own root is no image, and what it has would be more than anybody meant.
        fill = fill and bool(config.layers or config.rootfs)
        try:
            for wish in sorted(self.wishes, key=lambda wish: wish.name):
                if wish.type == VOLUME:
                    self._place(wish, config.id, fill and "nocopy" not in wish.options and "O" not in wish.options)
        except BaseException:
            self.close()
            raise

    def _place(self, wish: Wish, container_id: str, fill: bool) -> None:
        wish.name = wish.name or posix.urandom(32).hex()
        volume = take(wish, container_id)
        wish.source = volume.source
        try:
            if not fill or not volume.is_empty() or any(held.name == volume.name for held in self._filled):
                return
        except OSError as error:
            reason = posix.strerror(error.errno or 0).lower()
            raise UsageError(f"volume {wish.name!r}: {wish.source}: {reason}") from error
        self._filled.append(volume.__enter__())
        wish.options = [*wish.options, "copyup"]

    def close(self) -> None:
        for volume in self._filled:
            volume.__exit__()
        self._filled = []


def planned(config: "ContainerConfig") -> "list[Json]":
    """The mounts that a plan shows: nothing is made, and a volume without a name is called so."""
    found = mounts.resolved(config)
    for wish in found:
        if wish.type == VOLUME:
            wish.source = f"{volumes_root()}/{wish.name or 'new'}/_data"
    return [wish.to_dict() for wish in found]


# ---- told


def inspect(volume: Volume) -> "Json":
    """docker's keys."""
    return {
        "CreatedAt": volume.data.get("created"),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": volume.source,
        "Name": volume.name,
        "Options": volume.data.get("options") or {},
        "Scope": "local",
        "Anonymous": volume.anonymous,
    }


def mounts_of(record: "Record") -> "list[Json]":
    """docker's Mounts of a container's inspect; what --tmpfs asks for is in HostConfig.Tmpfs alone."""
    config = record.config()
    apart = {text.partition(":")[0] for text in config.tmpfs}
    wishes = [Wish.from_dict(entry) for entry in config.resolved_mounts]
    return [_told(wish) for wish in wishes if wish.type != "tmpfs" or wish.target not in apart]


def _told(wish: Wish) -> "Json":
    found: Json = {"Type": wish.type, "Source": wish.source, "Destination": wish.target, "Mode": wish.mode}
    if wish.type == VOLUME:
        try:
            found["Source"] = Volume(wish.name).source
        except NotFoundError:
            found["Source"] = ""
        found |= {"Name": wish.name, "Driver": "local"}
    propagation = [word for word in wish.options if word.removeprefix("r") in ("shared", "slave", "private")]
    default = "rprivate" if wish.type == mounts.BIND else ""
    return {**found, "RW": wish.writable, "Propagation": (propagation or [default])[0]}


def select(filters: "Iterable[str]") -> "list[Volume]":
    """docker's filters: name=PART, label=KEY[=VALUE], label!=..., dangling=BOOL, driver=local; all must hold."""
    tests = [_filter(text) for text in filters]
    return [volume for volume in volumes() if all(test(volume) for test in tests)]


def _filter(text: str) -> "Callable[[Volume], bool]":
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--filter {text!r} is not KEY=VALUE")
    if key == "name":
        return lambda volume: value in volume.name
    if key == "driver":
        return lambda _volume: value == "local"
    if key in ("label", "label!"):
        return lambda volume: _has_label(volume, value) == (key == "label")
    if key in ("dangling", "anonymous"):
        if value.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"--filter {text!r}: true or false")
        wanted, there = value.lower() in ("true", "1"), exists()
        if key == "anonymous":
            return lambda volume: volume.anonymous == wanted
        return lambda volume: (not volume.users(there)) == wanted
    raise UsageError(f"--filter {key!r} is unknown", hint="name, label, dangling, driver or anonymous")


def _has_label(volume: Volume, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    labels = volume.labels
    return key in labels and (not equals or labels[key] == value)


def size_of(volume: Volume) -> int:
    """Bytes on disk of what is in it, down to a depth that nobody needs."""
    import os

    total = 0
    for path, directories, files, fd in os.fwalk(volume.source, follow_symlinks=False):
        if path.count("/") > _MAX_COUNTED:
            directories.clear()
        for name in [*directories, *files]:
            try:
                total += os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def prune(*, every: bool, filters: "Iterable[str]" = ()) -> "Iterator[tuple[str, int]]":
    """Remove volumes that no container needs, without `every` only those made for one; names and bytes as they go."""
    _sweep()
    there = exists()
    for volume in select(filters):
        if volume.users(there) or not (every or volume.anonymous):
            continue
        try:
            freed = size_of(volume)
            volume.remove()
        except (NotFoundError, StateError):
            continue
        yield volume.name, freed
