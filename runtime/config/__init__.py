"""ContainerConfig: what a user asked for, in docker's words; and make_spec(), which turns it into a Spec.

Everything that a person may get wrong is found here, before anything is made: UsageError for words that are off,
UnsupportedError for what this host or version cannot do.
"""

import posix

from .. import capabilities
from ..cgroups import devices
from ..errors import UnsupportedError, UsageError
from ..host import Host, Mount
from ..jsontext import dump_json, parse_json, read_regular
from ..namespaces.mount import normal
from ..namespaces.user import RANGE, subordinate_map
from ..plan import DEFAULT_PATH
from ..quantities import size
from ..seccomp import default_profile, is_default, text_of
from ..seccomp.docker import plain
from ..spec import SPEC_VERSION, Layers, Spec, validate
from . import limits, mounts
from .accounts import Accounts
from .sources import (
    NO_IDMAP,
    OWN_IN_CONTAINER,
    has_mqueue,
    host_devices,
    is_below,
    is_directory,
    is_shown,
    need_directory,
    root_of,
    unprivileged_root,
)
from .words import (
    Edits,
    absolute,
    absolute_path,
    device,
    device_node,
    is_cdi_name,
    mount_entry,
    pair,
    rlimits,
    security_options,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Json = dict[str, Any]

HOST = "host"
OWN_NETWORK = ("none", "bridge", "pasta", "slirp4netns")
"""Modes of a network namespace of the container's own; what is in it is the engine's business."""
_SAFE = ["nosuid", "noexec", "nodev"]


class ContainerConfig:
    """One container as a user describes it; the names are docker's options, the defaults DESIGN's.

    source      "host", or with `rootfs` anything
    rootfs      a directory to use as the root, "" for the host's own
    image       its name instead; the engine then fills in `layers`, directories, the topmost first
    argv        the command and its arguments
    env         NAME=VALUE entries, later ones win
    user        NAME|UID[:NAME|GID] as the root file system's /etc/passwd and /etc/group know them
    volumes     [SRC:]DST[:OPTIONS]; mounts: type=bind|volume|tmpfs,src=,dst=,...; tmpfs: DST[:OPTIONS]
    resolved_mounts  what the engine has made of these, the image's volumes and those of other containers
    userns      "" (the default for the caller), host, private
    pid, ipc, uts  "" or private, host, ns:PATH
    network     none, host, ns:PATH; bridge with names of `networks`; private: of an ordinary user's own; "" the default
    publish ... add_host   docker's options of networks
    files       (source, target): what the engine binds over the image's: /etc/hosts and the like
    timeout     seconds, None for ever
    init, idle  a reaper as process 1; it runs nothing
    memory ... device_cgroup_rule   limits as docker writes them ("512m", "1.5"); pids_limit None is the default, 1024
    cgroupns    "" or private, host
    isolation   "" or container, vm, vm:KIND; kernel, accel and boot_timeout (seconds) are of a virtual machine
    labels ... detach_keys  what the engine does with the container: docker's options; the image_* are its image's part
    best_effort note limits that this host cannot hold, instead of refusing them
    """

    __slots__ = (
        "accel", "add_host", "annotations", "argv", "auto_remove", "best_effort", "blkio_weight",
        "blkio_weight_device", "boot_timeout", "cap_add", "cap_drop", "cgroup_parent", "cgroupns", "cpu_period",
        "cpu_quota", "cpu_shares", "cpus", "cpuset_cpus", "cpuset_mems", "detach_keys", "device_cgroup_rule",
        "device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops", "devices", "dns", "dns_option",
        "dns_search", "egress", "entrypoint", "env", "exposed_ports", "files", "health_cmd", "health_interval",
        "health_retries", "health_start_period", "health_timeout", "hide", "hostname", "id", "idle", "image",
        "image_health", "image_volumes", "init", "interactive", "ip", "ip6", "ipc", "isolation", "keep_changes",
        "kernel", "labels", "layers", "log_driver", "log_opts", "mac_address", "memory", "memory_reservation",
        "memory_swap", "memory_swappiness", "mounts", "name", "network", "network_alias", "networks", "no_healthcheck",
        "oom_kill_disable", "pid", "pids_limit", "privileged", "publish", "publish_all", "read_only",
        "resolved_mounts", "restart", "rootfs", "security_opt", "shm_size", "stdin_once", "stop_signal",
        "stop_timeout", "sysctl", "timeout", "tmpfs", "tty", "ulimits", "user", "userns", "uts", "volumes",
        "volumes_from", "workdir", "write",
    )  # fmt: skip

    def __init__(
        self,
        argv: "Sequence[str]",
        *,
        id: str,
        rootfs: str = "",
        image: str = "",
        layers: "Sequence[str]" = (),
        write: bool = False,
        keep_changes: str = "",
        hide: "Sequence[str]" = (),
        name: str = "",
        env: "Sequence[str]" = (),
        workdir: str = "",
        user: "str | None" = None,
        hostname: str = "",
        read_only: bool = False,
        volumes: "Sequence[str]" = (),
        mounts: "Sequence[str]" = (),
        tmpfs: "Sequence[str]" = (),
        cap_add: "Sequence[str]" = (),
        cap_drop: "Sequence[str]" = (),
        security_opt: "Sequence[str]" = (),
        ulimits: "Sequence[str]" = (),
        sysctl: "Sequence[str]" = (),
        devices: "Sequence[str]" = (),
        shm_size: str = "64m",
        pid: str = "",
        ipc: str = "",
        uts: str = "",
        network: str = "none",
        networks: "Sequence[str]" = (),
        publish: "Sequence[str]" = (),
        egress: "Sequence[str]" = (),
        network_alias: "Sequence[str]" = (),
        dns: "Sequence[str]" = (),
        dns_search: "Sequence[str]" = (),
        dns_option: "Sequence[str]" = (),
        add_host: "Sequence[str]" = (),
        publish_all: bool = False,
        ip: str = "",
        ip6: str = "",
        mac_address: str = "",
        files: "Sequence[tuple[str, str]]" = (),
        userns: str = "",
        init: bool = False,
        idle: bool = False,
        privileged: bool = False,
        entrypoint: "str | None" = None,
        interactive: bool = False,
        tty: bool = False,
        timeout: "float | None" = None,
        memory: str = "",
        memory_swap: str = "",
        memory_reservation: str = "",
        memory_swappiness: "int | None" = None,
        oom_kill_disable: bool = False,
        cpus: str = "",
        cpu_shares: int = 0,
        cpu_quota: int = 0,
        cpu_period: int = 0,
        cpuset_cpus: str = "",
        cpuset_mems: str = "",
        pids_limit: "int | None" = None,
        blkio_weight: int = 0,
        blkio_weight_device: "Sequence[str]" = (),
        device_read_bps: "Sequence[str]" = (),
        device_write_bps: "Sequence[str]" = (),
        device_read_iops: "Sequence[str]" = (),
        device_write_iops: "Sequence[str]" = (),
        device_cgroup_rule: "Sequence[str]" = (),
        cgroup_parent: str = "",
        cgroupns: str = "",
        best_effort: bool = False,
        labels: "Sequence[str]" = (),
        annotations: "Sequence[str]" = (),
        auto_remove: bool = False,
        restart: str = "",
        stop_signal: str = "",
        stop_timeout: "int | None" = None,
        log_driver: str = "",
        log_opts: "Sequence[str]" = (),
        volumes_from: "Sequence[str]" = (),
        stdin_once: bool = False,
        health_cmd: "str | None" = None,
        health_interval: str = "",
        health_timeout: str = "",
        health_start_period: str = "",
        health_retries: int = 0,
        no_healthcheck: bool = False,
        image_health: "Json | None" = None,
        image_volumes: "Sequence[str]" = (),
        exposed_ports: "Sequence[str]" = (),
        detach_keys: str = "",
        resolved_mounts: "Sequence[Json]" = (),
        isolation: str = "",
        kernel: str = "",
        accel: str = "auto",
        boot_timeout: float = 60.0,
    ) -> None:
        for key, value in locals().items():
            if key in self.__slots__:
                setattr(self, key, value)

    if TYPE_CHECKING:
        argv: Sequence[str]
        id: str
        rootfs: str
        image: str
        layers: Sequence[str]
        write: bool
        keep_changes: str
        hide: Sequence[str]
        name: str
        env: Sequence[str]
        workdir: str
        user: str | None
        hostname: str
        read_only: bool
        volumes: Sequence[str]
        mounts: Sequence[str]
        tmpfs: Sequence[str]
        cap_add: Sequence[str]
        cap_drop: Sequence[str]
        security_opt: Sequence[str]
        ulimits: Sequence[str]
        sysctl: Sequence[str]
        devices: Sequence[str]
        shm_size: str
        pid: str
        ipc: str
        uts: str
        network: str
        networks: Sequence[str]
        publish: Sequence[str]
        egress: Sequence[str]
        network_alias: Sequence[str]
        dns: Sequence[str]
        dns_search: Sequence[str]
        dns_option: Sequence[str]
        add_host: Sequence[str]
        publish_all: bool
        ip: str
        ip6: str
        mac_address: str
        files: Sequence[tuple[str, str]]
        userns: str
        init: bool
        idle: bool
        privileged: bool
        entrypoint: str | None
        interactive: bool
        tty: bool
        timeout: float | None
        memory: str
        memory_swap: str
        memory_reservation: str
        memory_swappiness: int | None
        oom_kill_disable: bool
        cpus: str
        cpu_shares: int
        cpu_quota: int
        cpu_period: int
        cpuset_cpus: str
        cpuset_mems: str
        pids_limit: int | None
        blkio_weight: int
        blkio_weight_device: Sequence[str]
        device_read_bps: Sequence[str]
        device_write_bps: Sequence[str]
        device_read_iops: Sequence[str]
        device_write_iops: Sequence[str]
        device_cgroup_rule: Sequence[str]
        cgroup_parent: str
        cgroupns: str
        best_effort: bool
        labels: Sequence[str]
        annotations: Sequence[str]
        auto_remove: bool
        restart: str
        stop_signal: str
        stop_timeout: int | None
        log_driver: str
        log_opts: Sequence[str]
        volumes_from: Sequence[str]
        stdin_once: bool
        health_cmd: str | None
        health_interval: str
        health_timeout: str
        health_start_period: str
        health_retries: int
        no_healthcheck: bool
        image_health: Json | None
        image_volumes: Sequence[str]
        exposed_ports: Sequence[str]
        detach_keys: str
        resolved_mounts: Sequence[Json]
        isolation: str
        kernel: str
        accel: str
        boot_timeout: float

    def copy(self, **changes: "Any") -> "ContainerConfig":
        """Another with the same values but for `changes`; lists are shared, and nobody changes one in place."""
        made = object.__new__(ContainerConfig)
        for key in self.__slots__:
            setattr(made, key, changes[key] if key in changes else getattr(self, key))
        return made

    def to_dict(self) -> "Json":
        """What differs from the defaults, as JSON has it."""
        plain = ContainerConfig([], id="")
        values = {key: getattr(self, key) for key in self.__slots__}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
            if value != getattr(plain, key) and not (isinstance(value, (list, tuple)) and not value)
        }

    @classmethod
    def from_dict(cls, values: "Json") -> "ContainerConfig":
        """The configuration that to_dict() has told; what later versions have added is left out."""
        known = {key: value for key, value in values.items() if key in cls.__slots__}
        return cls(known.pop("argv", []), id=known.pop("id", ""), **known)


