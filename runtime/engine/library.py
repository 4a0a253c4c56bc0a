"""runtime.run(): a container from its configuration to its removal, in the caller's process.

Nothing is left behind: a container made here dies with the thread that launched it, is deleted at the end, and if
this process is killed its guardian removes what is left (guardian.py), as the next command would (container.sweep).
"""

import os
import posix
import time

from ..cgroups.stats import totals
from ..errors import StateError, TimeoutExpiredError, UsageError
from ..launch import Options
from ..syscalls import wait_used
from .guardian import guard
from .launching import Launch, clean_up
from .pipes import DEVNULL, PIPE, STDOUT, Output, Streams, Text, pump
from .results import Result, Usage
from .settings import configuration, image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..cgroups import Cgroup
    from ..config import ContainerConfig
    from ..images.local import LocalStore
    from .pipes import Stream

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Result", "Usage", "run"]

_SIGKILL = 9


def run(
    image: "str | os.PathLike[str]",
    argv: "Sequence[str]",
    *,
    input: "str | bytes | None" = None,
    stdin: "Stream" = None,
    stdout: "Stream" = None,
    stderr: "Stream" = None,
    capture_output: bool = False,
    text: bool = False,
    encoding: "str | None" = None,
    errors: "str | None" = None,
    timeout: "float | None" = None,
    check: bool = False,
    env: "Mapping[str, str] | None" = None,
    cwd: "str | os.PathLike[str] | None" = None,
    user: "str | int | None" = None,
    network: str = "none",
    egress: "Sequence[str]" = (),
    mounts: "Sequence[str]" = (),
    tmpfs: "Sequence[str]" = (),
    hide: "Sequence[str]" = (),
    read_only: bool = False,
    hostname: str = "",
    cap_add: "Sequence[str]" = (),
    cap_drop: "Sequence[str]" = (),
    security_opt: "Sequence[str]" = (),
    ulimits: "Sequence[str]" = (),
    userns: str = "",
    init: bool = False,
    entrypoint: "str | None" = None,
    isolation: str = "container",
    memory: "str | int" = "",
    memory_swap: "str | int" = "",
    cpus: "str | float" = "",
    pids: "int | None" = None,
    output_limit: "int | None" = None,
    pull: str = "missing",
    strict: bool = True,
) -> Result:
    """Run a command in a new container and wait for it; names and meanings are subprocess.run's.

    `image` is the name of an image, which is pulled if need be (`pull`: missing, always, never), "host" (the host's own
    root under a throw-away overlay) or a directory to use as the root, under an overlay too.  `isolation` is
    "container", "vm" or "vm:KIND".

    `env` adds to a minimal environment.  `mounts` are SRC:DST[:OPTIONS], where SRC is a directory or the name of a
    volume; `tmpfs` DST[:OPTIONS].  `network` is none, host, bridge, private or the name of a network; with `egress`,
    rules as `warren run --egress` has them, the default is a network on which nothing else can be reached.

    `memory` (bytes, or "512m"), `cpus` (1.5) and `pids` (1024 by default, 0 for none) are docker's limits, `timeout` is
    seconds.  A limit that this host cannot hold is an error, without `strict` a note in `enforced`.  Of each captured
    stream at most `output_limit` bytes are kept.

    Works from any thread; the container dies with the thread.  Raises LaunchError when it cannot be started
    (CommandNotFoundError, CommandNotExecutableError), UnsupportedError for what this host cannot do, UsageError for
    bad arguments, TimeoutExpiredError after `timeout` seconds (the container is killed then; its `result` is what
    there was), and with `check` ProcessError for an exit code other than 0.
    """
    asked = Asked(locals())
    try:
        result = asked.run.communicate(asked.streams, asked.data, timeout, asked.words, output_limit)
    finally:
        asked.close()
    if check:
        result.check_returncode()
    return result


_OWN = frozenset(
    "image argv input stdin stdout stderr capture_output text encoding errors timeout check output_limit pull".split()
)
"""What of run()'s parameters is no option of the container."""


class Asked:
    """What run() was asked for, by the names of its parameters, of which none but image and argv need be there; to be
    closed."""

    def __init__(self, options: "Mapping[str, Any]") -> None:
        get = options.get
        config = _configuration(options)
        stdin, stdout, stderr = get("stdin"), get("stdout"), get("stderr")
        if get("capture_output"):
            stdout, stderr = captured(stdout, stderr)
        if get("input") is not None:
            stdin = fed(stdin)
        self.words = Text(get("text", False), get("encoding"), get("errors"))
        self.data = self.words.encode(get("input"))
        self.streams = Streams(stdin, stdout, stderr)
        self.run = Run(config, Options(stdio=self.streams.child, pipes=self.streams.pipes))
        self.run.pull = get("pull", "missing")

    def close(self) -> None:
        try:
            self.run.end()
        finally:
            self.streams.close()


