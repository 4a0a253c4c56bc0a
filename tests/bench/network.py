"""`python3 -m tests.bench.network [--rounds N]`: what a network costs a launch, and what goes through it, beside podman
(netavark) and docker.

All work in namespaces of their own, on one image of busybox; who comes first changes from round to round.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import processes
from tests.helpers.daemons import IMAGE, Docker, Room, make_image
from tests.helpers.engines import Podman

from . import figures, report
from .figures import Target

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/benchmarks.md"
BEGIN = "<!-- `make bench-network` writes from here -->"
WARREN = ROOT / ".venv/bin/warren"
ROUNDS, SECONDS, TRANSFERS = 20, 2, 5
PORT = 20990
NONE, BRIDGE, PUBLISHED = "none", "bridge", "bridge, one port"
SHARE_BOUND = Target(5.0)
SHARE_RATIO = Target(0.05)
RUN_RATIO = Target(0.2)
THROUGHPUT = Target(0.95, at_least=True)

Words = list[str | Path]
Samples = dict[tuple[str, str], list[float]]
"""Who and how: milliseconds."""


def flags(how: str, port: int) -> list[str]:
    return {
        NONE: ["--network=none"],
        BRIDGE: ["--network=bridge"],
        PUBLISHED: ["--network=bridge", "--publish", f"{port}:80"],
    }[how]


class Contender:
    """Somebody who runs containers in a room."""

    def __init__(self, name: str, room: Room, words: Words, more: list[str]) -> None:
        self.name, self.room, self._words, self._more = name, room, words, more

    def run(self, *flags: str, command: tuple[str, ...] = ("true",)) -> Words:
        return [*self._words, "run", *self._more, *flags, IMAGE, *command]

    def time(self, how: str) -> float:
        words = self.run("--rm", *flags(how, PORT))
        begun = time.perf_counter()
        self.room(*words).ok()
        return (time.perf_counter() - begun) * 1000


def launches(contenders: list[Contender], rounds: int) -> Samples:
    found: Samples = {}
    for number in range(-1, rounds):
        for one in contenders[:: -1 if number % 2 else 1]:
            for how in (NONE, BRIDGE, PUBLISHED)[:: -1 if number % 2 else 1]:
                value = one.time(how)
                if number >= 0:  # The first round makes networks.
                    found.setdefault((one.name, how), []).append(value)
    return found


# ---- throughput


LIBRARIES = [word for path in ("/usr", "/lib", "/lib64") if Path(path).exists() for word in ("-v", f"{path}:{path}:ro")]


def transfer(one: Contender, where: str) -> float:
    """Gbit/s from a container to the host, or to another container."""
    if where == "host":
        one.room("sh", "-c", f"iperf3 -s -1 -D -p {PORT}").ok()
        return _client(one, "host.containers.internal")
    name = f"peer{time.monotonic_ns()}"
    server = one.run(
        "-d", "--name", name, "--network=bridge", *LIBRARIES, command=("/usr/bin/iperf3", "-s", "-1", "-p", str(PORT))
    )
    one.room(*server).ok()
    found = json.loads(one.room(*one._words, "inspect", name).ok().out)[0]["NetworkSettings"]
    address = found["IPAddress"] or next(iter(found["Networks"].values()))["IPAddress"]
    try:
        time.sleep(0.5)
        return _client(one, address)
    finally:
        one.room(*one._words, "rm", "-f", name)


def _client(one: Contender, address: str) -> float:
    time.sleep(0.3)
    command = ("/usr/bin/iperf3", "-J", "-t", str(SECONDS), "-p", str(PORT), "-c", address)
    done = one.room(*one.run("--rm", "--network=bridge", *LIBRARIES, command=command)).ok()
    return float(json.loads(done.out)["end"]["sum_received"]["bits_per_second"]) / 1e9


def transfers(contenders: list[Contender]) -> Samples:
    found: Samples = {}
    for number in range(TRANSFERS):
        for one in contenders[:: -1 if number % 2 else 1]:
            for where in ("host", "container"):
                found.setdefault((one.name, where), []).append(transfer(one, where))
    return found


# ---- the table


def share(samples: Samples, who: str) -> list[float]:
    """What a bridge and a port add, in each round."""
    return [more - less for more, less in zip(samples[who, PUBLISHED], samples[who, NONE], strict=True)]


def rows(samples: Samples, moved: Samples) -> Iterator[tuple[str, ...]]:
    others = [who for who in ("podman", "docker") if (who, NONE) in samples]
    yield ("what", "Warren", *others, "target", "")
    for how in (NONE, BRIDGE, PUBLISHED):
        times = [figures.median(samples[who, how]) for who in ("Warren", *others)]
        worst = max(times[0] / other for other in times[1:]) if others else 0.0
        target, verdict = ("≤ 0.2 of either", RUN_RATIO.verdict(worst)) if how == BRIDGE else ("", "")
        yield (f"`run --rm IMAGE true`, {how}", *(f"{one:.1f} ms" for one in times), target, verdict)
    shares = [figures.median(share(samples, who)) for who in ("Warren", *others)]
    cells = [f"{one:.1f} ms" for one in shares]
    yield ("a bridge and a port, over none", *cells, "< 5 ms", SHARE_BOUND.verdict(shares[0]))
    if len(shares) > 1:
        ratio = shares[0] / shares[1]
        yield ("the same, of podman's", f"{ratio:.3f}", *([""] * len(others)), "≤ 0.05", SHARE_RATIO.verdict(ratio))
    for where in ("host", "container"):
        if ("Warren", where) not in moved:
            continue
        ours, theirs = (figures.median(moved[who, where]) for who in ("Warren", "podman"))
        rates = [f"{ours:.1f} Gbit/s", f"{theirs:.1f} Gbit/s", *([""] * (len(others) - 1))]
        yield (f"container to {where}, TCP", *rates, "≥ 0.95 x podman", THROUGHPUT.verdict(ours / theirs))


@contextmanager
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="warren-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(rounds: int) -> list[tuple[str, ...]]:
    token, runc = uuid.uuid4().hex[:8], shutil.which("runc") or "runc"
    with (
        place() as directory,
        Room(directory / "podman", token) as room,
        Podman(room, runc) as podman,
        Room(directory / "dockerd", token) as other,
        Docker(other, runc) as docker,
    ):
        room("sh", "-c", "mkdir -p /var/lib/warren && mount -t tmpfs none /var/lib/warren").ok()
        room(WARREN, "load", "-i", make_image(directory / "image.tar")).ok()
        contenders = [
            Contender("Warren", room, [WARREN], []),
            Contender("podman", room, podman.words(), list(podman.run_flags)),
            Contender("docker", other, docker.words(), list(docker.run_flags)),
        ]
        samples = launches(contenders, rounds)
        return list(rows(samples, transfers(contenders[:2])))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Networks of Warren beside podman's and docker's.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 1
    processes.continue_below_a_reaper()
    before = os.getloadavg()[0]
    table = report.render(measure(rounds))
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    text = f"Medians of {rounds} rounds, of {TRANSFERS} transfers of {SECONDS} s; {load}.\n\n{table}"
    print(text)
    report.publish(text, PAGE, BEGIN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
