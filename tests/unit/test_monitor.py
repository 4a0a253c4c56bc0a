"""The monitor without privilege: a real one, over a process that is cloned without any namespace."""

import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import steps
from runtime.errors import StateError, UsageError
from runtime.launch import Monitor
from runtime.monitor import MAX_DATA, Client, Events, Exit, Log, _Keys, make_monitor, parse_keys, read_exit
from runtime.steps import HOLD_SLOT, SYNC_SLOT, LaunchPlan
from tests.helpers import processes
from tests.helpers.init import SECONDS, run_sh, spawn
from tests.helpers.terminal import Person

PATH = "PATH=/usr/bin:/bin"
LONG = bool(os.environ.get("WARREN_LONG"))


class Monitored:
    """A monitor, its container's process, and our ends of all that they talk over."""

    def __init__(self, binary: Path, directory: Path, plan: LaunchPlan, monitor: Monitor, owner: Client | None) -> None:
        self.directory, self.monitor, self.owner = directory, monitor, owner
        self.state = directory / "state"
        self.pid = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(SECONDS)
        monitor.listen(str(self.state))
        passed = {SYNC_SLOT: theirs.fileno(), **monitor.descriptors()}
        self.process = spawn(binary, plan.encode(passed), tuple(passed.values()))
        monitor.close()
        monitor.pid = self.process.pid
        theirs.close()
        os.close(passed[HOLD_SLOT])
        self.sync = ours
        self.clients: list[Client] = [owner] if owner else []

    def executed(self) -> int:
        """Wait until the program runs; its pid."""
        data = self.sync.recv(4096)
        kind, step, value = steps.MESSAGE.unpack_from(data)
        assert kind == steps.PID, (kind, step, value, data)
        assert self.sync.recv(4096) == b""
        self.pid = int(value)
        return self.pid

    def begin(self) -> int:
        pid = self.executed()
        self.monitor.let_go()
        return pid

    def attach(self) -> Client:
        self.clients.append(Client.connect(str(self.state)))
        return self.clients[-1]

    def finish(self) -> Exit:
        """Wait for the monitor's own end; what it has written down."""
        assert self.process.wait(SECONDS) == 0
        found = read_exit(str(self.directory))
        assert found
        return found

    def log(self, suffix: str = "") -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.directory / f"log{suffix}").read_bytes().splitlines()]

    def text(self, stream: str = "stdout") -> str:
        return "".join(entry["log"] for entry in self.log() if entry["stream"] == stream)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.sync.close()
        self.monitor.pid = 0  # Popen's to wait for.
        self.monitor.call_off()
        self.process.kill()
        self.process.communicate()
        # There is no pid namespace that ends what the process has started: it is the session that it began.
        for process in processes.everything() if self.pid else ():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(process.pid) == self.pid:
                    os.kill(process.pid, signal.SIGKILL)


Start = Callable[..., Monitored]


@pytest.fixture
def start(init_binary: Path, directory: Path) -> Iterator[Start]:
    started: list[Monitored] = []

    def begin(
        script: str,
        *,
        format: str = "json-file",
        max_size: int = 0,
        max_file: int = 1,
        front: tuple[steps.Step, ...] = (),
        back: tuple[steps.Step, ...] = (),
        inside: tuple[steps.Step, ...] = (),
        binary: Path = init_binary,
        let_go: bool = True,
        **options: Any,
    ) -> Monitored:
        (directory / "state").mkdir(mode=0o700, exist_ok=True)
        log = Log(str(directory), "log", format=format, max_size=max_size, max_file=max_file) if format else None
        monitor, owner = make_monitor(log=log, exit_directory=str(directory), **options)
        plan = LaunchPlan()
        plan.lead((*front, *monitor.steps, *back))
        plan.add("clone", 0, -1)
        plan.add("pdeathsig", signal.SIGKILL)
        plan.lead(inside)
        plan.add("setsid")
        if options.get("terminal"):
            plan.add("console", steps.CONSOLE_SLOT, 0, 0, 0)
        name, *arguments = run_sh(script)
        plan.add(str(name), *arguments)  # type: ignore[arg-type]
        started.append(Monitored(binary, directory, plan, monitor, owner))
        if let_go:
            started[-1].begin()
        return started[-1]

    yield begin
    for monitored in started:
        monitored.close()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition becomes, once it is true."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
    return value


def next_message(client: Client) -> tuple[str, bytes]:
    poll = select.poll()
    poll.register(client, select.POLLIN)
    assert poll.poll(SECONDS * 1000), "no message"
    message = client.receive()
    assert message
    return message


def collect(client: Client) -> dict[str, bytes]:
    """All that comes until the end, by kind."""
    found = {"o": b"", "E": b"", "x": b""}
    while (message := next_message(client))[0]:
        found[message[0]] += message[1]
    return found


def code(found: dict[str, bytes]) -> int:
    return int(struct.unpack("=I", found["x"])[0])


def gone(pid: int) -> bool:
    return (process := processes.read(pid)) is None or not process.alive


# ---- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"), [("true", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_the_exit_code_is_written_down(start: Start, script: str, expected: int) -> None:
    before = time.time_ns()
    end = start(script).finish()
    assert end.code == expected
    assert before <= end.started <= end.finished <= time.time_ns()
    assert end.lost == 0


def test_no_end_is_missed_however_soon_it_comes(start: Start) -> None:
    """The process may end while the monitor still settles down: between its steps it must be ready for that."""
    for _ in range(500 if LONG else 60):
        monitored = start("exit 3", owner=True)
        assert monitored.owner
        assert monitored.owner.wait(SECONDS) == 3
        assert read_exit(str(monitored.directory))
        monitored.close()
        (monitored.state / "attach").unlink()


def test_outside_tells_its_own_pid(start: Start) -> None:
    """systemd is to move `init` outside into the container's scope, not the monitor, which Python has started."""
    monitored = start("true", back=(steps.Step("sync", "cgroup"),), let_go=False)
    kind, _, pid = steps.MESSAGE.unpack_from(monitored.sync.recv(4096))
    assert kind == steps.SYNC
    outside = processes.read(pid)
    assert outside
    assert outside.parent == monitored.process.pid
    monitored.sync.send(steps.MESSAGE.pack(steps.OK, 0, 0))
    monitored.begin()
    assert monitored.finish().code == 0


