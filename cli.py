"""`warren`: the entry of the command line for people.  The commands are in runtime/commands; errors are told here."""

import os
import sys
from typing import NoReturn

from runtime.errors import WarrenError
from runtime.host import warning_for_root
from runtime.syscalls import take_interrupt


def main() -> NoReturn:
    """Entry point of the launcher: one line for every error, and docker's exit codes."""
    if sys.argv[1:2] == ["_event"]:
        _answer_monitor(sys.argv[2:])
    import click

    try:
        take_interrupt()
        _warn_of_writable_code()
        from runtime.commands.table import commands

        commands.main(sys.argv[1:] or ["--help"], prog_name="warren", standalone_mode=False)
        sys.stdout.flush()
        code = 0
    except WarrenError as error:
        code = _fail(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        code = _fail(error.format_message().replace("\n", " ").rstrip("."), 125)
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except BrokenPipeError:
        # Nobody reads on; the interpreter would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    except OSError as error:
        code = _fail(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 125)
    except Exception as error:  # A fault of ours is one line too.
        code = _fail(f"internal error: {type(error).__name__}: {error}", 125)
    _end(code)


def _answer_monitor(words: list[str]) -> NoReturn:
    """What a monitor runs; nobody reads its errors, so they go to the events."""
    from runtime.engine.event import handle

    print(handle(words))
    _end(0)


def _end(code: int) -> NoReturn:
    """By _exit: to take click and all that it has loaded apart costs some milliseconds, and nobody needs it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


def _fail(message: str, code: int) -> int:
    message = " ".join(message.split("\n"))
    _tell(f"warren: {message[:1].lower()}{message[1:]}")
    return code


def _warn_of_writable_code() -> None:
    if warning := warning_for_root(os.path.dirname(os.path.abspath(__file__))):
        _tell(f"warren: warning: {warning}")


def _tell(line: str) -> None:
    try:
        print(line, file=sys.stderr)
    except OSError:
        pass
