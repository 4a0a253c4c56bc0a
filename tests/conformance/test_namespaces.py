"""Namespaces, new, joined and shared: config-linux.md, "Namespaces" and what hangs on each of them."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.oci import Bundle, Container, Runtime

KINDS = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt"}


@contextmanager
def holder(*flags: str) -> Iterator[int]:
    """A process that keeps new namespaces alive; unshare(1)'s flags. Yields its pid."""
    process = subprocess.Popen(["unshare", *flags, "sleep", "60"])
    try:
        deadline = time.monotonic() + 5
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n" and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def namespaces(pid: int | str = "self") -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns")}


def test_listed_namespaces_are_new(oci: Runtime, bundle: Bundle) -> None:
    """ "If path is not specified, the runtime MUST create a new container namespace of type type." """
    inside, outside = oci.ask(bundle, "ns").table("ns"), namespaces()
    assert {kind for kind, name in KINDS.items() if inside[name] != outside[name]} == set(KINDS)


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts"])
def test_absent_namespaces_are_inherited(oci: Runtime, bundle: Bundle, kind: str) -> None:
    """ "If a namespace type is not specified in the namespaces array, the container MUST inherit the runtime
    namespace of that type." """
    bundle.shares(kind)
    if kind == "uts":
        bundle.config.pop("hostname")
    if kind == "ipc":
        bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["type"] != "mqueue"]
    inside, outside = oci.ask(bundle, "ns").table("ns"), namespaces()
    same = {kind for kind, name in KINDS.items() if inside[name] == outside[name]}
    assert same == {kind}
    assert inside["user"] == outside["user"]


@pytest.mark.parametrize(("kind", "flag"), [("network", "--net"), ("ipc", "--ipc"), ("uts", "--uts")])
def test_namespaces_are_joined_by_path(oci: Runtime, bundle: Bundle, kind: str, flag: str) -> None:
    """ "The runtime MUST place the container process in the namespace associated with that path." """
    with holder(flag) as pid:
        path = f"/proc/{pid}/ns/{KINDS[kind]}"
        bundle.unshares(kind, path)
        if kind == "uts":
            bundle.config.pop("hostname")
        assert oci.ask(bundle, "ns").table("ns")[KINDS[kind]] == os.readlink(path)


def test_a_pid_namespace_is_joined_by_path(oci: Runtime, bundle: Bundle, box: Container) -> None:
    """ "The runtime MUST place the container process in the namespace associated with that path." """
    bundle.unshares("pid", f"/proc/{box.pid}/ns/pid")
    answers = oci.ask(bundle, "ns", "pids", "process")
    assert answers.table("ns")["pid"] == os.readlink(f"/proc/{box.pid}/ns/pid")
    assert int(answers.table("process")["pid"]) > 1
    assert "1" in answers["pids"]


@pytest.mark.parametrize("path", ["/proc/self/ns/uts", "/dev/null", "/no/such/path", "/etc"])
def test_a_path_of_another_type_is_an_error(oci: Runtime, bundle: Bundle, path: str) -> None:
    """ "The runtime MUST generate an error if path is not associated with a namespace of type type." """
    oci.refuses(bundle.unshares("network", path))


def test_duplicates_are_errors(oci: Runtime, bundle: Bundle) -> None:
    """ "If a namespaces field contains duplicated namespaces with same type, the runtime MUST generate an error." """
    bundle.linux["namespaces"].append({"type": "pid"})
    oci.refuses(bundle)


def test_the_hostname_is_set_inside_only(oci: Runtime, bundle: Bundle) -> None:
    """ "hostname (string, OPTIONAL) specifies the container's hostname as seen by processes running inside the
    container." """
    before = os.uname().nodename
    assert oci.ask(bundle, "hostname").one("hostname") == "burrow"
    assert os.uname().nodename == before != "burrow"


def test_a_hostname_needs_a_uts_namespace(oci: Runtime, bundle: Bundle) -> None:
    """ "On Linux, for example, this will change the hostname in the container UTS namespace": never that of the
    host."""
    oci.refuses(bundle.shares("uts"), "uts")


def test_the_domainname_is_set(oci: Runtime, bundle: Bundle) -> None:
    """ "domainname (string, OPTIONAL) specifies the container's domainname as seen by processes running inside the
    container." """
    bundle.config["domainname"] = "example.org"
    assert oci.ask(bundle, "domainname").one("domainname") == "example.org"


def test_loopback_is_up(oci: Runtime, bundle: Bundle) -> None:
    """ "network: the container will have its own network stack." Its loopback works, as in runc and crun."""
    answers = oci.ask(bundle, "net")
    up = [line for line in answers["net"] if line.split()[1] == "up"]
    assert up == ["lo up 127.0.0.1"]


