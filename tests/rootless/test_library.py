"""`import runtime` of an ordinary user: the same library, what is not his to have is an error."""

import pytest

from tests.helpers.host import require
from tests.helpers.users import User
from tests.unit.test_packaging import BIN

SCRIPTS = {
    "run": """
done = runtime.run("host", ["sh", "-c", "cat; id -u; exit 3"], input="in\\n", text=True, capture_output=True)
assert (done.returncode, done.stdout) == (3, "in\\n0\\n"), done
assert done.usage.wall > 0 and done.usage.max_memory > 0, done.usage
""",
    "container": """
with runtime.container("host") as box:
    done = box.exec(["sh", "-c", "cat; id -u"], input=b"x\\n", capture_output=True)
    assert done.stdout == b"x\\n0\\n", done
    box.fs.write("/tmp/f", "data")
    assert box.fs.read("/tmp/f") == b"data"
    with box.popen(["sleep", "600"]) as process:
        process.kill()
    box.stop(5)
    assert box.wait() == 143
assert not os.path.exists(box.record.path)
""",
    "streams": """
import subprocess
script = "echo o >/dev/stdout; echo e >/dev/stderr; read in </dev/stdin; echo $in >/proc/self/fd/2"
def check(run, user):
    done = run(["sh", "-c", script], input="i\\n", text=True, capture_output=True, user=user)
    assert (done.stdout, done.stderr) == ("o\\n", "e\\ni\\n"), (user, done)
with_ids = os.environ["USER"].endswith("test")
with runtime.container("host") as box:
    for user in (None, 1000) if with_ids else (None,):
        check(box.exec, user)
for user in (None, 1000):
    check(lambda *words, **options: runtime.run("host", *words, **options), user)
    for pool in (0, 1) if with_ids else ():
        with runtime.sandbox("host", memory="", cpus=0, pids=0, user=user or 0, pool=pool) as box:
            check(lambda words, user, **options: box.run(words, **options), user)
""",
    "wait": """
script = "echo up; exec sleep 600"
with runtime.container("host", ["sh", "-c", script], wait=runtime.wait.log("up"), timeout=30) as box:
    assert box.logs() == b"up\\n"
""",
    "sandbox": """
try:
    with runtime.sandbox("host", pool=1) as box:
        assert box.run(["echo", "x"]).stdout == b"x\\n"
except runtime.UnsupportedError as error:
    assert any(what in str(error) for what in ("memory", "cgroup", "pids", "cpu", "single id")), error
for pool in (0, 1):
    try:
        with runtime.sandbox("host", memory="", cpus=0, pids=0, user=0, pool=pool) as box:
            for number in range(3):
                script = "grep CapEff /proc/self/status; echo x >/etc/x; ls /sys/class/net"
                done = box.run(["sh", "-c", script], text=True)
                assert done.stdout.split() == ["CapEff:", "0" * 16, "lo"], done
        assert os.environ["USER"].endswith("test")
    except runtime.UnsupportedError as error:
        # Who has one id only would run what he does not trust as himself.
        assert not os.environ["USER"].endswith("test") and "uid_map: a single id" in str(error), error
""",
    "async": """
import anyio
async def main():
    with anyio.move_on_after(0.5):
        await runtime.aio.run("host", ["sleep", "600"])
    async with runtime.aio.container("host") as box:
        assert (await box.exec(["true"])).returncode == 0
anyio.run(main)
anyio.run(main, backend="trio")
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_ordinary_user_has_the_library(name: str, user: User) -> None:
    done = user.run(BIN / "python3", "-c", f"import os, runtime\n{SCRIPTS[name]}", timeout=120)
    assert done.returncode == 0, done.stderr


MACHINE = """
import os, shutil, tempfile
root = tempfile.mkdtemp()
os.mkdir(root + "/bin")
shutil.copy("/bin/busybox", root + "/bin/busybox")
with runtime.container(root, isolation="vm:uml", memory="96m", strict=False) as box:
    done = box.exec(["/bin/busybox", "sh", "-c", "cat; echo $$; exit 4"], input=b"x\\n", capture_output=True)
    assert done.returncode == 4 and done.stdout.startswith(b"x\\n"), done
    box.fs.write("/data", "text")
    assert box.fs.read("/data") == b"text"
    report = runtime.audit(box.id)
    assert {one.key for one in report.failed} <= {"pids"}, report.failed
shutil.rmtree(root)
"""


def test_programs_in_an_ordinary_users_machine(user: User) -> None:
    """Whose supervisor's namespaces only root may join."""
    require("user-mode-linux")
    done = user.run(BIN / "python3", "-c", f"import runtime\n{MACHINE}", timeout=120)
    assert done.returncode == 0, done.stderr