def test_a_hook_inside_is_told_no_pid_of_outside(start: Start) -> None:
    """Of a `sync` inside Python must not take the value for a process of the host."""
    monitored = start("true", inside=(steps.Step("sync", "limits"),), let_go=False)
    kind, _, pid = steps.MESSAGE.unpack_from(monitored.sync.recv(4096))
    assert (kind, pid > 0) == (steps.PID, True)
    assert steps.MESSAGE.unpack_from(monitored.sync.recv(4096))[::2] == (steps.SYNC, 0)
    monitored.sync.send(steps.MESSAGE.pack(steps.OK, 0, 0))
    assert monitored.sync.recv(4096) == b""
    monitored.monitor.let_go()
    assert monitored.finish().code == 0


def test_a_created_container_waits_with_its_monitor(start: Start, directory: Path) -> None:
    """`create` lets go of everything but what the monitor needs to see when the program is executed."""
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)
    inherit = steps.Step("open_path", 20, str(fifo), os.O_RDWR)
    try:
        monitored = start(
            "exit 6", back=(inherit,), inside=(steps.Step("wait_start", 20, -1),), let_go=False,
        )  # fmt: skip
        assert steps.MESSAGE.unpack_from(monitored.sync.recv(4096))[0] == steps.PID
        assert steps.MESSAGE.unpack_from(monitored.sync.recv(4096))[0] == steps.READY
        monitored.monitor.let_go()
        time.sleep(0.2)
        before = time.time_ns()
        os.write(fd, b"0")
        end = monitored.finish()
    finally:
        os.close(fd)
    assert end.code == 6
    assert end.started >= before


def test_the_exit_file_is_all_that_is_left(start: Start, directory: Path) -> None:
    start("true", format="").finish()
    assert sorted(os.listdir(directory)) == ["exit", "state"]
    assert re.fullmatch(r"0 \d+ \d+ 0\n", (directory / "exit").read_text())


def test_started_is_when_the_program_is_executed(start: Start, directory: Path) -> None:
    """As soon as the monitor has noticed: not when it is let go, nor at the end."""
    monitored = start(f"date +%s%N >{directory}/began; sleep 0.6", let_go=False)
    monitored.executed()
    time.sleep(0.4)
    monitored.monitor.let_go()
    end = monitored.finish()
    assert end.finished - end.started > 300_000_000
    assert end.started < int((directory / "began").read_text()) + 300_000_000


def test_a_monitor_that_is_not_let_go_holds_the_pid(start: Start, directory: Path) -> None:
    """Whoever launches must be able to record the process before its number may belong to another."""
    monitored = start("exit 3", let_go=False)
    pid = monitored.executed()
    until(lambda: processes.read(pid) and processes.read(pid).state == "Z")  # type: ignore[union-attr]
    time.sleep(0.1)
    assert processes.read(pid)
    assert not (directory / "exit").exists()
    monitored.monitor.let_go()
    assert monitored.finish().code == 3


def test_a_launcher_that_dies_takes_the_container_with_it(start: Start, directory: Path) -> None:
    events = Events(["/bin/sh", "-c", f"echo >{directory}/event"])
    monitored = start("trap '' TERM HUP; sleep 1000", let_go=False, events=events)
    pid = monitored.executed()
    os.close(monitored.monitor._hold)
    monitored.monitor._hold = -1
    assert monitored.process.wait(SECONDS) == 0
    assert processes.read(pid) is None
    assert sorted(os.listdir(directory)) == ["log", "state"]


@pytest.mark.parametrize("leash", [True, False])
def test_on_a_leash_a_container_ends_with_its_owner(start: Start, directory: Path, leash: bool) -> None:
    events = Events(["/bin/sh", "-c", f"echo $0 $1 >>{directory}/event"])
    monitored = start("trap '' TERM HUP; read line; exit 4", owner=True, stdin=True, leash=leash, events=events)
    assert monitored.owner
    other = monitored.attach()
    monitored.owner.close()
    if not leash:
        time.sleep(0.3)
        other.send_input(b"\n")
    assert monitored.finish().code == (137 if leash else 4)
    assert (directory / "event").read_text() == f"exited {137 if leash else 4}\n"


def test_a_leash_is_not_pulled_by_others(start: Start) -> None:
    monitored = start("read line; exit 4", owner=True, stdin=True, leash=True)
    assert monitored.owner
    monitored.attach().close()
    time.sleep(0.2)
    monitored.owner.send_input(b"\n")
    assert monitored.owner.wait(SECONDS) == 4
    monitored.owner.done()
    assert monitored.finish().code == 4


def test_a_failed_launch_leaves_no_monitor(start: Start, directory: Path) -> None:
    monitored = start("true", back=(steps.Step("open_path", 20, "/nonexistent", 0),), let_go=False)
    kind, step, _ = steps.MESSAGE.unpack_from(monitored.sync.recv(4096))
    assert (kind, step) == (steps.FAIL, 3)
    assert monitored.sync.recv(4096) == b""
    assert monitored.process.wait(SECONDS) == 0, "before it is called off"
    assert sorted(os.listdir(directory)) == ["log", "state"]


def test_a_killed_monitor_takes_its_container_with_it(start: Start, directory: Path) -> None:
    monitored = start("trap '' TERM HUP; sleep 1000", let_go=False)
    pid = monitored.begin()
    monitored.process.kill()
    monitored.process.wait(SECONDS)
    until(lambda: gone(pid))
    assert read_exit(str(directory)) is None


def test_signals_do_not_end_a_monitor(start: Start) -> None:
    monitored = start("read line; exit 4", stdin=True, owner=True)
    faults = {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGSYS,
    }
    for number in set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP} - faults:
        os.kill(monitored.process.pid, number)
    assert monitored.owner
    monitored.owner.send_input(b"\n")
    assert monitored.owner.wait(SECONDS) == 4


def test_orphans_are_waited_for(start: Start) -> None:
    monitored = start("for i in 1 2 3; do (sleep 0.0$i & ); done; read line", stdin=True, owner=True)
    own = monitored.process.pid
    time.sleep(0.2)
    until(lambda: not [p for p in processes.everything() if p.parent == own and p.name == "sleep"])
    assert monitored.owner
    monitored.owner.send_input(b"\n")
    assert monitored.owner.wait(SECONDS) == 0


