"""Limits of a live container: update, events, ps, and what the kernel's files say of them."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.host import require
from tests.helpers.limit_table import cgroups_of
from tests.helpers.oci import Bundle, Container, Result, Runtime

MIB = 1 << 20
FILES = {
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "swap": ("memory.memsw.limit_in_bytes", "memory.swap.max"),
    "reservation": ("memory.soft_limit_in_bytes", "memory.low"),
    "quota": ("cpu.cfs_quota_us", "cpu.max"),
    "period": ("cpu.cfs_period_us", "cpu.max"),
    "shares": ("cpu.shares", "cpu.weight"),
    "cpus": ("cpuset.cpus", "cpuset.cpus"),
    "mems": ("cpuset.mems", "cpuset.mems"),
    "pids": ("pids.max", "pids.max"),
}
"""The file of each limit in v1 and in v2."""
RESOURCES = {
    "memory": {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": 16 * MIB},
    "cpu": {"quota": 50000, "period": 100000, "shares": 512, "cpus": "0", "mems": "0"},
    "pids": {"limit": 57},
}
REFUSED = [
    "--memory junk", "--memory 1x", "--memory -5", "--memory-swap junk", "--memory-reservation 5q",
    "--pids-limit junk", "--pids-limit 1.5", "--cpu-quota x", "--cpu-quota 1", "--cpu-period 10us", "--cpu-period 1",
    "--cpu-period -1", "--cpu-share x", "--cpu-share -1", "--cpuset-cpus 4000", "--cpuset-cpus x",
    "--cpuset-mems 4000", "--memory 96m --pids-limit 9 --cpuset-cpus 4000", "--no-such-flag 1",
]  # fmt: skip
MALFORMED = [
    "", "{", "[]", "5", '"text"', '{"memory": []}', '{"memory": {"limit": "64m"}}', '{"memory": {"limit": 1.5}}',
    '{"memory": {"limit": 1e30}}', '{"memory": {"disableOOMKiller": 1}}', '{"pids": {"limit": true}}',
    '{"cpu": {"shares": -1}}', '{"cpu": {"cpus": 0}}', '{"devices": {}}', '{"devices": [{"allow": "yes"}]}',
    '{"hugepageLimits": [{"pageSize": 2}]}', "[" * 100000,
]  # fmt: skip
NEWER = (".hugetlb.", ".cpu.psi", ".memory.psi")
"""What runc's statistics had not before 1.2, or not where v2 has it beside v1."""
SLEEP = "exec sleep 60"
TOUCH = "dd if=/dev/zero of=/dev/null count=1 bs="


@pytest.fixture
def bundle(bundle: Bundle) -> Bundle:
    """With a shell, and the limits that tests change."""
    shutil.copy("/bin/busybox", bundle.rootfs / "bin/busybox")
    (bundle.rootfs / "bin/sh").symlink_to("busybox")
    bundle.linux["resources"].update(RESOURCES)
    return scripted(bundle, SLEEP)


@pytest.fixture
def limited(oci: Runtime, bundle: Bundle) -> Container:
    return oci.up(bundle)


def scripted(bundle: Bundle, script: str) -> Bundle:
    bundle.process["args"] = ["/bin/sh", "-c", script]
    bundle.process["env"].append("PATH=/bin")
    return bundle


def held(container: Container) -> dict[str, str]:
    """What the kernel's files say; only those that this kernel has."""
    found = {}
    directories = cgroups_of(container.pid)
    for name, (v1, v2) in FILES.items():
        for path in [directory / file for file in (v1, v2) for directory in directories]:
            if path.exists() and name not in found:
                words = path.read_text().split()
                found[name] = words[1] if path.name == "cpu.max" and name == "period" else words[0]
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    assert before.keys() == after.keys()
    return {name: value for name, value in after.items() if value != before[name]}


def one_line(result: Result, *words: str) -> Result:
    result.fails(*words)
    lines = [line for line in result.err.strip().splitlines() if "level=warning" not in line]
    assert len(lines) == 1, str(result)
    return result


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def update(container: Container, resources: object, **options: Any) -> Result:
    """With the resources on standard input, as engines do."""
    text = resources if isinstance(resources, str) else json.dumps(resources)
    return container.runtime("update", "--resources", "-", container.id, input=text, **options)


