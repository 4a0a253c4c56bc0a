"""The vocabulary of the launch plan: what `init` can be told to do, and how it is told.

A plan is a flat, ordered list of steps.  This module owns the words, their arguments, their encoding and the
text that people read; it refuses to know why a step is there (plan.py) or how it is done (init/*.c).

The wire format, all integers native-endian (the plan never leaves the machine):

    plan    magic u32 "WRNP" | version u32 | bytes u32 (whole plan) | steps u32
    step    op u16 | arguments u16 | bytes u32 (of the arguments that follow)
    argument
            type u32 ('i', 's', 'l' or 'b') | bytes u32 | data, padded with NUL to a multiple of eight
            i   one int64
            s   a string; bytes counts it without the NUL that ends it
            l   strings, each ended by a NUL; bytes counts all of them
            b   any bytes

A slot ('f' in a signature, an int64 on the wire) is an index into init's table of file descriptors; -1 is none.

The conversation over the sync socket (SOCK_SEQPACKET), one struct a message: kind u32, step u32, value i64, text:

    init, outside                             launch.py
        SYNC  text=cgroup              --->   has systemd move init's process into a scope; value=its pid if a monitor
                                              stands between, else 0
                                       <---   OK
        MAP   value=pid of the helper  --->   runs newuidmap and newgidmap on it (ordinary users only)
                                       <---   OK
        PID   value=pid of the child   --->   records it; `init` outside exits
    init, inside
        SYNC  text=name                --->   does what the name says (runs the runtime's hooks)
                                       <---   OK  text=state of the container, the input of later `hook` steps
        SYNC  text=netDevices, and a   --->   moves or makes interfaces of the container's network namespace
              socket in there          <---   OK
        SYNC  text=seccomp value=fd    --->   takes init's descriptor fd, and sends it to the agent of SCMP_ACT_NOTIFY
                                       <---   OK
        READY                          --->   `create` returns; init waits for a byte from the fifo, or for a command
        FAIL  step, value=errno, text  --->   LaunchError naming the step
        (end of file)                  --->   the user's program has been executed, or init is dead

After READY the socket is closed; a FAIL then goes, in the same form, to the file in the `report` slot, or to the socket
over which the command came: one byte with four descriptors, the rest of the plan and the standard streams.
"""

import struct

from .errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Argument = int | str | bytes | Sequence[str]

MAGIC = 0x504E5257
VERSION = 1
MAX_PLAN = 32 << 20
"""Most bytes of one plan; argv and env of execve(2) may take 2 MiB and more."""
MAX_STEPS = 65536
MAX_SLOTS = 4096

# Messages, init to Python.
MAP, PID, SYNC, READY, FAIL = 1, 2, 3, 4, 5
# Messages, Python to init.
OK = 16
MESSAGE = struct.Struct("=IIq")
MAX_MESSAGE = 65536

# Slots whose descriptors launch.py passes; a plan numbers its own from FIRST_SLOT.
SYNC_SLOT, CONSOLE_SLOT, FIFO_SLOT, REPORT_SLOT, PIDFD_SLOT, FIRST_SLOT = 0, 1, 2, 3, 4, 5
COMMAND_SLOT, INIT_SLOT = FIFO_SLOT, PIDFD_SLOT
"""The former of a container that waits for a command, which is not one that waits for `start`; the latter of one whose
process 1 is a program of ours, which is not what `exec` starts."""
# The first of them, in a plan that begins with the step `monitor` (LaunchPlan.lead).
HOLD_SLOT, LISTENER_SLOT, OWNER_SLOT, LOG_SLOT, EXIT_SLOT = MONITOR_SLOTS = range(FIRST_SLOT, FIRST_SLOT + 5)

ALL_STREAMS = 0b111
"""Of the step `own_stdio`: a bit for each standard stream."""

# Flags of the step `monitor`: the container has a standard input; it ends with the first client; the container ends
# with its owner.
WANT_INPUT, INPUT_ONCE, LEASH = 1, 2, 4

