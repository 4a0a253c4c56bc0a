"""`python3 -m tests.bench.containers [--rounds N]`: what people wait for, beside podman and docker.

Both are as Debian ships them.  Each engine has a room of its own, where everything that it keeps lies in memory, and no
network but the loopback.  They take turns: a round is all of them, once forwards and once backwards.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.helpers import processes
from tests.helpers.daemons import Client, Docker, Room, make_image
from tests.helpers.engines import Podman

from . import figures, report
from .engines import place
from .figures import Target

PAGE = Path(__file__).parent.parent.parent / "docs/benchmarks.md"
BEGIN = "<!-- `make bench-containers` writes from here -->"
HEAD = (
    "what",
    "Warren",
    "podman",
    "docker",
    "/ podman (quartiles)",
    "target",
    "",
    "/ docker (quartiles)",
    "target",
    "",
)
ROUNDS, RUNS = 10, 5
DETACHED, REPLICAS, MANY = 50, 200, 500
WARREN = Path(sys.prefix) / "bin/warren"

Samples = dict[tuple[str, str], list[float]]
"""Task and engine: milliseconds, one for each round."""


class Warren(Client):
    """With its store and state in the room's memory."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.run_flags = (f"--cgroup-parent=/{room.cgroup}",)

    def words(self, *words: str | Path) -> list[str | Path]:
        return [WARREN, *words]

    def __enter__(self) -> "Warren":
        self.room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        self("load", "--input", make_image(self.room.directory / "image.tar")).ok()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_all()

    def remove_all(self) -> None:
        if names := self("ps", "--all", "--quiet").ok().out.split():
            self("rm", "--force", *names, timeout=600).ok()


def time_command(engine: Client, *words: str | Path) -> float:
    """Median of some runs in milliseconds, each a process started by hyperfine without a shell."""
    result = engine.room.directory / "times.json"
    command = " ".join(map(str, engine.words(*words)))
    engine.room(
        "hyperfine", "--shell=none", "--warmup=1", f"--runs={RUNS}", f"--export-json={result}", command, timeout=600
    ).ok()
    return float(json.loads(result.read_text())["results"][0]["median"]) * 1000


def time_run(engine: Client) -> float:
    return time_command(engine, *engine.run_words("--rm", "true"))


def time_exec(engine: Client) -> float:
    return time_command(engine, "exec", "up", "true")


def time_detached(engine: Client) -> float:
    """Of all, started one after another by a shell; removing them is not timed."""
    command = " ".join(map(str, engine.words(*engine.run_words("--detach", "sleep", "3600"))))
    loop = f"i=0; while [ $i -lt {DETACHED} ]; do {command} || exit; i=$((i+1)); done"
    begun = time.perf_counter()
    done = engine.room("sh", "-c", loop, timeout=600).ok()
    took = (time.perf_counter() - begun) * 1000
    engine(*engine.remove, *done.out.split(), timeout=600).ok()
    return took


TASKS: dict[str, Callable[[Client], float]] = {
    "`run --rm --network none IMAGE true`": time_run,
    "`exec NAME true`": time_exec,
    f"{DETACHED} x `run --detach`": time_detached,
}
TARGETS = {
    ("`run --rm --network none IMAGE true`", "podman"): Target(0.3),
    ("`run --rm --network none IMAGE true`", "docker"): Target(0.2),
    ("`exec NAME true`", "podman"): Target(0.4),
    (f"{DETACHED} x `run --detach`", "podman"): Target(0.3),
}


def compare(engines: dict[str, Client], rounds: int) -> Samples:
    found: Samples = {}
    for engine in engines.values():
        engine.run("--detach --name up", "sleep", "3600").ok()
    for number in range(rounds):
        for task, take in TASKS.items():
            if task.startswith(str(DETACHED)) and number % 3:
                continue
            for who in sorted(engines, reverse=bool(number % 2)):
                found.setdefault((task, who), []).append(take(engines[who]))
                print(f"{task} {who}: {found[task, who][-1]:.1f} ms", file=sys.stderr)
    return found


def rows(found: Samples) -> Iterator[tuple[str, ...]]:
    for task in TASKS:
        medians = [f"{statistics.median(found[task, who]):.1f} ms" for who in ("warren", "podman", "docker")]
        cells = [cell for who in ("podman", "docker") for cell in against(found, task, who)]
        yield (task, *medians, *cells)


