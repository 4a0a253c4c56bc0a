"""What `warren doctor` tells of machines that are described, and how the command prints it."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from runtime.commands.table import commands
from runtime.doctor import CONTROLLERS, Finding, examine
from runtime.host import Host

from .test_cgroup_limits import ALL_V2, V1, V1_OWN, V2

FEW_V1 = "".join(line + "\n" for line in V1.splitlines() if not line.endswith(("hugetlb", "rdma")))
MIXED = V2.replace("/cgroup ", "/cgroup/unified ")
ELSEWHERE = (FEW_V1 + MIXED).replace("/sys/fs/cgroup", "/no/such/directory")
FILES = {
    "/proc/filesystems": "nodev\tproc\nnodev\toverlay\n\text4\n",
    "/proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow\n",
    "/proc/self/cgroup": V1_OWN,
    "/proc/self/uid_map": "0 0 4294967295\n",
}
ROOT = {"euid": 0, "egid": 0, "capabilities": (1 << 41) - 1}
ORDINARY = {"euid": 1000, "egid": 1000, "capabilities": 0}


def machine(mounts: str = "", controllers: str = "", *, files: "dict[str, str] | None" = None, **facts: Any) -> Host:
    """A machine of these files and facts alone, by default root's; without mounts it has no cgroups."""
    known = {**FILES, "/proc/self/mountinfo": mounts, **(files or {})}
    host = Host(lambda path: controllers if path.endswith("/cgroup.controllers") else known.get(path, ""))
    host._facts.update({**ROOT, "kernel": (6, 1), "newuidmap": "", "newgidmap": "", **facts})
    return host