# How a target inside the root is resolved (openat2(2), always RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS).
MUST_EXIST, MAKE_DIR, MAKE_FILE, NO_SYMLINKS, ON_KERNEL_FS, COPY_UP = 0, 1, 2, 4, 8, 16
"""COPY_UP: what the target holds is copied into the new file system first.  ON_KERNEL_FS: the target may lie on procfs
or sysfs (CVE-2019-16884: nothing else ever may)."""


GUEST = frozenset(["module", "channel", "interface", "guest", "wait_path", "file"])
"""Words that only process 1 of a virtual machine knows (init-guest)."""


class Op:
    """One word: its number and signature (what `init --list-steps` prints), its fields and its text."""

    __slots__ = ("fields", "number", "signature", "text")

    def __init__(self, number: int, signature: str, fields: str, text: str) -> None:
        self.number = number
        self.signature = signature
        self.fields = fields.split()
        self.text = text


VOCABULARY = {
    # Outside: in the host's namespaces, with the caller's privileges.
    "inherit": Op(1, "fi", "slot fd", "take descriptor {fd} as #{slot}"),
    "cgroup_join": Op(2, "s", "path", "join cgroup {path}"),
    "open_path": Op(3, "fsi", "slot path flags", "open {path} as #{slot}"),
    "open_tree": Op(4, "fsi", "slot path recursive", "clone mount {path} as #{slot}{recursive:recursive}"),
    "mount_setattr": Op(
        5,
        "fiiiif",
        "slot recursive set clear propagation userns",
        "set mount #{slot}{set:attr}{clear:unattr}{propagation:propagation}{userns:idmap}{recursive:recursive}",
    ),
    "userns": Op(
        6,
        "fssiif",
        "slot uid_map gid_map deny_setgroups mapper network",
        "create user namespace #{slot} uid {uid_map:map} gid {gid_map:map}{mapper:mapper}{network:network}",
    ),
    "open_ns": Op(7, "fsi", "slot path type", "open {type:ns} namespace {path} as #{slot}"),
    "setns": Op(8, "fi", "slot types", "join {types:ns} of #{slot}"),
    "undumpable": Op(9, "", "", "become undumpable"),
    "clone": Op(10, "if", "flags cgroup", "clone into new {flags:ns}{cgroup:cgroup}"),
    # Inside: in the container's namespaces, still with every privilege that they give.
    "setup_ids": Op(11, "iii", "uid gid clear_groups", "become {uid}:{gid} for the set-up"),
    "pdeathsig": Op(12, "i", "signal", "die with the parent (signal {signal})"),
    "setsid": Op(13, "", "", "start a session"),
    "propagation": Op(14, "i", "propagation", "set mounts below / to{propagation:propagation}"),
    "scratch": Op(15, "l", "options", "mount scratch tmpfs for layers{options:options}"),
    "overlay": Op(
        16,
        "ffll",
        "slot base lowers options",
        "overlay #{slot} of {lowers:slots} with changes in {base:base}{options:options}",
    ),
    "tmpfs": Op(17, "fl", "slot options", "tmpfs #{slot}{options:options}"),
    "root": Op(18, "fs", "slot path", "use #{slot} as the container's root{path:at}"),
    "mount": Op(
        19,
        "sslii",
        "type target options attr resolve",
        "mount {type} on {target}{options:options}{attr:attr}",
    ),
    "bind": Op(20, "fsi", "slot target resolve", "bind #{slot} on {target}"),
    "mkdir": Op(21, "si", "path mode", "make directory {path} {mode:octal}"),
    "symlink": Op(22, "ss", "target path", "link {path} to {target}"),
    "mknod": Op(23, "siiii", "path mode device uid gid", "make node {path} {device:device} {mode:octal} {uid}:{gid}"),
    "pivot_root": Op(24, "", "", "pivot into the root"),
    "chroot": Op(25, "", "", "move the root to / and chroot into it"),
    "mask": Op(26, "s", "path", "mask {path}"),
    "readonly": Op(27, "s", "path", "make {path} read-only"),
    "hostname": Op(28, "s", "name", "set hostname {name}"),
    "domainname": Op(29, "s", "name", "set domainname {name}"),
    "sysctl": Op(30, "ss", "key value", "set sysctl {key} = {value}"),
    "loopback": Op(31, "", "", "bring loopback up"),
    "console": Op(32, "fiii", "socket bind rows columns", "open a terminal, send it over #{socket}{bind:console}"),
    "sync": Op(33, "s", "name", "wait for {name}"),
    "hook": Op(34, "slli", "path argv env timeout", "run hook {path}"),
    "rlimit": Op(35, "iii", "resource soft hard", "set rlimit {resource:rlimit} {soft:limit}:{hard:limit}"),
    "umask": Op(36, "i", "mask", "set umask {mask:octal}"),
    "bounding": Op(37, "i", "capabilities", "bound capabilities to {capabilities:capabilities}"),
    "user": Op(38, "iiil", "uid gid set_groups groups", "become user {uid}:{gid}{groups:groups}"),
    "capabilities": Op(
        39,
        "iiii",
        "effective permitted inheritable ambient",
        "set capabilities {effective:capabilities} ambient {ambient:capabilities}",
    ),
    "no_new_privs": Op(40, "", "", "gain no new privileges"),
    "own_stdio": Op(41, "iii", "uid gid streams", "give the standard streams{streams:streams} to {uid}:{gid}"),
    "chdir": Op(42, "si", "path resolve", "change directory to {path}"),
    "find": Op(43, "ss", "program path", "find {program}"),
    "wait_start": Op(44, "ff", "fifo report", "wait for start"),
    "reap": Op(45, "f", "init", "fork, reap and pass on signals as process 1{init:executed}"),
    "exec": Op(46, "lli", "argv env preserve_fds", "execute {argv:command}"),
    "oom_score_adj": Op(47, "i", "score", "set oom_score_adj {score}"),
    "seccomp": Op(
        48,
        "bii",
        "program flags at_exec",
        "load seccomp filter of {program:instructions} instructions{at_exec:at_exec}",
    ),
    "time_offsets": Op(49, "s", "offsets", "create time namespace{offsets:clocks}"),
    "scheduler": Op(
        50,
        "iiiiiii",
        "policy nice priority flags runtime deadline period",
        "set scheduling policy {policy} nice {nice} priority {priority}",
    ),
    "io_priority": Op(51, "i", "priority", "set I/O priority {priority:io}"),
    "affinity": Op(52, "b", "processors", "run on processors {processors:processors}"),
    "personality": Op(53, "i", "domain", "set personality {domain}"),
    "keyring": Op(54, "si", "name permissions", "start session keyring {name}"),
    "exec_label": Op(55, "ss", "attribute label", "set {attribute} to {label}"),
    "device_program": Op(
        56, "fb", "cgroup program", "attach device program of {program:instructions} instructions to cgroup #{cgroup}"
    ),
    "remount": Op(
        57,
        "sliii",
        "target options set clear propagation",
        "reconfigure the mount on {target}{options:options}{set:attr}{clear:unattr}{propagation:propagation}",
    ),
    "timestamps": Op(58, "f", "slot", "write when each step ended to #{slot}"),
    "netlink": Op(59, "s", "name", "open a netlink socket, wait for {name}"),
    "memory_policy": Op(60, "ib", "mode nodes", "set memory policy {mode:hex}{nodes:nodes}"),
    # In front of all others, of containers that outlive the command that made them (init/monitor.c).
    "monitor_log": Op(
        61,
        "sfsii",
        "format directory name max_size max_file",
        "log to {name} in #{directory} as {format}{max_size:at_most}{max_file:files}",
    ),
    "monitor_events": Op(
        62, "llis", "argv env milliseconds reason", "tell events to {argv:command}{milliseconds:first}{reason:reason}"
    ),
    "monitor": Op(
        63,
        "fffffi",
        "hold directory listener owner console flags",
        "leave a monitor behind{console:console_of}{flags:input}{directory:exit}{listener:attach}",
    ),
    "fill": Op(64, "fs", "slot path", "copy what {path} holds into #{slot} if that is empty"),
    "own": Op(65, "fii", "slot uid gid", "give #{slot} and all in it to {uid}:{gid}"),
    "wait_command": Op(66, "f", "socket", "go on with what comes over #{socket}"),
    "idle": Op(67, "f", "init", "execute init (#{init}) to reap as process 1, and run nothing"),
    "guard": Op(68, "ff", "process farewell", "wait for the end of process #{process}, or a farewell over #{farewell}"),
    "take_network": Op(69, "f", "line", "enter the new network namespace that comes over #{line}"),
    # In a virtual machine, whose process 1 `init` is.
    "module": Op(80, "s", "path", "load module {path}"),
    "channel": Op(81, "l", "devices", "go on with what the supervisor sends over {devices:command}"),
    "interface": Op(82, "ssss", "name address mask gateway", "give {name} the address {address}"),
    "guest": Op(83, "iii", "terminal rows columns", "fork, pass on streams and signals as process 1 of the machine"),
    "file": Op(86, "sb", "path content", "write {path}"),
    "wait_path": Op(85, "s", "path", "wait for {path}"),
    # Beside a virtual machine: process 1 of the container in which its hypervisor runs.
    "supervise": Op(84, "bii", "plan milliseconds terminal", "fork, send the guest its plan, wait for its program"),
}


