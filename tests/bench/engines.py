"""`python3 -m tests.bench.engines [--rounds N]`: how long commands of engines take on Warren and on runc."""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import processes
from tests.helpers.daemons import Containerd, Docker, Room
from tests.helpers.engines import Podman

from . import figures, report
from .figures import Target

PAGE = Path(__file__).parent.parent.parent / "docs/benchmarks.md"
BEGIN = "<!-- `make bench-engines` writes from here -->"
HEAD = ("what", "warren-oci", "runc", "difference (quartiles)", "target", "")
ROUNDS, RUNS = 20, 3
NO_SLOWER = Target(0)

Words = list[str | Path]
Pair = tuple[Words, Words]
"""The same command on Warren and on runc."""


def docker_commands(docker: Docker) -> Iterator[tuple[str, Pair]]:
    def on(runtime: str, flags: str) -> Words:
        return docker.words(*docker.run_words(f"--runtime {runtime} {flags}", "true"))

    for name, flags in (("docker run --rm --network none", "--rm"), ("docker run --rm", "--rm --network bridge")):
        yield name, (on("tested", flags), on("runc", flags))
    for runtime in ("tested", "runc"):
        docker.run(f"--runtime {runtime} --detach --name up-{runtime}", "sleep", "3600").ok()
    yield "docker exec", (docker.words("exec", "up-tested", "true"), docker.words("exec", "up-runc", "true"))


def ctr_commands(ctr: Containerd, runc: str) -> Iterator[tuple[str, Pair]]:
    words = ctr.words(*ctr.run_words("--rm", "once", "true"))
    yield "ctr run --rm", (words, [runc if word == ctr.runtime else word for word in words])


def podman_commands(podman: Podman, warren: str, runc: str) -> Iterator[tuple[str, Pair]]:
    def on(runtime: str, *words: str | Path) -> Words:
        command, *rest = podman.words(*words)
        return [command, "--runtime", runtime, *rest]

    run = podman.run_words("--rm", "true")
    yield "podman run --rm --network none", (on(warren, *run), on(runc, *run))
    for runtime, name in ((warren, "up-warren"), (runc, "up-runc")):
        podman.room(*on(runtime, *podman.run_words(f"--detach --name {name}", "sleep", "3600"))).ok()
    yield "podman exec", (on(warren, "exec", "up-warren", "true"), on(runc, "exec", "up-runc", "true"))


def measure(room: Room, pair: Pair, rounds: int) -> tuple[list[float], list[float]]:
    """Medians of each round in milliseconds; who comes first alternates."""
    samples: tuple[list[float], list[float]] = ([], [])
    result = room.private / "times.json"
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        commands = [shlex.join(map(str, pair[who])) for who in order]
        room("hyperfine", "--shell=none", "--warmup=1", f"--runs={RUNS}", f"--export-json={result}", *commands).ok()
        found = json.loads(room("cat", result).out)["results"]
        for who, entry in zip(order, found, strict=True):
            samples[who].append(entry["median"] * 1000)
    return samples


def row(name: str, ours: list[float], theirs: list[float]) -> tuple[str, ...]:
    difference = figures.difference(ours, theirs)
    spread = f"{difference.value:+.1f} ms ({difference.low:+.1f} to {difference.high:+.1f})"
    times = [f"{figures.median(values):.1f} ms" for values in (ours, theirs)]
    return f"`{name}`", *times, spread, "≤ 0 ms", NO_SLOWER.verdict(difference.value)


@contextmanager
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="warren-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def rows(warren: str, runc: str, rounds: int) -> Iterator[tuple[str, ...]]:
    token = uuid.uuid4().hex[:8]
    with place() as directory, Room(directory / "dockerd", token) as room, Docker(room, warren) as docker:
        for name, pair in docker_commands(docker):
            yield row(name, *measure(room, pair, rounds))
    with place() as directory, Room(directory / "podman", token) as room, Podman(room, warren) as podman:
        for name, pair in podman_commands(podman, warren, runc):
            yield row(name, *measure(room, pair, rounds))
    with place() as directory, Room(directory / "containerd", token) as room, Containerd(room, warren) as ctr:
        for name, pair in ctr_commands(ctr, runc):
            yield row(name, *measure(room, pair, rounds))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Compare engines on Warren with engines on runc.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    runc = shutil.which("runc")
    if os.geteuid() != 0 or not runc:
        print("bench: needs root, and runc", file=sys.stderr)
        return 1
    processes.continue_below_a_reaper()
    before = os.getloadavg()[0]
    table = report.render([HEAD, *rows(str(Path(sys.prefix) / "bin/warren-oci"), runc, rounds)])
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    text = f"{rounds} rounds of {RUNS} runs each; {load}.\n\n{table}"
    print(text)
    report.publish(text, PAGE, BEGIN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
