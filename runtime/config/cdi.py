"""Devices by name through CDI, the Container Device Interface (cncf-tags/container-device-interface, SPEC.md): what
the specs in /etc/cdi and /var/run/cdi say that a container needs for `--device vendor.com/class=name`.

A later directory wins over an earlier one; two specs of one directory that define the same device make it unusable.
Files that cannot be read as a spec are left out, and told of when a device is not found.
"""

import posix

from ..errors import SpecError, UsageError
from ..jsontext import parse_json, read_regular
from .words import Edits, device_node, mount_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Json = dict[str, Any]

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
ALL = "all"
_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ALNUM = _LETTERS | frozenset("0123456789")


def edits(names: "Sequence[str]", directories: "Sequence[str]" = DIRECTORIES) -> Edits:
    """What all these devices need together; UsageError in one line for those that cannot be had."""
    found = Edits()
    registry = _Registry(directories)
    seen: set[str] = set()
    for name in names:
        for spec, device in registry.find(name):
            if spec.path not in seen:
                seen.add(spec.path)
                _apply(found, spec.common, spec)
            _apply(found, device.get("containerEdits") or {}, spec)
    return found


class _Spec:
    """One file: its kind, its devices by name and what all of them need."""

    __slots__ = ("common", "devices", "kind", "path")

    def __init__(self, path: str, content: object) -> None:
        self.path = path
        whole = _object(content, "the spec")
        version = str(whole.get("cdiVersion") or "")
        if version not in _VERSIONS:
            raise UsageError(f"cdiVersion {version!r} is not known (up to {_VERSIONS[-1]})")
        self.kind = _check_kind(whole.get("kind"))
        self.common = _object(whole.get("containerEdits") or {}, "containerEdits")
        self.devices: dict[str, Json] = {}
        for entry in _list(whole.get("devices"), "devices"):
            device = _object(entry, "devices")
            name = str(device.get("name") or "")
            if not _is_word(name, "_-.:", _ALNUM):
                raise UsageError(f"device name {name!r} is malformed")
            if name in self.devices:
                raise UsageError(f"device {name!r} is defined twice")
            self.devices[name] = device
        needed = _needed_version(whole)
        if _VERSIONS.index(version) < _VERSIONS.index(needed):
            raise UsageError(f"cdiVersion {version} is too low for what it has: it needs {needed}")


class _Registry:
    """All specs of the directories."""

    def __init__(self, directories: "Sequence[str]") -> None:
        self._directories = directories
        self._devices: dict[str, tuple[_Spec, Json]] = {}
        self._conflicts: dict[str, list[str]] = {}
        self._damaged: list[str] = []
        for directory in directories:
            self._take_directory(directory)

    def _take_directory(self, directory: str) -> None:
        try:
            names = sorted(posix.listdir(directory))
        except OSError:
            return
        here: dict[str, list[tuple[_Spec, Json]]] = {}
        for name in names:
            if not name.endswith((".json", ".yaml")) or name.startswith("."):
                continue
            try:
                spec = _Spec(f"{directory}/{name}", _read(f"{directory}/{name}"))
            except (UsageError, SpecError, OSError) as error:
                reason = (
                    error.message if isinstance(error, (UsageError, SpecError)) else posix.strerror(error.errno or 0)
                )
                self._damaged.append(f"{directory}/{name}: {reason}".lower())
                continue
            for device, entry in spec.devices.items():
                here.setdefault(f"{spec.kind}={device}", []).append((spec, entry))
        for name, entries in here.items():
            self._devices[name] = entries[0]
            self._conflicts.pop(name, None)
            if len(entries) > 1:
                self._conflicts[name] = [spec.path for spec, _ in entries]

    def find(self, name: str) -> "list[tuple[_Spec, Json]]":
        """The device, or for `all`, where no device is called so, each one of its kind."""
        kind, _, device = name.partition("=")
        _check_kind(kind)
        names = [name]
        if device == ALL and name not in self._devices:
            names = sorted(known for known in self._devices if known.startswith(kind + "="))
        if not names or not all(known in self._devices for known in names):
            raise UsageError(f"--device {name}: no such CDI device{self._about(kind)}", hint=self._hint())
        for known in names:
            if known in self._conflicts:
                raise UsageError(f"--device {known}: defined by {' and '.join(self._conflicts[known])}")
        return [self._devices[known] for known in names]

    def _about(self, kind: str) -> str:
        known = sorted(name for name in self._devices if name.startswith(kind + "="))
        return f"; there are {', '.join(known)}" if known else f" in {' and '.join(self._directories)}"

    def _hint(self) -> str:
        return f"not usable: {'; '.join(self._damaged)}" if self._damaged else ""


