"""checkpoint and restore of a container's processes, done by criu(8).

It owns what criu is told.  Images are hostile input (RULES 14): what they are restored into comes from the bundle,
the cgroup from where criu is started, and nothing of them runs before it has been looked at.
"""

import posix
from errno import ENOENT

from .errors import StateError, UnsupportedError, UsageError, WarrenError
from .jsontext import dump_json, parse_json, read_regular
from .launch import Options, launch
from .namespaces import TYPES, mount
from .state import read_file
from .steps import MUST_EXIST, LaunchPlan
from .syscalls import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cgroups import Cgroup
    from .spec import Spec

    Json = dict[str, object]

_PLACES = ("/usr/sbin/criu", "/usr/bin/criu", "/usr/local/sbin/criu", "/usr/local/bin/criu")
# runc's options and criu's, with and without a value.
_SWITCHES = (
    "leave-running", "tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup", "lazy-pages",
)  # fmt: skip
_VALUES = {"parent-path": "prev-images-dir", "status-fd": "status-fd", "lsm-profile": "lsm-profile"}
_DESCRIPTORS = "descriptors.json"
_NEWNS = TYPES["mount"][0]


class Images:
    """Where criu writes or reads its images and its log, and how."""

    __slots__ = ("directory", "flags", "goes_on", "pre_dump", "work")

    def __init__(self, options: "dict[str, str | bool]") -> None:
        """`options` are those of runc's command line, by name; raises UsageError and UnsupportedError."""
        self.directory = _absolute(str(options.get("image-path") or "checkpoint"))
        self.work = _absolute(str(options.get("work-path") or self.directory))
        self.pre_dump = bool(options.get("pre-dump"))
        self.goes_on = self.pre_dump or bool(options.get("leave-running"))
        mode = options.get("manage-cgroups-mode") or "soft"
        if mode not in ("soft", "ignore", "full", "strict"):
            raise UsageError(f"--manage-cgroups-mode {mode!r} is unknown", hint="soft or ignore")
        if mode in ("full", "strict"):
            raise UnsupportedError(f"--manage-cgroups-mode {mode}: limits are those of the bundle", hint="use soft")
        for name in ("page-server", "empty-ns", "lsm-mount-context"):
            if options.get(name):
                raise UnsupportedError(f"--{name} is not supported", hint="copy the images instead")
        self.flags = [f"--{name}" for name in _SWITCHES if options.get(name)]
        for name, theirs in _VALUES.items():
            if options.get(name):
                self.flags += [f"--{theirs}", str(options[name])]

    def open(self, *, make: bool) -> None:
        """Make the directories, or check that nobody else can have written to them."""
        for path in (self.directory, self.work):
            if make:
                _make(path)
            try:
                info = posix.lstat(path)
            except OSError as error:
                raise WarrenError(f"images {path}: {posix.strerror(error.errno or 0).lower()}") from error
            if info.st_mode & 0o170000 != 0o040000:
                raise WarrenError(f"images {path}: not a directory")
            if not make and (info.st_uid not in (0, posix.geteuid()) or info.st_mode & 0o022):
                raise WarrenError(f"images {path}: others can write to them", hint="chown root and chmod go-w it")

    def arguments(self, verb: str) -> list[str]:
        places = ["--images-dir", self.directory, "--work-dir", self.work, "--log-file", f"{verb}.log", "-v2"]
        return [criu(), verb, *places, "--manage-cgroups=ignore", *self.flags]

    def failure(self, verb: str, code: int) -> WarrenError:
        """What criu's log says last of errors."""
        try:
            lines = read_file(f"{self.work}/{verb}.log").decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        errors = [line.partition("Error (")[2].partition("): ")[2] for line in lines if "Error (" in line]
        errors = [text for text in errors if not text.startswith("exited, status=")]  # Programs that it does without.
        reason = errors[0].strip() if errors else f"exit code {code}"
        return WarrenError(f"criu {verb} failed: {reason}", hint=f"see {self.work}/{verb}.log")


def criu() -> str:
    """Where criu is; UnsupportedError where it is not, or for an ordinary user."""
    if posix.geteuid():
        raise UnsupportedError("checkpoint and restore need root")
    found = next((path for path in _PLACES if posix.access(path, posix.X_OK)), "")
    if not found:
        raise UnsupportedError("checkpoint and restore need criu, which is not installed", hint="apt-get install criu")
    return found


def dump(images: Images, spec: "Spec", pid: int) -> None:
    """Write the images of process `pid` and of all below it.  WarrenError with criu's reason."""
    verb = "pre-dump" if images.pre_dump else "dump"
    _refuse_unsupported(spec)
    command = images.arguments(verb)
    images.open(make=True)
    names = [_link(f"/proc/{pid}/fd/{fd}") for fd in range(3)]
    _write(f"{images.directory}/{_DESCRIPTORS}", dump_json(names))
    for key, entry in _external(spec):
        command += ["--external", f"mnt[{entry.destination}]:{key}"]
    command += ["--tree", str(pid), "--root", spec.root_path(), *(["--track-mem"] if images.pre_dump else [])]
    null = [(posix.POSIX_SPAWN_OPEN, fd, "/dev/null", posix.O_RDWR, 0) for fd in range(3)]
    code = wait(posix.posix_spawn(command[0], command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, file_actions=null))
    if code:
        raise images.failure(verb, code)


