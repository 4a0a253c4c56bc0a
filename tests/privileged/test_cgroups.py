"""Limits by their effects: plain processes in cgroups of the test's own, in whatever hierarchies this host has."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups
from runtime.cgroups import Cgroup, delegation, device_program, limits, oom, programs, stats, update
from runtime.cgroups.freezer import freeze, thaw
from runtime.errors import LaunchError, SpecError, StateError, UnsupportedError, WarrenError
from runtime.host import Host
from runtime.launch import Options, launch
from runtime.spec import Spec
from runtime.steps import LaunchPlan
from tests.helpers.host import require
from tests.helpers.oci import Bundle, Runtime

MIB = 1 << 20
PYTHON = os.path.realpath(sys.executable)


class Box:
    """A cgroup of the test's own, and processes in it."""

    def __init__(self, name: str, *, unified: bool = False, legacy: bool = False) -> None:
        self.host = Host.probe()
        spec = Spec({"linux": {"cgroupsPath": "/" + name}}, "/")
        self.cgroup = cgroups.for_container(spec, name, self.host)
        if unified:
            self.cgroup.legacy = {}
        if legacy:
            self.cgroup.unified = ""
        if not self.cgroup.directories():
            require("cgroup2-hugetlb" if unified else "cgroup1")
        self.children: list[subprocess.Popen[str]] = []
        self.cgroup.create()

    def has(self, controller: str) -> "Box":
        """Skips the test where no hierarchy has the controller."""
        if not limits.version(controller, self.host):
            require(f"cgroup2-{controller}")
        return self

    def limit(self, **resources: Any) -> None:
        config = {"linux": {"resources": resources}}
        cgroups.check(config, self.cgroup, self.host)
        self.cgroup.apply(config, self.host)
        self.cgroup.apply_late(config, self.host)

    def start(self, script: str, *arguments: object) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [PYTHON, "-I", "-S", "-c", script, *map(str, arguments)],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=self.join,
        )  # fmt: skip
        self.children.append(child)
        return child

    def run(self, script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        child = self.start(script, *arguments)
        out, err = child.communicate(timeout=30)
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def join(self) -> None:
        for path in self.cgroup.join_paths():
            Path(path).write_text("0")
        if self.cgroup.unified:
            Path(self.cgroup.unified, "cgroup.procs").write_text("0")

    def file(self, controller: str, name: str) -> Path:
        """A file of the cgroup, in the hierarchy that has the controller."""
        path = next((p for n, p in self.cgroup.legacy.items() if controller in n.split(",")), self.cgroup.unified)
        return Path(path, name)

    def close(self) -> None:
        self.cgroup.kill()
        for child in self.children:
            child.communicate()
        self.cgroup.remove()


@pytest.fixture
def new_box(token: str) -> Iterator[Callable[..., Box]]:
    """Makes any number; `unified` as on a host without v1, `legacy` as on one without v2."""
    boxes: list[Box] = []

    def make(**kind: bool) -> Box:
        boxes.append(Box(f"wrn-test-{token}-{len(boxes)}", **kind))
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()


@pytest.fixture
def box(new_box: Callable[..., Box]) -> Box:
    return new_box()


# ---- memory

GREEDY = "import sys; held = bytearray(int(sys.argv[1])); print(len(held))"


def test_a_process_over_its_memory_is_killed_and_that_is_told(box: Box) -> None:
    box.has("memory").limit(memory={"limit": 32 * MIB, "swap": 32 * MIB})
    assert box.run(GREEDY, 4 * MIB).stdout == f"{4 * MIB}\n"
    watch = oom.OomWatch(box.cgroup)
    try:
        assert watch.wait(0) == 0
        assert box.run(GREEDY, 64 * MIB).returncode == -signal.SIGKILL
        assert watch.wait(5) == 1
        assert watch.wait(0) == 0
    finally:
        watch.close()
    reading = stats.read_stats(box.cgroup).memory
    assert reading
    assert (reading.limit, reading.oom_kills) == (32 * MIB, 1)
    assert 8 * MIB < reading.peak <= 32 * MIB


def test_a_watch_ends_with_its_cgroup(box: Box) -> None:
    watch = oom.OomWatch(box.cgroup)
    try:
        box.cgroup.remove()
        assert watch.wait(5) == 0
    finally:
        watch.close()


def test_memory_is_read_by_kind(box: Box) -> None:
    child = box.start("held = bytearray(b'x' * (20 << 20)); print('ready', flush=True); input()")
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    reading = stats.read_stats(box.cgroup).memory
    assert reading
    assert 20 * MIB <= reading.anon <= reading.current < 60 * MIB
    assert reading.working_set <= reading.current
    assert (reading.limit, reading.swap_limit, reading.swap) == (stats.UNLIMITED, stats.UNLIMITED, 0)


# ---- processes

BOMB = """
import posix, time
children = 0
try:
    for _ in range(1000):
        if posix.fork() == 0:
            time.sleep(60)
            posix._exit(0)
        children += 1
except BlockingIOError:
    pass
print(children, flush=True)
time.sleep(60)
"""


def test_a_fork_bomb_stops_at_the_limit(box: Box) -> None:
    box.has("pids").limit(pids={"limit": 20})
    child = box.start(BOMB)
    assert child.stdout
    assert child.stdout.readline() == "19\n"
    assert subprocess.run(["true"]).returncode == 0
    reading = stats.read_stats(box.cgroup).pids
    assert reading
    assert (reading.current, reading.limit) == (20, 20)
    assert reading.failures >= 1
    assert len(box.cgroup.processes()) == 20
    box.cgroup.kill()
    child.wait(10)


def test_no_process_at_all_is_a_limit(box: Box) -> None:
    """A process may still be put in; it may not fork."""
    box.has("pids").limit(pids={"limit": 0})
    script = "import posix\ntry:\n    posix.fork()\nexcept BlockingIOError:\n    print('refused')"
    assert box.run(script).stdout == "refused\n"


# ---- cpu

SPIN = """
import sys, time
sys.stdin.readline()
end, before = time.monotonic() + float(sys.argv[1]), time.process_time()
while time.monotonic() < end:
    pass
print(time.process_time() - before)
"""


def test_a_fifth_of_a_processor_is_a_fifth(box: Box) -> None:
    box.has("cpu").limit(cpu={"quota": 20000, "period": 100000})
    seconds = 3.0
    before = stats.read_stats(box.cgroup).cpu
    used = float(box.run(SPIN, seconds).stdout)
    after = stats.read_stats(box.cgroup).cpu
    assert before
    assert after
    assert 17 <= 100 * used / seconds <= 23
    assert (after.usage - before.usage) / 1e9 == pytest.approx(used, abs=0.3)
    assert after.user + after.system == pytest.approx(after.usage, rel=0.3)  # Sampled by the tick.
    assert after.throttled_periods > before.throttled_periods
    assert after.throttled / 1e9 > seconds / 2
    assert after.periods >= after.throttled_periods


def test_shares_divide_what_is_wanted_twice(new_box: Callable[..., Box]) -> None:
    """Both on one processor."""
    boxes = new_box(), new_box()
    one = {"cpus": "0"} if os.cpu_count() != 1 else {}
    for box, shares in zip(boxes, (3072, 1024), strict=True):
        box.has("cpu").has("cpuset" if one else "cpu").limit(cpu={"shares": shares, **one})
    children = [box.start(SPIN, 2) for box in boxes]
    time.sleep(1)  # Both have started, and wait for their line.
    for child in children:
        child.stdin.write("\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
    big, small = [float(child.communicate(timeout=30)[0]) for child in children]
    # Others use the machine, too.
    assert 2 < big / small < 4.5


def test_processors_are_those_of_the_list(box: Box) -> None:
    box.has("cpuset").limit(cpu={"cpus": "0", "mems": "0"})
    assert box.run("import posix; print(posix.sched_getaffinity(0))").stdout == "{0}\n"


# ---- input and output


def test_writing_is_throttled(box: Box, directory: Path) -> None:
    device = os.stat(directory).st_dev
    disk = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not disk.exists():
        require("disk")
    if (disk / "partition").exists():
        device = os.makedev(*map(int, (disk.resolve().parent / "dev").read_text().split(":")))
    rate = [{"major": os.major(device), "minor": os.minor(device), "rate": 4 * MIB}]
    box.has("io").limit(blockIO={"throttleWriteBpsDevice": rate})
    script = """
import mmap, posix, sys, time
fd = posix.open(sys.argv[1], posix.O_WRONLY | posix.O_CREAT | 0o40000)  # O_DIRECT
page, start = mmap.mmap(-1, 1 << 20), time.monotonic()
for _ in range(8):
    posix.write(fd, page)
print(time.monotonic() - start)
"""
    done = box.run(script, directory / "file")
    assert 1.4 < float(done.stdout) < 4, done.stderr
    reading = stats.read_stats(box.cgroup).io
    assert reading
    assert sum(entry.written for entry in reading) >= 8 * MIB


# ---- devices

TRY = """
import posix, sys
for path in sys.argv[1:]:
    for mode in (posix.O_RDONLY, posix.O_WRONLY, posix.O_RDWR):
        try:
            posix.close(posix.open(path, mode | posix.O_NONBLOCK))
            print(path, mode, "yes")
        except OSError as error:
            print(path, mode, error.strerror)
"""


def tried(box: Box, *paths: str) -> dict[tuple[str, int], str]:
    lines = [line.split(" ", 2) for line in box.run(TRY, *paths).stdout.splitlines()]
    return {(path, int(mode)): result for path, mode, result in lines}


RULES = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
    {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"},
]


def make_node(directory: Path, name: str, major: int, minor: int) -> str:
    os.mknod(directory / name, 0o20666, os.makedev(major, minor))
    return str(directory / name)


def check_devices(box: Box, directory: Path) -> None:
    kmsg, fuse = make_node(directory, "kmsg", 1, 11), make_node(directory, "fuse", 10, 229)
    answers = tried(box, "/dev/null", "/dev/zero", "/dev/full", "/dev/random", kmsg, fuse)
    # What every container may use is laid over the rules (runc does so, too).
    assert {answers[path, mode] for path in ("/dev/null", "/dev/zero", "/dev/random") for mode in range(3)} == {"yes"}
    assert [answers[kmsg, mode] for mode in range(3)] == ["yes", "Operation not permitted", "Operation not permitted"]
    assert {answers[fuse, mode] for mode in range(3)} == {"Operation not permitted"}
    assert box.run("import os, sys; os.mknod(sys.argv[1], 0o20600, 1034)", directory / "made").returncode == 0


def test_devices_by_the_hierarchy_that_has_them(box: Box, directory: Path) -> None:
    box.limit(devices=RULES)
    if not box.cgroup.legacy:
        programs.replace(box.cgroup.unified, device_program.assemble(RULES))
    check_devices(box, directory)


def test_devices_by_a_program(new_box: Callable[..., Box], directory: Path) -> None:
    box = new_box(unified=True)
    programs.replace(box.cgroup.unified, device_program.assemble(RULES))
    check_devices(box, directory)


def test_init_attaches_the_program_before_the_process_exists(new_box: Callable[..., Box], directory: Path) -> None:
    box = new_box(unified=True)
    fuse = make_node(directory, "fuse", 10, 229)
    said = by_init(box, device_program.assemble(RULES), directory, f"exec 2>&1; : </dev/zero && echo zero; : <{fuse}")
    assert said == f"zero\nsh: 1: cannot open {fuse}: Operation not permitted\n"


def test_init_tells_what_the_verifier_said(new_box: Callable[..., Box], directory: Path) -> None:
    box = new_box(unified=True)
    no_answer = device_program.assemble(RULES)[:-16] + bytes([0x95, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(LaunchError, match=r"step 2: attach device program .*BPF_PROG_LOAD: R0 !read_ok"):
        by_init(box, no_answer, directory, "true")
    with pytest.raises(WarrenError, match="BPF_PROG_LOAD: EACCES: R0 !read_ok"):
        programs.replace(box.cgroup.unified, no_answer)


def by_init(box: Box, program: bytes, directory: Path, script: str) -> str:
    plan = LaunchPlan()
    plan.add("open_path", plan.slot(), box.cgroup.unified, 0o200000)
    plan.add("device_program", 5, program)
    plan.add("clone", 0, 5)
    plan.add("find", "sh", "/bin")
    plan.add("exec", ["sh", "-c", script], [], 0)
    with open(directory / "out", "w+") as out:
        pid = launch(plan, {}, Options(stdio=(0, out.fileno(), 2)), lambda *_: "")
        os.waitpid(pid, 0)
        return Path(out.name).read_text()


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_the_verifier_takes_programs_of_every_size(new_box: Callable[..., Box], count: int) -> None:
    rules = [
        {
            "allow": bool(n % 3),
            "type": "cb"[n % 2],
            "major": n % 4000,
            "minor": n if n % 5 else -1,
            "access": "rwm"[n % 4 :],
        }
        for n in range(count)
    ]
    programs.replace(new_box(unified=True).cgroup.unified, device_program.assemble(rules))


def test_a_program_is_replaced_at_once(new_box: Callable[..., Box], directory: Path) -> None:
    """What both programs allow is allowed all the time, what both deny never."""
    box = new_box(unified=True)
    kmsg, fuse = make_node(directory, "kmsg", 1, 11), make_node(directory, "fuse", 10, 229)
    other = [RULES[0], {"allow": True, "type": "b"}, RULES[1]]
    box.limit(devices=[])
    programs.replace(box.cgroup.unified, device_program.assemble(RULES))
    script = """
import posix, sys, time
wrong, end = [], time.monotonic() + 1
print("ready", flush=True)
while time.monotonic() < end:
    try:
        posix.close(posix.open(sys.argv[1], posix.O_RDONLY | posix.O_NONBLOCK))
    except OSError as error:
        wrong.append(error)
    try:
        posix.close(posix.open(sys.argv[2], posix.O_RDONLY | posix.O_NONBLOCK))
        wrong.append("open")
    except PermissionError:
        pass
print(wrong)
"""
    child = box.start(script, kmsg, fuse)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    for number in range(100):
        programs.replace(box.cgroup.unified, device_program.assemble((RULES, other)[number % 2]))
    assert child.communicate(timeout=10)[0] == "[]\n"
    fd = os.open(box.cgroup.unified, os.O_RDONLY)
    assert len(programs.attached(fd)) == 1
    os.close(fd)


def test_an_update_changes_the_devices(box: Box, directory: Path) -> None:
    fuse = make_node(directory, "fuse", 10, 229)
    box.limit(devices=RULES)
    new = [*RULES, {"allow": True, "type": "c", "major": 10, "minor": 229}]
    update.update(box.cgroup, {"devices": RULES}, {"devices": new}, box.host)
    assert tried(box, fuse)[fuse, os.O_RDONLY] != "Operation not permitted"
    update.update(box.cgroup, {"devices": new}, {"devices": RULES}, box.host)
    assert tried(box, fuse)[fuse, os.O_RDONLY] == "Operation not permitted"
    assert not box.cgroup.frozen()


# ---- freezing

COUNT = """
import sys, time
while True:
    sys.stdout.write("x"); sys.stdout.flush(); time.sleep(0.01)
"""


def written(child: "subprocess.Popen[str]", seconds: float) -> int:
    """Bytes that come within that time, those that are there already not among them."""
    assert child.stdout
    os.set_blocking(child.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        os.read(child.stdout.fileno(), 1 << 20)
    time.sleep(seconds)
    try:
        return len(os.read(child.stdout.fileno(), 1 << 20))
    except BlockingIOError:
        return 0


@pytest.mark.parametrize("kind", ["unified", "legacy"])
def test_what_is_frozen_does_not_run(new_box: Callable[..., Box], kind: str) -> None:
    box = new_box(unified=kind == "unified", legacy=kind == "legacy")
    child = box.start(COUNT)
    assert child.stdout
    assert child.stdout.read(1) == "x"
    freeze(box.cgroup)
    assert box.cgroup.frozen()
    assert written(child, 0.3) == 0
    thaw(box.cgroup)
    assert not box.cgroup.frozen()
    assert written(child, 0.3) > 5
    freeze(box.cgroup)
    freeze(box.cgroup)
    box.cgroup.kill()
    assert child.wait(10) == -signal.SIGKILL


def test_what_does_not_freeze_in_time_is_thawed(tmp_path: Path) -> None:
    """A directory stands for the cgroup: nothing that can be made here resists freezing for long."""
    for name, text in (("cgroup.freeze", "0"), ("cgroup.events", "populated 1\nfrozen 0\n"), ("freezer.state", "")):
        (tmp_path / name).write_text(text)
    for stubborn in (Cgroup(str(tmp_path), {}), Cgroup("", {"freezer": str(tmp_path)})):
        (tmp_path / "freezer.state").unlink()
        (tmp_path / "freezer.state").symlink_to("/dev/null")
        with pytest.raises(StateError, match="cannot be frozen"):
            freeze(stubborn, seconds=0.05)
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


# ---- update


def test_an_update_raises_and_lowers_memory_in_the_right_order(box: Box) -> None:
    def now() -> tuple[str, str]:
        names = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
        if "memory" not in box.cgroup.legacy:
            names = "memory.max", "memory.swap.max"
        return tuple(box.file("memory", name).read_text().strip() for name in names)  # type: ignore[return-value]

    sizes = [(32, 64), (128, 256), (16, 32), (40, 40), (256, 256), (20, 300)]
    resources = {"memory": {"limit": 50 * MIB, "swap": 60 * MIB}}
    box.limit(**resources)
    for limit, both in sizes:
        new = {"memory": {"limit": limit * MIB, "swap": both * MIB}}
        resources = update.update(box.cgroup, resources, new, box.host)
        swap = both if "memory" in box.cgroup.legacy else both - limit
        assert now() == (str(limit * MIB), str(swap * MIB))
    update.update(box.cgroup, resources, {"memory": {"limit": -1, "swap": -1}}, box.host)
    assert now() == ("max", "max") or int(now()[0]) > 1 << 62


def test_an_update_is_all_or_nothing(box: Box) -> None:
    old: dict[str, Any] = {
        "memory": {"limit": 64 * MIB},
        "pids": {"limit": 10},
        "cpu": {"quota": 50000, "period": 100000},
    }
    box.has("memory").has("pids").has("cpu").limit(**old)

    def now() -> list[str]:
        files = [path for part in box.cgroup.directories() for path in sorted(Path(part).iterdir())]
        names = ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max")
        return [path.read_text() for path in files if path.name in names]

    before = now()
    assert len(before) == 3
    # A file that the kernel has not, or has and will not take this from: found out when the rest has been written.
    new = {"memory": {"limit": 128 * MIB}, "pids": {"limit": 20}, "cpu": {"quota": 20000}}
    bad = {"unified": {"cgroup.max.depth": "deep"}} if box.cgroup.unified else {"cpu": {"cpus": "0,8000"}}
    with pytest.raises(SpecError, match="the kernel does not take this value"):
        update.update(box.cgroup, old, {**new, **bad}, box.host)
    assert now() == before
    with pytest.raises(SpecError, match=r"memory\.swap"):
        update.update(box.cgroup, old, {"pids": {"limit": 20}, "memory": {"swap": 1}}, box.host)
    assert now() == before
    update.update(box.cgroup, old, new, box.host)
    assert now() != before


def test_burst_and_quota_bound_each_other(box: Box) -> None:
    old: dict[str, Any] = {"cpu": {"quota": 20000, "burst": 20000}}
    box.limit(**old)
    for quota in (5000, 90000, 1000):
        old = update.update(box.cgroup, old, {"cpu": {"quota": quota, "burst": quota}}, box.host)
    name = "cpu.cfs_burst_us" if box.cgroup.legacy else "cpu.max.burst"
    assert box.file("cpu", name).read_text() == "1000\n"


def test_check_before_update_spares_who_uses_more(box: Box) -> None:
    old = {"memory": {"limit": 100 * MIB}}
    box.limit(**old)
    child = box.start("held = bytearray(b'x' * (30 << 20)); print('ready', flush=True); input()")
    assert child.stdout
    child.stdout.readline()
    with pytest.raises(SpecError, match="less than is in use"):
        update.update(box.cgroup, old, {"memory": {"limit": 16 * MIB, "checkBeforeUpdate": True}}, box.host)
    assert child.poll() is None


def test_a_value_that_the_kernel_refuses_is_one_line(box: Box) -> None:
    if not box.host.cgroup_unified:
        require("cgroup2-hugetlb")
    with pytest.raises(SpecError, match=r"unified.cgroup.max.depth: cgroup.max.depth = deep: the kernel does not take"):
        box.limit(unified={"cgroup.max.depth": "deep"})
    with pytest.raises(UnsupportedError, match=r"unified.cgroup.magic.*no such file"):
        box.limit(unified={"cgroup.magic": "1"})
    box.limit(unified={"cgroup.max.depth": "3"})
    assert Path(box.cgroup.unified, "cgroup.max.depth").read_text() == "3\n"


# ---- the v2 tree


def test_controllers_are_handed_down(box: Box) -> None:
    """Only those that are needed, through parents that were made for it."""
    name = next((n for n in box.host.cgroup_controllers), "")
    if not name:
        require("cgroup2-hugetlb")
    top = Path(box.cgroup.unified)
    (top / "middle/leaf").mkdir(parents=True)
    try:
        delegation.enable(f"{top}/middle/leaf", box.host.cgroup_unified, {name})
        for directory in (top, top / "middle"):
            assert (directory / "cgroup.subtree_control").read_text().split() == [name]
        assert (top / "middle/leaf/cgroup.subtree_control").read_text().split() == []
    finally:
        (top / "middle/leaf").rmdir()
        (top / "middle").rmdir()


def test_a_parent_with_processes_is_left_as_it_is(box: Box) -> None:
    """For controllers that account whole processes; those of threads (cpu, pids) may be enabled above them."""
    name = next((n for n in ("hugetlb", "memory", "io") if n in box.host.cgroup_controllers), "")
    if not name:
        require("cgroup2-hugetlb")
    top = Path(box.cgroup.unified)
    (top / "leaf").mkdir()
    try:
        box.start("input()")
        with pytest.raises(StateError, match="it has processes of its own"):
            delegation.enable(f"{top}/leaf", box.host.cgroup_unified, {name})
        with pytest.raises(UnsupportedError, match="does not pass them on"):
            delegation.enable(f"{top}/leaf/x", str(top / "leaf"), {name})
    finally:
        (top / "leaf").rmdir()


def test_huge_pages_are_limited(box: Box) -> None:
    box.has("hugetlb").limit(hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MIB}])
    files = [path for part in box.cgroup.directories() for path in Path(part).glob("hugetlb.2MB*")]
    found = {path.name: path.read_text() for path in files if path.name.endswith(("max", "limit_in_bytes"))}
    assert set(found.values()) == {f"{4 * MIB}\n"}
    assert stats.read_stats(box.cgroup).hugetlb["2MB"].usage == 0
    with pytest.raises(UnsupportedError, match="no such file"):
        box.limit(hugepageLimits=[{"pageSize": "3MB", "limit": 1}])


def test_the_containers_root_may_make_cgroups_of_its_own(new_box: Callable[..., Box]) -> None:
    box = new_box(unified=True)
    config = {
        "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["rw"]}],
        "linux": {
            "namespaces": [{"type": "user"}, {"type": "cgroup"}],
            "uidMappings": [{"containerID": 0, "hostID": 70000, "size": 1}],
        },
    }
    box.cgroup.give_to_container(config)
    top = Path(box.cgroup.unified)
    owned = {path.name for path in top.iterdir() if path.stat().st_uid == 70000}
    assert {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} <= owned
    assert not {"cgroup.freeze", "cgroup.kill", "cgroup.max.depth", "hugetlb.2MB.max"} & owned
    assert top.stat().st_uid == 70000
    assert top.stat().st_gid == 0


# ---- polling


def test_readings_go_on_until_the_end(box: Box) -> None:
    reader = stats.Reader(box.cgroup, full=True)
    try:
        assert reader.read().cpu
        box.run(SPIN, 0.3)
        cpu = reader.read().cpu
        assert cpu
        assert cpu.usage > 0.2e9
        box.cgroup.remove()
        gone = reader.read()
        assert gone.cpu is None or gone.cpu.usage == 0
    finally:
        reader.close()
    assert set(stats.Reader(box.cgroup)._fds) == set()


def test_a_reading_is_a_few_system_calls(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand containers a second may take a tenth of a processor: 100 microseconds each; a call takes two."""
    calls = 0

    def counted(fd: int, size: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        return os.pread(fd, size, offset)

    reader = stats.Reader(box.cgroup)
    reader.read()
    monkeypatch.setattr("runtime.cgroups.stats.posix.pread", counted)
    monkeypatch.setattr("runtime.cgroups.stats.posix.open", None)
    reader.read()
    reader.close()
    assert 0 < calls <= 16


# ---- containers


def test_a_container_is_held_by_what_its_state_says(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"].update(memory={"limit": 48 * MIB}, pids={"limit": 33}, cpu={"quota": 50000})
    container = oci.up(bundle)
    enforced = container.state()["enforced"]
    assert {"memory.limit", "pids.limit", "cpu.quota", "devices"} <= set(enforced)
    held = cgroups.of_process(container.pid, Host.probe())
    found = stats.read_stats(held)
    assert found.memory
    assert found.pids
    assert (found.memory.limit, found.pids.limit) == (48 * MIB, 33)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": {"limit": -7}}, "linux.resources.memory.limit: must be"),
        ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "linux.resources.memory.swap"),
        ({"rdma": {"none": {"hcaHandles": 1}}}, "linux.resources.rdma.none: this host has no rdma controller"),
        ({"unified": {"cgroup.kill": "1"}}, "linux.resources.unified: cgroup.kill is no limit"),
        ({"cpu": {"cpus": "5-3"}}, "linux.resources.cpu.cpus"),
    ],
)
def test_bad_limits_leave_nothing(oci: Runtime, bundle: Bundle, resources: dict[str, Any], words: str) -> None:
    bundle.linux["resources"].update(resources)
    oci.refuses(bundle, words)