def make_spec(config: ContainerConfig, host: Host, first_id: int, enforced: "dict[str, str]") -> Spec:
    """The Spec of a container.  `first_id` begins its range of the host's ids when root gives it one (lease_ids).

    Notes what is weaker than the default, with the reason, in `enforced`.
    """
    builder = _Builder(config, host, first_id, enforced)
    spec = builder.build()
    validate(_to_validate(spec.config))
    return spec


def _to_validate(config: "Json") -> "Json":
    """All but the default seccomp profile, which is larger than the rest and the same for all containers."""
    linux = config["linux"]
    if not is_default(linux.get("seccomp")):
        return config
    return {**config, "linux": {key: value for key, value in linux.items() if key != "seccomp"}}


def wants_userns(config: ContainerConfig, host: Host) -> bool:
    """Whether the container gets a user namespace of its own.

    Root's default is one where nothing speaks against it (no_default_userns); UsageError and UnsupportedError.
    """
    if config.userns not in ("", "host", "private", "auto"):
        raise UsageError(f"--userns {config.userns!r} is unknown", hint="host or private")
    if not host.privileged:
        if config.userns == "host":
            raise UnsupportedError("--userns host: an ordinary user cannot do without a user namespace")
        if reason := host.no_user_namespaces:
            raise UnsupportedError(f"user namespaces are not allowed here: {reason}", hint="ask the administrator")
        return True
    if config.userns:
        return config.userns != "host"
    return not config.privileged and not no_default_userns(config, host)


