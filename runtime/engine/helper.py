"""A process of ours that has a container's view of its files: to copy them, and for what only its ids may touch.

    a container that runs       the helper gets a descriptor of its root, /proc/PID/root
    one that does not           it mounts the root, layers and changes, in a mount namespace of its own
    an ordinary user's          besides, it is root of a user namespace with the maps that his containers have

`init` makes it what it is by a plan, like a container; then it becomes our own interpreter, the host's: nothing of the
container is executed, and the helper is in none of its namespaces, so that nobody there can see or trace it.
"""

import _socket
import os
import posix
import sys
from _struct import pack

from ..errors import NotFoundError, StateError, UsageError, WarrenError
from ..host import Host
from ..jsontext import dump_json, parse_json
from ..launch import Options, launch
from ..namespaces import NEWUSER, TYPES
from ..namespaces.user import map_text, subordinate_map
from ..steps import MAP, LaunchPlan
from ..syscalls import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    Json = dict[str, Any]
    Maps = list[dict[str, int]]

NEWNS = TYPES["mount"][0]
_PRIVATE = 1 << 18
_SIGKILL = 9
_ERRORS = {"NotFoundError": NotFoundError, "UsageError": UsageError}


class Helper:
    """One task at work; `stream` is our end of its stream."""

    def __init__(self, pid: int, stream: int, report: int, *, writes: bool) -> None:
        self._pid = pid
        self._report = report
        self.stream: IO[bytes] = open(stream, "rb" if writes else "wb", buffering=1 << 16)

    def finish(self) -> "Json":
        """Close the stream and wait; what the helper noted.  Raises what it has met."""
        try:
            self.stream.close()
        except BrokenPipeError:
            pass  # It has ended before it had read all; it says why.
        with open(self._report, "rb") as report:
            said = report.read(1 << 20)
        code = wait(self._pid)
        try:
            answer = parse_json(said, "answer of the helper") if said else {}
        except WarrenError:
            answer = {"error": said.decode("utf-8", "replace").strip().rpartition("\n")[2]}
        if not isinstance(answer, dict):
            answer = {}
        if code or answer.get("error"):
            kind = _ERRORS.get(str(answer.get("kind")), StateError)
            raise kind(str(answer.get("error") or f"the helper ended with exit code {code}"))
        return answer

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """After an error of ours it is not waited for to say something, but to end."""
        if kind is not None and not self.stream.closed:
            try:
                self.finish()
            except (WarrenError, OSError):
                pass


def on_files(request: "Json") -> Helper:
    """Start a task on files of this user's containers, with the ids that they have."""
    plan = LaunchPlan()
    enter(plan, Host.probe(), 0)
    return start(plan, {**request, "mounted": True}, -1, writes=True)


# ---- the plan


def enter(plan: LaunchPlan, host: Host, flags: int) -> None:
    """Become root of a user namespace, if we are an ordinary user, and a process of its own."""
    if not host.privileged:
        slot = plan.slot()
        uids, gids = own_maps(host, "uid"), own_maps(host, "gid")
        single = len(uids) == 1
        plan.add("userns", slot, map_text(uids), map_text(gids), int(single), int(not single), -1)
        plan.add("setns", slot, NEWUSER)
    plan.add("undumpable")
    plan.add("clone", flags, -1)
    plan.add("pdeathsig", _SIGKILL)
    if not host.privileged:
        plan.add("setup_ids", 0, 0, int(not single))
    if flags & NEWNS:
        plan.add("propagation", _PRIVATE)


def own_maps(host: Host, kind: str) -> "Maps":
    """The map of an ordinary user's containers; his own id alone without a range of others."""
    maps = {one: subordinate_map(host, one) for one in ("uid", "gid")}
    if all(maps.values()):
        return maps[kind]
    return [{"containerID": 0, "hostID": host.euid if kind == "uid" else host.egid, "size": 1}]


# ---- the process


def start(plan: LaunchPlan, request: "Json", root: int, *, writes: bool) -> Helper:
    site = __file__.rpartition("/runtime/")[0]
    code = "import sys;sys.path.insert(0,sys.argv.pop(1));from runtime.engine.inside import main;sys.exit(main())"
    text = dump_json(request)
    argv = [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, site, text]
    plan.add("exec", argv, [f"PATH={os.environ.get('PATH', os.defpath)}"], 0)
    ours, theirs = posix.pipe2(posix.O_CLOEXEC)
    if not writes:
        ours, theirs = theirs, ours
    report, tell = posix.pipe2(posix.O_CLOEXEC)
    passing, taking = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        if root >= 0:
            passing.sendmsg([b"root"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("i", root))])
        options = Options(stdio=(taking.fileno(), theirs, tell))
        pid = launch(plan, {}, options, _answer)
    except BaseException:
        posix.close(ours)
        posix.close(report)
        raise
    finally:
        passing.close()
        taking.close()
        for fd in (theirs, tell):
            posix.close(fd)
    return Helper(pid, ours, report, writes=writes)


def _answer(kind: int, value: int, _text: str) -> str:
    if kind == MAP:
        from ..container import map_ids

        host = Host.probe()
        map_ids(value, own_maps(host, "uid"), own_maps(host, "gid"))
    return ""
