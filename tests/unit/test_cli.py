"""`warren`: parsing, and what never needs a launch.  Errors are one line and 125, never a traceback."""

import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cli
from runtime import __version__, container
from runtime.commands import QUICK, quick
from runtime.commands.containers import run as run_command
from runtime.commands.table import commands
from runtime.config import ContainerConfig
from runtime.engine import launching, library, names, pipes, records, running, trees
from runtime.engine.settings import image_of, rootfs_of
from runtime.errors import CommandNotFoundError, ExistsError, LaunchError, NotFoundError, StateError, UsageError
from runtime.launch import Options
from runtime.options import ONLY_RUN, RUN, Option, parse
from runtime.steps import LaunchPlan


class Outcome:
    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Command:
    """Runs cli.main() in this process; nothing is launched, `config` is what would have been run."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        self.configs: list[ContainerConfig] = []
        self.planned = 0
        self.result: int | Exception = 0
        monkeypatch.setattr(running, "run_attached", self._run)
        monkeypatch.setattr(running, "plan", self._plan)
        monkeypatch.setattr(cli, "_warn_of_writable_code", lambda: None)
        monkeypatch.setattr("posix._exit", sys.exit)

    def _run(self, config: ContainerConfig, _values: object, _fetch: object) -> running.Outcome:
        self.configs.append(config)
        if isinstance(self.result, Exception):
            raise self.result
        outcome = running.Outcome(records.Record("x", {}))
        outcome.code = self.result
        return outcome

    def _plan(self, config: ContainerConfig) -> LaunchPlan:
        self.configs.append(config)
        self.planned += 1
        plan = LaunchPlan()
        plan.add("setsid")
        return plan

    def __call__(self, *words: str) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["warren", *words])
        with pytest.raises(SystemExit) as info:
            cli.main()
        out, err = self._capsys.readouterr()
        return Outcome(info.value.code, out, err)

    def config(self, *words: str) -> ContainerConfig:
        outcome = self("run", *words)
        assert outcome.code == 0, outcome.err
        return self.configs[-1]

    def fails(self, *words: str) -> str:
        outcome = self("run", *words)
        assert outcome.code == 125, outcome.err
        assert outcome.err.startswith("warren: ")
        assert outcome.err.count("\n") == 1
        assert not self.configs
        return outcome.err


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        (["host", "--", "ls", "-l"], ["ls", "-l"]),
        (["host", "ls", "-l"], ["ls", "-l"]),
        (["host", "ls", "--", "x"], ["ls", "--", "x"]),
        (["host", "--", "--", "x"], ["--", "x"]),
        (["--", "host", "ls"], ["ls"]),
        (["-it", "host", "--", "sh", "-c", "--plan"], ["sh", "-c", "--plan"]),
        (["--rootfs", "/r", "ls", "-v"], ["ls", "-v"]),
        (["--rootfs", "/r", "--", "ls", "-v"], ["ls", "-v"]),
        (["--rootfs=/r", "host", "-t", "--", "x"], ["host", "-t", "--", "x"]),
    ],
)
def test_flags_end_at_the_source(command: Command, words: list[str], argv: list[str]) -> None:
    assert command.config(*words).argv == argv


@pytest.mark.parametrize(
    "words",
    [
        ["--plan", "host", "true"],
        ["host", "--plan", "--", "true"],
        ["-itw", "/etc", "--plan", "host", "true"],
        ["-w/etc", "--plan", "host", "true"],
        ["--env", "A=1", "--plan", "host", "--", "true"],
        ["--env=A=1", "--plan=text", "host", "true"],
    ],
)
def test_plan_needs_no_value(command: Command, words: list[str]) -> None:
    outcome = command("run", *words)
    assert (outcome.code, command.planned, command.configs[-1].argv) == (0, 1, ["true"]), outcome.err
    assert outcome.out == "  1 start a session\n"


def test_plan_as_json(command: Command) -> None:
    assert '"op": "setsid"' in command("run", "--plan=json", "host", "true").out


def test_options_reach_the_configuration(command: Command) -> None:
    config = command.config(
        "-it", "--rm", "--name", "n", "-w", "/w", "-u", "1:2", "-h", "burrow", "--read-only", "-v", "/a:/b", "-v",
        "/c:/d", "--mount", "type=tmpfs,dst=/m", "--tmpfs", "/t", "--cap-add", "a", "--cap-drop", "b",
        "--security-opt", "s", "--ulimit", "core=1", "--sysctl", "net.a=1", "--device", "/dev/null", "--shm-size", "1m",
        "--pid", "host", "--ipc", "host", "--uts", "host", "--net", "host", "--userns", "host", "--init",
        "--privileged", "--entrypoint", "e", "--timeout", "1.5", "--hide", "/x", "--keep-changes", "/k", "host", "cmd",
    )  # fmt: skip
    expected: dict[str, Any] = dict(
        interactive=True, tty=True, name="n", workdir="/w", user="1:2", hostname="burrow", read_only=True,
        volumes=("/a:/b", "/c:/d"), mounts=("type=tmpfs,dst=/m",), tmpfs=("/t",), cap_add=("a",), cap_drop=("b",),
        security_opt=("s",), ulimits=("core=1",), sysctl=("net.a=1",), devices=("/dev/null",), shm_size="1m",
        pid="host", ipc="host", uts="host", network="host", userns="host", init=True, privileged=True, entrypoint="e",
        timeout=1.5, hide=("/x",), keep_changes="/k", rootfs="", write=False, argv=["cmd"],
    )  # fmt: skip
    assert {key: getattr(config, key) for key in expected} == expected
    assert config.auto_remove


def test_environment(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN", "mine")
    monkeypatch.delenv("ABSENT", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\n  A=file\nB='as is' # not a comment\nTAKEN\nABSENT\n")
    config = command.config("--env-file", str(file), "-e", "A=flag", "-e", "TAKEN", "-e", "ABSENT", "host", "true")
    assert config.env == ["A=file", "B='as is' # not a comment", "TAKEN=mine", "A=flag", "TAKEN=mine"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no source"),
        (["", "true"], "no name"),
        (["--no-such-option", "host", "true"], "no such option"),
        (["--timeout", "x", "host", "true"], "timeout"),
        (["--timeout", "0", "host", "true"], "timeout"),
        (["--timeout"], "requires an argument"),
        (["--env", "=x", "host", "true"], "no name"),
        (["--env-file", "/no/such/file", "host", "true"], "/no/such/file"),
        (["--env-file", "/", "host", "true"], "is a directory"),
        (["--plan=what", "host", "true"], "plan"),
    ],
)
def test_bad_words_are_one_line(command: Command, words: list[str], problem: str) -> None:
    assert problem in command.fails(*words)


def test_a_binary_env_file_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"A=\xff\xfe\n")
    assert "not utf-8" in command.fails("--env-file", str(tmp_path / "env"), "host", "true")


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (0, 0),
        (7, 7),
        (137, 137),
        (UsageError("words are off"), 125),
        (LaunchError(0, None, 1), 125),
        (CommandNotFoundError(1, None, 2, "nothing"), 127),
        (OSError(28, "No space left on device", "/run"), 125),
        (OSError("odd"), 125),
        (RuntimeError("a fault\nof ours"), 125),
    ],
)
def test_exit_codes(command: Command, result: "int | Exception", code: int) -> None:
    command.result = result
    outcome = command("run", "host", "true")
    assert outcome.code == code
    assert outcome.err.count("\n") == (1 if isinstance(result, Exception) else 0)
    assert "Traceback" not in outcome.err


def test_version_and_help(command: Command) -> None:
    assert __version__ in command("--version").out
    for words in ([], ["--help"], ["-h"], ["run", "--help"]):
        outcome = command(*words)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("Usage: warren")


def test_code_that_others_can_write_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    monkeypatch.setattr("posix.geteuid", lambda: 0)
    cli._warn_of_writable_code()
    assert f"warning: {tmp_path} can be written by other users" in capsys.readouterr().err
    monkeypatch.setattr("posix.geteuid", lambda: 7)
    tmp_path.chmod(0o777)
    cli._warn_of_writable_code()
    assert capsys.readouterr().err == ""


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["--plan", "-it", "-w", "-e", "--", "host", "--rootfs", "x", "-", "-v/a:/b", "--env="]))
)
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    """The search for the source must agree with click, or fail as it does."""
    context = click.Context(run_command)
    try:
        run_command.parse_args(context, list(words))
    except (click.ClickException, click.exceptions.Exit):
        return
    assert isinstance(context.params["words"], tuple)


WORDS = [
    "--rm", "-it", "-w", "-e", "--", "host", "--rootfs", "x", "-", "-v/a:/b", "--env=", "--env=A=1", "--timeout=1.5",
    "--timeout=0", "--timeout=nan", "--pull=never", "--pull=what", "--memory-swappiness=7", "-c", "5", "-c5", "-ic", "",
    "--sig-proxy=false", "--no-such", "--rm=true", "--rm=false", "--init=1", "--replicas", "2",
]  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.sampled_from(WORDS), max_size=7))
def test_the_quick_parser_finds_what_click_finds(words: list[str]) -> None:
    found = parse([*RUN, *ONLY_RUN], words)
    if found is None or quick._is_odd(found[1] or ["x"], found[0], True):
        return
    context = run_command.make_context("run", list(words))
    assert found == ({key: context.params[key] for key in found[0]}, list(context.params["words"]))


@pytest.mark.parametrize(("name", "command"), list(quick._TABLE.items()))
def test_a_quick_command_has_the_options_of_clicks(name: str, command: tuple[list[Option], Any, bool]) -> None:
    by_click = commands.get_command(click.Context(commands), name)
    assert by_click is not None and name in QUICK
    known = {opt for option in by_click.params if isinstance(option, click.Option) for opt in option.opts}
    assert {opt for option in command[0] for opt in option.names} == known


@pytest.mark.parametrize(
    ("words", "by_click"),
    [
        (["run", "--rm", "host", "true"], False),
        (["run", "--plan", "host", "true"], True),
        (["run", "host", "--plan", "--", "true"], True),
        (["run", "--rm=true", "host", "true"], False),
        (["run", "--rm=yes", "host", "true"], True),
        (["run", "--help"], True),
        (["run"], True),
        (["images"], True),
    ],
)
def test_what_is_left_to_click(
    command: Command, words: list[str], by_click: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(cli, "_execute_with_click", lambda words: asked.append(words) or 0)
    assert command(*words).code == 0
    assert asked == ([words] if by_click else [])


# ---- what the engine settles before a launch


def test_names_are_dockers_and_valid() -> None:
    for _ in range(50):
        name = names.new_name()
        names.check_name(name)
        assert name.count("_") == 1


@pytest.mark.parametrize("name", ["a", "-ab", ".ab", "a b", "a/b", "\u00e4bc", "ab\n"])
def test_invalid_names(name: str) -> None:
    with pytest.raises(UsageError):
        names.check_name(name)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers that are kept; those with a pid run, as far as their state directories say."""
    monkeypatch.setattr(container, "DEFAULT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(container, "DEFAULT_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr("posix.geteuid", lambda: 0)
    for container_id, name, runs in (("aabb", "mole", True), ("aacc", "vole", False), ("mole2", "hare", True)):
        record = records.make_record(container_id, name, {"created": "", "config": {}})
        if runs:
            record.state_dir.make()
            record.state_dir.unlock()
            record.state_dir.record_pid(os.getpid())


@pytest.mark.usefixtures("known")
def test_a_name_is_taken_once() -> None:
    with pytest.raises(ExistsError):
        records.make_record("new", "mole", {"config": {}})
    records.make_record("new", "badger", {"config": {}})
    assert records.find("badger").id == "new"


@pytest.mark.usefixtures("known")
def test_a_name_is_free_when_its_container_is_gone() -> None:
    trees.remove_tree(records.find("vole").path)
    assert records.make_record("new", "vole", {"config": {}}).name == "vole"


@pytest.mark.usefixtures("known")
def test_another_name_is_taken_before_the_old_one_is_given_back() -> None:
    with pytest.raises(ExistsError):
        records.rename_record(records.find("vole"), "mole")
    records.rename_record(records.find("vole"), "new")
    assert records.find("new").id == "aacc"
    with pytest.raises(NotFoundError):
        records.find("vole")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("text", ["mole", "/mole", "aabb", "aab", "mole2"])
def test_a_container_is_found_by_name_id_or_prefix(text: str) -> None:
    assert records.find(text).running_pid() == os.getpid()


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("text", "error"), [("aa", UsageError), ("aacc", StateError), ("none", NotFoundError), ("", NotFoundError)]
)
def test_a_container_that_cannot_be_joined(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        records.find(text).running_pid()


@pytest.mark.usefixtures("known")
def test_joining_replaces_names_by_paths() -> None:
    config = ContainerConfig(["true"], id="x", pid="container:mole", ipc="ns:/x", network="container:aabb")
    options = Options()
    launching.Launch(config, options)._join_containers()
    assert (config.pid, config.ipc, config.uts) == (f"ns:/proc/{os.getpid()}/ns/pid", "ns:/x", "")
    assert config.network == f"ns:/proc/{os.getpid()}/ns/net"
    assert options.enforced.get("user_namespace", "--pid, --ipc").endswith(
        "--pid, --ipc)" if config.userns else "--ipc"
    )


def test_text_has_universal_newlines() -> None:
    assert pipes.Text(True, None, None).decode(b"a\r\nb\rc\n") == "a\nb\nc\n"
    assert pipes.Text(True, None, None).decode(None) is None


@pytest.mark.parametrize(
    ("image", "rootfs"), [("host", ""), (Path("host"), "host"), ("/r", "/r"), ("./r", "./r"), (Path("r"), "r")]
)
def test_images_of_the_library(image: "str | Path", rootfs: str) -> None:
    assert rootfs_of(image) == rootfs


@pytest.mark.parametrize(
    ("source", "rootfs", "image"),
    [("host", "", ""), ("alpine", "", "alpine"), ("./a", "./a", ""), ("/a", "/a", ""), (Path("a"), "a", "")],
)
def test_what_the_library_takes_for_a_directory(source: "str | Path", rootfs: str, image: str) -> None:
    assert (rootfs_of(source), image_of(source)) == (rootfs, image)


def test_an_image_without_a_name() -> None:
    with pytest.raises(UsageError, match="no name"):
        image_of("")


@pytest.mark.parametrize(
    "options", [{"input": "x", "stdin": 0}, {"capture_output": True, "stdout": 1}, {"stdout": library.STDOUT}]
)
def test_arguments_of_the_library_that_exclude_each_other(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        library.run("host", ["true"], **options)
