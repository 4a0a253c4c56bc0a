"""Options of the commands that are typed most, as data; and a parser for them that costs no import of click.

The same table makes click's options (help, completion, messages) and this parser, which refuses whatever it does not
know for certain: the caller then lets click say what is wrong.  to_config() makes of the values what they describe.
"""

import posix

from .config import HOST, ContainerConfig
from .errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .engine.processes import Request

FOREVER = 1e9
"""Seconds; a timer's milliseconds must be a number to C."""
BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
"""What may stand behind the = of a flag, as in docker's --init=true."""
FLAG, TEXT, NUMBER, SECONDS, MANY = "flag", "text", "number", "seconds", "many"


class Option:
    """One option: its `kind`, its names, and the key under which its value is found."""

    __slots__ = ("choices", "default", "group", "help", "key", "kind", "metavar", "names")

    def __init__(
        self, kind: str, names: str, metavar: str, help: str, default: "Any" = None, choices: "Sequence[str]" = ()
    ) -> None:
        self.kind = kind
        self.names = names.split()
        self.key = max(self.names, key=len).lstrip("-").replace("-", "_")
        self.metavar = metavar
        self.help = help
        self.default = {FLAG: False, TEXT: "", MANY: ()}.get(kind) if default is None else default
        self.choices = choices
        self.group = ""

    def value(self, text: str) -> "Any":
        """The value that a word stands for; ValueError."""
        if self.choices and text not in self.choices:
            raise ValueError(text)
        if self.kind == NUMBER:
            return int(text)
        if self.kind == SECONDS and not 0 < float(text) < FOREVER:
            raise ValueError(text)
        return float(text) if self.kind == SECONDS else text


def flag(names: str, help: str) -> Option:
    return Option(FLAG, names, "", help)


def text(names: str, metavar: str, help: str, default: "str | None" = "", choices: "Sequence[str]" = ()) -> Option:
    option = Option(TEXT, names, metavar, help, choices=choices)
    option.default = default
    return option


def number(names: str, metavar: str, help: str, default: "int | None" = None) -> Option:
    return Option(NUMBER, names, metavar, help, default)


def many(names: str, metavar: str, help: str) -> Option:
    return Option(MANY, names, metavar, help)


def parse(options: "Sequence[Option]", words: "Sequence[str]") -> "tuple[dict[str, Any], list[str]] | None":
    """Values by key, and the words from the first that is no option; None for what only click can tell about."""
    known = {name: option for option in options for name in option.names}
    values: dict[str, Any] = {option.key: option.default for option in options}
    rest = list(words)
    try:
        while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
            word = rest.pop(0)
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                _take(known[name], values, rest, value if equals else None)
            else:
                _take_letters(word[1:], known, values, rest)
    except (KeyError, ValueError, IndexError):
        return None
    return values, rest[1:] if rest[:1] == ["--"] else rest


def _take_letters(letters: str, known: "dict[str, Option]", values: "dict[str, Any]", rest: "list[str]") -> None:
    """Short options may stand together, the last one with its value behind it: -itw/tmp."""
    while letters:
        option, letters = known["-" + letters[0]], letters[1:]
        if option.kind == FLAG:
            _take(option, values, rest, None)
        else:
            _take(option, values, rest, letters or None)
            return


def _take(option: Option, values: "dict[str, Any]", rest: "list[str]", value: "str | None") -> None:
    if option.kind == FLAG:
        values[option.key] = BOOLEANS[value or ""] if value is not None else True
        return
    found = option.value(rest.pop(0) if value is None else value)
    values[option.key] = (*values[option.key], found) if option.kind == MANY else found


