"""The table of contents of a container: create_plan() and exec_plan() turn a spec into a launch plan.

Order lives here and nowhere else, and order is the security design (ARCHITECTURE.md, "Launch order").  The spec and
what Host.probe() found alone determine the plan; nothing here opens, mounts or starts anything.
"""

from . import capabilities, cgroups, namespaces
from .errors import SpecError, UnsupportedError
from .namespaces import devices, mount, network, rootfs, user, uts
from .steps import (
    ALL_STREAMS,
    COMMAND_SLOT,
    CONSOLE_SLOT,
    FIFO_SLOT,
    INIT_SLOT,
    MAKE_DIR,
    MUST_EXIST,
    PIDFD_SLOT,
    REPORT_SLOT,
    LaunchPlan,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cgroups import Cgroup
    from .host import Host
    from .seccomp import Program
    from .spec import Spec
    from .steps import Step

    Json = dict[str, object]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RLIMITS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
_KEY_USR_SEARCH = 0x080000  # keyctl_setperm(3): `exec` finds the keyring by its name.
_DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}


class Wiring:
    """What a plan must know of how its launch is wired, beyond the spec."""

    __slots__ = (
        "command", "detached", "enter", "idle", "init", "keyring", "monitor", "no_pivot", "pdeathsig", "preserve_fds",
        "resctrl", "seccomp", "size", "streams", "supervise",
    )  # fmt: skip

    def __init__(
        self,
        *,
        detached: bool = False,
        no_pivot: bool = False,
        preserve_fds: int = 0,
        pdeathsig: int = 0,
        init: bool = False,
        size: "tuple[int, int]" = (0, 0),
        seccomp: "Program | None" = None,
        keyring: str = "",
        resctrl: "list[str] | None" = None,
        monitor: "Sequence[Step]" = (),
        streams: int = 0,
        supervise: "tuple[bytes, int, int] | None" = None,
        idle: bool = False,
        command: bool = False,
        enter: str = "",
    ) -> None:
        self.detached = detached  # create: wait for start between set-up and the user's program
        self.no_pivot = no_pivot
        self.preserve_fds = preserve_fds
        self.pdeathsig = pdeathsig
        self.init = init
        self.size = size
        self.seccomp = seccomp  # linux.seccomp, compiled
        self.resctrl = resctrl or []  # tasks files of the container's class of Intel RDT
        self.monitor = monitor  # the steps that leave one behind
        self.streams = ALL_STREAMS if monitor else streams  # those that are pipes made for this process, a bit each
        self.supervise = supervise  # arguments of that step, for a hypervisor
        self.idle = idle  # nothing is run
        self.command = command  # what is run comes later
        self.enter = enter  # a directory that the user enters, where it may
        self.keyring = keyring  # name of the container's session keyring; "" leaves it the caller's


def create_plan(spec: "Spec", host: "Host", cgroup: "Cgroup", wiring: Wiring) -> LaunchPlan:
    """Order everything that happens between the caller's namespaces and the user's program.

    Raises SpecError and UnsupportedError for what cannot be done as asked.
    """
    _refuse_unsupported(spec, host)
    cgroups.check(spec.config, cgroup, host)
    plan = LaunchPlan()
    process = _process(spec, wiring)
    mounts = mount.load(spec)
    nodes = devices.Devices(spec, mounts)

    # The monitor is forked while nothing of the container is there: it stays out of its cgroup and namespaces.
    plan.lead(wiring.monitor)
    _give_streams(plan, spec, host, process, wiring)

    # Outside: everything that needs the host's paths and privileges.
    if cgroup.unit:
        plan.add("sync", "cgroup")
    _adjust_oom_score(plan, process)
    cgroup_slot = _join_cgroup(plan, cgroup, wiring)
    if program := cgroups.assemble_device_program(spec.config, cgroup, host):
        plan.add("device_program", cgroup_slot, program)
    if host.privileged:
        root = _clone_sources(plan, spec, host, mounts, nodes)
    network_slot = network.order(plan, spec, host)
    userns = user.create(plan, spec, host, network_slot)
    if host.privileged:
        _set_attributes(plan, spec, root, mounts, userns)
    namespaces.enter(plan, spec, userns, host.privileged)
    plan.add("clone", namespaces.new_flags(spec, network_slot), cgroup_slot)

    # Inside: the container is built by its own root.
    if wiring.pdeathsig:
        plan.add("pdeathsig", wiring.pdeathsig)
    user.setup_ids(plan, spec, host, _ids(process))
    plan.add("setsid")
    if wiring.keyring:
        plan.add("keyring", wiring.keyring, _KEY_USR_SEARCH)
    network.take_devices(plan, spec)
    network.take_links(plan, spec)
    plan.add("propagation", mount.SLAVE)
    if not host.privileged:
        root = _clone_sources(plan, spec, host, mounts, nodes)
        _set_attributes(plan, spec, root, mounts, -1)
    rootfs.build(plan, root, spec, host)
    mount.attach(plan, mounts, spec, host, cgroup.unified, cgroup.legacy)
    devices.build(plan, nodes)
    if process.get("terminal"):
        plan.add("console", CONSOLE_SLOT, 1, *_size(process, wiring))
    _create_hooks(plan, spec)
    plan.add("chroot" if wiring.no_pivot else "pivot_root")
    uts.set_names(plan, spec)
    network.raise_loopback(plan, spec)
    network.quiet_links(plan, spec)
    for key, value in ((spec.config.get("linux") or {}).get("sysctl") or {}).items():
        plan.add("sysctl", _sysctl_path(key), value)
    rootfs.finish(plan, root, spec)
    mount.keep_propagation(plan, mounts, rootfs.propagation(spec))

    if cgroup.holds_late(spec.config, host):
        plan.add("sync", "limits")
    _become_user(plan, spec, host, process, wiring, MAKE_DIR)
    if (spec.config.get("hooks") or {}).get("startContainer"):
        plan.add("sync", "startContainer")
    if wiring.detached:
        plan.add("wait_start", FIFO_SLOT, REPORT_SLOT)
    _hooks(plan, spec, "startContainer")
    _execute(plan, host, process, wiring)
    network.take(plan, network_slot)
    return plan


