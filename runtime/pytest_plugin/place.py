"""What a test inside a container needs there: the tree and the interpreter, read-only.

The host's own root has the interpreter already.  Other images get it under /.warren, with the loader and the libraries
that this process has, so that it runs in an image with another C library, or with none.
"""

import os
import sys

from runtime.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_HOST = "host"
_OWN_IN_CONTAINER = ("/tmp", "/run", "/dev", "/sys", "/proc")
"""Of the host's root a container has these for itself."""
_PLACE = "/.warren"
_BOOT = (
    "import os,sys,json;sys.dont_write_bytecode=True;f=os.fdopen(os.dup(0));"
    "os.dup2(os.open('/dev/null',os.O_RDONLY),0);r=json.loads(f.readline());sys.path[:]=r['path'];"
    "from runtime.pytest_plugin.inner import serve;serve(r['args'],f)"
)
"""Requests come on standard input, where tests are not to find them."""
_SITE = os.path.abspath(__file__).rpartition("/runtime/")[0]


class Place:
    """Where the interpreter and the tree are inside, `root` and the directories of tests: mounts, sys.path and argv."""

    def __init__(self, root: str, directories: "Iterable[str]", image: "str | os.PathLike[str]") -> None:
        self.path = [os.path.abspath(path or ".") for path in sys.path]
        wanted = [root, *directories, _SITE]
        wanted += [path for path in self.path if os.path.exists(path)]
        if image == _HOST:
            wanted += [sys.prefix, sys.base_prefix]
            self.mounts = _read_only(path for path in wanted if path == root or _is_hidden(path))
            self.argv = [sys.executable, "-c", _BOOT]
            return
        self._carry(wanted)

    def _carry(self, wanted: "list[str]") -> None:
        """The interpreter with its loader and libraries below /.warren; the rest stays where it is."""
        base, program = os.path.realpath(sys.base_prefix), os.path.realpath(sys.executable)
        loader, libraries = _loaded()
        carried = [base, os.path.dirname(program), os.path.dirname(loader), *libraries]
        tops = _topmost(carried)
        own = [path for path in wanted if not _is_below(os.path.realpath(path), base)]
        self.mounts = [f"{path}:{_PLACE}{path}:ro" for path in tops] + _read_only(own)
        self.path = [_PLACE + os.path.realpath(path) if _is_below(os.path.realpath(path), base) else path
                     for path in self.path]  # fmt: skip
        within = [_PLACE + path for path in libraries]
        self.argv = [
            _PLACE + loader, "--library-path", ":".join(within), "--argv0", _PLACE + program, _PLACE + program,
            "-c", _BOOT,
        ]  # fmt: skip


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _is_hidden(path: str) -> bool:
    return any(_is_below(path, top) for top in _OWN_IN_CONTAINER)


def _topmost(paths: "Iterable[str]") -> "list[str]":
    """Without what is below another of them, and without the root."""
    found: list[str] = []
    for path in sorted(set(paths), key=len):
        if path != "/" and not any(_is_below(path, top) for top in found):
            found.append(path)
    return found


def _read_only(paths: "Iterable[str]") -> "list[str]":
    return [f"{path}:{path}:ro" for path in _topmost(paths) if os.path.isdir(path)] + [
        f"{path}:{path}:ro" for path in _topmost(paths) if os.path.isfile(path)
    ]


def _loaded() -> "tuple[str, list[str]]":
    """This process's dynamic loader, and where its libraries are.  UnsupportedError for a static interpreter."""
    with open("/proc/self/maps") as file:
        paths = {line.split(None, 5)[5].strip() for line in file if line.count("/") > 1}
    files = [os.path.realpath(path) for path in paths if ".so" in os.path.basename(path) and os.path.exists(path)]
    loader = next((path for path in files if os.path.basename(path).startswith(("ld-", "ld."))), "")
    if not loader:
        raise UnsupportedError("this interpreter has no dynamic loader that could be taken along", hint='use "host"')
    extensions = ("lib-dynload", "site-packages", "dist-packages")
    return loader, sorted({os.path.dirname(path) for path in files if not any(word in path for word in extensions)})
