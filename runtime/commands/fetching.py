"""What `run` and `create` pull an image with that is not there."""

from typing import Any

from .printing import show_progress


def fetch_image(name: str, store: Any, *, platform: str, quiet: bool) -> Any:
    """What `run` pulls with."""
    from ..images.manifest import parse_platform
    from ..images.pull import pull

    with show_progress(quiet) as progress:
        return pull(name, store, platform=parse_platform(platform) if platform else None, progress=progress)
