"""What the container's program finds itself to be: config.md, "Process"."""

import json
import os
import resource
from pathlib import Path

import pytest

from tests.helpers import probe, processes
from tests.helpers.oci import Bundle, Runtime

SETS = {
    "CapInh": "inheritable",
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}
CHOWN, KILL, NET_BIND, SYS_CHROOT = 1 << 0, 1 << 5, 1 << 10, 1 << 18


def test_arguments_are_passed_on(oci: Runtime, bundle: Bundle) -> None:
    """ "args (array of strings, REQUIRED) with similar semantics to IEEE Std 1003.1-2008 execvp's argv." """
    bundle.process["args"] = ["/bin/probe", "args", "--", "echo", "", "a b", "$HOME", "*", "ü", "\\", "--", "true"]
    lines = oci.run(bundle).ok().answers["args"]
    assert lines == [f"{i} {word}" for i, word in enumerate(bundle.process["args"])]


def test_the_environment_is_exactly_that_given(oci: Runtime, bundle: Bundle) -> None:
    """ "env (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's environ." HOME is added
    by runc and crun where it is missing."""
    bundle.process["env"] = ["PATH=/bin", "HOME=/somewhere", "EMPTY=", "WITH=equals=and spaces", "A_1=ü"]
    assert sorted(oci.ask(bundle, "env")["env"]) == sorted(bundle.process["env"])


def test_programs_are_searched_in_path(oci: Runtime, bundle: Bundle) -> None:
    """ "The first element of args MUST be the executable; similar semantics to execvp": the container's PATH counts."""
    bundle.process["env"] = ["PATH=/nowhere:/bin"]
    bundle.process["args"] = ["probe", "args", "--", "true"]
    assert oci.run(bundle).ok().answers["args"][0] == "0 probe"


def test_cwd_is_set(oci: Runtime, bundle: Bundle) -> None:
    """ "cwd (string, REQUIRED) is the working directory that will be set for the executable. This value MUST be an
    absolute path." """
    bundle.process["cwd"] = "/tmp"
    assert oci.ask(bundle, "cwd").one("cwd") == "/tmp"
    bundle.process["cwd"] = "tmp"
    oci.refuses(bundle)


def test_a_missing_cwd_is_made(oci: Runtime, bundle: Bundle) -> None:
    """runc creates a missing working directory, and engines have come to rely on it (WORKDIR of an image)."""
    bundle.process["cwd"] = "/made/on/demand"
    assert oci.ask(bundle, "cwd").one("cwd") == "/made/on/demand"


@pytest.mark.parametrize("cwd", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/8"])
def test_cwd_cannot_be_a_descriptor_of_the_runtime(oci: Runtime, bundle: Bundle, cwd: str) -> None:
    """CVE-2024-21626: a working directory reached through the runtime's descriptors lies outside the container."""
    bundle.process["cwd"] = cwd
    result = oci.run(bundle.asks("cwd"))
    assert result.code or result.answers.one("cwd").startswith("/proc"), str(result)


def test_user_and_groups(oci: Runtime, bundle: Bundle) -> None:
    """ "uid (int, REQUIRED) specifies the user ID in the container namespace. gid ... additionalGids (array of ints,
    OPTIONAL) specifies additional group IDs in the container namespace to be added to the process." """
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 2000]}
    answer = oci.ask(bundle, "id").table("id")
    assert (answer["uid"], answer["gid"]) == ("1000 1000 1000", "1001 1001 1001")
    assert set(answer["groups"].split()) - {"1001"} == {"5", "2000"}


def test_no_groups_are_inherited(oci: Runtime, bundle: Bundle) -> None:
    """ "additionalGids ... to be added": those of the runtime's caller are not among them."""
    caller = os.getgroups()
    os.setgroups([*caller, 4242])
    try:
        assert "4242" not in oci.ask(bundle, "id").table("id")["groups"].split()
    finally:
        os.setgroups(caller)


