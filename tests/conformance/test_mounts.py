"""The container's view of files: config.md, "Root" and "Mounts"; config-linux.md, masked and read-only paths."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import probe
from tests.helpers.host import require
from tests.helpers.oci import Bundle, Runtime
from tests.helpers.probe import Mount


@pytest.fixture
def volume(directory: Path) -> Path:
    """A directory of the host with a file in it."""
    path = directory / "volume"
    path.mkdir()
    (path / "file").write_text("from the host")
    return path


@pytest.fixture
def nested(volume: Path) -> Iterator[Path]:
    """The volume with another file system mounted inside."""
    (volume / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "nested", volume / "sub"], check=True)
    (volume / "sub/below").write_text("below")
    yield volume
    subprocess.run(["umount", "-l", volume / "sub"], check=True)


def table(oci: Runtime, bundle: Bundle) -> dict[str, Mount]:
    return probe.mounts(oci.ask(bundle, "mounts")["mounts"])


def bare(bundle: Bundle, *keep: str) -> Bundle:
    """Without the usual mounts but for these destinations."""
    bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["destination"] in keep]
    return bundle


def test_the_root_is_the_bundles(oci: Runtime, bundle: Bundle) -> None:
    """ "path (string, REQUIRED) specifies the path to the root filesystem for the container. On POSIX platforms,
    path is either an absolute path or a relative path to the bundle." """
    (bundle.rootfs / "mark").write_text("this one")
    assert oci.ask(bundle, "cat /mark").one("cat /mark") == "this one"
    bundle.config["root"]["path"] = str(bundle.rootfs)
    answers = oci.ask(bundle, "cat /mark", "write /new text", "cat /../../../mark")
    assert answers.one("cat /mark") == answers.one("cat /../../../mark") == "this one"
    assert (bundle.rootfs / "new").read_text() == "text"


def test_a_read_only_root(oci: Runtime, bundle: Bundle) -> None:
    """ "readonly (bool, OPTIONAL) If true then the root filesystem MUST be read-only inside the container, defaults
    to false." """
    bundle.config["root"]["readonly"] = True
    answers = oci.ask(bundle, "touch /new", "touch /dev/shm/new", "touch /etc/new")
    assert [answers.one(f"touch {where}") for where in ("/new", "/dev/shm/new", "/etc/new")] == ["EROFS", "OK", "EROFS"]


def test_the_usual_file_systems(oci: Runtime, bundle: Bundle) -> None:
    """ "The following filesystems SHOULD be made available in each container's filesystem: /proc proc, /sys sysfs,
    /dev/pts devpts, /dev/shm tmpfs"."""
    require("mqueue")
    found = table(oci, bundle)
    types = {
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/dev/mqueue": "mqueue",
    }
    assert {target: found[target].type for target in types} == types
    assert found["/dev/pts"].options >= {"nosuid", "noexec"}
    assert found["/dev/pts"].super_options >= {"gid=5", "mode=620", "ptmxmode=666"}
    assert found["/dev/shm"].options >= {"nosuid", "noexec", "nodev"}
    assert found["/dev/shm"].super_options >= {"size=65536k"}
    assert "ro" in found["/sys"].options


def test_nothing_else_of_the_host_is_mounted(oci: Runtime, bundle: Bundle) -> None:
    """ "mount: the container will have an isolated mount table": what was there before pivot_root is gone."""
    found = table(oci, bundle)
    assert set(found) == {"/", *(entry["destination"] for entry in bundle.config["mounts"])}


def test_mounts_do_not_reach_the_host(oci: Runtime, bundle: Bundle) -> None:
    """ "mount: the container will have an isolated mount table." """
    before = Path("/proc/self/mountinfo").read_text()
    oci.up(bundle.mount("/data", "tmpfs", "tmpfs"))
    after = Path("/proc/self/mountinfo").read_text()
    assert str(bundle.path) not in after and before.count("\n") >= after.count("\n") - 2


