"""`warren` driven as a person would: at a terminal, and by a shell script that is a day's work."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.host import require
from tests.helpers.rooms import own_store
from tests.helpers.screen import Screen
from tests.helpers.warren import PROGRAM, Warren

INSIDE = "inside> "


@pytest.fixture
def screen(directory: Path) -> Iterator[Screen]:
    require("tmux")
    with Screen(directory, PROGRAM) as found:
        yield found


@pytest.fixture
def name(warren: Warren, token: str) -> Iterator[str]:
    found = f"wrn-{token}-seat"
    yield found
    warren("rm", "--force", found).ok()


def test_an_afternoon_in_a_container(screen: Screen, warren: Warren, name: str) -> None:
    """Typing, the size, Ctrl-C, detaching, coming back, a second shell, the log, and the end."""
    screen.types(f"warren run -it --name {name} -e PS1='{INSIDE}' host -- sh")
    screen.sees_prompt(INSIDE)
    screen.types("echo $((40+2)); stty size")
    screen.sees("42")
    screen.sees("30 100")
    screen.resize(20, 80)
    screen.types("stty size")
    screen.sees("20 80")
    screen.types("sleep 1000")
    screen.presses("C-c")
    screen.sees_prompt(INSIDE)
    screen.types("mark=here")
    screen.presses("C-p", "C-q")
    screen.sees_prompt()

    screen.clear()
    screen.types(f"warren exec -it {name} sh -c 'tty; read x; exit 7'")
    screen.sees("/dev/pts/1")
    screen.types("x")
    screen.sees_prompt()
    screen.types("echo code $?")
    screen.sees("code 7")

    screen.clear()
    screen.types(f"warren logs -f {name}")
    screen.sees("42")
    screen.presses("C-c")
    screen.sees_prompt()

    screen.clear()
    screen.types(f"warren attach {name}")
    screen.presses("Enter")
    screen.sees_prompt(INSIDE)
    screen.types("echo mark $mark")
    screen.sees("mark here")
    screen.types("exit 5")
    screen.sees_prompt()
    screen.types("echo code $?; stty -a | grep -o ' icanon'; stty -a | grep -o ' echo'")
    screen.sees("code 5")
    screen.sees("icanon")
    screen.sees("echo")
    assert warren("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).ok().out == "exited 5\n"


def test_control_c_without_a_terminal_inside(screen: Screen, warren: Warren, name: str) -> None:
    screen.types(f"warren run --init --name {name} host -- sh -c 'echo up; exec sleep 1000'")
    screen.sees("up")
    screen.presses("C-c")
    screen.sees_prompt()
    screen.types("echo code $?")
    screen.sees("code 130")
    screen.types("warren run --rm -it host -- true </dev/null; echo code $?")
    screen.sees("code 1")


DAY = """
set -eu
warren image bootstrap busybox day:1 >/dev/null
test "$(warren images -q | wc -l)" -ge 1
id=$(warren run -d --name web -e GREETING=hello day:1 sh -c 'while :; do echo $GREETING; sleep 0.1; done')
test ${#id} -eq 64
warren exec web sh -c 'echo made > /etc/made'
printf 'from outside' | warren exec -i web sh -c 'cat > /root/note'
until warren logs web | grep -q hello; do sleep 0.1; done
warren logs -t --tail 1 web | grep -q 'Z hello$'
test "$(warren inspect -f '{{.State.Status}}' web)" = running
warren pause web; test "$(warren inspect -f '{{.State.Status}}' web)" = paused; warren unpause web
warren stop -t 1 web >/dev/null
test "$(warren inspect -f '{{.State.Status}}' web)" = exited
code=0; warren exec web true 2>/dev/null || code=$?; test $code -eq 1
warren start web >/dev/null
test "$(warren exec web cat /etc/made /root/note)" = "$(printf 'made\\nfrom outside')"
warren rename web shop
warren restart -t 0 shop >/dev/null
code=0; warren rm shop 2>/dev/null || code=$?; test $code -eq 1
warren kill shop >/dev/null
test "$(warren wait shop)" = 137
code=0; warren run --rm day:1 sh -c 'exit 42' || code=$?; test $code -eq 42
code=0; warren run --rm day:1 nonesuch 2>/dev/null || code=$?; test $code -eq 127
echo piped | warren run --rm -i day:1 tr a-z A-Z | grep -q PIPED
warren run --rm day:1 yes | head -1 | grep -q y
warren rm shop >/dev/null
warren rmi day:1 >/dev/null
test -z "$(warren images -q)"
echo done
"""


def test_a_days_work_by_a_script(directory: Path) -> None:
    with own_store() as (_, prefix):
        script = directory / "day.sh"
        script.write_text(f'warren() {{ {PROGRAM} "$@"; }}\n{DAY}')
        done = subprocess.run([*prefix, "sh", "-x", script], capture_output=True, text=True, timeout=120, cwd="/")
        assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stderr[-3000:]
        left = subprocess.run([*prefix, "ls", "/run/warren"], capture_output=True, text=True, check=True).stdout
        assert left == ""
