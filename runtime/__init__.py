"""Warren: a container runtime.

    import runtime

    done = runtime.run("host", ["id"], capture_output=True, text=True)
    with runtime.container("busybox", ["httpd", "-f"], publish=[80], wait=runtime.wait.tcp(80)) as web:
        print(web.addr(80), web.exec(["id"], capture_output=True).stdout)

docs/library.md shows it all.  Every name is loaded when it is first used: this module is executed by each command, and
most need little of it.
"""

from posix import register_at_fork as _register_at_fork

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import aio
    from .container import Container, default_root, list_containers
    from .engine import wait
    from .engine.audit import audit
    from .engine.handle import RunningContainer, container
    from .engine.library import DEVNULL, PIPE, STDOUT, Result, Usage, run
    from .engine.popen import Process
    from .engine.sandbox import Sandbox, sandbox
    from .engine.settings import ContainerOptions
    from .engine.verbs import (
        create_network,
        create_volume,
        list_images,
        list_networks,
        list_volumes,
        load_images,
        pull,
        push,
        remove_image,
        remove_network,
        remove_volume,
        save_images,
        tag_image,
    )
    from .errors import (
        CommandNotExecutableError,
        CommandNotFoundError,
        ExistsError,
        HookError,
        ImageError,
        LaunchError,
        NotFoundError,
        PlanError,
        ProcessError,
        SpecError,
        StateError,
        TimeoutExpiredError,
        UnsupportedError,
        UsageError,
        WarrenError,
    )
    from .launch import Options
    from .spec import Bundle, Layers, Spec

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Bundle",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "Container",
    "ContainerOptions",
    "ExistsError",
    "HookError",
    "ImageError",
    "LaunchError",
    "Layers",
    "NotFoundError",
    "Options",
    "PlanError",
    "Process",
    "ProcessError",
    "Result",
    "RunningContainer",
    "Sandbox",
    "Spec",
    "SpecError",
    "StateError",
    "TimeoutExpiredError",
    "UnsupportedError",
    "Usage",
    "UsageError",
    "WarrenError",
    "aio",
    "audit",
    "container",
    "create_network",
    "create_volume",
    "default_root",
    "list_containers",
    "list_images",
    "list_networks",
    "list_volumes",
    "load_images",
    "pull",
    "push",
    "remove_image",
    "remove_network",
    "remove_volume",
    "run",
    "sandbox",
    "save_images",
    "tag_image",
    "wait",
]

_HOMES = {
    "container": ("Container", "default_root", "list_containers"),
    "engine.audit": ("audit",),
    "engine.handle": ("RunningContainer",),
    "engine.library": ("DEVNULL", "PIPE", "STDOUT", "Result", "Usage", "run"),
    "engine.popen": ("Process",),
    "engine.sandbox": ("Sandbox", "sandbox"),
    "engine.settings": ("ContainerOptions",),
    "engine.verbs": (
        "create_network", "create_volume", "list_images", "list_networks", "list_volumes", "load_images", "pull",
        "push", "remove_image", "remove_network", "remove_volume", "save_images", "tag_image",
    ),
    "launch": ("Options",),
    "spec": ("Bundle", "Layers", "Spec"),
}  # fmt: skip
_MODULES = {"aio": "aio", "container": "container", "wait": "engine.wait"}
"""Names that are modules; `container` can be called, too (container.py, _Module)."""


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        value: object = import_module(f"{__name__}.{_MODULES[name]}")
    elif name == "_container":
        value = import_module(f"{__name__}.engine.handle").container
    elif name in __all__:
        home = next((module for module, names in _HOMES.items() if name in names), "errors")
        value = getattr(import_module(f"{__name__}.{home}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _forked() -> None:
    """Let the child load anew what another thread was just loading: it would wait for that thread for ever.

    CPython gives a child a new lock for imports as a whole, but not for single modules.
    """
    import sys
    from _thread import get_ident

    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    for name, reference in list(locks.items()):
        owner = getattr(reference(), "owner", None)
        if owner is None or owner == get_ident():
            continue
        del locks[name]
        if getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False):
            del sys.modules[name]


_register_at_fork(after_in_child=_forked)
