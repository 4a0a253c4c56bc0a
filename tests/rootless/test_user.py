"""The ordinary user of this tier is really an ordinary one."""

from pathlib import Path

import pytest

from tests.helpers.users import User


def test_the_user_has_no_privileges(user: User, probe_program: Path) -> None:
    done = user.run(probe_program, "id", "--", "caps", "--", "fds")
    assert f"uid {user.uid} {user.uid} {user.uid}" in done.stdout and user.uid != 0
    assert "CapEff:\t0000000000000000" in done.stdout
    assert "\n3 " not in done.stdout


def test_the_environment_is_its_own(user: User) -> None:
    lines = set(user.run("env").stdout.splitlines())
    assert {f"HOME={user.home}", f"XDG_RUNTIME_DIR={user.runtime_dir}", f"USER={user.name}"} <= lines
    assert user.run("touch", user.home / "new", user.runtime_dir / "new").returncode == 0


@pytest.mark.parametrize("file", ["/etc/subuid", "/etc/subgid"])
def test_subordinate_ids(user_with_ids: User, plain_user: User, file: str) -> None:
    text = Path(file).read_text()
    assert f"{user_with_ids.name}:" in text
    assert user_with_ids.name == plain_user.name or f"{plain_user.name}:" not in text