def restore(images: Images, spec: "Spec", cgroup: "Cgroup", place: str, options: Options) -> int:
    """Restore below our process, in the container's cgroup; the pid of its init, whose processes are all stopped.

    `place` is a directory of the container's own, empty.  criu wants the root mounted somewhere, which it is in a mount
    namespace that ends with criu.
    """
    _refuse_unsupported(spec)
    command = images.arguments("restore")
    images.open(make=False)
    root, file = f"{place}/root", f"{place}/criu.pid"
    posix.mkdir(root, 0o700)
    for key, entry in _external(spec):
        command += ["--external", f"mnt[{key}]:{entry.source}"]
    for fd, name in enumerate(_descriptors(images)):
        if name.startswith("pipe:["):
            command += ["--inherit-fd", f"fd[{fd}]:{name}"]
    command += ["--root", root, "--restore-detached", "--restore-sibling", "--leave-stopped", "--pidfile", file]
    code = wait(launch(_criu_plan(spec, cgroup, root, command), {}, Options(stdio=options.stdio), lambda *_: ""))
    if code:
        raise images.failure("restore", code)
    return int(read_file(file))


def _criu_plan(spec: "Spec", cgroup: "Cgroup", root: str, command: list[str]) -> LaunchPlan:
    """criu in the container's cgroup, which its children inherit, and in a mount namespace with the root on `root`."""
    plan = LaunchPlan()
    for path in cgroup.join_paths():
        plan.add("cgroup_join", path)
    slot, group = plan.slot(), -1
    if cgroup.unified:
        group = plan.slot()
        plan.add("open_path", group, cgroup.unified, posix.O_DIRECTORY)
    plan.add("open_tree", slot, spec.root_path(), 1)
    plan.add("clone", _NEWNS, group)
    plan.add("propagation", mount.SLAVE)
    plan.add("bind", slot, root, MUST_EXIST)
    plan.add("chdir", "/", MUST_EXIST)
    if (spec.config.get("process") or {}).get("noNewPrivileges"):
        plan.add("no_new_privs")  # criu 3 forgets it, but its children inherit it.
    plan.add("find", command[0], "")
    plan.add("exec", command, ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], 0)
    return plan


def check(spec: "Spec", pid: int) -> None:
    """Whether what the images made is what the bundle allows: each process, before any of them runs.

    Raises StateError; the caller kills them.
    """
    process: Json = spec.config.get("process") or {}
    new = [TYPES[kind][1] for kind, path in spec.namespaces().items() if not path]
    wanted = posix.stat(spec.root_path())
    bounding = _mask(process)
    for member in _family(pid):
        status = dict(line.partition(":")[::2] for line in read_file(f"/proc/{member}/status").decode().splitlines())
        problem = ""
        for name in new:
            own = _link(f"/proc/{member}/ns/{name}")
            if own == _link(f"/proc/self/ns/{name}"):
                problem = f"it is in the host's {name} namespace"
        top = posix.stat(f"/proc/{member}/root")
        if (top.st_dev, top.st_ino) != (wanted.st_dev, wanted.st_ino):
            problem = "its root is not the bundle's"
        for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"):
            if bounding >= 0 and int(status[name], 16) & ~bounding:
                problem = f"it has more capabilities ({name})"
        if process.get("noNewPrivileges") and status["NoNewPrivs"].strip() != "1":
            problem = "it may gain privileges"
        if (spec.config.get("linux") or {}).get("seccomp") and status["Seccomp"].strip() != "2":
            problem = "it has no seccomp filter"
        if problem:
            raise StateError(f"the images are not of this bundle: process {member}: {problem}")


def resume(pid: int) -> None:
    """Let the restored processes go on."""
    for member in _family(pid):
        posix.kill(member, 18)


def _mask(process: "Json") -> int:
    """The bounding set as bits; -1 where the bundle does not limit it."""
    from . import capabilities

    sets: dict[str, list[str]] | None = process.get("capabilities")  # type: ignore[assignment]
    return -1 if sets is None else capabilities.mask(sets.get("bounding") or [])[0]


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for task in posix.listdir(f"/proc/{pid}/task"):
        for child in read_file(f"/proc/{pid}/task/{task}/children").split():
            found += _family(int(child))
    return found


def _refuse_unsupported(spec: "Spec") -> None:
    if (spec.config.get("process") or {}).get("terminal"):
        raise UnsupportedError("checkpoint and restore: a container with a terminal is not supported")
    kinds = spec.namespaces()
    for kind in ("user", "cgroup", "time"):
        if kind in kinds:
            raise UnsupportedError(f"checkpoint and restore: a {kind} namespace is not supported", hint="leave it out")
    if joined := [kind for kind, path in kinds.items() if path]:
        raise UnsupportedError(f"checkpoint and restore: a joined {joined[0]} namespace is not supported")


def _external(spec: "Spec") -> "list[tuple[str, mount.Mount]]":
    """What comes from outside of the container: bind mounts, by a key of our own."""
    return [(f"mount{entry.index}", entry) for entry in mount.load(spec) if entry.is_bind]


def _descriptors(images: Images) -> list[str]:
    """What the standard streams were; "pipe:[N]" are the names by which criu knows those to inherit."""
    path = f"{images.directory}/{_DESCRIPTORS}"
    names = parse_json(read_regular(path, path), path)
    if not isinstance(names, list) or len(names) != 3 or not all(isinstance(name, str) for name in names):
        raise WarrenError(f"{path}: must be a list of three names")
    for name in names:
        if name.startswith("pipe:[") and not (name.endswith("]") and name[6:-1].isdecimal() and len(name) < 30):
            raise WarrenError(f"{path}: {name!r} is no pipe")
    return names


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"{posix.getcwd()}/{path}"


def _make(path: str) -> None:
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno != ENOENT:
            raise
        _make(path.rstrip("/").rpartition("/")[0])
        _make(path)


def _link(path: str) -> str:
    try:
        return posix.readlink(path)
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600)
    try:
        posix.write(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        posix.close(fd)
