"""The line between supervisor and guest: the real supervisor and the real client of `exec`, and we are the guest.

Whatever a guest says that breaks the rules ends what it is about, in one line; sanitizers see what no line tells.
"""

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import steps
from runtime.launch import GUEST, connect_in, listen_in
from runtime.steps import GUEST_SLOT, LaunchPlan
from tests.helpers.init import SECONDS, compile_init, spawn

HELLO = b"\nwarren guest \x01\n"
FRAMES, WINDOW, MAX_FRAME, MOST_UNREAD = 8, 2048, 4096, 2048 + 640
OPENING = struct.pack("=IHHI", 100, 24, 80, 0)
PLAN = b"the guest's plan, of which the supervisor understands nothing" * 40
_GIVE_US_THE_LINE = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
socket.send_fds(s, [b"x"], [0])
time.sleep(60)
"""


@pytest.fixture(scope="module")
def guest_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("init") / "init-guest"
    checked = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DWARREN_GUEST")
    found = compile_init(target, "gcc", *checked) or compile_init(target, "gcc", "-DWARREN_GUEST")
    assert found
    return found


def frame(kind: str, data: bytes = b"", channel: int = 0) -> bytes:
    return struct.pack("=BBH", ord(kind), channel, len(data)) + data


def number(value: int) -> bytes:
    return struct.pack("=I", value)


class Machine:
    """A supervisor whose hypervisor has given us the line."""

    def __init__(self, binary: Path, directory: Path, terminal: int = -1) -> None:
        plan = LaunchPlan()
        door = f"{directory}/line"
        waiting = socket.socket(socket.AF_UNIX)
        waiting.bind(door)
        waiting.listen()
        waiting.settimeout(SECONDS)
        plan.add("supervise", PLAN, 20000, int(terminal >= 0), GUEST_SLOT)
        plan.add("exec", ["/usr/bin/python3", "-c", _GIVE_US_THE_LINE, door], [], 0)
        self.directory = str(directory)
        self.sync, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = listen_in(self.directory, GUEST)
        fds = {0: theirs.fileno(), GUEST_SLOT: listener.fileno()}
        self.process = spawn(binary, plan.encode(fds), tuple(fds.values()), terminal)
        self.terminal = terminal >= 0
        theirs.close()
        listener.close()
        connection, _ = waiting.accept()
        _, (fd,), *_ = socket.recv_fds(connection, 1, 1)
        self.line = socket.socket(fileno=fd)
        self.line.settimeout(SECONDS)
        self.buffer = b""

    def say(self, *frames: bytes) -> None:
        try:
            self.line.sendall(b"".join(frames))
        except BrokenPipeError:
            pass  # It has heard enough.

    def hear(self) -> tuple[str, int, bytes]:
        """Kind, channel and data of the next frame; what has been read is told."""
        while True:
            if len(self.buffer) >= 4:
                kind, channel, size = struct.unpack_from("=BBH", self.buffer)
                if len(self.buffer) >= 4 + size:
                    data, self.buffer = self.buffer[4 : 4 + size], self.buffer[4 + size :]
                    return chr(kind), channel, data
            piece = self.line.recv(65536)
            assert piece, "the supervisor has ended"
            self.say(frame("r", number(len(piece))))
            self.buffer += piece

    def boot(self) -> "Machine":
        """Up to the moment at which its program runs."""
        self.say(b"noise of a kernel", HELLO)
        kind, _, opening = self.hear()
        assert (kind, len(opening)) == ("n", 12)
        plan = b""
        while len(plan) < struct.unpack_from("=I", opening)[0]:
            kind, channel, data = self.hear()
            assert (kind, channel) == ("P", 0)
            plan += data
        assert plan == PLAN
        self.say(frame("s"))
        assert self.hear()[0] == ("w" if self.terminal else "e")  # Its size, or that there is no input.
        return self

    def output(self, size: int) -> None:
        """As many pieces as may be under way where nobody reads them."""
        sent = acknowledged = 0
        self.line.settimeout(0.5)
        while sent - acknowledged < FRAMES:
            self.say(frame("o", b"x" * size))
            sent += 1
            try:
                acknowledged += self.hear()[0] == "a"
            except TimeoutError:
                pass
        self.line.settimeout(SECONDS)

    def ends(self) -> tuple[int, str, str]:
        """Exit code, output, and what it has told Python or the reader of its errors."""
        out, err = self.process.communicate(timeout=SECONDS)
        told = self.sync.recv(steps.MAX_MESSAGE)
        return self.process.returncode, out.decode(), err.decode() + told[16:].decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.line.close()
        self.sync.close()


@pytest.fixture
def machine(guest_binary: Path, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(guest_binary, tmp_path)
    yield made
    made.close()


class Visitor:
    """Somebody at the supervisor's socket, who says what he likes."""

    def __init__(self, machine: Machine) -> None:
        self.socket = connect_in(machine.directory, GUEST)
        self.socket.settimeout(SECONDS)

    def say(self, kind: str, data: bytes = b"") -> None:
        self.socket.send(frame(kind, data))

    def hears(self) -> tuple[str, bytes]:
        packet = self.socket.recv(65536)
        return chr(packet[0]) if packet else "", packet[4:]