@pytest.mark.parametrize(("given", "expected"), [(None, "0022"), (0o77, "0077"), (0, "0000"), (0o777, "0777")])
def test_umask(oci: Runtime, bundle: Bundle, given: int | None, expected: str) -> None:
    """ "umask (int, OPTIONAL) specifies the umask of the user. ... If unspecified, the umask should not be changed
    from the calling process' umask." Engines meet 0022 everywhere."""
    if given is not None:
        bundle.process["user"]["umask"] = given
    before = os.umask(0o022)
    try:
        assert oci.ask(bundle, "umask").one("umask") == expected
    finally:
        os.umask(before)


def test_the_callers_umask_does_not_shape_the_rootfs(oci: Runtime, bundle: Bundle) -> None:
    """Devices and mount points have the modes that they should have, whatever the caller's umask."""
    before = os.umask(0o777)
    try:
        answers = oci.ask(bundle.mount("/made/here", "tmpfs", "tmpfs"), "stat /dev/null /made /dev/shm")
    finally:
        os.umask(before)
    modes = {line.split()[0]: line.split()[2] for line in answers["stat /dev/null /made /dev/shm"]}
    assert modes == {"/dev/null": "0666", "/made": "0755", "/dev/shm": "1777"}


def test_rlimits(oci: Runtime, bundle: Bundle) -> None:
    """ "soft (uint64, REQUIRED) the value of the limit enforced for the corresponding resource. hard (uint64,
    REQUIRED) the ceiling for the soft limit that could be set by an unprivileged process." """
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_MSGQUEUE", "soft": 512, "hard": 1024},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 30},
    ]
    limits = oci.ask(bundle, "rlimits").table("rlimits")
    assert (limits["MSGQUEUE"], limits["CORE"], limits["STACK"]) == ("512 1024", "0 0", f"{1 << 20} {1 << 30}")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert limits["FSIZE"] == f"{soft} {hard}"


@pytest.mark.parametrize(
    "rlimits",
    [
        [{"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}],
        [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}],
        [{"type": "RLIMIT_NOFILE", "soft": 1025, "hard": 1024}],
    ],
    ids=["unknown", "duplicate", "soft above hard"],
)
def test_bad_rlimits_are_errors(oci: Runtime, bundle: Bundle, rlimits: list[dict[str, object]]) -> None:
    """ "The runtime MUST generate an error for any values which cannot be mapped to a relevant kernel interface.
    ... If rlimits contains duplicated entries with same type, the runtime MUST generate an error." """
    bundle.process["rlimits"] = rlimits
    oci.refuses(bundle)


def test_five_capability_sets(oci: Runtime, bundle: Bundle) -> None:
    """ "effective, bounding, inheritable, permitted, ambient (array of strings, OPTIONAL): ... is an array of ...
    capabilities that are kept for the process." Root's permitted set after execve(2) is bounding and inheritable:
    capabilities(7)."""
    bundle.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "permitted": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_NET_BIND_SERVICE"],
        "ambient": ["CAP_NET_BIND_SERVICE"],
    }
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert caps(oci.ask(bundle, "caps")) == {
        "bounding": CHOWN | KILL | NET_BIND,
        "inheritable": NET_BIND,
        "ambient": NET_BIND,
        "permitted": NET_BIND,
        "effective": NET_BIND,
    }


def test_nothing_is_inheritable_unless_asked_for(oci: Runtime, bundle: Bundle) -> None:
    """CVE-2022-29162, CVE-2022-27650: inheritable and ambient capabilities are empty where the configuration is
    silent."""
    found = caps(oci.ask(bundle, "caps"))
    kept = 1 << 29 | KILL | NET_BIND
    assert found == {"inheritable": 0, "ambient": 0, "permitted": kept, "effective": kept, "bounding": kept}


def test_no_capabilities_at_all(oci: Runtime, bundle: Bundle) -> None:
    """ "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise, MUST be
    logged as a warning"; an absent object grants none."""
    bundle.process["capabilities"] = {}
    assert set(caps(oci.ask(bundle, "caps")).values()) == {0}


