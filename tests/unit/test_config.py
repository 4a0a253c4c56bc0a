"""make_spec(): docker's words become a spec that is valid on the host that is described; nothing is launched."""

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.config import ContainerConfig, ids, make_spec, wants_userns
from runtime.config.ids import lease_ids, reclaim_ids, release_ids
from runtime.config.mounts import make_sources, volume
from runtime.config.sources import host_devices
from runtime.errors import UnsupportedError, UsageError, WarrenError
from runtime.host import Host
from runtime.spec import Spec
from runtime.state import start_time

ALL = (1 << 41) - 1
FIRST = 0x70000000
ID = "0123456789abcdef" * 4
DISK = "26 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
FILES = {"mountinfo": DISK, "filesystems": "nodev\tmqueue\n", "uid_map": "0 0 4294967295\n"}


def host_of(*, capabilities: int = 0, files: "dict[str, str] | None" = None, **facts: Any) -> Host:
    """A machine that consists of these files and facts alone."""
    known = {**FILES, **(files or {})}
    host = Host(lambda path: known.get(path.rpartition("/")[2], ""))
    host._facts.update(capabilities=capabilities, kernel=(6, 18), newuidmap="", newgidmap="", euid=1000, egid=1000)
    host._facts.update(facts)
    return host


def root(**facts: Any) -> Host:
    return host_of(**{"capabilities": ALL, "euid": 0, "egid": 0, **facts})


def spec_of(host: Any = None, argv: Any = None, **options: Any) -> Spec:
    """A spec, by default for root."""
    enforced: dict[str, str] = options.pop("enforced", {})
    config = ContainerConfig(argv or ["true"], id=ID, **options)
    return make_spec(config, host or root(), FIRST, enforced)


def mounts(spec: Spec) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in spec.config["mounts"]}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root file system with two users."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbee:x:1000:1001::/home/bee:/bin/sh\nodd:x::::\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nstaff:x:50:bee,other\nhive:x:60:bee\nbees:x:1001:bee\n")
    return tmp_path


# ---- defaults


def test_defaults_of_root() -> None:
    spec = spec_of()
    process, linux = spec.config["process"], spec.config["linux"]
    assert process["noNewPrivileges"] is True
    assert len(process["capabilities"]["bounding"]) == 11
    assert process["capabilities"]["effective"] == process["capabilities"]["bounding"]
    assert process["capabilities"]["inheritable"] == process["capabilities"]["ambient"] == []
    kinds = {"mount", "cgroup", "pid", "ipc", "uts", "network", "user"}
    assert spec.namespaces() == dict.fromkeys(kinds, "")
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": FIRST, "size": 65536}] == linux["gidMappings"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert spec.layers is not None
    assert (spec.layers.lower, spec.layers.keep, spec.layers.idmap) == (["/"], "", True)
    assert spec.config["hostname"] == ID[:12]


def test_kernel_file_systems_are_its_own() -> None:
    found = mounts(spec_of())
    assert {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/run", "/tmp"} <= {
        *found
    }
    assert {"ro", "nosuid", "noexec", "nodev", "relatime"} <= {*found["/sys/fs/cgroup"]["options"]}
    assert "ro" in found["/sys"]["options"]
    assert "size=67108864" in found["/dev/shm"]["options"]
    assert "mode=1777" in found["/tmp"]["options"]


def test_defaults_of_an_ordinary_user() -> None:
    enforced: dict[str, str] = {}
    spec = spec_of(host_of(), user="33:44", enforced=enforced)
    linux = spec.config["linux"]
    assert linux["uidMappings"] == [{"containerID": 33, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 44, "hostID": 1000, "size": 1}]
    assert "resources" not in linux
    assert "single id" in enforced["uid_map"]
    assert not any("gid=5" in mount["options"] for mount in spec.config["mounts"])
    assert spec.layers is not None
    assert spec.layers.lower == []


def test_subordinate_ids_of_an_ordinary_user() -> None:
    programs = {"newuidmap": "/usr/bin/newuidmap", "newgidmap": "/usr/bin/newgidmap"}
    spec = spec_of(host_of(subuid=(100000, 65536), subgid=(200000, 65536), **programs))
    assert spec.config["linux"]["uidMappings"] == [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 65536},
    ]
    assert any("gid=5" in mount["options"] for mount in spec.config["mounts"])


