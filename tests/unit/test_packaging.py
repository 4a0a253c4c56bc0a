"""What `make build` and `pip install` leave: two static launchers, `init`, compiled modules; and what a start loads."""

import importlib.util
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import runtime
from tests.helpers.warren import PROGRAM

BIN = PROGRAM.parent
COMMANDS = ("warren", "warren-oci")

# Each costs 1 to 150 ms, and a launch takes about 10 in all.  Some come unasked: array brings collections.
HEAVY = set(
    """
    argparse array asyncio click collections contextlib copy ctypes dataclasses enum functools inspect json logging
    operator os pathlib prctl pyroute2 random re shutil signal socket stat string subprocess tempfile threading types
    typing weakref
    """.split()
)
HOT = """
    errors syscalls host spec steps capabilities cgroups seccomp hooks state console plan launch checkpoint
    container oci
    namespaces namespaces.devices namespaces.mount namespaces.network namespaces.rootfs namespaces.user namespaces.uts
    netlink resctrl namespaces.netdevices
    cgroups.limits cgroups.unified cgroups.legacy cgroups.delegation cgroups.device_program cgroups.update
    cgroups.freezer cgroups.programs cgroups.oom cgroups.stats cgroups.events
    cgroups.systemd cgroups.dbus cgroups.unit_properties
    config config.accounts config.cdi
    config.ids config.image_config config.limits config.sources config.words
    images.local images.manifest images.overlay images.reference
    engine.event engine.health engine.images engine.journal engine.launching engine.lifecycle engine.logs engine.names
    engine.parallel engine.policy engine.processes engine.records engine.running engine.trees
    monitor options commands commands.ps commands.quick
""".split()

# Runs warren-oci as the launcher does, and writes down at its end what has been loaded.
TELL = """
import posix, sys
site, report, *words = sys.argv[1:]
sys.path.insert(0, site)
def leave(code):
    with open(report, "w") as file:
        print(code, *sys.modules, file=file)
    leave_now(0)
leave_now, posix._exit = posix._exit, leave
sys.argv = ["warren-oci", *words]
from runtime.oci import main
main()
"""

# Stands for both main modules where a launcher is tested: shows what it was started with.
STAND_IN = """
def main():
    import sys
    flags = [sys.flags.isolated, sys.flags.no_site, sys.flags.utf8_mode]
    print(__name__, sys.path[0], flags, ascii(sys.argv), sep="\\n")
"""


@pytest.fixture(scope="module")
def site() -> Path:
    """The site directory of `make build`."""
    assert PROGRAM.exists(), "run make build first"
    (found,) = BIN.parent.glob("lib/python3*/site-packages")
    return found


@pytest.fixture
def prefix(tmp_path: Path, site: Path) -> Path:
    """An installation with nothing but launchers, an interpreter and stand-ins for the main modules."""
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python3").symlink_to((BIN / "python3").resolve())
    for name in COMMANDS:
        shutil.copy2(BIN / name, prefix / "bin" / name)
    package = prefix / "lib" / site.parent.name / site.name / "runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "oci.py").write_text(STAND_IN)
    (package.parent / "cli.py").write_text(STAND_IN)
    return prefix