def test_sysctls_of_the_namespaces_are_set(oci: Runtime, bundle: Bundle) -> None:
    """ "sysctl (object, OPTIONAL) allows kernel parameters to be modified at runtime for the container." """
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "12"}
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    answers = oci.ask(bundle, *(f"sysctl {name}" for name in bundle.linux["sysctl"]))
    assert [answers.one(f"sysctl {name}") for name in bundle.linux["sysctl"]] == ["1", "1", "12"]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


@pytest.mark.parametrize("name", ["kernel.panic", "vm.swappiness", "../../../etc/x", "net.ipv4.no_such"])
def test_sysctls_of_the_host_are_refused(oci: Runtime, bundle: Bundle, name: str) -> None:
    """A parameter that belongs to no namespace of the container would change the host."""
    bundle.linux["sysctl"] = {name: "0"}
    oci.refuses(bundle)


def test_sysctls_of_a_shared_namespace_are_refused(oci: Runtime, bundle: Bundle) -> None:
    """With the host's network namespace net.* is the host's."""
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    oci.refuses(bundle.shares("network"))


def test_ids_are_mapped_in_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    """ "uidMappings (array of objects, OPTIONAL) describes the user namespace uid mappings from the host to the
    container." """
    container = oci.up(bundle.maps(200000))
    answers = container.ask("id", "cat /proc/self/uid_map", "cat /proc/self/gid_map", "ns", "stat /bin/probe", "caps")
    assert answers.table("id")["uid"] == "0 0 0"
    assert answers.one("cat /proc/self/uid_map").split() == ["0", "200000", "65536"]
    assert answers.one("cat /proc/self/gid_map").split() == ["0", "200000", "65536"]
    assert answers.table("ns")["user"] != os.readlink("/proc/self/ns/user")
    assert os.stat(f"/proc/{container.pid}").st_uid == 200000
    assert answers.one("stat /bin/probe").split()[3:5] == ["0", "0"]


def test_a_user_namespace_owns_the_others(oci: Runtime, bundle: Bundle) -> None:
    """user_namespaces(7): "the kernel guarantees that the user namespace is created first": so a new network
    namespace can be administered inside, and its sysctls written."""
    bundle.maps(200000)
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    for kind in ("bounding", "permitted", "effective"):
        bundle.process["capabilities"][kind] += ["CAP_SYS_ADMIN"]
    answers = oci.ask(bundle, "sysctl net.ipv4.ip_forward", "sethostname other", "mount none /tmp tmpfs 0")
    assert answers.one("sysctl net.ipv4.ip_forward") == "1"
    assert answers.one("sethostname other") == "OK"
    assert answers.one("mount none /tmp tmpfs 0") == "OK"


def test_another_user_in_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    """ "uid (int, REQUIRED) specifies the user ID in the container namespace." """
    bundle.maps(200000).process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [2000]}
    answer = oci.ask(bundle, "id").table("id")
    assert (answer["uid"], answer["gid"]) == ("1000 1000 1000", "1000 1000 1000")
    assert "2000" in answer["groups"].split()


def test_an_unmapped_user_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "size (uint32, REQUIRED) - is the number of ids to be mapped": no others exist inside."""
    bundle.maps(200000, 10).process["user"] = {"uid": 1000, "gid": 1000}
    oci.refuses(bundle)


def test_a_user_namespace_needs_maps(oci: Runtime, bundle: Bundle) -> None:
    """Without maps nobody exists inside: an error, not a container that runs as the overflow user."""
    oci.refuses(bundle.unshares("user"))


def test_maps_need_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    """Maps that would silently be ignored leave a container that runs as root of the host."""
    bundle.maps(200000).shares("user")
    oci.refuses(bundle)


@pytest.mark.parametrize("maps", [True, False], ids=["same maps", "no maps"])
def test_a_user_namespace_is_joined_by_path(
    oci: Runtime, bundle: Bundle, new_bundle: Callable[[], Bundle], maps: bool
) -> None:
    """ "The runtime MUST place the container process in the namespace associated with that path." The maps are
    those of the namespace; podman repeats them."""
    first = oci.up(bundle.maps(200000))
    path = f"/proc/{first.pid}/ns/user"
    second = new_bundle().maps(200000)
    if not maps:
        del second.linux["uidMappings"], second.linux["gidMappings"]
    second.unshares("user", path)
    answers = oci.ask(second, "ns", "id")
    assert answers.table("ns")["user"] == os.readlink(path)
    assert answers.table("id")["uid"] == "0 0 0"


def test_a_new_cgroup_namespace_hides_the_path(oci: Runtime, bundle: Bundle) -> None:
    """ "cgroup: the container will have an isolated view of the cgroup hierarchy." """
    require("cgroup-namespaces")
    bundle.unshares("cgroup")
    answers = oci.ask(bundle, "ns", "cgroup")
    assert answers.table("ns")["cgroup"] != os.readlink("/proc/self/ns/cgroup")
    assert {line.split(":", 2)[2] for line in answers["cgroup"]} == {"/"}


def test_a_shared_cgroup_namespace_shows_it(oci: Runtime, bundle: Bundle) -> None:
    """ "cgroupsPath: In the case of an absolute path (starting with /), the runtime MUST take the path to be
    relative to the cgroups mount point." """
    bundle.linux["cgroupsPath"] = f"/{oci.name}-outer/inner"
    container = oci.up(bundle)
    lines = Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()
    paths = {line.split(":", 2)[2] for line in lines if line.split(":")[1] in ("pids", "freezer", "memory")}
    if not paths:
        paths = {line.split(":", 2)[2] for line in lines if line.startswith("0::")}
    assert all(path.endswith(f"/{oci.name}-outer/inner") for path in paths) and paths
    container.delete("--force").ok()
    remove_parents(f"{oci.name}-outer")


