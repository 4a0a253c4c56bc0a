"""Of the unit tests: how long one generated example takes says more about the machine than about us."""

from pathlib import Path

import hypothesis
import pytest

from tests.helpers.init import compile_checked, compile_small

hypothesis.settings.register_profile("warren", deadline=None)
hypothesis.settings.load_profile("warren")


@pytest.fixture(scope="session")
def init_binary(session_directory: Path) -> Path:
    return compile_small(session_directory / "init")


@pytest.fixture(scope="session")
def checked_binary(session_directory: Path, init_binary: Path) -> Path:
    return compile_checked(session_directory / "init-checked") or init_binary