def _configuration(options: "Mapping[str, Any]") -> "ContainerConfig":
    of_container = {name: value for name, value in options.items() if name not in _OWN}
    if of_container.get("egress") and of_container.get("network") == "none":
        of_container["network"] = ""  # It is the default, and the rules ask for another one.
    image, argv = options["image"], options["argv"]
    if not argv and not image_of(image):
        raise UsageError("no command is given")
    return configuration(image, argv or None, of_container)


def captured(stdout: "Stream", stderr: "Stream") -> "tuple[int, int]":
    if stdout is not None or stderr is not None:
        raise UsageError("capture_output may not be used with stdout or stderr")
    return PIPE, PIPE


def fed(stdin: "Stream") -> int:
    if stdin is not None:
        raise UsageError("input may not be used with stdin")
    return PIPE


class Run:
    """A container of this process between its launch and its end, which is this process's child."""

    def __init__(self, config: "ContainerConfig", options: Options) -> None:
        options.ephemeral = True
        options.pdeathsig = _SIGKILL
        self.launching = Launch(config, options)
        self.container = self.launching.container
        self.config = config
        self.options = options
        self.pull = "missing"
        self.store: LocalStore | None = None
        self.pid = 0
        """The container's process from its launch until it is waited for."""
        self.usage = Usage()
        self.began = time.monotonic()

    def get_image(self) -> bool:
        """Pull it if need be, which takes its time; launch() does so where nobody has."""
        if self.config.image and not self.store:
            from ..images.local import LocalStore
            from .images import take_image

            self.store = LocalStore()
            take_image(self.config, self.store, self.pull)
            if self.store.notes:
                self.options.enforced = {**self.options.enforced, "image": "; ".join(self.store.notes)}
        return True

    def launch(self) -> int:
        guard()
        clean_up(self.launching.root)
        self.get_image()
        self.pid = self.launching.run()
        return self.pid

    def communicate(
        self, streams: Streams, data: bytes, timeout: "float | None", words: Text, limit: "int | None"
    ) -> Result:
        """Launch, feed, collect and wait; TimeoutExpiredError."""
        self.launch()
        streams.launched()
        return self.attend(streams, data, timeout, words, limit)

    def attend(
        self, streams: Streams, data: bytes, timeout: "float | None", words: Text, limit: "int | None"
    ) -> Result:
        """The same for one that runs."""
        ended = posix.pidfd_open(self.pid)
        outputs = streams.outputs(limit)
        try:
            in_time = pump(streams, outputs, data, ended, timeout)
        finally:
            posix.close(ended)
        return self.finish(streams, outputs, words, None if in_time else timeout)

    def finish(
        self, streams: Streams, outputs: "dict[int, Output]", words: Text, timed_out: "float | None" = None
    ) -> Result:
        """Take it away, and tell how it has ended; after a time-out it is killed first (TimeoutExpiredError)."""
        code = self.wait() if timed_out is None else self.kill()
        # Killing the cgroup ends orphans that could hold the pipes open.
        self.remove()
        for fd, output in outputs.items():
            output.drain(fd)
        out, err = (words.decode(outputs[fd].value()) if fd >= 0 else None for fd in (streams.out, streams.err))
        argv, enforced = list(self.config.argv), self.options.enforced
        truncated = any(output.truncated for output in outputs.values())
        result = Result(argv, code, out, err, enforced, usage=self.usage, truncated=truncated)
        if timed_out is not None:
            what = f"command {self.config.argv[0]!r} took longer than {timed_out:g} s and was killed"
            raise TimeoutExpiredError(what, result, timeout=timed_out)
        return result

    def wait(self) -> int:
        """Wait for the container's process; its exit code."""
        code, self.usage.cpu, self.usage.max_memory = wait_used(self.pid)
        self.usage.wall = time.monotonic() - self.began
        self.pid = 0
        return code

    def kill(self) -> int:
        """Kill the container's process, which may have ended by itself meanwhile; its exit code."""
        try:
            self.container.kill(_SIGKILL)
        except StateError:
            pass
        return self.wait()

    def remove(self) -> None:
        """Delete it, and whatever it left running; its cgroup is asked before it goes."""
        self.container.delete(force=True, look=self._account)

    def _account(self, cgroup: "Cgroup") -> None:
        cpu, peak, oom = totals(cgroup)
        if cpu >= 0:
            self.usage.cpu = cpu / 1e9
        if peak > 0:
            self.usage.max_memory = peak
        self.usage.oom = oom > 0

    def end(self) -> None:
        """Delete it, if it is still there, and leave no zombie of it; idempotent."""
        self.container.delete(force=True)
        if self.pid:
            self.wait()
        self.launching.release()
        if self.config.resolved_mounts:
            from ..config.mounts import resolved
            from .volumes import release

            release(resolved(self.config), self.config.id, remove=True)
        if self.store:
            self.store.release(self.config.id)


def get_image(name: str, policy: str) -> None:
    """Pull it if need be, for a launch that is to find it in the store."""
    from ..images.local import LocalStore
    from .images import choose_image

    choose_image(name, LocalStore(), policy)