# ---- the host as a source


def test_further_mounts_of_the_host_are_overlaid_or_read_only() -> None:
    info = DISK + "".join(
        f"{number} 26 0:{number} / {point} rw - {kind} x rw\n"
        for number, (point, kind) in enumerate(
            [("/usr", "ext4"), ("/etc", "nfs4"), ("/etc/passwd", "ext4"), ("/no/such/place", "ext4"), ("/sys", "sysfs"),
             ("/run", "tmpfs"), ("/tmp", "tmpfs"), ("/dev", "devtmpfs"), ("/opt", "autofs")], 30)
    )  # fmt: skip
    spec = spec_of(root(files={"mountinfo": info}))
    found = {m["destination"]: m["options"] for m in spec.config["mounts"] if m["source"] == m["destination"]}
    assert found == {"/usr": ["bind", "O", "ridmap"], "/etc": ["bind", "ro"], "/etc/passwd": ["bind", "ro"]}


def test_an_ordinary_user_gets_the_root_entry_by_entry() -> None:
    info = DISK + "40 26 0:40 / /usr/share rw - ext4 x rw\n"
    found = mounts(spec_of(host_of(files={"mountinfo": info})))
    assert found["/etc"]["options"] == ["bind", "O"]
    assert found["/usr"]["options"] == ["rbind", "rro"]
    for name in os.listdir("/"):
        if os.path.islink(f"/{name}"):
            assert found[f"/{name}"]["options"] == ["bind", "copy-symlink"]


def test_keep_changes(tmp_path: Path) -> None:
    layers = spec_of(keep_changes=str(tmp_path)).layers
    assert layers is not None
    assert layers.keep == str(tmp_path)
    with pytest.raises(UnsupportedError, match="root"):
        spec_of(host_of(), keep_changes=str(tmp_path))
    with pytest.raises(UsageError, match="not a directory"):
        spec_of(keep_changes=str(tmp_path / "missing"))


def test_the_working_directory_is_the_callers_where_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert spec_of().config["process"]["cwd"] == "/usr"
    assert spec_of(hide=["/usr"]).config["process"]["cwd"] == "/"
    assert spec_of(rootfs="/").config["process"]["cwd"] == "/"
    monkeypatch.chdir("/tmp")
    assert spec_of().config["process"]["cwd"] == "/"
    assert spec_of(workdir="/w").config["process"]["cwd"] == "/w"


def test_hide_masks_also_what_is_privileged() -> None:
    assert spec_of(hide=["/etc"], privileged=True).config["linux"]["maskedPaths"] == ["/etc"]


# ---- a directory as a source


def test_rootfs(tree: Path) -> None:
    spec = spec_of(rootfs=str(tree))
    assert spec.layers is not None
    assert (spec.layers.lower, spec.layers.idmap) == ([str(tree)], True)
    assert "/run" not in mounts(spec)


def test_write_takes_the_directory_itself(tree: Path) -> None:
    enforced: dict[str, str] = {}
    spec = spec_of(rootfs=str(tree), write=True, enforced=enforced)
    assert spec.layers is None
    assert "user" not in spec.namespaces()
    assert "--write" in enforced["user_namespace"]
    with pytest.raises(UsageError, match="--rootfs"):
        spec_of(write=True)


@pytest.mark.parametrize(
    ("user", "ids", "groups", "home"),
    [
        (None, (0, 0), [], "/root"),
        ("bee", (1000, 1001), [50, 60], "/home/bee"),
        ("1000", (1000, 1001), [50, 60], "/home/bee"),
        ("bee:staff", (1000, 50), [], "/home/bee"),
        ("bee:7", (1000, 7), [], "/home/bee"),
        ("4711", (4711, 0), [], "/"),
        ("0:0", (0, 0), [], "/root"),
    ],
)
def test_users(tree: Path, user: "str | None", ids: tuple[int, int], groups: list[int], home: str) -> None:
    process = spec_of(rootfs=str(tree), user=user).config["process"]
    assert (process["user"]["uid"], process["user"]["gid"]) == ids
    assert process["user"]["additionalGids"] == groups
    assert f"HOME={home}" in process["env"]
    assert bool(process["capabilities"]["effective"]) is (ids[0] == 0)


