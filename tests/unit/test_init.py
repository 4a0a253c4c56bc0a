"""`init` itself, without privilege: its vocabulary, its distrust of the plan, and its side of the conversation."""

import errno
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import steps
from runtime.steps import FIFO_SLOT, FIRST_SLOT, GUEST, REPORT_SLOT, SYNC_SLOT, VOCABULARY, LaunchPlan, Op
from tests.helpers.init import SECONDS, Launched, compile_init, memfd, plan_of, run_sh, spawn

LONG = bool(os.environ.get("WARREN_LONG"))

Start = Callable[..., Launched]


@pytest.fixture
def start(init_binary: Path) -> Iterator[Start]:
    """Starts `init` on a plan; `fds` are passed in slots, `more` in addition."""
    started = []

    def begin(plan: LaunchPlan, fds: dict[int, int] | None = None, more: tuple[int, ...] = ()) -> Launched:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(SECONDS)
        passed = {SYNC_SLOT: theirs.fileno(), **(fds or {})}
        process = spawn(init_binary, plan.encode(passed), (*passed.values(), *more))
        theirs.close()
        started.append(Launched(process, ours))
        return started[-1]

    yield begin
    for launched in started:
        launched.sock.close()
        launched.process.kill()
        launched.process.communicate()


# ---- vocabulary ----------------------------------------------------------------------------------------------------


