"""Drives an OCI runtime from outside, as an engine does, with a private --root and a limit on every call's time."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import probe
from .probe import Answers
from .processes import MARKER

TIMEOUT = 30.0
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
NAMESPACES = ["pid", "network", "ipc", "uts", "mount"]

MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
]


def make_rootfs(directory: Path, program: Path) -> Path:
    """A root file system whose only program is the probe."""
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "data"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    (directory / "tmp").chmod(0o1777)
    shutil.copy(program, directory / "bin/probe")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/probe\nbee:x:1000:1000::/home/bee:/bin/probe\n")
    (directory / "etc/group").write_text("root:x:0:\nbee:x:1000:\nhive:x:2000:bee\n")
    return directory


class Bundle:
    """A directory with config.json and rootfs; `config` is written out at each launch."""

    def __init__(self, directory: Path, program: Path, token: str) -> None:
        self.path = directory
        directory.mkdir(parents=True)
        directory.chmod(0o755)
        self.rootfs = make_rootfs(directory / "rootfs", program)
        self.config: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/probe", "sleep", "60"],
                "env": ["PATH=/usr/bin:/bin", f"{MARKER}={token}"],
                "cwd": "/",
                "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
                "noNewPrivileges": True,
            },
            "root": {"path": "rootfs"},
            "hostname": "burrow",
            "mounts": json.loads(json.dumps(MOUNTS)),
            "linux": {
                "namespaces": [{"type": kind} for kind in NAMESPACES],
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]  # type: ignore[no-any-return]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]  # type: ignore[no-any-return]

    def asks(self, *questions: str) -> "Bundle":
        """The container's program puts these questions to the probe."""
        self.process["args"] = probe.command(*questions)
        return self

    def mount(self, destination: str, type: str, source: str | Path, *options: str) -> "Bundle":
        self.config["mounts"].append(
            {"destination": destination, "type": type, "source": str(source), "options": list(options)}
        )
        return self

    def unshares(self, kind: str, path: str | Path = "") -> "Bundle":
        """A namespace of this type is new, or that of `path`."""
        self.shares(kind)
        self.linux["namespaces"].append({"type": kind, "path": str(path)} if path else {"type": kind})
        return self

    def shares(self, kind: str) -> "Bundle":
        """The runtime's own namespace of this type is used."""
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]
        return self

    def maps(self, host: int, size: int = 65536, group: int | None = None) -> "Bundle":
        """A new user namespace in which ids from 0 on are the host's from `host` on; the rootfs is given to them."""
        self.unshares("user")
        for kind, first in (("uidMappings", host), ("gidMappings", host if group is None else group)):
            self.linux[kind] = [{"containerID": 0, "hostID": first, "size": size}]
        if os.geteuid() == 0:
            for path in (self.rootfs, *self.rootfs.rglob("*")):
                os.chown(path, host, host if group is None else group, follow_symlinks=False)
        return self

    def for_ordinary_user(self, uid: int, gid: int) -> "Bundle":
        """What `runc spec --rootless` writes: one id mapped, no group 5, /sys of the host, no cgroup."""
        self.maps(uid, 1, gid)
        self.linux.pop("resources")
        for mount in self.config["mounts"]:
            if "gid=5" in mount.get("options", ()):
                mount["options"].remove("gid=5")
        for path in (self.path, self.rootfs, *self.rootfs.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, uid, gid, follow_symlinks=False)
        return self

    def save(self) -> "Bundle":
        (self.path / "config.json").write_text(json.dumps(self.config, indent=1))
        return self


class Result:
    """How a command ended.  Its output went to files, since containers may outlive it and hold them open."""

    def __init__(self, command: Sequence[str], code: int, out: Path, err: Path) -> None:
        self.command, self.code = list(command), code
        self._out, self._err = out, err

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def ok(self) -> "Result":
        assert self.code == 0, f"{self}"
        return self

    def fails(self, *words: str) -> "Result":
        """An error that is reported: not success, no signal, a line on standard error with each of the words."""
        assert (0 < self.code < 128 or self.code == 255) and self.err.strip(), f"an error was expected: {self}"
        assert "Traceback" not in self.err and "panic: " not in self.err, str(self)
        for word in words:
            assert word.lower() in self.err.lower(), f"{word!r} is not in the message: {self}"
        return self

    def __str__(self) -> str:
        return f"{' '.join(self.command)}\nexit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