def test_an_orphan_that_holds_the_output_does_not_hold_the_end(start: Start) -> None:
    monitored = start("echo before; sleep 300 & echo $! >&2")
    assert monitored.finish().code == 0
    assert monitored.text() == "before\n"
    os.kill(int(monitored.text("stderr")), signal.SIGKILL)


def test_output_that_is_there_at_the_end_is_not_lost(start: Start) -> None:
    """More than fits into one read, written right before the end."""
    for _ in range(10):
        monitored = start("dd if=/dev/zero bs=65536 count=1 2>/dev/null | tr '\\0' x; echo; echo end >&2")
        monitored.finish()
        assert monitored.text() == "x" * 65536 + "\n"
        assert monitored.text("stderr") == "end\n"
        (monitored.directory / "log").unlink()
        monitored.close()
        (monitored.state / "attach").unlink()


# ---- what it holds -------------------------------------------------------------------------------------------------


def test_nothing_of_the_monitors_reaches_the_container(start: Start) -> None:
    monitored = start("ls -l /proc/self/fd | sed 's/.* \\([0-9]* -> \\)/\\1/'", stdin=True, owner=True, stdin_once=True)
    assert monitored.owner
    monitored.owner.send_end()
    assert monitored.owner.wait(SECONDS) == 0
    monitored.owner.close()
    monitored.finish()
    names = [line.split(" -> ")[0] for line in monitored.text().splitlines() if " -> " in line]
    assert names == ["0", "1", "2", "3"], monitored.text()


def test_a_monitor_holds_what_it_needs_and_no_more(start: Start) -> None:
    monitored = start("sleep 1000", stdin=True, owner=True)
    own = Path(f"/proc/{monitored.process.pid}")
    until(lambda: (own / "comm").read_text() == "warren-monitor\n")
    until(lambda: len(os.listdir(own / "fd")) == 11)  # The pipes of the launch are closed.
    targets = sorted(re.sub(r"\[\d+\]", "", os.readlink(own / "fd" / name)) for name in os.listdir(own / "fd"))
    directory = str(monitored.directory)
    assert targets == sorted(
        ["/dev/null"] * 3 + ["pipe:"] * 3 + ["socket:"] * 2 + [directory] * 2 + [f"{directory}/log"]
    )
    assert os.readlink(own / "cwd") == "/"
    process = processes.read(monitored.process.pid)
    assert process
    until(lambda: os.getsid(process.pid) == process.pid)


def test_a_monitor_is_small(start: Start) -> None:
    """Also after it has moved a lot, once it has been idle for a moment."""
    monitored = start("head -c 3000000 /dev/urandom | base64; sleep 1000", max_size=100_000, max_file=2)
    until(lambda: (monitored.directory / "log.1").exists())
    rollup = Path(f"/proc/{monitored.process.pid}/smaps_rollup")

    def pss() -> int:
        return int(re.search(r"^Pss:\s+(\d+) kB", rollup.read_text(), re.MULTILINE)[1])  # type: ignore[index]

    until(lambda: pss() < 100)


# ---- the log -------------------------------------------------------------------------------------------------------


def go_decodes(data: bytes) -> str:
    """As Go does, and so docker: U+FFFD for each byte that is no UTF-8."""
    out, at = "", 0
    while at < len(data):
        for size in (1, 2, 3, 4):
            with contextlib.suppress(UnicodeDecodeError):
                out += data[at : at + size].decode()
                break
        else:
            out, size = out + "\ufffd", 1
        at += size
    return out


def printing(directory: Path, data: bytes, name: str = "data") -> str:
    (directory / name).write_bytes(data)
    return f"cat {directory}/{name}"


def test_each_line_is_an_entry(start: Start) -> None:
    monitored = start("echo one; echo; echo two >&2; sleep 0.1; echo three")
    monitored.finish()
    assert [(e["stream"], e["log"]) for e in monitored.log() if e["stream"] == "stdout"] == [
        ("stdout", "one\n"), ("stdout", "\n"), ("stdout", "three\n"),
    ]  # fmt: skip
    assert monitored.text("stderr") == "two\n"
    assert all(list(entry) == ["log", "stream", "time"] for entry in monitored.log())
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", entry["time"]) for entry in monitored.log())


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00", "2000-02-29T23:59:59", "2024-12-31T12:00:01", "2100-03-01"])
def test_the_calendar(moment: str, directory: Path, init_binary: Path) -> None:
    """The code of the log itself, for days that no test will see."""
    source = Path(__file__).parents[2] / "runtime/init/monitor_log.c"
    text = source.read_text()
    function = text[text.index("static void civil(") :]
    function = function[: function.index("\n}\n") + 3]
    seconds = int(subprocess.run(["date", "-u", "-d", moment, "+%s"], capture_output=True, text=True).stdout)
    (directory / "calendar.c").write_text(
        "#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n" + function
        + 'int main(int c, char **v) { int d[3]; civil(atoll(v[c - 1]) / 86400, d);'
        + ' printf("%d %d %d", d[0], d[1], d[2]); }'
    )  # fmt: skip
    subprocess.run(["gcc", "-o", directory / "calendar", directory / "calendar.c"], check=True)
    for days in (0, 1, 58, 59, 60, 365, 366, 1000, 100000):
        at = seconds + days * 86400
        ours = subprocess.run([directory / "calendar", str(at)], capture_output=True, text=True).stdout
        assert ours == time.strftime("%Y %-m %-d", time.gmtime(at))


def test_entries_have_the_time_of_their_writing(start: Start) -> None:
    before = time.time()
    monitored = start("echo now")
    monitored.finish()
    text = monitored.log()[0]["time"]
    seconds = time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(text[19:-1])
    assert before <= seconds <= time.time()


def test_a_line_in_pieces_is_one_entry(start: Start) -> None:
    monitored = start("printf a; sleep 0.05; printf b; sleep 0.05; echo c")
    monitored.finish()
    assert [entry["log"] for entry in monitored.log()] == ["abc\n"]


def test_a_line_that_never_ends_is_written_at_the_end(start: Start) -> None:
    monitored = start("printf unfinished; printf other >&2")
    monitored.finish()
    assert monitored.text() == "unfinished"
    assert monitored.text("stderr") == "other"