def no_default_userns(config: ContainerConfig, host: Host) -> str:
    """Why root's default of a user namespace cannot be had here; "" when it can."""
    if config.write:
        return "--write gives the container the directory with its own ids"
    if not host.initial_userns:
        return "this process runs in a user namespace itself, without the ids"
    if host.kernel < (5, 19):
        return "layers of an overlay can be idmapped since Linux 5.19"
    return ""


class _Builder:
    """Collects a spec; one method per part of it."""

    def __init__(self, config: ContainerConfig, host: Host, first_id: int, enforced: "dict[str, str]") -> None:
        self.config = config
        self.host = host
        self.first_id = first_id
        self.enforced = enforced
        self.userns = wants_userns(config, host)
        # Where ids are mapped by root, the file systems below are idmapped instead of chowned.
        self.idmap = ["ridmap"] if self.userns and host.privileged else []
        self.on_host = not config.rootfs and not config.layers
        self.root = config.layers[-1] if config.layers else root_of(config.rootfs, config.write)
        self.namespaces = self._namespaces()
        self.security = security_options(config.security_opt)
        self.accounts = Accounts(config.layers or [self.root])
        self.cdi = self._cdi([text for text in config.devices if is_cdi_name(text)])
        plain = [device(text) for text in config.devices if not is_cdi_name(text)]
        self.devices = [*plain, *self.cdi.nodes]
        """The host's path, the container's node and what it may do with it, of each device that is given."""

    def _cdi(self, names: "list[str]") -> Edits:
        if not names:
            return Edits()
        from .cdi import edits

        return edits(names)

    def build(self) -> Spec:
        config = self.config
        uid, gid, groups, home = self._user()
        spec: Json = {
            "ociVersion": SPEC_VERSION,
            "process": {
                "terminal": config.tty,
                "user": {"uid": uid, "gid": gid, "additionalGids": self._groups(groups)},
                "args": self._args(),
                "env": self._env(home),
                "cwd": self._cwd(),
                "capabilities": self._capabilities(),
                "rlimits": rlimits(config.ulimits, self.host),
                "noNewPrivileges": self.security.no_new_privileges,
            },
            "root": {"path": self.root, "readonly": config.read_only},
            "mounts": [*self._kernel_mounts(), *self._source_mounts(), *self._user_mounts()],
            "linux": self._linux(uid, gid),
            "annotations": {
                **dict(pair(text, "--annotation") for text in config.annotations),
                "org.warren.name": config.name or config.id[:12],
            },
        }
        if self.cdi.hooks:
            spec["hooks"] = self.cdi.hooks
        if self.namespaces.get("uts") == "":
            spec["hostname"] = self._hostname()
        elif config.hostname:
            raise UsageError("--hostname cannot be set in somebody else's UTS namespace")
        return Spec(spec, "/", self._layers())

    # ---- process

    def _args(self) -> "list[str]":
        args = list(self.config.argv)
        if self.config.entrypoint:
            args.insert(0, self.config.entrypoint)
        if not args:
            raise UsageError("no command is given", hint="warren run SOURCE COMMAND...")
        return args

    def _env(self, home: str) -> "list[str]":
        values = {"PATH": DEFAULT_PATH, "HOSTNAME": self._hostname(), "HOME": home}
        if self.namespaces.get("uts"):
            del values["HOSTNAME"]  # Somebody else's, and it may change.
        if self.config.tty:
            values["TERM"] = posix.environ.get(b"TERM", b"xterm").decode("utf-8", "replace")
        for entry in [*self.config.env, *self.cdi.env]:
            name, _, value = entry.partition("=")
            values[name] = value
        return [f"{name}={value}" for name, value in values.items()]

    def _hostname(self) -> str:
        """docker's default: the id's beginning, but the host's own name on the host's network."""
        if self.config.uts == "host" or (self.config.network == "host" and not self.config.hostname):
            return posix.uname().nodename
        return self.config.hostname or self.config.id[:12]

    def _cwd(self) -> str:
        """--workdir; for the host's own root the caller's directory, if it exists in the container."""
        if self.config.workdir:
            if not self.config.workdir.startswith("/"):
                raise UsageError(f"--workdir {self.config.workdir!r} is not an absolute path")
            return self.config.workdir
        if not self.on_host:
            return "/"
        try:
            here = posix.getcwd()
        except FileNotFoundError:
            return "/"
        hidden = (*OWN_IN_CONTAINER, *self._hidden())
        return "/" if not here.startswith("/") or any(is_below(here, path) for path in hidden) else here

    def _user(self) -> "tuple[int, int, list[int], str]":
        """Uid, gid, supplementary gids and home directory."""
        user = self.accounts.find(self.config.user if self.config.user is not None else "0")
        groups = user.groups if ":" not in (self.config.user or "") else []
        if not self.host.privileged and not self.host.subordinate("gid")[1]:
            # A single-id map denies setgroups(2) (user_namespaces(7)).
            if groups:
                self.enforced["supplementary_groups"] = "none: no subordinate ids in /etc/subgid"
            groups = []
        return user.uid, user.gid, groups, user.home

    def _groups(self, groups: "list[int]") -> "list[int]":
        """With those that CDI devices need, where supplementary groups can be had."""
        wanted = [*groups, *(gid for gid in self.cdi.gids if gid not in groups)]
        if self.cdi.gids and not self.host.privileged and not self.host.subordinate("gid")[1]:
            self.enforced["supplementary_groups"] = "none: no subordinate ids in /etc/subgid"
            return groups
        return wanted

    def _capabilities(self) -> "Json":
        config = self.config
        base = capabilities.DEFAULT
        add = list(config.cap_add)
        if config.privileged:
            add.append("ALL")
        kept = capabilities.adjust(base, add, config.cap_drop)
        if not self.userns:
            kept = self._own_capabilities(kept)
        root = self.accounts.find(config.user if config.user is not None else "0").uid == 0
        own = kept if root else []
        return {"bounding": kept, "permitted": own, "effective": own, "inheritable": [], "ambient": []}

    def _own_capabilities(self, wanted: "list[str]") -> "list[str]":
        """Nobody can give more than he has: ALL and the default mean what there is, a name is meant as it is."""
        own = capabilities.names(self.host.capabilities)
        named = [word for word in self.config.cap_add if word.upper() not in ("ALL", "CAP_ALL")]
        for name in capabilities.adjust((), named, ()):
            if name in wanted and name not in own:
                raise UnsupportedError(f"--cap-add {name}: this process does not have it", hint="run as full root")
        if lacking := [name for name in capabilities.DEFAULT if name in wanted and name not in own]:
            self.enforced["capabilities"] = f"without {', '.join(lacking)}: this process does not have them"
        return [name for name in wanted if name in own]

    # ---- namespaces, ids, paths

    def _namespaces(self) -> "dict[str, str]":
        config, found = self.config, {"mount": ""}
        if config.cgroupns not in ("", "private", "host"):
            raise UsageError(f"--cgroupns {config.cgroupns!r} is unknown", hint="host or private")
        if config.cgroupns != "host":
            found["cgroup"] = ""
        for kind, word in (("pid", config.pid), ("ipc", config.ipc), ("uts", config.uts), ("network", config.network)):
            if word in ("", "private") or (kind == "network" and word in OWN_NETWORK):
                found[kind] = ""
            elif word.startswith("ns:/"):
                found[kind] = word[3:]
            elif word.startswith("container:"):
                raise UnsupportedError(f"--{kind} {word} is not resolved", hint="use ns:PATH")
            elif word != "host":
                raise UsageError(f"--{kind} {word!r} is unknown", hint="host, private or ns:PATH")
        if self.userns:
            found["user"] = ""
        return found

    def _linux(self, uid: int, gid: int) -> "Json":
        config = self.config
        linux: Json = {
            "namespaces": [
                {"type": kind, **({"path": path} if path else {})} for kind, path in self.namespaces.items()
            ],
            "maskedPaths": [*([] if self._unmasked else self.security.masked), *self._hidden()],
            "readonlyPaths": [] if self._unmasked else self.security.readonly,
            "devices": [] if self.userns else [*self._host_devices(), *(node for _, node, _ in self.devices)],
        }
        if self.userns:
            linux["uidMappings"] = self._mappings("uid", uid)
            linux["gidMappings"] = self._mappings("gid", gid)
        resources = limits.resources(config, self.host, self.enforced)
        rules = [] if config.privileged else self._device_rules()
        if not config.privileged and self.host.privileged:
            resources["devices"] = [{"allow": False, "access": "rwm"}, *rules]
        if resources:
            linux["resources"] = resources
        if path := limits.cgroups_path(config):
            linux["cgroupsPath"] = path
        if self.cdi.rdt:
            linux["intelRdt"] = self.cdi.rdt
        if self.cdi.net_devices:
            linux["netDevices"] = self.cdi.net_devices
        if profile := self._seccomp():
            linux["seccomp"] = profile
        sysctls = {**self._friendly_network(linux), **dict(pair(text, "--sysctl") for text in config.sysctl)}
        if sysctls:
            linux["sysctl"] = sysctls
        return linux

    def _friendly_network(self, linux: "Json") -> "dict[str, str]":
        """ping(8) and low ports need no capability in a network of the container's own, as docker has it."""
        config = self.config
        if self.namespaces.get("network") != "" or config.isolation not in ("", "container"):
            return {}
        if self.userns and self.namespaces.get("pid") != "":
            return {}  # It could not mount the procfs through which settings are made.
        ids = linux.get("gidMappings") or [{"containerID": 0, "size": 1 << 31}]
        first = min(entry["containerID"] for entry in ids)
        # The kernel refuses ids that the user namespace does not map.
        last = max(entry["containerID"] + entry["size"] for entry in ids) - 1
        return {
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": f"{first} {min(last, (1 << 31) - 1)}",
        }

    def _seccomp(self) -> "Json | None":
        """The default profile, made for the container's capabilities; a file's; or none."""
        choice = self.security.seccomp
        if choice == "unconfined" or (choice == "builtin" and self.config.privileged):
            return None
        arch, bounding = posix.uname().machine, set(self._capabilities()["bounding"])
        if choice == "builtin":
            return default_profile(bounding, arch)
        path = absolute_path(choice)
        return plain(parse_json(read_regular(path, path), path), bounding, arch, self.host.kernel)

    def _hidden(self) -> "list[str]":
        paths = [normal(absolute(path)) for path in self.config.hide]
        if "/" in paths:
            raise UsageError("--hide / would leave nothing", hint="use --rootfs with an empty directory")
        return paths

    def _device_rules(self) -> "list[Json]":
        """Rules for the devices that are given; with the node goes what may be done with it."""
        config = self.config
        enforced = self.host.privileged and bool(devices.holder(self.host))
        rules = []
        for source, node, permissions in self.devices:
            if not enforced and not config.best_effort and not {"r", "w"} <= set(permissions):
                raise UnsupportedError(
                    f"--device {source}: permissions cannot be enforced here", hint="leave them out to allow everything"
                )
            place = {key: node[key] for key in ("type", "major", "minor")}
            rules.append({"allow": True, "access": permissions, **place})
        if config.device_cgroup_rule and not enforced:
            if not config.best_effort:
                raise UnsupportedError("--device-cgroup-rule: nobody holds device rules here", hint="needs root")
            self.enforced["device_cgroup_rule"] = "not enforced: nobody holds device rules here"
        rules += limits.device_rules(config.device_cgroup_rule)
        # Where nobody holds them, the record of the container says so.
        return rules if enforced else []

    def _host_devices(self) -> "list[Json]":
        """--privileged: the devices of the host (docker; runc, HostDevices), but for what every container has."""
        return [device_node(path, path) for path in host_devices()] if self.config.privileged else []

    @property
    def _unmasked(self) -> bool:
        return self.config.privileged or self.security.unconfined_paths

    def _mappings(self, kind: str, wanted: int) -> "list[dict[str, int]]":
        if self.host.privileged:
            return [{"containerID": 0, "hostID": self.first_id, "size": RANGE}]
        if mappings := subordinate_map(self.host, kind):
            return mappings
        own = self.host.euid if kind == "uid" else self.host.egid
        self.enforced[f"{kind}_map"] = f"a single id: no subordinate ids in /etc/sub{kind}, or no newuidmap"
        return [{"containerID": wanted, "hostID": own, "size": 1}]

    # ---- root and mounts

    def _layers(self) -> "Layers | None":
        config = self.config
        is_default = self.host.privileged and not config.userns and not config.privileged
        if is_default and (reason := no_default_userns(config, self.host)):
            self.enforced["user_namespace"] = f"off: {reason}"
        if config.rootfs and config.write:
            if config.keep_changes:
                raise UsageError("--keep-changes and --write exclude each other")
            return None
        keep = absolute_path(config.keep_changes) if config.keep_changes else ""
        if keep:
            need_directory(keep, "--keep-changes")
        if self.on_host and not self.host.privileged:
            if keep:
                hint = "use an image or --rootfs, or mount a directory with -v"
                raise UnsupportedError("--keep-changes of the host's root needs root", hint=hint)
            return Layers([])
        return Layers(list(config.layers) or [self.root], keep, bool(self.idmap))

    def _kernel_mounts(self) -> "list[Json]":
        # Group 5 owns terminals, where it is mapped (devpts.rst, gid).
        tty_group = ["gid=5"] if self.host.privileged or self.host.subordinate("gid")[1] > 5 else []
        pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty_group]
        shm_size = size(self.config.shm_size, "--shm-size")
        readonly = [] if self.config.privileged else ["ro"]
        mounts = [
            mount_entry("/proc", "proc", "proc", _SAFE),
            mount_entry("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount_entry("/dev/pts", "devpts", "devpts", pts),
            self._shm(shm_size),
            mount_entry("/dev/mqueue", "mqueue", "mqueue", _SAFE),
            self._sys(readonly),
            mount_entry("/sys/fs/cgroup", "cgroup", "cgroup", [*_SAFE, "relatime", *readonly]),
        ]
        if self.namespaces.get("pid") is None:
            # A procfs shows the namespace it was mounted from; the host's is bound, as a user namespace demands.
            mounts[0] = mount_entry("/proc", "bind", "/proc", ["rbind", *_SAFE])
        if self.namespaces.get("ipc") is None:
            mounts[4] = mount_entry("/dev/mqueue", "bind", "/dev/mqueue", ["rbind", *_SAFE])
        if self.on_host:
            mounts.append(mount_entry("/run", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=755"]))
            mounts.append(mount_entry("/tmp", "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=1777"]))
        there = has_mqueue(self.host) and (self.namespaces.get("ipc") is not None or is_directory("/dev/mqueue"))
        return mounts if there else [m for m in mounts if m["destination"] != "/dev/mqueue"]

    def _shm(self, bytes: int) -> "Json":
        if self.namespaces.get("ipc") is None:
            return mount_entry("/dev/shm", "bind", "/dev/shm", ["rbind", *_SAFE])
        return mount_entry("/dev/shm", "tmpfs", "shm", [*_SAFE, "mode=1777", f"size={bytes}"])

    def _sys(self, readonly: "list[str]") -> "Json":
        """A new sysfs belongs to the owner of the network namespace; with another's the host's is bound."""
        if self.namespaces.get("network") == "" or not self.userns:
            return mount_entry("/sys", "sysfs", "sysfs", [*_SAFE, *readonly])
        return mount_entry("/sys", "bind", "/sys", ["rbind", *_SAFE, *["r" + word for word in readonly]])

    def _source_mounts(self) -> "list[Json]":
        """What the root is completed by: for the host's own, everything that is mounted below it."""
        if not self.on_host:
            return []
        if not self.host.privileged:
            return unprivileged_root(self.host.mounts)
        # Of mounts on one point the last one is seen.
        mounts = {mount.point: mount for mount in self.host.mounts if is_shown(mount) and mount.point != "/"}
        return [self._further(mounts[point]) for point in sorted(mounts, key=lambda point: point.count("/"))]

    def _further(self, mount: Mount) -> "Json":
        """A further mount of the host: overlaid like the root, or read-only where that cannot be."""
        point = mount.point
        if mount.type in NO_IDMAP or not is_directory(point):
            return mount_entry(point, "bind", point, ["bind", "ro"])
        return mount_entry(point, "bind", point, ["bind", "O", *self.idmap])

    def _user_mounts(self) -> "list[Json]":
        config = self.config
        wishes = mounts.resolved(config)
        self._check_wishes(wishes)
        uid, gid, _, _ = self._user()
        found = [mounts.entry(wish, self.idmap, (uid, gid)) for wish in wishes]
        places = [normal(str(mount["destination"])) for mount in found]
        # What the user mounts there comes first.
        found += [mount_entry(to, "bind", source, ["bind"]) for source, to in config.files if to not in places]
        for entry in self.cdi.mounts:
            idmap = self.idmap if entry["type"] == "bind" else []
            found.append({**entry, "options": [*entry["options"], *idmap]})
        if self.userns:
            # mknod(2) makes no devices in a user namespace: the host's node is bound.
            found += [mount_entry(node["path"], "bind", source, ["bind"]) for source, node, _ in self.devices]
            if self.cdi.owned:
                self.enforced["device_owners"] = "the host's: in a user namespace its nodes are bound, not made"
        if self.userns and config.privileged:
            usable = [path for path in host_devices() if posix.access(path, posix.R_OK | posix.W_OK)]
            found += [mount_entry(path, "bind", path, ["bind"]) for path in usable]
        return found

    def _check_wishes(self, wishes: "list[mounts.Wish]") -> None:
        """What is asked of mounts and this host or user cannot do."""
        for wish in wishes:
            if "idmap" in wish.options and not self.idmap:
                reason = "only root can" if not self.host.privileged else "the container has no user namespace"
                raise UnsupportedError(f"idmap of {wish.target}: {reason}", hint="leave the option idmap out")
        if any({"z", "Z"} & set(wish.options) for wish in wishes):
            # Nothing of a container is confined by SELinux here: there is no label that would let it in or keep it out.
            self.enforced["selinux_relabel"] = "not done: no container is confined by SELinux here"


def raw_config(spec: Spec) -> bytes:
    """A spec's config as bytes, for the intent record."""
    linux = spec.config.get("linux") or {}
    if "seccomp" not in linux:
        return dump_json(spec.config).encode()
    rest = dump_json({key: value for key, value in spec.config.items() if key != "linux"})
    others = dump_json({key: value for key, value in linux.items() if key != "seccomp"})
    return f'{_begun(rest)}"linux":{_begun(others)}"seccomp":{text_of(linux["seccomp"])}}}}}'.encode()


def _begun(text: str) -> str:
    """An object's text without its end, for another member."""
    return text[:-1] + ("," if len(text) > 2 else "")
