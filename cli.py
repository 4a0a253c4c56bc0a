"""`warren`: the entry of the command line for people.  The commands are in runtime/commands; errors are told here."""

import posix
import sys

from runtime.errors import WarrenError
from runtime.host import warning_for_root
from runtime.syscalls import ignore_interrupt, take_interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Entry point of the launcher: one line for every error, and docker's exit codes."""
    if sys.argv[1:2] == ["_event"]:
        _answer_monitor(sys.argv[2:])
    try:
        take_interrupt()
        _warn_of_writable_code()
        code = _execute(sys.argv[1:])
        sys.stdout.flush()
    except WarrenError as error:
        code = _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = _withdraw()
    except BrokenPipeError:
        # Nobody reads on; the interpreter would complain when it flushes at the end.
        posix.dup2(posix.open("/dev/null", posix.O_WRONLY), 1)
        code = 1
    except OSError as error:
        code = _fail(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 125)
    except Exception as error:  # A fault of ours is one line too.
        code = _fail(f"internal error: {type(error).__name__}: {error}", 125)
    _end(code)


def _execute(words: "list[str]") -> int:
    """The exit code; by click, unless the words are plain enough for the commands that are typed most."""
    from runtime.commands import QUICK

    if words and words[0] in QUICK:
        if words[0] == "ps":
            from runtime.commands.ps import answer
        else:
            from runtime.commands.quick import answer
        code = answer(words)
        if code is not None:
            return code
    return _execute_with_click(words)


def _execute_with_click(words: "list[str]") -> int:
    import click

    from runtime.commands.table import commands

    try:
        code = commands.main(words or ["--help"], prog_name="warren", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (SystemExit, click.exceptions.Exit) as error:
        return int((error.code if isinstance(error, SystemExit) else error.exit_code) or 0)
    except click.ClickException as error:
        return _fail(error.format_message().replace("\n", " ").rstrip("."), 125)
    except click.Abort:
        return _withdraw()


def _answer_monitor(words: "list[str]") -> "NoReturn":
    """What a monitor runs; nobody reads its errors, so they go to the events."""
    from runtime.engine.event import handle

    print(handle(words))
    _end(0)


def _end(code: int) -> "NoReturn":
    """By _exit: to take click and all that it has loaded apart costs some milliseconds, and nobody needs it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    posix._exit(code)


def _withdraw() -> int:
    """Interrupted: what was being made goes; one interruption is enough."""
    ignore_interrupt()
    if "runtime.engine.lifecycle" in sys.modules:
        from runtime.engine.lifecycle import withdraw

        withdraw()
    return 130


def _fail(message: str, code: int) -> int:
    message = " ".join(message.split("\n"))
    _tell(f"warren: {message[:1].lower()}{message[1:]}")
    return code


def _warn_of_writable_code() -> None:
    if warning := warning_for_root(__file__.rpartition("/")[0]):
        _tell(f"warren: warning: {warning}")


def _tell(line: str) -> None:
    try:
        print(line, file=sys.stderr)
    except OSError:
        pass