def test_an_unknown_capability_is_not_fatal(oci: Runtime, bundle: Bundle) -> None:
    """ "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise, MUST be
    logged as a warning by the runtime. Runtimes SHOULD NOT fail if the container configuration requests
    capabilities that cannot be granted." """
    bundle.process["capabilities"]["bounding"].append("CAP_FLY")
    assert caps(oci.ask(bundle, "caps"))["bounding"] == 1 << 29 | KILL | NET_BIND


def test_what_cannot_be_granted_is_logged(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """The same sentence: a capability that nobody knows, and one that the runtime has not got itself."""
    oci.prefix = ["setpriv", "--inh-caps=-sys_time", "--bounding-set=-sys_time"]
    log = directory / "log.json"
    for kind in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][kind] += ["CAP_FLY", "CAP_SYS_TIME"]
    oci.flags = ["--log", str(log), "--log-format", "json"]
    assert caps(oci.ask(bundle, "caps"))["effective"] == 1 << 29 | KILL | NET_BIND
    (warning,) = [entry for entry in map(json.loads, log.read_text().splitlines()) if "CAP_FLY" in entry["msg"]]
    assert warning["level"] == "warning" and "CAP_SYS_TIME" in warning["msg"]


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(oci: Runtime, bundle: Bundle, wanted: bool) -> None:
    """ "noNewPrivileges (bool, OPTIONAL) setting noNewPrivileges to true prevents the process from gaining additional
    privileges." """
    bundle.process["noNewPrivileges"] = wanted
    assert oci.ask(bundle, "nnp").one("nnp") == str(int(wanted))


def test_oom_score_adj(oci: Runtime, bundle: Bundle) -> None:
    """ "oomScoreAdj (int, OPTIONAL) adjusts the oom-killer score in [pid]/oom_score_adj for the process's [pid]. If
    oomScoreAdj is set, the runtime MUST set oom_score_adj to the given value. If oomScoreAdj is not set, the
    runtime MUST NOT change the value of oom_score_adj." """
    mine = Path("/proc/self/oom_score_adj").read_text().strip()
    assert oci.ask(bundle, "oom").one("oom") == mine
    bundle.process["oomScoreAdj"] = 500
    assert oci.ask(bundle, "oom").one("oom") == "500"


@pytest.fixture
def open_files(directory: Path) -> list[Path]:
    """Become the descriptors 3 to 6 of the runtime's caller; a directory of the host is the worst to leak."""
    return [directory] * 4


def test_descriptors_are_closed(oci: Runtime, bundle: Bundle, open_files: list[Path]) -> None:
    """The program gets 0, 1 and 2 and nothing else, whatever the caller forgot to close (CVE-2024-21626)."""
    assert set(oci.run(bundle.asks("fds"), opens=open_files).ok().answers.table("fds")) == {"0", "1", "2"}


def test_preserve_fds_keeps_so_many(oci: Runtime, bundle: Bundle, open_files: list[Path]) -> None:
    """runc(8): "--preserve-fds: Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in
    total)" """
    found = oci.run(bundle.asks("fds"), "--preserve-fds", "2", opens=open_files).ok().answers.table("fds")
    assert set(found) == {"0", "1", "2", "3", "4"}


def test_signals_are_reset(oci: Runtime, bundle: Bundle) -> None:
    """The program starts with no signal blocked or ignored, even if the runtime (or Python, which ignores SIGPIPE)
    does so."""
    masks = oci.ask(bundle, "sigs").table("sigs")
    assert {name: int(mask, 16) for name, mask in masks.items()} == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


def test_the_program_leads_a_session(oci: Runtime, bundle: Bundle) -> None:
    """TIOCSTI and the terminal's signals of the caller do not reach a process in a session of its own."""
    found = oci.ask(bundle, "process").table("process")
    assert (found["pid"], found["ppid"], found["sid"]) == ("1", "0", "1")


