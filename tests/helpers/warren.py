"""Drives the `warren` command line from outside."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import probe
from .probe import Answers
from .processes import MARKER

PROGRAM = Path(__file__).parents[2] / ".venv/bin/warren"


class Result:
    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        self.command, self.code, self.out, self.err = done.args, done.returncode, done.stdout, done.stderr

    def ok(self) -> "Result":
        assert self.code == 0, str(self)
        return self

    def fails(self, code: int, *words: str) -> "Result":
        """One line on stderr with these words, and this exit code."""
        assert self.code == code, str(self)
        assert len(self.err.splitlines()) == 1, str(self)
        assert self.err.startswith("warren: "), str(self)
        for word in words:
            assert word in self.err, f"{word!r} is not in the message: {self}"
        return self

    @property
    def answers(self) -> Answers:
        return Answers(self.out)

    def __str__(self) -> str:
        return f"{self.command}\nexit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


class Warren:
    """Runs `warren` with a small environment; `prefix` goes in front, to become another user for example."""

    def __init__(self, prefix: Sequence[str] = (), env: dict[str, str] | None = None, program: Path = PROGRAM) -> None:
        self.prefix, self.program = list(prefix), program
        self.env = {"PATH": os.environ["PATH"], MARKER: os.environ.get(MARKER, ""), **(env or {})}

    def __call__(
        self,
        *arguments: str | Path,
        input: str = "",
        cwd: Path | None = None,
        timeout: float = 60,
        env: dict[str, str] | None = None,
    ) -> Result:
        command = self._command(arguments)
        return Result(
            subprocess.run(
                command,
                input=input,
                capture_output=True,
                text=True,
                timeout=timeout,
                cwd=cwd or "/",
                env={**self.env, **(env or {})},
            )
        )

    def _command(self, arguments: Sequence[str | Path]) -> list[str]:
        """A container in the foreground goes when it ends, unless the test says what is to become of it."""
        words = [*map(str, arguments)]
        if words[:1] == ["run"] and not {"--rm", "-d", "--detach", "--plan", "--name", "--replicas"} & set(words):
            words.insert(1, "--rm")
        return [*self.prefix, str(self.program), *words]

    def popen(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        command = self._command(arguments)
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=self.env,
        )

    def ask(self, *arguments: str | Path) -> Answers:
        """Arguments up to "--" are warren's; each one after it is a question to the probe of a test root."""
        split = arguments.index("--")
        command = probe.command(*map(str, arguments[split + 1 :]))
        return self("run", *arguments[:split], *command).ok().answers
