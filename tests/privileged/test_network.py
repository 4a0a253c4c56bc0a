"""Networks of bridges with real packets: between containers, with the host, and with a second host over a wire."""

import json
import time

import pytest

from tests.helpers.lan import ELSEWHERE, ELSEWHERE6, FAR, FAR6, NEAR, NEAR6, PYTHON, Lan, until

# ---- out


def test_a_container_reaches_a_far_host_by_the_hosts_address(lan: Lan) -> None:
    """Seen from outside it is the host: masqueraded, for TCP and UDP."""
    assert lan.ask("tcp", ELSEWHERE, "7000").ok().out == f"far {NEAR}\n"
    assert lan.ask("udp", FAR, "7000").ok().out == f"far {NEAR}\n"


def test_ipv6_reaches_a_far_host_by_the_hosts_address(lan: Lan) -> None:
    lan.warren("network", "create", "--ipv6", "six").ok()
    assert lan.ask("tcp", ELSEWHERE6, "7000", options=("--network", "six")).ok().out == f"far {NEAR6}\n"
    assert lan.ask("udp", FAR6, "7000", options=("--network", "six")).ok().out == f"far {NEAR6}\n"


@pytest.mark.parametrize("userns", [(), ("--userns", "host")], ids=["mapped", "unmapped"])
@pytest.mark.parametrize("user", ["0", "1000", "65534:65534", "60000:60001"])
def test_anybody_may_ping(lan: Lan, user: str, userns: tuple[str, ...]) -> None:
    options = ("--user", user, "--cap-drop", "ALL", *userns)
    assert lan.ping(FAR, "127.0.0.1", options=options).ok().out == f"{FAR}\n127.0.0.1\n"
    loopback = ("--network", "none", *options)
    assert lan.ping("127.0.0.1", "::1", options=loopback).ok().out == "127.0.0.1\n::1\n"
    refused = lan.ping("127.0.0.1", options=("--sysctl", "net.ipv4.ping_group_range=1 0", *options))
    assert "PermissionError" in refused.err


def test_a_ping_that_wants_a_raw_socket_needs_its_capability(lan: Lan) -> None:
    """Debian's busybox knows no other, on any host; Alpine's does."""
    ping = ("host", "--", "busybox", "ping", "-c", "1", "-W", "3", FAR)
    assert "1 packets received" in lan.warren("run", "--rm", "--cap-add", "NET_RAW", *ping).ok().out
    assert "are you root" in lan.warren("run", "--rm", *ping).err


def test_without_a_network_nothing_is_reached(lan: Lan) -> None:
    lan.ask("tcp", FAR, "7000", options=("--network", "none"))
    assert lan.ask("tcp", FAR, "7000", options=("--network", "none")).code == 1


def test_the_hosts_network_is_the_hosts(lan: Lan) -> None:
    assert "wt0" in lan.warren("run", "--rm", "--network", "host", "host", "--", "ip", "-br", "link").ok().out


def test_an_internal_network_has_no_way_out_or_in(lan: Lan) -> None:
    lan.warren("network", "create", "--internal", "inner").ok()
    lan.serve("quiet", "--network", "inner")
    address = lan.settings("quiet", "IPAddress")
    assert lan.ask("tcp", FAR, "7000", options=("--network", "inner")).code == 1
    assert lan.ask("tcp", address, "80", options=("--network", "inner")).ok().out.startswith("quiet ")
    lan.far("ip", "route", "add", address, "via", NEAR)
    try:
        assert lan.ask_far("tcp", address, "80") == ""
    finally:
        lan.far("ip", "route", "del", address)
    lan.warren("run", "--network", "inner", "-p", "8081:80", "host", "--", "true").fails(125, "internal")


# ---- between containers


def test_containers_of_one_network_reach_each_other_by_name_alias_and_address(lan: Lan) -> None:
    lan.warren("network", "create", "--ipv6", "tn1").ok()
    lan.serve("web", "--network", "tn1", "--network-alias", "shop")
    address, v6 = lan.settings("web", "IPAddress"), lan.settings("web", "GlobalIPv6Address")
    for target in ("web", "shop", address, v6):
        assert lan.ask("tcp", target, "80", options=("--network", "tn1")).ok().out.startswith("web "), target
    assert lan.ask("udp", "web", "80", options=("--network", "tn1")).ok().out.startswith("web ")


