"""The pytest plugin from outside: pytest runs on files made here, and what it reports is read."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.processes import MARKER
from tests.helpers.warren import Warren

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, token: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest with Warren's plugin on this text, with these options."""
    monkeypatch.setenv(MARKER, token)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def start(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it="import os, pytest, time\nfrom runtime.pytest_plugin import *\n" + text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options, timeout=120)

    return start


# ---- fixtures


def test_the_fixture_is_a_container_as_the_marker_says(run: Run) -> None:
    run("""
def test_default(container):
    assert container.exec(["id", "-u"], capture_output=True, text=True).stdout == "0\\n"

@pytest.mark.container(hostname="outer")
class TestMarks:
    @pytest.mark.container(memory="64m", env={"A": "b"})
    def test_nearest(self, container):
        told = container.exec(["sh", "-c", "echo $A $(uname -n)"], capture_output=True, text=True).stdout
        assert told == "b outer\\n" and container.record.config().memory == "64m"

@pytest.mark.container(image=["host", "/"], isolation=["container"])
def test_parameters(container, image, container_isolation):
    assert (bool(container.record.config().rootfs), container_isolation) == (image == "/", "container")

def test_factory(container_factory):
    made = [container_factory("host") for _ in range(2)]
    assert made[0].id != made[1].id
""").assert_outcomes(passed=5)  # fmt: skip


def test_the_network_of_a_test_connects_its_containers_and_goes(run: Run, warren: Warren) -> None:
    before = set(warren("network", "ls", "-q").ok().out.split())
    run("""
def test_it(container, container_factory, network):
    other = container_factory("host", network=network)
    assert list(container.inspect()["NetworkSettings"]["Networks"]) == [network]
    address = other.inspect()["NetworkSettings"]["Networks"][network]["IPAddress"]
    with pytest.raises(AssertionError, match="can be seen"):
        server = other.popen(["python3", "-m", "http.server", "80"], user="nobody", cwd="/usr/share")
        time.sleep(1)
        cannot_see(network=(address, 80), container=container)
    cannot_see(network=(address, 81), container=container)
    with pytest.raises(AssertionError, match="connect .* is not denied"):
        denied("connect", address, 80, container=container)
    denied("connect", address, 81, container=container)
    server.kill()
    server.wait()
""").assert_outcomes(passed=1)  # fmt: skip
    assert set(warren("network", "ls", "-q").ok().out.split()) <= before


def test_a_failure_tells_what_the_container_said_and_how_it_is(run: Run) -> None:
    result = run("""
@pytest.mark.container(argv=["sh", "-c", "echo said to the log; sleep 60"], cap_add=["SYS_NICE"])
def test_it(container):
    while not container.logs():
        time.sleep(0.01)
    assert 0
""")  # fmt: skip
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([".*container .*: log.*", "said to the log", ".*container .*: inspect.*"])
    result.stdout.fnmatch_lines(['*"relaxed"*', "*--cap-add SYS_NICE*"])


def test_what_this_host_cannot_do_is_skipped_with_the_reason_or_fails_if_it_must_not(run: Run) -> None:
    text = """
@pytest.mark.container(devices=["/dev/null:/dev/x:r"], isolation="vm")
def test_fixture(container): ...

@pytest.mark.inside(isolation="vm:none-such")
def test_inside(): ...
"""
    result = run(text, "-rs")
    skipped = result.parseoutcomes().get("skipped", 0)
    assert skipped >= 1, result.outlines
    result.stdout.fnmatch_lines(["*SKIPPED*this host cannot do it: --device /dev/null*"])
    assert "skipped" not in run(text, "--container-strict").parseoutcomes()


def test_reuse_hands_out_the_same_container(run: Run) -> None:
    text = """
seen = []
@pytest.mark.parametrize("n", range(3))
def test_it(container, n):
    seen.append(container.id)

def test_other(container_factory):
    assert container_factory("host", memory="64m").id not in seen
    assert len(set(seen)) == COUNT
"""
    run(text.replace("COUNT", "1"), "--container-reuse").assert_outcomes(passed=4)
    run(text.replace("COUNT", "3")).assert_outcomes(passed=4)


def test_reuse_gives_one_test_as_many_as_it_asks_for_and_none_on_a_network_of_another(run: Run) -> None:
    run("""
seen = []
@pytest.mark.parametrize("n", range(2))
def test_two(container_factory, n):
    two = [container_factory("host").id for _ in range(2)]
    assert len(set(two)) == 2
    seen.append(two)
    assert seen[0] == two

@pytest.mark.parametrize("n", range(2))
def test_network(container, network, n):
    assert list(container.inspect()["NetworkSettings"]["Networks"]) == [network]
""", "--container-reuse").assert_outcomes(passed=4)  # fmt: skip


