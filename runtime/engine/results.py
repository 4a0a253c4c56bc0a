"""What a command of the library leaves: its exit code, its output, what it used and how its limits were held."""

from ..errors import ProcessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Usage:
    """What a command used until it ended, with all that it started in its container."""

    __slots__ = ("cpu", "max_memory", "oom", "wall")

    def __init__(self, wall: float = 0.0, cpu: float = 0.0, max_memory: int = 0, *, oom: bool = False) -> None:
        self.wall = wall
        """Seconds from the request to the end."""
        self.cpu = cpu
        """Seconds of processor time."""
        self.max_memory = max_memory
        """Most bytes at one time: of the cgroup where its memory is accounted (caches are part of it), else the largest
        resident set of one process (getrusage(2))."""
        self.oom = oom
        """Whether the kernel has killed a process of it at its memory limit."""

    def __repr__(self) -> str:
        return f"Usage(wall={self.wall:.6f}, cpu={self.cpu:.6f}, max_memory={self.max_memory}, oom={self.oom})"


class Result:
    """What a finished command leaves: subprocess.CompletedProcess's fields, its use, and what became of its limits."""

    def __init__(
        self,
        args: "list[str]",
        returncode: int,
        stdout: "Any",
        stderr: "Any",
        enforced: "dict[str, str]",
        *,
        usage: "Usage | None" = None,
        truncated: bool = False,
    ) -> None:
        self.args = args
        self.returncode = returncode
        """The command's exit code, 128+n when signal n ended it."""
        self.stdout = stdout
        self.stderr = stderr
        self.enforced = enforced
        """How each limit is held, by name, and what is weaker than asked or than the default, with the reason."""
        self.usage = usage or Usage()
        self.truncated = truncated
        """Whether it said more than was to be kept."""

    @property
    def oom_killed(self) -> bool:
        """The same as usage.oom."""
        return self.usage.oom

    def check_returncode(self) -> None:
        """Raise ProcessError unless the command succeeded."""
        if self.returncode:
            raise ProcessError(f"command {self.args[0]!r} ended with exit code {self.returncode}", self)

    def __repr__(self) -> str:
        return (
            f"Result(args={self.args!r}, returncode={self.returncode}, stdout={self.stdout!r}, stderr={self.stderr!r})"
        )
