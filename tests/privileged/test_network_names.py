"""Names: /etc/hosts, resolv.conf, the resolver of a network; and egress rules, by name and by address."""

import json

import pytest

from tests.helpers.lan import ELSEWHERE, FAR, FAR6, NEAR, Lan, until

DIG = ("dig", "+short", "+time=2", "+tries=1")


def inside(lan: Lan, *command: str, options: tuple[str, ...] = ()) -> str:
    return lan.warren("run", "--rm", *options, "host", "--", *command).ok().out


def test_hosts_name_the_container_and_what_is_added(lan: Lan) -> None:
    options = ("--hostname", "box", "--name", "bx", "--add-host", "db:192.0.2.9", "--add-host", "gw:host-gateway")
    lines = [line.split() for line in inside(lan, "cat", "/etc/hosts", options=options).splitlines()]
    known = {name: line[0] for line in lines for name in line[1:]}
    assert known["db"] == "192.0.2.9"
    gateway = json.loads(lan.warren("network", "inspect", "bridge").ok().out)[0]["IPAM"]["Config"][0]["Gateway"]
    assert known["gw"] == known["host.docker.internal"] == gateway
    assert known["box"] == known["bx"] != gateway
    assert known["localhost"] in ("127.0.0.1", "::1")
    assert inside(lan, "cat", "/etc/hostname", options=options) == "box\n"


def test_the_containers_files_are_its_own(lan: Lan) -> None:
    """It may write to them, and the host's stay as they are."""
    before = open("/etc/hosts").read()
    assert inside(lan, "sh", "-c", "echo 192.0.2.1 mine >>/etc/hosts && getent hosts mine").split()[0] == "192.0.2.1"
    assert open("/etc/hosts").read() == before


def test_resolv_conf_is_the_hosts_or_what_is_asked_for(lan: Lan) -> None:
    assert inside(lan, "cat", "/etc/resolv.conf") == f"nameserver {FAR}\n"
    options = ("--dns", "192.0.2.53", "--dns", "2001:db8::53", "--dns-search", "a.test", "--dns-option", "ndots:3")
    assert inside(lan, "cat", "/etc/resolv.conf", options=options).splitlines() == [
        "search a.test", "nameserver 192.0.2.53", "nameserver 2001:db8::53", "options ndots:3",
    ]  # fmt: skip


def test_names_of_the_world_through_the_hosts_servers(lan: Lan) -> None:
    assert inside(lan, *DIG, "far.test") == f"{FAR}\n"
    lan.warren("network", "create", "tn1").ok()
    assert inside(lan, *DIG, "far.test", options=("--network", "tn1")) == f"{FAR}\n"
    assert inside(lan, *DIG, "AAAA", "far.test", options=("--network", "tn1")) == f"{FAR6}\n"
    assert "NXDOMAIN" in inside(lan, "dig", "nothing.test", options=("--network", "tn1"))
    assert inside(lan, *DIG, "far.test", options=("--network", "tn1", "--dns", FAR)) == f"{FAR}\n"


def test_the_resolver_knows_containers_both_ways(lan: Lan) -> None:
    lan.warren("network", "create", "--ipv6", "tn1").ok()
    lan.serve("web", "--network", "tn1")
    options = ("--network", "tn1")
    assert inside(lan, *DIG, "web", options=options).strip() == lan.settings("web", "IPAddress")
    assert inside(lan, *DIG, "WEB", "AAAA", options=options).strip() == lan.settings("web", "GlobalIPv6Address")
    assert inside(lan, *DIG, "+tcp", "web", options=options).strip() == lan.settings("web", "IPAddress")
    assert inside(lan, *DIG, "-x", lan.settings("web", "IPAddress"), options=options) == "web.\n"
    lan.remove("web")
    assert inside(lan, *DIG, "web", options=options).strip() in ("", FAR)


def resolvers(lan: Lan) -> list[str]:
    found = lan.near("pgrep", "-f", f"runtime.network.resolver.* {lan_root()} ", check=False).split()
    return [
        pid for pid in found if lan.near("readlink", f"/proc/{pid}/ns/net") == lan.near("readlink", "/proc/self/ns/net")
    ]


def lan_root() -> str:
    return "/run/warren"


def test_the_resolver_lives_as_long_as_the_networks_containers(lan: Lan) -> None:
    lan.warren("network", "create", "tn1").ok()
    assert resolvers(lan) == []
    lan.serve("one", "--network", "tn1")
    (pid,) = resolvers(lan)
    lan.serve("two", "--network", "tn1")
    assert resolvers(lan) == [pid]
    lan.remove("one")
    assert resolvers(lan) == [pid]
    lan.remove("two")
    assert resolvers(lan) == []


