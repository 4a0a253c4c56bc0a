"""Private networks of an ordinary user by pasta and slirp4netns, with a second host over a wire."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.lan import FAR, NEAR, PEER, PYTHON, Lan, until
from tests.helpers.users import User
from tests.helpers.warren import Warren

TUN = """
mkdir -p "$1" && mount -t tmpfs -o mode=755 tmpfs "$1" && mknod -m "$2" "$1/tun" c 10 200 &&
mount --bind "$1/tun" /dev/net/tun
"""
NO_TUN = "umount /dev/net/tun; umount /tmp/warren-tun; rmdir /tmp/warren-tun"


@pytest.fixture(scope="module")
def hosts(session_directory: Path, token: str) -> Iterator[Lan]:
    for tool in ("root", "ip", "nft", "tun"):
        require(tool)
    directory = session_directory / "lan-rootless"
    directory.mkdir(exist_ok=True)
    lan = Lan(directory, token)
    yield lan
    lan.close()


class Private:
    """The user's warren on the near host."""

    def __init__(self, lan: Lan, user: User) -> None:
        self.lan = lan
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--"]
        environment = [f"{key}={value}" for key, value in user.environment.items()]
        self.warren = Warren([*lan.prefix, *become, "env", "-i", *environment], lan.env)

    def serve(self, *options: str) -> None:
        command = [PYTHON, "-c", PEER, "serve", "web", "tcp:80", "udp:80"]
        self.warren("run", "-d", "--name", "web", *options, "host", "--", *command).ok()

    def ask(self, *words: str, options: tuple[str, ...] = ()) -> str:
        command = [PYTHON, "-c", PEER, "ask", *words]
        return self.warren("run", "--rm", *options, "host", "--", *command).out


@pytest.fixture
def private(hosts: Lan, user_with_ids: User) -> Iterator[Private]:
    """With a /dev/net/tun that he may open."""
    hosts.near("sh", "-c", TUN, "sh", "/tmp/warren-tun", "666")
    found = Private(hosts, user_with_ids)
    yield found
    found.warren("rm", "-f", "web")
    hosts.near("sh", "-c", NO_TUN)
    programs = ("pgrep", "-x", "-u", str(user_with_ids.uid), "slirp4netns|pasta.*")
    until(lambda: not hosts.near(*programs, check=False).split())


@pytest.mark.parametrize("mode", ["pasta", "slirp4netns"])
def test_out_and_in(private: Private, mode: str) -> None:
    assert private.ask("tcp", FAR, "7000", options=("--network", mode)) == f"far {NEAR}\n"
    assert private.ask("udp", FAR, "7000", options=("--network", mode)) == f"far {NEAR}\n"
    private.serve("--network", mode, "-p", "8088:80", "-p", "8088:80/udp", "-p", "127.0.0.1:8089:80")
    until(lambda: private.lan.ask_far("tcp", NEAR, "8088").startswith("web "))
    assert private.lan.ask_far("udp", NEAR, "8088").startswith("web ")
    assert private.lan.ask_near("tcp", "127.0.0.1", "8089").startswith("web ")
    assert private.lan.ask_far("tcp", NEAR, "8089") == ""
    assert "80/tcp -> 0.0.0.0:8088" in private.warren("port", "web").ok().out


def test_anybody_may_ping(private: Private) -> None:
    """As far as pasta may itself: the host's range is not for all by default."""
    private.lan.near("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    for user in ("0", "1000"):
        command = ["--user", user, "host", "--", PYTHON, "-c", PEER, "ping"]
        for mode in ("pasta", "slirp4netns", "none"):
            reached = private.warren("run", "--rm", "--network", mode, *command, "127.0.0.1", "::1")
            assert reached.ok().out == "127.0.0.1\n::1\n"
        assert private.warren("run", "--rm", "--network", "pasta", *command, FAR).ok().out == f"{FAR}\n"


def test_it_is_the_default(private: Private) -> None:
    assert private.ask("tcp", FAR, "7000") == f"far {NEAR}\n"
    assert "lo" in private.warren("run", "--rm", "--network", "none", "host", "--", "ip", "-br", "link").ok().out


def test_names_are_found(private: Private) -> None:
    found = private.warren("run", "--rm", "host", "--", "dig", "+short", "far.test").ok().out
    assert found == f"{FAR}\n"


def test_a_port_that_is_in_use_is_an_error(private: Private) -> None:
    private.serve("-p", "8088:80")
    until(lambda: private.lan.ask_far("tcp", NEAR, "8088") != "")
    private.warren("run", "-p", "8088:80", "host", "--", "true").fails(125, "8088/tcp")
    private.warren("run", "-p", "88:80", "host", "--", "true").fails(125, "not for ordinary users")


def test_what_only_root_has_is_refused(private: Private) -> None:
    private.warren("run", "--network", "bridge", "host", "--", "true").fails(125, "need root", "--network private")
    private.warren("run", "--egress", "none", "host", "--", "true").fails(125, "--egress")
    private.warren("run", "--ip", "10.0.0.2", "host", "--", "true").fails(125, "--ip")


def test_without_the_tun_device_it_says_so(hosts: Lan, user_with_ids: User) -> None:
    hosts.near("sh", "-c", TUN, "sh", "/tmp/warren-tun", "600")
    try:
        warren = Private(hosts, user_with_ids).warren
        warren("run", "--network", "pasta", "host", "--", "true").fails(125, "/dev/net/tun cannot be opened", "chmod")
        warren("run", "-p", "8088:80", "host", "--", "true").fails(125, "/dev/net/tun cannot be opened")
        warren("run", "-d", "--name", "web", "host", "--", "sleep", "60").ok()
        told = json.loads(warren("inspect", "web").ok().out)[0]["enforced"]["network"]
        assert told.startswith("none: ")
        assert "/dev/net/tun" in told
        warren("rm", "-f", "web").ok()
    finally:
        hosts.near("sh", "-c", NO_TUN)
