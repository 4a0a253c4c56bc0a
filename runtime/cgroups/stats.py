"""What a container uses, as typed values: CPU, memory, processes, I/O, huge pages and pressure, from v2 or v1 files.

Made for polling: a Reader keeps its files open and reads each with one pread(2), so that a thousand containers a second
cost a few per cent of a core.
"""

import posix
from errno import ENODEV, ENOENT, EOPNOTSUPP

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Cgroup

UNLIMITED = -1
"""A limit that there is not."""
_V1_UNLIMITED = 1 << 62
"""v1 says "none" as the largest multiple of a page below 2^63."""
_SIZE = 1 << 16
CPUSET = (
    "cpus", "cpu_exclusive", "mems", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
    "memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


class CpuStats:
    """All times in nanoseconds."""

    __slots__ = (
        "per_cpu", "per_cpu_system", "per_cpu_user", "periods", "system", "throttled", "throttled_periods", "usage",
        "user",
    )  # fmt: skip

    def __init__(self) -> None:
        self.usage = 0
        self.user = 0
        self.system = 0
        self.periods = 0
        """Periods of the quota that have begun, of which it ran out in `throttled_periods`, for `throttled` in all."""
        self.throttled_periods = 0
        self.throttled = 0
        self.per_cpu: list[int] = []
        """Usage by processor, this and the next two; v1 only."""
        self.per_cpu_user: list[int] = []
        self.per_cpu_system: list[int] = []


class MemoryStats:
    """All in bytes; limits are UNLIMITED where there is none."""

    __slots__ = (
        "anon", "current", "failures", "file", "kernel", "kernel_peak", "limit", "oom", "oom_kills", "peak", "raw",
        "shmem", "swap", "swap_limit", "swap_peak", "working_set",
    )  # fmt: skip

    def __init__(self) -> None:
        self.current = 0
        self.peak = 0
        """0 where the kernel does not keep it (v2 before Linux 5.19)."""
        self.limit = UNLIMITED
        self.working_set = 0
        """What cannot be dropped without being missed: `current` without the file pages that nobody has used lately."""
        self.anon = 0
        self.file = 0
        self.shmem = 0
        """Part of `file`."""
        self.kernel = 0
        self.kernel_peak = 0
        self.swap_peak = 0
        """Of memory and swap together; this and the one before v1 only."""
        self.swap = 0
        """Swap alone, in both versions."""
        self.swap_limit = UNLIMITED
        self.failures = 0
        """How often the limit was hit; recent kernels (6.18) do not count it in v1."""
        self.oom = 0
        """How often nothing could be reclaimed; v2 only."""
        self.oom_kills = 0
        self.raw: dict[str, int] = {}
        """memory.stat as the kernel words it."""


class PidsStats:
    """`failures` are forks that the limit forbade."""

    __slots__ = ("current", "failures", "limit")

    def __init__(self) -> None:
        self.current = 0
        self.limit = UNLIMITED
        self.failures = 0


class DeviceIo:
    """One block device, in bytes and operations."""

    __slots__ = ("discarded", "major", "minor", "read", "reads", "writes", "written")

    def __init__(self, major: int, minor: int) -> None:
        self.major = major
        self.minor = minor
        self.read = 0
        self.written = 0
        self.discarded = 0
        self.reads = 0
        self.writes = 0


class HugetlbStats:
    """One size of pages, in bytes; `failures` are allocations that the limit forbade."""

    __slots__ = ("failures", "peak", "usage")

    def __init__(self, usage: int = 0, peak: int = 0, failures: int = 0) -> None:
        self.usage = usage
        self.peak = peak
        self.failures = failures


class Pressure:
    """Pressure stall information (psi.rst) of one resource: shares of time in percent over 10, 60 and 300 seconds, and
    the total in microseconds, in which `some` or all (`full`) tasks were waiting."""

    __slots__ = ("full", "some")

    def __init__(self, text: str) -> None:
        lines = {words[0]: words[1:] for words in map(str.split, text.splitlines()) if words}
        self.some = _stall(lines.get("some"))
        self.full = _stall(lines.get("full"))


class Stats:
    """A reading; `None` for what no hierarchy of the container accounts."""

    __slots__ = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids", "pressure")

    def __init__(self) -> None:
        self.cpu: CpuStats | None = None
        self.memory: MemoryStats | None = None
        self.pids: PidsStats | None = None
        self.io: list[DeviceIo] | None = None
        self.hugetlb: dict[str, HugetlbStats] = {}
        self.cpuset: dict[str, str] = {}
        """Files of a v1 cpuset, without "cpuset."."""
        self.pressure: dict[str, Pressure] = {}
        """By "cpu", "memory", "io"; v2 only, and only where the kernel accounts it."""


class Reader:
    """Reads one container again and again; `close()` it.  When the container is gone, everything that it reads is 0.

    With `full`, what is rarely asked for, too: use by processor, huge pages and pressure.  Files that were not there at
    first are not looked for again.
    """

    __slots__ = ("_absent", "_fds", "_full", "_legacy", "_sizes", "_unified")

    def __init__(self, cgroup: "Cgroup", *, full: bool = False) -> None:
        names = ("memory", "cpu", "cpuacct", "pids", "blkio", "hugetlb", "cpuset")
        legacy = {name: cgroup.legacy.get(files.hierarchy(cgroup.legacy, name), "") for name in names}
        self._legacy = {name: path for name, path in legacy.items() if path}
        self._unified = cgroup.unified
        self._full = full
        self._fds: dict[str, int] = {}
        self._absent: set[str] = set()
        self._sizes = self._page_sizes() if full else []

    def read(self) -> Stats:
        stats = Stats()
        stats.cpu = self._cpu_v1() if "cpuacct" in self._legacy else self._cpu_v2() if self._unified else None
        stats.memory = self._memory_v1() if "memory" in self._legacy else self._memory_v2()
        stats.pids = self._pids()
        stats.io = self._io_v1() if "blkio" in self._legacy else self._io_v2()
        if self._full:
            stats.hugetlb = self._hugetlb()
            stats.pressure = self._pressure()
            stats.cpuset = self._cpuset()
        return stats

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in self._fds.values():
            posix.close(fd)
        self._fds.clear()

    # ---- files

    def _text(self, path: str) -> bytes:
        """The file, b"" where there is none."""
        if path in self._absent:
            return b""
        try:
            fd = self._fds[path] if path in self._fds else self._open(path)
            text = posix.pread(fd, _SIZE, 0)
        except OSError as error:
            if error.errno not in (ENOENT, ENODEV, EOPNOTSUPP):
                raise
            self._absent.add(path)
            return b""
        if path not in self._fds:
            posix.close(fd)
        return text

    def _open(self, path: str) -> int:
        """Open it, and keep it open while that leaves this process an eighth of the descriptors that it may have."""
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        if fd < _spare_descriptors():
            self._fds[path] = fd
        return fd

    def _number(self, path: str, nothing: int = 0) -> int:
        """A single number; `nothing` for "max" and where there is no file."""
        text = self._text(path).strip()
        return int(text) if text.isdigit() else nothing

    def _words(self, path: str) -> "dict[str, int]":
        words = self._text(path).decode().split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=False))

    # ---- cpu

    def _cpu_v2(self) -> CpuStats:
        found, cpu = self._words(self._unified + "/cpu.stat").get, CpuStats()
        cpu.usage, cpu.user = found("usage_usec", 0) * 1000, found("user_usec", 0) * 1000
        cpu.system = found("system_usec", 0) * 1000
        cpu.periods, cpu.throttled_periods = found("nr_periods", 0), found("nr_throttled", 0)
        cpu.throttled = found("throttled_usec", 0) * 1000
        if "cpu" in self._legacy:
            self._throttling_v1(cpu)
        return cpu

    def _cpu_v1(self) -> CpuStats:
        """cpuacct.usage_user and _sys are nanoseconds; cpuacct.stat would be ticks of 10 milliseconds."""
        path, cpu = self._legacy["cpuacct"], CpuStats()
        cpu.usage = self._number(path + "/cpuacct.usage")
        cpu.user = self._number(path + "/cpuacct.usage_user")
        cpu.system = self._number(path + "/cpuacct.usage_sys")
        if self._full:
            cpu.per_cpu = list(map(int, self._text(path + "/cpuacct.usage_percpu").split()))
            rows = [line.split() for line in self._text(path + "/cpuacct.usage_all").splitlines()[1:]]
            cpu.per_cpu_user, cpu.per_cpu_system = [int(row[1]) for row in rows], [int(row[2]) for row in rows]
        if "cpu" in self._legacy:
            self._throttling_v1(cpu)
        return cpu

    def _throttling_v1(self, cpu: CpuStats) -> None:
        found = self._words(self._legacy["cpu"] + "/cpu.stat").get
        cpu.periods, cpu.throttled_periods = found("nr_periods", 0), found("nr_throttled", 0)
        cpu.throttled = found("throttled_time", 0)

    # ---- memory

    def _memory_v2(self) -> "MemoryStats | None":
        path, memory = self._unified, MemoryStats()
        raw = self._words(path + "/memory.stat") if path else {}
        if not raw:
            return None
        events = self._words(path + "/memory.events")
        memory.raw = raw
        memory.current = self._number(path + "/memory.current")
        memory.peak = self._number(path + "/memory.peak")
        memory.limit = self._number(path + "/memory.max", UNLIMITED)
        memory.working_set = max(0, memory.current - raw.get("inactive_file", 0))
        memory.anon, memory.file, memory.shmem = raw.get("anon", 0), raw.get("file", 0), raw.get("shmem", 0)
        memory.kernel = raw.get("kernel", 0)
        memory.swap = self._number(path + "/memory.swap.current")
        memory.swap_limit = self._number(path + "/memory.swap.max", UNLIMITED)
        memory.failures, memory.oom = events.get("max", 0), events.get("oom", 0)
        memory.oom_kills = events.get("oom_kill", 0)
        return memory

    def _memory_v1(self) -> "MemoryStats | None":
        path, memory = self._legacy["memory"], MemoryStats()
        memory.raw = raw = self._words(path + "/memory.stat")
        memory.current = self._number(path + "/memory.usage_in_bytes")
        memory.peak = self._number(path + "/memory.max_usage_in_bytes")
        memory.limit = _v1_limit(raw.get("hierarchical_memory_limit", 0))
        memory.working_set = max(0, memory.current - raw.get("total_inactive_file", 0))
        memory.anon, memory.file = raw.get("total_rss", 0), raw.get("total_cache", 0)
        memory.shmem, memory.swap = raw.get("total_shmem", 0), raw.get("total_swap", 0)
        memory.kernel = self._number(path + "/memory.kmem.usage_in_bytes")
        both = _v1_limit(raw.get("hierarchical_memsw_limit", 0))
        memory.swap_limit = both - memory.limit if both >= 0 and memory.limit >= 0 else UNLIMITED
        memory.failures = self._number(path + "/memory.failcnt")
        if self._full:
            memory.kernel_peak = self._number(path + "/memory.kmem.max_usage_in_bytes")
            memory.swap_peak = self._number(path + "/memory.memsw.max_usage_in_bytes")
        memory.oom_kills = self._words(path + "/memory.oom_control").get("oom_kill", 0)
        return memory

    # ---- the rest

    def _pids(self) -> "PidsStats | None":
        """The same files in both versions."""
        path, pids = self._legacy.get("pids") or self._unified, PidsStats()
        current = self._text(path + "/pids.current") if path else b""
        if not current:
            return None
        pids.current = int(current)
        pids.limit = self._number(path + "/pids.max", UNLIMITED)
        pids.failures = self._words(path + "/pids.events").get("max", 0)
        return pids

    def _io_v2(self) -> "list[DeviceIo] | None":
        """io.stat: a line a device, `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`."""
        if not self._unified or not self._exists(self._unified + "/io.stat"):
            return None
        found = []
        for line in self._text(self._unified + "/io.stat").decode().splitlines():
            device, *pairs = line.split()
            # Loop devices without any traffic have a number and nothing else.
            values = dict([pair.split("=", 1) for pair in pairs if "=" in pair])
            if values and ":" in device:
                found.append(_device_io(device, values))
        return found

    def _io_v1(self) -> "list[DeviceIo]":
        """Of the throttling layer, which sees all I/O whatever the scheduler (blkio-controller.rst)."""
        devices: dict[str, DeviceIo] = {}
        fields = {"Read": ("read", "reads"), "Write": ("written", "writes"), "Discard": ("discarded", "")}
        for column, name in enumerate(("io_service_bytes", "io_serviced")):
            text = self._text(f"{self._legacy['blkio']}/blkio.throttle.{name}_recursive")
            for words in map(bytes.split, text.splitlines()):
                if len(words) != 3 or words[1].decode() not in fields:
                    continue
                number, field = words[0].decode(), fields[words[1].decode()][column]
                device = devices.setdefault(number, DeviceIo(*map(int, number.split(":"))))
                if field:
                    setattr(device, field, int(words[2]))
        return list(devices.values())

    def _exists(self, path: str) -> bool:
        self._text(path)
        return path not in self._absent

    def _page_sizes(self) -> "list[str]":
        path = self._legacy.get("hugetlb") or self._unified
        ending = ".usage_in_bytes" if "hugetlb" in self._legacy else ".current"
        try:
            names = posix.listdir(path) if path else []
        except OSError:
            names = []
        sizes = [name.split(".")[1] for name in names if name.startswith("hugetlb.") and name.endswith(ending)]
        return sorted(set(sizes))

    def _hugetlb(self) -> "dict[str, HugetlbStats]":
        found = {}
        for size in self._sizes:
            if path := self._legacy.get("hugetlb"):
                at = f"{path}/hugetlb.{size}."
                numbers = [self._number(at + name) for name in ("usage_in_bytes", "max_usage_in_bytes", "failcnt")]
                found[size] = HugetlbStats(*numbers)
            else:
                at = f"{self._unified}/hugetlb.{size}."
                found[size] = HugetlbStats(self._number(at + "current"), 0, self._words(at + "events").get("max", 0))
        return found

    def _cpuset(self) -> "dict[str, str]":
        path = self._legacy.get("cpuset")
        return {name: self._text(f"{path}/cpuset.{name}").decode().strip() for name in CPUSET} if path else {}

    def _pressure(self) -> "dict[str, Pressure]":
        texts = {name: self._text(f"{self._unified}/{name}.pressure") for name in ("cpu", "memory", "io")}
        return {name: Pressure(text.decode()) for name, text in texts.items() if text} if self._unified else {}


