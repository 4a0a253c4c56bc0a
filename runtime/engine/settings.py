"""What can be asked of a container of the library, by keyword; and the configuration that it makes."""

import os

from ..config import HOST, ContainerConfig
from ..errors import UsageError
from .names import new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypedDict
else:

    class TypedDict:
        """To a type checker it is typing's, which a launch does not load."""

        def __init_subclass__(cls, *, total: bool) -> None: ...


class ContainerOptions(TypedDict, total=False):
    """What container() takes by keyword: docker's options in Python's words; `warren run --help` says what each does.

    Sizes are bytes or texts like "64m", `cpus` is processors (1.5), times are texts like "30s", `stop_timeout` is
    seconds.  `mounts` are SRC:DST[:OPTIONS], `tmpfs` DST[:OPTIONS], `publish` [[ADDRESS:]PORT:]PORT[/PROTOCOL],
    `devices` HOST[:INSIDE[:rwm]], `ulimits` NAME=SOFT[:HARD].
    """

    name: str
    env: "Mapping[str, str]"
    cwd: "str | os.PathLike[str]"
    user: str | int
    entrypoint: str
    hostname: str
    labels: "Mapping[str, str]"
    network: str
    egress: "Sequence[str]"
    publish: "Sequence[str | int]"
    dns: "Sequence[str]"
    add_host: "Sequence[str]"
    mounts: "Sequence[str]"
    tmpfs: "Sequence[str]"
    hide: "Sequence[str]"
    read_only: bool
    write: bool
    shm_size: str | int
    devices: "Sequence[str]"
    cap_add: "Sequence[str]"
    cap_drop: "Sequence[str]"
    security_opt: "Sequence[str]"
    ulimits: "Sequence[str]"
    sysctl: "Mapping[str, str]"
    userns: str
    pid: str
    ipc: str
    init: bool
    privileged: bool
    isolation: str
    memory: str | int
    memory_swap: str | int
    cpus: str | float
    pids: int
    health_cmd: str
    health_interval: str
    health_retries: int
    health_start_period: str
    health_timeout: str
    log_driver: str
    log_opts: "Mapping[str, str]"
    stop_signal: str
    stop_timeout: int
    strict: bool


_RENAMED = {"cwd": "workdir", "mounts": "volumes", "pids": "pids_limit"}
_PAIRS = ("env", "labels", "sysctl", "log_opts")
_TEXTS = ("user", "memory", "memory_swap", "cpus", "shm_size", "workdir")
_KNOWN = frozenset(ContainerOptions.__annotations__)


def configuration(
    image: "str | os.PathLike[str]", argv: "Sequence[str] | None", options: "Mapping[str, Any]"
) -> ContainerConfig:
    """UsageError for an option that there is not.  An empty `argv` runs nothing; None is the image's own command."""
    if unknown := sorted(set(options) - _KNOWN):
        raise UsageError(f"option {unknown[0]!r} is unknown", hint="as warren run has them, with _ for -")
    values = {_RENAMED.get(name, name): value for name, value in options.items() if value is not None}
    for name in _PAIRS:
        if name in values:
            values[name] = [f"{key}={value}" for key, value in values[name].items()]
    for name in _TEXTS:
        if name in values:
            values[name] = str(os.fspath(values[name]) if hasattr(values[name], "__fspath__") else values[name])
    values["publish"] = [str(word) for word in values.get("publish", ())]
    values["best_effort"] = not values.pop("strict", True)
    if values.get("isolation") == "container":
        values["isolation"] = ""
    if not values.get("network"):
        values["network"] = "" if values["publish"] or values.get("egress") else "none"
    image_name = image_of(image)
    words = [os.fspath(word) for word in argv or ()]
    if not words and (argv is not None or not image_name):
        values.update(idle=True, entrypoint="", init=False)
        words = ["idle"]
    return ContainerConfig(words, id=new_id(), rootfs=rootfs_of(image), image=image_name, **values)


def _is_directory(image: "str | os.PathLike[str]") -> bool:
    """A path, or words that begin like one, is a directory; other words name an image."""
    return not isinstance(image, str) or image.startswith(("/", "."))


def rootfs_of(image: "str | os.PathLike[str]") -> str:
    return os.fsdecode(image) if _is_directory(image) else ""


def image_of(image: "str | os.PathLike[str]") -> str:
    if not image:
        raise UsageError("the image has no name", hint='use an image, "host" or a directory')
    return "" if _is_directory(image) or image == HOST else str(image)
