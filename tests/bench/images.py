"""`python3 -m tests.bench.images`: pull and load beside podman, skopeo and umoci, and what a store adds to a start.

One image of 4 layers, 25,000 files and some 275 MB of gzip, in Debian's docker-registry on loopback.  The contenders
take turns, each on an empty ext4 of its own.  Processor time is of the command and all its children (wait4).
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.registry import Registry

from . import report

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/benchmarks.md"
BEGIN = "<!-- `make bench-images` writes from here -->"
WARREN = str(ROOT / ".venv/bin/warren")
STORE = "/var/lib/warren"
LAYERS, FILES, SIZE = 4, 25_000, 275_000_000
DISK = 8 << 30
STARTS = 100
TARGETS = {("pull", "CPU"): 0.35, ("pull", "wall"): 0.6, ("load", "wall"): 0.5}
"""Of Warren's medians to podman's."""

Samples = dict[tuple[str, str, str], list[float]]
"""Task, quantity and contender: seconds."""


def make_layout(directory: Path) -> None:
    """An OCI layout; half of each file can be compressed, as of programs.  The same each time."""
    chance = random.Random(1)
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{type}", "digest": f"sha256:{digest}", "size": len(data)}

    layers, diffs = [], []
    for number in range(LAYERS):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for index in range(FILES // LAYERS):
                if index % 100 == 0:
                    folder = tarfile.TarInfo(f"usr/share/{number}/{index // 100}")
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(folder)
                size = min(4_000_000, int(chance.expovariate(1 / (SIZE / FILES))))
                info = tarfile.TarInfo(f"{folder.name}/{index}")
                info.size, info.mode, info.mtime = 2 * size, 0o644, 1_700_000_000 + index
                tar.addfile(info, io.BytesIO(chance.randbytes(size) + b"warren" * (size // 6 + 1)))
        plain = raw.getvalue()
        diffs.append("sha256:" + hashlib.sha256(plain).hexdigest())
        layers.append(add(gzip.compress(plain, 6, mtime=0), "layer.v1.tar+gzip"))
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(json.dumps(config).encode(), "config.v1+json"),
        "layers": layers,
    }
    entry = add(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def spend(words: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command that must succeed."""
    with tempfile.TemporaryFile() as log:
        begun = time.perf_counter()
        pid = os.posix_spawnp(words[0], words, os.environ,
                              file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), fd) for fd in (1, 2)])  # fmt: skip
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - begun
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(words)}: {log.read().decode(errors='replace')[-2000:]}")
    return wall, usage.ru_utime + usage.ru_stime


def renew(room: Path) -> None:
    """An empty file system for the next: ext4 looks long for inodes where many have been made or removed before."""
    disk = room / "disk"
    subprocess.run(["umount", "--quiet", disk])
    with open(room / "disk.img", "wb") as file:
        file.truncate(DISK)
    subprocess.run(["mkfs.ext4", "-q", "-F", room / "disk.img"], check=True)
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", room / "disk.img", disk], check=True)
    for name in ("store", "other"):
        (disk / name).mkdir()
    os.sync()


def compare(rounds: int, contenders: dict[tuple[str, str], Callable[[], list[str]]], room: Path) -> Samples:
    found: Samples = {}
    for number in range(rounds):
        for (task, who), words in list(contenders.items())[:: -1 if number % 2 else 1]:
            renew(room)
            wall, cpu = spend(words())
            found.setdefault((task, "wall", who), []).append(wall)
            found.setdefault((task, "CPU", who), []).append(cpu)
            print(f"{task} {who}: {wall:.2f} s, {cpu:.2f} s CPU", file=sys.stderr)
    renew(room)
    return found


def overhead() -> tuple[float, float, float]:
    """Medians of starts from a directory, of starts from a stored image, and of the differences; milliseconds."""
    spend([WARREN, "image", "bootstrap", "busybox"])
    (layer,) = [path for path in Path(STORE, "images/layers").iterdir() if not path.name.startswith(".")]
    ways = ([WARREN, "run", "--rm", "--rootfs", str(layer), "/bin/true"],
            [WARREN, "run", "--rm", "localhost/busybox", "/bin/true"])  # fmt: skip
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(STARTS):
        for way in (0, 1) if number % 2 else (1, 0):
            times[way].append(spend(ways[way])[0] * 1000)
    differences = [stored - bare for bare, stored in zip(*times, strict=True)]
    bare, stored = map(statistics.median, times)
    return bare, stored, statistics.median(differences)


