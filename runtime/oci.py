"""`warren-oci`: the OCI runtime's command line, as engines call it.

Options and texts are runc's, since that is what podman, containerd, dockerd and CRI-O were written against.  The
parser is our own because argparse and click cost more than a launch; each command imports only what it needs.
"""

import posix
import sys

from .errors import UnsupportedError, UsageError, WarrenError
from .quantities import duration, is_number, signal_number, size
from .syscalls import take_interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    from .launch import Options
    from .spec import Bundle

    Json = dict[str, Any]


# Options of a command: names (the first one is the key), and whether they take a value ("=") or repeat ("*").
_GLOBAL = {
    "root": "=", "log": "=", "log-format": "=", "debug": "", "systemd-cgroup": "", "rootless": "=",
    "cgroup-manager": "=", "version v": "", "help h": "",
}  # fmt: skip
_CREATE = {
    "bundle b": "=", "config f": "=", "console-socket": "=", "pidfd-socket": "=", "pid-file": "=", "no-pivot": "",
    "no-new-keyring": "", "preserve-fds": "=", "plan": "?", "help h": "",
}  # fmt: skip
_CRIU = {
    "image-path": "=", "work-path": "=", "tcp-established": "", "ext-unix-sk": "", "shell-job": "", "lazy-pages": "",
    "file-locks": "", "manage-cgroups-mode": "=", "empty-ns": "=", "auto-dedup": "",
}  # fmt: skip
_COMMANDS: "dict[str, tuple[str, dict[str, str]]]" = {
    "create": ("ID", _CREATE),
    "run": ("ID", {**_CREATE, "detach d": "", "keep": "", "no-subreaper": ""}),
    "start": ("ID", {}),
    "state": ("ID", {}),
    "kill": ("ID [SIGNAL]", {"all a": ""}),
    "pause": ("ID", {}),
    "resume": ("ID", {}),
    "delete": ("ID", {"force f": ""}),
    "exec": ("ID COMMAND...", {
        "console-socket": "=", "pidfd-socket": "=", "cwd": "=", "env e": "*", "tty t": "", "user u": "=",
        "additional-gids g": "*", "process p": "=", "detach d": "", "pid-file": "=", "process-label": "=",
        "apparmor": "=", "no-new-privs": "", "cap c": "*", "preserve-fds": "=", "cgroup": "*", "ignore-paused": "",
        "no-subreaper": "",
    }),
    "update": ("ID", {
        "resources r": "=", "blkio-weight": "=", "cpu-period": "=", "cpu-quota": "=", "cpu-burst": "=",
        "cpu-share": "=", "cpu-rt-period": "=", "cpu-rt-runtime": "=", "cpu-idle": "=", "cpuset-cpus": "=",
        "cpuset-mems": "=", "kernel-memory": "=", "kernel-memory-tcp": "=", "memory": "=", "memory-reservation": "=",
        "memory-swap": "=", "pids-limit": "=", "l3-cache-schema": "=", "mem-bw-schema": "=",
    }),
    "events": ("ID", {"stats": "", "interval": "="}),
    "checkpoint": ("ID", {
        **_CRIU, "parent-path": "=", "leave-running": "", "pre-dump": "", "page-server": "=", "status-fd": "=",
    }),
    "restore": ("ID", {
        **_CRIU, "bundle b": "=", "config f": "=", "console-socket": "=", "detach d": "", "pid-file": "=",
        "no-subreaper": "", "no-pivot": "", "lsm-profile": "=", "lsm-mount-context": "=",
    }),
    "ps": ("ID [PS OPTIONS]", {"format f": "="}),
    "list": ("", {"format f": "=", "quiet q": ""}),
    "spec": ("", {"bundle b": "=", "rootless": ""}),
    "features": ("", {}),
}  # fmt: skip


class Arguments:
    """What stands behind one command: `options` by key, `words` that are no options."""

    __slots__ = ("options", "words")

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.words: list[str] = []

    def get(self, key: str, default: "Any" = "") -> "Any":
        return self.options.get(key, default)

    def number(self, key: str) -> int:
        """A non-negative decimal number."""
        text = self.options.get(key, "0")
        if not is_number(text) or len(text) > 9:
            raise UsageError(f"--{key} {text!r} is not a number")
        return int(text)