def to_config(words: "Sequence[str]", values: "dict[str, Any]") -> ContainerConfig:
    """The configuration that options and words describe; UsageError."""
    values = dict(values)
    env_files, label_files = values.pop("env_file"), values.pop("label_file")
    values["env"] = _environment(env_files, values["env"])
    values["labels"] = [*(line for path in label_files for line in _lines(path, "--label-file")), *values.pop("label")]
    for name in ("volume", "mount", "ulimit", "device", "annotation", "log_opt"):
        values[name + "s"] = values.pop(name)
    values["auto_remove"] = values.pop("rm")
    values["exposed_ports"] = values.pop("expose")
    values["network"], values["networks"] = _networks(values["network"], values)
    image, command = _command(list(words), values["rootfs"])
    if values["write"] and image:
        raise UsageError("--write is for --rootfs: layers of images are shared", hint="see --keep-changes")
    if values["platform"] and not image:
        raise UsageError("--platform is for images", hint="this host runs its own programs only")
    if bad := next((label for label in values["labels"] if not label.partition("=")[0].strip()), ""):
        raise UsageError(f"--label {bad!r} has no key", hint="KEY=VALUE")
    known = {key: value for key, value in values.items() if key in ContainerConfig.__slots__}
    return ContainerConfig(command, image=image, id="", **known)


def to_request(words: "Sequence[str]", values: "dict[str, Any]") -> "tuple[str, Request]":
    """The container and the process in it that the options and words of `exec` describe; UsageError."""
    from .engine.processes import Request

    if not words:
        raise UsageError("no container is given", hint="warren exec CONTAINER COMMAND...")
    name, argv = words[0], list(words[1:])
    argv = argv[1:] if argv[:1] == ["--"] else argv
    if not argv:
        raise UsageError("no command is given", hint="warren exec CONTAINER COMMAND...")
    known = {key: values[key] for key in Request.__slots__ if key in values and key != "env"}
    return name, Request(argv, env=_environment(values["env_file"], values["env"]), **known)


def _environment(files: "Sequence[str]", entries: "Sequence[str]") -> "list[str]":
    """NAME=VALUE of --env-file and, on top, --env."""
    return [*(entry for path in files for entry in _env_file(path)), *_env(entries)]


_MODES = ("none", "host", "private", "pasta", "slirp4netns")
_FOR_NETWORKS = ("publish", "publish_all", "egress", "network_alias", "ip", "ip6", "mac_address")
"""Options without a meaning on the host's network, or without one."""


def _networks(words: "Sequence[str]", values: "dict[str, Any]") -> "tuple[str, list[str]]":
    """The mode, and with bridge the names of networks; "" where nothing is said: networking.py has the default."""
    modes = [word for word in words if word in _MODES or word.startswith(("container:", "ns:"))]
    if not modes:
        return ("bridge", list(words)) if words else ("", [])
    if len(words) > 1:
        raise UsageError(f"--network {modes[0]}: there can be no other network beside it")
    if modes[0] not in ("private", "pasta", "slirp4netns"):
        for key in _FOR_NETWORKS:
            if values[key]:
                raise UsageError(f"--{key.replace('_', '-')}: not with --network {modes[0]}")
    return modes[0], []


def _command(words: "list[str]", rootfs: str) -> "tuple[str, list[str]]":
    """The image, "" for the host or a directory, and the command behind; a "--" between the two is allowed."""
    image = ""
    if not rootfs:
        if not words:
            raise UsageError("no source and no command are given", hint="warren run host -- COMMAND")
        if not words[0]:
            raise UsageError("the image has no name", hint="warren run IMAGE COMMAND")
        image, words = "" if words[0] == HOST else words[0], words[1:]
    return image, words[1:] if words[:1] == ["--"] else words


def _env(entries: "Sequence[str]") -> "list[str]":
    """NAME=VALUE as it is; NAME alone takes the caller's value, if there is one."""
    found = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if not name:
            raise UsageError(f"--env {entry!r} has no name")
        if equals:
            found.append(entry)
        elif (value := posix.environ.get(name.encode("utf-8", "surrogateescape"))) is not None:
            found.append(f"{name}={value.decode('utf-8', 'surrogateescape')}")
    return found


