"""What a user wants mounted: -v, --mount, --tmpfs and the image's volumes, each taken apart into one Wish.

A wish is plain data, so that it can be kept and told: who resolves volumes (the engine) fills in `source`, and entry()
makes of it what the spec has under `mounts`.
"""

import posix

from ..errors import UnsupportedError, UsageError
from ..namespaces.mount import normal
from ..quantities import size
from .words import absolute, absolute_path, mount_entry, yes_or_no

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from . import ContainerConfig

    Json = dict[str, Any]

BIND, VOLUME, TMPFS = "bind", "volume", "tmpfs"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_PLAIN = ("ro", "rw", "nosuid", "nodev", "noexec", "suid", "dev", "exec", "bind", "rbind")
_PROPAGATIONS = ("shared", "slave", "private", "unbindable")
_OURS = ("O", "U", "Z", "copy", "idmap", "nocopy", "z")
"""Words that say what is to be done, and are no option of a mount.

O changes are thrown away; U the files become those of the container's user; z, Z labels of SELinux; idmap insist on it;
copy, nocopy whether an empty volume gets what the image has in its place.
"""


class Wish:
    """One mount that is wanted.

    type       bind, volume or tmpfs
    name       of the volume; "" for one without a name, until the engine gives it one
    source     the path on the host; of a volume, what the engine says
    target     where, absolute and normal
    options    words of mount(8), and _OURS
    anonymous  a volume that goes with its container
    make       a missing source is made (-v), or is an error (--mount)
    labels     of a new volume
    """

    __slots__ = ("anonymous", "labels", "make", "name", "options", "source", "target", "type")

    def __init__(
        self,
        type: str,
        target: str,
        *,
        name: str = "",
        source: str = "",
        options: "Iterable[str]" = (),
        anonymous: bool = False,
        make: bool = False,
        labels: "dict[str, str] | None" = None,
    ) -> None:
        self.type = type
        self.name = name
        self.source = source
        self.target = normal(absolute(target))
        self.options = list(options)
        self.anonymous = anonymous
        self.make = make
        self.labels = labels or {}
        if self.target == "/":
            raise UsageError("nothing can be mounted on / itself")

    def to_dict(self) -> "Json":
        return {key: getattr(self, key) for key in self.__slots__}

    @classmethod
    def from_dict(cls, values: "Json") -> "Wish":
        known = {key: value for key, value in values.items() if key in cls.__slots__}
        return cls(known.pop("type"), known.pop("target"), **known)

    @property
    def writable(self) -> bool:
        return "ro" not in self.options

    @property
    def mode(self) -> str:
        """docker's Mode: the words as they were given."""
        return ",".join(self.options)


def wishes(config: "ContainerConfig") -> "list[Wish]":
    """All that the user wants; UsageError for what is malformed, or two on one place."""
    found = [volume(text) for text in config.volumes]
    found += [mount_option(text) for text in config.mounts]
    found += [tmpfs(text) for text in config.tmpfs]
    places = [wish.target for wish in found]
    if twice := next((place for place in places if places.count(place) > 1), ""):
        raise UsageError(f"more than one mount on {twice}")
    return found


def wishes_of_image(config: "ContainerConfig") -> "list[Wish]":
    return [Wish(VOLUME, path, anonymous=True) for path in config.image_volumes if normal(path) != "/"]


def resolved(config: "ContainerConfig") -> "list[Wish]":
    """What the engine has made of the wishes, the outer places first; else the wishes themselves."""
    found = [Wish.from_dict(entry) for entry in config.resolved_mounts] if config.resolved_mounts else wishes(config)
    return sorted(found, key=lambda wish: wish.target.count("/"))


def merge(*groups: "Sequence[Wish]") -> "list[Wish]":
    """Of wishes for one place the last one counts (docker: the image's, --volumes-from, then the user's own)."""
    found = {wish.target: wish for group in groups for wish in group}
    return list(found.values())