@pytest.mark.parametrize("path", ["/../../escape", "../escape", "a/../../../escape"])
def test_cgroup_paths_do_not_climb(oci: Runtime, bundle: Bundle, path: str) -> None:
    """ "Runtimes MAY consider certain cgroupsPath values to be invalid, and MUST generate an error if this is the
    case": whether refused or taken for a path below the mount, nothing appears elsewhere."""
    bundle.linux["cgroupsPath"] = path
    container = oci._new(bundle)
    if oci("create", "--bundle", bundle.path, container.id).code == 0:
        for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines():
            assert ".." not in line
        container.delete("--force").ok()


@pytest.mark.parametrize("path", ["/", ".", "./", "//./"])
def test_no_container_lives_in_the_root_cgroup(oci: Runtime, bundle: Bundle, path: str) -> None:
    """Its end would be that of every process on the host."""
    bundle.linux["cgroupsPath"] = path
    container = oci._new(bundle)
    if oci("create", "--bundle", bundle.path, container.id).code == 0:
        lines = [line.split(":", 2) for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()]
        assert {path for _, controllers, path in lines if controllers in ("pids", "freezer", "devices")} - {"/"} or (
            [line[2] for line in lines if line[0] == "0"] != ["/"]
        )
        container.delete("--force").ok()


def test_a_cgroup_that_others_are_in_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "A runtime MAY ... check if the container cgroup is fit for purpose ... For example ... (for create
    operation) a non-empty cgroup ... accepting such configurations could cause ... operation on one container
    inadvertently affecting other containers." """
    first = oci.up(bundle)
    bundle.linux["cgroupsPath"] = cgroup_of(first.pid)
    oci.refuses(bundle, "not empty")
    assert first.status == "running"


def cgroup_of(pid: int) -> str:
    paths = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return max(paths, key=len)


def test_a_time_namespace_shifts_the_clocks(oci: Runtime, bundle: Bundle) -> None:
    """ "timeOffsets (object, OPTIONAL) sets the offset for Time Namespace." """
    require("time-namespaces")
    bundle.unshares("time").linux["timeOffsets"] = {
        "monotonic": {"secs": 100000, "nanosecs": 0},
        "boottime": {"secs": 200000},
    }
    result = oci.run(bundle.asks("clock"))
    if result.code:
        # Not every runtime knows this type; then it must say so.
        result.fails("time")
        return
    clock = result.answers.table("clock")
    assert abs(int(clock["monotonic"]) - time.clock_gettime(time.CLOCK_MONOTONIC) - 100000) < 30
    assert abs(int(clock["boottime"]) - time.clock_gettime(time.CLOCK_BOOTTIME) - 200000) < 30


def test_the_containers_namespaces_end_with_it(oci: Runtime, bundle: Bundle) -> None:
    """ "Deleting a container MUST delete the resources that were created during the create step."

    The kernel gives the number of a namespace that is gone to the next new one, so processes that somebody has started
    since do not count.
    """
    container = oci.up(bundle)
    wanted = {namespaces(container.pid)[name] for name in KINDS.values()}
    newest = max(start_time(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    container.delete("--force").ok()
    alive = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and 0 < start_time(int(entry)) <= newest:
            try:
                alive |= set(namespaces(entry).values())
            except OSError:
                continue
    assert not wanted & alive


def start_time(pid: int) -> int:
    """Clock ticks since boot (proc(5)); 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19])
    except OSError:
        return 0


def remove_parents(name: str) -> None:
    """Runtimes leave the cgroups above the container's to their makers' discretion; the test removes what is empty."""
    for directory in Path("/sys/fs/cgroup").glob(f"**/{name}") if Path("/sys/fs/cgroup").exists() else ():
        if not directory.is_symlink():
            try:
                directory.rmdir()
            except OSError:
                continue
