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
from tests.helpers.processes import kill_monitors
from tests.helpers.warren import Warren

COUNT = 300 if os.environ.get("WARREN_LONG") else 15
SEED = int(os.environ.get("WARREN_SEED") or time.time())
STATE, CONTAINERS = Path("/run/warren"), Path("/var/lib/warren/containers")


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
    """Its container is not there, or goes on with its monitor, until that is killed, too; nothing is left then."""
    dice = random.Random(SEED)
    kept = set(os.listdir(CONTAINERS)) if CONTAINERS.exists() else set()
    for _ in range(COUNT):
        process = warren.popen("run", "host", "--", "sleep", "1000")
        time.sleep(dice.uniform(0, 0.12))
        process.kill()
        process.communicate()
    time.sleep(0.2)  # Monitors whose launch was killed end by themselves.
    warren("run", "host", "--", "true").ok()
    left = [name for name in os.listdir(CONTAINERS) if name not in kept and name[0] != "."]
    for name in left:
        assert warren("inspect", "--format", "{{.State.Status}}", name).ok().out == "running\n", f"WARREN_SEED={SEED}"
    kill_monitors(STATE, left)
    time.sleep(0.2)
    warren("run", "host", "--", "true").ok()
    assert not {*left} & {*os.listdir(CONTAINERS)}, f"WARREN_SEED={SEED}"
    assert not [name for name in left if (STATE / name).exists()], f"WARREN_SEED={SEED}"
    holders = {os.readlink(lease).split()[0] for lease in (STATE / ".ids").glob("*")}
    assert not holders & {*left}, f"WARREN_SEED={SEED}"


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


def test_run_of_a_bundle_killed_anywhere(oci: Runtime, bundle: Bundle) -> None:
    """What it was given to do goes on or ends, but --force finds it."""
    dice = random.Random(SEED)
    bundle.save()
    for number in range(COUNT):
        name = f"wrn-{oci.name}-{number}"
        kill_somewhere(lambda name=name: oci.spawn("run", "--bundle", bundle.path, name)[0], dice, 0.045)  # type: ignore[misc]
        result = oci("delete", "--force", name)
        assert result.code == 0, f"WARREN_SEED={SEED} round {number}: {result}"
    assert oci("list", "-q").out == ""


@pytest.mark.parametrize("verb", ["start", "exec", "kill"])
def test_a_verb_killed_anywhere(oci: Runtime, bundle: Bundle, verb: str) -> None:
    """The container is in a state of the spec afterwards, and goes away whole."""
    dice = random.Random(SEED)
    words = {"start": [], "exec": ["/bin/probe", "sleep", "60"], "kill": ["TERM"]}[verb]
    for number in range(COUNT):
        container = oci.create(bundle) if verb == "start" else oci.up(bundle)
        kill_somewhere(lambda id=container.id: oci.spawn(verb, id, *words)[0], dice, 0.025)  # type: ignore[misc]
        assert container.status in ("created", "running", "stopped"), f"WARREN_SEED={SEED} round {number}"
        result = container.delete("--force")
        assert result.code == 0, f"WARREN_SEED={SEED} round {number}: {result}"


def test_create_with_hooks_killed_anywhere(oci: Runtime, bundle: Bundle) -> None:
    """Also while a hook runs, with a user namespace, in which more processes take part."""
    dice = random.Random(SEED)
    bundle.maps(0x6FFF0000)
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "0.02"]}]}
    bundle.save()
    for number in range(COUNT):
        name = f"wrn-{oci.name}-{number}"
        kill_somewhere(lambda name=name: oci.spawn("create", "--bundle", bundle.path, name)[0], dice, 0.07)  # type: ignore[misc]
        result = oci("delete", "--force", name)
        assert result.code == 0, f"WARREN_SEED={SEED} round {number}: {result}"


def test_a_create_that_was_killed_can_be_repeated_after_delete(oci: Runtime, bundle: Bundle) -> None:
    """The same id again: nothing of the first one is in the way of the second."""
    dice = random.Random(SEED)
    bundle.save()
    name = f"wrn-{oci.name}-again"
    for number in range(COUNT):
        kill_somewhere(lambda: oci.spawn("create", "--bundle", bundle.path, name)[0], dice, 0.035)
        oci("delete", "--force", name).ok()
        result = oci("create", "--bundle", bundle.path, name)
        assert result.code == 0, f"WARREN_SEED={SEED} round {number}: {result}"
        oci("delete", "--force", name).ok()


def test_the_launch_interrupted_by_a_terminals_signal(warren: Warren) -> None:
    """SIGINT and SIGTERM at any instant of `warren run`: it ends by itself, and leaves nothing."""
    dice = random.Random(SEED)
    for number in range(COUNT):
        process = warren.popen("run", "--init", "host", "--", "sleep", "1000")
        time.sleep(dice.uniform(0, 0.12))
        process.send_signal(dice.choice([signal.SIGINT, signal.SIGTERM]))
        try:
            _, error = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise AssertionError(f"WARREN_SEED={SEED} round {number}: it did not end") from None
        assert "Traceback" not in error, f"WARREN_SEED={SEED} round {number}: {error}"
        assert process.returncode, f"WARREN_SEED={SEED} round {number}"