@pytest.mark.parametrize("size", [16383, 16384, 16385, 40000])
def test_a_long_line_becomes_entries_of_16_kib(start: Start, directory: Path, size: int) -> None:
    line = bytes(random.Random(size).choices(b"abcdefgh", k=size))
    monitored = start(printing(directory, line + b"\nnext\n"))
    monitored.finish()
    assert "".join(entry["log"] for entry in monitored.log()) == line.decode() + "\nnext\n"
    lengths = [len(entry["log"]) for entry in monitored.log()]
    assert max(lengths) <= 16385
    assert lengths[-1] == 5
    assert len(lengths) <= size // 16384 + 2


def test_k8s_marks_what_is_partial(start: Start, directory: Path) -> None:
    line = b"x" * 20000
    monitored = start(printing(directory, line + b"\nb\n\nunfinished"), format="k8s-file")
    monitored.finish()
    found = [text.split(b" ", 3) for text in (directory / "log").read_bytes().splitlines()]
    assert [(stream, tag, len(text)) for _, stream, tag, text in found] == [
        (b"stdout", b"P", 16384), (b"stdout", b"F", 20000 - 16384), (b"stdout", b"F", 1), (b"stdout", b"F", 0),
        (b"stdout", b"P", 10),
    ]  # fmt: skip


def test_no_character_is_cut_at_16_kib(start: Start, directory: Path) -> None:
    text = "x" * 16382 + "€" * 6000 + "\U0001f600" * 4500
    monitored = start(printing(directory, text.encode()))
    monitored.finish()
    assert "".join(entry["log"] for entry in monitored.log()) == text


SPECIAL = [
    b"\x00\x01\x1f\x7f\"\\</>&'\t\r\b\f", b"\xff\xfe", b"\xc3", b"\xc3\x28", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\xaf",
    b"\xf4\x90\x80\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8", "äöü€\ufffd".encode(), b"\xf8\x88\x80\x80\x80",
]  # fmt: skip


@pytest.mark.parametrize("data", SPECIAL)
def test_any_bytes_are_valid_json(start: Start, directory: Path, data: bytes) -> None:
    monitored = start(printing(directory, data + b"\n"))
    monitored.finish()
    assert monitored.text() == go_decodes(data) + "\n"


@pytest.mark.parametrize("format", ["json-file", "k8s-file"])
def test_random_bytes_come_out_as_they_went_in(start: Start, directory: Path, format: str) -> None:
    dice = random.Random(7)
    pieces = [dice.randbytes(dice.randrange(1, 3000)), *SPECIAL, "€".encode(), b"\n", b"y" * 17000]
    data = b"".join(dice.choices(pieces, k=200))
    monitored = start(printing(directory, data), format=format)
    monitored.finish()
    if format == "json-file":
        got, whole = monitored.text(), go_decodes(data)
        assert got == whole
        return
    out = b""
    for line in (directory / "log").read_bytes().split(b"\n")[:-1]:
        _, stream, tag, text = line.split(b" ", 3)
        assert stream == b"stdout"
        out += text + (b"\n" if tag == b"F" else b"")
    assert out == data


def test_without_a_log_output_goes_to_clients_only(start: Start, directory: Path) -> None:
    monitored = start("read line; echo out", format="", stdin=True, owner=True)
    assert monitored.owner
    monitored.owner.send_input(b"\n")
    assert collect_until_x(monitored.owner)["o"] == b"out\n"
    assert not (directory / "log").exists()


def test_an_older_log_is_continued(start: Start, directory: Path) -> None:
    (directory / "log").write_bytes(b'{"log":"before\\n","stream":"stdout","time":"x"}\n')
    monitored = start("echo after")
    monitored.finish()
    assert monitored.text() == "before\nafter\n"


@pytest.mark.parametrize(
    ("word", "arguments"),
    [
        ("monitor_log", ("xml", 8, "log", 0, 1)),
        ("monitor_log", ("json-file", -1, "log", 0, 1)),
        ("monitor_log", ("json-file", 8, "../log", 0, 1)),
        ("monitor_log", ("json-file", 8, "", 0, 1)),
        ("monitor_log", ("json-file", 8, "x" * 250, 0, 1)),
        ("monitor_log", ("json-file", 8, "log", -1, 1)),
        ("monitor_log", ("json-file", 8, "log", 0, -1)),
        ("monitor_log", ("json-file", 8, "directory", 0, 1)),
        ("monitor_events", ([], [], -1, "")),
        ("monitor_events", ([], [], 1, "x" * 500)),
    ],
)
def test_nonsense_is_a_failed_step(start: Start, directory: Path, word: str, arguments: tuple[Any, ...]) -> None:
    (directory / "directory").mkdir()
    monitored = start("true", front=(steps.Step(word, *arguments),), let_go=False)
    kind, step, _ = steps.MESSAGE.unpack_from(monitored.sync.recv(4096))
    assert (kind, step) == (steps.FAIL, 1)
    assert monitored.process.wait(SECONDS) == 125


def test_a_full_log_is_rotated(start: Start, directory: Path) -> None:
    lines = "".join(f"line {number}\n" for number in range(1000))
    monitored = start(printing(directory, lines.encode()), max_size=2000, max_file=3)
    monitored.finish()
    names = ["log.2", "log.1", "log"]
    assert sorted(os.listdir(directory)) == sorted([*names, "data", "exit", "state"])
    sizes = [(directory / name).stat().st_size for name in names]
    assert all(0 < size <= 2000 for size in sizes)
    kept = "".join(entry["log"] for name in names for entry in monitored.log(name[3:]))
    assert lines.endswith(kept)
    assert len(kept.splitlines()) > 30


def test_a_full_log_of_one_file_starts_anew(start: Start, directory: Path) -> None:
    lines = "".join(f"line {number}\n" for number in range(1000))
    monitored = start(printing(directory, lines.encode()), max_size=2000, max_file=1)
    monitored.finish()
    assert (directory / "log").stat().st_size <= 2000
    assert lines.endswith(monitored.text())
    assert not (directory / "log.1").exists()


def test_an_entry_that_is_larger_than_a_file_is_a_file(start: Start, directory: Path) -> None:
    data = b"a\n" + b"b" * 5000 + b"\nc\n"
    monitored = start(printing(directory, data), max_size=1000, max_file=10)
    monitored.finish()
    assert [[entry["log"][0] for entry in monitored.log(suffix)] for suffix in (".2", ".1", "")] == [
        ["a"],
        ["b"],
        ["c"],
    ]


