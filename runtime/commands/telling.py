"""What is said on standard error beside what a command prints; without click, for the commands that do without."""

import sys


def tell_error(error: Exception) -> None:
    """An error that does not end the command."""
    message = " ".join(str(error).split("\n"))
    tell(f"{message[:1].lower()}{message[1:]}")


def tell(message: str) -> None:
    """What an image or a container says may not steer the terminal."""
    print("warren:", "".join(char if char.isprintable() else " " for char in message), file=sys.stderr)