def write(found: Samples, starts: tuple[float, float, float], rounds: int, size: int) -> str:
    about = f"{LAYERS} layers, {FILES:,} files, {size / 1e6:.0f} MB of gzip; medians of {rounds} rounds, in seconds"
    lines = [
        f"{about}; load average at the end {os.getloadavg()[0]:.1f}.",
        "",
        "| | Warren | podman | skopeo and umoci | Warren / podman | target |",
        "|---|---|---|---|---|---|",
    ]
    for task, quantity in (("pull", "CPU"), ("pull", "wall"), ("load", "CPU"), ("load", "wall")):
        median = {who: statistics.median(times) for (a, b, who), times in found.items() if (a, b) == (task, quantity)}
        target = TARGETS.get((task, quantity))
        ratio = median["warren"] / median["podman"]
        verdict = f"at most {target}: {'met' if ratio <= target else 'missed'}" if target else "-"
        other = f"{median['umoci']:.1f}" if "umoci" in median else "-"
        cells = (
            f"{task}, {quantity}",
            f"{median['warren']:.1f}",
            f"{median['podman']:.1f}",
            other,
            f"{ratio:.2f}",
            verdict,
        )
        lines.append(f"| {' | '.join(cells)} |")
    bare, stored, more = starts
    verdict = "met" if more < 2 else "missed"
    lines += [
        "",
        f"Start of `true` in busybox: from a directory {bare:.1f} ms, from the stored image {stored:.1f}; median of",
        f"the {STARTS} differences **{more:.1f} ms** (target: below 2, {verdict}).",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        # In a mount namespace of its own, so that nobody's images are touched.
        script = f'mount -t tmpfs none /var/lib && ln -s $0/disk/store {STORE} && exec "$@"'
        with tempfile.TemporaryDirectory(prefix="warren-bench-", dir="/var/tmp") as directory:
            words = [sys.executable, "-m", "tests.bench.images", "--inside", "--rounds", str(arguments.rounds)]
            environment = {**os.environ, "WARREN_BENCH": directory}
            done = subprocess.run(["unshare", "-m", "sh", "-c", script, directory, *words], env=environment)
        raise SystemExit(done.returncode)
    room = Path(os.environ["WARREN_BENCH"])
    make_layout(room / "layout")
    archive, other = room / "image.tar", room / "disk/other"
    with Registry(room / "registry") as registry:
        name = f"{registry.host}/bench:latest"
        layout = f"oci:{room}/layout:latest"
        spend(["skopeo", "copy", "--dest-tls-verify=false", layout, f"docker://{name}"])
        spend(["skopeo", "copy", layout, f"docker-archive:{archive}:{name}"])
        podman = ["podman", "--root", f"{other}/root", "--runroot", f"{other}/run"]
        unpack = (f"skopeo copy --src-tls-verify=false docker://{name} oci:{other}/layout:latest && "
                  f"umoci unpack --image {other}/layout:latest {other}/bundle")  # fmt: skip
        found = compare(arguments.rounds, {
            ("pull", "warren"): lambda: [WARREN, "pull", "-q", name],
            ("pull", "podman"): lambda: [*podman, "pull", "-q", "--tls-verify=false", name],
            ("pull", "umoci"): lambda: ["sh", "-c", unpack],
            ("load", "warren"): lambda: [WARREN, "load", "-i", str(archive)],
            ("load", "podman"): lambda: [*podman, "load", "-q", "-i", str(archive)],
        }, room)  # fmt: skip
    size = sum(path.stat().st_size for path in (room / "layout/blobs/sha256").iterdir())
    text = write(found, overhead(), arguments.rounds, size)
    report.publish(text, PAGE, BEGIN)
    print(text)


if __name__ == "__main__":
    main()