def test_a_line_in_pieces_survives_a_rotation(start: Start) -> None:
    script = "printf start; i=0; while [ $i -lt 60 ]; do echo $i >&2; i=$((i+1)); done; sleep 0.1; echo end"
    monitored = start(script, max_size=500, max_file=3)
    monitored.finish()
    assert monitored.text() == "startend\n"


def full_after(size: int) -> steps.Step:
    """A limit of the size of files stands for a full disk: the privileged tests have that."""
    return steps.Step("rlimit", 1, size, size)


def test_what_cannot_be_written_is_counted_and_told(start: Start, directory: Path) -> None:
    lines = "".join(f"line {number:4}\n" for number in range(400))
    script = printing(directory, lines.encode()) + "; read go; echo later"
    monitored = start(script, front=(full_after(4096),), stdin=True, owner=True)
    assert monitored.owner
    got = b""
    while len(got) < len(lines):
        got += next_message(monitored.owner)[1]
    assert got == lines.encode(), "the log holds nobody else up"
    kept = len(monitored.text())
    os.truncate(directory / "log", 0)
    monitored.owner.send_input(b"\n")
    assert monitored.owner.wait(SECONDS) == 0
    monitored.owner.done()
    end = monitored.finish()
    assert end.lost == len(lines) - kept
    assert [entry["log"] for entry in monitored.log()] == [
        f"warren: {end.lost} bytes of output were lost: file too large\n", "later\n",
    ]  # fmt: skip
    assert monitored.log()[0]["stream"] == "stderr"


def test_a_log_that_never_has_room_again_costs_only_itself(start: Start, directory: Path) -> None:
    monitored = start(printing(directory, b"x" * 15 * 1024 + b"\n"), front=(full_after(4096),))
    end = monitored.finish()
    assert (end.code, end.lost) == (0, 15 * 1024 + 1)
    assert (directory / "log").read_bytes() == b"" or b"were lost" in (directory / "log").read_bytes()


# ---- attach --------------------------------------------------------------------------------------------------------


def test_everybody_who_is_attached_gets_everything(start: Start) -> None:
    monitored = start("read line; echo out; echo err >&2; exit 5", stdin=True, owner=True)
    assert monitored.owner
    others = [monitored.attach(), monitored.attach()]
    until(lambda: len(os.listdir(f"/proc/{monitored.process.pid}/fd")) >= 13)
    others[0].send_input(b"go\n")
    for client in (*others, monitored.owner):
        found = {"o": b"", "E": b"", "x": b""}
        while not found["x"]:
            kind, data = next_message(client)
            found[kind] += data
        assert (found["o"], found["E"], code(found)) == (b"out\n", b"err\n", 5)
    assert next_message(others[0]) == ("", b""), "the monitor closes after the exit code"


def test_who_comes_late_gets_what_comes_then(start: Start) -> None:
    monitored = start("echo early; read line; echo late", stdin=True, owner=True)
    assert monitored.owner
    assert next_message(monitored.owner) == ("o", b"early\n")
    late = monitored.attach()
    late.send_input(b"\n")
    assert collect(late)["o"] == b"late\n"


def test_a_long_path_is_no_obstacle(start: Start, directory: Path) -> None:
    state = directory / ("a" * 64) / ("b" * 64)
    state.mkdir(parents=True)
    (directory / "state").symlink_to(state)
    monitored = start("read line; exit 6", stdin=True)
    assert len(str(state / "attach")) > 107
    client = Client.connect(str(state))
    monitored.clients.append(client)
    client.send_input(b"\n")
    assert client.wait(SECONDS) == 6


def test_nobody_listens_any_more(start: Start) -> None:
    monitored = start("true")
    monitored.finish()
    with pytest.raises(StateError, match="cannot attach"):
        monitored.attach()


@pytest.mark.parametrize("message", [b"?", b"i" + bytes(MAX_DATA + 1), b"w", b"w123456789", b"d"])
def test_a_client_that_talks_nonsense_harms_nobody(start: Start, message: bytes) -> None:
    monitored = start("read line; echo $line", stdin=True, owner=True)
    assert monitored.owner
    bad = monitored.attach()
    bad._sock.setblocking(True)
    bad._sock.send(message)
    monitored.owner.send_input(b"fine\n")
    found = next_message(monitored.owner)
    assert found == ("o", b"fine\n")
    assert monitored.owner.wait(SECONDS) == 0


def test_more_clients_than_there_is_room_for_are_sent_away(start: Start) -> None:
    monitored = start("read line", stdin=True)
    clients = [monitored.attach() for _ in range(32)]
    until(lambda: len(os.listdir(f"/proc/{monitored.process.pid}/fd")) >= 32 + 9)
    assert next_message(monitored.attach()) == ("", b"")
    clients[0].close()
    until(lambda: len(os.listdir(f"/proc/{monitored.process.pid}/fd")) < 32 + 10)
    again = monitored.attach()
    again.send_input(b"\n")
    assert again.wait(SECONDS) == 0


def test_a_client_that_does_not_read_holds_back_its_stream_and_nothing_else(start: Start, directory: Path) -> None:
    script = f"(head -c 4000000 /dev/zero; echo >{directory}/written) & read line; echo err >&2; kill $!; exit 3"
    monitored = start(script, format="", stdin=True, owner=True)
    assert monitored.owner
    time.sleep(0.3)
    assert not (directory / "written").exists(), "nobody reads 4 MB"
    other = monitored.attach()
    other.send_input(b"\n")
    found = b""
    while (message := next_message(other))[0] == "o":
        found += message[1]
    assert message == ("E", b"err\n")
    until((directory / "exit").exists)
    received = collect_until_x(monitored.owner)
    assert set(received["o"]) == {0}
    assert code(received) == 3


def collect_until_x(client: Client) -> dict[str, bytes]:
    found = {"o": b"", "E": b"", "x": b""}
    while not found["x"]:
        kind, data = next_message(client)
        assert kind, found
        found[kind] += data
    return found


def test_a_slow_client_gets_everything(start: Start) -> None:
    monitored = start("head -c 3000000 /dev/zero | tr '\\0' z; echo end >&2", format="", owner=True)
    assert monitored.owner
    time.sleep(0.1)
    found = collect_until_x(monitored.owner)
    assert len(found["o"]) == 3000000
    assert found["E"] == b"end\n"


