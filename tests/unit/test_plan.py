"""Golden plans: what a container consists of, step by step, without any privilege.

WARREN_UPDATE_GOLDEN=1 writes them anew; the difference then belongs into the review.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cgroups import Cgroup
from runtime.errors import LaunchError, PlanError, SpecError, UnsupportedError
from runtime.host import Host
from runtime.plan import Wiring, create_plan, exec_plan
from runtime.spec import Layers, Link, Spec, default_spec, validate
from runtime.steps import INIT_SLOT, MAX_PLAN, MAX_SLOTS, MAX_STEPS, VOCABULARY, LaunchPlan, Step

GOLDEN = Path(__file__).with_name("golden")
UNIFIED = "26 20 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
HYBRID = (
    "26 20 0:24 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    "27 20 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
ROOT = "CapEff:\t000001ffffffffff\n"
CONTAINER = Cgroup("/sys/fs/cgroup/warren-c", {})
LEGACY = Cgroup("/sys/fs/cgroup/unified/warren-c", {"pids": "/sys/fs/cgroup/pids/warren-c"})
MONITOR = (
    Step("monitor_log", "json-file", 8, "ctr.log", 1 << 20, 3),
    Step("monitor_events", ["/bin/warren", "_event", "ID"], ["PATH=/bin"], 30000, "health"),
    Step("monitor", 5, 9, 6, 7, -1, 3),
)


def host(*, uid: int = 0, mountinfo: str = UNIFIED, **files: str) -> Host:
    """A described machine: nothing of the one that runs the tests is read."""
    texts = {
        "/proc/self/status": ROOT if uid == 0 else "CapEff:\t0000000000000000\n",
        "/proc/self/uid_map": "         0          0 4294967295\n",
        "/proc/self/mountinfo": mountinfo,
        "/proc/self/cgroup": "1:pids:/\n0::/\n",
    }
    described = Host(lambda path: files.get(path, texts.get(path, "")))
    described._facts.update(euid=uid, egid=uid, newuidmap="/usr/bin/newuidmap", newgidmap="/usr/bin/newgidmap")
    return described


def spec(change: "Callable[[dict[str, Any]], None] | None" = None, **layers: Any) -> Spec:
    config = default_spec()
    config["process"]["terminal"] = False
    if change:
        change(config)
    validate(config)
    return Spec(config, "/bundle", Layers(**layers) if layers else None)


def with_user_namespace(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 0x70000000, "size": 65536}]
    config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro", "idmap"]}
    )


def joined(config: dict[str, Any]) -> None:
    paths = {"network": "/run/netns/blue", "pid": "/proc/7/ns/pid", "user": "/proc/7/ns/user"}
    kept = [entry for entry in config["linux"]["namespaces"] if entry["type"] not in paths]
    config["linux"]["namespaces"] = [*kept, *({"type": kind, "path": path} for kind, path in paths.items())]


def everything(config: dict[str, Any]) -> None:
    config["process"]["terminal"] = True
    config["process"]["consoleSize"] = {"height": 25, "width": 80}
    config["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 0o27}
    config["process"]["oomScoreAdj"] = 100
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    config["hooks"] = {
        "createRuntime": [{"path": "/bin/first"}],
        "createContainer": [{"path": "/bin/second", "args": ["second", "two"], "env": ["A=1"], "timeout": 5}],
        "startContainer": [{"path": "/bin/third"}],
    }
    config["mounts"] += [
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
        {"destination": "/shared", "type": "bind", "source": "shared", "options": ["bind", "rshared", "rro"]},
        {"destination": "/home", "type": "bind", "source": "/home", "options": ["bind", "O"]},
    ]
    config["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]


def rootless() -> Spec:
    config = default_spec(rootless=True)
    config["process"]["terminal"] = False
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    return Spec(validate(config), "/bundle")


def plans() -> dict[str, LaunchPlan]:
    """By the name of the golden file."""
    root, user = host(), host(uid=1000)
    process = {"args": ["id", "-u"], "cwd": "/", "user": {"uid": 5, "gid": 5}, "env": ["PATH=/bin"]}
    return {
        "default": create_plan(spec(), root, CONTAINER, Wiring(detached=True)),
        "run": create_plan(spec(), root, CONTAINER, Wiring(init=True, pdeathsig=9)),
        "hybrid": create_plan(spec(), host(mountinfo=HYBRID), LEGACY, Wiring()),
        "user-namespace": create_plan(spec(with_user_namespace), root, CONTAINER, Wiring()),
        "host-root": create_plan(spec(with_user_namespace, lower=["/"], idmap=True), root, CONTAINER, Wiring()),
        "joined": create_plan(spec(joined), root, CONTAINER, Wiring()),
        "everything": create_plan(spec(everything), root, CONTAINER, Wiring(detached=True, preserve_fds=2)),
        "no-pivot": create_plan(spec(), root, CONTAINER, Wiring(no_pivot=True)),
        "rootless": create_plan(rootless(), user, Cgroup("", {}), Wiring()),
        "monitored": create_plan(spec(), root, CONTAINER, Wiring(monitor=MONITOR, pdeathsig=9)),
        "exec": exec_plan(spec(with_user_namespace), root, CONTAINER, process, 0x10020000, Wiring()),
    }


@pytest.mark.parametrize("name", list(plans()))
def test_golden(name: str) -> None:
    text = "\n".join(plans()[name].lines()) + "\n"
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("WARREN_UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_no_golden_file_is_stale() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(plans())


def before(ops: list[str], first: str, second: str) -> bool:
    """Whether every `first` stands before every `second`, where both are there."""
    firsts = [index for index, op in enumerate(ops) if op == first]
    seconds = [index for index, op in enumerate(ops) if op == second]
    return not firsts or not seconds or max(firsts) < min(seconds)


_NEWNET = 0x40000000


def network_steps(plan: LaunchPlan) -> tuple[bool, list[str]]:
    """Whether clone makes the network namespace, and what comes right after it is entered otherwise."""
    clone = next(step for step in plan.steps if step.op == "clone")
    steps = [step.op if step.op != "mount" else f"mount {step.args[0]}" for step in plan.steps]
    after = [steps[index + 1] for index, op in enumerate(steps) if op == "take_network"]
    return bool(int(clone.args[0]) & _NEWNET), after  # type: ignore[call-overload]


def test_a_network_is_made_beside_the_mounts_and_entered_as_late_as_can_be() -> None:
    def without_sysfs(config: dict[str, Any]) -> None:
        with_user_namespace(config)
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "sysfs"]

    def with_hooks(config: dict[str, Any]) -> None:
        without_sysfs(config)
        config["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}

    for change, first in ((with_user_namespace, "mount sysfs"), (without_sysfs, "pivot_root"), (with_hooks, "sync")):
        plan = create_plan(spec(change), host(), CONTAINER, Wiring())
        assert network_steps(plan) == (False, [first])
        userns = next(step for step in plan.steps if step.op == "userns")
        assert userns.fields()["network"] in [step.args[0] for step in plan.steps if step.op == "take_network"]


def test_clone_makes_the_network_where_nobody_else_can_or_somebody_waits_for_it() -> None:
    linked = spec(with_user_namespace)
    linked.links = (Link("eth0"),)
    assert network_steps(create_plan(linked, host(), CONTAINER, Wiring())) == (True, [])
    assert network_steps(plans()["default"]) == (True, [])
    assert network_steps(plans()["joined"]) == (False, [])


@pytest.mark.parametrize("name", list(plans()))
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("userns", "undumpable"), ("undumpable", "setns"), ("undumpable", "clone"), ("setns", "clone"),
        ("clone", "setup_ids"), ("propagation", "root"), ("root", "mount"), ("mount", "pivot_root"),
        ("root", "readonly"), ("pivot_root", "mask"), ("mask", "user"), ("bounding", "user"),
        ("user", "capabilities"), ("capabilities", "no_new_privs"), ("no_new_privs", "find"), ("find", "wait_start"),
        ("wait_start", "exec"), ("cgroup_join", "clone"), ("chdir", "user"), ("reap", "exec"),
    ],
)  # fmt: skip
def test_order_is_the_security_design(name: str, first: str, second: str) -> None:
    ops = [step.op for step in plans()[name].steps]
    if (name, first, second) == ("rootless", "undumpable", "setns"):
        # An ordinary user enters his own new namespace, in which nobody is yet, before anything else.
        ops.remove("setns")
    assert before(ops, first, second)


@pytest.mark.parametrize("name", list(plans()))
def test_one_clone_and_exec_at_the_end(name: str) -> None:
    ops = [step.op for step in plans()[name].steps]
    assert (ops.count("clone"), ops.count("exec"), ops[-1]) == (1, 1, "exec")


@pytest.mark.parametrize("name", list(plans()))
def test_a_plan_is_data(name: str) -> None:
    plan = plans()[name]
    assert [entry["op"] for entry in plan.to_list()] == [step.op for step in plan.steps]
    json.dumps([{k: str(v) for k, v in entry.items()} for entry in plan.to_list()])
    assert plan.encode({0: 5}).startswith(b"WRNP")


def test_encoding_refuses_what_the_wire_cannot_carry() -> None:
    for step in (Step("hostname", "a\0b"), Step("umask", 1 << 63), Step("hostname", 5), Step("umask", "5")):
        with pytest.raises(PlanError):
            step.encode()


def test_slots_are_bounded() -> None:
    plan = LaunchPlan()
    with pytest.raises(PlanError, match="descriptors"):
        [plan.slot() for _ in range(MAX_SLOTS + 1)]


def test_every_word_can_be_printed() -> None:
    samples: dict[str, Any] = {"i": 1, "f": -1, "s": "a b", "l": ["1", "x y"], "b": b"\0" * 8}
    for name, word in VOCABULARY.items():
        line = str(Step(name, *(samples[letter] for letter in word.signature)))
        assert line
        assert "{" not in line
        assert "\n" not in line


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c["linux"].update(intelRdt={"closID": "x"}), UnsupportedError),
        (lambda c: c["linux"]["resources"].update(memory={"limit": 1 << 20}), UnsupportedError),
        (lambda c: c["linux"]["resources"].update(pids={"limit": 5}), UnsupportedError),
        (lambda c: c["mounts"].append({"destination": "/proc/self", "type": "tmpfs", "source": "tmpfs"}), SpecError),
        (lambda c: c["mounts"].append({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}), SpecError),
        (lambda c: c["mounts"].append({"destination": "/", "type": "tmpfs", "source": "tmpfs"}), SpecError),
        (lambda c: c["linux"].update(namespaces=[{"type": "pid"}, {"type": "uts"}]), SpecError),
    ],
)
def test_what_cannot_be_done_is_refused(change: "Callable[[dict[str, Any]], None]", error: type[Exception]) -> None:
    with pytest.raises(error):
        create_plan(spec(change), host(), CONTAINER, Wiring())


@pytest.mark.parametrize("limit", [{"limit": 0}, {"limit": -1}, {"limit": None}, {}])
def test_no_limit_is_none(limit: dict[str, Any]) -> None:
    create_plan(spec(lambda c: c["linux"]["resources"].update(memory=limit)), host(), CONTAINER, Wiring())


def test_an_ordinary_user_needs_a_user_namespace() -> None:
    with pytest.raises(UnsupportedError, match="user namespace"):
        create_plan(spec(), host(uid=1000), CONTAINER, Wiring())


def test_only_pipes_that_were_made_for_it_are_its_users() -> None:
    made = create_plan(spec(with_user_namespace), host(), CONTAINER, Wiring(streams=0b110))
    first = made.steps[0]
    owner = spec(with_user_namespace).config["linux"]["uidMappings"][0]["hostID"]
    assert (first.op, first.args) == ("own_stdio", (owner, 0, 0b110))
    assert str(first) == f"give the standard streams 1,2 to {owner}:0"
    plain = create_plan(spec(with_user_namespace), host(), CONTAINER, Wiring())
    assert "own_stdio" not in [step.op for step in plain.steps[:5]]


def test_an_ordinary_users_reaper_is_executed() -> None:
    """Else he could not enter the container: its process 1 would have the memory of a process of the host's."""
    made = create_plan(rootless(), host(uid=1000), Cgroup("", {}), Wiring(init=True))
    assert [step.args for step in made.steps if step.op == "reap"] == [(INIT_SLOT,)]
    made = create_plan(spec(), host(), CONTAINER, Wiring(init=True))
    assert [step.args for step in made.steps if step.op == "reap"] == [(-1,)]


