"""Writes the manual pages, warren.1, one for each command, and warren-oci.8, from the definitions of the commands.

    python3 tools/man_pages.py DIRECTORY

hatch_build.py does so for each wheel: a page cannot be older than what it describes.  The language is man(7)'s.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from runtime import __version__, oci
from runtime.commands.table import SECTIONS, commands, section_of

ABOUT = """\
Starts containers from images, from the host's own root or from directories, without a daemon, and manages them, their
images, networks and volumes.
Options and output are those of \\fBdocker\\fR(1) where it has them.
Each command tells of itself with \\fB\\-\\-help\\fR, and has a page of its own."""
ABOUT_OCI = """\
What podman, containerd, dockerd and CRI\\-O call instead of runc or crun; it takes their options and behaves as the OCI
runtime specification says."""
EXIT_CODES = """\
.TP
.B 125
Warren itself failed; one line on standard error says why.
.TP
.B 126
The command cannot be executed.
.TP
.B 127
The command was not found.
.TP
.B 124
It took longer than \\-\\-timeout allows.
.TP
.I other
The command's own, 128+n when signal n ended it."""
FILES = """\
.TP
.I /var/lib/warren
What lasts: containers, images, volumes, networks.  $XDG_DATA_HOME/warren for ordinary users.
.TP
.I /run/warren
State of what runs.  $XDG_RUNTIME_DIR/warren for ordinary users."""
OF_A_CONTAINER = ("run", "exec", "start", "attach")
"""Commands that may end as a container does."""