# ---- update


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--memory 96m", {"memory": f"{96 * MIB}"}),
        ("--memory 100663296", {"memory": f"{96 * MIB}"}),
        ("--memory 96m --memory-swap 256m", {"memory": f"{96 * MIB}", "swap": f"{256 * MIB}"}),
        ("--memory-reservation 20m", {"reservation": f"{20 * MIB}"}),
        ("--pids-limit 77", {"pids": "77"}),
        ("--pids-limit -1", {"pids": "max"}),
        ("--cpu-quota 30000", {"quota": "30000"}),
        ("--cpu-period 200000", {"period": "200000"}),
        ("--cpu-quota 30000 --cpu-period 200000", {"quota": "30000", "period": "200000"}),
        ("--cpu-share 2", {"shares": "2"}),
        ("--cpuset-cpus 0", {}),
        ("--cpuset-mems=0", {}),
        ("", {}),
    ],
)
def test_a_flag_changes_its_limit_and_no_other(limited: Container, flags: str, expected: dict[str, str]) -> None:
    before = held(limited)
    limited.runtime("update", *flags.split(), limited.id).ok()
    found = changed(before, held(limited))
    if any(path.name == "cgroup.events" for path in unified(limited)):
        # v2 counts swap alone, and weights from 1 to 10000.
        expected = {**expected, **{name: found[name] for name in ("swap", "shares") if name in found}}
    assert found == {name: value for name, value in expected.items() if name in before}


def unified(container: Container) -> list[Path]:
    """Files of a v2 cgroup with the memory controller."""
    return [file for top in cgroups_of(container.pid) if (top / "memory.max").exists() for file in top.iterdir()]


@pytest.mark.parametrize("source", ["file", "standard input", "-r"])
def test_resources_are_read(limited: Container, directory: Path, source: str) -> None:
    resources = {"memory": {"limit": 80 * MIB}, "pids": {"limit": 9}, "cpu": {"quota": 20000}}
    if source == "file":
        (directory / "resources.json").write_text(json.dumps(resources))
        limited.runtime("update", "--resources", directory / "resources.json", limited.id).ok()
    elif source == "-r":
        limited.runtime("update", "-r", "-", limited.id, input=json.dumps(resources)).ok()
    else:
        update(limited, resources).ok()
    found = held(limited)
    assert (found["memory"], found["pids"], found["quota"]) == (f"{80 * MIB}", "9", "20000")


