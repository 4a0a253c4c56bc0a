"""System calls that a container may not make: config-linux.md, "Seccomp"."""

import fcntl
import json
import os
import platform
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.oci import Bundle, Container, Runtime

# Nothing that a launch needs is among them.
NUMBERS = {
    "x86_64": {"getpriority": 140, "sysinfo": 99, "sethostname": 170, "times": 100, "personality": 135},
    "aarch64": {"getpriority": 141, "sysinfo": 179, "sethostname": 161, "times": 153, "personality": 92},
}[platform.machine()]

ALLOW, ERRNO, NOTIFY = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"


def call(name: str, *arguments: object) -> str:
    return " ".join(["syscall", str(NUMBERS[name]), *map(str, arguments)])


def seccomp(bundle: Bundle, *rules: dict[str, Any], default: str = ALLOW, **more: Any) -> Bundle:
    bundle.linux["seccomp"] = {"defaultAction": default, "syscalls": list(rules), **more}
    return bundle


def rule(name: str, action: str = ERRNO, **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": action, **more}


@pytest.fixture(params=[True, False], ids=["no new privileges", "new privileges"])
def either(request: pytest.FixtureRequest, bundle: Bundle) -> Bundle:
    """The filter is loaded at other places with and without noNewPrivileges."""
    bundle.process["noNewPrivileges"] = request.param
    return bundle


def test_a_denied_call_gets_its_errno(oci: Runtime, either: Bundle) -> None:
    """ "errnoRet (uint, OPTIONAL) - the errno return code to use. ... When unset, EPERM"."""
    seccomp(either, rule("times", errnoRet=38), rule("sysinfo"))
    answers = oci.ask(either, call("times", 0), call("sysinfo", 0), call("getpriority", 0, 0))
    assert [answers.one(call(*one)) for one in (("times", 0), ("sysinfo", 0))] == ["ENOSYS", "EPERM"]
    assert answers.one(call("getpriority", 0, 0)).startswith("= ")


def test_the_kernel_shows_the_filter(oci: Runtime, either: Bundle) -> None:
    """proc(5): Seccomp 2 is SECCOMP_MODE_FILTER; exactly one filter is loaded."""
    status = oci.ask(seccomp(either, rule("times")), "cat /proc/self/status").table("cat /proc/self/status")
    assert status["Seccomp"] == "2"
    assert status.get("Seccomp_filters", "1") == "1"


def test_arguments_are_compared(oci: Runtime, bundle: Bundle) -> None:
    """ "args (array of objects, OPTIONAL) - the specific syscall in seccomp": all of one rule must hold."""
    masked = {"index": 1, "value": 0xF0, "valueTwo": 0x20, "op": "SCMP_CMP_MASKED_EQ"}
    seccomp(bundle, rule("getpriority", args=[{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, masked], errnoRet=5))
    asked = [call("getpriority", 7, 0x2F), call("getpriority", 7, 0x30), call("getpriority", 0, 0)]
    answers = oci.ask(bundle, *asked)
    assert [answers.one(question) for question in asked][:2] == ["EIO", "EINVAL"]
    assert answers.one(asked[2]).startswith("= ")


def test_a_violation_can_kill(oci: Runtime, either: Bundle) -> None:
    """SCMP_ACT_KILL_PROCESS: the process ends by SIGSYS."""
    seccomp(either, rule("times", "SCMP_ACT_KILL_PROCESS"))
    assert oci.run(either.asks(call("times", 0))).code == 128 + 31


def test_a_denied_start_of_the_program_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """What init itself may not do any more is reported, and does not hang."""
    seccomp(bundle, rule("execve", errnoRet=38))
    assert oci.run(bundle).code


def test_a_strict_filter_need_not_know_the_runtime(oci: Runtime, bundle: Bundle) -> None:
    """With noNewPrivileges the filter is loaded as late as can be: what the program itself does must be allowed."""
    needed = ["execve", "arch_prctl", "set_tid_address", "write", "writev", "exit_group", "ioctl", "brk", "times"]
    seccomp(bundle, {"names": needed, "action": ALLOW}, default=ERRNO)
    answers = oci.ask(bundle, call("times", 0), call("sysinfo", 0))
    assert answers.one(call("times", 0)).startswith("= ")
    assert answers.one(call("sysinfo", 0)) == "EPERM"


def test_it_binds_what_is_executed_later(oci: Runtime, either: Bundle) -> None:
    """The filter belongs to the container: exec is under it, too."""
    container = oci.up(seccomp(either, rule("times", errnoRet=38)))
    answers = container.ask(call("times", 0), "cat /proc/self/status")
    assert answers.one(call("times", 0)) == "ENOSYS"
    assert answers.table("cat /proc/self/status")["Seccomp"] == "2"


def test_a_container_without_it_has_none(oci: Runtime, bundle: Bundle) -> None:
    """seccomp is optional: nothing is filtered that nobody asked for."""
    assert oci.ask(bundle, "cat /proc/self/status").table("cat /proc/self/status")["Seccomp"] == "0"


def test_it_needs_no_privilege_inside(oci: Runtime, either: Bundle) -> None:
    """The filter is loaded although the program's user holds no capability, in a user namespace as well."""
    seccomp(either, rule("times")).maps(100000)
    either.process["user"] = {"uid": 1000, "gid": 1000}
    either.process["capabilities"] = {}
    assert oci.ask(either, call("times", 0)).one(call("times", 0)) == "EPERM"


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_WHATEVER"},
        {"defaultAction": ALLOW, "architectures": ["SCMP_ARCH_PDP11"]},
        {"defaultAction": ALLOW, "syscalls": [{"names": ["times"], "action": "NO"}]},
        {"defaultAction": NOTIFY, "listenerPath": "/run/nobody"},
        {"defaultAction": ALLOW, "syscalls": [{"names": ["times"], "action": NOTIFY}]},
        {"defaultAction": ALLOW, "flags": ["SECCOMP_FILTER_FLAG_NONSENSE"]},
    ],
    ids=["action", "architecture", "rule", "default notify", "no listener", "flag"],
)
def test_malformed_profiles_are_errors(oci: Runtime, bundle: Bundle, profile: dict[str, Any]) -> None:
    """What a profile means must be known before anything is launched under it."""
    bundle.linux["seccomp"] = profile
    oci.refuses(bundle)