def entry(wish: Wish, idmap: "list[str]", ids: "tuple[int, int]") -> "Json":
    """The spec's mount; `idmap` are the words by which a source is idmapped, `ids` the container's user."""
    words = [word for word in wish.options if word not in _OURS]
    own = "U" in wish.options
    if wish.type == TMPFS:
        data = [f"uid={ids[0]}", f"gid={ids[1]}"] if own else []
        safe = [word for word in ("nosuid", "nodev", "noexec") if word[2:] not in words]
        return mount_entry(wish.target, "tmpfs", "tmpfs", [*safe, *[w for w in words if w != "rw"], *data])
    if not wish.source:
        raise UnsupportedError(f"volume {wish.name!r} on {wish.target} has no place", hint="give a path")
    if "O" in wish.options:
        return mount_entry(wish.target, "bind", wish.source, ["O", *_readonly(words, recursive=False), *idmap])
    tree = [] if "bind" in words or wish.type == VOLUME else ["rbind"]
    extra = [word for word, wanted in (("U", own), ("copyup", "copyup" in wish.options)) if wanted]
    words = [word for word in words if word != "copyup"]
    options = [*(tree or ["bind"]), *_readonly(words, recursive=bool(tree)), *extra, *idmap]
    return mount_entry(wish.target, "bind", wish.source, list(dict.fromkeys(options)))


def _readonly(words: "list[str]", *, recursive: bool) -> "list[str]":
    """docker's ro covers what is mounted below as well (since 25, where the kernel has mount_setattr(2))."""
    return ["rro" if word == "ro" and recursive else word for word in words]


# ---- -v


def volume(text: str) -> Wish:
    """-v [SOURCE:]DST[:OPTIONS] with docker's and podman's options; SOURCE is a path or the name of a volume."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"--volume {text!r} is malformed", hint="[SRC:]DST[:OPTIONS]")
    if len(parts) == 1:
        return Wish(VOLUME, parts[0], anonymous=True)
    if len(parts) == 2 and parts[0].startswith("/") and not parts[1].startswith("/"):
        return Wish(VOLUME, parts[0], anonymous=True, options=_words(parts[1], text))
    options = _words(parts[2], text) if len(parts) == 3 else []
    if parts[0].startswith(("/", ".")):
        return Wish(BIND, parts[1], source=absolute_path(parts[0]), options=options, make=True)
    return Wish(VOLUME, parts[1], name=check_name(parts[0], f"--volume {text!r}"), options=options)


def _words(text: str, whole: str) -> "list[str]":
    words = [word for word in text.split(",") if word]
    for word in words:
        if word.startswith(("idmap=", "upperdir=", "workdir=")):
            raise UnsupportedError(f"--volume {whole!r}: {word.partition('=')[0]} takes no value here")
        if word not in _PLAIN and word not in _OURS and word.removeprefix("r") not in _PROPAGATIONS:
            raise UsageError(f"--volume {whole!r}: unknown option {word!r}")
    if {"ro", "rw"} <= set(words) or {"z", "Z"} <= set(words):
        raise UsageError(f"--volume {whole!r}: options that contradict each other")
    return words


def check_name(name: str, where: str = "") -> str:
    """docker's rule for names of volumes; UsageError."""
    if len(name) > 255 or not name[:1].isalnum() or not _NAME.issuperset(name) or not name.isascii():
        hint = "letters, digits and _.- are allowed; a path begins with / or ."
        raise UsageError(f"{where + ': ' if where else ''}{name!r} is no name of a volume", hint=hint)
    return name


def make_sources(found: "Iterable[Wish]") -> None:
    """Make each missing source of -v a directory, as docker does; one of --mount is an error, and a plan makes none."""
    for wish in found:
        if wish.type != BIND:
            continue
        option = "--volume" if wish.make else "--mount source"
        try:
            posix.stat(wish.source)
        except FileNotFoundError as error:
            if not wish.make:
                raise UsageError(f"{option} {wish.source}: no such file or directory") from error
            _make_directory(wish.source)
        except OSError as error:
            raise UsageError(f"{option} {wish.source}: {posix.strerror(error.errno or 0)}".lower()) from error


def _make_directory(path: str) -> None:
    for end in [index for index, letter in enumerate(path) if letter == "/" and index] + [len(path)]:
        try:
            posix.mkdir(path[:end], 0o755)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"--volume {path}: {posix.strerror(error.errno or 0)}".lower()) from error


# ---- --mount and --tmpfs