def test_networks_are_isolated_from_each_other(lan: Lan) -> None:
    for name in ("tn1", "tn2"):
        lan.warren("network", "create", name).ok()
    lan.serve("web", "--network", "tn1")
    address = lan.settings("web", "IPAddress")
    assert lan.ask("tcp", address, "80", options=("--network", "tn2")).code == 1
    assert lan.ask("tcp", "web", "80", options=("--network", "tn2")).code == 1
    assert lan.ask("tcp", address, "80", options=("--network", "tn1")).ok().out


def test_a_container_on_two_networks_reaches_both(lan: Lan) -> None:
    for name in ("tn1", "tn2"):
        lan.warren("network", "create", name).ok()
    lan.serve("one", "--network", "tn1")
    lan.serve("two", "--network", "tn2")
    both = ("--network", "tn1", "--network", "tn2")
    assert lan.ask("tcp", "one", "80", options=both).ok().out.startswith("one ")
    assert lan.ask("tcp", lan.settings("two", "IPAddress"), "80", options=both).ok().out.startswith("two ")
    assert lan.ask("tcp", "two", "80", options=both).ok().out.startswith("two ")


def test_icc_false_keeps_containers_of_one_network_apart(lan: Lan) -> None:
    lan.warren("network", "create", "-o", "icc=false", "apart").ok()
    lan.serve("web", "--network", "apart")
    assert lan.ask("tcp", lan.settings("web", "IPAddress"), "80", options=("--network", "apart")).code == 1
    assert lan.ask("tcp", FAR, "7000", options=("--network", "apart")).ok().out


def test_a_container_joins_the_network_of_another(lan: Lan) -> None:
    lan.serve("web", "-p", "8085:80")
    assert lan.ask("tcp", "127.0.0.1", "80", options=("--network", "container:web")).ok().out == "web 127.0.0.1\n"


def test_nobody_outside_reaches_what_is_not_published(lan: Lan) -> None:
    """Even with a route to the container, as every neighbour of the host can have one."""
    lan.serve("web", "-p", "8080:80")
    address = lan.settings("web", "IPAddress")
    lan.far("ip", "route", "add", address, "via", NEAR)
    try:
        assert lan.ask_far("tcp", address, "80") == ""
        assert lan.ask_near("tcp", address, "80").startswith("web ")
    finally:
        lan.far("ip", "route", "del", address)


