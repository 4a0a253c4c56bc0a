"""Container: the verbs of the OCI runtime spec (runtime.md, Operations) on one container.

Nothing is kept in the object but what takes an ephemeral container away again in the process that has launched it:
every verb computes what it needs from the state directory, the cgroup and the kernel, so that any process may call any
verb.  There is one clean-up path, `_destroy`, and it is the crash path.
"""

import _signal
import posix
import sys
import time
from errno import ESRCH

from . import cgroups
from .cgroups import Cgroup
from .errors import HookError, LaunchError, NotFoundError, SpecError, StateError, UnsupportedError, WarrenError
from .host import Host
from .jsontext import dump_json
from .state import StateDir, container_ids, own_start_time, poll_end, read_file, start_time
from .syscalls import wait

# What only a launch needs is imported where it launches: half of the time of `state`, `start` or `delete` was that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .cgroups.oom import OomWatch
    from .cgroups.stats import Reader, Stats
    from .checkpoint import Images
    from .launch import Options
    from .plan import Wiring
    from .resctrl import Group
    from .seccomp import Program
    from .spec import Bundle, Spec
    from .steps import LaunchPlan

    Json = dict[str, object]

DEFAULT_ROOT = "/run/warren"
DEFAULT_DATA = "/var/lib/warren"
OCI_VERSION = "1.3.0"
_KILL_SECONDS = 10.0
_SIGKILL = 9
_CGROUP = ("unified", "legacy", "made", "best_effort", "unit", "slice")
_CONTAINERS = ("apparmorProfile", "selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity")
"""What a process of `exec` has from the container where its own object does not say (runc, newInitConfig)."""


def default_root() -> str:
    """/run/warren for root; below XDG_RUNTIME_DIR, else the XDG state directory, for ordinary users.

    podman makes an ordinary user root of a user namespace; his name and XDG_RUNTIME_DIR stay (runc asks so, too).
    """
    env = posix.environ
    runtime = env.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    if posix.geteuid() == 0 and (not runtime or env.get(b"USER") == b"root" or Host.probe().initial_userns):
        return DEFAULT_ROOT
    if runtime.startswith("/"):
        return runtime + "/warren"
    home = env.get(b"HOME", b"").decode("utf-8", "surrogateescape")
    state = env.get(b"XDG_STATE_HOME", b"").decode("utf-8", "surrogateescape") or (home and home + "/.local/state")
    if not state.startswith("/"):
        raise StateError("no place for state: neither XDG_RUNTIME_DIR nor HOME is set", hint="use --root")
    return state + "/warren"


def default_data() -> str:
    """Where what lasts is kept: /var/lib/warren for root, below the XDG data directory for ordinary users."""
    if posix.geteuid() == 0:
        return DEFAULT_DATA
    env = posix.environ
    home = env.get(b"XDG_DATA_HOME", b"") or (env.get(b"HOME", b"") + b"/.local/share")
    if not home.startswith(b"/"):
        raise StateError("no place for data: neither XDG_DATA_HOME nor HOME is set")
    return home.decode("utf-8", "surrogateescape") + "/warren"