def test_streams_signals_and_exit_code(machine: Machine) -> None:
    machine.boot()
    machine.say(frame("o", b"out"), frame("E", b"err"))
    assert [machine.hear() for _ in range(2)] == [("a", 0, b"\1"), ("a", 0, b"\2")]
    machine.process.terminate()
    assert machine.hear() == ("k", 0, number(15))
    machine.say(frame("x", number(7)))
    assert machine.ends() == (7, "out", "err")


def test_more_output_than_the_reader_takes_waits_in_the_guest(machine: Machine) -> None:
    """A pipe takes 64 KiB; then the guest hears of no frame that has been written, and must not send more."""
    machine.boot()
    sent = acknowledged = 0
    while sent - acknowledged < FRAMES:
        machine.say(frame("o", b"x" * MAX_FRAME))
        sent += 1
        machine.line.settimeout(0.5)
        try:
            acknowledged += machine.hear()[0] == "a"
        except TimeoutError:
            pass
    assert acknowledged >= 15
    machine.say(frame("o", b"one too many"))
    code, _, told = machine.ends()
    assert code == 125 and "broke the rules" in told


RUBBISH = {
    "credit": frame("c", number(1)),
    "read": frame("r", number(100000)),
    "channel": struct.pack("=BBH", ord("o"), 64, 0),
    "size": struct.pack("=BBH", ord("o"), 0, MAX_FRAME + 1),
    "kind": frame("?"),
    "rubbish": b"\xff" * 5000,
}
EARLY = {"output": frame("o", b"too early"), "exit": frame("x", number(0))}


@pytest.mark.parametrize("words", [*RUBBISH.values(), *EARLY.values()], ids=[*RUBBISH, *EARLY])
def test_a_guest_that_breaks_the_rules_before_its_program_runs(machine: Machine, words: bytes) -> None:
    machine.say(HELLO)
    assert machine.hear()[0] == "n"
    breaks_the_rules(machine, words)


@pytest.mark.parametrize("words", RUBBISH.values(), ids=RUBBISH)
def test_a_guest_that_breaks_the_rules_later(machine: Machine, words: bytes) -> None:
    breaks_the_rules(machine.boot(), words)


def breaks_the_rules(machine: Machine, words: bytes) -> None:
    machine.say(words)
    code, _, told = machine.ends()
    assert code == 125 and ("broke the rules" in told or "no message" in told or "more than it was sent" in told)


def test_a_failure_is_told_with_the_guests_step(machine: Machine) -> None:
    machine.say(HELLO)
    machine.hear()
    machine.say(frame("f", number(3) + number(2) + b"chdir"))
    code, _, told = machine.ends()
    assert code == 125 and told == "guest 3 chdir"


def test_a_failure_tells_a_terminal_nothing(machine: Machine) -> None:
    machine.say(HELLO)
    machine.hear()
    machine.say(frame("f", number(3) + number(2) + b"\x1b]0;title\x07 \xc3\xa9\n"))
    assert machine.ends()[2] == "guest 3 ?]0;title? \u00e9?"


def test_a_visitor_gets_a_channel_and_his_words_go_through(machine: Machine) -> None:
    machine.boot()
    one, two = Visitor(machine), Visitor(machine)
    one.say("n", OPENING)
    assert machine.hear() == ("n", 1, OPENING)
    two.say("n", OPENING)
    assert machine.hear() == ("n", 2, OPENING)
    two.say("k", number(9))
    assert machine.hear() == ("k", 2, number(9))
    machine.say(frame("o", b"for two", channel=2), frame("s", channel=1))
    assert (two.hears(), one.hears()) == (("o", b"for two"), ("s", b""))
    machine.say(frame("x", number(0), channel=1))
    assert [one.hears(), one.hears()] == [("x", number(0)), ("", b"")]
    three = Visitor(machine)
    three.say("n", OPENING)
    assert machine.hear() == ("n", 1, OPENING), "a channel that is free again"


