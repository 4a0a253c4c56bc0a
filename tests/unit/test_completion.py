"""What a shell is told that completes a word of `warren`."""

import subprocess
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from runtime import container
from runtime.commands import VARIABLE, completion, table
from runtime.engine import records
from runtime.images.store import Store
from tests.helpers.warren import PROGRAM


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Ask":
    """With one of each kind."""
    monkeypatch.setattr("posix.geteuid", lambda: 0)
    monkeypatch.setattr(container, "DEFAULT_DATA", str(tmp_path))
    monkeypatch.setattr(container, "DEFAULT_ROOT", str(tmp_path / "run"))
    monkeypatch.setenv(VARIABLE, "bash_complete")
    records.make_record("aabb", "mole", {"created": "", "config": {}})
    (tmp_path / "images").mkdir()
    names = {
        "docker.io/library/burrow:1.5": "x",
        "localhost/loaded@sha256:0": "y",
        "docker.io/library/nest:latest": "z",
    }
    monkeypatch.setattr(Store.__mro__[1], "names", lambda _self: names)
    (tmp_path / "volumes/cellar").mkdir(parents=True)
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks/tunnel.json").touch()
    return Ask()


class Ask:
    def __call__(self, *words: str) -> list[str]:
        """The words that the last one could become."""
        found = BashComplete(table.commands, {}, "warren", VARIABLE).get_completions(list(words[:-1]), words[-1])
        return [item.value if item.type == "plain" else f"a {item.type}" for item in found]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("rest", ["restart"]),
        ("run ", ["host", "burrow:1.5", "nest:latest"]),
        ("run --rm burrow:", ["burrow:1.5"]),
        ("run burrow:1.5 ", []),
        ("run --network t", ["tunnel"]),
        ("run --network container:", ["container:mole"]),
        ("run --volume c", ["cellar"]),
        ("run --pull n", ["never"]),
        ("run --env-file x", ["a file"]),
        ("run --rootfs x", ["a dir"]),
        ("run --replic", ["--replicas"]),
        ("exec m", ["mole"]),
        ("stop ", ["mole"]),
        ("rm mole ", []),
        ("rename m", ["mole"]),
        ("rename mole ", []),
        ("rmi n", ["nest:latest"]),
        ("image rm n", ["nest:latest"]),
        ("volume r", ["rm"]),
        ("volume rm ", ["cellar"]),
        ("volume create ", []),
        ("network rm t", ["tunnel"]),
        ("network connect tunnel m", ["mole"]),
        ("completion z", ["zsh"]),
        ("cp m", ["mole:"]),
        ("container rm m", ["mole"]),
        ("container run bur", ["burrow:1.5"]),
    ],
)
def test_words_become_what_there_is(ask: Ask, words: str, found: list[str]) -> None:
    assert ask(*words.split(" ")) == found


def test_without_anything_made_there_are_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "DEFAULT_DATA", str(tmp_path / "none"))
    assert completion.containers() == completion.images() == completion.volumes() == []
    assert completion.networks() == ["bridge"]


def test_bash_takes_the_script() -> None:
    script = (
        'eval "$(warren completion bash)"; COMP_WORDS=(warren run --pull=n); COMP_WORDS[2]=--pull; COMP_WORDS[3]=n;'
        'COMP_CWORD=3; _warren_completion warren; echo "${COMPREPLY[@]}"; complete -p warren'
    )
    env = {"PATH": f"{PROGRAM.parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-ec", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "never"
    assert done.stderr == ""


def test_fish_takes_the_script(tmp_path: Path) -> None:
    script = 'warren completion fish | source; complete -C "warren run --pull n"; complete -C "warren restar"'
    env = {"PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["never", "restart"]


ZSH = r"""
zmodload zsh/zpty
zpty shell 'zsh -f -i'
zpty -w shell 'autoload -Uz compinit; compinit -u -D; eval "$(warren completion zsh)"; echo st""arted'
zpty -r -m shell seen '*started*'
zpty -w -n shell $'warren run --pull ne\t'
zpty -r -m shell seen '*--pull never*'
"""


def test_zsh_takes_the_script(tmp_path: Path) -> None:
    """In a terminal, as its completion is a widget of the line editor."""
    env = {"PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "dumb"}
    done = subprocess.run(["zsh", "-f", "-c", ZSH], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
