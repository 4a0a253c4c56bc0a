"""The commands that are typed most, as functions; and a way to them that does not load click (25 ms).

answer() does what parses cleanly.  Whatever is odd (an unknown option, --help, --plan, an option behind `host`) it
leaves to click, whose commands call the same functions, and which can tell what is wrong.
"""

from ..config import HOST
from ..engine import lifecycle
from ..engine.records import find
from ..errors import NotFoundError, StateError, UsageError, WarrenError
from ..options import EXEC, KILL, ONLY_RUN, RESTART, RM, RUN, START, STOP, parse, to_config, to_request
from ..quantities import signal_number
from .telling import tell, tell_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..engine.images import Fetch
    from ..engine.records import Record
    from ..engine.running import Outcome
    from ..options import Option

    Values = dict[str, Any]

_KILLED = 137
"""Exit code of what SIGKILL has ended, as the kernel's OOM killer does."""


def answer(words: "Sequence[str]") -> "int | None":
    """Do what is asked for; the exit code.  None when only click can tell what that is.  Raises WarrenError."""
    table = _TABLE.get(words[0]) if words else None
    if table is None:
        return None
    options, act, ends_at_source = table
    parsed = parse(options, words[1:])
    if parsed is None or not parsed[1] or _is_odd(parsed[1], parsed[0], ends_at_source):
        return None
    return act(parsed[1], parsed[0])


def _is_odd(rest: "list[str]", values: "Values", ends_at_source: bool) -> bool:
    """Whether options may stand behind the first word that is none."""
    if not ends_at_source:
        return any(word.startswith("-") for word in rest)
    if values.get("plan"):
        return True
    return rest[0] == HOST and not values.get("rootfs") and "--" in rest[2:] and rest[1].startswith("-")


# ---- run, create, start


def run(words: "Sequence[str]", values: "Values") -> int:
    from ..engine import running

    config = to_config(words, values)
    if values["detach"] or values["replicas"]:
        for container_id in running.run_detached(config, values, _fetch(values)):
            _print_now(container_id)
        return 0
    return _leave(running.run_attached(config, values, _fetch(values)))


def create(words: "Sequence[str]", values: "Values") -> int:
    from ..engine import running

    print(running.create_checked(to_config(words, values), values, _fetch(values)).id)
    return 0


def start(names: "Sequence[str]", values: "Values") -> int:
    from ..engine import running

    attach, interactive = values["attach"], values["interactive"]
    if attach or interactive:
        if len(names) > 1:
            raise UsageError("--attach and --interactive take one container")
        record = _named(names[0])
        return _leave(running.start_attached(record, interactive=interactive, detach_keys=values["detach_keys"]))
    return each(names, lifecycle.start)


def _fetch(values: "Values") -> "Fetch":
    """Pulls as the options say, and shows how far it is."""

    def fetch(name: str, store: "Any") -> "Any":
        from .fetching import fetch_image

        return fetch_image(name, store, platform=values["platform"], quiet=values["quiet"])

    return fetch


def _leave(outcome: "Outcome") -> int:
    """Tell what the user should know of the container's end; its exit code."""
    if note := outcome.notes.get("image"):
        tell(f"warning: {note}")
    if outcome.oom_killed and outcome.code == _KILLED:
        limit = outcome.record.config().memory
        tell(f"out of memory: a process was killed at the limit of {limit}")
    return outcome.code


def exec_(words: "Sequence[str]", values: "Values") -> int:
    from ..engine import processes

    try:
        return processes.exec_process(*to_request(words, values))
    except StateError as error:
        error.exit_code = 1  # docker's, where there is no such container or it does not run.
        raise


# ---- stop, kill, rm ...


def stop(names: "Sequence[str]", values: "Values") -> int:
    number = signal_number(values["signal"]) if values["signal"] else 0
    return each(names, lambda record: lifecycle.stop(record, values["timeout"], number))


def restart(names: "Sequence[str]", values: "Values") -> int:
    return each(names, lambda record: lifecycle.restart(record, values["timeout"]))


def kill(names: "Sequence[str]", values: "Values") -> int:
    number = signal_number(values["signal"])
    return each(names, lambda record: lifecycle.kill(record, number))


def pause(names: "Sequence[str]", _values: "Values") -> int:
    return each(names, lifecycle.pause)


def unpause(names: "Sequence[str]", _values: "Values") -> int:
    return each(names, lifecycle.unpause)


def rm(names: "Sequence[str]", values: "Values") -> int:
    force, volumes = values["force"], values["volumes"]
    return each(names, lambda record: lifecycle.remove(record, force=force, volumes=volumes), missing_is_fine=force)


def wait(names: "Sequence[str]", _values: "Values") -> int:
    for record in [_named(name) for name in names]:
        _print_now(str(lifecycle.wait(record)))
    return 0


def _named(name: str) -> "Record":
    """docker ends with 1, not 125, where there is no such container."""
    try:
        return find(name)
    except NotFoundError as error:
        error.exit_code = 1
        raise


def each(names: "Sequence[str]", act: "Callable[[Record], object]", *, missing_is_fine: bool = False) -> int:
    """Do it to each, whatever fails; prints the words that named those it was done to.  1 after errors, else 0."""
    failed = 0
    for name in names:
        try:
            act(find(name))
        except WarrenError as error:
            if not (missing_is_fine and isinstance(error, NotFoundError)):
                tell_error(error)
                failed = 1
            continue
        _print_now(name)
    return failed


def _print_now(line: str) -> None:
    """Who reads a pipe need not wait for the next."""
    print(line, flush=True)


_NAMES_ONLY: "list[Option]" = []
_TABLE: "dict[str, tuple[list[Option], Callable[[list[str], Values], int], bool]]" = {
    "create": (RUN, create, True),
    "exec": (EXEC, exec_, True),
    "kill": (KILL, kill, False),
    "pause": (_NAMES_ONLY, pause, False),
    "restart": (RESTART, restart, False),
    "rm": (RM, rm, False),
    "run": ([*RUN, *ONLY_RUN], run, True),
    "start": (START, start, False),
    "stop": (STOP, stop, False),
    "unpause": (_NAMES_ONLY, unpause, False),
    "wait": (_NAMES_ONLY, wait, False),
}
"""Options, function, and whether options end at the first word that is none."""
