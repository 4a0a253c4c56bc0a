"""One instance of a row: started, asked, measured and ended.  All times are the host's: a guest's clock may err."""

import os
import posix
import resource
import select
import subprocess
import threading
import time

from ..config import HOST, ContainerConfig
from ..engine.images import take_image
from ..engine.launching import Launch, clean_up
from ..engine.names import new_id
from ..errors import WarrenError
from ..launch import Options, init_path
from ..steps import ALL_STREAMS
from ..syscalls import exit_code, same_memory
from ..vm.kernel import data_directory
from .rows import CONTAINER, PC, PROCESS, Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..images.store import Store

PROBE = "/.warren/probe"
DATA = "/data"
ASK_SECONDS = 120.0
_KILL = 9


class Source:
    """What is run: an image's name, "host" or a directory; and the directories that go with it."""

    def __init__(self, name: str, rootfs: str, command: "Sequence[str]", layer: str, scratch: str) -> None:
        self.name = name
        self.rootfs = rootfs
        self.command = list(command)
        self.layer = layer
        """A layer with the probe, for the top."""
        self.scratch = scratch
        """A directory on this host's disk."""

    @property
    def label(self) -> str:
        return self.rootfs or self.name


class Start:
    """How a command was started and ended; seconds."""

    __slots__ = ("code", "cpu", "exited", "started")

    def __init__(self, started: float, exited: float, cpu: float, code: int) -> None:
        self.started = started
        self.exited = exited
        self.cpu = cpu
        self.code = code


