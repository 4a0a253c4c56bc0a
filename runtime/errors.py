"""Every exception that Warren raises.

    WarrenError                      exit code 125 unless its class says otherwise
    +-- UsageError                   the caller's words are off
    |   +-- NoTerminalError          standard input is to be a terminal and is none; 1, as with docker
    +-- SpecError                    config.json (or a process.json) is malformed or contradicts itself
    +-- UnsupportedError             well-formed, but this host or this version cannot do it; never ignored
    +-- PlanError                    the plan cannot be expressed
    +-- LaunchError                  a step of the plan failed; carries the step and the errno
    |   +-- CommandNotFoundError     127
    |   +-- CommandNotExecutableError  126
    |   +-- WorkingDirectoryError
    +-- ImageError                   what an image, an archive or a registry holds or says is wrong
    +-- HookError                    a hook failed or took too long
    +-- StateError                   the container is not in a state that allows the verb
    |   +-- NotFoundError            no such container
    |   +-- ExistsError              the id is taken
    +-- TimeoutExpiredError          a container ran longer than allowed, 124 as timeout(1)
    +-- ProcessError                 runtime.run(check=True): the command failed

`str()` of each is one line, lower case, that says what failed and on what; `hint` says what to do about it.
"""

from errno import errorcode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .steps import Step


_LONGEST = 800
"""Characters of a message; a mount option or a path of a bundle may be much longer."""


class WarrenError(Exception):
    """The base of all: `message` says what failed, on what, `hint` what to do, `exit_code` how a command ends then."""

    exit_code = 125
    about_command = False
    """Whether it tells of the container's own command.  podman takes "no such file or directory", from whatever cause,
    for a command that is missing; so no other error says so."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Message and hint on one line, whatever control characters user data brought in, and however much of it."""
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        if not self.about_command:
            text = text.replace("no such file or directory", "not found").replace(
                "No such file or directory", "not found"
            )
        text = "".join([c if c.isprintable() else repr(c)[1:-1] for c in text])
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"

    def __reduce__(self) -> "tuple[Any, ...]":
        """For multiprocessing: classes are made from other things than their message."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: "type[WarrenError]", args: "tuple[Any, ...]", fields: "dict[str, Any]") -> WarrenError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class UsageError(WarrenError):
    """The caller's words are off; nothing has been done."""


class NoTerminalError(UsageError):
    """Standard input is to be a terminal and is none."""

    exit_code = 1


class SpecError(WarrenError):
    """A config.json or process.json is malformed, or contradicts itself."""


class UnsupportedError(WarrenError):
    """It is well-formed, but this host or this version cannot do it, a limit that cannot be held among it."""


class PlanError(WarrenError):
    """The plan of a launch cannot be expressed: it is too long."""


class LaunchError(WarrenError):
    """A step failed inside `init`.

    `number` counts from 1 as `--plan` does and is 0 when no step was at work; `errno` is 0 when none applies.
    The errno is given by name: podman reads "no such file or directory" as a missing command, so the words
    are kept for that alone.
    """

    def __init__(self, number: int, step: "Step | None", errno: int, detail: str = "", *, hint: str = "") -> None:
        what = f"step {number}: {step}" if step else "launch"
        why = ": ".join([part for part in (errorcode.get(errno, ""), detail) if part]) or "failed"
        super().__init__(f"{what}: {why}", hint=hint)
        self.number = number
        self.step = step
        self.errno = errno
        self.source = ""
        """The path on the host of the mount that the step is about, where it is about one."""
        self.detail = detail


class CommandNotFoundError(LaunchError):
    """The command is not in the container; the exit code is 127, as a shell has it."""

    exit_code = 127
    about_command = True

    def __init__(self, number: int, step: "Step | None", errno: int, program: str) -> None:
        super().__init__(number, step, errno, hint="is it installed in the container?")
        self.message = f"exec: {program!r}: " + (
            "no such file or directory" if "/" in program else "executable file not found in $PATH"
        )


class CommandNotExecutableError(LaunchError):
    """dockerd and podman turn "permission denied" into 126, so a directory is called that too."""

    exit_code = 126

    def __init__(self, number: int, step: "Step | None", errno: int, program: str, detail: str = "") -> None:
        super().__init__(number, step, errno, hint="it must be an executable file")
        why = "permission denied: is a directory" if detail == "is a directory" else detail or "permission denied"
        self.message = f"exec: {program!r}: {why}"


class WorkingDirectoryError(LaunchError):
    """A part of the command that is missing too: of `exec`, engines make 127 of it, as with runc."""

    about_command = True

    def __init__(self, number: int, step: "Step | None", errno: int, directory: str) -> None:
        super().__init__(number, step, errno, hint="does the working directory exist in the container?")
        self.message = f"chdir to {directory!r}: no such file or directory"


class ImageError(WarrenError):
    """What an image, an archive or a registry holds or says is wrong."""


class HookError(WarrenError):
    """A hook of the bundle has failed, or taken longer than its timeout."""


class StateError(WarrenError):
    """The container is not in a state that allows it: it has ended, or it runs."""


class NotFoundError(StateError):
    """There is no such container, image, network, volume or file."""


class ExistsError(StateError):
    """A name, id, port or address is taken."""


class _ResultError(WarrenError):
    """`result` is what run() would have returned, None where there is none; its fields by subprocess's names."""

    def __init__(self, message: str, result: "Any" = None) -> None:
        super().__init__(message)
        self.result = result

    @property
    def cmd(self) -> "list[str]":
        return self.result.args if self.result else []

    @property
    def returncode(self) -> int:
        return self.result.returncode if self.result else 0

    @property
    def stdout(self) -> "Any":
        return self.result.stdout if self.result else None

    @property
    def stderr(self) -> "Any":
        return self.result.stderr if self.result else None

    output = stdout


class TimeoutExpiredError(_ResultError):
    """Something took longer than it might; `timeout` is in seconds.  A `result` is what there was until then."""

    exit_code = 124

    def __init__(self, message: str, result: "Any" = None, *, timeout: "float | None" = None) -> None:
        super().__init__(message, result)
        self.timeout = timeout


class ProcessError(_ResultError):
    """`runtime.run(check=True)` found a non-zero exit code."""
