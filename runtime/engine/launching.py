"""One launch of a container: the namespaces and ids that it takes, its spec, and the way back."""

from errno import EINVAL, EPERM

from ..config import ContainerConfig, make_spec, mounts, raw_config, wants_userns
from ..config.ids import lease_ids, reclaim_ids, release_ids
from ..config.sources import is_below
from ..container import Container, default_root, sweep
from ..errors import LaunchError, UnsupportedError
from ..host import Host
from ..launch import Options
from ..spec import Bundle
from . import networking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec import Spec
    from ..steps import LaunchPlan
    from ..vm import Machine
    from .volumes import Places

_NAMESPACES = {"pid": "pid", "ipc": "ipc", "uts": "uts", "network": "net"}
"""Option: its name under /proc/PID/ns."""
_FIRST_RANGE = 0x70000000


class Launch:
    """A container that is about to be launched from its configuration, whose `layers` are known.

    `fill` is for its first launch: empty volumes get what the image has in their place.  `scratch` allows what cannot
    be kept of the root's changes to be thrown away, with a note.
    """

    def __init__(
        self, config: ContainerConfig, options: Options, root: str = "", *, fill: bool = True, scratch: bool = False
    ) -> None:
        self.config = config
        self.options = options
        self.fill = fill
        self.scratch = scratch
        self.root = root or default_root()
        self.container = Container(config.id, self.root)
        options.init = config.init
        options.idle = config.idle
        options.best_effort = config.best_effort
        options.cgroup_manager = "auto"
        self.machine: Machine | None = None
        """The virtual machine that it is, once it has been launched."""

    def run(self) -> int:
        """Start it; its pid.  Without a user namespace where a file system cannot be idmapped and nobody insists.

        Raises what Container.run() raises; nothing is left then.
        """
        self._join_containers()
        networking.settle_mode(self.config, self.options)
        places = self._places()
        try:
            return self._try()
        finally:
            if places:
                places.close()

    def _places(self) -> "Places | None":
        """Find the volumes among its mounts, and let `config` have all of them resolved."""
        wanted = mounts.resolved(self.config)
        if not any(wish.type == mounts.VOLUME for wish in wanted):
            return None
        from .volumes import Places

        places = Places(self.config, fill=self.fill)
        self.config.resolved_mounts = [wish.to_dict() for wish in places.wishes]
        return places

    def _try(self) -> int:
        """Launch it, with less where this host cannot give all and nobody insists on it."""
        for _ in range(3):
            try:
                return self._run()
            except LaunchError as error:
                if not self._can_do_without(error):
                    raise
        return self._run()

    def _can_do_without(self, error: LaunchError) -> bool:
        """Take out of the configuration what the host cannot do, and note it; False if it has to be had."""
        enforced = self.options.enforced
        if _is_idmap_failure(error):
            reason = _idmap_reason(error)
            insists = self.config.userns or any("idmap" in wish.options for wish in mounts.resolved(self.config))
            if insists or not Host.probe().privileged:
                raise UnsupportedError(reason, hint="--userns host does without") from error
            self.config.userns = "host"
            self.options.enforced = {**enforced, "user_namespace": f"off: {reason}"}
            return True
        if self.scratch and self.config.keep_changes and error.step is not None and error.step.op == "overlay":
            self.options.enforced = {**enforced, "changes": f"of the root are not kept: {error}"}
            self.config.keep_changes = ""
            return True
        return False

    def plan(self) -> "LaunchPlan":
        """What run() would execute; launches nothing and takes nothing.

        The range of ids shown is the first one, since a real one is only taken by a launch.
        """
        self._join_containers()
        networking.settle_mode(self.config, self.options)
        if any(wish.type == mounts.VOLUME for wish in mounts.resolved(self.config)):
            from .volumes import planned

            self.config.resolved_mounts = planned(self.config)
        if self.config.isolation in ("", "container"):
            spec = make_spec(self.config, Host.probe(), _FIRST_RANGE, {})
            return self.container.plan(Bundle("/", spec, raw_config(spec)), self.options, detached=False)
        self._choose_machine(planning=True)
        spec = make_spec(_inside_machine(self.config), Host.probe(), _FIRST_RANGE, {})
        outer, guest = self._machine(spec)
        plan = self.container.plan(Bundle("/", outer, raw_config(outer)), self.options, detached=False)
        plan.guest = guest
        return plan

    def release(self) -> None:
        release_ids(self.root, self.config.id)
        networking.release(self.config.id, self.root)

    def _run(self) -> int:
        host, config = Host.probe(), self.config
        if config.isolation not in ("", "container"):
            self._choose_machine(planning=False)
            config = _inside_machine(config)
        try:
            leased = wants_userns(config, host) and host.privileged
            first = lease_ids(self.root, config.id) if leased else 0
            attachment = networking.attach(config, self.options, self.root, first)
            spec = make_spec(config, host, first, self.options.enforced)
            networking.name_links(spec, attachment)
            mounts.make_sources(mounts.resolved(config))
            if self.machine is not None:
                return self._boot(spec)
            return self.container.run(Bundle("/", spec, raw_config(spec)), self.options)
        except BaseException:
            self.release()
            raise

    def _boot(self, spec: "Spec") -> int:
        """The same as a virtual machine: its hypervisor is the container's program."""
        from .. import vm

        outer, guest = self._machine(spec)
        assert self.machine is not None
        try:
            return self.container.run(Bundle("/", outer, raw_config(outer)), self.options)
        except LaunchError as error:
            raise vm.guest_failure(error, guest, self.machine) from None
        finally:
            self.machine.release()

    def _choose_machine(self, *, planning: bool) -> None:
        """Settle which it is, before anything is taken for it; with `planning` nothing is made for it later, either."""
        from .. import vm

        config = self.config
        self.machine = vm.choose(
            vm.parse_isolation(config.isolation),
            kernel=config.kernel, accel=config.accel, boot_seconds=config.boot_timeout,
        )  # fmt: skip
        self.machine.planning = planning
        if not config.userns and Host.probe().privileged and not self.machine.can_be_mapped:
            config.userns = "host"
            self.options.enforced["user_namespace"] = "off: /dev/kvm is not open to all"

    def _machine(self, spec: "Spec") -> "tuple[Spec, LaunchPlan]":
        """The container of a hypervisor and the plan of its guest."""
        from .. import vm

        config, machine = self.config, self.machine
        assert machine is not None
        network = config.network not in ("", "none")
        self.options.idle = False  # Its guest may be; the hypervisor's container is not.
        return vm.prepare(
            spec, self.options, machine, config.id, network=network, ports=_ports(config), idle=config.idle,
            privileged=config.privileged,
        )  # fmt: skip

    def _join_containers(self) -> None:
        """Turn container:NAME into the namespace of that container's process.

        Of a pid or ipc namespace the owner matters: procfs and mqueue can be mounted by that user namespace only.  A
        network or a host name can be joined from any.
        """
        config, joined = self.config, []
        for option, name in _NAMESPACES.items():
            value: str = getattr(config, option)
            if value.startswith("container:"):
                value = f"ns:/proc/{_pid_of(value[10:])}/ns/{name}"
                setattr(config, option, value)
            if value.startswith("ns:") and option in ("pid", "ipc"):
                joined.append(option)
        if joined and not config.userns and Host.probe().privileged:
            config.userns = "host"
            options = ", --".join(joined)
            self.options.enforced["user_namespace"] = f"off: the container joins a namespace (--{options})"