@pytest.mark.parametrize(
    "user",
    ["", ":", "bee:", ":bee", "a:b:c", "nobody-here", "bee:nogroup-here", "-1", "+1", "4294967295", "99999999999",
     "0x10", "1 ", " 1", "1\n", "odd", "65536", "\u0661"],
)  # fmt: skip
def test_malformed_and_unknown_users(tree: Path, user: str) -> None:
    with pytest.raises(WarrenError):
        spec_of(rootfs=str(tree), user=user)


@pytest.mark.parametrize("kind", ["fifo", "directory", "huge", "outside", "device"])
def test_a_hostile_passwd_is_neither_followed_nor_waited_for(tree: Path, kind: str) -> None:
    passwd = tree / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "directory":
        passwd.mkdir()
    elif kind == "huge":
        passwd.write_bytes(b"daemon:x:1:1::/:/bin/sh\n" * 50000)
    else:
        passwd.symlink_to("/../../../../../../../../etc/passwd" if kind == "outside" else "/dev/zero")
    with pytest.raises(UsageError):
        spec_of(rootfs=str(tree), user="daemon")


def test_environment(tree: Path) -> None:
    env = spec_of(rootfs=str(tree), env=["A=1", "A=2", "B=x=y", "HOME=/elsewhere"]).config["process"]["env"]
    assert {"A=2", "B=x=y", "HOME=/elsewhere", f"HOSTNAME={ID[:12]}"} <= {*env}
    assert len({entry.partition("=")[0] for entry in env}) == len(env)
    assert not any(entry.startswith("TERM=") for entry in env)
    assert any(entry.startswith("TERM=") for entry in spec_of(tty=True).config["process"]["env"])


# ---- namespaces and privileges


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "network"])
def test_namespaces_are_new_shared_or_joined(kind: str) -> None:
    assert spec_of(**{kind: "private" if kind != "network" else "none"}).namespaces()[kind] == ""
    assert kind not in spec_of(**{kind: "host"}).namespaces()
    assert spec_of(**{kind: "ns:/proc/1/ns/x"}).namespaces()[kind] == "/proc/1/ns/x"
    for wrong in ("what", "ns:relative", "ns:"):
        with pytest.raises((UsageError, UnsupportedError)):
            spec_of(**{kind: wrong})


@pytest.mark.parametrize(
    ("host", "options", "wanted"),
    [
        (root(), {}, True),
        (root(), {"userns": "host"}, False),
        (root(), {"privileged": True}, False),
        (root(), {"privileged": True, "userns": "private"}, True),
        (root(), {"write": True, "rootfs": "/"}, False),
        (host_of(), {}, True),
        (host_of(), {"privileged": True}, True),
    ],
)
def test_who_gets_a_user_namespace(host: Host, options: dict[str, Any], wanted: bool) -> None:
    assert wants_userns(ContainerConfig(["true"], id=ID, **options), host) is wanted


def test_where_user_namespaces_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="ordinary user"):
        spec_of(host_of(), userns="host")
    with pytest.raises(UnsupportedError, match="max_user_namespaces is 0"):
        spec_of(host_of(files={"max_user_namespaces": "0\n"}))
    with pytest.raises(UsageError, match="unknown"):
        spec_of(userns="what")


def test_a_shared_network_binds_sys() -> None:
    assert mounts(spec_of(network="host"))["/sys"]["type"] == "bind"
    assert mounts(spec_of(network="host", userns="host"))["/sys"]["type"] == "sysfs"


def test_privileged() -> None:
    spec = spec_of(privileged=True)
    assert len(spec.config["process"]["capabilities"]["effective"]) == 41
    assert spec.config["linux"]["maskedPaths"] == spec.config["linux"]["readonlyPaths"] == []
    assert "resources" not in spec.config["linux"]
    assert "ro" not in mounts(spec)["/sys"]["options"]


def test_capabilities() -> None:
    spec = spec_of(cap_add=["net_admin", "CAP_NET_RAW"], cap_drop=["all"])
    assert spec.config["process"]["capabilities"]["bounding"] == ["CAP_NET_ADMIN", "CAP_NET_RAW"]
    own = ALL & ~(1 << 24)
    kept = spec_of(root(capabilities=own), cap_add=["all"], userns="host").config["process"]["capabilities"]["bounding"]
    assert len(kept) == 40
    assert "CAP_SYS_RESOURCE" not in kept


