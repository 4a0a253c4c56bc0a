"""The manual pages: one for each command, nothing of it left out, and none that groff complains about."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runtime import oci
from runtime.commands.table import HOMES, SECTIONS, commands, section_of
from tests.helpers.warren import PROGRAM
from tools import man_pages

PAGES = dict(man_pages.pages())


def walk(command: click.Command, path: tuple[str, ...] = ("warren",)) -> Iterator[tuple[str, click.Command]]:
    yield "-".join(path), command
    if isinstance(command, click.Group):
        for name in man_pages.children(command):
            yield from walk(man_pages.child_of(command, name), (*path, name))


COMMANDS = dict(walk(commands))


def shown(text: str) -> str:
    """The page as man(1) prints it."""
    command = ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8", "-P", "-cbou", "-rLL=100n"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_each_command_has_a_page() -> None:
    assert set(PAGES) == {f"{name}.1" for name in COMMANDS} | {"warren-oci.8"}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_groff_takes_a_page_and_shows_all_options(name: str) -> None:
    text = shown(PAGES[name])
    command = COMMANDS.get(name.removesuffix(".1"))
    for param in command.params if command else ():
        if isinstance(param, click.Option):
            assert all(option in text for option in param.opts), param.opts
    assert "`" not in text


def test_the_overview_names_each_command() -> None:
    assert all(f"warren\\-{name}".replace("-", "-") in PAGES["warren.1"] for name in HOMES)
    assert {section_of(name) for name in HOMES} == set(SECTIONS)
    assert {module for homes in SECTIONS.values() for module in homes.split()} == set(HOMES.values())


def test_the_page_of_the_runtime_names_each_command() -> None:
    assert set(man_pages.OCI_COMMANDS) == set(oci._COMMANDS)


def test_text_cannot_be_a_request() -> None:
    assert "  .so /etc/passwd" not in man_pages.escape("a\n.so /etc/passwd")
    assert shown(f".TH a 1\n{man_pages.escape('.so /etc/passwd')}").count(".so /etc/passwd") == 1
    assert "back\\slash" in shown(f".TH a 1\n{man_pages.escape(chr(92).join(('back', 'slash')))}")


def test_the_pages_are_installed() -> None:
    for name, text in PAGES.items():
        assert (PROGRAM.parent.parent / f"share/man/man{name[-1]}" / name).read_text() == text


def test_the_tool_writes_them(tmp_path: Path) -> None:
    tool = Path(man_pages.__file__)
    subprocess.run([sys.executable, "-B", tool, tmp_path / "man"], check=True, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "man").iterdir()} == set(PAGES)
