"""`python3 -m tests.bench.cgroups`: what cgroups cost a launch, and what polling many containers' statistics costs.

Runs on the host's own cgroups, unlike the other benchmarks: which hierarchies there are is what makes the difference.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runtime import Bundle, Container, Options

from .bundle import make_config, make_rootfs
from .runtimes import need

ROOT = Path(__file__).parent.parent.parent
LAUNCHES = 60
LIMITS: dict[str, Any] = {
    "memory": {"limit": 64 << 20},
    "cpu": {"quota": 50000, "period": 100000, "shares": 512},
    "pids": {"limit": 100},
}
# What container.py does with cgroups in one launch, in a fresh interpreter that has loaded what any launch loads.
LAUNCH = """
import sys, time
sys.path.insert(0, sys.argv[1])
import json, posix
import runtime.container, runtime.plan, runtime.spec
from runtime import cgroups
from runtime.host import Host
config = json.loads(sys.argv[2])
spec = runtime.spec.Spec(config, "/")
host = Host.probe()
host.mounts, host.cgroup_legacy, host.cgroup_controllers, host.privileged, host.initial_userns
begun = time.perf_counter()
cgroup = cgroups.for_container(spec, "bench-%d" % posix.getpid(), host)
cgroups.check(config, cgroup, host)
cgroups.assemble_device_program(config, cgroup, host)
cgroup.holds_late(config, host)
cgroup.enforced(config, host)
cgroup.made = cgroup.missing_parents()
cgroup.create()
cgroup.apply(config, host)
cgroup.give_to_container(config)
cgroup.enforced(config, host)
made = time.perf_counter()
cgroup.kill()
cgroup.remove()
print(made - begun, time.perf_counter() - made)
"""


def launch_cost(resources: dict[str, Any]) -> tuple[float, float]:
    """Medians in microseconds: of making the cgroup with its limits, and of removing it."""
    config = {"linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}], **resources}}}
    site = next(Path(sys.prefix).glob("lib/python3*/site-packages"))
    python = os.path.realpath(sys.executable)
    rows = []
    for _ in range(LAUNCHES):
        words = [python, "-I", "-S", "-c", LAUNCH, str(site), json.dumps(config)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        rows.append([float(word) * 1e6 for word in done.stdout.split()])
    made, removed = (statistics.median(column) for column in zip(*rows, strict=True))
    return made, removed


def polling_cost(count: int, seconds: int) -> float:
    """Share of one core, in percent, that reading `count` idle containers once a second takes."""
    directory = Path(tempfile.mkdtemp(prefix="warren-bench-"))
    containers = [Container(f"warren-bench-{os.getpid()}-{n}", str(directory / "state")) for n in range(count)]
    try:
        rootfs = make_rootfs(directory, need("busybox"))
        for container in containers:
            bundle = directory / container.id
            bundle.mkdir()
            config = make_config(["/bin/sleep", "3600"], rootfs, f"/{container.id}", None)
            (bundle / "config.json").write_text(json.dumps(config))
            container.create(Bundle.load(str(bundle)), Options())
        readers = [container.stats_reader() for container in containers]
        for reader in readers:
            reader.read()
        begun, used = time.monotonic(), time.process_time()
        for turn in range(1, seconds + 1):
            assert all(stats.pids is None or stats.pids.current == 1 for stats in (reader.read() for reader in readers))
            time.sleep(max(0.0, begun + turn - time.monotonic()))
        share = 100 * (time.process_time() - used) / (time.monotonic() - begun)
        for reader in readers:
            reader.close()
        return share
    finally:
        for container in containers:
            container.delete(force=True)
        shutil.rmtree(directory)


def main() -> None:
    # A reader keeps its files open where it may.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    parser = argparse.ArgumentParser(prog="bench-cgroups")
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}")
    for name, resources in (("no limits", {}), ("memory, cpu and pids", LIMITS)):
        made, removed = launch_cost(resources)
        print(f"{name}: {made:.0f} us to make, {removed:.0f} us to remove")
    share = polling_cost(arguments.containers, arguments.seconds)
    print(f"statistics of {arguments.containers} idle containers each second: {share:.1f} % of a core")


if __name__ == "__main__":
    main()
