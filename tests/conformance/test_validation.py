"""The OCI validation suite (runtime-tools): every program that this host allows must pass.

The programs are of runtime-spec 1.0.2.  Where one contradicts itself, the spec of today or what every runtime does,
FAILS says so; it must go on failing in just that way.  `make validation` writes the figures into docs/conformance.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers import leaks, validation
from tests.helpers.host import FEATURES
from tests.helpers.validation import PROGRAMS, Outcome


@dataclass(frozen=True)
class Failure:
    """Why a program fails, and how: exit code, assertions and how often each fails, a part of what is printed."""

    why: str
    bad: Mapping[str, int] = field(default_factory=dict)
    code: int = 0
    says: str = ""
    lack: str = ""
    """One of helpers/host.py; a host that has it must pass the program."""


CREATE_FAILS = {"exit status 1": 1}
NO_KERNEL_LIMIT = "limits of kernel memory are gone since Linux 5.16: the kernel takes and ignores them"
NO_LEAF_WEIGHT = "blkio.leaf_weight is gone since Linux 5.0"
NO_NET_CLS = "there is no net_cls hierarchy"
NO_HUGETLB = "hugetlb is on cgroup v2 here, where Warren holds the limit and the program does not look"

FAILS = {
    "hooks_stdin": Failure(
        "wants status created in prestart hooks, which is creating since 1.0.2 (and with runc)",
        {'the state of the container MUST be passed to "prestart" hook over stdin': 1},
        says=r"wrong status \"creating\" in the stdin of prestart hook",
    ),
    "linux_cgroups_blkio": Failure(NO_LEAF_WEIGHT, code=1, says="leaf_weight", lack="leaf-weight"),
    "linux_cgroups_relative_blkio": Failure(NO_LEAF_WEIGHT, CREATE_FAILS, says="leaf_weight", lack="leaf-weight"),
    "linux_cgroups_hugetlb": Failure(NO_HUGETLB, code=1, says="cgroups mount point", lack="cgroup1-hugetlb"),
    "linux_cgroups_relative_hugetlb": Failure(NO_HUGETLB, {"get hugetlb cgroup data": 2}, lack="cgroup1-hugetlb"),
    "linux_cgroups_memory": Failure(NO_KERNEL_LIMIT, {"memory kernel is set correctly": 6}),
    "linux_cgroups_relative_memory": Failure(NO_KERNEL_LIMIT, {"memory kernel is set correctly": 1}),
    "linux_cgroups_network": Failure(NO_NET_CLS, code=1, says="net_cls", lack="cgroup1-net_cls"),
    "linux_cgroups_relative_network": Failure(NO_NET_CLS, CREATE_FAILS, says="net_cls", lack="cgroup1-net_cls"),
    "linux_mount_label": Failure("the host has no SELinux", code=1, says="SELinux is not enabled", lack="selinux"),
    "linux_ns_itype": Failure(
        "asks for a container in the host's mount namespace, which would leave its mounts there",
        {"cannot run validation tests: exit status 1": 1},
        says="a container needs a mount namespace",
    ),
    "linux_process_apparmor_profile": Failure("nobody has loaded its AppArmor profile", code=1, says="AppArmor"),
    "misc_props": Failure(
        "does not put its program into its bundle",
        {
            "implementations that are reading/processing this configuration file MUST NOT generate an error "
            "if they encounter an unknown annotation key": 1
        },
        says="'/runtimetest': no such file or directory",
    ),
    "mounts": Failure(
        "expects mountinfo in the order of mounting, but since Linux 6.8 it is the order of making, and Warren clones "
        "what it binds before it makes the other mounts",
        {
            f"mounts[{number}] (/mnt/etc-{kind}) found in order": 1
            for number, kind in enumerate(
                "shared rshared slave rslave private rprivate unbindable runbindable".split(), 9
            )
        },
    ),
    "pidfile": Failure(
        "takes the error of killing a container that has ended for one of --pid-file",
        {"create with '--pid-file' option works": 1},
        says="container not running",
    ),
    "process_capabilities": Failure(
        "root lacks CAP_SYS_RESOURCE here",
        {
            f"expected {kind} capability CAP_SYS_RESOURCE set": 1
            for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
        },
        lack="cap-sys-resource",
    ),
    "process_capabilities_fail": Failure(
        "wants an error for an unknown capability, which has to be a warning since 1.0.3",
        code=1,
        says="Any value which cannot be mapped to a relevant kernel interface MUST cause an error",
    ),
    "start": Failure(
        "says that start without a process has to fail, and demands that it succeeds",
        {
            "`start` operation MUST generate an error if `process` was not set": 1,
            "timeout in waiting for the container status": 1,
        },
        says="process: required to start a container",
    ),
}

# Programs without any assertion, which print what they found wrong and pass nevertheless.
SILENT = {
    "hooks": ("compares with words that its own hooks do not print", "Hooks MUST be called in the listed order"),
    "poststart_fail": (
        "wants a failing poststart hook to be a warning, which ends the container since 1.3",
        "if any poststart hook fails, the runtime MUST log a warning",
    ),
    "prestart": ("wants prestart hooks at start, which belong to create since 1.0.2", "Pre-start hooks MUST be called"),
}

# What a program of SILENT's kind prints now and then; test_hooks.py looks at the same without the race.
RACES = {
    "poststart": (
        (
            "its process and its hook race for the first line of a file: the process has been executed, but may not "
            "have written yet"
        ),
        "The post-start hooks MUST be called after the user-specified process is executed",
    )
}


@dataclass(frozen=True)
class Run:
    outcomes: Mapping[str, Outcome]
    left: str
    """What all programs together left behind."""


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, runtime_program: str, session_directory: Path, token: str) -> Run:
    """The chosen programs run side by side, and before the first test."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = sorted(
        str(test.callspec.params["program"]) for test in tests if test.originalname == test_program.__name__
    )
    before = leaks.Snapshot(token)
    outcomes = validation.run(chosen, runtime_program, session_directory / "validation")
    left = leaks.check(before, session_directory)
    if left:
        left.remove()
    return Run(outcomes, str(left or ""))


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program: str, run: Run) -> None:
    outcome = run.outcomes[program]
    said = f"{outcome.out}\n{outcome.err}"
    expected = FAILS.get(program)
    if expected and (not expected.lack or FEATURES[expected.lack]()):
        assert (outcome.code, outcome.bad) == (expected.code, expected.bad), f"not as ever: {expected.why}\n{said}"
        assert expected.says in said
    else:
        assert outcome.passed, said
        assert SILENT.get(program, ("", ""))[1] in outcome.silent_error
        if program in RACES:
            assert outcome.silent_error == "" or RACES[program][1] in outcome.silent_error, said
        else:
            assert bool(outcome.silent_error) == (program in SILENT), said


def test_the_programs_leave_nothing_behind(run: Run) -> None:
    assert not run.left, run.left


def test_the_suite_is_whole() -> None:
    assert len(PROGRAMS) == 58, "`make validation-suite` builds it"
    assert set(FAILS) | set(SILENT) | set(RACES) <= set(PROGRAMS)
