"""A further process in a container of the library, as subprocess.Popen is one on the host; real descriptors both."""

import _signal
import os
import posix
import threading
import time

from ..errors import TimeoutExpiredError
from ..launch import Options
from ..state import poll_end
from ..syscalls import wait_used
from . import processes
from .pipes import Output, Streams, Text, pump
from .processes import Request
from .results import Result, Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from .records import Record

_SIGKILL, _SIGTERM = 9, 15


class Process:
    """One that has been started; its end is the container's at the latest.

    `stdin`, `stdout` and `stderr` are files where PIPE was asked for, `pid` is the host's, `returncode` None until its
    end is known, then its exit code, 128+n when signal n ended it.
    """

    def __init__(self, record: "Record", request: Request, streams: Streams, words: Text) -> None:
        self.args = request.argv
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None
        self.returncode: int | None = None
        self.usage = Usage()
        self.words = words
        self.streams = streams
        self._talkers: list[threading.Thread] = []
        self._said: dict[str, Any] = {}
        self._began = time.monotonic()
        self._waiting = threading.Lock()
        try:
            processes.check_reachable(record)
            process = processes.process_object(record, record.running_pid(), request)
            self.pid = processes.launch_process(record, process, Options(stdio=streams.child, pipes=streams.pipes))
            self._pidfd = posix.pidfd_open(self.pid)
            streams.launched()
        except BaseException:
            streams.close()
            raise

    def open_files(self) -> "Process":
        """Give the caller our ends as files.  It is waited for even if the caller does not: a pid namespace cannot end
        before that (pid_namespaces(7))."""
        threading.Thread(target=self._watch, args=(os.dup(self._pidfd),), daemon=True).start()
        words, streams = self.words, self.streams
        for name, fd, mode in (
            ("stdin", streams.feed, "w"),
            ("stdout", streams.out, "r"),
            ("stderr", streams.err, "r"),
        ):
            if fd >= 0:
                posix.set_blocking(fd, True)
                text = {"encoding": words.encoding, "errors": words.errors} if words.wanted else {}
                mode += "" if words.wanted else "b"
                setattr(self, name, open(streams.take(fd), mode, **text))  # type: ignore[call-overload]
        return self

    def fileno(self) -> int:
        """A pidfd: it polls as readable at the end."""
        return self._pidfd

    def poll(self) -> "int | None":
        """The exit code; None while it runs."""
        if self.returncode is None and poll_end(self._pidfd, 0):
            self._reap()
        return self.returncode

    def wait(self, timeout: "float | None" = None) -> int:
        """Its exit code, after at most `timeout` seconds; TimeoutExpiredError."""
        if self.returncode is None and not poll_end(self._pidfd, timeout):
            raise self._not_ended(timeout)
        return self._reap()

    def _watch(self, pidfd: int) -> None:
        poll_end(pidfd, None)
        os.close(pidfd)
        self._reap()

    def _reap(self) -> int:
        with self._waiting:
            if self.returncode is None:
                code, self.usage.cpu, self.usage.max_memory = wait_used(self.pid)
                self.usage.wall = time.monotonic() - self._began
                self.returncode = code
            return self.returncode

    def _not_ended(self, timeout: "float | None") -> TimeoutExpiredError:
        return TimeoutExpiredError(f"command {self.args[0]!r} has not ended after {timeout:g} s", timeout=timeout)

    def communicate(self, input: "str | bytes | None" = None, timeout: "float | None" = None) -> "tuple[Any, Any]":
        """Feed, collect and wait: (stdout, stderr), None where there is no pipe.

        TimeoutExpiredError leaves it alone, as subprocess does: it may be killed, and asked again, and nothing is lost.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._talkers:
            self._begin_to_talk(input)
        for talker in self._talkers:
            talker.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if any(talker.is_alive() for talker in self._talkers):
            raise self._not_ended(timeout)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        for said in self._said.values():
            if isinstance(said, Exception):
                raise said
        return self._said.get("stdout"), self._said.get("stderr")

    def _begin_to_talk(self, input: "str | bytes | None") -> None:
        """A thread for each pipe: each may have to wait for the others."""

        def collect(name: str, file: "IO[Any]") -> None:
            try:
                self._said[name] = file.read()
            except Exception as error:  # It is no text, for one.
                self._said[name] = error
            file.close()

        pipes = (("stdout", self.stdout), ("stderr", self.stderr))
        self._talkers = [threading.Thread(target=collect, args=pipe, daemon=True) for pipe in pipes if pipe[1]]
        if self.stdin:
            self._talkers.append(threading.Thread(target=self._feed, args=(input,), daemon=True))
        for talker in self._talkers:
            talker.start()

    def _feed(self, input: "str | bytes | None") -> None:
        assert self.stdin
        try:
            if input:
                self.stdin.write(self.words.encode(input) if not self.words.wanted else input)
            self.stdin.close()
        except BrokenPipeError:
            pass  # It does not want it, as subprocess has it.

    def result(self, input: "str | bytes | None", timeout: "float | None", limit: "int | None") -> Result:
        """Feed, collect and wait without files; it is killed after `timeout`, whatever goes wrong."""
        outputs, in_time = self.streams.outputs(limit), False
        try:
            in_time = pump(self.streams, outputs, self.words.encode(input), self._pidfd, timeout)
        finally:
            result = self.finish(outputs, killed=not in_time)
        if not in_time:
            raise self.timed_out(timeout or 0, result)
        return result

    def finish(self, outputs: "dict[int, Output]", *, killed: bool) -> Result:
        """Wait, collect what is in the pipes and close; `killed` kills it first."""
        if killed:
            self.kill()
        code = self._reap()
        out, err = self._collected(outputs)
        self.close()
        truncated = any(output.truncated for output in outputs.values())
        return Result(self.args, code, out, err, {}, usage=self.usage, truncated=truncated)

    def timed_out(self, timeout: float, result: Result) -> TimeoutExpiredError:
        """For one that was killed after `timeout` seconds."""
        what = f"command {self.args[0]!r} took longer than {timeout:g} s and was killed"
        return TimeoutExpiredError(what, result, timeout=timeout)

    def _collected(self, outputs: "dict[int, Output]") -> "list[Any]":
        """What is in the pipes now: others in the container may hold their other ends."""
        for fd, output in outputs.items():
            posix.set_blocking(fd, False)
            try:
                output.drain(fd)
            except BlockingIOError:
                pass
        fds = (self.streams.out, self.streams.err)
        return [self.words.decode(outputs[fd].value()) if fd >= 0 else None for fd in fds]

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        try:
            if self.returncode is None:
                _signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(_SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; what it has started itself goes on."""
        self.send_signal(_SIGKILL)

    def close(self) -> None:
        """Close our ends; one that has not ended yet is killed."""
        for file in (self.stdin, self.stdout, self.stderr):
            if file:
                try:
                    file.close()
                except BrokenPipeError:
                    pass
        self.streams.close()
        if self._pidfd >= 0:
            if self.returncode is None:
                self.kill()
                self._reap()
            posix.close(self._pidfd)
            self._pidfd = -1

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """As subprocess has it, the end is waited for; after an error it is not."""
        if kind is None:
            for file in (self.stdin, self.stdout, self.stderr):
                if file:
                    try:
                        file.close()
                    except BrokenPipeError:
                        pass
            self.wait()
        self.close()

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.args!r} returncode={self.returncode}>"