def test_who_hangs_up_is_closed_and_his_channel_is_not_given_away(machine: Machine) -> None:
    machine.boot()
    one = Visitor(machine)
    one.say("n", OPENING)
    assert machine.hear() == ("n", 1, OPENING)
    one.socket.close()
    assert machine.hear() == ("q", 1, b"")
    two = Visitor(machine)
    two.say("n", OPENING)
    assert machine.hear() == ("n", 2, OPENING), "the guest has not said that channel 1 is free"


def test_who_leaves_before_he_has_said_what_he_wants_keeps_no_channel(machine: Machine) -> None:
    """The guest has never heard of him, and would not say that the channel is free."""
    machine.boot()
    for word in [None, frame("e"), frame("n", OPENING + b"x"), frame("P", b"plan")] * 20:
        visitor = Visitor(machine)
        if word:
            visitor.socket.send(word)
            assert visitor.hears() == ("", b"")
        visitor.socket.close()
    last = Visitor(machine)
    last.say("n", OPENING)
    assert machine.hear()[0::2] == ("n", OPENING)


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        frame("x", number(0)),
        frame("s"),
        frame("q"),
        frame("n", OPENING),
        frame("n")[:3],
        frame("i", b"12") + b"3",
        b"i" + bytes(6000),
    ],
)
def test_a_visitor_who_breaks_the_rules_has_to_go(machine: Machine, packet: bytes) -> None:
    machine.boot()
    one = Visitor(machine)
    one.say("n", OPENING)
    assert machine.hear()[0] == "n"
    one.socket.send(packet)
    assert machine.hear() == ("q", 1, b"")
    assert one.hears() == ("", b"")
    machine.say(frame("x", number(4)))
    assert machine.ends()[0] == 4


def test_the_line_is_never_fuller_than_it_may_be(machine: Machine) -> None:
    """Who reads nothing is sent no more than the window, whoever has how much to say."""
    machine.boot()
    visitors = [Visitor(machine) for _ in range(6)]
    for visitor in visitors:
        visitor.say("n", OPENING)
        assert machine.hear()[0] == "n"
    for visitor in visitors:
        for _ in range(4):
            visitor.say("i", b"y" * 1000)
    time.sleep(0.5)
    unread = machine.line.recv(1 << 20)
    assert 1000 < len(unread) <= WINDOW
    machine.buffer = unread
    machine.say(frame("r", number(len(unread))))
    found = [machine.hear() for _ in range(24)]
    assert sorted(channel for _, channel, _ in found) == sorted([1, 2, 3, 4, 5, 6] * 4)


def test_there_are_so_many_channels_and_the_rest_waits(machine: Machine) -> None:
    machine.boot()
    visitors = [Visitor(machine) for _ in range(12)]
    for _ in range(70 - len(visitors)):
        visitors.append(Visitor(machine))
        visitors[-1].say("n", OPENING)
        machine.hear()
        if len(visitors) == 63:
            break
    late = Visitor(machine)
    late.say("n", OPENING)
    machine.line.settimeout(0.5)
    with pytest.raises(TimeoutError):
        machine.hear()
    machine.line.settimeout(SECONDS)
    machine.say(frame("x", number(0), channel=20))
    assert machine.hear() == ("n", 20, OPENING)


def test_a_terminal_that_nobody_reads_holds_up_nobody_else(guest_binary: Path, tmp_path: Path) -> None:
    """Its buffer is no multiple of what it is given, so that there is room, but not enough."""
    master, slave = os.openpty()
    machine = Machine(guest_binary, tmp_path, slave)
    try:
        os.close(slave)
        machine.boot().output(4000)
        one = Visitor(machine)
        one.say("n", OPENING)
        assert machine.hear() == ("n", 1, OPENING)
        machine.process.terminate()
        assert machine.hear() == ("k", 0, number(15))
    finally:
        machine.close()
        os.close(master)


