"""A file imports only from lines below its own; a foreign package has one home; the library never prints or exits.

Read from the sources, so that an import inside a function or under TYPE_CHECKING counts like any other.
"""

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# ARCHITECTURE.md, top line first.  Neighbours on a line are strangers.
LINES = [
    line.split()
    for line in """
        cli oci pytest_plugin
        commands
        contrast
        options aio
        engine doctor
        monitor
        config network vm
        images
        container
        checkpoint
        plan launch
        state hooks console
        namespaces cgroups capabilities seccomp
        scheduling labels resctrl
        spec steps
        gotemplate
        jsontext quantities netlink trees
        host
        syscalls
        errors
    """.strip().splitlines()
]
HEIGHT = {name: len(LINES) - number for number, line in enumerate(LINES) for name in line}
PACKAGE_FACADE = "__init__"
"""runtime/__init__.py stands on top, and loads what it names when it is used.  Below, only its version may be asked."""
TYPES_FROM_ABOVE = {("errors", "steps")}
"""LaunchError carries the step that failed; imported for its type alone."""
HOMES = {
    "_sha2": {"images"},  # Python 3.12's _sha256.
    "anyio": {"aio"},
    "click": {"cli", "commands"},
    "rich": {"commands"},
    "pyroute2": {"network"},
    "dnslib": {"network"},
    "ctypes": {"syscalls"},
    "prctl": {"syscalls"},
    "pytest": {"pytest_plugin"},
    "urllib3": {"images"},
    "yaml": {"config"},
    "isal": {"images"},
    "backports": {"images"},
    "compression": {"images"},
    "cryptography": {"images"},
}
SPEAKERS = {"cli", "commands", "oci"}
"""The files that may print and end the process."""
SPEECH = {"print", "exit", "quit", "SystemExit"}
SPEECH_OF = {"sys": {"exit", "stdout", "stderr"}, "posix": {"_exit", "abort"}, "os": {"_exit", "abort"}}


class Import(NamedTuple):
    module: str  # absolute: "runtime.spec", "click"
    names: tuple[str, ...]  # of `from module import names`
    line: int
    for_types: bool


def sources() -> list[Path]:
    return [*sorted((ROOT / "runtime").rglob("*.py")), ROOT / "cli.py"]


def room_of(module: str) -> str:
    """The name in LINES: "runtime.images.store" is in "images"."""
    parts = module.split(".")
    return parts[0] if parts[0] != "runtime" else parts[1] if len(parts) > 1 else PACKAGE_FACADE


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[Import]:
    for_types = {id(inner) for block in ast.walk(tree) if _is_type_checking(block) for inner in ast.walk(block)}
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(name, tuple(alias.name for alias in node.names), node.lineno, id(node) in for_types)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def modules_of(found: Import) -> list[str]:
    """`from runtime import spec` and `from . import cgroups` import the modules that they name."""
    if found.module != "runtime" or not found.names:
        return [found.module]
    return [f"runtime.{name}" for name in found.names if name != "__version__"]


def files_of(found: Import, modules: Collection[str]) -> set[str]:
    """The files that an import needs: `from . import tables` needs tables, not the package around it."""
    submodules = {f"{found.module}.{name}" for name in found.names} & set(modules)
    return submodules if len(submodules) == len(found.names) > 0 else submodules | {found.module}


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    tree = ast.parse(source)
    room = room_of(module)
    if room == PACKAGE_FACADE:
        return []
    if room not in HEIGHT:
        return [f"{module} has no line in the import rule"]
    found = [
        f"{module}:{one.line}: {problem}"
        for one in imports(tree, module, is_package)
        for target in modules_of(one)
        if (problem := wrong(room, target, one.for_types))
    ]
    return found if room in SPEAKERS else found + [f"{module}:{line}: {what}" for line, what in speech(tree)]


def wrong(room: str, target: str, for_types: bool) -> str:
    """Why a file in `room` may not import `target`; "" when it may."""
    top, to = target.split(".")[0], room_of(target)
    if top not in ("runtime", "cli"):
        homes = HOMES.get(top, set() if top not in sys.stdlib_module_names else {room})
        home = " or ".join(sorted(homes)) or "no file: give it a home first"
        return "" if room in homes else f"{top} belongs in {home}"
    if to == room or (for_types and (room, to) in TYPES_FROM_ABOVE):
        return ""
    if to not in HEIGHT:
        return f"{target} is not a line of the import rule"
    return "" if HEIGHT[to] < HEIGHT[room] else f"{to} is not below {room}"


