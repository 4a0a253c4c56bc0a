"""Which options of a container take away from the isolation that is the default: each is named by `inspect`."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import ContainerConfig

_SHARED = ("userns", "pid", "ipc", "uts", "network", "cgroupns")
_LISTS = {"cap_add": "--cap-add", "devices": "--device", "device_cgroup_rule": "--device-cgroup-rule"}
_HARMLESS = ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true", "no-new-privileges=1",
             "no-new-privileges:1")  # fmt: skip


def relaxations(config: "ContainerConfig") -> "list[str]":
    """The options, as they are typed."""
    found = ["--privileged"] if config.privileged else []
    found += [f"--{name} {value}" for name in _SHARED if _is_shared(value := str(getattr(config, name) or ""))]
    found += [f"{option} {value}" for name, option in _LISTS.items() for value in getattr(config, name)]
    found += [f"--security-opt {text}" for text in config.security_opt if _weakens(text)]
    if config.write:
        found.append("--write")
    if config.pids_limit is not None and config.pids_limit <= 0:
        found.append(f"--pids-limit {config.pids_limit}")
    if config.best_effort:
        found.append("--best-effort")
    return found


def _is_shared(value: str) -> bool:
    return value == "host" or value.startswith(("container:", "ns:"))


def _weakens(text: str) -> bool:
    """A mask hides more; a seccomp profile of one's own may allow more."""
    return text not in _HARMLESS and not text.startswith(("mask=", "mask:"))