class Container:
    """A handle on the container `id` below the state root `root`; raises UsageError for an id that is none."""

    __slots__ = ("_dir", "_own", "id", "root", "warnings")

    def __init__(self, id: str, root: str) -> None:
        self._dir = StateDir(root, id)
        self._own: tuple[Spec, Cgroup] | None = None
        self.id = id
        self.root = root
        self.warnings: list[str] = []
        """What the spec wants logged but not failed for, such as a failing poststop hook."""

    # ---- create, run, start

    def plan(self, bundle: "Bundle", options: "Options", *, detached: bool = True) -> "LaunchPlan":
        """What `create` (or, not detached, `run`) would execute; launches and changes nothing."""
        from .namespaces import user
        from .plan import create_plan

        host = Host.probe()
        cgroup = self._name_cgroup(bundle.spec, host, options)
        user.set_home(bundle.spec.config.get("process") or {}, bundle.spec.root_path())
        filter = _filter(bundle.spec.config, cached=False)
        return create_plan(
            bundle.spec, host, cgroup, self._wiring(bundle.spec.config, options, filter, detached=detached)
        )

    def create(self, bundle: "Bundle", options: "Options") -> int:
        """Set the container up to the user's program and stop there; returns the pid of its init (host's view).

        Raises SpecError, UnsupportedError, ExistsError, LaunchError, HookError; whatever is raised, nothing is left.
        """
        pid = self._create(bundle, options, detached=True)
        if options.monitor:
            options.monitor.let_go()
        return pid

    def run(self, bundle: "Bundle", options: "Options") -> int:
        """Create and start in one; the container's init is a child of this process, to be waited for.

        With `options.monitor` it is the monitor's child, which waits; and the monitor is a child of this process.
        """
        pid = self._create(bundle, options, detached=False)
        try:
            self._poststart(bundle.spec.config, pid)
            if options.monitor:
                options.monitor.let_go()
        except (HookError, LaunchError):
            self.delete(force=True)
            if options.monitor:
                options.monitor.call_off()
            else:
                wait(pid)
            raise
        return pid

    def start(self) -> None:
        """Let the user's program run; returns when it has been executed.

        Raises StateError when the container is not in state created, LaunchError when the program cannot be executed,
        HookError when a poststart hook fails; the container is stopped then.
        """
        self._dir.lock()
        try:
            record = self._record()
            pid = self._dir.process()
            fifo = self._dir.open_fifo() if pid else -1
            if fifo < 0:
                status = self._status(record)
                raise StateError(f"container {self.id!r} cannot be started: it is {status}, not created")
            if not record["config"].get("process"):  # type: ignore[attr-defined]
                posix.close(fifo)
                raise SpecError("process: required to start a container")
            try:
                posix.write(fifo, b"0")
                _wait_for_readers(fifo)
            finally:
                posix.close(fifo)
            self._raise_report(record)
            try:
                self._poststart(record["config"], pid)  # type: ignore[arg-type]
            except HookError:
                self._stop(_cgroup_of(record))
                raise
        finally:
            self._dir.unlock()

    def _create(self, bundle: "Bundle", options: "Options", *, detached: bool) -> int:
        from .launch import Callers, launch, sealed_init
        from .namespaces import user
        from .plan import create_plan
        from .steps import COMMAND_SLOT, FIFO_SLOT, INIT_SLOT, REPORT_SLOT

        host = Host.probe()
        spec = bundle.spec
        self._warn_of_relative(spec.config)
        cgroup = self._name_cgroup(spec, host, options)
        user.set_home(spec.config.get("process") or {}, spec.root_path())
        filter = _filter(spec.config)
        plan = create_plan(spec, host, cgroup, self._wiring(spec.config, options, filter, detached=detached))
        self.warnings += plan.notes
        callers = Callers(options)
        options.enforced.update(cgroup.enforced(spec.config, host))
        self._dir.make()
        ours = Cgroup("", {})  # A cgroup that others are in is not to be destroyed.
        try:
            if options.monitor:
                options.monitor.listen(self._dir.path)
            cgroup.check_empty()
            ours = cgroup
            cgroup.made = cgroup.missing_parents()
            self._dir.write_record(self._head(spec, cgroup, options), bundle.raw)
            if group := self._resctrl(spec.config):
                group.create()
            if not cgroup.unit:
                self._make_cgroup(spec, cgroup, options, bundle.raw)
            fds = self._descriptors(callers.console_fd, detached)
            if options.command >= 0:
                fds[COMMAND_SLOT] = options.command
            elif options.idle or (options.init and not host.privileged):
                fds[INIT_SLOT] = sealed_init()
            try:
                pid = launch(plan, fds, options, self._events(bundle, filter, cgroup, options))
            except LaunchError as error:
                raise _memory_error(error, spec.config, cgroup) from error
            finally:
                for slot in (FIFO_SLOT, REPORT_SLOT) if detached else ():
                    posix.close(fds[slot])
            callers.announce(pid)
            if options.ephemeral:
                self._own = spec, cgroup
            return pid
        except BaseException:
            if options.monitor:
                options.monitor.call_off()
            self._destroy(ours, spec.config)
            self._poststop(spec.bundle, spec.config)
            raise
        finally:
            callers.close()
            if options.monitor:
                options.monitor.stop_listening()
            self._dir.unlock()

    def _warn_of_relative(self, config: "Json") -> None:
        """runtime-spec 1.0 allowed relative mount destinations; engines that still write them should know."""
        mounts: list[dict[str, str]] = config.get("mounts") or []  # type: ignore[assignment]
        for index, mount in enumerate(mounts):
            if mount["destination"][0] != "/":
                self.warnings.append(
                    f"mounts[{index}].destination {mount['destination']!r} is not absolute: taken as below /"
                )

    def _head(self, spec: "Spec", cgroup: Cgroup, options: "Options") -> "Json":
        return {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "bundle": spec.bundle,
            "rootfs": spec.root_path(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "owner": posix.geteuid(),
            "cgroup": {name: getattr(cgroup, name) for name in _CGROUP},
            "enforced": options.enforced,
            "keyring": self._keyring(options),
            "front": len(options.monitor.steps) if options.monitor else 0,
            "lives_with": f"{posix.getpid()} {own_start_time()}" if options.ephemeral else "",
        }

    def _name_cgroup(self, spec: "Spec", host: Host, options: "Options") -> Cgroup:
        best_effort, manager = options.best_effort, options.cgroup_manager
        return cgroups.for_container(spec, self.id, host, best_effort=best_effort, manager=manager)

    def _make_cgroup(self, spec: "Spec", cgroup: Cgroup, options: "Options", raw: bytes, pid: int = 0) -> None:
        """Make it, with its limits; a scope of systemd needs a first process, `pid`."""
        host = Host.probe()
        try:
            if cgroup.unit:
                cgroup.start_unit(pid, spec.config, host)
            cgroup.create()
            cgroup.apply(spec.config, host)
            cgroup.give_to_container(spec.config)
        except OSError as error:
            raise WarrenError(f"cgroup {error.filename}: {posix.strerror(error.errno or 0)}".lower()) from error
        self._note_enforced(spec, cgroup, options, raw)

    def _note_enforced(self, spec: "Spec", cgroup: Cgroup, options: "Options", raw: bytes) -> None:
        """What the kernel made of the limits, where it is not what the intent record says."""
        now = {**options.enforced, **cgroup.enforced(spec.config, Host.probe())}
        if now != options.enforced:
            options.enforced.update(now)
            self._dir.write_record(self._head(spec, cgroup, options), raw)
        if options.approve:
            options.approve(options.enforced)

    def _descriptors(self, console: int, detached: bool) -> "dict[int, int]":
        from .steps import CONSOLE_SLOT, FIFO_SLOT, REPORT_SLOT

        fds = {}
        if console >= 0:
            fds[CONSOLE_SLOT] = console
        if detached:
            fds[FIFO_SLOT] = self._dir.make_fifo()
            fds[REPORT_SLOT] = self._dir.open_report()
        return fds

    def _events(
        self, bundle: "Bundle", filter: "Program | None", cgroup: Cgroup, options: "Options"
    ) -> "Callable[[int, int, str], str]":
        """Answer init: record the pid, map ids, run the hooks that belong to the runtime's namespaces."""
        from .steps import PID, SYNC

        spec, pid = bundle.spec, 0

        def on_event(kind: int, value: int, name: str) -> str:
            nonlocal pid
            if kind == PID:
                pid = value
                if options.monitor:
                    self._dir.record_monitor(options.monitor.pid)
                self._dir.record_pid(pid)
            elif kind == SYNC and name == "seccomp" and filter:
                self._hand_over(filter, pid, value, "creating", spec)
            elif kind == SYNC and name == "cgroup":
                self._make_cgroup(spec, cgroup, options, bundle.raw, value)
            elif kind == SYNC and name == "limits":
                cgroup.apply_late(spec.config, Host.probe())
            elif kind == SYNC and name == "netDevices":
                from .namespaces import netdevices

                netdevices.move(spec.config["linux"]["netDevices"], pid, value)
            elif kind == SYNC and name.startswith("links ") and options.connect:
                options.connect(pid, value)
            elif kind == SYNC:
                return self._runtime_hooks(name, spec, pid)
            else:
                linux = spec.config["linux"]
                map_ids(value, linux["uidMappings"], linux["gidMappings"])
            return ""

        return on_event

    def _hand_over(self, filter: "Program", pid: int, listener: int, status: str, spec: "Spec") -> None:
        """Give the listener of SCMP_ACT_NOTIFY to its agent, with the state of the container (its init's pid)."""
        from .seccomp import agent

        state = dump_json(self._state(status, self._dir.process() or pid, spec.bundle, spec.config))
        agent.hand_over(filter, pid, listener, state, OCI_VERSION)

    def _runtime_hooks(self, name: str, spec: "Spec", pid: int) -> str:
        """Run what belongs to the runtime's namespaces; returns the state for the hooks that init runs next.

        Those see the pid of the container's own pid namespace, as runc tells them.
        """
        from . import hooks

        inside = _pid_inside(pid)
        if name == "startContainer":
            return dump_json(self._state("created", inside, spec.bundle, spec.config))
        declared = spec.config.get("hooks") or {}
        state = dump_json(self._state("creating", pid, spec.bundle, spec.config))
        hooks.run_hooks(declared.get("prestart"), state)
        hooks.run_hooks(declared.get("createRuntime"), state)
        return dump_json(self._state("creating", inside, spec.bundle, spec.config))

    def _poststart(self, config: "Json", pid: int) -> None:
        """A failing hook is an error that ends the container (runtime.md, Lifecycle, step 9, since 1.3)."""
        declared: dict[str, list[Json]] = config.get("hooks") or {}  # type: ignore[assignment]
        if declared.get("poststart"):
            from . import hooks

            # It may have ended already; but this is the state that start has brought about (runc).
            hooks.run_hooks(declared["poststart"], dump_json({**self.state(), "status": "running", "pid": pid}))

    def _raise_report(self, record: "Json") -> None:
        data = self._dir.read_report()
        if not data:
            return
        from .launch import fail_text, failure
        from .plan import Wiring, create_plan
        from .spec import Spec

        number, errno, text = fail_text(data)
        number -= int(str(record.get("front") or 0))  # The plan below has no monitor.
        spec = Spec(record["config"], str(record["bundle"]))  # type: ignore[arg-type]
        # As at create, so that the step's number means the same.
        group = self._resctrl(spec.config)
        wiring = Wiring(
            detached=True,
            seccomp=_filter(spec.config),
            keyring=str(record.get("keyring") or ""),
            resctrl=group.tasks() if group else [],
        )
        plan = create_plan(spec, Host.probe(), _cgroup_of(record), wiring)
        raise failure(plan, number, errno, text)

    def _wiring(self, config: "Json", options: "Options", filter: "Program | None", *, detached: bool) -> "Wiring":
        from .plan import Wiring

        group = self._resctrl(config)
        return Wiring(
            detached=detached,
            no_pivot=options.no_pivot,
            preserve_fds=options.preserve_fds,
            pdeathsig=options.pdeathsig or (_SIGKILL if options.monitor else 0),
            init=options.init,
            supervise=options.supervise,
            idle=options.idle,
            command=options.command >= 0,
            enter=options.enter,
            size=options.size,
            seccomp=filter,
            keyring=self._keyring(options),
            monitor=options.monitor.steps if options.monitor else (),
            streams=options.pipes,
            resctrl=group.tasks() if group else [],
        )

    def _keyring(self, options: "Options") -> str:
        """Name of the container's session keyring, as runc calls it."""
        return "" if options.no_new_keyring else "_ses." + self.id

    # ---- state

    def state(self) -> "Json":
        """The state object of runtime.md, and runc's further keys rootfs, created and owner; NotFoundError."""
        record = self._dir.read_record()
        if record is None:
            pid = self._dir.process()
            broken = self._state("running" if pid else "stopped", pid, "", {})
            return {**broken, "error": "state.json is missing or corrupt"}
        status = self._status(record)
        pid = 0 if status == "stopped" else self._dir.process()
        state = self._state(status, pid, str(record["bundle"]), record["config"])  # type: ignore[arg-type]
        return {**state, **{key: record.get(key) for key in ("rootfs", "created", "owner", "enforced")}}

    def _state(self, status: str, pid: int, bundle: str, config: "Json") -> "Json":
        state: Json = {"ociVersion": OCI_VERSION, "id": self.id, "status": status, "pid": pid, "bundle": bundle}
        if config.get("annotations"):
            state["annotations"] = config["annotations"]
        return state

    def _status(self, record: "Json") -> str:
        return self._dir.status(_cgroup_of(record).frozen())

    def is_frozen(self) -> bool:
        """Whether it is paused; asks the cgroup of its process, which is quicker than to read its record."""
        pid = self._dir.process()
        return bool(pid) and cgroups.is_frozen(pid, Host.probe())

    def _record(self) -> "Json":
        record = self._dir.read_record()
        if record is None:
            raise StateError(f"container {self.id!r} has a corrupt state.json", hint="delete --force removes it")
        return record

    def config(self) -> "Json":
        """The config.json that the container was created with, whatever has become of the file."""
        return self._record()["config"]  # type: ignore[return-value]

    def exec_defaults(self) -> "Json":
        """The container's own process object, on which exec's flags are laid."""
        return dict(self.config().get("process") or {})  # type: ignore[call-overload, no-any-return]

    def processes(self) -> "list[int]":
        """Host pids of the container's processes: those of its cgroup, without one those of its pid namespace."""
        cgroup = _cgroup_of(self._record())
        if cgroup.directories():
            return cgroup.processes()
        pid = self._dir.process()
        return _pid_namespace(pid) if pid else []

    # ---- pause, resume

    def pause(self) -> None:
        """Freeze every process of the container; returns when all have stopped.

        Raises StateError unless it is created or running, and, with everything thawed, when a process does not stop.
        """
        self._dir.lock()
        try:
            record = self._record()
            status = self._status(record)
            if status not in ("created", "running"):
                raise StateError(f"container {self.id!r} cannot be paused: container not running, it is {status}")
            _cgroup_of(record).freeze()
        finally:
            self._dir.unlock()

    def resume(self) -> None:
        """Let a paused container go on; StateError for one that is not paused."""
        self._dir.lock()
        try:
            record = self._record()
            cgroup = _cgroup_of(record)
            if not cgroup.frozen():
                raise StateError(f"container {self.id!r} is not paused: it is {self._status(record)}")
            cgroup.thaw()
        finally:
            self._dir.unlock()

    # ---- checkpoint, restore

    def checkpoint(self, images: "Images") -> None:
        """Write the processes to images; the container is deleted then, unless it is to go on.

        Raises StateError unless created, running or paused; UnsupportedError; WarrenError with criu's reason.
        """
        from . import checkpoint
        from .spec import Spec

        self._dir.lock()
        try:
            record = self._record()
            status = self._status(record)
            if status not in ("running", "paused"):
                raise StateError(f"container {self.id!r} cannot be checkpointed: container not running, it is {status}")
            spec = Spec(record["config"], str(record["bundle"]))  # type: ignore[arg-type]
            checkpoint.dump(images, spec, self._dir.process())
        finally:
            self._dir.unlock()
        if not images.goes_on:
            self.delete(force=True)

    def restore(self, bundle: "Bundle", images: "Images", options: "Options") -> int:
        """Make a container of the bundle and of images; its init is a child of this process.

        Raises like `create`, and StateError for images of something else; whatever is raised, nothing is left.
        """
        from . import checkpoint
        from .launch import Callers

        host, spec = Host.probe(), bundle.spec
        checkpoint.criu()
        cgroup = self._name_cgroup(spec, host, options)
        cgroups.check(spec.config, cgroup, host)
        if cgroup.unit:
            raise UnsupportedError("restore: a scope of systemd is not supported", hint="use cgroupfs")
        callers = Callers(options)
        self._dir.make()
        ours, pid = Cgroup("", {}), 0
        try:
            cgroup.check_empty()
            ours = cgroup
            cgroup.made = cgroup.missing_parents()
            self._dir.write_record(self._head(spec, cgroup, options), bundle.raw)
            self._make_cgroup(spec, cgroup, options, bundle.raw)
            pid = checkpoint.restore(images, spec, cgroup, self._dir.path, options)
            self._dir.record_pid(pid)
            checkpoint.check(spec, pid)
            callers.announce(pid)
            checkpoint.resume(pid)
            return pid
        except BaseException:
            self._destroy(ours, spec.config)
            if pid:
                wait(pid)
            self._poststop(spec.bundle, spec.config)
            raise
        finally:
            callers.close()
            self._dir.unlock()

    # ---- limits and use

    def update(self, resources: "Json") -> None:
        """Change limits: `resources` is a valid linux.resources object of what is to change.

        Raises StateError for a container that is stopped; SpecError, UnsupportedError and WarrenError for limits that
        cannot be had.  Whatever is raised, the old limits hold.
        """
        from .cgroups.update import merge, update

        self._dir.lock()
        try:
            record = self._record()
            if not self._dir.process():
                raise StateError(f"container not running: {self.id!r} is stopped")
            config: Json = record.pop("config")  # type: ignore[assignment]
            host, cgroup = Host.probe(), _cgroup_of(record)
            old: Json = (config.get("linux") or {}).get("resources") or {}  # type: ignore[attr-defined]
            changed: Json = {**config, "linux": {**(config.get("linux") or {}), "resources": merge(old, resources)}}  # type: ignore[dict-item]
            limits = cgroup.enforced(config, host)
            notes: dict[str, str] = record.get("enforced") or {}  # type: ignore[assignment]
            notes = {name: note for name, note in notes.items() if name not in limits}
            record["enforced"] = {**notes, **cgroup.enforced(changed, host)}
            self._dir.stage_record(record, dump_json(changed).encode("utf-8", "surrogateescape"))
            update(cgroup, old, resources, host)
            self._dir.commit_record()
        finally:
            self._dir.unlock()

    def stats(self) -> "Stats":
        """What the container uses now; StateError when it is stopped.  To poll, keep the Reader of `stats_reader`."""
        with self.stats_reader() as reader:
            return reader.read()

    def stats_reader(self, *, full: bool = False) -> "Reader":
        """Readings as often as wanted, cheaply; to be closed.  StateError when the container is stopped."""
        from .cgroups.stats import Reader

        return Reader(self._live_cgroup(), full=full)

    def watch(self, seconds: float) -> "Iterator[int]":
        """Until the container ends: 0 every so many `seconds`, and whenever the kernel has killed processes for lack of
        memory, how many.  StateError when the container is stopped."""
        import select

        poll = select.poll()
        watch = self._oom_watch()
        end = self.pidfd()
        try:
            poll.register(end, select.POLLIN)
            if watch:
                poll.register(watch.fileno(), watch.events)
            deadline = time.monotonic() + seconds
            ended = False
            while not ended:
                ready = poll.poll(max(0, int((deadline - time.monotonic()) * 1000) + 1))
                ended = any(fd == end for fd, _ in ready)
                if watch and (killed := watch.take()):
                    yield killed
                if time.monotonic() >= deadline and not ended:
                    deadline += seconds
                    yield 0
        finally:
            posix.close(end)
            if watch:
                watch.close()

    def _oom_watch(self) -> "OomWatch | None":
        """None where nobody accounts the container's memory."""
        from .cgroups.oom import OomWatch

        try:
            return OomWatch(self._live_cgroup())
        except UnsupportedError:
            return None

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for the container's memory limit."""
        from .cgroups import oom

        return oom.kills(_cgroup_of(self._record()))

    def pidfd(self) -> int:
        """A descriptor of the container's init that polls as POLLIN at its end; StateError when stopped."""
        try:
            fd = posix.pidfd_open(self._dir.process() or -1)
        except (ProcessLookupError, OSError):
            fd = -1
        if fd < 0 or not self._dir.process():
            raise StateError(f"container not running: {self.id!r} is stopped")
        return fd

    def _live_cgroup(self) -> Cgroup:
        record = self._record()
        if not self._dir.process():
            raise StateError(f"container not running: {self.id!r} is stopped")
        return _cgroup_of(record)

    # ---- kill, delete

    def kill(self, signal: int, all: bool = False) -> None:
        """Send a signal to the container's init, or to every process.

        Raises StateError "container not running", the words that containerd looks for.
        """
        if all:
            for pid in self.processes():
                _send(pid, signal)
            return
        self._dir.read_record()  # NotFoundError for a container that there is not.
        pid = self._dir.process()
        if not pid or not self._send_by_pidfd(pid, signal):
            raise StateError(f"container not running: {self.id!r} is stopped")

    def _send_by_pidfd(self, pid: int, signal: int) -> bool:
        """Signal through a pidfd; False if the process that it names is not, or no longer, the container's."""
        try:
            fd = posix.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if self._dir.process() != pid:
                return False
            _signal.pidfd_send_signal(fd, signal)
            return True
        except ProcessLookupError:
            return False
        finally:
            posix.close(fd)

    def delete(self, force: bool = False, look: "Callable[[Cgroup], None] | None" = None) -> None:
        """Remove a stopped container, or with `force` kill it first; then run its poststop hooks.

        `look` is called when nothing runs in its cgroup any more, before that goes.

        Raises NotFoundError (not with `force`) and StateError for a container that is not stopped.
        """
        try:
            self._dir.lock()
        except NotFoundError:
            if force:
                return
            raise
        try:
            if force and self._own:
                spec, cgroup = self._own
                self._destroy(cgroup, spec.config, look)
                self._own = None
                self._poststop(spec.bundle, spec.config)
                return
            record = self._dir.read_record()
            status = "running" if self._dir.process() else "stopped"
            if status != "stopped" and not force:
                status = self._status(record) if record else status
                raise StateError(
                    f"cannot delete container {self.id!r}: it is {status}, not stopped", hint="use --force"
                )
            if record:
                self._destroy(_cgroup_of(record), record["config"], look)  # type: ignore[arg-type]
            else:
                self._destroy(self._cgroup_without_record(), {})
            if record:
                self._poststop(str(record["bundle"]), record["config"])  # type: ignore[arg-type]
        finally:
            self._dir.unlock()

    def _poststop(self, bundle: str, config: "Json") -> None:
        """Poststop hooks run after the container is gone; failures are logged (runtime.md, Lifecycle, step 13)."""
        declared: dict[str, list[Json]] = config.get("hooks") or {}  # type: ignore[assignment]
        if not declared.get("poststop"):
            return
        from . import hooks

        state = dump_json(self._state("stopped", 0, bundle, config))
        for hook in declared["poststop"]:
            try:
                hooks.run_hooks([hook], state)
            except HookError as error:
                self.warnings.append(str(error))

    def _destroy(self, cgroup: Cgroup, config: "Json", look: "Callable[[Cgroup], None] | None" = None) -> None:
        """Kill and remove everything, from names alone; may be repeated after any interruption."""
        self._stop(cgroup)
        if look:
            look(cgroup)
        if cgroup.directories():
            cgroup.remove()
        if group := self._resctrl(config):
            group.remove()
        self._dir.remove()

    def _resctrl(self, config: "Json") -> "Group | None":
        """The container's class of Intel RDT, where it has asked for one and there are any."""
        wanted: Json | None = (config.get("linux") or {}).get("intelRdt")  # type: ignore[attr-defined]
        if not wanted or not (mount := Host.probe().resctrl):
            return None
        from .resctrl import Group

        return Group(mount, self.id, wanted)

    def _stop(self, cgroup: Cgroup) -> None:
        """Kill every process."""
        pid = self._dir.process()
        if pid:
            self._kill_init(pid)
        if cgroup.directories():
            cgroup.kill()

    def _kill_init(self, pid: int) -> None:
        """SIGKILL init and wait until it is gone; with a pid namespace that ends every process in it."""
        try:
            fd = posix.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self._send_by_pidfd(pid, 9) and not poll_end(fd, _KILL_SECONDS):
                raise StateError(
                    f"process {pid} of container {self.id!r} does not die", hint="is it stuck in the kernel?"
                )
        finally:
            posix.close(fd)

    def _cgroup_without_record(self) -> Cgroup:
        """A lost record does not hide a container: its process tells its cgroup, else it is the default one."""
        host = Host.probe()
        pid = self._dir.process()
        return cgroups.of_process(pid, host) if pid else cgroups.for_container(None, self.id, host)

    def abandoned(self) -> bool:
        """Whether nobody will delete it: no command holds it, and the process that it was to live with is gone.

        One whose record is lost is abandoned when its own process is gone.
        """
        try:
            if not self._dir.lock(wait=False):
                return False
        except NotFoundError:
            return False
        try:
            if _lives(self._dir.read_head()):
                return False  # The usual case: a program runs many, and each launch asks this of all of them.
            record = self._dir.read_record()
            if record is None:
                return not self._dir.process()
            return bool(record.get("lives_with")) and not _lives(record)
        finally:
            self._dir.unlock()

    # ---- exec

    def exec_plan(self, process: "Json", options: "Options") -> "LaunchPlan":
        """What exec() would execute; launches nothing.  Raises what it raises."""
        record = self._record()
        filter = _filter(record["config"], cached=False)  # type: ignore[arg-type]
        return self._exec_plan(record, process, options, self._running(record), filter)

    def exec(self, process: "Json", options: "Options") -> int:
        """Run another process in the container; returns its pid, a child of this process (of the host's view).

        With `options.monitor` it is the monitor's child.  `process` is a valid process object of the spec.  Raises
        StateError unless created or running.
        """
        from .launch import Callers, launch
        from .steps import CONSOLE_SLOT, PIDFD_SLOT

        record = self._record()
        pid = self._running(record, options.ignore_paused)
        filter = _filter(record["config"])  # type: ignore[arg-type]
        plan = self._exec_plan(record, process, options, pid, filter)
        self.warnings += plan.notes
        callers = Callers(options)
        fds = {PIDFD_SLOT: posix.pidfd_open(pid)}
        try:
            self._running(record, options.ignore_paused)
            if callers.console_fd >= 0:
                fds[CONSOLE_SLOT] = callers.console_fd
            child = launch(plan, fds, options, self._exec_events(record, filter))
            try:
                callers.announce(child)
                if options.monitor:
                    options.monitor.let_go()
            except BaseException:
                if options.monitor:
                    options.monitor.call_off()
                else:
                    _send(child, 9)
                    wait(child)
                raise
            return child
        finally:
            posix.close(fds[PIDFD_SLOT])
            callers.close()

    def _exec_events(self, record: "Json", filter: "Program | None") -> "Callable[[int, int, str], str]":
        from .spec import Spec
        from .steps import PID, SYNC

        pid = 0

        def on_event(kind: int, value: int, name: str) -> str:
            nonlocal pid
            if kind == PID:
                pid = value
            elif kind == SYNC and name == "cgroup":
                self._attach(_cgroup_of(record), value)
            elif kind == SYNC and filter:
                spec = Spec(record["config"], str(record["bundle"]))  # type: ignore[arg-type]
                self._hand_over(filter, pid, value, self._status(record), spec)
            return ""

        return on_event

    def _attach(self, cgroup: Cgroup, pid: int) -> None:
        from .cgroups import systemd

        host = Host.probe()
        systemd.attach(cgroup, cgroup.beside(self._dir.process(), host), pid, host)

    def _exec_plan(
        self, record: "Json", process: "Json", options: "Options", pid: int, filter: "Program | None"
    ) -> "LaunchPlan":
        from .namespaces import user
        from .plan import exec_plan
        from .spec import Spec

        spec = Spec(record["config"], str(record["bundle"]))  # type: ignore[arg-type]
        user.set_home(process, spec.root_path())
        own = spec.config.get("process") or {}
        process = {**{key: own[key] for key in _CONTAINERS if key in own}, **process}
        cgroup = _cgroup_of(record)
        cgroup = cgroup.below(options.cgroups) if options.cgroups else cgroup.beside(pid, Host.probe())
        return exec_plan(
            spec,
            Host.probe(),
            cgroup,
            process,
            _foreign_namespaces(pid),
            self._wiring(spec.config, options, filter, detached=False),
        )

    def _running(self, record: "Json", paused: bool = False) -> int:
        """The pid of init of a container that takes processes, also of a `paused` one, which holds them back."""
        status = self._status(record)
        if status not in ("created", "running", "paused" if paused else ""):
            raise StateError(f"cannot exec in container {self.id!r}: container not running, it is {status}")
        return self._dir.process()


def list_containers(root: str) -> "list[Json]":
    """State objects of all containers below `root`, with those whose record is lost."""
    found = []
    for container_id in container_ids(root):
        try:
            found.append(Container(container_id, root).state())
        except NotFoundError:
            continue
    return found


def sweep(root: str) -> "list[str]":
    """Remove what killed Warren processes left: containers that were to live with a process that is gone.

    Returns the ids of the others that have no monitor (any more).
    """
    left = []
    for container_id in container_ids(root):
        if StateDir(root, container_id).monitor():
            continue
        container = Container(container_id, root)
        if container.abandoned():
            container.delete(force=True)
        else:
            left.append(container_id)
    return left


def _filter(config: "Json", *, cached: bool = True) -> "Program | None":
    """linux.seccomp, compiled, or from the cache beside the default state root."""
    linux: Json = config.get("linux") or {}  # type: ignore[assignment]
    if not linux.get("seccomp"):
        return None
    from . import seccomp

    try:
        directory = default_root() + "-seccomp" if cached else ""
    except StateError:
        directory = ""
    return seccomp.load(linux["seccomp"], posix.uname().machine, directory)  # type: ignore[arg-type]


def _cgroup_of(record: "Json") -> Cgroup:
    saved: Json = record.get("cgroup") or {}  # type: ignore[assignment]
    return Cgroup(**{name: saved[name] for name in _CGROUP if name in saved})  # type: ignore[arg-type]


def _lives(record: "Json") -> bool:
    """Whether the process that an ephemeral container is to live with is there."""
    owner, _, started = str(record.get("lives_with") or "").partition(" ")
    return owner.isdecimal() and start_time(int(owner)) == started


def _memory_error(error: LaunchError, config: "Json", cgroup: Cgroup) -> LaunchError:
    """The error itself, or that the container's memory limit has ended its start."""
    limits: dict[str, Json] = (config.get("linux") or {}).get("resources") or {}  # type: ignore[attr-defined]
    limit = (limits.get("memory") or {}).get("limit")
    if not limit:
        return error
    from .cgroups import oom

    if not oom.kills(cgroup):
        return error
    return LaunchError(0, None, 0, f"out of memory: a limit of {limit} bytes is too low to start", hint="raise it")


def map_ids(helper: int, uids: "list[dict[str, int]]", gids: "list[dict[str, int]]") -> None:
    """Let newuidmap(1) and newgidmap(1) write the maps that an ordinary user may not."""
    host = Host.probe()
    for program, mappings in ((host.newuidmap, uids), (host.newgidmap, gids)):
        triples = [str(m[field]) for m in mappings for field in ("containerID", "hostID", "size")]
        quiet = [(posix.POSIX_SPAWN_OPEN, fd, "/dev/null", posix.O_WRONLY, 0) for fd in (1, 2)]
        pid = posix.posix_spawn(program, [program, str(helper), *triples], {}, file_actions=quiet)
        if posix.waitpid(pid, 0)[1]:
            raise WarrenError(f"{program} refused the maps", hint="are the ids in /etc/subuid and /etc/subgid?")


def _pid_namespace(pid: int) -> "list[int]":
    """Every process in the pid namespace of `pid`; only itself if that is our own namespace."""
    namespace = _inode(f"/proc/{pid}/ns/pid")
    if namespace in (None, _inode("/proc/self/ns/pid")):
        return [pid]
    pids = [int(name) for name in posix.listdir("/proc") if name.isdecimal()]
    return sorted(other for other in pids if _inode(f"/proc/{other}/ns/pid") == namespace)


def _inode(path: str) -> "tuple[int, int] | None":
    try:
        info = posix.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _pid_inside(pid: int) -> int:
    """A process's pid in its own pid namespace (proc(5), NSpid)."""
    for line in read_file(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return pid


def _foreign_namespaces(pid: int) -> int:
    """CLONE_NEW flags of the namespaces in which `pid` differs from us."""
    from . import namespaces

    flags = 0
    for flag, name in namespaces.TYPES.values():
        if _inode(f"/proc/{pid}/ns/{name}") != _inode(f"/proc/self/ns/{name}"):
            flags |= flag
    return flags


def _send(pid: int, signal: int) -> None:
    try:
        posix.kill(pid, signal)
    except OSError as error:
        if error.errno != ESRCH:
            raise


def _wait_for_readers(fifo: int) -> None:
    """Wait until init has closed the fifo, by executing the user's program or by dying: POLLERR on the other end."""
    import select

    poll = select.poll()
    poll.register(fifo, 0)
    poll.poll()


class _Module(type(posix)):  # type: ignore[misc]
    """`runtime.container` is this module as soon as anybody imports it, and the library's function all the same."""

    def __call__(self, *args: object, **options: object) -> object:
        return sys.modules[__name__.rpartition(".")[0]]._container(*args, **options)


sys.modules[__name__].__class__ = _Module