@pytest.mark.parametrize("reuse", [False, True])
def test_keep_keeps_the_containers_of_failures_alone(run: Run, warren: Warren, reuse: bool) -> None:
    """With the network that they are on; one that nobody is on goes."""
    before = warren("network", "ls", "-q").ok().out.split()
    result = run(
        """
@pytest.mark.parametrize("good", [True, False])
def test_it(container_factory, network, good):
    container_factory("host", hostname=f"h{good}", network=network if RARE else "none")
    assert good
""".replace("RARE", str(not reuse)),
        "--container-keep",
        *(["--container-reuse"] if reuse else []),
    )
    result.assert_outcomes(passed=1, failed=1)
    (line,) = (line for line in result.outlines if line.startswith("kept for "))
    name = line.split()[-1]
    assert "test_it[False]" in line
    network = ""
    try:
        assert warren("inspect", "-f", "{{.State.Status}} {{.Config.Hostname}}", name).ok().out == "running hFalse\n"
        found = json.loads(warren("inspect", name).ok().out)[0]["NetworkSettings"]["Networks"] or {}
        network = next((one for one in found if one.startswith("test-")), "")
        assert bool(network) != reuse
        assert set(warren("network", "ls", "-q").ok().out.split()) <= {*before, network}
    finally:
        warren("rm", "-f", name).ok()
        if network:
            warren("network", "rm", network).ok()


def test_workers_of_xdist_have_containers_of_their_own(run: Run) -> None:
    result = run(
        """
@pytest.mark.parametrize("n", range(4))
def test_fixture(container, n):
    container.exec(["true"], check=True)

@pytest.mark.inside()
def test_inside():
    assert os.getpid() < 20

@pytest.mark.inside()
def test_failure_inside():
    left = {"a": 1}
    assert left == {"a": 2}
""",
        "-n2",
        "--container-reuse",
    )
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["E*assert {'a': 1} == {'a': 2}"])


# ---- tests that run inside


def test_a_test_inside_has_its_outcome_its_output_and_rewritten_assertions_here(run: Run) -> None:
    result = run(
        """
@pytest.fixture
def made_inside(tmp_path):
    yield os.getpid()
    assert 0, "teardown inside"

@pytest.mark.inside()
def test_where():
    assert os.getpid() < 20 and os.uname().nodename != "HOST"
    with pytest.raises(OSError):
        open(__file__, "a")
    denied("mount")
    cannot_see(path="/run/warren", network=("10.255.255.1", 9))

@pytest.mark.inside(memory="64m", pids=50)
def test_limits():
    limited(memory="64m", pids=50)

@pytest.mark.inside()
@pytest.mark.parametrize("value", [1, "a b"])
def test_failing(value):
    print("said inside")
    assert value == [value]

@pytest.mark.inside()
def test_skipping():
    pytest.skip("not today")

@pytest.mark.inside()
@pytest.mark.xfail(strict=True)
def test_xfail():
    assert 0

@pytest.mark.inside()
def test_teardown(made_inside): ...

@pytest.mark.inside()
def test_crash():
    os._exit(3)

@pytest.mark.inside(timeout=1)
def test_timeout():
    time.sleep(60)

def test_here():
    assert os.uname().nodename == "HOST"
""".replace("HOST", os.uname().nodename),
        "-rA",
    )
    result.assert_outcomes(passed=4, failed=4, skipped=1, xfailed=1, errors=1)
    result.stdout.fnmatch_lines(["E*assert 'a b' == *'a b'*", "said inside"])
    result.stdout.fnmatch_lines(["*ended without a report*"])
    result.stdout.fnmatch_lines(["*took longer than 1 s*"])


def test_module_fixtures_of_tests_outside_end_when_the_last_test_is_inside(run: Run) -> None:
    """Such a test sets nothing up here, so what others have set up must go after it nevertheless."""
    run("""
order = []
@pytest.fixture(scope="class")
def held():
    yield
    order.append("end")

class TestA:
    def test_one(self, held): ...
    @pytest.mark.inside()
    def test_two(self): ...

def test_after():
    assert order == ["end"]
""").assert_outcomes(passed=3)  # fmt: skip


