"""`python3 -m tests.bench [--rounds N]`: measure, print the table, write it into docs/benchmarks.md."""

import argparse
import os
import sys
from pathlib import Path

from . import profile, report
from .commands import FailedError
from .host import Host, enter_namespace
from .session import Session

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/benchmarks.md"
ROUNDS = 80


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Compare Warren with other runtimes.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=1, help="of the order within each round")
    parser.add_argument("--profile", action="store_true", help="only say where the time of one launch goes")
    parser.add_argument("--outside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("at least one round")
    return arguments


def measure(arguments: argparse.Namespace) -> str:
    """The text for the page."""
    before = os.getloadavg()[0]
    extra = os.environ.get("BENCH_RUNTIMES", "")
    with Host(arguments.outside) as host, Session(host, Path(sys.prefix) / "bin", extra, arguments.seed) as session:
        session.rounds(arguments.rounds)
    said = report.conditions(session, arguments.rounds, (before, os.getloadavg()[0]))
    return f"{said}\n\n{report.table(session.samples)}"


def main() -> int:
    arguments = parse()
    if os.geteuid() != 0:
        print("bench: needs root, for namespaces and cgroups of its own", file=sys.stderr)
        return 1
    if not arguments.outside:
        enter_namespace(sys.argv[1:])
    try:
        if arguments.profile:
            print(profile.report(arguments.rounds, arguments.outside))
            return 0
        text = measure(arguments)
    except FailedError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(text)
    report.publish(text, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
