"""Removing trees: whatever a container has made is gone, and nothing else is."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime.engine.trees import remove_tree


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/link").symlink_to(kept)
    (tree / "link").symlink_to(kept / "file")
    os.mkfifo(tree / "a/fifo")
    remove_tree(str(tree))
    assert not tree.exists()
    assert (kept / "file").exists()


def test_a_link_in_its_place_is_removed_itself(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(str(tmp_path / "link"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_modes_do_not_matter(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b/c/d").mkdir(parents=True)
    (tree / "a/b/file").touch()
    for name in ("a/b/c", "a/b", "a"):
        (tree / name).chmod(0)
    remove_tree(str(tree))
    assert not tree.exists()


def test_a_tree_may_be_deeper_than_a_path_is_long(tmp_path: Path) -> None:
    before = Path.cwd()
    try:
        os.mkdir(tmp_path / "tree")
        os.chdir(tmp_path / "tree")
        for _ in range(300):
            os.mkdir("long-enough-to-fill-a-path")
            os.chdir("long-enough-to-fill-a-path")
            Path("file").touch()
    finally:
        os.chdir(before)
    remove_tree(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()


def test_names_that_are_ours_do_not_disturb(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"tree/.{number}.gone/.{number}.gone/x").mkdir(parents=True)
    remove_tree(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()


def test_what_is_gone_is_fine(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "none"))


def test_several_may_remove_the_same(tmp_path: Path) -> None:
    for one in range(20):
        for other in range(20):
            (tmp_path / f"tree/{one}/{other}/deep").mkdir(parents=True)
            (tmp_path / f"tree/{one}/{other}/file").touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(remove_tree, [str(tmp_path / "tree")] * 4))
    assert not (tmp_path / "tree").exists()


# By descriptors, so that it goes on when the directory has another name, as removing gives it.
WRITER = """
import os, sys, time
for name in sys.stdin:
    directory = os.open(name.rstrip(), os.O_RDONLY)
    try:
        for number in range(1000):
            os.close(os.open(str(number), os.O_CREAT, dir_fd=directory))
            if not number:
                print(flush=True)
            time.sleep(1e-6)
    except FileNotFoundError:
        os.close(directory)
"""


def test_who_is_just_about_to_write_there_does_not_stop_it(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WRITER], **pipes) as writer:  # type: ignore[call-overload]
        for number in range(500):
            tree = tmp_path / str(number)
            tree.mkdir()
            print(tree, file=writer.stdin, flush=True)
            writer.stdout.readline()
            remove_tree(str(tree))
            assert not tree.exists()
