"""Network devices of the host that a container takes: config-linux.md of 1.3, "Network Devices".

The runtime is started in a network namespace of the test's own, so that the host keeps its devices.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.oci import Bundle, Runtime

from .test_namespaces import holder


class Host:
    """A network namespace that plays the host's."""

    def __init__(self, pid: int) -> None:
        self.path = f"/proc/{pid}/ns/net"

    def __call__(self, *words: str) -> str:
        return subprocess.run(
            ["nsenter", f"--net={self.path}", *words], check=True, capture_output=True, text=True
        ).stdout

    def veth(self, name: str, *addresses: str) -> None:
        """An interface that is up, whose other end is called `peer` with the address 10.9.8.1."""
        self("ip", "link", "add", name, "mtu", "1400", "address", "02:00:00:00:00:07", "type", "veth", "peer", "peer")
        for address in addresses:
            self("ip", "address", "add", *address.split(), "dev", name)
        self("ip", "address", "add", "10.9.8.1/24", "dev", "peer")
        self("ip", "link", "set", name, "up")
        self("ip", "link", "set", "peer", "up")

    def expect(self, interfaces: list[str]) -> None:
        """The kernel tidies up after a namespace in its own time."""
        deadline = time.monotonic() + 10
        while self.interfaces() != interfaces:
            assert time.monotonic() < deadline, self.interfaces()
            time.sleep(0.02)

    def interfaces(self) -> list[str]:
        return [line.split()[1].split("@")[0].rstrip(":") for line in self("ip", "-o", "link").splitlines()]


@pytest.fixture
def host() -> Iterator[Host]:
    require("ip")
    with holder("--net") as pid:
        host = Host(pid)
        host("ip", "link", "set", "lo", "up")
        yield host


@pytest.fixture
def here(oci: Runtime, host: Host, directory: Path) -> Runtime:
    """The runtime, in that namespace."""
    script = directory / "runtime.sh"
    script.write_text(f'#!/bin/sh\nexec nsenter --net={host.path} {oci.program} "$@"\n')
    script.chmod(0o755)
    oci.program = str(script)
    return oci


@pytest.mark.parametrize(
    ("device", "name"),
    [({}, "outer"), ({"name": "inner"}, "inner"), ({"name": "eth%d"}, "eth0")],
    ids=["", "name", "%d"],
)
@pytest.mark.parametrize("maps", [False, True], ids=["", "userns"])
def test_a_device_moves(
    here: Runtime, host: Host, bundle: Bundle, device: dict[str, str], name: str, maps: bool
) -> None:
    """ "The runtime MUST preserve existing network interface attributes, including all permanent IP addresses ... of
    any family with global scope ... The runtime MUST set the network device state to "up" after moving it" """
    host.veth("outer", "10.9.8.7/24 broadcast 10.9.8.99", "fd00::7/64 nodad")
    bundle.linux["netDevices"] = {"outer": device}
    if maps:
        bundle.maps(200000)
    container = here.up(bundle)
    files = [f"/sys/class/net/{name}/mtu", f"/sys/class/net/{name}/address", "/proc/net/if_inet6"]
    answers = container.ask("net", *(f"cat {file}" for file in files))
    assert f"{name} up 10.9.8.7" in answers["net"]
    mtu, address, inet6 = (answers[f"cat {file}"] for file in files)
    assert (mtu, address) == (["1400"], ["02:00:00:00:00:07"])
    assert any(line.startswith("fd00" + "0" * 27 + "7") and line.endswith(name) for line in inet6)
    assert host.interfaces() == ["lo", "peer"]
    assert "1 packets received" in host("busybox", "ping", "-c", "1", "-W", "5", "10.9.8.7")
    container.delete("--force").ok()
    host.expect(["lo"])  # A veth ends with the namespace that it is in.


def test_other_addresses_stay_behind(here: Runtime, host: Host, bundle: Bundle) -> None:
    """ "This ensures that only addresses intended for persistent, external communication are transferred." """
    host.veth("outer", "169.254.9.9/16 scope link", "10.9.8.8/24 valid_lft 1000 preferred_lft 1000")
    bundle.linux["netDevices"] = {"outer": {}}
    assert "outer up -" in here.ask(bundle, "net")["net"]


def test_several_devices_keep_apart(here: Runtime, host: Host, bundle: Bundle) -> None:
    """ "the kernel will generate a unique name for the interface within the container's network namespace" """
    for index in range(3):
        host("ip", "link", "add", f"d{index}", "type", "veth", "peer", f"p{index}")
    bundle.linux["netDevices"] = {f"d{index}": {"name": "eth%d"} for index in range(3)}
    assert [line.split()[0] for line in here.ask(bundle, "net")["net"]] == ["lo", "eth0", "eth1", "eth2"]


def test_a_device_is_there_for_hooks_and_sysctls(here: Runtime, host: Host, bundle: Bundle, directory: Path) -> None:
    """ "createRuntime ... The runtime environment has been created": its interfaces are part of it."""
    host.veth("outer")
    bundle.linux["netDevices"] = {"outer": {"name": "inner"}}
    bundle.linux["sysctl"] = {"net.ipv4.conf.inner.forwarding": "1"}
    log = directory / "log"
    look = f"""nsenter --net=/proc/$(sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p' | head -1)/ns/net ip -o link >{log}"""
    bundle.config["hooks"] = {
        "createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", look], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
        ]
    }
    assert here.ask(bundle, "sysctl net.ipv4.conf.inner.forwarding").one("sysctl net.ipv4.conf.inner.forwarding") == "1"
    assert "inner" in log.read_text()


def test_a_name_that_is_taken_is_an_error(here: Runtime, host: Host, bundle: Bundle) -> None:
    """ "If a network device with the specified name already exists in the container namespace, the runtime MUST
    generate an error"; the device stays where it is."""
    host.veth("outer")
    with holder("--net") as pid:
        bundle.unshares("network", f"/proc/{pid}/ns/net")
        bundle.linux["netDevices"] = {"outer": {"name": "lo"}}
        here.refuses(bundle, "outer", "exists")
    assert "outer" in host.interfaces()


@pytest.mark.parametrize("name", ["nosuch", "lo"])
def test_a_device_that_cannot_move_is_an_error(here: Runtime, bundle: Bundle, name: str) -> None:
    """ "The runtime MUST check if moving the network interface to the container namespace is possible." """
    bundle.linux["netDevices"] = {name: {"name": "other"}}
    here.refuses(bundle, name)


@pytest.mark.parametrize("name", ["", ".", "a/b", "a b", "x" * 16])
def test_names_that_no_device_can_have_are_errors(here: Runtime, host: Host, bundle: Bundle, name: str) -> None:
    host.veth("outer")
    bundle.linux["netDevices"] = {"outer": {"name": name}} if name else {"": {}}
    here.refuses(bundle)
    assert "outer" in host.interfaces()


def test_devices_need_a_network_namespace(here: Runtime, bundle: Bundle) -> None:
    """In the runtime's own namespace there is nowhere to move them to."""
    bundle.shares("network").linux["netDevices"] = {"lo": {}}
    here.refuses(bundle, "network")
