"""Networks without a kernel: ports and egress rules as words, addresses, names of links, files of names."""

import ipaddress
import random
from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.network import definitions, egress, links, names, ports, rules
from runtime.network.attachment import link_local, split_word
from runtime.network.definitions import Network, Subnet
from runtime.network.leases import Leases


def spelled(text: str) -> list[str]:
    return [
        f"{one.protocol} {one.host_ip or '*'} {one.host_port}-{one.last} {one.container_port}"
        for one in ports.parse([text])
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ["tcp * 0-0 80"]),
        ("8080:80", ["tcp * 8080-8080 80"]),
        ("8080:80/udp", ["udp * 8080-8080 80"]),
        ("8080:80/SCTP", ["sctp * 8080-8080 80"]),
        ("127.0.0.1:8080:80", ["tcp 127.0.0.1 8080-8080 80"]),
        ("127.0.0.1::80", ["tcp 127.0.0.1 0-0 80"]),
        ("[::1]:8080:80", ["tcp ::1 8080-8080 80"]),
        ("[2001:db8::1]::80", ["tcp 2001:db8::1 0-0 80"]),
        ("0:80", ["tcp * 0-0 80"]),
        ("8000-8001:80-81", ["tcp * 8000-8000 80", "tcp * 8001-8001 81"]),
        ("80-81", ["tcp * 0-0 80", "tcp * 0-0 81"]),
        ("9000-9010:80", ["tcp * 9000-9010 80"]),
    ],
)
def test_published_ports(text: str, expected: list[str]) -> None:
    assert spelled(text) == expected


def test_docker_s_way_to_tell_of_ports() -> None:
    told = ports.docker_json(
        [ports.Port("tcp", "", 8080, 80).to_json(), ports.Port("udp", "::", 53, 53).to_json()], v6=True
    )
    assert told == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "::", "HostPort": "53"}],
    }


def covered(texts: list[str], size: int) -> list[tuple[int, int, tuple[int, int], tuple[int, int]]]:
    spans = [(*egress._ends(rule.subnet), rule) for rule in egress.parse(texts) or [] if rule.subnet]
    return list(egress._disjoint([(first, last, rule) for first, last, length, rule in spans if length == size]))


@pytest.mark.parametrize("seed", range(40))
def test_boxes_of_egress_cover_exactly_the_rules_and_do_not_overlap(seed: int) -> None:
    """The kernel refuses intervals that overlap; whatever people write, the same packets are allowed."""
    chance = random.Random(seed)
    texts = []
    for _ in range(chance.randrange(1, 7)):
        subnet = f"10.0.{chance.randrange(4)}.{chance.randrange(8) * 32}/{chance.choice((22, 24, 27, 32))}"
        low = chance.randrange(1, 6)
        port = chance.choice(("", f":{low}", f":{low}-{low + chance.randrange(3)}/tcp", f":{low}/udp"))
        texts.append(subnet + port)
    boxes = covered(texts, 4)
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = any(
                a[1] < b[0] or b[1] < a[0] for a, b in ((one[:2], other[:2]), (one[2], other[2]), (one[3], other[3]))
            )
            assert apart, (texts, one, other)
    for _ in range(300):
        address = int(ipaddress.IPv4Address(f"10.0.{chance.randrange(5)}.{chance.randrange(256)}"))
        protocol, port = chance.choice((6, 17, 1)), chance.randrange(0, 9)
        wanted = any(
            ipaddress.IPv4Address(address) in ipaddress.ip_network(rule.subnet)
            and (not rule.protocols or (protocol in rule.protocols and rule.ports[0] <= port <= rule.ports[1]))
            for rule in egress.parse(texts) or []
        )
        got = any(
            first <= address <= last and protocols[0] <= protocol <= protocols[1] and span[0] <= port <= span[1]
            for first, last, protocols, span in boxes
        )
        assert got == wanted, (texts, ipaddress.IPv4Address(address), protocol, port)


