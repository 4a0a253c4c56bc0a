"""Removing what containers have written, whose it is on the host or not."""

import posix

from .. import trees


def remove_tree(path: str) -> None:
    """rm -rf, followed by no link; idempotent.

    An ordinary user's containers make files that are not his own: what he may not remove, a helper does.
    """
    try:
        trees.remove_tree(path)
    except PermissionError:
        if not posix.geteuid():
            raise
        from .helper import on_files

        on_files({"task": "remove", "paths": [path]}).finish()
