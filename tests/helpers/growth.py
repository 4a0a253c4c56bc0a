"""`python3 -m tests.helpers.growth KIND COUNT`: what this process has more of after COUNT launches of the library.

Prints a line of JSON; what it counts is its own, whatever else the machine does meanwhile.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import runtime

WARM_UP = 20


@contextmanager
def launcher(kind: str) -> Iterator[tuple[Callable[[], object], Callable[[], None]]]:
    """What launches one, and what waits until things are as they were before the first."""
    if kind == "run":
        yield lambda: runtime.run("host", ["echo", "x"], capture_output=True, input=b"x", check=True), lambda: None
    elif kind == "container":
        yield _scope, lambda: None
    else:
        with runtime.sandbox("host", pool=2) as box:
            yield lambda: box.run(["true"], check=True), lambda: _full(box)


def _scope() -> None:
    with runtime.container("host") as box:
        box.exec(["true"], check=True)


def _full(box: runtime.Sandbox) -> None:
    while box.ready < 2:
        time.sleep(0.01)


def measure() -> dict[str, int]:
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "threads": int(status["Threads"]),
        "bytes": int(status["RssAnon"].split()[0]) << 10,
    }


def main(kind: str, count: int) -> None:
    with launcher(kind) as (launch, settle):
        for _ in range(WARM_UP):
            launch()
        settle()
        before = measure()
        for _ in range(count):
            launch()
        settle()
        after = measure()
    print(json.dumps({name: after[name] - value for name, value in before.items()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
