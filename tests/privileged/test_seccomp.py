"""`--security-opt seccomp=`: the default profile, none, and files in the OCI's and docker's formats."""

import json
from pathlib import Path

import pytest

from tests.helpers.warren import Warren

# A profile as docker's documentation shows it: chmod fails, but for containers that may administer the system.
DOCKER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {
            "names": ["chmod", "fchmodat", "fchmodat2"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 99,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        }
    ],
}
CHMOD = ["host", "--", "chmod", "700", "/tmp"]


def status(warren: Warren, *flags: str) -> str:
    return warren("run", *flags, "host", "--", "grep", "Seccomp:", "/proc/self/status").ok().out.split()[1]


def test_on_by_default_off_on_request(warren: Warren) -> None:
    assert status(warren) == "2"
    assert status(warren, "--security-opt", "seccomp=unconfined") == "0"
    assert status(warren, "--privileged") == "0"


def test_the_default_profile_denies_new_user_namespaces(warren: Warren) -> None:
    result = warren("run", "host", "--", "unshare", "--user", "true")
    assert result.code != 0
    assert "Operation not permitted" in result.err
    warren("run", "--security-opt", "seccomp=unconfined", "host", "--", "unshare", "--user", "true").ok()


def test_dockers_format(warren: Warren, directory: Path) -> None:
    file = directory / "profile.json"
    file.write_text(json.dumps(DOCKER))
    result = warren("run", "--security-opt", f"seccomp={file}", *CHMOD)
    assert "Cannot assign requested address" in result.err  # errno 99
    warren("run", "--security-opt", f"seccomp={file}", "--cap-add", "SYS_ADMIN", *CHMOD).ok()


def test_the_ocis_format(warren: Warren, directory: Path) -> None:
    file = directory / "profile.json"
    rule = {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}
    file.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    assert "Operation not permitted" in warren("run", "--security-opt", f"seccomp={file}", *CHMOD).err


@pytest.mark.parametrize("text", ["", "[]", '{"defaultAction": 1}', '{"defaultAction": "SCMP_ACT_WHAT"}', "{", "nul"])
def test_a_malformed_profile_is_one_line(warren: Warren, directory: Path, text: str) -> None:
    file = directory / "profile.json"
    file.write_text(text)
    warren("run", "--security-opt", f"seccomp={file}", *CHMOD).fails(125)


def test_a_profile_that_is_not_there(warren: Warren) -> None:
    warren("run", "--security-opt", "seccomp=/no/such/profile", *CHMOD).fails(125, "/no/such/profile")
