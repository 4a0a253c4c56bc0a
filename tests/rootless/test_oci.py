"""`warren-oci` as an ordinary user: the bundle of `spec --rootless`, its whole life, and what such a user cannot do."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import probe
from tests.helpers.oci import Bundle
from tests.helpers.probe import Answers
from tests.helpers.terminal import ConsoleSocket
from tests.helpers.users import User
from tests.helpers.warren import PROGRAM

OCI = PROGRAM.with_name("warren-oci")
Change = Callable[[Bundle], Any]


class Engine:
    """Calls warren-oci as a user; what it says goes to files, since containers may outlive the call."""

    def __init__(self, user: User, directory: Path, name: str) -> None:
        self.user, self.directory, self.name = user, directory, name
        self.out, self.err = directory / "out", directory / "err"

    def __call__(self, *words: str | Path, env: dict[str, str] | None = None) -> int:
        script = f'exec "$@" </dev/null >{self.out} 2>{self.err}'
        return self.user.run("sh", "-c", script, "sh", OCI, *words, env=env).returncode

    def ok(self, *words: str | Path) -> str:
        code = self(*words)
        assert code == 0, f"{words}: {code}\n{self.out.read_text()}\n{self.err.read_text()}"
        return self.out.read_text()

    def refuses(self, code: int, *words: str | Path) -> str:
        """One line on standard error, and this exit code."""
        assert self(*words) == code, f"{words}\n{self.out.read_text()}\n{self.err.read_text()}"
        text = self.err.read_text()
        assert len(text.splitlines()) == 1, text
        assert text.startswith("warren-oci: ")
        return text

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self.ok("state", self.name))  # type: ignore[no-any-return]

    def until(self, status: str) -> None:
        deadline = time.monotonic() + 10
        while (now := self.state["status"]) != status:
            assert time.monotonic() < deadline, f"it is {now}, not {status}"
            time.sleep(0.02)


@pytest.fixture
def engine(user: User, directory: Path, token: str) -> Iterator[Engine]:
    place = directory / "engine"
    place.mkdir()
    user.give(place)
    engine = Engine(user, place, f"wrn-{token}-{directory.name[-6:]}")
    yield engine
    engine("delete", "--force", engine.name)


@pytest.fixture
def spec_bundle(engine: Engine, user: User, rootfs: Path, directory: Path) -> Path:
    """A bundle whose config.json is the one that `spec --rootless` writes, with another command."""
    path = directory / "bundle"
    path.mkdir()
    rootfs.rename(path / "rootfs")
    user.give(path)
    engine.ok("spec", "--rootless", "--bundle", path)
    config = json.loads((path / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/probe", "sleep", "60"]
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_the_life_of_the_bundle_of_spec_rootless(engine: Engine, spec_bundle: Path, user: User) -> None:
    name = engine.name
    engine.ok("create", "--bundle", spec_bundle, "--pid-file", engine.directory / "pid", name)
    state = engine.state
    assert (state["status"], state["bundle"], state["id"]) == ("created", str(spec_bundle), name)
    assert state["pid"] == int((engine.directory / "pid").read_text())
    assert Path(f"/proc/{state['pid']}").stat().st_uid in (user.uid, 0)  # 0 while it is not dumpable.
    assert engine.ok("list", "-q").split() == [name]
    engine.ok("start", name)
    assert engine.state["status"] == "running"
    answers = Answers(engine.ok("exec", name, *probe.command("id", "caps", "cwd")))
    assert answers["id"][0] == "uid 0 0 0"
    assert json.loads(engine.ok("ps", "--format", "json", name)) == [state["pid"]]
    assert "not stopped" in engine.refuses(1, "delete", name)
    engine.ok("kill", name, "KILL")
    engine.until("stopped")
    engine.ok("delete", name)
    assert "does not exist" in engine.refuses(1, "state", name)
    assert engine.ok("list", "-q") == ""


def test_the_plan_of_the_bundle_of_spec_rootless(engine: Engine, spec_bundle: Path) -> None:
    steps = json.loads(engine.ok("create", "--plan=json", "--bundle", spec_bundle, engine.name))
    assert steps[-1]["op"] == "exec"
    assert not (engine.user.runtime_dir / "warren" / engine.name).exists()


def test_exit_codes_of_run(engine: Engine, user_bundle: Bundle) -> None:
    for question, code in (("exit 0", 0), ("exit 7", 7)):
        user_bundle.asks(question).save()
        assert engine("run", "--bundle", user_bundle.path, engine.name) == code, engine.err.read_text()
    for program, code in (("/no/such", 127), ("/etc/passwd", 126)):
        user_bundle.process["args"] = [program]
        user_bundle.save()
        engine.refuses(code, "run", "--bundle", user_bundle.path, engine.name)


def test_exit_codes_of_exec(engine: Engine, user_bundle: Bundle) -> None:
    user_bundle.save()
    engine.ok("create", "--bundle", user_bundle.path, engine.name)
    engine.ok("start", engine.name)
    assert engine("exec", engine.name, "/bin/probe", "exit", "9") == 9
    engine.refuses(127, "exec", engine.name, "/no/such")
    engine.refuses(126, "exec", engine.name, "/etc/passwd")


def test_a_detached_run_goes_on(engine: Engine, user_bundle: Bundle) -> None:
    user_bundle.save()
    engine.ok("run", "--detach", "--bundle", user_bundle.path, engine.name)
    assert engine.state["status"] == "running"
    engine.ok("delete", "--force", engine.name)


def test_delete_with_force_kills(engine: Engine, user_bundle: Bundle) -> None:
    user_bundle.save()
    engine.ok("create", "--bundle", user_bundle.path, engine.name)
    pid = engine.state["pid"]
    engine.ok("delete", "--force", engine.name)
    assert not Path(f"/proc/{pid}/exe").exists()


def test_the_programs_file_systems_and_ids(engine: Engine, user_bundle: Bundle, user: User) -> None:
    questions = ["id", "caps", "hostname", "write /data/mine x", "fds"]
    user_bundle.asks(*questions).save()
    answers = Answers(engine.ok("run", "--bundle", user_bundle.path, engine.name))
    assert answers["id"][0] == "uid 0 0 0"
    assert "burrow" in answers["hostname"]
    made = user_bundle.rootfs / "data/mine"
    assert (made.stat().st_uid, made.stat().st_gid) == (user.uid, user.gid)


def test_subordinate_ids_of_a_bundle(
    engine: Engine, user_with_ids: User, new_bundle: Callable[[], Bundle], user: User
) -> None:
    """newuidmap(1) writes the maps; who has no such ids is told so."""
    first = next(
        int(line.split(":")[1])
        for line in Path("/etc/subuid").read_text().splitlines()
        if line.split(":")[0] == user_with_ids.name
    )
    bundle = new_bundle().for_ordinary_user(user.uid, user.gid)
    for key, own in (("uidMappings", user.uid), ("gidMappings", user.gid)):
        bundle.linux[key] = [
            {"containerID": 0, "hostID": own, "size": 1},
            {"containerID": 1, "hostID": first, "size": 65535},
        ]
    bundle.process["user"] = {"uid": 33, "gid": 34, "additionalGids": [35]}
    bundle.asks("id").save()
    if user is not user_with_ids and os.geteuid() == 0:
        engine.refuses(125, "run", "--bundle", bundle.path, engine.name)
        return
    identity = Answers(engine.ok("run", "--bundle", bundle.path, engine.name))["id"]
    assert identity[0] == "uid 33 33 33"
    assert "34" in identity[1]


def test_hooks_run_as_the_user(engine: Engine, user_bundle: Bundle, user: User) -> None:
    seen = user.home / "hook"
    user_bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"/usr/bin/id -u >>{seen}"]}]
        for kind in ("createRuntime", "poststart", "poststop")
    }
    user_bundle.asks("true").save()
    engine.ok("run", "--bundle", user_bundle.path, engine.name)
    # createRuntime runs in the runtime's namespaces, and so with the user's own id.
    assert seen.read_text().split() == [str(user.uid)] * 3
    seen.unlink()


def test_a_failing_hook_leaves_nothing(engine: Engine, user_bundle: Bundle) -> None:
    user_bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    user_bundle.save()
    assert "hook 1" in engine.refuses(1, "create", "--bundle", user_bundle.path, engine.name)
    assert engine.ok("list", "-q") == ""


def test_a_terminal_over_a_socket(engine: Engine, user_bundle: Bundle, user: User) -> None:
    user_bundle.process["terminal"] = True
    user_bundle.process["consoleSize"] = {"height": 12, "width": 34}
    user_bundle.asks("tty").save()
    with ConsoleSocket(engine.directory / "console") as socket:
        user.give(engine.directory)
        words = ("create", "--bundle", user_bundle.path, "--console-socket", socket.path, engine.name)
        engine.ok(*words)
        terminal = socket.receive()
        assert terminal.size() == (12, 34)
        engine.ok("start", engine.name)
        terminal.expect("12")
        engine.until("stopped")


def bind_of_device(bundle: Bundle) -> None:
    bundle.linux["devices"] = [{"path": "/dev/made", "type": "c", "major": 42, "minor": 42}]


def limit(bundle: Bundle) -> None:
    bundle.linux["resources"] = {"memory": {"limit": 1 << 24}}


def shared_network_sysctl(bundle: Bundle) -> None:
    bundle.shares("network").linux["sysctl"] = {"net.ipv4.ip_forward": "1"}


def raised_rlimit(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 29, "hard": 1 << 29}]


def foreign_map(bundle: Bundle) -> None:
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 1, "size": 1}]


def root_map(bundle: Bundle) -> None:
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]


def wide_map(bundle: Bundle) -> None:
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 4294967295}]


def no_namespace(bundle: Bundle) -> None:
    bundle.shares("user")
    bundle.linux.pop("uidMappings")
    bundle.linux.pop("gidMappings")


def unmapped_user(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 5, "gid": 0}


def joined_init(bundle: Bundle) -> None:
    bundle.unshares("network", "/proc/1/ns/net")


def hosts_shadow(bundle: Bundle) -> None:
    bundle.mount("/data/x", "bind", "/no/such/source", "bind")


def unlocked_cgroup(bundle: Bundle) -> None:
    bundle.linux["cgroupsPath"] = "/../../escape"


@pytest.mark.parametrize(
    "change",
    [
        limit, raised_rlimit, foreign_map, root_map, wide_map, no_namespace, unmapped_user, joined_init, hosts_shadow,
        shared_network_sysctl, bind_of_device, unlocked_cgroup,
    ],
)  # fmt: skip
def test_what_an_ordinary_user_cannot_do_is_one_line_and_leaves_nothing(
    engine: Engine, user_bundle: Bundle, user: User, change: Change
) -> None:
    change(user_bundle)
    user_bundle.save()
    text = engine.refuses(1, "create", "--bundle", user_bundle.path, engine.name)
    assert text[:-1].isprintable()
    assert engine.ok("list", "-q") == ""
    assert list((user.runtime_dir / "warren").glob("[!.]*")) == []


def test_the_users_containers_are_the_users(engine: Engine, user_bundle: Bundle, plain_user: User) -> None:
    user_bundle.save()
    engine.ok("create", "--bundle", user_bundle.path, engine.name)
    state = engine.user.runtime_dir / "warren"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / engine.name).stat().st_mode & 0o777 == 0o700
    if engine.user is not plain_user:
        done = plain_user.run(OCI, "--root", state, "delete", "--force", engine.name)
        assert engine.state["status"] == "created", done


def test_without_a_runtime_directory_it_works_or_is_one_line(engine: Engine, user_bundle: Bundle) -> None:
    user_bundle.asks("true").save()
    assert engine("run", "--bundle", user_bundle.path, engine.name, env={"XDG_RUNTIME_DIR": ""}) in (0, 125)
    assert len(engine.err.read_text().splitlines()) <= 1


@pytest.mark.parametrize("place", ["/proc", "/sys/kernel", "/etc"])
def test_a_state_root_that_cannot_be_written(engine: Engine, user_bundle: Bundle, place: str) -> None:
    user_bundle.save()
    engine.refuses(1, "--root", f"{place}/warren", "create", "--bundle", user_bundle.path, engine.name)


def test_a_bundle_that_cannot_be_read(engine: Engine, new_bundle: Callable[[], Bundle]) -> None:
    if os.geteuid():
        pytest.skip("host lacks root: only root can make a file that its user cannot read")
    bundle = new_bundle().save()
    (bundle.path / "config.json").chmod(0o600)
    assert "config.json: EACCES" in engine.refuses(1, "create", "--bundle", bundle.path, engine.name)


def test_a_root_that_others_own_can_be_used(engine: Engine, user: User, new_bundle: Callable[[], Bundle]) -> None:
    """Its owner is unmapped, so nothing in it can be written; reading and executing need no more than the bits."""
    bundle = new_bundle()
    bundle.maps(user.uid, 1, user.gid)
    bundle.for_ordinary_user(user.uid, user.gid)
    if os.geteuid() == 0:
        for path in (bundle.rootfs, *bundle.rootfs.rglob("*")):
            os.chown(path, 0, 0, follow_symlinks=False)
    bundle.asks("id", "write /data/new x").save()
    answers = Answers(engine.ok("run", "--bundle", bundle.path, engine.name))
    assert answers["id"][0] == "uid 0 0 0"
    assert os.geteuid() or not (bundle.rootfs / "data/new").exists()