def _env_file(path: str) -> "list[str]":
    return _env(_lines(path, "--env-file"))


def _lines(path: str, option: str) -> "list[str]":
    """docker's format: an entry a line, # begins a comment, nothing is unquoted."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(1 << 20).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{option} {path}: {reason}".lower()) from error
    return [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _boot_timeout() -> Option:
    return Option(SECONDS, "--boot-timeout", "SECONDS", "How long a virtual machine may take to come up (60).", 60.0)


def _grouped(group: str, options: "Sequence[Option]") -> "list[Option]":
    for option in options:
        option.group = group
    return list(options)


RUN = [
    *_grouped("General", [
        flag("-i --interactive", "Give the container this command's standard input."),
        flag("-t --tty", "Give it a terminal."),
        text("--name", "NAME", "A name for the container."),
        flag("--rm", "Remove the container when it ends."),
        flag("--replace", "Remove a container that has the name first."),
        text("--pull", "POLICY", "When to fetch the image: missing, always or never.", "missing",
             ("missing", "always", "never")),
        text("--platform", "OS/ARCH[/VARIANT]", "Of the image."),
        flag("-q --quiet", "Do not show the progress of a pull."),
        many("-l --label", "KEY[=VALUE]", "Note something on the container."),
        many("--label-file", "FILE", "Read labels from a file."),
        many("--annotation", "KEY=VALUE", "Add an annotation to its OCI configuration."),
        text("--cidfile", "FILE", "Write the container's id there."),
        text("--entrypoint", "COMMAND", "Put a command before the given one.", None),
        many("-e --env", "NAME[=VALUE]", "Set a variable; without a value, this command's own."),
        many("--env-file", "FILE", "Read variables from a file."),
        text("-w --workdir", "DIR", "The working directory."),
        text("-u --user", "USER[:GROUP]", "Name or number of the user.", None),
        text("-h --hostname", "NAME", "The host name."),
        flag("--init", "Run a reaper as process 1."),
        Option(SECONDS, "--timeout", "SECONDS", "Kill it then."),
        text("--stop-signal", "SIGNAL", "What `stop` sends (TERM)."),
        number("--stop-timeout", "SECONDS", "How long `stop` waits before it kills (10)."),
        text("--restart", "POLICY", "no, on-failure[:MAX], always or unless-stopped."),
        text("--log-driver", "DRIVER", "json-file, k8s-file or none."),
        many("--log-opt", "KEY=VALUE", "max-size=SIZE, max-file=NUMBER."),
        text("--detach-keys", "KEYS", "What leaves the container alone (ctrl-p,ctrl-q).")]),
    *_grouped("Root and mounts", [
        text("--rootfs", "DIR", "Use this directory as the root, below an overlay."),
        flag("--write", "Let the container write to the directory of --rootfs."),
        text("--keep-changes", "DIR", "Keep what is written to the root (not to further mounts) in DIR/upper."),
        many("--hide", "PATH", "Cover a path of the root."),
        flag("--read-only", "Make the root read-only."),
        many("-v --volume", "SRC:DST[:OPTIONS]", "Bind a path of the host or a volume (ro, rw, z, U, O, rslave...)."),
        many("--mount", "KEY=VALUE,...", "type=bind|volume|tmpfs, source, target, readonly..."),
        many("--tmpfs", "DST[:OPTIONS]", "Mount a tmpfs."),
        many("--volumes-from", "CONTAINER[:ro]", "The mounts of another container."),
        text("--shm-size", "SIZE", "Size of /dev/shm.", "64m"),
        many("--device", "HOST[:CONTAINER[:rwm]]", "Give it a device, or a CDI device VENDOR/CLASS=NAME.")]),
    *_grouped("Isolation", [
        many("--cap-add", "NAME", "Add a capability."),
        many("--cap-drop", "NAME", "Drop a capability."),
        many("--security-opt", "OPTION",
             "no-new-privileges=false, seccomp=FILE, systempaths=unconfined, mask=, unmask="),
        many("--ulimit", "TYPE=SOFT[:HARD]", "Set a resource limit."),
        many("--sysctl", "KEY=VALUE", "Set a parameter of one of the container's namespaces."),
        flag("--privileged", "All capabilities, no user namespace, nothing masked."),
        text("--isolation", "KIND", "container, or the same as a virtual machine: vm, vm:microvm, vm:pc or vm:uml."),
        text("--kernel", "FILE", "The kernel of a virtual machine."),
        text("--accel", "HOW", "What runs its processor: auto, kvm or tcg.", "auto", ("auto", "kvm", "tcg")),
        _boot_timeout(),
        text("--pid", "NS", "host, private, container:NAME or ns:PATH."),
        text("--ipc", "NS", "host, private, container:NAME or ns:PATH."),
        text("--uts", "NS", "host, private, container:NAME or ns:PATH."),
        text("--userns", "NS", "host or private (the default)."),
        text("--cgroupns", "NS", "host or private (the default).")]),
    *_grouped("Network", [
        many("--network --net", "NET[:ip=,mac=,alias=]",
             "bridge (the default), none, host, private, container:NAME, ns:PATH, or names of networks."),
        many("-p --publish", "[[IP:]PORT:]PORT[/PROTOCOL]", "Give a port of the container at the host's."),
        flag("-P --publish-all", "Give every port that the image exposes at a random one."),
        many("--expose", "PORT[/PROTOCOL]", "A port for --publish-all."),
        many("--egress", "RULE,...", "All it may reach: none, or NAME[:PORT], ADDRESS[/BITS][:PORT], *.NAME."),
        many("--network-alias --net-alias", "NAME", "A further name on its networks."),
        text("--ip", "ADDRESS", "Its IPv4 address."),
        text("--ip6", "ADDRESS", "Its IPv6 address."),
        text("--mac-address", "MAC", "Its hardware address."),
        many("--dns", "ADDRESS", "Ask this name server."),
        many("--dns-search", "DOMAIN", "Complete names with it; . for none."),
        many("--dns-option --dns-opt", "OPTION", "An option of resolv.conf."),
        many("--add-host", "NAME:ADDRESS", "Add a line to /etc/hosts; host-gateway is the host's address.")]),
    *_grouped("Health", [
        text("--health-cmd", "COMMAND", "What tells whether it is well.", None),
        text("--health-interval", "DURATION", "Between two checks (30s)."),
        text("--health-timeout", "DURATION", "How long one may take (30s)."),
        text("--health-start-period", "DURATION", "While it starts a failed check does not count."),
        number("--health-retries", "NUMBER", "How many must fail in a row (3).", 0),
        flag("--no-healthcheck", "Not even the image's.")]),
    *_grouped("Limits", [
        text("-m --memory", "SIZE", "Limit of memory."),
        text("--memory-swap", "SIZE", "Limit of memory and swap together; -1 for none."),
        text("--memory-reservation", "SIZE", "Memory that others leave it."),
        number("--memory-swappiness", "0-100", "How willingly it swaps."),
        flag("--oom-kill-disable", "Let it wait for memory instead of being killed."),
        text("--cpus", "NUMBER", "Processors' worth of time, such as 1.5."),
        number("-c --cpu-shares", "2-262144", "Weight; 1024 is the default.", 0),
        number("--cpu-quota", "MICROSECONDS", "Time in each period.", 0),
        number("--cpu-period", "MICROSECONDS", "Length of a period.", 0),
        text("--cpuset-cpus", "LIST", "Processors it may use, such as 0-2,7."),
        text("--cpuset-mems", "LIST", "Memory nodes it may use."),
        number("--pids-limit", "NUMBER", "Limit of processes (1024); 0 or -1 for none."),
        number("--blkio-weight", "10-1000", "Weight of its block I/O.", 0),
        many("--blkio-weight-device", "PATH:WEIGHT", "The same for one device."),
        many("--device-read-bps", "PATH:SIZE", "Limit of bytes read a second."),
        many("--device-write-bps", "PATH:SIZE", "Limit of bytes written a second."),
        many("--device-read-iops", "PATH:NUMBER", "Limit of reads a second."),
        many("--device-write-iops", "PATH:NUMBER", "Limit of writes a second."),
        many("--device-cgroup-rule", "RULE", 'Allow more devices: "c 10:229 rwm".'),
        text("--cgroup-parent", "PATH", "Cgroup to make the container's in."),
        flag("--best-effort", "Note limits that this host cannot hold, instead of refusing.")]),
]  # fmt: skip
"""Of `run` and `create`."""
ONLY_RUN = _grouped("General", [
    flag("-d --detach", "Leave it running and print its id."),
    many("-a --attach", "STREAM", "stdin, stdout or stderr: these only."),
    text("--sig-proxy", "BOOL", "Pass signals on to it (true).", "true", ("true", "false")),
    number("--replicas", "NUMBER", "Start so many of them, detached, and print a line each.", 0),
    text("--plan", "FORMAT", "Print the steps (text or json), launch nothing.", None, ("text", "json")),
])  # fmt: skip
EXEC = _grouped("General", [
    flag("-i --interactive", "Give the process this command's standard input."),
    flag("-t --tty", "Give it a terminal."),
    flag("-d --detach", "Leave it running."),
    many("-e --env", "NAME[=VALUE]", "Set a variable; without a value, this command's own."),
    many("--env-file", "FILE", "Read variables from a file."),
    text("-w --workdir", "DIR", "The working directory."),
    text("-u --user", "USER[:GROUP]", "Name or number of the user.", None),
    flag("--privileged", "All capabilities that the container can have."),
    text("--detach-keys", "KEYS", "What leaves the process alone (ctrl-p,ctrl-q)."),
])  # fmt: skip
START = _grouped("General", [
    flag("-a --attach", "Show its output, pass signals on, end with its exit code."),
    flag("-i --interactive", "Give it this command's standard input."),
    text("--detach-keys", "KEYS", "What leaves the container alone (ctrl-p,ctrl-q)."),
])  # fmt: skip
RESTART = _grouped("General", [
    number("-t --time --timeout", "SECONDS", "Until it is killed (10); -1 for never."),
])  # fmt: skip
STOP = [*RESTART, *_grouped("General", [
    text("-s --signal", "SIGNAL", "Instead of the container's stop signal."),
])]  # fmt: skip
KILL = _grouped("General", [
    text("-s --signal", "SIGNAL", "By name or number (KILL).", "KILL"),
])  # fmt: skip
RM = _grouped("General", [
    flag("-f --force", "Also those that run; they are killed."),
    flag("-v --volumes", "With their anonymous volumes."),
])  # fmt: skip
PS = [
    flag("-a --all", "Also those that do not run."),
    many("-f --filter", "KEY=VALUE", "Of id, name, label, status, exited, ancestor, before, since, volume, network, "
         "health, publish, expose."),
    text("--format", "TEMPLATE", "json, table, or a Go template."),
    number("-n --last", "NUMBER", "The last so many that were made.", -1),
    flag("-l --latest", "The last one that was made."),
    flag("--no-trunc", "Print whole ids and commands."),
    flag("-q --quiet", "Print ids only."),
    flag("-s --size", "Print what they take on disk."),
]  # fmt: skip


def _given(option: Option) -> Option:
    """The same for `update`: None where it is not given."""
    return Option(option.kind, " ".join(option.names), option.metavar, option.help)


UPDATE = [
    _given(option)
    for option in RUN
    if option.key in (
        "memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpu_quota", "cpu_period", "cpuset_cpus",
        "cpuset_mems", "pids_limit", "blkio_weight", "restart",
    )
]  # fmt: skip
for _option in UPDATE:
    _option.default = None
