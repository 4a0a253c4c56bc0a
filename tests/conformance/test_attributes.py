"""Scheduling, processors, keyrings, labels, clocks and passed sockets of a process; id maps and changes of mounts."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.host import require
from tests.helpers.oci import Bundle, Container, Runtime

IOPRIO_GET = {"x86_64": 252, "aarch64": 31}
KEYCTL = {"x86_64": 250, "aarch64": 219}


def stat_of(container: Container) -> list[str]:
    """Fields of /proc/PID/stat from the third on (proc(5))."""
    text = Path(f"/proc/{container.pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def exec_with(oci: Runtime, box: Container, directory: Path, question: str, **fields: Any) -> Any:
    process = {"args": ["/bin/probe", *question.split()], "cwd": "/", "user": {"uid": 0, "gid": 0}, **fields}
    file = directory / "process.json"
    file.write_text(json.dumps(process))
    return oci("exec", "--process", file, box.id)


def test_scheduler(oci: Runtime, bundle: Bundle) -> None:
    """ "scheduler (object, OPTIONAL) is an object describing the scheduler properties for the process." """
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    fields = stat_of(oci.up(bundle))
    assert (fields[16], fields[38]) == ("7", "3")


@pytest.mark.parametrize(
    "scheduler", [{"policy": "SCHED_ISO"}, {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NO_SUCH"]}]
)
def test_a_scheduler_that_there_is_not(oci: Runtime, bundle: Bundle, scheduler: dict[str, Any]) -> None:
    bundle.process["scheduler"] = scheduler
    oci.refuses(bundle, "scheduler")


def test_io_priority(oci: Runtime, bundle: Bundle) -> None:
    """ "ioPriority (object, OPTIONAL) configures the I/O priority settings for the container's processes" """
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    question = f"syscall {IOPRIO_GET[platform.machine()]} 1 0"
    assert oci.ask(bundle, question).one(question) == f"= {2 << 13 | 6}"


def test_exec_has_the_containers_scheduler(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """runc: what a process file does not say is the container's."""
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    box = oci.up(bundle)
    inherited = exec_with(oci, box, directory, "cat /proc/self/stat").ok().out
    own = exec_with(oci, box, directory, "cat /proc/self/stat", scheduler={"policy": "SCHED_OTHER", "nice": 3}).ok().out
    assert [text[text.rindex(")") + 2 :].split()[16] for text in (inherited, own)] == ["7", "3"]


@pytest.fixture
def second() -> int:
    """A processor of ours that is not the first of them."""
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) < 2:
        pytest.skip("this machine has one processor")
    return ours[1]


def test_exec_affinity(oci: Runtime, box: Container, directory: Path, second: int) -> None:
    """ "final (string, OPTIONAL) is a list of CPUs the process will be run on after the transition to container's
    cgroup. ... If omitted or empty, the container's default CPU affinity, as defined by cpu.cpus property, is used."
    """
    question = "status Cpus_allowed_list"
    affinity = {"initial": "0", "final": str(second)}
    assert f"\t{second}\n" in exec_with(oci, box, directory, question, execCPUAffinity=affinity).ok().out
    whole = exec_with(oci, box, directory, question).ok().out
    assert exec_with(oci, box, directory, question, execCPUAffinity={"initial": "0"}).ok().out == whole


@pytest.mark.parametrize("text", ["x", "3-1", "0,,1", "-1", "0-", "99999", "1e3"])
def test_a_malformed_affinity(oci: Runtime, box: Container, directory: Path, text: str) -> None:
    exec_with(oci, box, directory, "true", execCPUAffinity={"final": text}).fails("execCPUAffinity")


# keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0): the serial number of our session keyring.
SESSION_KEYRING = f"syscall {KEYCTL[platform.machine()]} 0 -3 0"


def test_a_session_keyring_of_its_own(oci: Runtime, bundle: Bundle) -> None:
    """runc(8): "--no-new-keyring: Do not create a new session keyring for the container. This will cause the container
    to inherit the calling processes session key." `exec` joins the container's."""
    caller = subprocess.run([bundle.rootfs / "bin/probe", *SESSION_KEYRING.split()], capture_output=True, text=True)
    container = oci.up(bundle)
    first, second = (oci("exec", container.id, "/bin/probe", *SESSION_KEYRING.split()).ok().out for _ in range(2))
    assert first == second != caller.stdout
    assert f"_ses.{container.id}" in Path("/proc/keys").read_text()
    kept = oci.run(bundle.asks(SESSION_KEYRING), "--no-new-keyring").ok().answers.one(SESSION_KEYRING)
    assert kept == caller.stdout.strip()


