"""Runs programs of the OCI validation suite (runtime-tools) on a runtime, and reads the TAP that they print.

`make validation-suite` builds them into build/validation.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .machines import PROJECT

SUITE = PROJECT / "build/validation"
PROGRAMS = sorted(path.name for path in (SUITE / "bin").glob("*"))
TIMEOUT = 120.0
WORKERS = 6
"""At a time: most of their time the programs sleep between two looks at a container's status."""

# Each program has a mount namespace of its own, because one of them asks for a container without (runc then leaves its
# mounts behind), and a state directory of its own, from which containers that it leaves are removed.
SCRIPT = """#!/bin/sh
{prepare}
"{program}" && code=0 || code=$?
for id in $("$RUNTIME" list -q); do "$RUNTIME" delete --force "$id"; done >&2
exit $code
"""
ASSERTION = re.compile(r"^ *(not ok|ok)\b *\d* *-? *(.*)$", re.MULTILINE)
DIAGNOSIS = re.compile(r'^ *"error": "(.*)"', re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What a program printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def good(self) -> int:
        return sum(word == "ok" for word, _ in ASSERTION.findall(self.out))

    @property
    def bad(self) -> Counter[str]:
        """What was asserted and does not hold, and how often."""
        return Counter(what for word, what in ASSERTION.findall(self.out) if word == "not ok" and "# TODO" not in what)

    @property
    def passed(self) -> bool:
        """As the suite's own runner counts."""
        return self.code == 0 and not self.bad

    @property
    def silent_error(self) -> str:
        """Programs that assert nothing tell what they found wrong in a diagnosis only."""
        found = DIAGNOSIS.search(self.out)
        return "" if self.good or self.bad or not found else found[1]


def run(
    programs: Collection[str], runtime: str, directory: Path, environment: Mapping[str, str] = {}, prepare: str = ""
) -> dict[str, Outcome]:
    """Run programs side by side, but those that share cgroups one after the other; `prepare` is shell before each."""

    def lane(names: list[str]) -> list[tuple[str, Outcome]]:
        return [(name, _run(name, runtime, directory / name, environment, prepare)) for name in names]

    lanes = [[name for name in programs if "_cgroups_" in name or "_resources" in name]]
    lanes += [[name] for name in programs if name not in lanes[0]]
    with ThreadPoolExecutor(WORKERS) as pool:
        return {name: outcome for results in pool.map(lane, lanes) for name, outcome in results}


def _run(program: str, runtime: str, directory: Path, environment: Mapping[str, str], prepare: str) -> Outcome:
    for path in (directory, directory / "tmp"):
        path.mkdir(mode=0o755, parents=True)
    wrapper, script = directory / "runtime", directory / "script"
    wrapper.write_text(f'#!/bin/sh\nexec "{runtime}" --root "{directory}/state" "$@"\n')
    script.write_text(SCRIPT.format(prepare=prepare, program=SUITE / "bin" / program))
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "slave", "sh", script],
        cwd=SUITE, env={**os.environ, "RUNTIME": str(wrapper), "TMPDIR": f"{directory}/tmp", **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)
