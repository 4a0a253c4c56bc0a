"""Words that people get wrong: one line that names what is off, docker's exit code, and nothing left behind."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.daemons import Result, Room
from tests.helpers.warren import PROGRAM


class Shell:
    def __init__(self, room: Room) -> None:
        self.room = room

    def __call__(self, words: str) -> Result:
        return self.room(PROGRAM, *shlex.split(words))


@pytest.fixture(scope="module")
def warren(session_directory: Path, token: str) -> Iterator[Shell]:
    """With an image, small, and a container that does not run, mole; an image of another architecture is not there."""
    with Room(session_directory / "words", token) as room:
        room("mount", "-t", "tmpfs", "tmpfs", "/var/lib").ok()
        shell = Shell(room)
        shell("image bootstrap busybox small").ok()
        shell("create --name mole small true").ok()
        yield shell
        shell("rm mole").ok()


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        # No such thing.
        ("frobnicate", 125, "no such command 'frobnicate'"),
        ("run --no-such small true", 125, "no such option"),
        ("run --pull never none true", 125, "no such image: none"),
        ("run --pull never --platform linux/s390x small true", 125, "no such image for linux/s390x"),
        ("run --network none --mount type=bind,source=/no/such,target=/x small true", 125, "/no/such"),
        ("run --network none --volumes-from none small true", 125, "no such container: 'none'"),
        ("run --network none --pid container:none small true", 125, "no such container: 'none'"),
        ("run --network none --device /dev/none small true", 125, "--device /dev/none"),
        ("run --network none --rootfs /no/such true", 125, "--rootfs /no/such is not a directory"),
        ("run --network none --env-file /no/such small true", 125, "--env-file /no/such"),
        ("run --network none --label-file /no/such small true", 125, "--label-file /no/such"),
        ("run --network none --user nobodyatall small true", 125, "'nobodyatall' is unknown"),
        ("run --network no-such small true", 125, "no-such"),
        ("run --rm --network none small /no/such", 127, "/no/such"),
        ("run --rm --network none small no-such", 127, "no-such"),
        ("run --rm --network none small /etc", 126, "/etc"),
        ("run --rm --network none small /etc/passwd", 126, "/etc/passwd"),
        ("exec none true", 1, "no such container: 'none'"),
        ("exec mole true", 1, "not running"),
        ("stop none", 1, "no such container: 'none'"),
        ("kill mole", 1, "not running"),
        ("rename none some", 1, "no such container: 'none'"),
        # Taken.
        ("create --name mole small true", 125, "'mole' is in use"),
        ("run --network none --name mole small true", 125, "'mole' is in use"),
        ("rename mole mole", 1, "'mole' is in use"),
        ("run --network none --cidfile /etc/passwd small true", 125, "--cidfile /etc/passwd exists"),
        # No value of that kind.
        ("run --name /mole small true", 125, "invalid container name '/mole'"),
        ("run --timeout 0 small true", 125, "'0'"),
        ("run --timeout nan small true", 125, "'nan'"),
        ("run --stop-timeout x small true", 125, "'x'"),
        ("run --stop-signal NOPE small true", 125, "'NOPE'"),
        ("run --pull sometimes small true", 125, "'sometimes'"),
        ("run --platform linux small true", 125, "'linux'"),
        ("run --restart maybe small true", 125, "'maybe'"),
        ("run --detach-keys ctrl-zz small true", 125, "'ctrl-zz'"),
        ("run --log-driver syslog small true", 125, "'syslog'"),
        ("run --log-opt mode=x small true", 125, "'mode'"),
        ("run --log-opt max-size=x small true", 125, "max-size"),
        ("run --health-interval x --health-cmd y small true", 125, "--health-interval 'x'"),
        ("run --label =x small true", 125, "--label '=x'"),
        ("run --attach nothing small true", 125, "'nothing'"),
        ("run --sig-proxy=maybe small true", 125, "maybe"),
        ("run --init=maybe small true", 125, "--init"),
        ("run --replicas=-1 small true", 125, "--replicas -1"),
        ("run --network none --annotation x small true", 125, "--annotation 'x'"),
        ("run --network none --memory x small true", 125, "--memory 'x'"),
        ("run --network none --cpus x small true", 125, "--cpus 'x'"),
        ("run --network none --shm-size x small true", 125, "--shm-size 'x'"),
        ("run --network none --cap-add NOPE small true", 125, "NOPE"),
        ("run --network none --ulimit x=1 small true", 125, "'x'"),
        ("run --network none --ulimit nofile=9:1 small true", 125, "nofile=9:1"),
        ("run --network none --volume /a:/b:huh small true", 125, "'huh'"),
        ("run --network none --tmpfs relative small true", 125, "'relative'"),
        ("run --network none --workdir relative small true", 125, "'relative'"),
        ("run --network none --sysctl kernel.x=1 small true", 125, "kernel.x"),
        ("run --network none --security-opt what small true", 125, "'what'"),
        ("run --network none --userns what small true", 125, "'what'"),
        ("run UPPER true", 125, "'UPPER'"),
        ("create --network none --memory x small true", 125, "--memory 'x'"),
        ("create --network none --volume relative small true", 125, "'relative'"),
        ("kill --signal NOPE mole", 125, "'NOPE'"),
        ("stop --time x mole", 125, "'x'"),
        # What does not go together.
        ("run --detach --attach stdout small true", 125, "--attach and --detach"),
        ("run --restart always --rm small true", 125, "--restart and --rm"),
        ("run --replace small true", 125, "--replace needs --name"),
        ("run --replicas 2 --cidfile /tmp/x small true", 125, "--cidfile and --replicas"),
        ("run --health-cmd x --no-healthcheck small true", 125, "--no-healthcheck and --health-cmd"),
        ("run --write small true", 125, "--write"),
        ("run --write host true", 125, "--write"),
        ("run --platform linux/amd64 host true", 125, "--platform"),
        ("run --network none --memory 100m --memory-swap 50m small true", 125, "--memory-swap"),
        ("run --network none --cpus 1 --cpu-quota 1000 small true", 125, "--cpus"),
        ("run --network none --hostname a --uts host small true", 125, "--hostname"),
        ("run --network none --interactive --tty small true", 1, "stdin is not a terminal"),
        ("start --attach mole vole", 125, "one container"),
        # Too few words.
        ("run", 125, "no source and no command"),
        ("run ''", 125, "the image has no name"),
        ("run --rm", 125, "no source and no command"),
        ("run --name", 125, "--name"),
        ("run --rootfs / --network none", 125, "no command"),
        ("exec", 125, "no container"),
        ("exec mole", 125, "no command"),
        ("stop", 125, "missing argument"),
        ("rename mole", 125, "missing argument"),
    ],
)
def test_bad_words_are_told_in_one_line_and_leave_nothing(warren: Shell, words: str, code: int, problem: str) -> None:
    found = warren(words)
    found.fails(code, problem)
    assert found.out == ""
    assert warren("ps --all --format {{.Names}}").ok().out == "mole\n"


def test_of_several_names_the_good_ones_are_done(warren: Shell) -> None:
    warren("create --name vole small true").ok()
    found = warren("rm vole none")
    assert (found.code, found.out, found.err) == (1, "vole\n", "warren: no such container: 'none'\n")
    assert (warren("rm --force none").ok().out, warren("ps --all --quiet").ok().out.count("\n")) == ("", 1)


def test_of_replicas_the_error_says_how_many_run(warren: Shell) -> None:
    """The name of the third is taken."""
    warren("create --name hare-3 small true").ok()
    found = warren("run --network none --name hare --replicas 3 small sleep 100")
    assert found.code == 125
    assert "2 of 3 replicas run: container name 'hare-3' is in use" in found.err
    assert len(found.out.split()) == 2
    warren("rm --force hare-1 hare-2 hare-3").ok()


@pytest.mark.parametrize(("options", "told"), [("--init=true --tty=false", "1"), ("--init=false", "0")])
def test_flags_may_say_true_or_false(warren: Shell, options: str, told: str) -> None:
    done = warren(f"run --rm --network none {options} small sh -c 'grep -c init /proc/1/comm'")
    assert done.out.strip() == told


def test_an_annotation_reaches_the_container(warren: Shell) -> None:
    warren("run --rm --network none --annotation a.b=c --detach --name owl small sleep 100").ok()
    (found,) = warren.room("sh", "-c", "grep -l a.b /run/warren/*/state.json").ok().out.split()
    assert '"a.b":"c"' in warren.room("cat", found).out
    warren("rm --force owl").ok()


def test_a_cidfile_holds_the_id_and_labels_come_from_files(warren: Shell) -> None:
    warren.room("sh", "-c", "printf 'a=1\\n# no\\nb=2\\n' >/run/labels").ok()
    created = warren("create --name owl --cidfile /run/cid --label-file /run/labels --label b=3 small true").ok()
    assert warren.room("cat", "/run/cid").out == created.out.strip()
    labels = warren("inspect --format '{{json .Config.Labels}}' owl").ok().out
    assert '"a":"1"' in labels and '"b":"3"' in labels
    warren("rm owl").ok()


def test_a_cidfile_that_cannot_be_written_leaves_no_container(warren: Shell) -> None:
    warren("create --cidfile /no/such/file small true").fails(125, "--cidfile /no/such/file")
    assert warren("ps --all --format {{.Names}}").ok().out == "mole\n"
