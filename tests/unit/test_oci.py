"""`warren-oci`'s own parser, its words and texts; nothing is launched."""

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime
from runtime import container, oci, spec
from runtime.errors import UsageError, WarrenError
from runtime.oci import Log, parse, signal_number
from tests.helpers.warren import PROGRAM

COMMAND = PROGRAM.with_name("warren-oci")
KNOWN = {"root": "=", "user u": "=", "env e": "*", "detach d": "", "plan": "?"}


def call(tmp_path: Path, *words: str | Path, cwd: "Path | None" = None) -> "subprocess.CompletedProcess[str]":
    """The built command, with a state root of its own."""
    arguments = [str(COMMAND), "--root", str(tmp_path / "root"), *map(str, words)]
    return subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, cwd=cwd or tmp_path
    )


def refused(done: "subprocess.CompletedProcess[str]", *words: str, code: int = 1) -> str:
    """One line on standard error, nothing on standard output."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("warren-oci: ")
    for word in words:
        assert word in done.stderr
    return done.stderr


# ---- the parser


@pytest.mark.parametrize(
    ("argv", "options", "words"),
    [
        ([], {}, []),
        (["id"], {}, ["id"]),
        (["--root", "/x", "id"], {"root": "/x"}, ["id"]),
        (["--root=/x", "id"], {"root": "/x"}, ["id"]),
        (["-root", "/x"], {"root": "/x"}, []),
        (["--root="], {"root": ""}, []),
        (["--root=a=b"], {"root": "a=b"}, []),
        (["--root", "-d"], {"root": "-d"}, []),
        (["--root", "--"], {"root": "--"}, []),
        (["--root", "a", "--root", "b"], {"root": "b"}, []),
        (["-u", "1:2"], {"user": "1:2"}, []),
        (["-u=1:2"], {"user": "1:2"}, []),
        (["--user", "1"], {"user": "1"}, []),
        (["-e", "A=1", "--env", "B=2", "-e=C=3"], {"env": ["A=1", "B=2", "C=3"]}, []),
        (["-d"], {"detach": True}, []),
        (["--detach=true", "id"], {"detach": True}, ["id"]),
        (["--detach=false", "id"], {"detach": False}, ["id"]),
        (["-d", "false"], {"detach": True}, ["false"]),
        (["id", "-d"], {"detach": True}, ["id"]),
        (["--plan", "id"], {"plan": "true"}, ["id"]),
        (["--plan=json", "id"], {"plan": "json"}, ["id"]),
        (["--", "-d"], {}, ["-d"]),
        (["id", "--", "-d", "--"], {}, ["id", "-d", "--"]),
        (["-"], {}, ["-"]),
        ([""], {}, [""]),
    ],
)
def test_forms_of_options(argv: list[str], options: dict[str, Any], words: list[str]) -> None:
    arguments, _ = parse(argv, KNOWN, stop=False)
    assert (arguments.options, arguments.words) == (options, words)


@pytest.mark.parametrize(
    ("argv", "options", "rest"),
    [
        (["-d", "id", "sh", "-c", "x", "-d"], {"detach": True}, ["id", "sh", "-c", "x", "-d"]),
        (["id", "--", "sh", "--"], {}, ["id", "--", "sh", "--"]),
        (["-d", "--", "-e"], {"detach": True}, ["-e"]),
        (["--env", "A", "id"], {"env": ["A"]}, ["id"]),
    ],
)
def test_options_end_at_the_first_word(argv: list[str], options: dict[str, Any], rest: list[str]) -> None:
    arguments, behind = parse(argv, KNOWN, stop=True)
    assert (arguments.options, arguments.words, behind) == (options, rest, rest)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--no-such"], "unknown option '--no-such'"),
        (["--no-such=secret"], "unknown option '--no-such'"),
        (["-x"], "unknown option '-x'"),
        (["-du"], "unknown option '-du'"),
        (["--root"], "option --root needs a value"),
        (["-e"], "option --env needs a value"),
        (["--detach=maybe"], "option --detach is true or false, not 'maybe'"),
        (["--detach="], "option --detach is true or false"),
    ],
)
def test_bad_options(argv: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as failed:
        parse(argv, KNOWN, stop=False)
    assert problem in str(failed.value)


@given(
    st.lists(st.one_of(st.text(max_size=8), st.sampled_from(["-d", "--root", "--", "-e", "=", "---", "--plan="]))),
    st.booleans(),
)
def test_any_words_parse_or_are_refused(argv: list[str], stop: bool) -> None:
    try:
        arguments, rest = parse(argv, KNOWN, stop=stop)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    assert set(arguments.options) <= {"root", "user", "env", "detach", "plan"}
    assert len(arguments.words) <= len(argv)
    assert argv[len(argv) - len(rest) :] == rest


@pytest.mark.parametrize("text", ["-1", "x", "1.5", " 1", "1" * 10, "\xb2", "\u0661"])
def test_a_number_is_decimal(text: str) -> None:
    arguments, _ = parse([f"--preserve-fds={text}"], {"preserve-fds": "="}, stop=False)
    with pytest.raises(UsageError, match="is not a number"):
        arguments.number("preserve-fds")


def test_numbers() -> None:
    assert parse(["--preserve-fds=12"], {"preserve-fds": "="}, stop=False)[0].number("preserve-fds") == 12
    assert parse([], {"preserve-fds": "="}, stop=False)[0].number("preserve-fds") == 0


# ---- signals


@pytest.mark.parametrize("name", [s.name for s in signal.Signals])
def test_every_signal_of_this_system_has_its_name(name: str) -> None:
    number = int(signal.Signals[name])
    for text in (name, name.removeprefix("SIG"), name.lower(), str(number)):
        assert signal_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("IOT", 6), ("sigpoll", 29), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmin+30", 64), ("RTMAX", 64), ("0", 0),
     ("64", 64), ("009", 9)],
)  # fmt: skip
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "SIG", "SIGSIGTERM", "NOSUCH", "65", "-9", "9.0", " 9", "TERM ", "+", "KILL+1", "RTMIN+", "RTMIN+31",
     "RTMAX+1", "9999999999", "\xb2", "\u0669", "RTMIN+\xb2"],
)  # fmt: skip
def test_no_signals(text: str) -> None:
    with pytest.raises(UsageError, match="unknown signal"):
        signal_number(text)


# ---- users of exec


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("0", {"uid": 0, "gid": 7}),
        ("5:6", {"uid": 5, "gid": 6}),
        ("4294967294:4294967294", {"uid": 4294967294, "gid": 4294967294}),
        ("0005", {"uid": 5, "gid": 7}),
    ],
)
def test_users(text: str, user: dict[str, int]) -> None:
    assert oci._user(text, {"uid": 7, "gid": 7}) == user


@pytest.mark.parametrize(
    "text",
    ["", ":", "1:", ":1", "1:2:3", "root", "1:root", "-1", "+1", " 1", "1 ", "1\n", "4294967295", "4294967296",
     "9" * 5000, "1.0", "0x1", "\xb2", "\u0661"],
)  # fmt: skip
def test_users_are_digits_within_bounds(text: str) -> None:
    """RULES 11."""
    with pytest.raises(UsageError):
        oci._user(text, {"uid": 7, "gid": 7})


def test_a_users_other_fields_stay() -> None:
    own = {"uid": 7, "gid": 7, "additionalGids": [1], "umask": 18}
    assert oci._user("5", own) == {"uid": 5, "gid": 7, "additionalGids": [1], "umask": 18}
    assert own["uid"] == 7


# ---- the process of exec


class OfContainer:
    """Stands for the container of an exec: all that _process() asks of it is its process."""

    def __init__(self) -> None:
        self.process: dict[str, Any] = {
            "args": ["init"], "cwd": "/", "user": {"uid": 0, "gid": 0, "additionalGids": [3]}, "env": ["A=1"],
            "terminal": True, "consoleSize": {"height": 1, "width": 1},
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        }  # fmt: skip

    def exec_defaults(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.process))  # type: ignore[no-any-return]


def process_of(*argv: str) -> dict[str, Any]:
    arguments, _ = parse([*argv], oci._COMMANDS["exec"][1], stop=True)
    return oci._process(arguments, OfContainer())


def test_exec_starts_from_the_containers_own_process() -> None:
    process = process_of("id", "cmd", "-x", "--", "y")
    assert process["args"] == ["cmd", "-x", "--", "y"]
    assert process["env"] == ["A=1"]
    assert process["terminal"] is False
    assert "consoleSize" not in process
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [3]}


def test_the_flags_of_exec() -> None:
    flags = "-e B=2 --env=C=3 --cwd /srv -t -u 5:6 -g 8 -g 9 -c NET_ADMIN --no-new-privs".split()
    process = process_of(*flags, "id", "cmd")
    assert process["env"] == ["A=1", "B=2", "C=3"]
    assert (process["cwd"], process["terminal"], process["noNewPrivileges"]) == ("/srv", True, True)
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [3, 8, 9]}
    for kind in ("bounding", "effective", "permitted"):
        assert process["capabilities"][kind] == ["CAP_KILL", "CAP_NET_ADMIN"]
    # RULES 8: nothing becomes inheritable or ambient that was not.
    assert not process["capabilities"].get("inheritable")
    assert not process["capabilities"].get("ambient")


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["id"], UsageError),
        (["--cwd", "relative", "id", "cmd"], WarrenError),
        (["-g", "x", "id", "cmd"], UsageError),
        (["-c", "NO_SUCH", "id", "cmd"], WarrenError),
        (["-e", "=x", "id", "cmd"], WarrenError),
        (["--process", "/nonexistent", "id"], WarrenError),
        (["--process", "/dev/zero", "id"], WarrenError),
    ],
)
def test_what_exec_refuses(argv: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        process_of(*argv)


def test_a_process_file(tmp_path: Path) -> None:
    file = tmp_path / "process.json"
    file.write_text('{"args": ["x"], "cwd": "/", "user": {"uid": 1, "gid": 1}}')
    assert process_of("--process", str(file), "id")["args"] == ["x"]
    file.write_text('{"args": [], "cwd": "/"}')
    with pytest.raises(WarrenError, match="args"):
        process_of("--process", str(file), "id")
    os.unlink(file)
    os.mkfifo(file)
    with pytest.raises(WarrenError):
        process_of("--process", str(file), "id")


@pytest.mark.parametrize(
    ("terminal", "detached", "socket", "good"),
    [
        (False, False, "", True), (False, True, "", True), (True, False, "", True), (True, True, "/s", True),
        (True, True, "", False), (False, True, "/s", False), (False, False, "/s", False), (True, False, "/s", False),
    ],
)  # fmt: skip
def test_when_a_terminal_needs_a_socket(terminal: bool, detached: bool, socket: str, good: bool) -> None:
    if good:
        oci._check_terminal(terminal, detached, socket)
    else:
        with pytest.raises(UsageError):
            oci._check_terminal(terminal, detached, socket)


# ---- the log file


def test_log_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.path = str(tmp_path / "log")
    log.error('a "quoted"\tthing')
    log.format = "json"
    log.warn("two")
    first, second = (tmp_path / "log").read_text().splitlines()
    assert "level=error" in first
    assert r'msg="a \"quoted\"\tthing"' in first
    entry = json.loads(second)
    assert (entry["level"], entry["msg"]) == ("warning", "two")
    assert set(entry) == {"level", "msg", "time"}
    assert capsys.readouterr().err.splitlines() == ['warren-oci: a "quoted"\tthing', "warren-oci: warning: two"]
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.path = str(tmp_path / "no/such/log")
    log.error("problem")
    assert "problem" in capsys.readouterr().err


def test_a_fifo_as_log_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    done = call(tmp_path, "--log", tmp_path / "log", "state", "none")
    assert done.returncode == 1


# ---- the whole command, where it launches nothing


def test_version(tmp_path: Path) -> None:
    done = call(tmp_path, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"warren-oci version {runtime.__version__}"
    assert [line.split(":")[0] for line in lines[1:]] == ["commit", "spec"]
    assert call(tmp_path, "-v").stdout == done.stdout


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_help(tmp_path: Path, words: list[str]) -> None:
    done = call(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    for name in oci._COMMANDS:
        assert f"  {name} " in done.stdout or f"  {name}\n" in done.stdout


@pytest.mark.parametrize("command", list(oci._COMMANDS))
def test_help_of_a_command(tmp_path: Path, command: str) -> None:
    done = call(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: warren-oci {command} ")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["frobnicate"], "unknown command 'frobnicate'"),
        (["--frobnicate"], "unknown option"),
        (["restore", "--bundle", "/nonexistent", "c"], "bundle /nonexistent"),
        (["state"], "a container id is required"),
        (["state", "a", "b"], "unexpected argument 'b'"),
        (["kill", "a", "KILL", "c"], "unexpected argument 'c'"),
        (["kill", "a", "NOSUCH"], "unknown signal"),
        (["list", "x"], "unexpected argument"),
        (["list", "--format", "yaml"], "unknown format"),
        (["ps", "--format", "yaml", "none"], ""),
        (["state", "none"], "container 'none' does not exist"),
        (["start", "none"], "does not exist"),
        (["kill", "none"], "does not exist"),
        (["delete", "none"], "does not exist"),
        (["ps", "none"], "does not exist"),
        (["--log-format", "xml", "list"], "log format"),
        (["--cgroup-manager", "magic", "list"], "cgroup manager"),
        (["--rootless", "maybe", "list"], "--rootless"),
        (["create", "--bundle", "/nonexistent", "c"], "/nonexistent"),
        (["create", "--pidfd-socket", "/x", "c"], ""),
        (["state", "../x"], "invalid container id"),
        (["state", "."], "invalid container id"),
        (["state", ".."], "invalid container id"),
        (["state", "a/b"], "invalid container id"),
        (["state", ""], "id is empty"),
        (["state", "a\nb"], "invalid container id"),
        (["state", "\x1b[2J"], "invalid container id"),
        (["state", "a" * 1025], "longer"),
        (["delete", "--force", "../x"], "invalid container id"),
    ],
)
def test_bad_words_are_one_line(tmp_path: Path, words: list[str], problem: str) -> None:
    text = refused(call(tmp_path, *words), problem)
    assert text[:-1].isprintable()
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("words", [["run", "c"], ["exec", "c", "cmd"], ["run", "--frobnicate"], ["exec"]])
def test_failures_of_run_and_exec_are_not_the_commands(tmp_path: Path, words: list[str]) -> None:
    """RULES 26: 125 tells that it was the runtime that failed."""
    refused(call(tmp_path, *words), code=125)


def test_delete_with_force_of_nothing_is_fine(tmp_path: Path) -> None:
    done = call(tmp_path, "delete", "--force", "none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lists_of_nothing(tmp_path: Path) -> None:
    assert call(tmp_path, "list").stdout.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert call(tmp_path, "list", "-q").stdout == ""
    assert json.loads(call(tmp_path, "list", "-f", "json").stdout) == []


def test_features(tmp_path: Path) -> None:
    """features.md: what an engine reads before it writes a config.json."""
    features = json.loads(call(tmp_path, "features").stdout)
    assert features["ociVersionMin"] == "1.0.0"
    assert features["ociVersionMax"] == container.OCI_VERSION == spec.SPEC_VERSION == "1.3.0"
    assert set(features["hooks"]) == {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    }  # fmt: skip
    linux = features["linux"]
    assert {"pid", "mount", "uts", "ipc", "network", "user", "cgroup"} <= set(linux["namespaces"])
    assert "CAP_SYS_ADMIN" in linux["capabilities"]
    assert {"ro", "rbind", "rslave", "rro"} <= set(features["mountOptions"])


def test_features_tell_of_the_seccomp_that_is_there(tmp_path: Path) -> None:
    """An engine leaves the profile out of the bundle when features say that seccomp is off: silently weaker."""
    pytest.importorskip("runtime.seccomp")
    assert json.loads(call(tmp_path, "features").stdout)["linux"]["seccomp"]["enabled"] is True


@pytest.mark.parametrize("rootless", [False, True])
def test_spec(tmp_path: Path, rootless: bool) -> None:
    flags = ["--rootless"] if rootless else []
    done = call(tmp_path, "spec", *flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    config = json.loads((tmp_path / "config.json").read_text())
    kinds = [entry["type"] for entry in config["linux"]["namespaces"]]
    assert ("user" in kinds) is rootless
    if rootless:
        assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        assert config["linux"]["gidMappings"] == [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    refused(call(tmp_path, "spec", *flags), "config.json exists")
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_spec_into_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert call(tmp_path, "spec", "--bundle", "b").returncode == 0
    assert (tmp_path / "b/config.json").exists()
    refused(call(tmp_path, "spec", "--bundle", "missing"), "missing")


def test_spec_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "elsewhere")
    refused(call(tmp_path, "spec"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("command", ["create", "run"])
def test_a_plan_launches_nothing(tmp_path: Path, command: str) -> None:
    (tmp_path / "rootfs").mkdir()
    call(tmp_path, "spec")
    text = call(tmp_path, command, "--plan", "c")
    assert text.returncode == 0, text.stderr
    assert text.stdout.splitlines()[-1].endswith("execute sh")
    steps = json.loads(call(tmp_path, command, "--plan=json", "c").stdout)
    assert len(steps) == len(text.stdout.splitlines())
    assert steps[-1]["op"] == "exec"
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("style", ["yaml", ""])
def test_a_plan_of_an_unknown_style_is_refused(tmp_path: Path, style: str) -> None:
    (tmp_path / "rootfs").mkdir()
    call(tmp_path, "spec")
    refused(call(tmp_path, "create", f"--plan={style}", "c"), "plan")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100000, b'{"ociVersion": 1' + b"0" * 10000 + b"}",
     b'{"ociVersion": NaN}', b'{"ociVersion": "1.0.2"} x', b'{"ociVersion": "\\ud800"}', b'{"ociVersion": "\\u0000"}'],
)  # fmt: skip
def test_malformed_configs_are_one_line(tmp_path: Path, content: bytes) -> None:
    """RULES 19."""
    (tmp_path / "config.json").write_bytes(content)
    assert refused(call(tmp_path, "create", "c"))[:-1].isprintable()
    assert not (tmp_path / "root/c").exists()


def test_a_fifo_as_config_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    refused(call(tmp_path, "create", "c"), "config.json")


def test_output_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([COMMAND, "features"], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b""


def test_output_to_a_full_device_is_a_failure(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([COMMAND, "features"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_the_log_file_gets_the_error_too(tmp_path: Path) -> None:
    """containerd and podman read the last line of --log for the reason."""
    done = call(tmp_path, "--log", tmp_path / "log", "--log-format", "json", "state", "none")
    refused(done, "does not exist")
    entry = json.loads((tmp_path / "log").read_text().splitlines()[-1])
    assert entry["level"] == "error"
    assert "does not exist" in entry["msg"]


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_streams_are_no_internal_error(tmp_path: Path, closed: list[int]) -> None:
    """Engines close what they do not use."""
    words = " ".join(f"{fd}>&-" for fd in closed)
    script = f'exec "$0" --root {tmp_path}/root --log {tmp_path}/log list {words}'
    done = subprocess.run(["sh", "-c", script, COMMAND], capture_output=True, text=True, timeout=60)
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "log").exists() or "internal error" not in (tmp_path / "log").read_text()
    assert done.returncode in (0, 1)
