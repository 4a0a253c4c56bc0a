"""containerd and dockerd as Debian ships them, each in namespaces of the test's own, with the runtime under test.

Nothing of a daemon reaches the host: its state lies on file systems that only its mount namespace has, its bridges and
packet filters in its network namespace.  What it makes all the same is looked for when the room is left.
"""

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from . import leaks, warren
from .processes import MARKER
from .terminal import Terminal

IMAGE = "127.0.0.1:9/burrow:latest"
"""A registry that refuses at once: swarm asks it for the digest first, and a public one only after a time-out."""

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
BUSYBOX = Path("/bin/busybox")
LOOP = ("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done")
"""Runs until it is told to end, and tells that it has ended so."""


class Result(warren.Result):
    def exits(self, code: int, *words: str) -> "Result":
        """With this code, and with each of the words in what it printed."""
        assert self.code == code, str(self)
        for word in words:
            assert word in self.out + self.err, f"{word!r} is not in {self}"
        return self

    def ok(self) -> "Result":
        super().ok()
        return self

    @property
    def line(self) -> str:
        return self.out.strip()


class Room:
    """A mount and a network namespace, in which /run and `private` are empty and everybody else's are out of reach."""

    def __init__(self, directory: Path, token: str) -> None:
        self.directory = directory
        self.private = directory / "private"
        self.cgroup = f"engine-{token}-{directory.name}"
        """The parent of all containers' cgroups: an engine's own, which no runtime has to remove."""
        self.private.mkdir(parents=True)
        self.env = {"PATH": PATH, "HOME": str(directory), MARKER: token}
        self._before = leaks.Snapshot(token)
        script = (
            'for at in /run "$1"; do mount -t tmpfs -o mode=755 tmpfs "$at" || exit; done;'
            "ip link set lo up && echo ready && exec sleep infinity"
        )
        command = ["unshare", "--mount", "--net", "--uts", "--propagation", "private"]
        self._holder = subprocess.Popen(
            [*command, "sh", "-c", f"hostname {directory.name}; {script}", "sh", str(self.private)],
            stdout=subprocess.PIPE,
            env=self.env,
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline() == b"ready\n", "the namespaces could not be made"
        for hierarchy in hierarchies():
            (hierarchy / self.cgroup).mkdir()

    @property
    def pid(self) -> int:
        """Of a process in the namespaces."""
        return self._holder.pid

    def command(self, *words: str | Path) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--uts", "--", *map(str, words)]

    def __call__(self, *words: str | Path, input: str = "", timeout: float = 60) -> Result:
        done = subprocess.run(
            self.command(*words), input=input, capture_output=True, text=True, timeout=timeout, env=self.env
        )
        return Result(done)

    @contextlib.contextmanager
    def terminal(self, *words: str | Path) -> "Iterator[tuple[subprocess.Popen[bytes], Terminal]]":
        """Run a command on a pseudoterminal of 33 rows and 99 columns that controls it."""
        master, slave = os.openpty()
        terminal = Terminal(master)
        terminal.resize(33, 99)
        command = ["setsid", "--ctty", *self.command(*words)]
        env = {**self.env, "TERM": "dumb"}
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        try:
            yield process, terminal
        finally:
            process.kill()
            process.wait()
            terminal.close()

    def close(self) -> None:
        """End the namespaces; the test fails if anything is left on the host."""
        self._holder.kill()
        self._holder.communicate()
        for hierarchy in hierarchies():
            # podman leaves the cgroup in which it starts conmon.
            for path in (hierarchy / self.cgroup / "conmon", hierarchy / self.cgroup):
                with contextlib.suppress(OSError):
                    path.rmdir()
        found = leaks.check(self._before, self.directory)
        if found:
            # Containers of other work on the machine come and go; the room's have its name in theirs.
            found.things = {
                kind: [name for name in names if self.cgroup in name] for kind, names in found.things.items()
            }
        if found:
            found.remove()
            raise AssertionError(f"an engine has {found}")

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class Daemon:
    """A daemon in a room, from the first answer on its socket to its end."""

    command: tuple[str | Path, ...]

    def __init__(self, room: Room) -> None:
        self.room = room
        self.socket = room.directory / "engine.sock"
        self.log = room.directory / "log"

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.room.command(*self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.room.env,
            )
        wait_for(self._answers, f"{self.command[0]} does not answer", self.tail)

    def stop(self, timeout: float = 30) -> None:
        """As a service manager does."""
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.command[0]} does not end: {self.tail()}") from None

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"{self.command[0]} has ended: {self.tail()}"
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
            except OSError:
                return False
        return True