def test_what_is_not_said_stays(limited: Container) -> None:
    before = held(limited)
    for resources in (
        {},
        {"memory": {}, "cpu": {}, "blockIO": {}},
        {"memory": {"limit": 0, "swap": 0, "reservation": 0}, "blockIO": {"weight": 0}},
        {"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}},
        {"unknown": {"x": 1}, "memory": {"unknown": 1}},
    ):
        update(limited, resources).ok()
        assert held(limited) == before, resources


def test_null_says_nothing(limited: Container) -> None:
    before = held(limited)
    update(limited, {"memory": {"limit": None, "swap": None}, "cpu": None, "pids": None}).ok()
    assert held(limited) == before


def test_updates_add_up(limited: Container) -> None:
    """The second one knows what the first one has set."""
    before = held(limited)
    update(limited, {"memory": {"limit": 96 * MIB, "swap": 128 * MIB}}).ok()
    update(limited, {"cpu": {"quota": 20000}}).ok()
    limited.runtime("update", "--pids-limit", "9", limited.id).ok()
    found = changed(before, held(limited))
    assert {**found, "swap": ""} == {"memory": f"{96 * MIB}", "quota": "20000", "pids": "9", "swap": ""}


def test_memory_goes_up_and_down_with_its_swap(limited: Container) -> None:
    """In v1 each bounds the other: one order is right for more, the other one for less."""
    for limit, both in ((256, 512), (32, 40), (200, 200)):
        update(limited, {"memory": {"limit": limit * MIB, "swap": both * MIB}}).ok()
        found = held(limited)
        assert found["memory"] == f"{limit * MIB}"
        assert found["swap"] == f"{(both - limit if unified(limited) else both) * MIB}"


def test_a_refused_update_changes_nothing(limited: Container) -> None:
    before = held(limited)
    for flags in REFUSED:
        one_line(limited.runtime("update", *flags.split(), limited.id))
        assert held(limited) == before, flags
    one_line(limited.runtime("update", limited.id, "--memory"))
    assert limited.status == "running"


def test_a_contradiction_changes_nothing(limited: Container) -> None:
    before = held(limited)
    one_line(limited.runtime("update", "--memory", "32m", "--memory-swap", "16m", limited.id))
    assert held(limited) == before


def test_a_limit_below_the_usage_is_refused(limited: Container) -> None:
    """v1 says EBUSY; in v2 checkBeforeUpdate spares the container from being killed."""
    before = held(limited)
    one_line(update(limited, {"memory": {"limit": 4096, "checkBeforeUpdate": True}}))
    assert held(limited) == before
    assert limited.status == "running"


def test_malformed_resources_are_one_line(limited: Container) -> None:
    before = held(limited)
    for text in MALFORMED:
        one_line(update(limited, text))
        assert held(limited) == before, text[:60]


def test_trailing_garbage_is_malformed(limited: Container) -> None:
    before = held(limited)
    one_line(update(limited, '{"memory": {"limit": 99999999}} x'))
    assert held(limited) == before


def test_resources_that_cannot_be_read(limited: Container, directory: Path) -> None:
    for path in (directory / "missing.json", directory):
        one_line(limited.runtime("update", "--resources", path, limited.id))


def test_only_what_lives_is_updated(oci: Runtime, bundle: Bundle) -> None:
    one_line(oci("update", "--pids-limit", "5", oci.new_id()), "does not exist")
    container = oci.create(bundle)
    oci("update", "--pids-limit", "51", container.id).ok()
    assert held(container)["pids"] == "51"
    container.start().ok()
    assert held(container)["pids"] == "51"
    container.kill().ok()
    container.wait()
    one_line(oci("update", "--pids-limit", "5", container.id), "container not running")
    one_line(oci("events", "--stats", container.id))


def test_what_is_paused_is_updated_and_stays_paused(limited: Container) -> None:
    limited.runtime("pause", limited.id).ok()
    resources = {"memory": {"limit": 96 * MIB}, "pids": {"limit": 9}, "devices": [{"allow": False, "access": "rwm"}]}
    update(limited, resources).ok()
    assert limited.status == "paused"
    found = held(limited)
    assert (found["memory"], found["pids"]) == (f"{96 * MIB}", "9")
    limited.runtime("resume", limited.id).ok()
    assert limited.status == "running"


def test_a_device_is_allowed_and_denied_again(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}]
    container = oci.up(bundle)
    rules = [{"allow": False, "access": "rwm"}]
    fuse = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}

    def denied() -> bool:
        """Not for another reason, such as that there is no driver."""
        return container.ask("access r /dev/fuse").one("access r /dev/fuse") == "EPERM"

    assert denied()
    update(container, {"devices": [*rules, fuse]}).ok()
    assert not denied()
    update(container, {"devices": rules}).ok()
    assert denied()


# ---- events


def stats(container: Container) -> dict[str, Any]:
    found = json.loads(container.runtime("events", "--stats", container.id).ok().out)
    assert (found["type"], found["id"]) == ("stats", container.id)
    return found["data"]  # type: ignore[no-any-return]


def shape(value: Any, path: str = "") -> set[str]:
    """Paths of all keys; lists have none."""
    if not isinstance(value, dict):
        return {path}
    return {path}.union(*(shape(entry, f"{path}.{key}") for key, entry in value.items()))


def test_statistics(limited: Container) -> None:
    limited.exec("/bin/sh", "-c", f"{TOUCH}8M; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done").ok()
    found = stats(limited)
    assert found["memory"]["usage"]["limit"] == 64 * MIB
    assert 0 < found["memory"]["usage"]["usage"] < 64 * MIB
    assert found["memory"]["raw"]
    assert found["pids"] == {"current": 1, "limit": 57}
    assert found["cpu"]["usage"]["total"] > 10**6
    again = stats(limited)
    assert again["cpu"]["usage"]["total"] >= found["cpu"]["usage"]["total"]


def test_statistics_have_the_keys_that_engines_know(oci: Runtime, bundle: Bundle, directory: Path, token: str) -> None:
    require("runc")
    bundle.linux["resources"]["cpu"]["quota"] = 5000
    burn = f"{TOUCH}8M; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo done; {SLEEP}"
    found = []
    runc = Runtime(str(shutil.which("runc", path="/usr/sbin:/usr/bin")), directory / "runc", f"{token}-runc")
    for runtime in (oci, runc):
        container = runtime.up(scripted(bundle, burn))
        container.expect("done")
        found.append({path for path in shape(stats(container)) if not path.startswith(".blkio.")})
        container.delete("--force").ok()
    assert found[1] <= found[0]
    assert all(path.startswith(NEWER) for path in found[0] - found[1])


