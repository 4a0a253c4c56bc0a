"""The pytest plugin: containers as fixtures, tests that run inside containers, and assertions on isolation.

Loaded by each run of pytest where Warren is installed: it imports nothing but pytest until a test uses it.
docs/pytest.md shows it all.
"""

import sys

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from runtime.engine.handle import RunningContainer

    from .assertions import cannot_see, denied, limited
    from .containers import Factory

__all__ = ["cannot_see", "denied", "limited"]

INSIDE = False
"""Whether this very pytest runs tests inside a container."""
_OPTIONS = ("image", "argv", "isolation")


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import assertions

        return getattr(assertions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("warren", "containers of tests")
    group.addoption("--container-keep", action="store_true", help="Keep the containers of tests that fail.")
    group.addoption(
        "--container-reuse", action="store_true",
        help="Tests that ask for the same container get the same one, which ends with the session.",
    )  # fmt: skip
    group.addoption(
        "--container-strict", action="store_true", help="Fail, instead of skipping, where this host lacks something."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "container(image, argv, isolation=..., **options): what the fixture `container` is; lists of images and "
        "isolations are parameters; options are those of runtime.container()",
    )
    config.addinivalue_line(
        "markers",
        "inside(image='host', **options): run the whole test inside a container; options are those of runtime.run()",
    )


# ---- fixtures


def asked(node: pytest.Item) -> "dict[str, Any]":
    """What the markers of a test say of its container; the nearest one wins."""
    found: dict[str, Any] = {}
    for mark in reversed(list(node.iter_markers("container"))):
        found.update(zip(_OPTIONS, mark.args, strict=False))
        found.update(mark.kwargs)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = asked(metafunc.definition)
    for fixture, option in (("image", "image"), ("container_isolation", "isolation")):
        values = found.get(option)
        if fixture in metafunc.fixturenames and isinstance(values, (list, tuple)):
            metafunc.parametrize(fixture, list(values), ids=[str(value) for value in values])


@pytest.fixture
def image(request: pytest.FixtureRequest) -> "Any":
    """What the test's container is made of: the marker's image, "host" by default."""
    return asked(request.node).get("image", "host")


@pytest.fixture
def container_isolation(request: pytest.FixtureRequest) -> str:
    """container or vm, as the marker says."""
    return str(asked(request.node).get("isolation", "container"))


@pytest.fixture
def container_factory(request: pytest.FixtureRequest) -> "Iterator[Factory]":
    """Called as runtime.container(); what it has made ends with the test."""
    from .containers import Factory

    factory = Factory(request)
    yield factory
    factory.close()


@pytest.fixture
def container(
    request: pytest.FixtureRequest, container_factory: "Factory", image: "Any", container_isolation: str
) -> "RunningContainer":
    """A container as the marker `container` describes it; without one it is the host's root, and runs nothing."""
    options = {**asked(request.node), "image": image, "isolation": container_isolation}
    if "network" in request.fixturenames:
        options.setdefault("network", request.getfixturevalue("network"))
    return container_factory(options.pop("image"), options.pop("argv", None), **options)


@pytest.fixture
def network(container_factory: "Factory") -> str:
    """The name of a network of the test's own; the fixture `container` is on it."""
    return container_factory.network()


@pytest.fixture(scope="session")
def _shared_containers(pytestconfig: pytest.Config) -> "Iterator[dict[str, RunningContainer]]":
    """Of --container-reuse."""
    from .containers import end_shared

    found: dict[str, RunningContainer] = {}
    yield found
    end_shared(pytestconfig, found.values())


# ---- hooks


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: "pytest.Item | None") -> "bool | None":
    if INSIDE or item.get_closest_marker("inside") is None:
        return None
    from .inside import run_protocol

    return run_protocol(item, nextitem)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if inside := sys.modules.get(f"{__name__}.inside"):
        inside.finish(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> "Generator[None, pytest.TestReport, pytest.TestReport]":
    report = yield
    if report.failed and "container_factory" in getattr(item, "fixturenames", ()):
        from .containers import explain

        explain(item, report)
    return report


def pytest_terminal_summary(terminalreporter: "Any", config: pytest.Config) -> None:
    if config.getoption("container_keep"):
        from .containers import kept

        for line in kept(terminalreporter):
            terminalreporter.write_line(line)
