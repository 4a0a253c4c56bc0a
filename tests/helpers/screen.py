"""A person at a terminal emulator: tmux(1), with a server of its own, a shell in it, and what can be seen."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PROMPT = "outside> "


class Screen:
    """30 rows of 100 columns; a context manager."""

    def __init__(self, directory: Path, program: Path, prefix: tuple[str, ...] = ()) -> None:
        self._tmux = [*prefix, "tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        self._program = program

    def __enter__(self) -> "Screen":
        shell = ["env", "-i", "TERM=screen", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", f"PS1={PROMPT}", "sh"]
        self("new-session", "-d", "-x", "100", "-y", "30", *shell)
        self("set-option", "-g", "status", "off")
        self.types(f"alias warren={self._program}")
        self.sees_prompt()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True)

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True, timeout=20).stdout

    def types(self, line: str) -> None:
        """Type it and press Enter, on a screen without what was there before."""
        self("clear-history")
        self("send-keys", "-l", line)
        self("send-keys", "Enter")

    def presses(self, *keys: str) -> None:
        """By tmux's names, such as C-c."""
        self("send-keys", *keys)

    def resize(self, rows: int, columns: int) -> None:
        self("resize-window", "-x", str(columns), "-y", str(rows))

    def lines(self) -> list[str]:
        return self("capture-pane", "-p").rstrip("\n").splitlines()

    def clear(self) -> None:
        self("send-keys", "-R")
        self("clear-history")

    def sees(self, text: str, timeout: float = 20) -> None:
        """Wait until a line of the screen is this text, but for blanks."""
        self._until(lambda: text in [line.strip() for line in self.lines()], timeout, f"no line {text!r}")

    def sees_prompt(self, prompt: str = PROMPT, timeout: float = 20) -> None:
        """Wait until the last line is a prompt with nothing behind it; before it may be what the shell left."""
        self._until(lambda: "".join(self.lines()[-1:]).rstrip().endswith(prompt.rstrip()), timeout, f"no {prompt!r}")

    def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what}; the screen has {self.lines()}"
            time.sleep(0.05)