def test_a_client_that_never_reads_does_not_keep_the_log_from_its_end(start: Start, directory: Path) -> None:
    """What was still in the pipe when the container ended is logged at once."""
    monitored = start("head -c 400000 /dev/zero | tr '\\0' z & sleep 0.2; echo >&2", owner=True)
    assert monitored.owner
    until((directory / "exit").exists)
    in_log = len(monitored.text())
    assert in_log > 100000
    found = collect_until_x(monitored.owner)
    assert len(found["o"]) == in_log


# ---- input ---------------------------------------------------------------------------------------------------------


def test_input_without_a_client_waits_for_one(start: Start) -> None:
    monitored = start("cat", stdin=True, stdin_once=True)
    client = monitored.attach()
    client.send_input(b"one")
    client.send_input(b"two")
    client.send_end()
    assert collect(client)["o"] == b"onetwo"
    assert monitored.finish().code == 0


def test_input_that_is_not_wanted_is_at_its_end(start: Start) -> None:
    monitored = start("cat; readlink /proc/self/fd/0")
    monitored.finish()
    assert monitored.text() == "/dev/null\n"


def test_input_ends_with_its_first_client(start: Start) -> None:
    monitored = start("cat; echo ended", stdin=True, stdin_once=True)
    first = monitored.attach()
    until(lambda: len(os.listdir(f"/proc/{monitored.process.pid}/fd")) >= 10)
    first.send_input(b"text\n")
    second = monitored.attach()
    second.send_end()
    assert next_message(second) == ("o", b"text\n")
    first.close()
    assert next_message(second) == ("o", b"ended\n")


def test_input_stays_open_for_the_next_client(start: Start) -> None:
    monitored = start("read a; read b; echo $a $b", stdin=True)
    first = monitored.attach()
    first.send_input(b"one\n")
    first.send_end()
    first.close()
    second = monitored.attach()
    second.send_input(b"two\n")
    assert collect(second)["o"] == b"one two\n"


def test_much_input_arrives_in_order_and_whole(start: Start) -> None:
    monitored = start("sleep 0.1; md5sum", stdin=True, stdin_once=True, owner=True)
    data = random.Random(3).randbytes(3_000_000)
    assert monitored.owner
    poll = select.poll()
    poll.register(monitored.owner, select.POLLOUT)
    for at in range(0, len(data), MAX_DATA):
        while not monitored.owner.send_input(data[at : at + MAX_DATA]):
            poll.poll(SECONDS * 1000)
    while not monitored.owner.send_end():
        poll.poll(SECONDS * 1000)
    expected = subprocess.run(["md5sum"], input=data, capture_output=True).stdout
    assert collect_until_x(monitored.owner)["o"] == expected


def test_a_client_that_goes_leaves_its_input_behind(start: Start) -> None:
    monitored = start("sleep 0.2; wc -c", stdin=True, stdin_once=True)
    client = monitored.attach()
    sent = 0
    while client.send_input(bytes(MAX_DATA)):
        sent += MAX_DATA
    client.close()
    assert monitored.finish().code == 0
    assert monitored.text() == f"{sent}\n"
    assert sent > 65536


def test_a_container_that_does_not_read_holds_up_its_writers_only(start: Start) -> None:
    monitored = start("sleep 0.3; echo out; exit 2", stdin=True, owner=True)
    assert monitored.owner
    while monitored.owner.send_input(bytes(MAX_DATA)):
        pass
    found = collect_until_x(monitored.owner)
    assert (found["o"], code(found)) == (b"out\n", 2)
    monitored.owner.done()
    monitored.finish()


def test_a_waiting_monitor_does_nothing(start: Start) -> None:
    """Hung-up ends, held back streams and pending input: none makes it spin."""
    monitored = start("exec >&- 2>&-; sleep 1000", stdin=True, stdin_once=True, owner=True)
    assert monitored.owner
    while monitored.owner.send_input(bytes(MAX_DATA)):
        pass
    monitored.owner.close()
    monitored.clients.clear()
    time.sleep(0.3)
    before = ticks(monitored.process.pid)
    time.sleep(0.5)
    assert ticks(monitored.process.pid) - before <= 2