@pytest.mark.parametrize(
    ("option", "check"),
    [
        ("no-new-privileges=false", lambda c: c["process"]["noNewPrivileges"] is False),
        ("no-new-privileges", lambda c: c["process"]["noNewPrivileges"] is True),
        ("no-new-privileges:false", lambda c: c["process"]["noNewPrivileges"] is False),
        ("seccomp=unconfined", lambda c: "seccomp" not in c["linux"]),
        ("systempaths=unconfined", lambda c: c["linux"]["maskedPaths"] == c["linux"]["readonlyPaths"] == []),
        ("unmask=ALL", lambda c: c["linux"]["maskedPaths"] == []),
        ("unmask=/proc/kcore", lambda c: "/proc/kcore" not in c["linux"]["maskedPaths"]),
        ("mask=/a:/b", lambda c: {"/a", "/b", "/proc/kcore"} <= {*c["linux"]["maskedPaths"]}),
        ("apparmor=unconfined", lambda c: True),
        ("label=disable", lambda c: True),
    ],
)
def test_security_options(option: str, check: Any) -> None:
    assert check(spec_of(security_opt=[option]).config)


@pytest.mark.parametrize(
    "option",
    [
        "what=ever",
        "no-new-privileges=perhaps",
        "mask=relative",
        "apparmor=x",
        "label=x",
        "seccomp=/no/such/file",
        "seccomp=/dev/zero",
        "seccomp=",
    ],
)
def test_bad_security_options(option: str) -> None:
    with pytest.raises(WarrenError):
        spec_of(security_opt=[option])


# ---- mounts, limits, devices


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("/etc:/data", ["rbind", "ridmap"]),
        ("/etc:/data:O", ["O", "ridmap"]),
        ("/etc:/data:z,nocopy,rslave", ["rbind", "rslave", "ridmap"]),
        ("/etc:/data:bind,nosuid", ["bind", "nosuid", "ridmap"]),
    ],
)
def test_volumes(text: str, options: list[str]) -> None:
    mount = mounts(spec_of(volumes=[text]))["/data"]
    assert (mount["source"], mount["options"]) == ("/etc", options)
    assert "ridmap" not in mounts(spec_of(volumes=[text], userns="host"))["/data"]["options"]


def test_the_source_of_a_volume_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert mounts(spec_of(volumes=["./:/data"]))["/data"]["source"].rstrip("/.") == str(tmp_path)