def test_a_killed_resolver_comes_back_with_the_next_container(lan: Lan) -> None:
    lan.warren("network", "create", "tn1").ok()
    lan.serve("web", "--network", "tn1")
    lan.near("kill", "-9", *resolvers(lan))
    until(lambda: not resolvers(lan))
    assert lan.ask("tcp", "web", "80", options=("--network", "tn1")).ok().out.startswith("web ")


def test_a_container_may_be_a_name_server(lan: Lan) -> None:
    """Published port 53 is neither in the resolver's way nor the resolver in its."""
    lan.warren("network", "create", "tn1").ok()
    lan.serve("dns", "--network", "tn1", "-p", "53:80/udp")
    assert lan.ask_far("udp", NEAR, "53") == f"dns {FAR}"
    assert lan.ask("udp", "dns", "80", options=("--network", "tn1")).ok().out.startswith("dns ")


def test_a_network_without_dns(lan: Lan) -> None:
    lan.warren("network", "create", "--disable-dns", "plain").ok()
    lan.serve("web", "--network", "plain")
    assert resolvers(lan) == []
    assert lan.ask("tcp", "web", "80", options=("--network", "plain")).code == 1
    assert inside(lan, *DIG, "far.test", options=("--network", "plain")) == f"{FAR}\n"


# ---- egress


def denied(lan: Lan, name: str) -> "tuple[int, list[str]]":
    found = json.loads(lan.warren("inspect", name).ok().out)[0]["NetworkSettings"]["Egress"]
    return found["DeniedPackets"], found["DeniedNames"]


def from_inside(lan: Lan, name: str, *words: str) -> str:
    """Ask from a container that runs, by way of its network namespace."""
    from tests.helpers.lan import PEER, PYTHON

    enter = ("nsenter", "-t", lan.pid(name), "-n", PYTHON, "-c", PEER, "ask")
    return lan.near(*enter, *words, check=False).strip()


def resolves(lan: Lan, name: str, *words: str) -> str:
    server = json.loads(lan.warren("inspect", name).ok().out)[0]["NetworkSettings"]["Gateway"]
    return lan.near("nsenter", "-t", lan.pid(name), "-n", *DIG, f"@{server}", *words, check=False).strip()


def test_egress_none_reaches_nothing_and_is_reached(lan: Lan) -> None:
    lan.serve("web", "--egress", "none", "-p", "8080:80")
    lan.serve("other")
    assert from_inside(lan, "web", "tcp", FAR, "7000") == ""
    assert from_inside(lan, "web", "tcp", lan.settings("other", "IPAddress"), "80") == "", "a neighbour on the bridge"
    assert from_inside(lan, "web", "udp", lan.settings("other", "IPAddress"), "80") == ""
    assert lan.ask_far("tcp", NEAR, "8080") == f"web {FAR}", "answers are no way out"
    assert lan.ask("tcp", lan.settings("web", "IPAddress"), "80").ok().out.startswith("web ")
    packets, names = denied(lan, "web")
    assert packets >= 3
    assert names == []
    assert from_inside(lan, "other", "tcp", FAR, "7000") == f"far {NEAR}", "others are not restricted"


def test_egress_by_address_and_port(lan: Lan) -> None:
    lan.serve("web", "--egress", f"{FAR}:7000/tcp,198.51.100.0/24", "--egress", f"{FAR}/32:7000-7000")
    assert from_inside(lan, "web", "tcp", FAR, "7000") == f"far {NEAR}"
    assert from_inside(lan, "web", "tcp", FAR, "7001") == ""
    assert from_inside(lan, "web", "udp", FAR, "7000") == f"far {NEAR}", "the second rule is for both protocols"
    assert from_inside(lan, "web", "tcp", ELSEWHERE, "7001") == f"far {NEAR}"
    assert denied(lan, "web")[0] >= 1


def test_egress_of_ipv6(lan: Lan) -> None:
    lan.warren("network", "create", "--ipv6", "six").ok()
    lan.serve("web", "--network", "six", "--egress", f"[{FAR6}]:7000")
    lan.serve("other", "--network", "six")
    assert from_inside(lan, "web", "tcp", FAR6, "7000").startswith("far ")
    assert from_inside(lan, "web", "tcp", FAR6, "7001") == ""
    assert from_inside(lan, "web", "tcp", lan.settings("other", "GlobalIPv6Address"), "80") == ""
    assert from_inside(lan, "web", "tcp", FAR, "7000") == "", "IPv4 is not allowed by it"
    assert denied(lan, "web")[0] >= 3


