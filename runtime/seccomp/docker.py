"""Profiles in docker's format: OCI's with parts that depend on capabilities, architecture and kernel.

A file for `--security-opt seccomp=FILE` may be either; a plain `linux.seccomp` object goes through unchanged.
"""

from ..errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

# What Go calls an architecture, which "includes" and "excludes" name; and libseccomp's name.
_GO = {"x86_64": "amd64", "aarch64": "arm64"}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def plain(profile: object, capabilities: "set[str]", arch: str, kernel: "tuple[int, int]") -> "Json":
    """A plain `linux.seccomp` for a container with this bounding set on this machine.

    `arch` is as in uname -m.  Raises SpecError for what is no profile.
    """
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise SpecError("seccomp profile: not an object with a defaultAction")
    seccomp: Json = {key: value for key, value in profile.items() if key not in ("archMap", "syscalls")}
    if profile.get("archMap"):
        seccomp["architectures"] = _architectures(profile["archMap"], arch)
    rules = [_named(rule) for rule in profile.get("syscalls") or [] if _applies(rule, capabilities, arch, kernel)]
    seccomp["syscalls"] = [{key: rule[key] for key in _KEYS if rule.get(key) is not None} for rule in rules]
    return seccomp


_KEYS = ("names", "action", "errnoRet", "args")


def _architectures(table: "list[Json]", arch: str) -> "list[str]":
    for entry in table:
        if entry.get("architecture") == _NATIVE.get(arch):
            return [entry["architecture"], *(entry.get("subArchitectures") or [])]
    raise SpecError(f"seccomp profile: archMap has no {arch}")


def _named(rule: "Json") -> "Json":
    """The old form has one `name` a rule."""
    return {**rule, "names": [rule["name"]]} if rule.get("name") else rule


def _applies(rule: object, capabilities: "set[str]", arch: str, kernel: "tuple[int, int]") -> bool:
    if not isinstance(rule, dict):
        raise SpecError("seccomp profile: a rule is not an object")
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and _GO.get(arch) not in includes["arches"]:
        return False
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
        return False
    if _GO.get(arch) in (excludes.get("arches") or ()) or capabilities.intersection(excludes.get("caps") or ()):
        return False
    return not (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))


def _version(text: str) -> "tuple[int, int]":
    major, _, minor = text.partition(".")
    if not major.isdecimal() or not minor.isdecimal():
        raise SpecError(f"seccomp profile: minKernel {text!r} is not MAJOR.MINOR")
    return int(major), int(minor)
