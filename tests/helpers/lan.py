"""Two hosts of the test's own: one on which Warren runs, and one far away that its packets reach by a wire.

Both are network namespaces; the first has a mount namespace too, in which Warren's state and data are empty.  So real
packets go through a real uplink, and nothing of this machine's network is used or changed.

    near   wt0  203.0.113.1/24   2001:db8:77::1/64      default route by far
    far    wt1  203.0.113.2/24   2001:db8:77::2/64      also 198.51.100.9, 2001:db8:99::9; a name server
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .processes import MARKER
from .warren import PROGRAM, Result, Warren

PEER = Path(__file__).with_name("peer.py").read_text()
PYTHON = "/usr/bin/python3"
NEAR, FAR = "203.0.113.1", "203.0.113.2"
NEAR6, FAR6 = "2001:db8:77::1", "2001:db8:77::2"
ELSEWHERE, ELSEWHERE6 = "198.51.100.9", "2001:db8:99::9"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_NEAR = """
for at in /run /var/lib/warren "$1"; do mkdir -p "$at"; mount -t tmpfs -o mode=755 tmpfs "$at" || exit; done
echo "nameserver 203.0.113.2" >"$1/resolv.conf" && mount --bind "$1/resolv.conf" "$(readlink -f /etc/resolv.conf)"
ip link set lo up && echo ready && exec sleep infinity
"""
_WIRE = """
ip link add wt0 type veth peer name wt1 netns "$1"
ip addr add 203.0.113.1/24 dev wt0; ip addr add 2001:db8:77::1/64 dev wt0 nodad; ip link set wt0 up
ip route add default via 203.0.113.2; ip route add default via 2001:db8:77::2
nsenter -t "$1" -n sh -c '
ip link set lo up; ip addr add 203.0.113.2/24 dev wt1; ip addr add 2001:db8:77::2/64 dev wt1 nodad; ip link set wt1 up
ip addr add 198.51.100.9/32 dev lo; ip addr add 2001:db8:99::9/128 dev lo'
"""
_NAMES = """
import socket, sys
from dnslib import DNSRecord, RR, A, AAAA
zone = {"far.test": ("203.0.113.2", "2001:db8:77::2"), "elsewhere.test": ("198.51.100.9", "2001:db8:99::9"),
        "sub.far.test": ("203.0.113.2", ""), "rebind.test": ("203.0.113.1", "")}
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("203.0.113.2", 53))
print("ready", flush=True)
while True:
    data, client = sock.recvfrom(4096)
    query = DNSRecord.parse(data)
    reply = query.reply()
    v4, v6 = zone.get(str(query.q.qname).rstrip(".").lower(), ("", ""))
    if query.q.qtype == 1 and v4:
        reply.add_answer(RR(query.q.qname, 1, rdata=A(v4), ttl=1))
    elif query.q.qtype == 28 and v6:
        reply.add_answer(RR(query.q.qname, 28, rdata=AAAA(v6), ttl=1))
    elif not v4:
        reply.header.rcode = 3
    sock.sendto(reply.pack(), client)