class Containerd(Daemon):
    """containerd, driven by ctr; `runtime` is what its shim calls."""

    def __init__(self, room: Room, runtime: str) -> None:
        super().__init__(room)
        self.runtime = runtime
        config = room.directory / "config.toml"
        config.write_text(
            f"version = 2\nroot = '{room.private}/root'\nstate = '{room.private}/state'\n"
            f"disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{self.socket}'\n"
        )
        self.command = ("containerd", "--config", config)

    def words(self, *words: str | Path) -> list[str | Path]:
        # containerd takes its namespace for the parent of the containers' cgroups.
        return ["ctr", "--address", self.socket, "--namespace", self.room.cgroup, *words]

    def __call__(self, *words: str | Path, timeout: float = 60) -> Result:
        return self.room(*self.words(*words), timeout=timeout)

    def run(self, flags: str, name: str, *command: str) -> Result:
        return self(*self.run_words(flags, name, *command))

    def run_words(self, flags: str, name: str, *command: str) -> list[str]:
        shim = ["--runtime", "io.containerd.runc.v2", "--runc-binary", self.runtime]
        return ["run", *flags.split(), *shim, IMAGE, name, *command]

    def __enter__(self) -> "Containerd":
        self.start()
        self("image", "import", make_image(self.room.directory / "image.tar")).ok()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for name in self("task", "ls", "--quiet").out.split():
            self("task", "delete", "--force", name)
        self.stop()


class Client:
    """What docker's and podman's command lines have in common."""

    room: Room
    run_flags: tuple[str, ...] = ()
    """Of each `run`."""
    remove: tuple[str, ...] = ("rm", "--force")
    """At once, whatever it does."""

    def words(self, *words: str | Path) -> list[str | Path]:
        raise NotImplementedError

    def __call__(self, *words: str | Path, input: str = "", timeout: float = 60) -> Result:
        return self.room(*self.words(*words), input=input, timeout=timeout)

    def run(self, flags: str, *command: str, image: str = IMAGE, timeout: float = 60) -> Result:
        """Without a network, unless the flags name one."""
        return self(*self.run_words(flags, *command, image=image), timeout=timeout)

    def run_words(self, flags: str, *command: str, image: str = IMAGE) -> list[str]:
        network = [] if "--network" in flags else ["--network=none"]
        return ["run", *self.run_flags, *network, *flags.split(), image, *command]

    @contextlib.contextmanager
    def looping(self) -> "Iterator[str]":
        """A container that runs until it is told to end."""
        self.run("--detach --name loop", *LOOP).ok()
        wait_for(lambda: "ready" in self("logs", "loop").out, "the container does not start")
        yield "loop"
        self(*self.remove, "loop").ok()

    def inspect(self, name: str) -> dict[str, Any]:
        return json.loads(self("inspect", name).ok().out)[0]  # type: ignore[no-any-return]

    def state(self, name: str) -> dict[str, Any]:
        return self.inspect(name)["State"]  # type: ignore[no-any-return]


class Docker(Daemon, Client):
    """dockerd and its own containerd, with the runtime under test as default."""

    def __init__(self, room: Room, runtime: str, *flags: str) -> None:
        super().__init__(room)
        self.command = (
            "dockerd", "--host", f"unix://{self.socket}", "--data-root", room.private / "data", "--exec-root",
            room.private / "exec", "--pidfile", room.private / "pid", "--cgroup-parent", f"/{room.cgroup}",
            "--exec-opt", "native.cgroupdriver=cgroupfs", "--add-runtime", f"tested={runtime}",
            "--default-runtime", "tested", *flags,
        )  # fmt: skip

    def words(self, *words: str | Path) -> list[str | Path]:
        return ["docker", "--host", f"unix://{self.socket}", *words]

    def __enter__(self) -> "Docker":
        self.start()
        self("load", "--input", make_image(self.room.directory / "image.tar")).ok()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if left := self("ps", "--all", "--quiet").out.split():
            self("rm", "--force", *left)
        self.stop()


def limit(*names: str) -> str:
    """Shell words that print the first of these files below /sys/fs/cgroup that there is."""
    return " || ".join(f"cat /sys/fs/cgroup/{name} 2>&-" for name in names)


MEMORY = limit("memory/memory.limit_in_bytes", "memory.max")


def wait_for(condition: Callable[[], Any], what: str, details: Callable[[], object] = str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {details()}"
        time.sleep(0.05)


def make_image(path: Path) -> Path:
    """One layer with busybox, in the form of `docker save`, which both engines import."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "root"):
            _add(tar, name, type=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        _add(tar, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in sorted(set(applets) - {"busybox"}):
            _add(tar, f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nbee:x:1000:1000::/tmp:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\nbee:x:1000:\nhive:x:2000:bee\n")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "the tests"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        _add(tar, f"{digest}/layer.tar", layer.getvalue())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return path


def _add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def hierarchies() -> list[Path]:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(line[4]) for line in lines if line[line.index("-") + 1] in ("cgroup", "cgroup2")]
