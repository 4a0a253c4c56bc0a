"""Cgroups of an ordinary user to whom an administrator has delegated one (cgroup-v2.rst, "Delegation")."""

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle, Runtime

from .conftest import CGROUPS, box, cgroup_of, members

USER = pwd.getpwnam("daemon")
GREEDY = "dd if=/dev/zero of=/dev/null count=1 bs=64M; echo dd $?"
OWNED = ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control")


@pytest.fixture
def delegated(token: str) -> Iterator[Path]:
    """A cgroup of the user's, with its controllers, and a leaf in it where his processes are."""
    top = CGROUPS / f"wrn-{token}"
    (top / "leaf").mkdir(parents=True)
    (top / "cgroup.subtree_control").write_text("+memory +pids")
    for directory in (top, top / "leaf"):
        for name in OWNED:
            os.chown(directory / name, USER.pw_uid, USER.pw_gid)
    yield top
    (top / "leaf").rmdir()
    top.rmdir()


@pytest.fixture
def user_bundle(bundle: Bundle) -> Bundle:
    bundle.for_ordinary_user(USER.pw_uid, USER.pw_gid)
    bundle.linux["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}, "pids": {"limit": 44}}
    return bundle


@pytest.fixture
def as_user(runtime_program: str, directory: Path, token: str, delegated: Path) -> Iterator[Callable[[Path], Runtime]]:
    """The runtime, run as the user from within a cgroup; its containers go before what is `delegated`."""
    made = []

    def make(cgroup: Path) -> Runtime:
        runtime = Runtime(runtime_program, directory / "user", f"{token}-u{directory.name[-6:]}")
        os.chown(runtime.directory, USER.pw_uid, USER.pw_gid)
        enter = f'echo 0 >{cgroup}/cgroup.procs && exec "$@"'
        ids = [f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
        runtime.prefix = ["sh", "-c", enter, "sh", "setpriv", *ids, "env", f"XDG_RUNTIME_DIR={runtime.directory}"]
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        runtime.close()


only_warren = pytest.mark.parametrize("runtime_program", ["warren-oci"], indirect=True)
"""The others know of a path from the root of the hierarchy only, and pass over what they may not make."""


def test_limits_hold_in_a_cgroup_that_is_named_in_full(
    as_user: Callable[[Path], Runtime], user_bundle: Bundle, delegated: Path
) -> None:
    user_bundle.linux["cgroupsPath"] = f"/{delegated.name}/box"
    container, pid = box(as_user(delegated / "leaf"), user_bundle, ["/bin/sh", "-c", f"{GREEDY}; exec sleep 60"])
    assert pid in members(delegated / "box")
    assert container.expect("dd").split() == ["dd", "137"]
    container.delete("--force").ok()
    assert not (delegated / "box").exists()


@only_warren
def test_limits_hold_beside_the_users_processes(
    as_user: Callable[[Path], Runtime], user_bundle: Bundle, delegated: Path
) -> None:
    oci = as_user(delegated / "leaf")
    container, pid = box(oci, user_bundle, ["/bin/sh", "-c", f"{GREEDY}; exec sleep 60"])
    assert cgroup_of(pid) == delegated / f"warren-{container.id}"
    assert (cgroup_of(pid) / "pids.max").read_text() == "44\n"
    assert container.expect("dd").split() == ["dd", "137"]
    assert container.exec("/bin/sh", "-c", GREEDY).out.split() == ["dd", "137"]
    oci("pause", container.id).ok()
    assert container.status == "paused"
    container.delete("--force").ok()
    assert sorted(path.name for path in delegated.iterdir() if path.is_dir()) == ["leaf"]


@only_warren
def test_a_path_is_below_what_is_delegated(
    as_user: Callable[[Path], Runtime], user_bundle: Bundle, delegated: Path
) -> None:
    user_bundle.linux["cgroupsPath"] = "/some/where"
    container, pid = box(as_user(delegated / "leaf"), user_bundle)
    assert cgroup_of(pid) == delegated / "some/where"
    container.delete("--force").ok()
    assert not (delegated / "some").exists()


@only_warren
def test_a_cgroup_with_processes_of_its_own_cannot_hold_limits(
    as_user: Callable[[Path], Runtime], user_bundle: Bundle, delegated: Path
) -> None:
    """Nobody is moved: the error says what to do."""
    os.chown(delegated / "cgroup.procs", 0, 0)
    oci = as_user(delegated / "leaf")
    oci.refuses(user_bundle, "has processes of its own", "leaf")
    del user_bundle.linux["resources"]
    container, pid = box(oci, user_bundle)
    assert cgroup_of(pid) == delegated / "leaf" / f"warren-{container.id}"


@only_warren
def test_without_one_a_limit_is_refused(as_user: Callable[[Path], Runtime], user_bundle: Bundle) -> None:
    as_user(CGROUPS).refuses(user_bundle, "this user may not make a cgroup")


@only_warren
def test_the_library_uses_it_too(as_user: Callable[[Path], Runtime], user_bundle: Bundle, delegated: Path) -> None:
    oci = as_user(delegated / "leaf")
    script = "import runtime.cgroups as c; from runtime.host import Host; "
    script += "print(c.for_container(None, 'x', Host.probe(), manager='auto').unified)"
    done = subprocess.run([*oci.prefix, "/usr/bin/python3", "-c", script], capture_output=True, text=True)
    assert done.stdout == f"{delegated}/warren-x\n", done.stderr