_encoded: "dict[tuple[str, tuple[object, ...]], bytes]" = {}
"""Most steps are the same in every plan, and the library launches again and again."""
_MOST_ENCODED, _MOST_OF_ONE = 512, 1024


class Step:
    """One thing for `init` to do; `str()` of it is the line that `--plan` prints."""

    __slots__ = ("args", "op")

    def __init__(self, op: str, *args: "Argument") -> None:
        self.op = op
        self.args = args

    def fields(self) -> "dict[str, Argument]":
        return dict(zip(VOCABULARY[self.op].fields, self.args, strict=True))

    def __str__(self) -> str:
        """One line, whatever control characters a bundle brought in."""
        text = _render(VOCABULARY[self.op].text, self.fields())
        return "".join([c if c.isprintable() else repr(c)[1:-1] for c in text])

    def __repr__(self) -> str:
        return f"Step({self.op!r}, {', '.join(map(repr, self.args))})"

    def encode(self) -> bytes:
        """Encode for `init`; raises PlanError for what the wire cannot carry (a NUL, a number over 63 bits)."""
        key = self.op, tuple([tuple(value) if type(value) is list else value for value in self.args])
        try:
            return _encoded[key]
        except KeyError:
            data = self._encode()
        except TypeError:
            return self._encode()
        if len(_encoded) >= _MOST_ENCODED:
            _encoded.clear()
        if len(data) <= _MOST_OF_ONE:
            _encoded[key] = data
        return data

    def _encode(self) -> bytes:
        word = VOCABULARY[self.op]
        parts = []
        for letter, value in zip(word.signature, self.args, strict=True):
            parts.append(_ENCODERS[letter](value))
        body = b"".join(parts)
        return struct.pack("=HHI", word.number, len(parts), len(body)) + body


