"""The OCI validation suite (runtime-tools): every program that this kind of host allows must pass.

`make validation` builds and runs it; -rP prints the figures of docs/conformance.md.  The programs are of runtime-spec
1.0.2: where they contradict what runc does, or themselves, FAILS says so, and such a program must go on failing.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.machines import PROJECT

SUITE = PROJECT / "build/validation"
PROGRAMS = sorted(path.name for path in (SUITE / "bin").glob("*"))

NO_LEAF_WEIGHT = "the kernel has no blkio.leaf_weight since CFQ went (Linux 5.0): refused"
NO_NET_CLS = "the host has no net_cls and net_prio: refused"
V2_HUGETLB = "hugetlb is held on cgroup v2 here; the program looks for v1"
NO_KMEM = "the kernel has given up limits of kernel memory, and the limits on v1 are of whole pages"
NO_CAPABILITY = "root lacks CAP_SYS_RESOURCE here, which the program gives the container"
FAILS = {
    "hooks_stdin": "wants status created in prestart hooks; the spec says creating since 1.0.2, and runc does",
    "linux_cgroups_blkio": NO_LEAF_WEIGHT,
    "linux_cgroups_relative_blkio": NO_LEAF_WEIGHT,
    "linux_cgroups_hugetlb": V2_HUGETLB,
    "linux_cgroups_relative_hugetlb": V2_HUGETLB,
    "linux_cgroups_memory": NO_KMEM,
    "linux_cgroups_relative_memory": NO_KMEM,
    "linux_cgroups_network": NO_NET_CLS,
    "linux_cgroups_relative_network": NO_NET_CLS,
    "linux_mount_label": "needs SELinux",
    "linux_ns_itype": "asks for a container in the host's mount namespace: refused",
    "linux_process_apparmor_profile": "needs AppArmor",
    "misc_props": "its program is missing in its bundle; fails with runc too",
    "mounts": "mountinfo lists by mount id since Linux 6.8, and binds are cloned before other mounts are made",
    "pidfile": "kills a container that has ended, and takes the error for a failure; fails with runc too",
    "process_capabilities": NO_CAPABILITY,
    "process_capabilities_fail": NO_CAPABILITY,
    "process_rlimits": "raises a hard limit, which takes CAP_SYS_RESOURCE",
    "start": "demands that start without a process succeeds, and says that it must fail",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str, runtime_program: str, directory: Path) -> None:
    for path in (SUITE / "runtimetest", *SUITE.glob("rootfs-*.tar.gz")):
        shutil.copy(path, directory)
    (directory / "tmp").mkdir()
    done = subprocess.run(
        [SUITE / "bin" / program], cwd=directory, capture_output=True, text=True, timeout=120, check=False,
        env={"RUNTIME": runtime_program, "PATH": os.environ["PATH"], "TMPDIR": str(directory / "tmp")},
    )  # fmt: skip
    good = re.findall(r"^\s*ok ", done.stdout, re.MULTILINE)
    bad = [line for line in re.findall(r"^\s*not ok .*", done.stdout, re.MULTILINE) if "# TODO" not in line]
    print(f"{program}: exit code {done.returncode}, {len(good)} ok, {len(bad)} not ok")
    failed = done.returncode != 0 or bool(bad)
    assert failed == (program in FAILS), f"{FAILS.get(program, '')}\n{done.stdout}\n{done.stderr}"