def mount_option(text: str) -> Wish:
    """--mount type=bind|volume|tmpfs,source=...,target=...,..., as docker and podman read it."""
    given = dict(_pair(part) for part in text.split(","))
    kind = given.pop("type", VOLUME)
    source = given.pop("source", given.pop("src", ""))
    target = given.pop("target", given.pop("destination", given.pop("dst", "")))
    if kind not in (BIND, VOLUME, TMPFS):
        raise UsageError(f"--mount {text!r}: type {kind!r} is unknown", hint="bind, volume or tmpfs")
    if not target:
        raise UsageError(f"--mount {text!r} needs a target")
    options = _common(given)
    find = {BIND: _bind, VOLUME: _volume, TMPFS: _tmpfs}[kind]
    wish = find(text, source, target, options, given)
    if given:
        raise UsageError(f"--mount {text!r}: unknown option {next(iter(given))!r}")
    return wish


def _pair(part: str) -> "tuple[str, str]":
    key, _, value = part.partition("=")
    return key, value


def _common(given: "dict[str, str]") -> "list[str]":
    """Options that all types have; taken away from `given`."""
    options = []
    for names, word in ((("readonly", "ro"), "ro"), (("U", "chown"), "U"), (("idmap",), "idmap")):
        flags = [given.pop(name) or "true" for name in names if name in given]
        options += [word] if any(yes_or_no(flag, f"--mount {names[0]}") for flag in flags) else []
    if (label := given.pop("relabel", "")) or "z" in given or "Z" in given:
        if label not in ("", "shared", "private"):
            raise UsageError(f"--mount relabel is shared or private, not {label!r}")
        options.append("Z" if label == "private" or "Z" in given else "z")
        given.pop("z", ""), given.pop("Z", "")
    return options


def _bind(text: str, source: str, target: str, options: "list[str]", given: "dict[str, str]") -> Wish:
    if not source:
        raise UsageError(f"--mount {text!r} needs a source")
    if "bind-propagation" in given:
        options.append(_propagation(given.pop("bind-propagation")))
    if yes_or_no(given.pop("bind-nonrecursive", "false") or "true", "--mount bind-nonrecursive"):
        options.append("bind")
    make = yes_or_no(given.pop("bind-create-src", "false") or "true", "--mount bind-create-src")
    wish = Wish(BIND, target, source=absolute_path(source), options=options, make=make)
    if not make:
        make_sources([wish])
    return wish


def _propagation(word: str) -> str:
    if word.removeprefix("r") not in _PROPAGATIONS:
        raise UsageError(f"--mount bind-propagation {word!r} is unknown", hint="rprivate, rslave, rshared...")
    return word


def _volume(text: str, source: str, target: str, options: "list[str]", given: "dict[str, str]") -> Wish:
    if given.pop("volume-driver", "local") != "local":
        raise UnsupportedError(f"--mount {text!r}: there is no volume driver but local")
    if "volume-subpath" in given or "volume-opt" in given:
        raise UnsupportedError(f"--mount {text!r}: volume-subpath and volume-opt are not supported")
    if yes_or_no(given.pop("volume-nocopy", "false") or "true", "--mount volume-nocopy"):
        options.append("nocopy")
    label, _, value = given.pop("volume-label", "").partition("=")
    name = check_name(source, f"--mount {text!r}") if source else ""
    return Wish(VOLUME, target, name=name, options=options, anonymous=not name, labels={label: value} if label else {})


def _tmpfs(text: str, source: str, target: str, options: "list[str]", given: "dict[str, str]") -> Wish:
    if source:
        raise UsageError(f"--mount {text!r}: a tmpfs has no source")
    if "tmpfs-size" in given:
        options.append(f"size={size(given.pop('tmpfs-size'), '--mount tmpfs-size')}")
    if "tmpfs-mode" in given:
        options.append(f"mode={_mode(given.pop('tmpfs-mode'))}")
    return Wish(TMPFS, target, options=options)


def _mode(text: str) -> str:
    if not 1 <= len(text) <= 5 or set(text) - set("01234567"):
        raise UsageError(f"--mount tmpfs-mode {text!r} is not an octal mode")
    return text


def tmpfs(text: str) -> Wish:
    """--tmpfs DST[:OPTIONS]."""
    target, _, options = text.partition(":")
    return Wish(TMPFS, target, options=[word for word in options.split(",") if word])