class LaunchPlan:
    """Steps in order, and the descriptors that the plan expects to inherit.

    The `inherit` steps for the descriptors that launch.py passes are made when encoding, so that a printed plan
    does not depend on descriptor numbers.
    """

    __slots__ = ("_slots", "guest", "notes", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.notes: list[str] = []
        """What the spec asks for and cannot be had, where it wants that logged and not failed for."""
        self.guest: LaunchPlan | None = None
        """Of a hypervisor: what `init` does in its guest, for who prints the plan."""
        self._slots = FIRST_SLOT

    def add(self, op: str, *args: "Argument") -> None:
        self.steps.append(Step(op, *args))

    def insert(self, index: int, op: str, *args: "Argument") -> None:
        self.steps.insert(index, Step(op, *args))

    def lead(self, steps: "Sequence[Step]") -> None:
        """Begin with these, which may use MONITOR_SLOTS."""
        self.steps += steps
        if steps:
            self._slots = MONITOR_SLOTS.stop

    def slot(self) -> int:
        """Reserve the next slot of init's table of descriptors."""
        if self._slots >= MAX_SLOTS:
            raise PlanError(f"launch plan needs more than {MAX_SLOTS} descriptors", hint="use fewer mounts")
        self._slots += 1
        return self._slots - 1

    def encode(self, fds: "dict[int, int]") -> bytes:
        """The whole plan as bytes, preceded by an `inherit` step for each slot of `fds` (slot: descriptor)."""
        steps = [Step("inherit", slot, fd) for slot, fd in fds.items()] + self.steps
        body = b"".join([step.encode() for step in steps])
        if len(steps) > MAX_STEPS or len(body) + 16 > MAX_PLAN:
            raise PlanError(
                f"launch plan of {len(steps)} steps and {len(body)} bytes is too large",
                hint=f"at most {MAX_STEPS} steps and {MAX_PLAN} bytes: fewer mounts, arguments or variables",
            )
        return struct.pack("=IIII", MAGIC, VERSION, len(body) + 16, len(steps)) + body

    def lines(self) -> "Iterable[str]":
        lines = [f"{number:3} {step}" for number, step in enumerate(self.steps, 1)]
        return [*lines, "in the guest:", *self.guest.lines()] if self.guest else lines

    def to_list(self) -> "list[dict[str, object]]":
        """The plan as JSON-able data: one object a step with its op and its fields."""
        own = [{"op": step.op, **{key: _jsonable(step.fields()[key]) for key in step.fields()}} for step in self.steps]
        return [*own, {"op": "in the guest", "steps": self.guest.to_list()}] if self.guest else own


def _jsonable(value: "Argument") -> object:
    return value.hex() if isinstance(value, bytes) else value


def _encode_int(value: "Argument") -> bytes:
    if not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
        what = f"a number of {value.bit_length()} bits" if isinstance(value, int) else repr(value)
        raise PlanError(f"{what} does not fit a plan's 64-bit integer")
    return struct.pack("=IIq", ord("i"), 8, value)


def _encode_string(value: "Argument") -> bytes:
    data = _bytes_of(value)
    return struct.pack("=II", ord("s"), len(data)) + data + bytes(8 - len(data) % 8)


def _encode_list(value: "Argument") -> bytes:
    data = b"".join([_bytes_of(item) + b"\0" for item in value])  # type: ignore[union-attr]
    return struct.pack("=II", ord("l"), len(data)) + data + bytes(-len(data) % 8)


def _encode_bytes(value: "Argument") -> bytes:
    if not isinstance(value, bytes):
        raise PlanError(f"{value!r} is not bytes")
    return struct.pack("=II", ord("b"), len(value)) + value + bytes(-len(value) % 8)


def _bytes_of(value: object) -> bytes:
    if not isinstance(value, str):
        raise PlanError(f"{value!r} is not a string")
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PlanError(f"{value!r} contains a lone surrogate") from error
    if 0 in data:
        raise PlanError(f"{value!r} contains a NUL byte")
    return data


_ENCODERS = {"i": _encode_int, "f": _encode_int, "s": _encode_string, "l": _encode_list, "b": _encode_bytes}


# ---- text for people: only --plan and error messages come here ----------------------------------------------------

_NS = {
    0x00020000: "mount",
    0x02000000: "cgroup",
    0x04000000: "uts",
    0x08000000: "ipc",
    0x10000000: "user",
    0x20000000: "pid",
    0x40000000: "network",
    0x00000080: "time",
}
_ATTR = {0x1: "ro", 0x2: "nosuid", 0x4: "nodev", 0x8: "noexec", 0x80: "nodiratime", 0x200000: "nosymfollow"}
_ATIME = {0x00: "relatime", 0x10: "noatime", 0x20: "strictatime"}
_PROPAGATION = {1 << 17: "unbindable", 1 << 18: "private", 1 << 19: "slave", 1 << 20: "shared"}
_RLIMITS = [
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
    "msgqueue", "nice", "rtprio", "rttime",
]  # fmt: skip


def _render(text: str, fields: "dict[str, Argument]") -> str:
    parts = text.split("{")
    out = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition("}")
        name, _, style = name.partition(":")
        out.append(_STYLES[style](fields[name]))
        out.append(rest)
    return "".join(out)


def _flags(names: "dict[int, str]", value: int) -> str:
    return ",".join([name for bit, name in names.items() if value & bit])


def _attr(value: int) -> str:
    if not value:
        return ""
    atime = _ATIME[value & 0x70] if value & 0x70 in (0x10, 0x20) else ""
    return " " + ",".join(filter(None, [_flags(_ATTR, value), atime]))


def _quote(value: str) -> str:
    plain = value and all(c.isalnum() or c in "@%+=:,./-_#" for c in value)
    return value if plain else "'" + value.replace("'", "'\\''") + "'"


def _map(value: str) -> str:
    return ",".join([":".join(line.split()) for line in value.splitlines()])


def _capabilities(value: int) -> str:
    return f"{value:#x}" if value else "none"


def _limit(value: int) -> str:
    return "unlimited" if value == -1 else str(value)


_STYLES: "dict[str, Callable[[Any], str]]" = {
    "": lambda v: _quote(v) if isinstance(v, str) else str(v),
    "at": lambda v: f" at {_quote(v)}" if v else "",
    "recursive": lambda v: " recursively" if v else "",
    "attr": _attr,
    "unattr": lambda v: " without" + _attr(v) if v else "",
    "propagation": lambda v: " " + _flags(_PROPAGATION, v) if v else "",
    "idmap": lambda v: f" idmapped by #{v}" if v >= 0 else "",
    "map": _map,
    "mapper": lambda v: " with newuidmap and newgidmap" if v else "",
    "network": lambda v: f", then a network namespace of its own for #{v}" if v >= 0 else "",
    "ns": lambda v: ",".join([name for bit, name in _NS.items() if v & bit]) or "nothing",
    "cgroup": lambda v: f" in cgroup #{v}" if v >= 0 else "",
    "options": lambda v: " " + ",".join(v) if v else "",
    "executed": lambda v: f", executed from init (#{v})" if v >= 0 else "",
    "streams": lambda v: "" if v == ALL_STREAMS else " " + ",".join([str(fd) for fd in range(3) if v >> fd & 1]),
    "slots": lambda v: " over ".join(["#" + slot for slot in v]) or "nothing",
    "base": lambda v: f"#{v}" if v >= 0 else "the scratch tmpfs",
    "octal": lambda v: f"{v & 0o7777:04o}",
    "device": lambda v: f"{_major(v)}:{_minor(v)}",
    "console": lambda v: ", bind it on /dev/console" if v else "",
    "rlimit": lambda v: _RLIMITS[v] if 0 <= v < len(_RLIMITS) else str(v),
    "limit": _limit,
    "capabilities": _capabilities,
    "groups": lambda v: " groups " + ",".join(v) if v else "",
    "instructions": lambda v: str(len(v) // 8),
    "at_exec": lambda v: " at execve" if v else "",
    "clocks": lambda v: "".join([" " + "+".join(line.split()[:2]) for line in v.splitlines()]),
    "io": lambda v: f"class {v >> 13} level {v & 0x1FFF}",
    "processors": lambda v: f"{int.from_bytes(v, 'little'):#x}" if v.strip(b"\xff") else "of the cpuset",
    "hex": lambda v: f"{v:#x}",
    "at_most": lambda v: f", of at most {v} bytes" if v else "",
    "files": lambda v: f", {v} files" if v > 1 else "",
    "first": lambda v: f", in {v} ms" if v else "",
    "reason": lambda v: f" {_quote(v)}" if v else "",
    "console_of": lambda v: " of a terminal" if v >= 0 else "",
    "input": lambda v: (
        {1: ", with input", 3: ", with input from its first client"}.get(v & 3, "") + (", on a leash" if v & 4 else "")
    ),
    "exit": lambda v: f", exit code to #{v}" if v >= 0 else "",
    "attach": lambda v: f", attach at #{v}" if v >= 0 else "",
    "nodes": lambda v: f" on nodes {int.from_bytes(v, 'little'):#x}" if v else "",
    "command": lambda v: " ".join([_quote(item) for item in v]),
}


def _major(device: int) -> int:
    return (device >> 8 & 0xFFF) | (device >> 32 & ~0xFFF)


def _minor(device: int) -> int:
    return (device & 0xFF) | (device >> 12 & ~0xFF)