def test_a_plan_is_bounded() -> None:
    """RULES 9: checked here, and again by init."""
    many = LaunchPlan()
    many.steps = [Step("umask", 0)] * MAX_STEPS
    assert len(many.encode({})) > MAX_STEPS
    with pytest.raises(PlanError, match="too large"):
        many.encode({0: 5})
    large = LaunchPlan()
    large.add("hostname", "x" * MAX_PLAN)
    with pytest.raises(PlanError, match="too large"):
        large.encode({})


@pytest.mark.parametrize("value", [(1 << 63) - 1, -(1 << 63), 0, -1])
def test_numbers_within_64_bits_can_be_said(value: int) -> None:
    assert struct.pack("=q", value) in Step("umask", value).encode()


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 1 << 15000, 1.5, None, "1", [1]], ids=lambda _: "")
def test_other_numbers_cannot(value: Any) -> None:
    with pytest.raises(PlanError) as failed:
        Step("umask", value).encode()
    assert len(str(failed.value)) < 20000
    assert len(str(failed.value).splitlines()) == 1


@pytest.mark.parametrize("value", ["\0", "a\0", "\0" * 9, "\ud800", 5, None, b"x"])
def test_strings_that_init_could_not_read(value: Any) -> None:
    with pytest.raises(PlanError):
        Step("hostname", value).encode()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_other_string_is_padded_and_ended(value: str) -> None:
    data = Step("hostname", value).encode()
    assert len(data) % 8 == 0
    assert value.encode() + b"\0" in data