@pytest.mark.parametrize("name", ["pid", "fifo", "report", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "link to the host", "fifo", "directory"])
def test_a_damaged_file_of_the_state_blocks_nothing(oci: Runtime, bundle: Bundle, name: str, damage: str) -> None:
    """No verb hangs, and --force removes the container; a link is not followed."""
    container = oci.create(bundle)
    pid = container.pid
    place = oci.root / container.id / name
    victim = oci.directory / "victim"
    victim.write_text("mine")
    if place.is_symlink() or place.exists():
        place.unlink()
    if damage == "empty":
        place.touch()
    elif damage == "link to the host":
        place.symlink_to(victim)
    elif damage == "fifo":
        os.mkfifo(place)
    elif damage == "directory":
        (place / "below").mkdir(parents=True)
    for verb in (["state"], ["start"], ["kill"], ["ps"]):
        result = oci(verb[0], container.id, timeout=10)
        assert "internal error" not in result.err, str(result)
        assert "Traceback" not in result.err, str(result)
    oci("list", timeout=10).ok()
    container.delete("--force").ok()
    assert not (oci.root / container.id).exists()
    assert victim.read_text() == "mine"
    assert not Path(f"/proc/{pid}/root/bin/probe").exists()


@pytest.mark.parametrize("content", ["1 0 x", "x y z", "1", "", "999999999 1 1", "-1 1 1", "0 0 0", "1 2 3 4"])
def test_a_damaged_identity_never_hits_another_process(oci: Runtime, bundle: Bundle, content: str) -> None:
    """The number of a process alone is not its identity; what is killed must be the container's."""
    container = oci.up(bundle)
    pid = container.pid
    place = oci.root / container.id / "pid"
    place.unlink()
    place.symlink_to(content) if content else place.touch()
    container.kill("KILL")
    oci("state", container.id)
    container.delete("--force").ok()
    assert not Path(f"/proc/{pid}/root/bin/probe").exists()
    assert not (oci.root / container.id).exists()


@pytest.mark.parametrize("verbs", [("start", "delete"), ("delete", "exec"), ("kill", "delete"), ("state", "delete")])
def test_verbs_at_once_are_orderly(oci: Runtime, bundle: Bundle, verbs: tuple[str, str]) -> None:
    """Whoever loses gets an error of one line, never an internal one."""
    words = {"delete": ["--force"], "exec": [], "kill": [], "start": [], "state": []}
    behind = {"exec": ["/bin/probe", "true"], "kill": ["KILL"]}
    for _ in range(5):
        container = oci.create(bundle) if "start" in verbs else oci.up(bundle)
        started = [oci.spawn(verb, *words[verb], container.id, *behind.get(verb, [])) for verb in (*verbs, *verbs)]
        for process, base in started:
            process.wait(30)
            error = Path(f"{base}.err").read_text()
            assert "internal error" not in error, error
            assert len(error.splitlines()) <= 1, error
        container.delete("--force").ok()


def test_a_state_directory_that_no_create_finished(oci: Runtime, warren: Warren) -> None:
    """Killed between mkdir and the intent record."""
    name = f"wrn-{oci.name}-half"
    (oci.root / name).mkdir(parents=True)
    assert name in oci("list", "-q").ok().out
    oci("delete", "--force", name).ok()
    assert not (oci.root / name).exists()


def test_strangers_in_the_state_root_are_let_alone(oci: Runtime, bundle: Bundle) -> None:
    oci.root.mkdir(parents=True, mode=0o700)
    (oci.root / "a file").write_text("x")
    (oci.root / "plain").write_text("x")
    (oci.root / "link").symlink_to("/etc")
    (oci.root / "odd name!").mkdir()
    container = oci.up(bundle)
    assert oci("list", "-q").ok().out.split() == [container.id]
    container.delete("--force").ok()
    for name in ("plain", "link"):
        oci("delete", "--force", name)
    assert Path("/etc/passwd").exists()
    assert (oci.root / "a file").exists()


@pytest.mark.parametrize("milliseconds", range(6, 60, 4))
def test_control_c_while_the_program_is_still_loading_is_no_traceback(warren: Warren, milliseconds: int) -> None:
    """RULES 26.  Until the modules are imported SIGINT would be a KeyboardInterrupt somewhere in the middle of them."""
    process = warren.popen("run", "--init", "host", "--", "sleep", "1000")
    time.sleep(milliseconds / 1000)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert error in ("", "\n")  # click ends the line in which a terminal shows ^C.
    assert process.returncode in (130, -signal.SIGINT)


def test_an_update_killed_anywhere(oci: Runtime, bundle: Bundle) -> None:
    """The state can be read, and says one thing or the other; the next update holds; nothing else is in the way."""
    dice = random.Random(SEED)
    container = oci.up(bundle)
    for number in range(COUNT):
        words = ["update", "--memory", f"{64 + number}m", "--pids-limit", str(50 + number), container.id]
        kill_somewhere(lambda words=words: oci.spawn(*words)[0], dice, 0.04)  # type: ignore[misc]
        assert container.status == "running", f"WARREN_SEED={SEED} round {number}"
    oci("update", "--pids-limit", "7", container.id).ok()
    assert container.state()["enforced"]["pids.limit"].startswith("pids.max = 7 ")
    container.delete("--force").ok()
    assert oci("list", "-q").out == ""