def against(found: Samples, task: str, who: str) -> tuple[str, str, str]:
    value = figures.ratio(found[task, "warren"], found[task, who])
    target = TARGETS.get((task, who))
    ratio = f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"
    return ratio, *((f"≤ {target.bound:g}", target.verdict(value.value)) if target else ("", ""))


# ---- what Warren alone is asked for


def replicas(warren: Warren, network: str) -> float:
    """Containers a second, started by one command."""
    words = warren.run_words(f"--network={network} --replicas={REPLICAS}", "sleep", "3600")
    begun = time.perf_counter()
    assert len(warren(*words, timeout=600).ok().out.split()) == REPLICAS
    rate = REPLICAS / (time.perf_counter() - begun)
    up = {"up"}
    names = set(warren("ps", "--format", "{{.Names}}").ok().out.split()) - up
    warren("rm", "--force", *names, timeout=600).ok()
    return rate


def ps_with_many(warren: Warren) -> float:
    """Milliseconds of `ps` while so many run."""
    warren(*warren.run_words(f"--replicas={MANY}", "sleep", "3600"), timeout=600).ok()
    try:
        assert len(warren("ps", "--quiet").ok().out.split()) >= MANY
        return time_command(warren, "ps")
    finally:
        warren.remove_all()


def monitors_memory(room: Room, name: str) -> float:
    """Median of KiB (PSS) of the processes of this name that the room's containers have beside them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = os.readlink(process / "ns/mnt") == os.readlink(f"/proc/{room.pid}/ns/mnt")
            if inside and (process / "comm").read_text().strip() == name[:15]:
                lines = (process / "smaps_rollup").read_text().splitlines()
                found.append(next(float(line.split()[1]) for line in lines if line.startswith("Pss:")))
    return statistics.median(found)


def alone(warren: Warren) -> list[tuple[str, ...]]:
    rates = {network: [replicas(warren, network) for _ in range(3)] for network in ("host", "none")}
    ps = ps_with_many(warren)
    found: list[tuple[str, ...]] = []
    for network, target in (("host", Target(150, at_least=True)), ("none", Target(100, at_least=True))):
        rate = statistics.median(rates[network])
        cells = (f"{rate:.0f}/s", f"≥ {target.bound:g}/s", target.verdict(rate))
        found.append((f"`run --replicas {REPLICAS} --network {network}`", *cells))
    found.append((f"`ps` with {MANY} containers", f"{ps:.0f} ms", "≤ 100 ms", Target(100).verdict(ps)))
    return found


def beside(rooms: dict[str, Room]) -> list[tuple[str, ...]]:
    names = {"warren": "warren-monitor", "podman": "conmon", "docker": "containerd-shim"}
    found = {who: monitors_memory(rooms[who], name) for who, name in names.items()}
    ours = found.pop("warren")
    others = ", ".join(f"{names[who]} {value:.0f} KiB" for who, value in found.items())
    return [(f"memory beside a container (PSS); {others}", f"{ours:.0f} KiB", "≤ 100 KiB", Target(100).verdict(ours))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    runc = shutil.which("runc")
    if os.geteuid() != 0 or not runc:
        print("bench: needs root, and runc", file=sys.stderr)
        return 1
    processes.continue_below_a_reaper()
    before = os.getloadavg()[0]
    token = uuid.uuid4().hex[:8]
    with place() as directory, contextlib.ExitStack() as stack:
        names = ("warren", "podman", "docker")
        rooms = {name: stack.enter_context(Room(directory / name, token)) for name in names}
        warren = stack.enter_context(Warren(rooms["warren"]))
        podman = stack.enter_context(Podman(rooms["podman"], runc))
        docker = stack.enter_context(Docker(rooms["docker"], runc))
        table = report.render([HEAD, *rows(compare({"warren": warren, "podman": podman, "docker": docker}, rounds))])
        more = report.render([("what", "Warren", "target", ""), *beside(rooms), *alone(warren)])
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    text = f"{rounds} rounds (of {DETACHED} containers: a third) of {RUNS} runs each; {load}.\n\n{table}\n\n{more}"
    print(text)
    report.publish(text, PAGE, BEGIN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
