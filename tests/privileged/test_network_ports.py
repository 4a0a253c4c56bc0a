"""Published ports with real packets: from the host, from its loopback, from outside and between containers."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.helpers.lan import FAR, FAR6, NEAR, NEAR6, PYTHON, Lan, until


def test_a_port_is_reached_from_everywhere(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80", "-p", "8080:80/udp")
    for protocol in ("tcp", "udp"):
        assert lan.ask_far(protocol, NEAR, "8080") == f"web {FAR}", "the client's address is seen"
        assert lan.ask_near(protocol, NEAR, "8080").startswith("web ")
        assert lan.ask_near(protocol, "127.0.0.1", "8080").startswith("web ")
        assert lan.ask(protocol, NEAR, "8080").ok().out.startswith("web "), "from another container"
    assert lan.warren("port", "web").ok().out.splitlines() == ["80/tcp -> 0.0.0.0:8080", "80/udp -> 0.0.0.0:8080"]
    assert lan.warren("port", "web", "80/udp").ok().out == "0.0.0.0:8080\n"
    lan.warren("port", "web", "81").fails(1, "no public port")


def test_a_container_reaches_itself_by_its_published_port(lan: Lan) -> None:
    """Hairpin: what it sends comes back to it by way of the host."""
    lan.serve("web", "-p", "8080:80")
    ask = ("nsenter", "-t", lan.pid("web"), "-n", PYTHON, "-c")
    code = f"import socket; print(socket.create_connection(('{NEAR}', 8080), 3).recv(99).decode())"
    assert lan.near(*ask, code).startswith("web ")


def test_published_for_other_networks_too(lan: Lan) -> None:
    for name in ("tn1", "tn2"):
        lan.warren("network", "create", name).ok()
    lan.serve("web", "--network", "tn1", "-p", "8080:80")
    assert lan.ask("tcp", NEAR, "8080", options=("--network", "tn2")).ok().out.startswith("web ")


def test_ipv6_ports(lan: Lan) -> None:
    lan.warren("network", "create", "--ipv6", "six").ok()
    lan.serve("web", "--network", "six", "-p", "8080:80", "-p", f"[{NEAR6}]:8081:80", "-p", "[::]:8082:80/udp")
    assert lan.ask_far("tcp", NEAR6, "8080") == f"web {FAR6}"
    assert lan.ask_far("tcp", NEAR, "8080") == f"web {FAR}"
    assert lan.ask_near("tcp", NEAR6, "8081").startswith("web ")
    assert lan.ask_far("udp", NEAR6, "8082") == f"web {FAR6}"
    assert "[::]:8080" in lan.warren("port", "web").ok().out
    options = ("run", "--rm", "--network", "six", "host", "--", "true")
    lan.warren(*options[:2], "-p", "[::1]:8083:80", *options[2:]).fails(125, "::1", "127.0.0.1")
    lan.warren("run", "--rm", "-p", "[::]:8084:80", "host", "--", "true").fails(125, "no IPv6 address", "--ipv6")


def test_an_address_restricts_who_reaches_the_port(lan: Lan) -> None:
    lan.serve("web", "-p", "127.0.0.1:8080:80", "-p", f"{NEAR}:8081:80")
    assert lan.ask_near("tcp", "127.0.0.1", "8080").startswith("web ")
    assert lan.ask_far("tcp", NEAR, "8080") == ""
    assert lan.ask_far("tcp", NEAR, "8081") == f"web {FAR}"
    assert lan.ask_near("tcp", "127.0.0.1", "8081") == ""


def test_a_neighbour_does_not_reach_what_is_for_the_loopback(lan: Lan) -> None:
    """He can send to 127.0.0.1 by the wire; the destination would be the container's before the kernel looks at it."""
    lan.serve("web", "-p", "127.0.0.1:8080:80")
    lan.far("sh", "-c", "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip route add 127.0.0.7/32 via 203.0.113.1")
    try:
        lan.far("ip", "addr", "flush", "dev", "lo", "scope", "host")
        assert lan.ask_far("tcp", "127.0.0.7", "8080") == ""
    finally:
        lan.far("sh", "-c", "ip route del 127.0.0.7/32; ip addr add 127.0.0.1/8 dev lo")


def test_ranges_and_random_ports(lan: Lan) -> None:
    places = tuple(f"tcp:{port}" for port in (80, 81, 82))
    lan.serve("web", "-p", "8080-8082:80-82", "-p", "80", "-p", "127.0.0.1::81", "-p", "9000-9010:82", places=places)
    for port in range(8080, 8083):
        assert lan.ask_far("tcp", NEAR, str(port)) == f"web {FAR}"
    lines = dict(line.split(" -> ")[::-1] for line in lan.warren("port", "web").ok().out.splitlines())
    chosen = [place for place in lines if place.rpartition(":")[2] not in ("8080", "8081", "8082")]
    assert len(chosen) == 3
    assert "0.0.0.0:9000" in chosen
    for place in chosen:
        host, _, port = place.rpartition(":")
        assert lan.ask_near("tcp", "127.0.0.1" if host == "127.0.0.1" else NEAR, port).startswith("web ")