def escape(text: str) -> str:
    """As roff prints it as it is: "-" is a hyphen there, and "." or "'" at the start of a line a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def bold_code(text: str) -> str:
    """`words` in bold."""
    return re.sub(r"`([^`]*)`", lambda found: f"\\fB{found[1]}\\fR", escape(text))


def heading(name: str, section: int) -> list[str]:
    return [f'.TH {escape(name).upper()} {section} "" "Warren {__version__}" "Warren"']


def paragraphs(text: str) -> Iterator[str]:
    """Of a docstring; a blank line parts them."""
    for number, part in enumerate(re.split(r"\n\s*\n", text.replace("\b", "").split("\f")[0].strip())):
        if number:
            yield ".PP"
        yield bold_code(" ".join(part.split()))


def option_lines(option: click.Option) -> Iterator[str]:
    names = ", ".join(f"\\fB{escape(name)}\\fR" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f" \\fI{escape(option.metavar or option.type.name.upper())}\\fR"
    yield ".TP"
    yield names + value
    yield bold_code(option.help or "As its name says.")
    if isinstance(option.type, click.Choice):
        yield f"One of {escape(', '.join(map(str, option.type.choices)))}."


def options(command: click.Command) -> Iterator[str]:
    groups: dict[str, list[click.Option]] = {}
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            groups.setdefault(getattr(param, "group", "") or "General", []).append(param)
    if groups:
        yield ".SH OPTIONS"
    for group, found in groups.items():
        if len(groups) > 1:
            yield f'.SS "{escape(group)}"'
        for option in found:
            yield from option_lines(option)


def synopsis(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    context = context_of(command, " ".join(path))
    yield ".SH SYNOPSIS"
    yield f"\\fB{escape(' '.join(path))}\\fR {escape(' '.join(command.collect_usage_pieces(context)))}"


def page(command: click.Command, path: tuple[str, ...]) -> str:
    name = "-".join(path)
    short = command.get_short_help_str(1000).rstrip(".")
    lines = [*heading(name, 1), ".SH NAME", f"{escape(name)} \\- {bold_code(short)}", *synopsis(command, path)]
    lines += [".SH DESCRIPTION", *paragraphs(command.help or short)]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *(line for child in children(command) for line in summary(command, child, path))]
    lines += options(command)
    if path[-1] in OF_A_CONTAINER:
        lines += [".SH EXIT STATUS", EXIT_CODES]
    parent = "-".join(path[:-1])
    lines += [".SH SEE ALSO", f".BR {escape(parent)} (1)"]
    return "\n".join(lines) + "\n"


def context_of(command: click.Command, name: str = "") -> click.Context:
    return click.Context(command, info_name=name, **command.context_settings)


def children(group: click.Group) -> list[str]:
    return group.list_commands(context_of(group))


def child_of(group: click.Group, name: str) -> click.Command:
    found = group.get_command(context_of(group), name)
    assert found is not None
    return found


def summary(group: click.Group, name: str, path: tuple[str, ...]) -> list[str]:
    short = child_of(group, name).get_short_help_str(1000)
    return [".TP", f"\\fB{escape('-'.join((*path, name)))}\\fR(1)", bold_code(short)]


def overview() -> str:
    lines = [
        *heading("warren", 1), ".SH NAME", f"warren \\- {escape((commands.help or '').strip().rstrip('.'))}",
        *synopsis(commands, ("warren",)), ".SH DESCRIPTION",
        ABOUT,
    ]  # fmt: skip
    for section in SECTIONS:
        lines.append(f'.SH "{section.upper()}"')
        for name in children(commands):
            if section_of(name) == section:
                lines += summary(commands, name, ("warren",))
    lines += [*options(commands), ".SH EXIT STATUS", EXIT_CODES, ".SH FILES", FILES]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR warren\\-oci (8)"]) + "\n"


def of_oci() -> str:
    """Its commands are those of runc(8), whose options are told there and in the engines' manuals."""
    lines = [
        *heading("warren-oci", 8), ".SH NAME", "warren\\-oci \\- an OCI runtime for container engines", ".SH SYNOPSIS",
        f"\\fBwarren\\-oci\\fR {escape(oci._option_words(oci._GLOBAL))}\\fIcommand\\fR ...", ".SH DESCRIPTION",
        ABOUT_OCI,
        ".SH COMMANDS",
    ]  # fmt: skip
    for name, (words, known) in oci._COMMANDS.items():
        lines += [".TP", f"\\fB{escape(name)}\\fR {escape(oci._option_words(known) + words)}".rstrip()]
        lines += [OCI_COMMANDS[name]]
    lines += [".SH EXIT STATUS", "0, or 1 after an error, which is told in one line on standard error and in the log."]
    lines += ["\\fBrun\\fR and \\fBexec\\fR in the foreground end with the command's own exit code."]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR warren (1)"]) + "\n"


OCI_COMMANDS = {
    "create": "Set up the container of a bundle, up to its program.",
    "run": "Create and start it.",
    "start": "Let the program of a created container run.",
    "state": "Print what is known of it, as JSON.",
    "kill": "Send a signal (TERM) to its first process, or to all.",
    "pause": "Freeze it.",
    "resume": "Let it go on.",
    "delete": "Remove what is left of one that has ended, with \\-\\-force of any.",
    "exec": "Run another process in it.",
    "update": "Change its limits.",
    "events": "Print its statistics and the kills for lack of memory.",
    "checkpoint": "Write its processes to disk with criu(8).",
    "restore": "Make it from what was written.",
    "ps": "List its processes.",
    "list": "List all containers.",
    "spec": "Write a config.json to start from.",
    "features": "Print what this runtime can do, as JSON.",
}


def pages() -> Iterator[tuple[str, str]]:
    """File names and texts."""
    yield "warren.1", overview()
    yield "warren-oci.8", of_oci()

    def below(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for name in children(group):
            command = child_of(group, name)
            yield f"{'-'.join((*path, name))}.1", page(command, (*path, name))
            if isinstance(command, click.Group):
                yield from below(command, (*path, name))

    yield from below(commands, ("warren",))


def write(directory: Path) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    for name, text in pages():
        (directory / name).write_text(text)
        found.append(directory / name)
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]))
