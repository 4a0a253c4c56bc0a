"""Processes that unpack: what they answer, and that they end with whoever asked them."""

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.workers import WORTH, Feed, Workers
from tests.helpers.layers import END, entry

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor needs no workers")


class Den:
    """A blob in a file, and a directory to unpack it to."""

    def __init__(self, directory: Path) -> None:
        self.blob, self.layer, self.lock = directory / "blob", directory / "layer", directory / "lock"
        self.layer.mkdir()
        self.lock.touch()
        self.workers = Workers(str(self.lock))

    def feed(self, data: bytes) -> Feed:
        self.blob.write_bytes(data)
        feed = self.workers.take(WORTH, str(self.blob), str(self.layer), privileged=False)
        assert feed
        return feed


@pytest.fixture
def den(tmp_path: Path) -> Iterator[Den]:
    den = Den(tmp_path)
    with den.workers:
        yield den


def test_a_blob_is_unpacked_while_it_comes(den: Den) -> None:
    content = os.urandom(1 << 20)
    plain = entry("first", data=b"1") + entry("large", data=content) + entry("last", mode=0o666, mtime=5) + END
    blob = gzip.compress(plain)
    feed = den.feed(blob[:1000])
    feed.more(1000)
    wait_for(lambda: (den.layer / "first").exists())
    assert not (den.layer / "last").exists()
    den.blob.write_bytes(blob)
    result = feed.finish(len(blob))
    assert (result.size, result.diff_id) == (len(blob), "sha256:" + hashlib.sha256(plain).hexdigest())
    assert result.notes == []
    assert result.implied == [b""]
    assert (den.layer / "large").read_bytes() == content
    assert (den.layer / "last").stat().st_mode & 0o7777 == 0o666
    assert (den.layer / "last").stat().st_mtime == 5


def test_what_is_not_compressed_is_hashed_by_who_has_the_blob(den: Den) -> None:
    blob = entry("file") + END
    assert den.feed(blob).finish(len(blob)).diff_id == ""


def test_a_fault_is_told_before_the_end_and_the_next_blob_is_unpacked(den: Den) -> None:
    hostile = entry("../escape", data=bytes(1 << 20))
    feed = den.feed(hostile)
    with pytest.raises(ImageError, match=r"climbs with '\.\.'"):
        wait_for(lambda: feed.more(len(hostile)) is not None)
    feed.abandon()
    assert den.feed(entry("good") + END).finish(1536).size == 1536
    assert os.listdir(den.layer) == ["good"]


def test_a_blob_that_is_cut_off_is_an_error(den: Den) -> None:
    whole = entry("file", data=bytes(1000)) + END
    with pytest.raises(ImageError, match="cut off"):
        den.feed(whole[:700]).finish(700)
    with pytest.raises(ImageError, match="cut off while it was read"):
        den.feed(whole).finish(len(whole) + 1)


def test_a_system_call_that_fails_is_told_as_one(den: Den) -> None:
    den.layer.rmdir()
    with pytest.raises(FileNotFoundError, match="layer"):
        den.feed(entry("file") + END).finish(1536)


def test_an_abandoned_blob_leaves_the_worker_for_others(den: Den) -> None:
    feed = den.feed(entry("file", data=bytes(5000))[:1000])
    feed.more(1000)
    feed.abandon()
    assert den.feed(entry("other") + END).finish(1536).size == 1536


def test_more_blobs_than_workers(den: Den) -> None:
    """Those that find none free are begun when their turn comes."""
    feeds = [den.feed(entry("file") + END) for _ in range(den.workers.count + 2)]
    for feed in feeds:
        feed.more(512)
    assert len(children(os.getpid())) <= den.workers.count
    assert [feed.finish(1536).size for feed in feeds] == [1536] * len(feeds)


def test_small_blobs_are_not_worth_it(den: Den) -> None:
    assert den.workers.take(WORTH - 1, "", "", privileged=False) is None
    assert children(os.getpid()) == []


def test_a_worker_that_is_killed_is_an_error(den: Den) -> None:
    feed = den.feed(entry("file") + END)
    feed.more(100)
    os.kill(children(os.getpid())[0], signal.SIGKILL)
    with pytest.raises(ImageError, match="has ended"):
        feed.finish(1536)


ASK = """
import sys, time
from runtime.images.workers import WORTH, Workers
lock, blob, layer = sys.argv[1:]
workers = Workers(lock)
feed = workers.take(WORTH, blob, layer, privileged=False)
feed.more(1024)
print("asked", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_who_asked(den: Den, ending: signal.Signals) -> None:
    """Until then they hold the store's lock: what they write is nobody's to collect."""
    den.blob.write_bytes(entry("file") + END)
    words = [sys.executable, "-c", ASK, str(den.lock), str(den.blob), str(den.layer)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        wait_for(lambda: (den.layer / "file").exists())
        (worker,) = children(process.pid)
        assert subprocess.run(["flock", "--exclusive", "--nonblock", den.lock, "true"]).returncode == 1
        process.send_signal(ending)
    wait_for(lambda: subprocess.run(["flock", "--exclusive", "--nonblock", den.lock, "true"]).returncode == 0)
    wait_for(lambda: not Path(f"/proc/{worker}/exe").exists())


def children(pid: int) -> list[int]:
    """Of its every thread: workers are started by whoever needs one first."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")