def test_bytes_that_are_no_utf8_go_through() -> None:
    assert b"\xff\xfe\0" in Step("hostname", "\udcff\udcfe").encode()


ODD = {
    "i": st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([0, -1, 1 << 31, 0o7777])),
    "f": st.integers(-1, MAX_SLOTS),
    "s": st.text(),
    "l": st.lists(st.text(), max_size=4),
    "b": st.binary(max_size=64),
}


@given(st.data(), st.sampled_from(sorted(VOCABULARY)))
def test_no_value_breaks_the_text(data: st.DataObject, name: str) -> None:
    """Errors name their step: a value that cannot be printed must not hide what failed."""
    step = Step(name, *(data.draw(ODD[letter]) for letter in VOCABULARY[name].signature))
    line = str(LaunchError(3, step, 1))
    assert line.startswith("step 3: ")
    assert line.isprintable()
    json.dumps(step.fields(), default=bytes.hex)


@pytest.mark.parametrize("name", list(plans()))
def test_a_printed_plan_is_one_line_a_step(name: str) -> None:
    plan = plans()[name]
    lines = list(plan.lines())
    assert [line.split()[0] for line in lines] == [str(number) for number in range(1, len(plan.steps) + 1)]
    assert all(line.isprintable() and line == line.rstrip() for line in lines)


