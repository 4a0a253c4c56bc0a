"""The commands for images as a person types them; the store of root lies in a mount namespace of the test's own."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import IMAGE, LOOP, Result, Room, make_image
from tests.helpers.engines import OWN_PODMAN
from tests.helpers.host import require
from tests.helpers.warren import PROGRAM


class Shell:
    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, *words: str | Path) -> Result:
        return self.room(PROGRAM, *words)


@pytest.fixture(scope="module")
def archive(session_directory: Path) -> Path:
    return make_image(session_directory / "commands.tar")


@pytest.fixture(scope="module")
def room(session_directory: Path, token: str) -> Iterator[Room]:
    with Room(session_directory / "commands", token) as room:
        yield room


@pytest.fixture
def warren(room: Room, archive: Path) -> Iterator[Shell]:
    """With one image in a store of its own."""
    room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
    shell = Shell(room)
    assert shell("load", "--input", archive).ok().line == f"Loaded image: {IMAGE}"
    yield shell
    room("umount", "/var/lib").ok()


def test_images(warren: Shell) -> None:
    head, row = warren("images").ok().out.splitlines()
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    repository, tag = IMAGE.rsplit(":", 1)
    (found,) = map(json.loads, warren("images", "--format", "json").ok().out.splitlines())
    assert row.split()[:3] == [repository, tag, found["ID"]]
    assert warren("image", "ls", "-q", "--no-trunc").ok().line.startswith(f"sha256:{found['ID']}")
    assert warren("images", "--format", "{{.Repository}} {{.Digest}}").ok().line == f"{repository} {found['Digest']}"
    assert warren("images", "other").ok().out.count("\n") == 1


def test_inspect_as_podman_does(warren: Shell, archive: Path) -> None:
    require("podman")
    warren.room(*OWN_PODMAN, "load", "--input", archive).ok()
    (theirs,) = json.loads(warren.room(*OWN_PODMAN, "image", "inspect", IMAGE).ok().out)
    (ours,) = json.loads(warren("image", "inspect", IMAGE).ok().out)
    assert ours["Id"] == f"sha256:{theirs['Id']}"
    for key in ("RepoTags", "Config", "Architecture", "Os", "RootFS", "Author", "Comment"):
        assert ours[key] == theirs[key], key
    assert warren("inspect", "--format", "{{.Config.Cmd}}", IMAGE).ok().line == "[sh]"
    for words in (("image", "inspect"), ("inspect",), ("inspect", "--type", "image")):
        done = warren(*words, "nosuch", IMAGE).exits(1, "no such ")
        (found,) = json.loads(done.out)
        assert found["Id"] == ours["Id"]
    warren("inspect", "--format", "{{.Nosuch}}", IMAGE).exits(125, "no field '.Nosuch'")


def test_disk_usage_and_prune(warren: Shell) -> None:
    head, row, *_ = warren("system", "df").ok().out.splitlines()
    assert head.split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert row.split()[:3] == ["Images", "1", "0"]
    assert row.endswith("(100%)")
    assert warren("system", "df", "--format", "{{.Type}} {{.Total}}").ok().out.splitlines()[0] == "Images 1"
    told = json.loads(warren("system", "df", "-v", "--format", "json").ok().line)
    assert (told["Containers"], told["Volumes"]) == ([], [])
    assert (
        warren("system", "df", "-v", "--format", "{{range .Images}}{{.ID}}{{end}}").ok().line == told["Images"][0]["ID"]
    )
    (one,) = told["Images"]
    assert f"{one['Repository']}:{one['Tag']}" == IMAGE
    assert one["SharedSize"] == "0B"
    assert warren("system", "prune", "--force").ok().out.startswith("Total reclaimed space: ")
    assert warren("images", "-q").ok().out
    warren("system", "prune").exits(130, "")
    assert f"Untagged: {IMAGE}" in warren("system", "prune", "--all", "--force").ok().out
    assert warren("images", "-q").ok().out == ""


def test_what_is_quiet(warren: Shell, archive: Path) -> None:
    assert warren("load", "--quiet", "--input", archive).ok().out == ""


def test_history(warren: Shell) -> None:
    head, row = warren("history", IMAGE).ok().out.splitlines()
    assert head.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert "the tests" in row
    id = warren("images", "-q").ok().line
    assert warren("history", "-q", IMAGE).ok().line == id
    assert warren("history", "--format", "{{.CreatedBy}}", id).ok().line == "the tests"


def test_names_come_and_go(warren: Shell) -> None:
    warren("tag", IMAGE, "burrow:2").ok()
    assert warren("run", "--rm", "burrow:2", "echo", "in it").ok().line == "in it"
    assert warren("untag", "burrow:2").ok().line == "Untagged: docker.io/library/burrow:2"
    warren("untag", "burrow:2").exits(125, "no such image")
    id = warren("images", "-q", "--no-trunc").ok().line
    assert warren("rmi", IMAGE).ok().out.splitlines() == [f"Untagged: {IMAGE}", f"Deleted: {id}"]
    assert warren("images", "-q").ok().out == ""


def test_rmi_refuses_what_docker_and_podman_refuse(warren: Shell, archive: Path) -> None:
    id = warren("images", "-q").ok().line
    warren("rmi", "nosuch").exits(1, "no such image: nosuch")
    warren("rmi", "--force", "nosuch").ok()
    warren("tag", IMAGE, "burrow:2").ok()
    warren("rmi", id).exits(1, "has several names")
    other = "docker.io/library/burrow:2"
    # One name of several goes without a question; what fails does not keep the rest.
    done = warren("rmi", "nosuch", "burrow:2").exits(1, "no such image: nosuch")
    assert done.out.splitlines() == [f"Untagged: {other}"]
    warren("tag", IMAGE, "burrow:2").ok()
    assert sorted(warren("rmi", "-f", id).ok().out.splitlines())[1:] == sorted(
        [f"Untagged: {IMAGE}", f"Untagged: {other}"]
    )
    assert warren("images", "-q").ok().out == ""
    warren("load", "-i", archive).ok()
    container = warren("create", "--name", "wrn-user", IMAGE, "echo", "still there").ok().line
    try:
        for name in (IMAGE, id):
            warren("rmi", name).exits(1, f"is used by container {container[:12]}")
        warren("tag", IMAGE, "burrow:2").ok()
        assert warren("rmi", IMAGE).ok().line == f"Untagged: {IMAGE}"
        warren("rmi", "burrow:2").exits(1, "is used by container")
        assert f"Untagged: {other}" in warren("rmi", "--force", "burrow:2").ok().out
        assert warren("images", "-q").ok().out == ""
        assert warren("start", "--attach", "wrn-user").ok().line == "still there"
    finally:
        warren("rm", "--force", "wrn-user")


def test_filters_of_images(warren: Shell, archive: Path, directory: Path) -> None:
    """Both that is listed and that is not: a filter that lets everything through is none."""
    (directory / "root.tar").write_bytes(bytes(1024))
    warren("import", "--change", "LABEL den=dry", directory / "root.tar", "far.example/hill/burrow:2").ok()
    warren("import", directory / "root.tar").ok()
    repository, tag = IMAGE.rsplit(":", 1)
    first, second, nameless = f"{repository}:{tag}", "far.example/hill/burrow:2", "<none>:<none>"

    def listed(*filters: str) -> set[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return set(warren("images", "-a", *words, "--format", "{{.Repository}}:{{.Tag}}").ok().out.splitlines())

    assert listed() == {first, second, nameless}
    assert listed("dangling=true") == {nameless}
    assert listed("dangling=false") == {first, second}
    assert listed("label=den") == listed("label=den=dry") == {second}
    assert listed("label=den=wet") == listed("label=nosuch") == set()
    assert listed(f"before={second}") == {first}
    assert listed(f"since={IMAGE}") == {second, nameless}
    # One that does not say when it was made is as old as can be.
    assert listed("until=2001-01-01T00:00:00Z") == {first}
    assert listed("reference=far.example/hill/burrow") == listed("reference=far.example/*/b*:2") == {second}
    assert listed("reference=far*") == listed("reference=*:3") == set()
    assert listed("reference=[e-g]ar.example/hill/burr?w", "dangling=false") == {second}
    assert listed("dangling=true", "dangling=false") == {first, second, nameless}
    assert listed("dangling=true", "label=den") == set()
    warren("images", "--filter", "nosuch=1").exits(125, "'nosuch' is unknown")
    warren("images", "--filter", "before=nosuch").exits(125, "no such image: nosuch")
    warren("images", "--filter", "dangling=perhaps").exits(125, "true or false")


def test_prune_keeps_what_has_a_name_and_what_is_used(warren: Shell) -> None:
    warren("image", "prune", "--force").ok()  # What an archive says of itself is a blob, too, until then.
    assert warren("images", "-q").ok().out
    process = warren.room.command(PROGRAM, "run", "--rm", "--name", "wrn-keeper", IMAGE, *LOOP)
    with subprocess.Popen(process, stdout=subprocess.PIPE, env=warren.room.env) as keeper:
        assert keeper.stdout
        assert keeper.stdout.readline() == b"ready\n"
        assert warren("image", "prune", "--all", "--force").ok().line == "Total reclaimed space: 0B"
        keeper.terminate()
    done = warren("image", "prune", "--all", "--force").ok().out
    assert f"Untagged: {IMAGE}\n" in done
    assert "Total reclaimed space: 2." in done
    assert warren("images", "-q").ok().out == ""


def test_verify(warren: Shell) -> None:
    """What is loaded from an archive has no registry that it could be fetched from again."""
    assert warren("image", "verify").ok().out == ""
    id = warren("images", "-q", "--no-trunc").ok().line
    warren.room("rm", f"/var/lib/warren/images/blobs/sha256/{id[7:]}").ok()
    for words in (("verify",), ("verify", "--repair")):
        warren("image", *words).exits(1, f"blob {id} is missing: not repaired")
