"""Commands about virtual machines beside containers: `contrast`, and what `vm` sets up for them."""

import sys
import time
from typing import Any

import click

from ..errors import UsageError
from ..jsontext import dump_json
from ..quantities import size as parse_size
from .printing import warn


@click.command(context_settings={"ignore_unknown_options": False, "help_option_names": ["-h", "--help"]})
@click.option("--rootfs", default="", metavar="DIR", help="Use this directory as the root.")
@click.option("--rounds", default=3, type=click.IntRange(1, 1000), show_default=True, help="Samples of each figure.")
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="ROW",
    help="Only these: process, container, uml, microvm, pc, or microvm-tcg, pc-kvm...",
)
@click.option("--guest-memory", default="128m", show_default=True, metavar="SIZE", help="Of each virtual machine.")
@click.option("--budget", default="1g", show_default=True, metavar="SIZE", help="Memory for the run of many at once.")
@click.option("--no-density", is_flag=True, help="Leave out the run of many at once.")
@click.option("--kernel", default="", metavar="FILE", help="The kernel of QEMU's guests.")
@click.option(
    "--boot-timeout",
    default=60.0,
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long a virtual machine may take to come up.",
)
@click.option("--format", "style", default="table", type=click.Choice(["table", "json"]))
@click.option("--report", default="", metavar="FILE.html", help="Write a page with plots, findings and method.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show the progress.")
@click.argument("words", nargs=-1, metavar="IMAGE|host [-- COMMAND...]")
def contrast(words: tuple[str, ...], style: str, report: str, quiet: bool, **values: Any) -> None:
    """Run the same image as a process, a container and virtual machines, and compare.

    Measured are start, memory, disk, CPU, loops, files and network, how many fit at once, and what root inside can see
    and do.  Rows that this host cannot run say why.  COMMAND is what start and end are measured with; without one it is
    a program that ends at once.
    """
    from ..contrast.findings import document, text_table
    from ..contrast.measure import Plan
    from ..contrast.measure import contrast as measure

    if report and not report.endswith((".html", ".htm")):
        raise UsageError(f"--report {report!r} is not called FILE.html")
    source, command = _source(words, values["rootfs"])
    plan = Plan(
        source,
        rootfs=_directory(values["rootfs"]),
        command=command,
        rounds=values["rounds"],
        rows=_rows(values["rows"]),
        memory=values["guest_memory"],
        budget=parse_size(values["budget"], "--budget"),
        kernel=values["kernel"],
        boot_timeout=values["boot_timeout"],
        density=not values["no_density"],
    )
    parse_size(plan.memory, "--guest-memory")
    begun = time.monotonic()
    with _show_progress(quiet) as progress:
        results = measure(plan, progress)
    told = document(plan, results, time.monotonic() - begun)
    click.echo(dump_json(told, 2) if style == "json" else text_table(told))
    if report:
        from ..contrast.report import html

        with open(report, "w", encoding="utf-8") as file:
            file.write(html(told))
        click.echo(f"report: {report}", err=True)


def _source(words: tuple[str, ...], rootfs: str) -> tuple[str, list[str]]:
    rest = list(words)
    if rootfs:
        return "", rest
    if not rest:
        raise UsageError("no image is given", hint="warren contrast IMAGE, host, or --rootfs DIR")
    return rest[0], rest[1:]


def _directory(path: str) -> str:
    import os

    if path and not os.path.isdir(path):
        raise UsageError(f"--rootfs {path}: not a directory")
    return os.path.abspath(path) if path else ""


def _rows(names: tuple[str, ...]) -> tuple[str, ...]:
    from ..contrast.rows import all_rows

    known = {word for row in all_rows() for word in (row.key, row.kind)}
    for name in names:
        if name not in known:
            raise UsageError(f"--row {name!r} is unknown", hint=", ".join(sorted(known)))
    return names


class _show_progress:  # noqa: N801  A context manager that reads like a function.
    """One line that changes on a terminal; else a line for each step, and nothing with --quiet."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Any:
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._terminal and not self._quiet:
            click.echo("\r\033[K", nl=False, err=True)

    def _tell(self, text: str) -> None:
        if self._quiet:
            return
        if self._terminal:
            click.echo(f"\r\033[K{text[:100]}", nl=False, err=True)
        else:
            click.echo(text, err=True)


@click.group()
def vm() -> None:
    """What virtual machines need on this host."""


@vm.command("setup")
@click.argument("parts", nargs=-1, type=click.Choice(["kernel", "uml"]))
def set_up(parts: tuple[str, ...]) -> None:
    """Fetch Debian's kernel for guests and user-mode Linux, and unpack them; nothing is installed.

    They go below /var/lib/warren/vm, for ordinary users below the XDG data directory.  QEMU is to be installed:
    apt install qemu-system-x86.
    """
    from ..vm.setup import fetch

    for part in parts or ("kernel", "uml"):
        click.echo(fetch(part))
    warn(_lacking())


def _lacking() -> list[str]:
    from ..errors import WarrenError
    from ..vm.select import find_qemu

    try:
        find_qemu()
    except WarrenError as error:
        return [str(error)]
    return []


@vm.command("info")
def information() -> None:
    """Tell which virtual machines this host can run, and why not."""
    from ..contrast.rows import all_rows, find_machines

    rows = [row for row in all_rows() if row.is_machine]
    find_machines(rows, "", 60.0)
    for row in rows:
        what = row.reason or (f"kernel {row.machine.kernel.file}" if row.machine else "")
        click.echo(f"{'no' if row.reason else 'yes':4}{row.key:12}  {what}")
