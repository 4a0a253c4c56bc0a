"""Reading logs: formats, rotated files, selection; no container is needed."""

import json
import time
from pathlib import Path

import pytest

from runtime.engine import log_reader
from runtime.engine.log_reader import Entry, Selection, lines, moment
from runtime.engine.records import Record
from runtime.errors import StateError, UsageError


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return make(tmp_path, "json-file")


def make(place: Path, driver: str) -> Record:
    found = Record("f" * 64, {"id": "f" * 64, "name": "writer", "config": {"argv": ["x"], "log_driver": driver}})
    found.root = str(place / "state")
    found.path = str(place / driver)
    Path(found.path).mkdir()
    return found


def stamp(number: int) -> str:
    return f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000000000Z"


def json_line(number: int, text: str, stream: str = "stdout") -> str:
    return json.dumps({"log": text, "stream": stream, "time": stamp(number)}) + "\n"


def read(record: Record, **selection: object) -> list[Entry]:
    found = list(log_reader.read(record, Selection(**selection)))  # type: ignore[arg-type]
    return [entry for entry in found if entry]


def text(entries: list[Entry]) -> str:
    return b"".join(entry.data for entry in entries).decode()


def test_json_lines_and_streams(record: Record) -> None:
    content = (
        json_line(1, "one\n") + json_line(2, "zwei ä \x01\n", "stderr") + json_line(3, "par") + json_line(4, "t\n")
    )
    Path(record.path, "log").write_text(content)
    found = read(record)
    assert [entry.data.decode() for entry in found] == ["one\n", "zwei ä \x01\n", "par", "t\n"]
    assert [entry.stream for entry in found] == ["stdout", "stderr", "stdout", "stdout"]
    assert found[1].time == stamp(2)


def test_k8s_lines_keep_every_byte(tmp_path: Path) -> None:
    record = make(tmp_path, "k8s-file")
    content = f"{stamp(1)} stdout F one  two\n{stamp(2)} stderr P \n{stamp(3)} stdout F ".encode() + b"\xff\n"
    Path(record.path, "log").write_bytes(content)
    assert [(entry.stream, entry.data) for entry in read(record)] == [
        ("stdout", b"one  two\n"),
        ("stderr", b""),
        ("stdout", b"\xff\n"),
    ]


def test_rotated_files_come_in_their_order(record: Record) -> None:
    for name, number in (("log.2", 1), ("log.1", 2), ("log", 3)):
        Path(record.path, name).write_text(json_line(number, f"{number}\n"))
    assert text(read(record)) == "1\n2\n3\n"


@pytest.mark.parametrize(
    "damage", ["", "{", "null\n", "[]\n", '{"log": 1}\n', "\x00" * 5000 + "\n", "[" * 100000 + "\n"]
)
def test_a_damaged_entry_hides_no_other(record: Record, damage: str) -> None:
    Path(record.path, "log").write_text(json_line(1, "one\n") + damage + "\n" + json_line(2, "two\n"))
    assert text(read(record)) == "one\ntwo\n"
    assert text(read(record, tail=2)) == "one\ntwo\n"


def test_an_entry_whose_end_is_missing_is_left_out(record: Record) -> None:
    Path(record.path, "log").write_text(json_line(1, "one\n") + json_line(2, "two\n")[:-5])
    assert text(read(record)) == "one\n"
    assert text(read(record, tail=1)) == "one\n"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 11, 10**9])
@pytest.mark.parametrize("files", [1, 3, 10])
def test_tail_counts_lines_over_all_files(record: Record, count: int, files: int) -> None:
    numbers = list(range(10))
    for file in range(files):
        mine = numbers[file * 10 // files : (file + 1) * 10 // files]
        name = f"log.{files - 1 - file}" if file < files - 1 else "log"
        # Each line is of two parts, and long enough that blocks end within lines.
        parts = [(f"{number} " + "x" * 20000, f"{number}\n") for number in mine]
        Path(record.path, name).write_text("".join(json_line(1, part) for pair in parts for part in pair))
    shown = text(read(record, tail=count)).splitlines()
    assert [int(line.split()[0]) for line in shown] == (numbers[-count:] if count else [])


def test_tail_counts_an_unfinished_line(record: Record) -> None:
    Path(record.path, "log").write_text(json_line(1, "one\n") + json_line(2, "two\n") + json_line(3, "prompt> "))
    assert text(read(record, tail=1)) == "prompt> "
    assert text(read(record, tail=2)) == "two\nprompt> "


def test_a_literal_newline_escape_ends_no_line(record: Record) -> None:
    Path(record.path, "log").write_text(json_line(1, "one\n") + json_line(2, "two\\n") + json_line(3, "three\n"))
    assert text(read(record, tail=1)) == "two\\nthree\n"


def test_since_and_until(record: Record) -> None:
    Path(record.path, "log").write_text("".join(json_line(number, f"{number}\n") for number in range(10)))
    assert text(read(record, since=stamp(7))) == "7\n8\n9\n"
    assert text(read(record, until=stamp(1))) == "0\n1\n"
    assert text(read(record, since=stamp(4), until=stamp(5))) == "4\n5\n"
    assert text(read(record, tail=3, since=stamp(8))) == "8\n9\n"


def test_no_log_is_an_error_and_no_file_is_none(record: Record, tmp_path: Path) -> None:
    assert read(record) == []
    assert read(record, tail=3) == []
    with pytest.raises(StateError, match="has no log"):
        read(make(tmp_path, "none"))


def test_times_as_docker_takes_them() -> None:
    assert moment("", "--since") == ""
    assert moment("10", "--since") == "1970-01-01T00:00:10.000000000Z"
    assert moment("1767225600", "--since") == "2026-01-01T00:00:00.000000000Z"
    assert moment("1767225600.000000007", "--since") == "2026-01-01T00:00:00.000000007Z"
    assert moment("2026-01-01T01:00:00.5+01:00", "--since") == "2026-01-01T00:00:00.500000000Z"
    assert moment("2026-01-01T00:00:00.123456789Z", "--since") == "2026-01-01T00:00:00.123456789Z"
    local = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.mktime((2026, 1, 2, 0, 0, 0, 0, 0, -1))))
    assert moment("2026-01-02", "--since") == f"{local}.000000000Z"
    assert moment("2026-01-02T00:00", "--since") == f"{local}.000000000Z"
    before = moment(str(int(time.time()) - 600), "--since")
    assert before <= moment("10m", "--since") <= moment(str(int(time.time()) - 590), "--since")
    assert moment("1h30m", "--since") < moment("10m", "--since")


@pytest.mark.parametrize("word", ["yesterday", "2026-02-30", "2026-01-01T25:00", "1e9", "10 m", "٣m"])
def test_what_is_no_time(word: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        moment(word, "--since")


def test_numbers_of_lines() -> None:
    assert (lines("all"), lines("-1"), lines("0"), lines("12")) == (-1, -1, 0, 12)
    for word in ("", "x", "-2", "1.5", "9" * 20):
        with pytest.raises(UsageError):
            lines(word)