def speech(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in SPEECH:
            yield node.lineno, f"only cli.py, commands and oci.py may use {node.id}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in SPEECH_OF.get(node.value.id, ()):
                yield node.lineno, f"only cli.py, commands and oci.py may use {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if alias.name in SPEECH_OF.get(node.module or "", ()):
                    yield node.lineno, f"only cli.py, commands and oci.py may use {node.module}.{alias.name}"


def cycle_within(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle of a graph of imports, or []."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph.get(name, ())):
            if found := visit(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_lines_below(path: Path) -> None:
    assert violations(path.read_text(), module_of(path), path.name == "__init__.py") == []


def test_files_of_one_package_are_in_an_order_too() -> None:
    modules = {module_of(path): path for path in sources()}
    graph = {
        module: {
            target
            for one in imports(ast.parse(path.read_text()), module, path.name == "__init__.py")
            for target in files_of(one, modules.keys())
            if not one.for_types and room_of(target) == room_of(module) != PACKAGE_FACADE
        }
        for module, path in modules.items()
    }
    assert any(graph.values())
    assert cycle_within(graph) == []


def test_the_architecture_draws_the_same_lines() -> None:
    drawn = [line.split() for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines() if line.startswith("    ")]
    assert [line for line in drawn if line in LINES] == LINES


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("runtime.spec", "from .plan import create_plan", "plan is not below spec"),
        ("runtime.spec", "from . import plan", "plan is not below spec"),
        ("runtime.spec", "import runtime.plan", "plan is not below spec"),
        ("runtime.spec", "from runtime.plan import create_plan", "plan is not below spec"),
        ("runtime.spec", "def f():\n    from .plan import x", "plan is not below spec"),
        ("runtime.spec", "if TYPE_CHECKING:\n    from .plan import x", "plan is not below spec"),
        ("runtime.spec", "from .steps import LaunchPlan", "steps is not below spec"),
        ("runtime.namespaces.mount", "from ..cgroups import Cgroup", "cgroups is not below namespaces"),
        ("runtime.errors", "from .steps import Step", "steps is not below errors"),
        ("runtime.engine", "import cli", "cli is not below engine"),
        ("runtime.engine", "import click", "click belongs in cli or commands"),
        ("runtime.launch", "import ctypes", "ctypes belongs in syscalls"),
        ("runtime.launch", "def f():\n    from ctypes import CDLL", "ctypes belongs in syscalls"),
        ("runtime.images.registry", "import requests", "no file: give it a home"),
        ("runtime.newcomer", "", "has no line"),
        ("runtime.engine", "from . import newcomer", "is not a line"),
        ("runtime.state", "print(1)", "only cli.py, commands and oci.py may use print"),
        ("runtime.state", "import sys\nsys.exit(1)", "only cli.py, commands and oci.py may use sys.exit"),
        ("runtime.state", "import sys\nsys.stderr.write('')", "only cli.py, commands and oci.py may use sys.stderr"),
        ("runtime.state", "from posix import _exit", "only cli.py, commands and oci.py may use posix._exit"),
        ("runtime.state", "raise SystemExit(1)", "only cli.py, commands and oci.py may use SystemExit"),
    ],
)
def test_a_violation_is_detected(module: str, source: str, problem: str) -> None:
    (found,) = violations(source, module)
    assert problem in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("runtime.plan", "from .spec import Spec\nfrom . import namespaces\nfrom .namespaces import user"),
        ("runtime.namespaces.mount", "from ..steps import LaunchPlan\nfrom .user import maps\nfrom . import user"),
        ("runtime.errors", "if TYPE_CHECKING:\n    from .steps import Step"),
        ("runtime.oci", "import sys\nfrom . import __version__\nsys.exit(0)"),
        ("runtime.syscalls", "def f():\n    import ctypes, prctl"),
        ("cli", "import click\nfrom runtime import __version__, engine\nprint(1)"),
    ],
)
def test_what_the_rule_allows(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_a_cycle_is_detected() -> None:
    assert cycle_within({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle_within({"a": {"b", "c"}, "b": {"c"}}) == []