def test_the_host_does_not_become_a_router(lan: Lan) -> None:
    """Forwarding is on where containers need it: a neighbour cannot send through the host all the same."""
    lan.ask("tcp", FAR, "7000").ok()
    assert lan.near("cat", "/proc/sys/net/ipv4/conf/wt0/forwarding").strip() == "1"
    assert lan.near("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
    lan.near("ip", "link", "add", "wt5", "type", "veth", "peer", "name", "wt6")
    try:
        lan.near("sh", "-c", "ip addr add 192.0.2.1/24 dev wt5; ip link set wt5 up; ip link set wt6 up")
        lan.far("ip", "route", "add", "192.0.2.0/24", "via", NEAR)
        lan.far(PYTHON, "-c", "import socket\nsocket.socket(2, 2).sendto(b'x', ('192.0.2.7', 9))")
        time.sleep(0.2)
        assert "192.0.2.7" not in lan.near("ip", "neigh", "show", "dev", "wt5")
    finally:
        lan.near("ip", "link", "del", "wt5")
        lan.far("ip", "route", "del", "192.0.2.0/24", check=False)


# ---- links


def test_addresses_and_names_as_asked_for(lan: Lan) -> None:
    lan.warren("network", "create", "--subnet", "10.231.5.0/24", "--subnet", "fd00:231:5::/64", "tn1").ok()
    options = ("--ip", "10.231.5.77", "--ip6", "fd00:231:5::77", "--mac-address", "02:11:22:33:44:55")
    lan.serve("web", "--network", "tn1", *options)
    assert lan.settings("web", "IPAddress") == "10.231.5.77"
    assert lan.settings("web", "GlobalIPv6Address") == "fd00:231:5::77"
    assert lan.settings("web", "MacAddress") == "02:11:22:33:44:55"
    assert lan.ask("tcp", "10.231.5.77", "80", options=("--network", "tn1:ip=10.231.5.78")).ok().out == (
        "web 10.231.5.78\n"
    )
    lan.warren("run", "--network", "tn1", "--ip", "10.231.5.77", "host", "--", "true").fails(125, "another container")
    lan.warren("run", "--network", "tn1", "--ip", "10.231.5.1", "host", "--", "true").fails(125, "gateway")
    lan.warren("run", "--network", "tn1", "--ip", "10.9.9.9", "host", "--", "true").fails(125, "10.231.5.0/24")


def test_the_mtu_is_the_uplinks_and_large_packets_pass(lan: Lan) -> None:
    lan.warren("network", "create", "-o", "mtu=1400", "--ipv6", "small").ok()
    shown = lan.warren("run", "--rm", "--network", "small", "host", "--", "cat", "/sys/class/net/eth0/mtu").ok().out
    assert shown == "1400\n"
    for target in (FAR, FAR6):
        lan.ask("tcp", target, "7000", "1", "300000", options=("--network", "small")).ok()
        lan.ask("udp", target, "7000", "1", "20000", options=("--network", "small")).ok()


def test_loopback_of_the_host_is_out_of_reach(lan: Lan) -> None:
    """route_localnet is on, on the bridge, for published ports: nothing else may come of it."""
    serve = (
        "import socket\ns=socket.create_server(('127.0.0.9', 7777))\nprint('ready', flush=True)\nwhile 1: s.accept()"
    )
    lan.start([*lan.prefix, PYTHON, "-c", serve])
    script = (
        "gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); ip addr flush dev lo;"
        "ip route add 127.0.0.9/32 via $gateway; echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet;"
        f"""exec {PYTHON} -c "import socket; socket.create_connection(('127.0.0.9', 7777), 1)" """
    )
    command = ("run", "--rm", "--privileged", "host", "--", "sh", "-c", script)
    assert lan.warren(*command).code == 1
    lan.near("nft", "flush", "chain", "inet", "warren", "raw")
    lan.warren(*command).ok()
    lan.warren("network", "repair").ok()
    lan.stop_last()


def test_connect_and_disconnect_a_running_container(lan: Lan) -> None:
    for name in ("tn1", "tn2"):
        lan.warren("network", "create", name).ok()
    lan.serve("web", "--network", "tn1")
    assert lan.ask("tcp", "web", "80", options=("--network", "tn2")).code == 1
    lan.warren("network", "connect", "--alias", "second", "tn2", "web").ok()
    lan.warren("network", "connect", "tn2", "web").fails(125, "already")
    assert lan.ask("tcp", "second", "80", options=("--network", "tn2")).ok().out.startswith("web ")
    members = json.loads(lan.warren("network", "inspect", "tn2").ok().out)[0]["Containers"]
    assert [one["Name"] for one in members.values()] == ["web"]
    lan.warren("network", "disconnect", "tn2", "web").ok()
    assert lan.ask("tcp", "web", "80", options=("--network", "tn2")).code == 1
    assert lan.ask("tcp", "web", "80", options=("--network", "tn1")).ok().out
    lan.warren("network", "disconnect", "tn2", "web").fails(125, "is not on network")


def test_a_detached_container_that_ends_gives_its_network_back_by_itself(lan: Lan) -> None:
    lan.warren("network", "create", "tn1").ok()
    lan.warren("run", "-d", "--name", "web", "--network", "tn1", "-p", "8080:80", "host", "--", "sleep", "0.5").ok()
    assert lan.leftovers()
    until(lambda: not lan.leftovers())
    lan.warren("run", "-d", "--rm", "-p", "8080:80", "host", "--", "sleep", "0.3").ok()
    until(lambda: not lan.leftovers())


def test_a_network_that_is_used_stays(lan: Lan) -> None:
    lan.warren("network", "create", "tn1").ok()
    lan.serve("web", "--network", "tn1")
    assert "in use by web" in lan.warren("network", "rm", "tn1").err
    lan.remove("web")
    lan.warren("network", "rm", "tn1").ok()
    lan.warren("network", "inspect", "tn1").fails(125, "no such network")


def test_prune_removes_unused_networks_alone(lan: Lan) -> None:
    for name in ("tn1", "tn2"):
        lan.warren("network", "create", name).ok()
    lan.serve("web", "--network", "tn1")
    assert lan.warren("network", "prune", "-f").ok().out.split() == ["tn2"]
    assert "tn1" in lan.warren("network", "ls", "-q").ok().out.split()


def test_a_macvlan_is_on_the_wire_by_itself(lan: Lan) -> None:
    create = ("network", "create", "-d", "macvlan", "-o", "parent=wt0", "--subnet", "203.0.113.0/24")
    lan.warren(*create, "--gateway", FAR, "--ip-range", "203.0.113.128/25", "wire").ok()
    answer = lan.ask("tcp", FAR, "7000", options=("--network", "wire", "--ip", "203.0.113.200")).ok().out
    assert answer == "far 203.0.113.200\n"


# ---- what is wrong


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("create", "--subnet", "203.0.113.0/25", "x"), "overlaps"),
        (("create", "--subnet", "203.0.0.0/16", "x"), "overlaps"),
        (("create", "--subnet", "10.7.0.0/33", "x"), "no subnet"),
        (("create", "--subnet", "10.7.0.0/31", "x"), "no room"),
        (("create", "--subnet", "nonsense", "x"), "no subnet"),
        (("create", "--subnet", "127.0.0.0/8", "x"), "cannot be"),
        (("create", "--subnet", "10.7.0.0/24", "--gateway", "10.8.0.1", "x"), "in none"),
        (("create", "--subnet", "10.7.0.0/24", "--gateway", "10.7.0.255", "x"), "no address of a host"),
        (("create", "--subnet", "10.7.0.0/24", "--ip-range", "10.8.0.0/25", "x"), "is not within"),
        (("create", "--subnet", "10.7.0.0/24", "--subnet", "10.8.0.0/24", "x"), "one for each"),
        (("create", "-o", "mtu=9", "x"), "MTU"),
        (("create", "-o", "bridge=much-too-long-a-name", "x"), "no name of an interface"),
        (("create", "-o", "what=1", "x"), "unknown"),
        (("create", "-d", "overlay", "x"), "bridge or macvlan"),
        (("create", "-d", "macvlan", "x"), "needs --subnet"),
        (("create", "host"), "invalid network name"),
        (("create", "-x-"), "no such option"),
        (("create", "a/b"), "invalid network name"),
        (("rm", "nothing"), "no such network"),
        (("inspect", "nothing"), "no such network"),
    ],
)
def test_bad_networks(lan: Lan, words: tuple[str, ...], problem: str) -> None:
    done = lan.warren("network", *words)
    assert done.code in (1, 125)
    assert problem in done.err, str(done)
    assert "x" not in lan.warren("network", "ls", "-q").ok().out.split()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--network", "nothing"), "no such network"),
        (("--network", "bridge", "--network", "host"), "no other network"),
        (("--network", "bridge", "--network", "bridge"), "twice"),
        (("--network", "none", "-p", "80:80"), "not with --network none"),
        (("--ip", "1.2.3"), "no address"),
        (("--ip6", "fd00::7"), "has no such addresses"),
        (("--mac-address", "01:00:00:00:00:01"), "no address of one station"),
        (("--mac-address", "zz"), "malformed"),
        (("--dns", "far.test"), "no IP address"),
        (("--add-host", "x"), "malformed"),
        (("--network", "bridge:what=1"), "unknown"),
        (("--network-alias", "a b"), "no host name"),
    ],
)
def test_bad_options(lan: Lan, words: tuple[str, ...], problem: str) -> None:
    lan.warren("run", "--rm", *words, "host", "--", "true").fails(125, problem)