def test_publish_all_takes_what_is_exposed(lan: Lan) -> None:
    lan.serve("web", "-P", "--expose", "80", "--expose", "80/udp")
    for protocol in ("tcp", "udp"):
        _, _, port = lan.warren("port", "web", f"80/{protocol}").ok().out.strip().rpartition(":")
        assert lan.ask_far(protocol, NEAR, port) == f"web {FAR}"


def test_sctp_is_led_on_as_well(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80/sctp")
    assert any("sctp . 8080" in line for line in lan.elements())


@contextmanager
def listening(lan: Lan, address: str, port: int, kind: str = "SOCK_STREAM") -> Iterator[None]:
    code = (
        f"import socket,time; s=socket.socket(socket.AF_INET, socket.{kind}); s.bind(('{address}', {port}))\n"
        "if s.type == 1: s.listen()\nprint('ready', flush=True); time.sleep(99)"
    )
    lan.start([*lan.prefix, PYTHON, "-c", code])
    yield
    lan.stop_last()


def test_a_port_that_is_in_use_is_an_error_before_anything_starts(lan: Lan) -> None:
    with listening(lan, "0.0.0.0", 8090):
        for place in ("8090:80", "127.0.0.1:8090:80", f"{NEAR}:8090:80"):
            lan.warren("run", "-p", place, "host", "--", "true").fails(125, "8090/tcp is in use")
        lan.warren("run", "--rm", "-p", "8090:80/udp", "host", "--", "true").ok()
    with listening(lan, "127.0.0.1", 8091, "SOCK_DGRAM"):
        lan.warren("run", "-p", "127.0.0.1:8091:80/udp", "host", "--", "true").fails(125, "8091/udp is in use")
    lan.warren("run", "-p", "198.51.100.77:80:80", "host", "--", "true").fails(125, "no address of this host")


def test_two_containers_do_not_get_the_same_port(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80", "-p", f"{NEAR}:8081:80")
    lan.warren("run", "-p", "8080:80", "host", "--", "true").fails(125, "published by another container")
    lan.warren("run", "-p", "127.0.0.1:8080:80", "host", "--", "true").fails(125, "another container")
    lan.warren("run", "--rm", "-p", "127.0.0.1:8081:80", "host", "--", "true").ok()
    lan.remove("web")
    lan.warren("run", "--rm", "-p", "8080:80", "host", "--", "true").ok()


def test_a_hundred_connections_at_once(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80", "-p", "8080:80/udp")
    for protocol in ("tcp", "udp"):
        answers = lan.ask_far(protocol, NEAR, "8080", "100", "1000").splitlines()
        assert answers == [f"web {FAR}"] * 100
    assert lan.ask("tcp", NEAR, "8080", "100", "10000").ok().out.count("web ") == 100


def test_a_published_port_survives_a_restart_with_another_address(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80")
    lan.warren("restart", "-t", "0", "web").ok()
    until(lambda: lan.ask_far("tcp", NEAR, "8080") == f"web {FAR}")


def test_any_user_may_serve_a_low_port(lan: Lan) -> None:
    lan.serve("web", "-p", "8080:80", "--user", "1000:1000", "--cap-drop", "ALL")
    assert lan.ask_far("tcp", NEAR, "8080") == f"web {FAR}"
    shown = lan.warren("run", "--rm", "--sysctl", "net.ipv4.ip_unprivileged_port_start=100", "host", "--",
                       "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").ok().out  # fmt: skip
    assert shown == "100\n"


ONE_SOCKET = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 20777))
sock.settimeout(0.2)
for _ in range(int(sys.argv[1])):
    sock.sendto(b"x", ("203.0.113.1", 8088))
    try:
        print(sock.recv(99).split()[0].decode())
        break
    except OSError:
        time.sleep(0.05)
"""


def test_a_udp_client_that_was_there_before_is_led_to_the_container(lan: Lan) -> None:
    """It sends from one port all the time, of which connection tracking remembers where it went."""
    ask = (PYTHON, "-c", ONE_SOCKET)
    assert lan.far(*ask, "3") == ""
    for name in ("one", "two"):
        lan.serve(name, "-p", "8088:80/udp")
        assert lan.far(*ask, "10") == f"{name}\n"
        lan.remove(name)
        assert lan.far(*ask, "2") == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0:80x", "no port"), ("80:99999", "no port"), ("80/icmp", "unknown protocol"), ("1.2.3:80:80", "no IP"),
        ("8080-8081:80-83", "different length"), ("8081-8080:80", "no range"), ("[::1:80:80", "malformed"),
        ("1:2:3:4", "malformed"), ("", "no port"), (":", "no port"), ("80:0", "no range"),
    ],
)  # fmt: skip
def test_what_is_no_port(lan: Lan, text: str, problem: str) -> None:
    lan.warren("run", "--rm", "-p", text, "host", "--", "true").fails(125, problem)