def test_init_and_python_speak_the_same_words(init_binary: Path) -> None:
    out = subprocess.run([init_binary, "--list-steps"], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == told({name: op for name, op in VOCABULARY.items() if name not in GUEST})


def test_process_1_of_a_machine_knows_all_words(tmp_path: Path) -> None:
    program = compile_init(tmp_path / "init-guest", "gcc", "-DWARREN_GUEST")
    assert program
    out = subprocess.run([program, "--list-steps"], capture_output=True, text=True, check=True).stdout
    assert sorted(out.splitlines()) == sorted(told(VOCABULARY))


def told(words: dict[str, Op]) -> list[str]:
    ordered = sorted(words.items(), key=lambda item: item[1].number)
    return [f"{op.number} {name} {op.signature}".rstrip() for name, op in ordered]


def test_version_is_that_of_the_wire_format(init_binary: Path) -> None:
    out = subprocess.run([init_binary, "--version"], capture_output=True, text=True, check=True).stdout
    assert out.startswith("warren-init ")


@pytest.mark.parametrize("arguments", [[], ["x"], ["-1"], ["0"], ["2"], ["99999999999999999999"], ["3", "4"], ["777"]])
def test_wrong_arguments_are_one_line_and_125(init_binary: Path, arguments: list[str]) -> None:
    done = subprocess.run([init_binary, *arguments], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1


# ---- the plan is not trusted ---------------------------------------------------------------------------------------

# Steps that fail before anything happens, twice, so that no single changed bit can let a plan get past them.
GUARD = [("open_path", FIRST_SLOT, "/nonexistent/guard/x", 0)] * 2
EVERY_KIND = plan_of(
    *GUARD,
    ("setsid",),
    ("userns", 6, "0 0 1\n", "0 0 1\n", 1, 0, -1),
    ("overlay", 7, -1, ["6", "7"], []),
    ("mount", "tmpfs", "/x", ["mode=755", "size=1m"], 0, 1),
    ("exec", ["/bin/true", "", "x" * 20], ["A=B"], 0),
).encode({})


def assert_refused(binary: Path, plan: bytes) -> str:
    process = spawn(binary, plan)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 125, (plan, err)
    assert err.count(b"\n") == 1, err
    return err.decode()


def test_the_sound_plan_gets_as_far_as_its_first_step(checked_binary: Path) -> None:
    assert f"step 1: errno {errno.ENOENT}" in assert_refused(checked_binary, EVERY_KIND)


def test_every_truncation_is_refused(init_binary: Path) -> None:
    for size in range(len(EVERY_KIND)):
        assert f"errno {errno.EBADMSG}" in assert_refused(init_binary, EVERY_KIND[:size])


def test_truncation_with_a_matching_header_is_refused(checked_binary: Path) -> None:
    """Behind a header that admits the shorter size, it is the steps that must be found cut off."""
    for size in range(16, len(EVERY_KIND), 1 if LONG else 5):
        plan = EVERY_KIND[:8] + struct.pack("=I", size) + EVERY_KIND[12:size]
        assert f"errno {errno.EBADMSG}" in assert_refused(checked_binary, plan)


def test_changed_bits_never_get_past_the_decoder_or_the_guard(checked_binary: Path) -> None:
    bits = range(len(EVERY_KIND) * 8)
    for bit in bits if LONG else random.Random(1).sample(bits, 250):
        plan = bytearray(EVERY_KIND)
        plan[bit // 8] ^= 1 << bit % 8
        assert_refused(checked_binary, bytes(plan))


def test_huge_numbers_in_every_place_are_refused(checked_binary: Path) -> None:
    """Any 32-bit word of the plan may be a count or a length."""
    places = range(8, len(EVERY_KIND) - 4, 4)
    for place in places if LONG else random.Random(2).sample(places, 60):
        for value in (0xFFFFFFFF, 0x80000000, 0x7FFFFFF8, 0xFFFFFFF8):
            plan = bytearray(EVERY_KIND)
            struct.pack_into("=I", plan, place, value)
            assert_refused(checked_binary, bytes(plan))


def raw_plan(*bodies: bytes, count: int | None = None, magic: int = steps.MAGIC, version: int = steps.VERSION) -> bytes:
    body = b"".join(bodies)
    return struct.pack("=IIII", magic, version, 16 + len(body), len(bodies) if count is None else count) + body


def raw_step(name: str, *args: bytes, count: int | None = None) -> bytes:
    body = b"".join(args)
    return struct.pack("=HHI", VOCABULARY[name].number, len(args) if count is None else count, len(body)) + body


def raw_arg(letter: str, size: int, data: bytes) -> bytes:
    return struct.pack("=II", ord(letter), size) + data


MALFORMED = {
    "no header": b"",
    "other magic": raw_plan(magic=steps.MAGIC + 1),
    "other version": raw_plan(version=steps.VERSION + 1),
    "more steps than bytes": raw_plan(count=1),
    "too many steps": raw_plan(*[raw_step("setsid")] * (steps.MAX_STEPS + 1)),
    "fewer steps than bytes": raw_plan(raw_step("setsid"), count=0),
    "unknown op": raw_plan(struct.pack("=HHI", 999, 0, 0)),
    "op zero": raw_plan(struct.pack("=HHI", 0, 0, 0)),
    "argument too many": raw_plan(raw_step("setsid", raw_arg("i", 8, bytes(8)))),
    "argument missing": raw_plan(raw_step("umask")),
    "argument announced, not there": raw_plan(raw_step("umask", count=1)),
    "other type": raw_plan(raw_step("umask", raw_arg("s", 1, b"x" + bytes(7)))),
    "unknown type": raw_plan(raw_step("umask", raw_arg("x", 8, bytes(8)))),
    "short integer": raw_plan(raw_step("umask", raw_arg("i", 4, bytes(8)))),
    "string without end": raw_plan(raw_step("hostname", raw_arg("s", 8, b"x" * 8))),
    "string with NUL": raw_plan(raw_step("hostname", raw_arg("s", 3, b"a\0b" + bytes(5)))),
    "string with dirty padding": raw_plan(raw_step("hostname", raw_arg("s", 1, b"a\0bcdefg"))),
    "string longer than its step": raw_plan(raw_step("hostname", raw_arg("s", 100, b"a" + bytes(7)))),
    "list without end": raw_plan(raw_step("scratch", raw_arg("l", 8, b"x" * 8))),
    "list with dirty padding": raw_plan(raw_step("scratch", raw_arg("l", 2, b"a\0\0\0\0\0\0x"))),
    "list longer than its step": raw_plan(raw_step("scratch", raw_arg("l", 16, b"x" * 7 + b"\0"))),
    "bytes after the arguments": raw_plan(raw_step("umask", raw_arg("i", 8, bytes(8)), bytes(8), count=1)),
    "bytes after the steps": raw_plan(raw_step("setsid"), bytes(8), count=1),
    "slot below": raw_plan(raw_step("setns", raw_arg("i", 8, struct.pack("=q", -2)), raw_arg("i", 8, bytes(8)))),
    "slot above": raw_plan(
        raw_step("setns", raw_arg("i", 8, struct.pack("=q", steps.MAX_SLOTS)), raw_arg("i", 8, bytes(8)))
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_plan_is_refused(checked_binary: Path, name: str) -> None:
    assert f"errno {errno.EBADMSG}" in assert_refused(checked_binary, MALFORMED[name])


def test_a_plan_that_is_too_long_is_not_read(init_binary: Path) -> None:
    fd = os.memfd_create("plan")
    try:
        os.ftruncate(fd, steps.MAX_PLAN + 1)
        done = subprocess.run([init_binary, str(fd)], pass_fds=[fd], capture_output=True, timeout=SECONDS)
    finally:
        os.close(fd)
    assert done.returncode == 125


def test_a_plan_that_is_no_file_is_not_read(init_binary: Path) -> None:
    """A pipe that nobody writes to must not block."""
    reader, writer = os.pipe()
    try:
        done = subprocess.run([init_binary, str(reader)], pass_fds=[reader], capture_output=True, timeout=SECONDS)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 125


def test_nothing_is_done_before_the_whole_plan_is_understood(init_binary: Path, directory: Path) -> None:
    made = directory / "made"
    sound = plan_of(("open_path", 6, str(made), os.O_CREAT), ("hostname", "x"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        # The last byte pads the host name.
        plan = sound.encode({SYNC_SLOT: theirs.fileno()})[:-1] + b"x"
        process = spawn(init_binary, plan, (theirs.fileno(),))
        theirs.close()
        data = ours.recv(4096)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 125
    assert steps.MESSAGE.unpack_from(data) == (steps.FAIL, 2, errno.EBADMSG)
    assert not made.exists()


# ---- the conversation ----------------------------------------------------------------------------------------------


def test_a_failed_step_is_told_by_number_errno_and_call(start: Start) -> None:
    """Steps are counted as --plan prints them: `inherit` steps are not."""
    launched = start(plan_of(("umask", 0o22), ("open_path", 6, "/nonexistent", 0), ("setsid",)))
    assert launched.receive() == (steps.FAIL, 2, errno.ENOENT, "open")
    assert launched.receive() is None
    assert launched.finish() == (125, "", "")


def test_end_of_file_means_that_the_program_runs(start: Start) -> None:
    launched = start(plan_of(run_sh("cat; exit 7")))
    assert launched.receive() is None
    assert launched.finish()[0] == 7


def test_a_sync_waits_for_its_ok_whose_text_becomes_the_input_of_hooks(start: Start) -> None:
    hook = ("hook", "/bin/sh", ["sh", "-c", "cat; echo :$A:$PATH"], ["A=b", "PATH=/bin"], 10)
    launched = start(plan_of(("sync", "createRuntime"), hook, run_sh("echo program")))
    assert launched.receive() == (steps.SYNC, 1, 0, "createRuntime")
    launched.answer("state")
    assert launched.receive() is None
    assert launched.finish() == (0, "state:b:/bin\nprogram\n", "")


def test_a_hook_may_leave_a_large_input_unread(start: Start) -> None:
    hook: tuple[object, ...] = ("hook", "/bin/sh", ["sh", "-c", "exec <&-"], [], 10)
    launched = start(plan_of(("sync", "x"), hook, hook, run_sh("echo program")))
    launched.receive()
    launched.answer("x" * 60000)
    assert launched.receive() is None
    assert launched.finish() == (0, "program\n", "")


@pytest.mark.parametrize("answer", ["gone", "other kind", "short"])
def test_without_an_ok_nothing_more_is_done(start: Start, answer: str) -> None:
    launched = start(plan_of(("sync", "x"), run_sh("echo program")))
    launched.receive()
    if answer == "gone":
        launched.sock.close()
    elif answer == "short":
        launched.sock.send(b"x")
    else:
        launched.answer(kind=steps.SYNC)
    assert launched.finish() == (125, "", "")


@pytest.mark.parametrize(
    ("script", "timeout", "number", "detail"),
    [
        ("exit 3", 0, errno.ECHILD, "exit status 3"),
        ("kill -9 $$", 10, errno.ECHILD, "killed by signal 9"),
        ("sleep 60", 1, errno.ETIMEDOUT, "timed out after 1 s"),
    ],
)
def test_a_failed_hook_says_how(start: Start, script: str, timeout: int, number: int, detail: str) -> None:
    launched = start(plan_of(("hook", "/bin/sh", ["sh", "-c", script], ["PATH=/usr/bin:/bin"], timeout)))
    assert launched.receive() == (steps.FAIL, 1, number, detail)
    assert launched.finish()[0] == 125


def test_a_hook_that_cannot_be_executed_says_why(start: Start) -> None:
    launched = start(plan_of(("hook", "/nonexistent", ["x"], [], 0)))
    assert launched.receive() == (steps.FAIL, 1, errno.ENOENT, "execve")


# ---- find and exec -------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(directory: Path) -> Path:
    for name, mode in (("good", 0o755), ("plain", 0o644), ("garbage", 0o755)):
        (directory / name).write_text("\x7fELF garbage" if name == "garbage" else "#!/bin/sh\necho found\n")
        (directory / name).chmod(mode)
    (directory / "folder").mkdir()
    (directory / "later").mkdir()
    shutil.copy(directory / "good", directory / "later/plain")
    return directory


@pytest.mark.parametrize(
    ("program", "number", "detail"),
    [
        ("nothing", errno.ENOENT, ""),
        ("", errno.ENOENT, ""),
        ("./nothing", errno.ENOENT, ""),
        ("./good/x", errno.ENOTDIR, ""),
        ("plain", errno.EACCES, "permission denied"),
        ("./plain", errno.EACCES, "permission denied"),
        ("folder", errno.EACCES, "is a directory"),
        ("./folder", errno.EACCES, "is a directory"),
    ],
)
def test_what_cannot_be_executed_is_not_found(
    start: Start, programs: Path, program: str, number: int, detail: str
) -> None:
    launched = start(plan_of(("chdir", str(programs), 0), ("find", program, str(programs))))
    assert launched.receive() == (steps.FAIL, 2, number, detail)


@pytest.mark.parametrize(
    ("program", "path"),
    [("good", "{}"), ("good", "/nonexistent:{}"), ("./good", ""), ("good", ""), ("good", "/x:"), ("plain", "{}:later")],
)
def test_a_program_is_found(start: Start, programs: Path, program: str, path: str) -> None:
    plan = plan_of(("chdir", str(programs), 0), ("find", program, path.format(programs)), ("exec", [program], [], 0))
    assert start(plan).finish() == (0, "found\n", "")


def test_a_file_that_is_no_program_is_a_format_error(start: Start, programs: Path) -> None:
    program = str(programs / "garbage")
    launched = start(plan_of(("find", program, ""), ("exec", [program], [], 0)))
    assert launched.receive() == (steps.FAIL, 2, errno.ENOEXEC, "exec format error")


def test_the_program_gets_its_environment_and_nothing_else(start: Start) -> None:
    launched = start(plan_of(("exec", ["/usr/bin/env", "-0"], ["A=1", "B=", "A=2"], 0)))
    assert launched.finish()[1] == "A=1\0B=\0A=2\0"


def test_the_program_starts_with_default_signals_and_umask(start: Start) -> None:
    """A careless caller: CPython itself ignores SIGPIPE, and its umask is anybody's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = os.umask(0)
    try:
        launched = start(plan_of(run_sh("umask; grep -E '^Sig(Blk|Ign)' /proc/self/status")))
    finally:
        os.umask(mask)
        signal.signal(signal.SIGHUP, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    umask, *lines = launched.finish()[1].splitlines()
    assert umask == "0022"
    assert [int(line.split()[1], 16) for line in lines] == [0, 0]


def test_no_descriptor_of_the_caller_is_left(start: Start) -> None:
    """Whatever the caller leaked ends with init (CVE-2024-21626)."""
    leaked = tuple(os.open("/", os.O_RDONLY) for _ in range(3))
    try:
        # The standard streams and ls's own.
        launched = start(plan_of(run_sh("ls /proc/self/fd | wc -l")), more=leaked)
        assert launched.finish()[1].strip() == "4"
    finally:
        for fd in leaked:
            os.close(fd)


def test_preserved_descriptors_must_be_open(start: Start) -> None:
    launched = start(plan_of(("exec", ["/bin/true"], [], 1000)))
    assert launched.receive() == (steps.FAIL, 1, errno.EBADF, "preserved descriptor")


def test_a_working_directory_that_does_not_exist_is_enoent(start: Start) -> None:
    launched = start(plan_of(("chdir", "/nonexistent", 0)))
    assert launched.receive() == (steps.FAIL, 1, errno.ENOENT, "chdir")


def test_identity_of_minus_one_is_refused(start: Start) -> None:
    """setresuid(2) would take it for "unchanged" and leave the caller's (CVE-2026-30892)."""
    launched = start(plan_of(("user", 0xFFFFFFFF, 0, 0, [])))
    message = launched.receive()
    assert message is not None and message[:3] == (steps.FAIL, 1, errno.EINVAL)


# ---- created, then started -----------------------------------------------------------------------------------------


class Created:
    """A plan that waits for start: the fifo and the report file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "fifo"
        os.mkfifo(self.path)
        self.report = directory / "report"
        self.fds = {
            FIFO_SLOT: os.open(self.path, os.O_RDWR | os.O_NONBLOCK),
            REPORT_SLOT: os.open(self.report, os.O_RDWR | os.O_CREAT),
        }

    def let_go(self) -> None:
        for fd in self.fds.values():
            os.close(fd)

    def start(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"0")
        os.close(fd)


@pytest.fixture
def created(directory: Path) -> Created:
    return Created(directory)


def test_init_waits_for_a_byte_and_then_lets_go_of_the_fifo(start: Start, created: Created) -> None:
    launched = start(plan_of(("wait_start", FIFO_SLOT, REPORT_SLOT), run_sh("sleep 0.2; exit 5")), created.fds)
    created.let_go()
    assert launched.receive() == (steps.READY, 1, 0, "")
    assert launched.receive() is None
    assert launched.process.poll() is None
    created.start()
    assert launched.finish()[0] == 5
    with pytest.raises(OSError, match="No such device"):
        created.start()


def test_while_it_waits_nothing_else_is_open(start: Start, created: Created) -> None:
    leaked = os.open("/", os.O_RDONLY)
    slot = ("open_path", FIRST_SLOT, "/", os.O_RDONLY)
    launched = start(plan_of(slot, ("wait_start", FIFO_SLOT, REPORT_SLOT), run_sh("")), created.fds, (leaked,))
    os.close(leaked)
    created.let_go()
    while launched.receive():
        pass
    folder = Path(f"/proc/{launched.process.pid}/fd")
    links = poll(
        lambda: sorted(os.readlink(fd) for fd in folder.iterdir() if int(fd.name) > 2), lambda got: len(got) == 2
    )
    assert links == [str(created.path), str(created.report)]


def poll(read: Callable[[], list[str]], good: Callable[[list[str]], bool]) -> list[str]:
    for _ in range(200):
        try:
            found = read()
        except FileNotFoundError:
            continue
        if good(found):
            break
        signal.sigtimedwait([], 0.01)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGRTMIN + 1, signal.SIGABRT])
def test_a_signal_ends_init_while_it_waits(start: Start, created: Created, number: int) -> None:
    launched = start(plan_of(("wait_start", FIFO_SLOT, REPORT_SLOT), run_sh("")), created.fds)
    created.let_go()
    launched.receive()
    launched.receive()
    launched.process.send_signal(number)
    assert launched.finish()[0] == 128 + number


def test_a_failure_after_start_goes_to_the_report(start: Start, created: Created, programs: Path) -> None:
    program = str(programs / "garbage")
    launched = start(plan_of(("wait_start", FIFO_SLOT, REPORT_SLOT), ("exec", [program], [], 0)), created.fds)
    launched.receive()
    created.start()
    created.let_go()
    assert launched.finish() == (125, "", "")
    data = created.report.read_bytes()
    assert steps.MESSAGE.unpack_from(data) == (steps.FAIL, 2, errno.ENOEXEC)
    assert data[steps.MESSAGE.size :] == b"exec format error"


# ---- process 1 -----------------------------------------------------------------------------------------------------


def test_the_reaper_ends_as_its_program_does(start: Start) -> None:
    assert start(plan_of(("reap", -1), run_sh("exit 9"))).finish()[0] == 9
    assert start(plan_of(("reap", -1), run_sh("kill -9 $$"))).finish()[0] == 128 + 9


def test_the_reaper_passes_on_signals_and_collects_orphans(start: Start) -> None:
    script = "trap 'exit 7' USR1; (sleep 0.1 & sleep 0.1 & wait) & echo ready; while :; do sleep 0.05; done"
    launched = start(plan_of(("reap", -1), run_sh(script)))
    assert launched.receive() is None
    assert launched.process.stdout and launched.process.stdout.readline() == b"ready\n"
    launched.process.send_signal(signal.SIGUSR1)
    assert launched.finish()[0] == 7


def test_a_failure_below_the_reaper_is_told(start: Start, programs: Path) -> None:
    launched = start(plan_of(("reap", -1), ("exec", [str(programs / "garbage")], [], 0)))
    assert launched.receive() == (steps.FAIL, 2, errno.ENOEXEC, "exec format error")
    assert launched.finish()[0] == 125


def test_a_reaper_that_is_executed_misses_no_signal_and_keeps_nothing(init_binary: Path) -> None:
    own = os.open(init_binary, os.O_RDONLY)
    script = "trap 'exit 7' USR1; echo ready; (sleep 0.1 & sleep 0.1 & wait) & while :; do sleep 0.05; done"
    plan = plan_of(("reap", FIRST_SLOT), run_sh(script))
    process = spawn(init_binary, plan.encode({FIRST_SLOT: own}), (own,))
    os.close(own)
    try:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + SECONDS
        while b"--reap" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
        assert Path(f"/proc/{process.pid}/environ").read_bytes() == b""
        process.send_signal(signal.SIGUSR1)
        assert process.wait(SECONDS) == 7
    finally:
        process.kill()
        process.communicate()


def test_a_reaper_ends_as_its_program_does_though_it_is_executed(init_binary: Path) -> None:
    """However soon that is: the end of a child is not lost while its parent becomes another program."""
    for script, code in (("exit 9", 9), ("kill -9 $$", 137)) * 20:
        own = os.open(init_binary, os.O_RDONLY)
        plan = plan_of(("reap", FIRST_SLOT), run_sh(script))
        process = spawn(init_binary, plan.encode({FIRST_SLOT: own}), (own,))
        os.close(own)
        assert process.wait(SECONDS) == code
        process.communicate()


@pytest.mark.parametrize("words", [["--reap"], ["--reap", "0"], ["--reap", "-1"], ["--reap", "x"]])
def test_nobody_is_signalled_by_a_reaper_of_nobody(init_binary: Path, words: list[str]) -> None:
    assert subprocess.run([init_binary, *words], capture_output=True).returncode == 125


# ---- take_network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "passed", "error"),
    [
        (b"", False, errno.EPIPE),
        (struct.pack("=IIq", 0, 0, errno.ENOSPC), False, errno.ENOSPC),
        (struct.pack("=IIq", 0, 0, 0), False, errno.EBADMSG),
        (b"short", False, errno.EPIPE),
        (struct.pack("=IIq", 0, 0, 0), True, errno.EINVAL),
    ],
    ids=["helper dead", "helper failed", "no descriptor", "no message", "no namespace"],
)
def test_a_network_that_does_not_come_fails_the_launch(start: Start, sent: bytes, passed: bool, error: int) -> None:
    line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with line, far, open(os.devnull) as null:
        if sent:
            socket.send_fds(line, [sent], [null.fileno()] if passed else [])
        line.close()
        launched = start(plan_of(("take_network", FIRST_SLOT)), {FIRST_SLOT: far.fileno()})
        far.close()
        message = launched.receive()
    assert message
    assert message[:3] == (steps.FAIL, 1, error)


# ---- wait_command --------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(init_binary: Path) -> Iterator[tuple[Launched, socket.socket]]:
    """An `init` that waits for a command, and our end of the socket for that."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(SECONDS)
    line.settimeout(SECONDS)
    plan = plan_of(("wait_command", FIRST_SLOT)).encode({SYNC_SLOT: theirs.fileno(), FIRST_SLOT: far.fileno()})
    launched = Launched(spawn(init_binary, plan, (theirs.fileno(), far.fileno())), ours)
    theirs.close()
    far.close()
    message = launched.receive()
    assert message
    assert message[0] == steps.READY
    yield launched, line
    launched.process.kill()
    launched.process.communicate()
    ours.close()
    line.close()


def send_command(line: socket.socket, data: bytes, *, fds: int = 3, byte: bytes = b"c") -> int:
    """Our end of the command's output."""
    reader, writer = os.pipe()
    fd = memfd(data)
    try:
        socket.send_fds(line, [byte], [fd, *[writer] * fds])
    finally:
        os.close(fd)
        os.close(writer)
    return reader


def test_a_command_that_comes_later_gets_its_streams(waiting: tuple[Launched, socket.socket]) -> None:
    launched, line = waiting
    script = run_sh("pwd; echo $A; ls /proc/self/fd", ("A=b", "PATH=/bin"))
    plan = plan_of(("chdir", "/usr", 0), ("find", "sh", "/nowhere:/bin"), script)
    reader = send_command(line, plan.encode({}))
    assert line.recv(100) == b"", "it has been executed"
    with open(reader) as file:
        told = file.read().split()
    assert told[:2] == ["/usr", "b"]
    assert len(told) <= 6, "nothing but the three, and what ls opens"
    assert launched.process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("plan", "step", "error"),
    [
        ((("find", "no-such-program", "/bin"), run_sh("true")), 1, errno.ENOENT),
        ((("chdir", "/no/such/directory", 0), run_sh("true")), 1, errno.ENOENT),
        ((("find", "/etc/passwd", ""), run_sh("true")), 1, errno.EACCES),
    ],
)
def test_why_a_late_command_fails_is_told_to_its_sender(
    waiting: tuple[Launched, socket.socket], plan: tuple[tuple[object, ...], ...], step: int, error: int
) -> None:
    launched, line = waiting
    os.close(send_command(line, plan_of(*plan).encode({})))
    kind, number, value = steps.MESSAGE.unpack_from(line.recv(4096))
    assert (kind, number, value) == (steps.FAIL, step, error)
    assert launched.process.wait(SECONDS) == 125


@pytest.mark.parametrize(
    ("data", "fds", "byte"),
    [
        (b"", 3, b"c"),
        (b"x" * 1000, 3, b"c"),
        (plan_of(run_sh("true")).encode({})[:-1], 3, b"c"),
        (plan_of(run_sh("true")).encode({}), 2, b"c"),
        (plan_of(run_sh("true")).encode({}), 4, b"c"),
        (plan_of(run_sh("true")).encode({}), 200, b"c"),
        (plan_of(run_sh("true")).encode({}), 3, b"cc"),
        (plan_of(run_sh("true")).encode({}), 3, b"c" * 1000),
    ],
    ids=["empty", "no-plan", "cut", "two", "four", "200", "long", "longer"],
)
def test_what_is_no_command_is_refused(
    waiting: tuple[Launched, socket.socket], data: bytes, fds: int, byte: bytes
) -> None:
    launched, line = waiting
    os.close(send_command(line, data, fds=fds, byte=byte))
    kind, _, value = steps.MESSAGE.unpack_from(line.recv(4096))
    assert (kind, value) == (steps.FAIL, errno.EBADMSG)
    assert launched.process.wait(SECONDS) == 125


def test_without_a_sender_nothing_waits(waiting: tuple[Launched, socket.socket]) -> None:
    launched, line = waiting
    line.close()
    assert launched.process.wait(SECONDS) == 0


def test_idle_reaps_and_ends_when_told(init_binary: Path) -> None:
    own = os.open(init_binary, os.O_RDONLY)
    process = spawn(init_binary, plan_of(("idle", FIRST_SLOT)).encode({FIRST_SLOT: own}), (own,))
    os.close(own)
    try:
        deadline = time.monotonic() + SECONDS
        while b"--idle" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
        time.sleep(0.2)
        assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2"]
        for harmless in (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH):
            process.send_signal(harmless)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.terminate()
        assert process.wait(SECONDS) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