def test_addresses_run_out_with_an_error_and_come_back(lan: Lan) -> None:
    lan.warren("network", "create", "--subnet", "10.232.1.0/29", "tiny").ok()
    for number in range(5):
        lan.warren("run", "-d", "--name", f"t{number}", "--network", "tiny", "host", "--", "sleep", "60").ok()
    lan.warren("run", "--network", "tiny", "host", "--", "true").fails(125, "all 6 addresses", "larger subnet")
    lan.remove("t3")
    lan.warren("run", "--rm", "--network", "tiny", "host", "--", "true").ok()


def test_overlapping_networks_are_refused(lan: Lan) -> None:
    lan.warren("network", "create", "--subnet", "10.233.0.0/16", "tn1").ok()
    lan.warren("network", "create", "--subnet", "10.233.7.0/24", "tn2").fails(125, "overlaps")
    lan.warren("network", "create", "--subnet", "10.234.0.0/16", "tn1").fails(125, "already exists")


def test_a_hundred_containers_on_one_bridge(lan: Lan) -> None:
    """Each has an address of its own, and the last reaches the first."""
    lan.warren("network", "create", "tn1").ok()
    lan.serve("c0", "--network", "tn1")
    command = ("host", "--", "sleep", "120")
    lan.warren("run", "-d", "--replicas", "99", "--network", "tn1", *command, timeout=300).ok()
    members = json.loads(lan.warren("network", "inspect", "tn1").ok().out)[0]
    addresses = {one["IPv4Address"] for one in members["Containers"].values()}
    assert len(addresses) == len(members["Containers"]) == 100
    assert len(members["Kernel"]["Ports"]) == 100
    assert lan.ask("tcp", "c0", "80", options=("--network", "tn1")).ok().out.startswith("c0 ")
    lan.warren("rm", "-f", *lan.containers(), timeout=300).ok()