def test_the_keyring_goes_with_the_container(oci: Runtime, bundle: Bundle) -> None:
    container = oci.up(bundle)
    container.delete("--force").ok()
    deadline = time.monotonic() + 10
    while f"_ses.{container.id}" in Path("/proc/keys").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_time_offsets(oci: Runtime, bundle: Bundle) -> None:
    """ "timeOffsets (object, OPTIONAL) sets the offset for Time Namespace." """
    bundle.unshares("time").linux["timeOffsets"] = {
        "monotonic": {"secs": 1_000_000, "nanosecs": 5},
        "boottime": {"secs": 2_000_000},
    }
    container = oci.up(bundle)
    plain = oci.ask(bundle, "clock").table("clock")
    here = Path("/proc/uptime").read_text().split()[0]
    assert 0 <= int(plain["boottime"]) - 2_000_000 - float(here) + 5 < 10
    assert 0 <= int(plain["monotonic"]) - 1_000_000 - float(here) + 5 < 10
    joined = dict(line.split() for line in oci("exec", container.id, "/bin/probe", "clock").ok().out.splitlines())
    assert 0 <= int(joined["boottime"]) - int(plain["boottime"]) < 10


def test_passed_sockets(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """sd_listen_fds(3): the sockets are the descriptors from 3 on, and LISTEN_PID says whose they are."""
    env = {"LISTEN_FDS": "2", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b"}
    run = oci.run(bundle.asks("fds", "env"), "--preserve-fds", "1", opens=[directory] * 4, env=env).ok()
    assert set(run.answers.table("fds")) == {"0", "1", "2", "3", "4", "5"}
    assert {"LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=a:b"} <= set(run.answers["env"])


def test_sockets_that_are_passed_to_another(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    env = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
    run = oci.run(bundle.asks("fds", "env"), opens=[directory] * 4, env=env).ok()
    assert set(run.answers.table("fds")) == {"0", "1", "2"}
    assert not [line for line in run.answers["env"] if line.startswith("LISTEN_")]


@pytest.mark.skipif(
    Path("/sys/module/apparmor/parameters/enabled").exists(), reason="AppArmor is here: nothing is refused"
)
def test_a_profile_without_apparmor_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "burrow"
    oci.refuses(bundle, "rmor")


@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="SELinux is here: nothing is refused")
@pytest.mark.parametrize("place", ["process", "mounts"])
def test_a_label_without_selinux_is_an_error(oci: Runtime, bundle: Bundle, place: str) -> None:
    label = "system_u:object_r:container_file_t:s0"
    if place == "process":
        bundle.process["selinuxLabel"] = label
    else:
        bundle.linux["mountLabel"] = label
    oci.refuses(bundle, "SELinux")


# ---- mounts


@pytest.fixture
def tree(directory: Path) -> Iterator[Path]:
    """A tmpfs with a second one below it; each has a file that belongs to 5:6."""
    top = directory / "tree"
    top.mkdir()
    for place in (top, top / "below"):
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
        (place / "file").touch()
        os.chown(place / "file", 5, 6)
    yield top
    subprocess.run(["umount", top / "below", top], check=True)


def owners(oci: Runtime, bundle: Bundle) -> list[str]:
    question = "stat /data/file /data/below/file"
    return [":".join(line.split()[3:5]) for line in oci.ask(bundle, question)[question]]


@pytest.mark.parametrize(("word", "below"), [("idmap", "5:6"), ("ridmap", "1005:1006"), ("", "5:6")])
def test_a_mounts_own_maps(oci: Runtime, bundle: Bundle, tree: Path, word: str, below: str) -> None:
    """ "uidMappings: The mapping to convert UIDs from the source file system to the destination mount point."
    "idmap: ... is not recursive" "ridmap: ... applied recursively" """
    bundle.mount("/data", "bind", tree, "rbind", *filter(None, [word]))
    maps = [{"containerID": 0, "hostID": 1000, "size": 100}]
    bundle.config["mounts"][-1].update(uidMappings=maps, gidMappings=maps)
    assert owners(oci, bundle) == ["1005:1006", below]


def test_two_mounts_with_maps(oci: Runtime, bundle: Bundle, tree: Path) -> None:
    for name, first in (("/one", 1000), ("/two", 2000), ("/three", 1000)):
        bundle.mount(name, "bind", tree, "bind")
        maps = [{"containerID": 0, "hostID": first, "size": 100}]
        bundle.config["mounts"][-1].update(uidMappings=maps, gidMappings=maps)
    question = "stat /one/file /two/file /three/file"
    found = [":".join(line.split()[3:5]) for line in oci.ask(bundle, question)[question]]
    assert found == ["1005:1006", "2005:2006", "1005:1006"]


def mounts_of(oci: Runtime, bundle: Bundle, point: str) -> list[str]:
    """What mountinfo says of a mount point: its options, then its propagation and its file system (proc(5))."""
    for line in oci.ask(bundle, "mounts")["mounts"]:
        fields = line.split()
        if fields[4] == point:
            return fields[5:]
    raise AssertionError(f"{point} is no mount point")


def test_remount(oci: Runtime, bundle: Bundle) -> None:
    """ "remount: attempt to remount an already-mounted filesystem" (mount(8)); what it does not name stays."""
    bundle.mount("/tmp", "tmpfs", "tmpfs", "nosuid", "size=1m")
    bundle.mount("/tmp", "tmpfs", "tmpfs", "remount", "ro", "nosuid", "size=2m")
    words = mounts_of(oci, bundle, "/tmp")
    assert {"ro", "nosuid"} <= set(words[0].split(","))
    assert "size=2048k" in words[-1]


def test_remount_of_what_is_no_mount(oci: Runtime, bundle: Bundle) -> None:
    bundle.mount("/etc", "none", "none", "remount", "ro")
    oci.refuses(bundle, "/etc")


def test_a_new_mount_may_be_shared(oci: Runtime, bundle: Bundle) -> None:
    bundle.mount("/tmp", "tmpfs", "tmpfs", "rshared")
    assert "shared:" in " ".join(mounts_of(oci, bundle, "/tmp"))


def test_a_private_mount_below_a_shared_root(oci: Runtime, bundle: Bundle, tree: Path) -> None:
    bundle.linux["rootfsPropagation"] = "shared"
    bundle.mount("/data", "bind", tree, "bind", "private")
    assert "shared:" not in " ".join(mounts_of(oci, bundle, "/data"))


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "interleave=static:0"),
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
    ],
    ids=lambda value: value["mode"] if isinstance(value, dict) else "",
)
def test_memory_policy(oci: Runtime, bundle: Bundle, policy: dict[str, Any], shown: str) -> None:
    """ "memoryPolicy (object, OPTIONAL) sets the NUMA memory policy for the container": of its processes, also of those
    that `exec` adds (runc)."""
    require("memory-policies")
    bundle.linux["memoryPolicy"] = policy
    container = oci.up(bundle)
    inside = container.ask("cat /proc/self/numa_maps")["cat /proc/self/numa_maps"]
    for line in Path(f"/proc/{container.pid}/numa_maps").read_text().splitlines() + inside:
        assert line.split(" ", 1)[1].startswith(shown), line