class Instance:
    """A row's instance with the probe, or another command, in it; to be closed."""

    def __init__(self, row: Row, source: Source, argv: "list[str]", *, memory: str, network: bool = False) -> None:
        self.row = row
        self.argv = argv
        self.source = source
        self._feed = self._out = -1
        self._pid = 0
        self._buffer = b""
        self._store: Store | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._launch: Launch | None = None
        if row.kind != PROCESS:
            options = Options(pdeathsig=_KILL, ephemeral=True)
            self._launch = Launch(_configure(row, source, argv, memory, network), options)

    # ---- life

    def start(self) -> float:
        """Start it; seconds until the user's program has been executed.  Raises what a launch raises."""
        child_in, self._feed = posix.pipe2(posix.O_CLOEXEC)
        self._out, child_out = posix.pipe2(posix.O_CLOEXEC)
        try:
            begun = time.monotonic()
            if self._launch is None:
                self._start_process(child_in, child_out)
            else:
                self._start_container(self._launch, child_in, child_out)
            return time.monotonic() - begun
        finally:
            posix.close(child_in)
            posix.close(child_out)

    def _start_process(self, child_in: int, child_out: int) -> None:
        argv = [self.source.layer + self.argv[0] if self.argv[0] == PROBE else self.argv[0], *self.argv[1:]]
        try:
            self._process = subprocess.Popen(argv, stdin=child_in, stdout=child_out, stderr=child_out)
        except OSError as error:
            raise WarrenError(f"{argv[0]}: {posix.strerror(error.errno or 0)}".lower()) from error
        self._pid = self._process.pid

    def _start_container(self, launch: Launch, child_in: int, child_out: int) -> None:
        config = launch.config
        launch.options.stdio, launch.options.pipes = (child_in, child_out, child_out), ALL_STREAMS
        if config.image:
            from ..images.store import Store

            self._store = Store()
            take_image(config, self._store, "missing")
            if self.argv == [PROBE]:
                config.argv, config.entrypoint, config.user, config.workdir = [PROBE], None, "0", "/"
            config.layers = [self.source.layer, *config.layers]
        self._pid = launch.run()

    def wait(self) -> "tuple[int, bytes]":
        """Read its output to the end and wait for it; its exit code."""
        self.end_input()
        said, deadline = self._buffer, time.monotonic() + ASK_SECONDS
        while piece := self._read(deadline):
            said = (said + piece)[-65536:]
        pid, self._pid = self._pid, 0
        if self._process is not None:
            return self._process.wait(), said
        return exit_code(posix.waitpid(pid, 0)[1]), said

    def end_input(self) -> None:
        if self._feed >= 0:
            posix.close(self._feed)
            self._feed = -1

    def close(self) -> None:
        """Kill it, if it has not ended, and leave nothing; idempotent."""
        self.end_input()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._launch is not None:
            self._launch.container.delete(force=True)
            if self._pid:
                posix.waitpid(self._pid, 0)
            self._launch.release()
        self._pid = 0
        if self._store is not None and self._launch is not None:
            self._store.release(self._launch.config.id)
        if self._out >= 0:
            posix.close(self._out)
            self._out = -1

    def __enter__(self) -> "Instance":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- questions

    def ready(self) -> None:
        """Wait for the probe's first word."""
        line = self._line(time.monotonic() + ASK_SECONDS)
        if line != "ready":
            raise WarrenError(f"{self.row.title}: the probe said {line!r}")

    def ask(self, command: str) -> "tuple[float, list[str]]":
        """Seconds that a command of the probe took, and its answer; WarrenError for one that failed."""
        begun = time.monotonic()
        posix.write(self._feed, command.encode() + b"\n")
        lines: list[str] = []
        while (line := self._line(begun + ASK_SECONDS)) != "done":
            lines.append(line)
        seconds = time.monotonic() - begun
        if failed := next((line for line in lines if line.startswith("error ")), ""):
            raise WarrenError(failed[6:])
        return seconds, lines

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._buffer:
            piece = self._read(deadline)
            if not piece:
                raise WarrenError(f"{self.row.title}: it ended, saying {self._buffer.decode(errors='replace')!r}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def _read(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._out], [], [], left)[0]:
            raise WarrenError(f"{self.row.title}: no answer within {ASK_SECONDS:g} s")
        return posix.read(self._out, 65536)

    # ---- figures

    def processes(self) -> "list[int]":
        """All host processes that it consists of."""
        return [self._pid] if self._launch is None else self._launch.container.processes()

    def memory(self) -> int:
        """Proportional set size of all its processes, bytes: what is shared with others counts in parts.

        Processes that share their address space, as those of user-mode Linux do, count once.
        """
        counted: list[int] = []
        for pid in self.processes():
            if not any(same_memory(pid, other) for other in counted):
                counted.append(pid)
        return sum(map(_pss, counted))

    def disk(self) -> int:
        """Bytes of files that it needs besides the image."""
        if self._launch is None:
            return 0
        if self._launch.machine is None:
            return os.stat(init_path()).st_size
        programs = {path for pid in self.processes() for path in _mapped(pid)}
        return sum(self._launch.machine.files.values()) + sum(_size(path) for path in programs)


def start_and_end(row: Row, source: Source, memory: str) -> Start:
    """Run the user's command from beginning to end."""
    argv = source.command or ([PROBE, "true"])
    used = _cpu()
    begun = time.monotonic()
    with Instance(row, source, argv, memory=memory) as instance:
        started = instance.start()
        code, said = instance.wait()
        exited = time.monotonic() - begun
    cpu = _cpu() - used
    if code in (125, 126, 127):
        raise WarrenError(f"{row.title}: {argv[0]} ended with exit code {code}: {said.decode(errors='replace')[-200:]}")
    return Start(started, exited, cpu, code)


def _configure(row: Row, source: Source, argv: "list[str]", memory: str, network: bool) -> ContainerConfig:
    """The same for all rows, but for what a guest needs: memory of its own, and all power over its own kernel."""
    machine = row.machine
    volumes = [f"{source.scratch}:{DATA}"] if argv == [PROBE] and row.kind != PC else []
    own = source.rootfs or source.name == HOST
    return ContainerConfig(
        argv,
        id=new_id(),
        image="" if own else source.name,
        layers=[source.layer, source.rootfs or "/"] if own else [],
        workdir="/" if own or argv == [PROBE] else "",
        user="0" if argv == [PROBE] else None,
        interactive=True,
        volumes=volumes,
        network="host" if network else "none",
        isolation=row.isolation,
        kernel=machine.kernel.file if machine and machine.kernel.origin == "--kernel" else "",
        accel=row.accel or "auto",
        boot_timeout=machine.boot_seconds if machine else 60.0,
        memory=memory if row.is_machine else "",
        privileged=row.is_machine,
        entrypoint="" if argv[0] == PROBE and not own else None,
    )


def make_layer() -> str:
    """A directory with the probe, and the small files that it reads; named after what is in it."""
    import hashlib

    path = os.path.join(os.path.dirname(os.path.dirname(__file__)), "probe", "probe")
    try:
        with open(path, "rb") as file:
            probe = file.read()
    except OSError as error:
        raise WarrenError(f"probe: {path} is missing", hint="build it: pip install . or make build") from error
    layer = f"{data_directory()}/layers/{hashlib.sha256(probe).hexdigest()[:32]}"
    if not os.path.exists(layer):
        clean_up()
        temporary = f"{layer}.{os.getpid()}"
        os.makedirs(temporary + PROBE + ".files")
        for number in range(64):
            with open(f"{temporary}{PROBE}.files/{number}", "wb") as small:
                small.write(b"%04d" % number * 256)
        with open(temporary + PROBE, "wb") as file:
            file.write(probe)
        os.chmod(temporary + PROBE, 0o755)
        os.rename(temporary, layer)
    return layer


def _cpu() -> float:
    """CPU seconds of ourselves and of all children that have been waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _mapped(pid: int) -> "set[str]":
    """Files of the host that a process has mapped."""
    try:
        with open(f"/proc/{pid}/maps") as file:
            paths = {line.split(maxsplit=5)[5].strip() for line in file if line.count(" ") > 5 and "/" in line}
    except OSError:
        return set()
    return {path for path in paths if path.startswith("/usr/")}


class Server:
    """Answers the probe's network commands on the host's loopback: echoes bytes, or counts them."""

    def __init__(self) -> None:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._socket.close()


def _answer(connection: "object") -> None:
    import socket

    assert isinstance(connection, socket.socket)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            data = connection.recv(65536)
            if data[:1] == b"e":
                while data:
                    connection.sendall(data)
                    data = connection.recv(65536)
            else:
                while data:
                    data = connection.recv(1 << 20)
                connection.sendall(b".")
        except OSError:
            pass


__all__ = ["CONTAINER", "DATA", "PROBE", "Instance", "Server", "Source", "Start", "make_layer", "start_and_end"]