class Runtime:
    """One runtime program with a state root of its own under `directory`; `name` is part of every id."""

    def __init__(self, program: str, directory: Path, name: str) -> None:
        self.program, self.directory, self.name = program, directory, name
        self.root = directory / "state"
        self.prefix: list[str] = []
        """What runs the program, such as setpriv(1)."""
        self.flags: list[str] = []
        """Global options that every command gets."""
        self.containers: list[Container] = []
        self._count = 0
        directory.mkdir(parents=True, exist_ok=True)

    def __call__(
        self,
        *arguments: str | Path,
        input: str = "",
        timeout: float = TIMEOUT,
        opens: Sequence[Path] = (),
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Result:
        return self._wait(*self.spawn(*arguments, input=input, opens=opens, env=env, cwd=cwd), timeout)

    def spawn(
        self,
        *arguments: str | Path,
        input: str = "",
        opens: Sequence[Path] = (),
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> "tuple[subprocess.Popen[bytes], Path]":
        """Start the command without waiting for it; the second value is where its output goes (with .err beside).

        `opens` are paths that the command finds open as its descriptors 3, 4, ...
        """
        self._count += 1
        command = [*self.prefix, self.program, "--root", str(self.root), *self.flags, *map(str, arguments)]
        if opens:
            redirections = " ".join(f"{number}<{shlex.quote(str(path))}" for number, path in enumerate(opens, 3))
            command = ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *command]
        base = self.directory / f"call-{self._count}"
        with tempfile.TemporaryFile() as stdin, open(f"{base}.out", "wb") as out, open(f"{base}.err", "wb") as err:
            stdin.write(input.encode())
            stdin.seek(0)
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=out,
                stderr=err,
                cwd=cwd or self.directory,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", MARKER: os.environ.get(MARKER, ""), **(env or {})},
                start_new_session=True,
            )
        return process, base

    def _wait(self, process: "subprocess.Popen[bytes]", base: Path, timeout: float) -> Result:
        command = list(map(str, process.args))  # type: ignore[arg-type]
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"took more than {timeout} s: {' '.join(command)}") from None
        return Result(command, code, Path(f"{base}.out"), Path(f"{base}.err"))

    def new_id(self) -> str:
        return f"wrn-{self.name}-{len(self.containers)}"

    def ask(self, bundle: Bundle, *questions: str) -> Answers:
        """Run the probe as the bundle's program; its answers."""
        return self.run(bundle.asks(*questions)).ok().answers

    def run(self, bundle: Bundle, *flags: str | Path, **options: Any) -> "Run":
        """Create, start, wait and delete in one command."""
        container = self._new(bundle)
        result = self("run", "--bundle", bundle.path, *flags, container.id, **options)
        return Run(result.command, result.code, result._out, result._err)

    def create(self, bundle: Bundle, *flags: str | Path, **options: Any) -> "Container":
        container = self._new(bundle)
        container.created = self("create", "--bundle", bundle.path, *flags, container.id, **options).ok()
        return container

    def up(self, bundle: Bundle, *flags: str | Path, **options: Any) -> "Container":
        """A container that was created and started."""
        container = self.create(bundle, *flags, **options)
        self("start", container.id).ok()
        return container

    def refuses(self, bundle: Bundle, *words: str, flags: Sequence[str | Path] = ()) -> Result:
        """`create` fails, says why, and leaves no container."""
        container = self._new(bundle)
        result = self("create", "--bundle", bundle.path, *flags, container.id).fails(*words)
        self("state", container.id).fails()
        return result

    def list(self) -> list[dict[str, Any]]:
        return json.loads(self("list", "--format", "json").ok().out) or []

    def close(self) -> None:
        """Remove whatever is left, as a careful engine does after a crash."""
        for container in self.containers:
            self("delete", "--force", container.id)

    def _new(self, bundle: Bundle) -> "Container":
        bundle.save()
        container = Container(self, self.new_id(), bundle)
        self.containers.append(container)
        return container


class Run(Result):
    @property
    def answers(self) -> Answers:
        return Answers(self.out)

    def ok(self) -> "Run":
        super().ok()
        return self


class Container:
    """A handle with the OCI verbs; each returns the command's Result unless it says otherwise."""

    created: Result

    def __init__(self, runtime: Runtime, id: str, bundle: Bundle) -> None:
        self.runtime, self.id, self.bundle = runtime, id, bundle

    def start(self) -> Result:
        return self.runtime("start", self.id)

    def kill(self, signal: str | int = "KILL", *flags: str) -> Result:
        return self.runtime("kill", *flags, self.id, str(signal))

    def delete(self, *flags: str) -> Result:
        return self.runtime("delete", *flags, self.id)

    def state(self) -> dict[str, Any]:
        return json.loads(self.runtime("state", self.id).ok().out)  # type: ignore[no-any-return]

    @property
    def status(self) -> str:
        return self.state()["status"]  # type: ignore[no-any-return]

    @property
    def pid(self) -> int:
        return self.state()["pid"]  # type: ignore[no-any-return]

    @property
    def output(self) -> str:
        """What the container's program has printed so far, where it inherited create's standard output."""
        return self.created.out

    @property
    def answers(self) -> Answers:
        return Answers(self.output)

    def wait(self, status: str = "stopped", timeout: float = 10) -> "Container":
        deadline = time.monotonic() + timeout
        while (now := self.status) != status:
            assert time.monotonic() < deadline, f"{self.id} is {now}, not {status}"
            time.sleep(0.02)
        return self

    def expect(self, text: str, timeout: float = 10) -> str:
        """Wait until the program has printed `text`."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.output!r}"
            time.sleep(0.02)
        return self.output

    def exec(self, *arguments: str | Path, flags: Sequence[str | Path] = (), **options: Any) -> Run:
        result = self.runtime("exec", *flags, self.id, *arguments, **options)
        return Run(result.command, result.code, result._out, result._err)

    def ask(self, *questions: str, flags: Sequence[str | Path] = ()) -> Answers:
        """Put questions to a probe that is executed in the running container."""
        return self.exec(*probe.command(*questions), flags=flags).ok().answers