def found(host: Host) -> dict[str, Finding]:
    findings = examine(host)
    assert len({finding.name for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.ok or finding.remedy, finding.name
        assert not (finding.ok and finding.remedy), finding.name
        assert "\n" not in finding.text + finding.remedy
    return {finding.name: finding for finding in findings}


def held(host: Host) -> dict[str, str]:
    """How each controller is held; "" for those that nobody holds."""
    findings = found(host)
    return {name: findings[f"cgroup {name}"].text * findings[f"cgroup {name}"].ok for name in CONTROLLERS}


# ---- who holds what


def test_cgroup_v2_alone() -> None:
    v2 = "cgroup v2 at /sys/fs/cgroup"
    assert held(machine(V2, ALL_V2)) == {
        **dict.fromkeys(("memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma"), v2),
        "freezer": f"cgroup.freeze ({v2})",
        "devices": f"device programs, {v2}",
    }


def test_cgroup_v2_without_a_controller() -> None:
    host = machine(V2, "cpu memory pids")
    assert {name for name, how in held(host).items() if not how} == {"cpuset", "io", "hugetlb", "rdma"}
    missing = found(host)["cgroup io"]
    assert missing.text == "nobody holds it: limits are refused"
    assert "/proc/cgroups" in missing.remedy
    assert not missing.essential


def test_cgroup_v1_alone() -> None:
    at = "cgroup v1 at /sys/fs/cgroup/"
    assert held(machine(V1)) == {
        **{name: at + name for name in ("memory", "cpuset", "pids", "hugetlb", "rdma", "freezer", "devices")},
        "cpu": at + "cpu,cpuacct",
        "io": at + "blkio",
    }


def test_a_hybrid_host_has_each_where_it_is() -> None:
    told = held(machine(FEW_V1 + MIXED, "hugetlb"))
    assert told["hugetlb"] == "cgroup v2 at /sys/fs/cgroup/unified"
    assert told["freezer"] == "cgroup.freeze (cgroup v2 at /sys/fs/cgroup/unified)"
    assert told["devices"] == "cgroup v1 at /sys/fs/cgroup/devices"
    assert told["memory"] == "cgroup v1 at /sys/fs/cgroup/memory"
    assert told["rdma"] == ""


def test_without_cgroups() -> None:
    host = machine()
    assert set(held(host).values()) == {""}
    findings = found(host)
    assert not findings["cgroup"].ok
    assert "limits are refused" in findings["cgroup"].text
    assert not findings["cgroup_v2"].ok


def test_device_programs_need_root_of_the_first_user_namespace() -> None:
    nested = machine(V2, ALL_V2, files={"/proc/self/uid_map": "0 1000 1\n"})
    assert held(nested)["devices"] == ""
    assert not found(nested)["device_nodes"].ok
    assert held(machine(V2, ALL_V2, **ORDINARY))["devices"] == ""


# ---- who calls


def test_an_ordinary_user_is_told_of_ids_and_of_cgroups() -> None:
    findings = found(machine(ELSEWHERE, ALL_V2, **ORDINARY))
    missing = {name for name, finding in findings.items() if not finding.ok}
    assert {"privileged", "raise_limits", "subordinate_uids", "newuidmap", "cgroup"} <= missing
    assert "--add-subuids" in findings["subordinate_uids"].remedy
    assert findings["user_namespaces"].ok
    own = {"/etc/subuid": "1000:100000:65536\n", "/etc/subgid": "1000:100000:65536\n"}
    findings = found(machine(V2, ALL_V2, **{**ORDINARY, "newuidmap": "/usr/bin/newuidmap"}, files=own))
    assert findings["subordinate_uids"].ok and findings["subordinate_gids"].ok and findings["newuidmap"].ok
    assert not findings["newgidmap"].ok


def test_root_is_not_bothered_with_subordinate_ids() -> None:
    assert not {"subordinate_uids", "newuidmap"} & found(machine(V2, ALL_V2)).keys()


@pytest.mark.parametrize("name", ["apparmor", "selinux"])
def test_security_modules_are_told_of(name: str) -> None:
    assert not found(machine())[name].ok
    assert found(machine(**{name: True}))[name].ok


# ---- what is essential, and the command


SYSCTL = "/proc/sys/user/max_user_namespaces"
BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("kernel", {"kernel": (5, 14)}),
    ("overlay", {"files": {"/proc/filesystems": "nodev\tproc\n"}}),
    ("user_namespaces", {**ORDINARY, "files": {SYSCTL: "0\n"}}),
]


def command(monkeypatch: pytest.MonkeyPatch, host: Host, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(Host, "probe", classmethod(lambda cls: host))
    done = CliRunner().invoke(commands, ["doctor", *arguments])
    return done.exit_code, done.output


@pytest.mark.parametrize(("name", "facts"), BROKEN)
def test_what_no_container_runs_without_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, name: str, facts: dict[str, Any]
) -> None:
    host = machine(V2, ALL_V2, **facts)
    assert [finding.name for finding in examine(host) if finding.essential and not finding.ok] == [name]
    code, out = command(monkeypatch, host)
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.split()[:2] == ["no", name]]
    assert line.endswith(f"({found(host)[name].remedy})")


def test_root_does_without_the_sysctl_for_ordinary_users(monkeypatch: pytest.MonkeyPatch) -> None:
    host = machine(V2, ALL_V2, files={SYSCTL: "0\n"})
    assert not found(host)["user_namespaces"].ok
    assert command(monkeypatch, host)[0] == 0


@pytest.mark.parametrize("mounts", ["", V1, V2], ids=["no cgroups", "v1", "v2"])
@pytest.mark.parametrize("caller", [ROOT, ORDINARY], ids=["root", "ordinary"])
def test_lacking_limits_are_not_essential(monkeypatch: pytest.MonkeyPatch, mounts: str, caller: dict[str, Any]) -> None:
    host = machine(mounts, **caller)
    code, out = command(monkeypatch, host)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == len(examine(host))
    assert {line.split()[0] for line in lines} == {"yes", "no"}


def test_json_is_the_same_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    host = machine(V1)
    code, out = command(monkeypatch, host, "--format", "json")
    assert code == 0
    entries = json.loads(out)
    assert [(entry["name"], entry["ok"], entry["text"]) for entry in entries] == [
        (finding.name, finding.ok, finding.text) for finding in examine(host)
    ]
    assert {tuple(entry) for entry in entries} == {("name", "ok", "essential", "text", "remedy")}


def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, machine(), "--format", "yaml")[0] != 0
