"""What launches leave behind on the host: mounts, cgroups, namespaces, interfaces, processes, state, rules.

A snapshot before and one after; the difference is a leak.  Other work may go on on the same machine, so what is new
counts only when it can be traced to the test: processes by descent or marker (processes.py), everything else by
name (the test's token or directory, or a name that only Warren uses).  In CI nothing else runs, and all counts.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from . import processes
from .host import STRICT

SETTLE = 3.0
"""Seconds within which the kernel and detached helpers must have finished their tidying up."""

OWN_NAMES = re.compile(r"warren|\bwrn|\bwr[-_]")

KEPT = Path("/var/lib/warren")
"""What root's containers, volumes and networks are kept in; the network `bridge` is there from the first use on."""
KINDS = ("containers", "containers/.names", "containers/.brief", "volumes", "networks")

USER_SLICES = re.compile(r"/user@\d+\.service/([^/]+\.slice/)*[^/]+\.slice$")
"""A user's systemd makes a slice for the first scope in it, and removes it when it likes."""


class Snapshot:
    """Named things by category.  `places` are further state directories to watch."""

    def __init__(self, token: str, places: tuple[Path, ...] = ()) -> None:
        self.token = token
        self.places = places
        self.processes = {(p.pid, p.started): p for p in processes.ours(token) if p.alive}
        self.things: dict[str, set[str]] = {
            "mount": _mounts(),
            "cgroup": _cgroups(),
            "network namespace": _names(Path("/run/netns")) | _names(Path("/var/run/netns")),
            "interface": _names(Path("/sys/class/net")) - _explained_interfaces(),
            "lease": _leases(),
            "state": set().union(*(_containers(place) for place in (*_state_directories(), *places))),
            "kept": set().union(*(_containers(KEPT / kind) for kind in KINDS)) - {str(KEPT / "networks/bridge.json")},
            "rule": _rules(),
        }


class Leaks:
    """The difference of two snapshots, readable and removable."""

    def __init__(self, before: Snapshot, after: Snapshot, directory: Path | None = None) -> None:
        self._directory = str(directory) if directory else ""
        self._token = before.token
        self.processes = [p for key, p in after.processes.items() if key not in before.processes]
        self.things = {
            kind: sorted(name for name in names - before.things[kind] if self._counts(kind, name))
            for kind, names in after.things.items()
        }

    def __bool__(self) -> bool:
        return bool(self.processes) or any(self.things.values())

    def __str__(self) -> str:
        lines = [f"  process: {process.describe()}" for process in self.processes]
        lines += [f"  {kind}: {name}" for kind, names in self.things.items() for name in names]
        return "left behind:\n" + "\n".join(lines)

    def remove(self) -> None:
        """Best effort, so that one leak does not make the next tests fail too."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, 9)
        for line in reversed(self.things["mount"]):
            subprocess.run(["umount", "-l", line.split()[0]], capture_output=True)
        time.sleep(0.1 if self.processes else 0)
        for name in sorted(self.things["cgroup"], reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(name)
        for name in self.things["state"]:
            shutil.rmtree(name, ignore_errors=True)

    def _counts(self, kind: str, name: str) -> bool:
        if kind in ("cgroup", "state") and _belongs_to_others(kind, Path(name)):
            return False
        if kind == "cgroup" and USER_SLICES.search(name):
            return False
        if kind == "lease":
            return True
        mine = (self._token and self._token in name) or (self._directory and self._directory in name)
        # State directories are Warren's or the test's own by definition.
        # What is kept tells nobody whose it is: others may work on the same machine where it is not CI's.
        return bool(STRICT or mine or kind == "state" or OWN_NAMES.search(name))


def check(before: Snapshot, directory: Path | None = None, settle: float = SETTLE) -> Leaks | None:
    """None when the host is as it was, waiting up to `settle` seconds for that."""
    deadline = time.monotonic() + settle
    while leaks := Leaks(before, Snapshot(before.token, before.places), directory):
        if time.monotonic() > deadline:
            return leaks
        time.sleep(0.05)
    return None


def _mounts() -> set[str]:
    """`TARGET ROOT TYPE` of this process's mount namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join([(f := line.split())[4], f[3], line.split(" - ", 1)[1].split()[0]]) for line in lines}


