"""Images made from Debian's packages, for machines without a registry."""

import os
import shutil
import subprocess
import tempfile

from ..errors import ImageError, UnsupportedError, UsageError
from .changes import commit_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .reference import Reference
    from .store import Image, Store

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
_SUITE = "stable"


def busybox(store: "Store", name: "Reference", program: str = "/bin/busybox") -> "Image":
    """Debian's busybox-static with all its commands; UnsupportedError where it is not installed."""
    if not os.access(program, os.X_OK):
        raise UnsupportedError(f"{program} is missing", hint="apt-get install busybox-static")
    done = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory(prefix="warren-") as root:
        for directory in _DIRECTORIES:
            os.mkdir(f"{root}/{directory}", 0o755)
        os.chmod(f"{root}/tmp", 0o1777)
        shutil.copy(program, f"{root}/bin/busybox")
        if not _runs(f"{root}/bin/busybox"):
            raise UnsupportedError(f"{program} is not a static program", hint="apt-get install busybox-static")
        for command in sorted(set(done.stdout.split()) - {"busybox"}):
            os.symlink("busybox", f"{root}/bin/{command}")
        for path, text in _FILES.items():
            with open(f"{root}/{path}", "w", encoding="utf-8") as file:
                file.write(text)
        return commit_tree(store, root, [name], {"Env": [_PATH], "Cmd": ["sh"]}, "warren image bootstrap busybox")


def _runs(program: str) -> bool:
    """Whether it needs no other file: an ELF file without an interpreter (elf(5), PT_INTERP)."""
    with open(program, "rb") as file:
        return b"/ld-linux" not in file.read(4096)


def debian(store: "Store", name: "Reference", suite: str = "", mirror: str = "") -> "Image":
    """debootstrap's minimal Debian of a suite, from a mirror; takes a minute.

    Raises UnsupportedError where debootstrap is missing or this user may not, ImageError with its last line.
    """
    program = shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not program:
        raise UnsupportedError("debootstrap is missing", hint="apt-get install debootstrap")
    if not store.privileged:
        raise UnsupportedError("debootstrap needs root", hint="run it as root, or pull an image")
    for word in (suite, mirror):
        if word.startswith("-"):
            raise UsageError(f"{word!r} is neither a suite nor a mirror")
    with tempfile.TemporaryDirectory(prefix="warren-") as root:
        os.chmod(root, 0o755)
        words = [program, "--variant=minbase", suite or _SUITE, root, *([mirror] if mirror else [])]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise ImageError(f"debootstrap failed: {''.join(last)[:300]}", hint="--mirror, --suite")
        for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(f"{root}/{cache}", ignore_errors=True)
            os.makedirs(f"{root}/{cache}/partial", mode=0o755)
        return commit_tree(store, root, [name], {"Env": [_PATH], "Cmd": ["bash"]}, "warren image bootstrap debian")
