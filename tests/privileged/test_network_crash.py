"""Whatever is killed at whatever instant, the next command leaves nothing of its network behind."""

import os
import random
import signal
import subprocess
import time

import pytest

from tests.helpers.lan import FAR, NEAR, Lan, until

ROUNDS = 200 if os.environ.get("WARREN_LONG") else 20
SEED = 20


def test_a_command_that_is_killed_while_it_attaches_leaves_nothing(lan: Lan) -> None:
    lan.warren("network", "create", "--ipv6", "tn1").ok()
    lan.warren("network", "create", "tn2").ok()
    words = ("run", "--rm", "--network", "tn1", "--network", "tn2", "-p", "8080:80", "--egress", "far.test:7000",
             "host", "--", "true")  # fmt: skip
    begun = time.monotonic()
    lan.warren(*words).ok()
    length = time.monotonic() - begun
    following = ("run", "--rm", "--network", "tn1", "-p", "8080:80", "host", "--", "true")
    chance = random.Random(SEED)
    for number in range(ROUNDS):
        started = lan.warren.popen(*words)
        time.sleep(chance.uniform(0, length))
        os.kill(started.pid, signal.SIGKILL)
        started.communicate()
        # Its container may have been let go already, and ends by itself.
        until(lambda: lan.warren(*following).code == 0)
        assert lan.settled() == [], f"round {number} of seed {SEED}"


def test_a_container_whose_command_is_killed_is_swept(lan: Lan) -> None:
    """The foreground command and the container's own processes."""
    started = lan.warren.popen("run", "--rm", "-p", "8080:80", "host", "--", "sleep", "100")
    deadline = time.monotonic() + 10
    while not lan.elements() and time.monotonic() < deadline:
        time.sleep(0.02)
    started.kill()
    started.communicate()
    for name in lan.containers():
        pid = lan.warren("inspect", name, "--format", "{{.State.Pid}}").out.strip()
        if pid not in ("", "0"):
            lan.near("kill", "-9", pid, check=False)
    until(lambda: lan.warren("run", "--rm", "-p", "8080:80", "host", "--", "true").code == 0)


def test_links_that_nobody_explains_are_swept_by_prune(lan: Lan) -> None:
    lan.ask("tcp", FAR, "7000").ok()
    lan.near("ip", "link", "add", "wr-00112233440", "type", "veth", "peer", "name", "wt9")
    lan.near("ln", "-s", "nobody", "/run/warren/.networks/addresses/bridge/10.77.9.9")
    lan.near("ln", "-s", "nobody", "/run/warren/.networks/ports/tcp.8099.")
    lan.warren("network", "prune", "-f").ok()
    assert lan.leftovers() == []


def test_a_record_of_a_container_that_is_gone_is_swept_by_the_next_launch(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80")
    (container,) = lan.containers()
    lan.near("sh", "-c", f"kill -9 {lan.pid('web')}; sleep 0.3; rm -rf /run/warren/{container}")
    lan.warren("run", "--rm", "-p", "8080:80", "host", "--", "true").ok()
    lan.warren("rm", "-f", "web").ok()


def test_a_reboot_is_survived(lan: Lan) -> None:
    """/run may survive it on some hosts; bridges and rules never do."""
    lan.warren("network", "create", "tn1").ok()
    lan.serve("web", "--network", "tn1", "-p", "8080:80")
    lan.near("sh", "-c", f"kill -9 {lan.pid('web')}")
    lan.near("nft", "flush", "ruleset")
    for name in [line.split()[0] for line in lan.near("ip", "-br", "link").splitlines()]:
        if name.startswith(("wr-", "warren")) and "@" not in name:
            lan.near("ip", "link", "del", name)
    lan.warren("start", "web").ok()
    deadline = time.monotonic() + 5
    while lan.ask_far("tcp", NEAR, "8080") != f"web {FAR}":
        assert time.monotonic() < deadline


@pytest.mark.parametrize("where", ["containers", "addresses", "ports", "resolvers"])
def test_a_damaged_state_is_no_obstacle(lan: Lan, where: str) -> None:
    lan.ask("tcp", FAR, "7000").ok()
    name = "bridge/junk" if where == "addresses" else "junk"
    lan.near("sh", "-c", f"echo junk >/run/warren/.networks/{where}/{name}")
    assert lan.ask("tcp", FAR, "7000").ok().out == f"far {NEAR}\n"
    lan.near("rm", "-f", f"/run/warren/.networks/{where}/{name}")


def test_many_at_once_get_addresses_and_ports_of_their_own(lan: Lan) -> None:
    words = [
        *lan.warren.prefix,
        str(lan.warren.program),
        "run",
        "--rm",
        "-p",
        "80",
        "host",
        "--",
        "ip",
        "-br",
        "-4",
        "a",
    ]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=lan.env) for _ in range(12)]
    found = [one.communicate()[0].split()[-1] for one in started]
    assert all(one.returncode == 0 for one in started)
    assert len(set(found)) == 12


def test_restarts_do_not_wait_for_the_kernel_to_take_the_last_link_away(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80")
    for _ in range(5):
        lan.warren("restart", "-t", "0", "web").ok()
    until(lambda: lan.ask_far("tcp", NEAR, "8080") == f"web {FAR}")
