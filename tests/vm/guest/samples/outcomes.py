"""Not collected by itself: test_machines.py shows with it what becomes of guest tests that do not simply pass."""

import subprocess

import pytest


def test_passes() -> None:
    print("seen by nobody")


def test_fails() -> None:
    print("printed by the test")
    pytest.fail("on purpose")


@pytest.fixture
def broken() -> None:
    raise RuntimeError("broken on purpose")


@pytest.mark.usefixtures("broken")
def test_errors() -> None:
    pass


@pytest.mark.xfail(strict=True)
def test_passes_against_expectation() -> None:
    pass


@pytest.mark.xfail(strict=True, reason="known")
def test_fails_as_expected() -> None:
    pytest.fail("known")


def test_unselected() -> None:
    pass


def test_ends_the_machine() -> None:
    subprocess.run(["busybox", "halt", "-f"])


def test_comes_too_late() -> None:
    pass
