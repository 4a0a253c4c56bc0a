"""What a monitor asks Warren about: `warren _event ID REASON`.

    exited CODE   the container's process has ended: the run is settled; it is started again, or removed, if asked for
    abandoned     the owner of a container on a leash has gone; the monitor has killed its process
    timer         something is due: the end of --timeout, a health check, a restart

The answer is "MILLISECONDS timer" for the next time, or nothing.
"""

import posix
import time

from ..config import ContainerConfig
from ..errors import NotFoundError, StateError, WarrenError
from ..state import identify
from . import health, journal, lifecycle
from .policy import RestartPolicy
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_MILLISECOND = 1_000_000


def handle(words: "Sequence[str]") -> str:
    """Do what is to be done; the line for the monitor."""
    record = Record(words[0])
    try:
        if words[1] == "abandoned":
            return _abandoned(record)
        return _ended(record) if words[1] == "exited" else _due(record)
    except NotFoundError:
        return ""  # Removed meanwhile.


def _ended(record: Record) -> str:
    with record:
        ended = record.exit()
        lifecycle.settle(record)
        config, life = record.config(), record.life()
        code = record.exit_code()
        journal.note(record, "die", exitCode=str(code))
        if config.auto_remove:
            lifecycle.discard(record, volumes=True)
            return ""
        ran = ended.finished - ended.started if ended else 0
        delay = RestartPolicy(config.restart).delay(life, code, ran)
        if delay is None:
            return ""
        # Our parent is the monitor, whose own record has been cleared away with the run.
        at, monitor = time.time_ns() + delay * _MILLISECOND, identify(posix.getppid())
        record.update_life(restart_at=at, delay=delay, monitor=monitor)
        return f"{delay} timer"


def _abandoned(record: Record) -> str:
    """It has not ended of that: what is frozen by a v1 freezer must be thawed first."""
    with record:
        record.container.delete(force=True)
    return ""


def _due(record: Record) -> str:
    config = record.config()
    if record.life().get("restart_at"):
        _restart(record)
        return ""
    if not record.state_dir.process():
        return ""
    now = time.time_ns()
    if (limit := _timeout_at(record, config)) and now >= limit:
        _kill(record)
        return ""
    check = health.HealthCheck(config)
    if check and now >= int(health.read(record).get("next") or 0):
        health.perform(record, check)
    return _next(record, config, check)


def _next(record: Record, config: ContainerConfig, check: health.HealthCheck) -> str:
    times = [_timeout_at(record, config), int(health.read(record).get("next") or 0) if check else 0]
    nearest = min((moment for moment in times if moment), default=0)
    return f"{max(1, (nearest - time.time_ns()) // _MILLISECOND)} timer" if nearest else ""


def _timeout_at(record: Record, config: ContainerConfig) -> int:
    """When --timeout is over, in nanoseconds since 1970; 0 for never."""
    return int(record.life().get("started") or 0) + int(config.timeout * 1e9) if config.timeout else 0


def _kill(record: Record) -> None:
    with record:
        record.update_life(timed_out=True, stopped=True)
        try:
            record.container.kill(lifecycle.SIGKILL)
        except StateError:
            pass


def _restart(record: Record) -> None:
    """Unless somebody has stopped or started it since.  A start that fails is told by its error, and is the last."""
    try:
        lifecycle.start(record, restarting=True)
    except WarrenError as error:
        journal.note(record, "die", error=str(error))