def main() -> "NoReturn":
    """Entry point of the launcher.  Ends by _exit: the interpreter's own tidying costs 1.4 ms."""
    _open_streams()
    log = Log()
    code = 1
    try:
        take_interrupt()
        code = _main(sys.argv[1:], log)
    except WarrenError as error:
        code = error.exit_code if log.command in ("run", "exec") else 1
        log.error(str(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        log.error(str(WarrenError(f"{where}{posix.strerror(error.errno or 0).lower()}")))
    except Exception as error:  # A fault of ours is one line too.
        code = 125
        log.error(f"internal error: {type(error).__name__}: {error}")
        log.traceback()
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
    posix._exit(code)


def _open_streams() -> None:
    """Callers may have closed 0, 1 or 2: nothing that we open may become the container's standard streams by chance."""
    for fd in range(3):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open("/dev/null", "w"))


class Log:
    """Errors go to stderr and, where --log names a file, as its last line in --log-format."""

    def __init__(self) -> None:
        self.command = ""
        self.path = ""
        self.format = "text"
        self.debug = False

    def error(self, message: str) -> None:
        self._record("error", message)
        sys.stderr.write(f"warren-oci: {message}\n")

    def warn(self, message: str) -> None:
        self._record("warning", message)
        sys.stderr.write(f"warren-oci: warning: {message}\n")

    def traceback(self) -> None:
        if self.debug and self.path:
            import traceback

            for line in traceback.format_exc().splitlines():
                self._record("debug", line)

    def _record(self, level: str, message: str) -> None:
        if not self.path:
            return
        import time

        from .jsontext import dump_json

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.format == "json":
            line = dump_json({"level": level, "msg": message, "time": now})
        else:
            line = f'time="{now}" level={level} msg={dump_json(message)}'
        try:
            flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NONBLOCK
            fd = posix.open(self.path, flags, 0o600)
            posix.write(fd, line.encode() + b"\n")
            posix.close(fd)
        except OSError as error:
            sys.stderr.write(f"warren-oci: log {self.path}: {posix.strerror(error.errno or 0)}\n".lower())


def _main(argv: "list[str]", log: Log) -> int:
    try:
        options, rest = parse(argv, _GLOBAL, stop=True)
    except UsageError:
        log.path, log.format = _spoken("log", argv), _spoken("log-format", argv)
        raise
    log.path, log.debug = options.get("log"), bool(options.get("debug"))
    log.format = options.get("log-format") or "text"
    if log.format not in ("text", "json"):
        raise UsageError(f"unknown log format {log.format!r}", hint="text or json")
    if options.get("version"):
        sys.stdout.write(_version())
        return 0
    if options.get("help") or not rest or rest[0] in ("help", "h"):
        sys.stdout.write(_help())
        return 0
    log.command = rest[0]
    manager = _check_globals(options)
    if rest[0] not in _COMMANDS:
        raise UsageError(f"unknown command {rest[0]!r}", hint="see warren-oci --help")
    words, known = _COMMANDS[rest[0]]
    arguments, _ = parse(rest[1:], {"help h": "", **known}, stop=rest[0] in ("exec", "ps"))
    if arguments.get("help"):
        sys.stdout.write(f"usage: warren-oci {rest[0]} {_option_words(known)}{words}\n")
        return 0
    _check_words(rest[0], words, arguments.words)
    arguments.options["cgroup-manager"] = manager
    run: Callable[[Arguments, str, Log], int] = globals()["_" + rest[0]]
    return run(arguments, options.get("root") or _default_root(), log)


def _spoken(key: str, argv: "list[str]") -> str:
    """The value of a global option on a command line that could not be parsed; "" if it is not there."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == key:
            return value if equals else following
    return ""


def parse(argv: "list[str]", known: "dict[str, str]", *, stop: bool) -> "tuple[Arguments, list[str]]":
    """Parse --key value, --key=value, -k value and booleans, with or without =true; UsageError for others.

    With `stop` the first word that is no option ends them, and it and all behind it come back as they are (and, for
    a command, as words); without, options and words may be mixed.  "--" ends the options.
    """
    names = {alias: (key.split()[0], kind) for key, kind in known.items() for alias in key.split()}
    found, index = Arguments(), 0
    while index < len(argv):
        word = argv[index]
        index += 1
        if word == "--":
            found.words += argv[index:]
            return found, argv[index:]
        if word[:1] != "-" or word == "-":
            if stop:
                found.words = argv[index - 1 :]
                return found, argv[index - 1 :]
            found.words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name not in names:
            raise UsageError(f"unknown option {word.partition('=')[0]!r}", hint="see --help")
        key, kind = names[name]
        if kind in ("=", "*") and not equals:
            if index >= len(argv):
                raise UsageError(f"option --{key} needs a value")
            value = argv[index]
            index += 1
        _store(found.options, key, kind, value if equals or kind in ("=", "*") else "true")
    return found, []


def _store(options: "Json", key: str, kind: str, value: str) -> None:
    if kind == "*":
        options.setdefault(key, []).append(value)
    elif kind == "":
        if value not in ("true", "false", "1", "0"):
            raise UsageError(f"option --{key} is true or false, not {value!r}")
        options[key] = value in ("true", "1")
    else:
        options[key] = value


def _check_words(command: str, usage: str, words: "list[str]") -> None:
    if usage.startswith("ID") and not words:
        raise UsageError(f"{command}: a container id is required")
    most = {"ID": 1, "ID [SIGNAL]": 2, "": 0}.get(usage)
    if most is not None and len(words) > most:
        raise UsageError(f"{command}: unexpected argument {words[most]!r}")


def _check_globals(options: Arguments) -> str:
    """Refuse what no command takes; returns who makes cgroups."""
    manager = options.get("cgroup-manager") or ("systemd" if options.get("systemd-cgroup") else "cgroupfs")
    if manager == "systemd":
        from .cgroups import systemd

        if not systemd.runs_here():
            raise UnsupportedError("--systemd-cgroup: systemd does not run here", hint="use cgroupfs")
    elif manager not in ("cgroupfs", "disabled"):
        raise UsageError(f"unknown cgroup manager {manager!r}", hint="cgroupfs or systemd")
    if options.get("rootless") not in ("", "auto", "true", "false"):
        raise UsageError(f"--rootless {options.get('rootless')!r} is not auto, true or false")
    if posix.geteuid() == 0:
        from .host import warning_for_root

        if warning := warning_for_root(__file__.rpartition("/")[0]):
            sys.stderr.write(f"warren-oci: warning: {warning}\n")
    return str(manager)


def _default_root() -> str:
    from .container import default_root

    return default_root()


# ---- lifecycle


def _bundle(arguments: Arguments) -> "Bundle":
    from .spec import Bundle

    bundle = Bundle.load(arguments.get("bundle") or posix.getcwd(), arguments.get("config"))
    _pass_listened(bundle.spec.config.get("process") or {})
    return bundle


def _options(arguments: Arguments) -> "Options":
    from .launch import Options

    return Options(
        console_socket=arguments.get("console-socket"),
        pid_file=arguments.get("pid-file"),
        pidfd_socket=arguments.get("pidfd-socket"),
        cgroups=_subgroups(arguments.get("cgroup", [])),
        ignore_paused=bool(arguments.get("ignore-paused")),
        preserve_fds=arguments.number("preserve-fds") + _listened(),
        no_pivot=bool(arguments.get("no-pivot")),
        no_new_keyring=bool(arguments.get("no-new-keyring")),
        cgroup_manager=arguments.get("cgroup-manager"),
    )


def _subgroups(words: "list[str]") -> "dict[str, str]":
    """runc's exec --cgroup: PATH for all hierarchies, or CONTROLLER[,CONTROLLER...]:PATH several times, for v1."""
    found: dict[str, str] = {}
    for word in words:
        controllers, colon, path = word.rpartition(":")
        if ":" in controllers or (not colon and len(words) > 1) or (colon and not controllers):
            raise UsageError(f"--cgroup {word!r} is neither PATH nor CONTROLLERS:PATH")
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _listened() -> int:
    """How many sockets a service manager has passed to us (sd_listen_fds(3)); podman says LISTEN_PID=1 to whomever.

    Those that are for another process are none of ours.
    """
    env = posix.environ
    count = env.get(b"LISTEN_FDS", b"")
    ours = env.get(b"LISTEN_PID", b"1") in (b"1", b"%d" % posix.getpid())
    return int(count) if ours and count.isdigit() and len(count) < 5 else 0


def _pass_listened(process: "Json") -> None:
    """Tell the container's process of them: they come first, from descriptor 3 on (runc, crun)."""
    if count := _listened():
        names = posix.environ.get(b"LISTEN_FDNAMES", b"").decode("utf-8", "replace")
        process["env"] = [*(process.get("env") or []), f"LISTEN_FDS={count}", "LISTEN_PID=1"]
        process["env"] += [f"LISTEN_FDNAMES={names}"] if names else []


def _check_terminal(terminal: bool, detached: bool, socket: str) -> None:
    """runc's rules: a detached terminal needs somebody to hold it, and only a terminal needs a socket."""
    if terminal and detached and not socket:
        raise UsageError("a terminal needs --console-socket when the command does not stay")
    if socket and not terminal:
        raise UsageError("--console-socket is given, but process.terminal is false")
    if socket and not detached:
        raise UsageError("--console-socket is only for create and --detach")


def _print_plan(plan: "Any", style: str) -> int:
    from .jsontext import dump_json

    if style not in ("true", "text", "json"):
        raise UsageError(f"unknown plan format {style!r}", hint="text or json")
    if style == "json":
        sys.stdout.write(dump_json(plan.to_list(), 2) + "\n")
    else:
        sys.stdout.write("\n".join(plan.lines()) + "\n")
    return 0


def _create(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    bundle, options = _bundle(arguments), _options(arguments)
    container = Container(arguments.words[0], root)
    if "plan" in arguments.options:
        return _print_plan(container.plan(bundle, options), arguments.get("plan"))
    process = bundle.spec.config.get("process") or {}
    _check_terminal(bool(process.get("terminal")), True, options.console_socket)
    container.create(bundle, options)
    _warn(container, log)
    return 0


def _run(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    bundle, options = _bundle(arguments), _options(arguments)
    container = Container(arguments.words[0], root)
    if "plan" in arguments.options:
        return _print_plan(container.plan(bundle, options, detached=False), arguments.get("plan"))
    terminal = bool((bundle.spec.config.get("process") or {}).get("terminal"))
    detached = bool(arguments.get("detach"))
    _check_terminal(terminal, detached, options.console_socket)
    if detached:
        container.run(bundle, options)
        _warn(container, log)
        return 0
    try:
        return _foreground(lambda: container.run(bundle, options), options, terminal)
    finally:
        if not arguments.get("keep"):
            container.delete(force=True)
        _warn(container, log)


def _foreground(launch: "Callable[[], int]", options: "Options", terminal: bool) -> int:
    """Launch, pass signals on, copy the terminal, wait: the exit code."""
    from .console import Foreground, console_pair, terminal_size

    with Foreground() as foreground:
        if not terminal:
            return foreground.wait(launch()) or 0
        ours, theirs = console_pair()
        try:
            options.console_fd, options.size = theirs.fileno(), terminal_size()
            pid = launch()
            foreground.take_terminal(ours)
        finally:
            ours.close()
            theirs.close()
        return foreground.wait(pid) or 0


def _start(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    container = Container(arguments.words[0], root)
    container.start()
    _warn(container, log)
    return 0


def _warn(container: "Any", log: Log) -> None:
    for warning in container.warnings:
        log.warn(warning)


def _state(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container
    from .jsontext import dump_json

    sys.stdout.write(dump_json(Container(arguments.words[0], root).state(), 2) + "\n")
    return 0


def _kill(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    number = signal_number(arguments.words[1] if len(arguments.words) > 1 else "TERM")
    Container(arguments.words[0], root).kill(number, bool(arguments.get("all")))
    return 0


def _pause(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    Container(arguments.words[0], root).pause()
    return 0


def _resume(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    Container(arguments.words[0], root).resume()
    return 0


def _delete(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    container = Container(arguments.words[0], root)
    container.delete(bool(arguments.get("force")))
    _warn(container, log)
    return 0


def _checkpoint(arguments: Arguments, root: str, log: Log) -> int:
    from .checkpoint import Images
    from .container import Container

    Container(arguments.words[0], root).checkpoint(Images(arguments.options))
    return 0


def _restore(arguments: Arguments, root: str, log: Log) -> int:
    """Like run: in the foreground until the container ends, unless detached."""
    from .checkpoint import Images
    from .container import Container

    bundle, options, images = _bundle(arguments), _options(arguments), Images(arguments.options)
    container = Container(arguments.words[0], root)
    if arguments.get("detach"):
        container.restore(bundle, images, options)
        return 0
    try:
        return _foreground(lambda: container.restore(bundle, images, options), options, False)
    finally:
        container.delete(force=True)


# ---- limits and use

# Options of update, and what they set of linux.resources; sizes have units.
_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"), "cpu-period": ("cpu", "period"), "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"), "cpu-share": ("cpu", "shares"), "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"), "cpu-idle": ("cpu", "idle"), "pids-limit": ("pids", "limit"),
}  # fmt: skip
_SIZES = {
    "kernel-memory": "kernel", "kernel-memory-tcp": "kernelTCP", "memory": "limit", "memory-reservation": "reservation",
    "memory-swap": "swap",
}  # fmt: skip


def _update(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container
    from .spec import validate_resources

    container = Container(arguments.words[0], root)
    source = arguments.get("resources")
    container.update(validate_resources(_read_resources(source) if source else _resources(arguments)))
    return 0


def _read_resources(path: str) -> object:
    from .jsontext import MAX_JSON, parse_json, read_regular

    if path != "-":
        return parse_json(read_regular(path, "resources file"), path)
    with open(0, "rb", closefd=False) as stdin:
        return parse_json(stdin.read(MAX_JSON + 1), "resources from standard input")


def _resources(arguments: Arguments) -> "Json":
    """The single limits, which are ignored where there is a file (runc)."""
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if name in arguments.options:
            raise UnsupportedError(f"--{name}: the container has no resctrl group", hint="leave it out")
    found: Json = {}
    for name, (section, key) in _NUMBERS.items():
        if name in arguments.options:
            found.setdefault(section, {})[key] = _signed(arguments.get(name), name)
    for name, key in _SIZES.items():
        if name in arguments.options:
            text = arguments.get(name)
            found.setdefault("memory", {})[key] = -1 if text == "-1" else size(text, f"--{name}", zero=True)
    for name in ("cpus", "mems"):
        if arguments.get(f"cpuset-{name}"):
            found.setdefault("cpu", {})[name] = arguments.get(f"cpuset-{name}")
    return found


def _signed(text: str, name: str) -> int:
    digits = text.removeprefix("-")
    if not is_number(digits) or len(digits) > 19:
        raise UsageError(f"--{name} {text!r} is not a number")
    return int(text)


def _events(arguments: Arguments, root: str, log: Log) -> int:
    """Statistics every interval, and a line for each process that is killed for lack of memory, until the end."""
    from .cgroups import events
    from .container import Container

    container = Container(arguments.words[0], root)
    seconds = duration(arguments.get("interval") or "5s", "--interval")
    with container.stats_reader(full=True) as reader:
        if arguments.get("stats"):
            _print_line(events.stats_event(container.id, reader.read()))
            return 0
        for killed in container.watch(seconds):
            for _ in range(killed):
                _print_line(events.oom_event(container.id))
            if not killed:
                _print_line(events.stats_event(container.id, reader.read()))
    return 0


def _print_line(value: "Json") -> None:
    from .jsontext import dump_json

    sys.stdout.write(dump_json(value) + "\n")
    sys.stdout.flush()


# ---- exec


def _exec(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container

    container = Container(arguments.words[0], root)
    options = _options(arguments)
    process = _process(arguments, container)
    _pass_listened(process)
    terminal, detached = bool(process.get("terminal")), bool(arguments.get("detach"))
    _check_terminal(terminal, detached, options.console_socket)
    try:
        if not detached:
            return _foreground(lambda: container.exec(process, options), options, terminal)
        container.exec(process, options)
        return 0
    finally:
        _warn(container, log)


def _process(arguments: Arguments, container: "Any") -> "Json":
    """The process object: a file's, or the container's own with the flags laid on it (runc, getProcess)."""
    from .jsontext import parse_json, read_regular
    from .spec import validate_process

    if arguments.get("process"):
        text = read_regular(arguments.get("process"), "process file")
        return validate_process(parse_json(text, arguments.get("process")))
    if len(arguments.words) < 2:
        raise UsageError("exec: a command is required")
    process: Json = container.exec_defaults()
    process["args"] = arguments.words[1:]
    process["terminal"] = bool(arguments.get("tty"))
    process.pop("consoleSize", None)
    process["env"] = [*(process.get("env") or []), *arguments.get("env", [])]
    if arguments.get("cwd"):
        process["cwd"] = arguments.get("cwd")
    if arguments.get("no-new-privs"):
        process["noNewPrivileges"] = True
    if "user" in arguments.options:
        process["user"] = _user(arguments.get("user"), process.get("user") or {})
    if arguments.get("additional-gids"):
        user = process.setdefault("user", {})
        user["additionalGids"] = [*(user.get("additionalGids") or []), *map(_id, arguments.get("additional-gids"))]
    for option, key in (("process-label", "selinuxLabel"), ("apparmor", "apparmorProfile")):
        if arguments.get(option):
            process[key] = arguments.get(option)
    if arguments.get("cap"):
        process["capabilities"] = _capabilities(process.get("capabilities") or {}, arguments.get("cap"))
    return validate_process(process)


def _user(text: str, own: "Json") -> "Json":
    """UID[:GID], digits only (RULES 11); without GID the container's own stays."""
    uid, colon, gid = text.partition(":")
    user = {**own, "uid": _id(uid)}
    if colon:
        user["gid"] = _id(gid)
    return user


def _id(text: str) -> int:
    if not is_number(text) or int(text[:11]) > 0xFFFFFFFE:
        raise UsageError(f"{text!r} is not an id", hint="digits from 0 to 4294967294")
    return int(text)


def _capabilities(own: "Json", names: "list[str]") -> "Json":
    """runc's --cap: into bounding, effective, permitted and, where any are inheritable, ambient."""
    from . import capabilities

    wanted = capabilities.adjust([], names, [])
    sets = {name: list(own.get(name) or []) for name in capabilities.SETS}
    for name in ("bounding", "effective", "permitted"):
        sets[name] += wanted
    if sets["inheritable"]:
        sets["inheritable"] += wanted
        sets["ambient"] += wanted
    return sets


# ---- looking


def _ps(arguments: Arguments, root: str, log: Log) -> int:
    from .container import Container
    from .jsontext import dump_json

    style = arguments.get("format") or "table"
    pids = Container(arguments.words[0], root).processes()
    if style == "json":
        sys.stdout.write(dump_json(pids) + "\n")
        return 0
    if style != "table":
        raise UsageError(f"unknown format {style!r}", hint="table or json")
    return _ps_table(pids, arguments.words[1:] or ["-ef"])


def _ps_table(pids: "list[int]", options: "list[str]") -> int:
    """The lines of ps(1) about these processes, found by its PID column."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    program = next((p for p in ("/usr/bin/ps", "/bin/ps") if posix.access(p, posix.X_OK)), "")
    if not program:
        raise UnsupportedError("ps is not installed", hint="use --format json")
    actions = [(posix.POSIX_SPAWN_DUP2, writer, 1)]
    pid = posix.posix_spawn(program, ["ps", *options], posix.environ, file_actions=actions)
    posix.close(writer)
    parts = []
    while part := posix.read(reader, 65536):
        parts.append(part)
    posix.close(reader)
    if posix.waitpid(pid, 0)[1]:
        raise UsageError(f"ps refused {' '.join(options)!r}")
    title, *lines = b"".join(parts).decode("utf-8", "replace").splitlines()
    if "PID" not in title.split():
        raise UsageError("ps: no PID column in the output", hint="give ps options that show it")
    column = title.split().index("PID")
    wanted = {str(number) for number in pids}
    sys.stdout.write(title + "\n")
    for line in lines:
        fields = line.split()
        if len(fields) > column and fields[column] in wanted:
            sys.stdout.write(line + "\n")
    return 0


def _list(arguments: Arguments, root: str, log: Log) -> int:
    from .container import list_containers
    from .jsontext import dump_json

    style = arguments.get("format") or "table"
    if style not in ("table", "json"):
        raise UsageError(f"unknown format {style!r}", hint="table or json")
    containers = list_containers(root)
    if arguments.get("quiet"):
        sys.stdout.write("".join([f"{state['id']}\n" for state in containers]))
    elif style == "json":
        sys.stdout.write(dump_json([_list_entry(state) for state in containers]) + "\n")
    else:
        sys.stdout.write("\n".join(_table(containers)) + "\n")
    return 0


def _list_entry(state: "Json") -> "Json":
    return {**state, "owner": _owner(state)}


def _owner(state: "Json") -> str:
    uid = state.get("owner")
    if uid is None:
        return ""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _table(containers: "list[Json]") -> "Iterator[str]":
    rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    for state in containers:
        keys = ("id", "pid", "status", "bundle", "created")
        rows.append([*(str(state.get(key) or (0 if key == "pid" else "")) for key in keys), _owner(state)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "   ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]).rstrip()


def _spec(arguments: Arguments, root: str, log: Log) -> int:
    from .jsontext import dump_json
    from .spec import default_spec

    path = f"{arguments.get('bundle') or '.'}/config.json"
    config = default_spec(bool(arguments.get("rootless")))
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise UsageError(f"{path} exists", hint="remove it first") from error
    posix.write(fd, dump_json(config, 4).encode() + b"\n")
    posix.close(fd)
    return 0


def _features(arguments: Arguments, root: str, log: Log) -> int:
    """features.md and features-linux.md: what this version knows, whatever the host can do of it."""
    from .container import OCI_VERSION
    from .jsontext import dump_json
    from .namespaces.mount import MOUNT_OPTIONS
    from .spec import HOOKS

    features = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": MOUNT_OPTIONS,
        "linux": _linux_features(),
        "annotations": {"org.warren.version": _package_version()},
        # A name that ends with a dot is a prefix.
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    }
    sys.stdout.write(dump_json(features, 2) + "\n")
    return 0


def _linux_features() -> "Json":
    from . import capabilities, namespaces
    from .host import Host
    from .seccomp.document import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS, WAIT_KILLABLE
    from .spec import MEMORY_FLAGS, MEMORY_MODES

    enabled = {"enabled": True}
    return {
        "namespaces": sorted(namespaces.TYPES),
        "capabilities": list(capabilities.NAMES),
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
        "seccomp": {
            "enabled": True,
            "actions": sorted(ACTIONS),
            "operators": sorted(OPERATORS),
            "archs": sorted(ARCHITECTURES),
            "knownFlags": sorted(FLAGS),
            "supportedFlags": sorted(FLAGS if Host.probe().kernel >= (5, 19) else set(FLAGS) - {WAIT_KILLABLE}),
        },
        "apparmor": enabled,
        "selinux": enabled,
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "memoryPolicy": {"modes": list(MEMORY_MODES), "flags": list(MEMORY_FLAGS)},
        "mountExtensions": {"idmap": enabled},
        "netDevices": enabled,
    }


def _package_version() -> str:
    from . import __version__

    return __version__


def _version() -> str:
    from .container import OCI_VERSION

    version = _package_version()
    return f"warren-oci version {version}\ncommit: v{version}\nspec: {OCI_VERSION}\n"


def _option_words(known: "dict[str, str]") -> str:
    return "".join([f"[--{key.split()[0]}{' VALUE' if kind in ('=', '*') else ''}] " for key, kind in known.items()])


def _help() -> str:
    lines = ["usage: warren-oci " + _option_words(_GLOBAL) + "COMMAND ...", "", "commands:"]
    lines += [f"  {name} {_option_words(known)}{words}".rstrip() for name, (words, known) in _COMMANDS.items()]
    return "\n".join(lines) + "\n"
