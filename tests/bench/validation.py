"""`python3 -m tests.bench.validation`: the OCI validation suite on Warren and its peers; writes docs/conformance.md."""

import sys
import tempfile
from pathlib import Path

from tests.conformance.test_validation import FAILS, SILENT
from tests.helpers.validation import PROGRAMS, Outcome, run

from . import report
from .__main__ import ROOT
from .programs import compile_all
from .runtimes import need

PAGE = ROOT / "docs/conformance.md"
# crun takes no hybrid host: it gets a v2 tree, with what controllers the host has there.
CGROUP2 = "umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"


def measure(directory: Path) -> dict[str, dict[str, Outcome]]:
    directory.chmod(0o755)
    _, _, stub = compile_all(directory)
    warren = str(Path(sys.prefix) / "bin/warren-oci")
    return {
        "warren-oci": run(PROGRAMS, warren, directory / "warren"),
        "runc": run(PROGRAMS, need("runc"), directory / "runc"),
        "crun, on a v2 tree": run(PROGRAMS, need("crun"), directory / "crun", {"LD_PRELOAD": str(stub)}, CGROUP2),
    }


def text(found: dict[str, dict[str, Outcome]]) -> str:
    lines = ["| | programs passed | assertions ok | not ok |", "|---|---|---|---|"]
    for name, outcomes in found.items():
        passed = sum(outcome.passed for outcome in outcomes.values())
        good, bad = (sum(counts) for counts in zip(*[(o.good, o.bad.total()) for o in outcomes.values()], strict=True))
        lines.append(f"| {name} | {passed} of {len(outcomes)} | {good} | {bad} |")
    lines += ["", f"| program | {' | '.join(found)} | why it fails on Warren |", f"|---|{'---|' * len(found)}---|"]
    for program in PROGRAMS:
        words = ["passed" if outcomes[program].passed else "failed" for outcomes in found.values()]
        if "failed" in words or program in SILENT:
            why = FAILS[program].why if program in FAILS else SILENT.get(program, ("",))[0]
            lines.append(f"| {program} | {' | '.join(words)} | {why} |")
    return "\n".join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as directory:
        said = text(measure(Path(directory)))
    print(said)
    report.publish(said, PAGE, "<!-- `make validation` writes from here -->")


if __name__ == "__main__":
    main()
