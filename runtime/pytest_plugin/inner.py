"""The pytest inside a container: runs the tests that it is told to, and sends their reports on what was its stdout."""

import json
import os

import pytest

import runtime.pytest_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    Json = dict[str, Any]


class Service:
    """A plugin of that run, whose loop waits for requests until there are no more."""

    def __init__(self, requests: "IO[str]", answers: "IO[str]") -> None:
        self._requests = requests
        self._answers = answers
        self._config: pytest.Config | None = None
        self._complaints: list[str] = []
        """Of files that could not be collected."""

    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._complaints.append(str(report.longrepr))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        found = {item.nodeid: item for item in session.items}
        for line in self._requests:
            request = json.loads(line)
            item = found.get(request["run"])
            if item is None:
                self._tell({"failed": "\n".join(self._complaints) or f"{request['run']} is not to be found inside"})
            else:
                following = found.get(request["next"]) or _stay(item, request["stay"])
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self._tell({"done": request["run"]})
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        assert self._config
        self._tell(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))

    def _tell(self, data: "Json") -> None:
        self._answers.write(json.dumps(data, default=str) + "\n")
        self._answers.flush()


class _Following:
    """Stands for a next test that is not run here: what is set up for these nodes stays, all else is torn down."""

    def __init__(self, chain: "list[pytest.Item | pytest.Collector]") -> None:
        self._chain = chain

    def listchain(self) -> "list[pytest.Item | pytest.Collector]":
        return self._chain


def _stay(item: pytest.Item, nodes: "list[str]") -> "Any":
    chain: list[Any] = [node for node in item.listchain() if node.nodeid in nodes]
    return _Following(chain) if chain else None


def serve(args: "list[str]", requests: "IO[str]") -> None:
    """What tests print without capture goes to standard error."""
    runtime.pytest_plugin.INSIDE = True
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    pytest.main(args, plugins=[Service(requests, answers)])
