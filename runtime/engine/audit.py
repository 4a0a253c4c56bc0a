"""`warren audit`: what a container keeps apart from the host, tried inside and read from outside; a report card.

Nothing is changed, neither in the container nor on the host: what is tried undoes itself, and files are only opened.
"""

import posix

from .. import capabilities
from ..config import ContainerConfig
from ..errors import NotFoundError
from ..state import boot_id, start_time
from .handle import RunningContainer
from .probing import Prober
from .processes import is_machine
from .records import Record, find
from .settings import configuration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Json = dict[str, Any]

_GRADES = ((1.0, "A"), (0.95, "B"), (0.8, "C"), (0.5, "D"), (0.0, "F"))


class Finding:
    """One line of the report card: whether `title` holds, and what was seen."""

    __slots__ = ("group", "key", "passed", "seen", "title")

    def __init__(self, key: str, group: str, title: str, passed: bool, seen: str) -> None:
        self.key = key
        self.group = group
        self.title = title
        self.passed = passed
        self.seen = seen

    def to_dict(self) -> "Json":
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        return f"<{self.key}: {'pass' if self.passed else 'FAIL'}: {self.seen}>"


class Report:
    """All findings about one container, in the order of the groups; report["mount"] is one of them."""

    def __init__(
        self, subject: str, findings: "list[Finding]", relaxed: "list[str]", isolation: str = "container"
    ) -> None:
        self.subject = subject
        self.findings = findings
        self.isolation = isolation
        """container, or the kind of virtual machine: "vm:uml"."""
        self.relaxed = relaxed
        """The options that take away from the defaults, as `inspect` names them."""

    @property
    def failed(self) -> "list[Finding]":
        return [one for one in self.findings if not one.passed]

    @property
    def grade(self) -> str:
        """A if everything holds, down to F for less than half."""
        share = 1 - len(self.failed) / len(self.findings)
        return next(letter for least, letter in _GRADES if share >= least)

    def __getitem__(self, key: str) -> Finding:
        for one in self.findings:
            if one.key == key:
                return one
        raise KeyError(key)

    def to_dict(self) -> "Json":
        return {
            "subject": self.subject,
            "isolation": self.isolation,
            "grade": self.grade,
            "passed": len(self.findings) - len(self.failed),
            "failed": len(self.failed),
            "relaxed": self.relaxed,
            "findings": [one.to_dict() for one in self.findings],
        }


def audit(target: str, **options: "Any") -> Report:
    """Audit a container that runs, by name or id, or a new one of an image (or "host" or a directory) and options.

    `options` are those of runtime.container().  Of a virtual machine what its programs may do to their own kernel has
    not failed, if the container of its hypervisor denies it, too.  Raises NotFoundError, StateError for a container
    that does not run, and what a launch raises.
    """
    if not options:
        try:
            return audit_container(find(target))
        except NotFoundError:
            pass
    return audit_new(target, configuration(target, [], options))


def audit_new(subject: str, config: ContainerConfig) -> Report:
    """Audit a container that is made for it, and runs nothing else."""
    container = RunningContainer(config)
    try:
        return audit_container(container.record, subject)
    finally:
        container.close()


def audit_container(record: Record, subject: str = "") -> Report:
    from .relaxations import relaxations

    pid = record.running_pid()
    walls = Walls(record)
    try:
        findings = [*_tried(walls, record), *_configured(walls.seen_from_outside(pid), record)]
    finally:
        walls.close()
    return Report(subject or record.name, findings, relaxations(record.config()), walls.isolation)


class Walls:
    """Who is asked what can be done: the programs of a container; to be closed.

    Of a virtual machine what they may do to a kernel of their own is asked again in the container of the hypervisor,
    where somebody would be who has broken out of the guest: it reaches the host if both can.
    """

    def __init__(self, record: Record) -> None:
        self.isolation = "container"
        self._record = record
        self._inner = Prober(record, user="0")
        self._outer: Prober | None = None
        if is_machine(record):
            from .machines import kind_of

            self.isolation = kind_of(record)
            self._own_kernel = f"boot_id {boot_id()}" not in self._inner.ask("info")

    def seen_from_outside(self, pid: int) -> int:
        """Which process is looked at, of a container's first process `pid`."""
        if self.isolation == "container":
            return pid
        from .machines import hypervisor

        return hypervisor(pid)

    def sees(self, question: str) -> bool:
        return self._inner.attempt(question).allowed

    def attempt(self, questions: "list[str]") -> "tuple[bool, str]":
        """Whether any of it can be done, and why not."""
        allowed, reason = self._ask(self._inner, questions)
        # What can be seen of the host is the host's, whatever kernel shows it.
        if not allowed or self.isolation == "container" or not self._own_kernel or questions[0].startswith("see "):
            return allowed, reason
        self._outer = self._outer or Prober(self._record, beside=True)
        allowed, reason = self._ask(self._outer, questions)
        return allowed, f"to its own kernel; outside it: {reason}"

    def _ask(self, prober: Prober, questions: "list[str]") -> "tuple[bool, str]":
        answers = [prober.attempt(question) for question in questions]
        if any(answer.allowed for answer in answers):
            return True, "it can"
        reasons = [answer.reason.lower() for answer in answers]
        return False, next((reason for reason in reasons if reason != "no such file or directory"), reasons[0])

    def close(self) -> None:
        for prober in (self._inner, self._outer):
            if prober:
                prober.close()


