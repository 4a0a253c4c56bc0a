"""Restart policies: whether, and how much later, a container that has ended is started again."""

from ..errors import UsageError
from ..quantities import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

NO, ALWAYS, UNLESS_STOPPED, ON_FAILURE = "no", "always", "unless-stopped", "on-failure"
_FIRST_DELAY, _LONGEST_DELAY, _LONG_RUN = 100, 60_000, 10_000_000_000
"""Milliseconds twice, doubled from one restart to the next; a run of so many nanoseconds begins anew (docker)."""


class RestartPolicy:
    """--restart, taken apart; UsageError."""

    __slots__ = ("maximum", "name")

    def __init__(self, text: str) -> None:
        self.name, colon, count = (text or NO).partition(":")
        if self.name not in (NO, ALWAYS, UNLESS_STOPPED, ON_FAILURE):
            hint = "no, always, unless-stopped or on-failure[:MAX]"
            raise UsageError(f"--restart {text!r} is unknown", hint=hint)
        if colon and (self.name != ON_FAILURE or not is_number(count)):
            raise UsageError(f"--restart {text!r}: a number of tries goes with on-failure only")
        self.maximum = int(count) if colon else 0
        """Of restarts; 0 for no limit."""

    @property
    def restarts(self) -> bool:
        return self.name != NO

    def delay(self, life: "Json", code: int, ran: int) -> "int | None":
        """Milliseconds until the next start, after an end with `code` and `ran` nanoseconds of life; None for never.

        `life` is Record.life(): restarts, delay (the last one), stopped (by the user).
        """
        if life.get("stopped") or self.name == NO:
            return None
        if self.name == ON_FAILURE and (not code or 0 < self.maximum <= int(life.get("restarts") or 0)):
            return None
        last = int(life.get("delay") or 0)
        return _FIRST_DELAY if ran >= _LONG_RUN or not last else min(2 * last, _LONGEST_DELAY)