class Stream:
    """A running `events`."""

    def __init__(self, container: Container, interval: str) -> None:
        self.process, self.base = container.runtime.spawn("events", "--interval", interval, container.id)

    @property
    def events(self) -> list[dict[str, Any]]:
        text = Path(f"{self.base}.out").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def end(self, seconds: float = 10) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()


def test_statistics_are_streamed_until_the_end(limited: Container) -> None:
    stream = Stream(limited, "200ms")
    began = time.monotonic()
    wait_for(lambda: len(stream.events) >= 3)
    assert time.monotonic() - began > 0.35
    assert {event["id"] for event in stream.events} == {limited.id}
    assert set(stream.types()) == {"stats"}
    limited.kill().ok()
    limited.wait()
    limited.delete().ok()
    assert stream.end() == 0


def test_a_stream_ends_with_its_container(limited: Container) -> None:
    """Also when nobody deletes it: an engine that follows the events waits for that."""
    stream = Stream(limited, "1h")
    time.sleep(0.3)
    assert stream.process.poll() is None
    limited.kill().ok()
    assert stream.end() == 0
    assert stream.events == []


def test_an_oom_kill_is_an_event(limited: Container) -> None:
    update(limited, {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}).ok()
    stream = Stream(limited, "100ms")
    wait_for(stream.types)
    assert "oom" not in stream.types()
    assert limited.exec("/bin/sh", "-c", f"{TOUCH}64M; echo $?").out == "137\n"
    wait_for(lambda: "oom" in stream.types())
    assert {"type": "oom", "id": limited.id} in [{k: v for k, v in e.items() if v} for e in stream.events]
    assert limited.status == "running"
    limited.delete("--force").ok()
    assert stream.end() == 0


def test_the_kill_that_ends_the_container_is_told(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 32 * MIB, "swap": 32 * MIB}
    container = oci.up(scripted(bundle, f"while ! test -e /tmp/go; do :; done; exec {TOUCH}64M"))
    stream = Stream(container, "100ms")
    wait_for(stream.types)
    (bundle.rootfs / "tmp/go").touch()
    wait_for(lambda: "oom" in stream.types())
    container.wait()
    container.delete().ok()
    assert stream.end() == 0


@pytest.mark.parametrize("interval", ["junk", "0", "0s", "-1s", "5"])
def test_an_interval_that_is_none(limited: Container, interval: str) -> None:
    stream = Stream(limited, interval)
    assert stream.end() not in (0, -9)
    assert len(Path(f"{stream.base}.err").read_text().splitlines()) == 1


# ---- processes


def test_every_process_is_listed(oci: Runtime, bundle: Bundle) -> None:
    container = oci.up(scripted(bundle, f"sleep 60 & sleep 60 & (sleep 60 & {SLEEP}) & echo ready; {SLEEP}"))
    container.expect("ready")
    process, _ = oci.spawn("exec", container.id, "/bin/sh", "-c", SLEEP)

    def listed() -> list[int]:
        return json.loads(oci("ps", "--format", "json", container.id).ok().out)  # type: ignore[no-any-return]

    def names() -> list[str]:
        return [Path(f"/proc/{pid}/comm").read_text() for pid in listed()]

    wait_for(lambda: names() == ["sleep\n"] * 6)
    expected = {pid for top in cgroups_of(container.pid) for pid in (top / "cgroup.procs").read_text().split()}
    assert sorted(map(str, listed())) == sorted(expected)
    assert container.pid in listed()
    lines = oci("ps", container.id).ok().out.splitlines()
    assert len(lines) == 7 and lines[0].split()[:2] == ["UID", "PID"]
    container.delete("--force").ok()
    assert process.wait(10) == 137


def test_a_fork_storm_is_removed(oci: Runtime, bundle: Bundle) -> None:
    """Faster than anybody could kill one after the other."""
    bundle.linux["resources"]["pids"] = {"limit": 100}
    container = oci.up(scripted(bundle, "bomb() { bomb | bomb & }; while :; do bomb 2>/dev/null; done"))
    directories = cgroups_of(container.pid)
    counts = [file for top in directories for file in top.glob("pids.current")]
    wait_for(lambda: int(counts[0].read_text()) > 50)
    assert subprocess.run(["true"]).returncode == 0
    container.delete("--force").ok()
    assert not [top for top in directories if top.exists()]
