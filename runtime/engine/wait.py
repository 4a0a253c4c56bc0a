"""What to wait for until a container is ready: conditions that compose.

    with runtime.container("busybox", ["httpd", "-f"], publish=[80]) as web:
        web.wait_for(runtime.wait.tcp(80) & runtime.wait.exec_ok("true"), timeout=30)

Each is asked again and again, and says at the end what has not come to be.  A container that ends is not waited for.
"""

import http.client as http_client
import re
import socket
import time

from ..errors import StateError, TimeoutExpiredError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .handle import RunningContainer

_FIRST_PAUSE, _PAUSE = 0.005, 0.1
"""Seconds between two looks, which grow from the one to the other."""
_ANSWER = 2.0
"""Seconds within which a server must answer one request."""


class Condition:
    """`check` is asked of the container; & is all_of, | any_of."""

    def __init__(self, text: str, check: "Callable[[RunningContainer], bool]") -> None:
        self.text = text
        self.check = check

    def holds(self, container: "RunningContainer") -> bool:
        """Whether it has come to be; StateError when the container has ended before."""
        if self.check(container):
            return True
        if container.status != "exited":
            return False
        if self.check(container):
            return True
        code, said = container.record.exit_code(), container.logs(tail=5).decode("utf-8", "replace").strip()
        hint = f"its last words: {said}" if said else "it has said nothing"
        raise StateError(f"container {container.name!r} ended with exit code {code} before {self.text}", hint=hint)

    def __and__(self, other: "Condition") -> "Condition":
        return all_of(self, other)

    def __or__(self, other: "Condition") -> "Condition":
        return any_of(self, other)

    def __repr__(self) -> str:
        return f"<{self.text}>"


def healthy() -> Condition:
    """Its health check has succeeded; UsageError for a container that has none."""

    def check(container: "RunningContainer") -> bool:
        from .health import HEALTHY, HealthCheck, read

        if not HealthCheck(container.record.config()):
            raise UsageError(f"container {container.name!r} has no health check", hint="health_cmd=")
        return bool(read(container.record).get("status") == HEALTHY)

    return Condition("healthy", check)


def tcp(port: int) -> Condition:
    """Something accepts connections on a port of the container, where addr() finds it."""

    def check(container: "RunningContainer") -> bool:
        try:
            socket.create_connection(container.addr(port), _ANSWER).close()
            return True
        except OSError:
            return False

    return Condition(f"a server on port {port}", check)


def http(port: int, path: str = "/", status: "int | range" = range(200, 400)) -> Condition:
    """GET of a path is answered with such a status."""
    expected = range(status, status + 1) if isinstance(status, int) else status

    def check(container: "RunningContainer") -> bool:
        connection = http_client.HTTPConnection(*container.addr(port), timeout=_ANSWER)
        try:
            connection.request("GET", path)
            return connection.getresponse().status in expected
        except (OSError, http_client.HTTPException):
            return False
        finally:
            connection.close()

    return Condition(f"an answer to GET {path} on port {port}", check)


def log(pattern: str, *, times: int = 1) -> Condition:
    """A regular expression is found in that many lines of the output."""
    wanted = re.compile(pattern.encode())

    def check(container: "RunningContainer") -> bool:
        return sum(1 for line in container.logs().splitlines() if wanted.search(line)) >= times

    return Condition(f"{pattern!r} in the output", check)


def exec_ok(*argv: str) -> Condition:
    """A command succeeds in it."""

    def check(container: "RunningContainer") -> bool:
        return container.exec(argv, capture_output=True).returncode == 0

    return Condition(f"success of {argv[0]!r}", check)


def ended() -> Condition:
    """Its process has ended, which is not an error then."""
    return Condition("its end", lambda container: container.status == "exited")


def all_of(*conditions: Condition) -> Condition:
    """All of them at one time; the later ones are only asked when the earlier ones have come to be."""
    text = " and ".join(condition.text for condition in conditions)
    return Condition(text, lambda container: all(condition.check(container) for condition in conditions))


def any_of(*conditions: Condition) -> Condition:
    """The first of them."""
    text = " or ".join(condition.text for condition in conditions)
    return Condition(text, lambda container: any(condition.check(container) for condition in conditions))


def pauses() -> "Callable[[], float]":
    """Seconds to wait before each look but the first."""
    pause = _FIRST_PAUSE

    def following() -> float:
        nonlocal pause
        now, pause = pause, min(_PAUSE, pause * 1.5)
        return now

    return following


def too_late(container: "RunningContainer", condition: Condition, timeout: float) -> TimeoutExpiredError:
    """For one that has not come to be within `timeout` seconds."""
    what = f"container {container.name!r}: no {condition.text} within {timeout:g} s"
    return TimeoutExpiredError(what, timeout=timeout)


def wait_for(container: "RunningContainer", condition: Condition, timeout: float) -> None:
    """Return when it has come to be; too_late() and what holds() raises."""
    deadline, pause = time.monotonic() + timeout, pauses()
    while not condition.holds(container):
        if time.monotonic() >= deadline:
            raise too_late(container, condition, timeout)
        time.sleep(pause())
