"""Every command may be killed at any instruction; the next one leaves nothing behind (the leak check looks)."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle, Runtime
from tests.helpers.warren import Warren

COUNT = 300 if os.environ.get("WARREN_LONG") else 15
SEED = int(os.environ.get("WARREN_SEED") or time.time())


@pytest.fixture
def oci(directory: Path, token: str) -> Runtime:
    program = str(Path(__file__).parents[2] / ".venv/bin/warren-oci")
    return Runtime(program, directory / "runtime", f"{token}-{directory.name[-6:]}")


def kill_somewhere(start: "Callable[[], subprocess.Popen[bytes]]", dice: random.Random, longest: float) -> None:
    """Start a command and kill it after a random time."""
    process = start()
    time.sleep(dice.uniform(0, longest))
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_create_killed_anywhere(oci: Runtime, bundle: Bundle) -> None:
    dice = random.Random(SEED)
    bundle.save()
    for number in range(COUNT):
        name = f"wrn-{oci.name}-{number}"
        kill_somewhere(lambda name=name: oci.spawn("create", "--bundle", bundle.path, name)[0], dice, 0.035)  # type: ignore[misc]
        result = oci("delete", "--force", name)
        assert result.code == 0, f"WARREN_SEED={SEED} round {number}: {result}"
    assert oci("list", "-q").out == ""


def test_delete_killed_anywhere(oci: Runtime, bundle: Bundle) -> None:
    dice = random.Random(SEED)
    for number in range(COUNT):
        container = oci.up(bundle)
        kill_somewhere(lambda id=container.id: oci.spawn("delete", "--force", id)[0], dice, 0.025)  # type: ignore[misc]
        result = container.delete("--force")
        assert result.code == 0, f"WARREN_SEED={SEED} round {number}: {result}"
    assert oci("list", "-q").out == ""


def test_run_killed_anywhere(warren: Warren) -> None:
    dice = random.Random(SEED)
    for number in range(COUNT):
        process = warren.popen("run", "host", "--", "sleep", "1000")
        time.sleep(dice.uniform(0, 0.12))
        process.kill()
        process.communicate()
        assert number < COUNT
    # The next command removes whatever the killed ones left.
    warren("run", "host", "--", "true").ok()
    leases = Path("/run/warren/.ids")
    assert not leases.exists() or not list(leases.iterdir()), f"WARREN_SEED={SEED}"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"config": 1}', b"\xff\xfe"])
def test_a_damaged_record_hides_nothing(oci: Runtime, bundle: Bundle, content: bytes | None) -> None:
    """RULES 20: the container is still found, killed and removed."""
    container = oci.up(bundle)
    pid = container.pid
    record = oci.root / container.id / "state.json"
    record.unlink()
    if content is not None:
        record.write_bytes(content)
    assert container.id in oci("list", "-q").out
    container.delete("--force").ok()
    assert not Path(f"/proc/{pid}/root/bin/probe").exists()
    assert oci("list", "-q").out == ""


def test_of_many_creates_of_one_id_one_wins(oci: Runtime, bundle: Bundle) -> None:
    bundle.save()
    name = f"wrn-{oci.name}-race"
    started = [oci.spawn("create", "--bundle", bundle.path, name)[0] for _ in range(6)]
    codes = sorted(process.wait(30) for process in started)
    assert codes == [0, 1, 1, 1, 1, 1]
    oci("delete", "--force", name).ok()


def test_many_deletes_at_once_all_succeed(oci: Runtime, bundle: Bundle) -> None:
    container = oci.up(bundle)
    started = [oci.spawn("delete", "--force", container.id)[0] for _ in range(6)]
    assert [process.wait(30) for process in started] == [0] * 6