def _read(path: str) -> object:
    data = read_regular(path, path)
    if path.endswith(".json"):
        return parse_json(data, path)
    import yaml

    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"not YAML: {' '.join(str(error).split())}") from error


# ---- checks


def _check_kind(kind: object) -> str:
    vendor, slash, name = str(kind or "").partition("/")
    if not slash or not _is_word(vendor, "_-.", _LETTERS) or not _is_word(name, "_-.", _LETTERS):
        raise UsageError(f"{kind!r} is no kind of CDI devices", hint="VENDOR/CLASS=NAME, as in nvidia.com/gpu=0")
    return f"{vendor}/{name}"


def _is_word(text: str, further: str, first: "frozenset[str]") -> bool:
    return text[:1] in first and text[-1:] in _ALNUM and set(text) <= _ALNUM | set(further) if text else False


def _object(value: object, what: str) -> "Json":
    if not isinstance(value, dict):
        raise UsageError(f"{what} must be an object")
    return value


def _list(value: object, what: str) -> "list[Any]":
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError(f"{what} must be a list")
    return value


def _string(entry: "Json", key: str, what: str, *, path: bool = False) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value or "\0" in value or (path and not value.startswith("/")):
        raise UsageError(f"{what}.{key} must be {'an absolute path' if path else 'a string'}")
    return value


def _strings(entry: "Json", key: str, what: str) -> "list[str]":
    values = _list(entry.get(key), f"{what}.{key}")
    if not all(isinstance(value, str) and "\0" not in value for value in values):
        raise UsageError(f"{what}.{key} must be a list of strings")
    return values


def _number(entry: "Json", key: str, what: str) -> int:
    value = entry[key]
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise UsageError(f"{what}.{key} must be a number")
    return value


def _needed_version(whole: "Json") -> str:
    """The lowest version of the specification that has all that a spec uses (SPEC.md, "Version")."""
    every = [whole.get("containerEdits") or {}, *((d.get("containerEdits") or {}) for d in whole.get("devices") or [])]
    nodes = [node for one in every for node in one.get("deviceNodes") or [] if isinstance(node, dict)]
    mounts = [mount for one in every for mount in one.get("mounts") or [] if isinstance(mount, dict)]
    names = [str(device.get("name")) for device in whole.get("devices") or []]
    annotated = whole.get("annotations") or any(device.get("annotations") for device in whole.get("devices") or [])
    rules: list[tuple[str, bool]] = [
        ("1.1.0", any(one.get("netDevices") for one in every)),
        ("0.7.0", any(one.get("intelRdt") or one.get("additionalGids") for one in every)),
        ("0.6.0", bool(annotated) or "." in str(whole.get("kind")).partition("/")[2]),
        ("0.5.0", any("hostPath" in node for node in nodes) or any(not name[:1].isalpha() for name in names)),
        ("0.4.0", any("type" in mount for mount in mounts)),
    ]
    return next((version for version, used in rules if used), _VERSIONS[0])


# ---- edits


