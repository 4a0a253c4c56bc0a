"""Hooks of the OCI spec that run in the runtime's own namespaces (config.md, POSIX-platform Hooks).

Hooks of the container's namespaces (createContainer, startContainer) are steps of the plan and run by `init`.
"""

import posix
import select
import time

from .errors import HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Hook = dict[str, Any]

_MAX_STDERR = 4096
_ALL_SIGNALS = range(1, 65)


def run_hooks(hooks: "list[Hook] | None", state: str) -> None:
    """Run hooks in order, each with the container's state on its standard input.

    A hook gets exactly its own args (default: its path) and environment (default: none), and the caller's working
    directory: nothing that an image controls (RULES 12).  Raises HookError on a failure or after `timeout` seconds;
    the hook's process group is killed then.
    """
    for index, hook in enumerate(hooks or []):
        _run(hook, f"hook {index + 1} ({hook['path']})", state.encode())


def _run(hook: "Hook", name: str, state: bytes) -> None:
    stdin, feed = posix.pipe2(posix.O_CLOEXEC)
    listen, stderr = posix.pipe2(posix.O_CLOEXEC)
    try:
        pid = _spawn(hook, name, stdin, stderr)
    except BaseException:
        posix.close(feed)
        posix.close(listen)
        raise
    finally:
        posix.close(stdin)
        posix.close(stderr)
    said = _converse(pid, feed, state, listen, hook.get("timeout") or 0)
    _, status = posix.waitpid(pid, 0)
    code = posix.waitstatus_to_exitcode(status)
    if said is None:
        raise HookError(f"{name}: took longer than {hook['timeout']} s and was killed")
    if code:
        first = said.decode("utf-8", "replace").strip().split("\n")[0]
        what = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
        raise HookError(f"{name}: {what}" + (f": {first}" if first else ""))


def _spawn(hook: "Hook", name: str, stdin: int, stderr: int) -> int:
    path: str = hook["path"]
    env = dict(entry.split("=", 1) for entry in hook.get("env") or [] if "=" in entry)
    actions = [
        (posix.POSIX_SPAWN_DUP2, stdin, 0),
        (posix.POSIX_SPAWN_OPEN, 1, "/dev/null", posix.O_WRONLY, 0),
        (posix.POSIX_SPAWN_DUP2, stderr, 2),
        *[(posix.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()],
    ]
    defaults = [number for number in _ALL_SIGNALS if number not in (9, 19, 32, 33)]
    try:
        return posix.posix_spawn(
            path, hook.get("args") or [path], env, file_actions=actions, setpgroup=0, setsigmask=[], setsigdef=defaults
        )
    except OSError as error:
        raise HookError(f"{name}: cannot be executed: {posix.strerror(error.errno or 0)}".lower()) from error


def _inheritable() -> "list[int]":
    """Descriptors beyond the standard ones that our caller left open for whatever we start."""
    found = []
    for name in posix.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and posix.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            continue  # The descriptor of the listing itself.
    return found


def _converse(pid: int, feed: int, state: bytes, listen: int, timeout: int) -> "bytes | None":
    """Feed the state and collect the beginning of stderr until the hook ends; None when it had to be killed.

    A hook need not read its input, and a child that it leaves behind may keep stderr open: its own end counts.
    """
    ended = posix.pidfd_open(pid)
    posix.set_blocking(feed, False)
    deadline = time.monotonic() + timeout if timeout else None
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(listen, select.POLLIN)
    poll.register(feed, select.POLLOUT)
    said, view = b"", memoryview(state)
    feeding = True
    try:
        while True:
            left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            events = dict(poll.poll(left))
            if not events:
                _kill_group(pid)
                return None
            if feed in events and feeding:
                view = _write_some(feed, view)
                if not view:
                    poll.unregister(feed)
                    posix.close(feed)
                    feeding = False
            if listen in events:
                data = posix.read(listen, 4096)
                said = (said + data)[:_MAX_STDERR]
                if not data:
                    poll.unregister(listen)
            elif ended in events:
                return said
    finally:
        posix.close(ended)
        posix.close(listen)
        if feeding:
            posix.close(feed)


def _write_some(fd: int, view: memoryview) -> memoryview:
    """Write what fits; nothing is left to write once the reader is gone."""
    try:
        return view[posix.write(fd, view) :]
    except BlockingIOError:
        return view
    except BrokenPipeError:
        return view[len(view) :]


def _kill_group(pid: int) -> None:
    try:
        posix.killpg(pid, 9)
    except ProcessLookupError:
        pass  # It has just ended, and its children too.