def test_names_of_egress() -> None:
    plain, star = egress.parse(["Example.org.:443,*.example.org"]) or []
    assert plain.matches("example.org")
    assert not plain.matches("www.example.org")
    assert star.matches("a.b.example.org")
    assert not star.matches("example.org")
    assert not star.matches("badexample.org")
    assert (plain.ports, plain.protocols, star.protocols) == ((443, 443), (6, 17), ())


def test_no_egress_option_restricts_nothing_and_none_everything() -> None:
    assert egress.parse([]) is None
    assert egress.parse(["none"]) == []


def test_links_are_named_by_the_id_alone() -> None:
    assert links.host_name("abc", 0) == links.host_name("abc", 0) != links.host_name("abd", 0)
    assert all(len(links.host_name("x" * 1000, number)) <= links.NAME_LENGTH for number in range(16))
    first = int(links.mac_address("x")[:2], 16)
    assert first & 2
    assert not first & 1


def test_the_address_of_the_link_follows_from_the_mac() -> None:
    assert link_local("02:11:22:33:44:55") == "fe80::11:22ff:fe33:4455"


def test_a_network_s_word() -> None:
    assert split_word("tn1:ip=10.0.0.2,alias=a,alias=b") == ("tn1", {"ip": ["10.0.0.2"], "alias": ["a", "b"]})
    for word in ("tn1:ip", "tn1:what=1", "tn1:interface_name=a/b", "tn1:interface_name=lo"):
        with pytest.raises(UsageError):
            split_word(word)


def test_definitions_survive_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "directory", lambda: str(tmp_path / "a/networks"))
    network = Network("tn1", id="ab" * 32, bridge="wr-x", subnets=[Subnet("10.9.0.0/24", "10.9.0.1")], icc=False)
    definitions.save(network)
    (tmp_path / "a/networks/bad.json").write_text("{")
    (tmp_path / "a/networks/.tmp.json").write_text("")
    assert [one.to_json() for one in definitions.load_all()] == [network.to_json()]
    assert definitions.load("abab").name == definitions.load("tn1").name == "tn1"


def test_addresses_are_given_once_and_never_the_gateway_s(tmp_path: Path) -> None:
    network, subnet = Network("tn1"), Subnet("10.9.0.0/28", "10.9.0.1")
    with Leases(str(tmp_path / "root")) as leases:
        found = {leases.claim(network, subnet, f"c{number}") for number in range(13)}
        assert found == {f"10.9.0.{number}" for number in range(2, 15)}
        with pytest.raises(UsageError, match="all 14 addresses"):
            leases.claim(network, subnet, "late")
        leases.unclaim("tn1", "10.9.0.7")
        assert leases.claim(network, subnet, "late") == "10.9.0.7"
        assert sorted(holder for _, _, holder in leases.claims())[-1] == "late"


def test_a_range_keeps_leases_within_it(tmp_path: Path) -> None:
    network, subnet = Network("tn1"), Subnet("fd00::/64", "fd00::1", "fd00::ff00/126")
    with Leases(str(tmp_path / "root")) as leases:
        found = {leases.claim(network, subnet, f"c{number}") for number in range(4)}
    assert found == {f"fd00::ff0{number}" for number in range(4)}


def test_bounds_of_an_interval_at_the_end_of_all_addresses() -> None:
    assert rules._bounds("255.255.255.0/24") == (b"\xff\xff\xff\0", bytes(4))
    assert rules._bounds("10.9.0.0/24") == (bytes((10, 9, 0, 0)), bytes((10, 9, 1, 0)))


def test_hosts() -> None:
    text = names.hosts(["10.9.0.2"], ["box", "bx"], names.added_hosts(["db=10.9.0.3", "six:[fd00::3]"], ""), "10.9.0.1")
    lines = [line.split() for line in text.splitlines()]
    assert ["10.9.0.2", "box", "bx"] in lines
    assert ["10.9.0.3", "db"] in lines
    assert ["fd00::3", "six"] in lines
    for bad in ("x", "x:", "a b:10.0.0.1", "x:host-gateway", "x:10.0.0.1\n10.0.0.2 y"):
        with pytest.raises(UsageError):
            names.added_hosts([bad], "")
