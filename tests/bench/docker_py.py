"""`python3 -m tests.bench.docker_py [--rounds N]`: the library beside docker-py, which asks a real dockerd.

dockerd runs in a room of its own, on runc and on warren-oci; what it and Warren keep lies in memory.  One process
(docker_py_worker.py) runs the same image's /bin/true by all ways, in a new order each round.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.helpers import processes
from tests.helpers.daemons import IMAGE, Docker, Room, make_image
from tests.helpers.rooms import own_store

from . import figures, report
from .engines import place
from .figures import Target

PAGE = Path(__file__).parent.parent.parent / "docs/benchmarks.md"
WORKER = Path(__file__).with_name("docker_py_worker.py")
BEGIN = "<!-- `make bench-docker-py` writes from here -->"
ROUNDS = 30
BIN = Path(sys.prefix) / "bin"
FASTER = Target(100, at_least=True)
PEERS = {
    "docker, runc": "`containers.run()` on runc",
    "docker, runc, none": 'the same, `network_mode="none"`',
    "docker, warren-oci": "`containers.run()` on warren-oci",
    "docker, warren-oci, none": 'the same, `network_mode="none"`',
}
OURS = {"run": "`runtime.run()`", "sandbox": "`Sandbox.run()`", "pool": "`Sandbox.run()`, from a pool"}

Samples = dict[str, list[float]]


def measure(rounds: int) -> Samples:
    token = uuid.uuid4().hex[:8]
    oci = str(BIN / "warren-oci")
    with place() as directory, Room(directory / "dockerd", token) as room, Docker(room, oci) as docker:
        with own_store() as (_, prefix):
            archive = make_image(directory / "image.tar")
            subprocess.run([*prefix, BIN / "warren", "load", "--quiet", "--input", archive], check=True)
            command = [*prefix, sys.executable, "-I", str(WORKER), str(docker.socket), IMAGE, str(rounds)]
            found: Samples = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            return found


def rows(found: Samples) -> Iterator[Sequence[str]]:
    """How many times as long docker-py takes; the target is of its containers.run() with its defaults."""
    columns = ("of docker-py's", "with no network", "on warren-oci", "with no network")
    yield "what", "median", *columns, "target", ""
    for name, what in PEERS.items():
        yield what, f"{figures.median(found[name]):.1f} ms", *[""] * (len(columns) + 2)
    for name, what in OURS.items():
        ratios = [figures.ratio(found[peer], found[name]) for peer in PEERS]
        times = [f"1/{one.value:.0f} ({one.low:.0f} to {one.high:.0f})" for one in ratios]
        verdict = FASTER.verdict(ratios[0].value)
        yield what, f"{figures.median(found[name]):.2f} ms", *times, f"1/{FASTER.bound:g}", verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Compare the library with docker-py.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    if os.geteuid() != 0 or not shutil.which("runc"):
        print("bench: needs root, and runc", file=sys.stderr)
        return 1
    processes.continue_below_a_reaper()
    before = os.getloadavg()[0]
    table = report.render(list(rows(measure(rounds))))
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    text = f"docker-py {importlib.metadata.version('docker')}; {rounds} rounds; {load}.\n\n{table}"
    print(text)
    report.publish(text, PAGE, BEGIN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
