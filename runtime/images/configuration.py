"""containers-registries.conf(5): which registry a short name means, mirrors, and who may be talked to without TLS."""

import os
import tomllib

from ..errors import UsageError
from . import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .reference import Reference

    Json = dict[str, Any]


class Endpoint:
    """Where a repository is asked for: host[:port], path, and whether plain HTTP or an unknown certificate will do."""

    __slots__ = ("host", "insecure", "repository")

    def __init__(self, host: str, repository: str, *, insecure: bool = False) -> None:
        self.host = host
        self.repository = repository
        self.insecure = insecure


class Registries:
    """What registries.conf and its drop-ins say; empty where there are none."""

    def __init__(self, config: "Json | None" = None) -> None:
        self._config = _load() if config is None else config

    def candidates(self, text: str) -> "list[Reference]":
        """What a name may mean, the first that exists counts: itself if it names a registry, else an alias, else each
        of unqualified-search-registries, else docker.io."""
        ref = reference.parse(text)
        short = text.partition("@")[0]
        if ref.registry != reference.DOCKER_HOST or short.partition("/")[0] in reference.DOCKER_NAMES:
            return [ref]
        name = short.rpartition(":")[0] if ":" in short.rpartition("/")[2] else short
        ending = text[len(name) :]
        if alias := (self._config.get("aliases") or {}).get(name):
            return [reference.parse(alias + ending)]
        hosts = self._config.get("unqualified-search-registries") or []
        found = [reference.parse(f"{host}/{name}{ending}") for host in hosts]
        return found or [ref]

    def search(self, text: str, limit: int) -> "Iterator[tuple[str, Json]]":
        """Repositories with the words in their names, each with its registry: of REGISTRY/WORDS, or of those that short
        names are looked for in."""
        from .registry import Registry

        host, slash, rest = text.partition("/")
        if slash and ("." in host or ":" in host or host == "localhost"):
            hosts, text = [host], rest
        else:
            hosts = self._config.get("unqualified-search-registries") or [reference.DOCKER_HOST]
        for host in hosts:
            registry = Registry(self.endpoints(reference.Reference(host, "search"))[-1])
            for found in registry.search(text, limit):
                yield host, found

    def endpoints(self, ref: "Reference") -> "list[Endpoint]":
        """Mirrors first, then the registry itself; UsageError for one that is blocked."""
        entry = self._entry(ref)
        if entry.get("blocked"):
            raise UsageError(f"registry {ref.registry} is blocked by registries.conf")
        prefix = str(entry.get("prefix") or entry.get("location") or ref.registry)
        found = []
        for mirror in entry.get("mirror") or []:
            only = "digest-only" if entry.get("mirror-by-digest-only") else mirror.get("pull-from-mirror")
            if only == ("tag-only" if ref.digest else "digest-only"):
                continue
            found.append(_endpoint(str(mirror.get("location", "")), prefix, ref, bool(mirror.get("insecure"))))
        location = str(entry.get("location") or "")
        insecure = bool(entry.get("insecure")) or is_loopback(ref.registry)
        own = (
            _endpoint(location, prefix, ref, insecure)
            if location
            else Endpoint(ref.host, ref.repository, insecure=insecure)
        )
        return [*found, own]

    def _entry(self, ref: "Reference") -> "Json":
        """The [[registry]] with the longest prefix that fits; "*.host" fits what is below."""
        best, length = {}, -1
        for entry in self._config.get("registry") or []:
            prefix = str(entry.get("prefix") or entry.get("location") or "")
            if _fits(prefix, ref) and len(prefix) > length:
                best, length = entry, len(prefix)
        return best


def is_loopback(host: str) -> bool:
    """docker talks to these without TLS if need be."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    return name in ("localhost", "[::1]") or (name.startswith("127.") and name.replace(".", "").isdigit())


def _fits(prefix: str, ref: "Reference") -> bool:
    if prefix.startswith("*."):
        return ref.registry.endswith(prefix[1:])
    return f"{ref.name}/".startswith(prefix.rstrip("/") + "/")


def _endpoint(location: str, prefix: str, ref: "Reference", insecure: bool) -> Endpoint:
    rest = "" if prefix.startswith("*.") else prefix.rstrip("/")
    name = location + ref.name[len(rest) :] if rest and ref.name.startswith(rest) else f"{location}/{ref.repository}"
    host, _, repository = name.partition("/")
    host = reference.DOCKER_REGISTRY if host == reference.DOCKER_HOST else host
    return Endpoint(host, repository, insecure=insecure or is_loopback(host))


def _load() -> "Json":
    """The user's file instead of the system's; drop-ins on top (containers-registries.conf.d(5))."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("HOME", "") + "/.config"
    own, system = home + "/containers/registries.conf", "/etc/containers/registries.conf"
    main = os.environ.get("CONTAINERS_REGISTRIES_CONF") or (own if os.path.exists(own) else system)
    merged = _read(main)
    for directory in ("/etc/containers/registries.conf.d", own + ".d"):
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        for name in names:
            if name.endswith(".conf"):
                merged = _merge(merged, _read(f"{directory}/{name}"))
    return merged


def _merge(old: "Json", new: "Json") -> "Json":
    found = {**old, **new}
    found["aliases"] = {**(old.get("aliases") or {}), **(new.get("aliases") or {})}
    places = {str(entry.get("prefix") or entry.get("location")) for entry in new.get("registry") or []}
    kept = [
        entry for entry in old.get("registry") or [] if str(entry.get("prefix") or entry.get("location")) not in places
    ]
    found["registry"] = [*kept, *(new.get("registry") or [])]
    return found


def _read(path: str) -> "Json":
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: {str(error).lower()}") from error
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if wrong := _wrong(found, _SHAPE):
        raise UsageError(f"{path}: {wrong}", hint="see containers-registries.conf(5)")
    return found


_MIRROR = {"location": str, "insecure": bool, "pull-from-mirror": str}
_SHAPE: "dict[Any, Any]" = {
    "unqualified-search-registries": [str],
    "aliases": {str: str},
    "registry": [
        {"prefix": str, "location": str, "insecure": bool, "blocked": bool, "mirror-by-digest-only": bool,
         "mirror": [_MIRROR]},
    ],
}  # fmt: skip
"""The types of what is read; a list's is that of all its items, {str: TYPE} that of a table with any keys."""
_TYPES = {str: "a string", bool: "true or false"}


def _wrong(value: "Any", shape: "Any", where: str = "") -> str:
    """What is not of its type; "" if all is."""
    if isinstance(shape, type):
        return "" if isinstance(value, shape) else f"{where} must be {_TYPES[shape]}"
    if isinstance(shape, dict) and str in shape and isinstance(value, dict):
        shape = dict.fromkeys(value, shape[str])
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} must be a list"
        found = (_wrong(item, shape[0], f"{where}[{index}]") for index, item in enumerate(value))
        return next((text for text in found if text), "")
    if not isinstance(value, dict):
        return f"{where} must be a table"
    for key, inner in shape.items():
        path = f"{where}.{key}" if where else key
        if key in value and (text := _wrong(value[key], inner, path)):
            return text
    return ""
