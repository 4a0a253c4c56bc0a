"""checkpoint and restore through criu, on a kernel that Debian's criu knows: the processes go on where they were."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.host import GUEST_KERNEL, require
from tests.helpers.oci import Bundle, Runtime
from tests.vm.guest.conftest import program_of

COUNTER = "i=0; while :; do i=$((i+1)); echo $i >/data/count; busybox sleep 0.1; done"
MODULES = (
    "crc32c_generic",
    "nf_tables",
    "nf_conntrack_netlink",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    "netlink_diag",
    "af_packet_diag",
)
RUNTIMES = ("runc", "warren-oci") if os.environ.get("WARREN_LONG") else ("warren-oci",)


@pytest.fixture(params=RUNTIMES)
def runtime_program(request: pytest.FixtureRequest) -> str:
    return program_of(request.param)


@pytest.fixture(scope="module", autouse=True)
def kernel_modules() -> None:
    """What criu asks the kernel about processes, sockets and rules with."""
    require("criu")
    directory = next(GUEST_KERNEL.glob("lib/modules/*"))
    needs = dict(line.split(":", 1) for line in (directory / "modules.dep").read_text().splitlines())
    for name in (*MODULES, "tun"):
        path = next((path for path in needs if f"/{name}.ko" in path), "")
        for file in [*reversed(needs.get(path, "").split()), path] if path else []:
            subprocess.run(["busybox", "insmod", directory / file], capture_output=True)


@pytest.fixture
def counting(bundle: Bundle) -> Bundle:
    """Counts in a file of its root, in no namespace that criu has trouble with."""
    bundle.shares("cgroup").config["mounts"].pop()
    bundle.process["args"] = ["/bin/busybox", "sh", "-c", COUNTER]
    bundle.process["env"].append("PATH=/bin")
    return bundle.save()


class Piped:
    """The runtime's commands with pipes as standard streams, as engines give them: criu takes no files of the host."""

    def __init__(self, oci: Runtime, bundle: Bundle) -> None:
        self.oci, self.bundle, self.id = oci, bundle, oci.new_id()
        oci._new(bundle)
        self.images, self.log = bundle.path / "images", bundle.path / "work"

    def __call__(self, *words: "str | Path", check: bool = True) -> str:
        command = [self.oci.program, "--root", str(self.oci.root), *map(str, words)]
        reader, writer = os.pipe()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writer, stderr=writer)
        os.close(writer)
        code = process.wait(200)
        os.set_blocking(reader, False)
        try:
            said = os.read(reader, 65536).decode()
        except BlockingIOError:
            said = ""
        self.keep = (reader, process.stdin)
        logs = [line for file in self.log.glob("*.log") for line in file.read_text().splitlines() if "Err" in line]
        assert not check or code == 0, "\n".join([f"{words}: {code}: {said}", *logs])
        return said if check else f"{code} {said}"

    def dump(self, *flags: str) -> None:
        self("checkpoint", "--image-path", self.images, "--work-path", self.log, *flags, self.id)

    def restore(self, *flags: "str | Path", check: bool = True) -> str:
        places = ["--bundle", self.bundle.path, "--image-path", self.images, "--work-path", self.log]
        return self("restore", "--detach", *places, *flags, self.id, check=check)

    def count(self) -> int:
        deadline = time.monotonic() + 30
        while not (text := (self.bundle.rootfs / "data/count").read_text().strip()):
            assert time.monotonic() < deadline
        return int(text)

    def counts_from(self, start: int) -> None:
        deadline = time.monotonic() + 60
        while (now := self.count()) <= start + 2:
            assert time.monotonic() < deadline, f"it does not count: {now} after {start}"
            time.sleep(0.2)


@pytest.fixture
def piped(oci: Runtime, counting: Bundle) -> Piped:
    piped = Piped(oci, counting)
    (counting.rootfs / "data/count").write_text("0\n")
    piped("run", "--detach", "--bundle", counting.path, piped.id)
    piped.counts_from(3)
    return piped


def test_processes_go_on(piped: Piped) -> None:
    """runc-checkpoint(8): "saves the state of the running container instance with the help of criu(8) tool, to be
    restored later"; the container is gone meanwhile."""
    piped.dump()
    piped.oci("state", piped.id).fails("does not exist")
    stood = piped.count()
    time.sleep(1)
    assert piped.count() == stood
    pid_file = piped.bundle.path / "pid"
    piped.restore("--pid-file", pid_file)
    piped.counts_from(stood)
    state = json.loads(piped.oci("state", piped.id).ok().out)
    assert (state["status"], state["pid"]) == ("running", int(pid_file.read_text()))
    assert piped.id in Path(f"/proc/{state['pid']}/cgroup").read_text()
    piped.oci("delete", "--force", piped.id).ok()
    assert not Path(f"/proc/{state['pid']}/cwd").exists()


def test_a_container_may_go_on(piped: Piped) -> None:
    """runc-checkpoint(8): "--leave-running: Leave the process running after checkpointing." """
    piped.dump("--leave-running")
    assert (piped.images / "inventory.img").exists()
    piped.counts_from(piped.count())


def test_images_of_another_bundle_are_refused(piped: Piped) -> None:
    """RULES 14: what the bundle does not allow never runs: here fewer capabilities than those of the images."""
    if piped.oci.program.endswith("runc"):
        return  # It takes the images' word for it.
    piped.dump()
    stood = piped.count()
    for kind in ("bounding", "effective", "permitted"):
        piped.bundle.process["capabilities"][kind] = []
    piped.bundle.save()
    assert "more capabilities" in piped.restore(check=False)
    time.sleep(1)
    assert piped.count() == stood
    piped.oci("state", piped.id).fails("does not exist")


def test_images_that_others_can_write_are_refused(piped: Piped) -> None:
    if piped.oci.program.endswith("runc"):
        return
    piped.dump()
    piped.images.chmod(0o777)
    assert "others can write" in piped.restore(check=False)
    piped.oci("state", piped.id).fails("does not exist")