def ticks(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


# ---- our own streams -----------------------------------------------------------------------------------------------

ATTACHED = Path(__file__).parents[1] / "helpers/attached.py"
TREE = Path(__file__).parents[2]


def attached(monitored: Monitored, *words: str) -> list[str]:
    """The command that attaches the owner's connection to its own streams."""
    assert monitored.owner
    os.set_inheritable(monitored.owner.fileno(), True)
    arguments = [TREE, monitored.owner.fileno(), monitored.pid, *words]
    return [sys.executable, str(ATTACHED), *map(str, arguments)]


def follow(monitored: Monitored, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(attached(monitored, *words), close_fds=False, **options)
    assert monitored.owner
    monitored.owner.close()
    monitored.clients.remove(monitored.owner)
    return process


def test_streams_and_exit_code_come_through(start: Start) -> None:
    monitored = start("cat; echo err >&2; exit 7", stdin=True, stdin_once=True, owner=True)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with follow(monitored, "stdin", **streams) as process:
        assert process.communicate(b"some input", timeout=SECONDS) == (b"some input", b"err\n")
    assert process.returncode == 7
    monitored.finish()


def test_much_goes_through_in_both_directions_at_once(start: Start) -> None:
    """Neither direction waits for the other."""
    monitored = start("cat", format="", stdin=True, stdin_once=True, owner=True)
    data = random.Random(5).randbytes(5_000_000)
    with follow(monitored, "stdin", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.communicate(data, timeout=60)[0] == data
    assert process.returncode == 0


def test_a_container_without_input_leaves_ours_alone(start: Start) -> None:
    monitored = start("echo out", owner=True)
    reader, writer = os.pipe()
    os.write(writer, b"not for it")
    with follow(monitored, stdin=reader, stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=SECONDS)[0] == b"out\n"
    assert os.read(reader, 100) == b"not for it"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGWINCH"])
def test_signals_are_passed_on(start: Start, name: str) -> None:
    word = name[3:]
    script = f"trap 'exit 9' {word}; trap 'exit 8' USR2; echo ready; while :; do sleep 0.02; done"
    monitored = start(script, owner=True)
    with follow(monitored, "send", stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(getattr(signal, name))
        if name == "SIGWINCH":  # That is about our terminal, and nobody else's business.
            process.send_signal(signal.SIGUSR2)
        assert process.wait(SECONDS) == (8 if name == "SIGWINCH" else 9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_without_a_proxy_signals_detach(start: Start, number: int) -> None:
    monitored = start("echo ready; read line; exit 3", stdin=True, owner=True)
    with follow(monitored, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(SECONDS) == 120
    monitored.attach().send_input(b"\n")
    assert monitored.finish().code == 3


def test_a_killed_monitor_is_noticed(start: Start) -> None:
    monitored = start("echo ready; sleep 1000", owner=True)
    with follow(monitored, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        monitored.process.kill()
        assert process.wait(SECONDS) == 121


def test_output_that_nobody_reads_ends_what_was_only_for_it(start: Start) -> None:
    """As for a program of ours in a pipeline: it gets SIGPIPE."""
    monitored = start("exec yes", format="", owner=True)
    with follow(monitored, "send", "owner", stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(SECONDS) == 128 + signal.SIGPIPE


def test_output_that_nobody_reads_detaches_others(start: Start) -> None:
    monitored = start("echo ready; while :; do echo more; sleep 0.02; done", owner=True)
    with follow(monitored, "send", stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(SECONDS) == 120
    assert not gone(monitored.pid)


def test_a_reader_that_is_slow_holds_up_neither_signals_nor_the_end(start: Start) -> None:
    script = "trap 'exit 5' USR1; echo ready; yes | head -c 1000000 & while :; do sleep 0.02; done"
    monitored = start(script, format="", owner=True)
    with follow(monitored, "send", stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        until(lambda: read_exit(str(monitored.directory)))
        rest = process.stdout.read()
        assert len(rest) > 100000
        assert rest == b"y\n" * (len(rest) // 2)
        assert process.wait(SECONDS) == 5


def person(monitored: Monitored, *words: str) -> Person:
    one = Person(*attached(monitored, *words))
    assert monitored.owner
    monitored.owner.close()
    monitored.clients.remove(monitored.owner)
    return one


def test_a_terminal_is_handed_through(start: Start) -> None:
    wait = "trap 'stty size; exit 6' WINCH; echo set; while :; do sleep 0.02; done"
    script = f"read go; stty size; read line; echo got $line; {wait}"
    monitored = start(script, terminal=True, owner=True)
    with person(monitored, "terminal", "stdin", "send") as one:
        one.types("\r")
        one.sees("30 100")
        assert one.is_raw
        one.types("word\r")
        one.sees("got word")
        one.sees("set")
        one.resize(44, 122)
        one.sees("44 122")
        assert one.ends() == 6
        assert termios.tcgetattr(one.slave) == one.before


def test_detach_keys_detach(start: Start) -> None:
    monitored = start("read line; echo got $line; read line; exit 4", terminal=True, owner=True)
    with person(monitored, "terminal", "stdin", "send", "owner") as one:
        one.types("a\x10b\r")
        one.sees("got a\x10b")
        one.types("\x10\x11")
        assert one.ends() == 120
        assert termios.tcgetattr(one.slave) == one.before
    assert not gone(monitored.pid)
    monitored.attach().send_input(b"\n")
    assert monitored.finish().code == 4


def test_the_end_of_input_reaches_a_terminal(start: Start) -> None:
    for data in (b"line\n", b"unfinished"):
        monitored = start("stty -echo; cat; exit 2", terminal=True, owner=True)
        with follow(monitored, "terminal", "stdin", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.communicate(data, timeout=SECONDS)[0].replace(b"\r\n", b"\n").endswith(data)
        assert process.returncode == 2
        monitored.finish()
        monitored.close()
        (monitored.state / "attach").unlink()


def test_a_closed_terminal_ends_what_was_only_for_it(start: Start) -> None:
    monitored = start("trap '' HUP; echo ready; sleep 1000", terminal=True, owner=True)
    one = person(monitored, "terminal", "stdin", "send", "owner")
    one.sees("ready")
    os.close(one.slave)
    os.close(one.master)
    os.waitpid(one.pid, 0)
    assert monitored.finish().code == 137


# ---- events --------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(directory: Path) -> Callable[[], list[list[str]]]:
    """What an event program made by `program` was told, one list of arguments a time."""
    return lambda: (
        [line.split() for line in (directory / "told").read_text().splitlines()]
        if (directory / "told").exists()
        else []
    )


def program(directory: Path, script: str = "") -> list[str]:
    path = directory / "program"
    path.write_text(f'#!/bin/sh\necho "$@" >>{directory}/told\n{script}\n')
    path.chmod(0o755)
    return [str(path), "_event", "ID"]


Told = Callable[[], list[list[str]]]


def test_the_program_is_told_of_the_end(start: Start, directory: Path, told: Told) -> None:
    start("exit 9", events=Events(program(directory), [PATH])).finish()
    assert told() == [["_event", "ID", "exited", "9"]]


def test_the_program_is_alone(start: Start, directory: Path) -> None:
    script = f"{{ env; ls -l /proc/self/fd; grep Sig /proc/self/status; pwd; }} >{directory}/seen 2>&1"
    start("true", stdin=True, events=Events(program(directory, script), [PATH, "A=b c"])).finish()
    seen = (directory / "seen").read_text()
    assert "A=b c\n" in seen
    assert "HOME" not in seen
    assert "0 -> /dev/null" in seen
    assert re.findall(r" (\d+) -> ", seen) == ["0", "1", "2", "3"]
    assert re.search(r"SigBlk:\s*0+\n", seen) and re.search(r"SigIgn:\s*0+\n", seen)
    assert seen.endswith("\n/\n")


def test_an_owner_that_is_done_spares_the_program(start: Start, directory: Path, told: Told) -> None:
    monitored = start("exit 3", owner=True, events=Events(program(directory), [PATH]))
    assert monitored.owner
    assert monitored.owner.wait(SECONDS) == 3
    time.sleep(0.1)
    assert monitored.process.poll() is None, "it waits for the owner"
    monitored.owner.done()
    monitored.finish()
    assert told() == []


@pytest.mark.parametrize("early", [False, True])
def test_an_owner_that_goes_is_none(start: Start, directory: Path, told: Told, early: bool) -> None:
    monitored = start("read line; exit 3", stdin=True, owner=True, events=Events(program(directory), [PATH]))
    assert monitored.owner
    if early:
        monitored.owner.done()  # Of nothing: the container has not ended.
    monitored.owner.send_input(b"\n")
    if not early:
        assert monitored.owner.wait(SECONDS) == 3
    monitored.owner.close()
    monitored.finish()
    assert told() == [["_event", "ID", "exited", "3"]]


def test_timers_while_the_container_runs(start: Start, directory: Path, told: Told) -> None:
    script = 'test "$3" = exited || test $(wc -l <' + str(directory) + '/told) -ge 4 || echo "20 health check"'
    monitored = start("read l", stdin=True, events=Events(program(directory, script), [PATH], (10, "first")))
    until(lambda: len(told()) == 4)
    time.sleep(0.1)
    client = monitored.attach()
    client.send_input(b"\n")
    monitored.finish()
    assert told() == [
        ["_event", "ID", "first"], *[["_event", "ID", "health", "check"]] * 3, ["_event", "ID", "exited", "0"],
    ]  # fmt: skip


def test_a_timer_after_the_end_keeps_the_monitor(start: Start, directory: Path, told: Told) -> None:
    script = 'case "$3" in exited) echo 100 restart;; restart) echo 0 again;; esac'
    before = time.monotonic()
    start("exit 1", events=Events(program(directory, script), [PATH])).finish()
    assert time.monotonic() - before >= 0.1
    assert told() == [["_event", "ID", "exited", "1"], ["_event", "ID", "restart"], ["_event", "ID", "again"]]


def test_the_end_ends_a_timer(start: Start, directory: Path, told: Told) -> None:
    start("true", events=Events(program(directory), [PATH], (1_000_000, "late"))).finish()
    assert told() == [["_event", "ID", "exited", "0"]]


@pytest.mark.parametrize(
    "line",
    ["", "x", "100", "100 ", " 100 again", "-1 again", "99999999999999999999 again", "0 " + "x" * 300, "0 no-newline"],
)
def test_what_is_no_timer_is_none(start: Start, directory: Path, told: Told, line: str) -> None:
    ending = "" if line.endswith("no-newline") else "\\n"
    start("true", events=Events(program(directory, f"printf '{line}{ending}'"), [PATH])).finish()
    assert len(told()) == 1


def test_a_program_that_prints_too_much_ends_all_the_same(start: Start, directory: Path, told: Told) -> None:
    start("true", events=Events(program(directory, "yes | head -c 300000"), [PATH])).finish()
    assert len(told()) == 1


@pytest.mark.parametrize("argv", [["/nonexistent"], ["/"], ["/bin/false"], ["/bin/sh", "-c", "kill -9 $$"]])
def test_a_program_that_fails_decides_nothing(start: Start, argv: list[str]) -> None:
    assert start("exit 8", events=Events(argv, [PATH], (1, "timer"))).finish().code == 8


def test_the_end_is_told_after_a_program_that_hangs(start: Start, directory: Path, told: Told) -> None:
    script = f'test "$3" = exited || while ! test -e {directory}/go; do sleep 0.02; done'
    monitored = start(
        "read l; echo $l", stdin=True, owner=True, events=Events(program(directory, script), [PATH], (1, "x"))
    )
    until(lambda: len(told()) == 1)
    assert monitored.owner
    monitored.owner.send_input(b"pumped\n")
    found = collect_until_x(monitored.owner)
    assert found["o"] == b"pumped\n", "a program that hangs holds nothing up"
    assert read_exit(str(directory))
    monitored.owner.close()
    time.sleep(0.1)
    assert len(told()) == 1
    (directory / "go").touch()
    monitored.finish()
    assert told()[1:] == [["_event", "ID", "exited", "0"]]


def test_what_the_program_leaves_running_holds_nothing_up(start: Start, directory: Path) -> None:
    script = f"sleep 300 & echo $! >{directory}/left"
    start("true", events=Events(program(directory, script), [PATH])).finish()
    os.kill(int((directory / "left").read_text()), signal.SIGKILL)


# ---- with sanitizers -----------------------------------------------------------------------------------------------


def test_a_checked_monitor_finds_no_fault(start: Start, checked_binary: Path, directory: Path, told: Told) -> None:
    """Built with the address and undefined-behaviour sanitizers, through most of what it can do."""
    dice = random.Random(11)
    data = b"".join(dice.choices([*SPECIAL, dice.randbytes(4000), b"\n", b"long" * 5000], k=150))
    script = printing(directory, data) + "; cat; exit 3"
    monitored = start(
        script, binary=checked_binary, max_size=50000, max_file=3, stdin=True, stdin_once=True, owner=True,
        events=Events(program(directory, 'test "$3" = exited && echo 1 more'), [PATH], (1, "first")),
    )  # fmt: skip
    assert monitored.owner
    got = b""
    while len(got) < len(data):
        got += next_message(monitored.owner)[1]
    other = monitored.attach()
    until(lambda: other.resize(24, 80))
    monitored.owner.send_input(b"input")
    assert next_message(other) == ("o", b"input")
    other.close()
    monitored.owner.send_end()
    found = collect_until_x(monitored.owner)
    assert code(found) == 3
    monitored.owner.close()
    assert monitored.finish().code == 3
    assert [words[2] for words in told()] == ["first", "exited", "more"]


# ---- Python's half -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("", b""),
        ("a", b"a"),
        ("ctrl-@", b"\0"),
        ("ctrl-\\,x", b"\x1cx"),
        ("ctrl-_", b"\x1f"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", ",", "ctrl-pq", "ö", "a,"])
def test_what_are_no_detach_keys(text: str) -> None:
    with pytest.raises(UsageError, match="is no key"):
        parse_keys(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=30), st.lists(st.integers(1, 5)), st.sampled_from([b"\x10\x11", b"aab", b"a", b""]))
def test_keys_are_found_however_they_come(data: bytes, sizes: list[int], sequence: bytes) -> None:
    data = data.replace(b"\x02", b"a").replace(b"\x03", b"b")
    keys, out, at, found = _Keys(sequence), b"", 0, False
    for size in [*sizes, len(data)]:
        part, found = keys.feed(data[at : at + size])
        out += part
        at += size
        if found:
            break
    wanted = data.find(sequence) if sequence else -1
    if found:
        assert out == data[:wanted]
    else:
        assert wanted < 0
        assert out + keys.held == data


def test_no_exit_file_is_no_exit(directory: Path) -> None:
    assert read_exit(str(directory)) is None
    (directory / "exit").write_text("garbage")
    assert read_exit(str(directory)) is None
    (directory / "exit").write_text("1 2 3\n")
    assert read_exit(str(directory)) is None