def _cgroups() -> set[str]:
    """Every directory of every hierarchy; alias links are not followed."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split(" - ", 1)[1].split()[0] in ("cgroup", "cgroup2"):
            found |= {path for path, _, _ in os.walk(line.split()[4])}
    return found


def _names(directory: Path) -> set[str]:
    try:
        return {str(directory / name) for name in os.listdir(directory)}
    except OSError:
        return set()


def _containers(directory: Path) -> set[str]:
    """What is there of containers and the like; Warren's own files begin with a dot, but what it is removing counts."""
    return {name for name in _names(directory) if not re.search(r"/\.(?!gone-)[^/]*$", name)}


def _state_directories() -> list[Path]:
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    per_user = [entry / "warren" for entry in Path("/run/user").glob("*")]
    return [Path("/run/warren"), *per_user, *([Path(runtime_dir, "warren")] if runtime_dir else [])]


def _rules() -> set[str]:
    """Lines of the packet filter and of policy routing; counters change by themselves and are cut out."""
    found: set[str] = set()
    if os.geteuid():
        return found
    for command in (["nft", "list", "ruleset"], ["ip", "rule"]):
        if program := shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin"):
            text = subprocess.run([program, *command[1:]], capture_output=True, text=True).stdout
            text = re.sub(r"packets \d+ bytes \d+", "", text)
            found |= {line for line in _counting(text.splitlines()) if line not in ("", "}")}
    return found


_KEPT_SETS = ("bridges", "pairs", "external", "uplinks", "subnets4", "subnets6")
"""Of our own tables: what belongs to networks, which stay, as the tables do."""


def _counting(lines: list[str]) -> Iterator[str]:
    """Of our own tables the elements that belong to containers alone; of others every line."""
    ours, name, open_elements = False, "", False
    for line in map(str.strip, lines):
        words = line.split()
        if words[:1] == ["table"]:
            ours = words[2:3] == ["warren"]
        if not ours:
            yield line
        elif words[:1] in (["set"], ["map"]):
            name = words[1]
        elif line.startswith("elements") or open_elements:
            open_elements = "}" not in line
            if name not in _KEPT_SETS:
                yield f"{name}: {line}"


def _explained_interfaces() -> set[str]:
    """The default bridge, which stays, and the links of containers that there are, whosever they may be."""
    found = {"/sys/class/net/warren0"}
    for path in Path("/run/warren/.networks/containers").glob("*"):
        with contextlib.suppress(OSError, ValueError):
            links = json.loads(path.read_text()).get("links") or []
            found |= {f"/sys/class/net/{link['host_name']}" for link in links}
    return found


def _leases() -> set[str]:
    """Records of links whose container is gone, and who made it, too."""
    found = set()
    for path in Path("/run/warren/.networks/containers").glob("*"):
        with contextlib.suppress(OSError, ValueError):
            owner = int(str(json.loads(path.read_text()).get("owner") or "0").split()[0])
            if not Path("/run/warren", path.name).exists() and not Path(f"/proc/{owner}").exists():
                found.add(str(path))
    return found


def _belongs_to_others(kind: str, path: Path) -> bool:
    """Live processes that are not the tests' own hold it."""
    pids = _pids_in_cgroup(path) if kind == "cgroup" else _pids_in_state(path)
    table = {process.pid: process for process in processes.everything()}
    alive = [table[pid] for pid in pids if pid in table and table[pid].alive]
    return bool(alive) and not any(processes.descends(process, table) for process in alive)


def _pids_in_cgroup(path: Path) -> set[int]:
    try:
        return {int(pid) for pid in (path / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def _pids_in_state(path: Path) -> set[int]:
    found: set[int] = set()
    for file in path.glob("*.json") if path.is_dir() else ():
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in re.findall(r'"(?:pid|init_process_pid)":\s*(\d+)', file.read_text())}
    for name in ("pid", "monitor"):
        with contextlib.suppress(OSError, ValueError):
            found.add(int(os.readlink(path / name).split()[0]))
    return found