def test_a_bind_mount_can_be_written(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    """ "Bind mounts may be specified by an options entry of bind (or rbind) ... type is a dummy, often none." """
    answers = oci.ask(bundle.mount("/data", "none", volume, "bind", "rw"), "cat /data/file", "write /data/new text")
    assert answers.one("cat /data/file") == "from the host"
    assert (volume / "new").read_text() == "text"


@pytest.mark.parametrize("kind", ["bind", "rbind"])
def test_a_read_only_bind_mount(oci: Runtime, bundle: Bundle, volume: Path, kind: str) -> None:
    """ "ro: The mount is read-only"; the rest of its flags stay as they are, and the host's own mount too."""
    answers = oci.ask(bundle.mount("/data", "bind", volume, kind, "ro", "nosuid"), "touch /data/new", "mounts")
    assert answers.one("touch /data/new") == "EROFS"
    assert probe.mounts(answers["mounts"])["/data"].options >= {"ro", "nosuid"}
    (volume / "still").write_text("writable")


def test_bind_takes_one_mount_and_rbind_all(oci: Runtime, bundle: Bundle, nested: Path) -> None:
    """ "bind: Generate a bind mount. rbind: ... recursively" """
    bundle.mount("/data/one", "bind", nested, "bind").mount("/data/all", "bind", nested, "rbind")
    answers = oci.ask(bundle, "ls /data/one/sub", "ls /data/all/sub")
    assert (answers["ls /data/one/sub"], answers["ls /data/all/sub"]) == ([], ["below"])


def test_recursive_read_only(oci: Runtime, bundle: Bundle, nested: Path) -> None:
    """ "rro: Recursive ro; mount_setattr(2) with AT_RECURSIVE", where ro alone leaves the mounts below as they are."""
    bundle.mount("/data/all", "bind", nested, "rbind", "rro").mount("/data/top", "bind", nested, "rbind", "ro")
    answers = oci.ask(
        bundle, "touch /data/all/x", "touch /data/all/sub/x", "touch /data/top/x", "touch /data/top/sub/x"
    )
    assert [answers.one(f"touch /data/{x}/x") for x in ("all", "all/sub", "top", "top/sub")] == [
        "EROFS",
        "EROFS",
        "EROFS",
        "OK",
    ]


def test_a_file_can_be_bound(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    """ "source: A device name, but can also be a file or directory name for bind mounts or a dummy." """
    bundle.mount("/etc/passwd", "bind", volume / "file", "bind", "ro").mount(
        "/made/for/it", "bind", volume / "file", "bind"
    )
    answers = oci.ask(bundle, "cat /etc/passwd", "cat /made/for/it", "stat /made/for/it")
    assert answers.one("cat /etc/passwd") == answers.one("cat /made/for/it") == "from the host"
    assert answers.one("stat /made/for/it").split()[1] == "f"
    assert "root" in (bundle.rootfs / "etc/passwd").read_text()


def test_a_relative_source_is_relative_to_the_bundle(oci: Runtime, bundle: Bundle) -> None:
    """ "source: ... Path values for bind mounts are either absolute or relative to the bundle." """
    (bundle.path / "beside").mkdir()
    (bundle.path / "beside/file").write_text("beside")
    assert oci.ask(bundle.mount("/data", "bind", "beside", "bind"), "cat /data/file").one("cat /data/file") == "beside"


def test_mounts_happen_in_the_listed_order(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    """ "The runtime MUST mount entries in the listed order." """
    bundle.mount("/data", "tmpfs", "tmpfs").mount("/data/inner/deep", "bind", volume, "bind")
    bundle.mount("/data/inner/deep", "tmpfs", "tmpfs", "ro")
    answers = oci.ask(bundle, "ls /data/inner/deep", "ls /data")
    assert (answers["ls /data/inner/deep"], answers["ls /data"]) == ([], ["inner"])


def test_missing_targets_are_made(oci: Runtime, bundle: Bundle) -> None:
    """ "destination (string, REQUIRED) Destination of mount point: path inside container." Missing parents are made
    0755."""
    found = oci.ask(bundle.mount("/a/b/c", "tmpfs", "tmpfs"), "stat /a /a/b", "mounts")
    assert [line.split()[2] for line in found["stat /a /a/b"]] == ["0755", "0755"]
    assert "/a/b/c" in probe.mounts(found["mounts"])


def test_tmpfs_options(oci: Runtime, bundle: Bundle) -> None:
    """ "options (array of strings, OPTIONAL) Mount options of the filesystem to be used": tmpfs(5)."""
    bundle.mount(
        "/fresh",
        "tmpfs",
        "tmpfs",
        "size=1m",
        "nr_inodes=50",
        "mode=1750",
        "uid=7",
        "gid=8",
        "noexec",
        "nodev",
        "nosuid",
        "noatime",
    )
    answers = oci.ask(bundle, "stat /fresh", "mounts")
    mount = probe.mounts(answers["mounts"])["/fresh"]
    assert answers.one("stat /fresh").split()[2:5] == ["1750", "7", "8"]
    assert mount.options >= {"noexec", "nodev", "nosuid", "noatime"}
    assert mount.super_options >= {"size=1024k", "nr_inodes=50"}


def test_tmpcopyup(oci: Runtime, bundle: Bundle) -> None:
    """ "tmpcopyup: copy up the contents to a tmpfs" """
    answers = oci.ask(bundle.mount("/etc", "tmpfs", "tmpfs", "tmpcopyup"), "cat /etc/group", "write /etc/group x")
    assert "hive:x:2000:bee" in answers["cat /etc/group"]
    assert "hive" in (bundle.rootfs / "etc/group").read_text()


def test_an_option_that_does_not_exist_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "Runtimes MUST treat unknown options as file system specific": the file system then refuses them."""
    oci.refuses(bundle.mount("/data", "tmpfs", "tmpfs", "nosuchoption=1"))


def test_a_missing_source_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "If the runtime is unable to create the environment specified in the config.json, it MUST generate an
    error." """
    oci.refuses(bundle.mount("/data", "bind", "/no/such/source", "bind"), "/no/such/source")


def test_a_file_and_a_directory_do_not_go_together(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    """mount(2), ENOTDIR.  dockerd asks the user back when it reads these words."""
    oci.refuses(bundle.mount("/tmp", "bind", volume / "file", "bind"), "/tmp", "not a directory")


def test_a_mount_has_the_name_of_its_source(oci: Runtime, bundle: Bundle) -> None:
    """ "source (string, OPTIONAL) A device name, but can also be a file or directory name for bind mounts or a
    dummy." df(1) and /proc/mounts show it."""
    found = table(oci, bundle.mount("/data", "tmpfs", "cheese"))
    assert (found["/data"].source, found["/dev/shm"].source, found["/proc"].source) == ("cheese", "shm", "proc")


def test_noexec_is_enforced(oci: Runtime, bundle: Bundle) -> None:
    """ "noexec: Do not allow direct execution of any binaries on the mounted filesystem." """
    bundle.mount("/data", "bind", bundle.rootfs / "bin", "bind", "noexec")
    assert oci.ask(bundle, "exec /data/probe true").one("exec /data/probe true") == "EACCES"


def test_cgroups_are_visible_and_read_only(oci: Runtime, bundle: Bundle) -> None:
    """CVE-2023-25809: cgroupfs inside is read-only, or of a private cgroup namespace; on a v1 host the mount is a
    tmpfs with each hierarchy below."""
    bundle.unshares("cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
    answers = oci.ask(bundle, "mounts", "mkdir /sys/fs/cgroup/x", "mkdir /sys/fs/cgroup/pids/x")
    found = [mount for target, mount in probe.mounts(answers["mounts"]).items() if target.startswith("/sys/fs/cgroup")]
    assert {mount.type for mount in found} & {"cgroup", "cgroup2"}
    assert all("ro" in mount.options for mount in found if mount.type != "tmpfs")
    assert answers.one("mkdir /sys/fs/cgroup/x") in ("EROFS", "EACCES")


@pytest.mark.parametrize("kind", ["private", "shared", "slave", "unbindable"])
def test_root_propagation(oci: Runtime, bundle: Bundle, kind: str) -> None:
    """ "rootfsPropagation (string, OPTIONAL) sets the rootfs's mount propagation. Its value is either shared,
    slave, private or unbindable." Slave without a master is private."""
    bundle.linux["rootfsPropagation"] = kind
    found = [word.split(":")[0] for word in table(oci, bundle)["/"].propagation]
    allowed: dict[str, list[list[str]]] = {
        "private": [[]],
        "shared": [["shared"]],
        "slave": [[], ["master"]],
        "unbindable": [["unbindable"]],
    }
    assert found in allowed[kind]


@pytest.mark.parametrize(
    ("option", "expected"), [("rprivate", []), ("rshared", ["shared"]), ("runbindable", ["unbindable"])]
)
def test_mount_propagation(oci: Runtime, bundle: Bundle, volume: Path, option: str, expected: list[str]) -> None:
    """ "private, rprivate, shared, rshared, slave, rslave, unbindable, runbindable: mount_namespaces(7)" """
    found = table(oci, bundle.mount("/data", "bind", volume, "rbind", option))["/data"].propagation
    assert [word.split(":")[0] for word in found] == expected


def test_masked_paths_cannot_be_read(oci: Runtime, bundle: Bundle) -> None:
    """ "maskedPaths (array of strings, OPTIONAL) will mask over the provided paths inside the container so that
    they cannot be read." """
    (bundle.rootfs / "secret").mkdir()
    (bundle.rootfs / "secret/file").write_text("secret")
    bundle.linux["maskedPaths"] = ["/proc/interrupts", "/etc/passwd", "/secret", "/not/there"]
    answers = oci.ask(bundle, "cat /etc/passwd", "ls /secret", "touch /secret/x", "stat /etc/passwd /proc/interrupts")
    assert (answers["cat /etc/passwd"], answers["ls /secret"]) == ([], [])
    assert answers.one("touch /secret/x") == "EROFS"
    for line in answers["stat /etc/passwd /proc/interrupts"]:
        assert line.split()[1] == "c" and line.split()[5] == "1:3"


def test_read_only_paths(oci: Runtime, bundle: Bundle) -> None:
    """ "readonlyPaths (array of strings, OPTIONAL) will set the provided paths as readonly inside the container." """
    bundle.linux["readonlyPaths"] = ["/proc/sys", "/etc", "/bin/probe", "/not/there"]
    answers = oci.ask(
        bundle,
        "touch /etc/x",
        "access w /proc/sys/kernel/hostname",
        "access r /proc/sys/kernel/hostname",
        "write /bin/probe x",
        "touch /tmp/x",
    )
    assert [lines[0] for lines in answers.lines.values()] == ["EROFS", "EROFS", "OK", "EROFS", "OK"]


@pytest.mark.parametrize("link", ["/", "/..", "../../../../../../..", "/escape", "escape/.."])
def test_linked_targets_stay_inside(oci: Runtime, bundle: Bundle, volume: Path, directory: Path, link: str) -> None:
    """CVE-2021-30465, CVE-2024-45310: a mount point behind a symbolic link of the image is resolved as inside the
    container."""
    outside = directory / "outside"
    outside.mkdir()
    (bundle.rootfs / "escape").symlink_to(directory)
    (bundle.rootfs / "link").symlink_to(link)
    oci("run", "--bundle", bundle.mount("/link/outside", "bind", volume, "bind").asks("true").save().path, oci.new_id())
    assert os.listdir(outside) == []
    assert set(os.listdir(directory)) == set(os.listdir(directory)) & {
        entry.name for entry in (outside, volume, bundle.path.parent, oci.directory)
    }


def test_missing_targets_behind_links_are_made_inside(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """CVE-2024-45310: creating a missing target never follows a link to the host."""
    (directory / "outside").mkdir()
    (bundle.rootfs / "link").symlink_to(directory / "outside")
    oci.run(
        bundle.mount("/link/new/deep", "tmpfs", "tmpfs").mount("/link/file", "bind", "/dev/null", "bind").asks("true")
    )
    assert os.listdir(directory / "outside") == []


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_linked_proc_is_refused(oci: Runtime, bundle: Bundle, directory: Path, name: str) -> None:
    """CVE-2019-19921, CVE-2023-27561: /proc and /sys must be real directories of the root file system."""
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / "tmp/elsewhere").mkdir()
    (bundle.rootfs / name).symlink_to("tmp/elsewhere")
    oci.refuses(bundle)


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_links_never_redirect_to_the_host(oci: Runtime, bundle: Bundle, directory: Path, name: str) -> None:
    """CVE-2026-41579: a symbolic link at the rootfs's /dev, /proc or /sys never leads set-up to the host."""
    outside = directory / "outside"
    outside.mkdir()
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).symlink_to(outside)
    oci.run(bundle.asks("true"))
    assert os.listdir(outside) == []


def test_device_nodes_never_redirect_to_the_host(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """CVE-2026-41579: the same without a mount on /dev, where nodes and links are made in what the link names."""
    outside = directory / "outside"
    outside.mkdir()
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(outside)
    oci.run(bare(bundle, "/proc").asks("true"))
    assert os.listdir(outside) == []


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/proc/sys"])
def test_ordinary_mounts_on_proc_are_refused(oci: Runtime, bundle: Bundle, volume: Path, target: str) -> None:
    """CVE-2019-16884: what is mounted over /proc can fake the kernel's answers to the runtime."""
    oci.refuses(bundle.mount(target, "bind", volume, "bind"))


def test_sys_may_be_that_of_the_host(oci: Runtime, bundle: Bundle) -> None:
    """Where sysfs cannot be mounted afresh (a foreign network namespace), engines bind the host's."""
    bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["destination"] != "/sys"]
    assert table(oci, bundle.mount("/sys", "bind", "/sys", "rbind", "ro"))["/sys"].type == "sysfs"


def test_masking_wants_the_real_null_device(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    """CVE-2025-31133: a false /dev/null would be shown where a path should be masked."""
    (bundle.rootfs / "dev/null").write_text("not a device")
    bare(bundle, "/proc").linux["maskedPaths"] = ["/etc/passwd"]
    result = oci.run(bundle.asks("cat /etc/passwd"))
    assert result.code or result.answers["cat /etc/passwd"] == [], str(result)
    assert "not a device" not in result.out


def test_no_pivot(oci: Runtime, bundle: Bundle) -> None:
    """runc(8): "--no-pivot: do not use pivot root to jail process inside rootfs" """
    (bundle.rootfs / "mark").write_text("inside")
    result = oci.run(bundle.asks("cat /mark", "cat /../../mark"), "--no-pivot").ok()
    assert result.answers.one("cat /../../mark") == "inside"