def keys() -> "list[tuple[str, str]]":
    """Key and title of each probe."""
    return [(key, title) for _, key, title, _ in _ATTEMPTS] + [(key, title) for _, key, title, _ in _LOOKS]


# ---- tried inside

_ATTEMPTS = [
    ("mounts", "mount", "no file system can be mounted", "try mount"),
    ("mounts", "host-file", "a file of the host cannot be seen", "see path {file}"),
    ("mounts", "handle", "no file can be opened by its handle", "try handle"),
    ("devices", "mknod", "no device node can be made and opened", "try mknod"),
    ("devices", "mem", "physical memory cannot be opened", "try open r /dev/mem"),
    ("devices", "kmsg", "the kernel's log device cannot be opened", "try open r /dev/kmsg"),
    ("processes", "see-process", "processes of the host cannot be seen", "see process {pid} {start}"),
    ("processes", "ptrace", "processes of the host cannot be traced", "try ptrace {alien}"),
    ("processes", "signal", "processes of the host cannot be signalled", "try signal {alien}"),
    ("namespaces", "userns", "no user namespace can be made", "try userns"),
    ("namespaces", "join", "namespaces of the host cannot be joined", "try join {alien} mnt"),
    ("system calls", "alg", "the kernel's cryptography (AF_ALG) does not answer", "try alg"),
    ("system calls", "vsock", "the hypervisor's host (AF_VSOCK) does not answer", "try vsock"),
    ("system calls", "raw", "no raw packets can be sent", "try raw"),
    ("system calls", "bpf", "bpf does not answer", "try bpf"),
    ("system calls", "io_uring", "io_uring does not answer", "try io_uring"),
    ("system calls", "userfaultfd", "userfaultfd does not answer", "try userfaultfd"),
    ("system calls", "perf", "perf events do not answer", "try perf"),
    ("system calls", "keyring", "keyrings do not answer", "try keyring"),
    ("system calls", "modules", "no kernel module can be loaded", "try modules"),
    ("system calls", "clock", "the clock cannot be set", "try clock"),
    ("system calls", "log", "the kernel's log cannot be read", "try log"),
    ("system calls", "x32", "the x32 ABI does not answer", "try x32"),
    ("system calls", "i386", "the i386 ABI does not answer", "try i386"),
    ("writes", "core-pattern", "the program for core dumps cannot be set", "try open w /proc/sys/kernel/core_pattern"),
    ("writes", "panic", "settings of the kernel cannot be written", "try open w /proc/sys/kernel/panic"),
    ("writes", "sysrq", "the machine cannot be restarted by sysrq", "try open w /proc/sysrq-trigger"),
    ("writes", "uevent", "the program for devices cannot be set", "try open w /sys/kernel/uevent_helper"),
    ("writes", "cgroup", "the cgroup's limits cannot be changed", "try open w {cgroup}cgroup.procs"),
    ("writes", "release-agent", "no program for empty cgroups can be set", "try open w {cgroup}release_agent"),
    ("leaks", "kcore", "the kernel's memory cannot be read", "try read /proc/kcore"),
    ("leaks", "keys", "keys of others are not listed", "try read /proc/keys"),
    ("leaks", "timer-list", "timers of the host are not listed", "try read /proc/timer_list"),
    ("leaks", "firmware", "the firmware's tables cannot be read", "try read /sys/firmware"),
]  # fmt: skip
"""Group, key, title and question; what can be done has failed."""


_CGROUPS = tuple(f"/sys/fs/cgroup/{name}" for name in ("", "memory/", "pids/", "unified/"))
"""Where the cgroup is below /sys/fs/cgroup: of v2, of v1, and of v2 beside that."""


