"""A whole test inside a container: its own pytest there runs that one test, and its reports are replayed here.

    pytest ──> runtime.run("host", [python, ...]) ──> pytest NODE      the tree and the interpreter are read-only
       │  <── reports, a line of JSON each, on what was its stdout ──┘

The host's own root has the interpreter already.  Other images get it under /.warren, with the loader and the libraries
that this process has, so that it runs in an image with another C library, or with none.
"""

import json
import os
import sys

import pytest

from runtime.engine.library import run
from runtime.errors import TimeoutExpiredError, UnsupportedError, WarrenError

from .containers import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Json = dict[str, Any]

_HOST = "host"
_OWN_IN_CONTAINER = ("/tmp", "/run", "/dev", "/sys", "/proc")
"""Of the host's root a container has these for itself."""
_PLACE = "/.warren"
_BOOT = (
    "import sys,json;sys.dont_write_bytecode=True;r=json.loads(sys.stdin.readline());sys.path[:]=r['path'];"
    "from runtime.pytest_plugin.inner import serve;serve(r)"
)
_SITE = os.path.abspath(__file__).rpartition("/runtime/")[0]
_SECONDS = 300.0
_MACHINE_MEMORY = "512m"
"""Of a virtual machine, whose default is enough for a kernel and little more; it takes what it uses."""
_TAIL = 4000


def run_protocol(item: pytest.Item, nextitem: "pytest.Item | None") -> bool:
    """pytest_runtest_protocol of one that is marked `inside`."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        hook.pytest_runtest_logreport(report=report)
    # Nothing of it was set up here, but what earlier tests have left to it may have to go.
    call = pytest.CallInfo.from_call(
        lambda: item.session._setupstate.teardown_exact(nextitem),
        when="teardown", reraise=(KeyboardInterrupt, pytest.exit.Exception),
    )  # fmt: skip
    if call.excinfo:
        hook.pytest_runtest_logreport(report=hook.pytest_runtest_makereport(item=item, call=call))
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item) -> "list[pytest.TestReport]":
    try:
        said, complaints = _run(item)
    except UnsupportedError as error:
        if item.config.getoption("container_strict"):
            return [_made_up(item, "failed", str(error))]
        path, line, _ = item.location
        return [_made_up(item, "skipped", (path, line or 0, f"Skipped: {reason(error)}"))]
    except WarrenError as error:
        return [_made_up(item, "failed", f"the container of this test failed: {error}")]
    found, ended = _parse(item, said)
    if not ended or not found:
        text = "the test inside the container ended without a report"
        found.append(_made_up(item, "failed", f"{text}\n{complaints[-_TAIL:].decode(errors='replace')}"))
    return found


def _parse(item: pytest.Item, said: bytes) -> "tuple[list[pytest.TestReport], bool]":
    """Its reports, and whether it came to its end."""
    found, ended = [], False
    for line in said.splitlines():
        data = json.loads(line)
        if "end" in data:
            ended = True
            continue
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        if isinstance(report, pytest.TestReport):
            report.nodeid, report.location = item.nodeid, item.location
            if isinstance(report.longrepr, list):  # Where and why it was skipped; JSON knows no tuples.
                report.longrepr = tuple(report.longrepr)
            found.append(report)
        elif report is not None and report.failed:
            found.append(_made_up(item, "failed", str(report.longrepr)))
    return found, ended


def _made_up(item: pytest.Item, outcome: "Any", text: "Any") -> pytest.TestReport:
    keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(
        item.nodeid, item.location, keywords, outcome, text, "call" if outcome == "failed" else "setup"
    )


# ---- the container


def _run(item: pytest.Item) -> "tuple[bytes, bytes]":
    """What it has reported, and what it has said beside that.  Raises what runtime.run() raises."""
    options: Json = {}
    for mark in reversed(list(item.iter_markers("inside"))):
        options.update(zip(("image",), mark.args, strict=False))
        options.update(mark.kwargs)
    if str(options.get("isolation", "")).startswith("vm"):
        options.setdefault("memory", _MACHINE_MEMORY)
    image = options.pop("image", _HOST)
    more = options.pop("args", ())
    timeout = options.pop("timeout", _SECONDS)
    place = _Place(item, image)
    mounts = [*place.mounts, *options.pop("mounts", ())]
    request = {"path": place.path, "args": [*_arguments(item), *more]}
    try:
        done = run(
            image, place.argv, cwd=str(item.config.rootpath), mounts=mounts, timeout=timeout,
            input=json.dumps(request) + "\n", capture_output=True, **{"entrypoint": "", **options},
        )  # fmt: skip
    except TimeoutExpiredError as error:
        raise WarrenError(f"it took longer than {timeout:g} s and was killed") from error
    return done.stdout, done.stderr


def _arguments(item: pytest.Item) -> "list[str]":
    """The node, and what of this run's options changes how one test is run and told of."""
    config, option = item.config, item.config.option
    file, _, rest = item.nodeid.partition("::")
    found = [f"{config.rootpath / file}::{rest}" if rest else str(item.path), f"--rootdir={config.rootpath}"]
    if config.inipath:
        found.append(f"-c{config.inipath}")
    for plugin in option.plugins or ():
        found += ["-p", plugin]
    found += ["-p", "no:cacheprovider", "-p", "no:terminalreporter", "-oaddopts="]
    found += [f"-o{one}" for one in option.override_ini or ()]
    found += [f"--import-mode={option.importmode}", f"--assert={option.assertmode}", f"--tb={option.tbstyle}"]
    found += ["-l"] if option.showlocals else []
    return [*found, f"--capture={option.capture}", *["-v"] * max(0, option.verbose)]


class _Place:
    """Where the interpreter and the tree are inside: mounts, sys.path and the command."""

    def __init__(self, item: pytest.Item, image: "str | os.PathLike[str]") -> None:
        root = str(item.config.rootpath)
        self.path = [os.path.abspath(path or ".") for path in sys.path]
        wanted = [root, str(item.path.parent), _SITE]
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


def _topmost(paths: "Any") -> "list[str]":
    """Without what is below another of them, and without the root."""
    found: list[str] = []
    for path in sorted(set(paths), key=len):
        if path != "/" and not any(_is_below(path, top) for top in found):
            found.append(path)
    return found


def _read_only(paths: "Any") -> "list[str]":
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