SHARED = """
import os, pytest
told = []

@pytest.fixture(scope="session")
def everywhere():
    told.append("session")
    return os.uname().nodename

@pytest.fixture(scope="module")
def here(request):
    told.append(request.node.name)
    yield os.uname().nodename
    told.append(f"end of {request.node.name}")
    assert "good" in request.node.name, "module fixture"
"""


def test_fixtures_of_wider_scopes_are_made_once_inside_and_end_where_they_would_here(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(SHARED)
    pytester.makepyfile(test_good="""
import os, pytest, conftest
pytestmark = pytest.mark.inside()

def setup_module():
    conftest.told.append("setup_module")

def test_alone():
    assert conftest.told == ["setup_module"]

def test_module(here):
    assert here == os.uname().nodename

def test_both(here, everywhere):
    assert here == everywhere == os.uname().nodename
    assert conftest.told == ["setup_module", "test_good.py", "session"]
""")  # fmt: skip
    result = run("""
import conftest, unittest

@pytest.mark.inside()
def test_next_module(everywhere):
    assert everywhere == os.uname().nodename
    assert conftest.told == ["setup_module", "test_good.py", "session", "end of test_good.py"]

def test_between(): ...

@pytest.mark.inside()
def test_which_ends(here):
    assert conftest.told[-1] == "test_it.py"

@pytest.mark.inside(pids=99)
def test_other_options(here, everywhere):
    assert conftest.told == ["session", "test_it.py"]

@pytest.mark.inside()
class TestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made = os.uname().nodename

    def test_first(self):
        assert self.made == os.uname().nodename

    def test_second(self):
        assert self.made == os.uname().nodename
        assert conftest.told == []
""")  # fmt: skip
    # The module's fixture, of each options, ends with the last test that can use it, and fails there.
    result.assert_outcomes(passed=9, errors=2)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_which_ends*", "*ERROR at teardown of test_other_options*"])


def test_tests_that_share_nothing_have_containers_of_their_own(run: Run) -> None:
    run("""
@pytest.mark.inside()
@pytest.mark.parametrize("n", range(2))
def test_it(n, tmp_path, worker_id):
    assert not os.path.exists("/tmp/mark")
    open("/tmp/mark", "w")
""", "-n1").assert_outcomes(passed=2)  # fmt: skip


def test_a_shared_container_that_ends_with_a_test_is_followed_by_another(run: Run) -> None:
    result = run(
        """
@pytest.fixture(scope="module")
def shared():
    return os.uname().nodename

@pytest.mark.inside(memory="96m", memory_swap="96m")
class TestIt:
    def test_first(self, shared): ...
    def test_exit(self, shared):
        os._exit(3)
    def test_memory(self, shared):
        assert not b"x" * (256 << 20)
    def test_last(self, shared):
        assert shared == os.uname().nodename
""",
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*ended without a report*", "*was killed at its memory limit*"])


def test_one_that_waits_for_tests_ends_with_a_session_that_stops(run: Run, directory: Path) -> None:
    """And its fixtures do; the leak check looks for the container."""
    directory.chmod(0o777)
    result = run(
        """
@pytest.fixture(scope="module")
def shared():
    yield
    open(os.environ["WHERE"], "w")

@pytest.mark.inside(env={"WHERE": "MARK/mark"}, mounts=["MARK:MARK"])
class TestIt:
    def test_first(self, shared):
        assert 0
    def test_second(self, shared): ...
""".replace("MARK", str(directory)),
        "-x",
    )
    result.assert_outcomes(failed=1)
    assert (directory / "mark").exists()


def test_the_interpreter_comes_along_to_an_image_without_one(run: Run, directory: Path) -> None:
    root = directory / "root"
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    (root / "etc/mark").write_text("this image\n")
    run(f"""
import subprocess, json, ssl
@pytest.mark.inside(image={str(root)!r})
def test_it(tmp_path):
    assert open("/etc/mark").read() == "this image\\n"
    assert not os.path.exists("/usr/bin")
    assert subprocess.run(["/bin/sh", "-c", "echo $((6*7))"], capture_output=True, text=True).stdout == "42\\n"
    with pytest.raises(OSError):
        open("/.warren/usr/mark", "w")
    denied("userns")
""").assert_outcomes(passed=1)


# ---- assertions that fail


def test_assertions_fail_with_the_reason_where_there_is_no_protection(run: Run) -> None:
    run("""
@pytest.mark.container(privileged=True, pid="host", mounts=["/usr:/mnt:ro"])
def test_relaxed(container):
    for action in (["mount"], ["userns"], ["keyring"], ["bpf"], ["mknod"], ["ptrace", os.getppid()]):
        with pytest.raises(AssertionError, match="is not denied in container .*relaxed by --privileged"):
            denied(*action, container=container)
    with pytest.raises(AssertionError, match="process .* can be seen"):
        cannot_see(process=os.getpid(), container=container)
    with pytest.raises(AssertionError, match="path /mnt/bin can be seen"):
        cannot_see(path="/mnt/bin", container=container)
    with pytest.raises(AssertionError, match="open w /proc/sys/kernel/panic is not denied"):
        denied("open", "/proc/sys/kernel/panic", mode="w", container=container)

def test_default(container):
    for action in (["mount"], ["userns"], ["keyring"], ["bpf"], ["mknod"], ["open", "/proc/sys/kernel/panic"]):
        denied(*action, container=container, **({"mode": "w"} if action[0] == "open" else {}))
    cannot_see(process=os.getpid(), path="/run/warren", container=container)

@pytest.mark.container(memory="128m", pids=40, cpus=0.8)
def test_limits(container):
    limited(memory="128m", pids=40, cpus=0.8, container=container)
    with pytest.raises(AssertionError, match="MiB of memory could be used"):
        limited(memory="16m", container=container)
    with pytest.raises(AssertionError, match="processes could be started"):
        limited(pids=4, container=container)

@pytest.mark.container(cpus=0.5)
def test_processors(container):
    limited(cpus=0.5, container=container)
    with pytest.raises(AssertionError, match=r"^0\\.\\d+ processors could be used in container"):
        limited(cpus=0.1, container=container)
    with pytest.raises(AssertionError, match=r"no more than 0\\.\\d+ of 1.5 processors could be used"):
        limited(cpus=1.5, container=container)

def test_no_limit_of_processors(container):
    with pytest.raises(AssertionError, match="no limit of processors holds"):
        limited(cpus=1.9, container=container)

@pytest.mark.inside(cpus=0.5)
def test_processors_inside():
    limited(cpus=0.5)
    with pytest.raises(AssertionError, match="no more than .* of 1.5 processors"):
        limited(cpus=1.5)

@pytest.mark.inside()
def test_inside():
    with pytest.raises(AssertionError, match="no limit of processors holds"):
        limited(cpus=1.9)
    os.kill(1, 0)
    denied("signal", 1, user="1000")
    denied("signal", 1, user="nobody")
""").assert_outcomes(passed=7)  # fmt: skip


# ---- nothing is left, nothing is loaded


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("how", ["fixture", "inside", "worker"])
def test_nothing_is_left_of_a_session_that_is_ended(
    pytester: pytest.Pytester, warren: Warren, token: str, monkeypatch: pytest.MonkeyPatch, number: int, how: str
) -> None:
    """The leak check of this suite looks at processes, cgroups, mounts and state; containers are asked for here."""
    monkeypatch.setenv(MARKER, token)
    name = f"wait-{token}-{os.urandom(3).hex()}"
    fixture = f'@pytest.mark.container(name="{name}")\ndef test_it(container, network):'
    inside = f'@pytest.mark.inside(hostname="{name}")\ndef test_it():'
    text = f"import pytest, time\n{fixture if how == 'fixture' else inside}\n    time.sleep(100)\n"
    path = pytester.makepyfile(test_wait=text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    command += ["-n1"] if how == "worker" else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: _runs(name, warren, how))
    process.send_signal(number)
    process.wait(20)
    # A worker by itself would go on for five seconds after its controller has been killed.
    _until(lambda: not _runs(name, warren, how), 4 if number == signal.SIGKILL else 30)


def _runs(name: str, warren: Warren, how: str) -> bool:
    if how == "fixture":
        return bool(warren("ps", "-aq", "--filter", f"name={name}").ok().out)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"HOSTNAME={name}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    return True
            except OSError:
                pass
    return False


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_plugin_loads_nothing_of_the_runtime_until_it_is_used(pytester: pytest.Pytester) -> None:
    code = """
import json, sys, pytest
before = set(sys.modules)
import runtime.pytest_plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert json.loads(done.stdout) == ["runtime", "runtime.pytest_plugin"]


def test_the_examples_of_the_documentation(
    pytester: pytest.Pytester, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARKER, token)
    text = (Path(__file__).parents[2] / "docs/pytest.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 4
    pytester.makepyfile(**{f"test_{number}": example for number, example in enumerate(examples)})
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--container-strict", timeout=120)
    result.assert_outcomes(passed=8)
