"""The pytest inside a container: runs one test, and sends its reports on what was its standard output."""

import json
import os

import pytest

import runtime.pytest_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any


class Reporter:
    """A plugin of that run."""

    def __init__(self, file: "IO[str]") -> None:
        self._file = file
        self._config: pytest.Config | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._send(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._send(report)

    def _send(self, report: "pytest.TestReport | pytest.CollectReport") -> None:
        assert self._config
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self.tell(data)

    def tell(self, data: "Any") -> None:
        self._file.write(json.dumps(data, default=str) + "\n")
        self._file.flush()


def serve(request: "dict[str, Any]") -> None:
    """What the test prints without capture goes to standard error."""
    runtime.pytest_plugin.INSIDE = True
    reporter = Reporter(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    code = pytest.main(request["args"], plugins=[reporter])
    reporter.tell({"end": int(code)})
