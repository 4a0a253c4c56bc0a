"""Which tests that are marked `inside` share a container: those that share a fixture.

A fixture of a wider scope than one test is to be made once for its scope, and cannot leave the container that it was
made in.  So tests of the same options that use the same one share a container; all others have one of their own.
"""

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_STATELESS = ("_pytest.", "anyio.", "pytest_asyncio.", "runtime.pytest_plugin", "xdist.")
"""Modules whose fixtures hold nothing that tests could share."""
_OF_USERS = ("_xunit_", "_unittest_")
"""But these of pytest's are the project's own functions: setup_module, setUpClass and their like."""


def wanted(item: pytest.Item) -> "dict[str, Any]":
    """What the markers `inside` of a test say; the nearest one wins."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("inside"))):
        options.update(zip(("image",), mark.args, strict=False))
        options.update(mark.kwargs)
    return options


def groups(items: "Sequence[pytest.Item]") -> "list[list[pytest.Item]]":
    """The tests that run inside, by the containers that they share, in the order of `items`."""
    inside = [item for item in items if item.get_closest_marker("inside")]
    above: dict[object, object] = {}

    def top(key: object) -> object:
        while (higher := above.setdefault(key, key)) != key:
            above[key] = above[higher]
            key = higher
        return key

    for item in inside:
        options = repr(sorted(wanted(item).items()))
        for fixture in _shared(item):
            above[top(item)] = top((options, fixture))
    found: dict[object, list[pytest.Item]] = {}
    for item in inside:
        found.setdefault(top(item), []).append(item)
    return list(found.values())


def _shared(item: pytest.Item) -> "Iterator[tuple[object, object]]":
    """Each fixture of a test that others may use too, and the part of the tree that it is made for."""
    info = getattr(item, "_fixtureinfo", None)
    for name, definitions in getattr(info, "name2fixturedefs", {}).items():
        for one in definitions:
            if not _is_stateless(name, one) and (place := _place(item, one.scope)) is not item:
                yield one, place


def _is_stateless(name: str, definition: "pytest.FixtureDef[Any]") -> bool:
    module = getattr(definition.func, "__module__", "") or ""
    return f"{module}.".startswith(_STATELESS) and not name.startswith(_OF_USERS)


def _place(item: pytest.Item, scope: str) -> object:
    """The class, the module or, for what is wider, all: a definition for packages is of one package."""
    if scope == "function":
        return item
    if scope == "class":
        return item.getparent(pytest.Class) or item
    return item.getparent(pytest.Module) if scope == "module" else None
