"""Every public example of the library is executed: docs/library.md, README.md and the docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import runtime
from tests.helpers.daemons import Room
from tests.helpers.warren import PROGRAM
from tests.unit.test_packaging import BIN

ROOT = Path(__file__).parents[2]
DOCSTRINGS = ("runtime/__init__.py", "runtime/engine/wait.py", "runtime/aio.py")


def of_page(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


def of_docstring(name: str) -> list[str]:
    """Indented blocks of a module's docstring; what awaits is the body of a coroutine."""
    text = ast.get_docstring(ast.parse((ROOT / name).read_text())) or ""
    found = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n?)+", text, re.MULTILINE)]
    return [_awaited(block) if "async " in block else block for block in found]


def _awaited(block: str) -> str:
    return f"import anyio\nasync def main():\n{textwrap.indent(block, '    ')}\nanyio.run(main)\n"


EXAMPLES = {
    f"{name}-{number}": text
    for name, blocks in [
        ("library", of_page("docs/library.md")),
        ("readme", of_page("README.md")),
        *((Path(name).stem, of_docstring(name)) for name in DOCSTRINGS),
    ]
    for number, text in enumerate(blocks)
}


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    """With stores of its own, in which there is busybox."""
    with Room(session_directory / "docs", token) as room:
        room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        room(PROGRAM, "image", "bootstrap", "busybox", "small").ok()
        room(PROGRAM, "tag", "small", "docker.io/library/busybox:latest").ok()
        yield room


def test_there_are_examples() -> None:
    assert len([name for name in EXAMPLES if name.startswith("library")]) >= 10
    assert len([name for name in EXAMPLES if name.startswith("readme")]) >= 1
    assert len(EXAMPLES) >= 14


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(name: str, room: Room) -> None:
    script = room.directory / "example.py"
    script.write_text(f"import runtime\n{EXAMPLES[name]}")  # What `make build` has installed.
    room(BIN / "python3", script).ok()
    assert room(PROGRAM, "ps", "-aq").ok().out == "", "an example leaves no container"


def _public(owner: object, module: str) -> Iterator[tuple[str, object]]:
    """Classes and functions that are its own, and the methods and properties of these classes."""
    for name, value in vars(owner).items():
        found = value.fget if isinstance(value, property) else value
        if name[0] != "_" and callable(found) and getattr(found, "__module__", "").startswith(module):
            yield f"{getattr(owner, '__name__', '')}.{name}", found
            if inspect.isclass(found):
                yield from _public(found, module)


def test_every_public_name_is_explained() -> None:
    owners = {name: getattr(runtime, name) for name in runtime.__all__ if name.isidentifier()}
    found = [(name, value) for name, value in owners.items() if callable(value)]
    for module in (runtime.aio, runtime.wait):
        found += _public(module, module.__name__)
    for owner in filter(inspect.isclass, owners.values()):
        found += _public(owner, "runtime.")
    assert len(found) > 150
    assert [name for name, value in found if not (value.__doc__ or "").strip()] == []