def _apply(found: Edits, told: "Json", spec: _Spec) -> None:
    told = _object(told, "containerEdits")
    parts: list[tuple[str, Callable[[Edits, Json], None]]] = [
        ("deviceNodes", _add_node), ("mounts", _add_mount), ("hooks", _add_hook), ("netDevices", _add_net_device),
    ]  # fmt: skip
    try:
        found.env += _env(_strings(told, "env", "containerEdits"))
        for key, add in parts:
            for entry in _list(told.get(key), key):
                add(found, _object(entry, key))
        found.gids += _gids(_list(told.get("additionalGids"), "additionalGids"))
        if told.get("intelRdt"):
            found.rdt = _object(told["intelRdt"], "intelRdt")
    except UsageError as error:
        raise UsageError(f"{spec.path}: {error.message}", hint=error.hint) from error


def _env(entries: "list[str]") -> "list[str]":
    for entry in entries:
        if "=" not in entry[1:]:
            raise UsageError(f"env {entry!r} is not NAME=VALUE")
    return entries


def _gids(values: "Iterable[object]") -> "list[int]":
    """0 is left out (SPEC.md)."""
    found = []
    for value in values:
        if type(value) is not int or not 0 <= value < (1 << 32) - 1:
            raise UsageError("additionalGids must be a list of numbers")
        found += [value] if value else []
    return found


def _add_node(found: Edits, entry: "Json") -> None:
    """Of the host's node, what the spec does not say itself."""
    target = _string(entry, "path", "deviceNodes", path=True)
    source = _string(entry, "hostPath", "deviceNodes", path=True) if "hostPath" in entry else target
    node = device_node(source, target)
    keys = ("major", "minor", "fileMode", "uid", "gid")
    given: Json = {key: _number(entry, key, "deviceNodes") for key in keys if key in entry}
    kind = entry.get("type", node["type"])
    if kind not in ("c", "b", "u"):
        raise UsageError(f"deviceNodes.type {kind!r} is unknown", hint="c or b")
    same: Json = {
        "type": "c" if kind == "u" else kind,
        **{key: given[key] for key in ("major", "minor") if key in given},
    }
    for key, value in same.items():
        if value != node[key]:
            raise UsageError(f"device {source}: {key} is {node[key]}, not {value}", hint="is the spec of another boot?")
    found.owned |= any(given[key] != node[key] for key in ("fileMode", "uid", "gid") if key in given)
    permissions = str(entry.get("permissions") or "rwm")
    if set(permissions) - set("rwm"):
        raise UsageError(f"deviceNodes.permissions {permissions!r}: made of r, w and m")
    found.nodes.append((source, {**node, **given}, permissions))


def _add_mount(found: Edits, entry: "Json") -> None:
    source = _string(entry, "hostPath", "mounts")
    target = _string(entry, "containerPath", "mounts", path=True)
    kind, words = str(entry.get("type") or "bind"), _strings(entry, "options", "mounts")
    if kind == "bind" or {"bind", "rbind"} & set(words):
        kind, words = "bind", words if {"bind", "rbind"} & set(words) else ["rbind", *words]
        if not posix.access(source, posix.F_OK):
            raise UsageError(f"mount of {source}: no such file or directory")
    found.mounts.append(mount_entry(target, kind, source, words))


def _add_hook(found: Edits, entry: "Json") -> None:
    name = entry.get("hookName")
    if name not in _HOOKS:
        raise UsageError(f"hook {name!r} is unknown", hint=", ".join(_HOOKS))
    hook: Json = {"path": _string(entry, "path", "hooks", path=True)}
    for key in ("args", "env"):
        if values := _strings(entry, key, "hooks"):
            hook[key] = values
    if entry.get("timeout"):
        hook["timeout"] = _number(entry, "timeout", "hooks")
    found.hooks.setdefault(name, []).append(hook)


def _add_net_device(found: Edits, entry: "Json") -> None:
    host = _string(entry, "hostInterfaceName", "netDevices")
    found.net_devices[host] = {"name": _string(entry, "name", "netDevices")}