def exec_plan(spec: "Spec", host: "Host", cgroup: "Cgroup", process: "Json", types: int, wiring: Wiring) -> LaunchPlan:
    """Order what another process in a running container needs.

    `types` are the CLONE_NEW flags of the namespaces in which the container differs from the caller; they are joined
    at once through a pidfd of the container's init (setns(2)), so that no pid can be mistaken.
    """
    plan = LaunchPlan()
    plan.lead(wiring.monitor)
    _give_streams(plan, spec, host, process, wiring)
    if cgroup.unit and not (host.privileged and host.initial_userns):
        plan.add("sync", "cgroup")
    _adjust_oom_score(plan, process)
    _run_on(plan, process, "initial")
    cgroup_slot = _join_cgroup(plan, cgroup, wiring)
    plan.add("undumpable")
    if types:
        plan.add("setns", PIDFD_SLOT, types)
    plan.add("clone", 0, cgroup_slot)
    _run_on(plan, process, "final")
    if wiring.pdeathsig:
        plan.add("pdeathsig", wiring.pdeathsig)
    if types & namespaces.NEWUSER:
        user.setup_ids(plan, spec, host, _ids(process))
    plan.add("setsid")
    if wiring.keyring:
        plan.add("keyring", wiring.keyring, 0)
    if process.get("terminal"):
        plan.add("console", CONSOLE_SLOT, 0, *_size(process, wiring))
    _become_user(plan, spec, host, process, wiring, MUST_EXIST)
    _execute(plan, host, process, wiring)
    return plan


def _give_streams(plan: LaunchPlan, spec: "Spec", host: "Host", process: "Json", wiring: Wiring) -> None:
    """Make the pipes that were made for it the user's own: who opens /dev/stderr needs that, and inside nobody could
    give them.

    An inode whose owner the user namespace does not map is out of its root's reach (user_namespaces(7)).
    """
    if wiring.streams and host.privileged and not process.get("terminal"):
        owner = user.host_user(spec.config, process)
        if owner >= 0:
            plan.add("own_stdio", owner, 0, wiring.streams)


def _adjust_oom_score(plan: LaunchPlan, process: "Json") -> None:
    """Set outside, where /proc is the host's and our own file in it is ours; children inherit it (proc(5))."""
    if process.get("oomScoreAdj") is not None:
        plan.add("oom_score_adj", process["oomScoreAdj"])  # type: ignore[arg-type]


def _run_on(plan: LaunchPlan, process: "Json", moment: str) -> None:
    """Processors for `exec`, before and after the cgroup has been joined (config.md, execCPUAffinity)."""
    if process.get("execCPUAffinity"):
        from . import scheduling

        mask = scheduling.affinity(process, moment)
        if mask is not None:
            plan.add("affinity", mask)


def _clone_sources(
    plan: LaunchPlan, spec: "Spec", host: "Host", mounts: "list[mount.Mount]", nodes: devices.Devices
) -> rootfs.Root:
    root = rootfs.clone(plan, spec)
    mount.clone_sources(plan, mounts)
    devices.clone(plan, nodes, spec, host)
    return root