@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "MPOL_NONE"},
        {"nodes": "0"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"]},
        {"mode": "MPOL_BIND", "nodes": "zero"},
        {"mode": "MPOL_BIND", "nodes": "3-1"},
        {"mode": "MPOL_BIND", "nodes": "1023"},
        {"mode": "MPOL_BIND", "nodes": ""},
        {"mode": "MPOL_DEFAULT", "nodes": "0"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]},
    ],
    ids=str,
)
def test_a_memory_policy_that_there_is_not(oci: Runtime, bundle: Bundle, policy: dict[str, Any]) -> None:
    """ "mode ... flags ... A valid list of constants is": words, lists and combinations that the kernel refuses."""
    require("memory-policies")
    bundle.linux["memoryPolicy"] = policy
    oci.refuses(bundle, "memory")


def test_intel_rdt_needs_its_file_system(oci: Runtime, bundle: Bundle) -> None:
    """ "If no mounted resctrl pseudo-filesystem is available in the runtime mount namespace, the runtime MUST generate
    an error." """
    if " - resctrl " in Path("/proc/self/mountinfo").read_text():
        return  # tests/unit/test_resctrl.py shows what happens then.
    bundle.linux["intelRdt"] = {"closID": "warren", "schemata": ["L3:0=f"]}
    oci.refuses(bundle, "intelrdt", "resctrl")


def test_a_relative_destination_is_told(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """config.md, Mounts: "destination ... MUST be an absolute path"; runtimes may take older bundles' relative ones as
    below /. runc does so, with a warning."""
    (directory / "source").mkdir()
    (directory / "source/file").write_text("here")
    bundle.mount("data/inside", "bind", directory / "source", "rbind")
    result = oci.run(bundle.asks("cat /data/inside/file")).ok()
    assert "here" in result.out
    assert "warn" in result.err and "data/inside" in result.err
