"""What a monitor asks Warren about: `warren _event ID REASON`.

    exited CODE   the container's process has ended: settle the run; start it again, or remove it, if that was asked for
    timer         something is due: the end of --timeout, a restart, a health check

The answer is "MILLISECONDS timer" for the next time, or nothing.
"""

import time

from ..errors import NotFoundError, StateError
from . import journal
from .lifecycle import SIGKILL, discard, settle
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def handle(words: "Sequence[str]") -> str:
    """Do what is to be done; the line for the monitor."""
    record = Record(words[0])
    try:
        with record:
            if words[1] == "exited":
                return _ended(record)
            return _due(record)
    except NotFoundError:
        return ""  # Removed meanwhile.


def _ended(record: Record) -> str:
    settle(record)
    journal.note(record, "die", exitCode=str(record.exit_code()))
    if record.config().auto_remove:
        discard(record, volumes=True)
    return ""


def _due(record: Record) -> str:
    timeout = record.config().timeout
    started = int(record.life().get("started") or 0)
    if timeout and time.time_ns() - started >= int(timeout * 1e9):
        record.update_life(timed_out=True, stopped=True)
        try:
            record.container.kill(SIGKILL)
        except StateError:
            pass
    return ""