def _tried(walls: Walls, record: Record) -> "Iterator[Finding]":
    pid = posix.getpid()
    places = {"pid": pid, "start": start_time(pid), "file": record.state_dir.path}
    # The number may be another's inside: only the same process counts.
    seen = walls.sees(f"see process {pid} {places['start']}")
    for group, key, title, question in _ATTEMPTS:
        if "{alien}" in question and not seen:
            yield Finding(key, group, title, True, "there is none to be seen")
            continue
        variants = _CGROUPS if "{cgroup}" in question else ("",)
        allowed, told = walls.attempt([question.format(**places, alien=pid, cgroup=one) for one in variants])
        yield Finding(key, group, title, not allowed, told)


# ---- read from outside


def _status(pid: int) -> "dict[str, str]":
    with open(f"/proc/{pid}/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _own_namespace(kind: str) -> "Callable[[int, Record], tuple[bool, str]]":
    def look(pid: int, record: Record) -> "tuple[bool, str]":
        theirs, ours = (posix.readlink(f"/proc/{one}/ns/{kind}") for one in (pid, "self"))
        return theirs != ours, theirs if theirs != ours else f"{theirs} is the host's"

    return look


def _mapped(pid: int, record: Record) -> "tuple[bool, str]":
    with open(f"/proc/{pid}/uid_map") as file:
        first = next((line.split() for line in file), ["0", "0", "0"])
    return first[:2] != ["0", "0"], f"its root is user {first[1]} of the host"


def _capabilities(pid: int, record: Record) -> "tuple[bool, str]":
    bounding = capabilities.names(int(_status(pid)["CapBnd"], 16))
    more = [name for name in bounding if name not in capabilities.DEFAULT]
    return not more, f"{len(bounding)}" + (f", among them {', '.join(more[:4])}" if more else "")


def _no_new_privileges(pid: int, record: Record) -> "tuple[bool, str]":
    value = _status(pid).get("NoNewPrivs")
    return value == "1", "set" if value == "1" else "not set"


def _filtered(pid: int, record: Record) -> "tuple[bool, str]":
    value = _status(pid).get("Seccomp")
    return value == "2", "there is a filter" if value == "2" else "there is no filter"


def _pids_limited(pid: int, record: Record) -> "tuple[bool, str]":
    limit = record.config().pids_limit
    limited = not record.config().privileged or (limit or 0) > 0 or is_machine(record)
    held = (record.life().get("enforced") or {}).get("pids_limit", "")
    if limit is not None and limit <= 0:
        return False, "no limit"
    return limited and not held.startswith("not"), held or str(limit or 1024)


def _no_directories(pid: int, record: Record) -> "tuple[bool, str]":
    """An open directory of the host is a way out (CVE-2024-21626)."""
    found = []
    root = posix.stat(f"/proc/{pid}/root")
    for name in posix.listdir(f"/proc/{pid}/fd"):
        try:
            path, there = posix.readlink(f"/proc/{pid}/fd/{name}"), posix.stat(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if path.startswith("/") and there.st_mode & 0o170000 == 0o040000 and there.st_dev != root.st_dev:
            found.append(path)
    return not found, ", ".join(found) or "none"


def _host_name(pid: int, record: Record) -> "tuple[bool, str]":
    ours = posix.readlink(f"/proc/{pid}/ns/uts") == posix.readlink("/proc/self/ns/uts")
    return not ours, "the host's" if ours else "its own"


_LOOKS: "list[tuple[str, str, str, Callable[[int, Record], tuple[bool, str]]]]" = [
    *[("namespaces", f"own-{kind}", f"{title} is its own", _own_namespace(kind)) for kind, title in (
        ("pid", "the pid namespace"), ("net", "the network namespace"),
        ("ipc", "the ipc namespace"), ("cgroup", "the cgroup namespace"), ("user", "the user namespace"),
    )],
    ("leaks", "host-name", "the host's name is not shown", _host_name),
    ("leaks", "descriptors", "no directory of the host is open", _no_directories),
    ("privileges", "root-mapped", "root inside is not root outside", _mapped),
    ("privileges", "capabilities", "no capability beyond the default", _capabilities),
    ("privileges", "no-new-privs", "no program can gain privileges", _no_new_privileges),
    ("privileges", "seccomp", "system calls are filtered", _filtered),
    ("limits", "pids", "the number of processes is limited", _pids_limited),
]  # fmt: skip
"""Group, key, title and what looks: whether it holds, and what was seen."""


def _configured(pid: int, record: Record) -> "Iterator[Finding]":
    for group, key, title, look in _LOOKS:
        passed, seen = look(pid, record)
        yield Finding(key, group, title, passed, seen)
