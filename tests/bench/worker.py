"""The library under test, in a process of its own, which the benchmark starts once: launches on request.

    stdin                stdout, one line of JSON
    run N                the nanoseconds of each of N launches by runtime.run()
    threads N            the nanoseconds that two threads need for N launches each, as a list of one
    bundle N             as run, of the bundle, by runtime.Container
    sandbox N            as run, of runtime.sandbox() with its defaults, without a pool
    pool N               the nanoseconds from a call to the first instruction of the program, from a pool

Executed with `python3 -I`, so that it imports what `make build` has installed, and not the tree.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import runtime


class Worker:
    def __init__(self, rootfs: str, bundle: str, name: str) -> None:
        self.rootfs, self.bundle, self.name = rootfs, bundle, name
        null = os.open("/dev/null", os.O_RDWR)
        # There are no controllers in the benchmark's cgroup, for nobody: the peers run without limits, too.
        limits: dict[str, Any] = {} if _has_controllers() else {"memory": "", "cpus": 0, "pids": 0}
        self.sandbox, self.pool = runtime.sandbox(rootfs, **limits), runtime.sandbox(rootfs, pool=2, **limits)
        self.options: dict[str, Any] = {"stdio": (null, null, null), "ephemeral": True, "pdeathsig": signal.SIGKILL}

    def run(self) -> None:
        null = runtime.DEVNULL
        runtime.run(self.rootfs, ["/bin/true"], stdin=null, stdout=null, stderr=null, check=True)

    def launch_sandbox(self) -> None:
        self.sandbox.run(["/bin/true"], capture_output=False, stdin=runtime.DEVNULL, check=True)

    def first_instruction(self) -> int:
        while not self.pool.ready:
            time.sleep(0.0005)
        start = time.perf_counter_ns()
        return int(self.pool.run(["/bin/first"], check=True).stdout) - start

    def launch_bundle(self) -> None:
        """What `warren-oci run` does, without the start of a Python."""
        container = runtime.Container(self.name, runtime.default_root())
        try:
            pid = container.run(runtime.Bundle.load(self.bundle), runtime.Options(**self.options))
            if os.waitpid(pid, 0)[1]:
                raise RuntimeError("the bundle's program failed")
        finally:
            container.delete(force=True)

    def answer(self, what: str, count: int) -> list[int]:
        if what == "threads":
            return [self._threads(count)]
        if what == "pool":
            return [self.first_instruction() for _ in range(count)]
        launch = {"run": self.run, "sandbox": self.launch_sandbox, "bundle": self.launch_bundle}[what]
        return [_elapsed(launch) for _ in range(count)]

    def _threads(self, count: int) -> int:
        """From the moment when both are ready to the end of the later one."""
        ready = threading.Barrier(3)
        failures: list[BaseException] = []
        threads = [threading.Thread(target=self._repeat, args=(count, ready, failures)) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait()
        start = time.perf_counter_ns()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return time.perf_counter_ns() - start

    def _repeat(self, count: int, ready: threading.Barrier, failures: list[BaseException]) -> None:
        ready.wait()
        try:
            for _ in range(count):
                self.run()
        except BaseException as error:
            failures.append(error)


def _has_controllers() -> bool:
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        return {"memory", "cpu", "pids"} <= set(file.read().split())


def _elapsed(launch: Callable[[], None]) -> int:
    start = time.perf_counter_ns()
    launch()
    return time.perf_counter_ns() - start


def main() -> None:
    # Ctrl-C is for the benchmark, which then closes our input; a launch that is under way is finished.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    worker = Worker(*sys.argv[1:])
    for line in sys.stdin:
        what, count = line.split()
        print(json.dumps(worker.answer(what, int(count))), flush=True)
    worker.pool.close()


if __name__ == "__main__":
    main()
