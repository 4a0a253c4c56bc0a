"""`audit`: a report card of what a container keeps apart from the host."""

import sys
from typing import Any

import click

from ..config import HOST, ContainerConfig
from ..engine.audit import Report, audit_container, audit_new, keys
from ..engine.names import new_id
from ..engine.records import find
from ..errors import NotFoundError, UsageError
from ..jsontext import dump_json
from ..options import RUN, to_config
from ..vm import parse_isolation
from .options import RunCommand, click_options
from .printing import printable

_SUITE = '''\
"""Isolation of {subject}, a test for each probe; written by `warren audit --pytest`, and yours to change."""

import pytest

import runtime

TARGET = {subject!r}
OPTIONS = {{}}
"""Of runtime.container(); without any TARGET may be a container that runs."""


@pytest.fixture(scope="module")
def report():
    return runtime.audit(TARGET, **OPTIONS)


@pytest.mark.parametrize(
    "key",
    [
{keys}
    ],
)
def test_isolation(report, key):
    finding = report[key]
    assert finding.passed, f"{{finding.title}}: {{finding.seen}}"
'''


@click.command(
    cls=RunCommand, context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]}
)
@click_options(RUN)
@click.option("--format", "style", default="table", type=click.Choice(["table", "json"]))
@click.option("--pytest", "suite", default="", metavar="FILE", help="Write the probes as tests, and run none.")
@click.option("--beside", default="", metavar="container|vm[:KIND]", help="Audit it so isolated, too, and compare.")
@click.argument("words", nargs=-1, metavar="CONTAINER|IMAGE|host")
def audit(words: tuple[str, ...], style: str, suite: str, beside: str, **values: Any) -> None:
    """Try what a container can do to its host, and print a report card.

    A container that runs is audited as it is; of an image, or the host's own root, one is made with the options of
    `run`.  Nothing is changed, in the container or on the host.  The exit code is 1 unless everything holds.

    `audit --beside vm host` shows what a virtual machine keeps apart beside what a container does.
    """
    subject = _subject(words, values)
    if suite:
        _write_suite(subject, suite)
        return
    if beside:
        _compare(subject, words, values, beside, style)
        return
    report = _report(subject, words, values)
    click.echo(dump_json(report.to_dict(), 2) if style == "json" else _card(report))
    sys.exit(bool(report.failed))


def _subject(words: tuple[str, ...], values: dict[str, Any]) -> str:
    if len(words) > (not values["rootfs"]):
        raise UsageError(f"{words[-1]!r} is one word too many", hint="audit runs no command")
    subject: str = words[0] if words else values["rootfs"]
    if not subject:
        raise UsageError("nothing to audit is given", hint="warren audit CONTAINER, IMAGE or host")
    return subject


def _report(subject: str, words: tuple[str, ...], values: dict[str, Any]) -> Report:
    if words and subject != HOST:
        try:
            return audit_container(find(subject))
        except NotFoundError:
            pass
    return audit_new(subject, _idle(to_config([*words, "--", "idle"], values)))


def _compare(subject: str, words: tuple[str, ...], values: dict[str, Any], beside: str, style: str) -> None:
    parse_isolation(beside)
    reports = []
    for isolation in (values["isolation"], beside):
        config = _idle(to_config([*words, "--", "idle"], {**values, "isolation": isolation}))
        reports.append(audit_new(subject, config))
    click.echo(dump_json([report.to_dict() for report in reports], 2) if style == "json" else _two_cards(*reports))
    sys.exit(any(report.failed for report in reports))


def _idle(config: ContainerConfig) -> ContainerConfig:
    config.id, config.entrypoint, config.idle, config.init = new_id(), "", True, False
    config.network = config.network or "none"
    return config


def _write_suite(subject: str, path: str) -> None:
    lines = "\n".join(f"        {key!r},  # {title}".replace("'", '"') for key, title in keys())
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(_SUITE.format(subject=subject, keys=lines))
    except OSError as error:
        raise UsageError(f"--pytest {path}: {(error.strerror or '').lower()}") from error


def _card(report: Report) -> str:
    lines: list[str] = []
    group = ""
    width = max(len(one.title) for one in report.findings)
    for one in sorted(report.findings, key=lambda one: _ORDER.index(one.group)):
        if one.group != group:
            group = one.group
            lines += [*([""] if lines else []), group]
        lines.append(f"  {'pass' if one.passed else 'FAIL'}  {one.title:{width}}  {printable(one.seen)}".rstrip())
    failed = len(report.failed)
    lines += [
        "",
        f"{printable(report.subject)}: grade {report.grade}, {failed} of {len(report.findings)} probes failed",
    ]
    if report.relaxed:
        lines.append(f"relaxed: {printable(', '.join(report.relaxed))}")
    return "\n".join(lines)


def _two_cards(one: Report, other: Report) -> str:
    """Each probe on two lines, one for each way of isolation."""
    lines: list[str] = []
    group = ""
    width = max(len(finding.title) for finding in one.findings)
    names = max(len(one.isolation), len(other.isolation))
    for first in sorted(one.findings, key=lambda finding: _ORDER.index(finding.group)):
        if first.group != group:
            group = first.group
            lines += [*([""] if lines else []), group]
        for report, title in ((one, first.title), (other, "")):
            found = report[first.key]
            word = "pass" if found.passed else "FAIL"
            lines.append(f"  {title:{width}}  {report.isolation:{names}}  {word}  {printable(found.seen)}".rstrip())
    lines.append("")
    for report in (one, other):
        told = f"grade {report.grade}, {len(report.failed)} of {len(report.findings)} probes failed"
        lines.append(f"{printable(report.subject)} as {report.isolation}: {told}")
    return "\n".join(lines)


_ORDER = ("mounts", "devices", "processes", "namespaces", "system calls", "writes", "leaks", "privileges", "limits")