def _set_attributes(
    plan: LaunchPlan, spec: "Spec", root: rootfs.Root, mounts: "list[mount.Mount]", userns: int
) -> None:
    rootfs.set_attributes(plan, root, spec, userns)
    mount.set_attributes(plan, mounts, userns)


def _join_cgroup(plan: LaunchPlan, cgroup: "Cgroup", wiring: Wiring) -> int:
    """Join v1 hierarchies, and resctrl, while single-threaded; open the v2 directory for clone3(2)."""
    for path in [*cgroup.join_paths(), *wiring.resctrl]:
        plan.add("cgroup_join", path)
    if not cgroup.unified:
        return -1
    slot = plan.slot()
    plan.add("open_path", slot, cgroup.unified, 0o200000)  # O_DIRECTORY
    return slot


def _become_user(plan: LaunchPlan, spec: "Spec", host: "Host", process: "Json", wiring: Wiring, cwd: int) -> None:
    """Limits, working directory and privileges, the ones that give up power last."""
    uid, gid = _ids(process)
    account: Json = process.get("user") or {}  # type: ignore[assignment]
    for limit in process.get("rlimits") or []:  # type: ignore[attr-defined]
        plan.add("rlimit", _RLIMITS[limit["type"]], _signed(limit["soft"]), _signed(limit["hard"]))
    if process.get("scheduler") or process.get("ioPriority"):
        from . import scheduling

        scheduling.add_steps(plan, process)
    if process.get("apparmorProfile") or process.get("selinuxLabel"):
        from . import labels

        labels.add_steps(plan, process, host)
    if uid:
        plan.add("own_stdio", uid, gid, ALL_STREAMS)
    _set_personality(plan, spec)
    if policy := (spec.config.get("linux") or {}).get("memoryPolicy"):
        from . import scheduling

        plan.add("memory_policy", *scheduling.memory_policy(policy))
    # The working directory is entered with the set-up's power, so that WORKDIR may lie where the user cannot go (runc).
    plan.add("chdir", process["cwd"], cwd)  # type: ignore[arg-type]
    sets = _capability_masks(plan, spec, host, process)
    if process.get("capabilities") is not None:
        plan.add("bounding", sets["bounding"])
    groups = [str(group) for group in account.get("additionalGids") or []]  # type: ignore[attr-defined]
    can_set = user.can_setgroups(spec, host)
    if groups and not can_set:
        raise UnsupportedError(
            "process.user.additionalGids: supplementary groups cannot be set with a single-id map",
            hint="give the user subordinate ids in /etc/subgid",
        )
    filter = wiring.seccomp
    if filter and not process.get("noNewPrivileges"):
        # It takes CAP_SYS_ADMIN, which is about to go; what follows is bound by the filter (RULES 15; runc does so).
        plan.add("seccomp", filter.program, filter.flags, 0)
    plan.add("user", uid, gid, int(can_set), groups)
    if account.get("umask") is not None:
        plan.add("umask", account["umask"])  # type: ignore[arg-type]
    if process.get("capabilities") is not None:
        # The kernel raises an ambient capability only if it is permitted and inheritable (capabilities(7)); `runc spec`
        # itself writes others, and runc lets them go.
        ambient = sets["ambient"] & sets["inheritable"] & sets["permitted"]
        plan.add("capabilities", sets["effective"], sets["permitted"], sets["inheritable"], ambient)
    if process.get("noNewPrivileges"):
        plan.add("no_new_privs")
    if wiring.enter:
        plan.add("chdir", wiring.enter, MUST_EXIST)
    args: list[str] = process["args"]  # type: ignore[assignment]
    if args and not wiring.idle and not wiring.command:
        plan.add("find", args[0], _search_path(process))
    if filter and filter.notify and process.get("noNewPrivileges"):
        # The agent must get the listener while somebody is here to pass it on: before the wait for start.
        plan.add("seccomp", filter.program, filter.flags, 0)


def _set_personality(plan: LaunchPlan, spec: "Spec") -> None:
    """The execution domain of linux.personality (personality(2)); its flags are not defined yet (config-linux.md)."""
    personality = (spec.config.get("linux") or {}).get("personality")
    if not personality:
        return
    if personality.get("flags"):
        raise UnsupportedError("linux.personality.flags is not supported", hint="no flag is defined by the spec")
    plan.add("personality", _DOMAINS[personality["domain"]])