def read_stats(cgroup: "Cgroup") -> Stats:
    """One full reading."""
    reader = Reader(cgroup, full=True)
    try:
        return reader.read()
    finally:
        reader.close()


def _spare_descriptors() -> int:
    from resource import RLIMIT_NOFILE, getrlimit

    return getrlimit(RLIMIT_NOFILE)[0] * 7 // 8


def _v1_limit(value: int) -> int:
    return UNLIMITED if value >= _V1_UNLIMITED else value


def _stall(words: "list[str] | None") -> "dict[str, float]":
    pairs = [word.split("=", 1) for word in words or ()]
    return {key: int(value) if key == "total" else float(value) for key, value in pairs}


def _device_io(device: str, values: "dict[str, str]") -> DeviceIo:
    major, minor = device.split(":")
    found = DeviceIo(int(major), int(minor))
    found.read, found.written = int(values.get("rbytes", 0)), int(values.get("wbytes", 0))
    found.reads, found.writes = int(values.get("rios", 0)), int(values.get("wios", 0))
    found.discarded = int(values.get("dbytes", 0))
    return found


def totals(cgroup: "Cgroup") -> "tuple[int, int, int]":
    """What a cgroup has used that nothing runs in any more: nanoseconds of processor time, the peak of its memory in
    bytes, and how many processes were killed for lack of it; -1 for what nobody has accounted."""
    legacy = {name: cgroup.legacy.get(files.hierarchy(cgroup.legacy, name), "") for name in ("cpuacct", "memory")}
    cpu = peak = -1
    if legacy["cpuacct"]:
        cpu = _whole(files.read(legacy["cpuacct"] + "/cpuacct.usage"))
    elif cgroup.unified:
        cpu = files.words(files.read(cgroup.unified + "/cpu.stat")).get("usage_usec", -1)
        cpu = cpu * 1000 if cpu > 0 else cpu
    if legacy["memory"]:
        peak = _whole(files.read(legacy["memory"] + "/memory.max_usage_in_bytes"))
        oom = files.words(files.read(legacy["memory"] + "/memory.oom_control")).get("oom_kill", -1)
    elif cgroup.unified and (peak := _whole(files.read(cgroup.unified + "/memory.peak"))) >= 0:
        oom = files.words(files.read(cgroup.unified + "/memory.events")).get("oom_kill", -1)
    else:
        oom = -1
    return cpu, peak, oom


def _whole(text: str) -> int:
    return int(text) if text.strip().isdigit() else -1
