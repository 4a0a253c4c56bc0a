"""runtime/resctrl.py on plain directories: which files are written, compared and removed.

Processors with RDT are rare, so what the kernel makes of them is not shown here.
"""

from pathlib import Path
from typing import Any

import pytest

from runtime.errors import SpecError, WarrenError
from runtime.resctrl import Group


def ready(mount: Path, name: str, schemata: str = "") -> Path:
    """A class as the kernel makes one, with its files."""
    directory = mount / name
    (directory / "mon_groups").mkdir(parents=True)
    for file in ("tasks", "schemata"):
        (directory / file).write_text("")
    (directory / "schemata").write_text(schemata)
    return directory


def test_a_class_of_its_own_is_named_after_the_container(tmp_path: Path) -> None:
    group = Group(str(tmp_path), "box", {})
    group.create()
    assert (tmp_path / "box").is_dir() and group.tasks() == [f"{tmp_path}/box/tasks"]
    group.remove()
    group.remove()
    assert list(tmp_path.iterdir()) == []


def test_counters_belong_to_the_class(tmp_path: Path) -> None:
    ready(tmp_path, "gold")
    group = Group(str(tmp_path), "box", {"closID": "gold", "enableMonitoring": True})
    group.create()
    assert group.tasks() == [f"{tmp_path}/gold/tasks", f"{tmp_path}/gold/mon_groups/box/tasks"]
    group.remove()
    assert (tmp_path / "gold").is_dir() and not (tmp_path / "gold/mon_groups/box").exists()


def test_the_default_class_has_a_name(tmp_path: Path) -> None:
    assert Group(str(tmp_path), "box", {"closID": "/"}).tasks() == [f"{tmp_path}/tasks"]


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        ({"schemata": ["L3:0=f", "MB:0=20"]}, ["L3:0=f", "MB:0=20"]),
        ({"l3CacheSchema": "L3:0=f;1=1\nMB:0=70", "memBwSchema": "MB:0=20"}, ["L3:0=f;1=1", "MB:0=20"]),
        ({"l3CacheSchema": "L3:0=f", "schemata": ["L2:0=1"]}, ["L3:0=f", "L2:0=1"]),
        ({}, []),
    ],
)
def test_schemas_are_written_line_by_line(tmp_path: Path, wanted: dict[str, Any], written: list[str]) -> None:
    """ "If l3CacheSchema contains a line beginning with MB:, the value written to schemata file MUST be the non-MB:
    line(s) from l3CacheSchema and the line from memBWSchema. ... the value of schemata field must be written last" """
    directory = ready(tmp_path, "box")
    Group(str(tmp_path), "box", wanted).create()
    # A plain file keeps what its first bytes were overwritten with: one line at a time, as the kernel takes them.
    text = (directory / "schemata").read_text()
    assert text == _overwritten(written)


def _overwritten(lines: list[str]) -> str:
    text = ""
    for line in lines:
        text = line + "\n" + text[len(line) + 1 :]
    return text


def test_a_shared_class_must_be_as_asked(tmp_path: Path) -> None:
    """ "if closID directory in a mounted resctrl pseudo-filesystem exists, runtimes MUST compare l3CacheSchema and/or
    memBwSchema value with schemata file, and generate an error if doesn't match" """
    ready(tmp_path, "gold", "    L3:0=00f;1=01f\n    MB:0= 20;1=100\n")
    Group(str(tmp_path), "box", {"closID": "gold", "l3CacheSchema": "L3:0=f;1=1f"}).create()
    with pytest.raises(SpecError, match="not in its schemata"):
        Group(str(tmp_path), "box", {"closID": "gold", "memBwSchema": "MB:0=30;1=100"}).create()


def test_a_shared_class_without_schema_must_exist(tmp_path: Path) -> None:
    """ "If such pre-configured directory closID exists, runtime MUST assign container to this closID and generate an
    error if directory does not exist." """
    with pytest.raises(SpecError, match="there is no class"):
        Group(str(tmp_path), "box", {"closID": "gold"}).create()
    assert list(tmp_path.iterdir()) == []


def test_what_the_kernel_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("")
    with pytest.raises(WarrenError, match=r"box/schemata: 'L3:0=f': not a directory .*last_cmd_status"):
        Group(str(tmp_path), "box", {"schemata": ["L3:0=f"]}).create()
