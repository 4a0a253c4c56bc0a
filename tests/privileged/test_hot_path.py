"""What a real launch has imported: each of the heavy modules costs as much as a good part of a launch."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle
from tests.unit.test_packaging import BIN, HEAVY, TELL


def loaded(directory: Path, *words: str | Path) -> set[str]:
    """Run warren-oci as its launcher does; the names in sys.modules at its end."""
    report = directory / "report"
    site = next((BIN.parent / "lib").glob("python3*/site-packages"))
    command = [BIN / "python3", "-I", "-S", "-c", TELL, site, report, "--root", directory / "state", *words]
    # A created container keeps its standard streams, so they must not be pipes that somebody reads to the end.
    with open(directory / "said", "w+") as said:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, timeout=60)
    code, *names = report.read_text().split()
    assert code == "0", (directory / "said").read_text()
    return set(names)


@pytest.mark.parametrize("seccomp", [False, True])
def test_a_launch_loads_nothing_heavy(bundle: Bundle, directory: Path, seccomp: bool) -> None:
    if seccomp:
        from runtime.seccomp import default_profile

        bundle.linux["seccomp"] = default_profile(set(), "x86_64")
    bundle.asks("true").save()
    name = f"wrn-{directory.name}"
    loaded(directory, "run", "--bundle", bundle.path, name)  # The first one compiles the profile.
    names = loaded(directory, "run", "--bundle", bundle.path, name)
    assert {"runtime.launch", "runtime.container"} <= names
    assert not HEAVY & names


def test_create_exec_and_delete_load_nothing_heavy(bundle: Bundle, directory: Path) -> None:
    bundle.save()
    name = f"wrn-{directory.name}"
    assert not HEAVY & loaded(directory, "create", "--bundle", bundle.path, name)
    try:
        assert not HEAVY & loaded(directory, "start", name)
        assert not HEAVY & loaded(directory, "exec", name, "/bin/probe", "true")
    finally:
        assert not HEAVY & loaded(directory, "delete", "--force", name)