def test_a_guest_that_reads_nothing_holds_up_nobody(machine: Machine) -> None:
    """However many small things it is to be told."""
    machine.boot()
    told_of = 0
    while machine.process.poll() is None and told_of <= MOST_UNREAD:
        machine.say(frame("o", b"."))
        deadline = time.monotonic() + SECONDS
        while machine.process.poll() is None and len(machine.line.recv(1 << 16, socket.MSG_PEEK)) == told_of:
            assert time.monotonic() < deadline, "the supervisor waits for us"
        told_of = len(machine.line.recv(1 << 16, socket.MSG_PEEK))
    code, _, told = machine.ends()
    assert code == 125 and "the line to the guest failed" in told


def test_signals_beyond_what_the_guest_reads_are_left_out(machine: Machine) -> None:
    machine.boot()
    for _ in range(MOST_UNREAD // 4):
        machine.process.terminate()
        time.sleep(0.0005)
    assert len(machine.line.recv(1 << 20, socket.MSG_PEEK)) <= MOST_UNREAD
    machine.hear()
    machine.say(frame("x", number(3)))
    assert machine.ends()[0] == 3


# ---- the client of `exec`


class Client:
    """It, and we are the supervisor."""

    def __init__(self, binary: Path, stdin: int = subprocess.DEVNULL, *, milliseconds: int = 20000) -> None:
        plan = LaunchPlan()
        plan.add("reach", GUEST_SLOT, PLAN, milliseconds, 0)
        self.sync, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.settimeout(SECONDS)
        fds = {0: theirs.fileno(), GUEST_SLOT: far.fileno()}
        self.process = spawn(binary, plan.encode(fds), tuple(fds.values()))
        theirs.close()
        far.close()

    def hear(self) -> tuple[str, bytes]:
        packet = self.line.recv(65536)
        return chr(packet[0]), packet[4:]

    def begin(self) -> "Client":
        kind, opening = self.hear()
        assert (kind, struct.unpack_from("=I", opening)[0]) == ("n", len(PLAN))
        plan = b""
        while len(plan) < len(PLAN):
            kind, data = self.hear()
            assert kind == "P" and len(data) <= 1000
            plan += data
        assert plan == PLAN
        self.line.send(frame("s"))
        assert self.hear()[0] == "e"
        return self

    def ends(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=SECONDS)
        told = self.sync.recv(steps.MAX_MESSAGE)
        return self.process.returncode, out.decode(), err.decode() + told[16:].decode()


@pytest.fixture
def client(guest_binary: Path) -> Iterator[Client]:
    made = Client(guest_binary)
    yield made
    made.process.kill()
    made.process.communicate()
    made.line.close()
    made.sync.close()


def test_a_client_is_what_its_program_is(client: Client) -> None:
    client.begin()
    client.line.send(frame("o", b"said"))
    assert client.hear() == ("a", b"\1")
    client.process.terminate()
    assert client.hear() == ("k", number(15))
    client.line.send(frame("x", number(143)))
    assert client.ends() == (143, "said", "")


def test_a_client_whose_machine_ends_was_killed(client: Client) -> None:
    client.begin()
    client.line.close()
    assert client.ends()[0] == 137


def test_a_client_does_not_wait_for_ever(guest_binary: Path) -> None:
    client = Client(guest_binary, milliseconds=300)
    code, _, told = client.ends()
    assert code == 125 and "does not answer" in told
    client.line.close()
    client.sync.close()


@pytest.mark.parametrize(
    "packet",
    [b"o", frame("c", number(1)), frame("s"), frame("o", b"12") + b"3", frame("P"), b"o" + bytes(9000)],
)
def test_a_client_ends_at_what_breaks_the_rules(client: Client, packet: bytes) -> None:
    client.begin()
    client.line.send(packet)
    code, _, told = client.ends()
    assert code == 125 and ("broke the rules" in told or "no message" in told)


def test_a_client_has_no_room_for_more_than_is_allowed(client: Client) -> None:
    client.begin()
    sent = acknowledged = 0
    client.line.settimeout(0.5)
    while sent - acknowledged < FRAMES:
        client.line.send(frame("o", b"x" * MAX_FRAME))
        sent += 1
        try:
            acknowledged += client.hear() == ("a", b"\1")
        except TimeoutError:
            pass
    assert acknowledged >= 15
    client.line.send(frame("o", b"one too many"))
    code, _, told = client.ends()
    assert code == 125 and "broke the rules" in told
