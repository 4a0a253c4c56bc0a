"""Errors and warnings that do not end a command; loads nothing."""

import sys


def tell_error(error: Exception) -> None:
    """An error that does not end the command."""
    message = " ".join(str(error).split("\n"))
    tell(f"{message[:1].lower()}{message[1:]}")


def tell(message: str) -> None:
    """What an image or a container says may not steer the terminal."""
    print("warren:", "".join(char if char.isprintable() else " " for char in message), file=sys.stderr)