def test_a_bundle_cannot_write_on_the_terminal_that_shows_its_plan() -> None:
    def hostile(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["\x1b[2J\n 99 harmless"]
        config["hostname"] = "a\x07b"

    for line in create_plan(spec(hostile), host(), CONTAINER, Wiring()).lines():
        assert line.isprintable(), line


@pytest.mark.parametrize("name", list(plans()))
def test_the_same_facts_give_the_same_plan(name: str) -> None:
    """Invariant 1: the spec and the host alone determine the plan."""
    assert plans()[name].encode({}) == plans()[name].encode({})


@pytest.mark.parametrize("name", list(plans()))
def test_every_slot_is_filled_before_it_is_used_and_within_bounds(name: str) -> None:
    slots = [
        value
        for step in plans()[name].steps
        for letter, value in zip(VOCABULARY[step.op].signature, step.args, strict=True)
        if letter == "f"
    ]
    assert all(isinstance(slot, int) and -1 <= slot < MAX_SLOTS for slot in slots)


@pytest.mark.parametrize("name", [name for name in plans() if name not in ("exec", "no-pivot")])
def test_nothing_of_the_host_is_named_after_the_pivot(name: str) -> None:
    ops = [step.op for step in plans()[name].steps]
    (pivot,) = (index for index, op in enumerate(ops) if op in ("pivot_root", "chroot"))
    assert not {"open_tree", "setns", "userns", "inherit", "root", "clone"} & set(ops[pivot:])
