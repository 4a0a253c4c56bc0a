"""Builds probe.c and reads its answers."""

import os
import shlex
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("probe.c")
FLAGS = ["-static", "-Os", "-std=gnu11", "-Wall", "-Wextra"]


def build(target: Path) -> Path:
    """Compile the probe; musl keeps it small, any C compiler that links statically will do."""
    attempts = []
    for compiler in (os.environ.get("PROBE_CC", "musl-gcc"), "gcc", "cc"):
        try:
            done = subprocess.run([compiler, *FLAGS, "-o", target, SOURCE], capture_output=True, text=True)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return target
        attempts.append(done.stderr)
    raise RuntimeError("no C compiler could build the probe:\n" + "\n".join(attempts))


def command(*questions: str) -> list[str]:
    """The probe's command line for these questions, each written as in a shell."""
    words = ["/bin/probe"]
    for question in questions:
        words += [*shlex.split(question), "--"]
    # The separator after the last one stays where there is one question only, so that answers always have headings.
    return words if len(questions) == 1 else words[:-1]


class Answers:
    """What the probe printed, by question: `answers["id"]` is a list of lines."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[str, list[str]] = {}
        current: list[str] = []
        for line in text.splitlines():
            if line.startswith("## "):
                current = self.lines.setdefault(line[3:], [])
            else:
                current.append(line)

    def __getitem__(self, question: str) -> list[str]:
        """The heading is the question without its quotes."""
        key = " ".join(shlex.split(question))
        assert key in self.lines, f"no answer to {question!r} in:\n{self.text}"
        return self.lines[key]

    def one(self, question: str) -> str:
        """The only line of an answer."""
        lines = self[question]
        assert len(lines) == 1, f"{question!r} was answered with {lines}"
        return lines[0]

    def table(self, question: str) -> dict[str, str]:
        """Lines as first word (a final colon is cut off) to the rest."""
        pairs = (line.split(None, 1) for line in self[question] if line)
        return {pair[0].removesuffix(":"): pair[1].strip() if len(pair) > 1 else "" for pair in pairs}


class Mount:
    """One line of mountinfo; proc(5)."""

    def __init__(self, line: str) -> None:
        left, right = line.split(" - ", 1)
        fields = left.split()
        self.root, self.target = fields[3], fields[4]
        self.options = set(fields[5].split(","))
        self.propagation = [word for word in fields[6:] if ":" in word or word == "unbindable"]
        self.type, self.source, super_options = right.split(" ", 2)
        self.super_options = set(super_options.split(","))

    def __repr__(self) -> str:
        return f"<{self.type} on {self.target} {sorted(self.options)} {sorted(self.super_options)}>"


def mounts(lines: list[str]) -> dict[str, Mount]:
    """By target; of several on one target the uppermost."""
    return {mount.target: mount for mount in map(Mount, lines)}