def _execute(plan: LaunchPlan, host: "Host", process: "Json", wiring: Wiring) -> None:
    filter = wiring.seccomp
    if filter and not filter.notify and process.get("noNewPrivileges"):
        # As late as can be; but the reaper, whom the container's processes may attack, is bound by it, too.
        plan.add("seccomp", filter.program, filter.flags, int(not wiring.init and not wiring.supervise))
    if wiring.command:
        plan.add("wait_command", COMMAND_SLOT)
        return
    if wiring.idle:
        plan.add("idle", INIT_SLOT)
        return
    if wiring.supervise:
        plan.add("supervise", *wiring.supervise)
    elif wiring.init:
        # Root needs no other memory of it to enter the container, and what cannot be traced inside is safer.
        plan.add("reap", -1 if host.privileged else INIT_SLOT)
    args: list[str] = process["args"]  # type: ignore[assignment]
    env: list[str] = process.get("env") or []  # type: ignore[assignment]
    plan.add("exec", args, env, wiring.preserve_fds)


def _create_hooks(plan: LaunchPlan, spec: "Spec") -> None:
    """prestart and createRuntime run in the runtime's namespaces, by Python; createContainer in the container's."""
    hooks = spec.config.get("hooks") or {}
    if any(hooks.get(kind) for kind in ("prestart", "createRuntime", "createContainer")):
        plan.add("sync", "createRuntime")
    _hooks(plan, spec, "createContainer")


def _hooks(plan: LaunchPlan, spec: "Spec", kind: str) -> None:
    for hook in (spec.config.get("hooks") or {}).get(kind) or []:
        args = hook.get("args") or [hook["path"]]
        plan.add("hook", hook["path"], args, hook.get("env") or [], hook.get("timeout") or 0)


def _process(spec: "Spec", wiring: Wiring) -> "Json":
    """The process object, which only `start` demands (config.md, "Process")."""
    process = spec.config.get("process")
    if not process and wiring.detached:
        return {"args": [], "cwd": "/"}
    if not process or not process.get("args"):
        raise SpecError("process.args: required to run a container")
    return process  # type: ignore[no-any-return]


def _ids(process: "Json") -> "tuple[int, int]":
    account: Json = process.get("user") or {}  # type: ignore[assignment]
    return int(account.get("uid") or 0), int(account.get("gid") or 0)  # type: ignore[call-overload]


def _size(process: "Json", wiring: Wiring) -> "tuple[int, int]":
    box: dict[str, int] = process.get("consoleSize") or {}  # type: ignore[assignment]
    return (int(box["height"]), int(box["width"])) if box else wiring.size


def _capability_masks(plan: LaunchPlan, spec: "Spec", host: "Host", process: "Json") -> dict[str, int]:
    """The sets of process.capabilities, less what cannot be granted: that is logged and fails nothing (config.md)."""
    sets: dict[str, list[str]] = process.get("capabilities") or {}  # type: ignore[assignment]
    # A user namespace starts with all of them; without one nobody gives what he does not have.
    ours = -1 if "user" in spec.namespaces() else host.capabilities
    if missing := capabilities.not_in(ours, [word for name in capabilities.SETS for word in sets.get(name) or []]):
        plan.notes.append(f"process.capabilities: cannot be granted: {', '.join(missing)}")
    return {name: capabilities.mask(sets.get(name) or [])[0] & ours for name in capabilities.SETS}


def _search_path(process: "Json") -> str:
    """PATH of the process's environment (the last one counts, as in runc), else the usual default."""
    for entry in reversed(process.get("env") or []):  # type: ignore[call-overload]
        if entry.startswith("PATH="):
            return str(entry[5:])
    return DEFAULT_PATH


def _signed(value: int) -> int:
    """A rlim_t as the plan's int64; RLIM_INFINITY becomes -1."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _sysctl_path(key: str) -> str:
    """sysctl(8): separators are '.' unless the first one is '/'; then '.' belongs to a name (an interface)."""
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key
    return key.replace("/", "\0").replace(".", "/").replace("\0", ".")


def _refuse_unsupported(spec: "Spec", host: "Host") -> None:
    """An UnsupportedError for what a bundle asks and this version or host cannot do: never silently weaker."""
    config = spec.config
    linux = config.get("linux") or {}
    kinds = spec.namespaces()
    if linux.get("netDevices") and not host.privileged:
        raise UnsupportedError("linux.netDevices: only root can move the host's network devices")
    if linux.get("intelRdt") and not host.resctrl:
        raise UnsupportedError(
            "linux.intelRdt: no resctrl file system is mounted here",
            hint="mount it on /sys/fs/resctrl, if the processor and the kernel have it",
        )
    if "mount" not in kinds:
        raise SpecError("linux.namespaces: a container needs a mount namespace")
    if not host.privileged and kinds.get("user") is None:
        raise UnsupportedError(
            "an ordinary user needs a user namespace", hint="add it to linux.namespaces, or use spec --rootless"
        )
