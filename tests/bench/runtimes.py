"""The runtimes under test: their programs, and the verbs that are timed."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .bundle import KINDS, make_bundle
from .commands import ENVIRONMENT, Commands, FailedError, Ns
from .host import Host

PEERS = ("crun", "runc")


class Runtime:
    """One OCI runtime with a bundle and a container's name for each of bundle.KINDS."""

    def __init__(self, name: str, program: str, commands: Commands, host: Host, rootfs: Path) -> None:
        self.name, self.program = name, program
        self.environment: Mapping[str, str] = ENVIRONMENT
        self.version = _version(program)
        self._commands = commands
        self._pid_files = {kind: host.directory / f"{name}-{kind}.pid" for kind in KINDS}
        self._bundles = {
            kind: str(make_bundle(host.directory / name / kind, rootfs, kind, f"/{host.cgroup.name}/{name}-{kind}"))
            for kind in KINDS
        }
        self._ids = {kind: f"{host.cgroup.name}-{name}-{kind}" for kind in KINDS}

    # ---- what is timed

    def run(self, kind: str, idle: float = 0) -> Ns:
        return self._timed("run", "--bundle", self._bundles[kind], self._ids[kind], idle=idle)

    def lifecycle(self, idle: float = 0) -> Ns:
        """create, start and delete; that the program ends in between is not counted."""
        total = self.create("plain", idle)
        total += self._timed("start", self._ids["plain"], idle=idle)
        os.waitpid(self.pid("plain"), 0)
        return total + self._timed("delete", self._ids["plain"], idle=idle)

    def create(self, kind: str, idle: float = 0) -> Ns:
        return self._timed(*self.create_words(kind), idle=idle)

    def exec(self, idle: float = 0) -> Ns:
        return self._timed("exec", self._ids["sleep"], "/bin/true", idle=idle)

    def state(self, idle: float = 0) -> Ns:
        return self._timed("state", self._ids["sleep"], idle=idle)

    # ---- what is not

    def create_words(self, kind: str) -> list[str]:
        return ["create", "--bundle", self._bundles[kind], "--pid-file", str(self._pid_files[kind]), self._ids[kind]]

    def run_words(self, kind: str) -> list[str]:
        return ["run", "--bundle", self._bundles[kind], self._ids[kind]]

    def keep_one_running(self) -> None:
        """The container of exec() and state()."""
        self.create("sleep")
        self._timed("start", self._ids["sleep"])

    def unenforced(self) -> dict[str, str]:
        """What Warren did not hold, in its own words, from its state; other runtimes say nothing."""
        command = self.command("state", self._ids["sleep"])
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        enforced: dict[str, str] = json.loads(done.stdout).get("enforced") or {}
        return {what: why for what, why in enforced.items() if why.startswith(("not enforced", "none"))}

    def pid(self, kind: str) -> int:
        """Of the process that create() made last for that bundle; it is our child."""
        return int(self._pid_files[kind].read_text())

    def remove(self, kind: str) -> None:
        """Whatever state it is in, and whether it exists or not."""
        words = [self.program, "delete", "--force", self._ids[kind]]
        subprocess.run(words, env=self.environment, capture_output=True, check=False, timeout=30)

    def close(self) -> None:
        for kind in KINDS:
            self.remove(kind)

    def command(self, *words: str) -> list[str]:
        return [self.program, *words]

    def _timed(self, *words: str, idle: float = 0) -> Ns:
        return self._commands.timed(self.command(*words), self.environment, idle)


def find(bin: Path, extra: str) -> dict[str, str]:
    """Name and program of each runtime; `extra` is NAME=PATH words, as BENCH_RUNTIMES has them."""
    programs = {"warren-oci": str(bin / "warren-oci")}
    for name in PEERS:
        programs[name] = need(name)
    for word in extra.split():
        name, _, path = word.partition("=")
        programs[name] = need(path)
    return programs


def need(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not found:
        raise FailedError(f"{program} is not installed")
    return os.path.abspath(found)


def make_usable(runtime: Runtime, stub: Path) -> bool:
    """Launch once with each bundle; whether only with the stub of rlimit.c.  Raises FailedError if not even so."""
    try:
        runtime.run("plain")
    except FailedError as error:
        runtime.close()
        if "MEMLOCK" not in str(error):
            raise
        runtime.environment = {**ENVIRONMENT, "LD_PRELOAD": str(stub)}
        runtime.run("plain")
    runtime.run("seccomp")
    runtime.run("engine")
    return "LD_PRELOAD" in runtime.environment


def pss(pid: int) -> int:
    """Proportional set size in KiB (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _version(program: str) -> str:
    """The last word of the first line, as all of them print it."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise FailedError(f"{program} --version ended with exit code {done.returncode}\n{done.stderr}")
    return done.stdout.splitlines()[0].split()[-1]
