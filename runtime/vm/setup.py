"""Fetching what guests run: Debian's packages, unpacked below the data directory and not installed."""

import glob
import os
import shutil
import subprocess

from ..errors import UnsupportedError, WarrenError
from .kernel import data_directory

PACKAGES = {"kernel": "linux-image-amd64", "uml": "user-mode-linux"}
"""The first names whatever is the current one; the cloud kernel lacks 9p and IDE."""


def fetch(part: str) -> str:
    """Fetch a part that is not there yet; where it is.  Raises UnsupportedError where there is no apt."""
    target = f"{data_directory()}/{part}"
    if os.path.isdir(target):
        return target
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if not shutil.which(program):
            raise UnsupportedError(f"vm setup: {program} is missing", hint="this is not Debian: use --kernel FILE")
    temporary = f"{target}.{os.getpid()}"
    os.makedirs(temporary)
    try:
        package = _current(PACKAGES[part])
        _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], temporary)
        (archive,) = glob.glob(f"{temporary}/*.deb")
        tree = f"{temporary}/tree"
        _run(["dpkg-deb", "-x", archive, tree], temporary)
        os.rename(tree, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _current(package: str) -> str:
    """What a metapackage depends on; a package itself."""
    said = _run(["apt-cache", "depends", package], "/")
    depends = [line.split(":", 1)[1].strip() for line in said.splitlines() if line.strip().startswith("Depends:")]
    images = [name for name in depends if name.startswith("linux-image-")]
    return images[0] if images else package


def _run(command: "list[str]", directory: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise WarrenError(f"{command[0]}: {lines[-1] if lines else 'failed'}", hint="apt-get update first?")
    return done.stdout