def test_the_program_is_the_first_process(oci: Runtime, bundle: Bundle) -> None:
    """No helper of the runtime can be seen or attacked inside."""
    answers = oci.ask(bundle, "pids", "readlink /proc/self/exe")
    assert answers["pids"] == ["1"]
    assert answers.one("readlink /proc/self/exe") == "/bin/probe"


def test_standard_streams_are_the_callers(oci: Runtime, bundle: Bundle) -> None:
    """ "terminal (bool, OPTIONAL) specifies whether a terminal is attached to the process, defaults to false."
    Without one the streams are inherited."""
    result = oci.run(bundle.asks("read", "error to-stderr"), input="from stdin\n").ok()
    assert result.answers["read"] == ["from stdin"]
    assert "to-stderr" in result.err


@pytest.mark.parametrize(("question", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255)])
def test_run_returns_the_programs_exit_code(oci: Runtime, bundle: Bundle, question: str, code: int) -> None:
    """runc(8), run: the exit status is that of the container's process."""
    assert oci.run(bundle.asks(question)).code == code


@pytest.mark.parametrize("number", [6, 9, 15])
def test_run_returns_128_plus_the_signal(oci: Runtime, bundle: Bundle, number: int) -> None:
    """As a shell does. The program shares the host's pid namespace here, since process 1 is immune to its own
    signals."""
    assert oci.run(bundle.shares("pid").asks(f"kill-self {number}")).code == 128 + number


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/bin/nothing", "no such file or directory"),
        ("nothing", "executable file not found in $PATH"),
        ("/etc/passwd", "permission denied"),
        ("/bin", "permission denied"),
    ],
)
def test_a_program_that_cannot_run(oci: Runtime, bundle: Bundle, program: str, words: str) -> None:
    """ "If the runtime is unable to create the environment specified in the config.json, it MUST generate an
    error." podman and dockerd turn these words into 127 and 126."""
    bundle.process["args"] = [program]
    result = oci.run(bundle).fails()
    assert words in result.err, str(result)
    assert oci.list() == []


def test_words_of_a_missing_command_are_kept_for_it(oci: Runtime, bundle: Bundle) -> None:
    """podman would report 127, command not found, for any message that holds these words."""
    bundle.mount("/data", "bind", "/dev/null", "bind")
    message = oci.refuses(bundle).err
    assert "executable file not found" not in message and "no such file or directory" not in message.lower()


def test_pid_file(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """runc(8): "--pid-file: specify the file to write the process id to"; engines read it as soon as create returns."""
    container = oci.create(bundle, "--pid-file", directory / "pid")
    assert (directory / "pid").read_text() == str(container.pid)
    assert processes.read(container.pid)


def test_home_comes_from_the_containers_passwd(oci: Runtime, bundle: Bundle) -> None:
    """runc and crun set HOME from the container's /etc/passwd where the configuration has none; shells expect it."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert "HOME=/home/bee" in oci.ask(bundle, "env")["env"]


def test_personality(oci: Runtime, bundle: Bundle) -> None:
    """ "personality (object, OPTIONAL) sets the Linux execution personality. ... LINUX32 will set the uname system
    call to show a 32 bit CPU type, such as i686." A runtime that cannot do so refuses, it does not ignore."""
    bundle.linux["personality"] = {"domain": "LINUX32"}
    result = oci.run(bundle.asks("machine"))
    if result.code:
        result.fails("personality")
    else:
        assert result.answers.one("machine") in ("i686", "armv8l")


def test_several_questions_in_one_launch() -> None:
    """The tests' own vocabulary: one launch answers many questions."""
    assert probe.command("id", "echo 'a b'") == ["/bin/probe", "id", "--", "echo", "a b"]


def caps(answers: probe.Answers) -> dict[str, int]:
    return {SETS[name]: int(value, 16) for name, value in answers.table("caps").items()}
