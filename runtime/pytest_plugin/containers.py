"""Containers of tests: made, shared, kept, explained and removed."""

import os
import signal

import pytest

from runtime.engine.guardian import guard
from runtime.engine.handle import RunningContainer
from runtime.engine.settings import configuration
from runtime.engine.verbs import OWNER, create_network, remove_network, sweep_networks
from runtime.errors import NotFoundError, UnsupportedError, UsageError, WarrenError
from runtime.host import Host
from runtime.jsontext import dump_json
from runtime.state import start_time
from runtime.syscalls import set_parent_death_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeVar

    from runtime.engine.wait import Condition

    Made = TypeVar("Made")

_MADE = pytest.StashKey["list[RunningContainer]"]()
_FAILED = pytest.StashKey[bool]()
_KEEP = pytest.StashKey["set[str]"]()
"""Names of the containers of tests that have failed."""
_KEPT = "kept container"
_LINES = 100
_TOLD = ("Id", "Name", "Path", "Args", "State", "Mounts", "NetworkSettings", "enforced", "relaxed")


class Factory:
    """Makes containers for one test, as runtime.container() does; they are closed with the test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._config = request.config
        self._keep = bool(request.config.getoption("container_keep"))
        self._own: list[RunningContainer] = []
        self._asked: list[str] = []
        self._networks: set[str] = set()
        request.node.stash[_MADE] = []
        end_with_session(request.config)

    def __call__(
        self,
        image: "str | os.PathLike[str]",
        argv: "Sequence[str] | None" = None,
        *,
        pull: str = "missing",
        wait: "Condition | None" = None,
        timeout: float = 60.0,
        **options: "Any",
    ) -> RunningContainer:
        """Skips the test where this host cannot do what is asked for."""
        found = self._find(
            repr((os.fspath(image), argv, sorted(options.items(), key=str))),
            lambda: RunningContainer(configuration(image, argv, options), pull, leash=not self._keep),
            is_own=options.get("network") in self._networks,
        )
        self._request.node.stash[_MADE].append(found)
        if wait:
            found.wait_for(wait, timeout)
        return found

    def _find(self, key: str, make: "Callable[[], RunningContainer]", *, is_own: bool) -> RunningContainer:
        """A new one; with --container-reuse what another test has got when it asked so for the nth time."""
        if is_own or not self._config.getoption("container_reuse"):
            self._own.append(or_skip(self._config, make))
            return self._own[-1]
        self._asked.append(key)
        key = f"{self._asked.count(key)} {key}"
        shared: dict[str, RunningContainer] = self._request.getfixturevalue("_shared_containers")
        if key not in shared or shared[key].status != "running":
            shared[key] = or_skip(self._config, make)
        return shared[key]

    def network(self) -> str:
        """A new one, which ends with the test; so do the containers on it."""
        name = new_network(self._config)
        self._networks.add(name)
        return name

    def close(self) -> None:
        """End what is not kept for whoever looks into a failure; idempotent."""
        own, self._own = self._own, []
        networks, self._networks = self._networks, set()
        keep = self._keep and self._request.node.stash.get(_FAILED, False)
        for one in own:
            if not keep:
                one.discard()
        for name in networks:
            end_network(name, may_be_in_use=keep)


def end_with_session(config: pytest.Config) -> None:
    """A worker of xdist whose controller has been killed would go on with its test for another five seconds."""
    if hasattr(config, "workerinput"):
        set_parent_death_signal(signal.SIGINT)


def end_shared(config: pytest.Config, shared: "Iterable[RunningContainer]") -> None:
    """Those of --container-reuse, at the end of the session."""
    for one in shared:
        if one.name not in config.stash.get(_KEEP, ()):
            one.discard()


def or_skip(config: pytest.Config, make: "Callable[[], Made]") -> "Made":
    """What `make` makes; the test is skipped where the host cannot, with doctor's reason."""
    try:
        return make()
    except UnsupportedError as error:
        if config.getoption("container_strict"):
            raise
        pytest.skip(reason(error))


def reason(error: WarrenError) -> str:
    """With what keeps this host from running containers at all."""
    from runtime.doctor import examine

    found = [one for one in examine(Host.probe()) if one.essential and not one.ok]
    told = [str(error), *(f"{one.name}: {one.text}" + (f" ({one.remedy})" if one.remedy else "") for one in found)]
    return "this host cannot do it: " + "; ".join(told)


# ---- networks


def new_network(config: pytest.Config) -> str:
    guard()
    sweep_networks()
    name, pid = f"test-{os.urandom(6).hex()}", os.getpid()
    or_skip(config, lambda: create_network(name, labels={OWNER: f"{pid}:{start_time(pid)}"}))
    return name


def end_network(name: str, *, may_be_in_use: bool) -> None:
    try:
        remove_network(name)
    except NotFoundError:
        pass
    except UsageError:
        if not may_be_in_use:
            raise


# ---- failures


def explain(item: pytest.Item, report: pytest.TestReport) -> None:
    """What the containers of a test have said, and how they are."""
    item.stash[_FAILED] = True
    keep = item.config.getoption("container_keep")
    for one in item.stash.get(_MADE, []):
        if report.when == "teardown":
            continue
        try:
            lines = one.logs().decode(errors="replace").splitlines()
            found = one.inspect()
        except WarrenError as error:
            report.sections.append((f"container {one.name}", str(error)))
            continue
        if lines:
            report.sections.append((f"container {one.name}: log", "\n".join(lines[-_LINES:])))
        told = _filled({key: found.get(key) for key in _TOLD})
        report.sections.append((f"container {one.name}: inspect", dump_json(told, 2)))
        if keep:
            item.config.stash.setdefault(_KEEP, set()).add(one.name)
            report.user_properties.append((_KEPT, one.name))


def _filled(value: "Any") -> "Any":
    """Without what is empty or false."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, one in value.items() if (inner := _filled(one)) not in ("", None, False, [], {})}


def kept(terminalreporter: "Any") -> "Iterator[str]":
    seen = set()
    for outcome in ("failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            for key, name in getattr(report, "user_properties", ()):
                if key == _KEPT and name not in seen:
                    seen.add(name)
                    yield f"kept for {report.nodeid}: warren exec -it {name} sh; warren rm -f {name}"
