"""One process with docker-py and the library under test, which are asked in turns for the same command.

`python3 -I docker_py_worker.py SOCKET IMAGE ROUNDS` prints a line of JSON: the milliseconds of each round by contender,
a list each.  Executed with -I, so that it imports what `make build` has installed, and not the tree.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import docker

import runtime

ARGV = ["/bin/true"]
WARM_UP, RUNS = 3, 4
POOL = 4
BREATH = 0.05
"""Seconds between contenders, for what the one before has left to the kernel and to its daemon."""


class Worker:
    def __init__(self, socket: str, image: str) -> None:
        self._image = image
        self._client = docker.DockerClient(base_url=f"unix://{socket}", timeout=120)
        self._sandbox, self._pool = runtime.sandbox(image), runtime.sandbox(image, pool=POOL)
        self.contenders: dict[str, Callable[[], object]] = {
            "docker, runc": self._docker(runtime="runc"),
            "docker, runc, none": self._docker(runtime="runc", network_mode="none"),
            "docker, warren-oci": self._docker(runtime="tested"),
            "docker, warren-oci, none": self._docker(runtime="tested", network_mode="none"),
            "run": lambda: runtime.run(image, ARGV, capture_output=True, check=True),
            "sandbox": lambda: self._sandbox.run(ARGV, check=True),
            "pool": lambda: self._pool.run(ARGV, check=True),
        }

    def _docker(self, **options: Any) -> Callable[[], object]:
        """It waits, fetches the output and raises for an exit code other than 0, as ours are told to."""
        return lambda: self._client.containers.run(self._image, ARGV, remove=True, **options)

    def measure(self, name: str, runs: int = RUNS) -> float:
        """The median of some runs in milliseconds."""
        run, found = self.contenders[name], []
        for _ in range(runs):
            while name == "pool" and self._pool.ready < POOL:
                time.sleep(0.001)
            begun = time.perf_counter()
            run()
            found.append((time.perf_counter() - begun) * 1000)
        return statistics.median(found)

    def close(self) -> None:
        self._pool.close()
        self._client.close()


def main() -> None:
    socket, image, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    worker, chance = Worker(socket, image), random.Random(1)
    samples: dict[str, list[float]] = {name: [] for name in worker.contenders}
    try:
        for name in samples:
            worker.measure(name, WARM_UP)
        for number in range(rounds):
            for name in chance.sample(list(samples), len(samples)):
                time.sleep(BREATH)
                samples[name].append(worker.measure(name))
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    finally:
        worker.close()
    print(file=sys.stderr)
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