def test_egress_by_name(lan: Lan) -> None:
    lan.serve("web", "--egress", "far.test:7000")
    assert from_inside(lan, "web", "tcp", FAR, "7000") == "", "not before somebody has asked for the name"
    assert resolves(lan, "web", "far.test") == FAR
    assert from_inside(lan, "web", "tcp", FAR, "7000") == f"far {NEAR}"
    assert from_inside(lan, "web", "tcp", FAR, "7001") == ""
    assert resolves(lan, "web", "elsewhere.test") == ""
    assert resolves(lan, "web", "sub.far.test") == ""
    assert denied(lan, "web")[1] == ["elsewhere.test", "sub.far.test"]


def test_egress_by_wildcard_on_a_network_of_its_own(lan: Lan) -> None:
    lan.warren("network", "create", "tn1").ok()
    lan.serve("peer", "--network", "tn1")
    lan.serve("web", "--network", "tn1", "--egress", "*.far.test")
    assert resolves(lan, "web", "far.test") == ""
    assert resolves(lan, "web", "sub.far.test") == FAR
    assert from_inside(lan, "web", "tcp", FAR, "7001") == f"far {NEAR}"
    assert resolves(lan, "web", "peer") == lan.settings("peer", "IPAddress"), "a neighbour's name is told"
    assert from_inside(lan, "web", "tcp", lan.settings("peer", "IPAddress"), "80") == "", "and no way opened"


def test_a_name_never_opens_the_way_to_the_host(lan: Lan) -> None:
    """Whoever owns the name answers what he likes."""
    lan.serve("web", "--egress", "rebind.test")
    assert resolves(lan, "web", "rebind.test") == NEAR
    assert not any(NEAR in line for line in lan.elements())


def test_other_name_servers_are_no_way_out(lan: Lan) -> None:
    lan.serve("web", "--egress", "far.test:7000", "--dns", FAR)
    assert lan.near("nsenter", "-t", lan.pid("web"), "-n", *DIG, f"@{FAR}", "far.test", check=False).strip() in (
        "", ";; communications error to 203.0.113.2#53: timed out\n;; no servers could be reached",
    )  # fmt: skip
    assert resolves(lan, "web", "far.test") == FAR


def test_another_source_address_is_no_way_around(lan: Lan) -> None:
    """A container that may change its addresses sends nothing from those that are not its own."""
    lan.serve("web", "--egress", "none", "--cap-add", "NET_ADMIN")
    lan.serve("other")
    address = lan.settings("web", "IPAddress")
    enter = ("nsenter", "-t", lan.pid("web"), "-n", "--")
    prefix, _, last = address.rpartition(".")
    spare = f"{prefix}.{int(last) % 250 + 1}"
    lan.near(*enter, "ip", "addr", "del", f"{address}/20", "dev", "eth0")
    lan.near(*enter, "ip", "addr", "add", f"{spare}/20", "dev", "eth0")
    gateway = json.loads(lan.warren("inspect", "web").ok().out)[0]["NetworkSettings"]["Gateway"]
    lan.near(*enter, "ip", "route", "replace", "default", "via", gateway)
    assert from_inside(lan, "web", "tcp", FAR, "7000") == ""
    lan.near("nft", "flush", "chain", "bridge", "warren", "guard")
    assert from_inside(lan, "web", "tcp", FAR, "7000") == f"far {NEAR}", "the test would see it"
    lan.warren("network", "repair").ok()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("none,far.test", "more than that"), ("far.test:0", "no port"), ("far.test:1-2000", "2000 ports of a name"),
        ("10.0.0.0/33", "no length"), ("far..test", "malformed"), ("10.0.0", "neither"), ("", "malformed"),
        ("far.test:80/icmp", "unknown protocol"), ("[::1", "malformed"), ("far.test:99999", "no port"),
    ],
)  # fmt: skip
def test_what_is_no_egress_rule(lan: Lan, text: str, problem: str) -> None:
    lan.warren("run", "--rm", "--egress", text, "host", "--", "true").fails(125, problem)


def test_what_was_denied_is_an_event_when_the_container_ends(lan: Lan) -> None:
    lan.serve("web", "--egress", "far.test")
    assert resolves(lan, "web", "elsewhere.test") == ""
    assert from_inside(lan, "web", "tcp", ELSEWHERE, "7000") == ""
    lan.remove("web")
    events = [json.loads(line) for line in lan.near("cat", "/run/warren/.events").splitlines()]
    (found,) = [one["Actor"]["Attributes"] for one in events if one["Action"] == "egress-denied"][-1:]
    assert found["name"] == "web"
    assert int(found["packets"]) >= 1
    assert found["names"] == "elsewhere.test"


def test_egress_survives_a_flush(lan: Lan) -> None:
    lan.serve("web", "--egress", "none")
    lan.near("nft", "flush", "ruleset")
    lan.warren("network", "repair").ok()
    assert from_inside(lan, "web", "tcp", FAR, "7000") == ""
