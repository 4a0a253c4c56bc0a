"""Warren: a container runtime.

    import runtime

    done = runtime.run("host", ["id"], capture_output=True, text=True)

Every name is loaded when it is first used: this module is executed by each command, and most need little of it.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container import Container, default_root, list_containers
    from .engine.library import DEVNULL, PIPE, STDOUT, Result, run
    from .errors import (
        CommandNotExecutableError,
        CommandNotFoundError,
        ExistsError,
        HookError,
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
    "ExistsError",
    "HookError",
    "LaunchError",
    "Layers",
    "NotFoundError",
    "Options",
    "PlanError",
    "ProcessError",
    "Result",
    "Spec",
    "SpecError",
    "StateError",
    "TimeoutExpiredError",
    "UnsupportedError",
    "UsageError",
    "WarrenError",
    "default_root",
    "list_containers",
    "run",
]

_HOMES = {
    "container": ("Container", "default_root", "list_containers"),
    "engine.library": ("DEVNULL", "PIPE", "STDOUT", "Result", "run"),
    "launch": ("Options",),
    "spec": ("Bundle", "Layers", "Spec"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