# ---- SCMP_ACT_NOTIFY -----------------------------------------------------------------------------------------------

RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1


class Agent:
    """Listens at listenerPath and answers every call for which it is asked with -errno, or lets it go on."""

    def __init__(self, path: Path, error: int) -> None:
        self.path, self.error = path, error
        self.states: list[dict[str, Any]] = []
        self.calls: list[int] = []
        self._listeners: list[int] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
                while more := connection.recv(65536):
                    data += more
            self.states.append(json.loads(data))
            self._listeners += fds
            threading.Thread(target=self._answer, args=(fds[0],), daemon=True).start()

    def _answer(self, listener: int) -> None:
        while True:
            request = bytearray(80)
            try:
                fcntl.ioctl(listener, RECEIVE, request)
                identity, _, _, number = struct.unpack_from("=QIIi", request)
                self.calls.append(number)
                flags = 0 if self.error else CONTINUE
                fcntl.ioctl(listener, SEND, struct.pack("=QqiI", identity, 0, -self.error, flags))
            except OSError:
                return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for fd in self._listeners:
            os.close(fd)


@pytest.fixture
def agent(directory: Path) -> Iterator[Agent]:
    started = Agent(directory / "agent.sock", 38)
    yield started
    started.close()


def notifying(bundle: Bundle, agent: Agent, *names: str) -> Bundle:
    rules = [rule(name, NOTIFY) for name in names]
    return seccomp(bundle, *rules, listenerPath=str(agent.path), listenerMetadata="what the agent knows")


def test_an_agent_answers(oci: Runtime, either: Bundle, agent: Agent) -> None:
    """ "SCMP_ACT_NOTIFY ... listenerPath specifies the path of UNIX domain socket over which the runtime will send the
    container process state data structure when the SCMP_ACT_NOTIFY action is used." """
    container = oci.up(notifying(either, agent, "times").asks(call("times", 0), "sleep 60"))
    container.expect("ENOSYS")
    assert agent.calls == [NUMBERS["times"]]
    check_state(agent.states, container, "creating")


def check_state(states: list[dict[str, Any]], container: Container, status: str) -> None:
    """The container process state of config-linux.md."""
    (sent,) = states
    assert sent["fds"] == ["seccompFd"]
    assert sent["metadata"] == "what the agent knows"
    assert (sent["state"]["id"], sent["state"]["status"]) == (container.id, status)
    assert sent["state"]["bundle"] == str(container.bundle.path)
    if status == "creating":
        assert sent["pid"] == sent["state"]["pid"] == container.pid


def test_an_agent_answers_for_exec(oci: Runtime, bundle: Bundle, agent: Agent) -> None:
    """exec sends the listener of its own process."""
    container = oci.up(notifying(bundle, agent, "times"))
    agent.states.clear()
    assert container.ask(call("times", 0)).one(call("times", 0)) == "ENOSYS"
    check_state(agent.states, container, "running")


def test_an_agent_may_hold_back_the_runtimes_own_calls(oci: Runtime, either: Bundle, agent: Agent) -> None:
    """A filter on what the runtime itself needs to hand the listener over must not block it for ever."""
    agent.error = 0
    bundle = notifying(either, agent, "sendmsg", "recvfrom", "close", "execve").asks(call("times", 0))
    assert oci.run(bundle, timeout=8).ok().answers.one(call("times", 0)).startswith("= ")


def test_no_agent_is_an_error(oci: Runtime, either: Bundle, directory: Path) -> None:
    """ "If ... the runtime cannot connect to the socket, it MUST generate an error"; nothing is left."""
    oci.refuses(seccomp(either, rule("times", NOTIFY), listenerPath=str(directory / "nobody.sock")), "nobody.sock")
