"""What can be asked of a container of the library, by keyword; and the configuration that it makes."""

import os

from ..config import ContainerConfig
from ..errors import UsageError
from .library import image_of, rootfs_of
from .names import new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypedDict

    class ContainerOptions(TypedDict, total=False):
        """docker's options in Python's words; ARCHITECTURE.md and `warren run --help` say what each does."""

        name: str
        env: Mapping[str, str]
        cwd: str | os.PathLike[str]
        user: str | int
        entrypoint: str
        hostname: str
        labels: Mapping[str, str]
        network: str
        egress: Sequence[str]
        publish: Sequence[str | int]
        dns: Sequence[str]
        add_host: Sequence[str]
        mounts: Sequence[str]
        tmpfs: Sequence[str]
        hide: Sequence[str]
        read_only: bool
        write: bool
        shm_size: str | int
        devices: Sequence[str]
        cap_add: Sequence[str]
        cap_drop: Sequence[str]
        security_opt: Sequence[str]
        ulimits: Sequence[str]
        sysctl: Mapping[str, str]
        userns: str
        pid: str
        ipc: str
        init: bool
        privileged: bool
        isolation: str
        kernel: str
        accel: str
        boot_timeout: float
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
        log_opts: Mapping[str, str]
        stop_signal: str
        stop_timeout: int
        strict: bool


_RENAMED = {"cwd": "workdir", "mounts": "volumes", "pids": "pids_limit"}
_PAIRS = ("env", "labels", "sysctl", "log_opts")
_TEXTS = ("user", "memory", "memory_swap", "cpus", "shm_size", "workdir")
_KNOWN = frozenset(
    (
        "name env cwd user entrypoint hostname labels network egress publish dns add_host mounts tmpfs hide read_only "
        "write shm_size devices cap_add cap_drop security_opt ulimits sysctl userns pid ipc init privileged isolation "
        "kernel accel boot_timeout memory memory_swap cpus pids health_cmd health_interval health_retries "
        "health_start_period health_timeout log_driver log_opts stop_signal stop_timeout strict"
    ).split()
)


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