def start(program: Path, *arguments: str, name: str = "", env: dict[str, str] | None = None) -> list[str]:
    """The stand-in's lines: module, site directory, flags, sys.argv.  `name` is the argv[0] of a caller who lies."""
    command = [name or str(program), *arguments]
    done = subprocess.run(command, executable=program, env=env or {}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def is_static_program(path: Path) -> bool:
    """An ELF executable for 64 bits without an interpreter; elf(5)."""
    data = path.read_bytes()
    headers, size, count = struct.unpack_from("=Q", data, 32)[0], *struct.unpack_from("=HH", data, 54)
    kinds = [struct.unpack_from("=I", data, headers + number * size)[0] for number in range(count)]
    return data[:5] == b"\x7fELF\x02" and 3 not in kinds and os.access(path, os.X_OK)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_static_program(site: Path, name: str) -> None:
    assert is_static_program(BIN / name)
    assert (BIN / name).stat().st_size < 64 << 10


def test_init_is_installed_executable_and_static(site: Path) -> None:
    assert all(is_static_program(site / "runtime/init" / name) for name in ("init", "init-guest"))
    assert not list(site.glob("runtime/init/*.[ch]"))


def test_the_types_of_the_library_are_published(site: Path) -> None:
    assert (site / "runtime/py.typed").exists()


def test_the_wheel_is_one_for_this_architecture_and_every_python(site: Path) -> None:
    (metadata,) = site.glob("warren-*.dist-info")
    assert metadata.name == f"warren-{runtime.__version__}.dist-info"
    tags = [line.split()[1] for line in (metadata / "WHEEL").read_text().splitlines() if line.startswith("Tag: ")]
    assert tags
    assert all(tag.startswith("py3-none-") and tag.endswith(os.uname().machine) for tag in tags)


def test_every_module_is_compiled_from_what_is_installed(site: Path) -> None:
    for source in [*(site / "runtime").rglob("*.py"), site / "cli.py"]:
        compiled = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        flags, mtime, size = struct.unpack_from("=III", compiled, 4)
        assert (flags, mtime, size) == (0, int(source.stat().st_mtime), source.stat().st_size), source


def test_other_users_can_read_all_of_it(site: Path) -> None:
    for path in [site / "cli.py", *(site / "runtime").rglob("*"), *(BIN / name for name in COMMANDS)]:
        wanted = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & wanted == wanted, path


@pytest.mark.parametrize("module", HOT)
def test_a_module_of_the_hot_path_loads_nothing_heavy(site: Path, module: str) -> None:
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import runtime.{module}; print(*sys.modules)"
    loaded = subprocess.run(
        [BIN / "python3", "-I", "-S", "-c", code, site], capture_output=True, text=True, check=True
    ).stdout.split()
    assert f"runtime.{module}" in loaded
    assert HEAVY & set(loaded) == set()


def test_a_heavy_module_would_be_seen(site: Path) -> None:
    code = "import sys, os; print(*sys.modules)"
    bare, loaded = [
        set(subprocess.run([BIN / "python3", *options], capture_output=True, text=True, check=True).stdout.split())
        for options in (["-I", "-S", "-c", code.replace(", os", "")], ["-I", "-S", "-c", code])
    ]
    assert HEAVY & bare == set()
    assert HEAVY & loaded == {"os", "stat"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--version", 0),
        ("features", 0),
        ("--root ROOT list", 0),
        ("--root ROOT state nobody", 1),
        ("--root ROOT kill nobody KILL", 1),
        ("--root ROOT delete --force nobody", 0),
        ("--root ROOT create --plan --bundle BUNDLE somebody", 0),
        ("--root ROOT create --plan=json --bundle BUNDLE somebody", 0),
    ],
)
def test_a_command_of_engines_loads_nothing_heavy(site: Path, tmp_path: Path, words: str, code: int) -> None:
    bundle, report = tmp_path / "bundle", tmp_path / "report"
    (bundle / "rootfs").mkdir(parents=True)
    subprocess.run([BIN / "warren-oci", "spec", "--bundle", bundle], check=True)
    arguments = words.replace("ROOT", str(tmp_path / "root")).replace("BUNDLE", str(bundle)).split()
    done = subprocess.run(
        [BIN / "python3", "-I", "-S", "-c", TELL, site, report, *arguments], capture_output=True, text=True, check=False
    )
    ended_with, *loaded = report.read_text().split()
    assert int(ended_with) == code, done.stderr
    assert "runtime.oci" in loaded
    assert HEAVY & set(loaded) == set()


def test_a_launcher_starts_an_isolated_python_with_utf8_and_the_arguments_as_they_are(prefix: Path) -> None:
    words = ["a b", "", "-c", "--", "\xf6", "\udcff"]
    _, place, flags, argv = start(prefix / "bin/warren", *words, env={"LANG": "en_US.ISO-8859-1", "PYTHONPATH": "/x"})
    assert Path(place).is_relative_to(prefix)
    assert flags == "[1, 1, 1]"
    assert argv == ascii(["warren", *words])


@pytest.mark.parametrize(("name", "module"), [("warren", "cli"), ("warren-oci", "runtime.oci")])
def test_a_launcher_is_what_its_file_is_called_whatever_the_caller_says(prefix: Path, name: str, module: str) -> None:
    link = prefix / "runc"
    link.symlink_to(prefix / "bin" / name)
    assert start(link)[0] == module
    assert start(prefix / "bin" / name, name="/usr/bin/warren-oci")[0] == module


def test_a_launcher_without_a_python_beside_it_takes_the_systems(prefix: Path) -> None:
    """As pip install --user leaves it."""
    (prefix / "bin/python3").unlink()
    assert start(prefix / "bin/warren")[0] == "cli"


@pytest.mark.parametrize("library", ["lib/python3/dist-packages", "local/lib/python3.11/dist-packages"])
def test_a_launcher_finds_debians_directories(prefix: Path, site: Path, library: str) -> None:
    target = prefix / library
    target.parent.mkdir(parents=True, exist_ok=True)
    (prefix / "lib" / site.parent.name / site.name).rename(target)
    assert start(prefix / "bin/warren")[1] == str(target)


def test_of_several_pythons_a_launcher_takes_its_own(prefix: Path, site: Path) -> None:
    ours = prefix / "lib" / site.parent.name / site.name
    for other in ("python3.0", "python3.999"):
        shutil.copytree(ours, prefix / "lib" / other / "site-packages")
    assert start(prefix / "bin/warren")[1] == str(ours)


def test_a_launcher_takes_the_python_that_the_package_was_installed_for(prefix: Path, site: Path) -> None:
    (prefix / "lib" / site.parent.name).rename(prefix / "lib/python3.999")
    assert start(prefix / "bin/warren")[0] == "cli"
    other = prefix / "bin/python3.999"
    other.write_text("#!/bin/sh\necho other $7 $8\n")
    other.chmod(0o755)
    assert start(prefix / "bin/warren") == [f"other {prefix}/lib/python3.999/site-packages warren"]


def test_a_launcher_without_its_package_says_so(prefix: Path) -> None:
    shutil.rmtree(prefix / "lib")
    done = subprocess.run([prefix / "bin/warren-oci", "state", "c"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == f"warren-oci: the package is not below {prefix}/lib (install it again)\n"