def _ports(config: ContainerConfig) -> "list[tuple[str, int]]":
    """Ports of the container that the host publishes: its hypervisor passes them on."""
    if not config.publish and not config.publish_all:
        return []
    from ..network.ports import exposed, parse

    found = parse(config.publish) + (exposed(config.exposed_ports) if config.publish_all else [])
    return [(port.protocol, port.container_port) for port in found]


def _inside_machine(config: ContainerConfig) -> ContainerConfig:
    """What holds inside a virtual machine: its root may do all there, and the hypervisor's container stays as it is."""
    if config.devices:
        raise UnsupportedError(f"--device {config.devices[0]}: a virtual machine has devices of its own")
    if not config.privileged:
        return config
    inside = ContainerConfig.from_dict(config.to_dict())
    inside.layers = config.layers
    inside.privileged = False
    inside.cap_add = [*config.cap_add, "ALL"]
    inside.security_opt = [*config.security_opt, "no-new-privileges=false"]
    return inside


def clean_up(root: str = "") -> "list[str]":
    """Remove what killed Warren processes left, below `root`, the user's own by default; as container.sweep()."""
    root = root or default_root()
    left = sweep(root)
    reclaim_ids(root)
    return left


def _pid_of(name: str) -> int:
    from .records import find

    return find(name).running_pid()


def _is_idmap_failure(error: LaunchError) -> bool:
    """Whether a mount could not be idmapped: its file system cannot, or belongs to another user namespace."""
    step = error.step
    if step is None or step.op != "mount_setattr" or error.errno not in (EINVAL, EPERM):
        return False
    userns = step.fields()["userns"]
    return isinstance(userns, int) and userns >= 0


def _idmap_reason(error: LaunchError) -> str:
    """Which file system it is that cannot be idmapped, and where."""
    path = error.source
    mount = max((one for one in Host.probe().mounts if is_below(path, one.point)), key=lambda one: len(one.point))
    return f"{path} cannot be idmapped: file system {mount.type} mounted on {mount.point}"