@pytest.mark.parametrize(
    "option",
    [
        {"volumes": ["/etc"]}, {"volumes": ["/etc:relative"]}, {"volumes": ["named:/data"]}, {"volumes": ["/a:/b:c:d"]},
        {"volumes": ["/etc:/data:what"]}, {"volumes": [""]},
        {"mounts": ["type=bind,src=/no/such/place,dst=/d"]}, {"mounts": ["type=bind,dst=/d"]}, {"mounts": ["what"]},
        {"mounts": ["type=bind,src=/etc"]}, {"mounts": ["type=bind,src=/etc,dst=/d,what=1"]},
        {"mounts": ["src=named,dst=/d"]}, {"mounts": ["type=bind,src=/etc,dst=d"]},
        {"mounts": ["type=bind,src=/etc,dst=/d,ro=perhaps"]}, {"mounts": ["type=tmpfs,dst=/d,tmpfs-size=x"]},
        {"tmpfs": ["relative"]}, {"tmpfs": [""]}, {"shm_size": "many"}, {"shm_size": "0"}, {"shm_size": ""},
        {"shm_size": "-1"}, {"workdir": "relative"}, {"hide": ["relative"]},
        {"devices": ["/no/such"]}, {"devices": ["/etc/passwd"]}, {"devices": ["null"]}, {"devices": ["/dev/null:/n:x"]},
        {"devices": ["/dev/null:/n:"]}, {"devices": ["/dev/null:/a:/b:r"]},
        {"ulimits": ["what=1"]}, {"ulimits": ["nofile"]}, {"ulimits": ["nofile=2:1"]}, {"ulimits": ["nofile=x"]},
        {"ulimits": ["nofile=-2"]}, {"ulimits": ["nofile=1:2:3"]}, {"ulimits": ["nofile="]},
        {"sysctl": ["vm.swappiness=1"]}, {"sysctl": ["kernel.hostname=x"]}, {"sysctl": ["net.a"]}, {"sysctl": ["=1"]},
        {"sysctl": ["net.ipv4.ip_forward=1"], "network": "host"}, {"sysctl": ["kernel.msgmax=1"], "ipc": "host"},
        {"cap_add": ["what"]}, {"cap_drop": [""]}, {"hostname": "h", "uts": "host"}, {"rootfs": "/no/such/root"},
        {"rootfs": "/etc/passwd"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_one_line(option: dict[str, Any]) -> None:
    with pytest.raises(WarrenError) as info:
        spec_of(**option)
    assert "\n" not in str(info.value)


def test_a_command_is_needed() -> None:
    with pytest.raises(UsageError, match="no command"):
        make_spec(ContainerConfig([], id=ID), root(), FIRST, {})
    assert spec_of(argv=["a"], entrypoint="/e").config["process"]["args"] == ["/e", "a"]


def test_mount_option_and_tmpfs() -> None:
    found = mounts(spec_of(
        mounts=["type=bind,source=/etc,target=/a,bind-propagation=rslave",
                "type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=700", "type=bind,src=/etc,dst=/c,bind-nonrecursive"],
        tmpfs=["/d:size=1m,exec", "/e"],
    ))  # fmt: skip
    assert found["/a"]["options"] == ["rbind", "rslave", "ridmap"]
    assert {"size=1048576", "mode=700", "nosuid", "nodev", "noexec"} <= {*found["/b"]["options"]}
    assert found["/c"]["options"] == ["bind", "ridmap"]
    assert found["/d"]["options"][-2:] == ["size=1m", "exec"]
    assert found["/e"]["options"] == ["nosuid", "nodev", "noexec"]


def test_limits() -> None:
    limits = spec_of(ulimits=["core=0", "nofile=10:20", "core=1", "cpu=-1"]).config["process"]["rlimits"]
    assert {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20} in limits
    assert {"type": "RLIMIT_CORE", "soft": 1, "hard": 1} in limits
    assert {"type": "RLIMIT_CPU", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1} in limits
    assert len(limits) == 3


def test_a_limit_above_our_own_needs_a_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _number: (10, 100))
    assert spec_of(ulimits=["nofile=101"]).config["process"]["rlimits"]
    with pytest.raises(UsageError, match="CAP_SYS_RESOURCE"):
        spec_of(host_of(), ulimits=["nofile=101"])
    assert spec_of(host_of(), ulimits=["nofile=100"]).config["process"]["rlimits"]


def test_ping_and_low_ports_need_no_capability_in_a_network_of_its_own() -> None:
    found = spec_of(network="bridge").config["linux"]["sysctl"]
    assert found == {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 65535"}
    assert spec_of(network="none").config["linux"]["sysctl"] == found
    assert "sysctl" not in spec_of(network="host").config["linux"]
    assert "sysctl" not in spec_of(network="bridge", pid="host").config["linux"]
    unmapped = spec_of(network="bridge", userns="host").config["linux"]["sysctl"]
    assert unmapped["net.ipv4.ping_group_range"] == "0 2147483647"
    single = spec_of(host_of(), network="private", user="33:44").config["linux"]["sysctl"]
    assert single["net.ipv4.ping_group_range"] == "44 44"
    asked = spec_of(network="bridge", sysctl=["net.ipv4.ip_unprivileged_port_start=1024"]).config["linux"]["sysctl"]
    assert asked["net.ipv4.ip_unprivileged_port_start"] == "1024"


def test_sysctls_of_its_own_namespaces() -> None:
    spec = spec_of(sysctl=["net.ipv4.ip_forward=1", "kernel.msgmax=8192", "fs.mqueue.msg_max=5"])
    assert spec.config["linux"]["sysctl"]["net.ipv4.ip_forward"] == "1"


def test_devices_are_bound_in_a_user_namespace_and_made_outside() -> None:
    bound = spec_of(devices=["/dev/null:/dev/n"])
    assert mounts(bound)["/dev/n"]["source"] == "/dev/null"
    assert bound.config["linux"]["devices"] == []
    (node,) = spec_of(devices=["/dev/null:/dev/n"], userns="host").config["linux"]["devices"]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/n", "c", 1, 3)


def test_rules_for_devices_where_they_hold() -> None:
    rules = spec_of(root(cgroup_legacy={"devices": "/x"}), devices=["/dev/zero"]).config["linux"]["resources"][
        "devices"
    ]
    assert rules == [{"allow": False, "access": "rwm"},
                     {"allow": True, "access": "rwm", "type": "c", "major": 1, "minor": 5}]  # fmt: skip


# ---- ranges of ids


def test_ranges_are_leased_once(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    leased = [lease_ids(state, f"container{n}") for n in range(20)] + [lease_ids(state, "twice") for _ in range(2)]
    assert len({*leased}) == 22
    assert all(0x70000000 <= first <= 0x7FFE0000 - 65536 and first % 65536 == 0 for first in leased)
    release_ids(state, "twice")
    release_ids(state, "twice")
    assert len(os.listdir(f"{state}/.ids")) == 20


def test_ranges_of_dead_takers_are_reclaimed(tmp_path: Path) -> None:
    state = str(tmp_path)
    reclaim_ids(state)
    lease_ids(state, "living")
    os.symlink(f"dead {os.getpid()} 1", f"{state}/.ids/1")
    os.symlink(f"kept {os.getpid()} 1", f"{state}/.ids/2")
    os.mkdir(f"{state}/kept")
    reclaim_ids(state)
    holders = {os.readlink(f"{state}/.ids/{name}").split()[0] for name in os.listdir(f"{state}/.ids")}
    assert holders == {"living", "kept"}
    assert start_time(os.getpid()) != "1"


# ---- never weaker than asked


def test_a_plan_makes_no_source_and_a_launch_does(tmp_path: Path) -> None:
    place = tmp_path / "not/there/yet"
    spec_of(volumes=[f"{place}:/data"])
    assert not (tmp_path / "not").exists()
    make_sources([volume(f"{place}:/data"), volume(f"{tmp_path}:/other")])
    assert place.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--volume"):
        make_sources([volume(f"{tmp_path}/file/below:/data")])


@pytest.mark.parametrize("options", [{"volumes": ["/etc:/data:ro"]}, {"mounts": ["type=bind,src=/etc,dst=/data,ro"]}])
def test_read_only_covers_what_is_mounted_below(options: dict[str, Any]) -> None:
    assert mounts(spec_of(**options))["/data"]["options"] == ["rbind", "rro", "ridmap"]


def test_permissions_of_a_device_hold_or_are_refused() -> None:
    legacy = root(cgroup_legacy={"devices": "/x"})
    rules = spec_of(legacy, devices=["/dev/zero:/z:r"]).config["linux"]["resources"]["devices"]
    assert rules[1]["access"] == "r"
    for host in (root(), host_of()):
        with pytest.raises(UnsupportedError, match="permissions"):
            spec_of(host, devices=["/dev/zero:/z:r"])
        assert spec_of(host, devices=["/dev/zero:/z:rw"])


def test_a_capability_that_we_lack_is_refused_by_name_and_noted_in_the_default() -> None:
    host = root(capabilities=ALL & ~(1 << 24) & ~(1 << 31))
    with pytest.raises(UnsupportedError, match="CAP_SYS_RESOURCE"):
        spec_of(host, cap_add=["sys_resource"], userns="host")
    enforced: dict[str, str] = {}
    kept = spec_of(host, userns="host", enforced=enforced).config["process"]["capabilities"]["bounding"]
    assert "CAP_SETFCAP" not in kept
    assert "CAP_SETFCAP" in enforced["capabilities"]


@pytest.mark.parametrize("facts", [{"kernel": (5, 15)}, {"userns": False}])
def test_a_default_that_cannot_be_had_is_noted(facts: dict[str, Any]) -> None:
    enforced: dict[str, str] = {}
    spec = spec_of(root(**facts), enforced=enforced)
    assert "user" not in spec.namespaces()
    assert enforced["user_namespace"].startswith("off: ")
    assert "user" in spec_of(root(**facts), userns="private").namespaces()


def test_a_joined_uts_namespace_keeps_its_name() -> None:
    spec = spec_of(uts="ns:/proc/1/ns/uts")
    assert "hostname" not in spec.config
    assert not any(entry.startswith("HOSTNAME=") for entry in spec.config["process"]["env"])
    with pytest.raises(UsageError, match="--hostname"):
        spec_of(uts="ns:/proc/1/ns/uts", hostname="h")


def test_on_the_hosts_network_the_name_is_the_hosts() -> None:
    assert spec_of(network="host").config["hostname"] == os.uname().nodename
    assert spec_of(network="host", hostname="h").config["hostname"] == "h"


def test_mounts_over_one_another_are_seen_once() -> None:
    info = DISK + "40 26 0:40 / /usr rw - ext4 x rw\n41 40 0:41 / /usr rw - nfs y rw\n"
    found = [m for m in spec_of(root(files={"mountinfo": info})).config["mounts"] if m["destination"] == "/usr"]
    assert [mount["options"] for mount in found] == [["bind", "ro"]]
    with pytest.raises(UsageError, match="more than one mount on /a"):
        spec_of(volumes=["/etc:/a", "/usr:/a/"])


def test_a_pseudo_file_system_locks_an_ordinary_users_entry_too() -> None:
    info = DISK + "40 26 0:40 / /usr/chroot/proc rw - proc proc rw\n"
    assert mounts(spec_of(host_of(files={"mountinfo": info})))["/usr"]["options"] == ["rbind", "rro"]


@pytest.mark.parametrize("path", ["/", "//", "/etc/.."])
def test_the_root_cannot_be_hidden(path: str) -> None:
    with pytest.raises(UsageError, match="--hide"):
        spec_of(hide=[path])


def test_numbers_are_ascii_and_compared_as_numbers(tree: Path) -> None:
    assert spec_of(rootfs=str(tree), user="01000").config["process"]["user"]["gid"] == 1001
    for option in ({"shm_size": "\u0663m"}, {"ulimits": ["core=\u0661"]}):
        with pytest.raises(UsageError):
            spec_of(**option)
    (tree / "etc/passwd").write_text("big:x:5:99999999999::/:/bin/sh\n")
    with pytest.raises(UsageError, match="out of range"):
        spec_of(rootfs=str(tree), user="big")


def test_what_excludes_each_other(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude"):
        spec_of(rootfs=str(tree), write=True, keep_changes=str(tmp_path))
    with pytest.raises(UsageError, match="octal"):
        spec_of(mounts=["type=tmpfs,dst=/d,tmpfs-mode=9"])


def test_privileged_gives_the_hosts_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not {"/dev/null", "/dev/ptmx", "/dev/console"} & {*host_devices()}
    monkeypatch.setattr("runtime.config.host_devices", lambda: ["/dev/zero"])
    assert [node["path"] for node in spec_of(privileged=True).config["linux"]["devices"]] == ["/dev/zero"]
    assert mounts(spec_of(host_of(), privileged=True))["/dev/zero"]["source"] == "/dev/zero"


def test_what_is_no_lease_is_let_alone(tmp_path: Path) -> None:
    lease_ids(str(tmp_path), "mine")
    (tmp_path / ".ids/file").write_text("")
    os.symlink("nonsense", tmp_path / ".ids/link")
    release_ids(str(tmp_path), "mine")
    reclaim_ids(str(tmp_path))
    assert {*os.listdir(tmp_path / ".ids")} == {"file", "link"}


def test_all_ranges_may_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_END_OF_RANGES", ids._FIRST_RANGE + 3 * ids.RANGE)
    taken = [lease_ids(str(tmp_path), name) for name in ("a", "b", "c")]
    assert sorted(taken) == [ids._FIRST_RANGE + number * ids.RANGE for number in range(3)]
    with pytest.raises(UsageError, match="all 3 ranges of ids are taken"):
        lease_ids(str(tmp_path), "d")
    release_ids(str(tmp_path), "b")
    assert lease_ids(str(tmp_path), "d") == taken[1]


def test_ranges_of_many_takers_at_once_differ(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda number: lease_ids(str(tmp_path), f"c{number}"), range(64)))
    assert len(set(taken)) == 64
    assert all(first % ids.RANGE == 0 for first in taken)
