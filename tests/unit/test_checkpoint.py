"""runtime/checkpoint.py: what it refuses before criu is started.  tests/vm/qemu shows what criu does."""

import os
from pathlib import Path
from typing import Any

import pytest

from runtime import checkpoint
from runtime.checkpoint import Images
from runtime.errors import SpecError, UnsupportedError, UsageError, WarrenError
from runtime.spec import Spec, default_spec


def spec(**linux: Any) -> Spec:
    config = default_spec()
    config["process"]["terminal"] = False
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "mount", "network", "ipc", "uts")]
    config["linux"] |= linux
    return Spec(config, "/bundle")


def test_without_criu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_PLACES", ("/nonexistent/criu",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if os.getuid() == 0:
        with pytest.raises(UnsupportedError, match="criu, which is not installed"):
            checkpoint.criu()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"manage-cgroups-mode": "strict"}, UnsupportedError),
        ({"manage-cgroups-mode": "loose"}, UsageError),
        ({"page-server": "127.0.0.1:1"}, UnsupportedError),
        ({"empty-ns": "network"}, UnsupportedError),
    ],
)
def test_options_that_cannot_be_had(options: dict[str, str | bool], error: type[Exception]) -> None:
    with pytest.raises(error):
        Images(options)


def test_options_become_those_of_criu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "criu", lambda: "/usr/sbin/criu")
    images = Images({"image-path": "/i", "tcp-established": True, "leave-running": True, "parent-path": "../p"})
    assert images.goes_on and not images.pre_dump
    assert images.arguments("dump") == [
        "/usr/sbin/criu", "dump", "--images-dir", "/i", "--work-dir", "/i", "--log-file", "dump.log", "-v2",
        "--manage-cgroups=ignore", "--leave-running", "--tcp-established", "--prev-images-dir", "../p",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["user", "cgroup", "time"])
def test_namespaces_that_criu_has_trouble_with_are_refused(kind: str) -> None:
    wanted = spec()
    wanted.config["linux"]["namespaces"].append({"type": kind})
    with pytest.raises(UnsupportedError, match=kind):
        checkpoint._refuse_unsupported(wanted)


def test_joined_namespaces_and_terminals_are_refused() -> None:
    wanted = spec(namespaces=[{"type": "mount"}, {"type": "network", "path": "/proc/1/ns/net"}])
    with pytest.raises(UnsupportedError, match="network"):
        checkpoint._refuse_unsupported(wanted)
    wanted = spec()
    wanted.config["process"]["terminal"] = True
    with pytest.raises(UnsupportedError, match="terminal"):
        checkpoint._refuse_unsupported(wanted)


def test_images_are_a_directory_that_nobody_else_can_write(tmp_path: Path) -> None:
    """RULES 14: who writes them decides what runs."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(WarrenError, match="not a directory"):
        Images({"image-path": str(tmp_path / "link")}).open(make=False)
    with pytest.raises(WarrenError, match="not found"):
        Images({"image-path": str(tmp_path / "nosuch")}).open(make=False)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(WarrenError, match="others can write"):
        Images({"image-path": str(tmp_path / "open")}).open(make=False)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '["a","b"]', '["a","b",1]', '["a","b","pipe:[1]x"]', '["pipe:[-1]","b","c"]', "[[[]]]"]
)
def test_descriptors_are_hostile(tmp_path: Path, text: str) -> None:
    (tmp_path / "descriptors.json").write_text(text)
    with pytest.raises((WarrenError, SpecError)):
        checkpoint._descriptors(Images({"image-path": str(tmp_path)}))


def test_a_link_is_no_file_of_descriptors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "descriptors.json")
    with pytest.raises(SpecError):
        checkpoint._descriptors(Images({"image-path": str(tmp_path)}))


def test_the_reason_is_the_first_error_of_crius_log(tmp_path: Path) -> None:
    (tmp_path / "dump.log").write_text(
        "(00.1) Error (criu/util.c:642): exited, status=4\n(00.2) Error (criu/x.c:1): x: No such file or directory\n"
        "(00.3) Error (criu/cr-dump.c:2053): Dumping FAILED.\n"
    )
    text = str(Images({"image-path": str(tmp_path)}).failure("dump", 1))
    assert text == f"criu dump failed: x: not found (see {tmp_path}/dump.log)"