def test_a_flushed_firewall_is_made_anew_with_all_that_is_published(lan: Lan) -> None:
    """A reload of the host's firewall flushes the tables of others, too."""
    lan.serve("web", "-p", "8080:80")
    lan.near("nft", "flush", "ruleset")
    assert lan.ask_far("tcp", NEAR, "8080") == ""
    assert lan.ask("tcp", FAR, "7000").ok().out == f"far {NEAR}\n"
    assert lan.ask_far("tcp", NEAR, "8080") == f"web {FAR}"
    lan.near("nft", "flush", "ruleset")
    assert "made anew" in lan.warren("network", "repair").ok().out
    assert lan.ask_far("tcp", NEAR, "8080") == f"web {FAR}"


def test_a_firewall_that_drops_what_is_forwarded_is_found_and_opened(lan: Lan) -> None:
    rules = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
    lan.ask("tcp", FAR, "7000").ok()
    lan.near("nft", rules)
    try:
        assert lan.ask("tcp", FAR, "7000").code == 1
        found = {one["name"]: one for one in json.loads(lan.warren("doctor", "--format", "json").out)}
        assert not found["forwarding"]["ok"]
        assert "network repair --firewall" in found["forwarding"]["remedy"]
        assert "lets our networks through" in lan.warren("network", "repair").ok().out
        lan.warren("network", "repair", "--firewall").ok()
        assert lan.ask("tcp", FAR, "7000").ok().out == f"far {NEAR}\n"
        found = {one["name"]: one for one in json.loads(lan.warren("doctor", "--format", "json").out)}
        assert found["forwarding"]["ok"]
    finally:
        lan.near("nft", "delete", "table", "ip", "filter")


def test_reset_takes_everything_out_of_the_kernel(lan: Lan) -> None:
    lan.ask("tcp", FAR, "7000").ok()
    assert "warren" in lan.near("nft", "list", "ruleset")
    lan.warren("network", "reset", "-f").ok()
    assert lan.near("nft", "list", "ruleset") == ""
    assert "warren0" not in lan.near("ip", "-br", "link")
    assert lan.near("cat", "/proc/sys/net/ipv4/conf/wt0/forwarding").strip() == "0"
    assert lan.ask("tcp", FAR, "7000").ok().out == f"far {NEAR}\n"
