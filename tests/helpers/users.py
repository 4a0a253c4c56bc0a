"""Ordinary users for tests that must not be root: made for the session, removed after it."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import processes


class User:
    """Runs commands as an ordinary user with a clean environment, a home and a runtime directory."""

    def __init__(self, name: str, home: Path) -> None:
        entry = pwd.getpwnam(name)
        self.name, self.uid, self.gid = name, entry.pw_uid, entry.pw_gid
        self.home = home
        self.runtime_dir = home / "run"
        self.runtime_dir.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.runtime_dir, self.uid, self.gid)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "XDG_RUNTIME_DIR": str(self.runtime_dir),
            processes.MARKER: os.environ.get(processes.MARKER, ""),
        }

    def run(
        self,
        *command: str | Path,
        env: dict[str, str] | None = None,
        input: str = "",
        timeout: float = 60,
        cwd: Path | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """As subprocess.run with captured text; the whole session is killed when it takes too long."""
        with self.spawn(*command, env=env, cwd=cwd) as process:
            try:
                out, err = process.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def spawn(
        self, *command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> "subprocess.Popen[str]":
        """Start a command as this user: no groups, no capabilities, no descriptors but the three pipes."""
        user, group = (self.uid, self.gid) if os.geteuid() == 0 else (None, None)
        groups: list[str | int] | None = [] if os.geteuid() == 0 else None
        return subprocess.Popen(
            [str(word) for word in command],
            env=self.environment | (env or {}),
            cwd=cwd or self.home,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,
            user=user,
            group=group,
            extra_groups=groups,
        )

    def give(self, path: Path) -> Path:
        """Make the user the owner of a tree."""
        if os.geteuid() == 0:
            for entry in (path, *path.rglob("*")):
                os.chown(entry, self.uid, self.gid, follow_symlinks=False)
        return path

    def kill_all(self) -> None:
        """The user is the tests' own, and so is every process of it; an account in use cannot be removed."""
        for process in processes.everything():
            try:
                if Path(f"/proc/{process.pid}").stat().st_uid == self.uid:
                    os.kill(process.pid, 9)
            except (FileNotFoundError, ProcessLookupError):
                continue


@contextmanager
def ordinary_user(name: str, home: Path, subordinate_ids: bool) -> Iterator[User]:
    """An account, with 65536 subordinate ids or with none; where the tests are not root, the one that runs them."""
    if os.geteuid():
        yield User(pwd.getpwuid(os.geteuid()).pw_name, home)
        return
    _remove(name)
    subprocess.run(
        [
            "useradd",
            "--home-dir",
            home,
            "--no-create-home",
            "--shell",
            "/bin/sh",
            "--user-group",
            "-K",
            "SUB_UID_COUNT=0",
            "-K",
            "SUB_GID_COUNT=0",
            name,
        ],
        check=True,
        capture_output=True,
    )
    try:
        if subordinate_ids:
            first = _free_range()
            subprocess.run(
                [
                    "usermod",
                    "--add-subuids",
                    f"{first}-{first + 65535}",
                    "--add-subgids",
                    f"{first}-{first + 65535}",
                    name,
                ],
                check=True,
                capture_output=True,
            )
        home.chmod(0o755)
        user = User(name, home)
        os.chown(home, user.uid, user.gid)
        yield user
        user.kill_all()
    finally:
        _remove(name)


def _remove(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return
    subprocess.run(["userdel", "--force", name], capture_output=True)
    for path in (Path("/var/mail", name), Path("/var/spool/mail", name)):
        if path.exists():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _free_range() -> int:
    """The first multiple of 65536 above everything in /etc/subuid and /etc/subgid, and above Debian's lowest."""
    last = 100000
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        for line in file.read_text().splitlines() if file.exists() else ():
            fields: Sequence[str] = line.split(":")
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                last = max(last, int(fields[1]) + int(fields[2]))
    return (last + 65535) // 65536 * 65536