"""


class Lan:
    """Make it with a directory and the session's token; close() ends all of it."""

    def __init__(self, directory: Path, token: str) -> None:
        self.env = {"PATH": PATH, "HOME": str(directory), MARKER: token}
        self._processes: list[subprocess.Popen[str]] = []
        self.near_pid = self._hold(["unshare", "--mount", "--net", "--propagation", "private"], _NEAR, directory / "x")
        self.far_pid = self._hold(["unshare", "--net"], "echo ready; exec sleep infinity", directory)
        self.near("sh", "-c", _WIRE, "sh", str(self.far_pid))
        self.warren = Warren(self.prefix, self.env)
        python = str(PROGRAM.parent / "python3")
        self.start([*_enter(self.far_pid), python, "-c", _NAMES])
        self.serve_far("far", "tcp:7000", "tcp:7001", "udp:7000")

    @property
    def prefix(self) -> list[str]:
        return ["nsenter", "-t", str(self.near_pid), "-n", "-m", "--"]

    def _hold(self, command: list[str], script: str, directory: Path) -> int:
        return self.start([*command, "sh", "-c", script, "sh", str(directory)]).pid

    def start(self, command: list[str]) -> "subprocess.Popen[str]":
        """Start something that prints "ready" and stays until close()."""
        started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.env)
        self._processes.append(started)
        assert started.stdout and started.stdout.readline() == "ready\n", command
        return started

    def near(self, *command: str, check: bool = True) -> str:
        """Run something on the near host; its output."""
        return self._run([*self.prefix, *command], check)

    def far(self, *command: str, check: bool = True) -> str:
        return self._run([*_enter(self.far_pid), *command], check)

    def _run(self, command: list[str], check: bool) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def serve_far(self, name: str, *places: str) -> None:
        command = [*_enter(self.far_pid), PYTHON, "-c", PEER, "serve", name, *places]
        self._processes.append(subprocess.Popen(command, env=self.env, text=True))
        until(lambda: f":{places[0].partition(':')[2]} " in self.far("ss", "-Hlnt"))

    # ---- containers

    def serve(self, name: str, *options: str, places: tuple[str, ...] = ("tcp:80", "udp:80")) -> None:
        """A container that serves, and does so when this returns."""
        command = [PYTHON, "-c", PEER, "serve", name, *places]
        self.warren("run", "-d", "--name", name, *options, "host", "--", *command).ok()
        pid = self.pid(name)
        port = int(places[-1].partition(":")[2])
        udp = places[-1].startswith("udp")
        until(lambda: f":{port} " in self._run(["nsenter", "-t", pid, "-n", "ss", "-Hln" + "tu"[udp]], True))

    def pid(self, name: str) -> str:
        return self.warren("inspect", name, "--format", "{{.State.Pid}}").ok().out.strip()

    def settings(self, name: str, what: str) -> str:
        return self.warren("inspect", name, "--format", f"{{{{.NetworkSettings.{what}}}}}").ok().out.strip()

    def ask(self, *words: str, options: tuple[str, ...] = ()) -> Result:
        """Ask from a container of its own: PROTOCOL ADDRESS PORT [COUNT [SIZE]]."""
        return self.warren("run", "--rm", *options, "host", "--", PYTHON, "-c", PEER, "ask", *words)

    def ping(self, *addresses: str, options: tuple[str, ...] = ()) -> Result:
        return self.warren("run", "--rm", *options, "host", "--", PYTHON, "-c", PEER, "ping", *addresses)

    def ask_near(self, *words: str) -> str:
        return self.near(PYTHON, "-c", PEER, "ask", *words, check=False).strip()

    def ask_far(self, *words: str) -> str:
        return self.far(PYTHON, "-c", PEER, "ask", *words, check=False).strip()

    def remove(self, *names: str) -> None:
        self.warren("rm", "-f", *names).ok()

    # ---- what is left

    def containers(self) -> list[str]:
        """Ids of all containers."""
        names = self.near("sh", "-c", "ls /var/lib/warren/containers", check=False).split()
        return [name for name in names if name[0] != "."]

    def leftovers(self) -> list[str]:
        """Links, records, leases, ports and elements of containers."""
        found = [line.split()[0] for line in self.near("ip", "-br", "link").splitlines()]
        links = [name for name in found if name.startswith("wr-") and len(name.partition("@")[0]) < 15]
        places = ("containers", "addresses", "ports", "files", "resolvers")
        script = f"cd /run/warren/.networks 2>/dev/null && find {' '.join(places)} -mindepth 1 ! -type d"
        state = self.near("sh", "-c", script, check=False).split()
        return [*links, *state, *self.elements()]

    def elements(self) -> list[str]:
        """Elements of the sets and maps that belong to containers."""
        kept = ("bridges", "pairs", "external", "uplinks", "subnets4", "subnets6")
        found, name = [], ""
        for line in self.near("nft", "list", "ruleset", check=False).splitlines():
            words = line.split()
            if words[:1] in (["set"], ["map"]):
                name = words[1]
            elif "elements" in line and name not in kept:
                found.append(f"{name}: {line.strip()}")
        return found

    def settled(self) -> list[str]:
        """What is left when the kernel has had time to take links away."""
        deadline = time.monotonic() + 40
        while (found := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def stop_last(self) -> None:
        """End what was started last."""
        process = self._processes.pop()
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()

    def close(self) -> None:
        while self._processes:
            self.stop_last()


def _enter(pid: int) -> list[str]:
    return ["nsenter", "-t", str(pid), "-n", "--"]


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
